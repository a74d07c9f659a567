//! `GET /openapi.json`: the description of this API.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use crate::app::App;

/// The OpenAPI 3.1 document of this server.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operations",
    responses((status = 200, description = "The document", content_type = "application/json")),
)]
pub(super) async fn openapi(State(app): State<App>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=300")];
    (headers, app.openapi().clone()).into_response()
}
