//! Sessions: each intent that moves one inside the writer's transaction, each list on a reader.

use rekindle::clock::Timestamp;
use rekindle::definition::OnMaxSessions;
use rekindle::refresh::Commitment;
use rekindle::rotation::Position;
use rekindle::session::{EndReason, Ended, Object, Session, SessionId};
use rekindle::store::*;
use rusqlite::params;

use crate::db::{Cells, Db, Failure, ScopeId, Table};
use crate::sql::{json, past_every_id};

columns!(
    SESSIONS,
    session_columns,
    "sessions",
    0,
    "id",
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
    "scope",
    "tag",
    "definition_version",
    "user_id",
    "previous_session_id",
    "auth",
    "client",
    "claims",
    "data"
);
columns!(IDEMPOTENCY, idempotency_columns, "idempotency", 0, "key", "request", "session_id", "expires_at");
pub(crate) const SESSION_IDS: Table = Table { name: "sessions", columns: &["id"], id: 0 };

impl Db<'_> {
    pub(crate) fn session(&self, id: SessionId) -> Result<Option<Session>, Failure> {
        let sql = concat!("SELECT ", session_columns!(), " FROM sessions WHERE id = ?1");
        self.first(sql, [id.to_bytes()], &SESSIONS, |row| self.read_session(row))
    }

    pub(crate) fn start(&self, start: &Start, scope: ScopeId) -> Result<Started, Failure> {
        let Start { session, idempotency, max_sessions, event, ending } = start;
        let now = session.created_at;
        if let Some(i) = idempotency
            && let Some((known, id)) = self.idempotent(scope, i, now)?
        {
            return Ok(if known.request == i.request {
                Started::Repeated(self.session(id)?.map(Box::new))
            } else {
                Started::IdempotencyMismatch
            });
        }
        if let Some(known) = self.session(session.id)? {
            return Ok(Started::Repeated(Some(Box::new(known))));
        }
        if let Some(ban) = self.ban_in_force(scope, &session.user_id, now)? {
            return Ok(Started::Banned(ban));
        }
        let mut ended = Vec::new();
        let mut to_end = Vec::new();
        if let Some(previous) = session.previous_session_id {
            let usable = |p: &Session| {
                p.scope == session.scope
                    && (p.user_id == session.user_id || p.user_id.is_anonymous())
                    && p.end(now).is_none()
            };
            match self.session(previous)?.filter(usable) {
                Some(previous) => to_end.push((previous, EndReason::Replaced)),
                None => return Ok(Started::PreviousUnusable),
            }
        }
        if let Some((max, on_max)) = *max_sessions
            && !session.user_id.is_anonymous()
        {
            let active = self.active_of_user(scope, session, now)?;
            let excess = (active.len() + 1).saturating_sub(max as usize);
            if excess > 0 && on_max == OnMaxSessions::Reject {
                return Ok(Started::TooManySessions(active.len() as u32));
            }
            for id in active.into_iter().take(excess) {
                to_end.extend(self.session(id)?.map(|s| (s, EndReason::MaxSessions)));
            }
        }
        for ((session, reason), i) in to_end.iter().zip(0..) {
            ended.push(self.end_session(scope, session, ending, *reason, i)?);
        }
        if let Some(i) = idempotency {
            self.write_idempotency(scope, i, session.id)?;
        }
        self.write_event(scope, event)?;
        self.insert_session(scope, session)?;
        Ok(Started::Created(ended))
    }

    pub(crate) fn advance(&self, advance: &Advance, scope: ScopeId) -> Result<Cas, Failure> {
        let Advance { id, tag, next, elevation, now, .. } = advance;
        let sql = concat!(
            "UPDATE sessions SET generation = ?2, commitment = ?3, issued_at = ?4, kid = ?5,
             confirmed = confirmed AND (generation, commitment, issued_at, kid) = (?2, ?3, ?4, ?5),
             idle_expires_at = min(?6, expires_at), auth = coalesce(?7, auth), min_generation = coalesce(?8, min_generation)
             WHERE id = ?9 AND scope = ?10 AND tag = ?11 AND generation = ?12 AND commitment = ?13 AND ",
            active!(),
            " RETURNING ",
            session_columns!()
        );
        let params = params![
            now.millis(),
            next.generation,
            next.commitment.to_bytes(),
            next.issued_at,
            next.kid,
            (*now + advance.idle_timeout).millis(),
            elevation.as_ref().map(|e| json(&e.auth)),
            elevation.as_ref().map(|_| next.generation),
            id.to_bytes(),
            scope,
            tag.as_str(),
            advance.generation,
            advance.commitment.to_bytes(),
        ];
        // To its end: only then is the statement carried out.
        let Some(session) = self.all(sql, params, &SESSIONS, |row| self.read_session(row))?.pop() else {
            return Ok(Cas::Stale(self.session(*id)?));
        };
        if let Some(elevation) = elevation {
            let below = Revoked::Below(session.min_generation);
            self.write_revocation(scope, session.id, below, *now, elevation.feed_until)?;
        }
        self.write_event(scope, &advance.event)?;
        Ok(Cas::Applied(session))
    }

    pub(crate) fn fast_forward(&self, fast_forward: &FastForward, scope: ScopeId) -> Result<Cas, Failure> {
        self.conditional(
            fast_forward.id,
            |s| fast_forward.applies_to(s),
            |session| {
                fast_forward.apply(session);
                self.execute(
                    "UPDATE sessions SET generation = ?2, commitment = ?3, issued_at = ?4, kid = ?5, confirmed = ?6,
                     idle_expires_at = ?7, ended_at = NULL, ended_reason = NULL WHERE id = ?1",
                    params![
                        session.id.to_bytes(),
                        session.position.generation,
                        session.position.commitment.to_bytes(),
                        session.position.issued_at,
                        session.position.kid,
                        session.confirmed,
                        session.idle_expires_at.millis(),
                    ],
                )?;
                self.write_event(scope, &fast_forward.event)
            },
        )
    }

    pub(crate) fn confirm(&self, confirmation: &Confirmation, scope: ScopeId) -> Result<(), Failure> {
        self.execute(
            "UPDATE sessions SET confirmed = 1
             WHERE id = ?1 AND scope = ?2 AND generation = ?3 AND ended_at IS NULL AND confirmed = 0",
            params![confirmation.session_id.to_bytes(), scope, confirmation.generation],
        )?;
        Ok(())
    }

    pub(crate) fn update(&self, update: &Update, scope: ScopeId) -> Result<Cas, Failure> {
        self.conditional(
            update.id,
            |s| update.applies_to(s),
            |session| {
                update.apply(session);
                self.execute(
                    "UPDATE sessions SET version = ?2, claims = ?3, data = ?4 WHERE id = ?1",
                    params![
                        session.id.to_bytes(),
                        session.version.cast_signed(),
                        session.claims.as_str(),
                        session.data.as_str()
                    ],
                )?;
                self.write_event(scope, &update.event)
            },
        )
    }

    pub(crate) fn sessions(&self, query: &SessionQuery, scope: ScopeId) -> Result<Vec<Session>, Failure> {
        let sql = match query.user_id {
            Some(_) => SELECT_SESSIONS_OF_USER,
            None => SELECT_SESSIONS,
        };
        let params = params![
            query.now.millis(),
            scope,
            query.before.map_or_else(past_every_id, |id| id.to_bytes().to_vec()),
            query.user_id.as_ref().map(|u| u.as_str().as_bytes()),
            query.tag.as_ref().map(|t| t.as_str()),
            query.active,
            query.started_after.map(Timestamp::millis),
            query.started_before.map(Timestamp::millis),
            query.limit,
        ];
        self.all(sql, params, &SESSIONS, |row| self.read_session(row))
    }

    pub(crate) fn secret_usage(&self) -> Result<Vec<(u8, u64)>, Failure> {
        const KIDS: Table = Table { name: "sessions", columns: &["kid", "sessions"], id: 0 };
        let sql = "SELECT kid, count(*) FROM sessions WHERE ended_at IS NULL GROUP BY kid ORDER BY kid";
        self.all(sql, [], &KIDS, |row| Ok((row.int("kid")?, row.int("sessions")?)))
    }

    pub(crate) fn read_session(&self, row: &Cells<'_, '_>) -> Result<Session, Failure> {
        let id = SessionId::from_bytes(row.bytes("id")?);
        let position = Position {
            generation: row.int("generation")?,
            commitment: Commitment::from_bytes(row.bytes("commitment")?),
            issued_at: row.int("issued_at")?,
            kid: row.int("kid")?,
        };
        let confirmed = row.flag("confirmed")?;
        let min_generation = row.int("min_generation")?;
        let idle_expires_at = row.time("idle_expires_at")?;
        let expires_at = row.time("expires_at")?;
        let created_at = row.time("created_at")?;
        let ended = match (row.time_opt("ended_at")?, row.parsed_opt("ended_reason")?) {
            (None, None) => None,
            (Some(at), Some(reason)) => Some(Ended { at, reason }),
            (Some(_), None) => return Err(row.corrupt("ended_reason")),
            (None, Some(_)) => return Err(row.corrupt("ended_at")),
        };
        Ok(Session {
            id,
            position,
            confirmed,
            min_generation,
            idle_expires_at,
            expires_at,
            created_at,
            ended,
            version: row.int("version")?,
            scope: self.scope(row, "scope")?,
            tag: row.parsed("tag")?,
            definition_version: row.int("definition_version")?,
            user_id: row.parsed_blob("user_id")?,
            previous_session_id: row.bytes_opt("previous_session_id")?.map(SessionId::from_bytes),
            auth: row.json("auth")?,
            client: row.json("client")?,
            claims: object(row, "claims")?,
            data: object(row, "data")?,
        })
    }

    pub(crate) fn insert_session(&self, scope: ScopeId, session: &Session) -> Result<(), Failure> {
        let sql = concat!(
            "INSERT INTO sessions (",
            session_columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)"
        );
        self.execute(
            sql,
            params![
                session.id.to_bytes(),
                session.position.generation,
                session.position.commitment.to_bytes(),
                session.position.issued_at,
                session.position.kid,
                session.confirmed,
                session.min_generation,
                session.idle_expires_at.millis(),
                session.expires_at.millis(),
                session.created_at.millis(),
                session.ended.map(|e| e.at.millis()),
                session.ended.map(|e| e.reason.as_str()),
                session.version.cast_signed(),
                scope,
                session.tag.as_str(),
                session.definition_version,
                session.user_id.as_str().as_bytes(),
                session.previous_session_id.map(SessionId::to_bytes),
                json(&session.auth),
                json(&session.client),
                session.claims.as_str(),
                session.data.as_str(),
            ],
        )?;
        Ok(())
    }

    pub(crate) fn conditional(
        &self,
        id: SessionId,
        applies: impl FnOnce(&Session) -> bool,
        apply: impl FnOnce(&mut Session) -> Result<(), Failure>,
    ) -> Result<Cas, Failure> {
        match self.session(id)? {
            Some(mut session) if applies(&session) => {
                apply(&mut session)?;
                Ok(Cas::Applied(session))
            }
            other => Ok(Cas::Stale(other)),
        }
    }

    pub(crate) fn write_idempotency(
        &self,
        scope: ScopeId,
        idempotency: &Idempotency,
        session: SessionId,
    ) -> Result<(), Failure> {
        let Idempotency { key, request, expires_at } = idempotency;
        self.execute(
            "INSERT OR REPLACE INTO idempotency (scope, key, request, session_id, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![scope, key, request, session.to_bytes(), expires_at.millis()],
        )?;
        Ok(())
    }

    /// Removes the idempotency key that leads to a session.
    pub(crate) fn remove_idempotency(&self, session: SessionId) -> Result<(), Failure> {
        self.execute("DELETE FROM idempotency WHERE session_id = ?1", [session.to_bytes()])?;
        Ok(())
    }

    /// An idempotency key that still holds, with its session.
    fn idempotent(
        &self,
        scope: ScopeId,
        idempotency: &Idempotency,
        now: Timestamp,
    ) -> Result<Option<(Idempotency, SessionId)>, Failure> {
        let sql = concat!(
            "SELECT ",
            idempotency_columns!(),
            " FROM idempotency WHERE scope = ?1 AND key = ?2 AND expires_at > ?3"
        );
        self.first(sql, params![scope, idempotency.key, now.millis()], &IDEMPOTENCY, read_idempotency)
    }

    /// The active sessions that count towards the maximum that `session` is about to meet.
    fn active_of_user(&self, scope: ScopeId, session: &Session, now: Timestamp) -> Result<Vec<SessionId>, Failure> {
        let sql = concat!(
            "SELECT id FROM sessions INDEXED BY sessions_by_user
             WHERE scope = ?2 AND user_id = ?3 AND tag = ?4 AND id IS NOT ?5 AND ",
            active!(),
            " ORDER BY id"
        );
        let params = params![
            now.millis(),
            scope,
            session.user_id.as_str().as_bytes(),
            session.tag.as_str(),
            session.previous_session_id.map(SessionId::to_bytes),
        ];
        self.all(sql, params, &SESSION_IDS, |row| Ok(SessionId::from_bytes(row.bytes("id")?)))
    }
}

