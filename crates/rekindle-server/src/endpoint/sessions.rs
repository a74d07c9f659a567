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
use rekindle::{
    clock::Timestamp,
    engine::{Error, Issued, RefreshOutcome, TokenRefusal},
    session::Session,
};
use utoipa_axum::routes;

use crate::{
    app::{App, Endpoints},
    completion::to_completion,
    config::Secret,
    metrics::{self, Metrics},
    problem::Problem,
    refusal::refused,
    view::{SessionView, TokensView, json},
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
    let outcome = to_completion(work.inspect(move |outcome| count(counting.metrics(), outcome)));
    async move {
        match outcome.await? {
            RefreshOutcome::Refreshed(tokens) => Ok(json(StatusCode::OK, &TokensView::of(&tokens, app.engine().now()))),
            RefreshOutcome::Refused(refusal) => Err(refused(app.engine(), refresh_token.expose(), refusal)),
        }
    }
}

fn count(metrics: &Metrics, outcome: &Result<RefreshOutcome, Error>) {
    use metrics::RefreshOutcome as Label;
    metrics.refresh(match outcome {
        Ok(RefreshOutcome::Refreshed(tokens)) => match tokens.issued {
            Issued::Started | Issued::Advanced => Label::Advanced,
            Issued::Reissued => Label::Reissued,
            Issued::FastForwarded => Label::FastForwarded,
        },
        Ok(RefreshOutcome::Refused(refusal)) => match refusal {
            TokenRefusal::Malformed => Label::Malformed,
            TokenRefusal::ScopeMismatch | TokenRefusal::AccessExpired => Label::Invalid,
            TokenRefusal::Expired(_) => Label::Expired,
            TokenRefusal::Revoked(_) => Label::Revoked,
            TokenRefusal::ProofRequired(_) => Label::ProofRequired,
            TokenRefusal::Superseded(_) => Label::Superseded,
            TokenRefusal::Theft { kind, .. } => {
                metrics.theft(*kind);
                Label::Theft
            }
        },
        Err(Error::Store(_) | Error::Log(_) | Error::Key(_)) => Label::Unavailable,
        Err(_) => Label::Invalid,
    });
}

/// A session with its version as the `ETag`.
fn session_answer(session: &Session, now: Timestamp) -> Response {
    let mut answer = json(StatusCode::OK, &SessionView::of(session, now));
    let etag = HeaderValue::try_from(format!("\"{}\"", session.version)).expect("digits in quotes");
    answer.headers_mut().insert(header::ETAG, etag);
    answer
}
