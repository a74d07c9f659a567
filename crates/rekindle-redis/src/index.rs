//! Indexes: each may hold more than there is, never less. Who reads one looks at the rows; what is left of removed rows goes.

use rekindle::session::{Scope, SessionId, UserId};
use rekindle::store::*;

use crate::keys::{BUCKETS, UserKey, bucket};
use crate::row::{FIELDS, Found, Row, WITHOUT_DATA, parse_scope};
use crate::scripts::{ADD, Call, INDEX_USER, LEAVE, RETIRE, UNINDEX_USER};
use crate::walk::{Order, Walk};
use crate::{Inner, each};

/// A session as an index names it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) scope: Scope,
    pub(crate) id: SessionId,
    pub(crate) user: UserKey,
}

/// A walk over sessions' ids.
pub(crate) struct Sessions {
    walk: Walk,
    /// Of each key.
    scopes: Vec<Scope>,
    user: Option<UserKey>,
}

impl Inner {
    /// Writes down that a scope is in use, once for each process.
    pub(crate) async fn know_scope(&self, scope: &Scope) -> StoreResult<()> {
        if self.known_scopes.read().unwrap_or_else(std::sync::PoisonError::into_inner).contains(scope) {
            return Ok(());
        }
        let key = self.keys.scopes();
        self.link.write::<()>(redis::cmd("SADD").arg(&key).arg(scope.to_string()), &key).await?;
        self.known_scopes.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(scope.clone());
        Ok(())
    }

    /// Every scope that was ever in use.
    pub(crate) async fn scopes(&self) -> StoreResult<Vec<Scope>> {
        let texts: Vec<String> = self.link.query(redis::cmd("SMEMBERS").arg(self.keys.scopes())).await?;
        let read =
            |text: String| parse_scope(&text).ok_or(StoreError::Corrupt { table: "scopes", column: "scope", id: text });
        texts.into_iter().map(read).collect()
    }

    pub(crate) async fn index_session(&self, scope: &Scope, id: SessionId, user: UserKey) -> StoreResult<()> {
        self.link.run(&self.indexing_session(scope, id, user)).await
    }

    pub(crate) fn indexing_session(&self, scope: &Scope, id: SessionId, user: UserKey) -> Call {
        ADD.on(&[self.keys.scope_sessions(scope, bucket(id))]).arg(member(id, user).as_slice())
    }

    pub(crate) async fn unindex_session(&self, scope: &Scope, id: SessionId, user: UserKey) -> StoreResult<()> {
        let key = self.keys.scope_sessions(scope, bucket(id));
        self.link.write(redis::cmd("ZREM").arg(&key).arg(member(id, user)), &key).await
    }

    pub(crate) async fn index_user(&self, scope: &Scope, user_id: &UserId) -> StoreResult<()> {
        self.link.run(&self.indexing_user(scope, user_id)).await
    }

    pub(crate) fn indexing_user(&self, scope: &Scope, user_id: &UserId) -> Call {
        let keys = self.keys.scope_users(scope, UserKey::new(scope, user_id).bucket());
        INDEX_USER.on(&keys).arg(user_id.as_str())
    }

    /// Takes a removed session out of every index, and its user with the last one.
    pub(crate) async fn forget_session(&self, entry: &Entry) -> StoreResult<()> {
        self.unindex_session(&entry.scope, entry.id, entry.user).await?;
        let keys = self.keys.user(entry.user);
        let has_others: bool = self.link.run(&LEAVE.on(&keys).arg(entry.id.to_bytes().as_slice())).await?;
        if !has_others {
            let id: Option<String> = self.link.query(redis::cmd("HGET").arg(&keys[0]).arg("id")).await?;
            if let Some(Ok(id)) = id.map(|id| id.parse()) {
                self.retire_user(&entry.scope, &id).await?;
            }
        }
        Ok(())
    }

    /// Takes a user of whom nothing is left out of the index.
    pub(crate) async fn retire_user(&self, scope: &Scope, user_id: &UserId) -> StoreResult<()> {
        let user = UserKey::new(scope, user_id);
        let index = self.keys.scope_users(scope, user.bucket());
        let added: Option<String> = self.link.query(redis::cmd("GET").arg(&index[1])).await?;
        if self.link.run::<bool>(&RETIRE.on(&self.keys.user(user))).await? {
            let added = added.unwrap_or_else(|| "0".into());
            self.link.run::<()>(&UNINDEX_USER.on(&index).arg(user_id.as_str()).arg(added)).await?;
        }
        Ok(())
    }

    /// The sessions of these scopes by id, from an exclusive edge.
    pub(crate) fn walk_scopes(&self, scopes: Vec<Scope>, order: Order, edge: Option<SessionId>) -> Sessions {
        let every = |scope: Scope| (0..BUCKETS).map(move |bucket| (scope.clone(), bucket));
        let (keys, scopes) = scopes
            .into_iter()
            .flat_map(every)
            .map(|(scope, bucket)| (self.keys.scope_sessions(&scope, bucket), scope))
            .unzip();
        Sessions { walk: Walk::new(keys, order, from(order, edge)), scopes, user: None }
    }

