//! What servers share: products, environments, definitions, keys. Those who change it take turns at the row of its
//! version.

use std::collections::BTreeMap;

use rekindle::clock::{Seconds, Timestamp};
use rekindle::definition::Definition;
use rekindle::keys::{KeyId, SigningKey};
use rekindle::session::{Scope, Tag};
use rekindle::store::*;

use crate::MysqlStore;
use crate::pool::{Failure, Transaction};
use crate::row::{Answers, Cells, Table};
use crate::sql::{Script, list, sql};
use crate::writes::{Writes, insert, json};

const PRODUCTS: Table = Table { name: "products", columns: &["tag", "name", "longest_access"], id: 0 };
const ENVIRONMENTS: Table = Table { name: "environments", columns: &["product", "slug", "name", "active"], id: 1 };
const DEFINITIONS: Table = Table { name: "definitions", columns: &["product", "tag", "present_version"], id: 1 };
const VERSIONS: Table =
    Table { name: "definition_versions", columns: &["product", "tag", "version", "definition"], id: 1 };
const LAST_VERSION: Table = Table { name: "definition_versions", columns: &["version"], id: 0 };
const SIGNING_KEYS: Table = Table {
    name: "signing_keys",
    columns: &["kid", "product", "env", "algorithm", "public_jwk", "wrapped", "created_at", "signs_from", "seq"],
    id: 0,
};
const KIDS: Table = Table { name: "signing_keys", columns: &["kid"], id: 0 };
const SECRET_CHECKS: Table = Table { name: "secret_checks", columns: &["kid", "check_value"], id: 0 };
const API_KEYS: Table = Table {
    name: "api_keys",
    columns: &["id", "name", "hash", "permissions", "created_at", "revoked_at", "seq"],
    id: 0,
};
const API_KEY_IDS: Table = Table { name: "api_keys", columns: &["id"], id: 0 };
const CONFIG: Table = Table { name: "config", columns: &["version"], id: 0 };
const COUNT: Table = Table { name: "sessions", columns: &["count"], id: 0 };

/// The version that the row of `config` has after a change: later than every earlier one's.
const PRESENT_VERSION: &str = "(SELECT version FROM config WHERE id = 1)";
const BUMP_VERSION: &str = "UPDATE config SET version = version + 1 WHERE id = 1";

impl MysqlStore {
    pub(crate) async fn read_config_version(&self) -> StoreResult<u64> {
        config_version(&mut self.pool.ask(vec![select_config()]).await?)
    }

    pub(crate) async fn read_scope(&self, scope: &Scope) -> StoreResult<ScopeRead> {
        let Scope { product, env } = scope;
        let mut answers = self
            .pool
            .snapshot(vec![
                select_product(product),
                sql!(format!("{} WHERE product = ? AND slug = ?", ENVIRONMENTS.select()), product, env),
                current_definitions(Some(product)),
                sql!(format!("{} WHERE product = ? AND env = ? ORDER BY seq", SIGNING_KEYS.select()), product, env),
            ])
            .await?;
        let found = answers.first(&PRODUCTS, product_row)?;
        let environment = answers.first(&ENVIRONMENTS, environment)?;
        let definitions = answers.all(&VERSIONS, definition)?;
        let keys = answers.all(&SIGNING_KEYS, signing_key)?;
        let Some((_, longest_access)) = found else { return Ok(ScopeRead::NoProduct) };
        let Some((_, environment)) = environment else { return Ok(ScopeRead::NoEnvironment) };
        let definitions = definitions.into_iter().map(|(_, version, definition)| (version, definition)).collect();
        Ok(ScopeRead::Found(Box::new(ScopeRecord { environment, definitions, keys, longest_access })))
    }

