//! The layer: what every request passes through.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::axum::extract::ConnectInfo;
use http::request::Parts;
use tower::{Layer, Service};

use crate::{
    exchange::{Sessions, merge},
    web::{Answer, Request},
};

/// Puts [`SessionService`] around a service.
#[derive(Clone)]
pub struct SessionLayer {
    sessions: Sessions,
}

impl SessionLayer {
    /// A layer of these sessions.
    pub fn new(sessions: Sessions) -> Self {
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

/// A request as the contract wants it described. Behind a proxy the address is the proxy's: set [`crate::session::Start::client`] instead.
pub(super) fn described(parts: &Parts) -> Request<'_> {
    Request {
        method: &parts.method,
        path: parts.uri.path(),
        headers: &parts.headers,
        authority: parts.uri.authority().map(http::uri::Authority::as_str),
        ip: parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(from)| from.ip()),
    }
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

    fn call(&mut self, request: http::Request<In>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let exchange = self.sessions.exchange(&described(&parts));
        if let Some(answer) = exchange.early(&described(&parts)) {
            let mut response = response(answer);
            merge(response.headers_mut(), exchange.headers());
            return Box::pin(async { Ok(response) });
        }
        parts.extensions.insert(exchange.clone());
        // The one that was ready goes; a clone waits for the next request.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let mut response = inner.call(http::Request::from_parts(parts, body)).await?;
            merge(response.headers_mut(), exchange.headers());
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
