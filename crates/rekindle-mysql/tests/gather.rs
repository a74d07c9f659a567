//! Refreshes that share a transaction: each has its own answer, and none holds up another.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{new_store, open};
use futures_util::future::join_all;
use rekindle::session::{EndReason, Session};
use rekindle::store::*;
use rekindle_mysql::MysqlStore;
use rekindle_testkit::fixtures::{self, *};
use rekindle_testkit::proxy::{Behaviour, Proxy, Way};
use rekindle_testkit::servers::mysql::Mysql;
use tokio::time::{Instant, sleep};

/// More refreshes than are under way at once.
const PLUGS: usize = 8;

/// A store behind a proxy, one that is not, and their database.
struct Stores {
    proxy: Proxy,
    store: Arc<MysqlStore>,
    direct: Arc<MysqlStore>,
    database: String,
}

impl Stores {
    async fn new() -> Self {
        let server = Mysql::shared();
        let (direct, url) = new_store(server).await;
        let database = url.rsplit('/').next().unwrap().to_owned();
        let proxy = Proxy::start(server.port()).await;
        let store = open(&format!("{}?timeout=4", server.url_through(proxy.port(), &database))).await;
        // The connections are there.
        join_all((0..PLUGS).map(|_| store.ping())).await.into_iter().for_each(Result::unwrap);
        Self { proxy, store, direct, database }
    }

    async fn started(&self, count: usize) -> Vec<Session> {
        join_all((0..count).map(|i| start(&*self.direct, session(&format!("user {i}"))))).await
    }

    /// Asks for all of them while others keep the store busy, so that they go together.
    async fn together(&self, advances: Vec<Advance>) -> Vec<StoreResult<Cas>> {
        let plugs = self.started(PLUGS).await.into_iter().map(|session| advance_of(&session, at(1)));
        self.proxy.set(Behaviour::Hold);
        let store = Arc::clone(&self.store);
        let asked: Vec<Advance> = plugs.chain(advances).collect();
        let asked =
            tokio::spawn(async move { join_all(asked.into_iter().map(|advance| store.advance(advance))).await });
        sleep(Duration::from_millis(50)).await;
        self.proxy.set(Behaviour::Forward);
        asked.await.unwrap().split_off(PLUGS)
    }

