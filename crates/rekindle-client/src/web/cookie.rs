//! Tokens on their way: in cookies, or in headers.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use rekindle::clock::{Seconds, Timestamp};
use serde_json::{Map, Value};

use super::{
    ACCESS_TOKEN, CSRF_TOKEN, Cookies, MODE, Marker, REFRESH_TOKEN, Request, SESSION, SameSite, Web, settings::Names,
};
use crate::{
    problem::{About, Code, FieldProblem, Problem},
    session::{Token, Tokens},
};

/// The longest cookie that every browser keeps: name and value, in bytes (RFC 6265bis, 5.6).
pub const MAX_COOKIE: usize = 4096;

/// The longest time that browsers keep a cookie (RFC 6265bis, 5.5).
const MAX_AGE: Seconds = Seconds(400 * 86_400);

/// Ends the refresh cookie's value where the cookies last only until the browser is closed: a refresh has to know.
const UNTIL_CLOSED: &str = ".s";

/// How tokens travel between this client and us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// In cookies: the client is a browser on its own pages.
    Cookies,
    /// In `Authorization` and response headers: an app, or a script of another site.
    Headers,
}

/// The tokens in a request. Nothing is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// How they came, and how new ones go.
    pub via: Via,
    /// The access token.
    pub access: Option<Token>,
    /// The refresh token.
    pub refresh: Option<Token>,
    /// The marker beside them.
    pub marker: Option<Marker>,
    /// Whether new cookies outlive the browser's session. True, unless the present ones say otherwise.
    pub remember: bool,
    /// The request came over a connection that browsers trust without TLS, and this is development.
    local: bool,
}

impl Credentials {
    /// Whether the request carries anything of a session.
    pub fn any(&self) -> bool {
        self.access.is_some() || self.refresh.is_some() || self.marker.is_some()
    }
}

impl Web {
    /// The tokens in a request. `Authorization` goes before cookies; a cookie that comes twice with two values is refused: somebody
    /// else may have set one of them.
    pub fn credentials(&self, request: &Request<'_>) -> Result<Credentials, Problem> {
        let twice =
            |what: &str| Problem::new(Code::TokenMalformed, format!("{what} comes twice with different values"));
        let local = self.settings.development && request.is_local();
        let mut found =
            Credentials { via: Via::Headers, access: None, refresh: None, marker: None, remember: true, local };
        let authorization = request.single(&header::AUTHORIZATION).map_err(|_| twice("the header `Authorization`"))?;
        if let Some(token) = authorization.and_then(bearer) {
            let token = Token::new(token);
            let kind = if token.is_refresh() { &mut found.refresh } else { &mut found.access };
            *kind = Some(token);
            found.marker = request.single(&SESSION).ok().flatten().and_then(|text| text.parse().ok());
            return Ok(found);
        }
        let mode = request.single(&MODE).map_err(|_| twice("the header `Rekindle-Mode`"))?;
        if mode.is_some_and(|mode| mode.eq_ignore_ascii_case("header")) {
            return Ok(found);
        }
        found.via = Via::Cookies;
        let names = self.names(local);
        let one = |name: &str| only(request.headers, name).map_err(|_| twice(&format!("the cookie `{name}`")));
        found.access = one(&names.access)?.map(Token::new);
        if let Some(value) = one(&names.refresh)? {
            found.remember = !value.ends_with(UNTIL_CLOSED);
            found.refresh = Some(Token::new(value.strip_suffix(UNTIL_CLOSED).unwrap_or(value)));
        }
        found.marker = one(&names.marker)?.and_then(|text| text.parse().ok());
        Ok(found)
    }

    /// The headers that hand tokens out, the way in which those of `credentials` came.
    ///
    /// `data_invalid` when the access token is too long for a cookie; it names the largest claims. The session is unharmed: once
    /// they are smaller, the same request succeeds.
    pub fn issue(&self, credentials: &Credentials, tokens: &Tokens, now: Timestamp) -> Result<HeaderMap, Problem> {
        let marker = Marker::of(tokens).to_string();
        let mut headers = HeaderMap::with_capacity(5);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(key) = &self.settings.csrf_token {
            headers.insert(CSRF_TOKEN, text(&key.token(tokens.session.id, tokens.session.generation)));
        }
        // With cookies, too: the script of another origin cannot read those of this one.
        headers.insert(SESSION, text(&marker));
        if credentials.via == Via::Headers {
            headers.insert(ACCESS_TOKEN, secret(tokens.access_token.expose()));
            headers.insert(REFRESH_TOKEN, secret(tokens.refresh_token.expose()));
            return Ok(headers);
        }
        let names = self.names(credentials.local);
        check_length(&names.access, tokens.access_token.expose(), &tokens.session.claims)?;
        // All three live as long as the refresh token: an expired access token is how a request says that it should refresh.
        let age = tokens.refresh_token_expires_at.since(now).min(MAX_AGE);
        let age = credentials.remember.then_some(age);
        let refresh = match credentials.remember {
            true => Cow::Borrowed(tokens.refresh_token.expose()),
            false => Cow::Owned(format!("{}{UNTIL_CLOSED}", tokens.refresh_token.expose())),
        };
        let access = tokens.access_token.expose();
        for (kind, value) in [(Kind::Access, access), (Kind::Refresh, &refresh), (Kind::Marker, &marker)] {
            headers.append(header::SET_COOKIE, secret(&self.cookie(kind, names, value, age, credentials.local)));
        }
        Ok(headers)
    }

