//! The real engine in a simulated world: clients, servers, store, network and clocks, all drawn from one seed.
//!
//! [`run`] plays one seed to its end and checks what `docs/PROTOCOL.md` promises after every step. The same seed always tells
//! the same story, so a seed that fails is a test. `docs/SIMULATION.md` says what is drawn and what is checked.

mod client;
mod executor;
mod judge;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use rekindle::clock::Seconds;
use rekindle::engine::{EndAll, Error, Mint, Minted, Patch, Refresh, RefreshOutcome, TokenRefusal};
use rekindle::journal::Context;
use rekindle::refresh::{Opening, Proof};
use rekindle::session::{EndReason, Session, SessionId, UserId};

use crate::seam::SeededRng;
use client::{Device, Exchange, Kind};
use executor::Group;
use judge::{Judge, Owner};
use world::{Ask, World};

/// How wrong a server's clock may be.
const MAX_SKEW: Seconds = Seconds(3);

/// What is simulated: Rekindle, or something that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Rekindle as it is.
    Sound,
    /// Clients send a commitment before its opening is durable.
    UndurableOpenings,
    /// Nothing outlives the store's lost writes.
    NoRevocationLog,
    /// Each server has a revocation log of its own, which the others cannot read.
    LogPerServer,
    /// The store advances a session wherever it is.
    BlindAdvance,
    /// The store confirms a session at whatever generation it is.
    ConfirmAnyGeneration,
    /// The store's feed tells nothing, so that nothing completes the revocation log.
    SilentFeed,
    /// Clients that have lost their place sign in again without signing out.
    GivesUpSilently,
}

/// What a seed draws.
#[derive(Debug, Clone)]
struct Plan {
    seed: u64,
    variant: Variant,
    servers: usize,
    devices: Vec<(Kind, usize)>,
    chaos_seconds: u64,
    pace: u64,
    lost_one_in: u64,
    doubled_one_in: u64,
    late_one_in: u64,
    late_millis: u64,
    store_fails_one_in: u64,
    store_slow_one_in: u64,
    lost_writes: bool,
    crashes: bool,
    evictions: bool,
    thief: Option<Loot>,
    operator: bool,
    orderly_bearers: bool,
    web_locks: bool,
    names_tag: bool,
    idle: u64,
    absolute: u64,
    leeway: u64,
    retention: Seconds,
    upkeep_every: u64,
}

/// What a thief has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loot {
    Token,
    TokenAndOpening,
    Everything,
}

