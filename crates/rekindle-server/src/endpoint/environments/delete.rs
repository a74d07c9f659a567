//! `DELETE /v1/products/{product}/environments/{env}`.

use axum::{extract::State, http::StatusCode};

use crate::{
    app::App,
    auth::{Admin, Caller},
    extract::InScope,
    problem::Problem,
};

/// Deletes an environment with its ended sessions and signing keys. Refused (`conflict`) while sessions of it are active.
#[utoipa::path(
    delete,
    path = "/v1/products/{product}/environments/{env}",
    tag = "administration",
    security(("api_key" = ["admin"])),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
        (status = 409, description = "`conflict`: sessions of it are active"),
    ),
)]
pub(super) async fn delete_environment(
    caller: Caller<Admin>,
    State(app): State<App>,
    InScope(scope): InScope,
) -> Result<StatusCode, Problem> {
    app.engine().delete_environment(scope, &caller.itself()).await?;
    Ok(StatusCode::NO_CONTENT)
}
