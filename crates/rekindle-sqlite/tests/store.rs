//! The suites that every store runs, and the comparisons with the store in memory.

use std::sync::Arc;

use proptest::prelude::*;
use rekindle::clock::Timestamp;
use rekindle::store::Transfer;
use rekindle_sqlite::SqliteStore;
use rekindle_testkit::{differential, transfer};
use tempfile::TempDir;

async fn new_store() -> (Arc<dyn Transfer>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("rekindle.db"), Timestamp::EPOCH).unwrap();
    (Arc::new(store), directory)
}

rekindle_testkit::conformance!(new_store);
rekindle_testkit::transfer_suite!(new_store);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn it_answers_as_the_store_in_memory_does(ops in differential::ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, _directory) = new_store().await;
            differential::agrees_with_memory(store, ops).await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn copies_are_what_copies_in_memory_are(ops in differential::ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let ((store, _directory), (empty, _other)) = (new_store().await, new_store().await);
            transfer::agrees_with_memory(store, empty, ops).await;
        });
    }
}
