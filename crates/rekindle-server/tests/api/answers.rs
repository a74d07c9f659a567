//! What each endpoint answers when all is well.

use rekindle::{clock::Seconds, refresh::Opening};
use serde_json::{Value, json};

use crate::server::{Server, id, time};

#[tokio::test]
async fn a_start_answers_tokens_and_the_session_as_the_contract_has_it() {
    let server = Server::new().await;
    let body = json!({
        "user_id": "ann", "data": { "cart": [1, 2] }, "claims": { "plan": "pro" },
        "auth": { "time": "2026-11-20T09:59:00Z", "acr": "mfa", "amr": ["pwd", "otp"] },
        "client": { "ip": "198.51.100.7", "user_agent": "x", "device": "Ann's phone" }, "expires_in": 3600,
    });
    let answer = server.ask("POST sessions", body).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("content-type"), "application/json");
    let mut tokens = answer.with(201);
    assert!(tokens["refresh_token"].as_str().unwrap().starts_with("rkr_"));
    assert!(tokens["access_token"].as_str().unwrap().starts_with("eyJ"));
    assert_eq!(tokens["commitment"], Value::Null);
    let names: Vec<_> = tokens.as_object().unwrap().keys().cloned().collect();
    let mut expected = [
        "session",
        "access_token",
        "access_token_expires_at",
        "refresh_token",
        "refresh_token_expires_at",
        "commitment",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    let session = tokens["session"].take();
    let id = session["id"].clone();
    assert_eq!(
        session,
        json!({
            "id": id, "product": "default", "env": "dev", "tag": "default", "user_id": "ann", "state": "active",
            "generation": 0, "binding": "bearer", "data": { "cart": [1, 2] }, "claims": { "plan": "pro" }, "version": 1,
            "client": { "ip": "198.51.100.7", "user_agent": "x", "device": "Ann's phone" },
            "auth": { "time": "2026-11-20T09:59:00Z", "acr": "mfa", "amr": ["pwd", "otp"] },
            "created_at": "2026-11-20T10:00:00Z", "last_refreshed_at": "2026-11-20T10:00:00Z",
            "idle_expires_at": "2026-11-20T11:00:00Z", "expires_at": "2026-11-20T11:00:00Z",
        })
    );
}

#[tokio::test]
async fn an_idempotency_key_gives_the_same_session_again() {
    let server = Server::new().await;
    let headers = [("idempotency-key", "login-1")];
    let start = |body: Value| server.ask_with("POST sessions", body, &headers);
    let first = start(json!({ "user_id": "ann" })).await.with(201);
    let second = start(json!({ "user_id": "ann" })).await.with(201);
    assert_eq!(first["refresh_token"], second["refresh_token"]);
    start(json!({ "user_id": "bob" })).await.refused("idempotency_mismatch");
    server.refresh(&first).await.with(200);
    start(json!({ "user_id": "ann" })).await.refused("conflict");
}

