//! What lies among a repo's blobs and no snapshot was seen to use: partial downloads and orphans.
//!
//! Nothing here is free to go on a mere absence: its lock must be known not to be held, every user of the repo's blobs
//! must have been seen, and no text in the repo may name the blob.

use std::ffi::CString;
use std::io::Read;

use super::repo::Repo;
use super::snapshot::{Blobs, Place};
use crate::access::{DirHandle, EntryKind, Stat};
use crate::details::is_hex;
use crate::held::{self, Held};
use crate::ledger::Users;
use crate::problem::{Problem, ProblemKind};
use crate::scan::{Stray, StrayItem};

/// A text longer than this is no link that somebody wrote out as a file.
const NOTE_LIMIT: u64 = 4096;
const LISTING_LIMIT: u64 = 64 << 20;

/// A blob that no link was yet seen to use, or a partial file.
pub(super) struct Loose {
    pub(super) name: String,
    pub(super) raw: CString,
    pub(super) stat: Stat,
}

/// Whether the file is a partial download: huggingface_hub's `<etag>.<8 hex>.incomplete`, the Rust hf-hub's
/// `<etag>.sync.part`.
pub(super) fn is_partial(name: &str) -> bool {
    name.ends_with(".incomplete") || name.ends_with(".part")
}

impl Repo<'_> {
    /// Books what is loose, and makes a row of each.
    pub(super) fn settle_loose(&mut self, blobs: &Blobs, loose: Vec<Loose>, all_seen: bool) {
        // Locks first: a blob that a download links while this runs is then seen as linked by what is read after.
        let locked: Vec<Held> = loose.iter().map(|one| self.lock_of(&one.name)).collect();
        let mut texts: Option<Vec<Vec<u8>>> = None;
        for (one, locked) in loose.into_iter().zip(locked) {
            let path = format!("{}/blobs/{}", self.top, one.name);
            let (kind, free, message) = if is_partial(&one.name) {
                match locked {
                    Held::Yes => (
                        ProblemKind::PartialLive,
                        false,
                        "a download is writing this file (its lock is held); it is left alone",
                    ),
                    Held::Unknown => (
                        ProblemKind::PartialLive,
                        false,
                        "a partial download whose lock cannot be asked; it may be running, so it is left alone",
                    ),
                    Held::No => (
                        ProblemKind::PartialDead,
                        true,
                        "a download was broken off and nobody holds its lock; download again to go on, or remove it",
                    ),
                }
            } else if locked != Held::No {
                (
                    ProblemKind::OrphanBlob,
                    false,
                    "no snapshot uses this blob yet, and its lock is held or cannot be asked: \
                     a download may be about to link it",
                )
            } else if !all_seen {
                self.hold(blobs, &one);
                continue;
            } else if !is_hex(&one.name, 40) && !is_hex(&one.name, 64) {
                self.scan.book.add(&one.stat, one.stat.allocated, Users::Never);
                continue;
            } else {
                let texts = texts.get_or_insert_with(|| self.texts());
                if texts.iter().any(|text| contains(text, one.name.as_bytes())) {
                    (
                        ProblemKind::OrphanBlob,
                        false,
                        "no link leads to this blob, but a snapshot or its listing names it; it stays",
                    )
                } else {
                    (ProblemKind::OrphanBlob, true, "no snapshot uses this blob, so no loader can find it")
                }
            };
            let owner = free.then(|| self.scan.book.owner());
            let blob = blobs.get(&one.name);
            if let Some((index, _)) = blob {
                self.shared_use(blobs, index, owner);
            }
            let link_target = blob.and_then(|(_, blob)| match &blob.place {
                Place::Here => None,
                Place::Shared { target, .. } | Place::Broken { target, .. } => Some(target.clone()),
            });
            let payload = match blob.map(|(_, blob)| &blob.place) {
                Some(Place::Shared { payload, .. }) => {
                    let payload = self.around.shared.by_index(*payload);
                    Some(StrayItem { path: payload.path.clone(), stat: payload.stat, link_target: None })
                }
                _ => None,
            };
            let certain = self.certain_of_loose(&one);
            self.scan.book.add(&one.stat, certain, owner.map_or(Users::Never, Users::one));
            self.scan.strays.push(Stray {
                problem: Problem::new(kind, Some(&path), message),
                repo_id: Some(self.id.to_owned()),
                owner,
                items: vec![StrayItem { path, stat: one.stat, link_target }],
                payload,
            });
        }
    }

    /// A blob that somebody who cannot be named may use.
    fn hold(&mut self, blobs: &Blobs, one: &Loose) {
        self.scan.held.push(format!("{}/blobs/{}", self.top, one.name));
        if let Some((index, _)) = blobs.get(&one.name) {
            self.shared_use(blobs, index, None);
        }
        self.scan.book.add(&one.stat, one.stat.allocated, Users::Never);
    }

    /// The lock that a download of this blob would hold: huggingface_hub's beside the repos, the Rust hf-hub's beside
    /// the blob.
    fn lock_of(&self, name: &str) -> Held {
        let etag = name.split('.').next().unwrap_or_default();
        let Ok(lock) = CString::new(format!("{etag}.lock")) else { return Held::Unknown };
        let beside_repos = match &self.around.locks {
            super::Locks::Absent => Held::No,
            super::Locks::Unreadable => Held::Unknown,
            super::Locks::Dir(locks) => {
                let Ok(repo) = CString::new(self.top) else { return Held::Unknown };
                match locks.open_dir(&repo) {
                    Ok(dir) => held::of(&dir, &lock),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Held::No,
                    Err(_) => Held::Unknown,
                }
            }
        };
        let beside_blob = match self.dir.open_dir(c"blobs") {
            Ok(dir) => held::of(&dir, &lock),
            Err(_) => Held::Unknown,
        };
        beside_repos.max(beside_blob)
    }

    fn certain_of_loose(&self, one: &Loose) -> u64 {
        if !self.around.asks_extents || one.stat.kind != EntryKind::File {
            return one.stat.allocated;
        }
        let Ok(dir) = self.dir.open_dir(c"blobs") else { return 0 };
        let entry = crate::access::Entry { raw_name: one.raw.clone(), stat: one.stat };
        super::super::certain_of(self.around.asks_extents, &dir, &entry)
    }

    /// Every text in the repo that may name a blob: its snapshots' links, small files there, which may be links that a
    /// copying program wrote out, and the listings of the snapshots that are here. Read anew, after the locks.
    fn texts(&self) -> Vec<Vec<u8>> {
        let mut texts = Vec::new();
        if let Ok(dir) = self.dir.open_dir(c"snapshots") {
            collect(&dir, &mut texts, 0);
        }
        for model in &self.scan.models {
            if let Some((path, _)) = &model.listing
                && let Ok(file) = self.around.root.open_below(path)
            {
                let mut text = Vec::new();
                if file.take(LISTING_LIMIT).read_to_end(&mut text).is_ok() {
                    texts.push(text);
                }
            }
        }
        texts
    }
}

fn collect(dir: &DirHandle, texts: &mut Vec<Vec<u8>>, depth: u32) {
    let Ok(entries) = dir.list() else { return };
    for entry in entries {
        match entry.stat.kind {
            EntryKind::Link => texts.extend(dir.read_link(&entry.raw_name).map(String::into_bytes)),
            EntryKind::File if entry.stat.size <= NOTE_LIMIT => {
                let mut text = Vec::new();
                if let Ok(file) = dir.open_file(&entry.raw_name)
                    && file.take(NOTE_LIMIT).read_to_end(&mut text).is_ok()
                {
                    texts.push(text);
                }
            }
            EntryKind::Dir if depth < 32 => {
                if let Ok(below) = dir.open_dir(&entry.raw_name) {
                    collect(&below, texts, depth + 1);
                }
            }
            _ => {}
        }
    }
}

fn contains(text: &[u8], name: &[u8]) -> bool {
    !name.is_empty() && text.windows(name.len()).any(|window| window == name)
}
