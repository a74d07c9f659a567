use std::sync::Arc;

use rekindle::clock::Seconds;
use rekindle::definition::OnMaxSessions;
use rekindle::journal::EventKind;
use rekindle::session::{EndReason, Ended, Session};
use rekindle::store::{EndedSession, Idempotency, Start, Started, Store};

use crate::fixtures::*;

fn idempotent(start: Start, key: u8, request: u8) -> Start {
    let expires_at = start.session.created_at + Seconds(60);
    Start { idempotency: Some(Idempotency { key: [key; 32], request: [request; 32], expires_at }), ..start }
}

/// The row is kept whole, with its event.
pub async fn a_started_session_is_read_back_whole(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    assert_eq!(row(&*store, session.id).await, session);
    assert_eq!(store.session(session_id()).await, Ok(None));
    let events = store.events(events_of(session.id)).await.unwrap();
    assert_eq!(events.iter().map(|e| e.kind).collect::<Vec<_>>(), [EventKind::Start]);
}

/// A start whose answer was lost may be asked again, even without a key.
pub async fn a_start_with_the_same_session_id_is_a_repetition(store: Arc<dyn Store>) {
    let session = start(&*store, session("ada")).await;
    let advanced = applied(store.advance(advance_of(&session, at(1))).await.unwrap());
    let again = store.start(start_of(&session)).await.unwrap();
    assert_eq!(again, Started::Repeated(Some(Box::new(advanced.clone()))));
    assert_eq!(row(&*store, session.id).await, advanced);
}

/// The first session, as it is by then; nothing is started.
pub async fn a_repeated_idempotency_key_gives_the_first_session(store: Arc<dyn Store>) {
    let first = session("ada");
    store.start(idempotent(start_of(&first), 1, 1)).await.unwrap();
    let advanced = applied(store.advance(advance_of(&first, at(1))).await.unwrap());
    let second = session_at("ada", at(59));
    let repeated = store.start(idempotent(start_of(&second), 1, 1)).await.unwrap();
    assert_eq!(repeated, Started::Repeated(Some(Box::new(advanced))));
    assert_eq!(store.session(second.id).await, Ok(None));
}

/// Mismatch comes before everything else.
pub async fn an_idempotency_key_of_another_request_is_a_mismatch(store: Arc<dyn Store>) {
    store.start(idempotent(start_of(&session("ada")), 1, 1)).await.unwrap();
    store.ban(ban_of("ada", at(1))).await.unwrap();
    let other = idempotent(start_of(&session_at("ada", at(2))), 1, 2);
    assert_eq!(store.start(other).await, Ok(Started::IdempotencyMismatch));
    // And a repetition before a ban.
    let same = idempotent(start_of(&session_at("ada", at(2))), 1, 1);
    assert!(matches!(store.start(same).await, Ok(Started::Repeated(Some(_)))));
}

/// At the very moment of its expiry a key is forgotten.
pub async fn an_idempotency_key_expires(store: Arc<dyn Store>) {
    store.start(idempotent(start_of(&session("ada")), 1, 1)).await.unwrap();
    let later = session_at("ada", at(60));
    let started = store.start(idempotent(start_of(&later), 1, 2)).await.unwrap();
    assert_eq!(started, Started::Created(Vec::new()));
    // The key now stands for the new request.
    let again = store.start(idempotent(start_of(&session_at("ada", at(61))), 1, 2)).await.unwrap();
    assert_eq!(again, Started::Repeated(Some(Box::new(later))));
}

/// Two scopes never see each other's keys.
pub async fn idempotency_keys_belong_to_their_scope(store: Arc<dyn Store>) {
    store.start(idempotent(start_of(&session("ada")), 1, 1)).await.unwrap();
    let mut elsewhere = session("ada");
    elsewhere.scope = scope_of("default", "prod");
    let started = store.start(idempotent(start_of(&elsewhere), 1, 2)).await.unwrap();
    assert_eq!(started, Started::Created(Vec::new()));
}

/// A refused start remembers no key.
pub async fn a_refused_start_leaves_nothing(store: Arc<dyn Store>) {
    store.ban(ban_of("ada", at(1))).await.unwrap();
    let refused = session_at("ada", at(2));
    assert!(matches!(store.start(idempotent(start_of(&refused), 1, 1)).await, Ok(Started::Banned(_))));
    assert_eq!(store.session(refused.id).await, Ok(None));
    assert_eq!(store.events(events_of(refused.id)).await, Ok(Vec::new()));
    store.lift_ban(&scope(), &user("ada"), audit("user.unban", at(3))).await.unwrap();
    let started = store.start(idempotent(start_of(&session_at("ada", at(4))), 1, 2)).await.unwrap();
    assert_eq!(started, Started::Created(Vec::new()));
}

/// `Repeated(None)`: there was a session, and it is gone.
pub async fn a_repeated_start_of_a_swept_session_says_so(store: Arc<dyn Store>) {
    let gone = session("ada");
    let mut first = idempotent(start_of(&gone), 1, 1);
    first.idempotency.as_mut().unwrap().expires_at = at(100_000);
    store.start(first.clone()).await.unwrap();
    assert_eq!(store.sweep(sweep_at(at(20_000))).await.unwrap().removed, 1);
    first.session = session_at("ada", at(20_001));
    assert_eq!(store.start(first).await, Ok(Started::Repeated(None)));
}

