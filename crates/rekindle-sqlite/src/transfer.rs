//! What is in it, taken out and put in whole. Taken out on a reader, which no server at work notices.

use async_trait::async_trait;
use rekindle::clock::Seconds;
use rekindle::journal::{Event, EventId};
use rekindle::session::{Scope, SessionId, Tag};
use rekindle::store::*;
use rusqlite::params;

use crate::SqliteStore;
use crate::config::{AUDIT, DEFINITIONS, VERSIONS, read_audit, read_definition};
use crate::db::{Db, Failure, ScopeId, Table};
use crate::ends::{REVOCATIONS, revocation_columns};
use crate::journal::{EVENTS, OUTBOX, event_columns, outbox_columns, read_event};
use crate::sessions::{IDEMPOTENCY, SESSIONS, idempotency_columns, read_idempotency, session_columns};
use crate::sql::before_every_id;
use crate::users::{BANS, ban_columns, read_ban};

const STORED_PRODUCTS: Table = Table { name: "products", columns: &["tag", "name", "longest_access"], id: 0 };
const HELD: Table = Table { name: "events", columns: &["id", "count"], id: 0 };
const SIZES: Table = Table { name: "sessions", columns: &["size"], id: 0 };
const BAN_SCOPES: Table = Table { name: "bans", columns: &["user_id", "scope"], id: 0 };

#[async_trait]
impl Transfer for SqliteStore {
    async fn configuration(&self) -> StoreResult<Configuration> {
        self.snapshot(|db| db.configuration())
    }

    async fn set_configuration(&self, configuration: Configuration) -> StoreResult<()> {
        for key in &configuration.signing_keys {
            self.scope_id_made(&key.scope).await?;
        }
        self.write(move |db| db.set_configuration(&configuration)).await
    }

    async fn count(&self, section: Section) -> StoreResult<u64> {
        let sql = match section {
            Section::Sessions => "SELECT count(*) FROM sessions",
            Section::Bans => "SELECT count(*) FROM bans",
            Section::Revocations => "SELECT count(*) FROM revocations",
            Section::Notifications => "SELECT count(*) FROM outbox",
            Section::Audit => "SELECT count(*) FROM audit",
        };
        self.read(|db| db.count(sql, []))
    }

    async fn records(&self, section: Section, after: Option<RecordKey>, limit: u32) -> StoreResult<Vec<Record>> {
        self.snapshot(|db| db.records(section, after.as_ref(), limit))
    }

    async fn events_after(&self, sessions: Vec<(SessionId, Option<EventId>)>) -> StoreResult<Vec<Event>> {
        self.snapshot(|db| {
            let mut events = Vec::new();
            for (id, after) in sessions {
                events.extend(db.events_after(id, after)?);
            }
            Ok(events)
        })
    }

    async fn put(&self, records: Vec<Record>, events: Vec<Event>) -> StoreResult<()> {
        for record in &records {
            if let Some(scope) = scope_of(record) {
                self.scope_id_made(scope).await?;
            }
        }
        self.write(move |db| {
            records.iter().try_for_each(|record| db.put(record))?;
            events.iter().try_for_each(|event| db.insert_event(event))
        })
        .await
    }

    async fn remove(&self, keys: Vec<RecordKey>) -> StoreResult<()> {
        self.write(move |db| {
            keys.iter().try_for_each(|key| {
                if let RecordKey::Session(id) = key {
                    db.remove(*id)?;
                }
                db.clear(key)
            })
        })
        .await
    }
}

fn scope_of(record: &Record) -> Option<&Scope> {
    match record {
        Record::Session(stored) => Some(&stored.session.scope),
        Record::Ban(stored) => Some(&stored.scope),
        Record::Revocation(entry) => Some(&entry.scope),
        Record::Notification(queued) => Some(&queued.notification.scope),
        Record::Audit(_) => None,
    }
}

