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
    /// There until the drop.
    value: Option<Arc<V>>,
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
        Held { all: self, key, value: Some(value) }
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
        self.value.as_ref().expect("only the drop takes it")
    }
}

impl<K: Hash + Eq, V> Drop for Held<'_, K, V> {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        // Under the lock: of two that let go at the same time, the second one sees that it is the last.
        self.value = None;
        if all.get(&self.key).is_some_and(|value| Arc::strong_count(value) == 1) {
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

    #[test]
    fn nothing_is_left_of_what_many_let_go_at_once() {
        let shared = Shared::<u32, ()>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|i| drop(shared.hold(i % 2, || ()))));
            }
        });
        assert!(shared.lock().is_empty());
    }
}
