//! Starting a session, which touches the slots of the session, of its user, of what it replaces, and of the indexes.
//!
//! The user's slot decides: one script looks at the idempotency key, the ban and (for a maximum of sessions) whether anything
//! began since the user's sessions were counted, and notes the whole start. From there on the start happens: whoever meets
//! the note (the next start, a list, a ban, the sweep) completes it, and completing it twice is the same as once:
//! indexes first, then the ends of others, then the row, and at last the note goes. So a start that was interrupted
//! anywhere either did not happen or is completed; nobody counts sessions that are neither.

use std::fmt::Display;

use rekindle::clock::Timestamp;
use rekindle::definition::OnMaxSessions;
use rekindle::journal::Event;
use rekindle::session::{EndReason, Session, SessionId};
use rekindle::store::*;
use serde::{Deserialize, Serialize};

use crate::effects::Effect;
use crate::keys::{UserKey, hex, unhex};
use crate::row::{FIELDS, Found, Origin, Row, json};
use crate::scripts::{CLAIM, Call, FINISH, JOIN, RELEASE, RESERVE, START_AT_ONCE};
use crate::sessions::Write;
use crate::{Inner, each};

/// How often a start counts sessions anew at most. Each time, another start of the user came first.
const TRIES: u32 = 1000;
/// How much longer than its expiry an idempotency key is kept, in milliseconds.
const GARBAGE_AFTER: i64 = 86_400_000;

/// A start that is noted in its user's slot.
#[derive(Serialize, Deserialize)]
pub(crate) struct Noted {
    id: SessionId,
    row: Vec<(String, String)>,
    origin: Origin,
    /// The entry of the idempotency key, if there is one.
    idempotency: String,
    previous: Option<SessionId>,
    oldest: Vec<SessionId>,
    at: i64,
    feed_until: i64,
    ending: SavedEvent,
    event: SavedEvent,
}

/// An event with its wish to be notified, which is no part of it.
#[derive(Serialize, Deserialize)]
struct SavedEvent(Event, bool);

impl SavedEvent {
    fn new(event: &Event) -> Self {
        Self(event.clone(), event.notify)
    }

    fn event(&self) -> Event {
        Event { notify: self.1, ..self.0.clone() }
    }
}

/// What became of a noted start.
enum Completed {
    /// It happened; these were ended by it.
    Created(Vec<EndedSession>),
    /// Its row was removed since.
    Removed,
    /// Another start had made a row with its id.
    Known,
    /// Somebody else had ended the session that it was to replace.
    Void,
}

/// What the user's slot says to a start.
enum Decision {
    Free {
        revision: Vec<u8>,
        starts: Vec<Vec<u8>>,
    },
    /// It has happened.
    Started,
    Reserved,
    Repeated(SessionId),
    Mismatch,
    Known,
    Banned(Ban),
    Changed,
}

impl Inner {
    pub(crate) async fn start(&self, start: &Start) -> StoreResult<Started> {
        self.know_scope(&start.session.scope).await?;
        let attempt = Attempt::new(self, start);
        if let Some(known) = attempt.claim().await? {
            return Ok(known);
        }
        let started = attempt.run().await?;
        if matches!(started, Started::Banned(_) | Started::PreviousUnusable | Started::TooManySessions(_))
            && let Some((key, claim)) = attempt.key_and_claim()
        {
            // A refused start remembers no key.
            self.release(&key, &claim).await?;
        }
        Ok(started)
    }

    pub(crate) async fn release(&self, key: &str, claim: &str) -> StoreResult<()> {
        self.link.run(&RELEASE.on(&[key]).arg(claim)).await
    }

    /// Completes the starts of a user that are noted.
    pub(crate) async fn complete_starts(&self, user: UserKey) -> StoreResult<()> {
        let [_, _, starts] = self.keys.user(user);
        let texts: Vec<Vec<u8>> = self.link.query(redis::cmd("HVALS").arg(starts)).await?;
        self.complete_all(texts).await
    }

    async fn complete_all(&self, texts: Vec<Vec<u8>>) -> StoreResult<()> {
        for text in texts {
            let noted: Noted = serde_json::from_slice(&text).map_err(|_| StoreError::Corrupt {
                table: "starts",
                column: "start",
                id: String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned(),
            })?;
            self.complete(&noted).await?;
        }
        Ok(())
    }

