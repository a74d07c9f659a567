//! A request's way through the rules of the web.

use pyo3::prelude::*;
use rekindle_binding::Outcome;

use crate::{json, pending::Pending, process::InProcess, thrown};

/// Says what is wrong with an application's decisions about its sessions on the web.
#[pyfunction]
#[pyo3(signature = (options, csrf_key=None))]
pub fn check_web(options: &str, csrf_key: Option<&[u8]>) -> PyResult<()> {
    rekindle_binding::check_web(json(options)?, csrf_key).map_err(thrown)
}

/// As [`rekindle_binding::Site`].
#[pyclass(frozen)]
pub struct Site {
    site: InProcess<rekindle_binding::Site>,
}

impl Site {
    pub(crate) fn new(site: rekindle_binding::Site) -> Self {
        Self { site: InProcess::new(site) }
    }
}

#[pymethods]
impl Site {
    /// A request. `lines` are its headers, `name: value` and a line feed each; `path` is without the query.
    #[pyo3(signature = (method, path, lines, authority=None, ip=None))]
    fn exchange(
        &self,
        method: &str,
        path: String,
        lines: &str,
        authority: Option<String>,
        ip: Option<&str>,
    ) -> PyResult<Exchange> {
        let exchange = self.site.exchange(method, path, lines, authority).map_err(thrown)?;
        if let Some(ip) = ip {
            exchange.comes_from(ip);
        }
        Ok(Exchange { exchange: InProcess::new(exchange) })
    }

    /// The token against CSRF of a session's generation, where there is a key.
    fn csrf_token(&self, session_id: &str, generation: u32) -> PyResult<Option<String>> {
        self.site.csrf_token(session_id, generation).map_err(thrown)
    }

    /// Whether a text is that token; true where there is no key.
    fn csrf_matches(&self, given: &str, session_id: &str, generation: u32) -> PyResult<bool> {
        self.site.csrf_matches(given, session_id, generation).map_err(thrown)
    }

    /// The names of the headers that an exchange looks at.
    #[staticmethod]
    fn headers() -> Vec<&'static str> {
        rekindle_binding::Site::headers().to_vec()
    }
}

/// As [`rekindle_binding::Exchange`].
#[pyclass(frozen)]
pub struct Exchange {
    exchange: InProcess<rekindle_binding::Exchange>,
}

#[pymethods]
impl Exchange {
    /// The answer to give in place of the application's, if there is one.
    fn early(&self) -> Option<String> {
        self.exchange.early().map(|answer| answer.to_string())
    }

    /// Whether the request is for a route of the session's own.
    fn is_route(&self) -> bool {
        self.exchange.is_route()
    }

    /// Answers it.
    fn answer(&self, body: Vec<u8>) -> Pending {
        let exchange = self.exchange.clone();
        Pending::new(async move { exchange.answer(&body).await.map(|answer| answer.to_string()) })
    }

    /// Rotates the request's refresh token, whatever its path.
    fn refresh(&self) -> Pending {
        let exchange = self.exchange.clone();
        Pending::new(async move { Ok(exchange.refresh().await.to_string()) })
    }

    /// The headers that take this client's cookies back.
    fn cleared(&self) -> String {
        self.exchange.cleared().to_string()
    }

    /// The longest body that a route of the session's own reads.
    #[staticmethod]
    fn longest_body() -> usize {
        rekindle_binding::Exchange::longest_body()
    }

    /// What the answer needs beside its own headers.
    fn headers(&self) -> Vec<(String, String)> {
        self.exchange.headers()
    }

    /// The request's session; or the answer that there is none, whether it is just absent, and why.
    #[pyo3(signature = (trusted, mint))]
    fn session(&self, trusted: Option<String>, mint: bool) -> Pending {
        let exchange = self.exchange.clone();
        Pending::begun(async move {
            Ok(match exchange.session(trusted.as_deref(), mint).await? {
                Outcome::Session(session) => (Some(Session { session: InProcess::new(session) }), None, false, None),
                Outcome::Refusal { answer, absent, code } => (None, Some(answer.to_string()), absent, Some(code)),
            })
        })
    }

    /// Starts a session, and gives its tokens with the headers that the answer must carry.
    fn sign_in(&self, start: &str, remember: bool) -> PyResult<Pending> {
        let (exchange, start) = (self.exchange.clone(), json(start)?);
        Ok(Pending::new(async move { exchange.sign_in(start, remember).await.map(|value| value.to_string()) }))
    }
}

/// As [`rekindle_binding::Session`].
#[pyclass(frozen)]
pub struct Session {
    session: InProcess<rekindle_binding::Session>,
}

#[pymethods]
impl Session {
    /// Its id.
    #[getter]
    fn id(&self) -> String {
        self.session.id()
    }

    /// Whose it is.
    #[getter]
    fn user_id(&self) -> String {
        self.session.user_id()
    }

    /// When its access token expires, in seconds since 1970.
    #[getter]
    fn expires_at(&self) -> f64 {
        self.session.expires_at_millis() as f64 / 1000.0
    }

    /// What its access token says.
    fn verified(&self) -> String {
        self.session.verified().to_string()
    }

    /// Its row.
    fn read(&self) -> Pending {
        let session = self.session.clone();
        Pending::new(async move { session.read().await.map(|value| value.to_string()) })
    }

    /// Changes its data and claims.
    fn patch(&self, patch: &str) -> PyResult<Pending> {
        let (session, patch) = (self.session.clone(), json(patch)?);
        Ok(Pending::new(async move { session.patch(patch).await.map(|value| value.to_string()) }))
    }

    /// Ends it; the headers that the answer must carry.
    fn sign_out(&self) -> Pending {
        let session = self.session.clone();
        Pending::new(async move { session.sign_out().await.map(|value| value.to_string()) })
    }

    /// Notes that the user has authenticated again: new tokens with the headers that the answer must carry.
    fn elevate(&self, auth: &str) -> PyResult<Pending> {
        let (session, auth) = (self.session.clone(), json(auth)?);
        Ok(Pending::new(async move { session.elevate(auth).await.map(|value| value.to_string()) }))
    }

    /// Refuses if the user signed in too long ago.
    fn require_fresh_sign_in(&self) -> PyResult<()> {
        self.session.require_fresh_sign_in().map_err(thrown)
    }
}
