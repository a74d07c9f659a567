//! The suite that every store runs, and the comparison with the store in memory, on a cluster.

use std::sync::Arc;

use proptest::prelude::*;
use rekindle::store::Store;
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_testkit::differential;
use rekindle_testkit::servers::redis::Cluster;

async fn new_store() -> (Arc<dyn Store>, ()) {
    let config = RedisConfig::parse(&Cluster::shared().new_url()).unwrap();
    (Arc::new(RedisStore::open(config).await.unwrap()), ())
}

rekindle_testkit::conformance!(new_store);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn it_answers_as_the_store_in_memory_does(ops in differential::ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (store, ()) = new_store().await;
            differential::agrees_with_memory(store, ops).await;
        });
    }
}
