//! Rekindle's store on Redis 7 and Valkey: one server, Sentinel, or a cluster.
//!
//! # Layout
//!
//! Every key is `prefix:{tag}:part`; what is between braces decides the slot. The layout is the same everywhere.
//!
//! | tag | keys | |
//! |---|---|---|
//! | `s:<session id>` | `row` (hash), `events` (stream), `late` (sorted set) | one session |
//! | `u:<hash of scope and user id>` | `user` (hash), `sessions` (sorted set), `starts` (hash), `key:<idempotency key>` | one user: its ban, its sessions' ids, its starts under way |
//! | `k:<scope>/<idempotency key>` | `request` | which request the key stands for |
//! | `b:<0 to 15>` | `sessions:<scope>`, `users:<scope>` (sorted sets), `added` | indexes, spread over 16 slots |
//! | `feed` | `entries` (stream), `numbers`, `expiries`, `last` | the revocation feed |
//! | `outbox` | `events`, `queue`, `due`, `attempts`, `at` | notifications |
//! | `bans` | `until` (sorted set) | when bans end |
//! | `config` | `current`, `versions` (hashes), `audit` (sorted set), `scopes` | everything else |
//!
//! # What is atomic
//!
//! A script runs in one slot, alone, and whole. A refresh is one script: condition, row and event in one round trip. The
//! other writes of a session read its row, decide on it with the engine's own conditions, and write it with one script if
//! nobody has written it since.
//!
//! Where one server has all slots, a script may use all of them: there a write takes along what it entails (feed, outbox, audit
//! log), and a start that replaces no session and counts none is one script, made of those below.
//!
//! On a cluster, what touches several slots goes in steps, each a script, in an order that may be interrupted anywhere and repeated:
//!
//! - **An end, an elevation, a notification**: the row's script also notes what is to be done elsewhere (feed, outbox, audit
//!   log), then that is done, then the note goes; only then is the write answered. Whoever meets a note first does what it
//!   says: nothing that was answered lacks its entry in the feed. Every entry is known by its event's id, so that it is made
//!   once.
//! - **A start** is decided in its user's slot and noted there whole; see the module `start`.
//! - **A ban** is written to the user's slot, where starts are decided, before the user's sessions are ended: a start is
//!   either refused by it or ended by it.
//! - **A removal** leaves the word `gone` under the row's key for an hour, against starts that were held up.
//! - **Indexes** name a session or a user before its row is there, and until after it is gone.
//! - **A copy** ([`Transfer`]) writes a session in the same order, but leaves nothing under the key of one that it removes. It is
//!   completed by being repeated, and nobody else may write meanwhile.
//!
//! So an intent that was answered is done in all its parts. One whose answer was lost may be done in part until it is
//! repeated, until somebody meets the row or the user, or until the sweep comes by; what is missing then is never the
//! decision itself, only the news of it.
//!
//! # Round trips
//!
//! A refresh: one. Confirmations: one each, all at once. An update: two. An end: two, on a cluster four. A start: one; four on a
//! cluster, or where it replaces a session or counts them (three more for that); for an idempotency key one more. Everything
//! that is asked at the same moment shares the connection and travels together.
//!
//! # Durability
//!
//! Redis answers before it has written to the disk, unless `appendonly yes` and `appendfsync always` are set; with
//! `everysec` a power cut loses up to two seconds, and a failover loses what the replica had not received (the option
//! `wait_replicas` makes writes wait for replicas). The engine is made for that: newer tokens bring lost rows forward, and
//! the revocation log beside the server keeps endings. `maxmemory-policy` must be `noeviction`. [`RedisStore::checks`]
//! tells how the servers are set. No script asks for the time; times to live are only for garbage.
//!
//! # Limits
//!
//! All notifications share a slot, as do all entries of the feed, and all sessions of anonymous users in a scope share an
//! index. Counting a scope's sessions (before something is deleted) and [`Store::secret_usage`] read all of them.
//!
//! When the store is copied, its sessions are counted from the indexes, which may name more than there are. No index has bans
//! without an end, so all users are read; nor are notifications sorted by their ids, so each page of them reads all ids of the
//! outbox. Entries of the feed that were elsewhere are known by their numbers in place of their events, and the whole feed is
//! written anew to take in one with a number before its last.

