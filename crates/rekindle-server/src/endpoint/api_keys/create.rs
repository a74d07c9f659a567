//! `POST /v1/api-keys`.

use axum::{extract::State, http::StatusCode};
use rekindle::store::Permission;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiKeyAnswer;
use crate::{
    app::App,
    auth::{Admin, Caller},
    endpoint::name::Name,
    extract::Json,
    problem::Problem,
};

/// An API key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewApiKey {
    /// What it is for, 1 to 128 bytes.
    #[schema(value_type = String)]
    name: Name,
    /// What it may do: `sessions`, `read`, `confirm`, `admin`, `metrics`.
    #[schema(value_type = Vec<String>, min_items = 1)]
    scopes: Vec<Permission>,
}

/// An API key with the key itself.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedApiKey {
    #[serde(flatten)]
    about: ApiKeyAnswer,
    /// The key. It is shown here and never again.
    key: String,
}

/// Makes an API key. Other servers accept it within a second.
#[utoipa::path(
    post,
    path = "/v1/api-keys",
    tag = "administration",
    security(("api_key" = ["admin"])),
    request_body = NewApiKey,
    responses((status = 201, description = "The new key, shown this once", body = CreatedApiKey)),
)]
pub(super) async fn create_api_key(
    caller: Caller<Admin>,
    State(app): State<App>,
    Json(new): Json<NewApiKey>,
) -> Result<(StatusCode, axum::Json<CreatedApiKey>), Problem> {
    if new.scopes.is_empty() {
        return Err(Problem::field("scopes", "must name at least one scope"));
    }
    let made = app.engine().create_api_key(new.name.0, new.scopes, &caller.itself()).await?;
    let key = made.secret.expose().to_owned();
    Ok((StatusCode::CREATED, axum::Json(CreatedApiKey { about: made.key.into(), key })))
}
