//! What servers share: products, environments, definitions, keys, the audit log.

use rekindle::clock::{Seconds, Timestamp};
use rekindle::definition::Definition;
use rekindle::journal::EventId;
use rekindle::keys::{KeyId, SigningKey};
use rekindle::session::{Scope, Tag};
use rekindle::store::*;
use rusqlite::params;

use crate::db::{Cells, Db, Failure, ScopeId, Table};

const PRODUCTS: Table = Table { name: "products", columns: &["tag", "name"], id: 0 };
const LONGEST_ACCESS: Table = Table { name: "products", columns: &["tag", "longest_access"], id: 0 };
const ENVIRONMENTS: Table = Table { name: "environments", columns: &["slug", "name", "active"], id: 0 };
pub(crate) const DEFINITIONS: Table = Table { name: "definitions", columns: &["tag", "current"], id: 0 };
pub(crate) const VERSIONS: Table =
    Table { name: "definition_versions", columns: &["tag", "version", "definition"], id: 0 };
const SIGNING_KEYS: Table = Table {
    name: "signing_keys",
    columns: &["kid", "scope", "algorithm", "public_jwk", "wrapped", "created_at", "signs_from"],
    id: 0,
};
const KIDS: Table = Table { name: "signing_keys", columns: &["kid"], id: 0 };
const SECRET_CHECKS: Table = Table { name: "secret_checks", columns: &["kid", "check_value"], id: 0 };
const API_KEYS: Table =
    Table { name: "api_keys", columns: &["id", "name", "hash", "permissions", "created_at", "revoked_at"], id: 0 };
pub(crate) const AUDIT: Table =
    Table { name: "audit", columns: &["id", "at", "actor", "action", "target", "ip", "request_id"], id: 0 };
const CONFIG: Table = Table { name: "config", columns: &["version"], id: 0 };

