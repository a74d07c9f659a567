//! Bad days: connections that are cut, servers that are silent, gone, full of locks or read-only.

mod common;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use common::{new_store, open};
use futures_util::future::join_all;
use rekindle::journal::EventKind;
use rekindle::session::{EndReason, Session, SessionId};
use rekindle::store::*;
use rekindle_mysql::MysqlStore;
use rekindle_testkit::fixtures::*;
use rekindle_testkit::proxy::{Behaviour, Proxy, Way};
use rekindle_testkit::servers::mysql::{Mysql, QUICK};
use tokio::time::Instant;

/// A store behind a proxy, and one that is not, on the same database.
async fn behind_proxy(server: &Mysql, options: &str) -> (Proxy, Arc<MysqlStore>, Arc<MysqlStore>) {
    let proxy = Proxy::start(server.port()).await;
    let database = server.new_database();
    let direct = open(&server.url(&database)).await;
    let store = open(&format!("{}?timeout=2{options}", server.url_through(proxy.port(), &database))).await;
    (proxy, store, direct)
}

fn is_unavailable<T>(outcome: &StoreResult<T>) -> bool {
    matches!(outcome, Err(StoreError::Unavailable(_)))
}

/// Waits for the server to be done with whatever was under way when its client was cut off.
async fn settled(direct: &MysqlStore, session: &Session) -> (Option<Session>, usize) {
    loop {
        let before = direct.session(session.id).await.unwrap();
        let events = direct.events(events_of(session.id)).await.unwrap().len();
        tokio::time::sleep(Duration::from_millis(5)).await;
        if direct.session(session.id).await.unwrap() == before
            && direct.events(events_of(session.id)).await.unwrap().len() == events
        {
            return (before, events);
        }
    }
}

