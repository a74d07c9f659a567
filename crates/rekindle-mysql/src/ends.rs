//! Ends of sessions: single ones, and those of a user or a scope.

use std::sync::Arc;

use async_trait::async_trait;
use rekindle::session::{Ended, Session, SessionId};
use rekindle::store::*;

use crate::MysqlStore;
use crate::gather::{GROUP, Shared};
use crate::pool::{Failure, Pool};
use crate::sessions::{SESSION_IDS, SESSIONS, session, session_id};
use crate::sql::{Script, sql};
use crate::writes::Writes;

/// How many transactions that end single sessions are under way at once: at the feed, they take turns.
const LANES: usize = 2;

/// How many of a scope's sessions one step of an end without a user looks at: locks are held for no longer than that
/// takes.
const WALK: u32 = 20_000;

/// The ends of single sessions of a store.
pub(crate) type Ends = Gather<End, Cas>;

pub(crate) fn ends() -> Arc<Ends> {
    Gather::new(LANES, GROUP)
}

#[async_trait]
impl Shared for End {
    type Outcome = Cas;

    /// Of two ends of one session, the second finds what the first has done.
    async fn try_together(pool: &Pool, asked: &[&Self]) -> Result<Vec<Option<Cas>>, Failure> {
        let mut transaction = pool.begin().await?;
        let mut rows = transaction.lock_free(asked.iter().map(|end| end.id)).await?;
        let (mut writes, mut ended) = (Writes::default(), false);
        let outcomes = asked.iter().map(|end| {
            let row = rows.get_mut(&end.id)?;
            if !end.applies_to(row) {
                return Some(Cas::Stale(Some(row.clone())));
            }
            ended = true;
            end_one(&mut writes, end, row);
            Some(Cas::Applied(row.clone()))
        });
        let outcomes = outcomes.collect();
        if ended {
            transaction.commit(writes.script()).await?;
        } else {
            transaction.roll_back().await?;
        }
        Ok(outcomes)
    }

    async fn try_alone(&self, pool: &Pool) -> Result<Cas, Failure> {
        let applies = |s: &Session| self.applies_to(s);
        let write = |session: &mut Session| {
            let mut writes = Writes::default();
            end_one(&mut writes, self, session);
            writes.script()
        };
        pool.conditional(self.id, applies, write).await
    }
}

/// Ends a locked session to which the intent applies.
fn end_one(writes: &mut Writes, end: &End, session: &mut Session) {
    if let Some(cause) = &end.cause {
        writes.event(&session.scope, cause);
    }
    if let Some(audit) = &end.audit {
        writes.audit(audit);
    }
    let reason = end.ending.reason;
    writes.end([(&*session, reason)], &end.ending);
    session.ended = Some(Ended { at: end.ending.at, reason });
}

impl MysqlStore {
    pub(crate) async fn try_end_many(&self, end: &EndMany) -> Result<EndedMany, Failure> {
        self.end_many_with(end, Vec::new(), Writes::default()).await
    }

    /// Ends a batch, in a transaction that begins with `first` and writes `writes`, too.
    pub(crate) async fn end_many_with(
        &self,
        end: &EndMany,
        first: Script,
        mut writes: Writes,
    ) -> Result<EndedMany, Failure> {
        let mut transaction = self.pool.begin().await?;
        if !first.is_empty() {
            transaction.ask(first).await?;
        }
        // A user's sessions are few. All others are looked at in slices: the step ends with the slice.
        let last = match end.user_id {
            Some(_) => None,
            None => transaction.ask(vec![nth_after(end)]).await?.first(&SESSION_IDS, session_id)?,
        };
        let mut selected = transaction.ask(vec![select_to_end(end, last)]).await?.all(&SESSIONS, session)?;
        let more = selected.len() > end.limit as usize;
        selected.truncate(end.limit as usize);
        if let Some(audit) = &end.audit
            && end.after.is_none()
        {
            writes.audit(audit);
        }
        let next = if more { selected.last().map(|s| s.id) } else { last };
        let done = EndedMany { next, ..writes.end_selected(&selected, &end.ending) };
        transaction.commit(writes.script()).await?;
        Ok(done)
    }
}

/// The last id of the slice that a step of an end without a user looks at, if the scope has so many sessions.
fn nth_after(end: &EndMany) -> String {
    let mut sql = sql!(
        "SELECT id FROM sessions FORCE INDEX (sessions_by_scope) WHERE product = ? AND env = ?",
        &end.scope.product,
        &end.scope.env
    );
    if let Some(after) = end.after {
        sql += &sql!(" AND id > ?", after);
    }
    sql + &sql!(" ORDER BY id LIMIT 1 OFFSET ?", WALK - 1)
}

/// [`EndMany::selects`], up to the id `last`, one more than the limit.
fn select_to_end(end: &EndMany, last: Option<SessionId>) -> String {
    let index = if end.user_id.is_some() { "sessions_by_user" } else { "sessions_by_scope" };
    let mut sql = sql!(
        format!(
            "{} FORCE INDEX ({index}) WHERE product = ? AND env = ? AND expires_at > ?
             AND (ended_at IS NULL OR ended_reason = 'idle')",
            SESSIONS.select()
        ),
        &end.scope.product,
        &end.scope.env,
        end.ending.at
    );
    let filters = [
        end.user_id.as_ref().map(|u| sql!(" AND user_id = ?", u)),
        end.except.map(|id| sql!(" AND id <> ?", id)),
        end.tag.as_ref().map(|t| sql!(" AND tag = ?", t)),
        end.started_until.map(|t| sql!(" AND created_at <= ?", t)),
        end.refreshed_from.map(|t| sql!(" AND GREATEST(issued_at * 1000, created_at) >= ?", t)),
        end.after.map(|id| sql!(" AND id > ?", id)),
        last.map(|id| sql!(" AND id <= ?", id)),
    ];
    sql.extend(filters.into_iter().flatten());
    sql + &sql!(" ORDER BY id LIMIT ? FOR UPDATE", u64::from(end.limit) + 1)
}
