//! What has to be done now and then, without a request: the engine has no threads of its own.

use std::collections::{BTreeMap, HashSet};
use std::sync::PoisonError;

use super::verify::Seen;
use super::{Engine, Error};
use crate::clock::{Seconds, Timestamp};
use crate::journal::{Context, EventKind};
use crate::keys::Chain;
use crate::session::{EndReason, Scope, SessionId, Tag};
use crate::store::{EndedSession, Ending, Revocation, ScopeRead, StoreError, Sweep, Swept};

/// What one call of [`Engine::upkeep`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Generations that were written down as confirmed.
    pub confirmed: usize,
    /// Revocations of other servers that were learnt.
    pub revocations: usize,
    /// Signing keys that were made.
    pub keys_added: usize,
    /// Signing keys that were removed.
    pub keys_removed: usize,
    /// What was swept.
    pub swept: Swept,
}

/// When what was last done, and where the sweep stands.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    log: Option<Timestamp>,
    keys: Option<Timestamp>,
    sweep: Option<Timestamp>,
    sweep_after: Option<SessionId>,
}

/// How often the revocation log is rid of what expired.
const LOG_EVERY: Seconds = Seconds(60);

/// How many feed entries are read at a time.
const FEED_PAGE: u32 = 1000;

impl Engine {
    /// Does what is due. Call it about every half second; that is the bound within which another server's revocations are
    /// known here, and within which generations seen in use are written down.
    pub async fn upkeep(&self) -> Result<Upkeep, Error> {
        // First what protects users; a log that cannot be written must not keep the rest from being done.
        let (revocations, logged) = self.read_feed().await?;
        let mut done = Upkeep { revocations, ..Upkeep::default() };
        done.confirmed = self.flush_confirmations().await?;
        let now = self.now();
        if self.due(|s| &mut s.keys, self.inner.settings.keys_every, now) {
            (done.keys_added, done.keys_removed) = self.keep_keys(now).await?;
        }
        if self.due(|s| &mut s.sweep, self.inner.settings.sweep_every, now) {
            done.swept = self.sweep(now).await?;
        }
        if self.due(|s| &mut s.log, LOG_EVERY, now) {
            self.inner.log.compact(now).await.map_err(|e| Error::Log(e.to_string()))?;
        }
        logged.map(|()| done)
    }

    /// Works through one slice of the sessions: notes natural ends, removes what ended longer ago than the retention.
    pub async fn sweep(&self, now: Timestamp) -> Result<Swept, Error> {
        let settings = &self.inner.settings;
        let ctx = Context::default();
        // Natural ends revoke nothing that a verifier would not see by itself: no feed entry is written for them.
        let event = self.event(&ctx, now, EventKind::End);
        let ending = Ending { at: now, reason: EndReason::Idle, feed_until: now, event };
        let after = self.schedule(|s| s.sweep_after);
        let notify: Vec<Tag> = settings
            .notify
            .iter()
            .filter(|(_, kinds)| kinds.contains(&EventKind::End))
            .map(|(product, _)| product.clone())
            .collect();
        let sweep = Sweep { now, retention: settings.retention, after, budget: settings.sweep_budget, ending, notify };
        let swept = self.inner.store.sweep(sweep).await?;
        self.schedule(|s| s.sweep_after = swept.next);
        Ok(swept)
    }

    /// Makes due signing keys and removes retired ones, in every scope; moves private keys to the current master secret.
    pub async fn keep_keys(&self, now: Timestamp) -> Result<(usize, usize), Error> {
        let (mut added, mut removed) = (0, 0);
        for product in self.inner.store.products().await? {
            let tag = &product.product.tag;
            for environment in &product.environments {
                let scope = Scope { product: tag.clone(), env: environment.slug.clone() };
                let (more, fewer) = self.keep_scope_keys(&scope, now).await?;
                added += more;
                removed += fewer;
            }
        }
        Ok((added, removed))
    }

    async fn keep_scope_keys(&self, scope: &Scope, now: Timestamp) -> Result<(usize, usize), Error> {
        self.rewrap_keys(scope).await?;
        let state = self.scope(scope).await?;
        let used: HashSet<Chain> = state.chains().collect();
        let (mut added, mut retired) = (0, Vec::new());
        for chain in Chain::ALL {
            let upkeep = state.keys.upkeep(chain, now);
            retired.extend(upkeep.delete);
            if let Some(successor) = upkeep.add
                && used.contains(&chain)
                && self.add_key(scope, chain, successor, now).await?
            {
                added += 1;
            }
        }
        let removed = retired.len();
        if removed > 0 {
            self.inner.store.remove_signing_keys(retired).await?;
            self.recheck_config();
        }
        Ok((added, removed))
    }

