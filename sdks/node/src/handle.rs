//! The sessions of one product, environment and definition.

use std::sync::Arc;

use futures_util::FutureExt as _;
use napi::{
    bindgen_prelude::{FnArgs, Function, Result},
    threadsafe_function::ThreadsafeFunctionCallMode,
};
use napi_derive::napi;
use rekindle::{
    clock::Seconds,
    refresh::{Commitment, Proof},
    session::{Auth, Client, SessionId},
};
use rekindle_client::{
    Problem, Rekindle, Trust,
    exchange::Sessions,
    session::{Cursor, List, Patch, Refresh, Start, State, Token},
    web::Web,
};
use rekindle_embedded::Opened;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    border::{minted, parse, read, thrown, tokens, verified},
    exchange::{Site, WebOptions},
};

/// The sessions of one product, environment and definition.
#[napi]
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
    type Error = napi::Error;

    fn try_from(given: StartInput) -> Result<Self> {
        Ok(Self {
            user_id: given.user_id.map(|id| parse("userId", &id)).transpose()?,
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

/// How far an access token is trusted, by its name.
pub(crate) fn trust(name: &str) -> Result<Trust> {
    match name {
        "fail-open" => Ok(Trust::FailOpen),
        "fail-closed" => Ok(Trust::FailClosed),
        "online" => Ok(Trust::Online),
        _ => Err(thrown(Problem::field("trust", "must be `fail-open`, `fail-closed` or `online`"))),
    }
}

impl Handle {
    pub(crate) fn new(rekindle: Rekindle, opened: Option<Arc<Opened>>) -> Self {
        Self { rekindle, opened }
    }
}

#[napi]
impl Handle {
    /// Starts a session.
    #[napi]
    pub async fn start(&self, start: Value) -> Result<Value> {
        let start = read::<StartInput>("start", start)?.try_into()?;
        Ok(tokens(&self.rekindle.start(start).await.map_err(thrown)?))
    }

    /// Rotates a refresh token.
    #[napi]
    pub async fn refresh(&self, refresh: Value) -> Result<Value> {
        let refresh = read::<RefreshInput>("refresh", refresh)?.into();
        Ok(tokens(&self.rekindle.refresh(refresh).await.map_err(thrown)?))
    }

    /// A refresh after the user authenticated again.
    #[napi]
    pub async fn elevate(&self, refresh: Value, auth: Value) -> Result<Value> {
        let (refresh, auth) = (read::<RefreshInput>("refresh", refresh)?.into(), read("auth", auth)?);
        Ok(tokens(&self.rekindle.elevate(refresh, auth).await.map_err(thrown)?))
    }

    /// Buys a short access token for a refresh token.
    #[napi]
    pub async fn mint(&self, refresh_token: String, lifetime: Option<u32>) -> Result<Value> {
        let lifetime = lifetime.map(|seconds| Seconds(seconds.into()));
        Ok(minted(&self.rekindle.mint(&Token::new(refresh_token), lifetime).await.map_err(thrown)?))
    }

    /// What an access token says, if it is good.
    #[napi]
    pub async fn verify(&self, access_token: String, trusted: String) -> Result<Value> {
        let verdict = self.rekindle.verify(&Token::new(access_token), trust(&trusted)?).await;
        Ok(verified(&*verdict.map_err(thrown)?))
    }

    /// The same where nothing has to be waited for; null where something has.
    #[napi]
    pub fn verify_now(&self, access_token: String, trusted: String) -> Result<Option<Value>> {
        let trust = trust(&trusted)?;
        if trust == Trust::Online {
            return Ok(None);
        }
        match self.rekindle.verify(&Token::new(access_token), trust).now_or_never() {
            Some(verdict) => Ok(Some(verified(&*verdict.map_err(thrown)?))),
            None => Ok(None),
        }
    }

    /// Reports generations that were seen in use: pairs of session and generation.
    #[napi]
    pub async fn confirm(&self, seen: Value) -> Result<()> {
        self.rekindle.confirm(read("seen", seen)?).await.map_err(thrown)
    }

    /// Ends the session of a refresh or access token.
    #[napi]
    pub async fn sign_out(&self, token: String) -> Result<()> {
        self.rekindle.sign_out(&Token::new(token)).await.map_err(thrown)
    }

    /// Ends a session.
    #[napi]
    pub async fn revoke(&self, session_id: String) -> Result<()> {
        self.rekindle.revoke(parse("sessionId", &session_id)?).await.map_err(thrown)
    }

    /// Ends all of a user's sessions, or all but one.
    #[napi]
    pub async fn revoke_user(&self, user_id: String, except: Option<String>) -> Result<i64> {
        let except = except.map(|id| parse("except", &id)).transpose()?;
        let ended = self.rekindle.revoke_user(&parse("userId", &user_id)?, except).await.map_err(thrown)?;
        Ok(i64::try_from(ended).unwrap_or(i64::MAX))
    }

    /// The same because a credential changed.
    #[napi]
    pub async fn credential_changed(&self, user_id: String, keep: Option<String>) -> Result<i64> {
        let keep = keep.map(|id| parse("keep", &id)).transpose()?;
        let ended = self.rekindle.credential_changed(&parse("userId", &user_id)?, keep).await.map_err(thrown)?;
        Ok(i64::try_from(ended).unwrap_or(i64::MAX))
    }

    /// A page of sessions.
    #[napi]
    pub async fn list(&self, list: Value) -> Result<Value> {
        let ListInput { user_id, state, after, limit } = read("list", list)?;
        let user_id = user_id.map(|id| parse("userId", &id)).transpose()?;
        let list = List { user_id, state, after: after.map(Cursor::from), limit };
        let page = self.rekindle.list(list).await.map_err(thrown)?;
        Ok(json!({ "sessions": page.sessions, "next": page.next.as_ref().map(Cursor::as_str) }))
    }

    /// A session.
    #[napi]
    pub async fn read(&self, session_id: String) -> Result<Value> {
        Ok(json!(self.rekindle.read(parse("sessionId", &session_id)?).await.map_err(thrown)?))
    }

    /// Changes a session's data and claims.
    #[napi]
    pub async fn patch(&self, session_id: String, patch: Value) -> Result<Value> {
        let patch = read::<PatchInput>("patch", patch)?.into();
        Ok(json!(self.rekindle.patch(parse("sessionId", &session_id)?, patch).await.map_err(thrown)?))
    }

    /// Calls `told` with each session that ends or is elevated from now on, and the generation from which on it is good.
    #[napi]
    pub fn on_revoked(&self, told: Function<'_, FnArgs<(String, Option<u32>)>, ()>) -> Result<()> {
        // Nobody waits for it: a process whose other work is done may end.
        let told = told.build_threadsafe_function().weak::<true>().build()?;
        self.rekindle.on_revoked(move |revocation| {
            let about = (revocation.session_id.to_string(), revocation.below_generation);
            told.call(about.into(), ThreadsafeFunctionCallMode::NonBlocking);
        });
        Ok(())
    }

    /// Whether it is not known at present what was revoked.
    #[napi]
    pub fn is_stale(&self) -> bool {
        self.rekindle.is_stale()
    }

    /// Removes what is over from the store, as much as is there now; how many rows that were. Only with an engine in this process.
    #[napi]
    pub async fn sweep(&self) -> Result<i64> {
        let Some(opened) = &self.opened else {
            return Err(thrown(Problem::field("sweep", "servers sweep by themselves")));
        };
        let mut removed = 0;
        loop {
            let swept = opened.engine.sweep(opened.engine.now()).await.map_err(|e| thrown(e.into()))?;
            removed += i64::try_from(swept.removed).unwrap_or(i64::MAX);
            if swept.next.is_none() {
                return Ok(removed);
            }
        }
    }

    /// The rules of the web for these sessions.
    #[napi]
    pub fn site(&self, options: WebOptions) -> Result<Site> {
        let trusted = options.trust.as_deref().map_or(Ok(Trust::default()), trust)?;
        let settings = options.settings()?;
        let web = Web::new(settings).map_err(|why| thrown(Problem::field("web", why.to_string())))?;
        Ok(Site::new(Sessions::trusting(self.rekindle.clone(), web, trusted)))
    }
}
