//! What a directory takes that is no store.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use mlxman_store::{DirHandle, EntryKind, FileId, Stat, Usage};

/// Deeper directories are not entered.
const DEEPEST: u32 = 64;

/// What a directory takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// All of it, each inode once, its own directories included.
    pub usage: Usage,
    /// Allocated bytes by the name of the directory one below the top, or two where there is one for each server.
    pub parts: BTreeMap<String, u64>,
    /// Directories that could not be read.
    pub unread: u64,
}

struct Walk {
    measured: Measured,
    seen: HashSet<FileId>,
}

/// Measures what lies at `path`, following no link; nothing where no directory is.
pub fn measure(path: &Path) -> Option<Measured> {
    let root = DirHandle::open_root(path).ok()?;
    let usage = Usage { allocated_bytes: 0, apparent_bytes: 0, entries: 0 };
    let measured = Measured { usage, parts: BTreeMap::new(), unread: 0 };
    let mut walk = Walk { measured, seen: HashSet::new() };
    walk.add(&root.stat().ok()?, None);
    walk.below(&root, None, 0);
    Some(walk.measured)
}

impl Walk {
    fn add(&mut self, stat: &Stat, part: Option<&str>) {
        let usage = &mut self.measured.usage;
        usage.entries += 1;
        if !self.seen.insert((stat.dev, stat.ino)) {
            return;
        }
        usage.allocated_bytes = usage.allocated_bytes.saturating_add(stat.allocated);
        usage.apparent_bytes = usage.apparent_bytes.saturating_add(stat.size);
        if let Some(part) = part {
            *self.measured.parts.entry(part.to_owned()).or_default() += stat.allocated;
        }
    }

    fn below(&mut self, dir: &DirHandle, part: Option<&str>, depth: u32) {
        let Ok(entries) = dir.list() else {
            self.measured.unread += 1;
            return;
        };
        for entry in entries {
            let name = entry.lossy_name();
            // A server's directory is named by its address, its parts by what they hold.
            let is_server = depth == 0 && name.contains("___");
            let own = match part {
                None if depth < 2 && !is_server && entry.stat.kind == EntryKind::Dir => Some(name.as_str()),
                part => part,
            };
            self.add(&entry.stat, own);
            if entry.stat.kind != EntryKind::Dir {
                continue;
            }
            match dir.open_dir(&entry.raw_name) {
                Ok(below) if depth < DEEPEST => self.below(&below, own, depth + 1),
                _ => self.measured.unread += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn parts_and_inodes_are_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join("https___cas_serv-abc");
        for part in ["chunk-cache/ab", "shard-cache", "staging"] {
            fs_err::create_dir_all(server.join(part)).unwrap();
        }
        fs_err::create_dir_all(dir.path().join("logs")).unwrap();
        fs_err::write(server.join("chunk-cache/ab/one"), vec![1; 9000]).unwrap();
        fs_err::hard_link(server.join("chunk-cache/ab/one"), server.join("chunk-cache/ab/two")).unwrap();
        fs_err::os::unix::fs::symlink("/", dir.path().join("logs/out")).unwrap();
        let found = measure(dir.path()).unwrap();
        let names: Vec<&str> = found.parts.keys().map(String::as_str).collect();
        assert_eq!(names, ["chunk-cache", "logs", "shard-cache", "staging"]);
        assert_eq!(found.usage.entries, 10);
        let allocated = |path: &str| server.join(path).symlink_metadata().unwrap().blocks() * 512;
        let once = allocated("chunk-cache") + allocated("chunk-cache/ab") + allocated("chunk-cache/ab/one");
        assert_eq!(found.parts["chunk-cache"], once, "{found:?}");
        assert!(measure(&dir.path().join("none")).is_none());
    }
}
