//! The store that a configuration names.

use std::{path::Path, sync::Arc};

use rekindle::{
    clock::{Clock, SystemClock},
    store::{Check, Migration, Store, StoreResult, Transfer},
};
use rekindle_mysql::{MysqlConfig, MysqlStore};
use rekindle_postgres::{PostgresConfig, PostgresStore};
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_sqlite::SqliteStore;

use super::{StartError, StoreLock, files};
use crate::{
    config::{Config, StoreUrl},
    metrics::CommitCounts,
};

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

/// Why a URL can be parsed.
const PARSED: &str = "it was, when the configuration was read";

impl OpenStore {
    /// Opens the store, making or migrating it where that is needed; for a file, its directory, too.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        Self::open_with(config, StoreLock::shared).await
    }

    /// As [`OpenStore::open`], of a file only if nobody else works on it, nor will for as long as this is open.
    pub async fn open_alone(config: &Config) -> Result<Self, StartError> {
        Self::open_with(config, StoreLock::exclusive).await
    }

    async fn open_with(config: &Config, lock: fn(&Path) -> Result<StoreLock, StartError>) -> Result<Self, StartError> {
        let kind = match &config.store {
            StoreUrl::Sqlite(_) => {
                let path = config.sqlite_path().expect("it is one");
                if let Some(directory) = path.parent() {
                    files::private_dir(directory)?;
                }
                let lock = lock(&path)?;
                // SQLite gives the files beside it the same permissions.
                files::new_private_file(&path, "")?;
                let sqlite = SqliteStore::open(&path, SystemClock.now())?;
                return Ok(Self::of(Kind::Sqlite(Arc::new(sqlite)), Some(lock)));
            }
            StoreUrl::Postgres(url) => {
                let config = PostgresConfig::parse(url.expose()).expect(PARSED);
                Kind::Postgres(Arc::new(PostgresStore::open(config).await?))
            }
            StoreUrl::Mysql(url) => {
                let config = MysqlConfig::parse(url.expose()).expect(PARSED);
                Kind::Mysql(Arc::new(MysqlStore::open(config, SystemClock.now()).await?))
            }
            StoreUrl::Redis(url) => {
                let config = RedisConfig::parse(url.expose()).expect(PARSED);
                Kind::Redis(Arc::new(RedisStore::open(config).await?))
            }
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
    pub async fn pending(config: &Config) -> Result<Vec<Migration>, StartError> {
        Ok(match &config.store {
            StoreUrl::Sqlite(_) => SqliteStore::pending(config.sqlite_path().expect("it is one"))?,
            StoreUrl::Postgres(url) => {
                PostgresStore::pending(&PostgresConfig::parse(url.expose()).expect(PARSED)).await?
            }
            StoreUrl::Mysql(url) => MysqlStore::pending(&MysqlConfig::parse(url.expose()).expect(PARSED)).await?,
            StoreUrl::Redis(url) => RedisStore::pending(RedisConfig::parse(url.expose()).expect(PARSED)).await?,
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
    pub fn sqlite(&self) -> Option<&SqliteStore> {
        match &self.kind {
            Kind::Sqlite(store) => Some(store),
            Kind::Postgres(_) | Kind::Mysql(_) | Kind::Redis(_) => None,
        }
    }

    /// What tells how many transactions were committed, and how many writes they carried, where the store counts them.
    pub(super) fn commit_counts(&self) -> Option<CommitCounts> {
        match &self.kind {
            Kind::Sqlite(store) => {
                let store = store.clone();
                Some(Box::new(move || store.committed()))
            }
            Kind::Postgres(_) | Kind::Mysql(_) | Kind::Redis(_) => None,
        }
    }
}
