//! `DELETE sessions`: the incident drill, ends an environment's sessions.

use axum::{extract::State, http::StatusCode, response::Response};
use rekindle::{clock::Timestamp, engine::EndAll, session::EndReason};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::{Admin, Caller},
    completion::to_completion,
    extract::{InScope, Query},
    problem::Problem,
    view::{Revoked, json},
};

/// Which sessions; at least one of the two must be given, and both must hold.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Started at or before this.
    #[param(value_type = Option<String>, format = "date-time")]
    before: Option<Timestamp>,
    /// Started or refreshed at or after this.
    #[param(value_type = Option<String>, format = "date-time")]
    refreshed_after: Option<Timestamp>,
}

/// Ends an environment's active sessions. To end all of them, give the present time as `before`.
#[utoipa::path(
    delete,
    path = "/v1/{product}/{env}/sessions",
    tag = "sessions",
    security(("api_key" = ["admin"])),
    params(Which),
    responses(
        (status = 200, description = "How many sessions ended", body = Revoked),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn revoke_sessions(
    caller: Caller<Admin>,
    State(app): State<App>,
    InScope(scope): InScope,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let Which { before, refreshed_after } = which;
    // A request that lost its parameters must not log everybody out.
    if before.is_none() && refreshed_after.is_none() {
        return Err(Problem::field("before", "give `before`, `refreshed_after` or both"));
    }
    let ctx = caller.itself();
    let engine = app.engine().clone();
    let revoked = to_completion(async move {
        let which = EndAll { started_until: before, refreshed_from: refreshed_after, ..EndAll::default() };
        engine.revoke_all(&scope, which, EndReason::Revoked, &ctx).await
    });
    Ok(json(StatusCode::OK, &Revoked { revoked: revoked.await? }))
}
