//! Rotation: repeated requests, thieves, clocks, policies, minting and elevation.

use rekindle::clock::{Seconds, Timestamp};
use rekindle::engine::*;
use rekindle::journal::{EventKind, Outcome};
use rekindle::refresh::Proof;
use rekindle::revocation_log::RevocationLog;
use rekindle::rotation::{Expiry, TheftKind};
use rekindle::session::{EndReason, Scope, SessionId};
use serde_json::json;

use crate::world::*;

fn is_theft(refusal: &TokenRefusal, expected: TheftKind) -> bool {
    matches!(refusal, TokenRefusal::Theft { kind, .. } if *kind == expected)
}

#[tokio::test]
async fn a_replayed_bearer_token_is_theft_and_ends_the_session_at_once() {
    let w = World::new().await;
    let first = w.sign_in("alice").await;
    let id = first.session.id;
    let second = tokens_of(w.refresh_as("second", first.refresh_token.expose(), None).await.unwrap());
    let third = tokens_of(w.refresh_as("third", second.refresh_token.expose(), None).await.unwrap());
    assert_eq!([&first, &second, &third].map(|t| t.session.position.generation), [0, 1, 2]);
    assert!(w.verify(third.access_token.expose(), false).await.is_ok());

    let refusal = refusal_of(w.refresh_as("thief", first.refresh_token.expose(), None).await.unwrap());
    let user_id = user_id("alice");
    assert_eq!(refusal, TokenRefusal::Theft { kind: TheftKind::Reused, session_id: id, user_id });

    let after = refusal_of(w.refresh(third.refresh_token.expose(), None).await);
    assert_eq!(after, TokenRefusal::Revoked(Some(EndReason::Theft)));
    let offline = w.verify(third.access_token.expose(), false).await.unwrap_err();
    assert_eq!(offline, TokenRefusal::Revoked(None));

    let told = w.engine.explain(&scope(), id).await.unwrap();
    let request = told.request.unwrap();
    assert_eq!((told.active, told.rule, request.request_id.as_deref()), (false, "theft_reused", Some("thief")));
    assert_eq!(request.counterpart.unwrap().request_id.as_deref(), Some("third"));
    use EventKind::*;
    assert_eq!(kinds(&w.events(id).await), [Start, Refresh, Refresh, TheftDetected, End]);
}

/// The same refresh, a thousand times over seventeen minutes and once more a day later.
async fn repeats(w: &World, id: SessionId, token: &str, proof: Option<Proof>) {
    let mut answers = Vec::new();
    for i in 0..1000 {
        if i == 999 {
            w.clock.advance(DAY);
        }
        answers.push(tokens_of(w.refresh(token, proof.clone()).await));
    }
    assert!(answers.iter().all(|t| t.session.position.generation == 1));
    assert_eq!(distinct(answers.iter().map(|t| t.refresh_token.expose())), 1);
    assert_eq!(distinct(answers.iter().map(|t| t.access_token.expose())), 1000);
    assert!(w.verify(answers[999].access_token.expose(), true).await.is_ok());
    let events = w.events(id).await;
    assert!(events.len() < 25, "{} events for one refresh", events.len());
    assert!(kinds(&events).iter().all(|k| matches!(k, EventKind::Start | EventKind::Refresh)));
}

#[tokio::test]
async fn a_bearer_refresh_repeated_a_thousand_times_gives_one_child() {
    let w = World::new().await;
    let first = w.sign_in("alice").await;
    repeats(&w, first.session.id, first.refresh_token.expose(), None).await;
}

#[tokio::test]
async fn a_committed_refresh_repeated_a_thousand_times_gives_one_child() {
    let w = World::new().await;
    let mut client = Client::sign_in(&w, "alice").await;
    let proof = client.proof(&w);
    repeats(&w, client.session_id, &client.refresh_token, Some(proof)).await;
}

