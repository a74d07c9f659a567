//! The handle's methods: the same in both modes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rekindle::{
    clock::{Clock, Seconds, SystemClock},
    engine::Engine,
    refresh::{Opening, Proof},
    rng::SystemRng,
    session::{Auth, Client, SessionId, UserId},
};
use rekindle_client::{
    Code, Place, Problem, Rekindle, Trust,
    remote::Remote,
    session::{List, Patch, Refresh, Start, State, Token, Tokens},
};
use serde_json::{Map, Value, json};

use crate::site::{engine, rekindle_server};

/// Both handles on one engine: in this process, and through a server.
async fn both() -> (Engine, [Rekindle; 2]) {
    let engine = engine(Arc::new(SystemClock)).await;
    let (port, key, _) = rekindle_server(&engine).await;
    let remote =
        Remote { issuer: Some("http://rekindle.test".into()), ..Remote::new(format!("http://127.0.0.1:{port}"), key) };
    let handles = [Rekindle::embedded(engine.clone(), Place::default()), Rekindle::remote(remote).unwrap()];
    (engine, handles)
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Problem>) -> Code {
    outcome.unwrap_err().code()
}

async fn begin(rekindle: &Rekindle, user: &str) -> Tokens {
    rekindle.start(Start::user(user.parse().unwrap())).await.unwrap()
}

/// Until it holds, for at most a second.
pub async fn soon(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..100 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within a second: {what}");
}

#[test]
fn the_server_s_codes_are_ours_with_the_same_status() {
    for theirs in rekindle_server::problem::Code::ALL {
        let ours = Code::ALL.iter().find(|ours| ours.as_str() == theirs.as_str()).expect("each is known");
        assert_eq!(ours.status(), theirs.status(), "{ours}");
    }
    assert_eq!(Code::ALL.len(), rekindle_server::problem::Code::ALL.len() + 2);
}

#[tokio::test]
async fn a_session_starts_moves_on_and_ends() {
    for rekindle in both().await.1 {
        let client = Client { ip: Some("192.0.2.1".into()), user_agent: Some("test".into()), device: None };
        let start = Start {
            data: object(json!({"cart": [1]})),
            claims: object(json!({"role": "admin"})),
            client: client.clone(),
            ..Start::user("ada/é".parse().unwrap())
        };
        let first = rekindle.start(start).await.unwrap();
        assert_eq!((first.session.generation, first.commitment), (0, None));
        let verified = rekindle.verify(&first.access_token, Trust::FailOpen).await.unwrap();
        assert_eq!((verified.session, verified.user_id.as_str()), (first.session.id, "ada/é"));
        assert_eq!(verified.claims.to_map()["role"], "admin");

        let second = rekindle.refresh(Refresh::bearer(first.refresh_token.clone())).await.unwrap();
        assert_eq!(second.session.generation, 1);
        let again = rekindle.refresh(Refresh::bearer(first.refresh_token.clone())).await.unwrap();
        assert_eq!(again.refresh_token, second.refresh_token);

        let minted = rekindle.mint(&second.refresh_token, Some(Seconds(5))).await.unwrap();
        assert!(minted.access_token_expires_at <= rekindle.now() + Seconds(6));
        rekindle.verify(&minted.access_token, Trust::Online).await.unwrap();

        let read = rekindle.read(first.session.id).await.unwrap();
        assert_eq!((&read.client, &read.data["cart"], read.state), (&client, &json!([1]), State::Active));

        rekindle.sign_out(&second.refresh_token).await.unwrap();
        let over = rekindle.refresh(Refresh::bearer(second.refresh_token.clone())).await.unwrap_err();
        assert_eq!(over.code(), Code::SessionRevoked);
        assert_eq!((over.about().session_id, over.about().presented_generation), (Some(first.session.id), Some(1)));
        let over = rekindle.verify(&second.access_token, Trust::Online).await.unwrap_err();
        assert_eq!((over.code(), over.about().presented_generation), (Code::SessionRevoked, Some(1)));
        let ended = rekindle.read(first.session.id).await.unwrap();
        assert_eq!(ended.end_reason.unwrap().as_str(), "signed_out");
    }
}

