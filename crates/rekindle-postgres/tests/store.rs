//! The suites that every store runs, and the comparisons with the store in memory, on a real server.

mod common;

use std::sync::Arc;

use proptest::prelude::*;
use rekindle::store::Transfer;
use rekindle_postgres::{PostgresConfig, PostgresStore};
use rekindle_testkit::servers::postgres::Postgres;
use rekindle_testkit::{differential, transfer};

async fn new_store_with(options: &str) -> Arc<dyn Transfer> {
    let url = format!("{}?schema={}{options}", Postgres::shared().url(common::database()), common::new_schema());
    Arc::new(PostgresStore::open(PostgresConfig::parse(&url).unwrap()).await.unwrap())
}

async fn new_store() -> (Arc<dyn Transfer>, ()) {
    (new_store_with("&pool_size=8").await, ())
}

rekindle_testkit::conformance!(new_store);
rekindle_testkit::transfer_suite!(new_store);

/// On a database that aborts what was not as if one after the other, instead of making it wait.
mod serializable {
    use super::*;

    async fn new_store() -> (Arc<dyn Transfer>, ()) {
        (new_store_with("&pool_size=8&isolation=serializable").await, ())
    }

    rekindle_testkit::conformance!(new_store);
    rekindle_testkit::transfer_suite!(new_store);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn it_answers_as_the_store_in_memory_does(ops in differential::ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // With one connection: no operation may need a second one.
            differential::agrees_with_memory(new_store_with("&pool_size=1").await, ops).await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn copies_are_what_copies_in_memory_are(ops in differential::ops(), alone in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let options = if alone { "&pool_size=1" } else { "&pool_size=8&isolation=serializable" };
            let (store, empty) = (new_store_with(options).await, new_store_with(options).await);
            transfer::agrees_with_memory(store, empty, ops).await;
        });
    }
}
