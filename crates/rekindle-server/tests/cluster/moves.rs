//! Everything moves from each kind of store to each other one, by `rekindle copy`, while clients go on.

use std::time::Duration;

use futures_util::stream::{StreamExt, iter};
use rekindle_testkit::servers::mysql::Mysql;
use rekindle_testkit::servers::postgres::Postgres;
use rekindle_testkit::servers::redis::{Cluster, Redis};
use serde_json::{Value, json};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use crate::history::{Answered, Asked, check};
use crate::load::Load;
use crate::process::ok;
use crate::site::{At, Call, Purpose, Site, rng};
use crate::{ALONE, assert_worth, say};

/// Kinds of stores, in an order in which each is left once for each other one; then, as they are the same store to a copy, the
/// same with a cluster of Redis.
const TOUR: [&str; 12] = [
    "postgres", "sqlite", "mysql", "sqlite", "redis", "postgres", "mysql", "postgres", "redis", "mysql", "redis",
    "sqlite",
];
const WITH_CLUSTER: [&str; 8] = ["cluster", "postgres", "cluster", "mysql", "cluster", "redis", "cluster", "sqlite"];

fn is_full() -> bool {
    std::env::var_os("REKINDLE_FULL").is_some()
}

/// How many sessions lie idle meanwhile.
fn idle() -> usize {
    if is_full() { 100_000 } else { 5_000 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_between_all_stores_under_load() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let url = |kind: &str, hop: usize| {
        block_in_place(|| match kind {
            "sqlite" => format!("sqlite:{}", dir.path().join(format!("{hop}.db")).display()),
            "postgres" => Postgres::shared().url(&Postgres::shared().new_database()),
            "mysql" => Mysql::shared().url(&Mysql::shared().new_database()),
            "redis" => Redis::shared().new_url(),
            _ => Cluster::shared().new_url(),
        })
    };
    let (mut from, mut store) = ("sqlite", url("sqlite", 0));
    let site = Site::start([&store, &store]).await;
    let sleepers = start_many(&site, idle()).await;
    let load = Load::start(&site, 7);
    let mut outages = Vec::new();
    let tour = TOUR.into_iter().chain(WITH_CLUSTER.into_iter().filter(|_| is_full()));
    for (to, hop) in tour.zip(1..) {
        sleep(Duration::from_millis(500)).await;
        let next = url(to, hop);
        let copy = |more: &[&str]| {
            let args = [&["copy", "--from", &store, "--to", &next], more].concat();
            block_in_place(|| ok(dir.path(), &args))
        };
        let began = Instant::now();
        copy(&[]);
        let served = began.elapsed();
        let mut proof = String::new();
        let outage = site.move_to(&next, || proof = copy(&["--finish"])).await;
        say(&format!(
            "copy {from} to {to}: {:.1} s beside the servers; nobody served for {:.1} s",
            served.as_secs_f64(),
            (outage.over[0].max(outage.over[1]) - outage.began) as f64 / 1000.0,
        ));
        let sessions: usize = proof
            .lines()
            .find_map(|line| line.strip_prefix("sessions "))
            .map_or(0, |line| line.split_whitespace().next().expect("a number of records").parse().expect("a number"));
        assert!(sessions > sleepers.len(), "{proof}");
        outages.push(outage);
        (from, store) = (to, next);
    }
    sleep(Duration::from_secs(1)).await;
    let verdict = check(&load.stop().await, &outages);
    say(&format!("copies between all stores: {verdict}"));
    assert_worth("copies", &verdict);
    refresh_all(&site, &sleepers).await;
}

/// Sessions that nobody uses until the end.
async fn start_many(site: &Site, count: usize) -> Vec<Value> {
    let start = async |i: usize| {
        let call =
            Call::new("POST", "sessions", Some(json!({ "user_id": format!("sleeper-{}", i / 3), "data": { "n": i } })));
        let purpose = Purpose { client: usize::MAX, session: None, asked: Asked::Start };
        site.ask(&mut rng(i as u64), At::Any, purpose, &call.once(format!("sleeper-{i}"))).await.1
    };
    iter(0..count).map(start).buffer_unordered(16).collect().await
}

/// Each goes on with the token that it got at its start, many stores ago.
async fn refresh_all(site: &Site, sleepers: &[Value]) {
    let refresh = async |tokens: &Value| {
        let call = Call::new("POST", "sessions/refresh", Some(json!({ "refresh_token": tokens["refresh_token"] })));
        let asked = Asked::Refresh { token: String::new(), generation: 0 };
        let purpose = Purpose { client: usize::MAX, session: None, asked };
        let (answered, body) = site.ask(&mut rng(0), At::Any, purpose, &call).await;
        assert!(matches!(answered, Answered::Tokens { generation: 1, .. }), "{body}");
        assert_eq!(body["session"]["data"], tokens["session"]["data"]);
    };
    iter(sleepers).for_each_concurrent(16, refresh).await;
}