mod checks;
mod config;
mod effects;
mod index;
mod keys;
mod link;
mod many;
mod row;
mod scripts;
mod sessions;
mod settings;
mod shared;
mod start;
mod transfer;
mod users;
mod walk;

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use redis::{ErrorKind, RedisError, RedisResult};
use rekindle::clock::Timestamp;
use rekindle::definition::Definition;
use rekindle::journal::{Event, EventId};
use rekindle::keys::{KeyId, SigningKey};
use rekindle::rng::{Rng as _, SystemRng};
use rekindle::session::{Scope, Session, SessionId, Tag, UserId};
use rekindle::store::*;

use crate::config::Topology;
pub use crate::config::{InvalidUrl, RedisConfig};
use crate::keys::{Keys, hex};
use crate::link::Link;
use crate::scripts::TOGETHER;
use crate::settings::LAYOUT;

/// How many commands of one intent are under way at once.
const AT_ONCE: usize = 128;

/// A [`Store`] on Redis or Valkey. See the [crate](crate) for what it guarantees.
///
/// It connects again by itself. Dropping it closes the connection.
pub struct RedisStore(Arc<Inner>);

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file that the URL names cannot be read.
    #[error("`{path}` cannot be read: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// What the URL says cannot be used.
    #[error("Redis at {place} cannot be used as configured: {problem}")]
    Settings {
        /// Where.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Nobody answers there.
    #[error(
        "Redis at {place} cannot be reached: {problem}; check host, port and TLS of the URL, and that the server runs"
    )]
    Unreachable {
        /// Where.
        place: String,
        /// What happened.
        problem: String,
    },
    /// The login was refused.
    #[error("Redis at {place} refused the login: {problem}; check user and password of the URL")]
    Login {
        /// Where.
        place: String,
        /// What it said.
        problem: String,
    },
    /// The user may not do what a store does.
    #[error(
        "Redis at {place} does not permit what a store needs: {problem}; give its user `~<prefix>:* +@all -@admin` or more"
    )]
    Permission {
        /// Where.
        place: String,
        /// What it said.
        problem: String,
    },
    /// It takes no writes.
    #[error(
        "Redis at {place} takes no writes: {problem}; give the URL of the master, of the sentinels, or of the cluster"
    )]
    ReadOnly {
        /// Where.
        place: String,
        /// What it said.
        problem: String,
    },
    /// A newer Rekindle has written here.
    #[error("the keys `{prefix}:…` at {place} have layout {found}, this Rekindle knows {LAYOUT}; run a newer Rekindle")]
    Newer {
        /// Where.
        place: String,
        /// The keys' prefix.
        prefix: String,
        /// The layout's number.
        found: String,
    },
}

impl RedisStore {
    /// Connects, and gives an empty keyspace its first contents: the product `default` with the environment `dev` and the
    /// definition `default`. Must be called within a tokio runtime, which carries the connection.
    ///
    /// # Errors
    ///
    /// [`OpenError`] tells what is wrong, and what to do.
    pub async fn open(config: RedisConfig) -> Result<Self, OpenError> {
        let mut inner = Inner::new(config)?;
        // First something short: a server that asks for a login takes nothing else.
        inner.layout().await?;
        inner.together = inner.slots_are_together().await.map_err(|error| inner.open_error(&error))?;
        let layout = inner.init().await.map_err(|error| inner.open_error(&error))?;
        if layout.parse() != Ok(LAYOUT) {
            return Err(inner.newer(layout));
        }
        Ok(Self(Arc::new(inner)))
    }

    /// The migrations that [`RedisStore::open`] would apply: the first one gives an empty keyspace its first contents. Writes nothing
    /// there.
    ///
    /// # Errors
    ///
    /// As [`RedisStore::open`].
    pub async fn pending(config: RedisConfig) -> Result<Vec<Migration>, OpenError> {
        let inner = Inner::new(config)?;
        match inner.layout().await? {
            None => Ok(vec![Migration { version: LAYOUT, name: "initial" }]),
            Some(layout) if layout.parse() == Ok(LAYOUT) => Ok(Vec::new()),
            Some(found) => Err(inner.newer(found)),
        }
    }

    /// How the servers are set: version, memory, durability, the cluster's state.
    pub async fn checks(&self) -> Vec<Check> {
        self.0.checks().await
    }

    /// Carries out steps that are not to stop half-way when the caller goes away.
    async fn whole<T, F>(&self, steps: impl FnOnce(Arc<Inner>) -> F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: Future<Output = StoreResult<T>> + Send + 'static,
    {
        match tokio::spawn(steps(Arc::clone(&self.0))).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StoreError::Unavailable("the runtime is shutting down".into())),
        }
    }
}