/// Cuts the connection at each moment of an operation on a fresh session, either way.
async fn cut_everywhere<F: Future<Output = ()>>(proxy: &Proxy, operation: impl Fn() -> F) {
    for way in [Way::Request, Way::Answer] {
        for pieces in 0.. {
            proxy.cut_after(way, pieces);
            operation().await;
            if proxy.disarm(way) {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_cut_off_is_whole_or_not_at_all_and_can_be_repeated() {
    let (proxy, store, direct) = behind_proxy(Mysql::shared(), "").await;
    cut_everywhere(&proxy, || async {
        let new = session("ada");
        let outcome = store.start(start_of(&new)).await;
        let (row, events) = settled(&direct, &new).await;
        match outcome {
            Ok(started) => assert_eq!((started, &row, events), (Started::Created(Vec::new()), &Some(new.clone()), 1)),
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                assert_eq!(events, usize::from(row.is_some()));
            }
        }
        let again = direct.start(start_of(&new)).await.unwrap();
        let expected = match row {
            Some(row) => Started::Repeated(Some(Box::new(row))),
            None => Started::Created(Vec::new()),
        };
        assert_eq!(again, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_advance_that_is_cut_off_is_whole_or_not_at_all_and_can_be_repeated() {
    let (proxy, store, direct) = behind_proxy(Mysql::shared(), "").await;
    cut_everywhere(&proxy, || async {
        let session = start(&*direct, session("ada")).await;
        let outcome = store.advance(advance_of(&session, at(1))).await;
        let (row, events) = settled(&direct, &session).await;
        let row = row.expect("it was started");
        assert_eq!(events as u32, 1 + row.position.generation);
        match outcome {
            Ok(cas) => assert_eq!(applied(cas), row),
            Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error}"),
        }
        match direct.advance(advance_of(&session, at(1))).await.unwrap() {
            Cas::Applied(_) => assert_eq!(row.position.generation, 0),
            Cas::Stale(found) => assert_eq!((found.as_ref(), row.position.generation), (Some(&row), 1)),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_is_cut_off_leaves_all_its_traces_or_none() {
    let (proxy, store, direct) = behind_proxy(Mysql::shared(), "").await;
    cut_everywhere(&proxy, || async {
        let session = start(&*direct, session("ada")).await;
        let mut end = end_of(&session, at(1), EndReason::Theft);
        end.cause = Some(event_of(&session, EventKind::TheftDetected, at(1)));
        end.audit = Some(audit("session.end", at(1)));
        let audited = end.audit.as_ref().map(|a| a.id);
        let outcome = store.end(end).await;
        let (row, events) = settled(&direct, &session).await;
        let ended = row.expect("it was started").ended.is_some();
        assert!(ended || is_unavailable(&outcome), "{outcome:?}");
        let feed = direct.revocations(None, 0, at(1), 1_000).await.unwrap();
        assert_eq!(feed.iter().filter(|r| r.session_id == session.id).count(), usize::from(ended));
        assert_eq!(events, if ended { 3 } else { 1 });
        let log = direct.audit_log(None, 1_000).await.unwrap();
        assert_eq!(log.iter().any(|entry| Some(entry.id) == audited), ended);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_is_cut_off_is_whole_or_not_at_all_and_can_be_repeated() {
    let (proxy, store, direct) = behind_proxy(Mysql::shared(), "").await;
    cut_everywhere(&proxy, || async {
        // As many as go into several packets.
        let data = object(&format!(r#"{{"text":"{}"}}"#, "x".repeat(64 << 10)));
        let sessions: Vec<Session> = (0..20).map(|_| Session { data: data.clone(), ..session("ada") }).collect();
        let events: Vec<_> = sessions.iter().map(|s| event_of(s, EventKind::Start, at(0))).collect();
        let held = |i: usize| Held { count: 1, last: Some(events[i].id) };
        let record = |(session, i): (&Session, usize)| {
            let stored = StoredSession { session: session.clone(), idempotency: None, events: held(i) };
            Record::Session(Box::new(stored))
        };
        let records: Vec<Record> = sessions.iter().zip(0..).map(record).collect();
        let before = RecordKey::Session(SessionId::from_bytes(
            (u128::from_be_bytes(sessions[0].id.to_bytes()) - 1).to_be_bytes(),
        ));
        let outcome = store.put(records.clone(), events.clone()).await;
        settled(&direct, &sessions[0]).await;
        let there = direct.records(Section::Sessions, Some(before.clone()), 100).await.unwrap();
        match outcome {
            Ok(()) => assert_eq!(there, records),
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                assert!(there.is_empty() || there == records);
            }
        }
        direct.put(records.clone(), events.clone()).await.unwrap();
        assert_eq!(direct.records(Section::Sessions, Some(before), 100).await.unwrap(), records);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_survive_a_cut() {
    let (proxy, store, direct) = behind_proxy(Mysql::shared(), "").await;
    let session = start(&*direct, session("ada")).await;
    for _ in 0..3 {
        assert_eq!(row(&*store, session.id).await, session);
        proxy.cut();
        assert_eq!(row(&*store, session.id).await, session);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_unavailable_in_time_and_comes_back() {
    let (proxy, store, direct) = behind_proxy(Mysql::shared(), "").await;
    let session = start(&*direct, session("ada")).await;
    assert_eq!(row(&*store, session.id).await, session);
    proxy.set(Behaviour::Hold);
    let began = Instant::now();
    let outcomes = join_all((0..8).map(|_| store.advance(advance_of(&session, at(1))))).await;
    assert!(outcomes.iter().all(is_unavailable));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    proxy.set(Behaviour::Forward);
    // Statements that were held may be carried out now; all that matters is that one step was made, whole.
    let _ = store.advance(advance_of(&session, at(1))).await.unwrap();
    let (row, events) = settled(&direct, &session).await;
    assert_eq!((row.unwrap().position.generation, events), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_connections_is_unavailable_and_comes_back() {
    let (proxy, store, direct) = behind_proxy(Mysql::shared(), "").await;
    let session = start(&*direct, session("ada")).await;
    proxy.set(Behaviour::Refuse);
    proxy.cut();
    assert!(is_unavailable(&store.session(session.id).await));
    assert!(is_unavailable(&store.advance(advance_of(&session, at(1))).await));
    proxy.set(Behaviour::Forward);
    applied(store.advance(advance_of(&session, at(1))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_serves_everybody_in_turn() {
    let (proxy, store, _direct) = behind_proxy(Mysql::shared(), "&connections=1").await;
    let before = proxy.accepted();
    let sessions = join_all((0..50).map(|i| {
        let store = Arc::clone(&store);
        async move { start(&*store, session(&format!("user {i}"))).await }
    }))
    .await;
    let outcomes = join_all(sessions.iter().map(|s| store.advance(advance_of(s, at(1))))).await;
    assert!(outcomes.iter().all(|o| matches!(o, Ok(Cas::Applied(_)))));
    assert!(proxy.accepted() <= before + 1, "no request uses two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_too_long_for_a_connection_is_told_what_to_do() {
    let (proxy, store, _direct) = behind_proxy(Mysql::shared(), "&connections=1").await;
    proxy.set(Behaviour::Hold);
    let (first, second) = tokio::join!(store.ping(), async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        store.ping().await
    });
    assert!(is_unavailable(&first));
    let text = second.map(|()| String::new()).unwrap_or_else(|error| error.to_string());
    assert!(text.contains("raise `connections`") || text.contains("did not answer"), "{text}");
    proxy.set(Behaviour::Forward);
    assert_eq!(store.ping().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_futures_leave_no_connection_dirty_and_none_behind() {
    let server = Mysql::shared();
    let (store, url) = new_store(server).await;
    let database = url.rsplit('/').next().unwrap().to_owned();
    let mut sessions = Vec::new();
    for i in 0..300u32 {
        let session = start(&*store, session("ada")).await;
        let task = {
            let (store, advance) = (Arc::clone(&store), advance_of(&session, at(1)));
            tokio::spawn(async move { store.advance(advance).await })
        };
        tokio::time::sleep(Duration::from_micros(u64::from(i) * 3)).await;
        task.abort();
        let _ = task.await;
        assert_eq!(row(&*store, session.id).await.id, session.id);
        sessions.push(session);
    }
    for session in &sessions {
        let (row, events) = settled(&store, session).await;
        assert_eq!(events as u32, 1 + row.unwrap().position.generation);
    }
    let count = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{database}'");
    let open: u32 = server.sql("mysql", &count).parse().unwrap();
    assert!(open <= 16, "{open} connections are open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_row_is_waited_for_and_then_unavailable() {
    let server = Mysql::shared();
    let database = server.new_database();
    let store = open(&format!("{}?timeout=4", server.url(&database))).await;
    let session = start(&*store, session("ada")).await;
    let hold = |seconds: u32| {
        let (url, id) = (server.url(&database), session.id);
        tokio::spawn(async move {
            use mysql_async::prelude::Queryable as _;
            let mut connection = mysql_async::Conn::from_url(url).await.unwrap();
            let id: String = id.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
            let lock =
                format!("BEGIN; SELECT id FROM sessions WHERE id = X'{id}' FOR UPDATE; DO SLEEP({seconds}); ROLLBACK");
            connection.query_drop(lock).await.unwrap();
        })
    };
    let holder = hold(1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    holder.await.unwrap();
    let holder = hold(7);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    let session = row(&*store, session.id).await;
    let outcome = store.advance(advance_of(&session, at(2))).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(7));
    holder.await.unwrap();
    applied(store.advance(advance_of(&session, at(2))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_are_replaced() {
    let server = Mysql::shared();
    let (store, url) = new_store(server).await;
    let database = url.rsplit('/').next().unwrap().to_owned();
    let session = start(&*store, session("ada")).await;
    let list = format!(
        "SELECT GROUP_CONCAT('KILL ', id SEPARATOR '; ') FROM information_schema.processlist WHERE db = '{database}'"
    );
    let kill = server.sql("mysql", &list);
    server.sql("mysql", &kill);
    assert_eq!(row(&*store, session.id).await, session);
    applied(store.advance(advance_of(&session, at(1))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_is_found_again() {
    let mut server = Mysql::quick();
    let (store, _url) = new_store(&server).await;
    let session = start(&*store, session("ada")).await;
    server.server().stop("TERM");
    assert!(is_unavailable(&store.session(session.id).await));
    assert!(is_unavailable(&store.advance(advance_of(&session, at(1))).await));
    assert!(is_unavailable(&store.ping().await));
    server.start_again();
    assert_eq!(row(&*store, session.id).await, session);
    applied(store.advance(advance_of(&session, at(1))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answered_writes_survive_a_killed_server() {
    let mut server = Mysql::start(&[]);
    let (store, _url) = new_store(&server).await;
    let mut session = start(&*store, session("ada")).await;
    for _ in 0..5 {
        session = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    }
    server.server().stop("KILL");
    server.start_again();
    assert_eq!(row(&*store, session.id).await, session);
    let checks = store.checks().await.unwrap();
    assert!(checks.iter().all(|check| check.ok), "{checks:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_server_is_unavailable_until_it_takes_writes() {
    let server = Mysql::quick();
    let (store, _url) = new_store(&server).await;
    let session = start(&*store, session("ada")).await;
    server.sql("mysql", "SET GLOBAL read_only = 1");
    for outcome in [
        store.advance(advance_of(&session, at(1))).await.map(drop),
        store.end(end_of(&session, at(1), EndReason::Revoked)).await.map(drop),
        store.ping().await,
    ] {
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains("the server takes no writes"), "{text}");
    }
    assert_eq!(row(&*store, session.id).await, session);
    server.sql("mysql", "SET GLOBAL read_only = 0");
    applied(store.advance(advance_of(&session, at(1))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_unavailable_for_writes_and_answers_reads_until_there_is_room_again() {
    // What is full are the tables, and not what the server needs to take a write back.
    let tiny = [
        "innodb-file-per-table=0",
        "innodb-data-file-path=ibdata1:12M:autoextend:max:40M",
        "innodb-undo-tablespaces=3",
    ];
    let server = Mysql::start(&[QUICK.as_slice(), &tiny].concat());
    let (store, _url) = new_store(&server).await;
    let first = start(&*store, session("eve")).await;
    // Of a size that has no pages of its own: at those, MariaDB 10.11 was seen to abort when it had no room left.
    let data = object(&format!(r#"{{"text":"{}"}}"#, "x".repeat(3_000)));
    let some = || -> Vec<Record> {
        let new = (0..100).map(|_| Session { data: data.clone(), ..session("ada") });
        let stored = |session| StoredSession { session, idempotency: None, events: Held::default() };
        new.map(|session| Record::Session(Box::new(stored(session)))).collect()
    };
    let full = |outcome: &StoreError| matches!(outcome, StoreError::Unavailable(text) if text.contains("full"));
    let (mut written, mut refused) = (Vec::new(), some());
    let outcome = loop {
        match store.put(refused.clone(), Vec::new()).await {
            Ok(()) => written.extend(std::mem::replace(&mut refused, some())),
            Err(error) => break error,
        }
    };
    assert!(full(&outcome), "{outcome}");
    let outcome = loop {
        if let Err(error) = store.start(start_of(&Session { data: data.clone(), ..session("ada") })).await {
            break error;
        }
    };
    assert!(full(&outcome), "{outcome}");
    // Nothing of it is there, and what is can be read.
    assert_eq!(row(&*store, first.id).await, first);
    let (mut there, mut last) = (Vec::new(), RecordKey::Session(first.id));
    loop {
        let page = store.records(Section::Sessions, Some(last.clone()), u32::MAX).await.unwrap();
        let Some(record) = page.last() else { break };
        last = record.key();
        there.extend(page);
    }
    assert!(there.starts_with(&written) && !there.iter().any(|record| refused.contains(record)));

    store.remove(written.iter().take(2_000).map(Record::key).collect()).await.unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    // The server gives their room free in the background.
    while let Err(outcome) = store.put(refused.clone(), Vec::new()).await {
        assert!(full(&outcome) && Instant::now() < patience, "{outcome}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    start(&*store, session("ada")).await;
    applied(store.advance(advance_of(&first, at(1))).await.unwrap());
}
