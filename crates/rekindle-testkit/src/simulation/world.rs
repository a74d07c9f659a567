//! Servers, the store with its faults, the revocation log, and the network between them and the clients.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::future::{Either, select};
use rekindle::clock::{Seconds, Timestamp};
use rekindle::engine::{
    Active, Elevate, Engine, Error, Mint, Minted, Parts, PresentedToken, Refresh, RefreshOutcome, Settings,
    StartRequest, TokenRefusal, VerifyOutcome,
};
use rekindle::journal::{Context, Event, EventKind};
use rekindle::memory::MemoryStore;
use rekindle::refresh::{Commitment, Proof, SecretRing};
use rekindle::revocation_log::{MemoryRevocationLog, NoRevocationLog, Record, RevocationLog};
use rekindle::session::{Auth, Scope, Session, SessionId, UserId};
use rekindle::store::{EndedSession, EventQuery, Intent, Operation, SessionQuery, Store};
use tokio::sync::oneshot;

use super::client::Device;
use super::executor::{Executor, Group, SkewedClock, Time};
use super::judge::{Arrival, Judge, Party};
use super::{Plan, Variant};
use crate::faulty::{Fault, Faults, FaultyStore};
use crate::fixtures::{events_of, sessions_in};
use crate::seam::SeededRng;

/// How many writes back the store can lose.
const SNAPSHOTS: usize = 8;

/// How long a client waits for an answer.
const PATIENCE: u64 = 10_000;

/// The groups of servers; those of clients come after.
pub(super) const NETWORK: Group = 0;
pub(super) const FIRST_SERVER: Group = 1;
pub(super) const FIRST_CLIENT: Group = 100;

/// The store's bad days.
pub(super) struct SimFaults {
    time: Arc<Time>,
    rng: SeededRng,
    on: AtomicBool,
    written: AtomicBool,
    one_in: u64,
    slow_one_in: u64,
    variant: Variant,
    keeps_snapshots: bool,
    disk: Mutex<Disk>,
}

struct Disk {
    current: Arc<MemoryStore>,
    snapshots: VecDeque<MemoryStore>,
    counts: BTreeMap<&'static str, u64>,
}

impl SimFaults {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.disk().current)
    }

    fn count(&self, what: &'static str) {
        *self.disk().counts.entry(what).or_default() += 1;
    }

    fn fails(&self) -> bool {
        self.on.load(Ordering::Relaxed) && self.rng.one_in(self.one_in)
    }
}

impl Faults for SimFaults {
    fn draw(&self, operation: Operation) -> Fault {
        if operation.writes && self.keeps_snapshots {
            let mut disk = self.disk();
            let snapshot = MemoryStore::clone(&disk.current);
            disk.snapshots.push_back(snapshot);
            if disk.snapshots.len() > SNAPSHOTS {
                disk.snapshots.pop_front();
            }
        }
        let delay = || {
            let slow = self.on.load(Ordering::Relaxed) && self.rng.one_in(self.slow_one_in);
            if slow { self.rng.below(4_000) } else { self.rng.below(4) }
        };
        let (delay_before, delay_after) = (delay(), delay());
        let fault = Fault { delay_before, delay_after, lose_request: self.fails(), lose_answer: self.fails() };
        for (what, is) in [
            ("store: slow", delay_before.max(delay_after) >= 4),
            ("store: request lost", fault.lose_request),
            ("store: answer lost", fault.lose_answer && !fault.lose_request),
        ] {
            if is {
                self.count(what);
            }
        }
        fault
    }

    fn applied(&self, operation: Operation) {
        if operation.writes {
            self.written.store(true, Ordering::Relaxed);
        }
    }

