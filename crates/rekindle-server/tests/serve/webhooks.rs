//! Webhooks, delivered to a receiver in this process.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use rekindle::clock::{Clock, Seconds, SystemClock};
use rekindle_server::{
    config::{Config, Secret},
    http::Listener,
    webhook,
};
use serde_json::Value;

use crate::{
    client::Client,
    process::{Dir, Server, fails, ok},
};

const SECRET: &str = "a text of at least thirty-two bytes";

/// What came in, and how many events are to be answered 503 first.
#[derive(Default)]
struct Received {
    events: Mutex<Vec<Value>>,
    refusals: Mutex<usize>,
}

/// A receiver that answers 503 so many times first; its URL.
async fn receiver(refusals: usize) -> (String, Arc<Received>) {
    let received = Arc::new(Received { refusals: Mutex::new(refusals), ..Received::default() });
    let kept = received.clone();
    let accept = move |headers: HeaderMap, body: Bytes| async move {
        let signature = headers[webhook::SIGNATURE].to_str().unwrap();
        let now = SystemClock.now();
        webhook::verify(&Secret::from(SECRET.to_owned()), signature, &body, now, Seconds(60)).unwrap();
        let event: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(event["id"], headers[webhook::EVENT_ID].to_str().unwrap());
        let mut refusals = kept.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        kept.events.lock().unwrap().push(event);
        StatusCode::NO_CONTENT
    };
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(any, &Config::default(), Default::default()).await.unwrap();
    let address = listener.address().unwrap();
    tokio::spawn(listener.serve(Router::new().route("/hook", post(accept)), Default::default()));
    (format!("http://{address}/hook"), received)
}

impl Received {
    /// The events once there are `n` of them.
    async fn events(&self, n: usize) -> Vec<Value> {
        for _ in 0..600 {
            let events = self.events.lock().unwrap().clone();
            if events.len() >= n {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("only {:?} arrived", self.events.lock().unwrap());
    }
}

fn config(hooks: &[(&str, &str)]) -> String {
    hooks
        .iter()
        .map(|(url, events)| {
            format!("[[webhooks]]\nproduct = 'default'\nurl = '{url}'\nevents = [{events}]\nsecret = '{SECRET}'\n")
        })
        .collect()
}

#[tokio::test]
async fn events_arrive_signed_in_order_and_again_after_a_failure() {
    let dir = Dir::new();
    let (moody, at_moody) = receiver(1).await;
    let (calm, at_calm) = receiver(0).await;
    let all = "'session.started', 'session.ended', 'session.theft_detected', 'user.banned'";
    std::fs::write(dir.file("c.toml"), config(&[(&moody, all), (&calm, "'session.started'")])).unwrap();
    let server = Server::start(dir.path(), &["--config", "c.toml"]);
    let client = Client::start(&server, "alice", true).await;
    let (status, _) = server.ask("DELETE", &format!("sessions/{}", client.session), None).await;
    assert_eq!(status, 204);
    let events = at_moody.events(2).await;
    let told = |event: &Value| {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        [text("type"), text("session_id"), text("user_id"), text("product"), text("env")]
    };
    let expected = |kind: &str| [kind, &client.session, "alice", "default", "dev"].map(str::to_owned);
    assert_eq!(told(&events[0]), expected("session.started"));
    assert_eq!(told(&events[1]), expected("session.ended"));
    assert_eq!(events[1]["reason"], "revoked");
    assert!(events[0].get("kind").is_none() && events[0]["at"].is_string());
    assert_eq!(at_calm.events(1).await.len(), 1, "who has an event is not told again when another one fails");

    let ban = serde_json::json!({ "reason": "test" });
    assert!(server.ask("PUT", "users/bob/ban", Some(&ban)).await.0 < 300);
    let banned = at_moody.events(3).await.pop().unwrap();
    assert_eq!((banned["type"].as_str(), banned["user_id"].as_str()), (Some("user.banned"), Some("bob")));
    assert!(server.stop().success());
    assert_eq!(at_moody.events(3).await.len(), 3);
}

#[tokio::test]
async fn a_test_event_tells_what_came_back() {
    let dir = Dir::new();
    let (url, received) = receiver(1).await;
    std::fs::write(dir.file("c.toml"), config(&[(&url, "'session.ended'")])).unwrap();
    let run =
        |args: &'static [&'static str]| {
            let dir = dir.path().to_owned();
            tokio::task::spawn_blocking(move || {
                if args.contains(&"--fails") { fails(&dir, &args[1..]) } else { ok(&dir, args) }
            })
        };
    let said = run(&["--fails", "webhook", "test", "--config", "c.toml"]).await.unwrap();
    assert!(said.contains("FAIL  webhooks[0] (product default): the receiver answered 503"), "{said}");
    let said = run(&["webhook", "test", "--config", "c.toml", "--product", "default"]).await.unwrap();
    assert_eq!(said, "OK    webhooks[0] (product default): delivered\n");
    assert_eq!(received.events(1).await[0]["type"], "webhook.test");
    let said = run(&["--fails", "webhook", "test", "--config", "c.toml", "--product", "other"]).await.unwrap();
    assert!(said.contains("No webhook is configured for the product `other`."), "{said}");
}
