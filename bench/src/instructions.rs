//! Instructions per refresh, as stores grow: counted by valgrind, because a count does not depend on what else runs.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rekindle::engine::{Refresh, RefreshOutcome};
use rekindle::journal::Context;
use rekindle::refresh::{Commitment, RefreshToken};
use rekindle::rotation::Position;
use rekindle::session::SessionId;
use rusqlite::Connection;

use crate::seed::{DataDir, load, scope};

/// How many refreshes the two counted runs carry out; their difference is free of start and end.
const RUNS: [usize; 2] = [500, 1500];

/// Instructions per refresh on a store of `sessions` sessions, one refresh after the other.
pub fn per_refresh(sessions: usize) -> Result<u64> {
    let temporary = tempfile::tempdir()?;
    let dir = DataDir::create(temporary.path().join("data"))?;
    eprintln!("loading {sessions} sessions …");
    tokio::runtime::Runtime::new()?.block_on(async { load(&dir.engine().await?, sessions, 0).await })?;
    let counted = RUNS.map(|refreshes| count(&dir, refreshes));
    let [few, many] = counted;
    Ok((many? - few?) / (RUNS[1] - RUNS[0]) as u64)
}

/// What valgrind counts while this program refreshes.
fn count(dir: &DataDir, refreshes: usize) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .arg("refreshes")
        .args(["--count", &refreshes.to_string(), "--data"])
        .arg(dir.path())
        .output()
        .context("valgrind")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the counted run failed: {told}");
    let line = told.lines().find_map(|line| line.split_once("refs:")).context("valgrind counted nothing")?;
    Ok(line.1.trim().replace(',', "").parse()?)
}

/// Carries out refreshes on an existing store, of sessions spread evenly over it, one after the other.
pub fn refreshes(data: &Path, count: usize) -> Result<()> {
    let dir = DataDir::existing(data.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tokens = tokens(&dir, *RUNS.iter().max().expect("two runs"))?;
    runtime.block_on(async {
        let (engine, scope) = (dir.engine().await?, scope());
        for token in tokens.iter().cycle().take(count) {
            let request = Refresh { refresh_token: token.expose(), tag: None, proof: None };
            match engine.refresh(&scope, request, &Context::default()).await? {
                RefreshOutcome::Refreshed(_) => {}
                RefreshOutcome::Refused(_) => bail!("a refresh was refused"),
            }
        }
        Ok(())
    })
}

/// The refresh tokens of `count` bearer sessions as their rows have them now.
fn tokens(dir: &DataDir, count: usize) -> Result<Vec<RefreshToken>> {
    let (secrets, connection) = (dir.secrets()?, Connection::open(dir.database())?);
    let sessions: i64 = connection.query_row("SELECT max(rowid) FROM sessions", [], |row| row.get(0))?;
    let mut select = connection.prepare(
        "SELECT id, generation, commitment, issued_at, kid FROM sessions
         WHERE rowid >= ?1 AND commitment = zeroblob(16) LIMIT 1",
    )?;
    let token = |i: usize| {
        let (id, position) = select.query_row([i as i64 * sessions / count as i64], |row| {
            let commitment = Commitment::from_bytes(row.get(2)?);
            let position = Position { generation: row.get(1)?, commitment, issued_at: row.get(3)?, kid: row.get(4)? };
            Ok((SessionId::from_bytes(row.get(0)?), position))
        })?;
        secrets.issue(id, &position).context("the secrets are not those of the store")
    };
    (0..count).map(token).collect()
}
