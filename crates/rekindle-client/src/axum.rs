//! Sessions in an axum application: a tower layer, extractors, and the routes that the browser SDK calls.
//!
//! [`Sessions::mount`] adds the routes and the layer to a router. Then a handler takes
//!
//! - [`SignIn`] to start a session for a user whose password was right,
//! - [`Session`] for a request that needs a session, or `Option<Session>`; [`Checked`] and [`Online`] for one that must not trust
//!   an access token when revocations are not known at the moment,
//! - [`Rendered`] for a page that is rendered on the server: it works with an expired access token, too, and rotates nothing.
//!
//! What goes wrong is a [`Problem`], which is an answer in itself.

mod extract;
mod layer;
mod routes;

use ::axum::{
    Router,
    response::{IntoResponse, Response},
};

use crate::{problem::Problem, web::Answer};

pub use crate::exchange::{Session, Sessions, SignIn, SignedIn, SignedOut};
pub use extract::{Checked, Online, Refused, Rendered};
pub use layer::{SessionLayer, SessionService};

impl Sessions {
    /// The router with the routes under [`crate::web::Settings::base`], all of it behind the layer.
    pub fn mount<S: Clone + Send + Sync + 'static>(&self, router: Router<S>) -> Router<S> {
        router.merge(routes::routes(self)).layer(self.layer())
    }

    /// The layer alone. It knows the session of each request that passes through it, refuses those that another site's page made with
    /// cookies, and lets the scripts of listed origins read the answers.
    pub fn layer(&self) -> SessionLayer {
        SessionLayer::new(self.clone())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let Self { status, headers, body } = self;
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        Answer::from(&self).into_response()
    }
}
