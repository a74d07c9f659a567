//! The engine: it asks the pure functions what to do, and a [`Store`] to do it.
//!
//! One refresh, from here to the disk: [`Engine::refresh`] (`engine/refresh.rs`) authenticates the token
//! ([`crate::refresh`]), decides ([`crate::rotation`]), has the store carry the decision out in one conditional step
//! ([`crate::store`]), and signs an access token ([`crate::access`]).

mod admin;
mod data;
mod end;
mod import;
mod refresh;
mod scopes;
mod shared;
mod start;
mod upkeep;
mod verify;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_lock::Semaphore;
use quick_cache::sync::Cache;

use crate::access::{AccessToken, VerifiedCache};
use crate::clock::{Clock, Seconds, Timestamp};
use crate::copy;
use crate::definition::Violation;
use crate::journal::{Context, Event, EventId, EventKind, Outcome};
use crate::keys::{KeyId, KeySchedule};
use crate::refresh::{Commitment, RefreshToken, SecretRing};
use crate::revocation_log::{Record, RevocationLog};
use crate::rng::Rng;
use crate::rotation::{Expiry, TheftKind};
use crate::session::{EndReason, Scope, Session, SessionId, Tag, UserId};
use crate::store::{AuditEntry, Ban, Confirmation, EndedSession, Ending, ScopeRead, Store, StoreError};

use shared::Shared;

pub use admin::{DefinitionView, NewApiKey, Rotation};
pub use data::{Patch, Patched, Replace, TimelineQuery};
pub use end::{EndAll, PresentedToken};
pub use import::{Import, Imported};
pub use refresh::{Conduct, Elevate, Mint, Minted, Refresh, RefreshOutcome};
pub use start::StartRequest;
pub use upkeep::Upkeep;
pub use verify::{Active, VerifyOutcome};

/// Starts, refreshes, verifies and ends sessions on a store. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What an engine is made of.
pub struct Parts {
    /// Where sessions live.
    pub store: Arc<dyn Store>,
    /// Where revocations are kept beside the store.
    pub revocation_log: Arc<dyn RevocationLog>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub rng: Arc<dyn Rng>,
    /// The master secrets.
    pub secrets: SecretRing,
    /// What is to be decided once per deployment.
    pub settings: Settings,
}

/// What is to be decided once per deployment. [`Settings::new`] fills in the defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `iss` of access tokens.
    pub issuer: String,
    /// The `aud` of access tokens; `{product}` and `{env}` are replaced.
    pub audience: String,
    /// When signing keys are made, used and withdrawn.
    pub keys: KeySchedule,
    /// How often the signing keys' schedule is looked at.
    pub keys_every: Seconds,
    /// How long another server's change to products, definitions and keys may stay unnoticed here.
    pub config_ttl: Seconds,
    /// How long an ended session and its events stay readable.
    pub retention: Seconds,
    /// How many sessions one sweep step looks at.
    pub sweep_budget: u32,
    /// How long to rest between two sweep steps.
    pub sweep_every: Seconds,
    /// The bound on the memory of verified access tokens, in bytes.
    pub verified_cache: u64,
    /// Which events webhooks are told of, by product.
    pub notify: HashMap<Tag, HashSet<EventKind>>,
}

impl Settings {
    /// The default of [`Settings::retention`]: 30 days.
    pub const RETENTION: Seconds = Seconds(30 * 86_400);

    /// The default of [`Settings::keys_every`].
    pub const KEYS_EVERY: Seconds = Seconds(60);

    /// The default of [`Settings::sweep_budget`].
    pub const SWEEP_BUDGET: u32 = 1000;

    /// The default of [`Settings::sweep_every`].
    pub const SWEEP_EVERY: Seconds = Seconds(10);

    /// The defaults, with this issuer.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: "{product}/{env}".into(),
            keys: KeySchedule::default(),
            keys_every: Self::KEYS_EVERY,
            config_ttl: Seconds(2),
            retention: Self::RETENTION,
            sweep_budget: Self::SWEEP_BUDGET,
            sweep_every: Self::SWEEP_EVERY,
            verified_cache: 16 << 20,
            notify: HashMap::new(),
        }
    }
}