impl Db<'_> {
    pub(crate) fn config_version(&self) -> Result<u64, Failure> {
        let version = self.first("SELECT version FROM config", [], &CONFIG, |row| row.int("version"))?;
        let missing = || StoreError::Corrupt { table: "config", column: "id", id: "1".into() };
        Ok(version.ok_or_else(missing)?)
    }

    pub(crate) fn scope_record(&self, scope: &Scope, id: ScopeId) -> Result<ScopeRead, Failure> {
        let product = scope.product.as_str();
        let sql = "SELECT tag, longest_access FROM products WHERE tag = ?1";
        let longest_access = self.first(sql, [product], &LONGEST_ACCESS, |row| {
            row.skip("tag");
            row.int("longest_access").map(Seconds)
        })?;
        let Some(longest_access) = longest_access else { return Ok(ScopeRead::NoProduct) };
        let environment = self.first(
            "SELECT slug, name, active FROM environments WHERE product = ?1 AND slug = ?2",
            [product, scope.env.as_str()],
            &ENVIRONMENTS,
            read_environment,
        )?;
        let Some(environment) = environment else { return Ok(ScopeRead::NoEnvironment) };
        let keys = self.signing_keys(Some(id))?;
        let definitions = self.current_definitions(&scope.product)?;
        Ok(ScopeRead::Found(Box::new(ScopeRecord { environment, definitions, keys, longest_access })))
    }

    pub(crate) fn definition(&self, product: &Tag, tag: &Tag, version: u32) -> Result<Option<Definition>, Failure> {
        self.first(
            "SELECT tag, version, definition FROM definition_versions WHERE product = ?1 AND tag = ?2 AND version = ?3",
            params![product.as_str(), tag.as_str(), version],
            &VERSIONS,
            |row| Ok(read_definition(row)?.1),
        )
    }

    pub(crate) fn products(&self) -> Result<Vec<ProductRecord>, Failure> {
        let products = self.all("SELECT tag, name FROM products ORDER BY tag", [], &PRODUCTS, |row| {
            Ok(Product { tag: row.parsed("tag")?, name: row.text("name")?.into() })
        })?;
        products
            .into_iter()
            .map(|product| {
                let environments = self.environments(&product.tag)?;
                let definitions = self.current_definitions(&product.tag)?;
                Ok(ProductRecord { product, environments, definitions })
            })
            .collect()
    }

    /// Carries out a change, and records it if it is done.
    pub(crate) fn change(&self, change: &Change, audit: &AuditEntry) -> Result<Changed, Failure> {
        let changed = self.carry_out(change)?;
        if changed == Changed::Done {
            self.bump_config_version()?;
            self.write_audit(audit)?;
        }
        Ok(changed)
    }

    pub(crate) fn add_signing_key(
        &self,
        key: &SigningKey,
        newest: Option<&KeyId>,
        scope: ScopeId,
    ) -> Result<bool, Failure> {
        let present: Option<KeyId> = self.first(
            "SELECT kid FROM signing_keys WHERE scope = ?1 AND algorithm = ?2 
             ORDER BY signs_from DESC, created_at DESC, kid DESC LIMIT 1",
            params![scope, key.chain.as_str()],
            &KIDS,
            |row| row.parsed("kid"),
        )?;
        if present.as_ref() != newest {
            return Ok(false);
        }
        let added = self.insert_signing_key(key, scope)?;
        self.bump_config_version()?;
        Ok(added > 0)
    }

    /// Adds a signing key after all others, unless it is there; how many were added.
    pub(crate) fn insert_signing_key(&self, key: &SigningKey, scope: ScopeId) -> Result<usize, Failure> {
        self.execute(
            "INSERT INTO signing_keys (kid, scope, algorithm, public_jwk, wrapped, created_at, signs_from)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (kid) DO NOTHING",
            params![
                key.kid.as_str(),
                scope,
                key.chain.as_str(),
                key.public_jwk,
                key.wrapped,
                key.created_at.millis(),
                key.signs_from.millis()
            ],
        )
    }

    /// Signing keys, of one scope or all, in the order in which they were added.
    pub(crate) fn signing_keys(&self, scope: Option<ScopeId>) -> Result<Vec<SigningKey>, Failure> {
        let sql = "SELECT kid, scope, algorithm, public_jwk, wrapped, created_at, signs_from FROM signing_keys
                   WHERE ?1 IS NULL OR scope = ?1 ORDER BY seq";
        self.all(sql, [scope], &SIGNING_KEYS, |row| self.read_signing_key(row))
    }

    pub(crate) fn rewrap_signing_keys(&self, keys: &[SigningKey]) -> Result<(), Failure> {
        for key in keys {
            let params = params![key.kid.as_str(), key.wrapped];
            self.execute("UPDATE signing_keys SET wrapped = ?2 WHERE kid = ?1", params)?;
        }
        self.bump_config_version()
    }

    pub(crate) fn remove_signing_keys(&self, kids: &[KeyId]) -> Result<(), Failure> {
        for kid in kids {
            self.execute("DELETE FROM signing_keys WHERE kid = ?1", [kid.as_str()])?;
        }
        self.bump_config_version()
    }

    pub(crate) fn secret_checks(&self, checks: &[(u8, [u8; 16])]) -> Result<Vec<(u8, [u8; 16])>, Failure> {
        for (kid, check) in checks {
            let sql = "INSERT INTO secret_checks (kid, check_value) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            self.execute(sql, params![kid, check])?;
        }
        let sql = "SELECT kid, check_value FROM secret_checks ORDER BY kid";
        self.all(sql, [], &SECRET_CHECKS, |row| Ok((row.int("kid")?, row.bytes("check_value")?)))
    }

    pub(crate) fn api_keys(&self) -> Result<Vec<ApiKey>, Failure> {
        let sql = "SELECT id, name, hash, permissions, created_at, revoked_at FROM api_keys ORDER BY seq";
        self.all(sql, [], &API_KEYS, |row| {
            Ok(ApiKey {
                id: row.text("id")?.into(),
                name: row.text("name")?.into(),
                hash: row.bytes("hash")?,
                permissions: row.json("permissions")?,
                created_at: row.time("created_at")?,
                revoked_at: row.time_opt("revoked_at")?,
            })
        })
    }

    pub(crate) fn audit_log(&self, before: Option<EventId>, limit: u32) -> Result<Vec<AuditEntry>, Failure> {
        let sql = "SELECT id, at, actor, action, target, ip, request_id FROM audit WHERE ?1 IS NULL OR id < ?1
                   ORDER BY id DESC LIMIT ?2";
        self.all(sql, params![before.map(EventId::to_bytes), limit], &AUDIT, read_audit)
    }

    pub(crate) fn write_audit(&self, entry: &AuditEntry) -> Result<(), Failure> {
        self.execute(
            "INSERT OR REPLACE INTO audit (id, at, actor, action, target, ip, request_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                entry.id.to_bytes(),
                entry.at.millis(),
                entry.actor,
                entry.action,
                entry.target,
                entry.ip,
                entry.request_id
            ],
        )?;
        Ok(())
    }

    fn carry_out(&self, change: &Change) -> Result<Changed, Failure> {
        match change {
            Change::CreateProduct(product) => done_or(Changed::Exists, self.insert_product(product)?),
            Change::UpdateProduct(product) => {
                let sql = "UPDATE products SET name = ?2 WHERE tag = ?1";
                done_or(Changed::NoProduct, self.execute(sql, params![product.tag.as_str(), product.name])?)
            }
            Change::DeleteProduct { product, now } => self.delete_product(product, *now),
            Change::CreateEnvironment(product, environment) => {
                if !self.has_product(product)? {
                    return Ok(Changed::NoProduct);
                }
                done_or(Changed::Exists, self.insert_environment(product, environment)?)
            }
            Change::UpdateEnvironment { scope: Scope { product, env }, patch: EnvironmentPatch { name, active } } => {
                if !self.has_product(product)? {
                    return Ok(Changed::NoProduct);
                }
                let sql = "UPDATE environments SET name = coalesce(?3, name), active = coalesce(?4, active) \
                           WHERE product = ?1 AND slug = ?2";
                done_or(Changed::Missing, self.execute(sql, params![product.as_str(), env.as_str(), name, active])?)
            }
            Change::DeleteEnvironment { scope, now } => self.delete_environment(scope, *now),
            Change::CreateDefinition(product, definition) => self.create_definition(product, definition),
            Change::UpdateDefinition { product, version, definition } => {
                self.update_definition(product, *version, definition)
            }
            Change::DeleteDefinition { product, tag, now } => self.delete_definition(product, tag, *now),
            Change::CreateApiKey(key) => done_or(Changed::Exists, self.insert_api_key(key)?),
            Change::RevokeApiKey { id, at } => {
                let sql = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1";
                done_or(Changed::Missing, self.execute(sql, params![id, at.millis()])?)
            }
        }
    }

    /// Adds a product unless it is there; how many were added.
    pub(crate) fn insert_product(&self, product: &Product) -> Result<usize, Failure> {
        let sql = "INSERT INTO products (tag, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.execute(sql, params![product.tag.as_str(), product.name])
    }

    /// Adds an environment unless it is there; how many were added.
    pub(crate) fn insert_environment(&self, product: &Tag, environment: &Environment) -> Result<usize, Failure> {
        let Environment { slug, name, active } = environment;
        self.execute(
            "INSERT INTO environments (product, slug, name, active) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![product.as_str(), slug.as_str(), name, active],
        )
    }

    /// Adds an API key after all others, unless it is there; how many were added.
    pub(crate) fn insert_api_key(&self, key: &ApiKey) -> Result<usize, Failure> {
        let permissions = serde_json::to_string(&key.permissions).expect("permissions are names");
        let (created_at, revoked_at) = (key.created_at.millis(), key.revoked_at.map(Timestamp::millis));
        self.execute(
            "INSERT INTO api_keys (id, name, hash, permissions, created_at, revoked_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO NOTHING",
            params![key.id, key.name, key.hash, permissions, created_at, revoked_at],
        )
    }

    pub(crate) fn environments(&self, product: &Tag) -> Result<Vec<Environment>, Failure> {
        let sql = "SELECT slug, name, active FROM environments WHERE product = ?1 ORDER BY slug";
        self.all(sql, [product.as_str()], &ENVIRONMENTS, read_environment)
    }

    fn delete_product(&self, product: &Tag, now: Timestamp) -> Result<Changed, Failure> {
        if !self.has_product(product)? {
            return Ok(Changed::NoProduct);
        }
        let active = self.count(
            "SELECT count(*) FROM sessions WHERE scope IN (SELECT id FROM scopes WHERE product = ?1)
             AND ended_at IS NULL AND idle_expires_at > ?2 AND expires_at > ?2",
            params![product.as_str(), now.millis()],
        )?;
        if active > 0 {
            return Ok(Changed::InUse(active));
        }
        for scope in self.scope_ids(product)? {
            self.forget(scope)?;
        }
        self.execute("DELETE FROM products WHERE tag = ?1", [product.as_str()])?;
        Ok(Changed::Done)
    }

    fn delete_environment(&self, scope: &Scope, now: Timestamp) -> Result<Changed, Failure> {
        if !self.has_product(&scope.product)? {
            return Ok(Changed::NoProduct);
        }
        let names = [scope.product.as_str(), scope.env.as_str()];
        if !self.exists("SELECT 1 FROM environments WHERE product = ?1 AND slug = ?2", names)? {
            return Ok(Changed::Missing);
        }
        let id = self.scope_id(scope)?;
        let active = self.count(
            "SELECT count(*) FROM sessions WHERE scope = ?1
             AND ended_at IS NULL AND idle_expires_at > ?2 AND expires_at > ?2",
            params![id, now.millis()],
        )?;
        if active > 0 {
            return Ok(Changed::InUse(active));
        }
        self.forget(id)?;
        self.execute("DELETE FROM environments WHERE product = ?1 AND slug = ?2", names)?;
        Ok(Changed::Done)
    }

    fn create_definition(&self, product: &Tag, definition: &Definition) -> Result<Changed, Failure> {
        if !self.has_product(product)? {
            return Ok(Changed::NoProduct);
        }
        if self.current_version(product, &definition.tag)?.is_some() {
            return Ok(Changed::Exists);
        }
        const NUMBERS: Table = Table { name: "definition_versions", columns: &["tag", "version"], id: 0 };
        let last = self.first(
            "SELECT tag, max(version) FROM definition_versions WHERE product = ?1 AND tag = ?2 GROUP BY tag",
            [product.as_str(), definition.tag.as_str()],
            &NUMBERS,
            |row| {
                row.skip("tag");
                row.int::<u32>("version")
            },
        )?;
        self.write_definition(product, last.unwrap_or(0) + 1, definition)
    }

    fn update_definition(&self, product: &Tag, version: u32, definition: &Definition) -> Result<Changed, Failure> {
        if !self.has_product(product)? {
            return Ok(Changed::NoProduct);
        }
        match self.current_version(product, &definition.tag)? {
            None => Ok(Changed::Missing),
            Some(current) if current == version => self.write_definition(product, version + 1, definition),
            Some(_) => Ok(Changed::Stale),
        }
    }

    fn delete_definition(&self, product: &Tag, tag: &Tag, now: Timestamp) -> Result<Changed, Failure> {
        if !self.has_product(product)? {
            return Ok(Changed::NoProduct);
        }
        if self.current_version(product, tag)?.is_none() {
            return Ok(Changed::Missing);
        }
        let active = self.count(
            "SELECT count(*) FROM sessions WHERE scope IN (SELECT id FROM scopes WHERE product = ?1) AND tag = ?2
             AND ended_at IS NULL AND idle_expires_at > ?3 AND expires_at > ?3",
            params![product.as_str(), tag.as_str(), now.millis()],
        )?;
        if active > 0 {
            return Ok(Changed::InUse(active));
        }
        self.set_current_version(product, tag, None)?;
        Ok(Changed::Done)
    }

    pub(crate) fn set_current_version(&self, product: &Tag, tag: &Tag, version: Option<u32>) -> Result<(), Failure> {
        let sql = "UPDATE definitions SET current = ?3 WHERE product = ?1 AND tag = ?2";
        self.execute(sql, params![product.as_str(), tag.as_str(), version])?;
        Ok(())
    }

    pub(crate) fn write_definition(
        &self,
        product: &Tag,
        version: u32,
        definition: &Definition,
    ) -> Result<Changed, Failure> {
        let tag = definition.tag.as_str();
        self.execute(
            "INSERT INTO definitions (product, tag, current) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET current = excluded.current",
            params![product.as_str(), tag, version],
        )?;
        let lifetime = definition.access_token.lifetime.seconds();
        let definition = serde_json::to_string(definition).expect("a definition is JSON");
        self.execute(
            "UPDATE products SET longest_access = max(longest_access, ?2) WHERE tag = ?1",
            params![product.as_str(), lifetime.0.cast_signed()],
        )?;
        self.execute(
            "INSERT INTO definition_versions (product, tag, version, definition) VALUES (?1, ?2, ?3, ?4)",
            params![product.as_str(), tag, version, definition],
        )?;
        Ok(Changed::Done)
    }

    fn has_product(&self, product: &Tag) -> Result<bool, Failure> {
        self.exists("SELECT 1 FROM products WHERE tag = ?1", [product.as_str()])
    }

    fn current_version(&self, product: &Tag, tag: &Tag) -> Result<Option<u32>, Failure> {
        let sql = "SELECT tag, current FROM definitions WHERE product = ?1 AND tag = ?2";
        let found = self.first(sql, [product.as_str(), tag.as_str()], &DEFINITIONS, |row| {
            row.skip("tag");
            row.int_opt("current")
        })?;
        Ok(found.flatten())
    }

    fn current_definitions(&self, product: &Tag) -> Result<Vec<(u32, Definition)>, Failure> {
        // The outer join shows a version that is missing as a row that cannot be read.
        self.all(
            "SELECT d.tag, d.current, v.definition FROM definitions AS d
             LEFT JOIN definition_versions AS v ON v.product = d.product AND v.tag = d.tag AND v.version = d.current
             WHERE d.product = ?1 AND d.current IS NOT NULL ORDER BY d.tag",
            [product.as_str()],
            &VERSIONS,
            read_definition,
        )
    }

    fn read_signing_key(&self, row: &Cells<'_, '_>) -> Result<SigningKey, Failure> {
        Ok(SigningKey {
            kid: row.parsed("kid")?,
            scope: self.scope(row, "scope")?,
            chain: row.parsed("algorithm")?,
            public_jwk: row.text("public_jwk")?.into(),
            wrapped: row.blob("wrapped")?.into(),
            created_at: row.time("created_at")?,
            signs_from: row.time("signs_from")?,
        })
    }

    fn bump_config_version(&self) -> Result<(), Failure> {
        self.execute("UPDATE config SET version = version + 1", [])?;
        Ok(())
    }
}

fn done_or(otherwise: Changed, rows: usize) -> Result<Changed, Failure> {
    Ok(if rows > 0 { Changed::Done } else { otherwise })
}

fn read_environment(row: &Cells<'_, '_>) -> Result<Environment, Failure> {
    Ok(Environment { slug: row.parsed("slug")?, name: row.text("name")?.into(), active: row.flag("active")? })
}

pub(crate) fn read_definition(row: &Cells<'_, '_>) -> Result<(u32, Definition), Failure> {
    let tag: Tag = row.parsed("tag")?;
    let version = row.int("version")?;
    let definition = row.json::<serde_json::Value>("definition")?;
    match Definition::from_json(&definition) {
        Ok(definition) if definition.tag == tag => Ok((version, definition)),
        _ => Err(row.corrupt("definition")),
    }
}

pub(crate) fn read_audit(row: &Cells<'_, '_>) -> Result<AuditEntry, Failure> {
    Ok(AuditEntry {
        id: EventId::from_bytes(row.bytes("id")?),
        at: row.time("at")?,
        actor: row.text("actor")?.into(),
        action: row.text("action")?.into(),
        target: row.text("target")?.into(),
        ip: row.string_opt("ip")?,
        request_id: row.string_opt("request_id")?,
    })
}
