//! The one queue of a version: plain data, without locks, threads or a clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::Error;
use crate::shadow::Pressed;
use crate::validate::ValidRequest;
use crate::worker::Answer;

/// Where a request without a priority stands: 1 is the most urgent.
pub(crate) const DEFAULT_PRIORITY: u32 = 1000;

/// How many waiting requests are looked at to fill a batch. Requests of one model nearly always
/// stack; the limit keeps a queue of many different shapes from being searched end to end.
const LOOK_AHEAD: usize = 1024;

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// What to run.
    pub(crate) request: ValidRequest,
    /// When it was admitted.
    pub(crate) admitted: Instant,
    /// When its answer is of no more use.
    pub(crate) deadline: Option<Instant>,
    /// Where its answer goes.
    pub(crate) reply: oneshot::Sender<Result<Answer, Error>>,
    /// Held while it waits, if it has to.
    pub(crate) pressed: Option<Pressed>,
}

impl Waiting {
    fn is_wanted(&self, now: Instant) -> bool {
        !self.reply.is_closed() && self.deadline.is_none_or(|deadline| now < deadline)
    }
}

/// Requests in the order of their priority, then of their arrival.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    levels: BTreeMap<u32, VecDeque<Waiting>>,
    requests: usize,
    rows: usize,
}

impl Queue {
    /// How many requests wait.
    pub(crate) fn requests(&self) -> usize {
        self.requests
    }

    /// How many of them somebody still waits for. Looks at each.
    pub(crate) fn wanted(&self, now: Instant) -> usize {
        self.levels.values().flatten().filter(|waiting| waiting.is_wanted(now)).count()
    }

    /// How many rows wait at this priority or a more urgent one.
    pub(crate) fn rows_before(&self, priority: u32) -> usize {
        // Nearly always there is one level, and the total is the answer.
        if self.levels.keys().next_back().is_none_or(|last| *last <= priority) {
            return self.rows;
        }
        let urgent = self.levels.range(..=priority).flat_map(|(_, level)| level);
        urgent.map(|waiting| waiting.request.rows()).sum()
    }

    /// Puts a request behind those of its priority.
    pub(crate) fn push(&mut self, priority: u32, waiting: Waiting) {
        self.requests += 1;
        self.rows += waiting.request.rows();
        self.levels.entry(priority).or_default().push_back(waiting);
    }

    /// Takes the most urgent request and those that stack with it, up to `most` rows together.
    ///
    /// Skips (and forgets) requests whose caller is gone or whose deadline is past; dropping a
    /// request closes its reply channel, which tells a caller that still waits. A request larger
    /// than `most` is taken alone.
    pub(crate) fn take_batch(&mut self, now: Instant, most: usize) -> Option<Vec<Waiting>> {
        let mut batch: Vec<Waiting> = Vec::new();
        let mut rows = 0;
        let mut looked_at = 0;
        for level in self.levels.values_mut() {
            let mut position = 0;
            while position < level.len() && looked_at < LOOK_AHEAD {
                looked_at += 1;
                let waiting = &level[position];
                let wanted = waiting.is_wanted(now);
                let count = waiting.request.rows();
                let fits = match batch.first() {
                    None => true,
                    Some(first) => {
                        rows + count <= most && waiting.request.stacks_with(&first.request)
                    }
                };
                if wanted && !fits {
                    position += 1;
                    continue;
                }
                let mut waiting = level.remove(position).expect("the position is in range");
                waiting.pressed = None;
                self.requests -= 1;
                self.rows -= count;
                if wanted {
                    rows += count;
                    batch.push(waiting);
                }
            }
            if rows >= most || looked_at >= LOOK_AHEAD {
                break;
            }
        }
        self.levels.retain(|_, level| !level.is_empty());
        (!batch.is_empty()).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::validate;
    use model::{DataType, Dimension, Signature, Tensor, TensorSpec};
    use proptest::prelude::*;
    use std::time::Duration;

    type Receiver = oneshot::Receiver<Result<Answer, Error>>;

    fn waiting(rows: usize, width: usize, now: Instant) -> (Waiting, Receiver) {
        let shape = vec![Dimension::Any, Dimension::Any];
        let signature = Signature {
            inputs: vec![TensorSpec::new("x", DataType::Fp32, shape)],
            outputs: Vec::new(),
            batched: true,
        };
        let x = Tensor::new(vec![rows, width], vec![0f32; rows * width]).unwrap();
        let request = validate(&signature, vec![("x".into(), x)], &[]).unwrap();
        let (reply, receiver) = oneshot::channel();
        (Waiting { request, admitted: now, deadline: None, reply, pressed: None }, receiver)
    }

    fn sizes(batch: Option<Vec<Waiting>>) -> Vec<usize> {
        batch.unwrap_or_default().iter().map(|w| w.request.rows()).collect()
    }

    #[test]
    fn takes_as_many_as_fit_and_leaves_the_rest_in_order() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let mut receivers = Vec::new();
        for rows in [2, 3, 4, 1] {
            let (waiting, receiver) = waiting(rows, 1, now);
            queue.push(5, waiting);
            receivers.push(receiver);
        }
        assert_eq!(sizes(queue.take_batch(now, 6)), [2, 3, 1]);
        assert_eq!(sizes(queue.take_batch(now, 6)), [4]);
        assert!(queue.take_batch(now, 6).is_none());
        assert_eq!((queue.requests, queue.rows), (0, 0));
    }

    #[test]
    fn the_urgent_go_first_and_the_large_go_alone() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let (low, _low) = waiting(1, 1, now);
        let (large, _large) = waiting(100, 1, now);
        queue.push(9, low);
        queue.push(1, large);
        assert_eq!(queue.rows_before(1), 100);
        assert_eq!(queue.rows_before(9), 101);
        assert_eq!(sizes(queue.take_batch(now, 8)), [100]);
        assert_eq!(sizes(queue.take_batch(now, 8)), [1]);
    }

    #[test]
    fn callers_that_are_gone_and_deadlines_that_are_past_are_skipped() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let (gone, receiver) = waiting(1, 1, now);
        drop(receiver);
        let (mut late, _late) = waiting(2, 1, now);
        late.deadline = Some(now);
        let (mut early, _early) = waiting(3, 1, now);
        early.deadline = Some(now + Duration::from_secs(1));
        for waiting in [gone, late, early] {
            queue.push(5, waiting);
        }
        assert_eq!(sizes(queue.take_batch(now, 100)), [3]);
        assert_eq!(queue.requests(), 0);
    }

    proptest! {
        #[test]
        fn every_request_leaves_exactly_once_and_no_batch_is_too_large(
            requests in prop::collection::vec((1usize..9, 1usize..3, 1u32..4), 0..40),
            most in 1usize..12,
        ) {
            let now = Instant::now();
            let mut queue = Queue::default();
            let mut receivers = Vec::new();
            for (rows, width, priority) in &requests {
                let (waiting, receiver) = waiting(*rows, *width, now);
                queue.push(*priority, waiting);
                receivers.push(receiver);
            }
            let mut left = 0;
            while let Some(batch) = queue.take_batch(now, most) {
                let rows: usize = batch.iter().map(|w| w.request.rows()).sum();
                prop_assert!(rows <= most || batch.len() == 1);
                prop_assert!(batch.iter().all(|w| w.request.stacks_with(&batch[0].request)));
                left += batch.len();
            }
            prop_assert_eq!(left, requests.len());
            prop_assert_eq!((queue.requests, queue.rows), (0, 0));
        }
    }
}
