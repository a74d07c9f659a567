//! A connection as the intents see it: short statements, rows read without ever defaulting.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::{PoisonError, RwLock};

use rekindle::clock::Timestamp;
use rekindle::session::{Scope, Tag};
use rekindle::store::StoreError;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Params, Row, ToSql, params};
use serde::de::DeserializeOwned;

/// Why an intent could not be carried out. Unlike [`StoreError`], it can be made from SQLite's error.
#[derive(Debug)]
pub(crate) struct Failure(StoreError);

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self(StoreError::Unavailable(error.to_string()))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

/// The short number that stands for a scope in every table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ScopeId(i64);

impl ScopeId {
    /// A number that no row has: of a scope in which nothing was ever written.
    pub(crate) const NONE: Self = Self(0);
}

impl ToSql for ScopeId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

/// The scopes that were met so far. Their rows never change, so this never forgets.
#[derive(Debug, Default)]
pub(crate) struct Scopes(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    ids: HashMap<Scope, ScopeId>,
    scopes: HashMap<ScopeId, Scope>,
}

impl Scopes {
    fn id(&self, scope: &Scope) -> Option<ScopeId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).ids.get(scope).copied()
    }

    fn scope(&self, id: ScopeId) -> Option<Scope> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).scopes.get(&id).cloned()
    }

    fn remember(&self, id: ScopeId, scope: &Scope) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.ids.insert(scope.clone(), id);
        known.scopes.insert(id, scope.clone());
    }
}

/// A connection with what is known of the file's scopes.
pub(crate) struct Db<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) scopes: &'c Scopes,
}

