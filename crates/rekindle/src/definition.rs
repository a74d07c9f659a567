//! Session definitions: what a kind of session carries, how long it lives, and what is done about theft.
//!
//! A [`Definition`] is valid by construction: it is read from JSON, with all problems reported at once, and never changed;
//! [`Definition::patched`] makes another. Three clocks and no more: the access token's, the idle and the absolute one.

mod lifetime;
mod schema;
mod selector;

use std::{fmt, num::NonZeroU32, ops::Deref, sync::Arc};

use serde::de::{DeserializeOwned, Error as _, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub use lifetime::{InvalidSpan, Lifetime};
pub use schema::{Dialect, InvalidSchema, Schema, Violation};
pub use selector::{InvalidSelector, Selector, SelectorUnresolved};

use crate::clock::Seconds;
use crate::keys::Algorithm;
use crate::rotation::{OnMissingProof, Policy};
use crate::session::Tag;

/// A validated session definition: shared, immutable, cheap to clone. Its [`Settings`] are read through it.
///
/// ```
/// use rekindle::definition::Definition;
/// let definition = Definition::from_json(&serde_json::json!({
///     "tag": "web",
///     "schema": { "userId": "string" },
///     "selector": "userId",
///     "refresh": { "idle_timeout": { "value": 7, "unit": "days" } },
/// }))
/// .unwrap();
/// assert_eq!(definition.refresh.idle_timeout.seconds().0, 604_800);
///
/// let problems = Definition::from_json(&serde_json::json!({ "tag": "Web", "colour": "red" })).unwrap_err();
/// assert_eq!(problems.0.len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition(Arc<Settings>);

/// What a [`Definition`] says. Serialises as the complete canonical form, which reads back as an equal definition.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Settings {
    /// Its name within its product, for good.
    pub tag: Tag,
    /// A name for people, 1 to 128 bytes. Default: the tag.
    pub name: String,
    /// What it is for, at most 4096 bytes. Default: empty.
    pub description: String,
    /// What the data of its sessions should look like. Default: none, anything is accepted.
    pub schema: Option<Schema>,
    /// What happens to data that does not fit the schema. Default: `strict`.
    pub schema_mode: SchemaMode,
    /// Where the user id is in the data. Default: none, the caller says whose session it is.
    pub selector: Option<Selector>,
    /// Access tokens.
    pub access_token: AccessTokenSettings,
    /// Refresh tokens, and the session's own two clocks.
    pub refresh: RefreshSettings,
    /// How many active sessions one user may have under this tag. Default: any number.
    pub max_sessions_per_user: Option<NonZeroU32>,
    /// What a start beyond that number does. Default: `end_oldest`.
    pub on_max_sessions: OnMaxSessions,
    /// What a face or an application keeps beside the rest, at most 32 KiB of JSON; the engine never looks inside. Default: empty.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// A definition's part about access tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AccessTokenSettings {
    /// How long one is valid; at most [`Definition::MAX_ACCESS_LIFETIME`] and the absolute lifetime. Default: 15 minutes, or the
    /// absolute lifetime where that is shorter.
    pub lifetime: Lifetime,
    /// What it is signed with. Default: `EdDSA`.
    pub algorithm: Algorithm,
}

/// A definition's part about refreshing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RefreshSettings {
    /// A session ends when it is not refreshed for so long; at most the absolute lifetime. Default: 14 days, or the absolute lifetime
    /// where that is shorter.
    pub idle_timeout: Lifetime,
    /// A session ends so long after its start in any case. Default: 90 days.
    pub absolute_lifetime: Lifetime,
    /// What to do about a committed token that comes without its opening. Default: `refuse`.
    pub on_missing_proof: OnMissingProof,
    /// For how long after a rotation a bearer client's parent token still gets its child again, 0 to 300 seconds. Default: 10.
    pub reuse_leeway: Seconds,
    /// What a recognised theft ends. Default: `revoke_session`.
    pub on_theft: OnTheft,
    /// Whether a refresh token buys a short access token without rotating. Default: `allow`.
    pub mint: Mint,
}

