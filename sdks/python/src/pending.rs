//! Work that Python waits for, in either of its ways.

use std::future::Future;
use std::sync::Mutex;

use pyo3::{IntoPyObjectExt as _, exceptions::PyRuntimeError, prelude::*};
use rekindle_binding::{Begun, Failed};

use crate::{process::runtime, thrown};

/// What came of it, for whoever holds the interpreter.
type Done = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// Work that is waited for, once.
#[pyclass(frozen)]
pub struct Pending {
    work: Mutex<Option<Begun<Done>>>,
}

impl Pending {
    /// Work whose value Python gets, and that begins when it is waited for.
    pub fn new<T>(work: impl Future<Output = Result<T, Failed>> + Send + 'static) -> Self
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        Self::of(Begun::Waiting(Box::pin(told(work))))
    }

    /// Work that mostly waits for nothing, and begins here: no other thread has to wake this one for it.
    pub fn begun<T>(work: impl Future<Output = Result<T, Failed>> + Send + 'static) -> Self
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        let runtime = runtime();
        let _inside = runtime.enter();
        Self::of(Begun::new(told(work)))
    }

    fn of(work: Begun<Done>) -> Self {
        Self { work: Mutex::new(Some(work)) }
    }

    fn take(&self) -> PyResult<Begun<Done>> {
        let work = self.work.lock().ok().and_then(|mut work| work.take());
        work.ok_or_else(|| PyRuntimeError::new_err("this was waited for already"))
    }
}

/// What comes of work, for Python.
async fn told<T>(work: impl Future<Output = Result<T, Failed>>) -> Done
where
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    let done = work.await;
    Box::new(|py: Python<'_>| done.map_err(thrown)?.into_py_any(py))
}

#[pymethods]
impl Pending {
    /// Whether nothing has to be waited for any more.
    fn done(&self) -> bool {
        self.work.lock().is_ok_and(|work| matches!(*work, Some(Begun::Done(_))))
    }

    /// Blocks this thread, and no other.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let done = match self.take()? {
            Begun::Done(done) => done,
            Begun::Waiting(work) => py.detach(|| runtime().block_on(work)),
        };
        done(py)
    }

    /// Calls `told` with a value and an error, one of which is None, from a thread of its own.
    fn later(&self, told: Py<PyAny>) -> PyResult<()> {
        let work = self.take()?;
        runtime().spawn(async move {
            let done = match work {
                Begun::Done(done) => done,
                Begun::Waiting(work) => work.await,
            };
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
