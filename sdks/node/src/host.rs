//! Where sessions are kept.

use napi::bindgen_prelude::Result;
use napi_derive::napi;
use serde_json::Value;

use crate::{handle::Handle, thrown};

/// As [`rekindle_binding::Host`].
#[napi]
pub struct Host {
    host: rekindle_binding::Host,
}

#[napi]
impl Host {
    /// Opens an engine in this process.
    #[napi(factory)]
    pub async fn embedded(options: Value) -> Result<Self> {
        Ok(Self { host: rekindle_binding::Host::embedded(options).await.map_err(thrown)? })
    }

    /// Servers; none of them is asked yet.
    #[napi(factory)]
    pub fn remote(options: Value) -> Result<Self> {
        Ok(Self { host: rekindle_binding::Host::remote(options).map_err(thrown)? })
    }

    /// The sessions of one product, environment and definition.
    #[napi]
    pub async fn handle(&self, product: String, env: String, tag: String) -> Result<Handle> {
        Ok(Handle::new(self.host.handle(&product, &env, &tag).await.map_err(thrown)?))
    }

    /// Makes or changes a definition.
    #[napi]
    pub async fn define(&self, product: String, definition: Value) -> Result<()> {
        self.host.define(&product, definition).await.map_err(thrown)
    }
}
