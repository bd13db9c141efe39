//! One repo of a hub cache.

use std::collections::HashMap;
use std::ffi::CString;

use super::super::{Counted, certain_of, count_all, is_desktop_noise};
use super::loose::{Loose, is_partial};
use super::snapshot::{Blobs, Found, Place, RepoBlob, Walk, flattened, flattened_problem};
use super::{Around, RepoScan, SharedUse, refs, repo_words};
use crate::access::{DirHandle, Entry, EntryKind, Stat};
use crate::details::is_hex;
use crate::ledger::{OwnerId, Users};
use crate::links::LooseLink;
use crate::problem::{Problem, ProblemKind};
use crate::scan::{FoundModel, RepoKind, RepoSnapshot, Stray, StrayItem};

/// Walks the repo at `entry`.
pub(super) fn scan(around: &Around<'_>, entry: &Entry) -> RepoScan {
    let Some((kind, id)) = repo_words(entry) else { return RepoScan::default() };
    let top = entry.lossy_name();
    let mut scan = RepoScan::default();
    let (entries, dir) = match around.root.open_dir(&entry.raw_name).and_then(|dir| Ok((dir.list()?, dir))) {
        Ok(read) => read,
        Err(error) => {
            scan.book.add(&entry.stat, entry.stat.allocated, Users::Never);
            scan.strays.push(unreadable(&top, &id, &error));
            return scan;
        }
    };
    around.progress.step(entries.len() as u64);
    let mut repo = Repo {
        around,
        top: &top,
        id: &id,
        dir: &dir,
        structure: vec![entry.stat],
        dirs: Some(Vec::new()),
        scan,
    };
    let parts = repo.parts(&entries);

    let (blobs, mut loose) = repo.blobs(parts.blobs);
    let refs = repo.refs(parts.refs);
    let mut trees = repo.trees(parts.trees);
    let mut found = repo.snapshots(&parts, &blobs);

    let current = current_of(&found, &refs);
    // Which blob which snapshot uses.
    let mut users: Vec<(usize, OwnerId)> = Vec::with_capacity(blobs.len());
    let mut owner_of: HashMap<String, OwnerId> = HashMap::new();
    for (index, (commit, stat, snapshot)) in found.drain(..).enumerate() {
        let owner = repo.scan.book.owner();
        owner_of.insert(commit.clone(), owner);
        let Found { mut files, mut dirs, mut problems, mut rest, uses, flattened, mut foreign, links } =
            snapshot;
        repo.scan.foreign.append(&mut foreign);
        problems.extend(flattened_problem(&flattened));
        let key = format!("{top}/snapshots/{commit}");
        dirs.insert(0, (key.clone(), stat));
        let own = dirs.iter().map(|(_, stat)| stat).chain(rest.iter().map(|item| &item.stat));
        for stat in own {
            repo.scan.book.add(stat, stat.allocated, Users::one(owner));
        }
        for file in &files {
            match &file.link {
                Some(link) => repo.scan.book.add(&link.stat, link.stat.allocated, Users::one(owner)),
                None => repo.scan.book.add(&file.stat, file.certain, Users::one(owner)),
            }
        }
        for index in uses {
            repo.shared_use(&blobs, index, Some(owner));
            users.push((index, owner));
        }
        let mut names = Vec::new();
        for one in refs.list.iter().filter(|one| one.commit.as_deref() == Some(&commit)) {
            names.push(one.name.clone());
            problems.extend(one.problem.clone());
            let path = format!("{top}/refs/{}", one.name);
            rest.push(StrayItem { path, stat: one.stat, link_target: None });
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
                refs_known: refs.all_known(),
                refs_changed_ns: refs.changed_ns(),
            }),
            files,
            dirs,
            problems,
            download_records: None,
            records: rest,
            uses: Vec::new(),
            links,
            keeps_dirs: false,
            is_file: false,
        });
    }
    for model in &repo.scan.models {
        if let Some((_, stat)) = &model.listing {
            repo.scan.book.add(stat, stat.allocated, Users::one(model.owner));
        }
    }
    // Listings of revisions that are gone go with the repo.
    let leftover: Vec<Stat> = trees.into_values().collect();
    repo.more_goes(&leftover);
    repo.structure.extend(leftover);
    repo.book_refs(&refs, &owner_of);
    let all_seen = parts.understood && repo.all_users_seen();
    repo.book_blobs(&blobs, users, &mut loose, all_seen);
    repo.settle_loose(&blobs, loose, all_seen);
    if repo.scan.models.is_empty() {
        repo.without_snapshot(all_seen);
    }
    // A repo in which anything stays keeps its directories.
    let (from, to) = (0, repo.scan.book.owners());
    let goes = from < to && !repo.scan.book.holds_for_ever();
    let users = if goes { Users::Range(from, to) } else { Users::Never };
    for stat in std::mem::take(&mut repo.structure) {
        repo.scan.book.add(&stat, stat.allocated, users.clone());
    }
    if let Some(absent) = parts.absent {
        repo.dirs = None;
        let mut found = Counted { strays: &mut repo.scan.strays, items: None };
        count_all(&dir, absent, &format!("{top}/.no_exist"), &users, &mut repo.scan.book, &mut found);
    }
    repo.scan.goes_whole = goes;
    repo.scan.dirs = repo.dirs.filter(|_| parts.understood).map(|mut dirs| {
        dirs.sort_unstable_by_key(|(name, _)| *name);
        dirs.push(("", entry.stat));
        dirs.into_boxed_slice()
    });
    repo.scan
}

