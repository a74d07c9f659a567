//! Sessions in a Rust application: one handle, the same methods whether the engine is in the process or on a server.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use std::sync::Arc;
//! # use rekindle::{clock::SystemClock, memory::MemoryStore, revocation_log::NoRevocationLog, refresh::SecretRing, rng::SystemRng};
//! # use rekindle::engine::{Engine, Parts, Settings};
//! # let rng = Arc::new(SystemRng::default());
//! # let engine = Engine::open(Parts {
//! #     store: Arc::new(MemoryStore::new()),
//! #     revocation_log: Arc::new(NoRevocationLog),
//! #     clock: Arc::new(SystemClock),
//! #     secrets: SecretRing::parse(&SecretRing::generate(1, &*rng))?,
//! #     rng,
//! #     settings: Settings::new("https://shop.example"),
//! # })
//! # .await?;
//! use rekindle_client::{Code, Place, Rekindle, Trust, session::{Refresh, Start}};
//!
//! let rekindle = Rekindle::embedded(engine, Place::default());
//! // or: Rekindle::remote(Remote::new("http://127.0.0.1:3567", "rkk_…"))?
//!
//! let first = rekindle.start(Start::user("alice".parse()?)).await?;
//! let who = rekindle.verify(&first.access_token, Trust::FailOpen).await?;
//! assert_eq!(who.user_id.as_str(), "alice");
//!
//! let second = rekindle.refresh(Refresh::bearer(first.refresh_token)).await?;
//! rekindle.revoke(second.session.id).await?;
//! let refused = rekindle.verify(&second.access_token, Trust::Online).await.unwrap_err();
//! assert_eq!(refused.code(), Code::SessionRevoked);
//! # Ok(()) }
//! ```
//!
//! # What is where
//!
//! - [`handle`]: [`Rekindle`] and its methods, with the codes that each answers;
//! - [`session`]: what goes in and comes out; [`problem`]: what goes wrong, by the API's codes;
//! - [`web`]: cookies, CSRF, proofs, pages and answers, as pure functions; the contract with the browser SDK;
//! - [`exchange`]: a request's way through both, for the adapter of any framework;
//! - `axum` (feature `axum`): the layer, the extractors and the routes;
//! - `remote` (feature `remote`): which servers are asked, and how.
//!
//! Both features are on by default; without them, `web` and the embedded handle are left.

#[cfg(feature = "axum")]
pub mod axum;
mod embedded;
pub mod exchange;
pub mod handle;
pub mod problem;
#[cfg(feature = "remote")]
pub mod remote;
pub mod session;
mod watch;
pub mod web;

pub use handle::{Place, Rekindle, Trust};
pub use problem::{Code, Problem};
pub use watch::{Feed, Revocation};
