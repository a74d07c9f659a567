//! The schema: its migrations, and what can be wrong with a database.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use deadpool_postgres::{Object, PoolError};
use rekindle::definition::Definition;
use rekindle::store::Migration;
use tokio_postgres::error::SqlState;

use crate::config::PostgresConfig;
use crate::database::{Database, describe};

/// How often a migration is begun while another process is at it.
const TRIES: u32 = 10;
/// The pause between two of them.
const PAUSE: Duration = Duration::from_millis(50);

/// With their statements.
const MIGRATIONS: &[(Migration, &str)] =
    &[(Migration { version: 1, name: "initial" }, include_str!("../migrations/0001_initial.sql"))];

fn checksum(statements: &str) -> Vec<u8> {
    digest(&SHA256, statements.as_bytes()).as_ref().into()
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used.
    #[error("the database URL is wrong: {problem}; give one like `postgres://user:password@host:5432/database`")]
    Url {
        /// Which part of it, and why.
        problem: String,
    },
    /// There is no connection.
    #[error("cannot connect to `{server}`: {problem}; {advice}")]
    Connect {
        /// The URL without its password.
        server: String,
        /// What went wrong.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// The server refused a statement.
    #[error("`{server}` refused to {action}: {problem}; {advice}")]
    Refused {
        /// The URL without its password.
        server: String,
        /// What was tried.
        action: String,
        /// What the server said.
        problem: String,
        /// What to do.
        advice: String,
    },
    /// The database cannot hold every text.
    #[error("the database of `{server}` is encoded in {encoding}; give one that was made with `ENCODING 'UTF8'`")]
    Encoding {
        /// The URL without its password.
        server: String,
        /// Its encoding.
        encoding: String,
    },
    /// A newer Rekindle has migrated it.
    #[error(
        "schema `{schema}` of `{server}` has version {found}, this Rekindle knows versions up to {known}; run a newer Rekindle"
    )]
    Newer {
        /// The URL without its password.
        server: String,
        /// The schema's name.
        schema: String,
        /// Its version.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// A migration that was applied is not the one that this build has.
    #[error(
        "schema `{schema}` of `{server}` was migrated by another text of migration {version} (`{name}`); use the build that did it"
    )]
    ChangedMigration {
        /// The URL without its password.
        server: String,
        /// The schema's name.
        schema: String,
        /// The migration's number.
        version: i64,
        /// Its name.
        name: String,
    },
}

impl OpenError {
    /// There is no connection, because of this.
    pub(crate) fn connect(config: &PostgresConfig, error: &PoolError) -> Self {
        let (problem, code) = match error {
            PoolError::Backend(error) => (describe(error), error.code()),
            other => (other.to_string(), None),
        };
        let advice = match code {
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                "check the user and the password in the URL"
            }
            Some(&SqlState::INVALID_CATALOG_NAME) => "make the database, or name another one in the URL",
            Some(&SqlState::TOO_MANY_CONNECTIONS) => "raise the server's `max_connections`, or lower `pool_size`",
            Some(&SqlState::CANNOT_CONNECT_NOW) => "wait until the server has started",
            _ => "check host and port in the URL, that the server runs and takes writes, and `sslmode`",
        };
        Self::Connect { server: config.to_string(), problem, advice }
    }
}

/// The database while it is opened.
pub(crate) struct Opening<'c> {
    config: &'c PostgresConfig,
    /// Not lent to anybody else, and closed at the end: it has settings of its own.
    client: deadpool_postgres::ClientWrapper,
}

impl<'c> Opening<'c> {
    pub(crate) async fn connect(config: &'c PostgresConfig, database: &Database) -> Result<Self, OpenError> {
        let connection = database.pool.get().await.map_err(|error| OpenError::connect(config, &error))?;
        let opening = Self { config, client: Object::take(connection) };
        // A migration takes as long as it takes.
        opening
            .execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0", "take settings")
            .await?;
        let encoding = opening.client.query_one("SHOW server_encoding", &[]).await;
        let encoding: String = encoding.map_err(|error| opening.refused(&error, "tell its encoding"))?.get(0);
        if encoding != "UTF8" {
            return Err(OpenError::Encoding { server: config.to_string(), encoding });
        }
        Ok(opening)
    }

