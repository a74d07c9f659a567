//! What servers share: products, environments, definitions, keys, the audit log.

use async_trait::async_trait;
use rekindle::clock::{Seconds, Timestamp};
use rekindle::definition::Definition;
use rekindle::journal::EventId;
use rekindle::keys::{KeyId, SigningKey};
use rekindle::session::{Scope, Tag};
use rekindle::store::*;
use tokio_postgres::Row;

use crate::database::{Database, Failure, Statement, statement};
use crate::row::{Cells, scope_bytes};
use crate::sessions::active;
use crate::transaction::{BEGIN_SNAPSHOT, Intent, Transaction, Transactional, column, event_uuid, json};

const SELECT_PRESENT_DEFINITIONS: &str =
    // The outer join shows a version that is missing as a row that cannot be read.
    "SELECT d.product, d.tag, d.current AS version, v.definition FROM definitions AS d
     LEFT JOIN definition_versions AS v ON v.product = d.product AND v.tag = d.tag AND v.version = d.current
     WHERE ($1::text IS NULL OR d.product = $1) AND d.current IS NOT NULL";
pub(crate) const SELECT_SIGNING_KEYS: &str =
    "SELECT kid, scope, algorithm, public_jwk, wrapped, created_at, signs_from FROM signing_keys
     WHERE $1::bytea IS NULL OR scope = $1 ORDER BY seq";
pub(crate) const SELECT_API_KEYS: &str =
    "SELECT id, name, hash, permissions, created_at, revoked_at FROM api_keys ORDER BY seq";
pub(crate) const SELECT_ENVIRONMENTS: &str = "SELECT product, slug, name, active FROM environments";
pub(crate) const SELECT_SECRET_CHECKS: &str = "SELECT kid, check_value FROM secret_checks ORDER BY kid";
pub(crate) const SELECT_CONFIG: &str = "SELECT id, version FROM config";

impl Database {
    pub(crate) async fn config_version(&self) -> StoreResult<u64> {
        read_config_version(&self.rows(statement!(SELECT_CONFIG)).await?)
    }

    /// Whether a row can be written.
    pub(crate) async fn ping(&self) -> StoreResult<()> {
        self.rows(statement!("UPDATE config SET version = version")).await.map(drop)
    }

    pub(crate) async fn definition(&self, product: &Tag, tag: &Tag, version: u32) -> StoreResult<Option<Definition>> {
        let rows = self.rows(statement!(
            "SELECT tag, version, definition FROM definition_versions WHERE product = $1 AND tag = $2 AND version = $3",
            text(product),
            text(tag),
            i64::from(version),
        ));
        Ok(rows.await?.first().map(read_definition).transpose()?.map(|(_, definition)| definition))
    }

    pub(crate) async fn secret_checks(&self, checks: Vec<(u8, [u8; 16])>) -> StoreResult<Vec<(u8, [u8; 16])>> {
        self.run(Transactional(SecretChecks(checks))).await
    }

    pub(crate) async fn api_keys(&self) -> StoreResult<Vec<ApiKey>> {
        self.rows(statement!(SELECT_API_KEYS)).await?.iter().map(read_api_key).collect()
    }

    pub(crate) async fn audit_log(&self, before: Option<EventId>, limit: u32) -> StoreResult<Vec<AuditEntry>> {
        let rows = self.rows(statement!(
            "SELECT id, entry FROM audit WHERE id <= coalesce($1::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
             AND id IS DISTINCT FROM $1::uuid ORDER BY id DESC LIMIT $2",
            before.map(event_uuid),
            i64::from(limit),
        ));
        rows.await?.iter().map(read_audit).collect()
    }
}

/// Reads all that a server must know to serve a scope.
pub(crate) struct ReadScope(pub(crate) Scope);

#[async_trait]
impl Intent for ReadScope {
    type Outcome = ScopeRead;

