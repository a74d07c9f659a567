//! The database of a SuperTokens core, as its PostgreSQL and MySQL plugins keep it: with apps and tenants since core 6, without
//! before. Only what sessions and tokens need is read.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use rekindle::clock::Timestamp;
use rekindle_mysql::MysqlConfig;
use rekindle_postgres::PostgresConfig;
use zeroize::Zeroizing;

use super::super::origin::RefreshKey;

/// The database of a core.
pub(super) struct Source {
    connection: Connection,
    tables: Tables,
    /// The columns of its sessions: they tell how old it is.
    columns: BTreeSet<String>,
}

enum Connection {
    Postgres(rekindle_postgres::Reader),
    Mysql(rekindle_mysql::Reader),
}

/// How its tables are called.
struct Tables {
    schema: Option<String>,
    prefix: String,
}

/// A session there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CoreSession {
    pub(super) app: String,
    pub(super) tenant: String,
    pub(super) handle: String,
    pub(super) user_id: String,
    pub(super) refresh_token_hash_2: String,
    pub(super) data: String,
    pub(super) payload: String,
    pub(super) expires_at: Timestamp,
    pub(super) created_at: Timestamp,
    pub(super) use_static_key: bool,
}

/// An app there.
#[derive(Default)]
pub(super) struct CoreApp {
    /// Its tenants beside `public`.
    pub(super) tenants: BTreeSet<String>,
    /// Its `coreConfig`.
    pub(super) config: serde_json::Map<String, serde_json::Value>,
    /// What opens its refresh tokens.
    pub(super) refresh_key: Option<RefreshKey>,
    /// With what it signs, in the order in which it made them.
    pub(super) keys: Vec<CoreKey>,
    /// When the last session ends that is there.
    pub(super) last_expiry: Timestamp,
    /// How many sessions there are.
    pub(super) sessions: u64,
}

/// A signing key there.
#[derive(Clone)]
pub(super) struct CoreKey {
    pub(super) kid: String,
    pub(super) is_static: bool,
    pub(super) created_at: i64,
    /// In PKCS#8 and base64.
    pub(super) private: Zeroizing<String>,
}

type Texts = Vec<Option<String>>;

