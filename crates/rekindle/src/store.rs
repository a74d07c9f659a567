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

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::{Seconds, Timestamp};
use crate::definition::{Definition, OnMaxSessions};
use crate::journal::{Event, EventId, EventKind, Outcome};
use crate::keys::{KeyId, SigningKey};
use crate::refresh::Commitment;
use crate::rotation::Position;
use crate::session::{Auth, EndReason, Env, Object, Scope, Session, SessionId, Tag, UserId};

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

/// Start a session.
#[derive(Debug, Clone)]
pub struct Start {
    /// The new row. With `previous_session_id`, that session is ended as `replaced` in the same step; it must be active, in
    /// the same scope, and of the same user or of an anonymous one.
    pub session: Session,
    /// Makes a repeated request give the same session.
    pub idempotency: Option<Idempotency>,
    /// The user's maximum number of active sessions of this tag, counting the new one but not the one that it replaces; never
    /// applied to anonymous users.
    pub max_sessions: Option<(u32, OnMaxSessions)>,
    /// The `session.start` event.
    pub event: Event,
    /// For the sessions that are ended by this start. The store sets the reason.
    pub ending: Ending,
}

/// An idempotency key's hash with its request's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// SHA-256 of the key; it is unique in its scope until it expires.
    pub key: [u8; 32],
    /// SHA-256 of the request.
    pub request: [u8; 32],
    /// When the key is forgotten.
    pub expires_at: Timestamp,
}

/// What came of a start. Checked in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// The idempotency key was used for another request.
    IdempotencyMismatch,
    /// The same request was made before: its idempotency key is known, or (whose answer was lost) its session's id is. The
    /// session as it is now; `None`: it was removed since.
    Repeated(Option<Box<Session>>),
    /// The user is banned.
    Banned(Ban),
    /// The session to be replaced is not there, not active, or of another user.
    PreviousUnusable,
    /// The user has this many active sessions, and the policy is to reject.
    TooManySessions(u32),
    /// Done; these were ended by it.
    Created(Vec<EndedSession>),
}

/// Move a session to its next generation.
#[derive(Debug, Clone)]
pub struct Advance {
    /// Which session.
    pub id: SessionId,
    /// Only in this scope.
    pub scope: Scope,
    /// Only with this tag: `idle_timeout` was taken from its definition.
    pub tag: Tag,
    /// Only while the row is at this generation …
    pub generation: u32,
    /// … with this commitment.
    pub commitment: Commitment,
    /// The next position.
    pub next: Position,
    /// The idle clock restarts with this: `idle_expires_at = min(now + idle_timeout, expires_at)`.
    pub idle_timeout: Seconds,
    /// A re-authentication: recorded, and access tokens of older generations are refused (and enter the feed).
    pub elevation: Option<Elevation>,
    /// The `session.refresh` event.
    pub event: Event,
    /// The present moment; both expiries must lie after it.
    pub now: Timestamp,
}

/// A re-authentication.
#[derive(Debug, Clone)]
pub struct Elevation {
    /// The new authentication.
    pub auth: Auth,
    /// Until when older access tokens may live: how long the feed must tell.
    pub feed_until: Timestamp,
}

impl Advance {
    /// The condition: same scope, tag, generation and commitment; not ended, no clock run out.
    pub fn applies_to(&self, session: &Session) -> bool {
        session.scope == self.scope
            && session.tag == self.tag
            && session.position.generation == self.generation
            && session.position.commitment == self.commitment
            && session.ended.is_none()
            && session.idle_expires_at > self.now
            && session.expires_at > self.now
    }

    /// The effect on the row. An elevation in place (`next` is where the row is) keeps the confirmation.
    pub fn apply(&self, session: &mut Session) {
        session.confirmed &= self.next == session.position;
        session.position = self.next;
        session.idle_expires_at = (self.now + self.idle_timeout).min(session.expires_at);
        if let Some(elevation) = &self.elevation {
            session.auth = elevation.auth.clone();
            session.min_generation = self.next.generation;
        }
    }
}

