//! The real binary: started, spoken to, killed, restored, and asked by its command line.

mod cli;
mod client;
mod import;
mod process;
mod stores;
mod webhooks;

use std::{
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use client::Client;
use process::{Dir, Server, fails, ok, rekindle};
use serde_json::json;

#[tokio::test]
async fn the_printed_lines_start_refresh_and_steal_a_session() {
    let dir = Dir::new();
    let server = Server::start(dir.path(), &[]);
    let script = server.lines.clone() + "echo \"$RT0 $RT1 $RT2\"\n";
    let output = Command::new("sh").arg("-eu").arg("-c").arg(&script).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = said.lines().collect();
    let [theft, over, tokens] = lines.as_slice() else { panic!("{said}") };
    assert!(theft.contains("\"code\":\"token_theft_detected\""), "{theft}");
    assert!(over.contains("\"code\":\"session_revoked\""), "{over}");
    let tokens: Vec<&str> = tokens.split(' ').collect();
    assert!(tokens.len() == 3 && tokens.iter().all(|t| t.starts_with("rkr_")), "{tokens:?}");
}

#[tokio::test]
async fn a_restart_keeps_key_and_sessions_and_a_stop_lets_requests_finish() {
    let dir = Dir::new();
    let server = Server::start(dir.path(), &[]);
    let (key, mut committed) = (server.key.clone(), Client::start(&server, "alice", true).await);
    let mut bearer = Client::start(&server, "bob", false).await;
    committed.refresh(&server).await;
    bearer.refresh(&server).await;
    // A request whose body is still on its way when the signal comes.
    let body = bearer.request().to_string();
    let address = server.base.strip_prefix("http://").unwrap().to_owned();
    let mut slow = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /v1/default/dev/sessions/refresh HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    slow.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    slow.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(server.stop().success());

    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.key, key);
    // Its answer of before was lost to it: the same request again.
    bearer.refresh(&server).await;
    assert_eq!(bearer.generation, 2);
    committed.refresh(&server).await;
    let private =
        ["secrets", "dev-api-key", "rekindle.db", "rekindle.db.lock", "revocations.log", "revocations.log.lock"];
    for (name, mode) in [("", 0o700)].into_iter().chain(private.map(|name| (name, 0o600))) {
        let meta = std::fs::metadata(dir.file("rekindle-data").join(name)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_under_load_loses_nothing_acknowledged_and_logs_nobody_out() {
    let dir = Dir::new();
    let mut clients = Vec::new();
    {
        let server = Server::start(dir.path(), &[]);
        for i in 0..8 {
            clients.push(Client::start(&server, &format!("user-{i}"), i % 2 == 0).await);
        }
        assert!(server.stop().success());
    }
    for round in 0..3u64 {
        let server = Arc::new(Server::start(dir.path(), &[]));
        let stop = Arc::new(AtomicBool::new(false));
        let work = clients.drain(..).map(|mut client| {
            let (server, stop) = (server.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match client.try_refresh(&server).await {
                        Some(status) => assert_eq!(status, 200),
                        None => break,
                    }
                }
                client
            })
        });
        let work: Vec<_> = work.collect();
        tokio::time::sleep(Duration::from_millis(400 + 150 * round)).await;
        server.signal("KILL");
        stop.store(true, Ordering::Relaxed);
        for client in work {
            clients.push(client.await.unwrap());
        }
        drop(server);
        let server = Server::start(dir.path(), &[]);
        for client in &mut clients {
            let (status, session) = server.ask("GET", &format!("sessions/{}", client.session), None).await;
            assert_eq!((status, &session["state"]), (200, &json!("active")));
            assert!(session["generation"].as_u64().unwrap() >= client.generation, "an acknowledged refresh is lost");
            let before = client.generation;
            client.refresh(&server).await;
            assert_eq!(client.generation, before + 1);
        }
        assert!(server.stop().success());
    }
    assert!(clients.iter().all(|client| client.generation > 3));
}

#[tokio::test]
async fn two_servers_on_one_file_serve_in_turns() {
    let dir = Dir::new();
    let servers = [Server::start(dir.path(), &[]), Server::start(dir.path(), &[])];
    assert_eq!(servers[0].key, servers[1].key);
    let mut clients = [Client::start(&servers[0], "alice", true).await, Client::start(&servers[1], "bob", false).await];
    for turn in 0..10 {
        for client in &mut clients {
            client.refresh(&servers[turn % 2]).await;
        }
    }
    // An ending by one server is kept by the other, and by the log that both write.
    let (status, _) = servers[0].ask("DELETE", &format!("sessions/{}", clients[0].session), None).await;
    assert_eq!(status, 204);
    assert_eq!(clients[0].try_refresh(&servers[1]).await, Some(401));
    let (status, _) = servers[1].ask("DELETE", &format!("sessions/{}", clients[1].session), None).await;
    assert_eq!(status, 204);
    let log = std::fs::read_to_string(dir.file("rekindle-data/revocations.log")).unwrap();
    assert!(clients.iter().all(|client| log.contains(&client.session)), "{log}");
}

#[tokio::test]
async fn a_restored_backup_logs_no_honest_client_out_and_revives_nobody() {
    let dir = Dir::new();
    let server = Server::start(dir.path(), &[]);
    let mut alice = Client::start(&server, "alice", true).await;
    let mut bob = Client::start(&server, "bob", false).await;
    let mut carol = Client::start(&server, "carol", true).await;
    alice.refresh(&server).await;
    ok(dir.path(), &["backup", "--to", "backup.db"]);
    assert!(fails(dir.path(), &["backup", "--to", "backup.db"]).contains("exists"));
    let mode = std::fs::metadata(dir.file("backup.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for client in [&mut alice, &mut bob, &mut carol] {
        for _ in 0..3 {
            client.refresh(&server).await;
        }
    }
    let (status, _) = server.ask("DELETE", &format!("sessions/{}", carol.session), None).await;
    assert_eq!(status, 204);
    assert!(fails(dir.path(), &["restore", "--from", "backup.db"]).contains("stop it first"));
    assert!(server.stop().success());
    std::fs::write(dir.file("junk"), "not a database, but longer than nothing").unwrap();
    assert!(fails(dir.path(), &["restore", "--from", "junk"]).contains("not a Rekindle database"));
    let said = rekindle(dir.path(), &["restore", "--from", "backup.db"]).output().unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("is restored") && said.contains("1 endings"), "{said}");

    let server = Server::start(dir.path(), &[]);
    alice.refresh(&server).await;
    bob.refresh(&server).await;
    assert_eq!((alice.generation, bob.generation), (5, 4));
    let (status, answer) = server.post("sessions/refresh", carol.request()).await;
    assert_eq!((status, &answer["code"]), (401, &json!("session_revoked")));
    let kept = std::fs::read_dir(dir.file("rekindle-data")).unwrap();
    assert!(kept.into_iter().any(|e| e.unwrap().file_name().to_string_lossy().contains("replaced-")));
    assert!(server.stop().success());
}

#[tokio::test]
async fn a_restore_can_end_what_was_refreshed_since() {
    let dir = Dir::new();
    let server = Server::start(dir.path(), &[]);
    let mut quiet = Client::start(&server, "alice", true).await;
    let mut busy = Client::start(&server, "bob", true).await;
    ok(dir.path(), &["backup", "--to", "backup.db"]);
    let since = now(&server).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    busy.refresh(&server).await;
    assert!(server.stop().success());
    ok(dir.path(), &["restore", "--from", "backup.db", "--end-refreshed-since", &since]);
    let server = Server::start(dir.path(), &[]);
    quiet.refresh(&server).await;
    assert_eq!(busy.try_refresh(&server).await, Some(401));
}

/// The server's present moment, from an answer of its own.
async fn now(server: &Server) -> String {
    let (_, answer) = server.post("sessions", json!({ "user_id": "clock" })).await;
    answer["session"]["created_at"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn production_refuses_weak_settings_and_lists_all_of_them() {
    let dir = Dir::new();
    let said = fails(dir.path(), &["serve"]);
    for part in ["issuer: is required", "secrets: are required", "no API key", "serve --dev"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(!dir.file("rekindle-data").exists(), "a refused start leaves nothing behind");
    let weak =
        "listen = '0.0.0.0:0'\nissuer = 'http://s.example'\nlimits.requests_per_second = 0\nkeys.rotate_every = '1y'";
    std::fs::write(dir.file("weak.toml"), weak).unwrap();
    let said = fails(dir.path(), &["serve", "--config", "weak.toml"]);
    for part in ["keys.rotate_every = ", "issuer = http", "secrets: "] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    std::fs::write(dir.file("weak.toml"), weak.replace("keys.rotate_every = '1y'", "")).unwrap();
    let said = fails(dir.path(), &["serve", "--config", "weak.toml"]);
    for part in ["issuer = http", "listen = 0.0.0.0", "secrets: ", "limits.requests_per_second", "no API key"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[tokio::test]
async fn a_careful_production_server_starts_once_there_is_a_key() {
    let dir = Dir::new();
    let secret = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";
    std::fs::write(dir.file("secrets"), secret).unwrap();
    std::fs::set_permissions(dir.file("secrets"), PermissionsExt::from_mode(0o600)).unwrap();
    let config = "listen = '127.0.0.1:0'\nissuer = 'https://s.example'\n[secrets]\nfile = 'secrets'\n\
                  [metrics]\nlisten = '127.0.0.1:0'";
    std::fs::write(dir.file("rekindle.toml"), config).unwrap();
    std::fs::set_permissions(dir.file("rekindle.toml"), PermissionsExt::from_mode(0o600)).unwrap();
    assert!(fails(dir.path(), &["serve", "--config", "rekindle.toml"]).contains("no API key"));
    let key = ok(dir.path(), &["api-key", "create", "--config", "rekindle.toml", "--name", "b", "--scope", "sessions"]);
    assert!(key.starts_with("rkk_"));
    let mut child = rekindle(dir.path(), &["serve", "--config", "rekindle.toml"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    use std::io::BufRead;
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let base = line.trim().strip_prefix("Listening on ").unwrap().to_owned();
    let url = format!("{base}/v1/default/dev/sessions");
    let answer = reqwest::Client::new().post(url).bearer_auth(key.trim()).json(&json!({})).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success() && child.wait().unwrap().success());
}
