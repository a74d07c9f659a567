//! Every code that these endpoints answer with, each with its status.

use rekindle::{clock::Seconds, refresh::Opening};
use serde_json::{Value, json};

use crate::server::{Server, id, time};

#[tokio::test]
async fn what_is_not_there_is_said_by_name() {
    let server = Server::new().await;
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (path, code) in [
        ("/v1/nope/dev/sessions", "product_not_found"),
        ("/v1/Nope/dev/sessions", "product_not_found"),
        ("/v1/default/nope/sessions", "environment_not_found"),
        ("/v1/default/nope/jwks.json", "environment_not_found"),
        ("/v1/default/nope/revocations", "environment_not_found"),
        ("users/nobody", "user_not_found"),
        ("users/", "user_not_found"),
        ("sessions/1", "session_not_found"),
        (&format!("sessions/{unknown}"), "session_not_found"),
        (&format!("sessions/{unknown}/timeline"), "session_not_found"),
        (&format!("sessions/{unknown}/explain"), "session_not_found"),
        ("nothing", "not_found"),
    ] {
        server.get(path).await.refused(code);
    }
    server.delete(&format!("sessions/{unknown}")).await.refused("session_not_found");
    server.ask(&format!("PATCH sessions/{unknown}"), json!({})).await.refused("session_not_found");
    server.ask("POST sessions", json!({ "tag": "nope" })).await.refused("definition_not_found");
    server.ask("PUT sessions", Value::Null).await.refused("method_not_allowed");
}

#[tokio::test]
async fn in_an_inactive_environment_nothing_starts_or_refreshes() {
    let server = Server::new().await;
    server.environment(false).await;
    let tokens = server.start(json!({})).await;
    for (path, body) in [
        ("sessions", json!({})),
        ("sessions/refresh", json!({ "refresh_token": tokens["refresh_token"] })),
        ("sessions/mint", json!({ "refresh_token": tokens["refresh_token"] })),
    ] {
        server.ask(&format!("POST /v1/default/live/{path}"), body).await.refused("environment_inactive");
    }
}

#[tokio::test]
async fn a_token_of_one_environment_is_refused_in_every_other() {
    let server = Server::new().await;
    server.environment(true).await;
    let tokens = server.start(json!({})).await;
    let before = server.contents().await;
    let (refresh, access) = (&tokens["refresh_token"], &tokens["access_token"]);
    for (path, body) in [
        ("refresh", json!({ "refresh_token": refresh })),
        ("mint", json!({ "refresh_token": refresh })),
        ("end", json!({ "refresh_token": refresh })),
        ("elevate", json!({ "refresh_token": refresh, "auth": { "time": "2026-11-20T10:00:00Z" } })),
    ] {
        server.ask(&format!("POST /v1/default/live/sessions/{path}"), body).await.refused("token_scope_mismatch");
    }
    server
        .ask("POST sessions/refresh", json!({ "refresh_token": refresh, "tag": "other" }))
        .await
        .refused("token_scope_mismatch");
    // Each environment has its own signing keys: an access token of another is one that nobody here signed.
    let body = json!({ "access_token": access });
    let verified = server.ask("POST /v1/default/live/sessions/verify", body.clone()).await.with(200);
    assert_eq!(verified, json!({ "active": false, "code": "token_malformed" }));
    server.ask("POST /v1/default/live/sessions/end", body).await.refused("token_malformed");
    let body = json!({ "access_token": access, "tag": "other" });
    let verified = server.ask("POST sessions/verify", body).await.with(200);
    assert_eq!(verified, json!({ "active": false, "code": "token_scope_mismatch" }));
    // A row's id is not known there either.
    server.get(&format!("/v1/default/live/sessions/{}", id(&tokens))).await.refused("session_not_found");
    server.delete(&format!("/v1/default/live/sessions/{}", id(&tokens))).await.refused("session_not_found");
    assert_eq!(server.contents().await, before);
}

#[tokio::test]
async fn expired_tokens_say_which_clock_ran_out() {
    let server = Server::new().await;
    let short = server.start(json!({ "expires_in": 60 })).await;
    let long = server.start(json!({})).await;
    server.clock.set(time(&long["session"]["idle_expires_at"]));
    for (tokens, which) in [(&short, "absolute"), (&long, "idle")] {
        let problem = server.refresh(tokens).await.refused("session_expired");
        assert_eq!((&problem["which"], &problem["session_id"]), (&json!(which), &tokens["session"]["id"]));
        let minted = server.ask("POST sessions/mint", json!({ "refresh_token": tokens["refresh_token"] })).await;
        assert_eq!(minted.refused("session_expired")["which"], which);
        let verified = server.ask("POST sessions/verify", json!({ "access_token": tokens["access_token"] })).await;
        assert_eq!(verified.with(200), json!({ "active": false, "code": "access_token_expired" }));
    }
}

#[tokio::test]
async fn an_authentic_token_without_a_row_is_an_expired_session() {
    let server = Server::new().await;
    let tokens = server.start(json!({ "user_id": "ann" })).await;
    server.delete("users/ann").await.with(200);
    let problem = server.refresh(&tokens).await.refused("session_expired");
    assert_eq!(problem["which"], "absolute");
    server.ask("POST sessions/end", json!({ "refresh_token": tokens["refresh_token"] })).await.with(204);
}

