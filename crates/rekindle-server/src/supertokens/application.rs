//! Apps: products of ours, with what SuperTokens configures per app in the definition `supertokens`.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{LazyLock, Mutex, PoisonError},
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use rekindle::{
    clock::Timestamp,
    definition::{Definition, DefinitionProblems},
    engine::{Engine, Error},
    journal::Context,
    session::{Env, Scope, Tag},
    store::{Environment, Product},
};
use serde_json::{Map, Value, json};

use super::{
    origin::RefreshKey,
    path::{self, AppId},
    settings::Settings,
};
use crate::{app::App, config::SuperTokens};

/// An app as it is now.
#[derive(Debug, Clone)]
pub(super) struct Application {
    /// Its id.
    pub(super) id: AppId,
    /// Its settings.
    pub(super) settings: Settings,
    /// Absent for the app `public` that was never used.
    definition: Option<Definition>,
}

/// The member of a definition's metadata with the tenants.
const TENANTS: &str = "tenants";

/// The one about the core that the app was imported from.
const IMPORT: &str = "import";

/// The definition of every session of the face.
pub(super) fn tag() -> Tag {
    "supertokens".parse().expect("a valid tag")
}

impl Application {
    /// An app that was never used.
    pub(super) fn new(server: &SuperTokens, id: AppId) -> Self {
        Self { id, settings: Settings::of(server, &Map::new()), definition: None }
    }

    /// The app with this id. The app `public` is always there; others were created.
    pub(super) async fn open(engine: &Engine, server: &SuperTokens, id: AppId) -> Result<Option<Self>, Error> {
        let found = engine.known_definition(&id.scope(&path::public()), &tag()).await;
        let definition = match found {
            Ok(definition) => Some(definition),
            Err(Error::ProductNotFound(_) | Error::EnvironmentNotFound(_) | Error::DefinitionNotFound(_)) => None,
            Err(error) => return Err(error),
        };
        if definition.is_none() && id != AppId::public() {
            return Ok(None);
        }
        let empty = Map::new();
        let settings = Settings::of(server, definition.as_ref().map_or(&empty, |d| &d.metadata));
        Ok(Some(Self { id, settings, definition }))
    }

    /// The key that opens the refresh tokens of the core that the app was imported from, for as long as one of them can be good.
    pub(super) fn refresh_key(&self, engine: &Engine) -> Option<RefreshKey> {
        let (wrapped, until) = self.wrapped_refresh_key()?;
        let key = engine.secrets().unwrap(&self.key_context(), &wrapped).filter(|_| engine.now() < until)?;
        Some(RefreshKey::new(String::from_utf8(key.to_vec()).ok()?))
    }

    /// Keeps that key, wrapped, for as long as one of its tokens can be good.
    pub(super) async fn adopt_refresh_key(
        &mut self,
        engine: &Engine,
        server: &SuperTokens,
        key: &RefreshKey,
        until: Timestamp,
        ctx: &Context,
    ) -> Result<(), Error> {
        if let Some(known) = self.refresh_key(engine) {
            if known.expose() != key.expose() {
                let problem =
                    "was imported from another installation, whose sessions would end; import into another app";
                return Err(Error::Conflict(format!("the app `{}` {problem}", self.id)));
            }
            if self.wrapped_refresh_key().is_some_and(|(_, known)| known >= until) {
                return Ok(());
            }
        }
        let mut metadata = self.metadata().clone();
        metadata.insert(IMPORT.into(), self.wrapped(engine, key, until));
        self.write(engine, server, metadata, ctx).await
    }

    fn wrapped(&self, engine: &Engine, key: &RefreshKey, until: Timestamp) -> Value {
        let wrapped = engine.secrets().wrap(&self.key_context(), key.expose().as_bytes());
        json!({ "refresh_key": BASE64_URL_SAFE_NO_PAD.encode(wrapped), "until": until.millis() })
    }

    fn wrapped_refresh_key(&self) -> Option<(Vec<u8>, Timestamp)> {
        let import = self.metadata().get(IMPORT)?;
        let wrapped = BASE64_URL_SAFE_NO_PAD.decode(import["refresh_key"].as_str()?).ok()?;
        Some((wrapped, Timestamp::from_millis(import["until"].as_i64()?)))
    }

    fn key_context(&self) -> String {
        format!("rekindle/v1/supertokens-refresh-key {}", self.id)
    }

    /// The metadata, with the refresh key under the current master secret; nothing where it is, or where there is none.
    fn rewrapped(&self, engine: &Engine) -> Option<Map<String, Value>> {
        let (wrapped, until) = self.wrapped_refresh_key()?;
        if wrapped.first() == Some(&engine.secrets().current()) {
            return None;
        }
        let key = self.refresh_key(engine)?;
        let mut metadata = self.metadata().clone();
        metadata.insert(IMPORT.into(), self.wrapped(engine, &key, until));
        Some(metadata)
    }

