//! `PATCH /v1/products/{product}/environments/{env}`.

use axum::extract::State;
use rekindle::store;
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
    let patch = store::EnvironmentPatch { name: patch.name.map(|name| name.0), active: patch.active };
    let environment = app.engine().environment(&scope.product, &scope.env).await?;
    if patch.applied(environment.clone()) == environment {
        return Ok(axum::Json(environment.into()));
    }
    app.engine().update_environment(scope.clone(), patch, &caller.itself()).await?;
    Ok(axum::Json(app.engine().environment(&scope.product, &scope.env).await?.into()))
}