impl Source {
    /// Connects to the database with this URL; its tables' names start with `prefix`, which may name a schema.
    pub(super) async fn open(url: &str, prefix: &str) -> anyhow::Result<Self> {
        let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$');
        let (schema, prefix) = prefix.split_once('.').map_or((None, prefix), |(schema, rest)| (Some(schema), rest));
        ensure!(
            schema.is_none_or(|schema| !schema.is_empty() && word(schema)) && word(prefix),
            "--table-prefix is not like `prefix_`, or `schema.prefix_`"
        );
        let connection = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                let config = PostgresConfig::parse(url)?;
                Connection::Postgres(rekindle_postgres::Reader::connect(&config).await?)
            }
            Some("mysql" | "mariadb") => {
                let config = MysqlConfig::parse(url)?;
                Connection::Mysql(rekindle_mysql::Reader::connect(&config).await?)
            }
            _ => bail!("--from does not start with `postgres://` or `mysql://`"),
        };
        let tables = Tables { schema: schema.map(str::to_owned), prefix: prefix.to_owned() };
        let mut source = Self { connection, tables, columns: BTreeSet::new() };
        source.columns = source.columns_of("session_info").await?;
        ensure!(
            source.columns.contains("refresh_token_hash_2"),
            "there is no SuperTokens installation: no table `{}` with a column `refresh_token_hash_2` that this user may read; see \
             --table-prefix",
            source.tables.name("session_info")
        );
        Ok(source)
    }

    /// Its apps, by id, with all but their sessions.
    pub(super) async fn apps(&mut self, now: Timestamp) -> anyhow::Result<BTreeMap<String, CoreApp>> {
        let mut apps: BTreeMap<String, CoreApp> = BTreeMap::from([("public".to_owned(), CoreApp::default())]);
        if let Some(rows) = self.all("tenants", &["app_id", "tenant_id"]).await? {
            for row in rows {
                let [app, tenant] = texts(row)?;
                let app = apps.entry(app).or_default();
                if tenant != "public" {
                    app.tenants.insert(tenant);
                }
            }
        }
        if let Some(rows) = self.all("tenant_configs", &["app_id", "tenant_id", "core_config"]).await? {
            for row in rows {
                let [app, tenant, config] = texts(row)?;
                if tenant == "public" && !config.is_empty() {
                    apps.entry(app).or_default().config =
                        serde_json::from_str(&config).context("tenant_configs.core_config")?;
                }
            }
        }
        if let Some(rows) = self.all("key_value", &["app_id", "name", "value", "created_at_time"]).await? {
            for row in rows {
                let [app, name, value, created_at] = texts(row)?;
                let app = apps.entry(app).or_default();
                match name.as_str() {
                    "refresh_token_key" => app.refresh_key = Some(RefreshKey::new(value)),
                    // Up to core 3 there was one, here.
                    "access_token_signing_key" => {
                        let created_at = whole(&created_at)?;
                        app.keys.push(key(format!("s-{created_at}"), true, created_at, value)?);
                    }
                    _ => {}
                }
            }
        }
        if let Some(rows) =
            self.all("session_access_token_signing_keys", &["app_id", "created_at_time", "value"]).await?
        {
            for row in rows {
                let [app, created_at, value] = texts(row)?;
                let created_at = whole(&created_at)?;
                apps.entry(app).or_default().keys.push(key(format!("d-{created_at}"), false, created_at, value)?);
            }
        }
        let columns = ["app_id", "key_id", "key_string", "created_at", "algorithm"];
        if let Some(rows) = self.all("jwt_signing_keys", &columns).await? {
            for row in rows {
                let [app, kid, value, created_at, algorithm] = texts(row)?;
                if algorithm.eq_ignore_ascii_case("RS256") {
                    apps.entry(app).or_default().keys.push(key(kid, true, whole(&created_at)?, value)?);
                }
            }
        }
        for row in self.grouped(now).await? {
            let [app, sessions, last_expiry] = texts(row)?;
            let app = apps.entry(app).or_default();
            (app.sessions, app.last_expiry) = (sessions.parse()?, Timestamp::from_millis(whole(&last_expiry)?));
        }
        apps.values_mut().for_each(|app| app.keys.sort_by_key(|key| key.created_at));
        Ok(apps)
    }

    /// Its sessions that have not expired.
    pub(super) async fn sessions(
        &mut self,
        now: Timestamp,
    ) -> anyhow::Result<BoxStream<'_, anyhow::Result<CoreSession>>> {
        let column = |name: &'static str, otherwise: &'static str| {
            if self.columns.contains(name) { name } else { otherwise }
        };
        let sql = format!(
            "SELECT {}, {}, session_handle, user_id, refresh_token_hash_2, session_data, jwt_user_payload, expires_at, \
             created_at_time, {} FROM {} WHERE expires_at > {}",
            column("app_id", "'public'"),
            column("tenant_id", "'public'"),
            column("use_static_key", "0"),
            self.tables.name("session_info"),
            now.millis(),
        );
        let rows = self.connection.rows(&sql).await?;
        Ok(rows.map(|row| session(row?)).boxed())
    }

    /// By app: how many sessions there are that have not expired, and when the last one will.
    async fn grouped(&mut self, now: Timestamp) -> anyhow::Result<Vec<Texts>> {
        let (table, now) = (self.tables.name("session_info"), now.millis());
        let select = "COUNT(*), MAX(expires_at)";
        let sql = if self.columns.contains("app_id") {
            format!("SELECT app_id, {select} FROM {table} WHERE expires_at > {now} GROUP BY app_id")
        } else {
            format!("SELECT 'public', {select} FROM {table} WHERE expires_at > {now} HAVING COUNT(*) > 0")
        };
        self.connection.rows(&sql).await?.try_collect().await
    }

    /// All rows of a small table; nothing if it is not there. A table without apps belongs to the app `public`.
    async fn all(&mut self, table: &str, columns: &[&str]) -> anyhow::Result<Option<Vec<Texts>>> {
        let known = self.columns_of(table).await?;
        if known.is_empty() {
            return Ok(None);
        }
        let column = |name: &&str| {
            if *name == "app_id" && !known.contains(*name) { "'public'".to_owned() } else { (*name).to_owned() }
        };
        let columns: Vec<String> = columns.iter().map(column).collect();
        let sql = format!("SELECT {} FROM {}", columns.join(", "), self.tables.name(table));
        Ok(Some(self.connection.rows(&sql).await?.try_collect().await?))
    }

    async fn columns_of(&mut self, table: &str) -> anyhow::Result<BTreeSet<String>> {
        let schema = match (&self.tables.schema, &self.connection) {
            (Some(schema), _) => format!("'{schema}'"),
            (None, Connection::Postgres(_)) => "current_schema()".to_owned(),
            (None, Connection::Mysql(_)) => "DATABASE()".to_owned(),
        };
        let sql = format!(
            "SELECT column_name FROM information_schema.columns WHERE table_name = '{}{table}' AND table_schema = {schema}",
            self.tables.prefix
        );
        let rows: Vec<Texts> = self.connection.rows(&sql).await?.try_collect().await?;
        Ok(rows.into_iter().flatten().flatten().map(|name| name.to_ascii_lowercase()).collect())
    }
}

