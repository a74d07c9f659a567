//! The listener: an accept loop around the app, with every limit that a connection has, and an orderly stop.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use prometheus_client::metrics::gauge::Gauge;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time,
};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use crate::{
    config::{Config, Drain, Limits, Tls},
    edge::Peer,
};

/// Whether the server serves or is on its way out. Clones share one state.
#[derive(Debug, Clone)]
pub struct Lifecycle(Arc<watch::Sender<Phase>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Still serving, but no longer ready for new traffic.
    Draining,
    /// The listeners are closed, requests under way are finished.
    Closing,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Serving)))
    }
}

impl Lifecycle {
    /// Whether the stop has begun: readiness answers 503 then.
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    /// Begins the stop: readiness turns at once, the listeners close after the configured notice.
    pub async fn stop(&self, drain: &Drain) {
        self.0.send_replace(Phase::Draining);
        time::sleep(drain.notice.duration()).await;
        self.0.send_replace(Phase::Closing);
    }

    async fn closing(&self) {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.0.subscribe().wait_for(|phase| *phase >= Phase::Closing).await;
    }
}

/// Listens for SIGTERM and SIGINT from now on; the future ends when the process is asked to end by one of them.
pub fn stop_signal() -> io::Result<impl Future<Output = ()> + Send> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "Ctrl-C cannot be heard");
            std::future::pending().await
        }
    })
}

/// A bound listener and what its connections may do.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    http: auto::Builder<TokioExecutor>,
    permits: Arc<Semaphore>,
    header_timeout: Duration,
    drain_timeout: Duration,
    connections: Gauge,
}

impl Listener {
    /// Binds `address`. `connections` counts the open ones.
    pub async fn bind(address: SocketAddr, config: &Config, connections: Gauge) -> io::Result<Self> {
        let Limits { header_read_timeout, max_connections, keep_alive, .. } = &config.limits;
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(header_read_timeout.duration())
            .keep_alive(*keep_alive)
            .max_buf_size(64 * 1024);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(256)
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(header_read_timeout.duration())
            .keep_alive_timeout(Duration::from_secs(20));
        Ok(Self {
            tcp: TcpListener::bind(address).await?,
            tls: None,
            http,
            permits: Arc::new(Semaphore::new(max_connections.saturating_usize())),
            header_timeout: header_read_timeout.duration(),
            drain_timeout: config.drain.timeout.duration(),
            connections,
        })
    }

    /// The same, speaking TLS.
    pub fn with_tls(mut self, acceptor: TlsAcceptor) -> Self {
        self.tls = Some(acceptor);
        self
    }

    /// The address that it listens on: the port is known here when 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves `app` until the lifecycle closes, then finishes what is under way, at most for the drain timeout.
    pub async fn serve(self, app: Router, lifecycle: Lifecycle) {
        let graceful = GracefulShutdown::new();
        // Dropped, it ends what has not finished by then.
        let mut connections = JoinSet::new();
        let mut closing = pin!(lifecycle.closing());
        loop {
            let permit = tokio::select! {
                permit = self.permits.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
                () = &mut closing => break,
            };
            let (stream, peer) = tokio::select! {
                accepted = self.tcp.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(e) => {
                        // Out of file descriptors, most likely: give connections time to end.
                        tracing::warn!(error = %e, "a connection could not be accepted");
                        time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = &mut closing => break,
            };
            let connection = self.connection(stream, peer, app.clone(), graceful.watcher());
            let open = Open::new(&self.connections);
            connections.spawn(async move {
                connection.await;
                drop((open, permit));
            });
            while connections.try_join_next().is_some() {}
        }
        drop(self.tcp);
        if time::timeout(self.drain_timeout, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests that did not finish within drain.timeout were cut off");
        }
    }

    /// One connection, from its first byte to its last. Owns what it needs, so that it can be spawned.
    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        app: Router,
        watcher: Watcher,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (tls, http, limit) = (self.tls.clone(), self.http.clone(), self.header_timeout);
        async move {
            // Answers are small: without this each would wait for the client's acknowledgement.
            let _ = stream.set_nodelay(true);
            match tls {
                None => serve_stream(stream, peer, app, &http, watcher, limit).await,
                // Failed handshakes are the client's business, and scanners make many.
                Some(tls) => {
                    if let Ok(Ok(stream)) = time::timeout(limit, tls.accept(stream)).await {
                        serve_stream(stream, peer, app, &http, watcher, limit).await;
                    }
                }
            }
        }
    }
}

async fn serve_stream<I>(
    stream: I,
    peer: SocketAddr,
    app: Router,
    http: &auto::Builder<TokioExecutor>,
    watcher: Watcher,
    limit: Duration,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let seen = Arc::new(AtomicBool::new(false));
    let service = {
        let seen = seen.clone();
        hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            seen.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(Peer(peer));
            let request: Request = request.map(axum::body::Body::new);
            let answer = app.clone().call(request);
            async move { answer.await as Result<_, Infallible> }
        })
    };
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(watcher.watch(connection));
    // hyper's own time limit starts when it knows the protocol's version; a client could take for ever to show it.
    let _ = tokio::select! {
        ended = connection.as_mut() => ended,
        () = time::sleep(limit) => {
            if !seen.load(Ordering::Relaxed) {
                return;
            }
            connection.await
        }
    };
}

/// Counts a connection as open for as long as it lives.
struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, or holds no PEM of the right kind.
    #[error("{} holds no usable {what}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What should be there.
        what: &'static str,
        /// What was wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("the certificate and its key cannot be used: {0}")]
    Pair(#[from] rustls::Error),
}

/// Reads the certificate and its key. HTTP/2 and HTTP/1.1 are offered, TLS 1.3 and 1.2.
pub fn tls_acceptor(tls: &Tls) -> Result<TlsAcceptor, TlsError> {
    let file = |path: &Path, what| {
        let path = path.to_owned();
        move |source| TlsError::File { path, what, source }
    };
    let certificate = || file(&tls.certificate, "certificate");
    let chain = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| if chain.is_empty() { Err(rustls_pki_types::pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(certificate())?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(file(&tls.key, "private key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
