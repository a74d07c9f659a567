//! Database servers under a store: durable, on this machine, thrown away afterwards. And their bare drivers, which read and
//! write the store's own rows without Rekindle.

mod mysql;
mod postgres;
mod redis;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use async_trait::async_trait;
use rekindle::clock::{Clock, SystemClock};
use rekindle::rng::SystemRng;
use rekindle::session::SessionId;
use rekindle::store::Store;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

pub use mysql::MysqlDatabase;
pub use postgres::PostgresDatabase;
pub use redis::RedisDatabase;

use crate::process::CpuTimes;
use crate::users::{KNOWN, Scenario, User};

/// A running database server.
#[async_trait]
pub trait Database {
    /// Its name and version.
    fn name(&self) -> String;

    /// Its process.
    fn pid(&self) -> Result<u32>;

    /// Its TCP port on 127.0.0.1.
    fn port(&self) -> u16;

    /// The store's URL, through a port of the loopback interface.
    fn url(&self, port: u16) -> String;

    /// Opens the store, through a port of the loopback interface.
    async fn store(&self, port: u16) -> Result<Arc<dyn Store>>;

    /// Whether a commit waits for the disk: it does, unless it was told otherwise for as long as the store is loaded.
    fn set_durable(&self, durable: bool);

    /// Brings what was loaded to rest: statistics, dirty pages, the log.
    fn settle(&self);

    /// How many transactions have written so far (of Redis: how many scripts have run).
    fn transactions(&self) -> Result<u64>;

    /// So many bare clients. What they write besides ids and times is taken from what the server has written, and the row of
    /// a session that was `refreshed`.
    async fn bare(&self, clients: usize, refreshed: [u8; 16]) -> Result<Vec<Box<dyn Bare>>>;
}

/// A driver's connection that does without Rekindle what a store has to do at least: the same rows, as durable.
#[async_trait]
pub trait Bare: Send {
    /// Reads the session's row.
    async fn read(&mut self, id: &[u8; 16]) -> Result<()>;

    /// The row, if it is where it should be, is updated and given back, and its event inserted.
    async fn refresh(&mut self, step: &Step) -> Result<()>;

    /// A row and its event are inserted.
    async fn start(&mut self, step: &Step) -> Result<()>;

    /// The row is marked as ended, its event inserted, and the feed gets an entry.
    async fn end(&mut self, step: &Step) -> Result<()>;
}

/// What one operation writes.
pub struct Step {
    /// The session's id.
    pub id: [u8; 16],
    /// Its generation and commitment before a refresh.
    pub from: (u32, [u8; 16]),
    /// The same after it.
    pub to: (u32, [u8; 16]),
    /// The event's id, later than all before.
    pub event: [u8; 16],
    /// In milliseconds.
    pub now: i64,
}

impl Step {
    /// When a session that is refreshed now would end by itself, in milliseconds.
    pub fn idle_expires_at(&self) -> i64 {
        self.now + 14 * 86_400_000
    }

    /// Until when the feed tells of a session that ends now, in milliseconds.
    pub fn feed_until(&self) -> i64 {
        self.now + 7_200_000
    }

    /// The id of a user that nobody has.
    pub fn user_id(&self) -> String {
        let [.., a, b, c, d] = self.id;
        format!("bare-{:08x}", u32::from_be_bytes([a, b, c, d]))
    }
}

/// The sessions that bare clients work on, in turn.
#[derive(Default)]
pub struct Turns {
    committed: Vec<Row>,
    at: usize,
    /// Those of other sessions, and of those that were started.
    to_end: VecDeque<[u8; 16]>,
    rng: SystemRng,
}

struct Row {
    id: [u8; 16],
    generation: u32,
    commitment: [u8; 16],
}

impl Turns {
    /// The sessions of users, as the server has left them.
    pub fn of(users: &[User]) -> Self {
        let mut turns = Self::default();
        for user in users {
            let id = user.session_id().to_bytes();
            match user.position() {
                Some((generation, commitment)) => {
                    turns.committed.push(Row { id, generation, commitment: commitment.to_bytes() });
                }
                None => turns.to_end.push_back(id),
            }
        }
        turns
    }