    fn wait(&self, millis: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.time.sleep(millis))
    }

    fn tamper(&self, intent: Intent<'_>) {
        match (intent, self.variant) {
            // `UPDATE … WHERE id = ?`: whoever comes last wins.
            (Intent::Advance(advance), Variant::BlindAdvance) => {
                if let Some(row) = now_or_never(self.store().session(advance.id)).ok().flatten() {
                    advance.generation = row.position.generation;
                    advance.commitment = row.position.commitment;
                }
            }
            // `UPDATE … SET confirmed WHERE id = ?`, at whatever generation the row is.
            (Intent::Confirm(confirmations), Variant::ConfirmAnyGeneration) => {
                for confirmation in confirmations {
                    if let Some(row) = now_or_never(self.store().session(confirmation.session_id)).ok().flatten() {
                        confirmation.generation = row.position.generation;
                    }
                }
            }
            (Intent::Revocations(limit), Variant::SilentFeed) => *limit = 0,
            _ => {}
        }
    }
}

/// The result of a future of the store in memory, which never waits.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(future).expect("the store in memory never waits")
}

/// The revocation log, which outlives the store's lost writes; slow and failing like the store.
struct SimLog {
    inner: Box<dyn RevocationLog>,
    faults: Arc<SimFaults>,
}

#[async_trait]
impl RevocationLog for SimLog {
    async fn append(&self, records: Vec<Record>) -> io::Result<()> {
        self.faults.wait(self.faults.rng.below(4)).await;
        if self.faults.fails() {
            self.faults.count("log: not written");
            return Err(io::Error::other("injected into the revocation log"));
        }
        self.inner.append(records).await
    }

    async fn compact(&self, now: Timestamp) -> io::Result<()> {
        self.inner.compact(now).await
    }

    fn ended(&self, id: SessionId) -> Option<EndedSession> {
        self.inner.ended(id)
    }

    fn rolled_back(&self, issued_at: Timestamp) -> bool {
        self.inner.rolled_back(issued_at)
    }

    fn endings(&self) -> Vec<EndedSession> {
        let mut endings = self.inner.endings();
        // In one order, so that a seed always tells the same story.
        endings.sort_by_key(|e| e.id);
        endings
    }
}

/// What a client asks a server.
#[derive(Clone)]
pub(super) enum Ask {
    Start { key: String, commitment: Option<Commitment> },
    Refresh { token: Held, proof: Option<Proof>, elevate: bool },
    Verify { token: Held, online: bool },
    Mint { token: Held },
    SignOut { token: Held },
}

/// A client's tokens; in a browser, its cookies with the readable marker.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) session: SessionId,
    pub(super) generation: u32,
    pub(super) commitment: Commitment,
    pub(super) refresh: Rc<str>,
    pub(super) access: Rc<str>,
}

/// What a server answers.
#[derive(Clone)]
pub(super) enum Answer {
    Tokens(Held),
    Refused(TokenRefusal),
    Done,
    /// The login's idempotency key was used up, or the user is banned.
    Denied,
    Unavailable,
}

pub(super) struct World {
    pub(super) executor: Executor,
    pub(super) time: Arc<Time>,
    pub(super) rng: SeededRng,
    pub(super) plan: Plan,
    pub(super) judge: RefCell<Judge>,
    pub(super) chaos: Cell<bool>,
    pub(super) scope: Scope,
    store: Arc<FaultyStore>,
    faults: Arc<SimFaults>,
    logs: Vec<Arc<dyn RevocationLog>>,
    servers: RefCell<Vec<Option<Engine>>>,
    incarnations: Cell<u64>,
    secrets: [String; 2],
    next_group: Cell<Group>,
}

