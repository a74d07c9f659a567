//! The command line on stores that are servers of their own, and the server on stores that it cannot use.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use std::time::Duration;

use futures_util::future::join_all;
use rekindle::rng::{Rng as _, SystemRng};
use rekindle_testkit::servers::mysql::{self, Mysql};
use rekindle_testkit::servers::postgres::{self, Postgres};
use rekindle_testkit::servers::redis::{Cluster, Redis};
use serde_json::json;

use crate::client::Client;
use crate::process::{Dir, Server, fails, ok, run};

/// A new place on each kind of server.
fn places() -> [String; 4] {
    [
        Postgres::shared().url(&Postgres::shared().new_database()),
        Mysql::shared().url(&Mysql::shared().new_database()),
        Redis::shared().new_url(),
        Cluster::shared().new_url(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_migrated_served_and_looked_over() {
    for url in places() {
        let dir = Dir::new();
        let kind = url.split(':').next().unwrap();
        let store = ["--store", url.as_str()];
        let migrate = |more: &[&str]| ok(dir.path(), &[&["migrate"], &store[..], more].concat());
        for _ in 0..2 {
            assert_eq!(migrate(&["--dry-run"]), "1 (initial)\n", "{kind}");
        }
        assert_eq!(migrate(&[]), "1 (initial)\n", "{kind}");
        assert_eq!(migrate(&["--dry-run"]) + &migrate(&[]), "", "{kind}");

        let server = Server::start(dir.path(), &store);
        Client::start(&server, "alice", true).await;
        let said = run(dir.path(), &[&["doctor", "--dev"], &store[..]].concat());
        let said = String::from_utf8(said.stdout).unwrap();
        // The servers are set to be quick, which the doctor sees: what it says of durability is theirs.
        for part in [
            "OK    revocation log",
            "OK    API keys: 1",
            "OK    secrets",
            "OK    signing keys: those of 1 environments",
        ] {
            assert!(said.contains(part), "{kind}: {part} is not in {said}");
        }
        let listed = ok(dir.path(), &[&["sessions", "list"], &store[..]].concat());
        assert!(listed.contains("alice"), "{kind}: {listed}");
        assert!(server.stop().success());
    }
}

#[test]
fn a_store_that_cannot_be_used_is_named_without_its_password() {
    let refused = |url: &str, expected: &[&str]| {
        let dir = Dir::new();
        let said = fails(dir.path(), &["serve", "--dev", "--listen", "127.0.0.1:0", "--store", url]);
        let last = said.lines().last().unwrap_or_default();
        for part in expected {
            assert!(last.contains(part), "{part} is not in {said}");
        }
        assert!(!said.contains("s3cret"), "{said}");
    };
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (scheme, database) in [("postgres", "x"), ("mysql", "x"), ("redis", ""), ("redis+cluster", "")] {
        let port = nobody.to_string();
        refused(&format!("{scheme}://ada:s3cret@127.0.0.1:{nobody}/{database}"), &["error: ", &port, "check"]);
    }
    let (postgres, mysql, redis) = (Postgres::shared().port(), Mysql::shared().port(), Redis::shared().port());
    refused(&format!("postgres://ada:s3cret@127.0.0.1:{postgres}/x"), &["error: "]);
    refused(&format!("mysql://ada:s3cret@127.0.0.1:{mysql}/x"), &["user", "check"]);
    refused(&format!("redis://ada:s3cret@127.0.0.1:{redis}/0"), &["login", "check"]);
    for url in
        ["mongodb://ada:s3cret@127.0.0.1/x", "postgres://ada:s3cret@127.0.0.1:x/", "redis://ada:s3cret@127.0.0.1/?z=1"]
    {
        refused(url, &["store"]);
    }
}

/// Starts sessions with so many bytes of data until the store takes no more; then makes room.
async fn filled(url: &str, bytes: usize, make_room: impl FnOnce()) {
    let dir = Dir::new();
    let server = Server::start(dir.path(), &["--store", url]);
    let kind = url.split(':').next().unwrap();
    let mut alice = Client::start(&server, "alice", true).await;
    let start = async || {
        // What is not random would be compressed.
        let mut random = vec![0; bytes / 2];
        SystemRng::default().fill(&mut random);
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        server.post("sessions", json!({ "user_id": "filler", "data": { "text": text } })).await
    };
    let mut started = 0;
    let refused = loop {
        let answers = join_all((0..16).map(|_| start())).await;
        let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(status, _)| *status == 201);
        started += made.len();
        if !refused.is_empty() {
            break refused;
        }
        assert!(started < 50_000, "{kind}: the store is not full");
    };
    for (status, answer) in refused {
        assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{kind}: {answer}");
    }
    let (status, read) = server.ask("GET", &format!("sessions/{}", alice.session), None).await;
    assert_eq!((status, &read["state"]), (200, &json!("active")), "{kind}: {read}");
    assert!(matches!(alice.try_refresh(&server).await, Some(200 | 503)), "{kind}");

    make_room();
    let mut waits = 0;
    while start().await.0 != 201 {
        waits += 1;
        assert!(waits < 300, "{kind}: there is room, and still nothing starts");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    alice.refresh(&server).await;
    assert!(server.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_answers_503_and_goes_on_without_a_restart_when_there_is_room() {
    let postgres = Postgres::with_small_disk(24 << 20);
    let database = postgres.new_database();
    postgres.sql("postgres", &format!("ALTER DATABASE {database} SET TABLESPACE {}", postgres::SMALL));
    let rows = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)";
    postgres.sql("postgres", &format!("CREATE TABLE ballast TABLESPACE {} AS {rows}", postgres::SMALL));
    filled(&postgres.url(&database), 60_000, || drop(postgres.sql("postgres", "DROP TABLE ballast"))).await;

    // What is full are the tables, and not what the server needs to take a write back.
    let tiny = [
        "innodb-file-per-table=0",
        "innodb-data-file-path=ibdata1:12M:autoextend:max:32M",
        "innodb-undo-tablespaces=3",
    ];
    let mariadb = Mysql::start(&[mysql::QUICK.as_slice(), &tiny].concat());
    let database = mariadb.new_database();
    let url = mariadb.url(&database);
    filled(&url, 5_000, || drop(mariadb.sql(&database, "DELETE FROM sessions WHERE user_id = 'filler'"))).await;

    let redis = Redis::with_small_disk(16 << 20);
    // With `appendfsync always`, Redis would end here, which is an outage like any other.
    filled(&redis.new_url(), 60_000, || drop(redis.cli(&["CONFIG", "SET", "appendonly", "no"]))).await;
}

#[test]
fn a_copy_is_refused_where_it_would_do_harm() {
    let dir = Dir::new();
    let copy = |from: &str, to: &str, more: &[&str]| {
        fails(dir.path(), &[&["copy", "--from", from, "--to", to], more].concat())
    };
    let said = copy("sqlite:nothing.db", "sqlite:new.db", &[]);
    assert!(said.contains("sqlite:nothing.db is empty, or older") && !dir.file("new.db").exists(), "{said}");
    assert!(copy("sqlite:a.db", "sqlite:a.db", &[]).contains("the same store"));
    assert!(copy("sqlite:a.db", "oracle:x", &[]).contains("--to: must begin with"));

    let server = Server::start(dir.path(), &[]);
    let old = "sqlite:rekindle-data/rekindle.db";
    ok(dir.path(), &["copy", "--from", old, "--to", "sqlite:new.db"]);
    let said = copy(old, "sqlite:new.db", &["--finish"]);
    assert!(said.contains("--from") && said.contains("stop it first"), "{said}");
    assert!(server.stop().success());
    let finished = ok(dir.path(), &["copy", "--from", old, "--to", "sqlite:new.db", "--finish"]);
    assert!(finished.contains("sha-256") && finished.contains("configuration: the same"), "{finished}");
    let mode = std::fs::metadata(dir.file("new.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else may read it");

    assert!(copy(old, "sqlite:new.db", &[]).contains("was finished at"));
    let said = fails(dir.path(), &["serve", "--dev", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("this store was copied") && said.contains("--reopen"), "{said}");
    ok(dir.path(), &["copy", "--from", old, "--to", "sqlite:new.db", "--reopen"]);
    assert!(Server::start(dir.path(), &[]).stop().success());
    assert!(Server::start(dir.path(), &["--store", "sqlite:new.db"]).stop().success());
}
