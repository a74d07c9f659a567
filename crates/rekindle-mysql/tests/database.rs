//! The database: what is made, migrated, refused and shared; that no damaged row is ever guessed at; that no statement reads all.

mod common;

use std::collections::BTreeSet;

use common::{new_store, open};
use futures_util::future::join_all;
use rekindle::clock::Timestamp;
use rekindle::journal::{Event, EventId, EventKind};
use rekindle::keys::{Algorithm, SigningKey};
use rekindle::memory::MemoryStore;
use rekindle::session::{EndReason, Session, SessionId};
use rekindle::store::*;
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

/// Of every section, and of the configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_is_corrupt() {
    let server = Mysql::shared();
    let (store, url) = new_store(server).await;
    let database = url.rsplit('/').next().unwrap();
    let session = session("ada");
    let idempotency =
        Some(Idempotency { key: *b"a key of thirty-two letters, yes", request: [8; 32], expires_at: at(60) });
    store.start(Start { idempotency, ..start_of(&session) }).await.unwrap();
    let mut end = end_of(&session, at(1), EndReason::Revoked);
    end.ending.event.notify = true;
    applied(store.end(end).await.unwrap());
    store.ban(ban_of("eve", at(2))).await.unwrap();
    store.append_audit(audit("looked", at(3))).await.unwrap();
    let first = |section| store.records(section, None, 1);
    for (section, table, damage, column) in [
        (Section::Sessions, "sessions", "tag = 'No Tag'", "tag"),
        (Section::Sessions, "idempotency", "expires_at = 253402207200001", "expires_at"),
        (Section::Bans, "bans", "env = '-'", "env"),
        (Section::Bans, "bans", "banned_at = -1, banned_until = 253402207200001", "banned_until"),
        (Section::Revocations, "revocations", "reason = 'bored'", "reason"),
        (Section::Notifications, "outbox", "event = '{}'", "event"),
        (Section::Audit, "audit", "at = 253402207200001", "at"),
    ] {
        let before = first(section).await.unwrap();
        server.sql(database, &format!("DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT * FROM {table}"));
        server.sql(database, &format!("UPDATE {table} SET {damage}"));
        let id = match (table, before[0].key()) {
            ("idempotency", _) => "a key of thirty-two letters, yes".to_owned(),
            (_, RecordKey::Session(id)) => id.to_string(),
            (_, RecordKey::Ban(_, user_id)) => user_id.as_str().to_owned(),
            (_, RecordKey::Revocation(seq)) => seq.to_string(),
            (_, RecordKey::Notification(id) | RecordKey::Audit(id)) => id.to_string(),
        };
        assert_eq!(first(section).await, Err(StoreError::Corrupt { table, column, id }), "{damage}");
        server.sql(database, &format!("SET foreign_key_checks = 0; DELETE FROM {table}"));
        server.sql(database, &format!("SET foreign_key_checks = 0; INSERT INTO {table} SELECT * FROM kept"));
        assert_eq!(first(section).await.unwrap(), before);
    }
    server.sql(database, "UPDATE events SET kind = 'x'");
    let told = store.events_after(vec![(session.id, None)]).await;
    assert!(matches!(&told, Err(StoreError::Corrupt { table: "events", column: "kind", .. })), "{told:?}");
    for (damage, table, column, id) in [
        ("definitions SET present_version = 9", "definitions", "present_version", "default"),
        ("definition_versions SET definition = '{}'", "definition_versions", "definition", "default"),
        ("config SET id = 2", "config", "id", "1"),
    ] {
        server.sql(database, &format!("UPDATE {damage}"));
        let told = store.configuration().await.err();
        assert_eq!(told, Some(StoreError::Corrupt { table, column, id: id.into() }), "{damage}");
    }
}

