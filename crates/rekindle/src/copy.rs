//! Copying everything in a store to another one, while servers work on the first.
//!
//! A [pass](Copy::pass) walks through both stores in the order of their keys, and makes the second one hold what the first one
//! does. It needs no memory of earlier passes: after an interruption, the next one goes on. When the servers have stopped,
//! [`Copy::finish`] passes until nothing differs.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet, VecDeque};

use aws_lc_rs::digest;

use crate::clock::Timestamp;
use crate::journal::{Event, EventId};
use crate::session::{Session, SessionId};
use crate::store::{
    AuditEntry, Configuration, Held, Record, RecordKey, Revoked, Section, Store, StoreError, StoreResult,
    StoredSession, Transfer,
};

/// A copy under way.
pub struct Copy<'a> {
    from: &'a dyn Transfer,
    to: &'a dyn Transfer,
}

/// Why a copy cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The store that is copied failed; the copy can be taken up again.
    #[error("the store to copy from: {0}")]
    From(#[source] StoreError),
    /// The other one failed; the copy can be taken up again.
    #[error("the store to copy to: {0}")]
    To(#[source] StoreError),
    /// The other store was used under other master secrets.
    #[error("the store to copy to was used with another master secret under key id {0}; give an empty store")]
    OtherSecret(u8),
    /// The other store holds something that no copy brought there.
    #[error("the store to copy to is in use: it has {sessions} sessions, {keys} keys; give an empty store")]
    InUse {
        /// How many sessions it has.
        sessions: u64,
        /// How many API keys and signing keys.
        keys: usize,
    },
    /// The copy was finished earlier: servers may work on the other store.
    #[error(
        "this copy was finished at {0}: servers may work on the store to copy to, so nothing is written there; give an empty store"
    )]
    Finished(Timestamp),
    /// What was written is not there.
    #[error("event {event} of session {session} was written, and is not there as it was given")]
    Lost {
        /// Of which session.
        session: SessionId,
        /// Which.
        event: EventId,
    },
    /// The passes of [`Copy::finish`] do not come to an end.
    #[error(
        "{0} records changed during the last pass: stop all servers that work on the store to copy from, and finish again"
    )]
    StillChanging(u64),
}

/// What a pass found, and did about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Whether products, definitions or keys differed.
    pub configuration: bool,
    /// By section, in the order of [`Section::ALL`].
    pub sections: Vec<(Section, Compared)>,
}

impl Pass {
    /// How many records differed, the configuration counted as one.
    pub fn differences(&self) -> u64 {
        self.sections.iter().map(|(_, c)| c.copied + c.removed).sum::<u64>() + u64::from(self.configuration)
    }
}

/// What a pass found in a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// How many records the first store has.
    pub records: u64,
    /// How many of them were missing or other in the second one.
    pub copied: u64,
    /// How many the second one had beside them.
    pub removed: u64,
    /// SHA-256 of the first store's records; of the second one's, too, if nothing differed.
    pub checksum: [u8; 32],
}

/// How far a pass is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// In which section.
    pub section: Section,
    /// How many records were compared.
    pub done: u64,
    /// How many there were when it began, or about so many.
    pub of: u64,
}

impl<'a> Copy<'a> {
    /// The [action](AuditEntry::action) that marks a store to which a copy is under way.
    pub const BEGIN: &'static str = "store.copy.begin";
    /// The one that marks a store to which a copy was finished.
    pub const FINISH: &'static str = "store.copy.finish";
    /// The one that marks the store that was copied: no engine opens it any more, until it is marked with
    /// [`Copy::REOPEN`].
    pub const RETIRE: &'static str = "store.copy.retire";
    /// The one that takes [`Copy::RETIRE`] back.
    pub const REOPEN: &'static str = "store.copy.reopen";

    /// How many passes [`Copy::finish`] makes: what a server had under way when it stopped may come after the first.
    const PASSES: u32 = 4;