impl World {
    pub(super) fn new(plan: Plan, judge: Judge) -> Rc<Self> {
        let seed = plan.seed;
        let time = Time::starting_at(Timestamp::from_secs(1_700_000_000));
        let memory = Arc::new(MemoryStore::new());
        let disk = Disk { current: Arc::clone(&memory), snapshots: VecDeque::new(), counts: BTreeMap::new() };
        let faults = Arc::new(SimFaults {
            time: Arc::clone(&time),
            rng: SeededRng::new(seed ^ 0x57_0e),
            on: AtomicBool::new(false),
            written: AtomicBool::new(false),
            one_in: plan.store_fails_one_in,
            slow_one_in: plan.store_slow_one_in,
            variant: plan.variant,
            keeps_snapshots: plan.lost_writes,
            disk: Mutex::new(disk),
        });
        let log = || -> Arc<dyn RevocationLog> {
            let inner: Box<dyn RevocationLog> = match plan.variant {
                Variant::NoRevocationLog => Box::new(NoRevocationLog),
                _ => Box::new(MemoryRevocationLog::default()),
            };
            Arc::new(SimLog { inner, faults: Arc::clone(&faults) })
        };
        let logs = match plan.variant {
            Variant::LogPerServer => (0..plan.servers).map(|_| log()).collect(),
            _ => vec![log(); 1].into_iter().cycle().take(plan.servers).collect(),
        };
        let secret_rng = SeededRng::new(seed ^ 0x5ec);
        let secret = |kid| SecretRing::generate(kid, &secret_rng).to_string();
        Rc::new(Self {
            executor: Executor::new(Arc::clone(&time), seed ^ 0xe0),
            rng: SeededRng::new(seed ^ 0xc11e),
            judge: RefCell::new(judge),
            chaos: Cell::new(true),
            scope: Scope {
                product: "default".parse().expect("a valid tag"),
                env: "dev".parse().expect("a valid slug"),
            },
            store: Arc::new(FaultyStore::new(memory, Arc::clone(&faults) as Arc<dyn Faults>)),
            logs,
            servers: RefCell::new((0..plan.servers).map(|_| None).collect()),
            incarnations: Cell::new(0),
            secrets: [secret(1), secret(2)],
            next_group: Cell::new(FIRST_CLIENT),
            time,
            plan,
            faults,
        })
    }

    pub(super) fn note(&self, what: impl AsRef<str>) {
        self.judge.borrow_mut().note(self.executor.steps(), self.time.now(), what.as_ref());
    }

    pub(super) fn count(&self, what: &'static str) {
        self.faults.count(what);
    }

