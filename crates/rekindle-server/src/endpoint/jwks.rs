//! `GET jwks.json`: the keys that an environment's access tokens are verified with.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use rekindle::keys::MAX_KEYS_AGE;

use crate::{app::App, extract::InScope, problem::Problem};

const CACHE: &str = "public, max-age=300";
const _: () = assert!(300 <= MAX_KEYS_AGE.0, "the key schedule counts on caches to be no older");

/// The environment's public signing keys as a JWK Set (RFC 7517). A key appears here a day before it signs.
#[utoipa::path(
    get,
    path = "/v1/{product}/{env}/jwks.json",
    tag = "verifiers",
    responses(
        (status = 200, description = "The keys", content_type = "application/json", body = serde_json::Value),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn jwks(State(app): State<App>, InScope(scope): InScope) -> Result<Response, Problem> {
    let keys = app.engine().jwks(&scope).await?;
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, CACHE)];
    Ok((headers, keys).into_response())
}