impl Plan {
    fn draw(seed: u64, variant: Variant) -> Self {
        let rng = SeededRng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x71a2);
        let one_in = |n| rng.one_in(n);
        let devices = (0..1 + rng.below(4))
            .map(|_| match rng.below(8) {
                0..=2 => (Kind::Native, 1),
                3..=5 => (Kind::Browser, 1 + rng.below(3) as usize),
                6 => (Kind::Bearer, 1),
                _ => (Kind::Upgrader, 1),
            })
            .collect();
        let needs_theft = variant == Variant::GivesUpSilently;
        let thief = if one_in(4) || needs_theft {
            Some([Loot::Token, Loot::TokenAndOpening, Loot::Everything][rng.below(3) as usize])
        } else {
            None
        };
        let (idle, absolute) = match rng.below(4) {
            0 => (60 + rng.below(600), 1_200 + rng.below(1_200)),
            _ => (14 * 86_400, 90 * 86_400),
        };
        let needs_lost_writes =
            matches!(variant, Variant::NoRevocationLog | Variant::LogPerServer | Variant::SilentFeed);
        Self {
            seed,
            variant,
            servers: 1 + rng.below(3) as usize,
            devices,
            chaos_seconds: 300 + rng.below(1_500),
            pace: 3_000 + rng.below(40_000),
            lost_one_in: [6, 20, 1_000][rng.below(3) as usize],
            doubled_one_in: [6, 20, 1_000][rng.below(3) as usize],
            late_one_in: [6, 20, 1_000][rng.below(3) as usize],
            late_millis: [5_000, 60_000, 600_000][rng.below(3) as usize],
            store_fails_one_in: [10, 50, 10_000][rng.below(3) as usize],
            store_slow_one_in: [10, 50, 10_000][rng.below(3) as usize],
            lost_writes: needs_lost_writes || (thief.is_none() && one_in(2)),
            crashes: one_in(2),
            evictions: one_in(4) || needs_theft,
            thief,
            operator: needs_lost_writes || one_in(3),
            orderly_bearers: one_in(2),
            web_locks: one_in(2),
            names_tag: one_in(2),
            idle,
            absolute,
            leeway: [0, 10][rng.below(2) as usize],
            retention: Seconds([7 * 86_400, idle][rng.below(2) as usize]),
            upkeep_every: 2_000 + rng.below(30_000),
        }
    }
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Seeds that were played.
    pub seeds: u64,
    /// Times that a task was polled.
    pub steps: u64,
    /// Sessions that were started.
    pub starts: u64,
    /// Refreshes that were answered with tokens.
    pub refreshes: u64,
    /// Refreshes that were answered with `superseded`.
    pub superseded: u64,
    /// Refreshes that were answered with `proof_required`.
    pub proof_required: u64,
    /// Sessions that ended as stolen.
    pub thefts: u64,
    /// What went wrong on purpose, by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.starts += other.starts;
        self.refreshes += other.refreshes;
        self.superseded += other.superseded;
        self.proof_required += other.proof_required;
        self.thefts += other.thefts;
        for (kind, n) in &other.faults {
            *self.faults.entry(kind).or_default() += n;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, steps, starts, refreshes, superseded, proof_required, thefts, faults } = self;
        write!(
            f,
            "{seeds} seeds, {steps} steps, {starts} starts, {refreshes} refreshes, {superseded} superseded, \
             {proof_required} proof required, {thefts} thefts seen; faults:"
        )?;
        faults.iter().try_for_each(|(kind, n)| write!(f, " {kind} {n},"))?;
        write!(f, " {} in all", faults.values().sum::<u64>())
    }
}

/// A promise that was not kept.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The seed that shows it.
    pub seed: u64,
    /// Which property, and how.
    pub what: String,
    /// The last steps before.
    pub history: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.history {
            writeln!(f, "{line}")?;
        }
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

/// Plays one seed to its end. With `verbose`, prints every step.
pub fn run(seed: u64, variant: Variant, verbose: bool) -> Result<Counts, Box<Violation>> {
    let plan = Plan::draw(seed, variant);
    if verbose {
        println!("{plan:?}");
    }
    let judge = Judge::new(verbose, plan.retention);
    let world = World::new(plan, judge);
    let finished = play(&world);
    // The tasks hold the world, which holds the tasks.
    world.executor.clear();
    world.set_faults(false);
    let mut judge = world.judge.borrow_mut();
    if !finished && judge.violation.is_none() {
        judge.violated(1, "nothing is left to run, and the clients are not done".into());
    }
    match judge.violation.take() {
        Some(what) => Err(Box::new(Violation { seed, what, history: judge.history() })),
        None => {
            let faults = world.fault_counts();
            Ok(Counts { seeds: 1, steps: world.executor.steps(), faults, ..judge.counts.clone() })
        }
    }
}

fn play(world: &Rc<World>) -> bool {
    let done = Rc::new(std::cell::Cell::new(false));
    let (stage, end) = (Rc::clone(world), Rc::clone(&done));
    world.executor.spawn(world::NETWORK, async move {
        direct(&stage).await;
        end.set(true);
    });
    world.executor.run(|| {
        world.look();
        done.get() || world.judge.borrow().violation.is_some()
    })
}

