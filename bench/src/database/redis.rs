//! Redis, and the crate of that name.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use rekindle::session::SessionId;
use rekindle::store::Store;
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_testkit::servers::redis::Redis;

use super::{Bare, Database, Step};

/// Every write is on the disk before it is answered; the journal as `rekindle doctor` recommends it. The file is not rewritten by
/// itself: that takes seconds, and would count for whatever is measured meanwhile.
const ARGUMENTS: [&str; 10] = [
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--save",
    "",
    "--stream-node-max-bytes",
    "512",
    "--auto-aof-rewrite-percentage",
    "0",
];
/// What every key begins with.
const PREFIX: &str = "bench";
/// A refresh has to look at the row, so it takes a script: the row's fields and two writes, and nothing else.
const REFRESH: &str = "
local row = redis.call('HMGET', KEYS[1], 'position', 'ended', 'idle', 'expires', 'rev', 'of', 'issued', 'confirmed',
  'least', 'auth', 'version', 'start', 'data', 'claims')
if row[1] ~= ARGV[1] or row[2] or tonumber(row[3]) <= tonumber(ARGV[2]) or tonumber(row[4]) <= tonumber(ARGV[2]) then
  return {}
end
redis.call('HSET', KEYS[1], 'rev', ARGV[3], 'position', ARGV[4], 'issued', ARGV[5], 'idle', ARGV[6])
redis.call('XADD', KEYS[2], ARGV[7], 'event', ARGV[8])
return row";

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

    async fn bare(&self, clients: usize, refreshed: [u8; 16]) -> Result<Vec<Box<dyn Bare>>> {
        // The driver's own way for many at once: they share a connection, and what they ask travels together.
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port()))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let [row, journal] = session_keys(refreshed);
        let row: Vec<(String, Vec<u8>)> = redis::cmd("HGETALL").arg(row).query_async(&mut connection).await?;
        let refresh = newest(&mut connection, &journal).await?;
        let entry = newest(&mut connection, &format!("{PREFIX}:{{feed}}:entries")).await?;
        let ended: serde_json::Value = serde_json::from_slice(&entry)?;
        let ended: SessionId = ended["session_id"].as_str().context("an entry of the feed has no session")?.parse()?;
        let [_, journal] = session_keys(ended.to_bytes());
        let end = newest(&mut connection, &journal).await?;
        let oldest = redis::cmd("XRANGE").arg(journal).arg("-").arg("+").arg("COUNT").arg(1).to_owned();
        let start = event(oldest.query_async(&mut connection).await?)?;
        let load = redis::cmd("SCRIPT").arg("LOAD").arg(REFRESH).to_owned();
        let script = load.query_async(&mut connection).await?;
        let bare = BareRedis { connection, script, row, refresh, start, end, entry };
        Ok((0..clients).map(|_| Box::new(bare.clone()) as _).collect())
    }
}

/// Entries of a stream: id, fields and values.
type Entries = Vec<(String, Vec<Vec<u8>>)>;

/// The newest entry of a stream.
async fn newest(connection: &mut MultiplexedConnection, stream: &str) -> Result<Vec<u8>> {
    let newest = redis::cmd("XREVRANGE").arg(stream).arg("+").arg("-").arg("COUNT").arg(1).to_owned();
    event(newest.query_async(connection).await?)
}

fn event(mut entries: Entries) -> Result<Vec<u8>> {
    entries.pop().and_then(|(_, mut values)| values.pop()).context("a stream is empty")
}

#[derive(Clone)]
struct BareRedis {
    connection: MultiplexedConnection,
    /// The hash of [`REFRESH`].
    script: String,
    /// A row.
    row: Vec<(String, Vec<u8>)>,
    /// What the events say, and an entry of the feed.
    refresh: Vec<u8>,
    start: Vec<u8>,
    end: Vec<u8>,
    entry: Vec<u8>,
}