    /// The headers that take the cookies back. Only after a sign-out, or where [`Web::clears`] says so.
    pub fn clear(&self, credentials: &Credentials) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if credentials.via == Via::Cookies {
            let names = self.names(credentials.local);
            for kind in [Kind::Access, Kind::Refresh, Kind::Marker] {
                let cookie = self.cookie(kind, names, "", Some(Seconds(0)), credentials.local);
                headers.append(header::SET_COOKIE, text(&cookie));
            }
        }
        headers
    }

    /// Whether an answer takes the cookies of this request away: only one that ends the very session and generation that the
    /// browser holds. What came after it in the jar is not its business.
    pub fn clears(&self, credentials: &Credentials, problem: &Problem) -> bool {
        let about = problem.about();
        problem.is_terminal()
            && credentials.via == Via::Cookies
            && match credentials.marker {
                Some(marker) => {
                    about.session_id == Some(marker.session_id)
                        && about.presented_generation.is_none_or(|presented| presented == marker.generation)
                }
                None => credentials.any(),
            }
    }

    /// Whether these claims, in place of the session's present ones, still fit its access token into a cookie.
    pub fn check_claims(
        &self,
        access_token: &Token,
        present: &Map<String, Value>,
        claims: &Map<String, Value>,
    ) -> Result<(), Problem> {
        let json = |claims: &Map<String, Value>| serde_json::to_string(claims).map_or(0, |text| text.len());
        let grown = json(claims).saturating_sub(json(present)).div_ceil(3) * 4;
        let length = self.secure.access.len() + access_token.expose().len() + grown;
        if length > MAX_COOKIE { Err(too_long(length, claims)) } else { Ok(()) }
    }

    fn names(&self, local: bool) -> &Names {
        if local { &self.plain } else { &self.secure }
    }

    fn cookie(&self, kind: Kind, names: &Names, value: &str, age: Option<Seconds>, local: bool) -> String {
        let name = match kind {
            Kind::Access => &names.access,
            Kind::Refresh => &names.refresh,
            Kind::Marker => &names.marker,
        };
        let path = match (kind, self.settings.cookies) {
            (Kind::Refresh, Cookies::Spa) => format!("{}/session", self.settings.base),
            _ => "/".into(),
        };
        let mut cookie = format!("{name}={value}; Path={path}");
        if let Some(age) = age {
            cookie += &format!("; Max-Age={}", age.0);
        }
        // A partitioned cookie is `Secure` in any case; browsers take that on this machine without TLS, too.
        if !local || self.settings.same_site == SameSite::None {
            cookie += "; Secure";
        }
        if kind != Kind::Marker {
            cookie += "; HttpOnly";
        }
        cookie
            + match self.settings.same_site {
                SameSite::Lax => "; SameSite=Lax",
                SameSite::Strict => "; SameSite=Strict",
                SameSite::None => "; SameSite=None; Partitioned",
            }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Access,
    Refresh,
    Marker,
}

/// The token of an `Authorization: Bearer` header.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}

/// Two cookies of one name with two values.
#[derive(Debug, PartialEq, Eq)]
struct Twice;

/// The value of a cookie. The name is compared exactly: a prefix like `__Host-` protects no other spelling.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Twice> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(given, _)| *given == name).map(|(_, value)| value);
    match values.next() {
        None => Ok(None),
        Some(first) if values.all(|other| other == first) => Ok(Some(first).filter(|value| !value.is_empty())),
        Some(_) => Err(Twice),
    }
}

fn check_length(name: &str, token: &str, claims: &Map<String, Value>) -> Result<(), Problem> {
    let length = name.len() + token.len();
    if length > MAX_COOKIE { Err(too_long(length, claims)) } else { Ok(()) }
}

