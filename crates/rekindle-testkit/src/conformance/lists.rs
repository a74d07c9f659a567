use std::sync::Arc;

use rekindle::journal::{Event, EventId, EventKind, Outcome};
use rekindle::session::{EndReason, Session};
use rekindle::store::{EventQuery, SessionQuery, Store};

use crate::fixtures::*;

/// Newest id first, page by page, each session once.
pub async fn sessions_are_listed_newest_first_in_pages(store: Arc<dyn Store>) {
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(start(&*store, session("ada")).await.id);
    }
    ids.reverse();
    for by_user in [None, Some(user("ada"))] {
        let mut query = SessionQuery { limit: 3, user_id: by_user, ..sessions_in(scope(), at(1)) };
        let mut seen = Vec::new();
        loop {
            let page = store.sessions(query.clone()).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 3);
            query.before = Some(last.id);
            seen.extend(page.iter().map(|s| s.id));
        }
        assert_eq!(seen, ids);
    }
}

/// Each filter alone and together.
pub async fn sessions_are_listed_by_every_filter(store: Arc<dyn Store>) {
    let old = start(&*store, session_at("ada", at(0))).await;
    let new = start(&*store, session_at("ada", at(10))).await;
    let bob = start(&*store, Session { tag: tag("admin"), ..session_at("bob", at(10)) }).await;
    let ended = start(&*store, session_at("bob", at(20))).await;
    applied(store.end(end_of(&ended, at(21), EndReason::Revoked)).await.unwrap());
    let idle = start(&*store, Session { idle_expires_at: at(25), ..session_at("bob", at(20)) }).await;
    let elsewhere = start(&*store, Session { scope: scope_of("shop", "dev"), ..session("ada") }).await;
    let all = sessions_in(scope(), at(25));
    let cases = [
        (all.clone(), vec![idle.id, ended.id, bob.id, new.id, old.id]),
        (SessionQuery { user_id: Some(user("ada")), ..all.clone() }, vec![new.id, old.id]),
        (SessionQuery { tag: Some(tag("admin")), ..all.clone() }, vec![bob.id]),
        (SessionQuery { active: Some(true), ..all.clone() }, vec![bob.id, new.id, old.id]),
        (SessionQuery { active: Some(false), ..all.clone() }, vec![idle.id, ended.id]),
        (SessionQuery { started_after: Some(at(10)), ..all.clone() }, vec![idle.id, ended.id]),
        (SessionQuery { started_before: Some(at(10)), ..all.clone() }, vec![old.id]),
        (SessionQuery { before: Some(new.id), ..all.clone() }, vec![old.id]),
        (SessionQuery { limit: 1, user_id: Some(user("bob")), active: Some(true), ..all.clone() }, vec![bob.id]),
        (sessions_in(scope_of("shop", "dev"), at(25)), vec![elsewhere.id]),
        (sessions_in(scope_of("no", "where"), at(25)), vec![]),
    ];
    for (query, expected) in cases {
        let found: Vec<_> = store.sessions(query.clone()).await.unwrap().iter().map(|s| s.id).collect();
        assert_eq!(found, expected, "{query:?}");
    }
}

/// Whole events, newest first, by each filter.
pub async fn events_are_listed_by_every_filter(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let other = start(&*store, crate::fixtures::session("ada")).await;
    let mut events = Vec::new();
    for (i, outcome) in Outcome::ALL.into_iter().enumerate() {
        let event = event_of(&session, EventKind::Refresh, at(10 + i as u64));
        events.push(Event { outcome: Some(outcome), request_id: Some("r\u{0}\u{1F980}".into()), ..event });
    }
    store.record(events.clone()).await.unwrap();
    events.reverse();
    let all = events_of(session.id);
    let listed = store.events(EventQuery { kind: Some(EventKind::Refresh), ..all.clone() }).await.unwrap();
    assert_eq!(listed, events);
    let reissued = EventQuery { outcome: Some(Outcome::Reissued), ..all.clone() };
    assert_eq!(store.events(reissued).await.unwrap(), events[3..4]);
    let span = EventQuery { from: Some(at(11)), to: Some(at(13)), ..all.clone() };
    assert_eq!(store.events(span).await.unwrap(), events[2..4]);
    let page = EventQuery { before: Some(events[1].id), limit: 2, ..all.clone() };
    assert_eq!(store.events(page).await.unwrap(), events[2..4]);
    assert_eq!(store.events(all).await.unwrap().len(), 6);
    assert_eq!(store.events(events_of(other.id)).await.unwrap().len(), 1);
    assert!(store.events(events_of(session_id())).await.unwrap().is_empty());
}

/// What is recorded of a session that is not there leaves nothing.
pub async fn events_of_unknown_sessions_are_dropped(store: Arc<dyn Store>) {
    let unknown = session("ada");
    let notify = Event { notify: true, ..event_of(&unknown, EventKind::Refresh, at(1)) };
    store.record(vec![notify, event(EventKind::Refresh, at(1))]).await.unwrap();
    store.record(Vec::new()).await.unwrap();
    assert!(store.events(events_of(unknown.id)).await.unwrap().is_empty());
    assert!(store.take_notifications(at(9), at(10), 10).await.unwrap().is_empty());
}

/// An event that is written again, because an answer was lost, is there once.
pub async fn a_repeated_event_is_kept_once(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let event = Event { notify: true, ..event_of(&session, EventKind::Refresh, at(1)) };
    store.record(vec![event.clone(), event.clone()]).await.unwrap();
    store.record(vec![event.clone()]).await.unwrap();
    assert_eq!(store.events(events_of(session.id)).await.unwrap().len(), 2);
    assert_eq!(store.take_notifications(at(9), at(10), 10).await.unwrap().len(), 1);
}

/// Newest first, in pages.
pub async fn the_audit_log_goes_back_in_time(store: Arc<dyn Store>) {
    let mut entries = Vec::new();
    for i in 0..5 {
        let mut entry = audit("user.unban", at(i));
        entry.ip = Some("192.0.2.9".into());
        entry.target = "default/users/O'Brien \u{0} %".into();
        store.append_audit(entry.clone()).await.unwrap();
        entries.insert(0, entry);
    }
    assert_eq!(store.audit_log(None, 10).await.unwrap(), entries);
    assert_eq!(store.audit_log(None, 2).await.unwrap(), entries[..2]);
    assert_eq!(store.audit_log(Some(entries[1].id), 2).await.unwrap(), entries[2..4]);
    assert!(store.audit_log(Some(EventId::from_bytes([0; 16])), 2).await.unwrap().is_empty());
}
