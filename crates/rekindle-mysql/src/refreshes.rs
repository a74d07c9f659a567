//! Refreshes: one alone is one packet; those that arrive while others are under way share a transaction.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use rekindle::rotation::Position;
use rekindle::session::Session;
use rekindle::store::*;

use crate::gather::{GROUP, Shared};
use crate::lists::EVENTS;
use crate::pool::{Failure, Pool};
use crate::sessions::{SESSIONS, select_session, session};
use crate::sql::{Script, list, sql};
use crate::writes::{Writes, event_values, json};

/// How many transactions of refreshes are under way at once.
const LANES: usize = 4;

/// The refreshes of a store.
pub(crate) type Refreshes = Gather<Advance, Cas>;

pub(crate) fn refreshes() -> Arc<Refreshes> {
    Gather::new(LANES, GROUP)
}

#[async_trait]
impl Shared for Advance {
    type Outcome = Cas;

    async fn try_together(pool: &Pool, asked: &[&Self]) -> Result<Vec<Option<Cas>>, Failure> {
        match asked {
            [advance] if !advance.event.notify => Ok(vec![Some(pool.try_plain(advance).await?)]),
            _ => pool.try_group(asked).await,
        }
    }

    async fn try_alone(&self, pool: &Pool) -> Result<Cas, Failure> {
        pool.try_advance(self).await
    }
}

impl Pool {
    /// The usual refresh, in one round trip: the event is written if the condition holds on the row, which stays
    /// locked, and the row if the event was. Not by `ROW_COUNT()`: it is wrong once the client is gone, and the
    /// statements go on.
    async fn try_plain(&self, advance: &Advance) -> Result<Cas, Failure> {
        let Advance { id, scope, tag, next, now, event, .. } = advance;
        let condition = sql!(
            "id = ? AND product = ? AND env = ? AND tag = ? AND generation = ? AND commitment = ?
             AND ended_at IS NULL AND idle_expires_at > ? AND expires_at > ?",
            *id,
            &scope.product,
            &scope.env,
            tag,
            advance.generation,
            &advance.commitment.to_bytes(),
            *now,
            *now
        );
        let mut writes = Script::new();
        let mut written = String::new();
        if let Some(session_id) = event.session_id {
            let values = event_values(session_id, event);
            let into = EVENTS.replace();
            writes.push(format!("{into} SELECT {values} FROM sessions WHERE {condition} FOR UPDATE"));
            let sql = " AND EXISTS (SELECT 1 FROM events e WHERE e.session_id = ? AND e.id = ?)";
            written = sql!(sql, session_id, event.id);
        }
        let commitment = next.commitment.to_bytes();
        // Assignments are made from left to right: `confirmed` is compared with the position as it was.
        let sql = format!(
            "UPDATE sessions SET
             confirmed = confirmed AND generation = ? AND commitment = ? AND issued_at = ? AND kid = ?,
             generation = ?, commitment = ?, issued_at = ?, kid = ?, idle_expires_at = LEAST(?, expires_at)
             WHERE {condition}{written}"
        );
        let updating = writes.len();
        writes.push(sql!(
            sql,
            next.generation,
            &commitment,
            next.issued_at,
            next.kid,
            next.generation,
            &commitment,
            next.issued_at,
            next.kid,
            *now + advance.idle_timeout
        ));
        let lock = select_session(*id) + " FOR UPDATE NOWAIT";
        let mut answers = self.begin().await?.commit([vec![lock], writes].concat()).await?;
        let applied = answers.affected[updating] == 1;
        match answers.first(&SESSIONS, session)? {
            Some(mut session) if applied => {
                advance.apply(&mut session);
                Ok(Cas::Applied(session))
            }
            row => Ok(Cas::Stale(row)),
        }
    }

    /// Several at once: those whose rows nobody has locked, each decided on by itself and in its turn.
    async fn try_group(&self, asked: &[&Advance]) -> Result<Vec<Option<Cas>>, Failure> {
        let mut transaction = self.begin().await?;
        let mut rows = transaction.lock_free(asked.iter().map(|advance| advance.id)).await?;
        let (mut writes, mut moved) = (Writes::default(), HashSet::new());
        let outcomes = asked.iter().map(|advance| {
            let row = rows.get_mut(&advance.id)?;
            if !advance.applies_to(row) {
                return Some(Cas::Stale(Some(row.clone())));
            }
            advance.apply(row);
            writes.event(&row.scope, &advance.event);
            moved.insert(row.id);
            Some(Cas::Applied(row.clone()))
        });
        let outcomes = outcomes.collect();
        if moved.is_empty() {
            transaction.roll_back().await?;
        } else {
            rows.retain(|id, _| moved.contains(id));
            writes.statement(save_positions(&Vec::from_iter(rows.values())));
            transaction.commit(writes.script()).await?;
        }
        Ok(outcomes)
    }

    /// A refresh by itself, which waits for locks.
    pub(crate) async fn try_advance(&self, advance: &Advance) -> Result<Cas, Failure> {
        let applies = |s: &Session| advance.applies_to(s);
        let write = |session: &mut Session| {
            advance.apply(session);
            let mut writes = Writes::default();
            let sql = "UPDATE sessions SET generation = ?, commitment = ?, issued_at = ?, kid = ?, confirmed = ?,
                       idle_expires_at = ?, auth = ?, min_generation = ? WHERE id = ?";
            let Position { generation, commitment, issued_at, kid } = session.position;
            writes.statement(sql!(
                sql,
                generation,
                &commitment.to_bytes(),
                issued_at,
                kid,
                session.confirmed,
                session.idle_expires_at,
                json(&session.auth),
                session.min_generation,
                session.id
            ));
            if let Some(elevation) = &advance.elevation {
                let below = Revoked::Below(session.min_generation);
                writes.revocation(session, below, advance.now, elevation.feed_until);
            }
            writes.event(&session.scope, &advance.event);
            writes.script()
        };
        self.conditional(advance.id, applies, write).await
    }
}

/// Writes where sessions are now: a statement for all of them.
fn save_positions(sessions: &[&Session]) -> String {
    let set = |column: &str, value: fn(&Session) -> String| {
        let values: Vec<String> = sessions.iter().map(|session| value(session)).collect();
        if values.iter().all(|value| *value == values[0]) {
            return format!("{column} = {}", values[0]);
        }
        let cases =
            sessions.iter().zip(values).map(|(session, value)| format!(" WHEN {} THEN {value}", list([session.id])));
        format!("{column} = CASE id{} END", String::from_iter(cases))
    };
    let columns = [
        set("generation", |s| s.position.generation.to_string()),
        set("commitment", |s| sql!("?", &s.position.commitment.to_bytes())),
        set("issued_at", |s| s.position.issued_at.to_string()),
        set("kid", |s| s.position.kid.to_string()),
        set("confirmed", |s| u8::from(s.confirmed).to_string()),
        set("idle_expires_at", |s| s.idle_expires_at.millis().to_string()),
    ];
    format!("UPDATE sessions SET {} WHERE id IN ({})", columns.join(", "), list(sessions.iter().map(|s| s.id)))
}
