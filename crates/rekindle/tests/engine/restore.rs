//! What a lost write, a restored backup, another secret and a store or log that fails cost: no honest client its session, and
//! no revoked session its end.

use std::sync::Arc;

use rekindle::clock::Seconds;
use rekindle::copy::Copy;
use rekindle::engine::*;
use rekindle::journal::Outcome;
use rekindle::memory::MemoryStore;
use rekindle::revocation_log::{KEEPS_EXPIRED, Record, RevocationLog};
use rekindle::rotation::Expiry;
use rekindle::session::EndReason;
use rekindle::store::{ScopeRead, Store};
use serde_json::json;

use crate::world::*;

#[tokio::test]
async fn after_a_restore_clients_five_generations_ahead_go_on() {
    let w = World::new().await;
    let mut committed = Client::sign_in(&w, "alice").await;
    let mut bearer = w.sign_in("bob").await;
    let backup = w.store.backup();
    for _ in 0..5 {
        tokens_of(committed.refresh(&w).await);
        bearer = w.refreshed(&bearer).await;
    }
    let w = w.restored(backup).await;
    for tokens in [tokens_of(committed.refresh(&w).await), w.refreshed(&bearer).await] {
        assert_eq!((tokens.issued, tokens.session.position.generation), (Issued::FastForwarded, 6));
        let id = tokens.session.id;
        let brought = w.events(id).await.into_iter().find(|e| e.outcome == Some(Outcome::FastForwarded)).unwrap();
        assert_eq!((brought.presented_generation, brought.generation), (Some(5), 5));
        assert_eq!(w.outcomes(id, Outcome::FastForwarded).await, 1);
        assert!(w.engine.explain(&scope(), id).await.unwrap().active);
    }
}

/// A server whose backup's idle clock has run out, with a client that is ahead of it.
async fn restored_past_the_idle_expiry() -> (World, Client) {
    let w = World::new().await;
    let mut client = Client::sign_in(&w, "alice").await;
    let backup = w.store.backup();
    for _ in 0..2 {
        w.clock.advance(days(10));
        tokens_of(client.refresh(&w).await);
    }
    (w.restored(backup).await, client)
}

#[tokio::test]
async fn after_a_restore_an_idle_clock_that_stopped_with_the_backup_ends_nothing() {
    let (w, mut client) = restored_past_the_idle_expiry().await;
    tokens_of(client.refresh(&w).await);

    let (w, mut client) = restored_past_the_idle_expiry().await;
    assert_eq!(w.engine.sweep(w.now()).await.unwrap().ended, 1);
    let Minted::Token { access_token, .. } = w.mint(&client.refresh_token).await else { panic!() };
    assert!(w.verify(access_token.expose(), false).await.is_ok());
    tokens_of(client.refresh(&w).await);
    assert_eq!(w.session(client.session_id).await.ended, None);
}

#[tokio::test]
async fn a_revocation_made_after_the_backup_holds_after_reopening() {
    let w = World::new().await;
    let mut client = Client::sign_in(&w, "alice").await;
    let backup = w.store.backup();
    tokens_of(client.refresh(&w).await);
    w.engine.revoke(&scope(), client.session_id, EndReason::Banned, &ctx()).await.unwrap();
    let w = w.restored(backup).await;
    assert_eq!(w.session(client.session_id).await.ended.unwrap().reason, EndReason::Banned);
    assert_eq!(refusal_of(client.refresh(&w).await), TokenRefusal::Revoked(Some(EndReason::Banned)));
    assert!(w.verify(&client.access_token, false).await.is_err());
}

#[tokio::test]
async fn the_log_forgets_an_ending_when_nothing_can_bring_its_session_back() {
    let w = World::new().await;
    let tokens = w.sign_in("alice").await;
    let backup = w.store.backup();
    w.engine.revoke(&scope(), tokens.session.id, EndReason::Revoked, &ctx()).await.unwrap();
    w.clock.advance(tokens.session.expires_at.since(w.now()));
    w.clock.advance(Seconds(KEEPS_EXPIRED.0 - 1));
    w.engine.upkeep().await.unwrap();
    assert_eq!(w.log.endings().len(), 1);
    w.clock.advance(Seconds(60));
    w.engine.upkeep().await.unwrap();
    assert_eq!(w.log.endings(), []);
    let w = w.restored(backup).await;
    let refused = refusal_of(w.refresh(tokens.refresh_token.expose(), None).await);
    assert!(matches!(refused, TokenRefusal::Expired(_)), "{refused:?}");
}

