//! The real listener, spoken to over real sockets.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use rekindle_server::{
    app::App,
    config::{Config, Overrides},
    edge::RequestContext,
    extract::Json,
    http::{Listener, tls_acceptor},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

struct Server {
    app: App,
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// The app with a few routes of the test's own behind the same edge.
async fn start(config: &str) -> Server {
    let config = Config::from_toml(config, &Overrides::default()).unwrap();
    let app = App::new(config, rekindle_testkit::seam::engine_in_memory().await);
    let extra: Router<App> = Router::new()
        .route("/panic", get(|| async { panic!("on purpose") as () }))
        .route("/slow", get(|| async { tokio::time::sleep(Duration::from_millis(1500)).await }))
        .route(
            "/echo",
            get(|_: Json<serde_json::Value>| async {})
                .post(|Json(v): Json<serde_json::Value>| async move { v.to_string() }),
        )
        .route(
            "/ip",
            get(|r: axum::extract::Request| async move {
                RequestContext::of(r.extensions()).client_ip().unwrap().to_string()
            }),
        );
    let connections = app.metrics().connections.clone();
    let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap(), app.config(), connections).await.unwrap();
    if let Some(tls) = &app.config().tls {
        listener = listener.with_tls(tls_acceptor(tls).unwrap());
    }
    let address = listener.address().unwrap();
    let router = app.router_with(extra);
    let task = tokio::spawn(listener.serve(router, app.lifecycle().clone()));
    Server { app, address, task }
}

impl Server {
    /// Sends raw bytes and reads until the server closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.expect("in time").unwrap();
        answer
    }

    /// A request on a connection of its own; `rest` is further header lines, and the body after an empty line.
    async fn ask(&self, line: &str, rest: &str) -> String {
        let rest = if rest.contains("\r\n\r\n") { rest.to_owned() } else { format!("{rest}\r\n") };
        self.raw(&format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{rest}")).await
    }
}

fn has(answer: &str, status: u16, parts: &[&str]) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    for part in parts {
        assert!(answer.contains(part), "{part} is not in {answer}");
    }
}

const SAFE: [&str; 4] = [
    "cache-control: no-store",
    "x-content-type-options: nosniff",
    "cross-origin-resource-policy: same-origin",
    "x-request-id: ",
];

#[tokio::test]
async fn health_and_the_description_are_public() {
    let server = start("").await;
    has(&server.ask("GET /healthz", "").await, 200, &SAFE);
    has(
        &server.ask("GET /openapi.json", "").await,
        200,
        &["cache-control: public", "\"openapi\": \"3.1.0\"", "\"/healthz\""],
    );
}

#[tokio::test]
async fn errors_of_http_itself_are_problems() {
    let server = start("limits.body = 1024").await;
    has(&server.ask("GET /nowhere", "").await, 404, &["application/problem+json", "\"code\":\"not_found\""]);
    has(&server.ask("GET /nowhere", "").await, 404, &SAFE);
    has(&server.ask("DELETE /healthz", "").await, 405, &["allow: GET,HEAD", "\"code\":\"method_not_allowed\""]);
    has(&server.ask("GET /panic", "").await, 500, &["\"code\":\"internal\""]);
    has(&server.ask("GET /panic", "").await, 500, &SAFE);
    let body = |kind: &str, body: &str| format!("content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    has(&server.ask("POST /echo", &body("application/json", "{\"a\": 1}")).await, 200, &["{\"a\":1}"]);
    has(&server.ask("POST /echo", &body("text/plain", "{}")).await, 415, &["\"code\":\"unsupported_media_type\""]);
    has(&server.ask("POST /echo", &body("application/json", "{")).await, 400, &["\"code\":\"invalid_request\""]);
    let large = format!("\"{}\"", "x".repeat(1023));
    has(&server.ask("POST /echo", &body("application/json", &large)).await, 413, &["\"code\":\"payload_too_large\""]);
}

#[tokio::test]
async fn a_deciding_header_sent_twice_is_refused() {
    let server = start("").await;
    for name in ["host", "authorization", "idempotency-key", "if-match", "content-type"] {
        let answer = server.ask("GET /healthz", &format!("{name}: a\r\n{name}: b\r\n")).await;
        has(&answer, 400, &["\"code\":\"invalid_request\"", name]);
    }
}

#[tokio::test]
async fn a_request_names_its_host() {
    let server = start("").await;
    let answer = server.raw("GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    has(&answer, 400, &["\"code\":\"invalid_request\"", "host"]);
    assert!(server.raw("GET /healthz HTTP/1.0\r\n\r\n").await.contains(" 200 OK"));
}

