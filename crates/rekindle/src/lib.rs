//! Rekindle: sessions that no thief can share and no bad network can end.

pub mod clock;
pub mod definition;
pub mod journal;
pub mod keys;
pub mod memory;
pub mod refresh;
pub mod revocation_log;
pub mod rng;
pub mod rotation;
pub mod session;
pub mod store;
