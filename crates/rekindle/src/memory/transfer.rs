//! What is in it, taken out and put in whole.

use super::*;

#[async_trait]
impl Transfer for MemoryStore {
    async fn configuration(&self) -> StoreResult<Configuration> {
        let state = self.state();
        let products = state.products.iter().map(|(tag, product)| StoredProduct {
            product: Product { tag: tag.clone(), name: product.name.clone() },
            longest_access: product.longest_access,
            environments: product.environments.values().cloned().collect(),
            definitions: product.definitions.iter().map(|(tag, definition)| definition.stored(tag)).collect(),
        });
        Ok(Configuration {
            version: state.config_version,
            products: products.collect(),
            signing_keys: state.keys.clone(),
            api_keys: state.api_keys.clone(),
            secret_checks: state.secret_checks.iter().map(|(kid, check)| (*kid, *check)).collect(),
        })
    }

    async fn set_configuration(&self, configuration: Configuration) -> StoreResult<()> {
        let mut state = self.state();
        let products = configuration.products.into_iter().map(|stored| {
            let definition = |d: StoredDefinition| {
                (d.tag, MemoryDefinition { current: d.current, versions: d.versions.into_iter().collect() })
            };
            let product = MemoryProduct {
                name: stored.product.name,
                longest_access: stored.longest_access,
                environments: stored.environments.into_iter().map(|e| (e.slug.clone(), e)).collect(),
                definitions: stored.definitions.into_iter().map(definition).collect(),
            };
            (stored.product.tag, product)
        });
        state.products = products.collect();
        state.keys = configuration.signing_keys;
        state.api_keys = configuration.api_keys;
        state.secret_checks = configuration.secret_checks.into_iter().collect();
        state.config_version = configuration.version.max(state.config_version + 1);
        Ok(())
    }

    async fn count(&self, section: Section) -> StoreResult<u64> {
        let state = self.state();
        let count = match section {
            Section::Sessions => state.sessions.len(),
            Section::Bans => state.bans.len(),
            Section::Revocations => state.revocations.len(),
            Section::Notifications => state.outbox.len(),
            Section::Audit => state.audit.len(),
        };
        Ok(count as u64)
    }

    async fn records(&self, section: Section, after: Option<RecordKey>, limit: u32) -> StoreResult<Vec<Record>> {
        let state = self.state();
        let mut records: Vec<Record> = match section {
            Section::Sessions => state.sessions.values().map(|s| Record::Session(Box::new(state.stored(s)))).collect(),
            Section::Bans => state.bans.iter().map(stored_ban).map(Record::Ban).collect(),
            Section::Revocations => state.revocations.values().cloned().map(Record::Revocation).collect(),
            Section::Notifications => {
                state.outbox.values().map(|waiting| Record::Notification(Box::new(queued(waiting)))).collect()
            }
            Section::Audit => state.audit.values().cloned().map(Record::Audit).collect(),
        };
        records.sort_by_cached_key(|record| record.key().to_bytes());
        let after = after.map(|key| key.to_bytes());
        records.retain(|record| after.as_ref().is_none_or(|after| record.key().to_bytes() > *after));
        records.truncate(limit as usize);
        let size = |record: &Record| match record {
            Record::Session(stored) => {
                (stored.session.data.as_str().len() + stored.session.claims.as_str().len()) as u64
            }
            _ => 0,
        };
        records.truncate(page_length(records.iter().map(size)));
        Ok(records)
    }

    async fn events_after(&self, sessions: Vec<(SessionId, Option<EventId>)>) -> StoreResult<Vec<Event>> {
        let state = self.state();
        let events = sessions.into_iter().flat_map(|(id, after)| {
            let from = after.map_or(Bound::Included((id, FIRST)), |after| Bound::Excluded((id, after)));
            state.events.range((from, Bound::Included((id, LAST)))).map(|(_, event)| event.clone())
        });
        Ok(events.collect())
    }

    async fn put(&self, records: Vec<Record>, events: Vec<Event>) -> StoreResult<()> {
        let mut state = self.state();
        for record in records {
            match record {
                Record::Session(stored) => state.put_session(*stored),
                Record::Ban(stored) => drop(state.bans.insert((stored.scope, stored.user_id), stored.ban)),
                Record::Revocation(entry) => {
                    state.last_seq = state.last_seq.max(entry.seq);
                    state.revocations.insert(entry.seq, entry);
                }
                Record::Notification(queued) => {
                    let Queued { notification, due } = *queued;
                    state.outbox.insert(notification.event.id, (notification, due));
                }
                Record::Audit(entry) => drop(state.audit.insert(entry.id, entry)),
            }
        }
        for event in events {
            if let Some(session_id) = event.session_id {
                state.events.entry((session_id, event.id)).or_insert(event);
            }
        }
        Ok(())
    }

    async fn remove(&self, keys: Vec<RecordKey>) -> StoreResult<()> {
        let mut state = self.state();
        for key in keys {
            match key {
                RecordKey::Session(id) => {
                    state.remove(id);
                    state.idempotency.retain(|_, (_, of)| *of != id);
                }
                RecordKey::Ban(scope, user_id) => drop(state.bans.remove(&(scope, user_id))),
                RecordKey::Revocation(seq) => drop(state.revocations.remove(&seq)),
                RecordKey::Notification(id) => drop(state.outbox.remove(&id)),
                RecordKey::Audit(id) => drop(state.audit.remove(&id)),
            }
        }
        Ok(())
    }
}

/// The least event id, and the greatest.
const FIRST: EventId = EventId::from_bytes([0; 16]);
const LAST: EventId = EventId::from_bytes([255; 16]);

impl State {
    fn stored(&self, session: &Session) -> StoredSession {
        let mut events = self.events.range((session.id, FIRST)..=(session.id, LAST)).map(|((_, id), _)| *id);
        // No start makes a second one. Of several, the one that holds longest.
        let known = self.idempotency.values().filter(|(_, id)| *id == session.id).map(|(known, _)| *known);
        StoredSession {
            session: session.clone(),
            idempotency: known.max_by_key(|known| (known.expires_at, known.key)),
            events: Held { count: events.clone().count() as u64, last: events.next_back() },
        }
    }

    fn put_session(&mut self, stored: StoredSession) {
        let StoredSession { session, idempotency, events: _ } = stored;
        self.idempotency.retain(|_, (_, id)| *id != session.id);
        if let Some(known) = idempotency {
            self.idempotency.insert((session.scope.clone(), known.key), (known, session.id));
        }
        self.by_user.insert((session.scope.clone(), session.user_id.clone(), session.id));
        self.sessions.insert(session.id, session);
    }
}

impl MemoryDefinition {
    fn stored(&self, tag: &Tag) -> StoredDefinition {
        let versions = self.versions.iter().map(|(version, definition)| (*version, definition.clone())).collect();
        StoredDefinition { tag: tag.clone(), current: self.current, versions }
    }
}

fn stored_ban(((scope, user_id), ban): (&(Scope, UserId), &Ban)) -> StoredBan {
    StoredBan { scope: scope.clone(), user_id: user_id.clone(), ban: ban.clone() }
}

fn queued((notification, due): &(Notification, Timestamp)) -> Queued {
    Queued { notification: notification.clone(), due: *due }
}
