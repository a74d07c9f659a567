//! The sessions of one product, environment and definition.

use pyo3::prelude::*;

use crate::{json, pending::Pending, process::InProcess, site::Site, thrown};

/// As [`rekindle_binding::Handle`]; values come and go as JSON.
#[pyclass(frozen)]
pub struct Handle {
    handle: InProcess<rekindle_binding::Handle>,
}

impl Handle {
    pub(crate) fn new(handle: rekindle_binding::Handle) -> Self {
        Self { handle: InProcess::new(handle) }
    }
}

#[pymethods]
impl Handle {
    /// Starts a session.
    fn start(&self, start: &str) -> PyResult<Pending> {
        let (handle, start) = (self.handle.clone(), json(start)?);
        Ok(Pending::new(async move { handle.start(start).await.map(|value| value.to_string()) }))
    }

    /// Rotates a refresh token.
    fn refresh(&self, refresh: &str) -> PyResult<Pending> {
        let (handle, refresh) = (self.handle.clone(), json(refresh)?);
        Ok(Pending::new(async move { handle.refresh(refresh).await.map(|value| value.to_string()) }))
    }

    /// A refresh after the user authenticated again.
    fn elevate(&self, refresh: &str, auth: &str) -> PyResult<Pending> {
        let (handle, refresh, auth) = (self.handle.clone(), json(refresh)?, json(auth)?);
        Ok(Pending::new(async move { handle.elevate(refresh, auth).await.map(|value| value.to_string()) }))
    }

    /// Buys a short access token for a refresh token.
    #[pyo3(signature = (refresh_token, lifetime=None))]
    fn mint(&self, refresh_token: String, lifetime: Option<u32>) -> Pending {
        let handle = self.handle.clone();
        Pending::new(async move { handle.mint(refresh_token, lifetime).await.map(|value| value.to_string()) })
    }

    /// What an access token says, if it is good.
    fn verify(&self, access_token: String, trusted: String) -> Pending {
        let handle = self.handle.clone();
        Pending::begun(async move { handle.verify(access_token, &trusted).await.map(|value| value.to_string()) })
    }

    /// What an access token's session holds.
    fn look(&self, access_token: String) -> Pending {
        let handle = self.handle.clone();
        Pending::new(async move { handle.look(access_token).await.map(|value| value.to_string()) })
    }

    /// Reports generations that were seen in use.
    fn confirm(&self, seen: &str) -> PyResult<Pending> {
        let (handle, seen) = (self.handle.clone(), json(seen)?);
        Ok(Pending::new(async move { handle.confirm(seen).await }))
    }

    /// Ends the session of a refresh or access token.
    fn sign_out(&self, token: String) -> Pending {
        let handle = self.handle.clone();
        Pending::new(async move { handle.sign_out(token).await })
    }

    /// Ends a session.
    fn revoke(&self, session_id: String) -> Pending {
        let handle = self.handle.clone();
        Pending::new(async move { handle.revoke(&session_id).await })
    }

    /// Ends all of a user's sessions, or all but one.
    #[pyo3(signature = (user_id, except_=None))]
    fn revoke_user(&self, user_id: String, except_: Option<String>) -> Pending {
        let handle = self.handle.clone();
        Pending::new(async move { handle.revoke_user(&user_id, except_.as_deref()).await })
    }

    /// The same because a credential changed.
    #[pyo3(signature = (user_id, keep=None))]
    fn credential_changed(&self, user_id: String, keep: Option<String>) -> Pending {
        let handle = self.handle.clone();
        Pending::new(async move { handle.credential_changed(&user_id, keep.as_deref()).await })
    }

    /// A page of sessions.
    fn list(&self, list: &str) -> PyResult<Pending> {
        let (handle, list) = (self.handle.clone(), json(list)?);
        Ok(Pending::new(async move { handle.list(list).await.map(|value| value.to_string()) }))
    }

    /// A session.
    fn read(&self, session_id: String) -> Pending {
        let handle = self.handle.clone();
        Pending::new(async move { handle.read(&session_id).await.map(|value| value.to_string()) })
    }

    /// Changes a session's data and claims.
    fn patch(&self, session_id: String, patch: &str) -> PyResult<Pending> {
        let (handle, patch) = (self.handle.clone(), json(patch)?);
        Ok(Pending::new(async move { handle.patch(&session_id, patch).await.map(|value| value.to_string()) }))
    }

    /// Calls `told`, from a thread of its own, with each session that ends or is elevated from now on, and the generation from which on it
    /// is good.
    fn on_revoked(&self, told: Py<PyAny>) {
        self.handle.on_revoked(move |session_id, below_generation| {
            // What it throws has nobody to go to but Python's own hook.
            Python::try_attach(|py| {
                if let Err(error) = told.call1(py, (session_id, below_generation)) {
                    error.write_unraisable(py, Some(told.bind(py)));
                }
            });
        });
    }

    /// Whether it is not known at present what was revoked.
    fn is_stale(&self) -> bool {
        self.handle.is_stale()
    }

    /// Removes what is over from the store.
    fn sweep(&self) -> Pending {
        let handle = self.handle.clone();
        Pending::new(async move { handle.sweep().await })
    }

    /// The rules of the web for these sessions.
    #[pyo3(signature = (options, csrf_key=None))]
    fn site(&self, options: &str, csrf_key: Option<&[u8]>) -> PyResult<Site> {
        Ok(Site::new(self.handle.site(json(options)?, csrf_key).map_err(thrown)?))
    }
}
