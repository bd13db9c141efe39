//! The checked-in inputs, and what to do with one: run it, and tell whether it made the target fail.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::targets::Target;

/// Longer than any input of this size may take, in an unoptimised build on a busy machine.
const TOO_LONG: Duration = Duration::from_secs(10);

/// This package's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where a target's inputs lie.
pub fn folder(target: Target) -> PathBuf {
    root().join("corpus").join(target.name)
}

/// A target's inputs with their paths, in the order of their names.
///
/// # Errors
/// Where the folder or a file cannot be read; the message names it.
pub fn read(target: Target) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut paths = fs_err::read_dir(folder(target))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(|path| fs_err::read(&path).map(|bytes| (path, bytes))).collect()
}

/// Writes a target's seeds into its folder.
///
/// # Errors
/// Where a file cannot be written; the message names it.
pub fn write_seeds(target: Target) -> io::Result<usize> {
    let folder = folder(target);
    fs_err::create_dir_all(&folder)?;
    let seeds = (target.seeds)();
    for (name, bytes) in &seeds {
        fs_err::write(folder.join(name), bytes)?;
    }
    Ok(seeds.len())
}

/// Keeps an input that failed, for running it again, and gives its path.
///
/// # Errors
/// Where the file cannot be written; the message names it.
pub fn keep_failure(target: Target, name: &str, input: &[u8]) -> io::Result<PathBuf> {
    let folder = root().join("artifacts").join(target.name);
    fs_err::create_dir_all(&folder)?;
    let path = folder.join(name);
    fs_err::write(&path, input)?;
    Ok(path)
}

/// Runs one input; the error says how it failed. A stack overflow or a failed allocation ends the process instead.
///
/// # Errors
/// The panic's message, or how long the input took where that was too long.
pub fn check(target: Target, input: &[u8]) -> Result<(), String> {
    let start = Instant::now();
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message")
            .to_owned()
    })?;
    let took = start.elapsed();
    if took > TOO_LONG { Err(format!("took {took:.1?}")) } else { Ok(()) }
}
