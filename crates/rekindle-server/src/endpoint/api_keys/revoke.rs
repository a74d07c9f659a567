//! `DELETE /v1/api-keys/{id}`.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};

use crate::{
    app::App,
    auth::{Admin, Caller},
    problem::{Code, Problem},
};

/// Revokes an API key. Servers refuse it within a second. Idempotent.
#[utoipa::path(
    delete,
    path = "/v1/api-keys/{id}",
    tag = "administration",
    security(("api_key" = ["admin"])),
    responses(
        (status = 204, description = "It is revoked"),
        (status = 404, description = "`not_found`"),
    ),
)]
pub(super) async fn revoke_api_key(
    caller: Caller<Admin>,
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|_| Problem::new(Code::NotFound, "there is no API key with this id"))?;
    app.engine().revoke_api_key(&id, &caller.itself()).await?;
    Ok(StatusCode::NO_CONTENT)
}
