//! `GET sessions/{session_id}/timeline`: what happened to a session.

use axum::{extract::State, http::StatusCode, response::Response};
use rekindle::{
    clock::Timestamp,
    engine::TimelineQuery,
    journal::{EventId, EventKind, Outcome},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::{Caller, Read},
    extract::{InScope, PathSession, Query},
    page::{self, Limit, Page},
    problem::Problem,
    view::{EventView, event_kinds, json, outcomes},
};

/// Which events; the filters that are given must all hold.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Of this kind.
    #[param(schema_with = event_kinds, required = false)]
    kind: Option<EventKind>,
    /// With this outcome.
    #[param(schema_with = outcomes, required = false)]
    outcome: Option<Outcome>,
    /// At or after this.
    #[param(value_type = Option<String>, format = "date-time")]
    from: Option<Timestamp>,
    /// Before this.
    #[param(value_type = Option<String>, format = "date-time")]
    to: Option<Timestamp>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many at most: 1 to 200, 50 by default.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Limit,
}

/// Lists a session's events, newest first.
#[utoipa::path(
    get,
    path = "/v1/{product}/{env}/sessions/{session_id}/timeline",
    tag = "sessions",
    security(("api_key" = ["read"])),
    params(Which),
    responses(
        (status = 200, description = "A page of events", body = Page<EventView>),
        (status = 404, description = "`session_not_found`, `product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn session_timeline(
    _: Caller<Read>,
    State(app): State<App>,
    InScope(scope): InScope,
    PathSession(id): PathSession,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let query = TimelineQuery {
        kind: which.kind,
        outcome: which.outcome,
        from: which.from,
        to: which.to,
        before: page::id_cursor(which.cursor.as_deref())?.map(EventId::from_bytes),
        limit: which.limit.and_one(),
    };
    let events = app.engine().timeline(&scope, id, query).await?;
    let page = Page::of(events, which.limit, |event| event.id.to_bytes().to_vec(), |event| event);
    Ok(json(StatusCode::OK, &page.view(EventView::from)))
}
