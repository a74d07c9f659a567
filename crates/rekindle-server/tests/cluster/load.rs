//! Clients that behave as docs/PROTOCOL.md asks of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::RngExt as _;
use proptest::test_runner::TestRng;
use rekindle::refresh::Opening;
use rekindle::rng::SystemRng;
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep;

use crate::history::{Answered, Asked, Request};
use crate::site::{At, Call, Purpose, Site, rng, tail};

const CLIENTS: usize = 36;
/// Sessions whose data grew this much get no more.
const MOST_WRITES: u32 = 30;

/// Steady load on a site.
pub struct Load {
    site: Arc<Site>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Client>>,
    cutting: Vec<AbortHandle>,
}

impl Load {
    /// Committed and bearer clients in turn, and a few committed ones that are copied; all draw from `seed`.
    pub fn start(site: &Arc<Site>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|id| {
            let kind = match id {
                _ if id % 9 == 8 => Kind::Copied,
                _ if id % 2 == 0 => Kind::Committed,
                _ => Kind::Bearer,
            };
            let (site, rng) = (site.clone(), rng(seed << 16 | id as u64));
            let client = Client { site, id, kind, rng, login: None, logins: 0, over: Vec::new() };
            tokio::spawn(client.run(stop.clone()))
        });
        let clients = clients.collect();
        Self { site: site.clone(), stop, clients, cutting: vec![site.cut_at_random(0), site.cut_at_random(1)] }
    }

    /// Ends the load: each client refreshes at both servers, and all that is over is tried at both once more. What was seen.
    pub async fn stop(self) -> Vec<Request> {
        self.stop.store(true, Ordering::Relaxed);
        let mut clients = Vec::new();
        for client in self.clients {
            clients.push(client.await.expect("a client goes on until it is stopped"));
        }
        self.cutting.iter().for_each(AbortHandle::abort);
        self.site.spare();
        join_all(clients.iter_mut().map(Client::look_back)).await;
        self.site.history()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bearer,
    Committed,
    /// Committed, until somebody copies all that it has.
    Copied,
}

struct Client {
    site: Arc<Site>,
    id: usize,
    kind: Kind,
    rng: TestRng,
    login: Option<Login>,
    logins: u32,
    /// Logins whose session was ended.
    over: Vec<Login>,
}

/// What a client keeps, durably.
#[derive(Clone)]
struct Login {
    client: usize,
    session: String,
    refresh_token: String,
    access_token: String,
    generation: u64,
    commitment: Option<String>,
    /// Those of its generation and of the next one, of a committed client.
    openings: Option<BTreeMap<u64, Opening>>,
    writes: u32,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            match self.login.take() {
                None => self.login = self.sign_in().await,
                Some(login) => self.step(login).await,
            }
            sleep(Duration::from_millis(self.rng.random_range(100..400))).await;
        }
        self
    }

    /// The same request until it is answered: the key makes it one session.
    async fn sign_in(&mut self) -> Option<Login> {
        self.logins += 1;
        let openings = (self.kind != Kind::Bearer).then(|| BTreeMap::from([(0, draw())]));
        let mut body = json!({ "user_id": format!("user-{}", self.id) });
        if let Some(openings) = &openings {
            body["commitment"] = json!(openings[&0].commitment());
        }
        let call = Call::new("POST", "sessions", Some(body)).once(format!("start-{}-{}", self.id, self.logins));
        let purpose = Purpose { client: self.id, session: None, asked: Asked::Start };
        let (answered, answer) = self.site.ask(&mut self.rng, At::Any, purpose, &call).await;
        let Answered::Tokens { .. } = answered else { return None };
        let session = answer["session"]["id"].as_str().expect("a session has an id").to_owned();
        let (refresh_token, access_token) = (String::new(), String::new());
        let (client, commitment) = (self.id, None);
        let mut login =
            Login { client, session, refresh_token, access_token, generation: 0, commitment, openings, writes: 0 };
        login.keep(&answer);
        Some(login)
    }

    /// One thing that a user does. The login stays unless its session is over.
    async fn step(&mut self, mut login: Login) {
        let (site, rng) = (self.site.clone(), &mut self.rng);
        let lives = match rng.random_range(0..100) {
            0..8 if self.kind == Kind::Copied => return self.be_copied(login).await,
            0..55 => login.refresh(&site, rng, At::Any).await,
            55..70 => {
                let online = rng.random_bool(0.5);
                login.verify(&site, rng, At::Any, online).await
            }
            70..80 if login.writes < MOST_WRITES => login.write(&site, rng).await,
            70..88 => login.read(&site, rng, At::Any).await,
            88..94 => {
                login.revoke(&site, rng).await;
                return self.over.push(login);
            }
            _ => {
                self.try_what_is_over().await;
                true
            }
        };
        self.login = lives.then_some(login);
    }

    /// Something tries tokens of an ended session.
    async fn try_what_is_over(&mut self) {
        if self.over.is_empty() {
            return;
        }
        let which = self.rng.random_range(0..self.over.len());
        let mut login = self.over[which].clone();
        if self.rng.random_bool(0.5) {
            login.refresh(&self.site, &mut self.rng, At::Any).await;
        } else {
            let online = self.rng.random_bool(0.5);
            login.verify(&self.site, &mut self.rng, At::Any, online).await;
        }
    }

    /// A second party has all that this client has, and both go on at the same time, until one of them is told.
    async fn be_copied(&mut self, mut own: Login) {
        self.site.note(own.purpose(Asked::Copy));
        let (mut copy, mut other_rng) = (own.clone(), rng(self.rng.random()));
        for _ in 0..6 {
            let site = &self.site;
            let (own_lives, copy_lives) =
                tokio::join!(own.refresh(site, &mut self.rng, At::Any), copy.refresh(site, &mut other_rng, At::Any));
            if !own_lives || !copy_lives {
                return self.over.extend([own, copy]);
            }
        }
        panic!("a copy of a client was not noticed: session {}", own.session);
    }

    /// At the end, at both servers.
    async fn look_back(&mut self) {
        for server in [0, 1] {
            let at = At::This(server);
            if let Some(login) = &mut self.login {
                let lives = login.refresh(&self.site, &mut self.rng, at).await
                    && login.verify(&self.site, &mut self.rng, at, true).await
                    && login.read(&self.site, &mut self.rng, At::This(1 - server)).await;
                if !lives {
                    self.login = None;
                }
            }
            for over in &mut self.over {
                over.refresh(&self.site, &mut self.rng, at).await;
                over.verify(&self.site, &mut self.rng, at, true).await;
                over.verify(&self.site, &mut self.rng, at, false).await;
            }
        }
    }
}

