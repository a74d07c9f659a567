//! A store whose operations are timed.

use std::sync::Arc;

use rekindle::store::{Front, Operation, Store, StoreResult};
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

impl Front for MeteredStore {
    fn behind(&self) -> Arc<dyn Store> {
        self.inner.clone()
    }

    async fn around<T: Send>(
        &self,
        operation: Operation,
        run: impl Future<Output = StoreResult<T>> + Send,
    ) -> StoreResult<T> {
        let started = Instant::now();
        let answer = run.await;
        self.metrics.store(operation.name, started.elapsed());
        answer
    }
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
