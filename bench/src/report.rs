//! The measurements in their order, and the tables.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::floors::{self, CryptoFloors, Groups, StoreFloors};
use crate::instructions::{self as counts, Counted};
use crate::load::{Load, Measured, Pace};
use crate::process::{Server, resident_kib};
use crate::seed::{self, DataDir};
use crate::server::{self, StoreCounts};
use crate::users::{Client, Scenario};
use crate::verify;

/// How it is measured.
#[derive(Debug, Args)]
pub struct Options {
    /// The server's binary [default: `rekindle` beside this program]
    #[arg(long)]
    server: Option<PathBuf>,
    /// Sessions in the store
    #[arg(long, default_value_t = 100_000)]
    sessions: usize,
    /// Sessions whose clients take part; more need memory here
    #[arg(long, default_value_t = 100_000)]
    users: usize,
    /// Connections
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Threads of the load generator
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Measure only the operations whose name holds this, and print no table
    #[arg(long)]
    only: Option<String>,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

impl Options {
    /// How long each measurement takes.
    pub fn measure(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// How many connections there are.
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// The server's binary, if it was named.
    pub fn server(&self) -> Option<&Path> {
        self.server.as_deref()
    }

    /// Load on a server.
    pub fn load<'a>(&self, server: &Server, api_key: &'a str) -> Load<'a> {
        Load {
            address: server.address,
            pid: server.pid(),
            database: None,
            api_key,
            threads: self.threads,
            warm: Duration::from_secs(2),
            measure: self.measure(),
        }
    }
}

/// One line of the table.
struct Line {
    scenario: Scenario,
    name: &'static str,
    closed: Measured,
    open: Measured,
    /// What the store did meanwhile in the closed loop: operations, and write transactions.
    store: StoreCounts,
}

const SCENARIOS: [(Scenario, &str); 7] = [
    (Scenario::VerifyOnline, "verify online, known token"),
    (Scenario::VerifyOffline, "verify offline, known token"),
    (Scenario::Forged, "refresh, forged token"),
    (Scenario::RefreshCommitted, "refresh, committed"),
    (Scenario::RefreshBearer, "refresh, bearer"),
    (Scenario::Start, "start"),
    (Scenario::Chain, "whole lives (start, 5 refreshes, 10 verifications)"),
];

