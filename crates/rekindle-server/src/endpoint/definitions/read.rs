//! `GET /v1/products/{product}/definitions/{tag}`.

use axum::{Json, extract::State};

use super::DefinitionAnswer;
use crate::{
    app::App,
    auth::{Caller, Read},
    extract::{PathProduct, PathTag},
    problem::Problem,
};

/// One session definition.
#[utoipa::path(
    get,
    path = "/v1/products/{product}/definitions/{tag}",
    tag = "administration",
    security(("api_key" = ["read"])),
    responses(
        (status = 200, description = "The definition", body = DefinitionAnswer),
        (status = 404, description = "`product_not_found`, `definition_not_found`"),
    ),
)]
pub(super) async fn read_definition(
    _: Caller<Read>,
    State(app): State<App>,
    PathProduct(product): PathProduct,
    PathTag(tag): PathTag,
) -> Result<Json<DefinitionAnswer>, Problem> {
    Ok(Json(app.engine().definition(&product, &tag).await?.into()))
}
