//! What an engine promises to those who embed it, on the store in memory with time and randomness held by the test.

mod admin;
mod faces;
mod lifecycle;
mod refresh;
mod restore;
mod world;
