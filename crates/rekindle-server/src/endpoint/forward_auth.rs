//! `GET auth`: asked by a reverse proxy before it lets a request through.

use std::fmt::Write;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rekindle::{
    engine::{Active, VerifyOutcome},
    session::UserId,
};

use crate::{
    app::App,
    auth,
    extract::InScope,
    problem::{Code, Problem},
};

const USER_ID: HeaderName = HeaderName::from_static("rekindle-user-id");
const SESSION_ID: HeaderName = HeaderName::from_static("rekindle-session-id");
const TAG: HeaderName = HeaderName::from_static("rekindle-tag");

/// The cookies that may carry the access token. The first one cannot be set by a neighbouring host, so it goes first.
const COOKIES: [&str; 2] = ["__Host-rekindle-access", "rekindle-access"];

/// Whether a request may pass, for nginx (`auth_request`), Traefik (`forwardAuth`) and Caddy (`forward_auth`): by the access token in its
/// `Authorization: Bearer` header or in its cookie `__Host-rekindle-access` or `rekindle-access`.
#[utoipa::path(
    get,
    path = "/v1/{product}/{env}/auth",
    tag = "verifiers",
    params((
        "query" = Option<HashMap<String, String>>, Query, style = Form, explode,
        description = "Anything, and ignored: Caddy sends the query of the request that it asks about",
    )),
    responses(
        (status = 204, description = "It may", headers(
            ("Rekindle-User-Id" = String, description = "Percent-encoded where it is not visible ASCII"),
            ("Rekindle-Session-Id" = String),
            ("Rekindle-Tag" = String),
        )),
        (status = 401, description = "`token_malformed` (also without one), `token_scope_mismatch`, `access_token_expired`, `session_revoked`"),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn forward_auth(
    State(app): State<App>,
    InScope(scope): InScope,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let token = auth::bearer(&headers).map_or_else(|| from_cookie(&headers), Ok)?;
    match app.engine().verify(&scope, token, None, false).await? {
        VerifyOutcome::Inactive(refusal) => Err(refusal.into()),
        VerifyOutcome::Active(active) => {
            let (user_id, session, tag) = match &active {
                Active::Token(token) => (&token.user_id, token.session, &token.tag),
                Active::Row(session) => (&session.user_id, session.id, &session.tag),
            };
            let ascii = |text: String| HeaderValue::try_from(text).expect("visible ASCII");
            let identity = [
                (USER_ID, ascii(encoded(user_id))),
                (SESSION_ID, ascii(session.to_string())),
                (TAG, ascii(tag.to_string())),
            ];
            Ok((StatusCode::NO_CONTENT, identity).into_response())
        }
    }
}

/// The access token in the request's cookies. A name that comes twice with two values is refused: the application behind could read
/// the other one.
fn from_cookie(headers: &HeaderMap) -> Result<&str, Problem> {
    let pairs = || {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
    };
    for name in COOKIES {
        let mut values = pairs().filter(|(given, _)| *given == name).map(|(_, value)| value);
        if let Some(first) = values.next() {
            return if values.all(|other| other == first) { Ok(first) } else { Err(twice()) };
        }
    }
    let missing = "send the access token as `Authorization: Bearer`, or in the cookie `__Host-rekindle-access`";
    Err(Problem::new(Code::TokenMalformed, missing))
}

fn twice() -> Problem {
    Problem::new(Code::TokenMalformed, "two cookies of one name carry different access tokens")
}

/// The user id with everything but visible ASCII, and the percent sign itself, percent-encoded.
fn encoded(user_id: &UserId) -> String {
    let mut text = String::new();
    for byte in user_id.as_str().bytes() {
        match byte {
            b'%' => text.push_str("%25"),
            0x21..=0x7e => text.push(char::from(byte)),
            _ => write!(text, "%{byte:02X}").expect("writing to a string"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cookie(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn the_cookie_that_no_neighbour_can_set_goes_first() {
        for (lines, token) in [
            (&["a=b; rekindle-access=x"][..], Some("x")),
            (&["rekindle-access=x", "c=d; __Host-rekindle-access=y"], Some("y")),
            (&["rekindle-access=x; rekindle-access=x"], Some("x")),
            (&["rekindle-access=x; rekindle-access=z"], None),
            (&["not-rekindle-access=x"], None),
            (&[], None),
        ] {
            assert_eq!(from_cookie(&cookie(lines)).ok(), token, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn every_user_id_fits_a_header_and_can_be_read_back(id in "\\PC{0,60}|[\\x00-\\x7f]{0,60}") {
            let encoded = encoded(&id.parse().unwrap());
            prop_assert!(encoded.bytes().all(|b| (0x21..=0x7e).contains(&b)));
            // `+` has a meaning in forms only.
            let read = form_urlencoded::parse(encoded.replace('+', "%2B").replace('&', "%26").replace('=', "%3D").as_bytes())
                .map(|(key, _)| key.into_owned()).collect::<String>();
            prop_assert_eq!(read, id);
        }

        #[test]
        fn any_cookie_is_read_or_refused(line in "[ -~]{0,80}") {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::try_from(line).unwrap())]);
            let _ = from_cookie(&headers);
        }
    }
}
