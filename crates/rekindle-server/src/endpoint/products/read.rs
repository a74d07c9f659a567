//! `GET /v1/products/{product}`.

use axum::{Json, extract::State};

use super::ProductAnswer;
use crate::{
    app::App,
    auth::{Caller, Read},
    extract::PathProduct,
    problem::Problem,
};

/// One product.
#[utoipa::path(
    get,
    path = "/v1/products/{product}",
    tag = "administration",
    security(("api_key" = ["read"])),
    responses(
        (status = 200, description = "The product", body = ProductAnswer),
        (status = 404, description = "`product_not_found`"),
    ),
)]
pub(super) async fn read_product(
    _: Caller<Read>,
    State(app): State<App>,
    PathProduct(tag): PathProduct,
) -> Result<Json<ProductAnswer>, Problem> {
    Ok(Json(app.engine().product(&tag).await?.product.into()))
}