    const BEGIN: &'static str = BEGIN_SNAPSHOT;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<ScopeRead, Failure> {
        let product = text(&self.0.product);
        let [products, environments, definitions, keys] = tx
            .read([
                statement!("SELECT tag, longest_access FROM products WHERE tag = $1", product.clone()),
                statement!(
                    "SELECT product, slug, name, active FROM environments WHERE product = $1 AND slug = $2",
                    product.clone(),
                    self.0.env.as_str().to_owned(),
                ),
                statement!(SELECT_PRESENT_DEFINITIONS, product),
                statement!(SELECT_SIGNING_KEYS, Some(scope_bytes(&self.0))),
            ])
            .await?;
        let Some(product) = products.first() else { return Ok(ScopeRead::NoProduct) };
        let Some(environment) = environments.first() else { return Ok(ScopeRead::NoEnvironment) };
        Ok(ScopeRead::Found(Box::new(ScopeRecord {
            environment: read_environment(environment)?,
            definitions: by_tag(definitions.iter().map(read_definition).collect::<Result<_, _>>()?),
            keys: keys.iter().map(read_signing_key).collect::<Result<_, _>>()?,
            longest_access: Seconds(Cells::new(product, "products", "tag").int("longest_access")?),
        })))
    }
}

/// Reads every product.
pub(crate) struct ReadProducts;

#[async_trait]
impl Intent for ReadProducts {
    type Outcome = Vec<ProductRecord>;

    const BEGIN: &'static str = BEGIN_SNAPSHOT;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Vec<ProductRecord>, Failure> {
        let [products, environments, definitions] = tx
            .read([
                statement!("SELECT tag, name FROM products"),
                statement!(SELECT_ENVIRONMENTS),
                statement!(SELECT_PRESENT_DEFINITIONS, None::<String>),
            ])
            .await?;
        let mut records = Vec::with_capacity(products.len());
        for row in &products {
            let row = Cells::new(row, "products", "tag");
            let product = Product { tag: row.parsed("tag")?, name: row.json("name")? };
            let environments = environments_of(&environments, &product.tag)?;
            let definitions = rows_of(&definitions, &product.tag).map(read_definition).collect::<Result<_, _>>()?;
            records.push(ProductRecord { product, environments, definitions: by_tag(definitions) });
        }
        records.sort_by(|a, b| a.product.tag.cmp(&b.product.tag));
        Ok(records)
    }
}

/// An administrative change with its entry of the audit log.
pub(crate) struct Audited(pub(crate) Change, pub(crate) AuditEntry);

#[async_trait]
impl Intent for Audited {
    type Outcome = Changed;

    // A deletion takes along what belongs to a product.
    const LONG: bool = true;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Changed, Failure> {
        let version = lock_config(tx).await?;
        let changed = change(tx, &self.0, version).await?;
        if changed == Changed::Done {
            bump_config(tx);
            tx.audit(&self.1);
        }
        Ok(changed)
    }
}

/// Adds a signing key after the newest one.
pub(crate) struct AddSigningKey {
    pub(crate) key: SigningKey,
    pub(crate) newest: Option<KeyId>,
}

#[async_trait]
impl Intent for AddSigningKey {
    type Outcome = bool;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<bool, Failure> {
        let key = &self.key;
        let version = lock_config(tx).await?;
        let [rows] = tx.read([statement!(SELECT_SIGNING_KEYS, Some(scope_bytes(&key.scope)))]).await?;
        let present = rows.iter().map(read_signing_key).collect::<Result<Vec<_>, _>>()?;
        let newest = present
            .iter()
            .filter(|k| k.chain == key.chain)
            .max_by(|a, b| (a.signs_from, a.created_at, &a.kid).cmp(&(b.signs_from, b.created_at, &b.kid)));
        if newest.map(|k| &k.kid) != self.newest.as_ref() {
            return Ok(false);
        }
        let added = is_found(tx, insert_signing_key(key, version)).await?;
        if added {
            bump_config(tx);
        }
        Ok(added)
    }
}

/// Replaces the wrapped private keys.
pub(crate) struct Rewrap(pub(crate) Vec<SigningKey>);

#[async_trait]
impl Intent for Rewrap {
    type Outcome = ();

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<(), Failure> {
        bump_config(tx);
        tx.write(statement!(
            "UPDATE signing_keys AS k SET wrapped = v.wrapped FROM unnest($1::text[], $2::bytea[]) AS v (kid, wrapped)
             WHERE k.kid = v.kid",
            column(&self.0, |k| k.kid.as_str().to_owned()),
            column(&self.0, |k| k.wrapped.clone()),
        ));
        Ok(())
    }
}

/// Removes signing keys.
pub(crate) struct RemoveSigningKeys(pub(crate) Vec<KeyId>);