/// Measures everything and prints it as Markdown.
pub fn all(options: &Options) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = DataDir::create(temporary.path().join("data"))?;
    eprintln!("loading {} sessions …", options.sessions);
    let loader = tokio::runtime::Runtime::new()?;
    let (users, api_key) =
        loader.block_on(async { seed::load(&dir.engine().await?, options.sessions, options.users).await })?;
    drop(loader);
    let mut clients = Client::share(users, options.clients);

    eprintln!("the floor of HTTP …");
    let http = {
        let floor = server::serve_floor()?;
        options.load(&floor, &api_key).run(Scenario::HttpFloor, Pace::Closed, &mut clients)?
    };
    eprintln!("  {} µs at {:.0}/s", us(http.cpu_each()), http.rate());

    let (server, metrics) = server::serve(options.server(), &dir, "sqlite:")?;
    thread::sleep(Duration::from_secs(2));
    let (idle, _) = resident_kib(server.pid())?;
    let load = options.load(&server, &api_key);
    let mut lines = Vec::new();
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for (scenario, name) in SCENARIOS.into_iter().filter(|(_, name)| wanted(name)) {
        eprintln!("{name} …");
        let before = StoreCounts::read(metrics)?;
        let closed = load.run(scenario, Pace::Closed, &mut clients)?;
        let store = StoreCounts::read(metrics)?.since(&before);
        eprintln!("  {} µs at {:.0}/s", us(closed.cpu_each()), closed.rate());
        if options.only.is_some() {
            continue;
        }
        let open = load.run(scenario, Pace::Open { rate: closed.rate() / 2.0 }, &mut clients)?;
        lines.push(Line { scenario, name, closed, open, store });
    }
    let (_, peak) = resident_kib(server.pid())?;
    drop(server);
    if options.only.is_some() {
        return Ok(());
    }

    eprintln!("the floors of the store …");
    let group = |scenario| lines.iter().find(|line| line.scenario == scenario).map_or(1.0, |line| line.store.group());
    // Ends are not measured here.
    let groups = Groups { refresh: group(Scenario::RefreshCommitted), start: group(Scenario::Start), end: 1.0 };
    let store = floors::store(&dir.database(), &groups, options.measure())?;
    eprintln!("cryptography …");
    let crypto = floors::crypto(Duration::from_secs(1))?;
    let known = verify::known_token(Duration::from_secs(1))?;

    let floors = Floors { http: http.cpu_each(), store, crypto };
    println!(
        "{} sessions, {} clients, {} s for each measurement\n",
        options.sessions, options.clients, options.seconds
    );
    println!("| floor | CPU µs |\n|---|---:|");
    println!(
        "| HTTP: a request of a refresh's size, answered with 300 bytes ({:.0}/s) | {} |",
        http.rate(),
        us(floors.http)
    );
    println!(
        "| SQLite: a refresh's row and event, in transactions of {:.1} | {} |",
        groups.refresh,
        us(floors.store.refresh)
    );
    println!(
        "| SQLite: a start's row and event, in transactions of {:.1} | {} |",
        groups.start,
        us(floors.store.start)
    );
    println!("| SQLite: a session's row read | {} |", us(floors.store.read));
    println!("| Ed25519: a signature | {} |", us(floors.crypto.sign));
    println!("| Ed25519: its check | {} |", us(floors.crypto.check));
    println!("| HMAC-SHA256 of 42 bytes | {} |\n", us(floors.crypto.mac));

    println!("| operation | per second | server CPU µs | sum of its floors | ratio | at most | p50 | p99 | p99.9 ms |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for line in &lines {
        let cpu = line.closed.cpu_each();
        let (floor, ratio, target) = match floors.of(line.scenario) {
            Some((floor, target)) => {
                let ratio = cpu.as_secs_f64() / floor.as_secs_f64();
                let target = target.map_or_else(String::new, |t| t.to_string());
                (us(floor), format!("{ratio:.2}"), target)
            }
            None => Default::default(),
        };
        let ms = |quantile| line.open.latency.value_at_quantile(quantile) as f64 / 1000.0;
        println!(
            "| {} | {:.0} | {} | {floor} | {ratio} | {target} | {:.2} | {:.2} | {:.2} |",
            line.name,
            line.closed.rate(),
            us(cpu),
            ms(0.5),
            ms(0.99),
            ms(0.999),
        );
    }
    println!("\n| also | measured | target |\n|---|---:|---:|");
    for line in lines.iter().filter(|line| line.scenario == Scenario::Forged) {
        let requests = line.closed.operations;
        println!("| store operations during {requests} forged refreshes | {} | none for them |", line.store.operations);
    }
    println!("| known token verified in process, by the cache | {} µs | 1 µs |", us(known.cache));
    println!("| known token verified in process, by the engine | {} µs | 1 µs |", us(known.engine));
    println!("| a token's first verification in process | {} µs | |", us(known.first));
    let faster = floors.crypto.check.as_secs_f64() / known.engine.as_secs_f64();
    println!("| … how many times faster than the bare signature check | {faster:.0} | 20 |");
    println!("| resident, idle, MiB | {:.1} | 25 |", mib(idle));
    println!("| resident, at most, under load, MiB | {:.1} | 120 with a million sessions |", mib(peak));
    Ok(())
}

/// Counts instructions and prints them as Markdown.
pub fn instructions(sizes: &[usize]) -> Result<()> {
    let counted = sizes.iter().map(|&n| Ok((n, counts::per_refresh(n)?))).collect::<Result<Vec<_>>>()?;
    println!("| sessions | request | store's writer | both | of the first | store's checkpoints |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for (sessions, Counted { request, writer, checkpoints }) in &counted {
        let (both, first) = (request + writer, counted[0].1.request + counted[0].1.writer);
        println!("| {sessions} | {request:.0} | {writer:.0} | {both:.0} | {:.3} | {checkpoints:.0} |", both / first);
    }
    Ok(())
}

struct Floors {
    http: Duration,
    store: StoreFloors,
    crypto: CryptoFloors,
}

impl Floors {
    /// The sum of an operation's floors, and how many times that it may cost.
    fn of(&self, scenario: Scenario) -> Option<(Duration, Option<f64>)> {
        let Self { http, store, crypto } = self;
        let (store, target) = match scenario {
            Scenario::RefreshCommitted | Scenario::RefreshBearer => (store.refresh, Some(1.4)),
            Scenario::Start => (store.start, Some(1.4)),
            Scenario::VerifyOnline => (store.read, Some(1.2)),
            Scenario::VerifyOffline => (Duration::ZERO, None),
            Scenario::Forged => (Duration::ZERO, Some(1.15)),
            Scenario::HttpFloor | Scenario::Chain | Scenario::Revoke | Scenario::Face(_) => return None,
        };
        Some((*http + store + crypto.of(scenario), target))
    }
}

/// Microseconds, to read.
pub fn us(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    if us < 1.0 { format!("{us:.2}") } else { format!("{us:.1}") }
}

/// MiB of KiB.
pub fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