/// Bring a row that lost writes forward.
#[derive(Debug, Clone)]
pub struct FastForward {
    /// Which session.
    pub id: SessionId,
    /// Only in this scope.
    pub scope: Scope,
    /// Only while the row is still at this generation.
    pub generation: u32,
    /// Where the authentic token says that the session had been. The row becomes confirmed.
    pub to: Position,
    /// The idle clock restarts now.
    pub idle_timeout: Seconds,
    /// The `session.refresh` event with outcome `fast_forwarded`.
    pub event: Event,
    /// The present moment; the absolute expiry must lie after it.
    pub now: Timestamp,
}

impl FastForward {
    /// The condition: same scope, the expected earlier generation; not ended (but for a noted idle expiry), absolute expiry
    /// not reached.
    pub fn applies_to(&self, session: &Session) -> bool {
        session.scope == self.scope
            && session.position.generation == self.generation
            && self.generation < self.to.generation
            && session.ended.is_none_or(|e| e.reason == EndReason::Idle)
            && session.expires_at > self.now
    }

    /// The effect on the row.
    pub fn apply(&self, session: &mut Session) {
        session.position = self.to;
        session.confirmed = true;
        session.idle_expires_at = (self.now + self.idle_timeout).min(session.expires_at);
        session.ended = None;
    }
}

/// A generation is known to have reached its client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Confirmation {
    /// Only in this scope.
    pub scope: Scope,
    /// Which session.
    pub session_id: SessionId,
    /// Only if the row is at this very generation.
    pub generation: u32,
}

/// Write data and claims.
#[derive(Debug, Clone)]
pub struct Update {
    /// Which session.
    pub id: SessionId,
    /// Only in this scope.
    pub scope: Scope,
    /// Only while the row has this version; it grows by one.
    pub version: u64,
    /// The whole new data.
    pub data: Object,
    /// The whole new claims.
    pub claims: Object,
    /// The `session.update` event.
    pub event: Event,
    /// The present moment; both expiries must lie after it.
    pub now: Timestamp,
}

impl Update {
    /// The condition: same scope and version; not ended, no clock run out. A slow writer never undoes a logout.
    pub fn applies_to(&self, session: &Session) -> bool {
        session.scope == self.scope && session.version == self.version && session.end(self.now).is_none()
    }

    /// The effect on the row.
    pub fn apply(&self, session: &mut Session) {
        session.version += 1;
        session.data = self.data.clone();
        session.claims = self.claims.clone();
    }
}

/// How sessions are ended.
#[derive(Debug, Clone)]
pub struct Ending {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// Until when access tokens of the ended sessions may live: how long the feed must tell.
    pub feed_until: Timestamp,
    /// The `session.end` event. The store gives each session's its own: [`Ending::event_for`].
    pub event: Event,
}

impl Ending {
    /// Whether a session is active, or is idle before its absolute expiry, so that a fast-forward might bring it back.
    pub fn concerns(&self, session: &Session) -> bool {
        session.expires_at > self.at && session.end(self.at).is_none_or(|e| e.reason == EndReason::Idle)
    }

    /// The event of the `i`-th session that this ends.
    pub fn event_for(&self, session: &Session, i: u32, reason: EndReason) -> Event {
        Event {
            id: self.event.id.nth(i),
            session_id: Some(session.id),
            user_id: self.event.notify.then(|| session.user_id.clone()),
            generation: session.position.generation,
            reason: Some(reason),
            ..self.event.clone()
        }
    }
}

/// End one session.
#[derive(Debug, Clone)]
pub struct End {
    /// Which session.
    pub id: SessionId,
    /// Only in this scope.
    pub scope: Scope,
    /// Only while the row is at this generation with this commitment: the row that was decided on.
    pub decided_on: Option<(u32, Commitment)>,
    /// How.
    pub ending: Ending,
    /// Written before the ending's own event, e.g. `session.theft_detected`.
    pub cause: Option<Event>,
    /// Who did it, where that was an administrator.
    pub audit: Option<AuditEntry>,
}

impl End {
    /// The condition: same scope, the decided-on position if any, and not ended (naturally or otherwise).
    pub fn applies_to(&self, session: &Session) -> bool {
        session.scope == self.scope
            && self.decided_on.is_none_or(|(generation, commitment)| {
                session.position.generation == generation && session.position.commitment == commitment
            })
            && session.end(self.ending.at).is_none()
    }
}

