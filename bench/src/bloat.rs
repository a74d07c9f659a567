//! What refreshes leave behind on PostgreSQL: sizes of tables and indexes, and how many updates touched no index.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use rekindle::engine::{Engine, Refresh, RefreshOutcome};
use rekindle::journal::Context;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::database::{Database, PostgresDatabase};
use crate::seed::{self, DataDir, engine_on};

/// What is refreshed, and how often.
#[derive(Debug, Args)]
pub struct Options {
    /// Sessions in the store
    #[arg(long, default_value_t = 100_000)]
    sessions: usize,
    /// Refreshes in all, in turn over all sessions
    #[arg(long, default_value_t = 1_000_000)]
    refreshes: usize,
}

/// How many refreshes are under way at once.
const AT_ONCE: usize = 64;
/// Longer than autovacuum sleeps between two looks, by its defaults.
const AUTOVACUUM: Duration = Duration::from_secs(75);

/// Refreshes, and prints sizes and counts before and after as Markdown.
pub fn bloat(options: &Options) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = DataDir::create(temporary.path().join("data"))?;
    let database = PostgresDatabase::start();
    let runtime = Runtime::new()?;
    eprintln!("loading {} sessions …", options.sessions);
    database.set_durable(false);
    let tokens = runtime.block_on(async {
        let engine = engine_on(database.store(database.port()).await?, dir.secrets()?).await?;
        seed::make_signing_key(&engine).await?;
        start(&engine, options.sessions).await
    })?;
    database.set_durable(true);
    // The load's connections are gone, so all that they counted is known.
    thread::sleep(Duration::from_secs(1));
    database.settle();
    let before = Tables::read(&database)?;

    eprintln!("{} refreshes …", options.refreshes);
    let began = Instant::now();
    runtime.block_on(async {
        let engine = engine_on(database.store(database.port()).await?, dir.secrets()?).await?;
        refresh(&engine, tokens, options.refreshes).await
    })?;
    let took = began.elapsed();
    thread::sleep(Duration::from_secs(1));
    let after = Tables::read(&database)?;
    eprintln!("waiting for autovacuum …");
    thread::sleep(AUTOVACUUM);
    let later = Tables::read(&database)?;

    println!(
        "{}, {} sessions, {} refreshes in {:.0} s, autovacuum by its defaults\n",
        database.name(),
        options.sessions,
        options.refreshes,
        took.as_secs_f64()
    );
    println!("| | before | after | {} s later |\n|---|---:|---:|---:|", AUTOVACUUM.as_secs());
    for (i, name) in Tables::NAMES.iter().enumerate() {
        println!("| {name} | {} | {} | {} |", before.0[i], after.0[i], later.0[i]);
    }
    let [updates, hot] = [Tables::UPDATES, Tables::HOT].map(|i| after.0[i] - before.0[i]);
    println!("\nOf {updates} updates, {hot} were heap-only: {:.2} %.", 100.0 * hot as f64 / updates.max(1) as f64);
    Ok(())
}

/// Starts sessions; their refresh tokens, by the task that will refresh them.
async fn start(engine: &Engine, sessions: usize) -> Result<Vec<Vec<String>>> {
    let mut tasks = JoinSet::new();
    for task in 0..AT_ONCE {
        let engine = engine.clone();
        tasks.spawn(async move {
            let (scope, ctx) = (seed::scope(), Context::default());
            let mut tokens = Vec::new();
            for number in (task..sessions).step_by(AT_ONCE) {
                let started = engine.start(&scope, seed::start_request(number)?, &ctx).await?;
                tokens.push(started.refresh_token.expose().to_owned());
            }
            Ok::<_, anyhow::Error>(tokens)
        });
    }
    let mut all = Vec::new();
    while let Some(tokens) = tasks.join_next().await {
        all.push(tokens??);
    }
    Ok(all)
}

/// Refreshes all sessions in turn, so many times in all.
async fn refresh(engine: &Engine, tokens: Vec<Vec<String>>, refreshes: usize) -> Result<()> {
    let begun = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for mut tokens in tokens.into_iter().filter(|tokens| !tokens.is_empty()) {
        let (engine, begun) = (engine.clone(), begun.clone());
        tasks.spawn(async move {
            let (scope, ctx) = (seed::scope(), Context::default());
            for turn in (0..tokens.len()).cycle() {
                if begun.fetch_add(1, Ordering::Relaxed) >= refreshes {
                    break;
                }
                let request = Refresh { refresh_token: &tokens[turn], tag: None, proof: None };
                match engine.refresh(&scope, request, &ctx).await? {
                    RefreshOutcome::Refreshed(next) => tokens[turn] = next.refresh_token.expose().to_owned(),
                    RefreshOutcome::Refused(_) => bail!("a refresh was refused"),
                }
            }
            Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// Sizes and counts at a moment.
struct Tables([u64; 8]);

impl Tables {
    const NAMES: [&str; 8] = [
        "sessions, KiB",
        "its indexes, KiB",
        "its dead rows",
        "its updates",
        "of them heap-only (HOT)",
        "autovacuum runs on it",
        "events, KiB",
        "their index, KiB",
    ];
    const UPDATES: usize = 3;
    const HOT: usize = 4;

    fn read(database: &PostgresDatabase) -> Result<Self> {
        let told = database.sql(
            "SELECT pg_table_size(s.relid) / 1024, pg_indexes_size(s.relid) / 1024, s.n_dead_tup, s.n_tup_upd, s.n_tup_hot_upd,
                 s.autovacuum_count, pg_table_size(e.relid) / 1024, pg_indexes_size(e.relid) / 1024
             FROM pg_stat_user_tables s, pg_stat_user_tables e WHERE s.relname = 'sessions' AND e.relname = 'events'",
        );
        let mut values = [0; 8];
        for (value, text) in values.iter_mut().zip(told.split('|')) {
            *value = text.parse()?;
        }
        Ok(Self(values))
    }
}
