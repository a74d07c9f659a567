//! What a session's data should look like.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jsonschema::error::ValidationErrorKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use super::selector::Selector;

/// What a session's data should look like, in one of three dialects. Compiled once, cheap to clone, written back as given.
///
/// Fields that a sample or a type map does not name are always allowed.
///
/// ```
/// use rekindle::definition::{Dialect, Schema};
/// let schema = Schema::parse(&serde_json::json!({ "userId": "string", "details": { "age": "integer?" } })).unwrap();
/// assert_eq!(schema.dialect(), Dialect::TypeMap);
/// let data = serde_json::json!({ "details": { "age": "old" } });
/// let violations = schema.validate(data.as_object().unwrap());
/// assert_eq!(violations[0].to_string(), "/details/age: expected integer, found string");
/// assert_eq!(violations[1].to_string(), "/userId: expected string, found nothing");
/// ```
#[derive(Clone)]
pub struct Schema(Arc<Compiled>);

struct Compiled {
    source: Value,
    dialect: Dialect,
    check: Check,
}

enum Check {
    JsonSchema(Box<jsonschema::Validator>),
    Shape(Shape),
}

/// The three ways to write a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// JSON Schema 2020-12: anything with `$schema`, or with `"type": "object"` and an object of `properties`. As the standard
    /// has it, `format` only annotates. What a schema costs is bounded: references point into the schema itself (`#/$defs/…`), not
    /// in circles; patterns have no look-around, so that none takes more than linear time.
    JsonSchema,
    /// Every leaf is `string`, `number`, `integer`, `boolean`, `object`, `array` or `any`. A leaf is required unless it ends in `?`
    /// (which allows it to be absent, not to be null); a nested object is required if something in it is.
    TypeMap,
    /// An example of the data: what has its type, where it is present, is fine. A null in it stands for any type.
    Sample,
}

/// The most bytes that a schema has as JSON text.
const MAX_BYTES: usize = 64 * 1024;
/// The most levels of objects and arrays in a schema.
const MAX_DEPTH: usize = 32;
/// The most levels, and the most objects and arrays, of a JSON Schema in which every reference is replaced by what it refers to.
const MAX_EXPANDED: (usize, usize) = (64, 10_000);
/// The most violations that are reported of one set of data.
const MAX_VIOLATIONS: usize = 32;
/// The most memory for one compiled pattern of a JSON Schema.
const MAX_PATTERN_BYTES: usize = 1024 * 1024;

impl Schema {
    /// Recognises the dialect and compiles. Nothing is ever fetched: a JSON Schema may refer to its own parts alone.
    pub fn parse(source: &Value) -> Result<Self, InvalidSchema> {
        let Value::Object(root) = source else { return Err(InvalidSchema::NotAnObject { found: type_name(source) }) };
        if !no_deeper(source, MAX_DEPTH) {
            return Err(InvalidSchema::TooDeep);
        }
        let bytes = source.to_string().len();
        if bytes > MAX_BYTES {
            return Err(InvalidSchema::TooLong { bytes });
        }
        let (dialect, check) = if is_json_schema(root) {
            (Dialect::JsonSchema, Check::JsonSchema(Box::new(compile(source)?)))
        } else if let Some(shape) = type_map(root) {
            (Dialect::TypeMap, Check::Shape(shape))
        } else {
            (Dialect::Sample, Check::Shape(sample(root)))
        };
        Ok(Self(Arc::new(Compiled { source: source.clone(), dialect, check })))
    }

    /// The dialect that it was recognised as.
    pub fn dialect(&self) -> Dialect {
        self.0.dialect
    }

    /// The schema as it was given.
    pub fn source(&self) -> &Value {
        &self.0.source
    }

    /// Everything about `data` that does not fit, at most 32 violations; empty when it fits.
    pub fn validate(&self, data: &Map<String, Value>) -> Vec<Violation> {
        let mut violations = match &self.0.check {
            Check::Shape(shape) => {
                let mut violations = Vec::new();
                shape.check(data, &mut String::new(), &mut violations);
                violations
            }
            Check::JsonSchema(validator) => {
                let data = Value::Object(data.clone());
                let errors = validator.iter_errors(&data).take(MAX_VIOLATIONS);
                errors.flat_map(|error| self.violations_of(&error, &data)).collect()
            }
        };
        violations.truncate(MAX_VIOLATIONS);
        violations
    }

