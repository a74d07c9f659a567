//! Reading sessions, users and timelines, and writing a session's data.

use async_lock::Semaphore;
use serde_json::{Map, Value};

use super::start::payload;
use super::{Engine, Error};
use crate::clock::Timestamp;
use crate::definition::Violation;
use crate::explain::{self, Explanation};
use crate::journal::{Context, Event, EventId, EventKind, Outcome};
use crate::merge_patch;
use crate::session::{Scope, Session, SessionId, UserId};
use crate::store::{Cas, EventQuery, Revocation, SessionQuery, Update, UserQuery, UserSummary};

/// A change to a session's data or claims: JSON merge patches (RFC 7396), applied whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// For `data`.
    pub data: Option<Map<String, Value>>,
    /// For `claims`; they reach the client with its next access token.
    pub claims: Option<Map<String, Value>>,
    /// Only if the session still has this version.
    pub if_version: Option<u64>,
}

/// What a patch came to.
#[derive(Debug, Clone)]
pub struct Patched {
    /// The session as it is now.
    pub session: Session,
    /// In what its data does not fit its definition's schema, where that only warns.
    pub warnings: Vec<Violation>,
}

/// A session's whole new data or claims, in place of what is there.
#[derive(Debug, Clone, Default)]
pub struct Replace {
    /// For `data`; what is there stays if absent.
    pub data: Option<Map<String, Value>>,
    /// For `claims`; what is there stays if absent.
    pub claims: Option<Map<String, Value>>,
}

/// Which of a session's events to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct TimelineQuery {
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

/// How often a patch without a version is tried on a fresh row before it gives up.
const MAX_RACES: usize = 16;

/// How many of a session's last events an explanation looks at.
const EXPLAINED_EVENTS: u32 = 200;

impl Engine {
    /// A session of this scope, active or ended.
    pub async fn session(&self, scope: &Scope, id: SessionId) -> Result<Session, Error> {
        self.scope(scope).await?;
        let session = self.inner.store.session(id).await?;
        session.filter(|s| s.scope == *scope).ok_or(Error::SessionNotFound(id))
    }

    /// A page of a scope's sessions, newest first.
    pub async fn sessions(&self, query: SessionQuery) -> Result<Vec<Session>, Error> {
        self.scope(&query.scope).await?;
        Ok(self.inner.store.sessions(query).await?)
    }

    /// A session of this scope that is active now, by the store and by the revocation log.
    pub async fn active_session(&self, scope: &Scope, id: SessionId) -> Result<Option<Session>, Error> {
        self.scope(scope).await?;
        let session = self.session_by_log(id).await?;
        Ok(session.filter(|s| s.scope == *scope && s.end(self.now()).is_none()))
    }

    /// Writes data and claims. Two writers never undo each other, and none undoes an ending.
    ///
    /// Without [`Patch::if_version`] the patch is applied to whatever is there, again if somebody else wrote meanwhile.
    pub async fn patch(&self, scope: &Scope, id: SessionId, patch: Patch, ctx: &Context) -> Result<Patched, Error> {
        let apply = |present: Map<String, Value>, patch: &Option<Map<String, Value>>| {
            let mut merged = Value::Object(present);
            if let Some(patch) = patch {
                merge_patch(&mut merged, &Value::Object(patch.clone()));
            }
            match merged {
                Value::Object(map) => map,
                _ => unreachable!("an object patched with an object is an object"),
            }
        };
        let change = |session: &Session| {
            if patch.if_version.is_some_and(|version| version != session.version) {
                return Err(Error::VersionMismatch { present: session.version });
            }
            Ok((apply(session.data.to_map(), &patch.data), apply(session.claims.to_map(), &patch.claims)))
        };
        self.write(scope, id, change, ctx).await
    }

    /// Writes data and claims whole, with the nulls that a patch would take as removals. The last writer wins; none undoes an ending.
    pub async fn replace(&self, scope: &Scope, id: SessionId, with: Replace, ctx: &Context) -> Result<Session, Error> {
        let change = |session: &Session| {
            let data = with.data.clone().unwrap_or_else(|| session.data.to_map());
            Ok((data, with.claims.clone().unwrap_or_else(|| session.claims.to_map())))
        };
        Ok(self.write(scope, id, change, ctx).await?.session)
    }

