//! What an intent writes, gathered into one script: each kind of row in one statement, the feed last.

use rekindle::clock::Timestamp;
use rekindle::journal::Event;
use rekindle::session::{EndReason, Ended, Scope, Session, SessionId};
use rekindle::store::{AuditEntry, EndedMany, EndedSession, Ending, Notification, Queued, Revocation, Revoked};
use serde::Serialize;

use crate::lists::{AUDIT, EVENTS, REVOCATIONS};
use crate::sql::{PACKET, Script, fitting, list, sql};
use crate::upkeep::OUTBOX;

/// A script under construction.
#[derive(Default)]
pub(crate) struct Writes {
    statements: Script,
    ends: Vec<(SessionId, Ended)>,
    events: Vec<String>,
    outbox: Vec<String>,
    revocations: Vec<Revocation>,
}

impl Writes {
    /// A statement of its own; it comes before all rows.
    pub(crate) fn statement(&mut self, statement: String) {
        self.statements.push(statement);
    }

    /// Rows, whose values these are, in statements of their own.
    pub(crate) fn rows(&mut self, into: &str, rows: &[String]) {
        insert(into, rows, "", &mut self.statements);
    }

    /// An event, in the journal of its session and in the outbox if it wishes so.
    pub(crate) fn event(&mut self, scope: &Scope, event: &Event) {
        self.notification(scope, event);
        if let Some(session_id) = event.session_id {
            self.events.push(event_values(session_id, event));
        }
    }

    /// An event in the outbox, if it wishes so, and not in the journal: its session is about to be removed.
    pub(crate) fn notification(&mut self, scope: &Scope, event: &Event) {
        if event.notify {
            let notification = Notification { scope: scope.clone(), event: event.clone(), attempts: 0 };
            self.outbox.push(queued_values(&Queued { notification, due: event.at }));
        }
    }

    /// An entry of the feed, which the script numbers.
    pub(crate) fn revocation(&mut self, session: &Session, what: Revoked, at: Timestamp, expires_at: Timestamp) {
        let scope = session.scope.clone();
        self.revocations.push(Revocation { seq: 0, scope, session_id: session.id, what, at, expires_at });
    }

    /// Ends active sessions, each for its reason, numbered in their order: rows, events, feed.
    pub(crate) fn end<'a>(
        &mut self,
        sessions: impl IntoIterator<Item = (&'a Session, EndReason)>,
        ending: &Ending,
    ) -> Vec<EndedSession> {
        let ended = sessions.into_iter().zip(0..).map(|((session, reason), i)| {
            self.ends.push((session.id, Ended { at: ending.at, reason }));
            let what = Revoked::Ended { reason, expires_at: session.expires_at };
            self.revocation(session, what, ending.at, ending.feed_until);
            self.event(&session.scope, &ending.event_for(session, i, reason));
            EndedSession::of(session, ending.at, reason)
        });
        ended.collect()
    }

    /// Ends those of the selected sessions that are active; the others are idle.
    pub(crate) fn end_selected(&mut self, selected: &[Session], ending: &Ending) -> EndedMany {
        let (active, idle): (Vec<_>, Vec<_>) = selected.iter().partition(|s| s.end(ending.at).is_none());
        let ended = self.end(active.into_iter().map(|s| (s, ending.reason)), ending);
        let idle = idle.into_iter().map(|s| EndedSession::of(s, ending.at, ending.reason)).collect();
        EndedMany { ended, idle, next: None }
    }

    pub(crate) fn audit(&mut self, entry: &AuditEntry) {
        self.statement(format!("{} VALUES ({})", AUDIT.replace(), audit_values(entry)));
    }

    /// The script.
    pub(crate) fn script(self) -> Script {
        let mut script = self.statements;
        for alike in self.ends.chunk_by(|a, b| a.1 == b.1) {
            let sql = "UPDATE sessions SET ended_at = ?, ended_reason = ? WHERE id IN";
            let ids = list(alike.iter().map(|(id, _)| *id));
            script.push(sql!(format!("{sql} ({ids})"), alike[0].1.at, alike[0].1.reason.as_str()));
        }
        // Replacing: an intent that is repeated because its answer was lost writes the same event once.
        insert(&OUTBOX.replace(), &self.outbox, "", &mut script);
        insert(&EVENTS.replace(), &self.events, "", &mut script);
        let count = self.revocations.len();
        if let Some(last) = self.revocations.iter().map(|entry| entry.at.millis()).max() {
            // `Revocation::next_seq`, as if all had the moment of the last one; of one intent, all have the same. The row stays
            // locked until the commit.
            script.push(sql!(
                "UPDATE feed SET last_seq = GREATEST(last_seq + 1, ?) + ? WHERE id = 1",
                last.max(0).saturating_mul(1000),
                count as u64 - 1
            ));
        }
        let number = |later: u64| sql!("(SELECT last_seq FROM feed WHERE id = 1) - ?", later);
        let numbered = self.revocations.iter().zip((0..count as u64).rev());
        let rows: Vec<String> = numbered.map(|(entry, later)| revocation_values(&number(later), entry)).collect();
        insert(&REVOCATIONS.insert(), &rows, "", &mut script);
        script
    }
}

/// The values of a revocation's row, with an expression for its number.
pub(crate) fn revocation_values(seq: &str, entry: &Revocation) -> String {
    let (below, reason, session_expires_at) = match entry.what {
        Revoked::Ended { reason, expires_at } => (None, Some(reason.as_str()), Some(expires_at)),
        Revoked::Below(generation) => (Some(generation), None, None),
    };
    sql!(
        format!("{seq}, ?, ?, ?, ?, ?, ?, ?, ?"),
        &entry.scope.product,
        &entry.scope.env,
        entry.session_id,
        below,
        reason,
        session_expires_at,
        entry.at,
        entry.expires_at
    )
}

/// The values of a row of the outbox.
pub(crate) fn queued_values(queued: &Queued) -> String {
    let Queued { notification: Notification { scope, event, attempts }, due } = queued;
    sql!("?, ?, ?, ?, ?, ?, ?", event.id, &scope.product, &scope.env, event.session_id, *due, *attempts, json(event))
}

/// The values of a row of the audit log.
pub(crate) fn audit_values(entry: &AuditEntry) -> String {
    sql!(
        "?, ?, ?, ?, ?, ?, ?",
        entry.id,
        entry.at,
        &entry.actor,
        &entry.action,
        &entry.target,
        entry.ip.as_ref(),
        entry.request_id.as_ref()
    )
}

/// The values of an event's row.
pub(crate) fn event_values(session_id: SessionId, event: &Event) -> String {
    let mut rest = serde_json::to_value(event).expect("an event is JSON");
    let members = rest.as_object_mut().expect("an event is a JSON object");
    for column in ["session_id", "id", "at", "kind", "outcome"] {
        members.remove(column);
    }
    sql!(
        "?, ?, ?, ?, ?, ?",
        session_id,
        event.id,
        event.at,
        event.kind.as_str(),
        event.outcome.map(|o| o.as_str()),
        rest.to_string()
    )
}

/// A value that is JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("these types are JSON")
}

/// Inserts rows, whose values these are, in as few statements as packets carry; `after` is put behind them.
pub(crate) fn insert(into: &str, rows: &[String], after: &str, script: &mut Script) {
    let (before, mut rest) = (format!("{into} VALUES ("), rows);
    while !rest.is_empty() {
        let (fit, later) = rest.split_at(fitting(rest, "),(".len(), PACKET - before.len() - after.len()));
        script.push(format!("{before}{}){after}", fit.join("),(")));
        rest = later;
    }
}
