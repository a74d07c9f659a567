//! The configuration: typed values, read from TOML with a few overrides; every problem is reported, not only the first.
//!
//! A [`Config`] that [`Config::load`] returned is valid; [`Config::problems_for_production`] says what a server outside of
//! development would refuse.

mod load;
mod production;
mod supertokens;
mod value;

use std::{net::SocketAddr, path::PathBuf};

use rekindle::{
    clock::Seconds,
    engine::Settings,
    journal::EventKind,
    keys::{KeySchedule, MAX_ACCESS_LIFETIME},
    session::Tag,
};
use rekindle_embedded::Location;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use load::{Overrides, Problem, Problems};
pub use supertokens::{RecentTokenReuse, SameSite, SuperTokens, TokenAlgorithm, Translated};
pub use value::{AudienceTemplate, HttpUrl, Network, Secret, Span, StoreUrl, Whole};

/// The whole configuration of a server. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address that the API listens on.
    pub listen: SocketAddr,
    /// The directory for everything that has no path of its own.
    pub data_dir: PathBuf,
    /// Where sessions are kept: `sqlite:<path>`, or `sqlite:` for `rekindle.db` in the data directory; or on servers that several
    /// Rekindle servers share: `postgres://…`, `mysql://…`, `redis://…`, `redis+sentinel://…`, `redis+cluster://…`.
    pub store: StoreUrl,
    /// The `iss` of access tokens. In development `http://<listen>`; in production required, and https.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<HttpUrl>,
    /// The `aud` of access tokens; `{product}` and `{env}` stand for the session's own.
    pub audience: AudienceTemplate,
    /// Proxies whose `X-Forwarded-For` and `X-Request-Id` are believed: addresses and networks.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<Network>,
    /// The master secrets, one line `<key id>:<base64url of at least 32 random bytes>` each; the first one issues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretSource>,
    /// What one connection and one API key may use.
    pub limits: Limits,
    /// TLS for the API's listener; without it the server speaks plain HTTP, behind a proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// What is logged, to standard error.
    pub log: Log,
    /// A listener of its own for `GET /metrics`, without a key.
    pub metrics: Metrics,
    /// Who is told of events.
    pub webhooks: Vec<Webhook>,
    /// Signing keys of access tokens.
    pub keys: Keys,
    /// The removal of what has expired.
    pub sweep: Sweep,
    /// The append-only file of revocations, which outlives a restored backup.
    pub revocation_log: RevocationLog,
    /// The orderly stop.
    pub drain: Drain,
    /// The SuperTokens face.
    pub supertokens: SuperTokens,
    /// Whether weak settings are accepted; not a key of the file, but `serve --dev`.
    #[serde(skip)]
    pub development: bool,
    /// How often signing keys are replaced under `serve --test-mode`.
    #[serde(skip)]
    pub test_rotation: Option<Seconds>,
    /// The keys of a SuperTokens configuration that mean nothing here.
    #[serde(skip)]
    pub ignored: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3567)),
            data_dir: "./rekindle-data".into(),
            store: StoreUrl::Sqlite(None),
            issuer: None,
            audience: AudienceTemplate::default(),
            trusted_proxies: Vec::new(),
            secrets: None,
            limits: Limits::default(),
            tls: None,
            log: Log::default(),
            metrics: Metrics::default(),
            webhooks: Vec::new(),
            keys: Keys::default(),
            sweep: Sweep::default(),
            revocation_log: RevocationLog::default(),
            drain: Drain::default(),
            supertokens: SuperTokens::default(),
            development: false,
            test_rotation: None,
            ignored: Vec::new(),
        }
    }
}

impl Config {
    /// The `iss` of access tokens: the configured one, else the address that is listened on.
    pub fn issuer(&self) -> String {
        self.issuer.as_ref().map_or_else(|| format!("http://{}", self.listen), |url| url.as_str().to_owned())
    }

    /// The path of the SQLite file, if the store is one.
    pub fn sqlite_path(&self) -> Option<PathBuf> {
        match self.location() {
            Location::Sqlite(path) => Some(path),
            Location::Postgres(_) | Location::Mysql(_) | Location::Redis(_) => None,
        }
    }

