//! Verifying access tokens, and confirming the generations of bearer sessions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use super::{Engine, Error, TokenRefusal};
use crate::access::{AccessRefusal, Verified};
use crate::clock::Timestamp;
use crate::rotation::Expiry;
use crate::session::{EndReason, Scope, Session, SessionId, Tag};
use crate::store::{Confirmation, EndedSession, StoreError};

/// What an access token is worth.
#[derive(Debug, Clone)]
pub enum VerifyOutcome {
    /// It is good.
    Active(Active),
    /// It is not.
    Inactive(TokenRefusal),
}

/// A session with a good access token.
#[derive(Debug, Clone)]
pub enum Active {
    /// What the token says.
    Token(Arc<Verified>),
    /// The row, read now.
    Row(Box<Session>),
}

/// More confirmations than this are not kept: they may be lost, memory may not.
const MAX_CONFIRMATIONS: usize = 100_000;

/// Endings and elevations whose access tokens may still live.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// Tokens of generations below this, or all of them; until when to remember.
    sessions: HashMap<SessionId, (Option<u32>, Timestamp)>,
    /// How far the store's feed was read.
    pub(super) seen: Seen,
    /// What this server ended since it last read the feed: the feed has to tell of it.
    pub(super) acknowledged: BTreeMap<SessionId, EndedSession>,
}

/// An entry of the feed: its number, and until when it is told.
pub(super) type Seen = (u64, Timestamp);

impl Revoked {
    pub(super) fn insert(&mut self, id: SessionId, below_generation: Option<u32>, until: Timestamp) {
        let entry = self.sessions.entry(id).or_insert((below_generation, until));
        let below = match (entry.0, below_generation) {
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        };
        *entry = (below, entry.1.max(until));
    }

    pub(super) fn forget_until(&mut self, now: Timestamp) {
        self.sessions.retain(|_, (_, until)| *until > now);
    }
}

impl Engine {
    /// Verifies an access token.
    ///
    /// Offline (`online: false`): by its signature, its times, and the revocations that this server knows of: its own at once,
    /// other servers' after [`Engine::upkeep`] has read the feed. Online: also against the session's row.
    pub async fn verify(
        &self,
        scope: &Scope,
        access_token: &str,
        tag: Option<&Tag>,
        online: bool,
    ) -> Result<VerifyOutcome, Error> {
        let state = self.scope_for(scope, access_token).await?;
        let now = self.now();
        let expected = state.expected(&self.inner.settings.issuer, tag);
        let verified = match self.inner.verified.verify(access_token, &state.keys, &expected, now) {
            Ok(verified) => verified,
            Err(refusal) => return Ok(VerifyOutcome::Inactive(refusal.into())),
        };
        if let Some(refusal) = self.known_revoked(&verified) {
            return Ok(VerifyOutcome::Inactive(refusal));
        }
        let active = if online {
            match self.verify_row(scope, &verified, now).await? {
                Ok(session) => Active::Row(Box::new(session)),
                Err(refusal) => return Ok(VerifyOutcome::Inactive(refusal)),
            }
        } else {
            Active::Token(Arc::clone(&verified))
        };
        if verified.take_confirmation() {
            let (session_id, generation) = (verified.session, verified.generation);
            self.queue_confirmation(Confirmation { scope: scope.clone(), session_id, generation });
        }
        Ok(VerifyOutcome::Active(active))
    }

    /// Takes reports of generations that were seen in use by other verifiers. Unknown, ended or moved-on sessions are ignored.
    pub async fn confirm(&self, scope: &Scope, seen: Vec<(SessionId, u32)>) -> Result<(), Error> {
        self.scope(scope).await?;
        let confirmations = seen
            .into_iter()
            .map(|(session_id, generation)| Confirmation { scope: scope.clone(), session_id, generation })
            .collect();
        Ok(self.inner.store.confirm(confirmations).await?)
    }

    /// The JWKS of a scope, as JSON text; it may be cached for [`crate::keys::MAX_KEYS_AGE`].
    pub async fn jwks(&self, scope: &Scope) -> Result<String, Error> {
        Ok(self.scope(scope).await?.keys.jwks(self.now()))
    }

