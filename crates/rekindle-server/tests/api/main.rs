//! The HTTP API, endpoint by endpoint, with time, randomness and the store's health in the test's hands: on a store in memory,
//! or on the one that `REKINDLE_TEST_STORE` names. `./test` takes all of them.

mod answers;
mod codes;
mod description;
mod hostile;
mod log;
mod neighbours;
mod permissions;
mod server;
mod trouble;
mod verifiers;
