//! Rekindle's store on MariaDB (10.6 or later) and MySQL (8.0.1 or later), alone or as a Galera cluster, by the same
//! statements.
//!
//! - **Layout**: one row per session (`sessions`), its events beside it, deleted with it (`events`); the revocation
//!   feed with its counter (`revocations`, `feed`); `outbox`, `bans`, `idempotency`; configuration in small tables.
//!   Scopes and ids are natural keys. No index holds what a refresh changes, and all that it changes has a fixed size.
//! - **Round trips**: a refresh is one: the row, its event, a conditional `UPDATE`, `COMMIT`, sent together as text.
//!   Whatever else depends on a row is two: begin and read it locked; write and commit. So are refreshes, starts, or ends of single
//!   sessions that arrive while others are under way: two for all of them. On a cluster `COMMIT` is one more. Statements carry their
//!   values as literals that are numbers or hexadecimal digits, whatever they hold.
//! - **Isolation**: `READ COMMITTED`, set on each connection, as are `sql_mode`, character set, time zone and
//!   found-rows counts. Each intent locks the rows that it decides on. Nothing rests on gap locks, or on locks alone:
//!   whatever must not happen twice writes a row in common (a unique key, the session, `user_locks`, `feed`, `config`),
//!   so that nodes of a Galera cluster, which know each other's writes at the commit but not each other's locks, find
//!   the conflict, too.
//! - **Conflicts** (deadlock, also at a cluster's commit; lock wait time-out; duplicate key; node not ready) roll back
//!   and try again, with a bound. A connection that is lost before the commit was sent is replaced; after that, the
//!   outcome is unknown and reported as [`StoreError::Unavailable`]: every intent may be asked again.
//! - **Durable** is an answered write when the server keeps its defaults `innodb_flush_log_at_trx_commit = 1` and, with
//!   a binary log, `sync_binlog = 1`: [`MysqlStore::checks`] tells. On a cluster it is then also on the other nodes,
//!   each of which applies what was committed elsewhere before it answers (`wsrep_sync_wait`).
//! - **A dropped future** drops its connection, which rolls back (refreshes, starts and ends go on, on tasks of their own); a connection
//!   goes back to the pool only after a whole exchange.
//!
//! Start with [`MysqlConfig::parse`] and [`MysqlStore::open`]; the contract is [`rekindle::store::Store`]'s. In here:
//! `schema` migrates, `pool` has connections and transactions, `sql` and `row` are values on their way in and out,
//! `writes` collects what an intent writes, `gather` lets `refreshes`, `starts` and `ends` share transactions; `sessions`, `users`, `lists`, `upkeep` and
//! `configuration` are the other intents, and `transfer` takes everything out and puts it in.

mod checks;
mod config;
mod configuration;
mod ends;
mod gather;
mod lists;
mod pool;
mod reader;
mod refreshes;
mod row;
mod schema;
mod sessions;
mod sql;
mod starts;
mod transfer;
mod upkeep;
mod users;
mod writes;

use std::sync::Arc;

use async_trait::async_trait;
use rekindle::clock::Timestamp;
use rekindle::definition::Definition;
use rekindle::journal::{Event, EventId};
use rekindle::keys::{KeyId, SigningKey};
use rekindle::session::{Scope, Session, SessionId, Tag, UserId};
use rekindle::store::*;

pub use crate::config::{InvalidUrl, MysqlConfig};
use crate::ends::{Ends, ends};
use crate::pool::Pool;
pub use crate::reader::Reader;
use crate::refreshes::{Refreshes, refreshes};
pub use crate::schema::OpenError;
use crate::starts::{Starts, starts};

/// A [`Store`] in a MariaDB or MySQL database. See the [crate](crate) for what it guarantees.
///
/// It needs a Tokio runtime with time and I/O enabled. Dropping it closes its connections.
pub struct MysqlStore {
    pool: Arc<Pool>,
    refreshes: Arc<Refreshes>,
    starts: Arc<Starts>,
    ends: Arc<Ends>,
    connections: u32,
}

impl MysqlStore {
    /// Opens the store, making or migrating its tables where needed; `now` is recorded with a migration. Of several
    /// processes that open a database at once, one migrates, while the others wait.
    ///
    /// A new store has the product `default` with the environment `dev` and the definition `default`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the server cannot be reached, refuses the user, takes no writes or is too old, or if the
    /// database is not Rekindle's or newer than this build.
    pub async fn open(config: MysqlConfig, now: Timestamp) -> Result<Self, OpenError> {
        let pool = Pool::of(&config);
        schema::prepare(&pool, &config, now).await?;
        let (refreshes, starts, ends) = (refreshes(), starts(), ends());
        Ok(Self { pool: Arc::new(pool), refreshes, starts, ends, connections: config.connections })
    }

    /// The migrations that [`MysqlStore::open`] would apply. Changes nothing.
    ///
    /// # Errors
    ///
    /// As [`MysqlStore::open`].
    pub async fn pending(config: &MysqlConfig) -> Result<Vec<Migration>, OpenError> {
        schema::pending(&Pool::of(config), config).await
    }

    /// What an operator should know of the server: its version, and settings that weaken the store's promises.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the server does not answer.
    pub async fn checks(&self) -> StoreResult<Vec<Check>> {
        checks::checks(&self.pool, self.connections).await
    }
}