struct Inner {
    store: Arc<dyn Store>,
    log: Arc<dyn RevocationLog>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    secrets: SecretRing,
    settings: Settings,
    scopes: scopes::Scopes,
    verified: VerifiedCache,
    /// Whose turn it is to patch a session.
    patches: Shared<SessionId, Semaphore>,
    /// Endings and elevations whose access tokens may still live, as far as this server knows.
    revoked: RwLock<verify::Revoked>,
    /// Endings that could not be written to the revocation log; they stay until they are durable there.
    unlogged: Mutex<BTreeMap<SessionId, EndedSession>>,
    /// Generations that were seen in use and are not yet written down.
    confirmations: Mutex<HashMap<SessionId, Confirmation>>,
    /// When a request that changed nothing was last recorded, so that repeating it does not fill the journal.
    recorded: Cache<(SessionId, EventKind, Option<Outcome>, u32), Timestamp>,
    upkeep: Mutex<upkeep::Schedule>,
}

/// An engine does not start on a store that it would harm.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The revocation log could not be written.
    #[error("the revocation log: {0}")]
    Log(#[from] io::Error),
    /// The store was copied to another one, which has gone on since.
    #[error(
        "this store was copied ({names}) at {at}, and servers work on the copy: what was acknowledged since is not here. Use the \
         copy; to give that up and go on from here, run `rekindle copy` with the same --from and --to and with --reopen"
    )]
    Retired {
        /// From where to where, in the operator's words.
        names: String,
        /// When.
        at: Timestamp,
    },
    /// The store was used with another secret of this key id.
    #[error(
        "the master secret with key id {0} is not the one that this store was used with; every session would be logged out. \
         Put the right secret back, or give the new one a new key id and keep the old one beside it"
    )]
    OtherSecret(u8),
    /// Live sessions need a secret that is not there.
    #[error(
        "{sessions} live sessions carry tokens made with the master secret of key id {kid}, which is not configured; put it back \
         (after the current one) until they have moved on"
    )]
    MissingSecret {
        /// Its key id.
        kid: u8,
        /// How many need it.
        sessions: u64,
    },
    /// A signing key needs a secret that is not there.
    #[error(
        "signing key `{signing_key}` of {scope} is encrypted with the master secret of key id {kid}, which is not configured; put it \
         back (after the current one): running servers move signing keys to the current secret within a minute or two"
    )]
    MissingKeySecret {
        /// The secret's key id.
        kid: u8,
        /// One of the keys that need it.
        signing_key: KeyId,
        /// Whose key that is.
        scope: Scope,
    },
}

/// Why a request could not be carried out.
///
/// What becomes of a *token* is an outcome, not an error: see [`TokenRefusal`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A field of the request is wrong.
    #[error("`{field}`: {problem}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// How.
        problem: String,
    },
    /// There is no such product.
    #[error("there is no product `{0}`")]
    ProductNotFound(Tag),
    /// The product has no such environment.
    #[error("there is no environment `{0}`")]
    EnvironmentNotFound(Scope),
    /// The product has no such definition.
    #[error("there is no session definition `{0}` in this product")]
    DefinitionNotFound(Tag),
    /// There is no such session in this environment.
    #[error("there is no session {0} in this environment")]
    SessionNotFound(SessionId),
    /// There is no such user in this environment.
    #[error("no session or ban of this user is known in this environment")]
    UserNotFound,
    /// There is no such API key.
    #[error("there is no API key with the id `{0}`")]
    ApiKeyNotFound(String),
    /// The environment is switched off.
    #[error("the environment `{0}` is inactive; sessions are neither started nor refreshed in it")]
    EnvironmentInactive(Scope),
    /// The request does not fit what is there.
    #[error("{0}")]
    Conflict(String),
    /// The session's data moved on.
    #[error("the session's version is {present}; read it again and repeat the change")]
    VersionMismatch {
        /// The version it has now.
        present: u64,
    },
    /// The data or claims do not fit the definition or the limits.
    #[error("the data does not fit the definition")]
    DataInvalid(Vec<Violation>),
    /// The selector does not lead to a user id.
    #[error("{0}")]
    SelectorUnresolved(String),
    /// The user has as many sessions as it may have.
    #[error("the user has {active} active sessions, and the definition allows no more")]
    MaxSessionsReached {
        /// How many it has.
        active: u32,
    },
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used with another request")]
    IdempotencyMismatch,
    /// The user is banned.
    #[error("the user is banned{}", .0.until.map(|t| format!(" until {t}")).unwrap_or_default())]
    UserBanned(Ban),
    /// The session was ended, so that nothing can be written to it.
    #[error("the session has ended")]
    SessionEnded(EndReason),
    /// The store could not answer. The request may be repeated.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was ended could not be written to the revocation log. The request must be repeated.
    #[error("the revocation log could not be written: {0}")]
    Log(String),
    /// A key that is needed cannot be used.
    #[error("{0}")]
    Key(String),
}

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenRefusal {
    /// Not a token that this server issued.
    Malformed,
    /// A token of another product, environment or definition.
    ScopeMismatch,
    /// The access token's time is over, or it is from before an elevation, or its key was withdrawn: refresh.
    AccessExpired,
    /// One of the session's clocks ran out: sign in again.
    Expired(Expiry),
    /// The session was ended: sign in again. The reason is known where the row was read.
    Revoked(Option<EndReason>),
    /// The token alone is not enough.
    ProofRequired(Standing),
    /// The token is older than the session.
    Superseded(Standing),
    /// Two parties use this session.
    Theft {
        /// How it was seen.
        kind: TheftKind,
        /// Which session.
        session_id: SessionId,
        /// Whose.
        user_id: UserId,
    },
}

