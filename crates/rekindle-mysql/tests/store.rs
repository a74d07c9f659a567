//! The suite that every store runs, and the comparison with the store in memory, on a real server.

mod common;

use std::sync::Arc;

use proptest::prelude::*;
use rekindle::store::{Store, Transfer};
use rekindle_testkit::servers::mysql::Mysql;
use rekindle_testkit::{differential, transfer};

async fn new_store() -> (Arc<dyn Store>, ()) {
    (common::new_store(Mysql::shared()).await.0, ())
}

async fn new_transfer() -> (Arc<dyn Transfer>, ()) {
    (common::new_store(Mysql::shared()).await.0, ())
}

rekindle_testkit::conformance!(new_store);
rekindle_testkit::transfer_suite!(new_transfer);

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn its_copies_are_those_of_the_store_in_memory(ops in differential::ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ((store, ()), (empty, ())) = (new_transfer().await, new_transfer().await);
            transfer::agrees_with_memory(store, empty, ops).await;
        });
    }
}
