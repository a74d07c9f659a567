//! A server under test, and a client of it.

use std::env;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use rekindle::{
    clock::{Clock, Seconds, Timestamp},
    engine::{Engine, Parts, Settings},
    journal::Context,
    memory::MemoryStore,
    refresh::{Opening, SecretRing},
    revocation_log::NoRevocationLog,
    store::*,
};
use rekindle_embedded::OpenStore;
use rekindle_server::{
    app::App,
    config::{Config, Overrides},
};
use rekindle_testkit::{
    contents::contents,
    seam::{ManualClock, SeededRng},
    servers::{
        mysql::Mysql,
        postgres::Postgres,
        redis::{Cluster, Redis},
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::log;

/// A store that can be made slow or unreachable.
pub struct MoodyStore {
    inner: Arc<dyn Store>,
    pub out: AtomicBool,
    pub delay_millis: AtomicU64,
    /// Of a store in a file.
    _folder: Option<TempDir>,
}

impl MoodyStore {
    /// On an empty store of the kind that `REKINDLE_TEST_STORE` names; in memory by default.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match env::var("REKINDLE_TEST_STORE").as_deref() {
            Err(_) | Ok("memory") => return Self::on(Arc::new(MemoryStore::new()), None),
            Ok("sqlite") => format!("sqlite:{}", folder.path().join("rekindle.db").display()),
            Ok("postgres") => Postgres::shared().url(&Postgres::shared().new_database()),
            Ok("mysql") => Mysql::shared().url(&Mysql::shared().new_database()),
            Ok("redis") => Redis::shared().new_url(),
            Ok("redis-cluster") => Cluster::shared().new_url(),
            Ok(other) => {
                panic!("REKINDLE_TEST_STORE is `{other}`: give memory, sqlite, postgres, mysql, redis or redis-cluster")
            }
        };
        let config = Config { data_dir: folder.path().into(), store: url.parse().unwrap(), ..Config::default() };
        Self::on(OpenStore::open(&config.location()).await.unwrap().shared(), Some(folder))
    }

    fn on(inner: Arc<dyn Store>, folder: Option<TempDir>) -> Self {
        Self { inner, out: AtomicBool::new(false), delay_millis: AtomicU64::new(0), _folder: folder }
    }
}

impl Front for MoodyStore {
    fn behind(&self) -> Arc<dyn Store> {
        self.inner.clone()
    }