    /// Begins a copy, or takes it up again. `begun` goes into the audit log of `to`; its action must be [`Copy::BEGIN`].
    ///
    /// # Errors
    ///
    /// [`CopyError::InUse`], [`CopyError::OtherSecret`] or [`CopyError::Finished`] if `to` must not be written to.
    pub async fn begin(from: &'a dyn Transfer, to: &'a dyn Transfer, begun: AuditEntry) -> Result<Self, CopyError> {
        let copy = Self { from, to };
        let known = from.configuration().await.map_err(CopyError::From)?.secret_checks;
        let there = to.configuration().await.map_err(CopyError::To)?;
        if let Some((kid, _)) = there.secret_checks.iter().find(|check| !known.contains(check)) {
            return Err(CopyError::OtherSecret(*kid));
        }
        match copy.marks().await?.first() {
            Some(mark) if mark.action == Self::FINISH => return Err(CopyError::Finished(mark.at)),
            Some(_) => {}
            None => {
                let sessions = to.count(Section::Sessions).await.map_err(CopyError::To)?;
                let keys = there.api_keys.len() + there.signing_keys.len();
                if sessions > 0 || keys > 0 {
                    return Err(CopyError::InUse { sessions, keys });
                }
                to.append_audit(begun).await.map_err(CopyError::To)?;
            }
        }
        Ok(copy)
    }

    /// Makes `to` hold what `from` holds; `tell` is called now and then.
    pub async fn pass(&self, mut tell: impl FnMut(Progress)) -> Result<Pass, CopyError> {
        let configuration = self.configuration().await?;
        let mut sections = Vec::new();
        for section in Section::ALL {
            sections.push((section, self.section(section, &mut tell).await?));
        }
        Ok(Pass { configuration, sections })
    }

    /// Passes until nothing differs, for when no server works on `from` any more. Then `finished` goes into the audit log of `to`,
    /// and `retired` into that of `from`; their actions must be [`Copy::FINISH`] and [`Copy::RETIRE`]. The last pass, which
    /// found no difference.
    ///
    /// # Errors
    ///
    /// [`CopyError::StillChanging`] if a server does work on it.
    pub async fn finish(
        self,
        finished: AuditEntry,
        retired: AuditEntry,
        mut tell: impl FnMut(Progress),
    ) -> Result<Pass, CopyError> {
        let mut left = Self::PASSES;
        loop {
            let pass = self.pass(&mut tell).await?;
            left -= 1;
            match pass.differences() {
                0 => {
                    self.to.append_audit(finished).await.map_err(CopyError::To)?;
                    self.from.append_audit(retired).await.map_err(CopyError::From)?;
                    return Ok(pass);
                }
                changed if left == 0 => return Err(CopyError::StillChanging(changed)),
                _ => {}
            }
        }
    }

    async fn configuration(&self) -> Result<bool, CopyError> {
        let wanted = self.from.configuration().await.map_err(CopyError::From)?;
        let mut there = self.to.configuration().await.map_err(CopyError::To)?;
        // The number only grows, there by its own steps.
        there.version = there.version.max(wanted.version);
        let differs = there != Configuration { version: there.version, ..wanted.clone() };
        if differs {
            self.to.set_configuration(wanted).await.map_err(CopyError::To)?;
        }
        Ok(differs)
    }

