//! A server with everything around it under control, and a client that follows the protocol.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use rekindle::clock::{Clock, Seconds, Timestamp};
use rekindle::definition::Definition;
use rekindle::engine::*;
use rekindle::journal::{Context, Event, EventKind, Outcome};
use rekindle::memory::MemoryStore;
use rekindle::refresh::{Commitment, Opening, Proof, SecretRing};
use rekindle::revocation_log::{MemoryRevocationLog, Record, RevocationLog};
use rekindle::session::{Scope, Session, SessionId, Tag, UserId};
use rekindle::store::*;
use rekindle_testkit::seam::{ManualClock, SeededRng};
use serde_json::{Value, json};

pub const T0: Timestamp = Timestamp::from_secs(1_800_000_000);
pub const MINUTE: Seconds = Seconds(60);
pub const HOUR: Seconds = Seconds(3600);
pub const DAY: Seconds = Seconds(86_400);

pub const fn days(n: u64) -> Seconds {
    Seconds(n * 86_400)
}

/// One server, its store, its revocation log, the clock and the randomness that it shares with everybody.
pub struct World {
    pub engine: Engine,
    pub store: Arc<TestStore>,
    pub log: Arc<TestLog>,
    pub clock: Arc<ManualClock>,
    pub rng: Arc<SeededRng>,
}

impl World {
    pub async fn new() -> Self {
        Self::on(TestStore::new(MemoryStore::new()), Arc::default(), Arc::new(ManualClock::at(T0)), 1).await
    }

    pub async fn on(store: Arc<TestStore>, log: Arc<TestLog>, clock: Arc<ManualClock>, seed: u64) -> Self {
        Self::open(store, log, clock, seed, &secret(1, b'a')).await.unwrap()
    }

    pub async fn open(
        store: Arc<TestStore>,
        log: Arc<TestLog>,
        clock: Arc<ManualClock>,
        seed: u64,
        secrets: &str,
    ) -> Result<Self, OpenError> {
        let rng = Arc::new(SeededRng::new(seed));
        let parts = Parts {
            store: store.clone(),
            revocation_log: log.clone(),
            clock: clock.clone(),
            rng: rng.clone(),
            secrets: SecretRing::parse(secrets).unwrap(),
            settings: Settings::new("https://shop.example"),
        };
        Ok(Self { engine: Engine::open(parts).await?, store, log, clock, rng })
    }

    /// A second server on the same store.
    pub async fn second(&self) -> Self {
        Self::on(self.store.clone(), self.log.clone(), self.clock.clone(), 2).await
    }

    /// Another server on the same store, with a revocation log of its own.
    pub async fn elsewhere(&self) -> Self {
        Self::on(self.store.clone(), Arc::default(), self.clock.clone(), 2).await
    }

    /// A server on a restored backup, with the same revocation log.
    pub async fn restored(&self, backup: MemoryStore) -> Self {
        Self::on(TestStore::new(backup), self.log.clone(), self.clock.clone(), 3).await
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Changes the definition `default` by a merge patch.
    pub async fn policy(&self, patch: Value) {
        self.engine.patch_definition(&tag("default"), &tag("default"), &patch, &ctx()).await.unwrap().unwrap();
    }

    /// Adds a definition to the product `default`.
    pub async fn define(&self, definition: Value) {
        let definition = Definition::from_json(&definition).unwrap();
        self.engine.create_definition(&tag("default"), definition, &ctx()).await.unwrap();
    }

    pub async fn start(&self, request: StartRequest) -> Result<Tokens, Error> {
        self.clock.advance(Seconds(1));
        self.engine.start(&scope(), request, &request_of("start")).await
    }

    /// Signs a bearer client in.
    pub async fn sign_in(&self, user: &str) -> Tokens {
        self.start(StartRequest::new(tag("default"), Some(user_id(user)))).await.unwrap()
    }

    /// A refresh, one second after whatever was before.
    pub async fn refresh(&self, token: &str, proof: Option<Proof>) -> RefreshOutcome {
        self.refresh_as("refresh", token, proof).await.unwrap()
    }

    pub async fn refresh_as(&self, request: &str, token: &str, proof: Option<Proof>) -> Result<RefreshOutcome, Error> {
        self.clock.advance(Seconds(1));
        let refresh = Refresh { refresh_token: token, tag: None, proof };
        self.engine.refresh(&scope(), refresh, &request_of(request)).await
    }

    /// A bearer client's refresh that succeeds.
    pub async fn refreshed(&self, tokens: &Tokens) -> Tokens {
        tokens_of(self.refresh(tokens.refresh_token.expose(), None).await)
    }

    pub async fn mint(&self, token: &str) -> Minted {
        self.engine.mint(&scope(), Mint { refresh_token: token, lifetime: None }, &ctx()).await.unwrap()
    }

    pub async fn verify(&self, access_token: &str, online: bool) -> Result<Active, TokenRefusal> {
        match self.engine.verify(&scope(), access_token, None, online).await.unwrap() {
            VerifyOutcome::Active(active) => Ok(active),
            VerifyOutcome::Inactive(refusal) => Err(refusal),
        }
    }

    pub async fn session(&self, id: SessionId) -> Session {
        self.engine.session(&scope(), id).await.unwrap()
    }

    /// A session's events, oldest first.
    pub async fn events(&self, id: SessionId) -> Vec<Event> {
        let query = TimelineQuery { limit: 100_000, ..TimelineQuery::default() };
        let mut events = self.engine.timeline(&scope(), id, query).await.unwrap();
        events.reverse();
        events
    }

    /// How often a session's requests had this outcome.
    pub async fn outcomes(&self, id: SessionId, outcome: Outcome) -> usize {
        self.events(id).await.iter().filter(|e| e.outcome == Some(outcome)).count()
    }
}

/// A committed client that keeps its state as the protocol tells it to. A clone is a full copy: a thief, or a backup.
#[derive(Clone)]
pub struct Client {
    pub session_id: SessionId,
    pub generation: u32,
    pub commitment: Commitment,
    pub refresh_token: String,
    pub access_token: String,
    openings: BTreeMap<u32, Opening>,
}

impl Client {
    /// Signs in, committed from birth.
    pub async fn sign_in(w: &World, user: &str) -> Self {
        let opening = Opening::draw(&*w.rng);
        let request = StartRequest {
            commitment: Some(opening.commitment()),
            ..StartRequest::new(tag("default"), Some(user_id(user)))
        };
        let mut client = Self::of(&w.start(request).await.unwrap());
        client.openings.insert(0, opening);
        client
    }

