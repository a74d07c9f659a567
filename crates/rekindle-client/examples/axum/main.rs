//! An axum application with sessions: `cargo run -p rekindle-client --example axum`, then http://localhost:3000.
//!
//! By default the engine is in this process, on a store in memory. What tests want otherwise comes from the environment:
//!
//! | variable | |
//! |---|---|
//! | `PORT` | 3000 by default; 0: any |
//! | `REKINDLE_SERVER`, `REKINDLE_API_KEY` | sessions on a server (several URLs with commas) instead of in this process |
//! | `DEFINITION` | a merge patch of the session definition, like `{"access_token":{"lifetime":2}}`; only in this process |
//! | `COOKIES` | `ssr` by default, or `spa` |
//! | `SAME_SITE` | `lax` by default, `strict` or `none` |
//! | `ORIGINS` | other origins whose scripts may use the session, with commas |
//! | `STATIC` | a folder whose files are served under `/static/` |
//!
//! A client chooses between cookies and headers itself, with `Rekindle-Mode: header`.

use std::{env, path::Path, sync::Arc};

use axum::{
    Form, Json, Router,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Redirect},
    routing::{get, post},
};
use rekindle::{
    clock::SystemClock,
    engine::{Engine, Parts, Settings as EngineSettings},
    journal::Context,
    memory::MemoryStore,
    refresh::SecretRing,
    revocation_log::NoRevocationLog,
    rng::SystemRng,
    session::{Auth, UserId},
};
use rekindle_client::{
    Place, Problem, Rekindle,
    axum::{Online, Rendered, Session, Sessions, SignIn},
    remote::Remote,
    session::{Patch, Start},
    web::{Cookies, SameSite, Settings, Web},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let sessions = Sessions::new(handle().await?, Web::new(settings()?)?);
    let app = Router::new()
        .route("/", get(home))
        .route("/login", get(login_page).post(login))
        .route("/logout", post(logout))
        .route("/page", get(page))
        .route("/rendered", get(rendered))
        .route("/api/me", get(me).patch(change_me))
        .route("/api/me/online", get(me_online))
        .route("/api/elevate", post(elevate))
        .route("/static/{file}", get(file));
    let listener = TcpListener::bind(("127.0.0.1", number("PORT")?.unwrap_or(3000))).await?;
    println!("Listening on http://localhost:{}", listener.local_addr()?.port());
    Ok(axum::serve(listener, sessions.mount(app)).await?)
}

#[derive(Deserialize)]
struct Login {
    user: UserId,
    #[serde(default)]
    remember: Option<String>,
}

/// A real application checks a password here.
async fn login(sign_in: SignIn, Form(Login { user, remember }): Form<Login>) -> Result<impl IntoResponse, Problem> {
    let sign_in = if remember.as_deref() == Some("no") { sign_in.until_browser_closes() } else { sign_in };
    let signed_in = sign_in.start(Start::user(user)).await?;
    Ok((signed_in, Redirect::to("/")))
}

async fn logout(session: Session) -> Result<impl IntoResponse, Problem> {
    Ok((session.sign_out().await?, Redirect::to("/")))
}

async fn home(session: Option<Session>) -> Html<String> {
    let body = match session {
        Some(session) => format!(
            "<p>Signed in as {}.</p><form method=post action=/logout><button>Sign out</button></form>",
            escaped(session.user_id().as_str())
        ),
        None => "<p>Nobody is signed in, or the access token has expired. <a href=/login>Sign in</a> or see \
                 <a href=/page>your page</a>.</p>"
            .into(),
    };
    html(&body)
}

async fn login_page() -> Html<String> {
    html("<form method=post><label>Name <input name=user autofocus></label> <button>Sign in</button></form>")
}

/// An expired access token is refreshed by the page that [`Session`] answers with.
async fn page(session: Session) -> Html<String> {
    html(&format!(
        "<p id=user>{}</p><p id=generation>{}</p>",
        escaped(session.user_id().as_str()),
        session.verified().generation
    ))
}

/// An expired access token does not matter here.
async fn rendered(Rendered(session): Rendered) -> Html<String> {
    html(&format!("<p id=user>{}</p>", escaped(session.user_id().as_str())))
}

