//! MariaDB.

use std::ffi::OsString;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Launch, Server, free_port, program, run_as, temporary_folder};

/// The Debian package that has the server.
const PACKAGE: &str = "mariadb-server";
/// What makes servers a cluster.
const GALERA: &str = "/usr/lib/galera/libgalera_smm.so";
/// The system's user that runs it.
const USER: &str = "mysql";
/// The database's user that the tests are, an ordinary one that may do everything with the tests' databases, and its password.
pub const ROLE: &str = "rekindle";
/// See [`ROLE`].
pub const PASSWORD: &str = "p@ss/wörd";
/// [`PASSWORD`] as a URL has it.
const PASSWORD_IN_URL: &str = "p%40ss%2Fw%C3%B6rd";

/// What makes a server quick whose data nobody needs: what it acknowledged survives its own end, and no end of the machine.
pub const QUICK: [&str; 6] = [
    "innodb-flush-log-at-trx-commit=2",
    "innodb-flush-method=nosync",
    "innodb-doublewrite=0",
    "innodb-buffer-pool-size=256M",
    "sync-frm=0",
    "max-connections=1000",
];

/// A MariaDB server with the user [`ROLE`].
pub struct Mysql {
    server: Server,
}

impl Mysql {
    /// The one that all tests of a program share: quick, not durable.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Mysql> = LazyLock::new(|| Mysql::start(&QUICK));
        &SHARED
    }

    /// A quick one for a single test.
    pub fn quick() -> Self {
        Self::start(&QUICK)
    }

    /// One with settings like `sync-binlog=1`; everything else as MariaDB has it, so without settings it is durable.
    pub fn start(settings: &[&str]) -> Self {
        let folder = temporary_folder(USER);
        install(&folder);
        Self::start_in(folder, free_port(), settings)
    }

    /// The nodes of a Galera cluster, quick ones. Each takes writes.
    pub fn cluster(nodes: usize) -> Vec<Self> {
        let first = free_port();
        let start = |i: usize| {
            let group = if i == 0 { first } else { free_port() };
            let members = if i == 0 { String::new() } else { format!("127.0.0.1:{first}") };
            let options = format!(
                "gmcast.listen_addr=tcp://127.0.0.1:{group};base_host=127.0.0.1;ist.recv_addr=127.0.0.1:{};gcache.size=16M",
                free_port()
            );
            let settings = [
                "wsrep-on=ON".to_owned(),
                format!("wsrep-provider={GALERA}"),
                format!("wsrep-cluster-address=gcomm://{members}"),
                format!("wsrep-provider-options={options}"),
                format!("wsrep-node-name=node{i}"),
                "wsrep-node-address=127.0.0.1".into(),
                "wsrep-sst-method=rsync".into(),
                format!("wsrep-sst-receive-address=127.0.0.1:{}", free_port()),
                "wsrep-slave-threads=2".into(),
                "binlog-format=ROW".into(),
                "innodb-autoinc-lock-mode=2".into(),
            ];
            let settings: Vec<&str> = QUICK.into_iter().chain(settings.iter().map(String::as_str)).collect();
            Self::start(&settings)
        };
        assert!(Path::new(GALERA).is_file(), "Galera is not installed: install the Debian package `galera-4`");
        // With it, a node that joins gets its data.
        program("rsync", &[], "rsync");
        (0..nodes).map(start).collect()
    }

    fn start_in(folder: PathBuf, port: u16, settings: &[&str]) -> Self {
        let mut command: Vec<OsString> = vec![binary("mariadbd"), "--no-defaults".into()];
        let own = [
            format!("datadir={}", folder.join("data").display()),
            format!("socket={}", socket(&folder).display()),
            format!("tmpdir={}", folder.display()),
            format!("port={port}"),
            "bind-address=127.0.0.1".into(),
            "skip-name-resolve".into(),
        ];
        let settings = own.iter().map(String::as_str).chain(settings.iter().copied());
        command.extend(settings.map(|setting| OsString::from(format!("--{setting}"))));
        // SIGKILL: at once, and its files are not needed any more.
        let launch = Launch { command, folder: folder.clone(), port, user: USER, stop_signal: "KILL" };
        let server = Server::start(launch, || accepts(&folder, port));
        let mysql = Self { server };
        mysql.sql(
            "mysql",
            &format!(
                "CREATE USER IF NOT EXISTS {ROLE}@'%' IDENTIFIED BY '{PASSWORD}';
                 GRANT ALL ON `test\\_%`.* TO {ROLE}@'%'"
            ),
        );
        mysql
    }

    /// Makes an empty database that [`ROLE`] may do everything with; its name.
    pub fn new_database(&self) -> String {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}", LAST.fetch_add(1, Ordering::Relaxed));
        self.sql("mysql", &format!("CREATE DATABASE {name}"));
        name
    }

    /// The URL of a database for [`ROLE`].
    pub fn url(&self, database: &str) -> String {
        self.url_through(self.port(), database)
    }

    /// As [`Mysql::url`], through another port of the loopback interface.
    pub fn url_through(&self, port: u16, database: &str) -> String {
        format!("mysql://{ROLE}:{PASSWORD_IN_URL}@127.0.0.1:{port}/{database}")
    }

    /// Carries out statements as the superuser; what they print, columns parted by tabs.
    ///
    /// # Panics
    ///
    /// If one fails.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let mut client = client(self.server.folder());
        let output = client.args(["-D", database, "-e", statements]).output().expect("`mariadb` can be run");
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
        let (folder, port) = (self.server.folder().to_owned(), self.port());
        self.server.start_again(|| accepts(&folder, port));
    }
}

/// Makes the data directory in `folder`: its superuser is trusted over the socket, and has no password.
fn install(folder: &Path) {
    let mut install = run_as(USER, &[binary("mariadb-install-db")]);
    install.arg("--no-defaults").arg(format!("--datadir={}", folder.join("data").display()));
    install.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-flush-method=nosync"]);
    // Several at once must not meet in one folder of temporary files.
    let output = install.env("TMPDIR", folder).current_dir("/").output().expect("`mariadb-install-db` can be run");
    assert!(output.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&output.stderr));
}

fn binary(name: &str) -> OsString {
    program(name, &["/usr/sbin".into(), "/usr/bin".into()], PACKAGE)
}

/// In the folder, whose path is short: a socket's may have a hundred characters.
fn socket(folder: &Path) -> PathBuf {
    folder.join("s")
}

fn client(folder: &Path) -> Command {
    let mut client = Command::new(binary("mariadb"));
    client.arg("--no-defaults").arg(format!("--socket={}", socket(folder).display()));
    client.args(["--user=root", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
    client
}

/// Whether the server takes requests; the port may be another process's, the socket is its own.
fn accepts(folder: &Path, port: u16) -> bool {
    client(folder).args(["-e", "DO 1"]).output().is_ok_and(|output| output.status.success())
        && TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::assert_goes;

    #[test]
    fn a_server_serves_stops_starts_again_and_goes() {
        let mut mysql = Mysql::quick();
        let database = mysql.new_database();
        mysql.sql(&database, "CREATE TABLE t (n int); INSERT INTO t VALUES (7)");
        mysql.server().stop("KILL");
        assert!(TcpStream::connect(("127.0.0.1", mysql.port())).is_err());
        mysql.start_again();
        assert_eq!(mysql.sql(&database, "SELECT n, n + 1 FROM t"), "7\t8");
        assert_goes(mysql, Mysql::server);
    }
}
