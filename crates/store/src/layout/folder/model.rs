//! One model of a folder: its files, the links among them, and what `hf download --local-dir` keeps beside them.

use super::super::is_desktop_noise;
use super::{Found, LinkedDir, NOT_MODELS, Walk};
use crate::access::{DirHandle, Entry, EntryKind, Stat};
use crate::held::{self, Held};
use crate::ledger::Users;
use crate::links::LooseLink;
use crate::problem::{Problem, ProblemKind};
use crate::safe::resolve;
use crate::scan::{FileEntry, FoundModel, Link, Stray, StrayItem};

/// What a link in a model leads to.
enum Linked {
    /// A file of the store.
    File(String, Stat),
    /// A directory of the store.
    Dir(String),
    /// Something else, or nothing.
    Not(ProblemKind, String),
}

impl Walk<'_> {
    pub(super) fn single_file(&self, dir: &DirHandle, entry: &Entry, name: &str, found: &mut Found) {
        let owner = found.book.owner();
        let mut model = empty_model(owner, name.to_owned(), name.to_owned());
        model.is_file = true;
        self.file(dir, entry, name.to_owned(), name.to_owned(), &mut model, found);
        found.models.push(model);
    }

    pub(super) fn model(
        &self,
        dir: &DirHandle,
        key: String,
        name: String,
        stat: Option<Stat>,
        entries: Vec<Entry>,
        found: &mut Found,
    ) {
        let owner = found.book.owner();
        let mut model = empty_model(owner, key, name);
        // Its directories are booked at the end, when it is known whether they go.
        if let Some(stat) = stat {
            model.dirs.push((model.key.clone(), stat));
        }
        self.below(dir, "", entries, &mut model, found, 0);
        if model.files.is_empty() && model.problems.is_empty() {
            model.problems.push(Problem::new(
                ProblemKind::EmptySnapshot,
                None,
                "the model's directory holds no file that can be read",
            ));
        }
        model.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        found.models.push(model);
    }

    /// Takes in the entries of one directory of a model; `inside` is its path in the model, with a `/` behind it.
    fn below(
        &self,
        dir: &DirHandle,
        inside: &str,
        entries: Vec<Entry>,
        model: &mut FoundModel,
        found: &mut Found,
        depth: u32,
    ) {
        for entry in entries {
            let lossy = format!("{inside}{}", entry.lossy_name());
            let safe = entry.name().is_some_and(crate::is_safe_component);
            if !safe {
                model.keeps_dirs = true;
                self.count(dir, &entry, &in_store(&model.key, &lossy), found);
                let kind =
                    if entry.name().is_some() { ProblemKind::UnsafeName } else { ProblemKind::NameNotUtf8 };
                model.problems.push(Problem::new(
                    kind,
                    Some(&lossy.escape_debug().to_string()),
                    "its name is not one that can be used safely; it was counted but not read",
                ));
                continue;
            }
            // The root as a model: the scripts' manifests beside it are not part of it.
            if model.key.is_empty() && inside.is_empty() && NOT_MODELS.contains(&lossy.as_str()) {
                self.count(dir, &entry, &lossy, found);
                continue;
            }
            match entry.stat.kind {
                EntryKind::Dir if depth < 32 => {
                    match dir.open_dir(&entry.raw_name).and_then(|d| Ok((d.list()?, d))) {
                        Ok((entries, below)) => {
                            self.progress.step(entries.len() as u64);
                            model.dirs.push((in_store(&model.key, &lossy), entry.stat));
                            if inside.is_empty() && lossy == ".cache" {
                                self.records(&below, ".cache/", entries, model, found, 0);
                            } else {
                                self.below(&below, &format!("{lossy}/"), entries, model, found, depth + 1);
                            }
                        }
                        Err(error) => {
                            model.keeps_dirs = true;
                            found.book.add(&entry.stat, entry.stat.allocated, Users::Never);
                            model.problems.push(Problem::new(
                                ProblemKind::Unreadable,
                                Some(&lossy),
                                format!("this directory cannot be read: {error}; check its permissions"),
                            ));
                        }
                    }
                }
                EntryKind::File | EntryKind::Link => {
                    let real = in_store(&model.key, &lossy);
                    self.file(dir, &entry, lossy, real, model, found);
                }
                kind => {
                    model.keeps_dirs = true;
                    self.count(dir, &entry, &in_store(&model.key, &lossy), found);
                    // A pipe or a socket is nothing that could be read.
                    if kind != EntryKind::Other {
                        model.problems.push(not_read(&lossy, kind));
                    }
                }
            }
        }
    }

    /// Takes in one file: `path` in the model, `place` in the store.
    fn file(
        &self,
        dir: &DirHandle,
        entry: &Entry,
        path: String,
        place: String,
        model: &mut FoundModel,
        found: &mut Found,
    ) {
        let record =
            |link_target: Option<String>| StrayItem { path: place.clone(), stat: entry.stat, link_target };
        if entry.stat.kind == EntryKind::File {
            if is_desktop_noise(path.rsplit('/').next().unwrap_or(&path)) {
                found.book.add(&entry.stat, entry.stat.allocated, Users::one(model.owner));
                return model.records.push(record(None));
            }
            // Booked at the end, when it is known which links lead to it.
            let certain = self.certain(dir, entry);
            let (real, link, blob) = (place, None, None);
            return model.files.push(FileEntry { path, real, stat: entry.stat, certain, link, blob });
        }
        found.book.add(&entry.stat, entry.stat.allocated, Users::one(model.owner));
        let target = dir.read_link(&entry.raw_name);
        // A link to a file or a directory of the store is one of its users; any other is followed when somebody asks what
        // may go.
        let loose = || {
            let base = place.rsplit_once('/').map_or("", |(parent, _)| parent);
            LooseLink::new(base, dir.read_link_raw(&entry.raw_name))
        };
        let linked = match self.linked(&target, &place) {
            Linked::File(real, stat) => Ok((real, stat)),
            Linked::Dir(inside) => {
                found.linked_dirs.push(LinkedDir { dir: inside, user: model.owner, link: loose() });
                let message = "it links to something that is no regular file; only one hop is followed";
                Err((ProblemKind::LinkNotFollowed, message.to_owned()))
            }
            Linked::Not(kind, message) => {
                model.links.push(loose());
                Err((kind, message))
            }
        };
        match linked {
            Ok((real, stat)) => {
                let link = target.ok().map(|target| Link { target, stat: entry.stat });
                // The bytes have their own name elsewhere, so removing this link frees none of them.
                model.files.push(FileEntry { path, real, stat, certain: 0, link, blob: None });
            }
            Err((kind, message)) => {
                model.problems.push(Problem::new(kind, Some(&path), message));
                model.records.push(record(target.ok()));
            }
        }
    }

    /// What a link at `place` leads to, one hop, inside the store.
    fn linked(&self, target: &std::io::Result<String>, place: &str) -> Linked {
        let target = match target {
            Ok(target) => target,
            Err(error) => {
                return Linked::Not(ProblemKind::Unreadable, format!("this link cannot be read: {error}"));
            }
        };
        let base = place.rsplit_once('/').map_or("", |(parent, _)| parent);
        let Some(real) = resolve(&self.root_path, base, target) else {
            let message =
                format!("it links to `{}`, outside the store; it was not followed", target.escape_debug());
            return Linked::Not(ProblemKind::LinkOutsideStore, message);
        };
        match self.root.stat_below(&real) {
            Ok(stat) if stat.kind == EntryKind::File => Linked::File(real, stat),
            Ok(stat) if stat.kind == EntryKind::Dir => Linked::Dir(real),
            Ok(_) => {
                let message = "it links to something that is no regular file; only one hop is followed";
                Linked::Not(ProblemKind::LinkNotFollowed, message.to_owned())
            }
            Err(_) => {
                Linked::Not(ProblemKind::DanglingLink, format!("it links to `{real}`, which is not there"))
            }
        }
    }

    /// What lies under `.cache`: `huggingface/` belongs to the download.
    fn records(
        &self,
        dir: &DirHandle,
        inside: &str,
        entries: Vec<Entry>,
        model: &mut FoundModel,
        found: &mut Found,
        depth: u32,
    ) {
        if inside == ".cache/huggingface/" {
            model.download_records = Some(in_store(&model.key, ".cache/huggingface"));
        }
        let partial = |entry: &&Entry| entry.name().is_some_and(|name| name.ends_with(".incomplete"));
        // Which lock is whose does not follow from a partial file's name, so any that is held counts.
        let locked = match entries.iter().find(partial) {
            None => Held::No,
            Some(_) => entries
                .iter()
                .filter(|entry| entry.name().is_some_and(|name| name.ends_with(".lock")))
                .map(|entry| held::of(dir, &entry.raw_name))
                .max()
                .unwrap_or(Held::No),
        };
        for entry in entries {
            let path = format!("{inside}{}", entry.lossy_name());
            let real = in_store(&model.key, &path);
            if entry.stat.kind == EntryKind::Dir {
                match dir.open_dir(&entry.raw_name).and_then(|below| Ok((below.list()?, below))) {
                    Ok((entries, below)) if depth < 32 => {
                        model.dirs.push((real, entry.stat));
                        self.records(&below, &format!("{path}/"), entries, model, found, depth + 1);
                    }
                    _ => {
                        model.keeps_dirs = true;
                        self.count(dir, &entry, &real, found);
                        model.problems.push(not_read(&path, EntryKind::Dir));
                    }
                }
            } else if entry.name().is_none() || entry.stat.kind == EntryKind::Unknown {
                model.keeps_dirs = true;
                self.count(dir, &entry, &real, found);
                model.problems.push(not_read(&path, EntryKind::Unknown));
            } else if partial(&&entry) {
                self.partial(dir, &entry, &real, locked, model, found);
            } else {
                found.book.add(&entry.stat, entry.stat.allocated, Users::one(model.owner));
                let is_link = entry.stat.kind == EntryKind::Link;
                let link_target = is_link.then(|| dir.read_link(&entry.raw_name).ok()).flatten();
                if is_link {
                    let base = real.rsplit_once('/').map_or("", |(parent, _)| parent);
                    model.links.push(LooseLink::new(base, dir.read_link_raw(&entry.raw_name)));
                }
                model.records.push(StrayItem { path: real, stat: entry.stat, link_target });
            }
        }
    }

    /// A partial file in a model's own directory: a row of its own, which also goes with the model.
    fn partial(
        &self,
        dir: &DirHandle,
        entry: &Entry,
        real: &str,
        locked: Held,
        model: &mut FoundModel,
        found: &mut Found,
    ) {
        let (kind, message) = match locked {
            Held::Yes => (
                ProblemKind::PartialLive,
                "a download into this directory is running; its partial file is left alone",
            ),
            Held::Unknown => (
                ProblemKind::PartialLive,
                "a partial download whose lock cannot be asked; it may be running, so it is left alone",
            ),
            Held::No => (
                ProblemKind::PartialDead,
                "a download was broken off; download again to go on, or remove this partial file",
            ),
        };
        let owner = (locked == Held::No).then(|| found.book.owner());
        let users = match owner {
            Some(owner) => Users::Any(Box::new([owner, model.owner])),
            None => Users::Never,
        };
        model.keeps_dirs |= owner.is_none();
        found.book.add(&entry.stat, self.certain(dir, entry), users);
        let item = StrayItem { path: real.to_owned(), stat: entry.stat, link_target: None };
        if owner.is_some() {
            model.records.push(item.clone());
        }
        let problem = Problem::new(kind, Some(real), message);
        found.strays.push(Stray { problem, repo_id: None, owner, items: vec![item], payload: None });
    }
}

/// What of a model could not be read, so that not all of it could go.
fn not_read(path: &str, kind: EntryKind) -> Problem {
    let message = match kind {
        EntryKind::Dir => "this directory cannot be read, or lies too deep; what lies in it is not known",
        _ => {
            "the system does not say what this is, or its name is not UTF-8; check its name and its permissions"
        }
    };
    Problem::new(ProblemKind::Unreadable, Some(&path.escape_debug().to_string()), message)
}

fn in_store(key: &str, path: &str) -> String {
    match (key.is_empty(), path.is_empty()) {
        (true, _) => path.to_owned(),
        (_, true) => key.to_owned(),
        _ => format!("{key}/{path}"),
    }
}

fn empty_model(owner: u32, key: String, name: String) -> FoundModel {
    FoundModel {
        owner,
        key,
        name,
        repo: None,
        files: Vec::new(),
        dirs: Vec::new(),
        problems: Vec::new(),
        listing: None,
        download_records: None,
        records: Vec::new(),
        uses: Vec::new(),
        links: Vec::new(),
        keeps_dirs: false,
        is_file: false,
    }
}
