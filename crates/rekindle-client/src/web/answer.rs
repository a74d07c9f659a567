//! Answers: of the routes under `{base}/session`, and to requests whose token was refused.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use rekindle::{
    clock::Timestamp,
    refresh::Commitment,
    session::{Auth, SessionId, UserId},
};
use serde::{Deserialize, Serialize};

use super::{Credentials, Request, Via, Web};
use crate::{
    problem::{About, Code, Problem},
    session::{SessionInfo, Tokens},
};

/// An answer in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers; `Set-Cookie` may come several times.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
}

impl Answer {
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: String::new() }
    }

    pub(super) fn of(status: StatusCode, content_type: &'static str, body: impl Into<String>) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { status, headers, body: body.into() }
    }

    fn of_problem(problem: &Problem, status: StatusCode) -> Self {
        let code = problem.code();
        let document = Document {
            kind: format!("urn:rekindle:problem:{code}"),
            title: code.title(),
            status: status.as_u16(),
            detail: problem.detail(),
            code,
            about: About { user_id: None, ..problem.about().clone() },
        };
        let mut answer = Self::json(status, &document);
        answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            answer.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = problem.tried_again_after() {
            answer.headers.insert(header::RETRY_AFTER, after.0.into());
        }
        answer
    }

    fn json(status: StatusCode, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).expect("texts and numbers are JSON");
        let mut answer = Self::of(status, "application/json", body);
        answer.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }
}

impl From<&Problem> for Answer {
    /// A problem as an answer, with the status of its code. Its `user_id` stays here.
    fn from(problem: &Problem) -> Self {
        Self::of_problem(problem, problem.code().status())
    }
}

/// A problem as it is sent (RFC 9457).
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: Code,
    #[serde(flatten)]
    about: About,
}

/// What a browser is told of the tokens that it got; the tokens themselves are in cookies or headers.
#[derive(Serialize)]
struct Refreshed<'a> {
    session_id: SessionId,
    generation: u32,
    commitment: Option<Commitment>,
    user_id: &'a UserId,
    access_token_expires_at: Timestamp,
    refresh_token_expires_at: Timestamp,
}

/// One of a user's sessions, as the user may see it.
#[derive(Serialize)]
struct Listed<'a> {
    id: SessionId,
    /// The one that asked.
    current: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<&'a str>,
    created_at: Timestamp,
    last_refreshed_at: Timestamp,
    expires_at: Timestamp,
}

impl<'a> Listed<'a> {
    fn of(session: &'a SessionInfo, current: SessionId) -> Self {
        Self {
            id: session.id,
            current: session.id == current,
            device: session.client.device.as_deref(),
            user_agent: session.client.user_agent.as_deref(),
            ip: session.client.ip.as_deref(),
            created_at: session.created_at,
            last_refreshed_at: session.last_refreshed_at,
            expires_at: session.expires_at,
        }
    }
}

#[derive(Serialize)]
struct List<'a> {
    items: Vec<Listed<'a>>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: u64,
}

/// The body of `POST {base}/session/revoke`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeRequest {
    /// `{ "session_id": "…" }`: this one of the user's sessions.
    One(SessionId),
    /// `{ "others": true }`: all of the user's sessions but the one that asks.
    Others,
}

impl RevokeRequest {
    /// Reads the body.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            session_id: Option<SessionId>,
            #[serde(default)]
            others: bool,
        }
        let body: Body = serde_json::from_slice(body).map_err(|e| Problem::field("", e.to_string()))?;
        match (body.session_id, body.others) {
            (Some(id), false) => Ok(Self::One(id)),
            (None, true) => Ok(Self::Others),
            _ => Err(Problem::field("", "give either `session_id`, or `others` as true")),
        }
    }
}

impl Web {
    /// A problem as an answer. Its `user_id` stays here.
    pub fn problem(&self, problem: &Problem) -> Answer {
        match problem.is_terminal() && self.settings.ended_as_440 {
            true => Answer::of_problem(problem, StatusCode::from_u16(440).expect("a number of three digits")),
            false => Answer::from(problem),
        }
    }

    /// The answer to a request whose tokens were refused: the page that refreshes, where a browser asks for a page and its access
    /// token has expired; else the problem, with cleared cookies where that is due.
    pub fn refusal(&self, request: &Request<'_>, credentials: Option<&Credentials>, problem: &Problem) -> Answer {
        let Some(credentials) = credentials else { return self.problem(problem) };
        if problem.code() == Code::AccessTokenExpired && credentials.via == Via::Cookies && request.wants_page() {
            return self.refresh_page();
        }
        let mut answer = self.problem(problem);
        if self.clears(credentials, problem) {
            answer.headers.extend(self.clear(credentials));
        }
        answer
    }

