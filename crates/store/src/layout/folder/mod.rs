//! A folder of models.
//!
//! A directory is a model when it holds a configuration (`config.json`, `model_index.json`, `adapter_config.json`) or
//! weights, or when its directories are the components of a diffusion model. Everything below it belongs to it. Any
//! other directory is looked into for models: `publisher/model`, and deeper. Where the root itself holds loose weight
//! files beside directories, each such file is a model. The root may also be one model itself.
//!
//! `.cache/huggingface/` in a model's directory is what `hf download --local-dir` keeps: the commit and etag of each
//! file. It belongs to the model, and is no part of it.

mod model;

use std::collections::HashMap;

use rayon::prelude::*;

use super::{Counted, Layout, count_all};
use crate::access::{DirHandle, Entry, EntryKind};
use crate::filesystem::Filesystem;
use crate::ledger::{LedgerBuilder, OwnerId, Users};
use crate::links::LooseLink;
use crate::problem::{Problem, ProblemKind};
use crate::safe::resolve;
use crate::scan::{FoundInStore, FoundModel, Scan, ScanError, Stray};
use crate::spec::{StoreKind, StoreSpec};
use crate::watch::Progress;

pub(super) struct Folder;

/// Directories below the root that are looked into for models.
const DEPTH: u32 = 6;

const MARKERS: [&str; 3] = ["config.json", "model_index.json", "adapter_config.json"];
const WEIGHTS: [&str; 11] =
    [".safetensors", ".gguf", ".npz", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".nemo", ".msgpack", ".h5"];
const COMPONENTS: [&str; 6] =
    ["transformer", "unet", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"];
/// Directories in a models' folder that hold no models: the original scripts' manifests, and mlxman's own.
const NOT_MODELS: [&str; 2] = ["manifests", crate::TRASH];

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
        let Found { models, strays, mut book, .. } = found;
        let links = std::mem::take(&mut book.links);
        let found = FoundInStore { models, strays, ledger: book.finish(), links, ..FoundInStore::default() };
        Ok(Scan::new(spec.clone(), filesystem, root, found))
    }
}

#[derive(Default)]
struct Found {
    models: Vec<FoundModel>,
    strays: Vec<Stray>,
    book: LedgerBuilder,
    /// Directories of the store that links in a model lead to, with the model that uses them.
    linked_dirs: Vec<LinkedDir>,
}

/// A directory of the store that a link in a model leads to.
struct LinkedDir {
    dir: String,
    user: OwnerId,
    link: LooseLink,
}

impl Found {
    fn merge(&mut self, mut other: Found) {
        let shift = self.book.merge(other.book);
        other.models.iter_mut().for_each(|model| model.owner += shift);
        other.strays.iter_mut().for_each(|stray| stray.owner = stray.owner.map(|owner| owner + shift));
        other.linked_dirs.iter_mut().for_each(|one| one.user += shift);
        self.linked_dirs.append(&mut other.linked_dirs);
        self.models.append(&mut other.models);
        self.strays.append(&mut other.strays);
    }

    /// Notes with each model the files that it uses through a link to their directory.
    fn note_linked_dirs(&mut self) {
        let mut uses: HashMap<OwnerId, Vec<String>> = HashMap::new();
        let mut links: HashMap<OwnerId, Vec<LooseLink>> = HashMap::new();
        for LinkedDir { dir, user, link } in std::mem::take(&mut self.linked_dirs) {
            let is_in =
                |path: &str| path.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'));
            let all = self.models.iter().flat_map(|model| model.files.iter().map(move |file| (model, file)));
            let (linked, own): (Vec<_>, Vec<_>) = all
                .filter(|(model, file)| is_in(&model.place_of(file)))
                .partition(|(_, file)| file.link.is_some());
            uses.entry(user).or_default().extend(own.into_iter().map(|(_, file)| file.real.clone()));
            // Links in it are no bytes that somebody could be named as a user of.
            if !linked.is_empty() {
                links.entry(user).or_default().push(link);
            }
        }
        for model in &mut self.models {
            model.uses = uses.remove(&model.owner).unwrap_or_default();
            model.links.extend(links.remove(&model.owner).unwrap_or_default());
        }
    }

    /// Books the models' files: each is free when its own model and all that link to it are gone.
    fn book_files(&mut self) {
        self.note_linked_dirs();
        let mut linked: HashMap<&str, Vec<OwnerId>> = HashMap::new();
        for model in &self.models {
            for path in &model.uses {
                linked.entry(path).or_default().push(model.owner);
            }
        }
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
                let mut owners: Vec<OwnerId> =
                    linked.get(file.real.as_str()).into_iter().flatten().copied().collect();
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
            self.count(dir, entry, &lossy, found);
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
        found.book.links.push(LooseLink::new(base, dir.read_link_raw(&entry.raw_name)));
        match resolve(&self.root_path, base, &target) {
            None => {
                found.stray(
                ProblemKind::LinkOutsideStore,
                &path,
                format!(
                    "it links to `{}`, outside the store; it was not followed (name its target as a store of its own)",
                    target.escape_debug()
                ),
            );
            }
            Some(inside) => match self.root.stat_below(&inside) {
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

    fn certain(&self, dir: &DirHandle, entry: &Entry) -> u64 {
        super::certain_of(self.asks_extents, dir, entry)
    }
}
