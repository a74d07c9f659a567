//! What is in it, taken out and put in whole. Taken out without a lock; put in with few statements, however many rows they carry.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use rekindle::clock::Seconds;
use rekindle::definition::Definition;
use rekindle::journal::{Event, EventId};
use rekindle::session::{SessionId, Tag};
use rekindle::store::*;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::PostgresStore;
use crate::configuration::{
    SELECT_API_KEYS, SELECT_CONFIG, SELECT_ENVIRONMENTS, SELECT_SECRET_CHECKS, SELECT_SIGNING_KEYS, environments_of,
    insert_api_key, insert_environment, insert_product, insert_secret_checks, insert_signing_key, insert_version,
    lock_config, read_api_key, read_audit, read_config_version, read_definition, read_secret_check, read_signing_key,
    rows_of, set_present_version,
};
use crate::database::{Failure, Statement, statement};
use crate::ends::{id_after, remove_events, remove_idempotency, remove_rows};
use crate::journal::{event_columns, read_event, read_queued, read_revocation, revocation_columns};
use crate::row::{Cells, scope_bytes};
use crate::sessions::{insert_idempotency, insert_sessions, read_sessions, session_columns, uuid};
use crate::transaction::{
    BEGIN_SNAPSHOT, Intent, Transaction, column, event_uuid, insert_audit, insert_events, insert_notifications,
    insert_revocations,
};
use crate::users::{read_ban, write_bans};

#[async_trait]
impl Transfer for PostgresStore {
    async fn configuration(&self) -> StoreResult<Configuration> {
        self.carry_out(ReadConfiguration).await
    }

    async fn set_configuration(&self, configuration: Configuration) -> StoreResult<()> {
        self.carry_out(SetConfiguration(configuration)).await
    }

    async fn count(&self, section: Section) -> StoreResult<u64> {
        self.carry_out(Count(section)).await
    }

    async fn records(&self, section: Section, after: Option<RecordKey>, limit: u32) -> StoreResult<Vec<Record>> {
        self.carry_out(ReadRecords { section, after, limit }).await
    }

    async fn events_after(&self, sessions: Vec<(SessionId, Option<EventId>)>) -> StoreResult<Vec<Event>> {
        self.carry_out(EventsAfter(sessions)).await
    }

    async fn put(&self, records: Vec<Record>, events: Vec<Event>) -> StoreResult<()> {
        self.carry_out(Put { records, events }).await
    }

    async fn remove(&self, keys: Vec<RecordKey>) -> StoreResult<()> {
        self.carry_out(Remove(keys)).await
    }
}

struct ReadConfiguration;

#[async_trait]
impl Intent for ReadConfiguration {
    type Outcome = Configuration;

    const BEGIN: &'static str = BEGIN_SNAPSHOT;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Configuration, Failure> {
        let [config, products, environments, definitions, versions, signing_keys, api_keys, secret_checks] = tx
            .read([
                statement!(SELECT_CONFIG),
                statement!("SELECT tag, name, longest_access FROM products"),
                statement!(SELECT_ENVIRONMENTS),
                statement!("SELECT product, tag, current FROM definitions"),
                statement!("SELECT product, tag, version, definition FROM definition_versions ORDER BY version"),
                statement!(SELECT_SIGNING_KEYS, None::<Vec<u8>>),
                statement!(SELECT_API_KEYS),
                statement!(SELECT_SECRET_CHECKS),
            ])
            .await?;
        let mut stored = Vec::with_capacity(products.len());
        for row in &products {
            let row = Cells::new(row, "products", "tag");
            let product = Product { tag: row.parsed("tag")?, name: row.json("name")? };
            stored.push(StoredProduct {
                longest_access: Seconds(row.int("longest_access")?),
                environments: environments_of(&environments, &product.tag)?,
                definitions: stored_definitions(&definitions, &versions, &product.tag)?,
                product,
            });
        }
        stored.sort_by(|a, b| a.product.tag.cmp(&b.product.tag));
        Ok(Configuration {
            version: read_config_version(&config)?,
            products: stored,
            signing_keys: signing_keys.iter().map(read_signing_key).collect::<Result<_, _>>()?,
            api_keys: api_keys.iter().map(read_api_key).collect::<Result<_, _>>()?,
            secret_checks: secret_checks.iter().map(read_secret_check).collect::<Result<_, _>>()?,
        })
    }
}