    async fn rewrap_keys(&self, scope: &Scope) -> Result<(), Error> {
        let ScopeRead::Found(record) = self.inner.store.scope(scope).await? else { return Ok(()) };
        // A key that this server cannot decrypt is reported where it is needed; it must not stop the others.
        let rewrapped: Vec<_> =
            record.keys.iter().filter_map(|key| key.rewrapped(&self.inner.secrets).ok().flatten()).collect();
        if !rewrapped.is_empty() {
            self.inner.store.rewrap_signing_keys(rewrapped).await?;
            self.recheck_config();
        }
        Ok(())
    }

    /// Learns what other servers ended, and what this one ended without learning it: an answer that was lost. How much it was;
    /// and whether the revocation log has all of it.
    ///
    /// What must be in the feed and is not, the store has lost: it is ended again, from what the log knows.
    pub(super) async fn read_feed(&self) -> Result<(usize, Result<(), Error>), StoreError> {
        // Both at once: what was acknowledged is behind the place from which this call reads, wherever another one is by now.
        let (mut acknowledged, seen) = self.revoked(|r| (std::mem::take(&mut r.acknowledged), r.seen));
        let read = self.read_pages(seen, &mut acknowledged).await;
        if read.is_err() {
            self.revoked(|r| r.acknowledged.extend(acknowledged));
            return read;
        }
        while let Some(lost) = acknowledged.values().next().copied() {
            if let Err(error) = self.end_again(lost).await {
                self.revoked(|r| r.acknowledged.extend(acknowledged));
                return Err(error);
            }
            acknowledged.remove(&lost.id);
        }
        read
    }

    /// Reads the feed from `seen` to its end, and takes what it meets out of `acknowledged`.
    async fn read_pages(
        &self,
        mut seen: Seen,
        acknowledged: &mut BTreeMap<SessionId, EndedSession>,
    ) -> Result<(usize, Result<(), Error>), StoreError> {
        let now = self.now();
        let (mut learnt, mut logged) = (0, Ok(()));
        loop {
            let (last, told_until) = seen;
            // With the last one that was read: as long as it is told, nothing before it was lost.
            let mut page = self.inner.store.revocations(None, last.saturating_sub(1), now, FEED_PAGE).await?;
            let whole = page.len() < FEED_PAGE as usize;
            if page.first().is_some_and(|first| first.seq == last) {
                page.remove(0);
            } else if now < told_until {
                // The feed is read anew before anything is mended: what the log knows and it does not tell was lost.
                acknowledged.extend(self.inner.log.endings().into_iter().map(|e| (e.id, e)));
                seen = Seen::default();
                self.revoked(|r| r.seen = seen);
                continue;
            }
            self.revoked(|r| page.iter().for_each(|e| r.insert(e.session_id, e.below_generation(), e.expires_at)));
            let endings: Vec<EndedSession> = page.iter().filter_map(Revocation::ended).collect();
            for met in &endings {
                acknowledged.remove(&met.id);
            }
            let unknown = endings.into_iter().filter(|e| self.inner.log.ended(e.id).is_none()).collect();
            logged = self.write_log(unknown).await.and(logged);
            // Only now: whoever finds an entry read goes on as if it were in the log, or waiting for it.
            seen = page.last().map_or(seen, |e| (e.seq, e.expires_at));
            self.revoked(|r| r.seen = r.seen.max(seen));
            learnt += page.len();
            if whole {
                self.revoked(|r| r.forget_until(now));
                return Ok((learnt, logged));
            }
        }
    }

    /// Whether something is due; if so, it counts as done from `now`.
    fn due(&self, which: fn(&mut Schedule) -> &mut Option<Timestamp>, every: Seconds, now: Timestamp) -> bool {
        self.schedule(|schedule| {
            let last = which(schedule);
            let due = last.is_none_or(|last| now >= last + every || now < last);
            if due {
                *last = Some(now);
            }
            due
        })
    }

    fn schedule<T>(&self, with: impl FnOnce(&mut Schedule) -> T) -> T {
        with(&mut self.inner.upkeep.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