/// What happens to data that does not fit the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchemaMode {
    /// It is refused.
    #[default]
    Strict,
    /// It is accepted and reported.
    Warn,
    /// It is not checked.
    Off,
}

/// What a recognised theft ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTheft {
    /// The session.
    #[default]
    RevokeSession,
    /// Every session of the user.
    RevokeUser,
    /// Nothing: it is recorded and reported, and this request gets no token.
    ReportOnly,
}

/// Whether a refresh token buys a short access token without rotating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mint {
    /// It does.
    #[default]
    Allow,
    /// It does not.
    Off,
}

/// What a start beyond the greatest number of a user's sessions does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMaxSessions {
    /// It is refused.
    Reject,
    /// It ends the oldest.
    #[default]
    EndOldest,
}

impl Definition {
    /// The longest lifetime of an access token: 7 days. Nothing calls one back from a verifier that works offline.
    pub const MAX_ACCESS_LIFETIME: Lifetime = days(7);

    const MAX_NAME: usize = 128;
    const MAX_DESCRIPTION: usize = 4096;
    const MAX_REUSE_LEEWAY: u64 = 300;
    const MAX_METADATA: usize = 32 << 10;

    /// The definition that has nothing but a tag.
    pub fn default_for(tag: Tag) -> Self {
        Self::from_json(&serde_json::json!({ "tag": tag })).expect("every setting but the tag has a valid default")
    }

    /// Reads a definition. Only `tag` must be there; null stands for the default. Unknown fields are problems, and all problems
    /// are reported at once.
    pub fn from_json(value: &Value) -> Result<Self, DefinitionProblems> {
        let mut problems = Vec::new();
        let settings = Settings::read(value, &mut problems);
        match settings {
            Some(settings) if problems.is_empty() => Ok(Self(Arc::new(settings))),
            _ => Err(DefinitionProblems(problems)),
        }
    }

    /// The complete canonical form; [`Definition::from_json`] reads it back as an equal definition.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("settings are made of JSON")
    }

    /// This definition with a JSON merge patch (RFC 7396) applied to its canonical form. The tag cannot change.
    ///
    /// A null sets a field back to its default. As everywhere in a merge patch, a `schema` is merged with the one before; to replace it
    /// whole, set it to null first.
    pub fn patched(&self, merge_patch: &Value) -> Result<Self, DefinitionProblems> {
        let mut value = self.to_json();
        crate::merge_patch(&mut value, merge_patch);
        let changes_tag = value.get("tag").is_some_and(|tag| tag.as_str() != Some(self.tag.as_str()));
        let patched = Self::from_json(&value);
        if !changes_tag {
            return patched;
        }
        let mut problems = patched.err().unwrap_or(DefinitionProblems(Vec::new()));
        let problem = format!("it is `{}` for good: make another definition instead", self.tag);
        problems.0.retain(|p| p.field != "tag");
        problems.0.insert(0, Problem { field: "tag".to_owned(), problem });
        Err(problems)
    }

    /// The policies that the refresh decision depends on.
    pub fn policy(&self) -> Policy {
        Policy { on_missing_proof: self.refresh.on_missing_proof, reuse_leeway: self.refresh.reuse_leeway }
    }

    /// Whether sessions of this definition may carry `data`.
    ///
    /// `Ok` holds the violations to be reported although the data is accepted: always none but in the mode `warn`.
    pub fn check_data(&self, data: &Map<String, Value>) -> Result<Vec<Violation>, DataInvalid> {
        let violations = match (&self.schema, self.schema_mode) {
            (None, _) | (_, SchemaMode::Off) => return Ok(Vec::new()),
            (Some(schema), SchemaMode::Strict | SchemaMode::Warn) => schema.validate(data),
        };
        if violations.is_empty() || self.schema_mode == SchemaMode::Warn {
            Ok(violations)
        } else {
            Err(DataInvalid(violations))
        }
    }
}