    /// Whether `selector` names a primitive of this schema. A JSON Schema is not searched: there, only the data can tell.
    pub(super) fn check_selector(&self, selector: &Selector) -> Result<(), SelectorMismatch> {
        let Check::Shape(shape) = &self.0.check else { return Ok(()) };
        let mismatch =
            |segment: &str, found| SelectorMismatch { selector: selector.clone(), segment: segment.to_owned(), found };
        let mut kind = None;
        let mut fields = Some(&shape.0);
        for segment in selector.segments() {
            let field = fields.and_then(|f| f.get(segment)).ok_or_else(|| mismatch(segment, "no such field"))?;
            fields = match &field.kind {
                Kind::Object(shape) => Some(&shape.0),
                _ => None,
            };
            kind = Some((segment, &field.kind));
        }
        match kind {
            Some((segment, kind @ (Kind::Object(_) | Kind::Array))) => Err(mismatch(segment, kind.name())),
            _ => Ok(()),
        }
    }

    /// The library's own messages quote the data, so only what the schema asks for is taken from its errors.
    fn violations_of(&self, error: &jsonschema::ValidationError<'_>, data: &Value) -> Vec<Violation> {
        let path = error.instance_path().as_str();
        let violation = |path: String, expected: String| {
            let found = data.pointer(&path).map_or("nothing", type_name);
            Violation { path, expected, found }
        };
        let member = |name: &str, expected: &str| {
            let mut path = path.to_owned();
            push(&mut path, name);
            violation(path, expected.to_owned())
        };
        let keyword = error.kind().keyword();
        let expected = match error.kind() {
            ValidationErrorKind::Required { property } => {
                return vec![member(property.as_str().unwrap_or_default(), "a value")];
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                return unexpected.iter().map(|name| member(name, "nothing")).collect();
            }
            ValidationErrorKind::FalseSchema => "nothing more".to_owned(),
            _ => match self.asked(error.schema_path().as_str(), keyword) {
                Some(Value::String(name)) if keyword == "type" => name.clone(),
                Some(asked) => format!("`{keyword}` {}", super::shortened(&asked.to_string())),
                None => format!("what `{keyword}` asks for"),
            },
        };
        vec![violation(path.to_owned(), expected)]
    }

    /// What the JSON Schema says under `keyword`, where that is short.
    fn asked(&self, location: &str, keyword: &str) -> Option<&Value> {
        let (_, last) = location.rsplit_once('/')?;
        if last != keyword {
            return None;
        }
        self.0.source.pointer(location).filter(|asked| no_deeper(asked, 1))
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

impl Eq for Schema {}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({:?})", self.0.dialect)
    }
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.source.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Why something is not a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchema {
    /// All three dialects are objects.
    #[error("expected an object (a sample, a map of type names, or a JSON Schema), found {found}")]
    NotAnObject {
        /// Its JSON type.
        found: &'static str,
    },
    /// Its text is too long.
    #[error("it has {bytes} bytes as JSON; at most {MAX_BYTES} are accepted")]
    TooLong {
        /// Its length as JSON text.
        bytes: usize,
    },
    /// It nests too deep.
    #[error("it nests more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// `$schema` names another draft.
    #[error("`$schema` is `{given}`: only {DRAFT} is understood")]
    OtherDraft {
        /// What it names, shortened.
        given: String,
    },
    /// It is a JSON Schema with a reference that is not supported.
    #[error("`{reference}` is not supported: a reference must point into the schema itself, like `#/$defs/name`")]
    Reference {
        /// The reference, shortened.
        reference: String,
    },
    /// It is a JSON Schema whose references multiply or run in circles.
    #[error(
        "with its references replaced by what they refer to, it has more than {} levels or {} objects and arrays; \
         references in circles are not supported", MAX_EXPANDED.0, MAX_EXPANDED.1
    )]
    Expands,
    /// It is no valid JSON Schema, or has a pattern that is not supported.
    #[error("it is not a usable JSON Schema: at `{path}`: {reason}")]
    JsonSchema {
        /// Where, as a JSON pointer into the schema.
        path: String,
        /// Why, shortened.
        reason: String,
    },
}

/// The selector does not fit the schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{selector}` must name a string, number or boolean that the schema has; at `{segment}` it has {found}")]
pub(super) struct SelectorMismatch {
    selector: Selector,
    segment: String,
    found: &'static str,
}

