//! Sessions, their events and what ends them: each intent inside the writer's transaction, each list on a reader.

use std::borrow::Cow;

use rekindle::clock::Timestamp;
use rekindle::definition::OnMaxSessions;
use rekindle::journal::{Counterpart, Event, EventId};
use rekindle::refresh::Commitment;
use rekindle::rotation::{Position, TheftKind};
use rekindle::session::{Client, EndReason, Ended, Object, Session, SessionId, UserId};
use rekindle::store::*;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::db::{Cells, Db, Failure, ScopeId, Table};

/// How many sessions one step of an unbounded walk looks at, so that no step holds up the writer.
const WALK: u32 = 20_000;

/// Declares a table's columns once: as a list to read by and as text for SQL.
macro_rules! columns {
    ($table:ident, $text:ident, $name:literal, $id:literal, $first:literal $(, $column:literal)*) => {
        const $table: Table = Table { name: $name, columns: &[$first $(, $column)*], id: $id };
        macro_rules! $text {
            () => { concat!($first $(, ", ", $column)*) };
        }
    };
}

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
columns!(EVENTS, event_columns, "events", 1, "session_id", "id", "at", "kind", "outcome", "generation", "rest");
columns!(IDEMPOTENCY, idempotency_columns, "idempotency", 0, "key", "request", "session_id");
columns!(BANS, ban_columns, "bans", 0, "user_id", "at", "until", "reason");
columns!(
    REVOCATIONS,
    revocation_columns,
    "revocations",
    0,
    "seq",
    "scope",
    "session_id",
    "below_generation",
    "at",
    "expires_at"
);
columns!(OUTBOX, outbox_columns, "outbox", 0, "id", "scope", "attempts", "event");
const SESSION_IDS: Table = Table { name: "sessions", columns: &["id"], id: 0 };
const SESSION_USERS: Table = Table { name: "sessions", columns: &["id", "user_id"], id: 0 };
const BANNED_USERS: Table = Table { name: "bans", columns: &["user_id"], id: 0 };
const SUMMARIES: Table =
    Table { name: "sessions", columns: &["user_id", "sessions", "active", "created_at", "issued_at"], id: 0 };

/// The condition under which a session is active at `?1`.
macro_rules! active {
    () => {
        "(ended_at IS NULL AND idle_expires_at > ?1 AND expires_at > ?1)"
    };
}

