//! The one middleware: what every request and every answer goes through, in a single pass.
//!
//! A request gets an id and is refused when a header that decides something comes twice, or a query where none is taken; its handler gets a time limit, and its
//! panic becomes a 500; the answer gets its security headers, is counted and, where that is called for, logged.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::{MatchedPath, Request},
    http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Version, header},
    response::{IntoResponse, Response},
    routing::Route,
};
use futures_util::FutureExt;
use rekindle::rng::Rng;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::{
    client_ip::TrustedProxies,
    config::Config,
    extract::no_query,
    log::RequestLog,
    metrics::Metrics,
    problem::{Code, Problem},
    rate_limit::{Allowance, RateLimit},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Two years: once a browser has come here by TLS, it comes by nothing else.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// The headers that decide something: twice, and two parties could read them differently.
static ONCE: [HeaderName; 6] = [
    header::HOST,
    header::AUTHORIZATION,
    HeaderName::from_static("api-key"),
    HeaderName::from_static("idempotency-key"),
    header::IF_MATCH,
    header::CONTENT_TYPE,
];

/// By route, the methods that take no query.
pub type WithoutQuery = HashMap<String, Vec<Method>>;

/// Marks an answer with a status of failure that is none, so that nobody is called for it.
#[derive(Debug, Clone, Copy)]
pub struct Planned;

/// Where a connection comes from; the listener puts it into each request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The route that a handler found by itself, in its answer's extensions: where the router matched none.
#[derive(Debug, Clone, Copy)]
pub struct FoundRoute(pub &'static str);

/// What a handler may know about its request beside the request; it is among its extensions. Clones share it.
#[derive(Debug, Clone)]
pub struct RequestContext(Arc<Known>);

#[derive(Debug)]
struct Known {
    id: HeaderValue,
    client_ip: Option<IpAddr>,
    body_limit: usize,
    /// What is left of the caller's budget: set when its API key is known, told in the answer.
    allowance: OnceLock<Option<Allowance>>,
}

impl RequestContext {
    /// The context in a request's extensions; outside of the app, an empty one with the default limits.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| {
            let body_limit = crate::config::Limits::default().body.saturating_usize();
            Self::new(HeaderValue::from_static("-"), None, body_limit)
        })
    }

    fn new(id: HeaderValue, client_ip: Option<IpAddr>, body_limit: usize) -> Self {
        Self(Arc::new(Known { id, client_ip, body_limit, allowance: OnceLock::new() }))
    }

    /// The id that the answer carries as `X-Request-Id`.
    pub fn id(&self) -> &str {
        self.0.id.to_str().expect("made of visible ASCII")
    }

    /// The client's address, behind the trusted proxies; absent when there is no network, as in a test.
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.0.client_ip
    }

    /// How many bytes the body may have.
    pub fn body_limit(&self) -> usize {
        self.0.body_limit
    }

    /// Notes what is left of the caller's budget; `None`: there is no limit.
    pub fn note_allowance(&self, allowance: Option<Allowance>) {
        if allowance.is_some() {
            // A request has one caller.
            let _ = self.0.allowance.set(allowance);
        }
    }

    /// Notes that the caller's budget is used up.
    pub fn note_exhausted(&self) {
        let _ = self.0.allowance.set(None);
    }
}

/// The middleware, as a layer for `Router::layer`: there the matched route is known.
#[derive(Clone)]
pub struct Edge(Arc<Shared>);

struct Shared {
    metrics: Arc<Metrics>,
    rate_limit: Arc<RateLimit<String>>,
    log: RequestLog,
    without_query: WithoutQuery,
    tls: bool,
    proxies: TrustedProxies,
    timeout: Duration,
    body_limit: usize,
    /// Ids are this process's random prefix and a count: unique, and cheaper than a random number each.
    prefix: u64,
    count: AtomicU64,
}

impl Edge {
    /// As configured.
    pub fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        rate_limit: Arc<RateLimit<String>>,
        without_query: WithoutQuery,
        rng: &dyn Rng,
    ) -> Self {
        let mut prefix = [0; 8];
        rng.fill(&mut prefix);
        Self(Arc::new(Shared {
            metrics,
            rate_limit,
            log: RequestLog::new(&config.log),
            without_query,
            tls: config.tls.is_some(),
            proxies: TrustedProxies::new(config.trusted_proxies.clone()),
            timeout: config.limits.request_timeout.duration(),
            body_limit: config.limits.body.saturating_usize(),
            prefix: u64::from_be_bytes(prefix),
            count: AtomicU64::new(0),
        }))
    }
}

