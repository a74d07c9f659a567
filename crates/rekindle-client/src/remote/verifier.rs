//! Access tokens, verified here: keys fetched ahead, the revocation feed followed, generations reported in batches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use rekindle::{
    access::{AccessRefusal, Expected, Verified, VerifiedCache},
    clock::{Seconds, Timestamp},
    engine::TokenRefusal,
    keys::KeyRing,
    session::SessionId,
};
use reqwest::Method;
use serde_json::value::RawValue;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::{
    Repeat, Servers,
    revoked::{Objection, Revoked},
};
use crate::{
    handle::Place,
    problem::{Code, Problem},
    session::Token,
    watch::{Condition, Feed},
};

/// How old the keys may become: a new one is published a day before it signs.
const KEYS_EVERY: Duration = Duration::from_secs(300);

/// How long to wait after a fetch of keys that failed.
const KEYS_AGAIN: Duration = Duration::from_secs(1);

/// How long after one fetch of keys the next one begins at the earliest.
const KEYS_APART: Duration = Duration::from_millis(100);

/// How often generations that were seen in use are reported.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// More are not kept: reports may be lost, memory may not.
const MAX_REPORTS: usize = 100_000;

/// How many are reported at once.
const REPORT_SIZE: usize = 1000;

/// How long the feed is waited for: so often is it known that it still answers.
const FEED_WAITS: Seconds = Seconds(1);

/// How long to wait after the feed failed.
const FEED_AGAIN: Duration = Duration::from_millis(200);

pub(super) struct Verifier {
    place: Place,
    issuer: String,
    audience: String,
    keys: ArcSwapOption<KeyRing>,
    /// One fetch at a time; when the last one began, and what came of it.
    fetched: tokio::sync::Mutex<Option<(Instant, Result<(), Problem>)>>,
    cache: VerifiedCache,
    revoked: Revoked,
    /// The newest generation of each session that was seen in use and is not reported yet.
    seen: Mutex<HashMap<SessionId, u32>>,
}

impl Verifier {
    pub(super) fn new(place: Place, issuer: String, audience: String, cache: u64) -> Self {
        Self {
            place,
            issuer,
            audience,
            keys: ArcSwapOption::empty(),
            fetched: tokio::sync::Mutex::default(),
            cache: VerifiedCache::new(cache),
            revoked: Revoked::default(),
            seen: Mutex::default(),
        }
    }

    pub(super) fn lacks_key_of(&self, token: &Token) -> bool {
        self.keys.load().as_ref().is_none_or(|ring| ring.lacks_key_of(token.expose()))
    }

    /// By signature, times and what the feed told.
    pub(super) fn verify(&self, token: &Token, now: Timestamp) -> Result<Arc<Verified>, Problem> {
        let keys = self.keys.load();
        let Some(ring) = keys.as_ref() else {
            return Err(Problem::new(Code::Unavailable, "the keys of access tokens could not be fetched yet"));
        };
        let (scope, tag) = (&self.place.scope, Some(&self.place.tag));
        let expected = Expected { scope, issuer: &self.issuer, audience: &self.audience, tag };
        let verified = self.cache.verify(token.expose(), ring, &expected, now).map_err(|refusal| {
            let is_elsewhere = matches!(refusal, AccessRefusal::ScopeMismatch);
            match Problem::refused(refusal.into()) {
                problem if is_elsewhere => Problem::new(
                    problem.code(),
                    format!(
                        "this access token is not of {scope}, tag `{}`, issuer `{}` and audience `{}`; if it should be, correct \
                         `issuer` and `audience`",
                        self.place.tag, self.issuer, self.audience
                    ),
                ),
                problem => problem,
            }
        })?;
        match self.revoked.objection(verified.session, verified.generation) {
            None => Ok(verified),
            Some(Objection::Elevated) => Err(Problem::refused(TokenRefusal::AccessExpired)),
            Some(Objection::Ended) => {
                Err(Problem::refused(TokenRefusal::Revoked(None)).about_token(verified.session, verified.generation))
            }
        }
    }

    /// Has the generation of a token that asks for it reported.
    pub(super) fn note_use(&self, verified: &Verified) {
        if verified.take_confirmation() {
            self.queue([(verified.session, verified.generation)]);
        }
    }

    fn queue(&self, seen: impl IntoIterator<Item = (SessionId, u32)>) {
        let mut waiting = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, generation) in seen {
            let room = waiting.len() < MAX_REPORTS;
            if waiting.get(&id).map_or(room, |known| *known < generation) {
                waiting.insert(id, generation);
            }
        }
    }

    fn take_seen(&self) -> Vec<(SessionId, u32)> {
        let mut waiting = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<SessionId> = waiting.keys().copied().take(REPORT_SIZE).collect();
        ids.into_iter().filter_map(|id| waiting.remove_entry(&id)).collect()
    }
}

impl Servers {
    /// Fetches the keys for a token that names one that is not known: another server may have made it a moment ago. Those that ask
    /// at once share the answer, and fetches keep a distance, so that forged tokens cannot cause many.
    pub(super) async fn fetch_keys(&self) -> Result<(), Problem> {
        let asked_at = Instant::now();
        let mut fetched = self.verifier.fetched.lock().await;
        if let Some((_, outcome)) = fetched.as_ref().filter(|(begun, _)| *begun >= asked_at) {
            return outcome.clone();
        }
        if let Some((begun, _)) = *fetched {
            sleep_until(begun + KEYS_APART).await;
        }
        let begun = Instant::now();
        let outcome = self.fetch_keys_now().await;
        *fetched = Some((begun, outcome.clone()));
        outcome
    }

    async fn fetch_keys_now(&self) -> Result<(), Problem> {
        let jwks: Box<RawValue> = self.transport.ask(self.call(Method::GET, "jwks.json", Repeat::Safe)).await?;
        let earlier = self.verifier.keys.load_full();
        let ring = KeyRing::of_jwks(self.place.scope.clone(), jwks.get(), earlier.as_deref())
            .map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        self.verifier.keys.store(Some(Arc::new(ring)));
        Ok(())
    }

    /// Keeps the keys fresh. In an outage the old ones stay.
    pub(super) async fn keep_keys(self: Arc<Self>) {
        let mut condition = Condition::of("fetching the keys of access tokens");
        loop {
            let pause = if condition.note(self.fetch_keys().await).is_some() { KEYS_EVERY } else { KEYS_AGAIN };
            sleep(pause).await;
        }
    }

    /// Learns what is revoked, a moment after it was.
    pub(super) async fn follow_feed(self: Arc<Self>) {
        let mut condition = Condition::of("following revocations");
        // The first time at once: nothing is known before.
        let (mut since, mut wait) = (0, Seconds(0));
        loop {
            let asked_at = Instant::now();
            match condition.note(self.revocations(since, wait).await) {
                Some(Feed { entries, next }) => {
                    let whole = entries.len() < super::FEED_PAGE as usize;
                    self.verifier.revoked.take_in(&entries, self.now());
                    self.watch.take_in(&entries, whole.then_some(asked_at));
                    (since, wait) = (next, FEED_WAITS);
                }
                None => sleep(FEED_AGAIN).await,
            }
        }
    }

    /// Reports the generations that were seen in use.
    pub(super) async fn report_seen(self: Arc<Self>) {
        let mut condition = Condition::of("reporting generations in use");
        loop {
            sleep(REPORT_EVERY).await;
            let seen = self.verifier.take_seen();
            if !seen.is_empty() && condition.note(self.confirm(seen.clone()).await).is_none() {
                self.verifier.queue(seen);
            }
        }
    }
}