#[async_trait]
impl Bare for BareRedis {
    async fn read(&mut self, id: &[u8; 16]) -> Result<()> {
        let [row, _] = session_keys(*id);
        let row: Vec<(String, Vec<u8>)> = redis::cmd("HGETALL").arg(row).query_async(&mut self.connection).await?;
        ensure!(!row.is_empty(), "the bare driver found no row");
        Ok(())
    }

    async fn refresh(&mut self, step: &Step) -> Result<()> {
        let [row, journal] = session_keys(step.id);
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.script).arg(2).arg(row).arg(journal).arg(position(&step.from)).arg(step.now);
        call.arg(&step.event[..]).arg(position(&step.to)).arg(format!("{} 1", step.now / 1000));
        call.arg(step.idle_expires_at()).arg(stream_id(step.event)).arg(&self.refresh);
        let row: Vec<Option<Vec<u8>>> = call.query_async(&mut self.connection).await?;
        ensure!(!row.is_empty(), "the bare refresh found no row");
        Ok(())
    }

    /// In one transaction, and on one server: the row, its event, and the indexes by user and by scope.
    async fn start(&mut self, step: &Step) -> Result<()> {
        let ([row, journal], user, user_id) = (session_keys(step.id), hex(step.id), step.user_id());
        let bucket = format!("{PREFIX}:{{b:{}}}", step.id[15] % 16);
        let mut transaction = redis::pipe();
        transaction.atomic();
        transaction.cmd("HSET").arg(row).arg(&self.row).ignore();
        transaction.cmd("XADD").arg(journal).arg(stream_id(step.event)).arg("event").arg(&self.start).ignore();
        transaction.cmd("HSET").arg(format!("{PREFIX}:{{u:{user}}}:user")).arg("id").arg(&user_id).ignore();
        transaction.cmd("ZADD").arg(format!("{PREFIX}:{{u:{user}}}:sessions")).arg(0).arg(&step.id[..]).ignore();
        transaction
            .cmd("ZADD")
            .arg(format!("{bucket}:sessions:bare"))
            .arg(0)
            .arg([step.id, step.event].concat())
            .ignore();
        transaction.cmd("ZADD").arg(format!("{bucket}:users:bare")).arg(0).arg(user_id).ignore();
        Ok(transaction.exec_async(&mut self.connection).await?)
    }

    /// Likewise: the row, its event, and the feed.
    async fn end(&mut self, step: &Step) -> Result<()> {
        let ([row, journal], name) = (session_keys(step.id), hex(step.event));
        let feed = |part| format!("{PREFIX}:{{feed}}:{part}");
        let mut transaction = redis::pipe();
        transaction.atomic();
        transaction.cmd("HSET").arg(row).arg("rev").arg(&step.event[..]).arg("ended");
        transaction.arg(format!("{} signed_out", step.now)).ignore();
        transaction.cmd("XADD").arg(journal).arg(stream_id(step.event)).arg("event").arg(&self.end).ignore();
        transaction.cmd("XADD").arg(feed("entries")).arg("*").arg("entry").arg(&self.entry).ignore();
        transaction.cmd("HSET").arg(feed("numbers")).arg(&name).arg(step.now).ignore();
        transaction.cmd("ZADD").arg(feed("expiries")).arg(step.feed_until()).arg(name).ignore();
        transaction.cmd("INCR").arg(feed("last")).ignore();
        Ok(transaction.exec_async(&mut self.connection).await?)
    }
}

/// The keys of a session's row and of its journal.
fn session_keys(id: [u8; 16]) -> [String; 2] {
    let id = SessionId::from_bytes(id);
    ["row", "events"].map(|part| format!("{PREFIX}:{{s:{id}}}:{part}"))
}

fn position((generation, commitment): &(u32, [u8; 16])) -> String {
    format!("{generation} {}", hex(*commitment))
}

fn stream_id(event: [u8; 16]) -> String {
    let event = u128::from_be_bytes(event);
    format!("{}-{}", event >> 64, event & u128::from(u64::MAX))
}

fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}
