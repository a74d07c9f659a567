//! Session events: what each session did, in OpenTelemetry's names where it has them.
//!
//! Events are written in the same atomic step as the change that they tell of. A timeline, `explain` and webhooks all read
//! them.

use std::borrow::Cow;
use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::clock::Timestamp;
use crate::rng::Rng;
use crate::rotation::TheftKind;
use crate::session::{Client, EndReason, InvalidName, SessionId, UserId, uuid_v7};

/// An event's id: a UUIDv7, so that a session's events sort by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(uuid::Uuid);

impl EventId {
    /// A fresh id.
    pub fn draw(now: Timestamp, rng: &dyn Rng) -> Self {
        Self(uuid_v7(now, rng))
    }

    /// The `i`-th of the ids that follow this one: for an intent that writes as many events as it finds sessions.
    pub fn nth(self, i: u32) -> Self {
        let (high, low) = self.0.as_u64_pair();
        const VARIANT: u64 = 0b10 << 62;
        Self(uuid::Uuid::from_u64_pair(high, VARIANT | (low.wrapping_add(u64::from(i)) & !(0b11 << 62))))
    }

    /// From 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// The 16 bytes, in the order in which they sort.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        uuid::Uuid::try_parse(&text).map(Self).map_err(de::Error::custom)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// The session began.
    #[serde(rename = "session.start")]
    Start,
    /// A refresh was asked for; the [`Outcome`] tells what came of it.
    #[serde(rename = "session.refresh")]
    Refresh,
    /// A refresh after a re-authentication.
    #[serde(rename = "session.elevate")]
    Elevate,
    /// An access token was asked for without rotating; recorded only when refused.
    #[serde(rename = "session.mint")]
    Mint,
    /// `data` or `claims` were written.
    #[serde(rename = "session.update")]
    Update,
    /// The session ended; `reason` tells why.
    #[serde(rename = "session.end")]
    End,
    /// Two parties used one session; `theft` tells how it was seen.
    #[serde(rename = "session.theft_detected")]
    TheftDetected,
    /// A user was banned (goes to webhooks only; it belongs to no session).
    #[serde(rename = "user.banned")]
    UserBanned,
}

impl EventKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Start,
        Self::Refresh,
        Self::Elevate,
        Self::Mint,
        Self::Update,
        Self::End,
        Self::TheftDetected,
        Self::UserBanned,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "session.start",
            Self::Refresh => "session.refresh",
            Self::Elevate => "session.elevate",
            Self::Mint => "session.mint",
            Self::Update => "session.update",
            Self::End => "session.end",
            Self::TheftDetected => "session.theft_detected",
            Self::UserBanned => "user.banned",
        }
    }
}

impl FromStr for EventKind {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        Self::ALL
            .into_iter()
            .find(|k| k.as_str() == s)
            .ok_or_else(|| InvalidName::new("event kind", s, "a documented one like `session.refresh`"))
    }
}

/// What came of a request that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The session moved to its next generation.
    Advanced,
    /// The present generation's token was handed out again; a re-authentication was recorded on it, if there was one.
    Reissued,
    /// The store was behind the client and was brought forward.
    FastForwarded,
    /// The request was older than the session.
    Superseded,
    /// The token came without the proof that it needs.
    ProofRequired,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] =
        [Self::Advanced, Self::Reissued, Self::FastForwarded, Self::Superseded, Self::ProofRequired];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Advanced => "advanced",
            Self::Reissued => "reissued",
            Self::FastForwarded => "fast_forwarded",
            Self::Superseded => "superseded",
            Self::ProofRequired => "proof_required",
        }
    }
}

impl FromStr for Outcome {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        Self::ALL
            .into_iter()
            .find(|o| o.as_str() == s)
            .ok_or_else(|| InvalidName::new("outcome", s, "a documented one like `advanced`"))
    }
}