#[async_trait]
impl Intent for RemoveSigningKeys {
    type Outcome = ();

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<(), Failure> {
        bump_config(tx);
        let kids = column(&self.0, |k| k.as_str().to_owned());
        tx.write(statement!("DELETE FROM signing_keys WHERE kid = ANY ($1::text[])", kids));
        Ok(())
    }
}

/// Appends to the audit log.
pub(crate) struct AppendAudit(pub(crate) AuditEntry);

#[async_trait]
impl Intent for AppendAudit {
    type Outcome = ();

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<(), Failure> {
        tx.audit(&self.0);
        Ok(())
    }
}

struct SecretChecks(Vec<(u8, [u8; 16])>);

#[async_trait]
impl Intent for SecretChecks {
    type Outcome = Vec<(u8, [u8; 16])>;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Self::Outcome, Failure> {
        tx.write(insert_secret_checks(&self.0));
        let [rows] = tx.read([statement!(SELECT_SECRET_CHECKS)]).await?;
        Ok(rows.iter().map(read_secret_check).collect::<Result<_, _>>()?)
    }
}

/// Makes configuration changes take turns; the configuration's version.
pub(crate) async fn lock_config(tx: &mut Transaction<'_>) -> Result<i64, Failure> {
    let [rows] = tx.read([statement!("SELECT id, version FROM config FOR UPDATE")]).await?;
    Ok(read_config_version(&rows)?)
}

fn bump_config(tx: &mut Transaction<'_>) {
    tx.write(statement!("UPDATE config SET version = version + 1"));
}

/// Whether a statement that reads or returns rows gives any.
async fn is_found(tx: &mut Transaction<'_>, statement: Statement) -> Result<bool, Failure> {
    let [rows] = tx.read([statement]).await?;
    Ok(!rows.is_empty())
}

async fn done_or(otherwise: Changed, tx: &mut Transaction<'_>, statement: Statement) -> Result<Changed, Failure> {
    Ok(if is_found(tx, statement).await? { Changed::Done } else { otherwise })
}

async fn has_product(tx: &mut Transaction<'_>, product: &Tag) -> Result<bool, Failure> {
    is_found(tx, statement!("SELECT tag FROM products WHERE tag = $1", text(product))).await
}

async fn change(tx: &mut Transaction<'_>, change: &Change, version: i64) -> Result<Changed, Failure> {
    match change {
        Change::CreateProduct(product) => done_or(Changed::Exists, tx, insert_product(product, Seconds(0))).await,
        Change::UpdateProduct(product) => {
            let sql = "UPDATE products SET name = $2 WHERE tag = $1 RETURNING tag";
            done_or(Changed::NoProduct, tx, statement!(sql, text(&product.tag), json(&product.name))).await
        }
        Change::DeleteProduct { product, now } => delete_product(tx, product, *now).await,
        Change::CreateEnvironment(product, environment) => {
            if !has_product(tx, product).await? {
                return Ok(Changed::NoProduct);
            }
            done_or(Changed::Exists, tx, insert_environment(product, environment)).await
        }
        Change::UpdateEnvironment { scope: Scope { product, env }, patch } => {
            if !has_product(tx, product).await? {
                return Ok(Changed::NoProduct);
            }
            let sql = "UPDATE environments SET name = coalesce($3, name), active = coalesce($4, active) \
                       WHERE product = $1 AND slug = $2 RETURNING slug";
            let (env, name) = (env.as_str().to_owned(), patch.name.as_ref().map(json));
            done_or(Changed::Missing, tx, statement!(sql, text(product), env, name, patch.active)).await
        }
        Change::DeleteEnvironment { scope, now } => delete_environment(tx, scope, *now).await,
        Change::CreateDefinition(product, definition) => create_definition(tx, product, definition).await,
        Change::UpdateDefinition { product, version, definition } => {
            update_definition(tx, product, *version, definition).await
        }
        Change::DeleteDefinition { product, tag, now } => delete_definition(tx, product, tag, *now).await,
        Change::CreateApiKey(key) => done_or(Changed::Exists, tx, insert_api_key(key, version)).await,
        Change::RevokeApiKey { id, at } => {
            let sql = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1 RETURNING id";
            done_or(Changed::Missing, tx, statement!(sql, id.clone().into_bytes(), at.millis())).await
        }
    }
}

/// Adds a product unless it is there; a row if it was added.
pub(crate) fn insert_product(product: &Product, longest_access: Seconds) -> Statement {
    statement!(
        "INSERT INTO products (tag, name, longest_access) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING tag",
        text(&product.tag),
        json(&product.name),
        longest_access.0.cast_signed(),
    )
}