/// `/` follows a product in the text of a scope, and `-`, which a longer product goes on with, is less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bans_come_in_the_order_of_their_keys() {
    let (store, _url) = new_store(Mysql::shared()).await;
    let memory = MemoryStore::new();
    let mut bans = Vec::new();
    for product in ["shop", "shop-x", "shop_x", "shop0", "shops", "a"] {
        for env in ["dev", "dev-2", "dev0", "a"] {
            for name in ["", "a", "A", "a\u{0}", "a\u{0}b", "a ", "\u{1F980}", "'%"] {
                let ban = Ban { at: at(1), until: None, reason: Some(name.into()) };
                bans.push(Record::Ban(StoredBan { scope: scope_of(product, env), user_id: user(name), ban }));
            }
        }
    }
    memory.put(bans.clone(), Vec::new()).await.unwrap();
    store.put(bans, Vec::new()).await.unwrap();
    let all = memory.records(Section::Bans, None, u32::MAX).await.unwrap();
    assert_eq!(store.records(Section::Bans, None, u32::MAX).await.unwrap(), all);
    for after in &all {
        let expected = memory.records(Section::Bans, Some(after.key()), 11).await;
        assert_eq!(store.records(Section::Bans, Some(after.key()), 11).await, expected, "{after:?}");
    }
    let gone = RecordKey::Ban(scope_of("shop-a", "z"), user("z"));
    let expected = memory.records(Section::Bans, Some(gone.clone()), 11).await;
    assert_eq!(store.records(Section::Bans, Some(gone), 11).await, expected);
}

fn stored(session: &Session, idempotency: Option<Idempotency>) -> Record {
    Record::Session(Box::new(StoredSession { session: session.clone(), idempotency, events: Held::default() }))
}

