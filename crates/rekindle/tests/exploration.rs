//! An exhaustive exploration of the refresh protocol: of the very `rekindle::rotation::decide` that production calls.
//!
//! Every bounded world of `exploration/scenarios.rs` is searched to its end, every order of events included, for a state that
//! breaks one of the protocol's promises; each rule is then broken on purpose, and the search must find what it is for.
//! `docs/EXPLORATION.md` records bounds, counts and trace lengths.
//!
//! `cargo test -p rekindle --test exploration -- --nocapture` prints them; `REKINDLE_FULL=1` takes the larger bounds.

#[path = "exploration/broken.rs"]
mod broken;
#[path = "exploration/client.rs"]
mod client;
#[path = "exploration/model.rs"]
mod model;
#[path = "exploration/scenarios.rs"]
mod scenarios;
#[path = "exploration/traces.rs"]
mod traces;
#[path = "exploration/world.rs"]
mod world;