    async fn events(&self, session: &Session) -> usize {
        self.direct.events(events_of(session.id)).await.unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_refreshes_take_few_round_trips() {
    let stores = Stores::new().await;
    let sessions = stores.started(50).await;
    let advances: Vec<Advance> = sessions.iter().map(|session| advance_of(session, at(1))).collect();
    let before = stores.proxy.passed(Way::Request);
    let outcomes = stores.together(advances.clone()).await;
    for (outcome, advance) in outcomes.into_iter().zip(&advances) {
        let moved = applied(outcome.unwrap());
        assert_eq!((moved.id, moved.position), (advance.id, advance.next));
        assert_eq!(row(&*stores.direct, advance.id).await, moved);
    }
    let passed = stores.proxy.passed(Way::Request) - before;
    assert!(passed <= 16, "{passed} pieces");
    for session in &sessions {
        assert_eq!(stores.events(session).await, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_refreshes_of_one_session_that_go_together_one_moves_it() {
    let stores = Stores::new().await;
    let session = stores.started(1).await.remove(0);
    let (first, mut second) = (advance_of(&session, at(1)), advance_of(&session, at(1)));
    second.next.commitment = commitment(100);
    let outcomes = stores.together(vec![first.clone(), second]).await;
    let row = row(&*stores.direct, session.id).await;
    assert_eq!(row.position, first.next);
    assert_eq!(outcomes, [Ok(Cas::Applied(row.clone())), Ok(Cas::Stale(Some(row.clone())))]);
    assert_eq!(stores.events(&session).await, 2);
    // One that goes on from the other, where they go together: if the server skips the row as locked, each goes by itself, and
    // the later one may come first.
    let mut row = row;
    for tried in 1.. {
        let third = advance_of(&row, at(2));
        let after = Session { position: third.next, ..row.clone() };
        let fourth = advance_of(&after, at(3));
        let outcomes = stores.together(vec![third.clone(), fourth.clone()]).await;
        let [moved, then] = outcomes.try_into().unwrap();
        assert_eq!(applied(moved.unwrap()).position, third.next);
        row = fixtures::row(&*stores.direct, session.id).await;
        assert_eq!(stores.events(&session).await as u32, 1 + row.position.generation);
        if let Cas::Applied(moved) = then.unwrap() {
            assert_eq!((moved.position, row.position), (fourth.next, fourth.next));
            break;
        }
        assert_eq!(row.position, third.next);
        assert!(tried < 5, "they never went together");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_one_among_good_ones_spoils_only_itself() {
    let stores = Stores::new().await;
    let sessions = stores.started(12).await;
    let mut advances: Vec<Advance> = sessions.iter().map(|session| advance_of(session, at(1))).collect();
    advances[1].scope = scope_of("other", "dev");
    advances[2].tag = tag("other");
    advances[3].generation = 7;
    advances[4].commitment = commitment(77);
    advances[5].now = sessions[5].idle_expires_at;
    applied(stores.direct.end(end_of(&sessions[6], at(1), EndReason::Revoked)).await.unwrap());
    advances[7].id = session_id();
    advances[8].event.notify = true;
    let mut before = Vec::new();
    for session in &sessions {
        before.push(row(&*stores.direct, session.id).await);
    }
    for damaged in [false, true] {
        if damaged {
            // One that cannot be read concerns nobody else either.
            let id: String = sessions[9].id.to_bytes().iter().map(|b| format!("{b:02X}")).collect();
            let damage = format!("UPDATE sessions SET tag = 'No Tag' WHERE id = X'{id}'");
            Mysql::shared().sql(&stores.database, &damage);
            for i in [0, 8, 9, 10, 11] {
                advances[i] = advance_of(&before[i], at(2));
            }
        }
        let outcomes = stores.together(advances.clone()).await;
        for (i, outcome) in outcomes.into_iter().enumerate() {
            match i {
                1..=6 => assert_eq!(stale(outcome.unwrap()).as_ref(), Some(&before[i]), "{i}"),
                7 => assert_eq!(outcome, Ok(Cas::Stale(None))),
                9 if damaged => {
                    assert!(matches!(outcome, Err(StoreError::Corrupt { column: "tag", .. })), "{outcome:?}")
                }
                _ => {
                    let moved = applied(outcome.unwrap());
                    assert_eq!((moved.id, moved.position), (advances[i].id, advances[i].next), "{i}");
                    assert_eq!(row(&*stores.direct, moved.id).await, moved);
                    before[i] = moved;
                }
            }
        }
    }
    let told = stores.direct.take_notifications(at(9), at(10), 10).await.unwrap();
    assert_eq!(told.iter().map(|n| n.event.session_id).collect::<Vec<_>>(), [Some(sessions[8].id)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshes_that_are_cut_off_together_are_each_whole_or_not_at_all() {
    let stores = Stores::new().await;
    for way in [Way::Request, Way::Answer] {
        for pieces in 0.. {
            let sessions = stores.started(10).await;
            let advances: Vec<Advance> = sessions.iter().map(|session| advance_of(session, at(1))).collect();
            stores.proxy.cut_after(way, pieces);
            let outcomes = stores.together(advances.clone()).await;
            // What was sent is carried out even if nobody is there for the answer.
            sleep(Duration::from_millis(20)).await;
            for ((session, advance), outcome) in sessions.iter().zip(advances).zip(outcomes) {
                let row = row(&*stores.direct, session.id).await;
                assert_eq!(stores.events(session).await as u32, 1 + row.position.generation);
                match outcome {
                    Ok(cas) => assert_eq!(applied(cas), row),
                    Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error}"),
                }
                match stores.direct.advance(advance).await.unwrap() {
                    Cas::Applied(_) => assert_eq!(row.position.generation, 0),
                    Cas::Stale(found) => assert_eq!((found.as_ref(), row.position.generation), (Some(&row), 1)),
                }
            }
            if stores.proxy.disarm(way) {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_session_holds_up_nobody_else() {
    let stores = Stores::new().await;
    let sessions = stores.started(30).await;
    let (url, id) = (Mysql::shared().url(&stores.database), sessions[3].id);
    let holder = tokio::spawn(async move {
        use mysql_async::prelude::Queryable as _;
        let mut connection = mysql_async::Conn::from_url(url).await.unwrap();
        let id: String = id.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
        let lock = format!("BEGIN; SELECT id FROM sessions WHERE id = X'{id}' FOR UPDATE; DO SLEEP(1.5); ROLLBACK");
        connection.query_drop(lock).await.unwrap();
    });
    sleep(Duration::from_millis(200)).await;
    let (began, store) = (Instant::now(), &stores.store);
    let locked = join_all((0..PLUGS).map(|_| store.advance(advance_of(&sessions[3], at(1)))));
    let others = async {
        sleep(Duration::from_millis(50)).await;
        let others = sessions.iter().filter(|session| session.id != id);
        let outcomes = join_all(others.map(|session| store.advance(advance_of(session, at(1))))).await;
        outcomes.into_iter().for_each(|outcome| drop(applied(outcome.unwrap())));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    };
    let (locked, ()) = tokio::join!(locked, others);
    assert_eq!(locked.iter().filter(|outcome| matches!(outcome, Ok(Cas::Applied(_)))).count(), 1);
    assert!(locked.iter().all(Result::is_ok), "{locked:?}");
    assert_eq!(stores.events(&sessions[3]).await, 2);
    holder.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_alone_is_one_round_trip() {
    let stores = Stores::new().await;
    let session = stores.started(1).await.remove(0);
    let one_way = Duration::from_millis(400);
    stores.proxy.set(Behaviour::Delay(one_way));
    let began = Instant::now();
    applied(stores.store.advance(advance_of(&session, at(1))).await.unwrap());
    assert_eq!(began.elapsed().as_millis() / (2 * one_way).as_millis(), 1);
}
