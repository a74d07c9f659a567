//! Rows, read without ever defaulting.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::str::FromStr;

use mysql_async::{Row, Value};
use rekindle::clock::Timestamp;
use rekindle::session::Scope;
use rekindle::store::StoreError;
use serde::de::DeserializeOwned;

/// A table with the columns that a statement reads, in this order.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [&'static str],
    /// Which of the columns identifies a row in an error message.
    pub(crate) id: usize,
}

impl Table {
    /// The columns as SQL lists them.
    pub(crate) fn list(&self) -> String {
        self.columns.join(", ")
    }

    /// `SELECT` of the columns; what follows the table's name is to be appended.
    pub(crate) fn select(&self) -> String {
        format!("SELECT {} FROM {}", self.list(), self.name)
    }

    /// `INSERT` of the columns; the rows are to be appended.
    pub(crate) fn insert(&self) -> String {
        format!("INSERT INTO {} ({})", self.name, self.list())
    }

    /// As [`Table::insert`], in the place of a row with the same key.
    pub(crate) fn replace(&self) -> String {
        format!("REPLACE INTO {} ({})", self.name, self.list())
    }
}

/// What a script's statements answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// How many rows each statement that returns none has met (`CLIENT_FOUND_ROWS`: those that it left as they were,
    /// too).
    pub(crate) affected: Vec<u64>,
    /// The rows of each statement that returns some.
    pub(crate) sets: VecDeque<Vec<Row>>,
}

impl Answers {
    /// All rows of the next statement that returns some, which selects the columns of `table`.
    pub(crate) fn all<T>(
        &mut self,
        table: &'static Table,
        read: impl Fn(&mut Cells) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.sets.pop_front().expect("the script has a statement for each set that is read");
        rows.into_iter().map(|row| read(&mut Cells::new(row, table))).collect()
    }

    /// The first row of the next statement that returns some.
    pub(crate) fn first<T>(
        &mut self,
        table: &'static Table,
        read: impl Fn(&mut Cells) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.all(table, read)?.into_iter().next())
    }
}

/// A row, whose columns are read one after the other. A value that cannot be is [`StoreError::Corrupt`].
pub(crate) struct Cells {
    table: &'static Table,
    id: String,
    values: std::vec::IntoIter<Value>,
}

impl Cells {
    fn new(row: Row, table: &'static Table) -> Self {
        let values = row.unwrap();
        debug_assert_eq!(values.len(), table.columns.len(), "a statement selects the columns of its table");
        Self { table, id: printable(&values[table.id]), values: values.into_iter() }
    }

    /// That this row's `column` holds what cannot be.
    pub(crate) fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt { table: self.table.name, column, id: self.id.clone() }
    }

    /// Passes over a column.
    pub(crate) fn skip(&mut self, column: &'static str) {
        self.value(column);
    }

    fn value(&mut self, column: &'static str) -> Option<Vec<u8>> {
        let at = self.table.columns.len() - self.values.len();
        debug_assert_eq!(self.table.columns[at], column, "columns are read in their order");
        match self.values.next().expect("a row has all of its table's columns") {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(bytes),
            // The text protocol, which this store speaks, has no other values.
            other => Some(other.as_sql(true).into_bytes()),
        }
    }

    fn optional<T>(
        &mut self,
        column: &'static str,
        read: impl FnOnce(Vec<u8>) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        match self.value(column) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.corrupt(column)),
        }
    }

    fn required<T>(&mut self, column: &'static str, read: impl FnOnce(Vec<u8>) -> Option<T>) -> Result<T, StoreError> {
        self.value(column).and_then(read).ok_or_else(|| self.corrupt(column))
    }

    /// A text that `T` parses, or a number.
    pub(crate) fn parsed<T: FromStr>(&mut self, column: &'static str) -> Result<T, StoreError> {
        self.required(column, parsed)
    }

    pub(crate) fn parsed_opt<T: FromStr>(&mut self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.optional(column, parsed)
    }

    pub(crate) fn flag(&mut self, column: &'static str) -> Result<bool, StoreError> {
        self.required(column, |value| match parsed(value)? {
            0u8 => Some(false),
            1 => Some(true),
            _ => None,
        })
    }

    pub(crate) fn time(&mut self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.required(column, time)
    }

    pub(crate) fn time_opt(&mut self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        self.optional(column, time)
    }

    pub(crate) fn text(&mut self, column: &'static str) -> Result<String, StoreError> {
        self.required(column, text)
    }

    pub(crate) fn text_opt(&mut self, column: &'static str) -> Result<Option<String>, StoreError> {
        self.optional(column, text)
    }

    pub(crate) fn json<T: DeserializeOwned>(&mut self, column: &'static str) -> Result<T, StoreError> {
        self.required(column, |value| serde_json::from_slice(&value).ok())
    }

    pub(crate) fn blob(&mut self, column: &'static str) -> Result<Vec<u8>, StoreError> {
        self.required(column, Some)
    }

    pub(crate) fn bytes<const N: usize>(&mut self, column: &'static str) -> Result<[u8; N], StoreError> {
        self.required(column, bytes)
    }

    pub(crate) fn bytes_opt<const N: usize>(&mut self, column: &'static str) -> Result<Option<[u8; N]>, StoreError> {
        self.optional(column, bytes)
    }

    /// The columns `product` and `env`.
    pub(crate) fn scope(&mut self) -> Result<Scope, StoreError> {
        Ok(Scope { product: self.parsed("product")?, env: self.parsed("env")? })
    }
}

fn text(value: Vec<u8>) -> Option<String> {
    String::from_utf8(value).ok()
}

fn parsed<T: FromStr>(value: Vec<u8>) -> Option<T> {
    text(value)?.parse().ok()
}

fn time(value: Vec<u8>) -> Option<Timestamp> {
    parsed(value).map(Timestamp::from_millis).filter(|t| *t <= Timestamp::MAX)
}

fn bytes<const N: usize>(value: Vec<u8>) -> Option<[u8; N]> {
    value.try_into().ok()
}

fn printable(value: &Value) -> String {
    let Value::Bytes(bytes) = value else { return value.as_sql(true) };
    // An id is hardly ever a text, but a text or a number may have sixteen bytes.
    match (std::str::from_utf8(bytes), uuid::Uuid::from_slice(bytes)) {
        (Ok(text), _) if !text.contains(char::is_control) => text.to_owned(),
        (_, Ok(uuid)) => uuid.to_string(),
        _ => {
            bytes.iter().fold("x'".to_owned(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            }) + "'"
        }
    }
}
