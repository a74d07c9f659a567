//! Session definitions of a product.

mod create;
mod delete;
mod list;
mod read;
mod update;

use rekindle::{definition::Definition, engine::DefinitionView};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::app::Endpoints;

pub(super) fn register(endpoints: Endpoints) -> Endpoints {
    endpoints.with(routes!(list::list_definitions, create::create_definition)).with(routes!(
        read::read_definition,
        update::update_definition,
        delete::delete_definition
    ))
}

/// A session definition in its complete canonical form, with its version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Definition)]
struct DefinitionAnswer {
    /// Counts its changes, from 1.
    version: u32,
    #[serde(flatten)]
    #[schema(value_type = DefinitionDocument)]
    definition: Definition,
}

impl From<DefinitionView> for DefinitionAnswer {
    fn from(view: DefinitionView) -> Self {
        Self { version: view.version, definition: view.definition }
    }
}

/// What a kind of session carries, how long it lives, and what is done about theft. In a request only `tag` must be there, null
/// stands for the default, and times are seconds or `{ "value": 7, "unit": "days" }`.
#[derive(ToSchema)]
#[schema(as = DefinitionSettings)]
#[expect(dead_code, reason = "only its description is used")]
struct DefinitionDocument {
    /// Its name within its product, for good.
    #[schema(pattern = "^[a-z][a-z0-9_-]{0,62}$")]
    tag: String,
    /// A name for people, 1 to 128 bytes. By default the tag.
    name: Option<String>,
    /// What it is for, at most 4096 bytes.
    description: Option<String>,
    /// What `data` should look like: a sample payload, a map of type names, or JSON Schema 2020-12. By default anything.
    schema: Option<serde_json::Value>,
    /// What happens to data that does not fit: `strict` (the default), `warn` or `off`.
    schema_mode: Option<String>,
    /// Where in the data the user id is, like `$Session{details}{username}`. By default the caller gives it.
    selector: Option<String>,
    /// Access tokens.
    access_token: Option<AccessTokenDocument>,
    /// Refresh tokens, and the session's own two clocks.
    refresh: Option<RefreshDocument>,
    /// How many active sessions one user may have under this tag. By default any number.
    max_sessions_per_user: Option<u32>,
    /// What a start beyond that number does: `reject` or `end_oldest` (the default).
    on_max_sessions: Option<String>,
    /// What a face or an application keeps beside the rest, at most 32 KiB; Rekindle's engine never looks inside.
    metadata: Option<std::collections::HashMap<String, serde_json::Value>>,
}

/// A definition's part about access tokens.
#[derive(ToSchema)]
#[schema(as = AccessTokenSettings)]
#[expect(dead_code, reason = "only its description is used")]
struct AccessTokenDocument {
    /// How long one is valid, in seconds; at most 7 days.
    lifetime: Option<serde_json::Value>,
    /// `EdDSA` (the default), `ES256` or `RS256`.
    algorithm: Option<String>,
}

/// A definition's part about refresh tokens and sessions.
#[derive(ToSchema)]
#[schema(as = RefreshSettings)]
#[expect(dead_code, reason = "only its description is used")]
struct RefreshDocument {
    /// A session that is not refreshed for so long ends.
    idle_timeout: Option<serde_json::Value>,
    /// A session ends after so long, however often it was refreshed.
    absolute_lifetime: Option<serde_json::Value>,
    /// What a committed token without its opening gets: `refuse` (the default), `revoke` or `downgrade`.
    on_missing_proof: Option<String>,
    /// For how many seconds a bearer client may repeat a refresh whose answer was used already.
    reuse_leeway: Option<u32>,
    /// What theft ends: `revoke_session` (the default), `revoke_user` or `report_only`.
    on_theft: Option<String>,
    /// Whether a refresh token buys short access tokens without rotating: `allow` (the default) or `off`.
    mint: Option<String>,
}