/// What the store's methods share.
struct Inner {
    link: Link,
    keys: Keys,
    /// A script may use keys of several slots.
    together: bool,
    known_scopes: RwLock<HashSet<Scope>>,
    /// A random name: no other store has it.
    name: String,
    writes: AtomicU64,
}

impl Inner {
    fn new(config: RedisConfig) -> Result<Self, OpenError> {
        if config.tls {
            // Another part of the process may have chosen; then that one holds.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let certificates = link::certificates(&config).map_err(|(path, source)| OpenError::File { path, source })?;
        let (place, keys) = (config.place(), Keys::new(&config.prefix));
        let link = Link::new(config, certificates)
            .map_err(|error| OpenError::Settings { place, problem: error.to_string() })?;
        let mut name = [0; 8];
        SystemRng::default().fill(&mut name);
        Ok(Self {
            link,
            keys,
            together: false,
            known_scopes: RwLock::default(),
            name: hex(&name),
            writes: AtomicU64::new(0),
        })
    }

    /// The number of the layout that is there.
    async fn layout(&self) -> Result<Option<String>, OpenError> {
        let [current, _] = self.keys.config();
        let layout = self.link.repeated(redis::cmd("HGET").arg(current).arg("layout")).await;
        layout.map_err(|error| self.open_error(&error))
    }

    /// Whether a script may use keys of several slots; a cluster may be behind a URL that speaks of one server.
    async fn slots_are_together(&self) -> RedisResult<bool> {
        let [feed, ..] = self.keys.feed();
        match self.link.call::<()>(&TOGETHER.on(&[feed, self.keys.bans()])).await {
            Err(error) if error.kind() == ErrorKind::Server(redis::ServerErrorKind::CrossSlot) => Ok(false),
            asked => asked.map(|()| self.link.config().topology != Topology::Cluster),
        }
    }

    fn newer(&self, found: String) -> OpenError {
        let config = self.link.config();
        OpenError::Newer { place: config.place(), prefix: config.prefix.clone(), found }
    }

    fn open_error(&self, error: &RedisError) -> OpenError {
        let (place, problem) = (self.link.config().place(), error.to_string());
        match error.kind() {
            ErrorKind::AuthenticationFailed => OpenError::Login { place, problem },
            ErrorKind::Server(redis::ServerErrorKind::NoPerm) => OpenError::Permission { place, problem },
            ErrorKind::Server(redis::ServerErrorKind::ReadOnly) => OpenError::ReadOnly { place, problem },
            _ if problem.contains("NOAUTH") || problem.contains("WRONGPASS") => OpenError::Login { place, problem },
            ErrorKind::Io | ErrorKind::ClusterConnectionNotFound | ErrorKind::MasterNameNotFoundBySentinel => {
                OpenError::Unreachable { place, problem }
            }
            _ => OpenError::Settings { place, problem },
        }
    }

    /// A text that no other write of any server has: by it a script recognises its own repetition.
    fn token(&self) -> String {
        format!("{}.{}", self.name, self.writes.fetch_add(1, Ordering::Relaxed))
    }
}

/// Awaits all, some at once, and gives their results in order.
async fn each<T>(futures: impl IntoIterator<Item = impl Future<Output = StoreResult<T>>>) -> StoreResult<Vec<T>> {
    let mut rest = futures.into_iter().collect::<Vec<_>>().into_iter();
    let mut results = Vec::with_capacity(rest.len());
    while rest.len() > 0 {
        results.extend(try_join_all(rest.by_ref().take(AT_ONCE)).await?);
    }
    Ok(results)
}

#[async_trait]
impl Store for RedisStore {
    async fn start(&self, start: Start) -> StoreResult<Started> {
        self.whole(|inner| async move { inner.start(&start).await }).await
    }

    async fn session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        self.0.session(id).await
    }

    async fn advance(&self, advance: Advance) -> StoreResult<Cas> {
        if advance.elevation.is_none() && !advance.event.notify {
            // One script: it happens or it does not, whoever goes away.
            return self.0.advance(&advance).await;
        }
        self.whole(|inner| async move { inner.advance(&advance).await }).await
    }

    async fn fast_forward(&self, fast_forward: FastForward) -> StoreResult<Cas> {
        self.whole(|inner| async move { inner.fast_forward(&fast_forward).await }).await
    }

    async fn confirm(&self, confirmations: Vec<Confirmation>) -> StoreResult<()> {
        self.whole(|inner| async move { inner.confirm(&confirmations).await }).await
    }

    async fn update(&self, update: Update) -> StoreResult<Cas> {
        self.whole(|inner| async move { inner.update(&update).await }).await
    }

