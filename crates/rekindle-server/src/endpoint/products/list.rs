//! `GET /v1/products`.

use axum::{Json, extract::State};

use super::ProductAnswer;
use crate::{
    app::App,
    auth::{Caller, Read},
    extract::Query,
    page::{Page, PageQuery},
    problem::Problem,
};

/// The products, by tag.
#[utoipa::path(
    get,
    path = "/v1/products",
    tag = "administration",
    security(("api_key" = ["read"])),
    params(PageQuery),
    responses((status = 200, description = "A page of products", body = Page<ProductAnswer>)),
)]
pub(super) async fn list_products(
    _: Caller<Read>,
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ProductAnswer>>, Problem> {
    let products = app.engine().products().await?;
    let key = |p: &rekindle::store::ProductRecord| p.product.tag.as_str().into();
    Page::of_all(products, &query, key, |p| p.product.into()).map(Json)
}
