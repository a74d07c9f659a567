//! Users: what is known of them, and their bans.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rekindle::clock::Timestamp;
use rekindle::session::{Scope, UserId};
use rekindle::store::*;
use tokio_postgres::Row;

use crate::database::{Database, Failure, Statement, statement};
use crate::row::{Cells, scope_bytes};
use crate::sessions::active;
use crate::transaction::{BEGIN_SNAPSHOT, Intent, Transaction, Transactional, column, json};

impl Database {
    pub(crate) async fn user(
        &self,
        scope: &Scope,
        user_id: &UserId,
        now: Timestamp,
    ) -> StoreResult<Option<UserSummary>> {
        let range = UserRange { scope: scope.clone(), from: user_id.clone(), without: None, limit: 1, now };
        Ok(self.run(Transactional(range)).await?.into_iter().find(|u| u.user_id == *user_id))
    }

    pub(crate) async fn users(&self, query: UserQuery) -> StoreResult<Vec<UserSummary>> {
        let UserQuery { scope, after, limit, now } = query;
        let from = after.clone().unwrap_or_else(|| "".parse().expect("the anonymous user"));
        self.run(Transactional(UserRange { scope, from, without: after, limit, now })).await
    }
}

/// The first users, from `from` on in byte order.
struct UserRange {
    scope: Scope,
    from: UserId,
    without: Option<UserId>,
    limit: u32,
    now: Timestamp,
}

#[async_trait]
impl Intent for UserRange {
    type Outcome = Vec<UserSummary>;

    const BEGIN: &'static str = BEGIN_SNAPSHOT;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Vec<UserSummary>, Failure> {
        let scope = scope_bytes(&self.scope);
        let from = self.from.as_str().as_bytes().to_vec();
        let without = self.without.as_ref().map(|u| u.as_str().as_bytes().to_vec());
        let limit = i64::from(self.limit);
        let [with_sessions, banned] = tx
            .read([
                statement!(
                    concat!(
                        "SELECT user_id, count(*) AS sessions, count(*) FILTER (WHERE ",
                        active!(),
                        ") AS active, min(created_at) AS first_seen, max(greatest(created_at, issued_at * 1000)) AS last_seen
                          FROM sessions WHERE scope = $2 AND user_id >= $3 AND user_id IS DISTINCT FROM $4
                          GROUP BY user_id ORDER BY user_id LIMIT $5"
                    ),
                    self.now.millis(),
                    scope.clone(),
                    from.clone(),
                    without.clone(),
                    limit,
                ),
                statement!(
                    "SELECT user_id, at, until, reason FROM bans WHERE scope = $2 AND user_id >= $3
                     AND user_id IS DISTINCT FROM $4 AND (until IS NULL OR until > $1) ORDER BY user_id LIMIT $5",
                    self.now.millis(),
                    scope,
                    from,
                    without,
                    limit,
                ),
            ])
            .await?;
        let mut users = BTreeMap::new();
        for row in &with_sessions {
            let row = Cells::new(row, "sessions", "user_id");
            let user_id: UserId = row.parsed_bytes("user_id")?;
            let summary = UserSummary {
                user_id: user_id.clone(),
                sessions: row.int("sessions")?,
                active_sessions: row.int("active")?,
                first_seen: Some(row.time("first_seen")?),
                last_seen: Some(row.time("last_seen")?),
                ban: None,
            };
            users.insert(user_id, summary);
        }
        for row in &banned {
            let user_id: UserId = Cells::new(row, "bans", "user_id").parsed_bytes("user_id")?;
            let nothing = UserSummary {
                user_id: user_id.clone(),
                sessions: 0,
                active_sessions: 0,
                first_seen: None,
                last_seen: None,
                ban: None,
            };
            users.entry(user_id).or_insert(nothing).ban = Some(read_ban(row)?);
        }
        // The first of either list are among the first of both.
        Ok(users.into_values().take(self.limit as usize).collect())
    }
}

/// Lifts a ban.
pub(crate) struct LiftBan {
    pub(crate) scope: Scope,
    pub(crate) user_id: UserId,
    pub(crate) audit: AuditEntry,
}

#[async_trait]
impl Intent for LiftBan {
    type Outcome = bool;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<bool, Failure> {
        tx.audit(&self.audit);
        let sql = "DELETE FROM bans WHERE scope = $1 AND user_id = $2 RETURNING at";
        let params = statement!(sql, scope_bytes(&self.scope), self.user_id.as_str().as_bytes().to_vec());
        let [lifted] = tx.read([params]).await?;
        Ok(!lifted.is_empty())
    }
}

/// Writes bans, each with its scope and its user, over those that are there.
pub(crate) fn write_bans(bans: &[(&Scope, &UserId, &Ban)]) -> Statement {
    statement!(
        "INSERT INTO bans (scope, user_id, at, until, reason)
         SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[], $5::text[])
         ON CONFLICT (scope, user_id) DO UPDATE SET at = excluded.at, until = excluded.until, reason = excluded.reason",
        column(bans, |(scope, ..)| scope_bytes(scope)),
        column(bans, |(_, user_id, _)| user_id.as_str().as_bytes().to_vec()),
        column(bans, |(.., ban)| ban.at.millis()),
        column(bans, |(.., ban)| ban.until.map(Timestamp::millis)),
        column(bans, |(.., ban)| ban.reason.as_ref().map(json)),
    )
}

pub(crate) fn read_ban(row: &Row) -> Result<Ban, StoreError> {
    let row = Cells::new(row, "bans", "user_id");
    Ok(Ban { at: row.time("at")?, until: row.time_opt("until")?, reason: row.json_opt("reason")? })
}
