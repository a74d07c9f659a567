//! Ending sessions: sign-out, revocation of one, some or all, bans, erasure.

use std::fmt;

use super::{Engine, Error, TokenRefusal};
use crate::clock::Timestamp;
use crate::journal::{Context, Event, EventKind};
use crate::session::{EndReason, Ended, Scope, Session, SessionId, Tag, UserId};
use crate::store::{
    AuditEntry, Ban, BanUser, Cas, End, EndMany, EndedMany, EndedSession, Ending, EraseUser, StoreError,
};

/// The token that a client signs out with; it may have expired. It never prints itself.
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub enum PresentedToken<'a> {
    Refresh(&'a str),
    Access(&'a str),
}

impl fmt::Debug for PresentedToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refresh(_) => "Refresh(…)",
            Self::Access(_) => "Access(…)",
        })
    }
}

/// Which sessions of a scope to end; the filters that are given must all hold.
#[derive(Debug, Clone, Default)]
pub struct EndAll {
    /// This user's.
    pub user_id: Option<UserId>,
    /// All but this one.
    pub except: Option<SessionId>,
    /// With this tag.
    pub tag: Option<Tag>,
    /// Started at or before this.
    pub started_until: Option<Timestamp>,
    /// Started or refreshed at or after this.
    pub refreshed_from: Option<Timestamp>,
}

/// How many sessions one atomic step ends at most.
const BATCH: u32 = 500;

