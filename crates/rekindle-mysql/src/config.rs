//! Where the database is: a URL, and what is wrong with one.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use mysql_async::{Opts, OptsBuilder, SslOpts};

/// How to reach the database and how to use it.
///
/// `Debug` and `Display` never print the password.
#[derive(Clone)]
pub struct MysqlConfig {
    options: Opts,
    /// How many connections are used at most. Default: 16.
    pub connections: u32,
    /// How long to wait for a connection, or for an answer. Default: 5 s.
    pub timeout: Duration,
}

/// What is wrong with a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{url}`: {}", problems.join("; "))]
pub struct InvalidUrl {
    url: String,
    problems: Vec<String>,
}

impl MysqlConfig {
    /// From `mysql://user:password@host:port/database` (`mariadb://` says the same), with characters that have a
    /// meaning in URLs percent-encoded. The port may be left out: 3306.
    ///
    /// Options, after a `?` and parted by `&`:
    ///
    /// - `connections=16`: how many at most, 1 to 1000;
    /// - `timeout=5`: seconds to wait for a connection or an answer, 2 to 600;
    /// - `tls=off`, or `tls=verify`: encrypt, and trust only who proves the host's name to the known authorities;
    /// - `tls_ca=/path/to/ca.pem`: as `tls=verify`, with these authorities and no others.
    ///
    /// # Errors
    ///
    /// [`InvalidUrl`] tells all that is wrong, without the password.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        let invalid = |problems| InvalidUrl { url: without_password(url), problems };
        let (location, query) = url.split_once('?').unwrap_or((url, ""));
        let location = match location.split_once("://") {
            Some(("mysql" | "mariadb", rest)) => format!("mysql://{rest}"),
            _ => return Err(invalid(vec!["it does not start with `mysql://` or `mariadb://`".into()])),
        };
        let Ok(parsed) = Opts::from_url(&location) else {
            return Err(invalid(vec!["it is not like `mysql://user:password@host:3306/database`".into()]));
        };
        let mut problems = Vec::new();
        if parsed.user().is_none_or(str::is_empty) {
            problems.push("it names no user".into());
        }
        if parsed.db_name().is_none_or(str::is_empty) {
            problems.push("it names no database: put `/` and its name after the host".into());
        }
        let mut config = Self { options: parsed.clone(), connections: 16, timeout: Duration::from_secs(5) };
        let mut tls = None;
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let mut number = |range: std::ops::RangeInclusive<u32>| {
                let number = value.parse().ok().filter(|n| range.contains(n));
                if number.is_none() {
                    let (from, to) = (range.start(), range.end());
                    problems.push(format!("`{key}={value}` is not a whole number from {from} to {to}"));
                }
                number
            };
            match &*key {
                "connections" => config.connections = number(1..=1000).unwrap_or(config.connections),
                "timeout" => {
                    config.timeout = number(2..=600).map_or(config.timeout, |s| Duration::from_secs(s.into()));
                }
                "tls" if value == "verify" => tls = tls.or(Some(SslOpts::default())),
                "tls" if value == "off" => {}
                "tls" => problems.push(format!("`tls={value}` is neither `tls=off` nor `tls=verify`")),
                "tls_ca" => {
                    let authorities = vec![PathBuf::from(value.into_owned()).into()];
                    tls = Some(SslOpts::default().with_root_certs(authorities).with_disable_built_in_roots(true));
                }
                _ => problems.push(format!(
                    "the option `{key}` is not known; the known ones are connections, timeout, tls and tls_ca"
                )),
            }
        }
        if !problems.is_empty() {
            return Err(invalid(problems));
        }
        let options = OptsBuilder::from_opts(parsed)
            // Found rows, not changed ones: that an UPDATE met its row counts, even where it left it as it was.
            .client_found_rows(true)
            .prefer_socket(false)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .stmt_cache_size(0)
            .ssl_opts(tls);
        config.options = options.into();
        Ok(config)
    }

    pub(crate) fn options(&self) -> Opts {
        self.options.clone()
    }

    pub(crate) fn user(&self) -> &str {
        self.options.user().expect("a URL without a user is refused")
    }

    pub(crate) fn database(&self) -> &str {
        self.options.db_name().expect("a URL without a database is refused")
    }
}

impl fmt::Display for MysqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.options.ip_or_hostname(), self.options.tcp_port());
        write!(f, "mysql://{}@{host}:{port}/{}", self.user(), self.database())
    }
}

impl fmt::Debug for MysqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlConfig")
            .field("url", &self.to_string())
            .field("connections", &self.connections)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// Whatever was given, without what may be a password: all between the scheme's `:` and the last `@`, but for the user.
fn without_password(url: &str) -> String {
    let Some((before, host)) = url.rsplit_once('@') else { return url.to_owned() };
    let (scheme, credentials) = before.split_once("://").unwrap_or(("", before));
    let user = credentials.split_once(':').map_or(credentials, |(user, _)| user);
    format!("{scheme}://{user}@{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        let config = MysqlConfig::parse("mariadb://ada:p%40ss%2F@db.example/shop?connections=3&timeout=9").unwrap();
        assert_eq!((config.connections, config.timeout), (3, Duration::from_secs(9)));
        assert_eq!(config.options.pass(), Some("p@ss/"));
        assert_eq!(config.to_string(), "mysql://ada@db.example:3306/shop");
        assert!(config.options.client_found_rows() && config.options.ssl_opts().is_none());
        assert!(!format!("{config:?}").contains("p@ss"));
        let tls = MysqlConfig::parse("mysql://ada@db/shop?tls=verify").unwrap();
        assert!(tls.options.ssl_opts().is_some());
    }

    #[test]
    fn all_problems_are_told_without_the_password() {
        let told = |url| MysqlConfig::parse(url).unwrap_err().to_string();
        assert_eq!(
            told("mysql://:s3cret@db/?connections=0&timeout=x&tls=on&colour=red"),
            "`mysql://@db/?connections=0&timeout=x&tls=on&colour=red`: it names no user; it names no database: put `/` \
             and its name after the host; `connections=0` is not a whole number from 1 to 1000; `timeout=x` is not a whole \
             number from 2 to 600; `tls=on` is neither `tls=off` nor `tls=verify`; the option `colour` is not known; the \
             known ones are connections, timeout, tls and tls_ca"
        );
        assert_eq!(
            told("postgres://ada:s3cret@db/shop"),
            "`postgres://ada@db/shop`: it does not start with `mysql://` or `mariadb://`"
        );
        assert!(!told("mysql://ada:s3c@ret@[/shop").contains("s3c"));
    }
}
