//! Apps: products of ours, with what SuperTokens configures per app in the definition `supertokens`.

use std::{collections::BTreeMap, sync::LazyLock};

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
use crate::config::SuperTokens;

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
    pub(super) async fn prepare(&mut self, engine: &Engine, server: &SuperTokens, ctx: &Context) -> Result<(), Error> {
        let rewrapped = self.rewrapped(engine);
        if rewrapped.is_none() && self.definition.as_ref().is_some_and(|definition| self.settings.fit(definition)) {
            return Ok(());
        }
        let metadata = rewrapped.unwrap_or_else(|| self.metadata().clone());
        match self.write(engine, server, metadata, ctx).await {
            // Another server did the same at this moment.
            Err(Error::Conflict(_)) => {
                self.definition = Some(engine.definition(&self.id.product(), &tag()).await?.definition);
                Ok(())
            }
            written => written,
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
        let mut metadata = self.metadata().clone();
        let tenants = metadata.entry(TENANTS).or_insert_with(|| json!({}));
        rekindle::merge_patch(tenants, &json!({ tenant.as_str(): config }));
        self.write(engine, server, metadata, ctx).await?;
        let environment = Environment { slug: tenant.clone(), name: tenant.to_string(), active: true };
        existing(engine.create_environment(&self.id.product(), environment, ctx).await)?;
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

    /// Writes the definition, and makes product and environment where they are not there.
    async fn write(
        &mut self,
        engine: &Engine,
        server: &SuperTokens,
        metadata: Map<String, Value>,
        ctx: &Context,
    ) -> Result<(), Error> {
        let settings = Settings::of(server, &metadata);
        let product = self.id.product();
        let mut wanted = settings.lifetimes();
        match &self.definition {
            Some(definition) => {
                // A patch merges; what was taken out of the metadata must go.
                wanted["metadata"] = replacing(&definition.metadata, &metadata);
                engine.patch_definition(&product, &tag(), &wanted, ctx).await?.map_err(invalid)?;
            }
            None => {
                let name = self.id.to_string();
                existing(engine.create_product(Product { tag: product.clone(), name }, ctx).await)?;
                let public = Environment { slug: path::public(), name: "Public".into(), active: true };
                existing(engine.create_environment(&product, public, ctx).await)?;
                existing(engine.create_definition(&product, new_definition(&settings, &metadata)?, ctx).await)?;
            }
        }
        self.settings = settings;
        self.definition = Some(engine.definition(&product, &tag()).await?.definition);
        Ok(())
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
    Error::Conflict(problems.to_string())
}

/// What another server made a moment ago is there, too.
fn existing(made: Result<(), Error>) -> Result<(), Error> {
    match made {
        Err(Error::Conflict(_)) => Ok(()),
        made => made,
    }
}

/// The merge patch that makes `new` of `old`.
fn replacing(old: &Map<String, Value>, new: &Map<String, Value>) -> Value {
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let kept = new.iter().map(|(name, value)| {
        let value = match (old.get(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => replacing(old, new),
            _ => value.clone(),
        };
        (name.clone(), value)
    });
    Value::Object(gone.chain(kept).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle::definition::Lifetime;

    #[test]
    fn a_patch_replaces_nested_members_too() {
        let (old, new) = (json!({ "a": { "x": 1, "y": { "z": 1 } }, "b": 1 }), json!({ "a": { "y": {} }, "c": [1] }));
        let mut patched = old.clone();
        rekindle::merge_patch(&mut patched, &replacing(old.as_object().unwrap(), new.as_object().unwrap()));
        assert_eq!(patched, new);
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
