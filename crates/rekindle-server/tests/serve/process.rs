//! The real binary, started in a directory of its own.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

/// A server that runs in `dir`.
pub struct Server {
    child: Child,
    /// `http://127.0.0.1:<port>`.
    pub base: String,
    /// The development API key.
    pub key: String,
    /// The printed lines below the key.
    pub lines: String,
    http: reqwest::Client,
}

/// `rekindle` with these arguments, in `dir`.
pub fn rekindle(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.args(args).current_dir(dir).env_remove("REKINDLE_CONFIG").env_remove("REKINDLE_SECRETS_FILE");
    command
}

/// Runs a command to its end.
pub fn run(dir: &Path, args: &[&str]) -> Output {
    rekindle(dir, args).output().unwrap()
}

/// Runs a command that must succeed; its standard output.
pub fn ok(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail; what it said.
pub fn fails(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

impl Server {
    /// `rekindle serve --dev` on a free port, with more arguments.
    pub fn start(dir: &Path, more: &[&str]) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(dir.join("server.log")).unwrap();
        let mut child = rekindle(dir, &["serve", "--dev", "--listen", "127.0.0.1:0"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let (mut base, mut key, mut lines) = (String::new(), String::new(), String::new());
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(address) = line.strip_prefix("Listening on ") {
                base = address.into();
            } else if let Some(given) = line.strip_prefix("API key: ") {
                key = given.into();
            } else if line.contains("Stop with Ctrl-C") {
                break;
            } else {
                lines += &(line + "\n");
            }
        }
        let log = || std::fs::read_to_string(dir.join("server.log")).unwrap();
        assert!(!key.is_empty(), "the server did not start: {}", log());
        Self { child, base, key, lines, http: reqwest::Client::new() }
    }

    /// A request below `/v1/default/dev/`; status and answer. `Err`: no answer.
    pub async fn try_ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let url = format!("{}/v1/default/dev/{path}", self.base);
        let mut request = self.http.request(method.parse().unwrap(), url).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.timeout(Duration::from_secs(30)).send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// The same when there must be an answer.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.try_ask(method, path, body).await.unwrap()
    }

    /// The same by POST.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask("POST", path, Some(&body)).await
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// How it ended, when it does.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory whose data outlives servers, and that is removed with the test.
pub struct Dir(tempfile::TempDir);

impl Dir {
    /// A fresh one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
