//! Scopes, configuration, signing keys, API keys, and what never is printed.

use rekindle::clock::{Seconds, Timestamp};
use rekindle::engine::*;
use rekindle::refresh::Opening;
use rekindle::rotation::TheftKind;
use rekindle::session::{EndReason, Scope};
use rekindle::store::{ApiKey, Environment, EnvironmentPatch, Permission, Product, ScopeRead, Store};
use serde_json::{Value, json};

use crate::world::*;

fn environment(slug: &str, active: bool) -> Environment {
    Environment { slug: slug.parse().unwrap(), name: slug.into(), active }
}

/// The product `shop` with the environment `prd` and the definitions `web` and `app`.
async fn shop(w: &World) -> Scope {
    let (shop, ctx) = (tag("shop"), ctx());
    w.engine.create_product(Product { tag: shop.clone(), name: "Shop".into() }, &ctx).await.unwrap();
    w.engine.create_environment(&shop, environment("prd", true), &ctx).await.unwrap();
    for definition in [json!({ "tag": "web" }), json!({ "tag": "app" })] {
        let definition = rekindle::definition::Definition::from_json(&definition).unwrap();
        w.engine.create_definition(&shop, definition, &ctx).await.unwrap();
    }
    Scope { product: shop, env: "prd".parse().unwrap() }
}

#[tokio::test]
async fn scopes_never_mix() {
    let w = World::new().await;
    let shop = shop(&w).await;
    let tokens = w.sign_in("alice").await;
    let (id, access_token, refresh_token) =
        (tokens.session.id, tokens.access_token.expose(), tokens.refresh_token.expose());
    let ctx = ctx();
    let refresh = Refresh { refresh_token, tag: None, proof: None };
    assert_eq!(refusal_of(w.engine.refresh(&shop, refresh, &ctx).await.unwrap()), TokenRefusal::ScopeMismatch);
    let mint = Mint { refresh_token, lifetime: None };
    assert!(matches!(w.engine.mint(&shop, mint, &ctx).await.unwrap(), Minted::Refused(TokenRefusal::ScopeMismatch)));
    let sign_out = w.engine.sign_out(&shop, PresentedToken::Refresh(refresh_token), &ctx).await.unwrap();
    assert_eq!(sign_out, Err(TokenRefusal::ScopeMismatch));
    // An access token of another scope was signed by a key that is unknown here.
    let sign_out = w.engine.sign_out(&shop, PresentedToken::Access(access_token), &ctx).await.unwrap();
    assert_eq!(sign_out, Err(TokenRefusal::Malformed));
    for online in [false, true] {
        let verified = w.engine.verify(&shop, access_token, None, online).await.unwrap();
        assert!(matches!(verified, VerifyOutcome::Inactive(TokenRefusal::Malformed)));
    }
    let not_found = Error::SessionNotFound(id);
    assert_eq!(w.engine.session(&shop, id).await.unwrap_err(), not_found);
    assert_eq!(w.engine.patch(&shop, id, Patch::default(), &ctx).await.unwrap_err(), not_found);
    assert_eq!(w.engine.revoke(&shop, id, EndReason::Revoked, &ctx).await.unwrap_err(), not_found);
    assert_eq!(w.engine.explain(&shop, id).await.unwrap_err(), not_found);
    assert_eq!(w.engine.revoke_all(&shop, EndAll::default(), EndReason::Revoked, &ctx).await.unwrap(), 0);
    w.refreshed(&tokens).await;
}

