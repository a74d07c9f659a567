//! Malformed input of every kind: a documented answer, never a 5xx.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::server::Server;

const PATHS: [&str; 16] = [
    "POST /recipe/session",
    "POST /recipe/session/verify",
    "POST /recipe/session/refresh",
    "POST /recipe/session/regenerate",
    "POST /recipe/session/remove",
    "PUT /recipe/session/data",
    "PUT /recipe/jwt/data",
    "POST /recipe/jwt",
    "PUT /recipe/multitenancy/app/v2",
    "PUT /recipe/multitenancy/tenant/v2",
    "POST /recipe/multitenancy/tenant/remove",
    "POST /session",
    "POST /session/verify",
    "POST /session/refresh",
    "DELETE /session",
    "PUT /session/data",
];

#[tokio::test]
async fn bodies_that_are_none() {
    let server = Server::new().await;
    let deep = "[".repeat(100_000);
    let nested = format!("{{\"userId\":{}", "{\"a\":".repeat(5000));
    for line in PATHS {
        let (method, path) = line.split_once(' ').unwrap();
        for body in ["", "{", "[]", "null", "1", "\"x\"", "{\"a\":1}}", "\u{0}", "\u{feff}{}", &deep, &nested] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "localhost")
                .body(Body::from(body.to_owned()))
                .unwrap();
            let answer = server.send(request).await;
            assert_eq!(answer.status, 400, "{line} {body:.20} {}", answer.text);
            assert_eq!(answer.headers["content-type"], "text/html; charset=UTF-8");
        }
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .body(Body::from(vec![0xff, 0xfe]))
            .unwrap();
        assert_eq!(server.send(request).await.status, 400);
        let large = json!({ "userId": "x".repeat(300_000) });
        assert_eq!(server.anyone().ask(line, large).await.status, 413);
    }
}

#[tokio::test]
async fn fields_of_every_wrong_kind() {
    let server = Server::new().await;
    let values = [
        json!(null),
        json!(1),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("x"),
        json!("💥"),
        json!("\u{0}"),
        json!(true),
        json!([]),
        json!([1]),
        json!(["x", null]),
        json!({}),
        json!({ "a": { "b": null } }),
        json!("a.b.c"),
        json!("x".repeat(5000)),
        json!("rkr_"),
        json!("rkr_AAAA.t1"),
        json!("eyJhbGciOiJub25lIn0.e30."),
        json!("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsInZlcnNpb24iOiIyIn0=.e30=.AAAA"),
    ];
    let whole = json!({
        "userId": "ann", "userDataInJWT": {}, "userDataInDatabase": {}, "enableAntiCsrf": true, "doAntiCsrfCheck": true,
        "checkDatabase": true, "useDynamicSigningKey": true, "accessToken": "x", "refreshToken": "x", "sessionHandle": "x",
        "antiCsrfToken": "x", "algorithm": "RS256", "jwksDomain": "x", "payload": {}, "validity": 1, "appId": "a1", "tenantId": "t1",
        "coreConfig": {}, "revokeAcrossAllTenants": true, "fetchAcrossAllTenants": true, "accessTokenValidity": 1,
    });
    for line in PATHS {
        for name in whole.as_object().unwrap().keys() {
            for value in &values {
                let mut body = whole.clone();
                body[name] = value.clone();
                let answer = server.anyone().ask(line, body).await;
                assert!(answer.status.as_u16() < 500, "{line} {name}={value}: {} {}", answer.status, answer.text);
            }
        }
    }
    for path in [
        "/recipe/session",
        "/recipe/session/user",
        "/recipe/session/data",
        "/user/id",
        "/session/user",
        "/session/data",
    ] {
        for query in [
            "",
            "?",
            "?userId",
            "?userId=%ff",
            "?sessionHandle=%00",
            "?sessionHandle=x&fetchAcrossAllTenants=maybe",
            "?&&==",
        ] {
            let answer = server.anyone().get(&format!("{path}{query}")).await;
            assert!(answer.status.as_u16() < 500, "{path}{query}: {} {}", answer.status, answer.text);
        }
    }
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_named() {
    let server = Server::new().await;
    let client = server.cdi("5.4");
    client.post("/session", json!({})).await.line(400, "Field name 'userId' is invalid in JSON input");
    client.get("/recipe/session/user").await.line(400, "Field name 'userId' is missing in GET request");
    client.get("/user/id").await.line(400, "Field name 'userId' is missing in GET request");
    for body in [json!({}), json!({ "userId": "ann", "sessionHandles": [] })] {
        client
            .post("/session/remove", body)
            .await
            .line(400, "Invalid JSON input - use one of userId or sessionHandles array");
    }
    let body = json!({ "sessionHandles": [], "revokeAcrossAllTenants": true });
    assert_eq!(client.post("/session/remove", body).await.status, 400);
    server.cdi("9.9").post("/session", json!({})).await.line(400, "cdi-version 9.9 not supported");
    client.ask("PATCH /recipe/session", json!({})).await.line(405, "Method not supported");
    client.ask("GET /recipe/session/verify", Value::Null).await.line(405, "Method not supported");
    client.ask("POST /session", json!({})).await.line(404, "Not found");
    server.cdi("2.3").ask("POST /recipe/session", json!({})).await.line(404, "Not found");
    client
        .at("/nobody")
        .post("/session", json!({}))
        .await
        .line(400, "AppId or tenantId not found => Tenant(, public, nobody)");
    client
        .at("/appid-none")
        .post("/session", json!({}))
        .await
        .line(400, "AppId or tenantId not found => Tenant(, none, public)");
    server.cdi("2.21").at("/t1").post("/session", json!({})).await.line(404, "Not found");
    let other = client.ask("POST /recipe/signin", json!({})).await;
    assert_eq!(
        (other.status.as_u16(), other.headers["content-type"].to_str().unwrap()),
        (404, "text/html; charset=UTF-8")
    );
    assert!(other.text.starts_with("Not found: ") && other.text.ends_with('\n'));
    // API v1's own paths stay its own.
    let v1 = client.get("/v1/nothing").await;
    assert_eq!(v1.headers["content-type"], "application/problem+json");
}

#[tokio::test]
async fn damaged_tokens_are_no_theft_and_let_nobody_in() {
    let server = Server::new().await;
    let client = server.cdi("5.4");
    let tokens = client.create("ann", json!({ "enableAntiCsrf": true })).await;
    let (access, refresh) =
        (tokens["accessToken"]["token"].as_str().unwrap(), tokens["refreshToken"]["token"].as_str().unwrap());
    let damaged = |token: &str| {
        let changed = (0..token.len()).step_by(13).map(|at| {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).unwrap()
        });
        let cut = (0..token.len()).step_by(29).map(|end| token[..end].to_owned());
        changed
            .chain(cut)
            .chain([format!("{token}."), format!("{token}.t1"), format!("{token}.Nope"), format!("{token}=")])
            .collect::<Vec<_>>()
    };
    for token in damaged(access) {
        client.verify_with(&json!(token), json!({})).await.word("TRY_REFRESH_TOKEN");
        client.post("/session/regenerate", json!({ "accessToken": token })).await.word("UNAUTHORISED");
    }
    for token in damaged(refresh) {
        client.refresh_with(&json!(token), json!({})).await.word("UNAUTHORISED");
    }
    client.verify(&tokens).await.ok();
    // A token of API v1 is none of the face's, and the other way round.
    let v1 = crate::server::v1_access_token(&server).await;
    client.verify_with(&json!(v1), json!({})).await.word("TRY_REFRESH_TOKEN");
}
