//! A store in front of another.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use super::*;

/// A store that passes every operation on to another one, and does something around it: times it, holds it up, sends it
/// elsewhere.
pub trait Front: Send + Sync + 'static {
    /// The store to which operations go at this moment.
    fn behind(&self) -> Arc<dyn Store>;

    /// Changes what an operation is about to do. For tests of tests: a store that is broken on purpose.
    fn tamper(&self, _: Intent<'_>) {}

    /// Carries out an operation by awaiting `run`; dropping that has no effect.
    fn around<T: Send>(
        &self,
        operation: Operation,
        run: impl Future<Output = StoreResult<T>> + Send,
    ) -> impl Future<Output = StoreResult<T>> + Send;
}

/// A method of [`Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// Whether it can change the store.
    pub writes: bool,
}

/// What [`Front::tamper`] can change.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are the store's")]
pub enum Intent<'a> {
    Advance(&'a mut Advance),
    Confirm(&'a mut Vec<Confirmation>),
    /// How many entries at most.
    Revocations(&'a mut u32),
}

/// Every method alike.
macro_rules! pass_on {
    ($($kind:ident $name:ident($($argument:ident: $type:ty),*) -> $answer:ty $(, tamper $intent:ident($tampered:ident))?;)*) => {
        #[async_trait]
        impl<F: Front> Store for F {
            $(async fn $name(&self $(, $argument: $type)*) -> StoreResult<$answer> {
                let operation = Operation { name: stringify!($name), writes: pass_on!(@$kind) };
                self.around(operation, async move {
                    $(let mut $tampered = $tampered;
                    self.tamper(Intent::$intent(&mut $tampered));)?
                    self.behind().$name($($argument),*).await
                })
                .await
            })*
        }
    };
    (@reads) => { false };
    (@writes) => { true };
}

pass_on! {
    writes start(start: Start) -> Started;
    reads session(id: SessionId) -> Option<Session>;
    writes advance(advance: Advance) -> Cas, tamper Advance(advance);
    writes fast_forward(fast_forward: FastForward) -> Cas;
    writes confirm(confirmations: Vec<Confirmation>) -> (), tamper Confirm(confirmations);
    writes update(update: Update) -> Cas;
    writes end(end: End) -> Cas;
    writes end_many(end: EndMany) -> EndedMany;
    writes record(events: Vec<Event>) -> ();
    reads sessions(query: SessionQuery) -> Vec<Session>;
    reads events(query: EventQuery) -> Vec<Event>;
    reads users(query: UserQuery) -> Vec<UserSummary>;
    reads user(scope: &Scope, user_id: &UserId, now: Timestamp) -> Option<UserSummary>;
    writes erase_user(erase: EraseUser) -> EndedMany;
    writes ban(ban: BanUser) -> EndedMany;
    writes lift_ban(scope: &Scope, user_id: &UserId, audit: AuditEntry) -> bool;
    reads revocations(scope: Option<&Scope>, after: u64, now: Timestamp, limit: u32) -> Vec<Revocation>,
        tamper Revocations(limit);
    writes sweep(sweep: Sweep) -> Swept;
    reads config_version() -> u64;
    reads scope(scope: &Scope) -> ScopeRead;
    reads definition(product: &Tag, tag: &Tag, version: u32) -> Option<Definition>;
    reads products() -> Vec<ProductRecord>;
    writes change(change: Change, audit: AuditEntry) -> Changed;
    writes add_signing_key(key: SigningKey, newest: Option<KeyId>) -> bool;
    writes rewrap_signing_keys(keys: Vec<SigningKey>) -> ();
    writes remove_signing_keys(kids: Vec<KeyId>) -> ();
    writes secret_checks(checks: Vec<(u8, [u8; 16])>) -> Vec<(u8, [u8; 16])>;
    reads secret_usage() -> Vec<(u8, u64)>;
    reads api_keys() -> Vec<ApiKey>;
    writes take_notifications(now: Timestamp, lease: Timestamp, limit: u32) -> Vec<Notification>;
    writes settle_notification(id: EventId, retry_at: Option<Timestamp>) -> ();
    reads audit_log(before: Option<EventId>, limit: u32) -> Vec<AuditEntry>;
    writes append_audit(entry: AuditEntry) -> ();
    reads ping() -> ();
}