/// End the active sessions of a scope that pass all filters.
#[derive(Debug, Clone)]
pub struct EndMany {
    /// Only in this scope.
    pub scope: Scope,
    /// Only this user's.
    pub user_id: Option<UserId>,
    /// All but this one.
    pub except: Option<SessionId>,
    /// Only with this tag.
    pub tag: Option<Tag>,
    /// Only those that started at or before this.
    pub started_until: Option<Timestamp>,
    /// Only those that were started or refreshed at or after this.
    pub refreshed_from: Option<Timestamp>,
    /// Only ids after this one: where the last batch ended.
    pub after: Option<SessionId>,
    /// How many sessions to select at most in this step.
    pub limit: u32,
    /// How.
    pub ending: Ending,
    /// Who did it. Written with the first batch (`after` is `None`).
    pub audit: Option<AuditEntry>,
}

impl EndMany {
    /// Whether a session passes the filters and [`Ending::concerns`] it.
    pub fn selects(&self, session: &Session) -> bool {
        session.scope == self.scope
            && self.user_id.as_ref().is_none_or(|u| *u == session.user_id)
            && self.except != Some(session.id)
            && self.tag.as_ref().is_none_or(|t| *t == session.tag)
            && self.started_until.is_none_or(|t| session.created_at <= t)
            && self.refreshed_from.is_none_or(|t| session.last_refreshed_at() >= t)
            && self.after.is_none_or(|a| session.id > a)
            && self.ending.concerns(session)
    }
}

/// What a batch ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndedMany {
    /// The sessions that were ended.
    pub ended: Vec<EndedSession>,
    /// Sessions that are idle, so that nothing was written, as if ended: a row that lost writes may only seem to be idle, and
    /// the revocation log must know that no newer token brings it back.
    pub idle: Vec<EndedSession>,
    /// Ask again with this as `after`; `None` when everything was seen.
    pub next: Option<SessionId>,
}

/// A session that was just ended: what the revocation log keeps of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedSession {
    /// Which one.
    pub id: SessionId,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// Its absolute expiry: until then a restored backup could bring it back.
    pub expires_at: Timestamp,
}

impl EndedSession {
    /// What is kept of `session`, which ends `at` for `reason`.
    pub fn of(session: &Session, at: Timestamp, reason: EndReason) -> Self {
        Self { id: session.id, at, reason, expires_at: session.expires_at }
    }
}

/// Which sessions to list.
#[derive(Debug, Clone)]
pub struct SessionQuery {
    /// In which scope.
    pub scope: Scope,
    /// Only this user's.
    pub user_id: Option<UserId>,
    /// Only with this tag.
    pub tag: Option<Tag>,
    /// Only active (`true`) or ended (`false`) ones, at `now`.
    pub active: Option<bool>,
    /// Only those that started after this.
    pub started_after: Option<Timestamp>,
    /// Only those that started before this.
    pub started_before: Option<Timestamp>,
    /// Only ids before this one: where the last page ended.
    pub before: Option<SessionId>,
    /// How many at most.
    pub limit: u32,
    /// The present moment.
    pub now: Timestamp,
}

impl SessionQuery {
    /// Whether a session passes the filters.
    pub fn selects(&self, session: &Session) -> bool {
        session.scope == self.scope
            && self.user_id.as_ref().is_none_or(|u| *u == session.user_id)
            && self.tag.as_ref().is_none_or(|t| *t == session.tag)
            && self.active.is_none_or(|a| a == session.end(self.now).is_none())
            && self.started_after.is_none_or(|t| session.created_at > t)
            && self.started_before.is_none_or(|t| session.created_at < t)
            && self.before.is_none_or(|b| session.id < b)
    }
}

/// Which events of a session to list.
#[derive(Debug, Clone)]
pub struct EventQuery {
    /// Of which session.
    pub session_id: SessionId,
    /// Only of this kind.
    pub kind: Option<EventKind>,
    /// Only with this outcome.
    pub outcome: Option<Outcome>,
    /// Only at or after this.
    pub from: Option<Timestamp>,
    /// Only before this.
    pub to: Option<Timestamp>,
    /// Only ids before this one: where the last page ended.
    pub before: Option<EventId>,
    /// How many at most.
    pub limit: u32,
}

