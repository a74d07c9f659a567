//! The members of each answer, per version of the interface: SDKs and their tests count them.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use crate::server::{Client, Server, names, payload};

/// One version of each time.
const VERSIONS: [&str; 15] =
    ["1.0", "2.0", "2.2", "2.3", "2.4", "2.6", "2.7", "2.8", "2.9", "2.20", "2.21", "3.0", "4.0", "5.0", "5.4"];

/// How far a version is in the list.
fn at(version: &str) -> usize {
    VERSIONS.iter().position(|v| *v == version).unwrap()
}

fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names
}

/// The members of a session, of the tokens and of the key information in this version.
struct Expected {
    session: Vec<&'static str>,
    tokens: Vec<&'static str>,
    keys: Vec<&'static str>,
    cookie: Vec<&'static str>,
    id_cookie: Vec<&'static str>,
}

fn expected(version: &str) -> Expected {
    let v = at(version);
    let mut session = vec!["handle", "userDataInJWT", "userId"];
    if v >= at("3.0") {
        session.push("tenantId");
    }
    if v >= at("4.0") {
        session.push("recipeUserId");
    }
    let mut tokens = vec!["accessToken", "refreshToken", "session", "status"];
    if v < at("2.21") {
        tokens.push("idRefreshToken");
    }
    let keys: &[&str] = match v {
        v if v < at("2.9") => &["jwtSigningPublicKey", "jwtSigningPublicKeyExpiryTime"],
        v if v < at("2.21") => &["jwtSigningPublicKey", "jwtSigningPublicKeyExpiryTime", "jwtSigningPublicKeyList"],
        _ => &[],
    };
    let plain = vec!["createdTime", "expiry", "token"];
    let cookie: &[&str] = match version {
        "1.0" => &["cookiePath", "cookieSecure", "domain"],
        "2.0" => &["cookiePath", "cookieSecure", "domain", "sameSite"],
        "2.2" | "2.3" => &["cookiePath", "cookieSecure", "sameSite"],
        _ => &[],
    };
    let cookie: Vec<&str> = sorted(plain.iter().chain(cookie).copied());
    let id_cookie = if version == "1.0" { plain } else { cookie.clone() };
    Expected { session: sorted(session), tokens, keys: keys.to_vec(), cookie, id_cookie }
}

/// The anti-CSRF token is configured up to 2.5 (on in 1.0), and asked for later.
fn has_anti_csrf(version: &str) -> bool {
    version == "1.0"
}

fn check_tokens(version: &str, answer: &Value, with_keys: bool) {
    let expected = expected(version);
    let mut members = expected.tokens.clone();
    members.extend(has_anti_csrf(version).then_some("antiCsrfToken"));
    members.extend(expected.keys.iter().filter(|_| with_keys));
    assert_eq!(names(answer), sorted(members), "{version}");
    assert_eq!(names(&answer["session"]), expected.session, "{version}");
    for token in ["accessToken", "refreshToken"] {
        assert_eq!(names(&answer[token]), expected.cookie, "{version} {token}");
    }
    if at(version) < at("2.21") {
        assert_eq!(names(&answer["idRefreshToken"]), expected.id_cookie, "{version}");
    }
}

#[tokio::test]
async fn login_refresh_and_verify() {
    let server = Server::new().await;
    for version in VERSIONS {
        let client = server.cdi(version);
        let first = client.create("", json!({ "userDataInJWT": { "a": null } })).await;
        check_tokens(version, &first, true);
        assert_eq!(
            (&first["session"]["userId"], &first["session"]["userDataInJWT"]),
            (&json!(""), &json!({ "a": null }))
        );
        let second = client.refresh(&first).await.ok();
        check_tokens(version, &second, false);
        let verified = client.verify(&second).await.ok();
        let expected = expected(version);
        assert_eq!(
            names(&verified),
            sorted(["accessToken", "session", "status"].into_iter().chain(expected.keys.clone())),
            "{version}"
        );
        assert_eq!(names(&verified["session"]), expected.session, "{version}");
        assert_eq!(names(&verified["accessToken"]), expected.cookie, "{version}");
        let again = client.verify(&verified).await.ok();
        assert_eq!(names(&again), sorted(["session", "status"].into_iter().chain(expected.keys)), "{version}");
        let theft = client.refresh(&first).await.word("TOKEN_THEFT_DETECTED");
        let mut said = vec!["handle", "userId"];
        said.extend((at(version) >= at("4.0")).then_some("recipeUserId"));
        assert_eq!(names(&theft["session"]), sorted(said), "{version}");
        assert_eq!(names(&theft), ["session", "status"], "{version}");
    }
}

