//! Where sessions are kept: in an engine in this process, or on servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rekindle::{
    definition::Definition,
    engine::{self, Engine},
    journal::Context,
    refresh::SecretRing,
    session::Scope,
    store::{Environment, Product},
};
use rekindle_client::{Place, Rekindle, remote::Remote, session::Token};
use rekindle_embedded::{Embedded, Location, Opened};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Failed, Handle,
    json::{parse, read_object},
};

/// Where sessions are kept. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Embedded(Arc<Opened>),
    Remote(Box<Remote>),
}

/// An engine to open.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EmbeddedOptions {
    /// As [`Location::parse`] reads it.
    store: String,
    /// The directory of the files that are nowhere else.
    data_dir: PathBuf,
    /// The master secrets; those of the data directory, if they are not given.
    secrets: Option<String>,
    /// Whether the data directory and a master secret in it are made.
    development: bool,
    /// The `iss` of access tokens.
    issuer: String,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            store: "sqlite:".into(),
            data_dir: "./rekindle-data".into(),
            secrets: None,
            development: false,
            issuer: "http://localhost".into(),
        }
    }
}

/// Servers to ask.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoteOptions {
    /// Their URLs.
    servers: Vec<String>,
    /// The API key.
    api_key: Token,
    /// The `iss` of access tokens; the first URL, by default.
    #[serde(default)]
    issuer: Option<String>,
    /// The `aud` of access tokens.
    #[serde(default)]
    audience: Option<String>,
    /// In milliseconds.
    #[serde(default)]
    connect_timeout: Option<u64>,
    /// In milliseconds.
    #[serde(default)]
    timeout: Option<u64>,
}

impl Host {
    /// Opens an engine in this process: `store`, `data_dir`, `secrets`, `development` and `issuer`, all of them optional.
    pub async fn embedded(options: Value) -> Result<Self, Failed> {
        let EmbeddedOptions { store, data_dir, secrets, development, issuer } = read_object("options", options)?;
        let location = Location::parse(&store, &data_dir).map_err(|why| Failed::field("store", why))?;
        let secrets = secrets.map(|text| SecretRing::parse(&text)).transpose();
        let secrets = secrets.map_err(|why| Failed::field("secrets", why))?;
        let embedded = Embedded { secrets, development, ..Embedded::new(location, data_dir, issuer) };
        let opened = embedded.open().await.map_err(|error| Failed::Closed(error.to_string()))?;
        Ok(Self { kind: Kind::Embedded(Arc::new(opened)) })
    }

    /// Servers, none of which is asked yet: `servers`, `api_key`, and optional `issuer`, `audience`, `connect_timeout` and `timeout`.
    pub fn remote(options: Value) -> Result<Self, Failed> {
        let RemoteOptions { servers, api_key, issuer, audience, connect_timeout, timeout } =
            read_object("options", options)?;
        let default = Remote::new("", "");
        let millis = |given: Option<u64>, default| given.map_or(default, Duration::from_millis);
        let remote = Remote {
            servers,
            api_key,
            issuer,
            audience: audience.unwrap_or(default.audience),
            connect_timeout: millis(connect_timeout, default.connect_timeout),
            timeout: millis(timeout, default.timeout),
            ..default
        };
        Ok(Self { kind: Kind::Remote(Box::new(remote)) })
    }

    /// The sessions of one product, environment and definition. With an engine in this process, all three are made where there are
    /// none.
    pub async fn handle(&self, product: &str, env: &str, tag: &str) -> Result<Handle, Failed> {
        let scope = Scope { product: parse("product", product)?, env: parse("env", env)? };
        let place = Place { scope, tag: parse("tag", tag)? };
        match &self.kind {
            Kind::Embedded(opened) => {
                make(&opened.engine, &place).await.map_err(of_engine)?;
                Ok(Handle::new(Rekindle::embedded(opened.engine.clone(), place), Some(opened.clone())))
            }
            Kind::Remote(remote) => {
                let remote = Remote { place, ..Remote::clone(remote) };
                let rekindle = Rekindle::remote(remote).map_err(|error| Failed::Closed(error.to_string()))?;
                Ok(Handle::new(rekindle, None))
            }
        }
    }

    /// Makes or changes the definition of a kind of sessions: `definition` says what is not as by default. Only with an engine in this
    /// process.
    pub async fn define(&self, product: &str, definition: Value) -> Result<(), Failed> {
        let Kind::Embedded(opened) = &self.kind else {
            let why = "definitions on servers are made by their administrators: `PUT /v1/{product}/definitions/{tag}`";
            return Err(Failed::field("define", why));
        };
        let (engine, product) = (&opened.engine, parse("product", product)?);
        let wanted = Definition::from_json(&definition).map_err(|why| Failed::field("definition", why))?;
        let made: Result<_, engine::Error> = async {
            made(
                engine.create_product(Product { tag: Clone::clone(&product), name: product.to_string() }, &by()).await,
            )?;
            if made(engine.create_definition(&product, wanted.clone(), &by()).await)? {
                return Ok(Ok(()));
            }
            let mut again = 1..TRIES;
            loop {
                match engine.patch_definition(&product, &wanted.tag, &definition, &by()).await {
                    // Another process changed it at the same moment: this change goes on top.
                    Err(engine::Error::Conflict(_)) if again.next().is_some() => {}
                    patched => return patched.map(|patched| patched.map(drop)),
                }
            }
        }
        .await;
        made.map_err(of_engine)?.map_err(|why| Failed::field("definition", why))
    }
}

/// How often a definition is changed that others change, too: as often as workers of one application may start at once.
const TRIES: usize = 64;

fn of_engine(error: engine::Error) -> Failed {
    Failed::Problem(error.into())
}

/// By whom configuration is changed here.
fn by() -> Context {
    Context::default()
}

/// Makes what is not there of a product, an environment and a definition.
async fn make(engine: &Engine, place: &Place) -> Result<(), engine::Error> {
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
fn made(made: Result<(), engine::Error>) -> Result<bool, engine::Error> {
    match made {
        Err(engine::Error::Conflict(_)) => Ok(false),
        made => made.map(|()| true),
    }
}
