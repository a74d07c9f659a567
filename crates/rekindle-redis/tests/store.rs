//! The suites that every store runs, and the comparisons with the store in memory, on one server.

use std::sync::Arc;

use rekindle::store::Transfer;
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_testkit::servers::redis::Redis;

async fn new_store() -> (Arc<dyn Transfer>, ()) {
    let config = RedisConfig::parse(&Redis::shared().new_url()).unwrap();
    (Arc::new(RedisStore::open(config).await.unwrap()), ())
}

rekindle_testkit::store_suite!(new_store, cases: 100, copies: 30);
