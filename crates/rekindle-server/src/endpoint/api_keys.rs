//! API keys.

mod create;
mod list;
mod revoke;

use rekindle::{
    clock::Timestamp,
    store::{ApiKey, Permission},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::app::Endpoints;

pub(super) fn register(endpoints: Endpoints) -> Endpoints {
    endpoints.with(routes!(list::list_api_keys, create::create_api_key)).with(routes!(revoke::revoke_api_key))
}

/// An API key, without the key itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
struct ApiKeyAnswer {
    /// Its public id.
    id: String,
    /// What it is for.
    name: String,
    /// What it may do: `sessions`, `read`, `confirm`, `admin`, `metrics`.
    #[schema(value_type = Vec<String>)]
    scopes: Vec<Permission>,
    /// When it was made.
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    revoked_at: Option<Timestamp>,
}

impl From<ApiKey> for ApiKeyAnswer {
    fn from(key: ApiKey) -> Self {
        let ApiKey { id, name, permissions: scopes, created_at, revoked_at, .. } = key;
        Self { id, name, scopes, created_at, revoked_at }
    }
}
