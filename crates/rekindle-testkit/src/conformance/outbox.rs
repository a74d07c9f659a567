use std::sync::Arc;

use rekindle::journal::{Event, EventKind};
use rekindle::session::Session;
use rekindle::store::Store;

use crate::fixtures::*;

async fn notify(store: &dyn Store, session: &Session, secs: u64) -> Event {
    let event = event_of(session, EventKind::Refresh, at(secs));
    store.record(vec![Event { notify: true, ..event.clone() }]).await.unwrap();
    event
}

async fn take(store: &dyn Store, now: u64, lease: u64, limit: u32) -> Vec<(Event, u32)> {
    let taken = store.take_notifications(at(now), at(lease), limit).await.unwrap();
    taken.into_iter().map(|n| (n.event, n.attempts)).collect()
}

/// In order, and the next only once the one before is settled.
pub async fn notifications_of_a_session_are_taken_in_order(store: Arc<dyn Store>) {
    let ada = start(&*store, session("ada")).await;
    let bob = start(&*store, session("bob")).await;
    let first = notify(&*store, &ada, 1).await;
    let second = notify(&*store, &ada, 2).await;
    let bobs = notify(&*store, &bob, 3).await;
    assert_eq!(take(&*store, 10, 20, 10).await, [(first.clone(), 1), (bobs.clone(), 1)]);
    assert!(take(&*store, 19, 30, 10).await.is_empty());
    store.settle_notification(first.id, None).await.unwrap();
    assert_eq!(take(&*store, 19, 30, 10).await, [(second, 1)]);
}

/// Until the lease is over; then it is taken again, and counted.
pub async fn a_lease_hides_a_notification(store: Arc<dyn Store>) {
    let ada = start(&*store, session("ada")).await;
    let event = notify(&*store, &ada, 5).await;
    assert!(take(&*store, 4, 20, 10).await.is_empty(), "not due before it happened");
    assert_eq!(take(&*store, 5, 20, 10).await, [(event.clone(), 1)]);
    assert!(take(&*store, 19, 30, 10).await.is_empty());
    assert_eq!(take(&*store, 20, 30, 10).await, [(event.clone(), 2)]);
    store.settle_notification(event.id, Some(at(100))).await.unwrap();
    assert!(take(&*store, 99, 200, 10).await.is_empty());
    assert_eq!(take(&*store, 100, 200, 10).await, [(event.clone(), 3)]);
    store.settle_notification(event.id, None).await.unwrap();
    store.settle_notification(event.id, None).await.unwrap();
    store.settle_notification(event.id, Some(at(1))).await.unwrap();
    assert!(take(&*store, 1_000, 2_000, 10).await.is_empty());
}

/// No more than asked for, the oldest first.
pub async fn notifications_are_taken_in_batches(store: Arc<dyn Store>) {
    let mut events = Vec::new();
    for _ in 0..5 {
        let ada = start(&*store, session("ada")).await;
        events.push((notify(&*store, &ada, 1).await, 1));
    }
    assert_eq!(take(&*store, 10, 20, 3).await, events[..3]);
    assert_eq!(take(&*store, 10, 20, 3).await, events[3..]);
}

/// An event without the wish stays in the journal alone.
pub async fn only_events_that_wish_it_are_notified(store: Arc<dyn Store>) {
    let ada = start(&*store, session("ada")).await;
    let mut advance = advance_of(&ada, at(1));
    applied(store.advance(advance.clone()).await.unwrap());
    assert!(take(&*store, 10, 20, 10).await.is_empty());
    advance = advance_of(&row(&*store, ada.id).await, at(2));
    advance.event.notify = true;
    applied(store.advance(advance.clone()).await.unwrap());
    let taken = store.take_notifications(at(10), at(20), 10).await.unwrap();
    assert_eq!((taken.len(), &taken[0].scope, taken[0].event.id), (1, &ada.scope, advance.event.id));
}
