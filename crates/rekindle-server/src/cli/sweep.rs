//! `rekindle sweep`.

use std::process::ExitCode;

use clap::Args;

use super::Source;
use crate::runtime;

#[derive(Debug, Args)]
pub(super) struct Sweep {
    #[command(flatten)]
    source: Source,
}

impl Sweep {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let opened = runtime::open(&self.source.read_of_store()?).await?;
        let now = opened.engine.now();
        let (mut ended, mut removed) = (0, 0);
        loop {
            let swept = opened.engine.sweep(now).await?;
            ended += swept.ended;
            removed += swept.removed;
            if swept.next.is_none() {
                break;
            }
        }
        eprintln!(
            "{ended} sessions had run out and were noted as ended; {removed} were past the retention and were removed."
        );
        Ok(ExitCode::SUCCESS)
    }
}
