//! Where in a session's data its user id is.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use super::schema::type_name;
use crate::session::UserId;

/// A path into a session's data that names its user id: `$Session{details}{username}`.
///
/// Also read as `details.username`; always kept and written in the canonical form. A segment is the name of a member: not
/// empty, without braces and control characters. Members of objects only; an array has no names.
///
/// ```
/// use rekindle::definition::Selector;
/// let selector: Selector = "details.id".parse().unwrap();
/// assert_eq!(selector.to_string(), "$Session{details}{id}");
/// let data = serde_json::json!({ "details": { "id": 42 } });
/// assert_eq!(selector.resolve(data.as_object().unwrap()).unwrap().as_str(), "42");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Selector(Arc<str>);

const HEAD: &str = "$Session";

impl Selector {
    /// The longest canonical form, in bytes.
    pub const MAX_LEN: usize = 256;

    /// The canonical form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names on the path, outermost first; at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0[HEAD.len() + 1..self.0.len() - 1].split("}{")
    }

    /// The user id in `data`: a string as it is, a number or boolean as the text that JSON has for it (`42`, and `42` for `42.0`,
    /// because languages differ in which of the two they send).
    ///
    /// An error when it is missing, empty, not a primitive, or longer than a user id may be.
    pub fn resolve(&self, data: &Map<String, Value>) -> Result<UserId, SelectorUnresolved> {
        let unresolved =
            |segment: &str, found| SelectorUnresolved { selector: self.clone(), segment: segment.to_owned(), found };
        let mut segments = self.segments().peekable();
        let mut object = data;
        while let Some(segment) = segments.next() {
            let value = object.get(segment).ok_or_else(|| unresolved(segment, "nothing"))?;
            if segments.peek().is_some() {
                object = value.as_object().ok_or_else(|| unresolved(segment, type_name(value)))?;
                continue;
            }
            let id = match value {
                Value::String(text) if text.is_empty() => return Err(unresolved(segment, "empty string")),
                Value::String(text) => text.parse(),
                Value::Bool(truth) => truth.to_string().parse(),
                Value::Number(number) => canonical(number).parse(),
                Value::Null | Value::Array(_) | Value::Object(_) => return Err(unresolved(segment, type_name(value))),
            };
            return id.map_err(|_| unresolved(segment, "string of more than 256 bytes"));
        }
        unreachable!("a selector has at least one segment")
    }
}

