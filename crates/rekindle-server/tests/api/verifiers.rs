//! What verifiers and proxies use: keys, the feed, forward-auth, readiness.

use std::time::Duration;

use http_body_util::BodyExt;
use rekindle::{clock::Seconds, keys::MAX_KEYS_AGE};
use rekindle_server::config::{Config, Overrides};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::server::{Server, id};

#[tokio::test]
async fn the_keys_are_public_and_may_be_cached() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    let answer = server.ask_with("GET jwks.json", Value::Null, &[("authorization", "")]).await;
    assert_eq!(answer.header("content-type"), "application/json");
    let age: u64 = answer.header("cache-control").strip_prefix("public, max-age=").unwrap().parse().unwrap();
    assert!(age <= MAX_KEYS_AGE.0);
    let keys = answer.with(200);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    assert!(keys["keys"][0]["kid"].is_string() && keys["keys"][0].get("d").is_none());
    assert!(tokens["access_token"].is_string());
}

#[tokio::test]
async fn the_feed_goes_on_from_its_cursor() {
    let server = Server::new().await;
    let (first, second) = (server.start(json!({})).await, server.start(json!({})).await);
    let empty = server.get("revocations").await.with(200);
    assert_eq!(empty, json!({ "items": [], "next_cursor": "0" }));
    for tokens in [&first, &second] {
        server.delete(&format!("sessions/{}", id(tokens))).await.with(204);
    }
    let page = server.get("revocations?limit=1").await.with(200);
    let item = &page["items"][0];
    assert_eq!((&item["session_id"], &item["at"]), (&json!(id(&first)), &json!("2026-11-20T10:00:00Z")));
    assert_eq!(item.as_object().unwrap().len(), 3, "{item}");
    let rest = server.get(&format!("revocations?since={}", page["next_cursor"].as_str().unwrap())).await.with(200);
    assert_eq!(rest["items"][0]["session_id"], id(&second));
    let end = rest["next_cursor"].as_str().unwrap();
    let nothing = server.get(&format!("revocations?since={end}")).await.with(200);
    assert_eq!(nothing, json!({ "items": [], "next_cursor": end }));
    // Nothing is told of whose tokens have all expired.
    server.clock.advance(Seconds(8 * 86_400));
    assert_eq!(server.get("revocations").await.with(200)["items"], json!([]));
}

#[tokio::test]
async fn a_long_poll_is_answered_when_something_comes_or_the_time_is_over() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    let waiting = server.get("revocations?wait=30");
    let ending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.delete(&format!("sessions/{}", id(&tokens))).await.with(204);
    };
    let (answer, ()) =
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(waiting, ending) }).await.unwrap();
    let answer = answer.with(200);
    assert_eq!(answer["items"][0]["session_id"], id(&tokens));
    let since = answer["next_cursor"].as_str().unwrap();
    let over = server.get(&format!("revocations?wait=1&since={since}")).await.with(200);
    assert_eq!(over["items"], json!([]));
    // Longer than any request may take is as long as a request may take.
    let server = Server::configured("limits.request_timeout = 1").await;
    server.get("revocations?wait=30").await.with(200);
}

#[tokio::test]
async fn a_stream_tells_each_revocation_with_its_cursor() {
    let server = Server::new().await;
    let tokens = server.start(json!({})).await;
    let other = server.start(json!({})).await;
    server.delete(&format!("sessions/{}", id(&tokens))).await.with(204);
    let open = |since: &'static str| {
        let request =
            server.request("GET revocations", None, &[("accept", "text/event-stream"), ("last-event-id", since)]);
        server.router.clone().oneshot(request)
    };
    let answer = open("0").await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let mut body = answer.into_body();
    for tokens in [&tokens, &other] {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().unwrap().unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        assert!(text.contains("event: revocation\n") && text.contains("\nid: "), "{text}");
        let data: Value = serde_json::from_str(text.lines().find_map(|l| l.strip_prefix("data: ")).unwrap()).unwrap();
        assert_eq!(data["session_id"], id(tokens));
        server.delete(&format!("sessions/{}", id(&other))).await.with(204);
    }
    assert_eq!(open("x").await.unwrap().status(), 400);
    // A stopping server ends its streams.
    let drain = Config::from_toml("drain.notice = 0", &Overrides::default()).unwrap().drain;
    server.app.lifecycle().stop(&drain).await;
    assert!(tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().is_none());
    let problem = server.get("/readyz").await.refused("unavailable");
    assert_eq!(problem["detail"], "the server is stopping");
}

#[tokio::test]
async fn forward_auth_takes_a_bearer_or_a_cookie_and_nothing_else() {
    let server = Server::new().await;
    let tokens = server.start(json!({ "user_id": "é 100%" })).await;
    let access = tokens["access_token"].as_str().unwrap();
    let ask = |headers: Vec<(&'static str, String)>, query: String| {
        let server = &server;
        async move {
            let mut headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            if headers.iter().all(|(name, _)| *name != "authorization") {
                // The client's own key is not sent.
                headers.push(("authorization", ""));
            }
            server.ask_with(&format!("GET auth{query}"), Value::Null, &headers).await
        }
    };
    for headers in [
        vec![("authorization", format!("Bearer {access}"))],
        vec![("cookie", format!("a=b; __Host-rekindle-access={access}"))],
        vec![("cookie", format!("rekindle-access={access}"))],
    ] {
        // Caddy sends the query of the request that it asks about.
        let answer = ask(headers, "?page=2&q=%ff".into()).await;
        assert_eq!(answer.header("rekindle-user-id"), "%C3%A9%20100%25");
        assert_eq!(answer.header("rekindle-session-id"), id(&tokens));
        assert_eq!(answer.header("rekindle-tag"), "default");
        answer.with(204);
    }
    for (headers, query) in [
        (vec![], String::new()),
        (vec![], format!("?access_token={access}")),
        (vec![("cookie", "rekindle-access=x".to_owned())], String::new()),
        (vec![("cookie", format!("rekindle-access={access}; rekindle-access=x"))], String::new()),
        (vec![("authorization", format!("Basic {access}"))], String::new()),
    ] {
        ask(headers, query).await.refused("token_malformed");
    }
    let bearer = || vec![("authorization", format!("Bearer {access}"))];
    server.delete(&format!("sessions/{}", id(&tokens))).await.with(204);
    ask(bearer(), String::new()).await.refused("session_revoked");
    server.clock.advance(Seconds(7 * 86_400));
    ask(bearer(), String::new()).await.refused("access_token_expired");
}

#[tokio::test]
async fn the_server_is_ready_while_its_store_is() {
    let server = Server::new().await;
    let ready = || server.ask_with("GET /readyz", Value::Null, &[("authorization", "")]);
    ready().await.with(200);
    server.set_out(true);
    ready().await.refused("unavailable");
    server.set_out(false);
    ready().await.with(200);
}
