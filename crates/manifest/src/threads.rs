//! The threads that work side by side: made when they are first needed, and done without where the system gives none.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Does `work`, whose parallel parts share this process's threads. Rayon's own pool ends the process where it can start no
/// thread, as where this user may have no more processes; then all is done in this thread.
pub(crate) fn side_by_side<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    within(POOL.get_or_init(|| ThreadPoolBuilder::new().build().ok()).as_ref(), work)
}

/// As [`side_by_side`], for work that writes files and waits until they last: more threads than cores, for a filesystem makes
/// what many wait for last in one go.
pub(crate) fn writing<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let wide = || {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        ThreadPoolBuilder::new().num_threads(cores.max(WRITERS)).build().ok()
    };
    match POOL.get_or_init(wide) {
        Some(pool) => pool.install(work),
        None => side_by_side(work),
    }
}

const WRITERS: usize = 16;

fn within<R: Send>(pool: Option<&ThreadPool>, work: impl FnOnce() -> R + Send) -> R {
    if let Some(pool) = pool {
        return pool.install(work);
    }
    // A pool of this thread alone needs no other. A thread that has one keeps it for as long as it lives, so it is never
    // given back.
    match ThreadPoolBuilder::new().num_threads(1).use_current_thread().build() {
        Ok(pool) => Box::leak(Box::new(pool)).install(work),
        // It has one already.
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn all_is_done_with_a_thread_of_its_own_and_without() {
        let sum = || (0..1000u64).into_par_iter().sum::<u64>();
        assert_eq!(side_by_side(sum), 499_500);
        std::thread::scope(|scope| {
            let alone = scope.spawn(|| {
                let pool = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
                let _ = Box::leak(Box::new(pool));
                (rayon::current_num_threads(), side_by_side(sum), sum())
            });
            assert_eq!(alone.join().unwrap(), (1, 499_500, 499_500));
        });
    }
}