    pub(crate) async fn read_definition(
        &self,
        product: &Tag,
        tag: &Tag,
        version: u32,
    ) -> StoreResult<Option<Definition>> {
        let sql = format!("{} WHERE product = ? AND tag = ? AND version = ?", VERSIONS.select());
        let found = self.pool.ask(vec![sql!(sql, product, tag, version)]).await?.first(&VERSIONS, definition)?;
        Ok(found.map(|(_, _, definition)| definition))
    }

    pub(crate) async fn read_products(&self) -> StoreResult<Vec<ProductRecord>> {
        let mut answers =
            self.pool.snapshot(vec![select_products(), select_environments(), current_definitions(None)]).await?;
        let products = answers.all(&PRODUCTS, product_row)?;
        let environments = answers.all(&ENVIRONMENTS, environment)?;
        let definitions = answers.all(&VERSIONS, definition)?;
        let record = |product: Product| {
            let environments = environments.iter().filter(|(of, _)| *of == product.tag).map(|(_, e)| e.clone());
            let definitions = definitions.iter().filter(|(of, ..)| *of == product.tag).map(|(_, v, d)| (*v, d.clone()));
            ProductRecord { environments: environments.collect(), definitions: definitions.collect(), product }
        };
        Ok(products.into_iter().map(|(product, _)| record(product)).collect())
    }

    pub(crate) async fn read_api_keys(&self) -> StoreResult<Vec<ApiKey>> {
        self.pool.ask(vec![select_api_keys()]).await?.all(&API_KEYS, api_key)
    }

    /// All of it, as it is at one moment.
    pub(crate) async fn read_configuration(&self) -> StoreResult<Configuration> {
        let mut answers = self
            .pool
            .snapshot(vec![
                select_config(),
                select_products(),
                select_environments(),
                format!("{} ORDER BY product, tag, version", VERSIONS.select()),
                format!("{} ORDER BY product, tag", DEFINITIONS.select()),
                format!("{} ORDER BY seq", SIGNING_KEYS.select()),
                select_api_keys(),
                select_secret_checks(),
            ])
            .await?;
        let version = config_version(&mut answers)?;
        let products = answers.all(&PRODUCTS, product_row)?;
        let environments = answers.all(&ENVIRONMENTS, environment)?;
        let mut versions: BTreeMap<(Tag, Tag), Vec<(u32, Definition)>> = BTreeMap::new();
        for (product, version, definition) in answers.all(&VERSIONS, definition)? {
            versions.entry((product, definition.tag.clone())).or_default().push((version, definition));
        }
        let definitions = answers.all(&DEFINITIONS, |row| {
            let (product, tag): (Tag, Tag) = (row.parsed("product")?, row.parsed("tag")?);
            let current = row.parsed_opt("present_version")?;
            let versions = versions.get(&(product.clone(), tag.clone())).cloned().unwrap_or_default();
            if current.is_some_and(|current| !versions.iter().any(|(version, _)| *version == current)) {
                return Err(row.corrupt("present_version"));
            }
            Ok((product, StoredDefinition { tag, current, versions }))
        })?;
        let stored = |(product, longest_access): (Product, Seconds)| {
            let environments = environments.iter().filter(|(of, _)| *of == product.tag).map(|(_, e)| e.clone());
            let definitions = definitions.iter().filter(|(of, _)| *of == product.tag).map(|(_, d)| d.clone());
            let (environments, definitions) = (environments.collect(), definitions.collect());
            StoredProduct { product, longest_access, environments, definitions }
        };
        Ok(Configuration {
            version,
            products: products.into_iter().map(stored).collect(),
            signing_keys: answers.all(&SIGNING_KEYS, signing_key)?,
            api_keys: answers.all(&API_KEYS, api_key)?,
            secret_checks: answers.all(&SECRET_CHECKS, secret_check)?,
        })
    }

