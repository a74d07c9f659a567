//! Users: what is known of them, bans, erasure. A user's slot has its ban and decides about its starts.

use rekindle::clock::Timestamp;
use rekindle::session::{Scope, UserId};
use rekindle::store::*;

use crate::effects::{Effect, SavedScope, lines};
use crate::keys::{BUCKETS, UserKey};
use crate::many::By;
use crate::row::json;
use crate::scripts::{BAN, UNBAN};
use crate::walk::{Order, Walk};
use crate::{Inner, each};

impl Inner {
    pub(crate) async fn user(
        &self,
        scope: &Scope,
        user_id: &UserId,
        now: Timestamp,
    ) -> StoreResult<Option<UserSummary>> {
        let user = UserKey::new(scope, user_id);
        self.complete_starts(user).await?;
        let ban = self.ban_of(user).await?.filter(|ban| ban.holds(now));
        let rows = self.rows_of_user(user).await?;
        let sessions = || rows.iter().map(|row| &row.session);
        Ok((ban.is_some() || !rows.is_empty()).then(|| UserSummary {
            user_id: user_id.clone(),
            sessions: rows.len() as u64,
            active_sessions: sessions().filter(|s| s.end(now).is_none()).count() as u64,
            first_seen: sessions().map(|s| s.created_at).min(),
            last_seen: sessions().map(|s| s.last_refreshed_at()).max(),
            ban,
        }))
    }

    pub(crate) async fn users(&self, query: &UserQuery) -> StoreResult<Vec<UserSummary>> {
        let limit = query.limit as usize;
        let edge = query.after.as_ref().map_or(b"-".to_vec(), |id| [b"(", id.as_str().as_bytes()].concat());
        let mut walk = self.walk_users(&query.scope, edge);
        let mut summaries = Vec::new();
        while summaries.len() < limit {
            let ids = self.next_users(&mut walk, limit - summaries.len()).await?;
            if ids.is_empty() {
                break;
            }
            let found = each(ids.iter().map(|id| self.user(&query.scope, id, query.now))).await?;
            for (id, summary) in ids.iter().zip(found) {
                match summary {
                    Some(summary) => summaries.push(summary),
                    None => self.retire_user(&query.scope, id).await?,
                }
            }
        }
        Ok(summaries)
    }

    pub(crate) async fn ban(&self, ban: &BanUser) -> StoreResult<EndedMany> {
        let BanUser { ban, end, event } = ban;
        let user_id = end.user_id.as_ref().expect("a ban names its user");
        let noted = if end.after.is_none() { Effect::of_event(&end.scope, event) } else { None };
        self.write_ban(&end.scope, user_id, ban, noted).await?;
        self.end_many(end).await
    }

    /// Keeps a user out; its sessions are left to the caller.
    pub(crate) async fn write_ban(
        &self,
        scope: &Scope,
        user_id: &UserId,
        ban: &Ban,
        effect: Option<Effect>,
    ) -> StoreResult<()> {
        self.know_scope(scope).await?;
        let until = ban.until.map(Timestamp::millis);
        if let Some(until) = until {
            let bans = self.keys.bans();
            let member = json(&(SavedScope::new(scope), user_id, until));
            self.link.write::<()>(redis::cmd("ZADD").arg(&bans).arg(until).arg(member), &bans).await?;
        }
        let [user, ..] = self.keys.user(UserKey::new(scope, user_id));
        let out = lines(effect.as_slice());
        let until = until.map(|until| until.to_string()).unwrap_or_default();
        let call = BAN.on(&[&user]).arg(self.token()).arg(user_id.as_str()).arg(json(ban)).arg(until).arg(&out);
        self.link.run::<()>(&call).await?;
        if !out.is_empty() {
            self.settle_out(user, out).await?;
        }
        self.index_user(scope, user_id).await
    }

    pub(crate) async fn lift_ban(&self, scope: &Scope, user_id: &UserId, audit: &AuditEntry) -> StoreResult<bool> {
        self.append_audit(audit).await?;
        self.unban(scope, user_id).await
    }