#[tokio::test]
async fn a_repeated_refresh_gives_the_same_refresh_token() {
    let server = Server::new().await;
    let first = server.start(json!({})).await;
    let second = server.refresh(&first).await.with(200);
    assert_eq!(second["session"]["generation"], 1);
    let again = server.refresh(&first).await.with(200);
    assert_eq!(again["refresh_token"], second["refresh_token"]);
    assert_eq!(again["session"]["generation"], 1);
    let metrics = server.get("/metrics").await.text;
    for line in
        [r#"rekindle_refreshes_total{outcome="advanced"} 1"#, r#"rekindle_refreshes_total{outcome="reissued"} 1"#]
    {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn a_committed_session_says_its_commitment() {
    let server = Server::new().await;
    let mut client = server.committed("ann").await;
    assert_eq!(client.steps[0].0["session"]["binding"], "committed");
    let tokens = server.step(&mut client).await;
    assert_eq!(tokens["commitment"], json!(client.steps[1].1.commitment()));
}

#[tokio::test]
async fn verify_tells_what_the_token_says_or_what_the_row_says() {
    let server = Server::new().await;
    let tokens = server.start(json!({ "user_id": "ann", "data": { "a": 1 }, "claims": { "plan": "pro" } })).await;
    let verify = |online: bool| {
        server.ask("POST sessions/verify", json!({ "access_token": tokens["access_token"], "online": online }))
    };
    let offline = verify(false).await.with(200);
    assert_eq!(
        offline,
        json!({ "active": true, "session": {
            "id": id(&tokens), "product": "default", "env": "dev", "tag": "default", "user_id": "ann", "state": "active",
            "generation": 0, "binding": "bearer", "claims": { "plan": "pro" }, "auth": { "time": "2026-11-20T10:00:00Z" },
        }})
    );
    assert_eq!(verify(true).await.with(200), json!({ "active": true, "session": tokens["session"] }));
    server.ask("POST sessions/end", json!({ "access_token": tokens["access_token"] })).await.with(204);
    for online in [false, true] {
        assert_eq!(verify(online).await.with(200), json!({ "active": false, "code": "session_revoked" }));
    }
}

#[tokio::test]
async fn mint_gives_a_short_access_token_and_rotates_nothing() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    let body = json!({ "refresh_token": tokens["refresh_token"], "lifetime": 30 });
    let minted = server.ask("POST sessions/mint", body).await.with(200);
    assert_eq!(minted["access_token_expires_at"], "2026-11-20T10:00:30Z");
    assert_eq!(minted["session"], tokens["session"]);
    let verified =
        server.ask("POST sessions/verify", json!({ "access_token": minted["access_token"] })).await.with(200);
    assert_eq!(verified["active"], true);
}

#[tokio::test]
async fn a_confirmed_generation_s_parent_is_theft_and_an_unconfirmed_one_s_is_not() {
    let server = Server::new().await;
    let first = server.start(json!({ "user_id": "ann" })).await;
    server.refresh(&first).await.with(200);
    server.clock.advance(Seconds(60));
    server.refresh(&first).await.with(200);
    let seen = json!({ "confirmations": [{ "session_id": id(&first), "generation": 1 }] });
    assert_eq!(server.ask("POST sessions/confirm", seen).await.with(202), Value::Null);
    let theft = server.refresh(&first).await.refused("token_theft_detected");
    assert_eq!(theft["kind"], "reused");
    assert_eq!(theft["session_id"], id(&first));
    assert_eq!(theft["user_id"], "ann");
    assert_eq!(theft["presented_generation"], 0);
    let metrics = server.get("/metrics").await.text;
    for line in [r#"rekindle_thefts_total{kind="reused"} 1"#, r#"rekindle_refreshes_total{outcome="theft"} 1"#] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn sign_out_takes_either_token_also_an_expired_one_and_twice() {
    let server = Server::new().await;
    for name in ["refresh_token", "access_token"] {
        let tokens = server.start(json!({ "expires_in": 60 })).await;
        server.clock.advance(Seconds(3600));
        for _ in 0..2 {
            server.ask("POST sessions/end", json!({ name: tokens[name] })).await.with(204);
        }
        let tokens = server.start(json!({})).await;
        server.ask("POST sessions/end", json!({ name: tokens[name] })).await.with(204);
        let problem = server.refresh(&tokens).await.refused("session_revoked");
        assert_eq!((&problem["session_id"], &problem["presented_generation"]), (&tokens["session"]["id"], &json!(0)));
        let session = server.get(&format!("sessions/{}", id(&tokens))).await.with(200);
        assert_eq!((&session["state"], &session["end_reason"]), (&json!("ended"), &json!("signed_out")));
    }
}

#[tokio::test]
async fn elevation_refuses_older_access_tokens() {
    let server = Server::new().await;
    let before = server.start(json!({})).await;
    let auth = json!({ "time": "2026-11-20T10:00:00Z", "acr": "mfa" });
    let body = json!({ "refresh_token": before["refresh_token"], "auth": auth });
    let after = server.ask("POST sessions/elevate", body).await.with(200);
    assert_eq!((&after["session"]["auth"], &after["session"]["generation"]), (&auth, &json!(1)));
    for (tokens, active) in [(before, false), (after, true)] {
        let verified = server.ask("POST sessions/verify", json!({ "access_token": tokens["access_token"] })).await;
        assert_eq!(verified.with(200)["active"], active);
    }
    let feed = server.get("revocations").await.with(200);
    assert_eq!(feed["items"][0]["below_generation"], 1);
}

#[tokio::test]
async fn sessions_are_listed_newest_first_page_by_page_and_filtered() {
    let server = Server::new().await;
    let mut ids = Vec::new();
    for user in ["ann", "bob", "ann", "", "ann"] {
        ids.insert(0, id(&server.start(json!({ "user_id": user })).await).to_owned());
        server.clock.advance(Seconds(1));
    }
    server.delete(&format!("sessions/{}", ids[4])).await.with(204);
    let listed = |query: &'static str| {
        let server = &server;
        async move {
            let page = server.get(&format!("sessions{query}")).await.with(200);
            page["items"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(listed("").await, ids);
    assert_eq!(listed("?user_id=ann").await, [&*ids[0], &ids[2], &ids[4]]);
    assert_eq!(listed("?user_id=").await, [&*ids[1]]);
    assert_eq!(listed("?user_id=ann&state=ended").await, [&*ids[4]]);
    assert_eq!(listed("?state=active&tag=default").await, ids[..4]);
    assert_eq!(listed("?tag=other").await, [""; 0]);
    let window = "?started_after=2026-11-20T10:00:00Z&started_before=2026-11-20T10:00:03Z";
    assert_eq!(listed(window).await, ids[2..4]);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("sessions?limit=2{cursor}")).await.with(200);
        seen.extend(page["items"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()));
        match &page["next_cursor"] {
            Value::Null => break,
            next => cursor = format!("&cursor={}", next.as_str().unwrap()),
        }
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn of_two_hundred_patches_at_once_each_is_kept() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    let line = format!("PATCH sessions/{}", id(&tokens));
    let patches = (0..200).map(|n| server.ask(&line, json!({ "data": { format!("k{n}"): n } })));
    for patched in futures_util::future::join_all(patches).await {
        patched.with(200);
    }
    let session = server.get(&format!("sessions/{}", id(&tokens))).await.with(200);
    assert_eq!((session["data"].as_object().unwrap().len(), &session["version"]), (200, &json!(201)));
}

#[tokio::test]
async fn what_does_not_fit_a_schema_that_warns_is_told() {
    let server = Server::new().await;
    let definition = json!({ "tag": "warns", "schema": { "a": "integer" }, "schema_mode": "warn" });
    server.ask("POST /v1/products/default/definitions", definition).await.with(201);
    let told = json!([{ "field": "/a", "detail": "expected integer, found string" }]);
    let tokens = server.start(json!({ "tag": "warns", "data": { "a": "x" } })).await;
    assert_eq!(tokens["warnings"], told);
    let line = format!("PATCH sessions/{}", id(&tokens));
    let patched = server.ask(&line, json!({ "data": { "b": 1 } })).await.with(200);
    assert_eq!((&patched["warnings"], &patched["version"]), (&told, &json!(2)));
    let patched = server.ask(&line, json!({ "data": { "a": 1 } })).await.with(200);
    assert_eq!(patched.get("warnings"), None);
}

#[tokio::test]
async fn a_rename_does_not_switch_an_environment_on_again() {
    let server = Server::new().await;
    let line = "PATCH /v1/products/default/environments/dev";
    for n in 0..20 {
        server.ask(line, json!({ "active": true })).await.with(200);
        let off = server.ask(line, json!({ "active": false }));
        let (off, named) = futures_util::join!(off, server.ask(line, json!({ "name": format!("name {n}") })));
        off.with(200);
        named.with(200);
        let now = server.ask(line, json!({})).await.with(200);
        assert_eq!((&now["active"], &now["name"]), (&json!(false), &json!(format!("name {n}"))));
    }
}

#[tokio::test]
async fn data_and_claims_are_patched_under_the_version_that_was_read() {
    let server = Server::new().await;
    let tokens = server.start(json!({ "data": { "a": 1, "b": { "c": 2 } } })).await;
    let path = format!("sessions/{}", id(&tokens));
    let shown = server.get(&path).await;
    assert_eq!(shown.header("etag"), "\"1\"");
    let line = format!("PATCH {path}");
    let body = json!({ "data": { "a": null, "b": { "d": 3 } }, "claims": { "plan": "pro" } });
    let headers = [("if-match", "\"1\""), ("content-type", "application/merge-patch+json")];
    let patched = server.ask_with(&line, body.clone(), &headers).await;
    assert_eq!(patched.header("etag"), "\"2\"");
    let patched = patched.with(200);
    assert_eq!(patched["data"], json!({ "b": { "c": 2, "d": 3 } }));
    assert_eq!((&patched["claims"], &patched["version"]), (&json!({ "plan": "pro" }), &json!(2)));
    server.ask_with(&line, body.clone(), &headers).await.refused("version_mismatch");
    assert_eq!(server.ask(&line, body.clone()).await.with(200)["version"], 3);
    assert_eq!(server.ask_with(&line, body.clone(), &[("if-match", "3")]).await.with(200)["version"], 4);
    server.delete(&path).await.with(204);
    server.ask(&line, body).await.refused("conflict");
}

#[tokio::test]
async fn a_session_ends_for_the_reason_given_and_the_first_one_stays() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    let path = format!("sessions/{}", id(&tokens));
    server.delete(&format!("{path}?reason=credential_changed")).await.with(204);
    server.delete(&format!("{path}?reason=signed_out")).await.with(204);
    let session = server.get(&path).await.with(200);
    assert_eq!(
        (&session["end_reason"], &session["ended_at"]),
        (&json!("credential_changed"), &json!("2026-11-20T10:00:00Z"))
    );
}

#[tokio::test]
async fn a_timeline_and_an_explanation_tell_what_happened() {
    let server = Server::new().await;
    let first = server.start(json!({ "client": { "device": "laptop" } })).await;
    server.clock.advance(Seconds(1));
    let second = server.refresh(&first).await.with(200);
    server.clock.advance(Seconds(1));
    server.refresh(&second).await.with(200);
    server.clock.advance(Seconds(1));
    server.refresh(&first).await.refused("token_theft_detected");
    let path = format!("sessions/{}", id(&first));
    let kinds = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap().to_owned()).collect()
    };
    let all = server.get(&format!("{path}/timeline")).await.with(200);
    assert_eq!(
        kinds(&all),
        ["session.end", "session.theft_detected", "session.refresh", "session.refresh", "session.start"]
    );
    assert_eq!(all["items"][4]["client"]["device"], "laptop");
    assert!(all["items"][4]["actor"].as_str().unwrap().starts_with("key_"));
    assert!(all["items"][1]["counterpart"]["request_id"].is_string());
    let advanced =
        server.get(&format!("{path}/timeline?kind=session.refresh&outcome=advanced&limit=1")).await.with(200);
    assert_eq!(kinds(&advanced), ["session.refresh"]);
    let cursor = advanced["next_cursor"].as_str().unwrap();
    let rest = server.get(&format!("{path}/timeline?kind=session.refresh&cursor={cursor}")).await.with(200);
    assert_eq!((kinds(&rest).len(), &rest["next_cursor"]), (1, &Value::Null));
    let none = server.get(&format!("{path}/timeline?to=2026-11-20T10:00:00Z")).await.with(200);
    assert_eq!(none["items"], json!([]));
    let told = server.get(&format!("{path}/explain")).await.with(200);
    assert_eq!(
        (&told["rule"], &told["active"], &told["end_reason"]),
        (&json!("theft_reused"), &json!(false), &json!("theft"))
    );
    assert_eq!(told["request"]["theft"], "reused");
}

#[tokio::test]
async fn the_incident_drill_ends_what_it_names_and_never_everything_by_accident() {
    let server = Server::new().await;
    let old = server.start(json!({})).await;
    server.clock.advance(Seconds(100));
    server.start(json!({})).await;
    server.delete("sessions").await.refused("invalid_request");
    let revoked = |query: &'static str| {
        let server = &server;
        async move { server.delete(&format!("sessions?{query}")).await }
    };
    assert_eq!(revoked("before=2026-11-20T10:00:50Z").await.with(200), json!({ "revoked": 1 }));
    server.refresh(&old).await.refused("session_revoked");
    assert_eq!(revoked("refreshed_after=2026-11-20T11:00:00Z").await.with(200), json!({ "revoked": 0 }));
    assert_eq!(revoked("before=2026-11-21T10:00:00Z").await.with(200), json!({ "revoked": 1 }));
}

