//! The SuperTokens face: what published SuperTokens SDKs expect of their core, on the engine that serves API v1.
//!
//! A request's way: [`path`] takes its path apart, `caller` looks at its key, [`cdi`] at its version, [`input`] at its fields; an
//! `endpoint` answers with a [`reply`]. What is decided, pure functions decide: [`access`] (the five token formats),
//! [`lineage`] (what their tokens carry and we do not keep), [`payload`], [`settings`]. Why it is so:
//! `docs/decisions/0017-supertokens-face.md`.

mod access;
mod application;
mod caller;
mod cdi;
mod endpoint;
mod handle;
pub(crate) mod import;
mod input;
mod keys;
mod lineage;
mod origin;
mod path;
mod payload;
mod reply;
mod settings;
mod verified;

use axum::{
    body::Bytes,
    extract::{Request, State},
    http::{Method, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, Limited};
use rekindle::{engine::Engine, journal::Context, session::Env};

use crate::{
    app::App,
    completion::to_completion,
    config::SuperTokens,
    edge::{FoundRoute, RequestContext},
    problem::{Code, Problem},
};
use application::Application;
use cdi::Cdi;
use input::Input;
use path::{Family, Resource, Route, Target};
use reply::Reply;

pub(crate) use application::Prepared;
pub(crate) use settings::api_keys;
pub(crate) use verified::VerifiedTokens;

/// The paths of the face, for labels.
pub(crate) fn routes() -> impl Iterator<Item = &'static str> {
    path::templates()
}

/// Answers what no endpoint of API v1 is for.
pub(crate) async fn answer(State(server): State<App>, request: Request) -> Response {
    let config = &server.config().supertokens;
    let target = config.enabled.then(|| path::parse(&config.base_path, request.uri().path())).flatten();
    match target {
        None => Problem::new(Code::NotFound, "there is nothing at this path; see /openapi.json").into_response(),
        Some(Target { route: None, .. }) => {
            let line = "Not found: this server keeps sessions; SuperTokens' other recipes need SuperTokens' own core";
            Reply::text(StatusCode::NOT_FOUND, line).into_response()
        }
        Some(Target { app, tenant, route: Some(route) }) => {
            let reply = match Call::of(server, app, tenant, route, request).await {
                // A verification may be given up: what it writes, the next one writes.
                Ok(call) if call.route.resource == Resource::Verify => endpoint::answer(call).await,
                // What is begun is carried out, also when the caller hangs up.
                Ok(call) => to_completion(endpoint::answer(call)).await,
                Err(reply) => reply,
            };
            let mut response = reply.into_response();
            response.extensions_mut().insert(FoundRoute(route.path));
            response
        }
    }
}

/// A request that is well-formed, from a caller who may ask.
struct Call {
    server: App,
    method: Method,
    route: Route,
    cdi: Cdi,
    application: Application,
    /// Which tenant the path names, if it names one.
    tenant: Option<Env>,
    input: Input,
    ctx: Context,
}

impl Call {
    async fn of(
        server: App,
        app: path::AppId,
        tenant: Option<Env>,
        route: Route,
        request: Request,
    ) -> Result<Self, Reply> {
        let (parts, body) = request.into_parts();
        let context = RequestContext::of(&parts.extensions);
        let cdi = version(route, &parts)?;
        if tenant.is_some() && cdi < Cdi::V3_0 {
            return Err(Reply::not_found());
        }
        let missing = |id: &path::AppId| {
            let tenant = tenant.as_ref().map_or("public", |tenant| tenant.as_str());
            Reply::bad(format!("AppId or tenantId not found => Tenant(, {id}, {tenant})"))
        };
        let application = Application::open(server.engine(), &server.config().supertokens, app.clone()).await?;
        let application = application.ok_or_else(|| missing(&app))?;
        let actor = caller::check(&server, &application, route, &parts, &context).await?;
        let known = tenant.as_ref().is_none_or(|tenant| application.has(tenant));
        // Whether there is a tenant is asked of itself.
        if !known && route.resource != Resource::Tenant {
            return Err(missing(&app));
        }
        let input = match parts.method {
            Method::GET | Method::HEAD => Input::from_query(parts.uri.query().unwrap_or_default()),
            _ => Input::from_body(&read(body, context.body_limit()).await?)?,
        };
        let ctx = Context { request_id: Some(context.id().to_owned()), actor, ..Context::default() };
        Ok(Self { server, method: parts.method, route, cdi, application, tenant, input, ctx })
    }

    fn engine(&self) -> &Engine {
        self.server.engine()
    }

    fn config(&self) -> &SuperTokens {
        &self.server.config().supertokens
    }

    /// The tenant that the path names, or `public`.
    fn tenant(&self) -> Env {
        self.tenant.clone().unwrap_or_else(path::public)
    }

    /// Refuses a path with a tenant where the whole app is meant.
    fn for_the_app(&self) -> Result<(), Reply> {
        if self.cdi >= Cdi::V5_0 && self.tenant() != path::public() {
            let line = "Only public tenantId can call this app specific API";
            return Err(Reply::text(StatusCode::FORBIDDEN, line));
        }
        Ok(())
    }
}

/// The version that a request is to be answered in.
fn version(route: Route, parts: &Parts) -> Result<Cdi, Reply> {
    let named = match parts.headers.get("cdi-version") {
        None => None,
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            Some(text.parse::<Cdi>().map_err(|()| Reply::bad(format!("cdi-version {text} not supported")))?)
        }
    };
    let (default, spoken) = match route.family {
        Family::Plain => (Cdi::FIRST, named.is_none_or(|cdi| cdi < Cdi::V2_4)),
        Family::Recipe => (Cdi::LATEST, named.is_none_or(|cdi| cdi >= Cdi::V2_4)),
        Family::Any => (Cdi::LATEST, true),
    };
    if spoken { Ok(named.unwrap_or(default)) } else { Err(Reply::not_found()) }
}

async fn read(body: axum::body::Body, limit: usize) -> Result<Bytes, Reply> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Reply::text(StatusCode::PAYLOAD_TOO_LARGE, format!("a body may have {limit} bytes")))
        }
        Err(_) => Err(Reply::bad("Invalid Json Input")),
    }
}

/// Whether a resource can be asked without a key.
fn is_public(resource: Resource) -> bool {
    matches!(resource, Resource::Hello | Resource::Jwks | Resource::Config)
}
