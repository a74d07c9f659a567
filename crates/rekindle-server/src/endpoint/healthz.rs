//! `GET /healthz`: whether the process runs.

use axum::http::StatusCode;

/// Answers 200 for as long as the process runs, without looking at anything else: what a supervisor restarts on.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    responses((status = 200, description = "The process runs")),
)]
pub(super) async fn healthz() -> StatusCode {
    StatusCode::OK
}
