//! Whether a store that several users share can be used by all of them: who owns what in it, and who may do what.

use std::collections::BTreeSet;
use std::io;

use rustix::fs::AtFlags;

use crate::access::{DirHandle, Entry, EntryKind};

/// Directories deeper than this are not asked.
const DEEPEST: u32 = 64;

/// Whoever is in the group may read, write and enter, and what is made there belongs to the group too.
const DIR: u32 = 0o2070;
/// Whoever is in the group may read.
const FILE: u32 = 0o040;

/// Who owns what lies in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedAccess {
    /// Users who own something in it.
    pub users: BTreeSet<u32>,
    /// The group of its root.
    pub group: u32,
    /// Whether its root hands its group on to what is made in it (setgid): somebody meant it to be shared.
    pub meant: bool,
    /// Entries that not all of the group can use: of another group, directories that the group may not write to or that
    /// do not hand it on, files that it may not read.
    pub closed: u64,
    /// One of them, relative to the root; empty for the root itself.
    pub example: Option<String>,
    /// Entries that could not be asked.
    pub unknown: u64,
}

impl SharedAccess {
    /// Asks about everything below `root`. Links are left out: nobody asks for their permissions.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn of(root: &DirHandle) -> io::Result<Self> {
        let own = rustix::fs::fstat(root)?;
        let mode = raw_mode(&own);
        let mut sharing = SharedAccess {
            users: BTreeSet::from([own.st_uid]),
            group: own.st_gid,
            meant: mode & 0o2000 != 0,
            ..SharedAccess::default()
        };
        sharing.note("", true, own.st_gid, mode);
        let entries = root.list()?;
        sharing.below(root, "", entries, 0);
        Ok(sharing)
    }

    /// Whether several users share it, or were meant to.
    pub fn is_shared(&self) -> bool {
        self.meant || self.users.len() > 1
    }

    fn note(&mut self, path: &str, is_dir: bool, group: u32, mode: u32) {
        let wanted = if is_dir { DIR } else { FILE };
        if group == self.group && mode & wanted == wanted {
            return;
        }
        self.closed += 1;
        self.example.get_or_insert_with(|| path.to_owned());
    }

    fn below(&mut self, dir: &DirHandle, prefix: &str, entries: Vec<Entry>, depth: u32) {
        for entry in entries {
            let path = format!("{prefix}{}", entry.lossy_name());
            // What was thrown away is nobody's to share.
            if path == crate::TRASH || entry.stat.kind == EntryKind::Link {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(dir, &entry.raw_name, AtFlags::SYMLINK_NOFOLLOW) else {
                self.unknown += 1;
                continue;
            };
            self.users.insert(stat.st_uid);
            let is_dir = entry.stat.kind == EntryKind::Dir;
            self.note(&path, is_dir, stat.st_gid, raw_mode(&stat));
            if !is_dir || depth >= DEEPEST {
                continue;
            }
            match dir.open_dir(&entry.raw_name).and_then(|below| Ok((below.list()?, below))) {
                Ok((entries, below)) => self.below(&below, &format!("{path}/"), entries, depth + 1),
                Err(_) => self.unknown += 1,
            }
        }
    }
}

#[expect(clippy::unnecessary_cast, reason = "the field's type differs between platforms")]
fn raw_mode(stat: &rustix::fs::Stat) -> u32 {
    stat.st_mode as u32 & 0o7777
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn chmod(path: &std::path::Path, mode: u32) {
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_the_group_cannot_use_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("hub");
        fs_err::create_dir_all(root.join("repo/blobs")).unwrap();
        fs_err::write(root.join("repo/blobs/one"), "x").unwrap();
        fs_err::os::unix::fs::symlink("one", root.join("repo/blobs/link")).unwrap();
        for dir in ["", "repo", "repo/blobs"] {
            chmod(&root.join(dir), 0o2775);
        }
        chmod(&root.join("repo/blobs/one"), 0o664);
        let ask = || SharedAccess::of(&DirHandle::open_root(&root).unwrap()).unwrap();
        let open = ask();
        assert!(open.is_shared() && open.meant, "{open:?}");
        assert_eq!((open.closed, open.example), (0, None));
        chmod(&root.join("repo/blobs"), 0o755);
        chmod(&root.join("repo/blobs/one"), 0o600);
        let closed = ask();
        assert_eq!((closed.closed, closed.example.as_deref()), (2, Some("repo/blobs")));
        // One user's own cache is nobody else's.
        chmod(&root, 0o755);
        assert!(!ask().is_shared());
    }
}
