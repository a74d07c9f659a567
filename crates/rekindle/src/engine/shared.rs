//! What those share who ask for the same thing at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something for each key that anybody holds at the moment, and nothing for the others.
#[derive(Debug)]
pub(super) struct Shared<K, V>(Mutex<HashMap<K, Arc<V>>>);

/// A hold on what is shared. The last one to let go, also by giving up, leaves nothing behind.
pub(super) struct Held<'a, K: Hash + Eq, V> {
    all: &'a Shared<K, V>,
    key: K,
    value: Arc<V>,
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone, V> Shared<K, V> {
    /// What the others hold who have this key, or something new.
    pub(super) fn hold(&self, key: K, new: impl FnOnce() -> V) -> Held<'_, K, V> {
        let value = Arc::clone(self.lock().entry(key.clone()).or_insert_with(|| Arc::new(new())));
        Held { all: self, key, value }
    }
}

impl<K, V> Shared<K, V> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, V> Deref for Held<'_, K, V> {
    type Target = V;
    fn deref(&self) -> &V {
        &self.value
    }
}

impl<K: Hash + Eq, V> Drop for Held<'_, K, V> {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        // The map's and this one.
        if Arc::strong_count(&self.value) == 2 {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shared_while_anybody_holds_it() {
        let shared = Shared::<&str, u32>::default();
        let first = shared.hold("a", || 1);
        let second = shared.hold("a", || 2);
        let other = shared.hold("b", || 3);
        assert_eq!((*first, *second, *other), (1, 1, 3));
        drop(first);
        assert_eq!(*shared.hold("a", || 4), 1);
        drop((second, other));
        assert!(shared.lock().is_empty());
        assert_eq!(*shared.hold("a", || 5), 5);
    }
}
