//! What is copied: the feed under numbers of elsewhere, idempotency keys that change hands, and interruptions at each command.

#[path = "common/proxy.rs"]
mod proxy;

use futures_util::future::join_all;
use proxy::{Loss, Proxy};
use rekindle::clock::Timestamp;
use rekindle::journal::{Event, EventId, EventKind};
use rekindle::memory::MemoryStore;
use rekindle::session::{EndReason, Session, SessionId};
use rekindle::store::*;
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_testkit::fixtures::*;
use rekindle_testkit::servers::redis::Redis;

async fn open(url: &str) -> RedisStore {
    RedisStore::open(RedisConfig::parse(url).unwrap()).await.unwrap()
}

async fn new_store() -> RedisStore {
    open(&Redis::shared().new_url()).await
}

/// Two stores with the same keys; the first one's connection can be cut.
async fn proxied() -> (RedisStore, Proxy, RedisStore) {
    let server = Redis::shared();
    let url = server.new_url();
    let proxy = Proxy::start(server.port()).await;
    let through = url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port));
    (open(&through).await, proxy, open(&url).await)
}

async fn all(store: &dyn Transfer, section: Section) -> Vec<Record> {
    store.records(section, None, 1_000).await.unwrap()
}

fn revocation(seq: u64, expires_at: Timestamp) -> Revocation {
    let what = Revoked::Below(u32::try_from(seq % 100).unwrap());
    Revocation { seq, scope: scope(), session_id: session_id(), what, at: at(0), expires_at }
}

async fn put_revocation(store: &dyn Transfer, revocation: &Revocation) {
    store.put(vec![Record::Revocation(revocation.clone())], Vec::new()).await.unwrap();
}

/// Numbers whose digits a script's number would lose, given in every order, one by one and together.
#[tokio::test(flavor = "multi_thread")]
async fn the_feed_takes_numbers_in_any_order() {
    let least = (1 << 53) + 1;
    let entries: Vec<Revocation> = [1, 2, 10, least, least + 1].map(|seq| revocation(seq, at(100))).into();
    let expected: Vec<Record> = entries.iter().cloned().map(Record::Revocation).collect();
    for first in 0..entries.len() {
        for step in 1..entries.len() {
            let store = new_store().await;
            let order = (0..entries.len()).map(|i| &entries[(first + i * step) % entries.len()]);
            for entry in order.clone().chain([&entries[first]]) {
                put_revocation(&store, entry).await;
            }
            assert_eq!(all(&store, Section::Revocations).await, expected);
            assert_eq!(store.revocations(None, least, at(0), 10).await.unwrap(), entries[4..]);
            // The last number counts whatever came after it.
            let session = start(&store, session("ada")).await;
            applied(store.end(end_of(&session, at(1), EndReason::SignedOut)).await.unwrap());
            assert_eq!(store.revocations(None, least + 1, at(0), 10).await.unwrap().len(), 1);
        }
    }
    let together = new_store().await;
    let (even, odd): (Vec<_>, Vec<_>) = expected.iter().cloned().enumerate().partition(|(i, _)| i % 2 == 0);
    for half in [odd, even] {
        together.put(half.into_iter().rev().map(|(_, record)| record).collect(), Vec::new()).await.unwrap();
    }
    assert_eq!(all(&together, Section::Revocations).await, expected);
}

/// What was under a number takes nothing with it when it would have expired, and all goes in the end.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_the_feed_lasts_as_long_as_it_says() {
    let store = new_store().await;
    for name in ["a", "b", "c"] {
        let session = start(&store, session(name)).await;
        applied(store.end(end_of(&session, at(1), EndReason::SignedOut)).await.unwrap());
    }
    let made = store.revocations(None, 0, at(1), 10).await.unwrap();
    let lasting: Vec<Revocation> = made.iter().map(|r| revocation(r.seq, at(9_000))).collect();
    put_revocation(&store, &lasting[1]).await;
    store.remove(vec![RecordKey::Revocation(made[2].seq)]).await.unwrap();
    put_revocation(&store, &lasting[2]).await;
    store.remove(vec![RecordKey::Revocation(made[0].seq)]).await.unwrap();
    put_revocation(&store, &lasting[0]).await;
    assert!(made.iter().all(|r| r.expires_at < at(8_000)));
    store.sweep(sweep_at(at(8_000))).await.unwrap();
    assert_eq!(store.revocations(None, 0, at(8_000), 10).await.unwrap(), lasting);
    store.sweep(sweep_at(at(9_001))).await.unwrap();
    assert_eq!(all(&store, Section::Revocations).await, []);
}

