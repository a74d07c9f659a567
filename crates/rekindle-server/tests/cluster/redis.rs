//! A Redis Cluster of three masters and three replicas loses a master.

use std::time::Duration;

use rekindle_testkit::servers::redis::Cluster;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::history::{Millis, Outage};
use crate::load::Load;
use crate::site::Site;
use crate::{ALONE, judge, rounds};

/// How old the youngest write may be that a replica is sure to have.
const LAG: Millis = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_redis_cluster_dies() {
    let _alone = ALONE.lock().await;
    for round in 0..rounds() {
        let mut cluster = block_in_place(Cluster::start);
        let url = cluster.new_url();
        let site = Site::start([&url, &url]).await;
        let load = Load::start(&site, round);
        sleep(Duration::from_secs(5)).await;

        block_in_place(|| cluster.nodes()[0].server().stop("KILL"));
        let began = site.now();
        let over = site.serves().await;
        sleep(Duration::from_secs(5)).await;

        let in_danger_since = Some(began.saturating_sub(LAG));
        judge("Redis Cluster", round, &site, load, &Outage { began, over, in_danger_since }).await;
    }
}
