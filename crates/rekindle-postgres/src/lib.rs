//! Rekindle's store on PostgreSQL, and on what speaks its protocol.
//!
//! - **A refresh is one round trip**: one statement moves the row, writes the journal and the outbox, and returns the row; under
//!   load, refreshes share a statement. Any other intent is one transaction, mostly of two round trips: what it rests on is read
//!   and locked, then everything is written. Starts share it, if no other session depends on them, and so do ends of single sessions.
//! - **Isolation** is READ COMMITTED with row locks: whoever decides on a row has locked it. Decisions on a user as a whole (a
//!   maximum of sessions, a ban, an erasure) are made under the lock of a row that stands for the user. Under a stricter
//!   isolation the same statements are right, too: what the database aborts is repeated, a bounded number of times.
//! - **Durable** is what the server has committed: with its `synchronous_commit=on`, on its disk (and its synchronous
//!   replicas'). [`PostgresStore::checks`] tells when it is set otherwise.
//! - **An unknown outcome** (the connection broke before the answer came) is reported as unavailable; every intent may be
//!   repeated.
//! - **The feed's order** is that of the commits: its last number is a row whose lock is held to the end of a transaction.
//! - **A caller that goes away** stops nothing: what was begun is carried out on a task of its own, and no connection goes back
//!   to the pool unless it is idle.
//! - **Nothing is asked that others lack**: no advisory locks, no functions in the database, no triggers, no extension. A pooler
//!   in between must keep prepared statements and settings: PgBouncer in session mode.
//!
//! Start with [`PostgresStore::open`]; the contract is [`rekindle::store::Store`]'s. In here: `config` parses the URL, `schema`
//! migrates, `checks` looks at the server's settings, `database` carries out work on pooled connections, `transaction` is what
//! an intent sees of it, `row` reads rows; the intents are in `refreshes`, `starts`, `sessions`, `ends` (`gather` lets them share steps), `users`, `journal` and
//! `configuration`; `transfer` takes everything out and puts it in.

mod checks;
mod config;
mod configuration;
mod database;
mod ends;
mod gather;
mod journal;
mod reader;
mod refreshes;
mod row;
mod schema;
mod sessions;
mod starts;
mod transaction;
mod transfer;
mod users;

use async_trait::async_trait;
use rekindle::clock::Timestamp;
use rekindle::definition::Definition;
use rekindle::journal::{Event, EventId};
use rekindle::keys::{KeyId, SigningKey};
use rekindle::session::{Scope, Session, SessionId, Tag, UserId};
use rekindle::store::*;

pub use crate::config::PostgresConfig;
use crate::configuration::{AddSigningKey, AppendAudit, Audited, ReadProducts, ReadScope, RemoveSigningKeys, Rewrap};
use crate::database::Database;
use crate::journal::Take;
pub use crate::reader::Reader;
pub use crate::schema::OpenError;
use crate::schema::Opening;
use crate::sessions::SecretUsage;
use crate::transaction::{Intent, Transactional};
use crate::users::LiftBan;

/// A [`Store`] on PostgreSQL. See the [crate](crate) for what it guarantees.
pub struct PostgresStore {
    database: Database,
    /// How many connections it uses at most.
    connections: usize,
}

impl PostgresStore {
    /// Connects, and makes or migrates the schema where needed, while older servers go on.
    ///
    /// A new store has the product `default` with the environment `dev` and the definition `default`. Runs on tokio.
    ///
    /// # Errors
    ///
    /// [`OpenError`] tells what is wrong and what to do.
    pub async fn open(config: PostgresConfig) -> Result<Self, OpenError> {
        let database = config.database()?;
        Opening::connect(&config, &database).await?.migrate().await?;
        Ok(Self { database, connections: config.pool_size() })
    }

    /// The migrations that [`PostgresStore::open`] would apply; changes nothing.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as for `open`.
    pub async fn pending(config: &PostgresConfig) -> Result<Vec<Migration>, OpenError> {
        let database = config.database()?;
        let pending = Opening::connect(config, &database).await?.pending().await?;
        Ok(pending.iter().map(|(migration, _)| *migration).collect())
    }

    /// What an operator should know of the server: version, durability, room for connections, rights.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the server cannot be asked.
    pub async fn checks(&self) -> StoreResult<Vec<Check>> {
        self.database.checks(self.connections).await
    }

    async fn carry_out<I: Intent + 'static>(&self, intent: I) -> StoreResult<I::Outcome> {
        self.database.run(Transactional(intent)).await
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn start(&self, start: Start) -> StoreResult<Started> {
        self.database.start(start).await
    }