    /// Replaces all of it.
    pub(crate) async fn try_set_configuration(&self, configuration: &Configuration) -> Result<(), Failure> {
        let Configuration { version, products, signing_keys, api_keys, secret_checks } = configuration;
        let transaction = self.begin_change().await?;
        // Keys that are added later come after these.
        let least = (*version).max(signing_keys.len().max(api_keys.len()) as u64);
        let mut script = vec![sql!("UPDATE config SET version = GREATEST(version + 1, ?) WHERE id = 1", least)];
        let mut replace = |table: &Table, rows: Vec<String>| {
            script.push(format!("DELETE FROM {}", table.name));
            insert(&table.insert(), &rows, "", &mut script);
        };
        let (mut rows, mut environments, mut definitions, mut versions) = (vec![], vec![], vec![], vec![]);
        for stored in products {
            let product = &stored.product.tag;
            rows.push(product_values(&stored.product, stored.longest_access));
            environments.extend(stored.environments.iter().map(|environment| environment_values(product, environment)));
            for StoredDefinition { tag, current, versions: known } in &stored.definitions {
                definitions.push(sql!("?, ?, ?", product, tag, *current));
                versions
                    .extend(known.iter().map(|(version, definition)| version_values(product, *version, definition)));
            }
        }
        replace(&PRODUCTS, rows);
        replace(&ENVIRONMENTS, environments);
        replace(&DEFINITIONS, definitions);
        replace(&VERSIONS, versions);
        replace(
            &SIGNING_KEYS,
            (1u64..).zip(signing_keys).map(|(seq, key)| signing_key_values(key, &seq.to_string())).collect(),
        );
        replace(&API_KEYS, (1u64..).zip(api_keys).map(|(seq, key)| api_key_values(key, &seq.to_string())).collect());
        replace(&SECRET_CHECKS, secret_checks.iter().map(secret_check_values).collect());
        transaction.commit(script).await.map(drop)
    }

    /// Carries out a change, and records it if it is done.
    pub(crate) async fn try_change(&self, change: &Change, audit: &AuditEntry) -> Result<Changed, Failure> {
        let mut transaction = self.begin_change().await?;
        let mut writes = Writes::default();
        let changed = plan(change, &mut transaction, &mut writes).await?;
        if changed == Changed::Done {
            writes.audit(audit);
            commit_change(transaction, writes).await?;
        } else {
            transaction.roll_back().await?;
        }
        Ok(changed)
    }

    pub(crate) async fn try_add_signing_key(&self, key: &SigningKey, newest: Option<&KeyId>) -> Result<bool, Failure> {
        let Scope { product, env } = &key.scope;
        let mut transaction = self.begin_change().await?;
        let newest_sql = format!(
            "{} WHERE product = ? AND env = ? AND algorithm = ? ORDER BY signs_from DESC, created_at DESC, kid DESC LIMIT 1",
            KIDS.select()
        );
        let mut found = transaction
            .ask(vec![
                sql!(newest_sql, product, env, key.chain.as_str()),
                sql!(format!("{} WHERE kid = ?", KIDS.select()), key.kid.as_str()),
            ])
            .await?;
        let present: Option<KeyId> = found.first(&KIDS, |row| row.parsed("kid"))?;
        let known: Option<KeyId> = found.first(&KIDS, |row| row.parsed("kid"))?;
        if present.as_ref() != newest || known.is_some() {
            transaction.roll_back().await?;
            return Ok(false);
        }
        let mut writes = Writes::default();
        let values = signing_key_values(key, PRESENT_VERSION);
        writes.statement(format!("{} VALUES ({values})", SIGNING_KEYS.insert()));
        commit_change(transaction, writes).await?;
        Ok(true)
    }

    pub(crate) async fn try_rewrap_signing_keys(&self, keys: &[SigningKey]) -> Result<(), Failure> {
        let transaction = self.begin_change().await?;
        let mut writes = Writes::default();
        for key in keys {
            let sql = "UPDATE signing_keys SET wrapped = ? WHERE kid = ?";
            writes.statement(sql!(sql, key.wrapped.as_slice(), key.kid.as_str()));
        }
        commit_change(transaction, writes).await
    }

