//! What proves Rekindle: time and randomness under control, the conformance suite for stores, the faulty store, the simulator.
//!
//! A store runs the whole [`conformance`] suite, and [`differential`] compares it with the store in memory; [`fixtures`] are
//! the values that such tests are built from. [`transfer`] is the suite of stores that can be copied.

pub mod conformance;
pub mod contents;
pub mod differential;
pub mod faulty;
pub mod fixtures;
pub mod proxy;
pub mod seam;
pub mod servers;
pub mod simulation;
pub mod transfer;