/// Where a session stands, told to a client that must find its own place again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which session.
    pub session_id: SessionId,
    /// Its generation.
    pub generation: u32,
    /// The generation of the token that was presented.
    pub presented_generation: u32,
    /// The commitment of the session's generation.
    pub commitment: Commitment,
}

/// What a client gets.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The session as it is now.
    pub session: Session,
    /// Short-lived, verified locally.
    pub access_token: AccessToken,
    /// When it expires.
    pub access_token_expires_at: Timestamp,
    /// For the next refresh.
    pub refresh_token: RefreshToken,
    /// When it expires unless it is used.
    pub refresh_token_expires_at: Timestamp,
    /// How it came to them.
    pub issued: Issued,
    /// In what the data of a session that started does not fit its definition's schema, where that only warns.
    pub warnings: Vec<Violation>,
}

/// What a client gets from a face that signs access tokens of its own.
#[derive(Debug, Clone)]
pub struct Unsigned {
    /// The session as it is now.
    pub session: Session,
    /// For the next refresh; it expires with the session's idle clock unless it is used.
    pub refresh_token: RefreshToken,
    /// How it came to it.
    pub issued: Issued,
}

/// How a client came to its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issued {
    /// The session started.
    Started,
    /// The session moved to its next generation.
    Advanced,
    /// The present generation was handed out again: the session did not move.
    Reissued,
    /// The store was behind the client and was brought forward, before the session advanced or its tokens were handed out again.
    FastForwarded,
}

impl Engine {
    /// Opens an engine on a store: checks the master secrets against it, ends what the revocation log knows to be ended, and
    /// learns whose access tokens are revoked.
    pub async fn open(parts: Parts) -> Result<Self, OpenError> {
        let Parts { store, revocation_log, clock, rng, secrets, settings } = parts;
        if let Some(mark) = copy::retired(&*store).await? {
            return Err(OpenError::Retired { names: mark.target, at: mark.at });
        }
        check_secrets(&*store, &secrets).await?;
        let inner = Inner {
            scopes: scopes::Scopes::default(),
            verified: VerifiedCache::new(settings.verified_cache),
            patches: Shared::default(),
            revoked: RwLock::default(),
            unlogged: Mutex::default(),
            confirmations: Mutex::default(),
            recorded: Cache::new(4096),
            upkeep: Mutex::default(),
            log: revocation_log,
            store,
            clock,
            rng,
            secrets,
            settings,
        };
        let engine = Self { inner: Arc::new(inner) };
        for ended in engine.inner.log.endings() {
            engine.end_again(ended).await?;
        }
        let (_, logged) = engine.read_feed().await?;
        logged.map_err(|e| OpenError::Log(io::Error::other(e)))?;
        Ok(engine)
    }

    /// The store that this engine works on.
    pub fn store(&self) -> &dyn Store {
        &*self.inner.store
    }

    /// The engine's present moment.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Where the engine's randomness comes from.
    pub fn rng(&self) -> &dyn Rng {
        &*self.inner.rng
    }

    /// The settings that it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The master secrets that it was opened with.
    pub fn secrets(&self) -> &SecretRing {
        &self.inner.secrets
    }

    fn notifies(&self, product: &Tag, kind: EventKind) -> bool {
        self.inner.settings.notify.get(product).is_some_and(|kinds| kinds.contains(&kind))
    }