    /// Where the store is.
    pub fn location(&self) -> Location {
        let url = match &self.store {
            StoreUrl::Sqlite(path) => {
                return Location::Sqlite(path.clone().unwrap_or_else(|| self.data_dir.join("rekindle.db")));
            }
            StoreUrl::Postgres(url) | StoreUrl::Mysql(url) | StoreUrl::Redis(url) => url,
        };
        Location::parse(url.expose(), &self.data_dir).expect("the URL was read once")
    }

    /// The path of the revocation log.
    pub fn revocation_log_path(&self) -> PathBuf {
        self.revocation_log.path.clone().unwrap_or_else(|| self.data_dir.join("revocations.log"))
    }

    /// When signing keys come and go.
    ///
    /// # Panics
    /// When the configuration did not come from [`Config::from_toml`] and contradicts itself.
    pub fn key_schedule(&self) -> KeySchedule {
        if let Some(every) = self.test_rotation {
            let tokens = self.supertokens.access_token_validity.as_secs();
            return KeySchedule::for_tests(every, Seconds((every.0 / 5).min(60)), Seconds(2 * tokens + 60));
        }
        let (rotate_every, ahead) = (self.keys.rotate_every.as_secs(), self.keys.publish_ahead.as_secs());
        let retire_after = Seconds(MAX_ACCESS_LIFETIME.0 + ahead);
        KeySchedule::new(Seconds(rotate_every), Seconds(ahead), retire_after)
            .expect("the ranges of `keys`, and that one is longer than the other, were checked")
    }

    /// Where the master secrets are: as configured, else `secrets` in the data directory, where development keeps its own.
    pub fn secret_source(&self) -> SecretSource {
        self.secrets.clone().unwrap_or_else(|| SecretSource::File(self.data_dir.join("secrets")))
    }

    /// The effective configuration as TOML; secrets are `<redacted>`.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("the configuration is made of TOML values")
    }

    /// The JSON Schema of the file.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Config).to_value()
    }
}

/// A secret: in a file, or as a value, never both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "FileOrValue", rename_all = "snake_case")]
#[schemars(!try_from)]
pub enum SecretSource {
    /// The path of a file that only the server can read.
    File(PathBuf),
    /// The secret itself.
    Value(Secret),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileOrValue {
    file: Option<PathBuf>,
    value: Option<Secret>,
}

impl TryFrom<FileOrValue> for SecretSource {
    type Error = &'static str;
    fn try_from(given: FileOrValue) -> Result<Self, Self::Error> {
        Self::one_of(given.file, given.value)
            .ok_or("must have either `file` (a path) or `value` (the secret itself), and never both")
    }
}

impl SecretSource {
    /// The secret: the value, or the file's text without white space around it.
    pub fn read(&self) -> std::io::Result<Secret> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => Ok(Secret::from(std::fs::read_to_string(path)?.trim().to_owned())),
        }
    }

    fn one_of(file: Option<PathBuf>, value: Option<Secret>) -> Option<Self> {
        match (file, value) {
            (Some(file), None) => Some(Self::File(file)),
            (None, Some(value)) => Some(Self::Value(value)),
            _ => None,
        }
    }
}

/// What one connection and one API key may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How long a connection may take to deliver a request's headers, from when it opened or its last answer was sent: so this
    /// is also how long an idle connection is kept. Make it longer than the idle timeout of what is in front.
    pub header_read_timeout: Span<1, 3600>,
    /// How long a request may take, its body's arrival included; then it is answered 503.
    pub request_timeout: Span<1, 600>,
    /// The largest request body, in bytes.
    pub body: Whole<1024, 16_777_216>,
    /// How many connections are served at once; more of them wait.
    pub max_connections: Whole<1, 1_000_000>,
    /// Whether a connection may carry more than one request.
    pub keep_alive: bool,
    /// Requests per second for one API key; 0 means no limit.
    pub requests_per_second: Whole<0, 1_000_000>,
    /// How many requests of one API key may come at once.
    pub burst: Whole<1, 1_000_000>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_read_timeout: Span::secs(75),
            request_timeout: Span::secs(30),
            body: Whole::new(262_144),
            max_connections: Whole::new(10_000),
            keep_alive: true,
            requests_per_second: Whole::new(10_000),
            burst: Whole::new(20_000),
        }
    }
}

