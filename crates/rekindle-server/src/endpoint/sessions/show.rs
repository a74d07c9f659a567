//! `GET sessions/{session_id}`: one session.

use axum::{extract::State, response::Response};

use crate::{
    app::App,
    auth::{Caller, Read},
    extract::{InScope, PathSession},
    problem::Problem,
    view::SessionView,
};

/// One session, active or ended.
#[utoipa::path(
    get,
    path = "/v1/{product}/{env}/sessions/{session_id}",
    tag = "sessions",
    security(("api_key" = ["read"])),
    responses(
        (status = 200, description = "The session; its version is the `ETag`", body = SessionView),
        (status = 404, description = "`session_not_found`, `product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn show_session(
    _: Caller<Read>,
    State(app): State<App>,
    InScope(scope): InScope,
    PathSession(id): PathSession,
) -> Result<Response, Problem> {
    let session = app.engine().session(&scope, id).await?;
    Ok(super::versioned(&SessionView::of(&session, app.engine().now()), session.version))
}