    /// Carries out a noted start, or what is left of it.
    async fn complete(&self, noted: &Noted) -> StoreResult<Completed> {
        let session = noted.session()?;
        let user = UserKey::new(&session.scope, &session.user_id);
        // Indexes first, whatever is found: they may name more than there is.
        tokio::try_join!(
            self.index_session(&session.scope, noted.id, user),
            self.index_user(&session.scope, &session.user_id)
        )?;
        let ends = noted.previous.is_some() || !noted.oldest.is_empty();
        // Where it ends nobody, the insert itself finds what is there.
        let found = if ends { self.found_without_data(noted.id).await? } else { Found::Nothing };
        let completed = match found {
            Found::Row(row) => self.made(noted, &row).await?,
            Found::Gone => Completed::Removed,
            Found::Nothing => self.end_others(noted, &session).await?,
        };
        let forget = match completed {
            Completed::Created(_) | Completed::Known => "note",
            Completed::Removed => "session",
            Completed::Void => "all",
        };
        if forget != "note" {
            self.unindex_session(&session.scope, noted.id, user).await?;
        }
        let keys = self.user_keys(user, noted.origin.idempotency.as_deref());
        let call = FINISH.on(&keys).arg(noted.id.to_bytes().as_slice()).arg(forget).arg(&noted.idempotency);
        self.link.run::<()>(&call).await?;
        Ok(completed)
    }

    /// What a row says that has the start's id.
    async fn made(&self, noted: &Noted, row: &Row) -> StoreResult<Completed> {
        if row.origin.token != noted.origin.token {
            return Ok(Completed::Known);
        }
        self.settle_row(row).await?;
        Ok(Completed::Created(self.ended_by(noted).await?))
    }

    /// Ends what the start replaces, then writes its row.
    async fn end_others(&self, noted: &Noted, session: &Session) -> StoreResult<Completed> {
        let mut i = 0;
        if let Some(previous) = noted.previous {
            if !self.end_for(noted, previous, EndReason::Replaced, i).await? {
                return Ok(Completed::Void);
            }
            i = 1;
        }
        for id in &noted.oldest {
            self.end_for(noted, *id, EndReason::MaxSessions, i).await?;
            i += 1;
        }
        match self.insert(session, &noted.origin, &noted.event.event()).await? {
            Ok(()) => Ok(Completed::Created(self.ended_by(noted).await?)),
            Err(Found::Row(row)) => self.made(noted, &row).await,
            Err(Found::Gone | Found::Nothing) => Ok(Completed::Removed),
        }
    }

    /// Ends a session for a start, unless it has ended; whether it ended for this one.
    async fn end_for(&self, noted: &Noted, id: SessionId, reason: EndReason, i: u32) -> StoreResult<bool> {
        let ending = noted.ending(reason);
        let Some(row) = self.found_without_data(id).await?.row() else { return Ok(false) };
        if row.ended_by.as_ref() == Some(&noted.origin.token) {
            self.settle_row(&row).await?;
            return Ok(true);
        }
        let written = self
            .write_if(row, |row| {
                row.session.end(ending.at).is_none().then(|| Write {
                    ended_by: Some(noted.origin.token.clone()),
                    ..Write::end(row.session.clone(), &ending, reason, i)
                })
            })
            .await?;
        if let Some((_, noted)) = written {
            self.settle(noted.into_iter().collect()).await?;
            return Ok(true);
        }
        let row = self.found_without_data(id).await?.row();
        Ok(row.is_some_and(|row| row.ended_by.as_ref() == Some(&noted.origin.token)))
    }

    /// The sessions that a start ended.
    async fn ended_by(&self, noted: &Noted) -> StoreResult<Vec<EndedSession>> {
        let ids = noted.previous.iter().chain(&noted.oldest);
        let rows = each(ids.map(|id| self.found_without_data(*id))).await?;
        let by_this = |row: Row| {
            let ended = row.session.ended.filter(|_| row.ended_by.as_ref() == Some(&noted.origin.token))?;
            Some(EndedSession::of(&row.session, ended.at, ended.reason))
        };
        Ok(rows.into_iter().filter_map(Found::row).filter_map(by_this).collect())
    }

