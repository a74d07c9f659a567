//! The sessions of one product, environment and definition.

use std::sync::Arc;

use rekindle::{
    clock::Seconds,
    refresh::{Commitment, Proof},
    session::{Auth, Client, SessionId},
};
use rekindle_client::{
    Rekindle, Trust,
    exchange::Sessions,
    session::{Cursor, List, Patch, Refresh, Start, State, Token},
};
use rekindle_embedded::Opened;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    Failed, Site,
    json::{minted, parse, read, read_object, tokens, verified},
    site::{WebOptions, trust},
};

/// The sessions of one product, environment and definition. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    rekindle: Rekindle,
    /// For as long as there are sessions of it, the engine's store is open.
    opened: Option<Arc<Opened>>,
}

/// What `start` takes.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StartInput {
    user_id: Option<String>,
    data: Map<String, Value>,
    claims: Map<String, Value>,
    auth: Option<Auth>,
    commitment: Option<Commitment>,
    client: Client,
    previous_session_id: Option<SessionId>,
    expires_in: Option<Seconds>,
    idempotency_key: Option<String>,
}

impl TryFrom<StartInput> for Start {
    type Error = Failed;

    fn try_from(given: StartInput) -> Result<Self, Failed> {
        Ok(Self {
            user_id: given.user_id.map(|id| parse("user_id", &id)).transpose()?,
            data: given.data,
            claims: given.claims,
            auth: given.auth,
            commitment: given.commitment,
            client: given.client,
            previous_session_id: given.previous_session_id,
            expires_in: given.expires_in,
            idempotency_key: given.idempotency_key,
        })
    }
}

/// What `refresh` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshInput {
    refresh_token: Token,
    #[serde(default)]
    proof: Option<Proof>,
    #[serde(default)]
    client: Client,
}

impl From<RefreshInput> for Refresh {
    fn from(RefreshInput { refresh_token, proof, client }: RefreshInput) -> Self {
        Self { token: refresh_token, proof, client }
    }
}

/// What `list` takes.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ListInput {
    user_id: Option<String>,
    state: Option<State>,
    after: Option<String>,
    limit: Option<u32>,
}

/// What `patch` takes.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PatchInput {
    data: Option<Map<String, Value>>,
    claims: Option<Map<String, Value>>,
    if_version: Option<u64>,
}

impl From<PatchInput> for Patch {
    fn from(PatchInput { data, claims, if_version }: PatchInput) -> Self {
        Self { data, claims, if_version }
    }
}

impl Handle {
    pub(crate) fn new(rekindle: Rekindle, opened: Option<Arc<Opened>>) -> Self {
        Self { rekindle, opened }
    }

    /// Starts a session: as [`Rekindle::start`], with the members of [`Start`].
    pub async fn start(&self, start: Value) -> Result<Value, Failed> {
        let start = read_object::<StartInput>("start", start)?.try_into()?;
        Ok(tokens(&self.rekindle.start(start).await?))
    }

    /// Rotates a refresh token: `refresh_token`, and optional `proof` and `client`.
    pub async fn refresh(&self, refresh: Value) -> Result<Value, Failed> {
        let refresh = read_object::<RefreshInput>("refresh", refresh)?.into();
        Ok(tokens(&self.rekindle.refresh(refresh).await?))
    }

    /// A refresh after the user authenticated again.
    pub async fn elevate(&self, refresh: Value, auth: Value) -> Result<Value, Failed> {
        let (refresh, auth) = (read_object::<RefreshInput>("refresh", refresh)?.into(), read_object("auth", auth)?);
        Ok(tokens(&self.rekindle.elevate(refresh, auth).await?))
    }

    /// Buys a short access token for a refresh token; `lifetime` is in seconds.
    pub async fn mint(&self, refresh_token: String, lifetime: Option<u32>) -> Result<Value, Failed> {
        let lifetime = lifetime.map(|seconds| Seconds(seconds.into()));
        Ok(minted(&self.rekindle.mint(&Token::new(refresh_token), lifetime).await?))
    }

    /// What an access token says, if it is good, and trusted as `trusted` says: `fail-open`, `fail-closed` or `online`.
    pub async fn verify(&self, access_token: String, trusted: &str) -> Result<Value, Failed> {
        Ok(verified(&*self.rekindle.verify(&Token::new(access_token), trust(trusted)?).await?))
    }

