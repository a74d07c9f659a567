//! The endpoints of administration, and the description of the API.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
};
use rekindle::{journal::Context, store::Permission};
use rekindle_server::{
    app::{self, App},
    config::Config,
    edge::Peer,
};
use serde_json::{Value, json};
use tower::ServiceExt;

struct Admin {
    router: Router,
    app: App,
    key: String,
}

async fn admin() -> Admin {
    let engine = rekindle_testkit::seam::engine_in_memory().await;
    let made = engine.create_api_key("test".into(), vec![Permission::Admin], &Context::default()).await.unwrap();
    let app = App::new(Config::default(), engine);
    Admin { router: app.router(), app, key: made.secret.expose().to_owned() }
}

impl Admin {
    async fn ask(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask_with(&self.key, method, path, body).await
    }

    async fn ask_with(&self, key: &str, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .header("host", "localhost")
            .extension(Peer("192.0.2.7:4711".parse().unwrap()))
            .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() })
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, body) = self.ask(Method::POST, path, body).await;
        assert_eq!(status, 201, "{path}: {body}");
        body
    }

    async fn patch(&self, path: &str, body: Value) -> Value {
        let (status, body) = self.ask(Method::PATCH, path, body).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn delete(&self, path: &str) {
        let (status, body) = self.ask(Method::DELETE, path, Value::Null).await;
        assert_eq!((status.as_u16(), body), (204, Value::Null), "{path}");
    }

    async fn refused(&self, method: Method, path: &str, body: Value, status: u16, code: &str) -> Value {
        let (got, answer) = self.ask(method, path, body).await;
        assert_eq!((got.as_u16(), &answer["code"]), (status, &json!(code)), "{path}: {answer}");
        answer
    }
}

#[tokio::test]
async fn a_product_is_made_renamed_listed_and_deleted() {
    let admin = admin().await;
    let shop = json!({ "tag": "shop", "name": "The shop" });
    assert_eq!(admin.post("/v1/products", shop.clone()).await, shop);
    assert_eq!(admin.post("/v1/products", json!({ "tag": "blog" })).await["name"], "blog");
    admin.refused(Method::POST, "/v1/products", shop.clone(), 409, "conflict").await;
    assert_eq!(admin.get("/v1/products/shop").await, shop);
    assert_eq!(admin.patch("/v1/products/shop", json!({ "name": "Shop" })).await["name"], "Shop");
    assert_eq!(admin.get("/v1/products/shop").await["name"], "Shop");

    let first = admin.get("/v1/products?limit=2").await;
    assert_eq!(first["items"].as_array().unwrap().iter().map(|p| &p["tag"]).collect::<Vec<_>>(), ["blog", "default"]);
    let next = first["next_cursor"].as_str().unwrap();
    let second = admin.get(&format!("/v1/products?limit=2&cursor={next}")).await;
    assert_eq!((second["items"][0]["tag"].as_str(), &second["next_cursor"]), (Some("shop"), &Value::Null));

    admin.delete("/v1/products/shop").await;
    admin.refused(Method::GET, "/v1/products/shop", Value::Null, 404, "product_not_found").await;
    admin.refused(Method::DELETE, "/v1/products/shop", Value::Null, 404, "product_not_found").await;
}

#[tokio::test]
async fn names_and_fields_are_checked() {
    let admin = admin().await;
    for (body, field) in [
        (json!({ "tag": "Shop" }), "tag"),
        (json!({ "tag": "products" }), "tag"),
        (json!({ "tag": "shop", "name": "" }), "name"),
        (json!({ "tag": "shop", "name": "x".repeat(129) }), "name"),
        (json!({ "tag": "shop", "colour": "red" }), "colour"),
        (json!({ "name": "shop" }), "tag"),
    ] {
        let answer = admin.refused(Method::POST, "/v1/products", body, 400, "invalid_request").await;
        assert_eq!(answer["fields"][0]["field"], field, "{answer}");
    }
    admin.refused(Method::GET, "/v1/products?cursor=%21", Value::Null, 400, "invalid_request").await;
    admin.refused(Method::GET, "/v1/products?limit=0", Value::Null, 400, "invalid_request").await;
}