impl Db<'_> {
    fn configuration(&self) -> Result<Configuration, Failure> {
        let sql = "SELECT tag, name, longest_access FROM products ORDER BY tag";
        let products = self.all(sql, [], &STORED_PRODUCTS, |row| {
            let product = Product { tag: row.parsed("tag")?, name: row.text("name")?.into() };
            Ok(StoredProduct {
                longest_access: row.int("longest_access").map(Seconds)?,
                environments: self.environments(&product.tag)?,
                definitions: self.stored_definitions(&product.tag)?,
                product,
            })
        })?;
        Ok(Configuration {
            version: self.config_version()?,
            products,
            signing_keys: self.signing_keys(None)?,
            api_keys: self.api_keys()?,
            secret_checks: self.secret_checks(&[])?,
        })
    }

    fn stored_definitions(&self, product: &Tag) -> Result<Vec<StoredDefinition>, Failure> {
        let sql = "SELECT tag, current FROM definitions WHERE product = ?1 ORDER BY tag";
        self.all(sql, [product.as_str()], &DEFINITIONS, |row| {
            let (tag, current): (Tag, Option<u32>) = (row.parsed("tag")?, row.int_opt("current")?);
            let versions = self.all(
                "SELECT tag, version, definition FROM definition_versions WHERE product = ?1 AND tag = ?2 ORDER BY version",
                [product.as_str(), tag.as_str()],
                &VERSIONS,
                read_definition,
            )?;
            if current.is_some_and(|current| versions.iter().all(|(version, _)| *version != current)) {
                return Err(row.corrupt("current"));
            }
            Ok(StoredDefinition { tag, current, versions })
        })
    }

    fn set_configuration(&self, configuration: &Configuration) -> Result<(), Failure> {
        let Configuration { version, products, signing_keys, api_keys, secret_checks } = configuration;
        for sql in
            ["DELETE FROM products", "DELETE FROM signing_keys", "DELETE FROM api_keys", "DELETE FROM secret_checks"]
        {
            self.execute(sql, [])?;
        }
        for stored in products {
            self.insert_stored_product(stored)?;
        }
        for key in signing_keys {
            self.insert_signing_key(key, self.scope_id(&key.scope)?)?;
        }
        for key in api_keys {
            self.insert_api_key(key)?;
        }
        self.secret_checks(secret_checks)?;
        self.execute("UPDATE config SET version = max(version + 1, ?1)", [version.cast_signed()])?;
        Ok(())
    }

    fn insert_stored_product(&self, stored: &StoredProduct) -> Result<(), Failure> {
        let StoredProduct { product, longest_access, environments, definitions } = stored;
        self.insert_product(product)?;
        for environment in environments {
            self.insert_environment(&product.tag, environment)?;
        }
        for StoredDefinition { tag, current, versions } in definitions {
            for (version, definition) in versions {
                self.write_definition(&product.tag, *version, definition)?;
            }
            self.set_current_version(&product.tag, tag, *current)?;
        }
        let sql = "UPDATE products SET longest_access = ?2 WHERE tag = ?1";
        self.execute(sql, params![product.tag.as_str(), longest_access.0.cast_signed()])?;
        Ok(())
    }

    fn records(&self, section: Section, after: Option<&RecordKey>, limit: u32) -> Result<Vec<Record>, Failure> {
        let after_id = after.map_or_else(before_every_id, RecordKey::to_bytes);
        match section {
            Section::Sessions => {
                let sql =
                    "SELECT octet_length(data) + octet_length(claims) FROM sessions WHERE id > ?1 ORDER BY id LIMIT ?2";
                let sizes: Vec<u64> = self.all(sql, params![after_id, limit], &SIZES, |row| row.int("size"))?;
                let sql = concat!("SELECT ", session_columns!(), " FROM sessions WHERE id > ?1 ORDER BY id LIMIT ?2");
                self.all(sql, params![after_id, page_length(sizes) as i64], &SESSIONS, |row| {
                    let session = self.read_session(row)?;
                    let (idempotency, events) = (self.idempotency_of(session.id)?, self.held(session.id)?);
                    Ok(Record::Session(Box::new(StoredSession { session, idempotency, events })))
                })
            }
            Section::Bans => self.bans_after(after, limit),
            Section::Revocations => {
                let after = match after {
                    Some(RecordKey::Revocation(seq)) => i64::try_from(*seq).unwrap_or(i64::MAX),
                    _ => i64::MIN,
                };
                let sql =
                    concat!("SELECT ", revocation_columns!(), " FROM revocations WHERE seq > ?1 ORDER BY seq LIMIT ?2");
                self.all(sql, params![after, limit], &REVOCATIONS, |row| {
                    self.read_revocation(row).map(Record::Revocation)
                })
            }
            Section::Notifications => {
                let sql = concat!("SELECT ", outbox_columns!(), " FROM outbox WHERE id > ?1 ORDER BY id LIMIT ?2");
                self.all(sql, params![after_id, limit], &OUTBOX, |row| {
                    Ok(Record::Notification(Box::new(self.read_queued(row)?)))
                })
            }
            Section::Audit => {
                let sql = "SELECT id, at, actor, action, target, ip, request_id FROM audit WHERE id > ?1
                           ORDER BY id LIMIT ?2";
                self.all(sql, params![after_id, limit], &AUDIT, |row| read_audit(row).map(Record::Audit))
            }
        }
    }

    /// Scope by scope: the numbers of the scopes are in another order than the scopes.
    fn bans_after(&self, after: Option<&RecordKey>, limit: u32) -> Result<Vec<Record>, Failure> {
        let sql = concat!(
            "SELECT ",
            ban_columns!(),
            " FROM bans WHERE scope = ?1 AND user_id >= coalesce(?2, x'') AND user_id IS NOT ?2 ORDER BY user_id LIMIT ?3"
        );
        let after = match after {
            Some(RecordKey::Ban(scope, user_id)) => Some((scope.to_string(), user_id)),
            _ => None,
        };
        let mut bans = Vec::new();
        for (scope, id) in self.scopes_with_bans()? {
            let user_id = match &after {
                Some((last, _)) if scope.to_string() < *last => continue,
                Some((last, user_id)) if scope.to_string() == *last => Some(user_id.as_str().as_bytes()),
                _ => None,
            };
            let left = i64::from(limit) - bans.len() as i64;
            bans.extend(self.all(sql, params![id, user_id, left], &BANS, |row| {
                let (user_id, ban) = read_ban(row)?;
                Ok(Record::Ban(StoredBan { scope: scope.clone(), user_id, ban }))
            })?);
        }
        Ok(bans)
    }

    /// By their names.
    fn scopes_with_bans(&self) -> Result<Vec<(Scope, ScopeId)>, Failure> {
        let sql = "SELECT user_id, scope FROM bans WHERE scope > ?1 ORDER BY scope LIMIT 1";
        let (mut scopes, mut last) = (Vec::new(), ScopeId::NONE);
        while let Some(scope) = self.first(sql, [last], &BAN_SCOPES, |row| {
            row.skip("user_id");
            self.scope(row, "scope")
        })? {
            last = self.scope_id(&scope)?;
            scopes.push((scope, last));
        }
        scopes.sort_by_cached_key(|(scope, _)| scope.to_string());
        Ok(scopes)
    }

    fn idempotency_of(&self, session: SessionId) -> Result<Option<Idempotency>, Failure> {
        let sql = concat!(
            "SELECT ",
            idempotency_columns!(),
            " FROM idempotency WHERE session_id = ?1 ORDER BY expires_at DESC, key DESC"
        );
        let known = self.first(sql, [session.to_bytes()], &IDEMPOTENCY, read_idempotency)?;
        Ok(known.map(|(idempotency, _)| idempotency))
    }

    fn held(&self, session: SessionId) -> Result<Held, Failure> {
        let sql = "SELECT max(id), count(*) FROM events WHERE session_id = ?1";
        let held = self.first(sql, [session.to_bytes()], &HELD, |row| {
            let last = row.bytes_opt("id")?.map(EventId::from_bytes);
            Ok(Held { count: row.int("count")?, last })
        })?;
        Ok(held.unwrap_or_default())
    }

    fn events_after(&self, session: SessionId, after: Option<EventId>) -> Result<Vec<Event>, Failure> {
        let sql = concat!("SELECT ", event_columns!(), " FROM events WHERE session_id = ?1 AND id > ?2 ORDER BY id");
        let after = after.map_or_else(before_every_id, |id| id.to_bytes().to_vec());
        self.all(sql, params![session.to_bytes(), after], &EVENTS, read_event)
    }

    /// Makes a record be as it is given. Its scope has a number.
    fn put(&self, record: &Record) -> Result<(), Failure> {
        self.clear(&record.key())?;
        match record {
            Record::Session(stored) => {
                let StoredSession { session, idempotency, events: _ } = &**stored;
                let scope = self.scope_id(&session.scope)?;
                if let Some(idempotency) = idempotency {
                    self.write_idempotency(scope, idempotency, session.id)?;
                }
                self.insert_session(scope, session)
            }
            Record::Ban(StoredBan { scope, user_id, ban }) => self.write_ban(self.scope_id(scope)?, user_id, ban),
            Record::Revocation(Revocation { seq, scope, session_id, what, at, expires_at }) => {
                self.insert_revocation(*seq, self.scope_id(scope)?, *session_id, *what, *at, *expires_at)
            }
            Record::Notification(queued) => {
                let Queued { notification: Notification { scope, event, attempts }, due } = &**queued;
                self.write_notification(self.scope_id(scope)?, event, *attempts, *due)
            }
            Record::Audit(entry) => self.write_audit(entry),
        }
    }

    /// Removes what is there under a key, but for events.
    fn clear(&self, key: &RecordKey) -> Result<(), Failure> {
        match key {
            RecordKey::Session(id) => {
                self.remove_idempotency(*id)?;
                self.remove_row(*id)
            }
            RecordKey::Ban(scope, user_id) => self.remove_ban(self.scope_id(scope)?, user_id).map(drop),
            RecordKey::Revocation(seq) => {
                self.execute("DELETE FROM revocations WHERE seq = ?1", [seq.cast_signed()]).map(drop)
            }
            RecordKey::Notification(id) => self.settle_notification(*id, None),
            RecordKey::Audit(id) => self.execute("DELETE FROM audit WHERE id = ?1", [id.to_bytes()]).map(drop),
        }
    }
}