/// What docs/API.md says of requests that are no HTTP.
#[tokio::test]
async fn what_is_no_http_gets_a_bare_answer_and_a_length_told_twice_ends_the_connection() {
    let server = start("").await;
    for rest in ["content-length: 1\r\ncontent-length: 2\r\n", "x y: 1\r\n", "x: \u{0}\r\n"] {
        let answer = server.ask("GET /healthz", rest).await;
        has(&answer, 400, &[]);
        assert!(!answer.contains("x-request-id"), "{answer}");
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}", "x".repeat(80_000)).as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    // The connection is cut before all of it is read.
    let _ = stream.read_to_end(&mut answer).await;
    has(&String::from_utf8(answer).unwrap(), 431, &[]);
    let smuggled = "GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\
                    GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = server.raw(smuggled).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn only_a_trusted_proxy_names_the_client_and_the_request() {
    let headers = "x-forwarded-for: 198.51.100.7\r\nx-request-id: abc-1\r\n";
    let server = start("").await;
    let answer = server.ask("GET /ip", headers).await;
    has(&answer, 200, &["127.0.0.1"]);
    assert!(!answer.contains("abc-1"));
    let server = start("trusted_proxies = ['127.0.0.0/8']").await;
    has(&server.ask("GET /ip", headers).await, 200, &["198.51.100.7", "x-request-id: abc-1"]);
    let answer = server.ask("GET /ip", "x-request-id: a b\r\n").await;
    assert!(!answer.contains("a b"), "{answer}");
}

#[tokio::test]
async fn headers_that_do_not_come_in_time_end_the_connection() {
    let server = start("limits.header_read_timeout = 1").await;
    for partial in ["", "PRI * HT", "GET /healthz HTTP/1.1\r\nhost: x\r\n"] {
        let answer = server.raw(partial).await;
        assert!(!answer.contains("200"), "{answer}");
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_503() {
    let server = start("limits.request_timeout = 1").await;
    has(&server.ask("GET /slow", "").await, 503, &["\"code\":\"unavailable\"", "retry-after: 1"]);
}

#[tokio::test]
async fn more_connections_than_allowed_wait() {
    let server = start("limits.max_connections = 1").await;
    let first = TcpStream::connect(server.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.app.metrics().connections.get(), 1);
    let second = server.ask("GET /healthz", "");
    let mut second = std::pin::pin!(second);
    assert!(timeout(Duration::from_millis(200), &mut second).await.is_err());
    drop(first);
    has(&second.await, 200, &[]);
}

#[tokio::test]
async fn a_stop_finishes_what_is_under_way_and_takes_nothing_new() {
    let server = start("drain.notice = 0").await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    let slow = async { server.ask("GET /slow", "").await };
    let stop = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!server.app.lifecycle().is_draining());
        server.app.lifecycle().stop(&server.app.config().drain).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(server.app.lifecycle().is_draining());
        assert!(TcpStream::connect(server.address).await.is_err());
    };
    let (answer, ()) = tokio::join!(slow, stop);
    has(&answer, 200, &[]);
    timeout(Duration::from_secs(5), server.task).await.expect("idle connections do not hold up the stop").unwrap();
    drop(idle);
}

#[tokio::test]
async fn what_outlasts_the_drain_timeout_is_cut_off() {
    let server = start("drain.timeout = 0").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.app.lifecycle().stop(&server.app.config().drain).await;
    timeout(Duration::from_secs(1), server.task).await.expect("no waiting").unwrap();
    let mut answer = String::new();
    let _ = timeout(Duration::from_secs(1), stream.read_to_string(&mut answer)).await.expect("closed");
    assert_eq!(answer, "");
}

#[tokio::test]
async fn requests_are_counted_by_their_template() {
    let server = start("").await;
    server.ask("GET /healthz?token=hunter2", "").await;
    server.ask("GET /hunter2", "").await;
    let text = server.app.metrics().render();
    assert!(text.contains(r#"rekindle_http_requests_total{route="/healthz",method="GET",status="4xx"} 1"#), "{text}");
    assert!(
        text.contains(r#"rekindle_http_requests_total{route="(unmatched)",method="GET",status="4xx"} 1"#),
        "{text}"
    );
    assert!(!text.contains("hunter2"));
}

#[tokio::test]
async fn tls_is_spoken_with_the_configured_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = start(&format!("[tls]\ncertificate = '{}'\nkey = '{}'", certificate.display(), key.display())).await;
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([root]).no_proxy().build().unwrap();
    let answer = client.get(format!("https://localhost:{}/healthz", server.address.port())).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=63072000");
    assert!(tls_acceptor(&rekindle_server::config::Tls { certificate: key.clone(), key }).is_err());
}
