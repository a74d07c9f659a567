//! One keep-alive connection of the load generator, and the endpoint that shows what HTTP alone costs.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::routing::post;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// An HTTP/1.1 connection that is kept for all its client's requests.
pub struct Connection {
    requests: SendRequest<Full<Bytes>>,
    authorization: HeaderValue,
    host: HeaderValue,
}

impl Connection {
    /// Connects; every request will carry the API key.
    pub async fn open(address: SocketAddr, api_key: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        // Its end shows as the failure of a request.
        tokio::spawn(connection);
        let mut authorization = HeaderValue::try_from(format!("Bearer {api_key}"))?;
        authorization.set_sensitive(true);
        Ok(Self { requests, authorization, host: HeaderValue::try_from(address.to_string())? })
    }

    /// Posts JSON, and gives the answer's body if the status is the expected one.
    pub async fn post(&mut self, path: &'static str, body: String, expected: StatusCode) -> Result<Bytes> {
        let request = Request::post(path)
            .header(header::HOST, self.host.clone())
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::from(body))?;
        let answer = self.requests.send_request(request).await.with_context(|| format!("POST {path}"))?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status != expected {
            // Problems hold no tokens; an unexpected success could.
            let told = if status.is_success() { "".into() } else { String::from_utf8_lossy(&body) };
            bail!("POST {path} was answered {status}, not {expected}: {told}");
        }
        Ok(body)
    }
}

/// The path of the floor's one endpoint.
pub const FLOOR: &str = "/floor";

/// Serves the floor: takes a request's whole body and answers 300 bytes of JSON, on the runtime that the server uses.
pub fn serve_floor(listen: SocketAddr) -> Result<()> {
    let answer: &'static str = format!(r#"{{"filler":"{}"}}"#, "x".repeat(287)).leak();
    let floor = move |_: Bytes| async move { ([(header::CONTENT_TYPE, "application/json")], answer) };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        Ok(axum::serve(TcpListener::bind(listen).await?, Router::new().route(FLOOR, post(floor))).await?)
    })
}
