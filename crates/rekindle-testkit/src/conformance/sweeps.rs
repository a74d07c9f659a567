use std::sync::Arc;

use rekindle::journal::EventKind;
use rekindle::session::{EndReason, Ended, Session};
use rekindle::store::{Store, Sweep};

use crate::fixtures::*;

/// With their own time and reason, an event each, and no entry in the feed.
pub async fn a_sweep_notes_natural_ends_once(store: Arc<dyn Store>) {
    let idle = start(&*store, session("ada")).await;
    let absolute = start(&*store, Session { idle_expires_at: at(990), expires_at: at(990), ..session("ada") }).await;
    let alive = start(&*store, Session { idle_expires_at: at(1_001), ..session("ada") }).await;
    let swept = store.sweep(sweep_at(at(1_000))).await.unwrap();
    assert_eq!((swept.ended, swept.removed, swept.next), (2, 0, None));
    let ends = [(&idle, at(1_000), EndReason::Idle), (&absolute, at(990), EndReason::Absolute)];
    for (session, at, reason) in ends {
        assert_eq!(row(&*store, session.id).await.ended, Some(Ended { at, reason }));
        let last = store.events(events_of(session.id)).await.unwrap().remove(0);
        assert_eq!((last.kind, last.at, last.reason), (EventKind::End, at, Some(reason)));
    }
    assert_eq!(row(&*store, alive.id).await, alive);
    let again = store.sweep(sweep_at(at(1_000))).await.unwrap();
    assert_eq!((again.ended, again.removed), (0, 0));
    assert!(store.revocations(None, 0, at(1_000), 10).await.unwrap().is_empty());
}

/// Only the products that asked.
pub async fn a_sweep_tells_webhooks_of_their_products(store: Arc<dyn Store>) {
    let here = start(&*store, session("ada")).await;
    start(&*store, Session { scope: scope_of("shop", "dev"), ..session("ada") }).await;
    let sweep = Sweep { notify: vec![tag("default")], ..sweep_at(at(1_000)) };
    assert_eq!(store.sweep(sweep).await.unwrap().ended, 2);
    let taken = store.take_notifications(at(1_001), at(1_002), 10).await.unwrap();
    let told: Vec<_> = taken.iter().map(|n| (n.event.session_id, n.event.user_id.clone())).collect();
    assert_eq!(told, [(Some(here.id), Some(user("ada")))]);
}

/// A natural end, or the expiry of a revoked session, past by the retention.
pub async fn a_sweep_removes_after_the_retention(store: Arc<dyn Store>) {
    let idle = start(&*store, session("ada")).await;
    let revoked = start(&*store, session("ada")).await;
    applied(store.end(end_of(&revoked, at(1), EndReason::Revoked)).await.unwrap());
    let swept = store.sweep(sweep_at(at(1_099))).await.unwrap();
    assert_eq!((swept.ended, swept.removed), (1, 0));
    let swept = store.sweep(sweep_at(at(1_100))).await.unwrap();
    assert_eq!((swept.ended, swept.removed), (0, 1));
    assert_eq!(store.session(idle.id).await, Ok(None));
    assert!(store.events(events_of(idle.id)).await.unwrap().is_empty());
    // A tombstone stays until the session could not live any more.
    assert_eq!(store.sweep(sweep_at(at(10_099))).await.unwrap().removed, 0);
    assert_eq!(store.sweep(sweep_at(at(10_100))).await.unwrap().removed, 1);
    assert_eq!(store.session(revoked.id).await, Ok(None));
    assert_eq!(store.user(&scope(), &user("ada"), at(0)).await, Ok(None));
}

/// Slice by slice, with a cursor, whatever there is to do in them.
pub async fn a_sweep_keeps_to_its_budget(store: Arc<dyn Store>) {
    for i in 0..7 {
        let idle_expires_at = if i % 2 == 0 { at(10) } else { at(1_000) };
        start(&*store, Session { idle_expires_at, ..session("ada") }).await;
    }
    let mut sweep = Sweep { budget: 3, ..sweep_at(at(50)) };
    let mut ended = Vec::new();
    loop {
        let swept = store.sweep(sweep.clone()).await.unwrap();
        ended.push(swept.ended);
        sweep.after = swept.next;
        sweep.ending = ending(at(50), EndReason::Idle);
        if swept.next.is_none() {
            break;
        }
    }
    assert_eq!(ended, [2, 1, 1]);
}

/// Bans that are over make room; those in force stay.
pub async fn a_sweep_removes_bans_that_are_over(store: Arc<dyn Store>) {
    let mut over = ban_of("ada", at(1));
    over.ban.until = Some(at(10));
    store.ban(over).await.unwrap();
    store.ban(ban_of("bob", at(1))).await.unwrap();
    store.sweep(sweep_at(at(10))).await.unwrap();
    // As of a moment in which the ban had been in force: it is no longer there.
    assert_eq!(store.user(&scope(), &user("ada"), at(5)).await, Ok(None));
    assert!(store.user(&scope(), &user("bob"), at(10)).await.unwrap().is_some());
}
