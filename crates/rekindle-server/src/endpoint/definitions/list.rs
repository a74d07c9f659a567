//! `GET /v1/products/{product}/definitions`.

use axum::{Json, extract::State};
use rekindle::engine::DefinitionView;

use super::DefinitionAnswer;
use crate::{
    app::App,
    auth::{Caller, Read},
    extract::{PathProduct, Query},
    page::{Page, PageQuery},
    problem::Problem,
};

/// A product's session definitions, by tag.
#[utoipa::path(
    get,
    path = "/v1/products/{product}/definitions",
    tag = "administration",
    security(("api_key" = ["read"])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of definitions", body = Page<DefinitionAnswer>),
        (status = 404, description = "`product_not_found`"),
    ),
)]
pub(super) async fn list_definitions(
    _: Caller<Read>,
    State(app): State<App>,
    PathProduct(product): PathProduct,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<DefinitionAnswer>>, Problem> {
    let definitions = app.engine().definitions(&product).await?;
    let key = |view: &DefinitionView| view.definition.tag.as_str().into();
    Page::of_all(definitions, &query, key, DefinitionAnswer::from).map(Json)
}
