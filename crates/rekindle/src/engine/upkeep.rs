//! What has to be done now and then, without a request: the engine has no threads of its own.

use std::collections::HashSet;
use std::sync::PoisonError;

use super::{Engine, Error};
use crate::clock::{Seconds, Timestamp};
use crate::journal::{Context, EventKind};
use crate::keys::Algorithm;
use crate::session::{EndReason, Scope, SessionId, Tag};
use crate::store::{Ending, ScopeRead, StoreError, Sweep, Swept};

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
    keys: Option<Timestamp>,
    sweep: Option<Timestamp>,
    sweep_after: Option<SessionId>,
}

/// How often the signing keys' schedule is looked at.
const KEYS_EVERY: Seconds = Seconds(60);

/// How many feed entries are read at a time.
const FEED_PAGE: u32 = 1000;

impl Engine {
    /// Does what is due. Call it about every half second; that is the bound within which another server's revocations are
    /// known here, and within which generations seen in use are written down.
    pub async fn upkeep(&self) -> Result<Upkeep, Error> {
        let mut done = Upkeep::default();
        // First what protects users; a log that cannot be written must not keep the rest from being done.
        done.revocations = self.read_feed().await?;
        let logged = self.write_log(Vec::new()).await;
        done.confirmed = self.write_confirmations().await?;
        let now = self.now();
        if self.due(|s| &mut s.keys, KEYS_EVERY, now) {
            (done.keys_added, done.keys_removed) = self.keep_keys(now).await?;
        }
        if self.due(|s| &mut s.sweep, self.inner.settings.sweep_every, now) {
            done.swept = self.sweep(now).await?;
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
        let used: HashSet<Algorithm> = state.algorithms().collect();
        let (mut added, mut retired) = (0, Vec::new());
        for algorithm in Algorithm::ALL {
            let upkeep = state.keys.upkeep(algorithm, now);
            retired.extend(upkeep.delete);
            if let Some(successor) = upkeep.add
                && used.contains(&algorithm)
                && self.add_key(scope, algorithm, successor, now).await?
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

    async fn write_confirmations(&self) -> Result<usize, Error> {
        let confirmations = self.take_confirmations();
        let count = confirmations.len();
        if count > 0 {
            self.inner.store.confirm(confirmations).await?;
        }
        Ok(count)
    }

    /// Learns what other servers ended.
    pub(super) async fn read_feed(&self) -> Result<usize, StoreError> {
        let now = self.now();
        let mut learnt = 0;
        loop {
            let seen = self.inner.revoked.read().unwrap_or_else(PoisonError::into_inner).seen;
            let page = self.inner.store.revocations(None, seen, now, FEED_PAGE).await?;
            let mut revoked = self.inner.revoked.write().unwrap_or_else(PoisonError::into_inner);
            for entry in &page {
                revoked.insert(entry.session_id, entry.below_generation, entry.expires_at);
                revoked.seen = entry.seq;
            }
            learnt += page.len();
            if page.len() < FEED_PAGE as usize {
                revoked.forget_until(now);
                return Ok(learnt);
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
