//! The file: what makes it ours, its migrations, and its check.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rekindle::clock::Timestamp;
use rekindle::definition::Definition;
use rekindle::store::Migration;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

/// "RKND", in the header of every database file of ours.
const APPLICATION_ID: i32 = 0x524B_4E44;

/// With their statements.
const MIGRATIONS: &[(Migration, &str)] =
    &[(Migration { version: 1, name: "initial" }, include_str!("../migrations/0001_initial.sql"))];

/// What is wrong with a database file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file is a database of something else, or none at all.
    #[error("`{0}` is not a Rekindle database; give the path of one, or of a file that does not exist yet")]
    NotRekindle(PathBuf),
    /// A newer Rekindle has migrated it.
    #[error("`{path}` has schema version {found}, this Rekindle knows versions up to {known}; run a newer Rekindle")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// It was not brought up to date by `SqliteStore::open` yet; only a check reports this.
    #[error("`{path}` has schema version {found}, this Rekindle uses {known}; open it once to migrate it")]
    Older {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// A migration that was applied is not the one that this build has.
    #[error("`{path}` was migrated by another text of migration {version} (`{name}`); use the build that did it")]
    ChangedMigration {
        /// The file.
        path: PathBuf,
        /// The migration's number.
        version: i64,
        /// Its name.
        name: String,
    },
    /// SQLite's own check found damage.
    #[error("`{path}` is damaged: {problem}; restore a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        problem: String,
    },
    /// A backup never replaces a file.
    #[error("`{0}` exists; give a path that does not")]
    Exists(PathBuf),
    /// The operating system refused.
    #[error("`{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("`{path}`: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl FileError {
    fn sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => Self::NotRekindle(path.into()),
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
                Self::Damaged { path: path.into(), problem: source.to_string() }
            }
            _ => Self::Sqlite { path: path.into(), source },
        }
    }

    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.into(), source }
    }
}

/// Makes sure that there is a database of the newest schema at `path`.
pub(crate) fn prepare(path: &Path, now: Timestamp) -> Result<(), FileError> {
    let is_new = !path.exists();
    let mut connection = connect(path, true)?;
    let fail = FileError::sqlite(path);
    if !is_empty(&connection).map_err(&fail)? {
        check_version(&connection, path)?;
    }
    use_wal(&connection).map_err(&fail)?;
    connection.pragma_update(None, "synchronous", "full").map_err(&fail)?;
    migrate(&mut connection, path, now)?;
    if is_new {
        // SQLite makes the write-ahead log's name durable, but not the database's.
        sync_directory_of(path)?;
    }
    Ok(())
}

/// Switches to the write-ahead log. Of several that open a new file at once, each may hold what another one needs: SQLite then says
/// "busy" without waiting.
fn use_wal(connection: &Connection) -> rusqlite::Result<()> {
    const PAUSE: Duration = Duration::from_millis(20);
    let mut tries = crate::BUSY_TIMEOUT.as_millis() / PAUSE.as_millis();
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(error) if tries > 0 && error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                tries -= 1;
                thread::sleep(PAUSE);
            }
            switched => return switched,
        }
    }
}

/// Checks a file that nobody needs to be serving from: that it is whole, ours, and of this schema version.
pub(crate) fn verify(path: &Path) -> Result<(), FileError> {
    let connection = connect(path, false)?;
    let fail = FileError::sqlite(path);
    let found = check_version(&connection, path)?;
    let known = MIGRATIONS.len() as i64;
    if found < known {
        return Err(FileError::Older { path: path.into(), found, known });
    }
    let problem: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(&fail)?;
    if problem != "ok" {
        return Err(FileError::Damaged { path: path.into(), problem });
    }
    let orphan: Option<String> =
        connection.query_row("PRAGMA foreign_key_check", [], |row| row.get(0)).optional().map_err(&fail)?;
    match orphan {
        Some(table) => {
            let problem = format!("a row of `{table}` refers to a row that is not there");
            Err(FileError::Damaged { path: path.into(), problem })
        }
        None => Ok(()),
    }
}

/// Writes a consistent copy, durable and whole before it gets its name.
pub(crate) fn backup(from: &Path, to: &Path) -> Result<(), FileError> {
    if to.exists() {
        return Err(FileError::Exists(to.into()));
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    match std::fs::remove_file(&partial) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(FileError::io(&partial)(e)),
        _ => {}
    }
    // It holds what the store holds: for its owner alone from the beginning. SQLite writes into an empty file, too.
    let mut private = std::fs::OpenOptions::new();
    private.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut private, 0o600);
    private.open(&partial).map_err(FileError::io(&partial))?;
    let name = partial.to_str().ok_or_else(|| {
        FileError::io(to)(io::Error::new(io::ErrorKind::InvalidInput, "the path of a backup must be UTF-8"))
    })?;
    connect(from, false)?.execute("VACUUM INTO ?1", [name]).map_err(FileError::sqlite(to))?;
    std::fs::File::open(&partial).and_then(|f| f.sync_all()).map_err(FileError::io(&partial))?;
    std::fs::rename(&partial, to).map_err(FileError::io(to))?;
    sync_directory_of(to)
}

