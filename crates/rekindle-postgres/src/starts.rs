//! Starts: those on which nothing else depends share a transaction while others are under way; the others have one each.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use rekindle::definition::OnMaxSessions;
use rekindle::session::{EndReason, Session, SessionId};
use rekindle::store::*;

use crate::database::{Database, Failure, Statement, statement};
use crate::ends::end_sessions;
use crate::gather::{GROUP, Shared};
use crate::row::{Cells, scope_bytes};
use crate::sessions::{
    active, find, insert_idempotency, insert_sessions, lock_of, lock_user, read_sessions, session_columns, uuid,
};
use crate::transaction::{Intent, Transaction, Transactional, column};
use crate::users::read_ban;

/// How many transactions of starts are under way at once.
const LANES: usize = 2;

/// The starts of a store.
pub(crate) type Starts = Gather<Start, Started>;

pub(crate) fn starts() -> Arc<Starts> {
    Gather::new(LANES, GROUP)
}

impl Database {
    /// Carries out a start; with others, unless it ends sessions or counts them.
    pub(crate) async fn start(&self, start: Start) -> StoreResult<Started> {
        if start.session.previous_session_id.is_some() || start.max_sessions.is_some() {
            return self.run(Transactional(start)).await;
        }
        self.share(&self.starts, start).await
    }
}

#[async_trait]
impl Shared for Start {
    type Outcome = Started;

    async fn together(database: &Database, asked: &[&Self]) -> StoreResult<Vec<Option<StoreResult<Started>>>> {
        let created = database.once(&Transactional(Together(asked))).await?;
        let Some(created) = created else { return Ok(vec![None; asked.len()]) };
        Ok(created.into_iter().map(|it| it.then(|| Ok(Started::Created(Vec::new())))).collect())
    }

    async fn alone(&self, database: &Database) -> StoreResult<Started> {
        database.run(Transactional(self.clone())).await
    }
}

/// Starts in one transaction, which waits for no lock; whether each happened. The others are to be carried out alone: their user
/// is locked or was banned, or their key is known.
struct Together<'a>(&'a [&'a Start]);

#[async_trait]
impl Intent for Together<'_> {
    type Outcome = Vec<bool>;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Vec<bool>, Failure> {
        let starts = self.0;
        let [locked, hindered] = tx.read([lock_users(starts), hindered(starts)]).await?;
        let locked = locked.iter().map(|row| Cells::new(row, "user_locks", "n").int("n"));
        let locked: HashSet<i64> = locked.collect::<Result<_, _>>()?;
        let hindered = hindered.iter().map(|row| Cells::new(row, "bans", "user_id").int("n"));
        let hindered: HashSet<usize> = hindered.collect::<Result<_, _>>()?;
        let free = |(start, n): (&&Start, usize)| locked.contains(&lock(start)) && !hindered.contains(&n);
        let created: Vec<bool> = starts.iter().zip(1..).map(free).collect();
        let begun: Vec<&Start> = starts.iter().zip(&created).filter(|(_, it)| **it).map(|(start, _)| *start).collect();
        if begun.is_empty() {
            return Ok(created);
        }
        let keyed = begun.iter().filter_map(|s| Some((scope_bytes(&s.session.scope), s.idempotency?, s.session.id)));
        let keyed: Vec<_> = keyed.collect();
        if !keyed.is_empty() {
            tx.write(insert_idempotency(&keyed));
        }
        tx.write(insert_sessions(&column(&begun, |start| &start.session)));
        for start in begun {
            tx.journal(&start.session.scope, start.event.clone());
        }
        Ok(created)
    }
}

fn lock(start: &Start) -> i64 {
    lock_of(&start.session.scope, &start.session.user_id)
}

/// The locks of the starts' users that nobody holds for himself, shared.
fn lock_users(starts: &[&Start]) -> Statement {
    statement!(
        "SELECT n FROM user_locks WHERE n = ANY ($1) ORDER BY n FOR SHARE SKIP LOCKED",
        column(starts, |start| lock(start))
    )
}

/// The numbers of the starts whose user has or had a ban, or whose key was used before.
fn hindered(starts: &[&Start]) -> Statement {
    statement!(
        "SELECT n FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS v (in_scope, of_user, with_key, n)
         WHERE EXISTS (SELECT FROM bans WHERE scope = in_scope AND user_id = of_user)
             OR EXISTS (SELECT FROM idempotency WHERE scope = in_scope AND key = with_key)",
        column(starts, |s| scope_bytes(&s.session.scope)),
        column(starts, |s| s.session.user_id.as_str().as_bytes().to_vec()),
        column(starts, |s| s.idempotency.map(|i| i.key.to_vec())),
    )
}

