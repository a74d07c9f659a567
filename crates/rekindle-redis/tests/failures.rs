//! Servers that are gone, slow, full, closed or wrong: what is said, and that all goes on without a new start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rekindle::definition::OnMaxSessions;
use rekindle::session::{EndReason, Session};
use rekindle::store::*;
use rekindle_redis::{OpenError, RedisConfig, RedisStore};
use rekindle_testkit::fixtures::*;
use rekindle_testkit::servers::redis::{Cluster, Redis, Watched};

async fn open(url: &str) -> RedisStore {
    RedisStore::open(RedisConfig::parse(url).unwrap()).await.unwrap()
}

async fn refused(url: &str) -> (OpenError, String) {
    match RedisStore::open(RedisConfig::parse(url).unwrap()).await {
        Ok(_) => panic!("{url} was opened"),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains("secret"), "{text}");
            (error, text)
        }
    }
}

fn unavailable<T: std::fmt::Debug>(answer: StoreResult<T>) -> String {
    match answer {
        Err(StoreError::Unavailable(text)) => text,
        other => panic!("expected the store to be unavailable, got {other:?}"),
    }
}

/// Asks until the answer is not that the store is unavailable.
async fn at_last<T>(ask: impl AsyncFn() -> StoreResult<T>) -> T {
    #[expect(clippy::disallowed_methods, reason = "the limit is of real time")]
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(40), "still {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Acknowledged writes survive a kill where each is flushed; the store goes on by itself, also without its scripts.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing_that_was_flushed() {
    let mut server = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = open(&server.new_url()).await;
    let session = start(&store, session("ada")).await;
    let advanced = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    server.server().stop("KILL");
    let text = unavailable(store.session(session.id).await);
    assert!(text.contains(&format!("127.0.0.1:{}", server.port())), "{text}");
    unavailable(store.advance(advance_of(&advanced, at(2))).await);
    server.start_again();
    assert_eq!(at_last(async || store.session(session.id).await).await, Some(advanced.clone()));
    applied(store.advance(advance_of(&advanced, at(2))).await.unwrap());
    server.cli(&["SCRIPT", "FLUSH"]);
    let row = row(&store, session.id).await;
    applied(store.end(end_of(&row, at(3), EndReason::SignedOut)).await.unwrap());
}

/// A server that does not answer is given up after the time-out, and asked again once it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_given_up_in_time() {
    let mut server = Redis::quick();
    let store = open(&(server.new_url() + "&timeout_ms=500&connect_timeout_ms=500")).await;
    let session = start(&store, session("ada")).await;
    server.server().signal("STOP");
    // The signal is on its way.
    while store.ping().await.is_ok() {}
    #[expect(clippy::disallowed_methods, reason = "the limit is of real time")]
    let began = Instant::now();
    let advance = advance_of(&session, at(1));
    let answers = join_all((0..20).map(|_| store.advance(advance.clone()))).await;
    answers.into_iter().for_each(|answer| drop(unavailable(answer)));
    unavailable(store.advance(advance.clone()).await);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    server.server().signal("CONT");
    // Whether one of them arrived is not known: asked again, it is there once.
    at_last(async || store.advance(advance.clone()).await).await;
    assert_eq!(row(&store, session.id).await.position, advance.next);
    assert_eq!(store.events(events_of(session.id)).await.unwrap().len(), 2);
}

/// A full server refuses writes and keeps what it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_is_unavailable_for_writes() {
    let server = Redis::quick();
    let store = open(&server.new_url()).await;
    let session = start(&store, session("ada")).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let text = unavailable(store.advance(advance_of(&session, at(1))).await);
    assert!(text.contains("maxmemory"), "{text}");
    unavailable(store.update(update_of(&session, "{}", at(1))).await);
    unavailable(store.end(end_of(&session, at(1), EndReason::Revoked)).await);
    unavailable(store.start(start_of(&session_at("bob", at(1)))).await);
    unavailable(store.ping().await);
    assert_eq!(row(&store, session.id).await, session);
    assert_eq!(store.events(events_of(session.id)).await.unwrap().len(), 1);
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    start(&store, session_at("bob", at(1))).await;
}

