//! Servers that go away, hang, and lose answers.

use std::sync::Arc;
use std::time::Duration;

use rekindle::{
    clock::SystemClock,
    engine::Engine,
    journal::Context,
    session::{EndReason, UserId},
};
use rekindle_client::{
    Code, Rekindle, Trust,
    axum::Sessions,
    remote::Remote,
    session::{List, Patch, Refresh, Start, Token},
    web::{Settings, Web},
};
use rekindle_testkit::proxy::{Behaviour, Proxy, Way};
use reqwest::Method;
use tokio::time::Instant;

use crate::browser::{Browser, lost};
use crate::handle::soon;
use crate::site::{application, engine, rekindle_server, serve};

/// Two servers on one store, each behind a proxy, and a handle on both.
struct Cluster {
    engine: Engine,
    proxies: [Proxy; 2],
    rekindle: Rekindle,
}

impl Cluster {
    async fn new() -> Self {
        let engine = engine(Arc::new(SystemClock)).await;
        let (one, key, _) = rekindle_server(&engine).await;
        let (two, ..) = rekindle_server(&engine).await;
        let proxies = [Proxy::start(one).await, Proxy::start(two).await];
        let remote = Remote {
            servers: proxies.iter().map(|proxy| format!("http://127.0.0.1:{}/", proxy.port())).collect(),
            issuer: Some("http://rekindle.test".into()),
            timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_millis(500),
            ..Remote::new("", key)
        };
        Self { engine, proxies, rekindle: Rekindle::remote(remote).unwrap() }
    }

    fn out(&self, which: usize) {
        self.proxies[which].set(Behaviour::Refuse);
        self.proxies[which].cut();
    }

    fn start(&self) -> Start {
        Start::user("ada".parse().unwrap())
    }

    async fn sessions_of(&self, user: &str) -> usize {
        let user_id: UserId = user.parse().unwrap();
        let list = List { user_id: Some(user_id), ..List::default() };
        self.rekindle.list(list).await.unwrap().sessions.len()
    }
}