fn stored_definitions(
    definitions: &[Row],
    versions: &[Row],
    product: &Tag,
) -> Result<Vec<StoredDefinition>, StoreError> {
    let versions: Vec<(u32, Definition)> = rows_of(versions, product).map(read_definition).collect::<Result<_, _>>()?;
    let mut stored = Vec::new();
    for row in rows_of(definitions, product) {
        let row = Cells::new(row, "definitions", "tag");
        let (tag, current): (Tag, Option<u32>) = (row.parsed("tag")?, row.int_opt("current")?);
        let versions: Vec<_> = versions.iter().filter(|(_, definition)| definition.tag == tag).cloned().collect();
        if current.is_some_and(|current| versions.iter().all(|(version, _)| *version != current)) {
            return Err(row.corrupt("current"));
        }
        stored.push(StoredDefinition { tag, current, versions });
    }
    stored.sort_by(|a, b| a.tag.cmp(&b.tag));
    Ok(stored)
}

struct SetConfiguration(Configuration);

#[async_trait]
impl Intent for SetConfiguration {
    type Outcome = ();

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<(), Failure> {
        let Configuration { version, products, signing_keys, api_keys, secret_checks } = &self.0;
        let version = version.cast_signed().max(lock_config(tx).await? + 1);
        for sql in
            ["DELETE FROM products", "DELETE FROM signing_keys", "DELETE FROM api_keys", "DELETE FROM secret_checks"]
        {
            tx.write(statement!(sql));
        }
        for StoredProduct { product, longest_access, environments, definitions } in products {
            tx.write(insert_product(product, *longest_access));
            for environment in environments {
                tx.write(insert_environment(&product.tag, environment));
            }
            for StoredDefinition { tag, current, versions } in definitions {
                tx.write(set_present_version(&product.tag, tag, *current));
                for (version, definition) in versions {
                    tx.write(insert_version(&product.tag, *version, definition));
                }
            }
        }
        // Before all that later changes bring.
        for (key, seq) in signing_keys.iter().zip(version - signing_keys.len() as i64..) {
            tx.write(insert_signing_key(key, seq));
        }
        for (key, seq) in api_keys.iter().zip(version - api_keys.len() as i64..) {
            tx.write(insert_api_key(key, seq));
        }
        tx.write(insert_secret_checks(secret_checks));
        tx.write(statement!("UPDATE config SET version = $1", version));
        Ok(())
    }
}

struct Count(Section);

#[async_trait]
impl Intent for Count {
    type Outcome = u64;

    const BEGIN: &'static str = BEGIN_SNAPSHOT;
    const LONG: bool = true;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<u64, Failure> {
        let (table, sql) = match self.0 {
            Section::Sessions => ("sessions", "SELECT count(*) AS count FROM sessions"),
            Section::Bans => ("bans", "SELECT count(*) AS count FROM bans"),
            Section::Revocations => ("revocations", "SELECT count(*) AS count FROM revocations"),
            Section::Notifications => ("outbox", "SELECT count(*) AS count FROM outbox"),
            Section::Audit => ("audit", "SELECT count(*) AS count FROM audit"),
        };
        let [rows] = tx.read([statement!(sql)]).await?;
        let count = rows.first().map(|row| Cells::new(row, table, "count").int("count"));
        Ok(count.transpose()?.unwrap_or(0))
    }
}

struct ReadRecords {
    section: Section,
    after: Option<RecordKey>,
    limit: u32,
}

#[async_trait]
impl Intent for ReadRecords {
    type Outcome = Vec<Record>;

    const BEGIN: &'static str = BEGIN_SNAPSHOT;
    const LONG: bool = true;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Vec<Record>, Failure> {
        let limit = i64::from(self.limit);
        let after_id = match &self.after {
            Some(RecordKey::Session(id)) => Some(uuid(*id)),
            Some(RecordKey::Notification(id) | RecordKey::Audit(id)) => Some(event_uuid(*id)),
            _ => None,
        };
        match self.section {
            Section::Sessions => stored_sessions(tx, after_id, limit).await,
            Section::Bans => {
                let (scope, user_id) = match &self.after {
                    Some(RecordKey::Ban(scope, user_id)) => (scope_bytes(scope), user_id.as_str().into()),
                    _ => (Vec::new(), Vec::new()),
                };
                let sql = "SELECT scope, user_id, at, until, reason FROM bans WHERE (scope, user_id) > ($1, $2)
                           ORDER BY scope, user_id LIMIT $3";
                page(tx, statement!(sql, scope, user_id, limit), |row| read_stored_ban(row).map(Record::Ban)).await
            }
            Section::Revocations => {
                let after = match &self.after {
                    Some(RecordKey::Revocation(seq)) => i64::try_from(*seq).unwrap_or(i64::MAX),
                    _ => i64::MIN,
                };
                let sql =
                    concat!("SELECT ", revocation_columns!(), " FROM revocations WHERE seq > $1 ORDER BY seq LIMIT $2");
                page(tx, statement!(sql, after, limit), |row| read_revocation(row).map(Record::Revocation)).await
            }
            Section::Notifications => {
                let sql = concat!(
                    "SELECT id, scope, due, attempts, event FROM outbox WHERE ",
                    id_after!("$1"),
                    " ORDER BY id LIMIT $2"
                );
                let read = |row: &Row| Ok(Record::Notification(Box::new(read_queued(row)?)));
                page(tx, statement!(sql, after_id, limit), read).await
            }
            Section::Audit => {
                let sql = concat!("SELECT id, entry FROM audit WHERE ", id_after!("$1"), " ORDER BY id LIMIT $2");
                page(tx, statement!(sql, after_id, limit), |row| read_audit(row).map(Record::Audit)).await
            }
        }
    }
}

