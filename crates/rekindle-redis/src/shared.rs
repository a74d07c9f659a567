//! The feed and the outbox: each in one slot, read by all servers.

use rekindle::clock::Timestamp;
use rekindle::journal::{Event, EventId};
use rekindle::session::Scope;
use rekindle::store::*;

use crate::Inner;
use crate::effects::{Entry, SavedScope};
use crate::keys::hex;
use crate::scripts::{OUTBOX_SETTLE, OUTBOX_TAKE};
use crate::sessions::StreamEntry;

/// How many digits a group in the outbox has.
const GROUP: usize = 32;
/// How many entries are read at once.
pub(crate) const PAGE: usize = 1000;

impl Inner {
    pub(crate) async fn revocations(
        &self,
        scope: Option<&Scope>,
        after: u64,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<Revocation>> {
        let mut after = after;
        let mut live = Vec::new();
        while live.len() < limit as usize {
            let count = (limit as usize).clamp(1, PAGE);
            let page = self.feed_page(after, count).await?;
            let at_end = page.len() < count;
            if let Some(last) = page.last() {
                after = last.seq;
            }
            let concerns = |r: &Revocation| r.expires_at > now && scope.is_none_or(|s| *s == r.scope);
            live.extend(page.into_iter().filter(concerns));
            if at_end {
                break;
            }
        }
        live.truncate(limit as usize);
        Ok(live)
    }

    /// Entries of the feed after a number, whether they have expired or not.
    pub(crate) async fn feed_page(&self, after: u64, count: usize) -> StoreResult<Vec<Revocation>> {
        let [entries, ..] = self.keys.feed();
        let mut page = redis::cmd("XRANGE");
        page.arg(entries).arg(format!("({after}-0")).arg("+").arg("COUNT").arg(count);
        let page: Vec<StreamEntry> = self.link.query(&page).await?;
        let read = |(id, mut fields): StreamEntry| {
            let read = || {
                let seq = id.strip_suffix("-0")?.parse().ok()?;
                serde_json::from_slice::<Entry>(&fields.pop()?).ok()?.revocation(seq)
            };
            let read: Option<Revocation> = { read }();
            read.ok_or(StoreError::Corrupt { table: "feed", column: "entry", id })
        };
        page.into_iter().map(read).collect()
    }

    /// Removes a deleted scope's entries from the feed.
    pub(crate) async fn forget_revocations(&self, scope: &Scope) -> StoreResult<()> {
        let [entries, ..] = self.keys.feed();
        let mut after = 0;
        loop {
            let page = self.feed_page(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            let ids: Vec<String> = page.iter().filter(|r| r.scope == *scope).map(|r| format!("{}-0", r.seq)).collect();
            if !ids.is_empty() {
                self.link.write::<()>(redis::cmd("XDEL").arg(&entries).arg(ids), &entries).await?;
            }
        }
    }

    pub(crate) async fn take_notifications(
        &self,
        now: Timestamp,
        lease: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<Notification>> {
        let call = OUTBOX_TAKE.on(&self.keys.outbox()).arg(now.millis()).arg(lease.millis()).arg(limit);
        let taken: Vec<(u32, Vec<u8>)> = self.link.run(&call).await?;
        taken
            .into_iter()
            .map(|(attempts, text)| {
                let (scope, event) = read_notification(&text)?;
                Ok(Notification { scope, event, attempts })
            })
            .collect()
    }

    pub(crate) async fn settle_notification(&self, id: EventId, retry_at: Option<Timestamp>) -> StoreResult<()> {
        let retry_at = retry_at.map(|at| at.millis().to_string()).unwrap_or_default();
        let id = hex(&id.to_bytes());
        self.link.run(&OUTBOX_SETTLE.on(&self.keys.outbox()).arg(id).arg(retry_at).arg(GROUP)).await
    }

    /// Removes a deleted scope's notifications from the outbox.
    pub(crate) async fn forget_notifications(&self, scope: &Scope) -> StoreResult<()> {
        let [events, ..] = self.keys.outbox();
        let mut cursor = 0u64;
        loop {
            let (next, fields) = self.scan(&events, cursor).await?;
            for (_, text) in &fields {
                let (of, event) = read_notification(text)?;
                if of == *scope {
                    self.settle_notification(event.id, None).await?;
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// Some fields of a hash with their values, and the cursor of the next; at the end it is 0.
    pub(crate) async fn scan(&self, key: &str, cursor: u64) -> StoreResult<(u64, Vec<(Vec<u8>, Vec<u8>)>)> {
        self.link.query(redis::cmd("HSCAN").arg(key).arg(cursor).arg("COUNT").arg(PAGE)).await
    }
}

pub(crate) fn read_notification(text: &[u8]) -> StoreResult<(Scope, Event)> {
    let read = || {
        let (scope, event): (SavedScope, Event) = serde_json::from_slice(text.get(GROUP..)?).ok()?;
        Some((scope.scope()?, event))
    };
    let id = || String::from_utf8_lossy(text.get(..GROUP).unwrap_or_default()).into_owned();
    read().ok_or_else(|| StoreError::Corrupt { table: "outbox", column: "event", id: id() })
}
