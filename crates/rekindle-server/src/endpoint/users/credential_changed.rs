//! `POST users/{user_id}/credential-changed`: ends a user's sessions because its password or another credential changed.

use axum::{extract::State, http::StatusCode, response::Response};
use rekindle::{
    engine::EndAll,
    session::{EndReason, SessionId},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{Caller, Sessions},
    completion::to_completion,
    extract::{InScope, Json, PathUser},
    problem::Problem,
    view::{Revoked, json},
};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CredentialChanged {
    /// The session in which the user made the change: it stays.
    #[schema(value_type = Option<String>, format = "uuid")]
    keep: Option<SessionId>,
}

/// Ends a user's sessions, but for the one in which a credential was changed.
#[utoipa::path(
    post,
    path = "/v1/{product}/{env}/users/{user_id}/credential-changed",
    tag = "users",
    security(("api_key" = ["sessions"])),
    request_body = CredentialChanged,
    responses(
        (status = 200, description = "How many sessions ended", body = Revoked),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn credential_changed(
    caller: Caller<Sessions>,
    State(app): State<App>,
    InScope(scope): InScope,
    PathUser(user_id): PathUser,
    Json(body): Json<CredentialChanged>,
) -> Result<Response, Problem> {
    let which = EndAll { user_id: Some(user_id), except: body.keep, ..EndAll::default() };
    let ctx = caller.itself();
    let engine = app.engine().clone();
    let revoked =
        to_completion(async move { engine.revoke_all(&scope, which, EndReason::CredentialChanged, &ctx).await });
    Ok(json(StatusCode::OK, &Revoked { revoked: revoked.await? }))
}
