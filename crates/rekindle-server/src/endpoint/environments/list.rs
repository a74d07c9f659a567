//! `GET /v1/products/{product}/environments`.

use axum::{Json, extract::State};
use rekindle::store::Environment;

use super::EnvironmentAnswer;
use crate::{
    app::App,
    auth::{Caller, Read},
    extract::{PathProduct, Query},
    page::{Page, PageQuery},
    problem::Problem,
};

/// A product's environments, by slug.
#[utoipa::path(
    get,
    path = "/v1/products/{product}/environments",
    tag = "administration",
    security(("api_key" = ["read"])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of environments", body = Page<EnvironmentAnswer>),
        (status = 404, description = "`product_not_found`"),
    ),
)]
pub(super) async fn list_environments(
    _: Caller<Read>,
    State(app): State<App>,
    PathProduct(product): PathProduct,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<EnvironmentAnswer>>, Problem> {
    let environments = app.engine().product(&product).await?.environments;
    Page::of_all(environments, &query, |e: &Environment| e.slug.as_str().into(), EnvironmentAnswer::from).map(Json)
}
