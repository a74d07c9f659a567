//! `POST sessions/confirm`: generations that a verifier saw in use.

use axum::{extract::State, http::StatusCode};
use rekindle::session::SessionId;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{Caller, Confirm},
    completion::to_completion,
    extract::{InScope, Json},
    problem::Problem,
};

/// What was seen.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfirmGenerations {
    confirmations: Vec<Seen>,
}

/// A generation that was seen in use.
#[derive(Deserialize, ToSchema)]
#[schema(as = SeenGeneration)]
#[serde(deny_unknown_fields)]
struct Seen {
    #[schema(value_type = String, format = "uuid")]
    session_id: SessionId,
    generation: u32,
}

/// Takes reports of generations that were seen in use: of access tokens with the claim `cfm`. What is unknown, ended or has moved on is
/// ignored.
#[utoipa::path(
    post,
    path = "/v1/{product}/{env}/sessions/confirm",
    tag = "verifiers",
    security(("api_key" = ["confirm"])),
    request_body = ConfirmGenerations,
    responses(
        (status = 202, description = "Taken"),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn confirm_generations(
    _: Caller<Confirm>,
    State(app): State<App>,
    InScope(scope): InScope,
    Json(body): Json<ConfirmGenerations>,
) -> Result<StatusCode, Problem> {
    let seen = body.confirmations.into_iter().map(|seen| (seen.session_id, seen.generation)).collect();
    let engine = app.engine().clone();
    to_completion(async move { engine.confirm(&scope, seen).await }).await?;
    Ok(StatusCode::ACCEPTED)
}
