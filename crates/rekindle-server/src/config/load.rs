//! Reading the configuration so that all its problems come out at once.

use std::{collections::HashMap, fmt, net::SocketAddr, path::PathBuf};

use serde_path_to_error::Segment;

use super::{Config, LogLevel, Secret};
use crate::serde_message::without_value;

/// What the command line or the environment may set over the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// The configuration file. Without one, every value has its default.
    #[arg(long, env = "REKINDLE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The address to listen on, instead of the file's `listen`.
    #[arg(long, env = "REKINDLE_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The store, instead of the file's `store`. A password is better given by the variable: the command line is seen by all.
    #[arg(long, env = "REKINDLE_STORE", value_name = "URL", hide_env_values = true)]
    pub store: Option<Secret>,
    /// The file with the master secrets, instead of the file's `secrets.file`.
    #[arg(long, env = "REKINDLE_SECRETS_FILE", value_name = "FILE")]
    pub secrets_file: Option<PathBuf>,
    /// The log level, instead of the file's `log.level`.
    #[arg(long, env = "REKINDLE_LOG_LEVEL", value_name = "LEVEL", value_parser = level)]
    pub log_level: Option<LogLevel>,
}

fn level(text: &str) -> Result<LogLevel, String> {
    serde_json::from_value(text.into()).map_err(|e| without_value(&e.to_string()))
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which key, `limits.body`; empty for the file as a whole.
    pub key: String,
    /// What was given; absent for secrets, and when nothing was given.
    pub value: Option<String>,
    /// What it should be.
    pub reason: String,
}

impl Problem {
    pub(crate) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), value: None, reason: reason.into() }
    }

    pub(crate) fn with(mut self, value: impl fmt::Display) -> Self {
        self.value = Some(value.to_string());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.key, &self.value) {
            ("", _) => f.write_str(&self.reason),
            (key, None) => write!(f, "{key}: {}", self.reason),
            (key, Some(value)) => write!(f, "{key} = {value}: {}", self.reason),
        }
    }
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

impl Config {
    /// Reads the file that `overrides` names, if any, and puts the other overrides over it. Every problem is reported.
    pub fn load(overrides: &Overrides) -> Result<Self, Problems> {
        let text = match &overrides.config {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path).map_err(|e| {
                Problems(vec![Problem::new(
                    "",
                    format!("the configuration file {} cannot be read: {e}", path.display()),
                )])
            })?,
        };
        Self::from_toml(&text, overrides)
    }

    /// The same from the text of a file.
    pub fn from_toml(text: &str, overrides: &Overrides) -> Result<Self, Problems> {
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            // Not the error's own display: that quotes the line, which may hold a secret.
            let line = e.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            Problems(vec![Problem::new("", format!("line {line} is not valid TOML: {}", without_value(e.message())))])
        })?;
        overrides.apply(&mut table);
        let (config, mut problems) = deserialize(table);
        if config.keys.publish_ahead.as_secs() >= config.keys.rotate_every.as_secs() {
            problems.push(
                Problem::new("keys.publish_ahead", "must be shorter than keys.rotate_every")
                    .with(config.keys.publish_ahead),
            );
        }
        if config.metrics.listen == Some(config.listen) && config.listen.port() != 0 {
            problems.push(Problem::new("metrics.listen", "must differ from listen").with(config.listen));
        }
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }
}

impl Overrides {
    /// Over the parsed file and before its values are looked at, so that what is replaced need not be right.
    fn apply(&self, table: &mut toml::Table) {
        if let Some(listen) = self.listen {
            table.insert("listen".into(), listen.to_string().into());
        }
        if let Some(store) = &self.store {
            table.insert("store".into(), store.expose().into());
        }
        let mut within = |key: &str, inner: &str, value: toml::Value| {
            let entry = table.entry(key).or_insert_with(|| toml::Table::new().into());
            if let Some(table) = entry.as_table_mut() {
                table.insert(inner.into(), value);
            }
        };
        if let Some(path) = &self.secrets_file {
            within("secrets", "file", path.to_string_lossy().into_owned().into());
        }
        if let Some(level) = self.log_level {
            within("log", "level", toml::Value::try_from(level).expect("a level is a text"));
        }
    }
}