/// One way in which data does not fit its schema. It never carries a value of the data, only names and types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Where, as a JSON pointer (RFC 6901) into the data.
    pub path: String,
    /// What the schema asks for there.
    pub expected: String,
    /// The JSON type of what is there, or `nothing`.
    pub found: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        write!(f, "{path}: expected {}, found {}", self.expected, self.found)
    }
}

/// The JSON type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether `value` has at most `levels` levels of objects and arrays.
fn no_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|v| no_deeper(v, levels - 1)),
        Value::Object(members) => levels > 0 && members.values().all(|v| no_deeper(v, levels - 1)),
        _ => true,
    }
}

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

fn is_json_schema(root: &Map<String, Value>) -> bool {
    let is_object = root.get("type").is_some_and(|t| t == "object");
    root.contains_key("$schema") || (is_object && root.get("properties").is_some_and(Value::is_object))
}

fn compile(source: &Value) -> Result<jsonschema::Validator, InvalidSchema> {
    if let Some(given) = source.get("$schema")
        && given.as_str().map(|uri| uri.trim_end_matches('#')) != Some(DRAFT)
    {
        return Err(InvalidSchema::OtherDraft { given: super::shortened(&given.to_string()) });
    }
    let (levels, mut budget) = MAX_EXPANDED;
    expand(source, source, levels, &mut budget)?;
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .offline()
        .with_pattern_options(jsonschema::PatternOptions::regex().size_limit(MAX_PATTERN_BYTES))
        .build(source)
        .map_err(|error| InvalidSchema::JsonSchema {
            path: error.instance_path().to_string(),
            reason: super::shortened(&error.to_string()),
        })
}

/// Follows all references. The validator's time, memory and stack grow with the expanded schema, which can be exponentially
/// larger than its text, or endless.
fn expand(root: &Value, part: &Value, levels: usize, budget: &mut usize) -> Result<(), InvalidSchema> {
    let members: Vec<&Value> = match part {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => return Ok(()),
    };
    if levels == 0 || *budget == 0 {
        return Err(InvalidSchema::Expands);
    }
    *budget -= 1;
    // A nested `$id` would give the references below it another root.
    let foreign = |keyword: &&str| *keyword != "$id" || !std::ptr::eq(root, part);
    for keyword in ["$dynamicRef", "$id"].iter().filter(|k| foreign(k)) {
        if let Some(Value::String(reference)) = part.get(keyword) {
            return Err(InvalidSchema::Reference { reference: super::shortened(reference) });
        }
    }
    if let Some(Value::String(reference)) = part.get("$ref") {
        let pointer = reference.strip_prefix('#').filter(|p| !p.contains('%'));
        let target = pointer.and_then(|p| root.pointer(p));
        let unsupported = || InvalidSchema::Reference { reference: super::shortened(reference) };
        expand(root, target.ok_or_else(unsupported)?, levels - 1, budget)?;
    }
    members.into_iter().try_for_each(|member| expand(root, member, levels - 1, budget))
}

/// The fields that a sample or a type map names.
#[derive(Default)]
struct Shape(BTreeMap<String, Field>);

struct Field {
    kind: Kind,
    required: bool,
}

enum Kind {
    Any,
    String,
    Number,
    Integer,
    Boolean,
    Array,
    Object(Shape),
}

/// Reads a type map; `None` when a leaf is not a type name. An object without members is such a leaf.
fn type_map(members: &Map<String, Value>) -> Option<Shape> {
    if members.is_empty() {
        return None;
    }
    let field = |value: &Value| match value {
        Value::String(name) => {
            let (name, required) = name.strip_suffix('?').map_or((name.as_str(), true), |name| (name, false));
            Some(Field { kind: Kind::named(name)?, required })
        }
        Value::Object(members) => {
            let shape = type_map(members)?;
            let required = shape.0.values().any(|field| field.required);
            Some(Field { kind: Kind::Object(shape), required })
        }
        _ => None,
    };
    members.iter().map(|(name, value)| Some((name.clone(), field(value)?))).collect::<Option<_>>().map(Shape)
}

