//! Rekindle: sessions that no thief can share and no bad network can end.

pub mod clock;
pub mod refresh;
pub mod rng;
pub mod rotation;
pub mod session;
