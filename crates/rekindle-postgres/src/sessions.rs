//! Sessions: their rows and their moves.

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use rekindle::clock::Timestamp;
use rekindle::journal::Event;
use rekindle::refresh::Commitment;
use rekindle::rotation::Position;
use rekindle::session::{Ended, Object, Scope, Session, SessionId, UserId};
use rekindle::store::*;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::database::{Database, Failure, Statement, statement};
use crate::row::{Cells, scope_bytes};
use crate::transaction::{BEGIN_SNAPSHOT, Intent, Transaction, Transactional, column, json};

/// The columns of `sessions` that [`read_session`] reads.
macro_rules! session_columns {
    () => {
        "id, generation, commitment, issued_at, kid, confirmed, min_generation, idle_expires_at, expires_at, created_at, \
         ended_at, ended_reason, version, scope, tag, definition_version, user_id, previous_session_id, auth, client, claims, \
         data"
    };
}
pub(crate) use session_columns;

/// The condition under which a session is active at `$1`.
macro_rules! active {
    () => {
        "(ended_at IS NULL AND idle_expires_at > $1 AND expires_at > $1)"
    };
}
pub(crate) use active;

pub(crate) fn uuid(id: SessionId) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}

pub(crate) fn read_session(row: &Row) -> Result<Session, StoreError> {
    let row = Cells::new(row, "sessions", "id");
    let object = |column| Object::parse(row.text(column)?.to_owned()).map_err(|_| row.corrupt(column));
    let ended = match (row.time_opt("ended_at")?, row.parsed_opt("ended_reason")?) {
        (None, None) => None,
        (Some(at), Some(reason)) => Some(Ended { at, reason }),
        (Some(_), None) => return Err(row.corrupt("ended_reason")),
        (None, Some(_)) => return Err(row.corrupt("ended_at")),
    };
    Ok(Session {
        id: SessionId::from_bytes(row.uuid("id")?),
        position: Position {
            generation: row.int("generation")?,
            commitment: Commitment::from_bytes(row.array("commitment")?),
            issued_at: row.int("issued_at")?,
            kid: row.int("kid")?,
        },
        confirmed: row.flag("confirmed")?,
        min_generation: row.int("min_generation")?,
        idle_expires_at: row.time("idle_expires_at")?,
        expires_at: row.time("expires_at")?,
        created_at: row.time("created_at")?,
        ended,
        version: row.int("version")?,
        scope: row.scope("scope")?,
        tag: row.parsed("tag")?,
        definition_version: row.int("definition_version")?,
        user_id: row.parsed_bytes("user_id")?,
        previous_session_id: row.uuid_opt("previous_session_id")?.map(SessionId::from_bytes),
        auth: row.json("auth")?,
        client: row.json("client")?,
        claims: object("claims")?,
        data: object("data")?,
    })
}

pub(crate) fn read_sessions(rows: &[Row]) -> Result<Vec<Session>, StoreError> {
    rows.iter().map(read_session).collect()
}

/// Locks the row that stands for a user. Under the exclusive lock, nobody else starts a session of the user, bans or erases it;
/// the shared one keeps only those out who take the exclusive one.
pub(crate) fn lock_user(scope: &Scope, user_id: &UserId, exclusive: bool) -> Statement {
    let sql = match exclusive {
        true => "SELECT n FROM user_locks WHERE n = $1 FOR UPDATE",
        false => "SELECT n FROM user_locks WHERE n = $1 FOR SHARE",
    };
    statement!(sql, lock_of(scope, user_id))
}

/// The number of the row that stands for a user.
pub(crate) fn lock_of(scope: &Scope, user_id: &UserId) -> i64 {
    let name = [scope_bytes(scope).as_slice(), b"/", user_id.as_str().as_bytes()].concat();
    digest(&SHA256, &name).as_ref()[0].into()
}

