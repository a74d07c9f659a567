//! What must hold, and what really happened: compared after every step that may have written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rekindle::clock::{Seconds, Timestamp};
use rekindle::journal::{Event, EventKind, Outcome};
use rekindle::refresh::Commitment;
use rekindle::rotation::{Expiry, TheftKind};
use rekindle::session::{EndReason, Session, SessionId, UserId};

use super::Counts;

/// Who draws openings: a client's device, or a thief's.
pub(super) type Party = u64;

/// How many steps a violation shows.
const SHOWN: usize = 60;

/// What a thief took, and who moved the session on since.
struct Theft {
    session: SessionId,
    victim: Party,
    thief: Party,
    /// Commitments whose openings both have.
    shared: BTreeSet<Commitment>,
    /// Who first advanced with an opening that only they have.
    owner: Option<Party>,
}

/// What is known of a device from its user's id.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    /// Its sessions are committed from birth.
    pub(super) committed: bool,
    /// No request of it outlives its wait for the answer, and none is doubled.
    pub(super) orderly: bool,
}

/// When a request arrived: which answers count against which state.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) step: u64,
    pub(super) epoch: u64,
}

pub(super) struct Judge {
    pub(super) violation: Option<String>,
    pub(super) counts: Counts,
    pub(super) rows: BTreeMap<SessionId, Session>,
    history: VecDeque<String>,
    verbose: bool,
    retention: Seconds,
    names: BTreeMap<SessionId, usize>,
    owners: BTreeMap<UserId, Owner>,
    tainted: BTreeSet<SessionId>,
    tainted_users: BTreeSet<UserId>,
    /// The idle expiry before the last change: what a concurrent request may have seen.
    idle_before: BTreeMap<SessionId, Timestamp>,
    ended: BTreeMap<SessionId, u64>,
    /// Sessions whose ending was judged: the revocation log may have to carry it out again.
    judged: BTreeSet<SessionId>,
    acknowledged: BTreeMap<SessionId, u32>,
    answered: BTreeMap<(SessionId, u32), Commitment>,
    used: BTreeSet<(SessionId, u32)>,
    patches: BTreeMap<SessionId, BTreeSet<String>>,
    drawn: BTreeMap<Commitment, Party>,
    theft: Option<Theft>,
    epoch: u64,
}

impl Judge {
    pub(super) fn new(verbose: bool, retention: Seconds) -> Self {
        Self {
            violation: None,
            counts: Counts::default(),
            rows: BTreeMap::new(),
            history: VecDeque::new(),
            verbose,
            retention,
            names: BTreeMap::new(),
            owners: BTreeMap::new(),
            tainted: BTreeSet::new(),
            tainted_users: BTreeSet::new(),
            idle_before: BTreeMap::new(),
            ended: BTreeMap::new(),
            judged: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            answered: BTreeMap::new(),
            used: BTreeSet::new(),
            patches: BTreeMap::new(),
            drawn: BTreeMap::new(),
            theft: None,
            epoch: 0,
        }
    }

    pub(super) fn note(&mut self, step: u64, now: Timestamp, what: &str) {
        let line = format!("{step:>7} {now} {what}");
        if self.verbose {
            println!("{line}");
        }
        self.history.push_back(line);
        if self.history.len() > SHOWN {
            self.history.pop_front();
        }
    }

    pub(super) fn history(&self) -> Vec<String> {
        self.history.iter().cloned().collect()
    }

    /// The first violation stays.
    pub(super) fn violated(&mut self, property: u8, what: String) {
        self.violation.get_or_insert(format!("property {property}: {what}"));
    }

    /// A short name for a session.
    pub(super) fn name(&mut self, id: SessionId) -> String {
        let next = self.names.len();
        format!("s{}", self.names.entry(id).or_insert(next))
    }

    pub(super) fn know(&mut self, user: UserId, owner: Owner) {
        self.owners.insert(user, owner);
    }

    pub(super) fn drew(&mut self, commitment: Commitment, by: Party) {
        self.drawn.insert(commitment, by);
    }

    /// From here on, somebody else than its clocks may end this session.
    pub(super) fn taint(&mut self, id: SessionId) {
        self.tainted.insert(id);
    }

    pub(super) fn taint_user(&mut self, user: UserId) {
        self.tainted_users.insert(user);
    }

    pub(super) fn is_tainted(&self, id: SessionId) -> bool {
        self.tainted.contains(&id) || self.rows.get(&id).is_some_and(|r| self.tainted_users.contains(&r.user_id))
    }

    /// A thief copied a committed client: these openings are in both hands.
    pub(super) fn stolen(&mut self, session: SessionId, victim: Party, thief: Party, shared: BTreeSet<Commitment>) {
        self.taint(session);
        self.theft = Some(Theft { session, victim, thief, shared, owner: None });
    }

