//! A Galera cluster whose every node takes writes: the suite and the comparison, with each request on the next node.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use common::open;
use futures_util::future::join_all;
use rekindle::definition::OnMaxSessions;
use rekindle::session::Session;
use rekindle::store::*;
use rekindle_mysql::MysqlStore;
use rekindle_testkit::fixtures::{
    advance_of, applied, at, commitment, events_of, row, scope, session, sessions_in, start, start_of,
};
use rekindle_testkit::servers::mysql::Mysql;

fn nodes() -> &'static [Mysql] {
    static NODES: LazyLock<Vec<Mysql>> = LazyLock::new(|| Mysql::cluster(2));
    &NODES
}

/// Sends each request to the next node.
struct InTurn {
    stores: Vec<Arc<MysqlStore>>,
    next: AtomicUsize,
}

impl Front for InTurn {
    fn behind(&self) -> Arc<dyn Store> {
        self.stores[self.next.fetch_add(1, Ordering::Relaxed) % self.stores.len()].clone()
    }

    async fn around<T: Send>(&self, _: Operation, run: impl Future<Output = StoreResult<T>> + Send) -> StoreResult<T> {
        run.await
    }
}

async fn new_store() -> (Arc<dyn Store>, ()) {
    let database = nodes()[0].new_database();
    let mut stores = Vec::new();
    for node in nodes() {
        stores.push(open(&node.url(&database)).await);
    }
    (Arc::new(InTurn { stores, next: AtomicUsize::new(0) }), ())
}

async fn new_transfer() -> (Arc<dyn Transfer>, ()) {
    (common::new_store(&nodes()[1]).await.0, ())
}

rekindle_testkit::conformance!(new_store);
rekindle_testkit::transfer_suite!(new_transfer);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checks_tell_of_the_cluster() {
    let (store, _) = common::new_store(&nodes()[0]).await;
    let told = store.checks().await.unwrap();
    for expected in ["wsrep_cluster_size = 2", "wsrep_cluster_status = Primary"] {
        assert!(told.iter().any(|check| check.ok && check.text == expected), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_advances_on_all_nodes_one_wins_every_time() {
    let (store, ()) = new_store().await;
    for round in 0..300 {
        let session = start(&*store, session("ada")).await;
        let outcomes = join_all((0..16u8).map(|i| {
            let (store, mut advance) = (Arc::clone(&store), advance_of(&session, at(1)));
            advance.next.commitment = commitment(100 + i);
            tokio::spawn(async move { (commitment(100 + i), store.advance(advance).await.unwrap()) })
        }))
        .await;
        let row = row(&*store, session.id).await;
        for outcome in outcomes {
            match outcome.unwrap() {
                (own, Cas::Applied(told)) => assert_eq!((own, &told), (row.position.commitment, &row), "round {round}"),
                (_, Cas::Stale(told)) => assert_eq!(told.as_ref(), Some(&row), "round {round}"),
            }
        }
        assert_eq!(store.events(events_of(session.id)).await.unwrap().len(), 2, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_maximum_of_sessions_holds_on_all_nodes_every_time() {
    let (store, ()) = new_store().await;
    for round in 0..60 {
        let user = format!("user {round}");
        let outcomes = join_all((0..8).map(|_| {
            let (store, session) = (Arc::clone(&store), session(&user));
            let start = Start { max_sessions: Some((2, OnMaxSessions::Reject)), ..start_of(&session) };
            tokio::spawn(async move { store.start(start).await.unwrap() })
        }))
        .await;
        let created = outcomes.iter().filter(|o| matches!(o, Ok(Started::Created(_)))).count();
        let mut query = sessions_in(scope(), at(1));
        query.user_id = Some(rekindle_testkit::fixtures::user(&user));
        assert_eq!((created, store.sessions(query).await.unwrap().len()), (2, 2), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_open_an_empty_database_on_all_nodes_one_migrates_it() {
    let database = nodes()[0].new_database();
    let urls = (0..8).map(|i| nodes()[i % nodes().len()].url(&database));
    for store in join_all(urls.map(|url| tokio::spawn(async move { open(&url).await }))).await {
        assert_eq!(store.unwrap().products().await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_majority_is_unavailable_until_it_has_it_again() {
    let mut nodes = Mysql::cluster(2);
    let (store, _url) = common::new_store(&nodes[0]).await;
    let session = start(&*store, session("ada")).await;
    nodes[1].server().stop("KILL");
    let outcome = loop {
        // The other node is missed after a few seconds.
        match store.advance(advance_of(&row_or_wait(&store, &session).await, at(1))).await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Err(error) => break error,
        }
    };
    assert!(matches!(outcome, StoreError::Unavailable(_)), "{outcome}");
    assert!(matches!(store.session(session.id).await, Err(StoreError::Unavailable(_))));
    nodes[0].sql("mysql", "SET wsrep_on = 0; SET GLOBAL wsrep_provider_options = 'pc.bootstrap=1'");
    let row = row_or_wait(&store, &session).await;
    applied(store.advance(advance_of(&row, at(1))).await.unwrap());
}

/// The session's row, once the store has an answer; or what it was, if it has none for a while.
async fn row_or_wait(store: &MysqlStore, session: &Session) -> Session {
    for _ in 0..20 {
        match store.session(session.id).await {
            Ok(row) => return row.expect("it was started"),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
    session.clone()
}
