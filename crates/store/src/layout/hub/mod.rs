//! The Hugging Face hub cache, as huggingface_hub writes it.
//!
//! ```text
//! CACHEDIR.TAG
//! {models,datasets,spaces,kernels}--org--name/
//!   blobs/<sha256 or git sha1>            content; or, in the shared layout, a link to ../../blobs/<2 hex>/<xet hash>
//!   blobs/<etag>.<8 hex>.incomplete       a partial download, live while .locks/<repo>/<etag>.lock is held
//!   refs/<ref>                            exactly the 40 characters of a commit
//!   snapshots/<commit>/<path>             links to ../../blobs/<name>
//!   trees/<commit>.json                   the listing of the whole repo at that commit
//!   .no_exist/<commit>/<path>             empty: files that the repo is known not to have
//! .locks/<repo>/<etag>.lock
//! blobs/.huggingface-shared-blobs         `1`: the shared blob store (1.32 and later)
//! blobs/<2 hex>/<xet hash>{,.refs,.lock}
//! ```

mod refs;
mod repo;
mod shared;
mod snapshot;

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;

use rayon::prelude::*;

use super::Layout;
use crate::access::{DirHandle, Entry, EntryKind};
use crate::ledger::{LedgerBuilder, OwnerId, Users};
use crate::problem::{Problem, ProblemKind};
use crate::scan::{FoundModel, RepoKind, Scan, ScanError, Stray, StrayItem};
use crate::spec::{StoreKind, StoreSpec};
use crate::watch::Progress;

pub(super) struct Hub;

/// What one repo's walk needs to know of the store around it.
struct Around<'a> {
    root: &'a DirHandle,
    root_path: &'a str,
    shared: &'a shared::SharedBlobs,
    locks: Option<&'a DirHandle>,
    asks_extents: bool,
    progress: &'a Progress,
    /// Blobs that links of other repos lead to, relative to the store's root.
    wanted: &'a HashSet<String>,
}

/// What one repo's walk found. Owner ids are the repo's own, from 0.
#[derive(Default)]
struct RepoScan {
    models: Vec<FoundModel>,
    strays: Vec<Stray>,
    book: LedgerBuilder,
    shared_uses: Vec<SharedUse>,
    /// Files elsewhere in the store that its links lead to.
    foreign: Vec<String>,
    /// Blobs with users that nobody can name.
    held: Vec<String>,
}

/// A repo's blob that links into the shared blob store, and one owner that must go before that link goes.
struct SharedUse {
    payload: usize,
    /// The repo's blob, relative to the store's root, as `.refs` names it.
    blob: String,
    /// `None` for one that nobody can name.
    owner: Option<OwnerId>,
}

impl Layout for Hub {
    fn kind(&self) -> StoreKind {
        StoreKind::Hub
    }

    fn scan(&self, spec: &StoreSpec, progress: &Progress) -> Result<Scan, ScanError> {
        let (root, filesystem) = super::open(spec)?;
        let unavailable = |source| ScanError::Unavailable { root: spec.root().to_owned(), source };
        let entries = root.list().map_err(unavailable)?;
        progress.step(entries.len() as u64);
        let mut book = LedgerBuilder::default();
        if let Ok(stat) = root.stat() {
            book.add(&stat, stat.allocated, Users::Never);
        }
        let mut strays = Vec::new();
        let asks_extents = filesystem.as_ref().is_some_and(|filesystem| filesystem.shares_blocks);

        let shared = shared::SharedBlobs::read(&root, &entries, asks_extents, &mut strays, &mut book);
        let locks = root.open_dir(c".locks").ok();
        let root_path = spec.root().to_string_lossy();
        let none = HashSet::new();
        let around = Around {
            wanted: &none,
            root: &root,
            root_path: &root_path,
            shared: &shared,
            locks: locks.as_ref(),
            asks_extents,
            progress,
        };

        let (repos, others): (Vec<&Entry>, Vec<&Entry>) = entries
            .iter()
            .partition(|entry| entry.stat.kind == EntryKind::Dir && repo_words(entry).is_some());
        let mut scanned: Vec<RepoScan> = in_parallel(&repos, |entry| repo::scan(&around, entry));
        // No program links from one repo into another, but a person may: what is linked to stays, and the repos that
        // it lies in are read once more, knowing that.
        let wanted: HashSet<String> = scanned.iter().flat_map(|repo| repo.foreign.iter().cloned()).collect();
        if !wanted.is_empty() {
            let around = Around { wanted: &wanted, ..around };
            for (entry, scan) in repos.iter().zip(&mut scanned) {
                let prefix = format!("{}/", entry.lossy_name());
                if wanted.iter().any(|path| path.starts_with(&prefix)) {
                    *scan = repo::scan(&around, entry);
                }
            }
        }

        let mut models = Vec::new();
        let mut held_elsewhere: HashSet<String> = HashSet::new();
        let mut shared_uses: Vec<SharedUse> = Vec::new();
        let mut repo_owners = HashMap::new();
        for (entry, mut repo) in repos.iter().zip(scanned) {
            let owners = repo.book.owners();
            let shift = book.merge(repo.book);
            repo.models.iter_mut().for_each(|model| model.owner += shift);
            repo.strays.iter_mut().for_each(|stray| {
                stray.owner = stray.owner.map(|owner| owner + shift);
            });
            repo.shared_uses.iter_mut().for_each(|one| one.owner = one.owner.map(|owner| owner + shift));
            shared_uses.append(&mut repo.shared_uses);
            held_elsewhere.extend(repo.held);
            models.append(&mut repo.models);
            strays.append(&mut repo.strays);
            repo_owners.insert(entry.raw_name.clone(), (shift, shift + owners));
        }
        held_elsewhere.extend(shared.settle(&root, &shared_uses, &wanted, &mut book, &mut strays));
        for entry in others {
            match entry.name() {
                Some(".locks") => read_locks(&root, entry, &repo_owners, &mut book, &mut strays),
                // The shared blob store has been counted.
                Some("blobs") if shared.is_there() => {}
                _ => {
                    if let Some(problem) = unsafe_repo(entry) {
                        strays.push(Stray { problem, repo_id: None, owner: None, items: Vec::new() });
                    }
                    count_all(&root, entry, &Users::Never, &mut book, &mut Vec::new());
                }
            }
        }
        Ok(Scan::new(spec.clone(), filesystem, models, strays, book.finish(), root, held_elsewhere))
    }
}