#[tokio::test]
async fn a_revocation_that_a_running_servers_store_lost_holds() {
    let w = World::new().await;
    let other = w.second().await;
    let mut client = Client::sign_in(&w, "alice").await;
    let backup = w.store.backup();
    tokens_of(client.refresh(&w).await);
    w.engine.revoke(&scope(), client.session_id, EndReason::Revoked, &ctx()).await.unwrap();

    let revoked = TokenRefusal::Revoked(Some(EndReason::Revoked));
    w.store.restore(backup.clone());
    assert_eq!(other.verify(&client.access_token, true).await.unwrap_err(), revoked);
    w.store.restore(backup.clone());
    assert_eq!(refusal_of(client.refresh(&other).await), revoked);
    w.store.restore(backup);
    assert!(matches!(other.mint(&client.refresh_token).await, Minted::Refused(r) if r == revoked));
}

/// The upkeep of the one server that knows of it is enough, whether it had met the ending in the feed or not.
#[tokio::test]
async fn a_revocation_that_the_store_lost_is_carried_out_again_for_servers_with_other_logs() {
    for met in [false, true] {
        let w = World::new().await;
        let other = w.elsewhere().await;
        let mut client = Client::sign_in(&w, "alice").await;
        let backup = w.store.backup();
        w.engine.revoke(&scope(), client.session_id, EndReason::Revoked, &ctx()).await.unwrap();
        if met {
            w.engine.upkeep().await.unwrap();
        }
        w.store.restore(backup);
        assert_eq!(w.session(client.session_id).await.ended, None);
        // What fails on the way is not forgotten.
        for method in ["revocations", "session", "end"] {
            w.store.fail_before(method);
            assert!(w.engine.upkeep().await.is_err(), "{method}");
        }
        w.engine.upkeep().await.unwrap();
        assert_eq!(w.session(client.session_id).await.ended.unwrap().reason, EndReason::Revoked);
        assert_eq!(refusal_of(client.refresh(&other).await), TokenRefusal::Revoked(Some(EndReason::Revoked)));
        other.engine.upkeep().await.unwrap();
        assert!(other.log.ended(client.session_id).is_some());
        assert!(other.verify(&client.access_token, false).await.is_err());
    }
}

#[tokio::test]
async fn a_revocation_in_the_log_holds_where_the_backups_idle_clock_ran_out() {
    let (w, mut client) = restored_past_the_idle_expiry().await;
    // Its client signs out of what the row takes for an idle session.
    let token = PresentedToken::Refresh(&client.refresh_token);
    w.engine.sign_out(&scope(), token, &ctx()).await.unwrap().unwrap();
    let signed_out = TokenRefusal::Revoked(Some(EndReason::SignedOut));
    assert!(matches!(w.mint(&client.refresh_token).await, Minted::Refused(r) if r == signed_out));
    assert_eq!(refusal_of(client.refresh(&w).await), signed_out);
    assert_eq!(refusal_of(client.refresh(&w.second().await).await), signed_out);
}

#[tokio::test]
async fn a_session_that_started_after_the_backup_has_expired() {
    let w = World::new().await;
    let backup = w.store.backup();
    let mut client = Client::sign_in(&w, "alice").await;
    let w = w.restored(backup).await;
    assert_eq!(refusal_of(client.refresh(&w).await), TokenRefusal::Expired(Expiry::Absolute));
}

