//! Between a browser, or an app, and the backend that holds the session: cookies, CSRF, proofs, pages, answers.
//!
//! Pure functions: a [`Request`] comes in as method, path and headers, an [`Answer`] goes out as status, headers and body, and what
//! happens in between (asking the engine or a server) is the caller's. So the same code stands behind every framework and every
//! language's binding. [`Web`] holds what an application decides once; its methods are, in the order of a request:
//!
//! 1. [`Web::preflight`] and [`Web::cors`]: another origin's script may read our answers, if it is on the list;
//! 2. [`Web::credentials`]: the tokens in the request;
//! 3. [`Web::check_csrf`]: a request with cookies came from our own pages; [`Web::check_csrf_token`] for those who want a token, too;
//! 4. [`Web::issue`]: the headers that hand out tokens; [`Web::clear`]: those that take the cookies back;
//! 5. [`Web::refusal`]: the answer to a request whose token was refused, a page for a browser that asks for a page;
//! 6. [`Web::refreshed`], [`Web::signed_out`] and the other answers of the routes under [`Settings::base`].

mod answer;
mod cookie;
mod cors;
mod csrf;
mod marker;
mod page;
mod proof;
mod settings;

pub use answer::{Answer, RevokeRequest};
pub use cookie::{Credentials, MAX_COOKIE, Via};
pub use csrf::CsrfKey;
pub use marker::Marker;
pub use proof::Claim;
pub use settings::{Cookies, InvalidSettings, SameSite, Settings, Web};

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, header};
use rekindle::session::Client;

/// The header in which a client proves that it holds the session: see [`Claim`].
pub const PROOF: HeaderName = HeaderName::from_static("rekindle-proof");
/// `Rekindle-Request: 1` stands for the proof at refresh and sign-out of a client that sends none; no form can send it.
pub const REQUEST: HeaderName = HeaderName::from_static("rekindle-request");
/// `Rekindle-Mode: header` asks for tokens in headers instead of cookies.
pub const MODE: HeaderName = HeaderName::from_static("rekindle-mode");
/// The access token in header mode.
pub const ACCESS_TOKEN: HeaderName = HeaderName::from_static("rekindle-access-token");
/// The refresh token in header mode.
pub const REFRESH_TOKEN: HeaderName = HeaderName::from_static("rekindle-refresh-token");
/// The [`Marker`] in header mode.
pub const SESSION: HeaderName = HeaderName::from_static("rekindle-session");
/// The token against CSRF, both ways, where [`Settings::csrf_token`] is set.
pub const CSRF_TOKEN: HeaderName = HeaderName::from_static("anti-csrf");

/// The names of all headers that are looked at: an adapter whose language makes each of them cost need not hand over others.
pub const HEADERS: &[&str] = &[
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

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// What the contract needs to know of a request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path, without the query.
    pub path: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The host and port that it was sent to: `Host`, or `:authority` in HTTP/2.
    pub authority: Option<&'a str>,
    /// From which address it came, if that is known.
    pub ip: Option<IpAddr>,
}

impl<'a> Request<'a> {
    /// A header that decides something: its text. `Err` where it comes twice or is no text.
    fn single(&self, name: &HeaderName) -> Result<Option<&'a str>, Unclear> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(|text| Some(text.trim())).map_err(|_| Unclear),
            (Some(_), Some(_)) => Err(Unclear),
        }
    }

    /// The host and port that it was sent to.
    fn host(&self) -> Option<&'a str> {
        self.authority.or_else(|| self.single(&header::HOST).ok().flatten())
    }

    /// Whether it was sent to this very machine, which browsers trust without TLS.
    fn is_local(&self) -> bool {
        let Some(host) = self.host() else { return false };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        ["localhost", "127.0.0.1", "[::1]"].iter().any(|local| name.eq_ignore_ascii_case(local))
    }

    /// Whether it only reads (RFC 9110, 9.2.1).
    fn is_safe(&self) -> bool {
        self.method.is_safe()
    }

    /// Whether a browser asks for a page to show.
    fn wants_page(&self) -> bool {
        if *self.method != Method::GET {
            return false;
        }
        match self.single(&SEC_FETCH_MODE) {
            Ok(Some(mode)) => mode == "navigate",
            _ => self
                .headers
                .get_all(header::ACCEPT)
                .iter()
                .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html"))),
        }
    }

    /// From where it came, as far as it tells.
    pub fn client(&self) -> Client {
        let ip = self.ip.map(|ip| ip.to_string());
        let user_agent = self.headers.get(header::USER_AGENT).map(|ua| String::from_utf8_lossy(ua.as_bytes()).into());
        Client { ip, user_agent, device: None }.bounded()
    }
}

/// A header that comes twice, or is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unclear;

#[cfg(test)]
mod testing {
    use super::*;
    use http::HeaderValue;

    /// A request in a test.
    #[derive(Debug, Clone)]
    pub(super) struct Sent {
        pub(super) method: Method,
        pub(super) headers: HeaderMap,
    }

    impl Sent {
        pub(super) fn new(method: Method) -> Self {
            let host = HeaderValue::from_static("shop.example");
            Self { method, headers: HeaderMap::from_iter([(header::HOST, host)]) }
        }

        pub(super) fn get() -> Self {
            Self::new(Method::GET)
        }

        pub(super) fn post() -> Self {
            Self::new(Method::POST)
        }

        pub(super) fn with(mut self, name: &str, value: &str) -> Self {
            let name: HeaderName = name.parse().unwrap();
            if name == header::HOST {
                self.headers.remove(&name);
            }
            self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            self
        }

        pub(super) fn request(&self) -> Request<'_> {
            Request { method: &self.method, path: "/", headers: &self.headers, authority: None, ip: None }
        }
    }

    /// The value of every header of this name.
    pub(super) fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}
