//! Reading the configuration so that all its problems come out at once.

use std::{collections::HashMap, fmt, net::SocketAddr, path::PathBuf};

use serde_path_to_error::Segment;

use super::{Config, LogLevel, Secret, Translated};
use crate::serde_message::without_value;

/// What the command line or the environment may set over the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// The configuration file. Without one, every value has its default.
    #[arg(long, env = "REKINDLE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A configuration file of SuperTokens' own core, `config.yaml`: what it says goes under the configuration file, and its environment
    /// variables go over it.
    #[arg(long, env = "REKINDLE_SUPERTOKENS_CONFIG", value_name = "FILE")]
    pub supertokens_config: Option<PathBuf>,
    /// For tests of applications, with --dev: signing keys may be replaced every few seconds, as a SuperTokens configuration says.
    #[arg(long)]
    pub test_mode: bool,
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

impl Problem {
    /// Whether one is about the other's key, or about something within it; the items of a list count as one.
    fn touches(&self, other: &Self) -> bool {
        let [this, other] = [self, other].map(|problem| problem.key.split('[').next().unwrap_or_default());
        let within = |inner: &str, outer| {
            inner.strip_prefix(outer).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('.'))
        };
        within(this, other) || within(other, this)
    }

    /// Whether `wrong`, which was taken out, is what this misses.
    fn misses(&self, wrong: &Self) -> bool {
        let name = wrong.key.strip_prefix(&self.key).and_then(|rest| rest.strip_prefix('.'));
        name.is_some_and(|name| self.reason.contains(&format!("`{name}`")))
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
        let (config, problems) = Self::read(overrides)?;
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }

    /// The same from the text of a file.
    pub fn from_toml(text: &str, overrides: &Overrides) -> Result<Self, Problems> {
        let (config, problems) = Self::over(Translated::default(), text, overrides)?;
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }

    /// Everything that keeps a server outside of development from starting with this: what is wrong, and what is too weak.
    pub fn check_for_production(overrides: &Overrides) -> Vec<Problem> {
        let (config, mut problems) = match Self::read(overrides) {
            Ok(read) => read,
            Err(Problems(problems)) => return problems,
        };
        let mut weak = config.problems_for_production(overrides.config.as_deref());
        // What was wrong is not there any more: no word about what it was to be.
        weak.retain(|weak| !problems.iter().any(|wrong| wrong.touches(weak)));
        problems.extend(weak);
        problems
    }

    /// What can be read of the files that `overrides` names, with the default for what is wrong with it, and that.
    fn read(overrides: &Overrides) -> Result<(Self, Vec<Problem>), Problems> {
        let foreign = match &overrides.supertokens_config {
            None => Translated::default(),
            path => Translated::of(&text(path)?, |name| std::env::var(name).ok(), overrides.test_mode),
        };
        Self::over(foreign, &text(&overrides.config)?, overrides)
    }

    /// The same of a file's text, over what another configuration says.
    fn over(foreign: Translated, text: &str, overrides: &Overrides) -> Result<(Self, Vec<Problem>), Problems> {
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            // Not the error's own display: that quotes the line, which may hold a secret.
            let line = e.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            Problems(vec![Problem::new("", format!("line {line} is not valid TOML: {}", without_value(e.message())))])
        })?;
        if let Ok(toml::Value::Table(ours)) = toml::Value::try_from(&foreign.ours) {
            lay_under(&mut table, ours);
        }
        overrides.apply(&mut table);
        let (mut config, mut problems) = deserialize(table);
        (config.ignored, config.test_rotation) = (foreign.ignored, foreign.test_rotation);
        problems.extend(foreign.problems);
        if config.keys.publish_ahead.as_secs() >= config.keys.rotate_every.as_secs() {
            problems.push(
                Problem::new("keys.publish_ahead", "must be shorter than keys.rotate_every")
                    .with(config.keys.publish_ahead),
            );
        }
        let face = &config.supertokens;
        if !face.base_path.is_empty() && (!face.base_path.starts_with('/') || face.base_path.ends_with('/')) {
            let reason = "must start with `/` and not end with one";
            problems.push(Problem::new("supertokens.base_path", reason).with(&face.base_path));
        }
        if face.refresh_token_validity.as_secs() <= face.access_token_validity.as_secs() {
            let reason = "must be longer than supertokens.access_token_validity";
            problems.push(Problem::new("supertokens.refresh_token_validity", reason).with(face.refresh_token_validity));
        }
        if config.metrics.listen == Some(config.listen) && config.listen.port() != 0 {
            problems.push(Problem::new("metrics.listen", "must differ from listen").with(config.listen));
        }
        Ok((config, problems))
    }
}

