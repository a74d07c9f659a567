//! `POST sessions/mint`: a short access token for a refresh token, without rotating it.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use rekindle::{
    clock::{Seconds, Timestamp},
    engine::{Mint, Minted},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{Caller, Sessions},
    completion::to_completion,
    config::Secret,
    extract::{InScope, Json},
    problem::Problem,
    refusal::refused,
    view::{SessionView, json},
};

/// What to mint for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MintToken {
    #[schema(value_type = String)]
    refresh_token: Secret,
    /// How long the access token should live: 1 to 60 seconds, 60 by default.
    lifetime: Option<u64>,
}

/// A minted access token.
#[derive(Serialize, ToSchema)]
pub(super) struct MintedToken<'a> {
    access_token: &'a str,
    #[schema(value_type = String, format = "date-time")]
    access_token_expires_at: Timestamp,
    session: SessionView<'a>,
}

/// Gives a short access token for a refresh token. Nothing rotates.
#[utoipa::path(
    post,
    path = "/v1/{product}/{env}/sessions/mint",
    tag = "sessions",
    security(("api_key" = ["sessions"])),
    request_body = MintToken,
    responses(
        (status = 200, description = "An access token", body = MintedToken),
        (status = 401, description = "`token_malformed`, `token_scope_mismatch`, `session_expired`, `session_revoked`"),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
        (status = 409, description = "`superseded`, `environment_inactive`, `conflict`: the definition does not allow it"),
    ),
)]
pub(super) async fn mint_token(
    caller: Caller<Sessions>,
    State(app): State<App>,
    InScope(scope): InScope,
    Json(body): Json<MintToken>,
) -> Result<Response, Problem> {
    let MintToken { refresh_token, lifetime } = body;
    let ctx = caller.on_behalf_of(None);
    let engine = app.engine().clone();
    let refresh_token = Arc::new(refresh_token);
    let presented = refresh_token.clone();
    let minted = to_completion(async move {
        let request = Mint { refresh_token: presented.expose(), lifetime: lifetime.map(Seconds) };
        engine.mint(&scope, request, &ctx).await
    });
    match minted.await? {
        Minted::Token { access_token, expires_at, session } => {
            let view = MintedToken {
                access_token: access_token.expose(),
                access_token_expires_at: expires_at,
                session: SessionView::of(&session, app.engine().now()),
            };
            Ok(json(StatusCode::OK, &view))
        }
        Minted::Refused(refusal) => Err(refused(app.engine(), refresh_token.expose(), refusal)),
    }
}
