//! The journal and the outbox: what happened to sessions, and what webhooks are still to be told.

use rekindle::clock::Timestamp;
use rekindle::journal::{Event, EventId, Rest};
use rekindle::session::SessionId;
use rekindle::store::*;
use rusqlite::params;

use crate::db::{Cells, Db, Failure, ScopeId, Table};
use crate::sql::{json, past_every_id};

columns!(EVENTS, event_columns, "events", 1, "session_id", "id", "at", "kind", "outcome", "generation", "rest");
columns!(OUTBOX, outbox_columns, "outbox", 0, "id", "scope", "due", "attempts", "event");

impl Db<'_> {
    pub(crate) fn record(&self, event: &Event) -> Result<(), Failure> {
        let Some(id) = event.session_id else { return Ok(()) };
        match self.session(id)? {
            Some(session) => self.write_event(self.scope_id(&session.scope)?, event),
            None => Ok(()),
        }
    }

    pub(crate) fn events(&self, query: &EventQuery) -> Result<Vec<Event>, Failure> {
        let sql = concat!(
            "SELECT ",
            event_columns!(),
            " FROM events WHERE session_id = ?1 AND id < ?2 AND (?3 IS NULL OR kind = ?3)
              AND (?4 IS NULL OR outcome = ?4) AND (?5 IS NULL OR at >= ?5) AND (?6 IS NULL OR at < ?6)
              ORDER BY id DESC LIMIT ?7"
        );
        let params = params![
            query.session_id.to_bytes(),
            query.before.map_or_else(past_every_id, |id| id.to_bytes().to_vec()),
            query.kind.map(|k| k.as_str()),
            query.outcome.map(|o| o.as_str()),
            query.from.map(Timestamp::millis),
            query.to.map(Timestamp::millis),
            query.limit,
        ];
        self.all(sql, params, &EVENTS, read_event)
    }

    pub(crate) fn take_notifications(
        &self,
        now: Timestamp,
        lease: Timestamp,
        limit: u32,
    ) -> Result<Vec<Notification>, Failure> {
        let sql = concat!(
            "SELECT ",
            outbox_columns!(),
            " FROM outbox AS o WHERE due <= ?1 AND (session_id IS NULL OR NOT EXISTS
              (SELECT 1 FROM outbox AS p WHERE p.session_id = o.session_id AND p.id < o.id)) ORDER BY id LIMIT ?2"
        );
        let taken = self.all(sql, params![now.millis(), limit], &OUTBOX, |row| {
            let notification = self.read_queued(row)?.notification;
            Ok(Notification { attempts: notification.attempts.saturating_add(1), ..notification })
        })?;
        for notification in &taken {
            self.execute(
                "UPDATE outbox SET due = ?2, attempts = ?3 WHERE id = ?1",
                params![notification.event.id.to_bytes(), lease.millis(), notification.attempts],
            )?;
        }
        Ok(taken)
    }

    pub(crate) fn settle_notification(&self, id: EventId, retry_at: Option<Timestamp>) -> Result<(), Failure> {
        match retry_at {
            None => self.execute("DELETE FROM outbox WHERE id = ?1", [id.to_bytes()])?,
            Some(at) => {
                self.execute("UPDATE outbox SET due = ?2 WHERE id = ?1", params![id.to_bytes(), at.millis()])?
            }
        };
        Ok(())
    }

    pub(crate) fn write_event(&self, scope: ScopeId, event: &Event) -> Result<(), Failure> {
        if event.notify {
            self.write_notification(scope, event, 0, event.at)?;
        }
        self.insert_event(event)
    }

    pub(crate) fn write_notification(
        &self,
        scope: ScopeId,
        event: &Event,
        attempts: u32,
        due: Timestamp,
    ) -> Result<(), Failure> {
        let session_id = event.session_id.map(SessionId::to_bytes);
        // Replacing: an intent that is repeated because its answer was lost writes the same event once.
        self.execute(
            "INSERT OR REPLACE INTO outbox (id, scope, session_id, due, attempts, event) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![event.id.to_bytes(), scope, session_id, due.millis(), attempts, json(event)],
        )?;
        Ok(())
    }

    /// Writes an event into the journal, if it is of a session; a repeated event is the same event.
    pub(crate) fn insert_event(&self, event: &Event) -> Result<(), Failure> {
        if let Some(session_id) = event.session_id {
            self.execute(
                "INSERT INTO events (session_id, id, at, kind, outcome, generation, rest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
                params![
                    session_id.to_bytes(),
                    event.id.to_bytes(),
                    event.at.millis(),
                    event.kind.as_str(),
                    event.outcome.map(|o| o.as_str()),
                    event.generation,
                    json(&Rest::of(event)),
                ],
            )?;
        }
        Ok(())
    }

    pub(crate) fn read_queued(&self, row: &Cells<'_, '_>) -> Result<Queued, Failure> {
        let id = EventId::from_bytes(row.bytes("id")?);
        let scope = self.scope(row, "scope")?;
        let due = row.time("due")?;
        let attempts = row.int("attempts")?;
        let event: Event = row.json("event")?;
        if event.id != id {
            return Err(row.corrupt("event"));
        }
        Ok(Queued { notification: Notification { scope, event, attempts }, due })
    }
}

pub(crate) fn read_event(row: &Cells<'_, '_>) -> Result<Event, Failure> {
    let session_id = Some(SessionId::from_bytes(row.bytes("session_id")?));
    let id = EventId::from_bytes(row.bytes("id")?);
    let at = row.time("at")?;
    let kind = row.parsed("kind")?;
    let outcome = row.parsed_opt("outcome")?;
    let generation = row.int("generation")?;
    let rest: Rest<'static> = row.json("rest")?;
    Ok(Event { session_id, outcome, generation, ..rest.event(id, at, kind) })
}
