//! A request's way through the rules of the web.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rekindle::clock::Seconds;
use rekindle_client::{
    Problem, Trust,
    exchange::{self, Need, Route, Sessions, SignedIn},
    problem::Code,
    web::{self, Cookies, CsrfKey, Request, SameSite, Settings, Web},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Failed,
    handle::{PatchInput, StartInput},
    json::{answer, headers, pairs, parse, read_object, tokens, verified},
};

/// What an application decides once about its sessions on the web.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WebOptions {
    base: Option<String>,
    cookies: Option<String>,
    same_site: Option<String>,
    prefix: Option<String>,
    development: Option<bool>,
    origins: Option<Vec<String>>,
    sign_in: Option<String>,
    fresh_for: Option<u32>,
    ended_as_440: Option<bool>,
    trust: Option<String>,
}

impl WebOptions {
    pub(crate) fn trust(&self) -> Result<Trust, Failed> {
        self.trust.as_deref().map_or(Ok(Trust::default()), trust)
    }

    pub(crate) fn web(self, csrf_key: Option<&[u8]>) -> Result<Web, Failed> {
        Web::new(self.settings(csrf_key)?).map_err(|why| Failed::field("web", why))
    }

    fn settings(self, csrf_key: Option<&[u8]>) -> Result<Settings, Failed> {
        let default = Settings::default();
        let csrf_token = match csrf_key {
            Some(key) if key.len() < 32 => return Err(Failed::field("csrf_key", "must have at least 32 bytes")),
            key => key.map(CsrfKey::new),
        };
        Ok(Settings {
            base: self.base.unwrap_or(default.base),
            cookies: match self.cookies.as_deref() {
                None => default.cookies,
                Some("ssr") => Cookies::Ssr,
                Some("spa") => Cookies::Spa,
                Some(_) => return Err(Failed::field("cookies", "must be `ssr` or `spa`")),
            },
            same_site: match self.same_site.as_deref() {
                None => default.same_site,
                Some("lax") => SameSite::Lax,
                Some("strict") => SameSite::Strict,
                Some("none") => SameSite::None,
                Some(_) => return Err(Failed::field("same_site", "must be `lax`, `strict` or `none`")),
            },
            prefix: self.prefix.unwrap_or(default.prefix),
            development: self.development.unwrap_or(default.development),
            origins: self.origins.unwrap_or(default.origins),
            sign_in: self.sign_in.unwrap_or(default.sign_in),
            fresh_for: self.fresh_for.map_or(default.fresh_for, |seconds| Seconds(seconds.into())),
            ended_as_440: self.ended_as_440.unwrap_or(default.ended_as_440),
            csrf_token,
        })
    }
}

/// Says what [`Handle::site`](crate::Handle::site) would refuse, before there is a handle.
pub fn check_web(options: Value, csrf_key: Option<&[u8]>) -> Result<(), Failed> {
    let options: WebOptions = read_object("web", options)?;
    options.trust()?;
    options.web(csrf_key).map(drop)
}

/// How far an access token is trusted, by its name.
pub(crate) fn trust(name: &str) -> Result<Trust, Failed> {
    match name {
        "fail-open" => Ok(Trust::FailOpen),
        "fail-closed" => Ok(Trust::FailClosed),
        "online" => Ok(Trust::Online),
        _ => Err(Failed::field("trust", "must be `fail-open`, `fail-closed` or `online`")),
    }
}

/// Sessions on the web. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    sessions: Sessions,
}

/// A request, as it came.
struct Head {
    method: Method,
    path: String,
    headers: HeaderMap,
    authority: Option<String>,
    ip: OnceLock<IpAddr>,
}

impl Head {
    fn request(&self) -> Request<'_> {
        let Self { method, path, headers, authority, ip } = self;
        Request { method, path, headers, authority: authority.as_deref(), ip: ip.get().copied() }
    }
}

