//! Rekindle: sessions that no thief can share and no bad network can end.

pub mod access;
pub mod clock;
pub mod definition;
pub mod keys;
mod merge_patch;
pub mod refresh;
pub mod revocation_log;
pub mod rng;
pub mod rotation;
pub mod session;
pub mod store;

pub use merge_patch::merge_patch;
