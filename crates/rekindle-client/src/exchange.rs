//! A request's way through [`crate::web`] and the handle, whatever the framework: what a middleware, its handlers and its routes call.
//!
//! An adapter describes each request as [`Request`], asks [`Sessions::exchange`] for an [`Exchange`], and then, in this order:
//!
//! 1. [`Exchange::early`]: an answer to give at once, in place of the application's;
//! 2. [`Sessions::route`] and [`Exchange::answer`]: the session's own routes;
//! 3. [`Exchange::session`] and [`Exchange::sign_in`]: for a handler;
//! 4. [`Exchange::headers`]: to be added to whatever is answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use rekindle::{
    access::Verified,
    clock::Timestamp,
    refresh::Commitment,
    session::{Auth, Client, SessionId, UserId},
};
use serde_json::{Map, Value};

use crate::{
    handle::{Rekindle, Trust},
    problem::{Code, Problem},
    session::{List, Patch, Refresh, SessionInfo, Start, State, Token, Tokens},
    web::{Answer, Claim, Credentials, Request, RevokeRequest, Via, Web},
};

/// A handle and the rules of the web. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    rekindle: Rekindle,
    web: Web,
    trust: Trust,
}

/// One request, and what its answer needs.
pub struct Exchange {
    sessions: Sessions,
    credentials: Result<Credentials, Problem>,
    /// What lets the script of a listed origin read the answer.
    cors: HeaderMap,
    /// The answer depends on who asks: no cache may give it to anybody else.
    personal: AtomicBool,
}

/// A route of the session's own, under `{base}/session`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST {base}/session/refresh`.
    Refresh,
    /// `POST {base}/session/signout`.
    SignOut,
    /// `GET {base}/session/list`.
    List,
    /// `POST {base}/session/revoke`; the only one with a body.
    Revoke,
    /// `GET {base}/session/refresh.js`.
    Script,
}

/// What a handler needs of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Need {
    /// Instead of what [`Sessions::trusting`] said.
    pub trust: Option<Trust>,
    /// Where the access token has expired, a short one is minted for the refresh token: for pages that are rendered on the server, since
    /// nothing rotates and no cookie has to be set. Only for requests that read; needs [`crate::web::Cookies::Ssr`].
    pub mint: bool,
}

/// Why a request has no session, and the answer that says so.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What is wrong.
    pub problem: Problem,
    /// The answer to the request, or the page that refreshes, where a browser asked for a page.
    pub answer: Box<Answer>,
}

impl Refusal {
    /// Whether there is just no session, or its token has expired. Otherwise something is out of order: an outage, ambiguous cookies.
    pub fn is_absence(&self) -> bool {
        let about_token = self.problem.is_terminal()
            || matches!(
                self.problem.code(),
                Code::AccessTokenExpired | Code::TokenMalformed | Code::TokenScopeMismatch
            );
        about_token && self.problem.code().status() == StatusCode::UNAUTHORIZED
    }
}

impl Route {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Refresh, Self::SignOut, Self::List, Self::Revoke, Self::Script];

    /// The longest body that one of them reads, in bytes.
    pub const MAX_BODY: usize = 1024;

    /// What stands behind `{base}/session/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refresh => "refresh",
            Self::SignOut => "signout",
            Self::List => "list",
            Self::Revoke => "revoke",
            Self::Script => "refresh.js",
        }
    }

    /// Its method.
    pub fn method(self) -> Method {
        match self {
            Self::Refresh | Self::SignOut | Self::Revoke => Method::POST,
            Self::List | Self::Script => Method::GET,
        }
    }
}

impl Sessions {
    /// Sessions of this handle, by these rules. A request's session is trusted as [`Trust::FailOpen`] says.
    pub fn new(rekindle: Rekindle, web: Web) -> Self {
        Self::trusting(rekindle, web, Trust::default())
    }

    /// The same where it is trusted as `trust` says.
    pub fn trusting(rekindle: Rekindle, web: Web, trust: Trust) -> Self {
        Self { inner: Arc::new(Inner { rekindle, web, trust }) }
    }

