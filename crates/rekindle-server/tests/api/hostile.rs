//! Bad input: each gets its documented code, changes nothing, and harms nobody.

use rekindle::{clock::Seconds, refresh::Opening};
use serde_json::{Value, json};

use crate::server::Server;

/// The token cut, changed, padded, and things that are no tokens at all.
fn damaged(token: &str) -> Vec<String> {
    let mut damaged: Vec<String> = (0..token.len()).step_by(7).map(|end| token[..end].to_owned()).collect();
    for at in (0..token.len()).step_by(3) {
        let mut bytes = token.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        damaged.push(String::from_utf8(bytes).unwrap());
    }
    damaged.extend([format!("{token}A"), format!("{token}="), format!(" {token}"), token.to_uppercase()]);
    damaged.extend(["x".repeat(100_000), "eyJ..".into(), "\u{0}".into(), "💥".into(), "..".into()]);
    damaged.retain(|other| other != token);
    damaged
}

#[tokio::test]
async fn damaged_refresh_tokens_are_malformed_and_change_nothing() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    let before = server.contents().await;
    for token in damaged(tokens["refresh_token"].as_str().unwrap()) {
        for path in ["refresh", "mint", "end"] {
            server
                .ask(&format!("POST sessions/{path}"), json!({ "refresh_token": token }))
                .await
                .refused("token_malformed");
        }
    }
    let elevate = json!({ "refresh_token": "rkr_", "auth": { "time": "2026-11-20T10:00:00Z" } });
    server.ask("POST sessions/elevate", elevate).await.refused("token_malformed");
    assert_eq!(server.contents().await, before);
    server.refresh(&tokens).await.with(200);
}

#[tokio::test]
async fn damaged_access_tokens_are_malformed_and_change_nothing() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    let before = server.contents().await;
    let text = tokens["access_token"].as_str().unwrap();
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{}.", text.split('.').nth(1).unwrap());
    for token in damaged(text).into_iter().chain([none]) {
        let body = json!({ "access_token": token });
        let verified = server.ask("POST sessions/verify", body.clone()).await.with(200);
        assert_eq!(verified, json!({ "active": false, "code": "token_malformed" }));
        server.ask("POST sessions/end", body).await.refused("token_malformed");
    }
    assert_eq!(server.contents().await, before);
}

#[tokio::test]
async fn an_access_token_from_the_future_is_malformed() {
    let server = Server::new().await;
    let now = server.app.engine().now();
    let tokens = server.start(json!({})).await;
    server.clock.set(now - Seconds(3600));
    let body = json!({ "access_token": tokens["access_token"] });
    for online in [false, true] {
        let mut body = body.clone();
        body["online"] = json!(online);
        assert_eq!(server.ask("POST sessions/verify", body).await.with(200)["code"], "token_malformed");
    }
    server.ask("POST sessions/end", body).await.refused("token_malformed");
    server.clock.set(now);
    server.refresh(&tokens).await.with(200);
}

#[tokio::test]
async fn bodies_that_are_not_as_documented_are_refused_by_name_and_change_nothing() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    let session = format!("PATCH sessions/{}", crate::server::id(&tokens));
    let token = tokens["refresh_token"].clone();
    let before = server.contents().await;
    let proof = |name: &str, value: Value| {
        let mut proof = json!({
            "session_id": tokens["session"]["id"], "generation": 0, "commitment": Opening::draw(&*server.rng).commitment(),
        });
        proof[name] = value;
        json!({ "refresh_token": token, "proof": proof })
    };
    for (line, body, field) in [
        ("POST sessions", json!({ "user": "ann" }), "user"),
        ("POST sessions", json!({ "user_id": 7 }), "user_id"),
        ("POST sessions", json!({ "user_id": "x".repeat(257) }), "user_id"),
        ("POST sessions", json!({ "tag": "Nope" }), "tag"),
        ("POST sessions", json!({ "data": [] }), "data"),
        ("POST sessions", json!({ "claims": "x" }), "claims"),
        ("POST sessions", json!({ "commitment": "AAAA" }), "commitment"),
        ("POST sessions", json!({ "expires_in": 0 }), "expires_in"),
        ("POST sessions", json!({ "expires_in": -1 }), "expires_in"),
        ("POST sessions", json!({ "client": { "host": "x" } }), "client.host"),
        ("POST sessions", json!({ "auth": { "time": "yesterday" } }), "auth.time"),
        ("POST sessions", json!({ "auth": { "time": "2026-11-20T10:00:00Z", "acr": "x".repeat(129) } }), "auth.acr"),
        ("POST sessions", json!({ "auth": { "time": "2026-11-20T10:00:00Z", "amr": vec!["x"; 17] } }), "auth.amr"),
        ("POST sessions", json!({ "auth": { "time": "2026-11-20T10:00:31Z" } }), "auth.time"),
        ("POST sessions", json!({ "auth": { "time": "9999-12-31T23:59:59Z" } }), "auth.time"),
        ("POST sessions", json!({ "previous_session_id": "1" }), "previous_session_id"),
        ("POST sessions/refresh", json!({}), "refresh_token"),
        ("POST sessions/refresh", json!({ "refresh_token": null }), "refresh_token"),
        ("POST sessions/refresh", proof("commitment", json!("AAAAAAAAAAAAAAAAAAAAAA")), "proof.commitment"),
        ("POST sessions/refresh", proof("commitment", json!("short")), "proof.commitment"),
        ("POST sessions/refresh", proof("commitment", json!("AAAAAAAAAAAAAAAAAAAAAB")), "proof.commitment"),
        ("POST sessions/refresh", proof("opening", json!("AAAA")), "proof.opening"),
        ("POST sessions/refresh", proof("opening", json!("A".repeat(100))), "proof.opening"),
        ("POST sessions/refresh", proof("generation", json!(-1)), "proof.generation"),
        ("POST sessions/refresh", proof("newest", json!("yes")), "proof.newest"),
        ("POST sessions/refresh", proof("nonce", json!("x")), "proof.nonce"),
        ("POST sessions/elevate", json!({ "refresh_token": token }), "auth"),
        (
            "POST sessions/elevate",
            json!({ "refresh_token": token, "auth": { "time": "2026-11-20T10:00:31Z" } }),
            "auth.time",
        ),
        ("POST sessions/verify", json!({ "access_token": "x", "online": 1 }), "online"),
        ("POST sessions/mint", json!({ "refresh_token": token, "lifetime": 61 }), "lifetime"),
        ("POST sessions/mint", json!({ "refresh_token": token, "lifetime": 0 }), "lifetime"),
        ("POST sessions/end", json!({}), ""),
        ("POST sessions/end", json!({ "refresh_token": "a", "access_token": "b" }), ""),
        (
            "POST sessions/confirm",
            json!({ "confirmations": [{ "session_id": "x", "generation": 1 }] }),
            "confirmations[0].session_id",
        ),
        (&session, json!({ "data": null }), "data"),
        (&session, json!({ "user_id": "eve" }), "user_id"),
        ("POST users/ann/credential-changed", json!({ "keep": 1 }), "keep"),
        ("PUT users/ann/ban", json!({ "until": "soon" }), "until"),
    ] {
        let problem = server.ask(line, body.clone()).await.refused("invalid_request");
        assert_eq!(problem["fields"][0]["field"], field, "{line} {body}: {problem}");
    }
    assert_eq!(server.contents().await, before);
}

