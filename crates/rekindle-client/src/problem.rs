//! What went wrong, with the API's closed list of codes: the same in both modes, and on the wire between backend and browser.

use std::{borrow::Cow, error, fmt};

use http::StatusCode;
use rekindle::{
    clock::Seconds,
    definition::Violation,
    engine::{Error, Standing, TokenRefusal},
    refresh::Commitment,
    rotation::{Expiry, TheftKind},
    session::{SessionId, UserId},
};
use serde::{Deserialize, Serialize};

/// Declares the codes: variant, name on the wire, HTTP status, title.
macro_rules! codes {
    ($($variant:ident $name:literal $status:ident $title:literal;)*) => {
        /// What went wrong. Programs go by this.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "the names are the contract's, and the titles say it")]
        pub enum Code {
            $(#[serde(rename = $name)] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),* }
            }

            /// A sentence for people, the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }
        }
    };
}

codes! {
    InvalidRequest "invalid_request" BAD_REQUEST "The request is not as documented";
    Unauthorized "unauthorized" UNAUTHORIZED "No valid API key";
    Forbidden "forbidden" FORBIDDEN "This may not be done";
    NotFound "not_found" NOT_FOUND "There is nothing here";
    ProductNotFound "product_not_found" NOT_FOUND "No such product";
    EnvironmentNotFound "environment_not_found" NOT_FOUND "No such environment";
    DefinitionNotFound "definition_not_found" NOT_FOUND "No such session definition";
    SessionNotFound "session_not_found" NOT_FOUND "No such session";
    UserNotFound "user_not_found" NOT_FOUND "No such user";
    EnvironmentInactive "environment_inactive" CONFLICT "The environment is inactive";
    Conflict "conflict" CONFLICT "This conflicts with what is there";
    VersionMismatch "version_mismatch" PRECONDITION_FAILED "Somebody else wrote in the meantime";
    DataInvalid "data_invalid" UNPROCESSABLE_ENTITY "The data or claims do not fit";
    SelectorUnresolved "selector_unresolved" UNPROCESSABLE_ENTITY "The selector finds no user id in the data";
    MaxSessionsReached "max_sessions_reached" CONFLICT "The user has as many sessions as allowed";
    IdempotencyMismatch "idempotency_mismatch" UNPROCESSABLE_ENTITY "The idempotency key was used for another request";
    UserBanned "user_banned" FORBIDDEN "The user is banned";
    RateLimited "rate_limited" TOO_MANY_REQUESTS "Too many requests";
    Unavailable "unavailable" SERVICE_UNAVAILABLE "Not available at the moment";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "The method is not allowed here";
    PayloadTooLarge "payload_too_large" PAYLOAD_TOO_LARGE "The body is too large";
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE "The body must be JSON";
    Internal "internal" INTERNAL_SERVER_ERROR "An error on our side";
    TokenMalformed "token_malformed" UNAUTHORIZED "No token that was issued here";
    TokenScopeMismatch "token_scope_mismatch" UNAUTHORIZED "The token belongs to another product or environment";
    AccessTokenExpired "access_token_expired" UNAUTHORIZED "The access token has expired";
    SessionExpired "session_expired" UNAUTHORIZED "The session has expired";
    SessionRevoked "session_revoked" UNAUTHORIZED "The session was ended";
    ProofRequired "proof_required" UNAUTHORIZED "The token alone is not enough";
    TokenTheftDetected "token_theft_detected" UNAUTHORIZED "Two parties used one session";
    Superseded "superseded" CONFLICT "The session has moved on";
    CsrfFailed "csrf_failed" FORBIDDEN "The request did not come from this site";
    ReauthenticationRequired "reauthentication_required" FORBIDDEN "The sign-in is too long ago for this";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something was not done: a code for programs, a sentence for people, and what the answer is about.
///
/// A refused token is a problem, too: the terminal ones ([`Problem::is_terminal`]) mean that the user signs in again, all others that
/// the session goes on. It never holds a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    code: Code,
    detail: Cow<'static, str>,
    about: About,
    retry_after: Option<Seconds>,
}

/// The members that single codes add to a [`Problem`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// `session_expired`: which clock ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub which: Option<Expiry>,
    /// `superseded`, `proof_required`: the session's generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// The presented token's generation: `superseded`, `proof_required` and the terminal codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presented_generation: Option<u32>,
    /// `superseded`, `proof_required`: the commitment of the session's generation; absent for a bearer generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commitment: Option<Commitment>,
    /// Which session it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// `token_theft_detected`: whose session it was. A browser is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// `token_theft_detected`: how it showed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<TheftKind>,
    /// `reauthentication_required`: how many seconds ago the sign-in may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Seconds>,
    /// `invalid_request`, `data_invalid`: what is wrong with which field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldProblem>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldProblem {
    /// Its path, like `claims` or `/data/age`.
    pub field: String,
    /// What is wrong, without the value.
    pub detail: String,
}

