//! `rekindle restore`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::Args;
use rekindle::{
    clock::{Clock, SystemClock, Timestamp},
    revocation_log::{FileRevocationLog, Record, RevocationLog},
    rng::SystemRng,
    store::Store,
};
use rekindle_embedded::{StoreLock, files};
use rekindle_sqlite::SqliteStore;

use super::{Source, audit_entry};

#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    source: Source,
    /// The backup.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// End every session that was refreshed since then, usually the time of the backup: for when what happened since is not to
    /// be trusted. An RFC 3339 time in UTC, like 2026-11-20T10:00:00Z.
    #[arg(long, value_name = "TIME")]
    end_refreshed_since: Option<Timestamp>,
}

/// What a SQLite database consists of.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

impl Restore {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.source.read_to_write()?;
        let store = config.sqlite_path().ok_or_else(|| super::not_a_file(&config, "restore"))?;
        let now = SystemClock.now();
        ensure!(self.from.exists(), "there is no file {}", self.from.display());
        if let Some(since) = self.end_refreshed_since {
            ensure!(since <= now, "--end-refreshed-since {since} is in the future: it is {now}");
        }
        files::private_dir(&config.data_dir)?;
        let _lock = StoreLock::exclusive(&store)?;

        let fresh = store.with_added_extension("restoring");
        remove(&fresh)?;
        self.prepare(&fresh, now).await.inspect_err(|_| drop(remove(&fresh)))?;

        let log_path = config.revocation_log_path();
        let log = FileRevocationLog::open(&log_path, now).with_context(|| log_path.display().to_string())?;
        if let Some(from) = self.end_refreshed_since {
            log.append(vec![Record::Rollback { from, to: now }]).await.context("the revocation log")?;
        }

        let aside = store.with_added_extension(format!("replaced-{}", now.secs()));
        let replaced = store.exists();
        move_all(&store, &aside).with_context(|| format!("{} could not be put aside", store.display()))?;
        move_all(&fresh, &store).with_context(|| format!("{} could not be put in place", fresh.display()))?;
        files::sync_parent(&store)?;

        eprintln!("{} is restored from {}.", store.display(), self.from.display());
        if replaced {
            eprintln!("What was there is kept as {}; remove it when you do not need it any more.", aside.display());
        }
        eprintln!("\nWhat this means for sessions:");
        eprintln!(
            "  ended since the backup:     they stay ended: {} endings are in the revocation log.",
            log.endings().len()
        );
        eprintln!("  started since the backup:   they are gone; their users sign in again.");
        match self.end_refreshed_since {
            None => eprintln!("  refreshed since the backup: they go on; data and claims written since are lost."),
            Some(since) => eprintln!("  refreshed since {since}: they are over; their users sign in again."),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Copies the backup to where it can be opened, brings it to this build's schema, and checks all of it.
    async fn prepare(&self, fresh: &Path, now: Timestamp) -> anyhow::Result<()> {
        files::new_private_file(fresh, "")?;
        fs::copy(&self.from, fresh).with_context(|| format!("{} could not be copied", self.from.display()))?;
        // `copy` also copies permissions, and a backup's may be wider.
        #[cfg(unix)]
        fs::set_permissions(fresh, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        ensure!(fs::metadata(fresh)?.len() > 0, "{} is empty", self.from.display());
        let store = SqliteStore::open(fresh, now)?;
        let entry = audit_entry("store.restore", self.from.display().to_string(), &SystemRng::default());
        store.append_audit(entry).await?;
        drop(store);
        SqliteStore::verify_file(fresh)?;
        Ok(fs::File::open(fresh)?.sync_all()?)
    }
}

fn part(of: &Path, suffix: &str) -> PathBuf {
    let mut name = of.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    PARTS.iter().try_for_each(|suffix| match fs::rename(part(from, suffix), part(to, suffix)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        moved => moved,
    })
}

fn remove(path: &Path) -> io::Result<()> {
    PARTS.iter().try_for_each(|suffix| match fs::remove_file(part(path, suffix)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    })
}
