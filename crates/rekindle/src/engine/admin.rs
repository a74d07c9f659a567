//! Products, environments, definitions, signing keys and API keys.

use std::fmt;

use aws_lc_rs::digest;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::Value;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Engine, Error};
use crate::clock::Timestamp;
use crate::definition::{Definition, DefinitionProblems};
use crate::journal::{Context, EventId};
use crate::keys::{Chain, KeyId, SigningKey};
use crate::rng;
use crate::session::{Env, Scope, Tag};
use crate::store::{
    ApiKey, AuditEntry, Change, Changed, Environment, EnvironmentPatch, Permission, Product, ProductRecord, ScopeRead,
};

/// A definition with its version.
#[derive(Debug, Clone, PartialEq)]
pub struct DefinitionView {
    /// Counts its changes, from 1.
    pub version: u32,
    /// The definition.
    pub definition: Definition,
}

/// How signing keys are rotated by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The new key is published now and signs once every cache has it.
    Planned,
    /// The new key signs at once and every older one is withdrawn, one that waits to sign included: their tokens are refused
    /// from now on as [`TokenRefusal::AccessExpired`](super::TokenRefusal::AccessExpired), so that clients refresh. For a
    /// private key that has leaked.
    Emergency,
}

/// A new API key. The secret exists only here; the store keeps its hash.
#[derive(Debug)]
pub struct NewApiKey {
    /// What is kept.
    pub key: ApiKey,
    /// What the caller gets, once.
    pub secret: ApiSecret,
}

/// An API key's text. Handle it like a password; it never prints itself.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ApiSecret(String);

impl ApiSecret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiSecret(…)")
    }
}

impl ApiKey {
    /// The hash under which a presented secret would be kept.
    pub fn hash_of(secret: &str) -> [u8; 32] {
        digest::digest(&digest::SHA256, secret.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Whether this is the key that `hash` was made from, and is in force. Constant time in the hash.
    pub fn accepts(&self, hash: &[u8; 32]) -> bool {
        bool::from(self.hash.ct_eq(hash)) && self.revoked_at.is_none()
    }

    /// Whether it may do what needs `permission`; `admin` includes everything.
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.iter().any(|p| *p == permission || *p == Permission::Admin)
    }
}

impl Engine {
    /// Every product with its environments and definitions, by tag.
    pub async fn products(&self) -> Result<Vec<ProductRecord>, Error> {
        Ok(self.inner.store.products().await?)
    }

    /// One product.
    pub async fn product(&self, tag: &Tag) -> Result<ProductRecord, Error> {
        let found = self.products().await?.into_iter().find(|p| p.product.tag == *tag);
        found.ok_or_else(|| Error::ProductNotFound(tag.clone()))
    }

    /// Creates a product. It has no environment and no definition yet.
    pub async fn create_product(&self, product: Product, ctx: &Context) -> Result<(), Error> {
        let target = product.tag.to_string();
        self.change(Change::CreateProduct(product), ctx, "product.create", target).await
    }

    /// Renames a product.
    pub async fn update_product(&self, product: Product, ctx: &Context) -> Result<(), Error> {
        let target = product.tag.to_string();
        self.change(Change::UpdateProduct(product), ctx, "product.update", target).await
    }

    /// Deletes a product with all that belongs to it; refused while sessions of it are active.
    pub async fn delete_product(&self, product: Tag, ctx: &Context) -> Result<(), Error> {
        let (target, now) = (product.to_string(), self.now());
        self.change(Change::DeleteProduct { product, now }, ctx, "product.delete", target).await
    }

    /// Creates an environment.
    pub async fn create_environment(&self, product: &Tag, e: Environment, ctx: &Context) -> Result<(), Error> {
        let target = format!("{product}/{}", e.slug);
        self.change(Change::CreateEnvironment(product.clone(), e), ctx, "environment.create", target).await
    }

    /// Renames an environment, or switches it on or off. What the patch leaves out stays as it is, whoever changes it meanwhile.
    pub async fn update_environment(&self, scope: Scope, patch: EnvironmentPatch, ctx: &Context) -> Result<(), Error> {
        let target = scope.to_string();
        self.change(Change::UpdateEnvironment { scope, patch }, ctx, "environment.update", target).await
    }

    /// Deletes an environment with all that belongs to it; refused while sessions of it are active.
    pub async fn delete_environment(&self, scope: Scope, ctx: &Context) -> Result<(), Error> {
        let (target, now) = (scope.to_string(), self.now());
        self.change(Change::DeleteEnvironment { scope, now }, ctx, "environment.delete", target).await
    }