    /// Reads an access token that may have expired, for signing out.
    pub(super) async fn read_access_token(
        &self,
        scope: &Scope,
        access_token: &str,
    ) -> Result<Result<Arc<Verified>, TokenRefusal>, Error> {
        let state = self.scope_for(scope, access_token).await?;
        let expected = state.expected(&self.inner.settings.issuer, None);
        Ok(match self.inner.verified.verify(access_token, &state.keys, &expected, self.now()) {
            Ok(verified) | Err(AccessRefusal::Expired(verified)) => Ok(verified),
            Err(refusal) => Err(refusal.into()),
        })
    }

    /// Writes down a generation that was seen in use, if one of this session waits to be; whether one did.
    pub(super) async fn flush_confirmation(&self, id: SessionId) -> Result<bool, Error> {
        let waiting = self.inner.confirmations.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let Some(confirmation) = waiting else { return Ok(false) };
        self.write_confirmations(vec![confirmation]).await?;
        Ok(true)
    }

    /// Writes down the generations that were seen in use; how many there were.
    pub(super) async fn flush_confirmations(&self) -> Result<usize, StoreError> {
        let waiting = {
            let mut waiting = self.inner.confirmations.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting).into_values().collect::<Vec<_>>()
        };
        let count = waiting.len();
        if count > 0 {
            self.write_confirmations(waiting).await?;
        }
        Ok(count)
    }

    /// What cannot be written waits again: a bearer session whose child was used must not take its parent back for that.
    async fn write_confirmations(&self, confirmations: Vec<Confirmation>) -> Result<(), StoreError> {
        let written = self.inner.store.confirm(confirmations.clone()).await;
        if written.is_err() {
            confirmations.into_iter().for_each(|confirmation| self.queue_confirmation(confirmation));
        }
        written
    }

    /// Makes a revocation known to this server's own verifiers.
    pub(super) fn note_revoked(&self, id: SessionId, below_generation: Option<u32>, until: Timestamp) {
        self.revoked(|r| r.insert(id, below_generation, until));
    }

    pub(super) fn revoked<T>(&self, with: impl FnOnce(&mut Revoked) -> T) -> T {
        with(&mut self.inner.revoked.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Of two generations of a session the newer one waits.
    fn queue_confirmation(&self, confirmation: Confirmation) {
        let mut waiting = self.inner.confirmations.lock().unwrap_or_else(PoisonError::into_inner);
        let id = confirmation.session_id;
        let room = waiting.len() < MAX_CONFIRMATIONS;
        if waiting.get(&id).map_or(room, |known| known.generation < confirmation.generation) {
            waiting.insert(id, confirmation);
        }
    }

    fn known_revoked(&self, verified: &Verified) -> Option<TokenRefusal> {
        let revoked = self.inner.revoked.read().unwrap_or_else(PoisonError::into_inner);
        match revoked.sessions.get(&verified.session)?.0 {
            None => Some(TokenRefusal::Revoked(None)),
            // An elevation: the session lives, a refresh gets a token that counts.
            Some(below) if verified.generation < below => Some(TokenRefusal::AccessExpired),
            Some(_) => None,
        }
    }

    async fn verify_row(
        &self,
        scope: &Scope,
        verified: &Verified,
        now: Timestamp,
    ) -> Result<Result<Session, TokenRefusal>, Error> {
        let Some(session) = self.session_by_log(verified.session).await? else {
            return Ok(Err(TokenRefusal::Expired(Expiry::Absolute)));
        };
        Ok(match session.end(now).map(|e| e.reason) {
            _ if session.scope != *scope => Err(TokenRefusal::ScopeMismatch),
            Some(EndReason::Idle) => Err(TokenRefusal::Expired(Expiry::Idle)),
            Some(EndReason::Absolute) => Err(TokenRefusal::Expired(Expiry::Absolute)),
            Some(reason) => Err(TokenRefusal::Revoked(Some(reason))),
            None if verified.generation < session.min_generation => Err(TokenRefusal::AccessExpired),
            None => Ok(session),
        })
    }
}

impl From<AccessRefusal> for TokenRefusal {
    fn from(refusal: AccessRefusal) -> Self {
        match refusal {
            AccessRefusal::Malformed => Self::Malformed,
            AccessRefusal::ScopeMismatch => Self::ScopeMismatch,
            AccessRefusal::Expired(_) | AccessRefusal::Withdrawn => Self::AccessExpired,
        }
    }
}
