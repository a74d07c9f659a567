//! `GET revocations`: what verifiers follow.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use rekindle::{session::Scope, store::Revocation};
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use utoipa::IntoParams;

use crate::{
    app::App,
    auth::{Caller, Confirm},
    extract::{InScope, Query},
    page::{Limit, Page},
    problem::Problem,
    view::{RevocationView, json},
};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// The `next_cursor` of the answer before; without it, everything that still matters.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    since: u64,
    /// How many seconds to wait for the first entry: at most 30.
    #[serde(default)]
    #[param(value_type = Option<u64>, maximum = 30)]
    wait: u64,
    /// How many at most: 1 to 200, 50 by default.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Limit,
}

const MAX_WAIT: u64 = 30;

/// How often the store is asked while somebody waits: well within the second in which a verifier is to know.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// A stream ends after this time, and its reader comes back: by then its API key may have been revoked.
const STREAM_LASTS: Duration = Duration::from_secs(600);

/// How many entries a stream reads at once.
const STREAM_READS: u32 = 200;

/// Tells which access tokens are no longer good though they have not expired, oldest first: as a page, after waiting for one, or as a
/// stream of events whose ids are cursors. `next_cursor` is never null: the feed goes on from there.
#[utoipa::path(
    get,
    path = "/v1/{product}/{env}/revocations",
    tag = "verifiers",
    security(("api_key" = ["confirm"])),
    params(Which, ("Last-Event-ID" = Option<u64>, Header, description = "Where a stream was cut off")),
    responses(
        (status = 200, description = "Entries after the cursor", content(
            (Page<RevocationView> = "application/json"),
            (RevocationView = "text/event-stream"),
        )),
        (status = 404, description = "`product_not_found`, `environment_not_found`"),
    ),
)]
pub(super) async fn revocations(
    _: Caller<Confirm>,
    State(app): State<App>,
    InScope(scope): InScope,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Which { since, wait, limit } = which;
    if wait > MAX_WAIT {
        return Err(Problem::field("wait", format!("must be 0 to {MAX_WAIT} seconds")));
    }
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/event-stream") {
        let since = match headers.get("last-event-id") {
            None => since,
            Some(id) => cursor(id.to_str().unwrap_or_default())?,
        };
        // Read before the answer begins, so that an unknown scope and an outage are said with their status.
        let first = app.engine().revocations(&scope, since, STREAM_READS).await?;
        let events = Sse::new(follow(app, scope, first, since)).keep_alive(KeepAlive::default());
        return Ok(([(header::CACHE_CONTROL, "no-store")], [("x-accel-buffering", "no")], events).into_response());
    }
    // One more second for the answer itself, or the time limit of all requests would cut it off.
    let time_limit = app.config().limits.request_timeout.duration().saturating_sub(Duration::from_secs(1));
    let until = Instant::now() + Duration::from_secs(wait).min(time_limit);
    let entries = loop {
        let entries = app.engine().revocations(&scope, since, limit.0).await?;
        if !entries.is_empty() || Instant::now() >= until || app.lifecycle().is_draining() {
            break entries;
        }
        sleep(ASK_EVERY.min(until - Instant::now())).await;
    };
    let next_cursor = Some(entries.last().map_or(since, |last| last.seq).to_string());
    Ok(json(StatusCode::OK, &Page { items: entries.iter().map(RevocationView::from).collect(), next_cursor }))
}

fn cursor(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::field("Last-Event-ID", "is not an id that this stream gave"))
}

/// The feed from `first` on, until the stream has lasted long enough, the server stops or the store is out.
fn follow(
    app: App,
    scope: Scope,
    first: Vec<Revocation>,
    since: u64,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    let until = Instant::now() + STREAM_LASTS;
    let state = (app, scope, VecDeque::from(first), since);
    stream::unfold(state, move |(app, scope, mut waiting, since)| async move {
        while waiting.is_empty() {
            if Instant::now() >= until || app.lifecycle().is_draining() {
                return None;
            }
            sleep(ASK_EVERY).await;
            match app.engine().revocations(&scope, since, STREAM_READS).await {
                Ok(entries) => waiting = entries.into(),
                Err(error) => {
                    tracing::error!(%error, "a revocation stream was cut off");
                    return None;
                }
            }
        }
        let next = waiting.pop_front()?;
        let data = serde_json::to_string(&RevocationView::from(&next)).expect("a view is JSON");
        let event = Event::default().event("revocation").id(next.seq.to_string()).data(data);
        Some((Ok(event), (app, scope, waiting, next.seq)))
    })
}