    pub(crate) async fn try_remove_signing_keys(&self, kids: &[KeyId]) -> Result<(), Failure> {
        let transaction = self.begin_change().await?;
        let mut writes = Writes::default();
        if !kids.is_empty() {
            let kids = list(kids.iter().map(|kid| kid.as_str()));
            writes.statement(format!("DELETE FROM signing_keys WHERE kid IN ({kids})"));
        }
        commit_change(transaction, writes).await
    }

    pub(crate) async fn try_secret_checks(&self, checks: &[(u8, [u8; 16])]) -> Result<Vec<(u8, [u8; 16])>, Failure> {
        let rows: Vec<String> = checks.iter().map(secret_check_values).collect();
        let mut script = Script::new();
        insert(&SECRET_CHECKS.insert(), &rows, " ON DUPLICATE KEY UPDATE kid = kid", &mut script);
        script.push(select_secret_checks());
        let mut answers = self.pool.begin().await?.commit(script).await?;
        Ok(answers.all(&SECRET_CHECKS, secret_check)?)
    }

    pub(crate) async fn try_ping(&self) -> Result<(), Failure> {
        // Nothing changes, but a server that takes no writes says so.
        let sql = "UPDATE config SET version = version WHERE id = 1";
        self.pool.begin().await?.commit(vec![sql.into()]).await.map(drop)
    }

    /// Begins a change of the configuration: its turn lasts until the transaction ends.
    async fn begin_change(&self) -> Result<Transaction<'_>, Failure> {
        let mut transaction = self.pool.begin().await?;
        transaction.ask(vec![select_config() + " FOR UPDATE"]).await?;
        Ok(transaction)
    }
}

async fn commit_change(transaction: Transaction<'_>, writes: Writes) -> Result<(), Failure> {
    let mut script = writes.script();
    script.insert(0, BUMP_VERSION.into());
    transaction.commit(script).await.map(drop)
}