#[tokio::test]
async fn a_chosen_rollback_ends_what_was_refreshed_after_the_backup_and_nothing_else() {
    let w = World::new().await;
    let (mut moved, mut still) = (Client::sign_in(&w, "alice").await, Client::sign_in(&w, "bob").await);
    let (backup, from) = (w.store.backup(), w.now());
    tokens_of(moved.refresh(&w).await);
    w.log.append(vec![Record::Rollback { from, to: w.now() }]).await.unwrap();
    w.clock.advance(MINUTE);
    let w = w.restored(backup).await;
    let revoked = TokenRefusal::Revoked(Some(EndReason::Revoked));
    assert!(matches!(w.mint(&moved.refresh_token).await, Minted::Refused(r) if r == revoked));
    assert_eq!(refusal_of(moved.refresh(&w).await), revoked);
    assert_eq!(w.session(moved.session_id).await.ended.unwrap().reason, EndReason::Revoked);
    tokens_of(still.refresh(&w).await);
}

#[tokio::test]
async fn a_chosen_rollback_holds_where_the_backups_idle_clock_ran_out() {
    let (w, mut client) = restored_past_the_idle_expiry().await;
    w.log.append(vec![Record::Rollback { from: T0, to: w.now() }]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(refusal_of(client.refresh(&w).await), TokenRefusal::Revoked(Some(EndReason::Revoked)));
    }
}

#[tokio::test]
async fn a_server_with_another_secret_or_without_a_needed_one_does_not_start() {
    let w = World::new().await;
    let tokens = w.sign_in("alice").await;
    let open = |secrets: String| {
        let (store, log, clock) = (w.store.clone(), w.log.clone(), w.clock.clone());
        async move { World::open(store, log, clock, 4, &secrets).await.err().map(|e| e.to_string()) }
    };
    let other = open(secret(1, b'z')).await.unwrap();
    assert!(other.starts_with("the master secret with key id 1 is not the one"), "{other}");
    let missing = open(secret(2, b'b')).await.unwrap();
    assert!(missing.starts_with("1 live sessions carry tokens made with the master secret of key id 1"), "{missing}");
    assert_eq!(open(secret(2, b'b') + &secret(1, b'a')).await, None);
    let tokens = w.refreshed(&tokens).await;

    // No session needs the secret, but the key that signs does.
    w.engine.sign_out(&scope(), PresentedToken::Refresh(tokens.refresh_token.expose()), &ctx()).await.unwrap().unwrap();
    let missing = open(secret(2, b'b')).await.unwrap();
    let [(kid, ..)] = &w.engine.signing_keys(&scope()).await.unwrap()[..] else { panic!() };
    let says = format!("signing key `{kid}` of default/dev is encrypted with the master secret of key id 1");
    assert!(missing.starts_with(&says), "{missing}");
    w.engine.rotate_keys(&scope(), Rotation::Emergency, &ctx()).await.unwrap();
    let both =
        World::open(w.store.clone(), w.log.clone(), w.clock.clone(), 5, &(secret(2, b'b') + &secret(1, b'a'))).await;
    both.unwrap().engine.upkeep().await.unwrap();
    assert_eq!(open(secret(2, b'b')).await, None);
}

#[tokio::test]
async fn tokens_and_signing_keys_move_to_a_new_secret_and_the_old_one_can_go() {
    let w = World::new().await;
    let first = w.sign_in("alice").await;
    let both = secret(2, b'b') + &secret(1, b'a');
    let rotated = World::open(w.store.clone(), w.log.clone(), w.clock.clone(), 4, &both).await.unwrap();
    let second = rotated.refreshed(&first).await;
    assert_eq!([&first, &second].map(|t| t.session.position.kid), [1, 2]);
    assert_eq!(rotated.refreshed(&first).await.refresh_token, second.refresh_token);
    rotated.engine.upkeep().await.unwrap();
    let ScopeRead::Found(record) = w.store.scope(&scope()).await.unwrap() else { panic!() };
    assert!(!record.keys.is_empty() && record.keys.iter().all(|k| k.wrapped[0] == 2));

    let alone = World::open(w.store.clone(), w.log.clone(), w.clock.clone(), 5, &secret(2, b'b')).await.unwrap();
    let third = alone.refreshed(&second).await;
    assert!(alone.verify(third.access_token.expose(), true).await.is_ok());
    assert_eq!(refusal_of(alone.refresh(first.refresh_token.expose(), None).await), TokenRefusal::Malformed);
}

