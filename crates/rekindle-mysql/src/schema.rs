//! The database: what makes it ours, its migrations, and why it could not be opened.
//!
//! DDL commits by itself in this engine, on every node of a cluster in the same order, and `GET_LOCK` is unknown to the
//! other nodes. So a migration is guarded by a row that tells until when somebody is at work; each of its statements
//! may be carried out again; and that it was applied is written last, with the rows that it brings.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rekindle::clock::{Seconds, Timestamp};
use rekindle::store::{Migration, StoreError};
use tokio::time::{Instant, sleep};

use crate::config::{InvalidUrl, MysqlConfig};
use crate::configuration::seed;
use crate::pool::Pool;
use crate::row::{Answers, Cells, Table};
use crate::sql::{Script, sql};

const MIGRATIONS: &[(Migration, &str)] =
    &[(Migration { version: 1, name: "initial" }, include_str!("../migrations/0001_initial.sql"))];

/// The oldest servers that have what the statements need (`SKIP LOCKED`).
const OLDEST_MARIADB: (u16, u16, u16) = (10, 6, 0);
const OLDEST_MYSQL: (u16, u16, u16) = (8, 0, 1);

/// How long a migration may take.
const LIMIT: Duration = Duration::from_secs(540);
/// For how long it is claimed: longer. A claim whose owner died is free after that.
const CLAIM: Seconds = Seconds(600);
/// How long another's migration is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether another's migration is done.
const POLL: Duration = Duration::from_millis(100);

const GUARD: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS rekindle_migrations (version INT UNSIGNED NOT NULL PRIMARY KEY, name VARCHAR(64) NOT NULL,
     checksum BINARY(32) NOT NULL, applied_at BIGINT NOT NULL) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4
     COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS rekindle_migration_lock (id TINYINT UNSIGNED NOT NULL PRIMARY KEY,
     claimed_until BIGINT NOT NULL) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "INSERT IGNORE INTO rekindle_migration_lock (id, claimed_until) VALUES (1, 0)",
];

const TABLES: Table = Table { name: "information_schema.tables", columns: &["table_name"], id: 0 };
const APPLIED: Table = Table { name: "rekindle_migrations", columns: &["version", "checksum"], id: 0 };

/// Statements that change nothing, but need each right that the store needs, and a server that takes writes.
const PROBE: [&str; 4] = [
    "INSERT INTO outbox SELECT * FROM outbox WHERE 1 = 0",
    "UPDATE feed SET last_seq = last_seq WHERE id = 1",
    "DELETE FROM outbox WHERE 1 = 0",
    "SELECT version FROM config WHERE id = 1",
];

/// Why a database could not be opened. No message holds a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not one.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// There is no connection.
    #[error("`{url}` cannot be reached: {problem}; check host, port and firewall, and that the server runs")]
    Unreachable {
        /// Which.
        url: String,
        /// What the system says.
        problem: String,
    },
    /// The server does not let the user in, or not into this database.
    #[error("`{url}` refuses the user: {problem}; check user and password, and that the user may use the database")]
    AccessDenied {
        /// Which.
        url: String,
        /// What the server says.
        problem: String,
    },
    /// There is no such database.
    #[error("`{url}` has no such database; make it: CREATE DATABASE `{database}`")]
    NoDatabase {
        /// Which.
        url: String,
        /// Its name.
        database: String,
    },
    /// A right is missing.
    #[error(
        "`{url}`: {problem}; the user needs SELECT, INSERT, UPDATE and DELETE on the database, and to migrate also CREATE, \
         ALTER, INDEX and REFERENCES"
    )]
    MissingPrivilege {
        /// Which.
        url: String,
        /// What the server says.
        problem: String,
    },
    /// It takes no writes.
    #[error("`{url}` takes no writes: {problem}; give the address of the primary")]
    ReadOnly {
        /// Which.
        url: String,
        /// What the server says.
        problem: String,
    },
    /// The server is too old.
    #[error("`{url}` runs version {found}; MariaDB 10.6 or MySQL 8.0.1 is needed, or a later one")]
    TooOld {
        /// Which.
        url: String,
        /// Its version.
        found: String,
    },
    /// The database belongs to something else.
    #[error("`{url}` has tables that are not Rekindle's, like `{table}`; give the name of an empty database")]
    NotRekindle {
        /// Which.
        url: String,
        /// One of the tables.
        table: String,
    },
    /// A newer Rekindle has migrated it.
    #[error("`{url}` has schema version {found}, this Rekindle knows versions up to {known}; run a newer Rekindle")]
    Newer {
        /// Which.
        url: String,
        /// Its schema version.
        found: u32,
        /// The newest that this build knows.
        known: u32,
    },
    /// A migration that was applied is not the one that this build has.
    #[error("`{url}` was migrated by another text of migration {version}; use the build that did it")]
    ChangedMigration {
        /// Which.
        url: String,
        /// The migration's number.
        version: u32,
    },
    /// Another process is migrating it, or died while it did.
    #[error("`{url}` is being migrated by another process; try again when it is done, or in ten minutes if it died")]
    Migrating {
        /// Which.
        url: String,
    },
    /// The server refused something else.
    #[error("`{url}`: {problem}")]
    Database {
        /// Which.
        url: String,
        /// What it says.
        problem: String,
    },
}

impl OpenError {
    pub(crate) fn of(config: &MysqlConfig) -> impl Fn(mysql_async::Error) -> Self {
        move |error| {
            let (url, problem) = (config.to_string(), error.to_string());
            let code = if let mysql_async::Error::Server(error) = &error { error.code } else { 0 };
            match code {
                0 => Self::Unreachable { url, problem },
                1044 | 1045 | 1251 | 1698 => Self::AccessDenied { url, problem },
                1049 => Self::NoDatabase { url, database: config.database().into() },
                1142 | 1143 | 1227 | 1370 => Self::MissingPrivilege { url, problem },
                1036 | 1290 | 1792 | 1836 => Self::ReadOnly { url, problem },
                _ => Self::Database { url, problem },
            }
        }
    }
}