#[tokio::test]
async fn each_version_has_its_access_token() {
    let server = Server::new().await;
    for (version, header) in [
        ("1.0", Some("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsInZlcnNpb24iOiIxIn0=")),
        ("2.20", Some("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsInZlcnNpb24iOiIyIn0=")),
        ("2.21", None),
        ("3.0", None),
        ("5.4", None),
    ] {
        let client = server.cdi(version);
        let tokens = client.create("ann", json!({ "userDataInJWT": { "role": "admin" } })).await;
        let token = &tokens["accessToken"]["token"];
        let fields = payload(token);
        match header {
            Some(header) => {
                assert!(token.as_str().unwrap().starts_with(&format!("{header}.")), "{version}");
                assert_eq!(fields["userData"], json!({ "role": "admin" }));
                assert_eq!(fields["expiryTime"], tokens["accessToken"]["expiry"]);
            }
            None => {
                assert_eq!((&fields["sub"], &fields["role"]), (&json!("ann"), &json!("admin")));
                assert_eq!(json!(fields["exp"].as_i64().unwrap() * 1000), tokens["accessToken"]["expiry"]);
                assert_eq!(
                    (fields.contains_key("tId"), fields.contains_key("rsub")),
                    (version >= "3.0", version >= "4.0")
                );
            }
        }
        // Whatever its version, a newer client is let in with it.
        server.cdi("5.4").verify(&tokens).await.ok();
    }
}

#[tokio::test]
async fn other_readers_accept_the_tokens_with_the_keys_that_they_are_given() {
    let server = Server::new().await;
    for version in ["1.0", "2.20"] {
        let client = server.cdi(version);
        let key = BASE64_STANDARD.decode(handshake(client).await["jwtSigningPublicKey"].as_str().unwrap()).unwrap();
        let tokens = client.create("ann", json!({})).await;
        let (message, signature) = tokens["accessToken"]["token"].as_str().unwrap().rsplit_once('.').unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(message.as_bytes(), &BASE64_STANDARD.decode(signature).unwrap())
            .unwrap();
    }
    for (version, dynamic) in [("2.21", true), ("3.0", false), ("5.4", true)] {
        let tokens = server.cdi(version).create("ann", json!({ "useDynamicSigningKey": dynamic })).await;
        let token = tokens["accessToken"]["token"].as_str().unwrap();
        let jwks: JwkSet = serde_json::from_str(&server.anyone().get("/.well-known/jwks.json").await.text).unwrap();
        let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
        let key = DecodingKey::from_jwk(jwks.find(&kid).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::RS256);
        // The test's clock stands in the future.
        validation.validate_exp = false;
        let read = jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap();
        assert_eq!(read.claims["sub"], "ann");
    }
}

#[tokio::test]
async fn a_refresh_moves_to_the_version_of_its_client_and_a_verify_does_not() {
    let server = Server::new().await;
    let old = server.cdi("2.20").create("ann", json!({})).await;
    let refreshed = server.cdi("5.4").refresh(&old).await.ok();
    assert!(payload(&refreshed["accessToken"]["token"]).contains_key("rsub"));
    let verified = server.cdi("3.0").verify(&refreshed).await.ok();
    assert!(payload(&verified["accessToken"]["token"]).contains_key("rsub"));
    // What was allowed in the old format and means something in the new one.
    let clash = server.cdi("2.20").create("ann", json!({ "userDataInJWT": { "sub": "x" } })).await;
    server.cdi("5.4").refresh(&clash).await.word("UNAUTHORISED");
    assert_eq!(server.cdi("2.20").refresh(&clash).await.ok()["session"]["userDataInJWT"], json!({ "sub": "x" }));
}