fn sample(members: &Map<String, Value>) -> Shape {
    let kind = |value: &Value| match value {
        Value::Null => Kind::Any,
        Value::Bool(_) => Kind::Boolean,
        Value::Number(_) => Kind::Number,
        Value::String(_) => Kind::String,
        Value::Array(_) => Kind::Array,
        Value::Object(members) => Kind::Object(sample(members)),
    };
    Shape(members.iter().map(|(name, v)| (name.clone(), Field { kind: kind(v), required: false })).collect())
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "any" => Self::Any,
            "string" => Self::String,
            "number" => Self::Number,
            "integer" => Self::Integer,
            "boolean" => Self::Boolean,
            "array" => Self::Array,
            "object" => Self::Object(Shape::default()),
            _ => return None,
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::String => "string",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Array => "array",
            Self::Object(_) => "object",
        }
    }

    fn admits(&self, value: &Value) -> bool {
        match (self, value) {
            // As in JSON Schema, a float without a fraction is an integer.
            (Self::Integer, Value::Number(n)) => !n.is_f64() || n.as_f64().is_some_and(|f| f.fract() == 0.0),
            (Self::Any, _) => true,
            _ => self.name() == type_name(value),
        }
    }
}

impl Shape {
    fn check(&self, data: &Map<String, Value>, path: &mut String, violations: &mut Vec<Violation>) {
        for (name, field) in &self.0 {
            if violations.len() >= MAX_VIOLATIONS {
                return;
            }
            let outer = path.len();
            push(path, name);
            let violation = |found| Violation { path: path.clone(), expected: field.kind.name().to_owned(), found };
            match (data.get(name), &field.kind) {
                (None, _) if field.required => violations.push(violation("nothing")),
                (None, _) => {}
                (Some(Value::Object(inner)), Kind::Object(shape)) => shape.check(inner, path, violations),
                (Some(value), kind) if !kind.admits(value) => violations.push(violation(type_name(value))),
                (Some(_), _) => {}
            }
            path.truncate(outer);
        }
    }
}

