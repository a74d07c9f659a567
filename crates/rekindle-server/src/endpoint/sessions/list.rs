//! `GET sessions`: an environment's sessions.

use axum::{extract::State, http::StatusCode, response::Response};
use rekindle::{
    clock::Timestamp,
    session::{SessionId, Tag, UserId},
    store::SessionQuery,
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::{Caller, Read},
    extract::{InScope, Query},
    page::{self, Limit, Page},
    problem::Problem,
    view::{self, SessionView, json},
};

/// Which sessions; the filters that are given must all hold.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Of this user; empty: anonymous ones.
    #[param(value_type = Option<String>)]
    user_id: Option<UserId>,
    /// With this tag.
    #[param(value_type = Option<String>)]
    tag: Option<Tag>,
    /// In this state.
    #[param(value_type = Option<view::State>)]
    state: Option<view::State>,
    /// Started after this.
    #[param(value_type = Option<String>, format = "date-time")]
    started_after: Option<Timestamp>,
    /// Started before this.
    #[param(value_type = Option<String>, format = "date-time")]
    started_before: Option<Timestamp>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many at most: 1 to 200, 50 by default.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Limit,
}

/// Lists sessions, newest first.
#[utoipa::path(
    get,
    path = "/v1/{product}/{env}/sessions",
    tag = "sessions",
    security(("api_key" = ["read"])),
    params(Which),
    responses(
        (status = 200, description = "A page of sessions", body = Page<SessionView>),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn list_sessions(
    _: Caller<Read>,
    State(app): State<App>,
    InScope(scope): InScope,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let now = app.engine().now();
    let query = SessionQuery {
        scope,
        user_id: which.user_id,
        tag: which.tag,
        active: which.state.map(|state| state == view::State::Active),
        started_after: which.started_after,
        started_before: which.started_before,
        before: page::id_cursor(which.cursor.as_deref())?.map(SessionId::from_bytes),
        limit: which.limit.and_one(),
        now,
    };
    let sessions = app.engine().sessions(query).await?;
    let page = Page::of(sessions, which.limit, |session| session.id.to_bytes().to_vec(), |session| session);
    Ok(json(StatusCode::OK, &page.view(|session| SessionView::of(session, now))))
}
