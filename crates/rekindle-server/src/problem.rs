//! Errors on the wire: RFC 9457 problem documents with the contract's closed list of codes.

use std::{borrow::Cow, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rekindle::{
    refresh::Commitment,
    rotation::{Expiry, TheftKind},
    session::{SessionId, UserId},
};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};

/// Declares the codes from one table: variant, wire name, HTTP status, title.
macro_rules! codes {
    ($($variant:ident $name:literal $status:literal $title:literal;)*) => {
        /// What went wrong: the contract's closed list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        #[expect(missing_docs, reason = "the names are the contract's, and the titles say it")]
        pub enum Code {
            $(#[serde(rename = $name)] $variant,)*
        }

        impl Code {
            /// Every code, in the contract's order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The contract's name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> StatusCode {
                let status: u16 = match self { $(Self::$variant => $status),* };
                StatusCode::from_u16(status).expect("a constant from 400 to 503")
            }

            /// A title for people, the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }

            const fn type_uri(self) -> &'static str {
                match self { $(Self::$variant => concat!("urn:rekindle:problem:", $name)),* }
            }
        }
    };
}

codes! {
    InvalidRequest "invalid_request" 400 "The request is not as documented";
    Unauthorized "unauthorized" 401 "No valid API key";
    Forbidden "forbidden" 403 "The API key may not do this";
    NotFound "not_found" 404 "There is nothing here";
    ProductNotFound "product_not_found" 404 "No such product";
    EnvironmentNotFound "environment_not_found" 404 "No such environment";
    DefinitionNotFound "definition_not_found" 404 "No such session definition";
    SessionNotFound "session_not_found" 404 "No such session";
    UserNotFound "user_not_found" 404 "No such user";
    EnvironmentInactive "environment_inactive" 409 "The environment is inactive";
    Conflict "conflict" 409 "This conflicts with what is there";
    VersionMismatch "version_mismatch" 412 "Somebody else wrote in the meantime";
    DataInvalid "data_invalid" 422 "The data does not match the definition's schema";
    SelectorUnresolved "selector_unresolved" 422 "The definition's selector finds no user id in the data";
    MaxSessionsReached "max_sessions_reached" 409 "The user has as many sessions as allowed";
    IdempotencyMismatch "idempotency_mismatch" 422 "The idempotency key was used for another request";
    UserBanned "user_banned" 403 "The user is banned";
    RateLimited "rate_limited" 429 "Too many requests";
    Unavailable "unavailable" 503 "Not available at the moment";
    MethodNotAllowed "method_not_allowed" 405 "The method is not allowed here";
    PayloadTooLarge "payload_too_large" 413 "The body is too large";
    UnsupportedMediaType "unsupported_media_type" 415 "The body must be JSON";
    Internal "internal" 500 "An error on our side";
    TokenMalformed "token_malformed" 401 "Not a token that this server issued";
    TokenScopeMismatch "token_scope_mismatch" 401 "The token belongs to another product or environment";
    AccessTokenExpired "access_token_expired" 401 "The access token has expired";
    SessionExpired "session_expired" 401 "The session has expired";
    SessionRevoked "session_revoked" 401 "The session was ended";
    ProofRequired "proof_required" 401 "The token alone is not enough";
    TokenTheftDetected "token_theft_detected" 401 "Two parties used one session";
    Superseded "superseded" 409 "The session has moved on";
}

impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        let names = Self::ALL.iter().map(|code| code.as_str());
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
    }
}

impl ToSchema for Code {}

/// An error answer. As a response it is `application/problem+json` with `Cache-Control: no-store`; 401 carries
/// `WWW-Authenticate`, 429 and 503 carry `Retry-After`.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: Code,
    detail: Cow<'static, str>,
    members: Members,
    retry_after: Option<Duration>,
}

