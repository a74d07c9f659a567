//! The store that a URL names.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rekindle::{
    clock::{Clock, SystemClock},
    store::{Check, Migration, Store, StoreResult, Transfer},
};
use rekindle_mysql::{MysqlConfig, MysqlStore};
use rekindle_postgres::{PostgresConfig, PostgresStore};
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_sqlite::SqliteStore;

use crate::{OpenError, StoreLock, files};

/// Where a store is.
#[derive(Clone)]
pub enum Location {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// PostgreSQL, or what speaks its protocol.
    Postgres(PostgresConfig),
    /// MySQL or MariaDB.
    Mysql(MysqlConfig),
    /// Redis or Valkey: one, behind Sentinels, or a Cluster.
    Redis(RedisConfig),
}

impl Location {
    /// Reads `sqlite:<path>` (without a path, `rekindle.db` in `data_dir`), `postgres://…`, `mysql://…`, `mariadb://…`, `redis://…`,
    /// `rediss://…`, and either with `+sentinel` or `+cluster`. The error does not repeat the URL, which may carry a password.
    pub fn parse(url: &str, data_dir: &Path) -> Result<Self, String> {
        let (scheme, rest) = url.split_once(':').unwrap_or_default();
        match scheme {
            "sqlite" if rest.is_empty() => Ok(Self::Sqlite(data_dir.join(FILE))),
            "sqlite" => Ok(Self::Sqlite(rest.into())),
            "postgres" | "postgresql" => PostgresConfig::parse(url).map(Self::Postgres).map_err(text),
            "mysql" | "mariadb" => MysqlConfig::parse(url).map(Self::Mysql).map_err(text),
            _ if scheme.starts_with("redis") => RedisConfig::parse(url).map(Self::Redis).map_err(text),
            _ => Err("must begin with `sqlite:`, `postgres://`, `mysql://`, `redis://`, `rediss://`, `redis+sentinel://` or \
                      `redis+cluster://`"
                .into()),
        }
    }
}

/// A SQLite file that has no name.
const FILE: &str = "rekindle.db";

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

/// An open store; a file is locked against being replaced for as long as it is open.
pub struct OpenStore {
    kind: Kind,
    store: Arc<dyn Transfer>,
    // Last, so that the file is closed when the lock goes.
    _lock: Option<StoreLock>,
}

enum Kind {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
    Mysql(Arc<MysqlStore>),
    Redis(Arc<RedisStore>),
}

impl OpenStore {
    /// Opens the store, making or migrating it where that is needed; for a file, its directory, too.
    pub async fn open(location: &Location) -> Result<Self, OpenError> {
        Self::open_with(location, StoreLock::shared).await
    }

    /// As [`OpenStore::open`], of a file only if nobody else works on it, nor will for as long as this is open.
    pub async fn open_alone(location: &Location) -> Result<Self, OpenError> {
        Self::open_with(location, StoreLock::exclusive).await
    }

    async fn open_with(
        location: &Location,
        lock: fn(&Path) -> Result<StoreLock, OpenError>,
    ) -> Result<Self, OpenError> {
        let kind = match location {
            Location::Sqlite(path) => {
                if let Some(directory) = path.parent() {
                    files::private_dir(directory)?;
                }
                let lock = lock(path)?;
                // SQLite gives the files beside it the same permissions.
                files::new_private_file(path, "")?;
                let sqlite = SqliteStore::open(path, SystemClock.now())?;
                return Ok(Self::of(Kind::Sqlite(Arc::new(sqlite)), Some(lock)));
            }
            Location::Postgres(config) => Kind::Postgres(Arc::new(PostgresStore::open(config.clone()).await?)),
            Location::Mysql(config) => {
                Kind::Mysql(Arc::new(MysqlStore::open(config.clone(), SystemClock.now()).await?))
            }
            Location::Redis(config) => Kind::Redis(Arc::new(RedisStore::open(config.clone()).await?)),
        };
        Ok(Self::of(kind, None))
    }

    fn of(kind: Kind, lock: Option<StoreLock>) -> Self {
        let store: Arc<dyn Transfer> = match &kind {
            Kind::Sqlite(store) => store.clone(),
            Kind::Postgres(store) => store.clone(),
            Kind::Mysql(store) => store.clone(),
            Kind::Redis(store) => store.clone(),
        };
        Self { kind, store, _lock: lock }
    }

    /// The migrations that [`OpenStore::open`] would apply, in their order. Changes nothing.
    pub async fn pending(location: &Location) -> Result<Vec<Migration>, OpenError> {
        Ok(match location {
            Location::Sqlite(path) => SqliteStore::pending(path)?,
            Location::Postgres(config) => PostgresStore::pending(config).await?,
            Location::Mysql(config) => MysqlStore::pending(config).await?,
            Location::Redis(config) => RedisStore::pending(config.clone()).await?,
        })
    }

    /// How the servers that keep the store are set; nothing of a file.
    pub async fn checks(&self) -> StoreResult<Vec<Check>> {
        match &self.kind {
            Kind::Sqlite(_) => Ok(Vec::new()),
            Kind::Postgres(store) => store.checks().await,
            Kind::Mysql(store) => store.checks().await,
            Kind::Redis(store) => Ok(store.checks().await),
        }
    }

    /// The store.
    pub fn store(&self) -> &dyn Transfer {
        &*self.store
    }

    /// The same, to be kept. A file stays locked only for as long as this is open.
    pub fn shared(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// The store, if it is a file.
    pub fn sqlite(&self) -> Option<&Arc<SqliteStore>> {
        match &self.kind {
            Kind::Sqlite(store) => Some(store),
            Kind::Postgres(_) | Kind::Mysql(_) | Kind::Redis(_) => None,
        }
    }
}