    async fn section(&self, section: Section, tell: &mut impl FnMut(Progress)) -> Result<Compared, CopyError> {
        let of = self.from.count(section).await.map_err(CopyError::From)?;
        let own: HashSet<EventId> = match section {
            Section::Audit => self.marks().await?.into_iter().map(|mark| mark.id).collect(),
            _ => HashSet::new(),
        };
        let (mut source, mut target) = (Stream::new(self.from, section), Stream::new(self.to, section));
        let (mut compared, mut batch) =
            (Compared { records: 0, copied: 0, removed: 0, checksum: [0; 32] }, Batch::default());
        let mut checksum = digest::Context::new(&digest::SHA256);
        loop {
            source.fill().await.map_err(CopyError::From)?;
            target.fill().await.map_err(CopyError::To)?;
            let order = match (source.first(), target.first()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(wanted), Some(there)) => wanted.cmp(&there),
            };
            let wanted = if order.is_le() { source.next() } else { None };
            let there = if order.is_ge() { target.next() } else { None };
            match (wanted, there) {
                (Some(wanted), there) => {
                    compared.records += 1;
                    checksum.update(&canonical(&wanted));
                    if there.as_ref() != Some(&wanted) {
                        compared.copied += 1;
                        batch.put(wanted, there);
                    }
                }
                (None, Some(Record::Audit(mark))) if own.contains(&mark.id) => {}
                (None, Some(there)) => {
                    compared.removed += 1;
                    batch.remove.push(there.key());
                }
                (None, None) => unreachable!("one of them is first"),
            }
            if batch.is_full() {
                self.write(std::mem::take(&mut batch)).await?;
                tell(Progress { section, done: compared.records, of });
            } else if compared.records % u64::from(PAGE) == 0 {
                tell(Progress { section, done: compared.records, of });
            }
        }
        self.write(batch).await?;
        tell(Progress { section, done: compared.records, of: compared.records });
        compared.checksum = checksum.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        Ok(compared)
    }

    /// Writes a batch, and reads back what nothing compares later: the events.
    async fn write(&self, mut batch: Batch) -> Result<(), CopyError> {
        if !batch.remove.is_empty() {
            self.to.remove(batch.remove).await.map_err(CopyError::To)?;
        }
        if batch.put.is_empty() {
            return Ok(());
        }
        let mut events = self.from.events_after(batch.events.clone()).await.map_err(CopyError::From)?;
        if take_up_late(&mut batch.events, &events, &batch.expected) {
            events = self.from.events_after(batch.events.clone()).await.map_err(CopyError::From)?;
        }
        self.to.put(batch.put, events.clone()).await.map_err(CopyError::To)?;
        let there = self.to.events_after(batch.events).await.map_err(CopyError::To)?;
        let there: HashMap<_, _> = there.iter().map(|event| ((event.session_id, event.id), event)).collect();
        match events.iter().find(|event| there.get(&(event.session_id, event.id)) != Some(event)) {
            Some(Event { session_id: Some(session), id, .. }) => Err(CopyError::Lost { session: *session, event: *id }),
            _ => Ok(()),
        }
    }

    /// What copies wrote into the audit log of `to`, newest first: marks that `from` has, too, tell of earlier copies to `from`.
    async fn marks(&self) -> Result<Vec<AuditEntry>, CopyError> {
        let of_target = |entry: &AuditEntry| entry.action == Self::BEGIN || entry.action == Self::FINISH;
        let earlier = audit_where(self.from, of_target).await.map_err(CopyError::From)?;
        let mut marks = audit_where(self.to, of_target).await.map_err(CopyError::To)?;
        marks.retain(|mark| !earlier.contains(mark));
        Ok(marks)
    }
}

/// How many records are read at once.
const PAGE: u32 = 500;
/// How much a batch may weigh: about so many bytes.
const BATCH: usize = 4 << 20;

/// A walk through a section.
struct Stream<'a> {
    store: &'a dyn Transfer,
    section: Section,
    after: Option<RecordKey>,
    read: VecDeque<Record>,
    at_end: bool,
}

impl<'a> Stream<'a> {
    fn new(store: &'a dyn Transfer, section: Section) -> Self {
        Self { store, section, after: None, read: VecDeque::new(), at_end: false }
    }

    /// Reads on if nothing is left.
    async fn fill(&mut self) -> StoreResult<()> {
        if self.read.is_empty() && !self.at_end {
            let page = self.store.records(self.section, self.after.take(), PAGE).await?;
            self.after = page.last().map(Record::key);
            self.at_end = page.is_empty();
            self.read.extend(page);
        }
        Ok(())
    }

    /// What the next record sorts by.
    fn first(&self) -> Option<Vec<u8>> {
        self.read.front().map(|record| record.key().to_bytes())
    }

    fn next(&mut self) -> Option<Record> {
        self.read.pop_front()
    }
}

/// What is to be written together.
#[derive(Default)]
struct Batch {
    remove: Vec<RecordKey>,
    put: Vec<Record>,
    /// The events that are missing: those after which, of which session.
    events: Vec<(SessionId, Option<EventId>)>,
    /// How many they are at least.
    expected: HashMap<SessionId, u64>,
    weight: usize,
}

