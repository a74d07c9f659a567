//! Reading several sorted indexes as if they were one.

use std::collections::VecDeque;

use rekindle::store::StoreResult;

use crate::{Inner, each};

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// A walk over the members of sorted sets that are spread over several keys, in the order of their bytes. Members that come or
/// go meanwhile may be seen or not.
pub(crate) struct Walk {
    sources: Vec<Source>,
    order: Order,
}

struct Source {
    key: String,
    /// Where to go on, as `ZRANGEBYLEX` takes it.
    from: Vec<u8>,
    read: VecDeque<Vec<u8>>,
    at_end: bool,
}

/// The least that is read from a key at once.
const LEAST: usize = 16;
/// And the most.
const MOST: usize = 1000;

impl Walk {
    /// From `from`, an edge as `ZRANGEBYLEX` takes it.
    pub(crate) fn new(keys: Vec<String>, order: Order, from: Vec<u8>) -> Self {
        let source = |key| Source { key, from: from.clone(), read: VecDeque::new(), at_end: false };
        Self { sources: keys.into_iter().map(source).collect(), order }
    }

    /// The next members, each with the number of its key; fewer than `count` only at the end.
    pub(crate) async fn next(&mut self, inner: &Inner, count: usize) -> StoreResult<Vec<(usize, Vec<u8>)>> {
        let mut members = Vec::with_capacity(count.min(MOST));
        while members.len() < count {
            let missing = count - members.len();
            self.fill(inner, missing).await?;
            let with_first = self.sources.iter().enumerate().filter_map(|(i, s)| Some((i, s.read.front()?)));
            let next = match self.order {
                Order::Ascending => with_first.min_by_key(|(_, member)| *member),
                Order::Descending => with_first.max_by_key(|(_, member)| *member),
            };
            let Some(i) = next.map(|(i, _)| i) else { break };
            members.extend(self.sources[i].read.pop_front().map(|member| (i, member)));
        }
        Ok(members)
    }

    /// Reads on wherever nothing is left.
    async fn fill(&mut self, inner: &Inner, missing: usize) -> StoreResult<()> {
        let share = (2 * missing / self.sources.len().max(1)).clamp(LEAST, MOST);
        let order = self.order;
        let empty = self.sources.iter_mut().filter(|s| s.read.is_empty() && !s.at_end);
        each(empty.map(|source| source.fill(inner, order, share))).await.map(drop)
    }
}

impl Source {
    async fn fill(&mut self, inner: &Inner, order: Order, count: usize) -> StoreResult<()> {
        let mut command = match order {
            Order::Ascending => redis::cmd("ZRANGEBYLEX"),
            Order::Descending => redis::cmd("ZREVRANGEBYLEX"),
        };
        let end: &[u8] = if order == Order::Ascending { b"+" } else { b"-" };
        command.arg(&self.key).arg(&self.from).arg(end).arg("LIMIT").arg(0).arg(count);
        let members: Vec<Vec<u8>> = inner.link.query(&command).await?;
        self.at_end = members.len() < count;
        if let Some(last) = members.last() {
            self.from = [b"(", last.as_slice()].concat();
        }
        self.read.extend(members);
        Ok(())
    }
}
