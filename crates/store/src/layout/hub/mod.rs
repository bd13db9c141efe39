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

mod loose;
mod refs;
mod repo;
mod shared;
mod skeleton;
mod snapshot;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use rayon::prelude::*;

use super::{Counted, Layout, count_all};
use crate::access::{DirHandle, Entry, EntryKind, Stat};
use crate::held::{self, Held};
use crate::ledger::{LedgerBuilder, OwnerId, Users};
use crate::problem::{Problem, ProblemKind};
use crate::safe::resolve;
use crate::scan::{FoundInStore, FoundModel, Group, RepoKind, Scan, ScanError, Stray};
use crate::spec::{StoreKind, StoreSpec};
use crate::watch::Progress;

pub(super) struct Hub;

/// What one repo's walk needs to know of the store around it.
struct Around<'a> {
    root: &'a DirHandle,
    root_path: &'a str,
    shared: &'a shared::SharedBlobs,
    locks: &'a Locks,
    root_id: Option<(u64, u64)>,
    asks_extents: bool,
    progress: &'a Progress,
    /// Blobs that links of other repos lead to, relative to the store's root.
    wanted: &'a HashSet<String>,
}

/// The directory of lock files.
enum Locks {
    Absent,
    Unreadable,
    Dir(DirHandle),
}

impl Around<'_> {
    /// Where a link in directory `base` leads, relative to the store's root, if it stays in the store. An absolute
    /// link may name the root in another way: through a link above it, or another mount.
    fn resolve(&self, base: &str, target: &str) -> Option<String> {
        if let Some(inside) = resolve(self.root_path, base, target) {
            return Some(inside);
        }
        if !target.starts_with('/') || target.split('/').any(|part| part == "..") {
            return None;
        }
        let root_id = self.root_id?;
        target.match_indices('/').skip(1).find_map(|(at, _)| {
            use std::os::unix::fs::MetadataExt as _;
            let meta = fs_err::metadata(&target[..at]).ok()?;
            let rest = target[at + 1..].trim_matches('/');
            ((meta.dev(), meta.ino()) == root_id && crate::is_safe_relative(rest)).then(|| rest.to_owned())
        })
    }
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
    /// Whether its directories go with the last of its owners.
    goes_whole: bool,
    /// See [`Group::dirs`].
    dirs: Option<Box<[(&'static str, Stat)]>>,
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
        let locks = match root.open_dir(c".locks") {
            Ok(dir) => Locks::Dir(dir),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Locks::Absent,
            Err(_) => Locks::Unreadable,
        };
        let root_path = spec.root().to_string_lossy();
        let none = HashSet::new();
        let around = Around {
            wanted: &none,
            root: &root,
            root_path: &root_path,
            shared: &shared,
            locks: &locks,
            root_id: root.stat().ok().map(|stat| (stat.dev, stat.ino)),
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
        let mut groups = Vec::new();
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
            let range = shift..shift + owners;
            if repo.goes_whole {
                groups.push(Group { dir: entry.lossy_name(), owners: range.clone(), dirs: repo.dirs });
            }
            repo_owners.insert(entry.raw_name.clone(), repo.goes_whole.then_some(range));
        }
        let mut beside = HashMap::new();
        held_elsewhere.extend(shared.settle(
            &root,
            &shared_uses,
            &wanted,
            &mut book,
            &mut strays,
            &mut beside,
        ));
        for entry in others {
            match entry.name() {
                Some(".locks") => {
                    let names = Names { repos: &repo_owners, all: &entries };
                    read_locks(&root, entry, &names, &mut book, &mut strays);
                }
                // The shared blob store has been counted.
                Some("blobs") if shared.is_there() => {}
                _ => {
                    if let Some(problem) = unsafe_repo(entry) {
                        strays.push(Stray {
                            problem,
                            repo_id: None,
                            owner: None,
                            items: Vec::new(),
                            payload: None,
                        });
                    }
                    let mut found = Counted { strays: &mut strays, items: None };
                    count_all(&root, entry, &entry.lossy_name(), &Users::Never, &mut book, &mut found);
                }
            }
        }
        let links = std::mem::take(&mut book.links);
        let ledger = book.finish();
        let found = FoundInStore { models, strays, ledger, held_elsewhere, beside, groups, links };
        Ok(Scan::new(spec.clone(), filesystem, root, found))
    }
}

/// Walks several things at once, in threads of this scan's own: a dead volume may block them for ever, and the
/// process's shared pool must not hang with them.
fn in_parallel<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    if items.len() < 8 {
        return items.iter().map(&work).collect();
    }
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(|| items.par_iter().map(&work).collect()),
        Err(_) => items.iter().map(&work).collect(),
    }
}

/// `models--org--name` taken apart; `None` for what is no repo directory or has an unsafe name.
fn repo_words(entry: &Entry) -> Option<(RepoKind, String)> {
    repo_words_of(entry.name()?)
}

fn repo_words_of(name: &str) -> Option<(RepoKind, String)> {
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

/// What stands at the top of the cache, by name.
struct Names<'a> {
    repos: &'a HashMap<std::ffi::CString, Option<Range<OwnerId>>>,
    all: &'a [Entry],
}

/// Counts `.locks`. A repo's lock files go with the last of the repo; those whose repo is gone are a row.
fn read_locks(
    root: &DirHandle,
    entry: &Entry,
    names: &Names<'_>,
    book: &mut LedgerBuilder,
    strays: &mut Vec<Stray>,
) {
    book.add(&entry.stat, entry.stat.allocated, Users::Never);
    let (entries, locks) = match root.open_dir(&entry.raw_name).and_then(|locks| Ok((locks.list()?, locks))) {
        Ok(read) => read,
        Err(error) => {
            let message = format!("this directory cannot be read: {error}; locks in it are taken to be held");
            let problem = Problem::new(ProblemKind::Unreadable, Some(".locks"), message);
            return strays.push(Stray {
                problem,
                repo_id: None,
                owner: None,
                items: Vec::new(),
                payload: None,
            });
        }
    };
    for entry in entries {
        let path = format!(".locks/{}", entry.lossy_name());
        if let Some(range) = names.repos.get(&entry.raw_name) {
            let users = match range {
                Some(range) => Users::Range(range.start, range.end),
                None => Users::Never,
            };
            let mut found = Counted { strays, items: None };
            count_all(&locks, &entry, &path, &users, book, &mut found);
            continue;
        }
        // Something of that name is here all the same: a link to a repo, or a name that is no repo's.
        let is_gone = !names.all.iter().any(|one| one.raw_name == entry.raw_name);
        let free = is_gone
            && entry.stat.kind == EntryKind::Dir
            && entry.name().is_some()
            && locks.open_dir(&entry.raw_name).is_ok_and(|dir| held::any_in(&dir) == Held::No);
        let owner = free.then(|| book.owner());
        let mut items = Vec::new();
        let mut found = Counted { strays, items: Some(&mut items) };
        count_all(&locks, &entry, &path, &owner.map_or(Users::Never, Users::one), book, &mut found);
        if free {
            strays.push(Stray {
                problem: Problem::new(
                    ProblemKind::StaleLocks,
                    Some(&path),
                    "lock files of a repo that is no longer here; no process holds them",
                ),
                repo_id: repo_words(&entry).map(|(_, id)| id),
                owner,
                items,
                payload: None,
            });
        }
    }
}
