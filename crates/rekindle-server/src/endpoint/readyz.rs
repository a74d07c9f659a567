//! `GET /readyz`: whether to send requests here.

use axum::{
    Extension,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use rekindle::engine::Error;

use crate::{
    app::App,
    edge::Planned,
    problem::{Code, Problem},
};

/// Answers 200 while the server can work, and 503 while its store is out or it is on its way out: what a load balancer asks.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "Ready"),
        (status = 503, description = "`unavailable`"),
    ),
)]
pub(super) async fn readyz(State(app): State<App>) -> Result<Response, Problem> {
    if app.lifecycle().is_draining() {
        return Ok((Extension(Planned), Problem::new(Code::Unavailable, "the server is stopping")).into_response());
    }
    app.engine().store().ping().await.map_err(Error::from)?;
    Ok(StatusCode::OK.into_response())
}
