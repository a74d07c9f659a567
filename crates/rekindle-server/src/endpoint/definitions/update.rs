//! `PATCH /v1/products/{product}/definitions/{tag}`.

use axum::extract::State;
use serde_json::Value;

use super::DefinitionAnswer;
use crate::{
    app::App,
    auth::{Admin, Caller},
    extract::{Json, PathProduct, PathTag},
    problem::Problem,
};

/// Changes a session definition by a JSON merge patch (RFC 7396). Running sessions keep the schema that they started with;
/// lifetimes and policies apply from their next token on. To replace a `schema` whole, set it to null first.
#[utoipa::path(
    patch,
    path = "/v1/products/{product}/definitions/{tag}",
    tag = "administration",
    security(("api_key" = ["admin"])),
    request_body(content = serde_json::Value, description = "A merge patch of the definition as it is read"),
    responses(
        (status = 200, description = "The definition as it is now", body = DefinitionAnswer),
        (status = 404, description = "`product_not_found`, `definition_not_found`"),
        (status = 409, description = "`conflict`: somebody else changed it meanwhile"),
    ),
)]
pub(super) async fn update_definition(
    caller: Caller<Admin>,
    State(app): State<App>,
    PathProduct(product): PathProduct,
    PathTag(tag): PathTag,
    Json(patch): Json<Value>,
) -> Result<axum::Json<DefinitionAnswer>, Problem> {
    let view = app.engine().patch_definition(&product, &tag, &patch, &caller.itself()).await??;
    Ok(axum::Json(view.into()))
}
