//! Two Rekindle servers on one store, each behind a proxy that cuts requests and answers off, and a record of all that is asked.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use rekindle::refresh::SecretRing;
use rekindle::rng::SystemRng;
use rekindle_testkit::proxy::{Proxy, Way};
use serde_json::{Value, json};
use tokio::sync::RwLock;
use tokio::task::{AbortHandle, block_in_place};
use tokio::time::{Instant, sleep};

use crate::history::{Answered, Asked, Millis, Outage, Request};
use crate::process::{Dir, Server};

/// Longer than a server takes for any request.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
/// How long a request may have to be repeated until it is answered, and a server until it serves.
const PATIENCE: Duration = Duration::from_secs(300);
/// So many sessions at once: wherever the cluster keeps a part of them, one of them is there.
const PROBES: usize = 24;

/// The servers' folders.
const NAMES: [&str; 2] = ["first", "second"];

/// Everything that one run is made of.
pub struct Site {
    began: Instant,
    servers: [RwLock<Server>; 2],
    /// The servers' API keys.
    keys: [String; 2],
    proxies: [Proxy; 2],
    http: reqwest::Client,
    history: Mutex<Vec<Request>>,
    longest_wait: AtomicU64,
    dir: Dir,
}

/// What is sent.
#[derive(Clone)]
pub struct Call {
    method: &'static str,
    path: String,
    body: Option<Value>,
    idempotency_key: Option<String>,
}

impl Call {
    pub fn new(method: &'static str, path: impl Into<String>, body: Option<Value>) -> Self {
        Self { method, path: path.into(), body, idempotency_key: None }
    }

    pub fn once(self, key: String) -> Self {
        Self { idempotency_key: Some(key), ..self }
    }
}

/// Which server is asked.
#[derive(Debug, Clone, Copy)]
pub enum At {
    /// Any, each time another, as a load balancer does it.
    Any,
    This(usize),
}

/// What a request is for, to its record.
pub struct Purpose<'a> {
    pub client: usize,
    pub session: Option<&'a str>,
    pub asked: Asked,
}

