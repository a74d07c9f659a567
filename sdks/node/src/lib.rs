//! The native half of the npm package `rekindle`: `rekindle-binding` as Node.js waits for it and throws it. `lib/` has the half that its
//! users see: names, shapes, errors and documentation.
//!
//! - [`host`]: where sessions are kept; [`handle`]: the sessions of one product, environment and definition;
//! - [`site`]: a request's way through the rules of the web.

pub mod handle;
pub mod host;
pub mod site;

use napi::{
    bindgen_prelude::{Error, FnArgs, Function, Result},
    threadsafe_function::ThreadsafeFunctionCallMode,
};
use napi_derive::napi;
use rekindle_binding::Failed;
use serde_json::Value;

/// What failed, as an error; `lib/errors.js` reads its message.
fn thrown(failed: Failed) -> Error {
    Error::from_reason(failed.to_text())
}

/// Calls `told` with each line of the log from now on: level, message and fields.
#[napi]
pub fn on_log(told: Function<'_, FnArgs<(String, String, Value)>, ()>) -> Result<()> {
    // Nobody waits for it: a process whose other work is done may end.
    let told = told.build_threadsafe_function().weak::<true>().build()?;
    rekindle_binding::on_log(move |line| {
        let line = (line.level.to_owned(), line.message.clone(), line.fields.clone().into());
        told.call(line.into(), ThreadsafeFunctionCallMode::NonBlocking);
    });
    Ok(())
}
