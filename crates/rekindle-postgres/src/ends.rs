//! What ends sessions: one by one, many at once, a ban, an erasure, and time.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use rekindle::clock::Timestamp;
use rekindle::session::{EndReason, Ended, Session, SessionId};
use rekindle::store::*;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::database::{Database, Failure, Statement, statement};
use crate::gather::{GROUP, Shared};
use crate::row::{Cells, scope_bytes};
use crate::sessions::{find, lock_user, read_sessions, session_columns, uuid};
use crate::transaction::{Intent, Transaction, Transactional, column};
use crate::users::write_bans;

/// How many transactions that end single sessions are under way at once: at the feed, they take turns.
const LANES: usize = 2;
/// How many sessions one step of an unbounded walk looks at.
const WALK: u32 = 20_000;

/// The condition that an id lies after the one in a parameter, or that there is none. As a range, for the index.
macro_rules! id_after {
    ($param:literal) => {
        concat!(
            "(id >= coalesce(",
            $param,
            "::uuid, '00000000-0000-0000-0000-000000000000') AND id IS DISTINCT FROM ",
            $param,
            "::uuid)"
        )
    };
}
pub(crate) use id_after;

/// The condition that an id does not lie after the one in a parameter, or that there is none.
macro_rules! id_up_to {
    ($param:literal) => {
        concat!("id <= coalesce(", $param, "::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')")
    };
}

/// The condition of [`Ending::concerns`] at `$1`.
macro_rules! concerned {
    () => {
        "(expires_at > $1 AND (ended_at IS NULL OR ended_reason = 'idle'))"
    };
}

macro_rules! select_to_end {
    ($user:literal) => {
        concat!(
            "SELECT id FROM sessions WHERE scope = $2 AND ",
            id_after!("$3"),
            " AND ",
            id_up_to!("$4"),
            " AND ",
            $user,
            " AND id IS DISTINCT FROM $6 AND ($7::text IS NULL OR tag = $7) AND ($8::bigint IS NULL OR created_at <= $8)
              AND ($9::bigint IS NULL OR greatest(issued_at * 1000, created_at) >= $9) AND ",
            concerned!(),
            " ORDER BY id LIMIT $10"
        )
    };
}

const SELECT_TO_END: &str = select_to_end!("$5::bytea IS NULL");
const SELECT_TO_END_OF_USER: &str = select_to_end!("user_id = $5");

/// Ends active sessions that the transaction has locked: rows, feed, events.
pub(crate) fn end_sessions(
    tx: &mut Transaction<'_>,
    sessions: &[(Session, EndReason)],
    ending: &Ending,
) -> Vec<EndedSession> {
    let mut ended = Vec::with_capacity(sessions.len());
    for ((session, reason), i) in sessions.iter().zip(0..) {
        tx.end(session.id, Ended { at: ending.at, reason: *reason });
        let what = Revoked::Ended { reason: *reason, expires_at: session.expires_at };
        tx.revoke(&session.scope, session.id, what, ending.at, ending.feed_until);
        tx.journal(&session.scope, ending.event_for(session, i, *reason));
        ended.push(EndedSession::of(session, ending.at, *reason));
    }
    ended
}

/// The ends of single sessions of a store.
pub(crate) type Ends = Gather<End, Cas>;

pub(crate) fn ends() -> Arc<Ends> {
    Gather::new(LANES, GROUP)
}

#[async_trait]
impl Shared for End {
    type Outcome = Cas;

    async fn together(database: &Database, asked: &[&Self]) -> StoreResult<Vec<Option<StoreResult<Cas>>>> {
        let ended = database.once(&Transactional(Together(asked))).await?;
        let Some(ended) = ended else { return Ok(vec![None; asked.len()]) };
        Ok(ended.into_iter().map(|outcome| outcome.map(Ok)).collect())
    }

    async fn alone(&self, database: &Database) -> StoreResult<Cas> {
        database.run(Transactional(self.clone())).await
    }
}

/// Ends in one transaction, which waits for no session's lock; what came of each whose session is there and free. Of two ends
/// of one session, the second is to be carried out alone.
struct Together<'a>(&'a [&'a End]);

#[async_trait]
impl Intent for Together<'_> {
    type Outcome = Vec<Option<Cas>>;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Vec<Option<Cas>>, Failure> {
        let sql = concat!(
            "SELECT ",
            session_columns!(),
            " FROM sessions WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE SKIP LOCKED"
        );
        let [rows] = tx.read([statement!(sql, column(self.0, |end| uuid(end.id)))]).await?;
        let locked = read_sessions(&rows)?;
        let mut locked: HashMap<SessionId, Session> = locked.into_iter().map(|s| (s.id, s)).collect();
        Ok(self.0.iter().map(|end| Some(end_one(tx, end, locked.remove(&end.id)?))).collect())
    }
}

