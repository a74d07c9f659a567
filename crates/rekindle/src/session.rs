//! A session, and the names it goes by.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::rng::{self, Rng};
use crate::rotation::{Expiry, Position, Row};

/// A session's id: a UUIDv7, so that ids sort by start; imported ones may be any UUID. It never changes and is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(uuid::Uuid);

impl SessionId {
    /// From 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// The 16 bytes, in the order in which they sort.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// A fresh id for a session that starts `now`.
    pub fn draw(now: Timestamp, rng: &dyn Rng) -> Self {
        Self(uuid_v7(now, rng))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for SessionId {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        uuid::Uuid::try_parse(s).map(Self).map_err(|_| InvalidName::new("session id", s, "a UUID"))
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A UUIDv7 (RFC 9562, section 5.7) from injected time and randomness.
pub(crate) fn uuid_v7(now: Timestamp, rng: &dyn Rng) -> uuid::Uuid {
    let millis = u64::try_from(now.millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &rng::bytes::<10>(rng)).into_uuid()
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} `{given}` is not {expected}")]
pub struct InvalidName {
    what: &'static str,
    given: String,
    expected: &'static str,
}

impl InvalidName {
    pub(crate) fn new(what: &'static str, given: &str, expected: &'static str) -> Self {
        Self { what, given: given.chars().take(80).collect(), expected }
    }
}

/// Declares a short, validated, cheaply cloned name.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(s: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(s) { Ok(Self(s.into())) } else { Err(InvalidName::new($what, s, $expected)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

name! {
    /// A product's tag, or a session definition's tag within its product: `^[a-z][a-z0-9_-]{0,62}$`.
    Tag, "tag", "1 to 63 of a-z, 0-9, `_` and `-`, starting with a letter (and not `products`)",
    |s| (1..=63).contains(&s.len())
        && s.as_bytes()[0].is_ascii_lowercase()
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
        && s != "products"
}

name! {
    /// An environment's slug within its product: `^[a-z0-9][a-z0-9-]{0,31}$`.
    Env, "environment", "1 to 32 of a-z, 0-9 and `-`, not starting with `-`",
    |s| (1..=32).contains(&s.len())
        && s.as_bytes()[0] != b'-'
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

name! {
    /// Whose session it is: an opaque string of at most 256 bytes, as the application knows its user. Empty: anonymous.
    UserId, "user id", "at most 256 bytes long",
    |s| s.len() <= 256
}

impl UserId {
    /// Whether this session belongs to nobody in particular (yet).
    pub fn is_anonymous(&self) -> bool {
        self.0.is_empty()
    }
}

/// The product and environment that a session belongs to for life. Each signs with its own keys; a token of one is refused in
/// every other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// The product's tag.
    pub product: Tag,
    /// The environment's slug.
    pub env: Env,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.product, self.env)
    }
}

/// A JSON object kept as text: a session's `data` or `claims`. It is parsed only where somebody looks inside.
#[derive(Clone)]
pub struct Object(Box<RawValue>);

/// A text that is not one JSON object.
#[derive(Debug, thiserror::Error)]
#[error("expected a JSON object: {0}")]
pub struct NotAnObject(String);

impl Object {
    /// `{}`.
    pub fn empty() -> Self {
        Self::from_map(&serde_json::Map::new())
    }

    /// Checks that `text` is one JSON object and keeps it as it is.
    pub fn parse(text: String) -> Result<Self, NotAnObject> {
        if !text.trim_start().starts_with('{') {
            return Err(NotAnObject("it does not start with `{`".into()));
        }
        RawValue::from_string(text).map(Self).map_err(|e| NotAnObject(e.to_string()))
    }

    /// From a parsed object.
    pub fn from_map(map: &serde_json::Map<String, serde_json::Value>) -> Self {
        Self(serde_json::value::to_raw_value(map).expect("a map of JSON values is JSON"))
    }

    /// The parsed object.
    pub fn to_map(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(self.0.get()).expect("checked to be an object when it was made")
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.as_str().bytes().filter(|b| !b.is_ascii_whitespace()).eq(*b"{}")
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Object {}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} bytes)", self.as_str().len())
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Through the parsed form: a duplicate key or a depth bomb in a request must not reach the store as text.
        serde_json::Map::deserialize(deserializer).map(|map| Self::from_map(&map))
    }
}

/// From where a request came, as the backend saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The client's network address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Its `User-Agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// A name for the device that its user would recognise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Client {
    /// The longest of each text that is kept, in bytes; what is longer is cut, because no login should fail for a header.
    pub const MAX_TEXT: usize = 512;

    /// This, with each text cut to [`Client::MAX_TEXT`] bytes.
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.ip, &mut self.user_agent, &mut self.device].into_iter().flatten() {
            text.truncate(text.floor_char_boundary(Self::MAX_TEXT));
        }
        self
    }
}

/// When and how the user last authenticated (OpenID Connect Core: `auth_time`, `acr`, `amr`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// When.
    pub time: Timestamp,
    /// The authentication context class that was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// The methods that were used, as RFC 8176 names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
}

impl Auth {
    /// The longest `acr`, and each of `amr`, in bytes: they go into every access token.
    pub const MAX_TEXT: usize = 128;

    /// How many methods `amr` may name.
    pub const MAX_METHODS: usize = 16;
}

/// Why a session ended. The first reason stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the contract's, and say it")]
pub enum EndReason {
    SignedOut,
    Revoked,
    Replaced,
    Theft,
    Idle,
    Absolute,
    MaxSessions,
    CredentialChanged,
    Banned,
    UserDeleted,
}

