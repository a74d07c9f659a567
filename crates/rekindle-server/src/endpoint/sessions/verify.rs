//! `POST sessions/verify`: what an access token is worth.

use axum::{extract::State, http::StatusCode, response::Response};
use rekindle::{
    engine::{Active, TokenRefusal, VerifyOutcome},
    rotation::Expiry,
    session::Tag,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{Caller, Sessions},
    config::Secret,
    extract::{InScope, Json},
    problem::{Code, Problem},
    refusal::token_code,
    view::{SessionView, TokenView, json},
};

/// An access token to verify.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyToken {
    #[schema(value_type = String)]
    access_token: Secret,
    /// The definition that is expected; any, by default.
    #[schema(value_type = Option<String>)]
    tag: Option<Tag>,
    /// Whether to read the session itself, and not only what this server knows of revocations.
    #[serde(default)]
    online: bool,
}

/// What the token is worth.
#[derive(Serialize, ToSchema)]
pub(super) struct Verification<'a> {
    active: bool,
    /// The session of an active token: online as it is now, offline what the token says.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<VerifiedSession<'a>>,
    /// Why it is not active.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    /// `session_expired`: which clock ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    which: Option<Expiry>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum VerifiedSession<'a> {
    Online(SessionView<'a>),
    Offline(TokenView<'a>),
}

/// Verifies an access token. The answer is 200 either way.
#[utoipa::path(
    post,
    path = "/v1/{product}/{env}/sessions/verify",
    tag = "sessions",
    security(("api_key" = ["sessions"])),
    request_body = VerifyToken,
    responses(
        (status = 200, description = "What the token is worth", body = Verification),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn verify_token(
    _: Caller<Sessions>,
    State(app): State<App>,
    InScope(scope): InScope,
    Json(body): Json<VerifyToken>,
) -> Result<Response, Problem> {
    let VerifyToken { access_token, tag, online } = body;
    let outcome = app.engine().verify(&scope, access_token.expose(), tag.as_ref(), online).await?;
    let active = |session| Verification { active: true, session: Some(session), code: None, which: None };
    let view = match &outcome {
        VerifyOutcome::Active(Active::Token(token)) => active(VerifiedSession::Offline((&**token).into())),
        VerifyOutcome::Active(Active::Row(session)) => {
            active(VerifiedSession::Online(SessionView::of(session, app.engine().now())))
        }
        VerifyOutcome::Inactive(refusal) => {
            let which = if let TokenRefusal::Expired(expiry) = refusal { Some(*expiry) } else { None };
            Verification { active: false, session: None, code: Some(token_code(refusal)), which }
        }
    };
    Ok(json(StatusCode::OK, &view))
}
