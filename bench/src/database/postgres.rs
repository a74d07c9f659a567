//! PostgreSQL, and tokio-postgres.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use rekindle::store::Store;
use rekindle_postgres::{PostgresConfig, PostgresStore};
use rekindle_testkit::servers::postgres::Postgres;
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

use super::{Bare, Database, Step};

/// Durable as PostgreSQL is by itself; room for a connection of each bare client, and memory for a million sessions.
const SETTINGS: [&str; 3] = ["max_connections=400", "shared_buffers=1GB", "max_wal_size=4GB"];
/// The database of the server itself.
const MAINTENANCE: &str = "postgres";

const READ: &str = "SELECT * FROM sessions WHERE id = $1";
// Each of those that write: one round trip, one transaction.
const REFRESH: &str = "
    WITH moved AS (
        UPDATE sessions SET generation = $4, commitment = $5, issued_at = $6 / 1000, confirmed = false,
            idle_expires_at = least($7, expires_at)
        WHERE id = $1 AND generation = $2 AND commitment = $3 AND ended_at IS NULL AND idle_expires_at > $6 AND expires_at > $6
        RETURNING *
    ), journal AS (
        INSERT INTO events (session_id, id, at, kind, outcome, generation, rest)
        SELECT id, $8, $6, 'session.refresh', 'advanced', generation, $9 FROM moved
    )
    SELECT * FROM moved";
const END: &str = "
    WITH ended AS (
        UPDATE sessions SET ended_at = $2, ended_reason = 'signed_out' WHERE id = $1 AND ended_at IS NULL RETURNING *
    ), journal AS (
        INSERT INTO events (session_id, id, at, kind, generation, rest)
        SELECT id, $3, $2, 'session.end', generation, $4 FROM ended
    ), last AS (
        UPDATE feed SET last_seq = greatest(last_seq + 1, $2 * 1000) RETURNING last_seq
    )
    INSERT INTO revocations (seq, scope, session_id, reason, session_expires_at, at, expires_at)
    SELECT last_seq, scope, id, ended_reason, expires_at, ended_at, $5 FROM ended, last";
/// What a started session has in common with another, or nearly.
const COMMON: [&str; 17] = [
    "generation",
    "commitment",
    "issued_at",
    "kid",
    "confirmed",
    "min_generation",
    "idle_expires_at",
    "expires_at",
    "created_at",
    "version",
    "scope",
    "tag",
    "definition_version",
    "auth",
    "client",
    "claims",
    "data",
];

/// A PostgreSQL server.
pub struct PostgresDatabase {
    server: Postgres,
    database: String,
}

impl PostgresDatabase {
    /// Starts one.
    pub fn start() -> Self {
        let server = Postgres::start(&SETTINGS);
        let database = server.new_database();
        Self { server, database }
    }

    /// Carries out a statement in the store's database; what it prints.
    pub fn sql(&self, statement: &str) -> String {
        self.server.sql(&self.database, statement)
    }

    async fn connect(&self) -> Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(self.port()), NoTls).await?;
        // Its end shows as the failure of a statement.
        tokio::spawn(connection);
        client.batch_execute("SET search_path = rekindle; SET plan_cache_mode = force_generic_plan").await?;
        Ok(client)
    }
}

#[async_trait]
impl Database for PostgresDatabase {
    fn name(&self) -> String {
        let version = self.sql("SHOW server_version");
        format!("PostgreSQL {}", version.split(' ').next().unwrap_or_default())
    }

    fn pid(&self) -> Result<u32> {
        let file = self.server.sql(MAINTENANCE, "SELECT pg_read_file('postmaster.pid')");
        Ok(file.lines().next().context("`postmaster.pid` is empty")?.parse()?)
    }

    fn port(&self) -> u16 {
        self.server.port()
    }

    fn url(&self, port: u16) -> String {
        self.server.url_through(port, &self.database)
    }

