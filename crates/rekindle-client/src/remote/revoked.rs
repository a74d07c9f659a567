//! Which access tokens are no longer good, as far as the feed has told.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use rekindle::{clock::Timestamp, session::SessionId};

use crate::watch::Revocation;

/// What the feed has told, until it no longer matters.
#[derive(Default)]
pub(super) struct Revoked(RwLock<HashMap<SessionId, (Option<u32>, Timestamp)>>);

/// What the feed has told against a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Objection {
    Ended,
    /// The session was elevated since; it lives, and a refresh gets a token that counts.
    Elevated,
}

impl Revoked {
    pub(super) fn take_in(&self, entries: &[Revocation], now: Timestamp) {
        if entries.is_empty() {
            return;
        }
        let mut revoked = self.0.write().unwrap_or_else(PoisonError::into_inner);
        revoked.retain(|_, (_, until)| *until > now);
        for entry in entries {
            let known = revoked.entry(entry.session_id).or_insert((entry.below_generation, entry.expires_at));
            let below = known.0.zip(entry.below_generation).map(|(a, b)| a.max(b));
            *known = (below, known.1.max(entry.expires_at));
        }
    }

    /// Whether a token of this session and generation was revoked.
    pub(super) fn objection(&self, id: SessionId, generation: u32) -> Option<Objection> {
        let revoked = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match revoked.get(&id)?.0 {
            None => Some(Objection::Ended),
            Some(below) if generation < below => Some(Objection::Elevated),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle::clock::Seconds;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn entry(id: u8, below_generation: Option<u32>) -> Revocation {
        let session_id = SessionId::from_bytes([id; 16]);
        Revocation { session_id, at: NOW, expires_at: NOW + Seconds(60), below_generation }
    }

    #[test]
    fn an_end_outlasts_an_elevation_and_both_are_forgotten_in_time() {
        let revoked = Revoked::default();
        let id = SessionId::from_bytes([1; 16]);
        revoked.take_in(&[entry(1, Some(3))], NOW);
        assert_eq!(revoked.objection(id, 2), Some(Objection::Elevated));
        assert_eq!(revoked.objection(id, 3), None);
        revoked.take_in(&[entry(1, None), entry(1, Some(9))], NOW);
        assert_eq!(revoked.objection(id, 9), Some(Objection::Ended));
        revoked.take_in(&[entry(2, None)], NOW + Seconds(60));
        assert_eq!(revoked.objection(id, 9), None);
    }
}
