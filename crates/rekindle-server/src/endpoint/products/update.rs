//! `PATCH /v1/products/{product}`.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::ProductAnswer;
use crate::{
    app::App,
    auth::{Admin, Caller},
    endpoint::name::Name,
    extract::{Json, PathProduct},
    problem::Problem,
};

/// What is to be changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProductPatch {
    /// Its name for people, 1 to 128 bytes.
    #[schema(value_type = Option<String>)]
    name: Option<Name>,
}

/// Renames a product. Its tag is for good.
#[utoipa::path(
    patch,
    path = "/v1/products/{product}",
    tag = "administration",
    security(("api_key" = ["admin"])),
    request_body = ProductPatch,
    responses(
        (status = 200, description = "The product as it is now", body = ProductAnswer),
        (status = 404, description = "`product_not_found`"),
    ),
)]
pub(super) async fn update_product(
    caller: Caller<Admin>,
    State(app): State<App>,
    PathProduct(tag): PathProduct,
    Json(patch): Json<ProductPatch>,
) -> Result<axum::Json<ProductAnswer>, Problem> {
    let mut product = app.engine().product(&tag).await?.product;
    if let Some(name) = patch.name {
        product.name = name.0;
        app.engine().update_product(product.clone(), &caller.itself()).await?;
    }
    Ok(axum::Json(product.into()))
}
