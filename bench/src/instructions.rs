//! Instructions per refresh, as stores grow: counted by valgrind, because a count does not depend on what else runs.
//!
//! Each thread is counted by itself. What a request's thread and the store's writer carry out is always the same. How often the
//! store's checkpoints run is not: it depends on which thread the system runs when.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rekindle::engine::{Refresh, RefreshOutcome};
use rekindle::journal::Context;
use rekindle::refresh::{Commitment, RefreshToken};
use rekindle::rotation::Position;
use rekindle::session::SessionId;
use rusqlite::{Connection, OptionalExtension as _};

use crate::seed::{DataDir, load, scope};

/// How many refreshes the two counted runs carry out; their difference is free of start and end.
const RUNS: [usize; 2] = [1000, 6000];

/// Instructions, by the threads that carried them out.
#[derive(Clone, Copy, Default)]
pub struct Counted {
    /// The engine and the store's readers, on the thread of the request.
    pub request: f64,
    /// The store's writer.
    pub writer: f64,
    /// Moving the store's log into its file.
    pub checkpoints: f64,
}

/// Instructions per refresh on a store of `sessions` sessions, one refresh after the other.
pub fn per_refresh(sessions: usize) -> Result<Counted> {
    let temporary = tempfile::tempdir()?;
    let dir = DataDir::create(temporary.path().join("data"))?;
    eprintln!("loading {sessions} sessions …");
    tokio::runtime::Runtime::new()?.block_on(async { load(&dir.engine().await?, sessions, 0).await })?;
    let [few, many] = RUNS.map(|refreshes| count(&dir, refreshes));
    let (few, many) = (few?, many?);
    let each = |of: fn(&Counted) -> f64| (of(&many) - of(&few)) / (RUNS[1] - RUNS[0]) as f64;
    Ok(Counted { request: each(|c| c.request), writer: each(|c| c.writer), checkpoints: each(|c| c.checkpoints) })
}

/// What valgrind counts while this program refreshes.
fn count(dir: &DataDir, refreshes: usize) -> Result<Counted> {
    let profiles = tempfile::tempdir()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}", profiles.path().join("thread").display()))
        .arg(env::current_exe()?)
        .arg("refreshes")
        .args(["--count", &refreshes.to_string(), "--data"])
        .arg(dir.path())
        .output()
        .context("valgrind")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the counted run failed: {told}");
    let mut counted = Counted::default();
    for file in fs::read_dir(profiles.path())? {
        let profile = fs::read_to_string(file?.path())?;
        let Some(total) = profile.lines().find_map(|line| line.strip_prefix("totals: ")) else { continue };
        let total: f64 = total.trim().parse()?;
        // A profile names the functions that its thread went through.
        let ran = |function: &str| profile.lines().any(|line| line.ends_with(function));
        match (ran("rekindle_sqlite::writer::write"), ran("rekindle_sqlite::writer::checkpoint")) {
            (true, _) => counted.writer += total,
            (false, true) => counted.checkpoints += total,
            (false, false) => counted.request += total,
        }
    }
    ensure!(counted.writer > 0.0, "no thread of the counted run is the store's writer");
    Ok(counted)
}

/// Carries out refreshes on an existing store, of sessions spread evenly over it, one after the other.
pub fn refreshes(data: &Path, count: usize) -> Result<()> {
    let dir = DataDir::existing(data.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // As many in either run, because finding them counts, too.
    let mut tokens = tokens(&dir, *RUNS.iter().max().expect("two runs"))?;
    runtime.block_on(async {
        let (engine, scope) = (dir.engine().await?, scope());
        for turn in (0..tokens.len()).cycle().take(count) {
            let token = &mut tokens[turn];
            let request = Refresh { refresh_token: token.expose(), tag: None, proof: None };
            match engine.refresh(&scope, request, &Context::default()).await? {
                RefreshOutcome::Refreshed(next) => *token = next.refresh_token,
                RefreshOutcome::Refused(_) => bail!("a refresh was refused"),
            }
        }
        Ok(())
    })
}

/// The refresh tokens of at most `count` bearer sessions, spread over the store, as their rows have them now.
fn tokens(dir: &DataDir, count: usize) -> Result<Vec<RefreshToken>> {
    let (secrets, connection) = (dir.secrets()?, Connection::open(dir.database())?);
    let sessions: i64 = connection.query_row("SELECT max(rowid) FROM sessions", [], |row| row.get(0))?;
    let mut select = connection.prepare(
        "SELECT id, generation, commitment, issued_at, kid FROM sessions
         WHERE rowid >= ?1 AND commitment = zeroblob(16) LIMIT 1",
    )?;
    let row = |i: usize| {
        let row = select.query_row([i as i64 * sessions / count as i64], |row| {
            let commitment = Commitment::from_bytes(row.get(2)?);
            let position = Position { generation: row.get(1)?, commitment, issued_at: row.get(3)?, kid: row.get(4)? };
            Ok((SessionId::from_bytes(row.get(0)?), position))
        });
        Ok(row.optional()?)
    };
    let mut rows: Vec<_> = (0..count).map(row).filter_map(Result::transpose).collect::<Result<_>>()?;
    // A small store has fewer: no token is used twice, as that would be no refresh.
    rows.dedup_by_key(|(id, _)| *id);
    let token = |(id, position)| secrets.issue(id, &position).context("the secrets are not those of the store");
    rows.into_iter().map(token).collect()
}
