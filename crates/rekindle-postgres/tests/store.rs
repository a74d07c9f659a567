//! The suites that every store runs, and the comparisons with the store in memory, on a real server.

mod common;

use std::sync::Arc;

use rekindle::store::Transfer;
use rekindle_postgres::{PostgresConfig, PostgresStore};
use rekindle_testkit::servers::postgres::Postgres;
use rekindle_testkit::{differential, transfer};

async fn new_store_with(options: &str) -> (Arc<dyn Transfer>, ()) {
    let url = format!("{}?schema={}{options}", Postgres::shared().url(common::database()), common::new_schema());
    (Arc::new(PostgresStore::open(PostgresConfig::parse(&url).unwrap()).await.unwrap()), ())
}

async fn new_store() -> (Arc<dyn Transfer>, ()) {
    new_store_with("&pool_size=8").await
}

/// With one connection: no operation may need a second one.
async fn new_store_alone() -> (Arc<dyn Transfer>, ()) {
    new_store_with("&pool_size=1").await
}

/// On a database that aborts what was not as if one after the other, instead of making it wait.
async fn new_store_serializable() -> (Arc<dyn Transfer>, ()) {
    new_store_with("&pool_size=8&isolation=serializable").await
}

rekindle_testkit::conformance!(new_store);
rekindle_testkit::transfer_suite!(new_store);

mod serializable {
    use super::new_store_serializable;

    rekindle_testkit::conformance!(new_store_serializable);
    rekindle_testkit::transfer_suite!(new_store_serializable);
}

#[test]
fn it_answers_as_the_store_in_memory_does() {
    differential::check(100, new_store_alone);
}

#[test]
fn it_is_copied_as_the_store_in_memory_is() {
    transfer::check(15, new_store_alone);
    transfer::check(15, new_store_serializable);
}
