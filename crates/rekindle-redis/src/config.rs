//! Where the servers are and how to speak with them: the URL.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

/// How to reach Redis or Valkey. Its `Debug` shows no password.
///
/// ```
/// use rekindle_redis::RedisConfig;
/// let config = RedisConfig::parse("rediss+cluster://app:secret@10.0.0.1:7000,10.0.0.2/?prefix=shop").unwrap();
/// assert_eq!(config.to_string(), "rediss+cluster://app:***@10.0.0.1:7000,10.0.0.2:6379/?prefix=shop");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    pub(crate) topology: Topology,
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) tls: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: i64,
    pub(crate) prefix: String,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) wait: Option<Wait>,
    pub(crate) sentinel_user: Option<String>,
    pub(crate) sentinel_password: Option<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
}

/// What stands behind the hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server.
    Standalone,
    /// Sentinels, which name the master of this service.
    Sentinel(String),
    /// Some nodes of a cluster.
    Cluster,
}

/// How many replicas must have a write before it is answered, and how long they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) replicas: u32,
    pub(crate) timeout: Duration,
}

/// What is wrong with a URL. It never repeats the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Redis URL is wrong: {0}")]
pub struct InvalidUrl(String);

/// A scheme: its name, whether it has TLS, and what stands behind the hosts, where it matters with the service's name.
type Scheme = (&'static str, bool, fn(String) -> Topology);

const SCHEMES: [Scheme; 6] = [
    ("redis", false, |_| Topology::Standalone),
    ("rediss", true, |_| Topology::Standalone),
    ("redis+sentinel", false, Topology::Sentinel),
    ("rediss+sentinel", true, Topology::Sentinel),
    ("redis+cluster", false, |_| Topology::Cluster),
    ("rediss+cluster", true, |_| Topology::Cluster),
];

const DEFAULT_PREFIX: &str = "rekindle";

impl RedisConfig {
    /// Reads a URL.
    ///
    /// - `redis://[user[:password]@]host[:6379][/database]`, one server; `rediss://` with TLS
    /// - `redis+sentinel://[user:password@]host[:26379],host…/service[/database]`, sentinels
    /// - `redis+cluster://[user:password@]host[:6379],host…`, a cluster
    ///
    /// Options after `?`:
    ///
    /// | option | default | meaning |
    /// |---|---|---|
    /// | `prefix` | `rekindle` | what every key begins with; 1 to 64 of `A-Z a-z 0-9 _ - . :` |
    /// | `timeout_ms` | 2000 | how long an answer may take |
    /// | `connect_timeout_ms` | 2000 | how long connecting may take |
    /// | `wait_replicas` | 0 | how many replicas must have a write before it is answered (`WAIT`) |
    /// | `wait_timeout_ms` | 500 | how long these may take, before the write is reported as unavailable |
    /// | `sentinel_user`, `sentinel_password` | none | for the sentinels, where they ask |
    /// | `ca` | the system's | a PEM file with the authorities that sign the servers' certificates |
    /// | `cert`, `key` | none | PEM files with this client's certificate and key |
    ///
    /// # Errors
    ///
    /// [`InvalidUrl`] tells which part is wrong and what was expected.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("it does not begin with `redis://`"))?;
        let known = SCHEMES.iter().find(|(name, ..)| *name == scheme);
        let (_, tls, topology) = known.ok_or_else(|| {
            let names = SCHEMES.map(|(name, ..)| name).join("`, `");
            invalid(format!("the scheme `{}` is none of `{names}`", shortened(scheme)))
        })?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let (user, password) = match login.map(|l| l.split_once(':').unwrap_or((l, ""))) {
            Some((user, password)) => (given(user, "user")?, given(password, "password")?),
            None => (None, None),
        };
        let mut path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let service = match scheme.ends_with("sentinel") {
            false => String::new(),
            true if path.is_empty() => return Err(invalid("it names no service; write `…/mymaster`")),
            true => decoded(path.remove(0), "service")?,
        };
        let topology = topology(service);
        let database = match path[..] {
            [] => 0,
            [number] if topology != Topology::Cluster => number
                .parse::<u16>()
                .map(i64::from)
                .map_err(|_| invalid(format!("the database `{}` is not a number", shortened(number))))?,
            [_] => return Err(invalid("a cluster has no databases; remove the part after the hosts")),
            _ => return Err(invalid(format!("`{}` is more than a database", shortened(&path.join("/"))))),
        };
        let default_port = if matches!(topology, Topology::Sentinel(_)) { 26379 } else { 6379 };
        let hosts: Vec<_> = hosts.split(',').map(|h| host(h, default_port)).collect::<Result<_, _>>()?;
        if topology == Topology::Standalone && hosts.len() > 1 {
            return Err(invalid("`redis://` takes one host; several need `redis+sentinel://` or `redis+cluster://`"));
        }
        let mut config = Self {
            topology,
            hosts,
            tls: *tls,
            user,
            password,
            database,
            prefix: DEFAULT_PREFIX.into(),
            timeout: Duration::from_millis(2000),
            connect_timeout: Duration::from_millis(2000),
            wait: None,
            sentinel_user: None,
            sentinel_password: None,
            ca: None,
            certificate: None,
        };
        config.read_options(query)?;
        Ok(config)
    }

    fn read_options(&mut self, query: &str) -> Result<(), InvalidUrl> {
        let (mut replicas, mut wait_timeout) = (0, Duration::from_millis(500));
        let (mut certificate, mut key) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "prefix" => self.prefix = prefix(&value)?,
                "timeout_ms" => self.timeout = milliseconds(&name, &value)?,
                "connect_timeout_ms" => self.connect_timeout = milliseconds(&name, &value)?,
                "wait_replicas" => {
                    replicas =
                        value.parse().ok().filter(|n| *n <= 16).ok_or_else(|| {
                            invalid(format!("`wait_replicas` is `{}`, not 0 to 16", shortened(&value)))
                        })?;
                }
                "wait_timeout_ms" => wait_timeout = milliseconds(&name, &value)?,
                "sentinel_user" => self.sentinel_user = Some(value.into()),
                "sentinel_password" => self.sentinel_password = Some(value.into()),
                "ca" => self.ca = Some(PathBuf::from(&*value)),
                "cert" => certificate = Some(PathBuf::from(&*value)),
                "key" => key = Some(PathBuf::from(&*value)),
                other => return Err(invalid(format!("there is no option `{}`", shortened(other)))),
            }
        }
        self.wait = (replicas > 0).then_some(Wait { replicas, timeout: wait_timeout });
        self.certificate = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => return Err(invalid("`cert` and `key` belong together; give both or none")),
        };
        let for_tls = [("ca", self.ca.is_some()), ("cert", self.certificate.is_some())];
        match for_tls.iter().find(|(_, given)| *given && !self.tls) {
            Some((name, _)) => Err(invalid(format!("`{name}` needs TLS: write `rediss` in place of `redis`"))),
            None => Ok(()),
        }
    }

    /// Where it leads, for messages: without login and options.
    pub(crate) fn place(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        match &self.topology {
            Topology::Sentinel(service) => format!("`{service}` at the sentinels {}", hosts.join(",")),
            Topology::Standalone | Topology::Cluster => hosts.join(","),
        }
    }
}

impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let (kind, service) = match &self.topology {
            Topology::Standalone => ("", String::new()),
            Topology::Sentinel(service) => ("+sentinel", format!("{service}/")),
            Topology::Cluster => ("+cluster", String::new()),
        };
        let login = match (&self.user, &self.password) {
            (None, None) => String::new(),
            (user, None) => format!("{}@", user.as_deref().unwrap_or_default()),
            (user, Some(_)) => format!("{}:***@", user.as_deref().unwrap_or_default()),
        };
        let hosts: Vec<String> = self.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let database = if self.database == 0 { String::new() } else { self.database.to_string() };
        let prefix = if self.prefix == DEFAULT_PREFIX { String::new() } else { format!("?prefix={}", self.prefix) };
        write!(f, "{scheme}{kind}://{login}{}/{service}{database}{prefix}", hosts.join(","))
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn invalid(problem: impl Into<String>) -> InvalidUrl {
    InvalidUrl(problem.into())
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

fn decoded(text: &str, what: &str) -> Result<String, InvalidUrl> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| invalid(format!("the {what} is not UTF-8 after percent-decoding")))
}

fn given(text: &str, what: &str) -> Result<Option<String>, InvalidUrl> {
    if text.is_empty() { Ok(None) } else { decoded(text, what).map(Some) }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host(text: &str, default_port: u16) -> Result<(String, u16), InvalidUrl> {
    let (host, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(invalid("a host is empty"));
    }
    let port = match port {
        None => default_port,
        Some(port) => port.parse().ok().filter(|p| *p > 0).ok_or_else(|| {
            invalid(format!("the port `{}` of `{}` is not 1 to 65535", shortened(port), shortened(host)))
        })?,
    };
    Ok((host.into(), port))
}

fn prefix(text: &str) -> Result<String, InvalidUrl> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(valid) {
        Ok(text.into())
    } else {
        Err(invalid(format!("`prefix` is `{}`, not 1 to 64 of A-Z, a-z, 0-9, `_`, `-`, `.` and `:`", shortened(text))))
    }
}

