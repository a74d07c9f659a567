//! What handlers take.

use std::net::SocketAddr;
use std::sync::Arc;

use ::axum::{
    extract::{ConnectInfo, FromRequestParts, OptionalFromRequestParts},
    http::request::Parts,
    response::{IntoResponse, IntoResponseParts, Response, ResponseParts},
};
use http::{HeaderMap, StatusCode};
use rekindle::{
    access::Verified,
    clock::Timestamp,
    refresh::Commitment,
    session::{Auth, Client, SessionId, UserId},
};
use serde_json::{Map, Value};

use super::layer::{Seen, described};
use crate::{
    handle::Trust,
    problem::{Code, Problem},
    session::{Patch, Refresh, SessionInfo, Start, Token, Tokens},
    web::{Answer, Claim, Credentials, Request, Via},
};

/// The answer to a request that needed a session and had none that was good.
#[derive(Debug, Clone)]
pub struct Refused(Box<Answer>);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

/// The session of a request, verified without I/O.
///
/// A request without a good one is refused with a problem (`access_token_expired`: refresh and repeat; the others: sign in), and a
/// browser that asked for a page with the page that refreshes. `Option<Session>` is `None` instead where there is no session or
/// its token has expired; only what could pass for an answer about the session refuses: outages and ambiguous cookies.
#[derive(Clone)]
pub struct Session {
    verified: Arc<Verified>,
    seen: Arc<Seen>,
    access_token: Token,
    proof: Option<Claim>,
    client: Client,
}

/// A [`Session`] that is refused with `unavailable` while it is not known which sessions have ended: [`Trust::FailClosed`].
#[derive(Clone)]
pub struct Checked(pub Session);

/// A [`Session`] whose row was asked: [`Trust::Online`].
#[derive(Clone)]
pub struct Online(pub Session);

/// The session of a page that is rendered on the server. Where the access token has expired, a short one is minted for the refresh
/// token; nothing rotates, so that no cookie has to be set. Needs [`crate::web::Cookies::Ssr`].
///
/// Only for requests that read: any other is refused as by [`Session`].
#[derive(Clone)]
pub struct Rendered(pub Session);

impl Session {
    /// Its id.
    pub fn id(&self) -> SessionId {
        self.verified.session
    }

    /// Whose it is.
    pub fn user_id(&self) -> &UserId {
        &self.verified.user_id
    }

    /// Its own claims.
    pub fn claims(&self) -> Map<String, Value> {
        self.verified.claims.to_map()
    }

    /// The present moment, by the clock that decides about its tokens.
    pub fn now(&self) -> Timestamp {
        self.seen.sessions.rekindle().now()
    }

    /// All that its access token says.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Its row, with the application's data. As [`crate::Rekindle::read`].
    pub async fn read(&self) -> Result<SessionInfo, Problem> {
        self.seen.sessions.rekindle().read(self.id()).await
    }

    /// Changes its data and claims. As [`crate::Rekindle::patch`]; `data_invalid`, too, if the claims would not fit into the cookie.
    pub async fn patch(&self, patch: Patch) -> Result<SessionInfo, Problem> {
        if let (Some(claims), Ok(Credentials { via: Via::Cookies, .. })) = (&patch.claims, &self.seen.credentials) {
            let present = self.claims();
            let mut merged = Value::Object(present.clone());
            rekindle::merge_patch(&mut merged, &Value::Object(claims.clone()));
            let merged = merged.as_object().expect("an object patched with an object is one");
            self.seen.sessions.web().check_claims(&self.access_token, &present, merged)?;
        }
        self.seen.sessions.rekindle().patch(self.id(), patch).await
    }

    /// Ends it. The answer carries [`SignedOut`], which takes the cookies back.
    pub async fn sign_out(self) -> Result<SignedOut, Problem> {
        let credentials = self.seen.credentials.as_ref().map_err(Problem::clone)?;
        self.seen.sessions.rekindle().sign_out(&self.access_token).await?;
        Ok(SignedOut(self.seen.sessions.web().clear(credentials)))
    }

