//! The suites that every store runs, and the comparisons with the store in memory.

use std::sync::Arc;

use rekindle::clock::Timestamp;
use rekindle::store::Transfer;
use rekindle_sqlite::SqliteStore;
use tempfile::TempDir;

async fn new_store() -> (Arc<dyn Transfer>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("rekindle.db"), Timestamp::EPOCH).unwrap();
    (Arc::new(store), directory)
}

rekindle_testkit::store_suite!(new_store, cases: 300, copies: 30);