/// Adds an environment unless it is there; a row if it was added.
pub(crate) fn insert_environment(product: &Tag, environment: &Environment) -> Statement {
    let sql = "INSERT INTO environments (product, slug, name, active) VALUES ($1, $2, $3, $4)
               ON CONFLICT DO NOTHING RETURNING slug";
    environment_row(sql, product, environment)
}

/// Adds a signing key unless it is there; a row if it was added. Keys are in the order of `seq`.
pub(crate) fn insert_signing_key(key: &SigningKey, seq: i64) -> Statement {
    statement!(
        "INSERT INTO signing_keys (kid, seq, scope, algorithm, public_jwk, wrapped, created_at, signs_from)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING kid",
        key.kid.as_str().to_owned(),
        seq,
        scope_bytes(&key.scope),
        key.chain.as_str(),
        key.public_jwk.clone(),
        key.wrapped.clone(),
        key.created_at.millis(),
        key.signs_from.millis(),
    )
}

/// Adds an API key unless it is there; a row if it was added. Keys are in the order of `seq`.
pub(crate) fn insert_api_key(key: &ApiKey, seq: i64) -> Statement {
    statement!(
        "INSERT INTO api_keys (id, seq, name, hash, permissions, created_at, revoked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING id",
        key.id.clone().into_bytes(),
        seq,
        json(&key.name),
        key.hash.to_vec(),
        json(&key.permissions),
        key.created_at.millis(),
        key.revoked_at.map(Timestamp::millis),
    )
}

/// Adds check values of master secrets, but for those that are there.
pub(crate) fn insert_secret_checks(checks: &[(u8, [u8; 16])]) -> Statement {
    statement!(
        "INSERT INTO secret_checks (kid, check_value) SELECT * FROM unnest($1::bigint[], $2::bytea[])
         ON CONFLICT DO NOTHING",
        column(checks, |(kid, _)| i64::from(*kid)),
        column(checks, |(_, check)| check.to_vec()),
    )
}

fn environment_row(sql: &'static str, product: &Tag, environment: &Environment) -> Statement {
    let Environment { slug, name, active } = environment;
    statement!(sql, text(product), slug.as_str().to_owned(), json(name), *active)
}

async fn delete_product(tx: &mut Transaction<'_>, product: &Tag, now: Timestamp) -> Result<Changed, Failure> {
    if !has_product(tx, product).await? {
        return Ok(Changed::NoProduct);
    }
    let scopes = ScopeRange::of_product(product);
    let active = count_active(tx, &scopes, None, now).await?;
    if active > 0 {
        return Ok(Changed::InUse(active));
    }
    forget(tx, &scopes);
    tx.write(statement!("DELETE FROM products WHERE tag = $1", text(product)));
    Ok(Changed::Done)
}

async fn delete_environment(tx: &mut Transaction<'_>, scope: &Scope, now: Timestamp) -> Result<Changed, Failure> {
    if !has_product(tx, &scope.product).await? {
        return Ok(Changed::NoProduct);
    }
    let (product, slug) = (text(&scope.product), scope.env.as_str().to_owned());
    let sql = "SELECT slug FROM environments WHERE product = $1 AND slug = $2";
    if !is_found(tx, statement!(sql, product.clone(), slug.clone())).await? {
        return Ok(Changed::Missing);
    }
    let scopes = ScopeRange::of_scope(scope);
    let active = count_active(tx, &scopes, None, now).await?;
    if active > 0 {
        return Ok(Changed::InUse(active));
    }
    forget(tx, &scopes);
    tx.write(statement!("DELETE FROM environments WHERE product = $1 AND slug = $2", product, slug));
    Ok(Changed::Done)
}

async fn create_definition(
    tx: &mut Transaction<'_>,
    product: &Tag,
    definition: &Definition,
) -> Result<Changed, Failure> {
    if !has_product(tx, product).await? {
        return Ok(Changed::NoProduct);
    }
    if present_version(tx, product, &definition.tag).await?.is_some() {
        return Ok(Changed::Exists);
    }
    let sql =
        "SELECT tag, max(version) AS version FROM definition_versions WHERE product = $1 AND tag = $2 GROUP BY tag";
    let [rows] = tx.read([statement!(sql, text(product), text(&definition.tag))]).await?;
    let last = rows.first().map(|row| Cells::new(row, "definition_versions", "tag").int::<u32>("version"));
    Ok(write_definition(tx, product, last.transpose()?.unwrap_or(0) + 1, definition))
}

