use std::sync::Arc;

use rekindle::journal::EventKind;
use rekindle::session::{EndReason, Ended, Session};
use rekindle::store::{End, EndMany, EndedSession, Revoked, Store};

use crate::fixtures::*;

/// Row, feed, cause, event and audit in one step.
pub async fn an_end_leaves_all_its_traces(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let cause = Some(event_of(&session, EventKind::TheftDetected, at(5)));
    let audit = audit("session.end", at(5));
    let end = End { cause, audit: Some(audit.clone()), ..end_of(&session, at(5), EndReason::Theft) };
    let ended = applied(store.end(end).await.unwrap());
    assert_eq!(ended, Session { ended: Some(Ended { at: at(5), reason: EndReason::Theft }), ..session });
    assert_eq!(row(&*store, ended.id).await, ended);
    let kinds: Vec<_> = store.events(events_of(ended.id)).await.unwrap().iter().map(|e| (e.kind, e.reason)).collect();
    let theft = EndReason::Theft;
    assert!(kinds.contains(&(EventKind::End, Some(theft))) && kinds.contains(&(EventKind::TheftDetected, None)));
    let feed = store.revocations(None, 0, at(5), 10).await.unwrap();
    assert_eq!((feed.len(), feed[0].session_id), (1, ended.id));
    assert_eq!(feed[0].what, Revoked::Ended { reason: EndReason::Theft, expires_at: ended.expires_at });
    assert_eq!((feed[0].at, feed[0].expires_at), (at(5), at(305)));
    assert_eq!(store.audit_log(None, 10).await.unwrap(), [audit]);
}

/// The first reason stays, and a second end leaves no trace.
pub async fn the_first_end_stays(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let ended = applied(store.end(end_of(&session, at(5), EndReason::SignedOut)).await.unwrap());
    let second = End { audit: Some(audit("session.end", at(6))), ..end_of(&session, at(6), EndReason::Revoked) };
    assert_eq!(stale(store.end(second).await.unwrap()), Some(ended.clone()));
    let many = store.end_many(end_all(at(7))).await.unwrap();
    assert!(many.ended.is_empty());
    assert_eq!(row(&*store, session.id).await, ended);
    assert_eq!(store.revocations(None, 0, at(5), 10).await.unwrap().len(), 1);
    assert!(store.audit_log(None, 10).await.unwrap().is_empty());
}

/// Scope, the row that was decided on, and a session that has not run out.
pub async fn an_end_needs_every_condition(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let session = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    let good = end_of(&session, at(2), EndReason::Theft);
    let broken = [
        End { scope: scope_of("default", "prod"), ..good.clone() },
        End { decided_on: Some((0, session.position.commitment)), ..good.clone() },
        End { decided_on: Some((1, commitment(9))), ..good.clone() },
        end_of(&session, session.idle_expires_at, EndReason::Theft),
    ];
    for end in broken {
        assert_eq!(stale(store.end(end).await.unwrap()), Some(session.clone()));
    }
    assert_eq!(stale(store.end(End { id: session_id(), ..good.clone() }).await.unwrap()), None);
    assert_eq!(row(&*store, session.id).await, session);
    applied(store.end(End { decided_on: Some((1, session.position.commitment)), ..good }).await.unwrap());
}

/// Each filter alone.
pub async fn ending_many_obeys_every_filter(store: Arc<dyn Store>) {
    let early = start(&*store, session_at("ada", at(0))).await;
    let late = start(&*store, session_at("ada", at(50))).await;
    let bob = start(&*store, session_at("bob", at(50))).await;
    let admin = start(&*store, Session { tag: tag("admin"), ..session_at("bob", at(50)) }).await;
    let refreshed = start(&*store, session_at("eve", at(0))).await;
    applied(store.advance(advance_of(&refreshed, at(60))).await.unwrap());
    let elsewhere = start(&*store, Session { scope: scope_of("default", "prod"), ..session("ada") }).await;
    let natural = start(&*store, Session { idle_expires_at: at(70), ..session("zoe") }).await;

    // The same filters, on a copy of the question that ends nothing: one session is left for each answer.
    let all = end_all(at(70));
    let cases = [
        (EndMany { tag: Some(tag("admin")), ..all.clone() }, vec![admin.id]),
        (EndMany { user_id: Some(user("bob")), ..all.clone() }, vec![bob.id]),
        (EndMany { started_until: Some(at(49)), except: Some(refreshed.id), ..all.clone() }, vec![early.id]),
        (EndMany { refreshed_from: Some(at(51)), ..all.clone() }, vec![refreshed.id]),
        (EndMany { user_id: Some(user("nobody")), ..all.clone() }, vec![]),
        (EndMany { scope: scope_of("nowhere", "dev"), ..all.clone() }, vec![]),
        (EndMany { after: Some(natural.id), ..all.clone() }, vec![]),
        (all, vec![late.id]),
    ];
    for (end, expected) in cases {
        let ended = store.end_many(end).await.unwrap();
        assert_eq!(ended.ended.iter().map(|e| e.id).collect::<Vec<_>>(), expected);
        assert_eq!(ended.next, None);
    }
    assert_eq!(row(&*store, elsewhere.id).await.ended, None);
    assert_eq!(row(&*store, natural.id).await.ended, None);
}