#[tokio::test]
async fn users_are_listed_shown_signed_out_and_erased() {
    let server = Server::new().await;
    // The empty one, one that needs encoding, and one that looks like a path.
    for (user, path) in [("", "users/"), ("é b", "users/%C3%A9%20b"), ("a/../b", "users/a%2F..%2Fb")] {
        let first = server.start(json!({ "user_id": user })).await;
        let second = server.start(json!({ "user_id": user })).await;
        let third = server.start(json!({ "user_id": user })).await;
        let shown = server.get(path).await.with(200);
        assert_eq!((&shown["user_id"], &shown["sessions"]), (&json!(user), &json!(3)));
        assert_eq!((&shown["active_sessions"], &shown["ban"]), (&json!(3), &Value::Null));
        let changed = json!({ "keep": id(&second) });
        let ask = format!("POST {path}/credential-changed");
        assert_eq!(server.ask(&ask, changed).await.with(200), json!({ "revoked": 2 }), "{path}");
        let ended = server.get(&format!("sessions/{}", id(&first))).await.with(200);
        assert_eq!(ended["end_reason"], "credential_changed");
        let keep = format!("{path}/sessions?except={}", id(&second));
        assert_eq!(server.delete(&keep).await.with(200), json!({ "revoked": 0 }));
        assert_eq!(server.delete(&format!("{path}/sessions?tag=other")).await.with(200), json!({ "revoked": 0 }));
        assert_eq!(server.delete(&format!("{path}/sessions?tag=default")).await.with(200), json!({ "revoked": 1 }));
        assert_eq!(server.delete(&format!("{path}/sessions")).await.with(200), json!({ "revoked": 0 }));
        assert!(time(&shown["last_seen"]) >= time(&third["session"]["created_at"]));
    }
    let listed = server.get("users?limit=1").await.with(200);
    assert_eq!(listed["items"][0]["user_id"], "");
    let cursor = listed["next_cursor"].as_str().unwrap();
    let rest = server.get(&format!("users?cursor={cursor}")).await.with(200);
    let rest: Vec<_> = rest["items"].as_array().unwrap().iter().map(|u| u["user_id"].as_str().unwrap()).collect();
    assert_eq!(rest, ["a/../b", "é b"]);
    server.start(json!({ "user_id": "a/../b" })).await;
    assert_eq!(server.delete("users/a%2F..%2Fb").await.with(200), json!({ "revoked": 1 }));
    server.get("users/a%2F..%2Fb").await.refused("user_not_found");
    assert_eq!(server.delete("users/a%2F..%2Fb").await.with(200), json!({ "revoked": 0 }));
}