impl EndReason {
    /// Every reason, in the contract's order.
    pub const ALL: [Self; 10] = [
        Self::SignedOut,
        Self::Revoked,
        Self::Replaced,
        Self::Theft,
        Self::Idle,
        Self::Absolute,
        Self::MaxSessions,
        Self::CredentialChanged,
        Self::Banned,
        Self::UserDeleted,
    ];

    /// The contract's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::Revoked => "revoked",
            Self::Replaced => "replaced",
            Self::Theft => "theft",
            Self::Idle => "idle",
            Self::Absolute => "absolute",
            Self::MaxSessions => "max_sessions",
            Self::CredentialChanged => "credential_changed",
            Self::Banned => "banned",
            Self::UserDeleted => "user_deleted",
        }
    }
}

impl FromStr for EndReason {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        Self::ALL
            .into_iter()
            .find(|r| r.as_str() == s)
            .ok_or_else(|| InvalidName::new("end reason", s, "one of the documented ones"))
    }
}

impl From<Expiry> for EndReason {
    fn from(expiry: Expiry) -> Self {
        match expiry {
            Expiry::Idle => Self::Idle,
            Expiry::Absolute => Self::Absolute,
        }
    }
}

/// That a session was ended, when and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
}

/// One login of one user: the row that every store keeps, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its product and environment.
    pub scope: Scope,
    /// The tag of its definition.
    pub tag: Tag,
    /// The version of the definition that it started with: the schema of its data.
    pub definition_version: u32,
    /// Whose it is.
    pub user_id: UserId,
    /// Where its rotation stands.
    pub position: Position,
    /// The present generation is known to have reached its client.
    pub confirmed: bool,
    /// Access tokens of older generations are refused (elevation raises it).
    pub min_generation: u32,
    /// The application's data, at most 64 KiB.
    pub data: Object,
    /// Claims for the access token, at most 4 KiB.
    pub claims: Object,
    /// Counts writes of data and claims, from 1.
    pub version: u64,
    /// From where it was started.
    pub client: Client,
    /// The authentication that it rests on.
    pub auth: Auth,
    /// When it started.
    pub created_at: Timestamp,
    /// It ends then unless it is refreshed; never later than `expires_at`.
    pub idle_expires_at: Timestamp,
    /// It ends then in any case.
    pub expires_at: Timestamp,
    /// The session that it replaced.
    pub previous_session_id: Option<SessionId>,
    /// It was ended before its time.
    pub ended: Option<Ended>,
}

impl Session {
    /// What the refresh decision needs. A natural end that a sweep noted is a clock that ran out, whatever the time is here.
    pub fn row(&self) -> Row {
        let noted = self.ended.map(|e| e.reason);
        let clock = |reason, at| if noted == Some(reason) { Timestamp::EPOCH } else { at };
        Row {
            position: self.position,
            confirmed: self.confirmed,
            revoked: noted.is_some_and(|reason| !matches!(reason, EndReason::Idle | EndReason::Absolute)),
            idle_expires_at: clock(EndReason::Idle, self.idle_expires_at),
            expires_at: clock(EndReason::Absolute, self.expires_at),
        }
    }

    /// How it stands at `now`: `None` while active, otherwise when and why it ended.
    pub fn end(&self, now: Timestamp) -> Option<Ended> {
        if let Some(ended) = self.ended {
            return Some(ended);
        }
        let over = [(self.expires_at, Expiry::Absolute), (self.idle_expires_at, Expiry::Idle)];
        let (at, expiry) = over.into_iter().min_by_key(|(at, _)| *at).expect("two clocks");
        (now >= at).then_some(Ended { at, reason: expiry.into() })
    }

    /// When the last successful refresh (or the start) was.
    pub fn last_refreshed_at(&self) -> Timestamp {
        Timestamp::from_secs(i64::from(self.position.issued_at)).max(self.created_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_are_parsed_or_refused(s in ".{0,70}") {
            let tag = s.parse::<Tag>().is_ok();
            let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            prop_assert!(!tag || s.bytes().all(|b| lower(b) || b == b'_' || b == b'-'));
            let _ = s.parse::<Env>();
            let _ = s.parse::<SessionId>();
            let _ = s.parse::<EndReason>();
            prop_assert_eq!(s.parse::<UserId>().is_ok(), s.len() <= 256);
        }

        #[test]
        fn clients_are_cut_at_a_character(ua in "\\PC{0,400}") {
            let cut = Client { user_agent: Some(ua.clone()), ..Client::default() }.bounded().user_agent.unwrap();
            prop_assert!(cut.len() <= Client::MAX_TEXT && ua.starts_with(&cut));
        }
    }

    #[test]
    fn the_contract_s_edges_of_names() {
        for good in ["a", "my-product_2", &"a".repeat(63)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", "2a", "-a", "A", "a.b", "products", &"a".repeat(64), "é"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
        for (slug, good) in [("dev", true), ("2", true), ("-a", false), ("a_b", false), ("", false)] {
            assert_eq!(slug.parse::<Env>().is_ok(), good, "{slug}");
        }
        assert_eq!(
            "Nope".parse::<Tag>().unwrap_err().to_string(),
            "the tag `Nope` is not 1 to 63 of a-z, 0-9, `_` and `-`, starting with a letter (and not `products`)"
        );
    }

    #[test]
    fn objects_are_objects() {
        assert!(Object::parse("{}".into()).unwrap().is_empty());
        assert_eq!(Object::parse(r#"{"a":1}"#.into()).unwrap().to_map()["a"], 1);
        for bad in ["", "[]", "1", "{", "{} {}", "null"] {
            assert!(Object::parse(bad.into()).is_err(), "{bad}");
        }
    }
}
