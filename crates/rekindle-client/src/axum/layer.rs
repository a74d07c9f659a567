//! The layer: what every request passes through.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, header};
use tower::{Layer, Service};

use super::Sessions;
use crate::{
    problem::Problem,
    web::{Answer, Credentials, Request, Via},
};

/// Puts [`SessionService`] around a service.
#[derive(Clone)]
pub struct SessionLayer {
    sessions: Sessions,
}

impl SessionLayer {
    pub(super) fn new(sessions: Sessions) -> Self {
        Self { sessions }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService { sessions: self.sessions.clone(), inner }
    }
}

/// Reads the tokens of each request for the extractors behind it, guards against foreign pages, and answers preflights.
#[derive(Clone)]
pub struct SessionService<S> {
    sessions: Sessions,
    inner: S,
}

/// What the layer found out about a request.
pub(super) struct Seen {
    pub(super) sessions: Sessions,
    pub(super) credentials: Result<Credentials, Problem>,
    /// The answer depends on who asks: no cache may give it to anybody else.
    personal: AtomicBool,
}

impl Seen {
    pub(super) fn is_personal(&self) {
        self.personal.store(true, Ordering::Relaxed);
    }
}

/// A request as the contract wants it described.
pub(super) fn described<'a>(method: &'a http::Method, uri: &'a http::Uri, headers: &'a HeaderMap) -> Request<'a> {
    let authority = uri.authority().map(http::uri::Authority::as_str);
    Request { method, path: uri.path(), headers, authority }
}

impl<S, In, Out> Service<http::Request<In>> for SessionService<S>
where
    S: Service<http::Request<In>, Response = http::Response<Out>> + Clone + Send + 'static,
    S::Future: Send,
    In: Send + 'static,
    Out: From<String> + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<In>) -> Self::Future {
        let web = self.sessions.web();
        let described = described(request.method(), request.uri(), request.headers());
        let cors = web.cors(&described);
        let credentials = web.credentials(&described);
        let early = web.preflight(&described).or_else(|| {
            let cookies = credentials.as_ref().ok().filter(|c| c.via == Via::Cookies && c.any())?;
            let refused = web.check_csrf(&described).err()?;
            Some(web.refusal(&described, Some(cookies), &refused))
        });
        if let Some(answer) = early {
            let mut response = response(answer);
            merge(response.headers_mut(), cors);
            return Box::pin(async { Ok(response) });
        }
        let seen = Arc::new(Seen { sessions: self.sessions.clone(), credentials, personal: AtomicBool::new(false) });
        request.extensions_mut().insert(seen.clone());
        // The one that was ready goes; a clone waits for the next request.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let mut response = inner.call(request).await?;
            let headers = response.headers_mut();
            merge(headers, cors);
            if seen.personal.load(Ordering::Relaxed) {
                headers.append(header::VARY, HeaderValue::from_static("cookie, authorization"));
                headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-store"));
            }
            Ok(response)
        })
    }
}

fn response<Out: From<String>>(answer: Answer) -> http::Response<Out> {
    let mut response = http::Response::new(answer.body.into());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// Adds what is not there; an application's own CORS headers stay.
fn merge(headers: &mut HeaderMap, more: HeaderMap) {
    for (name, value) in &more {
        if name == header::VARY {
            headers.append(name, value.clone());
        } else {
            headers.entry(name).or_insert(value.clone());
        }
    }
}
