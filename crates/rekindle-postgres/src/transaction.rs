//! An intent as one transaction: what it reads, what it writes, and the journal, outbox and feed at its end.

use std::time::Duration;

use async_trait::async_trait;
use rekindle::clock::Timestamp;
use rekindle::journal::{Event, EventId, Rest};
use rekindle::session::{Ended, Scope, SessionId};
use rekindle::store::{AuditEntry, Notification, Queued, Revocation, Revoked};
use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::database::{Connection, Failure, Param, Statement, Work, statement};
use crate::row::scope_bytes;

/// What is carried out in one transaction.
///
/// Under READ COMMITTED each statement sees what was committed before it began; what a decision rests on is locked by the
/// statement that reads it.
#[async_trait]
pub(crate) trait Intent: Send + Sync {
    type Outcome: Send + 'static;

    /// How the transaction begins: by default, isolated as the connection was told.
    const BEGIN: &'static str = "BEGIN READ WRITE";

    /// Whether it may have to read or remove so much that the usual time-outs are too short.
    const LONG: bool = false;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Self::Outcome, Failure>;
}

/// How the transaction of a question begins that several statements answer: all see the same moment.
pub(crate) const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// How long a [long](Intent::LONG) intent may take.
const LONG: Duration = Duration::from_secs(620);

/// An intent as work.
pub(crate) struct Transactional<I>(pub(crate) I);

#[async_trait]
impl<I: Intent> Work for Transactional<I> {
    type Outcome = I::Outcome;

    fn within(&self, usual: Duration) -> Duration {
        if I::LONG { LONG } else { usual }
    }

    async fn attempt(&self, connection: &Connection) -> Result<I::Outcome, Failure> {
        let mut tx = Transaction::begin(connection, I::BEGIN);
        if I::LONG {
            tx.write(statement!("SET LOCAL statement_timeout = '10min'"));
        }
        let outcome = self.0.carry_out(&mut tx).await?;
        tx.commit().await?;
        Ok(outcome)
    }
}

/// A transaction under way. Statements wait until an answer is needed, and then go out together: an intent that reads, decides
/// and writes takes two round trips.
pub(crate) struct Transaction<'c> {
    connection: &'c Connection,
    waiting: Vec<Statement>,
    ends: Vec<(SessionId, Ended)>,
    events: Vec<Event>,
    outbox: Vec<Queued>,
    /// Numbered at the end.
    revocations: Vec<Revocation>,
}

impl<'c> Transaction<'c> {
    fn begin(connection: &'c Connection, begin: &'static str) -> Self {
        let waiting = vec![statement!(begin)];
        Self { connection, waiting, ends: Vec::new(), events: Vec::new(), outbox: Vec::new(), revocations: Vec::new() }
    }

    /// The rows that these statements give, each of which sees what the earlier ones did.
    pub(crate) async fn read<const N: usize>(&mut self, reads: [Statement; N]) -> Result<[Vec<Row>; N], Failure> {
        let before = self.waiting.len();
        self.waiting.extend(reads);
        let answers = self.connection.send(&std::mem::take(&mut self.waiting)).await?;
        let answers: Vec<_> = answers.into_iter().skip(before).collect();
        Ok(answers.try_into().expect("an answer for each statement"))
    }

    /// Carries out a statement before the next one that reads, or at the end.
    pub(crate) fn write(&mut self, statement: Statement) {
        self.waiting.push(statement);
    }

    /// Writes into a locked row that its session has ended.
    pub(crate) fn end(&mut self, id: SessionId, ended: Ended) {
        self.ends.push((id, ended));
    }

    /// Writes an event into the journal, and into the outbox if it wishes so.
    pub(crate) fn journal(&mut self, scope: &Scope, event: Event) {
        self.notify(scope, &event);
        if event.session_id.is_some() {
            self.events.push(event);
        }
    }

    /// Writes an event into the outbox, if it wishes so.
    pub(crate) fn notify(&mut self, scope: &Scope, event: &Event) {
        if event.notify {
            let notification = Notification { scope: scope.clone(), event: event.clone(), attempts: 0 };
            self.outbox.push(Queued { notification, due: event.at });
        }
    }

    /// Writes an entry of the feed.
    pub(crate) fn revoke(
        &mut self,
        scope: &Scope,
        session_id: SessionId,
        what: Revoked,
        at: Timestamp,
        expires_at: Timestamp,
    ) {
        self.revocations.push(Revocation { seq: 0, scope: scope.clone(), session_id, what, at, expires_at });
    }

    /// Writes an entry of the audit log.
    pub(crate) fn audit(&mut self, entry: &AuditEntry) {
        self.write(insert_audit(&[entry]));
    }

    async fn commit(mut self) -> Result<(), Failure> {
        let (ends, events, outbox, revocations) = (&self.ends, &self.events, &self.outbox, &self.revocations);
        let written = [
            (!ends.is_empty()).then(|| end_rows(ends)),
            (!events.is_empty()).then(|| insert_events(&column(events, |event| event))),
            (!outbox.is_empty()).then(|| insert_notifications(&column(outbox, |queued| queued))),
            // Last: everybody else who writes to the feed waits from here to the end.
            (!revocations.is_empty()).then(|| append_revocations(revocations)),
        ];
        self.waiting.extend(written.into_iter().flatten());
        self.waiting.push(statement!("COMMIT"));
        self.connection.send(&self.waiting).await?;
        Ok(())
    }
}

/// JSON as columns hold it.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what is stored is JSON")
}