impl Engine {
    /// Signs out: ends the session of a token that this server issued, whether the token is still good or not. Idempotent.
    pub async fn sign_out(
        &self,
        scope: &Scope,
        token: PresentedToken<'_>,
        ctx: &Context,
    ) -> Result<Result<(), TokenRefusal>, Error> {
        let id = match token {
            PresentedToken::Refresh(text) => match self.authenticate(text) {
                Ok(presented) => presented.session,
                Err(_) => return Ok(Err(TokenRefusal::Malformed)),
            },
            PresentedToken::Access(text) => match self.read_access_token(scope, text).await? {
                Ok(verified) => verified.session,
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        Ok(match self.end_by_id(scope, id, EndReason::SignedOut, ctx, None).await?.1 {
            Some(session) if session.scope != *scope => Err(TokenRefusal::ScopeMismatch),
            _ => Ok(()),
        })
    }

    /// Ends a session. Idempotent: the first reason stays.
    pub async fn revoke(&self, scope: &Scope, id: SessionId, reason: EndReason, ctx: &Context) -> Result<(), Error> {
        let audit = self.audit(ctx, "session.revoke", format!("{scope}/sessions/{id}"));
        match self.end_by_id(scope, id, reason, ctx, Some(audit)).await?.1 {
            Some(session) if session.scope == *scope => Ok(()),
            _ => Err(Error::SessionNotFound(id)),
        }
    }

    /// Ends a session on behalf of the application; whether it was active until then. Idempotent.
    pub async fn end(&self, scope: &Scope, id: SessionId, reason: EndReason, ctx: &Context) -> Result<bool, Error> {
        Ok(self.end_by_id(scope, id, reason, ctx, None).await?.0)
    }

    /// Ends the active sessions that pass all filters and had started by now; how many that were.
    pub async fn revoke_all(
        &self,
        scope: &Scope,
        which: EndAll,
        reason: EndReason,
        ctx: &Context,
    ) -> Result<u64, Error> {
        let state = self.scope(scope).await?;
        let now = self.now();
        let EndAll { user_id, except, tag, started_until, refreshed_from } = which;
        let audit = self.audit(
            ctx,
            "sessions.revoke",
            match &user_id {
                Some(user_id) => user_target(scope, user_id),
                None => format!("{scope}/sessions"),
            },
        );
        let end = EndMany {
            scope: scope.clone(),
            user_id,
            except,
            tag,
            // What starts from here on is not meant, and would make the batches endless.
            started_until: Some(started_until.map_or(now, |until| until.min(now))),
            // Rows carry whole seconds: who was refreshed in the second of that moment is meant, too.
            refreshed_from: refreshed_from.map(|t| Timestamp::from_secs(t.secs())),
            after: None,
            limit: BATCH,
            ending: self.ending(ctx, now, reason, &state),
            audit: Some(audit),
        };
        self.end_batches(end, None).await
    }

    /// Bans a user: its sessions end, and none can start until the ban is over or lifted. How many ended.
    pub async fn ban(
        &self,
        scope: &Scope,
        user_id: &UserId,
        until: Option<Timestamp>,
        reason: Option<String>,
        ctx: &Context,
    ) -> Result<u64, Error> {
        let state = self.scope(scope).await?;
        let now = self.now();
        if until.is_some_and(|until| until <= now) {
            return Err(Error::Invalid { field: "until", problem: format!("is not after now, {now}") });
        }
        let audit = self.audit(ctx, "user.ban", user_target(scope, user_id));
        let event = Event {
            user_id: Some(user_id.clone()),
            notify: self.notifies(&scope.product, EventKind::UserBanned),
            ..self.event(ctx, now, EventKind::UserBanned)
        };
        let end = EndMany {
            scope: scope.clone(),
            user_id: Some(user_id.clone()),
            except: None,
            tag: None,
            started_until: None,
            refreshed_from: None,
            after: None,
            limit: BATCH,
            ending: self.ending(ctx, now, EndReason::Banned, &state),
            audit: Some(audit),
        };
        let first = BanUser { ban: Ban { at: now, until, reason }, end: end.clone(), event };
        let first = self.inner.store.ban(first).await?;
        self.end_batches(end, Some(first)).await
    }

    /// Lifts a ban; whether there was one.
    pub async fn lift_ban(&self, scope: &Scope, user_id: &UserId, ctx: &Context) -> Result<bool, Error> {
        self.scope(scope).await?;
        let audit = self.audit(ctx, "user.lift_ban", user_target(scope, user_id));
        Ok(self.inner.store.lift_ban(scope, user_id, audit).await?)
    }

    /// Erases a user's sessions, events and ban; how many sessions were still active. Its access tokens are refused online and
    /// through the feed.
    pub async fn erase_user(&self, scope: &Scope, user_id: &UserId, ctx: &Context) -> Result<u64, Error> {
        let state = self.scope(scope).await?;
        let ending = self.ending(ctx, self.now(), EndReason::UserDeleted, &state);
        let feed_until = ending.feed_until;
        let audit = self.audit(ctx, "user.erase", user_target(scope, user_id));
        let erase = EraseUser { scope: scope.clone(), user_id: user_id.clone(), ending, audit };
        let erased = self.inner.store.erase_user(erase).await?;
        let count = self.many_ended(erased, feed_until).await?;
        self.complete_log().await?;
        Ok(count)
    }

    /// Ends one session, and makes that known; whether it was ended now, and the row.
    pub(super) async fn end_one(&self, end: End) -> Result<(bool, Option<Session>), Error> {
        let feed_until = end.ending.feed_until;
        match self.inner.store.end(end).await? {
            Cas::Applied(session) => {
                let ended = session.ended.expect("the store applied an ending");
                self.ended(vec![EndedSession::of(&session, ended.at, ended.reason)], feed_until).await?;
                Ok((true, Some(session)))
            }
            Cas::Stale(session) => Ok((false, session)),
        }
    }

    /// Ends batch after batch until everything was seen, from what came of the first one if that was done; how many ended.
    pub(super) async fn end_batches(&self, mut end: EndMany, first: Option<EndedMany>) -> Result<u64, Error> {
        end.limit = BATCH;
        let first_event = end.ending.event.id;
        let mut count = 0;
        let mut batch = match first {
            Some(batch) => batch,
            None => self.inner.store.end_many(end.clone()).await?,
        };
        loop {
            end.after = batch.next;
            count += self.many_ended(batch, end.ending.feed_until).await?;
            if end.after.is_none() {
                break;
            }
            end.ending.event.id = first_event.nth(count as u32);
            batch = self.inner.store.end_many(end.clone()).await?;
        }
        self.complete_log().await?;
        Ok(count)
    }

    async fn many_ended(&self, EndedMany { ended, idle, .. }: EndedMany, feed_until: Timestamp) -> Result<u64, Error> {
        let count = ended.len() as u64;
        let logged = self.ended(ended, feed_until).await;
        self.note_ended(idle, feed_until).await.and(logged)?;
        Ok(count)
    }

    /// Before many endings are acknowledged: an earlier try may have ended some and lost the answer. The feed knows them.
    async fn complete_log(&self) -> Result<(), Error> {
        self.read_feed().await?.1
    }

    /// A session's row, ended if the revocation log says so. The log is asked after the store, which may lose its last writes
    /// at any moment.
    pub(super) async fn session_by_log(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let mut session = self.inner.store.session(id).await?;
        if let Some(reason) = self.known_ending(id).await?
            && let Some(session) = &mut session
        {
            session.ended.get_or_insert(Ended { at: self.now(), reason });
        }
        Ok(session)
    }

    /// The ending that the revocation log knows of, whatever the store says; the store is told again if it lost it.
    pub(super) async fn known_ending(&self, id: SessionId) -> Result<Option<EndReason>, StoreError> {
        let Some(known) = self.inner.log.ended(id) else { return Ok(None) };
        Box::pin(self.end_again(known)).await?;
        Ok(Some(known.reason))
    }

    /// Carries out an ending that the revocation log knows of and the store may have lost.
    pub(super) async fn end_again(&self, known: EndedSession) -> Result<(), StoreError> {
        let Some(session) = self.inner.store.session(known.id).await? else { return Ok(()) };
        let now = self.now();
        if session.end(now).is_some() {
            return Ok(());
        }
        let event = Context::default().event(crate::journal::EventId::draw(now, &*self.inner.rng), now, EventKind::End);
        let feed_until = now + crate::definition::Definition::MAX_ACCESS_LIFETIME.seconds();
        // The ending was acknowledged then; it counts from now for tokens that were issued since.
        let ending = Ending { at: now, reason: known.reason, feed_until, event };
        let end = End { id: known.id, scope: session.scope, decided_on: None, ending, cause: None, audit: None };
        if let Cas::Applied(session) = self.inner.store.end(end).await? {
            self.note_revoked(session.id, None, feed_until);
        }
        Ok(())
    }

    /// Ends a session by its id; whether that ended it, and the row afterwards. Also completes an ending whose log entry failed.
    async fn end_by_id(
        &self,
        scope: &Scope,
        id: SessionId,
        reason: EndReason,
        ctx: &Context,
        audit: Option<AuditEntry>,
    ) -> Result<(bool, Option<Session>), Error> {
        let state = self.scope(scope).await?;
        let now = self.now();
        let ending = self.ending(ctx, now, reason, &state);
        let feed_until = ending.feed_until;
        let end = End { id, scope: scope.clone(), decided_on: None, ending, cause: None, audit };
        let (applied, session) = self.end_one(end).await?;
        if let Some(session) = &session
            && !applied
            && let Some(ended) = session.end(now)
            && session.scope == *scope
            && session.expires_at > now
            && self.inner.log.ended(id).is_none()
        {
            // A row that lost writes may only seem to be idle: from here on no newer token brings it forward.
            let reason = if ended.reason == EndReason::Idle { reason } else { ended.reason };
            self.note_ended(vec![EndedSession::of(session, ended.at, reason)], feed_until).await?;
        }
        Ok((applied, session))
    }
}

fn user_target(scope: &Scope, user_id: &UserId) -> String {
    format!("{scope}/users/{user_id}")
}
