//! The suite that every store runs, and the comparison with the store in memory, on a real server.

mod common;

use std::sync::Arc;

use proptest::prelude::*;
use rekindle::store::Store;
use rekindle_testkit::differential;
use rekindle_testkit::servers::mysql::Mysql;

async fn new_store() -> (Arc<dyn Store>, ()) {
    (common::new_store(Mysql::shared()).await.0, ())
}

rekindle_testkit::conformance!(new_store);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn it_answers_as_the_store_in_memory_does(ops in differential::ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (store, ()) = new_store().await;
            differential::agrees_with_memory(store, ops).await;
        });
    }
}
