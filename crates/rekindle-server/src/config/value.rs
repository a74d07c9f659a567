//! The types of single configuration values: each parses itself and says which values it takes.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use rekindle::session::Scope;
use rekindle_embedded::Location;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// A time of `MIN` to `MAX` whole seconds: `90`, `"90s"`, `"1h 30m"`, `"30d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    /// `seconds`, which must be in the range: for defaults, where the compiler checks it.
    pub const fn secs(seconds: u64) -> Self {
        assert!(seconds >= MIN && seconds <= MAX, "out of range");
        Self(seconds)
    }

    /// The number of seconds.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// The same as a [`Duration`].
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Span<MIN, MAX> {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        s.parse::<jiff::Span>()
            .ok()
            .and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok())
            .filter(|d| d.subsec_nanos() == 0)
            .and_then(|d| u64::try_from(d.as_secs()).ok())
            .and_then(Self::within)
            .ok_or_else(Self::expected)
    }
}

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    fn within(seconds: u64) -> Option<Self> {
        (MIN..=MAX).contains(&seconds).then_some(Self(seconds))
    }

    fn expected() -> String {
        format!(
            "must be a time from {} to {}, in whole seconds or like \"30s\", \"5m\", \"12h\", \"7d\"",
            Span::<0, { u64::MAX }>(MIN),
            Span::<0, { u64::MAX }>(MAX)
        )
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Span<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, unit) = [(86_400, 'd'), (3_600, 'h'), (60, 'm')]
            .into_iter()
            .find(|(size, _)| self.0 > 0 && self.0.is_multiple_of(*size))
            .unwrap_or((1, 's'));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Span<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Span<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const MIN: u64, const MAX: u64>;
        impl<const MIN: u64, const MAX: u64> de::Visitor<'_> for Visitor<MIN, MAX> {
            type Value = Span<MIN, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&Self::Value::expected())
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Self::Value, E> {
                u64::try_from(v).map_err(|_| E::custom(Self::Value::expected())).and_then(|v| self.visit_u64(v))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Self::Value, E> {
                Self::Value::within(v).ok_or_else(|| E::custom(Self::Value::expected()))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
                v.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Span<MIN, MAX> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Span{MIN}To{MAX}").into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": MIN, "maximum": MAX },
            { "type": "string", "examples": ["30s", "5m", "12h", "7d"] },
        ]})
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Whole<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    /// `n`, which must be in the range: for defaults, where the compiler checks it.
    pub const fn new(n: u64) -> Self {
        assert!(n >= MIN && n <= MAX, "out of range");
        Self(n)
    }

    /// The number.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The number, or `u32::MAX` where it is larger.
    pub fn saturating_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// The number, or `usize::MAX` where it is larger.
    pub fn saturating_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer)
            .ok()
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| (MIN..=MAX).contains(n))
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("must be a whole number from {MIN} to {MAX}")))
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Whole<MIN, MAX> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Whole{MIN}To{MAX}").into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A text that never prints itself: serialised and debugged it is `<redacted>`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text. Handle it like a password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<redacted>")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Declares a value that is written as text: parsed by `FromStr`, printed by `Display`.
macro_rules! text_value {
    ($name:ident, $example:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "examples": [$example] })
            }
        }
    };
}

/// Where sessions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite:<path>`; without a path, `rekindle.db` in the data directory.
    Sqlite(Option<PathBuf>),
    /// `postgres://…`; [`rekindle_postgres::PostgresConfig::parse`] tells its options.
    Postgres(Secret),
    /// `mysql://…` or `mariadb://…`; [`rekindle_mysql::MysqlConfig::parse`] tells its options.
    Mysql(Secret),
    /// `redis://…`, `rediss://…`, and either with `+sentinel` or `+cluster`; [`rekindle_redis::RedisConfig::parse`] tells its options.
    Redis(Secret),
}

text_value!(StoreUrl, "sqlite:/var/lib/rekindle/rekindle.db");

impl FromStr for StoreUrl {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let url = || Secret::from(s.to_owned());
        Ok(match Location::parse(s, Path::new(""))? {
            Location::Sqlite(path) => Self::Sqlite((s != "sqlite:").then_some(path)),
            Location::Postgres(_) => Self::Postgres(url()),
            Location::Mysql(_) => Self::Mysql(url()),
            Location::Redis(_) => Self::Redis(url()),
        })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(None) => f.write_str("sqlite:"),
            Self::Sqlite(Some(path)) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) | Self::Mysql(url) | Self::Redis(url) => f.write_str(&without_secrets(url.expose())),
        }
    }
}

/// A URL with `***` for its password, and for the options, which may hold others.
fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (place, options) = rest.split_once('?').map_or((rest, ""), |(place, _)| (place, "?***"));
    let place = match place.rsplit_once('@') {
        Some((login, place)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:***@{place}"),
            None => format!("{login}@{place}"),
        },
        None => place.to_owned(),
    };
    format!("{scheme}://{place}{options}")
}

/// An `http` or `https` URL with a host and without credentials or fragment, kept exactly as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    text: String,
    https: bool,
}

text_value!(HttpUrl, "https://sessions.example.com");

impl HttpUrl {
    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }
}