/// The whole play: the stage is set, chaos, calm, the last look.
async fn direct(world: &Rc<World>) {
    let plan = &world.plan;
    for at in 0..plan.servers {
        world.start_server(at).await;
    }
    let Some((_, engine)) = world.any_server() else { return };
    let patch = serde_json::json!({
        "refresh": { "idle_timeout": plan.idle, "absolute_lifetime": plan.absolute, "reuse_leeway": plan.leeway },
        "access_token": { "lifetime": 60 },
    });
    let ctx = Context::default();
    let (product, tag) = (&world.scope.product, "default".parse().expect("a valid tag"));
    let patched = engine.patch_definition(product, &tag, &patch, &ctx).await;
    if !matches!(patched, Ok(Ok(_))) {
        world.violated(0, "the definition was refused".into());
    }
    world.sleep(3_000).await;

    world.set_faults(true);
    let mut devices = Vec::new();
    for (at, (kind, tabs)) in (0..).zip(&plan.devices) {
        let user: UserId = format!("u{at}").parse().expect("a valid user id");
        let owner = Owner { committed: kind.commits_at_login(), orderly: kind.is_orderly(plan) };
        world.judge.borrow_mut().know(user.clone(), owner);
        let device = Device::new(at, *kind, user);
        let tabs: Vec<Group> = (0..*tabs).map(|_| world.new_group()).collect();
        for tab in &tabs {
            spawn_tab(world, &device, *tab);
        }
        devices.push((device, tabs));
    }
    let others = world.new_group();
    let (stage, cast) = (Rc::clone(world), devices.clone());
    world.executor.spawn(others, async move { misfortune(&stage, &cast).await });
    if plan.operator {
        let (stage, cast) = (Rc::clone(world), devices.clone());
        world.executor.spawn(others, async move { operate(&stage, &cast).await });
    }
    if let Some(loot) = plan.thief {
        let (stage, cast) = (Rc::clone(world), devices.clone());
        world.executor.spawn(others, async move { steal(&stage, &cast, loot).await });
    }
    world.sleep(plan.chaos_seconds * 1000).await;

    world.chaos.set(false);
    world.set_faults(false);
    world.note("calm");
    world.executor.kill(others);
    for (device, tabs) in &devices {
        for tab in tabs {
            world.executor.kill(*tab);
            device.crashed(*tab);
        }
    }
    // Whatever is still on its way arrives; servers that are down come back; bans run out.
    world.sleep(plan.late_millis.max(90_000)).await;
    for (device, tabs) in &devices {
        recover(world, device, tabs[0]).await;
    }
    world.look();
    world.check_journal();
}

fn spawn_tab(world: &Rc<World>, device: &Rc<Device>, tab: Group) {
    let (stage, device) = (Rc::clone(world), Rc::clone(device));
    world.executor.spawn(tab, async move {
        loop {
            stage.about(stage.plan.pace).await;
            let Some(held) = device.held() else {
                device.sign_in(&stage, tab).await;
                continue;
            };
            match stage.rng.below(40) {
                0..=27 => drop(device.refresh(&stage, tab, false).await),
                28..=29 => drop(device.refresh(&stage, tab, true).await),
                30..=35 => {
                    let online = stage.rng.one_in(2);
                    stage.exchange(&device, Ask::Verify { token: held, online }).await;
                }
                36..=37 => drop(stage.exchange(&device, Ask::Mint { token: held }).await),
                38 => {
                    // A user who never comes back within the idle time, now and then.
                    stage.sleep(stage.rng.below(world::millis(Seconds(stage.plan.idle.min(1_200))))).await;
                }
                _ => drop(stage.exchange(&device, Ask::SignOut { token: held }).await),
            }
        }
    });
}

