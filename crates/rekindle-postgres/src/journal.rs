//! What is told of sessions: the journal, the outbox for webhooks, and the revocation feed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rekindle::clock::Timestamp;
use rekindle::journal::{Event, EventId, Rest};
use rekindle::session::{Scope, SessionId};
use rekindle::store::*;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::database::{Database, Failure, statement};
use crate::row::{Cells, scope_bytes};
use crate::sessions::uuid;
use crate::transaction::{Intent, Transaction, event_uuid};

/// The columns of `events` that [`read_event`] reads.
macro_rules! event_columns {
    () => {
        "session_id, id, at, kind, outcome, generation, rest"
    };
}
pub(crate) use event_columns;

/// The columns of `revocations` that [`read_revocation`] reads.
macro_rules! revocation_columns {
    () => {
        "seq, scope, session_id, below_generation, reason, session_expires_at, at, expires_at"
    };
}
pub(crate) use revocation_columns;

impl Database {
    pub(crate) async fn events(&self, query: EventQuery) -> StoreResult<Vec<Event>> {
        let rows = self.rows(statement!(
            concat!(
                "SELECT ",
                event_columns!(),
                " FROM events WHERE session_id = $1
                  AND id <= coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff') AND id IS DISTINCT FROM $2::uuid
                  AND ($3::text IS NULL OR kind = $3) AND ($4::text IS NULL OR outcome = $4)
                  AND ($5::bigint IS NULL OR at >= $5) AND ($6::bigint IS NULL OR at < $6) ORDER BY id DESC LIMIT $7"
            ),
            uuid(query.session_id),
            query.before.map(event_uuid),
            query.kind.map(|k| k.as_str()),
            query.outcome.map(|o| o.as_str()),
            query.from.map(Timestamp::millis),
            query.to.map(Timestamp::millis),
            i64::from(query.limit),
        ));
        rows.await?.iter().map(read_event).collect()
    }

    pub(crate) async fn revocations(
        &self,
        scope: Option<&Scope>,
        after: u64,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<Revocation>> {
        let rows = self.rows(statement!(
            concat!(
                "SELECT ",
                revocation_columns!(),
                " FROM revocations WHERE seq > $1 AND expires_at > $2 AND ($3::bytea IS NULL OR scope = $3)
                  ORDER BY seq LIMIT $4"
            ),
            i64::try_from(after).unwrap_or(i64::MAX),
            now.millis(),
            scope.map(scope_bytes),
            i64::from(limit),
        ));
        rows.await?.iter().map(read_revocation).collect()
    }

    pub(crate) async fn settle_notification(&self, id: EventId, retry_at: Option<Timestamp>) -> StoreResult<()> {
        let statement = match retry_at {
            None => statement!("DELETE FROM outbox WHERE id = $1", event_uuid(id)),
            Some(at) => statement!("UPDATE outbox SET due = $2 WHERE id = $1", event_uuid(id), at.millis()),
        };
        self.rows(statement).await.map(drop)
    }
}

/// Writes events of sessions that are there.
pub(crate) struct Record(pub(crate) Vec<Event>);

#[async_trait]
impl Intent for Record {
    type Outcome = ();

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<(), Failure> {
        let ids: Vec<Uuid> = self.0.iter().filter_map(|e| e.session_id).map(uuid).collect();
        // Shared locks: no session that is being removed gets an event that would stay.
        let sql = "SELECT id, scope FROM sessions WHERE id = ANY ($1::uuid[]) ORDER BY id FOR KEY SHARE";
        let [rows] = tx.read([statement!(sql, ids)]).await?;
        let mut scopes = BTreeMap::new();
        for row in &rows {
            let row = Cells::new(row, "sessions", "id");
            scopes.insert(SessionId::from_bytes(row.uuid("id")?), row.scope("scope")?);
        }
        for event in &self.0 {
            if let Some(scope) = event.session_id.and_then(|id| scopes.get(&id)) {
                tx.journal(scope, event.clone());
            }
        }
        Ok(())
    }
}

/// Takes notifications.
pub(crate) struct Take {
    pub(crate) now: Timestamp,
    pub(crate) lease: Timestamp,
    pub(crate) limit: u32,
}

#[async_trait]
impl Intent for Take {
    type Outcome = Vec<Notification>;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Vec<Notification>, Failure> {
        // What another taker has locked is its own; and of that session, this one takes no other.
        let sql =
            "SELECT id, scope, due, attempts, event FROM outbox AS o WHERE due <= $1 AND (session_id IS NULL OR NOT EXISTS
                       (SELECT 1 FROM outbox AS p WHERE p.session_id = o.session_id AND p.id < o.id))
                   ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED";
        let [rows] = tx.read([statement!(sql, self.now.millis(), i64::from(self.limit))]).await?;
        let mut taken = Vec::with_capacity(rows.len());
        for row in &rows {
            let notification = read_queued(row)?.notification;
            taken.push(Notification { attempts: notification.attempts.saturating_add(1), ..notification });
        }
        if !taken.is_empty() {
            tx.write(statement!(
                "UPDATE outbox SET due = $2, attempts = attempts + 1 WHERE id = ANY ($1::uuid[])",
                taken.iter().map(|n| event_uuid(n.event.id)).collect::<Vec<_>>(),
                self.lease.millis(),
            ));
        }
        Ok(taken)
    }
}

pub(crate) fn read_queued(row: &Row) -> Result<Queued, StoreError> {
    let row = Cells::new(row, "outbox", "id");
    let event: Event = row.json("event")?;
    if event.id != EventId::from_bytes(row.uuid("id")?) {
        return Err(row.corrupt("event"));
    }
    let notification = Notification { scope: row.scope("scope")?, event, attempts: row.int("attempts")? };
    Ok(Queued { notification, due: row.time("due")? })
}

pub(crate) fn read_event(row: &Row) -> Result<Event, StoreError> {
    let row = Cells::new(row, "events", "id");
    let rest: Rest<'static> = row.json("rest")?;
    let id = EventId::from_bytes(row.uuid("id")?);
    Ok(Event {
        session_id: Some(SessionId::from_bytes(row.uuid("session_id")?)),
        outcome: row.parsed_opt("outcome")?,
        generation: row.int("generation")?,
        ..rest.event(id, row.time("at")?, row.parsed("kind")?)
    })
}

pub(crate) fn read_revocation(row: &Row) -> Result<Revocation, StoreError> {
    let row = Cells::new(row, "revocations", "seq");
    let what = match row.int_opt("below_generation")? {
        Some(generation) => Revoked::Below(generation),
        None => Revoked::Ended { reason: row.parsed("reason")?, expires_at: row.time("session_expires_at")? },
    };
    Ok(Revocation {
        seq: row.int("seq")?,
        scope: row.scope("scope")?,
        session_id: SessionId::from_bytes(row.uuid("session_id")?),
        what,
        at: row.time("at")?,
        expires_at: row.time("expires_at")?,
    })
}