    async fn session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        self.database.session(id).await
    }

    async fn advance(&self, advance: Advance) -> StoreResult<Cas> {
        self.database.advance(advance).await
    }

    async fn fast_forward(&self, fast_forward: FastForward) -> StoreResult<Cas> {
        self.carry_out(fast_forward).await
    }

    async fn confirm(&self, confirmations: Vec<Confirmation>) -> StoreResult<()> {
        self.database.confirm(confirmations).await
    }

    async fn update(&self, update: Update) -> StoreResult<Cas> {
        self.carry_out(update).await
    }

    async fn end(&self, end: End) -> StoreResult<Cas> {
        self.database.share(&self.database.ends, end).await
    }

    async fn end_many(&self, end: EndMany) -> StoreResult<EndedMany> {
        self.carry_out(end).await
    }

    async fn record(&self, events: Vec<Event>) -> StoreResult<()> {
        self.carry_out(journal::Record(events)).await
    }

    async fn sessions(&self, query: SessionQuery) -> StoreResult<Vec<Session>> {
        self.database.sessions(query).await
    }

    async fn events(&self, query: EventQuery) -> StoreResult<Vec<Event>> {
        self.database.events(query).await
    }

    async fn users(&self, query: UserQuery) -> StoreResult<Vec<UserSummary>> {
        self.database.users(query).await
    }

    async fn user(&self, scope: &Scope, user_id: &UserId, now: Timestamp) -> StoreResult<Option<UserSummary>> {
        self.database.user(scope, user_id, now).await
    }

    async fn erase_user(&self, erase: EraseUser) -> StoreResult<EndedMany> {
        self.carry_out(erase).await
    }

    async fn ban(&self, ban: BanUser) -> StoreResult<EndedMany> {
        self.carry_out(ban).await
    }

    async fn lift_ban(&self, scope: &Scope, user_id: &UserId, audit: AuditEntry) -> StoreResult<bool> {
        self.carry_out(LiftBan { scope: scope.clone(), user_id: user_id.clone(), audit }).await
    }

    async fn revocations(
        &self,
        scope: Option<&Scope>,
        after: u64,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<Revocation>> {
        self.database.revocations(scope, after, now, limit).await
    }

    async fn sweep(&self, sweep: Sweep) -> StoreResult<Swept> {
        self.carry_out(sweep).await
    }

    async fn config_version(&self) -> StoreResult<u64> {
        self.database.config_version().await
    }

    async fn scope(&self, scope: &Scope) -> StoreResult<ScopeRead> {
        self.carry_out(ReadScope(scope.clone())).await
    }

    async fn definition(&self, product: &Tag, tag: &Tag, version: u32) -> StoreResult<Option<Definition>> {
        self.database.definition(product, tag, version).await
    }

    async fn products(&self) -> StoreResult<Vec<ProductRecord>> {
        self.carry_out(ReadProducts).await
    }

    async fn change(&self, change: Change, audit: AuditEntry) -> StoreResult<Changed> {
        self.carry_out(Audited(change, audit)).await
    }

    async fn add_signing_key(&self, key: SigningKey, newest: Option<KeyId>) -> StoreResult<bool> {
        self.carry_out(AddSigningKey { key, newest }).await
    }

    async fn rewrap_signing_keys(&self, keys: Vec<SigningKey>) -> StoreResult<()> {
        self.carry_out(Rewrap(keys)).await
    }

    async fn remove_signing_keys(&self, kids: Vec<KeyId>) -> StoreResult<()> {
        self.carry_out(RemoveSigningKeys(kids)).await
    }

    async fn secret_checks(&self, checks: Vec<(u8, [u8; 16])>) -> StoreResult<Vec<(u8, [u8; 16])>> {
        self.database.secret_checks(checks).await
    }

    async fn secret_usage(&self) -> StoreResult<Vec<(u8, u64)>> {
        self.carry_out(SecretUsage).await
    }

    async fn api_keys(&self) -> StoreResult<Vec<ApiKey>> {
        self.database.api_keys().await
    }

    async fn take_notifications(&self, now: Timestamp, lease: Timestamp, limit: u32) -> StoreResult<Vec<Notification>> {
        self.carry_out(Take { now, lease, limit }).await
    }

    async fn settle_notification(&self, id: EventId, retry_at: Option<Timestamp>) -> StoreResult<()> {
        self.database.settle_notification(id, retry_at).await
    }

    async fn audit_log(&self, before: Option<EventId>, limit: u32) -> StoreResult<Vec<AuditEntry>> {
        self.database.audit_log(before, limit).await
    }

    async fn append_audit(&self, entry: AuditEntry) -> StoreResult<()> {
        self.carry_out(AppendAudit(entry)).await
    }

    async fn ping(&self) -> StoreResult<()> {
        self.database.ping().await
    }
}
