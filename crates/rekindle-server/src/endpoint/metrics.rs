//! `GET /metrics`: what the server counts.

use axum::{
    extract::State,
    http::{HeaderName, header},
};

use crate::{
    app::App,
    auth::{Caller, Metrics},
    metrics::CONTENT_TYPE,
};

/// Everything that the server counts, as OpenMetrics text.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    security(("api_key" = ["metrics"])),
    responses((status = 200, description = "The metrics", content_type = "application/openmetrics-text", body = String)),
)]
pub(super) async fn metrics(_: Caller<Metrics>, State(app): State<App>) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], app.metrics().render())
}