impl Connection {
    async fn rows(&mut self, sql: &str) -> anyhow::Result<BoxStream<'_, anyhow::Result<Texts>>> {
        Ok(match self {
            Self::Postgres(reader) => reader.rows(sql).await?.map_err(anyhow::Error::from).boxed(),
            Self::Mysql(reader) => reader.rows(sql).await?.map_err(anyhow::Error::from).boxed(),
        })
    }
}

impl Tables {
    fn name(&self, table: &str) -> String {
        let schema = self.schema.as_ref().map_or_else(String::new, |schema| format!("{schema}."));
        format!("{schema}{}{table}", self.prefix)
    }
}

/// A row without NULLs; those are empty.
fn texts<const N: usize>(row: Texts) -> anyhow::Result<[String; N]> {
    let row: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
    row.try_into().map_err(|row: Vec<String>| anyhow::anyhow!("a row has {} columns instead of {N}", row.len()))
}

fn whole(text: &str) -> anyhow::Result<i64> {
    text.parse().with_context(|| format!("`{text}` is not a time in milliseconds"))
}

/// A signing key out of its two halves, which are base64 and parted by a sign that base64 does not have.
fn key(kid: String, is_static: bool, created_at: i64, halves: String) -> anyhow::Result<CoreKey> {
    let halves = Zeroizing::new(halves);
    let Some((_, private)) = halves.split_once([';', '|']) else {
        bail!("the signing key `{kid}` is not a public and a private key parted by `;`");
    };
    Ok(CoreKey { private: Zeroizing::new(private.to_owned()), kid, is_static, created_at })
}

fn session(row: Texts) -> anyhow::Result<CoreSession> {
    let [app, tenant, handle, user_id, refresh_token_hash_2, data, payload, expires_at, created_at, is_static] =
        texts(row)?;
    Ok(CoreSession {
        app,
        tenant,
        handle,
        user_id,
        refresh_token_hash_2,
        data,
        payload,
        expires_at: Timestamp::from_millis(whole(&expires_at)?),
        created_at: Timestamp::from_millis(whole(&created_at)?),
        use_static_key: matches!(is_static.as_str(), "1" | "t" | "true"),
    })
}
