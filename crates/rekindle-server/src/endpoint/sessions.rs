//! Sessions: `/v1/{product}/{env}/sessions…`.

mod confirm;
mod elevate;
mod end;
mod explain;
mod list;
mod mint;
mod patch;
mod refresh;
mod revoke;
mod revoke_all;
mod show;
mod start;
mod timeline;
mod verify;

use std::{future::Future, sync::Arc};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::FutureExt;
use rekindle::engine::{Error, RefreshOutcome};
use serde::Serialize;
use utoipa_axum::routes;

use crate::{
    app::{App, Endpoints},
    completion::to_completion,
    config::Secret,
    problem::Problem,
    refusal::{count_refresh, refused},
    view::{TokensView, json},
};

pub(super) fn register(endpoints: Endpoints) -> Endpoints {
    endpoints
        .with(routes!(list::list_sessions, start::start_session, revoke_all::revoke_sessions))
        .with(routes!(refresh::refresh_session))
        .with(routes!(verify::verify_token))
        .with(routes!(mint::mint_token))
        .with(routes!(confirm::confirm_generations))
        .with(routes!(end::end_session))
        .with(routes!(elevate::elevate_session))
        .with(routes!(show::show_session, patch::patch_session, revoke::revoke_session))
        .with(routes!(timeline::session_timeline))
        .with(routes!(explain::explain_session))
}

/// Carries out a refresh or an elevation, counts what came of it, and answers.
fn rotated(
    app: App,
    refresh_token: Arc<Secret>,
    work: impl Future<Output = Result<RefreshOutcome, Error>> + Send + 'static,
) -> impl Future<Output = Result<Response, Problem>> + Send {
    let counting = app.clone();
    let outcome = to_completion(work.inspect(move |outcome| {
        let moved = outcome.as_ref().map(|outcome| match outcome {
            RefreshOutcome::Refreshed(tokens) => Ok(tokens.issued),
            RefreshOutcome::Refused(refusal) => Err(refusal),
        });
        count_refresh(counting.metrics(), moved);
    }));
    async move {
        match outcome.await? {
            RefreshOutcome::Refreshed(tokens) => Ok(json(StatusCode::OK, &TokensView::of(&tokens, app.engine().now()))),
            RefreshOutcome::Refused(refusal) => Err(refused(app.engine(), refresh_token.expose(), refusal)),
        }
    }
}

/// A session with its version as the `ETag`.
fn versioned(view: &impl Serialize, version: u64) -> Response {
    let mut answer = json(StatusCode::OK, view);
    let etag = HeaderValue::try_from(format!("\"{version}\"")).expect("digits in quotes");
    answer.headers_mut().insert(header::ETAG, etag);
    answer
}