impl Deref for Definition {
    type Target = Settings;
    fn deref(&self) -> &Settings {
        &self.0
    }
}

impl Serialize for Definition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Definition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The data does not fit the definition's schema; at least one violation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the data does not fit the definition's schema: {}", list(.0))]
pub struct DataInvalid(pub Vec<Violation>);

/// Everything that is wrong with a definition; at least one problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the definition is not valid: {}", list(.0))]
pub struct DefinitionProblems(pub Vec<Problem>);

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which field: `refresh.idle_timeout`. Empty: the definition itself.
    pub field: String,
    /// What is wrong with it, and what is accepted.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.problem),
            field => write!(f, "{field}: {}", self.problem),
        }
    }
}

fn list(items: &[impl fmt::Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

const fn days(n: u64) -> Lifetime {
    Lifetime::from_seconds(Seconds(n * 24 * 60 * 60)).expect("a span within the accepted range")
}

const fn minutes(n: u64) -> Lifetime {
    Lifetime::from_seconds(Seconds(n * 60)).expect("a span within the accepted range")
}

impl Settings {
    fn read(value: &Value, problems: &mut Vec<Problem>) -> Option<Self> {
        let mut top = Reader::new("", Some(value), problems);
        let tag = top.required("tag", parsed::<Tag>);
        let name = tag.as_ref().map(|tag| tag.to_string()).unwrap_or_default();
        let name = top.field("name", name, |v| text(v, 1..=Definition::MAX_NAME));
        let description = top.field("description", String::new(), |v| text(v, 0..=Definition::MAX_DESCRIPTION));
        let schema = top.field("schema", None, |v| Schema::parse(v).map(Some).map_err(|e| e.to_string()));
        let schema_mode = top.field("schema_mode", SchemaMode::default(), choice);
        let selector = top.field("selector", None, |v| {
            let selector: Selector = parsed(v)?;
            if let Some(Some(schema)) = &schema {
                schema.check_selector(&selector).map_err(|e| e.to_string())?;
            }
            Ok(Some(selector))
        });
        let max_sessions_per_user = top.field("max_sessions_per_user", None, |v| count(v).map(Some));
        let on_max_sessions = top.field("on_max_sessions", OnMaxSessions::default(), choice);
        let metadata = top.field("metadata", Map::new(), metadata);

        let mut refresh = top.section("refresh");
        let absolute_lifetime = refresh.field("absolute_lifetime", days(90), lifetime);
        // Where the absolute lifetime itself is a problem, nothing is measured against it.
        let limit = absolute_lifetime.unwrap_or(Lifetime::MAX);
        let within_absolute = |v: &Value| at_most(limit, "refresh.absolute_lifetime", lifetime(v)?);
        let idle_timeout = refresh.field("idle_timeout", days(14).min(limit), within_absolute);
        let on_missing_proof = refresh.field("on_missing_proof", OnMissingProof::default(), choice);
        let reuse_leeway = refresh.field("reuse_leeway", Seconds(10), |v| {
            lifetime::span(v, 0..=Definition::MAX_REUSE_LEEWAY).map_err(|e| e.to_string())
        });
        let on_theft = refresh.field("on_theft", OnTheft::default(), choice);
        let mint = refresh.field("mint", Mint::default(), choice);
        refresh.finish();

        let mut access = top.section("access_token");
        let access_lifetime = access.field("lifetime", minutes(15).min(limit), |v| {
            at_most(Definition::MAX_ACCESS_LIFETIME, "the accepted maximum", within_absolute(v)?)
        });
        let algorithm = access.field("algorithm", Algorithm::default(), choice);
        access.finish();
        top.finish();

        Some(Self {
            tag: tag?,
            name: name?,
            description: description?,
            schema: schema?,
            schema_mode: schema_mode?,
            selector: selector?,
            access_token: AccessTokenSettings { lifetime: access_lifetime?, algorithm: algorithm? },
            refresh: RefreshSettings {
                idle_timeout: idle_timeout?,
                absolute_lifetime: absolute_lifetime?,
                on_missing_proof: on_missing_proof?,
                reuse_leeway: reuse_leeway?,
                on_theft: on_theft?,
                mint: mint?,
            },
            max_sessions_per_user: max_sessions_per_user?,
            on_max_sessions: on_max_sessions?,
            metadata: metadata?,
        })
    }
}

/// Reads the members of one JSON object, collecting problems under their full names.
struct Reader<'a> {
    prefix: String,
    members: Option<&'a Map<String, Value>>,
    known: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(name: &str, value: Option<&'a Value>, problems: &'a mut Vec<Problem>) -> Self {
        if let Some(value) = value.filter(|v| !v.is_object()) {
            let problem = format!("expected an object, found {}", schema::type_name(value));
            problems.push(Problem { field: name.to_owned(), problem });
        }
        let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
        Self { prefix, members: value.and_then(Value::as_object), known: Vec::new(), problems }
    }

    /// A member that is itself an object.
    fn section(&mut self, name: &'static str) -> Reader<'_> {
        let value = self.member(name);
        Reader::new(name, value, self.problems)
    }

    /// A member with a default; `None` when there was a problem with it.
    fn field<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        match self.member(name) {
            None => Some(default),
            Some(value) => parse(value).map_err(|problem| self.problem(name, problem)).ok(),
        }
    }

    /// A member without a default; `None` when there was a problem with it.
    fn required<T>(&mut self, name: &'static str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let read = self.field(name, None, |v| parse(v).map(Some))?;
        if read.is_none() && self.members.is_some() {
            self.problem(name, "it is missing".to_owned());
        }
        read
    }

    /// Reports the members that nothing asked for.
    fn finish(mut self) {
        let known = std::mem::take(&mut self.known);
        for name in self.members.into_iter().flat_map(Map::keys).filter(|name| !known.contains(&name.as_str())) {
            self.problem(&shortened(name), format!("unknown field: the known ones are {}", known.join(", ")));
        }
    }

    fn member(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.members.and_then(|members| members.get(name)).filter(|value| !value.is_null())
    }

    fn problem(&mut self, name: &str, problem: String) {
        self.problems.push(Problem { field: format!("{}{name}", self.prefix), problem });
    }
}

fn string(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("expected a string, found {}", schema::type_name(value)))
}

