//! What changes sessions: each intent reads the rows that it depends on under a lock, decides, and writes with the
//! commit.

use rekindle::refresh::Commitment;
use rekindle::rotation::Position;
use rekindle::session::{Ended, Object, Scope, Session, SessionId, UserId};
use rekindle::store::*;

use crate::MysqlStore;
use crate::pool::{Failure, Pool};
use crate::row::{Cells, Table};
use crate::sql::{Script, sql};
use crate::writes::{Writes, json};

pub(crate) const SESSIONS: Table = Table {
    name: "sessions",
    columns: &[
        "id",
        "product",
        "env",
        "tag",
        "definition_version",
        "user_id",
        "generation",
        "commitment",
        "issued_at",
        "kid",
        "confirmed",
        "min_generation",
        "idle_expires_at",
        "expires_at",
        "created_at",
        "ended_at",
        "ended_reason",
        "version",
        "previous_session_id",
        "auth",
        "client",
        "claims",
        "data",
    ],
    id: 0,
};
pub(crate) const SESSION_IDS: Table = Table { name: "sessions", columns: &["id"], id: 0 };
pub(crate) const IDEMPOTENCY: Table = Table {
    name: "idempotency",
    columns: &["product", "env", "key_hash", "request", "session_id", "expires_at"],
    id: 2,
};

impl MysqlStore {
    pub(crate) async fn read_session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        self.pool.ask(vec![select_session(id)]).await?.first(&SESSIONS, session)
    }

    pub(crate) async fn try_fast_forward(&self, fast_forward: &FastForward) -> Result<Cas, Failure> {
        let applies = |s: &Session| fast_forward.applies_to(s);
        let write = |session: &mut Session| {
            fast_forward.apply(session);
            let mut writes = Writes::default();
            let sql = "UPDATE sessions SET generation = ?, commitment = ?, issued_at = ?, kid = ?, confirmed = ?,
                       idle_expires_at = ?, ended_at = NULL, ended_reason = NULL WHERE id = ?";
            let Position { generation, commitment, issued_at, kid } = session.position;
            writes.statement(sql!(
                sql,
                generation,
                &commitment.to_bytes(),
                issued_at,
                kid,
                session.confirmed,
                session.idle_expires_at,
                session.id
            ));
            writes.event(&session.scope, &fast_forward.event);
            writes.script()
        };
        self.pool.conditional(fast_forward.id, applies, write).await
    }

    pub(crate) async fn try_confirm(&self, confirmations: &[Confirmation]) -> Result<(), Failure> {
        if confirmations.is_empty() {
            return Ok(());
        }
        // In one order, so that two batches do not wait for each other.
        let mut confirmations: Vec<_> = confirmations.iter().collect();
        confirmations.sort_by_key(|c| c.session_id);
        let sql = "UPDATE sessions SET confirmed = 1 WHERE id = ? AND product = ? AND env = ? AND generation = ?
                   AND ended_at IS NULL AND confirmed = 0";
        let update = |c: &&Confirmation| sql!(sql, c.session_id, &c.scope.product, &c.scope.env, c.generation);
        let script = confirmations.iter().map(update).collect();
        self.pool.begin().await?.commit(script).await.map(drop)
    }

    pub(crate) async fn try_update(&self, update: &Update) -> Result<Cas, Failure> {
        let applies = |s: &Session| update.applies_to(s);
        let write = |session: &mut Session| {
            update.apply(session);
            let mut writes = Writes::default();
            let sql = "UPDATE sessions SET version = ?, claims = ?, data = ? WHERE id = ?";
            writes.statement(sql!(sql, session.version, session.claims.as_str(), session.data.as_str(), session.id));
            writes.event(&session.scope, &update.event);
            writes.script()
        };
        self.pool.conditional(update.id, applies, write).await
    }
}