async fn me(session: Session) -> Json<Value> {
    Json(told(&session))
}

async fn me_online(Online(session): Online) -> Json<Value> {
    Json(told(&session))
}

#[derive(Deserialize)]
struct Change {
    data: Option<Map<String, Value>>,
    claims: Option<Map<String, Value>>,
}

async fn change_me(session: Session, Json(Change { data, claims }): Json<Change>) -> Result<Json<Value>, Problem> {
    let changed = session.patch(Patch { data, claims, if_version: None }).await?;
    Ok(Json(json!({ "data": changed.data, "claims": changed.claims, "version": changed.version })))
}

/// A real application asks for the password, or a second factor, again.
async fn elevate(session: Session) -> Result<impl IntoResponse, Problem> {
    let auth = Auth { time: session.now(), acr: Some("aal2".into()), amr: vec!["pwd".into(), "otp".into()] };
    session.elevate(auth).await
}

fn told(session: &Session) -> Value {
    json!({
        "user_id": session.user_id(), "session_id": session.id(), "generation": session.verified().generation,
        "claims": session.claims(), "acr": session.verified().auth.acr,
    })
}

/// The engine in this process, or servers.
async fn handle() -> Result<Rekindle, Failure> {
    if let Some(servers) = text("REKINDLE_SERVER") {
        let servers = servers.split(',').map(str::to_owned).collect();
        let key = text("REKINDLE_API_KEY").ok_or("set REKINDLE_API_KEY, too")?;
        return Ok(Rekindle::remote(Remote { servers, ..Remote::new("", key) })?);
    }
    let rng = Arc::new(SystemRng::default());
    let engine = Engine::open(Parts {
        store: Arc::new(MemoryStore::new()),
        revocation_log: Arc::new(NoRevocationLog),
        clock: Arc::new(SystemClock),
        secrets: SecretRing::parse(&SecretRing::generate(1, &*rng))?,
        rng,
        settings: EngineSettings::new("http://localhost"),
    })
    .await?;
    let place = Place::default();
    if let Some(patch) = text("DEFINITION") {
        let patch: Value = serde_json::from_str(&patch)?;
        engine
            .patch_definition(&place.scope.product, &place.tag, &patch, &Context::default())
            .await?
            .map_err(|e| e.to_string())?;
    }
    Ok(Rekindle::embedded(engine, place))
}

fn settings() -> Result<Settings, Failure> {
    let cookies = match text("COOKIES").as_deref() {
        None | Some("ssr") => Cookies::Ssr,
        Some("spa") => Cookies::Spa,
        Some(other) => return Err(format!("COOKIES is `{other}`: give ssr or spa").into()),
    };
    let same_site = match text("SAME_SITE").as_deref() {
        None | Some("lax") => SameSite::Lax,
        Some("strict") => SameSite::Strict,
        Some("none") => SameSite::None,
        Some(other) => return Err(format!("SAME_SITE is `{other}`: give lax, strict or none").into()),
    };
    let origins = text("ORIGINS").map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default();
    Ok(Settings { development: true, cookies, same_site, origins, ..Settings::default() })
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Result<Option<u16>, Failure> {
    Ok(text(name).map(|value| value.parse()).transpose()?)
}

fn html(body: &str) -> Html<String> {
    Html(format!("<!doctype html><meta charset=utf-8><title>Rekindle with axum</title>{body}"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A file of the folder `STATIC`; none of another one, because the name holds no slash.
async fn file(axum::extract::Path(file): axum::extract::Path<String>) -> Result<impl IntoResponse, StatusCode> {
    let folder = text("STATIC").ok_or(StatusCode::NOT_FOUND)?;
    let plain = file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) && !file.starts_with('.');
    let kind = match Path::new(&file).extension().and_then(|kind| kind.to_str()) {
        Some("js" | "mjs") => "text/javascript",
        Some("html") => "text/html; charset=utf-8",
        _ => "application/octet-stream",
    };
    let read = tokio::fs::read(Path::new(&folder).join(&file)).await;
    match read {
        Ok(bytes) if plain => Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], bytes)),
        _ => Err(StatusCode::NOT_FOUND),
    }
}