    /// What is wrong with a request that carries no access token: a session that can be refreshed, or none.
    pub fn without_access_token(&self, credentials: &Credentials) -> Problem {
        match credentials.refresh.is_some() || credentials.marker.is_some() {
            true => Problem::new(Code::AccessTokenExpired, "refresh the session, then repeat the request"),
            false => Problem::new(Code::TokenMalformed, "there is no session: sign in"),
        }
    }

    /// The answer to `POST {base}/session/refresh`.
    pub fn refreshed(&self, credentials: &Credentials, tokens: &Tokens, now: Timestamp) -> Result<Answer, Problem> {
        let headers = self.issue(credentials, tokens, now)?;
        let body = Refreshed {
            session_id: tokens.session.id,
            generation: tokens.session.generation,
            commitment: tokens.commitment,
            user_id: &tokens.session.user_id,
            access_token_expires_at: tokens.access_token_expires_at,
            refresh_token_expires_at: tokens.refresh_token_expires_at,
        };
        let mut answer = Answer::json(StatusCode::OK, &body);
        answer.headers.extend(headers);
        Ok(answer)
    }

    /// The answer to `POST {base}/session/signout`.
    pub fn signed_out(&self, credentials: &Credentials) -> Answer {
        Answer { headers: self.clear(credentials), ..Answer::empty(StatusCode::NO_CONTENT) }
    }

    /// The answer to `GET {base}/session/list`.
    pub fn listed(&self, sessions: &[SessionInfo], current: SessionId) -> Answer {
        let items = sessions.iter().map(|session| Listed::of(session, current)).collect();
        Answer::json(StatusCode::OK, &List { items })
    }

    /// The answer to `POST {base}/session/revoke`; with the cookies cleared where the session itself was revoked.
    pub fn revoked(&self, credentials: &Credentials, revoked: u64, current: bool) -> Answer {
        let mut answer = Answer::json(StatusCode::OK, &Revoked { revoked });
        if current {
            answer.headers.extend(self.clear(credentials));
        }
        answer
    }