/// The configuration in `table`, and what was wrong with it: serde stops at the first error, so what it stops at is noted
/// and taken out, and the rest is read again.
fn deserialize(mut table: toml::Table) -> (Config, Vec<Problem>) {
    let mut problems = Vec::new();
    // How many items were taken out of each list: the indices that come later are that much too small.
    let mut taken: HashMap<String, usize> = HashMap::new();
    loop {
        let error = match serde_path_to_error::deserialize(toml::Value::Table(table.clone())) {
            Ok(config) => return (config, problems),
            Err(error) => error,
        };
        let (mut key, mut parent) = (String::new(), String::new());
        let path: Vec<&Segment> = error.path().iter().collect();
        for segment in &path {
            parent.clone_from(&key);
            match segment {
                Segment::Seq { index } => key = format!("{key}[{}]", index + taken.get(&key).unwrap_or(&0)),
                Segment::Map { key: name } if key.is_empty() => key.clone_from(name),
                Segment::Map { key: name } => key = format!("{key}.{name}"),
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        let reason = without_value(error.inner().message());
        let Some(value) = take(&mut table, &path) else {
            // Nothing to take out and read on from: what was found so far has to do.
            problems.push(Problem::new(key, reason));
            return (Config::default(), problems);
        };
        if let Some(Segment::Seq { .. }) = path.last() {
            *taken.entry(parent).or_default() += 1;
        }
        let secret = key.contains("secret") || key == "store" || key.ends_with("url");
        let shown = (!secret && !value.is_table() && !value.is_array()).then(|| value.to_string());
        problems.push(Problem { key, value: shown, reason });
    }
}

/// Takes out what `path` leads to, or the nearest thing around it that is there.
fn take(table: &mut toml::Table, path: &[&Segment]) -> Option<toml::Value> {
    let [first, rest @ ..] = path else { return None };
    let Segment::Map { key } = first else { return None };
    match table.get_mut(key) {
        Some(toml::Value::Table(inner)) if !rest.is_empty() => {
            if let Some(value) = take(inner, rest) {
                return Some(value);
            }
        }
        Some(toml::Value::Array(items)) => {
            if let [Segment::Seq { index }, rest @ ..] = rest {
                if let Some(toml::Value::Table(inner)) = items.get_mut(*index)
                    && !rest.is_empty()
                    && let Some(value) = take(inner, rest)
                {
                    return Some(value);
                }
                if *index < items.len() {
                    return Some(items.remove(*index));
                }
            }
        }
        _ => {}
    }
    table.remove(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problems(text: &str) -> Vec<String> {
        let Problems(problems) = Config::from_toml(text, &Overrides::default()).unwrap_err();
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn all_problems_come_at_once_with_key_value_and_range() {
        let text = "
            listen = 'nowhere'
            stoer = 'sqlite:'
            store = 'oracle://app:hunter2@db/app'
            trusted_proxies = ['10.0.0.0/8', 'proxy', '::1', 'other']
            [secrets]
            file = 'a'
            value = 'hunter2'
            [limits]
            body = 12
            header_read_timeout = '2 months'
            keep_alive = 'hunter2'
            [log]
            level = 'loud'
            [[webhooks]]
            url = 'https://a.example'
            events = ['session.ended']
            secret = 'hunter2'
            [[webhooks]]
            product = 'default'
            url = 'https://b.example'
            events = ['session.begun']
            secret = 5
            [keys]
            rotate_every = '1h'
            publish_ahead = '2h'
        ";
        let mut found = problems(text);
        found.sort();
        assert_eq!(
            found,
            [
                "keys.publish_ahead = 2h: must be shorter than keys.rotate_every",
                "limits.body = 12: must be a whole number from 1024 to 16777216",
                "limits.header_read_timeout = \"2 months\": must be a time from 1s to 1h, in whole seconds or like \"30s\", \"5m\", \"12h\", \"7d\"",
                "limits.keep_alive = \"hunter2\": expected a boolean",
                "listen = \"nowhere\": invalid socket address syntax",
                "log.level = \"loud\": expected one of `error`, `warn`, `info`, `debug`, `trace`",
                "secrets: must have either `file` (a path) or `value` (the secret itself), and never both",
                "stoer = \"sqlite:\": unknown field `stoer`, expected one of `listen`, `data_dir`, `store`, `issuer`, `audience`, `trusted_proxies`, `secrets`, `limits`, `tls`, `log`, `metrics`, `webhooks`, `keys`, `sweep`, `revocation_log`, `drain`",
                "store: must begin with `sqlite:`, `postgres://`, `mysql://`, `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://`",
                "trusted_proxies[1] = \"proxy\": must be an IP address or a network like `10.0.0.0/8`",
                "trusted_proxies[3] = \"other\": must be an IP address or a network like `10.0.0.0/8`",
                "webhooks[0]: missing field `product`",
                "webhooks[1].events[0] = \"session.begun\": expected one of `session.theft_detected`, `session.started`, `session.ended`, `user.banned`",
                "webhooks[1].secret: expected a string",
                "webhooks[1]: must have either `secret` or `secret_file`, and never both",
            ]
        );
    }

    #[test]
    fn a_syntax_error_names_its_line_and_does_not_quote_it() {
        let found = problems("listen = '127.0.0.1:1'\n[secrets]\nvalue = 'hunter2");
        assert!(found[0].starts_with("line 3 is not valid TOML: ") && !found[0].contains("hunter2"), "{found:?}");
    }

    #[test]
    fn overrides_replace_what_the_file_says_even_where_that_is_wrong() {
        let overrides = Overrides {
            listen: Some("127.0.0.1:1".parse().unwrap()),
            secrets_file: Some("there".into()),
            log_level: Some(LogLevel::Debug),
            store: Some("sqlite:elsewhere.db".to_owned().into()),
            config: None,
        };
        let config = Config::from_toml("listen = 'x'\n[secrets]\nfile = 'here'", &overrides).unwrap();
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.sqlite_path(), Some("elsewhere.db".into()));
        assert_eq!(config.secrets, Some(super::super::SecretSource::File("there".into())));
        assert_eq!(config.log.level, LogLevel::Debug);
        assert!(Config::from_toml("[secrets]\nvalue = 'x'", &overrides).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let overrides = Overrides { config: Some("/does/not/exist.toml".into()), ..Overrides::default() };
        let error = Config::load(&overrides).unwrap_err().to_string();
        assert!(error.starts_with("the configuration file /does/not/exist.toml cannot be read: "), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\[?[a-z_.]{1,12}\\]?( = ['\\[{]?[a-z0-9]{0,6}['\\]}]?)?\n){0,6}") {
            let _ = Config::from_toml(&text, &Overrides::default());
        }
    }
}
