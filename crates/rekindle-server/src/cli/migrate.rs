//! `rekindle migrate`.

use std::process::ExitCode;

use clap::Args;
use rekindle_embedded::OpenStore;

use super::Source;

#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    source: Source,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl Migrate {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.source.read_to_write()?;
        let pending = OpenStore::pending(&config.location()).await?;
        if !self.dry_run {
            OpenStore::open(&config.location()).await?;
        }
        for migration in &pending {
            println!("{migration}");
        }
        let done = if self.dry_run { "to be applied to" } else { "applied to" };
        eprintln!("{} migrations {done} {}", pending.len(), config.store);
        Ok(ExitCode::SUCCESS)
    }
}
