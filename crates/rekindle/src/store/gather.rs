//! Intents that share a step: what arrives while others are under way is carried out together.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

use super::{StoreError, StoreResult};

/// How many intents may wait; more are refused, because by then nobody waits for the answer any more.
const QUEUE: usize = 16_384;

/// Intents of one kind, for a store to which many at once cost little more than one.
///
/// An intent that finds a free lane goes out at once and alone. Once all lanes are busy, what waits goes out together with the
/// first lane that becomes free: nobody waits for others to come.
pub struct Gather<I, O> {
    lanes: usize,
    group: usize,
    state: Mutex<State<I, O>>,
}

struct State<I, O> {
    waiting: VecDeque<Waiting<I, O>>,
    busy: usize,
}

/// An intent, and whoever waits for what comes of it.
pub struct Waiting<I, O> {
    /// What is to be carried out.
    pub intent: I,
    answer: oneshot::Sender<StoreResult<O>>,
}

/// Carries out one group after the other.
pub struct Lane<I, O> {
    gather: Arc<Gather<I, O>>,
    ended: bool,
}

impl<I, O> Gather<I, O> {
    /// With so many lanes, and so many intents in a group at most.
    pub fn new(lanes: usize, group: usize) -> Arc<Self> {
        Arc::new(Self { lanes, group, state: Mutex::new(State { waiting: VecDeque::new(), busy: 0 }) })
    }

    /// Has an intent carried out, with others or alone. Dropping the future does not stop it. `begin` gets a lane if one is free,
    /// and has it work on a task of its own.
    ///
    /// # Errors
    ///
    /// What the lane answers; [`StoreError::Unavailable`] if too many wait, or if the lane went away.
    pub async fn carry_out(self: &Arc<Self>, intent: I, begin: impl FnOnce(Lane<I, O>)) -> StoreResult<O> {
        let (answer, outcome) = oneshot::channel();
        let lane = {
            let mut state = self.state();
            if state.waiting.len() >= QUEUE {
                return Err(StoreError::Unavailable(format!("overloaded: {QUEUE} intents are waiting")));
            }
            state.waiting.push_back(Waiting { intent, answer });
            (state.busy < self.lanes).then(|| {
                state.busy += 1;
                Lane { gather: Arc::clone(self), ended: false }
            })
        };
        if let Some(lane) = lane {
            begin(lane);
        }
        outcome.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the process is ending".into())))
    }

    fn state(&self) -> MutexGuard<'_, State<I, O>> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I, O> fmt::Debug for Gather<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Gather").field("waiting", &state.waiting.len()).field("busy", &state.busy).finish()
    }
}

impl<I, O> Waiting<I, O> {
    /// Tells what came of it.
    pub fn answer(self, outcome: StoreResult<O>) {
        // Nobody may be waiting any more; what was done is done all the same.
        let _ = self.answer.send(outcome);
    }
}

/// Tells what came of each intent of a group; those of which nothing came yet are left to `alone`.
pub fn answer_group<I, O>(
    group: Vec<Waiting<I, O>>,
    outcomes: Vec<Option<StoreResult<O>>>,
    mut alone: impl FnMut(Waiting<I, O>),
) {
    for (waiting, outcome) in group.into_iter().zip(outcomes) {
        match outcome {
            Some(outcome) => waiting.answer(outcome),
            None => alone(waiting),
        }
    }
}

/// The groups; the lane ends when nothing waits.
impl<I, O> Iterator for Lane<I, O> {
    type Item = Vec<Waiting<I, O>>;

    fn next(&mut self) -> Option<Vec<Waiting<I, O>>> {
        if self.ended {
            return None;
        }
        let mut state = self.gather.state();
        let length = state.waiting.len().min(self.gather.group);
        if length == 0 {
            self.ended = true;
            state.busy -= 1;
            return None;
        }
        Some(state.waiting.drain(..length).collect())
    }
}

/// One that breaks off makes room for the next.
impl<I, O> Drop for Lane<I, O> {
    fn drop(&mut self) {
        if !self.ended {
            self.gather.state().busy -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Doubling = Gather<u32, u32>;

    /// Carries out what waits, and tells how much was carried out together.
    fn run(lane: Lane<u32, u32>) -> Vec<usize> {
        let groups = lane.map(|group| {
            let length = group.len();
            group.into_iter().for_each(|waiting| {
                let twice = 2 * waiting.intent;
                waiting.answer(Ok(twice));
            });
            length
        });
        groups.collect()
    }

    /// Asks, and keeps the lane that is begun.
    fn ask(
        gather: &Arc<Doubling>,
        intent: u32,
        lanes: &Arc<Mutex<Vec<Lane<u32, u32>>>>,
    ) -> tokio::task::JoinHandle<StoreResult<u32>> {
        let (gather, lanes) = (Arc::clone(gather), Arc::clone(lanes));
        tokio::spawn(async move { gather.carry_out(intent, |lane| lanes.lock().unwrap().push(lane)).await })
    }

    #[tokio::test]
    async fn what_finds_no_free_lane_goes_together() {
        let (gather, lanes) = (Doubling::new(2, 3), Arc::default());
        let asked: Vec<_> = (0..9).map(|i| ask(&gather, i, &lanes)).collect();
        tokio::task::yield_now().await;
        let mut lanes = std::mem::take(&mut *lanes.lock().unwrap());
        assert_eq!(lanes.len(), 2);
        assert_eq!(run(lanes.remove(0)), [3, 3, 3]);
        assert_eq!(run(lanes.remove(0)), [0; 0]);
        for (i, asked) in (0..).zip(asked) {
            assert_eq!(asked.await.unwrap(), Ok(2 * i));
        }
        assert_eq!(format!("{gather:?}"), "Gather { waiting: 0, busy: 0 }");
    }

    #[tokio::test]
    async fn an_intent_whose_caller_has_gone_is_carried_out() {
        let (gather, lanes) = (Doubling::new(1, 3), Arc::default());
        let asked = ask(&gather, 1, &lanes);
        tokio::task::yield_now().await;
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
        let lane = lanes.lock().unwrap().pop().unwrap();
        assert_eq!(run(lane), [1]);
    }

    #[tokio::test]
    async fn a_lane_that_breaks_off_fails_its_group_and_makes_room() {
        let (gather, lanes) = (Doubling::new(1, 3), Arc::default());
        let asked = ask(&gather, 1, &lanes);
        tokio::task::yield_now().await;
        let mut lane = lanes.lock().unwrap().pop().unwrap();
        drop(lane.next());
        drop(lane);
        assert!(matches!(asked.await.unwrap(), Err(StoreError::Unavailable(_))));
        let asked = ask(&gather, 2, &lanes);
        tokio::task::yield_now().await;
        let lane = lanes.lock().unwrap().pop().unwrap();
        assert_eq!(run(lane), [1]);
        assert_eq!(asked.await.unwrap(), Ok(4));
    }

    #[tokio::test]
    async fn too_many_are_refused() {
        let (gather, lanes) = (Doubling::new(1, 3), Arc::default());
        let asked: Vec<_> = (0..=QUEUE as u32).map(|i| ask(&gather, i, &lanes)).collect();
        let last = asked.into_iter().next_back().unwrap().await.unwrap();
        assert!(matches!(last, Err(StoreError::Unavailable(text)) if text.starts_with("overloaded")));
    }
}
