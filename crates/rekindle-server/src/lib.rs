//! Rekindle's server: the HTTP API v1 and the command line, as a library so that tests can start it.
//!
//! A request's way: [`http`] accepts its connection, [`edge`] gives it an id and a time limit, [`extract`] makes values of it, an
//! endpoint answers, with a [`problem`] when something is wrong.

pub mod app;
pub mod auth;
pub mod cli;
pub mod client_ip;
pub mod config;
pub mod edge;
mod endpoint;
pub mod extract;
pub mod http;
pub mod log;
pub mod metrics;
pub mod page;
pub mod problem;
pub mod rate_limit;
mod refusal;
mod serde_message;
pub mod webhook;

/// An engine in memory, for the tests of what stands around it.
#[cfg(test)]
pub(crate) async fn test_engine() -> rekindle::engine::Engine {
    use rekindle::{engine, refresh::SecretRing, rng::SystemRng};
    use std::sync::Arc;
    let rng = Arc::new(SystemRng::default());
    let parts = engine::Parts {
        store: Arc::new(rekindle::memory::MemoryStore::new()),
        revocation_log: Arc::new(rekindle::revocation_log::NoRevocationLog),
        clock: Arc::new(rekindle::clock::SystemClock),
        secrets: SecretRing::parse(&SecretRing::generate(1, &*rng)).expect("a fresh secret"),
        rng,
        settings: engine::Settings::new("http://127.0.0.1:3567"),
    };
    engine::Engine::open(parts).await.expect("an empty store in memory")
}
