//! What is done to sessions and users.

use serde::{Deserialize, Serialize};

use super::AuditEntry;
use crate::clock::{Seconds, Timestamp};
use crate::definition::OnMaxSessions;
use crate::journal::Event;
use crate::refresh::Commitment;
use crate::rotation::Position;
use crate::session::{Auth, EndReason, Object, Scope, Session, SessionId, Tag, UserId};

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
