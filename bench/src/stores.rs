//! The server on each store, by the number of clients, beside the sum of its floors.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use rekindle::engine::{Engine, PresentedToken, Refresh, RefreshOutcome, VerifyOutcome};
use rekindle::journal::Context;
use rekindle::memory::MemoryStore;
use rekindle_testkit::proxy::{Proxy, Way};
use tokio::runtime::Runtime;

use crate::database::{self, BareClient, BareCost, Database, MysqlDatabase, PostgresDatabase, RedisDatabase, Turns};
use crate::floors::{self, CryptoFloors, Groups};
use crate::load::{Load, Measured, Pace};
use crate::process::{CpuTimes, Server, resident_kib};
use crate::report::{mib, us};
use crate::seed::{self, DataDir, engine_on};
use crate::server::{self, StoreCounts};
use crate::users::{Client, Scenario, User};

/// How it is measured.
#[derive(Debug, Args)]
pub struct Options {
    /// The stores
    #[arg(long = "store", value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    stores: Vec<Kind>,
    /// Sessions in each store
    #[arg(long, default_value_t = 100_000)]
    sessions: usize,
    /// Sessions whose clients take part; more need memory here
    #[arg(long, default_value_t = 100_000)]
    users: usize,
    /// Connections
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 128])]
    clients: Vec<usize>,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The server's binary [default: `rekindle` beside this program]
    #[arg(long)]
    server: Option<PathBuf>,
}

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Sqlite,
    Postgres,
    Mysql,
    Redis,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Sqlite, Self::Postgres, Self::Mysql, Self::Redis];

    /// Starts its database, if it has one.
    fn database(self) -> Option<Box<dyn Database>> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Box::new(PostgresDatabase::start())),
            Self::Mysql => Some(Box::new(MysqlDatabase::start())),
            Self::Redis => Some(Box::new(RedisDatabase::start())),
        }
    }

    /// How many round trips a refresh may take.
    fn round_trips(self) -> u32 {
        if self == Self::Mysql { 2 } else { 1 }
    }
}

/// In this order, so that there is something to revoke.
const SCENARIOS: [(Scenario, &str); 4] = [
    (Scenario::VerifyOnline, "verify online"),
    (Scenario::RefreshCommitted, "refresh"),
    (Scenario::Start, "start"),
    (Scenario::Revoke, "revoke"),
];

/// How long the load runs before each measurement.
const WARM: Duration = Duration::from_secs(2);
/// How many operations the round trips are counted of.
const COUNTED: usize = 500;

/// Measures the server on each store and prints it as Markdown, a section per store.
pub fn all(options: &Options) -> Result<()> {
    let most = options.clients.iter().copied().max().unwrap_or(0);
    ensure!(most > 0 && !options.clients.contains(&0), "`--clients` takes numbers from 1 on");
    ensure!(
        options.sessions.min(options.users) >= 4 * most,
        "{most} clients need at least {} sessions and users",
        4 * most
    );
    let cores = thread::available_parallelism()?.get() as f64;
    let runtime = Runtime::new()?;
    eprintln!("the floors of HTTP and cryptography …");
    let http = options.clients.iter().map(|&clients| http_floor(options, &runtime, clients));
    let http = http.collect::<Result<Vec<_>>>()?;
    let crypto = floors::crypto(Duration::from_secs(1))?;
    println!(
        "{} sessions, {} s for each measurement, {cores} cores; a signature {} µs, an HMAC {} µs",
        options.sessions,
        options.seconds,
        us(crypto.sign),
        us(crypto.mac)
    );
    for &kind in &options.stores {
        Run { options, kind, cores, http: &http, crypto: &crypto }.measure(&runtime)?;
    }
    Ok(())
}

/// The server's CPU time for a request that it does nothing with.
fn http_floor(options: &Options, runtime: &Runtime, clients: usize) -> Result<Duration> {
    let temporary = tempfile::tempdir()?;
    let dir = DataDir::create(temporary.path().join("data"))?;
    let (users, api_key) = runtime.block_on(async {
        let engine = engine_on(Arc::new(MemoryStore::new()), dir.secrets()?).await?;
        seed::load(&engine, 4 * clients, 4 * clients).await
    })?;
    let floor = server::serve_floor()?;
    let load = load(options, &floor, None, &api_key);
    Ok(load.run(Scenario::HttpFloor, Pace::Closed, &mut Client::share(users, clients))?.cpu_each())
}

fn load<'a>(options: &Options, server: &Server, database: Option<u32>, api_key: &'a str) -> Load<'a> {
    Load {
        address: server.address,
        pid: server.pid(),
        database,
        api_key,
        threads: 1,
        warm: WARM,
        measure: Duration::from_secs_f64(options.seconds),
    }
}

/// The measurements on one store.
struct Run<'a> {
    options: &'a Options,
    kind: Kind,
    cores: f64,
    /// For each number of clients.
    http: &'a [Duration],
    crypto: &'a CryptoFloors,
}

