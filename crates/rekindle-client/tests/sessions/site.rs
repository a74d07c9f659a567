//! What is tested: an application on a free port, and Rekindle servers on others.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use rekindle::{
    clock::{Clock, Seconds},
    engine::{Engine, Parts, Settings as EngineSettings},
    journal::Context,
    memory::MemoryStore,
    refresh::SecretRing,
    revocation_log::NoRevocationLog,
    rng::SystemRng,
    session::Auth,
    store::Permission,
};
use rekindle_client::{
    Place, Problem, Rekindle,
    axum::{Checked, Online, Rendered, Session, Sessions, SignIn},
    session::{Patch, Start},
    web::{Settings, Web},
};
use rekindle_server::{app::App, config::Config};
use rekindle_testkit::seam::ManualClock;
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// An engine on an empty store in memory, whose clock a test holds in its hands.
pub async fn engine(clock: Arc<dyn Clock>) -> Engine {
    let rng = Arc::new(SystemRng::default());
    Engine::open(Parts {
        store: Arc::new(MemoryStore::new()),
        revocation_log: Arc::new(NoRevocationLog),
        clock,
        secrets: SecretRing::parse(&SecretRing::generate(1, &*rng)).unwrap(),
        rng,
        settings: EngineSettings::new("http://rekindle.test"),
    })
    .await
    .unwrap()
}

/// An application on a free port. It ends when this is dropped.
pub struct Site {
    pub port: u16,
    pub clock: Arc<ManualClock>,
    pub rekindle: Rekindle,
    serving: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Site {
    /// With the engine in this process.
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let clock = Arc::new(ManualClock::at("2026-11-20T10:00:00Z".parse().unwrap()));
        let engine = engine(clock.clone()).await;
        let rekindle = Rekindle::embedded(engine, Place::default());
        let mut settings = Settings { development: true, ..Settings::default() };
        change(&mut settings);
        let sessions = Sessions::new(rekindle.clone(), Web::new(settings).unwrap());
        let (port, serving) = serve(sessions.mount(application())).await;
        Self { port, clock, rekindle, serving }
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Seconds(seconds));
    }
}

/// Serves on a free port.
pub async fn serve(router: Router) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

/// A Rekindle server on an engine, and an API key of it.
pub async fn rekindle_server(engine: &Engine) -> (u16, String, JoinHandle<()>) {
    let permissions = vec![Permission::Sessions, Permission::Read, Permission::Confirm];
    let key = engine.create_api_key("test".into(), permissions, &Context::default()).await.unwrap();
    let config = Config { development: true, ..Config::default() };
    let (port, serving) = serve(App::new(config, engine.clone()).router()).await;
    (port, key.secret.expose().to_owned(), serving)
}

/// What an application does with sessions.
pub fn application() -> Router {
    Router::new()
        .route("/login", post(log_in))
        .route("/login/short", post(log_in_until_closed))
        .route("/login/claims", post(log_in_with_claims))
        .route("/logout", post(log_out))
        .route("/me", get(me).post(me).patch(change_me))
        .route("/maybe", get(maybe))
        .route("/checked", get(checked))
        .route("/online", get(online))
        .route("/rendered", get(rendered).post(rendered))
        .route("/elevate", post(elevate))
        .with_state(())
}

async fn log_in(sign_in: SignIn, user: String) -> Result<impl IntoResponse, Problem> {
    sign_in.start(Start::user(user.parse().unwrap())).await
}

async fn log_in_until_closed(sign_in: SignIn, user: String) -> Result<impl IntoResponse, Problem> {
    sign_in.until_browser_closes().start(Start::user(user.parse().unwrap())).await
}

async fn log_in_with_claims(
    sign_in: SignIn,
    Json(claims): Json<Map<String, Value>>,
) -> Result<impl IntoResponse, Problem> {
    sign_in.start(Start { claims, ..Start::user("ada".parse().unwrap()) }).await
}

async fn log_out(session: Session) -> Result<impl IntoResponse, Problem> {
    Ok((session.sign_out().await?, "bye"))
}

async fn me(session: Session) -> Json<Value> {
    told(&session)
}

async fn change_me(session: Session, Json(claims): Json<Map<String, Value>>) -> Result<Json<Value>, Problem> {
    let changed = session.patch(Patch { claims: Some(claims), ..Patch::default() }).await?;
    Ok(Json(changed.claims.into()))
}

async fn maybe(State(()): State<()>, session: Option<Session>) -> Json<Value> {
    session.map_or(Json(Value::Null), |session| told(&session))
}

async fn checked(Checked(session): Checked) -> Json<Value> {
    told(&session)
}

async fn online(Online(session): Online) -> Json<Value> {
    told(&session)
}

async fn rendered(Rendered(session): Rendered) -> Json<Value> {
    told(&session)
}

async fn elevate(session: Session) -> Result<impl IntoResponse, Problem> {
    let auth = Auth { time: session.now(), acr: Some("aal2".into()), amr: vec!["otp".into()] };
    session.elevate(auth).await
}

fn told(session: &Session) -> Json<Value> {
    Json(json!({
        "user": session.user_id(), "generation": session.verified().generation, "claims": session.claims(),
        "acr": session.verified().auth.acr,
    }))
}
