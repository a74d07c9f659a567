//! `PATCH /v1/products/{product}/environments/{env}`.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::EnvironmentAnswer;
use crate::{
    app::App,
    auth::{Admin, Caller},
    endpoint::name::Name,
    extract::{InScope, Json},
    problem::Problem,
};

/// What is to be changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvironmentPatch {
    /// Its name for people, 1 to 128 bytes.
    #[schema(value_type = Option<String>)]
    name: Option<Name>,
    /// Whether sessions are started and refreshed in it.
    active: Option<bool>,
}

/// Renames an environment, or switches it on or off. Other servers know within seconds.
#[utoipa::path(
    patch,
    path = "/v1/products/{product}/environments/{env}",
    tag = "administration",
    security(("api_key" = ["admin"])),
    request_body = EnvironmentPatch,
    responses(
        (status = 200, description = "The environment as it is now", body = EnvironmentAnswer),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn update_environment(
    caller: Caller<Admin>,
    State(app): State<App>,
    InScope(scope): InScope,
    Json(patch): Json<EnvironmentPatch>,
) -> Result<axum::Json<EnvironmentAnswer>, Problem> {
    let mut environment = app.engine().environment(&scope.product, &scope.env).await?;
    let before = environment.clone();
    if let Some(name) = patch.name {
        environment.name = name.0;
    }
    if let Some(active) = patch.active {
        environment.active = active;
    }
    if environment != before {
        app.engine().update_environment(&scope.product, environment.clone(), &caller.itself()).await?;
    }
    Ok(axum::Json(environment.into()))
}
