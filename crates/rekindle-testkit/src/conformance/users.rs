use std::sync::Arc;

use rekindle::journal::EventKind;
use rekindle::session::{EndReason, Session};
use rekindle::store::{EndedMany, Idempotency, Start, Started, Store, UserQuery};

use crate::fixtures::*;

/// With counts and times, in byte order, in pages; with a ban alone, too.
pub async fn users_are_listed_in_byte_order(store: Arc<dyn Store>) {
    let names = ["", "%", "Ada", "a\u{0}", "a\u{0}b", "ada", "b'; DROP TABLE sessions; --", "\u{e9}", "\u{1F980}"];
    for name in names.iter().rev() {
        start(&*store, session(name)).await;
    }
    start(&*store, Session { scope: scope_of("shop", "dev"), ..session("elsewhere") }).await;
    store.ban(ban_of("only banned", at(1))).await.unwrap();
    let mut expected: Vec<&str> = names.to_vec();
    expected.push("only banned");
    expected.sort_unstable();
    let mut query = UserQuery { scope: scope(), after: None, limit: 4, now: at(1) };
    let mut seen = Vec::new();
    loop {
        let page = store.users(query.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 4);
        query.after = Some(last.user_id.clone());
        seen.extend(page.into_iter().map(|u| u.user_id.as_str().to_owned()));
    }
    assert_eq!(seen, expected);
}

/// What is told of one user.
pub async fn a_user_is_summed_up(store: Arc<dyn Store>) {
    assert_eq!(store.user(&scope(), &user("ada"), at(1)).await, Ok(None));
    start(&*store, session_at("ada", at(0))).await;
    let second = start(&*store, session_at("ada", at(10))).await;
    let third = start(&*store, session_at("ada", at(20))).await;
    applied(store.advance(advance_of(&second, at(30))).await.unwrap());
    applied(store.end(end_of(&third, at(31), EndReason::Revoked)).await.unwrap());
    let summary = store.user(&scope(), &user("ada"), at(40)).await.unwrap().unwrap();
    assert_eq!((summary.sessions, summary.active_sessions), (3, 2));
    assert_eq!((summary.first_seen, summary.last_seen), (Some(at(0)), Some(at(30))));
    assert_eq!(summary.ban, None);
    assert_eq!(store.user(&scope(), &user("Ada"), at(40)).await, Ok(None));
    let listed = store.users(UserQuery { scope: scope(), after: None, limit: 9, now: at(40) }).await.unwrap();
    assert_eq!(listed, [summary]);
}

/// It ends the sessions and tells the webhooks once; a later one replaces it; lifting it lets the user in again.
pub async fn a_ban_ends_and_keeps_out(store: Arc<dyn Store>) {
    let first = start(&*store, session("ada")).await;
    let second = start(&*store, session("ada")).await;
    let bob = start(&*store, session("bob")).await;
    let mut ban = ban_of("ada", at(1));
    ban.event.notify = true;
    ban.end.limit = 1;
    let batch = store.ban(ban.clone()).await.unwrap();
    assert_eq!((batch.ended.len(), batch.ended[0].id, batch.next), (1, first.id, Some(first.id)));
    // Already in force, though not all is ended.
    assert!(matches!(store.start(start_of(&session_at("ada", at(1)))).await, Ok(Started::Banned(_))));
    ban.end.after = batch.next;
    ban.end.ending = ending(at(1), EndReason::Banned);
    let batch = store.ban(ban.clone()).await.unwrap();
    assert_eq!((batch.ended.len(), batch.ended[0].id, batch.next), (1, second.id, None));
    assert_eq!(batch.ended[0].reason, EndReason::Banned);
    assert_eq!(row(&*store, bob.id).await.ended, None);
    let taken = store.take_notifications(at(2), at(3), 10).await.unwrap();
    assert_eq!(taken.iter().map(|n| n.event.kind).collect::<Vec<_>>(), [EventKind::UserBanned]);

    let mut shorter = ban_of("ada", at(2));
    shorter.ban.until = Some(at(10));
    store.ban(shorter.clone()).await.unwrap();
    let summary = store.user(&scope(), &user("ada"), at(9)).await.unwrap().unwrap();
    assert_eq!(summary.ban, Some(shorter.ban));
    let summary = store.user(&scope(), &user("ada"), at(10)).await.unwrap().unwrap();
    assert_eq!(summary.ban, None);

    let entry = audit("user.unban", at(3));
    assert_eq!(store.lift_ban(&scope(), &user("ada"), entry.clone()).await, Ok(true));
    assert_eq!(store.lift_ban(&scope(), &user("ada"), audit("user.unban", at(4))).await, Ok(false));
    assert_eq!(store.lift_ban(&scope_of("no", "where"), &user("ada"), audit("user.unban", at(4))).await, Ok(false));
    start(&*store, session_at("ada", at(5))).await;
}