impl Login {
    fn purpose(&self, asked: Asked) -> Purpose<'_> {
        Purpose { client: self.client, session: Some(&self.session), asked }
    }

    fn keep(&mut self, answer: &Value) {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        self.refresh_token = text(&answer["refresh_token"]).expect("tokens have a refresh token");
        self.access_token = text(&answer["access_token"]).expect("tokens have an access token");
        self.generation = answer["session"]["generation"].as_u64().expect("a session has a generation");
        self.commitment = text(&answer["commitment"]);
        if let Some(openings) = &mut self.openings {
            *openings = openings.split_off(&self.generation.saturating_sub(7));
        }
    }

    /// A proof for a generation whose commitment was told; of a bearer client none.
    fn proof(&mut self, generation: u64, commitment: Option<&str>, newest: bool) -> Option<Value> {
        let openings = self.openings.as_mut()?;
        let next = openings.entry(generation + 1).or_insert_with(draw).commitment();
        let mut proof = json!({ "session_id": self.session, "generation": generation, "commitment": next });
        if let Some(opening) = openings.get(&generation).filter(|opening| opens(opening, commitment)) {
            proof["opening"] = json!(*opening.expose());
        }
        if newest {
            proof["newest"] = json!(true);
        }
        Some(proof)
    }

    /// Refreshes as the protocol's table for clients tells; whether the session lives.
    async fn refresh(&mut self, site: &Site, rng: &mut TestRng, at: At) -> bool {
        let (mut proven, mut newest) = ((self.generation, self.commitment.clone()), false);
        for _ in 0..4 {
            let mut body = json!({ "refresh_token": self.refresh_token });
            if let Some(proof) = self.proof(proven.0, proven.1.as_deref(), newest) {
                body["proof"] = proof;
            }
            let asked = Asked::Refresh { token: tail(&self.refresh_token), generation: self.generation };
            let call = Call::new("POST", "sessions/refresh", Some(body));
            let (answered, answer) = site.ask(rng, at, self.purpose(asked), &call).await;
            match answered {
                Answered::Tokens { .. } => {
                    self.keep(&answer);
                    return true;
                }
                Answered::Refused(code) if code == "superseded" || code == "proof_required" => {
                    let named = answer["generation"].as_u64().expect("it names the generation");
                    let commitment = answer["commitment"].as_str();
                    let held = self.openings.as_ref().and_then(|openings| openings.get(&named));
                    if held.is_some_and(|opening| opens(opening, commitment)) {
                        proven = (named, commitment.map(str::to_owned));
                    } else if code == "superseded" && !newest && answer["presented_generation"] == json!(proven.0) {
                        newest = true;
                    } else {
                        return false;
                    }
                }
                _ => return false,
            }
        }
        false
    }

    /// Whether the access token is good.
    async fn verify(&self, site: &Site, rng: &mut TestRng, at: At, online: bool) -> bool {
        let body = json!({ "access_token": self.access_token, "online": online });
        let call = Call::new("POST", "sessions/verify", Some(body));
        site.ask(rng, at, self.purpose(Asked::Verify { online }), &call).await.0 == Answered::Yes
    }

    /// Two backends write at the same time.
    async fn write(&mut self, site: &Site, rng_here: &mut TestRng) -> bool {
        self.writes += 1;
        let mut rng_there = rng(rng_here.random());
        let write = async |rng: &mut TestRng, by: &str| {
            let member = format!("{by}{}", self.writes);
            let body = json!({ "data": { &member: true } });
            let call = Call::new("PATCH", format!("sessions/{}", self.session), Some(body));
            matches!(site.ask(rng, At::Any, self.purpose(Asked::Write(member)), &call).await.0, Answered::Row { .. })
        };
        let (one, other) = tokio::join!(write(rng_here, "a"), write(&mut rng_there, "b"));
        one && other
    }

    async fn read(&self, site: &Site, rng: &mut TestRng, at: At) -> bool {
        let call = Call::new("GET", format!("sessions/{}", self.session), None);
        matches!(site.ask(rng, at, self.purpose(Asked::Read), &call).await.0, Answered::Row { .. })
    }

    /// By its backend, or by itself.
    async fn revoke(&self, site: &Site, rng: &mut TestRng) {
        let call = if rng.random_bool(0.5) {
            Call::new("DELETE", format!("sessions/{}", self.session), None)
        } else {
            Call::new("POST", "sessions/end", Some(json!({ "refresh_token": self.refresh_token })))
        };
        site.ask(rng, At::Any, self.purpose(Asked::Revoke), &call).await;
    }
}

fn opens(opening: &Opening, commitment: Option<&str>) -> bool {
    commitment == Some(&*opening.commitment().to_string())
}

fn draw() -> Opening {
    Opening::draw(&SystemRng::default())
}
