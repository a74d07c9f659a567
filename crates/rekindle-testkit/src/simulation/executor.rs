//! One thread, virtual time: the next task to run is drawn from the seed among those that are ready, and when none is, the
//! clock jumps to the next timer.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use rekindle::clock::{Clock, Timestamp};

use crate::seam::SeededRng;

/// The virtual time, and who waits for it. Shared with the store, which must be `Sync`.
#[derive(Default)]
pub(super) struct Time {
    now: AtomicI64,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    timers: BTreeMap<(i64, u64), Waker>,
    next: u64,
    ready: BTreeSet<u64>,
}

impl Time {
    pub(super) fn starting_at(now: Timestamp) -> Arc<Self> {
        let time = Self::default();
        time.now.store(now.millis(), Ordering::Relaxed);
        Arc::new(time)
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::Relaxed))
    }

    /// Waits; also for zero milliseconds others may run in between.
    pub(super) fn sleep(self: &Arc<Self>, millis: u64) -> Sleep {
        Sleep { time: Arc::clone(self), due: self.now().millis() + millis as i64, registered: false }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Sleep {
    time: Arc<Time>,
    due: i64,
    registered: bool,
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.registered && self.time.now().millis() >= self.due {
            return Poll::Ready(());
        }
        if !self.registered {
            self.registered = true;
            let time = Arc::clone(&self.time);
            let mut queue = time.queue();
            queue.next += 1;
            let key = (self.due, queue.next);
            queue.timers.insert(key, cx.waker().clone());
        }
        Poll::Pending
    }
}

/// A clock that is wrong by a constant.
pub(super) struct SkewedClock {
    pub(super) time: Arc<Time>,
    pub(super) skew_millis: i64,
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.time.now().millis() + self.skew_millis)
    }
}

struct TaskWaker {
    id: u64,
    time: Arc<Time>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.time.queue().ready.insert(self.id);
    }
}

/// What dies together: a server, a tab, a device.
pub(super) type Group = u64;

type Task = (Group, Pin<Box<dyn Future<Output = ()>>>);

pub(super) struct Executor {
    pub(super) time: Arc<Time>,
    rng: SeededRng,
    tasks: RefCell<BTreeMap<u64, Task>>,
    killed: RefCell<BTreeSet<Group>>,
    next: Cell<u64>,
    steps: Cell<u64>,
}

impl Executor {
    pub(super) fn new(time: Arc<Time>, seed: u64) -> Self {
        Self {
            time,
            rng: SeededRng::new(seed),
            tasks: RefCell::default(),
            killed: RefCell::default(),
            next: Cell::new(0),
            steps: Cell::new(0),
        }
    }

    /// How many times a task was polled so far: orders everything that happens.
    pub(super) fn steps(&self) -> u64 {
        self.steps.get()
    }

    pub(super) fn spawn(&self, group: Group, task: impl Future<Output = ()> + 'static) {
        let id = self.next.get();
        self.next.set(id + 1);
        self.tasks.borrow_mut().insert(id, (group, Box::pin(task)));
        self.time.queue().ready.insert(id);
    }

    /// Drops every task of the group where it stands, the one that is running included.
    pub(super) fn kill(&self, group: Group) {
        let dead: Vec<u64> = self.tasks.borrow().iter().filter(|(_, t)| t.0 == group).map(|(id, _)| *id).collect();
        let dropped: Vec<Option<Task>> = dead.iter().map(|id| self.tasks.borrow_mut().remove(id)).collect();
        drop(dropped);
        self.killed.borrow_mut().insert(group);
    }

    /// Drops every task.
    pub(super) fn clear(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        let timers = std::mem::take(&mut self.time.queue().timers);
        drop(timers);
    }

    /// Runs until `done` holds, checking after each step; false when nothing is left to run.
    pub(super) fn run(&self, mut done: impl FnMut() -> bool) -> bool {
        while !done() {
            let Some(id) = self.next_ready() else { return false };
            let Some((group, mut task)) = self.tasks.borrow_mut().remove(&id) else { continue };
            self.steps.set(self.steps.get() + 1);
            self.killed.borrow_mut().clear();
            let waker = Waker::from(Arc::new(TaskWaker { id, time: Arc::clone(&self.time) }));
            let pending = task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
            if pending && !self.killed.borrow().contains(&group) {
                self.tasks.borrow_mut().insert(id, (group, task));
            }
        }
        true
    }

    fn next_ready(&self) -> Option<u64> {
        let mut queue = self.time.queue();
        if queue.ready.is_empty() {
            let due = queue.timers.keys().next()?.0;
            self.time.now.fetch_max(due, Ordering::Relaxed);
            let later = queue.timers.split_off(&(due + 1, 0));
            let fired = std::mem::replace(&mut queue.timers, later);
            drop(queue);
            fired.into_values().for_each(Waker::wake);
            queue = self.time.queue();
        }
        let at = self.rng.below(queue.ready.len() as u64) as usize;
        let id = *queue.ready.iter().nth(at).expect("below its length");
        queue.ready.remove(&id);
        Some(id)
    }
}
