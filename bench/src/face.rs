//! What the SuperTokens face costs: sessions created, refreshed and verified as SDKs of CDI 5.4 ask for it.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::http::StatusCode;
use rekindle::engine::{Engine, StartRequest};
use rekindle::journal::Context;
use rekindle::session::Scope;
use serde_json::{Map, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::floors::{self, CryptoFloors, Groups, StoreFloors};
use crate::http::Connection;
use crate::load::{Load, Measured, Pace};
use crate::process::resident_kib;
use crate::report::{Options, mib, us};
use crate::seed::{self, DataDir};
use crate::server::{self, StoreCounts};
use crate::users::{Client, Scenario, text};

const SESSION: &str = "/recipe/session";
const REFRESH: &str = "/recipe/session/refresh";
const VERIFY: &str = "/recipe/session/verify";

/// How many starts are under way at once while sessions are loaded.
const AT_ONCE: usize = 256;

/// What a user of the face does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Signs in.
    Create,
    /// Refreshes; another session each time.
    Refresh,
    /// Refreshes, and verifies the access token for the first time: it is signed again. Two requests.
    RefreshAndVerify,
    /// Verifies an access token that was verified before, with a look at its session.
    VerifyDatabase,
}

/// One session's client side.
pub struct FaceUser {
    refresh_token: Box<str>,
    /// Empty until its first refresh.
    access_token: Box<str>,
}

impl FaceUser {
    /// Signs in.
    pub async fn create(connection: &mut Connection, number: usize) -> Result<Self> {
        let body = format!(
            r#"{{"userId":"user-{number:08}","userDataInJWT":{{"role":"member"}},"userDataInDatabase":{{}},"useDynamicSigningKey":true,"enableAntiCsrf":false}}"#
        );
        let answer = connection.post(SESSION, body, StatusCode::OK).await?;
        Ok(Self { refresh_token: token(&answer, "refreshToken")?, access_token: token(&answer, "accessToken")? })
    }