#[async_trait]
impl Store for MysqlStore {
    async fn start(&self, start: Start) -> StoreResult<Started> {
        self.start_session(start).await
    }

    async fn session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        self.read_session(id).await
    }

    async fn advance(&self, advance: Advance) -> StoreResult<Cas> {
        if advance.elevation.is_some() {
            return self.pool.retry(|| self.pool.try_advance(&advance)).await;
        }
        self.pool.share(&self.refreshes, advance).await
    }

    async fn fast_forward(&self, fast_forward: FastForward) -> StoreResult<Cas> {
        self.pool.retry(|| self.try_fast_forward(&fast_forward)).await
    }

    async fn confirm(&self, confirmations: Vec<Confirmation>) -> StoreResult<()> {
        self.pool.retry(|| self.try_confirm(&confirmations)).await
    }

    async fn update(&self, update: Update) -> StoreResult<Cas> {
        self.pool.retry(|| self.try_update(&update)).await
    }

    async fn end(&self, end: End) -> StoreResult<Cas> {
        self.pool.share(&self.ends, end).await
    }

    async fn end_many(&self, end: EndMany) -> StoreResult<EndedMany> {
        self.pool.retry(|| self.try_end_many(&end)).await
    }

    async fn record(&self, events: Vec<Event>) -> StoreResult<()> {
        self.pool.retry(|| self.try_record(&events)).await
    }

    async fn sessions(&self, query: SessionQuery) -> StoreResult<Vec<Session>> {
        self.read_sessions(&query).await
    }

    async fn events(&self, query: EventQuery) -> StoreResult<Vec<Event>> {
        self.read_events(&query).await
    }

    async fn users(&self, query: UserQuery) -> StoreResult<Vec<UserSummary>> {
        self.read_users(&query).await
    }

    async fn user(&self, scope: &Scope, user_id: &UserId, now: Timestamp) -> StoreResult<Option<UserSummary>> {
        self.read_user(scope, user_id, now).await
    }

    async fn erase_user(&self, erase: EraseUser) -> StoreResult<EndedMany> {
        self.pool.retry(|| self.try_erase_user(&erase)).await
    }

    async fn ban(&self, ban: BanUser) -> StoreResult<EndedMany> {
        self.pool.retry(|| self.try_ban(&ban)).await
    }

    async fn lift_ban(&self, scope: &Scope, user_id: &UserId, audit: AuditEntry) -> StoreResult<bool> {
        self.pool.retry(|| self.try_lift_ban(scope, user_id, &audit)).await
    }

    async fn revocations(
        &self,
        scope: Option<&Scope>,
        after: u64,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<Revocation>> {
        self.read_revocations(scope, after, now, limit).await
    }

    async fn sweep(&self, sweep: Sweep) -> StoreResult<Swept> {
        self.sweep_slice(&sweep).await
    }

    async fn config_version(&self) -> StoreResult<u64> {
        self.read_config_version().await
    }

    async fn scope(&self, scope: &Scope) -> StoreResult<ScopeRead> {
        self.read_scope(scope).await
    }

    async fn definition(&self, product: &Tag, tag: &Tag, version: u32) -> StoreResult<Option<Definition>> {
        self.read_definition(product, tag, version).await
    }

    async fn products(&self) -> StoreResult<Vec<ProductRecord>> {
        self.read_products().await
    }

    async fn change(&self, change: Change, audit: AuditEntry) -> StoreResult<Changed> {
        self.pool.retry(|| self.try_change(&change, &audit)).await
    }

    async fn add_signing_key(&self, key: SigningKey, newest: Option<KeyId>) -> StoreResult<bool> {
        self.pool.retry(|| self.try_add_signing_key(&key, newest.as_ref())).await
    }

    async fn rewrap_signing_keys(&self, keys: Vec<SigningKey>) -> StoreResult<()> {
        self.pool.retry(|| self.try_rewrap_signing_keys(&keys)).await
    }

    async fn remove_signing_keys(&self, kids: Vec<KeyId>) -> StoreResult<()> {
        self.pool.retry(|| self.try_remove_signing_keys(&kids)).await
    }

    async fn secret_checks(&self, checks: Vec<(u8, [u8; 16])>) -> StoreResult<Vec<(u8, [u8; 16])>> {
        self.pool.retry(|| self.try_secret_checks(&checks)).await
    }

    async fn secret_usage(&self) -> StoreResult<Vec<(u8, u64)>> {
        self.read_secret_usage().await
    }

    async fn api_keys(&self) -> StoreResult<Vec<ApiKey>> {
        self.read_api_keys().await
    }

    async fn take_notifications(&self, now: Timestamp, lease: Timestamp, limit: u32) -> StoreResult<Vec<Notification>> {
        self.pool.retry(|| self.try_take_notifications(now, lease, limit)).await
    }

    async fn settle_notification(&self, id: EventId, retry_at: Option<Timestamp>) -> StoreResult<()> {
        self.pool.retry(|| self.try_settle(id, retry_at)).await
    }

    async fn audit_log(&self, before: Option<EventId>, limit: u32) -> StoreResult<Vec<AuditEntry>> {
        self.read_audit_log(before, limit).await
    }

    async fn append_audit(&self, entry: AuditEntry) -> StoreResult<()> {
        self.pool.retry(|| self.try_append_audit(&entry)).await
    }

    async fn ping(&self) -> StoreResult<()> {
        self.pool.retry(|| self.try_ping()).await
    }
}