macro_rules! select_sessions {
    ($user:literal) => {
        concat!(
            "SELECT ",
            session_columns!(),
            " FROM sessions WHERE scope = $2 AND ",
            $user,
            " AND id <= coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff') AND id IS DISTINCT FROM $3::uuid
              AND ($5::text IS NULL OR tag = $5) AND ($6::boolean IS NULL OR $6 = ",
            active!(),
            ") AND ($7::bigint IS NULL OR created_at > $7) AND ($8::bigint IS NULL OR created_at < $8)
              ORDER BY id DESC LIMIT $9"
        )
    };
}

const SELECT_SESSIONS: &str = select_sessions!("$4::bytea IS NULL");
const SELECT_SESSIONS_OF_USER: &str = select_sessions!("user_id = $4");

impl Database {
    pub(crate) async fn session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        let sql = concat!("SELECT ", session_columns!(), " FROM sessions WHERE id = $1");
        let rows = self.rows(statement!(sql, uuid(id))).await?;
        rows.first().map(read_session).transpose()
    }

    pub(crate) async fn sessions(&self, query: SessionQuery) -> StoreResult<Vec<Session>> {
        let rows = self.rows(statement!(
            if query.user_id.is_some() { SELECT_SESSIONS_OF_USER } else { SELECT_SESSIONS },
            query.now.millis(),
            scope_bytes(&query.scope),
            query.before.map(uuid),
            query.user_id.map(|u| u.as_str().as_bytes().to_vec()),
            query.tag.map(|t| t.as_str().to_owned()),
            query.active,
            query.started_after.map(Timestamp::millis),
            query.started_before.map(Timestamp::millis),
            i64::from(query.limit),
        ));
        read_sessions(&rows.await?)
    }

    pub(crate) async fn advance(&self, advance: Advance) -> StoreResult<Cas> {
        if advance.elevation.is_some() {
            return self.run(Transactional(advance)).await;
        }
        self.share(&self.refreshes, advance).await
    }

    pub(crate) async fn confirm(&self, mut confirmations: Vec<Confirmation>) -> StoreResult<()> {
        // All lock the rows in one order.
        confirmations.sort_unstable_by_key(|c| c.session_id);
        let statement = statement!(
            "WITH reported AS (SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bigint[]) AS v (id, scope, generation)),
                 locked AS (SELECT id FROM sessions WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE)
             UPDATE sessions AS s SET confirmed = true FROM reported AS v WHERE s.id = v.id AND s.id IN (SELECT id FROM locked)
                 AND s.scope = v.scope AND s.generation = v.generation AND s.ended_at IS NULL AND NOT s.confirmed",
            column(&confirmations, |c| uuid(c.session_id)),
            column(&confirmations, |c| scope_bytes(&c.scope)),
            column(&confirmations, |c| i64::from(c.generation)),
        );
        self.rows(statement).await.map(drop)
    }
}

/// Counts the unended sessions of each master secret.
pub(crate) struct SecretUsage;

#[async_trait]
impl Intent for SecretUsage {
    type Outcome = Vec<(u8, u64)>;

    const BEGIN: &'static str = BEGIN_SNAPSHOT;
    const LONG: bool = true;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Self::Outcome, Failure> {
        let sql = "SELECT kid, count(*) AS sessions FROM sessions WHERE ended_at IS NULL GROUP BY kid ORDER BY kid";
        let [rows] = tx.read([statement!(sql)]).await?;
        let read = |row| {
            let row = Cells::new(row, "sessions", "kid");
            Ok((row.int("kid")?, row.int("sessions")?))
        };
        rows.iter().map(read).collect()
    }
}

/// With an elevation, or after it could not be [gathered](crate::gather).
#[async_trait]
impl Intent for Advance {
    type Outcome = Cas;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Cas, Failure> {
        let cas = conditional(tx, self.id, &self.event, |s| self.applies_to(s), |s| self.apply(s)).await?;
        if let (Cas::Applied(session), Some(elevation)) = (&cas, &self.elevation) {
            let below = Revoked::Below(session.min_generation);
            tx.revoke(&session.scope, session.id, below, self.now, elevation.feed_until);
        }
        Ok(cas)
    }
}

#[async_trait]
impl Intent for FastForward {
    type Outcome = Cas;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Cas, Failure> {
        conditional(tx, self.id, &self.event, |s| self.applies_to(s), |s| self.apply(s)).await
    }
}

#[async_trait]
impl Intent for Update {
    type Outcome = Cas;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Cas, Failure> {
        conditional(tx, self.id, &self.event, |s| self.applies_to(s), |s| self.apply(s)).await
    }
}

/// The session, locked.
pub(crate) async fn find(tx: &mut Transaction<'_>, id: SessionId) -> Result<Option<Session>, Failure> {
    let sql = concat!("SELECT ", session_columns!(), " FROM sessions WHERE id = $1 FOR UPDATE");
    let [rows] = tx.read([statement!(sql, uuid(id))]).await?;
    Ok(rows.first().map(read_session).transpose()?)
}

