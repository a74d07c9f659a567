//! The command line on stores that are servers of their own, and the server on stores that it cannot use.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use rekindle_testkit::servers::mysql::Mysql;
use rekindle_testkit::servers::postgres::Postgres;
use rekindle_testkit::servers::redis::{Cluster, Redis};

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
