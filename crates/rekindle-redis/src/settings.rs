//! Configuration, signing keys, API keys and the audit log: one slot. It is read whole, decided on, and changed if nobody has
//! changed it since.
//!
//! | field of `current` | holds |
//! |---|---|
//! | `layout` | the number of the layout of all keys |
//! | `version`, `rev` | grows with each change; who made the last one |
//! | `product:<tag>` | JSON: its name, and the longest access lifetime that it ever had |
//! | `environment:<tag>/<slug>` | JSON |
//! | `definition:<tag>/<tag>` | JSON: its present version, if it is not deleted, and the last one given |
//! | `key:<kid>`, `api_key:<id>` | JSON |
//! | `secret:<kid>` | the check value, in hexadecimal |
//!
//! `versions` has each version of a definition as `<tag>/<tag>/<number>`.

mod transfer;

use std::collections::BTreeMap;

use redis::RedisResult;
use rekindle::clock::{Seconds, Timestamp};
use rekindle::definition::Definition;
use rekindle::journal::EventId;
use rekindle::keys::{Chain, KeyId, SigningKey};
use rekindle::session::{Env, Scope, Tag};
use rekindle::store::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Inner;
use crate::effects::{SavedScope, audit_member};
use crate::keys::{hex, unhex};
use crate::row::json;
use crate::scripts::{ADD, CHANGE, INIT};

/// The layout that this build reads and writes.
pub(crate) const LAYOUT: u32 = 1;
/// How often a change is decided on anew at most.
const TRIES: u32 = 1000;

/// The configuration as it was read.
pub(crate) struct Config {
    version: u64,
    fields: BTreeMap<String, String>,
}

