//! From a valid configuration to a running server.
//!
//! [`open`] gives the engine on its store, which the command line uses, too. [`Server`] puts the listeners around it, and the
//! work that no request asks for: `upkeep`, and the `deliveries` of webhooks.

mod deliveries;
mod metered;
mod upkeep;

use std::{future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, http::header, routing::get};
use prometheus_client::metrics::gauge::Gauge;
use rekindle::{
    clock::Seconds,
    engine::Settings,
    refresh::{InvalidSecrets, SecretRing},
    store::Store,
};
use rekindle_embedded::{Embedded, OpenError, Opened};
use tokio::sync::watch;

pub use deliveries::{Endpoint, endpoint};

use crate::{
    app::{self, App},
    config::Config,
    http::{Listener, TlsError, tls_acceptor},
    metrics::{self, Metrics},
};
use deliveries::Deliveries;
use metered::MeteredStore;

/// Why a server does not start, or a command has no store to work on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory has no master secrets, and none are configured elsewhere.
    #[error("there are no master secrets `{}`: set --config, or run this where the server runs", .0.display())]
    NoSecrets(PathBuf),
    /// The engine or its store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The text of the master secrets is wrong.
    #[error("the master secrets: {0}")]
    Secrets(#[from] InvalidSecrets),
    /// The certificate or its key is wrong.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// TLS to webhooks cannot be set up.
    #[error("webhooks cannot be sent: {0}")]
    Webhooks(#[from] reqwest::Error),
}

/// Opens secrets, store and revocation log of a configuration, and the engine on them.
pub async fn open(config: &Config) -> Result<Opened, StartError> {
    open_with(config, |store| store).await
}

async fn open_with(
    config: &Config,
    decorate: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) -> Result<Opened, StartError> {
    let embedded = Embedded {
        secrets: Some(secrets(config)?),
        revocation_log: Some(config.revocation_log_path()),
        settings: settings(config),
        ..Embedded::new(config.location(), &config.data_dir, config.issuer())
    };
    Ok(embedded.open_with(decorate).await?)
}

/// The master secrets of a configuration.
pub fn secrets(config: &Config) -> Result<SecretRing, StartError> {
    let source = config.secret_source();
    let path = match &source {
        crate::config::SecretSource::File(path) => path.clone(),
        crate::config::SecretSource::Value(_) => PathBuf::new(),
    };
    let text = source.read().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound if config.secrets.is_none() => StartError::NoSecrets(path),
        _ => OpenError::file("the master secrets", path)(e).into(),
    })?;
    Ok(SecretRing::parse(text.expose())?)
}

fn settings(config: &Config) -> Settings {
    let mut notify = std::collections::HashMap::<_, std::collections::HashSet<_>>::new();
    for webhook in &config.webhooks {
        notify.entry(webhook.product.clone()).or_default().extend(webhook.events.iter().map(|event| event.kind()));
    }
    Settings {
        audience: config.audience.to_string(),
        keys: config.key_schedule(),
        keys_every: if config.test_rotation.is_some() { Seconds(1) } else { Settings::KEYS_EVERY },
        retention: Seconds(config.sweep.retention.as_secs()),
        sweep_budget: config.sweep.batch.saturating_u32(),
        sweep_every: Seconds(config.sweep.every.as_secs()),
        notify,
        ..Settings::new(config.issuer())
    }
}

/// A server with its addresses bound and its engine open.
pub struct Server {
    app: App,
    address: SocketAddr,
    listener: Listener,
    metrics: Option<Listener>,
    deliveries: Deliveries,
    opened: Opened,
}

impl Server {
    /// Binds and opens everything that the configuration names.
    pub async fn open(mut config: Config) -> Result<Self, StartError> {
        let metrics = Arc::new(app::metrics());
        let (mut listener, address) = bind(config.listen, &config, metrics.connections.clone()).await?;
        // The port is known only now when 0 was asked for.
        config.listen = address;
        if let Some(tls) = &config.tls {
            listener = listener.with_tls(tls_acceptor(tls)?);
        }
        let metrics_listener = match config.metrics.listen {
            Some(address) => Some(bind(address, &config, Gauge::default()).await?.0),
            None => None,
        };
        let opened = open_with(&config, |store| Arc::new(MeteredStore::new(store, metrics.clone()))).await?;
        if let Some(sqlite) = opened.store.sqlite().cloned() {
            metrics.count_commits(Box::new(move || sqlite.committed()));
        }
        let deliveries = Deliveries::new(&config, opened.engine.clone())?;
        let app = App::with_metrics(config, opened.engine.clone(), metrics);
        Ok(Self { app, address, listener, metrics: metrics_listener, deliveries, opened })
    }

    /// The app that it serves.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// The address that the API listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then drains: no new requests, those under way finish, what waits is written.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { app, listener, metrics, deliveries, opened, .. } = self;
        let lifecycle = app.lifecycle().clone();
        let (stopped, stopping) = watch::channel(false);
        let upkeep = tokio::spawn(upkeep::run(app.clone()));
        let deliveries = tokio::spawn(deliveries.run(stopping));
        let mut listeners = vec![tokio::spawn(listener.serve(app.router(), lifecycle.clone()))];
        listeners.extend(metrics.map(|m| tokio::spawn(m.serve(metrics_router(app.clone()), lifecycle.clone()))));
        stop.await;
        tracing::info!("stopping");
        lifecycle.stop(&app.config().drain).await;
        for listener in listeners {
            // A listener that panicked has said so.
            let _ = listener.await;
        }
        stopped.send_replace(true);
        // Deliveries that panicked have said so.
        let _ = deliveries.await;
        upkeep.abort();
        // Generations that were seen in use, and endings that the revocation log lacks.
        if let Err(error) = opened.engine.upkeep().await {
            tracing::warn!(%error, "the last upkeep failed");
        }
        tracing::info!("stopped");
    }
}

async fn bind(address: SocketAddr, config: &Config, connections: Gauge) -> Result<(Listener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = Listener::bind(address, config, connections).await.map_err(failed)?;
    let bound = listener.address().map_err(failed)?;
    Ok((listener, bound))
}

fn metrics_router(app: App) -> Router {
    let render = move || {
        let text = Metrics::render(app.metrics());
        async move { ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text) }
    };
    Router::new().route("/metrics", get(render))
}

/// Tells of a failure when it begins and when it is over, and not each time in between.
struct Condition {
    what: &'static str,
    failing: bool,
}

impl Condition {
    const fn of(what: &'static str) -> Self {
        Self { what, failing: false }
    }

    /// Notes one outcome; gives back what succeeded.
    fn note<T, E: std::fmt::Display>(&mut self, outcome: Result<T, E>) -> Option<T> {
        match outcome {
            Ok(value) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("{} works again", self.what);
                }
                Some(value)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "{} fails, and is tried again until it works", self.what);
                }
                None
            }
        }
    }
}

/// How often work that no request asks for is looked for.
const TICK: Duration = Duration::from_millis(500);