    /// A user's keys, and that of its idempotency key; without one, again the user.
    pub(crate) fn user_keys(&self, user: UserKey, idempotency: Option<&str>) -> [String; 4] {
        let [of_user, sessions, starts] = self.keys.user(user);
        let key = idempotency.map_or(of_user.clone(), |key| self.keys.user_idempotency(user, key));
        [of_user, sessions, starts, key]
    }
}

impl Noted {
    fn session(&self) -> StoreResult<Session> {
        let value = |field: &&str| match *field {
            // Nobody has written this row yet.
            "rev" => Some(Vec::new()),
            field => self.row.iter().find(|(name, _)| name == field).map(|(_, value)| value.clone().into_bytes()),
        };
        let found = crate::row::decode(self.id, FIELDS.iter().map(value).collect())?;
        Ok(found.row().expect("a start has a whole row").session)
    }

    fn ending(&self, reason: EndReason) -> Ending {
        Ending {
            at: Timestamp::from_millis(self.at),
            reason,
            feed_until: Timestamp::from_millis(self.feed_until),
            event: self.ending.event(),
        }
    }
}

/// One call of [`Store::start`].
struct Attempt<'a> {
    inner: &'a Inner,
    start: &'a Start,
    now: Timestamp,
    user: UserKey,
    origin: Origin,
    /// How long the idempotency key is kept, in milliseconds.
    kept_for: i64,
}

impl<'a> Attempt<'a> {
    fn new(inner: &'a Inner, start: &'a Start) -> Self {
        let Session { scope, user_id, created_at: now, .. } = &start.session;
        Self {
            inner,
            start,
            now: *now,
            user: UserKey::new(scope, user_id),
            origin: Origin { token: inner.token(), idempotency: start.idempotency.as_ref().map(|i| hex(&i.key)) },
            kept_for: start.idempotency.map_or(0, |i| kept_for(&i, *now)),
        }
    }

    /// Claims the idempotency key for the request, unless the key already gives the answer.
    async fn claim(&self) -> StoreResult<Option<Started>> {
        let Some((key, claim)) = self.key_and_claim() else { return Ok(None) };
        loop {
            let call = CLAIM.on(&[&key]).arg(&claim).arg(self.now.millis()).arg(self.kept_for);
            let holds: String = self.inner.link.run(&call).await?;
            let parts = |claim: &str| claim.split(' ').map(str::to_owned).collect::<Vec<_>>();
            let (known, own) = (parts(&holds), parts(&claim));
            if known.first() != own.first() {
                return Ok(Some(Started::IdempotencyMismatch));
            }
            if known.last() == own.last() {
                return Ok(None);
            }
            // The same request, but another user's: that one's slot knows the session.
            let user = known.last().and_then(|user| unhex(user)).map(UserKey::from_bytes);
            let corrupt = || StoreError::Corrupt { table: "idempotency", column: "user", id: key.clone() };
            if let Some(repeated) = self.of_other_user(user.ok_or_else(corrupt)?).await? {
                return Ok(Some(repeated));
            }
            self.inner.release(&key, &holds).await?;
        }
    }

    async fn of_other_user(&self, user: UserKey) -> StoreResult<Option<Started>> {
        let key = self.origin.idempotency.as_deref().unwrap_or_default();
        let entry = redis::cmd("GET").arg(self.inner.keys.user_idempotency(user, key)).to_owned();
        let entry: Option<String> = self.inner.link.query(&entry).await?;
        let id = entry.and_then(|entry| unhex(entry.split(' ').next_back()?));
        let Some(id) = id.map(SessionId::from_bytes) else { return Ok(None) };
        self.inner.complete_starts(user).await?;
        let session = self.inner.session(id).await?;
        Ok(Some(Started::Repeated(session.map(Box::new))))
    }

    fn key_and_claim(&self) -> Option<(String, String)> {
        let (key, i) = (self.origin.idempotency.as_ref()?, self.start.idempotency?);
        let key = self.inner.keys.idempotency(&self.start.session.scope, key);
        Some((key, idempotency_text(&i, self.user)))
    }

