//! Bad days: answers that are lost, servers that stop, hang or take no writes, pools that are empty.

mod common;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rekindle::definition::OnMaxSessions;
use rekindle::journal::{EventId, EventKind};
use rekindle::memory::MemoryStore;
use rekindle::rng::Rng as _;
use rekindle::session::{Auth, EndReason, Session};
use rekindle::store::*;
use rekindle_postgres::{PostgresConfig, PostgresStore};
use rekindle_testkit::fixtures::*;
use rekindle_testkit::proxy::{Behaviour, Proxy, Way};
use rekindle_testkit::seam::SeededRng;
use rekindle_testkit::servers::postgres::{Postgres, SMALL};
use tokio::time::{Instant, timeout};

/// A store through a proxy.
async fn through_proxy(options: &str) -> (PostgresStore, Proxy) {
    through_proxy_in(&common::new_schema(), options).await
}

async fn through_proxy_in(schema: &str, options: &str) -> (PostgresStore, Proxy) {
    let proxy = Proxy::start(Postgres::shared().port()).await;
    let url = Postgres::shared().url_through(proxy.port(), common::database());
    let config = PostgresConfig::parse(&format!("{url}?schema={schema}{options}")).unwrap();
    (PostgresStore::open(config).await.unwrap(), proxy)
}

fn is_unavailable<T: std::fmt::Debug>(result: &StoreResult<T>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

/// Everything that an intent on a session of `scope` could have left.
async fn traces(store: &dyn Store, session: &Session) -> String {
    let now = at(100);
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        store.sessions(sessions_in(session.scope.clone(), now)).await.unwrap(),
        store.events(events_of(session.id)).await.unwrap(),
        store.user(&session.scope, &session.user_id, now).await.unwrap(),
        store.revocations(Some(&session.scope), 0, now, 1_000).await.unwrap(),
        store.audit_log(None, 1_000).await.unwrap(),
        store.products().await.unwrap(),
    )
}

/// As [`traces`], but all of one moment: what was lost may be carried out meanwhile.
async fn settled_traces(store: &dyn Store, session: &Session) -> String {
    loop {
        let seen = traces(store, session).await;
        if traces(store, session).await == seen {
            return seen;
        }
    }
}

/// An intent as made for a session, to be carried out on any store, any number of times.
type Repeatable = Box<dyn Fn(Arc<dyn Transfer>) -> BoxFuture<'static, StoreResult<()>>>;

/// Carries out an intent through a proxy that loses each piece of it in turn, either way. What is lost leaves nothing or
/// everything, and the intent, repeated until it is answered, leaves what it leaves in the store in memory.
async fn survives_losses(make: impl Fn(&Session) -> Repeatable) {
    let (store, proxy) = through_proxy("&pool_size=2").await;
    let (store, memory): (Arc<dyn Transfer>, Arc<dyn Transfer>) = (Arc::new(store), Arc::new(MemoryStore::new()));
    for way in [Way::Request, Way::Answer] {
        let mut lost = 0;
        for pieces in 0.. {
            // In a scope of its own, so that its traces are told apart.
            let env = format!("{}-{pieces}", if way == Way::Request { "request" } else { "answer" });
            let session = Session { scope: scope_of("shop", &env), ..session("ada") };
            for store in [&store, &memory] {
                store.start(start_once(&session)).await.unwrap();
            }
            let intent = make(&session);
            let before = traces(&*store, &session).await;
            proxy.cut_after(way, pieces);
            let outcome = intent(Arc::clone(&store)).await;
            if proxy.disarm(way) {
                outcome.unwrap();
                intent(Arc::clone(&memory)).await.unwrap();
                break;
            }
            lost += u32::from(is_unavailable(&outcome));
            let after_loss = settled_traces(&*store, &session).await;
            while is_unavailable(&intent(Arc::clone(&store)).await) {}
            intent(Arc::clone(&memory)).await.unwrap();
            let whole = traces(&*memory, &session).await;
            assert_eq!(traces(&*store, &session).await, whole, "{way:?} {pieces}");
            assert!(after_loss == before || after_loss == whole, "{way:?} {pieces}: half done: {after_loss}");
        }
        assert!(lost > 0, "nothing was lost");
    }
}

