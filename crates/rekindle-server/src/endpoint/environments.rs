//! Environments of a product.

mod create;
mod delete;
mod list;
mod update;

use rekindle::store::Environment;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::app::Endpoints;

pub(super) fn register(endpoints: Endpoints) -> Endpoints {
    endpoints
        .with(routes!(list::list_environments, create::create_environment))
        .with(routes!(update::update_environment, delete::delete_environment))
}

/// An environment of a product: it has sessions and signing keys of its own.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Environment)]
struct EnvironmentAnswer {
    /// Its name in paths, for good.
    slug: String,
    /// Its name for people.
    name: String,
    /// Whether sessions are started and refreshed in it.
    active: bool,
}

impl From<Environment> for EnvironmentAnswer {
    fn from(environment: Environment) -> Self {
        Self { slug: environment.slug.to_string(), name: environment.name, active: environment.active }
    }
}
