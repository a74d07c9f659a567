//! Upkeep: events that changed nothing, the sweep, the outbox.

use std::collections::HashSet;

use rekindle::clock::Timestamp;
use rekindle::journal::{Event, EventId};
use rekindle::session::{Ended, Scope, SessionId, UserId};
use rekindle::store::*;

use crate::MysqlStore;
use crate::lists::EVENTS;
use crate::pool::Failure;
use crate::row::{Cells, Table};
use crate::sessions::{SESSIONS, session, session_id, user_id};
use crate::sql::{list, sql};
use crate::users::{delete_ban, unlock_stranger};
use crate::writes::{Writes, event_values, json};

/// How many rows one statement removes at most, so that no lock is held for long.
const REMOVED_AT_ONCE: u64 = 1_000;

pub(crate) const OUTBOX: Table =
    Table { name: "outbox", columns: &["id", "product", "env", "session_id", "due", "attempts", "event"], id: 0 };
const CANDIDATES: Table = Table { name: "sessions", columns: &["id", "is_due"], id: 0 };
const OVER: Table = Table { name: "bans", columns: &["product", "env", "user_id"], id: 2 };

impl MysqlStore {
    pub(crate) async fn try_record(&self, events: &[Event]) -> Result<(), Failure> {
        let mut script = Vec::new();
        for event in events {
            let Some(id) = event.session_id else { continue };
            // Shared: a session that is being removed takes its events along, or is found to be gone.
            let of_session = sql!("FROM sessions WHERE id = ? LOCK IN SHARE MODE", id);
            if event.notify {
                let values = sql!("?, product, env, id, ?, 0, ?", event.id, event.at, json(event));
                script.push(format!("{} SELECT {values} {of_session}", OUTBOX.replace()));
            }
            script.push(format!("{} SELECT {} {of_session}", EVENTS.replace(), event_values(id, event)));
        }
        if script.is_empty() {
            return Ok(());
        }
        self.pool.begin().await?.commit(script).await.map(drop)
    }

    pub(crate) async fn sweep_slice(&self, sweep: &Sweep) -> StoreResult<Swept> {
        // More than need be, and without a lock: the exact conditions follow.
        let after = sweep.after.map(|id| sql!(" WHERE id > ?", id)).unwrap_or_default();
        let slice = sql!(
            format!(
                "SELECT id, LEAST(idle_expires_at, expires_at) <= IF(ended_at IS NULL, ?, ?) FROM sessions{after}
                 ORDER BY id LIMIT ?"
            ),
            sweep.now,
            sweep.now - sweep.retention,
            sweep.budget
        );
        let mut slice = self.pool.ask(vec![slice]).await?;
        let slice = slice.all(&CANDIDATES, |row| Ok((session_id(row)?, row.flag("is_due")?)))?;
        let due: Vec<SessionId> = slice.iter().filter(|(_, due)| *due).map(|(id, _)| *id).collect();
        let mut swept = Swept::default();
        if !due.is_empty() {
            let (done, users) = self.pool.retry(|| self.try_sweep(sweep, &due)).await?;
            swept = done;
            self.forget_strangers(users).await?;
        }
        if slice.len() == sweep.budget as usize {
            swept.next = slice.last().map(|(id, _)| *id);
        } else {
            self.remove_expired(sweep.now).await?;
        }
        Ok(swept)
    }

    /// Notes and removes what is due of a slice; with the users whose sessions were removed.
    async fn try_sweep(&self, sweep: &Sweep, due: &[SessionId]) -> Result<(Swept, HashSet<(Scope, UserId)>), Failure> {
        let mut transaction = self.pool.begin().await?;
        // What another server sweeps, or a request holds, is left to it.
        let sql =
            format!("{} WHERE id IN ({}) ORDER BY id FOR UPDATE SKIP LOCKED", SESSIONS.select(), list(due.to_vec()));
        let sessions = transaction.ask(vec![sql]).await?.all(&SESSIONS, session)?;
        let mut writes = Writes::default();
        let mut swept = Swept::default();
        let mut removed = Vec::new();
        let mut users = HashSet::new();
        for session in &sessions {
            let removes = sweep.removes(session);
            if session.ended.is_none()
                && let Some(Ended { at, reason }) = session.end(sweep.now)
            {
                let mut event = sweep.ending.event_for(session, swept.ended as u32, reason);
                event.at = at;
                event.notify = sweep.notify.contains(&session.scope.product);
                event.user_id = event.notify.then(|| session.user_id.clone());
                if removes {
                    writes.notification(&session.scope, &event);
                } else {
                    let sql = "UPDATE sessions SET ended_at = ?, ended_reason = ? WHERE id = ?";
                    writes.statement(sql!(sql, at, reason.as_str(), session.id));
                    writes.event(&session.scope, &event);
                }
                swept.ended += 1;
            }
            if removes {
                removed.push(session.id);
                users.insert((session.scope.clone(), session.user_id.clone()));
            }
        }
        swept.removed = removed.len() as u64;
        if !removed.is_empty() {
            writes.statement(format!("DELETE FROM sessions WHERE id IN ({})", list(removed)));
        }
        transaction.commit(writes.script()).await?;
        Ok((swept, users))
    }

