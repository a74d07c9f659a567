//! Whether a request with cookies came from the application's own pages.

use std::fmt;

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use http::header;
use rekindle::session::SessionId;
use subtle::ConstantTimeEq;

use super::{CSRF_TOKEN, Credentials, PROOF, REQUEST, Request, SEC_FETCH_SITE, Via, Web};
use crate::problem::{Code, Problem};

/// The key of the tokens against CSRF: the same on every server of an application. It never prints itself.
#[derive(Clone)]
pub struct CsrfKey(hmac::Key);

impl CsrfKey {
    /// A key from at least 32 random bytes.
    ///
    /// # Panics
    /// With fewer: nobody could rely on it.
    pub fn new(secret: &[u8]) -> Self {
        assert!(secret.len() >= 32, "a key against CSRF needs at least 32 random bytes, not {}", secret.len());
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The token of a session's generation: 22 base64url characters.
    pub fn token(&self, session_id: SessionId, generation: u32) -> String {
        let mut message = [0; 20];
        message[..16].copy_from_slice(&session_id.to_bytes());
        message[16..].copy_from_slice(&generation.to_be_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(&hmac::sign(&self.0, &message).as_ref()[..16])
    }

    /// Whether a text is that token. Compared in constant time.
    pub fn matches(&self, given: &str, session_id: SessionId, generation: u32) -> bool {
        bool::from(given.as_bytes().ct_eq(self.token(session_id, generation).as_bytes()))
    }
}

impl fmt::Debug for CsrfKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CsrfKey(…)")
    }
}

impl Web {
    /// Refuses an unsafe request that another site's page may have made (`csrf_failed`). For each request that uses cookies or gets
    /// some. The handshake of a WebSocket is unsafe, too, though it is a GET.
    ///
    /// The browser says where it came from: in `Sec-Fetch-Site`, or where that is missing in `Origin`. One that says neither is
    /// refused. [`super::Settings::origins`] pass.
    pub fn check_csrf(&self, request: &Request<'_>) -> Result<(), Problem> {
        if request.is_safe() && !request.headers.contains_key(header::UPGRADE) {
            return Ok(());
        }
        let refused = |why| Err(Problem::new(Code::CsrfFailed, why));
        let Ok(origin) = request.single(&header::ORIGIN) else { return refused("the header `Origin` comes twice") };
        let listed = origin.is_some_and(|origin| self.settings.origins.iter().any(|listed| listed == origin));
        match request.single(&SEC_FETCH_SITE) {
            Err(_) => refused("the header `Sec-Fetch-Site` comes twice"),
            Ok(Some("same-origin" | "none")) => Ok(()),
            Ok(Some(_)) if listed => Ok(()),
            Ok(Some(_)) => refused("another site's page made this request; list its origin in `origins` if it may"),
            Ok(None) if listed => Ok(()),
            Ok(None) => match origin {
                Some(origin) if self.is_own(origin, request) => Ok(()),
                Some(_) => refused("the header `Origin` names another site; list it in `origins` if it may do this"),
                None => refused("with cookies, a browser's `Sec-Fetch-Site` or `Origin` is needed"),
            },
        }
    }

    /// The same for a refresh and a sign-out, which also need a header that no form and no foreign script can send.
    pub fn check_csrf_of_session_route(&self, request: &Request<'_>) -> Result<(), Problem> {
        self.check_csrf(request)?;
        let said = request.headers.contains_key(PROOF)
            || request.headers.get(REQUEST).is_some_and(|value| value.as_bytes() == b"1");
        match said {
            true => Ok(()),
            false => Err(Problem::new(Code::CsrfFailed, "send `Rekindle-Proof`, or `Rekindle-Request: 1`")),
        }
    }

    /// The same for a sign-in. A client without cookies that says nothing of where it comes from is no browser, and passes.
    pub fn check_csrf_of_sign_in(&self, request: &Request<'_>, credentials: &Credentials) -> Result<(), Problem> {
        let is_silent = ![header::ORIGIN, SEC_FETCH_SITE].iter().any(|name| request.headers.contains_key(name));
        if credentials.via == Via::Headers || (is_silent && !credentials.any()) {
            return Ok(());
        }
        self.check_csrf(request)
    }

    /// Refuses an unsafe request without the token of this session and generation, where [`super::Settings::csrf_token`] asks for it.
    pub fn check_csrf_token(
        &self,
        request: &Request<'_>,
        session_id: SessionId,
        generation: u32,
    ) -> Result<(), Problem> {
        let Some(key) = self.settings.csrf_token.as_ref().filter(|_| !request.is_safe()) else { return Ok(()) };
        match request.single(&CSRF_TOKEN) {
            Ok(Some(given)) if key.matches(given, session_id, generation) => Ok(()),
            _ => Err(Problem::new(
                Code::CsrfFailed,
                "the header `anti-csrf` is not the one of this session's last tokens",
            )),
        }
    }