/// TLS for the API's listener. Both files are read once, at start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file: the certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM file: the private key.
    pub key: PathBuf,
}

/// What is logged, to standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// From which level on.
    pub level: LogLevel,
    /// For people or for machines.
    pub format: LogFormat,
    /// Which requests get a line.
    pub requests: LogRequests,
    /// From which duration on a request counts as slow, and gets a line in any case.
    pub slow_request: Span<1, 600>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            requests: LogRequests::Errors,
            slow_request: Span::secs(1),
        }
    }
}

/// From which level on something is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the usual five")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Which requests get a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogRequests {
    /// Those that failed on our side (5xx), and slow ones.
    Errors,
    /// Each one.
    All,
}

/// A listener of its own for `GET /metrics`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Its address; without one, metrics are on the API's listener and need a key with the scope `metrics`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

/// Who is told of which events of a product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "WebhookFields", into = "WebhookFields")]
pub struct Webhook {
    /// The product whose events are sent.
    pub product: Tag,
    /// Where they are sent.
    pub url: HttpUrl,
    /// Which ones.
    pub events: Vec<WebhookEvent>,
    /// What they are signed with.
    pub secret: SecretSource,
}

/// A `[[webhooks]]` table as it is written.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WebhookFields {
    /// The product whose events are sent.
    #[schemars(with = "String")]
    product: Tag,
    /// Where they are sent, by POST.
    url: HttpUrl,
    /// Which ones.
    events: Vec<WebhookEvent>,
    /// What they are signed with, at least 32 bytes; or `secret_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Secret>,
    /// The path of a file with the secret; or `secret`.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_file: Option<PathBuf>,
}

impl TryFrom<WebhookFields> for Webhook {
    type Error = &'static str;
    fn try_from(given: WebhookFields) -> Result<Self, Self::Error> {
        let secret = SecretSource::one_of(given.secret_file, given.secret)
            .ok_or("must have either `secret` or `secret_file`, and never both")?;
        if given.events.is_empty() {
            return Err("must name at least one of its events in `events`");
        }
        Ok(Self { product: given.product, url: given.url, events: given.events, secret })
    }
}

impl From<Webhook> for WebhookFields {
    fn from(webhook: Webhook) -> Self {
        let (secret, secret_file) = match webhook.secret {
            SecretSource::Value(value) => (Some(value), None),
            SecretSource::File(path) => (None, Some(path)),
        };
        Self { product: webhook.product, url: webhook.url, events: webhook.events, secret, secret_file }
    }
}

/// An event that a webhook can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum WebhookEvent {
    /// Two parties used one session.
    #[serde(rename = "session.theft_detected")]
    TheftDetected,
    /// A session started.
    #[serde(rename = "session.started")]
    SessionStarted,
    /// A session ended, for whatever reason.
    #[serde(rename = "session.ended")]
    SessionEnded,
    /// A user was banned.
    #[serde(rename = "user.banned")]
    UserBanned,
}

impl WebhookEvent {
    /// Every event.
    pub const ALL: [Self; 4] = [Self::TheftDetected, Self::SessionStarted, Self::SessionEnded, Self::UserBanned];

    /// The contract's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TheftDetected => "session.theft_detected",
            Self::SessionStarted => "session.started",
            Self::SessionEnded => "session.ended",
            Self::UserBanned => "user.banned",
        }
    }

    /// What it is called in the journal.
    pub const fn kind(self) -> EventKind {
        match self {
            Self::TheftDetected => EventKind::TheftDetected,
            Self::SessionStarted => EventKind::Start,
            Self::SessionEnded => EventKind::End,
            Self::UserBanned => EventKind::UserBanned,
        }
    }

    /// The event of that kind, if webhooks can ask for it.
    pub fn of(kind: EventKind) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.kind() == kind)
    }
}

