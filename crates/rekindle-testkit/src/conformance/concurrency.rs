use std::sync::Arc;

use futures_util::future::join_all;
use rekindle::clock::Seconds;
use rekindle::definition::OnMaxSessions;
use rekindle::journal::EventKind;
use rekindle::session::{EndReason, Ended, Session};
use rekindle::store::{Cas, End, Idempotency, Start, Started, Store};

use crate::fixtures::*;

/// Runs all at once, each as a task of its own.
async fn at_once<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    join_all(tasks).await.into_iter().map(|outcome| outcome.expect("no task panics")).collect()
}

/// The losers are given the winner's row.
pub async fn of_16_advances_one_wins(store: Arc<dyn Store>) {
    for _ in 0..20 {
        let session = start(&*store, session("ada")).await;
        let outcomes = at_once((0..16u8).map(|i| {
            let (store, mut advance) = (Arc::clone(&store), advance_of(&session, at(1)));
            advance.next.commitment = commitment(100 + i);
            async move { store.advance(advance).await.unwrap() }
        }))
        .await;
        let row = row(&*store, session.id).await;
        assert_eq!(row.position.generation, 1);
        let winners = outcomes.iter().filter(|cas| **cas == Cas::Applied(row.clone())).count();
        let losers = outcomes.iter().filter(|cas| **cas == Cas::Stale(Some(row.clone()))).count();
        assert_eq!((winners, losers), (1, 15));
        assert_eq!(store.events(events_of(session.id)).await.unwrap().len(), 2);
    }
}

/// The others are given the same session.
pub async fn of_16_starts_with_one_key_one_creates(store: Arc<dyn Store>) {
    let idempotency = Some(Idempotency { key: [1; 32], request: [1; 32], expires_at: at(60) });
    let outcomes = at_once((0..16).map(|_| {
        let (store, session) = (Arc::clone(&store), session("ada"));
        async move { (session.id, store.start(Start { idempotency, ..start_of(&session) }).await.unwrap()) }
    }))
    .await;
    let created: Vec<_> =
        outcomes.iter().filter(|(_, o)| matches!(o, Started::Created(_))).map(|(id, _)| *id).collect();
    assert_eq!(created.len(), 1);
    let repeated = Started::Repeated(Some(Box::new(row(&*store, created[0]).await)));
    assert_eq!(outcomes.iter().filter(|(_, o)| *o == repeated).count(), 15);
    assert_eq!(store.sessions(sessions_in(scope(), at(1))).await.unwrap().len(), 1);
}

/// Each is decided by itself, whatever a store carries out together: what stands against one stands in nobody else's way.
pub async fn of_many_starts_at_once_each_has_its_own_answer(store: Arc<dyn Store>) {
    let keyed = |key: u8, request: u8, start: Start| Start {
        idempotency: Some(Idempotency { key: [key; 32], request: [request; 32], expires_at: at(60) }),
        ..start
    };
    store.ban(ban_of("banned", at(1))).await.unwrap();
    let mut over = ban_of("forgiven", at(1));
    over.ban.until = Some(at(2));
    store.ban(over).await.unwrap();
    let known = session("known");
    store.start(keyed(1, 1, start_of(&known))).await.unwrap();
    let there = start(&*store, session("there")).await;

    for round in 0..3u8 {
        let new = |user: &str| start_of(&session_at(user, at(3)));
        let mut asked: Vec<Start> = (0..40).map(|i| new(&format!("user {}", i % 30))).collect();
        asked.extend(["", "", "forgiven", "banned"].map(new));
        asked.extend([keyed(1, 1, new("known")), keyed(1, 2, new("known")), start_of(&there)]);
        // Whichever comes first, the other is its repetition.
        asked.extend([keyed(2 + round, 1, new("twice")), keyed(2 + round, 1, new("twice"))]);
        let again = new("again");
        asked.extend([again.clone(), again]);
        asked[7].event.notify = true;
        let plain = 43;
        let outcomes = at_once(asked.iter().cloned().map(|start| {
            let store = Arc::clone(&store);
            async move { store.start(start).await.unwrap() }
        }))
        .await;

        assert!(outcomes[..plain].iter().all(|o| *o == Started::Created(Vec::new())), "{:?}", &outcomes[..plain]);
        assert!(matches!(outcomes[plain], Started::Banned(_)), "{:?}", outcomes[plain]);
        let repeated = |session| Started::Repeated(Some(Box::new(session)));
        assert_eq!(outcomes[plain + 1], repeated(row(&*store, known.id).await));
        assert_eq!(outcomes[plain + 2], Started::IdempotencyMismatch);
        assert_eq!(outcomes[plain + 3], repeated(there.clone()));
        for pair in [plain + 4, plain + 6] {
            let (one, other) = (&outcomes[pair], &outcomes[pair + 1]);
            let created = pair + usize::from(*one != Started::Created(Vec::new()));
            assert_eq!(outcomes[created], Started::Created(Vec::new()), "{one:?} {other:?}");
            assert_eq!(outcomes[2 * pair + 1 - created], repeated(asked[created].session.clone()));
        }
        for (start, outcome) in asked.iter().zip(&outcomes) {
            let id = start.session.id;
            let created = *outcome == Started::Created(Vec::new());
            let expected = (created || id == there.id || id == asked[plain + 6].session.id).then_some(&start.session);
            assert_eq!(store.session(id).await.unwrap().as_ref(), expected);
            assert_eq!(store.events(events_of(id)).await.unwrap().len(), usize::from(expected.is_some()));
        }
        let told = store.take_notifications(at(4), at(5), 10).await.unwrap();
        assert_eq!(told.iter().map(|n| n.event.id).collect::<Vec<_>>(), [asked[7].event.id]);
        store.settle_notification(asked[7].event.id, None).await.unwrap();
    }
}

