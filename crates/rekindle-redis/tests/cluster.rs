//! The suites that every store runs, and the comparisons with the store in memory, on a cluster.

use std::sync::Arc;

use rekindle::store::Transfer;
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_testkit::servers::redis::Cluster;

async fn new_store() -> (Arc<dyn Transfer>, ()) {
    let config = RedisConfig::parse(&Cluster::shared().new_url()).unwrap();
    (Arc::new(RedisStore::open(config).await.unwrap()), ())
}

rekindle_testkit::store_suite!(new_store, cases: 30, copies: 10);
