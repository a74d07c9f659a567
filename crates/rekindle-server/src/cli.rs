//! The command line.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::{
    app,
    config::{Config, Overrides, Problems},
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
    /// Say what is wrong with a configuration, all of it at once, or print the effective one.
    CheckConfig(CheckConfig),
    /// Print the JSON Schema of the configuration file.
    ConfigSchema,
    /// Print the OpenAPI 3.1 document of the API.
    Openapi,
}

impl Cli {
    /// Runs the command. What it prints for programs goes to standard output, everything else to standard error.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::CheckConfig(args) => match args.run() {
                Ok(effective) => print!("{effective}"),
                Err(problems) => {
                    eprintln!("{problems}");
                    return Ok(ExitCode::FAILURE);
                }
            },
            Command::ConfigSchema => println!("{:#}", Config::json_schema()),
            Command::Openapi => print!("{}", app::openapi_json()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where the configuration comes from, and whether it has to be fit for production.
#[derive(Debug, Args)]
pub struct CheckConfig {
    /// Check it for development: weak settings are allowed.
    #[arg(long)]
    pub dev: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become help text")]
    pub overrides: Overrides,
}

impl CheckConfig {
    /// The effective configuration as TOML, secrets redacted; or every problem.
    pub fn run(&self) -> Result<String, Problems> {
        load(&self.overrides, self.dev).map(|config| config.to_toml())
    }
}

/// Reads the configuration; unless it is for development, weak settings are problems too.
pub fn load(overrides: &Overrides, dev: bool) -> Result<Config, Problems> {
    let config = Config::load(overrides)?;
    let weak = if dev { Vec::new() } else { config.problems_for_production(overrides.config.as_deref()) };
    if weak.is_empty() { Ok(config) } else { Err(Problems(weak)) }
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
}
