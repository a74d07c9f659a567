//! What Rekindle's bindings to other languages share, `sdks/node` and `sdks/python`. A binding adds how its language waits, what it
//! throws, and the names that its users see.
//!
//! - [`Host`]: where sessions are kept; [`Handle`]: the sessions of one product, environment and definition;
//! - [`Site`]: requests on the web, each an [`Exchange`], with its [`Session`];
//! - [`Begun`]: work that mostly waits for nothing;
//! - [`on_log`]: what is logged;
//! - [`json`]: what goes over the border, which is JSON but for what every request needs.

mod begun;
mod handle;
mod host;
pub mod json;
mod logs;
mod site;

pub use begun::Begun;
pub use handle::Handle;
pub use host::Host;
pub use json::Failed;
pub use logs::{Line, on_log};
pub use site::{Exchange, Outcome, Session, Site, check_web};
