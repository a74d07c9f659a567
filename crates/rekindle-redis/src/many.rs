//! What goes over many sessions: lists, bulk endings, the sweep.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use rekindle::clock::Timestamp;
use rekindle::session::{Scope, Session, Tag};
use rekindle::store::*;

use crate::effects::Noted;
use crate::index::{Entry, Sessions};
use crate::keys::{UserKey, hex};
use crate::row::{Found, Row};
use crate::scripts::{UNBAN, UNPUBLISH};
use crate::sessions::Write;
use crate::walk::Order;
use crate::{Inner, each};

/// How many rows are read at once.
pub(crate) const SLICE: usize = 256;
/// How many sessions one bulk ending looks at, when it is not of one user.
const LOOKS_AT: usize = 20_000;

impl Inner {
    pub(crate) async fn sessions(&self, query: &SessionQuery) -> StoreResult<Vec<Session>> {
        let limit = query.limit as usize;
        let mut walk = match &query.user_id {
            Some(user_id) => self.walk_user(&query.scope, user_id, Order::Descending, query.before).await?,
            None => self.walk_scopes(vec![query.scope.clone()], Order::Descending, query.before),
        };
        let mut selected = Vec::new();
        while selected.len() < limit {
            let entries = walk.next(self, (limit - selected.len()).min(SLICE)).await?;
            if entries.is_empty() {
                break;
            }
            let found = each(entries.iter().map(|entry| self.found(entry.id))).await?;
            let sessions = found.into_iter().filter_map(Found::row).map(|row| row.session);
            selected.extend(sessions.filter(|session| query.selects(session)));
        }
        Ok(selected)
    }

    pub(crate) async fn end_many(&self, end: &EndMany) -> StoreResult<EndedMany> {
        if let Some(audit) = &end.audit
            && end.after.is_none()
        {
            self.append_audit(audit).await?;
        }
        let mut walk = match &end.user_id {
            Some(user_id) => self.walk_user(&end.scope, user_id, Order::Ascending, end.after).await?,
            None => self.walk_scopes(vec![end.scope.clone()], Order::Ascending, end.after),
        };
        let by = By::new(
            &end.ending,
            &(&end.user_id, end.except, &end.tag, end.started_until, end.refreshed_from, end.after),
        );
        let limit = end.limit as usize;
        let (mut selected, mut looked_at, mut last) = (Vec::new(), 0, None);
        let next = loop {
            let entries = walk.next(self, SLICE).await?;
            looked_at += entries.len();
            if let Some(entry) = entries.last() {
                last = Some(entry.id);
            }
            let at_end = entries.len() < SLICE;
            let rows = self.rows(&entries).await?.into_iter();
            selected.extend(rows.filter(|row| end.selects(&by.before(row))));
            if selected.len() > limit {
                selected.truncate(limit);
                break selected.last().map(|row| row.session.id);
            }
            if at_end {
                break None;
            }
            if end.user_id.is_none() && looked_at >= LOOKS_AT {
                break last;
            }
        };
        Ok(EndedMany { next, ..self.end_selected(selected, &end.ending, &by).await? })
    }

    /// Ends those that are active; of the others, that they are idle. Those that the same intent ended before, when its answer
    /// was lost, count as if it ended them now.
    pub(crate) async fn end_selected(&self, selected: Vec<Row>, ending: &Ending, by: &By) -> StoreResult<EndedMany> {
        let mut done = EndedMany::default();
        let mut to_end = Vec::new();
        for row in selected {
            match by.before(&row).end(ending.at) {
                None => to_end.push(row),
                Some(_) => done.idle.push(EndedSession::of(&row.session, ending.at, ending.reason)),
            }
        }
        let ended = each(to_end.into_iter().zip(0..).map(|(row, i)| self.end_by(row, ending, by, i))).await?;
        let mut noted = Vec::new();
        for (session, note) in ended.into_iter().flatten() {
            done.ended.push(EndedSession::of(&session, ending.at, ending.reason));
            noted.extend(note);
        }
        self.settle(noted).await?;
        Ok(done)
    }