#[tokio::test]
async fn when_one_server_is_out_the_other_answers() {
    let Cluster { engine, proxies: [one, _two], rekindle } = Cluster::new().await;
    let start = || Start::user("ada".parse().unwrap());
    let tokens = rekindle.start(start()).await.unwrap();
    drop(one);
    tokio::time::sleep(Duration::from_millis(100)).await;
    rekindle.start(start()).await.expect("a request that no server has read goes to the next");
    let tokens = rekindle.refresh(Refresh::bearer(tokens.refresh_token)).await.unwrap();
    rekindle.verify(&tokens.access_token, Trust::FailOpen).await.unwrap();
    let (scope, ctx) = (tokens.session.scope(), Context::default());
    engine.revoke(&scope, tokens.session.id, EndReason::Revoked, &ctx).await.unwrap();
    soon("revocations come from the other", async || {
        rekindle.verify(&tokens.access_token, Trust::FailOpen).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn a_server_that_hangs_is_left_for_the_other_where_repeating_is_safe() {
    let cluster = Cluster::new().await;
    let tokens = cluster.rekindle.start(cluster.start()).await.unwrap();
    cluster.proxies[0].set(Behaviour::Hold);
    let began = Instant::now();
    cluster.rekindle.refresh(Refresh::bearer(tokens.refresh_token)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // The other one is asked first from here on.
    let began = Instant::now();
    cluster.rekindle.start(cluster.start()).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_is_repeated_only_with_an_idempotency_key() {
    let cluster = Cluster::new().await;
    // The feed's answers go through the same proxies: what is lost here may be one of theirs, so it is tried until it is ours.
    let mut lost_one = None;
    for _ in 0..50 {
        cluster.proxies[0].cut_after(Way::Answer, 0);
        if let Err(problem) = cluster.rekindle.start(cluster.start()).await {
            lost_one = Some(problem);
            break;
        }
    }
    cluster.proxies[0].disarm(Way::Answer);
    let problem = lost_one.expect("an answer was lost");
    assert_eq!(problem.code(), Code::Unavailable);
    assert!(problem.is_transient() && !problem.is_terminal());

    for i in 0..10 {
        let start = Start { idempotency_key: Some(format!("login {i}")), ..Start::user("eve".parse().unwrap()) };
        cluster.proxies[0].cut_after(Way::Answer, 0);
        cluster.rekindle.start(start).await.unwrap();
    }
    cluster.proxies[0].disarm(Way::Answer);
    assert_eq!(cluster.sessions_of("eve").await, 10);
}

#[tokio::test]
async fn a_refresh_whose_answer_was_lost_is_repeated_and_gives_the_same() {
    let cluster = Cluster::new().await;
    let mut tokens = cluster.rekindle.start(cluster.start()).await.unwrap();
    for generation in 1..=10 {
        cluster.proxies[0].cut_after(Way::Answer, 0);
        tokens = cluster.rekindle.refresh(Refresh::bearer(tokens.refresh_token)).await.unwrap();
        assert_eq!(tokens.session.generation, generation);
    }
}

#[tokio::test]
async fn in_an_outage_tokens_are_verified_and_each_caller_chooses_how_far_to_trust_them() {
    let cluster = Cluster::new().await;
    let known = cluster.rekindle.start(cluster.start()).await.unwrap();
    let unseen = cluster.rekindle.start(cluster.start()).await.unwrap();
    cluster.rekindle.verify(&known.access_token, Trust::FailOpen).await.unwrap();
    cluster.rekindle.verify(&known.access_token, Trust::FailClosed).await.unwrap();
    [0, 1].into_iter().for_each(|which| cluster.out(which));
    for tokens in [&known, &unseen] {
        cluster.rekindle.verify(&tokens.access_token, Trust::FailOpen).await.unwrap();
    }
    let refused = cluster.rekindle.verify(&known.access_token, Trust::Online).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let refresh = cluster.rekindle.refresh(Refresh::bearer(known.refresh_token.clone())).await.unwrap_err();
    assert_eq!(refresh.code(), Code::Unavailable);
    assert!(refresh.tried_again_after().is_some());
    let patched = cluster.rekindle.patch(known.session.id, Patch::default()).await.unwrap_err();
    assert_eq!(patched.code(), Code::Unavailable);

    let began = Instant::now();
    while !cluster.rekindle.is_stale() {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let closed = cluster.rekindle.verify(&known.access_token, Trust::FailClosed).await.unwrap_err();
    assert_eq!(closed.code(), Code::Unavailable);
    cluster.rekindle.verify(&known.access_token, Trust::FailOpen).await.unwrap();

    cluster.proxies.iter().for_each(|proxy| proxy.set(Behaviour::Forward));
    // The first poll after an outage may have begun before its end, and is given up in its time.
    let began = Instant::now();
    while cluster.rekindle.is_stale() {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.rekindle.verify(&known.access_token, Trust::FailClosed).await.unwrap();
    cluster.rekindle.refresh(Refresh::bearer(known.refresh_token)).await.unwrap();
}

#[tokio::test]
async fn an_application_starts_without_servers_and_an_outage_takes_no_cookie() {
    let cluster = Cluster::new().await;
    let web = Web::new(Settings { development: true, ..Settings::default() }).unwrap();
    let (port, _serving) = serve(Sessions::new(cluster.rekindle.clone(), web).mount(application())).await;
    let mut browser = Browser::new(port);
    browser.log_in("ada").await.with(204);
    browser.get("/me").await.with(200);
    [0, 1].into_iter().for_each(|which| cluster.out(which));
    let refused = browser.refresh().await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")));
    assert!(refused.cookies().is_empty());
    refused.refused("unavailable");
    browser.get("/me").await.with(200);
    lost(browser.ask(Method::POST, "/auth/session/signout").header("rekindle-request", "1"))
        .await
        .refused("unavailable");
    browser.get("/online").await.refused("unavailable");
    assert_eq!(browser.cookies().len(), 3);

    // Nobody listens there, and nothing was ever fetched.
    let nowhere = Rekindle::remote(Remote::new("http://127.0.0.1:9", "rkk_x")).unwrap();
    let problem = nowhere.verify(&Token::new("a.b.c"), Trust::FailOpen).await.unwrap_err();
    assert_eq!(problem.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_wrong_key_or_issuer_is_said_clearly() {
    let engine = engine(Arc::new(SystemClock)).await;
    let (port, key, _) = rekindle_server(&engine).await;
    let url = format!("http://127.0.0.1:{port}");
    let wrong = Rekindle::remote(Remote::new(&url, "rkk_wrong")).unwrap();
    assert_eq!(wrong.start(Start::default()).await.unwrap_err().code(), Code::Unauthorized);
    let other = Rekindle::remote(Remote::new(&url, key)).unwrap();
    let tokens = other.start(Start::default()).await.unwrap();
    let problem = other.verify(&tokens.access_token, Trust::FailOpen).await.unwrap_err();
    assert_eq!(problem.code(), Code::TokenScopeMismatch);
    assert!(problem.detail().contains(&format!("issuer `{url}`")), "{problem}");
}
