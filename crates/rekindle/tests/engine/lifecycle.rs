//! Starting, data, and every way in which a session ends.

use rekindle::clock::{Seconds, Timestamp};
use rekindle::engine::*;
use rekindle::journal::EventKind;
use rekindle::rotation::Expiry;
use rekindle::session::{EndReason, SessionId};
use serde_json::{Value, json};

use crate::world::*;

fn keyed(key: &str, data: Value) -> StartRequest {
    StartRequest {
        idempotency_key: Some(key.into()),
        data: object(data),
        ..StartRequest::new(tag("default"), Some(user_id("alice")))
    }
}

async fn ended(w: &World, id: SessionId) -> Option<EndReason> {
    w.session(id).await.ended.map(|e| e.reason)
}

#[tokio::test]
async fn a_repeated_start_gives_the_same_session_until_it_moves_on() {
    let w = World::new().await;
    let first = w.start(keyed("k", json!({ "a": 1 }))).await.unwrap();
    let again = w.start(keyed("k", json!({ "a": 1 }))).await.unwrap();
    assert_eq!((again.session.id, &again.refresh_token), (first.session.id, &first.refresh_token));
    assert_eq!(w.start(keyed("k", json!({ "a": 2 }))).await.unwrap_err(), Error::IdempotencyMismatch);
    w.refreshed(&first).await;
    assert!(matches!(w.start(keyed("k", json!({ "a": 1 }))).await, Err(Error::Conflict(_))));
    w.clock.advance(DAY);
    assert_ne!(w.start(keyed("k", json!({ "a": 1 }))).await.unwrap().session.id, first.session.id);
    assert!(matches!(w.start(keyed("", json!({}))).await, Err(Error::Invalid { field: "Idempotency-Key", .. })));
}

#[tokio::test]
async fn beyond_the_maximum_the_oldest_session_ends_or_the_start_is_refused() {
    let w = World::new().await;
    w.policy(json!({ "max_sessions_per_user": 2 })).await;
    let [first, second, third] =
        [w.sign_in("alice").await, w.sign_in("alice").await, w.sign_in("alice").await].map(|t| t.session.id);
    w.sign_in("bob").await;
    assert_eq!(ended(&w, first).await, Some(EndReason::MaxSessions));
    assert_eq!((ended(&w, second).await, ended(&w, third).await), (None, None));
    w.policy(json!({ "on_max_sessions": "reject" })).await;
    let alice = || StartRequest::new(tag("default"), Some(user_id("alice")));
    assert_eq!(w.start(alice()).await.unwrap_err(), Error::MaxSessionsReached { active: 2 });
    // A session that is replaced makes room for the one that replaces it.
    w.start(StartRequest { previous_session_id: Some(second), ..alice() }).await.unwrap();
    for _ in 0..3 {
        w.start(StartRequest::new(tag("default"), None)).await.unwrap();
    }
}

#[tokio::test]
async fn a_login_takes_the_anonymous_session_over_and_no_other_users() {
    let w = World::new().await;
    let anonymous = w.start(StartRequest::new(tag("default"), None)).await.unwrap().session;
    assert!(anonymous.user_id.is_anonymous());
    let login = |previous| StartRequest {
        previous_session_id: Some(previous),
        ..StartRequest::new(tag("default"), Some(user_id("alice")))
    };
    let alice = w.start(login(anonymous.id)).await.unwrap().session;
    assert_eq!(alice.previous_session_id, Some(anonymous.id));
    assert_eq!(ended(&w, anonymous.id).await, Some(EndReason::Replaced));
    let bob = w.sign_in("bob").await.session.id;
    for unusable in [anonymous.id, bob, SessionId::from_bytes([9; 16])] {
        assert!(matches!(w.start(login(unusable)).await, Err(Error::Conflict(_))));
    }
    assert_eq!(ended(&w, bob).await, None);
}

