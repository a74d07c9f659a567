//! Redis, and the crate of that name.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use rekindle::session::SessionId;
use rekindle::store::Store;
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_testkit::servers::redis::Redis;

use super::{Bare, Database, Turns};

/// Every write is on the disk before it is answered; the journal as `rekindle doctor` recommends it.
const ARGUMENTS: [&str; 8] =
    ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--stream-node-max-bytes", "512"];
/// What every key begins with.
const PREFIX: &str = "bench";
/// What a refresh gives back: all of a row.
const FIELDS: [&str; 14] = [
    "rev",
    "of",
    "position",
    "issued",
    "confirmed",
    "least",
    "idle",
    "expires",
    "ended",
    "auth",
    "version",
    "start",
    "data",
    "claims",
];

/// A Redis server.
pub struct RedisDatabase {
    server: Redis,
}

impl RedisDatabase {
    /// Starts one.
    pub fn start() -> Self {
        Self { server: Redis::start(&ARGUMENTS) }
    }

    /// A value that the server tells of itself.
    fn info(&self, section: &str, name: &str) -> Result<String> {
        let told = self.server.cli(&["INFO", section]);
        let value = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(value.with_context(|| format!("Redis does not tell `{name}`"))?.trim().to_owned())
    }
}

#[async_trait]
impl Database for RedisDatabase {
    fn name(&self) -> String {
        format!("Redis {}", self.info("server", "redis_version").unwrap_or_default())
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.info("server", "process_id")?.parse()?)
    }

    fn port(&self) -> u16 {
        self.server.port()
    }

    fn url(&self, port: u16) -> String {
        format!("redis://127.0.0.1:{port}/?prefix={PREFIX}")
    }

    async fn store(&self, port: u16) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(RedisStore::open(RedisConfig::parse(&self.url(port))?).await?))
    }

    fn set_durable(&self, durable: bool) {
        self.server.cli(&["CONFIG", "SET", "appendfsync", if durable { "always" } else { "no" }]);
    }

    fn settle(&self) {
        self.server.cli(&["BGREWRITEAOF"]);
        while self.info("persistence", "aof_rewrite_in_progress").is_ok_and(|value| value == "1") {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    fn transactions(&self) -> Result<u64> {
        let calls = |command: &str| {
            let told = self.info("commandstats", &format!("cmdstat_{command}")).unwrap_or_default();
            told.strip_prefix("calls=").and_then(|rest| rest.split(',').next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        Ok(calls("evalsha") + calls("eval"))
    }

    async fn bare(&self, shares: Vec<Turns>) -> Result<Vec<Box<dyn Bare>>> {
        // The driver's own way for many at once: they share a connection, and what they ask travels together.
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port()))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let refreshed = shares.iter().flat_map(|turns| &turns.rows).find(|row| row.generation > 0);
        let [_, journal] = keys(refreshed.context("no session was refreshed")?.id);
        let last = redis::cmd("XREVRANGE").arg(journal).arg("+").arg("-").arg("COUNT").arg(1).to_owned();
        let mut entries: Vec<(String, Vec<String>)> = last.query_async(&mut connection).await?;
        let event = entries.pop().and_then(|(_, mut fields)| fields.pop()).context("a refresh has no event")?;
        let bare = |turns| Box::new(BareRedis { connection: connection.clone(), turns, event: event.clone() }) as _;
        Ok(shares.into_iter().map(bare).collect())
    }
}

struct BareRedis {
    connection: MultiplexedConnection,
    turns: Turns,
    event: String,
}

#[async_trait]
impl Bare for BareRedis {
    async fn refresh(&mut self) -> Result<()> {
        let next = self.turns.next();
        let [row, journal] = keys(next.id);
        let event = u128::from_be_bytes(next.event);
        let position = format!("{} {:032x}", next.to.0, u128::from_be_bytes(next.to.1));
        // Without a script, a transaction cannot look at the row first: this writes, and asks nothing.
        let mut transaction = redis::pipe();
        transaction.atomic();
        transaction.cmd("HSET").arg(&row).arg("rev").arg(&next.event[..]).arg("position").arg(position);
        transaction.arg("issued").arg(format!("{} 1", next.now / 1000)).arg("idle").arg(next.idle_expires_at);
        transaction.cmd("XADD").arg(journal).arg(format!("{}-{}", event >> 64, event & u128::from(u64::MAX)));
        transaction.arg("event").arg(&self.event);
        transaction.cmd("HMGET").arg(row).arg(&FIELDS);
        let (_, _, row): (u32, String, Vec<Option<Vec<u8>>>) = transaction.query_async(&mut self.connection).await?;
        ensure!(row[1].is_some(), "the bare refresh found no row");
        Ok(())
    }
}

/// The keys of a session's row and of its journal.
fn keys(id: [u8; 16]) -> [String; 2] {
    let id = SessionId::from_bytes(id);
    ["row", "events"].map(|part| format!("{PREFIX}:{{s:{id}}}:{part}"))
}