    /// Notes that the user has authenticated again, and gives new tokens: those of before are refused from then on. Needs the refresh
    /// token ([`crate::web::Cookies::Ssr`]) and, of a committed session, its proof. As [`crate::Rekindle::elevate`].
    pub async fn elevate(self, auth: Auth) -> Result<SignedIn, Problem> {
        let credentials = self.seen.credentials.as_ref().map_err(Problem::clone)?;
        let missing = || Problem::new(Code::ProofRequired, "the refresh token did not come with this request");
        let token = credentials.refresh.clone().ok_or_else(missing)?;
        let proof = self.proof.clone().and_then(Claim::step);
        let refresh = Refresh { token, proof, client: self.client.clone() };
        let tokens = self.seen.sessions.rekindle().elevate(refresh, auth).await?;
        SignedIn::new(&self.seen, credentials, tokens)
    }

    /// Refuses with `reauthentication_required` if the user signed in longer ago than [`crate::web::Settings::fresh_for`].
    pub fn require_fresh_sign_in(&self) -> Result<(), Problem> {
        let Seen { sessions, .. } = &*self.seen;
        sessions.web().check_fresh(&self.verified.auth, sessions.rekindle().now())
    }

    async fn of(parts: &Parts, trust: Option<Trust>, mint: bool) -> Result<Self, (Problem, Refused)> {
        let seen = seen(parts)?;
        let request = described(&parts.method, &parts.uri, &parts.headers);
        Self::verify(&seen, &request, parts, trust, mint).await.map_err(|problem| {
            let credentials = seen.credentials.as_ref().ok();
            let answer = seen.sessions.web().refusal(&request, credentials, &problem);
            (problem, Refused(Box::new(answer)))
        })
    }

    async fn verify(
        seen: &Arc<Seen>,
        request: &Request<'_>,
        parts: &Parts,
        trust: Option<Trust>,
        mint: bool,
    ) -> Result<Self, Problem> {
        let (web, rekindle) = (seen.sessions.web(), seen.sessions.rekindle());
        let credentials = seen.credentials.as_ref().map_err(Problem::clone)?;
        let trust = trust.unwrap_or(seen.sessions.inner.trust);
        let verify = async || match &credentials.access {
            Some(token) => Ok((rekindle.verify(token, trust).await?, token.clone())),
            None => Err(web.without_access_token(credentials)),
        };
        let (verified, access_token) = match (verify().await, &credentials.refresh) {
            (Err(problem), Some(refresh)) if mint && problem.code() == Code::AccessTokenExpired => {
                let minted = rekindle.mint(refresh, None).await?;
                (rekindle.verify(&minted.access_token, trust).await?, minted.access_token)
            }
            (verified, _) => verified?,
        };
        if credentials.via == Via::Cookies {
            web.check_csrf_token(request, verified.session, verified.generation)?;
        }
        let proof = Claim::of(request)?;
        Ok(Self { verified, seen: seen.clone(), access_token, proof, client: client(request, parts) })
    }
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        Self::of(parts, None, false).await.map_err(|(_, refused)| refused)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Refused> {
        match Self::of(parts, None, false).await {
            Ok(session) => Ok(Some(session)),
            Err((problem, _)) if problem.code().status() == StatusCode::UNAUTHORIZED && is_about_token(&problem) => {
                Ok(None)
            }
            Err((_, refused)) => Err(refused),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Checked {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        Session::of(parts, Some(Trust::FailClosed), false).await.map(Self).map_err(|(_, refused)| refused)
    }
}

impl<S: Sync> FromRequestParts<S> for Online {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        Session::of(parts, Some(Trust::Online), false).await.map(Self).map_err(|(_, refused)| refused)
    }
}

impl<S: Sync> FromRequestParts<S> for Rendered {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let mint = parts.method.is_safe();
        Session::of(parts, None, mint).await.map(Self).map_err(|(_, refused)| refused)
    }
}

/// A handler that signs a user in takes this, checks the password, and calls [`SignIn::start`].
///
/// A page of another site cannot sign a visitor in (`csrf_failed`): it would watch what the visitor then does in the attacker's account.
pub struct SignIn {
    seen: Arc<Seen>,
    credentials: Credentials,
    commitment: Option<Commitment>,
    client: Client,
}

impl SignIn {
    /// Lets the cookies end with the browser's session.
    pub fn until_browser_closes(mut self) -> Self {
        self.credentials.remember = false;
        self
    }