    /// The sessions of one user by id, from an exclusive edge. The starts that are noted are completed first.
    pub(crate) async fn walk_user(
        &self,
        scope: &Scope,
        user_id: &UserId,
        order: Order,
        edge: Option<SessionId>,
    ) -> StoreResult<Sessions> {
        let user = UserKey::new(scope, user_id);
        self.complete_starts(user).await?;
        let [_, sessions, _] = self.keys.user(user);
        let walk = Walk::new(vec![sessions], order, from(order, edge));
        Ok(Sessions { walk, scopes: vec![scope.clone()], user: Some(user) })
    }

    /// The rows of a user, oldest first, without data. Starts that are noted are left alone.
    pub(crate) async fn rows_of_user(&self, user: UserKey) -> StoreResult<Vec<Row>> {
        let [_, sessions, _] = self.keys.user(user);
        let ids: Vec<Vec<u8>> = self.link.query(redis::cmd("ZRANGE").arg(sessions).arg(0).arg(-1)).await?;
        let ids = ids.iter().map(|id| session_id(id, &self.keys.user(user)[1])).collect::<StoreResult<Vec<_>>>()?;
        let found = each(ids.into_iter().map(|id| self.found_without_data(id))).await?;
        Ok(found.into_iter().filter_map(Found::row).collect())
    }

    /// The rows of entries, without data. What interrupted writes left is done, what is left of removed rows goes.
    pub(crate) async fn rows(&self, entries: &[Entry]) -> StoreResult<Vec<Row>> {
        self.rows_with(entries, &FIELDS[..WITHOUT_DATA]).await
    }

    /// As [`Inner::rows`], with everything.
    pub(crate) async fn whole_rows(&self, entries: &[Entry]) -> StoreResult<Vec<Row>> {
        self.rows_with(entries, &FIELDS).await
    }

    async fn rows_with(&self, entries: &[Entry], fields: &[&str]) -> StoreResult<Vec<Row>> {
        let found = each(entries.iter().map(|entry| self.found_fields(entry.id, fields))).await?;
        let mut rows = Vec::with_capacity(found.len());
        for (entry, found) in entries.iter().zip(found) {
            match found {
                Found::Row(row) => rows.push(*row),
                Found::Gone => self.forget_session(entry).await?,
                // It may be about to start: then its user's slot knows.
                Found::Nothing => {
                    self.complete_starts(entry.user).await?;
                    match self.found_fields(entry.id, fields).await? {
                        Found::Row(row) => rows.push(*row),
                        Found::Gone | Found::Nothing => self.forget_session(entry).await?,
                    }
                }
            }
        }
        self.settle(rows.iter().filter_map(|row| self.noted(row)).collect()).await?;
        Ok(rows)
    }
}

impl Sessions {
    /// The next entries; fewer than `count` only at the end.
    pub(crate) async fn next(&mut self, inner: &Inner, count: usize) -> StoreResult<Vec<Entry>> {
        let members = self.walk.next(inner, count).await?;
        let entry = |(i, bytes): (usize, Vec<u8>)| {
            let scope = self.scopes[i].clone();
            let id = session_id(&bytes, &inner.keys.scope_sessions(&scope, 0))?;
            let user = match self.user {
                Some(user) => Some(user),
                None => bytes.get(16..).and_then(|user| user.try_into().ok()).map(UserKey::from_bytes),
            };
            let corrupt = || StoreError::Corrupt { table: "sessions by scope", column: "user", id: id.to_string() };
            Ok(Entry { scope, id, user: user.ok_or_else(corrupt)? })
        };
        members.into_iter().map(entry).collect()
    }
}

fn member(id: SessionId, user: UserKey) -> Vec<u8> {
    [id.to_bytes(), user.to_bytes()].concat()
}

fn session_id(bytes: &[u8], key: &str) -> StoreResult<SessionId> {
    let id = bytes.get(..16).and_then(|id| id.try_into().ok());
    id.map(SessionId::from_bytes).ok_or_else(|| StoreError::Corrupt { table: "indexes", column: "id", id: key.into() })
}

/// The edge of a walk that leaves out all members that begin with an id.
fn from(order: Order, edge: Option<SessionId>) -> Vec<u8> {
    match (order, edge) {
        (Order::Ascending, None) => b"-".to_vec(),
        (Order::Descending, None) => b"+".to_vec(),
        // More than any member that begins with the id.
        (Order::Ascending, Some(id)) => [b"(".as_slice(), &id.to_bytes(), &[255; 17]].concat(),
        (Order::Descending, Some(id)) => [b"(".as_slice(), &id.to_bytes()].concat(),
    }
}
