//! Reading files for what tells them apart: heads and tails first, then all of it, in pieces that every thread can take.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use blake3::hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use mlxman_store::{Stat, mapped};

/// How much of a file's head and of its tail is looked at first.
const END: u64 = 16 << 10;

/// A piece of a file: a power of two, so that pieces are whole subtrees of the hash.
const PIECE: u64 = 16 << 20;

/// How much is read at once: it stays in a core's own cache until it is hashed.
const BUFFER: usize = 256 << 10;

/// What is smaller is copied: to map it would take longer.
const MAPPED: u64 = 1 << 20;

/// How a file is opened.
pub(super) type Open<'a> = &'a (dyn Fn(usize) -> io::Result<File> + Sync);

/// Why a file has no hash.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is not what it was when the store was walked.
    Changed,
    /// What the system says.
    System(io::Error),
    /// It was told to stop.
    Stopped,
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => Unread::Changed,
            _ => Unread::System(error),
        }
    }
}

/// BLAKE3 of the first and the last bytes of each file; files without a middle are hashed whole.
pub(super) fn ends(files: &[Stat], open: Open<'_>) -> Vec<Result<[u8; 32], Unread>> {
    side_by_side(files.len(), |at, buffer| {
        let length = files[at].size;
        let file = opened(open, at, &files[at])?;
        let head = length.min(END) as usize;
        file.read_exact_at(&mut buffer[..head], 0)?;
        let tail = length.saturating_sub(END).min(END) as usize;
        file.read_exact_at(&mut buffer[head..head + tail], length - tail as u64)?;
        Ok(*blake3::hash(&buffer[..head + tail]).as_bytes())
    })
    .into_iter()
    .map(|one| one.unwrap_or(Err(Unread::Stopped)))
    .collect()
}

/// Whether head and tail are all of a file.
pub(super) fn has_no_middle(length: u64) -> bool {
    length <= 2 * END
}

/// BLAKE3 of each file. `step(bytes, file)` says whether to go on.
pub(super) fn whole(
    files: &[Stat],
    open: Open<'_>,
    step: &(dyn Fn(u64, usize) -> bool + Sync),
) -> Vec<Result<String, Unread>> {
    let pieces: Vec<(usize, u64)> = files
        .iter()
        .enumerate()
        .flat_map(|(at, stat)| (0..stat.size.div_ceil(PIECE).max(1)).map(move |piece| (at, piece * PIECE)))
        .collect();
    let stopped = AtomicBool::new(false);
    let values = side_by_side(pieces.len(), |at, buffer| {
        let (index, offset) = pieces[at];
        if stopped.load(Ordering::Relaxed) {
            return Err(Unread::Stopped);
        }
        let stat = &files[index];
        let file = opened(open, index, stat)?;
        let end = stat.size.min(offset + PIECE);
        let hasher = hash_piece(&file, offset, end, buffer)?;
        // Whoever wrote to it meanwhile left a mark in its times.
        if !Stat::of_file(&file).is_ok_and(|now| now.is_unchanged(stat)) {
            return Err(Unread::Changed);
        }
        if !step(end - offset, index) {
            stopped.store(true, Ordering::Relaxed);
        }
        Ok(if stat.size <= PIECE { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() })
    });
    let mut values = pieces.into_iter().zip(values).peekable();
    let mut hashes = Vec::with_capacity(files.len());
    for index in 0..files.len() {
        let mut own: Result<Vec<ChainingValue>, Unread> = Ok(Vec::new());
        while let Some((_, value)) = values.next_if(|((of, _), _)| *of == index) {
            let value = value.unwrap_or(Err(Unread::Stopped));
            own = own.and_then(|mut own| {
                own.push(value?);
                Ok(own)
            });
        }
        hashes.push(own.map(|values| root(&values).to_hex().to_string()));
    }
    hashes
}

fn opened(open: Open<'_>, at: usize, stat: &Stat) -> Result<File, Unread> {
    let file = open(at)?;
    if Stat::of_file(&file)?.is_unchanged(stat) { Ok(file) } else { Err(Unread::Changed) }
}

