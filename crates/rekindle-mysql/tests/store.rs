//! The suites that every store runs, and the comparisons with the store in memory, on a real server.

mod common;

use std::sync::Arc;

use rekindle::store::Transfer;
use rekindle_testkit::servers::mysql::Mysql;

async fn new_store() -> (Arc<dyn Transfer>, ()) {
    (common::new_store(Mysql::shared()).await.0, ())
}

rekindle_testkit::store_suite!(new_store, cases: 60, copies: 30);