async fn page(
    tx: &mut Transaction<'_>,
    statement: Statement,
    read: impl Fn(&Row) -> Result<Record, StoreError> + Send,
) -> Result<Vec<Record>, Failure> {
    let [rows] = tx.read([statement]).await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

async fn stored_sessions(tx: &mut Transaction<'_>, after: Option<Uuid>, limit: i64) -> Result<Vec<Record>, Failure> {
    let sql = concat!(
        "SELECT id, (octet_length(data) + octet_length(claims))::bigint AS size FROM sessions WHERE ",
        id_after!("$1"),
        " ORDER BY id LIMIT $2"
    );
    let [rows] = tx.read([statement!(sql, after, limit)]).await?;
    let sizes: Vec<u64> =
        rows.iter().map(|row| Cells::new(row, "sessions", "id").int("size")).collect::<Result<_, _>>()?;
    let sql = concat!("SELECT ", session_columns!(), " FROM sessions WHERE ", id_after!("$1"), " ORDER BY id LIMIT $2");
    let [rows] = tx.read([statement!(sql, after, page_length(sizes) as i64)]).await?;
    let sessions = read_sessions(&rows)?;
    let ids = column(&sessions, |s| uuid(s.id));
    let [known, held] = tx
        .read([
            statement!(
                "SELECT session_id, key, request, expires_at FROM idempotency WHERE session_id = ANY ($1::uuid[])
                 ORDER BY expires_at DESC, key DESC",
                ids.clone(),
            ),
            statement!(
                // No `max`: not every server has it for ids.
                "SELECT session_id, count(*) AS count, (array_agg(id ORDER BY id DESC))[1] AS last FROM events
                 WHERE session_id = ANY ($1::uuid[]) GROUP BY session_id",
                ids,
            ),
        ])
        .await?;
    let mut idempotency = HashMap::new();
    for row in &known {
        let row = Cells::new(row, "idempotency", "session_id");
        let (key, request) = (row.array("key")?, row.array("request")?);
        let known = Idempotency { key, request, expires_at: row.time("expires_at")? };
        idempotency.entry(SessionId::from_bytes(row.uuid("session_id")?)).or_insert(known);
    }
    let mut events = HashMap::new();
    for row in &held {
        let row = Cells::new(row, "events", "session_id");
        let held = Held { count: row.int("count")?, last: row.uuid_opt("last")?.map(EventId::from_bytes) };
        events.insert(SessionId::from_bytes(row.uuid("session_id")?), held);
    }
    let stored = sessions.into_iter().map(|session| {
        let idempotency = idempotency.get(&session.id).copied();
        let events = events.get(&session.id).copied().unwrap_or_default();
        Record::Session(Box::new(StoredSession { session, idempotency, events }))
    });
    Ok(stored.collect())
}

fn read_stored_ban(row: &Row) -> Result<StoredBan, StoreError> {
    let ban = read_ban(row)?;
    let row = Cells::new(row, "bans", "user_id");
    Ok(StoredBan { scope: row.scope("scope")?, user_id: row.parsed_bytes("user_id")?, ban })
}

struct EventsAfter(Vec<(SessionId, Option<EventId>)>);

#[async_trait]
impl Intent for EventsAfter {
    type Outcome = Vec<Event>;

    const BEGIN: &'static str = BEGIN_SNAPSHOT;
    const LONG: bool = true;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<Vec<Event>, Failure> {
        let asked = statement!(
            concat!(
                "SELECT ",
                event_columns!(),
                " FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS v (of_session, since, n)
                  JOIN events ON session_id = of_session AND ",
                id_after!("since"),
                " ORDER BY n, id"
            ),
            column(&self.0, |(session, _)| uuid(*session)),
            column(&self.0, |(_, after)| after.map(event_uuid)),
        );
        let [rows] = tx.read([asked]).await?;
        Ok(rows.iter().map(read_event).collect::<Result<_, _>>()?)
    }
}

struct Put {
    records: Vec<Record>,
    events: Vec<Event>,
}

#[async_trait]
impl Intent for Put {
    type Outcome = ();

    const LONG: bool = true;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<(), Failure> {
        clear(tx, &column(&self.records, Record::key));
        let (mut sessions, mut idempotency) = (Vec::new(), BTreeMap::new());
        let (mut bans, mut revocations, mut notifications, mut audit) = (vec![], vec![], vec![], vec![]);
        for record in &self.records {
            match record {
                Record::Session(stored) => {
                    let StoredSession { session, idempotency: known, events: _ } = &**stored;
                    sessions.push(session);
                    // The key of a session that was read earlier may have expired, and lead to another one since.
                    if let Some(known) = known {
                        idempotency.insert((scope_bytes(&session.scope), known.key), (*known, session.id));
                    }
                }
                Record::Ban(StoredBan { scope, user_id, ban }) => bans.push((scope, user_id, ban)),
                Record::Revocation(entry) => revocations.push(entry),
                Record::Notification(queued) => notifications.push(&**queued),
                Record::Audit(entry) => audit.push(entry),
            }
        }
        if !sessions.is_empty() {
            tx.write(insert_sessions(&sessions));
        }
        if !idempotency.is_empty() {
            let known: Vec<_> = idempotency.into_iter().map(|((scope, _), (known, id))| (scope, known, id)).collect();
            tx.write(statement!(
                "DELETE FROM idempotency AS i USING unnest($1::bytea[], $2::bytea[]) AS v (scope, key)
                 WHERE i.scope = v.scope AND i.key = v.key",
                column(&known, |(scope, ..)| scope.clone()),
                column(&known, |(_, known, _)| known.key.to_vec()),
            ));
            tx.write(insert_idempotency(&known));
        }
        if !bans.is_empty() {
            tx.write(write_bans(&bans));
        }
        if !revocations.is_empty() {
            insert_revocations(tx, &revocations);
        }
        if !notifications.is_empty() {
            tx.write(insert_notifications(&notifications));
        }
        if !audit.is_empty() {
            tx.write(insert_audit(&audit));
        }
        let events: Vec<_> = self.events.iter().filter(|e| e.session_id.is_some()).collect();
        if !events.is_empty() {
            tx.write(insert_events(&events));
        }
        Ok(())
    }
}

struct Remove(Vec<RecordKey>);

#[async_trait]
impl Intent for Remove {
    type Outcome = ();

    const LONG: bool = true;

    async fn carry_out(&self, tx: &mut Transaction<'_>) -> Result<(), Failure> {
        let sessions = clear(tx, &self.0);
        if !sessions.is_empty() {
            remove_events(tx, &sessions);
        }
        Ok(())
    }
}

/// Removes what is there under these keys, but for events; which sessions that concerns.
fn clear(tx: &mut Transaction<'_>, keys: &[RecordKey]) -> Vec<Uuid> {
    let (mut sessions, mut notifications, mut audit) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bans, mut revocations) = ((Vec::new(), Vec::new()), Vec::new());
    for key in keys {
        match key {
            RecordKey::Session(id) => sessions.push(uuid(*id)),
            RecordKey::Ban(scope, user_id) => {
                bans.0.push(scope_bytes(scope));
                bans.1.push(user_id.as_str().as_bytes().to_vec());
            }
            RecordKey::Revocation(seq) => revocations.push(seq.cast_signed()),
            RecordKey::Notification(id) => notifications.push(event_uuid(*id)),
            RecordKey::Audit(id) => audit.push(event_uuid(*id)),
        }
    }
    if !sessions.is_empty() {
        remove_idempotency(tx, &sessions);
        remove_rows(tx, &sessions);
    }
    if !bans.0.is_empty() {
        tx.write(statement!(
            "DELETE FROM bans AS b USING unnest($1::bytea[], $2::bytea[]) AS v (scope, user_id)
             WHERE b.scope = v.scope AND b.user_id = v.user_id",
            bans.0,
            bans.1,
        ));
    }
    if !revocations.is_empty() {
        tx.write(statement!("DELETE FROM revocations WHERE seq = ANY ($1::bigint[])", revocations));
    }
    if !notifications.is_empty() {
        tx.write(statement!("DELETE FROM outbox WHERE id = ANY ($1::uuid[])", notifications));
    }
    if !audit.is_empty() {
        tx.write(statement!("DELETE FROM audit WHERE id = ANY ($1::uuid[])", audit));
    }
    sessions
}
