//! Everything, taken out and put in whole. Reading takes no locks.

use std::collections::HashMap;

use async_trait::async_trait;
use rekindle::journal::{Event, EventId};
use rekindle::session::{Scope, Session, SessionId, Tag};
use rekindle::store::*;

use crate::MysqlStore;
use crate::lists::{AUDIT, EVENTS, REVOCATIONS, audit_entry, event, revocation};
use crate::row::{Cells, Table};
use crate::sessions::{IDEMPOTENCY, SESSIONS, idempotency_values, idempotent, session, session_values};
use crate::sql::{Literal, Script, list, sql};
use crate::upkeep::{OUTBOX, queued};
use crate::users::{BANS, ban_values, delete_ban, stored_ban};
use crate::writes::{audit_values, event_values, insert, queued_values, revocation_values};

/// How many keys one statement names at most.
const KEYS: usize = 500;
/// Up to how many rows are counted; of more, the server's estimate is told.
const COUNTED: u32 = 100_000;

const COUNTS: Table = Table { name: "information_schema.tables", columns: &["counted", "table_rows"], id: 0 };
const HELD: Table = Table { name: "events", columns: &["session_id", "count", "id"], id: 0 };
const SIZES: Table = Table { name: "sessions", columns: &["size"], id: 0 };
const BANNING: Table = Table { name: "bans", columns: &["product"], id: 0 };

#[async_trait]
impl Transfer for MysqlStore {
    async fn configuration(&self) -> StoreResult<Configuration> {
        self.read_configuration().await
    }

    async fn set_configuration(&self, configuration: Configuration) -> StoreResult<()> {
        self.pool.retry(|| self.try_set_configuration(&configuration)).await
    }

    async fn count(&self, section: Section) -> StoreResult<u64> {
        let name = table(section).name;
        let sql = format!(
            "SELECT COUNT(*), (SELECT table_rows FROM information_schema.tables
             WHERE table_schema = DATABASE() AND table_name = '{name}') FROM (SELECT 1 FROM {name} LIMIT {COUNTED}) first_rows"
        );
        let read = |row: &mut Cells| Ok((row.parsed::<u64>("counted")?, row.parsed_opt::<u64>("table_rows")?));
        let (counted, estimate) = self.pool.ask(vec![sql]).await?.first(&COUNTS, read)?.unwrap_or_default();
        let is_all = counted < u64::from(COUNTED);
        Ok(if is_all { counted } else { counted.max(estimate.unwrap_or(0)) })
    }

    async fn records(&self, section: Section, after: Option<RecordKey>, limit: u32) -> StoreResult<Vec<Record>> {
        let after = after.as_ref();
        match section {
            Section::Sessions => self.read_stored_sessions(after, limit).await,
            Section::Bans => self.read_bans(after, limit).await,
            Section::Revocations => {
                self.read_page(&REVOCATIONS, after, limit, |row| Ok(Record::Revocation(revocation(row)?))).await
            }
            Section::Notifications => {
                self.read_page(&OUTBOX, after, limit, |row| Ok(Record::Notification(Box::new(queued(row)?)))).await
            }
            Section::Audit => self.read_page(&AUDIT, after, limit, |row| Ok(Record::Audit(audit_entry(row)?))).await,
        }
    }

    async fn events_after(&self, sessions: Vec<(SessionId, Option<EventId>)>) -> StoreResult<Vec<Event>> {
        let condition = |(id, after): &(SessionId, Option<EventId>)| match after {
            None => sql!("session_id = ?", *id),
            Some(after) => sql!("(session_id = ? AND id > ?)", *id, *after),
        };
        let select = |some: &[_]| {
            let conditions: Vec<String> = some.iter().map(condition).collect();
            let select = EVENTS.select() + " FORCE INDEX (PRIMARY)";
            format!("{select} WHERE {} ORDER BY session_id, id", conditions.join(" OR "))
        };
        let script: Script = sessions.chunks(KEYS).map(select).collect();
        let mut answers = self.pool.ask(script).await?;
        let mut events = Vec::new();
        while !answers.sets.is_empty() {
            events.extend(answers.all(&EVENTS, event)?);
        }
        let places: HashMap<SessionId, usize> = sessions.iter().zip(0..).map(|((id, _), place)| (*id, place)).collect();
        events.sort_by_key(|event| event.session_id.map(|id| places[&id]));
        Ok(events)
    }

    async fn put(&self, records: Vec<Record>, events: Vec<Event>) -> StoreResult<()> {
        let script = put(&records, &events);
        self.pool.retry(|| async { self.pool.begin().await?.commit(script.clone()).await.map(drop) }).await
    }

    async fn remove(&self, keys: Vec<RecordKey>) -> StoreResult<()> {
        // In steps, as events without number may go with sessions.
        for keys in keys.chunks(KEYS) {
            let script = remove(keys);
            self.pool.retry(|| async { self.pool.begin().await?.commit(script.clone()).await.map(drop) }).await?;
        }
        Ok(())
    }
}

