//! Writes that run to their end.

use std::{future::Future, panic};

use rekindle::engine::Error;

use crate::problem::{Code, Problem};

/// Carries `work` out to its end, even when the caller hangs up or the time limit passes meanwhile: a session that has moved on must
/// be as the journal, the counters and the revocation log say.
///
/// # Panics
/// With the panic of `work`.
pub(crate) async fn to_completion<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::spawn(work).await {
        Ok(done) => Ok(done?),
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panicked) => panic::resume_unwind(panicked),
            // The runtime is shutting down.
            Err(_) => {
                Err(Problem::new(Code::Unavailable, "the server is stopping; the same request may be sent again"))
            }
        },
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
            done.send(()).map_err(|()| Error::UserNotFound)
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), work).await.is_err());
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_stays_a_panic() {
        let work = to_completion(async { panic!("on purpose") as Result<(), Error> });
        assert!(tokio::spawn(work).await.unwrap_err().is_panic());
    }
}
