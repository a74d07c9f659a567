//! `POST sessions/end`: signs out.

use axum::{extract::State, http::StatusCode};
use rekindle::{engine::PresentedToken, session::Client};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{Caller, Sessions},
    completion::to_completion,
    config::Secret,
    extract::{InScope, Json},
    problem::Problem,
    view::ClientSchema,
};

/// One of the session's tokens; it may be old or expired.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EndSession {
    #[schema(value_type = Option<String>)]
    refresh_token: Option<Secret>,
    #[schema(value_type = Option<String>)]
    access_token: Option<Secret>,
    #[schema(value_type = Option<ClientSchema>)]
    client: Option<Client>,
}

/// Signs out: ends the session of a token. Idempotent.
#[utoipa::path(
    post,
    path = "/v1/{product}/{env}/sessions/end",
    tag = "sessions",
    security(("api_key" = ["sessions"])),
    request_body = EndSession,
    responses(
        (status = 204, description = "The session has ended, now or before"),
        (status = 401, description = "`token_malformed`, `token_scope_mismatch`"),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn end_session(
    caller: Caller<Sessions>,
    State(app): State<App>,
    InScope(scope): InScope,
    Json(body): Json<EndSession>,
) -> Result<StatusCode, Problem> {
    let EndSession { refresh_token, access_token, client } = body;
    if refresh_token.is_some() == access_token.is_some() {
        return Err(Problem::field("", "give either `refresh_token` or `access_token`"));
    }
    let ctx = caller.on_behalf_of(client);
    let engine = app.engine().clone();
    let signed_out = to_completion(async move {
        let refresh = refresh_token.as_ref().map(|token| PresentedToken::Refresh(token.expose()));
        let access = access_token.as_ref().map(|token| PresentedToken::Access(token.expose()));
        let token = refresh.or(access).expect("one of them was given");
        engine.sign_out(&scope, token, &ctx).await
    });
    signed_out.await??;
    Ok(StatusCode::NO_CONTENT)
}
