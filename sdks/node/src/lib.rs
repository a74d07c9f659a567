//! The native half of the npm package `rekindle`. `lib/` has the half that its users see: names, shapes, errors and documentation.
//!
//! - [`host`]: where sessions are kept; [`handle`]: the sessions of one product, environment and definition;
//! - [`exchange`]: a request's way through the rules of the web;
//! - [`border`]: what goes over the border, which is JSON but for what every request needs.

pub mod border;
pub mod exchange;
pub mod handle;
pub mod host;