    /// One environment.
    pub async fn environment(&self, product: &Tag, slug: &Env) -> Result<Environment, Error> {
        let found = self.product(product).await?.environments.into_iter().find(|e| e.slug == *slug);
        let scope = Scope { product: product.clone(), env: slug.clone() };
        found.ok_or(Error::EnvironmentNotFound(scope))
    }

    /// A product's definitions in their present versions, by tag.
    pub async fn definitions(&self, product: &Tag) -> Result<Vec<DefinitionView>, Error> {
        let definitions = self.product(product).await?.definitions.into_iter();
        Ok(definitions.map(|(version, definition)| DefinitionView { version, definition }).collect())
    }

    /// One definition.
    pub async fn definition(&self, product: &Tag, tag: &Tag) -> Result<DefinitionView, Error> {
        let found = self.definitions(product).await?.into_iter().find(|d| d.definition.tag == *tag);
        found.ok_or_else(|| Error::DefinitionNotFound(tag.clone()))
    }

    /// Creates a definition.
    pub async fn create_definition(&self, product: &Tag, definition: Definition, ctx: &Context) -> Result<(), Error> {
        let target = format!("{product}/definitions/{}", definition.tag);
        self.change(Change::CreateDefinition(product.clone(), definition), ctx, "definition.create", target).await
    }

    /// Changes a definition by a merge patch (RFC 7396) of its JSON form. Running sessions keep the schema that they started
    /// with; lifetimes and policies apply from their next token on.
    pub async fn patch_definition(
        &self,
        product: &Tag,
        tag: &Tag,
        patch: &Value,
        ctx: &Context,
    ) -> Result<Result<DefinitionView, DefinitionProblems>, Error> {
        let DefinitionView { version, definition } = self.definition(product, tag).await?;
        let definition = match definition.patched(patch) {
            Ok(definition) => definition,
            Err(problems) => return Ok(Err(problems)),
        };
        let change = Change::UpdateDefinition { product: product.clone(), version, definition: definition.clone() };
        let target = format!("{product}/definitions/{tag}");
        self.change(change, ctx, "definition.update", target).await?;
        Ok(Ok(DefinitionView { version: version + 1, definition }))
    }

    /// Deletes a definition; refused while sessions of it are active.
    pub async fn delete_definition(&self, product: &Tag, tag: &Tag, ctx: &Context) -> Result<(), Error> {
        let change = Change::DeleteDefinition { product: product.clone(), tag: tag.clone(), now: self.now() };
        self.change(change, ctx, "definition.delete", format!("{product}/definitions/{tag}")).await
    }

    /// A scope's signing keys: id, chain, since when published, from when signing; oldest first. Without those that were
    /// withdrawn.
    pub async fn signing_keys(&self, scope: &Scope) -> Result<Vec<(KeyId, Chain, Timestamp, Timestamp)>, Error> {
        let keys = self.usable_keys(scope).await?;
        let mut keys: Vec<_> = keys.into_iter().map(|k| (k.kid, k.chain, k.created_at, k.signs_from)).collect();
        keys.sort_by(|a, b| (a.3, a.2, &a.0).cmp(&(b.3, b.2, &b.0)));
        Ok(keys)
    }

    /// Makes a new signing key for each chain that is in use in the scope. Returns when it will sign.
    pub async fn rotate_keys(&self, scope: &Scope, how: Rotation, ctx: &Context) -> Result<Timestamp, Error> {
        let now = self.now();
        self.recheck_config();
        let state = self.scope(scope).await?;
        let emergency = how == Rotation::Emergency;
        let old = self.usable_keys(scope).await?;
        let mut signs_from = now;
        for chain in state.chains() {
            let successor = state.keys.rotation(chain, now, emergency);
            signs_from = successor.signs_from;
            if !self.add_key(scope, chain, successor, now).await? {
                return Err(Error::Conflict("another server rotated the keys at the same time; look again".into()));
            }
        }
        if emergency {
            let withdrawn = old.iter().map(SigningKey::withdrawn).collect();
            self.inner.store.rewrap_signing_keys(withdrawn).await?;
            self.recheck_config();
        }
        let action = if emergency { "keys.rotate_emergency" } else { "keys.rotate" };
        self.inner.store.append_audit(self.audit(ctx, action, scope.to_string())).await?;
        Ok(signs_from)
    }

