//! The routes under `{base}/session`.

use std::sync::Arc;

use ::axum::{
    Router,
    body::Bytes,
    extract::Request,
    http::request::Parts,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use rekindle::session::SessionId;

use super::{
    Sessions,
    extract::{self, Session},
    layer::{Seen, described},
};
use crate::{
    problem::{Code, Problem},
    session::{List, Refresh, SessionInfo, State},
    web::{Answer, Claim, Credentials, RevokeRequest, Via},
};

pub(super) fn routes<S: Clone + Send + Sync + 'static>(sessions: &Sessions) -> Router<S> {
    let path = |name: &str| format!("{}/session/{name}", sessions.web().settings().base);
    let script = sessions.web().refresh_script();
    Router::new()
        .route(&path("refresh"), post(refresh))
        .route(&path("signout"), post(sign_out))
        .route(&path("list"), get(list))
        .route(&path("revoke"), post(revoke))
        .route(&path("refresh.js"), get(async || script))
}

/// `POST {base}/session/refresh`.
async fn refresh(request: Request) -> Response {
    answer(request, async |seen, parts, credentials| {
        let (web, rekindle) = (seen.sessions.web(), seen.sessions.rekindle());
        let request = described(&parts.method, &parts.uri, &parts.headers);
        let proof = Claim::of(&request)?.and_then(Claim::step);
        let missing = || Problem::new(Code::TokenMalformed, "there is no refresh token: sign in");
        let token = credentials.refresh.clone().ok_or_else(missing)?;
        let tokens = rekindle.refresh(Refresh { token, proof, client: extract::client(&request, parts) }).await?;
        web.refreshed(credentials, &tokens, rekindle.now())
    })
    .await
}

/// `POST {base}/session/signout`.
async fn sign_out(request: Request) -> Response {
    answer(request, async |seen, parts, credentials| {
        let proof = Claim::of(&described(&parts.method, &parts.uri, &parts.headers))?.and_then(Claim::step);
        if let (Some(proof), Some(marker)) = (proof, credentials.marker)
            && proof.session_id != marker.session_id
        {
            return Err(Problem::new(Code::Superseded, "another session has come into this browser meanwhile")
                .about_token(marker.session_id, marker.generation));
        }
        if let Some(token) = credentials.refresh.as_ref().or(credentials.access.as_ref()) {
            match seen.sessions.rekindle().sign_out(token).await {
                Ok(()) => {}
                // There is no session of ours behind it, and the user wants to be out.
                Err(problem) if matches!(problem.code(), Code::TokenMalformed | Code::TokenScopeMismatch) => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(seen.sessions.web().signed_out(credentials))
    })
    .await
}

/// `GET {base}/session/list`.
async fn list(session: Session, request: Request) -> Result<Response, Problem> {
    let seen = seen(request)?;
    let sessions = own_sessions(&seen, &session).await?;
    Ok(seen.sessions.web().listed(&sessions, session.id()).into_response())
}

/// `POST {base}/session/revoke`.
async fn revoke(session: Session, request: Request) -> Result<Response, Problem> {
    session.require_fresh_sign_in()?;
    let (parts, body) = request.into_parts();
    let seen = extract::seen(&parts).map_err(|(problem, _)| problem)?;
    let credentials = seen.credentials.as_ref().map_err(Problem::clone)?;
    let body: Bytes = ::axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| Problem::new(Code::PayloadTooLarge, format!("send at most {MAX_BODY} bytes")))?;
    let rekindle = seen.sessions.rekindle();
    let (revoked, current) = match RevokeRequest::parse(&body)? {
        RevokeRequest::One(id) => (u64::from(revoke_one(&seen, &session, id).await?), id == session.id()),
        // The anonymous user is nobody: its other sessions are other people's.
        RevokeRequest::Others if session.user_id().is_anonymous() => (0, false),
        RevokeRequest::Others => (rekindle.revoke_user(session.user_id(), Some(session.id())).await?, false),
    };
    Ok(seen.sessions.web().revoked(credentials, revoked, current).into_response())
}

/// No body of ours is longer.
const MAX_BODY: usize = 1024;

/// How many of a user's sessions are shown.
const SHOWN: u32 = 200;

/// The active sessions of the user that asks.
async fn own_sessions(seen: &Seen, session: &Session) -> Result<Vec<SessionInfo>, Problem> {
    if session.user_id().is_anonymous() {
        return Ok(vec![session.read().await?]);
    }
    let user_id = Some(session.user_id().clone());
    let list = List { user_id, state: Some(State::Active), limit: Some(SHOWN), ..List::default() };
    Ok(seen.sessions.rekindle().list(list).await?.sessions)
}

/// Ends a session if it is the user's own; whether it was active. To anybody else it does not exist.
async fn revoke_one(seen: &Seen, session: &Session, id: SessionId) -> Result<bool, Problem> {
    let rekindle = seen.sessions.rekindle();
    let found = rekindle.read(id).await?;
    let own = found.id == session.id() || (found.user_id == *session.user_id() && !found.user_id.is_anonymous());
    if !own {
        return Err(Problem::new(Code::SessionNotFound, format!("there is no session {id} of this user")));
    }
    rekindle.revoke(id).await?;
    Ok(found.state == State::Active)
}

fn seen(request: Request) -> Result<Arc<Seen>, Problem> {
    extract::seen(&request.into_parts().0).map_err(|(problem, _)| problem)
}

/// Answers a route of the session itself: guarded against foreign pages, and with the cookies cleared where that is due.
async fn answer(
    request: Request,
    work: impl AsyncFnOnce(&Seen, &Parts, &Credentials) -> Result<Answer, Problem>,
) -> Response {
    let (parts, _) = request.into_parts();
    let seen = match extract::seen(&parts) {
        Ok(seen) => seen,
        Err((_, refused)) => return refused.into_response(),
    };
    let web = seen.sessions.web();
    let request = described(&parts.method, &parts.uri, &parts.headers);
    let answered = async {
        let credentials = seen.credentials.as_ref().map_err(Problem::clone)?;
        if credentials.via == Via::Cookies {
            web.check_csrf_of_session_route(&request)?;
        }
        work(&seen, &parts, credentials).await
    };
    let answer = match answered.await {
        Ok(answer) => answer,
        Err(problem) => web.refusal(&request, seen.credentials.as_ref().ok(), &problem),
    };
    answer.into_response()
}
