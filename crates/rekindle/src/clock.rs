//! The one place where wall-clock time enters.
//!
//! Everything else takes a [`Timestamp`] or a [`Clock`], so that the model checker, the simulator and production run the
//! same code. No store asks its database for the time.

use std::{fmt, ops, str::FromStr};

use jiff::fmt::temporal::Pieces;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment in UTC with millisecond precision: what every store keeps exactly, and what the API prints as RFC 3339.
///
/// ```
/// use rekindle::clock::Timestamp;
/// let t: Timestamp = "2026-11-20T10:00:00Z".parse().unwrap();
/// assert_eq!((t + rekindle::clock::Seconds(90)).to_string(), "2026-11-20T10:01:30Z");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest moment that can be printed as RFC 3339 (the year 9999).
    pub const MAX: Self = Self(253_402_207_200_000);
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down: what a JWT carries.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The time from `earlier` to `self` in whole seconds, rounded down; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Seconds {
        Seconds(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0) / 1000)
    }
}

impl ops::Add<Seconds> for Timestamp {
    type Output = Self;
    fn add(self, by: Seconds) -> Self {
        let millis = i64::try_from(by.0.saturating_mul(1000)).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis).min(Self::MAX.0))
    }
}

impl ops::Sub<Seconds> for Timestamp {
    type Output = Self;
    fn sub(self, by: Seconds) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.0.saturating_mul(1000)).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => t.fmt(f),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What was wrong with a time given as text. It begins with the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimestamp {
    /// It tells no moment.
    #[error("`{0}` is not an RFC 3339 time like `2026-11-20T10:00:00Z`; another offset than `Z` is converted to UTC")]
    Form(String),
    /// It tells one that is later than [`Timestamp::MAX`], or earlier than any that there is.
    #[error("`{0}` is out of range: the latest time is {max}", max = Timestamp::MAX)]
    Range(String),
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;
    fn from_str(s: &str) -> Result<Self, InvalidTimestamp> {
        let moment = s.parse::<jiff::Timestamp>().map(|t| Self(t.as_millisecond())).ok();
        moment.filter(|t| *t <= Self::MAX).ok_or_else(|| {
            let given = s.chars().take(64).collect();
            let well_formed = Pieces::parse(s).is_ok_and(|p| p.time().is_some() && p.offset().is_some());
            if well_formed { InvalidTimestamp::Range(given) } else { InvalidTimestamp::Form(given) }
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A span of whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub u64);

/// Where the engine reads the time.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where time enters")]
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_millisecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(millis in 0..=Timestamp::MAX.0) {
            let t = Timestamp(millis);
            prop_assert_eq!(t.to_string().parse::<Timestamp>().unwrap(), t);
        }

        #[test]
        fn any_text_is_parsed_or_refused(s in ".{0,80}") {
            let _ = s.parse::<Timestamp>();
        }

        #[test]
        fn an_offset_is_converted(secs in 0..250_000_000_000_i64, hours in -12..=14_i8) {
            let t = jiff::Timestamp::from_second(secs).unwrap();
            let there = t.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(hours)));
            let text = there.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
            prop_assert_eq!(text.parse::<Timestamp>().unwrap(), Timestamp::from_secs(secs));
        }

        #[test]
        fn addition_never_passes_the_maximum(millis in any::<i64>(), by in any::<u64>()) {
            prop_assert!(Timestamp(millis) + Seconds(by) <= Timestamp::MAX);
        }
    }
    #[test]
    fn what_is_wrong_with_a_time_is_said() {
        let said = |text: &str| text.parse::<Timestamp>().unwrap_err().to_string();
        assert_eq!("9999-12-30T22:00:00Z".parse(), Ok(Timestamp::MAX));
        for late in ["9999-12-31T23:59:59Z", "9999-12-31T00:00:00+01:00", "9999-12-30T22:00:00.001Z"] {
            assert_eq!(said(late), format!("`{late}` is out of range: the latest time is 9999-12-30T22:00:00Z"));
        }
        for bad in
            ["", "yesterday", "2026-11-20", "2026-11-20T10:00:00", "2026-02-30T10:00:00Z", "2026-11-20T10:00:00X"]
        {
            assert!(said(bad).starts_with(&format!("`{bad}` is not an RFC 3339 time like ")), "{bad}");
        }
    }
}
