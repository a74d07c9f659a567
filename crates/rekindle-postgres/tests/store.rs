//! The suite that every store runs, and the comparison with the store in memory, on a real server.

mod common;

use std::sync::Arc;

use proptest::prelude::*;
use rekindle::store::Store;
use rekindle_postgres::{PostgresConfig, PostgresStore};
use rekindle_testkit::differential;
use rekindle_testkit::servers::postgres::Postgres;

async fn new_store_with(options: &str) -> Arc<dyn Store> {
    let url = format!("{}?schema={}{options}", Postgres::shared().url(common::database()), common::new_schema());
    Arc::new(PostgresStore::open(PostgresConfig::parse(&url).unwrap()).await.unwrap())
}

async fn new_store() -> (Arc<dyn Store>, ()) {
    (new_store_with("&pool_size=8").await, ())
}

rekindle_testkit::conformance!(new_store);

/// On a database that aborts what was not as if one after the other, instead of making it wait.
mod serializable {
    use super::*;

    async fn new_store() -> (Arc<dyn Store>, ()) {
        (new_store_with("&pool_size=8&isolation=serializable").await, ())
    }

    rekindle_testkit::conformance!(new_store);
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