/// What a change writes.
#[derive(Default)]
struct Edit {
    set: Vec<(String, String)>,
    removed: Vec<String>,
    set_versions: Vec<(String, String)>,
    removed_versions: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedProduct {
    name: String,
    longest_access: Seconds,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedDefinition {
    current: Option<u32>,
    last: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedKey {
    /// The version of the configuration that it was added to: their order.
    order: u64,
    scope: SavedScope,
    #[serde(rename = "algorithm")]
    chain: Chain,
    public_jwk: String,
    wrapped: String,
    created_at: i64,
    signs_from: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedApiKey {
    /// As of a [`SavedKey`].
    order: u64,
    name: String,
    hash: String,
    permissions: Vec<Permission>,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_at: Option<i64>,
}

impl Config {
    fn new(fields: BTreeMap<String, String>) -> StoreResult<Self> {
        let version = fields.get("version").and_then(|v| v.parse().ok());
        let corrupt = || StoreError::Corrupt { table: "config", column: "current", id: "version".into() };
        Ok(Self { version: version.ok_or_else(corrupt)?, fields })
    }

    fn corrupt(&self, field: &str) -> StoreError {
        StoreError::Corrupt { table: "config", column: "current", id: field.into() }
    }

    fn read<T: DeserializeOwned>(&self, field: &str) -> StoreResult<Option<T>> {
        let read = |text: &String| serde_json::from_str(text).map_err(|_| self.corrupt(field));
        self.fields.get(field).map(read).transpose()
    }

    /// The fields that begin with `prefix`: what follows it, and the value.
    fn under<T: DeserializeOwned>(&self, prefix: &str) -> StoreResult<Vec<(&str, T)>> {
        let fields = self.fields.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        fields
            .map(|(name, text)| {
                let value = serde_json::from_str(text).map_err(|_| self.corrupt(name))?;
                Ok((&name[prefix.len()..], value))
            })
            .collect()
    }

    fn product(&self, tag: &Tag) -> StoreResult<Option<SavedProduct>> {
        self.read(&format!("product:{tag}"))
    }

    fn environments(&self, product: &str) -> StoreResult<Vec<Environment>> {
        let all = self.under(&format!("environment:{product}/"))?;
        Ok(all.into_iter().map(|(_, environment)| environment).collect())
    }

    fn scopes(&self, product: &Tag) -> StoreResult<Vec<Scope>> {
        let environments = self.environments(product.as_str())?;
        Ok(environments.into_iter().map(|e| Scope { product: product.clone(), env: e.slug }).collect())
    }

    fn keys(&self) -> StoreResult<Vec<(u64, SigningKey)>> {
        let mut keys = Vec::new();
        for (kid, saved) in self.under::<SavedKey>("key:")? {
            let corrupt = || self.corrupt(&format!("key:{kid}"));
            let key = SigningKey {
                kid: kid.parse().map_err(|_| corrupt())?,
                scope: saved.scope.scope().ok_or_else(corrupt)?,
                chain: saved.chain,
                public_jwk: saved.public_jwk,
                wrapped: bytes(&saved.wrapped).ok_or_else(corrupt)?,
                created_at: Timestamp::from_millis(saved.created_at),
                signs_from: Timestamp::from_millis(saved.signs_from),
            };
            keys.push((saved.order, key));
        }
        keys.sort_by(|a, b| (a.0, &a.1.kid).cmp(&(b.0, &b.1.kid)));
        Ok(keys)
    }

    fn api_keys(&self) -> StoreResult<Vec<(u64, ApiKey)>> {
        let mut keys = Vec::new();
        for (id, saved) in self.under::<SavedApiKey>("api_key:")? {
            let key = ApiKey {
                id: id.to_owned(),
                name: saved.name,
                hash: unhex(&saved.hash).ok_or_else(|| self.corrupt(&format!("api_key:{id}")))?,
                permissions: saved.permissions,
                created_at: Timestamp::from_millis(saved.created_at),
                revoked_at: saved.revoked_at.map(Timestamp::from_millis),
            };
            keys.push((saved.order, key));
        }
        keys.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
        Ok(keys)
    }

    fn secret_checks(&self) -> StoreResult<Vec<(u8, [u8; 16])>> {
        let mut registered = Vec::new();
        for (name, value) in &self.fields {
            if let Some(kid) = name.strip_prefix("secret:") {
                let read = || Some((kid.parse().ok()?, unhex(value)?));
                registered.push(read().ok_or_else(|| self.corrupt(name))?);
            }
        }
        registered.sort_unstable();
        Ok(registered)
    }
}

impl Edit {
    fn set(mut self, field: String, value: &impl Serialize) -> Self {
        self.set.push((field, json(value)));
        self
    }

    fn set_key(self, order: u64, key: &SigningKey) -> Self {
        let saved = SavedKey {
            order,
            scope: SavedScope::new(&key.scope),
            chain: key.chain,
            public_jwk: key.public_jwk.clone(),
            wrapped: hex(&key.wrapped),
            created_at: key.created_at.millis(),
            signs_from: key.signs_from.millis(),
        };
        self.set(format!("key:{}", key.kid), &saved)
    }

    fn set_api_key(self, order: u64, key: &ApiKey) -> Self {
        let saved = SavedApiKey {
            order,
            name: key.name.clone(),
            hash: hex(&key.hash),
            permissions: key.permissions.clone(),
            created_at: key.created_at.millis(),
            revoked_at: key.revoked_at.map(Timestamp::millis),
        };
        self.set(format!("api_key:{}", key.id), &saved)
    }

    /// A new present version of a definition.
    fn set_definition(mut self, product: &Tag, mut saved: SavedProduct, version: u32, definition: &Definition) -> Self {
        saved.longest_access = saved.longest_access.max(definition.access_token.lifetime.seconds());
        let name = format!("{product}/{}", definition.tag);
        self.set_versions.push((format!("{name}/{version}"), definition.to_json().to_string()));
        self.set(format!("definition:{name}"), &SavedDefinition { current: Some(version), last: version })
            .set(format!("product:{product}"), &saved)
    }

    fn remove(mut self, fields: impl IntoIterator<Item = String>) -> Self {
        self.removed.extend(fields);
        self
    }
}

impl Inner {
    /// Gives an empty keyspace its first contents; the number of the layout that is there.
    pub(crate) async fn init(&self) -> RedisResult<String> {
        let tag: Tag = "default".parse().expect("a valid tag");
        let dev: Env = "dev".parse().expect("a valid slug");
        let product = SavedProduct { name: "Default".into(), longest_access: Seconds(0) };
        let environment = Environment { slug: dev, name: "Development".into(), active: true };
        let Edit { set, set_versions, .. } = Edit::default()
            .set("environment:default/dev".into(), &environment)
            .set_definition(&tag, product, 1, &Definition::default_for(tag.clone()));
        let mut call = INIT.on(&self.keys.config()).arg(LAYOUT).arg(set.len());
        for (field, value) in set.into_iter().chain(set_versions) {
            call.push(field);
            call.push(value);
        }
        self.link.call(&call).await
    }

    pub(crate) async fn config_version(&self) -> StoreResult<u64> {
        let [current, _] = self.keys.config();
        self.link.query(redis::cmd("HGET").arg(current).arg("version")).await
    }

    async fn config(&self) -> StoreResult<Config> {
        let [current, _] = self.keys.config();
        Config::new(self.link.query(redis::cmd("HGETALL").arg(&current)).await?)
    }

    pub(crate) async fn scope(&self, scope: &Scope) -> StoreResult<ScopeRead> {
        let config = self.config().await?;
        let Some(product) = config.product(&scope.product)? else { return Ok(ScopeRead::NoProduct) };
        let field = format!("environment:{scope}");
        let Some(environment) = config.read(&field)? else { return Ok(ScopeRead::NoEnvironment) };
        let keys = config.keys()?.into_iter().map(|(_, key)| key).filter(|key| key.scope == *scope).collect();
        Ok(ScopeRead::Found(Box::new(ScopeRecord {
            environment,
            definitions: self.definitions(&config, scope.product.as_str()).await?,
            keys,
            longest_access: product.longest_access,
        })))
    }

    pub(crate) async fn definition(&self, product: &Tag, tag: &Tag, version: u32) -> StoreResult<Option<Definition>> {
        let [_, versions] = self.keys.config();
        let field = format!("{product}/{tag}/{version}");
        let text: Option<String> = self.link.query(redis::cmd("HGET").arg(versions).arg(&field)).await?;
        text.map(|text| read_definition(&field, &text)).transpose()
    }

    pub(crate) async fn products(&self) -> StoreResult<Vec<ProductRecord>> {
        let config = self.config().await?;
        let mut records = Vec::new();
        for (tag, saved) in config.under::<SavedProduct>("product:")? {
            let product = Product { tag: tag.parse().map_err(|_| config.corrupt(tag))?, name: saved.name };
            let definitions = self.definitions(&config, tag).await?;
            records.push(ProductRecord { product, environments: config.environments(tag)?, definitions });
        }
        Ok(records)
    }

    /// A product's definitions in their present versions, by tag.
    async fn definitions(&self, config: &Config, product: &str) -> StoreResult<Vec<(u32, Definition)>> {
        let [_, versions] = self.keys.config();
        let saved = config.under::<SavedDefinition>(&format!("definition:{product}/"))?;
        let present: Vec<(u32, String)> = saved
            .into_iter()
            .filter_map(|(tag, saved)| Some((saved.current?, format!("{product}/{tag}/{}", saved.current?))))
            .collect();
        if present.is_empty() {
            return Ok(Vec::new());
        }
        let fields: Vec<&String> = present.iter().map(|(_, field)| field).collect();
        let texts: Vec<Option<String>> = self.link.query(redis::cmd("HMGET").arg(versions).arg(fields)).await?;
        let read = |((version, field), text): (&(u32, String), Option<String>)| {
            Ok((*version, read_definition(field, &text.unwrap_or_default())?))
        };
        present.iter().zip(texts).map(read).collect()
    }

    pub(crate) async fn change(&self, change: &Change, audit: &AuditEntry) -> StoreResult<Changed> {
        for _ in 0..TRIES {
            let config = self.config().await?;
            let edit = match self.decide(&config, change).await? {
                Ok(edit) => edit,
                Err(refused) => return Ok(refused),
            };
            if self.edit(&config, edit, Some(audit)).await? {
                return Ok(Changed::Done);
            }
        }
        Err(contended())
    }

    /// What a change comes to. What belongs to a deleted scope goes here, while its environment is still there: an
    /// interrupted deletion can be asked again.
    async fn decide(&self, config: &Config, change: &Change) -> StoreResult<Result<Edit, Changed>> {
        let edit = Edit::default();
        Ok(Ok(match change {
            Change::CreateProduct(product) => {
                if config.product(&product.tag)?.is_some() {
                    return Ok(Err(Changed::Exists));
                }
                let saved = SavedProduct { name: product.name.clone(), longest_access: Seconds(0) };
                edit.set(format!("product:{}", product.tag), &saved)
            }
            Change::UpdateProduct(product) => match config.product(&product.tag)? {
                None => return Ok(Err(Changed::NoProduct)),
                Some(saved) => {
                    let saved = SavedProduct { name: product.name.clone(), ..saved };
                    edit.set(format!("product:{}", product.tag), &saved)
                }
            },
            Change::DeleteProduct { product, now } => return self.delete_product(config, product, *now).await,
            Change::CreateEnvironment(product, environment) => {
                let field = format!("environment:{product}/{}", environment.slug);
                match (config.product(product)?, config.fields.contains_key(&field)) {
                    (None, _) => return Ok(Err(Changed::NoProduct)),
                    (Some(_), true) => return Ok(Err(Changed::Exists)),
                    (Some(_), false) => edit.set(field, environment),
                }
            }
            Change::UpdateEnvironment { scope, patch } => {
                let field = format!("environment:{}/{}", scope.product, scope.env);
                match (config.product(&scope.product)?, config.read(&field)?) {
                    (None, _) => return Ok(Err(Changed::NoProduct)),
                    (Some(_), None) => return Ok(Err(Changed::Missing)),
                    (Some(_), Some(environment)) => edit.set(field, &patch.applied(environment)),
                }
            }
            Change::DeleteEnvironment { scope, now } => return self.delete_environment(config, scope, *now).await,
            Change::CreateDefinition(product, definition) => {
                let Some(saved) = config.product(product)? else { return Ok(Err(Changed::NoProduct)) };
                match config.read(&format!("definition:{product}/{}", definition.tag))? {
                    Some(SavedDefinition { current: Some(_), .. }) => return Ok(Err(Changed::Exists)),
                    Some(SavedDefinition { last, .. }) => edit.set_definition(product, saved, last + 1, definition),
                    None => edit.set_definition(product, saved, 1, definition),
                }
            }
            Change::UpdateDefinition { product, version, definition } => {
                let Some(saved) = config.product(product)? else { return Ok(Err(Changed::NoProduct)) };
                match config.read(&format!("definition:{product}/{}", definition.tag))? {
                    Some(SavedDefinition { current: Some(present), .. }) if present == *version => {
                        edit.set_definition(product, saved, version + 1, definition)
                    }
                    Some(SavedDefinition { current: Some(_), .. }) => return Ok(Err(Changed::Stale)),
                    _ => return Ok(Err(Changed::Missing)),
                }
            }
            Change::DeleteDefinition { product, tag, now } => {
                return self.delete_definition(config, product, tag, *now).await;
            }
            Change::CreateApiKey(key) => {
                if config.api_keys()?.iter().any(|(_, k)| k.id == key.id || k.hash == key.hash) {
                    return Ok(Err(Changed::Exists));
                }
                edit.set_api_key(config.version, key)
            }
            Change::RevokeApiKey { id, at } => match config.api_keys()?.into_iter().find(|(_, k)| k.id == *id) {
                None => return Ok(Err(Changed::Missing)),
                Some((order, key)) => {
                    edit.set_api_key(order, &ApiKey { revoked_at: key.revoked_at.or(Some(*at)), ..key })
                }
            },
        }))
    }

    async fn delete_product(
        &self,
        config: &Config,
        product: &Tag,
        now: Timestamp,
    ) -> StoreResult<Result<Edit, Changed>> {
        if config.product(product)?.is_none() {
            return Ok(Err(Changed::NoProduct));
        }
        let scopes = self.scopes_of(product).await?;
        let active = self.active(scopes.clone(), None, now).await?;
        if active > 0 {
            return Ok(Err(Changed::InUse(active)));
        }
        self.forget(&scopes).await?;
        let keys = config.keys()?.into_iter().filter(|(_, key)| key.scope.product == *product);
        let keys = keys.map(|(_, key)| format!("key:{}", key.kid));
        let environments = config.scopes(product)?.into_iter().map(|scope| format!("environment:{scope}"));
        let definitions = config.under::<SavedDefinition>(&format!("definition:{product}/"))?;
        let mut edit = Edit::default().remove(keys).remove(environments).remove([format!("product:{product}")]);
        for (tag, saved) in definitions {
            edit.removed_versions.extend((1..=saved.last).map(|version| format!("{product}/{tag}/{version}")));
            edit.removed.push(format!("definition:{product}/{tag}"));
        }
        Ok(Ok(edit))
    }

    async fn delete_environment(
        &self,
        config: &Config,
        scope: &Scope,
        now: Timestamp,
    ) -> StoreResult<Result<Edit, Changed>> {
        if config.product(&scope.product)?.is_none() {
            return Ok(Err(Changed::NoProduct));
        }
        let field = format!("environment:{scope}");
        if !config.fields.contains_key(&field) {
            return Ok(Err(Changed::Missing));
        }
        let active = self.active(vec![scope.clone()], None, now).await?;
        if active > 0 {
            return Ok(Err(Changed::InUse(active)));
        }
        self.forget(std::slice::from_ref(scope)).await?;
        let keys = config.keys()?.into_iter().filter(|(_, key)| key.scope == *scope);
        Ok(Ok(Edit::default().remove(keys.map(|(_, key)| format!("key:{}", key.kid))).remove([field])))
    }

    async fn delete_definition(
        &self,
        config: &Config,
        product: &Tag,
        tag: &Tag,
        now: Timestamp,
    ) -> StoreResult<Result<Edit, Changed>> {
        if config.product(product)?.is_none() {
            return Ok(Err(Changed::NoProduct));
        }
        let field = format!("definition:{product}/{tag}");
        let Some(SavedDefinition { current: Some(_), last }) = config.read(&field)? else {
            return Ok(Err(Changed::Missing));
        };
        let active = self.active(self.scopes_of(product).await?, Some(tag), now).await?;
        if active > 0 {
            return Ok(Err(Changed::InUse(active)));
        }
        Ok(Ok(Edit::default().set(field, &SavedDefinition { current: None, last })))
    }

    /// The scopes of a product in which a session or a ban was ever written.
    async fn scopes_of(&self, product: &Tag) -> StoreResult<Vec<Scope>> {
        Ok(self.scopes().await?.into_iter().filter(|scope| scope.product == *product).collect())
    }

    /// Removes all that belongs to deleted scopes but for the configuration.
    async fn forget(&self, scopes: &[Scope]) -> StoreResult<()> {
        for scope in scopes {
            self.forget_scope(scope).await?;
            self.forget_revocations(scope).await?;
            self.forget_notifications(scope).await?;
        }
        Ok(())
    }

    /// Writes an edit if the configuration is still as it was read; whether it was.
    async fn edit(&self, config: &Config, edit: Edit, audit: Option<&AuditEntry>) -> StoreResult<bool> {
        let [current, versions] = self.keys.config();
        let mut call = CHANGE
            .on(&[current, versions, self.keys.audit()])
            .arg(self.token())
            .arg(config.version)
            .arg(audit.map(audit_member).unwrap_or_default().as_slice());
        call.push_changes(edit.set, edit.removed);
        call.push_changes(edit.set_versions, edit.removed_versions);
        self.link.run(&call).await
    }

    pub(crate) async fn add_signing_key(&self, key: &SigningKey, newest: Option<&KeyId>) -> StoreResult<bool> {
        for _ in 0..TRIES {
            let config = self.config().await?;
            let keys = config.keys()?;
            let of_scope = keys.iter().map(|(_, k)| k).filter(|k| k.scope == key.scope && k.chain == key.chain);
            let present = of_scope.max_by_key(|k| (k.signs_from, k.created_at, &k.kid)).map(|k| &k.kid);
            if present != newest || keys.iter().any(|(_, k)| k.kid == key.kid) {
                return Ok(false);
            }
            if self.edit(&config, Edit::default().set_key(config.version, key), None).await? {
                return Ok(true);
            }
        }
        Err(contended())
    }

    pub(crate) async fn rewrap_signing_keys(&self, keys: &[SigningKey]) -> StoreResult<()> {
        self.edit_keys(|known| {
            let rewrapped = known.iter().filter_map(|(order, known)| {
                let new = keys.iter().find(|key| key.kid == known.kid)?;
                Some((*order, SigningKey { wrapped: new.wrapped.clone(), ..known.clone() }))
            });
            rewrapped.fold(Edit::default(), |edit, (order, key)| edit.set_key(order, &key))
        })
        .await
    }

    pub(crate) async fn remove_signing_keys(&self, kids: &[KeyId]) -> StoreResult<()> {
        self.edit_keys(|_| Edit::default().remove(kids.iter().map(|kid| format!("key:{kid}")))).await
    }

    async fn edit_keys(&self, edit: impl Fn(&[(u64, SigningKey)]) -> Edit) -> StoreResult<()> {
        for _ in 0..TRIES {
            let config = self.config().await?;
            if self.edit(&config, edit(&config.keys()?), None).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    pub(crate) async fn secret_checks(&self, checks: &[(u8, [u8; 16])]) -> StoreResult<Vec<(u8, [u8; 16])>> {
        let [current, _] = self.keys.config();
        for (kid, check) in checks {
            let mut register = redis::cmd("HSETNX");
            register.arg(&current).arg(format!("secret:{kid}")).arg(hex(check));
            self.link.write::<()>(&register, &current).await?;
        }
        self.config().await?.secret_checks()
    }

    pub(crate) async fn api_keys(&self) -> StoreResult<Vec<ApiKey>> {
        Ok(self.config().await?.api_keys()?.into_iter().map(|(_, key)| key).collect())
    }

    pub(crate) async fn audit_log(&self, before: Option<EventId>, limit: u32) -> StoreResult<Vec<AuditEntry>> {
        let edge = before.map_or(b"+".to_vec(), |id| [b"(", id.to_bytes().as_slice()].concat());
        let mut page = redis::cmd("ZREVRANGEBYLEX");
        page.arg(self.keys.audit()).arg(edge).arg("-").arg("LIMIT").arg(0).arg(limit);
        let members: Vec<Vec<u8>> = self.link.query(&page).await?;
        members.iter().map(|member| read_audit(member)).collect()
    }

    pub(crate) async fn append_audit(&self, entry: &AuditEntry) -> StoreResult<()> {
        self.link.run(&ADD.on(&[self.keys.audit()]).arg(audit_member(entry).as_slice())).await
    }

    pub(crate) async fn ping(&self) -> StoreResult<()> {
        let [current, _] = self.keys.config();
        self.link.write(redis::cmd("HSET").arg(&current).arg("ping").arg(1), &current).await
    }
}

/// The reverse of [`audit_member`].
pub(crate) fn read_audit(member: &[u8]) -> StoreResult<AuditEntry> {
    let (id, entry) = member.split_at_checked(16).unwrap_or_default();
    let corrupt = |_| StoreError::Corrupt { table: "audit", column: "entry", id: hex(id) };
    serde_json::from_slice(entry).map_err(corrupt)
}

fn read_definition(field: &str, text: &str) -> StoreResult<Definition> {
    let read = || {
        let definition = Definition::from_json(&serde_json::from_str(text).ok()?).ok()?;
        (field.split('/').nth(1)? == definition.tag.as_str()).then_some(definition)
    };
    read().ok_or_else(|| StoreError::Corrupt { table: "config", column: "versions", id: field.into() })
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn contended() -> StoreError {
    StoreError::Unavailable(format!("the configuration was changed by others {TRIES} times in a row"))
}