/// Together they are longer than what the server takes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_sessions_are_put_together() {
    let server = Mysql::shared();
    let (store, _url) = new_store(server).await;
    let data = object(&format!(r#"{{"text":"{}"}}"#, "x".repeat(64 << 10)));
    let new = |_| stored(&Session { data: data.clone(), ..session("ada") }, None);
    let sessions: Vec<Record> = (0..400).map(new).collect();
    let most: usize = server.sql("mysql", "SELECT @@max_allowed_packet").parse().unwrap();
    assert!(sessions.len() * data.as_str().len() > most);
    store.put(sessions.clone(), Vec::new()).await.unwrap();
    let mut there: Vec<Record> = Vec::new();
    loop {
        let page = store.records(Section::Sessions, there.last().map(Record::key), 1_000).await.unwrap();
        if page.is_empty() {
            break;
        }
        there.extend(page);
    }
    assert_eq!(there, sessions);
    store.remove(sessions.iter().map(Record::key).collect()).await.unwrap();
    assert_eq!(store.count(Section::Sessions).await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_put_has_the_idempotency_that_it_is_given() {
    let server = Mysql::shared();
    let (store, url) = new_store(server).await;
    let key = |n: u8, expires| Some(Idempotency { key: [n; 32], request: [n; 32], expires_at: at(expires) });
    let (one, other) = (session("ada"), session("ada"));
    let there = || async { store.records(Section::Sessions, None, 10).await.unwrap() };
    for (of_one, of_other) in [(key(1, 9), key(2, 9)), (key(3, 9), None), (None, key(3, 10)), (key(3, 8), key(4, 9))] {
        let wanted = vec![stored(&one, of_one), stored(&other, of_other)];
        store.put(wanted.clone(), Vec::new()).await.unwrap();
        assert_eq!(there().await, wanted);
    }
    // The other one's key, which is the first one's now, is left to it.
    store.put(vec![stored(&one, key(4, 9))], Vec::new()).await.unwrap();
    assert_eq!(there().await, [stored(&one, key(4, 9)), stored(&other, None)]);

    let database = url.rsplit('/').next().unwrap();
    for (letter, expires) in [("x", 11), ("y", 12), ("z", 11)] {
        let copied = "INSERT INTO idempotency SELECT product, env, REPEAT";
        let expires = at(expires).millis();
        server.sql(
            database,
            &format!("{copied}('{letter}', 32), request, session_id, {expires} FROM idempotency LIMIT 1"),
        );
    }
    let known = Idempotency { key: [b'y'; 32], request: [4; 32], expires_at: at(12) };
    assert_eq!(there().await[0], stored(&one, Some(known)), "the one that holds longest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_come_later_come_after_those_that_were_put() {
    let (store, _url) = new_store(Mysql::shared()).await;
    let signing_key = |kid: &str| SigningKey { kid: kid.parse().unwrap(), ..some_signing_key() };
    let api_key = |id: &str| ApiKey {
        id: id.into(),
        name: "backend".into(),
        hash: [id.as_bytes()[0]; 32],
        permissions: vec![Permission::Read],
        created_at: T0,
        revoked_at: None,
    };
    let mut configuration = store.configuration().await.unwrap();
    configuration.signing_keys = ["d", "a", "c", "b"].map(signing_key).into();
    configuration.api_keys = ["d", "a", "c"].map(api_key).into();
    store.set_configuration(configuration.clone()).await.unwrap();
    assert!(store.add_signing_key(signing_key("0"), Some("d".parse().unwrap())).await.unwrap());
    let change = Change::CreateApiKey(api_key("0"));
    assert_eq!(store.change(change, audit("create", T0)).await, Ok(Changed::Done));
    configuration.signing_keys.push(signing_key("0"));
    configuration.api_keys.push(api_key("0"));
    configuration.version = store.config_version().await.unwrap();
    assert!(store.configuration().await.unwrap() == configuration);
}

fn some_signing_key() -> SigningKey {
    SigningKey {
        kid: "k".parse().unwrap(),
        scope: scope(),
        chain: Algorithm::EdDsa.into(),
        public_jwk: "{}".into(),
        wrapped: vec![1],
        created_at: T0,
        signs_from: T0,
    }
}

/// Of more than it counts, the server's estimate is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_table_is_not_counted() {
    let server = Mysql::shared();
    let (store, url) = new_store(server).await;
    let database = url.rsplit('/').next().unwrap();
    server.sql(
        database,
        "INSERT INTO audit SELECT UNHEX(LPAD(HEX(seq), 32, '0')), 0, '', '', '', NULL, NULL FROM seq_1_to_300000",
    );
    server.sql(database, "ANALYZE TABLE audit");
    let count = store.count(Section::Audit).await.unwrap();
    assert!((200_000..400_000).contains(&count), "{count}");
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
    store.settle_notification(EventId::from_bytes([0; 16]), Some(at(3))).await.unwrap();
    store.audit_log(None, 10).await.unwrap();
    store.add_signing_key(some_signing_key(), None).await.unwrap();
    store.scope(&scope()).await.unwrap();
    store.change(Change::RevokeApiKey { id: "k".into(), at: T0 }, audit("revoke", T0)).await.unwrap();
}

/// Reads page after page, and puts and removes what is in the first one.
async fn carry_all(store: &MysqlStore) {
    for section in Section::ALL {
        store.count(section).await.unwrap();
        let page = store.records(section, None, 5).await.unwrap();
        let ids: Vec<(SessionId, Option<EventId>)> = page
            .iter()
            .filter_map(|r| {
                if let Record::Session(stored) = r { Some((stored.session.id, stored.events.last)) } else { None }
            })
            .collect();
        let events = store.events_after(ids.iter().map(|(id, _)| (*id, None)).collect()).await.unwrap();
        assert_eq!(store.events_after(ids).await.unwrap(), []);
        let last = page.last().map(Record::key);
        store.records(section, last, 5).await.unwrap();
        store.put(page.clone(), events).await.unwrap();
        store.remove(page.iter().map(Record::key).collect()).await.unwrap();
    }
    let configuration = store.configuration().await.unwrap();
    store.set_configuration(configuration).await.unwrap();
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
    carry_all(&store).await;
    let mut looked_at = plans(&server, database);
    server.sql("mysql", "SET GLOBAL general_log = 1");
    ask_all(&store).await;
    looked_at.extend(plans(&server, database));
    for (verb, table) in [
        ("UPDATE", "sessions"),
        ("SELECT", "sessions"),
        ("SELECT", "events"),
        ("SELECT", "bans"),
        ("SELECT", "idempotency"),
        ("DELETE", "idempotency"),
        ("SELECT", "o"),
    ] {
        assert!(looked_at.contains(&(verb.into(), table.into())), "{verb} {table}: {looked_at:?}");
    }
}

/// Looks at how each statement that was logged is carried out: which verbs, on which tables.
fn plans(server: &Mysql, database: &str) -> BTreeSet<(String, String)> {
    server.sql("mysql", "SET GLOBAL general_log = 0");
    let log = "SELECT REPLACE(argument, '\\n', ' ') FROM general_log WHERE command_type = 'Query' AND user_host LIKE 'rekindle%'";
    let log = server.sql("mysql", log).replace("\\n", " ");
    server.sql("mysql", "TRUNCATE general_log");
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
    looked_at
}
