//! Two Rekindle servers on a cluster of real database servers, one of which dies under load; and on a store that is copied to
//! another kind of store under load. Whatever every client saw is written down and judged.

mod history;
mod load;
mod moves;
mod mysql;
mod postgres;
#[path = "../serve/process.rs"]
#[expect(dead_code, reason = "the tests of one server use the rest")]
mod process;
mod redis;
mod site;

use std::io::Write as _;

use history::{Outage, Verdict, check};
use load::Load;
use site::Site;
use tokio::sync::Mutex;

/// One run at a time: its times are worth nothing beside another.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How often each scenario runs.
fn rounds() -> u64 {
    if std::env::var_os("REKINDLE_FULL").is_some() { 10 } else { 1 }
}

/// Ends the load, and judges what was seen of a node's death: the verdict, which is printed, too.
async fn judge(name: &str, round: u64, site: &Site, load: Load, outage: &Outage) -> Verdict {
    let verdict = check(&load.stop().await, std::slice::from_ref(outage));
    let after = outage.over.map(|over| (over - outage.began) as f64 / 1000.0);
    say(&format!(
        "{name}, round {round}: a node died after {:.1} s; the servers served everything again {:.1} s and {:.1} s later; no \
         request took longer than {:.1} s, repeats included; {verdict}",
        outage.began as f64 / 1000.0,
        after[0],
        after[1],
        site.longest_wait() as f64 / 1000.0,
    ));
    assert_worth(name, &verdict);
    verdict
}

/// That nothing was wrong, and that enough was seen to tell.
fn assert_worth(name: &str, verdict: &Verdict) {
    assert!(verdict.faults.is_empty(), "{name}: {verdict}");
    let enough = [("refresh", 150), ("verify", 50), ("write", 20), ("revoke", 10), ("start", 30)];
    for (asked, least) in enough {
        let n = verdict.count(asked, "answered");
        assert!(n >= least, "{name}: only {n} of {asked} were answered, which are too few to tell");
    }
    let cut = verdict.count("refresh", "unanswered");
    assert!(cut >= 5 && verdict.thefts >= 1, "{name}: {cut} refreshes without an answer, {} thefts", verdict.thefts);
}

/// Not by a macro that the test's harness keeps for itself: this is for whoever runs the tests.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