    /// The handle.
    pub fn rekindle(&self) -> &Rekindle {
        &self.inner.rekindle
    }

    /// The rules of the web.
    pub fn web(&self) -> &Web {
        &self.inner.web
    }

    /// A request, with the tokens that it carries. Nothing is believed yet.
    pub fn exchange(&self, request: &Request<'_>) -> Arc<Exchange> {
        let (credentials, cors) = (self.web().credentials(request), self.web().cors(request));
        Arc::new(Exchange { sessions: self.clone(), credentials, cors, personal: AtomicBool::new(false) })
    }

    /// Whether a request is for a route of the session's own. `Err`: for such a path with another method.
    pub fn route(&self, request: &Request<'_>) -> Option<Result<Route, Answer>> {
        let name = request.path.strip_prefix(self.web().settings().base.as_str())?.strip_prefix("/session/")?;
        let route = Route::ALL.into_iter().find(|route| route.name() == name)?;
        let fits =
            *request.method == route.method() || (*request.method == Method::HEAD && route.method() == Method::GET);
        if fits {
            return Some(Ok(route));
        }
        let problem = Problem::new(Code::MethodNotAllowed, format!("`{name}` is asked with {}", route.method()));
        let mut answer = Answer::from(&problem);
        let allow = HeaderValue::from_str(route.method().as_str()).expect("a method's name is ASCII");
        answer.headers.insert(header::ALLOW, allow);
        Some(Err(answer))
    }
}

impl Exchange {
    /// The answer to give in place of the application's: to the preflight of a listed origin, and to a request with cookies that
    /// another site's page has made.
    pub fn early(&self, request: &Request<'_>) -> Option<Answer> {
        let web = self.sessions.web();
        web.preflight(request).or_else(|| {
            let cookies = self.credentials.as_ref().ok().filter(|c| c.via == Via::Cookies && c.any())?;
            let refused = web.check_csrf(request).err()?;
            Some(web.refusal(request, Some(cookies), &refused))
        })
    }