/// The same start for each store.
fn start_once(session: &Session) -> Start {
    let mut start = start_of(session);
    start.event.id = EventId::from_bytes(session.id.to_bytes());
    start
}

/// Makes a test of each intent; the value is made once, and carried out as often as need be.
macro_rules! survives {
    ($($name:ident: |$session:ident| $value:expr, |$store:ident, $intent:ident| $call:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            survives_losses(|$session| {
                let value = $value;
                Box::new(move |$store| {
                    let $intent = value.clone();
                    Box::pin(async move { $call.await.map(drop) })
                })
            })
            .await;
        })*
    };
}

survives! {
    a_lost_start: |s| {
        let session = Session { id: session_id(), previous_session_id: Some(s.id), ..s.clone() };
        let idempotency = Some(Idempotency { key: s.id.to_bytes().repeat(2).try_into().unwrap(), request: [1; 32], expires_at: at(60) });
        Start { idempotency, max_sessions: Some((1, OnMaxSessions::EndOldest)), ..start_of(&session) }
    }, |store, start| store.start(start);
    a_lost_advance: |s| {
        let mut advance = advance_of(s, at(1));
        advance.event.notify = true;
        advance
    }, |store, advance| store.advance(advance);
    a_lost_elevation: |s| Advance {
        elevation: Some(Elevation { auth: Auth { time: at(1), acr: None, amr: Vec::new() }, feed_until: at(500) }),
        ..advance_of(s, at(1))
    }, |store, advance| store.advance(advance);
    a_lost_fast_forward: |s| FastForward {
        id: s.id,
        scope: s.scope.clone(),
        generation: 0,
        to: position(3, at(1)),
        idle_timeout: IDLE,
        event: event_of(s, EventKind::Refresh, at(1)),
        now: at(1),
    }, |store, fast_forward| store.fast_forward(fast_forward);
    a_lost_confirmation: |s| vec![Confirmation { scope: s.scope.clone(), session_id: s.id, generation: 0 }],
        |store, confirmations| store.confirm(confirmations);
    a_lost_update: |s| update_of(s, r#"{"a":1}"#, at(1)), |store, update| store.update(update);
    a_lost_end: |s| End {
        cause: Some(event_of(s, EventKind::TheftDetected, at(1))),
        audit: Some(audit("session.end", at(1))),
        ..end_of(s, at(1), EndReason::Theft)
    }, |store, end| store.end(end);
    a_lost_end_of_many: |s| EndMany { scope: s.scope.clone(), audit: Some(audit("sessions.end", at(1))), ..end_all(at(1)) },
        |store, end| store.end_many(end);
    a_lost_ban: |s| {
        let mut ban = ban_of("ada", at(1));
        ban.end.scope = s.scope.clone();
        ban
    }, |store, ban| store.ban(ban);
    a_lost_erasure: |s| EraseUser { scope: s.scope.clone(), ..erase_of("ada", at(1)) },
        |store, erase| store.erase_user(erase);
    a_lost_record: |s| vec![event_of(s, EventKind::Refresh, at(1))], |store, events| store.record(events);
    // What a lost connection still locks is left to the next sweep.
    a_lost_sweep: |s| (sweep_at(at(20_000)), s.id), |store, swept| async {
        loop {
            store.sweep(swept.0.clone()).await?;
            if store.session(swept.1).await?.is_none() {
                return Ok(());
            }
        }
    };
    a_lost_change: |s| {
        let environment = Environment { slug: s.scope.env.clone(), name: "\u{0}".into(), active: true };
        (Change::CreateEnvironment(tag("default"), environment), audit("environment.create", at(1)))
    }, |store, change| store.change(change.0, change.1);
    a_lost_put: |s| {
        let idempotency = Some(Idempotency { key: [1; 32], request: [1; 32], expires_at: at(5_000) });
        let session = Session { version: 2, data: object("{}"), ..s.clone() };
        let ban = Ban { at: at(1), until: None, reason: None };
        let (what, seq) = (Revoked::Below(1), Revocation::next_seq(0, at(1)));
        let records = vec![
            Record::Session(Box::new(StoredSession { session, idempotency, events: Held::default() })),
            Record::Ban(StoredBan { scope: s.scope.clone(), user_id: s.user_id.clone(), ban }),
            Record::Revocation(Revocation { seq, scope: s.scope.clone(), session_id: s.id, what, at: at(1), expires_at: at(500) }),
            Record::Audit(audit("put", at(1))),
        ];
        (records, vec![event_of(s, EventKind::Refresh, at(1))])
    }, |store, put| store.put(put.0, put.1);
    a_lost_removal: |s| vec![RecordKey::Session(s.id)], |store, keys| store.remove(keys);
}

#[tokio::test]
async fn a_server_that_stops_is_unavailable_and_comes_back() {
    // What it has committed survives its own end, though not the machine's.
    let mut postgres = Postgres::start(&["fsync=off"]);
    let url = postgres.url(&postgres.new_database());
    let store = PostgresStore::open(PostgresConfig::parse(&url).unwrap()).await.unwrap();
    let mut session = start(&store, session("ada")).await;
    for (signal, secs) in [("QUIT", 1), ("INT", 10)] {
        session = applied(store.advance(advance_of(&session, at(secs))).await.unwrap());
        postgres.server().stop(signal);
        for _ in 0..20 {
            let began = Instant::now();
            let refused = store.advance(advance_of(&session, at(secs + 1))).await;
            assert!(is_unavailable(&refused) && began.elapsed() < Duration::from_secs(1), "{refused:?}");
        }
        postgres.start_again();
        // Every connection is a new one, which has to prepare its statements again.
        session = applied(store.advance(advance_of(&session, at(secs + 1))).await.unwrap());
        assert_eq!(row(&store, session.id).await, session);
    }
}

#[tokio::test]
async fn a_network_that_swallows_everything_is_unavailable_in_time() {
    let (store, proxy) = through_proxy("&pool_size=2&statement_timeout=1&pool_timeout=1").await;
    let session = start(&store, session("ada")).await;
    proxy.set(Behaviour::Hold);
    for _ in 0..3 {
        let answer = timeout(Duration::from_secs(4), store.advance(advance_of(&session, at(1)))).await;
        assert!(is_unavailable(&answer.expect("an answer in time")));
    }
    proxy.set(Behaviour::Forward);
    let moved = applied(store.advance(advance_of(&session, at(2))).await.unwrap());
    assert_eq!(row(&store, session.id).await, moved);
}

#[tokio::test]
async fn a_refresh_is_one_round_trip() {
    let (store, proxy) = through_proxy("&pool_size=1").await;
    // Carried out once without delay, so that the connection has prepared the statement.
    let session = start(&store, session("ada")).await;
    let session = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    let one_way = Duration::from_millis(400);
    proxy.set(Behaviour::Delay(one_way));
    let began = Instant::now();
    applied(store.advance(advance_of(&session, at(2))).await.unwrap());
    assert_eq!(began.elapsed().as_millis() / (2 * one_way).as_millis(), 1);
}

#[tokio::test]
async fn an_empty_pool_is_unavailable_in_time() {
    let (store, proxy) = through_proxy("&pool_size=2&pool_timeout=1").await;
    let store = Arc::new(store);
    let session = start(&*store, session("ada")).await;
    // Both connections are there, and have prepared the statement.
    for _ in 0..2 {
        proxy.set(Behaviour::Delay(Duration::from_millis(20)));
        tokio::try_join!(store.session(session.id), store.session(session.id)).unwrap();
    }
    proxy.set(Behaviour::Delay(Duration::from_millis(1_500)));
    let asks: Vec<_> = (0..4)
        .map(|_| {
            let (store, id) = (Arc::clone(&store), session.id);
            tokio::spawn(async move { store.session(id).await })
        })
        .collect();
    let mut unavailable = Vec::new();
    for ask in asks {
        unavailable.extend(ask.await.unwrap().err());
    }
    let expected = "no connection became free in time: 2 of 2 are in use".to_owned();
    assert_eq!(unavailable, vec![StoreError::Unavailable(expected); 2]);
    assert!(proxy.accepted() <= 4, "{} connections for a pool of two", proxy.accepted());
}

#[tokio::test]
async fn callers_that_go_away_cost_no_connections() {
    let (store, proxy) = through_proxy("&pool_size=2").await;
    let mut session = start(&store, session("ada")).await;
    proxy.set(Behaviour::Delay(Duration::from_millis(5)));
    let before = proxy.accepted();
    for i in 0..40 {
        let update = update_of(&session, "{}", at(1));
        let _ = timeout(Duration::from_millis(i % 20), store.update(update)).await;
        session = row(&store, session.id).await;
    }
    assert!(proxy.accepted() <= before + 1, "{} new connections", proxy.accepted() - before);
}

#[tokio::test]
async fn a_statement_that_waits_too_long_is_unavailable_and_leaves_its_connection() {
    let schema = common::new_schema();
    let (store, _proxy) = through_proxy_in(&schema, "&pool_size=1&statement_timeout=1").await;
    let session = start(&store, session("ada")).await;
    let locking = tokio::task::spawn_blocking(move || {
        let sql = format!("BEGIN; SELECT id FROM {schema}.sessions FOR UPDATE; SELECT pg_sleep(2); COMMIT");
        Postgres::shared().sql(common::database(), &sql)
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let waited = store.advance(advance_of(&session, at(1))).await;
    assert!(is_unavailable(&waited), "{waited:?}");
    assert!(format!("{waited:?}").contains("57014"), "{waited:?}");
    locking.await.unwrap();
    applied(store.advance(advance_of(&session, at(1))).await.unwrap());
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_unavailable_until_it_does() {
    let postgres = Postgres::quick();
    let url = postgres.url(&postgres.new_database());
    let store = PostgresStore::open(PostgresConfig::parse(&url).unwrap()).await.unwrap();
    let session = start(&store, session("ada")).await;
    let read_only = |on: bool| {
        postgres.sql("postgres", &format!("ALTER SYSTEM SET default_transaction_read_only = {on}"));
        postgres.sql("postgres", "SELECT pg_reload_conf()");
    };
    read_only(true);
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..3 {
        assert!(is_unavailable(&store.advance(advance_of(&session, at(1))).await));
        assert!(is_unavailable(&store.ping().await));
    }
    read_only(false);
    tokio::time::sleep(Duration::from_millis(300)).await;
    store.ping().await.unwrap();
    applied(store.advance(advance_of(&session, at(1))).await.unwrap());
}

#[tokio::test]
async fn a_full_disk_is_unavailable_until_there_is_room() {
    let postgres = Postgres::with_small_disk(40 << 20);
    let database = postgres.new_database();
    postgres.sql("postgres", &format!("ALTER DATABASE {database} SET TABLESPACE {SMALL}"));
    let rows = "SELECT repeat('x', 1000) FROM generate_series(1, 10000)";
    postgres.sql("postgres", &format!("CREATE TABLE ballast TABLESPACE {SMALL} AS {rows}"));
    let store = PostgresStore::open(PostgresConfig::parse(&postgres.url(&database)).unwrap()).await.unwrap();
    let (rng, mut random) = (SeededRng::new(1), vec![0; 256 << 10]);
    // What is not random would be compressed.
    let mut large = || {
        rng.fill(&mut random);
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Session { data: object(&format!(r#"{{"text":"{hex}"}}"#)), ..session("ada") }
    };
    let mut started = Vec::new();
    let refused = loop {
        let next = large();
        match store.start(start_of(&next)).await {
            Ok(_) => started.push(next),
            Err(StoreError::Unavailable(why)) => {
                assert!(why.contains("53100"), "{why}");
                break next;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(started.len() < 200, "the disk is not full");
    };
    assert!(started.len() > 5, "{}", started.len());
    for _ in 0..5 {
        assert!(is_unavailable(&store.start(start_of(&large())).await));
        assert!(is_unavailable(&store.start(start_of(&refused)).await));
    }
    // What was acknowledged is there, and of what was refused nothing.
    assert_eq!(store.sessions(sessions_in(scope(), at(1))).await.unwrap().len(), started.len());
    assert_eq!(store.session(refused.id).await, Ok(None));
    assert_eq!(row(&store, started[0].id).await, started[0]);

    postgres.sql("postgres", "DROP TABLE ballast");
    assert_eq!(store.start(start_of(&refused)).await, Ok(Started::Created(Vec::new())));
    applied(store.advance(advance_of(&started[0], at(1))).await.unwrap());
    assert_eq!(store.sessions(sessions_in(scope(), at(1))).await.unwrap().len(), started.len() + 1);
}
