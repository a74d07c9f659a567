//! How the server carries statements out: by indexes, looking at no more rows than need be, and without bloat.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rekindle::definition::OnMaxSessions;
use rekindle::journal::EventId;
use rekindle::session::{EndReason, SessionId};
use rekindle::store::*;
use rekindle_postgres::{PostgresConfig, PostgresStore};
use rekindle_testkit::fixtures::*;
use rekindle_testkit::servers::postgres::Postgres;

/// Sessions beyond those that a test looks at: of users `user-0` to `user-999`, in ten scopes.
const OTHERS: u64 = 30_000;

/// A server that logs how it carries out each statement, with the rows that it meets.
fn explaining() -> Postgres {
    Postgres::start(&[
        "fsync=off",
        "shared_preload_libraries=auto_explain",
        "auto_explain.log_min_duration=0",
        "auto_explain.log_analyze=on",
        "auto_explain.log_timing=off",
    ])
}

async fn open(postgres: &Postgres, database: &str) -> PostgresStore {
    let url = format!("{}?pool_size=2", postgres.url(database));
    PostgresStore::open(PostgresConfig::parse(&url).unwrap()).await.unwrap()
}

/// Adds the others, with an event, a revocation and an idempotency key each, and makes the planner know of them.
fn populate(postgres: &Postgres, database: &str) {
    let columns = "generation, commitment, issued_at, kid, confirmed, min_generation, idle_expires_at, expires_at, created_at,
                   ended_at, ended_reason, version, tag, definition_version, previous_session_id, auth, client, claims, data";
    postgres.sql(
        database,
        &format!(
            "SET search_path = rekindle;
             INSERT INTO sessions (id, scope, user_id, {columns})
                 SELECT gen_random_uuid(), convert_to('shop/env-' || n % 10, 'UTF8'), convert_to('user-' || n % 1000, 'UTF8'),
                     {columns} FROM sessions, generate_series(1, {OTHERS}) AS n;
             INSERT INTO events SELECT id, gen_random_uuid(), created_at, 'session.start', NULL, 0, '{{}}' FROM sessions;
             INSERT INTO idempotency
                 SELECT scope, uuid_send(id) || uuid_send(id), uuid_send(id) || uuid_send(id), id, 4000000000000 FROM sessions;
             INSERT INTO revocations (seq, scope, session_id, below_generation, at, expires_at)
                 SELECT row_number() OVER (), scope, id, 1, 1, 4000000000000 FROM sessions;
             UPDATE feed SET last_seq = {OTHERS} + 10;
             ANALYZE"
        ),
    );
}

/// Adds bans, notifications and entries of the audit log: copies of the first ones, under other ids.
fn populate_sections(postgres: &Postgres, database: &str) {
    postgres.sql(
        database,
        &format!(
            "SET search_path = rekindle;
             INSERT INTO bans SELECT DISTINCT scope, user_id, 1, NULL::bigint, NULL FROM sessions;
             INSERT INTO outbox SELECT n.id, scope, session_id, due, attempts, replace(event, o.id::text, n.id::text)
                 FROM (SELECT * FROM outbox LIMIT 1) AS o,
                     (SELECT gen_random_uuid() AS id FROM generate_series(1, {OTHERS})) AS n;
             INSERT INTO audit SELECT n.id, replace(entry, a.id::text, n.id::text)
                 FROM (SELECT * FROM audit LIMIT 1) AS a,
                     (SELECT gen_random_uuid() AS id FROM generate_series(1, {OTHERS})) AS n;
             ANALYZE"
        ),
    );
}