#[tokio::test]
async fn an_environment_is_switched_off_and_on_and_deleted() {
    let admin = admin().await;
    let all = "/v1/products/default/environments";
    let live = admin.post(all, json!({ "slug": "live" })).await;
    assert_eq!(live, json!({ "slug": "live", "name": "live", "active": true }));
    admin.refused(Method::POST, all, json!({ "slug": "live" }), 409, "conflict").await;
    let one = "/v1/products/default/environments/live";
    assert_eq!(admin.patch(one, json!({ "active": false })).await["active"], false);
    admin
        .refused(Method::POST, "/v1/default/live/sessions", json!({ "user_id": "u" }), 409, "environment_inactive")
        .await;
    assert_eq!(admin.patch(one, json!({ "active": true, "name": "Live" })).await["name"], "Live");
    admin.post("/v1/default/live/sessions", json!({ "user_id": "u" })).await;
    admin.refused(Method::DELETE, one, Value::Null, 409, "conflict").await;
    let (status, _) = admin.ask(Method::DELETE, "/v1/default/live/users/u/sessions", Value::Null).await;
    assert_eq!(status, 200);
    admin.delete(one).await;
    admin.refused(Method::PATCH, one, json!({}), 404, "environment_not_found").await;
    assert_eq!(admin.get(all).await["items"].as_array().unwrap().len(), 1);
    admin.refused(Method::GET, "/v1/products/none/environments", Value::Null, 404, "product_not_found").await;
}

#[tokio::test]
async fn a_definition_is_made_changed_and_deleted() {
    let admin = admin().await;
    let all = "/v1/products/default/definitions";
    let web = json!({
        "tag": "web", "schema": { "userId": "string" }, "selector": "userId",
        "refresh": { "idle_timeout": { "value": 7, "unit": "days" } },
    });
    let made = admin.post(all, web.clone()).await;
    assert_eq!((&made["version"], &made["tag"]), (&json!(1), &json!("web")));
    assert_eq!(made["selector"], "$Session{userId}");
    let one = "/v1/products/default/definitions/web";
    assert_eq!(admin.get(one).await, made);
    admin.refused(Method::POST, all, web, 409, "conflict").await;

    let bad = json!({ "tag": "Bad", "selector": "", "colour": "red" });
    let answer = admin.refused(Method::POST, all, bad, 400, "invalid_request").await;
    assert!(answer["fields"].as_array().unwrap().len() >= 2, "{answer}");

    let changed = admin.patch(one, json!({ "description": "For browsers." })).await;
    assert_eq!((&changed["version"], &changed["description"]), (&json!(2), &json!("For browsers.")));
    admin.refused(Method::PATCH, one, json!({ "tag": "other" }), 400, "invalid_request").await;
    assert_eq!(admin.get(all).await["items"].as_array().unwrap().len(), 2);
    admin.delete(one).await;
    admin.refused(Method::GET, one, Value::Null, 404, "definition_not_found").await;
}