impl EventQuery {
    /// Whether an event passes the filters.
    pub fn selects(&self, event: &Event) -> bool {
        event.session_id == Some(self.session_id)
            && self.kind.is_none_or(|k| k == event.kind)
            && self.outcome.is_none_or(|o| Some(o) == event.outcome)
            && self.from.is_none_or(|t| event.at >= t)
            && self.to.is_none_or(|t| event.at < t)
            && self.before.is_none_or(|b| event.id < b)
    }
}

/// Which users to list.
#[derive(Debug, Clone)]
pub struct UserQuery {
    /// In which scope.
    pub scope: Scope,
    /// Only ids after this one, in byte order.
    pub after: Option<UserId>,
    /// How many at most.
    pub limit: u32,
    /// The present moment.
    pub now: Timestamp,
}

/// What is known of a user in a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSummary {
    /// Who.
    pub user_id: UserId,
    /// Sessions that are kept, ended ones included.
    pub sessions: u64,
    /// Those of them that are active.
    pub active_sessions: u64,
    /// When the first of them started.
    pub first_seen: Option<Timestamp>,
    /// When one of them was last started or refreshed.
    pub last_seen: Option<Timestamp>,
    /// The ban in force, if any.
    pub ban: Option<Ban>,
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Since when.
    pub at: Timestamp,
    /// Until when; for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Ban {
    /// Whether it is in force at `now`.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Ban a user.
#[derive(Debug, Clone)]
pub struct BanUser {
    /// The ban; it replaces an earlier one.
    pub ban: Ban,
    /// Which sessions to end: the user's, all of them. Its `user_id` is the user to ban.
    pub end: EndMany,
    /// The `user.banned` event; it enters the outbox only, with the first batch.
    pub event: Event,
}

/// Erase a user.
#[derive(Debug, Clone)]
pub struct EraseUser {
    /// In which scope.
    pub scope: Scope,
    /// Whom.
    pub user_id: UserId,
    /// For the feed and the outbox; no event stays in the journal.
    pub ending: Ending,
    /// Who did it.
    pub audit: AuditEntry,
}

/// An entry of the revocation feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Grows with every entry, and is at least [`Revocation::at`] in microseconds, so that a store which lost its last entries
    /// does not use their numbers again; the feed's cursor.
    pub seq: u64,
    /// In which scope.
    pub scope: Scope,
    /// Which session.
    pub session_id: SessionId,
    /// Which of its access tokens are refused.
    pub what: Revoked,
    /// When.
    pub at: Timestamp,
    /// When the last access token that it concerns has expired.
    pub expires_at: Timestamp,
}

impl Revocation {
    /// The number of the entry after the one with number `last`.
    pub fn next_seq(last: u64, at: Timestamp) -> u64 {
        (last + 1).max(u64::try_from(at.millis()).unwrap_or(0).saturating_mul(1000))
    }

    /// What the revocation log keeps of it, if the session has ended.
    pub fn ended(&self) -> Option<EndedSession> {
        match self.what {
            Revoked::Ended { reason, expires_at } => {
                Some(EndedSession { id: self.session_id, at: self.at, reason, expires_at })
            }
            Revoked::Below(_) => None,
        }
    }

    /// Only access tokens of generations before this one; `None`: all of the session's.
    pub fn below_generation(&self) -> Option<u32> {
        match self.what {
            Revoked::Ended { .. } => None,
            Revoked::Below(generation) => Some(generation),
        }
    }
}

/// What an entry of the revocation feed refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// The session has ended: all of its access tokens.
    Ended {
        /// Why.
        reason: EndReason,
        /// The session's absolute expiry.
        expires_at: Timestamp,
    },
    /// The session was elevated: access tokens of generations before this one.
    Below(u32),
}

/// Work through one slice of the sessions.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The present moment.
    pub now: Timestamp,
    /// How long after its natural end a session and its events stay readable.
    pub retention: Seconds,
    /// Only ids after this one: where the last slice ended.
    pub after: Option<SessionId>,
    /// How many sessions to look at.
    pub budget: u32,
    /// The template of the `session.end` events for natural ends. The store sets reason and time.
    pub ending: Ending,
    /// The products whose webhooks are told of ends.
    pub notify: Vec<Tag>,
}