    async fn store(&self, port: u16) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(PostgresStore::open(PostgresConfig::parse(&self.url(port))?).await?))
    }

    fn set_durable(&self, durable: bool) {
        let value = if durable { "on" } else { "off" };
        self.server.sql(MAINTENANCE, &format!("ALTER SYSTEM SET synchronous_commit = {value}"));
        self.server.sql(MAINTENANCE, "SELECT pg_reload_conf()");
    }

    fn settle(&self) {
        self.sql("VACUUM (ANALYZE)");
        self.sql("CHECKPOINT");
    }

    fn transactions(&self) -> Result<u64> {
        // Each transaction that writes takes a number.
        Ok(self.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())").parse()?)
    }

    async fn bare(&self, clients: usize, refreshed: [u8; 16]) -> Result<Vec<Box<dyn Bare>>> {
        let refreshed = Uuid::from_bytes(refreshed);
        let rest =
            |of: &str| self.sql(&format!("SELECT rest FROM rekindle.events WHERE {of} ORDER BY id DESC LIMIT 1"));
        let rests = Rests {
            refresh: rest(&format!("session_id = '{refreshed}'")),
            start: rest(&format!("session_id = '{refreshed}' AND kind = 'session.start'")),
            end: rest("session_id = (SELECT session_id FROM rekindle.revocations LIMIT 1)"),
        };
        let values = COMMON.map(|column| format!("quote_nullable({column})")).join(", ");
        let start = format!(
            "WITH started AS (INSERT INTO sessions (id, user_id, {}) VALUES ($1, $2, {}) RETURNING id)
             INSERT INTO events (session_id, id, at, kind, generation, rest)
             SELECT id, $3, $4, 'session.start', 0, $5 FROM started",
            COMMON.join(", "),
            self.sql(&format!("SELECT concat_ws(', ', {values}) FROM rekindle.sessions WHERE id = '{refreshed}'"))
        );
        let mut all: Vec<Box<dyn Bare>> = Vec::new();
        for _ in 0..clients {
            let client = self.connect().await?;
            let [read, refresh, start, end] = [READ, REFRESH, &start, END].map(|sql| client.prepare(sql));
            let (read, refresh, start, end) = tokio::try_join!(read, refresh, start, end)?;
            all.push(Box::new(BarePostgres { client, read, refresh, start, end, rests: rests.clone() }));
        }
        Ok(all)
    }
}

/// What events say beyond the columns of their table.
#[derive(Clone)]
struct Rests {
    refresh: String,
    start: String,
    end: String,
}

struct BarePostgres {
    client: Client,
    read: Statement,
    refresh: Statement,
    start: Statement,
    end: Statement,
    rests: Rests,
}

#[async_trait]
impl Bare for BarePostgres {
    async fn read(&mut self, id: &[u8; 16]) -> Result<()> {
        self.client.query_one(&self.read, &[&Uuid::from_bytes(*id)]).await?;
        Ok(())
    }

    async fn refresh(&mut self, step: &Step) -> Result<()> {
        let (id, event) = (Uuid::from_bytes(step.id), Uuid::from_bytes(step.event));
        let (from, to) = (i64::from(step.from.0), i64::from(step.to.0));
        let (before, after, idle) = (&step.from.1[..], &step.to.1[..], step.idle_expires_at());
        let rest = &self.rests.refresh;
        let rows = self
            .client
            .query(&self.refresh, &[&id, &from, &before, &to, &after, &step.now, &idle, &event, rest])
            .await?;
        ensure!(rows.len() == 1, "the bare refresh found no row");
        Ok(())
    }

    async fn start(&mut self, step: &Step) -> Result<()> {
        let (id, event, user) = (Uuid::from_bytes(step.id), Uuid::from_bytes(step.event), step.user_id());
        let rest = &self.rests.start;
        let started = self.client.execute(&self.start, &[&id, &user.as_bytes(), &event, &step.now, rest]).await?;
        ensure!(started == 1, "the bare start wrote no row");
        Ok(())
    }

    async fn end(&mut self, step: &Step) -> Result<()> {
        let (id, event, until) = (Uuid::from_bytes(step.id), Uuid::from_bytes(step.event), step.feed_until());
        let rest = &self.rests.end;
        let ended = self.client.execute(&self.end, &[&id, &step.now, &event, rest, &until]).await?;
        ensure!(ended == 1, "the bare end found no row");
        Ok(())
    }
}
