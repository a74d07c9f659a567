//! Users: bans, erasure, summaries.

use std::collections::BTreeSet;

use rekindle::clock::Timestamp;
use rekindle::session::{Scope, UserId};
use rekindle::store::*;

use crate::MysqlStore;
use crate::pool::Failure;
use crate::row::{Cells, Table};
use crate::sessions::{SESSIONS, session, user_id};
use crate::sql::{Script, list, sql};
use crate::writes::Writes;

pub(crate) const BANS: Table =
    Table { name: "bans", columns: &["product", "env", "user_id", "banned_at", "banned_until", "reason"], id: 2 };
const SUMMARIES: Table = Table {
    name: "sessions",
    columns: &["user_id", "sessions", "active", "first_seen", "last_seen", "banned_at", "banned_until", "reason"],
    id: 0,
};

impl MysqlStore {
    pub(crate) async fn read_users(&self, query: &UserQuery) -> StoreResult<Vec<UserSummary>> {
        let Scope { product, env } = &query.scope;
        let after = |name: &str| match &query.after {
            Some(after) => sql!(format!(" AND {name}.user_id > ?"), after),
            None => String::new(),
        };
        // The index is read by its distinct prefixes, so that a user's number of sessions does not matter.
        let page = sql!(
            format!(
                "SELECT user_id FROM (
                     (SELECT DISTINCT s.user_id FROM sessions s FORCE INDEX (sessions_by_user)
                      WHERE s.product = ? AND s.env = ?{} ORDER BY s.user_id LIMIT ?)
                     UNION
                     (SELECT b.user_id FROM bans b WHERE b.product = ? AND b.env = ?{}
                      AND (b.banned_until IS NULL OR b.banned_until > ?) ORDER BY b.user_id LIMIT ?)
                 ) either ORDER BY user_id LIMIT ?",
                after("s"),
                after("b")
            ),
            product,
            env,
            query.limit,
            product,
            env,
            query.now,
            query.limit,
            query.limit
        );
        self.read_summaries(&query.scope, &format!("({page})"), query.now).await
    }

    pub(crate) async fn read_user(
        &self,
        scope: &Scope,
        user_id: &UserId,
        now: Timestamp,
    ) -> StoreResult<Option<UserSummary>> {
        let summaries = self.read_summaries(scope, &sql!("(SELECT ? AS user_id)", user_id), now).await?;
        Ok(summaries.into_iter().next())
    }

    /// What is known of the users that the subquery `page` names, in one consistent read.
    async fn read_summaries(&self, scope: &Scope, page: &str, now: Timestamp) -> StoreResult<Vec<UserSummary>> {
        let Scope { product, env } = scope;
        let sql = sql!(
            format!(
                "SELECT u.user_id, COUNT(s.id),
                 COALESCE(SUM(s.ended_at IS NULL AND s.idle_expires_at > ? AND s.expires_at > ?), 0),
                 MIN(s.created_at), MAX(GREATEST(s.created_at, s.issued_at * 1000)),
                 b.banned_at, b.banned_until, b.reason
                 FROM {page} u
                 LEFT JOIN sessions s ON s.product = ? AND s.env = ? AND s.user_id = u.user_id
                 LEFT JOIN bans b ON b.product = ? AND b.env = ? AND b.user_id = u.user_id
                     AND (b.banned_until IS NULL OR b.banned_until > ?)
                 GROUP BY u.user_id, b.banned_at, b.banned_until, b.reason
                 HAVING COUNT(s.id) > 0 OR b.banned_at IS NOT NULL ORDER BY u.user_id"
            ),
            now,
            now,
            product,
            env,
            product,
            env,
            now
        );
        self.pool.ask(vec![sql]).await?.all(&SUMMARIES, |row| {
            Ok(UserSummary {
                user_id: user_id(row)?,
                sessions: row.parsed("sessions")?,
                active_sessions: row.parsed("active")?,
                first_seen: row.time_opt("first_seen")?,
                last_seen: row.time_opt("last_seen")?,
                ban: match row.time_opt("banned_at")? {
                    None => None,
                    Some(at) => Some(ban_since(at, row)?),
                },
            })
        })
    }

    pub(crate) async fn try_ban(&self, ban: &BanUser) -> Result<EndedMany, Failure> {
        let user_id = ban.end.user_id.as_ref().expect("a ban names its user");
        let mut writes = Writes::default();
        let values = ban_values(&ban.end.scope, user_id, &ban.ban);
        writes.statement(format!("{} VALUES ({values})", BANS.replace()));
        if ban.end.after.is_none() {
            writes.event(&ban.end.scope, &ban.event);
        }
        self.end_many_with(&ban.end, vec![lock_user(&ban.end.scope, user_id)], writes).await
    }

    pub(crate) async fn try_lift_ban(
        &self,
        scope: &Scope,
        user_id: &UserId,
        audit: &AuditEntry,
    ) -> Result<bool, Failure> {
        let mut transaction = self.pool.begin().await?;
        let found = transaction.ask(vec![lock_user(scope, user_id), delete_ban(scope, user_id)]).await?;
        let mut writes = Writes::default();
        writes.audit(audit);
        writes.statement(unlock_stranger(scope, user_id));
        transaction.commit(writes.script()).await?;
        Ok(found.affected.last().is_some_and(|rows| *rows > 0))
    }

    pub(crate) async fn try_erase_user(&self, erase: &EraseUser) -> Result<EndedMany, Failure> {
        let EraseUser { scope, user_id, ending, audit } = erase;
        let mut transaction = self.pool.begin().await?;
        let select = sql!(
            format!(
                "{} FORCE INDEX (sessions_by_user) WHERE product = ? AND env = ? AND user_id = ? ORDER BY id FOR UPDATE",
                SESSIONS.select()
            ),
            &scope.product,
            &scope.env,
            user_id
        );
        let all = transaction.ask(vec![lock_user(scope, user_id), select]).await?.all(&SESSIONS, session)?;
        let mut writes = Writes::default();
        let mut done = EndedMany::default();
        for session in all.iter().filter(|s| ending.concerns(s)) {
            let told = EndedSession::of(session, ending.at, ending.reason);
            if session.end(ending.at).is_some() {
                done.idle.push(told);
                continue;
            }
            let i = done.ended.len() as u32;
            writes.notification(scope, &ending.event_for(session, i, ending.reason));
            let what = Revoked::Ended { reason: ending.reason, expires_at: session.expires_at };
            writes.revocation(session, what, ending.at, ending.feed_until);
            done.ended.push(told);
        }
        if !all.is_empty() {
            let ids = list(all.iter().map(|s| s.id));
            writes.statement(format!("DELETE FROM idempotency WHERE session_id IN ({ids})"));
            writes.statement(format!("DELETE FROM sessions WHERE id IN ({ids})"));
        }
        writes.statement(delete_ban(scope, user_id));
        writes.statement(unlock_stranger(scope, user_id));
        writes.audit(audit);
        transaction.commit(writes.script()).await?;
        Ok(done)
    }
}