    /// Refreshes.
    pub async fn refresh(&mut self, connection: &mut Connection) -> Result<()> {
        let token_now = &self.refresh_token;
        let body = format!(r#"{{"refreshToken":"{token_now}","enableAntiCsrf":false,"useDynamicSigningKey":true}}"#);
        let answer = connection.post(REFRESH, body, StatusCode::OK).await?;
        *self = Self { refresh_token: token(&answer, "refreshToken")?, access_token: token(&answer, "accessToken")? };
        Ok(())
    }

    /// Verifies; after a refresh, the answer has another access token.
    pub async fn verify(&mut self, connection: &mut Connection, database: bool) -> Result<()> {
        let access_token = &self.access_token;
        let body = format!(
            r#"{{"accessToken":"{access_token}","doAntiCsrfCheck":false,"enableAntiCsrf":false,"checkDatabase":{database}}}"#
        );
        let answer = connection.post(VERIFY, body, StatusCode::OK).await?;
        anyhow::ensure!(text(&answer, "status")? == "OK", "an access token was refused");
        if let Ok(again) = token(&answer, "accessToken") {
            self.access_token = again;
        }
        Ok(())
    }

    /// Whether it has an access token.
    pub fn can_verify(&self) -> bool {
        !self.access_token.is_empty()
    }
}

/// The token in a member of an answer.
fn token(answer: &[u8], member: &str) -> Result<Box<str>> {
    let marker = format!(r#""{member}":{{"#);
    let at = answer.windows(marker.len()).position(|window| window == marker.as_bytes());
    let at = at.with_context(|| format!("an answer lacks `{member}`"))?;
    Ok(text(&answer[at..], "token")?.into())
}

/// The operations in their order, with how many times its floors each may cost.
const SCENARIOS: [(Face, &str); 4] = [
    (Face::Refresh, "refresh"),
    (Face::RefreshAndVerify, "refresh and first verify"),
    (Face::VerifyDatabase, "verify with checkDatabase"),
    (Face::Create, "create"),
];

const TARGET: f64 = 1.4;

/// Measures the face on SQLite and prints it as Markdown.
pub fn all(options: &Options) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = DataDir::create(temporary.path().join("data"))?;
    let runtime = Runtime::new()?;
    let api_key = runtime.block_on(async { seed::api_key(&dir.engine().await?).await })?;
    let (users, http) = {
        // The server itself makes the definition and the keys, with its first session.
        let (server, _) = server::serve(options.server(), &dir, "sqlite:")?;
        let load = options.load(&server, &api_key);
        let first = |address| async move {
            let mut connection = Connection::open(address, load.api_key).await?;
            FaceUser::create(&mut connection, 0).await
        };
        runtime.block_on(first(server.address))?;
        drop(server);
        eprintln!("loading {} sessions …", options.sessions());
        let users = runtime.block_on(async { start(&dir.engine().await?, options.sessions()).await })?;
        eprintln!("the floor of HTTP …");
        let floor = server::serve_floor()?;
        let mut clients = Client::of_face(users, options.clients());
        let http = options.load(&floor, &api_key).run(Scenario::HttpFloor, Pace::Closed, &mut clients)?;
        (clients, http.cpu_each())
    };
    let mut clients = users;

    let (server, metrics) = server::serve(options.server(), &dir, "sqlite:")?;
    thread::sleep(Duration::from_secs(2));
    let (idle, _) = resident_kib(server.pid())?;
    let load: Load<'_> = options.load(&server, &api_key);
    let mut measured: Vec<(Face, &str, Measured, StoreCounts)> = Vec::new();
    for (face, name) in SCENARIOS {
        eprintln!("{name} …");
        let before = StoreCounts::read(metrics)?;
        let closed = load.run(Scenario::Face(face), Pace::Closed, &mut clients)?;
        eprintln!("  {} µs at {:.0}/s", us(closed.cpu_each()), closed.rate());
        measured.push((face, name, closed, StoreCounts::read(metrics)?.since(&before)));
    }
    let (loaded, peak) = resident_kib(server.pid())?;
    drop(server);

    eprintln!("the floors of the store …");
    let group = |of| measured.iter().find(|(face, ..)| *face == of).map_or(1.0, |(.., store)| store.group());
    let groups = Groups { refresh: group(Face::Refresh), start: group(Face::Create), end: 1.0 };
    let store = floors::store(&dir.database(), &groups, options.measure())?;
    let crypto = floors::crypto(Duration::from_secs(1))?;
    println!("{} sessions, {} clients\n", options.sessions(), options.clients());
    println!("| floor | CPU µs |\n|---|---:|");
    println!("| HTTP | {} |", us(http));
    println!("| SQLite: a refresh's row and event, in transactions of {:.1} | {} |", groups.refresh, us(store.refresh));
    println!("| SQLite: a start's row and event, in transactions of {:.1} | {} |", groups.start, us(store.start));
    println!("| SQLite: a session's row read | {} |", us(store.read));
    println!("| RS256: a signature | {} |", us(crypto.rsa_sign));
    println!("| RS256: its check | {} |\n", us(crypto.rsa_check));
    println!("| operation | per second | server CPU µs | sum of its floors | ratio | at most |");
    println!("|---|---:|---:|---:|---:|---:|");
    let refresh = measured.iter().find(|(face, ..)| *face == Face::Refresh).map(|(_, _, m, _)| m.cpu_each());
    for (face, name, closed, _) in &measured {
        let (cpu, name) = match face {
            // What is left of the two requests.
            Face::RefreshAndVerify => (closed.cpu_each().saturating_sub(refresh.unwrap_or_default()), "first verify"),
            _ => (closed.cpu_each(), *name),
        };
        let floor = floor(*face, http, &store, &crypto);
        let ratio = cpu.as_secs_f64() / floor.as_secs_f64();
        println!("| {name} | {:.0} | {} | {} | {ratio:.2} | {TARGET} |", closed.rate(), us(cpu), us(floor));
    }
    println!("\n| resident, MiB | measured | target |\n|---|---:|---:|");
    println!(
        "| idle | {:.1} | |\n| after the load | {:.1} | 40 |\n| at most | {:.1} | |",
        mib(idle),
        mib(loaded),
        mib(peak)
    );
    Ok(())
}

/// The sum of an operation's floors. A first verify writes that it was one, which the write of a refresh stands for.
fn floor(face: Face, http: Duration, store: &StoreFloors, crypto: &CryptoFloors) -> Duration {
    http + match face {
        Face::Create => store.start + crypto.rsa_sign + crypto.mac,
        Face::Refresh => store.refresh + crypto.rsa_sign + 2 * crypto.mac,
        Face::RefreshAndVerify => store.read + store.refresh + crypto.rsa_check + crypto.rsa_sign + crypto.mac,
        Face::VerifyDatabase => store.read + crypto.rsa_check + crypto.mac,
    }
}

/// Starts sessions of the face's definition; their clients.
async fn start(engine: &Engine, sessions: usize) -> Result<Vec<FaceUser>> {
    let scope = Scope { product: "default".parse()?, env: "public".parse()? };
    let mut tasks = JoinSet::new();
    for task in 0..AT_ONCE {
        let (engine, scope) = (engine.clone(), scope.clone());
        tasks.spawn(async move {
            let mut started = Vec::new();
            for number in (task..sessions).step_by(AT_ONCE) {
                let user_id = Some(format!("user-{number:08}").parse()?);
                let claims = Map::from_iter([("role".to_owned(), json!("member"))]);
                let request = StartRequest { claims, ..StartRequest::new("supertokens".parse()?, user_id) };
                let issued = engine.start_unsigned(&scope, request, &Context::default()).await?;
                started.push(FaceUser { refresh_token: issued.refresh_token.expose().into(), access_token: "".into() });
            }
            Ok::<_, anyhow::Error>(started)
        });
    }
    let mut all = Vec::with_capacity(sessions);
    while let Some(started) = tasks.join_next().await {
        all.extend(started??);
    }
    Ok(all)
}
