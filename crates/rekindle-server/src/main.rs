//! The `rekindle` binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    rekindle_server::cli::Cli::parse().run().unwrap_or_else(|error| {
        // For people, on one line: a stack trace tells an operator nothing.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
