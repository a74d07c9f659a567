//! What the engine remembers of products, environments, definitions and signing keys, and how it notices changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use async_lock::OnceCell;

use super::shared::Shared;
use super::{Engine, Error};
use crate::access::{self, AccessClaims, AccessToken, Expected};
use crate::clock::{Seconds, Timestamp};
use crate::definition::Definition;
use crate::keys::{Chain, KeyError, KeyRing, SigningKey, Successor};
use crate::session::{Scope, Session, Tag};
use crate::store::{ScopeRead, ScopeRecord, StoreError};

/// One scope, as it was when it was read.
pub(super) struct ScopeState {
    pub(super) scope: Scope,
    active: bool,
    definitions: Vec<(u32, Definition)>,
    pub(super) keys: Arc<KeyRing>,
    /// The longest that an access token of this scope can live, whatever definition it was issued under.
    pub(super) longest_access: Seconds,
    audience: String,
    /// When it was last looked at again before its time.
    rechecked_at: AtomicI64,
    /// For each chain, whether one of the requests that needed its first key has made it.
    first_keys: [OnceCell<()>; Chain::ALL.len()],
}

/// How often a token that names an unknown key can make the configuration be looked at, in each scope.
const RECHECK_MILLIS: i64 = 100;

impl ScopeState {
    /// The definition with this tag.
    pub(super) fn definition(&self, tag: &Tag) -> Option<&Definition> {
        self.definitions.iter().map(|(_, d)| d).find(|d| d.tag == *tag)
    }

    /// The definition with this tag and its version.
    pub(super) fn versioned(&self, tag: &Tag) -> Result<(u32, &Definition), Error> {
        let found = self.definitions.iter().find(|(_, d)| d.tag == *tag);
        found.map(|(v, d)| (*v, d)).ok_or_else(|| Error::DefinitionNotFound(tag.clone()))
    }

    /// The definition, where there is just one.
    pub(super) fn only_definition(&self) -> Option<&Definition> {
        match self.definitions.as_slice() {
            [(_, only)] => Some(only),
            _ => None,
        }
    }

    /// What an access token must be for to be accepted in this scope.
    pub(super) fn expected<'a>(&'a self, issuer: &'a str, tag: Option<&'a Tag>) -> Expected<'a> {
        Expected { scope: &self.scope, issuer, audience: &self.audience, tag }
    }

    /// The chains in use: of the algorithms that the definitions sign with, and those that were asked for once.
    pub(super) fn chains(&self) -> impl Iterator<Item = Chain> {
        Chain::ALL.into_iter().filter(|chain| match chain {
            Chain::Access(algorithm) => self.definitions.iter().any(|(_, d)| d.access_token.algorithm == *algorithm),
            Chain::Dynamic | Chain::DynamicEs256 | Chain::Static => self.keys.has(*chain),
        })
    }
}

/// For what an access token is signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grant {
    /// It lives so long, unless the session ends before.
    pub(super) lifetime: Seconds,
    /// Its use confirms its generation, and a verifier is to report it.
    pub(super) confirms: bool,
}

/// What is known of the store's configuration, and when its version was last asked for.
#[derive(Default)]
pub(super) struct Scopes {
    known: ArcSwap<Known>,
    /// Each is read by the first request that needs it, under one version of the configuration; the others wait for that.
    reading: Shared<(u64, Scope), OnceCell<Arc<ScopeState>>>,
    checked_at: AtomicI64,
    /// How often it became due before its time.
    rechecks: AtomicU64,
}

/// The scopes that were asked for, as of one version of the store's configuration.
#[derive(Default, Clone)]
struct Known {
    version: u64,
    scopes: HashMap<Scope, Arc<ScopeState>>,
}

impl Engine {
    /// A scope in which sessions are started and refreshed.
    pub(super) async fn active_scope(&self, scope: &Scope) -> Result<Arc<ScopeState>, Error> {
        let state = self.scope(scope).await?;
        if state.active { Ok(state) } else { Err(Error::EnvironmentInactive(scope.clone())) }
    }

