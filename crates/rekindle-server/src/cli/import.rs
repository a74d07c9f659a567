//! `rekindle import`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Source, operator, table};
use crate::{
    config::Secret,
    runtime,
    supertokens::import::{Importer, Report},
};

#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// Take over the apps, tenants, signing keys and sessions of a SuperTokens core: nobody is logged out by the move.
    ///
    /// The core's database is only read. Repeat it as often as you like while the core serves, each time brings over what changed;
    /// then stop the core, repeat it once more, and let the SDKs use this server.
    Supertokens(SuperTokens),
}

#[derive(Debug, Args)]
struct SuperTokens {
    #[command(flatten)]
    source: Source,
    /// The core's database: `postgres://…` or `mysql://…`. A password is better given by the variable: the command line is seen by all.
    #[arg(long, env = "REKINDLE_IMPORT_FROM", value_name = "URL", hide_env_values = true)]
    from: Secret,
    /// How the names of its tables start, as in `prefix_` or `schema.prefix_`.
    #[arg(long, default_value = "", value_name = "PREFIX", hide_default_value = true)]
    table_prefix: String,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl Import {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let From::Supertokens(args) = self.from;
        args.run().await
    }
}

impl SuperTokens {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.source.read_to_write()?;
        let opened = runtime::open(&config).await?;
        let open = |dry_run| {
            let (url, prefix) = (self.from.expose(), &self.table_prefix);
            Importer::open(&opened, &config.supertokens, url, prefix, dry_run, operator())
        };
        let bar = Bar::default();
        let report = open(self.dry_run).await?.pass(|done, of| bar.show(done, of)).await?;
        print(&report);
        if self.dry_run {
            eprintln!("nothing was written");
        } else {
            let left = open(true).await?.pass(|done, of| bar.show(done, of)).await?;
            let different = left.created + left.updated + left.gone;
            match different {
                0 => {
                    eprintln!("verified: every session of the core is here as it is there, or its client has come over")
                }
                _ => eprintln!("{different} sessions have changed meanwhile: stop the core, and repeat this"),
            }
        }
        Ok(if report.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// How many of those that were refused are named.
const NAMED: usize = 20;

fn print(report: &Report) {
    let rows: Vec<[String; 2]> = [
        ("apps", report.apps as u64),
        ("tenants", report.tenants as u64),
        ("new signing keys", report.keys as u64),
        ("sessions", report.sessions),
        ("  new", report.created),
        ("  changed", report.updated),
        ("  as they were", report.same),
        ("  in use here", report.in_use),
        ("  ended here", report.ended),
        ("ended in the core", report.gone),
        ("refused", report.refused.len() as u64),
    ]
    .map(|(name, number)| [name.to_owned(), number.to_string()])
    .into();
    print!("{}", table(&rows));
    for (what, why) in report.ignored.iter() {
        eprintln!("ignored: {what}: {why}");
    }
    for (what, why) in report.refused.iter().take(NAMED) {
        eprintln!("refused: {what}: {why}");
    }
    if report.refused.len() > NAMED {
        eprintln!("refused: {} more", report.refused.len() - NAMED);
    }
}

/// A progress bar, if there is a terminal.
struct Bar(ProgressBar);

impl Default for Bar {
    fn default() -> Self {
        let style = ProgressStyle::with_template("sessions {wide_bar} {pos}/{len}, {per_sec}, {eta} left");
        Self(ProgressBar::new(0).with_style(style.expect("a valid template")))
    }
}

impl Bar {
    fn show(&self, done: u64, of: u64) {
        self.0.set_length(of.max(done));
        self.0.set_position(done);
        if done == of {
            self.0.finish_and_clear();
        }
    }
}