/// The other party of a theft: who last moved the session on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counterpart {
    /// When it did.
    pub at: Timestamp,
    /// From where.
    pub client: Client,
    /// By which request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its id; webhooks repeat it, so that a receiver can drop duplicates.
    pub id: EventId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// Of which session. An intent that ends many sessions leaves it to the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Of which user; only on events that webhooks are sent for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// What came of it, for requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The session's generation afterwards.
    #[serde(default)]
    pub generation: u32,
    /// The generation of the token that was presented; left out where the session advanced, from the generation before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presented_generation: Option<u32>,
    /// Why the session ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
    /// How a theft was recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theft: Option<TheftKind>,
    /// The other party of a theft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterpart: Option<Counterpart>,
    /// From where the request came.
    #[serde(default, skip_serializing_if = "is_default")]
    pub client: Client,
    /// By which request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Who asked, where it was an administrator or a backend: an API key's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Whether webhooks are to be told. It is no part of the event.
    #[serde(skip)]
    pub notify: bool,
}

fn is_default(client: &Client) -> bool {
    *client == Client::default()
}

/// What an event says beyond its id, moment, kind, session, outcome and generation: for stores that have columns for those.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<Cow<'a, UserId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    presented_generation: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<EndReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    theft: Option<TheftKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counterpart: Option<Cow<'a, Counterpart>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<Cow<'a, Client>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<Cow<'a, str>>,
}

impl<'a> Rest<'a> {
    /// Of an event.
    pub fn of(event: &'a Event) -> Self {
        Self {
            user_id: event.user_id.as_ref().map(Cow::Borrowed),
            presented_generation: event.presented_generation,
            reason: event.reason,
            theft: event.theft,
            counterpart: event.counterpart.as_ref().map(Cow::Borrowed),
            client: Some(&event.client).filter(|client| !is_default(client)).map(Cow::Borrowed),
            request_id: event.request_id.as_deref().map(Cow::Borrowed),
            actor: event.actor.as_deref().map(Cow::Borrowed),
        }
    }

    /// An event that says this, and nothing of a session, an outcome or a generation yet.
    pub fn event(self, id: EventId, at: Timestamp, kind: EventKind) -> Event {
        Event {
            user_id: self.user_id.map(Cow::into_owned),
            presented_generation: self.presented_generation,
            reason: self.reason,
            theft: self.theft,
            counterpart: self.counterpart.map(Cow::into_owned),
            client: self.client.map(Cow::into_owned).unwrap_or_default(),
            request_id: self.request_id.map(Cow::into_owned),
            actor: self.actor.map(Cow::into_owned),
            ..Context::default().event(id, at, kind)
        }
    }
}

/// What a caller knows of the request that it carries out: it goes into every event.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// From where the request came; cut to [`Client::MAX_TEXT`] where it enters an event.
    pub client: Client,
    /// Its id, for logs.
    pub request_id: Option<String>,
    /// Who asked: an API key's id.
    pub actor: Option<String>,
}

impl Context {
    /// An event of this request, with nothing else said yet.
    pub fn event(&self, id: EventId, at: Timestamp, kind: EventKind) -> Event {
        Event {
            id,
            at,
            kind,
            session_id: None,
            user_id: None,
            outcome: None,
            generation: 0,
            presented_generation: None,
            reason: None,
            theft: None,
            counterpart: None,
            client: self.client.clone().bounded(),
            request_id: self.request_id.clone(),
            actor: self.actor.clone(),
            notify: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn following_ids_are_distinct_uuids_of_the_same_moment(random in any::<[u8; 10]>(), i in 1..1_000_000u32) {
            struct Fixed([u8; 10]);
            impl crate::rng::Rng for Fixed {
                fn fill(&self, dest: &mut [u8]) {
                    dest.copy_from_slice(&self.0);
                }
            }
            let first = EventId::draw(Timestamp::from_secs(1_000), &Fixed(random));
            let other = first.nth(i);
            prop_assert_ne!(first, other);
            prop_assert_eq!(other.0.get_version_num(), 7);
            prop_assert_eq!(&other.to_bytes()[..8], &first.to_bytes()[..8]);
        }
    }

    #[test]
    fn names_round_trip() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
            assert_eq!(outcome.as_str().parse(), Ok(outcome));
        }
    }
}
