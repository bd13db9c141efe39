//! `refs/`: files of exactly 40 characters each, in directories for refs with a `/` in their name.

use std::io::Read;

use super::super::is_desktop_noise;
use crate::access::{DirHandle, EntryKind, Stat};
use crate::details::is_hex;
use crate::problem::{Problem, ProblemKind};

/// A ref longer than this is none.
const REF_LIMIT: u64 = 256;

/// One ref.
pub(super) struct Ref {
    pub(super) name: String,
    pub(super) stat: Stat,
    /// The commit, where the file holds one.
    pub(super) commit: Option<String>,
    /// What is wrong with it; the path is relative to the repo.
    pub(super) problem: Option<Problem>,
}

/// All refs of a repo.
#[derive(Default)]
pub(super) struct Refs {
    pub(super) list: Vec<Ref>,
    /// Their directories and what else lies there, for the ledger.
    pub(super) dirs: Vec<Stat>,
    /// What could not be read: a ref there may name any snapshot. Paths are relative to the repo.
    pub(super) unread: Vec<Problem>,
}

impl Refs {
    /// Whether every ref could be read.
    pub(super) fn all_known(&self) -> bool {
        self.unread.is_empty() && self.list.iter().all(|one| one.commit.is_some())
    }

    /// When a ref was last written.
    pub(super) fn changed_ns(&self) -> Option<i64> {
        self.list.iter().map(|one| one.stat.mtime_ns).max()
    }

    /// Reads all refs below `dir`.
    pub(super) fn read(&mut self, dir: &DirHandle, prefix: &str, depth: u32) {
        let unread = |path: &str, why: String| {
            let path = format!("refs/{}", path.trim_end_matches('/'));
            Problem::new(
                ProblemKind::Unreadable,
                Some(&path),
                format!("{why}; a ref in it may name any snapshot"),
            )
        };
        let entries = match dir.list() {
            Ok(entries) => entries,
            Err(error) => {
                return self.unread.push(unread(prefix, format!("this directory cannot be read: {error}")));
            }
        };
        for entry in entries {
            let lossy = format!("{prefix}{}", entry.lossy_name());
            let Some(name) = entry.name() else {
                self.dirs.push(entry.stat);
                self.unread.push(unread(&lossy, "its name is not UTF-8".to_owned()));
                continue;
            };
            match entry.stat.kind {
                EntryKind::File if is_desktop_noise(name) => self.dirs.push(entry.stat),
                EntryKind::Dir if depth < 8 => {
                    self.dirs.push(entry.stat);
                    match dir.open_dir(&entry.raw_name) {
                        Ok(below) => self.read(&below, &format!("{lossy}/"), depth + 1),
                        Err(error) => {
                            self.unread
                                .push(unread(&lossy, format!("this directory cannot be read: {error}")));
                        }
                    }
                }
                EntryKind::Dir => {
                    self.dirs.push(entry.stat);
                    self.unread.push(unread(&lossy, "it is nested too deep".to_owned()));
                }
                _ => self.list.push(read_one(dir, &entry, lossy)),
            }
        }
    }
}

fn read_one(dir: &DirHandle, entry: &crate::access::Entry, name: String) -> Ref {
    let path = format!("refs/{name}");
    let mut text = String::new();
    let read = dir.open_file(&entry.raw_name).and_then(|file| file.take(REF_LIMIT).read_to_string(&mut text));
    let trimmed = text.trim();
    let (commit, problem) = match read {
        Err(error) => (
            None,
            Some(Problem::new(
                ProblemKind::RefInvalid,
                Some(&path),
                format!("the ref `{name}` cannot be read: {error}"),
            )),
        ),
        Ok(_) if !is_hex(trimmed, 40) => (
            None,
            Some(Problem::new(
                ProblemKind::RefInvalid,
                Some(&path),
                format!("the ref `{name}` does not hold a commit; download the repo again to mend it"),
            )),
        ),
        Ok(_) if trimmed.len() != text.len() => (
            Some(trimmed.to_owned()),
            Some(Problem::new(
                ProblemKind::RefNewline,
                Some(&path),
                format!(
                    "the ref `{name}` has white space around its commit, so huggingface_hub does not find the revision; \
                     rewrite the file with the 40 characters alone"
                ),
            )),
        ),
        Ok(_) => (Some(trimmed.to_owned()), None),
    };
    Ref { name, stat: entry.stat, commit, problem }
}