    /// Ends the `i`-th session of a bulk ending, if it is still active or was ended by it before.
    async fn end_by(
        &self,
        row: Row,
        ending: &Ending,
        by: &By,
        i: u32,
    ) -> StoreResult<Option<(Session, Option<Noted>)>> {
        if by.ended(&row) {
            return Ok(Some((row.session, None)));
        }
        let written = self.write_if(row, |row| {
            row.session.end(ending.at).is_none().then(|| Write {
                ended_by: Some(by.0.clone()),
                ..Write::end(row.session.clone(), ending, ending.reason, i)
            })
        });
        Ok(written.await?.map(|(write, noted)| (write.session, noted)))
    }

    /// Removes a session with all that is known of it; whether this call did.
    pub(crate) async fn remove_session(&self, entry: &Entry) -> StoreResult<bool> {
        let removed = loop {
            match self.found_without_data(entry.id).await? {
                Found::Row(row) if self.remove_row(&row).await? => break true,
                Found::Row(_) => {}
                Found::Gone | Found::Nothing => break false,
            }
        };
        self.forget_session(entry).await?;
        Ok(removed)
    }

    pub(crate) async fn sweep(&self, sweep: &Sweep) -> StoreResult<Swept> {
        let budget = sweep.budget as usize;
        let mut walk = self.walk_scopes(self.scopes().await?, Order::Ascending, sweep.after);
        let mut slice: Vec<Row> = Vec::new();
        while slice.len() < budget {
            let entries = walk.next(self, (budget - slice.len()).min(SLICE)).await?;
            if entries.is_empty() {
                break;
            }
            slice.extend(self.rows(&entries).await?);
        }
        let next = if slice.len() == budget { slice.last().map(|row| row.session.id) } else { None };
        let mut swept = Swept { next, ..Swept::default() };
        let removable: Vec<Entry> = slice.iter().filter(|row| sweep.removes(&row.session)).map(entry).collect();
        swept.ended = self.note_natural_ends(sweep, slice).await?;
        let removed = each(removable.iter().map(|entry| self.remove_session(entry))).await?;
        swept.removed = removed.into_iter().filter(|by_this| *by_this).count() as u64;
        if swept.next.is_none() {
            self.forget_what_is_over(sweep.now).await?;
        }
        Ok(swept)
    }

    async fn note_natural_ends(&self, sweep: &Sweep, slice: Vec<Row>) -> StoreResult<u64> {
        let by = By::new(&sweep.ending, &sweep.after);
        // Those that the same sweep noted before, when its answer was lost, keep their numbers.
        let over = |row: &Row| by.before(row).ended.is_none() && row.session.end(sweep.now).is_some();
        let to_note: Vec<Row> = slice.into_iter().filter(over).collect();
        let written = each(to_note.into_iter().zip(0..).map(|(row, i)| {
            let by = &by;
            self.write_if(row, move |row| {
                let end = row.session.end(sweep.now).filter(|_| row.session.ended.is_none())?;
                let mut event = sweep.ending.event_for(&row.session, i, end.reason);
                event.at = end.at;
                event.notify = sweep.notify.contains(&row.session.scope.product);
                event.user_id = event.notify.then(|| row.session.user_id.clone());
                let mut session = row.session.clone();
                session.ended = Some(end);
                Some(Write { ended_by: Some(by.0.clone()), ..Write::of(session, event) })
            })
        }))
        .await?;
        let noted: Vec<(Write, Option<Noted>)> = written.into_iter().flatten().collect();
        let ended = noted.len() as u64;
        self.settle(noted.into_iter().filter_map(|(_, note)| note).collect()).await?;
        Ok(ended)
    }

