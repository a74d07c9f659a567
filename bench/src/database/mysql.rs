//! MariaDB, and mysql_async.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, Row};
use rekindle::clock::{Clock, SystemClock};
use rekindle::store::Store;
use rekindle_mysql::{MysqlConfig, MysqlStore};
use rekindle_testkit::servers::mysql::Mysql;

use super::{Bare, Database, Move, Turns};

/// Durable as MariaDB is by itself; room for a connection of each bare client, and memory for a million sessions.
const SETTINGS: [&str; 4] = [
    "max-connections=400",
    "innodb-buffer-pool-size=1G",
    "innodb-log-file-size=1G",
    "innodb-flush-log-at-trx-commit=1",
];
/// The database of the server itself.
const MAINTENANCE: &str = "mysql";

/// A MariaDB server.
pub struct MysqlDatabase {
    server: Mysql,
    database: String,
}

impl MysqlDatabase {
    /// Starts one.
    pub fn start() -> Self {
        let server = Mysql::start(&SETTINGS);
        let database = server.new_database();
        Self { server, database }
    }

    fn sql(&self, statement: &str) -> String {
        self.server.sql(&self.database, statement)
    }
}

#[async_trait]
impl Database for MysqlDatabase {
    fn name(&self) -> String {
        let version = self.sql("SELECT VERSION()");
        format!("MariaDB {}", version.split('-').next().unwrap_or_default())
    }

    fn pid(&self) -> Result<u32> {
        let path = "SELECT IF(@@pid_file LIKE '/%', @@pid_file, CONCAT(@@datadir, @@pid_file))";
        let path = self.server.sql(MAINTENANCE, path);
        let text = fs::read_to_string(&path).with_context(|| path)?;
        Ok(text.trim().parse()?)
    }

    fn port(&self) -> u16 {
        self.server.port()
    }

    fn url(&self, port: u16) -> String {
        self.server.url_through(port, &self.database)
    }

    async fn store(&self, port: u16) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(MysqlStore::open(MysqlConfig::parse(&self.url(port))?, SystemClock.now()).await?))
    }

    fn set_durable(&self, durable: bool) {
        let value = u8::from(durable);
        self.server.sql(MAINTENANCE, &format!("SET GLOBAL innodb_flush_log_at_trx_commit = {value}"));
    }

    fn settle(&self) {
        self.sql("ANALYZE TABLE sessions, events");
    }

    fn transactions(&self) -> Result<u64> {
        let line = self.sql("SHOW GLOBAL STATUS LIKE 'Com_commit'");
        Ok(line.split('\t').nth(1).context("the server does not count commits")?.parse()?)
    }

    async fn bare(&self, shares: Vec<Turns>) -> Result<Vec<Box<dyn Bare>>> {
        let event =
            self.sql("SELECT rest FROM events WHERE kind = 'session.refresh' ORDER BY LENGTH(rest) DESC LIMIT 1");
        let mut clients: Vec<Box<dyn Bare>> = Vec::new();
        for turns in shares {
            let mut connection = Conn::new(Opts::from_url(&self.url(self.port()))?).await?;
            connection.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
            clients.push(Box::new(BareMysql { connection, turns, event: hex(event.as_bytes()) }));
        }
        Ok(clients)
    }
}

struct BareMysql {
    connection: Conn,
    turns: Turns,
    /// In hexadecimal.
    event: String,
}

#[async_trait]
impl Bare for BareMysql {
    async fn refresh(&mut self) -> Result<()> {
        let Move { id, from, to, event, now, idle_expires_at } = self.turns.next();
        let (id, rest) = (hex(&id), &self.event);
        // One packet, so one round trip: prepared, each statement would take one of its own.
        let script = format!(
            "BEGIN;\
             UPDATE sessions SET generation = {}, commitment = X'{}', issued_at = {}, confirmed = 0, \
             idle_expires_at = LEAST({idle_expires_at}, expires_at) WHERE id = X'{id}' AND generation = {} \
             AND commitment = X'{}' AND ended_at IS NULL AND idle_expires_at > {now} AND expires_at > {now};\
             INSERT INTO events (session_id, id, at, kind, outcome, rest) \
             VALUES (X'{id}', X'{}', {now}, 'session.refresh', 'advanced', X'{rest}');\
             SELECT * FROM sessions WHERE id = X'{id}';\
             COMMIT",
            to.0,
            hex(&to.1),
            now / 1000,
            from.0,
            hex(&from.1),
            hex(&event),
        );
        let mut answers = self.connection.query_iter(script).await?;
        answers.collect::<Row>().await?;
        ensure!(answers.affected_rows() == 1, "the bare refresh found no row");
        answers.drop_result().await?;
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
        text
    })
}
