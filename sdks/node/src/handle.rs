//! The sessions of one product, environment and definition.

use napi::{
    Env,
    bindgen_prelude::{Buffer, FnArgs, Function, Result},
    threadsafe_function::ThreadsafeFunctionCallMode,
};
use napi_derive::napi;
use serde_json::Value;

use crate::{Prompt, begun, site::Site, thrown};

/// As [`rekindle_binding::Handle`].
#[napi]
pub struct Handle {
    handle: rekindle_binding::Handle,
}

impl Handle {
    pub(crate) fn new(handle: rekindle_binding::Handle) -> Self {
        Self { handle }
    }
}

/// JavaScript has no integers of 64 bits without a sign.
fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[napi]
impl Handle {
    /// Starts a session.
    #[napi]
    pub async fn start(&self, start: Value) -> Result<Value> {
        self.handle.start(start).await.map_err(thrown)
    }

    /// Rotates a refresh token.
    #[napi]
    pub async fn refresh(&self, refresh: Value) -> Result<Value> {
        self.handle.refresh(refresh).await.map_err(thrown)
    }

    /// A refresh after the user authenticated again.
    #[napi]
    pub async fn elevate(&self, refresh: Value, auth: Value) -> Result<Value> {
        self.handle.elevate(refresh, auth).await.map_err(thrown)
    }

    /// Buys a short access token for a refresh token.
    #[napi]
    pub async fn mint(&self, refresh_token: String, lifetime: Option<u32>) -> Result<Value> {
        self.handle.mint(refresh_token, lifetime).await.map_err(thrown)
    }

    /// What an access token says, if it is good; a promise only where something has to be waited for.
    #[napi]
    pub fn verify<'env>(&self, env: &'env Env, access_token: String, trusted: String) -> Result<Prompt<'env, Value>> {
        let handle = self.handle.clone();
        begun(env, async move { handle.verify(access_token, &trusted).await.map_err(thrown) })
    }

    /// Reports generations that were seen in use.
    #[napi]
    pub async fn confirm(&self, seen: Value) -> Result<()> {
        self.handle.confirm(seen).await.map_err(thrown)
    }

    /// Ends the session of a refresh or access token.
    #[napi]
    pub async fn sign_out(&self, token: String) -> Result<()> {
        self.handle.sign_out(token).await.map_err(thrown)
    }

    /// Ends a session.
    #[napi]
    pub async fn revoke(&self, session_id: String) -> Result<()> {
        self.handle.revoke(&session_id).await.map_err(thrown)
    }

    /// Ends all of a user's sessions, or all but one.
    #[napi]
    pub async fn revoke_user(&self, user_id: String, except: Option<String>) -> Result<i64> {
        self.handle.revoke_user(&user_id, except.as_deref()).await.map(count).map_err(thrown)
    }

    /// The same because a credential changed.
    #[napi]
    pub async fn credential_changed(&self, user_id: String, keep: Option<String>) -> Result<i64> {
        self.handle.credential_changed(&user_id, keep.as_deref()).await.map(count).map_err(thrown)
    }

    /// A page of sessions.
    #[napi]
    pub async fn list(&self, list: Value) -> Result<Value> {
        self.handle.list(list).await.map_err(thrown)
    }

    /// A session.
    #[napi]
    pub async fn read(&self, session_id: String) -> Result<Value> {
        self.handle.read(&session_id).await.map_err(thrown)
    }

    /// Changes a session's data and claims.
    #[napi]
    pub async fn patch(&self, session_id: String, patch: Value) -> Result<Value> {
        self.handle.patch(&session_id, patch).await.map_err(thrown)
    }

    /// Calls `told` with each session that ends or is elevated from now on, and the generation from which on it is good.
    #[napi]
    pub fn on_revoked(&self, told: Function<'_, FnArgs<(String, Option<u32>)>, ()>) -> Result<()> {
        // Nobody waits for it: a process whose other work is done may end.
        let told = told.build_threadsafe_function().weak::<true>().build()?;
        self.handle.on_revoked(move |session_id, below_generation| {
            told.call((session_id, below_generation).into(), ThreadsafeFunctionCallMode::NonBlocking);
        });
        Ok(())
    }

    /// Whether it is not known at present what was revoked.
    #[napi]
    pub fn is_stale(&self) -> bool {
        self.handle.is_stale()
    }

    /// Removes what is over from the store.
    #[napi]
    pub async fn sweep(&self) -> Result<i64> {
        self.handle.sweep().await.map(count).map_err(thrown)
    }

    /// The rules of the web for these sessions.
    #[napi]
    pub fn site(&self, options: Value, csrf_key: Option<Buffer>) -> Result<Site> {
        Ok(Site::new(self.handle.site(options, csrf_key.as_deref()).map_err(thrown)?))
    }
}
