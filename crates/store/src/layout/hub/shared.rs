//! The shared blob store: `blobs/<2 hex>/<xet hash>`, beside it `.refs` (who uses it) and `.lock`.
//!
//! Each line of `.refs` names a repo blob that links to the payload, relative to the cache. A payload without a
//! readable `.refs` may have users that nobody can name, so it is never free.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read;

use super::super::{Counted, certain_of, count_all};
use super::{SharedUse, repo_words_of};
use crate::access::{DirHandle, Entry, EntryKind, Stat};
use crate::details::is_hex;
use crate::held::{self, Held};
use crate::ledger::{LedgerBuilder, OwnerId, Users};
use crate::problem::{Problem, ProblemKind};
use crate::scan::{Stray, StrayItem};

const REFS_LIMIT: u64 = 4 << 20;

pub(super) struct SharedBlob {
    /// Relative to the store's root.
    pub(super) path: String,
    pub(super) stat: Stat,
    pub(super) certain: u64,
    /// The repo blobs that `.refs` names, relative to the store's root; `None` where it cannot be read.
    users: Option<Vec<String>>,
    /// `.refs`.
    beside: Vec<(String, Stat)>,
}

impl SharedBlob {
    /// Its users whom its list, where that can be read, does not name.
    fn unlisted<'a>(&self, uses: &[&'a SharedUse]) -> BTreeSet<&'a str> {
        let Some(lines) = &self.users else { return BTreeSet::new() };
        let users = uses.iter().map(|one| one.blob.as_str());
        users.filter(|user| !lines.iter().any(|line| line == user)).collect()
    }
}

#[derive(Default)]
pub(super) struct SharedBlobs {
    there: bool,
    blobs: Vec<SharedBlob>,
    by_path: HashMap<String, usize>,
    /// Directories and what else lies there.
    others: Vec<Stat>,
}

impl SharedBlobs {
    pub(super) fn read(
        root: &DirHandle,
        entries: &[Entry],
        asks_extents: bool,
        strays: &mut Vec<Stray>,
        book: &mut LedgerBuilder,
    ) -> Self {
        let mut this = SharedBlobs::default();
        let Some(top) = entries.iter().find(|entry| entry.name() == Some("blobs")) else { return this };
        let Ok(dir) = root.open_dir(&top.raw_name) else { return this };
        if !dir.stat_of(c".huggingface-shared-blobs").is_ok_and(|stat| stat.kind == EntryKind::File) {
            return this;
        }
        this.there = true;
        this.others.push(top.stat);
        let unreadable = |path: String, error: std::io::Error, strays: &mut Vec<Stray>| {
            strays.push(Stray {
                problem: Problem::new(
                    ProblemKind::Unreadable,
                    Some(&path),
                    format!("cannot be read: {error}; blobs in it were not counted"),
                ),
                repo_id: None,
                owner: None,
                items: Vec::new(),
                payload: None,
            });
        };
        let groups = match dir.list() {
            Ok(groups) => groups,
            Err(error) => {
                unreadable("blobs".to_owned(), error, strays);
                return this;
            }
        };
        for group in groups {
            let is_group = group.stat.kind == EntryKind::Dir;
            let Some(name) = group.name().filter(|name| is_group && is_hex(name, 2)) else {
                let path = format!("blobs/{}", group.lossy_name());
                let mut found = Counted { strays, items: None };
                count_all(&dir, &group, &path, &Users::Never, book, &mut found);
                continue;
            };
            this.others.push(group.stat);
            match dir.open_dir(&group.raw_name).and_then(|below| Ok((below.list()?, below))) {
                Ok((files, below)) => this.read_group(&below, name, files, asks_extents, book, strays),
                Err(error) => unreadable(format!("blobs/{name}"), error, strays),
            }
        }
        this
    }