impl Layer<Route> for Edge {
    type Service = EdgeService;

    fn layer(&self, inner: Route) -> EdgeService {
        EdgeService { inner, shared: self.0.clone() }
    }
}

/// A route behind the [`Edge`].
#[derive(Clone)]
pub struct EdgeService {
    inner: Route,
    shared: Arc<Shared>,
}

impl Service<Request> for EdgeService {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let started = Instant::now();
        let shared = self.shared.clone();
        let context = shared.context(&request);
        let method = request.method().clone();
        let route = request.extensions().get::<MatchedPath>().cloned();
        let answer = shared.check(&request, route.as_ref()).map(|()| {
            request.extensions_mut().insert(context.clone());
            self.inner.call(request)
        });
        Box::pin(async move {
            let mut response = match answer {
                Err(problem) => problem.into_response(),
                Ok(handler) => match tokio::time::timeout(shared.timeout, AssertUnwindSafe(handler).catch_unwind())
                    .await
                {
                    Ok(Ok(Ok(response))) => response,
                    Ok(Ok(Err(never))) => match never {},
                    // The panic hook has logged it.
                    Ok(Err(_)) => Problem::internal().into_response(),
                    Err(_) => Problem::new(Code::Unavailable, "the request took too long; try again").into_response(),
                },
            };
            let found = response.extensions().get::<FoundRoute>().map(|found| found.0);
            let route = route.as_ref().map(MatchedPath::as_str).or(found);
            let (status, took) = (response.status(), started.elapsed());
            shared.metrics.request(route, &method, status, took);
            let planned = response.extensions().get::<Planned>().is_some();
            shared.log.request(context.id(), &method, route, status, took, planned);
            let headers = response.headers_mut();
            match context.0.allowance.get() {
                Some(Some(left)) => shared.rate_limit.write(*left, headers),
                Some(None) => shared.rate_limit.write_exhausted(headers),
                None => {}
            }
            headers.insert(REQUEST_ID, context.0.id.clone());
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
            if shared.tls {
                headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
            }
            headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
            Ok(response)
        })
    }
}

impl Shared {
    /// Refuses what two parties could read differently, and what nobody would read.
    fn check(&self, request: &Request, route: Option<&MatchedPath>) -> Result<(), Problem> {
        let invalid = |detail| Err(Problem::new(Code::InvalidRequest, detail));
        if let Some(name) = ONCE.iter().find(|name| request.headers().get_all(*name).iter().nth(1).is_some()) {
            return invalid(format!("the header `{name}` was sent more than once"));
        }
        // RFC 9112, 3.2. A request that came over no network has no peer, and needs none.
        let from_network = request.extensions().get::<Peer>().is_some();
        if from_network && request.version() == Version::HTTP_11 && !request.headers().contains_key(header::HOST) {
            return invalid("HTTP/1.1 needs the header `host`".into());
        }
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let takes_none = || {
            let methods = route.and_then(|route| self.without_query.get(route.as_str()));
            methods.is_some_and(|methods| methods.contains(method))
        };
        if request.uri().query().is_some() && takes_none() { no_query(request.uri()) } else { Ok(()) }
    }

    fn context(&self, request: &Request) -> RequestContext {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        let trusted = peer.is_some_and(|ip| self.proxies.contains(ip.to_canonical()));
        let id = trusted.then(|| given_id(request.headers())).flatten().unwrap_or_else(|| self.draw_id());
        RequestContext::new(id, peer.map(|ip| self.proxies.client_ip(ip, request.headers())), self.body_limit)
    }

    fn draw_id(&self) -> HeaderValue {
        let id = format!("{:016x}-{:x}", self.prefix, self.count.fetch_add(1, Ordering::Relaxed));
        HeaderValue::try_from(id).expect("hexadecimal digits")
    }
}

/// The id that a proxy gave, if it is well-formed: 1 to 64 letters, digits, `-`, `_`, `.` and `:`.
fn given_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(&REQUEST_ID)?;
    let known = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:".contains(b);
    ((1..=64).contains(&id.len()) && id.as_bytes().iter().all(known)).then(|| id.clone())
}
