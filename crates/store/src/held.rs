//! Whether somebody holds a lock file.

use std::ffi::CStr;

use rustix::fs::FlockOperation;

use crate::access::DirHandle;

/// What is known of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// Nobody holds it: there is no such file, or it could be taken.
    No,
    /// It could not be asked: no permission, or a filesystem without such locks, where the file's being there may
    /// already mean that it is held.
    Unknown,
    /// A process holds it.
    Yes,
}

/// Asks whether a process holds the lock file `name` in `dir`: huggingface_hub takes it with `flock` for as long as it
/// writes the blob.
pub(crate) fn of(dir: &DirHandle, name: &CStr) -> Held {
    let file = match dir.open_file(name) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Held::No,
        Err(_) => return Held::Unknown,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // Given back at once: a downloader that comes meanwhile finds it held for microseconds, and tries again.
            let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
            Held::No
        }
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Held::Yes,
        Err(_) => Held::Unknown,
    }
}

/// The strongest answer of any file in `dir`, each taken for a lock.
pub(crate) fn any_in(dir: &DirHandle) -> Held {
    match dir.list() {
        Ok(files) => files.iter().map(|file| of(dir, &file.raw_name)).max().unwrap_or(Held::No),
        Err(_) => Held::Unknown,
    }
}

/// The strongest answer of the lock files in `dir`, in which other files lie too.
pub(crate) fn any_lock_in(dir: &DirHandle) -> Held {
    let mut held = Held::No;
    let listed = dir.for_each_name(|name| {
        if name.to_bytes().ends_with(b".lock") {
            held = held.max(of(dir, name));
        }
    });
    if listed.is_ok() { held } else { held.max(Held::Unknown) }
}
