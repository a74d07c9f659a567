//! The file: what is made, migrated, refused, copied and shared; and that no damaged row is ever guessed at.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;

use rekindle::journal::{Event, EventKind};
use rekindle::keys::{Algorithm, SigningKey};
use rekindle::session::{EndReason, Session};
use rekindle::store::{Ban, Change, Idempotency, Permission, Section, Start, Store, StoreError, Transfer, UserQuery};
use rekindle_sqlite::{FileError, SqliteStore};
use rekindle_testkit::fixtures::*;
use rekindle_testkit::transfer::errors_of_taking_all;
use rusqlite::Connection;
use tempfile::TempDir;

fn new_path() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rekindle.db");
    (directory, path)
}

fn open(path: &Path) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(path, T0).unwrap())
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let (_directory, path) = new_path();
    let store = open(&path);
    let session = start(&*store, session("ada")).await;
    drop(store);
    assert!(!path.with_extension("db-wal").exists(), "a clean end leaves one file");
    let store = open(&path);
    assert_eq!(row(&*store, session.id).await, session);
    SqliteStore::verify_file(&path).unwrap();
}

#[tokio::test]
async fn accepted_writes_are_carried_out_before_the_end() {
    let (_directory, path) = new_path();
    let store = open(&path);
    let session = start(&*store, session("ada")).await;
    // Polled once, so that it is queued; then the caller goes away.
    tokio::select! {
        biased;
        _ = store.advance(advance_of(&session, at(1))) => {}
        () = std::future::ready(()) => {}
    }
    drop(store);
    assert_eq!(row(&*open(&path), session.id).await.position.generation, 1);
}

#[tokio::test]
async fn two_stores_share_one_file() {
    let (_directory, path) = new_path();
    let (one, two) = (open(&path), open(&path));
    let mut tasks = Vec::new();
    for i in 0..40 {
        let store = Arc::clone(if i % 2 == 0 { &one } else { &two });
        tasks.push(tokio::spawn(async move {
            let mut session = start(&*store, session("ada")).await;
            for secs in 1..10 {
                session = applied(store.advance(advance_of(&session, at(secs))).await.unwrap());
            }
            session
        }));
    }
    for task in tasks {
        let session = task.await.unwrap();
        assert_eq!(row(&*one, session.id).await, session);
        assert_eq!(row(&*two, session.id).await, session);
    }
    // A scope that the other one has met first.
    let elsewhere = Session { scope: scope_of("shop", "dev"), ..session("ada") };
    let elsewhere = start(&*one, elsewhere).await;
    assert_eq!(row(&*two, elsewhere.id).await, elsewhere);
    applied(two.advance(advance_of(&elsewhere, at(1))).await.unwrap());
}

#[test]
fn a_file_of_something_else_is_refused_and_left_alone() {
    let (directory, path) = new_path();
    std::fs::write(&path, "The quick brown fox jumps over the lazy dog. ".repeat(100)).unwrap();
    assert!(matches!(SqliteStore::open(&path, T0), Err(FileError::NotRekindle(p)) if p == path));
    let foreign = directory.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let before = std::fs::read(&foreign).unwrap();
    let error = SqliteStore::open(&foreign, T0).err().unwrap();
    assert!(matches!(&error, FileError::NotRekindle(_)));
    assert_eq!(
        error.to_string(),
        format!(
            "`{}` is not a Rekindle database; give the path of one, or of a file that does not exist yet",
            foreign.display()
        )
    );
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
    assert!(matches!(SqliteStore::verify_file(&foreign), Err(FileError::NotRekindle(_))));
    assert!(matches!(SqliteStore::verify_file(directory.path().join("none.db")), Err(FileError::Sqlite { .. })));
}

#[test]
fn a_newer_schema_and_a_changed_migration_are_refused() {
    let (_directory, path) = new_path();
    drop(open(&path));
    let damage = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    damage("PRAGMA user_version = 99");
    assert!(matches!(SqliteStore::open(&path, T0), Err(FileError::Newer { found: 99, .. })));
    damage("PRAGMA user_version = 1; UPDATE migrations SET checksum = x'00'");
    assert!(matches!(SqliteStore::open(&path, T0), Err(FileError::ChangedMigration { version: 1, .. })));
    assert!(matches!(SqliteStore::verify_file(&path), Err(FileError::ChangedMigration { version: 1, .. })));
}