#[tokio::test]
async fn proofs_openings_and_theft() {
    for rekindle in both().await.1 {
        let openings: Vec<Opening> = (0..3).map(|_| Opening::draw(&SystemRng::default())).collect();
        let start = Start { commitment: Some(openings[0].commitment()), ..Start::user("ada".parse().unwrap()) };
        let first = rekindle.start(start).await.unwrap();
        let step = |next: usize, opening: Option<usize>| {
            let proof = Proof {
                session_id: first.session.id,
                generation: 0,
                commitment: openings[next].commitment(),
                opening: opening.map(|at| openings[at].clone()),
                newest: false,
            };
            Refresh { proof: Some(proof), ..Refresh::bearer(first.refresh_token.clone()) }
        };
        let refused = rekindle.refresh(step(1, None)).await.unwrap_err();
        assert_eq!((refused.code(), refused.about().generation), (Code::ProofRequired, Some(0)));
        assert_eq!(refused.about().commitment, Some(openings[0].commitment()));
        let second = rekindle.refresh(step(1, Some(0))).await.unwrap();
        assert_eq!(second.commitment, Some(openings[1].commitment()));
        let theft = rekindle.refresh(step(2, Some(0))).await.unwrap_err();
        assert_eq!(theft.code(), Code::TokenTheftDetected);
        assert_eq!(theft.about().user_id.as_ref().map(UserId::as_str), Some("ada"));
        assert!(theft.about().kind.is_some());
    }
}

#[tokio::test]
async fn data_is_patched_and_two_writers_see_each_other() {
    for rekindle in both().await.1 {
        let id = begin(&rekindle, "ada").await.session.id;
        let patch = |data: Value, if_version| Patch { data: Some(object(data)), if_version, ..Patch::default() };
        let changed = rekindle.patch(id, patch(json!({"a": 1, "b": 2}), Some(1))).await.unwrap();
        assert_eq!((changed.version, &changed.data["a"]), (2, &json!(1)));
        assert_eq!(code(rekindle.patch(id, patch(json!({"a": 3}), Some(1))).await), Code::VersionMismatch);
        let changed = rekindle.patch(id, patch(json!({"a": null}), None)).await.unwrap();
        assert_eq!(changed.data, object(json!({"b": 2})));
        let reserved = Patch { claims: Some(object(json!({"sub": "eve"}))), ..Patch::default() };
        let invalid = rekindle.patch(id, reserved).await.unwrap_err();
        assert_eq!((invalid.code(), invalid.about().fields[0].field.as_str()), (Code::DataInvalid, "/claims"));
        rekindle.revoke(id).await.unwrap();
        assert_eq!(code(rekindle.patch(id, patch(json!({}), None)).await), Code::Conflict);
        let unknown = SessionId::from_bytes([9; 16]);
        assert_eq!(code(rekindle.read(unknown).await), Code::SessionNotFound);
        assert_eq!(code(rekindle.revoke(unknown).await), Code::SessionNotFound);
    }
}

