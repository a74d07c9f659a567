//! A store between the engine and the real one that does what stores do on bad days.

use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

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

/// Decides which faults there are.
pub trait Faults: Send + Sync + 'static {
    /// What happens to this operation.
    fn draw(&self, operation: Operation) -> Fault;

    /// Called when the operation has taken effect, before its answer leaves.
    fn applied(&self, operation: Operation);

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
}

impl Front for FaultyStore {
    fn behind(&self) -> Arc<dyn Store> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn tamper(&self, intent: Intent<'_>) {
        self.faults.tamper(intent);
    }

    async fn around<T: Send>(
        &self,
        operation: Operation,
        run: impl Future<Output = StoreResult<T>> + Send,
    ) -> StoreResult<T> {
        let unavailable = || StoreError::Unavailable(format!("injected into `{}`", operation.name));
        let fault = self.faults.draw(operation);
        self.faults.wait(fault.delay_before).await;
        if fault.lose_request {
            return Err(unavailable());
        }
        let answer = run.await;
        self.faults.applied(operation);
        self.faults.wait(fault.delay_after).await;
        if fault.lose_answer { Err(unavailable()) } else { answer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle::memory::MemoryStore;
    use std::sync::Mutex;

    /// The same fault each time; notes what took effect.
    struct Always(Fault, Mutex<Vec<&'static str>>);

    impl Faults for Always {
        fn draw(&self, _: Operation) -> Fault {
            self.0
        }
        fn applied(&self, operation: Operation) {
            self.1.lock().unwrap().push(operation.name);
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