#[tokio::test]
async fn a_scope_is_read_once_and_gets_one_key_however_many_ask_at_once() {
    for slow in ["scope", "add_signing_key"] {
        let w = World::new().await;
        let shop = shop(&w).await;
        w.store.take_calls();
        w.store.before(slow, tokio::time::sleep(std::time::Duration::from_millis(50)));
        let starts = (0..64).map(|n| {
            let (engine, shop) = (w.engine.clone(), shop.clone());
            tokio::spawn(async move {
                let request = StartRequest::new(tag("web"), Some(user_id(&format!("user {n}"))));
                engine.start(&shop, request, &request_of(&format!("start {n}"))).await.unwrap()
            })
        });
        for start in starts.collect::<Vec<_>>() {
            start.await.unwrap();
        }
        let calls = w.store.take_calls();
        let count = |wanted| calls.iter().filter(|c| **c == wanted).count();
        // Once without the key, once with it.
        assert_eq!((count("scope"), count("add_signing_key")), (2, 1), "{slow} was slow");
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_keeps_no_other_from_asking() {
    let w = World::new().await;
    w.sign_in("alice").await;
    let off = EnvironmentPatch { active: Some(false), name: None };
    w.second().await.engine.update_environment(scope(), off, &ctx()).await.unwrap();
    w.clock.advance(Seconds(3));
    w.store.before("config_version", std::future::pending());
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(10), w.engine.jwks(&scope())).await;
    assert!(given_up.is_err());
    let refused = w.start(StartRequest::new(tag("default"), None)).await.unwrap_err();
    assert_eq!(refused, Error::EnvironmentInactive(scope()));
}

#[tokio::test]
async fn a_scope_that_could_not_be_read_is_read_again() {
    let w = World::new().await;
    let unknown = Scope { product: tag("shop"), env: "prd".parse().unwrap() };
    assert!(matches!(w.engine.jwks(&unknown).await, Err(Error::ProductNotFound(_))));
    let shop = shop(&w).await;
    w.store.fail_before("scope");
    assert!(matches!(w.engine.jwks(&shop).await, Err(Error::Store(_))));
    w.engine.jwks(&shop).await.unwrap();
}

#[tokio::test]
async fn a_token_of_one_definition_is_refused_where_another_is_asked_for() {
    let w = World::new().await;
    let shop = shop(&w).await;
    let alice = StartRequest::new(tag("web"), Some(user_id("alice")));
    let tokens = w.engine.start(&shop, alice, &ctx()).await.unwrap();
    let refresh = |asked: &str| {
        let (engine, shop, asked) = (w.engine.clone(), shop.clone(), tag(asked));
        let token = tokens.refresh_token.expose().to_owned();
        async move {
            let refresh = Refresh { refresh_token: &token, tag: Some(asked), proof: None };
            engine.refresh(&shop, refresh, &ctx()).await.unwrap()
        }
    };
    for other in ["app", "unknown"] {
        assert_eq!(refusal_of(refresh(other).await), TokenRefusal::ScopeMismatch);
        let verified = w.engine.verify(&shop, tokens.access_token.expose(), Some(&tag(other)), false).await.unwrap();
        assert!(matches!(verified, VerifyOutcome::Inactive(TokenRefusal::ScopeMismatch)));
    }
    tokens_of(refresh("web").await);
    // Also where there is only one definition, so that the token's own can be guessed.
    let tokens = w.sign_in("bob").await;
    let refresh = Refresh { refresh_token: tokens.refresh_token.expose(), tag: Some(tag("unknown")), proof: None };
    assert_eq!(refusal_of(w.engine.refresh(&scope(), refresh, &ctx()).await.unwrap()), TokenRefusal::ScopeMismatch);
}

#[tokio::test]
async fn an_inactive_environment_refuses_start_and_refresh_and_goes_when_its_sessions_have_ended() {
    let w = World::new().await;
    let tokens = w.sign_in("alice").await;
    let default = tag("default");
    let switch = |active| EnvironmentPatch { active: Some(active), name: None };
    w.engine.update_environment(scope(), switch(false), &ctx()).await.unwrap();
    let inactive = Error::EnvironmentInactive(scope());
    assert_eq!(w.start(StartRequest::new(tag("default"), None)).await.unwrap_err(), inactive);
    assert_eq!(w.refresh_as("r", tokens.refresh_token.expose(), None).await.unwrap_err(), inactive);
    assert!(w.verify(tokens.access_token.expose(), true).await.is_ok());
    for refused in [
        w.engine.delete_environment(scope(), &ctx()).await,
        w.engine.delete_definition(&default, &default, &ctx()).await,
        w.engine.delete_product(default.clone(), &ctx()).await,
    ] {
        assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    }
    w.engine.update_environment(scope(), switch(true), &ctx()).await.unwrap();
    let tokens = w.refreshed(&tokens).await;
    w.engine.revoke(&scope(), tokens.session.id, EndReason::Revoked, &ctx()).await.unwrap();
    w.engine.delete_environment(scope(), &ctx()).await.unwrap();
    assert_eq!(w.engine.verify(&scope(), "", None, false).await.unwrap_err(), Error::EnvironmentNotFound(scope()));
    w.engine.delete_product(default.clone(), &ctx()).await.unwrap();
    assert_eq!(w.engine.verify(&scope(), "", None, false).await.unwrap_err(), Error::ProductNotFound(default));
}

#[tokio::test]
async fn a_change_by_another_server_is_seen_within_the_time_that_configuration_may_be_old() {
    let w = World::new().await;
    let other = w.second().await;
    let lifetime = |t: Tokens| t.access_token_expires_at.since(t.session.created_at);
    assert_eq!(lifetime(w.sign_in("alice").await), Seconds(900));
    other.policy(json!({ "access_token": { "lifetime": 60 } })).await;
    assert_eq!(lifetime(other.sign_in("alice").await), Seconds(60));
    w.clock.advance(w.engine.settings().config_ttl);
    assert_eq!(lifetime(w.sign_in("alice").await), Seconds(60));
}

#[tokio::test]
async fn configuration_that_was_read_before_a_change_is_not_kept_after_it() {
    let w = World::new().await;
    let other = w.second().await;
    w.sign_in("alice").await;
    other.policy(json!({ "access_token": { "lifetime": 60 } })).await;
    w.clock.advance(w.engine.settings().config_ttl);
    let (engine, clock) = (w.engine.clone(), w.clock.clone());
    w.store.after("scope", async move {
        other.policy(json!({ "access_token": { "lifetime": 30 } })).await;
        clock.advance(engine.settings().config_ttl);
        engine.jwks(&scope()).await.unwrap();
    });
    w.sign_in("bob").await;
    assert!(!w.store.is_armed());
    let tokens = w.sign_in("carol").await;
    assert_eq!(tokens.access_token_expires_at.since(tokens.session.created_at), Seconds(30));
}

#[tokio::test]
async fn two_servers_agree_on_keys_for_sixty_days() {
    let w = World::new().await;
    let other = w.second().await;
    w.policy(json!({ "access_token": { "lifetime": { "value": 1, "unit": "days" } } })).await;
    let mut tokens = w.sign_in("alice").await;
    let mut live = Vec::new();
    let (mut added, mut removed) = (0, 0);
    for hour in 1..=60 * 24u32 {
        w.clock.advance(HOUR);
        for server in [&w, &other] {
            let done = server.engine.upkeep().await.unwrap();
            added += done.keys_added;
            removed += done.keys_removed;
        }
        if hour.is_multiple_of(6) {
            let server = if hour.is_multiple_of(12) { &w } else { &other };
            tokens = server.refreshed(&tokens).await;
            live.push((tokens.access_token.clone(), tokens.access_token_expires_at));
        }
        live.retain(|(_, expires_at)| *expires_at > w.now());
        for (access_token, _) in &live {
            for server in [&w, &other] {
                let verified = server.verify(access_token.expose(), false).await;
                assert!(verified.is_ok(), "after {hour} h: {verified:?}");
            }
        }
        let keys = w.engine.signing_keys(&scope()).await.unwrap();
        assert!((1..=3).contains(&keys.len()), "{} keys after {hour} h", keys.len());
        let ahead = |created_at: Timestamp, signs_from: Timestamp| signs_from.since(created_at) >= DAY;
        assert!(keys.iter().skip(usize::from(removed == 0)).all(|k| ahead(k.2, k.3)), "{keys:?}");
        assert_eq!(w.engine.jwks(&scope()).await.unwrap(), other.engine.jwks(&scope()).await.unwrap());
        // The first key was made by the first start.
        assert_eq!(added, usize::from(hour >= 29 * 24) + usize::from(hour >= 59 * 24), "after {hour} h");
    }
    assert_eq!((added, removed), (2, 1));
}

#[tokio::test]
async fn an_emergency_rotation_refuses_old_tokens_at_once_and_their_clients_refresh() {
    let w = World::new().await;
    let other = w.second().await;
    let tokens = w.sign_in("alice").await;
    assert!(other.verify(tokens.access_token.expose(), false).await.is_ok());
    let planned = w.engine.rotate_keys(&scope(), Rotation::Planned, &ctx()).await.unwrap();
    assert!(w.verify(tokens.access_token.expose(), false).await.is_ok());
    assert_eq!(w.engine.rotate_keys(&scope(), Rotation::Emergency, &ctx()).await.unwrap(), w.now());
    assert_eq!(w.verify(tokens.access_token.expose(), false).await.unwrap_err(), TokenRefusal::AccessExpired);
    let [(kid, ..)] = &w.engine.signing_keys(&scope()).await.unwrap()[..] else { panic!() };
    let fresh = w.refreshed(&tokens).await;
    w.clock.advance(w.engine.settings().config_ttl);
    let by_access = PresentedToken::Access(tokens.access_token.expose());
    for server in [&w, &other] {
        assert_eq!(server.verify(tokens.access_token.expose(), false).await.unwrap_err(), TokenRefusal::AccessExpired);
        // A signature of a leaked key says nothing, not even whom to sign out.
        let refused = server.engine.sign_out(&scope(), by_access, &ctx()).await.unwrap();
        assert_eq!(refused, Err(TokenRefusal::AccessExpired));
        assert!(server.verify(fresh.access_token.expose(), true).await.is_ok());
    }
    // The successor that waited to sign was withdrawn, too, and never does.
    w.clock.set(planned + HOUR);
    w.engine.upkeep().await.unwrap();
    let later = w.refreshed(&fresh).await;
    let signed_by = jsonwebtoken::decode_header(later.access_token.expose()).unwrap().kid;
    assert_eq!(signed_by.as_deref(), Some(kid.as_str()));
    assert!(other.verify(later.access_token.expose(), false).await.is_ok());
    // What was withdrawn is forgotten when its last token has expired.
    let kept = async || {
        let ScopeRead::Found(record) = w.store.scope(&scope()).await.unwrap() else { panic!() };
        record.keys.len()
    };
    assert_eq!(kept().await, 3);
    w.clock.advance(days(8));
    w.engine.upkeep().await.unwrap();
    assert_eq!(kept().await, 1);
}

#[tokio::test]
async fn a_key_of_another_server_is_known_at_its_first_token() {
    let w = World::new().await;
    let other = w.second().await;
    w.engine.jwks(&scope()).await.unwrap();
    // The first key, then an emergency's, both unknown to the other server, whose copy is fresh.
    let mut tokens = other.sign_in("alice").await;
    assert!(w.verify(tokens.access_token.expose(), false).await.is_ok());
    assert!(w.verify(tokens.access_token.expose(), false).await.is_ok());
    w.clock.advance(MINUTE);
    assert!(w.verify(tokens.access_token.expose(), false).await.is_ok());
    other.engine.rotate_keys(&scope(), Rotation::Emergency, &ctx()).await.unwrap();
    let refresh = Refresh { refresh_token: tokens.refresh_token.expose(), tag: None, proof: None };
    tokens = tokens_of(other.engine.refresh(&scope(), refresh, &ctx()).await.unwrap());
    assert!(w.verify(tokens.access_token.expose(), false).await.is_ok());
}

#[tokio::test]
async fn tokens_of_unknown_keys_cannot_flood_the_store() {
    let w = World::new().await;
    w.sign_in("alice").await;
    w.engine.jwks(&scope()).await.unwrap();
    w.store.take_calls();
    let forged = |i: u32| {
        let header = format!(r#"{{"alg":"EdDSA","kid":"k{i}","typ":"at+jwt"}}"#);
        format!("{}.e30.AA", base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, header))
    };
    for i in 0..100 {
        assert_eq!(w.verify(&forged(i), false).await.unwrap_err(), TokenRefusal::Malformed);
    }
    assert_eq!(w.store.take_calls(), ["config_version"]);
    w.clock.set(Timestamp::from_millis(w.now().millis() + 100));
    for i in 0..100 {
        assert_eq!(w.verify(&forged(i), false).await.unwrap_err(), TokenRefusal::Malformed);
    }
    assert_eq!(w.store.take_calls(), ["config_version"]);
}

#[tokio::test]
async fn a_store_that_loses_the_first_signing_key_is_unavailable_and_ends_nothing() {
    let w = World::new().await;
    let (store, backup) = (w.store.clone(), w.store.backup());
    w.store.after("add_signing_key", async move { store.restore(backup) });
    let lost = w.start(StartRequest::new(tag("default"), Some(user_id("alice")))).await;
    assert!(matches!(lost, Err(Error::Store(_))), "{lost:?}");
    w.sign_in("alice").await;
}

#[tokio::test]
async fn every_algorithm_signs_and_verifies() {
    let w = World::new().await;
    for algorithm in ["EdDSA", "ES256", "RS256"] {
        w.policy(json!({ "access_token": { "algorithm": algorithm } })).await;
        let first = w.sign_in("alice").await;
        let tokens = w.refreshed(&first).await;
        for t in [&first, &tokens] {
            assert_eq!(jsonwebtoken::decode_header(t.access_token.expose()).unwrap().alg, algorithm.parse().unwrap());
            assert!(w.verify(t.access_token.expose(), true).await.is_ok(), "{algorithm}");
        }
    }
    let jwks: Value = serde_json::from_str(&w.engine.jwks(&scope()).await.unwrap()).unwrap();
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn an_api_key_is_shown_once_kept_as_a_hash_and_refused_when_revoked() {
    let w = World::new().await;
    let made = w.engine.create_api_key("backend".into(), vec![Permission::Sessions], &ctx()).await.unwrap();
    let secret = made.secret.expose();
    assert!(secret.starts_with("rkk_"));
    let hash = ApiKey::hash_of(secret);
    let kept = w.engine.api_keys().await.unwrap();
    assert_eq!(kept, std::slice::from_ref(&made.key));
    assert!(kept[0].accepts(&hash) && !kept[0].accepts(&ApiKey::hash_of("rkk_other")));
    assert!(kept[0].may(Permission::Sessions) && !kept[0].may(Permission::Admin));
    w.engine.revoke_api_key(&made.key.id, &ctx()).await.unwrap();
    w.engine.revoke_api_key(&made.key.id, &ctx()).await.unwrap();
    assert!(!w.engine.api_keys().await.unwrap()[0].accepts(&hash));
    let unknown = w.engine.revoke_api_key("key_unknown", &ctx()).await.unwrap_err();
    assert_eq!(unknown, Error::ApiKeyNotFound("key_unknown".into()));
    let audit = w.engine.audit_log(None, 10).await.unwrap();
    assert!(audit.iter().any(|e| e.action == "api_key.create" && e.target == made.key.id));
    assert!(!format!("{made:?} {kept:?} {audit:?}").contains(secret));
}

#[tokio::test]
async fn nothing_prints_a_token_an_opening_or_a_key() {
    let w = World::new().await;
    let mut client = Client::sign_in(&w, "alice").await;
    let (mut secrets, mut printed) = (vec![client.refresh_token.clone(), client.access_token.clone()], String::new());
    let mut print = |what: &dyn std::fmt::Debug| printed += &format!("{what:?} {what:#?}\n");

    let opening = Opening::draw(&*w.rng);
    let proof = client.proof(&w);
    secrets.extend([&opening, proof.opening.as_ref().unwrap()].map(|o| o.expose().to_string()));
    let refresh = Refresh { refresh_token: &client.refresh_token, tag: None, proof: Some(proof.clone()) };
    let elevate = Elevate { refresh: refresh.clone(), auth: second_factor(&w) };
    let mint = Mint { refresh_token: &client.refresh_token, lifetime: None };
    print(&(&opening, &proof, &refresh, &elevate, &mint));
    print(&[PresentedToken::Refresh(&client.refresh_token), PresentedToken::Access(&client.access_token)]);
    print(&StartRequest { commitment: Some(opening.commitment()), ..StartRequest::new(tag("default"), None) });

    print(&w.mint(&client.refresh_token).await);
    print(&w.verify(&client.access_token, false).await);
    print(&w.verify(&client.access_token, true).await);
    let old = client.refresh_token.clone();
    let refreshed = client.refresh(&w).await;
    print(&refreshed);
    secrets.extend([client.refresh_token.clone(), client.access_token.clone()]);
    print(&w.refresh(&client.refresh_token, None).await);
    print(&w.mint("rkr_secret").await);
    let wrong = rekindle::refresh::Proof { opening: Some(opening), generation: 0, ..client.proof(&w) };
    let theft = w.refresh(&old, Some(wrong)).await;
    assert!(matches!(theft, RefreshOutcome::Refused(TokenRefusal::Theft { kind: TheftKind::StolenToken, .. })));
    print(&theft);
    print(&w.verify(&client.access_token, false).await);
    print(&w.session(client.session_id).await);
    print(&w.events(client.session_id).await);
    print(&w.engine.explain(&scope(), client.session_id).await);
    let made = w.engine.create_api_key("backend".into(), vec![Permission::Admin], &ctx()).await.unwrap();
    secrets.push(made.secret.expose().into());
    print(&made);
    print(&w.engine.audit_log(None, 100).await);
    print(&w.engine.signing_keys(&scope()).await);
    print(&w.engine.settings());
    print(&w.store.backup());
    let refused = World::open(w.store.clone(), w.log.clone(), w.clock.clone(), 7, &secret(1, b'z')).await;
    print(&refused.err());
    secrets.extend([b'a', b'z'].map(|byte| secret(1, byte)[2..].trim().to_owned()));
    for secret in &secrets {
        assert!(!printed.contains(secret.as_str()), "a secret is printed");
        // Not a part of it either: the last 16 characters of a token are its MAC or signature.
        assert!(!printed.contains(&secret[secret.len() - 16..]), "a part of a secret is printed");
    }
}
