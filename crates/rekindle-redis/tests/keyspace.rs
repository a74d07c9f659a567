//! What is in the keys: order over many of them, late events, damage, and that nothing is left behind.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use rekindle::journal::{Event, EventKind};
use rekindle::memory::MemoryStore;
use rekindle::session::{EndReason, Session};
use rekindle::store::*;
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_testkit::fixtures::*;
use rekindle_testkit::servers::redis::Redis;

async fn open() -> (RedisStore, String) {
    let url = Redis::shared().new_url();
    let prefix = url.split_once("prefix=").unwrap().1.to_owned();
    (RedisStore::open(RedisConfig::parse(&url).unwrap()).await.unwrap(), prefix)
}

fn cli(arguments: &[&str]) -> String {
    Redis::shared().cli(arguments)
}

fn keys(prefix: &str) -> BTreeSet<String> {
    cli(&["--scan", "--pattern", &format!("{prefix}:*")]).lines().map(str::to_owned).collect()
}

/// Thousands of sessions of several scopes, spread over many keys, are one list.
#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_are_one_list() {
    let (store, _) = open().await;
    let mut sessions: Vec<Session> = (0..3_000)
        .map(|i| {
            let env = if i % 3 == 0 { "dev" } else { "prod" };
            Session { scope: scope_of("default", env), ..session(&format!("user-{}", i % 700)) }
        })
        .collect();
    for some in sessions.chunks(200) {
        join_all(some.iter().map(|session| start(&store, session.clone()))).await;
    }
    sessions.sort_by_key(|session| session.id);
    let dev: Vec<_> = sessions.iter().filter(|s| s.scope == scope()).map(|s| s.id).collect();

    let mut query = SessionQuery { limit: 130, ..sessions_in(scope(), at(1)) };
    let mut listed = Vec::new();
    loop {
        let page = store.sessions(query.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        query.before = Some(last.id);
        listed.extend(page.iter().map(|s| s.id));
    }
    listed.reverse();
    assert!(listed == dev);

    let mut users = UserQuery { scope: scope_of("default", "prod"), after: None, limit: 90, now: at(1) };
    let mut names = Vec::new();
    loop {
        let page = store.users(users.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        users.after = Some(last.user_id.clone());
        names.extend(page.into_iter().map(|u| u.user_id));
    }
    assert!(names.len() == 700 && names.is_sorted());

    let mut end = EndMany { limit: 300, ..end_all(at(1)) };
    let mut ended = Vec::new();
    loop {
        let batch = store.end_many(end.clone()).await.unwrap();
        ended.extend(batch.ended.iter().map(|e| e.id));
        end.after = batch.next;
        end.ending = ending(at(1), EndReason::Revoked);
        if end.after.is_none() {
            break;
        }
    }
    assert!(ended == dev);
    let feed = store.revocations(None, 0, at(1), 10_000).await.unwrap();
    assert!(feed.iter().map(|r| r.session_id).eq(dev));

    let mut sweep = Sweep { budget: 700, ..sweep_at(at(30_000)) };
    let (mut removed, mut slices) = (0, 0);
    loop {
        let swept = store.sweep(sweep.clone()).await.unwrap();
        (removed, slices, sweep.after) = (removed + swept.removed, slices + 1, swept.next);
        sweep.ending = ending(at(30_000), EndReason::Idle);
        if swept.next.is_none() {
            break;
        }
    }
    assert_eq!((removed, slices), (3_000, 5));
}

/// An event with an id before the last one is found in its place.
#[tokio::test(flavor = "multi_thread")]
async fn late_events_are_in_their_place() {
    let (store, prefix) = open().await;
    let session = start(&store, session("ada")).await;
    let mut events: Vec<Event> = (0..300).map(|i| event_of(&session, EventKind::Refresh, at(i))).collect();
    let (first, second): (Vec<_>, Vec<_>) = events.iter().cloned().enumerate().partition(|(i, _)| i % 3 == 0);
    for half in [first, second] {
        store.record(half.into_iter().map(|(_, event)| event).collect()).await.unwrap();
    }
    // Again, as after a lost answer.
    store.record(events[..50].to_vec()).await.unwrap();
    let late = format!("{prefix}:{{s:{}}}:late", session.id);
    assert!(cli(&["ZCARD", &late]).parse::<u32>().unwrap() > 100);
    events.reverse();
    let mut query = EventQuery { kind: Some(EventKind::Refresh), limit: 70, ..events_of(session.id) };
    let mut listed = Vec::new();
    loop {
        let page = store.events(query.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        query.before = Some(last.id);
        listed.extend(page);
    }
    assert!(listed == events);
}

/// What no version of Rekindle writes is named, and never guessed.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_reported() {
    let (store, prefix) = open().await;
    let session = start(&store, session("ada")).await;
    let key = format!("{prefix}:{{s:{}}}:row", session.id);
    let damage = [
        ("of", "nowhere"),
        ("position", "1"),
        ("issued", "1 256"),
        ("confirmed", "2"),
        ("least", "-1"),
        ("idle", "soon"),
        ("expires", ""),
        ("ended", "5 bored"),
        ("auth", "{}"),
        ("version", "x"),
        ("data", "[]"),
        ("claims", "{"),
        ("start", "{}"),
    ];
    for (column, value) in damage {
        let before = cli(&["HGET", &key, column]);
        cli(&["HSET", &key, column, value]);
        let expected = Err(StoreError::Corrupt { table: "sessions", column, id: session.id.to_string() });
        assert_eq!(store.session(session.id).await.map(drop), expected, "{column}");
        match column {
            "ended" => cli(&["HDEL", &key, column]),
            _ => cli(&["HSET", &key, column, &before]),
        };
    }
    assert_eq!(row(&store, session.id).await, session);
    cli(&["HDEL", &key, "expires"]);
    assert!(matches!(store.session(session.id).await, Err(StoreError::Corrupt { column: "expires", .. })));
}

/// Once sessions, users, feed and outbox are empty, so is the keyspace but for what remembers removed sessions for an hour.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_behind() {
    let (store, prefix) = open().await;
    let new = keys(&prefix);
    for i in 0..20 {
        let session = start(&store, session(&format!("user-{}", i % 5))).await;
        let session = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
        if i % 2 == 0 {
            let mut end = end_of(&session, at(2), EndReason::Revoked);
            end.ending.event.notify = true;
            applied(store.end(end).await.unwrap());
        }
    }
    let mut ban = ban_of("user-1", at(3));
    ban.ban.until = Some(at(100));
    store.ban(ban).await.unwrap();
    store.erase_user(erase_of("user-2", at(4))).await.unwrap();
    for notification in store.take_notifications(at(10), at(11), 100).await.unwrap() {
        store.settle_notification(notification.event.id, None).await.unwrap();
    }
    store.sweep(sweep_at(at(30_000))).await.unwrap();
    let left: BTreeSet<String> = keys(&prefix).difference(&new).cloned().collect();
    let (gone, left): (BTreeSet<_>, BTreeSet<_>) = left.into_iter().partition(|key| key.contains("{s:"));
    assert_eq!(gone.len(), 20);
    for key in gone {
        assert_eq!(cli(&["HKEYS", &key]), "gone");
        let seconds: i64 = cli(&["TTL", &key]).parse().unwrap();
        assert!((1..=3_600).contains(&seconds), "{key}: {seconds}");
    }
    let kept = ["{config}:audit", "{config}:scopes", "{feed}:last"];
    let other: Vec<&String> = left.iter().filter(|key| !key.ends_with(":added")).collect();
    let expected: Vec<String> = kept.iter().map(|key| format!("{prefix}:{key}")).collect();
    // A stream stays when its last entry goes: it knows the last id.
    let feed = format!("{prefix}:{{feed}}:entries");
    assert_eq!(cli(&["XLEN", &feed]), "0");
    assert!(other.iter().all(|key| expected.contains(key) || **key == feed), "{other:?}");
}

