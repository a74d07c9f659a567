//! The command line, one file per command.
//!
//! What a command prints for programs goes to standard output, everything else to standard error. It ends with 0 when all is
//! well, with 1 when something is wrong or was found to be, with 2 when it was called wrongly.

mod api_key;
mod audit;
mod backup;
mod copy;
mod doctor;
mod import;
mod keys;
mod migrate;
mod restore;
mod serve;
mod sessions;
mod sweep;
mod webhook;

use std::{future::Future, path::PathBuf, process::ExitCode};

use anyhow::ensure;
use clap::{Args, Parser, Subcommand};
use rekindle::{
    clock::{Clock, SystemClock},
    journal::{Context, EventId},
    rng::Rng,
    session::{Env, Scope, Tag},
    store::AuditEntry,
};
use rekindle_embedded::files;

use crate::{
    app,
    config::{Config, Overrides, Problems, Secret},
};

/// Rekindle: sessions that no thief can share and no bad network can end.
#[derive(Debug, Parser)]
#[command(name = "rekindle", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Serve),
    /// Make, list and revoke the keys that backends call with.
    ApiKey(api_key::ApiKeys),
    /// List and rotate the keys that sign access tokens.
    Keys(keys::Keys),
    /// Look at sessions, and end them.
    Sessions(sessions::Sessions),
    /// Try out webhooks.
    Webhook(webhook::Webhooks),
    /// Note natural ends and remove what is older than the retention, all of it, now.
    Sweep(sweep::Sweep),
    /// Bring the store's schema to this version, as a server does when it starts.
    Migrate(migrate::Migrate),
    /// Copy the store to a file, while servers run.
    Backup(backup::Backup),
    /// Put a backup in the place of the store, while no server runs.
    Restore(restore::Restore),
    /// Copy everything to another store, while servers work on the first one.
    Copy(copy::CopyStore),
    /// Take over the sessions of another system.
    Import(import::Import),
    /// Look an installation over, and say what is wrong with it.
    Doctor(doctor::Doctor),
    /// Print the audit log, newest first.
    Audit(audit::Audit),
    /// Say what is wrong with a configuration, all of it at once, or print the effective one.
    CheckConfig(CheckConfig),
    /// Print the JSON Schema of the configuration file.
    ConfigSchema,
    /// Print the OpenAPI 3.1 document of the API.
    Openapi,
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => args.run(),
            Command::ApiKey(args) => block_on(args.run()),
            Command::Keys(args) => block_on(args.run()),
            Command::Sessions(args) => block_on(args.run()),
            Command::Webhook(args) => block_on(args.run()),
            Command::Sweep(args) => block_on(args.run()),
            Command::Migrate(args) => block_on(args.run()),
            Command::Backup(args) => block_on(args.run()),
            Command::Restore(args) => block_on(args.run()),
            Command::Copy(args) => block_on(args.run()),
            Command::Import(args) => block_on(args.run()),
            Command::Doctor(args) => block_on(args.run()),
            Command::Audit(args) => block_on(args.run()),
            Command::CheckConfig(args) => match args.run() {
                Ok(effective) => {
                    print!("{effective}");
                    Ok(ExitCode::SUCCESS)
                }
                Err(problems) => {
                    eprintln!("{problems}");
                    Ok(ExitCode::FAILURE)
                }
            },
            Command::ConfigSchema => {
                println!("{:#}", Config::json_schema());
                Ok(ExitCode::SUCCESS)
            }
            Command::Openapi => {
                print!("{}", app::openapi_json());
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Runs a command that needs no more than one thread.
fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

#[derive(Debug, Clone, Args)]
struct Source {
    /// The server's configuration file. Without one, every value has its default, as with `serve --dev`.
    #[arg(long, env = "REKINDLE_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The file with the master secrets, instead of the configuration's.
    #[arg(long, env = "REKINDLE_SECRETS_FILE", value_name = "FILE", global = true)]
    secrets_file: Option<PathBuf>,
    /// The store, instead of the configuration's. A password is better given by the variable: the command line is seen by all.
    #[arg(long, env = "REKINDLE_STORE", value_name = "URL", global = true, hide_env_values = true)]
    store: Option<Secret>,
}

impl Source {
    /// The configuration. It need not be fit for production: a command that repairs something must run.
    fn read(&self) -> Result<Config, Problems> {
        Config::load(&Overrides {
            config: self.config.clone(),
            secrets_file: self.secrets_file.clone(),
            store: self.store.clone(),
            ..Overrides::default()
        })
    }

    /// The configuration, for a command that may write into the data directory beside the server.
    fn read_to_write(&self) -> anyhow::Result<Config> {
        let config = self.read()?;
        files::refuse_root(&config.data_dir)?;
        Ok(config)
    }

    /// The same, for a command that works on a store that is there: one that it made would be empty, and its answer wrong.
    fn read_of_store(&self) -> anyhow::Result<Config> {
        let config = self.read_to_write()?;
        if let Some(path) = config.sqlite_path() {
            ensure!(
                path.exists(),
                "there is no store `{}`: set --config or --store, or run this where the server runs",
                path.display()
            );
        }
        Ok(config)
    }
}

#[derive(Debug, Clone, Args)]
struct InScope {
    /// The product.
    #[arg(long, default_value = "default", value_name = "TAG")]
    product: Tag,
    /// The environment.
    #[arg(long, default_value = "dev", value_name = "SLUG")]
    env: Env,
}

impl InScope {
    fn scope(self) -> Scope {
        Scope { product: self.product, env: self.env }
    }
}

/// Who did it: the audit log's `cli`.
fn operator() -> Context {
    Context { actor: Some("cli".into()), ..Context::default() }
}

/// An entry of the audit log about what no engine's method does.
fn audit_entry(action: &str, target: String, rng: &dyn Rng) -> AuditEntry {
    let at = SystemClock.now();
    let (actor, action) = ("cli".to_owned(), action.to_owned());
    AuditEntry { id: EventId::draw(at, rng), at, actor, action, target, ip: None, request_id: None }
}

/// Why a command for files does nothing to a store that is kept elsewhere.
fn not_a_file(config: &Config, what: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "the store is `{}`: {what} it with its server's own tools; see \"Backup and restore\" in docs/OPERATIONS.md",
        config.store
    )
}

/// Rows as lines, their cells aligned. Control characters are escaped: they may come from anybody.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |at: usize| cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    cells.iter().map(line).collect()
}

/// A text that moves no cursor and colours nothing.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[derive(Debug, Args)]
struct CheckConfig {
    /// Check it for development: weak settings are allowed.
    #[arg(long)]
    dev: bool,
    #[command(flatten)]
    overrides: Overrides,
}

impl CheckConfig {
    /// The effective configuration as TOML, secrets redacted; or every problem.
    fn run(&self) -> Result<String, Problems> {
        let problems = if self.dev { Vec::new() } else { Config::check_for_production(&self.overrides) };
        if problems.is_empty() { Ok(Config::load(&self.overrides)?.to_toml()) } else { Err(Problems(problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_check_for_production_says_more_than_one_for_development() {
        let check = |dev| CheckConfig { dev, overrides: Overrides::default() }.run();
        assert_eq!(check(true).unwrap(), Config::default().to_toml());
        assert_eq!(check(false).unwrap_err().0.len(), 2);
    }

    #[test]
    fn tables_are_aligned_and_cannot_steer_the_terminal() {
        let rows = [["a".to_owned(), "b".to_owned()], ["long\u{1b}[2J".to_owned(), "ü".to_owned()]];
        assert_eq!(table(&rows), "a              b\nlong\\u{1b}[2J  ü\n");
    }
}