/// One text per number, whether it came as an integer or as a float without a fraction.
fn canonical(number: &serde_json::Number) -> String {
    /// 2^53: below it every integer is exact in a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT => (float as i64).to_string(),
        _ => number.to_string(),
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;
    fn from_str(s: &str) -> Result<Self, InvalidSelector> {
        let refused = |reason| InvalidSelector { given: super::shortened(s), reason };
        let inner = match s.strip_prefix(HEAD) {
            Some(path) => path
                .strip_prefix('{')
                .and_then(|p| p.strip_suffix('}'))
                .ok_or_else(|| refused("after `$Session` come the names, each in braces"))?
                .to_owned(),
            None if s.starts_with('$') => return Err(refused("it starts with `$`, but not with `$Session{`")),
            None if s.contains(['{', '}']) => return Err(refused("a name cannot contain braces")),
            None => s.replace('.', "}{"),
        };
        for segment in inner.split("}{") {
            if segment.is_empty() {
                return Err(refused("a name is empty"));
            }
            if segment.contains(['{', '}']) {
                return Err(refused("a name cannot contain braces"));
            }
            if segment.contains(char::is_control) {
                return Err(refused("a name cannot contain control characters"));
            }
        }
        let canonical = format!("{HEAD}{{{inner}}}");
        if canonical.len() > Self::MAX_LEN {
            return Err(refused("it is longer than 256 bytes"));
        }
        Ok(Self(canonical.into()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a selector like `$Session{{details}}{{username}}` or `details.username`: {reason}")]
pub struct InvalidSelector {
    given: String,
    reason: &'static str,
}

/// The data has no user id where the selector points. Says what kind of thing is there instead, never the thing itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{selector}` leads to no user id in the data: found {found} at `{segment}`")]
pub struct SelectorUnresolved {
    /// The selector.
    pub selector: Selector,
    /// The segment at which it failed.
    pub segment: String,
    /// What was found there: `nothing`, `null`, `object`, …
    pub found: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::tests::any_json;
    use proptest::prelude::*;
    use serde_json::json;

    fn selector(s: &str) -> Selector {
        s.parse().unwrap()
    }

    fn resolve(s: &str, data: Value) -> Result<String, String> {
        let resolved = selector(s).resolve(data.as_object().unwrap());
        resolved.map(|id| id.as_str().to_owned()).map_err(|e| format!("{}: {}", e.segment, e.found))
    }

    #[test]
    fn shorthands_become_canonical() {
        assert_eq!(selector("userId").as_str(), "$Session{userId}");
        assert_eq!(selector("details.id").as_str(), "$Session{details}{id}");
        assert_eq!(selector("$Session{a.b}{c d}").segments().collect::<Vec<_>>(), ["a.b", "c d"]);
    }

    #[test]
    fn what_is_no_selector_is_refused_with_the_reason() {
        for (given, reason) in [
            ("", "a name is empty"),
            ("a..b", "a name is empty"),
            ("$Session{}", "a name is empty"),
            ("$Session{a}{}", "a name is empty"),
            ("$Session", "each in braces"),
            ("$Session{a}[0]", "each in braces"),
            ("$Session{a}.b", "each in braces"),
            ("$session{a}", "starts with `$`"),
            ("$Session{a}}{b}", "cannot contain braces"),
            ("a}{b", "cannot contain braces"),
            ("a\nb", "control characters"),
        ] {
            let refusal = given.parse::<Selector>().unwrap_err().to_string();
            assert!(refusal.contains(reason), "{given:?}: {refusal}");
        }
        assert!("x".repeat(246).parse::<Selector>().is_ok());
        assert!("x".repeat(247).parse::<Selector>().unwrap_err().to_string().contains("longer than 256 bytes"));
    }

    #[test]
    fn primitives_resolve_to_one_text_each() {
        let details = |id: Value| json!({ "details": { "id": id } });
        for (id, text) in [
            (json!("feekayo"), "feekayo"),
            (json!(1_919_102_009_383_u64), "1919102009383"),
            (json!(42.0), "42"),
            (json!(-0.0), "0"),
            (json!(1.5), "1.5"),
            (json!(-7), "-7"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(true), "true"),
        ] {
            assert_eq!(resolve("details.id", details(id)).unwrap(), text);
        }
    }

    #[test]
    fn everything_else_says_where_and_what_but_not_the_value() {
        assert_eq!(resolve("id", json!({})).unwrap_err(), "id: nothing");
        assert_eq!(resolve("id", json!({ "id": null })).unwrap_err(), "id: null");
        assert_eq!(resolve("id", json!({ "id": "" })).unwrap_err(), "id: empty string");
        assert_eq!(resolve("id", json!({ "id": {} })).unwrap_err(), "id: object");
        assert_eq!(resolve("id.0", json!({ "id": ["a"] })).unwrap_err(), "id: array");
        assert_eq!(resolve("id.x", json!({ "id": "secret" })).unwrap_err(), "id: string");
        assert_eq!(resolve("a.b.c", json!({ "a": {} })).unwrap_err(), "b: nothing");
        let long = resolve("id", json!({ "id": "x".repeat(257) }));
        assert_eq!(long.unwrap_err(), "id: string of more than 256 bytes");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(s in r"(\$Session)?[{}$a-z. ]{0,20}|.{0,300}") {
            if let Ok(selector) = s.parse::<Selector>() {
                prop_assert!(selector.as_str().len() <= Selector::MAX_LEN);
                prop_assert_eq!(&selector.to_string().parse::<Selector>().unwrap(), &selector);
                prop_assert!(selector.segments().all(|segment| !segment.is_empty()));
            }
        }

        #[test]
        fn a_path_is_found_where_it_was_put(path in prop::collection::vec("[^{}\\p{Cc}]{1,9}", 1..5), id in ".{1,60}") {
            let text = format!("$Session{}", path.iter().map(|s| format!("{{{s}}}")).collect::<String>());
            let data = path.iter().rev().fold(json!(id), |inner, name| json!({ name: inner }));
            prop_assert_eq!(resolve(&text, data).unwrap(), id);
        }

        #[test]
        fn resolving_in_any_data_never_panics(data in any_json(), s in "[a-c](\\.[a-c]){0,2}") {
            if let Value::Object(data) = data {
                let _ = selector(&s).resolve(&data);
            }
        }
    }
}