    /// Starts a session, committed if the client offered that, and ends the one that the client had. The answer carries [`SignedIn`], which
    /// holds the cookies. As [`crate::Rekindle::start`]; `data_invalid`, too, if the claims do not fit into a cookie.
    pub async fn start(self, start: Start) -> Result<SignedIn, Problem> {
        let Self { seen, credentials, commitment, client } = self;
        let rekindle = seen.sessions.rekindle();
        let Client { ip, user_agent, device } = start.client;
        let client = Client { ip: ip.or(client.ip), user_agent: user_agent.or(client.user_agent), device };
        let start = Start { commitment: start.commitment.or(commitment), client, ..start };
        let tokens = rekindle.start(start).await?;
        let id = tokens.session.id;
        match SignedIn::new(&seen, &credentials, tokens) {
            Ok(signed_in) => {
                if let Some(earlier) = credentials.refresh.as_ref().or(credentials.access.as_ref())
                    && let Err(problem) = rekindle.sign_out(earlier).await
                    && problem.is_transient()
                {
                    tracing::warn!(%problem, "the session before a sign-in was not ended, and will be by its idle timeout");
                }
                Ok(signed_in)
            }
            // Nobody has its tokens.
            Err(problem) => rekindle.revoke(id).await.and(Err(problem)),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for SignIn {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let seen = seen(parts).map_err(|(_, refused)| refused)?;
        let request = described(&parts.method, &parts.uri, &parts.headers);
        let read = || {
            let credentials = seen.credentials.clone()?;
            seen.sessions.web().check_csrf_of_sign_in(&request, &credentials)?;
            Ok::<_, Problem>((credentials, Claim::of(&request)?.and_then(|claim| claim.first())))
        };
        match read() {
            Ok((credentials, commitment)) => {
                Ok(Self { credentials, commitment, client: client(&request, parts), seen: seen.clone() })
            }
            Err(problem) => Err(Refused(Box::new(seen.sessions.web().problem(&problem)))),
        }
    }
}

/// New tokens on their way: part of an answer, like `(signed_in, Redirect::to("/"))`, or 204 by itself.
pub struct SignedIn {
    tokens: Tokens,
    headers: HeaderMap,
}

impl SignedIn {
    fn new(seen: &Seen, credentials: &Credentials, tokens: Tokens) -> Result<Self, Problem> {
        let headers = seen.sessions.web().issue(credentials, &tokens, seen.sessions.rekindle().now())?;
        Ok(Self { tokens, headers })
    }

    /// The tokens and their session.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }
}

/// Cookies taken back: part of an answer, like `(signed_out, Redirect::to("/"))`, or 204 by itself.
pub struct SignedOut(HeaderMap);

/// Headers of which `Set-Cookie` may come several times, added to an answer.
fn add(mut response: ResponseParts, headers: HeaderMap) -> ResponseParts {
    let mut last = None;
    for (name, value) in headers {
        last = name.or(last);
        let name = last.clone().expect("the first entry has its name");
        response.headers_mut().append(name, value);
    }
    response
}

macro_rules! into_response {
    ($type:ident, $headers:tt) => {
        impl IntoResponseParts for $type {
            type Error = std::convert::Infallible;

            fn into_response_parts(self, response: ResponseParts) -> Result<ResponseParts, Self::Error> {
                Ok(add(response, self.$headers))
            }
        }

        impl IntoResponse for $type {
            fn into_response(self) -> Response {
                (self, StatusCode::NO_CONTENT).into_response()
            }
        }
    };
}

into_response!(SignedIn, headers);
into_response!(SignedOut, 0);

/// What the layer found out.
pub(super) fn seen(parts: &Parts) -> Result<Arc<Seen>, (Problem, Refused)> {
    let Some(seen) = parts.extensions.get::<Arc<Seen>>() else {
        let problem =
            Problem::new(Code::Internal, "the session layer is missing: wrap the router with `Sessions::mount`");
        tracing::error!(%problem, "a handler asked for a session");
        let answer = Answer::from(&problem);
        return Err((problem, Refused(Box::new(answer))));
    };
    seen.is_personal();
    Ok(seen.clone())
}

/// From where the request came. Behind a proxy the address is the proxy's: set [`Start::client`] instead.
pub(super) fn client(request: &Request<'_>, parts: &Parts) -> Client {
    let ip = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(from)| from.ip().to_string());
    request.client(ip)
}

fn is_about_token(problem: &Problem) -> bool {
    problem.is_terminal()
        || matches!(problem.code(), Code::AccessTokenExpired | Code::TokenMalformed | Code::TokenScopeMismatch)
}