    /// A client that holds these tokens and no opening: a bearer client about to upgrade.
    pub fn of(tokens: &Tokens) -> Self {
        let session = &tokens.session;
        Self {
            session_id: session.id,
            generation: session.position.generation,
            commitment: session.position.commitment,
            refresh_token: tokens.refresh_token.expose().into(),
            access_token: tokens.access_token.expose().into(),
            openings: BTreeMap::new(),
        }
    }

    /// The proof for the token that it holds. The next opening is drawn once, and kept before it is sent.
    pub fn proof(&mut self, w: &World) -> Proof {
        let next = self.openings.entry(self.generation + 1).or_insert_with(|| Opening::draw(&*w.rng)).commitment();
        let opening = self.openings.get(&self.generation).filter(|o| o.commitment() == self.commitment).cloned();
        Proof { session_id: self.session_id, generation: self.generation, commitment: next, opening, newest: false }
    }

    pub async fn refresh(&mut self, w: &World) -> RefreshOutcome {
        self.try_refresh(w).await.unwrap()
    }

    pub async fn try_refresh(&mut self, w: &World) -> Result<RefreshOutcome, Error> {
        let proof = self.proof(w);
        let outcome = w.refresh_as("client", &self.refresh_token, Some(proof)).await?;
        if let RefreshOutcome::Refreshed(tokens) = &outcome {
            self.keep(tokens);
        }
        Ok(outcome)
    }

