//! A folder of models.
//!
//! A directory is a model when it holds a configuration (`config.json`, `model_index.json`, `adapter_config.json`) or
//! weights, or when its directories are the components of a diffusion model. Everything below it belongs to it. Any
//! other directory is looked into for models: `publisher/model`, and deeper. Where the root itself holds loose weight
//! files beside directories, each such file is a model. The root may also be one model itself.
//!
//! `.cache/huggingface/` in a model's directory is what `hf download --local-dir` keeps: the commit and etag of each
//! file. It belongs to the model, and is no part of it.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::PathBuf;

use rayon::prelude::*;

use super::{Counted, Layout, by_text, count_all, is_desktop_noise};
use crate::access::{DirHandle, Entry, EntryKind, Stat};
use crate::filesystem::Filesystem;
use crate::held::{self, Held};
use crate::ledger::{LedgerBuilder, OwnerId, Users};
use crate::problem::{Problem, ProblemKind};
use crate::safe::resolve;
use crate::scan::{FileEntry, FoundInStore, FoundModel, Link, Scan, ScanError, Stray, StrayItem};
use crate::spec::{StoreKind, StoreSpec};
use crate::watch::Progress;

pub(super) struct Folder;

/// Directories below the root that are looked into for models.
const DEPTH: u32 = 6;

const MARKERS: [&str; 3] = ["config.json", "model_index.json", "adapter_config.json"];
const WEIGHTS: [&str; 7] = [".safetensors", ".gguf", ".npz", ".bin", ".pt", ".pth", ".ckpt"];
const COMPONENTS: [&str; 6] =
    ["transformer", "unet", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"];
/// Directories in a models' folder that hold no models: the original scripts' manifests, and mlxman's own.
const NOT_MODELS: [&str; 2] = ["manifests", ".mlxman-trash"];

impl Layout for Folder {
    fn kind(&self) -> StoreKind {
        StoreKind::Folder
    }

    fn scan(&self, spec: &StoreSpec, progress: &Progress) -> Result<Scan, ScanError> {
        let (root, filesystem) = super::open(spec)?;
        let unavailable = |source| ScanError::Unavailable { root: spec.root().to_owned(), source };
        let entries = root.list().map_err(unavailable)?;
        let mut found = Found::default();
        if let Ok(stat) = root.stat() {
            found.book.add(&stat, stat.allocated, Users::Never);
            let walk = Walk::new(spec, &root, filesystem.as_ref(), progress);
            if is_model(&root, &entries) && !is_loose(&entries) {
                let name =
                    spec.root().file_name().map_or("model".to_owned(), |n| n.to_string_lossy().into_owned());
                // The root's own directory stays, whatever is removed.
                walk.model(&root, String::new(), name, None, entries, &mut found);
            } else {
                walk.root(&root, entries, &mut found);
            }
        }
        found.book_files();
        let Found { models, strays, book, outside, .. } = found;
        let found =
            FoundInStore { models, strays, ledger: book.finish(), outside, ..FoundInStore::default() };
        Ok(Scan::new(spec.clone(), filesystem, root, found))
    }
}

#[derive(Default)]
struct Found {
    models: Vec<FoundModel>,
    strays: Vec<Stray>,
    book: LedgerBuilder,
    /// Directories of the store that links in a model lead to, with the model that uses them.
    linked_dirs: Vec<(String, OwnerId)>,
    /// Where links that belong to no model lead out of the store.
    outside: Vec<PathBuf>,
}

impl Found {
    fn merge(&mut self, mut other: Found) {
        let shift = self.book.merge(other.book);
        other.models.iter_mut().for_each(|model| model.owner += shift);
        other.strays.iter_mut().for_each(|stray| stray.owner = stray.owner.map(|owner| owner + shift));
        self.linked_dirs.extend(other.linked_dirs.into_iter().map(|(dir, owner)| (dir, owner + shift)));
        self.outside.append(&mut other.outside);
        self.models.append(&mut other.models);
        self.strays.append(&mut other.strays);
    }

    /// Books the models' files: each is free when its own model and all that link to it are gone.
    fn book_files(&mut self) {
        let mut linked: HashMap<&str, Vec<OwnerId>> = HashMap::new();
        for model in &self.models {
            for file in model.files.iter().filter(|file| file.link.is_some()) {
                linked.entry(&file.real).or_default().push(model.owner);
            }
        }
        for model in &self.models {
            let users = if model.keeps_dirs { Users::Never } else { Users::one(model.owner) };
            for (_, stat) in &model.dirs {
                self.book.add(stat, stat.allocated, users.clone());
            }
            for file in model.files.iter().filter(|file| file.link.is_none()) {
                let by_dir = self.linked_dirs.iter().filter(|(dir, _)| {
                    file.real.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'))
                });
                let mut owners: Vec<OwnerId> = by_dir.map(|(_, owner)| *owner).collect();
                owners.extend(linked.get(file.real.as_str()).into_iter().flatten());
                let users = if owners.is_empty() {
                    Users::one(model.owner)
                } else {
                    owners.push(model.owner);
                    Users::several(owners)
                };
                self.book.add(&file.stat, file.certain, users);
            }
        }
    }

    fn stray(&mut self, kind: ProblemKind, path: &str, message: impl Into<String>) {
        let problem = Problem::new(kind, Some(path), message);
        self.strays.push(Stray { problem, repo_id: None, owner: None, items: Vec::new(), payload: None });
    }
}

fn is_weights(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    WEIGHTS.iter().any(|ending| lower.ends_with(ending))
}

fn has(entries: &[Entry], name: &str) -> bool {
    entries.iter().any(|entry| entry.name() == Some(name) && entry.stat.kind != EntryKind::Dir)
}

fn has_weights(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.stat.kind != EntryKind::Dir && entry.name().is_some_and(is_weights))
}