/// Crashes, lost writes, evictions.
async fn misfortune(world: &Rc<World>, devices: &[(Rc<Device>, Vec<Group>)]) {
    loop {
        world.about(20_000).await;
        let (device, tabs) = &devices[world.rng.below(devices.len() as u64) as usize];
        match world.rng.below(4) {
            0 if world.plan.crashes => world.crash_server(world.rng.below(world.plan.servers as u64) as usize),
            1 if world.plan.crashes => {
                let tab = tabs[world.rng.below(tabs.len() as u64) as usize];
                world.count("client crash");
                world.note(format!("device {}: a tab or process dies", device.id));
                world.executor.kill(tab);
                device.crashed(tab);
                spawn_tab(world, device, tab);
            }
            2 if world.plan.lost_writes => world.lose_writes(),
            3 if world.plan.evictions && device.kind == Kind::Browser && world.rng.one_in(3) => {
                world.count("storage evicted");
                world.note(format!("device {}: script storage evicted", device.id));
                device.evict();
            }
            _ => {}
        }
    }
}

/// Revokes, bans, patches, confirms.
async fn operate(world: &Rc<World>, devices: &[(Rc<Device>, Vec<Group>)]) {
    let ctx = Context::default();
    for turn in 0_u64.. {
        world.about(15_000).await;
        let Some((_, engine)) = world.any_server() else { continue };
        let (device, _) = &devices[world.rng.below(devices.len() as u64) as usize];
        let Some(id) = device.held().map(|h| h.session) else { continue };
        let user = device.user.clone();
        let of_user = |created_until| -> Vec<SessionId> {
            let judge = world.judge.borrow();
            let meant = |r: &&Session| r.user_id == user && r.created_at <= created_until;
            judge.rows.values().filter(meant).map(|r| r.id).collect()
        };
        let (what, ends, done) = match world.rng.below(12) {
            0 => {
                world.judge.borrow_mut().taint(id);
                let done = engine.revoke(&world.scope, id, EndReason::Revoked, &ctx).await;
                ("revokes a session of", vec![id], done.is_ok())
            }
            1 => {
                world.judge.borrow_mut().taint_user(user.clone());
                let ends = of_user(engine.now());
                let which = EndAll { user_id: Some(user.clone()), ..EndAll::default() };
                let end = || engine.revoke_all(&world.scope, which.clone(), EndReason::CredentialChanged, &ctx);
                ("revokes every session of", ends, until_answered(end).await)
            }
            2 if world.rng.one_in(2) => {
                world.judge.borrow_mut().taint_user(user.clone());
                let ends = of_user(rekindle::clock::Timestamp::MAX);
                let until = Some(engine.now() + Seconds(30));
                let ban = || engine.ban(&world.scope, &user, until, None, &ctx);
                ("bans", ends, until_answered(ban).await)
            }
            3 => {
                let done = engine.confirm(&world.scope, vec![(id, 1_000_000_000)]).await;
                ("reports nonsense of", Vec::new(), done.is_ok())
            }
            _ => {
                let arrival = world.judge.borrow().arrival(world.executor.steps());
                let key = format!("k{turn}");
                let mut data = serde_json::Map::new();
                data.insert(key.clone(), turn.into());
                let patch = Patch { data: Some(data), ..Patch::default() };
                let done = engine.patch(&world.scope, id, patch, &ctx).await;
                if done.is_ok() {
                    world.judge.borrow_mut().patched(arrival, id, key);
                }
                ("patches a session of", Vec::new(), done.is_ok())
            }
        };
        world.note(format!("the operator {what} device {}: {}", device.id, if done { "done" } else { "no answer" }));
        if done {
            for id in ends {
                world.judge.borrow_mut().acknowledged_end(id, world.executor.steps());
            }
        }
    }
}

/// An operator who gets no answer asks again; whether there was one in the end.
async fn until_answered<F: Future<Output = Result<u64, Error>>>(ask: impl Fn() -> F) -> bool {
    for _ in 0..3 {
        if ask().await.is_ok() {
            return true;
        }
    }
    false
}

