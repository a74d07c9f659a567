//! `DELETE /v1/products/{product}`.

use axum::{extract::State, http::StatusCode};

use crate::{
    app::App,
    auth::{Admin, Caller},
    extract::PathProduct,
    problem::Problem,
};

/// Deletes a product with its environments, definitions, ended sessions and signing keys. Refused (`conflict`) while sessions of
/// it are active.
#[utoipa::path(
    delete,
    path = "/v1/products/{product}",
    tag = "administration",
    security(("api_key" = ["admin"])),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`product_not_found`"),
        (status = 409, description = "`conflict`: sessions of it are active"),
    ),
)]
pub(super) async fn delete_product(
    caller: Caller<Admin>,
    State(app): State<App>,
    PathProduct(tag): PathProduct,
) -> Result<StatusCode, Problem> {
    app.engine().delete_product(tag, &caller.itself()).await?;
    Ok(StatusCode::NO_CONTENT)
}
