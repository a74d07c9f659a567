//! `PUT` and `DELETE users/{user_id}/ban`: bans a user, and lifts the ban.

use axum::{extract::State, http::StatusCode, response::Response};
use rekindle::clock::Timestamp;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{Admin, Caller},
    completion::to_completion,
    extract::{InScope, Json, PathUser},
    problem::Problem,
    view::{Revoked, json},
};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BanUser {
    /// For ever if absent.
    #[schema(value_type = Option<String>, format = "date-time")]
    until: Option<Timestamp>,
    /// For other operators: at most 1024 bytes.
    reason: Option<String>,
}

/// The longest reason, in bytes.
const MAX_REASON: usize = 1024;

/// Bans a user: its sessions end, and none can start until the ban is over or lifted. An earlier ban is replaced.
#[utoipa::path(
    put,
    path = "/v1/{product}/{env}/users/{user_id}/ban",
    tag = "users",
    security(("api_key" = ["admin"])),
    request_body = BanUser,
    responses(
        (status = 200, description = "How many sessions ended", body = Revoked),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn ban_user(
    caller: Caller<Admin>,
    State(app): State<App>,
    InScope(scope): InScope,
    PathUser(user_id): PathUser,
    Json(body): Json<BanUser>,
) -> Result<Response, Problem> {
    let BanUser { until, reason } = body;
    if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return Err(Problem::field("reason", format!("is longer than {MAX_REASON} bytes")));
    }
    let ctx = caller.itself();
    let engine = app.engine().clone();
    let revoked = to_completion(async move { engine.ban(&scope, &user_id, until, reason, &ctx).await }).await?;
    Ok(json(StatusCode::OK, &Revoked { revoked }))
}

/// Lifts a user's ban. Idempotent.
#[utoipa::path(
    delete,
    path = "/v1/{product}/{env}/users/{user_id}/ban",
    tag = "users",
    security(("api_key" = ["admin"])),
    responses(
        (status = 204, description = "The user is not banned"),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn lift_ban(
    caller: Caller<Admin>,
    State(app): State<App>,
    InScope(scope): InScope,
    PathUser(user_id): PathUser,
) -> Result<StatusCode, Problem> {
    let ctx = caller.itself();
    let engine = app.engine().clone();
    to_completion(async move { engine.lift_ban(&scope, &user_id, &ctx).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
