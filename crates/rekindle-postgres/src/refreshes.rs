//! Refreshes that arrive while others are under way share a statement.

use std::sync::Arc;

use async_trait::async_trait;
use rekindle::journal::Rest;
use rekindle::store::{Advance, Cas, Gather, StoreResult};
use uuid::Uuid;

use crate::database::{Database, Statement, statement};
use crate::gather::{GROUP, Shared};
use crate::row::{Cells, scope_bytes};
use crate::sessions::{read_session, session_columns, uuid};
use crate::transaction::{Transactional, column, json};

/// How many statements of refreshes are under way at once.
const LANES: usize = 2;

/// The refreshes of a store.
pub(crate) type Refreshes = Gather<Advance, Cas>;

pub(crate) fn refreshes() -> Arc<Refreshes> {
    Gather::new(LANES, GROUP)
}

#[async_trait]
impl Shared for Advance {
    type Outcome = Cas;

    async fn together(database: &Database, asked: &[&Self]) -> StoreResult<Vec<Option<StoreResult<Cas>>>> {
        let mut moved = vec![None; asked.len()];
        for row in database.rows(refresh(asked)).await? {
            let n: usize = Cells::new(&row, "sessions", "id").int("n")?;
            moved[n - 1] = Some(read_session(&row).map(Cas::Applied));
        }
        Ok(moved)
    }

    async fn alone(&self, database: &Database) -> StoreResult<Cas> {
        match database.session(self.id).await? {
            Some(session) if self.applies_to(&session) => database.run(Transactional(self.clone())).await,
            other => Ok(Cas::Stale(other)),
        }
    }
}

/// Whole refreshes in one statement: rows, journal and outbox. The order of locks, and that it waits for none, keeps two of
/// them from getting into each other's way. Of two refreshes of one row, one moves it.
fn refresh(asked: &[&Advance]) -> Statement {
    statement!(
        concat!(
            "WITH asked AS (
                 SELECT * FROM unnest(
                     $1::uuid[], $2::bytea[], $3::text[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bytea[], $8::bigint[],
                     $9::bigint[], $10::bigint[], $11::bigint[], $12::uuid[], $13::bigint[], $14::text[], $15::text[],
                     $16::bigint[], $17::text[], $18::text[]
                 ) WITH ORDINALITY AS v (
                     session_id, in_scope, with_tag, from_generation, from_commitment, to_generation, to_commitment,
                     to_issued_at, to_kid, idle_until, now, event_id, at, kind, outcome, event_generation, rest, event, n
                 )
             ), locked AS (
                 SELECT id AS locked_id FROM sessions WHERE id = ANY ($1::uuid[]) ORDER BY id
                 FOR NO KEY UPDATE SKIP LOCKED
             ), moved AS (
                 UPDATE sessions SET generation = to_generation, commitment = to_commitment, issued_at = to_issued_at,
                     kid = to_kid, idle_expires_at = least(idle_until, expires_at),
                     confirmed = confirmed AND (generation, commitment, issued_at, kid)
                         = (to_generation, to_commitment, to_issued_at, to_kid)
                 FROM asked JOIN locked ON locked_id = session_id
                 WHERE id = session_id AND scope = in_scope AND tag = with_tag AND generation = from_generation
                     AND commitment = from_commitment AND ended_at IS NULL AND idle_expires_at > now AND expires_at > now
                 RETURNING n, ",
            session_columns!(),
            "), journal AS (
                 INSERT INTO events (session_id, id, at, kind, outcome, generation, rest)
                 SELECT session_id, event_id, at, kind, outcome, event_generation, rest FROM moved JOIN asked USING (n)
                 ON CONFLICT DO NOTHING
             ), notified AS (
                 INSERT INTO outbox (id, scope, session_id, due, attempts, event)
                 SELECT event_id, in_scope, session_id, at, 0, event FROM moved JOIN asked USING (n) WHERE event IS NOT NULL
                 ON CONFLICT DO NOTHING
             ) SELECT * FROM moved"
        ),
        column(asked, |a| uuid(a.id)),
        column(asked, |a| scope_bytes(&a.scope)),
        column(asked, |a| a.tag.as_str().to_owned()),
        column(asked, |a| i64::from(a.generation)),
        column(asked, |a| a.commitment.to_bytes().to_vec()),
        column(asked, |a| i64::from(a.next.generation)),
        column(asked, |a| a.next.commitment.to_bytes().to_vec()),
        column(asked, |a| i64::from(a.next.issued_at)),
        column(asked, |a| i64::from(a.next.kid)),
        column(asked, |a| (a.now + a.idle_timeout).millis()),
        column(asked, |a| a.now.millis()),
        column(asked, |a| Uuid::from_bytes(a.event.id.to_bytes())),
        column(asked, |a| a.event.at.millis()),
        column(asked, |a| a.event.kind.as_str()),
        column(asked, |a| a.event.outcome.map(|o| o.as_str())),
        column(asked, |a| i64::from(a.event.generation)),
        column(asked, |a| json(&Rest::of(&a.event))),
        column(asked, |a| a.event.notify.then(|| json(&a.event))),
    )
}