impl Problem {
    /// A problem; `detail` says what was wrong and what to do, and holds no secret.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = matches!(code, Code::Unavailable | Code::RateLimited).then_some(Seconds(1));
        Self(Box::new(Inner { code, detail: detail.into(), about: About::default(), retry_after }))
    }

    /// An `invalid_request` about one field.
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        let sentence = format!("`{field}`: {detail}");
        Self::new(Code::InvalidRequest, sentence)
            .with(About { fields: vec![FieldProblem { field, detail }], ..About::default() })
    }

    /// The same with these members.
    pub fn with(mut self, about: About) -> Self {
        self.0.about = about;
        self
    }

    /// The same, said of a session and of the generation of the token that was presented.
    pub fn about_token(mut self, session_id: SessionId, presented_generation: u32) -> Self {
        self.0.about.session_id = Some(session_id);
        self.0.about.presented_generation = Some(presented_generation);
        self
    }

    /// The same, to be tried again after this time.
    pub fn retry_after(mut self, after: Seconds) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What was wrong, and what to do.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What it is about.
    pub fn about(&self) -> &About {
        &self.0.about
    }

    /// When to try again, where that is known.
    pub fn tried_again_after(&self) -> Option<Seconds> {
        self.0.retry_after
    }

    /// Whether the session is over: only then does a client forget what belongs to it.
    pub fn is_terminal(&self) -> bool {
        matches!(self.code(), Code::SessionExpired | Code::SessionRevoked | Code::TokenTheftDetected)
    }

    /// Whether the same request may succeed later, because nothing was decided.
    pub fn is_transient(&self) -> bool {
        matches!(self.code(), Code::Unavailable | Code::RateLimited)
    }

    /// What became of a token.
    pub fn refused(refusal: TokenRefusal) -> Self {
        let about = |about| move |problem: Self| problem.with(about);
        match refusal {
            TokenRefusal::Malformed => {
                Self::new(Code::TokenMalformed, "this token was not issued here, or was damaged")
            }
            TokenRefusal::ScopeMismatch => Self::new(
                Code::TokenScopeMismatch,
                "this token is for another product, environment, definition or issuer",
            ),
            TokenRefusal::AccessExpired => {
                Self::new(Code::AccessTokenExpired, "refresh the session, then repeat the request")
            }
            TokenRefusal::Expired(which) => about(About { which: Some(which), ..About::default() })(Self::new(
                Code::SessionExpired,
                match which {
                    Expiry::Idle => "the session was not used for its idle timeout: sign in again",
                    Expiry::Absolute => "the session has reached its lifetime: sign in again",
                },
            )),
            TokenRefusal::Revoked(_) => Self::new(Code::SessionRevoked, "the session was ended: sign in again"),
            TokenRefusal::ProofRequired(standing) => about(stands(standing))(Self::new(
                Code::ProofRequired,
                "send a proof with the opening of this generation; whoever has none signs in again",
            )),
            TokenRefusal::Superseded(standing) => about(stands(standing))(Self::new(
                Code::Superseded,
                "the session is further on: read the storage again and go on from this generation",
            )),
            TokenRefusal::Theft { kind, session_id, user_id } => {
                about(About {
                    kind: Some(kind),
                    session_id: Some(session_id),
                    user_id: Some(user_id),
                    ..About::default()
                })(Self::new(Code::TokenTheftDetected, "two parties used this session: sign in again"))
            }
        }
    }
}

fn stands(standing: Standing) -> About {
    About {
        session_id: Some(standing.session_id),
        generation: Some(standing.generation),
        presented_generation: Some(standing.presented_generation),
        commitment: Some(standing.commitment).filter(|c| c.is_some()),
        ..About::default()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.detail())
    }
}

impl error::Error for Problem {}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Invalid { field, problem } => return Self::field(*field, problem.clone()),
            Error::ProductNotFound(_) => Code::ProductNotFound,
            Error::EnvironmentNotFound(_) => Code::EnvironmentNotFound,
            Error::DefinitionNotFound(_) => Code::DefinitionNotFound,
            Error::SessionNotFound(_) => Code::SessionNotFound,
            Error::UserNotFound => Code::UserNotFound,
            Error::ApiKeyNotFound(_) => Code::NotFound,
            Error::EnvironmentInactive(_) => Code::EnvironmentInactive,
            Error::Conflict(_) | Error::SessionEnded(_) => Code::Conflict,
            Error::VersionMismatch { .. } => Code::VersionMismatch,
            Error::DataInvalid(violations) => {
                let fields = violations.iter().map(FieldProblem::from).collect();
                return Self::new(Code::DataInvalid, "the data or claims do not fit the definition or the limits")
                    .with(About { fields, ..About::default() });
            }
            Error::SelectorUnresolved(_) => Code::SelectorUnresolved,
            Error::MaxSessionsReached { .. } => Code::MaxSessionsReached,
            Error::IdempotencyMismatch => Code::IdempotencyMismatch,
            Error::UserBanned(_) => Code::UserBanned,
            Error::Store(_) | Error::Log(_) => {
                tracing::error!(%error, "the store or the revocation log failed");
                return Self::new(Code::Unavailable, "the store cannot be reached; the same request may be sent again");
            }
            Error::Key(_) => {
                tracing::error!(%error, "a key cannot be used");
                return Self::new(Code::Internal, "a key cannot be used; the log says which");
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<&Violation> for FieldProblem {
    fn from(v: &Violation) -> Self {
        Self { field: v.path.clone(), detail: format!("expected {}, found {}", v.expected, v.found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_wire_are_the_codes_names() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn only_the_end_of_a_session_is_terminal() {
        let terminal: Vec<_> = Code::ALL.iter().filter(|c| Problem::new(**c, "x").is_terminal()).collect();
        assert_eq!(terminal, [&Code::SessionExpired, &Code::SessionRevoked, &Code::TokenTheftDetected]);
    }

    #[test]
    fn a_field_is_named() {
        let problem = Problem::from(Error::Invalid { field: "lifetime", problem: "is zero".into() });
        assert_eq!(problem.to_string(), "invalid_request: `lifetime`: is zero");
        assert_eq!(problem.about().fields[0].field, "lifetime");
    }
}