#[tokio::test]
async fn protected_names_depend_on_the_format() {
    let server = Server::new().await;
    for (version, name, refused) in [
        ("2.20", "sub", false),
        ("2.21", "sub", true),
        ("2.21", "tId", false),
        ("3.0", "tId", true),
        ("3.0", "rsub", false),
        ("4.0", "rsub", true),
        ("5.4", "iss", false),
        ("5.4", "aud", false),
    ] {
        let client = server.cdi(version);
        let body =
            json!({ "userId": "ann", "userDataInJWT": { name: 1 }, "userDataInDatabase": {}, "enableAntiCsrf": false });
        let answer = client.post("/session", body).await;
        if refused {
            answer.line(400, "The user payload contains protected field");
            let tokens = client.create("ann", json!({})).await;
            let body = json!({ "sessionHandle": tokens["session"]["handle"], "userDataInJWT": { name: 1 } });
            client.ask("PUT /recipe/jwt/data", body).await.line(400, "The user payload contains protected field");
            let body = json!({ "accessToken": tokens["accessToken"]["token"], "userDataInJWT": { name: 1 } });
            client.post("/session/regenerate", body).await.line(400, "The user payload contains protected field");
        } else {
            assert_eq!(answer.ok()["session"]["userDataInJWT"], json!({ name: 1 }));
        }
    }
}

async fn handshake<'a>(client: Client<'a>) -> Value {
    client.post("/handshake", json!({ "deviceDriverInfo": { "driver": {} } })).await.ok()
}

#[tokio::test]
async fn the_handshake_of_each_time() {
    let server = Server::new().await;
    const FIRST: [&str; 9] = [
        "accessTokenBlacklistingEnabled",
        "accessTokenPath",
        "cookieDomain",
        "cookieSecure",
        "enableAntiCsrf",
        "jwtSigningPublicKey",
        "jwtSigningPublicKeyExpiryTime",
        "refreshTokenPath",
        "status",
    ];
    assert_eq!(names(&handshake(server.cdi("1.0")).await), FIRST);
    let more = ["cookieSameSite", "idRefreshTokenPath", "sessionExpiredStatusCode"];
    assert_eq!(names(&handshake(server.cdi("2.0")).await), sorted(FIRST.into_iter().chain(more)));
    let without_domain = FIRST.into_iter().chain(more).filter(|name| *name != "cookieDomain");
    assert_eq!(names(&handshake(server.cdi("2.3")).await), sorted(without_domain));
    const LATER: [&str; 6] = [
        "accessTokenBlacklistingEnabled",
        "accessTokenValidity",
        "jwtSigningPublicKey",
        "jwtSigningPublicKeyExpiryTime",
        "refreshTokenValidity",
        "status",
    ];
    assert_eq!(names(&handshake(server.cdi("2.4")).await), sorted(LATER.into_iter().chain(["enableAntiCsrf"])));
    assert_eq!(names(&handshake(server.cdi("2.6")).await), LATER);
    let newest = handshake(server.cdi("2.20")).await;
    assert_eq!(names(&newest), sorted(LATER.into_iter().chain(["jwtSigningPublicKeyList"])));
    assert_eq!(
        (&newest["accessTokenValidity"], &newest["refreshTokenValidity"]),
        (&json!(3_600_000), &json!(8_640_000_000_i64))
    );
    assert_eq!(names(&newest["jwtSigningPublicKeyList"][0]), ["createdAt", "expiryTime", "publicKey"]);
    assert_eq!(newest["jwtSigningPublicKeyList"][0]["publicKey"], newest["jwtSigningPublicKey"]);
    let key = newest["jwtSigningPublicKey"].as_str().unwrap();
    assert!(key.starts_with("MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A") && !key.contains('\n'), "an RSA key in X.509: {key}");
    server.cdi("2.21").post("/handshake", json!({})).await.line(404, "Not found");
}

