//! Load: all clients at once, in a closed or an open loop, and what it cost the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::http::Connection;
use crate::process::CpuTimes;
use crate::users::{Client, Scenario};

/// A server under test, and how it is loaded.
pub struct Load<'a> {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process, whose CPU time counts.
    pub pid: u32,
    /// Its database's process, if there is one.
    pub database: Option<u32>,
    /// What the clients authenticate with.
    pub api_key: &'a str,
    /// How many threads the clients run on.
    pub threads: usize,
    /// How long it is loaded before the measurement.
    pub warm: Duration,
    /// How long it is measured.
    pub measure: Duration,
}

/// When a client sends its next request.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// When the one before was answered.
    Closed,
    /// By the clock, at this rate for all clients together. A late answer does not postpone the next request's due time, and
    /// latency counts from that time.
    Open {
        /// Requests per second.
        rate: f64,
    },
}

/// What was measured.
pub struct Measured {
    /// Requests that were answered in the time.
    pub operations: u64,
    /// Requests that were answered in all, before the measurement and after it, too.
    pub total: u64,
    /// The time.
    pub elapsed: Duration,
    /// CPU time in it.
    pub cpu: CpuTimes,
    /// From a request's time to its answer, in microseconds.
    pub latency: Histogram<u64>,
}

impl Measured {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    /// The server's CPU time for one request.
    pub fn cpu_each(&self) -> Duration {
        self.cpu.each(self.operations).server
    }
}

#[derive(Default)]
struct Shared {
    operations: AtomicU64,
    measuring: AtomicBool,
    stop: AtomicBool,
}

impl Load<'_> {
    /// Has the clients carry out a scenario. They come back as they are afterwards.
    pub fn run(&self, scenario: Scenario, pace: Pace, clients: &mut Vec<Client>) -> Result<Measured> {
        let count = clients.len();
        let interval = match pace {
            Pace::Closed => None,
            Pace::Open { rate } => Some(Duration::from_secs_f64(count as f64 / rate)),
        };
        let shared = Arc::new(Shared::default());
        let mut share: Vec<Vec<Client>> = (0..self.threads).map(|_| Vec::new()).collect();
        for client in clients.drain(..) {
            share[client.number % self.threads].push(client);
        }
        thread::scope(|scope| {
            let threads: Vec<_> = share
                .into_iter()
                .map(|clients| {
                    let shared = shared.clone();
                    scope.spawn(move || {
                        let done = self.thread(scenario, interval, count, clients, &shared);
                        // One that fails ends the measurement.
                        shared.stop.store(true, Ordering::Relaxed);
                        done
                    })
                })
                .collect();
            let rest = |long: Duration| {
                let until = Instant::now() + long;
                while Instant::now() < until && !shared.stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
            };
            rest(self.warm);
            let sample = || {
                let cpu = CpuTimes::read(Some(self.pid), self.database)?;
                Ok((cpu, shared.operations.load(Ordering::Relaxed), Instant::now()))
            };
            shared.measuring.store(true, Ordering::Relaxed);
            let before: Result<_> = sample();
            rest(self.measure);
            let after: Result<_> = sample();
            shared.stop.store(true, Ordering::Relaxed);
            let mut latency = histogram();
            for thread in threads {
                let (back, recorded) = thread.join().map_err(|_| anyhow!("a load thread panicked"))??;
                clients.extend(back);
                latency += recorded;
            }
            clients.sort_by_key(|client| client.number);
            let ((cpu_before, done_before, started), (cpu_after, done_after, ended)) = (before?, after?);
            Ok(Measured {
                operations: done_after - done_before,
                total: shared.operations.load(Ordering::Relaxed),
                elapsed: ended - started,
                cpu: cpu_after.since(&cpu_before),
                latency,
            })
        })
    }

    fn thread(
        &self,
        scenario: Scenario,
        interval: Option<Duration>,
        count: usize,
        clients: Vec<Client>,
        shared: &Arc<Shared>,
    ) -> Result<(Vec<Client>, Histogram<u64>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut tasks, mut back, mut latency) = (JoinSet::new(), Vec::new(), histogram());
            for client in clients {
                let connection = Connection::open(self.address, self.api_key).await?;
                let first = interval.map(|i| Instant::now() + i.mul_f64(client.number as f64 / count as f64));
                let due = first.zip(interval);
                tasks.spawn(drive(client, connection, scenario, due, shared.clone()));
            }
            while let Some(done) = tasks.join_next().await {
                let (client, recorded) = done??;
                back.push(client);
                latency += recorded;
            }
            Ok((back, latency))
        })
    }
}

async fn drive(
    mut client: Client,
    mut connection: Connection,
    scenario: Scenario,
    mut due: Option<(Instant, Duration)>,
    shared: Arc<Shared>,
) -> Result<(Client, Histogram<u64>)> {
    let mut latency = histogram();
    // One that has nothing left to do ends the measurement, as fewer clients would be another one.
    while !shared.stop.load(Ordering::Relaxed) && client.can(scenario) {
        let mut started = Instant::now();
        if let Some((at, interval)) = &mut due {
            if started < *at {
                // The timer may be a millisecond late, which is not the server's doing.
                sleep_until(*at).await;
                started = Instant::now();
            } else {
                started = *at;
            }
            *at += *interval;
        }
        client.step(&mut connection, scenario).await.inspect_err(|_| shared.stop.store(true, Ordering::Relaxed))?;
        shared.operations.fetch_add(1, Ordering::Relaxed);
        if shared.measuring.load(Ordering::Relaxed) {
            latency.saturating_record(started.elapsed().as_micros() as u64);
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    Ok((client, latency))
}

/// Microseconds up to a minute, to one per cent.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 2).expect("the bounds are in order")
}
