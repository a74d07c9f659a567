//! What a face gets that speaks another protocol and signs access tokens of its own.

use rekindle::clock::Seconds;
use rekindle::definition::OnTheft;
use rekindle::engine::*;
use rekindle::keys::Chain;
use rekindle::session::EndReason;
use serde_json::json;

use crate::world::*;

const STRICT: Conduct = Conduct { reuse_leeway: Seconds(0), on_theft: OnTheft::ReportOnly };

async fn refresh(w: &World, of: &Unsigned, conduct: Conduct) -> Result<Unsigned, TokenRefusal> {
    w.clock.advance(Seconds(1));
    let refresh = Refresh { refresh_token: of.refresh_token.expose(), tag: None, proof: None };
    w.engine.refresh_unsigned(&scope(), refresh, conduct, &ctx()).await.unwrap()
}

async fn sign_in(w: &World) -> Unsigned {
    let request = StartRequest::new(tag("default"), Some(user_id("ann")));
    w.engine.start_unsigned(&scope(), request, &ctx()).await.unwrap()
}

async fn confirm(w: &World, of: &Unsigned) {
    w.engine.confirm(&scope(), vec![(of.session.id, of.session.position.generation)]).await.unwrap();
}

#[tokio::test]
async fn a_parent_is_good_until_its_child_is_confirmed_and_then_it_is_theft_by_the_face_s_own_rules() {
    let w = World::new().await;
    let first = sign_in(&w).await;
    let second = refresh(&w, &first, STRICT).await.unwrap();
    let again = refresh(&w, &first, STRICT).await.unwrap();
    assert_eq!((again.issued, again.refresh_token), (Issued::Reissued, second.refresh_token.clone()));
    confirm(&w, &second).await;
    // The definition would allow it for ten seconds, and would end the session.
    assert!(matches!(refresh(&w, &first, STRICT).await, Err(TokenRefusal::Theft { .. })));
    let lenient = Conduct { reuse_leeway: Seconds(30), ..STRICT };
    assert_eq!(refresh(&w, &first, lenient).await.unwrap().refresh_token, second.refresh_token);
    w.clock.advance(Seconds(30));
    let ending = Conduct { on_theft: OnTheft::RevokeSession, ..lenient };
    assert!(matches!(refresh(&w, &first, ending).await, Err(TokenRefusal::Theft { .. })));
    assert!(matches!(refresh(&w, &second, STRICT).await, Err(TokenRefusal::Revoked(_))));
}

#[tokio::test]
async fn what_is_replaced_is_replaced_whole_and_only_while_the_session_is_active() {
    let w = World::new().await;
    let id = sign_in(&w).await.session.id;
    let object = |value: serde_json::Value| value.as_object().unwrap().clone();
    let with = Replace { data: Some(object(json!({ "a": null }))), claims: None };
    w.engine.replace(&scope(), id, with, &ctx()).await.unwrap();
    let with = Replace { data: None, claims: Some(object(json!({ "b": [null] }))) };
    let session = w.engine.replace(&scope(), id, with.clone(), &ctx()).await.unwrap();
    assert_eq!((session.data.as_str(), session.claims.as_str()), (r#"{"a":null}"#, r#"{"b":[null]}"#));
    assert_eq!(w.engine.active_session(&scope(), id).await.unwrap(), Some(session));
    assert!(w.engine.end(&scope(), id, EndReason::Revoked, &ctx()).await.unwrap());
    assert!(!w.engine.end(&scope(), id, EndReason::Revoked, &ctx()).await.unwrap(), "it was over");
    assert_eq!(w.engine.active_session(&scope(), id).await.unwrap(), None);
    assert_eq!(w.engine.replace(&scope(), id, with, &ctx()).await, Err(Error::SessionEnded(EndReason::Revoked)));
}

#[tokio::test]
async fn its_keys_are_kept_like_all_others_and_are_none_of_the_access_tokens() {
    let w = World::new().await;
    let own = w.engine.jwks(&scope()).await.unwrap();
    let keys = w.engine.keys(&scope(), &[Chain::Dynamic, Chain::Static]).await.unwrap();
    assert_eq!(w.engine.jwks(&scope()).await.unwrap(), own, "API v1 does not show them");
    let message = b"a message";
    for chain in [Chain::Dynamic, Chain::Static] {
        let key = keys.signing(chain, w.now()).unwrap();
        let signature = key.signer().unwrap().signature(message);
        assert!(key.verifier().unwrap().verifies(message, &signature));
        assert_eq!(keys.published(chain, w.now()).len(), 1);
    }
    assert_eq!(keys.signs_until(Chain::Dynamic, w.now()), w.now() + days(30));
    assert_eq!(keys.next_key_at(Chain::Dynamic, w.now()), w.now() + days(29));
    // The schedule replaces the dynamic one alone; a rotation by hand replaces both.
    w.clock.advance(days(29));
    w.engine.keep_keys(w.now()).await.unwrap();
    let count = async |chain| w.engine.keys(&scope(), &[]).await.unwrap().published(chain, w.now()).len();
    assert_eq!((count(Chain::Dynamic).await, count(Chain::Static).await), (2, 1));
    w.engine.rotate_keys(&scope(), Rotation::Emergency, &ctx()).await.unwrap();
    assert_eq!((count(Chain::Dynamic).await, count(Chain::Static).await), (1, 1));
    let withdrawn = keys.signing(Chain::Static, w.now()).unwrap().kid();
    assert_ne!(w.engine.keys(&scope(), &[]).await.unwrap().signing(Chain::Static, w.now()).unwrap().kid(), withdrawn);
}