impl Db<'_> {
    /// Executes a statement; how many rows it changed.
    pub(crate) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, Failure> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }

    /// The first row of `sql`, which selects the columns of `table`.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        table: &Table,
        read: impl FnOnce(&Cells<'_, '_>) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        rows.next()?.map(|row| read(&Cells::new(row, table))).transpose()
    }

    /// All rows of `sql`, which selects the columns of `table`.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        table: &Table,
        read: impl Fn(&Cells<'_, '_>) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(&Cells::new(row, table))?);
        }
        Ok(all)
    }

    /// What a `SELECT count(*)` says.
    pub(crate) fn count(&self, sql: &str, params: impl Params) -> Result<u64, Failure> {
        Ok(self.connection.prepare_cached(sql)?.query_row(params, |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// Whether `sql` finds a row.
    pub(crate) fn exists(&self, sql: &str, params: impl Params) -> Result<bool, Failure> {
        Ok(self.connection.prepare_cached(sql)?.exists(params)?)
    }

    /// The number of a scope, or [`ScopeId::NONE`].
    pub(crate) fn scope_id(&self, scope: &Scope) -> Result<ScopeId, Failure> {
        if let Some(id) = self.scopes.id(scope) {
            return Ok(id);
        }
        let sql = "SELECT id, product, env FROM scopes WHERE product = ?1 AND env = ?2";
        let names = [scope.product.as_str(), scope.env.as_str()];
        let Some(id) = self.first(sql, names, &SCOPES, |row| row.scope_id("id"))? else { return Ok(ScopeId::NONE) };
        // Inside a transaction the number may be new, and never become visible.
        if self.connection.is_autocommit() {
            self.scopes.remember(id, scope);
        }
        Ok(id)
    }

    /// The numbers of all scopes of a product.
    pub(crate) fn scope_ids(&self, product: &Tag) -> Result<Vec<ScopeId>, Failure> {
        let sql = "SELECT id, product, env FROM scopes WHERE product = ?1";
        self.all(sql, [product.as_str()], &SCOPES, |row| row.scope_id("id"))
    }

    /// Gives a scope its number.
    pub(crate) fn add_scope(&self, scope: &Scope) -> Result<(), Failure> {
        let params = params![scope.product.as_str(), scope.env.as_str()];
        self.execute("INSERT INTO scopes (product, env) VALUES (?1, ?2) ON CONFLICT DO NOTHING", params)?;
        Ok(())
    }

    /// The scope that a row's column holds.
    pub(crate) fn scope(&self, cells: &Cells<'_, '_>, column: &'static str) -> Result<Scope, Failure> {
        let id = cells.scope_id(column)?;
        if let Some(scope) = self.scopes.scope(id) {
            return Ok(scope);
        }
        let found = self.first("SELECT id, product, env FROM scopes WHERE id = ?1", [id], &SCOPES, |row| {
            row.skip("id");
            Ok(Scope { product: row.parsed("product")?, env: row.parsed("env")? })
        })?;
        let scope = found.ok_or_else(|| cells.corrupt(column))?;
        // Rows are written only once their scope's number is visible to all.
        self.scopes.remember(id, &scope);
        Ok(scope)
    }
}

/// A table with the columns that a statement reads, in this order.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [&'static str],
    /// Which of the columns identifies a row in an error message.
    pub(crate) id: usize,
}

const SCOPES: Table = Table { name: "scopes", columns: &["id", "product", "env"], id: 0 };

/// A row, whose columns are read one after the other. A value that cannot be is [`StoreError::Corrupt`].
pub(crate) struct Cells<'r, 's> {
    row: &'r Row<'s>,
    table: &'r Table,
    next: Cell<usize>,
}

impl<'r, 's> Cells<'r, 's> {
    fn new(row: &'r Row<'s>, table: &'r Table) -> Self {
        Self { row, table, next: Cell::new(0) }
    }

    /// That this row's `column` holds what cannot be.
    pub(crate) fn corrupt(&self, column: &'static str) -> Failure {
        let id = match self.row.get_ref(self.table.id) {
            Ok(value) => printable(value),
            Err(_) => "unknown".into(),
        };
        Failure(StoreError::Corrupt { table: self.table.name, column, id })
    }

    /// Passes over a column.
    pub(crate) fn skip(&self, column: &'static str) {
        debug_assert_eq!(self.table.columns[self.next.get()], column, "columns are read in their order");
        self.next.set(self.next.get() + 1);
    }

    fn value(&self, column: &'static str) -> Result<ValueRef<'r>, Failure> {
        let i = self.next.get();
        self.skip(column);
        Ok(self.row.get_ref(i)?)
    }

    fn optional<T>(
        &self,
        column: &'static str,
        read: impl FnOnce(ValueRef<'r>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        match self.value(column)? {
            ValueRef::Null => Ok(None),
            value => read(value).map(Some).ok_or_else(|| self.corrupt(column)),
        }
    }

    fn required<T>(&self, column: &'static str, read: impl FnOnce(ValueRef<'r>) -> Option<T>) -> Result<T, Failure> {
        read(self.value(column)?).ok_or_else(|| self.corrupt(column))
    }

    pub(crate) fn int<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, Failure> {
        self.required(column, int)
    }

    pub(crate) fn int_opt<T: TryFrom<i64>>(&self, column: &'static str) -> Result<Option<T>, Failure> {
        self.optional(column, int)
    }

    pub(crate) fn scope_id(&self, column: &'static str) -> Result<ScopeId, Failure> {
        self.int(column).map(ScopeId)
    }

    pub(crate) fn flag(&self, column: &'static str) -> Result<bool, Failure> {
        self.required(column, |value| match int(value)? {
            0u8 => Some(false),
            1 => Some(true),
            _ => None,
        })
    }

    pub(crate) fn time(&self, column: &'static str) -> Result<Timestamp, Failure> {
        self.required(column, time)
    }

    pub(crate) fn time_opt(&self, column: &'static str) -> Result<Option<Timestamp>, Failure> {
        self.optional(column, time)
    }

    pub(crate) fn text(&self, column: &'static str) -> Result<&'r str, Failure> {
        self.required(column, text)
    }

    pub(crate) fn string_opt(&self, column: &'static str) -> Result<Option<String>, Failure> {
        self.optional(column, |value| text(value).map(str::to_owned))
    }

    /// A text that `T` parses.
    pub(crate) fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, Failure> {
        self.required(column, |value| text(value)?.parse().ok())
    }

    pub(crate) fn parsed_opt<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, Failure> {
        self.optional(column, |value| text(value)?.parse().ok())
    }

    /// Bytes that are UTF-8 text that `T` parses.
    pub(crate) fn parsed_blob<T: FromStr>(&self, column: &'static str) -> Result<T, Failure> {
        self.required(column, |value| std::str::from_utf8(value.as_blob().ok()?).ok()?.parse().ok())
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, Failure> {
        self.required(column, |value| serde_json::from_str(text(value)?).ok())
    }

    pub(crate) fn blob(&self, column: &'static str) -> Result<&'r [u8], Failure> {
        self.required(column, |value| value.as_blob().ok())
    }

    pub(crate) fn bytes<const N: usize>(&self, column: &'static str) -> Result<[u8; N], Failure> {
        self.required(column, bytes)
    }

    pub(crate) fn bytes_opt<const N: usize>(&self, column: &'static str) -> Result<Option<[u8; N]>, Failure> {
        self.optional(column, bytes)
    }
}

fn int<T: TryFrom<i64>>(value: ValueRef<'_>) -> Option<T> {
    value.as_i64().ok()?.try_into().ok()
}

fn time(value: ValueRef<'_>) -> Option<Timestamp> {
    int(value).map(Timestamp::from_millis).filter(|t| *t <= Timestamp::MAX)
}

fn text(value: ValueRef<'_>) -> Option<&str> {
    value.as_str().ok()
}

fn bytes<const N: usize>(value: ValueRef<'_>) -> Option<[u8; N]> {
    value.as_blob().ok()?.try_into().ok()
}

fn printable(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(i) => i.to_string(),
        ValueRef::Real(r) => r.to_string(),
        ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
        ValueRef::Blob(b) => match uuid::Uuid::from_slice(b) {
            Ok(uuid) => uuid.to_string(),
            Err(_) => {
                b.iter().fold("x'".to_owned(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                }) + "'"
            }
        },
    }
}
