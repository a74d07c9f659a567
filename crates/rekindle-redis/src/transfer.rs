//! Everything in the store, taken out and put in whole.
//!
//! What is put in goes the way of what is written otherwise: a session joins its user and the indexes before its row is
//! there, and leaves them after it is gone. A put or a removal that was interrupted is completed by being repeated.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use rekindle::clock::Timestamp;
use rekindle::journal::{Event, EventId};
use rekindle::session::{Scope, Session, SessionId, UserId};
use rekindle::store::*;

use crate::effects::{BATCH, Entry, SavedScope, push_notification};
use crate::keys::{BUCKETS, UserKey, hex, unhex};
use crate::many::{SLICE, entry};
use crate::row::{self, Found, Origin, Row, json};
use crate::scripts::{APPEND, HELD, JOIN, OUTBOX_ADD, REPLACE, RESTORE, WITHDRAW};
use crate::sessions::{StreamEntry, push_event, read_event, read_stream_id, stream_id};
use crate::settings::read_audit;
use crate::shared::{PAGE, read_notification};
use crate::start::{idempotency_text, kept_for};
use crate::walk::{Order, Walk};
use crate::{Inner, RedisStore, each};

#[async_trait]
impl Transfer for RedisStore {
    async fn configuration(&self) -> StoreResult<Configuration> {
        self.0.configuration().await
    }

    async fn set_configuration(&self, configuration: Configuration) -> StoreResult<()> {
        self.0.set_configuration(&configuration).await
    }

    async fn count(&self, section: Section) -> StoreResult<u64> {
        let inner = &self.0;
        match section {
            Section::Sessions => inner.indexed_sessions().await,
            Section::Bans => Ok(inner.ban_records(None, usize::MAX).await?.len() as u64),
            Section::Revocations => inner.length("XLEN", &inner.keys.feed()[0]).await,
            Section::Notifications => inner.length("HLEN", &inner.keys.outbox()[0]).await,
            Section::Audit => inner.length("ZCARD", &inner.keys.audit()).await,
        }
    }

    async fn records(&self, section: Section, after: Option<RecordKey>, limit: u32) -> StoreResult<Vec<Record>> {
        let (inner, limit) = (&self.0, limit as usize);
        match section {
            Section::Sessions => inner.session_records(after, limit).await,
            Section::Bans => inner.ban_records(after, limit).await,
            Section::Revocations => inner.revocation_records(after, limit).await,
            Section::Notifications => inner.notification_records(after, limit).await,
            Section::Audit => inner.audit_records(after, limit).await,
        }
    }

    async fn events_after(&self, sessions: Vec<(SessionId, Option<EventId>)>) -> StoreResult<Vec<Event>> {
        let events = each(sessions.into_iter().map(|(id, after)| self.0.events_of(id, after))).await?;
        Ok(events.into_iter().flatten().collect())
    }

    async fn put(&self, records: Vec<Record>, events: Vec<Event>) -> StoreResult<()> {
        self.whole(|inner| async move { inner.put(records, events).await }).await
    }

    async fn remove(&self, keys: Vec<RecordKey>) -> StoreResult<()> {
        self.whole(|inner| async move { inner.remove(keys).await }).await
    }
}

/// An idempotency key that leads to a session.
struct Leading {
    idempotency: Idempotency,
    /// Whether another user has it now.
    taken_over: bool,
    /// Under which keys that is kept, and what.
    kept: Vec<(String, String)>,
}

impl Inner {
    async fn put(&self, records: Vec<Record>, events: Vec<Event>) -> StoreResult<()> {
        let (mut sessions, mut bans, mut revocations) = (Vec::new(), Vec::new(), Vec::new());
        let (mut notifications, mut audit) = (Vec::new(), Vec::new());
        for record in records {
            match record {
                Record::Session(stored) => sessions.push(stored),
                Record::Ban(stored) => bans.push(stored),
                Record::Revocation(revocation) => revocations.push(revocation),
                Record::Notification(queued) => notifications.push(queued),
                Record::Audit(entry) => audit.push(entry),
            }
        }
        each(sessions.iter().map(|stored| self.put_session(stored))).await?;
        self.put_events(events).await?;
        each(bans.iter().map(|ban| self.write_ban(&ban.scope, &ban.user_id, &ban.ban, None))).await?;
        self.put_revocations(revocations).await?;
        self.put_notifications(&notifications).await?;
        self.put_audit(&audit).await
    }

