//! What a session goes through: login, calls, refreshes, theft, the end.

use rekindle::refresh::Opening;
use serde_json::{Value, json};

use crate::server::{Server, header, names, payload};

#[tokio::test]
async fn the_server_says_which_versions_it_speaks() {
    let server = Server::new().await;
    let answer = server.anyone().get("/apiversion?websiteDomain=x&apiDomain=y").await;
    let versions: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(names(&versions), ["versions"]);
    let versions: Vec<&str> = versions["versions"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    for version in ["1.0", "2.0", "2.9", "2.20", "2.21", "3.0", "3.1", "4.0", "5.0", "5.3", "5.4"] {
        assert!(versions.contains(&version), "{version}");
    }
    for (line, path) in [("GET", "/hello"), ("POST", "/hello"), ("PUT", "/hello"), ("DELETE", "/hello/"), ("GET", "/")]
    {
        server.anyone().ask(&format!("{line} {path}"), Value::Null).await.line(200, "Hello");
    }
}

#[tokio::test]
async fn the_first_verify_after_a_refresh_confirms_it_and_then_the_parent_is_theft() {
    let server = Server::new().await;
    let client = server.cdi("5.4");
    let first = client.create("ann", json!({ "userDataInJWT": { "iss": "https://a.example", "x": null } })).await;
    assert_eq!(header(&first["accessToken"]["token"])["version"], "5");
    assert_eq!(payload(&first["accessToken"]["token"])["parentRefreshTokenHash1"], Value::Null);
    assert!(
        client.verify(&first).await.ok().get("accessToken").is_none(),
        "a session that never refreshed has nothing to confirm"
    );

    server.pass(10);
    let second = client.refresh(&first).await.ok();
    let again = client.refresh(&first).await.ok();
    assert_eq!(again["refreshToken"]["token"], second["refreshToken"]["token"], "a lost answer is given again");
    assert!(payload(&second["accessToken"]["token"])["parentRefreshTokenHash1"].is_string());

    let verified = client.verify(&second).await.ok();
    let third = payload(&verified["accessToken"]["token"]);
    assert_eq!(third["parentRefreshTokenHash1"], Value::Null);
    assert_eq!(third["refreshTokenHash1"], payload(&second["accessToken"]["token"])["refreshTokenHash1"]);
    assert_eq!(verified["session"]["userDataInJWT"], json!({ "iss": "https://a.example", "x": null }));
    assert!(client.verify_with(&verified["accessToken"]["token"], json!({})).await.ok().get("accessToken").is_none());

    let theft = client.refresh(&first).await.word("TOKEN_THEFT_DETECTED");
    let handle = first["session"]["handle"].clone();
    assert_eq!(theft["session"], json!({ "handle": handle, "userId": "ann", "recipeUserId": "ann" }));
    // It is reported; the SDK ends the session.
    client.refresh(&second).await.ok();
    let removed = client.post("/session/remove", json!({ "sessionHandles": [handle, "unknown"] })).await.ok();
    assert_eq!(removed["sessionHandlesRevoked"], json!([handle]));
    client.refresh(&second).await.word("UNAUTHORISED");
    let check = json!({ "checkDatabase": true });
    client.verify_with(&verified["accessToken"]["token"], check).await.word("UNAUTHORISED");
    client.verify_with(&verified["accessToken"]["token"], json!({})).await.ok();
}

#[tokio::test]
async fn a_child_that_is_refreshed_makes_its_parent_theft_too() {
    let server = Server::new().await;
    let client = server.cdi("5.4");
    let first = client.create("ann", json!({})).await;
    let second = client.refresh(&first).await.ok();
    let third = client.refresh(&second).await.ok();
    client.refresh(&first).await.word("TOKEN_THEFT_DETECTED");
    // The child's child was not used: its parent is good.
    assert_eq!(client.refresh(&second).await.ok()["refreshToken"]["token"], third["refreshToken"]["token"]);
    let verified = client.verify(&second).await.ok();
    assert_eq!(payload(&verified["accessToken"]["token"])["parentRefreshTokenHash1"], Value::Null);
}

#[tokio::test]
async fn an_expired_access_token_is_to_be_refreshed_and_an_expired_session_is_over() {
    let server = Server::new().await;
    let client = server.cdi("5.4");
    let tokens = client.create("ann", json!({})).await;
    let (access, refresh) = (&tokens["accessToken"], &tokens["refreshToken"]);
    assert_eq!(names(access), ["createdTime", "expiry", "token"]);
    assert_eq!(access["expiry"].as_i64().unwrap() - server.now(), 3600 * 1000);
    assert_eq!(refresh["expiry"].as_i64().unwrap() - server.now(), 100 * 86_400 * 1000);
    server.pass(3600);
    client.verify(&tokens).await.word("TRY_REFRESH_TOKEN");
    server.pass(100 * 86_400 - 3600);
    client.refresh(&tokens).await.word("UNAUTHORISED");
}

#[tokio::test]
async fn the_keys_are_published_with_the_time_until_the_next_one() {
    let server = Server::new().await;
    let before = server.anyone().get("/.well-known/jwks.json").await;
    assert_eq!(
        (before.text.as_str(), before.headers["cache-control"].to_str().unwrap()),
        (r#"{"keys":[]}"#, "max-age=1, must-revalidate")
    );
    let client = server.cdi("5.4");
    let dynamic = client.create("ann", json!({})).await;
    let fixed = client.create("ann", json!({ "useDynamicSigningKey": false })).await;
    let answer = server.anyone().get("/.well-known/jwks.json").await;
    assert_eq!(answer.headers["cache-control"], "max-age=3600, must-revalidate");
    let jwks: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(names(&jwks), ["keys"]);
    let [d, s] = &jwks["keys"].as_array().unwrap()[..] else { panic!("{jwks}") };
    assert_eq!(names(d), ["alg", "e", "kid", "kty", "n", "use"]);
    assert_eq!(d["kid"], format!("d-{}", server.now()));
    assert!(s["kid"].as_str().unwrap().starts_with("s-"));
    assert_eq!(header(&dynamic["accessToken"]["token"])["kid"], d["kid"]);
    assert_eq!(header(&fixed["accessToken"]["token"])["kid"], s["kid"]);
    // The other kind from the next refresh on.
    let moved = client.refresh(&fixed).await.ok();
    assert_eq!(header(&moved["accessToken"]["token"])["kid"], d["kid"]);
    let old = server.cdi("5.4").get("/recipe/jwt/jwks").await.ok();
    assert_eq!(old["keys"], jwks["keys"]);
}

#[tokio::test]
async fn from_5_6_on_a_refresh_confirms_itself_and_a_parent_is_good_for_the_grace_period() {
    let server = Server::new().await;
    let client = server.cdi("5.6");
    let first = client.create("ann", json!({ "accessTokenValidity": 60_000 })).await;
    assert_eq!(first["accessToken"]["expiry"].as_i64().unwrap() - server.now(), 60_000);
    let body = json!({
        "userId": "ann", "userDataInJWT": {}, "userDataInDatabase": {}, "enableAntiCsrf": false, "accessTokenValidity": 3_600_001,
    });
    client.post("/session", body).await.line(400, "accessTokenValidity must be from 1000 to 3600000 ms");

    let second = client.refresh(&first).await.ok();
    assert_eq!(payload(&second["accessToken"]["token"])["parentRefreshTokenHash1"], Value::Null);
    server.pass(29);
    assert_eq!(client.refresh(&first).await.ok()["refreshToken"]["token"], second["refreshToken"]["token"]);
    assert_eq!(names(&client.verify(&second).await.ok()), ["session", "status"]);

    // A verify says that there is a new payload, and mints nothing.
    let body = json!({ "sessionHandle": first["session"]["handle"], "userDataInJWT": { "x": 1 } });
    client.ask("PUT /recipe/jwt/data", body).await.ok();
    let verified = client.verify_with(&second["accessToken"]["token"], json!({ "checkDatabase": true })).await.ok();
    assert_eq!((&verified["payloadUpdateAvailable"], verified.get("accessToken")), (&json!(true), None));

    server.pass(1);
    let theft = client.refresh(&first).await.word("TOKEN_THEFT_DETECTED");
    assert_eq!(theft["recentTokenReuseSubtype"], "RECENT_PREV");
    client.refresh(&second).await.word("UNAUTHORISED");

    let old = client.create("bob", json!({})).await;
    let next = client.refresh(&old).await.ok();
    client.refresh(&next).await.ok();
    assert_eq!(client.refresh(&old).await.word("TOKEN_THEFT_DETECTED")["recentTokenReuseSubtype"], "STALE_LINEAGE");
}

#[tokio::test]
async fn from_5_6_on_a_session_s_access_tokens_are_looked_up_by_their_lineage() {
    let server = Server::new().await;
    let client = server.cdi("5.6");
    let check = json!({ "checkDatabase": true });
    let first = client.create("ann", json!({})).await;
    let second = client.refresh(&first).await.ok();
    client.verify_with(&first["accessToken"]["token"], check.clone()).await.ok();
    client.refresh(&second).await.ok();
    client.verify_with(&second["accessToken"]["token"], check.clone()).await.ok();
    client.verify_with(&first["accessToken"]["token"], check).await.word("UNAUTHORISED");
}

#[tokio::test]
async fn es256_is_for_dynamic_keys_and_for_tokens_that_name_their_key() {
    let server = Server::configured("[supertokens]\naccess_token_algorithm = 'ES256'").await;
    let client = server.cdi("5.4");
    let signed_by = |tokens: &Value| header(&tokens["accessToken"]["token"])["alg"].clone();
    let dynamic = client.create("ann", json!({})).await;
    let fixed = client.create("ann", json!({ "useDynamicSigningKey": false })).await;
    assert_eq!((signed_by(&dynamic), signed_by(&fixed)), (json!("ES256"), json!("RS256")));
    client.verify_with(&dynamic["accessToken"]["token"], json!({ "checkDatabase": true })).await.ok();
    let next = client.refresh(&dynamic).await.ok();
    assert_eq!(signed_by(&client.verify(&next).await.ok()), "ES256", "signed again with its own kind of key");

    let keys = server.anyone().get("/.well-known/jwks.json").await;
    let keys: Value = serde_json::from_str(&keys.text).unwrap();
    let [rsa, ec, _] = &keys["keys"].as_array().unwrap()[..] else { panic!("{keys}") };
    assert_eq!(names(ec), ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    assert_eq!(header(&dynamic["accessToken"]["token"])["kid"], ec["kid"]);
    assert!(ec["kid"].as_str().unwrap().starts_with("d-") && ec["kid"] != rsa["kid"]);

    // Clients that know no key sets verify with the one key that they were told.
    let old = server.cdi("2.20");
    let tokens = old.create("bob", json!({})).await;
    old.verify(&tokens).await.ok();
    // A header that claims the other algorithm is nobody's.
    let text = dynamic["accessToken"]["token"].as_str().unwrap();
    let (_, rest) = text.split_once('.').unwrap();
    let (head, _) = fixed["accessToken"]["token"].as_str().unwrap().split_once('.').unwrap();
    client.verify_with(&json!(format!("{head}.{rest}")), json!({})).await.word("TRY_REFRESH_TOKEN");
}

#[tokio::test]
async fn a_client_that_proves_its_refreshes_has_the_rules_for_committed_ones() {
    let server = Server::new().await;
    let client = server.cdi("5.4");
    let [one, two, three] = [1, 2, 3].map(|n| Opening::from_bytes(&[n; 32]).unwrap());
    let refresh = async |tokens: &Value, next: &Opening, held: Option<&Opening>| {
        let token = tokens["refreshToken"]["token"].as_str().unwrap();
        let held = held.map_or_else(String::new, |held| format!("~{}", *held.expose()));
        client.refresh_with(&json!(format!("{token}~{}{held}", next.commitment())), json!({})).await
    };
    let first = client.create("ann", json!({})).await;
    let second = refresh(&first, &one, None).await.ok();
    client.verify(&second).await.ok();
    server.pass(86_400);
    let again = refresh(&first, &one, None).await.ok();
    assert_eq!(again["refreshToken"]["token"], second["refreshToken"]["token"], "a lost answer, however late");

    // Who has the token alone gets nothing, and does no harm.
    let told = client.refresh(&second).await.word("UNAUTHORISED");
    assert_eq!(told["message"], "The session's client has to send a proof");
    refresh(&second, &three, None).await.word("UNAUTHORISED");
    let third = refresh(&second, &two, Some(&one)).await.ok();
    client.verify(&third).await.ok();

    // A copy of the client, overtaken; and a token in wrong hands.
    refresh(&second, &three, Some(&one)).await.word("TOKEN_THEFT_DETECTED");
    refresh(&third, &three, Some(&one)).await.word("TOKEN_THEFT_DETECTED");

    let damaged = json!(format!("{}~{}x", third["refreshToken"]["token"].as_str().unwrap(), three.commitment()));
    client.refresh_with(&damaged, json!({})).await.word("UNAUTHORISED");
    refresh(&third, &three, Some(&two)).await.ok();
}

#[tokio::test]
async fn what_a_recently_replaced_token_is_told_can_be_chosen() {
    let server = Server::configured("[supertokens]\nrecent_token_reuse_behaviour = 'UNAUTHORISED'").await;
    let client = server.cdi("5.6");
    let first = client.create("ann", json!({})).await;
    client.refresh(&first).await.ok();
    server.pass(31);
    let told = client.refresh(&first).await.word("UNAUTHORISED");
    assert_eq!(told["recentTokenReuseSubtype"], "RECENT_PREV");
}

#[tokio::test]
async fn an_application_that_begins_to_ask_for_anti_csrf_tokens_logs_nobody_out() {
    let server = Server::new().await;
    let client = server.cdi("5.4");
    let on = |token: Option<&Value>| json!({ "enableAntiCsrf": true, "antiCsrfToken": token });
    let before = client.create("ann", json!({})).await;
    let first = client.refresh_with(&before["refreshToken"]["token"], on(None)).await.ok();
    client.verify(&first).await.ok();
    // From here on the client has one, and must send it.
    client.refresh_with(&first["refreshToken"]["token"], on(None)).await.word("UNAUTHORISED");
    let given = Some(&first["antiCsrfToken"]);
    let second = client.refresh_with(&first["refreshToken"]["token"], on(given)).await.ok();
    // Off, and on again.
    let third = client.refresh(&second).await.ok();
    client.refresh_with(&third["refreshToken"]["token"], on(None)).await.ok();
}

#[tokio::test]
async fn a_session_that_seems_over_is_ended_all_the_same() {
    let server = Server::new().await;
    let client = server.cdi("5.4");
    let tokens = client.create("ann", json!({})).await;
    let remove = async || {
        let body = json!({ "sessionHandles": [tokens["session"]["handle"]] });
        client.post("/session/remove", body).await.ok()["sessionHandlesRevoked"].clone()
    };
    server.pass(101 * 86_400);
    assert_eq!(remove().await, json!([]), "it was over");
    let id = tokens["session"]["handle"].as_str().unwrap().parse().unwrap();
    assert!(server.logged(id), "a store that lost its last refresh would revive it");
}

#[tokio::test]
async fn clients_of_two_times_share_a_session() {
    let server = Server::new().await;
    let (old, new) = (server.cdi("2.20"), server.cdi("5.4"));
    let first = old.create("ann", json!({})).await;
    let second = new.refresh(&first).await.ok();
    let third = old.refresh(&second).await.ok();
    old.verify(&third).await.ok();
    new.refresh(&second).await.word("TOKEN_THEFT_DETECTED");
    new.refresh(&third).await.ok();
}

#[tokio::test]
async fn blacklisting_is_for_older_clients_and_ends_their_access_tokens_at_once() {
    let server = Server::configured("[supertokens]\naccess_token_blacklisting = true").await;
    let client = server.cdi("2.20");
    assert_eq!(client.post("/handshake", json!({})).await.ok()["accessTokenBlacklistingEnabled"], true);
    let tokens = client.create("ann", json!({})).await;
    client.verify(&tokens).await.ok();
    client.post("/session/remove", json!({ "userId": "ann" })).await.ok();
    client.verify(&tokens).await.word("UNAUTHORISED");
    server.cdi("5.4").verify(&tokens).await.ok();
}

#[tokio::test]
async fn changed_lifetimes_of_the_server_hold_from_the_next_refresh_on() {
    let server =
        Server::configured("[supertokens]\naccess_token_validity = '5s'\nrefresh_token_validity = '10s'").await;
    let client = server.cdi("5.4");
    let tokens = client.create("ann", json!({})).await;
    let expires = |tokens: &Value, token: &str| tokens[token]["expiry"].as_i64().unwrap() - server.now();
    assert_eq!((expires(&tokens, "accessToken"), expires(&tokens, "refreshToken")), (5000, 10_000));
    let body = json!({ "appId": "public", "coreConfig": { "refresh_token_validity": 1 } });
    server.anyone().ask("PUT /recipe/multitenancy/app/v2", body).await.ok();
    let next = client.refresh(&tokens).await.ok();
    assert_eq!((expires(&next, "accessToken"), expires(&next, "refreshToken")), (5000, 60_000));
    let body = json!({ "appId": "public", "coreConfig": { "access_token_validity": 59 } });
    server.anyone().ask("PUT /recipe/multitenancy/app/v2", body).await.ok();
    let verified = client.verify(&next).await.ok();
    assert_eq!(expires(&verified, "accessToken"), 59_000);
}

#[tokio::test]
async fn a_list_of_keys_has_those_that_have_begun_to_sign_for_as_long_as_their_tokens_live() {
    const DAY: i64 = 86_400_000;
    let server = Server::new().await;
    let client = server.cdi("2.20");
    let (start, validity) = (server.now(), 3_600_000);
    let list = async || {
        let handshake = client.post("/handshake", json!({})).await.ok();
        let keys = handshake["jwtSigningPublicKeyList"].as_array().unwrap().clone();
        assert_eq!(keys[0]["publicKey"], handshake["jwtSigningPublicKey"], "the first one signs");
        let times =
            |key: &Value| (key["createdAt"].as_i64().unwrap() - start, key["expiryTime"].as_i64().unwrap() - start);
        keys.iter().map(times).collect::<Vec<_>>()
    };
    let first = (0, 30 * DAY + 2 * validity);
    assert_eq!(list().await, [first]);
    server.pass(29 * 86_400);
    server.app.engine().upkeep().await.unwrap();
    assert_eq!(list().await, [first], "the next one is published, and does not sign yet");
    server.pass(86_400);
    let second = (30 * DAY, 60 * DAY + 2 * validity);
    assert_eq!(list().await, [second, first]);
    server.pass(7200);
    assert_eq!(list().await, [second]);
}
