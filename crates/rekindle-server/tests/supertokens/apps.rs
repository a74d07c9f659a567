//! Apps and tenants, callers and their keys, and how it all looks from API v1.

use axum::{
    body::Body,
    http::{HeaderName, Request},
};
use rekindle::{
    journal::Context,
    session::Scope,
    store::{Environment, Permission, Product},
};
use serde_json::{Value, json};

use crate::server::{Answer, Client, Server, payload};

async fn put_app(server: &Server, id: &str, config: Value) -> Value {
    let body = json!({ "appId": id, "coreConfig": config });
    server.anyone().ask("PUT /recipe/multitenancy/app/v2", body).await.ok()
}

async fn put_tenant(client: Client<'_>, id: &str) -> Value {
    client.ask("PUT /recipe/multitenancy/tenant/v2", json!({ "tenantId": id })).await.ok()
}

#[tokio::test]
async fn an_app_has_a_configuration_keys_and_sessions_of_its_own() {
    let server = Server::new().await;
    let config = json!({ "access_token_validity": "2", "refresh_token_validity": "0.1" });
    assert_eq!(put_app(&server, "a1", config.clone()).await, json!({ "status": "OK", "createdNew": true }));
    assert_eq!(put_app(&server, "a1", json!({})).await, json!({ "status": "OK", "createdNew": false }));
    let client = server.cdi("5.4").at("/appid-a1");
    let tokens = client.create("ann", json!({})).await;
    assert_eq!(tokens["accessToken"]["expiry"].as_i64().unwrap() - server.now(), 2000);
    assert_eq!(tokens["refreshToken"]["expiry"].as_i64().unwrap() - server.now(), 6000);
    let jwks: Value = serde_json::from_str(&client.get("/.well-known/jwks.json").await.text).unwrap();
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 2);
    // Nobody else's.
    let other = server.cdi("5.4");
    other.verify(&tokens).await.word("TRY_REFRESH_TOKEN");
    other.refresh(&tokens).await.word("UNAUTHORISED");
    let removed = other.post("/session/remove", json!({ "sessionHandles": [tokens["session"]["handle"]] })).await.ok();
    assert_eq!(removed["sessionHandlesRevoked"], json!([]));
    client.refresh(&tokens).await.ok();
    server.pass(6);
    client.refresh(&tokens).await.word("UNAUTHORISED");

    let refused = json!({ "appId": "a2", "coreConfig": { "access_token_validit": 1 } });
    let said = "Invalid core config: Invalid config key: access_token_validit";
    server.anyone().ask("PUT /recipe/multitenancy/app/v2", refused).await.line(400, said);
    client
        .ask("PUT /recipe/multitenancy/app/v2", json!({ "appId": "a3" }))
        .await
        .line(403, "Only public app and tenant can call this API");
    let listed = server.anyone().get("/recipe/multitenancy/app/list/v2").await.ok();
    assert_eq!(
        listed["apps"][1],
        json!({
            "appId": "a1",
            "tenants": [{ "tenantId": "public", "thirdParty": { "providers": [] }, "coreConfig": config }],
        })
    );
    let gone = server.anyone().ask("POST /recipe/multitenancy/app/remove", json!({ "appId": "a1" })).await.ok();
    assert_eq!(gone["didExist"], true);
    let gone = server.anyone().ask("POST /recipe/multitenancy/app/remove", json!({ "appId": "a1" })).await.ok();
    assert_eq!(gone["didExist"], false);
}

