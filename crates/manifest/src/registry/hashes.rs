//! BLAKE3 of weights: computed once, kept for as long as device, inode, size and time of modification are unchanged.

use crate::threads::side_by_side;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mlxman_store::{FileEntry, Scan, Stat, mapped};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Files of this size and more are hashed one after the other, each on all cores; smaller ones side by side.
const LARGE: u64 = 32 << 20;

/// How much is hashed between two looks at whether to stop.
const STRIDE: usize = 64 << 20;

/// How much of a file is mapped at once: smaller windows are slower, as all cores wait where one ends.
const WINDOW: usize = 4 * STRIDE;

/// How often what was hashed so far is saved.
const SAVE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i64,
    blake3: String,
}

/// BLAKE3 of files that syncs have hashed.
#[derive(Debug, Default)]
pub struct Hashes {
    by_inode: HashMap<(u64, u64), Known>,
    changed: bool,
}

impl Hashes {
    pub(super) fn read(path: &Path) -> Self {
        let known: Vec<Known> =
            fs_err::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Hashes { by_inode: known.into_iter().map(|one| ((one.dev, one.ino), one)).collect(), changed: false }
    }

    /// What is known of a file whose size and time of modification are as they were then.
    pub fn get(&self, stat: &Stat) -> Option<&str> {
        let known = self.by_inode.get(&(stat.dev, stat.ino))?;
        (known.size == stat.size && known.mtime_ns == stat.mtime_ns).then_some(known.blake3.as_str())
    }

    /// What was computed of this inode's content, and whether its size and time are still those of then.
    pub(super) fn of_inode(&self, stat: &Stat) -> Option<(&str, bool)> {
        let known = self.by_inode.get(&(stat.dev, stat.ino))?;
        Some((known.blake3.as_str(), (known.size, known.mtime_ns) == (stat.size, stat.mtime_ns)))
    }

    fn insert(&mut self, stat: &Stat, blake3: String) {
        let (dev, ino, size, mtime_ns) = (stat.dev, stat.ino, stat.size, stat.mtime_ns);
        self.by_inode.insert((dev, ino), Known { dev, ino, size, mtime_ns, blake3 });
        self.changed = true;
    }

    pub(super) fn save(&mut self, path: &Path) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let mut known: Vec<&Known> = self.by_inode.values().collect();
        known.sort_unstable_by_key(|one| (one.dev, one.ino));
        super::whole_file::write(path, &serde_json::to_vec(&known)?)?;
        self.changed = false;
        Ok(())
    }
}

/// One file to hash.
pub(super) struct Job<'a> {
    pub(super) scan: &'a Scan,
    pub(super) file: &'a FileEntry,
}

/// How hashing went.
#[derive(Debug, Default)]
pub(super) struct Hashed {
    pub(super) bytes: u64,
    pub(super) files: u64,
    pub(super) interrupted: bool,
    /// Files that could not be read, by inode.
    pub(super) failed: Vec<(String, String)>,
}

/// Hashes what is not known yet. `step(done, total, file)` is told of progress and says whether to go on.
pub(super) fn hash(
    jobs: &[Job<'_>],
    hashes: &mut Hashes,
    save_to: &Path,
    step: &(dyn Fn(u64, u64, &str) -> bool + Sync),
) -> Hashed {
    let mut seen = std::collections::HashSet::new();
    let mut todo: Vec<&Job<'_>> = jobs
        .iter()
        .filter(|job| {
            hashes.get(&job.file.stat).is_none() && seen.insert((job.file.stat.dev, job.file.stat.ino))
        })
        .collect();
    todo.sort_by(|a, b| b.file.stat.size.cmp(&a.file.stat.size).then_with(|| a.file.real.cmp(&b.file.real)));
    let total: u64 = todo.iter().map(|job| job.file.stat.size).sum();
    let done = AtomicU64::new(0);
    let mut result = Hashed::default();
    let (large, small): (Vec<&Job<'_>>, Vec<&Job<'_>>) =
        todo.into_iter().partition(|job| job.file.stat.size >= LARGE);
    let progress = |bytes: u64, name: &str| {
        let now = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // A file that had to be begun anew counts twice.
        step(now.min(total), total, name)
    };
    let mut saved = Instant::now();
    let mut take = |hashes: &mut Hashes, job: &Job<'_>, outcome: io::Result<Option<String>>| {
        match outcome {
            Ok(Some(blake3)) => {
                result.bytes += job.file.stat.size;
                result.files += 1;
                hashes.insert(&job.file.stat, blake3);
                if saved.elapsed() > SAVE_EVERY {
                    // Kept for the next run; should it fail now, the end of the run says so.
                    let _ = hashes.save(save_to);
                    saved = Instant::now();
                }
            }
            Ok(None) => result.interrupted = true,
            Err(error) => result.failed.push((job.file.real.clone(), error.to_string())),
        }
        !result.interrupted
    };
    let of_job = |job: &Job<'_>, on_all_cores| -> io::Result<Option<String>> {
        let file = job.scan.open(job.file)?;
        let hash = of_file(&file, &job.file.real, on_all_cores, &progress)?;
        let (seen, now) = (&job.file.stat, Stat::of_file(&file)?);
        if hash.is_some() && (seen.size, seen.mtime_ns) != (now.size, now.mtime_ns) {
            return Err(io::Error::other("it changed while it was read"));
        }
        Ok(hash)
    };
    for job in large {
        let outcome = of_job(job, true);
        if !take(hashes, job, outcome) {
            return result;
        }
    }
    for batch in small.chunks(1024) {
        let outcomes: Vec<io::Result<Option<String>>> =
            side_by_side(|| batch.par_iter().map(|job| of_job(job, false)).collect());
        let mut go_on = true;
        for (job, outcome) in batch.iter().zip(outcomes) {
            go_on &= take(hashes, job, outcome);
        }
        if !go_on {
            return result;
        }
    }
    result
}

/// BLAKE3 of a file as 64 hexadecimal characters; `None` when told to stop.
fn of_file(
    file: &File,
    name: &str,
    on_all_cores: bool,
    progress: &(dyn Fn(u64, &str) -> bool + Sync),
) -> io::Result<Option<String>> {
    let size = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new();
    if size == 0 {
        return Ok(progress(0, name).then(|| hasher.finalize().to_hex().to_string()));
    }
    let update = |hasher: &mut blake3::Hasher, part: &[u8]| {
        if on_all_cores {
            side_by_side(|| hasher.update_rayon(part).count());
        } else {
            hasher.update(part);
        }
    };
    let mut at = 0;
    while at < size {
        let len = (size - at).min(WINDOW as u64) as usize;
        let hashed = mapped(file, at, len, |bytes| {
            bytes.chunks(STRIDE).all(|part| {
                update(&mut hasher, part);
                progress(part.len() as u64, name)
            })
        });
        match hashed {
            Ok(true) => at += len as u64,
            Ok(false) => return Ok(None),
            // It is cut, or the disk has an error, or no file can be mapped here: reading it says which.
            Err(_) => return copied(file, name, progress),
        }
    }
    Ok(Some(hasher.finalize().to_hex().to_string()))
}

/// As [`of_file`], from the beginning and by reading.
fn copied(
    mut file: &File,
    name: &str,
    progress: &(dyn Fn(u64, &str) -> bool + Sync),
) -> io::Result<Option<String>> {
    file.rewind()?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finalize().to_hex().to_string())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        hasher.update(&buffer[..read]);
        if !progress(read as u64, name) {
            return Ok(None);
        }
    }
}