#[async_trait]
impl Intent for End {
    type Outcome = Cas;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Cas, Failure> {
        let found = find(tx, self.id).await?;
        Ok(found.map_or(Cas::Stale(None), |session| end_one(tx, self, session)))
    }
}

/// Ends a locked session, if the intent applies to it.
fn end_one(tx: &mut Transaction<'_>, end: &End, session: Session) -> Cas {
    if !end.applies_to(&session) {
        return Cas::Stale(Some(session));
    }
    if let Some(cause) = &end.cause {
        tx.journal(&end.scope, cause.clone());
    }
    if let Some(audit) = &end.audit {
        tx.audit(audit);
    }
    let reason = end.ending.reason;
    let session = [(session, reason)];
    end_sessions(tx, &session, &end.ending);
    let [(session, _)] = session;
    Cas::Applied(Session { ended: Some(Ended { at: end.ending.at, reason }), ..session })
}

/// Ends the active ones of locked sessions that the ending concerns, and tells of the idle ones.
fn end_selected(tx: &mut Transaction<'_>, selected: Vec<Session>, ending: &Ending) -> EndedMany {
    let (active, idle): (Vec<_>, Vec<_>) = selected.into_iter().partition(|s| s.end(ending.at).is_none());
    let active: Vec<_> = active.into_iter().map(|s| (s, ending.reason)).collect();
    EndedMany {
        ended: end_sessions(tx, &active, ending),
        idle: idle.iter().map(|s| EndedSession::of(s, ending.at, ending.reason)).collect(),
        next: None,
    }
}

#[async_trait]
impl Intent for EndMany {
    type Outcome = EndedMany;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<EndedMany, Failure> {
        if let Some(audit) = &self.audit
            && self.after.is_none()
        {
            tx.audit(audit);
        }
        // A user's sessions are few. All others are looked at in slices: the step ends with the slice.
        let last = match self.user_id {
            Some(_) => None,
            None => nth_session_after(tx, self.after, WALK).await?,
        };
        let selection = statement!(
            if self.user_id.is_some() { SELECT_TO_END_OF_USER } else { SELECT_TO_END },
            self.ending.at.millis(),
            scope_bytes(&self.scope),
            self.after.map(uuid),
            last.map(uuid),
            self.user_id.as_ref().map(|u| u.as_str().as_bytes().to_vec()),
            self.except.map(uuid),
            self.tag.as_ref().map(|t| t.as_str().to_owned()),
            self.started_until.map(Timestamp::millis),
            self.refreshed_from.map(Timestamp::millis),
            i64::from(self.limit) + 1,
        );
        let [selected] = tx.read([selection]).await?;
        let mut selected = read_ids(&selected)?;
        let more = selected.len() > self.limit as usize;
        selected.truncate(self.limit as usize);
        let next = if more { selected.last().copied() } else { last };
        if selected.is_empty() {
            return Ok(EndedMany { next, ..EndedMany::default() });
        }
        // Who moved or ended one meanwhile was first: what is locked now is decided on.
        let [rows] = tx.read([lock_sessions(&selected)]).await?;
        let locked = read_sessions(&rows)?.into_iter().filter(|s| self.selects(s)).collect();
        Ok(EndedMany { next, ..end_selected(tx, locked, &self.ending) })
    }
}

#[async_trait]
impl Intent for BanUser {
    type Outcome = EndedMany;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<EndedMany, Failure> {
        let user_id = self.end.user_id.as_ref().expect("a ban names its user");
        tx.write(lock_user(&self.end.scope, user_id, true));
        tx.write(write_bans(&[(&self.end.scope, user_id, &self.ban)]));
        if self.end.after.is_none() {
            tx.journal(&self.end.scope, self.event.clone());
        }
        self.end.carry_out(tx).await
    }
}

#[async_trait]
impl Intent for EraseUser {
    type Outcome = EndedMany;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<EndedMany, Failure> {
        let (scope, user_id) = (scope_bytes(&self.scope), self.user_id.as_str().as_bytes().to_vec());
        let sql = concat!(
            "SELECT ",
            session_columns!(),
            " FROM sessions WHERE scope = $1 AND user_id = $2 ORDER BY id FOR UPDATE"
        );
        let [_, rows] = tx
            .read([lock_user(&self.scope, &self.user_id, true), statement!(sql, scope.clone(), user_id.clone())])
            .await?;
        let all = read_sessions(&rows)?;
        let ids = column(&all, |s| uuid(s.id));
        let concerned: Vec<_> = all.into_iter().filter(|s| self.ending.concerns(s)).collect();
        let mut done = EndedMany::default();
        for session in &concerned {
            if session.end(self.ending.at).is_some() {
                done.idle.push(EndedSession::of(session, self.ending.at, self.ending.reason));
                continue;
            }
            let what = Revoked::Ended { reason: self.ending.reason, expires_at: session.expires_at };
            tx.revoke(&self.scope, session.id, what, self.ending.at, self.ending.feed_until);
            // Not into the journal: it goes with the session.
            tx.notify(&self.scope, &self.ending.event_for(session, done.ended.len() as u32, self.ending.reason));
            done.ended.push(EndedSession::of(session, self.ending.at, self.ending.reason));
        }
        remove_idempotency(tx, &ids);
        remove(tx, &ids);
        tx.write(statement!("DELETE FROM bans WHERE scope = $1 AND user_id = $2", scope, user_id));
        tx.audit(&self.audit);
        Ok(done)
    }
}