/// A thief copies what a client has at some moment, and uses it.
async fn steal(world: &Rc<World>, devices: &[(Rc<Device>, Vec<Group>)], loot: Loot) {
    world.about(world.plan.chaos_seconds * 300).await;
    let (victim, held) = loop {
        world.about(5_000).await;
        let (device, _) = &devices[world.rng.below(devices.len() as u64) as usize];
        if let Some(held) = device.held() {
            break (Rc::clone(device), held);
        }
    };
    let opening = victim.opening((held.session, held.generation, held.commitment));
    let thief = Device::new(1_000, Kind::Thief, victim.user.clone());
    world.note(format!("a thief takes {loot:?} of device {}, {}", victim.id, world.name(held.session)));
    world.count("theft");
    *thief.held.borrow_mut() = Some(held.clone());
    match (loot, opening) {
        (Loot::Token, _) if held.commitment.is_some() => return use_bare_token(world, &held).await,
        (Loot::Everything, _) => *thief.storage.borrow_mut() = victim.storage.borrow().clone(),
        (Loot::TokenAndOpening, Some(opening)) => thief.holds_only(held.session, held.generation, opening),
        _ => {}
    }
    if held.commitment.is_some() {
        let shared = thief.commitments();
        world.judge.borrow_mut().stolen(held.session, victim.id, thief.id, shared);
    } else {
        world.judge.borrow_mut().taint(held.session);
    }
    loop {
        world.about(world.plan.pace * (1 + world.rng.below(3))).await;
        if thief.refresh(world, 0, false).await == Exchange::Ended {
            return;
        }
    }
}

/// Property 3: a token without its opening moves nothing and ends nothing.
async fn use_bare_token(world: &Rc<World>, held: &world::Held) {
    let ctx = Context::default();
    loop {
        world.about(world.plan.pace).await;
        let Some((_, engine)) = world.any_server() else { continue };
        if world.rng.one_in(3) {
            let mint = Mint { refresh_token: &held.refresh, lifetime: None };
            let arrival = world.judge.borrow().arrival(world.executor.steps());
            if let Ok(Minted::Token { .. }) = engine.mint(&world.scope, mint, &ctx).await {
                world.judge.borrow_mut().still_good(arrival, held.session, "a mint");
            }
            continue;
        }
        let commitment = Opening::draw(&world.rng).commitment();
        let (session_id, generation) = (held.session, held.generation);
        let proof = Proof { session_id, generation, commitment, opening: None, newest: world.rng.one_in(2) };
        let proof = world.rng.one_in(2).then_some(proof);
        let refresh = Refresh { refresh_token: &held.refresh, tag: None, proof };
        match engine.refresh(&world.scope, refresh, &ctx).await {
            Ok(RefreshOutcome::Refreshed(_)) => world.violated(3, "a bare stolen token was refreshed".into()),
            Ok(RefreshOutcome::Refused(TokenRefusal::Theft { .. })) => {
                world.violated(3, "a bare stolen token ended its session".into());
            }
            _ => {}
        }
    }
}

/// After the faults: who still has a session refreshes it at once; everybody else signs in again and refreshes.
async fn recover(world: &Rc<World>, device: &Rc<Device>, tab: Group) {
    let held = device.held();
    let alive = held.as_ref().is_some_and(|h| {
        let judge = world.judge.borrow();
        let late = world.time.now() + MAX_SKEW;
        judge.is_alive(h.session, late) && !judge.is_tainted(h.session)
    });
    if alive {
        let came = device.refresh(world, tab, false).await;
        // What was given up was judged then.
        if !matches!(came, Exchange::Refreshed | Exchange::GivenUp) {
            world.violated(1, format!("device {} cannot refresh after the faults: {came:?}", device.id));
        }
    }
    for _ in 0..6 {
        let signed_in = device.held().is_some();
        if !signed_in {
            device.sign_in(world, tab).await;
        } else if device.refresh(world, tab, false).await == Exchange::Refreshed {
            return;
        }
    }
    world.violated(1, format!("device {} cannot even sign in and refresh after the faults", device.id));
}
