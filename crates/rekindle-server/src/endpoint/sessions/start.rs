//! `POST sessions`: starts a session.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use rekindle::{
    clock::Seconds,
    engine::StartRequest,
    refresh::Commitment,
    session::{Auth, Client, SessionId, Tag, UserId},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{Caller, Sessions},
    completion::to_completion,
    extract::{InScope, Json},
    problem::Problem,
    view::{AuthSchema, ClientSchema, TokensView, json},
};

/// A session to start. Everything may be left out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StartSession {
    /// Which definition; `default` by default.
    #[serde(default = "default_tag")]
    #[schema(value_type = String)]
    tag: Tag,
    /// Whose session. With a selector it may be left out, and must be equal if it is not. Neither: anonymous.
    #[schema(value_type = Option<String>)]
    user_id: Option<UserId>,
    /// The application's data: at most 64 KiB.
    #[serde(default)]
    #[schema(value_type = HashMap<String, serde_json::Value>)]
    data: Map<String, Value>,
    /// Claims for the access token: at most 4 KiB.
    #[serde(default)]
    #[schema(value_type = HashMap<String, serde_json::Value>)]
    claims: Map<String, Value>,
    /// The authentication that the session rests on; now, by default.
    #[schema(value_type = Option<AuthSchema>)]
    auth: Option<Auth>,
    /// The commitment of generation 0: the session is committed from birth.
    #[schema(value_type = Option<String>)]
    commitment: Option<Commitment>,
    #[schema(value_type = Option<ClientSchema>)]
    client: Option<Client>,
    /// The session that this one replaces.
    #[schema(value_type = Option<String>, format = "uuid")]
    previous_session_id: Option<SessionId>,
    /// Shortens the absolute lifetime, in seconds.
    expires_in: Option<u64>,
}

fn default_tag() -> Tag {
    "default".parse().expect("a valid tag")
}

/// Starts a session.
#[utoipa::path(
    post,
    path = "/v1/{product}/{env}/sessions",
    tag = "sessions",
    security(("api_key" = ["sessions"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body gives the same session, for 24 hours")),
    request_body = StartSession,
    responses(
        (status = 201, description = "The session's first tokens", body = TokensView),
        (status = 403, description = "`user_banned`"),
        (status = 404, description = "`product_not_found`, `environment_not_found`, `definition_not_found`"),
        (status = 409, description = "`environment_inactive`, `max_sessions_reached`, `conflict`: the previous session is none of this user's, or the idempotency key's session has moved on"),
        (status = 422, description = "`data_invalid`, `selector_unresolved`, `idempotency_mismatch`"),
    ),
)]
pub(super) async fn start_session(
    caller: Caller<Sessions>,
    State(app): State<App>,
    InScope(scope): InScope,
    headers: HeaderMap,
    Json(body): Json<StartSession>,
) -> Result<Response, Problem> {
    let idempotency_key = headers.get("idempotency-key").map(|key| key.to_str().map(str::to_owned)).transpose();
    let idempotency_key =
        idempotency_key.map_err(|_| Problem::field("Idempotency-Key", "must be printable ASCII characters"))?;
    let ctx = caller.on_behalf_of(body.client);
    let request = StartRequest {
        tag: body.tag,
        user_id: body.user_id,
        data: body.data,
        claims: body.claims,
        auth: body.auth,
        commitment: body.commitment,
        client: ctx.client.clone(),
        previous_session_id: body.previous_session_id,
        expires_in: body.expires_in.map(Seconds),
        idempotency_key,
    };
    let engine = app.engine().clone();
    let tokens = to_completion(async move { engine.start(&scope, request, &ctx).await }).await?;
    Ok(json(StatusCode::CREATED, &TokensView::of(&tokens, app.engine().now())))
}