    /// What an access token's session holds: its `session_id` and `data`, and when the token `expires_at`.
    pub async fn look(&self, access_token: String) -> Result<Value, Failed> {
        let verified = self.rekindle.verify(&Token::new(access_token), Trust::default()).await?;
        let session = self.rekindle.read(verified.session).await?;
        Ok(json!({ "session_id": session.id, "expires_at": verified.expires_at, "data": session.data }))
    }

    /// Reports generations that were seen in use: pairs of session and generation.
    pub async fn confirm(&self, seen: Value) -> Result<(), Failed> {
        Ok(self.rekindle.confirm(read("seen", seen)?).await?)
    }

    /// Ends the session of a refresh or access token.
    pub async fn sign_out(&self, token: String) -> Result<(), Failed> {
        Ok(self.rekindle.sign_out(&Token::new(token)).await?)
    }

    /// Ends a session.
    pub async fn revoke(&self, session_id: &str) -> Result<(), Failed> {
        Ok(self.rekindle.revoke(parse("session_id", session_id)?).await?)
    }

    /// Ends all of a user's sessions, or all but one; how many that were.
    pub async fn revoke_user(&self, user_id: &str, except: Option<&str>) -> Result<u64, Failed> {
        let except = except.map(|id| parse("except", id)).transpose()?;
        Ok(self.rekindle.revoke_user(&parse("user_id", user_id)?, except).await?)
    }

    /// The same because a credential changed.
    pub async fn credential_changed(&self, user_id: &str, keep: Option<&str>) -> Result<u64, Failed> {
        let keep = keep.map(|id| parse("keep", id)).transpose()?;
        Ok(self.rekindle.credential_changed(&parse("user_id", user_id)?, keep).await?)
    }

    /// A page of sessions: optional `user_id`, `state`, `after` and `limit`.
    pub async fn list(&self, list: Value) -> Result<Value, Failed> {
        let ListInput { user_id, state, after, limit } = read_object("list", list)?;
        let user_id = user_id.map(|id| parse("user_id", &id)).transpose()?;
        let list = List { user_id, state, after: after.map(Cursor::from), limit };
        let page = self.rekindle.list(list).await?;
        Ok(json!({ "sessions": page.sessions, "next": page.next.as_ref().map(Cursor::as_str) }))
    }

    /// A session.
    pub async fn read(&self, session_id: &str) -> Result<Value, Failed> {
        Ok(json!(self.rekindle.read(parse("session_id", session_id)?).await?))
    }

    /// Changes a session's data and claims: optional `data`, `claims` and `if_version`.
    pub async fn patch(&self, session_id: &str, patch: Value) -> Result<Value, Failed> {
        let patch = read_object::<PatchInput>("patch", patch)?.into();
        Ok(json!(self.rekindle.patch(parse("session_id", session_id)?, patch).await?))
    }

    /// Calls `told` with each session that ends or is elevated from now on, and the generation from which on it is good.
    pub fn on_revoked(&self, told: impl Fn(String, Option<u32>) + Send + Sync + 'static) {
        self.rekindle
            .on_revoked(move |revocation| told(revocation.session_id.to_string(), revocation.below_generation));
    }

    /// Whether it is not known at present what was revoked.
    pub fn is_stale(&self) -> bool {
        self.rekindle.is_stale()
    }

    /// Removes what is over from the store, as much as is there now; how many rows that were. Only with an engine in this process.
    pub async fn sweep(&self) -> Result<u64, Failed> {
        let Some(opened) = &self.opened else {
            return Err(Failed::field("sweep", "servers sweep by themselves"));
        };
        let mut removed = 0;
        loop {
            let swept =
                opened.engine.sweep(opened.engine.now()).await.map_err(|error| Failed::Problem(error.into()))?;
            removed += swept.removed;
            if swept.next.is_none() {
                return Ok(removed);
            }
        }
    }

    /// The rules of the web for these sessions, with the members of [`rekindle_client::web::Settings`] and `trust`; and a key of at least
    /// 32 bytes, where unsafe requests need the header `anti-csrf`, too.
    pub fn site(&self, options: Value, csrf_key: Option<&[u8]>) -> Result<Site, Failed> {
        let options: WebOptions = read_object("web", options)?;
        let trusted = options.trust()?;
        Ok(Site::new(Sessions::trusting(self.rekindle.clone(), options.web(csrf_key)?, trusted)))
    }
}
