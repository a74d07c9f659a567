//! Outages, clients that hang up, and what the log says of it all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tower::ServiceExt;

use crate::log;
use crate::server::{Server, id};

/// Every endpoint that needs the store, with a request that works.
fn requests(tokens: &Value) -> Vec<(String, Value)> {
    let (id, refresh, access) = (id(tokens), &tokens["refresh_token"], &tokens["access_token"]);
    let auth = json!({ "time": "2026-11-20T10:00:00Z" });
    [
        ("GET sessions".into(), Value::Null),
        (format!("GET sessions/{id}"), Value::Null),
        (format!("GET sessions/{id}/timeline"), Value::Null),
        (format!("GET sessions/{id}/explain"), Value::Null),
        ("GET users".into(), Value::Null),
        ("GET users/ann".into(), Value::Null),
        ("GET revocations?wait=5".into(), Value::Null),
        ("POST sessions".into(), json!({})),
        ("POST sessions/verify".into(), json!({ "access_token": access, "online": true })),
        ("POST sessions/refresh".into(), json!({ "refresh_token": refresh })),
        ("POST sessions/mint".into(), json!({ "refresh_token": refresh })),
        ("POST sessions/confirm".into(), json!({ "confirmations": [{ "session_id": id, "generation": 0 }] })),
        ("POST sessions/elevate".into(), json!({ "refresh_token": refresh, "auth": auth })),
        (format!("PATCH sessions/{id}"), json!({ "data": { "a": 1 } })),
        ("POST users/bob/credential-changed".into(), json!({})),
        ("DELETE users/bob/sessions".into(), Value::Null),
        ("PUT users/bob/ban".into(), json!({})),
        ("DELETE users/bob/ban".into(), Value::Null),
        ("DELETE users/bob".into(), Value::Null),
        ("DELETE sessions?refreshed_after=2026-11-20T11:00:00Z".into(), Value::Null),
        (format!("DELETE sessions/{id}"), Value::Null),
        ("POST sessions/end".into(), json!({ "refresh_token": refresh })),
    ]
    .into()
}

#[tokio::test]
async fn an_outage_is_503_everywhere_and_costs_nobody_a_session() {
    let server = Server::new().await;
    let tokens = server.start(json!({ "user_id": "ann" })).await;
    let before = server.contents().await;
    server.set_out(true);
    for (line, body) in requests(&tokens) {
        let answer = server.ask(&line, body).await;
        assert_eq!(answer.header("retry-after"), "1", "{line}");
        answer.refused("unavailable");
    }
    assert_eq!(server.contents().await, before);
    server.set_out(false);
    for (line, body) in requests(&tokens) {
        let answer = server.ask(&line, body).await;
        assert!(answer.status.is_success(), "{line}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_server_that_knows_nothing_yet_is_unavailable_and_never_unauthorized() {
    let server = Server::new().await;
    server.set_out(true);
    server.get("sessions").await.refused("unavailable");
    server.get("jwks.json").await.refused("unavailable");
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_a_whole_refresh_behind() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    server.get("sessions").await.with(200);
    server.store.delay_millis.store(100, Ordering::SeqCst);
    let body = json!({ "refresh_token": tokens["refresh_token"] });
    let request = server.request("POST sessions/refresh", Some(body), &[]);
    let hung_up = tokio::time::timeout(Duration::from_millis(50), server.router.clone().oneshot(request)).await;
    assert!(hung_up.is_err());
    tokio::time::sleep(Duration::from_millis(800)).await;
    server.store.delay_millis.store(0, Ordering::SeqCst);
    let session = server.get(&format!("sessions/{}", id(&tokens))).await.with(200);
    assert_eq!(session["generation"], 1);
    assert!(server.get("/metrics").await.text.contains(r#"rekindle_refreshes_total{outcome="advanced"} 1"#));
    let again = server.refresh(&tokens).await.with(200);
    assert_eq!(again["session"]["generation"], 1);
}

#[tokio::test]
async fn a_slow_store_is_503_in_time() {
    let server = Server::configured("limits.request_timeout = 1").await;
    let tokens = server.start(json!({})).await;
    server.store.delay_millis.store(3000, Ordering::SeqCst);
    server.refresh(&tokens).await.refused("unavailable");
}

#[tokio::test]
async fn nothing_that_opens_a_session_gets_into_the_log_or_a_problem() {
    // The runtime of this test has one thread, so that spawned work is heard, too.
    log::listen();
    let server = Server::configured("log.requests = 'all'").await;
    let tokens = server.start(json!({ "user_id": "ann" })).await;
    let (refresh, access) = (tokens["refresh_token"].as_str().unwrap(), tokens["access_token"].as_str().unwrap());
    let mut said = String::new();
    for out in [true, false] {
        server.set_out(out);
        for (line, body) in requests(&tokens) {
            let answer = server.ask(&line, body).await;
            said += if answer.status.is_success() { "" } else { &answer.text };
        }
        for (line, body) in [
            (format!("GET sessions?{refresh}={access}"), Value::Null),
            (format!("GET sessions?cursor={access}"), Value::Null),
            (format!("GET sessions/{refresh}"), Value::Null),
            (format!("GET {access}"), Value::Null),
            (format!("GET auth?access_token={access}"), Value::Null),
            (format!("DELETE sessions/{}?reason={refresh}", id(&tokens)), Value::Null),
            ("POST sessions".into(), json!({ "tag": refresh, "user_id": access })),
            ("POST sessions".into(), json!({ refresh: access })),
            ("POST sessions".into(), json!({ "commitment": refresh, "previous_session_id": access })),
            ("POST sessions".into(), json!({ "auth": { "time": refresh } })),
            ("POST sessions/refresh".into(), json!({ "refresh_token": { refresh: 1 } })),
            ("POST sessions/refresh".into(), json!({ "refresh_token": refresh, "tag": refresh })),
            ("POST sessions/verify".into(), json!({ "access_token": access, "online": access })),
            ("PUT users/x/ban".into(), json!({ "until": access })),
        ] {
            said += &server.ask(&line, body).await.text;
        }
        let key = format!("Bearer {refresh}");
        said += &server.ask_with("GET sessions", Value::Null, &[("authorization", &key)]).await.text;
    }
    let logged = log::heard();
    assert!(logged.contains("the store or the revocation log failed") && logged.contains("\"route\""), "{logged}");
    for (what, text) in [("log", &logged), ("problems", &said)] {
        for start in ["rkr_", "rkk_", "eyJ"] {
            let at = text.match_indices(start).map(|(at, _)| at).find(|at| !text[*at..].starts_with("rkk_…"));
            let around = at.map(|at| text[at.saturating_sub(200)..].chars().take(300).collect::<String>());
            assert_eq!(around, None, "{start} is in the {what}");
        }
    }
}
