//! The handle: the same methods, whether the engine is in this process or on a server.

use std::sync::Arc;

use rekindle::{
    access::Verified,
    clock::{Seconds, Timestamp},
    engine::Engine,
    session::{Auth, Env, Scope, SessionId, Tag, UserId},
};
use tokio::{task::AbortHandle, time::Instant};

#[cfg(feature = "remote")]
use crate::remote::{InvalidRemote, Remote, Servers};
use crate::{
    embedded::Embedded,
    problem::Problem,
    session::{List, Minted, Page, Patch, Refresh, SessionInfo, Start, Token, Tokens},
    watch::{Feed, Revocation, Watch},
};

/// Sessions of one product, environment and definition. Cheap to clone; clones share everything.
///
/// Every method answers with a [`Problem`] where it cannot do what it should; `unavailable` where the store or all servers are out,
/// which says nothing about any session. What a method answers beside that is said at the method.
#[derive(Clone)]
pub struct Rekindle {
    inner: Arc<Inner>,
}

struct Inner {
    source: Source,
    watch: Arc<Watch>,
    /// Upkeep, keys, feed: they end with the last clone.
    tasks: Vec<AbortHandle>,
}

enum Source {
    Embedded(Embedded),
    #[cfg(feature = "remote")]
    Remote(Arc<Servers>),
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Where sessions belong. `default/dev`, and the definition `default`, by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The product and environment.
    pub scope: Scope,
    /// The tag of the session definition.
    pub tag: Tag,
}

impl Default for Place {
    fn default() -> Self {
        let (product, env): (Tag, Env) = (name("default"), name("dev"));
        Self { scope: Scope { product, env }, tag: name("default") }
    }
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("the contract's own names are valid")
}

/// What to do about an access token when it is not known whether its session was ended a moment ago.
///
/// Revocations reach a live verifier within a second. It counts as stale after [`Rekindle::STALE_AFTER`] without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Believe the token for the rest of its minutes: an outage does not stop the application.
    #[default]
    FailOpen,
    /// Refuse with `unavailable` until it is known again.
    FailClosed,
    /// Ask the session itself, each time: for what must not happen a second too late.
    Online,
}

/// Carries a method to the engine or the server.
macro_rules! ask {
    ($self:ident, $($call:tt)+) => {
        match &$self.inner.source {
            Source::Embedded(embedded) => embedded.$($call)+.await,
            #[cfg(feature = "remote")]
            Source::Remote(servers) => servers.$($call)+.await,
        }
    };
}

impl Rekindle {
    /// After how many seconds without an answer of the revocation feed a verifier counts as stale.
    pub const STALE_AFTER: Seconds = Seconds(3);