#[tokio::test]
async fn a_ban_ends_sessions_and_refuses_starts_until_it_is_lifted_or_over() {
    let server = Server::new().await;
    server.start(json!({ "user_id": "ann" })).await;
    let ban = |body: Value| server.ask("PUT users/ann/ban", body);
    assert_eq!(ban(json!({ "reason": "spam" })).await.with(200), json!({ "revoked": 1 }));
    let shown = server.get("users/ann").await.with(200);
    assert_eq!(shown["ban"], json!({ "at": "2026-11-20T10:00:00Z", "reason": "spam" }));
    server.ask("POST sessions", json!({ "user_id": "ann" })).await.refused("user_banned");
    for _ in 0..2 {
        server.delete("users/ann/ban").await.with(204);
    }
    server.start(json!({ "user_id": "ann" })).await;
    ban(json!({ "until": "2026-11-20T10:01:00Z" })).await.with(200);
    server.ask("POST sessions", json!({ "user_id": "ann" })).await.refused("user_banned");
    server.clock.advance(Seconds(60));
    server.start(json!({ "user_id": "ann" })).await;
    ban(json!({ "until": "2026-11-20T10:01:00Z" })).await.refused("invalid_request");
    ban(json!({ "reason": "x".repeat(1025) })).await.refused("invalid_request");
}