impl Db<'_> {
    pub(crate) fn session(&self, id: SessionId) -> Result<Option<Session>, Failure> {
        let sql = concat!("SELECT ", session_columns!(), " FROM sessions WHERE id = ?1");
        self.first(sql, [id.to_bytes()], &SESSIONS, |row| self.read_session(row))
    }

    pub(crate) fn start(&self, start: &Start, scope: ScopeId) -> Result<Started, Failure> {
        let Start { session, idempotency, max_sessions, event, ending } = start;
        let now = session.created_at;
        if let Some(i) = idempotency
            && let Some((request, id)) = self.idempotent(scope, i, now)?
        {
            return Ok(if request == i.request {
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
            self.execute(
                "INSERT OR REPLACE INTO idempotency (scope, key, request, session_id, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![scope, i.key, i.request, session.id.to_bytes(), i.expires_at.millis()],
            )?;
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
            let below = Some(session.min_generation);
            self.write_revocation(scope, &session, below, *now, elevation.feed_until)?;
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

    pub(crate) fn end(&self, end: &End, scope: ScopeId) -> Result<Cas, Failure> {
        self.conditional(
            end.id,
            |s| end.applies_to(s),
            |session| {
                if let Some(cause) = &end.cause {
                    self.write_event(scope, cause)?;
                }
                if let Some(audit) = &end.audit {
                    self.write_audit(audit)?;
                }
                let ended = self.end_session(scope, session, &end.ending, end.ending.reason, 0)?;
                session.ended = Some(Ended { at: ended.at, reason: ended.reason });
                Ok(())
            },
        )
    }

    pub(crate) fn end_many(&self, end: &EndMany, scope: ScopeId) -> Result<EndedMany, Failure> {
        if let Some(audit) = &end.audit
            && end.after.is_none()
        {
            self.write_audit(audit)?;
        }
        let after = end.after.map_or_else(before_every_id, |id| id.to_bytes().to_vec());
        // A user's sessions are few. All others are looked at in slices: the step ends with the slice.
        let last = match end.user_id {
            Some(_) => None,
            None => self.nth_session_after(end.after, WALK)?,
        };
        let sql = match end.user_id {
            Some(_) => SELECT_TO_END_OF_USER,
            None => SELECT_TO_END,
        };
        let mut selected = self.all(
            sql,
            params![
                end.ending.at.millis(),
                scope,
                after,
                last.map_or_else(past_every_id, |id| id.to_bytes().to_vec()),
                end.user_id.as_ref().map(|u| u.as_str().as_bytes()),
                end.except.map(SessionId::to_bytes),
                end.tag.as_ref().map(|t| t.as_str()),
                end.started_until.map(Timestamp::millis),
                end.refreshed_from.map(Timestamp::millis),
                end.limit.saturating_add(1),
            ],
            &SESSION_IDS,
            |row| Ok(SessionId::from_bytes(row.bytes("id")?)),
        )?;
        let more = selected.len() > end.limit as usize;
        selected.truncate(end.limit as usize);
        let mut ended = Vec::with_capacity(selected.len());
        for (id, i) in selected.iter().zip(0..) {
            if let Some(session) = self.session(*id)? {
                ended.push(self.end_session(scope, &session, &end.ending, end.ending.reason, i)?);
            }
        }
        Ok(EndedMany { next: if more { selected.last().copied() } else { last }, ended })
    }

    pub(crate) fn record(&self, event: &Event) -> Result<(), Failure> {
        let Some(id) = event.session_id else { return Ok(()) };
        match self.session(id)? {
            Some(session) => self.write_event(self.scope_id(&session.scope)?, event),
            None => Ok(()),
        }
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

    pub(crate) fn users(&self, query: &UserQuery, scope: ScopeId) -> Result<Vec<UserSummary>, Failure> {
        let mut summaries = Vec::new();
        let mut after = query.after.clone();
        while summaries.len() < query.limit as usize
            && let Some(user) = self.next_user(scope, after.as_ref(), query.now)?
        {
            summaries.extend(self.user(scope, &user, query.now)?);
            after = Some(user);
        }
        Ok(summaries)
    }

    pub(crate) fn user(
        &self,
        scope: ScopeId,
        user_id: &UserId,
        now: Timestamp,
    ) -> Result<Option<UserSummary>, Failure> {
        let ban = self.ban_in_force(scope, user_id, now)?;
        let sql = concat!(
            "SELECT user_id, count(*), sum",
            active!(),
            ", min(created_at), max(max(created_at, issued_at * 1000)) FROM sessions WHERE scope = ?2 AND user_id = ?3
             GROUP BY user_id"
        );
        let params = params![now.millis(), scope, user_id.as_str().as_bytes()];
        let of_sessions = self.first(sql, params, &SUMMARIES, |row| {
            row.skip("user_id");
            Ok(UserSummary {
                user_id: user_id.clone(),
                sessions: row.int("sessions")?,
                active_sessions: row.int("active")?,
                first_seen: Some(row.time("created_at")?),
                last_seen: Some(row.time("issued_at")?),
                ban: ban.clone(),
            })
        })?;
        let nothing = UserSummary {
            user_id: user_id.clone(),
            sessions: 0,
            active_sessions: 0,
            first_seen: None,
            last_seen: None,
            ban: ban.clone(),
        };
        Ok(of_sessions.or_else(|| ban.is_some().then_some(nothing)))
    }

    pub(crate) fn erase_user(&self, erase: &EraseUser, scope: ScopeId) -> Result<Vec<EndedSession>, Failure> {
        let user_id = erase.user_id.as_str().as_bytes();
        let ids = self.all(
            "SELECT id FROM sessions WHERE scope = ?1 AND user_id = ?2 ORDER BY id",
            params![scope, user_id],
            &SESSION_IDS,
            |row| Ok(SessionId::from_bytes(row.bytes("id")?)),
        )?;
        let mut ended = Vec::new();
        for id in ids {
            if let Some(session) = self.session(id)?
                && session.end(erase.ending.at).is_none()
            {
                let i = ended.len() as u32;
                ended.push(self.end_session(scope, &session, &erase.ending, erase.ending.reason, i)?);
            }
            self.remove(id)?;
            self.execute("DELETE FROM idempotency WHERE session_id = ?1", [id.to_bytes()])?;
        }
        self.execute("DELETE FROM bans WHERE scope = ?1 AND user_id = ?2", params![scope, user_id])?;
        self.write_audit(&erase.audit)?;
        Ok(ended)
    }

    pub(crate) fn ban(&self, ban: &BanUser, user_id: &UserId, scope: ScopeId) -> Result<EndedMany, Failure> {
        self.execute(
            "INSERT OR REPLACE INTO bans (scope, user_id, at, until, reason) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                scope,
                user_id.as_str().as_bytes(),
                ban.ban.at.millis(),
                ban.ban.until.map(Timestamp::millis),
                ban.ban.reason
            ],
        )?;
        if ban.end.after.is_none() {
            self.write_event(scope, &ban.event)?;
        }
        self.end_many(&ban.end, scope)
    }

    pub(crate) fn lift_ban(&self, user_id: &UserId, scope: ScopeId, audit: &AuditEntry) -> Result<bool, Failure> {
        self.write_audit(audit)?;
        let params = params![scope, user_id.as_str().as_bytes()];
        Ok(self.execute("DELETE FROM bans WHERE scope = ?1 AND user_id = ?2", params)? > 0)
    }

    pub(crate) fn revocations(
        &self,
        scope: Option<ScopeId>,
        after: u64,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Revocation>, Failure> {
        // `+`: in the order of the numbers, not by an index on the expiry.
        let sql = concat!(
            "SELECT ",
            revocation_columns!(),
            " FROM revocations WHERE seq > ?1 AND +expires_at > ?2 AND (?3 IS NULL OR scope = ?3) ORDER BY seq LIMIT ?4"
        );
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        self.all(sql, params![after, now.millis(), scope, limit], &REVOCATIONS, |row| {
            Ok(Revocation {
                seq: row.int("seq")?,
                scope: self.scope(row, "scope")?,
                session_id: SessionId::from_bytes(row.bytes("session_id")?),
                below_generation: row.int_opt("below_generation")?,
                at: row.time("at")?,
                expires_at: row.time("expires_at")?,
            })
        })
    }

    pub(crate) fn sweep(&self, sweep: &Sweep) -> Result<Swept, Failure> {
        let now = sweep.now.millis();
        let next = self.nth_session_after(sweep.after, sweep.budget)?;
        // More than need be: the exact conditions follow.
        let candidates = self.all(
            "SELECT id FROM sessions WHERE id > ?1 AND id <= ?2
             AND min(idle_expires_at, expires_at) <= iif(ended_at IS NULL, ?3, ?4) ORDER BY id",
            params![
                sweep.after.map_or_else(before_every_id, |id| id.to_bytes().to_vec()),
                next.map_or_else(past_every_id, |id| id.to_bytes().to_vec()),
                now,
                (sweep.now - sweep.retention).millis(),
            ],
            &SESSION_IDS,
            |row| Ok(SessionId::from_bytes(row.bytes("id")?)),
        )?;
        let mut swept = Swept { next, ..Swept::default() };
        for id in candidates {
            let Some(session) = self.session(id)? else { continue };
            if session.ended.is_none()
                && let Some(end) = session.end(sweep.now)
            {
                let mut event = sweep.ending.event_for(&session, swept.ended as u32, end.reason);
                event.at = end.at;
                event.notify = sweep.notify.contains(&session.scope.product);
                event.user_id = event.notify.then(|| session.user_id.clone());
                self.note_end(id, end)?;
                self.write_event(self.scope_id(&session.scope)?, &event)?;
                swept.ended += 1;
            }
            if sweep.removes(&session) {
                self.remove(id)?;
                swept.removed += 1;
            }
        }
        if next.is_none() {
            self.execute("DELETE FROM idempotency WHERE expires_at <= ?1", [now])?;
            self.execute("DELETE FROM revocations WHERE expires_at <= ?1", [now])?;
            self.execute("DELETE FROM bans WHERE until <= ?1", [now])?;
        }
        Ok(swept)
    }

    pub(crate) fn secret_usage(&self) -> Result<Vec<(u8, u64)>, Failure> {
        const KIDS: Table = Table { name: "sessions", columns: &["kid", "sessions"], id: 0 };
        let sql = "SELECT kid, count(*) FROM sessions WHERE ended_at IS NULL GROUP BY kid ORDER BY kid";
        self.all(sql, [], &KIDS, |row| Ok((row.int("kid")?, row.int("sessions")?)))
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
            let id = EventId::from_bytes(row.bytes("id")?);
            let scope = self.scope(row, "scope")?;
            let attempts = row.int::<u32>("attempts")?.saturating_add(1);
            let event: Event = row.json("event")?;
            if event.id == id { Ok(Notification { scope, event, attempts }) } else { Err(row.corrupt("event")) }
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

    /// Removes all that belongs to a deleted scope.
    pub(crate) fn forget(&self, scope: ScopeId) -> Result<(), Failure> {
        for sql in [
            "DELETE FROM events WHERE session_id IN (SELECT id FROM sessions WHERE scope = ?1)",
            "DELETE FROM sessions WHERE scope = ?1",
            "DELETE FROM signing_keys WHERE scope = ?1",
            "DELETE FROM bans WHERE scope = ?1",
            "DELETE FROM idempotency WHERE scope = ?1",
            "DELETE FROM revocations WHERE scope = ?1",
            "DELETE FROM outbox WHERE scope = ?1",
        ] {
            self.execute(sql, [scope])?;
        }
        Ok(())
    }

    fn read_session(&self, row: &Cells<'_, '_>) -> Result<Session, Failure> {
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

    fn insert_session(&self, scope: ScopeId, session: &Session) -> Result<(), Failure> {
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

    fn conditional(
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

    /// Ends an active session: row, feed, event.
    fn end_session(
        &self,
        scope: ScopeId,
        session: &Session,
        ending: &Ending,
        reason: EndReason,
        i: u32,
    ) -> Result<EndedSession, Failure> {
        self.note_end(session.id, Ended { at: ending.at, reason })?;
        self.write_revocation(scope, session, None, ending.at, ending.feed_until)?;
        self.write_event(scope, &ending.event_for(session, i, reason))?;
        Ok(EndedSession::of(session, ending.at, reason))
    }

    fn note_end(&self, id: SessionId, ended: Ended) -> Result<(), Failure> {
        self.execute(
            "UPDATE sessions SET ended_at = ?2, ended_reason = ?3 WHERE id = ?1",
            params![id.to_bytes(), ended.at.millis(), ended.reason.as_str()],
        )?;
        Ok(())
    }

    fn write_event(&self, scope: ScopeId, event: &Event) -> Result<(), Failure> {
        let session_id = event.session_id.map(SessionId::to_bytes);
        // Replacing: an intent that is repeated because its answer was lost writes the same event once.
        if event.notify {
            self.execute(
                "INSERT OR REPLACE INTO outbox (id, scope, session_id, due, attempts, event) VALUES (?1, ?2, ?3, ?4, 0, ?5)",
                params![event.id.to_bytes(), scope, session_id, event.at.millis(), json(event)],
            )?;
        }
        if session_id.is_some() {
            let rest = Rest {
                user_id: event.user_id.as_ref().map(Cow::Borrowed),
                presented_generation: event.presented_generation,
                reason: event.reason,
                theft: event.theft,
                counterpart: event.counterpart.as_ref().map(Cow::Borrowed),
                client: Some(&event.client).filter(|c| **c != Client::default()).map(Cow::Borrowed),
                request_id: event.request_id.as_deref().map(Cow::Borrowed),
                actor: event.actor.as_deref().map(Cow::Borrowed),
            };
            self.execute(
                "INSERT OR REPLACE INTO events (session_id, id, at, kind, outcome, generation, rest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    session_id,
                    event.id.to_bytes(),
                    event.at.millis(),
                    event.kind.as_str(),
                    event.outcome.map(|o| o.as_str()),
                    event.generation,
                    json(&rest),
                ],
            )?;
        }
        Ok(())
    }

    fn write_revocation(
        &self,
        scope: ScopeId,
        session: &Session,
        below_generation: Option<u32>,
        at: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), Failure> {
        self.execute(
            "INSERT INTO revocations (scope, session_id, below_generation, at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![scope, session.id.to_bytes(), below_generation, at.millis(), expires_at.millis()],
        )?;
        Ok(())
    }

    fn remove(&self, id: SessionId) -> Result<(), Failure> {
        self.execute("DELETE FROM events WHERE session_id = ?1", [id.to_bytes()])?;
        self.execute("DELETE FROM sessions WHERE id = ?1", [id.to_bytes()])?;
        Ok(())
    }

    /// The request and the session of an idempotency key that still holds.
    fn idempotent(
        &self,
        scope: ScopeId,
        idempotency: &Idempotency,
        now: Timestamp,
    ) -> Result<Option<([u8; 32], SessionId)>, Failure> {
        let sql = concat!(
            "SELECT ",
            idempotency_columns!(),
            " FROM idempotency WHERE scope = ?1 AND key = ?2 AND expires_at > ?3"
        );
        self.first(sql, params![scope, idempotency.key, now.millis()], &IDEMPOTENCY, |row| {
            row.skip("key");
            Ok((row.bytes("request")?, SessionId::from_bytes(row.bytes("session_id")?)))
        })
    }

    fn ban_in_force(&self, scope: ScopeId, user_id: &UserId, now: Timestamp) -> Result<Option<Ban>, Failure> {
        let sql = concat!("SELECT ", ban_columns!(), " FROM bans WHERE scope = ?1 AND user_id = ?2");
        let ban = self.first(sql, params![scope, user_id.as_str().as_bytes()], &BANS, |row| {
            row.skip("user_id");
            Ok(Ban { at: row.time("at")?, until: row.time_opt("until")?, reason: row.string_opt("reason")? })
        })?;
        Ok(ban.filter(|b| b.holds(now)))
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

    /// The id of the `n`-th session after `after`, if there are so many.
    fn nth_session_after(&self, after: Option<SessionId>, n: u32) -> Result<Option<SessionId>, Failure> {
        let after = after.map_or_else(before_every_id, |id| id.to_bytes().to_vec());
        let sql = "SELECT id FROM sessions WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2";
        self.first(sql, params![after, i64::from(n) - 1], &SESSION_IDS, |row| {
            Ok(SessionId::from_bytes(row.bytes("id")?))
        })
    }

    fn next_user(&self, scope: ScopeId, after: Option<&UserId>, now: Timestamp) -> Result<Option<UserId>, Failure> {
        let after = after.map(|u| u.as_str().as_bytes());
        let with_session = self.first(
            "SELECT id, user_id FROM sessions INDEXED BY sessions_by_user WHERE scope = ?1
             AND user_id >= coalesce(?2, x'') AND user_id IS NOT ?2 ORDER BY user_id, id LIMIT 1",
            params![scope, after],
            &SESSION_USERS,
            |row| {
                row.skip("id");
                row.parsed_blob::<UserId>("user_id")
            },
        )?;
        let banned = self.first(
            "SELECT user_id FROM bans WHERE scope = ?1 AND user_id >= coalesce(?2, x'') AND user_id IS NOT ?2
             AND (until IS NULL OR until > ?3) ORDER BY user_id LIMIT 1",
            params![scope, after, now.millis()],
            &BANNED_USERS,
            |row| row.parsed_blob::<UserId>("user_id"),
        )?;
        Ok(with_session.into_iter().chain(banned).min())
    }
}

macro_rules! select_to_end {
    ($from:literal, $user:literal) => {
        concat!(
            "SELECT id FROM sessions ",
            $from,
            " WHERE ",
            $user,
            " AND id > ?3 AND id <= ?4 AND id IS NOT ?6 AND (?7 IS NULL OR tag = ?7) AND (?8 IS NULL OR created_at <= ?8)
             AND (?9 IS NULL OR max(issued_at * 1000, created_at) >= ?9) AND ",
            active!(),
            " ORDER BY id LIMIT ?10"
        )
    };
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
const SELECT_TO_END: &str = select_to_end!("", "+scope = ?2 AND ?5 IS NULL");
const SELECT_TO_END_OF_USER: &str = select_to_end!("INDEXED BY sessions_by_user", "scope = ?2 AND user_id = ?5");
const SELECT_SESSIONS: &str = select_sessions!("", "+scope = ?2 AND ?4 IS NULL");
const SELECT_SESSIONS_OF_USER: &str = select_sessions!("INDEXED BY sessions_by_user", "scope = ?2 AND user_id = ?4");

/// Less than every id.
fn before_every_id() -> Vec<u8> {
    Vec::new()
}

/// More than every id.
fn past_every_id() -> Vec<u8> {
    vec![255; 17]
}

/// What an event says beyond its table's columns.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<Cow<'a, UserId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    presented_generation: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<EndReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    theft: Option<TheftKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counterpart: Option<Cow<'a, Counterpart>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<Cow<'a, Client>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<Cow<'a, str>>,
}

fn read_event(row: &Cells<'_, '_>) -> Result<Event, Failure> {
    let session_id = Some(SessionId::from_bytes(row.bytes("session_id")?));
    let id = EventId::from_bytes(row.bytes("id")?);
    let at = row.time("at")?;
    let kind = row.parsed("kind")?;
    let outcome = row.parsed_opt("outcome")?;
    let generation = row.int("generation")?;
    let rest: Rest<'static> = row.json("rest")?;
    Ok(Event {
        id,
        at,
        kind,
        session_id,
        user_id: rest.user_id.map(Cow::into_owned),
        outcome,
        generation,
        presented_generation: rest.presented_generation,
        reason: rest.reason,
        theft: rest.theft,
        counterpart: rest.counterpart.map(Cow::into_owned),
        client: rest.client.map(Cow::into_owned).unwrap_or_default(),
        request_id: rest.request_id.map(Cow::into_owned),
        actor: rest.actor.map(Cow::into_owned),
        notify: false,
    })
}

fn object(row: &Cells<'_, '_>, column: &'static str) -> Result<Object, Failure> {
    Object::parse(row.text(column)?.to_owned()).map_err(|_| row.corrupt(column))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("these types are JSON objects")
}
