//! The engine on the store that a URL names: what the server opens, and every application that has the engine inside.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path().join("rekindle-data");
//! use rekindle_embedded::{Embedded, Location};
//!
//! let location = Location::parse("sqlite:", &folder)?;
//! let embedded = Embedded { development: true, ..Embedded::new(location, folder, "https://shop.example") };
//! let opened = embedded.open().await?;
//! // Every store begins with the product `default`.
//! assert_eq!(opened.engine.products().await?.len(), 1);
//! # Ok(()) }
//! ```
//!
//! - [`Embedded`]: the files and settings, and [`Opened`], what comes of them;
//! - [`store`]: the store itself, in use or had for oneself;
//! - [`files`]: files that nobody else may read.

pub mod files;
mod lock;
mod open;
pub mod store;

pub use lock::StoreLock;
pub use open::{Embedded, OpenError, Opened, make_development_files};
pub use store::{Location, OpenStore};
