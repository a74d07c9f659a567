//! Answers as SuperTokens SDKs expect them: JSON with a status word, or a line of text.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rekindle::engine::Error;
use serde_json::{Map, Value};

/// An answer.
pub(super) enum Reply {
    /// 200, whatever the status word says.
    Json(Map<String, Value>),
    /// The same, to be cached for so many seconds.
    Cached(Map<String, Value>, u64),
    /// A line of text.
    Text(StatusCode, String),
}

impl Reply {
    /// `{"status": "OK"}` and these members. One that is null is left out: SDKs ask whether a member is there.
    pub(super) fn ok<const N: usize>(members: [(&str, Value); N]) -> Self {
        Self::status("OK", members)
    }

    /// The same with another status word.
    pub(super) fn status<const N: usize>(word: &str, members: [(&str, Value); N]) -> Self {
        let mut map = object(members);
        map.insert("status".into(), word.into());
        Self::Json(map)
    }

    /// `UNAUTHORISED` with a reason for developers.
    pub(super) fn unauthorised(message: &str) -> Self {
        Self::status("UNAUTHORISED", [("message", message.into())])
    }

    /// A line of text.
    pub(super) fn text(status: StatusCode, line: impl Into<String>) -> Self {
        Self::Text(status, line.into())
    }

    /// The request is wrong, and this is why.
    pub(super) fn bad(line: impl Into<String>) -> Self {
        Self::text(StatusCode::BAD_REQUEST, line)
    }

    /// There is nothing here.
    pub(super) fn not_found() -> Self {
        Self::text(StatusCode::NOT_FOUND, "Not found")
    }
}

/// An object of these members without those that are null.
pub(super) fn object<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    let present = members.into_iter().filter(|(_, value)| !value.is_null());
    present.map(|(name, value)| (name.to_owned(), value)).collect()
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");
        const TEXT: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");
        let json = |map| serde_json::to_string(&Value::Object(map)).expect("JSON values are JSON");
        match self {
            Self::Json(map) => ([(header::CONTENT_TYPE, JSON)], json(map)).into_response(),
            Self::Cached(map, seconds) => {
                let mut response = ([(header::CONTENT_TYPE, JSON)], json(map)).into_response();
                let cache = HeaderValue::try_from(format!("max-age={seconds}, must-revalidate")).expect("ASCII");
                response.headers_mut().insert(header::CACHE_CONTROL, cache);
                response
            }
            Self::Text(status, line) => {
                // SDKs want HTML, and a line may repeat what was sent: nothing in it is carried out.
                const SANDBOX: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");
                let headers = [(header::CONTENT_TYPE, TEXT), (header::CONTENT_SECURITY_POLICY, SANDBOX)];
                let mut response = (status, headers, line + "\n").into_response();
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                }
                response
            }
        }
    }
}

impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::ProductNotFound(_) | Error::EnvironmentNotFound(_) | Error::DefinitionNotFound(_) => {
                return Self::bad("AppId or tenantId not found");
            }
            Error::SessionNotFound(_) | Error::SessionEnded(_) => return Self::unauthorised("Session does not exist."),
            Error::DataInvalid(violations) => {
                let said = violations.iter().map(|v| format!("{}: expected {}, found {}", v.path, v.expected, v.found));
                return Self::bad(said.collect::<Vec<_>>().join("; "));
            }
            Error::UserBanned(_) | Error::EnvironmentInactive(_) | Error::MaxSessionsReached { .. } => {
                StatusCode::FORBIDDEN
            }
            Error::Store(_) | Error::Log(_) => {
                tracing::error!(%error, "the store or the revocation log failed");
                let line = "the store cannot be reached; the same request may be sent again";
                return Self::text(StatusCode::SERVICE_UNAVAILABLE, line);
            }
            Error::Key(_) => {
                tracing::error!(%error, "a key cannot be used");
                return Self::text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Error");
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Self::text(status, error.to_string())
    }
}
