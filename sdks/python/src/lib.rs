//! The native half of the Python package `rekindle`: `rekindle-binding` as Python waits for it and throws it. `rekindle/` has the half
//! that its users see: names, types, errors and documentation.
//!
//! - [`host`]: where sessions are kept; [`handle`]: the sessions of one product, environment and definition;
//! - [`site`]: a request's way through the rules of the web;
//! - [`pending`]: work that Python waits for; [`process`]: what survives a fork.

pub mod handle;
pub mod host;
pub mod pending;
pub mod process;
pub mod site;

use pyo3::{create_exception, exceptions::PyException, prelude::*};
use rekindle_binding::Failed;
use serde_json::Value;

create_exception!(
    rekindle._native,
    NativeError,
    PyException,
    "What failed, as `rekindle.errors` reads it: the JSON of a problem, or a sentence."
);

/// The module `rekindle._native`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::{
        NativeError,
        handle::Handle,
        host::Host,
        on_log,
        pending::Pending,
        site::{Exchange, Session, Site, check_web},
    };
}

fn thrown(failed: Failed) -> PyErr {
    NativeError::new_err(failed.to_text())
}

/// Calls `told`, on whichever thread it happens, with each line of the log from now on: level, message and fields as JSON.
#[pyfunction]
fn on_log(told: Py<PyAny>) {
    rekindle_binding::on_log(move |line| {
        let fields = Value::from(line.fields.clone()).to_string();
        Python::try_attach(|py| {
            if let Err(error) = told.call1(py, (line.level, &line.message, fields)) {
                error.write_unraisable(py, Some(told.bind(py)));
            }
        });
    });
}

/// A value that came over the border as JSON.
fn json(text: &str) -> PyResult<Value> {
    serde_json::from_str(text).map_err(|why| thrown(Failed::invalid(&why.to_string())))
}