/// Makes sure that the database has the newest schema and can be written.
pub(crate) async fn prepare(pool: &Pool, config: &MysqlConfig, now: Timestamp) -> Result<(), OpenError> {
    let schema = Schema { pool, config };
    schema.check_version().await?;
    if !schema.pending().await?.is_empty() {
        schema.ask(GUARD.map(String::from).to_vec()).await?;
        schema.migrate(now).await?;
    }
    schema.ask(PROBE.map(String::from).to_vec()).await.map(drop)
}

/// The migrations that [`prepare`] would apply. Changes nothing.
pub(crate) async fn pending(pool: &Pool, config: &MysqlConfig) -> Result<Vec<Migration>, OpenError> {
    let schema = Schema { pool, config };
    schema.check_version().await?;
    Ok(schema.pending().await?.iter().map(|(migration, _)| *migration).collect())
}

/// A database whose schema is worked on.
struct Schema<'p> {
    pool: &'p Pool,
    config: &'p MysqlConfig,
}

impl Schema<'_> {
    async fn check_version(&self) -> Result<(), OpenError> {
        let found = self.pool.server_version().await.map_err(OpenError::of(self.config))?;
        // MariaDB counts from 10.
        if found < OLDEST_MYSQL || (found.0 >= 10 && found < OLDEST_MARIADB) {
            let found = format!("{}.{}.{}", found.0, found.1, found.2);
            return Err(OpenError::TooOld { url: self.config.to_string(), found });
        }
        Ok(())
    }

    async fn ask(&self, script: Script) -> Result<Answers, OpenError> {
        self.pool.prepare(&script, LIMIT).await.map_err(OpenError::of(self.config))
    }

    /// Carries out statements in a transaction.
    async fn write(&self, script: Script) -> Result<Answers, OpenError> {
        let write = || async { self.pool.begin().await?.commit(script.clone()).await };
        self.pool.retry(write).await.map_err(|error| self.refused(&error))
    }

    /// What is still to be applied to a database that is ours or empty.
    async fn pending(&self) -> Result<&'static [(Migration, &'static str)], OpenError> {
        let url = self.config.to_string();
        let corrupt = |error: StoreError| self.refused(&error);
        let tables =
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY table_name";
        let tables =
            self.ask(vec![tables.into()]).await?.all(&TABLES, |row| row.text("table_name")).map_err(corrupt)?;
        if !tables.iter().any(|table| table == APPLIED.name) {
            return match tables.into_iter().next() {
                Some(table) => Err(OpenError::NotRekindle { url, table }),
                None => Ok(MIGRATIONS),
            };
        }
        let applied = self.ask(vec![format!("{} ORDER BY version", APPLIED.select())]).await?;
        let read = |row: &mut Cells| Ok((row.parsed::<u32>("version")?, row.blob("checksum")?));
        let applied = { applied }.all(&APPLIED, read).map_err(corrupt)?;
        if applied.len() > MIGRATIONS.len() {
            let (found, known) = (applied.len() as u32, MIGRATIONS.len() as u32);
            return Err(OpenError::Newer { url, found, known });
        }
        for ((migration, text), (version, known)) in MIGRATIONS.iter().zip(&applied) {
            if (migration.version, checksum(text).as_slice()) != (*version, known.as_slice()) {
                return Err(OpenError::ChangedMigration { url, version: migration.version });
            }
        }
        Ok(&MIGRATIONS[applied.len()..])
    }

    /// Applies what is pending, one process at a time.
    async fn migrate(&self, now: Timestamp) -> Result<(), OpenError> {
        let began = Instant::now();
        loop {
            let now = now + Seconds(began.elapsed().as_secs());
            let until = now + CLAIM;
            let claim = "UPDATE rekindle_migration_lock SET claimed_until = ? WHERE id = 1 AND claimed_until <= ?";
            let release = "UPDATE rekindle_migration_lock SET claimed_until = 0 WHERE id = 1 AND claimed_until = ?";
            let claimed = self.write(vec![sql!(claim, until, now)]).await?.affected[0] == 1;
            let pending = self.pending().await?;
            if claimed {
                for (migration, text) in pending {
                    self.apply(*migration, text, now).await?;
                }
                self.write(vec![sql!(release, until)]).await?;
                return Ok(());
            }
            if pending.is_empty() {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(OpenError::Migrating { url: self.config.to_string() });
            }
            sleep(POLL).await;
        }
    }

    fn refused(&self, error: &StoreError) -> OpenError {
        OpenError::Database { url: self.config.to_string(), problem: error.to_string() }
    }

    async fn apply(&self, migration: Migration, text: &str, now: Timestamp) -> Result<(), OpenError> {
        self.ask(statements(text)).await?;
        let mut script = if migration.version == 1 { seed() } else { Script::new() };
        let sql = "INSERT INTO rekindle_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, ?)";
        script.push(sql!(sql, migration.version, migration.name, checksum(text).as_slice(), now));
        self.write(script).await.map(drop)
    }
}

/// The statements of a migration's text: each ends with `;` at the end of a line.
fn statements(text: &str) -> Script {
    let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
    let parts = without_comments.join("\n");
    parts.split(";\n").map(|s| s.trim().trim_end_matches(';').to_owned()).filter(|s| !s.is_empty()).collect()
}

fn checksum(text: &str) -> Vec<u8> {
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}
