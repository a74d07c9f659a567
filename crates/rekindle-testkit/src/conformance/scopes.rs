use std::sync::Arc;

use rekindle::definition::OnMaxSessions;
use rekindle::session::{EndReason, Scope, Session};
use rekindle::store::{Change, Changed, Environment, Idempotency, Product, Start, Started, Store, UserQuery};

use crate::fixtures::*;

/// `shop` and `shop-x`, `dev` and `dev-x`: no user, key, ban, end or erasure of one concerns another.
pub async fn nothing_is_shared_between_scopes_that_are_named_alike(store: Arc<dyn Store>) {
    let sessions = start_in_each(&*store).await;
    for session in &sessions {
        let scope = &session.scope;
        assert_eq!(store.sessions(sessions_in(scope.clone(), at(1))).await.unwrap(), std::slice::from_ref(session));
        let users = store.users(UserQuery { scope: scope.clone(), after: None, limit: 10, now: at(1) }).await.unwrap();
        assert_eq!(users.iter().map(|u| (u.user_id.as_str(), u.sessions)).collect::<Vec<_>>(), [("ada", 1)]);
    }
    let [banned, erased, ended, others @ ..] = sessions.as_slice() else { panic!("there are some") };
    let mut ban = ban_of("ada", at(2));
    ban.end.scope = banned.scope.clone();
    assert_eq!(store.ban(ban).await.unwrap().ended.len(), 1);
    let mut erase = erase_of("ada", at(3));
    erase.scope = erased.scope.clone();
    assert_eq!(store.erase_user(erase).await.unwrap().ended.len(), 1);
    let mut end = end_all(at(4));
    end.scope = ended.scope.clone();
    assert_eq!(store.end_many(end).await.unwrap().ended.len(), 1);
    for session in [banned, erased, ended] {
        let told = store.revocations(Some(&session.scope), 0, at(5), 10).await.unwrap();
        assert_eq!(told.iter().map(|r| r.session_id).collect::<Vec<_>>(), [session.id]);
    }
    for session in others {
        assert_eq!(row(&*store, session.id).await, *session);
        assert!(store.revocations(Some(&session.scope), 0, at(5), 10).await.unwrap().is_empty());
    }
    for session in &sessions {
        let user = store.user(&session.scope, &user("ada"), at(5)).await.unwrap();
        assert_eq!(user.and_then(|user| user.ban).is_some(), session.id == banned.id);
        let next = Session { scope: session.scope.clone(), ..session_at("ada", at(5)) };
        let started = store.start(start_of(&next)).await.unwrap();
        assert_eq!(matches!(started, Started::Banned(_)), session.id == banned.id, "{started:?}");
    }
}

/// All that the deleted one had goes, and nothing else does.
pub async fn what_is_deleted_leaves_scopes_that_are_named_alike(store: Arc<dyn Store>) {
    let sessions = start_in_each(&*store).await;
    for session in &sessions {
        applied(store.end(end_of(session, at(1), EndReason::Revoked)).await.unwrap());
        let mut ban = ban_of("bob", at(1));
        ban.end.scope = session.scope.clone();
        store.ban(ban).await.unwrap();
    }
    let environment = Change::DeleteEnvironment { scope: scope_of("shop", "dev"), now: at(2) };
    let product = Change::DeleteProduct { product: tag("shop"), now: at(2) };
    let of_product = |scope: &Scope| scope.product == tag("shop");
    let of_environment = |scope: &Scope| *scope == scope_of("shop", "dev");
    for (change, is_gone) in [(environment, &of_environment as &dyn Fn(&Scope) -> bool), (product, &of_product)] {
        assert_eq!(store.change(change, audit("config", at(2))).await, Ok(Changed::Done));
        for Session { id, scope, .. } in &sessions {
            let there = store.session(*id).await.unwrap().is_some();
            let banned = store.user(scope, &user("bob"), at(3)).await.unwrap().is_some();
            let told = !store.revocations(Some(scope), 0, at(3), 10).await.unwrap().is_empty();
            assert_eq!([there, banned, told], [!is_gone(scope); 3], "{scope}");
        }
    }
}

/// A session of the same user in each, all with the same idempotency key; the scopes are there.
async fn start_in_each(store: &dyn Store) -> Vec<Session> {
    let mut sessions = Vec::new();
    for scope in like_named_scopes() {
        let product = Product { tag: scope.product.clone(), name: scope.product.to_string() };
        let environment = Environment { slug: scope.env.clone(), name: scope.env.to_string(), active: true };
        // Some are of one product.
        store.change(Change::CreateProduct(product), audit("config", at(0))).await.unwrap();
        let create = Change::CreateEnvironment(scope.product.clone(), environment);
        assert_eq!(store.change(create, audit("config", at(0))).await, Ok(Changed::Done));
        let session = Session { scope, ..session("ada") };
        let idempotency = Some(Idempotency { key: [1; 32], request: [1; 32], expires_at: at(1_000) });
        let start = Start { idempotency, max_sessions: Some((1, OnMaxSessions::Reject)), ..start_of(&session) };
        assert_eq!(store.start(start).await, Ok(Started::Created(Vec::new())));
        sessions.push(session);
    }
    sessions
}