    fn read_group(
        &mut self,
        dir: &DirHandle,
        group: &str,
        files: Vec<Entry>,
        asks_extents: bool,
        book: &mut LedgerBuilder,
        strays: &mut Vec<Stray>,
    ) {
        let mut beside: HashMap<String, Vec<(String, Stat)>> = HashMap::new();
        let mut payloads = Vec::new();
        for file in files {
            let Some(name) = file.name() else {
                book.add(&file.stat, file.stat.allocated, Users::Never);
                continue;
            };
            let path = format!("blobs/{group}/{name}");
            match name.split_once('.') {
                None if file.stat.kind == EntryKind::File => payloads.push((path, file)),
                // A lock stays when its blob goes: somebody may be waiting for it.
                Some((_, "lock")) if file.stat.kind == EntryKind::File => self.others.push(file.stat),
                Some((hash, "refs")) if file.stat.kind == EntryKind::File => {
                    beside.entry(format!("blobs/{group}/{hash}")).or_default().push((path, file.stat));
                }
                _ => {
                    let mut found = Counted { strays, items: None };
                    count_all(dir, &file, &path, &Users::Never, book, &mut found);
                }
            }
        }
        for (path, file) in payloads {
            let beside = beside.remove(&path).unwrap_or_default();
            let certain = certain_of(asks_extents, dir, &file);
            let users = read_users(dir, &file);
            self.by_path.insert(path.clone(), self.blobs.len());
            self.blobs.push(SharedBlob { path, stat: file.stat, certain, users, beside });
        }
        self.others.extend(beside.into_values().flatten().map(|(_, stat)| stat));
    }

    pub(super) fn is_there(&self) -> bool {
        self.there
    }

    /// The payload at `path`, relative to the store's root.
    pub(super) fn get(&self, path: &str) -> Option<(usize, &SharedBlob)> {
        let index = *self.by_path.get(path)?;
        Some((index, &self.blobs[index]))
    }

    pub(super) fn by_index(&self, index: usize) -> &SharedBlob {
        &self.blobs[index]
    }

    /// Once all repos are read: books each payload on its users, and tells of those that nobody uses. Gives the
    /// payloads that have users which cannot be named.
    pub(super) fn settle(
        &self,
        root: &DirHandle,
        uses: &[SharedUse],
        wanted: &HashSet<String>,
        book: &mut LedgerBuilder,
        strays: &mut Vec<Stray>,
        beside: &mut HashMap<String, Vec<StrayItem>>,
    ) -> HashSet<String> {
        let mut held = HashSet::new();
        for stat in &self.others {
            book.add(stat, stat.allocated, Users::Never);
        }
        let mut uses_of: Vec<Vec<&SharedUse>> = vec![Vec::new(); self.blobs.len()];
        for one in uses {
            uses_of[one.payload].push(one);
        }
        for (blob, uses) in self.blobs.iter().zip(uses_of) {
            let users = match &blob.users {
                None => {
                    strays.push(self.stray(
                        blob,
                        ProblemKind::SharedBlobUntracked,
                        "its `.refs` is missing or unreadable, so nobody can tell which repos use it; it is never removed",
                        None,
                    ));
                    Users::Never
                }
                Some(lines) if lines.iter().any(|line| !accounted(root, line, &uses)) => Users::Never,
                Some(_) if wanted.contains(&blob.path) || uses.iter().any(|one| one.owner.is_none()) => {
                    Users::Never
                }
                Some(_) if uses.is_empty() && lock_of(root, &blob.path) != Held::No => {
                    let message = "no repo links to this shared blob yet, and its lock is held or cannot be asked: \
                                   a download may be about to link it";
                    strays.push(self.stray(blob, ProblemKind::OrphanBlob, message, None));
                    Users::Never
                }
                Some(_) if uses.is_empty() => {
                    let owner = book.owner();
                    let message = "no repo in this store links to this shared blob";
                    strays.push(self.stray(blob, ProblemKind::OrphanBlob, message, Some(owner)));
                    Users::one(owner)
                }
                Some(_) => Users::several(uses.iter().filter_map(|one| one.owner).collect()),
            };
            if users == Users::Never {
                held.insert(blob.path.clone());
            }
            // Whoever holds the lock may be about to list it.
            let is_settled = |_: &&str| lock_of(root, &blob.path) == Held::No;
            let unlisted = blob.unlisted(&uses).into_iter().filter(is_settled);
            strays.extend(unlisted.map(|user| unlisted_user(blob, user)));
            book.add(&blob.stat, blob.certain, users.clone());
            for (_, stat) in &blob.beside {
                book.add(stat, stat.allocated, users.clone());
            }
            if !uses.is_empty() {
                let items = blob.beside.iter().map(|(path, stat)| StrayItem {
                    path: path.clone(),
                    stat: *stat,
                    link_target: None,
                });
                beside.insert(blob.path.clone(), items.collect());
            }
        }
        held
    }