    /// Whether a thief has moved this party's session on.
    pub(super) fn is_overtaken(&self, id: SessionId, party: Party) -> bool {
        self.theft.as_ref().is_some_and(|t| t.session == id && t.victim == party && t.owner == Some(t.thief))
    }

    /// An end that was acknowledged stands, whatever its row says: the revocation log holds it where the store lost it.
    pub(super) fn is_alive(&self, id: SessionId, now: Timestamp) -> bool {
        !self.ended.contains_key(&id) && self.rows.get(&id).is_some_and(|row| row.end(now).is_none())
    }

    pub(super) fn arrival(&self, step: u64) -> Arrival {
        Arrival { step, epoch: self.epoch }
    }

    /// A token of this generation was used: from now on it may count as confirmed.
    pub(super) fn uses(&mut self, id: SessionId, generation: u32) {
        self.used.insert((id, generation));
    }

    /// A server handed out tokens.
    pub(super) fn refreshed(&mut self, at: Arrival, session: &Session, party: Party) {
        self.counts.refreshes += 1;
        self.still_good(at, session.id, "a refresh");
        let (id, position) = (session.id, session.position);
        if session.idle_expires_at > session.expires_at {
            self.violated(5, "the idle expiry passes the absolute one".into());
        }
        if at.epoch == self.epoch {
            let newest = self.acknowledged.entry(id).or_default();
            *newest = (*newest).max(position.generation);
            let commitment = *self.answered.entry((id, position.generation)).or_insert(position.commitment);
            if commitment != position.commitment {
                let name = self.name(id);
                self.violated(6, format!("{name}: two lineages were handed out at generation {}", position.generation));
            }
            let foreign = self.theft.as_ref().is_some_and(|t| {
                t.session == id
                    && position.commitment.is_some()
                    && !t.shared.contains(&position.commitment)
                    && self.drawn.get(&position.commitment).is_some_and(|drawer| *drawer != party)
            });
            if foreign {
                self.violated(2, "a party got a token of the other party's branch".into());
            }
        }
    }

    /// Something that only an active session gives was given.
    pub(super) fn still_good(&mut self, at: Arrival, id: SessionId, what: &str) {
        if self.ended.get(&id).is_some_and(|ended| *ended < at.step) {
            let name = self.name(id);
            self.violated(4, format!("{name}: {what} succeeded after the session's end was acknowledged"));
        }
    }

    /// A server said that this session's end is done.
    pub(super) fn acknowledged_end(&mut self, id: SessionId, step: u64) {
        self.ended.entry(id).or_insert(step);
    }

    /// A server said that a clock ran out.
    pub(super) fn expired(&mut self, id: SessionId, which: Expiry, server_now: Timestamp) {
        let Some(row) = self.rows.get(&id) else { return };
        let idle = self.idle_before.get(&id).map_or(row.idle_expires_at, |before| row.idle_expires_at.min(*before));
        let over = server_now >= row.expires_at || (which == Expiry::Idle && server_now >= idle);
        if !over && row.ended.is_none() {
            let name = self.name(id);
            self.violated(1, format!("{name}: refused as expired ({which:?}) before its time"));
        }
    }

    /// A patch that sets this key was acknowledged.
    pub(super) fn patched(&mut self, at: Arrival, id: SessionId, key: String) {
        if at.epoch == self.epoch {
            self.patches.entry(id).or_default().insert(key);
        }
    }

    /// The store went back to an earlier state: what was acknowledged since may be gone.
    pub(super) fn rolled_back(&mut self, rows: Vec<Session>) {
        self.epoch += 1;
        self.rows = rows.into_iter().map(|row| (row.id, row)).collect();
        self.acknowledged.clear();
        self.answered.clear();
        self.patches.clear();
        self.idle_before.clear();
        if let Some(theft) = &mut self.theft {
            theft.owner = None;
        }
    }

    /// Compares the rows with what they were after the last step.
    pub(super) fn look(&mut self, rows: Vec<Session>, now: Timestamp, events: impl Fn(SessionId) -> Vec<Event>) {
        let gone: Vec<SessionId> =
            self.rows.keys().filter(|id| rows.binary_search_by(|r| r.id.cmp(id)).is_err()).copied().collect();
        for id in gone {
            let row = self.rows.remove(&id).expect("just seen");
            let natural = match row.ended {
                Some(ended) if ended.reason != EndReason::Idle => row.expires_at,
                _ => row.idle_expires_at.min(row.expires_at),
            };
            if natural + self.retention > now + super::MAX_SKEW {
                let name = self.name(id);
                self.violated(1, format!("{name}: the row disappeared before its time"));
            }
        }
        for row in rows {
            let before = self.rows.get(&row.id).cloned();
            if before.as_ref() != Some(&row) {
                self.changed(before.as_ref(), &row, &events);
                self.rows.insert(row.id, row);
            }
        }
    }