/// A row that only looks idle might be brought forward by a newer token: it is told, and nothing is written.
pub async fn ending_many_tells_what_is_idle(store: Arc<dyn Store>) {
    let idle = |user: &str| Session { idle_expires_at: at(10), expires_at: at(1_000), ..session(user) };
    let unnoted = start(&*store, idle("ada")).await;
    let noted = start(&*store, idle("ada")).await;
    store.sweep(sweep_at(at(11))).await.unwrap();
    let noted = row(&*store, noted.id).await;
    let unnoted_too = start(&*store, Session { idle_expires_at: at(20), ..idle("ada") }).await;
    let expired = start(&*store, Session { idle_expires_at: at(10), expires_at: at(12), ..session("ada") }).await;
    let active = start(&*store, session("ada")).await;
    let signed_out = start(&*store, session("ada")).await;
    applied(store.end(end_of(&signed_out, at(5), EndReason::SignedOut)).await.unwrap());

    let mut end = EndMany { user_id: Some(user("ada")), limit: 2, ..end_all(at(30)) };
    let first = store.end_many(end.clone()).await.unwrap();
    assert_eq!(
        (first.ended, first.idle.iter().map(|e| e.id).collect::<Vec<_>>()),
        (vec![], vec![unnoted.id, noted.id])
    );
    assert!(first.idle.iter().all(|e| (e.at, e.reason, e.expires_at) == (at(30), EndReason::Revoked, at(1_000))));
    end.after = first.next;
    let second = store.end_many(end).await.unwrap();
    let ids = |ended: &[EndedSession]| ended.iter().map(|e| e.id).collect::<Vec<_>>();
    assert_eq!((ids(&second.idle), ids(&second.ended)), (vec![unnoted_too.id], vec![active.id]));
    for before in [&noted, &unnoted_too, &expired] {
        let after = row(&*store, before.id).await;
        assert_eq!((after.ended, after.position), (before.ended, before.position));
    }
    let mut erase = erase_of("ada", at(31));
    erase.ending.reason = EndReason::UserDeleted;
    let erased = store.erase_user(erase).await.unwrap();
    assert_eq!((ids(&erased.idle), erased.ended.len()), (vec![unnoted.id, noted.id, unnoted_too.id], 0));
}

/// In the order of their ids, each once, the audit entry with the first batch.
pub async fn ending_many_goes_in_batches(store: Arc<dyn Store>) {
    for by_user in [false, true] {
        let mut ids = Vec::new();
        for _ in 0..7 {
            ids.push(start(&*store, session("ada")).await.id);
        }
        let mut seen = Vec::new();
        let audit = audit("sessions.end", at(1));
        let mut end = EndMany { limit: 3, audit: Some(audit.clone()), ..end_all(at(1)) };
        end.user_id = by_user.then(|| user("ada"));
        loop {
            let batch = store.end_many(end.clone()).await.unwrap();
            assert!(batch.ended.len() <= 3);
            seen.extend(batch.ended.iter().map(|e| e.id));
            end.after = batch.next;
            end.ending = ending(at(1), EndReason::Revoked);
            if end.after.is_none() {
                break;
            }
        }
        assert_eq!(seen, ids);
        let log = store.audit_log(None, 10).await.unwrap();
        assert_eq!(log.iter().filter(|e| e.id == audit.id).count(), 1);
        for id in ids {
            let events = store.events(events_of(id)).await.unwrap();
            assert_eq!(events.iter().filter(|e| e.kind == EventKind::End).count(), 1);
        }
    }
}