fn text(path: &Option<PathBuf>) -> Result<String, Problems> {
    let Some(path) = path else { return Ok(String::new()) };
    std::fs::read_to_string(path).map_err(|e| {
        let reason = format!("the configuration file {} cannot be read: {e}", path.display());
        Problems(vec![Problem::new("", reason)])
    })
}

/// Adds what `table` does not say.
fn lay_under(table: &mut toml::Table, under: toml::Table) {
    for (key, value) in under {
        match (table.get_mut(&key), value) {
            (None, value) => drop(table.insert(key, value)),
            (Some(toml::Value::Table(table)), toml::Value::Table(under)) => lay_under(table, under),
            (Some(_), _) => {}
        }
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
        let secret =
            ["secret", "api_key"].iter().any(|word| key.contains(word)) || key == "store" || key.ends_with("url");
        let shown = (!secret && !value.is_table() && !value.is_array()).then(|| value.to_string());
        let problem = Problem { key, value: shown, reason };
        if !problems.iter().any(|wrong| problem.misses(wrong)) {
            problems.push(problem);
        }
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
                "stoer = \"sqlite:\": unknown field `stoer`, expected one of `listen`, `data_dir`, `store`, `issuer`, `audience`, `trusted_proxies`, `secrets`, `limits`, `tls`, `log`, `metrics`, `webhooks`, `keys`, `sweep`, `revocation_log`, `drain`, `supertokens`",
                "store: must begin with `sqlite:`, `postgres://`, `mysql://`, `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://`",
                "trusted_proxies[1] = \"proxy\": must be an IP address or a network like `10.0.0.0/8`",
                "trusted_proxies[3] = \"other\": must be an IP address or a network like `10.0.0.0/8`",
                "webhooks[0]: missing field `product`",
                "webhooks[1].events[0] = \"session.begun\": expected one of `session.theft_detected`, `session.started`, `session.ended`, `user.banned`",
                "webhooks[1].secret: expected a string",
            ]
        );
    }

    #[test]
    fn what_was_taken_out_is_not_missed() {
        let text = "
            [[webhooks]]
            product = 'No'
            url = 'https://a.example'
            events = ['session.ended']
            secret = 'hunter2'
        ";
        let found = problems(text);
        assert!(found.len() == 1 && found[0].starts_with("webhooks[0].product = \"No\": "), "{found:?}");
    }

    #[test]
    fn what_is_wrong_hides_nothing_that_is_weak() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let text = "
            issuer = 'nowhere'
            listen = '0.0.0.0:80'
            limits.body = 12
            limits.requests_per_second = 0
        ";
        let check = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let overrides = Overrides { config: Some(file.clone()), ..Overrides::default() };
            let found = Config::check_for_production(&overrides);
            found.iter().map(|problem| problem.key.clone()).collect::<Vec<_>>()
        };
        let mut found = check(text);
        found.sort();
        assert_eq!(found, ["issuer", "limits.body", "limits.requests_per_second", "listen", "secrets"]);
        assert_eq!(check("listen = "), [""]);
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
            ..Overrides::default()
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