/// The members that single codes add.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Members {
    /// `session_expired`: which clock ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "idle")]
    pub which: Option<Expiry>,
    /// `superseded`, `proof_required`: the session's generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// `superseded`, `proof_required` and the terminal answers: the presented token's generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presented_generation: Option<u32>,
    /// `superseded`, `proof_required`: the commitment that the session's generation carries, absent for a bearer generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub commitment: Option<Commitment>,
    /// Which session the answer is about: `superseded`, `proof_required`, `session_expired`, `session_revoked`,
    /// `token_theft_detected`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub session_id: Option<SessionId>,
    /// `token_theft_detected`: whose session it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub user_id: Option<UserId>,
    /// `token_theft_detected`: how it showed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "forked")]
    pub kind: Option<TheftKind>,
    /// `invalid_request`, `data_invalid`: what is wrong with which field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldProblem>,
}

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// The path of the field, like `proof.commitment`; empty for the body as a whole.
    pub field: String,
    /// What is wrong, without the value.
    pub detail: String,
}

/// The document as it is sent.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument<'a> {
    /// A URI that stands for the code.
    #[serde(rename = "type")]
    type_uri: &'static str,
    /// A title for people, the same for every occurrence.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What was wrong here, and what to do.
    detail: &'a str,
    /// What programs go by.
    code: Code,
    #[serde(flatten)]
    members: &'a Members,
}

impl Problem {
    /// A problem with its explanation for people: what was wrong, with which value (never a secret), what to do.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = match code {
            Code::RateLimited | Code::Unavailable => Some(Duration::from_secs(1)),
            _ => None,
        };
        Self(Box::new(Inner { code, detail: detail.into(), members: Members::default(), retry_after }))
    }

    /// An `invalid_request` about one field; `field` is its path, empty for the body as a whole.
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        let sentence = if field.is_empty() { detail.clone() } else { format!("`{field}`: {detail}") };
        Self::new(Code::InvalidRequest, sentence)
            .with(Members { fields: vec![FieldProblem { field, detail }], ..Members::default() })
    }

    /// An `internal`: the cause goes to the log, not to the caller.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "the cause is in the server's log, under this answer's X-Request-Id")
    }

    /// The same with these members.
    pub fn with(mut self, members: Members) -> Self {
        self.0.members = members;
        self
    }

    /// The same, said of this session and this generation of its refresh token.
    pub fn about(mut self, session_id: SessionId, presented_generation: u32) -> Self {
        self.0.members.session_id = Some(session_id);
        self.0.members.presented_generation = Some(presented_generation);
        self
    }

    /// The same with this `Retry-After`, rounded up to whole seconds.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Its explanation.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Inner { code, detail, members, retry_after } = &*self.0;
        let document = ProblemDocument {
            type_uri: code.type_uri(),
            title: code.title(),
            status: code.status().as_u16(),
            detail,
            code: *code,
            members,
        };
        let body = serde_json::to_vec(&document).expect("texts and numbers are JSON");
        let mut response = (code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn json(problem: Problem) -> serde_json::Value {
        let body = axum::body::to_bytes(problem.into_response().into_body(), 4096).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn a_problem_is_the_document_of_rfc_9457_with_its_code_and_members() {
        let problem = Problem::new(Code::Superseded, "go on from generation 7").with(Members {
            generation: Some(7),
            presented_generation: Some(5),
            ..Members::default()
        });
        assert_eq!(
            json(problem).await,
            serde_json::json!({
                "type": "urn:rekindle:problem:superseded", "title": "The session has moved on", "status": 409,
                "detail": "go on from generation 7", "code": "superseded", "generation": 7, "presented_generation": 5,
            })
        );
    }

    #[test]
    fn headers_go_with_the_status() {
        let headers = |code| Problem::new(code, "x").into_response().headers().clone();
        for code in Code::ALL {
            let headers = headers(*code);
            assert_eq!(headers["content-type"], "application/problem+json");
            assert_eq!(headers["cache-control"], "no-store");
            assert_eq!(headers.contains_key("www-authenticate"), code.status() == 401, "{code:?}");
            assert_eq!(headers.contains_key("retry-after"), [429, 503].contains(&code.status().as_u16()), "{code:?}");
        }
        let response = Problem::new(Code::Unavailable, "x").retry_after(Duration::from_millis(1500)).into_response();
        assert_eq!(response.headers()["retry-after"], "2");
    }

    #[test]
    fn names_on_the_wire_are_the_codes_names() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
        let members = Members { kind: Some(TheftKind::StolenToken), which: Some(Expiry::Idle), ..Members::default() };
        assert_eq!(
            serde_json::to_value(members).unwrap(),
            serde_json::json!({"kind": "stolen_token", "which": "idle"})
        );
    }
}