fn text(value: &Value, bytes: std::ops::RangeInclusive<usize>) -> Result<String, String> {
    let text = string(value)?;
    if bytes.contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("it has {} bytes; {} to {} are accepted", text.len(), bytes.start(), bytes.end()))
    }
}

fn parsed<T: std::str::FromStr<Err: fmt::Display>>(value: &Value) -> Result<T, String> {
    string(value)?.parse().map_err(|e: T::Err| e.to_string())
}

/// One of an enum's names; the problem lists them.
fn choice<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    let name = shortened(string(value)?);
    T::deserialize(IntoDeserializer::<serde::de::value::Error>::into_deserializer(name)).map_err(|e| e.to_string())
}

fn count(value: &Value) -> Result<NonZeroU32, String> {
    let count = value.as_u64().and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new);
    count.ok_or_else(|| format!("`{}` is not a whole number from 1 to {}", shortened(&value.to_string()), u32::MAX))
}

fn metadata(value: &Value) -> Result<Map<String, Value>, String> {
    let map = value.as_object().ok_or_else(|| format!("expected an object, found {}", schema::type_name(value)))?;
    match value.to_string().len() {
        len if len > Definition::MAX_METADATA => {
            Err(format!("it has {len} bytes of JSON; at most {} are accepted", Definition::MAX_METADATA))
        }
        _ => Ok(map.clone()),
    }
}

