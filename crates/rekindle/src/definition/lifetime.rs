//! Spans of time as people write them.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::clock::Seconds;

/// How long something lives: from one second to ten years ([`Lifetime::MAX`], longer than any device keeps a login).
///
/// In JSON it is whole seconds, or `{ "value": 7, "unit": "days" }`; it is always written as seconds. A month is 30 days and a
/// year is 365 days: a lifetime is a span, not a date in a calendar.
///
/// ```
/// use rekindle::definition::Lifetime;
/// let week: Lifetime = serde_json::from_str(r#"{ "value": 1, "unit": "week" }"#).unwrap();
/// assert_eq!(serde_json::to_string(&week).unwrap(), "604800");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Lifetime(Seconds);

impl Lifetime {
    /// The shortest: one second.
    pub const MIN: Self = Self(Seconds(1));
    /// The longest: ten years of 365 days.
    pub const MAX: Self = Self(Seconds(10 * 365 * DAY));

    /// From whole seconds; `None` outside [`Lifetime::MIN`] to [`Lifetime::MAX`].
    pub const fn from_seconds(seconds: Seconds) -> Option<Self> {
        if Self::MIN.0.0 <= seconds.0 && seconds.0 <= Self::MAX.0.0 { Some(Self(seconds)) } else { None }
    }

    /// From either of the two JSON forms.
    pub fn from_json(value: &Value) -> Result<Self, InvalidSpan> {
        span(value, Self::MIN.0.0..=Self::MAX.0.0).map(Self)
    }

    /// The span.
    pub const fn seconds(self) -> Seconds {
        self.0
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.0)
    }
}

impl<'de> Deserialize<'de> for Lifetime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Why a span of time was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpan {
    /// It is in neither of the two forms; fractions and negative numbers are among these.
    #[error("`{given}` is not a span of time: give whole seconds, or {{ \"value\": 7, \"unit\": \"days\" }}")]
    Form {
        /// What was given, shortened.
        given: String,
    },
    /// `m` stands for minutes to some and for months to others.
    #[error("the unit `m` is ambiguous: write `min` or `month`")]
    AmbiguousUnit,
    /// There is no such unit.
    #[error("unknown unit `{given}`: use one of {UNITS}")]
    UnknownUnit {
        /// What was given, shortened.
        given: String,
    },
    /// It is too short or too long.
    #[error("`{given}` is outside the accepted range of {min} to {max} seconds")]
    OutOfRange {
        /// What was given, shortened.
        given: String,
        /// The fewest seconds accepted.
        min: u64,
        /// The most seconds accepted.
        max: u64,
    },
}

/// Reads either JSON form of a span within `range`, which is in seconds.
pub(super) fn span(value: &Value, range: RangeInclusive<u64>) -> Result<Seconds, InvalidSpan> {
    let given = || super::shortened(&value.to_string());
    let form = || InvalidSpan::Form { given: given() };
    let (amount, unit) = match value {
        Value::Number(_) => (value.as_u64().ok_or_else(form)?, 1),
        Value::Object(fields) if fields.len() == 2 => {
            let amount = fields.get("value").and_then(Value::as_u64).ok_or_else(form)?;
            (amount, seconds_per(fields.get("unit").and_then(Value::as_str).ok_or_else(form)?)?)
        }
        _ => return Err(form()),
    };
    let seconds = amount.checked_mul(unit).filter(|s| range.contains(s));
    let out_of_range = || InvalidSpan::OutOfRange { given: given(), min: *range.start(), max: *range.end() };
    seconds.map(Seconds).ok_or_else(out_of_range)
}

const DAY: u64 = 24 * 60 * 60;

/// What [`seconds_per`] knows, for the error message.
const UNITS: &str =
    "s, sec, secs, second(s), min, mins, minute(s), h, hour(s), d, day(s), w, week(s), month(s), year(s)";

fn seconds_per(unit: &str) -> Result<u64, InvalidSpan> {
    Ok(match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 60 * 60,
        "d" | "day" | "days" => DAY,
        "w" | "week" | "weeks" => 7 * DAY,
        "month" | "months" => 30 * DAY,
        "year" | "years" => 365 * DAY,
        "m" => return Err(InvalidSpan::AmbiguousUnit),
        _ => return Err(InvalidSpan::UnknownUnit { given: super::shortened(unit) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::tests::any_json;
    use proptest::prelude::*;
    use serde_json::json;

    fn seconds(value: Value) -> u64 {
        Lifetime::from_json(&value).unwrap().seconds().0
    }

    fn refusal(value: Value) -> String {
        Lifetime::from_json(&value).unwrap_err().to_string()
    }

    #[test]
    fn every_spelling_is_understood() {
        for (units, each) in [
            (&["s", "sec", "secs", "second", "seconds"][..], 1),
            (&["min", "mins", "minute", "minutes"], 60),
            (&["h", "hour", "hours"], 3600),
            (&["d", "day", "days"], 86_400),
            (&["w", "week", "weeks"], 604_800),
            (&["month", "months"], 2_592_000),
            (&["year", "years"], 31_536_000),
        ] {
            for unit in units {
                assert_eq!(seconds(json!({ "value": 2, "unit": unit })), 2 * each, "{unit}");
            }
        }
        assert_eq!(seconds(json!(900)), 900);
    }

    #[test]
    fn a_refusal_names_the_value_and_what_is_accepted() {
        assert_eq!(refusal(json!(0)), "`0` is outside the accepted range of 1 to 315360000 seconds");
        assert_eq!(
            refusal(json!({ "value": 11, "unit": "years" })),
            r#"`{"unit":"years","value":11}` is outside the accepted range of 1 to 315360000 seconds"#
        );
        assert!(refusal(json!({ "value": u64::MAX, "unit": "years" })).contains("outside the accepted range"));
        for value in [json!(-5), json!(1.5), json!("15m"), json!(null), json!({ "value": 1.5, "unit": "h" })] {
            assert!(refusal(value.clone()).contains("give whole seconds, or"), "{value}");
        }
        for value in [json!({ "value": 1 }), json!({ "value": 1, "unit": "h", "extra": 1 }), json!({ "unit": "h" })] {
            assert!(refusal(value.clone()).contains("give whole seconds, or"), "{value}");
        }
        assert_eq!(refusal(json!({ "value": 5, "unit": "m" })), "the unit `m` is ambiguous: write `min` or `month`");
        assert!(
            refusal(json!({ "value": 5, "unit": "fortnight" })).starts_with("unknown unit `fortnight`: use one of s,")
        );
    }

    proptest! {
        #[test]
        fn it_is_written_as_seconds_and_read_back(s in 1..=Lifetime::MAX.0.0) {
            let lifetime = Lifetime::from_seconds(Seconds(s)).unwrap();
            let text = serde_json::to_string(&lifetime).unwrap();
            prop_assert_eq!(&text, &s.to_string());
            prop_assert_eq!(serde_json::from_str::<Lifetime>(&text).unwrap(), lifetime);
        }

        #[test]
        fn whatever_is_accepted_is_in_range(value in any_json(), amount in any::<u64>(), unit in "[a-z]{0,7}|days|years") {
            for value in [value.clone(), json!(amount), json!({ "value": amount, "unit": unit }), json!({ "value": value, "unit": "h" })] {
                if let Ok(lifetime) = Lifetime::from_json(&value) {
                    prop_assert!((Lifetime::MIN..=Lifetime::MAX).contains(&lifetime));
                }
            }
        }
    }
}