#[tokio::test]
async fn a_key_may_do_what_its_scopes_say_until_it_is_revoked() {
    let admin = admin().await;
    let made = admin.post("/v1/api-keys", json!({ "name": "reader", "scopes": ["read"] })).await;
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(key.starts_with("rkk_"));
    let listed = admin.get("/v1/api-keys").await;
    assert!(!listed.to_string().contains(key));
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    admin.refused(Method::POST, "/v1/api-keys", json!({ "name": "x", "scopes": [] }), 400, "invalid_request").await;

    // The keys in force are read again after a second; another server begins with those of now.
    let server = Admin { router: App::new(Config::default(), admin.app.engine().clone()).router(), ..admin };
    let reads = ["/v1/products", "/v1/products/default", "/v1/products/default/environments", "/v1/audit"];
    for path in reads {
        assert_eq!(server.ask_with(key, Method::GET, path, Value::Null).await.0, 200, "{path}");
    }
    for (method, path, body) in [
        (Method::POST, "/v1/products", json!({ "tag": "shop" })),
        (Method::PATCH, "/v1/products/default", json!({ "name": "x" })),
        (Method::DELETE, "/v1/products/default/definitions/default", Value::Null),
        (Method::GET, "/v1/api-keys", Value::Null),
    ] {
        let (status, body) = server.ask_with(key, method, path, body).await;
        assert_eq!((status.as_u16(), &body["code"]), (403, &json!("forbidden")), "{path}");
    }
    let path = format!("/v1/api-keys/{id}");
    server.delete(&path).await;
    server.delete(&path).await;
    server.refused(Method::DELETE, "/v1/api-keys/key_none", Value::Null, 404, "not_found").await;
    let fresh = Admin { router: App::new(Config::default(), server.app.engine().clone()).router(), ..server };
    assert_eq!(fresh.ask_with(key, Method::GET, "/v1/products", Value::Null).await.0, 401);
}

#[tokio::test]
async fn each_change_is_in_the_audit_log_with_its_author_and_target() {
    let admin = admin().await;
    // Within a millisecond the order of entries is not kept.
    let pause = || tokio::time::sleep(Duration::from_millis(3));
    admin.post("/v1/products", json!({ "tag": "shop" })).await;
    pause().await;
    admin.post("/v1/products/shop/environments", json!({ "slug": "live" })).await;
    pause().await;
    admin.post("/v1/products/shop/definitions", json!({ "tag": "web" })).await;
    pause().await;
    admin.delete("/v1/products/shop").await;
    let log = admin.get("/v1/audit?limit=3").await;
    let told: Vec<(&str, &str)> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["action"].as_str().unwrap(), e["target"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("product.delete", "shop"),
            ("definition.create", "shop/definitions/web"),
            ("environment.create", "shop/live")
        ]
    );
    let entry = &log["items"][0];
    assert!(entry["actor"].as_str().unwrap().starts_with("key_") && entry["request_id"].is_string(), "{entry}");
    assert!(log["items"].as_array().unwrap().iter().all(|entry| entry["ip"] == "192.0.2.7"), "{log}");
    let next = log["next_cursor"].as_str().unwrap();
    let older = admin.get(&format!("/v1/audit?cursor={next}")).await;
    assert_eq!(older["items"][0]["action"], "product.create");
}

#[tokio::test]
async fn administration_and_sessions_do_not_stand_in_each_others_way() {
    let admin = admin().await;
    for tag in ["audit", "api-keys"] {
        admin.post("/v1/products", json!({ "tag": tag })).await;
        admin.post(&format!("/v1/products/{tag}/environments"), json!({ "slug": "definitions" })).await;
        admin.post(&format!("/v1/products/{tag}/definitions"), json!({ "tag": "default" })).await;
        let started = admin.post(&format!("/v1/{tag}/definitions/sessions"), json!({ "user_id": "u" })).await;
        assert_eq!(started["session"]["product"], tag);
    }
    admin.refused(Method::POST, "/v1/products/default/sessions", json!({}), 404, "product_not_found").await;
}

/// `REKINDLE_BLESS=1 cargo test` writes the committed document anew.
#[test]
fn the_committed_description_is_the_one_that_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let served = app::openapi_json();
    if std::env::var_os("REKINDLE_BLESS").is_some() {
        std::fs::write(path, &served).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == served,
        "docs/openapi.json is out of date: run REKINDLE_BLESS=1 cargo test -p rekindle-server"
    );
    let document: Value = serde_json::from_str(&served).unwrap();
    let mut ids = Vec::new();
    for item in document["paths"].as_object().unwrap().values() {
        ids.extend(item.as_object().unwrap().values().filter_map(|o| o["operationId"].as_str()));
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an operation id is used twice");
}