/// Signing keys of access tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// How long a key signs.
    pub rotate_every: Span<3600, 31_622_400>,
    /// How long before it signs a key is published; longer than any verifier caches the JWKS, shorter than `rotate_every`.
    pub publish_ahead: Span<3601, 2_592_000>,
}

impl Default for Keys {
    fn default() -> Self {
        Self { rotate_every: Span::secs(30 * 86_400), publish_ahead: Span::secs(86_400) }
    }
}

/// The removal of what has expired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sweep {
    /// How often.
    pub every: Span<1, 86_400>,
    /// How many rows at a time.
    pub batch: Whole<1, 100_000>,
    /// How long an ended session and its events stay to be read.
    pub retention: Span<0, 315_360_000>,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            every: Span::secs(Settings::SWEEP_EVERY.0),
            batch: Whole::new(Settings::SWEEP_BUDGET.into()),
            retention: Span::secs(Settings::RETENTION.0),
        }
    }
}

/// The append-only file of revocations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RevocationLog {
    /// Its path; by default `revocations.log` in the data directory. Better on another disk than the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// The orderly stop on SIGTERM or SIGINT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long readiness answers 503 before the listener closes, so that a load balancer can look away.
    pub notice: Span<0, 600>,
    /// How long requests that are under way may then take to finish.
    pub timeout: Span<0, 600>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { notice: Span::secs(0), timeout: Span::secs(30) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const EXAMPLE: &str = include_str!("../../../rekindle.example.toml");

    /// The example with its optional lines (`#key = …`, `#[table]`; prose has a space after the `#`) switched on.
    fn example_in_full() -> String {
        let on = |line: &str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest.to_owned(),
            _ => line.to_owned(),
        };
        EXAMPLE.lines().map(on).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_as_it_stands_is_the_default() {
        assert_eq!(Config::from_toml(EXAMPLE, &Overrides::default()).unwrap(), Config::default());
    }

    #[test]
    fn the_example_in_full_is_valid_and_shows_every_key() {
        let full = example_in_full();
        Config::from_toml(&full, &Overrides::default()).unwrap();
        let mut shown = BTreeSet::new();
        keys(&toml::Value::Table(full.parse().unwrap()), &mut shown);
        let mut known = BTreeSet::new();
        properties(&Config::json_schema(), &mut known);
        known.remove("value"); // the other form of `secrets`
        known.remove("secret_file"); // the other form of `secret`
        assert_eq!(known.difference(&shown).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    fn keys(value: &toml::Value, into: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(table) => table.iter().for_each(|(key, value)| {
                into.insert(key.clone());
                keys(value, into);
            }),
            toml::Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
            _ => {}
        }
    }

    fn properties(schema: &serde_json::Value, into: &mut BTreeSet<String>) {
        match schema {
            serde_json::Value::Object(map) => {
                if let Some(serde_json::Value::Object(properties)) = map.get("properties") {
                    into.extend(properties.keys().cloned());
                }
                map.values().for_each(|value| properties(value, into));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| properties(item, into)),
            _ => {}
        }
    }

    #[test]
    fn the_effective_configuration_reads_back_as_itself() {
        let config = Config::default();
        assert_eq!(Config::from_toml(&config.to_toml(), &Overrides::default()).unwrap(), config);
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = "[secrets]\nvalue = 'hunter2'\n[[webhooks]]\nproduct = 'default'\nurl = 'https://x.example'\n\
                    events = ['session.ended']\nsecret = 'hunter3'";
        let config = Config::from_toml(text, &Overrides::default()).unwrap();
        let printed = format!("{}{config:?}", config.to_toml());
        assert!(!printed.contains("hunter"), "{printed}");
        assert_eq!(config.webhooks[0].events, [WebhookEvent::TheftDetected, WebhookEvent::SessionEnded][1..]);
    }

    #[test]
    fn event_names_are_the_same_in_code_and_in_files() {
        for event in WebhookEvent::ALL {
            assert_eq!(serde_json::to_value(event).unwrap(), event.as_str());
        }
    }
}
