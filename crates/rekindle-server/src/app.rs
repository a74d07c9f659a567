//! The app: the state that endpoints share, and the router that they make up.

use std::sync::Arc;

use axum::{Router, body::Bytes, http::Method};
use rekindle::engine::Engine;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    auth::ApiKeys,
    config::Config,
    edge::{Edge, WithoutQuery},
    endpoint,
    http::Lifecycle,
    metrics::Metrics,
    problem::{Code, Problem},
    rate_limit::RateLimit,
    supertokens,
};

/// What every endpoint may use. Clones share one state.
#[derive(Clone)]
pub struct App(Arc<State>);

struct State {
    config: Config,
    engine: Engine,
    api_keys: ApiKeys,
    rate_limit: Arc<RateLimit<String>>,
    prepared: supertokens::Prepared,
    verified_tokens: supertokens::VerifiedTokens,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
    openapi: Bytes,
}

impl App {
    /// The app of a valid configuration on an engine.
    pub fn new(config: Config, engine: Engine) -> Self {
        Self::with_metrics(config, engine, Arc::new(metrics()))
    }

    /// The same, counting where others count, too: `metrics` comes from [`metrics`].
    pub fn with_metrics(config: Config, engine: Engine, metrics: Arc<Metrics>) -> Self {
        let (document, _) = endpoint::all().into_description();
        Self(Arc::new(State {
            engine,
            api_keys: ApiKeys::default(),
            rate_limit: Arc::new(RateLimit::new(&config.limits)),
            prepared: supertokens::Prepared::default(),
            verified_tokens: supertokens::VerifiedTokens::default(),
            config,
            metrics,
            lifecycle: Lifecycle::default(),
            openapi: to_json(&document).into(),
        }))
    }

    /// The router of every endpoint, behind the [`Edge`].
    pub fn router(&self) -> Router {
        self.router_with(Router::new())
    }

    /// The same with routes that are no part of the API's description.
    pub fn router_with(&self, more: Router<Self>) -> Router {
        let endpoints = endpoint::all();
        let without_query = endpoints.without_query.clone();
        let (router, _) = endpoints.into_router().split_for_parts();
        router
            .merge(more)
            .fallback(supertokens::answer)
            .method_not_allowed_fallback(|| async {
                Problem::new(Code::MethodNotAllowed, "this path has other methods; see the `Allow` header")
            })
            .layer(Edge::new(
                &self.0.config,
                self.0.metrics.clone(),
                self.0.rate_limit.clone(),
                without_query,
                self.0.engine.rng(),
            ))
            .with_state(self.clone())
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// What decides.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// The API keys in force.
    pub fn api_keys(&self) -> &ApiKeys {
        &self.0.api_keys
    }

    /// How much an API key may ask for, by its id.
    pub fn rate_limit(&self) -> &RateLimit<String> {
        &self.0.rate_limit
    }

    /// The apps of the SuperTokens face whose definitions have this server's settings.
    pub(crate) fn prepared(&self) -> &supertokens::Prepared {
        &self.0.prepared
    }

    /// The access tokens of the SuperTokens face that were verified of late.
    pub(crate) fn verified_tokens(&self) -> &supertokens::VerifiedTokens {
        &self.0.verified_tokens
    }

    /// Everything that is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Whether the server is on its way out.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.0.lifecycle
    }

    /// The OpenAPI document as JSON.
    pub fn openapi(&self) -> &Bytes {
        &self.0.openapi
    }
}

/// Metrics for the routes of every endpoint.
pub fn metrics() -> Metrics {
    let (document, aliases) = endpoint::all().into_description();
    let mut routes: Vec<&str> = document.paths.paths.keys().chain(&aliases).map(String::as_str).collect();
    supertokens::routes().for_each(|route| routes.push(route));
    Metrics::new(routes)
}

/// The OpenAPI 3.1 document of the API, as it is committed and served.
pub fn openapi_json() -> String {
    to_json(&endpoint::all().into_description().0)
}

fn to_json(document: &OpenApi) -> String {
    document.to_pretty_json().expect("the document is JSON") + "\n"
}

/// Endpoints on their way to a router: paths that hold `/users/{user_id}` are registered for the empty user id too, which a
/// router would not match.
#[derive(Default)]
pub struct Endpoints {
    router: OpenApiRouter<App>,
    aliases: Vec<String>,
    without_query: WithoutQuery,
}

impl Endpoints {
    /// With one more endpoint, from `routes!`: its route and its description come from the same line.
    pub fn with(mut self, mut routes: utoipa_axum::router::UtoipaMethodRouter<App>) -> Self {
        let methods = routes.2.clone();
        for (path, item) in &mut routes.1.paths {
            let methods: Vec<Method> = endpoint::operations(item)
                .filter(|(_, operation)| !endpoint::takes_query(operation))
                .map(|(method, _)| method)
                .collect();
            self.without_query.insert(path.replace(USER, "/users/"), methods.clone());
            self.without_query.insert(path.clone(), methods);
        }
        for path in routes.1.paths.keys().filter(|path| path.contains(USER)) {
            let alias = path.replace(USER, "/users/");
            self.router = self.router.route(&alias, methods.clone());
            self.aliases.push(alias);
        }
        self.router = self.router.routes(routes);
        self
    }

    fn into_router(self) -> OpenApiRouter<App> {
        self.router
    }

    fn into_description(self) -> (OpenApi, Vec<String>) {
        let mut document = self.router.into_openapi();
        crate::endpoint::describe(&mut document);
        (document, self.aliases)
    }
}

const USER: &str = "/users/{user_id}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::PathUser;
    use axum::{body::Body, extract::Request};
    use tower::ServiceExt;

    #[utoipa::path(get, path = "/users/{user_id}/sessions", responses((status = 200)))]
    async fn sessions(PathUser(user): PathUser) -> String {
        format!("<{user}>")
    }

    #[tokio::test]
    async fn the_empty_user_id_has_the_same_endpoints_and_no_description_of_its_own() {
        let endpoints = || Endpoints::default().with(utoipa_axum::routes!(sessions));
        let (document, aliases) = endpoints().into_description();
        assert_eq!(document.paths.paths.keys().collect::<Vec<_>>(), ["/users/{user_id}/sessions"]);
        assert_eq!(aliases, ["/users//sessions"]);
        let (router, _) = endpoints().into_router().split_for_parts();
        let router = router.with_state(App::new(Config::default(), rekindle_testkit::seam::engine_in_memory().await));
        for (path, said) in [("/users/ann/sessions", "<ann>"), ("/users//sessions", "<>")] {
            let answer = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(axum::body::to_bytes(answer.into_body(), 99).await.unwrap(), said);
        }
    }

    #[test]
    fn the_description_holds_every_code_and_no_dangling_reference() {
        let document: serde_json::Value = serde_json::from_str(&openapi_json()).unwrap();
        let text = document.to_string();
        for code in Code::ALL {
            assert!(text.contains(&format!("\"{}\"", code.as_str())), "{code:?}");
        }
        for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference} leads nowhere");
        }
    }
}
