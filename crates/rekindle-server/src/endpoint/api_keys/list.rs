//! `GET /v1/api-keys`.

use axum::{Json, extract::State};
use rekindle::store::ApiKey;

use super::ApiKeyAnswer;
use crate::{
    app::App,
    auth::{Admin, Caller},
    extract::Query,
    page::{Page, PageQuery},
    problem::Problem,
};

/// Every API key, revoked ones too, oldest first.
#[utoipa::path(
    get,
    path = "/v1/api-keys",
    tag = "administration",
    security(("api_key" = ["admin"])),
    params(PageQuery),
    responses((status = 200, description = "A page of API keys", body = Page<ApiKeyAnswer>)),
)]
pub(super) async fn list_api_keys(
    _: Caller<Admin>,
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ApiKeyAnswer>>, Problem> {
    let mut keys = app.engine().api_keys().await?;
    let place = |key: &ApiKey| [&key.created_at.millis().to_be_bytes(), key.id.as_bytes()].concat();
    keys.sort_by_key(place);
    Page::of_all(keys, &query, place, ApiKeyAnswer::from).map(Json)
}
