//! Work that mostly waits for nothing.

use std::future::Future;
use std::pin::Pin;

use futures_util::FutureExt as _;

/// Work that was begun on the thread that wants its result: another one is woken only for what has to be waited for.
pub enum Begun<T> {
    /// It is done.
    Done(T),
    /// What is left of it, for the runtime in which it was begun.
    Waiting(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> Begun<T> {
    /// Begins it, within a Tokio runtime.
    pub fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        let mut work = Box::pin(work);
        match work.as_mut().now_or_never() {
            Some(done) => Self::Done(done),
            None => Self::Waiting(work),
        }
    }
}