/// Nothing of the user is left but the feed and what webhooks are still to be told.
pub async fn an_erasure_leaves_nothing(store: Arc<dyn Store>) {
    let active = start(&*store, session("ada")).await;
    let ended = start(&*store, session("ada")).await;
    applied(store.end(end_of(&ended, at(1), EndReason::SignedOut)).await.unwrap());
    let bob = start(&*store, session("bob")).await;
    let elsewhere = start(&*store, Session { scope: scope_of("shop", "dev"), ..session("ada") }).await;
    let mut erase = erase_of("ada", at(2));
    erase.ending.event.notify = true;
    let told = store.erase_user(erase).await.unwrap().ended;
    assert_eq!(told.iter().map(|e| (e.id, e.reason)).collect::<Vec<_>>(), [(active.id, EndReason::UserDeleted)]);
    for id in [active.id, ended.id] {
        assert_eq!(store.session(id).await, Ok(None));
        assert!(store.events(events_of(id)).await.unwrap().is_empty());
    }
    assert_eq!(store.user(&scope(), &user("ada"), at(2)).await, Ok(None));
    let feed = store.revocations(None, 0, at(2), 10).await.unwrap();
    assert_eq!(feed.iter().map(|r| r.session_id).collect::<Vec<_>>(), [ended.id, active.id]);
    let taken = store.take_notifications(at(3), at(4), 10).await.unwrap();
    assert_eq!(taken.iter().map(|n| n.event.user_id.clone()).collect::<Vec<_>>(), [Some(user("ada"))]);
    assert_eq!(row(&*store, bob.id).await, bob);
    assert_eq!(row(&*store, elsewhere.id).await, elsewhere);
    assert_eq!(store.audit_log(None, 10).await.unwrap()[0].action, "user.delete");
    assert_eq!(store.erase_user(erase_of("nobody", at(3))).await, Ok(EndedMany::default()));
}

/// Its ban and its idempotency keys go, too.
pub async fn an_erased_user_is_a_stranger(store: Arc<dyn Store>) {
    let idempotency = Some(Idempotency { key: [1; 32], request: [1; 32], expires_at: at(1_000) });
    let first = Start { idempotency, ..start_of(&session("ada")) };
    store.start(first).await.unwrap();
    store.ban(ban_of("ada", at(1))).await.unwrap();
    store.erase_user(erase_of("ada", at(2))).await.unwrap();
    let second = Start { idempotency, ..start_of(&session_at("ada", at(3))) };
    assert_eq!(store.start(second).await, Ok(Started::Created(Vec::new())));
}

/// An idempotency key that expired and was used again is the other user's.
pub async fn an_erasure_leaves_the_keys_of_others(store: Arc<dyn Store>) {
    let keyed = |session: Session, expires_at| {
        let idempotency = Some(Idempotency { key: [1; 32], request: [1; 32], expires_at });
        Start { idempotency, ..start_of(&session) }
    };
    store.start(keyed(session("ada"), at(10))).await.unwrap();
    let bob = session_at("bob", at(10));
    assert_eq!(store.start(keyed(bob.clone(), at(1_000))).await, Ok(Started::Created(Vec::new())));
    store.erase_user(erase_of("ada", at(20))).await.unwrap();
    let again = store.start(keyed(session_at("carol", at(30)), at(1_000))).await;
    assert_eq!(again, Ok(Started::Repeated(Some(Box::new(bob)))));
}
