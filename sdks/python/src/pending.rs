//! Work that Python waits for, in either of its ways.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;

use pyo3::{IntoPyObjectExt as _, exceptions::PyRuntimeError, prelude::*};
use rekindle_binding::Failed;

use crate::{process::runtime, thrown};

/// What came of it, for whoever holds the interpreter.
type Done = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;
type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Work that begins when it is waited for, once.
#[pyclass(frozen)]
pub struct Pending {
    work: Mutex<Option<Work>>,
}

impl Pending {
    /// Work whose value Python gets.
    pub fn new<T>(work: impl Future<Output = Result<T, Failed>> + Send + 'static) -> Self
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        let work = async {
            let done = work.await;
            Box::new(|py: Python<'_>| done.map_err(thrown)?.into_py_any(py)) as Done
        };
        Self { work: Mutex::new(Some(Box::pin(work))) }
    }

    fn take(&self) -> PyResult<Work> {
        let work = self.work.lock().ok().and_then(|mut work| work.take());
        work.ok_or_else(|| PyRuntimeError::new_err("this was waited for already"))
    }
}

#[pymethods]
impl Pending {
    /// Blocks this thread, and no other.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let work = self.take()?;
        let done = py.detach(|| runtime().block_on(work));
        done(py)
    }

    /// Calls `told` with a value and an error, one of which is None, from a thread of its own.
    fn later(&self, told: Py<PyAny>) -> PyResult<()> {
        let work = self.take()?;
        runtime().spawn(async move {
            let done = work.await;
            // An interpreter on its way out does not want to know; nor does a closed event loop.
            let _ = Python::try_attach(|py| {
                let told = match done(py) {
                    Ok(value) => told.call1(py, (value, py.None())),
                    Err(error) => told.call1(py, (py.None(), error)),
                };
                told.map(drop)
            });
        });
        Ok(())
    }
}
