//! What the engine asks of a store: intents, their outcomes, and the contract that every store is tested against.
//!
//! The contract (`rekindle-testkit` checks it against each store):
//!
//! - **Every method is one atomic, durable step.** When it returns `Ok`, the effect survives a power cut; when it returns
//!   [`StoreError::Unavailable`], the effect happened whole or not at all, and the caller may ask again. A dropped future
//!   leaves nothing half done.
//! - **A lost race is an outcome, not an error**, and carries the fresh row, read from the primary.
//! - **Insert is not update, revoke is not delete.** No method brings an ended session back, except that
//!   [`Store::fast_forward`] undoes an idle expiry that was noted on a row which had lost writes.
//! - **No store asks its database for the time**: `now` is in the intent.
//! - **Events are written in the same step** as the change that they tell of; those with `notify` also enter the outbox.

mod configuration;
mod front;
mod gather;
mod intents;
mod queries;
mod transfer;
mod upkeep;

use std::fmt;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::definition::Definition;
use crate::journal::{Event, EventId};
use crate::keys::{KeyId, SigningKey};
use crate::session::{Scope, Session, SessionId, Tag, UserId};

pub use configuration::*;
pub use front::{Front, Intent, Operation};
pub use gather::{Gather, Lane, Waiting, answer_group};
pub use intents::*;
pub use queries::*;
pub use transfer::*;
pub use upkeep::*;