impl Pool {
    /// Writes to a session's row if a condition holds on it.
    pub(crate) async fn conditional(
        &self,
        id: SessionId,
        applies: impl Fn(&Session) -> bool,
        write: impl Fn(&mut Session) -> Script,
    ) -> Result<Cas, Failure> {
        let mut transaction = self.begin().await?;
        let found = transaction.ask(vec![lock_session(id)]).await?.first(&SESSIONS, session)?;
        match found {
            Some(mut session) if applies(&session) => {
                let script = write(&mut session);
                transaction.commit(script).await?;
                Ok(Cas::Applied(session))
            }
            other => {
                transaction.roll_back().await?;
                Ok(Cas::Stale(other))
            }
        }
    }
}

pub(crate) fn session(row: &mut Cells) -> StoreResult<Session> {
    Ok(Session {
        id: session_id(row)?,
        scope: row.scope()?,
        tag: row.parsed("tag")?,
        definition_version: row.parsed("definition_version")?,
        user_id: user_id(row)?,
        position: Position {
            generation: row.parsed("generation")?,
            commitment: Commitment::from_bytes(row.bytes("commitment")?),
            issued_at: row.parsed("issued_at")?,
            kid: row.parsed("kid")?,
        },
        confirmed: row.flag("confirmed")?,
        min_generation: row.parsed("min_generation")?,
        idle_expires_at: row.time("idle_expires_at")?,
        expires_at: row.time("expires_at")?,
        created_at: row.time("created_at")?,
        ended: match (row.time_opt("ended_at")?, row.parsed_opt("ended_reason")?) {
            (None, None) => None,
            (Some(at), Some(reason)) => Some(Ended { at, reason }),
            (Some(_), None) => return Err(row.corrupt("ended_reason")),
            (None, Some(_)) => return Err(row.corrupt("ended_at")),
        },
        version: row.parsed("version")?,
        previous_session_id: row.bytes_opt("previous_session_id")?.map(SessionId::from_bytes),
        auth: row.json("auth")?,
        client: row.json("client")?,
        claims: object(row, "claims")?,
        data: object(row, "data")?,
    })
}

pub(crate) fn session_id(row: &mut Cells) -> StoreResult<SessionId> {
    Ok(SessionId::from_bytes(row.bytes("id")?))
}

pub(crate) fn user_id(row: &mut Cells) -> StoreResult<UserId> {
    row.parsed("user_id")
}

/// A known key, and the session that it leads to.
pub(crate) fn idempotent(row: &mut Cells) -> StoreResult<(Idempotency, SessionId)> {
    row.skip("product");
    row.skip("env");
    let (key, request) = (row.bytes("key_hash")?, row.bytes("request")?);
    let session_id = SessionId::from_bytes(row.bytes("session_id")?);
    Ok((Idempotency { key, request, expires_at: row.time("expires_at")? }, session_id))
}

/// The values of the row of a key that leads to `session`.
pub(crate) fn idempotency_values(session: &Session, known: &Idempotency) -> String {
    let Scope { product, env } = &session.scope;
    sql!("?, ?, ?, ?, ?, ?", product, env, &known.key, &known.request, session.id, known.expires_at)
}

fn object(row: &mut Cells, column: &'static str) -> StoreResult<Object> {
    let text = row.text(column)?;
    Object::parse(text).map_err(|_| row.corrupt(column))
}

pub(crate) fn select_session(id: SessionId) -> String {
    sql!(format!("{} WHERE id = ?", SESSIONS.select()), id)
}

pub(crate) fn lock_session(id: SessionId) -> String {
    select_session(id) + " FOR UPDATE"
}

/// The values of a session's row.
pub(crate) fn session_values(session: &Session) -> String {
    let Position { generation, commitment, issued_at, kid } = session.position;
    sql!(
        "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?",
        session.id,
        &session.scope.product,
        &session.scope.env,
        &session.tag,
        session.definition_version,
        &session.user_id,
        generation,
        &commitment.to_bytes(),
        issued_at,
        kid,
        session.confirmed,
        session.min_generation,
        session.idle_expires_at,
        session.expires_at,
        session.created_at,
        session.ended.map(|e| e.at),
        session.ended.map(|e| e.reason.as_str()),
        session.version,
        session.previous_session_id,
        json(&session.auth),
        json(&session.client),
        session.claims.as_str(),
        session.data.as_str()
    )
}