#[tokio::test]
async fn tenants_share_the_app_s_keys_and_have_sessions_of_their_own() {
    let server = Server::new().await;
    let app = server.cdi("5.4");
    app.at("/t1").get("/recipe/multitenancy/tenant/v2").await.word("TENANT_NOT_FOUND_ERROR");
    app.at("/t1")
        .get("/recipe/session/user?userId=ann")
        .await
        .line(400, "AppId or tenantId not found => Tenant(, public, t1)");
    assert_eq!(put_tenant(app, "t1").await["createdNew"], true);
    assert_eq!(put_tenant(app, "t1").await["createdNew"], false);
    let shown = app.at("/t1").get("/recipe/multitenancy/tenant/v2").await.ok();
    assert_eq!(shown, json!({ "status": "OK", "tenantId": "t1", "thirdParty": { "providers": [] }, "coreConfig": {} }));

    let tokens = app.at("/t1").create("ann", json!({})).await;
    let handle = tokens["session"]["handle"].as_str().unwrap();
    assert!(handle.ends_with("_t1"), "{handle}");
    assert_eq!(
        (&tokens["session"]["tenantId"], &payload(&tokens["accessToken"]["token"])["tId"]),
        (&json!("t1"), &json!("t1"))
    );
    let public = app.create("ann", json!({})).await;
    // What belongs to the whole app finds the tenant by itself.
    let next = app.refresh(&tokens).await.ok();
    app.verify(&next).await.ok();
    app.refresh(&tokens).await.word("TOKEN_THEFT_DETECTED");
    app.get(&format!("/recipe/session?sessionHandle={handle}")).await.ok();
    let line = "Only public tenantId can call this app specific API";
    app.at("/t1").refresh(&tokens).await.line(403, line);
    app.at("/t1").get("/recipe/session/user?userId=ann").await.line(403, line);

    let list = async |client: Client<'_>, query: &str| {
        client.get(&format!("/recipe/session/user?userId=ann{query}")).await.ok()["sessionHandles"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(list(app, "").await, 2);
    assert_eq!(list(app, "&fetchAcrossAllTenants=false").await, 1);
    assert_eq!(list(app.at("/t1"), "&fetchAcrossAllTenants=false").await, 1);
    let body = json!({ "userId": "ann", "revokeAcrossAllTenants": false });
    assert_eq!(app.at("/t1").post("/session/remove", body).await.ok()["sessionHandlesRevoked"], json!([handle]));
    app.refresh(&next).await.word("UNAUTHORISED");
    app.refresh(&public).await.ok();

    let tenants = app.get("/recipe/multitenancy/tenant/list/v2").await.ok();
    let ids: Vec<&Value> = tenants["tenants"].as_array().unwrap().iter().map(|tenant| &tenant["tenantId"]).collect();
    assert_eq!(ids, ["public", "t1"], "not the environments that API v1 made");
    let gone = app.ask("POST /recipe/multitenancy/tenant/remove", json!({ "tenantId": "t1" })).await.ok();
    assert_eq!(gone["didExist"], true);
    app.refresh(&next).await.word("UNAUTHORISED");
    let dev = app.ask("POST /recipe/multitenancy/tenant/remove", json!({ "tenantId": "dev" })).await.ok();
    assert_eq!(dev["didExist"], false, "an environment that is none of the face's");
}

async fn with_key(server: &Server, name: &'static str, value: &str) -> Answer {
    let mut request: Request<Body> = server.cdi("5.4").request("GET /recipe/session/user?userId=ann", Value::Null);
    request.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
    server.send(request).await
}

#[tokio::test]
async fn callers_need_a_key_where_one_is_configured() {
    const KEY: &str = "one-key-of-more-than-20-characters";
    let server =
        Server::configured(&format!("[supertokens]\napi_keys = ['other-key-of-20-characters', '{KEY}']")).await;
    server.cdi("5.4").get("/recipe/session/user?userId=ann").await.line(401, "Invalid API key");
    server.cdi("5.4").get("/apiversion").await.line(401, "Invalid API key");
    for (name, value) in
        [("api-key", KEY.to_owned()), ("authorization", KEY.to_owned()), ("authorization", format!("Bearer {KEY}"))]
    {
        with_key(&server, name, &value).await.ok();
    }
    with_key(&server, "api-key", &KEY[1..]).await.line(401, "Invalid API key");
    for path in ["/hello", "/", "/.well-known/jwks.json"] {
        assert_eq!(server.anyone().get(path).await.status, 200, "{path}");
    }
    let ours = async |permission| {
        let key =
            server.app.engine().create_api_key("test".into(), vec![permission], &Context::default()).await.unwrap();
        with_key(&server, "api-key", key.secret.expose()).await
    };
    ours(Permission::Sessions).await.ok();
    ours(Permission::Metrics).await.line(403, "this API key lacks the scope `sessions`");
    // An empty one is none, wherever it comes from.
    with_key(&server, "api-key", "").await.line(401, "Invalid API key");
}

#[tokio::test]
async fn our_own_keys_need_their_scope_to_make_and_remove_apps_and_tenants() {
    let server = Server::configured("[supertokens]\napi_keys = ['one-key-of-more-than-20-characters']").await;
    let key = async |permissions| {
        let key = server.app.engine().create_api_key("test".into(), permissions, &Context::default()).await.unwrap();
        key.secret.expose().to_owned()
    };
    let (sessions, admin) = (key(vec![Permission::Sessions]).await, key(vec![Permission::Admin]).await);
    let ask = async |line, body, key: &str| {
        let mut request = server.cdi("5.4").request(line, body);
        request.headers_mut().insert("api-key", key.parse().unwrap());
        server.send(request).await
    };
    for (line, body) in [
        ("PUT /recipe/multitenancy/app/v2", json!({ "appId": "a1" })),
        ("PUT /recipe/multitenancy/tenant/v2", json!({ "tenantId": "t1" })),
        ("POST /recipe/multitenancy/tenant/remove", json!({ "tenantId": "t1" })),
        ("POST /recipe/multitenancy/app/remove", json!({ "appId": "a1" })),
    ] {
        ask(line, body.clone(), &sessions).await.line(403, "this API key lacks the scope `admin`");
        ask(line, body, &admin).await.ok();
    }
    ask("GET /recipe/multitenancy/tenant/list/v2", Value::Null, &sessions).await.ok();
}

#[tokio::test]
async fn what_api_v1_made_is_neither_taken_nor_removed() {
    let server = Server::new().await;
    let engine = server.app.engine();
    let product = Product { tag: "shop".parse().unwrap(), name: "Shop".into() };
    engine.create_product(product, &Context::default()).await.unwrap();
    let live = Environment { slug: "live".parse().unwrap(), name: "Live".into(), active: true };
    engine.create_environment(&"shop".parse().unwrap(), live, &Context::default()).await.unwrap();
    let app = json!({ "appId": "shop" });
    let said = "there is a product `shop` already, and it is not an app";
    server.anyone().ask("PUT /recipe/multitenancy/app/v2", app.clone()).await.line(400, said);
    let gone = server.anyone().ask("POST /recipe/multitenancy/app/remove", app).await.ok();
    assert_eq!(gone["didExist"], false);
    let said = "there is an environment `dev` already, and it is not a tenant";
    let dev = json!({ "tenantId": "dev" });
    server.anyone().ask("PUT /recipe/multitenancy/tenant/v2", dev).await.line(400, said);
}

#[tokio::test]
async fn web_pages_cannot_call_where_no_key_is_asked_for() {
    let server = Server::new().await;
    for (name, value) in [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        let answer = with_key(&server, name, value).await;
        answer.line(403, "web pages cannot call this server without an API key");
    }
    with_key(&server, "sec-fetch-site", "none").await.ok();
    let tenant = json!({ "tenantId": "<script>" });
    let echoed = server.anyone().ask("PUT /recipe/multitenancy/tenant/v2", tenant).await;
    assert_eq!(echoed.status, 400);
    assert_eq!(echoed.headers["content-security-policy"], "default-src 'none'; sandbox");
}

#[tokio::test]
async fn servers_with_other_settings_do_not_undo_each_other_s_for_ever() {
    let server = Server::new().await;
    let other = server.beside("[supertokens]\nrefresh_token_validity = '10d'");
    let version = async || {
        let product = "default".parse().unwrap();
        server.app.engine().definition(&product, &"supertokens".parse().unwrap()).await.unwrap().version
    };
    server.cdi("5.4").create("ann", json!({})).await;
    let first = version().await;
    for _ in 0..5 {
        other.cdi("5.4").create("ann", json!({})).await;
        server.cdi("5.4").create("ann", json!({})).await;
        server.pass(5);
    }
    assert!(version().await <= first + 2, "each says its own once");
}

#[tokio::test]
async fn changes_of_an_app_that_are_made_at_once_are_all_kept() {
    let server = Server::new().await;
    put_app(&server, "a1", json!({})).await;
    let app = server.cdi("5.4").at("/appid-a1");
    let names = ["t1", "t2", "t3", "t4"];
    let made = futures_util::future::join_all(names.map(|name| put_tenant(app, name))).await;
    assert!(made.iter().all(|made| made["createdNew"] == true), "{made:?}");
    server.pass(5);
    let tenants = app.get("/recipe/multitenancy/tenant/list/v2").await.ok();
    assert_eq!(tenants["tenants"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn a_tenant_whose_environment_is_gone_stands_in_nobody_s_way() {
    let server = Server::new().await;
    let app = server.cdi("5.4");
    put_tenant(app, "t1").await;
    let tokens = app.create("ann", json!({})).await;
    let scope = Scope { product: "default".parse().unwrap(), env: "t1".parse().unwrap() };
    server.app.engine().delete_environment(scope, &Context::default()).await.unwrap();
    let listed = app.get("/recipe/session/user?userId=ann").await.ok();
    assert_eq!(listed["sessionHandles"], json!([tokens["session"]["handle"]]));
    let removed = app.post("/session/remove", json!({ "userId": "ann" })).await.ok();
    assert_eq!(removed["sessionHandlesRevoked"], listed["sessionHandles"]);
    app.refresh(&tokens).await.word("UNAUTHORISED");
}

#[tokio::test]
async fn production_asks_everybody_but_exempt_networks() {
    let server = Server::with("", false).await;
    server.cdi("5.4").get("/apiversion").await.line(401, "Invalid API key");
    let exempt = Server::with("[supertokens]\nkeyless_from = ['127.0.0.0/8']", false).await;
    exempt.cdi("1.0").create("ann", json!({})).await;
}

#[tokio::test]
async fn an_app_can_have_keys_of_its_own() {
    let server = Server::new().await;
    put_app(&server, "a1", json!({ "api_keys": "key-of-the-app-with-20-characters" })).await;
    let client = server.cdi("5.4").at("/appid-a1");
    client.get("/recipe/session/user?userId=ann").await.line(401, "Invalid API key");
    server.cdi("5.4").get("/recipe/session/user?userId=ann").await.ok();
    let mut request = client.request("GET /recipe/session/user?userId=ann", Value::Null);
    request.headers_mut().insert("api-key", "key-of-the-app-with-20-characters".parse().unwrap());
    server.send(request).await.ok();
}

#[tokio::test]
async fn its_sessions_are_ordinary_sessions() {
    let server = Server::new().await;
    let client = server.cdi("5.4");
    let tokens = client
        .create(
            "ann",
            json!({ "userDataInJWT": { "iss": "https://a.example", "role": "x" }, "userDataInDatabase": { "n": 1 } }),
        )
        .await;
    let next = client.refresh(&tokens).await.ok();
    client.verify(&next).await.ok();
    client.refresh(&tokens).await.word("TOKEN_THEFT_DETECTED");
    let scope = Scope { product: "default".parse().unwrap(), env: "public".parse().unwrap() };
    let id = tokens["session"]["handle"].as_str().unwrap().parse().unwrap();
    let engine = server.app.engine();
    let session = engine.session(&scope, id).await.unwrap();
    assert_eq!((session.user_id.as_str(), session.position.generation, session.confirmed), ("ann", 1, true));
    assert_eq!(
        (session.claims.to_map()["st:iss"].as_str(), session.data.to_map()["n"].as_i64()),
        (Some("https://a.example"), Some(1))
    );
    let explained = format!("{:?}", engine.explain(&scope, id).await.unwrap());
    assert!(explained.to_lowercase().contains("theft"), "{explained}");
    let metrics = server.app.metrics().render();
    for line in [
        r#"rekindle_refreshes_total{outcome="theft"} 1"#,
        r#"rekindle_http_requests_total{route="/recipe/session/refresh",method="POST",status="2xx"} 2"#,
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn a_face_that_is_switched_off_is_not_there() {
    let server = Server::configured("[supertokens]\nenabled = false").await;
    for path in ["/hello", "/recipe/session", "/.well-known/jwks.json"] {
        let answer = server.anyone().get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.headers["content-type"].to_str().unwrap()),
            (404, "application/problem+json")
        );
    }
}

#[tokio::test]
async fn stubs() {
    let server = Server::new().await;
    let client = server.cdi("5.4");
    assert_eq!(client.get("/user/id?userId=ann").await.text, r#"{"status":"UNKNOWN_USER_ID_ERROR"}"#);
    client.ask("PUT /ee/license", json!({ "licenseKey": "x" })).await.ok();
    assert_eq!(client.get("/ee/featureflag").await.ok(), json!({ "status": "OK", "features": [], "usageStats": {} }));
    assert_eq!(client.get("/telemetry").await.ok()["exists"], false);
}