impl Site {
    /// Starts a server on each store, which are nodes of one cluster, and waits until each knows what the other signs.
    pub async fn start(stores: [&str; 2]) -> Arc<Self> {
        let dir = Dir::new();
        let secrets = dir.file("secrets");
        fs::write(&secrets, format!("{}\n", *SecretRing::generate(1, &SystemRng::default()))).unwrap();
        fs::set_permissions(&secrets, PermissionsExt::from_mode(0o600)).unwrap();
        let config = format!(
            "issuer = 'http://sessions.test'\nlimits.request_timeout = '10s'\nsecrets.file = '{}'\n",
            secrets.display()
        );
        for name in NAMES {
            let own = dir.file(name);
            fs::create_dir(&own).unwrap();
            fs::write(own.join("rekindle.toml"), &config).unwrap();
        }
        let servers = [0, 1].map(|i| serve(&dir, i, stores[i]));
        let proxies = [Proxy::start(port(&servers[0])).await, Proxy::start(port(&servers[1])).await];
        let site = Self {
            began: Instant::now(),
            keys: servers.each_ref().map(|server| server.key.clone()),
            servers: servers.map(RwLock::new),
            proxies,
            http: reqwest::Client::new(),
            history: Mutex::default(),
            longest_wait: AtomicU64::new(0),
            dir,
        };
        for (issuer, verifier) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
            let (_, tokens) = site.servers[issuer].read().await.post("sessions", json!({ "user_id": "warm-up" })).await;
            while site.servers[verifier]
                .read()
                .await
                .post("sessions/verify", json!({ "access_token": tokens["access_token"] }))
                .await
                .1["active"]
                != json!(true)
            {
                assert!(site.began.elapsed() < PATIENCE, "{tokens}");
                sleep(Duration::from_millis(100)).await;
            }
        }
        Arc::new(site)
    }

    /// Stops both servers, lets something happen, and starts them on another store. How long nobody served.
    pub async fn move_to(&self, store: &str, meanwhile: impl FnOnce()) -> Outage {
        let mut servers = [self.servers[0].write().await, self.servers[1].write().await];
        let began = self.now();
        block_in_place(|| {
            for server in &mut servers {
                server.signal("TERM");
            }
            for server in &mut servers {
                assert!(server.wait().success());
            }
            meanwhile();
            for (i, server) in servers.iter_mut().enumerate() {
                **server = serve(&self.dir, i, store);
                assert_eq!(server.key, self.keys[i], "the API keys have moved, too");
                self.proxies[i].retarget(port(server));
            }
        });
        drop(servers);
        Outage { began, over: self.serves().await, in_danger_since: None }
    }

    pub fn now(&self) -> Millis {
        self.began.elapsed().as_millis().try_into().expect("a run is short")
    }

    /// Cuts off, at random, until the handle is aborted.
    pub fn cut_at_random(self: &Arc<Self>, server: usize) -> AbortHandle {
        let site = self.clone();
        let cutting = tokio::spawn(async move {
            let mut rng = rng(1000 + server as u64);
            loop {
                sleep(Duration::from_millis(rng.random_range(20..150))).await;
                let way = if rng.random_bool(0.8) { Way::Answer } else { Way::Request };
                site.proxies[server].cut_after(way, rng.random_range(0..3));
            }
        });
        cutting.abort_handle()
    }

    /// Nothing is cut off any more.
    pub fn spare(&self) {
        for proxy in &self.proxies {
            proxy.disarm(Way::Answer);
            proxy.disarm(Way::Request);
        }
    }

    /// When each server serves, wherever in the cluster a session is.
    pub async fn serves(&self) -> [Millis; 2] {
        let (first, second) = tokio::join!(self.server_serves(0), self.server_serves(1));
        [first, second]
    }

    async fn server_serves(&self, server: usize) -> Millis {
        let (began, server) = (Instant::now(), self.servers[server].read().await);
        loop {
            let start = Some(json!({ "user_id": "probe" }));
            let probes = (0..PROBES).map(|_| server.try_ask("POST", "sessions", start.as_ref()));
            if join_all(probes).await.into_iter().all(|answer| matches!(answer, Ok((201, _)))) {
                return self.now();
            }
            assert!(began.elapsed() < PATIENCE, "the server does not serve again within {PATIENCE:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks, and again where there was no answer; what came of it at last.
    pub async fn ask(&self, rng: &mut TestRng, at: At, purpose: Purpose<'_>, call: &Call) -> (Answered, Value) {
        let began = Instant::now();
        loop {
            let server = match at {
                At::Any => rng.random_range(0..2),
                At::This(server) => server,
            };
            let (answered, body) = self.ask_once(server, &purpose, call).await;
            if !answered.is_open() {
                let waited = began.elapsed().as_millis().try_into().expect("a run is short");
                self.longest_wait.fetch_max(waited, Ordering::Relaxed);
                return (answered, body);
            }
            assert!(began.elapsed() < PATIENCE, "no answer within {PATIENCE:?}: {} {}", call.method, call.path);
            sleep(Duration::from_millis(rng.random_range(30..150))).await;
        }
    }

    /// Notes what is no request.
    pub fn note(&self, purpose: Purpose<'_>) {
        let (now, session) = (self.now(), purpose.session.map(str::to_owned));
        let Purpose { client, asked, .. } = purpose;
        self.record(Request { client, server: 0, session, began: now, ended: now, asked, answered: Answered::Yes });
    }

    /// The longest time until a request was answered, repeats included.
    pub fn longest_wait(&self) -> Millis {
        self.longest_wait.load(Ordering::Relaxed)
    }

    /// Everything that was asked.
    pub fn history(&self) -> Vec<Request> {
        self.history.lock().unwrap().clone()
    }

    async fn ask_once(&self, server: usize, purpose: &Purpose<'_>, call: &Call) -> (Answered, Value) {
        let url = format!("http://127.0.0.1:{}/v1/default/dev/{}", self.proxies[server].port(), call.path);
        let mut request = self.http.request(call.method.parse().unwrap(), url).bearer_auth(&self.keys[server]);
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let began = self.now();
        let answer = async {
            let answer = request.timeout(ANSWER_WITHIN).send().await?;
            let status = answer.status().as_u16();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        };
        let (answered, body) = match answer.await {
            Err(_) => (Answered::Nothing, Value::Null),
            Ok((status, bytes)) => {
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                (read(status, &body), body)
            }
        };
        let session = purpose.session.or(body["session"]["id"].as_str()).map(str::to_owned);
        let (client, asked) = (purpose.client, purpose.asked.clone());
        self.record(Request { client, server, session, began, ended: self.now(), asked, answered: answered.clone() });
        (answered, body)
    }

    fn record(&self, request: Request) {
        self.history.lock().unwrap().push(request);
    }
}

impl Drop for Site {
    /// Of a run that failed, what the servers said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in NAMES {
                let log = fs::read_to_string(self.dir.file(name).join("server.log")).unwrap_or_default();
                let _ = writeln!(std::io::stderr(), "== the {name} server\n{log}");
            }
        }
    }
}

/// Starts a server in its own folder.
fn serve(dir: &Dir, i: usize, store: &str) -> Server {
    Server::start(&dir.file(NAMES[i]), &["--config", "rekindle.toml", "--store", store])
}

fn port(server: &Server) -> u16 {
    server.base.rsplit_once(':').expect("an address has a port").1.parse().expect("a port is a number")
}

/// What an answer says.
fn read(status: u16, body: &Value) -> Answered {
    let generation = |session: &Value| session["generation"].as_u64().expect("a session has a generation");
    match status {
        429 | 502..=504 => Answered::Unavailable,
        404 => Answered::Missing,
        204 => Answered::Yes,
        200 | 201 => {
            if let Some(token) = body["refresh_token"].as_str() {
                return Answered::Tokens { token: tail(token), generation: generation(&body["session"]) };
            }
            match body["active"].as_bool() {
                Some(true) => Answered::Yes,
                Some(false) => Answered::Refused(code(body)),
                None => Answered::Row {
                    active: body["state"] == "active",
                    generation: generation(body),
                    members: body["data"]
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(name, _)| name.clone())
                        .collect::<BTreeSet<_>>(),
                },
            }
        }
        _ => Answered::Refused(code(body)),
    }
}

fn code(problem: &Value) -> String {
    problem["code"].as_str().map_or_else(|| problem.to_string(), str::to_owned)
}

/// What tells a token from others, without being one.
pub fn tail(token: &str) -> String {
    token[token.len() - 12..].to_owned()
}

pub fn rng(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}