impl MysqlStore {
    async fn read_page(
        &self,
        table: &'static Table,
        after: Option<&RecordKey>,
        limit: u32,
        read: impl Fn(&mut Cells) -> StoreResult<Record>,
    ) -> StoreResult<Vec<Record>> {
        self.pool.ask(vec![table.select() + &next(table, after, limit)]).await?.all(table, read)
    }

    async fn read_stored_sessions(&self, after: Option<&RecordKey>, limit: u32) -> StoreResult<Vec<Record>> {
        let sizes = format!("SELECT LENGTH(data) + LENGTH(claims) FROM sessions{}", next(&SESSIONS, after, limit));
        let sizes: Vec<u64> = self.pool.ask(vec![sizes]).await?.all(&SIZES, |row| row.parsed("size"))?;
        let next = next(&SESSIONS, after, page_length(sizes) as u32);
        let page = format!("(SELECT id AS page_id FROM sessions{next}) page");
        let mut answers = self
            .pool
            .snapshot(vec![
                SESSIONS.select() + &next,
                format!(
                    "SELECT {} FROM {page} STRAIGHT_JOIN idempotency FORCE INDEX (idempotency_by_session)
                     ON session_id = page.page_id",
                    IDEMPOTENCY.list()
                ),
                format!(
                    "SELECT session_id, COUNT(*), MAX(id) FROM {page} STRAIGHT_JOIN events FORCE INDEX (PRIMARY)
                     ON session_id = page.page_id GROUP BY session_id"
                ),
            ])
            .await?;
        let sessions = answers.all(&SESSIONS, session)?;
        let mut keys: HashMap<SessionId, Idempotency> = HashMap::new();
        for (known, id) in answers.all(&IDEMPOTENCY, idempotent)? {
            // No start makes a second one. Of several, the one that holds longest.
            let kept = keys.entry(id).or_insert(known);
            if (known.expires_at, known.key) > (kept.expires_at, kept.key) {
                *kept = known;
            }
        }
        let held = |row: &mut Cells| {
            let session_id = SessionId::from_bytes(row.bytes("session_id")?);
            let count = row.parsed("count")?;
            Ok((session_id, Held { count, last: Some(EventId::from_bytes(row.bytes("id")?)) }))
        };
        let held: HashMap<SessionId, Held> = answers.all(&HELD, held)?.into_iter().collect();
        let stored = |session: Session| {
            let idempotency = keys.get(&session.id).copied();
            let events = held.get(&session.id).copied().unwrap_or_default();
            Record::Session(Box::new(StoredSession { session, idempotency, events }))
        };
        Ok(sessions.into_iter().map(stored).collect())
    }

    /// Product by product, as the index has another order: in the text of a scope, `/` follows the product, and `-`,
    /// which a longer tag may go on with, comes before it.
    async fn read_bans(&self, after: Option<&RecordKey>, limit: u32) -> StoreResult<Vec<Record>> {
        let text = |product: &Tag| format!("{product}/");
        let products = self.pool.ask(vec!["SELECT DISTINCT product FROM bans".into()]).await;
        let mut products: Vec<Tag> = products?.all(&BANNING, |row| row.parsed("product"))?;
        products.sort_by_key(text);
        let mut bans = Vec::new();
        for product in products {
            let mut sql = sql!(format!("{} FORCE INDEX (PRIMARY) WHERE product = ?", BANS.select()), &product);
            match after {
                Some(RecordKey::Ban(Scope { product: last, env }, user_id)) if *last == product => {
                    sql += &sql!(" AND (env > ? OR (env = ? AND user_id > ?))", env, env, user_id);
                }
                Some(RecordKey::Ban(Scope { product: last, .. }, _)) if text(last) > text(&product) => continue,
                _ => {}
            }
            sql += &sql!(" ORDER BY env, user_id LIMIT ?", limit - bans.len() as u32);
            bans.extend(self.pool.ask(vec![sql]).await?.all(&BANS, |row| Ok(Record::Ban(stored_ban(row)?)))?);
            if bans.len() == limit as usize {
                break;
            }
        }
        Ok(bans)
    }
}