impl Site {
    pub(crate) fn new(sessions: Sessions) -> Self {
        Self { sessions }
    }

    /// A request. `path` is without the query; `lines` are its headers, `name: value` and a line feed each, in which a character stands for
    /// the byte of that number, and of which only those in [`web::HEADERS`] matter. See [`Exchange::comes_from`], too.
    pub fn exchange(
        &self,
        method: &str,
        path: String,
        lines: &str,
        authority: Option<String>,
    ) -> Result<Exchange, Failed> {
        let wrong = |what: &str| Problem::new(Code::InvalidRequest, format!("the request's {what} is none"));
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| wrong("method"))?;
        let mut headers = HeaderMap::new();
        for line in lines.lines() {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("header"))?;
            let value = match value.is_ascii() {
                true => HeaderValue::from_str(value),
                false => HeaderValue::from_bytes(&value.chars().map(|character| character as u8).collect::<Vec<_>>()),
            };
            headers.append(name, value.map_err(|_| wrong("header"))?);
        }
        let head = Head { method, path, headers, authority, ip: OnceLock::new() };
        let exchange = self.sessions.exchange(&head.request());
        Ok(Exchange { sessions: self.sessions.clone(), exchange, head: Arc::new(head) })
    }

    /// The token against CSRF of a session's generation, where there is a key.
    pub fn csrf_token(&self, session_id: &str, generation: u32) -> Result<Option<String>, Failed> {
        let id = parse("session_id", session_id)?;
        Ok(self.sessions.web().settings().csrf_token.as_ref().map(|key| key.token(id, generation)))
    }

    /// Whether a text is that token; true where there is no key.
    pub fn csrf_matches(&self, given: &str, session_id: &str, generation: u32) -> Result<bool, Failed> {
        let id = parse("session_id", session_id)?;
        let key = self.sessions.web().settings().csrf_token.as_ref();
        Ok(key.is_none_or(|key| key.matches(given, id, generation)))
    }

    /// The names of the headers that an exchange looks at; others need not be handed over.
    pub fn headers() -> &'static [&'static str] {
        web::HEADERS
    }
}

/// One request, and what its answer needs. Cheap to clone.
#[derive(Clone)]
pub struct Exchange {
    sessions: Sessions,
    exchange: Arc<exchange::Exchange>,
    head: Arc<Head>,
}

/// What became of a request for its session.
pub enum Outcome {
    /// It has a good one.
    Session(Session),
    /// It has none.
    Refusal {
        /// The answer that says so to the client, as [`answer`].
        answer: Value,
        /// Whether there just is no session, or its token has expired.
        absent: bool,
        /// The problem's code.
        code: &'static str,
    },
}

impl Exchange {
    /// Tells the request's address, which only matters where something is written down: to sign-ins, to elevations, and to routes of the
    /// session's own. Once; what is no address is as none.
    pub fn comes_from(&self, ip: &str) {
        if let Ok(ip) = ip.parse::<IpAddr>() {
            // A server on all addresses sees those of version 4 as `::ffff:…`.
            let _ = self.head.ip.set(ip.to_canonical());
        }
    }

    /// The answer to give in place of the application's, if there is one.
    pub fn early(&self) -> Option<Value> {
        self.exchange.early(&self.head.request()).as_ref().map(answer)
    }

    /// Whether the request is for a route of the session's own.
    pub fn is_route(&self) -> bool {
        self.sessions.route(&self.head.request()).is_some()
    }

    /// Answers it; `body` has at most one byte more than [`Exchange::longest_body`].
    pub async fn answer(&self, body: &[u8]) -> Result<Value, Failed> {
        match self.sessions.route(&self.head.request()) {
            Some(Ok(route)) => Ok(answer(&self.exchange.answer(route, &self.head.request(), body).await)),
            Some(Err(refused)) => Ok(answer(&refused)),
            None => Err(Problem::new(Code::NotFound, "this is no route of the session's own").into()),
        }
    }