/// The greatest number of rows that a step of the plans in a log met, kept or dropped, and the plans themselves.
fn most_rows(log: &str) -> u64 {
    let numbers = |marker: &'static str| {
        log.match_indices(marker).map(move |(at, _)| {
            let digits: String = log[at + marker.len()..].chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        })
    };
    numbers("(actual rows=").chain(numbers("Rows Removed by Filter: ")).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_meet_no_more_rows_than_they_need() {
    let mut postgres = explaining();
    let database = postgres.new_database();
    let store = Arc::new(open(&postgres, &database).await);
    let ada = start(&*store, session("ada")).await;
    populate(&postgres, &database);
    let second = start(&*store, session("ada")).await;
    let mut read = postgres.server().log().len();

    macro_rules! meets {
        ($most:literal, $call:expr) => {
            $call.await.unwrap();
            let log = postgres.server().log();
            let (new, most) = (&log[read..], most_rows(&log[read..]));
            assert!(new.contains("(actual rows="), "{}: no plan was logged", stringify!($call));
            assert!(most <= $most, "{} meets {most} rows:\n{new}", stringify!($call));
            assert!(!new.contains("Seq Scan on sessions") && !new.contains("Seq Scan on events"), "{new}");
            #[allow(unused_assignments)]
            {
                read = log.len();
            }
        };
    }

    meets!(1, store.session(ada.id));
    let max_sessions = Some((5, OnMaxSessions::Reject));
    let third = Start { max_sessions, ..start_of(&session("ada")) };
    meets!(2, store.start(third));
    meets!(1, store.advance(advance_of(&ada, at(1))));
    meets!(1, store.advance(advance_of(&ada, at(1))));
    let confirmation = Confirmation { scope: scope(), session_id: ada.id, generation: 1 };
    meets!(1, store.confirm(vec![confirmation]));
    meets!(1, store.update(update_of(&ada, "{}", at(2))));
    meets!(1, store.record(vec![event_of(&ada, rekindle::journal::EventKind::Refresh, at(2))]));
    meets!(5, store.events(events_of(ada.id)));
    meets!(1, store.end(end_of(&second, at(2), EndReason::SignedOut)));
    meets!(3, store.sessions(SessionQuery { user_id: Some(user("ada")), ..sessions_in(scope(), at(3)) }));
    meets!(3, store.user(&scope(), &user("ada"), at(3)));
    let users = UserQuery { scope: scope_of("shop", "env-3"), after: Some(user("user-50")), limit: 10, now: at(3) };
    // Three hundred sessions make the ten users, and one more is met to see that the tenth is whole.
    meets!(310, store.users(users));
    meets!(10, store.revocations(None, OTHERS - 100, at(3), 10));
    meets!(101, store.sweep(Sweep { budget: 100, after: Some(ada.id), ..sweep_at(at(3)) }));
    let page = SessionQuery {
        before: Some(SessionId::from_bytes([0x80; 16])),
        limit: 5,
        ..sessions_in(scope_of("shop", "env-3"), at(3))
    };
    meets!(3_100, store.sessions(page));
    meets!(20_001, store.end_many(EndMany { limit: 50, ..end_all(at(3)) }));
    meets!(3, store.end_many(end_all_of("ada", at(4))));
    meets!(3, store.ban(ban_of("ada", at(4))));
    meets!(10, store.erase_user(erase_of("ada", at(4))));
    let notify =
        Start { event: rekindle::journal::Event { notify: true, ..start_of(&ada).event }, ..start_of(&session("bob")) };
    meets!(1, store.start(notify));
    meets!(1, store.take_notifications(at(5), at(6), 10));

    populate_sections(&postgres, &database);
    read = postgres.server().log().len();
    let middle = [0x80; 16];
    let session = RecordKey::Session(SessionId::from_bytes(middle));
    let (notification, audit) = (EventId::from_bytes(middle), EventId::from_bytes(middle));
    meets!(10, store.records(Section::Sessions, None, 10));
    meets!(10, store.records(Section::Sessions, Some(session.clone()), 10));
    let page = store.records(Section::Sessions, Some(session), 10).await.unwrap();
    let ids: Vec<_> =
        page.iter().map(|r| (SessionId::from_bytes(r.key().to_bytes().try_into().unwrap()), None)).collect();
    meets!(10, store.events_after(ids));
    meets!(10, store.records(Section::Bans, None, 10));
    meets!(10, store.records(Section::Bans, Some(RecordKey::Ban(scope_of("shop", "env-3"), user("user-3"))), 10));
    meets!(10, store.records(Section::Revocations, Some(RecordKey::Revocation(OTHERS / 2)), 10));
    meets!(10, store.records(Section::Notifications, Some(RecordKey::Notification(notification)), 10));
    meets!(10, store.records(Section::Audit, Some(RecordKey::Audit(audit)), 10));
    meets!(10, store.remove(page[..5].iter().map(Record::key).collect()));
    meets!(10, store.put(page[5..].to_vec(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshes_stay_on_their_pages() {
    const SESSIONS: usize = 1_000;
    const ROUNDS: u64 = 30;
    let postgres = Postgres::quick();
    let database = postgres.new_database();
    let store = Arc::new(open(&postgres, &database).await);
    let size =
        |of: &str| -> u64 { postgres.sql(&database, &format!("SELECT {of}('rekindle.sessions')")).parse().unwrap() };
    let mut sessions = Vec::new();
    for i in 0..SESSIONS {
        sessions.push(start(&*store, session(&format!("user-{i}"))).await);
    }
    let (table, indexes) = (size("pg_relation_size"), size("pg_indexes_size"));
    // Not in the order in which they lie on their pages: sessions are not refreshed as they were started.
    let mut sessions: Vec<_> = (0..SESSIONS).map(|i| sessions[i * 389 % SESSIONS].clone()).collect();
    for secs in 1..=ROUNDS {
        // Some at once, as it happens: what one transaction replaces makes room only after its end.
        for some in sessions.chunks_mut(50) {
            let moves = join_all(some.iter().map(|s| store.advance(advance_of(s, at(secs))))).await;
            some.iter_mut().zip(moves).for_each(|(session, cas)| *session = applied(cas.unwrap()));
        }
    }
    let grown = size("pg_relation_size") as f64 / table as f64;

    assert!(grown <= 1.5, "the table grew {grown:.2}-fold in {ROUNDS} rounds");
    // An update that does not fit on its page has an entry in each index.
    let grown = size("pg_indexes_size") as f64 / indexes as f64;
    assert!(grown <= 1.5, "the indexes grew {grown:.2}-fold in {ROUNDS} rounds");
    // Connections report what they did once they have nothing to do.
    drop(store);
    let updates = ROUNDS * SESSIONS as u64;
    let stats = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'sessions'";
    loop {
        let stats = postgres.sql(&database, stats);
        let (all, hot) = stats.split_once('|').unwrap();
        let (all, hot): (u64, u64) = (all.parse().unwrap(), hot.parse().unwrap());
        if all >= updates {
            assert!(hot * 100 >= all * 95, "{hot} of {all} updates stayed on their page");
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