fn table(section: Section) -> &'static Table {
    match section {
        Section::Sessions => &SESSIONS,
        Section::Bans => &BANS,
        Section::Revocations => &REVOCATIONS,
        Section::Notifications => &OUTBOX,
        Section::Audit => &AUDIT,
    }
}

/// The value of the column that is the key, where one is.
fn literal(key: &RecordKey) -> Literal<'static> {
    match key {
        RecordKey::Revocation(seq) => Literal::Unsigned(*seq),
        key => Literal::Bytes(key.to_bytes().into()),
    }
}

/// What selects the next rows of a table by its key.
fn next(table: &Table, after: Option<&RecordKey>, limit: u32) -> String {
    let key = table.columns[table.id];
    let after = after.map(|last| sql!(format!(" WHERE {key} > ?"), literal(last))).unwrap_or_default();
    format!(" FORCE INDEX (PRIMARY){after} ORDER BY {key} LIMIT {limit}")
}

fn put(records: &[Record], events: &[Event]) -> Script {
    let (mut ids, mut sessions, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bans, mut revocations, mut outbox, mut audit) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut last_seq = None;
    for record in records {
        match record {
            Record::Session(stored) => {
                let StoredSession { session, idempotency, events: _ } = &**stored;
                ids.push(session.id);
                sessions.push(session_values(session));
                keys.extend(idempotency.as_ref().map(|known| idempotency_values(session, known)));
            }
            Record::Ban(StoredBan { scope, user_id, ban }) => bans.push(ban_values(scope, user_id, ban)),
            Record::Revocation(entry) => {
                last_seq = last_seq.max(Some(entry.seq));
                revocations.push(revocation_values(&entry.seq.to_string(), entry));
            }
            Record::Notification(queued) => outbox.push(queued_values(queued)),
            Record::Audit(entry) => audit.push(audit_values(entry)),
        }
    }
    let events: Vec<String> = events.iter().filter_map(|e| e.session_id.map(|id| event_values(id, e))).collect();
    // Not by replacing: a session's events would go with its old row.
    let overwrite: Vec<String> = SESSIONS.columns.iter().map(|column| format!("{column} = VALUES({column})")).collect();
    let overwrite = format!(" ON DUPLICATE KEY UPDATE {}", overwrite.join(", "));
    let mut script: Script = ids.chunks(KEYS).map(|ids| delete("idempotency", "session_id", ids.to_vec())).collect();
    insert(&SESSIONS.insert(), &sessions, &overwrite, &mut script);
    insert(&IDEMPOTENCY.replace(), &keys, "", &mut script);
    insert(&EVENTS.insert(), &events, " ON DUPLICATE KEY UPDATE id = events.id", &mut script);
    insert(&BANS.replace(), &bans, "", &mut script);
    insert(&REVOCATIONS.replace(), &revocations, "", &mut script);
    insert(&OUTBOX.replace(), &outbox, "", &mut script);
    insert(&AUDIT.replace(), &audit, "", &mut script);
    script.extend(last_seq.map(|seq| sql!("UPDATE feed SET last_seq = GREATEST(last_seq, ?) WHERE id = 1", seq)));
    script
}

fn remove(keys: &[RecordKey]) -> Script {
    let mut script = Script::new();
    for section in Section::ALL {
        let Table { name, columns, id } = table(section);
        let literals: Vec<_> = keys.iter().filter(|key| key.section() == section).map(literal).collect();
        if literals.is_empty() || section == Section::Bans {
            continue;
        }
        if section == Section::Sessions {
            script.push(delete("idempotency", "session_id", literals.clone()));
        }
        script.push(delete(name, columns[*id], literals));
    }
    for key in keys {
        if let RecordKey::Ban(scope, user_id) = key {
            script.push(delete_ban(scope, user_id));
        }
    }
    script
}

fn delete<'a>(table: &str, column: &str, keys: Vec<impl Into<Literal<'a>>>) -> String {
    format!("DELETE FROM {table} WHERE {column} IN ({})", list(keys))
}