    async fn remove(&self, keys: Vec<RecordKey>) -> StoreResult<()> {
        let (mut sessions, mut bans, mut revocations) = (Vec::new(), Vec::new(), Vec::new());
        let (mut notifications, mut audit) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                RecordKey::Session(id) => sessions.push(id),
                RecordKey::Ban(scope, user_id) => bans.push((scope, user_id)),
                RecordKey::Revocation(seq) => revocations.push(seq),
                RecordKey::Notification(id) => notifications.push(id),
                RecordKey::Audit(id) => audit.push(id),
            }
        }
        each(sessions.into_iter().map(|id| self.take_out(id))).await?;
        each(bans.iter().map(|(scope, user_id)| self.unban(scope, user_id))).await?;
        if !revocations.is_empty() {
            let [entries, numbers, expiries, _] = self.keys.feed();
            let withdraw = WITHDRAW.on(&[entries, numbers, expiries]);
            self.link.run::<()>(&revocations.into_iter().fold(withdraw, |call, seq| call.arg(seq))).await?;
        }
        each(notifications.into_iter().map(|id| self.settle_notification(id, None))).await?;
        each(audit.into_iter().map(|id| self.remove_audit(id))).await.map(drop)
    }

    async fn length(&self, command: &str, key: &str) -> StoreResult<u64> {
        self.link.query(redis::cmd(command).arg(key)).await
    }

    async fn indexed_sessions(&self) -> StoreResult<u64> {
        let scopes = self.scopes().await?;
        let of = |scope| (0..BUCKETS).map(move |bucket| self.keys.scope_sessions(scope, bucket));
        let lengths = scopes.iter().flat_map(of).map(|key| async move { self.length("ZCARD", &key).await });
        Ok(each(lengths).await?.into_iter().sum())
    }

    async fn session_records(&self, after: Option<RecordKey>, limit: usize) -> StoreResult<Vec<Record>> {
        let mut edge = if let Some(RecordKey::Session(id)) = after { Some(id) } else { None };
        let scopes = self.scopes().await?;
        loop {
            let mut walk = self.walk_scopes(scopes.clone(), Order::Ascending, edge);
            let mut entries = walk.next(self, limit.min(SLICE)).await?;
            let sizes = each(entries.iter().map(|entry| self.size_of(entry.id))).await?;
            entries.truncate(page_length(sizes));
            edge = entries.last().map(|last| last.id);
            let rows = self.whole_rows(&entries).await?;
            // What is left of removed rows makes no page.
            if edge.is_none() || !rows.is_empty() {
                return each(rows.into_iter().map(|row| self.session_record(row))).await;
            }
        }
    }

    async fn size_of(&self, id: SessionId) -> StoreResult<u64> {
        let length = |field| redis::cmd("HSTRLEN").arg(self.keys.row(id)).arg(field).to_owned();
        let (of_data, of_claims) = (length("data"), length("claims"));
        let (data, claims): (u64, u64) = tokio::try_join!(self.link.query(&of_data), self.link.query(&of_claims))?;
        Ok(data + claims)
    }

    async fn session_record(&self, row: Row) -> StoreResult<Record> {
        let (events, leading) = tokio::try_join!(self.held(row.session.id), self.leading_to(&row))?;
        let idempotency = leading.filter(|leading| !leading.taken_over).map(|leading| leading.idempotency);
        Ok(Record::Session(Box::new(StoredSession { session: row.session, idempotency, events })))
    }

    async fn held(&self, id: SessionId) -> StoreResult<Held> {
        let [_, stream, late] = self.keys.session(id);
        let (count, last, last_late): (u64, Option<String>, Option<Vec<u8>>) =
            self.link.look(&HELD.on(&[stream, late])).await?;
        let corrupt = || StoreError::Corrupt { table: "events", column: "id", id: id.to_string() };
        let last = last.map(|last| read_stream_id(&last).ok_or_else(corrupt)).transpose()?;
        let bytes = |last: Vec<u8>| last.try_into().map(EventId::from_bytes).map_err(|_| corrupt());
        Ok(Held { count, last: last.max(last_late.map(bytes).transpose()?) })
    }

    /// The idempotency key that led to a session, if it still does.
    async fn leading_to(&self, row: &Row) -> StoreResult<Option<Leading>> {
        let Some(name) = &row.origin.idempotency else { return Ok(None) };
        let Session { id, scope, user_id, .. } = &row.session;
        let user = UserKey::new(scope, user_id);
        let (of_user, own) = (self.keys.user_idempotency(user, name), self.keys.idempotency(scope, name));
        let get = |key: &str| redis::cmd("GET").arg(key).to_owned();
        let (get_entry, get_claim) = (get(&of_user), get(&own));
        let (entry, claim): (Option<String>, Option<String>) =
            tokio::try_join!(self.link.query(&get_entry), self.link.query(&get_claim))?;
        let Some(entry) = entry else { return Ok(None) };
        let corrupt = || StoreError::Corrupt { table: "idempotency", column: "entry", id: of_user.clone() };
        let (idempotency, to) = read_idempotency(name, &entry).ok_or_else(corrupt)?;
        if to != hex(&id.to_bytes()) {
            return Ok(None);
        }
        let claim = claim.filter(|claim| claim.ends_with(&format!(" {user}"))).map(|claim| (own, claim));
        let taken_over = claim.is_none();
        // The entry last: whoever takes up an interrupted removal finds the claim by it.
        Ok(Some(Leading { idempotency, taken_over, kept: claim.into_iter().chain([(of_user, entry)]).collect() }))
    }

    /// Forgets the idempotency key that led to a session, unless it leads to another one by now.
    pub(crate) async fn forget_key(&self, row: &Row) -> StoreResult<()> {
        for (key, text) in self.leading_to(row).await?.map(|leading| leading.kept).unwrap_or_default() {
            self.release(&key, &text).await?;
        }
        Ok(())
    }

    /// The events of a session after one.
    async fn events_of(&self, id: SessionId, after: Option<EventId>) -> StoreResult<Vec<Event>> {
        let [_, stream, late] = self.keys.session(id);
        let mut events = Vec::new();
        let mut from = after.map_or("-".into(), |after| format!("({}", stream_id(after)));
        loop {
            let mut page = redis::cmd("XRANGE");
            page.arg(&stream).arg(&from).arg("+").arg("COUNT").arg(PAGE);
            let page: Vec<StreamEntry> = self.link.query(&page).await?;
            let at_end = page.len() < PAGE;
            if let Some((last, _)) = page.last() {
                from = format!("({last}");
            }
            for (_, mut fields) in page {
                events.push(read_event(id, &fields.pop().unwrap_or_default())?);
            }
            if at_end {
                break;
            }
        }
        let mut walk = Walk::new(vec![late], Order::Ascending, after.map_or(b"-".to_vec(), beyond));
        loop {
            let page = walk.next(self, PAGE).await?;
            for (_, member) in &page {
                events.push(read_event(id, member.get(16..).unwrap_or_default())?);
            }
            if page.len() < PAGE {
                break;
            }
        }
        events.sort_by_key(|event| event.id);
        Ok(events)
    }

    async fn put_session(&self, stored: &StoredSession) -> StoreResult<()> {
        let StoredSession { session, idempotency, events: _ } = stored;
        let Session { id, scope, user_id, created_at, .. } = session;
        if let Found::Row(before) = self.found_without_data(*id).await? {
            self.forget_key(&before).await?;
            if (&before.session.scope, &before.session.user_id) != (scope, user_id) {
                self.forget_session(&entry(&before)).await?;
            }
        }
        self.know_scope(scope).await?;
        let user = UserKey::new(scope, user_id);
        let origin = Origin { token: self.token(), idempotency: idempotency.map(|i| hex(&i.key)) };
        let keys = self.user_keys(user, origin.idempotency.as_deref());
        let kept_for = idempotency.map_or(0, |i| kept_for(&i, *created_at));
        let text = idempotency.map(|i| idempotency_text(&i, hex(&id.to_bytes()))).unwrap_or_default();
        let [of_user, sessions, _, key] = &keys;
        let join = JOIN.on(&[of_user, sessions, key]).arg(id.to_bytes().as_slice()).arg(user_id.as_str());
        // A user is indexed once there is something of it.
        self.link.run::<()>(&join.arg(text).arg(kept_for)).await?;
        if let Some(i) = idempotency {
            let key = self.keys.idempotency(scope, &hex(&i.key));
            let mut claim = redis::cmd("SET");
            claim.arg(&key).arg(idempotency_text(i, user)).arg("PX").arg(kept_for);
            self.link.write::<()>(&claim, &key).await?;
        }
        tokio::try_join!(self.index_session(scope, *id, user), self.index_user(scope, user_id))?;
        let mut call = REPLACE.on(&[self.keys.row(*id)]).arg("rev").arg(self.token());
        for (field, value) in row::encode(session, &origin) {
            call.push(field);
            call.push(value);
        }
        self.link.run(&call).await
    }

    async fn put_events(&self, events: Vec<Event>) -> StoreResult<()> {
        let mut of_sessions: BTreeMap<SessionId, Vec<Event>> = BTreeMap::new();
        for event in events {
            if let Some(id) = event.session_id {
                of_sessions.entry(id).or_default().push(event);
            }
        }
        let putting = of_sessions.into_iter().map(|(id, mut events)| async move {
            events.sort_by_key(|event| event.id);
            let [_, stream, late] = self.keys.session(id);
            for some in events.chunks(BATCH) {
                let mut call = APPEND.on(&[&stream, &late]);
                for event in some {
                    push_event(&mut call, event);
                }
                self.link.run::<()>(&call).await?;
            }
            Ok(())
        });
        each(putting).await.map(drop)
    }

    /// Removes a session at once and for good: nobody works on the store who could bring it back.
    async fn take_out(&self, id: SessionId) -> StoreResult<()> {
        let row = self.found_without_data(id).await?.row();
        if let Some(row) = &row {
            self.forget_key(row).await?;
        }
        let keys = self.keys.session(id);
        self.link.write::<()>(redis::cmd("DEL").arg(&keys), &keys[0]).await?;
        match row {
            Some(row) => self.forget_session(&entry(&row)).await,
            None => Ok(()),
        }
    }

    /// Those without an end are in no other index than that of users.
    async fn ban_records(&self, after: Option<RecordKey>, limit: usize) -> StoreResult<Vec<Record>> {
        let after = if let Some(RecordKey::Ban(scope, user_id)) = after { Some((scope, user_id)) } else { None };
        let mut scopes = self.scopes().await?;
        scopes.sort_by_cached_key(Scope::to_string);
        if let Some((scope, _)) = &after {
            scopes.retain(|s| s.to_string() >= scope.to_string());
        }
        let mut records = Vec::new();
        for scope in scopes {
            let edge = match &after {
                Some((s, user_id)) if *s == scope => [b"(", user_id.as_str().as_bytes()].concat(),
                _ => b"-".to_vec(),
            };
            let mut walk = self.walk_users(&scope, edge);
            while records.len() < limit {
                let ids = self.next_users(&mut walk, SLICE).await?;
                if ids.is_empty() {
                    break;
                }
                let bans = each(ids.into_iter().map(|user_id| self.stored_ban(&scope, user_id))).await?;
                records.extend(bans.into_iter().flatten().map(Record::Ban));
            }
        }
        records.truncate(limit);
        Ok(records)
    }

    async fn stored_ban(&self, scope: &Scope, user_id: UserId) -> StoreResult<Option<StoredBan>> {
        let user = UserKey::new(scope, &user_id);
        let ((), ban) = tokio::try_join!(self.settle_user(user), self.ban_of(user))?;
        Ok(ban.map(|ban| StoredBan { scope: scope.clone(), user_id, ban }))
    }

    async fn revocation_records(&self, after: Option<RecordKey>, limit: usize) -> StoreResult<Vec<Record>> {
        let mut after = if let Some(RecordKey::Revocation(seq)) = after { seq } else { 0 };
        let mut records = Vec::new();
        while records.len() < limit {
            let count = (limit - records.len()).min(PAGE);
            let page = self.feed_page(after, count).await?;
            let at_end = page.len() < count;
            after = page.last().map_or(after, |last| last.seq);
            records.extend(page.into_iter().map(Record::Revocation));
            if at_end {
                break;
            }
        }
        Ok(records)
    }

    async fn put_revocations(&self, mut revocations: Vec<Revocation>) -> StoreResult<()> {
        revocations.sort_by_key(|revocation| revocation.seq);
        for some in revocations.chunks(BATCH) {
            let mut call = RESTORE.on(&self.keys.feed());
            for Revocation { seq, scope, session_id, what, at, expires_at } in some {
                call.push(*seq);
                call.push(expires_at.millis());
                call.push(json(&Entry::new(scope, *session_id, *what, *at, *expires_at)));
            }
            self.link.run::<()>(&call).await?;
        }
        Ok(())
    }

    async fn notification_records(&self, after: Option<RecordKey>, limit: usize) -> StoreResult<Vec<Record>> {
        let mut after = if let Some(RecordKey::Notification(id)) = after { hex(&id.to_bytes()) } else { String::new() };
        let mut records = Vec::new();
        while records.len() < limit {
            let count = limit - records.len();
            let ids: Vec<String> = self.notification_ids(&after, count).await?.into_iter().collect();
            for ids in ids.chunks(SLICE) {
                let queued = self.queued(ids).await?.into_iter();
                records.extend(queued.map(|queued| Record::Notification(Box::new(queued))));
            }
            match ids.last() {
                Some(last) if ids.len() == count => after.clone_from(last),
                _ => break,
            }
        }
        Ok(records)
    }

    /// Those of these notifications that are not delivered meanwhile.
    async fn queued(&self, ids: &[String]) -> StoreResult<Vec<Queued>> {
        let [events, _, _, attempts, at] = self.keys.outbox();
        let of = |key: &str| redis::cmd("HMGET").arg(key).arg(ids).to_owned();
        let (events, attempts, at) = (of(&events), of(&attempts), of(&at));
        let texts = self.link.query::<Vec<Option<Vec<u8>>>>(&events);
        let attempts = self.link.query::<Vec<Option<u32>>>(&attempts);
        let dues = self.link.query::<Vec<Option<i64>>>(&at);
        let (texts, attempts, dues) = tokio::try_join!(texts, attempts, dues)?;
        let mut queued = Vec::new();
        for ((text, attempts), due) in texts.into_iter().zip(attempts).zip(dues) {
            if let (Some(text), Some(due)) = (text, due) {
                let (scope, event) = read_notification(&text)?;
                let notification = Notification { scope, event, attempts: attempts.unwrap_or(0) };
                queued.push(Queued { notification, due: Timestamp::from_millis(due) });
            }
        }
        Ok(queued)
    }

    /// The ids of the next notifications. Nothing sorts all of them: each time all are looked at.
    async fn notification_ids(&self, after: &str, count: usize) -> StoreResult<BTreeSet<String>> {
        let [.., at] = self.keys.outbox();
        let (mut ids, mut cursor) = (BTreeSet::new(), 0);
        loop {
            let (next, fields) = self.scan(&at, cursor).await?;
            for (id, _) in fields {
                let id = String::from_utf8_lossy(&id).into_owned();
                if id.as_str() > after {
                    ids.insert(id);
                }
                if ids.len() > count {
                    ids.pop_last();
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(ids);
            }
        }
    }

    async fn put_notifications(&self, queued: &[Box<Queued>]) -> StoreResult<()> {
        let outbox = self.keys.outbox();
        let [_, _, _, attempts, _] = &outbox;
        each(queued.iter().map(|queued| self.settle_notification(queued.notification.event.id, None))).await?;
        for some in queued.chunks(BATCH) {
            let mut add = OUTBOX_ADD.on(&outbox);
            let mut count = redis::cmd("HSET");
            count.arg(attempts);
            for queued in some {
                let Notification { scope, event, attempts } = &queued.notification;
                push_notification(&mut add, &SavedScope::new(scope), event, queued.due);
                count.arg(hex(&event.id.to_bytes())).arg(attempts);
            }
            self.link.run::<()>(&add).await?;
            self.link.write::<()>(&count, attempts).await?;
        }
        Ok(())
    }

    async fn audit_records(&self, after: Option<RecordKey>, limit: usize) -> StoreResult<Vec<Record>> {
        let edge = if let Some(RecordKey::Audit(id)) = after { beyond(id) } else { b"-".to_vec() };
        let mut walk = Walk::new(vec![self.keys.audit()], Order::Ascending, edge);
        let members = walk.next(self, limit).await?;
        members.iter().map(|(_, member)| Ok(Record::Audit(read_audit(member)?))).collect()
    }

    async fn put_audit(&self, entries: &[AuditEntry]) -> StoreResult<()> {
        each(entries.iter().map(|entry| self.remove_audit(entry.id))).await?;
        each(entries.iter().map(|entry| self.append_audit(entry))).await.map(drop)
    }

    async fn remove_audit(&self, id: EventId) -> StoreResult<()> {
        let key = self.keys.audit();
        let mut remove = redis::cmd("ZREMRANGEBYLEX");
        remove.arg(&key).arg([b"[", id.to_bytes().as_slice()].concat()).arg(beyond(id));
        self.link.write(&remove, &key).await
    }
}

/// The edge after every member that begins with an id: what follows it is JSON.
fn beyond(id: EventId) -> Vec<u8> {
    [b"(", id.to_bytes().as_slice(), &[255]].concat()
}

/// The reverse of [`idempotency_text`]: the key's meaning, and to whom it leads.
fn read_idempotency<'a>(name: &str, text: &'a str) -> Option<(Idempotency, &'a str)> {
    let mut parts = text.split(' ');
    let (request, expires_at, to) = (parts.next()?, parts.next()?, parts.next()?);
    let expires_at = Timestamp::from_millis(expires_at.parse().ok()?);
    Some((Idempotency { key: unhex(name)?, request: unhex(request)?, expires_at }, to))
}