    /// Makes an API key. The secret is in the answer and nowhere else.
    pub async fn create_api_key(
        &self,
        name: String,
        permissions: Vec<Permission>,
        ctx: &Context,
    ) -> Result<NewApiKey, Error> {
        let now = self.now();
        let secret = ApiSecret(format!("rkk_{}", BASE64_URL_SAFE_NO_PAD.encode(rng::bytes::<32>(self.rng()))));
        let id = format!("key_{}", BASE64_URL_SAFE_NO_PAD.encode(rng::bytes::<9>(self.rng())));
        let hash = ApiKey::hash_of(secret.expose());
        let key = ApiKey { id, name, hash, permissions, created_at: now, revoked_at: None };
        let target = key.id.clone();
        self.change(Change::CreateApiKey(key.clone()), ctx, "api_key.create", target).await?;
        Ok(NewApiKey { key, secret })
    }

    /// Revokes an API key. Idempotent.
    pub async fn revoke_api_key(&self, id: &str, ctx: &Context) -> Result<(), Error> {
        let change = Change::RevokeApiKey { id: id.into(), at: self.now() };
        self.change(change, ctx, "api_key.revoke", id.into()).await
    }

    /// Every API key, revoked ones too, oldest first.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>, Error> {
        Ok(self.inner.store.api_keys().await?)
    }

    /// A page of the audit log, newest first.
    pub async fn audit_log(&self, before: Option<EventId>, limit: u32) -> Result<Vec<AuditEntry>, Error> {
        Ok(self.inner.store.audit_log(before, limit).await?)
    }

    /// The signing keys that were not withdrawn, in no particular order.
    async fn usable_keys(&self, scope: &Scope) -> Result<Vec<SigningKey>, Error> {
        Ok(self.keys_of(scope).await?.into_iter().filter(|k| !k.is_withdrawn()).collect())
    }

    /// A scope's keys as the store has them, withdrawn ones, too.
    pub(super) async fn keys_of(&self, scope: &Scope) -> Result<Vec<SigningKey>, Error> {
        match self.inner.store.scope(scope).await? {
            ScopeRead::NoProduct => Err(Error::ProductNotFound(scope.product.clone())),
            ScopeRead::NoEnvironment => Err(Error::EnvironmentNotFound(scope.clone())),
            ScopeRead::Found(record) => Ok(record.keys),
        }
    }

    async fn change(&self, change: Change, ctx: &Context, action: &str, target: String) -> Result<(), Error> {
        let missing = missing(&change);
        let changed = self.inner.store.change(change, self.audit(ctx, action, target.clone())).await?;
        self.recheck_config();
        match changed {
            Changed::Done => Ok(()),
            Changed::Exists => Err(Error::Conflict(format!("`{target}` exists already"))),
            Changed::NoProduct | Changed::Missing => Err(missing(changed)),
            Changed::InUse(active) => Err(Error::Conflict(format!(
                "{active} sessions of `{target}` are active; end them first, or wait until they have ended"
            ))),
            Changed::Stale => {
                Err(Error::Conflict(format!("`{target}` was changed meanwhile; read it again and repeat the change")))
            }
        }
    }
}

/// What to say when the thing to be changed is not there.
fn missing(change: &Change) -> impl FnOnce(Changed) -> Error + use<> {
    let (product, thing) = match change {
        Change::CreateProduct(p) | Change::UpdateProduct(p) => (Some(p.tag.clone()), None),
        Change::DeleteProduct { product, .. } => (Some(product.clone()), None),
        Change::CreateEnvironment(product, e) => {
            let scope = Scope { product: product.clone(), env: e.slug.clone() };
            (Some(product.clone()), Some(Error::EnvironmentNotFound(scope)))
        }
        Change::UpdateEnvironment { scope, .. } | Change::DeleteEnvironment { scope, .. } => {
            (Some(scope.product.clone()), Some(Error::EnvironmentNotFound(scope.clone())))
        }
        Change::CreateDefinition(product, definition) | Change::UpdateDefinition { product, definition, .. } => {
            (Some(product.clone()), Some(Error::DefinitionNotFound(definition.tag.clone())))
        }
        Change::DeleteDefinition { product, tag, .. } => {
            (Some(product.clone()), Some(Error::DefinitionNotFound(tag.clone())))
        }
        Change::CreateApiKey(key) => (None, Some(Error::ApiKeyNotFound(key.id.clone()))),
        Change::RevokeApiKey { id, .. } => (None, Some(Error::ApiKeyNotFound(id.clone()))),
    };
    move |changed| match (changed, product, thing) {
        (Changed::NoProduct, Some(product), _) | (_, Some(product), None) => Error::ProductNotFound(product),
        (_, _, Some(thing)) => thing,
        (_, None, None) => Error::Conflict("it is not there".into()),
    }
}
