//! A request's way through the rules of the web.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use napi::bindgen_prelude::{Buffer, Result};
use napi_derive::napi;
use rekindle::clock::Seconds;
use rekindle_client::{
    Problem,
    exchange::{Exchange, Need, Route, Session, Sessions, SignedIn},
    problem::Code,
    web::{Cookies, CsrfKey, Request, SameSite, Settings},
};
use serde_json::{Value, json};

use crate::{
    border::{NativeAnswer, headers, parse, read, thrown, tokens},
    handle::{PatchInput, StartInput, trust},
};

/// What an application decides once about its sessions on the web.
#[napi(object)]
pub struct WebOptions {
    /// Under which path the routes are.
    pub base: Option<String>,
    /// `ssr` or `spa`.
    pub cookies: Option<String>,
    /// `lax`, `strict` or `none`.
    pub same_site: Option<String>,
    /// Goes before the cookies' names.
    pub prefix: Option<String>,
    /// Cookies go without `Secure` on `http://localhost`.
    pub development: Option<bool>,
    /// Other origins whose scripts may use the session.
    pub origins: Option<Vec<String>>,
    /// The path of the page on which a user signs in.
    pub sign_in: Option<String>,
    /// How many seconds ago a user may have signed in to end other sessions.
    pub fresh_for: Option<u32>,
    /// Whether the end of a session is answered with the status 440.
    pub ended_as_440: Option<bool>,
    /// A key of at least 32 bytes: unsafe requests need the header `anti-csrf`, too.
    pub csrf_key: Option<Buffer>,
    /// `fail-open`, `fail-closed` or `online`.
    pub trust: Option<String>,
}

impl WebOptions {
    pub(crate) fn settings(self) -> Result<Settings> {
        let wrong = |field: &str, why: &str| thrown(Problem::field(field, why.to_owned()));
        let default = Settings::default();
        let csrf_token = match self.csrf_key {
            Some(key) if key.len() < 32 => return Err(wrong("csrfKey", "must have at least 32 bytes")),
            key => key.map(|key| CsrfKey::new(&key)),
        };
        Ok(Settings {
            base: self.base.unwrap_or(default.base),
            cookies: match self.cookies.as_deref() {
                None => default.cookies,
                Some("ssr") => Cookies::Ssr,
                Some("spa") => Cookies::Spa,
                Some(_) => return Err(wrong("cookies", "must be `ssr` or `spa`")),
            },
            same_site: match self.same_site.as_deref() {
                None => default.same_site,
                Some("lax") => SameSite::Lax,
                Some("strict") => SameSite::Strict,
                Some("none") => SameSite::None,
                Some(_) => return Err(wrong("sameSite", "must be `lax`, `strict` or `none`")),
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

/// Sessions on the web.
#[napi]
pub struct Site {
    sessions: Sessions,
}

/// A request, as it came.
struct Head {
    method: Method,
    path: String,
    headers: HeaderMap,
    authority: Option<String>,
    ip: Option<IpAddr>,
}

impl Head {
    fn request(&self) -> Request<'_> {
        let Self { method, path, headers, authority, ip } = self;
        Request { method, path, headers, authority: authority.as_deref(), ip: *ip }
    }
}

impl Site {
    pub(crate) fn new(sessions: Sessions) -> Self {
        Self { sessions }
    }
}

#[napi]
impl Site {
    /// A request. `lines` are its headers, `name: value` and a line feed each; `path` is without the query.
    #[napi]
    pub fn exchange(
        &self,
        method: String,
        path: String,
        lines: String,
        authority: Option<String>,
        ip: Option<String>,
    ) -> Result<NativeExchange> {
        let wrong = |what: &str| thrown(Problem::new(Code::InvalidRequest, format!("the request's {what} is none")));
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| wrong("method"))?;
        let mut headers = HeaderMap::new();
        for line in lines.lines() {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            // Node.js hands out a byte as the character of that number.
            let value: Vec<u8> = value.chars().map(|character| character as u8).collect();
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("header"))?;
            headers.append(name, HeaderValue::from_bytes(&value).map_err(|_| wrong("header"))?);
        }
        // A server on all addresses sees those of version 4 as `::ffff:…`.
        let ip = ip.and_then(|ip| ip.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical());
        let head = Head { method, path, headers, authority, ip };
        let exchange = self.sessions.exchange(&head.request());
        Ok(NativeExchange { sessions: self.sessions.clone(), exchange, head: Arc::new(head) })
    }

    /// The token against CSRF of a session's generation, where there is a key.
    #[napi]
    pub fn csrf_token(&self, session_id: String, generation: u32) -> Result<Option<String>> {
        let id = parse("sessionId", &session_id)?;
        Ok(self.sessions.web().settings().csrf_token.as_ref().map(|key| key.token(id, generation)))
    }

    /// Whether a text is that token; true where there is no key.
    #[napi]
    pub fn csrf_matches(&self, given: String, session_id: String, generation: u32) -> Result<bool> {
        let id = parse("sessionId", &session_id)?;
        let key = self.sessions.web().settings().csrf_token.as_ref();
        Ok(key.is_none_or(|key| key.matches(&given, id, generation)))
    }

    /// The names of the headers that an exchange looks at; others need not be handed over.
    #[napi]
    pub fn headers(&self) -> Vec<&'static str> {
        HEADERS.to_vec()
    }
}

/// The headers that [`rekindle_client::web`] looks at.
const HEADERS: [&str; 14] = [
    "accept",
    "access-control-request-method",
    "anti-csrf",
    "authorization",
    "cookie",
    "host",
    "origin",
    "rekindle-mode",
    "rekindle-proof",
    "rekindle-request",
    "sec-fetch-mode",
    "sec-fetch-site",
    "upgrade",
    "user-agent",
];

/// One request, and what its answer needs.
#[napi]
pub struct NativeExchange {
    sessions: Sessions,
    exchange: Arc<Exchange>,
    head: Arc<Head>,
}

/// A session, or the answer that there is none.
#[napi(object, object_from_js = false)]
pub struct Outcome {
    /// The session, if it is good.
    pub session: Option<NativeSession>,
    /// The answer, if it is not.
    pub refusal: Option<NativeAnswer>,
    /// Whether there just is no session, or its token has expired.
    pub absent: bool,
    /// The problem's code.
    pub code: Option<&'static str>,
}

#[napi]
impl NativeExchange {
    /// The answer to give in place of the application's, if there is one.
    #[napi]
    pub fn early(&self) -> Option<NativeAnswer> {
        self.exchange.early(&self.head.request()).map(NativeAnswer::from)
    }