    async fn write(
        &self,
        scope: &Scope,
        id: SessionId,
        change: impl Fn(&Session) -> Result<(Map<String, Value>, Map<String, Value>), Error>,
        ctx: &Context,
    ) -> Result<Patched, Error> {
        // One after the other here, so that however many there are, only other servers can be faster.
        let turns = self.inner.patches.hold(id, || Semaphore::new(1));
        let _turn = turns.acquire().await;
        let mut session = self.session(scope, id).await?;
        for _ in 0..MAX_RACES {
            let now = self.now();
            if let Some(ended) = session.end(now) {
                return Err(Error::SessionEnded(ended.reason));
            }
            let (update, warnings) = self.changed(&session, change(&session)?, ctx, now).await?;
            match self.inner.store.update(update).await? {
                Cas::Applied(session) => return Ok(Patched { session, warnings }),
                Cas::Stale(None) => return Err(Error::SessionNotFound(id)),
                Cas::Stale(Some(fresh)) => session = fresh,
            }
        }
        Err(Error::Conflict("the session's data changed too often meanwhile; repeat the request".into()))
    }

    /// A page of a session's events, newest first.
    pub async fn timeline(&self, scope: &Scope, id: SessionId, query: TimelineQuery) -> Result<Vec<Event>, Error> {
        self.session(scope, id).await?;
        let TimelineQuery { kind, outcome, from, to, before, limit } = query;
        let query = EventQuery { session_id: id, kind, outcome, from, to, before, limit };
        Ok(self.inner.store.events(query).await?)
    }

    /// Why a session is alive, or how it ended: by which rule, which request, when.
    pub async fn explain(&self, scope: &Scope, id: SessionId) -> Result<Explanation, Error> {
        let session = self.session(scope, id).await?;
        let query = TimelineQuery { limit: EXPLAINED_EVENTS, ..TimelineQuery::default() };
        let events = self.timeline(scope, id, query).await?;
        Ok(explain::explain(&session, &events, self.now()))
    }

    /// A page of the users that have sessions or a ban, in byte order of their ids.
    pub async fn users(&self, scope: &Scope, after: Option<UserId>, limit: u32) -> Result<Vec<UserSummary>, Error> {
        self.scope(scope).await?;
        let query = UserQuery { scope: scope.clone(), after, limit, now: self.now() };
        Ok(self.inner.store.users(query).await?)
    }

    /// One user.
    pub async fn user(&self, scope: &Scope, user_id: &UserId) -> Result<UserSummary, Error> {
        self.scope(scope).await?;
        let user = self.inner.store.user(scope, user_id, self.now()).await?;
        user.ok_or(Error::UserNotFound)
    }

    /// A scope's revocations after a cursor (0: all whose access tokens may still live), oldest first.
    pub async fn revocations(&self, scope: &Scope, after: u64, limit: u32) -> Result<Vec<Revocation>, Error> {
        self.scope(scope).await?;
        Ok(self.inner.store.revocations(Some(scope), after, self.now(), limit).await?)
    }

    async fn changed(
        &self,
        session: &Session,
        (data, claims): (Map<String, Value>, Map<String, Value>),
        ctx: &Context,
        now: Timestamp,
    ) -> Result<(Update, Vec<Violation>), Error> {
        let definition = self.started_with(session).await?;
        if let Some(selector) = &definition.selector {
            let selected = selector.resolve(&data).map_err(|e| Error::SelectorUnresolved(e.to_string()))?;
            if selected != session.user_id {
                return Err(Error::Conflict(format!("{selector} names the session's user, which cannot change")));
            }
        }
        let (data, claims, warnings) = payload(&definition, &data, &claims)?;
        let update = Update {
            id: session.id,
            scope: session.scope.clone(),
            version: session.version,
            data,
            claims,
            event: self.session_event(ctx, now, EventKind::Update, session),
            now,
        };
        Ok((update, warnings))
    }
}