    /// Lifts a ban; whether there was one.
    pub(crate) async fn unban(&self, scope: &Scope, user_id: &UserId) -> StoreResult<bool> {
        let [user, ..] = self.keys.user(UserKey::new(scope, user_id));
        let lifted = self.link.run(&UNBAN.on(&[user]).arg(self.token()).arg("")).await?;
        self.retire_user(scope, user_id).await?;
        Ok(lifted)
    }

    pub(crate) async fn erase_user(&self, erase: &EraseUser) -> StoreResult<EndedMany> {
        let EraseUser { scope, user_id, ending, audit } = erase;
        self.append_audit(audit).await?;
        let user = UserKey::new(scope, user_id);
        self.complete_starts(user).await?;
        let by = By::new(ending, &user_id);
        let rows = self.rows_of_user(user).await?;
        self.settle(rows.iter().filter_map(|row| self.noted(row)).collect()).await?;
        let concerned = rows.into_iter().filter(|row| ending.concerns(&by.before(row)));
        let done = self.end_selected(concerned.collect(), ending, &by).await?;
        self.remove_all(self.walk_user(scope, user_id, Order::Ascending, None).await?).await?;
        self.forget_user(scope, user_id).await?;
        Ok(done)
    }

    /// Lifts a ban and takes the user, of whom no session is left, out of the index.
    async fn forget_user(&self, scope: &Scope, user_id: &UserId) -> StoreResult<()> {
        self.settle_user(UserKey::new(scope, user_id)).await?;
        self.unban(scope, user_id).await.map(drop)
    }

    /// Carries out what is noted beside a user.
    pub(crate) async fn settle_user(&self, user: UserKey) -> StoreResult<()> {
        let [user, ..] = self.keys.user(user);
        let out: Option<String> = self.link.query(redis::cmd("HGET").arg(&user).arg("out")).await?;
        match out {
            Some(out) => self.settle_out(user, out).await,
            None => Ok(()),
        }
    }

    /// Removes all sessions and users of a scope.
    pub(crate) async fn forget_scope(&self, scope: &Scope) -> StoreResult<()> {
        self.remove_all(self.walk_scopes(vec![scope.clone()], Order::Ascending, None)).await?;
        let mut walk = self.walk_users(scope, b"-".to_vec());
        loop {
            let ids = self.next_users(&mut walk, 256).await?;
            if ids.is_empty() {
                return Ok(());
            }
            each(ids.iter().map(|id| self.forget_user(scope, id))).await?;
        }
    }

    pub(crate) async fn ban_of(&self, user: UserKey) -> StoreResult<Option<Ban>> {
        let [key, ..] = self.keys.user(user);
        let ban: Option<String> = self.link.query(redis::cmd("HGET").arg(&key).arg("ban")).await?;
        let corrupt = || StoreError::Corrupt { table: "users", column: "ban", id: user.to_string() };
        ban.map(|ban| serde_json::from_str(&ban).map_err(|_| corrupt())).transpose()
    }

    pub(crate) fn walk_users(&self, scope: &Scope, edge: Vec<u8>) -> Walk {
        let keys = (0..BUCKETS).map(|bucket| self.keys.scope_users(scope, bucket)[0].clone());
        Walk::new(keys.collect(), Order::Ascending, edge)
    }

    pub(crate) async fn next_users(&self, walk: &mut Walk, count: usize) -> StoreResult<Vec<UserId>> {
        let members = walk.next(self, count.min(256)).await?;
        let read = |(_, bytes): (usize, Vec<u8>)| {
            let id = std::str::from_utf8(&bytes).ok().and_then(|id| id.parse().ok());
            let printable = String::from_utf8_lossy(&bytes).into_owned();
            id.ok_or(StoreError::Corrupt { table: "users", column: "id", id: printable })
        };
        members.into_iter().map(read).collect()
    }
}

/// Reads whose ban a member of the index of bans is.
pub(crate) fn read_ban_entry(member: &[u8]) -> StoreResult<(Scope, UserId)> {
    let read = || {
        let (scope, user_id, _): (SavedScope, UserId, i64) = serde_json::from_slice(member).ok()?;
        Some((scope.scope()?, user_id))
    };
    let printable = || String::from_utf8_lossy(member).into_owned();
    read().ok_or_else(|| StoreError::Corrupt { table: "bans", column: "user", id: printable() })
}
