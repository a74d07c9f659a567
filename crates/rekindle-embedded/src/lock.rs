//! Who may have the store's file for itself: nobody, while somebody works on it.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use crate::{OpenError, files};

/// Held for as long as a process works on a store. The operating system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub struct StoreLock(#[expect(dead_code, reason = "held, never read")] File);

impl StoreLock {
    /// For working on the store, beside others.
    pub fn shared(store: &Path) -> Result<Self, OpenError> {
        Self::take(store, File::try_lock_shared, "it is restored or copied at the moment; try again when that is done")
    }

    /// For having the store for oneself: only when nobody works on it.
    pub fn exclusive(store: &Path) -> Result<Self, OpenError> {
        Self::take(store, File::try_lock, "a server or another command works on it; stop it first")
    }

    fn take(store: &Path, lock: fn(&File) -> Result<(), TryLockError>, why: &'static str) -> Result<Self, OpenError> {
        let path = store.with_added_extension("lock");
        // Whoever may read it may lock it.
        let file = files::private().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(OpenError::file("the store's lock", &path))?;
        match lock(&file) {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: store.into(), why }),
            Err(TryLockError::Error(source)) => Err(OpenError::file("the store's lock", path)(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_work_on_a_store_and_nobody_replaces_it_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("rekindle.db");
        let workers = [StoreLock::shared(&store).unwrap(), StoreLock::shared(&store).unwrap()];
        assert!(StoreLock::exclusive(&store).unwrap_err().to_string().contains("stop it first"));
        drop(workers);
        let _replacing = StoreLock::exclusive(&store).unwrap();
        assert!(StoreLock::shared(&store).unwrap_err().to_string().contains("restored or copied"));
    }
}
