//! A server under test, and a client that speaks one version of the interface.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use rekindle::{
    clock::{Clock, Seconds},
    engine::{Engine, Parts, Settings},
    memory::MemoryStore,
    refresh::SecretRing,
    revocation_log::{MemoryRevocationLog, RevocationLog as _},
    session::SessionId,
};
use rekindle_server::{
    app::App,
    config::{Config, Overrides},
    edge::Peer,
};
use rekindle_testkit::seam::{ManualClock, SeededRng};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

pub struct Server {
    pub app: App,
    pub clock: Arc<ManualClock>,
    log: Arc<MemoryRevocationLog>,
    router: Router,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    /// Its JSON, which has this status word.
    #[track_caller]
    pub fn word(self, word: &str) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/json; charset=UTF-8");
        let json: Value = serde_json::from_str(&self.text).unwrap();
        assert_eq!(json["status"], word, "{}", self.text);
        json
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        self.word("OK")
    }

    /// That it is this line of text.
    #[track_caller]
    pub fn line(self, status: u16, line: &str) {
        assert_eq!((self.status.as_u16(), self.text.as_str()), (status, format!("{line}\n").as_str()));
        assert_eq!(self.headers["content-type"], "text/html; charset=UTF-8");
    }
}

impl Server {
    pub async fn new() -> Self {
        Self::configured("").await
    }

    /// In development, with this configuration.
    pub async fn configured(config: &str) -> Self {
        Self::with(config, true).await
    }

    pub async fn with(config: &str, development: bool) -> Self {
        let clock = Arc::new(ManualClock::at("2026-11-20T10:00:00Z".parse().unwrap()));
        let log = Arc::new(MemoryRevocationLog::default());
        let engine = Engine::open(Parts {
            store: Arc::new(MemoryStore::new()),
            revocation_log: log.clone(),
            clock: clock.clone(),
            secrets: SecretRing::parse(&SecretRing::generate(1, &SeededRng::new(6))).unwrap(),
            rng: Arc::new(SeededRng::new(7)),
            settings: Settings::new("http://127.0.0.1:3567"),
        })
        .await
        .unwrap();
        let mut config = Config::from_toml(config, &Overrides::default()).unwrap();
        config.development = development;
        let app = App::new(config, engine);
        Self { router: app.router(), app, clock, log }
    }

    /// Whether the revocation log knows that a session ended.
    pub fn logged(&self, session: SessionId) -> bool {
        self.log.ended(session).is_some()
    }

    /// Another server on the same store, configured otherwise.
    pub fn beside(&self, config: &str) -> Self {
        let mut config = Config::from_toml(config, &Overrides::default()).unwrap();
        config.development = true;
        let app = App::new(config, self.app.engine().clone());
        Self { router: app.router(), app, clock: self.clock.clone(), log: self.log.clone() }
    }

    /// Time passes.
    pub fn pass(&self, time: u64) {
        self.clock.advance(Seconds(time));
    }

    pub fn now(&self) -> i64 {
        self.clock.now().millis()
    }

    /// A client of this version.
    pub fn cdi<'a>(&'a self, version: &'a str) -> Client<'a> {
        Client { server: self, version: Some(version), prefix: "" }
    }

    /// A client that names no version.
    pub fn anyone(&self) -> Client<'_> {
        Client { server: self, version: None, prefix: "" }
    }

    pub async fn send(&self, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(Peer(([127, 0, 0, 1], 4711).into()));
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        Answer { status, headers, text: String::from_utf8(body.to_vec()).unwrap() }
    }
}

#[derive(Clone, Copy)]
pub struct Client<'a> {
    server: &'a Server,
    version: Option<&'a str>,
    prefix: &'a str,
}

impl<'a> Client<'a> {
    /// The same under an app, or an app and a tenant.
    pub fn at(self, prefix: &'a str) -> Self {
        Self { prefix, ..self }
    }

    pub fn request(self, line: &str, body: Value) -> Request<Body> {
        let (method, path) = line.split_once(' ').unwrap();
        let uri = format!("{}{path}", self.prefix);
        let mut request = Request::builder().method(method).uri(uri).header("host", "localhost:3567");
        if let Some(version) = self.version.filter(|version| *version != "1.0") {
            request = request.header("cdi-version", version);
        }
        if body.is_null() {
            return request.body(Body::empty()).unwrap();
        }
        request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap()
    }

    pub async fn ask(self, line: &str, body: Value) -> Answer {
        self.server.send(self.request(line, body)).await
    }

    pub async fn get(self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), Value::Null).await
    }

    /// `/recipe`, where this version has it.
    fn family(self) -> &'static str {
        let old = ["1.0", "2.0", "2.1", "2.2", "2.3"];
        if self.version.is_some_and(|version| old.contains(&version)) { "" } else { "/recipe" }
    }

    pub async fn post(self, path: &str, body: Value) -> Answer {
        self.ask(&format!("POST {}{path}", self.family()), body).await
    }

    /// The tokens of a session of this user, with these fields over the usual ones.
    pub async fn create(self, user_id: &str, more: Value) -> Value {
        self.post(
            "/session",
            over(
                json!({ "userId": user_id, "userDataInJWT": {}, "userDataInDatabase": {}, "enableAntiCsrf": false }),
                more,
            ),
        )
        .await
        .ok()
    }

    pub async fn refresh_with(self, refresh_token: &Value, more: Value) -> Answer {
        let usual = json!({ "refreshToken": refresh_token, "enableAntiCsrf": false, "useDynamicSigningKey": true });
        self.post("/session/refresh", over(usual, more)).await
    }

    pub async fn refresh(self, tokens: &Value) -> Answer {
        self.refresh_with(&tokens["refreshToken"]["token"], json!({})).await
    }

    pub async fn verify_with(self, access_token: &Value, more: Value) -> Answer {
        let usual = json!({
            "accessToken": access_token, "doAntiCsrfCheck": false, "enableAntiCsrf": false, "checkDatabase": false,
        });
        self.post("/session/verify", over(usual, more)).await
    }

    pub async fn verify(self, tokens: &Value) -> Answer {
        self.verify_with(&tokens["accessToken"]["token"], json!({})).await
    }
}

fn over(mut usual: Value, more: Value) -> Value {
    usual.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    usual
}

/// The names of an object's members.
pub fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap_or_else(|| panic!("{object} is no object")).keys().map(String::as_str).collect()
}

/// The payload of an access token of any version.
pub fn payload(token: &Value) -> Map<String, Value> {
    let part = token.as_str().unwrap().split('.').nth(1).unwrap();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).or_else(|_| BASE64_STANDARD.decode(part)).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// The header of a JWT.
pub fn header(token: &Value) -> Value {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token.as_str().unwrap().split('.').next().unwrap()).unwrap())
        .unwrap()
}

/// An access token of API v1.
pub async fn v1_access_token(server: &Server) -> String {
    use rekindle::{engine::StartRequest, journal::Context, session::Scope};
    let scope = Scope { product: "default".parse().unwrap(), env: "dev".parse().unwrap() };
    let start = StartRequest::new("default".parse().unwrap(), None);
    let tokens = server.app.engine().start(&scope, start, &Context::default()).await.unwrap();
    tokens.access_token.expose().to_owned()
}
