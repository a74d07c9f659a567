//! Statements as text: every value becomes a literal that no `sql_mode`, character set or content can turn into syntax.

use std::borrow::Cow;
use std::fmt::Write as _;

use rekindle::clock::Timestamp;
use rekindle::journal::EventId;
use rekindle::session::{Env, SessionId, Tag, UserId};

/// Statements that are sent together, in this order.
pub(crate) type Script = Vec<String>;

/// How much text one packet carries unless a single statement, or a single row of one, is longer.
pub(crate) const PACKET: usize = 1 << 20;

/// How many of the texts fit into `room` bytes, each with `around` more; at least one.
pub(crate) fn fitting(texts: &[String], around: usize, room: usize) -> usize {
    let mut bytes = 0;
    let fit = texts.iter().take_while(|text| {
        bytes += text.len() + around;
        bytes <= room
    });
    fit.count().max(1)
}

/// Makes a statement, or a part of one: each `?` of the text becomes the literal of the next value.
macro_rules! sql {
    ($text:expr $(, $value:expr)* $(,)?) => {
        $crate::sql::bind($text.as_ref(), &[$($crate::sql::Literal::from($value)),*])
    };
}
pub(crate) use sql;

/// A value in a statement.
#[derive(Debug, Clone)]
pub(crate) enum Literal<'a> {
    Null,
    Int(i64),
    Unsigned(u64),
    Bytes(Cow<'a, [u8]>),
    Text(Cow<'a, str>),
}

impl Literal<'_> {
    fn write(&self, sql: &mut String) {
        let written = match self {
            Self::Null => sql.write_str("NULL"),
            Self::Int(i) => write!(sql, "{i}"),
            Self::Unsigned(i) => write!(sql, "{i}"),
            Self::Bytes(bytes) => return hex(bytes, sql),
            Self::Text(text) => {
                sql.push_str("_utf8mb4 ");
                return hex(text.as_bytes(), sql);
            }
        };
        written.expect("a string takes all that is written");
    }
}

/// `text` with each `?` replaced.
pub(crate) fn bind(text: &str, values: &[Literal<'_>]) -> String {
    let mut sql = String::with_capacity(text.len() + 40 * values.len());
    let mut values = values.iter();
    let mut parts = text.split('?');
    sql.push_str(parts.next().expect("a split text has a first part"));
    for part in parts {
        values.next().expect("there is a value for each `?`").write(&mut sql);
        sql.push_str(part);
    }
    assert!(values.next().is_none(), "there is a `?` for each value");
    sql
}

/// The literals of a list, as `IN (…)` takes them.
pub(crate) fn list<'a>(values: impl IntoIterator<Item: Into<Literal<'a>>>) -> String {
    let mut sql = String::new();
    for value in values {
        if !sql.is_empty() {
            sql.push(',');
        }
        value.into().write(&mut sql);
    }
    sql
}

fn hex(bytes: &[u8], sql: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    sql.reserve(2 * bytes.len() + 3);
    sql.push_str("X'");
    for byte in bytes {
        sql.push(DIGITS[usize::from(byte >> 4)].into());
        sql.push(DIGITS[usize::from(byte & 15)].into());
    }
    sql.push('\'');
}

impl<'a, T: Into<Literal<'a>>> From<Option<T>> for Literal<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<bool> for Literal<'_> {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl From<i64> for Literal<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u64> for Literal<'_> {
    fn from(value: u64) -> Self {
        Self::Unsigned(value)
    }
}

impl From<u32> for Literal<'_> {
    fn from(value: u32) -> Self {
        Self::Unsigned(value.into())
    }
}

impl From<u8> for Literal<'_> {
    fn from(value: u8) -> Self {
        Self::Unsigned(value.into())
    }
}

impl From<Timestamp> for Literal<'_> {
    fn from(value: Timestamp) -> Self {
        Self::Int(value.millis())
    }
}

impl From<SessionId> for Literal<'_> {
    fn from(value: SessionId) -> Self {
        Self::Bytes(value.to_bytes().to_vec().into())
    }
}

impl From<EventId> for Literal<'_> {
    fn from(value: EventId) -> Self {
        Self::Bytes(value.to_bytes().to_vec().into())
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Literal<'a> {
    fn from(value: &'a [u8; N]) -> Self {
        Self::Bytes(value.as_slice().into())
    }
}

impl<'a> From<&'a [u8]> for Literal<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value.into())
    }
}

impl<'a> From<&'a UserId> for Literal<'a> {
    fn from(value: &'a UserId) -> Self {
        Self::Bytes(value.as_str().as_bytes().into())
    }
}

impl<'a> From<&'a str> for Literal<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value.into())
    }
}

impl<'a> From<&'a String> for Literal<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Literal<'_> {
    fn from(value: String) -> Self {
        Self::Text(value.into())
    }
}

impl<'a> From<&'a Tag> for Literal<'a> {
    fn from(value: &'a Tag) -> Self {
        Self::Text(value.as_str().into())
    }
}

impl<'a> From<&'a Env> for Literal<'a> {
    fn from(value: &'a Env) -> Self {
        Self::Text(value.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_literals() {
        let nothing: Option<u32> = None;
        assert_eq!(
            sql!("a = ? AND b = ? AND c IN (?, ?)", -1i64, "a'\\\u{0}é?", nothing, &[0u8, 255]),
            "a = -1 AND b = _utf8mb4 X'61275C00C3A93F' AND c IN (NULL, X'00FF')"
        );
        assert_eq!(list([1u32, 2]), "1,2");
        assert_eq!(sql!("?", ""), "_utf8mb4 X''");
    }

    #[test]
    fn as_many_fit_as_have_room() {
        let texts = ["ab", "c", "def"].map(String::from);
        assert_eq!([0, 3, 4, 5, 8, 9].map(|room| fitting(&texts, 1, room)), [1, 1, 1, 2, 2, 3]);
    }
}