#[tokio::test]
async fn queries_and_headers_that_are_not_as_documented_are_refused() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    let path = format!("sessions/{}", crate::server::id(&tokens));
    let before = server.contents().await;
    for query in [
        "sessions?limit=0",
        "sessions?limit=201",
        "sessions?limit=many",
        "sessions?user=ann",
        "sessions?state=dead",
        "sessions?cursor=!",
        "sessions?cursor=AAAA",
        "sessions?started_after=today",
        "sessions?limit=1&limit=2",
        "users?cursor=_w",
        "users/%ff",
        &format!("users/{}", "x".repeat(257)),
        "revocations?since=x",
        "revocations?wait=31",
        "revocations?wait=-1",
        &format!("{path}/timeline?kind=x"),
        &format!("{path}/timeline?outcome=x"),
        &format!("{path}/timeline?cursor=AAAA"),
    ] {
        server.get(query).await.refused("invalid_request");
    }
    for query in ["users/ann?tag=mobile".into(), format!("{path}?foo=1")] {
        let problem = server.delete(&query).await.refused("invalid_request");
        assert_eq!(problem["fields"][0]["field"], query.split(['?', '=']).nth(1).unwrap());
    }
    for line in ["POST users/ann/credential-changed?keep=1", "POST sessions?user_id=bob", "POST sessions/refresh?tag=x"]
    {
        server.ask(line, json!({})).await.refused("invalid_request");
    }
    for query in [format!("{path}?reason=theft"), "users/ann/sessions?except=1".into(), "sessions?before=soon".into()] {
        server.delete(&query).await.refused("invalid_request");
    }
    let patch = format!("PATCH {path}");
    for if_match in ["W/\"1\"", "\"1\", \"2\"", "one"] {
        let answer = server.ask_with(&patch, json!({}), &[("if-match", if_match)]).await;
        assert_eq!(answer.refused("invalid_request")["fields"][0]["field"], "If-Match");
    }
    for key in ["", &"x".repeat(257)] {
        let answer = server.ask_with("POST sessions", json!({}), &[("idempotency-key", key)]).await;
        assert_eq!(answer.refused("invalid_request")["fields"][0]["field"], "Idempotency-Key");
    }
    for name in ["authorization", "idempotency-key", "if-match", "content-type"] {
        let request = server.request("POST sessions", Some(json!({})), &[(name, "a"), (name, "b")]);
        server.send(request).await.refused("invalid_request");
    }
    assert_eq!(server.contents().await, before);
}

#[tokio::test]
async fn other_content_types_and_bad_json_are_refused() {
    let server = Server::new().await;
    let before = server.contents().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        server.ask_with("POST sessions", json!({}), &[("content-type", kind)]).await.refused("unsupported_media_type");
    }
    let nested =
        |open: &str, close: &str| format!("{{\"data\":{{\"x\":{}{}}}}}", open.repeat(5000), close.repeat(5000));
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{} {}",
        "{\"data\":{\"a\":1e999}}",
        "{\"data\":{\"a\":1,\"a\":2}}",
        &nested("[", "]"),
        &nested("{\"x\":", "}"),
    ] {
        let mut request = server.request("POST sessions", Some(json!({})), &[]);
        *request.body_mut() = axum::body::Body::from(body.to_owned());
        server.send(request).await.refused("invalid_request");
    }
    assert_eq!(server.contents().await, before);
    server.start(json!({})).await;
}
