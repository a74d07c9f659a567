//! What an operator should know of the server: settings that weaken the store's promises.

use std::collections::HashMap;

use rekindle::store::{Check, StoreResult};

use crate::pool::Pool;
use crate::row::Table;

/// The least `max_allowed_packet` with room for the largest session, whose bytes are written as hexadecimal digits.
const LEAST_PACKET: u64 = 8 << 20;

/// Variables and status values, by name; a server tells of those that it has.
const VALUES: Table = Table { name: "variables", columns: &["name", "value"], id: 0 };

pub(crate) async fn checks(pool: &Pool, connections: u32) -> StoreResult<Vec<Check>> {
    let variables = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'innodb_flush_log_at_trx_commit', 'log_bin', \
         'sync_binlog', 'binlog_format', 'max_allowed_packet', 'max_connections')";
    let cluster = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_status', 'wsrep_cluster_size')";
    let mut answers = pool.ask(vec![variables.into(), cluster.into()]).await?;
    let mut values: HashMap<String, String> = HashMap::new();
    for _ in 0..2 {
        values.extend(answers.all(&VALUES, |row| Ok((row.text("name")?, row.text("value")?)))?);
    }
    Ok(judge(&values, connections))
}

fn judge(values: &HashMap<String, String>, connections: u32) -> Vec<Check> {
    let value = |name: &str| values.get(name).map(String::as_str);
    // What a server does not have cannot be set wrongly.
    let expect = |name: &str, is_right: &dyn Fn(&str) -> bool, otherwise: &str| {
        let found = value(name)?;
        let (ok, text) = (is_right(found), format!("{name} = {found}"));
        Some(Check { ok, text: if ok { text } else { format!("{text}: {otherwise}") } })
    };
    let at_least = |least: u64| move |found: &str| found.parse().is_ok_and(|n: u64| n >= least);
    let more_connections =
        format!("this process alone uses up to {connections}; raise it, or lower `connections` in the URL");
    let mut checks = vec![
        expect("version", &|_| true, ""),
        expect("innodb_flush_log_at_trx_commit", &|v| v == "1", "answered writes may be lost; set it to 1"),
        expect(
            "max_allowed_packet",
            &at_least(LEAST_PACKET),
            "the largest sessions cannot be written; set it to 16777216",
        ),
        expect("max_connections", &at_least(u64::from(connections) + 1), &more_connections),
    ];
    if value("log_bin") == Some("ON") {
        checks.push(expect("sync_binlog", &|v| v == "1", "replicas may differ after a crash; set it to 1"));
        checks.push(expect("binlog_format", &|v| v != "STATEMENT", "set it to ROW, or every write is refused"));
    }
    // Elsewhere than on a cluster, its size is 0 or unknown.
    if value("wsrep_cluster_size").is_some_and(|size| size != "0") {
        checks.push(expect("wsrep_cluster_size", &|_| true, ""));
        checks.push(expect(
            "wsrep_cluster_status",
            &|v| v == "Primary",
            "this node takes no requests; look at its network and at the other nodes",
        ));
    }
    checks.into_iter().flatten().collect()
}
