//! A Galera cluster of three loses a node, and gets it back.

use std::time::Duration;

use rekindle_testkit::servers::mysql::Mysql;
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::sleep;

use crate::history::Outage;
use crate::load::Load;
use crate::site::Site;
use crate::{ALONE, judge, rounds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_galera_dies_and_comes_back() {
    let _alone = ALONE.lock().await;
    for round in 0..rounds() {
        let mut nodes = block_in_place(|| Mysql::cluster(3));
        let database = block_in_place(|| nodes[0].new_database());
        // Each server has a node of its own; the third one makes the majority.
        let site = Site::start([&nodes[0].url(&database), &nodes[1].url(&database)]).await;
        let load = Load::start(&site, round);
        sleep(Duration::from_secs(3)).await;

        let mut dying = nodes.remove(1);
        block_in_place(|| dying.server().stop("KILL"));
        let began = site.now();
        let back = spawn_blocking(move || {
            dying.start_again();
            dying
        });
        let over = site.serves().await;
        let _back = back.await.expect("the node starts again");
        sleep(Duration::from_secs(3)).await;

        judge("Galera", round, &site, load, &Outage { began, over, in_danger_since: None }).await;
        let members = nodes[0].sql("mysql", "SHOW STATUS LIKE 'wsrep_cluster_size'");
        assert!(members.ends_with("\t3"), "{members}");
    }
}
