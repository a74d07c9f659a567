//! Two servers on one store whose clocks differ by almost as much as is tolerated.

use rekindle::clock::{Clock, Seconds};
use rekindle::engine::Rotation;
use rekindle::journal::Context;
use rekindle::session::Scope;
use rekindle::store::Permission;
use serde_json::{Value, json};

use crate::server::{Server, id, time};

/// How far clocks may be apart: an access token from further in the future is refused.
const SKEWS: [i64; 2] = [29, -29];
/// Within which servers agree.
const BOUND: Seconds = Seconds(2);

async fn neighbours(ahead: i64) -> [Server; 2] {
    let first = Server::new().await;
    let second = first.beside(ahead).await;
    for server in [&first, &second] {
        server.start(json!({})).await;
    }
    [first, second]
}

async fn pass(servers: &[Server; 2], time: Seconds) {
    for server in servers {
        server.pass(time).await;
    }
}

async fn verify(server: &Server, tokens: &Value, online: bool) -> Value {
    let body = json!({ "access_token": tokens["access_token"], "online": online });
    server.ask("POST sessions/verify", body).await.with(200)
}

#[tokio::test]
async fn configuration_and_keys_are_agreed_on_within_the_bound() {
    for skew in SKEWS {
        let servers = neighbours(skew).await;
        let [first, second] = &servers;
        first.define(json!({ "access_token": { "lifetime": { "value": 77, "unit": "seconds" } } })).await;
        let key = first.api_key(Permission::Sessions).await;
        let engine = first.app.engine();
        let kept = engine.api_keys().await.unwrap().last().unwrap().id.clone();
        let scope = Scope { product: "default".parse().unwrap(), env: "dev".parse().unwrap() };
        pass(&servers, BOUND).await;

        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str())];
        let tokens = second.ask_with("POST sessions", json!({}), &headers).await.with(201);
        let lives = time(&tokens["access_token_expires_at"]).secs() - second.clock.now().secs();
        assert_eq!(lives, 77, "{skew}");

        engine.revoke_api_key(&kept, &Context::default()).await.unwrap();
        engine.rotate_keys(&scope, Rotation::Emergency, &Context::default()).await.unwrap();
        pass(&servers, BOUND).await;
        second.ask_with("POST sessions", json!({}), &headers).await.refused("unauthorized");
        assert_eq!(verify(second, &tokens, false).await["code"], "access_token_expired", "{skew}: it was withdrawn");
        for (issuer, verifier) in [(first, second), (second, first)] {
            let tokens = issuer.start(json!({})).await;
            assert_eq!(verify(verifier, &tokens, false).await["active"], true, "{skew}");
        }
    }
}

#[tokio::test]
async fn clients_go_on_from_server_to_server() {
    for skew in SKEWS {
        let servers = neighbours(skew).await;
        let (mut committed, mut bearer) = (servers[0].committed("ann").await, servers[0].start(json!({})).await);
        for step in 1..8 {
            let (server, other) = (&servers[step % 2], &servers[(step + 1) % 2]);
            let tokens = server.step(&mut committed).await;
            bearer = server.refresh(&bearer).await.with(200);
            for tokens in [&tokens, &bearer] {
                assert_eq!(tokens["session"]["generation"], step);
                for online in [false, true] {
                    assert_eq!(verify(other, tokens, online).await["active"], true, "{skew}, step {step}");
                }
            }
            pass(&servers, Seconds(600)).await;
        }
    }
}

#[tokio::test]
async fn an_ending_is_known_within_the_bound() {
    for skew in SKEWS {
        let servers = neighbours(skew).await;
        for (here, there) in [(0, 1), (1, 0)] {
            let tokens = servers[here].start(json!({})).await;
            assert_eq!(verify(&servers[there], &tokens, false).await["active"], true, "{skew}");
            servers[here].delete(&format!("sessions/{}", id(&tokens))).await.with(204);
            assert_eq!(verify(&servers[there], &tokens, true).await["code"], "session_revoked", "{skew}");
            pass(&servers, BOUND).await;
            assert_eq!(verify(&servers[there], &tokens, false).await["code"], "session_revoked", "{skew}");
            servers[there].refresh(&tokens).await.refused("session_revoked");
        }
    }
}

#[tokio::test]
async fn a_signing_key_is_replaced_and_no_token_is_refused() {
    for skew in SKEWS {
        let servers = neighbours(skew).await;
        let mut keys = std::collections::HashSet::new();
        let mut before: Option<[Value; 2]> = None;
        // Past the day on which the second key is published, and the one on which it signs.
        for hour in 0..(32 * 24 / 3) {
            let now = [servers[0].start(json!({})).await, servers[1].start(json!({})).await];
            for (i, tokens) in now.iter().enumerate() {
                let text = tokens["access_token"].as_str().unwrap();
                keys.insert(text.split_once('.').unwrap().0.to_owned());
                assert_eq!(verify(&servers[1 - i], tokens, false).await["active"], true, "{skew}, {hour}");
            }
            for tokens in before.iter().flatten() {
                let code = &verify(&servers[0], tokens, false).await["code"];
                assert_eq!(code, "access_token_expired", "{skew}, {hour}");
            }
            before = Some(now);
            pass(&servers, Seconds(3 * 3600)).await;
        }
        assert_eq!(keys.len(), 2, "{skew}");
    }
}
