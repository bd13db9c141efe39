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
    use std::path::Path;

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
                let root = process.path().join("root");
                files.extend(maps.lines().filter_map(|line| mapped(line, &root)));
            }
        }
        files
    }

    /// `55d0-55d1 r--p 00000000 fd:00 1234  /path`: device and inode of a mapped file. The device is the filesystem's, and
    /// btrfs gives the files of each subvolume another one: where the file still has that path, it is asked itself.
    fn mapped(line: &str, root: &Path) -> Option<(u64, u64)> {
        let mut words = line.splitn(6, ' ').skip(3);
        let (major, minor) = words.next()?.split_once(':')?;
        let ino: u64 = words.next()?.parse().ok().filter(|ino| *ino != 0)?;
        let path = words.next().unwrap_or_default().trim_start().trim_start_matches('/');
        let meta =
            fs_err::symlink_metadata(root.join(path)).ok().filter(|meta| meta.is_file() && meta.ino() == ino);
        if let Some(meta) = meta {
            return Some((meta.dev(), ino));
        }
        let dev = makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        Some((dev, ino))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_line_of_maps() {
            let line = "7f1c-7f1d r--s 00000000 fd:01 1234                       /models/a b.safetensors";
            let mapped = |line| mapped(line, Path::new("/"));
            assert_eq!(mapped(line), Some((makedev(0xfd, 1), 1234)));
            assert_eq!(mapped("7f1c-7f1d rw-p 00000000 00:00 0 "), None);
            assert_eq!(mapped("garbage"), None);
            // What is there is asked itself.
            let dir = tempfile::tempdir().unwrap();
            let file = fs_err::File::create(dir.path().join("a b")).unwrap().metadata().unwrap();
            let path = dir.path().join("a b").canonicalize().unwrap();
            let line = format!("7f1c-7f1d r--s 00000000 00:00 {}    {}", file.ino(), path.display());
            assert_eq!(mapped(&line), Some((file.dev(), file.ino())));
        }
    }
}
