//! The one writer: a thread that gathers waiting jobs into one transaction, and a thread that moves the log into the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rekindle::store::{StoreError, StoreResult};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::db::{Db, Failure, Scopes};

/// How many jobs one transaction carries at most.
const GROUP: usize = 512;
/// How many jobs may wait; more are refused, because by then nobody waits for the answer any more.
const QUEUE: usize = 16_384;
/// At this length of the write-ahead log the checkpointer starts to move it into the file, and again when it has grown by so
/// much: each time costs a flush, and sorts what the log holds …
const CHECKPOINT_PAGES: i32 = 8 * 256;
const CHECKPOINT_STEP: i32 = 2 * 256;
/// … and at this length the writer stops for the rest of it, so that the log can begin anew under endless load.
const LOG_CAP_PAGES: i32 = 64 * 256;
/// How often, and after what pauses, a transaction is tried while another process writes. Short pauses, because a busy writer
/// leaves only short gaps.
const BUSY_TRIES: i32 = 5_000;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Work for the writer. It may run twice: in a group, and alone if another of the group failed.
trait Job: Send {
    /// Whether it succeeded.
    fn run(&mut self, db: &Db<'_>) -> bool;
    fn fail(&mut self, error: StoreError);
    fn answer(self: Box<Self>);
}

struct Pending<T, F> {
    work: F,
    outcome: StoreResult<T>,
    answer: oneshot::Sender<StoreResult<T>>,
}

impl<T: Send, F: FnMut(&Db<'_>) -> Result<T, Failure> + Send> Job for Pending<T, F> {
    fn run(&mut self, db: &Db<'_>) -> bool {
        self.outcome = (self.work)(db).map_err(StoreError::from);
        self.outcome.is_ok()
    }

    fn fail(&mut self, error: StoreError) {
        self.outcome = Err(error);
    }

    fn answer(self: Box<Self>) {
        // Nobody may be waiting any more; the work is done all the same.
        let _ = self.answer.send(self.outcome);
    }
}

/// What was committed so far.
#[derive(Default)]
struct Committed {
    transactions: AtomicU64,
    jobs: AtomicU64,
}

/// The queue to the writer thread. Dropping it carries out what is queued, then stops both threads.
pub(crate) struct Writer {
    queue: Option<SyncSender<Box<dyn Job>>>,
    threads: Vec<JoinHandle<()>>,
    committed: Arc<Committed>,
}

impl Writer {
    /// Starts the threads, each with its own connection.
    pub(crate) fn start(
        mut connection: Connection,
        checkpoints: Connection,
        scopes: Arc<Scopes>,
    ) -> rusqlite::Result<Self> {
        let log_pages = Arc::new(AtomicI32::new(0));
        let pages = Arc::clone(&log_pages);
        connection.busy_handler(Some(|tries| {
            thread::sleep(BUSY_PAUSE);
            tries < BUSY_TRIES
        }))?;
        connection.wal_hook(Some(move |_: &mut _, length| {
            pages.store(length, Ordering::Relaxed);
            Ok(())
        }))?;
        let (queue, jobs) = sync_channel(QUEUE);
        let (wake, wakes) = sync_channel(1);
        let checkpointer = move || {
            while wakes.recv().is_ok() {
                checkpoint(&checkpoints);
            }
        };
        let committed = Arc::new(Committed::default());
        let counts = Arc::clone(&committed);
        let writer = move || write(&connection, &scopes, &jobs, &counts, &log_pages, &wake);
        let threads = vec![spawn("rekindle-writer", writer), spawn("rekindle-checkpoints", checkpointer)];
        Ok(Self { queue: Some(queue), threads, committed })
    }

    /// How many transactions were committed since the start, and how many jobs they carried.
    pub(crate) fn committed(&self) -> (u64, u64) {
        let Committed { transactions, jobs } = &*self.committed;
        (transactions.load(Ordering::Relaxed), jobs.load(Ordering::Relaxed))
    }

    /// Runs `work` in a transaction and answers once it is durable. Dropping the future does not cancel it.
    pub(crate) async fn run<T, F>(&self, work: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnMut(&Db<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let job = Pending { work, outcome: Err(stopped()), answer };
        match self.queue.as_ref().map(|queue| queue.try_send(Box::new(job))) {
            Some(Ok(())) => outcome.await.unwrap_or_else(|_| Err(stopped())),
            Some(Err(TrySendError::Full(_))) => {
                Err(StoreError::Unavailable(format!("overloaded: {QUEUE} writes are waiting")))
            }
            Some(Err(TrySendError::Disconnected(_))) | None => Err(stopped()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has told so; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the writer has stopped".into())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().name(name.into()).spawn(work).expect("the system can start a thread")
}

fn write(
    connection: &Connection,
    scopes: &Scopes,
    jobs: &Receiver<Box<dyn Job>>,
    committed: &Committed,
    log_pages: &AtomicI32,
    wake: &SyncSender<()>,
) {
    let db = Db { connection, scopes };
    let mut group = Vec::with_capacity(GROUP);
    let mut woken_at = 0;
    while let Ok(first) = jobs.recv() {
        group.push(first);
        group.extend(jobs.try_iter().take(GROUP - 1));
        carry_out(&db, committed, &mut group);
        for job in group.drain(..) {
            job.answer();
        }
        let pages = log_pages.load(Ordering::Relaxed);
        if pages < woken_at {
            // The log has begun anew.
            woken_at = 0;
        }
        if pages >= LOG_CAP_PAGES {
            // Passive: it never waits for a reader. Once all is moved, the next transaction begins the log anew.
            checkpoint(connection);
        } else if pages >= CHECKPOINT_PAGES.max(woken_at + CHECKPOINT_STEP) {
            woken_at = pages;
            // A full channel means that it is at work or about to be.
            let _ = wake.try_send(());
        }
    }
}

/// Leaves an outcome in each job of the group.
fn carry_out(db: &Db<'_>, committed: &Committed, group: &mut [Box<dyn Job>]) {
    match transaction(db, group) {
        Ok(true) => {
            committed.transactions.fetch_add(1, Ordering::Relaxed);
            committed.jobs.fetch_add(group.len() as u64, Ordering::Relaxed);
        }
        // One of them failed, and took the others' work with it.
        Ok(false) if group.len() > 1 => {
            for job in group {
                carry_out(db, committed, std::slice::from_mut(job));
            }
        }
        Ok(false) => {}
        Err(error) => {
            let error = StoreError::from(Failure::from(error));
            for job in group {
                job.fail(error.clone());
            }
        }
    }
}

/// Whether all jobs succeeded and were committed. Otherwise nothing was changed.
fn transaction(db: &Db<'_>, group: &mut [Box<dyn Job>]) -> rusqlite::Result<bool> {
    db.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let _rollback = RollBack(db.connection);
    for job in group {
        if !job.run(db) {
            return Ok(false);
        }
    }
    db.connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(true)
}

/// Rolls back, when dropped, what was not committed.
struct RollBack<'c>(&'c Connection);

impl Drop for RollBack<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit()
            && let Err(error) = self.0.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }
}

fn checkpoint(connection: &Connection) {
    let moved =
        connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)").and_then(|mut s| s.query_row([], |_| Ok(())));
    if let Err(error) = moved {
        // Nothing is lost: the log grows, and the next one tries again.
        tracing::warn!(%error, "the write-ahead log could not be moved into the database");
    }
}
