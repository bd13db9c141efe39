//! What the machine has: memory, and a quick BLAS. The caller asks once and passes it on.

use std::path::{Path, PathBuf};

/// Bytes of memory that can be used now without pushing other programs out: on Linux what the kernel calls available,
/// or what the control group leaves where that is less; on macOS three quarters of the memory that there is. `None`
/// where it is not known.
pub fn available_memory() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return linux::available_memory(Path::new("/"));
    #[cfg(target_os = "macos")]
    return macos::memory().map(|bytes| bytes / 4 * 3);
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    None
}

/// Bytes that a process holds and that no file stands behind, where the system tells.
pub(crate) fn held_by(pid: u32) -> Option<u64> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(kilobytes(&status, "RssAnon:")? + kilobytes(&status, "RssShmem:").unwrap_or(0))
}

/// A line such as `MemAvailable:  123 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// OpenBLAS as a shared library, where one is installed: it multiplies matrices many times as fast as the reference
/// BLAS that comes with MLX's wheel for Linux. `root` is `/`.
pub fn find_openblas(root: &Path) -> Option<PathBuf> {
    const USUAL: [&str; 5] = ["usr/local/lib", "usr/lib64", "usr/lib", "lib64", "lib"];
    /// Debian keeps each variant in a directory of its own; the one with threads first.
    const BELOW: [&str; 4] = ["", "openblas-pthread", "openblas-openmp", "openblas-serial"];
    const NAMES: [&str; 2] = ["libopenblas.so.0", "libopenblas.so"];
    let arch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let mut dirs = Vec::new();
    configured(root, &root.join("etc/ld.so.conf"), 0, &mut dirs);
    for usual in USUAL {
        dirs.push(root.join(usual).join(&arch));
        dirs.push(root.join(usual));
    }
    let places = dirs.iter().flat_map(|dir| BELOW.map(|below| dir.join(below)));
    places.flat_map(|dir| NAMES.map(|name| dir.join(name))).find(|path| path.is_file())
}

/// The directories that `ld.so.conf` and the files that it includes name.
fn configured(root: &Path, file: &Path, depth: usize, dirs: &mut Vec<PathBuf>) {
    let Ok(text) = fs_err::read_to_string(file) else { return };
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if let Some(pattern) = line.strip_prefix("include ").map(str::trim) {
            // What is included is always `DIR/*.conf`.
            let dir = Path::new(pattern).parent().unwrap_or(Path::new(""));
            let dir = root.join("etc").join(dir.strip_prefix("/").map_or(dir.to_owned(), |d| root.join(d)));
            let Ok(entries) = fs_err::read_dir(dir) else { continue };
            let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            files.sort();
            for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "conf")) {
                if depth < 4 {
                    configured(root, file, depth + 1, dirs);
                }
            }
        } else if let Some(dir) = line.strip_prefix('/') {
            dirs.push(root.join(dir));
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;

    pub(super) fn available_memory(root: &Path) -> Option<u64> {
        let meminfo = fs_err::read_to_string(root.join("proc/meminfo")).ok()?;
        let available = super::kilobytes(&meminfo, "MemAvailable:")?;
        Some(left_by_group(root).map_or(available, |left| left.min(available)))
    }

    /// What this process' control group, and those above it, leave.
    fn left_by_group(root: &Path) -> Option<u64> {
        let groups = fs_err::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let top = root.join("sys/fs/cgroup");
        let own = top.join(own);
        own.ancestors().take_while(|dir| dir.starts_with(&top)).filter_map(left_in).min()
    }

    fn left_in(group: &Path) -> Option<u64> {
        let number = |name: &str| fs_err::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
        let (most, now) = (number("memory.max")?, number("memory.current")?);
        // What files are cached goes when it is needed.
        let stat = fs_err::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
        let cached = cached.and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0);
        Some(most.saturating_sub(now.saturating_sub(cached)))
    }
}

#[cfg(target_os = "macos")]
mod macos {
    pub(super) fn memory() -> Option<u64> {
        let mut bytes = 0_u64;
        let mut length = size_of::<u64>();
        #[expect(unsafe_code, reason = "there is no other way to ask for it")]
        // SAFETY: the name ends in NUL, and `bytes` is as long as `length` says.
        let answer = unsafe {
            libc::sysctlbyname(
                c"hw.memsize".as_ptr(),
                (&raw mut bytes).cast(),
                &raw mut length,
                std::ptr::null_mut(),
                0,
            )
        };
        (answer == 0 && bytes > 0).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openblas_is_found_where_distributions_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(find_openblas(root), None);
        let put = |path: &str| {
            let path = root.join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, "").unwrap();
            path
        };
        let fedora = put("usr/lib64/libopenblas.so.0");
        assert_eq!(find_openblas(root), Some(fedora));
        let arch = std::env::consts::ARCH;
        let debian = put(&format!("usr/lib/{arch}-linux-gnu/openblas-pthread/libopenblas.so.0"));
        put("etc/ld.so.conf");
        put("etc/ld.so.conf.d/a.conf");
        fs_err::write(root.join("etc/ld.so.conf"), "include /etc/ld.so.conf.d/*.conf\n").unwrap();
        let text = format!("# multiarch\n/usr/lib/{arch}-linux-gnu\n");
        fs_err::write(root.join("etc/ld.so.conf.d/a.conf"), text).unwrap();
        assert_eq!(find_openblas(root), Some(debian));
    }

    #[test]
    fn lines_of_proc() {
        assert_eq!(kilobytes("MemTotal: 1 kB\nMemAvailable:   2 kB\n", "MemAvailable:"), Some(2048));
        assert_eq!(kilobytes("MemTotal: 1 kB\n", "MemAvailable:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory() {
        assert!(available_memory().is_some_and(|bytes| bytes > 0));
        assert!(held_by(std::process::id()).is_some_and(|bytes| bytes > 0));
    }
}
