//! Where sessions are kept: in an engine in this process, or on servers.

use std::sync::Arc;
use std::time::Duration;

use napi::bindgen_prelude::{Error, Result};
use napi_derive::napi;
use rekindle::{
    definition::Definition,
    engine::{self, Engine},
    journal::Context,
    refresh::SecretRing,
    session::Scope,
    store::{Environment, Product},
};
use rekindle_client::{Place, Problem, Rekindle, remote::Remote, session::Token};
use rekindle_embedded::{Embedded, Location, Opened};
use serde_json::Value;

use crate::{
    border::{parse, thrown},
    handle::Handle,
};

/// An engine to open.
#[napi(object)]
pub struct EmbeddedOptions {
    /// `sqlite:`, `sqlite:<path>`, `postgres://…`, `mysql://…`, `redis://…`.
    pub store: String,
    /// The directory of the files that are nowhere else.
    pub data_dir: String,
    /// The master secrets; those of the data directory, if they are not given.
    pub secrets: Option<String>,
    /// Whether the data directory and a master secret in it are made.
    pub development: bool,
    /// The `iss` of access tokens.
    pub issuer: String,
}

/// Servers to ask.
#[napi(object)]
pub struct RemoteOptions {
    /// Their URLs.
    pub servers: Vec<String>,
    /// The API key.
    pub api_key: String,
    /// The `iss` of access tokens; the first URL, by default.
    pub issuer: Option<String>,
    /// The `aud` of access tokens.
    pub audience: Option<String>,
    /// In milliseconds.
    pub connect_timeout: Option<u32>,
    /// In milliseconds.
    pub timeout: Option<u32>,
}

/// Where sessions are kept.
#[napi]
pub struct Host {
    kind: Kind,
}

enum Kind {
    Embedded(Arc<Opened>),
    Remote(Remote),
}

#[napi]
impl Host {
    /// Opens an engine in this process.
    #[napi(factory)]
    pub async fn embedded(options: EmbeddedOptions) -> Result<Self> {
        let EmbeddedOptions { store, data_dir, secrets, development, issuer } = options;
        let location =
            Location::parse(&store, data_dir.as_ref()).map_err(|why| thrown(Problem::field("store", why)))?;
        let secrets = secrets.map(|text| SecretRing::parse(&text)).transpose();
        let secrets = secrets.map_err(|why| thrown(Problem::field("secrets", why.to_string())))?;
        let embedded = Embedded { secrets, development, ..Embedded::new(location, data_dir, issuer) };
        let opened = embedded.open().await.map_err(|error| Error::from_reason(error.to_string()))?;
        Ok(Self { kind: Kind::Embedded(Arc::new(opened)) })
    }

    /// Servers; none of them is asked yet.
    #[napi(factory)]
    pub fn remote(options: RemoteOptions) -> Self {
        let RemoteOptions { servers, api_key, issuer, audience, connect_timeout, timeout } = options;
        let default = Remote::new("", "");
        let millis = |given: Option<u32>, default| given.map_or(default, |ms| Duration::from_millis(ms.into()));
        let remote = Remote {
            servers,
            api_key: Token::new(api_key),
            issuer,
            audience: audience.unwrap_or(default.audience),
            connect_timeout: millis(connect_timeout, default.connect_timeout),
            timeout: millis(timeout, default.timeout),
            ..default
        };
        Self { kind: Kind::Remote(remote) }
    }

    /// The sessions of one product, environment and definition. With an engine in this process, all three are made where there are
    /// none.
    #[napi]
    pub async fn handle(&self, product: String, env: String, tag: String) -> Result<Handle> {
        let scope = Scope { product: parse("product", &product)?, env: parse("env", &env)? };
        let place = Place { scope, tag: parse("tag", &tag)? };
        let (rekindle, opened) = match &self.kind {
            Kind::Embedded(opened) => {
                make(&opened.engine, &place).await.map_err(|error| thrown(error.into()))?;
                (Rekindle::embedded(opened.engine.clone(), place), Some(opened.clone()))
            }
            Kind::Remote(remote) => {
                let remote = Remote { place, ..remote.clone() };
                let rekindle = Rekindle::remote(remote).map_err(|error| Error::from_reason(error.to_string()))?;
                (rekindle, None)
            }
        };
        Ok(Handle::new(rekindle, opened))
    }

    /// Makes or changes the definition of a kind of sessions: `definition` says what is not as by default. Only with an engine in this
    /// process.
    #[napi]
    pub async fn define(&self, product: String, definition: Value) -> Result<()> {
        let Kind::Embedded(opened) = &self.kind else {
            let why = "definitions on servers are made by their administrators: `PUT /v1/{product}/definitions/{tag}`";
            return Err(thrown(Problem::field("define", why)));
        };
        let (engine, product) = (&opened.engine, parse("product", &product)?);
        let invalid = |why: String| thrown(Problem::field("definition", why));
        let wanted = Definition::from_json(&definition).map_err(|why| invalid(why.to_string()))?;
        let made = async {
            made(
                engine.create_product(Product { tag: Clone::clone(&product), name: product.to_string() }, &by()).await,
            )?;
            if made(engine.create_definition(&product, wanted.clone(), &by()).await)? {
                return Ok(Ok(()));
            }
            let patched = engine.patch_definition(&product, &wanted.tag, &definition, &by()).await?;
            Ok::<_, engine::Error>(patched.map(drop))
        };
        let made = made.await.map_err(|error| thrown(error.into()))?;
        made.map_err(|why| invalid(why.to_string()))
    }
}

/// By whom configuration is changed here.
fn by() -> Context {
    Context::default()
}

/// Makes what is not there of a product, an environment and a definition.
async fn make(engine: &Engine, place: &Place) -> std::result::Result<(), engine::Error> {
    let Place { scope: Scope { product, env }, tag } = place;
    if let Err(engine::Error::ProductNotFound(_)) = engine.product(product).await {
        made(engine.create_product(Product { tag: product.clone(), name: product.to_string() }, &by()).await)?;
    }
    if let Err(engine::Error::EnvironmentNotFound(_)) = engine.environment(product, env).await {
        let environment = Environment { slug: env.clone(), name: env.to_string(), active: true };
        made(engine.create_environment(product, environment, &by()).await)?;
    }
    if let Err(engine::Error::DefinitionNotFound(_)) = engine.definition(product, tag).await {
        made(engine.create_definition(product, Definition::default_for(tag.clone()), &by()).await)?;
    }
    Ok(())
}

/// Whether something was made now; what another process made a moment ago is there, too.
fn made(made: std::result::Result<(), engine::Error>) -> std::result::Result<bool, engine::Error> {
    match made {
        Err(engine::Error::Conflict(_)) => Ok(false),
        made => made.map(|()| true),
    }
}
