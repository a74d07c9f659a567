//! The configuration that SuperTokens' users have: a `config.yaml` and environment variables, as keys of ours.

use rekindle::clock::Seconds;
use serde_json::{Map, Value, json};

use super::super::Problem;

/// What a foreign configuration says.
#[derive(Debug, Default, PartialEq)]
pub struct Translated {
    /// In our words: to be laid under what our own file says.
    pub ours: Value,
    /// For tests: how long a signing key signs, where that is shorter than we would have it.
    pub test_rotation: Option<Seconds>,
    /// Keys that mean nothing here.
    pub ignored: Vec<String>,
    /// What would be unsafe or impossible.
    pub problems: Vec<Problem>,
}

/// What becomes of a key.
enum Meaning {
    /// It is one of ours, in a section.
    Ours(&'static str, &'static str, Kind),
    /// Part of the address to listen on.
    Address,
    /// How many hours a signing key signs.
    Rotation,
    /// The comma-separated keys of callers.
    ApiKeys,
    /// The level of the log.
    LogLevel,
    /// With or without slashes around it.
    BasePath,
    /// It needs no answer.
    Moot,
    /// Without it the server would be less safe than its operator believes.
    Refused(&'static str),
    /// It has no meaning here.
    Ignored,
}

/// How a value is read.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Flag,
    Whole,
    /// A time in so many seconds, fractions allowed.
    Span(f64),
}

fn meaning(key: &str) -> Meaning {
    const HERE: &str = "supertokens";
    match key {
        "access_token_validity" => Meaning::Ours(HERE, "access_token_validity", Kind::Span(1.0)),
        "refresh_token_validity" => Meaning::Ours(HERE, "refresh_token_validity", Kind::Span(60.0)),
        "recent_token_reuse_behaviour" => Meaning::Ours(HERE, "recent_token_reuse_behaviour", Kind::Text),
        "refresh_token_rotation_grace_period" => {
            Meaning::Ours(HERE, "refresh_token_rotation_grace_period", Kind::Span(1.0))
        }
        "access_token_blacklisting" => Meaning::Ours(HERE, "access_token_blacklisting", Kind::Flag),
        "access_token_signing_key_dynamic" => Meaning::Ours(HERE, "access_token_signing_key_dynamic", Kind::Flag),
        "enable_anti_csrf" => Meaning::Ours(HERE, "enable_anti_csrf", Kind::Flag),
        "base_path" => Meaning::BasePath,
        "cookie_domain" => Meaning::Ours(HERE, "cookie_domain", Kind::Text),
        "cookie_secure" => Meaning::Ours(HERE, "cookie_secure", Kind::Flag),
        "cookie_same_site" => Meaning::Ours(HERE, "cookie_same_site", Kind::Text),
        "access_token_path" => Meaning::Ours(HERE, "access_token_path", Kind::Text),
        "refresh_api_path" => Meaning::Ours(HERE, "refresh_api_path", Kind::Text),
        "session_expired_status_code" => Meaning::Ours(HERE, "session_expired_status_code", Kind::Whole),
        "access_token_dynamic_signing_key_update_interval" | "access_token_signing_key_update_interval" => {
            Meaning::Rotation
        }
        "host" | "port" => Meaning::Address,
        "api_keys" => Meaning::ApiKeys,
        "log_level" => Meaning::LogLevel,
        "core_config_version" | "disable_telemetry" => Meaning::Moot,
        "ip_allow_regex" | "ip_deny_regex" => {
            Meaning::Refused("is not supported: filter addresses in front of the server, and take the key out")
        }
        "supertokens_saas_secret" => {
            Meaning::Refused("is not supported: who has a key of the app `public` may make apps; take the key out")
        }
        _ => Meaning::Ignored,
    }
}

