//! In which order contents are read, and until when.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use mlxman_manifest::registry::CHUNK;

/// What the order goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    /// The content's place among the contents.
    pub(super) at: usize,
    pub(super) size: u64,
    /// When it was read last.
    pub(super) checked: Option<DateTime<Utc>>,
    /// Whether an earlier run began with it.
    pub(super) begun: bool,
}

/// The contents that are still to be read.
pub(super) struct Queue {
    waiting: Mutex<VecDeque<usize>>,
    budget: Option<Budget>,
}

struct Budget {
    until: Instant,
    /// Whether one has been given away: that one may go on for a while, so that every run gets further.
    given: AtomicBool,
}

impl Queue {
    /// Without a limit the largest come first, so that no thread is left with one at the end. With one, those that
    /// were checked longest ago: what an earlier run began with, then what was never checked, the smallest first.
    pub(super) fn new(mut all: Vec<Waiting>, budget: Option<Duration>) -> Self {
        match budget {
            None => all.sort_by_key(|one| (std::cmp::Reverse(one.size), one.at)),
            Some(_) => all.sort_by_key(|one| (!one.begun, one.checked, one.size, one.at)),
        }
        // A limit beyond all time is none.
        let until = budget.and_then(|budget| Instant::now().checked_add(budget));
        Queue {
            waiting: Mutex::new(all.into_iter().map(|one| one.at).collect()),
            budget: until.map(|until| Budget { until, given: AtomicBool::new(false) }),
        }
    }

    /// The next content, and whether it is to go on for a while whatever the time is.
    pub(super) fn next(&self) -> Option<(usize, bool)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = match &self.budget {
            None => false,
            Some(budget) => {
                let first = !budget.given.swap(true, Ordering::Relaxed);
                if !first && Instant::now() >= budget.until {
                    return None;
                }
                first
            }
        };
        waiting.pop_front().map(|at| (at, first))
    }

    /// Whether there is time to go on with a content of which `read` bytes were read by now.
    pub(super) fn goes_on(&self, first: bool, read: u64) -> bool {
        let Some(budget) = &self.budget else { return true };
        // One part can be taken note of, and a mark is set when the next one begins.
        first && read <= CHUNK || Instant::now() < budget.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(queue: &Queue) -> Vec<usize> {
        std::iter::from_fn(|| queue.next()).map(|(at, _)| at).collect()
    }

    #[test]
    fn the_longest_unchecked_come_first() {
        let day = |day: i64| DateTime::from_timestamp(day * 86_400, 0);
        let all: Vec<Waiting> =
            [(30, day(2), false), (20, None, false), (10, day(1), false), (40, None, true), (5, None, false)]
                .into_iter()
                .enumerate()
                .map(|(at, (size, checked, begun))| Waiting { at, size, checked, begun })
                .collect();
        assert_eq!(order(&Queue::new(all.clone(), None)), [3, 0, 1, 2, 4]);
        assert_eq!(order(&Queue::new(all.clone(), Some(Duration::from_secs(3600)))), [3, 4, 1, 2, 0]);
        assert_eq!(order(&Queue::new(all.clone(), Some(Duration::MAX))).len(), 5);
        let over = Queue::new(all, Some(Duration::ZERO));
        assert_eq!(over.next(), Some((3, true)), "one is always tried");
        assert_eq!(over.next(), None);
        assert!(over.goes_on(true, CHUNK) && !over.goes_on(true, CHUNK + 1) && !over.goes_on(false, 0));
    }
}
