//! `DELETE /v1/products/{product}/definitions/{tag}`.

use axum::{extract::State, http::StatusCode};

use crate::{
    app::App,
    auth::{Admin, Caller},
    extract::{PathProduct, PathTag},
    problem::Problem,
};

/// Deletes a session definition. Refused (`conflict`) while sessions of it are active.
#[utoipa::path(
    delete,
    path = "/v1/products/{product}/definitions/{tag}",
    tag = "administration",
    security(("api_key" = ["admin"])),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`product_not_found`, `definition_not_found`"),
        (status = 409, description = "`conflict`: sessions of it are active"),
    ),
)]
pub(super) async fn delete_definition(
    caller: Caller<Admin>,
    State(app): State<App>,
    PathProduct(product): PathProduct,
    PathTag(tag): PathTag,
) -> Result<StatusCode, Problem> {
    app.engine().delete_definition(&product, &tag, &caller.itself()).await?;
    Ok(StatusCode::NO_CONTENT)
}