    async fn end(&self, end: End) -> StoreResult<Cas> {
        self.whole(|inner| async move { inner.end(&end).await }).await
    }

    async fn end_many(&self, end: EndMany) -> StoreResult<EndedMany> {
        self.whole(|inner| async move { inner.end_many(&end).await }).await
    }

    async fn record(&self, events: Vec<Event>) -> StoreResult<()> {
        self.whole(|inner| async move { inner.record(&events).await }).await
    }

    async fn sessions(&self, query: SessionQuery) -> StoreResult<Vec<Session>> {
        self.0.sessions(&query).await
    }

    async fn events(&self, query: EventQuery) -> StoreResult<Vec<Event>> {
        self.0.events(&query).await
    }

    async fn users(&self, query: UserQuery) -> StoreResult<Vec<UserSummary>> {
        self.0.users(&query).await
    }

    async fn user(&self, scope: &Scope, user_id: &UserId, now: Timestamp) -> StoreResult<Option<UserSummary>> {
        self.0.user(scope, user_id, now).await
    }

    async fn erase_user(&self, erase: EraseUser) -> StoreResult<EndedMany> {
        self.whole(|inner| async move { inner.erase_user(&erase).await }).await
    }

    async fn ban(&self, ban: BanUser) -> StoreResult<EndedMany> {
        self.whole(|inner| async move { inner.ban(&ban).await }).await
    }

    async fn lift_ban(&self, scope: &Scope, user_id: &UserId, audit: AuditEntry) -> StoreResult<bool> {
        let (scope, user_id) = (scope.clone(), user_id.clone());
        self.whole(|inner| async move { inner.lift_ban(&scope, &user_id, &audit).await }).await
    }

    async fn revocations(
        &self,
        scope: Option<&Scope>,
        after: u64,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<Revocation>> {
        self.0.revocations(scope, after, now, limit).await
    }

    async fn sweep(&self, sweep: Sweep) -> StoreResult<Swept> {
        self.whole(|inner| async move { inner.sweep(&sweep).await }).await
    }

    async fn config_version(&self) -> StoreResult<u64> {
        self.0.config_version().await
    }

    async fn scope(&self, scope: &Scope) -> StoreResult<ScopeRead> {
        self.0.scope(scope).await
    }

    async fn definition(&self, product: &Tag, tag: &Tag, version: u32) -> StoreResult<Option<Definition>> {
        self.0.definition(product, tag, version).await
    }

    async fn products(&self) -> StoreResult<Vec<ProductRecord>> {
        self.0.products().await
    }

    async fn change(&self, change: Change, audit: AuditEntry) -> StoreResult<Changed> {
        self.whole(|inner| async move { inner.change(&change, &audit).await }).await
    }

    async fn add_signing_key(&self, key: SigningKey, newest: Option<KeyId>) -> StoreResult<bool> {
        self.0.add_signing_key(&key, newest.as_ref()).await
    }

    async fn rewrap_signing_keys(&self, keys: Vec<SigningKey>) -> StoreResult<()> {
        self.0.rewrap_signing_keys(&keys).await
    }

    async fn remove_signing_keys(&self, kids: Vec<KeyId>) -> StoreResult<()> {
        self.0.remove_signing_keys(&kids).await
    }

    async fn secret_checks(&self, checks: Vec<(u8, [u8; 16])>) -> StoreResult<Vec<(u8, [u8; 16])>> {
        self.0.secret_checks(&checks).await
    }

    async fn secret_usage(&self) -> StoreResult<Vec<(u8, u64)>> {
        self.0.secret_usage().await
    }

    async fn api_keys(&self) -> StoreResult<Vec<ApiKey>> {
        self.0.api_keys().await
    }

    async fn take_notifications(&self, now: Timestamp, lease: Timestamp, limit: u32) -> StoreResult<Vec<Notification>> {
        self.0.take_notifications(now, lease, limit).await
    }

    async fn settle_notification(&self, id: EventId, retry_at: Option<Timestamp>) -> StoreResult<()> {
        self.0.settle_notification(id, retry_at).await
    }

    async fn audit_log(&self, before: Option<EventId>, limit: u32) -> StoreResult<Vec<AuditEntry>> {
        self.0.audit_log(before, limit).await
    }

    async fn append_audit(&self, entry: AuditEntry) -> StoreResult<()> {
        self.0.append_audit(&entry).await
    }

    async fn ping(&self) -> StoreResult<()> {
        self.0.ping().await
    }
}
