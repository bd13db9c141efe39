//! Files are written whole: a temporary file in the same directory, fsync, rename.

use std::io::{self, Write};
use std::path::Path;

const PREFIX: &str = ".mlxman-";
const SUFFIX: &str = ".tmp";

/// Writes `bytes` to `path`, so that whoever reads it sees the old content or the new, never a part.
///
/// # Errors
/// What the system says; the old content is then still there.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A bare name has an empty parent: the current directory.
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut file = tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    // A temporary file is private; a registry on a shared volume is read by others, as the umask allows.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666 & !umask());
    file.as_file().set_permissions(mode)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Removes what writers left that were killed in the middle. Only under the registry's lock: then nobody is writing.
pub(super) fn sweep(dir: &Path) {
    let Ok(entries) = fs_err::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            // What cannot be removed is swept another time.
            let _ = fs_err::remove_file(entry.path());
        }
    }
}

fn umask() -> u32 {
    use std::sync::OnceLock;
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        // Asking for it means setting it: done once, and put back at once.
        let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        rustix::process::umask(mask);
        mask.bits() as u32
    })
}