/// What is wrong is said at once, without the password.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_opened_says_why() {
    let server = Redis::start(&["--requirepass", "pass", "--save", ""]);
    let url = |login: &str| format!("redis://{login}127.0.0.1:{}/?prefix=x", server.port());
    for login in ["", ":secret@", "nobody:secret@"] {
        let (error, text) = refused(&url(login)).await;
        assert!(matches!(error, OpenError::Login { .. }), "{login}: {error:?} {text}");
    }
    let as_admin = |arguments: &[&str]| server.cli(&[&["-a", "pass", "--no-auth-warning"], arguments].concat());
    as_admin(&["ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+@connection"]);
    let (error, text) = refused(&url("reader:secret@")).await;
    assert!(matches!(error, OpenError::Permission { .. }), "{text}");
    as_admin(&["ACL", "SETUSER", "app", "on", ">secret", "~x:*", "+@all", "-@admin", "-@dangerous"]);
    let app = open(&url("app:secret@")).await;
    start(&app, session("ada")).await;
    let checks = app.checks().await;
    assert!(checks.iter().any(|c| !c.ok && c.text.contains("cannot be read")), "{checks:?}");

    let (error, text) = refused("redis://:secret@127.0.0.1:1/").await;
    assert!(matches!(error, OpenError::Unreachable { .. }) && text.contains("127.0.0.1:1"), "{text}");
    let (error, text) = refused("redis+cluster://:secret@127.0.0.1:1/").await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{text}");
    let (error, text) = refused("redis+sentinel://:secret@127.0.0.1:1/main").await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{text}");
    let (error, text) = refused(&format!("rediss://:secret@127.0.0.1:{}/", server.port())).await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{text}");
    let (error, text) = refused("rediss://:secret@127.0.0.1:1/?ca=/nowhere.pem").await;
    assert!(matches!(error, OpenError::File { .. }) && text.contains("/nowhere.pem"), "{text}");
}

/// Neither a replica nor a keyspace of the future is written to.
#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_written_is_left_alone() {
    let server = Redis::quick();
    let url = server.new_url();
    let config = || RedisConfig::parse(&url).unwrap();
    assert_eq!(RedisStore::pending(config()).await.unwrap().len(), 1);
    assert_eq!(server.cli(&["DBSIZE"]), "0");
    let store = open(&url).await;
    assert!(RedisStore::pending(config()).await.unwrap().is_empty());
    let session = start(&store, session("ada")).await;
    // Opened again, it is as it was.
    assert_eq!(row(&open(&url).await, session.id).await, session);

    let prefix = url.split_once("prefix=").unwrap().1;
    server.cli(&["HSET", &format!("{prefix}:{{config}}:current"), "layout", "99"]);
    let (error, text) = refused(&url).await;
    assert!(matches!(error, OpenError::Newer { .. }) && text.contains("layout 99"), "{text}");
    assert!(RedisStore::pending(config()).await.is_err());

    let url = server.new_url();
    open(&url).await;
    let replica = server.replica();
    for url in [replica.new_url(), url.replace(&server.port().to_string(), &replica.port().to_string())] {
        let (error, text) = refused(&url).await;
        assert!(matches!(error, OpenError::ReadOnly { .. }), "{text}");
    }
}

/// Only with the authority that signed the server's certificate.
#[tokio::test(flavor = "multi_thread")]
async fn tls_checks_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_cert = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(path("ca.pem"), authority_cert.pem()).unwrap();
    std::fs::write(path("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(path("other.pem"), other.cert.pem()).unwrap();

    let port = rekindle_testkit::servers::free_port();
    let server = Redis::start(&[
        "--save",
        "",
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path("cert.pem"),
        "--tls-key-file",
        &path("key.pem"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
        "--tls-auth-clients",
        "optional",
    ]);
    let url = |host: &str, options: &str| format!("rediss://{host}:{port}/?prefix=x{options}");
    let ca = format!("&ca={}", path("ca.pem"));
    start(&open(&url("localhost", &ca)).await, session("ada")).await;
    let client = format!("{ca}&cert={}&key={}", path("cert.pem"), path("key.pem"));
    open(&url("localhost", &client)).await;
    for (host, options) in
        [("localhost", String::new()), ("localhost", format!("&ca={}", path("other.pem"))), ("127.0.0.1", ca)]
    {
        let (error, text) = refused(&url(host, &options)).await;
        assert!(matches!(error, OpenError::Unreachable { .. }), "{host} {options}: {text}");
    }
    drop(server);
}

/// After a failover the store finds the new master.
#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_leads_to_the_new_master() {
    let mut watched = Watched::start();
    let store = open(&(watched.new_url() + "&wait_replicas=1&wait_timeout_ms=20000")).await;
    let session = start(&store, session("ada")).await;
    let advanced = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    drop(store);
    let url = watched.new_url();
    let prefix = |url: &str| url.split_once("prefix=").unwrap().1.to_owned();
    assert_ne!(prefix(&url), "rekindle");
    let store = open(&url).await;
    let other = start(&store, rekindle_testkit::fixtures::session("bob")).await;
    watched.first_master().wait_for_replica();
    watched.first_master().server().stop("KILL");
    let found = at_last(async || store.session(other.id).await).await;
    assert_eq!(found, Some(other.clone()));
    at_last(async || store.advance(advance_of(&other, at(2))).await).await;
    assert_eq!(row(&store, other.id).await.position.generation, 1);
    assert_eq!(advanced.position.generation, 1);
}

/// After a failover of one of its masters a cluster serves every session again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_on_after_a_failover() {
    let mut cluster = Cluster::start();
    let url = cluster.new_url();
    let text = unavailable(open(&(url.clone() + "&wait_replicas=2&wait_timeout_ms=1500")).await.ping().await);
    assert!(text.contains("only 1 of 2 replicas"), "{text}");
    let store = open(&(url + "&wait_replicas=1&wait_timeout_ms=20000")).await;
    assert!(store.checks().await.iter().any(|c| c.text.starts_with("cluster: ") && c.ok), "{:?}", store.checks().await);
    let mut sessions = Vec::new();
    for i in 0..20 {
        sessions.push(start(&store, session_at("ada", at(i))).await);
    }
    drop(store);
    let url = cluster.new_url();
    let store = open(&url).await;
    let mut here = Vec::new();
    for i in 0..20 {
        here.push(start(&store, session_at("ada", at(i))).await);
    }
    for node in &cluster.nodes()[..3] {
        node.wait_for_replica();
    }
    cluster.nodes()[0].server().stop("KILL");
    for session in &here {
        let cas = at_last(async || store.advance(advance_of(session, at(30))).await).await;
        // Of one whose answer was lost, the row says that it arrived.
        let (Cas::Applied(row) | Cas::Stale(Some(row))) = cas else { panic!("the session {} is lost", session.id) };
        assert_eq!(row.position.generation, 1);
    }
    let ended = at_last(async || store.end_many(end_all_of("ada", at(31))).await).await;
    assert_eq!(ended.ended.len(), 20);
    assert_eq!(store.revocations(None, 0, at(31), 100).await.unwrap().len(), 20);
}