    pub(super) fn fault_counts(&self) -> BTreeMap<&'static str, u64> {
        self.faults.disk().counts.clone()
    }

    pub(super) fn name(&self, id: SessionId) -> String {
        self.judge.borrow_mut().name(id)
    }

    pub(super) fn violated(&self, property: u8, what: String) {
        self.judge.borrow_mut().violated(property, what);
    }

    pub(super) fn set_faults(&self, on: bool) {
        self.faults.on.store(on, Ordering::Relaxed);
    }

    pub(super) fn new_group(&self) -> Group {
        self.next_group.set(self.next_group.get() + 1);
        self.next_group.get()
    }

    pub(super) async fn sleep(&self, millis: u64) {
        self.time.sleep(millis).await;
    }

    /// Between half and one and a half of `millis`.
    pub(super) async fn about(&self, millis: u64) {
        self.time.sleep(millis / 2 + self.rng.below(millis.max(1))).await;
    }

    pub(super) fn rows(&self) -> Vec<Session> {
        let query = SessionQuery { limit: u32::MAX, ..sessions_in(self.scope.clone(), self.time.now()) };
        let mut rows = now_or_never(self.faults.store().sessions(query)).unwrap_or_default();
        rows.reverse();
        rows
    }

    /// Compares with the step before, if this one may have written.
    pub(super) fn look(&self) {
        if self.faults.written.swap(false, Ordering::Relaxed) {
            let store = self.faults.store();
            self.judge.borrow_mut().look(self.rows(), self.time.now(), |id| events(&store, id));
        }
    }

    pub(super) fn check_journal(&self) {
        let store = self.faults.store();
        for row in self.rows() {
            self.judge.borrow_mut().journal(&row, &events(&store, row.id));
        }
    }

    /// The store loses its last writes; the servers and the revocation log do not notice.
    pub(super) fn lose_writes(&self) {
        let mut disk = self.faults.disk();
        if disk.snapshots.is_empty() {
            return;
        }
        let back = 1 + self.rng.below(disk.snapshots.len() as u64) as usize;
        let at = disk.snapshots.len() - back;
        let snapshot = disk.snapshots[at].clone();
        disk.snapshots.truncate(at);
        disk.current = Arc::new(snapshot);
        self.store.replace(Arc::clone(&disk.current) as Arc<dyn Store>);
        drop(disk);
        self.count("lost writes");
        self.note(format!("the store loses its last {back} writes"));
        self.faults.written.store(false, Ordering::Relaxed);
        self.judge.borrow_mut().rolled_back(self.rows());
    }

    // Servers.

    pub(super) async fn start_server(self: &Rc<Self>, at: usize) {
        let [a, b] = &self.secrets;
        let order = if self.rng.one_in(2) { [a, b] } else { [b, a] };
        self.incarnations.set(self.incarnations.get() + 1);
        let skew_millis = self.rng.below(2 * super::MAX_SKEW.0 * 1000) as i64 - super::MAX_SKEW.0 as i64 * 1000;
        let mut settings = Settings::new("https://sim.example");
        settings.retention = self.plan.retention;
        loop {
            let parts = Parts {
                store: Arc::clone(&self.store) as Arc<dyn Store>,
                revocation_log: Arc::clone(&self.logs[at]),
                clock: Arc::new(SkewedClock { time: Arc::clone(&self.time), skew_millis }),
                rng: Arc::new(SeededRng::new(self.plan.seed ^ (self.incarnations.get() << 32))),
                secrets: SecretRing::parse(&order.map(String::as_str).join("\n")).expect("two good secrets"),
                settings: settings.clone(),
            };
            if let Ok(engine) = Engine::open(parts).await {
                self.servers.borrow_mut()[at] = Some(engine.clone());
                self.note(format!("server {at} is up"));
                let world = Rc::clone(self);
                self.executor.spawn(FIRST_SERVER + at as Group, async move {
                    loop {
                        world.about(world.plan.upkeep_every).await;
                        if engine.upkeep().await.is_err() {
                            world.count("upkeep failed");
                        }
                    }
                });
                return;
            }
            self.about(500).await;
        }
    }

    /// A server dies with all that it was doing, and comes back after a while.
    pub(super) fn crash_server(self: &Rc<Self>, at: usize) {
        if self.servers.borrow_mut()[at].take().is_none() {
            return;
        }
        self.count("server crash");
        self.note(format!("server {at} crashes"));
        self.executor.kill(FIRST_SERVER + at as Group);
        let world = Rc::clone(self);
        self.executor.spawn(FIRST_SERVER + at as Group, async move {
            world.about(3_000).await;
            world.start_server(at).await;
        });
    }

    /// Any server that is up.
    pub(super) fn any_server(&self) -> Option<(usize, Engine)> {
        let servers = self.servers.borrow();
        let up: Vec<usize> = (0..servers.len()).filter(|at| servers[*at].is_some()).collect();
        let at = *up.get(self.rng.below(up.len().max(1) as u64) as usize)?;
        servers[at].clone().map(|engine| (at, engine))
    }

    // The network.

    /// Sends a request and waits; `None` when no answer came in time. A browser's cookies are set by whatever answer arrives,
    /// whenever it does.
    pub(super) async fn exchange(self: &Rc<Self>, device: &Rc<Device>, ask: Ask) -> Option<Answer> {
        let chaos = self.chaos.get();
        let orderly = device.kind.is_orderly(&self.plan);
        let (answer, mut answered) = oneshot::channel::<Answer>();
        let slot = Rc::new(RefCell::new(Some(answer)));
        let copies = if chaos && !orderly && self.rng.one_in(self.plan.doubled_one_in) { 2 } else { 1 };
        for copy in 0..copies {
            if copy == 1 {
                self.count("net: doubled");
            }
            let lost = |w: &Self| chaos && w.rng.one_in(w.plan.lost_one_in);
            if lost(self) {
                self.count("net: request lost");
                continue;
            }
            let answer_lost = lost(self);
            let (world, device, ask, slot) = (Rc::clone(self), Rc::clone(device), ask.clone(), Rc::clone(&slot));
            let in_flight = Rc::clone(&device.in_flight);
            self.executor.spawn(NETWORK, async move {
                world.travel(orderly).await;
                let Some((at, engine)) = world.any_server() else { return };
                let arrived = Rc::clone(&world);
                world.executor.spawn(FIRST_SERVER + at as Group, async move {
                    let answer = arrived.serve(at, engine, &device, ask).await;
                    if answer_lost {
                        arrived.count("net: answer lost");
                        return;
                    }
                    let world = Rc::clone(&arrived);
                    arrived.executor.spawn(NETWORK, async move {
                        world.travel(orderly).await;
                        if let Answer::Tokens(tokens) = &answer {
                            device.set_cookies(tokens);
                        }
                        if let Some(slot) = slot.borrow_mut().take() {
                            // Nobody waits any more: the answer came too late.
                            let _ = slot.send(answer);
                        }
                        drop(in_flight);
                    });
                });
            });
        }
        drop(slot);
        let timeout = pin!(self.time.sleep(PATIENCE));
        match select(&mut answered, timeout).await {
            Either::Left((Ok(answer), _)) => Some(answer),
            Either::Left((Err(_), rest)) => {
                rest.await;
                None
            }
            Either::Right(_) => None,
        }
    }

    async fn travel(&self, orderly: bool) {
        let late = self.chaos.get() && !orderly && self.rng.one_in(self.plan.late_one_in);
        if late {
            self.count("net: late");
        }
        let millis = if late { self.rng.below(self.plan.late_millis) } else { 5 + self.rng.below(120) };
        self.sleep(millis).await;
    }

    async fn serve(self: &Rc<Self>, at: usize, engine: Engine, device: &Rc<Device>, ask: Ask) -> Answer {
        let arrival = self.judge.borrow().arrival(self.executor.steps());
        let by = device.id;
        match self.carry_out(&engine, arrival, by, &device.user, ask).await {
            Ok((answer, what)) => {
                self.note(format!("server {at}, device {by}: {what}"));
                answer
            }
            Err(Error::Store(_) | Error::Log(_)) => Answer::Unavailable,
            Err(Error::Conflict(_) | Error::UserBanned(_)) => Answer::Denied,
            Err(other) => {
                self.violated(
                    1,
                    format!("device {by} got an error that no protocol-abiding client can cause: {other}"),
                );
                Answer::Unavailable
            }
        }
    }

    async fn carry_out(
        self: &Rc<Self>,
        engine: &Engine,
        arrival: Arrival,
        by: Party,
        user: &UserId,
        ask: Ask,
    ) -> Result<(Answer, String), Error> {
        let ctx = Context::default();
        let (scope, tag) = (&self.scope, "default".parse().expect("a valid tag"));
        Ok(match ask {
            Ask::Start { key, commitment } => {
                let login = key.clone();
                let mut request = StartRequest::new(tag, Some(user.clone()));
                request.commitment = commitment;
                request.idempotency_key = Some(key);
                let tokens = held(&engine.start(scope, request, &ctx).await?);
                self.judge.borrow_mut().counts.starts += 1;
                let what = format!("{login} starts {}", self.name(tokens.session));
                (Answer::Tokens(tokens), what)
            }
            Ask::Refresh { token, proof, elevate } => {
                let (id, m) = (token.session, token.generation);
                self.judge.borrow_mut().uses(id, m);
                let says = proof.as_ref().map(|p| {
                    let parts =
                        [if p.opening.is_some() { "+opening" } else { "" }, if p.newest { "+newest" } else { "" }];
                    format!(" proof {}@{}{}", self.name(p.session_id), p.generation, parts.concat())
                });
                let tag = self.plan.names_tag.then_some(tag);
                let refresh = Refresh { refresh_token: &token.refresh, tag, proof };
                let outcome = if elevate {
                    let auth = Auth { time: engine.now(), acr: None, amr: vec!["otp".into()] };
                    engine.elevate(scope, Elevate { refresh, auth }, &ctx).await
                } else {
                    engine.refresh(scope, refresh, &ctx).await
                };
                let (answer, came) = match outcome {
                    Ok(RefreshOutcome::Refreshed(tokens)) => {
                        self.judge.borrow_mut().refreshed(arrival, &tokens.session, by);
                        let tokens = held(&tokens);
                        let came = format!("generation {}", tokens.generation);
                        (Answer::Tokens(tokens), came)
                    }
                    Ok(RefreshOutcome::Refused(refusal)) => {
                        self.refused(id, &refusal, engine.now());
                        let came = describe(&refusal);
                        (Answer::Refused(refusal), came)
                    }
                    Err(error @ (Error::Store(_) | Error::Log(_) | Error::Conflict(_))) => {
                        (Answer::Unavailable, error.to_string())
                    }
                    Err(other) => return Err(other),
                };
                let says = says.unwrap_or_default();
                (answer, format!("refresh {}@{m}{says} -> {came}", self.name(id)))
            }
            Ask::Verify { token, online } => {
                let outcome = engine.verify(scope, &token.access, None, online).await?;
                let active = match outcome {
                    VerifyOutcome::Active(active) => {
                        let mut judge = self.judge.borrow_mut();
                        judge.uses(token.session, token.generation);
                        if let Active::Row(_) = active {
                            judge.still_good(arrival, token.session, "an online verify");
                        }
                        true
                    }
                    VerifyOutcome::Inactive(_) => false,
                };
                (Answer::Done, format!("verify {} online={online} -> {active}", self.name(token.session)))
            }
            Ask::Mint { token } => {
                let minted = engine.mint(scope, Mint { refresh_token: &token.refresh, lifetime: None }, &ctx).await?;
                let served = matches!(minted, Minted::Token { .. });
                if served {
                    self.judge.borrow_mut().still_good(arrival, token.session, "a mint");
                }
                (Answer::Done, format!("mint {}@{} -> {served}", self.name(token.session), token.generation))
            }
            Ask::SignOut { token } => {
                self.judge.borrow_mut().taint(token.session);
                let signed_out = engine.sign_out(scope, PresentedToken::Refresh(&token.refresh), &ctx).await?;
                if signed_out.is_ok() {
                    self.judge.borrow_mut().acknowledged_end(token.session, self.executor.steps());
                }
                (Answer::Done, format!("sign out {}", self.name(token.session)))
            }
        })
    }

    fn refused(&self, id: SessionId, refusal: &TokenRefusal, server_now: Timestamp) {
        let mut judge = self.judge.borrow_mut();
        match refusal {
            TokenRefusal::Theft { session_id, .. } => {
                judge.acknowledged_end(*session_id, self.executor.steps());
            }
            TokenRefusal::Expired(which) => judge.expired(id, *which, server_now),
            TokenRefusal::Superseded(_) => judge.counts.superseded += 1,
            TokenRefusal::ProofRequired(_) => judge.counts.proof_required += 1,
            TokenRefusal::Malformed | TokenRefusal::ScopeMismatch | TokenRefusal::AccessExpired => {
                judge.violated(1, format!("a good token was refused: {refusal:?}"));
            }
            TokenRefusal::Revoked(_) => {}
        }
    }
}

