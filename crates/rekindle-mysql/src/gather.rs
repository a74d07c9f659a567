//! Intents that arrive while others of their kind are under way share a transaction. One that finds nobody else is carried out at
//! once.
//!
//! Together they wait for no lock: where somebody else is in the way, an intent is carried out on a task of its own, which may wait
//! and try again. So none holds up the others, and two such transactions cannot lock each other out.

use std::sync::Arc;

use async_trait::async_trait;
use rekindle::store::{Gather, StoreResult, Waiting, answer_group};

use crate::pool::{Failure, Pool, outcomes_of};

/// How many intents share a transaction at most.
pub(crate) const GROUP: usize = 64;

/// What several intents cost little more than one of.
#[async_trait]
pub(crate) trait Shared: Send + Sync + 'static {
    type Outcome: Clone + Send + 'static;

    /// A try that waits for no lock; what came of each that it could be tried with.
    async fn try_together(pool: &Pool, asked: &[&Self]) -> Result<Vec<Option<Self::Outcome>>, Failure>;

    /// Carries out one by itself, which may wait.
    async fn try_alone(&self, pool: &Pool) -> Result<Self::Outcome, Failure>;
}

impl Pool {
    /// Carries out an intent, with others or alone.
    pub(crate) async fn share<I: Shared>(
        self: &Arc<Self>,
        gather: &Arc<Gather<I, I::Outcome>>,
        intent: I,
    ) -> StoreResult<I::Outcome> {
        let carried_out = gather.carry_out(intent, |lane| {
            let pool = Arc::clone(self);
            tokio::spawn(async move {
                for group in lane {
                    pool.carry_out_group(group).await;
                }
            });
        });
        carried_out.await
    }

    async fn carry_out_group<I: Shared>(self: &Arc<Self>, group: Vec<Waiting<I, I::Outcome>>) {
        let asked: Vec<&I> = group.iter().map(|waiting| &waiting.intent).collect();
        let outcomes = outcomes_of(I::try_together(self, &asked).await, group.len());
        answer_group(group, outcomes, |waiting| {
            let pool = Arc::clone(self);
            tokio::spawn(async move {
                let outcome = pool.retry(|| waiting.intent.try_alone(&pool)).await;
                waiting.answer(outcome);
            });
        });
    }
}
