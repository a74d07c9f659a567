//! From a location to an engine.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rekindle::{
    clock::{Clock, SystemClock},
    engine::{self, Engine, Parts, Settings},
    refresh::{InvalidSecrets, SecretRing},
    revocation_log::FileRevocationLog,
    rng::{Rng, SystemRng},
    store::Store,
};
use rekindle_sqlite::FileError;
use zeroize::Zeroizing;

use crate::{Location, OpenStore, files};

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory cannot be used.
    #[error("{what} `{}`: {source}", path.display())]
    File {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The data directory has no master secrets, and none were given.
    #[error("there are no master secrets `{}`: give them, or let development make them", .0.display())]
    NoSecrets(PathBuf),
    /// A restore replaces the store at the moment, or something uses it that must not.
    #[error("`{}` is in use: {why}", path.display())]
    InUse {
        /// The store.
        path: PathBuf,
        /// By whom.
        why: &'static str,
    },
    /// Root would leave files that the server cannot use.
    #[error(
        "`{}` belongs to the user with the id {owner}: what root writes there, the server cannot use. Run this as that user, like \
         `sudo -u '#{owner}' rekindle …`",
        path.display()
    )]
    Root {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The text of the master secrets is wrong.
    #[error("the master secrets: {0}")]
    Secrets(#[from] InvalidSecrets),
    /// The store's file is wrong.
    #[error(transparent)]
    Sqlite(#[from] FileError),
    /// PostgreSQL cannot be used as a store.
    #[error(transparent)]
    Postgres(#[from] rekindle_postgres::OpenError),
    /// MySQL or MariaDB cannot be used as a store.
    #[error(transparent)]
    Mysql(#[from] rekindle_mysql::OpenError),
    /// Redis cannot be used as a store.
    #[error(transparent)]
    Redis(#[from] rekindle_redis::OpenError),
    /// The engine would harm the store.
    #[error(transparent)]
    Engine(#[from] engine::OpenError),
}

impl OpenError {
    /// With what the file is and where.
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

/// An engine to be opened. [`Embedded::new`] fills in what is usually left out.
pub struct Embedded {
    /// The store.
    pub location: Location,
    /// The directory of the files that are nowhere else.
    pub data_dir: PathBuf,
    /// The master secrets; in the file `secrets` of the data directory, if they are not given.
    pub secrets: Option<SecretRing>,
    /// The revocation log; `revocations.log` in the data directory, if it is not given.
    pub revocation_log: Option<PathBuf>,
    /// Whether the data directory, and a master secret in it, are made where there are none. Whoever loses the secret logs everybody out:
    /// in production somebody has made it and knows where its copy is.
    pub development: bool,
    /// What the engine is told.
    pub settings: Settings,
}

/// An open engine.
pub struct Opened {
    /// What decides.
    pub engine: Engine,
    /// What it decides on. To be kept for as long as the engine works: a file is locked until this goes.
    pub store: OpenStore,
}

impl Embedded {
    /// One whose tokens are from `issuer`, by the engine's defaults.
    pub fn new(location: Location, data_dir: impl Into<PathBuf>, issuer: impl Into<String>) -> Self {
        Self {
            location,
            data_dir: data_dir.into(),
            secrets: None,
            revocation_log: None,
            development: false,
            settings: Settings::new(issuer),
        }
    }

    /// Opens secrets, store and revocation log, and the engine on them.
    pub async fn open(self) -> Result<Opened, OpenError> {
        self.open_with(|store| store).await
    }

    /// The same, with the store as `decorate` makes it.
    pub async fn open_with(self, decorate: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Result<Opened, OpenError> {
        let Self { location, data_dir, secrets, revocation_log, development, settings } = self;
        if development {
            make_development_files(&data_dir, secrets.is_none(), &SystemRng::default())?;
        }
        let secrets = match secrets {
            Some(secrets) => secrets,
            None => read_secrets(&data_dir)?,
        };
        let store = OpenStore::open(&location).await?;
        let log = revocation_log.unwrap_or_else(|| data_dir.join("revocations.log"));
        let revocation_log =
            FileRevocationLog::open(&log, SystemClock.now()).map_err(OpenError::file("the revocation log", log))?;
        let parts = Parts {
            store: decorate(store.shared()),
            revocation_log: Arc::new(revocation_log),
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng::default()),
            secrets,
            settings,
        };
        Ok(Opened { engine: Engine::open(parts).await?, store })
    }
}

/// Makes the data directory and, if it `keeps_secrets`, a master secret in it where there is none.
pub fn make_development_files(data_dir: &Path, keeps_secrets: bool, rng: &dyn Rng) -> Result<(), OpenError> {
    files::private_dir(data_dir)?;
    if keeps_secrets {
        let text = SecretRing::generate(1, rng);
        files::new_private_file(&data_dir.join(SECRETS), &format!("{}\n", *text))?;
    }
    Ok(())
}

/// The file of the master secrets in a data directory.
const SECRETS: &str = "secrets";

fn read_secrets(data_dir: &Path) -> Result<SecretRing, OpenError> {
    let path = data_dir.join(SECRETS);
    match std::fs::read_to_string(&path).map(Zeroizing::new) {
        Ok(text) => Ok(SecretRing::parse(text.trim())?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(OpenError::NoSecrets(path)),
        Err(e) => Err(OpenError::file("the master secrets", path)(e)),
    }
}
