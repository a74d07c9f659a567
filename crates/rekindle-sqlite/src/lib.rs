//! Rekindle's embedded store: one SQLite file, every answered write durable.
//!
//! - **One writer thread** gathers the writes that wait into one transaction (group commit): a flush of the disk is shared by
//!   all that arrived during the one before. An answer is sent when its transaction is on the disk (WAL, `synchronous=FULL`).
//! - **Reads run on the caller's thread**, on connections of their own that never wait for the writer.
//! - **Checkpoints run on a thread of their own**, so that no refresh waits for them.
//! - **Several processes may use one file.** They take turns at writing.
//! - **Nothing is guessed**: a row that no version of Rekindle writes is reported as corrupt with its table, column and id.
//!
//! Start with [`SqliteStore::open`]; the contract is [`rekindle::store::Store`]'s. In here: `schema` makes and checks the file,
//! `writer` commits, `db` reads rows, `sessions` and `config` are the intents, `transfer` takes everything out and puts it in.

#[macro_use]
mod sql;

mod config;
mod db;
mod ends;
mod journal;
mod schema;
mod sessions;
mod transfer;
mod users;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rekindle::clock::Timestamp;
use rekindle::definition::Definition;
use rekindle::journal::{Event, EventId};
use rekindle::keys::{KeyId, SigningKey};
use rekindle::session::{Scope, Session, SessionId, Tag, UserId};
use rekindle::store::*;
use rusqlite::{Connection, OpenFlags};

use crate::db::{Db, Failure, ScopeId, Scopes};
pub use crate::schema::FileError;
use crate::writer::Writer;

/// How long a reader waits for a lock. Readers hardly ever do.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many idle reader connections are kept.
const IDLE_READERS: usize = 8;
/// How much of the file each connection keeps in memory.
const WRITER_CACHE_KIB: i64 = 8 * 1024;
const READER_CACHE_KIB: i64 = 2 * 1024;

/// A [`Store`] in one SQLite file. See the [crate](crate) for what it guarantees.
///
/// Dropping it carries out the writes that were accepted, then closes the file.
pub struct SqliteStore {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    scopes: Arc<Scopes>,
    writer: Writer,
}

impl SqliteStore {
    /// Opens the store at `path`, making or migrating it where needed; `now` is recorded with a migration.
    ///
    /// A new store has the product `default` with the environment `dev` and the definition `default`.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file is not Rekindle's, is newer than this build, or cannot be read and written.
    pub fn open(path: impl AsRef<Path>, now: Timestamp) -> Result<Self, FileError> {
        let path = path.as_ref().to_owned();
        schema::prepare(&path, now)?;
        let scopes = Arc::new(Scopes::default());
        let writer = connect(&path, WRITER_CACHE_KIB)
            .and_then(|writer| Writer::start(writer, connect(&path, READER_CACHE_KIB)?, Arc::clone(&scopes)))
            .map_err(|source| FileError::Sqlite { path: path.clone(), source })?;
        Ok(Self { path, readers: Mutex::default(), scopes, writer })
    }

    /// Copies the store as it is now to the new file `to`, while it serves. Blocks until the copy is durable.
    ///
    /// # Errors
    ///
    /// [`FileError`]; `to` then does not exist, unless it did before.
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<(), FileError> {
        schema::backup(&self.path, to.as_ref())
    }

    /// The migrations that [`SqliteStore::open`] would apply. Changes nothing.
    ///
    /// # Errors
    ///
    /// As for `open`.
    pub fn pending(path: impl AsRef<Path>) -> Result<Vec<Migration>, FileError> {
        schema::pending(path.as_ref())
    }

    /// Checks that a file, such as a backup, is a whole store of the present schema version. Reads all of it.
    ///
    /// # Errors
    ///
    /// [`FileError`] tells what is wrong with it.
    pub fn verify_file(path: impl AsRef<Path>) -> Result<(), FileError> {
        schema::verify(path.as_ref())
    }

    /// How many transactions were committed since the store was opened, and how many writes they carried together.
    pub fn committed(&self) -> (u64, u64) {
        self.writer.committed()
    }

