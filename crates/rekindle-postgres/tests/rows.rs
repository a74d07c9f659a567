//! Rows: large ones, damaged ones, and what an operator is told.

mod common;

use rekindle::session::Session;
use rekindle::store::{Section, Store, StoreError, Transfer, UserQuery};
use rekindle_postgres::{PostgresConfig, PostgresStore};
use rekindle_testkit::fixtures::*;
use rekindle_testkit::servers::postgres::Postgres;
use rekindle_testkit::transfer::{errors_of_taking_all, fill};

async fn new_store() -> (PostgresStore, String) {
    let schema = common::new_schema();
    let url = format!("{}?schema={schema}&pool_size=2", Postgres::shared().url(common::database()));
    (PostgresStore::open(PostgresConfig::parse(&url).unwrap()).await.unwrap(), schema)
}

fn corrupt<T>(table: &'static str, column: &'static str, id: String) -> Result<T, StoreError> {
    Err(StoreError::Corrupt { table, column, id })
}

#[tokio::test]
async fn a_mebibyte_of_data_is_kept_and_a_refresh_leaves_it() {
    let (store, _) = new_store().await;
    let text = format!(r#"{{"text":"{}"}}"#, "\u{1F980}x".repeat(209_715));
    let session = start(&store, Session { data: object(&text), ..session("ada") }).await;
    let moved = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    assert_eq!(moved.data, session.data);
    let updated = applied(store.update(update_of(&moved, &text.replace('x', "y"), at(2))).await.unwrap());
    assert_eq!(row(&store, session.id).await, updated);
}

#[tokio::test]
async fn damaged_rows_are_named() {
    let (store, schema) = new_store().await;
    let session = start(&store, session("ada")).await;
    let id = session.id.to_string();
    let sql = |sql: String| Postgres::shared().sql(common::database(), &format!("SET search_path = {schema}; {sql}"));
    let columns = [
        ("generation", "-1"),
        ("commitment", "'x'"),
        ("issued_at", "5000000000"),
        ("kid", "256"),
        ("idle_expires_at", "9000000000000000"),
        ("ended_at", "1"),
        ("ended_reason", "'bored'"),
        ("version", "-1"),
        ("scope", "'shop'"),
        ("tag", "'A Tag'"),
        ("user_id", "'\\xff'"),
        ("auth", "'{}'"),
        ("client", "'{\"ip\":1}'"),
        ("claims", "'[]'"),
        ("data", "''"),
    ];
    for (column, value) in columns {
        sql(format!("CREATE TABLE kept AS TABLE sessions; UPDATE sessions SET {column} = {value}"));
        let named = if column == "ended_at" { "ended_reason" } else { column };
        assert_eq!(store.session(session.id).await, corrupt("sessions", named, id.clone()));
        assert_eq!(store.records(Section::Sessions, None, 10).await, corrupt("sessions", named, id.clone()));
        // What it cannot read, it does not touch.
        let before = sql("TABLE sessions".into());
        assert_eq!(store.update(update_of(&session, "{}", at(1))).await, corrupt("sessions", named, id.clone()));
        assert_eq!(sql("TABLE sessions".into()), before);
        sql("DELETE FROM sessions; INSERT INTO sessions TABLE kept; DROP TABLE kept".into());
    }
    sql("UPDATE events SET kind = 'session.what'".into());
    let event = sql("SELECT id FROM events".into());
    assert_eq!(store.events(events_of(session.id)).await, corrupt("events", "kind", event));
    store.ban(ban_of("eve", at(1))).await.unwrap();
    sql("UPDATE bans SET reason = 'no JSON'".into());
    let users = UserQuery { scope: scope(), after: None, limit: 10, now: at(2) };
    assert_eq!(store.users(users).await, corrupt("bans", "reason", "\\x657665".into()));
    sql("DELETE FROM config".into());
    assert_eq!(store.config_version().await, corrupt("config", "id", "1".into()));
}

#[tokio::test]
async fn no_damaged_row_is_taken_out() {
    let (store, schema) = new_store().await;
    fill(&store).await;
    let sql = |sql: String| Postgres::shared().sql(common::database(), &format!("SET search_path = {schema}; {sql}"));
    let damages = [
        ("events", "kind", "'session.what'", "id"),
        ("idempotency", "key", "'x'", "session_id"),
        ("idempotency", "request", "'x'", "session_id"),
        ("idempotency", "expires_at", "9000000000000000", "session_id"),
        ("bans", "scope", "'shop'", "user_id"),
        ("bans", "user_id", "'\\xff'", "user_id"),
        ("bans", "at", "9000000000000000", "user_id"),
        ("bans", "reason", "'no JSON'", "user_id"),
        ("revocations", "seq", "-1", "seq"),
        ("revocations", "scope", "'shop'", "seq"),
        ("revocations", "at", "9000000000000000", "seq"),
        ("outbox", "scope", "'shop'", "id"),
        ("outbox", "due", "9000000000000000", "id"),
        ("outbox", "attempts", "-1", "id"),
        ("outbox", "event", "'{}'", "id"),
        ("audit", "entry", "'{}'", "id"),
        ("products", "name", "'no JSON'", "tag"),
        ("products", "longest_access", "-1", "tag"),
        ("environments", "slug", "'-'", "slug"),
        ("definitions", "current", "7", "tag"),
        ("definition_versions", "definition", "'{}'", "tag"),
        ("signing_keys", "algorithm", "'none'", "kid"),
        ("api_keys", "hash", "'x'", "id"),
        ("secret_checks", "check_value", "'x'", "kid"),
        ("config", "version", "-1", "id"),
    ];
    for (table, column, value, id) in damages {
        let first = format!("FROM {table} ORDER BY ctid LIMIT 1");
        let whole = sql(format!("SELECT quote_nullable({column}) {first}"));
        sql(format!("UPDATE {table} SET {column} = {value} WHERE ctid = (SELECT ctid {first})"));
        let id = sql(format!("SELECT {id} FROM {table} WHERE {column} = {value}"));
        assert_eq!(errors_of_taking_all(&store).await, [StoreError::Corrupt { table, column, id }]);
        sql(format!("UPDATE {table} SET {column} = {whole} WHERE {column} = {value}"));
    }
    assert_eq!(errors_of_taking_all(&store).await, []);
}

#[tokio::test]
async fn an_operator_is_told_of_weak_settings_and_missing_rights() {
    let (store, schema) = new_store().await;
    let checks = store.checks().await.unwrap();
    let texts: Vec<_> = checks.iter().filter(|c| !c.ok).map(|c| c.text.split(':').next().unwrap()).collect();
    assert_eq!(texts, ["fsync = off", "full_page_writes = off", "synchronous_commit = off"]);
    assert!(checks.iter().any(|c| c.text.starts_with("server_version = ")), "{checks:?}");
    let revoke = format!("REVOKE INSERT ON {schema}.outbox FROM rekindle");
    Postgres::shared().sql(common::database(), &revoke);
    let rights = store.checks().await.unwrap().pop().unwrap();
    assert_eq!(
        (rights.ok, rights.text.as_str()),
        (false, "the role has not all rights on outbox: grant it SELECT, INSERT, UPDATE and DELETE")
    );
}