/// The keys that may come as environment variables, in upper case.
const KEYS: [&str; 20] = [
    "access_token_validity",
    "refresh_token_validity",
    "refresh_token_rotation_grace_period",
    "access_token_blacklisting",
    "access_token_signing_key_dynamic",
    "enable_anti_csrf",
    "base_path",
    "cookie_domain",
    "cookie_secure",
    "cookie_same_site",
    "access_token_path",
    "refresh_api_path",
    "session_expired_status_code",
    "access_token_dynamic_signing_key_update_interval",
    "access_token_signing_key_update_interval",
    "api_keys",
    "log_level",
    "ip_allow_regex",
    "ip_deny_regex",
    "supertokens_saas_secret",
];

impl Translated {
    /// Reads the text of a `config.yaml`, and over it the environment. With `test_mode`, signing keys may be replaced as often
    /// as somebody likes.
    pub fn of(yaml: &str, env: impl Fn(&str) -> Option<String>, test_mode: bool) -> Self {
        let mut translated = Self { ours: json!({}), ..Self::default() };
        let mut given: Map<String, Value> = match yaml.trim().is_empty() {
            true => Map::new(),
            false => match serde_saphyr::from_str::<Option<Map<String, Value>>>(yaml) {
                Ok(given) => given.unwrap_or_default(),
                Err(error) => {
                    let place = error.location().map_or(String::new(), |at| format!("line {}: ", at.line()));
                    let reason =
                        format!("{place}the SuperTokens configuration is not a YAML mapping of keys to values");
                    translated.problems.push(Problem::new("", reason));
                    return translated;
                }
            },
        };
        let variables = KEYS.iter().map(|key| (*key, key.to_ascii_uppercase()));
        let variables = variables.chain([("host", "SUPERTOKENS_HOST".into()), ("port", "SUPERTOKENS_PORT".into())]);
        given.extend(variables.filter_map(|(key, variable)| Some((key.to_owned(), env(&variable)?.into()))));
        given.retain(|_, value| !value.is_null());
        for (key, value) in &given {
            if let Err(reason) = translated.take(key, value, test_mode) {
                translated.problems.push(Problem::new(key, reason));
            }
        }
        translated.listen(&given);
        translated
    }

    fn take(&mut self, key: &str, value: &Value, test_mode: bool) -> Result<(), String> {
        match meaning(key) {
            Meaning::Ours(section, name, kind) => self.set(section, name, read(kind, value)?),
            Meaning::Rotation => {
                let hours = number(value)?;
                let seconds = Seconds((hours * 3600.0).ceil().max(1.0) as u64);
                if seconds.0 >= SHORTEST_ROTATION {
                    self.set("keys", "rotate_every", format!("{}s", seconds.0).into());
                    // Ahead by a day where that is possible.
                    self.set("keys", "publish_ahead", format!("{}s", (seconds.0 / 2).min(86_400)).into());
                } else if test_mode {
                    self.test_rotation = Some(seconds);
                } else {
                    return Err(format!("must be at least {} hours", SHORTEST_ROTATION as f64 / 3600.0));
                }
            }
            Meaning::ApiKeys => {
                let keys = crate::supertokens::api_keys(text(value)?)?;
                self.set("supertokens", "api_keys", keys.into());
            }
            Meaning::LogLevel => {
                let level = text(value)?.to_ascii_lowercase();
                self.set("log", "level", if level == "none" { "error".into() } else { level.into() });
            }
            Meaning::BasePath => {
                let path = text(value)?.trim_matches('/');
                let path = if path.is_empty() { String::new() } else { format!("/{path}") };
                self.set("supertokens", "base_path", path.into());
            }
            Meaning::Address | Meaning::Moot => {}
            Meaning::Refused(reason) => return Err(reason.into()),
            Meaning::Ignored => self.ignored.push(key.to_owned()),
        }
        Ok(())
    }