    fn stray(&self, blob: &SharedBlob, kind: ProblemKind, message: &str, owner: Option<OwnerId>) -> Stray {
        let item =
            |(path, stat): (&String, &Stat)| StrayItem { path: path.clone(), stat: *stat, link_target: None };
        let items = std::iter::once((&blob.path, &blob.stat))
            .chain(blob.beside.iter().map(|(path, stat)| (path, stat)))
            .map(item)
            .collect();
        Stray {
            problem: Problem::new(kind, Some(&blob.path), message),
            repo_id: None,
            owner,
            items,
            payload: None,
        }
    }
}

/// A repo's blob of which the list beside its shared blob does not know.
fn unlisted_user(blob: &SharedBlob, user: &str) -> Stray {
    let message = format!(
        "this leads to the shared blob {}, whose `.refs` does not name it: huggingface_hub would remove that blob with \
         those that it names, and leave a link to nothing here",
        blob.path
    );
    Stray {
        problem: Problem::new(ProblemKind::SharedBlobUnlisted, Some(user), message),
        repo_id: user.split('/').next().and_then(repo_words_of).map(|(_, id)| id),
        owner: None,
        items: Vec::new(),
        payload: Some(StrayItem { path: blob.path.clone(), stat: blob.stat, link_target: None }),
    }
}

/// Whether the scan knows who holds the repo blob that a line of `.refs` names, or knows that it is gone.
fn accounted(root: &DirHandle, line: &str, uses: &[&SharedUse]) -> bool {
    if uses.iter().any(|one| one.blob == line) {
        return true;
    }
    let Some((parent, name)) = line.rsplit_once('/') else { return false };
    let Ok(name) = std::ffi::CString::new(name) else { return false };
    let gone = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    match root.open_dir_below(parent) {
        Ok(dir) => dir.stat_of(&name).err().is_some_and(gone),
        Err(error) => gone(error),
    }
}

/// Whether somebody is just publishing a payload, or dropping it.
pub(super) fn lock_of(root: &DirHandle, path: &str) -> Held {
    let Some((dir, name)) = path.rsplit_once('/') else { return Held::Unknown };
    let Ok(lock) = std::ffi::CString::new(format!("{name}.lock")) else { return Held::Unknown };
    root.open_dir_below(dir).map_or(Held::Unknown, |dir| held::of(&dir, &lock))
}

fn read_users(dir: &DirHandle, payload: &Entry) -> Option<Vec<String>> {
    let name = std::ffi::CString::new(format!("{}.refs", payload.name()?)).ok()?;
    let mut text = String::new();
    let read = dir.open_file(&name).ok()?.take(REFS_LIMIT).read_to_string(&mut text).ok()?;
    // An empty list, or one too long to be read whole, tells nothing.
    if read == 0 || read as u64 == REFS_LIMIT {
        return None;
    }
    let lines: Vec<String> = text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
    lines.iter().all(|line| crate::is_safe_relative(line)).then_some(lines)
}