/// Waits for this user's turn, which lasts until the transaction ends.
pub(crate) fn lock_user(scope: &Scope, user_id: &UserId) -> String {
    lock_users(&[(scope, user_id)].into()).remove(0)
}

/// Waits for the turn of each of these, in one order. Those of nobody in particular share theirs, or all of an application's
/// visitors would wait for each other; a ban still waits for them, and they for it.
pub(crate) fn lock_users(users: &BTreeSet<(&Scope, &UserId)>) -> Script {
    let (nobody, named): (Vec<_>, Vec<_>) = users.iter().partition(|(_, user_id)| user_id.is_anonymous());
    // What is ignored is a row that exists. It stays locked, shared.
    let kinds = [("IGNORE ", nobody, ""), ("", named, " ON DUPLICATE KEY UPDATE turn = turn + 1")];
    let locking = kinds.into_iter().filter(|(_, users, _)| !users.is_empty()).map(|(ignore, users, on_duplicate)| {
        let rows = users.iter().map(|(scope, user_id)| sql!("(?, ?, ?, 1)", &scope.product, &scope.env, *user_id));
        let rows = rows.collect::<Vec<_>>().join(", ");
        format!("INSERT {ignore}INTO user_locks (product, env, user_id, turn) VALUES {rows}{on_duplicate}")
    });
    locking.collect()
}

/// Removes the lock's row of a user who has nothing any more.
pub(crate) fn unlock_stranger(scope: &Scope, user_id: &UserId) -> String {
    let Scope { product, env } = scope;
    sql!(
        "DELETE FROM user_locks WHERE product = ? AND env = ? AND user_id = ?
         AND NOT EXISTS (SELECT 1 FROM sessions WHERE product = ? AND env = ? AND user_id = ?)
         AND NOT EXISTS (SELECT 1 FROM bans WHERE product = ? AND env = ? AND user_id = ?)",
        product,
        env,
        user_id,
        product,
        env,
        user_id,
        product,
        env,
        user_id
    )
}

pub(crate) fn select_ban(scope: &Scope, user_id: &UserId) -> String {
    let sql = format!("{} WHERE product = ? AND env = ? AND user_id = ?", BANS.select());
    sql!(sql, &scope.product, &scope.env, user_id)
}

pub(crate) fn stored_ban(row: &mut Cells) -> StoreResult<StoredBan> {
    let (scope, user_id) = (row.scope()?, user_id(row)?);
    let at = row.time("banned_at")?;
    Ok(StoredBan { scope, user_id, ban: ban_since(at, row)? })
}

/// The values of a ban's row.
pub(crate) fn ban_values(scope: &Scope, user_id: &UserId, ban: &Ban) -> String {
    let Ban { at, until, reason } = ban;
    sql!("?, ?, ?, ?, ?, ?", &scope.product, &scope.env, user_id, *at, *until, reason.as_ref())
}

pub(crate) fn delete_ban(scope: &Scope, user_id: &UserId) -> String {
    let sql = "DELETE FROM bans WHERE product = ? AND env = ? AND user_id = ?";
    sql!(sql, &scope.product, &scope.env, user_id)
}

fn ban_since(at: Timestamp, row: &mut Cells) -> StoreResult<Ban> {
    Ok(Ban { at, until: row.time_opt("banned_until")?, reason: row.text_opt("reason")? })
}
