//! Sessions on Rekindle servers.
//!
//! [`Remote`] says which; [`crate::Rekindle::remote`] makes the handle. Requests go to one server, and to the next when that one does
//! not answer, as far as repeating them is safe (`servers.rs`). Access tokens are verified here (`verifier.rs`), with the servers' public
//! keys, which are fetched ahead, and the revocation feed, which is followed by long polls of a second.

mod revoked;
mod servers;
mod verifier;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rekindle::{
    access::Verified,
    clock::{Clock, Seconds, SystemClock, Timestamp},
    refresh::{Commitment, Opening, Proof},
    session::{Auth, Client, SessionId, UserId},
};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::task::AbortHandle;
use tokio::time::Duration;

use crate::{
    handle::{Place, Trust},
    problem::{About, Code, Problem},
    session::{Cursor, List, Minted, Page, Patch, Refresh, SessionInfo, Start, State, Token, Tokens},
    watch::{Feed, Revocation, Watch},
};
use servers::{Call, Repeat, Transport};
use verifier::Verifier;

/// Which servers to ask, and how. [`Remote::new`] fills in what is usually left out.
#[derive(Clone)]
pub struct Remote {
    /// Their URLs, like `https://rekindle.internal:3567`; the first that answers is asked.
    pub servers: Vec<String>,
    /// The API key, with the permissions `sessions`, `read` and `confirm`.
    pub api_key: Token,
    /// Where the sessions belong.
    pub place: Place,
    /// The `iss` of access tokens, as the servers are configured. By default the first URL.
    pub issuer: Option<String>,
    /// The `aud` of access tokens, as the servers are configured; `{product}` and `{env}` stand for the place's.
    pub audience: String,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one server may take to answer.
    pub timeout: Duration,
    /// The bound on the memory of verified access tokens, in bytes.
    pub verified_cache: u64,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Remote {
    /// A server and an API key; the rest by default.
    pub fn new(server: impl Into<String>, api_key: impl Into<String>) -> Self {
        Self {
            servers: vec![server.into()],
            api_key: Token::new(api_key),
            place: Place::default(),
            issuer: None,
            audience: "{product}/{env}".into(),
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
            verified_cache: 16 << 20,
            clock: Arc::new(SystemClock),
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("servers", &self.servers).field("place", &self.place).finish_non_exhaustive()
    }
}

/// Why a [`Remote`] cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRemote {
    /// There is no server in it.
    #[error("`servers` is empty; give at least one URL")]
    NoServer,
    /// Not a URL of a server.
    #[error("`servers` has `{0}`; give URLs like `https://rekindle.internal:3567`")]
    Url(String),
    /// Not an API key.
    #[error("`api_key` is not one line of visible ASCII like `rkk_…`")]
    ApiKey,
    /// TLS cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
}

/// The handle's part that speaks with servers.
pub(crate) struct Servers {
    transport: Transport,
    verifier: Verifier,
    place: Place,
    /// `/v1/{product}/{env}/`.
    base: String,
    clock: Arc<dyn Clock>,
    watch: Arc<Watch>,
}

impl Servers {
    pub(crate) fn new(remote: Remote, watch: Arc<Watch>) -> Result<Self, InvalidRemote> {
        let transport = Transport::new(&remote)?;
        let Remote { place, issuer, audience, verified_cache, clock, servers, .. } = remote;
        let issuer = issuer.unwrap_or_else(|| servers[0].trim_end_matches('/').to_owned());
        let scope = &place.scope;
        let audience = audience.replace("{product}", scope.product.as_str()).replace("{env}", scope.env.as_str());
        let base = format!("/v1/{}/{}/", scope.product, scope.env);
        let verifier = Verifier::new(place.clone(), issuer, audience, verified_cache);
        Ok(Self { transport, verifier, place, base, clock, watch })
    }

    /// Starts what goes on in the background.
    pub(crate) fn spawn(servers: &Arc<Self>) -> Vec<AbortHandle> {
        fn run<F: Future<Output = ()> + Send + 'static>(work: F) -> AbortHandle {
            tokio::spawn(work).abort_handle()
        }
        let here = || servers.clone();
        vec![run(here().keep_keys()), run(here().follow_feed()), run(here().report_seen())]
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn start(&self, start: Start) -> Result<Tokens, Problem> {
        let body = StartBody {
            tag: self.place.tag.as_str(),
            user_id: start.user_id.as_ref(),
            data: &start.data,
            claims: &start.claims,
            auth: start.auth.as_ref(),
            commitment: start.commitment,
            client: &start.client,
            previous_session_id: start.previous_session_id,
            expires_in: start.expires_in,
        };
        let repeat = if start.idempotency_key.is_some() { Repeat::Safe } else { Repeat::OnlyUnsent };
        let mut call = self.post("sessions", &body, repeat);
        if let Some(key) = &start.idempotency_key {
            call = call.header("idempotency-key", key)?;
        }
        self.transport.ask(call).await
    }