#[async_trait]
impl Intent for Start {
    type Outcome = Started;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Started, Failure> {
        let Self { session, idempotency, max_sessions, event, ending } = self;
        let now = session.created_at;
        let scope = scope_bytes(&session.scope);
        let user_id = session.user_id.as_str().as_bytes().to_vec();
        let previous = session.previous_session_id;
        let max_sessions = max_sessions.filter(|_| !session.user_id.is_anonymous());
        let [_, known_key, named, ban, active] = tx
            .read([
                lock_user(&session.scope, &session.user_id, max_sessions.is_some()),
                statement!(
                    "SELECT request, session_id FROM idempotency WHERE scope = $1 AND key = $2 AND expires_at > $3",
                    scope.clone(),
                    idempotency.map(|i| i.key.to_vec()),
                    now.millis(),
                ),
                statement!(
                    concat!(
                        "SELECT ",
                        session_columns!(),
                        " FROM sessions WHERE id = $1 OR id = $2 ORDER BY id FOR UPDATE"
                    ),
                    uuid(session.id),
                    previous.map(uuid),
                ),
                statement!(
                    "SELECT user_id, at, until, reason FROM bans WHERE scope = $1 AND user_id = $2",
                    scope.clone(),
                    user_id.clone(),
                ),
                statement!(
                    concat!(
                        "SELECT ",
                        session_columns!(),
                        " FROM sessions WHERE scope = $2 AND user_id = $3 AND tag = $4 AND id IS DISTINCT FROM $5 AND ",
                        active!(),
                        " ORDER BY id LIMIT $6 FOR UPDATE"
                    ),
                    now.millis(),
                    scope.clone(),
                    user_id,
                    session.tag.as_str().to_owned(),
                    previous.map(uuid),
                    if max_sessions.is_some() { i64::MAX } else { 0 },
                ),
            ])
            .await?;
        if let Some(i) = idempotency
            && let Some(known) = known_key.first()
        {
            let known = Cells::new(known, "idempotency", "session_id");
            if known.array("request")? != i.request {
                return Ok(Started::IdempotencyMismatch);
            }
            let id = SessionId::from_bytes(known.uuid("session_id")?);
            return Ok(Started::Repeated(find(tx, id).await?.map(Box::new)));
        }
        let mut named = read_sessions(&named)?;
        if let Some(known) = named.iter().find(|s| s.id == session.id) {
            return Ok(Started::Repeated(Some(Box::new(known.clone()))));
        }
        if let Some(ban) = ban.first().map(read_ban).transpose()?.filter(|b| b.holds(now)) {
            return Ok(Started::Banned(ban));
        }
        let mut to_end = Vec::new();
        if previous.is_some() {
            let usable = |p: &Session| {
                p.scope == session.scope
                    && (p.user_id == session.user_id || p.user_id.is_anonymous())
                    && p.end(now).is_none()
            };
            match named.pop().filter(usable) {
                Some(previous) => to_end.push((previous, EndReason::Replaced)),
                None => return Ok(Started::PreviousUnusable),
            }
        }
        if let Some((max, on_max)) = max_sessions {
            let active = read_sessions(&active)?;
            let excess = (active.len() + 1).saturating_sub(max as usize);
            if excess > 0 && on_max == OnMaxSessions::Reject {
                return Ok(Started::TooManySessions(active.len() as u32));
            }
            to_end.extend(active.into_iter().take(excess).map(|s| (s, EndReason::MaxSessions)));
        }
        let ended = end_sessions(tx, &to_end, ending);
        if let Some(i) = idempotency {
            // A key that is in force makes the insert fail, and the start look again.
            tx.write(statement!(
                "DELETE FROM idempotency WHERE scope = $1 AND key = $2 AND expires_at <= $3",
                scope.clone(),
                i.key.to_vec(),
                now.millis(),
            ));
            tx.write(insert_idempotency(&[(scope, *i, session.id)]));
        }
        tx.write(insert_sessions(&[session]));
        tx.journal(&session.scope, event.clone());
        Ok(Started::Created(ended))
    }
}