    fn read<T>(&self, read: impl FnOnce(&Db<'_>) -> Result<T, Failure>) -> StoreResult<T> {
        let idle = || self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = idle().pop();
        let reader = match reader {
            Some(reader) => reader,
            None => connect_reader(&self.path).map_err(Failure::from)?,
        };
        let outcome = read(&Db { connection: &reader, scopes: &self.scopes });
        let mut idle = idle();
        if idle.len() < IDLE_READERS {
            idle.push(reader);
        }
        Ok(outcome?)
    }

    /// As [`SqliteStore::read`], but all statements see the same moment.
    fn snapshot<T>(&self, read: impl FnOnce(&Db<'_>) -> Result<T, Failure>) -> StoreResult<T> {
        self.read(|db| {
            let snapshot = db.connection.unchecked_transaction()?;
            let outcome = read(db)?;
            snapshot.commit()?;
            Ok(outcome)
        })
    }

    async fn write<T, F>(&self, write: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnMut(&Db<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.writer.run(write).await
    }

    /// The number of a scope, or one that no row has.
    fn scope_id(&self, scope: &Scope) -> StoreResult<ScopeId> {
        self.read(|db| db.scope_id(scope))
    }

    /// The number of a scope, which gets one if it has none.
    async fn scope_id_made(&self, scope: &Scope) -> StoreResult<ScopeId> {
        let id = self.scope_id(scope)?;
        if id != ScopeId::NONE {
            return Ok(id);
        }
        let new = scope.clone();
        self.write(move |db| db.add_scope(&new)).await?;
        self.scope_id(scope)
    }
}

/// A connection for writing.
fn connect(path: &Path, cache_kib: i64) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread at a time, so SQLite's own locking would be wasted.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    Ok(connection)
}

fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path, READER_CACHE_KIB)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

#[async_trait]
impl Store for SqliteStore {
    async fn start(&self, start: Start) -> StoreResult<Started> {
        let scope = self.scope_id_made(&start.session.scope).await?;
        self.write(move |db| db.start(&start, scope)).await
    }

    async fn session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        self.read(|db| db.session(id))
    }

    async fn advance(&self, advance: Advance) -> StoreResult<Cas> {
        let scope = self.scope_id(&advance.scope)?;
        self.write(move |db| db.advance(&advance, scope)).await
    }

    async fn fast_forward(&self, fast_forward: FastForward) -> StoreResult<Cas> {
        let scope = self.scope_id(&fast_forward.scope)?;
        self.write(move |db| db.fast_forward(&fast_forward, scope)).await
    }

    async fn confirm(&self, confirmations: Vec<Confirmation>) -> StoreResult<()> {
        let mut with_scope = Vec::with_capacity(confirmations.len());
        for confirmation in confirmations {
            with_scope.push((self.scope_id(&confirmation.scope)?, confirmation));
        }
        self.write(move |db| with_scope.iter().try_for_each(|(scope, c)| db.confirm(c, *scope))).await
    }

    async fn update(&self, update: Update) -> StoreResult<Cas> {
        let scope = self.scope_id(&update.scope)?;
        self.write(move |db| db.update(&update, scope)).await
    }

    async fn end(&self, end: End) -> StoreResult<Cas> {
        let scope = self.scope_id(&end.scope)?;
        self.write(move |db| db.end(&end, scope)).await
    }

    async fn end_many(&self, end: EndMany) -> StoreResult<EndedMany> {
        let scope = self.scope_id(&end.scope)?;
        self.write(move |db| db.end_many(&end, scope)).await
    }

    async fn record(&self, events: Vec<Event>) -> StoreResult<()> {
        self.write(move |db| events.iter().try_for_each(|event| db.record(event))).await
    }

    async fn sessions(&self, query: SessionQuery) -> StoreResult<Vec<Session>> {
        self.read(|db| db.sessions(&query, db.scope_id(&query.scope)?))
    }

    async fn events(&self, query: EventQuery) -> StoreResult<Vec<Event>> {
        self.read(|db| db.events(&query))
    }

    async fn users(&self, query: UserQuery) -> StoreResult<Vec<UserSummary>> {
        self.snapshot(|db| db.users(&query, db.scope_id(&query.scope)?))
    }