    /// A scope, at most [`super::Settings::config_ttl`] old.
    pub(super) async fn scope(&self, scope: &Scope) -> Result<Arc<ScopeState>, Error> {
        let (scopes, now) = (&self.inner.scopes, self.now());
        let ttl = i64::try_from(self.inner.settings.config_ttl.0).unwrap_or(i64::MAX).saturating_mul(1000);
        let age = now.millis().saturating_sub(scopes.checked_at.load(Ordering::Relaxed));
        // Noted when it is done, not before: a caller who goes away meanwhile must not keep the others from asking. A clock
        // that went back asks, too.
        if !(0..ttl).contains(&age) {
            let rechecks = scopes.rechecks.load(Ordering::SeqCst);
            let version = self.inner.store.config_version().await?;
            if scopes.known.load().version != version {
                scopes.known.store(Arc::new(Known { version, scopes: HashMap::new() }));
            }
            scopes.checked_at.store(now.millis(), Ordering::SeqCst);
            // Something was changed after the version had been read, perhaps.
            if scopes.rechecks.load(Ordering::SeqCst) != rechecks {
                self.recheck_config();
            }
        }
        let known = scopes.known.load_full();
        if let Some(state) = known.scopes.get(scope) {
            return Ok(Arc::clone(state));
        }
        let read = async || {
            let state = self.read_scope(scope).await?;
            self.remember(known.version, &state);
            Ok::<_, Error>(state)
        };
        let reading = scopes.reading.hold((known.version, scope.clone()), OnceCell::new);
        Ok(Arc::clone(reading.get_or_try_init(read).await?))
    }

    /// Keeps a scope that was read under this version of the configuration. What was read before a change was noticed may be
    /// older than it, and nothing would notice that again.
    fn remember(&self, version: u64, state: &Arc<ScopeState>) {
        self.inner.scopes.known.rcu(|known| {
            let mut known = Known::clone(known);
            if known.version == version {
                known.scopes.insert(state.scope.clone(), Arc::clone(state));
            }
            known
        });
    }

    /// Makes the next request read the scope.
    fn forget(&self, scope: &Scope) {
        self.inner.scopes.known.rcu(|known| {
            let mut known = Known::clone(known);
            known.scopes.remove(scope);
            known
        });
    }

    /// A scope whose keys know that of the access token, if any does: another server may have made it a moment ago.
    pub(super) async fn scope_for(&self, scope: &Scope, access_token: &str) -> Result<Arc<ScopeState>, Error> {
        let state = self.scope(scope).await?;
        if !state.keys.lacks_key_of(access_token) || !self.recheck(&state) {
            return Ok(state);
        }
        self.scope(scope).await
    }

