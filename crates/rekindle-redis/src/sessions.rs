//! One session: its row is read, decided on, and written if nobody has written it since. A refresh is one script.

use rekindle::journal::{Event, EventId};
use rekindle::session::{EndReason, Ended, Session, SessionId};
use rekindle::store::*;

use crate::effects::{Effect, Noted, lines};
use crate::row::{self, FIELDS, Found, Row, WITHOUT_DATA, json};
use crate::scripts::{ADVANCE, CONFIRM, Call, REMOVE, WRITE, WRITE_AT_ONCE};
use crate::{Inner, each};

/// How often a write is decided on anew at most. Each time, somebody else's write came first.
const TRIES: u32 = 1000;
/// How long a removed session is remembered, in seconds: longer than any start can be held up.
const REMEMBERED: u32 = 3600;

/// An entry of a stream: its id, its fields and values.
pub(crate) type StreamEntry = (String, Vec<Vec<u8>>);

/// A row's fields to set, with their values, and those to remove.
type Fields = (Vec<(&'static str, String)>, Vec<&'static str>);

/// What is to become of a row.
pub(crate) struct Write {
    pub(crate) session: Session,
    /// The token of the start, or the event of the bulk ending, that ends it.
    pub(crate) ended_by: Option<String>,
    pub(crate) events: Vec<Event>,
    pub(crate) effects: Vec<Effect>,
}

impl Write {
    /// A new row, with an event that enters the outbox if it wishes.
    pub(crate) fn of(session: Session, event: Event) -> Self {
        let effects = Effect::of_event(&session.scope, &event).into_iter().collect();
        Self { session, ended_by: None, events: vec![event], effects }
    }

    /// The end of an active session: row, feed, event.
    pub(crate) fn end(mut session: Session, ending: &Ending, reason: EndReason, i: u32) -> Self {
        let event = ending.event_for(&session, i, reason);
        let what = Revoked::Ended { reason, expires_at: session.expires_at };
        let publish = Effect::publish(event.id, &session.scope, session.id, what, ending.at, ending.feed_until);
        session.ended = Some(Ended { at: ending.at, reason });
        let mut write = Self::of(session, event);
        write.effects.insert(0, publish);
        write
    }
}

/// What came of a write.
pub(crate) enum Written {
    /// Done. Its effects may be noted, and still to be carried out.
    Done(Option<Noted>),
    /// Somebody was there first.
    Lost(Found),
}

impl Inner {
    /// A session's row with everything.
    pub(crate) async fn found(&self, id: SessionId) -> StoreResult<Found> {
        self.found_fields(id, &FIELDS).await
    }

    /// A session's row without data and claims.
    pub(crate) async fn found_without_data(&self, id: SessionId) -> StoreResult<Found> {
        self.found_fields(id, &FIELDS[..WITHOUT_DATA]).await
    }

    /// A session's row with these fields: all, or those [`WITHOUT_DATA`].
    pub(crate) async fn found_fields(&self, id: SessionId, fields: &[&str]) -> StoreResult<Found> {
        row::decode(id, self.link.query(redis::cmd("HMGET").arg(self.keys.row(id)).arg(fields)).await?)
    }

    pub(crate) async fn session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        Ok(self.found(id).await?.row().map(|row| row.session))
    }

    pub(crate) async fn advance(&self, advance: &Advance) -> StoreResult<Cas> {
        let Advance { id, next, elevation, event, now, .. } = advance;
        let mut effects = Vec::new();
        if let Some(elevation) = elevation {
            let below = Revoked::Below(next.generation);
            effects.push(Effect::publish(event.id, &advance.scope, *id, below, *now, elevation.feed_until));
        }
        effects.extend(Effect::of_event(&advance.scope, event));
        let mut call = ADVANCE
            .on(&self.keys.session(*id))
            .arg(self.token())
            .arg(row::of(&advance.scope, &advance.tag))
            .arg(row::position(advance.generation, advance.commitment))
            .arg(now.millis())
            .arg(row::position(next.generation, next.commitment))
            .arg(row::issued(next))
            .arg((*now + advance.idle_timeout).millis());
        push_event(&mut call, event);
        if elevation.is_some() || !effects.is_empty() {
            call.push(lines(&effects));
            call.push(elevation.as_ref().map(|e| json(&e.auth)).unwrap_or_default());
            call.push(next.generation);
        }
        let (applied, reply): (bool, Vec<Option<Vec<u8>>>) = self.link.run(&call).await?;
        let Found::Row(row) = row::decode(*id, reply)? else { return Ok(Cas::Stale(None)) };
        self.settle_row(&row).await?;
        Ok(if applied { Cas::Applied(row.session) } else { Cas::Stale(Some(row.session)) })
    }

    pub(crate) async fn fast_forward(&self, fast_forward: &FastForward) -> StoreResult<Cas> {
        self.conditional(fast_forward.id, |session| {
            fast_forward.applies_to(session).then(|| {
                let mut session = session.clone();
                fast_forward.apply(&mut session);
                Write::of(session, fast_forward.event.clone())
            })
        })
        .await
    }

    pub(crate) async fn confirm(&self, confirmations: &[Confirmation]) -> StoreResult<()> {
        let confirming = confirmations.iter().map(|c| async move {
            let call = CONFIRM
                .on(&[self.keys.row(c.session_id)])
                .arg(self.token())
                .arg(format!("{} ", c.scope))
                .arg(format!("{} ", c.generation));
            self.link.run::<()>(&call).await
        });
        each(confirming).await.map(drop)
    }

    pub(crate) async fn update(&self, update: &Update) -> StoreResult<Cas> {
        self.conditional(update.id, |session| {
            update.applies_to(session).then(|| {
                let mut session = session.clone();
                update.apply(&mut session);
                Write::of(session, update.event.clone())
            })
        })
        .await
    }

    pub(crate) async fn end(&self, end: &End) -> StoreResult<Cas> {
        self.conditional(end.id, |session| {
            end.applies_to(session).then(|| {
                let mut write = Write::end(session.clone(), &end.ending, end.ending.reason, 0);
                write.effects.extend(end.audit.clone().map(Effect::Audit));
                if let Some(cause) = &end.cause {
                    write.effects.extend(Effect::of_event(&end.scope, cause));
                    write.events.insert(0, cause.clone());
                }
                write
            })
        })
        .await
    }

    /// Records events of sessions that are there.
    pub(crate) async fn record(&self, events: &[Event]) -> StoreResult<()> {
        for event in events {
            let Some(id) = event.session_id else { continue };
            let Found::Row(row) = self.found_without_data(id).await? else { continue };
            let effects: Vec<Effect> = Effect::of_event(&row.session.scope, event).into_iter().collect();
            let fields = Fields::default();
            let written = self.write_row(id, "*", &effects, fields, std::slice::from_ref(event), self.together).await?;
            if let Written::Done(noted) = written {
                self.settle(noted.into_iter().collect()).await?;
            }
        }
        Ok(())
    }

    /// Decides on a row and writes what was decided, over again while others write it.
    async fn conditional(&self, id: SessionId, decide: impl Fn(&Session) -> Option<Write>) -> StoreResult<Cas> {
        let mut found = self.found(id).await?;
        for _ in 0..TRIES {
            let Found::Row(row) = found else { return Ok(Cas::Stale(None)) };
            self.settle_row(&row).await?;
            let Some(write) = decide(&row.session) else { return Ok(Cas::Stale(Some(row.session))) };
            match self.write(&row, &write, self.together).await? {
                Written::Done(noted) => {
                    self.settle(noted.into_iter().collect()).await?;
                    return Ok(Cas::Applied(write.session));
                }
                Written::Lost(fresh) => found = fresh,
            }
        }
        Err(contended(id))
    }

    /// As `conditional`, on a row without data; the effects are left to the caller, who has others and carries out all of them in
    /// one order. What was written, and the row that it was decided on.
    pub(crate) async fn write_if(
        &self,
        row: Row,
        decide: impl Fn(&Row) -> Option<Write>,
    ) -> StoreResult<Option<(Write, Option<Noted>)>> {
        let (id, mut row) = (row.session.id, row);
        for _ in 0..TRIES {
            self.settle_row(&row).await?;
            let Some(write) = decide(&row) else { return Ok(None) };
            match self.write(&row, &write, false).await? {
                Written::Done(noted) => return Ok(Some((write, noted))),
                Written::Lost(_) => match self.found_without_data(id).await? {
                    Found::Row(fresh) => row = *fresh,
                    Found::Gone | Found::Nothing => return Ok(None),
                },
            }
        }
        Err(contended(id))
    }

    /// Writes a row that nobody has written since it was read. See [`Inner::write_row`].
    async fn write(&self, row: &Row, write: &Write, together: bool) -> StoreResult<Written> {
        let fields = row::changes(&row.session, &write.session, write.ended_by.as_deref());
        self.write_row(row.session.id, &row.rev, &write.effects, fields, &write.events, together).await
    }

    /// Writes a new row; its effects are carried out. Otherwise what is there in its place.
    pub(crate) async fn insert(
        &self,
        session: &Session,
        origin: &row::Origin,
        event: &Event,
    ) -> StoreResult<Result<(), Found>> {
        let effects: Vec<Effect> = Effect::of_event(&session.scope, event).into_iter().collect();
        let fields = (row::encode(session, origin), Vec::new());
        match self.write_row(session.id, "", &effects, fields, std::slice::from_ref(event), self.together).await? {
            Written::Done(noted) => Ok(Ok(self.settle(noted.into_iter().collect()).await?)),
            Written::Lost(found) => Ok(Err(found)),
        }
    }

    /// Removes a row that nobody has written since it was read, after what is noted beside it; whether it did.
    pub(crate) async fn remove_row(&self, row: &Row) -> StoreResult<bool> {
        self.settle_row(row).await?;
        // Settling leaves the revision as it is.
        let call = REMOVE.on(&self.keys.session(row.session.id)).arg(self.token()).arg(&row.rev).arg(REMEMBERED);
        self.link.run(&call).await
    }

    /// Writes a row; its effects with it if the slots are `together`, and otherwise they are noted.
    async fn write_row(
        &self,
        id: SessionId,
        revision: &str,
        effects: &[Effect],
        fields: Fields,
        events: &[Event],
        together: bool,
    ) -> StoreResult<Written> {
        let noted = if together { String::new() } else { lines(effects) };
        let mut call = self.write_call(id, revision, &noted, fields, events);
        if together && !effects.is_empty() {
            let [publish, notify, audit] = self.calls(effects);
            call = WRITE_AT_ONCE.of([call, publish, notify, audit]);
        }
        let (done, reply): (bool, Vec<Option<Vec<u8>>>) = self.link.run(&call).await?;
        if !done {
            return Ok(Written::Lost(row::decode(id, reply)?));
        }
        Ok(Written::Done((!noted.is_empty()).then(|| Noted::new(self.keys.row(id), noted))))
    }

    /// A call of [`WRITE`].
    pub(crate) fn write_call(
        &self,
        id: SessionId,
        revision: &str,
        noted: &str,
        (set, removed): Fields,
        events: &[Event],
    ) -> Call {
        let mut call = WRITE.on(&self.keys.session(id)).arg(self.token()).arg(revision).arg(noted);
        call.push_changes(set, removed);
        let mut sorted: Vec<&Event> = events.iter().collect();
        sorted.sort_by_key(|event| event.id);
        for event in sorted {
            push_event(&mut call, event);
        }
        call
    }

    /// A page of a session's events: those of the stream together with those that came late.
    pub(crate) async fn events(&self, query: &EventQuery) -> StoreResult<Vec<Event>> {
        let [_, stream, late] = self.keys.session(query.session_id);
        let mut before = query.before;
        let mut selected = Vec::new();
        let count = (query.limit as usize).clamp(100, 1000);
        while selected.len() < query.limit as usize {
            let mut of_stream = redis::cmd("XREVRANGE");
            of_stream.arg(&stream).arg(before.map_or("+".into(), |id| format!("({}", stream_id(id)))).arg("-");
            of_stream.arg("COUNT").arg(count);
            let mut of_late = redis::cmd("ZREVRANGEBYLEX");
            let edge = before.map_or(b"+".to_vec(), |id| [b"(", id.to_bytes().as_slice()].concat());
            of_late.arg(&late).arg(edge).arg("-").arg("LIMIT").arg(0).arg(count);
            let (of_stream, of_late): (Vec<StreamEntry>, Vec<Vec<u8>>) =
                tokio::try_join!(self.link.query(&of_stream), self.link.query(&of_late))?;
            let more = of_stream.len().max(of_late.len()) == count || of_stream.len() + of_late.len() > count;
            let of_stream = of_stream.into_iter().map(|(_, mut fields)| fields.pop().unwrap_or_default());
            let of_late = of_late.into_iter().map(|member| member.get(16..).unwrap_or_default().to_vec());
            let mut page: Vec<Event> =
                of_stream.chain(of_late).map(|text| read_event(query.session_id, &text)).collect::<Result<_, _>>()?;
            page.sort_by_key(|event| std::cmp::Reverse(event.id));
            // Beyond that, events of the one may be missing among those of the other.
            page.truncate(count);
            before = page.last().map(|event| event.id);
            selected.extend(page.into_iter().filter(|event| query.selects(event)));
            if !more {
                break;
            }
        }
        selected.truncate(query.limit as usize);
        Ok(selected)
    }
}