#[test]
fn a_check_finds_damage() {
    let (_directory, path) = new_path();
    drop(open(&path));
    let damage = "PRAGMA foreign_keys = OFF; INSERT INTO bans (scope, user_id, at) VALUES (77, x'', 0)";
    Connection::open(&path).unwrap().execute_batch(damage).unwrap();
    assert!(matches!(SqliteStore::verify_file(&path), Err(FileError::Damaged { .. })));
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(SqliteStore::verify_file(&path), Err(FileError::Damaged { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_a_whole_store_at_one_moment() {
    let (directory, path) = new_path();
    let store = open(&path);
    let mut first = start(&*store, session("ada")).await;
    let writes = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for secs in 1..300 {
                first = applied(store.advance(advance_of(&first, at(secs))).await.unwrap());
            }
            first.id
        })
    };
    let to = directory.path().join("backup.db");
    tokio::task::spawn_blocking({
        let (store, to) = (Arc::clone(&store), to.clone());
        move || store.backup(&to).unwrap()
    })
    .await
    .unwrap();
    let id = writes.await.unwrap();
    assert!(matches!(store.backup(&to), Err(FileError::Exists(p)) if p == to));
    SqliteStore::verify_file(&to).unwrap();
    let restored = open(&to);
    let session = row(&*restored, id).await;
    assert_eq!(restored.events(events_of(id)).await.unwrap().len(), session.position.generation as usize + 1);
    applied(restored.advance(advance_of(&session, at(500))).await.unwrap());
}

/// One row of everything.
async fn fill(store: &SqliteStore) -> Session {
    let session = crate::session("ada");
    let idempotency = Some(Idempotency { key: [1; 32], request: [1; 32], expires_at: at(900) });
    store.start(Start { idempotency, ..start_of(&session) }).await.unwrap();
    let event = Event { notify: true, ..event_of(&session, EventKind::Refresh, at(1)) };
    store.record(vec![event]).await.unwrap();
    let ended = start(store, crate::session("bob")).await;
    applied(store.end(end_of(&ended, at(1), EndReason::Revoked)).await.unwrap());
    let mut ban = ban_of("eve", at(1));
    ban.ban = Ban { at: at(1), until: Some(at(999)), reason: Some("fraud".into()) };
    store.ban(ban).await.unwrap();
    let key = SigningKey {
        kid: "key-1".parse().unwrap(),
        scope: scope(),
        chain: Algorithm::EdDsa.into(),
        public_jwk: "{}".into(),
        wrapped: vec![1],
        created_at: at(0),
        signs_from: at(0),
    };
    assert!(store.add_signing_key(key, None).await.unwrap());
    store.secret_checks(vec![(1, [1; 16])]).await.unwrap();
    let api_key = rekindle::store::ApiKey {
        id: "k1".into(),
        name: "k".into(),
        hash: [1; 32],
        permissions: vec![Permission::Read],
        created_at: at(0),
        revoked_at: Some(at(1)),
    };
    let mut entry = audit("api_key.create", at(1));
    entry.ip = Some("192.0.2.1".into());
    store.change(Change::CreateApiKey(api_key), entry).await.unwrap();
    session
}

/// Reads everything in every way that there is; the errors.
async fn read_all(store: &SqliteStore, session: &Session) -> Vec<StoreError> {
    let again = Session { id: session_id(), ..session.clone() };
    let idempotency = Some(Idempotency { key: [1; 32], request: [1; 32], expires_at: at(900) });
    let repeated = Start { idempotency, ..start_of(&again) };
    let mut errors = Vec::new();
    macro_rules! ask {
        ($($answer:expr),* $(,)?) => { $( errors.extend($answer.await.err()); )* };
    }
    ask!(
        store.session(session.id),
        store.sessions(sessions_in(scope(), at(1))),
        store.advance(advance_of(session, at(1))),
        store.events(events_of(session.id)),
        store.users(UserQuery { scope: scope(), after: None, limit: 10, now: at(1) }),
        store.user(&scope(), &user("ada"), at(1)),
        store.start(repeated),
        store.revocations(None, 0, at(1), 10),
        store.take_notifications(at(9), at(9), 10),
        store.config_version(),
        store.scope(&scope()),
        store.products(),
        store.definition(&tag("default"), &tag("default"), 1),
        store.api_keys(),
        store.secret_checks(Vec::new()),
        store.secret_usage(),
        store.audit_log(None, 10),
    );
    errors
}

#[tokio::test]
async fn a_damaged_row_is_corrupt_by_table_column_and_id() {
    let (directory, path) = new_path();
    let store = open(&path);
    let session = fill(&store).await;
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(read_all(&open(&path), &session).await, []);
    assert_eq!(errors_of_taking_all(&*open(&path)).await, []);

    let ada = "CAST(user_id AS TEXT) = 'ada'";
    let damages: &[(&str, &str, &str, &str)] = &[
        ("sessions", "id", "x'0102'", ada),
        ("sessions", "generation", "-1", ada),
        ("sessions", "generation", "4294967296", ada),
        ("sessions", "commitment", "x'00'", ada),
        ("sessions", "issued_at", "-1", ada),
        ("sessions", "kid", "256", ada),
        ("sessions", "confirmed", "2", ada),
        ("sessions", "min_generation", "-1", ada),
        ("sessions", "idle_expires_at", "9223372036854775807", ada),
        ("sessions", "expires_at", "9223372036854775807", ada),
        ("sessions", "created_at", "9223372036854775807", ada),
        ("sessions", "ended_at", "9223372036854775807", "ended_at IS NOT NULL"),
        ("sessions", "ended_at", "NULL", "ended_at IS NOT NULL"),
        ("sessions", "ended_reason", "NULL", "ended_at IS NOT NULL"),
        ("sessions", "ended_reason", "'bored'", "ended_at IS NOT NULL"),
        ("sessions", "version", "-1", ada),
        ("sessions", "scope", "99", ada),
        ("sessions", "tag", "'No Tag'", ada),
        ("sessions", "definition_version", "-1", ada),
        ("sessions", "user_id", "x'ff'", ada),
        ("sessions", "previous_session_id", "x'00'", ada),
        ("sessions", "auth", "'{}'", ada),
        ("sessions", "client", "'{\"ip\":1}'", ada),
        ("sessions", "claims", "'[]'", ada),
        ("sessions", "data", "'{'", ada),
        ("sessions", "data", "CAST(x'7bff7d' AS TEXT)", ada),
        ("scopes", "product", "'No Tag'", "1"),
        ("scopes", "env", "'-'", "1"),
        ("events", "id", "x'00'", "kind = 'session.refresh'"),
        ("events", "at", "9223372036854775807", "kind = 'session.refresh'"),
        ("events", "kind", "'session.nap'", "kind = 'session.refresh'"),
        ("events", "outcome", "'fine'", "kind = 'session.refresh'"),
        ("events", "generation", "-1", "kind = 'session.refresh'"),
        ("events", "rest", "'{\"mood\":1}'", "kind = 'session.refresh'"),
        ("idempotency", "request", "x'00'", "1"),
        ("idempotency", "session_id", "x'00'", "1"),
        ("bans", "user_id", "x'ff'", "1"),
        ("bans", "at", "9223372036854775807", "1"),
        ("bans", "until", "9223372036854775807", "1"),
        ("bans", "reason", "CAST(x'ff' AS TEXT)", "1"),
        ("revocations", "scope", "99", "1"),
        ("revocations", "session_id", "x'00'", "1"),
        ("revocations", "below_generation", "-1", "1"),
        ("revocations", "at", "9223372036854775807", "1"),
        ("revocations", "expires_at", "9223372036854775807", "1"),
        ("outbox", "id", "x'00'", "1"),
        ("outbox", "event", "json_set(event, '$.id', '00000000-0000-0000-0000-000000000000')", "1"),
        ("outbox", "scope", "99", "1"),
        ("outbox", "attempts", "-1", "1"),
        ("outbox", "event", "'{}'", "1"),
        ("products", "tag", "'No Tag'", "1"),
        ("products", "name", "CAST(x'ff' AS TEXT)", "1"),
        ("environments", "slug", "'-'", "1"),
        ("environments", "name", "CAST(x'ff' AS TEXT)", "1"),
        ("environments", "active", "2", "1"),
        ("definitions", "current", "-1", "1"),
        ("definitions", "current", "7", "1"),
        ("definition_versions", "definition", "'{}'", "1"),
        ("definition_versions", "definition", "'['", "1"),
        ("signing_keys", "kid", "'no id'", "1"),
        ("signing_keys", "algorithm", "'none'", "1"),
        ("signing_keys", "public_jwk", "CAST(x'ff' AS TEXT)", "1"),
        ("signing_keys", "created_at", "9223372036854775807", "1"),
        ("signing_keys", "signs_from", "9223372036854775807", "1"),
        ("secret_checks", "kid", "256", "1"),
        ("secret_checks", "check_value", "x'00'", "1"),
        ("api_keys", "id", "CAST(x'ff' AS TEXT)", "1"),
        ("api_keys", "name", "CAST(x'ff' AS TEXT)", "1"),
        ("api_keys", "hash", "x'00'", "1"),
        ("api_keys", "permissions", "'[\"fly\"]'", "1"),
        ("api_keys", "created_at", "9223372036854775807", "1"),
        ("api_keys", "revoked_at", "9223372036854775807", "1"),
        ("audit", "id", "x'00'", "1"),
        ("audit", "at", "9223372036854775807", "1"),
        ("audit", "actor", "CAST(x'ff' AS TEXT)", "1"),
        ("audit", "action", "CAST(x'ff' AS TEXT)", "1"),
        ("audit", "target", "CAST(x'ff' AS TEXT)", "1"),
        ("audit", "ip", "CAST(x'ff' AS TEXT)", "1"),
        ("audit", "request_id", "CAST(x'ff' AS TEXT)", "1"),
        ("config", "version", "-1", "1"),
    ];
    for (i, (table, column, value, row)) in damages.iter().enumerate() {
        let path = directory.path().join(format!("{i}.db"));
        std::fs::write(&path, &whole).unwrap();
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        let damaged = connection.execute(&format!("UPDATE {table} SET {column} = {value} WHERE {row}"), []).unwrap();
        assert!(damaged > 0, "nothing to damage in {table}.{column}");
        drop(connection);
        let store = open(&path);
        let taken = errors_of_taking_all(&*store).await;
        let errors = read_all(&store, &session).await;
        // A definition whose present version is missing shows where that version should be.
        let expected =
            |t: &str, c: &str| (t == *table && c == *column) || (*table == "definitions" && t == "definition_versions");
        let told = |errors: &[StoreError]| {
            errors.iter().any(|e| matches!(e, StoreError::Corrupt { table, column, .. } if expected(table, column)))
        };
        assert!(told(&errors), "{table}.{column} = {value}: {errors:?}");
        // A key that leads to no session is not taken out.
        let left = (*table, *column) == ("idempotency", "session_id");
        assert!(told(&taken) || left, "{table}.{column} = {value}, taken out: {taken:?}");
    }
    let id = session.id;
    let store = open(&path);
    Connection::open(&path).unwrap().execute("UPDATE sessions SET kid = 256", []).unwrap();
    let error = store.session(id).await.unwrap_err();
    assert_eq!(error, StoreError::Corrupt { table: "sessions", column: "kid", id: id.to_string() });
    assert_eq!(store.records(Section::Sessions, None, 10).await, Err(error.clone()));
    // The others of a group are not harmed by one that fails.
    let (bad, good) = tokio::join!(
        store.end(end_of(&session, at(1), EndReason::Revoked)),
        store.start(start_of(&crate::session_at("zoe", at(1))))
    );
    assert_eq!(bad, Err(error));
    good.unwrap();
    let elsewhere = "PRAGMA foreign_keys = OFF; UPDATE bans SET scope = 99";
    Connection::open(&path).unwrap().execute_batch(elsewhere).unwrap();
    let error = StoreError::Corrupt { table: "bans", column: "scope", id: "x'657665'".into() };
    assert_eq!(store.records(Section::Bans, None, 10).await, Err(error));
}

#[test]
fn many_may_open_a_new_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..30 {
        let path = folder.path().join(format!("{round}.db"));
        let at_once = Barrier::new(8);
        thread::scope(|scope| {
            let open = || {
                at_once.wait();
                SqliteStore::open(&path, T0).unwrap();
            };
            for _ in 0..8 {
                scope.spawn(open);
            }
        });
        SqliteStore::verify_file(&path).unwrap();
    }
}
