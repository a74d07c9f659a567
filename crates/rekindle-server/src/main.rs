//! The `rekindle` binary.

use std::process::ExitCode;

use clap::Parser;

/// A request makes some forty small allocations: with this allocator a refresh costs a tenth less. Without huge pages (`no_thp`),
/// which would make an idle server half as large again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rekindle_server::cli::Cli::parse().run().unwrap_or_else(|error| {
        // For people, on one line: a stack trace tells an operator nothing.
        eprintln!("error: {}", rekindle_server::cause::chain(&*error));
        ExitCode::FAILURE
    })
}
