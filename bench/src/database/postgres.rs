//! PostgreSQL, and tokio-postgres.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use rekindle::store::Store;
use rekindle_postgres::{PostgresConfig, PostgresStore};
use rekindle_testkit::servers::postgres::Postgres;
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

use super::{Bare, Database, Turns};

/// Durable as PostgreSQL is by itself; room for a connection of each bare client, and memory for a million sessions.
const SETTINGS: [&str; 3] = ["max_connections=400", "shared_buffers=1GB", "max_wal_size=4GB"];
/// The database of the server itself.
const MAINTENANCE: &str = "postgres";

/// One round trip, one transaction, the row given back.
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

    async fn bare(&self, shares: Vec<Turns>) -> Result<Vec<Box<dyn Bare>>> {
        let event = self
            .sql("SELECT rest FROM rekindle.events WHERE kind = 'session.refresh' ORDER BY length(rest) DESC LIMIT 1");
        let mut clients: Vec<Box<dyn Bare>> = Vec::new();
        for turns in shares {
            let client = self.connect().await?;
            let refresh = client.prepare(REFRESH).await?;
            clients.push(Box::new(BarePostgres { client, refresh, turns, event: event.clone() }));
        }
        Ok(clients)
    }
}

struct BarePostgres {
    client: Client,
    refresh: Statement,
    turns: Turns,
    event: String,
}

#[async_trait]
impl Bare for BarePostgres {
    async fn refresh(&mut self) -> Result<()> {
        let next = self.turns.next();
        let (id, event) = (Uuid::from_bytes(next.id), Uuid::from_bytes(next.event));
        let (from, to) = (i64::from(next.from.0), i64::from(next.to.0));
        let (before, after) = (&next.from.1[..], &next.to.1[..]);
        let rows = self
            .client
            .query(
                &self.refresh,
                &[&id, &from, &before, &to, &after, &next.now, &next.idle_expires_at, &event, &self.event],
            )
            .await?;
        ensure!(rows.len() == 1, "the bare refresh found no row");
        Ok(())
    }
}
