//! Writes that run to their end.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::Handle;

/// Carries `work` out to its end, even when the caller hangs up or the time limit passes meanwhile: a session that has moved on must
/// be as the journal, the counters and the revocation log say.
///
/// Not an `async fn`: the work, which is large, goes to the heap at once, and is not moved through each future around it.
pub(crate) fn to_completion<T: 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send {
    ToCompletion(Some(Box::pin(work)))
}

/// Work that goes on as a task of its own when nobody waits for it any more. Most never need one.
struct ToCompletion<T: 'static>(Option<Work<T>>);

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<T> Future for ToCompletion<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Taken out while it is polled: after a panic there is nothing to go on with.
        let mut work = self.0.take().expect("it is not polled after its end");
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.0 = Some(work);
        }
        polled
    }
}

impl<T> Drop for ToCompletion<T> {
    fn drop(&mut self) {
        if let Some(work) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move { drop(work.await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits_for_it() {
        let (done, is_done) = oneshot::channel();
        let work = to_completion(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            done.send(())
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), work).await.is_err());
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_stays_a_panic() {
        let work = to_completion::<()>(async { panic!("on purpose") });
        assert!(tokio::spawn(work).await.unwrap_err().is_panic());
    }
}
