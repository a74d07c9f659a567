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

use super::{Bare, Database, Step};

/// Durable as MariaDB is by itself; room for a connection of each bare client, and memory for a million sessions.
const SETTINGS: [&str; 4] = [
    "max-connections=400",
    "innodb-buffer-pool-size=1G",
    "innodb-log-file-size=1G",
    "innodb-flush-log-at-trx-commit=1",
];
/// The database of the server itself.
const MAINTENANCE: &str = "mysql";

/// What a started session has in common with another, or nearly.
const COMMON: [&str; 17] = [
    "product",
    "env",
    "tag",
    "definition_version",
    "generation",
    "issued_at",
    "kid",
    "confirmed",
    "min_generation",
    "idle_expires_at",
    "expires_at",
    "created_at",
    "version",
    "auth",
    "client",
    "claims",
    "data",
];

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

    async fn bare(&self, clients: usize, refreshed: [u8; 16]) -> Result<Vec<Box<dyn Bare>>> {
        let refreshed = hex(&refreshed);
        let rest = |of: &str| self.sql(&format!("SELECT HEX(rest) FROM events WHERE {of} ORDER BY id DESC LIMIT 1"));
        let values = COMMON.map(|column| format!("QUOTE({column})")).join(", ");
        let template = Template {
            refresh: rest(&format!("session_id = X'{refreshed}'")),
            start: rest(&format!("session_id = X'{refreshed}' AND kind = 'session.start'")),
            end: rest("session_id = (SELECT session_id FROM revocations LIMIT 1)"),
            row: self.sql(&format!("SELECT CONCAT_WS(', ', {values}) FROM sessions WHERE id = X'{refreshed}'")),
        };
        let mut all: Vec<Box<dyn Bare>> = Vec::new();
        for _ in 0..clients {
            let mut connection = Conn::new(Opts::from_url(&self.url(self.port()))?).await?;
            connection.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
            all.push(Box::new(BareMysql { connection, template: template.clone() }));
        }
        Ok(all)
    }
}

/// What is written besides ids and times.
#[derive(Clone)]
struct Template {
    /// What events say beyond the columns of their table, in hexadecimal.
    refresh: String,
    start: String,
    end: String,
    /// The values of [`COMMON`], as literals.
    row: String,
}

struct BareMysql {
    connection: Conn,
    template: Template,
}

impl BareMysql {
    /// Carries out a transaction, in which `write` has to meet a row. One packet, so one round trip: prepared, each statement
    /// would take one of its own.
    async fn transaction(&mut self, write: String, then: String) -> Result<()> {
        let mut answers = self.connection.query_iter(format!("BEGIN;{write};{then};COMMIT")).await?;
        answers.collect::<Row>().await?;
        ensure!(answers.affected_rows() == 1, "the bare driver met no row: {write}");
        answers.drop_result().await?;
        Ok(())
    }
}

#[async_trait]
impl Bare for BareMysql {
    async fn read(&mut self, id: &[u8; 16]) -> Result<()> {
        let rows: Vec<Row> = self.connection.query(format!("SELECT * FROM sessions WHERE id = X'{}'", hex(id))).await?;
        ensure!(rows.len() == 1, "the bare driver met no row");
        Ok(())
    }

    async fn refresh(&mut self, step: &Step) -> Result<()> {
        let Step { from, to, now, .. } = step;
        let (id, event, rest) = (hex(&step.id), hex(&step.event), &self.template.refresh);
        let write = format!(
            "UPDATE sessions SET generation = {}, commitment = X'{}', issued_at = {}, confirmed = 0, \
             idle_expires_at = LEAST({}, expires_at) WHERE id = X'{id}' AND generation = {} \
             AND commitment = X'{}' AND ended_at IS NULL AND idle_expires_at > {now} AND expires_at > {now}",
            to.0,
            hex(&to.1),
            now / 1000,
            step.idle_expires_at(),
            from.0,
            hex(&from.1),
        );
        let then = format!(
            "INSERT INTO events (session_id, id, at, kind, outcome, rest) \
             VALUES (X'{id}', X'{event}', {now}, 'session.refresh', 'advanced', X'{rest}');\
             SELECT * FROM sessions WHERE id = X'{id}'"
        );
        self.transaction(write, then).await
    }

    async fn start(&mut self, step: &Step) -> Result<()> {
        let (id, event, now, Template { start, row, .. }) = (hex(&step.id), hex(&step.event), step.now, &self.template);
        let write = format!(
            "INSERT INTO sessions (id, user_id, commitment, {}) VALUES (X'{id}', '{}', X'{}', {row})",
            COMMON.join(", "),
            step.user_id(),
            hex(&step.to.1),
        );
        let then = format!(
            "INSERT INTO events (session_id, id, at, kind, rest) \
             VALUES (X'{id}', X'{event}', {now}, 'session.start', X'{start}')"
        );
        self.transaction(write, then).await
    }

    async fn end(&mut self, step: &Step) -> Result<()> {
        let (id, event, now, rest) = (hex(&step.id), hex(&step.event), step.now, &self.template.end);
        let write = format!(
            "UPDATE sessions SET ended_at = {now}, ended_reason = 'signed_out' WHERE id = X'{id}' AND ended_at IS NULL"
        );
        let then = format!(
            "INSERT INTO events (session_id, id, at, kind, rest) \
             VALUES (X'{id}', X'{event}', {now}, 'session.end', X'{rest}');\
             UPDATE feed SET last_seq = GREATEST(last_seq + 1, {now} * 1000) WHERE id = 1;\
             INSERT INTO revocations (seq, product, env, session_id, reason, session_expires_at, at, expires_at) \
             SELECT last_seq, product, env, s.id, ended_reason, s.expires_at, ended_at, {} FROM sessions s, feed \
             WHERE s.id = X'{id}'",
            step.feed_until(),
        );
        self.transaction(write, then).await
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
        text
    })
}
