//! `POST /v1/products/{product}/environments`.

use axum::{extract::State, http::StatusCode};
use rekindle::{session::Env, store::Environment};
use serde::Deserialize;
use utoipa::ToSchema;

use super::EnvironmentAnswer;
use crate::{
    app::App,
    auth::{Admin, Caller},
    endpoint::name::Name,
    extract::{Json, PathProduct},
    problem::Problem,
};

/// An environment to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEnvironment {
    /// Its name in paths, for good.
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9-]{0,31}$")]
    slug: Env,
    /// Its name for people, 1 to 128 bytes. By default the slug.
    #[schema(value_type = Option<String>)]
    name: Option<Name>,
    /// Whether sessions are started and refreshed in it. By default they are.
    active: Option<bool>,
}

/// Makes an environment.
#[utoipa::path(
    post,
    path = "/v1/products/{product}/environments",
    tag = "administration",
    security(("api_key" = ["admin"])),
    request_body = NewEnvironment,
    responses(
        (status = 201, description = "The new environment", body = EnvironmentAnswer),
        (status = 404, description = "`product_not_found`"),
        (status = 409, description = "`conflict`: it exists already"),
    ),
)]
pub(super) async fn create_environment(
    caller: Caller<Admin>,
    State(app): State<App>,
    PathProduct(product): PathProduct,
    Json(new): Json<NewEnvironment>,
) -> Result<(StatusCode, axum::Json<EnvironmentAnswer>), Problem> {
    let name = new.name.map_or_else(|| new.slug.to_string(), |name| name.0);
    let environment = Environment { slug: new.slug, name, active: new.active.unwrap_or(true) };
    app.engine().create_environment(&product, environment.clone(), &caller.itself()).await?;
    Ok((StatusCode::CREATED, axum::Json(environment.into())))
}
