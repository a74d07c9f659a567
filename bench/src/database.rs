//! Database servers under a store: durable, on this machine, thrown away afterwards. And their bare drivers, which carry out a
//! refresh's write on the store's own rows without Rekindle.

mod mysql;
mod postgres;
mod redis;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use rekindle::clock::{Clock, SystemClock};
use rekindle::store::Store;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

pub use mysql::MysqlDatabase;
pub use postgres::PostgresDatabase;
pub use redis::RedisDatabase;

use crate::floors::Ids;
use crate::process::CpuTimes;
use crate::users::User;

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

    /// A bare client of its own for each share of rows.
    async fn bare(&self, shares: Vec<Turns>) -> Result<Vec<Box<dyn Bare>>>;
}

/// A driver's connection that refreshes without Rekindle.
#[async_trait]
pub trait Bare: Send {
    /// One refresh's write, durable: the row, if it is where it should be, is updated and given back, and its event inserted.
    async fn refresh(&mut self) -> Result<()>;
}

/// The sessions that a bare client refreshes in turn.
pub struct Turns {
    rows: Vec<Row>,
    at: usize,
}

struct Row {
    id: [u8; 16],
    generation: u32,
    commitment: [u8; 16],
}

/// What a refresh writes.
pub struct Move {
    /// The session's id.
    pub id: [u8; 16],
    /// Where it is.
    pub from: (u32, [u8; 16]),
    /// Where it goes.
    pub to: (u32, [u8; 16]),
    /// The event's id, later than all before.
    pub event: [u8; 16],
    /// In milliseconds.
    pub now: i64,
    /// In milliseconds.
    pub idle_expires_at: i64,
}

impl Turns {
    /// Shares the committed sessions of users among `count` bare clients.
    pub fn share(users: &[User], count: usize) -> Vec<Self> {
        let mut shares: Vec<Self> = (0..count).map(|_| Self { rows: Vec::new(), at: 0 }).collect();
        for (i, (id, generation, commitment)) in users.iter().filter_map(User::committed).enumerate() {
            let row = Row { id: id.to_bytes(), generation, commitment: commitment.to_bytes() };
            shares[i % count].rows.push(row);
        }
        shares
    }

    /// The next session's move; it counts as done.
    fn next(&mut self) -> Move {
        let now = SystemClock.now().millis();
        let len = self.rows.len();
        let row = &mut self.rows[self.at % len];
        self.at += 1;
        let mut ids = Ids::from(now as u64, self.at as u64);
        let from = (row.generation, row.commitment);
        (row.generation, row.commitment) = (row.generation + 1, ids.next());
        let to = (row.generation, row.commitment);
        Move { id: row.id, from, to, event: ids.next(), now, idle_expires_at: now + 14 * 86_400_000 }
    }
}

/// What the bare write costs.
pub struct BareCost {
    /// Writes per second.
    pub rate: f64,
    /// CPU time for one: `own` is the driver's.
    pub each: CpuTimes,
}

/// Has all bare clients write at once, and measures.
pub async fn measure(bare: Vec<Box<dyn Bare>>, database: u32, warm: Duration, long: Duration) -> Result<BareCost> {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for mut client in bare {
        let (done, stop) = (done.clone(), stop.clone());
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                client.refresh().await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    let sample = || {
        Ok::<_, anyhow::Error>((CpuTimes::read(None, Some(database))?, done.load(Ordering::Relaxed), Instant::now()))
    };
    sleep(warm).await;
    let (cpu, operations, started) = sample()?;
    sleep(long).await;
    let (cpu_after, operations_after, ended) = sample()?;
    stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let operations = operations_after - operations;
    ensure!(operations > 0, "the bare driver wrote nothing in {long:?}");
    let rate = operations as f64 / (ended - started).as_secs_f64();
    Ok(BareCost { rate, each: cpu_after.since(&cpu).each(operations) })
}