/// What a change needs to be written, or why it cannot be carried out.
async fn plan(change: &Change, transaction: &mut Transaction<'_>, writes: &mut Writes) -> Result<Changed, Failure> {
    let of_product = match change {
        Change::UpdateProduct(product) => Some(&product.tag),
        Change::DeleteProduct { product, .. }
        | Change::CreateEnvironment(product, _)
        | Change::CreateDefinition(product, _)
        | Change::UpdateDefinition { product, .. }
        | Change::DeleteDefinition { product, .. } => Some(product),
        Change::UpdateEnvironment { scope, .. } | Change::DeleteEnvironment { scope, .. } => Some(&scope.product),
        Change::CreateProduct(_) | Change::CreateApiKey(_) | Change::RevokeApiKey { .. } => None,
    };
    if let Some(product) = of_product
        && transaction.ask(vec![select_product(product)]).await?.first(&PRODUCTS, product_row)?.is_none()
    {
        return Ok(Changed::NoProduct);
    }
    match change {
        Change::CreateProduct(product) => {
            let known = transaction.ask(vec![select_product(&product.tag)]).await?.first(&PRODUCTS, product_row)?;
            if known.is_some() {
                return Ok(Changed::Exists);
            }
            writes.statement(format!("{} VALUES ({})", PRODUCTS.insert(), product_values(product, Seconds(0))));
        }
        Change::UpdateProduct(product) => {
            writes.statement(sql!("UPDATE products SET name = ? WHERE tag = ?", &product.name, &product.tag));
        }
        Change::DeleteProduct { product, now } => {
            let of_product = sql!("product = ?", product);
            let active = active(transaction, &of_product, *now).await?;
            if active > 0 {
                return Ok(Changed::InUse(active));
            }
            forget(writes, &of_product);
            for table in ["definition_versions", "definitions", "environments"] {
                writes.statement(format!("DELETE FROM {table} WHERE {of_product}"));
            }
            writes.statement(sql!("DELETE FROM products WHERE tag = ?", product));
        }
        Change::CreateEnvironment(product, environment) => {
            if has_environment(transaction, product, environment.slug.as_str()).await? {
                return Ok(Changed::Exists);
            }
            let values = environment_values(product, environment);
            writes.statement(format!("{} VALUES ({values})", ENVIRONMENTS.insert()));
        }
        Change::UpdateEnvironment { scope: Scope { product, env }, patch: EnvironmentPatch { name, active } } => {
            if !has_environment(transaction, product, env.as_str()).await? {
                return Ok(Changed::Missing);
            }
            let sql = "UPDATE environments SET name = coalesce(?, name), active = coalesce(?, active) \
                       WHERE product = ? AND slug = ?";
            writes.statement(sql!(sql, name.as_ref(), *active, product, env));
        }
        Change::DeleteEnvironment { scope, now } => {
            if !has_environment(transaction, &scope.product, scope.env.as_str()).await? {
                return Ok(Changed::Missing);
            }
            let of_scope = sql!("product = ? AND env = ?", &scope.product, &scope.env);
            let active = active(transaction, &of_scope, *now).await?;
            if active > 0 {
                return Ok(Changed::InUse(active));
            }
            forget(writes, &of_scope);
            let sql = "DELETE FROM environments WHERE product = ? AND slug = ?";
            writes.statement(sql!(sql, &scope.product, &scope.env));
        }
        Change::CreateDefinition(product, definition) => {
            if present_version(transaction, product, &definition.tag).await?.is_some() {
                return Ok(Changed::Exists);
            }
            let sql = format!("{} WHERE product = ? AND tag = ? ORDER BY version DESC LIMIT 1", LAST_VERSION.select());
            let last = transaction.ask(vec![sql!(sql, product, &definition.tag)]).await?;
            let last = { last }.first(&LAST_VERSION, |row| row.parsed::<u32>("version"))?;
            write_definition(writes, product, last.unwrap_or(0) + 1, definition);
        }
        Change::UpdateDefinition { product, version, definition } => {
            match present_version(transaction, product, &definition.tag).await? {
                None => return Ok(Changed::Missing),
                Some(present) if present != *version => return Ok(Changed::Stale),
                Some(_) => write_definition(writes, product, version + 1, definition),
            }
        }
        Change::DeleteDefinition { product, tag, now } => {
            if present_version(transaction, product, tag).await?.is_none() {
                return Ok(Changed::Missing);
            }
            let active = active(transaction, &sql!("product = ? AND tag = ?", product, tag), *now).await?;
            if active > 0 {
                return Ok(Changed::InUse(active));
            }
            let sql = "UPDATE definitions SET present_version = NULL WHERE product = ? AND tag = ?";
            writes.statement(sql!(sql, product, tag));
        }
        Change::CreateApiKey(key) => {
            let sql = format!("{} WHERE id = ? OR hash = ?", API_KEY_IDS.select());
            let mut known = transaction.ask(vec![sql!(sql, &key.id, &key.hash)]).await?;
            if known.first(&API_KEY_IDS, |row| row.text("id"))?.is_some() {
                return Ok(Changed::Exists);
            }
            let values = api_key_values(key, PRESENT_VERSION);
            writes.statement(format!("{} VALUES ({values})", API_KEYS.insert()));
        }
        Change::RevokeApiKey { id, at } => {
            let mut known = transaction.ask(vec![sql!(format!("{} WHERE id = ?", API_KEY_IDS.select()), id)]).await?;
            if known.first(&API_KEY_IDS, |row| row.text("id"))?.is_none() {
                return Ok(Changed::Missing);
            }
            writes.statement(sql!("UPDATE api_keys SET revoked_at = COALESCE(revoked_at, ?) WHERE id = ?", *at, id));
        }
    }
    Ok(Changed::Done)
}

