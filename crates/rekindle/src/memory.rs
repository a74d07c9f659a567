//! The reference store: everything in memory, each intent under one lock.
//!
//! It is what the other stores are compared with, and it serves tests and short-lived tools. Nothing survives the process.

mod transfer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::clock::{Seconds, Timestamp};
use crate::definition::{Definition, OnMaxSessions};
use crate::journal::{Event, EventId};
use crate::keys::{KeyId, SigningKey};
use crate::session::{EndReason, Ended, Env, Scope, Session, SessionId, Tag, UserId};
use crate::store::*;

/// A [`Store`] in memory.
///
/// Cloning a store copies its present contents: a backup.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

impl MemoryStore {
    /// An empty store with the product `default`, its environment `dev` and its definition `default`.
    pub fn new() -> Self {
        let mut state = State::default();
        state.products.insert(default_tag(), default_product());
        Self(Mutex::new(state))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No intent panics half-way, so a poisoned lock still guards a whole state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.state().clone()))
    }
}

#[derive(Debug, Default, Clone)]
struct State {
    sessions: BTreeMap<SessionId, Session>,
    by_user: BTreeSet<(Scope, UserId, SessionId)>,
    events: BTreeMap<(SessionId, EventId), Event>,
    idempotency: HashMap<(Scope, [u8; 32]), (Idempotency, SessionId)>,
    bans: BTreeMap<(Scope, UserId), Ban>,
    revocations: BTreeMap<u64, Revocation>,
    last_seq: u64,
    outbox: BTreeMap<EventId, (Notification, Timestamp)>,
    products: BTreeMap<Tag, MemoryProduct>,
    keys: Vec<SigningKey>,
    secret_checks: BTreeMap<u8, [u8; 16]>,
    api_keys: Vec<ApiKey>,
    audit: BTreeMap<EventId, AuditEntry>,
    config_version: u64,
}

#[derive(Debug, Clone)]
struct MemoryProduct {
    name: String,
    longest_access: Seconds,
    environments: BTreeMap<Env, Environment>,
    definitions: BTreeMap<Tag, MemoryDefinition>,
}

#[derive(Debug, Clone)]
struct MemoryDefinition {
    /// `None` once deleted: its versions stay readable for the sessions that started with them.
    current: Option<u32>,
    versions: BTreeMap<u32, Definition>,
}

fn default_tag() -> Tag {
    "default".parse().expect("a valid tag")
}

fn default_product() -> MemoryProduct {
    let dev = Environment { slug: "dev".parse().expect("a valid slug"), name: "Development".into(), active: true };
    let definition = Definition::default_for(default_tag());
    MemoryProduct {
        name: "Default".into(),
        longest_access: definition.access_token.lifetime.seconds(),
        environments: [(dev.slug.clone(), dev)].into(),
        definitions: [(default_tag(), MemoryDefinition { current: Some(1), versions: [(1, definition)].into() })]
            .into(),
    }
}

impl State {
    fn write_event(&mut self, scope: &Scope, mut event: Event) {
        if std::mem::take(&mut event.notify) {
            let notification = Notification { scope: scope.clone(), event: event.clone(), attempts: 0 };
            self.outbox.insert(event.id, (notification, event.at));
        }
        if let Some(session_id) = event.session_id {
            self.events.insert((session_id, event.id), event);
        }
    }

    fn write_revocation(&mut self, session: &Session, what: Revoked, at: Timestamp, expires_at: Timestamp) {
        let seq = Revocation::next_seq(self.last_seq, at);
        self.last_seq = seq;
        let scope = session.scope.clone();
        self.revocations.insert(seq, Revocation { seq, scope, session_id: session.id, what, at, expires_at });
    }

    /// Ends an active session: row, feed, event.
    fn end(&mut self, id: SessionId, ending: &Ending, reason: EndReason, i: u32) -> EndedSession {
        let session = self.sessions.get_mut(&id).expect("selected from the rows");
        session.ended = Some(Ended { at: ending.at, reason });
        let session = session.clone();
        let what = Revoked::Ended { reason, expires_at: session.expires_at };
        self.write_revocation(&session, what, ending.at, ending.feed_until);
        self.write_event(&session.scope, ending.event_for(&session, i, reason));
        EndedSession::of(&session, ending.at, reason)
    }