    /// Rotates the request's refresh token, whatever its path; the answer of the route that does so.
    pub async fn refresh(&self) -> Value {
        answer(&self.exchange.answer(Route::Refresh, &self.head.request(), &[]).await)
    }

    /// The headers that take this client's cookies back.
    pub fn cleared(&self) -> Value {
        headers(&self.exchange.cleared())
    }

    /// The longest body that a route of the session's own reads, in bytes.
    pub fn longest_body() -> usize {
        Route::MAX_BODY
    }

    /// What the answer needs beside its own headers.
    pub fn headers(&self) -> Vec<(String, String)> {
        pairs(&self.exchange.headers())
    }

    /// The request's session, trusted as `trusted` says, or as the site does; with `mint`, an expired access token does not matter.
    pub async fn session(&self, trusted: Option<&str>, mint: bool) -> Result<Outcome, Failed> {
        let trust = trusted.map(trust).transpose()?;
        Ok(match self.exchange.session(&self.head.request(), Need { trust, mint }).await {
            Ok(session) => Outcome::Session(Session { session, head: self.head.clone() }),
            Err(refusal) => Outcome::Refusal {
                answer: answer(&refusal.answer),
                absent: refusal.is_absence(),
                code: refusal.problem.code().as_str(),
            },
        })
    }

    /// Starts a session: its `tokens`, and the `headers` that the answer must carry. Without `remember` its cookies end with the browser.
    pub async fn sign_in(&self, start: Value, remember: bool) -> Result<Value, Failed> {
        let start = read_object::<StartInput>("start", start)?.try_into()?;
        let sign_in = self.exchange.sign_in(&self.head.request()).map_err(|refusal| refusal.problem)?;
        let sign_in = if remember { sign_in } else { sign_in.until_browser_closes() };
        Ok(signed_in(&sign_in.start(start).await?))
    }
}

fn signed_in(signed_in: &SignedIn) -> Value {
    json!({ "tokens": tokens(signed_in.tokens()), "headers": headers(signed_in.headers()) })
}

/// The session of a request. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    session: exchange::Session,
    head: Arc<Head>,
}

impl Session {
    /// Its id.
    pub fn id(&self) -> String {
        self.session.id().to_string()
    }

    /// Whose it is.
    pub fn user_id(&self) -> String {
        self.session.user_id().to_string()
    }

    /// When its access token expires, in milliseconds since 1970.
    pub fn expires_at_millis(&self) -> i64 {
        self.session.verified().expires_at.millis()
    }

    /// What its access token says.
    pub fn verified(&self) -> Value {
        verified(self.session.verified())
    }

    /// Its row.
    pub async fn read(&self) -> Result<Value, Failed> {
        Ok(json!(self.session.read().await?))
    }

    /// Changes its data and claims.
    pub async fn patch(&self, patch: Value) -> Result<Value, Failed> {
        let patch = read_object::<PatchInput>("patch", patch)?.into();
        Ok(json!(self.session.patch(patch).await?))
    }

    /// Ends it; the headers that the answer must carry.
    pub async fn sign_out(&self) -> Result<Value, Failed> {
        Ok(headers(self.session.clone().sign_out().await?.headers()))
    }

    /// Notes that the user has authenticated again: new `tokens`, with the `headers` that the answer must carry.
    pub async fn elevate(&self, auth: Value) -> Result<Value, Failed> {
        let auth = read_object("auth", auth)?;
        let session = self.session.clone();
        let session = match self.head.ip.get() {
            Some(&ip) => session.coming_from(ip),
            None => session,
        };
        Ok(signed_in(&session.elevate(auth).await?))
    }

    /// Refuses if the user signed in too long ago.
    pub fn require_fresh_sign_in(&self) -> Result<(), Failed> {
        Ok(self.session.require_fresh_sign_in()?)
    }
}
