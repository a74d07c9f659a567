//! What is listed.

use super::Ban;
use crate::clock::Timestamp;
use crate::journal::{Event, EventId, EventKind, Outcome};
use crate::session::{Scope, Session, SessionId, Tag, UserId};

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