fn milliseconds(name: &str, value: &str) -> Result<Duration, InvalidUrl> {
    let millis = value.parse().ok().filter(|n| (1..=600_000).contains(n));
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| invalid(format!("`{name}` is `{}`, not 1 to 600000 milliseconds", shortened(value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(url: &str) -> String {
        RedisConfig::parse(url).unwrap_err().to_string()
    }

    #[test]
    fn urls_of_every_kind() {
        let one = RedisConfig::parse("redis://localhost").unwrap();
        assert_eq!((one.hosts[0].clone(), one.database, one.tls), (("localhost".into(), 6379), 0, false));
        let login = RedisConfig::parse("rediss://us%40er:p%3A%2Fw@[::1]:7000/3?ca=/x.pem").unwrap();
        assert_eq!(login.user.as_deref(), Some("us@er"));
        assert_eq!(login.password.as_deref(), Some("p:/w"));
        assert_eq!((login.hosts[0].clone(), login.database, login.tls), (("::1".into(), 7000), 3, true));
        let password = RedisConfig::parse("redis://:secret@h").unwrap();
        assert_eq!((password.user, password.password.as_deref()), (None, Some("secret")));
        let sentinel = RedisConfig::parse("redis+sentinel://a,b:1/mymaster/2?wait_replicas=1").unwrap();
        assert_eq!(sentinel.topology, Topology::Sentinel("mymaster".into()));
        assert_eq!(sentinel.hosts, [("a".into(), 26379), ("b".into(), 1)]);
        assert_eq!((sentinel.database, sentinel.wait.unwrap().replicas), (2, 1));
        assert_eq!(RedisConfig::parse("redis+cluster://a:1,b:2").unwrap().hosts.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        assert!(problem("localhost").contains("does not begin with `redis://`"));
        assert!(problem("http://h").contains("the scheme `http` is none of `redis`"));
        assert!(problem("redis://u:topsecret@:1").contains("a host is empty"));
        assert!(problem("redis://u:topsecret@h:port").contains("the port `port` of `h`"));
        assert!(problem("redis://h/x").contains("the database `x` is not a number"));
        assert!(problem("redis://a,b").contains("takes one host"));
        assert!(problem("redis+cluster://a/1").contains("a cluster has no databases"));
        assert!(problem("redis+sentinel://a").contains("names no service"));
        assert!(problem("redis://h?retry=1").contains("there is no option `retry`"));
        assert!(problem("redis://h?prefix={x}").contains("`prefix` is `{x}`"));
        assert!(problem("redis://h?timeout_ms=0").contains("`timeout_ms` is `0`"));
        assert!(problem("redis://h?ca=/x").contains("`ca` needs TLS"));
        assert!(problem("rediss://h?cert=/x").contains("`cert` and `key` belong together"));
        let shown = format!("{:?}", RedisConfig::parse("redis://u:topsecret@h?sentinel_password=other").unwrap());
        assert_eq!(shown, "redis://u:***@h:6379/");
    }
}
