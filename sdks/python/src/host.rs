//! Where sessions are kept.

use pyo3::prelude::*;

use crate::{handle::Handle, json, pending::Pending, process::InProcess, thrown};

/// As [`rekindle_binding::Host`].
#[pyclass(frozen)]
pub struct Host {
    host: InProcess<rekindle_binding::Host>,
}

impl Host {
    fn new(host: rekindle_binding::Host) -> Self {
        Self { host: InProcess::new(host) }
    }
}

#[pymethods]
impl Host {
    /// Opens an engine in this process.
    #[staticmethod]
    fn embedded(options: &str) -> PyResult<Pending> {
        let options = json(options)?;
        Ok(Pending::new(async { rekindle_binding::Host::embedded(options).await.map(Self::new) }))
    }

    /// Servers; none of them is asked yet.
    #[staticmethod]
    fn remote(options: &str) -> PyResult<Self> {
        rekindle_binding::Host::remote(json(options)?).map(Self::new).map_err(thrown)
    }

    /// The sessions of one product, environment and definition.
    fn handle(&self, product: String, env: String, tag: String) -> Pending {
        let host = self.host.clone();
        Pending::new(async move { host.handle(&product, &env, &tag).await.map(Handle::new) })
    }

    /// Makes or changes a definition.
    fn define(&self, product: String, definition: &str) -> PyResult<Pending> {
        let (host, definition) = (self.host.clone(), json(definition)?);
        Ok(Pending::new(async move { host.define(&product, definition).await }))
    }
}