impl FromStr for HttpUrl {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let expected = || "must be an `http:` or `https:` URL with a host, without credentials and fragment".to_owned();
        let url: reqwest::Url = s.parse().map_err(|_| expected())?;
        let plain = url.has_host() && url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        match url.scheme() {
            "http" | "https" if plain => Ok(Self { text: s.to_owned(), https: url.scheme() == "https" }),
            _ => Err(expected()),
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The `aud` of access tokens, with `{product}` and `{env}` standing for the session's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudienceTemplate(String);

text_value!(AudienceTemplate, "{product}/{env}");

impl AudienceTemplate {
    /// The audience of one product and environment.
    pub fn render(&self, scope: &Scope) -> String {
        self.0.replace("{product}", scope.product.as_str()).replace("{env}", scope.env.as_str())
    }
}

impl Default for AudienceTemplate {
    fn default() -> Self {
        Self("{product}/{env}".into())
    }
}

impl FromStr for AudienceTemplate {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let rest = s.replace("{product}", "").replace("{env}", "");
        if (1..=256).contains(&s.len()) && !rest.contains(['{', '}']) {
            Ok(Self(s.into()))
        } else {
            Err("must be 1 to 256 bytes, with no placeholders but `{product}` and `{env}`".into())
        }
    }
}

impl fmt::Display for AudienceTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address or a network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

text_value!(Network, "10.0.0.0/8");

impl Network {
    /// Whether `ip` lies within.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip)
    }

    /// Whether every address of its family does.
    pub fn is_everything(&self) -> bool {
        self.0.prefix_len() == 0
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        s.parse::<IpNet>()
            .or_else(|_| s.parse::<IpAddr>().map(IpNet::from))
            .map(|net| Self(net.trunc()))
            .map_err(|_| "must be an IP address or a network like `10.0.0.0/8`".into())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Wide = Span<0, 315_360_000>;

    proptest! {
        #[test]
        fn a_time_is_read_back_as_printed(secs in 0..=315_360_000_u64) {
            let span = Wide::secs(secs);
            prop_assert_eq!(span.to_string().parse::<Wide>(), Ok(span));
        }

        #[test]
        fn any_text_is_parsed_or_refused(s in ".{0,60}") {
            let _ = s.parse::<Wide>();
            let _ = s.parse::<Network>();
            if let Ok(url @ StoreUrl::Sqlite(_)) = s.parse::<StoreUrl>() { prop_assert_eq!(url.to_string().parse(), Ok(url)); }
            if let Ok(url) = s.parse::<HttpUrl>() { prop_assert_eq!(url.as_str(), &s); }
            if let Ok(audience) = s.parse::<AudienceTemplate>() { prop_assert_eq!(audience.to_string(), s); }
        }
    }

    #[test]
    fn times_outside_their_range_or_with_fractions_are_refused() {
        for bad in ["0s", "11m", "1.5s", "500ms", "-5s", "1 month", "soon", ""] {
            assert_eq!(
                bad.parse::<Span<1, 600>>().unwrap_err(),
                "must be a time from 1s to 10m, in whole seconds or like \"30s\", \"5m\", \"12h\", \"7d\"",
                "{bad}"
            );
        }
        assert_eq!("1m 30s".parse::<Span<1, 600>>().unwrap().as_secs(), 90);
    }

    #[test]
    fn a_store_s_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://app:hunter2@db/app?sslrootcert=/hunter2", "postgres://app:***@db/app?***"),
            ("mariadb://app:hunter2@db/app", "mariadb://app:***@db/app"),
            ("redis+cluster://:hunter2@a:7000,b:7001/", "redis+cluster://:***@a:7000,b:7001/"),
            ("redis://db", "redis://db"),
        ] {
            let parsed: StoreUrl = url.parse().unwrap();
            assert_eq!(parsed.to_string(), shown);
            assert!(!format!("{parsed:?}").contains("hunter2"));
        }
        for bad in ["oracle://app:hunter2@db/app", "hunter2", "postgres://app:hunter2@db:port/app", "redis:hunter2"] {
            let error = bad.parse::<StoreUrl>().unwrap_err();
            assert!(!error.contains("hunter2") && error.contains("://"), "{error}");
        }
    }

    #[test]
    fn urls_need_a_host_and_carry_no_credentials() {
        assert!("https://s.example".parse::<HttpUrl>().unwrap().is_https());
        for bad in ["ftp://x", "s.example", "https://u:p@s.example", "https://s.example#x", "https:"] {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_audience_fills_in_product_and_environment() {
        let scope = Scope { product: "shop".parse().unwrap(), env: "live".parse().unwrap() };
        assert_eq!(AudienceTemplate::default().render(&scope), "shop/live");
        assert!("{user}".parse::<AudienceTemplate>().is_err());
    }

    #[test]
    fn a_network_is_an_address_or_a_range() {
        let net: Network = "10.1.2.3/8".parse().unwrap();
        assert!(net.contains("10.200.0.1".parse().unwrap()) && !net.contains("11.0.0.1".parse().unwrap()));
        assert!("::1".parse::<Network>().unwrap().contains("::1".parse().unwrap()));
    }
}