/// What one operation came to with so many clients.
struct Line {
    clients: usize,
    scenario: Scenario,
    name: &'static str,
    measured: Measured,
    /// Write transactions per operation.
    transactions: f64,
}

impl Run<'_> {
    fn measure(&self, runtime: &Runtime) -> Result<()> {
        let Self { options, kind, .. } = self;
        let temporary = tempfile::tempdir()?;
        let dir = DataDir::create(temporary.path().join("data"))?;
        let database = kind.database();
        let name = database.as_ref().map_or_else(|| "SQLite".to_owned(), |database| database.name());
        eprintln!("{name}: loading {} sessions …", options.sessions);
        let (mut users, api_key) = runtime.block_on(self.load(&dir, database.as_deref()))?;
        let round_trips = database.as_ref().map(|database| round_trips(&dir, &**database)).transpose()?;

        let url = database.as_ref().map_or_else(|| "sqlite:".to_owned(), |database| database.url(database.port()));
        let pid = database.as_ref().map(|database| database.pid()).transpose()?;
        let (server, metrics) = server::serve(options.server.as_deref(), &dir, &url)?;
        thread::sleep(Duration::from_secs(2));
        let (idle, _) = resident_kib(server.pid())?;
        let load = load(options, &server, pid, &api_key);
        let transactions = || match &database {
            Some(database) => database.transactions(),
            None => Ok(StoreCounts::read(metrics)?.transactions),
        };
        let mut lines = Vec::new();
        for &count in &options.clients {
            let mut clients = Client::share(users, count);
            for (scenario, name) in SCENARIOS {
                let before = transactions()?;
                let measured = load.run(scenario, Pace::Closed, &mut clients)?;
                let transactions = (transactions()? - before) as f64 / measured.total.max(1) as f64;
                eprintln!("  {name}, {count} clients: {:.0}/s", measured.rate());
                lines.push(Line { clients: count, scenario, name, measured, transactions });
            }
            users = clients.into_iter().flat_map(Client::into_users).collect();
        }
        let (resident, peak) = resident_kib(server.pid())?;
        drop(server);

        eprintln!("  the bare driver …");
        let bare = match (&database, pid) {
            (Some(database), Some(pid)) => runtime.block_on(self.bare(&**database, pid, &users))?,
            _ => self.bare_sqlite(&dir, &lines)?,
        };

        self.print(&name, &lines, &bare);
        println!("| also | measured | target |\n|---|---:|---:|");
        println!("| resident, idle, MiB | {:.1} | 80 |", mib(idle));
        println!("| resident after the load, MiB | {:.1} | 80 |", mib(resident));
        println!("| resident at most, MiB | {:.1} | 80 |", mib(peak));
        for (name, trips) in round_trips.into_iter().flatten() {
            let target = if name == "refresh" { kind.round_trips().to_string() } else { String::new() };
            println!("| round trips per {name}, one at a time | {trips:.2} | {target} |");
        }
        Ok(())
    }

    async fn load(&self, dir: &DataDir, database: Option<&dyn Database>) -> Result<(Vec<User>, String)> {
        let Options { sessions, users, .. } = *self.options;
        let Some(database) = database else { return seed::load(&dir.engine().await?, sessions, users).await };
        database.set_durable(false);
        let engine = engine_on(database.store(database.port()).await?, dir.secrets()?).await?;
        let loaded = seed::load(&engine, sessions, users).await?;
        database.set_durable(true);
        database.settle();
        Ok(loaded)
    }

    /// What the bare driver costs, for each line.
    async fn bare(&self, database: &dyn Database, pid: u32, users: &[User]) -> Result<Vec<BareCost>> {
        let mut turns = Turns::of(users);
        let mut costs = Vec::new();
        for &count in &self.options.clients {
            let drivers = database.bare(count, turns.refreshed()?).await?;
            let mut clients: Vec<BareClient> = drivers.into_iter().zip(turns.share(count)).collect();
            for (scenario, name) in SCENARIOS {
                let long = Duration::from_secs_f64(self.options.seconds);
                let cost = database::measure(&mut clients, scenario, pid, WARM, long).await;
                let cost = cost.with_context(|| format!("the bare {name}"))?;
                eprintln!("  bare {name}, {count} clients: {:.0}/s", cost.rate);
                costs.push(cost);
            }
            turns = Turns::gather(clients.into_iter().map(|(_, turns)| turns));
        }
        Ok(costs)
    }

    /// The same for SQLite, which has no process of its own: a bare loop of the same statements, with as many writes in a
    /// transaction.
    fn bare_sqlite(&self, dir: &DataDir, lines: &[Line]) -> Result<Vec<BareCost>> {
        let mut costs = Vec::new();
        for lines in lines.chunks(SCENARIOS.len()) {
            let line = |scenario| lines.iter().find(|line| line.scenario == scenario);
            let group = |scenario| line(scenario).map_or(1.0, |line| 1.0 / line.transactions);
            let groups = Groups {
                refresh: group(Scenario::RefreshCommitted),
                start: group(Scenario::Start),
                end: group(Scenario::Revoke),
            };
            let long = Duration::from_secs_f64(self.options.seconds);
            let floors = floors::store(&dir.database(), &groups, long)?;
            let none = Duration::ZERO;
            costs.extend([floors.read, floors.refresh, floors.start, floors.end].map(|own| BareCost {
                rate: 1.0 / own.as_secs_f64(),
                each: CpuTimes { server: none, database: none, own, others: none },
            }));
        }
        Ok(costs)
    }

    fn print(&self, name: &str, lines: &[Line], bare: &[BareCost]) {
        let in_process = self.kind == Kind::Sqlite;
        println!("\n### {name}\n");
        println!(
            "| operation | clients | per second | p50 ms | p99 ms | server µs | database µs | generator µs | others, cores | \
             write transactions each |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
        for Line { clients, name, measured, transactions, .. } in lines {
            let CpuTimes { server, database, own, others } = measured.cpu.each(measured.operations);
            let ms = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1000.0;
            println!(
                "| {name} | {clients} | {:.0} | {:.2} | {:.2} | {} | {} | {} | {:.2} | {transactions:.2} |",
                measured.rate(),
                ms(0.5),
                ms(0.99),
                us(server),
                if in_process { String::new() } else { us(database) },
                us(own),
                others.as_secs_f64() * measured.rate(),
            );
        }
        println!(
            "\n| operation | clients | HTTP µs | bare driver µs | bare database µs | their sum µs | server and database µs | \
             ratio | bare per second | allowed by the sum | reached | database to bare |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
        for (line, floor) in lines.iter().zip(bare) {
            let http = self.options.clients.iter().zip(self.http).find(|(clients, _)| **clients == line.clients);
            let http = http.map_or(Duration::ZERO, |(_, http)| *http);
            let each = line.measured.cpu.each(line.measured.operations);
            let sum = http + floor.each.own + floor.each.database + self.crypto.of(line.scenario);
            let spent = each.server + each.database;
            let rate = line.measured.rate();
            let cores = self.cores - each.others.as_secs_f64() * rate;
            let allowed = cores / (sum + each.own).as_secs_f64();
            let to_bare = each.database.as_secs_f64() / floor.each.database.as_secs_f64();
            println!(
                "| {} | {} | {} | {} | {} | {} | {} | {:.2} | {:.0} | {allowed:.0} | {:.2} | {} |",
                line.name,
                line.clients,
                us(http),
                us(floor.each.own),
                if in_process { String::new() } else { us(floor.each.database) },
                us(sum),
                us(spent),
                spent.as_secs_f64() / sum.as_secs_f64(),
                floor.rate,
                rate / allowed,
                if in_process { String::new() } else { format!("{to_bare:.2}") },
            );
        }
        println!();
    }
}

/// How many round trips to the database each operation takes, carried out one at a time: counted on the wire.
fn round_trips(dir: &DataDir, database: &dyn Database) -> Result<[(&'static str, f64); 4]> {
    // On one thread, what is sent together leaves together.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let proxy = Proxy::start(database.port()).await;
        let engine = engine_on(database.store(proxy.port()).await?, dir.secrets()?).await?;
        // Connects, prepares statements, reads the configuration.
        lives(&engine, &proxy, 3).await?;
        lives(&engine, &proxy, COUNTED).await
    })
}