    async fn run(&self) -> StoreResult<Started> {
        let Session { id, user_id, previous_session_id: previous, .. } = &self.start.session;
        let max = self.start.max_sessions.filter(|_| !user_id.is_anonymous());
        if self.inner.together && previous.is_none() && max.is_none() {
            match self.at_once().await? {
                Decision::Started => return Ok(Started::Created(Vec::new())),
                // There is a row with its id, or was.
                Decision::Free { .. } => {}
                decision => return self.answer(decision, Some(&self.noted(Vec::new()))).await,
            }
        }
        for _ in 0..TRIES {
            let mut revision = b"*".to_vec();
            let mut oldest = Vec::new();
            if previous.is_some() || max.is_some() {
                let starts = match self.decide("look", b"", "").await? {
                    Decision::Free { revision: seen, starts } => {
                        revision = seen;
                        starts
                    }
                    decision => return self.answer(decision, None).await,
                };
                self.inner.complete_all(starts).await?;
                if let Some(previous) = previous
                    && !self.usable(*previous).await?
                {
                    return Ok(Started::PreviousUnusable);
                }
                if let Some((max, on_max)) = max {
                    let active = self.active().await?;
                    let excess = (active.len() + 1).saturating_sub(max as usize);
                    if excess > 0 && on_max == OnMaxSessions::Reject {
                        return Ok(Started::TooManySessions(active.len() as u32));
                    }
                    oldest.extend(active.into_iter().take(excess));
                }
            }
            let noted = self.noted(oldest);
            match self.decide("reserve", &revision, &json(&noted)).await? {
                Decision::Changed => {}
                Decision::Reserved => return self.completed(&noted).await,
                decision => return self.answer(decision, Some(&noted)).await,
            }
        }
        Err(StoreError::Unavailable(format!("the user of the session {id} had {TRIES} other starts in a row")))
    }

    /// Starts the session in one step, if it replaces none and counts none.
    async fn at_once(&self) -> StoreResult<Decision> {
        let Start { session, event, .. } = self.start;
        let Session { id, scope, user_id, .. } = session;
        let row = (crate::row::encode(session, &self.origin), Vec::new());
        let effects: Vec<Effect> = Effect::of_event(scope, event).into_iter().collect();
        let [_, notify, _] = self.inner.calls(&effects);
        let [user, sessions, _, key] = self.inner.user_keys(self.user, self.origin.idempotency.as_deref());
        let join = JOIN
            .on(&[user, sessions, key])
            .arg(id.to_bytes().as_slice())
            .arg(user_id.as_str())
            .arg(self.idempotency_entry())
            .arg(self.kept_for);
        let calls = [
            self.reserve_call("look", b"", ""),
            self.inner.write_call(*id, "", "", row, std::slice::from_ref(event)),
            notify,
            self.inner.indexing_session(scope, *id, self.user),
            self.inner.indexing_user(scope, user_id),
            join,
        ];
        self.decision(&START_AT_ONCE.of(calls)).await
    }

    /// Asks the user's slot.
    async fn decide(&self, what: &str, revision: &[u8], noted: &str) -> StoreResult<Decision> {
        self.decision(&self.reserve_call(what, revision, noted)).await
    }

    /// A call of [`RESERVE`].
    fn reserve_call(&self, what: &str, revision: &[u8], noted: &str) -> Call {
        let Session { id, user_id, .. } = &self.start.session;
        RESERVE
            .on(&self.inner.user_keys(self.user, self.origin.idempotency.as_deref()))
            .arg(what)
            .arg(revision)
            .arg(self.now.millis())
            .arg(id.to_bytes().as_slice())
            .arg(noted)
            .arg(user_id.as_str())
            .arg(self.idempotency_entry())
            .arg(self.kept_for)
    }

    async fn decision(&self, call: &Call) -> StoreResult<Decision> {
        let reply: Vec<redis::Value> = self.inner.link.run(call).await?;
        self.read_decision(reply).ok_or_else(|| StoreError::Corrupt {
            table: "users",
            column: "start",
            id: self.user.to_string(),
        })
    }

