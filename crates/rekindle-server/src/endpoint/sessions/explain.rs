//! `GET sessions/{session_id}/explain`: why a session is alive, or how it ended.

use axum::{extract::State, http::StatusCode, response::Response};

use crate::{
    app::App,
    auth::{Caller, Read},
    extract::{InScope, PathSession},
    problem::Problem,
    view::{ExplanationView, json},
};

/// Why the session is alive or how it ended: by which rule, which request, when.
#[utoipa::path(
    get,
    path = "/v1/{product}/{env}/sessions/{session_id}/explain",
    tag = "sessions",
    security(("api_key" = ["read"])),
    responses(
        (status = 200, description = "The explanation", body = ExplanationView),
        (status = 404, description = "`session_not_found`, `product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn explain_session(
    _: Caller<Read>,
    State(app): State<App>,
    InScope(scope): InScope,
    PathSession(id): PathSession,
) -> Result<Response, Problem> {
    let told = app.engine().explain(&scope, id).await?;
    Ok(json(StatusCode::OK, &ExplanationView::from(&told)))
}