    fn event(&self, ctx: &Context, now: Timestamp, kind: EventKind) -> Event {
        ctx.event(EventId::draw(now, &*self.inner.rng), now, kind)
    }

    /// An event about `session`, for the journal and for webhooks where they asked for it.
    fn session_event(&self, ctx: &Context, now: Timestamp, kind: EventKind, session: &Session) -> Event {
        let notify = self.notifies(&session.scope.product, kind);
        Event {
            session_id: Some(session.id),
            user_id: notify.then(|| session.user_id.clone()),
            generation: session.position.generation,
            notify,
            ..self.event(ctx, now, kind)
        }
    }

    fn ending(&self, ctx: &Context, now: Timestamp, reason: EndReason, state: &scopes::ScopeState) -> Ending {
        let mut event = self.event(ctx, now, EventKind::End);
        event.notify = self.notifies(&state.scope.product, EventKind::End);
        Ending { at: now, reason, feed_until: now + state.longest_access, event }
    }

    /// An entry of the audit log about what `ctx` does now.
    fn audit(&self, ctx: &Context, action: &str, target: String) -> AuditEntry {
        let at = self.now();
        AuditEntry {
            id: EventId::draw(at, &*self.inner.rng),
            at,
            actor: ctx.actor.clone().unwrap_or_else(|| "application".into()),
            action: action.into(),
            target,
            ip: ctx.client.clone().bounded().ip,
            request_id: ctx.request_id.clone(),
        }
    }

    /// Makes endings known that this server just wrote, so that the feed has to tell of them.
    async fn ended(&self, ended: Vec<EndedSession>, feed_until: Timestamp) -> Result<(), Error> {
        self.revoked(|r| r.acknowledged.extend(ended.iter().map(|e| (e.id, *e))));
        self.note_ended(ended, feed_until).await
    }

    /// Makes endings known to the revocation log and to this server's own verifiers. Called before anything is acknowledged.
    async fn note_ended(&self, ended: Vec<EndedSession>, feed_until: Timestamp) -> Result<(), Error> {
        if ended.is_empty() {
            return Ok(());
        }
        self.revoked(|r| ended.iter().for_each(|e| r.insert(e.id, None, feed_until)));
        self.write_log(ended).await
    }

    /// Appends endings to the revocation log, after those that could not be written before; what fails waits for the next time.
    ///
    /// What waits is not taken away before it is durable: nobody goes on because another one is still writing it.
    async fn write_log(&self, ended: Vec<EndedSession>) -> Result<(), Error> {
        let waiting = || self.inner.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier: Vec<EndedSession> = waiting().values().copied().collect();
        let records: Vec<Record> = earlier.iter().chain(&ended).copied().map(Record::Ended).collect();
        if records.is_empty() {
            return Ok(());
        }
        match self.inner.log.append(records).await {
            Ok(()) => {
                let mut waiting = waiting();
                for ended in earlier {
                    waiting.remove(&ended.id);
                }
                Ok(())
            }
            Err(e) => {
                waiting().extend(ended.into_iter().map(|e| (e.id, e)));
                Err(Error::Log(e.to_string()))
            }
        }
    }
}

/// Registers the secrets' check values; refuses another secret under a known key id, and the lack of one that is needed.
async fn check_secrets(store: &dyn Store, secrets: &SecretRing) -> Result<(), OpenError> {
    let known: HashMap<u8, [u8; 16]> = store.secret_checks(secrets.checks().collect()).await?.into_iter().collect();
    for (kid, check) in secrets.checks() {
        if known.get(&kid) != Some(&check) {
            return Err(OpenError::OtherSecret(kid));
        }
    }
    if known.len() == secrets.checks().count() {
        return Ok(());
    }
    let missing = |kid: u8| !secrets.checks().any(|(k, _)| k == kid);
    for (kid, sessions) in store.secret_usage().await? {
        if missing(kid) {
            return Err(OpenError::MissingSecret { kid, sessions });
        }
    }
    for product in store.products().await? {
        for environment in product.environments {
            let scope = Scope { product: product.product.tag.clone(), env: environment.slug };
            let ScopeRead::Found(record) = store.scope(&scope).await? else { continue };
            let needs =
                record.keys.into_iter().find_map(|k| k.secret().filter(|kid| missing(*kid)).map(|kid| (kid, k.kid)));
            if let Some((kid, signing_key)) = needs {
                return Err(OpenError::MissingKeySecret { kid, signing_key, scope });
            }
        }
    }
    Ok(())
}
