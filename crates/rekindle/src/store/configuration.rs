//! What servers share: products, environments, definitions, API keys, and who changed them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::{Seconds, Timestamp};
use crate::definition::Definition;
use crate::journal::EventId;
use crate::keys::SigningKey;
use crate::session::{Env, Scope, Tag};

/// A product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Its tag.
    pub tag: Tag,
    /// Its name.
    pub name: String,
}

/// An environment of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Its slug.
    pub slug: Env,
    /// Its name.
    pub name: String,
    /// In an inactive one, start and refresh are refused.
    pub active: bool,
}

/// A product with what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProductRecord {
    /// The product.
    pub product: Product,
    /// Its environments, by slug.
    pub environments: Vec<Environment>,
    /// Its definitions with their versions, by tag.
    pub definitions: Vec<(u32, Definition)>,
}

/// What [`Store::scope`] found.
#[derive(Debug, Clone)]
pub enum ScopeRead {
    /// There is no such product.
    NoProduct,
    /// The product has no such environment.
    NoEnvironment,
    /// Here it is.
    Found(Box<ScopeRecord>),
}

/// All that a server must know to serve a scope.
#[derive(Debug, Clone)]
pub struct ScopeRecord {
    /// The environment.
    pub environment: Environment,
    /// The product's definitions with their versions.
    pub definitions: Vec<(u32, Definition)>,
    /// The scope's signing keys.
    pub keys: Vec<SigningKey>,
    /// The longest lifetime of access tokens that any definition of the product ever had, deleted ones included.
    pub longest_access: Seconds,
}

/// An administrative change.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Change {
    CreateProduct(Product),
    UpdateProduct(Product),
    /// With its environments and definitions; refused while sessions of it are active.
    DeleteProduct {
        product: Tag,
        now: Timestamp,
    },
    CreateEnvironment(Tag, Environment),
    UpdateEnvironment {
        scope: Scope,
        patch: EnvironmentPatch,
    },
    /// Refused while sessions of it are active.
    DeleteEnvironment {
        scope: Scope,
        now: Timestamp,
    },
    CreateDefinition(Tag, Definition),
    /// Makes a new version, if the present one is still `version`.
    UpdateDefinition {
        product: Tag,
        version: u32,
        definition: Definition,
    },
    /// Refused while sessions of it are active.
    DeleteDefinition {
        product: Tag,
        tag: Tag,
        now: Timestamp,
    },
    CreateApiKey(ApiKey),
    RevokeApiKey {
        id: String,
        at: Timestamp,
    },
}

/// What is to be changed of an environment: two who change different things at once do not undo each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvironmentPatch {
    /// Its new name.
    pub name: Option<String>,
    /// Whether sessions are started and refreshed in it from now on.
    pub active: Option<bool>,
}

impl EnvironmentPatch {
    /// The environment with this applied.
    pub fn applied(&self, mut environment: Environment) -> Environment {
        environment.name = self.name.clone().unwrap_or(environment.name);
        environment.active = self.active.unwrap_or(environment.active);
        environment
    }
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Done.
    Done,
    /// What was to be created exists.
    Exists,
    /// The product is not there.
    NoProduct,
    /// What was to be changed is not there.
    Missing,
    /// So many sessions of it are active.
    InUse(u64),
    /// Somebody else changed it meanwhile.
    Stale,
}

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Start, refresh, verify, end and change sessions.
    Sessions,
    /// Read sessions, users, events and configuration.
    Read,
    /// Report confirmations and follow the revocation feed.
    Confirm,
    /// Everything, configuration and keys included.
    Admin,
    /// Read the metrics.
    Metrics,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 5] = [Self::Sessions, Self::Read, Self::Confirm, Self::Admin, Self::Metrics];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Read => "read",
            Self::Confirm => "confirm",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

/// An API key as the store keeps it: the secret itself is shown once and never kept.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public id.
    pub id: String,
    /// What it is for, in the operator's words.
    pub name: String,
    /// SHA-256 of the secret text, which has 256 bits of entropy.
    pub hash: [u8; 32],
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}, {:?})", self.id, self.permissions)
    }
}

/// Who changed what, when, from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its id; ids sort by time.
    pub id: EventId,
    /// When.
    pub at: Timestamp,
    /// Who: an API key's id, or `cli`.
    pub actor: String,
    /// What was done, like `definition.update`.
    pub action: String,
    /// To what, like `shop/definitions/default`.
    pub target: String,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// By which request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}