    async fn around<T: Send>(&self, _: Operation, run: impl Future<Output = StoreResult<T>> + Send) -> StoreResult<T> {
        match self.delay_millis.load(Ordering::SeqCst) {
            0 => {}
            millis => tokio::time::sleep(Duration::from_millis(millis)).await,
        }
        match self.out.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("on purpose".into())),
            false => run.await,
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Its JSON, if its status is this.
    #[track_caller]
    pub fn with(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Its JSON, if it is a problem with this code and the status that goes with it.
    #[track_caller]
    pub fn refused(self, code: &str) -> Value {
        let known = rekindle_server::problem::Code::ALL.iter().find(|c| c.as_str() == code).expect("a code");
        assert_eq!(self.status, known.status(), "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let json = self.json();
        assert_eq!(json["code"], code, "{}", self.text);
        json
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub struct Server {
    pub app: App,
    pub router: Router,
    pub clock: Arc<ManualClock>,
    pub rng: Arc<SeededRng>,
    pub store: Arc<MoodyStore>,
    admin: String,
}

impl Server {
    pub async fn new() -> Self {
        Self::configured("").await
    }

    pub async fn configured(config: &str) -> Self {
        let clock = ManualClock::at("2026-11-20T10:00:00Z".parse().unwrap());
        Self::on(Arc::new(MoodyStore::new().await), clock, 7, config).await
    }

    /// Another server on the same store, whose clock is so many seconds ahead, or behind.
    pub async fn beside(&self, ahead: i64) -> Self {
        let clock = ManualClock::at(Timestamp::from_millis(self.clock.now().millis() + ahead * 1000));
        Self::on(self.store.clone(), clock, 8, "").await
    }

    async fn on(store: Arc<MoodyStore>, clock: ManualClock, seed: u64, config: &str) -> Self {
        log::install();
        let (clock, rng) = (Arc::new(clock), Arc::new(SeededRng::new(seed)));
        let engine = Engine::open(Parts {
            store: store.clone(),
            revocation_log: Arc::new(NoRevocationLog),
            clock: clock.clone(),
            secrets: SecretRing::parse(&SecretRing::generate(1, &SeededRng::new(6))).unwrap(),
            rng: rng.clone(),
            settings: Settings::new("http://127.0.0.1:3567"),
        })
        .await
        .unwrap();
        let admin = api_key(&engine, Permission::Admin).await;
        let app = App::new(Config::from_toml(config, &Overrides::default()).unwrap(), engine);
        Self { router: app.router(), app, clock, rng, store, admin }
    }

    pub async fn api_key(&self, permission: Permission) -> String {
        api_key(self.app.engine(), permission).await
    }

    pub fn request(&self, line: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Request<Body> {
        let (method, path) = line.split_once(' ').unwrap();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/v1/default/dev/{path}") };
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {}", self.admin));
        }
        if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_string()))).unwrap()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        Answer { status, headers, text: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Asks with an admin's key; a path without a leading slash is one of `default/dev`.
    pub async fn ask(&self, line: &str, body: Value) -> Answer {
        self.send(self.request(line, Some(body).filter(|body| !body.is_null()), &[])).await
    }

    pub async fn ask_with(&self, line: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
        self.send(self.request(line, Some(body).filter(|body| !body.is_null()), headers)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), Value::Null).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask(&format!("DELETE {path}"), Value::Null).await
    }

    /// The tokens of a new session.
    pub async fn start(&self, body: Value) -> Value {
        self.ask("POST sessions", body).await.with(201)
    }

    pub async fn refresh(&self, tokens: &Value) -> Answer {
        self.ask("POST sessions/refresh", json!({ "refresh_token": tokens["refresh_token"] })).await
    }

    /// Changes the definition `default`.
    pub async fn define(&self, patch: Value) {
        let tag = "default".parse().unwrap();
        self.app.engine().patch_definition(&tag, &tag, &patch, &Context::default()).await.unwrap().unwrap();
    }

    /// Adds the environment `live`, switched on or off.
    pub async fn environment(&self, active: bool) {
        let (product, slug) = ("default".parse().unwrap(), "live".parse().unwrap());
        let live = Environment { slug, name: "Live".into(), active };
        self.app.engine().create_environment(&product, live, &Context::default()).await.unwrap();
    }

    /// Everything that the store holds.
    pub async fn contents(&self) -> String {
        contents(&*self.store.inner, self.clock.now()).await.unwrap()
    }

    pub fn set_out(&self, out: bool) {
        self.store.out.store(out, Ordering::SeqCst);
    }

    /// A session whose client sends proofs.
    pub async fn committed(&self, user: &str) -> Committed {
        let opening = Opening::draw(&*self.rng);
        let body = json!({ "user_id": user, "commitment": opening.commitment() });
        Committed { steps: vec![(self.start(body).await, opening)] }
    }

    /// Time passes, as it does for a server that looks after its upkeep.
    pub async fn pass(&self, time: Seconds) {
        self.clock.advance(time);
        self.app.engine().upkeep().await.unwrap();
    }

    /// The next step of such a client.
    pub async fn step(&self, client: &mut Committed) -> Value {
        let next = Opening::draw(&*self.rng);
        let tokens = self.ask("POST sessions/refresh", client.request(client.steps.len() - 1, &next)).await.with(200);
        client.steps.push((tokens.clone(), next));
        tokens
    }
}

async fn api_key(engine: &Engine, permission: Permission) -> String {
    let key = engine.create_api_key("test".into(), vec![permission], &Context::default()).await.unwrap();
    key.secret.expose().to_owned()
}

/// A client's tokens of each generation, with what opens them.
pub struct Committed {
    pub steps: Vec<(Value, Opening)>,
}

impl Committed {
    /// The refresh of generation `at` that commits to `next`.
    pub fn request(&self, at: usize, next: &Opening) -> Value {
        let (tokens, opening) = &self.steps[at];
        json!({
            "refresh_token": tokens["refresh_token"],
            "proof": {
                "session_id": tokens["session"]["id"],
                "generation": at,
                "commitment": next.commitment(),
                "opening": *opening.expose(),
            },
        })
    }
}

/// The session's id in an answer.
pub fn id(tokens: &Value) -> &str {
    tokens["session"]["id"].as_str().unwrap()
}

pub fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}