    /// Takes what it was given, unless it holds something newer.
    pub fn keep(&mut self, tokens: &Tokens) {
        if tokens.session.position.generation >= self.generation {
            let openings = std::mem::take(&mut self.openings);
            *self = Self { openings, ..Self::of(tokens) };
        }
    }
}

pub fn scope() -> Scope {
    Scope { product: tag("default"), env: "dev".parse().unwrap() }
}

pub fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

pub fn user_id(text: &str) -> UserId {
    text.parse().unwrap()
}

pub fn ctx() -> Context {
    Context::default()
}

pub fn request_of(id: &str) -> Context {
    Context { request_id: Some(id.into()), ..Context::default() }
}

pub fn object(value: Value) -> serde_json::Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// A line of the secret file.
pub fn secret(kid: u8, byte: u8) -> String {
    format!("{kid}:{}\n", BASE64_URL_SAFE_NO_PAD.encode([byte; 32]))
}

#[track_caller]
pub fn tokens_of(outcome: RefreshOutcome) -> Tokens {
    match outcome {
        RefreshOutcome::Refreshed(tokens) => tokens,
        RefreshOutcome::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

#[track_caller]
pub fn refusal_of(outcome: RefreshOutcome) -> TokenRefusal {
    match outcome {
        RefreshOutcome::Refreshed(tokens) => panic!("refreshed: {tokens:?}"),
        RefreshOutcome::Refused(refusal) => refusal,
    }
}

/// A store in memory that fails on demand, can be put back to a backup under a running server, and lets others go first.
pub struct TestStore {
    store: Mutex<Arc<MemoryStore>>,
    next: Mutex<Option<(&'static str, Hook)>>,
    calls: Mutex<Vec<&'static str>>,
}

enum Hook {
    FailBefore,
    FailAfter,
    FailAfterThat(Pin<Box<dyn Future<Output = ()> + Send>>),
    First(Pin<Box<dyn Future<Output = ()> + Send>>),
    Then(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl TestStore {
    pub fn new(store: MemoryStore) -> Arc<Self> {
        Arc::new(Self { store: Mutex::new(Arc::new(store)), next: Mutex::default(), calls: Mutex::default() })
    }

    pub fn backup(&self) -> MemoryStore {
        MemoryStore::clone(&self.store.lock().unwrap().clone())
    }

    /// Puts a backup in place of what is there.
    pub fn restore(&self, backup: MemoryStore) {
        *self.store.lock().unwrap() = Arc::new(backup);
    }

    /// The next call of `method` fails and has no effect.
    pub fn fail_before(&self, method: &'static str) {
        *self.next.lock().unwrap() = Some((method, Hook::FailBefore));
    }

    /// The next call of `method` has its effect, and its answer is lost.
    pub fn fail_after(&self, method: &'static str) {
        *self.next.lock().unwrap() = Some((method, Hook::FailAfter));
    }

    /// During the next call of `method` this happens; then it fails and has no effect.
    pub fn fail_after_that(&self, method: &'static str, first: impl Future<Output = ()> + Send + 'static) {
        *self.next.lock().unwrap() = Some((method, Hook::FailAfterThat(Box::pin(first))));
    }

    /// Before the next call of `method`, this happens.
    pub fn before(&self, method: &'static str, first: impl Future<Output = ()> + Send + 'static) {
        *self.next.lock().unwrap() = Some((method, Hook::First(Box::pin(first))));
    }

    /// After the next call of `method`, and before its caller has the answer, this happens.
    pub fn after(&self, method: &'static str, then: impl Future<Output = ()> + Send + 'static) {
        *self.next.lock().unwrap() = Some((method, Hook::Then(Box::pin(then))));
    }

    /// Whether what was asked for has yet to happen.
    pub fn is_armed(&self) -> bool {
        self.next.lock().unwrap().is_some()
    }

    /// The methods that were called since the last time.
    pub fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

impl Front for TestStore {
    fn behind(&self) -> Arc<dyn Store> {
        self.store.lock().unwrap().clone()
    }

    async fn around<T: Send>(
        &self,
        operation: Operation,
        run: impl Future<Output = StoreResult<T>> + Send,
    ) -> StoreResult<T> {
        self.calls.lock().unwrap().push(operation.name);
        let hook = self.next.lock().unwrap().take_if(|(wanted, _)| *wanted == operation.name).map(|(_, hook)| hook);
        match hook {
            None => run.await,
            Some(Hook::FailBefore) => Err(StoreError::Unavailable("before the effect".into())),
            Some(Hook::FailAfter) => {
                run.await?;
                Err(StoreError::Unavailable("after the effect".into()))
            }
            Some(Hook::FailAfterThat(first)) => {
                first.await;
                Err(StoreError::Unavailable("before the effect".into()))
            }
            Some(Hook::First(first)) => {
                first.await;
                run.await
            }
            Some(Hook::Then(then)) => {
                let answer = run.await;
                then.await;
                answer
            }
        }
    }
}

/// A revocation log in memory whose disk can be full.
#[derive(Default)]
pub struct TestLog {
    log: MemoryRevocationLog,
    full: AtomicBool,
}

impl TestLog {
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }
}

#[async_trait]
impl RevocationLog for TestLog {
    async fn append(&self, records: Vec<Record>) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.log.append(records).await
    }

    async fn compact(&self, now: Timestamp) -> io::Result<()> {
        self.log.compact(now).await
    }

    fn ended(&self, id: SessionId) -> Option<EndedSession> {
        self.log.ended(id)
    }

    fn rolled_back(&self, issued_at: Timestamp) -> bool {
        self.log.rolled_back(issued_at)
    }

    fn endings(&self) -> Vec<EndedSession> {
        self.log.endings()
    }
}

/// The kinds of a session's events.
pub fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|e| e.kind).collect()
}

/// The distinct texts among `texts`.
pub fn distinct<'a>(texts: impl IntoIterator<Item = &'a str>) -> usize {
    texts.into_iter().collect::<HashSet<_>>().len()
}

/// A re-authentication with a second factor.
pub fn second_factor(w: &World) -> rekindle::session::Auth {
    serde_json::from_value(json!({ "time": w.now(), "acr": "aal2", "amr": ["otp"] })).unwrap()
}
