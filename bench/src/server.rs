//! The server under test, and the one that does nothing, each in a process of its own.

use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process::{Server, free_address};
use crate::seed::{DataDir, ISSUER};

/// Starts a Rekindle server on a loaded store, by the store's URL; also where its metrics are. Without a path, its binary is
/// `rekindle` beside this program.
pub fn serve(binary: Option<&Path>, dir: &DataDir, store: &str) -> Result<(Server, SocketAddr)> {
    let binary = match binary {
        Some(path) => path.to_owned(),
        None => env::current_exe()?.with_file_name("rekindle"),
    };
    let (address, metrics) = (free_address()?, free_address()?);
    let config = dir.path().join("rekindle.toml");
    fs::write(
        &config,
        format!(
            "listen = \"{address}\"\ndata_dir = {:?}\nstore = \"{store}\"\nissuer = \"{ISSUER}\"\n[secrets]\nfile = {:?}\n\
             [limits]\nrequests_per_second = 0\n[metrics]\nlisten = \"{metrics}\"\n",
            dir.path(),
            dir.secrets_file(),
        ),
    )?;
    let log = File::create(dir.path().join("server.log"))?;
    let mut command = Command::new(binary);
    command.args(["serve", "--dev", "--config"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let server = Server::start(&mut command, address);
    let server = server.with_context(|| fs::read_to_string(dir.path().join("server.log")).unwrap_or_default())?;
    Ok((server, metrics))
}

/// Starts the endpoint that shows what HTTP alone costs.
pub fn serve_floor() -> Result<Server> {
    let address = free_address()?;
    let listen = address.to_string();
    Server::start(Command::new(env::current_exe()?).args(["floor-http", "--listen", &listen]), address)
}

/// What the server's metrics tell of its store.
#[derive(Debug, Default)]
pub struct StoreCounts {
    /// Operations.
    pub operations: u64,
    /// Write transactions.
    pub transactions: u64,
    /// The writes that they carried.
    writes: u64,
}

impl StoreCounts {
    /// So far.
    pub fn read(metrics: SocketAddr) -> Result<Self> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(metrics)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let sum = |prefix: &str| {
            let values =
                text.lines().filter(|line| line.starts_with(prefix)).filter_map(|line| line.rsplit(' ').next());
            values.filter_map(|value| value.parse::<u64>().ok()).sum()
        };
        Ok(Self {
            operations: sum("rekindle_store_duration_seconds_count{"),
            transactions: sum("rekindle_store_transactions_total"),
            writes: sum("rekindle_store_writes_total"),
        })
    }

    /// Since an earlier moment.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            operations: self.operations - before.operations,
            transactions: self.transactions - before.transactions,
            writes: self.writes - before.writes,
        }
    }

    /// Writes per transaction.
    pub fn group(&self) -> f64 {
        self.writes as f64 / self.transactions.max(1) as f64
    }
}
