//! The native half of the npm package `rekindle`: `rekindle-binding` as Node.js waits for it and throws it. `lib/` has the half that its
//! users see: names, shapes, errors and documentation.
//!
//! - [`host`]: where sessions are kept; [`handle`]: the sessions of one product, environment and definition;
//! - [`site`]: a request's way through the rules of the web.

pub mod handle;
pub mod host;
pub mod site;

use napi::bindgen_prelude::Error;
use rekindle_binding::Failed;

/// What failed, as an error; `lib/errors.js` reads its message.
fn thrown(failed: Failed) -> Error {
    Error::from_reason(failed.to_text())
}