/// A repo's parts, as far as they are the directories that they should be.
struct Parts<'a> {
    blobs: Option<&'a Entry>,
    /// Whether something stands in its place that is no directory.
    blobs_odd: bool,
    refs: Option<&'a Entry>,
    trees: Option<&'a Entry>,
    snapshots: Option<&'a Entry>,
    /// `.no_exist`: the files that the repo is known not to have.
    absent: Option<&'a Entry>,
    /// Whether there is nothing else, so that nobody unknown can use the repo's blobs.
    understood: bool,
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
        payload: None,
    }
}

/// A repo being walked.
pub(super) struct Repo<'a> {
    pub(super) around: &'a Around<'a>,
    /// Its directory, relative to the store's root.
    pub(super) top: &'a str,
    pub(super) id: &'a str,
    pub(super) dir: &'a DirHandle,
    /// Directories and small files that go with the last of the repo.
    structure: Vec<Stat>,
    /// Its own directories, as long as nothing else is among what goes with the last of the repo.
    dirs: Option<Vec<(&'static str, Stat)>>,
    pub(super) scan: RepoScan,
}

impl Repo<'_> {
    /// Sorts the repo's entries. What should be a directory and is none, and what no program puts there, means that
    /// the repo is not understood: then nothing in it is free by itself.
    fn parts<'e>(&mut self, entries: &'e [Entry]) -> Parts<'e> {
        let mut parts = Parts {
            blobs: None,
            blobs_odd: false,
            refs: None,
            trees: None,
            snapshots: None,
            absent: None,
            understood: true,
        };
        for entry in entries {
            let is_dir = entry.stat.kind == EntryKind::Dir;
            match entry.name() {
                Some("blobs") if is_dir => parts.blobs = Some(entry),
                Some("refs") if is_dir => parts.refs = Some(entry),
                Some("trees") if is_dir => parts.trees = Some(entry),
                Some("snapshots") if is_dir => parts.snapshots = Some(entry),
                Some(".no_exist") if is_dir => parts.absent = Some(entry),
                Some(name) if is_desktop_noise(name) && entry.stat.kind == EntryKind::File => {
                    self.goes_too(entry.stat);
                }
                name => {
                    parts.understood = false;
                    parts.blobs_odd |= name == Some("blobs");
                    let path = format!("{}/{}", self.top, entry.lossy_name());
                    if matches!(name, Some("blobs" | "refs" | "snapshots")) {
                        self.stray(
                            ProblemKind::LinkNotFollowed,
                            &path,
                            "this should be a directory and is none; it was not followed, and nothing of the repo \
                             is a candidate by itself",
                        );
                    }
                    self.count(self.dir, entry, &path);
                }
            }
        }
        parts
    }

    /// A small file that goes with the last of the repo.
    fn goes_too(&mut self, stat: Stat) {
        self.more_goes(&[stat]);
        self.structure.push(stat);
    }

    /// More than the repo's own directories goes with the last of it, if this is any.
    fn more_goes(&mut self, more: &[Stat]) {
        if !more.is_empty() {
            self.dirs = None;
        }
    }

    /// One of the repo's own directories.
    fn own_dir(&mut self, part: &Entry) {
        self.structure.push(part.stat);
        let name = ["blobs", "refs", "snapshots", "trees"].into_iter().find(|name| part.name() == Some(name));
        match (name, &mut self.dirs) {
            (Some(name), Some(dirs)) => dirs.push((name, part.stat)),
            _ => self.dirs = None,
        }
    }

    fn stray(&mut self, kind: ProblemKind, path: &str, message: &str) {
        self.scan.strays.push(Stray {
            problem: Problem::new(kind, Some(path), message),
            repo_id: Some(self.id.to_owned()),
            owner: None,
            items: Vec::new(),
            payload: None,
        });
    }

    /// Counts what stays whatever goes.
    fn count(&mut self, dir: &DirHandle, entry: &Entry, path: &str) {
        let mut found = Counted { strays: &mut self.scan.strays, items: None };
        count_all(dir, entry, path, &Users::Never, &mut self.scan.book, &mut found);
    }

    fn list(&mut self, part: Option<&Entry>) -> Option<(DirHandle, Vec<Entry>)> {
        let part = part?;
        self.own_dir(part);
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
                let path = format!("{}/blobs/{}", self.top, entry.lossy_name());
                self.count(&dir, &entry, &path);
                continue;
            };
            let place = match entry.stat.kind {
                EntryKind::File if is_partial(&name) => {
                    loose.push(Loose { name, raw: entry.raw_name, stat: entry.stat });
                    continue;
                }
                EntryKind::File if name.ends_with(".lock") || is_desktop_noise(&name) => {
                    self.goes_too(entry.stat);
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
                    let path = format!("{}/blobs/{name}", self.top);
                    self.count(&dir, &entry, &path);
                    continue;
                }
            };
            if let Place::Broken { target, .. } = &place {
                self.odd_blob(&dir, &entry, target);
            }
            let certain = match place {
                Place::Here => certain_of(self.around.asks_extents, &dir, &entry),
                _ => entry.stat.allocated,
            };
            blobs.push(name, RepoBlob { stat: entry.stat, certain, place });
        }
        (blobs, loose)
    }

    /// A blob that is a link to anything but a shared blob, as programs leave that keep one copy of what several repos
    /// have: it is not followed, and what it leads to is needed.
    fn odd_blob(&mut self, dir: &DirHandle, entry: &Entry, target: &str) {
        let base = format!("{}/blobs", self.top);
        self.scan.foreign.extend(self.around.resolve(&base, target));
        self.scan.book.links.push(LooseLink::new(&base, dir.read_link_raw(&entry.raw_name)));
    }

    /// A blob that is a link: it may lead into the shared blob store, and nowhere else.
    fn shared_place(&self, target: String) -> Place {
        let base = format!("{}/blobs", self.top);
        match self.around.resolve(&base, &target) {
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

    fn refs(&mut self, part: Option<&Entry>) -> refs::Refs {
        let mut found = refs::Refs::default();
        let Some(part) = part else { return found };
        self.own_dir(part);
        match self.dir.open_dir(&part.raw_name) {
            Ok(dir) => found.read(&dir, "", 0),
            Err(error) => {
                let message =
                    format!("this directory cannot be read: {error}; a ref in it may name any snapshot");
                found.unread.push(Problem::new(ProblemKind::Unreadable, Some("refs"), message));
            }
        }
        self.more_goes(&found.dirs);
        self.structure.append(&mut found.dirs);
        for problem in &found.unread {
            let path = format!("{}/{}", self.top, problem.path.as_deref().unwrap_or("refs"));
            self.stray(problem.kind, &path, &problem.message);
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
                _ if entry.name().is_some_and(is_desktop_noise) => self.goes_too(entry.stat),
                _ => {
                    let path = format!("{}/trees/{}", self.top, entry.lossy_name());
                    self.count(&dir, &entry, &path);
                }
            }
        }
        trees
    }

    fn snapshots(&mut self, parts: &Parts<'_>, blobs: &Blobs) -> Vec<(String, Stat, Found)> {
        let Some((dir, entries)) = self.list(parts.snapshots) else { return Vec::new() };
        let mut snapshots = Vec::new();
        for entry in entries {
            let path = format!("{}/snapshots/{}", self.top, entry.lossy_name());
            let commit = entry.name().filter(|name| is_hex(name, 40));
            if entry.stat.kind == EntryKind::File && entry.name().is_some_and(is_desktop_noise) {
                self.goes_too(entry.stat);
                continue;
            }
            let (Some(commit), EntryKind::Dir) = (commit, entry.stat.kind) else {
                self.count(&dir, &entry, &path);
                self.scan.strays.push(Stray {
                    problem: Problem::new(
                        ProblemKind::UnsafeName,
                        Some(&path),
                        "it stands among the snapshots but is not named by a commit; it was not read, and is never a candidate",
                    ),
                    repo_id: Some(self.id.to_owned()),
                    owner: None,
                    items: Vec::new(),
                    payload: None,
                });
                continue;
            };
            let mut found = Found::default();
            match dir.open_dir(&entry.raw_name) {
                Ok(below) => {
                    let blobs_seen =
                        !self.scan.strays.iter().any(|stray| stray.problem.kind == ProblemKind::Unreadable);
                    let blobs_odd = parts.blobs_odd;
                    let walk = Walk { around: self.around, repo: self.top, blobs, blobs_seen, blobs_odd };
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

    fn book_refs(&mut self, refs: &refs::Refs, owner_of: &HashMap<String, OwnerId>) {
        for one in &refs.list {
            let owner = one.commit.as_ref().and_then(|commit| owner_of.get(commit));
            if let Some(&owner) = owner {
                self.scan.book.add(&one.stat, one.stat.allocated, Users::one(owner));
                continue;
            }
            self.goes_too(one.stat);
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
            self.scan.strays.push(Stray {
                problem,
                repo_id: Some(self.id.to_owned()),
                owner: None,
                items,
                payload: None,
            });
        }
    }

    fn book_blobs(
        &mut self,
        blobs: &Blobs,
        mut users: Vec<(usize, OwnerId)>,
        loose: &mut Vec<Loose>,
        all_seen: bool,
    ) {
        users.sort_unstable();
        users.dedup();
        let mut users = users.as_slice();
        for index in 0..blobs.len() {
            let (name, blob) = blobs.at(index);
            let (owners, rest) = users.split_at(users.iter().take_while(|(used, _)| *used == index).count());
            users = rest;
            let wanted = !self.around.wanted.is_empty()
                && self.around.wanted.contains(&format!("{}/blobs/{name}", self.top));
            let users = if owners.is_empty() && !wanted {
                let Ok(raw) = CString::new(name) else { continue };
                loose.push(Loose { name: name.to_owned(), raw, stat: blob.stat });
                continue;
            } else if !all_seen || wanted {
                // Somebody whom nobody can name may need it: it stays, whoever else goes.
                self.scan.held.push(format!("{}/blobs/{name}", self.top));
                self.shared_use(blobs, index, None);
                Users::Never
            } else {
                Users::several(owners.iter().map(|&(_, owner)| owner).collect())
            };
            self.scan.book.add(&blob.stat, blob.certain, users);
        }
    }

    /// Whether every user of the repo's blobs is known: what could not be read, or was not followed, or stands among
    /// the snapshots under another name, may use any of them. A link that leads out of the store uses none; should it
    /// come back by another way, it is followed there with all other links.
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

    pub(super) fn shared_use(&mut self, blobs: &Blobs, index: usize, owner: Option<OwnerId>) {
        if let (name, RepoBlob { place: Place::Shared { payload, .. }, .. }) = blobs.at(index) {
            let blob = format!("{}/blobs/{name}", self.top);
            self.scan.shared_uses.push(SharedUse { payload: *payload, blob, owner });
        }
    }

    /// A repo directory in which nothing can be loaded: its directories, refs and listings are one row.
    fn without_snapshot(&mut self, all_seen: bool) {
        // What a download holds has no owner: then the repo has none either.
        let live = self.scan.strays.iter().any(|stray| {
            stray.owner.is_none()
                && matches!(stray.problem.kind, ProblemKind::PartialLive | ProblemKind::OrphanBlob)
        });
        let owner = (all_seen && !live).then(|| self.scan.book.owner());
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
            items: Vec::new(),
            payload: None,
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
fn current_of(found: &[(String, Stat, Found)], refs: &refs::Refs) -> Option<usize> {
    let named = |wanted: &dyn Fn(&refs::Ref) -> bool| {
        refs.list
            .iter()
            .filter(|one| wanted(one))
            .find_map(|one| found.iter().position(|(commit, ..)| Some(commit) == one.commit.as_ref()))
    };
    named(&|one| one.name == "main")
        .or_else(|| named(&|one| !one.name.starts_with("refs/")))
        .or_else(|| (0..found.len()).max_by_key(|&index| (found[index].1.mtime_ns, index)))
}