#[tokio::test]
async fn a_bearer_parent_is_good_for_the_leeway_after_its_child_was_used() {
    let w = World::new().await;
    let parent = w.sign_in("alice").await;
    let child = w.refreshed(&parent).await;
    assert!(w.verify(child.access_token.expose(), false).await.is_ok());
    let again = w.refreshed(&parent).await;
    assert_eq!(again.refresh_token, child.refresh_token);
    assert!(w.session(parent.session.id).await.confirmed);
    w.clock.advance(Seconds(10));
    assert!(is_theft(&refusal_of(w.refresh(parent.refresh_token.expose(), None).await), TheftKind::Reused));
}

#[tokio::test]
async fn a_use_seen_by_one_server_is_known_to_others_after_its_upkeep() {
    let w = World::new().await;
    let other = w.second().await;
    let parent = w.sign_in("alice").await;
    let child = w.refreshed(&parent).await;
    assert!(other.verify(child.access_token.expose(), true).await.is_ok());
    assert_eq!(other.engine.upkeep().await.unwrap().confirmed, 1);
    w.clock.advance(Seconds(10));
    assert!(is_theft(&refusal_of(w.refresh(parent.refresh_token.expose(), None).await), TheftKind::Reused));
}

#[tokio::test]
async fn a_use_that_could_not_be_written_down_is_not_forgotten() {
    for fail in [TestStore::fail_before, TestStore::fail_after] as [fn(&TestStore, &'static str); 2] {
        let w = World::new().await;
        let parent = w.sign_in("alice").await;
        let child = w.refreshed(&parent).await;
        w.verify(child.access_token.expose(), false).await.unwrap();
        fail(&w.store, "confirm");
        assert!(matches!(w.engine.upkeep().await, Err(Error::Store(_))));
        assert_eq!(w.engine.upkeep().await.unwrap().confirmed, 1);
        assert!(w.session(parent.session.id).await.confirmed);

        let grandchild = w.refreshed(&child).await;
        w.verify(grandchild.access_token.expose(), false).await.unwrap();
        w.clock.advance(MINUTE);
        fail(&w.store, "confirm");
        let replay = w.refresh_as("replay", child.refresh_token.expose(), None).await;
        assert!(matches!(replay, Err(Error::Store(_))), "{replay:?}");
        assert!(is_theft(&refusal_of(w.refresh(child.refresh_token.expose(), None).await), TheftKind::Reused));
    }
}

#[tokio::test]
async fn of_two_uses_that_wait_the_newer_one_stays() {
    let w = World::new().await;
    let first = w.sign_in("alice").await;
    let second = w.refreshed(&first).await;
    w.verify(second.access_token.expose(), false).await.unwrap();
    let (engine, third) = (w.engine.clone(), w.refreshed(&second).await);
    // While the older one is on its way to a store that fails, the newer one comes to wait.
    w.store.fail_after_that("confirm", async move {
        engine.verify(&scope(), third.access_token.expose(), None, false).await.unwrap();
    });
    assert!(w.engine.upkeep().await.is_err());
    assert_eq!(w.engine.upkeep().await.unwrap().confirmed, 1);
    assert!(w.session(first.session.id).await.confirmed);
}

#[tokio::test]
async fn an_authentication_that_is_too_large_for_tokens_is_refused() {
    let w = World::new().await;
    let auth = |acr: usize, methods: usize, each: usize| rekindle::session::Auth {
        time: w.now(),
        acr: Some("é".repeat(acr / 2)),
        amr: vec!["x".repeat(each); methods],
    };
    let start = |auth| w.start(StartRequest { auth: Some(auth), ..StartRequest::new(tag("default"), None) });
    let tokens = start(auth(128, 16, 128)).await.unwrap();
    for (auth, field) in [(auth(130, 0, 0), "auth.acr"), (auth(0, 17, 1), "auth.amr"), (auth(0, 1, 129), "auth.amr")] {
        let refused = start(auth.clone()).await.unwrap_err();
        assert!(matches!(refused, Error::Invalid { field: f, .. } if f == field), "{refused:?}");
        let refresh = Refresh { refresh_token: tokens.refresh_token.expose(), tag: None, proof: None };
        let refused = w.engine.elevate(&scope(), Elevate { refresh, auth }, &ctx()).await.unwrap_err();
        assert!(matches!(refused, Error::Invalid { field: f, .. } if f == field), "{refused:?}");
    }
    assert_eq!(w.session(tokens.session.id).await.position.generation, 0);
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_cut_in_the_journal() {
    let w = World::new().await;
    let tokens = w.sign_in("alice").await;
    let long = Some(format!("x{}", "é".repeat(300)));
    let client = rekindle::session::Client { ip: long.clone(), user_agent: long.clone(), device: long };
    let from = rekindle::journal::Context { client, ..ctx() };
    let refresh = Refresh { refresh_token: tokens.refresh_token.expose(), tag: None, proof: None };
    tokens_of(w.engine.refresh(&scope(), refresh, &from).await.unwrap());
    w.engine.revoke(&scope(), tokens.session.id, EndReason::Revoked, &from).await.unwrap();
    let cut = format!("x{}", "é".repeat(255));
    for event in w.events(tokens.session.id).await.iter().filter(|e| e.kind != EventKind::Start) {
        let client = &event.client;
        for text in [&client.ip, &client.user_agent, &client.device] {
            assert_eq!(text.as_ref(), Some(&cut), "{:?}", event.kind);
        }
    }
    assert_eq!(w.engine.audit_log(None, 1).await.unwrap()[0].ip.as_ref(), Some(&cut));
}

#[tokio::test]
async fn only_the_present_generation_of_an_active_session_of_the_scope_is_confirmed() {
    let w = World::new().await;
    let e = rekindle::store::Environment { slug: "prd".parse().unwrap(), name: "Production".into(), active: true };
    w.engine.create_environment(&tag("default"), e, &ctx()).await.unwrap();
    let child = w.refreshed(&w.sign_in("alice").await).await;
    let id = child.session.id;
    let other_scope = Scope { env: "prd".parse().unwrap(), ..scope() };
    let unknown = SessionId::from_bytes([9; 16]);
    for (scope, seen) in
        [(scope(), (id, 1_000_000_000)), (scope(), (id, 0)), (other_scope, (id, 1)), (scope(), (unknown, 1))]
    {
        w.engine.confirm(&scope, vec![seen]).await.unwrap();
        assert!(!w.session(id).await.confirmed, "{scope} {seen:?}");
    }
    w.engine.confirm(&scope(), vec![(unknown, 1), (id, 1)]).await.unwrap();
    assert!(w.session(id).await.confirmed);

    let ended = w.refreshed(&w.sign_in("bob").await).await.session.id;
    w.engine.revoke(&scope(), ended, EndReason::Revoked, &ctx()).await.unwrap();
    w.engine.confirm(&scope(), vec![(ended, 1)]).await.unwrap();
    assert!(!w.session(ended).await.confirmed);
}

#[tokio::test]
async fn a_minted_token_carries_the_presented_generation_and_confirms_nothing() {
    let w = World::new().await;
    let parent = w.sign_in("alice").await;
    let child = w.refreshed(&parent).await;
    for (refresh_token, generation) in [(&parent.refresh_token, 0), (&child.refresh_token, 1)] {
        let Minted::Token { access_token, expires_at, session } = w.mint(refresh_token.expose()).await else {
            panic!()
        };
        assert_eq!((expires_at, session.position.generation), (w.now() + MINUTE, 1));
        let Ok(Active::Token(said)) = w.verify(access_token.expose(), false).await else { panic!() };
        assert_eq!((said.generation, said.expires_at), (generation, expires_at));
    }
    assert_eq!(w.engine.upkeep().await.unwrap().confirmed, 0);
    assert!(!w.session(parent.session.id).await.confirmed);
    assert_eq!(w.session(parent.session.id).await.position.generation, 1);
}

#[tokio::test]
async fn a_mint_with_a_token_too_old_is_superseded_and_never_theft() {
    let w = World::new().await;
    let first = w.sign_in("alice").await;
    let last = w.refreshed(&w.refreshed(&first).await).await;
    for _ in 0..3 {
        let Minted::Refused(TokenRefusal::Superseded(standing)) = w.mint(first.refresh_token.expose()).await else {
            panic!()
        };
        assert_eq!((standing.generation, standing.presented_generation), (2, 0));
    }
    let events = w.events(first.session.id).await;
    let minted: Vec<_> = events.iter().filter(|e| e.kind == EventKind::Mint).map(|e| e.outcome).collect();
    assert_eq!(minted, [Some(Outcome::Superseded)]);
    w.refreshed(&last).await;
}

#[tokio::test]
async fn minting_has_limits_and_can_be_switched_off() {
    let w = World::new().await;
    let tokens = w.sign_in("alice").await;
    let refresh_token = tokens.refresh_token.expose();
    for lifetime in [0, 61] {
        let mint = Mint { refresh_token, lifetime: Some(Seconds(lifetime)) };
        let refused = w.engine.mint(&scope(), mint, &ctx()).await;
        assert!(matches!(refused, Err(Error::Invalid { field: "lifetime", .. })), "{refused:?}");
    }
    w.policy(json!({ "refresh": { "mint": "off" } })).await;
    let refused = w.engine.mint(&scope(), Mint { refresh_token, lifetime: None }, &ctx()).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    assert!(matches!(
        w.engine.mint(&scope(), Mint { refresh_token: "rkr_", lifetime: None }, &ctx()).await,
        Ok(Minted::Refused(TokenRefusal::Malformed))
    ));
}

#[tokio::test]
async fn a_stolen_cookie_mints_until_a_minute_after_its_owners_next_refresh() {
    let w = World::new().await;
    let mut owner = Client::sign_in(&w, "alice").await;
    let stolen = owner.refresh_token.clone();
    w.clock.advance(DAY);
    assert!(matches!(w.mint(&stolen).await, Minted::Token { .. }));
    tokens_of(owner.refresh(&w).await);
    w.clock.advance(Seconds(59));
    assert!(matches!(w.mint(&stolen).await, Minted::Token { .. }));
    w.clock.advance(Seconds(1));
    assert!(matches!(w.mint(&stolen).await, Minted::Refused(TokenRefusal::Superseded(_))));
    tokens_of(owner.refresh(&w).await);
}

/// 64 refreshes of one session at once, each with its own proof.
async fn at_once(w: &World, token: &str, proofs: Vec<Proof>) -> Vec<RefreshOutcome> {
    let mut tasks = tokio::task::JoinSet::new();
    for proof in proofs {
        let (engine, token) = (w.engine.clone(), token.to_owned());
        tasks.spawn(async move {
            let refresh = Refresh { refresh_token: &token, tag: None, proof: Some(proof) };
            engine.refresh(&scope(), refresh, &ctx()).await.unwrap()
        });
    }
    tasks.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_tabs_with_one_next_commitment_get_one_child() {
    let w = World::new().await;
    let mut client = Client::sign_in(&w, "alice").await;
    let proofs = vec![client.proof(&w); 64];
    let answers: Vec<_> = at_once(&w, &client.refresh_token, proofs).await.into_iter().map(tokens_of).collect();
    assert_eq!(answers.len(), 64);
    assert!(answers.iter().all(|t| t.session.position.generation == 1));
    assert_eq!(distinct(answers.iter().map(|t| t.refresh_token.expose())), 1);
    client.keep(&answers[0]);
    tokens_of(client.refresh(&w).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_copies_with_different_next_commitments_get_one_child_and_then_theft() {
    let w = World::new().await;
    let client = Client::sign_in(&w, "alice").await;
    let proofs = (0..64).map(|_| client.clone().proof(&w)).collect();
    let answers = at_once(&w, &client.refresh_token, proofs).await;
    let refused: Vec<_> = answers
        .iter()
        .filter_map(|a| match a {
            RefreshOutcome::Refreshed(_) => None,
            RefreshOutcome::Refused(refusal) => Some(refusal),
        })
        .collect();
    assert_eq!(refused.len(), 63);
    assert_eq!(refused.iter().filter(|r| is_theft(r, TheftKind::Forked)).count(), 1);
    assert_eq!(refused.iter().filter(|r| ***r == TokenRefusal::Revoked(Some(EndReason::Theft))).count(), 62);
    assert_eq!(w.engine.explain(&scope(), client.session_id).await.unwrap().rule, "theft_forked");
}

#[tokio::test]
async fn two_copies_of_a_client_are_seen_however_far_one_has_moved() {
    let w = World::new().await;
    let mut owner = Client::sign_in(&w, "alice").await;
    let mut thief = owner.clone();
    tokens_of(thief.refresh(&w).await);
    assert!(is_theft(&refusal_of(owner.refresh(&w).await), TheftKind::Forked));

    let mut owner = Client::sign_in(&w, "alice").await;
    let mut thief = owner.clone();
    for _ in 0..2 {
        tokens_of(thief.refresh(&w).await);
    }
    let TokenRefusal::Superseded(standing) = refusal_of(owner.refresh(&w).await) else { panic!() };
    assert_eq!((standing.generation, standing.presented_generation), (2, 0));
    assert_eq!(standing.commitment, thief.commitment);
    let newest = Proof { newest: true, ..owner.proof(&w) };
    assert!(is_theft(&refusal_of(w.refresh(&owner.refresh_token, Some(newest)).await), TheftKind::Forked));
    assert_eq!(refusal_of(thief.refresh(&w).await), TokenRefusal::Revoked(Some(EndReason::Theft)));
}

#[tokio::test]
async fn an_overtaken_client_that_cannot_show_it_signs_out_with_any_token() {
    let w = World::new().await;
    let mut owner = Client::sign_in(&w, "alice").await;
    let old = owner.refresh_token.clone();
    for _ in 0..2 {
        tokens_of(owner.refresh(&w).await);
    }
    let mut thief = owner.clone();
    tokens_of(thief.refresh(&w).await);
    // The cookie went back to a generation whose opening is not kept: `newest` counts for that generation only.
    for newest in [false, true] {
        let proof = Proof { newest, ..owner.proof(&w) };
        let refusal = refusal_of(w.refresh(&old, Some(proof)).await);
        assert!(matches!(refusal, TokenRefusal::Superseded(_)), "{refusal:?}");
    }
    w.engine.sign_out(&scope(), PresentedToken::Refresh(&old), &ctx()).await.unwrap().unwrap();
    assert_eq!(refusal_of(thief.refresh(&w).await), TokenRefusal::Revoked(Some(EndReason::SignedOut)));
}

#[tokio::test]
async fn a_stolen_token_with_a_wrong_opening_is_theft() {
    let w = World::new().await;
    let owner = Client::sign_in(&w, "alice").await;
    let mut other = Client::sign_in(&w, "mallory").await;
    let guessed = Proof { session_id: owner.session_id, ..other.proof(&w) };
    let refusal = refusal_of(w.refresh(&owner.refresh_token, Some(guessed)).await);
    assert!(is_theft(&refusal, TheftKind::StolenToken), "{refusal:?}");
    assert_eq!(w.session(owner.session_id).await.ended.unwrap().reason, EndReason::Theft);
}

#[tokio::test]
async fn a_stolen_token_alone_moves_nothing_and_ends_nothing() {
    let w = World::new().await;
    let mut owner = Client::sign_in(&w, "alice").await;
    let old = owner.refresh_token.clone();
    for _ in 0..3 {
        tokens_of(owner.refresh(&w).await);
    }
    for (stolen, m) in [(&old, 0), (&owner.refresh_token.clone(), 3)] {
        let before = w.session(owner.session_id).await;
        let TokenRefusal::ProofRequired(standing) = refusal_of(w.refresh(stolen, None).await) else { panic!() };
        assert_eq!((standing.generation, standing.presented_generation), (3, m));
        assert_eq!((standing.session_id, standing.commitment), (owner.session_id, owner.commitment));
        assert_eq!(w.session(owner.session_id).await, before);
    }
    tokens_of(owner.refresh(&w).await);
    assert_eq!(w.outcomes(owner.session_id, Outcome::ProofRequired).await, 2);
}

#[tokio::test]
async fn a_bearer_client_upgrades_and_its_delayed_twin_does_no_harm() {
    let w = World::new().await;
    let first = w.sign_in("alice").await;
    let mut client = Client::of(&first);
    let sent = client.proof(&w);
    let upgraded = tokens_of(client.refresh(&w).await);
    assert!(upgraded.session.position.commitment.is_some());
    assert!(w.verify(&client.access_token, false).await.is_ok());
    w.clock.advance(DAY);
    let twin = tokens_of(w.refresh(first.refresh_token.expose(), Some(sent.clone())).await);
    assert_eq!(twin.refresh_token, upgraded.refresh_token);
    tokens_of(client.refresh(&w).await);
    let late = refusal_of(w.refresh(first.refresh_token.expose(), Some(sent)).await);
    assert!(matches!(late, TokenRefusal::Superseded(_)), "{late:?}");
    tokens_of(client.refresh(&w).await);
}

#[tokio::test]
async fn an_expired_session_says_which_clock_ran_out_before_and_after_a_sweep() {
    let w = World::new().await;
    let mut idle = Client::sign_in(&w, "alice").await;
    let mut absolute = Client::sign_in(&w, "bob").await;
    for _ in 0..2 {
        w.clock.advance(days(10));
        tokens_of(absolute.refresh(&w).await);
    }
    for noted in [1, 0] {
        assert_eq!(refusal_of(idle.refresh(&w).await), TokenRefusal::Expired(Expiry::Idle));
        assert_eq!(w.engine.sweep(w.now()).await.unwrap().ended, noted);
    }
    for _ in 0..6 {
        w.clock.advance(days(10));
        tokens_of(absolute.refresh(&w).await);
    }
    w.clock.advance(days(10));
    for _ in 0..2 {
        assert_eq!(refusal_of(absolute.refresh(&w).await), TokenRefusal::Expired(Expiry::Absolute));
        assert!(matches!(
            w.mint(&absolute.refresh_token).await,
            Minted::Refused(TokenRefusal::Expired(Expiry::Absolute))
        ));
        w.engine.sweep(w.now()).await.unwrap();
    }
}

#[tokio::test]
async fn expires_in_only_shortens_and_no_access_token_outlives_its_session() {
    let w = World::new().await;
    let ask = |seconds| StartRequest {
        expires_in: Some(Seconds(seconds)),
        ..StartRequest::new(tag("default"), Some(user_id("alice")))
    };
    let short = w.start(ask(60)).await.unwrap();
    let end = w.now() + MINUTE;
    assert_eq!([short.session.expires_at, short.access_token_expires_at, short.refresh_token_expires_at], [end; 3]);
    w.clock.advance(Seconds(50));
    let refreshed = w.refreshed(&short).await;
    assert_eq!(
        [refreshed.session.expires_at, refreshed.access_token_expires_at, refreshed.refresh_token_expires_at],
        [end; 3]
    );
    w.clock.set(end);
    assert_eq!(w.verify(refreshed.access_token.expose(), false).await.unwrap_err(), TokenRefusal::AccessExpired);

    assert_eq!(w.start(ask(u64::MAX)).await.unwrap().session.expires_at, w.now() + days(90));
    assert!(matches!(w.start(ask(0)).await, Err(Error::Invalid { field: "expires_in", .. })));
}

#[tokio::test]
async fn the_absolute_expiry_never_moves() {
    let w = World::new().await;
    let mut client = Client::sign_in(&w, "alice").await;
    let expires_at = w.session(client.session_id).await.expires_at;
    for _ in 0..10_000 {
        tokens_of(client.refresh(&w).await);
    }
    let session = w.session(client.session_id).await;
    assert_eq!((session.position.generation, session.expires_at), (10_000, expires_at));
    w.clock.set(Timestamp::from_millis(expires_at.millis() - 2000));
    // The idle clock had run out long before.
    assert_eq!(refusal_of(client.refresh(&w).await), TokenRefusal::Expired(Expiry::Idle));
}

#[tokio::test]
async fn revoke_user_ends_all_of_the_users_sessions() {
    let w = World::new().await;
    w.policy(json!({ "refresh": { "on_theft": "revoke_user" } })).await;
    let (stolen, other, bobs) = (w.sign_in("alice").await, w.sign_in("alice").await, w.sign_in("bob").await);
    w.refreshed(&w.refreshed(&stolen).await).await;
    assert!(is_theft(&refusal_of(w.refresh(stolen.refresh_token.expose(), None).await), TheftKind::Reused));
    for (tokens, rule) in [(&stolen, "theft_reused"), (&other, "theft_in_another_session")] {
        let told = w.engine.explain(&scope(), tokens.session.id).await.unwrap();
        assert_eq!((told.rule, told.end_reason, told.request.is_some()), (rule, Some(EndReason::Theft), true));
        assert!(w.log.ended(tokens.session.id).is_some());
    }
    assert!(w.verify(other.access_token.expose(), false).await.is_err());
    w.refreshed(&bobs).await;
}

#[tokio::test]
async fn revoke_user_is_carried_out_whole_by_the_retry_of_a_request_that_failed() {
    for method in ["end_many", "end"] {
        let w = World::new().await;
        w.policy(json!({ "refresh": { "on_theft": "revoke_user" } })).await;
        let (stolen, other) = (w.sign_in("alice").await, w.sign_in("alice").await);
        w.refreshed(&w.refreshed(&stolen).await).await;
        w.store.fail_before(method);
        let failed = w.refresh_as("thief", stolen.refresh_token.expose(), None).await;
        assert!(matches!(failed, Err(Error::Store(_))), "{failed:?}");
        assert!(is_theft(&refusal_of(w.refresh(stolen.refresh_token.expose(), None).await), TheftKind::Reused));
        for tokens in [&stolen, &other] {
            assert_eq!(w.session(tokens.session.id).await.ended.unwrap().reason, EndReason::Theft, "{method}");
        }
    }
}

#[tokio::test]
async fn report_only_leaves_the_session_alive_and_records_once() {
    let w = World::new().await;
    w.policy(json!({ "refresh": { "on_theft": "report_only" } })).await;
    let first = w.sign_in("alice").await;
    w.store.fail_before("record");
    let last = w.refreshed(&w.refreshed(&first).await).await;
    assert!(matches!(w.refresh_as("thief", first.refresh_token.expose(), None).await, Err(Error::Store(_))));
    for _ in 0..3 {
        assert!(is_theft(&refusal_of(w.refresh(first.refresh_token.expose(), None).await), TheftKind::Reused));
    }
    w.refreshed(&last).await;
    let events = w.events(first.session.id).await;
    let thefts: Vec<_> = events.iter().filter(|e| e.kind == EventKind::TheftDetected).collect();
    assert_eq!(thefts.len(), 1);
    assert!(thefts[0].counterpart.is_some());

    w.engine.revoke(&scope(), first.session.id, EndReason::Theft, &request_of("later")).await.unwrap();
    let told = w.engine.explain(&scope(), first.session.id).await.unwrap();
    assert_eq!(told.rule, "theft_in_another_session");
    assert_eq!(told.request.unwrap().request_id.as_deref(), Some("later"));
}

#[tokio::test]
async fn on_missing_proof_revoke_ends_the_session() {
    let w = World::new().await;
    w.policy(json!({ "refresh": { "on_missing_proof": "revoke" } })).await;
    let owner = Client::sign_in(&w, "alice").await;
    assert!(is_theft(&refusal_of(w.refresh(&owner.refresh_token, None).await), TheftKind::Reused));
    assert!(w.session(owner.session_id).await.ended.is_some());
}

#[tokio::test]
async fn on_missing_proof_downgrade_goes_on_as_bearer_and_its_parent_is_theft_once_the_child_is_used() {
    let w = World::new().await;
    w.policy(json!({ "refresh": { "on_missing_proof": "downgrade" } })).await;
    let evicted = Client::sign_in(&w, "alice").await;
    let child = tokens_of(w.refresh(&evicted.refresh_token, None).await);
    assert!(child.session.position.commitment.is_none());
    let retried = tokens_of(w.refresh(&evicted.refresh_token, None).await);
    assert_eq!(retried.refresh_token, child.refresh_token);
    assert!(w.verify(child.access_token.expose(), false).await.is_ok());
    assert!(is_theft(&refusal_of(w.refresh(&evicted.refresh_token, None).await), TheftKind::Reused));
}

#[tokio::test]
async fn after_an_elevation_older_access_tokens_are_refused_here_at_once_and_elsewhere_after_upkeep() {
    let w = World::new().await;
    let other = w.second().await;
    let mut client = Client::sign_in(&w, "alice").await;
    let old = client.access_token.clone();
    let auth = second_factor(&w);
    let proof = client.proof(&w);
    let elevate = || Elevate {
        refresh: Refresh { refresh_token: &client.refresh_token, tag: None, proof: Some(proof.clone()) },
        auth: auth.clone(),
    };
    let elevated = tokens_of(w.engine.elevate(&scope(), elevate(), &ctx()).await.unwrap());
    assert_eq!((elevated.session.position.generation, &elevated.session.auth), (1, &auth));
    for online in [false, true] {
        assert_eq!(w.verify(&old, online).await.unwrap_err(), TokenRefusal::AccessExpired);
    }
    assert_eq!(other.verify(&old, true).await.unwrap_err(), TokenRefusal::AccessExpired);
    assert!(other.verify(&old, false).await.is_ok());
    assert_eq!(other.engine.upkeep().await.unwrap().revocations, 1);
    assert_eq!(other.verify(&old, false).await.unwrap_err(), TokenRefusal::AccessExpired);
    for server in [&w, &other] {
        let Ok(Active::Token(said)) = server.verify(elevated.access_token.expose(), false).await else { panic!() };
        assert_eq!(said.auth, auth);
    }
    let again = tokens_of(w.engine.elevate(&scope(), elevate(), &ctx()).await.unwrap());
    assert_eq!(again.refresh_token, elevated.refresh_token);
}

#[tokio::test]
async fn an_elevation_that_another_tabs_refresh_overtook_is_carried_out_in_place() {
    let w = World::new().await;
    let mut client = Client::sign_in(&w, "alice").await;
    let (proof, token, old) = (client.proof(&w), client.refresh_token.clone(), client.access_token.clone());
    let refreshed = tokens_of(client.refresh(&w).await);
    let auth = second_factor(&w);
    for _ in 0..3 {
        w.clock.advance(Seconds(1));
        let refresh = Refresh { refresh_token: &token, tag: None, proof: Some(proof.clone()) };
        let elevated = w.engine.elevate(&scope(), Elevate { refresh, auth: auth.clone() }, &ctx()).await;
        let elevated = tokens_of(elevated.unwrap());
        assert_eq!(elevated.refresh_token, refreshed.refresh_token);
        assert_eq!((elevated.session.auth, elevated.session.min_generation), (auth.clone(), 1));
    }
    assert_eq!(w.verify(&old, false).await.unwrap_err(), TokenRefusal::AccessExpired);
    let events = w.events(client.session_id).await;
    let [elevation] = &events.iter().filter(|e| e.kind == EventKind::Elevate).collect::<Vec<_>>()[..] else { panic!() };
    // The session did not move.
    assert_eq!((elevation.outcome, elevation.generation), (Some(Outcome::Reissued), 1));
    assert_eq!(elevation.presented_generation, Some(0));
    tokens_of(client.refresh(&w).await);
}

#[tokio::test]
async fn a_refresh_is_one_round_trip_and_a_forged_token_none() {
    let w = World::new().await;
    let mut client = Client::sign_in(&w, "alice").await;
    tokens_of(client.refresh(&w).await);
    w.store.take_calls();
    tokens_of(client.refresh(&w).await);
    assert_eq!(w.store.take_calls().into_iter().filter(|c| *c != "config_version").collect::<Vec<_>>(), ["advance"]);
    let forged = client.refresh_token.replace("rkr_A", "rkr_B");
    assert_eq!(refusal_of(w.refresh(&forged, None).await), TokenRefusal::Malformed);
    assert!(w.store.take_calls().is_empty());
}