    /// A session that was refreshed.
    pub fn refreshed(&self) -> Result<[u8; 16]> {
        let row = self.committed.iter().find(|row| row.generation > 0);
        Ok(row.context("no session was refreshed")?.id)
    }

    /// Shares them among so many clients.
    pub fn share(self, clients: usize) -> Vec<Self> {
        let mut shares: Vec<Self> = (0..clients).map(|_| Self::default()).collect();
        for (i, row) in self.committed.into_iter().enumerate() {
            shares[i % clients].committed.push(row);
        }
        for (i, id) in self.to_end.into_iter().enumerate() {
            shares[i % clients].to_end.push_back(id);
        }
        shares
    }

    /// The reverse of [`Turns::share`].
    pub fn gather(shares: impl IntoIterator<Item = Self>) -> Self {
        shares.into_iter().fold(Self::default(), |mut all, share| {
            all.committed.extend(share.committed);
            all.to_end.extend(share.to_end);
            all
        })
    }

    /// Carries out the next operation of a scenario; whether there was a session for it.
    async fn carry_out(&mut self, scenario: Scenario, bare: &mut dyn Bare) -> Result<bool> {
        let now = SystemClock.now();
        let draw = || SessionId::draw(now, &self.rng).to_bytes();
        let step = |id, from, to| Step { id, from, to, event: draw(), now: now.millis() };
        let nothing = (0, [0; 16]);
        self.at += 1;
        match scenario {
            Scenario::VerifyOnline => bare.read(&self.committed[self.at % self.committed.len().min(KNOWN)].id).await?,
            Scenario::RefreshCommitted => {
                let turn = self.at % self.committed.len();
                let Row { id, generation, commitment } = self.committed[turn];
                let step = step(id, (generation, commitment), (generation + 1, draw()));
                bare.refresh(&step).await?;
                self.committed[turn] = Row { id, generation: step.to.0, commitment: step.to.1 };
            }
            Scenario::Start => {
                let step = step(draw(), nothing, nothing);
                bare.start(&step).await?;
                self.to_end.push_back(step.id);
            }
            Scenario::Revoke => {
                let Some(id) = self.to_end.pop_front() else { return Ok(false) };
                bare.end(&step(id, nothing, nothing)).await?;
            }
            other => bail!("the bare drivers do not carry out {other:?}"),
        }
        Ok(true)
    }
}

/// What a bare operation costs.
pub struct BareCost {
    /// Operations per second.
    pub rate: f64,
    /// CPU time for one: `own` is the driver's.
    pub each: CpuTimes,
}

/// A bare client and its sessions.
pub type BareClient = (Box<dyn Bare>, Turns);

/// Has all bare clients carry out a scenario at once, and measures. They come back as they are afterwards.
pub async fn measure(
    clients: &mut Vec<BareClient>,
    scenario: Scenario,
    database: u32,
    warm: Duration,
    long: Duration,
) -> Result<BareCost> {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for (mut bare, mut turns) in clients.drain(..) {
        let (done, stop) = (done.clone(), stop.clone());
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                match turns.carry_out(scenario, &mut *bare).await {
                    Ok(true) => done.fetch_add(1, Ordering::Relaxed),
                    // One that has nothing left to do, or fails, ends the measurement.
                    Ok(false) => break,
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                };
            }
            stop.store(true, Ordering::Relaxed);
            Ok((bare, turns))
        });
    }
    let rest = async |long: Duration| {
        let until = Instant::now() + long;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let sample = || {
        Ok::<_, anyhow::Error>((CpuTimes::read(None, Some(database))?, done.load(Ordering::Relaxed), Instant::now()))
    };
    rest(warm).await;
    let (cpu, operations, started) = sample()?;
    rest(long).await;
    let (cpu_after, operations_after, ended) = sample()?;
    stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        clients.push(task??);
    }
    let operations = operations_after - operations;
    ensure!(operations > 0, "the bare driver did nothing in {long:?}");
    let rate = operations as f64 / (ended - started).as_secs_f64();
    Ok(BareCost { rate, each: cpu_after.since(&cpu).each(operations) })
}