    async fn user(&self, scope: &Scope, user_id: &UserId, now: Timestamp) -> StoreResult<Option<UserSummary>> {
        self.snapshot(|db| db.user(db.scope_id(scope)?, user_id, now))
    }

    async fn erase_user(&self, erase: EraseUser) -> StoreResult<EndedMany> {
        let scope = self.scope_id(&erase.scope)?;
        self.write(move |db| db.erase_user(&erase, scope)).await
    }

    async fn ban(&self, ban: BanUser) -> StoreResult<EndedMany> {
        let user_id = ban.end.user_id.clone().expect("a ban names its user");
        let scope = self.scope_id_made(&ban.end.scope).await?;
        self.write(move |db| db.ban(&ban, &user_id, scope)).await
    }

    async fn lift_ban(&self, scope: &Scope, user_id: &UserId, audit: AuditEntry) -> StoreResult<bool> {
        let (scope, user_id) = (self.scope_id(scope)?, user_id.clone());
        self.write(move |db| db.lift_ban(&user_id, scope, &audit)).await
    }

    async fn revocations(
        &self,
        scope: Option<&Scope>,
        after: u64,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<Revocation>> {
        self.read(|db| {
            let scope = scope.map(|s| db.scope_id(s)).transpose()?;
            db.revocations(scope, after, now, limit)
        })
    }

    async fn sweep(&self, sweep: Sweep) -> StoreResult<Swept> {
        self.write(move |db| db.sweep(&sweep)).await
    }

    async fn config_version(&self) -> StoreResult<u64> {
        self.read(|db| db.config_version())
    }

    async fn scope(&self, scope: &Scope) -> StoreResult<ScopeRead> {
        self.snapshot(|db| db.scope_record(scope, db.scope_id(scope)?))
    }

    async fn definition(&self, product: &Tag, tag: &Tag, version: u32) -> StoreResult<Option<Definition>> {
        self.read(|db| db.definition(product, tag, version))
    }

    async fn products(&self) -> StoreResult<Vec<ProductRecord>> {
        self.snapshot(|db| db.products())
    }

    async fn change(&self, change: Change, audit: AuditEntry) -> StoreResult<Changed> {
        self.write(move |db| db.change(&change, &audit)).await
    }

    async fn add_signing_key(&self, key: SigningKey, newest: Option<KeyId>) -> StoreResult<bool> {
        let scope = self.scope_id_made(&key.scope).await?;
        self.write(move |db| db.add_signing_key(&key, newest.as_ref(), scope)).await
    }

    async fn rewrap_signing_keys(&self, keys: Vec<SigningKey>) -> StoreResult<()> {
        self.write(move |db| db.rewrap_signing_keys(&keys)).await
    }

    async fn remove_signing_keys(&self, kids: Vec<KeyId>) -> StoreResult<()> {
        self.write(move |db| db.remove_signing_keys(&kids)).await
    }

    async fn secret_checks(&self, checks: Vec<(u8, [u8; 16])>) -> StoreResult<Vec<(u8, [u8; 16])>> {
        self.write(move |db| db.secret_checks(&checks)).await
    }

    async fn secret_usage(&self) -> StoreResult<Vec<(u8, u64)>> {
        self.read(|db| db.secret_usage())
    }

    async fn api_keys(&self) -> StoreResult<Vec<ApiKey>> {
        self.read(|db| db.api_keys())
    }

    async fn take_notifications(&self, now: Timestamp, lease: Timestamp, limit: u32) -> StoreResult<Vec<Notification>> {
        self.write(move |db| db.take_notifications(now, lease, limit)).await
    }

    async fn settle_notification(&self, id: EventId, retry_at: Option<Timestamp>) -> StoreResult<()> {
        self.write(move |db| db.settle_notification(id, retry_at)).await
    }

    async fn audit_log(&self, before: Option<EventId>, limit: u32) -> StoreResult<Vec<AuditEntry>> {
        self.read(|db| db.audit_log(before, limit))
    }

    async fn append_audit(&self, entry: AuditEntry) -> StoreResult<()> {
        self.write(move |db| db.write_audit(&entry)).await
    }

    async fn ping(&self) -> StoreResult<()> {
        self.read(|db| db.config_version())?;
        self.write(|db| db.execute("UPDATE config SET version = version", []).map(drop)).await
    }
}