    /// Removes expired entries of the feed, and bans that are over. Idempotency keys go by themselves.
    async fn forget_what_is_over(&self, now: Timestamp) -> StoreResult<()> {
        const AT_ONCE: usize = 500;
        let [entries, numbers, expiries, _] = self.keys.feed();
        let unpublish = || UNPUBLISH.on(&[&entries, &numbers, &expiries]).arg(now.millis()).arg(AT_ONCE);
        while self.link.run::<usize>(&unpublish()).await? == AT_ONCE {}
        let bans = self.keys.bans();
        loop {
            let mut over = redis::cmd("ZRANGEBYSCORE");
            over.arg(&bans).arg("-inf").arg(now.millis()).arg("LIMIT").arg(0).arg(AT_ONCE);
            let over: Vec<Vec<u8>> = self.link.query(&over).await?;
            each(over.iter().map(|member| self.forget_ban(&bans, member, now))).await?;
            if over.len() < AT_ONCE {
                return Ok(());
            }
        }
    }

    async fn forget_ban(&self, bans: &str, member: &[u8], now: Timestamp) -> StoreResult<()> {
        let (scope, user_id) = crate::users::read_ban_entry(member)?;
        let [user, ..] = self.keys.user(UserKey::new(&scope, &user_id));
        self.link.run::<bool>(&UNBAN.on(&[user]).arg(self.token()).arg(now.millis())).await?;
        self.retire_user(&scope, &user_id).await?;
        self.link.write::<()>(redis::cmd("ZREM").arg(bans).arg(member), bans).await
    }

    /// How many sessions of these scopes are active, of one tag or of all.
    pub(crate) async fn active(&self, scopes: Vec<Scope>, tag: Option<&Tag>, now: Timestamp) -> StoreResult<u64> {
        let mut active = 0;
        let counts = |row: &Row| row.session.end(now).is_none() && tag.is_none_or(|t| *t == row.session.tag);
        self.over_rows(scopes, |row| active += u64::from(counts(row))).await?;
        Ok(active)
    }

    pub(crate) async fn secret_usage(&self) -> StoreResult<Vec<(u8, u64)>> {
        let mut usage: BTreeMap<u8, u64> = BTreeMap::new();
        let scopes = self.scopes().await?;
        self.over_rows(scopes, |row| {
            if row.session.ended.is_none() {
                *usage.entry(row.session.position.kid).or_default() += 1;
            }
        })
        .await?;
        Ok(usage.into_iter().collect())
    }

    async fn over_rows(&self, scopes: Vec<Scope>, mut see: impl FnMut(&Row)) -> StoreResult<()> {
        let mut walk = self.walk_scopes(scopes, Order::Ascending, None);
        loop {
            let entries = walk.next(self, SLICE).await?;
            self.rows(&entries).await?.iter().for_each(&mut see);
            if entries.len() < SLICE {
                return Ok(());
            }
        }
    }

    /// Removes every session of a walk, with its idempotency key.
    pub(crate) async fn remove_all(&self, mut walk: Sessions) -> StoreResult<()> {
        loop {
            let entries = walk.next(self, SLICE).await?;
            let rows = self.rows(&entries).await?;
            each(rows.iter().map(|row| self.forget_key(row))).await?;
            let removable: Vec<Entry> = rows.iter().map(entry).collect();
            each(removable.iter().map(|entry| self.remove_session(entry))).await?;
            if entries.len() < SLICE {
                return Ok(());
            }
        }
    }
}

/// As its scope's index names it.
pub(crate) fn entry(row: &Row) -> Entry {
    let scope = row.session.scope.clone();
    let user = UserKey::new(&scope, &row.session.user_id);
    Entry { scope, id: row.session.id, user }
}

/// What a row says of the bulk ending that ended it: the same intent, asked again, says the same.
pub(crate) struct By(String);

impl By {
    pub(crate) fn new(ending: &Ending, filters: &impl std::fmt::Debug) -> Self {
        let intent = format!("{} {filters:?}", ending.event.id);
        Self(hex(&digest(&SHA256, intent.as_bytes()).as_ref()[..8]))
    }

    fn ended(&self, row: &Row) -> bool {
        row.ended_by.as_ref() == Some(&self.0)
    }

    /// The session as it was before.
    pub(crate) fn before(&self, row: &Row) -> Session {
        let mut session = row.session.clone();
        if self.ended(row) {
            session.ended = None;
        }
        session
    }
}
