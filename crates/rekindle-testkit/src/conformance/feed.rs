use std::sync::Arc;

use rekindle::session::{EndReason, Session};
use rekindle::store::Store;

use crate::fixtures::*;

/// Strictly growing, from the cursor on, in pages.
pub async fn the_feed_is_ordered(store: Arc<dyn Store>) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(start(&*store, session("ada")).await.id);
    }
    // Not in the order of the ids: in that of the ends.
    ids.reverse();
    for id in &ids {
        let session = row(&*store, *id).await;
        applied(store.end(end_of(&session, at(1), EndReason::Revoked)).await.unwrap());
    }
    let mut after = 0;
    let mut seen = Vec::new();
    loop {
        let page = store.revocations(Some(&scope()), after, at(2), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2 && page[0].seq > after && page.is_sorted_by(|a, b| a.seq < b.seq));
        after = last.seq;
        seen.extend(page.iter().map(|r| r.session_id));
    }
    assert_eq!(seen, ids);
    // Numbered by time, too: a store that lost its last entries does not give their numbers to others.
    assert!(after >= at(1).millis() as u64 * 1000);
    assert!(store.revocations(None, u64::MAX - 1, at(2), 10).await.unwrap().is_empty());
}

/// An entry is told until the last access token that it concerns has expired.
pub async fn the_feed_forgets_expired_entries(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    applied(store.end(end_of(&session, at(1), EndReason::Revoked)).await.unwrap());
    assert_eq!(store.revocations(None, 0, at(300), 10).await.unwrap().len(), 1);
    assert!(store.revocations(None, 0, at(301), 10).await.unwrap().is_empty());
}

/// Numbers are never used again, even after the entries are gone.
pub async fn the_feed_never_repeats_a_number(store: Arc<dyn Store>) {
    let mut last = 0;
    for _ in 0..3 {
        let session = start(&*store, session("ada")).await;
        applied(store.end(end_of(&session, at(1), EndReason::Revoked)).await.unwrap());
        let feed = store.revocations(None, 0, at(1), 10).await.unwrap();
        assert!(feed.len() == 1 && feed[0].seq > last);
        last = feed[0].seq;
        assert_eq!(store.sweep(sweep_at(at(400))).await.unwrap().next, None);
    }
}

/// Only the scope's entries, or all.
pub async fn the_feed_is_told_by_scope(store: Arc<dyn Store>) {
    let here = start(&*store, session("ada")).await;
    let there = start(&*store, Session { scope: scope_of("shop", "prod"), ..session("ada") }).await;
    for session in [&here, &there] {
        applied(store.end(end_of(session, at(1), EndReason::Revoked)).await.unwrap());
    }
    let only = store.revocations(Some(&there.scope), 0, at(1), 10).await.unwrap();
    assert_eq!(only.iter().map(|r| (r.session_id, r.scope.clone())).collect::<Vec<_>>(), [(there.id, there.scope)]);
    assert_eq!(store.revocations(None, 0, at(1), 10).await.unwrap().len(), 2);
    assert!(store.revocations(Some(&scope_of("no", "where")), 0, at(1), 10).await.unwrap().is_empty());
}
