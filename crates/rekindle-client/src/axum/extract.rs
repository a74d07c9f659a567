//! What handlers take.

use std::sync::Arc;

use ::axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::request::Parts,
    response::{IntoResponse, IntoResponseParts, Response, ResponseParts},
};
use http::{HeaderMap, StatusCode};

use super::layer::described;
use crate::{
    exchange::{Exchange, Need, Refusal, Session, SignIn, SignedIn, SignedOut},
    handle::Trust,
    problem::{Code, Problem},
    web::Answer,
};

/// The answer to a request that needed a session and had none that was good.
#[derive(Debug, Clone)]
pub struct Refused(Box<Answer>);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.answer)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
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

async fn session(parts: &Parts, need: Need) -> Result<Session, Refused> {
    Ok(exchange(parts)?.session(&described(parts), need).await?)
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        session(parts, Need::default()).await
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Refused> {
        match exchange(parts)?.session(&described(parts), Need::default()).await {
            Ok(session) => Ok(Some(session)),
            Err(refusal) if refusal.is_absence() => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Checked {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        session(parts, Need { trust: Some(Trust::FailClosed), mint: false }).await.map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for Online {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        session(parts, Need { trust: Some(Trust::Online), mint: false }).await.map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for Rendered {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        session(parts, Need { trust: None, mint: true }).await.map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for SignIn {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        Ok(exchange(parts)?.sign_in(&described(parts))?)
    }
}

/// Headers of which `Set-Cookie` may come several times, added to an answer.
fn add(mut response: ResponseParts, headers: &HeaderMap) -> ResponseParts {
    for (name, value) in headers {
        response.headers_mut().append(name, value.clone());
    }
    response
}

macro_rules! into_response {
    ($type:ident) => {
        /// Part of an answer, like `(it, Redirect::to("/"))`, or 204 by itself.
        impl IntoResponseParts for $type {
            type Error = std::convert::Infallible;

            fn into_response_parts(self, response: ResponseParts) -> Result<ResponseParts, Self::Error> {
                Ok(add(response, self.headers()))
            }
        }

        impl IntoResponse for $type {
            fn into_response(self) -> Response {
                (self, StatusCode::NO_CONTENT).into_response()
            }
        }
    };
}

into_response!(SignedIn);
into_response!(SignedOut);

/// What the layer found out.
pub(super) fn exchange(parts: &Parts) -> Result<Arc<Exchange>, Refused> {
    parts.extensions.get::<Arc<Exchange>>().cloned().ok_or_else(|| {
        let problem =
            Problem::new(Code::Internal, "the session layer is missing: wrap the router with `Sessions::mount`");
        tracing::error!(%problem, "a handler asked for a session");
        Refused(Box::new(Answer::from(&problem)))
    })
}
