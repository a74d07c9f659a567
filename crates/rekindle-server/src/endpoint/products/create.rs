//! `POST /v1/products`.

use axum::{extract::State, http::StatusCode};
use rekindle::{session::Tag, store::Product};
use serde::Deserialize;
use utoipa::ToSchema;

use super::ProductAnswer;
use crate::{
    app::App,
    auth::{Admin, Caller},
    endpoint::name::Name,
    extract::Json,
    problem::Problem,
};

/// A product to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewProduct {
    /// Its name in paths, for good; not `products`.
    #[schema(value_type = String, pattern = "^[a-z][a-z0-9_-]{0,62}$")]
    tag: Tag,
    /// Its name for people, 1 to 128 bytes. By default the tag.
    #[schema(value_type = Option<String>)]
    name: Option<Name>,
}

/// Makes a product. It has no environment and no definition yet.
#[utoipa::path(
    post,
    path = "/v1/products",
    tag = "administration",
    security(("api_key" = ["admin"])),
    request_body = NewProduct,
    responses(
        (status = 201, description = "The new product", body = ProductAnswer),
        (status = 409, description = "`conflict`: it exists already"),
    ),
)]
pub(super) async fn create_product(
    caller: Caller<Admin>,
    State(app): State<App>,
    Json(new): Json<NewProduct>,
) -> Result<(StatusCode, axum::Json<ProductAnswer>), Problem> {
    let name = new.name.map_or_else(|| new.tag.to_string(), |name| name.0);
    let product = Product { tag: new.tag, name };
    app.engine().create_product(product.clone(), &caller.itself()).await?;
    Ok((StatusCode::CREATED, axum::Json(product.into())))
}
