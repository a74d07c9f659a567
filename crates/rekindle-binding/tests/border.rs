//! What goes over the border, as a binding sees it.

use proptest::prelude::*;
use rekindle_binding::{Begun, Exchange, Failed, Handle, Host, Outcome, Site, check_web};
use serde_json::{Value, json};
use tempfile::TempDir;

async fn handle() -> (Handle, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = json!({ "data_dir": folder.path().join("data"), "development": true });
    let host = Host::embedded(options).await.unwrap();
    (host.handle("default", "dev", "default").await.unwrap(), folder)
}

/// The problem that something ends with.
fn problem<T>(done: Result<T, Failed>) -> Value {
    let Err(failed) = done else { panic!("it was done") };
    serde_json::from_str(&failed.to_text()).unwrap()
}

#[tokio::test]
async fn a_session_lives_in_json() {
    let (handle, _folder) = handle().await;
    let first =
        handle.start(json!({ "user_id": "alice", "data": { "n": 1 }, "claims": { "role": "x" } })).await.unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (access, id) = (text(&first["access_token"]), text(&first["session"]["id"]));
    for trusted in ["fail-open", "online"] {
        let (handle, access) = (handle.clone(), access.clone());
        let Begun::Done(said) = Begun::new(async move { handle.verify(access, trusted).await }) else {
            panic!("there is nothing to wait for");
        };
        assert_eq!(said.unwrap()["claims"], json!({ "role": "x" }));
    }
    let looked = handle.look(access.clone()).await.unwrap();
    assert_eq!(looked["data"], json!({ "n": 1 }));
    let second = handle.refresh(json!({ "refresh_token": first["refresh_token"] })).await.unwrap();
    assert_eq!(second["session"]["generation"], 1);
    let changed = handle.patch(&id, json!({ "data": { "n": null } })).await.unwrap();
    assert_eq!(changed["data"], json!({}));
    handle.revoke(&id).await.unwrap();
    assert_eq!(problem(handle.verify(access, "online").await)["code"], "session_revoked");
    assert_eq!(handle.sweep().await.unwrap(), 0);
}

#[tokio::test]
async fn work_that_waits_goes_on_where_it_was_begun() {
    let Begun::Done(5) = Begun::new(async { 5 }) else { panic!("there is nothing to wait for") };
    let waiting = async {
        tokio::task::yield_now().await;
        5
    };
    let Begun::Waiting(rest) = Begun::new(waiting) else { panic!("it waits") };
    assert_eq!(rest.await, 5);
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let (handle, folder) = handle().await;
    for wrong in [json!({ "user": "x" }), json!({ "user_id": 5 }), json!([]), json!({ "commitment": "x" })] {
        let said = problem(handle.start(wrong).await);
        assert_eq!(
            (&said["code"], &said["status"], &said["fields"][0]["field"]),
            (&json!("invalid_request"), &json!(400), &json!("start"))
        );
    }
    assert_eq!(problem(handle.read("x").await)["fields"][0]["field"], "session_id");
    assert_eq!(problem(handle.verify("x".into(), "blindly").await)["fields"][0]["field"], "trust");
    assert_eq!(problem(handle.verify("x".into(), "fail-open").await)["code"], "token_malformed");
    let secret = problem(Host::embedded(json!({ "store": "oracle://ada:s3cret@x" })).await);
    assert!(!secret.to_string().contains("s3cret"), "{secret}");
    let Err(Failed::Closed(why)) = Host::embedded(json!({ "data_dir": folder.path().join("none") })).await else {
        panic!("there are no secrets");
    };
    assert!(why.contains("no master secrets"), "{why}");
    assert!(problem(Host::remote(json!({ "servers": [] })))["detail"].as_str().unwrap().contains("api_key"));

    for wrong in [json!({ "cookies": "x" }), json!({ "base": "auth" }), json!({ "trust": "x" }), json!({ "x": 1 })] {
        assert_eq!(problem(check_web(wrong.clone(), None))["code"], "invalid_request", "{wrong}");
    }
    assert_eq!(problem(check_web(json!({}), Some(&[7; 31])))["fields"][0]["field"], "csrf_key");
    check_web(json!({ "development": true }), Some(&[7; 32])).unwrap();
}