#[async_trait]
impl Intent for Sweep {
    type Outcome = Swept;

    // At its end there may be much that has expired since the last one.
    const LONG: bool = true;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Swept, Failure> {
        let now = self.now.millis();
        let next = nth_session_after(tx, self.after, self.budget).await?;
        // More than need be: the exact conditions follow. What somebody else has locked is in use, or being swept by another
        // server; it has time until the next sweep.
        let candidates = statement!(
            concat!(
                "SELECT ",
                session_columns!(),
                " FROM sessions WHERE ",
                id_after!("$1"),
                " AND ",
                id_up_to!("$2"),
                " AND least(idle_expires_at, expires_at) <= CASE WHEN ended_at IS NULL THEN $3::bigint ELSE $4::bigint END
                  ORDER BY id FOR UPDATE SKIP LOCKED"
            ),
            self.after.map(uuid),
            next.map(uuid),
            now,
            (self.now - self.retention).millis(),
        );
        let [rows] = tx.read([candidates]).await?;
        let (mut ended, mut removed) = (0, Vec::new());
        for session in read_sessions(&rows)? {
            let removes = self.removes(&session);
            if session.ended.is_none()
                && let Some(end) = session.end(self.now)
            {
                let mut event = self.ending.event_for(&session, ended, end.reason);
                event.at = end.at;
                event.notify = self.notify.contains(&session.scope.product);
                event.user_id = event.notify.then(|| session.user_id.clone());
                ended += 1;
                tx.end(session.id, end);
                if removes {
                    tx.notify(&session.scope, &event);
                } else {
                    tx.journal(&session.scope, event);
                }
            }
            if removes {
                removed.push(uuid(session.id));
            }
        }
        remove(tx, &removed);
        if next.is_none() {
            tx.write(statement!("DELETE FROM idempotency WHERE expires_at <= $1", now));
            tx.write(statement!("DELETE FROM revocations WHERE expires_at <= $1", now));
            tx.write(statement!("DELETE FROM bans WHERE until <= $1", now));
        }
        Ok(Swept { ended: u64::from(ended), removed: removed.len() as u64, next })
    }
}

/// Removes sessions that the transaction has locked, with their events.
fn remove(tx: &mut Transaction<'_>, ids: &[Uuid]) {
    if !ids.is_empty() {
        remove_events(tx, ids);
        remove_rows(tx, ids);
    }
}

pub(crate) fn remove_events(tx: &mut Transaction<'_>, ids: &[Uuid]) {
    tx.write(statement!("DELETE FROM events WHERE session_id = ANY ($1::uuid[])", ids.to_vec()));
}

/// Removes sessions but for their events.
pub(crate) fn remove_rows(tx: &mut Transaction<'_>, ids: &[Uuid]) {
    tx.write(statement!("DELETE FROM sessions WHERE id = ANY ($1::uuid[])", ids.to_vec()));
}

/// Removes the idempotency keys that lead to sessions.
pub(crate) fn remove_idempotency(tx: &mut Transaction<'_>, ids: &[Uuid]) {
    tx.write(statement!("DELETE FROM idempotency WHERE session_id = ANY ($1::uuid[])", ids.to_vec()));
}

fn lock_sessions(ids: &[SessionId]) -> Statement {
    let sql =
        concat!("SELECT ", session_columns!(), " FROM sessions WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE");
    statement!(sql, column(ids, |id| uuid(*id)))
}

/// The id of the `n`-th session after `after`, if there are so many.
async fn nth_session_after(
    tx: &mut Transaction<'_>,
    after: Option<SessionId>,
    n: u32,
) -> Result<Option<SessionId>, Failure> {
    let sql = concat!("SELECT id FROM sessions WHERE ", id_after!("$1"), " ORDER BY id OFFSET $2 LIMIT 1");
    let [rows] = tx.read([statement!(sql, after.map(uuid), i64::from(n.saturating_sub(1)))]).await?;
    Ok(read_ids(&rows)?.pop())
}

fn read_ids(rows: &[Row]) -> Result<Vec<SessionId>, StoreError> {
    rows.iter().map(|row| Cells::new(row, "sessions", "id").uuid("id").map(SessionId::from_bytes)).collect()
}
