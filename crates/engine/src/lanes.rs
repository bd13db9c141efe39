//! Threads for the CPU.
//!
//! MLX computes on the CPU with one thread a stream. A product of a large matrix is therefore cut into parts by its
//! rows, each on a stream of its own. A model without such a matrix is computed on one core: its operations take
//! microseconds, and waking a thread on another core takes longer than that.

use std::cell::{Cell, RefCell};

use mlx_rs::{Array, Stream, ops, with_stream};

use crate::error::Result;

thread_local! {
    static LANES: RefCell<Vec<Stream>> = const { RefCell::new(Vec::new()) };
    static CUT: Cell<bool> = const { Cell::new(false) };
}

/// The most threads: more than these wait for each other longer than they compute.
const MOST: usize = 8;

/// A matrix with fewer elements is not cut: waiting for the other threads would take longer.
const WORTH_CUTTING: usize = 1 << 17;

/// Opens as many streams as there are cores, for the CPU.
pub(crate) fn open() {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST));
    LANES.with_borrow_mut(|lanes| {
        *lanes = (1..cores).map(|_| Stream::new_with_device(&mlx_rs::Device::cpu())).collect();
    });
}

/// Where to cut a matrix: the rows at which parts begin and end. One part where it is not worth it.
pub(crate) fn cuts(rows: usize, columns: usize) -> Vec<(i32, i32)> {
    let lanes = LANES.with_borrow(Vec::len) + 1;
    let parts = if rows.saturating_mul(columns) < WORTH_CUTTING { 1 } else { lanes };
    CUT.with(|cut| cut.set(cut.get() || parts > 1));
    // In eights, so that no kernel's vectors are cut.
    let step = rows.div_ceil(parts).next_multiple_of(8).max(1);
    (0..rows).step_by(step).map(|start| (start as i32, (start + step).min(rows) as i32)).collect()
}

/// Whether a matrix was cut since this was asked last.
pub(crate) fn has_cut() -> bool {
    CUT.replace(false)
}

/// Keeps all threads of this process on the core that it runs on, while it lives. Where the system doesn't say which
/// threads there are, or doesn't allow it, nothing happens.
#[derive(Debug)]
pub(crate) struct OneCore {
    #[cfg(target_os = "linux")]
    before: Option<rustix::thread::CpuSet>,
}

impl OneCore {
    #[cfg(target_os = "linux")]
    pub(crate) fn keep() -> Self {
        let before = rustix::thread::sched_getaffinity(None).ok();
        let mut one = rustix::thread::CpuSet::new();
        one.set(rustix::thread::sched_getcpu());
        let is_kept = before.is_some() && every_thread(&one);
        OneCore { before: before.filter(|_| is_kept) }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn keep() -> Self {
        OneCore {}
    }
}

#[cfg(target_os = "linux")]
impl Drop for OneCore {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            every_thread(before);
        }
    }
}

#[cfg(target_os = "linux")]
fn every_thread(cores: &rustix::thread::CpuSet) -> bool {
    let Ok(threads) = fs_err::read_dir("/proc/self/task") else { return false };
    let ids = threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    let mut all = true;
    for id in ids.filter_map(rustix::process::Pid::from_raw) {
        // A thread that has ended meanwhile needs no core.
        all &= rustix::thread::sched_setaffinity(Some(id), cores).is_ok();
    }
    all
}

/// What every part gives, each on its own stream, one after the other along the last axis.
pub(crate) fn side_by_side<T>(parts: &[T], product: impl Fn(&T) -> Result<Array>) -> Result<Array> {
    let done = LANES.with_borrow(|lanes| {
        parts
            .iter()
            .enumerate()
            .map(|(at, part)| match at.checked_sub(1).and_then(|at| lanes.get(at)) {
                Some(lane) => with_stream(lane, || product(part)),
                None => product(part),
            })
            .collect::<Result<Vec<Array>>>()
    })?;
    match done.as_slice() {
        [one] => Ok(one.clone()),
        _ => Ok(ops::concatenate(&done, -1)?),
    }
}