    /// Makes the next request look at the configuration again, unless a request for this scope did so a moment ago.
    fn recheck(&self, state: &ScopeState) -> bool {
        let (rechecked_at, now) = (state.rechecked_at.load(Ordering::Relaxed), self.now().millis());
        let due = !(0..RECHECK_MILLIS).contains(&now.saturating_sub(rechecked_at));
        let swap =
            || state.rechecked_at.compare_exchange(rechecked_at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let recheck = due && swap();
        if recheck {
            self.recheck_config();
        }
        recheck
    }

    /// Makes the next request ask the store for its configuration's version.
    pub(super) fn recheck_config(&self) {
        self.inner.scopes.rechecks.fetch_add(1, Ordering::SeqCst);
        self.inner.scopes.checked_at.store(i64::MIN / 2, Ordering::SeqCst);
    }

    async fn read_scope(&self, scope: &Scope) -> Result<Arc<ScopeState>, Error> {
        let ScopeRecord { environment, definitions, keys, longest_access } = match self.inner.store.scope(scope).await?
        {
            ScopeRead::NoProduct => return Err(Error::ProductNotFound(scope.product.clone())),
            ScopeRead::NoEnvironment => return Err(Error::EnvironmentNotFound(scope.clone())),
            ScopeRead::Found(record) => *record,
        };
        let settings = &self.inner.settings;
        Ok(Arc::new(ScopeState {
            scope: scope.clone(),
            active: environment.active,
            longest_access,
            definitions,
            keys: Arc::new(KeyRing::open(scope.clone(), keys, &self.inner.secrets, settings.keys)),
            audience: settings
                .audience
                .replace("{product}", scope.product.as_str())
                .replace("{env}", scope.env.as_str()),
            rechecked_at: AtomicI64::new(i64::MIN / 2),
            first_keys: Default::default(),
        }))
    }

    /// The definition of a session, as it is now; as it was at the session's start if it was deleted since.
    pub(super) async fn definition_of(&self, state: &ScopeState, session: &Session) -> Result<Definition, Error> {
        if let Some(definition) = state.definition(&session.tag) {
            return Ok(definition.clone());
        }
        self.started_with(session).await
    }

    /// The definition as it was when the session started: the schema of its data.
    pub(super) async fn started_with(&self, session: &Session) -> Result<Definition, Error> {
        let (product, tag) = (&session.scope.product, &session.tag);
        let definition = self.inner.store.definition(product, tag, session.definition_version).await?;
        definition.ok_or_else(|| Error::DefinitionNotFound(tag.clone()))
    }

    /// Signs an access token for the session's position. It expires with the session at the latest.
    pub(super) async fn sign(
        &self,
        state: &ScopeState,
        definition: &Definition,
        session: &Session,
        grant: Grant,
        now: Timestamp,
    ) -> Result<(AccessToken, Timestamp), Error> {
        let ends = session.expires_at.min(session.idle_expires_at);
        let expires_at = Timestamp::from_secs((now + grant.lifetime).min(ends).secs());
        let claims = AccessClaims {
            issuer: &self.inner.settings.issuer,
            audience: &state.audience,
            scope: &session.scope,
            tag: &session.tag,
            user_id: &session.user_id,
            session: session.id,
            generation: session.position.generation,
            binding: session.position.commitment.into(),
            confirm: grant.confirms,
            issued_at: now,
            expires_at,
            auth: &session.auth,
            claims: &session.claims,
        };
        let algorithm = definition.access_token.algorithm;
        if let Ok(key) = state.keys.signer(algorithm, now) {
            return Ok((access::sign(key, &claims, &*self.inner.rng), expires_at));
        }
        // The first token of this scope and algorithm, or a key that cannot be decrypted (which the error then names).
        let state = self.first_key(state, algorithm.into(), now).await?;
        let key = state.keys.signer(algorithm, now).map_err(|e| match e {
            // It was added a moment ago, here or elsewhere: a store that lost its last writes.
            KeyError::Missing(_) => Error::Store(StoreError::Unavailable(e.to_string())),
            _ => Error::Key(e.to_string()),
        })?;
        Ok((access::sign(key, &claims, &*self.inner.rng), expires_at))
    }

    /// A definition of this scope's product, as far as this server knows it: at most [`super::Settings::config_ttl`] old.
    pub async fn known_definition(&self, scope: &Scope, tag: &Tag) -> Result<Definition, Error> {
        self.scope(scope).await?.versioned(tag).map(|(_, definition)| definition.clone())
    }

    /// The keys of a scope, with a first one in each of `chains`.
    pub async fn keys(&self, scope: &Scope, chains: &[Chain]) -> Result<Arc<KeyRing>, Error> {
        let mut state = self.scope(scope).await?;
        for chain in chains {
            if !state.keys.has(*chain) {
                state = self.first_key(&state, *chain, self.now()).await?;
            }
        }
        Ok(Arc::clone(&state.keys))
    }

    /// The keys of a scope that may verify what another server signed with a key that it made a moment ago.
    pub async fn fresh_keys(&self, scope: &Scope) -> Result<Arc<KeyRing>, Error> {
        let state = self.scope(scope).await?;
        self.recheck(&state);
        Ok(Arc::clone(&self.scope(scope).await?.keys))
    }

    async fn first_key(&self, state: &ScopeState, chain: Chain, now: Timestamp) -> Result<Arc<ScopeState>, Error> {
        let make = async || {
            if let Some(successor) = state.keys.upkeep(chain, now).add {
                self.add_key(&state.scope, chain, successor, now).await?;
                self.forget(&state.scope);
            }
            Ok::<_, Error>(())
        };
        let (_, made) =
            Chain::ALL.iter().zip(&state.first_keys).find(|(c, _)| **c == chain).expect("each chain has one");
        made.get_or_try_init(make).await?;
        self.scope(&state.scope).await
    }

    /// Makes a signing key and adds it, unless another server was faster; whether it was added.
    pub(super) async fn add_key(
        &self,
        scope: &Scope,
        chain: Chain,
        successor: Successor,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let inner = &self.inner;
        let key = SigningKey::generate(scope.clone(), chain, now, successor.signs_from, &inner.secrets, &*inner.rng);
        let added = inner.store.add_signing_key(key, successor.after).await?;
        self.recheck_config();
        Ok(added)
    }
}
