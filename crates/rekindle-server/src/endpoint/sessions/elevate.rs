//! `POST sessions/elevate`: a refresh after a re-authentication.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use rekindle::{
    engine::{Elevate, Refresh},
    refresh::Proof,
    session::{Auth, Client, Tag},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{Caller, Sessions},
    config::Secret,
    extract::{InScope, Json},
    problem::Problem,
    view::{AuthSchema, ClientSchema, ProofSchema, TokensView},
};

/// A refresh after a re-authentication.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ElevateSession {
    #[schema(value_type = String)]
    refresh_token: Secret,
    /// The re-authentication.
    #[schema(value_type = AuthSchema)]
    auth: Auth,
    /// The definition that is expected. Naming it saves a read where the product has several.
    #[schema(value_type = Option<String>)]
    tag: Option<Tag>,
    #[schema(value_type = Option<ProofSchema>)]
    proof: Option<Proof>,
    #[schema(value_type = Option<ClientSchema>)]
    client: Option<Client>,
}

/// Rotates a refresh token after a re-authentication: access tokens of older generations are refused from then on.
#[utoipa::path(
    post,
    path = "/v1/{product}/{env}/sessions/elevate",
    tag = "sessions",
    security(("api_key" = ["sessions"])),
    request_body = ElevateSession,
    responses(
        (status = 200, description = "The session's tokens", body = TokensView),
        (status = 401, description = "`token_malformed`, `token_scope_mismatch`, `session_expired`, `session_revoked`, `proof_required`, `token_theft_detected`"),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
        (status = 409, description = "`superseded`, `environment_inactive`, `conflict`"),
    ),
)]
pub(super) async fn elevate_session(
    caller: Caller<Sessions>,
    State(app): State<App>,
    InScope(scope): InScope,
    Json(body): Json<ElevateSession>,
) -> Result<Response, Problem> {
    let ElevateSession { refresh_token, auth, tag, proof, client } = body;
    let ctx = caller.on_behalf_of(client);
    let engine = app.engine().clone();
    let refresh_token = Arc::new(refresh_token);
    super::rotated(app, refresh_token.clone(), async move {
        let refresh = Refresh { refresh_token: refresh_token.expose(), tag, proof };
        engine.elevate(&scope, Elevate { refresh, auth }, &ctx).await
    })
    .await
}