/// A key that expired and was taken over belongs to the session that it leads to now.
#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_told_of_one_session() {
    for name in ["ada", "eve"] {
        let (store, memory) = (new_store().await, MemoryStore::new());
        let (first, second) = (session_at("ada", at(0)), session_at(name, at(20)));
        let keyed = |session: &Session, expires_at| {
            let idempotency = Some(Idempotency { key: [1; 32], request: [2; 32], expires_at });
            Start { idempotency, ..start_of(session) }
        };
        for start in [keyed(&first, at(10)), keyed(&second, at(40))] {
            for of in [&store as &dyn Store, &memory] {
                assert_eq!(of.start(start.clone()).await.unwrap(), Started::Created(Vec::new()));
            }
        }
        let expected = all(&memory, Section::Sessions).await;
        assert_eq!(all(&store, Section::Sessions).await, expected);
        for of in [&store as &dyn Transfer, &memory] {
            of.remove(vec![RecordKey::Session(first.id)]).await.unwrap();
        }
        assert_eq!(all(&store, Section::Sessions).await, all(&memory, Section::Sessions).await);
        let again = store.start(keyed(&session_at(name, at(30)), at(50))).await.unwrap();
        assert!(matches!(again, Started::Repeated(Some(session)) if session.id == second.id));
    }
}

/// Another user's session under the same id leaves nothing behind, nor does its idempotency key.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_changes_hands() {
    let store = new_store().await;
    let session = session_at("ada", at(0));
    let record = |user_id: &str, product: &str, key: u8| {
        let session = Session { user_id: user(user_id), scope: scope_of(product, "dev"), ..session.clone() };
        let idempotency = Some(Idempotency { key: [key; 32], request: [2; 32], expires_at: at(100) });
        Record::Session(Box::new(StoredSession { session, idempotency, events: Held::default() }))
    };
    for record in [record("ada", "default", 1), record("eve", "default", 2), record("eve", "shop", 2)] {
        store.put(vec![record.clone()], Vec::new()).await.unwrap();
        assert_eq!(all(&store, Section::Sessions).await, [record]);
        assert_eq!(store.count(Section::Sessions).await.unwrap(), 1);
    }
    for name in ["ada", "eve"] {
        assert_eq!(store.user(&scope(), &user(name), at(1)).await.unwrap(), None);
    }
    assert_eq!(store.users(UserQuery { scope: scope(), after: None, limit: 9, now: at(1) }).await.unwrap(), []);
    let idempotency = Some(Idempotency { key: [1; 32], request: [3; 32], expires_at: at(100) });
    let started = store.start(Start { idempotency, ..start_of(&session_at("ada", at(1))) }).await.unwrap();
    assert_eq!(started, Started::Created(Vec::new()));
}

/// Cuts the connection at the first, second, … command until there are no more of them; several cases at a time, because most of
/// it is waiting. A case tells whether it was cut.
async fn at_every_command(case: impl AsyncFn(i64, Loss, bool) -> bool, outage: bool) {
    const AT_ONCE: i64 = 12;
    for loss in [Loss::Command, Loss::Answer] {
        let mut n = 0;
        while join_all((n..n + AT_ONCE).map(|n| case(n, loss, outage))).await.into_iter().all(|was_cut| was_cut) {
            n += AT_ONCE;
        }
    }
}

/// Whoever reads to copy does first what a server that died had noted: what follows from a copied row is copied, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_noted_is_done_before_it_is_copied() {
    let case = async |n, loss, outage| {
        let (through, proxy, store) = proxied().await;
        let session = start(&store, session("ada")).await;
        let mut end = end_of(&session, at(1), EndReason::SignedOut);
        end.ending.event.notify = true;
        let mut ban = ban_of("eve", at(1));
        ban.event.notify = true;
        let (ended_by, banned_by) = (end.ending.event_for(&session, 0, EndReason::SignedOut).id, ban.event.id);
        proxy.cut(n, loss, outage);
        let _ = through.end(end).await;
        let _ = through.ban(ban).await;
        let sessions = all(&store, Section::Sessions).await;
        let Record::Session(stored) = &sessions[0] else { panic!("{sessions:?}") };
        let (ended, banned) = (stored.session.ended.is_some(), !all(&store, Section::Bans).await.is_empty());
        assert_eq!(all(&store, Section::Revocations).await.len(), usize::from(ended), "{loss:?} {n}");
        let told = all(&store, Section::Notifications).await;
        let told = |id| told.iter().any(|record| record.key() == RecordKey::Notification(id));
        assert_eq!(told(ended_by), ended, "{loss:?} {n}");
        assert!(told(banned_by) || !banned, "{loss:?} {n}");
        proxy.was_cut()
    };
    at_every_command(case, true).await;
}