/// Appends a member's name to a JSON pointer (RFC 6901, section 3).
fn push(path: &mut String, name: &str) {
    path.push('/');
    path.push_str(&name.replace('~', "~0").replace('/', "~1"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::tests::any_json;
    use proptest::prelude::*;
    use serde_json::json;

    fn schema(source: Value) -> Schema {
        Schema::parse(&source).unwrap()
    }

    fn violations(source: Value, data: Value) -> Vec<String> {
        schema(source).validate(data.as_object().unwrap()).iter().map(Violation::to_string).collect()
    }

    fn refusal(source: Value) -> String {
        Schema::parse(&source).unwrap_err().to_string()
    }

    #[test]
    fn the_dialect_is_recognised() {
        for (source, dialect) in [
            (json!({ "$schema": DRAFT }), Dialect::JsonSchema),
            (json!({ "type": "object", "properties": {} }), Dialect::JsonSchema),
            (json!({ "type": "object", "properties": "string" }), Dialect::TypeMap),
            (json!({ "userId": "string", "details": { "age": "number?" } }), Dialect::TypeMap),
            (json!({ "userId": "string", "details": { "age": 30 } }), Dialect::Sample),
            (json!({ "userId": "string", "details": {} }), Dialect::Sample),
            (json!({ "userId": "1919102009383" }), Dialect::Sample),
            (json!({}), Dialect::Sample),
        ] {
            assert_eq!(schema(source.clone()).dialect(), dialect, "{source}");
        }
    }

    #[test]
    fn a_sample_types_what_is_present_and_requires_nothing() {
        let sample = json!({ "userId": "1919", "age": 3, "tags": ["a"], "details": { "email": "a@b.c", "n": null } });
        assert!(violations(sample.clone(), json!({})).is_empty());
        assert!(violations(sample.clone(), json!({ "age": 1.5, "more": {}, "details": { "n": [] } })).is_empty());
        assert_eq!(
            violations(sample, json!({ "userId": 5, "tags": {}, "details": { "email": null } })),
            [
                "/details/email: expected string, found null",
                "/tags: expected array, found object",
                "/userId: expected string, found number"
            ]
        );
    }

    #[test]
    fn a_type_map_requires_what_is_not_optional() {
        let map = json!({ "id": "integer", "free": "object?", "opt": { "x": "any?" }, "a/b~c": { "y": "boolean" } });
        assert!(violations(map.clone(), json!({ "id": 3.0, "a/b~c": { "y": true, "z": 1 } })).is_empty());
        assert_eq!(
            violations(map.clone(), json!({ "id": 3.5, "opt": 1, "a/b~c": {}, "free": null })),
            [
                "/a~1b~0c/y: expected boolean, found nothing",
                "/free: expected object, found null",
                "/id: expected integer, found number",
                "/opt: expected object, found number"
            ]
        );
        assert_eq!(violations(map, json!({ "id": 3 })), ["/a~1b~0c: expected object, found nothing"]);
    }

    #[test]
    fn a_json_schema_is_checked_without_quoting_the_data() {
        let source = json!({
            "type": "object",
            "properties": {
                "name": { "type": "string", "maxLength": 3 },
                "role": { "enum": ["user", "admin"] },
                "age": { "type": ["integer", "null"] },
                "pin": { "not": { "const": "hunter2" } },
                "code": { "$ref": "#/$defs/code" },
                "keys": { "propertyNames": { "maxLength": 2 } },
                "more": { "properties": { "x": true }, "additionalProperties": false },
                "none": { "additionalProperties": false },
            },
            "required": ["id"],
            "$defs": { "code": { "pattern": "^[0-9]+$" } },
        });
        let data = json!({
            "name": "hunter2", "role": "hunter2", "age": "hunter2", "pin": "hunter2", "code": "hunter2",
            "keys": { "hunter2": 1 }, "more": { "extra": "hunter2" }, "none": { "extra": 1 },
        });
        let mut found = violations(source, data);
        found.sort();
        assert_eq!(
            found,
            [
                "/age: expected `type` [\"integer\",\"null\"], found string",
                "/code: expected `pattern` \"^[0-9]+$\", found string",
                "/id: expected a value, found nothing",
                "/keys: expected what `propertyNames` asks for, found object",
                "/more/extra: expected nothing, found string",
                "/name: expected `maxLength` 3, found string",
                "/none: expected nothing more, found object",
                "/pin: expected `not` {\"const\":\"hunter2\"}, found string",
                "/role: expected `enum` [\"user\",\"admin\"], found string",
            ]
        );
        assert_eq!(
            violations(json!({ "$schema": DRAFT, "properties": { "a": { "type": "string" } } }), json!({ "a": 1 })),
            ["/a: expected string, found number"]
        );
    }

    #[test]
    fn nothing_is_fetched() {
        for reference in
            ["https://example.com/a.json", "file:///etc/hosts", "other.json", "urn:x:y", "#anchor", "#/%61"]
        {
            let source = json!({ "$schema": DRAFT, "properties": { "a": { "$ref": reference } }, "a": true });
            assert!(refusal(source).starts_with(&format!("`{reference}` is not supported")));
        }
        let nested = json!({ "$schema": DRAFT, "$id": "urn:a", "properties": { "a": { "$id": "urn:b" } } });
        assert!(refusal(nested).starts_with("`urn:b` is not supported"));
        assert!(Schema::parse(&json!({ "$schema": DRAFT, "$id": "urn:a", "properties": { "$id": {} } })).is_ok());
    }

    #[test]
    fn references_that_multiply_or_run_in_circles_are_refused() {
        for circle in [json!({ "$ref": "#" }), json!({ "properties": { "a": { "$ref": "#/properties" } } })] {
            let mut source = json!({ "$schema": DRAFT });
            crate::merge_patch(&mut source, &circle);
            assert_eq!(Schema::parse(&source), Err(InvalidSchema::Expands));
        }
        let doubling = |levels: u32| {
            let twice =
                |n: u32| json!({ "anyOf": [{ "$ref": format!("#/$defs/{n}") }, { "$ref": format!("#/$defs/{n}") }] });
            let mut defs: Map<String, Value> = (0..levels).map(|n| (n.to_string(), twice(n + 1))).collect();
            defs.insert(levels.to_string(), json!({ "required": ["a"] }));
            Schema::parse(&json!({ "$schema": DRAFT, "$ref": "#/$defs/0", "$defs": defs }))
        };
        assert_eq!(doubling(15), Err(InvalidSchema::Expands));
        assert_eq!(doubling(5).unwrap().validate(&Map::new()).len(), 1);
    }

    #[test]
    fn what_is_no_schema_is_refused_with_the_reason() {
        assert!(refusal(json!([1])).contains("expected an object"));
        assert!(refusal(json!("string")).contains("found string"));
        assert!(refusal(json!({ "a": "x".repeat(MAX_BYTES) })).contains("at most 65536 are accepted"));
        let deep = |levels| (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(Schema::parse(&deep(32)).is_ok());
        assert!(refusal(deep(33)).contains("more than 32 levels"));
        assert!(refusal(json!({ "$schema": "http://json-schema.org/draft-07/schema#" })).contains("only https://"));
        let wrong = refusal(json!({ "type": "object", "properties": { "a": { "type": "text" } } }));
        assert!(wrong.contains("at `/properties/a/type`"), "{wrong}");
        let look_around = refusal(json!({ "type": "object", "properties": { "a": { "pattern": "(?=a)b" } } }));
        assert!(look_around.contains("not a usable JSON Schema"), "{look_around}");
    }

    #[test]
    fn a_selector_must_name_a_primitive_of_a_sample_or_type_map() {
        let check = |source: &Value, selector: &str| {
            let mismatch = schema(source.clone()).check_selector(&selector.parse().unwrap());
            mismatch.map_err(|e| format!("{}: {}", e.segment, e.found))
        };
        let map = json!({ "userId": "string", "n": "integer?", "x": "any", "o": "object", "d": { "l": "array", "s": "boolean" } });
        let sample = json!({ "userId": "1919", "n": 5, "x": null, "o": {}, "d": { "l": [], "s": true } });
        for source in [&map, &sample] {
            for selector in ["userId", "n", "x", "d.s"] {
                assert_eq!(check(source, selector), Ok(()));
            }
            for (selector, mismatch) in [
                ("o", "o: object"),
                ("d", "d: object"),
                ("d.l", "l: array"),
                ("id", "id: no such field"),
                ("d.id", "id: no such field"),
                ("userId.x", "x: no such field"),
            ] {
                assert_eq!(check(source, selector), Err(mismatch.to_owned()));
            }
        }
        assert_eq!(check(&json!({ "$schema": DRAFT }), "id"), Ok(()));
    }

    /// JSON that often is, or nearly is, a JSON Schema.
    fn schema_like() -> impl Strategy<Value = Value> {
        let keyword = prop::sample::select(vec![
            "$schema",
            "$ref",
            "$dynamicRef",
            "$id",
            "$anchor",
            "$defs",
            "type",
            "properties",
            "items",
            "prefixItems",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "if",
            "then",
            "enum",
            "const",
            "pattern",
            "patternProperties",
            "required",
            "minimum",
            "maxLength",
            "additionalProperties",
            "unevaluatedProperties",
            "propertyNames",
            "dependentSchemas",
            "a",
            "b",
        ]);
        let leaf = prop_oneof![
            prop::sample::select(vec![
                "object",
                "string",
                "#",
                "#/$defs/a",
                "#/properties/a",
                DRAFT,
                "a",
                "[",
                "(?=x)"
            ])
            .prop_map(|s| json!(s)),
            any::<bool>().prop_map(|b| json!(b)),
            any::<i8>().prop_map(|n| json!(n)),
        ];
        let nested = leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(|v| json!(v)),
                prop::collection::hash_map(keyword.clone(), inner, 0..4).prop_map(|m| json!(m)),
            ]
        });
        prop::collection::hash_map(prop::sample::select(vec!["a", "b"]), nested.clone(), 0..3).prop_flat_map(
            move |properties| {
                let properties = json!(properties);
                nested.clone().prop_map(move |rest| {
                    let mut schema = json!({ "type": "object", "properties": properties });
                    schema["allOf"] = json!([rest]);
                    schema
                })
            },
        )
    }

    proptest! {
        #[test]
        fn any_json_is_a_schema_or_refused(source in any_json(), data in any_json()) {
            if let (Ok(schema), Value::Object(data)) = (Schema::parse(&source), data) {
                prop_assert!(schema.validate(&data).len() <= MAX_VIOLATIONS);
                prop_assert_eq!(serde_json::to_value(&schema).unwrap(), source);
            }
        }

        #[test]
        fn any_near_json_schema_is_used_or_refused(source in schema_like(), data in any_json()) {
            if let (Ok(schema), Value::Object(data)) = (Schema::parse(&source), data) {
                prop_assert!(schema.validate(&data).len() <= MAX_VIOLATIONS);
            }
        }

        #[test]
        fn a_sample_fits_itself(source in any_json()) {
            if let Ok(schema) = Schema::parse(&source) && schema.dialect() == Dialect::Sample {
                prop_assert_eq!(schema.validate(source.as_object().unwrap()), []);
            }
        }
    }
}