fn is_model(dir: &DirHandle, entries: &[Entry]) -> bool {
    if MARKERS.iter().any(|marker| has(entries, marker)) || has_weights(entries) {
        return true;
    }
    // What mflux saves: components without an index. Two of them with weights are no coincidence.
    let components = entries.iter().filter(|entry| {
        entry.stat.kind == EntryKind::Dir
            && entry.name().is_some_and(|name| COMPONENTS.contains(&name))
            && dir
                .open_dir(&entry.raw_name)
                .and_then(|below| below.list())
                .is_ok_and(|files| has_weights(&files))
    });
    components.count() >= 2
}

/// Weights without any configuration: at a store's root, each such file is a model of its own.
fn is_loose(entries: &[Entry]) -> bool {
    !MARKERS.iter().any(|marker| has(entries, marker)) && has_weights(entries)
}

fn is_hub_repo(name: &str) -> bool {
    ["models--", "datasets--", "spaces--", "kernels--"].iter().any(|word| name.starts_with(word))
}

struct Walk<'a> {
    root: &'a DirHandle,
    root_path: String,
    asks_extents: bool,
    progress: &'a Progress,
}

impl<'a> Walk<'a> {
    fn new(
        spec: &StoreSpec,
        root: &'a DirHandle,
        filesystem: Option<&Filesystem>,
        progress: &'a Progress,
    ) -> Self {
        Walk {
            root,
            root_path: spec.root().to_string_lossy().into_owned(),
            asks_extents: filesystem.is_some_and(|filesystem| filesystem.shares_blocks),
            progress,
        }
    }

