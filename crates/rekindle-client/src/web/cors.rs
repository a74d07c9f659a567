//! What another origin's script may read of our answers.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{Answer, CSRF_TOKEN, MODE, PROOF, REQUEST, Request, Web, cookie::EXPOSED};

const REQUESTED_METHOD: HeaderName = header::ACCESS_CONTROL_REQUEST_METHOD;

impl Web {
    /// The headers that let the script of a listed origin read an answer, with cookies; only `Vary` for any other. For every answer.
    pub fn cors(&self, request: &Request<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.settings.origins.is_empty() {
            return headers;
        }
        headers.insert(header::VARY, HeaderValue::from_name(header::ORIGIN));
        if let Some(origin) = self.listed_origin(request) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, names(&EXPOSED));
        }
        headers
    }

    /// The answer to a preflight of a listed origin; `None` for every other request.
    pub fn preflight(&self, request: &Request<'_>) -> Option<Answer> {
        if *request.method != Method::OPTIONS || !request.headers.contains_key(REQUESTED_METHOD) {
            return None;
        }
        self.listed_origin(request)?;
        let mut answer = Answer::empty(StatusCode::NO_CONTENT);
        answer.headers.extend(self.cors(request));
        let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
        answer.headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        let allowed = [header::AUTHORIZATION, header::CONTENT_TYPE, MODE, PROOF, REQUEST, CSRF_TOKEN];
        answer.headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names(&allowed));
        answer.headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        Some(answer)
    }

    fn listed_origin(&self, request: &Request<'_>) -> Option<HeaderValue> {
        let origin = request.single(&header::ORIGIN).ok().flatten()?;
        self.settings.origins.iter().find(|listed| *listed == origin)?;
        HeaderValue::from_str(origin).ok()
    }
}

fn names(names: &[HeaderName]) -> HeaderValue {
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).expect("names of headers are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::super::cookie::tests::web;
    use super::super::testing::Sent;
    use super::*;

    #[test]
    fn only_a_listed_origin_may_read() {
        let web = web(|s| s.origins = vec!["https://app.shop.example".into()]);
        let cors = |origin: &str| web.cors(&Sent::get().with("origin", origin).request());
        let listed = cors("https://app.shop.example");
        assert_eq!(listed["access-control-allow-origin"], "https://app.shop.example");
        assert_eq!(listed["access-control-allow-credentials"], "true");
        assert_eq!(
            listed["access-control-expose-headers"],
            "rekindle-access-token, rekindle-refresh-token, rekindle-session, anti-csrf"
        );
        for other in ["https://evil.example", "null", "*", "https://app.shop.example.evil.example"] {
            let headers = cors(other);
            assert!(!headers.contains_key("access-control-allow-origin"), "{other}");
            assert_eq!(headers["vary"], "origin");
        }
    }

    #[test]
    fn a_preflight_is_answered_and_nothing_else_is() {
        let web = web(|s| s.origins = vec!["https://app.shop.example".into()]);
        let asked = Sent::new(Method::OPTIONS).with("origin", "https://app.shop.example");
        assert_eq!(web.preflight(&asked.request()), None);
        let preflight = asked.with("access-control-request-method", "POST");
        let answer = web.preflight(&preflight.request()).unwrap();
        assert_eq!(answer.status, 204);
        assert!(answer.headers["access-control-allow-headers"].to_str().unwrap().contains("rekindle-proof"));
        let foreign = Sent::new(Method::OPTIONS)
            .with("origin", "https://x.example")
            .with("access-control-request-method", "POST");
        assert_eq!(web.preflight(&foreign.request()), None);
    }
}
