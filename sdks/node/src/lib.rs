//! The native half of the npm package `rekindle`: `rekindle-binding` as Node.js waits for it and throws it. `lib/` has the half that its
//! users see: names, shapes, errors and documentation.
//!
//! - [`host`]: where sessions are kept; [`handle`]: the sessions of one product, environment and definition;
//! - [`site`]: a request's way through the rules of the web.

pub mod handle;
pub mod host;
pub mod site;

use std::future::Future;

use napi::{
    Either, Env,
    bindgen_prelude::{Error, FnArgs, Function, PromiseRaw, Result, ToNapiValue, within_runtime_if_available},
    threadsafe_function::ThreadsafeFunctionCallMode,
};
use napi_derive::napi;
use rekindle_binding::{Begun, Failed};
use serde_json::Value;

/// What failed, as an error; `lib/errors.js` reads its message.
fn thrown(failed: Failed) -> Error {
    Error::from_reason(failed.to_text())
}

/// What is there at once, or a promise.
type Prompt<'env, T> = Either<T, PromiseRaw<'env, T>>;

/// Begins work that mostly waits for nothing: no other thread has to wake this one for it.
fn begun<T: ToNapiValue + Send + 'static>(
    env: &Env,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<Prompt<'_, T>> {
    match within_runtime_if_available(|| Begun::new(work)) {
        Begun::Done(done) => done.map(Either::A),
        Begun::Waiting(rest) => env.spawn_future(rest).map(Either::B),
    }
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
