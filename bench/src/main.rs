//! `rekindle-bench`: what a refresh, a start and a verification cost the server, beside what their parts cost alone.
//!
//! `users` carry token chains, `load` drives them, `floors` and `http` measure the parts, `verify` and `instructions` look at the
//! engine in process, `report` compares. `face` does the same for what SuperTokens SDKs ask. `stores` does the same for each store, on a `database` of its own; `bloat` looks at
//! what refreshes leave in PostgreSQL. `seed` fills a store, `server` starts what is measured, `process` asks the operating
//! system.

mod bloat;
mod database;
mod face;
mod floors;
mod http;
mod instructions;
mod load;
mod process;
mod report;
mod seed;
mod server;
mod stores;
mod users;
mod verify;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "rekindle-bench", about = "What Rekindle costs, beside what its parts cost alone")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the server and the floors, and print a table.
    All(report::Options),
    /// Measure the server on each store by the number of clients, beside the bare driver, and print tables.
    Stores(stores::Options),
    /// Measure the SuperTokens face and its floors, and print a table.
    Supertokens(report::Options),
    /// Measure what refreshes leave behind on PostgreSQL.
    Bloat(bloat::Options),
    /// Count the instructions of a refresh in process, on stores of several sizes (needs valgrind).
    Instructions {
        /// How many sessions each store has.
        #[arg(long, value_delimiter = ',', default_value = "1000,100000,1000000")]
        sessions: Vec<usize>,
    },
    /// Serve the endpoint that shows what HTTP alone costs.
    #[command(hide = true)]
    FloorHttp {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Refresh in process, to be counted.
    #[command(hide = true)]
    Refreshes {
        #[arg(long)]
        data: PathBuf,
        #[arg(long)]
        count: usize,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::All(options) => report::all(&options),
        Command::Stores(options) => stores::all(&options),
        Command::Supertokens(options) => face::all(&options),
        Command::Bloat(options) => bloat::bloat(&options),
        Command::Instructions { sessions } => report::instructions(&sessions),
        Command::FloorHttp { listen } => http::serve_floor(listen),
        Command::Refreshes { data, count } => instructions::refreshes(&data, count),
    }
}