/// The ban comes before the previous session and the maximum.
pub async fn a_banned_user_cannot_start(store: Arc<dyn Store>) {
    let mut until = ban_of("ada", at(1));
    until.ban.until = Some(at(10));
    let ban = until.ban.clone();
    store.ban(until).await.unwrap();
    let mut refused = session_at("ada", at(9));
    refused.previous_session_id = Some(session_id());
    let mut attempt = start_of(&refused);
    attempt.max_sessions = Some((0, OnMaxSessions::Reject));
    assert_eq!(store.start(attempt).await, Ok(Started::Banned(ban)));
    // Another's case, another scope, and the end of the ban.
    start(&*store, session_at("Ada", at(9))).await;
    let mut elsewhere = session_at("ada", at(9));
    elsewhere.scope = scope_of("default", "prod");
    start(&*store, elsewhere).await;
    start(&*store, session_at("ada", at(10))).await;
}

/// The previous session ends as replaced, in the same step.
pub async fn a_start_replaces_the_previous_session(store: Arc<dyn Store>) {
    for previous_user in ["ada", ""] {
        let previous = start(&*store, session(previous_user)).await;
        let mut next = session_at("ada", at(5));
        next.previous_session_id = Some(previous.id);
        let started = store.start(start_of(&next)).await.unwrap();
        let ended =
            EndedSession { id: previous.id, at: at(5), reason: EndReason::Replaced, expires_at: previous.expires_at };
        assert_eq!(started, Started::Created(vec![ended]));
        assert_eq!(row(&*store, previous.id).await.ended, Some(Ended { at: at(5), reason: EndReason::Replaced }));
        let last = store.events(events_of(previous.id)).await.unwrap().remove(0);
        assert_eq!((last.kind, last.reason), (EventKind::End, Some(EndReason::Replaced)));
        let feed = store.revocations(None, 0, at(5), 100).await.unwrap();
        assert_eq!(feed.last().unwrap().session_id, previous.id);
    }
}

/// Each way in which it may be unusable.
pub async fn an_unusable_previous_session_refuses_the_start(store: Arc<dyn Store>) {
    let ended = start(&*store, session("ada")).await;
    applied(store.end(end_of(&ended, at(1), EndReason::SignedOut)).await.unwrap());
    let idle = start(&*store, Session { idle_expires_at: at(5), ..session("ada") }).await;
    let others = start(&*store, session("bob")).await;
    let elsewhere = start(&*store, Session { scope: scope_of("default", "prod"), ..session("ada") }).await;
    for previous in [ended.id, idle.id, others.id, elsewhere.id, session_id()] {
        let mut next = session_at("ada", at(5));
        next.previous_session_id = Some(previous);
        let mut start = start_of(&next);
        start.max_sessions = Some((0, OnMaxSessions::Reject));
        assert_eq!(store.start(start).await, Ok(Started::PreviousUnusable));
        assert_eq!(store.session(next.id).await, Ok(None));
    }
}

/// It counts active sessions of the same user and tag, without the one that is replaced.
pub async fn the_maximum_of_sessions_rejects(store: Arc<dyn Store>) {
    let first = start(&*store, session("ada")).await;
    start(&*store, session("ada")).await;
    start(&*store, session("bob")).await;
    start(&*store, Session { tag: tag("admin"), ..session("ada") }).await;
    start(&*store, Session { idle_expires_at: at(1), ..session("ada") }).await;
    let limited = |session: &Session| Start { max_sessions: Some((2, OnMaxSessions::Reject)), ..start_of(session) };
    let third = session_at("ada", at(1));
    assert_eq!(store.start(limited(&third)).await, Ok(Started::TooManySessions(2)));
    assert_eq!(store.session(third.id).await, Ok(None));
    let replacing = Session { previous_session_id: Some(first.id), ..session_at("ada", at(1)) };
    assert!(matches!(store.start(limited(&replacing)).await, Ok(Started::Created(ended)) if ended.len() == 1));
}

/// The oldest go first, with a reason of their own.
pub async fn the_maximum_of_sessions_ends_the_oldest(store: Arc<dyn Store>) {
    let mut old = Vec::new();
    for _ in 0..3 {
        old.push(start(&*store, session("ada")).await.id);
    }
    let next = session_at("ada", at(1));
    let limited = Start { max_sessions: Some((2, OnMaxSessions::EndOldest)), ..start_of(&next) };
    let Started::Created(ended) = store.start(limited).await.unwrap() else { panic!("not created") };
    let ids: Vec<_> = ended.iter().map(|e| (e.id, e.reason)).collect();
    assert_eq!(ids, [(old[0], EndReason::MaxSessions), (old[1], EndReason::MaxSessions)]);
    assert_eq!(row(&*store, old[2]).await.ended, None);
    assert_eq!(row(&*store, next.id).await, next);
}

/// Anonymous sessions are nobody's, so there is nobody to have too many.
pub async fn anonymous_users_have_no_maximum(store: Arc<dyn Store>) {
    start(&*store, session("")).await;
    let limited = Start { max_sessions: Some((1, OnMaxSessions::Reject)), ..start_of(&session("")) };
    assert_eq!(store.start(limited).await, Ok(Started::Created(Vec::new())));
}
