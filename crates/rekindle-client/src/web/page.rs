//! The page that refreshes: the answer to a browser that asks for a page with an access token that has expired.

use http::{HeaderValue, StatusCode, header};

use super::{Answer, Web};

/// Only a script and requests of this very site; the page has nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// What `npm run build` makes of `sdks/web/src/page.ts`, whose tests compare them: the browser's openings are its own matter.
const SCRIPT: &str = include_str!("refresh.js");

impl Web {
    /// The page: it loads [`Web::refresh_script`], which refreshes the session and then loads the same URL again; after two rounds, or
    /// without a session, it goes to [`super::Settings::sign_in`].
    pub fn refresh_page(&self) -> Answer {
        let (base, sign_in) = (&self.settings.base, &self.settings.sign_in);
        let prefix = match self.settings.prefix.as_str() {
            "" => String::new(),
            prefix => format!(" data-prefix=\"{prefix}\""),
        };
        // All are of harmless characters: `Web::new` has checked them.
        let body = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>One moment</title>\n\
             <script src=\"{base}/session/refresh.js\" data-sign-in=\"{sign_in}\"{prefix}></script>\n\
             <p id=\"offline\" hidden>The server cannot be reached at the moment. Load this page again in a while.\n\
             <noscript><p>Your session has to be renewed, which needs a script. <a href=\"{sign_in}\">Sign in again</a></noscript>\n"
        );
        let mut answer = Answer::of(StatusCode::UNAUTHORIZED, "text/html; charset=utf-8", body);
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            answer.headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    /// `{base}/session/refresh.js`.
    pub fn refresh_script(&self) -> Answer {
        let mut answer = Answer::of(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT);
        for (name, value) in [
            (header::CACHE_CONTROL, "public, max-age=300"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            answer.headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::super::cookie::tests::web;

    #[test]
    fn the_page_has_no_script_of_its_own_and_may_load_only_ours() {
        let page = web(|s| s.base = "/a.b/auth".into()).refresh_page();
        assert_eq!(page.status, 401);
        assert!(page.body.contains("<script src=\"/a.b/auth/session/refresh.js\" data-sign-in=\"/login\"></script>"));
        assert_eq!(page.body.matches("<script").count(), 1);
        let named = web(|s| s.prefix = "shop".into()).refresh_page();
        assert!(named.body.contains("data-sign-in=\"/login\" data-prefix=\"shop\"></script>"));
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"));
        assert_eq!(page.headers["cache-control"], "no-store");
        let script = web(|_| ()).refresh_script();
        assert_eq!(script.headers["content-type"], "text/javascript; charset=utf-8");
        assert!(script.body.contains("document.currentScript"));
    }
}