/// How many of the sessions that `condition` selects are active.
async fn active(transaction: &mut Transaction<'_>, condition: &str, now: Timestamp) -> Result<u64, Failure> {
    let sql = sql!(
        format!(
            "SELECT COUNT(*) FROM sessions FORCE INDEX (sessions_by_scope) WHERE {condition}
             AND ended_at IS NULL AND idle_expires_at > ? AND expires_at > ?"
        ),
        now,
        now
    );
    let count = transaction.ask(vec![sql]).await?.first(&COUNT, |row| row.parsed("count"))?;
    Ok(count.unwrap_or(0))
}

/// Removes all that belongs to deleted scopes.
fn forget(writes: &mut Writes, condition: &str) {
    for table in ["sessions", "user_locks", "bans", "idempotency", "revocations", "outbox", "signing_keys"] {
        writes.statement(format!("DELETE FROM {table} WHERE {condition}"));
    }
}

async fn has_environment(transaction: &mut Transaction<'_>, product: &Tag, slug: &str) -> Result<bool, Failure> {
    let sql = sql!(format!("{} WHERE product = ? AND slug = ?", ENVIRONMENTS.select()), product, slug);
    Ok(transaction.ask(vec![sql]).await?.first(&ENVIRONMENTS, environment)?.is_some())
}

async fn present_version(transaction: &mut Transaction<'_>, product: &Tag, tag: &Tag) -> Result<Option<u32>, Failure> {
    let sql = sql!(format!("{} WHERE product = ? AND tag = ?", DEFINITIONS.select()), product, tag);
    let found = transaction.ask(vec![sql]).await?.first(&DEFINITIONS, |row| {
        row.skip("product");
        row.skip("tag");
        row.parsed_opt("present_version")
    })?;
    Ok(found.flatten())
}

/// Makes a version of a definition the present one.
fn write_definition(writes: &mut Writes, product: &Tag, version: u32, definition: &Definition) {
    let present = sql!("?, ?, ?", product, &definition.tag, version);
    writes.statement(format!("{} VALUES ({present})", DEFINITIONS.replace()));
    let values = version_values(product, version, definition);
    writes.statement(format!("{} VALUES ({values})", VERSIONS.insert()));
    writes.statement(sql!(
        "UPDATE products SET longest_access = GREATEST(longest_access, ?) WHERE tag = ?",
        definition.access_token.lifetime.seconds().0,
        product
    ));
}

/// The scripts that a new store begins with: product `default`, its environment `dev` and its definition `default`.
pub(crate) fn seed() -> Script {
    let tag: Tag = "default".parse().expect("a valid tag");
    let mut writes = Writes::default();
    for statement in [
        "INSERT INTO config (id, version) VALUES (1, 0)",
        "INSERT INTO feed (id, last_seq) VALUES (1, 0)",
        "INSERT INTO products (tag, name, longest_access) VALUES ('default', 'Default', 0)",
        "INSERT INTO environments (product, slug, name, active) VALUES ('default', 'dev', 'Development', 1)",
    ] {
        writes.statement(statement.into());
    }
    write_definition(&mut writes, &tag, 1, &Definition::default_for(tag.clone()));
    writes.script()
}

fn select_config() -> String {
    format!("{} WHERE id = 1", CONFIG.select())
}

fn select_products() -> String {
    format!("{} ORDER BY tag", PRODUCTS.select())
}

fn select_environments() -> String {
    format!("{} ORDER BY product, slug", ENVIRONMENTS.select())
}

fn select_api_keys() -> String {
    format!("{} ORDER BY seq", API_KEYS.select())
}

fn select_secret_checks() -> String {
    format!("{} ORDER BY kid", SECRET_CHECKS.select())
}

fn select_product(tag: &Tag) -> String {
    sql!(format!("{} WHERE tag = ?", PRODUCTS.select()), tag)
}

/// The definitions of one product or of all, in their present versions. The outer join shows a version that is missing
/// as a row that cannot be read.
fn current_definitions(product: Option<&Tag>) -> String {
    let of_product = product.map(|p| sql!(" AND d.product = ?", p)).unwrap_or_default();
    format!(
        "SELECT d.product, d.tag, d.present_version, v.definition FROM definitions d
         LEFT JOIN definition_versions v ON v.product = d.product AND v.tag = d.tag AND v.version = d.present_version
         WHERE d.present_version IS NOT NULL{of_product} ORDER BY d.product, d.tag"
    )
}

