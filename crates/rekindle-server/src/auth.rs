//! Who calls: API keys, what they may do, and how much of it.

use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use rekindle::{
    engine::{Engine, Error},
    journal::Context,
    session::Client,
    store::{ApiKey, Permission},
};

use crate::{
    app::App,
    completion::to_completion,
    edge::RequestContext,
    problem::{Code, Problem},
};

/// A caller whose API key may do what `N` names. Extract it first: nothing else of a request is looked at without it.
pub struct Caller<N> {
    key: Arc<ApiKey>,
    request: RequestContext,
    needs: PhantomData<N>,
}

impl<N> Caller<N> {
    /// What goes into events: from where the *user* came, as the calling backend says it.
    pub fn on_behalf_of(&self, client: Option<Client>) -> Context {
        Context {
            client: client.unwrap_or_default().bounded(),
            request_id: Some(self.request.id().to_owned()),
            actor: Some(self.key.id.clone()),
        }
    }

    /// What goes into events and the audit log when the caller acts for itself: its own address.
    pub fn itself(&self) -> Context {
        let ip = self.request.client_ip().map(|ip| ip.to_string());
        self.on_behalf_of(Some(Client { ip, ..Client::default() }))
    }
}

/// A permission as a type.
pub trait Needs: Send + Sync + 'static {
    /// Which.
    const PERMISSION: Permission;
}

macro_rules! needs {
    ($($name:ident)*) => {
        $(
            #[doc = concat!("[`Permission::", stringify!($name), "`].")]
            pub struct $name;

            impl Needs for $name {
                const PERMISSION: Permission = Permission::$name;
            }
        )*
    };
}

needs! { Sessions Read Confirm Admin Metrics }

impl<N: Needs> FromRequestParts<App> for Caller<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let secret = bearer(&parts.headers)
            .filter(|secret| secret.starts_with("rkk_"))
            .ok_or_else(|| Problem::new(Code::Unauthorized, "send `Authorization: Bearer <API key>` (rkk_…)"))?;
        let key = ApiKeys::find(app, secret).await?;
        let request = RequestContext::of(&parts.extensions);
        match app.rate_limit().check(&key.id) {
            Ok(allowance) => request.note_allowance(allowance),
            Err(problem) => {
                request.note_exhausted();
                return Err(problem);
            }
        }
        if !key.may(N::PERMISSION) {
            let problem = format!("this API key lacks the scope `{}`", N::PERMISSION.as_str());
            return Err(Problem::new(Code::Forbidden, problem));
        }
        Ok(Self { key, request, needs: PhantomData })
    }
}

/// The credentials of an `Authorization: Bearer` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// The API keys in force, read again at most once per second: a new or a revoked key is known after that time.
#[derive(Default)]
pub struct ApiKeys {
    known: ArcSwapOption<HashMap<[u8; 32], Arc<ApiKey>>>,
    read_at: AtomicI64,
}

const READ_EVERY_MILLIS: i64 = 1000;

impl ApiKeys {
    /// The key with this secret, if there is one in force.
    pub(crate) async fn find(app: &App, secret: &str) -> Result<Arc<ApiKey>, Problem> {
        let (keys, hash, now) = (app.api_keys(), ApiKey::hash_of(secret), app.engine().now().millis());
        let read_at = keys.read_at.load(Ordering::Relaxed);
        let due = !(0..READ_EVERY_MILLIS).contains(&now.saturating_sub(read_at));
        // One request of many reads.
        let mine = || keys.read_at.compare_exchange(read_at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if keys.known.load().is_none() {
            keys.read(app.engine()).await?;
        } else if due && mine() {
            let app = app.clone();
            // Also when its caller hangs up: nobody else reads before the next time.
            let reading = async move {
                // While the store is out, what was known stays in force.
                if let Err(error) = app.api_keys().read(app.engine()).await {
                    tracing::warn!(%error, "the API keys could not be read again");
                }
                Ok::<(), Error>(())
            };
            to_completion(reading).await?;
        }
        let known = keys.known.load();
        let key = known.as_ref().and_then(|known| known.get(&hash)).filter(|key| key.accepts(&hash));
        key.cloned().ok_or_else(|| Problem::new(Code::Unauthorized, "this API key is not known, or was revoked"))
    }

    async fn read(&self, engine: &Engine) -> Result<(), Error> {
        let keys = engine.api_keys().await?;
        self.known.store(Some(Arc::new(keys.into_iter().map(|key| (key.hash, Arc::new(key))).collect())));
        Ok(())
    }
}