#[tokio::test]
async fn a_store_that_fails_logs_nobody_out() {
    type Fail = fn(&TestStore, &'static str);
    let ways: [Fail; 2] = [TestStore::fail_before, TestStore::fail_after];
    for fail in ways {
        for method in ["advance", "config_version"] {
            let w = World::new().await;
            let mut committed = Client::sign_in(&w, "alice").await;
            let bearer = w.sign_in("bob").await;
            w.clock.advance(MINUTE);
            fail(&w.store, method);
            assert!(matches!(committed.try_refresh(&w).await, Err(Error::Store(_))), "{method}");
            assert_eq!(tokens_of(committed.refresh(&w).await).session.position.generation, 1);
            w.clock.advance(MINUTE);
            fail(&w.store, method);
            let failed = w.refresh_as("lost", bearer.refresh_token.expose(), None).await;
            assert!(matches!(failed, Err(Error::Store(_))), "{method}");
            assert_eq!(w.refreshed(&bearer).await.session.position.generation, 1);
            w.clock.advance(DAY);
            assert_eq!(w.refreshed(&bearer).await.session.position.generation, 1);
        }
        // What a repeated refresh needs beside: reading the row, writing the confirmation and the event.
        for method in ["session", "confirm", "record"] {
            let w = World::new().await;
            let parent = w.sign_in("alice").await;
            let child = w.refreshed(&parent).await;
            w.verify(child.access_token.expose(), false).await.unwrap();
            if method == "session" {
                w.policy(json!({ "name": "Renamed" })).await;
                w.define(json!({ "tag": "another" })).await;
            }
            fail(&w.store, method);
            let failed = w.refresh_as("again", parent.refresh_token.expose(), None).await;
            assert!(matches!(failed, Err(Error::Store(_))), "{method}: {failed:?}");
            assert_eq!(w.refreshed(&parent).await.refresh_token, child.refresh_token);
        }
        let w = World::new().await;
        let mut client = Client::sign_in(&w, "alice").await;
        let backup = w.store.backup();
        tokens_of(client.refresh(&w).await);
        let w = w.restored(backup).await;
        fail(&w.store, "fast_forward");
        assert!(matches!(client.try_refresh(&w).await, Err(Error::Store(_))));
        assert_eq!(tokens_of(client.refresh(&w).await).session.position.generation, 2);
        assert!(!w.store.is_armed());
    }
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_is_repeated_with_its_key() {
    let w = World::new().await;
    w.sign_in("bob").await;
    for fail in [TestStore::fail_before, TestStore::fail_after] as [fn(&TestStore, &'static str); 2] {
        let request = StartRequest {
            idempotency_key: Some(format!("login at {}", w.now())),
            ..StartRequest::new(tag("default"), Some(user_id("alice")))
        };
        fail(&w.store, "start");
        assert!(matches!(w.start(request.clone()).await, Err(Error::Store(_))));
        let first = w.start(request.clone()).await.unwrap();
        assert_eq!(w.start(request).await.unwrap().refresh_token, first.refresh_token);
    }
    assert_eq!(w.engine.user(&scope(), &user_id("alice")).await.unwrap().sessions, 2);
}

#[tokio::test]
async fn a_sign_out_whose_answer_was_lost_is_completed_by_its_retry() {
    let w = World::new().await;
    let tokens = w.sign_in("alice").await;
    let (scope, ctx) = (scope(), ctx());
    let sign_out = || w.engine.sign_out(&scope, PresentedToken::Refresh(tokens.refresh_token.expose()), &ctx);
    w.store.fail_after("end");
    assert!(matches!(sign_out().await, Err(Error::Store(_))));
    assert_eq!(w.log.ended(tokens.session.id), None);
    sign_out().await.unwrap().unwrap();
    assert_eq!(w.log.ended(tokens.session.id).unwrap().reason, EndReason::SignedOut);
    assert!(w.verify(tokens.access_token.expose(), false).await.is_err());
}

/// Ends all of alice's sessions in one of the ways that may end many, named by the store's method.
async fn end_all_of_alice(w: &World, method: &str) -> Result<u64, Error> {
    let alice = user_id("alice");
    match method {
        "end_many" => {
            let which = EndAll { user_id: Some(alice), ..EndAll::default() };
            w.engine.revoke_all(&scope(), which, EndReason::CredentialChanged, &ctx()).await
        }
        "ban" => w.engine.ban(&scope(), &alice, None, None, &ctx()).await,
        "erase_user" => w.engine.erase_user(&scope(), &alice, &ctx()).await,
        other => panic!("{other} ends one session"),
    }
}

const WAYS_TO_END_MANY: [(&str, EndReason); 3] =
    [("end_many", EndReason::CredentialChanged), ("ban", EndReason::Banned), ("erase_user", EndReason::UserDeleted)];

#[tokio::test]
async fn many_endings_whose_answer_was_lost_are_in_the_log_when_their_retry_is_acknowledged() {
    for (method, reason) in WAYS_TO_END_MANY {
        let w = World::new().await;
        let mut client = Client::sign_in(&w, "alice").await;
        let backup = w.store.backup();
        w.store.fail_after(method);
        assert!(matches!(end_all_of_alice(&w, method).await, Err(Error::Store(_))), "{method}");
        assert_eq!(w.log.ended(client.session_id), None);
        assert_eq!(end_all_of_alice(&w, method).await.unwrap(), 0, "{method}");
        assert_eq!(w.log.ended(client.session_id).map(|e| e.reason), Some(reason), "{method}");
        w.store.restore(backup);
        assert_eq!(refusal_of(client.refresh(&w).await), TokenRefusal::Revoked(Some(reason)), "{method}");
    }
}

#[tokio::test]
async fn what_one_server_ended_without_knowing_it_another_servers_retry_logs() {
    let w = World::new().await;
    let other = w.second().await;
    let id = w.sign_in("alice").await.session.id;
    w.store.fail_after("end_many");
    assert!(end_all_of_alice(&w, "end_many").await.is_err());
    assert_eq!(end_all_of_alice(&other, "end_many").await.unwrap(), 0);
    assert!(w.log.ended(id).is_some());
}

#[tokio::test]
async fn many_endings_reach_a_row_that_only_looks_idle_after_a_restore() {
    for (method, reason) in WAYS_TO_END_MANY {
        for swept in [false, true] {
            let (w, mut client) = restored_past_the_idle_expiry().await;
            if swept {
                w.engine.sweep(w.now()).await.unwrap();
            }
            assert_eq!(end_all_of_alice(&w, method).await.unwrap(), 0, "{method}");
            assert_eq!(w.log.ended(client.session_id).map(|e| e.reason), Some(reason), "{method}");
            let refused = refusal_of(client.refresh(&w).await);
            if method == "erase_user" {
                assert_eq!(refused, TokenRefusal::Expired(Expiry::Absolute));
            } else {
                assert_eq!(refused, TokenRefusal::Revoked(Some(reason)), "{method}");
            }
        }
    }
}

#[tokio::test]
async fn the_feed_tells_an_ending_for_as_long_as_the_longest_access_token_that_ever_was() {
    let w = World::new().await;
    w.policy(json!({ "access_token": { "lifetime": 86_400 } })).await;
    let long = w.sign_in("alice").await;
    w.policy(json!({ "access_token": { "lifetime": 60 } })).await;
    w.define(json!({ "tag": "web", "access_token": { "lifetime": 2 * 86_400 } })).await;
    w.engine.delete_definition(&tag("default"), &tag("web"), &ctx()).await.unwrap();
    w.engine.revoke(&scope(), long.session.id, EndReason::Revoked, &ctx()).await.unwrap();
    let [entry] = &w.engine.revocations(&scope(), 0, 10).await.unwrap()[..] else { panic!() };
    assert!(entry.expires_at >= long.access_token_expires_at);
    assert_eq!(entry.expires_at, w.now() + days(2));
    // A server that starts later refuses the token, too.
    w.clock.advance(Seconds(12 * 3600));
    let later = World::on(w.store.clone(), Arc::default(), w.clock.clone(), 6).await;
    assert!(later.verify(long.access_token.expose(), false).await.is_err());
}

#[tokio::test]
async fn a_sign_out_of_an_idle_session_is_answered_and_logged() {
    for swept in [false, true] {
        let (w, client) = restored_past_the_idle_expiry().await;
        if swept {
            assert_eq!(w.engine.sweep(w.now()).await.unwrap().ended, 1);
        }
        for _ in 0..2 {
            let token = PresentedToken::Refresh(&client.refresh_token);
            assert_eq!(w.engine.sign_out(&scope(), token, &ctx()).await.unwrap(), Ok(()));
        }
        assert_eq!(w.log.ended(client.session_id).map(|e| e.reason), Some(EndReason::SignedOut));
        // Past the absolute expiry nothing brings a session back: the log need not know.
        let over = w.sign_in("bob").await;
        w.clock.set(over.session.expires_at);
        let token = PresentedToken::Refresh(over.refresh_token.expose());
        assert_eq!(w.engine.sign_out(&scope(), token, &ctx()).await.unwrap(), Ok(()));
        assert_eq!(w.log.ended(over.session.id), None);
    }
}

#[tokio::test]
async fn an_ending_that_the_log_cannot_take_is_an_error_and_is_logged_by_a_later_upkeep() {
    let w = World::new().await;
    let other = w.second().await;
    let (alice, bob) = (w.sign_in("alice").await, w.sign_in("bob").await);
    other.engine.revoke(&scope(), bob.session.id, EndReason::Revoked, &ctx()).await.unwrap();
    w.log.set_full(true);
    let failed = w.engine.revoke(&scope(), alice.session.id, EndReason::Revoked, &ctx()).await;
    assert!(matches!(failed, Err(Error::Log(_))), "{failed:?}");
    assert!(w.session(alice.session.id).await.ended.is_some());
    assert!(w.verify(alice.access_token.expose(), false).await.is_err());
    // The full disk keeps nothing else from being done.
    assert!(w.verify(bob.access_token.expose(), false).await.is_ok());
    assert!(matches!(w.engine.upkeep().await, Err(Error::Log(_))));
    assert!(w.verify(bob.access_token.expose(), false).await.is_err());
    assert_eq!(w.log.ended(alice.session.id), None);
    w.log.set_full(false);
    w.engine.upkeep().await.unwrap();
    assert!(w.log.ended(alice.session.id).is_some());
}

#[tokio::test]
async fn a_restarted_server_knows_from_its_first_request_what_was_revoked() {
    let w = World::new().await;
    let tokens = w.sign_in("alice").await;
    w.engine.revoke(&scope(), tokens.session.id, EndReason::Revoked, &ctx()).await.unwrap();
    let without_log = World::on(w.store.clone(), Arc::default(), w.clock.clone(), 6).await;
    assert!(without_log.verify(tokens.access_token.expose(), false).await.is_err());
}

#[tokio::test]
async fn sessions_go_on_in_a_copy_and_the_store_that_was_copied_stays_closed() {
    let w = World::new().await;
    let mut client = Client::sign_in(&w, "alice").await;
    tokens_of(client.refresh(&w).await);
    let (from, to) = (w.store.backup(), MemoryStore::new());
    let mark = |action: &str| rekindle_testkit::fixtures::audit(action, w.now());
    let copy = Copy::begin(&from, &to, mark(Copy::BEGIN)).await.unwrap();
    copy.finish(mark(Copy::FINISH), mark(Copy::RETIRE), |_| ()).await.unwrap();

    let there = w.restored(to).await;
    assert_eq!(tokens_of(client.refresh(&there).await).session.position.generation, 2);

    let old = TestStore::new(from);
    let open = async || World::open(old.clone(), Arc::default(), w.clock.clone(), 2, &secret(1, b'a')).await;
    let refused = open().await.err().expect("it is retired");
    assert!(matches!(refused, OpenError::Retired { .. }), "{refused}");
    old.append_audit(mark(Copy::REOPEN)).await.unwrap();
    assert!(open().await.is_ok());
}
