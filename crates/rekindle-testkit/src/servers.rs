//! Throw-away servers for tests: started on a free port of the loopback interface, with their files in a temporary folder.
//!
//! A server ends, and its folder goes, when its value is dropped and also when the process that holds it dies, however it
//! dies. A value in a `static` therefore serves a whole test program.

pub mod mysql;
pub mod postgres;
pub mod redis;

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

/// How long a server may take until it answers, or until it has ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(20);
/// What the server says, in its folder.
const LOG: &str = "server.log";
/// In its folder once it has ended.
const ENDED: &str = "server.ended";

/// Stands between the test and the server, at the end of a pipe that the test's process holds. A line is the name of a signal
/// to send; `leave` (of an ended server) leaves its files; the end of the pipe, whoever closed it, ends server and files.
const SUPERVISOR: &str = r#"
stop=$1 folder=$2
shift 2
exec 3<&0
"$@" </dev/null >>"$folder/server.log" 2>&1 3<&- & server=$!
{
  while read -r signal <&3; do kill -s "$signal" "$server"; done
  kill -s "$stop" "$server"
} & watcher=$!
wait "$server"
kill "$watcher"
: >"$folder/server.ended"
while read -r line <&3; do
  if [ "$line" = leave ]; then exit; fi
done
rm -rf -- "$folder"
"#;

/// Gives a program a small disk that nobody else sees; it runs as whoever this is.
const WITH_SMALL_DISK: &str = r#"
folder=$1 bytes=$2
shift 2
mkdir "$folder"
exec unshare --user --map-root-user --mount sh -c '
  folder=$1 bytes=$2 user=$3 group=$4
  shift 4
  mount -t tmpfs -o "size=$bytes" small "$folder" &&
    exec unshare --user --map-user="$user" --map-group="$group" "$@"
' sh "$folder" "$bytes" "$(id -u)" "$(id -g)" "$@"
"#;

/// How a server is started and stopped.
pub struct Launch {
    /// The program with its arguments.
    pub command: Vec<OsString>,
    /// The folder of its files, from [`temporary_folder`]; it goes with the server.
    pub folder: PathBuf,
    /// Its TCP port on 127.0.0.1, from [`free_port`].
    pub port: u16,
    /// The system's user that runs it where the tests run as root; see [`run_as`].
    pub user: &'static str,
    /// The signal that ends it quickly, without the prefix `SIG`.
    pub stop_signal: &'static str,
}

/// A running server.
pub struct Server {
    launch: Launch,
    supervisor: Child,
}

impl Server {
    /// Starts a server and waits until `ready` says so.
    ///
    /// # Panics
    ///
    /// If the server ends at once or does not become ready, with what it logged.
    pub fn start(launch: Launch, ready: impl Fn() -> bool) -> Self {
        let supervisor = supervise(&launch);
        let server = Self { launch, supervisor };
        server.wait_until(ready);
        server
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.launch.port
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.launch.folder
    }

    /// Sends a signal by its name without `SIG`, for instance `STOP`, `CONT` or `KILL`.
    pub fn signal(&mut self, name: &str) {
        self.tell(name);
    }

    /// Ends the server with a signal, and waits until it has; its files and its port stay for [`Server::start_again`].
    ///
    /// # Panics
    ///
    /// If the signal does not end it.
    pub fn stop(&mut self, signal: &str) {
        self.tell(signal);
        let began = Instant::now();
        while !self.has_ended() {
            assert!(began.elapsed() < PATIENCE, "the server did not end on SIG{signal}:\n{}", self.log());
            thread::sleep(POLL);
        }
    }