/// More than an application may send: a mebibyte, in the row and in the note of its start.
#[tokio::test(flavor = "multi_thread")]
async fn large_data_is_kept() {
    let (store, _) = open().await;
    let text = format!(r#"{{"text":"{}"}}"#, "\u{1F980}".repeat(1 << 18));
    let session = start(&store, Session { data: object(&text), ..session("ada") }).await;
    let advanced = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    assert_eq!(advanced.data.as_str(), text);
    let updated = applied(store.update(update_of(&advanced, "{}", at(2))).await.unwrap());
    assert_eq!(row(&store, session.id).await, updated);
}

/// Records that are removed leave nothing, whether servers made them or a copy did; not even what remembers removed sessions.
#[tokio::test(flavor = "multi_thread")]
async fn removed_records_leave_nothing_behind() {
    let (store, prefix) = open().await;
    let new = keys(&prefix);
    let elsewhere = MemoryStore::new();
    for i in 0..20u8 {
        let of: &dyn Store = if i % 2 == 0 { &store } else { &elsewhere };
        let session = session(&format!("user-{}", i % 5));
        let idempotency = Idempotency { key: [i; 32], request: [1; 32], expires_at: at(1_000) };
        of.start(Start { idempotency: Some(idempotency), ..start_of(&session) }).await.unwrap();
        let mut events = [2, 1].map(|secs| event_of(&session, EventKind::Refresh, at(secs)));
        events[0].notify = true;
        let [second, first] = events;
        of.record(vec![second]).await.unwrap();
        of.record(vec![first]).await.unwrap();
        if i % 4 < 2 {
            applied(of.end(end_of(&session, at(3), EndReason::Revoked)).await.unwrap());
        }
        of.ban(ban_of(&format!("banned-{i}"), at(3))).await.unwrap();
    }
    let gone = start(&store, session("erased")).await;
    start(&elsewhere, gone.clone()).await;
    store.erase_user(erase_of("erased", at(4))).await.unwrap();
    assert_eq!(store.session(gone.id).await.unwrap(), None);
    for section in Section::ALL {
        store.put(elsewhere.records(section, None, 1_000).await.unwrap(), Vec::new()).await.unwrap();
    }
    assert_eq!(row(&store, gone.id).await, gone);

    for section in Section::ALL {
        let records = store.records(section, None, 1_000).await.unwrap();
        assert!(!records.is_empty(), "{section:?}");
        store.remove(records.iter().map(Record::key).collect()).await.unwrap();
        assert_eq!(store.count(section).await.unwrap(), 0);
    }
    let feed = format!("{prefix}:{{feed}}:entries");
    assert_eq!(cli(&["XLEN", &feed]), "0");
    let kept = [feed, format!("{prefix}:{{feed}}:last"), format!("{prefix}:{{config}}:scopes")];
    let left: Vec<String> = keys(&prefix).difference(&new).cloned().collect();
    let left: Vec<&String> = left.iter().filter(|key| !key.ends_with(":added") && !kept.contains(*key)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Whoever reads a scope's users or sessions to copy them sees all of every scope, in the order of bytes.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_many_scopes_are_one_list() {
    let (store, _) = open().await;
    let scopes = [("a", "x"), ("a-b", "x"), ("a", "x-y"), ("a", "a")].map(|(product, env)| scope_of(product, env));
    let all: Vec<Session> =
        (0..1_200).map(|i| Session { scope: scopes[i % 4].clone(), ..session(&format!("user-{}", i % 900)) }).collect();
    for some in all.chunks(200) {
        join_all(some.iter().map(|session| start(&store, session.clone()))).await;
    }
    let banned = all.iter().step_by(7).map(|session| {
        let mut ban = ban_of(session.user_id.as_str(), at(1));
        ban.end.scope = session.scope.clone();
        ban.ban.until = (session.user_id.as_str().len() % 2 == 0).then(|| at(100));
        store.ban(ban)
    });
    join_all(banned).await;
    let mut sessions: Vec<Vec<u8>> = all.iter().map(|session| RecordKey::Session(session.id).to_bytes()).collect();
    let banned = all.iter().step_by(7).map(|s| RecordKey::Ban(s.scope.clone(), s.user_id.clone()).to_bytes());
    let mut banned: Vec<Vec<u8>> = banned.collect();
    for (section, expected) in [(Section::Sessions, &mut sessions), (Section::Bans, &mut banned)] {
        expected.sort();
        expected.dedup();
        assert_eq!(store.count(section).await.unwrap(), expected.len() as u64);
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store.records(section, after.take(), 70).await.unwrap();
            found.extend(page.iter().map(|record| record.key().to_bytes()));
            after = page.last().map(Record::key);
            if page.len() < 70 {
                break;
            }
        }
        assert!(found == *expected, "{section:?}");
    }
}
