//! What a request says: a JSON body, or a query string.
//!
//! As lenient as the SDKs of ten years need it: unknown fields are ignored, and null stands for absent.

use serde_json::{Map, Value};

use super::reply::Reply;

/// The fields of a request.
#[derive(Default)]
pub(super) struct Input {
    fields: Map<String, Value>,
    is_query: bool,
}

impl Input {
    /// From a body. None at all counts as one without fields.
    pub(super) fn from_body(body: &[u8]) -> Result<Self, Reply> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self { fields, is_query: false }),
            _ => Err(Reply::bad("Invalid Json Input")),
        }
    }

    /// From a query string; of a name that comes twice the first counts.
    pub(super) fn from_query(query: &str) -> Self {
        let mut fields = Map::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            fields.entry(name.into_owned()).or_insert_with(|| value.into_owned().into());
        }
        Self { fields, is_query: true }
    }

    /// A text that must be there.
    pub(super) fn text(&self, name: &str) -> Result<&str, Reply> {
        self.optional_text(name)?.ok_or_else(|| self.invalid(name))
    }

    /// A text, or nothing.
    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&str>, Reply> {
        self.value(name).map(|value| value.as_str().ok_or_else(|| self.invalid(name))).transpose()
    }

    /// Texts, or nothing.
    pub(super) fn optional_texts(&self, name: &str) -> Result<Option<Vec<&str>>, Reply> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let texts = value.as_array().and_then(|items| items.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.invalid(name))
    }

    /// An object that must be there.
    pub(super) fn object(&self, name: &str) -> Result<&Map<String, Value>, Reply> {
        self.optional_object(name)?.ok_or_else(|| self.invalid(name))
    }

    /// An object, or nothing.
    pub(super) fn optional_object(&self, name: &str) -> Result<Option<&Map<String, Value>>, Reply> {
        self.value(name).map(|value| value.as_object().ok_or_else(|| self.invalid(name))).transpose()
    }

    /// A truth value that must be there.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Reply> {
        self.optional_flag(name)?.ok_or_else(|| self.invalid(name))
    }

    /// A truth value, or nothing.
    pub(super) fn optional_flag(&self, name: &str) -> Result<Option<bool>, Reply> {
        let read = |value: &Value| match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if self.is_query => text.parse().ok(),
            _ => None,
        };
        self.value(name).map(|value| read(value).ok_or_else(|| self.invalid(name))).transpose()
    }

    /// A whole number, or nothing.
    pub(super) fn optional_whole(&self, name: &str) -> Result<Option<i64>, Reply> {
        // Some clients send 3600 as 3600.0.
        let read =
            |value: &Value| value.as_i64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as i64));
        self.value(name).map(|value| read(value).ok_or_else(|| self.invalid(name))).transpose()
    }

    /// Any value, or nothing.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// Whether a field was sent, be it null.
    pub(super) fn names(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// That a field is not what it should be, or is not there.
    pub(super) fn invalid(&self, name: &str) -> Reply {
        Reply::bad(match self.is_query {
            true if self.value(name).is_none() => format!("Field name '{name}' is missing in GET request"),
            true => format!("Field name '{name}' is invalid in GET request"),
            false => format!("Field name '{name}' is invalid in JSON input"),
        })
    }
}