impl Sweep {
    /// Whether a session is to be removed: its natural end (its expiry, for a revoked one) is past by the retention.
    pub fn removes(&self, session: &Session) -> bool {
        let natural_end = match session.ended {
            Some(ended) if ended.reason != EndReason::Idle => session.expires_at,
            _ => session.idle_expires_at.min(session.expires_at),
        };
        natural_end + self.retention <= self.now
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Natural ends that were noted.
    pub ended: u64,
    /// Sessions that were removed with their events.
    pub removed: u64,
    /// Where to go on; `None` when the end was reached (expired idempotency keys, feed entries and bans are removed then).
    pub next: Option<SessionId>,
}

/// A product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Its tag.
    pub tag: Tag,
    /// Its name.
    pub name: String,
}

/// An environment of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Its slug.
    pub slug: Env,
    /// Its name.
    pub name: String,
    /// In an inactive one, start and refresh are refused.
    pub active: bool,
}

/// A product with what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProductRecord {
    /// The product.
    pub product: Product,
    /// Its environments, by slug.
    pub environments: Vec<Environment>,
    /// Its definitions with their versions, by tag.
    pub definitions: Vec<(u32, Definition)>,
}

/// What [`Store::scope`] found.
#[derive(Debug, Clone)]
pub enum ScopeRead {
    /// There is no such product.
    NoProduct,
    /// The product has no such environment.
    NoEnvironment,
    /// Here it is.
    Found(Box<ScopeRecord>),
}

/// All that a server must know to serve a scope.
#[derive(Debug, Clone)]
pub struct ScopeRecord {
    /// The environment.
    pub environment: Environment,
    /// The product's definitions with their versions.
    pub definitions: Vec<(u32, Definition)>,
    /// The scope's signing keys.
    pub keys: Vec<SigningKey>,
    /// The longest lifetime of access tokens that any definition of the product ever had, deleted ones included.
    pub longest_access: Seconds,
}

/// An administrative change.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Change {
    CreateProduct(Product),
    UpdateProduct(Product),
    /// With its environments and definitions; refused while sessions of it are active.
    DeleteProduct {
        product: Tag,
        now: Timestamp,
    },
    CreateEnvironment(Tag, Environment),
    UpdateEnvironment(Tag, Environment),
    /// Refused while sessions of it are active.
    DeleteEnvironment {
        scope: Scope,
        now: Timestamp,
    },
    CreateDefinition(Tag, Definition),
    /// Makes a new version, if the present one is still `version`.
    UpdateDefinition {
        product: Tag,
        version: u32,
        definition: Definition,
    },
    /// Refused while sessions of it are active.
    DeleteDefinition {
        product: Tag,
        tag: Tag,
        now: Timestamp,
    },
    CreateApiKey(ApiKey),
    RevokeApiKey {
        id: String,
        at: Timestamp,
    },
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Done.
    Done,
    /// What was to be created exists.
    Exists,
    /// The product is not there.
    NoProduct,
    /// What was to be changed is not there.
    Missing,
    /// So many sessions of it are active.
    InUse(u64),
    /// Somebody else changed it meanwhile.
    Stale,
}

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Start, refresh, verify, end and change sessions.
    Sessions,
    /// Read sessions, users, events and configuration.
    Read,
    /// Report confirmations and follow the revocation feed.
    Confirm,
    /// Everything, configuration and keys included.
    Admin,
    /// Read the metrics.
    Metrics,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 5] = [Self::Sessions, Self::Read, Self::Confirm, Self::Admin, Self::Metrics];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Read => "read",
            Self::Confirm => "confirm",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

/// An API key as the store keeps it: the secret itself is shown once and never kept.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public id.
    pub id: String,
    /// What it is for, in the operator's words.
    pub name: String,
    /// SHA-256 of the secret text, which has 256 bits of entropy.
    pub hash: [u8; 32],
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}, {:?})", self.id, self.permissions)
    }
}

/// An event on its way to a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// In which scope.
    pub scope: Scope,
    /// The event; its id identifies the notification.
    pub event: Event,
    /// How often it was taken, this time included.
    pub attempts: u32,
}

/// Who changed what, when, from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its id; ids sort by time.
    pub id: EventId,
    /// When.
    pub at: Timestamp,
    /// Who: an API key's id, or `cli`.
    pub actor: String,
    /// What was done, like `definition.update`.
    pub action: String,
    /// To what, like `shop/definitions/default`.
    pub target: String,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// By which request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}
