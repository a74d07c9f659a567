//! `DELETE users/{user_id}`: erases a user.

use axum::{extract::State, http::StatusCode, response::Response};

use crate::{
    app::App,
    auth::{Admin, Caller},
    completion::to_completion,
    extract::{InScope, PathUser},
    problem::Problem,
    view::{Revoked, json},
};

/// Erases a user's sessions, events and ban. Idempotent. Its access tokens are refused from then on.
#[utoipa::path(
    delete,
    path = "/v1/{product}/{env}/users/{user_id}",
    tag = "users",
    security(("api_key" = ["admin"])),
    responses(
        (status = 200, description = "How many of the sessions were still active", body = Revoked),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn erase_user(
    caller: Caller<Admin>,
    State(app): State<App>,
    InScope(scope): InScope,
    PathUser(user_id): PathUser,
) -> Result<Response, Problem> {
    let ctx = caller.itself();
    let engine = app.engine().clone();
    let revoked = to_completion(async move { engine.erase_user(&scope, &user_id, &ctx).await }).await?;
    Ok(json(StatusCode::OK, &Revoked { revoked }))
}