impl Batch {
    fn put(&mut self, wanted: Record, there: Option<Record>) {
        self.weight += 1 << 10;
        if let Record::Session(wanted) = &wanted {
            let StoredSession { session, events, .. } = &**wanted;
            let held = match there {
                Some(Record::Session(there)) if there.events.count <= events.count => there.events,
                // Its events are not the first ones of these.
                Some(there) => {
                    self.remove.push(there.key());
                    Held::default()
                }
                None => Held::default(),
            };
            let missing = events.count - held.count;
            self.events.push((session.id, held.last));
            self.expected.insert(session.id, missing);
            self.weight += session.data.as_str().len() + session.claims.as_str().len() + (missing as usize) * 512;
        }
        self.put.push(wanted);
    }

    fn is_full(&self) -> bool {
        self.weight + (self.remove.len() << 10) >= BATCH
    }
}

/// An event that was written late may have an earlier id than the last one: where some are missing, all are asked for. Whether
/// there was such a session.
fn take_up_late(
    asked: &mut [(SessionId, Option<EventId>)],
    answered: &[Event],
    expected: &HashMap<SessionId, u64>,
) -> bool {
    let mut counts: HashMap<SessionId, u64> = HashMap::new();
    for id in answered.iter().filter_map(|event| event.session_id) {
        *counts.entry(id).or_default() += 1;
    }
    let mut late = false;
    for (id, after) in asked {
        if after.is_some() && counts.get(id).copied().unwrap_or(0) < expected[id] {
            *after = None;
            late = true;
        }
    }
    late
}

/// The mark by which a store was retired when it was copied to another one, unless it was opened again.
///
/// Only the newest entries are looked at: nothing but a few commands writes there after the mark.
pub(crate) async fn retired(store: &dyn Store) -> StoreResult<Option<AuditEntry>> {
    let newest = store.audit_log(None, PAGE).await?;
    let mark = newest.into_iter().find(|entry| entry.action == Copy::RETIRE || entry.action == Copy::REOPEN);
    Ok(mark.filter(|mark| mark.action == Copy::RETIRE))
}

/// Some entries of a store's audit log, newest first.
async fn audit_where(store: &dyn Transfer, wanted: impl Fn(&AuditEntry) -> bool) -> StoreResult<Vec<AuditEntry>> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = store.audit_log(before, PAGE).await?;
        before = page.last().map(|entry| entry.id);
        let whole = page.len() < PAGE as usize;
        found.extend(page.into_iter().filter(&wanted));
        if whole {
            return Ok(found);
        }
    }
}

/// The same bytes for equal records, whatever store they are from.
fn canonical(record: &Record) -> Vec<u8> {
    let json = match record {
        Record::Session(stored) => {
            let StoredSession { session, idempotency, events } = &**stored;
            let Session {
                id,
                scope,
                tag,
                definition_version,
                user_id,
                position,
                confirmed,
                min_generation,
                data,
                claims,
                version,
                client,
                auth,
                created_at,
                idle_expires_at,
                expires_at,
                previous_session_id,
                ended,
            } = session;
            let position = (position.generation, position.commitment.to_bytes(), position.issued_at, position.kid);
            let clocks = (created_at, idle_expires_at, expires_at, ended.map(|ended| (ended.at, ended.reason)));
            let origin = (scope.to_string(), tag, definition_version, user_id, client, auth, previous_session_id);
            let state = (confirmed, min_generation, version, data, claims);
            let idempotency = idempotency.map(|known| (known.key, known.request, known.expires_at));
            serde_json::to_vec(&(id, origin, position, state, clocks, idempotency, events.count, events.last))
        }
        Record::Ban(stored) => serde_json::to_vec(&(stored.scope.to_string(), &stored.user_id, &stored.ban)),
        Record::Revocation(entry) => {
            let what = match entry.what {
                Revoked::Ended { reason, expires_at } => (Some((reason, expires_at)), None),
                Revoked::Below(generation) => (None, Some(generation)),
            };
            let place = (entry.seq, entry.scope.to_string(), entry.session_id);
            serde_json::to_vec(&(place, what, entry.at, entry.expires_at))
        }
        Record::Notification(queued) => {
            let notification = &queued.notification;
            let scope = notification.scope.to_string();
            serde_json::to_vec(&(scope, &notification.event, notification.attempts, queued.due))
        }
        Record::Audit(entry) => serde_json::to_vec(entry),
    };
    json.expect("all of it can be JSON")
}
