//! Which files running programs have open or mapped, where the system tells.

use std::collections::HashSet;

/// Files that running programs have open or mapped, by device and inode.
#[derive(Debug, Default)]
pub struct OpenFiles {
    files: HashSet<(u64, u64)>,
}

impl OpenFiles {
    /// Asks the system. On Linux this reads `/proc`, and sees the programs of this user (all of them as root). On other
    /// systems nothing is known, and nothing is said to be open.
    pub fn now() -> Self {
        #[cfg(target_os = "linux")]
        return OpenFiles { files: linux::files() };
        #[cfg(not(target_os = "linux"))]
        OpenFiles::default()
    }

    /// Whether a program has the file open or mapped.
    pub fn has(&self, dev: u64, ino: u64) -> bool {
        self.files.contains(&(dev, ino))
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashSet;
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::makedev;

    pub(super) fn files() -> HashSet<(u64, u64)> {
        let mut files = HashSet::new();
        let own = std::process::id().to_string();
        let Ok(processes) = fs_err::read_dir("/proc") else { return files };
        for process in processes.flatten() {
            let name = process.file_name();
            let name = name.to_string_lossy();
            if !name.bytes().all(|byte| byte.is_ascii_digit()) || name == own {
                continue;
            }
            // What is another user's cannot be read, and is left out.
            if let Ok(open) = fs_err::read_dir(process.path().join("fd")) {
                for fd in open.flatten() {
                    if let Ok(meta) = fs_err::metadata(fd.path())
                        && meta.is_file()
                    {
                        files.insert((meta.dev(), meta.ino()));
                    }
                }
            }
            if let Ok(maps) = fs_err::read_to_string(process.path().join("maps")) {
                files.extend(maps.lines().filter_map(mapped));
            }
        }
        files
    }

    /// `55d0-55d1 r--p 00000000 fd:00 1234  /path`: device and inode of a mapped file.
    fn mapped(line: &str) -> Option<(u64, u64)> {
        let mut words = line.split_ascii_whitespace().skip(3);
        let (major, minor) = words.next()?.split_once(':')?;
        let ino: u64 = words.next()?.parse().ok().filter(|ino| *ino != 0)?;
        let dev = makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        Some((dev, ino))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_line_of_maps() {
            let line = "7f1c-7f1d r--s 00000000 fd:01 1234                       /models/a b.safetensors";
            assert_eq!(mapped(line), Some((makedev(0xfd, 1), 1234)));
            assert_eq!(mapped("7f1c-7f1d rw-p 00000000 00:00 0 "), None);
            assert_eq!(mapped("garbage"), None);
        }
    }
}