    fn listen(&mut self, given: &Map<String, Value>) {
        if !given.contains_key("host") && !given.contains_key("port") {
            return;
        }
        let shown = |key: &str, default: &str| match given.get(key) {
            None => default.to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let (host, port) = (shown("host", "localhost"), shown("port", "3567"));
        let host = if host == "localhost" { "127.0.0.1".to_owned() } else { host };
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
        self.ours["listen"] = format!("{host}:{port}").into();
    }

    fn set(&mut self, section: &str, name: &str, value: Value) {
        self.ours[section][name] = value;
    }
}

/// A key must be published for more than an hour before it signs, and sign longer than that.
const SHORTEST_ROTATION: u64 = 2 * 3601;

fn read(kind: Kind, value: &Value) -> Result<Value, String> {
    Ok(match kind {
        Kind::Text => text(value)?.into(),
        Kind::Flag => match value {
            Value::Bool(flag) => (*flag).into(),
            _ => text(value)?.to_ascii_lowercase().parse::<bool>().map_err(|_| "must be true or false")?.into(),
        },
        Kind::Whole => (number(value)? as i64).into(),
        // Rounded up, but for what floating point adds to a whole number.
        Kind::Span(unit) => format!("{}s", (number(value)? * unit - 1e-6).ceil().max(0.0) as u64).into(),
    })
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "must be a text".into())
}

fn number(value: &Value) -> Result<f64, String> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|n: &f64| n.is_finite() && *n >= 0.0).ok_or_else(|| "must be a number".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn translated(yaml: &str) -> Translated {
        Translated::of(yaml, |_| None, false)
    }

    #[test]
    fn a_config_yaml_in_our_words() {
        let found = translated(
            "core_config_version: 0\n# a comment\naccess_token_validity: 3600\nrefresh_token_validity: 144000\n\
             host: 0.0.0.0\nport: 3568\napi_keys: first-key-of-twenty-characters,second-key-of-twenty-characters\n\
             access_token_dynamic_signing_key_update_interval: 24\nlog_level: WARN\ncookie_secure:\n\
             postgresql_host: db\nmax_server_pool_size: 10\nbase_path: auth/\n",
        );
        assert_eq!(
            found.ours,
            json!({
                "listen": "0.0.0.0:3568",
                "log": { "level": "warn" },
                "keys": { "rotate_every": "86400s", "publish_ahead": "43200s" },
                "supertokens": {
                    "access_token_validity": "3600s", "refresh_token_validity": "8640000s", "base_path": "/auth",
                    "api_keys": ["first-key-of-twenty-characters", "second-key-of-twenty-characters"],
                },
            })
        );
        assert_eq!(found.ignored, ["max_server_pool_size", "postgresql_host"]);
        assert_eq!((found.problems, found.test_rotation), (vec![], None));
    }

    #[test]
    fn the_environment_goes_over_the_file() {
        let env = |name: &str| match name {
            "ACCESS_TOKEN_VALIDITY" => Some("60".to_owned()),
            "SUPERTOKENS_PORT" => Some("1".to_owned()),
            _ => None,
        };
        let found = Translated::of("access_token_validity: 3600", env, false);
        assert_eq!(found.ours, json!({ "listen": "127.0.0.1:1", "supertokens": { "access_token_validity": "60s" } }));
    }

    #[test]
    fn what_would_be_unsafe_or_impossible_is_refused() {
        for (yaml, said) in [
            (
                "ip_allow_regex: 10.*",
                "ip_allow_regex: is not supported: filter addresses in front of the server, and take the key out",
            ),
            ("access_token_validity: soon", "access_token_validity: must be a number"),
            ("api_keys: short", "api_keys: One of the API keys is too short. Please use at least 20 characters"),
            (
                "access_token_signing_key_update_interval: 1",
                "access_token_signing_key_update_interval: must be at least 2.0005555555555556 hours",
            ),
            ("- a list", "line 1: the SuperTokens configuration is not a YAML mapping of keys to values"),
        ] {
            let said_here: Vec<String> = translated(yaml).problems.iter().map(ToString::to_string).collect();
            assert_eq!(said_here, [said], "{yaml}");
        }
        let test = Translated::of("access_token_dynamic_signing_key_update_interval: 0.001", |_| None, true);
        assert_eq!((test.test_rotation, test.problems), (Some(Seconds(4)), vec![]));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(yaml in "([a-z_]{1,9}:? ?[\\[\\]{}&*!|>'\"a-z0-9 -]{0,8}\n){0,4}") {
            translated(&yaml);
        }
    }
}