#[tokio::test]
async fn the_rest_of_a_session() {
    let server = Server::new().await;
    for version in VERSIONS {
        let client = server.cdi(version);
        let tokens =
            client.create("ann", json!({ "userDataInJWT": { "a": 1 }, "userDataInDatabase": { "b": [null] } })).await;
        let handle = tokens["session"]["handle"].as_str().unwrap();
        let recipe = if at(version) < at("2.4") { "" } else { "/recipe" };
        let data = client.get(&format!("{recipe}/session/data?sessionHandle={handle}")).await.ok();
        assert_eq!(data, json!({ "status": "OK", "userDataInDatabase": { "b": [null] } }));
        let body = json!({ "sessionHandle": handle, "userDataInDatabase": { "c": null } });
        assert_eq!(client.ask(&format!("PUT {recipe}/session/data"), body).await.ok(), json!({ "status": "OK" }));
        let data = client.get(&format!("{recipe}/session/data?sessionHandle={handle}")).await.ok();
        assert_eq!(data["userDataInDatabase"], json!({ "c": null }));
        if at(version) >= at("2.0") {
            let body = json!({ "sessionHandle": handle, "userDataInJWT": { "d": null } });
            assert_eq!(client.ask(&format!("PUT {recipe}/jwt/data"), body).await.ok(), json!({ "status": "OK" }));
            let answer = client.get(&format!("{recipe}/jwt/data?sessionHandle={handle}")).await;
            match at(version) <= at("2.21") {
                true => assert_eq!(answer.ok(), json!({ "status": "OK", "userDataInJWT": { "d": null } })),
                false => answer.line(405, "Method not supported"),
            }
            let body = json!({ "accessToken": tokens["accessToken"]["token"], "userDataInJWT": { "e": 1 } });
            let renewed = client.post("/session/regenerate", body).await.ok();
            assert_eq!(names(&renewed), ["accessToken", "session", "status"]);
            assert_eq!(names(&renewed["accessToken"]), expected(version).cookie);
            assert_eq!(renewed["accessToken"]["expiry"], tokens["accessToken"]["expiry"]);
            assert_eq!(renewed["session"]["userDataInJWT"], json!({ "e": 1 }));
            client.verify_with(&renewed["accessToken"]["token"], json!({})).await.ok();
        }
        let listed = client.get(&format!("{recipe}/session/user?userId=ann")).await.ok();
        assert_eq!(listed, json!({ "status": "OK", "sessionHandles": [handle] }));
        if at(version) >= at("2.8") {
            let shown = client.get(&format!("/recipe/session?sessionHandle={handle}")).await.ok();
            let mut members = vec![
                "expiry",
                "sessionHandle",
                "status",
                "timeCreated",
                "userDataInDatabase",
                "userDataInJWT",
                "userId",
            ];
            members.extend((at(version) >= at("3.0")).then_some("tenantId"));
            members.extend((at(version) >= at("4.0")).then_some("recipeUserId"));
            assert_eq!(names(&shown), sorted(members), "{version}");
        }
        let gone = match version {
            "1.0" => client.ask("DELETE /session", json!({ "userId": "ann" })).await.ok(),
            _ => client.post("/session/remove", json!({ "userId": "ann" })).await.ok(),
        };
        match version {
            "1.0" => assert_eq!(gone, json!({ "status": "OK", "numberOfSessionsRevoked": 1 })),
            _ => assert_eq!(gone, json!({ "status": "OK", "sessionHandlesRevoked": [handle] })),
        }
        for path in ["session/data", "jwt/data"] {
            if version != "1.0" || path == "session/data" {
                let body = json!({ "sessionHandle": handle, "userDataInDatabase": {}, "userDataInJWT": {} });
                let answer = client.ask(&format!("PUT {recipe}/{path}"), body).await.word("UNAUTHORISED");
                assert_eq!(names(&answer), ["message", "status"]);
            }
        }
        assert_eq!(client.get(&format!("{recipe}/session/user?userId=ann")).await.ok()["sessionHandles"], json!([]));
    }
}

