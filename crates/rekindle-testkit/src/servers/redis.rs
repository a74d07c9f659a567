//! Redis: one server, a master with a replica and a sentinel, or a cluster of three masters with a replica each.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::{Launch, Server, free_port, program, temporary_folder, with_small_disk};

/// The Debian package that has the server.
const PACKAGE: &str = "redis-server";
/// Redis does not mind who runs it.
const USER: &str = "root";
/// What makes a server quick whose data nobody needs: nothing survives it.
const QUICK: [&str; 4] = ["--save", "", "--appendonly", "no"];
/// How long the nodes of a cluster may take to agree.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis server.
pub struct Redis {
    server: Server,
}

impl Redis {
    /// The one that all tests of a program share: quick, not durable.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Redis> = LazyLock::new(Redis::quick);
        &SHARED
    }

    /// A quick one for a single test.
    pub fn quick() -> Self {
        Self::start(&QUICK)
    }

    /// A quick cluster of this one server, for a single test: whoever takes it for a server alone is refused what spans slots.
    ///
    /// # Panics
    ///
    /// If it serves no slots within a minute.
    pub fn cluster_of_one() -> Self {
        let node = Self::node();
        node.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        wait_until("serve every slot", || node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        node
    }

    /// A quick server that is to be part of a cluster.
    fn node() -> Self {
        let bus = free_port().to_string();
        let own = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
        Self::start(&[QUICK.as_slice(), own.as_slice(), &["--repl-diskless-sync-delay", "0"]].concat())
    }

    /// One with arguments like `--appendonly`, `yes`; everything else as Redis has it.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_in(temporary_folder(USER), arguments)
    }

    /// One that appends what it is told to a file, on a disk of so many bytes.
    pub fn with_small_disk(bytes: u64) -> Self {
        let folder = temporary_folder(USER);
        let disk = folder.join("disk");
        let small = |command| with_small_disk(&disk, bytes, command);
        Self::started(folder, &disk, &["--save", "", "--appendonly", "yes"], small)
    }

    /// As [`Redis::start`], with its files in a folder from [`temporary_folder`].
    pub fn start_in(folder: PathBuf, arguments: &[&str]) -> Self {
        let files = folder.clone();
        Self::started(folder, &files, arguments, |command| command)
    }

    fn started(
        folder: PathBuf,
        files: &Path,
        arguments: &[&str],
        wrap: impl FnOnce(Vec<OsString>) -> Vec<OsString>,
    ) -> Self {
        let port = free_port();
        let mut command: Vec<OsString> = vec![program("redis-server", &[], PACKAGE)];
        command.extend(arguments.iter().map(OsString::from));
        let own = ["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"];
        command.extend(own.iter().map(OsString::from));
        command.push(files.into());
        let command = wrap(command);
        // SIGKILL: what was not written to the disk by then is gone, as in a crash.
        let launch = Launch { command, folder, port, user: USER, stop_signal: "KILL" };
        Self { server: Server::start(launch, || answers(port)) }
    }

    /// A quick replica of this one, that has what this one has, as this one knows.
    ///
    /// # Panics
    ///
    /// If that takes longer than a minute.
    pub fn replica(&self) -> Self {
        // Else a master waits five seconds, for more replicas that may come.
        self.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
        let replica = Self::start(&[&QUICK[..], &["--replicaof", &format!("127.0.0.1 {}", self.port())]].concat());
        self.wait_for_replica();
        replica
    }

    /// Waits until a replica has all that this one has now. (`WAIT` speaks of what its own connection wrote: for `redis-cli`,
    /// nothing.)
    ///
    /// # Panics
    ///
    /// If that takes longer than a minute.
    pub fn wait_for_replica(&self) {
        fn offset(line: &str, before: &str) -> Option<u64> {
            line.split_once(before)?.1.split([',', '\r']).next()?.parse().ok()
        }
        let replication = || self.cli(&["INFO", "replication"]);
        let written = replication().lines().find_map(|line| offset(line, "master_repl_offset:"));
        let written = written.expect("a server tells its offset");
        wait_until("be followed by a replica", || {
            replication().lines().filter_map(|line| offset(line, "state=online,offset=")).any(|has| has >= written)
        });
    }

    /// The URL of a keyspace that nobody else uses.
    pub fn new_url(&self) -> String {
        format!("redis://127.0.0.1:{}/?prefix={}", self.port(), new_prefix())
    }

    /// Runs `redis-cli` with these arguments; what it prints.
    ///
    /// # Panics
    ///
    /// If it cannot be run.
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port(), arguments)
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The process, to end it or to hold it up.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Starts a server that was stopped.
    pub fn start_again(&mut self) {
        let port = self.port();
        self.server.start_again(|| answers(port));
    }
}

