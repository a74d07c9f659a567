//! `DELETE users/{user_id}/sessions`: ends a user's sessions.

use axum::{extract::State, http::StatusCode, response::Response};
use rekindle::{
    engine::EndAll,
    session::{EndReason, SessionId, Tag},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::{Caller, Sessions},
    completion::to_completion,
    extract::{InScope, PathUser, Query},
    problem::Problem,
    view::{Revoked, json},
};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// All but this one.
    #[param(value_type = Option<String>, format = "uuid")]
    except: Option<SessionId>,
    /// Only those with this tag.
    #[param(value_type = Option<String>)]
    tag: Option<Tag>,
}

/// Ends a user's sessions. Idempotent.
#[utoipa::path(
    delete,
    path = "/v1/{product}/{env}/users/{user_id}/sessions",
    tag = "users",
    security(("api_key" = ["sessions"])),
    params(Which),
    responses(
        (status = 200, description = "How many sessions ended", body = Revoked),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn revoke_user_sessions(
    caller: Caller<Sessions>,
    State(app): State<App>,
    InScope(scope): InScope,
    PathUser(user_id): PathUser,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let which = EndAll { user_id: Some(user_id), except: which.except, tag: which.tag, ..EndAll::default() };
    let ctx = caller.itself();
    let engine = app.engine().clone();
    let revoked =
        to_completion(async move { engine.revoke_all(&scope, which, EndReason::Revoked, &ctx).await }).await?;
    Ok(json(StatusCode::OK, &Revoked { revoked }))
}
