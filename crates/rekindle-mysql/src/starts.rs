//! Starts: those on which nothing else depends share a transaction while others are under way; the others have one each.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use rekindle::definition::OnMaxSessions;
use rekindle::session::{EndReason, Scope, Session, SessionId, UserId};
use rekindle::store::*;

use crate::MysqlStore;
use crate::gather::{GROUP, Shared};
use crate::pool::{Failure, Pool};
use crate::sessions::{
    IDEMPOTENCY, SESSION_IDS, SESSIONS, idempotency_values, idempotent, lock_session, select_session, session,
    session_id, session_values,
};
use crate::sql::{list, sql};
use crate::users::{BANS, lock_user, lock_users, select_ban, stored_ban};
use crate::writes::Writes;

/// How many transactions of starts are under way at once.
const LANES: usize = 4;

/// The starts of a store.
pub(crate) type Starts = Gather<Start, Started>;

pub(crate) fn starts() -> Arc<Starts> {
    Gather::new(LANES, GROUP)
}

impl MysqlStore {
    /// Carries out a start; with others, unless it ends sessions or counts them.
    pub(crate) async fn start_session(&self, start: Start) -> StoreResult<Started> {
        if start.session.previous_session_id.is_some() || start.max_sessions.is_some() {
            return self.pool.retry(|| self.pool.try_start(&start)).await;
        }
        self.pool.share(&self.starts, start).await
    }
}

#[async_trait]
impl Shared for Start {
    type Outcome = Started;

    async fn try_together(pool: &Pool, asked: &[&Self]) -> Result<Vec<Option<Started>>, Failure> {
        pool.try_start_together(asked).await
    }

    async fn try_alone(&self, pool: &Pool) -> Result<Started, Failure> {
        pool.try_start(self).await
    }
}

impl Pool {
    /// Several at once; what came of each, unless its user was banned, its key is known, or its session is there.
    async fn try_start_together(&self, asked: &[&Start]) -> Result<Vec<Option<Started>>, Failure> {
        let users: BTreeSet<_> = asked.iter().map(user).collect();
        let mut script = lock_users(&users);
        script.push(format!("{} WHERE id IN ({})", SESSION_IDS.select(), list(asked.iter().map(|s| s.session.id))));
        let of_user = |(scope, user_id): &(&Scope, &UserId)| {
            sql!("(product = ? AND env = ? AND user_id = ?)", &scope.product, &scope.env, *user_id)
        };
        script.push(format!("{} WHERE {}", BANS.select(), any(users.iter().map(of_user))));
        let of_key = |start: &&Start| {
            let Scope { product, env } = &start.session.scope;
            Some(sql!("(product = ? AND env = ? AND key_hash = ?)", product, env, &start.idempotency?.key))
        };
        let with_key: Vec<String> = asked.iter().filter_map(of_key).collect();
        let has_keys = !with_key.is_empty();
        if has_keys {
            script.push(format!("{} WHERE {}", IDEMPOTENCY.select(), any(with_key)));
        }
        let mut transaction = self.begin().await?;
        let mut found = transaction.ask(script).await?;
        let mut known: HashSet<SessionId> = found.all(&SESSION_IDS, session_id)?.into_iter().collect();
        let banned = found.all(&BANS, stored_ban)?;
        let banned: HashSet<_> = banned.iter().map(|ban| (&ban.scope, &ban.user_id)).collect();
        let used = if has_keys { found.all(&IDEMPOTENCY, idempotent)? } else { Vec::new() };
        let mut keys: HashSet<[u8; 32]> = used.into_iter().map(|(idempotency, _)| idempotency.key).collect();

        let mut writes = Writes::default();
        let (mut sessions, mut new_keys) = (Vec::new(), Vec::new());
        let outcomes = asked.iter().map(|start| {
            let new = &start.session;
            let free = !banned.contains(&user(start)) && known.insert(new.id);
            if !free || start.idempotency.is_some_and(|i| !keys.insert(i.key)) {
                return None;
            }
            sessions.push(session_values(new));
            new_keys.extend(start.idempotency.map(|i| idempotency_values(new, &i)));
            writes.event(&new.scope, &start.event);
            Some(Started::Created(Vec::new()))
        });
        let outcomes = outcomes.collect();
        if sessions.is_empty() {
            transaction.roll_back().await?;
            return Ok(outcomes);
        }
        writes.rows(&SESSIONS.insert(), &sessions);
        writes.rows(&IDEMPOTENCY.insert(), &new_keys);
        transaction.commit(writes.script()).await?;
        Ok(outcomes)
    }

