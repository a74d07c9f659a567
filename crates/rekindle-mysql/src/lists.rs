//! Lists: sessions, events, the feed, the audit log.

use rekindle::clock::Timestamp;
use rekindle::journal::{Event, EventId, EventKind, Outcome};
use rekindle::session::{Scope, Session, SessionId};
use rekindle::store::*;
use serde_json::Value;

use crate::MysqlStore;
use crate::row::{Cells, Table};
use crate::sessions::{SESSIONS, session};
use crate::sql::sql;

pub(crate) const EVENTS: Table =
    Table { name: "events", columns: &["session_id", "id", "at", "kind", "outcome", "rest"], id: 1 };
pub(crate) const REVOCATIONS: Table = Table {
    name: "revocations",
    columns: &[
        "seq",
        "product",
        "env",
        "session_id",
        "below_generation",
        "reason",
        "session_expires_at",
        "at",
        "expires_at",
    ],
    id: 0,
};
pub(crate) const AUDIT: Table =
    Table { name: "audit", columns: &["id", "at", "actor", "action", "target", "ip", "request_id"], id: 0 };
const USAGE: Table = Table { name: "sessions", columns: &["kid", "sessions"], id: 0 };

impl MysqlStore {
    pub(crate) async fn read_sessions(&self, query: &SessionQuery) -> StoreResult<Vec<Session>> {
        let index = if query.user_id.is_some() { "sessions_by_user" } else { "sessions_by_scope" };
        let mut sql = sql!(
            format!("{} FORCE INDEX ({index}) WHERE product = ? AND env = ?", SESSIONS.select()),
            &query.scope.product,
            &query.scope.env
        );
        let active = "ended_at IS NULL AND idle_expires_at > ? AND expires_at > ?";
        let filters = [
            query.user_id.as_ref().map(|u| sql!(" AND user_id = ?", u)),
            query.tag.as_ref().map(|t| sql!(" AND tag = ?", t)),
            query.active.map(|a| sql!(format!(" AND ({active}) = ?"), query.now, query.now, a)),
            query.started_after.map(|t| sql!(" AND created_at > ?", t)),
            query.started_before.map(|t| sql!(" AND created_at < ?", t)),
            query.before.map(|id| sql!(" AND id < ?", id)),
        ];
        sql.extend(filters.into_iter().flatten());
        sql += &sql!(" ORDER BY id DESC LIMIT ?", query.limit);
        self.pool.ask(vec![sql]).await?.all(&SESSIONS, session)
    }

    pub(crate) async fn read_events(&self, query: &EventQuery) -> StoreResult<Vec<Event>> {
        let mut sql = sql!(format!("{} WHERE session_id = ?", EVENTS.select()), query.session_id);
        let filters = [
            query.kind.map(|k| sql!(" AND kind = ?", k.as_str())),
            query.outcome.map(|o| sql!(" AND outcome = ?", o.as_str())),
            query.from.map(|t| sql!(" AND at >= ?", t)),
            query.to.map(|t| sql!(" AND at < ?", t)),
            query.before.map(|id| sql!(" AND id < ?", id)),
        ];
        sql.extend(filters.into_iter().flatten());
        sql += &sql!(" ORDER BY id DESC LIMIT ?", query.limit);
        self.pool.ask(vec![sql]).await?.all(&EVENTS, event)
    }

    pub(crate) async fn read_revocations(
        &self,
        scope: Option<&Scope>,
        after: u64,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<Revocation>> {
        // In the order of the numbers, not by the index on the expiry.
        let mut sql = sql!(
            format!("{} FORCE INDEX (PRIMARY) WHERE seq > ? AND expires_at > ?", REVOCATIONS.select()),
            after,
            now
        );
        if let Some(Scope { product, env }) = scope {
            sql += &sql!(" AND product = ? AND env = ?", product, env);
        }
        sql += &sql!(" ORDER BY seq LIMIT ?", limit);
        self.pool.ask(vec![sql]).await?.all(&REVOCATIONS, revocation)
    }

    pub(crate) async fn read_audit_log(&self, before: Option<EventId>, limit: u32) -> StoreResult<Vec<AuditEntry>> {
        let before = before.map(|id| sql!(" WHERE id < ?", id)).unwrap_or_default();
        let sql = sql!(format!("{}{before} ORDER BY id DESC LIMIT ?", AUDIT.select()), limit);
        self.pool.ask(vec![sql]).await?.all(&AUDIT, audit_entry)
    }

    pub(crate) async fn read_secret_usage(&self) -> StoreResult<Vec<(u8, u64)>> {
        let sql = "SELECT kid, COUNT(*) FROM sessions WHERE ended_at IS NULL GROUP BY kid ORDER BY kid";
        let mut answers = self.pool.ask(vec![sql.into()]).await?;
        answers.all(&USAGE, |row| Ok((row.parsed("kid")?, row.parsed("sessions")?)))
    }
}

pub(crate) fn revocation(row: &mut Cells) -> StoreResult<Revocation> {
    Ok(Revocation {
        seq: row.parsed("seq")?,
        scope: row.scope()?,
        session_id: SessionId::from_bytes(row.bytes("session_id")?),
        what: match row.parsed_opt("below_generation")? {
            Some(generation) => {
                row.skip("reason");
                row.skip("session_expires_at");
                Revoked::Below(generation)
            }
            None => Revoked::Ended { reason: row.parsed("reason")?, expires_at: row.time("session_expires_at")? },
        },
        at: row.time("at")?,
        expires_at: row.time("expires_at")?,
    })
}

pub(crate) fn audit_entry(row: &mut Cells) -> StoreResult<AuditEntry> {
    Ok(AuditEntry {
        id: EventId::from_bytes(row.bytes("id")?),
        at: row.time("at")?,
        actor: row.text("actor")?,
        action: row.text("action")?,
        target: row.text("target")?,
        ip: row.text_opt("ip")?,
        request_id: row.text_opt("request_id")?,
    })
}

pub(crate) fn event(row: &mut Cells) -> StoreResult<Event> {
    let session_id = SessionId::from_bytes(row.bytes("session_id")?);
    let id = EventId::from_bytes(row.bytes("id")?);
    let at = row.time("at")?;
    let kind: EventKind = row.parsed("kind")?;
    let outcome: Option<Outcome> = row.parsed_opt("outcome")?;
    let mut rest: Value = row.json("rest")?;
    let members = rest.as_object_mut().ok_or_else(|| row.corrupt("rest"))?;
    members.insert("id".into(), id.to_string().into());
    members.insert("at".into(), at.to_string().into());
    members.insert("kind".into(), kind.as_str().into());
    let event: Event = serde_json::from_value(rest).map_err(|_| row.corrupt("rest"))?;
    // Their columns were read exactly; a text would have to be parsed again.
    Ok(Event { session_id: Some(session_id), at, outcome, ..event })
}