    /// Sessions of an engine in this process. Does the engine's upkeep from here on.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn embedded(engine: Engine, place: Place) -> Self {
        let watch = Arc::new(Watch::default());
        let embedded = Embedded::new(engine, place);
        let upkeep = tokio::spawn(embedded.clone().keep_up(watch.clone()));
        Self {
            inner: Arc::new(Inner { source: Source::Embedded(embedded), watch, tasks: vec![upkeep.abort_handle()] }),
        }
    }

    /// Sessions on servers. Needs none of them to be up: keys and revocations are fetched in the background.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[cfg(feature = "remote")]
    pub fn remote(remote: Remote) -> Result<Self, InvalidRemote> {
        let watch = Arc::new(Watch::default());
        let servers = Arc::new(Servers::new(remote, watch.clone())?);
        let tasks = Servers::spawn(&servers);
        Ok(Self { inner: Arc::new(Inner { source: Source::Remote(servers), watch, tasks }) })
    }

    /// The present moment, by the clock that decides about tokens here.
    pub fn now(&self) -> Timestamp {
        match &self.inner.source {
            Source::Embedded(embedded) => embedded.now(),
            #[cfg(feature = "remote")]
            Source::Remote(servers) => servers.now(),
        }
    }

    /// Starts a session.
    ///
    /// `user_banned`, `max_sessions_reached`, `data_invalid`, `selector_unresolved`, `environment_inactive`, `conflict` (the previous
    /// session is none of this user's, or the idempotency key's session has moved on), `idempotency_mismatch`.
    pub async fn start(&self, start: Start) -> Result<Tokens, Problem> {
        ask!(self, start(start))
    }

    /// Rotates a refresh token. Repeating it gives the same refresh token and generation again.
    ///
    /// `superseded`, `proof_required`, `token_malformed`, `token_scope_mismatch`: the session goes on. Terminal: `session_expired`,
    /// `session_revoked`, `token_theft_detected`.
    pub async fn refresh(&self, refresh: Refresh) -> Result<Tokens, Problem> {
        ask!(self, refresh(refresh))
    }

    /// A refresh after the user authenticated again: access tokens of older generations are refused from then on. As
    /// [`Rekindle::refresh`].
    pub async fn elevate(&self, refresh: Refresh, auth: Auth) -> Result<Tokens, Problem> {
        ask!(self, elevate(refresh, auth))
    }

    /// Buys an access token of at most 60 seconds for a refresh token; nothing rotates. For pages rendered on a server.
    ///
    /// `superseded`, `conflict` (the definition does not allow it), and the terminal codes.
    pub async fn mint(&self, refresh_token: &Token, lifetime: Option<Seconds>) -> Result<Minted, Problem> {
        ask!(self, mint(refresh_token, lifetime))
    }

    /// What an access token says, if it is good: without I/O, unless [`Trust::Online`].
    ///
    /// `access_token_expired`: refresh. `session_revoked`, `session_expired`, `token_malformed`, `token_scope_mismatch`: sign in.
    pub async fn verify(&self, access_token: &Token, trust: Trust) -> Result<Arc<Verified>, Problem> {
        if trust == Trust::FailClosed {
            self.inner.watch.check_fresh(Instant::now())?;
        }
        ask!(self, verify(access_token, trust))
    }

    /// Reports generations that were seen in use, for access tokens that ask for it. [`Rekindle::verify`] does so by itself.
    pub async fn confirm(&self, seen: Vec<(SessionId, u32)>) -> Result<(), Problem> {
        ask!(self, confirm(seen))
    }

    /// Signs out: ends the session of a refresh or access token, also of an old or expired one. Idempotent.
    ///
    /// `token_malformed`, `token_scope_mismatch`.
    pub async fn sign_out(&self, token: &Token) -> Result<(), Problem> {
        ask!(self, sign_out(token))
    }

    /// Ends a session. Idempotent. `session_not_found`.
    pub async fn revoke(&self, id: SessionId) -> Result<(), Problem> {
        ask!(self, revoke(id))
    }

    /// Ends all of a user's sessions, or all but one; how many that were.
    pub async fn revoke_user(&self, user_id: &UserId, except: Option<SessionId>) -> Result<u64, Problem> {
        ask!(self, revoke_user(user_id, except))
    }

    /// Ends a user's sessions because its password or another credential changed, but for the one in which it was changed.
    pub async fn credential_changed(&self, user_id: &UserId, keep: Option<SessionId>) -> Result<u64, Problem> {
        ask!(self, credential_changed(user_id, keep))
    }

    /// A page of sessions, newest first. `invalid_request` for a limit that is not 1 to 200.
    pub async fn list(&self, list: List) -> Result<Page, Problem> {
        ask!(self, list(list))
    }

    /// A session, active or ended. `session_not_found`.
    pub async fn read(&self, id: SessionId) -> Result<SessionInfo, Problem> {
        ask!(self, read(id))
    }

    /// Changes a session's data and claims. Two writers never undo each other, and none undoes an ending.
    ///
    /// `session_not_found`, `version_mismatch`, `data_invalid`, `conflict` (it has ended).
    pub async fn patch(&self, id: SessionId, patch: Patch) -> Result<SessionInfo, Problem> {
        ask!(self, patch(id, patch))
    }

    /// The revocations after a cursor, oldest first; without one, all that still matter. Waits up to `wait` (at most 30) seconds for
    /// the first.
    pub async fn revocations(&self, since: Option<u64>, wait: Seconds) -> Result<Feed, Problem> {
        ask!(self, revocations(since.unwrap_or(0), wait))
    }

    /// Calls `told` for every session that ends (or is elevated) from now on, here or anywhere else, within about a second: to close its
    /// WebSockets, say. It must not block.
    pub fn on_revoked(&self, told: impl Fn(&Revocation) + Send + Sync + 'static) {
        self.inner.watch.on_revoked(Box::new(told));
    }

    /// Whether it is not known at present what was revoked.
    pub fn is_stale(&self) -> bool {
        self.inner.watch.check_fresh(Instant::now()).is_err()
    }
}
