//! What goes on beside requests: the revocation feed, sweeps, notifications.

use super::{EndedSession, Ending};
use crate::clock::{Seconds, Timestamp};
use crate::journal::Event;
use crate::session::{EndReason, Scope, Session, SessionId, Tag};

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
