//! PostgreSQL.

use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Launch, Server, free_port, program, run_as, temporary_folder, with_small_disk};

/// The Debian package that has the server.
const PACKAGE: &str = "postgresql";
/// The system's user that runs it, and the database's superuser.
const SUPERUSER: &str = "postgres";
/// The role that databases belong to, an ordinary one, and its password.
pub const ROLE: &str = "rekindle";
/// See [`ROLE`].
pub const PASSWORD: &str = "p@ss/wörd";
/// [`PASSWORD`] as a URL has it.
const PASSWORD_IN_URL: &str = "p%40ss%2Fw%C3%B6rd";

/// The tablespace of a server [with a small disk](Postgres::with_small_disk).
pub const SMALL: &str = "small";

/// What makes a server quick whose data nobody needs: nothing survives a crash of the machine.
const QUICK: [&str; 4] = ["fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=400"];

/// A PostgreSQL server with the role [`ROLE`].
pub struct Postgres {
    server: Server,
    bin: PathBuf,
}

impl Postgres {
    /// The one that all tests of a program share: quick, not durable.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Postgres> = LazyLock::new(|| Postgres::start(&QUICK));
        &SHARED
    }

    /// A quick one for a single test.
    pub fn quick() -> Self {
        Self::start(&QUICK)
    }

    /// A quick one with a disk of so many bytes beside its own: the tablespace [`SMALL`].
    pub fn with_small_disk(bytes: u64) -> Self {
        let (bin, folder) = installed();
        let disk = folder.join("disk");
        let postgres = Self::started(bin, folder, &QUICK, |command| with_small_disk(&disk, bytes, command));
        postgres.create_role();
        postgres.sql(SUPERUSER, &format!("CREATE TABLESPACE {SMALL} LOCATION '{}'", disk.display()));
        postgres
    }

    /// One with settings like `fsync=off`; everything else as PostgreSQL has it, so without settings it is durable.
    pub fn start(settings: &[&str]) -> Self {
        let (bin, folder) = installed();
        let postgres = Self::start_in(bin, folder, settings);
        postgres.create_role();
        postgres
    }

    /// A copy of this server, read-only, that follows it through this port of the loopback interface.
    pub fn standby(&self, through: u16) -> Self {
        const REPLICATOR: &str = "replicator";
        self.sql(SUPERUSER, &format!("CREATE ROLE {REPLICATOR} REPLICATION LOGIN PASSWORD '{REPLICATOR}'"));
        let folder = temporary_folder(SUPERUSER);
        let mut copy = run_as(SUPERUSER, &[self.bin.join("pg_basebackup").into()]);
        copy.arg("-h").arg(self.server.folder()).args(["-p", &self.port().to_string(), "-U", SUPERUSER]);
        copy.arg("-D").arg(folder.join("data")).args(["--checkpoint=fast", "--write-recovery-conf", "--no-sync"]);
        let output = copy.current_dir("/").output().expect("`pg_basebackup` can be run");
        assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        let primary = format!("primary_conninfo=host=127.0.0.1 port={through} user={REPLICATOR} password={REPLICATOR}");
        Self::start_in(self.bin.clone(), folder, &[&primary])
    }

    /// Makes a standby take writes.
    pub fn promote(&self) {
        assert_eq!(self.sql(SUPERUSER, "SELECT pg_promote()"), "t", "the standby was not promoted");
    }

    fn start_in(bin: PathBuf, folder: PathBuf, settings: &[&str]) -> Self {
        Self::started(bin, folder, settings, |command| command)
    }

    fn create_role(&self) {
        self.sql(SUPERUSER, &format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'"));
    }

    fn started(
        bin: PathBuf,
        folder: PathBuf,
        settings: &[&str],
        wrapped: impl FnOnce(Vec<OsString>) -> Vec<OsString>,
    ) -> Self {
        let port = free_port();
        let mut command: Vec<OsString> = vec![bin.join("postgres").into(), "-D".into(), folder.join("data").into()];
        let socket = format!("unix_socket_directories={}", folder.display());
        let own = ["listen_addresses=127.0.0.1".to_owned(), format!("port={port}"), socket];
        for setting in own.iter().map(String::as_str).chain(settings.iter().copied()) {
            command.extend(["-c".into(), OsString::from(setting)]);
        }
        // SIGQUIT: at once, without a last checkpoint.
        let launch =
            Launch { command: wrapped(command), folder: folder.clone(), port, user: SUPERUSER, stop_signal: "QUIT" };
        let server = Server::start(launch, || accepts(&bin, &folder, port));
        Self { server, bin }
    }

    /// Makes an empty database that belongs to [`ROLE`]; its name.
    pub fn new_database(&self) -> String {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}", LAST.fetch_add(1, Ordering::Relaxed));
        self.sql(SUPERUSER, &format!("CREATE DATABASE {name} OWNER {ROLE}"));
        name
    }

    /// The URL of a database for [`ROLE`].
    pub fn url(&self, database: &str) -> String {
        self.url_through(self.port(), database)
    }

    /// As [`Postgres::url`], through another port of the loopback interface.
    pub fn url_through(&self, port: u16, database: &str) -> String {
        format!("postgres://{ROLE}:{PASSWORD_IN_URL}@127.0.0.1:{port}/{database}")
    }

    /// Carries out statements as the superuser; what they print, columns parted by `|`.
    ///
    /// # Panics
    ///
    /// If one fails.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let arguments =
            ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-d", database, "-c", statements];
        let output = self.psql().args(arguments).output().expect("`psql` can be run");
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The process, to end it or to hold it up.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Starts a server that was stopped.
    pub fn start_again(&mut self) {
        let (bin, folder, port) = (self.bin.clone(), self.server.folder().to_owned(), self.port());
        self.server.start_again(|| accepts(&bin, &folder, port));
    }

    fn psql(&self) -> Command {
        let mut psql = run_as(SUPERUSER, &[self.bin.join("psql").into()]);
        psql.arg("-h").arg(self.server.folder()).args(["-p", &self.port().to_string()]).current_dir("/");
        psql
    }
}

