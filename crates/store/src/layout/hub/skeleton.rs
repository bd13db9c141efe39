//! What goes with the last of a repo: its directories, refs, listings and lock files.

use super::super::{Counted, count_all, is_desktop_noise};
use super::{in_parallel, shared};
use crate::access::{DirHandle, EntryKind, Stat};
use crate::held::{self, Held};
use crate::ledger::{LedgerBuilder, Users};
use crate::scan::{Group, Scan, StrayItem};

impl Scan {
    /// Whether a download holds a lock of the repo that lies at `dir`: huggingface_hub's lie beside the repos, the Rust
    /// hf-hub's beside the blobs.
    pub fn lock_of_repo(&self, dir: &str) -> Held {
        self.lock_of(self.locks().as_ref(), dir)
    }

    /// The same of many repos, asked side by side.
    pub fn lock_of_repos(&self, dirs: &[&str]) -> Vec<Held> {
        let locks = self.locks();
        in_parallel(dirs, |dir| self.lock_of(locks.as_ref(), dir))
    }

    /// The directory of lock files, or what its absence says of all of them.
    fn locks(&self) -> Result<DirHandle, Held> {
        opened(self.root().open_dir(c".locks"))
    }

    fn lock_of(&self, locks: Result<&DirHandle, &Held>, dir: &str) -> Held {
        let beside_repos = match locks {
            Ok(locks) => opened(locks.open_dir_below(dir)).map_or_else(|held| held, |dir| held::any_in(&dir)),
            Err(held) => *held,
        };
        let blobs = opened(self.root().open_dir_below(&format!("{dir}/blobs")));
        beside_repos.max(blobs.map_or_else(|held| held, |blobs| held::any_lock_in(&blobs)))
    }

    /// Whether somebody holds the lock that lies beside a shared blob: it is being published or dropped.
    pub fn lock_beside(&self, path: &str) -> Held {
        shared::lock_of(self.root(), path)
    }

    /// What goes, beside its owners' own items, when all owners of a group go; deepest first. Where that is more than the
    /// repo's directories it is read anew, side by side; items of the owners, such as their refs, may be among it.
    pub fn skeletons(&self, groups: &[&Group]) -> Vec<Vec<StrayItem>> {
        let locks = self.root().open_dir(c".locks").ok();
        let skeleton = |group: &Group| {
            let mut items = match &group.dirs {
                Some(dirs) => own_dirs(group, dirs),
                None => self.read_skeleton(group),
            };
            if let Some(locks) = &locks
                && let Ok(name) = std::ffi::CString::new(group.dir.as_str())
                && let Ok(stat) = locks.stat_of(&name)
            {
                let entry = crate::access::Entry { raw_name: name, stat };
                whole(locks, &entry, &format!(".locks/{}", group.dir), &mut items);
            }
            items
        };
        if locks.is_none() && groups.iter().all(|group| group.dirs.is_some()) {
            return groups.iter().map(|group| skeleton(group)).collect();
        }
        in_parallel(groups, |group| skeleton(group))
    }

    fn read_skeleton(&self, group: &Group) -> Vec<StrayItem> {
        let mut items = Vec::new();
        let Ok(repo) = self.root().open_dir_below(&group.dir) else { return items };
        let Ok(entries) = repo.list() else { return items };
        for entry in &entries {
            let Some(name) = entry.name() else { continue };
            let path = format!("{}/{name}", group.dir);
            match name {
                // Their content is the owners' own.
                "blobs" | "snapshots" if entry.stat.kind == EntryKind::Dir => {
                    if let Ok(dir) = repo.open_dir(&entry.raw_name) {
                        noise(&dir, &path, &mut items);
                    }
                    items.push(StrayItem { path, stat: entry.stat, link_target: None });
                }
                "refs" | "trees" | ".no_exist" => whole(&repo, entry, &path, &mut items),
                _ if is_desktop_noise(name) => whole(&repo, entry, &path, &mut items),
                _ => {}
            }
        }
        if let Ok(stat) = repo.stat() {
            items.push(StrayItem { path: group.dir.clone(), stat, link_target: None });
        }
        items
    }
}

fn own_dirs(group: &Group, dirs: &[(&'static str, Stat)]) -> Vec<StrayItem> {
    let item = |(name, stat): &(&str, Stat)| {
        let path = if name.is_empty() { group.dir.clone() } else { format!("{}/{name}", group.dir) };
        StrayItem { path, stat: *stat, link_target: None }
    };
    dirs.iter().map(item).collect()
}

/// A directory of locks, or what it means that it cannot be opened.
fn opened(dir: std::io::Result<DirHandle>) -> Result<DirHandle, Held> {
    dir.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Held::No,
        _ => Held::Unknown,
    })
}

fn whole(dir: &DirHandle, entry: &crate::access::Entry, path: &str, items: &mut Vec<StrayItem>) {
    let mut found = Counted { strays: &mut Vec::new(), items: Some(items) };
    count_all(dir, entry, path, &Users::Never, &mut LedgerBuilder::default(), &mut found);
}

/// Lock files and what file managers leave, in a directory whose other content has owners.
fn noise(dir: &DirHandle, path: &str, items: &mut Vec<StrayItem>) {
    let mut names = Vec::new();
    // Blobs are many: only what is looked for gets a stat.
    let read = dir.for_each_name(|name| {
        let text = name.to_str().unwrap_or_default();
        if is_desktop_noise(text) || text.ends_with(".lock") {
            names.push(name.to_owned());
        }
    });
    if read.is_err() {
        return;
    }
    names.sort_unstable();
    for name in names {
        if let (Ok(text), Ok(stat)) = (name.to_str(), dir.stat_of(&name)) {
            items.push(StrayItem { path: format!("{path}/{text}"), stat, link_target: None });
        }
    }
}