/// Two servers, one keyspace: the maximum holds, and each end is noted once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_agree() {
    let url = Redis::shared().new_url();
    let stores = [Arc::new(open(&url).await), Arc::new(open(&url).await)];
    let starts = (0..40).map(|i| {
        let (store, session) = (Arc::clone(&stores[i % 2]), session("ada"));
        let on_max = if i % 4 < 2 { OnMaxSessions::Reject } else { OnMaxSessions::EndOldest };
        let start = Start { max_sessions: Some((3, on_max)), ..start_of(&session) };
        tokio::spawn(async move { store.start(start).await.unwrap() })
    });
    join_all(starts).await.into_iter().for_each(|started| drop(started.unwrap()));
    let mut active = sessions_in(scope(), at(1));
    active.active = Some(true);
    assert_eq!(stores[0].sessions(active).await.unwrap().len(), 3);

    for i in 0..100 {
        start(&*stores[0], Session { idle_expires_at: at(10), ..session(&format!("user-{i}")) }).await;
    }
    let sweeps = stores.iter().map(|store| store.sweep(sweep_at(at(50))));
    let swept: Vec<Swept> = join_all(sweeps).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(swept.iter().map(|s| s.ended).sum::<u64>(), 100);
    let sweeps = stores.iter().map(|store| store.sweep(sweep_at(at(111))));
    let swept: Vec<Swept> = join_all(sweeps).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(swept.iter().map(|s| s.removed).sum::<u64>(), 100);
    assert_eq!(
        stores[1].users(UserQuery { scope: scope(), after: None, limit: 1_000, now: at(111) }).await.unwrap().len(),
        1
    );
}

/// Slots that move to another node while they are in use are not noticed, but for a wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_may_move_under_load() {
    let mut cluster = Cluster::start();
    let store = Arc::new(open(&cluster.new_url()).await);
    let mut sessions = Vec::new();
    for i in 0..30 {
        sessions.push(start(&*store, session_at(&format!("user-{i}"), at(0))).await);
    }
    let moving = tokio::task::spawn_blocking(move || {
        let nodes = cluster.nodes();
        let id = |node: &Redis| node.cli(&["CLUSTER", "MYID"]);
        let (from, to, first) = (id(&nodes[0]), id(&nodes[1]), format!("127.0.0.1:{}", nodes[0].port()));
        let arguments = ["--cluster", "reshard", &first, "--cluster-from", &from, "--cluster-to", &to];
        let moved = nodes[0].cli(&[arguments.as_slice(), &["--cluster-slots", "1500", "--cluster-yes"]].concat());
        assert!(moved.contains("Moving slot"), "{moved}");
        cluster
    });
    let refreshing = sessions.into_iter().map(async |mut session| {
        let mut refreshes = 0;
        while refreshes < 10 || (!moving.is_finished() && refreshes < 900) {
            refreshes += 1;
            let advance = advance_of(&session, at(refreshes));
            session = match at_last(async || store.advance(advance.clone()).await).await {
                Cas::Applied(row) => row,
                // Asked again after an answer that was lost.
                Cas::Stale(Some(row)) if row.position == advance.next => row,
                other => panic!("{other:?}"),
            };
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        applied(at_last(async || store.end(end_of(&session, at(refreshes), EndReason::SignedOut)).await).await);
    });
    join_all(refreshing).await;
    let _cluster = moving.await.unwrap();
    assert_eq!(store.revocations(None, 0, at(1), 100).await.unwrap().len(), 30);
}
