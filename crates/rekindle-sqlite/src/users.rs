//! Users: their summaries, their bans, their erasure.

use rekindle::clock::Timestamp;
use rekindle::session::{SessionId, UserId};
use rekindle::store::*;
use rusqlite::params;

use crate::db::{Cells, Db, Failure, ScopeId, Table};
use crate::sessions::SESSION_IDS;

columns!(BANS, ban_columns, "bans", 0, "user_id", "at", "until", "reason");
const SESSION_USERS: Table = Table { name: "sessions", columns: &["id", "user_id"], id: 0 };
const BANNED_USERS: Table = Table { name: "bans", columns: &["user_id"], id: 0 };
const SUMMARIES: Table =
    Table { name: "sessions", columns: &["user_id", "sessions", "active", "created_at", "issued_at"], id: 0 };

impl Db<'_> {
    pub(crate) fn users(&self, query: &UserQuery, scope: ScopeId) -> Result<Vec<UserSummary>, Failure> {
        let mut summaries = Vec::new();
        let mut after = query.after.clone();
        while summaries.len() < query.limit as usize
            && let Some(user) = self.next_user(scope, after.as_ref(), query.now)?
        {
            summaries.extend(self.user(scope, &user, query.now)?);
            after = Some(user);
        }
        Ok(summaries)
    }

    pub(crate) fn user(
        &self,
        scope: ScopeId,
        user_id: &UserId,
        now: Timestamp,
    ) -> Result<Option<UserSummary>, Failure> {
        let ban = self.ban_in_force(scope, user_id, now)?;
        let sql = concat!(
            "SELECT user_id, count(*), sum",
            active!(),
            ", min(created_at), max(max(created_at, issued_at * 1000)) FROM sessions WHERE scope = ?2 AND user_id = ?3
             GROUP BY user_id"
        );
        let params = params![now.millis(), scope, user_id.as_str().as_bytes()];
        let of_sessions = self.first(sql, params, &SUMMARIES, |row| {
            row.skip("user_id");
            Ok(UserSummary {
                user_id: user_id.clone(),
                sessions: row.int("sessions")?,
                active_sessions: row.int("active")?,
                first_seen: Some(row.time("created_at")?),
                last_seen: Some(row.time("issued_at")?),
                ban: ban.clone(),
            })
        })?;
        let nothing = UserSummary {
            user_id: user_id.clone(),
            sessions: 0,
            active_sessions: 0,
            first_seen: None,
            last_seen: None,
            ban: ban.clone(),
        };
        Ok(of_sessions.or_else(|| ban.is_some().then_some(nothing)))
    }

    pub(crate) fn erase_user(&self, erase: &EraseUser, scope: ScopeId) -> Result<EndedMany, Failure> {
        let user_id = erase.user_id.as_str().as_bytes();
        let ids_where = |condition: &str| {
            let sql = format!("SELECT id FROM sessions WHERE scope = ?2 AND user_id = ?3 AND {condition} ORDER BY id");
            self.all(&sql, params![erase.ending.at.millis(), scope, user_id], &SESSION_IDS, |row| {
                Ok(SessionId::from_bytes(row.bytes("id")?))
            })
        };
        let done = self.end_selected(&ids_where(concerned!())?, &erase.ending, scope)?;
        for id in ids_where("?1 IS NOT NULL")? {
            self.remove(id)?;
            self.remove_idempotency(id)?;
        }
        self.remove_ban(scope, &erase.user_id)?;
        self.write_audit(&erase.audit)?;
        Ok(done)
    }

    pub(crate) fn ban(&self, ban: &BanUser, user_id: &UserId, scope: ScopeId) -> Result<EndedMany, Failure> {
        self.write_ban(scope, user_id, &ban.ban)?;
        if ban.end.after.is_none() {
            self.write_event(scope, &ban.event)?;
        }
        self.end_many(&ban.end, scope)
    }

    pub(crate) fn write_ban(&self, scope: ScopeId, user_id: &UserId, ban: &Ban) -> Result<(), Failure> {
        let Ban { at, until, reason } = ban;
        self.execute(
            "INSERT OR REPLACE INTO bans (scope, user_id, at, until, reason) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![scope, user_id.as_str().as_bytes(), at.millis(), until.map(Timestamp::millis), reason],
        )?;
        Ok(())
    }

    pub(crate) fn lift_ban(&self, user_id: &UserId, scope: ScopeId, audit: &AuditEntry) -> Result<bool, Failure> {
        self.write_audit(audit)?;
        self.remove_ban(scope, user_id)
    }

    /// Whether there was one.
    pub(crate) fn remove_ban(&self, scope: ScopeId, user_id: &UserId) -> Result<bool, Failure> {
        let params = params![scope, user_id.as_str().as_bytes()];
        Ok(self.execute("DELETE FROM bans WHERE scope = ?1 AND user_id = ?2", params)? > 0)
    }

    pub(crate) fn ban_in_force(
        &self,
        scope: ScopeId,
        user_id: &UserId,
        now: Timestamp,
    ) -> Result<Option<Ban>, Failure> {
        let sql = concat!("SELECT ", ban_columns!(), " FROM bans WHERE scope = ?1 AND user_id = ?2");
        let ban = self.first(sql, params![scope, user_id.as_str().as_bytes()], &BANS, read_ban)?;
        Ok(ban.map(|(_, ban)| ban).filter(|b| b.holds(now)))
    }

    fn next_user(&self, scope: ScopeId, after: Option<&UserId>, now: Timestamp) -> Result<Option<UserId>, Failure> {
        let after = after.map(|u| u.as_str().as_bytes());
        let with_session = self.first(
            "SELECT id, user_id FROM sessions INDEXED BY sessions_by_user WHERE scope = ?1
             AND user_id >= coalesce(?2, x'') AND user_id IS NOT ?2 ORDER BY user_id, id LIMIT 1",
            params![scope, after],
            &SESSION_USERS,
            |row| {
                row.skip("id");
                row.parsed_blob::<UserId>("user_id")
            },
        )?;
        let banned = self.first(
            "SELECT user_id FROM bans WHERE scope = ?1 AND user_id >= coalesce(?2, x'') AND user_id IS NOT ?2
             AND (until IS NULL OR until > ?3) ORDER BY user_id LIMIT 1",
            params![scope, after, now.millis()],
            &BANNED_USERS,
            |row| row.parsed_blob::<UserId>("user_id"),
        )?;
        Ok(with_session.into_iter().chain(banned).min())
    }
}

pub(crate) fn read_ban(row: &Cells<'_, '_>) -> Result<(UserId, Ban), Failure> {
    let user_id = row.parsed_blob("user_id")?;
    Ok((user_id, Ban { at: row.time("at")?, until: row.time_opt("until")?, reason: row.string_opt("reason")? }))
}
