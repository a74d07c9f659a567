//! Processes as the operating system counts them: CPU time, resident memory, and servers that are started for a measurement.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{self, Child, Command};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Linux tells processes' times in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time that a process has used, in user and in kernel mode, of all its threads.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    Ok(TICK * Stat::read(pid)?.own)
}

/// The same of a process and all processes below it, those that have ended included.
fn tree_cpu_time(root: u32) -> Result<Duration> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since; then its parent has its time.
        processes.extend(Stat::read(pid).ok().map(|stat| (pid, stat)));
    }
    let (mut tree, mut ticks, mut at) = (vec![root], 0, 0);
    while let Some(&parent) = tree.get(at) {
        at += 1;
        tree.extend(processes.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        ticks += processes.iter().find(|(pid, _)| *pid == parent).map_or(0, |(_, stat)| stat.own + stat.ended);
    }
    Ok(TICK * ticks)
}

/// What the system tells of a process; times in ticks.
struct Stat {
    parent: u32,
    own: u32,
    /// Of its children that have ended.
    ended: u32,
}

impl Stat {
    fn read(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name is in parentheses and may hold anything. After it, the parent is the second field, and utime, stime, cutime
        // and cstime are those from the 12th on.
        let (_, fields) = stat.rsplit_once(')').context("/proc/<pid>/stat has another form")?;
        let number = |i: usize| -> Result<u32> {
            Ok(fields.split_whitespace().nth(i).context("/proc/<pid>/stat has another form")?.parse()?)
        };
        Ok(Self { parent: number(1)?, own: number(11)? + number(12)?, ended: number(13)? + number(14)? })
    }
}

/// The CPU time of all who take part in a measurement.
#[derive(Debug, Clone, Copy)]
pub struct CpuTimes {
    /// The server under test.
    pub server: Duration,
    /// Its database, with all processes below it.
    pub database: Duration,
    /// This program.
    pub own: Duration,
    /// Everybody else on the machine, the kernel's own threads included.
    pub others: Duration,
}

impl CpuTimes {
    /// Of these processes, so far.
    pub fn read(server: Option<u32>, database: Option<u32>) -> Result<Self> {
        let server = server.map(cpu_time).transpose()?.unwrap_or_default();
        let database = database.map(tree_cpu_time).transpose()?.unwrap_or_default();
        let own = cpu_time(process::id())?;
        let others = machine_cpu_time()?.saturating_sub(server + database + own);
        Ok(Self { server, database, own, others })
    }

    /// Since an earlier moment.
    pub fn since(&self, before: &Self) -> Self {
        self.zip(before, Duration::saturating_sub)
    }

    /// For one of so many operations.
    pub fn each(&self, operations: u64) -> Self {
        self.zip(self, |time, _| time.div_f64(operations.max(1) as f64))
    }

    fn zip(&self, other: &Self, f: impl Fn(Duration, Duration) -> Duration) -> Self {
        Self {
            server: f(self.server, other.server),
            database: f(self.database, other.database),
            own: f(self.own, other.own),
            others: f(self.others, other.others),
        }
    }
}

/// The time that the machine's cores were not idle.
fn machine_cpu_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("/proc/stat has another form")?;
    let ticks = line.split_whitespace().map(str::parse::<u32>).collect::<Result<Vec<_>, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are in the first two.
    let busy = [0, 1, 2, 5, 6, 7].into_iter().filter_map(|i| ticks.get(i)).sum::<u32>();
    Ok(TICK * busy)
}

/// The resident memory of a process in KiB: now, and at most so far.
pub fn resident_kib(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number =
            line.and_then(|line| line.split_whitespace().next()).context("/proc/<pid>/status has another form")?;
        Ok::<u64, anyhow::Error>(number.parse()?)
    };
    Ok((kib("VmRSS:")?, kib("VmHWM:")?))
}

/// An address on this machine that nobody listens on.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A server in a process of its own; it is killed when this is dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts it, and waits until it accepts connections.
    pub fn start(command: &mut Command, address: SocketAddr) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut server = Self { child, address };
        for _ in 0..1000 {
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{command:?} ended with {status}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("{command:?} does not listen on {address}")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