    fn root(&self, dir: &DirHandle, entries: Vec<Entry>, found: &mut Found) {
        self.progress.step(entries.len() as u64);
        let each = |entry: Entry| {
            let mut part = Found::default();
            let loose = entry.stat.kind != EntryKind::Dir && entry.name().is_some_and(is_weights);
            if let (true, Some(name)) = (loose, entry.name().map(str::to_owned)) {
                self.single_file(dir, &entry, &name, &mut part);
            } else {
                self.look(dir, &entry, "", 0, &mut part);
            }
            part
        };
        // Threads of this scan's own: a dead volume may block them for ever.
        let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
        let parts: Vec<Found> = match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
            Ok(pool) if entries.len() >= 8 => pool.install(|| entries.into_par_iter().map(each).collect()),
            _ => entries.into_iter().map(each).collect(),
        };
        parts.into_iter().for_each(|part| found.merge(part));
    }

    /// Looks at one entry of a directory that is no model.
    fn look(&self, dir: &DirHandle, entry: &Entry, prefix: &str, depth: u32, found: &mut Found) {
        let lossy = format!("{prefix}{}", entry.lossy_name());
        let Some(name) = entry.name() else {
            found.book.add(&entry.stat, entry.stat.allocated, Users::Never);
            return found.stray(
                ProblemKind::NameNotUtf8,
                &lossy,
                "its name is not UTF-8; it was counted but not read",
            );
        };
        match entry.stat.kind {
            EntryKind::Dir => {}
            EntryKind::Link => {
                found.book.add(&entry.stat, entry.stat.allocated, Users::Never);
                return self.loose_link(dir, entry, prefix, found);
            }
            _ => return self.count(dir, entry, &lossy, found),
        }
        if !crate::is_safe_component(name) {
            found.stray(
                ProblemKind::UnsafeName,
                &lossy.escape_debug().to_string(),
                "its name holds a separator; it was not read",
            );
            return self.count(dir, entry, &lossy, found);
        }
        if is_hub_repo(name) {
            if !found.strays.iter().any(|stray| stray.problem.kind == ProblemKind::HubInsideFolder) {
                let here = if prefix.is_empty() {
                    self.root_path.clone()
                } else {
                    format!("{}/{prefix}", self.root_path)
                };
                found.stray(
                    ProblemKind::HubInsideFolder,
                    &lossy,
                    format!("this is a repo of a hub cache; add --store hub={here} to see its models"),
                );
            }
            return self.count(dir, entry, &lossy, found);
        }
        if (depth == 0 && NOT_MODELS.contains(&name)) || name.starts_with('.') || depth > DEPTH {
            return self.count(dir, entry, &lossy, found);
        }
        match dir.open_dir(&entry.raw_name).and_then(|below| Ok((below.list()?, below))) {
            Ok((entries, below)) => {
                self.progress.step(entries.len() as u64);
                if is_model(&below, &entries) {
                    self.model(&below, lossy.clone(), lossy, Some(entry.stat), entries, found);
                } else {
                    found.book.add(&entry.stat, entry.stat.allocated, Users::Never);
                    let prefix = format!("{lossy}/");
                    for entry in entries {
                        self.look(&below, &entry, &prefix, depth + 1, found);
                    }
                }
            }
            Err(error) => {
                found.book.add(&entry.stat, entry.stat.allocated, Users::Never);
                found.stray(
                    ProblemKind::Unreadable,
                    &lossy,
                    format!("this directory cannot be read: {error}; check its permissions"),
                );
            }
        }
    }

    /// Counts what stays whatever goes.
    fn count(&self, dir: &DirHandle, entry: &Entry, path: &str, found: &mut Found) {
        let mut counted = Counted { strays: &mut found.strays, items: None };
        count_all(dir, entry, path, &Users::Never, &mut found.book, &mut counted);
    }

    fn loose_link(&self, dir: &DirHandle, entry: &Entry, prefix: &str, found: &mut Found) {
        let path = format!("{prefix}{}", entry.lossy_name());
        let target = dir.read_link(&entry.raw_name).unwrap_or_default();
        let base = prefix.trim_end_matches('/');
        match resolve(&self.root_path, base, &target) {
            None => {
                found.outside.push(by_text(&self.root_path, base, &target));
                found.stray(
                ProblemKind::LinkOutsideStore,
                &path,
                format!(
                    "it links to `{}`, outside the store; it was not followed (name its target as a store of its own)",
                    target.escape_debug()
                ),
            );
            }
            Some(inside) => match self.stat_below(&inside) {
                // Another name of what is found in its own place.
                Ok(_) => {}
                Err(_) => found.stray(
                    ProblemKind::DanglingLink,
                    &path,
                    format!("it links to `{inside}`, which is not there"),
                ),
            },
        }
    }

    fn stat_below(&self, path: &str) -> std::io::Result<Stat> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let name = CString::new(name)?;
        if parent.is_empty() {
            self.root.stat_of(&name)
        } else {
            self.root.open_dir_below(parent)?.stat_of(&name)
        }
    }

    fn certain(&self, dir: &DirHandle, entry: &Entry) -> u64 {
        super::certain_of(self.asks_extents, dir, entry)
    }

    fn single_file(&self, dir: &DirHandle, entry: &Entry, name: &str, found: &mut Found) {
        let owner = found.book.owner();
        let mut model = empty_model(owner, name.to_owned(), name.to_owned());
        model.is_file = true;
        self.file(dir, entry, name.to_owned(), name.to_owned(), &mut model, found);
        found.models.push(model);
    }

    fn model(
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
                found.book.add(&entry.stat, entry.stat.allocated, Users::Never);
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
                _ => {
                    model.keeps_dirs = true;
                    self.count(dir, &entry, &in_store(&model.key, &lossy), found);
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
        match self.linked(&target, &place, model, found) {
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

    /// The file that a link at `place` leads to, one hop, inside the store.
    fn linked(
        &self,
        target: &std::io::Result<String>,
        place: &str,
        model: &mut FoundModel,
        found: &mut Found,
    ) -> Result<(String, Stat), (ProblemKind, String)> {
        let target = match target {
            Ok(target) => target,
            Err(error) => {
                return Err((ProblemKind::Unreadable, format!("this link cannot be read: {error}")));
            }
        };
        let base = place.rsplit_once('/').map_or("", |(parent, _)| parent);
        let Some(real) = resolve(&self.root_path, base, target) else {
            model.outside.push(by_text(&self.root_path, base, target));
            return Err((
                ProblemKind::LinkOutsideStore,
                format!("it links to `{}`, outside the store; it was not followed", target.escape_debug()),
            ));
        };
        match self.stat_below(&real) {
            Ok(stat) if stat.kind == EntryKind::File => Ok((real, stat)),
            Ok(stat) => {
                if stat.kind == EntryKind::Dir {
                    found.linked_dirs.push((real, model.owner));
                }
                let message = "it links to something that is no regular file; only one hop is followed";
                Err((ProblemKind::LinkNotFollowed, message.to_owned()))
            }
            Err(_) => Err((ProblemKind::DanglingLink, format!("it links to `{real}`, which is not there"))),
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
                    }
                }
            } else if partial(&&entry) {
                self.partial(dir, &entry, &real, locked, model, found);
            } else {
                found.book.add(&entry.stat, entry.stat.allocated, Users::one(model.owner));
                model.records.push(StrayItem { path: real, stat: entry.stat, link_target: None });
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
        outside: Vec::new(),
        keeps_dirs: false,
        is_file: false,
    }
}
