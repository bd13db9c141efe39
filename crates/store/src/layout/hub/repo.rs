//! One repo of a hub cache.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;

use super::super::certain_of;
use super::snapshot::{Blobs, Found, Place, RepoBlob, Walk, flattened, flattened_problem};
use super::{Around, RepoScan, SharedUse, count_all, refs, repo_words};
use crate::access::{DirHandle, Entry, EntryKind, Stat};
use crate::details::is_hex;
use crate::ledger::{OwnerId, Users};
use crate::problem::{Problem, ProblemKind};
use crate::safe::resolve;
use crate::scan::{FoundModel, RepoKind, RepoSnapshot, Stray, StrayItem};

/// Walks the repo at `entry`.
pub(super) fn scan(around: &Around<'_>, entry: &Entry) -> RepoScan {
    let Some((kind, id)) = repo_words(entry) else { return RepoScan::default() };
    let top = entry.lossy_name();
    let mut scan = RepoScan::default();
    let dir = match around.root.open_dir(&entry.raw_name).and_then(|dir| Ok((dir.list()?, dir))) {
        Ok(read) => read,
        Err(error) => {
            scan.book.add(&entry.stat, entry.stat.allocated, Users::Never);
            scan.strays.push(unreadable(&top, &id, &error));
            return scan;
        }
    };
    let (entries, dir) = dir;
    around.progress.step(entries.len() as u64);
    let mut repo = Repo { around, top: &top, id: &id, dir: &dir, structure: vec![entry.stat], scan };
    let part = |name: &str| {
        entries.iter().find(|entry| entry.name() == Some(name) && entry.stat.kind == EntryKind::Dir)
    };

    let (blobs, mut loose) = repo.blobs(part("blobs"));
    let refs = repo.refs(part("refs"));
    let mut trees = repo.trees(part("trees"));
    let mut found = repo.snapshots(part("snapshots"), &blobs);

    let current = current_of(&found, &refs);
    // Which blob which snapshot uses.
    let mut users: Vec<(usize, OwnerId)> = Vec::with_capacity(blobs.len());
    let mut owner_of: HashMap<String, OwnerId> = HashMap::new();
    for (index, (commit, stat, snapshot)) in found.drain(..).enumerate() {
        let owner = repo.scan.book.owner();
        owner_of.insert(commit.clone(), owner);
        let Found { mut files, mut dirs, mut problems, own, uses, flattened, mut foreign } = snapshot;
        repo.scan.foreign.append(&mut foreign);
        problems.extend(flattened_problem(&flattened));
        for stat in own.iter().chain(dirs.iter().map(|(_, stat)| stat)) {
            repo.scan.book.add(stat, stat.allocated, Users::one(owner));
        }
        for index in uses {
            repo.shared_use(&blobs, index, Some(owner));
            users.push((index, owner));
        }
        let key = format!("{top}/snapshots/{commit}");
        dirs.insert(0, (key.clone(), stat));
        repo.scan.book.add(&stat, stat.allocated, Users::one(owner));
        let mut names = Vec::new();
        for one in refs.iter().filter(|one| one.commit.as_deref() == Some(&commit)) {
            names.push(one.name.clone());
            problems.extend(one.problem.clone());
        }
        if files.is_empty() && !problems.iter().any(|problem| problem.path.is_some()) {
            problems.push(Problem::new(
                ProblemKind::EmptySnapshot,
                None,
                "the snapshot holds no file; its download was broken off, or its files were removed",
            ));
        }
        names.sort_unstable();
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        repo.scan.models.push(FoundModel {
            owner,
            listing: trees.remove(&commit).map(|stat| (format!("{top}/trees/{commit}.json"), stat)),
            key,
            name: display_name(kind, &id),
            repo: Some(RepoSnapshot {
                kind,
                id: id.clone(),
                revision: commit,
                refs: names,
                current: current == Some(index),
            }),
            files,
            dirs,
            problems,
            download_records: None,
            records: Vec::new(),
            is_file: false,
        });
    }
    for model in &repo.scan.models {
        if let Some((_, stat)) = &model.listing {
            repo.scan.book.add(stat, stat.allocated, Users::one(model.owner));
        }
    }
    // Listings of revisions that are gone go with the repo.
    repo.structure.extend(trees.into_values());
    repo.book_refs(&refs, &owner_of);
    repo.book_blobs(&blobs, users, &mut loose);
    repo.partials(&blobs, loose);
    if repo.scan.models.is_empty() {
        repo.without_snapshot(entry);
    }
    // What is neither: `.no_exist`, and whatever else somebody put there.
    let known: HashSet<&str> = ["blobs", "refs", "trees", "snapshots"].into();
    let everyone = Users::Range(0, repo.scan.book.owners());
    for other in &entries {
        if !(other.stat.kind == EntryKind::Dir && other.name().is_some_and(|name| known.contains(name))) {
            let users = if other.name() == Some(".no_exist") { &everyone } else { &Users::Never };
            count_all(&dir, other, users, &mut repo.scan.book, &mut Vec::new());
        }
    }
    for stat in std::mem::take(&mut repo.structure) {
        repo.scan.book.add(&stat, stat.allocated, everyone.clone());
    }
    repo.scan
}

