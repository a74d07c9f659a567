//! What the statements have in common: columns declared once, conditions with one meaning, the ends of the range of ids.

use serde::Serialize;

/// Declares a table's columns once: as a list to read by and as text for SQL, for all modules.
macro_rules! columns {
    ($table:ident, $text:ident, $name:literal, $id:literal, $first:literal $(, $column:literal)*) => {
        pub(crate) const $table: Table = Table { name: $name, columns: &[$first $(, $column)*], id: $id };
        macro_rules! $text {
            () => { concat!($first $(, ", ", $column)*) };
        }
        pub(crate) use $text;
    };
}

/// The condition under which a session is active at `?1`.
macro_rules! active {
    () => {
        "(ended_at IS NULL AND idle_expires_at > ?1 AND expires_at > ?1)"
    };
}

/// The condition of [`Ending::concerns`] at `?1`.
macro_rules! concerned {
    () => {
        "(expires_at > ?1 AND (ended_at IS NULL OR ended_reason = 'idle'))"
    };
}

/// Less than every id.
pub(crate) fn before_every_id() -> Vec<u8> {
    Vec::new()
}

/// More than every id.
pub(crate) fn past_every_id() -> Vec<u8> {
    vec![255; 17]
}

pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("these types are JSON objects")
}