#[tokio::test]
async fn replacing_a_session_ends_it_in_the_same_step() {
    let server = Server::new().await;
    let anonymous = server.start(json!({ "data": { "cart": 1 } })).await;
    let login = server.start(json!({ "user_id": "ann", "previous_session_id": id(&anonymous) })).await;
    assert_eq!(login["session"]["previous_session_id"], id(&anonymous));
    let old = server.get(&format!("sessions/{}", id(&anonymous))).await.with(200);
    assert_eq!(old["end_reason"], "replaced");
    server.ask("POST sessions", json!({ "previous_session_id": id(&anonymous) })).await.refused("conflict");
}

#[tokio::test]
async fn sixty_four_copies_of_one_refresh_get_one_answer() {
    let server = std::sync::Arc::new(Server::new().await);
    let client = server.committed("ann").await;
    let body = client.request(0, &Opening::draw(&*server.rng));
    let copies: Vec<_> = (0..64)
        .map(|_| {
            let (server, body) = (server.clone(), body.clone());
            tokio::spawn(async move { server.ask("POST sessions/refresh", body).await.with(200) })
        })
        .collect();
    let mut tokens = Vec::new();
    for copy in copies {
        tokens.push(copy.await.unwrap()["refresh_token"].clone());
    }
    tokens.dedup();
    assert_eq!(tokens.len(), 1);
    let session = server.get(&format!("sessions/{}", id(&client.steps[0].0))).await.with(200);
    assert_eq!((&session["generation"], &session["state"]), (&json!(1), &json!("active")));
}
