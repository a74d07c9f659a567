//! Who may do what: read off the description, so that no endpoint is left out.

use rekindle::store::Permission;
use serde_json::{Value, json};

use crate::server::Server;

const PUBLIC: [&str; 5] =
    ["/healthz", "/readyz", "/openapi.json", "/v1/{product}/{env}/jwks.json", "/v1/{product}/{env}/auth"];

#[tokio::test]
async fn every_endpoint_asks_for_its_scope_before_anything_else() {
    let server = Server::new().await;
    let mut keys = Vec::new();
    for permission in Permission::ALL {
        keys.push((permission, format!("Bearer {}", server.api_key(permission).await)));
    }
    let document: Value = serde_json::from_str(&rekindle_server::app::openapi_json()).unwrap();
    let mut checked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled = path
            .replace("{product}", "default")
            .replace("{env}", "dev")
            .replace("{session_id}", "01890a5d-ac96-774b-bcce-b302099a8057")
            .replace("{user_id}", "ann")
            .replace(['{', '}'], "");
        for method in ["get", "put", "post", "patch", "delete"] {
            let Some(operation) = item.get(method) else { continue };
            let needed = operation["security"][0]["api_key"][0].as_str();
            assert_eq!(needed.is_none(), PUBLIC.contains(&path.as_str()), "{method} {path}");
            let Some(needed) = needed else { continue };
            let line = format!("{} {filled}", method.to_uppercase());
            for wrong in ["", "Basic YTpi", "Bearer rkr_AAAA", "Bearer rkk_unknown"] {
                let answer = server.ask_with(&line, Value::Null, &[("authorization", wrong)]).await;
                assert_eq!(answer.header("www-authenticate"), "Bearer", "{line}");
                answer.refused("unauthorized");
            }
            for (permission, key) in &keys {
                if permission.as_str() != needed && *permission != Permission::Admin {
                    let answer = server.ask_with(&line, Value::Null, &[("authorization", key)]).await;
                    let problem = answer.refused("forbidden");
                    assert_eq!(problem["detail"], format!("this API key lacks the scope `{needed}`"), "{line}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked >= 60, "{checked}");
}

#[tokio::test]
async fn each_scope_opens_its_own_endpoints() {
    let server = Server::new().await;
    for (permission, line, body, status) in [
        (Permission::Sessions, "POST sessions", json!({}), 201),
        (Permission::Read, "GET sessions", Value::Null, 200),
        (Permission::Confirm, "POST sessions/confirm", json!({ "confirmations": [] }), 202),
        (Permission::Confirm, "GET revocations", Value::Null, 200),
        (Permission::Metrics, "GET /metrics", Value::Null, 200),
        (Permission::Admin, "DELETE users/ann", Value::Null, 200),
    ] {
        let key = format!("Bearer {}", server.api_key(permission).await);
        // A new key is known within a second.
        server.clock.advance(rekindle::clock::Seconds(1));
        let answer = server.ask_with(line, body, &[("authorization", &key)]).await;
        assert_eq!(answer.status, status, "{line}: {}", answer.text);
    }
}
