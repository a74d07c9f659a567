//! Every command of the command line, once.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::{
    client::Client,
    process::{Dir, Server, fails, ok, run},
};

#[tokio::test]
async fn sessions_are_listed_shown_explained_and_revoked() {
    let dir = Dir::new();
    let server = Server::start(dir.path(), &[]);
    let mut alice = Client::start(&server, "alice", true).await;
    Client::start(&server, "bob\u{1b}[2J", false).await;
    alice.refresh(&server).await;

    let list = ok(dir.path(), &["sessions", "list"]);
    assert!(list.contains(&alice.session) && list.contains("bob\\u{1b}[2J") && !list.contains('\u{1b}'), "{list}");
    let list = ok(dir.path(), &["sessions", "list", "--user", "alice", "--active", "--json"]);
    let session: Value = serde_json::from_str(list.trim()).unwrap();
    assert_eq!((&session["id"], &session["generation"]), (&json!(alice.session), &json!(1)));
    let shown = ok(dir.path(), &["sessions", "show", &alice.session]);
    assert!(shown.contains("binding") && shown.contains("committed"), "{shown}");
    assert!(ok(dir.path(), &["sessions", "explain", &alice.session]).contains("Active at generation 1"));

    ok(dir.path(), &["sessions", "revoke", &alice.session]);
    assert_eq!(alice.try_refresh(&server).await, Some(401));
    let told = ok(dir.path(), &["sessions", "explain", &alice.session, "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["rule"], &told["request"]["actor"]), (&json!("revoked"), &json!("cli")));
    assert!(ok(dir.path(), &["sessions", "list", "--ended"]).contains(&alice.session));
    let none = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert!(fails(dir.path(), &["sessions", "show", none]).contains("there is no session"));
    assert_eq!(run(dir.path(), &["sessions", "show", "x"]).status.code(), Some(2));
    assert!(ok(dir.path(), &["audit"]).contains("session.revoke"));
    assert_eq!(ok(dir.path(), &["audit", "--limit", "1", "--json"]).lines().count(), 1);
    ok(dir.path(), &["sweep"]);
}

#[tokio::test]
async fn keys_are_made_listed_rotated_and_revoked() {
    let dir = Dir::new();
    let server = Server::start(dir.path(), &[]);
    let key = ok(dir.path(), &["api-key", "create", "--name", "reader", "--scope", "read", "--scope", "confirm"]);
    let list = ok(dir.path(), &["api-key", "list"]);
    assert!(list.contains("read,confirm") && list.contains("development") && !list.contains("rkk_"), "{list}");
    let id = list.lines().find(|line| line.contains("reader")).unwrap().split(' ').next().unwrap();
    let ask = async || {
        let url = format!("{}/v1/products", server.base);
        reqwest::Client::new().get(url).bearer_auth(key.trim()).send().await.unwrap().status().as_u16()
    };
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(ask().await, 200);
    ok(dir.path(), &["api-key", "revoke", id]);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(ask().await, 401);
    assert!(fails(dir.path(), &["api-key", "revoke", "key_none"]).contains("there is no API key"));
    assert_eq!(run(dir.path(), &["api-key", "create", "--name", "x", "--scope", "all"]).status.code(), Some(2));

    Client::start(&server, "alice", false).await;
    assert!(ok(dir.path(), &["keys", "list"]).contains("signs"));
    ok(dir.path(), &["keys", "rotate"]);
    assert!(ok(dir.path(), &["keys", "list"]).contains("next"));
    ok(dir.path(), &["keys", "rotate", "--emergency", "--product", "default", "--env", "dev"]);
    assert_eq!(ok(dir.path(), &["keys", "list"]).lines().count(), 2);
    assert!(fails(dir.path(), &["keys", "list", "--product", "none"]).contains("no product"));
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong() {
    let dir = Dir::new();
    assert!(fails(dir.path(), &["doctor", "--dev"]).contains("FAIL  store"));
    let server = Server::start(dir.path(), &[]);
    Client::start(&server, "alice", true).await;
    let said = ok(dir.path(), &["doctor", "--dev"]);
    for part in [
        "OK    configuration",
        "OK    data directory",
        "OK    revocation log: 0 endings",
        "is whole",
        "OK    API keys: 1",
        "OK    clock",
        "OK    secrets",
        "OK    signing keys: those of 1 environments",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(fails(dir.path(), &["doctor"]).contains("FAIL  configuration: issuer: is required"));
    server.stop();

    let secrets = dir.file("rekindle-data/secrets");
    std::fs::write(&secrets, "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n").unwrap();
    std::fs::set_permissions(&secrets, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(dir.file("rekindle-data/revocations.log"), "{\"ended\n{}\n").unwrap();
    let said = fails(dir.path(), &["doctor", "--dev"]);
    for part in [
        "secrets is open to others",
        "FAIL  secrets: secret 1 is not the one",
        "FAIL  signing keys of default/dev",
        "FAIL  revocation log",
        "line 2 is damaged",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(!said.contains("AAECAwQF"), "{said}");
}

#[test]
fn a_command_for_a_store_that_is_not_there_makes_none() {
    let dir = Dir::new();
    let commands: [&[&str]; 7] = [
        &["backup", "--to", "backup.db"],
        &["audit"],
        &["keys", "list"],
        &["sessions", "list"],
        &["sweep"],
        &["api-key", "list"],
        &["api-key", "revoke", "key_none"],
    ];
    for command in commands {
        let said = fails(dir.path(), command);
        assert!(said.contains("there is no store `./rekindle-data/rekindle.db`: set --config"), "{command:?}: {said}");
    }
    let said = fails(dir.path(), &["api-key", "create", "--name", "x", "--scope", "read"]);
    assert_eq!(
        said,
        "error: there are no master secrets `./rekindle-data/secrets`: set --config, or run this where the server runs\n"
    );
    std::fs::write(dir.file("rekindle.toml"), "secrets.file = 'none'").unwrap();
    let said = fails(dir.path(), &["api-key", "create", "--config", "rekindle.toml", "--name", "x", "--scope", "read"]);
    assert_eq!(said, "error: the master secrets `none`: No such file or directory (os error 2)\n");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is made");
}

#[test]
fn configuration_and_description_are_printed() {
    let dir = Dir::new();
    assert!(ok(dir.path(), &["check-config", "--dev"]).contains("listen = \"127.0.0.1:3567\""));
    assert!(fails(dir.path(), &["check-config"]).contains("issuer: is required"));
    let schema: Value = serde_json::from_str(&ok(dir.path(), &["config-schema"])).unwrap();
    assert!(schema["properties"]["listen"].is_object());
    let document: Value = serde_json::from_str(&ok(dir.path(), &["openapi"])).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(ok(dir.path(), &["--version"]).starts_with("rekindle "));
    assert!(!dir.file("rekindle-data").exists(), "none of these makes anything");
}
