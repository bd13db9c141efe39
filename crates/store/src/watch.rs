//! Work on several stores at once, none of which may hold up the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Fewer steps than this within one limit is as good as no answer: a volume that gives some ten entries a second
/// would take hours for a real store.
const STEPS_PER_LIMIT: u64 = 100;

/// Counts the steps of one store's work (entries read, headers parsed), so that a stall can be told from a long job.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Tells that `n` more steps are done.
    pub fn step(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is said of a job that was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It made next to no progress within the limit.
    TooSlow(Duration),
    /// Its thread ended without a result.
    Lost,
    /// No thread could be started for it.
    NotStarted,
}

struct Waiting {
    progress: Progress,
    since: Instant,
    steps_then: u64,
}

/// Tells the outcome when its thread ends, also when that panics.
struct Answer<T> {
    sender: mpsc::Sender<(usize, Option<T>)>,
    index: usize,
    result: Option<T>,
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        // Nobody listens any more once the job was given up.
        let _ = self.sender.send((self.index, self.result.take()));
    }
}

/// Runs `work` on every job, each on a thread of its own, and gives the results in the order of the jobs. A job that
/// makes next to no progress for `limit` is given up: its thread, which may hang in the system for as long as a dead
/// volume likes, is left behind.
pub fn watch<J, T>(
    jobs: Vec<J>,
    limit: Duration,
    work: impl Fn(J, &Progress) -> T + Clone + Send + 'static,
) -> Vec<Result<T, Late>>
where
    J: Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = mpsc::channel();
    let mut results: Vec<Option<Result<T, Late>>> = Vec::new();
    let mut waiting: Vec<Option<Waiting>> = Vec::new();
    for (index, job) in jobs.into_iter().enumerate() {
        let progress = Progress::default();
        let (sender, work, mine) = (sender.clone(), work.clone(), progress.clone());
        let spawned = std::thread::Builder::new().name(format!("store {index}")).spawn(move || {
            let mut answer = Answer { sender, index, result: None };
            answer.result = Some(work(job, &mine));
        });
        results.push(spawned.is_err().then_some(Err(Late::NotStarted)));
        waiting.push(spawned.is_ok().then(|| Waiting { progress, since: Instant::now(), steps_then: 0 }));
    }
    drop(sender);
    while waiting.iter().any(Option::is_some) {
        let next = waiting.iter().flatten().map(|one| one.since + limit).min().unwrap_or_else(Instant::now);
        match receiver.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok((index, result)) => {
                if waiting[index].take().is_some() {
                    results[index] = Some(result.ok_or(Late::Lost));
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                for (slot, result) in waiting.iter_mut().zip(&mut results) {
                    let Some(one) = slot else { continue };
                    if one.since.elapsed() < limit {
                        continue;
                    }
                    let steps = one.progress.steps();
                    if steps - one.steps_then < STEPS_PER_LIMIT {
                        *result = Some(Err(Late::TooSlow(limit)));
                        *slot = None;
                    } else {
                        one.since = Instant::now();
                        one.steps_then = steps;
                    }
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    results.into_iter().map(|result| result.unwrap_or(Err(Late::Lost))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_hangs_is_given_up_and_the_others_are_not() {
        let limit = Duration::from_millis(500);
        let results = watch(vec![0u32, 1, 2, 3], limit, move |job, progress| {
            match job {
                1 => std::thread::sleep(Duration::from_secs(30)),
                // Longer than the limit, but getting on.
                2 => {
                    for _ in 0..60 {
                        progress.step(20);
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
                3 => panic!("a lost thread"),
                _ => {}
            }
            job
        });
        assert_eq!(results, [Ok(0), Err(Late::TooSlow(limit)), Ok(2), Err(Late::Lost)]);
    }
}
