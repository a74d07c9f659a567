//! The suite that every store runs, and the comparison with the store in memory, on a cluster.

use std::sync::Arc;

use proptest::prelude::*;
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_testkit::servers::redis::Cluster;
use rekindle_testkit::{differential, transfer};

async fn new_store() -> (Arc<RedisStore>, ()) {
    let config = RedisConfig::parse(&Cluster::shared().new_url()).unwrap();
    (Arc::new(RedisStore::open(config).await.unwrap()), ())
}

rekindle_testkit::conformance!(new_store);
rekindle_testkit::transfer_suite!(new_store);

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn it_is_copied_as_the_store_in_memory_is(ops in differential::ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ((store, ()), (empty, ())) = (new_store().await, new_store().await);
            transfer::agrees_with_memory(store, empty, ops).await;
        });
    }
}
