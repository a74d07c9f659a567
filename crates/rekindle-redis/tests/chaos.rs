//! Two servers whose connections break at random, while sessions start, move and end. Afterwards everything agrees.

#[path = "common/proxy.rs"]
mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use proxy::{Loss, Proxy};
use rekindle::definition::OnMaxSessions;
use rekindle::session::{EndReason, Session, SessionId};
use rekindle::store::*;
use rekindle_redis::{RedisConfig, RedisStore};
use rekindle_testkit::fixtures::*;
use rekindle_testkit::servers::redis::Redis;

const USERS: usize = 4;
const MAX: u32 = 3;
const TASKS: usize = 8;
const STEPS: usize = 60;

/// What was answered.
#[derive(Default)]
struct Answered {
    started: BTreeSet<SessionId>,
    ended: BTreeSet<SessionId>,
    /// Everything that was ever asked for.
    asked: BTreeSet<SessionId>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_was_answered_is_lost() {
    let server = Redis::shared();
    let url = server.new_url();
    let open = async |url: &str| Arc::new(RedisStore::open(RedisConfig::parse(url).unwrap()).await.unwrap());
    let (mut proxies, mut stores) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let proxy = Proxy::start(server.port()).await;
        let through = url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port));
        stores.push(open(&through).await);
        proxies.push(Arc::new(proxy));
    }
    let answered = Arc::new(Mutex::new(Answered::default()));
    let tasks = (0..TASKS).map(|task| {
        let (store, proxy) = (Arc::clone(&stores[task % 2]), Arc::clone(&proxies[task % 2]));
        tokio::spawn(steps(task, store, proxy, Arc::clone(&answered)))
    });
    join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
    let answered = std::mem::take(&mut *answered.lock().unwrap());
    agree(&*open(&url).await, &answered).await;
    let prefix = url.split_once("prefix=").unwrap().1;
    let left = server.cli(&["--scan", "--pattern", &format!("{prefix}:*:starts")]);
    assert_eq!(left, "", "no start is left");
}

async fn steps(task: usize, store: Arc<RedisStore>, proxy: Arc<Proxy>, answered: Arc<Mutex<Answered>>) {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[task as u8; 32]);
    let mut mine: Vec<Session> = Vec::new();
    for _ in 0..STEPS {
        if rng.random_bool(0.15) {
            let loss = if rng.random_bool(0.5) { Loss::Answer } else { Loss::Command };
            proxy.cut(rng.random_range(0..40), loss, false);
        }
        let user = format!("user-{}", rng.random_range(0..USERS));
        match rng.random_range(0..10) {
            0..4 => {
                let session = session_at(&user, at(1));
                let max_sessions = Some((MAX, OnMaxSessions::EndOldest));
                let mut start = Start { max_sessions, ..start_of(&session) };
                start.event.notify = true;
                answered.lock().unwrap().asked.insert(session.id);
                if let Ok(Started::Created(ended)) = store.start(start).await {
                    let mut answered = answered.lock().unwrap();
                    answered.started.insert(session.id);
                    answered.ended.extend(ended.iter().map(|e| e.id));
                    mine.push(session);
                }
            }
            4..7 => {
                let Some(session) = mine.last_mut() else { continue };
                if let Ok(Cas::Applied(row)) = store.advance(advance_of(session, at(2))).await {
                    *session = row;
                }
            }
            7..9 => {
                let Some(session) = mine.pop() else { continue };
                if let Ok(Cas::Applied(row)) = store.end(end_of(&session, at(3), EndReason::SignedOut)).await {
                    answered.lock().unwrap().ended.insert(row.id);
                }
            }
            _ => {
                if let Ok(batch) = store.end_many(EndMany { limit: 2, ..end_all_of(&user, at(3)) }).await {
                    answered.lock().unwrap().ended.extend(batch.ended.iter().map(|e| e.id));
                }
            }
        }
    }
}

/// Rows, lists, users, feed and outbox tell the same, and all that was answered.
async fn agree(store: &RedisStore, answered: &Answered) {
    store.sweep(sweep_at(at(4))).await.unwrap();
    let users = store.users(UserQuery { scope: scope(), after: None, limit: 100, now: at(4) }).await.unwrap();
    let listed = store.sessions(sessions_in(scope(), at(4))).await.unwrap();
    let mut rows = BTreeMap::new();
    for id in &answered.asked {
        rows.extend(store.session(*id).await.unwrap().map(|row| (*id, row)));
    }
    assert_eq!(listed.iter().map(|s| s.id).collect::<BTreeSet<_>>(), rows.keys().copied().collect());
    assert!(answered.started.iter().all(|id| rows.contains_key(id)), "a start was answered and is not there");
    assert!(answered.started.len() > 20, "{} starts are too few to tell", answered.started.len());
    for user in &users {
        let of_user = |s: &&Session| s.user_id == user.user_id;
        let active = rows.values().filter(of_user).filter(|s| s.end(at(4)).is_none()).count() as u64;
        assert_eq!((user.sessions, user.active_sessions), (rows.values().filter(of_user).count() as u64, active));
        assert!(active <= MAX.into(), "{user:?}");
    }
    assert!(answered.ended.iter().all(|id| rows[id].ended.is_some()), "an end was answered and did not happen");
    let feed = store.revocations(None, 0, at(4), 10_000).await.unwrap();
    let mut told: Vec<SessionId> = feed.iter().map(|r| r.session_id).collect();
    assert!(feed.is_sorted_by_key(|r| r.seq));
    told.sort_unstable();
    let ended: Vec<SessionId> = rows.values().filter(|s| s.ended.is_some()).map(|s| s.id).collect();
    assert_eq!(told, ended, "each end is told once");
    let notified = store.take_notifications(at(100), at(200), 10_000).await.unwrap();
    assert_eq!(notified.len(), rows.len(), "each start is told once");
    for row in rows.values() {
        let events = store.events(events_of(row.id)).await.unwrap();
        let expected = 1 + row.position.generation as usize + usize::from(row.ended.is_some());
        assert_eq!(events.len(), expected, "{events:#?}");
    }
}