    /// Makes sure that sessions can be started: the app `public` is made when it is first used, and changed settings of the
    /// server reach its definition.
    pub(super) async fn prepare(&mut self, server: &App, ctx: &Context) -> Result<(), Error> {
        let (engine, config) = (server.engine(), &server.config().supertokens);
        let Some(definition) = &self.definition else {
            return self.write(engine, config, self.metadata().clone(), ctx).await;
        };
        let rewrapped = self.rewrapped(engine);
        if (rewrapped.is_none() && self.settings.fit(definition)) || !server.prepared().is_first(&self.id) {
            return Ok(());
        }
        let metadata = rewrapped.unwrap_or_else(|| self.metadata().clone());
        match self.write(engine, config, metadata, ctx).await {
            Err(Error::Invalid { field, problem }) => {
                tracing::warn!(field, problem, "the lifetimes of app `{}` stay as they were", self.id);
                Ok(())
            }
            Err(error) => {
                server.prepared().again(&self.id);
                Err(error)
            }
            done => done,
        }
    }

    /// Creates an app or changes its configuration; the app, and whether it was created.
    pub(super) async fn put(
        engine: &Engine,
        server: &SuperTokens,
        id: AppId,
        core_config: &Map<String, Value>,
        ctx: &Context,
    ) -> Result<Result<(Self, bool), String>, Error> {
        let found = Self::open(engine, server, id.clone()).await?;
        let created = found.is_none();
        let mut app = found.unwrap_or_else(|| Self::new(server, id));
        let metadata = match Settings::changed(server, app.metadata(), core_config) {
            Ok(metadata) => metadata,
            Err(problem) => return Ok(Err(problem)),
        };
        app.write(engine, server, metadata, ctx).await?;
        Ok(Ok((app, created)))
    }

    /// Its tenants beside `public`, with what they are configured with.
    pub(super) fn tenants(&self) -> BTreeMap<Env, Value> {
        let tenants = self.metadata().get(TENANTS).and_then(Value::as_object).into_iter().flatten();
        tenants.filter_map(|(tenant, config)| Some((tenant.parse().ok()?, config.clone()))).collect()
    }

    /// Whether it has this tenant.
    pub(super) fn has(&self, tenant: &Env) -> bool {
        *tenant == path::public()
            || self.metadata().get(TENANTS).is_some_and(|tenants| tenants.get(tenant.as_str()).is_some())
    }

    /// Creates a tenant or changes what it is configured with (null takes a member back); whether it was created.
    pub(super) async fn put_tenant(
        &mut self,
        engine: &Engine,
        server: &SuperTokens,
        tenant: &Env,
        config: Map<String, Value>,
        ctx: &Context,
    ) -> Result<bool, Error> {
        let created = !self.has(tenant);
        if created && engine.environment(&self.id.product(), tenant).await.is_ok() {
            return Err(Error::Conflict(format!("there is an environment `{tenant}` already, and it is not a tenant")));
        }
        let mut metadata = self.metadata().clone();
        let tenants = metadata.entry(TENANTS).or_insert_with(|| json!({}));
        rekindle::merge_patch(tenants, &json!({ tenant.as_str(): config }));
        self.write(engine, server, metadata, ctx).await?;
        let environment = Environment { slug: tenant.clone(), name: tenant.to_string(), active: true };
        made_now(engine.create_environment(&self.id.product(), environment, ctx).await)?;
        Ok(created)
    }