fn hash_piece(file: &File, from: u64, to: u64, buffer: &mut [u8]) -> io::Result<blake3::Hasher> {
    let begin = || {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(from);
        hasher
    };
    if to - from >= MAPPED {
        let mut hasher = begin();
        let hashed = mapped(file, from, (to - from) as usize, |bytes| {
            hasher.update(bytes);
        });
        // If it is cut, or the disk has an error, reading it says which.
        if hashed.is_ok() {
            return Ok(hasher);
        }
    }
    let mut hasher = begin();
    let mut at = from;
    while at < to {
        let wanted = usize::try_from(to - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        file.read_exact_at(&mut buffer[..wanted], at)?;
        hasher.update(&buffer[..wanted]);
        at += wanted as u64;
    }
    Ok(hasher)
}

/// The hash over the pieces of a file; that of a file of one piece is its own.
fn root(pieces: &[ChainingValue]) -> blake3::Hash {
    match pieces {
        [] => blake3::hash(&[]),
        [one] => blake3::Hash::from_bytes(*one),
        several => {
            let (left, right) = halves(several);
            merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

fn subtree(pieces: &[ChainingValue]) -> ChainingValue {
    match pieces {
        [one] => *one,
        several => {
            let (left, right) = halves(several);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// The left half is the largest power of two that leaves something to the right.
fn halves(pieces: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    pieces.split_at(pieces.len().next_power_of_two() / 2)
}

/// Does `work` for `0..count` on as many threads as the machine has cores, each with a buffer of its own. Where no thread
/// can be had, this one does it all.
fn side_by_side<T: Send>(
    count: usize,
    work: impl Fn(usize, &mut [u8]) -> Result<T, Unread> + Sync,
) -> Vec<Option<Result<T, Unread>>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<T, Unread>>>> = Mutex::new((0..count).map(|_| None).collect());
    let run = || {
        let mut buffer = vec![0; BUFFER];
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                break;
            }
            let result = work(at, &mut buffer);
            results.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[at] = Some(result);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(count);
    std::thread::scope(|scope| {
        for _ in 1..cores {
            if std::thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlxman_store::DirHandle;

    fn files(sizes: &[u64]) -> (tempfile::TempDir, Vec<Stat>) {
        let dir = tempfile::tempdir().unwrap();
        let root = DirHandle::open_root(dir.path()).unwrap();
        let stats = sizes.iter().enumerate().map(|(at, size)| {
            let file = fs_err::File::create(dir.path().join(at.to_string())).unwrap();
            for place in (0..*size).step_by(1 << 20) {
                file.file().write_all_at(&place.to_le_bytes(), place).unwrap();
            }
            file.set_len(*size).unwrap();
            root.stat_below(&at.to_string()).unwrap()
        });
        let stats = stats.collect();
        (dir, stats)
    }

    #[test]
    fn a_hash_in_pieces_is_the_hash() {
        let sizes =
            [0, 1, END, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 7, 4 * PIECE, 7 * PIECE + 1];
        let (dir, stats) = files(&sizes);
        let root = DirHandle::open_root(dir.path()).unwrap();
        let open = |at: usize| root.open_below(&at.to_string());
        let hashes = whole(&stats, &open, &|_, _| true);
        for (at, hash) in hashes.into_iter().enumerate() {
            let bytes = fs_err::read(dir.path().join(at.to_string())).unwrap();
            assert_eq!(hash.unwrap(), blake3::hash(&bytes).to_hex().to_string(), "{}", sizes[at]);
        }
    }

    #[test]
    fn what_changes_while_it_is_read_has_no_hash() {
        let (dir, stats) = files(&[3 * PIECE, 3 * PIECE]);
        let root = DirHandle::open_root(dir.path()).unwrap();
        let open = |at: usize| root.open_below(&at.to_string());
        let once = AtomicBool::new(false);
        let step = |_, _: usize| {
            if !once.swap(true, Ordering::Relaxed) {
                let file = fs_err::OpenOptions::new().write(true).open(dir.path().join("0")).unwrap();
                file.file().write_all_at(b"changed", 5).unwrap();
            }
            true
        };
        let hashes = whole(&stats, &open, &step);
        assert!(matches!(hashes[0], Err(Unread::Changed)), "{hashes:?}");
        assert!(hashes[1].is_ok());
        // One that was shortened is no crash.
        fs_err::OpenOptions::new().write(true).open(dir.path().join("1")).unwrap().set_len(5).unwrap();
        assert!(matches!(whole(&stats, &open, &|_, _| true)[1], Err(Unread::Changed)));
        assert!(matches!(ends(&stats, &open)[1], Err(Unread::Changed)));
    }

    #[test]
    fn it_stops_when_told() {
        let (dir, stats) = files(&[3 * PIECE, 3 * PIECE]);
        let root = DirHandle::open_root(dir.path()).unwrap();
        let open = |at: usize| root.open_below(&at.to_string());
        let hashes = whole(&stats, &open, &|_, _| false);
        assert!(matches!(hashes[1], Err(Unread::Stopped)), "{hashes:?}");
    }
}
