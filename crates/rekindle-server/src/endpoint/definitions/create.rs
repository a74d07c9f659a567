//! `POST /v1/products/{product}/definitions`.

use axum::{extract::State, http::StatusCode};
use rekindle::definition::Definition;
use serde_json::Value;

use super::{DefinitionAnswer, DefinitionDocument};
use crate::{
    app::App,
    auth::{Admin, Caller},
    extract::{Json, PathProduct},
    problem::Problem,
};

/// Makes a session definition. All that is wrong with one is told at once, in `fields`.
#[utoipa::path(
    post,
    path = "/v1/products/{product}/definitions",
    tag = "administration",
    security(("api_key" = ["admin"])),
    request_body = DefinitionDocument,
    responses(
        (status = 201, description = "The new definition, every default filled in", body = DefinitionAnswer),
        (status = 404, description = "`product_not_found`"),
        (status = 409, description = "`conflict`: it exists already"),
    ),
)]
pub(super) async fn create_definition(
    caller: Caller<Admin>,
    State(app): State<App>,
    PathProduct(product): PathProduct,
    Json(new): Json<Value>,
) -> Result<(StatusCode, axum::Json<DefinitionAnswer>), Problem> {
    let definition = Definition::from_json(&new)?;
    let tag = definition.tag.clone();
    app.engine().create_definition(&product, definition, &caller.itself()).await?;
    // Read back: where a definition of this tag was deleted before, the versions are counted on.
    let made = app.engine().definition(&product, &tag).await?;
    Ok((StatusCode::CREATED, axum::Json(made.into())))
}