/// Applies an effect to the locked row and tells of it, if the condition holds.
async fn conditional(
    tx: &mut Transaction<'_>,
    id: SessionId,
    event: &Event,
    applies: impl Fn(&Session) -> bool + Send,
    apply: impl FnOnce(&mut Session) + Send,
) -> Result<Cas, Failure> {
    match find(tx, id).await? {
        Some(mut session) if applies(&session) => {
            apply(&mut session);
            tx.write(save(&session));
            tx.journal(&session.scope, event.clone());
            Ok(Cas::Applied(session))
        }
        other => Ok(Cas::Stale(other)),
    }
}

/// Writes all of a session that can change.
fn save(session: &Session) -> Statement {
    statement!(
        "UPDATE sessions SET generation = $2, commitment = $3, issued_at = $4, kid = $5, confirmed = $6, min_generation = $7,
             idle_expires_at = $8, ended_at = $9, ended_reason = $10, version = $11, auth = $12, claims = $13, data = $14
         WHERE id = $1",
        uuid(session.id),
        i64::from(session.position.generation),
        session.position.commitment.to_bytes().to_vec(),
        i64::from(session.position.issued_at),
        i64::from(session.position.kid),
        session.confirmed,
        i64::from(session.min_generation),
        session.idle_expires_at.millis(),
        session.ended.map(|e| e.at.millis()),
        session.ended.map(|e| e.reason.as_str()),
        session.version.cast_signed(),
        json(&session.auth),
        session.claims.as_str().to_owned(),
        session.data.as_str().to_owned(),
    )
}

pub(crate) fn insert_sessions(sessions: &[&Session]) -> Statement {
    statement!(
        concat!(
            "INSERT INTO sessions (",
            session_columns!(),
            ") SELECT * FROM unnest(
                 $1::uuid[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::boolean[], $7::bigint[], $8::bigint[],
                 $9::bigint[], $10::bigint[], $11::bigint[], $12::text[], $13::bigint[], $14::bytea[], $15::text[],
                 $16::bigint[], $17::bytea[], $18::uuid[], $19::text[], $20::text[], $21::text[], $22::text[]
             )"
        ),
        column(sessions, |s| uuid(s.id)),
        column(sessions, |s| i64::from(s.position.generation)),
        column(sessions, |s| s.position.commitment.to_bytes().to_vec()),
        column(sessions, |s| i64::from(s.position.issued_at)),
        column(sessions, |s| i64::from(s.position.kid)),
        column(sessions, |s| s.confirmed),
        column(sessions, |s| i64::from(s.min_generation)),
        column(sessions, |s| s.idle_expires_at.millis()),
        column(sessions, |s| s.expires_at.millis()),
        column(sessions, |s| s.created_at.millis()),
        column(sessions, |s| s.ended.map(|e| e.at.millis())),
        column(sessions, |s| s.ended.map(|e| e.reason.as_str())),
        column(sessions, |s| s.version.cast_signed()),
        column(sessions, |s| scope_bytes(&s.scope)),
        column(sessions, |s| s.tag.as_str().to_owned()),
        column(sessions, |s| i64::from(s.definition_version)),
        column(sessions, |s| s.user_id.as_str().as_bytes().to_vec()),
        column(sessions, |s| s.previous_session_id.map(uuid)),
        column(sessions, |s| json(&s.auth)),
        column(sessions, |s| json(&s.client)),
        column(sessions, |s| s.claims.as_str().to_owned()),
        column(sessions, |s| s.data.as_str().to_owned()),
    )
}

/// Writes idempotency keys, each in its scope and with its session, none of which may be there.
pub(crate) fn insert_idempotency(known: &[(Vec<u8>, Idempotency, SessionId)]) -> Statement {
    statement!(
        "INSERT INTO idempotency (scope, key, request, session_id, expires_at)
         SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::uuid[], $5::bigint[])",
        column(known, |(scope, ..)| scope.clone()),
        column(known, |(_, i, _)| i.key.to_vec()),
        column(known, |(_, i, _)| i.request.to_vec()),
        column(known, |(.., session)| uuid(*session)),
        column(known, |(_, i, _)| i.expires_at.millis()),
    )
}