macro_rules! select_sessions {
    ($from:literal, $user:literal) => {
        concat!(
            "SELECT ",
            session_columns!(),
            " FROM sessions ",
            $from,
            " WHERE ",
            $user,
            " AND id < ?3 AND (?5 IS NULL OR tag = ?5) AND (?6 IS NULL OR ?6 = ",
            active!(),
            ") AND (?7 IS NULL OR created_at > ?7) AND (?8 IS NULL OR created_at < ?8) ORDER BY id DESC LIMIT ?9"
        )
    };
}

// `+scope`: through the primary key, in its order, and not through the index on users with a sort of all that it finds.
const SELECT_SESSIONS: &str = select_sessions!("", "+scope = ?2 AND ?4 IS NULL");
const SELECT_SESSIONS_OF_USER: &str = select_sessions!("INDEXED BY sessions_by_user", "scope = ?2 AND user_id = ?4");

pub(crate) fn read_idempotency(row: &Cells<'_, '_>) -> Result<(Idempotency, SessionId), Failure> {
    let (key, request) = (row.bytes("key")?, row.bytes("request")?);
    let session = SessionId::from_bytes(row.bytes("session_id")?);
    Ok((Idempotency { key, request, expires_at: row.time("expires_at")? }, session))
}

fn object(row: &Cells<'_, '_>, column: &'static str) -> Result<Object, Failure> {
    Object::parse(row.text(column)?.to_owned()).map_err(|_| row.corrupt(column))
}