    fn user_sessions<'a>(&'a self, scope: &Scope, user_id: &UserId) -> impl Iterator<Item = &'a Session> + use<'a> {
        let from = (scope.clone(), user_id.clone(), SessionId::from_bytes([0; 16]));
        let to = (scope.clone(), user_id.clone(), SessionId::from_bytes([255; 16]));
        self.by_user.range(from..=to).map(|(_, _, id)| &self.sessions[id])
    }

    fn end_many(&mut self, end: &EndMany) -> EndedMany {
        let limit = end.limit as usize;
        let mut selected: Vec<SessionId> = match &end.user_id {
            Some(user) => {
                self.user_sessions(&end.scope, user).filter(|s| end.selects(s)).map(|s| s.id).take(limit + 1).collect()
            }
            None => self.sessions.values().filter(|s| end.selects(s)).map(|s| s.id).take(limit + 1).collect(),
        };
        let more = selected.len() > limit;
        selected.truncate(limit);
        if let Some(audit) = &end.audit
            && end.after.is_none()
        {
            self.audit.insert(audit.id, audit.clone());
        }
        EndedMany {
            next: if more { selected.last().copied() } else { None },
            ..self.end_selected(&selected, &end.ending)
        }
    }

    fn end_selected(&mut self, selected: &[SessionId], ending: &Ending) -> EndedMany {
        let mut done = EndedMany::default();
        for id in selected {
            match self.sessions[id].end(ending.at) {
                None => done.ended.push(self.end(*id, ending, ending.reason, done.ended.len() as u32)),
                Some(_) => done.idle.push(EndedSession::of(&self.sessions[id], ending.at, ending.reason)),
            }
        }
        done
    }

    fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.by_user.remove(&(session.scope, session.user_id, id));
        }
        let (from, to) = (EventId::from_bytes([0; 16]), EventId::from_bytes([255; 16]));
        let events: Vec<_> = self.events.range((id, from)..=(id, to)).map(|(key, _)| *key).collect();
        for key in events {
            self.events.remove(&key);
        }
    }

    fn active(&self, now: Timestamp, belongs: impl Fn(&Session) -> bool) -> u64 {
        self.sessions.values().filter(|s| belongs(s) && s.end(now).is_none()).count() as u64
    }

    fn summary(&self, scope: &Scope, user_id: &UserId, now: Timestamp) -> Option<UserSummary> {
        let ban = self.bans.get(&(scope.clone(), user_id.clone())).filter(|b| b.holds(now)).cloned();
        let sessions: Vec<&Session> = self.user_sessions(scope, user_id).collect();
        (ban.is_some() || !sessions.is_empty()).then(|| UserSummary {
            user_id: user_id.clone(),
            sessions: sessions.len() as u64,
            active_sessions: sessions.iter().filter(|s| s.end(now).is_none()).count() as u64,
            first_seen: sessions.iter().map(|s| s.created_at).min(),
            last_seen: sessions.iter().map(|s| s.last_refreshed_at()).max(),
            ban,
        })
    }

    fn conditional(
        &mut self,
        id: SessionId,
        applies: impl Fn(&Session) -> bool,
        apply: impl FnOnce(&mut Session),
    ) -> Cas {
        match self.sessions.get_mut(&id) {
            Some(session) if applies(session) => {
                apply(session);
                Cas::Applied(session.clone())
            }
            other => Cas::Stale(other.cloned()),
        }
    }

    fn change(&mut self, change: Change) -> Changed {
        match change {
            Change::CreateProduct(p) => {
                if self.products.contains_key(&p.tag) {
                    return Changed::Exists;
                }
                let product = MemoryProduct {
                    name: p.name,
                    longest_access: Seconds(0),
                    environments: BTreeMap::new(),
                    definitions: BTreeMap::new(),
                };
                self.products.insert(p.tag, product);
            }
            Change::UpdateProduct(p) => match self.products.get_mut(&p.tag) {
                Some(product) => product.name = p.name,
                None => return Changed::NoProduct,
            },
            Change::DeleteProduct { product, now } => {
                if !self.products.contains_key(&product) {
                    return Changed::NoProduct;
                }
                let active = self.active(now, |s| s.scope.product == product);
                if active > 0 {
                    return Changed::InUse(active);
                }
                self.products.remove(&product);
                self.forget(|scope| scope.product == product);
            }
            Change::CreateEnvironment(product, environment) => {
                let Some(product) = self.products.get_mut(&product) else { return Changed::NoProduct };
                if product.environments.contains_key(&environment.slug) {
                    return Changed::Exists;
                }
                product.environments.insert(environment.slug.clone(), environment);
            }
            Change::UpdateEnvironment { scope, patch } => {
                let Some(product) = self.products.get_mut(&scope.product) else { return Changed::NoProduct };
                match product.environments.get_mut(&scope.env) {
                    Some(e) => *e = patch.applied(e.clone()),
                    None => return Changed::Missing,
                }
            }
            Change::DeleteEnvironment { scope, now } => {
                let Some(product) = self.products.get(&scope.product) else { return Changed::NoProduct };
                if !product.environments.contains_key(&scope.env) {
                    return Changed::Missing;
                }
                let active = self.active(now, |s| s.scope == scope);
                if active > 0 {
                    return Changed::InUse(active);
                }
                self.products.get_mut(&scope.product).expect("seen above").environments.remove(&scope.env);
                self.forget(|s| *s == scope);
            }
            Change::CreateDefinition(product, definition) => {
                let Some(product) = self.products.get_mut(&product) else { return Changed::NoProduct };
                let entry = product
                    .definitions
                    .entry(definition.tag.clone())
                    .or_insert(MemoryDefinition { current: None, versions: BTreeMap::new() });
                if entry.current.is_some() {
                    return Changed::Exists;
                }
                let version = entry.versions.keys().next_back().map_or(1, |v| v + 1);
                product.longest_access = product.longest_access.max(definition.access_token.lifetime.seconds());
                entry.versions.insert(version, definition);
                entry.current = Some(version);
            }
            Change::UpdateDefinition { product, version, definition } => {
                let Some(product) = self.products.get_mut(&product) else { return Changed::NoProduct };
                match product.definitions.get_mut(&definition.tag) {
                    Some(d) if d.current == Some(version) => {
                        product.longest_access = product.longest_access.max(definition.access_token.lifetime.seconds());
                        d.versions.insert(version + 1, definition);
                        d.current = Some(version + 1);
                    }
                    Some(MemoryDefinition { current: Some(_), .. }) => return Changed::Stale,
                    _ => return Changed::Missing,
                }
            }
            Change::DeleteDefinition { product, tag, now } => {
                let active = self.active(now, |s| s.scope.product == product && s.tag == tag);
                let Some(product) = self.products.get_mut(&product) else { return Changed::NoProduct };
                match product.definitions.get_mut(&tag) {
                    Some(d) if d.current.is_some() => {
                        if active > 0 {
                            return Changed::InUse(active);
                        }
                        d.current = None;
                    }
                    _ => return Changed::Missing,
                }
            }
            Change::CreateApiKey(key) => {
                if self.api_keys.iter().any(|k| k.id == key.id || k.hash == key.hash) {
                    return Changed::Exists;
                }
                self.api_keys.push(key);
            }
            Change::RevokeApiKey { id, at } => match self.api_keys.iter_mut().find(|k| k.id == id) {
                Some(key) => key.revoked_at = key.revoked_at.or(Some(at)),
                None => return Changed::Missing,
            },
        }
        self.config_version += 1;
        Changed::Done
    }

    /// Drops all that belongs to deleted scopes.
    fn forget(&mut self, deleted: impl Fn(&Scope) -> bool) {
        let ids: Vec<SessionId> = self.sessions.values().filter(|s| deleted(&s.scope)).map(|s| s.id).collect();
        for id in ids {
            self.remove(id);
        }
        self.keys.retain(|k| !deleted(&k.scope));
        self.bans.retain(|(scope, _), _| !deleted(scope));
        self.idempotency.retain(|(scope, _), _| !deleted(scope));
        self.revocations.retain(|_, r| !deleted(&r.scope));
        self.outbox.retain(|_, (n, _)| !deleted(&n.scope));
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn start(&self, start: Start) -> StoreResult<Started> {
        let mut state = self.state();
        let Start { session, idempotency, max_sessions, event, ending } = start;
        let now = session.created_at;
        let key = |i: &Idempotency| (session.scope.clone(), i.key);
        if let Some(i) = &idempotency
            && let Some((known, id)) = state.idempotency.get(&key(i))
            && now < known.expires_at
        {
            return Ok(if known.request == i.request {
                Started::Repeated(state.sessions.get(id).cloned().map(Box::new))
            } else {
                Started::IdempotencyMismatch
            });
        }
        if let Some(known) = state.sessions.get(&session.id) {
            return Ok(Started::Repeated(Some(Box::new(known.clone()))));
        }
        if let Some(ban) = state.bans.get(&(session.scope.clone(), session.user_id.clone()))
            && ban.holds(now)
        {
            return Ok(Started::Banned(ban.clone()));
        }
        if let Some(previous) = session.previous_session_id {
            let usable = state.sessions.get(&previous).is_some_and(|p| {
                p.scope == session.scope
                    && (p.user_id == session.user_id || p.user_id.is_anonymous())
                    && p.end(now).is_none()
            });
            if !usable {
                return Ok(Started::PreviousUnusable);
            }
        }
        let mut to_end: Vec<(SessionId, EndReason)> =
            session.previous_session_id.map(|id| (id, EndReason::Replaced)).into_iter().collect();
        if let Some((max, on_max)) = max_sessions
            && !session.user_id.is_anonymous()
        {
            let active: Vec<SessionId> = state
                .user_sessions(&session.scope, &session.user_id)
                .filter(|s| s.tag == session.tag && s.end(now).is_none() && Some(s.id) != session.previous_session_id)
                .map(|s| s.id)
                .collect();
            let excess = (active.len() + 1).saturating_sub(max as usize);
            if excess > 0 && on_max == OnMaxSessions::Reject {
                return Ok(Started::TooManySessions(active.len() as u32));
            }
            to_end.extend(active.into_iter().take(excess).map(|id| (id, EndReason::MaxSessions)));
        }
        let ended = to_end.into_iter().zip(0..).map(|((id, reason), i)| state.end(id, &ending, reason, i)).collect();
        if let Some(i) = idempotency {
            state.idempotency.insert(key(&i), (i, session.id));
        }
        state.write_event(&session.scope, event);
        state.by_user.insert((session.scope.clone(), session.user_id.clone(), session.id));
        state.sessions.insert(session.id, session);
        Ok(Started::Created(ended))
    }

    async fn session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        Ok(self.state().sessions.get(&id).cloned())
    }

    async fn advance(&self, advance: Advance) -> StoreResult<Cas> {
        let mut state = self.state();
        let cas = state.conditional(advance.id, |s| advance.applies_to(s), |s| advance.apply(s));
        if let Cas::Applied(session) = &cas {
            if let Some(elevation) = &advance.elevation {
                let below = Revoked::Below(session.min_generation);
                state.write_revocation(session, below, advance.now, elevation.feed_until);
            }
            state.write_event(&advance.scope, advance.event);
        }
        Ok(cas)
    }

    async fn fast_forward(&self, fast_forward: FastForward) -> StoreResult<Cas> {
        let mut state = self.state();
        let cas = state.conditional(fast_forward.id, |s| fast_forward.applies_to(s), |s| fast_forward.apply(s));
        if let Cas::Applied(_) = &cas {
            state.write_event(&fast_forward.scope, fast_forward.event);
        }
        Ok(cas)
    }

    async fn confirm(&self, confirmations: Vec<Confirmation>) -> StoreResult<()> {
        let mut state = self.state();
        for c in confirmations {
            if let Some(session) = state.sessions.get_mut(&c.session_id)
                && session.scope == c.scope
                && session.position.generation == c.generation
                && session.ended.is_none()
            {
                session.confirmed = true;
            }
        }
        Ok(())
    }

    async fn update(&self, update: Update) -> StoreResult<Cas> {
        let mut state = self.state();
        let cas = state.conditional(update.id, |s| update.applies_to(s), |s| update.apply(s));
        if let Cas::Applied(_) = &cas {
            state.write_event(&update.scope, update.event);
        }
        Ok(cas)
    }

    async fn end(&self, end: End) -> StoreResult<Cas> {
        let mut state = self.state();
        match state.sessions.get(&end.id) {
            Some(session) if end.applies_to(session) => {}
            other => return Ok(Cas::Stale(other.cloned())),
        }
        if let Some(cause) = end.cause {
            state.write_event(&end.scope, cause);
        }
        if let Some(audit) = end.audit {
            state.audit.insert(audit.id, audit);
        }
        state.end(end.id, &end.ending, end.ending.reason, 0);
        Ok(Cas::Applied(state.sessions[&end.id].clone()))
    }

    async fn end_many(&self, end: EndMany) -> StoreResult<EndedMany> {
        Ok(self.state().end_many(&end))
    }

    async fn record(&self, events: Vec<Event>) -> StoreResult<()> {
        let mut state = self.state();
        for event in events {
            let scope = event.session_id.and_then(|id| state.sessions.get(&id)).map(|s| s.scope.clone());
            if let Some(scope) = scope {
                state.write_event(&scope, event);
            }
        }
        Ok(())
    }

    async fn sessions(&self, query: SessionQuery) -> StoreResult<Vec<Session>> {
        let state = self.state();
        let selected = state.sessions.values().rev().filter(|s| query.selects(s));
        Ok(selected.take(query.limit as usize).cloned().collect())
    }

    async fn events(&self, query: EventQuery) -> StoreResult<Vec<Event>> {
        let state = self.state();
        let (from, to) = (EventId::from_bytes([0; 16]), EventId::from_bytes([255; 16]));
        let all = state.events.range((query.session_id, from)..=(query.session_id, to)).rev();
        Ok(all.map(|(_, e)| e).filter(|e| query.selects(e)).take(query.limit as usize).cloned().collect())
    }

    async fn users(&self, query: UserQuery) -> StoreResult<Vec<UserSummary>> {
        let state = self.state();
        let with_sessions = state.by_user.iter().map(|(scope, user, _)| (scope, user));
        let banned = state.bans.iter().filter(|(_, b)| b.holds(query.now)).map(|((scope, user), _)| (scope, user));
        let users: BTreeSet<&UserId> = with_sessions
            .chain(banned)
            .filter(|(scope, user)| **scope == query.scope && query.after.as_ref().is_none_or(|a| *user > a))
            .map(|(_, user)| user)
            .collect();
        let summaries = users.into_iter().filter_map(|u| state.summary(&query.scope, u, query.now));
        Ok(summaries.take(query.limit as usize).collect())
    }

    async fn user(&self, scope: &Scope, user_id: &UserId, now: Timestamp) -> StoreResult<Option<UserSummary>> {
        Ok(self.state().summary(scope, user_id, now))
    }

    async fn erase_user(&self, erase: EraseUser) -> StoreResult<EndedMany> {
        let mut state = self.state();
        let all: Vec<Session> = state.user_sessions(&erase.scope, &erase.user_id).cloned().collect();
        let selected: Vec<SessionId> = all.iter().filter(|s| erase.ending.concerns(s)).map(|s| s.id).collect();
        let done = state.end_selected(&selected, &erase.ending);
        for session in &all {
            state.remove(session.id);
            state.idempotency.retain(|_, (_, id)| *id != session.id);
        }
        state.bans.remove(&(erase.scope.clone(), erase.user_id.clone()));
        state.audit.insert(erase.audit.id, erase.audit);
        Ok(done)
    }

    async fn ban(&self, ban: BanUser) -> StoreResult<EndedMany> {
        let mut state = self.state();
        let user = ban.end.user_id.clone().expect("a ban names its user");
        state.bans.insert((ban.end.scope.clone(), user), ban.ban);
        if ban.end.after.is_none() {
            state.write_event(&ban.end.scope, ban.event);
        }
        Ok(state.end_many(&ban.end))
    }

    async fn lift_ban(&self, scope: &Scope, user_id: &UserId, audit: AuditEntry) -> StoreResult<bool> {
        let mut state = self.state();
        let lifted = state.bans.remove(&(scope.clone(), user_id.clone())).is_some();
        state.audit.insert(audit.id, audit);
        Ok(lifted)
    }

    async fn revocations(
        &self,
        scope: Option<&Scope>,
        after: u64,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<Revocation>> {
        let state = self.state();
        let later = state.revocations.range((Bound::Excluded(after), Bound::Unbounded)).map(|(_, r)| r);
        let live = later.filter(|r| r.expires_at > now && scope.is_none_or(|s| *s == r.scope));
        Ok(live.take(limit as usize).cloned().collect())
    }

    async fn sweep(&self, sweep: Sweep) -> StoreResult<Swept> {
        let mut state = self.state();
        let budget = sweep.budget as usize;
        let slice: Vec<Session> =
            state.sessions.values().filter(|s| sweep.after.is_none_or(|a| s.id > a)).take(budget).cloned().collect();
        let mut swept = Swept::default();
        for session in &slice {
            if session.ended.is_none()
                && let Some(end) = session.end(sweep.now)
            {
                state.sessions.get_mut(&session.id).expect("just read").ended = Some(end);
                let mut event = sweep.ending.event_for(session, swept.ended as u32, end.reason);
                event.at = end.at;
                event.notify = sweep.notify.contains(&session.scope.product);
                event.user_id = event.notify.then(|| session.user_id.clone());
                state.write_event(&session.scope, event);
                swept.ended += 1;
            }
            if sweep.removes(session) {
                state.remove(session.id);
                swept.removed += 1;
            }
        }
        swept.next = if slice.len() == budget { slice.last().map(|s| s.id) } else { None };
        if swept.next.is_none() {
            state.idempotency.retain(|_, (i, _)| sweep.now < i.expires_at);
            state.revocations.retain(|_, r| sweep.now < r.expires_at);
            state.bans.retain(|_, b| b.holds(sweep.now));
        }
        Ok(swept)
    }

    async fn config_version(&self) -> StoreResult<u64> {
        Ok(self.state().config_version)
    }

    async fn scope(&self, scope: &Scope) -> StoreResult<ScopeRead> {
        let state = self.state();
        let Some(product) = state.products.get(&scope.product) else { return Ok(ScopeRead::NoProduct) };
        let Some(environment) = product.environments.get(&scope.env) else { return Ok(ScopeRead::NoEnvironment) };
        Ok(ScopeRead::Found(Box::new(ScopeRecord {
            environment: environment.clone(),
            definitions: product.current_definitions(),
            keys: state.keys.iter().filter(|k| k.scope == *scope).cloned().collect(),
            longest_access: product.longest_access,
        })))
    }

    async fn definition(&self, product: &Tag, tag: &Tag, version: u32) -> StoreResult<Option<Definition>> {
        let state = self.state();
        let definition = state.products.get(product).and_then(|p| p.definitions.get(tag));
        Ok(definition.and_then(|d| d.versions.get(&version)).cloned())
    }

    async fn products(&self) -> StoreResult<Vec<ProductRecord>> {
        let records = self
            .state()
            .products
            .iter()
            .map(|(tag, p)| ProductRecord {
                product: Product { tag: tag.clone(), name: p.name.clone() },
                environments: p.environments.values().cloned().collect(),
                definitions: p.current_definitions(),
            })
            .collect();
        Ok(records)
    }

    async fn change(&self, change: Change, audit: AuditEntry) -> StoreResult<Changed> {
        let mut state = self.state();
        let changed = state.change(change);
        if changed == Changed::Done {
            state.audit.insert(audit.id, audit);
        }
        Ok(changed)
    }

    async fn add_signing_key(&self, key: SigningKey, newest: Option<KeyId>) -> StoreResult<bool> {
        let mut state = self.state();
        let present = state
            .keys
            .iter()
            .filter(|k| k.scope == key.scope && k.chain == key.chain)
            .max_by(|a, b| (a.signs_from, a.created_at, &a.kid).cmp(&(b.signs_from, b.created_at, &b.kid)))
            .map(|k| k.kid.clone());
        if present != newest || state.keys.iter().any(|k| k.kid == key.kid) {
            return Ok(false);
        }
        state.keys.push(key);
        state.config_version += 1;
        Ok(true)
    }

    async fn rewrap_signing_keys(&self, keys: Vec<SigningKey>) -> StoreResult<()> {
        let mut state = self.state();
        for key in keys {
            if let Some(known) = state.keys.iter_mut().find(|k| k.kid == key.kid) {
                known.wrapped = key.wrapped;
            }
        }
        state.config_version += 1;
        Ok(())
    }

    async fn remove_signing_keys(&self, kids: Vec<KeyId>) -> StoreResult<()> {
        let mut state = self.state();
        state.keys.retain(|k| !kids.contains(&k.kid));
        state.config_version += 1;
        Ok(())
    }

    async fn secret_checks(&self, checks: Vec<(u8, [u8; 16])>) -> StoreResult<Vec<(u8, [u8; 16])>> {
        let mut state = self.state();
        for (kid, check) in checks {
            state.secret_checks.entry(kid).or_insert(check);
        }
        Ok(state.secret_checks.iter().map(|(kid, check)| (*kid, *check)).collect())
    }

    async fn secret_usage(&self) -> StoreResult<Vec<(u8, u64)>> {
        let mut usage = BTreeMap::new();
        for session in self.state().sessions.values().filter(|s| s.ended.is_none()) {
            *usage.entry(session.position.kid).or_default() += 1;
        }
        Ok(usage.into_iter().collect())
    }

    async fn api_keys(&self) -> StoreResult<Vec<ApiKey>> {
        Ok(self.state().api_keys.clone())
    }

    async fn take_notifications(&self, now: Timestamp, lease: Timestamp, limit: u32) -> StoreResult<Vec<Notification>> {
        let mut state = self.state();
        let mut seen = BTreeSet::new();
        let mut taken = Vec::new();
        for (notification, due) in state.outbox.values_mut() {
            let first = notification.event.session_id.is_none_or(|id| seen.insert(id));
            if first && *due <= now && taken.len() < limit as usize {
                *due = lease;
                notification.attempts += 1;
                taken.push(notification.clone());
            }
        }
        Ok(taken)
    }

    async fn settle_notification(&self, id: EventId, retry_at: Option<Timestamp>) -> StoreResult<()> {
        let mut state = self.state();
        match retry_at {
            None => drop(state.outbox.remove(&id)),
            Some(at) => {
                if let Some((_, due)) = state.outbox.get_mut(&id) {
                    *due = at;
                }
            }
        }
        Ok(())
    }

    async fn audit_log(&self, before: Option<EventId>, limit: u32) -> StoreResult<Vec<AuditEntry>> {
        let state = self.state();
        let all = state.audit.values().rev().filter(|e| before.is_none_or(|b| e.id < b));
        Ok(all.take(limit as usize).cloned().collect())
    }

    async fn append_audit(&self, entry: AuditEntry) -> StoreResult<()> {
        self.state().audit.insert(entry.id, entry);
        Ok(())
    }

    async fn ping(&self) -> StoreResult<()> {
        Ok(())
    }
}

impl MemoryProduct {
    fn current_definitions(&self) -> Vec<(u32, Definition)> {
        let current = |d: &MemoryDefinition| d.current.map(|v| (v, d.versions[&v].clone()));
        self.definitions.values().filter_map(current).collect()
    }
}