/// A connection to an existing file (or a new one, with `create`).
fn connect(path: &Path, create: bool) -> Result<Connection, FileError> {
    let create = if create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = Connection::open_with_flags(path, flags).map_err(FileError::sqlite(path))?;
    connection.busy_timeout(crate::BUSY_TIMEOUT).map_err(FileError::sqlite(path))?;
    Ok(connection)
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}

/// The schema version of a file that is ours, not newer than this build, and was migrated as this build would have done.
fn check_version(connection: &Connection, path: &Path) -> Result<i64, FileError> {
    let fail = FileError::sqlite(path);
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(&fail)?;
    if application != APPLICATION_ID {
        return Err(FileError::NotRekindle(path.into()));
    }
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(&fail)?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(FileError::Newer { path: path.into(), found, known });
    }
    for (Migration { version, name }, statements) in MIGRATIONS.iter().take(usize::try_from(found).unwrap_or(0)) {
        let checksum: Option<Vec<u8>> = connection
            .query_row("SELECT checksum FROM migrations WHERE version = ?1", [version], |row| row.get(0))
            .optional()
            .map_err(&fail)?;
        if checksum.as_deref() != Some(digest(&SHA256, statements.as_bytes()).as_ref()) {
            let (path, version, name) = (path.into(), i64::from(*version), (*name).into());
            return Err(FileError::ChangedMigration { path, version, name });
        }
    }
    Ok(found)
}

/// The migrations that opening the file would apply; all of them where there is none. Changes nothing.
pub(crate) fn pending(path: &Path) -> Result<Vec<Migration>, FileError> {
    let mut found = 0;
    if path.exists() {
        let connection = connect(path, false)?;
        if !is_empty(&connection).map_err(FileError::sqlite(path))? {
            found = check_version(&connection, path)?;
        }
    }
    Ok(MIGRATIONS.iter().map(|(migration, _)| *migration).filter(|m| i64::from(m.version) > found).collect())
}

fn migrate(connection: &mut Connection, path: &Path, now: Timestamp) -> Result<(), FileError> {
    let fail = FileError::sqlite(path);
    // Immediate: of several processes that open a file at once, one migrates and the others find it done.
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&fail)?;
    let found = if is_empty(&tx).map_err(&fail)? {
        create(&tx).map_err(&fail)?;
        0
    } else {
        check_version(&tx, path)?
    };
    for (migration, statements) in MIGRATIONS.iter().filter(|(migration, _)| i64::from(migration.version) > found) {
        apply(&tx, *migration, statements, now).map_err(&fail)?;
    }
    tx.commit().map_err(&fail)
}

fn create(tx: &Connection) -> rusqlite::Result<()> {
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.execute_batch(
        "CREATE TABLE migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum BLOB NOT NULL,
         applied_at INTEGER NOT NULL) STRICT",
    )
}

fn apply(
    tx: &Connection,
    Migration { version, name }: Migration,
    statements: &str,
    now: Timestamp,
) -> rusqlite::Result<()> {
    tx.execute_batch(statements)?;
    if version == 1 {
        seed(tx)?;
    }
    let checksum = digest(&SHA256, statements.as_bytes());
    tx.execute(
        "INSERT INTO migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)",
        params![version, name, checksum.as_ref(), now.millis()],
    )?;
    tx.pragma_update(None, "user_version", version)
}

/// What every new store begins with: product `default`, its environment `dev` and its definition `default`.
fn seed(tx: &Connection) -> rusqlite::Result<()> {
    let tag: rekindle::session::Tag = "default".parse().expect("a valid tag");
    let definition = Definition::default_for(tag);
    let longest_access = definition.access_token.lifetime.seconds().0.cast_signed();
    let definition = serde_json::to_string(&definition).expect("a definition is JSON");
    tx.execute("INSERT INTO products (tag, name, longest_access) VALUES ('default', 'Default', ?1)", [longest_access])?;
    tx.execute_batch(
        "INSERT INTO environments (product, slug, name, active) VALUES ('default', 'dev', 'Development', 1);
         INSERT INTO definitions (product, tag, current) VALUES ('default', 'default', 1);",
    )?;
    tx.execute(
        "INSERT INTO definition_versions (product, tag, version, definition) VALUES ('default', 'default', 1, ?1)",
        [definition],
    )?;
    Ok(())
}

fn sync_directory_of(path: &Path) -> Result<(), FileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::File::open(directory).and_then(|d| d.sync_all()).map_err(FileError::io(directory))
}
