//! What a store holds, whatever keeps it: to see that something changed nothing, or that two stores hold the same.

use std::fmt::Write;

use rekindle::clock::Timestamp;
use rekindle::session::Scope;
use rekindle::store::{EventQuery, SessionQuery, Store, StoreResult, UserQuery};

use crate::fixtures::{events_of, sessions_in};

/// More than a test ever makes of anything.
const ALL: u32 = 100_000;

/// Everything that a store tells, but for what waits to be delivered, as text: equal for equal contents.
pub async fn contents(store: &dyn Store, now: Timestamp) -> StoreResult<String> {
    let mut text = format!("{:?}\n{:?}\n", store.api_keys().await?, store.secret_checks(Vec::new()).await?);
    for product in store.products().await? {
        writeln!(text, "{product:?}").expect("a string takes everything");
        for environment in &product.environments {
            let scope = Scope { product: product.product.tag.clone(), env: environment.slug.clone() };
            text += &of_scope(store, &scope, now).await?;
        }
    }
    writeln!(text, "{:?}", store.audit_log(None, ALL).await?).expect("a string takes everything");
    Ok(text)
}

async fn of_scope(store: &dyn Store, scope: &Scope, now: Timestamp) -> StoreResult<String> {
    let users = UserQuery { scope: scope.clone(), after: None, limit: ALL, now };
    let feed: Vec<_> =
        store.revocations(Some(scope), 0, now, ALL).await?.into_iter().map(|r| (r.session_id, r.what, r.at)).collect();
    let mut text = format!("{:?}\n{:?}\n{feed:?}\n", store.scope(scope).await?, store.users(users).await?);
    let sessions = SessionQuery { limit: ALL, ..sessions_in(scope.clone(), now) };
    for session in store.sessions(sessions).await? {
        let events = EventQuery { limit: ALL, ..events_of(session.id) };
        writeln!(text, "{session:?}\n{:?}", store.events(events).await?).expect("a string takes everything");
    }
    Ok(text)
}