/// From the answer to [`select_config`].
fn config_version(answers: &mut Answers) -> StoreResult<u64> {
    let version = answers.first(&CONFIG, |row| row.parsed("version"))?;
    version.ok_or_else(|| StoreError::Corrupt { table: "config", column: "id", id: "1".into() })
}

fn product_row(row: &mut Cells) -> StoreResult<(Product, Seconds)> {
    let product = Product { tag: row.parsed("tag")?, name: row.text("name")? };
    Ok((product, Seconds(row.parsed("longest_access")?)))
}

fn environment(row: &mut Cells) -> StoreResult<(Tag, Environment)> {
    let product = row.parsed("product")?;
    Ok((product, Environment { slug: row.parsed("slug")?, name: row.text("name")?, active: row.flag("active")? }))
}

fn definition(row: &mut Cells) -> StoreResult<(Tag, u32, Definition)> {
    let product = row.parsed("product")?;
    let tag: Tag = row.parsed("tag")?;
    let version = row.parsed("version")?;
    let definition = row.json::<serde_json::Value>("definition")?;
    match Definition::from_json(&definition) {
        Ok(definition) if definition.tag == tag => Ok((product, version, definition)),
        _ => Err(row.corrupt("definition")),
    }
}

fn signing_key(row: &mut Cells) -> StoreResult<SigningKey> {
    Ok(SigningKey {
        kid: row.parsed("kid")?,
        scope: row.scope()?,
        chain: row.parsed("algorithm")?,
        public_jwk: row.text("public_jwk")?,
        wrapped: row.blob("wrapped")?,
        created_at: row.time("created_at")?,
        signs_from: row.time("signs_from")?,
    })
}

fn api_key(row: &mut Cells) -> StoreResult<ApiKey> {
    Ok(ApiKey {
        id: row.text("id")?,
        name: row.text("name")?,
        hash: row.bytes("hash")?,
        permissions: row.json("permissions")?,
        created_at: row.time("created_at")?,
        revoked_at: row.time_opt("revoked_at")?,
    })
}

fn secret_check(row: &mut Cells) -> StoreResult<(u8, [u8; 16])> {
    Ok((row.parsed("kid")?, row.bytes("check_value")?))
}

fn product_values(product: &Product, longest_access: Seconds) -> String {
    sql!("?, ?, ?", &product.tag, &product.name, longest_access.0)
}

fn environment_values(product: &Tag, environment: &Environment) -> String {
    sql!("?, ?, ?, ?", product, &environment.slug, &environment.name, environment.active)
}

fn version_values(product: &Tag, version: u32, definition: &Definition) -> String {
    sql!("?, ?, ?, ?", product, &definition.tag, version, json(definition))
}

/// With an expression for the number by which the keys are ordered.
fn signing_key_values(key: &SigningKey, seq: &str) -> String {
    let values = sql!(
        "?, ?, ?, ?, ?, ?, ?, ?",
        key.kid.as_str(),
        &key.scope.product,
        &key.scope.env,
        key.chain.as_str(),
        &key.public_jwk,
        key.wrapped.as_slice(),
        key.created_at,
        key.signs_from
    );
    format!("{values}, {seq}")
}

/// As [`signing_key_values`].
fn api_key_values(key: &ApiKey, seq: &str) -> String {
    let permissions = json(&key.permissions);
    let values = sql!("?, ?, ?, ?, ?, ?", &key.id, &key.name, &key.hash, permissions, key.created_at, key.revoked_at);
    format!("{values}, {seq}")
}

fn secret_check_values((kid, check): &(u8, [u8; 16])) -> String {
    sql!("?, ?", *kid, check)
}