    /// Refuses what needs a fresh sign-in (`reauthentication_required`): [`super::Settings::fresh_for`].
    pub fn check_fresh(&self, auth: &Auth, now: Timestamp) -> Result<(), Problem> {
        let max_age = self.settings.fresh_for;
        if auth.time + max_age >= now {
            return Ok(());
        }
        let detail =
            format!("the sign-in was more than {} seconds ago: let the user sign in again for this", max_age.0);
        Err(Problem::new(Code::ReauthenticationRequired, detail)
            .with(About { max_age: Some(max_age), ..About::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cookie::tests::{NOW, tokens, web};
    use super::super::testing::{Sent, all};
    use super::*;
    use proptest::prelude::*;
    use rekindle::{clock::Seconds, rotation::TheftKind};
    use serde_json::{Value, json};

    const JAR: &str =
        "__Host-rekindle-access=a.b.c; __Host-rekindle-session=07070707-0707-0707-0707-070707070707.3..1800000300";

    fn body(answer: &Answer) -> Value {
        serde_json::from_str(&answer.body).unwrap()
    }

    #[test]
    fn a_problem_is_the_document_of_rfc_9457_and_does_not_tell_the_user_of_a_theft() {
        let web = web(|_| ());
        let problem = Problem::new(Code::TokenTheftDetected, "two parties").with(About {
            session_id: Some(SessionId::from_bytes([7; 16])),
            user_id: Some("ada".parse().unwrap()),
            kind: Some(TheftKind::Forked),
            ..About::default()
        });
        let answer = web.problem(&problem);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(
            body(&answer),
            json!({
                "type": "urn:rekindle:problem:token_theft_detected", "title": "Two parties used one session", "status": 401,
                "detail": "two parties", "code": "token_theft_detected", "kind": "forked",
                "session_id": "07070707-0707-0707-0707-070707070707",
            })
        );
        assert_eq!(web.problem(&Problem::new(Code::Unavailable, "x")).headers["retry-after"], "1");
    }

    #[test]
    fn the_end_of_a_session_can_have_the_status_440() {
        let web = web(|s| s.ended_as_440 = true);
        assert_eq!(web.problem(&Problem::new(Code::SessionExpired, "x")).status, 440);
        assert_eq!(web.problem(&Problem::new(Code::AccessTokenExpired, "x")).status, 401);
    }

    #[test]
    fn an_expired_access_token_is_a_page_for_a_browser_that_asks_for_one_and_a_problem_for_a_script() {
        let web = web(|_| ());
        let expired = Problem::new(Code::AccessTokenExpired, "x");
        let page = |sent: Sent, problem: &Problem| {
            let credentials = web.credentials(&sent.request()).unwrap();
            let answer = web.refusal(&sent.request(), Some(&credentials), problem);
            assert_eq!(answer.status, 401);
            answer.headers["content-type"] == "text/html; charset=utf-8"
        };
        let get = || Sent::get().with("cookie", JAR);
        assert!(page(get().with("sec-fetch-mode", "navigate"), &expired));
        assert!(page(get().with("accept", "text/html,application/xhtml+xml,*/*;q=0.8"), &expired));
        assert!(!page(get().with("sec-fetch-mode", "cors").with("accept", "text/html"), &expired));
        assert!(!page(get().with("accept", "application/json"), &expired));
        assert!(!page(Sent::post().with("cookie", JAR).with("sec-fetch-mode", "navigate"), &expired));
        assert!(!page(Sent::get().with("authorization", "Bearer x").with("accept", "text/html"), &expired));
        assert!(!page(get().with("sec-fetch-mode", "navigate"), &Problem::new(Code::SessionRevoked, "x")));
    }

    #[test]
    fn a_refusal_clears_only_what_it_is_about() {
        let web = web(|_| ());
        let sent = Sent::get().with("cookie", JAR);
        let credentials = web.credentials(&sent.request()).unwrap();
        let cookies = |problem: Problem| {
            let answer = web.refusal(&sent.request(), Some(&credentials), &problem);
            all(&answer.headers, "set-cookie").len()
        };
        let revoked = Problem::new(Code::SessionRevoked, "x");
        assert_eq!(cookies(revoked.clone().about_token(SessionId::from_bytes([7; 16]), 3)), 3);
        assert_eq!(cookies(revoked.about_token(SessionId::from_bytes([7; 16]), 2)), 0);
        assert_eq!(cookies(Problem::new(Code::Unavailable, "x")), 0);
    }

    #[test]
    fn a_refresh_tells_where_the_session_stands_and_no_token() {
        let web = web(|_| ());
        let credentials = web.credentials(&Sent::post().with("rekindle-mode", "header").request()).unwrap();
        let answer = web.refreshed(&credentials, &tokens(), NOW).unwrap();
        assert_eq!(
            body(&answer),
            json!({
                "session_id": "07070707-0707-0707-0707-070707070707", "generation": 3, "commitment": null, "user_id": "ada",
                "access_token_expires_at": "2027-01-15T08:05:00Z", "refresh_token_expires_at": "2027-01-15T09:00:00Z",
            })
        );
        assert_eq!(answer.headers["rekindle-refresh-token"], "rkr_refresh");
    }

    #[test]
    fn a_user_sees_its_sessions_and_which_one_asked() {
        let session = tokens().session;
        let answer = web(|_| ()).listed(std::slice::from_ref(&session), session.id);
        assert_eq!(body(&answer)["items"][0]["current"], true);
        assert_eq!(body(&answer)["items"][0]["id"], session.id.to_string());
        assert!(body(&answer)["items"][0].get("data").is_none());
    }

    #[test]
    fn ending_other_sessions_needs_a_fresh_sign_in() {
        let web = web(|s| s.fresh_for = Seconds(60));
        let auth = tokens().session.auth;
        assert!(web.check_fresh(&auth, NOW + Seconds(60)).is_ok());
        let problem = web.check_fresh(&auth, NOW + Seconds(61)).unwrap_err();
        assert_eq!(body(&web.problem(&problem))["max_age"], 60);
        assert_eq!(problem.code(), Code::ReauthenticationRequired);
    }

    #[test]
    fn what_to_revoke_is_said_clearly() {
        let one = RevokeRequest::parse(br#"{"session_id":"07070707-0707-0707-0707-070707070707"}"#);
        assert_eq!(one, Ok(RevokeRequest::One(SessionId::from_bytes([7; 16]))));
        assert_eq!(RevokeRequest::parse(br#"{"others":true}"#), Ok(RevokeRequest::Others));
        for bad in ["", "{}", "[]", r#"{"others":false}"#, r#"{"all":true}"#, r#"{"session_id":"x"}"#] {
            assert_eq!(RevokeRequest::parse(bad.as_bytes()).unwrap_err().code(), Code::InvalidRequest, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = RevokeRequest::parse(&body);
        }
    }
}