/// Sessions that are there, have ended, or never were, in another scope, and asked of twice: each end does what it would alone.
pub async fn of_many_ends_at_once_each_has_its_own_answer(store: Arc<dyn Store>) {
    let over = start(&*store, session("over")).await;
    let over = applied(store.end(end_of(&over, at(1), EndReason::SignedOut)).await.unwrap());
    let stays = start(&*store, session("stays")).await;
    let mut told = 1;
    for round in 0..3 {
        let mut sessions = Vec::new();
        for i in 0..40 {
            sessions.push(start(&*store, session(&format!("user {i}"))).await);
        }
        // Their clocks differ, by servers.
        let end = |(i, s): (u64, &Session)| end_of(s, at(10 + round * 10 + i % 7), EndReason::Revoked);
        let mut asked: Vec<End> = (0..).zip(&sessions).map(end).collect();
        asked[3].ending.event.notify = true;
        asked[5].cause = Some(event_of(&sessions[5], EventKind::TheftDetected, at(10)));
        asked[6].audit = Some(audit("session.end", at(10)));
        let plain = asked.len();
        asked.push(end_of(&over, at(10), EndReason::Revoked));
        asked.push(End { id: session_id(), ..end_of(&over, at(10), EndReason::Revoked) });
        asked.push(End { scope: scope_of("default", "prod"), ..end_of(&stays, at(10), EndReason::Revoked) });
        asked.push(end_of(&sessions[7], at(10), EndReason::Theft));
        let outcomes = at_once(asked.iter().cloned().map(|end| {
            let store = Arc::clone(&store);
            async move { store.end(end).await.unwrap() }
        }))
        .await;

        let ended = |end: &End, session: &Session| {
            let ended = Some(Ended { at: end.ending.at, reason: end.ending.reason });
            Session { ended, ..session.clone() }
        };
        let twice = [&outcomes[7], &outcomes[plain + 3]];
        let first = twice.iter().position(|outcome| matches!(outcome, Cas::Applied(_))).expect("one of them was first");
        let winner = [&asked[7], &asked[plain + 3]][first];
        for (i, session) in sessions.iter().enumerate() {
            let expected = ended(if i == 7 { winner } else { &asked[i] }, session);
            if i != 7 {
                assert_eq!(outcomes[i], Cas::Applied(expected.clone()));
            }
            assert_eq!(row(&*store, session.id).await, expected);
            // Its start, its end, and the cause of that.
            let events = store.events(events_of(session.id)).await.unwrap();
            assert_eq!(events.len(), if i == 5 { 3 } else { 2 }, "{events:?}");
        }
        assert_eq!(*twice[first], Cas::Applied(ended(winner, &sessions[7])));
        assert_eq!(*twice[1 - first], Cas::Stale(Some(ended(winner, &sessions[7]))));
        assert_eq!(outcomes[plain], Cas::Stale(Some(over.clone())));
        assert_eq!(outcomes[plain + 1], Cas::Stale(None));
        assert_eq!(outcomes[plain + 2], Cas::Stale(Some(stays.clone())));
        assert_eq!(row(&*store, stays.id).await, stays);

        told += sessions.len();
        let feed = store.revocations(None, 0, at(10), 1000).await.unwrap();
        assert_eq!(feed.len(), told);
        assert!(feed.is_sorted_by(|a, b| a.seq < b.seq), "{feed:?}");
        assert!(feed.iter().all(|r| r.seq >= r.at.millis() as u64 * 1000), "{feed:?}");
        assert_eq!(store.audit_log(None, 10).await.unwrap().len() as u64, round + 1);
        let notified = store.take_notifications(at(9_000), at(9_001), 10).await.unwrap();
        assert_eq!(notified.iter().map(|n| n.event.id).collect::<Vec<_>>(), [asked[3].ending.event.id]);
        store.settle_notification(asked[3].ending.event.id, None).await.unwrap();
    }
}