    /// Whether the request is for a route of the session's own.
    #[napi]
    pub fn is_route(&self) -> bool {
        self.sessions.route(&self.head.request()).is_some()
    }

    /// Answers it.
    #[napi]
    pub async fn answer(&self, body: Buffer) -> Result<NativeAnswer> {
        match self.sessions.route(&self.head.request()) {
            Some(Ok(route)) => Ok(self.exchange.answer(route, &self.head.request(), &body).await.into()),
            Some(Err(answer)) => Ok(answer.into()),
            None => Err(thrown(Problem::new(Code::NotFound, "this is no route of the session's own"))),
        }
    }

    /// Rotates the request's refresh token, whatever its path; the answer of the route that does so.
    #[napi]
    pub async fn refresh(&self) -> NativeAnswer {
        self.exchange.answer(Route::Refresh, &self.head.request(), &[]).await.into()
    }

    /// The headers that take this client's cookies back.
    #[napi]
    pub fn cleared(&self) -> Vec<String> {
        headers(&self.exchange.cleared())
    }

    /// The longest body that a route of the session's own reads.
    #[napi(getter)]
    pub fn longest_body(&self) -> u32 {
        Route::MAX_BODY as u32
    }

    /// What the answer needs beside its own headers: names and values in turn.
    #[napi]
    pub fn headers(&self) -> Vec<String> {
        headers(&self.exchange.headers())
    }

    /// The request's session.
    #[napi]
    pub async fn session(&self, trusted: Option<String>, mint: bool) -> Result<Outcome> {
        let trust = trusted.as_deref().map(trust).transpose()?;
        Ok(match self.exchange.session(&self.head.request(), Need { trust, mint }).await {
            Ok(session) => {
                Outcome { session: Some(NativeSession { session }), refusal: None, absent: false, code: None }
            }
            Err(refusal) => Outcome {
                session: None,
                absent: refusal.is_absence(),
                code: Some(refusal.problem.code().as_str()),
                refusal: Some((*refusal.answer).into()),
            },
        })
    }

    /// Starts a session, and gives its tokens with the headers that the answer must carry.
    #[napi]
    pub async fn sign_in(&self, start: Value, remember: bool) -> Result<Value> {
        let start = read::<StartInput>("start", start)?.try_into()?;
        let sign_in = self.exchange.sign_in(&self.head.request()).map_err(|refusal| thrown(refusal.problem))?;
        let sign_in = if remember { sign_in } else { sign_in.until_browser_closes() };
        Ok(signed_in(&sign_in.start(start).await.map_err(thrown)?))
    }
}

fn signed_in(signed_in: &SignedIn) -> Value {
    json!({ "tokens": tokens(signed_in.tokens()), "headers": headers(signed_in.headers()) })
}

/// The session of a request.
#[napi]
pub struct NativeSession {
    session: Session,
}

#[napi]
impl NativeSession {
    /// Its id.
    #[napi(getter)]
    pub fn id(&self) -> String {
        self.session.id().to_string()
    }

    /// Whose it is.
    #[napi(getter)]
    pub fn user_id(&self) -> String {
        self.session.user_id().to_string()
    }

    /// What its access token says.
    #[napi(getter)]
    pub fn verified(&self) -> Value {
        crate::border::verified(self.session.verified())
    }

    /// Its row.
    #[napi]
    pub async fn read(&self) -> Result<Value> {
        Ok(json!(self.session.read().await.map_err(thrown)?))
    }

    /// Changes its data and claims.
    #[napi]
    pub async fn patch(&self, patch: Value) -> Result<Value> {
        let patch = read::<PatchInput>("patch", patch)?.into();
        Ok(json!(self.session.patch(patch).await.map_err(thrown)?))
    }

    /// Ends it; the headers that the answer must carry.
    #[napi]
    pub async fn sign_out(&self) -> Result<Vec<String>> {
        Ok(headers(self.session.clone().sign_out().await.map_err(thrown)?.headers()))
    }

    /// Notes that the user has authenticated again: new tokens with the headers that the answer must carry.
    #[napi]
    pub async fn elevate(&self, auth: Value) -> Result<Value> {
        let auth = read("auth", auth)?;
        Ok(signed_in(&self.session.clone().elevate(auth).await.map_err(thrown)?))
    }

    /// Refuses if the user signed in too long ago.
    #[napi]
    pub fn require_fresh_sign_in(&self) -> Result<()> {
        self.session.require_fresh_sign_in().map_err(thrown)
    }
}
