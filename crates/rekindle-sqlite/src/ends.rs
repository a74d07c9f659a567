//! How sessions end, one or many; what the feed tells of it; and how what has ended is removed.

use rekindle::clock::Timestamp;
use rekindle::session::{EndReason, Ended, Session, SessionId};
use rekindle::store::*;
use rusqlite::params;

use crate::db::{Cells, Db, Failure, ScopeId, Table};
use crate::sessions::SESSION_IDS;
use crate::sql::{before_every_id, past_every_id};

/// How many sessions one step of an unbounded walk looks at, so that no step holds up the writer.
const WALK: u32 = 20_000;

columns!(
    REVOCATIONS,
    revocation_columns,
    "revocations",
    0,
    "seq",
    "scope",
    "session_id",
    "below_generation",
    "reason",
    "session_expires_at",
    "at",
    "expires_at"
);
const LAST_SEQ: Table = Table { name: "sqlite_sequence", columns: &["seq"], id: 0 };

impl Db<'_> {
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
        let next = if more { selected.last().copied() } else { last };
        Ok(EndedMany { next, ..self.end_selected(&selected, &end.ending, scope)? })
    }

    pub(crate) fn end_selected(
        &self,
        selected: &[SessionId],
        ending: &Ending,
        scope: ScopeId,
    ) -> Result<EndedMany, Failure> {
        let mut done = EndedMany::default();
        for session in selected.iter().filter_map(|id| self.session(*id).transpose()) {
            let session = session?;
            match session.end(ending.at) {
                None => {
                    let i = done.ended.len() as u32;
                    done.ended.push(self.end_session(scope, &session, ending, ending.reason, i)?);
                }
                Some(_) => done.idle.push(EndedSession::of(&session, ending.at, ending.reason)),
            }
        }
        Ok(done)
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
        self.all(sql, params![after, now.millis(), scope, limit], &REVOCATIONS, |row| self.read_revocation(row))
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

    /// Ends an active session: row, feed, event.
    pub(crate) fn end_session(
        &self,
        scope: ScopeId,
        session: &Session,
        ending: &Ending,
        reason: EndReason,
        i: u32,
    ) -> Result<EndedSession, Failure> {
        self.note_end(session.id, Ended { at: ending.at, reason })?;
        let what = Revoked::Ended { reason, expires_at: session.expires_at };
        self.write_revocation(scope, session.id, what, ending.at, ending.feed_until)?;
        self.write_event(scope, &ending.event_for(session, i, reason))?;
        Ok(EndedSession::of(session, ending.at, reason))
    }

    pub(crate) fn write_revocation(
        &self,
        scope: ScopeId,
        session: SessionId,
        what: Revoked,
        at: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), Failure> {
        let last = self
            .first("SELECT seq FROM sqlite_sequence WHERE name = 'revocations'", [], &LAST_SEQ, |row| row.int("seq"))?;
        self.insert_revocation(Revocation::next_seq(last.unwrap_or(0), at), scope, session, what, at, expires_at)
    }

    pub(crate) fn insert_revocation(
        &self,
        seq: u64,
        scope: ScopeId,
        session: SessionId,
        what: Revoked,
        at: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), Failure> {
        let (below, reason, session_expires_at) = match what {
            Revoked::Below(generation) => (Some(generation), None, None),
            Revoked::Ended { reason, expires_at } => (None, Some(reason.as_str()), Some(expires_at.millis())),
        };
        self.execute(
            "INSERT INTO revocations (seq, scope, session_id, below_generation, reason, session_expires_at, at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                seq.cast_signed(),
                scope,
                session.to_bytes(),
                below,
                reason,
                session_expires_at,
                at.millis(),
                expires_at.millis()
            ],
        )?;
        Ok(())
    }

    pub(crate) fn remove(&self, id: SessionId) -> Result<(), Failure> {
        self.execute("DELETE FROM events WHERE session_id = ?1", [id.to_bytes()])?;
        self.remove_row(id)
    }

    /// Removes a session but for its events.
    pub(crate) fn remove_row(&self, id: SessionId) -> Result<(), Failure> {
        self.execute("DELETE FROM sessions WHERE id = ?1", [id.to_bytes()])?;
        Ok(())
    }

    pub(crate) fn read_revocation(&self, row: &Cells<'_, '_>) -> Result<Revocation, Failure> {
        Ok(Revocation {
            seq: row.int("seq")?,
            scope: self.scope(row, "scope")?,
            session_id: SessionId::from_bytes(row.bytes("session_id")?),
            what: match row.int_opt("below_generation")? {
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

    fn note_end(&self, id: SessionId, ended: Ended) -> Result<(), Failure> {
        self.execute(
            "UPDATE sessions SET ended_at = ?2, ended_reason = ?3 WHERE id = ?1",
            params![id.to_bytes(), ended.at.millis(), ended.reason.as_str()],
        )?;
        Ok(())
    }

    /// The id of the `n`-th session after `after`, if there are so many.
    fn nth_session_after(&self, after: Option<SessionId>, n: u32) -> Result<Option<SessionId>, Failure> {
        let after = after.map_or_else(before_every_id, |id| id.to_bytes().to_vec());
        let sql = "SELECT id FROM sessions WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2";
        self.first(sql, params![after, i64::from(n) - 1], &SESSION_IDS, |row| {
            Ok(SessionId::from_bytes(row.bytes("id")?))
        })
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
            concerned!(),
            " ORDER BY id LIMIT ?10"
        )
    };
}

// `+scope`: through the primary key, in its order, and not through the index on users with a sort of all that it finds.
const SELECT_TO_END: &str = select_to_end!("", "+scope = ?2 AND ?5 IS NULL");
const SELECT_TO_END_OF_USER: &str = select_to_end!("INDEXED BY sessions_by_user", "scope = ?2 AND user_id = ?5");
