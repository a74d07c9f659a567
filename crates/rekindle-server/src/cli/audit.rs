//! `rekindle audit`.

use std::process::ExitCode;

use clap::Args;
use rekindle_embedded::OpenStore;

use super::{Source, table};

#[derive(Debug, Args)]
pub(super) struct Audit {
    #[command(flatten)]
    source: Source,
    /// How many entries at most.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// Print JSON, one entry per line.
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let store = OpenStore::open(&self.source.read_of_store()?.location()).await?;
        let entries = store.store().audit_log(None, self.limit).await?;
        if self.json {
            for entry in &entries {
                println!("{}", serde_json::to_string(entry)?);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = vec![["AT", "WHO", "WHAT", "TO WHAT", "FROM"].map(str::to_owned)];
        rows.extend(entries.into_iter().map(|entry| {
            let from = entry.ip.unwrap_or_else(|| "-".into());
            [entry.at.to_string(), entry.actor, entry.action, entry.target, from]
        }));
        print!("{}", table(&rows));
        Ok(ExitCode::SUCCESS)
    }
}
