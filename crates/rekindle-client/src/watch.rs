//! What is known of revocations, since when, and who is told of them.

use std::fmt;
use std::sync::{Mutex, PoisonError, RwLock};

use rekindle::{clock::Timestamp, session::SessionId, store};
use serde::Deserialize;
use tokio::time::{Duration, Instant};

use crate::{
    handle::Rekindle,
    problem::{Code, Problem},
};

/// Access tokens that are no longer good though they have not expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Revocation {
    /// Of which session.
    pub session_id: SessionId,
    /// Since when.
    pub at: Timestamp,
    /// From then on all of them have expired.
    pub expires_at: Timestamp,
    /// Only those of generations before this one: the session was elevated. `None`: all of them, the session has ended.
    #[serde(default)]
    pub below_generation: Option<u32>,
}

impl From<&store::Revocation> for Revocation {
    fn from(revocation: &store::Revocation) -> Self {
        Self {
            session_id: revocation.session_id,
            at: revocation.at,
            expires_at: revocation.expires_at,
            below_generation: revocation.below_generation(),
        }
    }
}

/// A piece of the revocation feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The entries, oldest first.
    pub entries: Vec<Revocation>,
    /// Where the next piece starts.
    pub next: u64,
}

type Told = Box<dyn Fn(&Revocation) + Send + Sync>;

/// Who is told of revocations, and since when they are known.
#[derive(Default)]
pub(crate) struct Watch {
    listeners: RwLock<Vec<Told>>,
    /// When the feed last answered.
    answered: Mutex<Option<Instant>>,
}

impl Watch {
    /// Tells the listeners what the feed told; `whole_at` is when it was asked, if there was no more to tell.
    pub(crate) fn take_in(&self, entries: &[Revocation], whole_at: Option<Instant>) {
        if whole_at.is_some() {
            *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = whole_at;
        }
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().for_each(|entry| listeners.iter().for_each(|told| told(entry)));
    }

    pub(crate) fn on_revoked(&self, told: Told) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(told);
    }

    /// `unavailable`, unless the feed answered a moment before `now`.
    pub(crate) fn check_fresh(&self, now: Instant) -> Result<(), Problem> {
        let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = Duration::from_secs(Rekindle::STALE_AFTER.0);
        match answered.is_some_and(|at| now.saturating_duration_since(at) <= bound) {
            true => Ok(()),
            false => Err(Problem::new(Code::Unavailable, "it is not known at the moment which sessions have ended")),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch(…)")
    }
}

/// Tells of a failure when it begins and when it is over, and not each time in between.
pub(crate) struct Condition {
    what: &'static str,
    failing: bool,
}

impl Condition {
    pub(crate) const fn of(what: &'static str) -> Self {
        Self { what, failing: false }
    }

    /// Notes one outcome; gives back what succeeded.
    pub(crate) fn note<T, E: fmt::Display>(&mut self, outcome: Result<T, E>) -> Option<T> {
        match outcome {
            Ok(value) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("{} works again", self.what);
                }
                Some(value)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "{} fails, and is tried again until it works", self.what);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle::clock::Seconds;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn entry(id: u8, below_generation: Option<u32>) -> Revocation {
        let session_id = SessionId::from_bytes([id; 16]);
        Revocation { session_id, at: NOW, expires_at: NOW + Seconds(60), below_generation }
    }

    #[tokio::test]
    async fn it_is_stale_until_the_feed_answers_and_again_when_it_falls_silent() {
        let (watch, now) = (Watch::default(), Instant::now());
        assert_eq!(watch.check_fresh(now).unwrap_err().code(), Code::Unavailable);
        watch.take_in(&[], Some(now));
        assert!(watch.check_fresh(now + Duration::from_secs(3)).is_ok());
        assert!(watch.check_fresh(now + Duration::from_millis(3001)).is_err());
        watch.take_in(&[], None);
        assert!(watch.check_fresh(now + Duration::from_millis(3001)).is_err(), "there is more to be told");
    }

    #[tokio::test]
    async fn listeners_are_told_of_each_entry() {
        let watch = Watch::default();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        watch.on_revoked(Box::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        watch.take_in(&[entry(1, None), entry(2, Some(1))], None);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }
}