    /// Starts a server that was stopped.
    ///
    /// # Panics
    ///
    /// As [`Server::start`].
    pub fn start_again(&mut self, ready: impl Fn() -> bool) {
        self.tell("leave");
        self.supervisor.wait().expect("the supervisor is a child of this process");
        self.supervisor = supervise(&self.launch);
        self.wait_until(ready);
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join(LOG)).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    fn tell(&mut self, line: &str) {
        let pipe = self.supervisor.stdin.as_mut().expect("the pipe is open until the server is dropped");
        writeln!(pipe, "{line}").expect("the supervisor reads until the pipe's end");
    }

    fn has_ended(&self) -> bool {
        self.folder().join(ENDED).exists()
    }

    fn wait_until(&self, ready: impl Fn() -> bool) {
        let began = Instant::now();
        while !ready() {
            assert!(!self.has_ended(), "the server ended at once:\n{}", self.log());
            assert!(began.elapsed() < PATIENCE, "the server was not ready in {PATIENCE:?}:\n{}", self.log());
            thread::sleep(POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        // It ends after the server; a test that is over has no use for its status.
        let _ = self.supervisor.wait();
    }
}

/// A port of the loopback interface that nothing listens on. Another process could take it before it is used; the system
/// hands them out in turn, so that this hardly ever happens.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback interface has a free port");
    listener.local_addr().expect("a listener has an address").port()
}

/// An empty folder that `user` owns where the tests run as root.
pub fn temporary_folder(user: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix("rekindle-").tempdir().expect("a temporary folder can be made").keep();
    if is_root() {
        let status = Command::new("chown").arg(format!("{user}:")).arg(&folder).status();
        assert!(status.is_ok_and(|s| s.success()), "`{}` cannot be given to the user `{user}`", folder.display());
    }
    folder
}

/// The program with its arguments as `user` where the tests run as root (servers refuse to), and as they are elsewhere.
pub fn run_as(user: &str, command: &[OsString]) -> Command {
    let mut whole = Vec::new();
    if is_root() {
        whole.extend(["setpriv".into(), format!("--reuid={user}"), format!("--regid={user}")].map(OsString::from));
        whole.push("--init-groups".into());
    }
    whole.extend_from_slice(command);
    let mut run = Command::new(&whole[0]);
    run.args(&whole[1..]);
    run
}

/// A command that carries out `command` where `folder` is a disk of so many bytes. It takes no privileges, but the system has
/// to let its users have namespaces.
pub fn with_small_disk(folder: &Path, bytes: u64, command: Vec<OsString>) -> Vec<OsString> {
    let shell =
        ["sh".into(), "-c".into(), WITH_SMALL_DISK.into(), "sh".into(), folder.into(), bytes.to_string().into()];
    shell.into_iter().chain(command).collect()
}

/// A program by its name: in one of `folders`, or on the `PATH`.
///
/// # Panics
///
/// If it is not there; the text tells which Debian package has it.
pub fn program(name: &str, folders: &[PathBuf], package: &str) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = folders
        .iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("`{name}` is not installed: install the Debian package `{package}`")).into()
}

fn supervise(launch: &Launch) -> Child {
    // Of an earlier run on the same files.
    let _ = fs::remove_file(launch.folder.join(ENDED));
    let server = run_as(launch.user, &launch.command);
    let mut supervisor = Command::new("sh");
    supervisor.args(["-c", SUPERVISOR, "supervisor", launch.stop_signal]).arg(&launch.folder);
    supervisor.arg(server.get_program()).args(server.get_args());
    supervisor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    supervisor.spawn().expect("a shell is there as `sh`")
}

/// Whether the tests run as root: then a new file belongs to it.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let file = tempfile::tempfile().expect("a temporary file can be made");
    file.metadata().expect("an open file has metadata").uid() == 0
}

/// Drops what holds a server, and looks whether all of it goes.
#[cfg(test)]
fn assert_goes<T>(mut held: T, server: impl Fn(&mut T) -> &mut Server) {
    let (folder, port) = (server(&mut held).folder().to_owned(), server(&mut held).port());
    drop(held);
    assert!(!folder.exists(), "the files go with the server");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}