/// A store with two of everything.
async fn full() -> MemoryStore {
    let store = MemoryStore::new();
    for (name, key) in [("ada", 1), ("eve", 2)] {
        let session = session(name);
        let idempotency = Some(Idempotency { key: [key; 32], request: [2; 32], expires_at: at(100) });
        let mut start = Start { idempotency, ..start_of(&session) };
        start.event.notify = true;
        store.start(start).await.unwrap();
        applied(store.end(end_of(&session, at(1), EndReason::SignedOut)).await.unwrap());
        store.ban(ban_of(name, at(2))).await.unwrap();
        store.append_audit(audit("test", at(2))).await.unwrap();
    }
    store.take_notifications(at(3), at(10), 1).await.unwrap();
    store
}

/// Puts everything there, and takes half of it away.
async fn change(store: &dyn Transfer, full: &MemoryStore) -> StoreResult<()> {
    let (mut records, mut ids): (Vec<Record>, Vec<(SessionId, Option<EventId>)>) = (Vec::new(), Vec::new());
    for section in Section::ALL {
        records.extend(all(full, section).await);
    }
    ids.extend(
        records.iter().filter_map(|r| if let Record::Session(s) = r { Some((s.session.id, None)) } else { None }),
    );
    let events: Vec<Event> = full.events_after(ids).await?;
    store.put(records.clone(), events).await?;
    store.remove(records.iter().step_by(2).map(Record::key).collect()).await?;
    store.set_configuration(full.configuration().await?).await
}

/// Every command may be lost, or its answer: with a connection that is made again at once nobody notices, after an outage it is
/// repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_interrupted_is_completed_by_being_repeated() {
    let full = full().await;
    let expected = MemoryStore::new();
    change(&expected, &full).await.unwrap();
    let case = async |n, loss, outage| {
        let (through, proxy, store) = proxied().await;
        proxy.cut(n, loss, outage);
        let answer = change(&through, &full).await;
        let was_cut = proxy.was_cut();
        if outage && was_cut {
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{loss:?} {n}: {answer:?}");
            change(&store, &full).await.unwrap();
        } else {
            assert_eq!(answer, Ok(()), "{loss:?} {n}");
        }
        for section in Section::ALL {
            assert_eq!(all(&store, section).await, all(&expected, section).await, "{loss:?} {n}");
            assert_eq!(store.count(section).await, expected.count(section).await, "{loss:?} {n}");
        }
        was_cut
    };
    at_every_command(&case, false).await;
    at_every_command(&case, true).await;
}

/// An event that is there is not written again, wherever it is.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_there_once() {
    let store = new_store().await;
    let session = start(&store, session("ada")).await;
    let first = store.events(events_of(session.id)).await.unwrap();
    let events: Vec<Event> = (1..900).map(|i| event_of(&session, EventKind::Refresh, at(i))).collect();
    let (some, others): (Vec<_>, Vec<_>) = events.iter().cloned().enumerate().partition(|(i, _)| i % 3 == 0);
    for part in [&some, &others, &some, &others] {
        store.put(Vec::new(), part.iter().map(|(_, event)| event.clone()).collect()).await.unwrap();
    }
    let expected: Vec<Event> = first.into_iter().chain(events).collect();
    assert_eq!(store.events_after(vec![(session.id, None)]).await.unwrap(), expected);
    for i in [0, 1, 2, 500, 899] {
        let after = vec![(session.id, Some(expected[i].id))];
        assert_eq!(store.events_after(after).await.unwrap(), expected[i + 1..]);
    }
    let records = all(&store, Section::Sessions).await;
    let Record::Session(stored) = &records[0] else { panic!("{records:?}") };
    assert_eq!(stored.events, Held { count: 900, last: expected.last().map(|event| event.id) });
}
