//! Stores for tests.

use std::sync::Arc;

use rekindle::clock::Timestamp;
use rekindle_mysql::{MysqlConfig, MysqlStore};
use rekindle_testkit::servers::mysql::Mysql;

/// A store at a URL.
pub async fn open(url: &str) -> Arc<MysqlStore> {
    Arc::new(MysqlStore::open(MysqlConfig::parse(url).unwrap(), Timestamp::EPOCH).await.unwrap())
}

/// A store in a database of its own; with the URL.
pub async fn new_store(server: &Mysql) -> (Arc<MysqlStore>, String) {
    let url = server.url(&server.new_database());
    (open(&url).await, url)
}
