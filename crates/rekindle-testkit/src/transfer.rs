//! The suite of stores that can be copied: `transfer_suite!` makes a test of each check. A check takes a new store.

use std::sync::Arc;

use rekindle::clock::Timestamp;
use rekindle::copy::{Copy, CopyError, Pass};
use rekindle::definition::Definition;
use rekindle::journal::{EventId, EventKind};
use rekindle::keys::{Algorithm, SigningKey};
use rekindle::memory::MemoryStore;
use rekindle::refresh::SecretRing;
use rekindle::session::{EndReason, Object, Session, SessionId};
use rekindle::store::*;

use crate::contents::contents;
use crate::differential::{self, Op};
use crate::fixtures::*;
use crate::seam::SeededRng;

/// Makes a `#[tokio::test]` of every check. `$make` is an expression of a function or closure that returns a future of
/// `(Arc<dyn Transfer>, guard)`: a new store, and whatever must outlive it.
#[macro_export]
macro_rules! transfer_suite {
    ($make:expr) => {
        $crate::each_check! { transfer, $make;
            everything_goes_in_and_out
            a_copy_follows_what_changes
            a_copied_store_serves
            records_come_in_pages
            bans_come_in_the_order_of_their_scopes
            pages_of_large_sessions_are_short
            what_is_put_twice_is_there_once
            an_event_that_came_late_is_copied
            a_session_is_replaced_whole
            a_session_has_the_idempotency_key_that_it_was_put_with
            the_feed_goes_on_after_what_was_put
            a_store_in_use_is_not_copied_to
            the_configuration_s_version_never_goes_back
        }
    };
}

/// All pages of a section.
async fn pages(store: &dyn Transfer, section: Section, limit: u32) -> Vec<Vec<Record>> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = store.records(section, after, limit).await.unwrap();
        assert!(page.len() <= limit as usize, "{section:?}");
        let Some(last) = page.last() else { return pages };
        after = Some(last.key());
        pages.push(page);
    }
}

/// All records of a store but for what has expired at `now`, which it may have forgotten.
pub async fn records(store: &dyn Transfer, now: Timestamp) -> Vec<Record> {
    let mut all = Vec::new();
    for section in Section::ALL {
        let records = pages(store, section, u32::MAX).await.concat();
        assert_eq!(store.count(section).await.unwrap(), records.len() as u64, "{section:?}");
        all.extend(records);
    }
    all.retain_mut(|record| match record {
        Record::Session(stored) => {
            stored.idempotency = stored.idempotency.filter(|known| now < known.expires_at);
            true
        }
        Record::Ban(stored) => stored.ban.holds(now),
        Record::Revocation(entry) => now < entry.expires_at,
        Record::Notification(_) | Record::Audit(_) => true,
    });
    all
}

/// What goes wrong when everything is taken out of a store.
pub async fn errors_of_taking_all(store: &dyn Transfer) -> Vec<StoreError> {
    let mut errors = Vec::from_iter(store.configuration().await.err());
    let mut sessions = Vec::new();
    for section in Section::ALL {
        match store.records(section, None, u32::MAX).await {
            Ok(records) => sessions.extend(sessions_of(&records)),
            Err(error) => errors.push(error),
        }
    }
    errors.extend(store.events_after(sessions).await.err());
    errors
}

/// So many random sequences, each followed by copies; see [`agrees_with_memory`]. `new_store` gives a store and whatever must
/// outlive it.
///
/// # Panics
///
/// If something differs.
pub fn check<G>(cases: u32, new_store: impl AsyncFn() -> (Arc<dyn Transfer>, G)) {
    differential::each(cases, async |ops| {
        let ((store, _guard), (empty, _other)) = (new_store().await, new_store().await);
        agrees_with_memory(store, empty, ops).await;
    });
}