#[tokio::test]
async fn a_request_has_its_session() {
    let (handle, _folder) = handle().await;
    let site = handle.site(json!({ "development": true }), None).unwrap();
    let lines = "host: localhost\nsec-fetch-site: same-origin\n";
    let visit = site.exchange("POST", "/login".into(), lines, None).unwrap();
    visit.comes_from("::ffff:192.0.2.7");
    let signed_in = visit.sign_in(json!({ "user_id": "alice" }), true).await.unwrap();
    assert_eq!(signed_in["tokens"]["session"]["client"]["ip"], "192.0.2.7");
    let cookies: Vec<&str> = signed_in["headers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pair| pair[0] == "set-cookie")
        .map(|pair| pair[1].as_str().unwrap().split(';').next().unwrap())
        .collect();
    assert_eq!(cookies.len(), 3, "access, refresh and marker");
    let lines = format!("{lines}cookie: {}\n", cookies.join("; "));
    let visit = site.exchange("GET", "/".into(), &lines, None).unwrap();
    assert!(visit.early().is_none() && !visit.is_route());
    let Outcome::Session(session) = visit.session(None, false).await.unwrap() else { panic!("it is good") };
    assert_eq!(session.user_id(), "alice");
    assert_eq!(visit.headers().len(), 2, "cache-control and vary");

    let stranger = site.exchange("GET", "/".into(), "host: localhost\n", None).unwrap();
    let Outcome::Refusal { answer, absent, code } = stranger.session(None, false).await.unwrap() else {
        panic!("there is none");
    };
    assert_eq!((answer["status"].as_u64(), absent, code), (Some(401), true, "token_malformed"));
    let route = site.exchange("POST", "/auth/session/revoke".into(), &lines, None).unwrap();
    assert!(route.is_route());
    let large = vec![b'x'; Exchange::longest_body() + 1];
    assert_eq!(route.answer(&large).await.unwrap()["status"], 413);
    for (method, lines) in
        [("GE T", "host: x\n"), ("GET", "no header\n"), ("GET", "a\u{0}: x\n"), ("GET", "a: \u{7f}\n")]
    {
        assert_eq!(problem(site.exchange(method, "/".into(), lines, None).map(drop))["code"], "invalid_request");
    }
    assert!(Site::headers().contains(&"cookie"));
}

/// As the workers of an application do, which all start at once.
#[tokio::test(flavor = "multi_thread")]
async fn many_may_define_the_same_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let options = json!({ "data_dir": folder.path().join("data"), "development": true });
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let options = options.clone();
            tokio::spawn(async move {
                let host = Host::embedded(options).await.unwrap();
                let wanted = json!({ "tag": "cart", "access_token": { "lifetime": 60 } });
                host.define("shop", wanted).await.map_err(|failed| failed.to_text())
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
}

proptest! {
    /// Whatever a client sends, it is answered.
    #[test]
    fn no_header_is_too_odd(method in "[A-Z]{1,7}|.{0,4}", path in ".{0,40}", lines in "((cookie|origin|authorization|rekindle-proof|.{0,9}): .{0,60}\n){0,6}") {
        thread_local! {
            static SITE: (Site, tokio::runtime::Runtime, TempDir) = {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let (handle, folder) = runtime.block_on(handle());
                (handle.site(json!({}), None).unwrap(), runtime, folder)
            };
        }
        SITE.with(|(site, runtime, _)| {
            if let Ok(exchange) = site.exchange(&method, path, &lines, None) {
                exchange.comes_from("nowhere");
                exchange.early();
                exchange.headers();
                runtime.block_on(exchange.session(None, true)).unwrap();
            }
        });
    }
}