/// The folder with the binaries, and a new one with a data directory.
fn installed() -> (PathBuf, PathBuf) {
    let (bin, folder) = (binaries(), temporary_folder(SUPERUSER));
    init(&bin, &folder.join("data"));
    (bin, folder)
}

/// The folder with the binaries: Debian keeps those of the server apart, by version.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    let number =
        |folder: &PathBuf| -> u32 { folder.parent().and_then(|p| p.file_name()?.to_str()?.parse().ok()).unwrap_or(0) };
    folders.sort_by_key(|folder| std::cmp::Reverse(number(folder)));
    let initdb = PathBuf::from(program("initdb", &folders, PACKAGE));
    initdb.parent().expect("a program is in a folder").to_owned()
}

/// Makes the data directory: over the socket everybody is trusted, over TCP the password is asked for.
fn init(bin: &Path, data: &Path) {
    let mut initdb = run_as(SUPERUSER, &[bin.join("initdb").into()]);
    initdb.arg("-D").arg(data).args(["--username", SUPERUSER, "--encoding=UTF8", "--locale=C", "--no-sync"]);
    initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile=/proc/sys/kernel/random/uuid"]);
    let output = initdb.current_dir("/").output().expect("`initdb` can be run");
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether the server takes connections; the port may be another process's, the socket is its own.
fn accepts(bin: &Path, folder: &Path, port: u16) -> bool {
    let mut pg_isready = Command::new(bin.join("pg_isready"));
    pg_isready.arg("-q").arg("-h").arg(folder).args(["-p", &port.to_string()]);
    pg_isready.status().is_ok_and(|status| status.success()) && TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::assert_goes;

    #[test]
    fn a_server_serves_stops_starts_again_and_goes() {
        let mut postgres = Postgres::quick();
        let database = postgres.new_database();
        postgres.sql(&database, "CREATE TABLE t (n int); INSERT INTO t VALUES (7)");
        postgres.server().stop("INT");
        assert!(TcpStream::connect(("127.0.0.1", postgres.port())).is_err());
        postgres.start_again();
        assert_eq!(postgres.sql(&database, "SELECT n, n + 1 FROM t"), "7|8");
        assert_goes(postgres, Postgres::server);
    }
}
