//! The `rekindle` binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> anyhow::Result<ExitCode> {
    rekindle_server::cli::Cli::parse().run()
}