/// Carries out each operation on `count` sessions, one after the other.
async fn lives(engine: &Engine, proxy: &Proxy, count: usize) -> Result<[(&'static str, f64); 4]> {
    let (scope, ctx) = (seed::scope(), Context::default());
    let mut asked = proxy.passed(Way::Request);
    let mut each = |name| {
        let before = std::mem::replace(&mut asked, proxy.passed(Way::Request));
        (name, f64::from(asked - before) / count as f64)
    };
    let mut sessions = Vec::new();
    for number in 0..count {
        sessions.push(engine.start(&scope, seed::start_request(number)?, &ctx).await?);
    }
    let start = each("start");
    for tokens in &mut sessions {
        let request = Refresh { refresh_token: tokens.refresh_token.expose(), tag: None, proof: None };
        match engine.refresh(&scope, request, &ctx).await? {
            RefreshOutcome::Refreshed(next) => *tokens = next,
            RefreshOutcome::Refused(_) => anyhow::bail!("a refresh was refused"),
        }
    }
    let refresh = each("refresh");
    for tokens in &sessions {
        let outcome = engine.verify(&scope, tokens.access_token.expose(), None, true).await?;
        ensure!(matches!(outcome, VerifyOutcome::Active(_)), "an access token was refused");
    }
    let verify = each("verify online");
    for tokens in &sessions {
        let token = PresentedToken::Refresh(tokens.refresh_token.expose());
        engine.sign_out(&scope, token, &ctx).await?.ok().context("a sign-out was refused")?;
    }
    Ok([refresh, start, verify, each("revoke")])
}