/// After random intents, carried out on `store` and in memory: both are copied, and the copies are equal. `empty` is copied to.
pub async fn agrees_with_memory(store: Arc<dyn Transfer>, empty: Arc<dyn Transfer>, ops: Vec<Op>) {
    let (memory, now) = differential::agrees_with_memory(store.clone(), ops).await;
    assert_eq!(records(&*store, now).await, records(&memory, now).await);
    let out = MemoryStore::new();
    copy(&*store, &out).await;
    copy(&memory, &*empty).await;
    let wanted = without_marks(records(&memory, now).await);
    assert_eq!(without_marks(records(&out, now).await), wanted);
    assert_eq!(without_marks(records(&*empty, now).await), wanted);
}

fn without_marks(mut records: Vec<Record>) -> Vec<Record> {
    records.retain(|r| !matches!(r, Record::Audit(entry) if entry.action.starts_with("store.copy.")));
    records
}

async fn begin<'a>(from: &'a dyn Transfer, to: &'a dyn Transfer) -> Copy<'a> {
    Copy::begin(from, to, audit(Copy::BEGIN, at(500))).await.unwrap()
}

async fn finish(copy: Copy<'_>) -> Pass {
    copy.finish(audit(Copy::FINISH, at(501)), audit(Copy::RETIRE, at(501)), |_| ()).await.unwrap()
}

async fn copy(from: &dyn Transfer, to: &dyn Transfer) {
    finish(begin(from, to).await).await;
}

/// Whether all that both hold is equal, but for the marks of the copy.
async fn assert_same(from: &dyn Transfer, to: &dyn Transfer) {
    let (wanted, there) = (from.configuration().await.unwrap(), to.configuration().await.unwrap());
    assert!(there.version >= wanted.version);
    assert!(there == Configuration { version: there.version, ..wanted });
    let (wanted, there) = (without_marks(records(from, at(1)).await), without_marks(records(to, at(1)).await));
    assert_eq!(there, wanted);
    let ids = sessions_of(&wanted);
    assert!(!ids.is_empty());
    assert_eq!(to.events_after(ids.clone()).await.unwrap(), from.events_after(ids).await.unwrap());
}

fn sessions_of(records: &[Record]) -> Vec<(SessionId, Option<EventId>)> {
    let id = |r: &Record| if let Record::Session(stored) = r { Some((stored.session.id, None)) } else { None };
    records.iter().filter_map(id).collect()
}

/// A store with something of everything.
async fn full() -> MemoryStore {
    let store = MemoryStore::new();
    fill(&store).await;
    store
}