#[tokio::test]
async fn a_user_s_sessions_are_listed_page_by_page_and_ended_but_for_one() {
    for (i, rekindle) in both().await.1.into_iter().enumerate() {
        let user: UserId = format!("ada {i}?&/").parse().unwrap();
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(begin(&rekindle, user.as_str()).await.session.id);
        }
        begin(&rekindle, "eve").await;
        let mut listed = Vec::new();
        let mut after = None;
        loop {
            let list = List { user_id: Some(user.clone()), state: Some(State::Active), after, limit: Some(2) };
            let page = rekindle.list(list).await.unwrap();
            assert!(page.sessions.len() <= 2);
            listed.extend(page.sessions.iter().map(|session| session.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        listed.sort();
        ids.sort();
        assert_eq!(listed, ids);
        assert_eq!(code(rekindle.list(List { limit: Some(0), ..List::default() }).await), Code::InvalidRequest);
        assert_eq!(rekindle.revoke_user(&user, Some(ids[0])).await.unwrap(), 4);
        assert_eq!(rekindle.credential_changed(&user, Some(ids[0])).await.unwrap(), 0);
        assert_eq!(rekindle.credential_changed(&user, None).await.unwrap(), 1);
        assert_eq!(rekindle.read(ids[0]).await.unwrap().end_reason.unwrap().as_str(), "credential_changed");
    }
}

#[tokio::test]
async fn an_elevation_makes_older_access_tokens_old() {
    for rekindle in both().await.1 {
        let first = begin(&rekindle, "ada").await;
        rekindle.verify(&first.access_token, Trust::FailOpen).await.unwrap();
        let auth = Auth { time: rekindle.now(), acr: Some("aal2".into()), amr: vec!["otp".into()] };
        let elevated = rekindle.elevate(Refresh::bearer(first.refresh_token), auth).await.unwrap();
        assert_eq!(elevated.session.auth.acr.as_deref(), Some("aal2"));
        soon("the older token is refused", async || {
            rekindle
                .verify(&first.access_token, Trust::FailOpen)
                .await
                .is_err_and(|p| p.code() == Code::AccessTokenExpired)
        })
        .await;
        rekindle.verify(&elevated.access_token, Trust::FailClosed).await.unwrap();
    }
}

#[tokio::test]
async fn a_revoked_session_is_refused_by_every_verifier_within_a_second_and_listeners_are_told() {
    let (engine, handles) = both().await;
    let elsewhere = Rekindle::embedded(engine, Place::default());
    for rekindle in handles {
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = told.clone();
        rekindle.on_revoked(move |revocation| telling.lock().unwrap().push(revocation.session_id));
        let tokens = begin(&rekindle, "ada").await;
        rekindle.verify(&tokens.access_token, Trust::FailOpen).await.unwrap();
        elsewhere.revoke(tokens.session.id).await.unwrap();
        soon("the token is refused", async || rekindle.verify(&tokens.access_token, Trust::FailOpen).await.is_err())
            .await;
        let refused = rekindle.verify(&tokens.access_token, Trust::FailOpen).await.unwrap_err();
        assert_eq!(refused.code(), Code::SessionRevoked);
        assert_eq!(refused.about().session_id, Some(tokens.session.id));
        soon("the listener is told", async || told.lock().unwrap().contains(&tokens.session.id)).await;
        assert!(!rekindle.is_stale());
    }
}

#[tokio::test]
async fn the_feed_is_told_from_a_cursor() {
    for rekindle in both().await.1 {
        let before = rekindle.revocations(None, Seconds(0)).await.unwrap();
        let id = begin(&rekindle, "ada").await.session.id;
        rekindle.revoke(id).await.unwrap();
        let feed = rekindle.revocations(Some(before.next), Seconds(5)).await.unwrap();
        assert_eq!(feed.entries.iter().map(|entry| entry.session_id).collect::<Vec<_>>(), [id]);
        let after = rekindle.revocations(Some(feed.next), Seconds(0)).await.unwrap();
        assert_eq!((after.entries.len(), after.next), (0, feed.next));
        assert_eq!(code(rekindle.revocations(None, Seconds(31)).await), Code::InvalidRequest);
    }
}

#[tokio::test]
async fn a_generation_that_was_used_is_confirmed_so_that_its_parent_s_replay_is_seen() {
    let (engine, handles) = both().await;
    for rekindle in handles {
        let first = begin(&rekindle, "ada").await;
        let second = rekindle.refresh(Refresh::bearer(first.refresh_token.clone())).await.unwrap();
        rekindle.verify(&second.access_token, Trust::FailOpen).await.unwrap();
        soon("the generation is confirmed", async || {
            engine.session(&second.session.scope(), second.session.id).await.unwrap().confirmed
        })
        .await;
        rekindle.confirm(vec![(second.session.id, 1), (SessionId::from_bytes([1; 16]), 7)]).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_token_of_this_place_is_refused() {
    for rekindle in both().await.1 {
        for text in ["", "x", "a.b.c", "rkr_abc", &"a".repeat(20_000)] {
            let token = Token::new(text);
            assert_eq!(code(rekindle.verify(&token, Trust::FailOpen).await), Code::TokenMalformed, "{text}");
            assert_eq!(code(rekindle.refresh(Refresh::bearer(token.clone())).await), Code::TokenMalformed, "{text}");
            assert_eq!(code(rekindle.mint(&token, None).await), Code::TokenMalformed, "{text}");
            assert_eq!(code(rekindle.sign_out(&token).await), Code::TokenMalformed, "{text}");
        }
        let tokens = begin(&rekindle, "ada").await;
        let mut forged = tokens.access_token.expose().to_owned();
        let at = forged.len() - 9;
        let other = if forged[at..].starts_with('A') { "B" } else { "A" };
        forged.replace_range(at..=at, other);
        assert_eq!(code(rekindle.verify(&Token::new(forged), Trust::FailOpen).await), Code::TokenMalformed);
        assert_eq!(code(rekindle.mint(&tokens.refresh_token, Some(Seconds(61))).await), Code::InvalidRequest);
    }
}

#[tokio::test]
async fn an_idempotent_start_gives_one_session() {
    for (i, rekindle) in both().await.1.into_iter().enumerate() {
        let start = Start { idempotency_key: Some(format!("key {i}")), ..Start::user("ada".parse().unwrap()) };
        let once = rekindle.start(start.clone()).await.unwrap();
        let twice = rekindle.start(start.clone()).await.unwrap();
        assert_eq!(once.session.id, twice.session.id);
        let other = Start { user_id: Some("eve".parse().unwrap()), ..start };
        assert_eq!(code(rekindle.start(other).await), Code::IdempotencyMismatch);
        let previous = Start { previous_session_id: Some(once.session.id), ..Start::user("eve".parse().unwrap()) };
        assert_eq!(code(rekindle.start(previous).await), Code::Conflict);
        assert!(SystemClock.now() + Seconds(1) >= rekindle.now());
    }
}