    pub(crate) async fn refresh(&self, refresh: Refresh) -> Result<Tokens, Problem> {
        self.rotate("sessions/refresh", &refresh, None).await
    }

    pub(crate) async fn elevate(&self, refresh: Refresh, auth: Auth) -> Result<Tokens, Problem> {
        self.rotate("sessions/elevate", &refresh, Some(&auth)).await
    }

    async fn rotate(&self, path: &str, refresh: &Refresh, auth: Option<&Auth>) -> Result<Tokens, Problem> {
        let Refresh { token, proof, client } = refresh;
        let proof = proof.as_ref().map(ProofBody::of);
        let tag = Some(self.place.tag.as_str());
        let body = RefreshBody { refresh_token: token.expose(), tag, proof, auth, client: Some(client) };
        // The protocol answers a repeated refresh with the same refresh token.
        self.transport.ask(self.post(path, &body, Repeat::Safe)).await
    }

    pub(crate) async fn mint(&self, refresh_token: &Token, lifetime: Option<Seconds>) -> Result<Minted, Problem> {
        let body = MintBody { refresh_token: refresh_token.expose(), lifetime };
        self.transport.ask(self.post("sessions/mint", &body, Repeat::Safe)).await
    }

    pub(crate) async fn verify(&self, access_token: &Token, trust: Trust) -> Result<Arc<Verified>, Problem> {
        if self.verifier.lacks_key_of(access_token) {
            self.fetch_keys().await?;
        }
        let verified = self.verifier.verify(access_token, self.now())?;
        if trust == Trust::Online {
            let body = VerifyBody { access_token: access_token.expose(), tag: self.place.tag.as_str(), online: true };
            let asked: Verification = self.transport.ask(self.post("sessions/verify", &body, Repeat::Safe)).await?;
            if !asked.active {
                let code = asked.code.unwrap_or(Code::TokenMalformed);
                let about = About { which: asked.which, ..About::default() };
                let problem = Problem::new(code, code.title()).with(about);
                return Err(if problem.is_terminal() {
                    problem.about_token(verified.session, verified.generation)
                } else {
                    problem
                });
            }
        }
        self.verifier.note_use(&verified);
        Ok(verified)
    }

    pub(crate) async fn confirm(&self, seen: Vec<(SessionId, u32)>) -> Result<(), Problem> {
        let confirmations = seen.into_iter().map(|(session_id, generation)| Confirmation { session_id, generation });
        let body = ConfirmBody { confirmations: confirmations.collect() };
        self.transport.ask(self.post("sessions/confirm", &body, Repeat::Safe)).await
    }

    pub(crate) async fn sign_out(&self, token: &Token) -> Result<(), Problem> {
        let text = Some(token.expose());
        let body = match token.is_refresh() {
            true => EndBody { refresh_token: text, access_token: None },
            false => EndBody { refresh_token: None, access_token: text },
        };
        self.transport.ask(self.post("sessions/end", &body, Repeat::Safe)).await
    }

    pub(crate) async fn revoke(&self, id: SessionId) -> Result<(), Problem> {
        self.transport.ask(self.call(Method::DELETE, &format!("sessions/{id}"), Repeat::Safe)).await
    }

    pub(crate) async fn revoke_user(&self, user_id: &UserId, except: Option<SessionId>) -> Result<u64, Problem> {
        let except = except.map(|id| format!("?except={id}")).unwrap_or_default();
        let path = format!("users/{}/sessions{except}", encoded(user_id));
        let ended: Ended = self.transport.ask(self.call(Method::DELETE, &path, Repeat::Safe)).await?;
        Ok(ended.revoked)
    }

    pub(crate) async fn credential_changed(&self, user_id: &UserId, keep: Option<SessionId>) -> Result<u64, Problem> {
        let path = format!("users/{}/credential-changed", encoded(user_id));
        let ended: Ended = self.transport.ask(self.post(&path, &KeepBody { keep }, Repeat::Safe)).await?;
        Ok(ended.revoked)
    }

    pub(crate) async fn list(&self, list: List) -> Result<Page, Problem> {
        let path = self.list_path(&list);
        let page: PageBody<SessionInfo> = self.transport.ask(self.call(Method::GET, &path, Repeat::Safe)).await?;
        Ok(Page { sessions: page.items, next: page.next_cursor.map(Cursor) })
    }

