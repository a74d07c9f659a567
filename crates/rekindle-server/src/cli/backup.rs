//! `rekindle backup`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use rekindle::rng::SystemRng;
use rekindle_embedded::OpenStore;
use rekindle_sqlite::SqliteStore;

use super::{Source, audit_entry};

#[derive(Debug, Args)]
pub(super) struct Backup {
    #[command(flatten)]
    source: Source,
    /// The file to make; it must not exist.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl Backup {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.source.read_of_store()?;
        let store = OpenStore::open(&config.location()).await?;
        store.sqlite().ok_or_else(|| super::not_a_file(&config, "back up"))?.backup(&self.to)?;
        SqliteStore::verify_file(&self.to)?;
        let entry = audit_entry("store.backup", self.to.display().to_string(), &SystemRng::default());
        store.store().append_audit(entry).await?;
        eprintln!("{} is whole. Keep a copy of the revocation log with it, taken after it:", self.to.display());
        eprintln!("  {}", config.revocation_log_path().display());
        eprintln!(
            "and the master secrets somewhere else: a backup alone refreshes nothing, and without them no session goes on."
        );
        Ok(ExitCode::SUCCESS)
    }
}