fn contended(id: SessionId) -> StoreError {
    StoreError::Unavailable(format!("the session {id} was written by others {TRIES} times in a row"))
}

pub(crate) fn push_event(call: &mut Call, event: &Event) {
    call.push(stream_id(event.id));
    call.push(event.id.to_bytes().as_slice());
    // The key names the session.
    call.push(json(&Event { session_id: None, ..event.clone() }));
}

/// An event's id as a stream has it: both are two numbers of 64 bits.
pub(crate) fn stream_id(id: EventId) -> String {
    let bytes = u128::from_be_bytes(id.to_bytes());
    format!("{}-{}", bytes >> 64, bytes & u128::from(u64::MAX))
}

/// The reverse of [`stream_id`].
pub(crate) fn read_stream_id(text: &str) -> Option<EventId> {
    let (high, low) = text.split_once('-')?;
    let bytes = u128::from(high.parse::<u64>().ok()?) << 64 | u128::from(low.parse::<u64>().ok()?);
    Some(EventId::from_bytes(bytes.to_be_bytes()))
}

pub(crate) fn read_event(session_id: SessionId, text: &[u8]) -> StoreResult<Event> {
    let event: Event = serde_json::from_slice(text).map_err(|_| StoreError::Corrupt {
        table: "events",
        column: "event",
        id: session_id.to_string(),
    })?;
    Ok(Event { session_id: Some(session_id), ..event })
}
