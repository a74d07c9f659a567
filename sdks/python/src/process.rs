//! What survives a fork, and what does not: threads stay behind in the parent.

use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::runtime::{Builder, Runtime};

/// The runtime of one process. It is never dropped: a child of a fork cannot wait for its threads.
struct Own {
    process: u32,
    runtime: ManuallyDrop<Runtime>,
}

impl Own {
    fn new(process: u32) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("rekindle").enable_all().build();
        let runtime = ManuallyDrop::new(runtime.expect("a process can have threads"));
        Self { process, runtime }
    }
}

/// This process's runtime.
pub struct Running(Arc<Own>);

impl Deref for Running {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        &self.0.runtime
    }
}

/// The runtime of this process, made when it is asked for; a child of a fork has its own.
pub fn runtime() -> Running {
    // No lock, which another thread could have held in the moment of the fork.
    static CURRENT: ArcSwapOption<Own> = ArcSwapOption::const_empty();
    let process = std::process::id();
    let mine = |own: &Option<Arc<Own>>| own.clone().filter(|own| own.process == process);
    if let Some(own) = mine(&CURRENT.load()) {
        return Running(own);
    }
    CURRENT.rcu(|current| mine(current).unwrap_or_else(|| Arc::new(Own::new(process))));
    Running(mine(&CURRENT.load()).expect("it was made just now"))
}

/// What belongs to one process: a child of a fork lets it lie, because the threads that would end it are not there.
pub struct InProcess<T> {
    process: u32,
    value: Option<T>,
}

impl<T> InProcess<T> {
    /// A value of this process.
    pub fn new(value: T) -> Self {
        Self { process: std::process::id(), value: Some(value) }
    }
}

impl<T> Deref for InProcess<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> Drop for InProcess<T> {
    fn drop(&mut self) {
        let value = self.value.take();
        if self.process == std::process::id() {
            // Connections are closed by tasks.
            let runtime = runtime();
            let _inside = runtime.enter();
            drop(value);
        } else {
            mem::forget(value);
        }
    }
}