    /// The migrations that are still to be applied.
    pub(crate) async fn pending(&self) -> Result<&'static [(Migration, &'static str)], OpenError> {
        let found = if self.has_table("migrations").await? { self.checked_version().await? } else { 0 };
        Ok(&MIGRATIONS[usize::try_from(found).unwrap_or(0)..])
    }

    /// Applies what is pending. Of several processes that open a database at once, one migrates and the others find it done.
    pub(crate) async fn migrate(&self) -> Result<(), OpenError> {
        for last in (0..TRIES).map(|i| i + 1 == TRIES) {
            // Without a statement that a role without the right to make tables may not carry out.
            if self.pending().await?.is_empty() {
                return Ok(());
            }
            match self.try_migrate().await {
                Ok(()) => return Ok(()),
                Err(Broken::Contended(_)) if !last => {
                    self.roll_back().await;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Broken::Contended(error) | Broken::Refused(error)) => {
                    self.roll_back().await;
                    return Err(error);
                }
            }
        }
        unreachable!("the last try returns")
    }

    async fn try_migrate(&self) -> Result<(), Broken> {
        let schema = self.config.schema();
        if !self.has_schema().await? {
            self.try_execute(
                &format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""),
                &format!("make the schema `{schema}`"),
            )
            .await?;
        }
        let tables = "make tables";
        self.try_execute(
            "CREATE TABLE IF NOT EXISTS migrations (version bigint PRIMARY KEY, name text NOT NULL, checksum bytea NOT NULL);
             INSERT INTO migrations (version, name, checksum) VALUES (0, 'lock', '') ON CONFLICT DO NOTHING",
            tables,
        )
        .await?;
        // A row's lock, because not everything that speaks PostgreSQL's protocol has locks of tables or of numbers.
        self.try_execute("BEGIN; SELECT version FROM migrations WHERE version = 0 FOR UPDATE", tables).await?;
        for (migration, statements) in self.pending().await? {
            self.try_execute(statements, tables).await?;
            if migration.version == 1 {
                self.seed().await.map_err(|error| self.broken(&error, "write the first rows"))?;
            }
            let sql = "INSERT INTO migrations (version, name, checksum) VALUES ($1, $2, $3)";
            self.client
                .execute(sql, &[&i64::from(migration.version), &migration.name, &checksum(statements)])
                .await
                .map_err(|error| self.broken(&error, tables))?;
        }
        self.try_execute("COMMIT", tables).await
    }

    /// What every new store begins with: product `default`, its environment `dev` and its definition `default`.
    async fn seed(&self) -> Result<(), tokio_postgres::Error> {
        let definition = Definition::default_for("default".parse().expect("a valid tag"));
        let longest_access = definition.access_token.lifetime.seconds().0.cast_signed();
        let definition = crate::transaction::json(&definition);
        let sql = "INSERT INTO products (tag, name, longest_access) VALUES ('default', '\"Default\"', $1) ON CONFLICT DO NOTHING";
        self.client.execute(sql, &[&longest_access]).await?;
        self.client
            .batch_execute(
                "INSERT INTO environments (product, slug, name, active) VALUES ('default', 'dev', '\"Development\"', true)
                     ON CONFLICT DO NOTHING;
                 INSERT INTO definitions (product, tag, current) VALUES ('default', 'default', 1) ON CONFLICT DO NOTHING",
            )
            .await?;
        let sql =
            "INSERT INTO definition_versions (product, tag, version, definition) VALUES ('default', 'default', 1, $1)
                   ON CONFLICT DO NOTHING";
        self.client.execute(sql, &[&definition]).await?;
        Ok(())
    }

    /// The schema's version, if it is not newer than this build, and was made as this build would have done.
    async fn checked_version(&self) -> Result<i64, OpenError> {
        let sql = "SELECT version, name, checksum FROM migrations WHERE version > 0 ORDER BY version";
        let rows = self.client.query(sql, &[]).await.map_err(|error| self.refused(&error, "read its version"))?;
        let (server, schema) = (self.config.to_string(), self.config.schema().to_owned());
        let known = MIGRATIONS.len() as i64;
        let found = rows.last().map_or(0, |row| row.get("version"));
        if found > known {
            return Err(OpenError::Newer { server, schema, found, known });
        }
        for row in rows {
            let version: i64 = row.get("version");
            let migration = usize::try_from(version - 1).ok().and_then(|i| MIGRATIONS.get(i));
            if migration.map(|(_, statements)| checksum(statements)) != Some(row.get("checksum")) {
                return Err(OpenError::ChangedMigration { server, schema, version, name: row.get("name") });
            }
        }
        Ok(found)
    }

    async fn has_schema(&self) -> Result<bool, OpenError> {
        let sql = "SELECT 1 FROM information_schema.schemata WHERE schema_name = $1";
        let rows = self.client.query(sql, &[&self.config.schema()]).await;
        Ok(!rows.map_err(|error| self.refused(&error, "list its schemas"))?.is_empty())
    }

    async fn has_table(&self, name: &str) -> Result<bool, OpenError> {
        let sql = "SELECT 1 FROM information_schema.tables WHERE table_schema = $1 AND table_name = $2";
        let rows = self.client.query(sql, &[&self.config.schema(), &name]).await;
        Ok(!rows.map_err(|error| self.refused(&error, "list its tables"))?.is_empty())
    }

    async fn execute(&self, sql: &str, action: &str) -> Result<(), OpenError> {
        self.client.batch_execute(sql).await.map_err(|error| self.refused(&error, action))
    }

    async fn try_execute(&self, sql: &str, action: &str) -> Result<(), Broken> {
        self.client.batch_execute(sql).await.map_err(|error| self.broken(&error, action))
    }

    async fn roll_back(&self) {
        // If even this fails, the connection is gone, and the transaction with it.
        let _ = self.client.batch_execute("ROLLBACK").await;
    }

    fn broken(&self, error: &tokio_postgres::Error, action: &str) -> Broken {
        let refused = self.refused(error, action);
        match error.code() {
            // Two that make one thing at once.
            Some(
                &SqlState::UNIQUE_VIOLATION
                | &SqlState::DUPLICATE_OBJECT
                | &SqlState::DUPLICATE_TABLE
                | &SqlState::DUPLICATE_SCHEMA
                | &SqlState::T_R_SERIALIZATION_FAILURE
                | &SqlState::T_R_DEADLOCK_DETECTED,
            ) => Broken::Contended(refused),
            _ => Broken::Refused(refused),
        }
    }

    fn refused(&self, error: &tokio_postgres::Error, action: &str) -> OpenError {
        let schema = self.config.schema();
        let advice = match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => format!(
                "let its administrator run `CREATE SCHEMA {schema} AUTHORIZATION …`, or grant the role USAGE and CREATE on \
                 the schema `{schema}` and all rights on its tables"
            ),
            Some(&SqlState::DISK_FULL) => "make room on its disk".into(),
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => "give the URL of the primary".into(),
            _ => "see the server's log".into(),
        };
        OpenError::Refused { server: self.config.to_string(), action: action.into(), problem: describe(error), advice }
    }
}

/// Why a migration broke off.
enum Broken {
    /// Another process was at it.
    Contended(OpenError),
    Refused(OpenError),
}

impl From<OpenError> for Broken {
    fn from(error: OpenError) -> Self {
        Self::Refused(error)
    }
}
