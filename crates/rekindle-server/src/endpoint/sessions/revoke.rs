//! `DELETE sessions/{session_id}`: ends one session.

use axum::{extract::State, http::StatusCode};
use rekindle::session::EndReason;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    app::App,
    auth::{Caller, Sessions},
    completion::to_completion,
    extract::{InScope, PathSession, Query},
    problem::Problem,
};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Why {
    /// Why it ends; `revoked` by default.
    #[serde(default)]
    #[param(inline, value_type = Option<Reason>)]
    reason: Reason,
}

/// The reasons that a caller may give.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Reason {
    #[default]
    Revoked,
    SignedOut,
    CredentialChanged,
}

impl From<Reason> for EndReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Revoked => Self::Revoked,
            Reason::SignedOut => Self::SignedOut,
            Reason::CredentialChanged => Self::CredentialChanged,
        }
    }
}

/// Ends a session. Idempotent: the first reason stays.
#[utoipa::path(
    delete,
    path = "/v1/{product}/{env}/sessions/{session_id}",
    tag = "sessions",
    security(("api_key" = ["sessions"])),
    params(Why),
    responses(
        (status = 204, description = "The session has ended, now or before"),
        (status = 404, description = "`session_not_found`, `product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn revoke_session(
    caller: Caller<Sessions>,
    State(app): State<App>,
    InScope(scope): InScope,
    PathSession(id): PathSession,
    Query(why): Query<Why>,
) -> Result<StatusCode, Problem> {
    let ctx = caller.itself();
    let engine = app.engine().clone();
    to_completion(async move { engine.revoke(&scope, id, why.reason.into(), &ctx).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