    /// Whether an origin is this server's own, as far as the request tells.
    fn is_own(&self, origin: &str, request: &Request<'_>) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let trusted = scheme == "https" || (scheme == "http" && self.settings.development && request.is_local());
        trusted && request.host().is_some_and(|host| host.eq_ignore_ascii_case(authority))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cookie::tests::web;
    use super::super::testing::Sent;
    use super::*;
    use http::Method;
    use proptest::prelude::*;

    #[test]
    fn every_combination_of_what_a_browser_says() {
        let web = web(|s| s.origins = vec!["https://app.shop.example".into()]);
        const OWN: Option<&str> = Some("https://shop.example");
        const LISTED: Option<&str> = Some("https://app.shop.example");
        for (site, origin, passes) in [
            (Some("same-origin"), OWN, true),
            (Some("same-origin"), None, true),
            (Some("none"), None, true),
            (Some("same-site"), LISTED, true),
            (Some("cross-site"), LISTED, true),
            (Some("same-site"), Some("https://evil.shop.example"), false),
            (Some("same-site"), None, false),
            (Some("cross-site"), OWN, false),
            (Some("cross-site"), None, false),
            (Some("cross-site"), Some("null"), false),
            (Some(""), OWN, false),
            (Some("Same-Origin"), OWN, false),
            (None, OWN, true),
            (None, LISTED, true),
            (None, Some("https://SHOP.example"), true),
            (None, Some("http://shop.example"), false),
            (None, Some("https://shop.example:444"), false),
            (None, Some("https://shop.example.evil.example"), false),
            (None, Some("null"), false),
            (None, Some(""), false),
            (None, None, false),
        ] {
            for method in
                [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::from_bytes(b"LINK").unwrap()]
            {
                let mut sent = Sent::new(method);
                for (name, value) in [("sec-fetch-site", site), ("origin", origin)] {
                    sent = value.map_or(sent.clone(), |value| sent.with(name, value));
                }
                let outcome = web.check_csrf(&sent.request());
                assert_eq!(outcome.is_ok(), passes, "{site:?} {origin:?}");
                assert!(outcome.is_ok() || outcome.unwrap_err().code() == Code::CsrfFailed);
                let mut read = sent.clone();
                read.method = Method::GET;
                assert!(web.check_csrf(&read.request()).is_ok());
            }
        }
    }

    #[test]
    fn what_comes_twice_is_not_believed() {
        let web = web(|_| ());
        for name in ["sec-fetch-site", "origin"] {
            let sent = Sent::post().with("sec-fetch-site", "same-origin").with(name, "none").with(name, "none");
            assert!(web.check_csrf(&sent.request()).is_err(), "{name}");
        }
    }

    #[test]
    fn http_is_an_own_origin_only_on_this_machine_in_development() {
        let sent = Sent::post().with("host", "localhost:8080").with("origin", "http://localhost:8080");
        assert!(web(|s| s.development = true).check_csrf(&sent.request()).is_ok());
        assert!(web(|_| ()).check_csrf(&sent.request()).is_err());
        let elsewhere = Sent::post().with("origin", "http://shop.example");
        assert!(web(|s| s.development = true).check_csrf(&elsewhere.request()).is_err());
    }

    #[test]
    fn a_refresh_needs_a_header_that_no_form_sends() {
        let web = web(|_| ());
        let own = Sent::post().with("sec-fetch-site", "same-origin");
        assert!(web.check_csrf_of_session_route(&own.request()).is_err());
        assert!(web.check_csrf_of_session_route(&own.clone().with("rekindle-request", "1").request()).is_ok());
        assert!(web.check_csrf_of_session_route(&own.clone().with("rekindle-request", "0").request()).is_err());
        assert!(web.check_csrf_of_session_route(&own.with("rekindle-proof", "c=:AA==:").request()).is_ok());
        let foreign = Sent::post().with("sec-fetch-site", "cross-site").with("rekindle-request", "1");
        assert!(web.check_csrf_of_session_route(&foreign.request()).is_err());
    }

    #[test]
    fn a_foreign_page_cannot_sign_a_visitor_in() {
        let web = web(|_| ());
        let check = |sent: Sent| web.check_csrf_of_sign_in(&sent.request(), &web.credentials(&sent.request()).unwrap());
        assert!(check(Sent::post()).is_ok(), "a program");
        assert!(check(Sent::post().with("origin", "https://shop.example")).is_ok());
        assert!(check(Sent::post().with("origin", "https://evil.example")).is_err());
        assert!(check(Sent::post().with("sec-fetch-site", "cross-site")).is_err());
        assert!(check(Sent::post().with("cookie", "__Host-rekindle-access=a")).is_err());
    }

    #[test]
    fn a_csrf_token_is_bound_to_session_and_generation() {
        let key = CsrfKey::new(&[1; 32]);
        assert_eq!(format!("{key:?}"), "CsrfKey(…)");
        let id = SessionId::from_bytes([7; 16]);
        let token = key.token(id, 3);
        let web = web(|s| s.csrf_token = Some(key));
        let sent = Sent::post().with("anti-csrf", &token);
        assert!(web.check_csrf_token(&sent.request(), id, 3).is_ok());
        assert!(web.check_csrf_token(&sent.request(), id, 4).is_err());
        assert!(web.check_csrf_token(&sent.request(), SessionId::from_bytes([8; 16]), 3).is_err());
        assert!(web.check_csrf_token(&Sent::post().request(), id, 3).is_err());
        assert!(web.check_csrf_token(&Sent::get().request(), id, 3).is_ok());
    }

    proptest! {
        #[test]
        fn no_foreign_origin_passes(site in prop::option::of("cross-site|same-site"), origin in prop::option::of("https://[a-z.]{1,20}|null|[ -~]{0,20}")) {
            prop_assume!(origin.as_deref().is_none_or(|o| !o.trim().eq_ignore_ascii_case("https://shop.example")) || site.is_some());
            let mut sent = Sent::post();
            for (name, value) in [("sec-fetch-site", &site), ("origin", &origin)] {
                sent = value.as_ref().map_or(sent.clone(), |value| sent.with(name, value));
            }
            prop_assert!(web(|_| ()).check_csrf(&sent.request()).is_err());
        }
    }
}
