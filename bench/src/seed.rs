//! A store full of sessions, made by the engine itself before the server opens it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rekindle::clock::{Clock, SystemClock};
use rekindle::engine::{Engine, Parts, Settings, StartRequest};
use rekindle::journal::Context;
use rekindle::refresh::{Opening, SecretRing};
use rekindle::revocation_log::NoRevocationLog;
use rekindle::rng::SystemRng;
use rekindle::session::{Client, Scope, Tag};
use rekindle::store::{Permission, Store};
use rekindle_sqlite::SqliteStore;
use serde_json::{Map, json};
use tokio::task::JoinSet;

use crate::users::User;

/// Who issues the tokens: the loader and the server have to agree.
pub const ISSUER: &str = "https://sessions.example";

/// How many starts are under way at once.
const AT_ONCE: usize = 256;

/// A directory for a server.
pub struct DataDir(PathBuf);

impl DataDir {
    /// With fresh secrets.
    pub fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let dir = Self(path);
        fs::write(dir.secrets_file(), SecretRing::generate(1, &SystemRng::default()).as_str())?;
        #[cfg(unix)]
        fs::set_permissions(dir.secrets_file(), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(dir)
    }

    /// One that was created before.
    pub fn existing(path: PathBuf) -> Self {
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The master secrets.
    pub fn secrets_file(&self) -> PathBuf {
        self.0.join("secrets")
    }

    /// The store.
    pub fn database(&self) -> PathBuf {
        self.0.join("rekindle.db")
    }

    /// The master secrets, read.
    pub fn secrets(&self) -> Result<SecretRing> {
        Ok(SecretRing::parse(&fs::read_to_string(self.secrets_file())?)?)
    }

    /// An engine on the store.
    pub async fn engine(&self) -> Result<Engine> {
        let store = Arc::new(SqliteStore::open(self.database(), SystemClock.now())?);
        engine_on(store, self.secrets()?).await
    }
}

/// An engine on any store.
pub async fn engine_on(store: Arc<dyn Store>, secrets: SecretRing) -> Result<Engine> {
    let parts = Parts {
        store,
        revocation_log: Arc::new(NoRevocationLog),
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng::default()),
        secrets,
        settings: Settings::new(ISSUER),
    };
    Ok(Engine::open(parts).await?)
}

/// The scope of every session here.
pub fn scope() -> Scope {
    Scope { product: tag(), env: "dev".parse().expect("a valid name") }
}

fn tag() -> Tag {
    "default".parse().expect("a valid tag")
}

/// Starts `sessions` sessions, every other one committed, and gives the clients of `users` of them, spread evenly; and an
/// API key.
pub async fn load(engine: &Engine, sessions: usize, users: usize) -> Result<(Vec<User>, String)> {
    let ctx =
        Context { request_id: Some("0123456789abcdef-0".into()), actor: Some("loader".into()), ..Context::default() };
    // Longer than any run, so that no known token expires under the measurement.
    let patch = json!({ "access_token": { "lifetime": 7200 } });
    engine.patch_definition(&tag(), &tag(), &patch, &ctx).await?.ok().context("the definition was refused")?;
    let key = api_key(engine).await?;
    make_signing_key(engine).await?;
    let every = sessions.checked_div(users).unwrap_or(1).max(1);
    let mut tasks = JoinSet::new();
    for task in 0..AT_ONCE {
        let (engine, ctx) = (engine.clone(), ctx.clone());
        tasks.spawn(async move {
            let (rng, scope) = (SystemRng::default(), scope());
            let mut started = Vec::new();
            for number in (task..sessions).step_by(AT_ONCE) {
                // By its place among the users, or every other one would be no user.
                let opening = (number / every).is_multiple_of(2).then(|| Opening::draw(&rng));
                let request =
                    StartRequest { commitment: opening.as_ref().map(Opening::commitment), ..start_request(number)? };
                let tokens = engine.start(&scope, request, &ctx).await?;
                if users > 0 && number.is_multiple_of(every) {
                    started.push(User::new(&tokens, opening));
                }
            }
            Ok::<_, anyhow::Error>(started)
        });
    }
    let mut all = Vec::with_capacity(users);
    while let Some(started) = tasks.join_next().await {
        all.extend(started??);
    }
    Ok((all, key))
}

/// Makes an API key for the load.
pub async fn api_key(engine: &Engine) -> Result<String> {
    let permissions = vec![Permission::Sessions, Permission::Metrics];
    let key = engine.create_api_key("bench".into(), permissions, &Context::default()).await?;
    Ok(key.secret.expose().to_owned())
}

/// Starts one session, because a scope's first start makes its signing key: many first ones at once would all make one, and
/// take turns at it.
pub async fn make_signing_key(engine: &Engine) -> Result<()> {
    engine.start(&scope(), start_request(usize::MAX)?, &Context::default()).await?;
    Ok(())
}

/// The request of a user's start.
pub fn start_request(number: usize) -> Result<StartRequest> {
    let data = Map::from_iter([("role".to_owned(), json!("member"))]);
    let client = Client {
        ip: Some("203.0.113.7".into()),
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0".into()),
        device: None,
    };
    let user_id = Some(format!("user-{number:08}").parse()?);
    Ok(StartRequest { data, client, ..StartRequest::new(tag(), user_id) })
}
