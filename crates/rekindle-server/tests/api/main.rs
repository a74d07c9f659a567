//! The HTTP API on an engine in memory, endpoint by endpoint, with time, randomness and the store's health in the test's hands.

mod answers;
mod codes;
mod hostile;
mod permissions;
mod server;
mod trouble;
mod verifiers;