    /// Removes what nobody is told of any more: each in small steps of its own.
    async fn remove_expired(&self, now: Timestamp) -> StoreResult<()> {
        for (table, key) in [("idempotency", "product, env, key_hash"), ("revocations", "seq")] {
            let sql = format!("DELETE FROM {table} WHERE expires_at <= ? ORDER BY expires_at, {key} LIMIT ?");
            let sql = sql!(sql, now, REMOVED_AT_ONCE);
            while self.pool.ask(vec![sql.clone()]).await?.affected[0] == REMOVED_AT_ONCE {}
        }
        let select = sql!(format!("{} WHERE banned_until <= ? LIMIT ?", OVER.select()), now, REMOVED_AT_ONCE);
        loop {
            let mut over = self.pool.ask(vec![select.clone()]).await?;
            let over = over.all(&OVER, |row| Ok((row.scope()?, user_id(row)?)))?;
            let delete =
                |(scope, user): &(Scope, UserId)| delete_ban(scope, user) + &sql!(" AND banned_until <= ?", now);
            if over.is_empty() {
                return Ok(());
            }
            self.pool.ask(over.iter().map(delete).collect()).await?;
            self.forget_strangers(over).await?;
        }
    }

    async fn forget_strangers(&self, users: impl IntoIterator<Item = (Scope, UserId)>) -> StoreResult<()> {
        let script = users.into_iter().map(|(scope, user)| unlock_stranger(&scope, &user)).collect();
        self.pool.ask(script).await.map(drop)
    }

    pub(crate) async fn try_take_notifications(
        &self,
        now: Timestamp,
        lease: Timestamp,
        limit: u32,
    ) -> Result<Vec<Notification>, Failure> {
        let mut transaction = self.pool.begin().await?;
        let select = sql!(
            "SELECT o.id, o.product, o.env, o.session_id, o.due, o.attempts, o.event FROM outbox o FORCE INDEX (PRIMARY)
             WHERE o.due <= ? AND (o.session_id IS NULL OR NOT EXISTS
             (SELECT 1 FROM outbox p WHERE p.session_id = o.session_id AND p.id < o.id))
             ORDER BY o.id LIMIT ? FOR UPDATE SKIP LOCKED",
            now,
            limit
        );
        let taken = transaction.ask(vec![select]).await?.all(&OUTBOX, |row| {
            let Notification { scope, event, attempts } = queued(row)?.notification;
            Ok(Notification { scope, event, attempts: attempts.saturating_add(1) })
        })?;
        if taken.is_empty() {
            transaction.roll_back().await?;
            return Ok(taken);
        }
        let ids = list(taken.iter().map(|n| n.event.id));
        let update = format!("UPDATE outbox SET due = ?, attempts = attempts + 1 WHERE id IN ({ids})");
        transaction.commit(vec![sql!(update, lease)]).await?;
        Ok(taken)
    }

    pub(crate) async fn try_settle(&self, id: EventId, retry_at: Option<Timestamp>) -> Result<(), Failure> {
        let sql = match retry_at {
            None => sql!("DELETE FROM outbox WHERE id = ?", id),
            Some(at) => sql!("UPDATE outbox SET due = ? WHERE id = ?", at, id),
        };
        self.pool.begin().await?.commit(vec![sql]).await.map(drop)
    }

    pub(crate) async fn try_append_audit(&self, entry: &AuditEntry) -> Result<(), Failure> {
        let mut writes = Writes::default();
        writes.audit(entry);
        self.pool.begin().await?.commit(writes.script()).await.map(drop)
    }
}

pub(crate) fn queued(row: &mut Cells) -> StoreResult<Queued> {
    let id = EventId::from_bytes(row.bytes("id")?);
    let scope = row.scope()?;
    row.skip("session_id");
    let (due, attempts) = (row.time("due")?, row.parsed("attempts")?);
    let event: Event = row.json("event")?;
    if event.id != id {
        return Err(row.corrupt("event"));
    }
    Ok(Queued { notification: Notification { scope, event, attempts }, due })
}