/// Puts something of everything into a store.
pub async fn fill(store: &dyn Store) {
    let rng = SeededRng::new(1);
    let secrets = SecretRing::parse(&SecretRing::generate(1, &rng)).unwrap();
    store.secret_checks(secrets.checks().collect()).await.unwrap();
    let changes = [
        Change::CreateProduct(Product { tag: tag("shop"), name: "The \u{1F980} \u{0} shop".into() }),
        Change::CreateEnvironment(
            tag("shop"),
            Environment { slug: "dev".parse().unwrap(), name: "'dev'".into(), active: false },
        ),
        Change::CreateDefinition(tag("shop"), Definition::default_for(tag("old"))),
        Change::CreateDefinition(tag("default"), Definition::default_for(tag("admin"))),
        Change::UpdateDefinition { product: tag("default"), version: 1, definition: admin_named("Second") },
        Change::DeleteDefinition { product: tag("shop"), tag: tag("old"), now: at(0) },
        Change::CreateApiKey(api_key("b", 1)),
        Change::CreateApiKey(api_key("a", 2)),
        Change::RevokeApiKey { id: "b".into(), at: at(2) },
    ];
    for change in changes {
        assert_eq!(store.change(change, audit("config", at(0))).await.unwrap(), Changed::Done);
    }
    let mut newest = None;
    for signs_from in [at(9), at(90)] {
        let key = SigningKey::generate(scope(), Algorithm::EdDsa, at(0), signs_from, &secrets, &rng);
        assert!(store.add_signing_key(key.clone(), newest.replace(key.kid)).await.unwrap());
    }
    let long = "\u{1F980}".repeat(64);
    for name in ["", "a", "A", "a\u{0}b", "'%", &long, "banned", "lifted"] {
        let session = start(store, session(name)).await;
        let advanced = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
        applied(store.update(update_of(&advanced, r#"{ "a" : "\u0000", "a":1e400 }"#, at(2))).await.unwrap());
    }
    let large = format!(r#"{{"text":"{}"}}"#, "\u{1F980}".repeat(16_000));
    start(store, Session { data: object(&large), scope: scope_of("shop", "dev"), ..session("ada") }).await;
    let keyed = session("ada");
    let idempotency = Some(Idempotency { key: [7; 32], request: [8; 32], expires_at: at(5_000) });
    store.start(Start { idempotency, ..start_of(&keyed) }).await.unwrap();
    let ended = start(store, session("ada")).await;
    let mut end = end_of(&ended, at(3), EndReason::Theft);
    end.ending.event.notify = true;
    end.cause = Some(event_of(&ended, EventKind::TheftDetected, at(3)));
    applied(store.end(end).await.unwrap());
    let elevated = start(store, session("ada")).await;
    let auth = rekindle::session::Auth { time: at(4), acr: Some("mfa".into()), amr: vec!["otp".into()] };
    let elevation = Some(Elevation { auth, feed_until: at(400) });
    applied(store.advance(Advance { elevation, ..advance_of(&elevated, at(4)) }).await.unwrap());
    for (name, until) in [("banned", None), ("lifted", Some(at(4_000)))] {
        let mut ban = ban_of(name, at(5));
        ban.event.notify = true;
        ban.ban.until = until;
        store.ban(ban).await.unwrap();
    }
    store.take_notifications(at(6), at(60), 1).await.unwrap();
}

fn admin_named(name: &str) -> Definition {
    Definition::default_for(tag("admin")).patched(&serde_json::json!({ "name": name })).expect("a valid definition")
}

fn api_key(id: &str, hash: u8) -> ApiKey {
    ApiKey {
        id: id.into(),
        name: "the 'backend' \u{0}".into(),
        hash: [hash; 32],
        permissions: vec![Permission::Sessions, Permission::Read],
        created_at: at(1),
        revoked_at: None,
    }
}

/// From memory, and back to memory.
pub async fn everything_goes_in_and_out(store: Arc<dyn Transfer>) {
    let full = full().await;
    copy(&full, &*store).await;
    assert_same(&full, &*store).await;
    let out = MemoryStore::new();
    copy(&*store, &out).await;
    assert_same(&*store, &out).await;
    assert_same(&full, &out).await;
}

/// Every kind of change is found: new, other, gone.
pub async fn a_copy_follows_what_changes(store: Arc<dyn Transfer>) {
    fill(&*store).await;
    let to = MemoryStore::new();
    let copy = begin(&*store, &to).await;
    assert!(copy.pass(|_| ()).await.unwrap().differences() > 0);
    assert_same(&*store, &to).await;
    assert_eq!(copy.pass(|_| ()).await.unwrap().differences(), 0);

    let new = start(&*store, session("new")).await;
    store.record(vec![event_of(&new, EventKind::Refresh, at(7))]).await.unwrap();
    let erased = start(&*store, session("erased")).await;
    store.ban(ban_of("new", at(8))).await.unwrap();
    assert_eq!(copy.pass(|_| ()).await.unwrap().sections[0].1.copied, 2);
    assert_same(&*store, &to).await;

    store.erase_user(erase_of("erased", at(9))).await.unwrap();
    assert!(store.lift_ban(&scope(), &user("lifted"), audit("user.unban", at(9))).await.unwrap());
    for notification in store.take_notifications(at(100), at(101), 100).await.unwrap() {
        store.settle_notification(notification.event.id, None).await.unwrap();
    }
    let change = Change::CreateDefinition(tag("shop"), Definition::default_for(tag("old")));
    assert_eq!(store.change(change, audit("config", at(9))).await.unwrap(), Changed::Done);
    assert!(copy.pass(|_| ()).await.unwrap().configuration);
    assert_eq!(to.session(erased.id).await.unwrap(), None);
    assert_same(&*store, &to).await;

    store.sweep(sweep_at(at(20_000))).await.unwrap();
    let pass = finish(begin(&*store, &to).await).await;
    assert_eq!((pass.differences(), pass.sections[0].1.records), (0, 0));
    assert_eq!(records(&to, at(20_000)).await.len(), records(&*store, at(20_000)).await.len() + 1);
}

/// It goes on as the store that was copied would have.
pub async fn a_copied_store_serves(store: Arc<dyn Transfer>) {
    let full = full().await;
    copy(&full, &*store).await;
    let now = at(10);
    let mut there = contents(&*store, now).await.unwrap();
    let mut expected = contents(&full, now).await.unwrap();
    for text in [&mut there, &mut expected] {
        text.truncate(text.rfind('[').expect("the audit log is last"));
    }
    assert_eq!(there, expected);

    let keyed = full.sessions(sessions_in(scope(), now)).await.unwrap();
    let keyed = keyed.iter().find(|s| s.user_id == user("ada") && s.position.generation == 0 && s.ended.is_none());
    let again = Session { id: session_id(), ..keyed.expect("it was started with a key").clone() };
    let idempotency = Some(Idempotency { key: [7; 32], request: [8; 32], expires_at: at(6_000) });
    let repeated = store.start(Start { idempotency, ..start_of(&again) }).await.unwrap();
    let Started::Repeated(Some(repeated)) = repeated else { panic!("the key is known, but {repeated:?}") };
    assert_eq!(Some(repeated.id), keyed.map(|s| s.id));
    assert!(matches!(store.start(start_of(&session("banned"))).await.unwrap(), Started::Banned(_)));

    let last = store.revocations(None, 0, now, 100).await.unwrap().last().expect("there are some").seq;
    let advanced = applied(store.advance(advance_of(&repeated, now)).await.unwrap());
    applied(store.end(end_of(&advanced, now, EndReason::SignedOut)).await.unwrap());
    let told = store.revocations(None, last, now, 100).await.unwrap();
    assert_eq!(told.iter().map(|r| r.session_id).collect::<Vec<_>>(), [repeated.id]);
    let kinds: Vec<_> = store.events(events_of(repeated.id)).await.unwrap().iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [EventKind::End, EventKind::Refresh, EventKind::Start]);

    let taken = store.take_notifications(at(70), at(80), 100).await.unwrap();
    assert_eq!(taken, full.take_notifications(at(70), at(80), 100).await.unwrap());
    let change = Change::UpdateDefinition { product: tag("default"), version: 2, definition: admin_named("Third") };
    assert_eq!(store.change(change, audit("config", now)).await.unwrap(), Changed::Done);
    let users = UserQuery { scope: scope(), after: None, limit: 100, now };
    assert_eq!(store.users(users.clone()).await.unwrap().len(), full.users(users).await.unwrap().len());
    assert!(store.end_many(end_all(now)).await.unwrap().ended.len() > 5);
    assert!(store.sweep(sweep_at(at(20_000))).await.unwrap().removed > 5);
}

/// Of any size, without gaps or repetitions.
pub async fn records_come_in_pages(store: Arc<dyn Transfer>) {
    fill(&*store).await;
    for section in Section::ALL {
        let all = store.records(section, None, 1_000).await.unwrap();
        assert!(all.len() >= 2, "{section:?}: {all:?}");
        assert!(all.iter().is_sorted_by_key(|record| record.key().to_bytes()));
        for limit in [1, 2, 3] {
            assert_eq!(pages(&*store, section, limit).await.concat(), all);
        }
    }
}

/// By the scopes' names, in which `-` comes before the `/` between product and environment.
pub async fn bans_come_in_the_order_of_their_scopes(store: Arc<dyn Transfer>) {
    let mut expected = Vec::new();
    for scope in like_named_scopes() {
        for name in ["", "a", "-x"] {
            let mut ban = ban_of(name, at(1));
            ban.end.scope = scope.clone();
            store.ban(ban.clone()).await.unwrap();
            expected.push(Record::Ban(StoredBan { scope: scope.clone(), user_id: user(name), ban: ban.ban }));
        }
    }
    expected.sort_by_key(|record| record.key().to_bytes());
    for limit in [1, 2, 5, 100] {
        assert_eq!(pages(&*store, Section::Bans, limit).await.concat(), expected);
    }
    let to = MemoryStore::new();
    copy(&*store, &to).await;
    assert_eq!(to.records(Section::Bans, None, 100).await.unwrap(), expected);
}

/// However many may be asked for: they are held in memory.
pub async fn pages_of_large_sessions_are_short(store: Arc<dyn Transfer>) {
    const LARGE: usize = 1 << 20;
    let large = object(&format!(r#"{{"text":"{}"}}"#, "x".repeat(LARGE)));
    for _ in 0..4 {
        for data in [Object::empty(), large.clone(), large.clone(), large.clone()] {
            start(&*store, Session { data, ..session("ada") }).await;
        }
    }
    let pages = pages(&*store, Section::Sessions, 1_000).await;
    assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), 16);
    for page in &pages {
        let large = page.iter().filter(|r| matches!(r, Record::Session(s) if s.session.data.as_str().len() > LARGE));
        assert!(large.count() * LARGE <= PAGE_BYTES as usize, "a page of {} sessions", page.len());
    }
    let to = MemoryStore::new();
    copy(&*store, &to).await;
    assert_eq!(self::pages(&to, Section::Sessions, 1_000).await.concat(), pages.concat());
}

/// A copy that was interrupted repeats what it wrote.
pub async fn what_is_put_twice_is_there_once(store: Arc<dyn Transfer>) {
    let full = full().await;
    let all = full.records(Section::Sessions, None, 1_000).await.unwrap();
    let events = full.events_after(sessions_of(&all)).await.unwrap();
    for _ in 0..2 {
        store.put(all.clone(), events.clone()).await.unwrap();
        assert_eq!(store.records(Section::Sessions, None, 1_000).await.unwrap(), all);
    }
    for _ in 0..2 {
        for section in [Section::Bans, Section::Revocations, Section::Notifications, Section::Audit] {
            store.put(full.records(section, None, 1_000).await.unwrap(), Vec::new()).await.unwrap();
            assert_eq!(store.records(section, None, 1_000).await, full.records(section, None, 1_000).await);
        }
    }
    for section in Section::ALL {
        let keys: Vec<_> = store.records(section, None, 1_000).await.unwrap().iter().map(Record::key).collect();
        for _ in 0..2 {
            store.remove(keys.clone()).await.unwrap();
        }
        assert_eq!(store.records(section, None, 1_000).await.unwrap(), []);
    }
}

/// Two servers' clocks differ: an event may be written after one with a later id.
pub async fn an_event_that_came_late_is_copied(store: Arc<dyn Transfer>) {
    let from = MemoryStore::new();
    let session = start(&from, session("ada")).await;
    let late = event_of(&session, EventKind::Refresh, at(2));
    let sooner = event_of(&session, EventKind::Refresh, at(3));
    from.record(vec![sooner]).await.unwrap();
    let copy = begin(&from, &*store).await;
    copy.pass(|_| ()).await.unwrap();
    from.record(vec![late.clone()]).await.unwrap();
    copy.pass(|_| ()).await.unwrap();
    assert_same(&from, &*store).await;
    assert_eq!(store.events_after(vec![(session.id, Some(late.id))]).await.unwrap().len(), 1);
    let out = MemoryStore::new();
    self::copy(&*store, &out).await;
    assert_same(&from, &out).await;
}

/// Events that the first store does not have go.
pub async fn a_session_is_replaced_whole(store: Arc<dyn Transfer>) {
    let from = MemoryStore::new();
    let session = start(&from, session("ada")).await;
    let backup = from.clone();
    applied(from.advance(advance_of(&session, at(1))).await.unwrap());
    begin(&from, &*store).await.pass(|_| ()).await.unwrap();
    assert_same(&from, &*store).await;
    begin(&backup, &*store).await.pass(|_| ()).await.unwrap();
    assert_same(&backup, &*store).await;
}

/// That one alone, and no other session has it any more.
pub async fn a_session_has_the_idempotency_key_that_it_was_put_with(store: Arc<dyn Transfer>) {
    let mut sessions = [session("ada"), session("bob")];
    sessions.sort_by_key(|session| session.id);
    for keys in [[1, 2], [3, 1], [0, 3], [2, 0]] {
        let with_key = |(session, n): (&Session, u8)| {
            let idempotency = Idempotency { key: [n; 32], request: [n; 32], expires_at: at(5_000) };
            let (idempotency, events) = (Some(idempotency).filter(|_| n > 0), Held::default());
            Record::Session(Box::new(StoredSession { session: session.clone(), idempotency, events }))
        };
        let all: Vec<_> = sessions.iter().zip(keys).map(with_key).collect();
        store.put(all.clone(), Vec::new()).await.unwrap();
        assert_eq!(store.records(Section::Sessions, None, 10).await.unwrap(), all);
    }
}

/// Who follows it misses nothing.
pub async fn the_feed_goes_on_after_what_was_put(store: Arc<dyn Transfer>) {
    let session = start(&*store, session("ada")).await;
    let seq = Revocation::next_seq(0, at(1_000));
    let (what, expires_at) = (Revoked::Below(1), at(5_000));
    let entry = Revocation { seq, scope: scope(), session_id: session.id, what, at: at(1), expires_at };
    store.put(vec![Record::Revocation(entry)], Vec::new()).await.unwrap();
    applied(store.end(end_of(&session, at(2), EndReason::SignedOut)).await.unwrap());
    assert_eq!(store.revocations(None, seq, at(2), 10).await.unwrap().len(), 1);
}

/// Nothing is lost by a mistake in an address.
pub async fn a_store_in_use_is_not_copied_to(store: Arc<dyn Transfer>) {
    let full = full().await;
    let refused = |result: Result<Copy<'_>, CopyError>| result.err().expect("it is refused");
    start(&*store, session("ada")).await;
    let before = records(&*store, at(1)).await;
    let error = refused(Copy::begin(&full, &*store, audit(Copy::BEGIN, at(1))).await);
    assert!(matches!(error, CopyError::InUse { sessions: 1, keys: 0 }), "{error}");
    store.secret_checks(vec![(1, [9; 16])]).await.unwrap();
    let error = refused(Copy::begin(&full, &*store, audit(Copy::BEGIN, at(1))).await);
    assert!(matches!(error, CopyError::OtherSecret(1)), "{error}");
    assert_eq!(records(&*store, at(1)).await, before);
    let to = MemoryStore::new();
    copy(&*store, &to).await;
    let error = refused(Copy::begin(&*store, &to, audit(Copy::BEGIN, at(1))).await);
    assert!(matches!(error, CopyError::Finished(when) if when == at(501)), "{error}");
}

/// Servers see by it that something changed.
pub async fn the_configuration_s_version_never_goes_back(store: Arc<dyn Transfer>) {
    let mut configuration = store.configuration().await.unwrap();
    for (given, least) in [(0, configuration.version + 1), (70, 70), (3, 71)] {
        configuration.version = given;
        store.set_configuration(configuration.clone()).await.unwrap();
        let version = store.config_version().await.unwrap();
        assert!(version >= least, "{version} after {given}");
        assert_eq!(store.configuration().await.unwrap().version, version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn memory() -> (Arc<dyn Transfer>, ()) {
        (Arc::new(MemoryStore::new()), ())
    }

    crate::transfer_suite!(memory);

    #[test]
    fn copies_in_memory_are_equal() {
        check(64, memory);
    }

    #[test]
    fn every_check_is_in_the_suite() {
        let text = include_str!("transfer.rs");
        for line in text.lines().filter(|line| line.ends_with("(store: Arc<dyn Transfer>) {")) {
            let name = line.trim_start_matches("pub async fn ").split('(').next().expect("a function has parentheses");
            assert!(text.lines().any(|l| l.trim() == name), "`{name}` is not listed in `transfer_suite!`");
        }
    }
}