#[tokio::test]
async fn anti_csrf_tokens() {
    let server = Server::new().await;
    for version in ["2.6", "2.20", "2.21", "5.4"] {
        let (client, on) = (server.cdi(version), json!({ "enableAntiCsrf": true }));
        let tokens = client.create("ann", on.clone()).await;
        let csrf = tokens["antiCsrfToken"].as_str().unwrap();
        assert_eq!(csrf.len(), 36);
        assert_eq!(payload(&tokens["accessToken"]["token"])["antiCsrfToken"], csrf);
        let verify = |more: Value| {
            let mut fields = json!({ "enableAntiCsrf": true, "doAntiCsrfCheck": true });
            fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            client.verify_with(&tokens["accessToken"]["token"], fields)
        };
        verify(json!({ "antiCsrfToken": csrf })).await.ok();
        verify(json!({ "antiCsrfToken": "other" })).await.word("TRY_REFRESH_TOKEN");
        verify(json!({})).await.word("TRY_REFRESH_TOKEN");
        verify(json!({ "doAntiCsrfCheck": false })).await.ok();
        let refresh = |more| client.refresh_with(&tokens["refreshToken"]["token"], more);
        refresh(on.clone()).await.word("UNAUTHORISED");
        refresh(json!({ "enableAntiCsrf": true, "antiCsrfToken": "other" })).await.word("UNAUTHORISED");
        let next = refresh(json!({ "enableAntiCsrf": true, "antiCsrfToken": csrf })).await.ok();
        assert_ne!(next["antiCsrfToken"], csrf, "renewed with each refresh");
        let verified = client.verify_with(&next["accessToken"]["token"], on).await.ok();
        assert_eq!(payload(&verified["accessToken"]["token"])["antiCsrfToken"], next["antiCsrfToken"]);
    }
}

#[tokio::test]
async fn jwts_of_the_application() {
    let server = Server::new().await;
    let client = server.cdi("5.4");
    let body = |validity: Value| json!({ "algorithm": "RS256", "jwksDomain": "https://a.example", "payload": { "x": 1 }, "validity": validity });
    let answer = client.post("/jwt", body(json!(60))).await.ok();
    assert_eq!(names(&answer), ["jwt", "status"]);
    let header = crate::server::header(&answer["jwt"]);
    assert_eq!((names(&header), &header["typ"]), (vec!["alg", "kid", "typ"], &json!("JWT")));
    assert!(header["kid"].as_str().unwrap().starts_with("s-"));
    let now = server.now() / 1000;
    assert_eq!(
        Value::Object(payload(&answer["jwt"])),
        json!({ "x": 1, "iss": "https://a.example", "iat": now, "exp": now + 60 })
    );
    let mut dynamic = body(json!(60));
    dynamic["useStaticSigningKey"] = json!(false);
    let jwt = client.post("/jwt", dynamic).await.ok()["jwt"].clone();
    assert!(crate::server::header(&jwt)["kid"].as_str().unwrap().starts_with("d-"));
    let mut other = body(json!(60));
    other["algorithm"] = json!("HS256");
    assert_eq!(
        client.post("/jwt", other).await.word("UNSUPPORTED_ALGORITHM_ERROR"),
        json!({ "status": "UNSUPPORTED_ALGORITHM_ERROR" })
    );
    for validity in [json!(0), json!(-1)] {
        client.post("/jwt", body(validity)).await.line(400, "validity must be greater than or equal to 0");
    }
    let mut list = body(json!(60));
    list["payload"] = json!([]);
    client.post("/jwt", list).await.line(400, "Field name 'payload' is invalid in JSON input");
}