/// Names the largest claims, which are what can be changed.
fn too_long(length: usize, claims: &Map<String, Value>) -> Problem {
    let mut sized: Vec<(usize, &str)> =
        claims.iter().map(|(name, value)| (name.len() + value.to_string().len() + 4, name.as_str())).collect();
    sized.sort_unstable_by(|a, b| b.cmp(a));
    sized.truncate(3);
    let largest: Vec<String> = sized.iter().map(|(size, name)| format!("`{name}` ({size} bytes)")).collect();
    let advice = match largest.as_slice() {
        [] => "its claims are small: shorten the user id or the issuer".into(),
        largest => format!("move the largest claims into the session's data: {}", largest.join(", ")),
    };
    let fields = sized
        .iter()
        .map(|(size, name)| FieldProblem { field: format!("/claims/{name}"), detail: format!("{size} bytes of JSON") })
        .collect();
    Problem::new(
        Code::DataInvalid,
        format!("the access token makes a cookie of {length} bytes, and browsers keep {MAX_COOKIE}; {advice}"),
    )
    .with(About { fields, ..About::default() })
}

/// A header value of our own making.
fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("names, base64url, digits and checked paths are visible ASCII")
}

/// The same for a token: no `Debug` of a response prints it.
fn secret(value: &str) -> HeaderValue {
    let mut value = text(value);
    value.set_sensitive(true);
    value
}

/// The names of every header of ours that a script may read, for CORS.
pub(super) const EXPOSED: [HeaderName; 4] = [ACCESS_TOKEN, REFRESH_TOKEN, SESSION, CSRF_TOKEN];

#[cfg(test)]
pub(super) mod tests {
    use super::super::testing::{Sent, all};
    use super::super::{CsrfKey, Settings};
    use super::*;
    use proptest::prelude::*;
    use rekindle::access::Binding;
    use rekindle::session::{Auth, Client, SessionId};

    use crate::session::{SessionInfo, State};

    pub(in super::super) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    pub(in super::super) fn tokens() -> Tokens {
        Tokens {
            session: SessionInfo {
                id: SessionId::from_bytes([7; 16]),
                product: "default".parse().unwrap(),
                env: "dev".parse().unwrap(),
                tag: "default".parse().unwrap(),
                user_id: "ada".parse().unwrap(),
                state: State::Active,
                end_reason: None,
                ended_at: None,
                generation: 3,
                binding: Binding::Bearer,
                data: Map::new(),
                claims: Map::new(),
                version: 1,
                client: Client::default(),
                auth: Auth { time: NOW, acr: None, amr: Vec::new() },
                created_at: NOW,
                last_refreshed_at: NOW,
                idle_expires_at: NOW + Seconds(3600),
                expires_at: NOW + Seconds(7200),
                previous_session_id: None,
            },
            access_token: Token::new("head.body.signature"),
            access_token_expires_at: NOW + Seconds(300),
            refresh_token: Token::new("rkr_refresh"),
            refresh_token_expires_at: NOW + Seconds(3600),
            commitment: None,
            warnings: Vec::new(),
        }
    }

    pub(in super::super) fn web(change: impl FnOnce(&mut Settings)) -> Web {
        let mut settings = Settings::default();
        change(&mut settings);
        Web::new(settings).unwrap()
    }

    const MARKER: &str = "07070707-0707-0707-0707-070707070707.3..1800000300";