fn unreadable(path: &str, repo_id: &str, error: &std::io::Error) -> Stray {
    Stray {
        problem: Problem::new(
            ProblemKind::Unreadable,
            Some(path),
            format!("this directory cannot be read: {error}; check its permissions"),
        ),
        repo_id: Some(repo_id.to_owned()),
        owner: None,
        items: Vec::new(),
    }
}

/// A blob that no link was yet seen to use, or a partial file.
struct Loose {
    name: String,
    raw: CString,
    stat: Stat,
}

struct Repo<'a> {
    around: &'a Around<'a>,
    top: &'a str,
    id: &'a str,
    dir: &'a DirHandle,
    /// Directories and small files that go with the last of the repo.
    structure: Vec<Stat>,
    scan: RepoScan,
}

impl Repo<'_> {
    fn list(&mut self, part: Option<&Entry>) -> Option<(DirHandle, Vec<Entry>)> {
        let part = part?;
        self.structure.push(part.stat);
        match self.dir.open_dir(&part.raw_name).and_then(|dir| Ok((dir.list()?, dir))) {
            Ok((entries, dir)) => {
                self.around.progress.step(entries.len() as u64);
                Some((dir, entries))
            }
            Err(error) => {
                let path = format!("{}/{}", self.top, part.lossy_name());
                self.scan.strays.push(unreadable(&path, self.id, &error));
                None
            }
        }
    }

    fn blobs(&mut self, part: Option<&Entry>) -> (Blobs, Vec<Loose>) {
        let Some((dir, entries)) = self.list(part) else { return Default::default() };
        let mut blobs = Blobs::with_capacity(entries.len());
        let mut loose = Vec::new();
        for entry in entries {
            let Some(name) = entry.name().map(str::to_owned) else {
                self.scan.book.add(&entry.stat, entry.stat.allocated, Users::Never);
                continue;
            };
            let place = match entry.stat.kind {
                EntryKind::File if name.ends_with(".incomplete") => {
                    loose.push(Loose { name, raw: entry.raw_name, stat: entry.stat });
                    continue;
                }
                // Where links were flattened by a copy, the way into the shared blob store was too.
                EntryKind::File if self.around.shared.is_there() && is_hex(&name, 64) => {
                    match flattened(&dir, &entry).map(|target| self.shared_place(target)) {
                        Some(place @ Place::Shared { .. }) => place,
                        _ => Place::Here,
                    }
                }
                EntryKind::File => Place::Here,
                EntryKind::Link => match dir.read_link(&entry.raw_name) {
                    Ok(target) => self.shared_place(target),
                    Err(_) => Place::Broken { problem: ProblemKind::LinkNotFollowed, target: String::new() },
                },
                _ => {
                    count_all(&dir, &entry, &Users::Never, &mut self.scan.book, &mut Vec::new());
                    continue;
                }
            };
            let certain = match place {
                Place::Here => certain_of(self.around.asks_extents, &dir, &entry),
                _ => entry.stat.allocated,
            };
            blobs.push(name, RepoBlob { stat: entry.stat, certain, place });
        }
        (blobs, loose)
    }

    /// A blob that is a link: it may lead into the shared blob store, and nowhere else.
    fn shared_place(&self, target: String) -> Place {
        let base = format!("{}/blobs", self.top);
        match resolve(self.around.root_path, &base, &target) {
            None => Place::Broken { problem: ProblemKind::LinkOutsideStore, target },
            Some(real) => match self.around.shared.get(&real) {
                Some((payload, _)) => Place::Shared { target, payload },
                None if real.starts_with("blobs/") => {
                    Place::Broken { problem: ProblemKind::DanglingLink, target }
                }
                None => Place::Broken { problem: ProblemKind::LinkNotFollowed, target },
            },
        }
    }

    fn refs(&mut self, part: Option<&Entry>) -> Vec<refs::Ref> {
        let Some(part) = part else { return Vec::new() };
        self.structure.push(part.stat);
        let mut found = Vec::new();
        match self.dir.open_dir(&part.raw_name) {
            Ok(dir) => refs::read(&dir, "", &mut found, &mut self.structure, &mut self.scan.book, 0),
            Err(error) => {
                self.scan.strays.push(unreadable(&format!("{}/refs", self.top), self.id, &error));
            }
        }
        found
    }

    fn trees(&mut self, part: Option<&Entry>) -> HashMap<String, Stat> {
        let Some((dir, entries)) = self.list(part) else { return HashMap::new() };
        let mut trees = HashMap::new();
        for entry in entries {
            match entry.name().and_then(|name| name.strip_suffix(".json")) {
                Some(commit) if entry.stat.kind == EntryKind::File => {
                    trees.insert(commit.to_owned(), entry.stat);
                }
                _ => count_all(&dir, &entry, &Users::Never, &mut self.scan.book, &mut Vec::new()),
            }
        }
        trees
    }

    fn snapshots(&mut self, part: Option<&Entry>, blobs: &Blobs) -> Vec<(String, Stat, Found)> {
        let Some((dir, entries)) = self.list(part) else { return Vec::new() };
        let mut snapshots = Vec::new();
        for entry in entries {
            let path = format!("{}/snapshots/{}", self.top, entry.lossy_name());
            let commit = entry.name().filter(|name| is_hex(name, 40));
            let (Some(commit), EntryKind::Dir) = (commit, entry.stat.kind) else {
                count_all(&dir, &entry, &Users::Never, &mut self.scan.book, &mut Vec::new());
                self.scan.strays.push(Stray {
                    problem: Problem::new(
                        ProblemKind::UnsafeName,
                        Some(&path),
                        "it stands among the snapshots but is not named by a commit; it was not read, and is never a candidate",
                    ),
                    repo_id: Some(self.id.to_owned()),
                    owner: None,
                    items: Vec::new(),
                });
                continue;
            };
            let mut found = Found::default();
            match dir.open_dir(&entry.raw_name) {
                Ok(below) => {
                    let blobs_seen =
                        !self.scan.strays.iter().any(|stray| stray.problem.kind == ProblemKind::Unreadable);
                    let walk = Walk { around: self.around, repo: self.top, blobs, blobs_seen };
                    walk.walk(&below, "", &path, &mut found, 0);
                }
                Err(error) => found.problems.push(Problem::new(
                    ProblemKind::Unreadable,
                    Some("."),
                    format!("the snapshot cannot be read: {error}; check its permissions"),
                )),
            }
            snapshots.push((commit.to_owned(), entry.stat, found));
        }
        snapshots
    }

    fn book_refs(&mut self, refs: &[refs::Ref], owner_of: &HashMap<String, OwnerId>) {
        for one in refs {
            let owner = one.commit.as_ref().and_then(|commit| owner_of.get(commit));
            if let Some(&owner) = owner {
                self.scan.book.add(&one.stat, one.stat.allocated, Users::one(owner));
                continue;
            }
            self.structure.push(one.stat);
            let path = format!("{}/refs/{}", self.top, one.name);
            let problem = match (&one.commit, &one.problem) {
                (Some(commit), _) => Problem::new(
                    ProblemKind::RefToNowhere,
                    Some(&path),
                    format!(
                        "the ref `{}` names revision {commit}, of which there is no snapshot; \
                         download the repo again, or remove the ref",
                        one.name
                    ),
                ),
                (None, Some(problem)) => Problem::new(problem.kind, Some(&path), problem.message.clone()),
                (None, None) => continue,
            };
            let items = vec![StrayItem { path, stat: one.stat, link_target: None }];
            self.scan.strays.push(Stray { problem, repo_id: Some(self.id.to_owned()), owner: None, items });
        }
    }

    fn book_blobs(&mut self, blobs: &Blobs, mut users: Vec<(usize, OwnerId)>, loose: &mut Vec<Loose>) {
        let all_seen = self.all_users_seen();
        users.sort_unstable();
        users.dedup();
        let mut users = users.as_slice();
        for index in 0..blobs.len() {
            let (name, blob) = blobs.at(index);
            let (owners, rest) = users.split_at(users.iter().take_while(|(used, _)| *used == index).count());
            users = rest;
            let wanted = !self.around.wanted.is_empty()
                && self.around.wanted.contains(&format!("{}/blobs/{name}", self.top));
            let users = if !all_seen || wanted {
                // Somebody whom nobody can name may need it: it stays, whoever else goes.
                self.scan.held.push(format!("{}/blobs/{name}", self.top));
                self.shared_use(blobs, index, None);
                Users::Never
            } else if owners.is_empty() {
                let Ok(raw) = CString::new(name) else { continue };
                loose.push(Loose { name: name.to_owned(), raw, stat: blob.stat });
                continue;
            } else {
                Users::several(owners.iter().map(|&(_, owner)| owner).collect())
            };
            self.scan.book.add(&blob.stat, blob.certain, users);
        }
    }

    /// Whether every user of the repo's blobs is known: what could not be read, or was not followed, or stands among
    /// the snapshots under another name, may use any of them.
    fn all_users_seen(&self) -> bool {
        let unseen = |kind: ProblemKind| {
            matches!(
                kind,
                ProblemKind::Unreadable
                    | ProblemKind::NameNotUtf8
                    | ProblemKind::UnsafeName
                    | ProblemKind::LinkNotFollowed
            )
        };
        !self.scan.strays.iter().any(|stray| unseen(stray.problem.kind))
            && !self.scan.models.iter().flat_map(|model| &model.problems).any(|problem| unseen(problem.kind))
    }

    /// Partial downloads and orphan blobs.
    fn partials(&mut self, blobs: &Blobs, loose: Vec<Loose>) {
        let locks = self.around.locks.and_then(|locks| {
            let name = CString::new(self.top).ok()?;
            locks.open_dir(&name).ok()
        });
        for one in loose {
            let etag = one.name.split('.').next().unwrap_or_default();
            let held = locks.as_ref().is_some_and(|locks| {
                CString::new(format!("{etag}.lock")).is_ok_and(|name| crate::held::is_held(locks, &name))
            });
            let partial = one.name.ends_with(".incomplete");
            let (kind, message) = match (partial, held) {
                (true, true) => (
                    ProblemKind::PartialLive,
                    "a download is writing this file (its lock is held); it is left alone",
                ),
                (true, false) => (
                    ProblemKind::PartialDead,
                    "a download was broken off and nobody holds its lock; download again to go on, or remove it",
                ),
                (false, true) => (
                    ProblemKind::OrphanBlob,
                    "no snapshot uses this blob yet, and its lock is held: a download is about to link it",
                ),
                (false, false) => {
                    (ProblemKind::OrphanBlob, "no snapshot uses this blob, so no loader can find it")
                }
            };
            let path = format!("{}/blobs/{}", self.top, one.name);
            let owner = (!held).then(|| self.scan.book.owner());
            let certain = self.certain_of_loose(&one);
            let blob = blobs.get(&one.name);
            if let (Some(owner), Some((index, _))) = (owner, blob) {
                self.shared_use(blobs, index, Some(owner));
            }
            let link_target = blob.and_then(|(_, blob)| match &blob.place {
                Place::Here => None,
                Place::Shared { target, .. } | Place::Broken { target, .. } => Some(target.clone()),
            });
            self.scan.book.add(&one.stat, certain, owner.map_or(Users::Never, Users::one));
            self.scan.strays.push(Stray {
                problem: Problem::new(kind, Some(&path), message),
                repo_id: Some(self.id.to_owned()),
                owner,
                items: vec![StrayItem { path, stat: one.stat, link_target }],
            });
        }
    }

    fn shared_use(&mut self, blobs: &Blobs, index: usize, owner: Option<OwnerId>) {
        if let (name, RepoBlob { place: Place::Shared { payload, .. }, .. }) = blobs.at(index) {
            let blob = format!("{}/blobs/{name}", self.top);
            self.scan.shared_uses.push(SharedUse { payload: *payload, blob, owner });
        }
    }

    fn certain_of_loose(&self, one: &Loose) -> u64 {
        if !self.around.asks_extents || one.stat.kind != EntryKind::File {
            return one.stat.allocated;
        }
        let Ok(dir) = self.dir.open_dir(c"blobs") else { return 0 };
        let entry = Entry { raw_name: one.raw.clone(), stat: one.stat };
        certain_of(self.around.asks_extents, &dir, &entry)
    }

    /// A repo directory in which nothing can be loaded: its directories, refs and listings are one row.
    fn without_snapshot(&mut self, entry: &Entry) {
        let unread = self.scan.strays.iter().any(|stray| stray.problem.kind == ProblemKind::Unreadable);
        let live = self.scan.strays.iter().any(|stray| {
            stray.owner.is_none()
                && !stray.items.is_empty()
                && matches!(stray.problem.kind, ProblemKind::PartialLive | ProblemKind::OrphanBlob)
        });
        let owner = (!unread && !live).then(|| self.scan.book.owner());
        let left = self.scan.strays.iter().filter(|stray| stray.owner.is_some()).count();
        let message = match left {
            0 => "the repo has no snapshot and no blobs: what `hf download --local-dir` leaves beside the directory that \
                  it fills, or a download that never began or was removed in part; nothing can be loaded from it"
                .to_owned(),
            n => format!(
                "the repo has no snapshot, and {n} blobs or partial files that nothing can find: \
                 what `mlx_lm.manage --delete` or a broken download leaves"
            ),
        };
        self.scan.strays.push(Stray {
            problem: Problem::new(ProblemKind::RepoWithoutSnapshot, Some(self.top), message),
            repo_id: Some(self.id.to_owned()),
            owner,
            items: vec![StrayItem { path: self.top.to_owned(), stat: entry.stat, link_target: None }],
        });
    }
}

/// The repo as a person names it: what is no model says so, as in the hub's own addresses.
fn display_name(kind: RepoKind, id: &str) -> String {
    match kind {
        RepoKind::Model => id.to_owned(),
        RepoKind::Dataset => format!("datasets/{id}"),
        RepoKind::Space => format!("spaces/{id}"),
        RepoKind::Kernel => format!("kernels/{id}"),
    }
}

/// The snapshot a loader gets when it asks for the repo.
fn current_of(found: &[(String, Stat, Found)], refs: &[refs::Ref]) -> Option<usize> {
    let named = |wanted: &dyn Fn(&refs::Ref) -> bool| {
        refs.iter()
            .filter(|one| wanted(one))
            .find_map(|one| found.iter().position(|(commit, ..)| Some(commit) == one.commit.as_ref()))
    };
    named(&|one| one.name == "main")
        .or_else(|| named(&|one| !one.name.starts_with("refs/")))
        .or_else(|| (0..found.len()).max_by_key(|&index| (found[index].1.mtime_ns, index)))
}
