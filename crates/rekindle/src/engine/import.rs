//! Sessions and signing keys of another system, taken over so that its clients need not sign in again.

use serde_json::{Map, Value};

use super::start::payload;
use super::{Engine, Error};
use crate::clock::Timestamp;
use crate::definition::Definition;
use crate::journal::{Context, EventKind};
use crate::keys::{Adopted, Chain, SigningKey};
use crate::refresh::Commitment;
use crate::rotation::Position;
use crate::session::{Auth, Client, EndReason, Scope, Session, SessionId, UserId};
use crate::store::{Start, Started};

/// A session that another system started.
#[derive(Debug, Clone)]
pub struct Import {
    /// Its id there.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// Its data.
    pub data: Map<String, Value>,
    /// The claims of its access tokens.
    pub claims: Map<String, Value>,
    /// When it was started.
    pub created_at: Timestamp,
    /// When it ends unless it is refreshed.
    pub idle_expires_at: Timestamp,
}

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// The session is there now.
    Created(Box<Session>),
    /// It was there: nothing was changed.
    Present(Box<Session>),
}

impl Engine {
    /// Where an imported session stands. The generation before stands for all that the other system had replaced.
    pub const IMPORTED_AT: u32 = 1;

    /// The row that an import leads to, at [`Engine::IMPORTED_AT`] and confirmed; of a definition with its version. Its absolute
    /// lifetime begins now, so that the move ends no session. Nothing is written.
    ///
    /// # Errors
    ///
    /// As for [`Engine::start`], about data and claims.
    pub fn imported(
        &self,
        scope: &Scope,
        (definition_version, definition): (u32, &Definition),
        import: Import,
    ) -> Result<Session, Error> {
        let (data, claims, _) = payload(definition, &import.data, &import.claims)?;
        let expires_at = self.now().max(import.created_at) + definition.refresh.absolute_lifetime.seconds();
        Ok(Session {
            id: import.id,
            scope: scope.clone(),
            tag: definition.tag.clone(),
            definition_version,
            user_id: import.user_id,
            position: Position {
                generation: Self::IMPORTED_AT,
                commitment: Commitment::NONE,
                issued_at: u32::try_from(import.created_at.secs()).unwrap_or_default(),
                kid: self.inner.secrets.current(),
            },
            confirmed: true,
            min_generation: 0,
            data,
            claims,
            version: 1,
            client: Client::default(),
            auth: Auth { time: import.created_at, acr: None, amr: Vec::new() },
            created_at: import.created_at,
            idle_expires_at: import.idle_expires_at.min(expires_at),
            expires_at,
            previous_session_id: None,
            ended: None,
        })
    }

    /// Adds what [`Engine::imported`] made, unless there is a session with its id. May be repeated.
    ///
    /// # Errors
    ///
    /// [`Error::UserBanned`].
    pub async fn import(&self, session: Session, ctx: &Context) -> Result<Imported, Error> {
        let (now, state) = (self.now(), self.active_scope(&session.scope).await?);
        let start = Start {
            idempotency: None,
            max_sessions: None,
            event: self.session_event(ctx, now, EventKind::Start, &session),
            ending: self.ending(ctx, now, EndReason::Replaced, &state),
            session: session.clone(),
        };
        match self.inner.store.start(start).await? {
            Started::Created(_) => Ok(Imported::Created(Box::new(session))),
            Started::Repeated(Some(present)) => Ok(Imported::Present(present)),
            Started::Banned(ban) => Err(Error::UserBanned(ban)),
            Started::Repeated(None)
            | Started::IdempotencyMismatch
            | Started::PreviousUnusable
            | Started::TooManySessions(_) => {
                Err(Error::Conflict(format!("session {} cannot be imported; repeat the import", session.id)))
            }
        }
    }

    /// Adds keys with which another system signed, in the order in which it made them, but for those that are there; how many it
    /// added.
    ///
    /// The last one of each chain signs from now on, because that system's clients know it. Of a chain that is replaced by
    /// schedule, a key of our own follows as after [`Engine::rotate_keys`]: others may know these.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] for what is no RS256 key.
    pub async fn adopt_keys(&self, scope: &Scope, keys: Vec<Adopted>, ctx: &Context) -> Result<usize, Error> {
        let mut added = Vec::new();
        for key in keys {
            self.recheck_config();
            let known = self.keys_of(scope).await?;
            if known.iter().any(|known| known.kid == key.kid) {
                continue;
            }
            let (now, state) = (self.now(), self.scope(scope).await?);
            let (kid, chain) = (key.kid.clone(), key.chain);
            let after = state.keys.rotation(chain, now, false).after;
            // Not at its creation: that would withdraw the keys before it.
            let signs_from = Timestamp::from_millis(now.millis() + 1 + i64::try_from(added.len()).unwrap_or(0));
            let key = SigningKey::adopt(key, scope.clone(), now, signs_from, &self.inner.secrets)
                .ok_or_else(|| Error::Key(format!("the key `{kid}` is not an RSA key of 2048 to 8192 bits")))?;
            if !self.inner.store.add_signing_key(key, after).await? {
                return Err(Error::Conflict(
                    "another server rotated the keys at the same time; repeat the import".into(),
                ));
            }
            added.push(chain);
        }
        self.recheck_config();
        if added.contains(&Chain::Dynamic) {
            let (now, state) = (self.now(), self.scope(scope).await?);
            let successor = state.keys.rotation(Chain::Dynamic, now, false);
            // Lost to another server's: then there is one.
            self.add_key(scope, Chain::Dynamic, successor, now).await?;
        }
        if !added.is_empty() {
            let entry = self.audit(ctx, "keys.adopt", scope.to_string());
            self.inner.store.append_audit(entry).await?;
        }
        Ok(added.len())
    }
}