    fn list_path(&self, list: &List) -> String {
        let List { user_id, state, after, limit } = list;
        let path = String::from("sessions?");
        let from = path.len();
        let mut query = form_urlencoded::Serializer::for_suffix(path, from);
        query.append_pair("tag", self.place.tag.as_str());
        if let Some(user_id) = user_id {
            query.append_pair("user_id", user_id.as_str());
        }
        if let Some(state) = state {
            query.append_pair("state", if *state == State::Active { "active" } else { "ended" });
        }
        if let Some(Cursor(after)) = after {
            query.append_pair("cursor", after);
        }
        if let Some(limit) = limit {
            query.append_pair("limit", &limit.to_string());
        }
        query.finish()
    }

    pub(crate) async fn read(&self, id: SessionId) -> Result<SessionInfo, Problem> {
        self.transport.ask(self.call(Method::GET, &format!("sessions/{id}"), Repeat::Safe)).await
    }

    pub(crate) async fn patch(&self, id: SessionId, patch: Patch) -> Result<SessionInfo, Problem> {
        let body = PatchBody { data: patch.data.as_ref(), claims: patch.claims.as_ref() };
        // A repeated patch could undo what somebody else wrote in between.
        let mut call = self.body(Method::PATCH, &format!("sessions/{id}"), &body, Repeat::OnlyUnsent);
        if let Some(version) = patch.if_version {
            call = call.header("if-match", &format!("\"{version}\""))?;
        }
        self.transport.ask(call).await
    }

    pub(crate) async fn revocations(&self, since: u64, wait: Seconds) -> Result<Feed, Problem> {
        let path = format!("revocations?since={since}&wait={}&limit={FEED_PAGE}", wait.0);
        let call =
            self.call(Method::GET, &path, Repeat::Safe).within(Duration::from_secs(wait.0.min(30)) + FEED_TIMEOUT);
        let page: PageBody<Revocation> = self.transport.ask(call).await?;
        let next = page.next_cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(since);
        Ok(Feed { entries: page.items, next })
    }

    fn call(&self, method: Method, path: &str, repeat: Repeat) -> Call {
        Call::new(method, format!("{}{path}", self.base), repeat)
    }

    fn post(&self, path: &str, body: &impl Serialize, repeat: Repeat) -> Call {
        self.body(Method::POST, path, body, repeat)
    }

    fn body(&self, method: Method, path: &str, body: &impl Serialize, repeat: Repeat) -> Call {
        self.call(method, path, repeat).json(body)
    }
}

/// How many entries of the feed are asked for at a time: as many as the API gives.
const FEED_PAGE: u32 = 200;

/// How long the feed may take beyond the time that it was told to wait: another server is asked soon.
const FEED_TIMEOUT: Duration = Duration::from_millis(1500);

/// What stands in a path as it is (RFC 3986, 2.3).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn encoded(user_id: &UserId) -> String {
    utf8_percent_encode(user_id.as_str(), PLAIN).to_string()
}

#[derive(Serialize)]
struct StartBody<'a> {
    tag: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a UserId>,
    data: &'a Map<String, Value>,
    claims: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<&'a Auth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commitment: Option<Commitment>,
    client: &'a Client,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_session_id: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<Seconds>,
}

#[derive(Serialize)]
struct RefreshBody<'a> {
    refresh_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<ProofBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<&'a Auth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a Client>,
}

#[derive(Serialize)]
struct ProofBody<'a> {
    session_id: SessionId,
    generation: u32,
    commitment: Commitment,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "exposed")]
    opening: Option<&'a Opening>,
    newest: bool,
}

impl<'a> ProofBody<'a> {
    fn of(proof: &'a Proof) -> Self {
        let Proof { session_id, generation, commitment, opening, newest } = proof;
        Self {
            session_id: *session_id,
            generation: *generation,
            commitment: *commitment,
            opening: opening.as_ref(),
            newest: *newest,
        }
    }
}

fn exposed<S: serde::Serializer>(opening: &Option<&Opening>, serializer: S) -> Result<S::Ok, S::Error> {
    opening.map(Opening::expose).as_deref().serialize(serializer)
}

#[derive(Serialize)]
struct MintBody<'a> {
    refresh_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lifetime: Option<Seconds>,
}

#[derive(Serialize)]
struct VerifyBody<'a> {
    access_token: &'a str,
    tag: &'a str,
    online: bool,
}

#[derive(Deserialize)]
struct Verification {
    active: bool,
    code: Option<Code>,
    which: Option<rekindle::rotation::Expiry>,
}

#[derive(Serialize)]
struct ConfirmBody {
    confirmations: Vec<Confirmation>,
}

#[derive(Serialize)]
struct Confirmation {
    session_id: SessionId,
    generation: u32,
}

#[derive(Serialize)]
struct EndBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
}

#[derive(Serialize)]
struct KeepBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<SessionId>,
}

#[derive(Serialize)]
struct PatchBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<&'a Map<String, Value>>,
}

#[derive(Deserialize)]
struct Ended {
    revoked: u64,
}

#[derive(Deserialize)]
struct PageBody<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}