    /// Removes a tenant without active sessions; whether there was one.
    pub(super) async fn remove_tenant(
        &mut self,
        engine: &Engine,
        server: &SuperTokens,
        tenant: &Env,
        ctx: &Context,
    ) -> Result<bool, Error> {
        if *tenant == path::public() || !self.has(tenant) {
            return Ok(false);
        }
        match engine.delete_environment(self.id.scope(tenant), ctx).await {
            Ok(()) | Err(Error::EnvironmentNotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let mut metadata = self.metadata().clone();
        if let Some(Value::Object(tenants)) = metadata.get_mut(TENANTS) {
            tenants.remove(tenant.as_str());
        }
        self.write(engine, server, metadata, ctx).await?;
        Ok(true)
    }

    /// The scope of a tenant's sessions.
    pub(super) fn scope(&self, tenant: &Env) -> Scope {
        self.id.scope(tenant)
    }

    /// The definition's policies; those of a new one where it was never used.
    pub(super) fn definition(&self) -> Option<&Definition> {
        self.definition.as_ref()
    }

    /// The definition that it gets when it is first used.
    pub(super) fn new_definition(&self) -> Result<Definition, Error> {
        new_definition(&self.settings, self.metadata())
    }

    /// The app's own part of its settings.
    pub(super) fn metadata(&self) -> &Map<String, Value> {
        static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        self.definition.as_ref().map_or(&EMPTY, |definition| &definition.metadata)
    }

    /// Writes what of the definition differs from what is known of it, and makes all that is not there.
    async fn write(
        &mut self,
        engine: &Engine,
        server: &SuperTokens,
        metadata: Map<String, Value>,
        ctx: &Context,
    ) -> Result<(), Error> {
        let (product, settings) = (self.id.product(), Settings::of(server, &metadata));
        let created = self.definition.is_none() && self.create(engine, &settings, &metadata, ctx).await?;
        if !created {
            let mut patch = settings.lifetimes();
            patch["metadata"] = difference(self.metadata(), &metadata);
            let mut tries = TRIES;
            // What it says of other members is nothing: whoever writes at the same time loses nothing.
            while let Err(error) =
                engine.patch_definition(&product, &tag(), &patch, ctx).await.and_then(|valid| valid.map_err(invalid))
            {
                tries -= 1;
                if tries == 0 || !matches!(error, Error::Conflict(_)) {
                    return Err(error);
                }
            }
        }
        let definition = engine.definition(&product, &tag()).await?.definition;
        self.settings = Settings::of(server, &definition.metadata);
        self.definition = Some(definition);
        Ok(())
    }

    /// Makes product, environment and definition; whether it made the definition. Otherwise another server was faster.
    async fn create(
        &self,
        engine: &Engine,
        settings: &Settings,
        metadata: &Map<String, Value>,
        ctx: &Context,
    ) -> Result<bool, Error> {
        let product = self.id.product();
        let made = engine.create_product(Product { tag: product.clone(), name: self.id.to_string() }, ctx).await;
        if !made_now(made)? && self.id != AppId::public() {
            let there = engine.product(&product).await?;
            let ours = |(_, definition): &(u32, Definition)| definition.tag == tag();
            if !there.definitions.iter().all(ours) || there.environments.iter().any(|e| e.slug != path::public()) {
                return Err(Error::Conflict(format!("there is a product `{product}` already, and it is not an app")));
            }
        }
        let public = Environment { slug: path::public(), name: "Public".into(), active: true };
        made_now(engine.create_environment(&product, public, ctx).await)?;
        made_now(engine.create_definition(&product, new_definition(settings, metadata)?, ctx).await)
    }
}

/// How often what was changed meanwhile is changed again.
const TRIES: u32 = 8;

/// The apps whose definitions this server has brought to its settings: each once, or servers with different settings would undo each
/// other's for ever.
#[derive(Default)]
pub(crate) struct Prepared(Mutex<HashSet<AppId>>);

impl Prepared {
    fn is_first(&self, id: &AppId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone())
    }

    fn again(&self, id: &AppId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// The definition of an app that is used for the first time.
fn new_definition(settings: &Settings, metadata: &Map<String, Value>) -> Result<Definition, Error> {
    let mut definition = settings.lifetimes();
    let rest = json!({
        "tag": tag(), "name": "SuperTokens", "metadata": metadata,
        "refresh": { "reuse_leeway": 0, "on_theft": "report_only" },
    });
    rekindle::merge_patch(&mut definition, &rest);
    Definition::from_json(&definition).map_err(invalid)
}

fn invalid(problems: DefinitionProblems) -> Error {
    Error::Invalid { field: "coreConfig", problem: problems.to_string() }
}

/// Whether something was made now; what another server made a moment ago is there, too.
fn made_now(made: Result<(), Error>) -> Result<bool, Error> {
    match made {
        Err(Error::Conflict(_)) => Ok(false),
        made => made.map(|()| true),
    }
}

/// The merge patch that makes `new` of `old`, and says nothing of what is the same in both.
fn difference(old: &Map<String, Value>, new: &Map<String, Value>) -> Value {
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let other = new.iter().filter(|(name, value)| old.get(*name) != Some(value)).map(|(name, value)| {
        let value = match (old.get(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => difference(old, new),
            _ => value.clone(),
        };
        (name.clone(), value)
    });
    Value::Object(gone.chain(other).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle::definition::Lifetime;

    #[test]
    fn a_patch_replaces_nested_members_too() {
        let (old, new) = (json!({ "a": { "x": 1, "y": { "z": 1 } }, "b": 1 }), json!({ "a": { "y": {} }, "c": [1] }));
        let mut patched = old.clone();
        let patch = difference(old.as_object().unwrap(), new.as_object().unwrap());
        rekindle::merge_patch(&mut patched, &patch);
        assert_eq!(patched, new);
        assert_eq!(patch, json!({ "a": { "x": null, "y": { "z": null } }, "b": null, "c": [1] }));
        assert_eq!(difference(new.as_object().unwrap(), new.as_object().unwrap()), json!({}));
    }

    #[test]
    fn any_lifetime_that_is_configurable_fits_a_definition() {
        let settings = Settings::of(&SuperTokens::default(), &Map::new());
        let extreme = Settings { refresh_token_validity: Lifetime::MAX.seconds(), ..settings };
        let mut value = extreme.lifetimes();
        rekindle::merge_patch(&mut value, &json!({ "tag": "supertokens" }));
        assert!(extreme.fit(&Definition::from_json(&value).unwrap()));
    }
}