/// One value of each item, as an array parameter.
pub(crate) fn column<'t, T, U>(items: &'t [T], of: impl Fn(&'t T) -> U) -> Vec<U> {
    items.iter().map(of).collect()
}

pub(crate) fn event_uuid(id: EventId) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}

/// An event's session; only events that have one are written to the journal.
fn session_uuid(event: &Event) -> Option<Uuid> {
    event.session_id.map(|id| Uuid::from_bytes(id.to_bytes()))
}

/// Writes when and why sessions ended.
fn end_rows(ends: &[(SessionId, Ended)]) -> Statement {
    statement!(
        "UPDATE sessions AS s SET ended_at = v.at, ended_reason = v.reason
         FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS v (id, at, reason) WHERE s.id = v.id",
        column(ends, |(id, _)| Uuid::from_bytes(id.to_bytes())),
        column(ends, |(_, ended)| ended.at.millis()),
        column(ends, |(_, ended)| ended.reason.as_str()),
    )
}

/// Writes events of sessions into the journal.
pub(crate) fn insert_events(events: &[&Event]) -> Statement {
    statement!(
        // A repeated event is the same event.
        "INSERT INTO events (session_id, id, at, kind, outcome, generation, rest)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::text[])
         ON CONFLICT DO NOTHING",
        column(events, |e| session_uuid(e)),
        column(events, |e| event_uuid(e.id)),
        column(events, |e| e.at.millis()),
        column(events, |e| e.kind.as_str()),
        column(events, |e| e.outcome.map(|o| o.as_str())),
        column(events, |e| i64::from(e.generation)),
        column(events, |e| json(&Rest::of(e))),
    )
}

/// Writes notifications into the outbox, unless they are there.
pub(crate) fn insert_notifications(outbox: &[&Queued]) -> Statement {
    statement!(
        "INSERT INTO outbox (id, scope, session_id, due, attempts, event)
         SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::uuid[], $4::bigint[], $5::bigint[], $6::text[])
         ON CONFLICT DO NOTHING",
        column(outbox, |q| event_uuid(q.notification.event.id)),
        column(outbox, |q| scope_bytes(&q.notification.scope)),
        column(outbox, |q| session_uuid(&q.notification.event)),
        column(outbox, |q| q.due.millis()),
        column(outbox, |q| i64::from(q.notification.attempts)),
        column(outbox, |q| json(&q.notification.event)),
    )
}

/// Writes entries into the audit log, unless they are there.
pub(crate) fn insert_audit(entries: &[&AuditEntry]) -> Statement {
    statement!(
        // A repeated entry is the same entry.
        "INSERT INTO audit (id, entry) SELECT * FROM unnest($1::uuid[], $2::text[]) ON CONFLICT DO NOTHING",
        column(entries, |e| event_uuid(e.id)),
        column(entries, json),
    )
}

/// Writes entries of the feed with the next numbers.
fn append_revocations(revocations: &[Revocation]) -> Statement {
    // The numbers are those of `Revocation::next_seq`, had all the moment of the last one; of one intent, all have the same.
    let last = revocations.iter().map(|r| r.at.millis()).max().unwrap_or_default();
    let least = last.max(0).saturating_mul(1000);
    let mut params = revocation_params(&column(revocations, |r| r));
    params.extend([Box::new(least) as Param, Box::new(revocations.len() as i64)]);
    let sql = "WITH last AS (UPDATE feed SET last_seq = greatest(last_seq, $8::bigint - 1) + $9::bigint RETURNING last_seq)
               INSERT INTO revocations
                   (seq, scope, session_id, below_generation, reason, session_expires_at, at, expires_at)
               SELECT last.last_seq - $9::bigint + n, scope, session_id, below_generation, reason, session_expires_at, at,
                   expires_at
               FROM last, unnest($1::bytea[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
                   WITH ORDINALITY AS v (scope, session_id, below_generation, reason, session_expires_at, at, expires_at, n)";
    Statement { sql, params }
}

/// Writes entries of the feed that have their numbers, none of which may be there; the next one gets a greater number.
pub(crate) fn insert_revocations(tx: &mut Transaction<'_>, revocations: &[&Revocation]) {
    let seqs = column(revocations, |r| r.seq.cast_signed());
    tx.write(statement!("UPDATE feed SET last_seq = greatest(last_seq, $1)", seqs.iter().max().copied()));
    let mut params = revocation_params(revocations);
    params.push(Box::new(seqs));
    let sql = "INSERT INTO revocations
                   (scope, session_id, below_generation, reason, session_expires_at, at, expires_at, seq)
               SELECT * FROM unnest($1::bytea[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[],
                   $7::bigint[], $8::bigint[])";
    tx.write(Statement { sql, params });
}

/// All of them but their numbers.
fn revocation_params(revocations: &[&Revocation]) -> Vec<Param> {
    vec![
        Box::new(column(revocations, |r| scope_bytes(&r.scope))),
        Box::new(column(revocations, |r| Uuid::from_bytes(r.session_id.to_bytes()))),
        Box::new(column(revocations, |r| match r.what {
            Revoked::Below(generation) => Some(i64::from(generation)),
            Revoked::Ended { .. } => None,
        })),
        Box::new(column(revocations, |r| match r.what {
            Revoked::Ended { reason, .. } => Some(reason.as_str()),
            Revoked::Below(_) => None,
        })),
        Box::new(column(revocations, |r| match r.what {
            Revoked::Ended { expires_at, .. } => Some(expires_at.millis()),
            Revoked::Below(_) => None,
        })),
        Box::new(column(revocations, |r| r.at.millis())),
        Box::new(column(revocations, |r| r.expires_at.millis())),
    ]
}
