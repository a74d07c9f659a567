//! What proves Rekindle: time and randomness under control, the conformance suite for stores, the faulty store, the simulator.

pub mod seam;