#[tokio::test]
async fn the_selector_finds_the_user_and_the_schema_guards_the_data() {
    let w = World::new().await;
    w.define(json!({
        "tag": "web",
        "schema": { "details": { "username": "string" }, "age": "integer?" },
        "selector": "$Session{details}{username}",
    }))
    .await;
    let ask = |data: Value| StartRequest { data: object(data), ..StartRequest::new(tag("web"), None) };
    let alice = json!({ "details": { "username": "alice" } });
    let started = w.start(ask(alice.clone())).await.unwrap().session;
    assert_eq!(started.user_id, user_id("alice"));
    let id = started.id;
    let other = StartRequest { user_id: Some(user_id("bob")), ..ask(alice) };
    assert!(matches!(w.start(other).await, Err(Error::Invalid { field: "user_id", .. })));
    assert!(matches!(w.start(ask(json!({}))).await, Err(Error::SelectorUnresolved(_))));
    let invalid = ask(json!({ "details": { "username": "alice" }, "age": "old" }));
    let Err(Error::DataInvalid(violations)) = w.start(invalid).await else { panic!() };
    assert_eq!(violations[0].path, "/age");

    let patch = |data: Value| Patch { data: Some(object(data)), ..Patch::default() };
    let patched =
        w.engine.patch(&scope(), id, patch(json!({ "age": 40, "more": true })), &ctx()).await.unwrap().session;
    assert_eq!((patched.version, patched.data.to_map()["age"].as_i64()), (2, Some(40)));
    for (data, conflict) in [(json!({ "details": { "username": "bob" } }), true), (json!({ "age": "old" }), false)] {
        match w.engine.patch(&scope(), id, patch(data), &ctx()).await {
            Err(Error::Conflict(_)) => assert!(conflict),
            Err(Error::DataInvalid(_)) => assert!(!conflict),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(w.session(id).await.version, 2);
}

#[tokio::test]
async fn data_and_claims_have_limits_and_claims_reserved_names() {
    let w = World::new().await;
    let filled = |bytes: usize| object(json!({ "a": "x".repeat(bytes - r#"{"a":""}"#.len()) }));
    let ask = |data, claims| StartRequest { data, claims, ..StartRequest::new(tag("default"), Some(user_id("alice"))) };
    let largest = w.start(ask(filled(64 << 10), filled(4 << 10))).await.unwrap();
    assert!(w.verify(largest.access_token.expose(), false).await.is_ok());
    let reserved = object(json!({ "sub": "root" }));
    for (path, data, claims) in [
        ("/data", filled((64 << 10) + 1), filled(100)),
        ("/claims", filled(100), filled((4 << 10) + 1)),
        ("/claims", filled(100), reserved.clone()),
    ] {
        let Err(Error::DataInvalid(violations)) = w.start(ask(data, claims)).await else { panic!("{path}") };
        assert_eq!(violations[0].path, path);
    }
    let patch = Patch { claims: Some(reserved), ..Patch::default() };
    assert!(matches!(w.engine.patch(&scope(), largest.session.id, patch, &ctx()).await, Err(Error::DataInvalid(_))));
}

#[tokio::test]
async fn warn_mode_accepts_what_does_not_fit_and_tells_it() {
    let w = World::new().await;
    w.define(json!({ "tag": "web", "schema": { "a": "integer" }, "schema_mode": "warn" })).await;
    let request = StartRequest { data: object(json!({ "a": "x" })), ..StartRequest::new(tag("web"), None) };
    let tokens = w.start(request).await.unwrap();
    let told: Vec<_> = tokens.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["/a: expected integer, found string"]);
    let patch = |a: Value| Patch { data: Some(object(json!({ "a": a }))), ..Patch::default() };
    let id = tokens.session.id;
    assert_eq!(w.engine.patch(&scope(), id, patch(json!([])), &ctx()).await.unwrap().warnings[0].found, "array");
    assert!(w.engine.patch(&scope(), id, patch(json!(1)), &ctx()).await.unwrap().warnings.is_empty());
    assert!(w.refreshed(&tokens).await.warnings.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_writers_at_once_all_land() {
    let w = World::new().await;
    let id = w.sign_in("alice").await.session.id;
    let mut writers = tokio::task::JoinSet::new();
    for i in 0..8 {
        let engine = w.engine.clone();
        let patch = Patch { data: Some(object(json!({ format!("k{i}"): i }))), ..Patch::default() };
        writers.spawn(async move { engine.patch(&scope(), id, patch, &ctx()).await.unwrap() });
    }
    writers.join_all().await;
    let session = w.session(id).await;
    assert_eq!((session.version, session.data.to_map().len()), (9, 8));
    let stale = Patch { if_version: Some(8), ..Patch::default() };
    let refused = w.engine.patch(&scope(), id, stale, &ctx()).await.unwrap_err();
    assert_eq!(refused, Error::VersionMismatch { present: 9 });
}

#[tokio::test]
async fn a_slow_writer_never_undoes_a_logout() {
    let w = World::new().await;
    let tokens = w.sign_in("alice").await;
    let id = tokens.session.id;
    let engine = w.engine.clone();
    w.store.before("update", async move {
        let token = PresentedToken::Refresh(tokens.refresh_token.expose());
        engine.sign_out(&scope(), token, &ctx()).await.unwrap().unwrap();
    });
    let patch = Patch { data: Some(object(json!({ "cart": 1 }))), ..Patch::default() };
    let refused = w.engine.patch(&scope(), id, patch, &ctx()).await.unwrap_err();
    assert_eq!(refused, Error::SessionEnded(EndReason::SignedOut));
    assert!(w.session(id).await.data.is_empty());
}

#[tokio::test]
async fn a_logout_during_a_refresh_wins() {
    let w = World::new().await;
    let mut client = Client::sign_in(&w, "alice").await;
    let (engine, id) = (w.engine.clone(), client.session_id);
    w.store.before("advance", async move {
        engine.revoke(&scope(), id, EndReason::Revoked, &ctx()).await.unwrap();
    });
    assert_eq!(refusal_of(client.refresh(&w).await), TokenRefusal::Revoked(Some(EndReason::Revoked)));
}

#[tokio::test]
async fn a_running_session_keeps_the_schema_that_it_started_with() {
    let w = World::new().await;
    w.define(json!({ "tag": "web", "schema": { "a": "integer" } })).await;
    let ask = |a: Value| StartRequest { data: object(json!({ "a": a })), ..StartRequest::new(tag("web"), None) };
    let id = w.start(ask(json!(1))).await.unwrap().session.id;
    let change = json!({ "schema": { "a": "string" } });
    w.engine.patch_definition(&tag("default"), &tag("web"), &change, &ctx()).await.unwrap().unwrap();
    w.start(ask(json!("x"))).await.unwrap();
    let patch = |a: Value| Patch { data: Some(object(json!({ "a": a }))), ..Patch::default() };
    w.engine.patch(&scope(), id, patch(json!(2)), &ctx()).await.unwrap();
    let refused = w.engine.patch(&scope(), id, patch(json!("x")), &ctx()).await;
    assert!(matches!(refused, Err(Error::DataInvalid(_))), "{refused:?}");
}

#[tokio::test]
async fn any_token_of_a_session_signs_it_out() {
    let w = World::new().await;
    let expired = w.sign_in("alice").await;
    w.clock.advance(HOUR);
    let old = w.sign_in("alice").await;
    w.refreshed(&w.refreshed(&old).await).await;
    for _ in 0..2 {
        let tokens = [
            PresentedToken::Access(expired.access_token.expose()),
            PresentedToken::Refresh(old.refresh_token.expose()),
        ];
        for token in tokens {
            assert_eq!(w.engine.sign_out(&scope(), token, &ctx()).await.unwrap(), Ok(()));
        }
    }
    assert_eq!(ended(&w, expired.session.id).await, Some(EndReason::SignedOut));
    assert_eq!(ended(&w, old.session.id).await, Some(EndReason::SignedOut));
    for nonsense in ["", "rkr_", "a.b.c"] {
        for token in [PresentedToken::Access(nonsense), PresentedToken::Refresh(nonsense)] {
            let refused = w.engine.sign_out(&scope(), token, &ctx()).await.unwrap();
            assert_eq!(refused, Err(TokenRefusal::Malformed));
        }
    }
}

#[tokio::test]
async fn revoke_all_ends_what_passes_its_filters() {
    let w = World::new().await;
    w.define(json!({ "tag": "web" })).await;
    let [a, b, c] =
        [w.sign_in("alice").await, w.sign_in("alice").await, w.sign_in("alice").await].map(|t| t.session.id);
    let web = w.start(StartRequest::new(tag("web"), Some(user_id("alice")))).await.unwrap().session.id;
    let bob = w.sign_in("bob").await.session.id;
    let alice = EndAll { user_id: Some(user_id("alice")), ..EndAll::default() };
    let revoke = |which| {
        let engine = w.engine.clone();
        async move { engine.revoke_all(&scope(), which, EndReason::CredentialChanged, &ctx()).await.unwrap() }
    };
    assert_eq!(revoke(EndAll { except: Some(a), tag: Some(tag("default")), ..alice.clone() }).await, 2);
    assert_eq!((ended(&w, a).await, ended(&w, web).await, ended(&w, bob).await), (None, None, None));
    for id in [b, c] {
        assert_eq!(ended(&w, id).await, Some(EndReason::CredentialChanged));
    }
    assert_eq!(revoke(alice.clone()).await, 2);
    assert_eq!(revoke(alice).await, 0);
    assert_eq!(ended(&w, bob).await, None);
}

#[tokio::test]
async fn the_incident_drill_ends_what_started_before_and_was_refreshed_after() {
    let w = World::new().await;
    let (mut early, late) = (w.sign_in("early").await, w.sign_in("unused").await.session.id);
    w.clock.advance(HOUR);
    let incident = w.now();
    early = w.refreshed(&early).await;
    w.clock.advance(HOUR);
    let after = w.sign_in("after").await.session.id;
    let which = EndAll {
        started_until: Some(incident),
        refreshed_from: Some(Timestamp::from_secs(incident.secs())),
        ..EndAll::default()
    };
    assert_eq!(w.engine.revoke_all(&scope(), which, EndReason::Revoked, &ctx()).await.unwrap(), 1);
    assert_eq!(ended(&w, early.session.id).await, Some(EndReason::Revoked));
    assert_eq!((ended(&w, late).await, ended(&w, after).await), (None, None));
}

#[tokio::test]
async fn a_thousand_sessions_end_in_batches_and_other_servers_learn_it() {
    let w = World::new().await;
    let other = w.second().await;
    let mut started = Vec::new();
    for i in 0..1203 {
        let request = StartRequest::new(tag("default"), Some(user_id(&format!("u{i}"))));
        started.push(w.engine.start(&scope(), request, &ctx()).await.unwrap());
    }
    w.clock.advance(Seconds(1));
    let all = EndAll::default();
    // The upkeep reads the whole feed between two pages of what completes the log.
    let upkeep = w.engine.clone();
    w.store.after("revocations", async move { assert_eq!(upkeep.upkeep().await.unwrap().revocations, 1203) });
    w.store.take_calls();
    assert_eq!(w.engine.revoke_all(&scope(), all, EndReason::Revoked, &ctx()).await.unwrap(), 1203);
    let calls = w.store.take_calls();
    assert!(!w.store.is_armed());
    assert_eq!(calls.iter().filter(|c| **c == "end_many").count(), 3);
    // No ending is taken for lost because the other call has met it.
    assert!(!calls.contains(&"session"), "{} sessions were read", calls.iter().filter(|c| **c == "session").count());
    let feed = w.engine.revocations(&scope(), 0, 2000).await.unwrap();
    assert_eq!(feed.len(), 1203);
    assert_eq!(w.engine.revocations(&scope(), feed[1199].seq, 2000).await.unwrap(), feed[1200..]);
    assert!(w.engine.revocations(&scope(), u64::MAX, 2000).await.unwrap().is_empty());

    // This server knows at once, the other one after its upkeep.
    let access_token = started[1202].access_token.expose();
    assert!(w.verify(access_token, false).await.is_err() && other.verify(access_token, false).await.is_ok());
    assert_eq!(other.engine.upkeep().await.unwrap().revocations, 1203);
    for tokens in &started {
        assert!(other.verify(tokens.access_token.expose(), false).await.is_err());
        assert_eq!(w.events(tokens.session.id).await.len(), 2);
    }
}

#[tokio::test]
async fn a_banned_user_is_out_until_the_ban_is_over_or_lifted() {
    let w = World::new().await;
    let tokens = w.sign_in("alice").await;
    let alice = user_id("alice");
    let until = w.now() + HOUR;
    let ban = |until| {
        let (engine, alice) = (w.engine.clone(), alice.clone());
        async move { engine.ban(&scope(), &alice, until, Some("fraud".into()), &ctx()).await }
    };
    assert_eq!(ban(Some(until)).await.unwrap(), 1);
    assert_eq!(
        refusal_of(w.refresh(tokens.refresh_token.expose(), None).await),
        TokenRefusal::Revoked(Some(EndReason::Banned))
    );
    let start = || w.start(StartRequest::new(tag("default"), Some(user_id("alice"))));
    let Err(Error::UserBanned(told)) = start().await else { panic!() };
    assert_eq!((told.until, told.reason.as_deref()), (Some(until), Some("fraud")));
    assert_eq!(w.engine.user(&scope(), &alice).await.unwrap().ban, Some(told));
    w.sign_in("bob").await;
    w.clock.set(until);
    start().await.unwrap();

    assert_eq!(ban(None).await.unwrap(), 1);
    w.clock.advance(days(1000));
    assert!(matches!(start().await, Err(Error::UserBanned(_))));
    assert!(w.engine.lift_ban(&scope(), &alice, &ctx()).await.unwrap());
    assert!(!w.engine.lift_ban(&scope(), &alice, &ctx()).await.unwrap());
    start().await.unwrap();
    assert!(matches!(ban(Some(w.now())).await, Err(Error::Invalid { field: "until", .. })));
}

#[tokio::test]
async fn an_erased_user_leaves_nothing_but_revocations() {
    let w = World::new().await;
    let other = w.second().await;
    let tokens = w.sign_in("alice").await;
    let signed_out = w.sign_in("alice").await;
    w.engine.revoke(&scope(), signed_out.session.id, EndReason::SignedOut, &ctx()).await.unwrap();
    let alice = user_id("alice");
    assert_eq!(w.engine.erase_user(&scope(), &alice, &ctx()).await.unwrap(), 1);
    assert_eq!(w.engine.user(&scope(), &alice).await.unwrap_err(), Error::UserNotFound);
    for id in [tokens.session.id, signed_out.session.id] {
        assert_eq!(w.engine.session(&scope(), id).await.unwrap_err(), Error::SessionNotFound(id));
        let query = rekindle::store::EventQuery {
            session_id: id,
            kind: None,
            outcome: None,
            from: None,
            to: None,
            before: None,
            limit: 10,
        };
        assert_eq!(w.engine.store().events(query).await.unwrap(), []);
    }
    let feed = w.engine.revocations(&scope(), 0, 10).await.unwrap();
    assert_eq!(feed.iter().map(|r| r.session_id).collect::<Vec<_>>(), [signed_out.session.id, tokens.session.id]);
    assert_eq!(
        refusal_of(w.refresh(tokens.refresh_token.expose(), None).await),
        TokenRefusal::Expired(Expiry::Absolute)
    );
    other.engine.upkeep().await.unwrap();
    for server in [&w, &other] {
        assert!(server.verify(tokens.access_token.expose(), false).await.is_err());
    }
}

#[tokio::test]
async fn a_sweep_notes_a_natural_end_once_and_removes_it_after_the_retention() {
    let w = World::new().await;
    let tokens = w.sign_in("alice").await;
    let id = tokens.session.id;
    let idle_at = tokens.session.idle_expires_at;
    w.clock.set(idle_at + HOUR);
    let swept = [w.engine.sweep(w.now()).await.unwrap(), w.engine.sweep(w.now()).await.unwrap()];
    assert_eq!(swept.map(|s| (s.ended, s.removed)), [(1, 0), (0, 0)]);
    let events = w.events(id).await;
    assert_eq!(kinds(&events), [EventKind::Start, EventKind::End]);
    assert_eq!((events[1].at, events[1].reason), (idle_at, Some(EndReason::Idle)));
    assert_eq!(w.engine.explain(&scope(), id).await.unwrap().rule, "idle_timeout");
    w.clock.set(idle_at + Settings::RETENTION);
    w.clock.advance(Seconds(1));
    assert_eq!(w.engine.sweep(w.now()).await.unwrap().removed, 1);
    assert_eq!(w.engine.session(&scope(), id).await.unwrap_err(), Error::SessionNotFound(id));
    assert_eq!(
        refusal_of(w.refresh(tokens.refresh_token.expose(), None).await),
        TokenRefusal::Expired(Expiry::Absolute)
    );
}
