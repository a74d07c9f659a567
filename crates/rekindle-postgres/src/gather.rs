//! Intents that arrive while others of their kind are under way share a step. One that finds nobody else is carried out at once.

use std::sync::Arc;

use async_trait::async_trait;
use rekindle::store::{Gather, StoreResult, Waiting, answer_group};

use crate::database::Database;
use crate::transaction::column;

/// How many intents share a step at most.
pub(crate) const GROUP: usize = 64;

/// What several intents cost little more than one of.
#[async_trait]
pub(crate) trait Shared: Send + Sync + 'static {
    type Outcome: Clone + Send + 'static;

    /// What came of each, where it could be carried out without waiting for a lock.
    async fn together(database: &Database, asked: &[&Self]) -> StoreResult<Vec<Option<StoreResult<Self::Outcome>>>>;

    /// Carries out one, on a connection of its own: what it rests on is another by now, or was locked.
    async fn alone(&self, database: &Database) -> StoreResult<Self::Outcome>;
}

impl Database {
    /// Carries out an intent, with others or alone.
    pub(crate) async fn share<I: Shared>(
        &self,
        gather: &Arc<Gather<I, I::Outcome>>,
        intent: I,
    ) -> StoreResult<I::Outcome> {
        let carried_out = gather.carry_out(intent, |lane| {
            let database = self.clone();
            tokio::spawn(async move {
                for group in lane {
                    database.carry_out_group(group).await;
                }
            });
        });
        carried_out.await
    }

    async fn carry_out_group<I: Shared>(&self, group: Vec<Waiting<I, I::Outcome>>) {
        let outcomes = match I::together(self, &column(&group, |waiting| &waiting.intent)).await {
            Ok(outcomes) => outcomes,
            Err(error) => vec![Some(Err(error)); group.len()],
        };
        answer_group(group, outcomes, |waiting| {
            let database = self.clone();
            tokio::spawn(async move {
                let outcome = waiting.intent.alone(&database).await;
                waiting.answer(outcome);
            });
        });
    }
}