    fn issued(web: &Web, sent: &Sent) -> Vec<String> {
        let credentials = web.credentials(&sent.request()).unwrap();
        let headers = web.issue(&credentials, &tokens(), NOW).unwrap();
        assert_eq!(headers["cache-control"], "no-store");
        all(&headers, "set-cookie").into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn every_cookie_in_every_mode() {
        assert_eq!(
            issued(&web(|_| ()), &Sent::post()),
            [
                "__Host-rekindle-access=head.body.signature; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax"
                    .to_owned(),
                "__Host-rekindle-refresh=rkr_refresh; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax".to_owned(),
                format!("__Host-rekindle-session={MARKER}; Path=/; Max-Age=3600; Secure; SameSite=Lax"),
            ]
        );
        let spa = web(|s| {
            s.cookies = Cookies::Spa;
            s.same_site = SameSite::Strict;
            s.prefix = "shop".into();
        });
        assert_eq!(
            issued(&spa, &Sent::post())[1],
            "__Secure-shop-rekindle-refresh=rkr_refresh; Path=/auth/session; Max-Age=3600; Secure; HttpOnly; SameSite=Strict"
        );
        let embedded = web(|s| s.same_site = SameSite::None);
        assert_eq!(
            issued(&embedded, &Sent::post())[0],
            "__Host-rekindle-access=head.body.signature; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=None; Partitioned"
        );
    }

    #[test]
    fn only_on_this_machine_and_in_development_do_prefixes_and_secure_go() {
        let development = web(|s| s.development = true);
        let local = Sent::post().with("host", "localhost:8080");
        assert_eq!(
            issued(&development, &local)[0],
            "rekindle-access=head.body.signature; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"
        );
        for (host, plain) in [
            ("127.0.0.1", true),
            ("[::1]:80", true),
            ("LOCALHOST", true),
            ("localhost.evil.example", false),
            ("shop.example", false),
        ] {
            let sent = Sent::post().with("host", host);
            assert_eq!(issued(&development, &sent)[0].starts_with("rekindle-"), plain, "{host}");
            assert!(issued(&web(|_| ()), &sent)[0].starts_with("__Host-"), "{host}");
        }
        let planted = local.with("cookie", "__Host-rekindle-access=x");
        assert_eq!(development.credentials(&planted.request()).unwrap().access, None);
    }

    #[test]
    fn cookies_that_end_with_the_browser_stay_so_over_a_refresh() {
        let web = web(|_| ());
        let mut credentials = web.credentials(&Sent::post().request()).unwrap();
        credentials.remember = false;
        let headers = web.issue(&credentials, &tokens(), NOW).unwrap();
        let cookies = all(&headers, "set-cookie");
        assert!(cookies.iter().all(|cookie| !cookie.contains("Max-Age")), "{cookies:?}");
        let jar: Vec<&str> = cookies.iter().map(|cookie| cookie.split(';').next().unwrap()).collect();
        let again = web.credentials(&Sent::post().with("cookie", &jar.join("; ")).request()).unwrap();
        assert!(!again.remember);
        assert_eq!(again.refresh, Some(Token::new("rkr_refresh")));
        assert_eq!(again.marker, Some(MARKER.parse().unwrap()));
    }

    #[test]
    fn a_cookie_that_comes_twice_is_refused_unless_it_is_the_same() {
        let web = web(|s| s.cookies = Cookies::Spa);
        let read = |line: &str| web.credentials(&Sent::get().with("cookie", line).request());
        assert!(read("__Secure-rekindle-refresh=rkr_a; __Secure-rekindle-refresh=rkr_a").is_ok());
        let problem = read("__Secure-rekindle-refresh=rkr_a; x=y; __Secure-rekindle-refresh=rkr_b").unwrap_err();
        assert_eq!(problem.detail(), "the cookie `__Secure-rekindle-refresh` comes twice with different values");
        let split = Sent::get().with("cookie", "__Host-rekindle-access=a").with("cookie", "__Host-rekindle-access=b");
        assert!(web.credentials(&split.request()).is_err());
        // Browsers guard the prefix in any spelling; a server must not read another one.
        assert_eq!(read("__host-rekindle-access=a; rekindle-access=b").unwrap().access, None);
    }

    #[test]
    fn an_authorization_header_goes_before_cookies_and_needs_no_cookie() {
        let web = web(|_| ());
        let sent = Sent::get().with("cookie", "__Host-rekindle-access=a").with("authorization", "bearer x.y.z");
        let credentials = web.credentials(&sent.request()).unwrap();
        assert_eq!((credentials.via, credentials.access), (Via::Headers, Some(Token::new("x.y.z"))));
        let refresh = Sent::post().with("authorization", "Bearer rkr_1");
        assert_eq!(web.credentials(&refresh.request()).unwrap().refresh, Some(Token::new("rkr_1")));
        let headers = web.issue(&web.credentials(&refresh.request()).unwrap(), &tokens(), NOW).unwrap();
        assert_eq!(headers["rekindle-access-token"], "head.body.signature");
        assert_eq!(headers["rekindle-refresh-token"], "rkr_refresh");
        assert_eq!(headers["rekindle-session"], MARKER);
        assert!(!headers.contains_key("set-cookie"));
        assert!(!format!("{headers:?}").contains("rkr_refresh"));
        let login = Sent::post().with("rekindle-mode", "header").with("cookie", "__Host-rekindle-access=a");
        let credentials = web.credentials(&login.request()).unwrap();
        assert_eq!((credentials.via, credentials.any()), (Via::Headers, false));
        let twice = refresh.with("authorization", "Bearer rkr_2");
        assert!(web.credentials(&twice.request()).is_err());
    }

    #[test]
    fn a_cookie_that_no_browser_keeps_is_refused_and_the_largest_claims_are_named() {
        let web = web(|_| ());
        let credentials = web.credentials(&Sent::post().request()).unwrap();
        let mut large = tokens();
        large.access_token = Token::new("x".repeat(MAX_COOKIE - "__Host-rekindle-access".len()));
        assert!(web.issue(&credentials, &large, NOW).is_ok());
        large.access_token = Token::new("x".repeat(MAX_COOKIE));
        large.session.claims.insert("name".into(), "Ada".into());
        large.session.claims.insert("rights".into(), "r".repeat(900).into());
        let problem = web.issue(&credentials, &large, NOW).unwrap_err();
        assert_eq!(
            problem.detail(),
            "the access token makes a cookie of 4118 bytes, and browsers keep 4096; move the largest claims into the session's \
             data: `rights` (912 bytes), `name` (13 bytes)"
        );
        let bearer = Sent::post().with("rekindle-mode", "header");
        assert!(web.issue(&web.credentials(&bearer.request()).unwrap(), &large, NOW).is_ok());
        assert!(web.check_claims(&tokens().access_token, &Map::new(), &large.session.claims).is_ok());
        large.session.claims.insert("more".into(), "m".repeat(3000).into());
        assert!(web.check_claims(&tokens().access_token, &Map::new(), &large.session.claims).is_err());
    }

    #[test]
    fn cookies_are_cleared_only_by_the_end_of_the_session_and_generation_that_the_browser_holds() {
        let web = web(|_| ());
        let with = |marker: &str| {
            let line = format!("__Host-rekindle-refresh=rkr_1; __Host-rekindle-session={marker}");
            web.credentials(&Sent::post().with("cookie", &line).request()).unwrap()
        };
        let (mine, other) = (SessionId::from_bytes([7; 16]), SessionId::from_bytes([8; 16]));
        let ended = |id, generation| Problem::new(Code::SessionRevoked, "x").about_token(id, generation);
        assert!(web.clears(&with(MARKER), &ended(mine, 3)));
        assert!(!web.clears(&with(MARKER), &ended(mine, 2)), "the jar has moved on");
        assert!(!web.clears(&with(MARKER), &ended(other, 3)), "another session came into the jar");
        assert!(!web.clears(&with(MARKER), &Problem::new(Code::SessionRevoked, "x")), "about nobody knows whom");
        assert!(web.clears(&with("nonsense"), &ended(mine, 3)));
        for code in Code::ALL.iter().filter(|c| !Problem::new(**c, "x").is_terminal()) {
            assert!(!web.clears(&with(MARKER), &Problem::new(*code, "x").about_token(mine, 3)), "{code}");
        }
        let cleared = web.clear(&with(MARKER));
        assert_eq!(all(&cleared, "set-cookie").len(), 3);
        assert_eq!(
            all(&cleared, "set-cookie")[1],
            "__Host-rekindle-refresh=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn a_token_against_csrf_goes_with_the_tokens_where_it_is_asked_for() {
        let web = web(|s| s.csrf_token = Some(CsrfKey::new(&[1; 32])));
        let credentials = web.credentials(&Sent::post().request()).unwrap();
        assert!(web.issue(&credentials, &tokens(), NOW).unwrap().contains_key("anti-csrf"));
    }

    proptest! {
        #[test]
        fn any_cookie_line_is_read_or_refused(line in "[ -~]{0,80}|((__Host-)?rekindle-(access|refresh|session)=[a-z.]{0,3};? ?){0,5}") {
            let _ = web(|_| ()).credentials(&Sent::get().with("cookie", &line).request());
        }

        #[test]
        fn what_is_set_is_read_back(access in "[A-Za-z0-9_.-]{1,60}", refresh in "rkr_[A-Za-z0-9_-]{1,60}", remember in any::<bool>()) {
            let web = web(|_| ());
            let mut given = tokens();
            given.access_token = Token::new(access);
            given.refresh_token = Token::new(refresh);
            let mut credentials = web.credentials(&Sent::post().request()).unwrap();
            credentials.remember = remember;
            let headers = web.issue(&credentials, &given, NOW).unwrap();
            let jar: Vec<&str> = all(&headers, "set-cookie").into_iter().map(|c| c.split(';').next().unwrap()).collect();
            let read = web.credentials(&Sent::get().with("cookie", &jar.join("; ")).request()).unwrap();
            prop_assert_eq!(read.access.unwrap(), given.access_token);
            prop_assert_eq!(read.refresh.unwrap(), given.refresh_token);
            prop_assert_eq!(read.remember, remember);
        }
    }
}