#[tokio::test]
async fn superseded_and_proof_required_tell_where_the_session_stands() {
    let server = Server::new().await;
    let mut client = server.committed("ann").await;
    for _ in 0..3 {
        server.step(&mut client).await;
    }
    let commitment = json!(client.steps[3].1.commitment());
    let stale = client.request(0, &Opening::draw(&*server.rng));
    let problem = server.ask("POST sessions/refresh", stale.clone()).await.refused("superseded");
    assert_eq!((&problem["generation"], &problem["presented_generation"]), (&json!(3), &json!(0)));
    assert_eq!((&problem["commitment"], &problem["session_id"]), (&commitment, &client.steps[0].0["session"]["id"]));
    let minted = server.ask("POST sessions/mint", json!({ "refresh_token": stale["refresh_token"] })).await;
    minted.refused("superseded");
    let problem = server.refresh(&client.steps[3].0).await.refused("proof_required");
    assert_eq!((&problem["generation"], &problem["presented_generation"]), (&json!(3), &json!(3)));
    assert_eq!(problem["commitment"], commitment);
    // Neither changed anything: the client goes on.
    server.step(&mut client).await;
}

#[tokio::test]
async fn the_right_token_from_the_wrong_party_is_theft() {
    let server = Server::new().await;
    let client = server.committed("ann").await;
    let mut body = client.request(0, &Opening::draw(&*server.rng));
    body["proof"]["opening"] = json!(*Opening::draw(&*server.rng).expose());
    let problem = server.ask("POST sessions/refresh", body).await.refused("token_theft_detected");
    assert_eq!((&problem["kind"], &problem["user_id"]), (&json!("stolen_token"), &json!("ann")));
    let session = server.get(&format!("sessions/{}", id(&client.steps[0].0))).await.with(200);
    assert_eq!(session["end_reason"], "theft");
}

#[tokio::test]
async fn definitions_refuse_what_does_not_fit_them() {
    let server = Server::new().await;
    server.define(json!({ "max_sessions_per_user": 1, "on_max_sessions": "reject" })).await;
    server.start(json!({ "user_id": "ann" })).await;
    server.ask("POST sessions", json!({ "user_id": "ann" })).await.refused("max_sessions_reached");
    server
        .define(json!({ "schema": { "name": "string" }, "schema_mode": "strict", "selector": "$Session{name}" }))
        .await;
    let problem = server.ask("POST sessions", json!({ "data": { "name": 7 } })).await;
    let problem = if problem.status == 422 { problem.json() } else { panic!("{problem:?}") };
    assert!(["data_invalid", "selector_unresolved"].contains(&problem["code"].as_str().unwrap()), "{problem}");
    server.define(json!({ "schema": null, "schema_mode": "off" })).await;
    server.ask("POST sessions", json!({ "data": {} })).await.refused("selector_unresolved");
    server
        .ask("POST sessions", json!({ "data": { "name": "bob" }, "user_id": "eve" }))
        .await
        .refused("invalid_request");
    let bob = server.start(json!({ "data": { "name": "bob" } })).await;
    assert_eq!(bob["session"]["user_id"], "bob");
    let path = format!("PATCH sessions/{}", id(&bob));
    server.ask(&path, json!({ "data": { "name": "eve" } })).await.refused("conflict");
    server.ask(&path, json!({ "data": { "name": null } })).await.refused("selector_unresolved");
    server.ask(&path, json!({ "claims": { "sub": "eve" } })).await.refused("data_invalid");
    server.define(json!({ "refresh": { "mint": "off" } })).await;
    server.ask("POST sessions/mint", json!({ "refresh_token": bob["refresh_token"] })).await.refused("conflict");
}

#[tokio::test]
async fn data_claims_and_bodies_have_limits() {
    let server = Server::new().await;
    let before = server.contents().await;
    for (name, bytes) in [("data", 65_536), ("claims", 4096)] {
        let problem =
            server.ask("POST sessions", json!({ name: { "x": "x".repeat(bytes) } })).await.refused("data_invalid");
        assert_eq!(problem["fields"][0]["field"], format!("/{name}"));
    }
    let large = json!({ "data": { "x": "x".repeat(262_144) } });
    server.ask("POST sessions", large).await.refused("payload_too_large");
    assert_eq!(server.contents().await, before);
    let fits = json!({ "data": { "x": "x".repeat(65_536 - 8) }, "claims": { "x": "x".repeat(4096 - 8) } });
    let tokens = server.start(fits).await;
    let verified = server.ask("POST sessions/verify", json!({ "access_token": tokens["access_token"] })).await;
    assert_eq!(verified.with(200)["active"], true);
}

#[tokio::test]
async fn an_api_key_s_budget_is_told_when_it_is_used_up() {
    let server = Server::configured("limits.requests_per_second = 1\nlimits.burst = 2").await;
    for _ in 0..2 {
        server.get("sessions").await.with(200);
    }
    let answer = server.get("sessions").await;
    assert!(!answer.header("retry-after").is_empty());
    answer.refused("rate_limited");
    // Health and keys are not what it limits.
    server.get("jwks.json").await.with(200);
}

#[tokio::test]
async fn access_tokens_expire_a_little_later_than_promised_nowhere() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    let body = json!({ "access_token": tokens["access_token"] });
    let expires_at = time(&tokens["access_token_expires_at"]);
    server.clock.set(expires_at - Seconds(1));
    assert_eq!(server.ask("POST sessions/verify", body.clone()).await.with(200)["active"], true);
    server.clock.set(expires_at);
    assert_eq!(server.ask("POST sessions/verify", body).await.with(200)["code"], "access_token_expired");
}
