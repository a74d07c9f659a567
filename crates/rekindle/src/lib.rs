//! Rekindle: sessions that no thief can share and no bad network can end.

pub mod access;
pub mod clock;
pub mod keys;
pub mod refresh;
pub mod revocation_log;
pub mod rng;
pub mod rotation;
pub mod session;
pub mod store;
