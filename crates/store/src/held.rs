//! Whether somebody holds a lock file.

use std::ffi::CStr;

use rustix::fs::FlockOperation;

use crate::access::DirHandle;

/// Whether a process holds the lock file `name` in `dir`: huggingface_hub takes it with `flock` for as long as it
/// writes the blob. A file that is not there, or cannot be opened, is not known to be held.
pub(crate) fn is_held(dir: &DirHandle, name: &CStr) -> bool {
    let Ok(file) = dir.open_file(name) else { return false };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            // Given back at once: a downloader that comes meanwhile finds it held for microseconds, and tries again.
            let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
            false
        }
        Err(error) => error == rustix::io::Errno::WOULDBLOCK,
    }
}
