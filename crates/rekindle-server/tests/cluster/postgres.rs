//! A primary dies, and its standby, which lacks the last writes, is promoted.

use std::time::Duration;

use rekindle_testkit::proxy::{Behaviour, Proxy};
use rekindle_testkit::servers::postgres::Postgres;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::history::{Millis, Outage};
use crate::load::Load;
use crate::site::Site;
use crate::{ALONE, judge, rounds};

/// How old the youngest write may be that the standby is sure to have when nothing holds it up.
const LAG: Millis = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_dies_and_its_standby_is_promoted() {
    let _alone = ALONE.lock().await;
    for round in 0..rounds() {
        let (mut primary, database) = block_in_place(|| {
            let primary = Postgres::start(&["fsync=off", "full_page_writes=off"]);
            let database = primary.new_database();
            (primary, database)
        });
        let replication = Proxy::start(primary.port()).await;
        let standby = block_in_place(|| primary.standby(replication.port()));
        let hosts = format!("127.0.0.1:{},127.0.0.1:{}/", primary.port(), standby.port());
        let url = primary.url(&database).replace(&format!("127.0.0.1:{}/", primary.port()), &hosts);
        let site = Site::start([&url, &url]).await;
        let load = Load::start(&site, round);
        sleep(Duration::from_secs(5)).await;

        // The writes of the next moments stay on the way to the standby, and are lost.
        let held_up = site.now();
        replication.set(Behaviour::Hold);
        sleep(Duration::from_millis(600)).await;
        block_in_place(|| primary.server().stop("KILL"));
        let began = site.now();
        replication.cut();
        sleep(Duration::from_millis(500)).await;
        block_in_place(|| standby.promote());
        let over = site.serves().await;
        sleep(Duration::from_secs(5)).await;

        let outage = Outage { began, over, in_danger_since: Some(held_up.saturating_sub(LAG)) };
        let verdict = judge("PostgreSQL", round, &site, load, &outage).await;
        assert!(verdict.lost_starts + verdict.lost_writes > 0, "nothing was lost: the standby had everything");
    }
}