fn events(store: &MemoryStore, session_id: SessionId) -> Vec<Event> {
    let query = EventQuery { limit: u32::MAX, ..events_of(session_id) };
    let mut events = now_or_never(store.events(query)).unwrap_or_default();
    // Ids sort by the servers' clocks, which differ; what matters here is the order of the generations.
    let rank = |kind| match kind {
        EventKind::Elevate => 1,
        EventKind::End => 2,
        _ => 0,
    };
    events.sort_by_key(|e| std::cmp::Reverse((e.generation, rank(e.kind), e.id)));
    events
}

fn held(tokens: &rekindle::engine::Tokens) -> Held {
    Held {
        session: tokens.session.id,
        generation: tokens.session.position.generation,
        commitment: tokens.session.position.commitment,
        refresh: tokens.refresh_token.expose().into(),
        access: tokens.access_token.expose().into(),
    }
}

/// What a refusal says, without ids that would hide the short names.
fn describe(refusal: &TokenRefusal) -> String {
    match refusal {
        TokenRefusal::Superseded(s) => format!("superseded by {}", s.generation),
        TokenRefusal::ProofRequired(s) => format!("proof required at {}", s.generation),
        TokenRefusal::Theft { kind, .. } => format!("theft {kind:?}"),
        other => format!("{other:?}"),
    }
}

/// Seconds as milliseconds.
pub(super) fn millis(span: Seconds) -> u64 {
    span.0 * 1000
}
