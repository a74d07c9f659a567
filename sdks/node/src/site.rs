//! A request's way through the rules of the web.

use napi::{
    Either, Env,
    bindgen_prelude::{Buffer, Result},
};
use napi_derive::napi;
use rekindle_binding::Outcome;
use serde_json::Value;

use crate::{Prompt, begun, thrown};

/// As [`rekindle_binding::Site`].
#[napi]
pub struct Site {
    site: rekindle_binding::Site,
}

impl Site {
    pub(crate) fn new(site: rekindle_binding::Site) -> Self {
        Self { site }
    }
}

#[napi]
impl Site {
    /// A request. `lines` are its headers, `name: value` and a line feed each; `path` is without the query.
    #[napi]
    pub fn exchange(&self, method: String, path: String, lines: String, authority: Option<String>) -> Result<Exchange> {
        Ok(Exchange { exchange: self.site.exchange(&method, path, &lines, authority).map_err(thrown)? })
    }

    /// The token against CSRF of a session's generation, where there is a key.
    #[napi]
    pub fn csrf_token(&self, session_id: String, generation: u32) -> Result<Option<String>> {
        self.site.csrf_token(&session_id, generation).map_err(thrown)
    }

    /// Whether a text is that token; true where there is no key.
    #[napi]
    pub fn csrf_matches(&self, given: String, session_id: String, generation: u32) -> Result<bool> {
        self.site.csrf_matches(&given, &session_id, generation).map_err(thrown)
    }

    /// The names of the headers that an exchange looks at.
    #[napi]
    pub fn headers(&self) -> Vec<&'static str> {
        rekindle_binding::Site::headers().to_vec()
    }
}

/// As [`rekindle_binding::Exchange`].
#[napi]
pub struct Exchange {
    exchange: rekindle_binding::Exchange,
}

/// As [`rekindle_binding::Outcome::Refusal`].
#[napi(object, object_from_js = false)]
pub struct NativeRefusal {
    /// The answer that says so to the client.
    pub answer: Value,
    /// Whether there just is no session, or its token has expired.
    pub absent: bool,
    /// The problem's code.
    pub code: &'static str,
}

#[napi]
impl Exchange {
    /// Tells the request's address: only what is written down needs it.
    #[napi]
    pub fn comes_from(&self, ip: String) {
        self.exchange.comes_from(&ip);
    }

    /// The answer to give in place of the application's; or whether the request is for a route of the session's own.
    #[napi]
    pub fn early(&self) -> Either<Value, bool> {
        self.exchange.early().map_or_else(|| Either::B(self.exchange.is_route()), Either::A)
    }

    /// Answers a request for a route of the session's own.
    #[napi]
    pub async fn answer(&self, body: Buffer) -> Result<Value> {
        self.exchange.answer(&body).await.map_err(thrown)
    }

    /// Rotates the request's refresh token, whatever its path.
    #[napi]
    pub async fn refresh(&self) -> Value {
        self.exchange.refresh().await
    }

    /// The headers that take this client's cookies back.
    #[napi]
    pub fn cleared(&self) -> Value {
        self.exchange.cleared()
    }

    /// The longest body that a route of the session's own reads.
    #[napi(getter)]
    pub fn longest_body(&self) -> u32 {
        rekindle_binding::Exchange::longest_body() as u32
    }

    /// What the answer needs beside its own headers.
    #[napi]
    pub fn headers(&self) -> Vec<Vec<String>> {
        self.exchange.headers().into_iter().map(|(name, value)| vec![name, value]).collect()
    }

    /// The request's session; a promise only where something has to be waited for.
    #[napi]
    pub fn session<'env>(
        &self,
        env: &'env Env,
        trusted: Option<String>,
        mint: bool,
    ) -> Result<Prompt<'env, Either<Session, NativeRefusal>>> {
        let exchange = self.exchange.clone();
        begun(env, async move {
            Ok(match exchange.session(trusted.as_deref(), mint).await.map_err(thrown)? {
                Outcome::Session(session) => Either::A(Session { session }),
                Outcome::Refusal { answer, absent, code } => Either::B(NativeRefusal { answer, absent, code }),
            })
        })
    }

    /// Starts a session, and gives its tokens with the headers that the answer must carry.
    #[napi]
    pub async fn sign_in(&self, start: Value, remember: bool) -> Result<Value> {
        self.exchange.sign_in(start, remember).await.map_err(thrown)
    }
}

/// As [`rekindle_binding::Session`].
#[napi]
pub struct Session {
    session: rekindle_binding::Session,
}

#[napi]
impl Session {
    /// Its id.
    #[napi(getter)]
    pub fn id(&self) -> String {
        self.session.id()
    }

    /// Whose it is.
    #[napi(getter)]
    pub fn user_id(&self) -> String {
        self.session.user_id()
    }

    /// When its access token expires, as JavaScript counts.
    #[napi(getter)]
    pub fn expires_at(&self) -> f64 {
        self.session.expires_at_millis() as f64
    }

    /// What its access token says.
    #[napi(getter)]
    pub fn verified(&self) -> Value {
        self.session.verified()
    }

    /// Its row.
    #[napi]
    pub async fn read(&self) -> Result<Value> {
        self.session.read().await.map_err(thrown)
    }

    /// Changes its data and claims.
    #[napi]
    pub async fn patch(&self, patch: Value) -> Result<Value> {
        self.session.patch(patch).await.map_err(thrown)
    }

    /// Ends it; the headers that the answer must carry.
    #[napi]
    pub async fn sign_out(&self) -> Result<Value> {
        self.session.sign_out().await.map_err(thrown)
    }

    /// Notes that the user has authenticated again: new tokens with the headers that the answer must carry.
    #[napi]
    pub async fn elevate(&self, auth: Value) -> Result<Value> {
        self.session.elevate(auth).await.map_err(thrown)
    }

    /// Refuses if the user signed in too long ago.
    #[napi]
    pub fn require_fresh_sign_in(&self) -> Result<()> {
        self.session.require_fresh_sign_in().map_err(thrown)
    }
}