async fn update_definition(
    tx: &mut Transaction<'_>,
    product: &Tag,
    version: u32,
    definition: &Definition,
) -> Result<Changed, Failure> {
    if !has_product(tx, product).await? {
        return Ok(Changed::NoProduct);
    }
    match present_version(tx, product, &definition.tag).await? {
        None => Ok(Changed::Missing),
        Some(present) if present == version => Ok(write_definition(tx, product, version + 1, definition)),
        Some(_) => Ok(Changed::Stale),
    }
}

async fn delete_definition(
    tx: &mut Transaction<'_>,
    product: &Tag,
    tag: &Tag,
    now: Timestamp,
) -> Result<Changed, Failure> {
    if !has_product(tx, product).await? {
        return Ok(Changed::NoProduct);
    }
    if present_version(tx, product, tag).await?.is_none() {
        return Ok(Changed::Missing);
    }
    let active = count_active(tx, &ScopeRange::of_product(product), Some(tag), now).await?;
    if active > 0 {
        return Ok(Changed::InUse(active));
    }
    tx.write(set_present_version(product, tag, None));
    Ok(Changed::Done)
}

fn write_definition(tx: &mut Transaction<'_>, product: &Tag, version: u32, definition: &Definition) -> Changed {
    tx.write(set_present_version(product, &definition.tag, Some(version)));
    tx.write(statement!(
        "UPDATE products SET longest_access = greatest(longest_access, $2) WHERE tag = $1",
        text(product),
        definition.access_token.lifetime.seconds().0.cast_signed(),
    ));
    tx.write(insert_version(product, version, definition));
    Changed::Done
}

/// Says which version of a definition holds, of a definition that may be new.
pub(crate) fn set_present_version(product: &Tag, tag: &Tag, version: Option<u32>) -> Statement {
    statement!(
        "INSERT INTO definitions (product, tag, current) VALUES ($1, $2, $3)
         ON CONFLICT (product, tag) DO UPDATE SET current = excluded.current",
        text(product),
        text(tag),
        version.map(i64::from),
    )
}

/// Adds a version to a definition that is there.
pub(crate) fn insert_version(product: &Tag, version: u32, definition: &Definition) -> Statement {
    statement!(
        "INSERT INTO definition_versions (product, tag, version, definition) VALUES ($1, $2, $3, $4)",
        text(product),
        text(&definition.tag),
        i64::from(version),
        json(definition),
    )
}

async fn present_version(tx: &mut Transaction<'_>, product: &Tag, tag: &Tag) -> Result<Option<u32>, Failure> {
    let sql = "SELECT tag, current FROM definitions WHERE product = $1 AND tag = $2";
    let [rows] = tx.read([statement!(sql, text(product), text(tag))]).await?;
    let present = rows.first().map(|row| Cells::new(row, "definitions", "tag").int_opt("current"));
    Ok(present.transpose()?.flatten())
}

/// The scopes from one to before another, as columns hold them.
struct ScopeRange(Vec<u8>, Vec<u8>);

impl ScopeRange {
    fn of_scope(scope: &Scope) -> Self {
        let from = scope_bytes(scope);
        let mut to = from.clone();
        to.push(0);
        Self(from, to)
    }

    fn of_product(product: &Tag) -> Self {
        // `0` is the character after `/`.
        Self(format!("{product}/").into_bytes(), format!("{product}0").into_bytes())
    }
}

async fn count_active(
    tx: &mut Transaction<'_>,
    scopes: &ScopeRange,
    tag: Option<&Tag>,
    now: Timestamp,
) -> Result<u64, Failure> {
    let sql = concat!(
        "SELECT count(*) AS active FROM sessions WHERE scope >= $2 AND scope < $3 AND ($4::text IS NULL OR tag = $4) AND ",
        active!()
    );
    let counted = statement!(sql, now.millis(), scopes.0.clone(), scopes.1.clone(), tag.map(text));
    let [rows] = tx.read([counted]).await?;
    let counted = rows.first().map(|row| Cells::new(row, "sessions", "active").int("active"));
    Ok(counted.transpose()?.unwrap_or(0))
}

