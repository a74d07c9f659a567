//! Rekindle: sessions that no thief can share and no bad network can end.
//!
//! This crate is the engine. A backend starts a session when its user logs in; the client gets a short-lived access token (a
//! JWT, verified locally) and a refresh token that rotates at each use. A repeated or delayed request always gets the same
//! answer again; a stolen token is seen; an ended session stays ended. The engine has no runtime, no SQL and no HTTP: it asks
//! pure functions what to do and a [`store::Store`] to do it.
//!
//! ```
//! use std::sync::Arc;
//! use rekindle::engine::{Engine, Parts, Refresh, RefreshOutcome, Settings, StartRequest};
//! use rekindle::{clock::SystemClock, journal::Context, memory::MemoryStore, refresh::SecretRing};
//! use rekindle::{revocation_log::NoRevocationLog, rng::SystemRng, session::Scope};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rng = Arc::new(SystemRng::default());
//! let engine = Engine::open(Parts {
//!     store: Arc::new(MemoryStore::new()),
//!     revocation_log: Arc::new(NoRevocationLog),
//!     clock: Arc::new(SystemClock),
//!     secrets: SecretRing::parse(&SecretRing::generate(1, &*rng))?,
//!     rng,
//!     settings: Settings::new("https://shop.example"),
//! })
//! .await?;
//!
//! let scope = Scope { product: "default".parse()?, env: "dev".parse()? };
//! let ctx = Context::default();
//! let login = StartRequest::new("default".parse()?, Some("alice".parse()?));
//! let first = engine.start(&scope, login, &ctx).await?;
//!
//! let refresh = Refresh { refresh_token: first.refresh_token.expose(), tag: None, proof: None };
//! let RefreshOutcome::Refreshed(second) = engine.refresh(&scope, refresh, &ctx).await? else { panic!("refused") };
//! assert_eq!(second.session.position.generation, 1);
//! # Ok(()) }
//! ```
//!
//! # Vocabulary
//!
//! - **Session**: one login of one user; one row for its whole life.
//! - **Generation**: grows by one at each successful rotation.
//! - **Opening** and **commitment**: a client's secret for one step, and its hash, which it sends one step ahead. A session whose
//!   client sends them is *committed*; one whose client does not is a *bearer* session.
//! - **Scope**: the product and environment that a session belongs to for life.
//!
//! # Reading order
//!
//! [`rotation`] decides; read it first. Then [`refresh`] (tokens and proofs), [`session`], [`store`] (what is asked of a store),
//! and [`engine`] (who asks). [`access`], [`keys`], [`definition`], [`journal`], [`explain`] and [`copy`] stand on their own.

pub mod access;
pub mod clock;
pub mod copy;
pub mod definition;
pub mod engine;
pub mod explain;
pub mod journal;
pub mod keys;
pub mod memory;
mod merge_patch;
pub mod refresh;
pub mod revocation_log;
pub mod rng;
pub mod rotation;
pub mod session;
pub mod store;

pub use merge_patch::merge_patch;