    fn read_decision(&self, reply: Vec<redis::Value>) -> Option<Decision> {
        let mut reply = reply.into_iter();
        let mut text = || redis::from_redis_value::<String>(reply.next()?).ok();
        Some(match text()?.as_str() {
            "free" => {
                let revision = redis::from_redis_value(reply.next()?).ok()?;
                let starts = redis::from_redis_value(reply.next()?).ok()?;
                Decision::Free { revision, starts }
            }
            "started" => Decision::Started,
            "reserved" => Decision::Reserved,
            "repeated" => {
                let id = SessionId::from_bytes(unhex(&text()?)?);
                match text()? == hex(&self.start.idempotency?.request) {
                    true => Decision::Repeated(id),
                    false => Decision::Mismatch,
                }
            }
            "known" => Decision::Known,
            "banned" => Decision::Banned(serde_json::from_str(&text()?).ok()?),
            "changed" => Decision::Changed,
            _ => return None,
        })
    }

    /// What a decision against a new start says; `noted` is the note that was refused.
    async fn answer(&self, decision: Decision, noted: Option<&Noted>) -> StoreResult<Started> {
        let inner = self.inner;
        let id = match decision {
            Decision::Mismatch => return Ok(Started::IdempotencyMismatch),
            Decision::Banned(ban) => return Ok(Started::Banned(ban)),
            Decision::Repeated(id) => id,
            Decision::Known | Decision::Free { .. } | Decision::Started | Decision::Reserved | Decision::Changed => {
                self.start.session.id
            }
        };
        inner.complete_starts(self.user).await?;
        match (inner.found(id).await?.row(), noted) {
            // It was taken before, and the answer was lost on the way.
            (Some(row), Some(noted)) if row.origin.token == noted.origin.token => {
                Ok(Started::Created(inner.ended_by(noted).await?))
            }
            (row, _) => Ok(Started::Repeated(row.map(|row| Box::new(row.session)))),
        }
    }

    async fn completed(&self, noted: &Noted) -> StoreResult<Started> {
        match self.inner.complete(noted).await? {
            Completed::Created(ended) => Ok(Started::Created(ended)),
            Completed::Removed => Ok(Started::Repeated(None)),
            Completed::Void => Ok(Started::PreviousUnusable),
            Completed::Known => self.answer(Decision::Known, None).await,
        }
    }

    async fn usable(&self, previous: SessionId) -> StoreResult<bool> {
        let Session { scope, user_id, .. } = &self.start.session;
        let row = self.inner.found_without_data(previous).await?.row();
        Ok(row.is_some_and(|Row { session: p, .. }| {
            p.scope == *scope && (p.user_id == *user_id || p.user_id.is_anonymous()) && p.end(self.now).is_none()
        }))
    }

    /// The active sessions that count towards the maximum, oldest first.
    async fn active(&self) -> StoreResult<Vec<SessionId>> {
        let Session { tag, previous_session_id: previous, .. } = &self.start.session;
        let rows = self.inner.rows_of_user(self.user).await?;
        let counts = |s: &Session| s.tag == *tag && s.end(self.now).is_none() && Some(s.id) != *previous;
        Ok(rows.iter().map(|row| &row.session).filter(|s| counts(s)).map(|s| s.id).collect())
    }

    fn noted(&self, oldest: Vec<SessionId>) -> Noted {
        let Start { session, event, ending, .. } = self.start;
        let fields = crate::row::encode(session, &self.origin);
        Noted {
            id: session.id,
            row: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            origin: self.origin.clone(),
            idempotency: self.idempotency_entry(),
            previous: session.previous_session_id,
            oldest,
            at: ending.at.millis(),
            feed_until: ending.feed_until.millis(),
            ending: SavedEvent::new(&ending.event),
            event: SavedEvent::new(event),
        }
    }

    fn idempotency_entry(&self) -> String {
        let id = hex(&self.start.session.id.to_bytes());
        self.start.idempotency.as_ref().map(|i| idempotency_text(i, id)).unwrap_or_default()
    }
}

/// What is kept of an idempotency key: its request, its expiry, and to whom it leads: in the user's slot to a session, in its
/// own to the user.
pub(crate) fn idempotency_text(idempotency: &Idempotency, to: impl Display) -> String {
    format!("{} {} {to}", hex(&idempotency.request), idempotency.expires_at.millis())
}

/// How long an idempotency key of a session that starts at `now` is kept, in milliseconds.
pub(crate) fn kept_for(idempotency: &Idempotency, now: Timestamp) -> i64 {
    (idempotency.expires_at.millis() - now.millis()).max(0) + GARBAGE_AFTER
}