/// Removes all that belongs to deleted scopes.
fn forget(tx: &mut Transaction<'_>, scopes: &ScopeRange) {
    for sql in [
        "DELETE FROM events WHERE session_id IN (SELECT id FROM sessions WHERE scope >= $1 AND scope < $2)",
        "DELETE FROM sessions WHERE scope >= $1 AND scope < $2",
        "DELETE FROM signing_keys WHERE scope >= $1 AND scope < $2",
        "DELETE FROM bans WHERE scope >= $1 AND scope < $2",
        "DELETE FROM idempotency WHERE scope >= $1 AND scope < $2",
        "DELETE FROM revocations WHERE scope >= $1 AND scope < $2",
        "DELETE FROM outbox WHERE scope >= $1 AND scope < $2",
    ] {
        tx.write(statement!(sql, scopes.0.clone(), scopes.1.clone()));
    }
}

fn text(tag: &Tag) -> String {
    tag.as_str().to_owned()
}

pub(crate) fn rows_of<'r>(rows: &'r [Row], product: &Tag) -> impl Iterator<Item = &'r Row> {
    rows.iter().filter(move |row| row.try_get("product").is_ok_and(|p: &str| p == product.as_str()))
}

/// By slug.
pub(crate) fn environments_of(rows: &[Row], product: &Tag) -> Result<Vec<Environment>, StoreError> {
    let mut environments: Vec<_> = rows_of(rows, product).map(read_environment).collect::<Result<_, _>>()?;
    environments.sort_by(|a, b| a.slug.cmp(&b.slug));
    Ok(environments)
}

fn by_tag(mut definitions: Vec<(u32, Definition)>) -> Vec<(u32, Definition)> {
    definitions.sort_by(|(_, a), (_, b)| a.tag.cmp(&b.tag));
    definitions
}

fn read_environment(row: &Row) -> Result<Environment, StoreError> {
    let row = Cells::new(row, "environments", "slug");
    Ok(Environment { slug: row.parsed("slug")?, name: row.json("name")?, active: row.flag("active")? })
}

pub(crate) fn read_definition(row: &Row) -> Result<(u32, Definition), StoreError> {
    let row = Cells::new(row, "definition_versions", "tag");
    let tag: Tag = row.parsed("tag")?;
    match Definition::from_json(&row.json::<serde_json::Value>("definition")?) {
        Ok(definition) if definition.tag == tag => Ok((row.int("version")?, definition)),
        _ => Err(row.corrupt("definition")),
    }
}

pub(crate) fn read_signing_key(row: &Row) -> Result<SigningKey, StoreError> {
    let row = Cells::new(row, "signing_keys", "kid");
    Ok(SigningKey {
        kid: row.parsed("kid")?,
        scope: row.scope("scope")?,
        chain: row.parsed("algorithm")?,
        public_jwk: row.text("public_jwk")?.into(),
        wrapped: row.bytes("wrapped")?.into(),
        created_at: row.time("created_at")?,
        signs_from: row.time("signs_from")?,
    })
}

pub(crate) fn read_api_key(row: &Row) -> Result<ApiKey, StoreError> {
    let row = Cells::new(row, "api_keys", "id");
    Ok(ApiKey {
        id: row.parsed_bytes("id")?,
        name: row.json("name")?,
        hash: row.array("hash")?,
        permissions: row.json("permissions")?,
        created_at: row.time("created_at")?,
        revoked_at: row.time_opt("revoked_at")?,
    })
}

pub(crate) fn read_secret_check(row: &Row) -> Result<(u8, [u8; 16]), StoreError> {
    let row = Cells::new(row, "secret_checks", "kid");
    Ok((row.int("kid")?, row.array("check_value")?))
}

pub(crate) fn read_audit(row: &Row) -> Result<AuditEntry, StoreError> {
    let row = Cells::new(row, "audit", "id");
    let entry: AuditEntry = row.json("entry")?;
    if entry.id == EventId::from_bytes(row.uuid("id")?) { Ok(entry) } else { Err(row.corrupt("entry")) }
}

/// Of the only row of `config`.
pub(crate) fn read_config_version<T: TryFrom<i64>>(rows: &[Row]) -> Result<T, StoreError> {
    let missing = || StoreError::Corrupt { table: "config", column: "id", id: "1".into() };
    Cells::new(rows.first().ok_or_else(missing)?, "config", "id").int("version")
}
