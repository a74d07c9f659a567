//! A store whose operations are timed.

use std::sync::Arc;

use async_trait::async_trait;
use rekindle::{
    clock::Timestamp,
    definition::Definition,
    journal::{Event, EventId},
    keys::{KeyId, SigningKey},
    session::{Scope, Session, SessionId, Tag, UserId},
    store::*,
};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Another store, with each operation's duration in the metrics under the method's name.
pub(super) struct MeteredStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl MeteredStore {
    pub(super) fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

macro_rules! metered {
    ($($operation:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Store for MeteredStore {
            $(async fn $operation(&self $(, $argument: $type)*) -> StoreResult<$answer> {
                let started = Instant::now();
                let answer = self.inner.$operation($($argument),*).await;
                self.metrics.store(stringify!($operation), started.elapsed());
                answer
            })*
        }
    };
}

metered! {
    start(start: Start) -> Started;
    session(id: SessionId) -> Option<Session>;
    advance(advance: Advance) -> Cas;
    fast_forward(fast_forward: FastForward) -> Cas;
    confirm(confirmations: Vec<Confirmation>) -> ();
    update(update: Update) -> Cas;
    end(end: End) -> Cas;
    end_many(end: EndMany) -> EndedMany;
    record(events: Vec<Event>) -> ();
    sessions(query: SessionQuery) -> Vec<Session>;
    events(query: EventQuery) -> Vec<Event>;
    users(query: UserQuery) -> Vec<UserSummary>;
    user(scope: &Scope, user_id: &UserId, now: Timestamp) -> Option<UserSummary>;
    erase_user(erase: EraseUser) -> EndedMany;
    ban(ban: BanUser) -> EndedMany;
    lift_ban(scope: &Scope, user_id: &UserId, audit: AuditEntry) -> bool;
    revocations(scope: Option<&Scope>, after: u64, now: Timestamp, limit: u32) -> Vec<Revocation>;
    sweep(sweep: Sweep) -> Swept;
    config_version() -> u64;
    scope(scope: &Scope) -> ScopeRead;
    definition(product: &Tag, tag: &Tag, version: u32) -> Option<Definition>;
    products() -> Vec<ProductRecord>;
    change(change: Change, audit: AuditEntry) -> Changed;
    add_signing_key(key: SigningKey, newest: Option<KeyId>) -> bool;
    rewrap_signing_keys(keys: Vec<SigningKey>) -> ();
    remove_signing_keys(kids: Vec<KeyId>) -> ();
    secret_checks(checks: Vec<(u8, [u8; 16])>) -> Vec<(u8, [u8; 16])>;
    secret_usage() -> Vec<(u8, u64)>;
    api_keys() -> Vec<ApiKey>;
    take_notifications(now: Timestamp, lease: Timestamp, limit: u32) -> Vec<Notification>;
    settle_notification(id: EventId, retry_at: Option<Timestamp>) -> ();
    audit_log(before: Option<EventId>, limit: u32) -> Vec<AuditEntry>;
    append_audit(entry: AuditEntry) -> ();
    ping() -> ();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_operation_is_passed_on_and_timed() {
        let metrics = Arc::new(Metrics::new([]));
        let store = MeteredStore::new(Arc::new(rekindle::memory::MemoryStore::new()), metrics.clone());
        assert_eq!(store.products().await.unwrap().len(), 1);
        let line = r#"rekindle_store_duration_seconds_count{operation="products"} 1"#;
        assert!(metrics.render().contains(line));
    }
}
