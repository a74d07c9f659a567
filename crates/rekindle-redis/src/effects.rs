//! What a write of one slot entails in others: entries of the feed, of the outbox and of the audit log.
//!
//! The script that writes a row (or a user) notes these effects beside it, in the field `out`; then they are carried out,
//! each of which may be done twice, and the note is removed. Only then is the write answered. Whoever reads a row with a note,
//! because the writer died or is at it, carries it out before anything else.

use rekindle::clock::Timestamp;
use rekindle::journal::{Event, EventId};
use rekindle::session::{EndReason, Scope, SessionId};
use rekindle::store::*;
use serde::{Deserialize, Serialize};

use crate::keys::hex;
use crate::row::{Row, json};
use crate::scripts::{ADD, Call, OUTBOX_ADD, PUBLISH, SETTLE};
use crate::{Inner, each};

/// How many entries one script writes at most.
pub(crate) const BATCH: usize = 200;

/// Something to be done in another slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Effect {
    /// Append to the feed, unless the session's entry of that event is there.
    Publish { event: EventId, entry: Entry },
    /// Put into the outbox, unless the event is there.
    Notify { scope: SavedScope, event: Event },
    /// Append to the audit log, unless it is there.
    Audit(AuditEntry),
}

/// An entry of the feed as it is kept; its number is its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    scope: SavedScope,
    session_id: SessionId,
    at: i64,
    expires_at: i64,
    what: Saved,
}

/// See [`Revoked`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Saved {
    Ended(EndReason, i64),
    Below(u32),
}

/// A scope as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedScope(String);

impl SavedScope {
    pub(crate) fn new(scope: &Scope) -> Self {
        Self(scope.to_string())
    }

    pub(crate) fn scope(&self) -> Option<Scope> {
        crate::row::parse_scope(&self.0)
    }
}

impl Effect {
    pub(crate) fn publish(
        event: EventId,
        scope: &Scope,
        id: SessionId,
        what: Revoked,
        at: Timestamp,
        until: Timestamp,
    ) -> Self {
        Self::Publish { event, entry: Entry::new(scope, id, what, at, until) }
    }

    /// The notification of an event that wishes one.
    pub(crate) fn of_event(scope: &Scope, event: &Event) -> Option<Self> {
        event.notify.then(|| Self::Notify { scope: SavedScope::new(scope), event: event.clone() })
    }
}

impl Entry {
    pub(crate) fn new(scope: &Scope, id: SessionId, what: Revoked, at: Timestamp, until: Timestamp) -> Self {
        let what = match what {
            Revoked::Ended { reason, expires_at } => Saved::Ended(reason, expires_at.millis()),
            Revoked::Below(generation) => Saved::Below(generation),
        };
        let (at, expires_at) = (at.millis(), until.millis());
        Self { scope: SavedScope::new(scope), session_id: id, at, expires_at, what }
    }

    /// The entry under its number, if it can be.
    pub(crate) fn revocation(self, seq: u64) -> Option<Revocation> {
        let what = match self.what {
            Saved::Ended(reason, expires_at) => {
                Revoked::Ended { reason, expires_at: Timestamp::from_millis(expires_at) }
            }
            Saved::Below(generation) => Revoked::Below(generation),
        };
        Some(Revocation {
            seq,
            scope: self.scope.scope()?,
            session_id: self.session_id,
            what,
            at: Timestamp::from_millis(self.at),
            expires_at: Timestamp::from_millis(self.expires_at),
        })
    }
}

/// The value of `out`: a line for each effect.
pub(crate) fn lines(effects: &[Effect]) -> String {
    effects.iter().map(|effect| json(effect) + "\n").collect()
}

/// Effects that were noted under a key.
pub(crate) struct Noted {
    key: String,
    out: String,
}

impl Noted {
    pub(crate) fn new(key: String, out: String) -> Self {
        Self { key, out }
    }
}

impl Inner {
    /// What is noted beside a row.
    pub(crate) fn noted(&self, row: &Row) -> Option<Noted> {
        let out = row.out.clone();
        (!out.is_empty()).then(|| Noted { key: self.keys.row(row.session.id), out })
    }

    /// Carries out what is noted beside a row.
    pub(crate) async fn settle_row(&self, row: &Row) -> StoreResult<()> {
        self.settle(self.noted(row).into_iter().collect()).await
    }

    pub(crate) async fn settle_out(&self, key: String, out: String) -> StoreResult<()> {
        self.settle(vec![Noted { key, out }]).await
    }

    /// Carries out effects in their order, then removes their notes.
    pub(crate) async fn settle(&self, noted: Vec<Noted>) -> StoreResult<()> {
        let mut effects = Vec::new();
        for note in &noted {
            for line in note.out.lines() {
                effects.push(serde_json::from_str(line).map_err(|_| StoreError::Corrupt {
                    table: "out",
                    column: "effect",
                    id: note.key.clone(),
                })?);
            }
        }
        self.carry_out(&effects).await?;
        let settling =
            noted.iter().map(|note| async move { self.link.run::<()>(&SETTLE.on(&[&note.key]).arg(&note.out)).await });
        each(settling).await.map(drop)
    }

    async fn carry_out(&self, effects: &[Effect]) -> StoreResult<()> {
        for batch in effects.chunks(BATCH) {
            for call in self.calls(batch) {
                if call.says_something() {
                    self.link.run::<()>(&call).await?;
                }
            }
        }
        Ok(())
    }

    /// The calls that carry out effects, in this order: of [`PUBLISH`], of [`OUTBOX_ADD`], and of [`ADD`] for the audit log.
    pub(crate) fn calls(&self, effects: &[Effect]) -> [Call; 3] {
        let mut publish = PUBLISH.on(&self.keys.feed());
        let mut notify = OUTBOX_ADD.on(&self.keys.outbox());
        let mut audit = ADD.on(&[self.keys.audit()]);
        for effect in effects {
            match effect {
                Effect::Publish { event, entry } => {
                    publish.push(format!("{}/{}", hex(&event.to_bytes()), entry.session_id));
                    publish.push(Revocation::next_seq(0, Timestamp::from_millis(entry.at)));
                    publish.push(entry.expires_at);
                    publish.push(json(entry));
                }
                Effect::Notify { scope, event } => push_notification(&mut notify, scope, event, event.at),
                Effect::Audit(entry) => audit.push(audit_member(entry).as_slice()),
            }
        }
        [publish, notify, audit]
    }
}

/// Adds a notification to a call of [`OUTBOX_ADD`].
pub(crate) fn push_notification(call: &mut Call, scope: &SavedScope, event: &Event, due: Timestamp) {
    call.push(hex(&event.id.to_bytes()));
    // An event of no session is a group of its own.
    call.push(event.session_id.map_or(hex(&event.id.to_bytes()), |id| hex(&id.to_bytes())));
    call.push(due.millis());
    call.push(json(&(scope, event)));
}

/// An entry of the audit log as a member of its sorted set: ids sort by their bytes.
pub(crate) fn audit_member(entry: &AuditEntry) -> Vec<u8> {
    let mut member = entry.id.to_bytes().to_vec();
    member.extend_from_slice(json(entry).as_bytes());
    member
}
