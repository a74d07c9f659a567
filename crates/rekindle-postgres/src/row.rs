//! Rows, read without ever defaulting.

use std::fmt::Write as _;
use std::str::FromStr;

use rekindle::clock::Timestamp;
use rekindle::session::Scope;
use rekindle::store::StoreError;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};
use uuid::Uuid;

/// A row of a table. A value that cannot be is [`StoreError::Corrupt`].
pub(crate) struct Cells<'r> {
    row: &'r Row,
    table: &'static str,
    /// The column that identifies the row in an error message.
    id: &'static str,
}

impl<'r> Cells<'r> {
    pub(crate) fn new(row: &'r Row, table: &'static str, id: &'static str) -> Self {
        Self { row, table, id }
    }

    /// That this row's `column` holds what cannot be.
    pub(crate) fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt { table: self.table, column, id: self.printable_id() }
    }

    fn optional<T: FromSql<'r>, U>(
        &self,
        column: &'static str,
        read: impl FnOnce(T) -> Option<U>,
    ) -> Result<Option<U>, StoreError> {
        match self.row.try_get::<_, Option<T>>(column) {
            Ok(None) => Ok(None),
            Ok(Some(value)) => read(value).map(Some).ok_or_else(|| self.corrupt(column)),
            Err(_) => Err(self.corrupt(column)),
        }
    }

    fn required<T: FromSql<'r>, U>(
        &self,
        column: &'static str,
        read: impl FnOnce(T) -> Option<U>,
    ) -> Result<U, StoreError> {
        self.optional(column, read)?.ok_or_else(|| self.corrupt(column))
    }

    pub(crate) fn int<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, StoreError> {
        self.required(column, int)
    }

    pub(crate) fn int_opt<T: TryFrom<i64>>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.optional(column, int)
    }

    pub(crate) fn flag(&self, column: &'static str) -> Result<bool, StoreError> {
        self.required(column, Some)
    }

    pub(crate) fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.required(column, time)
    }

    pub(crate) fn time_opt(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        self.optional(column, time)
    }

    pub(crate) fn text(&self, column: &'static str) -> Result<&'r str, StoreError> {
        self.required(column, Some)
    }

    /// A text that `T` parses.
    pub(crate) fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.required(column, |text: &str| text.parse().ok())
    }

    pub(crate) fn parsed_opt<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.optional(column, |text: &str| text.parse().ok())
    }

    /// Bytes that are UTF-8 text that `T` parses.
    pub(crate) fn parsed_bytes<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.required(column, |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse().ok())
    }

    /// `product/env`; see [`scope_bytes`].
    pub(crate) fn scope(&self, column: &'static str) -> Result<Scope, StoreError> {
        self.required(column, |bytes: &[u8]| {
            let (product, env) = std::str::from_utf8(bytes).ok()?.split_once('/')?;
            Some(Scope { product: product.parse().ok()?, env: env.parse().ok()? })
        })
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        self.required(column, |text: &str| serde_json::from_str(text).ok())
    }

    pub(crate) fn json_opt<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.optional(column, |text: &str| serde_json::from_str(text).ok())
    }

    pub(crate) fn bytes(&self, column: &'static str) -> Result<&'r [u8], StoreError> {
        self.required(column, Some)
    }

    pub(crate) fn array<const N: usize>(&self, column: &'static str) -> Result<[u8; N], StoreError> {
        self.required(column, |bytes: &[u8]| bytes.try_into().ok())
    }

    pub(crate) fn uuid(&self, column: &'static str) -> Result<[u8; 16], StoreError> {
        self.required(column, |id: Uuid| Some(id.into_bytes()))
    }

    pub(crate) fn uuid_opt(&self, column: &'static str) -> Result<Option<[u8; 16]>, StoreError> {
        self.optional(column, |id: Uuid| Some(id.into_bytes()))
    }

    fn printable_id(&self) -> String {
        let kind = self.row.columns().iter().find(|c| c.name() == self.id).map(|c| c.type_());
        match kind {
            Some(&Type::UUID) => self.printed::<Uuid>(|id| id.to_string()),
            Some(&Type::INT8) => self.printed::<i64>(|n| n.to_string()),
            Some(&Type::TEXT) => self.printed::<&str>(str::to_owned),
            Some(&Type::BYTEA) => self.printed::<&[u8]>(|bytes| {
                bytes.iter().fold("\\x".to_owned(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                })
            }),
            _ => "unknown".into(),
        }
    }

    fn printed<T: FromSql<'r>>(&self, print: impl FnOnce(T) -> String) -> String {
        self.row.try_get::<_, T>(self.id).map_or_else(|_| "unknown".into(), print)
    }
}

/// A scope as columns hold it: `product/env`, neither of which holds a slash.
pub(crate) fn scope_bytes(scope: &Scope) -> Vec<u8> {
    scope.to_string().into_bytes()
}

fn int<T: TryFrom<i64>>(value: i64) -> Option<T> {
    value.try_into().ok()
}

fn time(value: i64) -> Option<Timestamp> {
    Some(Timestamp::from_millis(value)).filter(|t| *t <= Timestamp::MAX)
}
