//! A store between the engine and the real one that does what stores do on bad days.

use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use rekindle::clock::Timestamp;
use rekindle::definition::Definition;
use rekindle::journal::{Event, EventId};
use rekindle::keys::{KeyId, SigningKey};
use rekindle::session::{Scope, Session, SessionId, Tag, UserId};
use rekindle::store::*;

/// What happens to one operation. The default: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fault {
    /// How long the operation is on its way, in milliseconds.
    pub delay_before: u64,
    /// It never arrives: an error, and no effect.
    pub lose_request: bool,
    /// How long its answer is on the way, in milliseconds.
    pub delay_after: u64,
    /// The answer never arrives: an error, although the effect is there.
    pub lose_answer: bool,
}

/// An intent on its way to the store.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are the store's")]
pub enum Intent<'a> {
    Advance(&'a mut Advance),
    Confirm(&'a mut Vec<Confirmation>),
    /// How many entries at most.
    Revocations(&'a mut u32),
}

/// Decides which faults there are.
pub trait Faults: Send + Sync + 'static {
    /// What happens to this operation; `writes` tells whether it can change the store.
    fn draw(&self, operation: &'static str, writes: bool) -> Fault;

    /// Called when the operation has taken effect, before its answer leaves.
    fn applied(&self, operation: &'static str, writes: bool);

    /// Waits for so many milliseconds.
    fn wait(&self, millis: u64) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Rewrites an intent: for stores that are broken on purpose.
    fn tamper(&self, _: Intent<'_>) {}
}

/// Wraps a store and lets [`Faults`] happen to its operations.
pub struct FaultyStore {
    inner: RwLock<Arc<dyn Store>>,
    faults: Arc<dyn Faults>,
}

impl FaultyStore {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Store>, faults: Arc<dyn Faults>) -> Self {
        Self { inner: RwLock::new(inner), faults }
    }

    /// From here on, operations go to another store: a fail-over, a restored backup.
    pub fn replace(&self, inner: Arc<dyn Store>) {
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = inner;
    }

    fn inner(&self) -> Arc<dyn Store> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn before(&self, operation: &'static str, writes: bool) -> StoreResult<Fault> {
        let fault = self.faults.draw(operation, writes);
        self.faults.wait(fault.delay_before).await;
        if fault.lose_request { Err(unavailable(operation)) } else { Ok(fault) }
    }

    async fn after(&self, operation: &'static str, writes: bool, fault: Fault) -> StoreResult<()> {
        self.faults.applied(operation, writes);
        self.faults.wait(fault.delay_after).await;
        if fault.lose_answer { Err(unavailable(operation)) } else { Ok(()) }
    }
}

fn unavailable(operation: &str) -> StoreError {
    StoreError::Unavailable(format!("injected into `{operation}`"))
}

/// Every method alike: the fault's first half, the operation, the fault's second half.
macro_rules! through_faults {
    ($($kind:ident $name:ident($($arg:ident: $ty:ty),*) -> $out:ty $(, tamper $intent:ident($tampered:ident))?;)*) => {
        #[async_trait]
        impl Store for FaultyStore {
            $(async fn $name(&self, $($arg: $ty),*) -> StoreResult<$out> {
                let writes = through_faults!(@$kind);
                let fault = self.before(stringify!($name), writes).await?;
                $(let mut $tampered = $tampered;
                self.faults.tamper(Intent::$intent(&mut $tampered));)?
                let result = self.inner().$name($($arg),*).await;
                self.after(stringify!($name), writes, fault).await?;
                result
            })*
        }
    };
    (@read) => { false };
    (@write) => { true };
}

through_faults! {
    write start(start: Start) -> Started;
    read session(id: SessionId) -> Option<Session>;
    write advance(advance: Advance) -> Cas, tamper Advance(advance);
    write fast_forward(fast_forward: FastForward) -> Cas;
    write confirm(confirmations: Vec<Confirmation>) -> (), tamper Confirm(confirmations);
    write update(update: Update) -> Cas;
    write end(end: End) -> Cas;
    write end_many(end: EndMany) -> EndedMany;
    write record(events: Vec<Event>) -> ();
    read sessions(query: SessionQuery) -> Vec<Session>;
    read events(query: EventQuery) -> Vec<Event>;
    read users(query: UserQuery) -> Vec<UserSummary>;
    read user(scope: &Scope, user_id: &UserId, now: Timestamp) -> Option<UserSummary>;
    write erase_user(erase: EraseUser) -> EndedMany;
    write ban(ban: BanUser) -> EndedMany;
    write lift_ban(scope: &Scope, user_id: &UserId, audit: AuditEntry) -> bool;
    read revocations(scope: Option<&Scope>, after: u64, now: Timestamp, limit: u32) -> Vec<Revocation>,
        tamper Revocations(limit);
    write sweep(sweep: Sweep) -> Swept;
    read config_version() -> u64;
    read scope(scope: &Scope) -> ScopeRead;
    read definition(product: &Tag, tag: &Tag, version: u32) -> Option<Definition>;
    read products() -> Vec<ProductRecord>;
    write change(change: Change, audit: AuditEntry) -> Changed;
    write add_signing_key(key: SigningKey, newest: Option<KeyId>) -> bool;
    write rewrap_signing_keys(keys: Vec<SigningKey>) -> ();
    write remove_signing_keys(kids: Vec<KeyId>) -> ();
    write secret_checks(checks: Vec<(u8, [u8; 16])>) -> Vec<(u8, [u8; 16])>;
    read secret_usage() -> Vec<(u8, u64)>;
    read api_keys() -> Vec<ApiKey>;
    write take_notifications(now: Timestamp, lease: Timestamp, limit: u32) -> Vec<Notification>;
    write settle_notification(id: EventId, retry_at: Option<Timestamp>) -> ();
    read audit_log(before: Option<EventId>, limit: u32) -> Vec<AuditEntry>;
    write append_audit(entry: AuditEntry) -> ();
    read ping() -> ();
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle::memory::MemoryStore;
    use std::sync::Mutex;

    /// The same fault each time; notes what took effect.
    struct Always(Fault, Mutex<Vec<&'static str>>);

    impl Faults for Always {
        fn draw(&self, _: &'static str, _: bool) -> Fault {
            self.0
        }
        fn applied(&self, operation: &'static str, _: bool) {
            self.1.lock().unwrap().push(operation);
        }
        fn wait(&self, _: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(std::future::ready(()))
        }
    }

    async fn checks_after(fault: Fault) -> (bool, usize) {
        let inner = Arc::new(MemoryStore::new());
        let faults = Arc::new(Always(fault, Mutex::default()));
        let store = FaultyStore::new(inner.clone(), faults.clone());
        let answered = store.secret_checks(vec![(1, [1; 16])]).await.is_ok();
        let applied = faults.1.lock().unwrap().len();
        assert_eq!(inner.secret_checks(Vec::new()).await.unwrap().len(), applied);
        (answered, applied)
    }

    #[tokio::test]
    async fn a_lost_request_has_no_effect_and_a_lost_answer_has() {
        assert_eq!(checks_after(Fault::default()).await, (true, 1));
        assert_eq!(checks_after(Fault { lose_request: true, ..Fault::default() }).await, (false, 0));
        assert_eq!(checks_after(Fault { lose_answer: true, ..Fault::default() }).await, (false, 1));
    }
}
