//! The database: what is made, migrated, refused and shared; that no damaged row is ever guessed at; that no statement reads all.

mod common;

use std::collections::BTreeSet;

use common::{new_store, open};
use futures_util::future::join_all;
use rekindle::clock::Timestamp;
use rekindle::journal::{Event, EventKind};
use rekindle::keys::{Algorithm, SigningKey};
use rekindle::session::{EndReason, Session};
use rekindle::store::{Ban, Change, Confirmation, Idempotency, Start, Store, StoreError, UserQuery};
use rekindle_mysql::{MysqlConfig, MysqlStore, OpenError};
use rekindle_testkit::fixtures::*;
use rekindle_testkit::servers::mysql::{Mysql, PASSWORD, QUICK, ROLE};
use rekindle_testkit::servers::temporary_folder;

async fn refused(url: &str) -> OpenError {
    let error = MysqlStore::open(MysqlConfig::parse(url).unwrap(), T0).await.err().expect("it cannot be opened");
    let text = error.to_string();
    assert!(!text.contains(PASSWORD) && !text.contains("p%40ss"), "{text}");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_open_an_empty_database_one_migrates_it() {
    let server = Mysql::shared();
    let url = server.url(&server.new_database());
    let config = MysqlConfig::parse(&url).unwrap();
    let pending = MysqlStore::pending(&config).await.unwrap();
    assert_eq!(pending.iter().map(|m| (m.version, m.name)).collect::<Vec<_>>(), [(1, "initial")]);
    let stores = join_all((0..8).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { open(&url).await })
    }))
    .await;
    for store in stores {
        let store = store.unwrap();
        assert_eq!(store.products().await.unwrap().len(), 1);
        assert_eq!(store.config_version().await, Ok(0));
    }
    assert_eq!(MysqlStore::pending(&config).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_was_cut_off_is_done_again() {
    let server = Mysql::shared();
    let database = server.new_database();
    drop(open(&server.url(&database)).await);
    // As if the process had died before the end, a while ago.
    server.sql(
        &database,
        "DELETE FROM rekindle_migrations; DROP TABLE config; DELETE FROM feed; DELETE FROM products;
         DELETE FROM environments; DELETE FROM definitions; DELETE FROM definition_versions;
         UPDATE rekindle_migration_lock SET claimed_until = 600000",
    );
    let config = MysqlConfig::parse(&server.url(&database)).unwrap();
    let store = MysqlStore::open(config, Timestamp::from_secs(600)).await.unwrap();
    assert_eq!((store.products().await.unwrap().len(), store.config_version().await), (1, Ok(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_opened_says_why() {
    let server = Mysql::shared();
    let database = server.new_database();
    let url = server.url(&database);

    let wrong = url.replace("p%40ss", "wrong");
    assert!(matches!(refused(&wrong).await, OpenError::AccessDenied { .. }));
    let nobody = url.replace(ROLE, "nobody");
    assert!(matches!(refused(&nobody).await, OpenError::AccessDenied { .. }));
    let nowhere = server.url("test_nowhere");
    let text = refused(&nowhere).await.to_string();
    assert!(text.contains("CREATE DATABASE `test_nowhere`"), "{text}");
    assert!(matches!(refused(&server.url("mysql")).await, OpenError::AccessDenied { .. }));
    let closed = server.url_through(rekindle_testkit::servers::free_port(), &database);
    assert!(matches!(refused(&closed).await, OpenError::Unreachable { .. }));
    let unknown = url.replace("127.0.0.1", "no-such-host.invalid");
    assert!(matches!(refused(&unknown).await, OpenError::Unreachable { .. }));
    let text = refused(&format!("{url}?tls=verify")).await.to_string();
    assert!(text.contains("SSL"), "{text}");

    server.sql(&database, "CREATE TABLE theirs (n INT)");
    let text = refused(&url).await.to_string();
    assert!(text.contains("tables that are not Rekindle's, like `theirs`"), "{text}");
    server.sql(&database, "DROP TABLE theirs");

    drop(open(&url).await);
    server.sql(&database, "INSERT INTO rekindle_migrations VALUES (2, 'of the future', REPEAT('x', 32), 0)");
    assert!(matches!(refused(&url).await, OpenError::Newer { found: 2, known: 1, .. }));
    server.sql(&database, "DELETE FROM rekindle_migrations WHERE version = 2");
    server.sql(&database, "UPDATE rekindle_migrations SET checksum = REPEAT('x', 32)");
    assert!(matches!(refused(&url).await, OpenError::ChangedMigration { version: 1, .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_rights_are_told() {
    let server = Mysql::quick();
    let database = server.new_database();
    server.sql(
        "mysql",
        &format!(
            "CREATE USER reader@'%' IDENTIFIED BY 'r'; GRANT SELECT ON {database}.* TO reader@'%';
             CREATE USER writer@'%' IDENTIFIED BY 'w'; GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO writer@'%'"
        ),
    );
    let reader = format!("mysql://reader:r@127.0.0.1:{}/{database}", server.port());
    let writer = format!("mysql://writer:w@127.0.0.1:{}/{database}", server.port());
    assert!(matches!(refused(&writer).await, OpenError::MissingPrivilege { .. }));
    drop(open(&server.url(&database)).await);
    assert!(matches!(refused(&reader).await, OpenError::MissingPrivilege { .. }));
    // Without the right to migrate, which is not needed any more.
    let store = open(&writer).await;
    start(&*store, session("ada")).await;
    server.sql("mysql", "SET GLOBAL read_only = 1");
    assert!(matches!(refused(&writer).await, OpenError::ReadOnly { .. }));
}

/// A certificate authority, and a server's certificate for 127.0.0.1 with its key, as PEM.
fn certificates() -> (String, String, String) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    (authority.pem(), certificate.pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_encrypted_and_only_to_whom_the_authority_vouches_for() {
    let folder = temporary_folder("mysql");
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (authority, certificate, key) = certificates();
    let other = file("other.pem", &certificates().0);
    let authority = file("ca.pem", &authority);
    let settings = [
        format!("ssl-cert={}", file("cert.pem", &certificate)),
        format!("ssl-key={}", file("key.pem", &key)),
        "require-secure-transport=1".to_owned(),
    ];
    let settings: Vec<&str> = QUICK.into_iter().chain(settings.iter().map(String::as_str)).collect();
    let server = Mysql::start(&settings);
    let url = server.url(&server.new_database());
    let store = open(&format!("{url}?tls_ca={authority}")).await;
    start(&*store, session("ada")).await;
    for refused_url in [url.clone(), format!("{url}?tls=verify"), format!("{url}?tls_ca={other}")] {
        refused(&refused_url).await;
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_weaken_promises_are_told() {
    let server = Mysql::start(&["innodb-flush-log-at-trx-commit=2", "log-bin", "sync-binlog=0", "max-connections=10"]);
    let (store, _url) = new_store(&server).await;
    let told: Vec<_> = store.checks().await.unwrap().into_iter().filter(|c| !c.ok).map(|c| c.text).collect();
    assert_eq!(
        told,
        [
            "innodb_flush_log_at_trx_commit = 2: answered writes may be lost; set it to 1",
            "max_connections = 10: this process alone uses up to 16; raise it, or lower `connections` in the URL",
            "sync_binlog = 0: replicas may differ after a crash; set it to 1",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_megabyte_of_data_is_kept() {
    let (store, _url) = new_store(Mysql::shared()).await;
    let data = format!(r#"{{"text":"{}"}}"#, "\u{1F980}".repeat(256 * 1024));
    assert!(data.len() > 1 << 20);
    let session = start(&*store, Session { data: object(&data), ..session("ada") }).await;
    let session = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    let session = applied(store.update(update_of(&session, &data.replace("text", "TEXT"), at(1))).await.unwrap());
    assert_eq!(row(&*store, session.id).await, session);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_is_corrupt() {
    let server = Mysql::shared();
    let (store, url) = new_store(server).await;
    let database = url.rsplit('/').next().unwrap();
    let session = start(&*store, session("ada")).await;
    let id = session.id.to_string();
    for (damage, column) in [
        ("tag = 'No Tag'", "tag"),
        ("product = ''", "product"),
        ("env = '-'", "env"),
        ("user_id = X'FF'", "user_id"),
        ("confirmed = 2", "confirmed"),
        ("ended_at = 1", "ended_reason"),
        ("ended_reason = 'idle'", "ended_at"),
        ("ended_at = 1, ended_reason = 'bored'", "ended_reason"),
        ("expires_at = 253402207200001", "expires_at"),
        ("auth = '{}'", "auth"),
        ("client = '{\"x\":1}'", "client"),
        ("claims = '[]'", "claims"),
        ("data = '{'", "data"),
    ] {
        server.sql(database, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT * FROM sessions");
        server.sql(database, &format!("UPDATE sessions SET {damage}"));
        let expected = StoreError::Corrupt { table: "sessions", column, id: id.clone() };
        assert_eq!(store.session(session.id).await, Err(expected.clone()), "{damage}");
        assert_eq!(store.end(end_of(&session, at(1), EndReason::Revoked)).await, Err(expected), "{damage}");
        server.sql(database, "SET foreign_key_checks = 0; REPLACE INTO sessions SELECT * FROM kept");
    }
    assert_eq!(row(&*store, session.id).await, session);

    for (damage, column) in [("kind = 'x'", "kind"), ("outcome = 'x'", "outcome"), ("rest = '[]'", "rest")] {
        server.sql(database, &format!("UPDATE events SET {damage}"));
        let told = store.events(events_of(session.id)).await;
        assert!(
            matches!(&told, Err(StoreError::Corrupt { table: "events", column: c, .. }) if *c == column),
            "{told:?}"
        );
        server.sql(database, "UPDATE events SET kind = 'session.start', outcome = NULL");
    }
    server.sql(database, "UPDATE definition_versions SET definition = '{}'");
    let told = store.scope(&scope()).await.map(drop);
    assert!(
        matches!(told, Err(StoreError::Corrupt { table: "definition_versions", column: "definition", .. })),
        "{told:?}"
    );
    server.sql(database, "DELETE FROM definition_versions");
    let told = store.products().await.map(drop);
    assert!(matches!(told, Err(StoreError::Corrupt { table: "definition_versions", .. })), "{told:?}");
    server.sql(database, "DELETE FROM config");
    assert!(matches!(store.config_version().await, Err(StoreError::Corrupt { table: "config", .. })));
}

/// Asks everything that is asked more often than once in a while.
async fn ask_all(store: &MysqlStore) {
    let mut first = start(store, session("user 7")).await;
    let previous = start(store, session("user 8")).await;
    let start = Start {
        idempotency: Some(Idempotency { key: [1; 32], request: [1; 32], expires_at: at(60) }),
        max_sessions: Some((1_000, rekindle::definition::OnMaxSessions::Reject)),
        ..start_of(&Session { previous_session_id: Some(previous.id), ..session("user 8") })
    };
    store.start(start).await.unwrap();
    first = applied(store.advance(advance_of(&first, at(1))).await.unwrap());
    let mut advance = advance_of(&first, at(1));
    advance.event.notify = true;
    first = applied(store.advance(advance).await.unwrap());
    let confirmation = Confirmation { scope: scope(), session_id: first.id, generation: 2 };
    store.confirm(vec![confirmation]).await.unwrap();
    first = applied(store.update(update_of(&first, "{}", at(1))).await.unwrap());
    let event = Event { notify: true, ..event_of(&first, EventKind::Refresh, at(1)) };
    store.record(vec![event]).await.unwrap();
    store.events(events_of(first.id)).await.unwrap();
    for user_id in [None, Some(user("user 7"))] {
        let mut query = sessions_in(scope(), at(1));
        (query.limit, query.user_id, query.active) = (10, user_id, Some(true));
        query.before = Some(first.id);
        store.sessions(query).await.unwrap();
    }
    store.users(UserQuery { scope: scope(), after: Some(user("user 5")), limit: 10, now: at(1) }).await.unwrap();
    store.user(&scope(), &user("user 7"), at(1)).await.unwrap();
    applied(store.end(end_of(&first, at(1), EndReason::Revoked)).await.unwrap());
    let mut many = end_all(at(1));
    (many.limit, many.after) = (3, Some(first.id));
    store.end_many(many).await.unwrap();
    store.end_many(end_all_of("user 9", at(1))).await.unwrap();
    store.ban(ban_of("user 10", at(1))).await.unwrap();
    store.lift_ban(&scope(), &user("user 10"), audit("lift", at(1))).await.unwrap();
    store.erase_user(erase_of("user 11", at(1))).await.unwrap();
    store.revocations(Some(&scope()), 0, at(1), 10).await.unwrap();
    let mut sweep = sweep_at(at(50_000));
    (sweep.budget, sweep.retention) = (5, rekindle::clock::Seconds(1_000_000));
    store.sweep(sweep.clone()).await.unwrap();
    sweep.after = Some(previous.id);
    store.sweep(sweep).await.unwrap();
    store.take_notifications(at(1), at(2), 5).await.unwrap();
    store.settle_notification(rekindle::journal::EventId::from_bytes([0; 16]), Some(at(3))).await.unwrap();
    store.audit_log(None, 10).await.unwrap();
    let key = SigningKey {
        kid: "k".parse().unwrap(),
        scope: scope(),
        algorithm: Algorithm::EdDsa,
        public_jwk: "{}".into(),
        wrapped: vec![1],
        created_at: T0,
        signs_from: T0,
    };
    store.add_signing_key(key, None).await.unwrap();
    store.scope(&scope()).await.unwrap();
    store.change(Change::RevokeApiKey { id: "k".into(), at: T0 }, audit("revoke", T0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_statement_reads_a_whole_table() {
    let server = Mysql::start(&[QUICK.as_slice(), &["log-output=TABLE"]].concat());
    let (store, url) = new_store(&server).await;
    let database = url.rsplit('/').next().unwrap();
    // Enough for the optimiser to care, in two scopes.
    join_all((0..600).map(|i| {
        let store = &store;
        async move {
            let mut new = session(&format!("user {}", i % 60));
            if i % 3 == 0 {
                new.scope = scope_of("shop", "prd");
            }
            let start_it = Start {
                idempotency: Some(Idempotency { key: [(i % 250) as u8; 32], request: [0; 32], expires_at: at(i) }),
                ..start_of(&new)
            };
            store.start(start_it).await.unwrap();
            if i % 5 == 0
                && let Some(row) = store.session(new.id).await.unwrap()
            {
                let mut end = end_of(&row, at(1), EndReason::Revoked);
                end.ending.event.notify = true;
                store.end(end).await.unwrap();
            }
            let mut ban = ban_of(&format!("banned {i}"), at(1));
            ban.ban = Ban { at: at(1), until: Some(at(i)), reason: None };
            store.ban(ban).await.unwrap();
        }
    }))
    .await;
    let tables = "sessions, events, user_locks, idempotency, bans, revocations, outbox, audit";
    server.sql(database, &format!("ANALYZE TABLE {tables}"));
    server.sql("mysql", "SET GLOBAL general_log = 1");
    ask_all(&store).await;
    server.sql("mysql", "SET GLOBAL general_log = 0");
    let log = "SELECT REPLACE(argument, '\\n', ' ') FROM general_log WHERE command_type = 'Query' AND user_host LIKE 'rekindle%'";
    let log = server.sql("mysql", log).replace("\\n", " ");
    let mut looked_at = BTreeSet::new();
    for statement in log.lines().flat_map(|packet| packet.split(';')).map(str::trim) {
        let verb = statement.split(' ').next().unwrap_or_default();
        if !["SELECT", "UPDATE", "DELETE", "REPLACE", "INSERT"].contains(&verb) || statement.contains("@@") {
            continue;
        }
        // Columns: id, select_type, table, type, possible_keys, key, key_len, ref, rows, Extra.
        for step in server.sql(database, &format!("EXPLAIN {statement}")).lines() {
            let columns: Vec<&str> = step.split('\t').collect();
            let (table, access) = (columns[2].trim_start_matches(['`']), columns[3]);
            let large = [
                "sessions",
                "s",
                "events",
                "e",
                "user_locks",
                "idempotency",
                "bans",
                "b",
                "revocations",
                "o",
                "p",
                "outbox",
                "audit",
            ];
            let whole = access == "ALL" || (access == "index" && !statement.contains(" LIMIT "));
            let inserts = ["INSERT", "REPLACE"].contains(&verb) && columns[8] == "NULL";
            assert!(!(large.contains(&table) && whole && !inserts), "{step}\n{statement}");
            assert!(!step.contains("filesort") || !large.contains(&table), "{step}\n{statement}");
            looked_at.insert((verb.to_owned(), table.to_owned()));
        }
    }
    for (verb, table) in [("UPDATE", "sessions"), ("SELECT", "sessions"), ("DELETE", "idempotency"), ("SELECT", "o")] {
        assert!(looked_at.contains(&(verb.into(), table.into())), "{verb} {table}: {looked_at:?}");
    }
}