/// A master, its replica, and a sentinel that watches them as the service `main`.
pub struct Watched {
    /// Master first.
    servers: [Redis; 2],
    sentinel: Redis,
}

impl Watched {
    /// Starts all three and waits until the sentinel knows the replica.
    ///
    /// # Panics
    ///
    /// If that takes longer than a minute.
    pub fn start() -> Self {
        let master = Redis::quick();
        let port = master.port().to_string();
        let replica = master.replica();
        let folder = temporary_folder(USER);
        let config = folder.join("sentinel.conf");
        let settings = [
            format!("sentinel monitor main 127.0.0.1 {port} 1"),
            "sentinel down-after-milliseconds main 500".into(),
            "sentinel failover-timeout main 5000".into(),
        ];
        fs::write(&config, settings.join("\n") + "\n").expect("a temporary folder can be written");
        let sentinel = Redis::start_in(folder, &[&config.display().to_string(), "--sentinel"]);
        wait_until("be known to the sentinel", || {
            sentinel.cli(&["SENTINEL", "REPLICAS", "main"]).contains(&replica.port().to_string())
        });
        Self { servers: [master, replica], sentinel }
    }

    /// The URL of a keyspace that nobody else uses.
    pub fn new_url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/main?prefix={}", self.sentinel.port(), new_prefix())
    }

    /// The server that began as the master.
    pub fn first_master(&mut self) -> &mut Redis {
        &mut self.servers[0]
    }
}

/// A cluster of three masters with a replica each; the first three nodes begin as masters.
pub struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    /// The one that all tests of a program share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Cluster> = LazyLock::new(Cluster::start);
        &SHARED
    }

    /// Starts one and waits until every slot is served and every replica has its master's data.
    ///
    /// # Panics
    ///
    /// If that takes longer than a minute.
    pub fn start() -> Self {
        const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        let cluster = Self { nodes: (0..6).map(|_| Redis::node()).collect() };
        let (masters, replicas) = cluster.nodes.split_at(3);
        for (master, (first, last)) in masters.iter().zip(SLOTS) {
            master.cli(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
        }
        for node in &cluster.nodes {
            let bus = node.cli(&["CONFIG", "GET", "cluster-port"]);
            let bus = bus.lines().last().expect("a node has a bus");
            masters[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), bus]);
        }
        cluster.wait_until("know each other", |info| info.contains("cluster_known_nodes:6"));
        for (replica, master) in replicas.iter().zip(masters) {
            let id = master.cli(&["CLUSTER", "MYID"]);
            wait_until("follow its master", || replica.cli(&["CLUSTER", "REPLICATE", &id]) == "OK");
            wait_until("have its master's data", || {
                replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
            });
        }
        cluster.wait_until("serve every slot", |info| info.contains("cluster_state:ok"));
        cluster
    }

    /// The URL of a keyspace that nobody else uses.
    pub fn new_url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}/?prefix={}", hosts.join(","), new_prefix())
    }

    /// The nodes, to end one or to hold it up.
    pub fn nodes(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }

    fn wait_until(&self, what: &str, ready: impl Fn(&str) -> bool) {
        for node in &self.nodes {
            wait_until(what, || ready(&node.cli(&["CLUSTER", "INFO"])));
        }
    }
}

fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < PATIENCE, "a node of the cluster did not {what} in {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn new_prefix() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    format!("test-{}", LAST.fetch_add(1, Ordering::Relaxed))
}

fn cli(port: u16, arguments: &[&str]) -> String {
    let mut cli = Command::new(program("redis-cli", &[], "redis-tools"));
    let output = cli.args(["-p", &port.to_string()]).args(arguments).output().expect("`redis-cli` can be run");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Whether the server answers, be it that it asks for a password.
fn answers(port: u16) -> bool {
    let ask = || {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        connection.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    matches!(ask().as_ref().map(|answer| answer.as_slice()), Ok(b"+PONG" | b"-NOAU"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::assert_goes;

    #[test]
    fn a_server_serves_stops_starts_again_and_goes() {
        let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
        assert_eq!(redis.cli(&["SET", "n", "7"]), "OK");
        redis.server().stop("KILL");
        assert!(!answers(redis.port()));
        redis.start_again();
        assert_eq!(redis.cli(&["GET", "n"]), "7");
        assert_goes(redis, Redis::server);
    }
}