    fn changed(&mut self, before: Option<&Session>, row: &Session, events: &impl Fn(SessionId) -> Vec<Event>) {
        let name = self.name(row.id);
        let generation = row.position.generation;
        if row.idle_expires_at > row.expires_at {
            self.violated(5, format!("{name}: the idle expiry passes the absolute one"));
        }
        if self.acknowledged.get(&row.id).is_some_and(|acknowledged| *acknowledged > generation) {
            self.violated(4, format!("{name}: an acknowledged rotation is lost"));
        }
        let Some(before) = before else { return };
        if before.idle_expires_at != row.idle_expires_at {
            self.idle_before.insert(row.id, before.idle_expires_at);
        }
        if before.expires_at != row.expires_at {
            self.violated(5, format!("{name}: the absolute expiry moved"));
        }
        if generation < before.position.generation {
            self.violated(5, format!("{name}: back from generation {} to {generation}", before.position.generation));
        }
        if generation == before.position.generation && row.position != before.position {
            self.violated(6, format!("{name}: generation {generation} was replaced by another"));
        }
        if generation > before.position.generation {
            self.moved(row);
        }
        let revived = |e: rekindle::session::Ended| e.reason == EndReason::Idle && row.ended.is_none();
        if before.ended.is_some_and(|e| row.ended != Some(e) && !revived(e)) {
            self.violated(4, format!("{name}: an ending was undone or replaced"));
        }
        if before.ended.is_none()
            && let Some(ended) = row.ended
        {
            self.ended_by(row, ended.reason, &name, events);
        }
        if before.version != row.version {
            let data = row.data.to_map();
            if self.patches.get(&row.id).is_some_and(|keys| keys.iter().any(|key| !data.contains_key(key))) {
                self.violated(7, format!("{name}: an acknowledged patch is lost"));
            }
        }
    }

    /// A session reached a new generation: after a theft, only one party may do this.
    fn moved(&mut self, row: &Session) {
        let Some(theft) = self.theft.as_mut().filter(|t| t.session == row.id) else { return };
        let commitment = row.position.commitment;
        if theft.shared.contains(&commitment) {
            return;
        }
        let Some(mover) = self.drawn.get(&commitment).copied() else { return };
        let owner = *theft.owner.get_or_insert(mover);
        if owner != mover {
            self.violated(2, "both parties of a fork advanced".into());
        }
    }

    fn ended_by(&mut self, row: &Session, reason: EndReason, name: &str, events: &impl Fn(SessionId) -> Vec<Event>) {
        if matches!(reason, EndReason::Idle | EndReason::Absolute) || !self.judged.insert(row.id) {
            return;
        }
        if reason == EndReason::Theft {
            self.counts.thefts += 1;
        }
        if self.is_tainted(row.id) {
            return;
        }
        let owner = self.owners.get(&row.user_id).copied();
        let bearer = owner.is_some_and(|o| !o.committed);
        if reason != EndReason::Theft || !bearer {
            self.violated(1, format!("{name}: nobody asked for it, but it ended as {}", reason.as_str()));
            return;
        }
        // A bearer session may end by theft only when an old token came back after its child was used.
        let seen = events(row.id).into_iter().find(|e| e.kind == EventKind::TheftDetected);
        let Some(event) = seen else {
            self.violated(8, format!("{name}: ended by theft without an event"));
            return;
        };
        let (m, n) = (event.presented_generation.unwrap_or_default(), event.generation);
        let replayed = event.theft == Some(TheftKind::Reused) && (m + 1 < n || self.used.contains(&(row.id, n)));
        if !replayed || owner.is_some_and(|o| o.orderly) {
            self.violated(1, format!("{name}: a bearer session ended as stolen; presented {m} at {n}"));
        }
    }

    /// The journal tells what the row says (at the end of a run; `events` newest first).
    pub(super) fn journal(&mut self, row: &Session, events: &[Event]) {
        let name = self.name(row.id);
        let (mut reached, mut started, mut end) = (0, false, None);
        for event in events.iter().rev() {
            match (event.kind, event.outcome) {
                (EventKind::Start, _) => started = true,
                (EventKind::Refresh | EventKind::Elevate, Some(Outcome::Advanced)) => {
                    if event.generation != reached + 1 {
                        self.violated(
                            8,
                            format!("{name}: from {reached} the journal advances to {}", event.generation),
                        );
                    }
                    reached = event.generation;
                }
                (EventKind::Refresh, Some(Outcome::FastForwarded)) => {
                    if event.presented_generation != Some(event.generation) || event.generation <= reached {
                        self.violated(8, format!("{name}: from {reached} fast-forward to {}", event.generation));
                    }
                    (reached, end) = (event.generation, None);
                }
                (EventKind::End, _) => end = event.reason,
                _ => {}
            }
        }
        if !started || reached != row.position.generation || end != row.ended.map(|e| e.reason) {
            let row = (row.position.generation, row.ended.map(|e| e.reason));
            self.violated(8, format!("{name}: the journal says {:?}, the row {row:?}", (started, reached, end)));
        }
    }
}