/// Walks several things at once, in threads of this scan's own: a dead volume may block them for ever, and the
/// process's shared pool must not hang with them.
fn in_parallel<'a, T: Send>(items: &[&'a Entry], work: impl Fn(&'a Entry) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    if items.len() < 8 {
        return items.iter().map(|entry| work(entry)).collect();
    }
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(|| items.par_iter().map(|entry| work(entry)).collect()),
        Err(_) => items.iter().map(|entry| work(entry)).collect(),
    }
}

/// `models--org--name` taken apart; `None` for what is no repo directory or has an unsafe name.
fn repo_words(entry: &Entry) -> Option<(RepoKind, String)> {
    let name = entry.name()?;
    let (word, rest) = name.split_once("--")?;
    let kind = match word {
        "models" => RepoKind::Model,
        "datasets" => RepoKind::Dataset,
        "spaces" => RepoKind::Space,
        "kernels" => RepoKind::Kernel,
        _ => return None,
    };
    let id = rest.replace("--", "/");
    let safe = crate::is_safe_relative(&id) && id.split('/').count() <= 2;
    safe.then_some((kind, id))
}

fn unsafe_repo(entry: &Entry) -> Option<Problem> {
    let name = entry.lossy_name();
    let looks = ["models--", "datasets--", "spaces--", "kernels--"].iter().any(|word| name.starts_with(word));
    let path = name.escape_debug().to_string();
    if !looks {
        return None;
    }
    Some(if entry.stat.kind == EntryKind::Link {
        Problem::new(
            ProblemKind::LinkNotFollowed,
            Some(&path),
            "a link stands where a repo's directory should be; it was not followed (name its target as a store of its own)",
        )
    } else {
        Problem::new(
            ProblemKind::UnsafeName,
            Some(&path),
            "this name does not stand for a repo id; nothing in it was read, and nothing in it is ever a candidate",
        )
    })
}

/// Counts an entry and everything below it, links not followed. `items` gets every entry, deepest first.
fn count_all(
    dir: &DirHandle,
    entry: &Entry,
    users: &Users,
    book: &mut LedgerBuilder,
    items: &mut Vec<StrayItem>,
) {
    count_below(dir, &entry.raw_name, &entry.lossy_name(), &entry.stat, users, book, items, 0);
}

#[expect(clippy::too_many_arguments, reason = "a private recursion carrying its state")]
fn count_below(
    dir: &DirHandle,
    name: &CStr,
    path: &str,
    stat: &crate::access::Stat,
    users: &Users,
    book: &mut LedgerBuilder,
    items: &mut Vec<StrayItem>,
    depth: u32,
) {
    book.add(stat, stat.allocated, users.clone());
    if stat.kind == EntryKind::Dir
        && depth < 64
        && let Ok(below) = dir.open_dir(name)
        && let Ok(entries) = below.list()
    {
        for entry in entries {
            let path = format!("{path}/{}", entry.lossy_name());
            count_below(&below, &entry.raw_name, &path, &entry.stat, users, book, items, depth + 1);
        }
    }
    let link_target = (stat.kind == EntryKind::Link).then(|| dir.read_link(name).ok()).flatten();
    items.push(StrayItem { path: path.to_owned(), stat: *stat, link_target });
}

/// Counts `.locks`. A repo's lock files go with the last of the repo; those whose repo is gone are a row.
fn read_locks(
    root: &DirHandle,
    entry: &Entry,
    repos: &HashMap<std::ffi::CString, (OwnerId, OwnerId)>,
    book: &mut LedgerBuilder,
    strays: &mut Vec<Stray>,
) {
    book.add(&entry.stat, entry.stat.allocated, Users::Never);
    let Ok(locks) = root.open_dir(&entry.raw_name) else { return };
    let Ok(entries) = locks.list() else { return };
    for entry in entries {
        if let Some(&(from, to)) = repos.get(&entry.raw_name) {
            count_all(&locks, &entry, &Users::Range(from, to), book, &mut Vec::new());
            continue;
        }
        let path = format!(".locks/{}", entry.lossy_name());
        let held = locks.open_dir(&entry.raw_name).ok().is_some_and(|dir| {
            dir.list().is_ok_and(|files| files.iter().any(|file| crate::held::is_held(&dir, &file.raw_name)))
        });
        let removable = entry.stat.kind == EntryKind::Dir && entry.name().is_some() && !held;
        let owner = removable.then(|| book.owner());
        let mut items = Vec::new();
        count_all(&locks, &entry, &owner.map_or(Users::Never, Users::one), book, &mut items);
        items.iter_mut().for_each(|item| item.path = format!(".locks/{}", item.path));
        if removable {
            strays.push(Stray {
                problem: Problem::new(
                    ProblemKind::StaleLocks,
                    Some(&path),
                    "lock files of a repo that is no longer here; no process holds them",
                ),
                repo_id: repo_words(&entry).map(|(_, id)| id),
                owner,
                items,
            });
        }
    }
}