fn lifetime(value: &Value) -> Result<Lifetime, String> {
    Lifetime::from_json(value).map_err(|e| e.to_string())
}

fn at_most(limit: Lifetime, what: &str, lifetime: Lifetime) -> Result<Lifetime, String> {
    if lifetime <= limit { Ok(lifetime) } else { Err(format!("{lifetime} is longer than {what} ({limit})")) }
}

/// As much of a text as an error message should repeat.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Any JSON value that a request can hold, small.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let name = prop_oneof![3 => "[a-c]", 1 => ".{0,6}"];
        const TYPE_NAMES: &[&str] = &["string", "number?", "integer", "boolean?", "array", "object", "any"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            prop::sample::select(TYPE_NAMES).prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 32, 5, move |inner| {
            prop_oneof![
                1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                3 => prop::collection::hash_map(name.clone(), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn definition(value: Value) -> Definition {
        Definition::from_json(&value).unwrap()
    }

    fn problems(value: Value) -> Vec<String> {
        Definition::from_json(&value).unwrap_err().0.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn the_defaults_in_the_canonical_form() {
        assert_eq!(
            Definition::default_for("default".parse().unwrap()).to_json(),
            json!({
                "tag": "default",
                "name": "default",
                "description": "",
                "schema": null,
                "schema_mode": "strict",
                "selector": null,
                "access_token": { "lifetime": 900, "algorithm": "EdDSA" },
                "refresh": {
                    "idle_timeout": 1_209_600,
                    "absolute_lifetime": 7_776_000,
                    "on_missing_proof": "refuse",
                    "reuse_leeway": 10,
                    "on_theft": "revoke_session",
                    "mint": "allow",
                },
                "max_sessions_per_user": null,
                "on_max_sessions": "end_oldest",
            })
        );
    }

    #[test]
    fn metadata_is_kept_as_it_is_and_shown_only_where_there_is_some() {
        let noted = definition(json!({ "tag": "web", "metadata": { "team": "shop", "tags": [null] } }));
        assert_eq!(definition(noted.to_json()), noted);
        assert_eq!(noted.to_json()["metadata"], json!({ "team": "shop", "tags": [null] }));
        assert_eq!(noted.patched(&json!({ "metadata": null })).unwrap(), definition(json!({ "tag": "web" })));
        assert_eq!(problems(json!({ "tag": "web", "metadata": [] })), ["metadata: expected an object, found array"]);
        let long = problems(json!({ "tag": "web", "metadata": { "x": "y".repeat(40_000) } }));
        assert_eq!(long, ["metadata: it has 40008 bytes of JSON; at most 32768 are accepted"]);
    }

    #[test]
    fn default_lifetimes_shrink_with_the_absolute_one() {
        let short =
            definition(json!({ "tag": "kiosk", "refresh": { "absolute_lifetime": { "value": 5, "unit": "min" } } }));
        assert_eq!(short.refresh.idle_timeout, minutes(5));
        assert_eq!(short.access_token.lifetime, minutes(5));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        assert_eq!(
            problems(json!({
                "tag": "Web",
                "name": "",
                "description": "x".repeat(4097),
                "schema": [],
                "schema_mode": "loose",
                "selector": "$Session{}",
                "access_token": { "lifetime": "15m", "algorithm": "HS256", "kid": 1 },
                "refresh": { "idle_timeout": 0, "absolute_lifetime": 1.5, "reuse_leeway": 301, "mint": true },
                "max_sessions_per_user": 0,
                "on_max_sessions": "end_newest",
                "colour": "red",
            })),
            [
                "tag: the tag `Web` is not 1 to 63 of a-z, 0-9, `_` and `-`, starting with a letter (and not `products`)",
                "name: it has 0 bytes; 1 to 128 are accepted",
                "description: it has 4097 bytes; 0 to 4096 are accepted",
                "schema: expected an object (a sample, a map of type names, or a JSON Schema), found array",
                "schema_mode: unknown variant `loose`, expected one of `strict`, `warn`, `off`",
                "selector: `$Session{}` is not a selector like `$Session{details}{username}` or `details.username`: a name is empty",
                "max_sessions_per_user: `0` is not a whole number from 1 to 4294967295",
                "on_max_sessions: unknown variant `end_newest`, expected `reject` or `end_oldest`",
                "refresh.absolute_lifetime: `1.5` is not a span of time: give whole seconds, or { \"value\": 7, \"unit\": \"days\" }",
                "refresh.idle_timeout: `0` is outside the accepted range of 1 to 315360000 seconds",
                "refresh.reuse_leeway: `301` is outside the accepted range of 0 to 300 seconds",
                "refresh.mint: expected a string, found boolean",
                "access_token.lifetime: `\"15m\"` is not a span of time: give whole seconds, or { \"value\": 7, \"unit\": \"days\" }",
                "access_token.algorithm: unknown variant `HS256`, expected one of `EdDSA`, `ES256`, `RS256`",
                "access_token.kid: unknown field: the known ones are lifetime, algorithm",
                "colour: unknown field: the known ones are tag, name, description, schema, schema_mode, selector, \
                 max_sessions_per_user, on_max_sessions, metadata, refresh, access_token",
            ]
        );
        assert_eq!(problems(json!({})), ["tag: it is missing"]);
        assert_eq!(problems(json!([])), ["expected an object, found array"]);
        assert_eq!(problems(json!({ "tag": "a", "refresh": 5 })), ["refresh: expected an object, found number"]);
    }

    #[test]
    fn the_clocks_must_fit_into_each_other() {
        let day = json!({ "value": 1, "unit": "day" });
        let week_and_more = 7 * 86_400 + 1;
        assert_eq!(
            problems(json!({
                "tag": "web",
                "access_token": { "lifetime": 86_401 },
                "refresh": { "absolute_lifetime": day, "idle_timeout": 86_401 },
            })),
            [
                "refresh.idle_timeout: 86401 s is longer than refresh.absolute_lifetime (86400 s)",
                "access_token.lifetime: 86401 s is longer than refresh.absolute_lifetime (86400 s)",
            ]
        );
        assert_eq!(
            problems(json!({ "tag": "web", "access_token": { "lifetime": week_and_more } })),
            ["access_token.lifetime: 604801 s is longer than the accepted maximum (604800 s)"]
        );
    }

    #[test]
    fn the_selector_must_fit_the_schema() {
        let with = |selector: &str| json!({ "tag": "web", "schema": { "details": { "id": 5 } }, "selector": selector });
        assert_eq!(definition(with("details.id")).to_json()["selector"], "$Session{details}{id}");
        assert_eq!(
            problems(with("details")),
            [
                "selector: `$Session{details}` must name a string, number or boolean that the schema has; at `details` it has object"
            ]
        );
    }

    #[test]
    fn a_patch_changes_what_it_names_and_never_the_tag() {
        let before = definition(json!({ "tag": "web", "name": "Web", "refresh": { "mint": "off" } }));
        let after = before
            .patched(
                &json!({ "name": null, "tag": "web", "access_token": { "lifetime": { "value": 5, "unit": "mins" } } }),
            )
            .unwrap();
        assert_eq!(
            (after.name.as_str(), after.access_token.lifetime, after.refresh.mint),
            ("web", minutes(5), Mint::Off)
        );

        let refused = before.patched(&json!({ "tag": "Other", "colour": "red" })).unwrap_err();
        let fields: Vec<_> = refused.0.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["tag", "colour"]);
        assert_eq!(refused.0[0].problem, "it is `web` for good: make another definition instead");
        assert!(before.patched(&json!({ "tag": null })).is_err());
        assert!(before.patched(&json!(null)).is_err());
    }

    #[test]
    fn the_mode_decides_about_data_that_does_not_fit() {
        let with = |mode: &str| definition(json!({ "tag": "web", "schema": { "id": "string" }, "schema_mode": mode }));
        let (good, bad) = (json!({ "id": "x" }), json!({ "id": 5 }));
        let (good, bad) = (good.as_object().unwrap(), bad.as_object().unwrap());
        for mode in ["strict", "warn", "off"] {
            assert_eq!(with(mode).check_data(good), Ok(vec![]));
        }
        assert_eq!(
            with("strict").check_data(bad).unwrap_err().to_string(),
            "the data does not fit the definition's schema: /id: expected string, found number"
        );
        assert_eq!(with("warn").check_data(bad).unwrap().len(), 1);
        assert_eq!(with("off").check_data(bad), Ok(vec![]));
    }

    fn one_of(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
        prop::sample::select(names).prop_map(Value::from)
    }

    /// Definitions as they may be written, most of them valid.
    fn any_definition() -> impl Strategy<Value = Value> {
        let refresh = (
            3600..Lifetime::MAX.seconds().0,
            1..3600_u64,
            one_of(&["refuse", "revoke", "downgrade"]),
            0..=300_u64,
            one_of(&["revoke_session", "revoke_user", "report_only"]),
            one_of(&["allow", "off"]),
        );
        let refresh = refresh.prop_map(|(absolute, idle, on_missing_proof, leeway, on_theft, mint)| {
            json!({
                "absolute_lifetime": absolute, "idle_timeout": { "value": idle, "unit": "s" }, "reuse_leeway": leeway,
                "on_missing_proof": on_missing_proof, "on_theft": on_theft, "mint": mint,
            })
        });
        let access = (1..=60_u64, one_of(&["EdDSA", "ES256", "RS256"])).prop_map(
            |(minutes, algorithm)| json!({ "lifetime": { "value": minutes, "unit": "min" }, "algorithm": algorithm }),
        );
        let rest = (".{1,30}", ".{0,60}", any_json(), one_of(&["strict", "warn", "off"]), any::<Option<u32>>());
        ("[a-z]{1,8}", rest, refresh, access, one_of(&["reject", "end_oldest"]), prop::collection::vec(any::<bool>(), 9))
            .prop_map(|(tag, (name, description, schema, schema_mode, max), refresh, access, on_max, present)| {
                let optional = json!({
                    "name": name, "description": description, "schema": schema, "schema_mode": schema_mode, "selector": "a.b",
                    "refresh": refresh, "access_token": access, "max_sessions_per_user": max, "on_max_sessions": on_max,
                });
                let Value::Object(mut members) = optional else { unreachable!() };
                let mut present = present.into_iter();
                members.retain(|name, _| present.next().unwrap() && (name != "selector" || !schema.is_object()));
                members.insert("tag".into(), json!(tag));
                Value::Object(members)
            })
    }

    proptest! {
        #[test]
        fn the_canonical_form_reads_back_as_an_equal_definition(value in any_definition()) {
            if let Ok(definition) = Definition::from_json(&value) {
                let canonical = definition.to_json();
                prop_assert_eq!(Definition::from_json(&canonical).unwrap(), definition.clone());
                prop_assert_eq!(definition.patched(&json!({})).unwrap(), definition.clone());
                let text = serde_json::to_string(&definition).unwrap();
                prop_assert_eq!(serde_json::from_str::<Definition>(&text).unwrap(), definition);
            }
        }

        #[test]
        fn any_json_is_a_definition_or_has_problems(value in any_json(), patch in any_json()) {
            if let Err(DefinitionProblems(problems)) = Definition::from_json(&value) {
                prop_assert!(!problems.is_empty());
            }
            if let Err(DefinitionProblems(problems)) = Definition::default_for("a".parse().unwrap()).patched(&patch) {
                prop_assert!(!problems.is_empty());
            }
        }
    }
}
