//! How the servers are set, for the doctor.

use std::collections::BTreeMap;

use redis::{RedisResult, Value};
use rekindle::store::Check;

use crate::Inner;
use crate::config::Topology;

/// The oldest version that has what the scripts use.
const OLDEST: u32 = 7;

impl Inner {
    pub(crate) async fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.version().await, self.eviction().await];
        checks.push(self.durability().await);
        checks.push(self.journal().await);
        if self.link.config().topology == Topology::Cluster {
            checks.push(self.cluster().await);
        }
        checks
    }

    async fn version(&self) -> Check {
        check("version", self.info("server").await, |infos| {
            let version = |info: &BTreeMap<String, String>| {
                info.get("valkey_version").or(info.get("redis_version")).cloned().unwrap_or_else(|| "unknown".into())
            };
            let major = |version: &str| version.split('.').next().and_then(|n| n.parse::<u32>().ok());
            let versions: Vec<String> = infos.iter().map(version).collect();
            match versions.iter().find(|v| major(v).is_none_or(|major| major < OLDEST)) {
                None => (true, versions.join(", ")),
                Some(old) => (false, format!("{old} is older than {OLDEST}.0, or not known; use a newer server")),
            }
        })
    }

    async fn eviction(&self) -> Check {
        check("maxmemory-policy", self.settings("maxmemory-policy").await, |policies| {
            match policies.iter().find(|policy| *policy != "noeviction") {
                None => (true, "noeviction".into()),
                Some(policy) => (
                    false,
                    format!("`{policy}` lets the server throw sessions away; set `maxmemory-policy noeviction`"),
                ),
            }
        })
    }

    async fn durability(&self) -> Check {
        let both = async { Ok((self.settings("appendonly").await?, self.settings("appendfsync").await?)) };
        check("durability", both.await, |(appendonly, appendfsync)| {
            if appendonly.iter().any(|on| on != "yes") {
                let text = "`appendonly` is off: a restart loses what was written since the last snapshot; set `appendonly yes`";
                return (false, text.into());
            }
            match appendfsync.iter().find(|when| *when != "always") {
                None => (true, "append-only file, flushed with each write".into()),
                Some(when) if when == "everysec" => {
                    (true, "append-only file, flushed each second: a power cut loses up to two seconds".into())
                }
                Some(when) => {
                    (false, format!("`appendfsync {when}` leaves flushing to the system; set `everysec` or `always`"))
                }
            }
        })
    }

    async fn journal(&self) -> Check {
        check("stream-node-max-bytes", self.settings("stream-node-max-bytes").await, |sizes| {
            match sizes.iter().find(|size| size.parse().is_ok_and(|size: u64| size == 0 || size > 1024)) {
                None => (true, sizes.join(", ")),
                Some(size) => {
                    let text =
                        format!("`{size}`: every session's journal takes 4 KiB at least; set 512 to save memory");
                    (false, text)
                }
            }
        })
    }

    async fn cluster(&self) -> Check {
        let infos = self.link.query_masters(redis::cmd("CLUSTER").arg("INFO")).await.map(texts);
        check("cluster", infos, |infos| match infos.iter().find(|info| !info.contains("cluster_state:ok")) {
            None => (true, format!("{} masters, all slots are served", infos.len())),
            Some(_) => (false, "not all slots are served; look at `CLUSTER INFO` and `CLUSTER SHARDS`".into()),
        })
    }

    /// What `INFO` says on every master.
    async fn info(&self, section: &str) -> RedisResult<Vec<BTreeMap<String, String>>> {
        let texts = texts(self.link.query_masters(redis::cmd("INFO").arg(section)).await?);
        let read = |text: String| {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
        };
        Ok(texts.into_iter().map(read).collect())
    }

    /// A setting on every master.
    async fn settings(&self, name: &str) -> RedisResult<Vec<String>> {
        let replies = self.link.query_masters(redis::cmd("CONFIG").arg("GET").arg(name)).await?;
        replies.into_iter().map(|reply| Ok(redis::from_redis_value::<(String, String)>(reply)?.1)).collect()
    }
}

fn texts(replies: Vec<Value>) -> Vec<String> {
    replies.into_iter().filter_map(|reply| redis::from_redis_value(reply).ok()).collect()
}

fn check<T>(name: &'static str, found: RedisResult<T>, judge: impl FnOnce(T) -> (bool, String)) -> Check {
    let (ok, text) = match found {
        Ok(found) => judge(found),
        Err(error) => (false, format!("cannot be read ({error}); look at the server's settings yourself")),
    };
    Check { ok, text: format!("{name}: {text}") }
}
