//! Rekindle's server: the HTTP API v1, the SuperTokens face and the command line, as a library so that tests can start it.
//!
//! A request's way: [`http`] accepts its connection, [`edge`] gives it an id and a time limit, [`extract`] makes values of it, an
//! endpoint answers, with a [`problem`] when something is wrong.

pub mod app;
pub mod auth;
pub mod cause;
pub mod cli;
pub mod client_ip;
mod completion;
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
pub mod runtime;
mod serde_message;
mod supertokens;
mod view;
pub mod webhook;