/// Keeps sessions, their events, and what servers share. See the [module](self) for the contract.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Inserts a session, unless one of the conditions in [`Start`] says otherwise.
    async fn start(&self, start: Start) -> StoreResult<Started>;

    /// The session with this id, in whatever scope; read from the primary.
    async fn session(&self, id: SessionId) -> StoreResult<Option<Session>>;

    /// Moves a session to its next generation if [`Advance::applies_to`] its row.
    async fn advance(&self, advance: Advance) -> StoreResult<Cas>;

    /// Brings a row that lost writes forward to a position that an authentic token proves, if
    /// [`FastForward::applies_to`] it.
    async fn fast_forward(&self, fast_forward: FastForward) -> StoreResult<Cas>;

    /// Marks generations as confirmed, each only where the row is in that scope, at exactly that generation and not ended.
    async fn confirm(&self, confirmations: Vec<Confirmation>) -> StoreResult<()>;

    /// Writes data and claims if [`Update::applies_to`] the row.
    async fn update(&self, update: Update) -> StoreResult<Cas>;

    /// Ends one session if [`End::applies_to`] its row.
    async fn end(&self, end: End) -> StoreResult<Cas>;

    /// Ends a batch of the sessions that [`EndMany`] selects: active ones, in the order of their ids.
    async fn end_many(&self, end: EndMany) -> StoreResult<EndedMany>;

    /// Records events that changed nothing.
    async fn record(&self, events: Vec<Event>) -> StoreResult<()>;

    /// A page of sessions, newest id first.
    async fn sessions(&self, query: SessionQuery) -> StoreResult<Vec<Session>>;

    /// A page of one session's events, newest first.
    async fn events(&self, query: EventQuery) -> StoreResult<Vec<Event>>;

    /// A page of the users that have sessions or a ban, in byte order of their ids.
    async fn users(&self, query: UserQuery) -> StoreResult<Vec<UserSummary>>;

    /// One user, if it has sessions or a ban.
    async fn user(&self, scope: &Scope, user_id: &UserId, now: Timestamp) -> StoreResult<Option<UserSummary>>;

    /// Erases a user's sessions, events and ban in a scope, all in one step; the revocations stay in the feed until they expire.
    async fn erase_user(&self, erase: EraseUser) -> StoreResult<EndedMany>;

    /// Bans a user and ends a batch of its sessions as [`Store::end_many`] does; starts are refused from this step on.
    async fn ban(&self, ban: BanUser) -> StoreResult<EndedMany>;

    /// Lifts a ban; whether there was one.
    async fn lift_ban(&self, scope: &Scope, user_id: &UserId, audit: AuditEntry) -> StoreResult<bool>;

    /// Revocations after `after` whose access tokens may still live, in the order in which they became visible; of all scopes
    /// when `scope` is `None`.
    async fn revocations(
        &self,
        scope: Option<&Scope>,
        after: u64,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<Revocation>>;

    /// Notes natural ends and removes what ended longer ago than the retention, over one slice of the sessions.
    async fn sweep(&self, sweep: Sweep) -> StoreResult<Swept>;

    /// A number that grows with every change to products, environments, definitions, signing keys or API keys.
    async fn config_version(&self) -> StoreResult<u64>;

    /// All that a server must know to serve a scope.
    async fn scope(&self, scope: &Scope) -> StoreResult<ScopeRead>;

    /// A definition as it was at a version.
    async fn definition(&self, product: &Tag, tag: &Tag, version: u32) -> StoreResult<Option<Definition>>;

    /// Every product, by tag, with its environments and its definitions in their present versions.
    async fn products(&self) -> StoreResult<Vec<ProductRecord>>;

    /// Carries out an administrative change and records it, in one step.
    async fn change(&self, change: Change, audit: AuditEntry) -> StoreResult<Changed>;

    /// Adds a signing key if the newest key of its scope and algorithm is still `newest`; whether it was added. This is what
    /// makes servers agree.
    async fn add_signing_key(&self, key: SigningKey, newest: Option<KeyId>) -> StoreResult<bool>;

    /// Replaces the wrapped private key of keys that exist (the public part never changes).
    async fn rewrap_signing_keys(&self, keys: Vec<SigningKey>) -> StoreResult<()>;

    /// Removes signing keys whose last token has expired.
    async fn remove_signing_keys(&self, kids: Vec<KeyId>) -> StoreResult<()>;

    /// Registers check values of master secrets that are new to this store; returns all that are registered now.
    async fn secret_checks(&self, checks: Vec<(u8, [u8; 16])>) -> StoreResult<Vec<(u8, [u8; 16])>>;

    /// How many unended sessions carry each master secret's key id. May read every session.
    async fn secret_usage(&self) -> StoreResult<Vec<(u8, u64)>>;

    /// Every API key, revoked ones too, oldest first.
    async fn api_keys(&self) -> StoreResult<Vec<ApiKey>>;

    /// Takes notifications that are due and hides them from other takers until `lease`; of each session only the oldest.
    async fn take_notifications(&self, now: Timestamp, lease: Timestamp, limit: u32) -> StoreResult<Vec<Notification>>;

    /// Removes a notification, or puts it back until `retry_at`.
    async fn settle_notification(&self, id: EventId, retry_at: Option<Timestamp>) -> StoreResult<()>;

    /// The audit log after the entry `before` going back in time, newest first.
    async fn audit_log(&self, before: Option<EventId>, limit: u32) -> StoreResult<Vec<AuditEntry>>;

    /// Appends to the audit log what no other intent records.
    async fn append_audit(&self, entry: AuditEntry) -> StoreResult<()>;

    /// Whether the store can be read and written now.
    async fn ping(&self) -> StoreResult<()>;
}

/// One thing that was looked at on the server that keeps a store: for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Whether it is as it should be; otherwise the text says what to do.
    pub ok: bool,
    /// What was found.
    pub text: String,
}

/// A step of a store's schema. Forward only: one that was released never changes, and the release before it can serve while it
/// is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its number; the n-th makes version n of the schema.
    pub version: u32,
    /// Its name.
    pub name: &'static str,
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.version, self.name)
    }
}

/// Shorthand for what a store's methods return.
pub type StoreResult<T> = Result<T, StoreError>;

/// Why a store could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or is overloaded; asking again later is safe. The text is for operators.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A row holds what no version of Rekindle writes.
    #[error("the store is corrupt: table `{table}`, column `{column}`, id {id}")]
    Corrupt {
        /// Where.
        table: &'static str,
        /// Where.
        column: &'static str,
        /// The row's id, printable.
        id: String,
    },
}

/// What came of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cas {
    /// Done; the row as it is now.
    Applied(Session),
    /// The condition did not hold; the row as it is, if there is one.
    Stale(Option<Session>),
}
