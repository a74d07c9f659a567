//! `rekindle copy`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rekindle::{
    copy::{Copy, Pass, Progress},
    rng::SystemRng,
    store::Section,
};
use rekindle_embedded::{OpenStore, files};

use super::{audit_entry, table};
use crate::config::{Config, Secret, StoreUrl};

#[derive(Debug, Args)]
pub(super) struct CopyStore {
    /// The store to copy from. A password is better given by the variable: the command line is seen by all.
    #[arg(long, env = "REKINDLE_COPY_FROM", value_name = "URL", hide_env_values = true)]
    from: Secret,
    /// The store to copy to: an empty one, or one to which the same store is being copied.
    #[arg(long, env = "REKINDLE_COPY_TO", value_name = "URL", hide_env_values = true)]
    to: Secret,
    /// The servers that worked on the first store are stopped: copy the rest, and prove that nothing differs.
    #[arg(long)]
    finish: bool,
    /// After --finish: go back to the first store, giving up what was acknowledged on the second one.
    #[arg(long, conflicts_with = "finish")]
    reopen: bool,
}

impl CopyStore {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let (from, to) = (config(&self.from, "--from")?, config(&self.to, "--to")?);
        anyhow::ensure!(from.store != to.store, "--from and --to are the same store: {}", from.store);
        if !OpenStore::pending(&from.location()).await.context("--from")?.is_empty() {
            anyhow::bail!(
                "--from: {} is empty, or older than this Rekindle: run `rekindle migrate` on it first",
                from.store
            );
        }
        let source = if self.finish {
            OpenStore::open_alone(&from.location()).await
        } else {
            OpenStore::open(&from.location()).await
        };
        let source = source.context("--from")?;
        let names = format!("{} to {}", from.store, to.store);
        let mark = |action| audit_entry(action, names.clone(), &SystemRng::default());
        if self.reopen {
            source.store().append_audit(mark(Copy::REOPEN)).await?;
            eprintln!("servers may work on {} again: let none work on {}", from.store, to.store);
            return Ok(ExitCode::SUCCESS);
        }
        let target = OpenStore::open(&to.location()).await.context("--to")?;
        let copy = Copy::begin(source.store(), target.store(), mark(Copy::BEGIN)).await?;
        let mut bar = Bar::default();
        if self.finish {
            let pass = copy.finish(mark(Copy::FINISH), mark(Copy::RETIRE), |progress| bar.show(progress)).await?;
            print(&pass, true);
            eprintln!("nothing differs: start the servers with {}, and keep their revocation logs", to.store);
        } else {
            // A pass takes long when there is much to copy, and meanwhile more comes up: on, while that gets less.
            let mut before = u64::MAX;
            loop {
                let pass = copy.pass(|progress| bar.show(progress)).await?;
                print(&pass, false);
                if pass.differences() >= before / 2 {
                    break;
                }
                before = pass.differences();
            }
            eprintln!("what servers change from now on is not copied: stop them, and finish with --finish");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What opens the store that an argument names.
fn config(url: &Secret, argument: &'static str) -> anyhow::Result<Config> {
    let store: StoreUrl = url.expose().parse().map_err(|why: String| anyhow::anyhow!("{argument}: {why}"))?;
    let config = Config { store, ..Config::default() };
    if let Some(directory) = config.sqlite_path().as_deref().and_then(|path| path.parent()) {
        files::refuse_root(directory)?;
    }
    Ok(config)
}

fn print(pass: &Pass, whole: bool) {
    let header = ["", "records", "copied", "removed", if whole { "sha-256" } else { "" }].map(str::to_owned);
    let checksum =
        |bytes: &[u8]| if whole { bytes.iter().map(|byte| format!("{byte:02x}")).collect() } else { String::new() };
    let row = |(section, compared): &(Section, rekindle::copy::Compared)| {
        let (records, copied, removed) = (compared.records, compared.copied, compared.removed);
        let numbers = [records, copied, removed].map(|n| n.to_string());
        let [records, copied, removed] = numbers;
        [section.as_str().to_owned(), records, copied, removed, checksum(&compared.checksum)]
    };
    let rows: Vec<[String; 5]> = std::iter::once(header).chain(pass.sections.iter().map(row)).collect();
    print!("{}", table(&rows));
    println!("configuration: {}", if pass.configuration { "copied" } else { "the same" });
}

/// A progress bar for each section, if there is a terminal.
#[derive(Default)]
struct Bar(Option<(Section, ProgressBar)>);

impl Bar {
    fn show(&mut self, progress: Progress) {
        let Progress { section, done, of } = progress;
        if self.0.as_ref().is_none_or(|(shown, _)| *shown != section) {
            let style = ProgressStyle::with_template("{prefix:13} {wide_bar} {pos}/{len}, {per_sec}, {eta} left");
            let bar = ProgressBar::new(of).with_prefix(section.as_str()).with_style(style.expect("a valid template"));
            self.0 = Some((section, bar));
        }
        if let Some((_, bar)) = &self.0 {
            bar.set_length(of.max(done));
            bar.set_position(done);
            if done == of {
                bar.finish_and_clear();
            }
        }
    }
}