    /// What the answer needs beside its own headers, which stay: see [`merge`]. To be asked once the answer is there.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = self.cors.clone();
        if self.personal.load(Ordering::Relaxed) {
            headers.append(header::VARY, HeaderValue::from_static("cookie, authorization"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        }
        headers
    }

    /// The request's session, verified without I/O unless [`Trust::Online`] is needed.
    pub async fn session(self: &Arc<Self>, request: &Request<'_>, need: Need) -> Result<Session, Refusal> {
        self.is_personal();
        self.verified(request, need).await.map_err(|problem| self.refused(request, problem))
    }

    /// Begins a sign-in: a page of another site cannot sign a visitor in (`csrf_failed`), since it would watch what the visitor then does in
    /// the attacker's account.
    pub fn sign_in(self: &Arc<Self>, request: &Request<'_>) -> Result<SignIn, Refusal> {
        self.is_personal();
        let begin = || {
            let credentials = self.credentials.clone()?;
            self.sessions.web().check_csrf_of_sign_in(request, &credentials)?;
            let commitment = Claim::of(request)?.and_then(|claim| claim.first());
            Ok(SignIn { exchange: self.clone(), credentials, commitment, client: request.client() })
        };
        begin().map_err(|problem| Refusal { answer: Box::new(self.sessions.web().problem(&problem)), problem })
    }

    /// Answers a route of the session's own; `body` matters to [`Route::Revoke`] only.
    pub async fn answer(self: &Arc<Self>, route: Route, request: &Request<'_>, body: &[u8]) -> Answer {
        if route == Route::Script {
            return self.sessions.web().refresh_script();
        }
        self.is_personal();
        let answered = match route {
            Route::Refresh => self.refresh(request).await,
            Route::SignOut => self.sign_out(request).await,
            Route::List => self.list(request).await,
            Route::Revoke | Route::Script => self.revoke(request, body).await,
        };
        answered.unwrap_or_else(|problem| *self.refused(request, problem).answer)
    }

    /// The headers that take this client's cookies back, whatever they are.
    pub fn cleared(&self) -> HeaderMap {
        self.credentials.as_ref().map(|credentials| self.sessions.web().clear(credentials)).unwrap_or_default()
    }

    fn refused(&self, request: &Request<'_>, problem: Problem) -> Refusal {
        let answer = self.sessions.web().refusal(request, self.credentials.as_ref().ok(), &problem);
        Refusal { problem, answer: Box::new(answer) }
    }

    fn is_personal(&self) {
        self.personal.store(true, Ordering::Relaxed);
    }

    fn credentials(&self) -> Result<&Credentials, Problem> {
        self.credentials.as_ref().map_err(Problem::clone)
    }

    /// Those of a request for a refresh or a sign-out.
    fn guarded(&self, request: &Request<'_>) -> Result<&Credentials, Problem> {
        let credentials = self.credentials()?;
        if credentials.via == Via::Cookies {
            self.sessions.web().check_csrf_of_session_route(request)?;
        }
        Ok(credentials)
    }

    async fn verified(self: &Arc<Self>, request: &Request<'_>, need: Need) -> Result<Session, Problem> {
        let (web, rekindle) = (self.sessions.web(), self.sessions.rekindle());
        let credentials = self.credentials()?;
        let trust = need.trust.unwrap_or(self.sessions.inner.trust);
        let verify = async || match &credentials.access {
            Some(token) => Ok((rekindle.verify(token, trust).await?, token.clone())),
            None => Err(web.without_access_token(credentials)),
        };
        let mint = need.mint && request.method.is_safe();
        let (verified, access_token) = match (verify().await, &credentials.refresh) {
            (Err(problem), Some(refresh)) if mint && problem.code() == Code::AccessTokenExpired => {
                let minted = rekindle.mint(refresh, None).await?;
                (rekindle.verify(&minted.access_token, trust).await?, minted.access_token)
            }
            (verified, _) => verified?,
        };
        if credentials.via == Via::Cookies {
            // The handshake of a WebSocket passes no middleware.
            web.check_csrf(request)?;
            web.check_csrf_token(request, verified.session, verified.generation)?;
        }
        let (proof, client) = (Claim::of(request)?, request.client());
        Ok(Session { verified, exchange: self.clone(), access_token, proof, client })
    }

    async fn refresh(&self, request: &Request<'_>) -> Result<Answer, Problem> {
        let credentials = self.guarded(request)?;
        let proof = Claim::of(request)?.and_then(Claim::step);
        let missing = || Problem::new(Code::TokenMalformed, "there is no refresh token: sign in");
        let token = credentials.refresh.clone().ok_or_else(missing)?;
        let rekindle = self.sessions.rekindle();
        let tokens = rekindle.refresh(Refresh { token, proof, client: request.client() }).await?;
        self.sessions.web().refreshed(credentials, &tokens, rekindle.now())
    }

    async fn sign_out(&self, request: &Request<'_>) -> Result<Answer, Problem> {
        let credentials = self.guarded(request)?;
        let proof = Claim::of(request)?.and_then(Claim::step);
        if let (Some(proof), Some(marker)) = (proof, credentials.marker)
            && proof.session_id != marker.session_id
        {
            return Err(Problem::new(Code::Superseded, "another session has come into this browser meanwhile")
                .about_token(marker.session_id, marker.generation));
        }
        if let Some(token) = credentials.refresh.as_ref().or(credentials.access.as_ref()) {
            match self.sessions.rekindle().sign_out(token).await {
                Ok(()) => {}
                // There is no session of ours behind it, and the user wants to be out.
                Err(problem) if matches!(problem.code(), Code::TokenMalformed | Code::TokenScopeMismatch) => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(self.sessions.web().signed_out(credentials))
    }

    async fn list(self: &Arc<Self>, request: &Request<'_>) -> Result<Answer, Problem> {
        let session = self.verified(request, Need::default()).await?;
        let sessions = match session.user_id().is_anonymous() {
            true => vec![session.read().await?],
            false => {
                let user_id = Some(session.user_id().clone());
                let list = List { user_id, state: Some(State::Active), limit: Some(SHOWN), ..List::default() };
                self.sessions.rekindle().list(list).await?.sessions
            }
        };
        Ok(self.sessions.web().listed(&sessions, session.id()))
    }

    async fn revoke(self: &Arc<Self>, request: &Request<'_>, body: &[u8]) -> Result<Answer, Problem> {
        let session = self.verified(request, Need::default()).await?;
        session.require_fresh_sign_in()?;
        if body.len() > Route::MAX_BODY {
            let detail = format!("send at most {} bytes", Route::MAX_BODY);
            return Err(Problem::new(Code::PayloadTooLarge, detail));
        }
        let (revoked, current) = match RevokeRequest::parse(body)? {
            RevokeRequest::One(id) => (u64::from(self.revoke_one(&session, id).await?), id == session.id()),
            // The anonymous user is nobody: its other sessions are other people's.
            RevokeRequest::Others if session.user_id().is_anonymous() => (0, false),
            RevokeRequest::Others => {
                (self.sessions.rekindle().revoke_user(session.user_id(), Some(session.id())).await?, false)
            }
        };
        Ok(self.sessions.web().revoked(self.credentials()?, revoked, current))
    }

    /// Ends a session if it is the user's own; whether it was active. To anybody else it does not exist.
    async fn revoke_one(&self, session: &Session, id: SessionId) -> Result<bool, Problem> {
        let rekindle = self.sessions.rekindle();
        let found = rekindle.read(id).await?;
        let own = found.id == session.id() || (found.user_id == *session.user_id() && !found.user_id.is_anonymous());
        if !own {
            return Err(Problem::new(Code::SessionNotFound, format!("there is no session {id} of this user")));
        }
        rekindle.revoke(id).await?;
        Ok(found.state == State::Active)
    }
}

/// How many of a user's sessions are shown.
const SHOWN: u32 = 200;

/// Adds to an answer's headers what is not there; an application's own stay, and `Vary` grows.
pub fn merge(headers: &mut HeaderMap, more: HeaderMap) {
    for (name, value) in &more {
        if name == header::VARY {
            headers.append(name, value.clone());
        } else {
            headers.entry(name).or_insert(value.clone());
        }
    }
}

/// The session of a request.
#[derive(Clone)]
pub struct Session {
    verified: Arc<Verified>,
    exchange: Arc<Exchange>,
    access_token: Token,
    proof: Option<Claim>,
    client: Client,
}

impl Session {
    /// The same, where it is known only now from where the request came.
    pub fn coming_from(mut self, ip: IpAddr) -> Self {
        self.client.ip = Some(ip.to_string());
        self
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.verified.session
    }

    /// Whose it is.
    pub fn user_id(&self) -> &UserId {
        &self.verified.user_id
    }

    /// Its own claims.
    pub fn claims(&self) -> Map<String, Value> {
        self.verified.claims.to_map()
    }

    /// The present moment, by the clock that decides about its tokens.
    pub fn now(&self) -> Timestamp {
        self.rekindle().now()
    }

    /// All that its access token says.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Its row, with the application's data. As [`Rekindle::read`].
    pub async fn read(&self) -> Result<SessionInfo, Problem> {
        self.rekindle().read(self.id()).await
    }

    /// Changes its data and claims. As [`Rekindle::patch`]; `data_invalid`, too, if the claims would not fit into the cookie.
    pub async fn patch(&self, patch: Patch) -> Result<SessionInfo, Problem> {
        if let (Some(claims), Ok(Credentials { via: Via::Cookies, .. })) = (&patch.claims, &self.exchange.credentials) {
            let present = self.claims();
            let mut merged = Value::Object(present.clone());
            rekindle::merge_patch(&mut merged, &Value::Object(claims.clone()));
            let merged = merged.as_object().expect("an object patched with an object is one");
            self.web().check_claims(&self.access_token, &present, merged)?;
        }
        self.rekindle().patch(self.id(), patch).await
    }

    /// Ends it. The answer must carry [`SignedOut`], which takes the cookies back.
    pub async fn sign_out(self) -> Result<SignedOut, Problem> {
        let credentials = self.exchange.credentials()?;
        self.rekindle().sign_out(&self.access_token).await?;
        Ok(SignedOut { headers: self.web().clear(credentials) })
    }

    /// Notes that the user has authenticated again, and gives new tokens: those of before are refused from then on. Needs the refresh
    /// token ([`crate::web::Cookies::Ssr`]) and, of a committed session, its proof. As [`Rekindle::elevate`].
    pub async fn elevate(self, auth: Auth) -> Result<SignedIn, Problem> {
        let credentials = self.exchange.credentials()?;
        let missing = || Problem::new(Code::ProofRequired, "the refresh token did not come with this request");
        let token = credentials.refresh.clone().ok_or_else(missing)?;
        let proof = self.proof.clone().and_then(Claim::step);
        let refresh = Refresh { token, proof, client: self.client.clone() };
        let tokens = self.rekindle().elevate(refresh, auth).await?;
        SignedIn::new(&self.exchange, credentials, tokens)
    }

    /// Refuses with `reauthentication_required` if the user signed in longer ago than [`crate::web::Settings::fresh_for`].
    pub fn require_fresh_sign_in(&self) -> Result<(), Problem> {
        self.web().check_fresh(&self.verified.auth, self.now())
    }

    fn rekindle(&self) -> &Rekindle {
        self.exchange.sessions.rekindle()
    }

    fn web(&self) -> &Web {
        self.exchange.sessions.web()
    }
}

/// A handler that signs a user in takes this, checks the password, and calls [`SignIn::start`].
///
/// A page of another site cannot sign a visitor in (`csrf_failed`): it would watch what the visitor then does in the attacker's account.
pub struct SignIn {
    exchange: Arc<Exchange>,
    credentials: Credentials,
    commitment: Option<Commitment>,
    client: Client,
}

impl SignIn {
    /// Lets the cookies end with the browser's session.
    pub fn until_browser_closes(mut self) -> Self {
        self.credentials.remember = false;
        self
    }

    /// Starts a session, committed if the client offered that, and ends the one that the client had. The answer must carry [`SignedIn`], which
    /// holds the cookies. As [`Rekindle::start`]; `data_invalid`, too, if the claims do not fit into a cookie.
    pub async fn start(self, start: Start) -> Result<SignedIn, Problem> {
        let Self { exchange, credentials, commitment, client } = self;
        let rekindle = exchange.sessions.rekindle();
        let Client { ip, user_agent, device } = start.client;
        let client = Client { ip: ip.or(client.ip), user_agent: user_agent.or(client.user_agent), device };
        let start = Start { commitment: start.commitment.or(commitment), client, ..start };
        let tokens = rekindle.start(start).await?;
        let id = tokens.session.id;
        match SignedIn::new(&exchange, &credentials, tokens) {
            Ok(signed_in) => {
                if let Some(earlier) = credentials.refresh.as_ref().or(credentials.access.as_ref())
                    && let Err(problem) = rekindle.sign_out(earlier).await
                    && problem.is_transient()
                {
                    tracing::warn!(%problem, "the session before a sign-in was not ended, and will be by its idle timeout");
                }
                Ok(signed_in)
            }
            // Nobody has its tokens.
            Err(problem) => rekindle.revoke(id).await.and(Err(problem)),
        }
    }
}

/// New tokens on their way to a client.
pub struct SignedIn {
    tokens: Tokens,
    headers: HeaderMap,
}

impl SignedIn {
    fn new(exchange: &Exchange, credentials: &Credentials, tokens: Tokens) -> Result<Self, Problem> {
        let headers = exchange.sessions.web().issue(credentials, &tokens, exchange.sessions.rekindle().now())?;
        Ok(Self { tokens, headers })
    }

    /// The tokens and their session.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// What the answer must carry; `Set-Cookie` comes several times.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

/// Cookies taken back.
pub struct SignedOut {
    headers: HeaderMap,
}

impl SignedOut {
    /// What the answer must carry; `Set-Cookie` comes several times.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}