    /// A start by itself, which waits for its user.
    async fn try_start(&self, start: &Start) -> Result<Started, Failure> {
        let Start { session: new, idempotency, max_sessions, event, ending } = start;
        let Scope { product, env } = &new.scope;
        let now = new.created_at;
        let limited = max_sessions.filter(|_| !new.user_id.is_anonymous());
        let mut script = vec![lock_user(&new.scope, &new.user_id), select_session(new.id)];
        script.push(select_ban(&new.scope, &new.user_id));
        if let Some(i) = idempotency {
            let sql = format!("{} WHERE product = ? AND env = ? AND key_hash = ?", IDEMPOTENCY.select());
            script.push(sql!(sql, product, env, &i.key));
        }
        if let Some(previous) = new.previous_session_id {
            script.push(lock_session(previous));
        }
        if limited.is_some() {
            let sql = format!(
                "{} FORCE INDEX (sessions_by_user) WHERE product = ? AND env = ? AND user_id = ? AND tag = ?
                 AND ended_at IS NULL AND idle_expires_at > ? AND expires_at > ? ORDER BY id FOR UPDATE",
                SESSIONS.select()
            );
            script.push(sql!(sql, product, env, &new.user_id, &new.tag, now, now));
        }
        let mut transaction = self.begin().await?;
        let mut found = transaction.ask(script).await?;
        let known = found.first(&SESSIONS, session)?;
        let ban = found.first(&BANS, stored_ban)?.map(|stored| stored.ban).filter(|b| b.holds(now));
        let key = idempotency.map(|_| found.first(&IDEMPOTENCY, idempotent)).transpose()?.flatten();
        let previous = new.previous_session_id.map(|_| found.first(&SESSIONS, session)).transpose()?.flatten();
        let active = limited.map(|_| found.all(&SESSIONS, session)).transpose()?.unwrap_or_default();

        let mut writes = Writes::default();
        let mut refusal = None;
        if let (Some((known, session_id)), Some(i)) = (key, idempotency) {
            if now >= known.expires_at {
                let sql = "DELETE FROM idempotency WHERE product = ? AND env = ? AND key_hash = ? AND expires_at <= ?";
                writes.statement(sql!(sql, product, env, &i.key, now));
            } else if known.request == i.request {
                transaction.roll_back().await?;
                return Ok(Started::Repeated(
                    self.ask(vec![select_session(session_id)]).await?.first(&SESSIONS, session)?.map(Box::new),
                ));
            } else {
                refusal = Some(Started::IdempotencyMismatch);
            }
        }
        let refusal =
            refusal.or_else(|| known.map(|s| Started::Repeated(Some(Box::new(s))))).or(ban.map(Started::Banned));
        let usable = |p: &Session| {
            p.scope == new.scope && (p.user_id == new.user_id || p.user_id.is_anonymous()) && p.end(now).is_none()
        };
        let previous = previous.filter(usable);
        let refusal = refusal
            .or_else(|| (new.previous_session_id.is_some() && previous.is_none()).then_some(Started::PreviousUnusable));
        let counted: Vec<&Session> = active.iter().filter(|s| Some(s.id) != new.previous_session_id).collect();
        let excess = limited.map_or(0, |(max, _)| (counted.len() + 1).saturating_sub(max as usize));
        let rejects = excess > 0 && limited.is_some_and(|(_, on_max)| on_max == OnMaxSessions::Reject);
        let refusal = refusal.or_else(|| rejects.then_some(Started::TooManySessions(counted.len() as u32)));
        if let Some(refusal) = refusal {
            transaction.roll_back().await?;
            return Ok(refusal);
        }

        writes.statement(format!("{} VALUES ({})", SESSIONS.insert(), session_values(new)));
        if let Some(i) = idempotency {
            writes.statement(format!("{} VALUES ({})", IDEMPOTENCY.insert(), idempotency_values(new, i)));
        }
        let replaced = previous.iter().map(|s| (s, EndReason::Replaced));
        let oldest = counted.into_iter().take(excess).map(|s| (s, EndReason::MaxSessions));
        let ended = writes.end(replaced.chain(oldest), ending);
        writes.event(&new.scope, event);
        transaction.commit(writes.script()).await?;
        Ok(Started::Created(ended))
    }
}

fn user<'a>(start: &'a &Start) -> (&'a Scope, &'a UserId) {
    (&start.session.scope, &start.session.user_id)
}

/// A condition that is true if one of these is.
fn any(conditions: impl IntoIterator<Item = String>) -> String {
    conditions.into_iter().collect::<Vec<_>>().join(" OR ")
}
