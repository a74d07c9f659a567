//! `PATCH sessions/{session_id}`: changes a session's data and claims.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use rekindle::engine::Patch;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{Caller, Sessions},
    completion::to_completion,
    extract::{InScope, Json, PathSession},
    problem::Problem,
    view::PatchedView,
};

/// JSON merge patches (RFC 7396), applied whole or not at all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchSession {
    #[serde(default, deserialize_with = "object")]
    #[schema(value_type = HashMap<String, serde_json::Value>)]
    data: Option<Map<String, Value>>,
    /// They reach the client with its next access token.
    #[serde(default, deserialize_with = "object")]
    #[schema(value_type = HashMap<String, serde_json::Value>)]
    claims: Option<Map<String, Value>>,
}

/// An object, and not null: in a merge patch that would remove the whole, which a session always has.
fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Map<String, Value>>, D::Error> {
    Map::deserialize(deserializer).map(Some)
}

/// Changes a session's data and claims by merge patches. Two writers never undo each other, and none undoes an ending.
#[utoipa::path(
    patch,
    path = "/v1/{product}/{env}/sessions/{session_id}",
    tag = "sessions",
    security(("api_key" = ["sessions"])),
    params(("If-Match" = Option<String>, Header, description = "Only if the session still has this version, like `\"3\"`")),
    request_body = PatchSession,
    responses(
        (status = 200, description = "The session; its version is the `ETag`", body = PatchedView),
        (status = 404, description = "`session_not_found`, `product_not_found`, `environment_not_found`"),
        (status = 409, description = "`conflict`: the session has ended, or its user would change"),
        (status = 412, description = "`version_mismatch`"),
        (status = 422, description = "`data_invalid`, `selector_unresolved`"),
    ),
)]
pub(super) async fn patch_session(
    caller: Caller<Sessions>,
    State(app): State<App>,
    InScope(scope): InScope,
    PathSession(id): PathSession,
    headers: HeaderMap,
    Json(body): Json<PatchSession>,
) -> Result<Response, Problem> {
    let if_version = version(&headers)?;
    let patch = Patch { data: body.data, claims: body.claims, if_version };
    let ctx = caller.itself();
    let engine = app.engine().clone();
    let patched = to_completion(async move { engine.patch(&scope, id, patch, &ctx).await }).await?;
    Ok(super::versioned(&PatchedView::of(&patched, app.engine().now()), patched.session.version))
}

/// The version in `If-Match`: a number, in quotes or not; `*` is any.
fn version(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = given.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let version = digits.then(|| number.parse().ok()).flatten();
    version.map(Some).ok_or_else(|| Problem::field("If-Match", "must be one version, like `\"3\"`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Option<u64>, Problem> {
        version(&HeaderMap::from_iter([(header::IF_MATCH, text.parse().unwrap())]))
    }

    #[test]
    fn a_version_comes_with_or_without_quotes() {
        assert_eq!(version(&HeaderMap::new()).unwrap(), None);
        for (text, version) in [("\"3\"", Some(3)), ("3", Some(3)), ("*", None)] {
            assert_eq!(read(text).unwrap(), version, "{text}");
        }
        for bad in ["", "\"\"", "W/\"3\"", "\"3", "3\", \"4", "+3", "-3", "99999999999999999999"] {
            assert_eq!(read(bad).unwrap_err().detail(), "`If-Match`: must be one version, like `\"3\"`", "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(text in "[ -~]{0,40}") {
            let _ = read(&text);
        }
    }
}