/// However many ask at once.
pub async fn the_maximum_of_sessions_holds_under_contention(store: Arc<dyn Store>) {
    let outcomes = at_once((0..16).map(|_| {
        let (store, session) = (Arc::clone(&store), session("ada"));
        let start = Start { max_sessions: Some((3, OnMaxSessions::Reject)), ..start_of(&session) };
        async move { store.start(start).await.unwrap() }
    }))
    .await;
    assert_eq!(outcomes.iter().filter(|o| matches!(o, Started::Created(_))).count(), 3);
    assert_eq!(outcomes.iter().filter(|o| **o == Started::TooManySessions(3)).count(), 13);
}

/// Each start that slipped in before the ban is ended by it.
pub async fn no_session_outlives_a_racing_ban(store: Arc<dyn Store>) {
    let starts = at_once((0..32).map(|i| {
        let store = Arc::clone(&store);
        async move {
            if i == 16 {
                store.ban(ban_of("ada", at(1))).await.unwrap();
            } else {
                store.start(start_of(&session_at("ada", at(1)))).await.unwrap();
            }
        }
    }));
    starts.await;
    let mut active = sessions_in(scope(), at(1));
    active.active = Some(true);
    assert!(store.sessions(active).await.unwrap().is_empty());
}

/// Advances, updates and ends at once: once it is ended, nothing applies, and the rest agrees with what was answered.
pub async fn after_an_end_nothing_applies(store: Arc<dyn Store>) {
    for _ in 0..5 {
        let session = start(&*store, session("ada")).await;
        let outcomes = at_once((0..64u64).map(|i| {
            let (store, id) = (Arc::clone(&store), session.id);
            async move {
                let fresh = row(&*store, id).await;
                let cas = match i % 4 {
                    _ if i == 40 => store.end(end_of(&fresh, at(1), EndReason::SignedOut)).await,
                    0 | 1 => store.advance(advance_of(&fresh, at(1))).await,
                    2 => store.update(update_of(&fresh, "{}", at(1))).await,
                    _ => store.end(end_of(&fresh, at(1), EndReason::Revoked)).await,
                };
                (i, cas.unwrap())
            }
        }))
        .await;
        let last = row(&*store, session.id).await;
        assert!(last.ended.is_some());
        let applied = |kinds: &[u64]| {
            let of_kind = |i: &u64| kinds.contains(&if *i == 40 { 3 } else { i % 4 });
            outcomes.iter().filter(|(i, cas)| of_kind(i) && matches!(cas, Cas::Applied(_))).count()
        };
        assert_eq!(applied(&[3]), 1, "one end");
        assert_eq!(applied(&[0, 1]), last.position.generation as usize);
        assert_eq!(applied(&[2]) as u64, last.version - 1);
        let still = advance_of(&last, at(1) + Seconds(1));
        assert_eq!(stale(store.advance(still).await.unwrap()), Some(last));
    }
}

/// Entries become visible in the order of their numbers: a reader that goes on from the last one that it saw misses none.
pub async fn a_reader_of_the_feed_misses_nothing(store: Arc<dyn Store>) {
    const WRITERS: usize = 8;
    const ENDS: usize = 12;
    let writers: Vec<_> = (0..WRITERS)
        .map(|i| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for _ in 0..ENDS {
                    let session = start(&*store, session(&format!("user-{i}"))).await;
                    // A store may give up when too many are in each other's way; then it is asked again.
                    while store.end(end_of(&session, at(1), EndReason::SignedOut)).await.is_err() {}
                    assert!(row(&*store, session.id).await.ended.is_some());
                }
            })
        })
        .collect();
    let (mut after, mut seen) = (0, 0);
    loop {
        let all_written = writers.iter().all(|w| w.is_finished());
        let page = store.revocations(None, after, at(2), 5).await.unwrap();
        seen += page.len();
        after = page.last().map_or(after, |r| r.seq);
        if page.is_empty() && all_written {
            break;
        }
    }
    assert_eq!(seen, WRITERS * ENDS);
}

/// A caller that went away does not take its write along.
pub async fn a_dropped_future_leaves_nothing_half_done(store: Arc<dyn Store>) {
    for round in 0..20u32 {
        let session = start(&*store, session("ada")).await;
        let task = {
            let (store, advance) = (Arc::clone(&store), advance_of(&session, at(1)));
            tokio::spawn(async move { store.advance(advance).await })
        };
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        task.abort();
        let _ = task.await;
        // It may still be under way: what is seen while the row stands still must fit together.
        let (row, events) = loop {
            let before = row(&*store, session.id).await;
            let events = store.events(events_of(session.id)).await.unwrap();
            if row(&*store, session.id).await == before {
                break (before, events);
            }
        };
        assert_eq!(events.len() as u32, 1 + row.position.generation);
    }
}
