//! Reading the registry: its index, brought up to date with the manifest files, and those that folders keep themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlxman_store::{Problem, ProblemKind, StoreKind, StoreSpec, is_safe_relative, watch};

use super::index::{Edited, Entry, Index, Stamp, StoreProblem, StoreRecord};
use super::shelf::{Keeps, Shelf, dir_in, look_at_folder};
use super::{FOLDER_PATIENCE, Folders, Registry, RegistryError, names, original};
use crate::record::Manifest;
use crate::schema::Form;
use crate::summary::Summary;

pub(super) struct Loaded {
    pub(super) entries: Vec<Entry>,
    pub(super) stores: BTreeMap<String, StoreRecord>,
    pub(super) unusable: Vec<(PathBuf, String)>,
    /// Whether the index on the disk differs from `entries`.
    pub(super) stale: bool,
    pub(super) folders: Folders,
    /// Models' folders that did not answer or are not there: nothing in them is touched.
    pub(super) away: Vec<Away>,
    pub(super) problems: Vec<StoreProblem>,
}

/// A models' folder that did not answer, or is not there.
pub(super) struct Away {
    pub(super) spec: StoreSpec,
    pub(super) kind: ProblemKind,
    pub(super) why: String,
}

/// Which models' folders are asked for manifests of their own, and how long.
#[derive(Default)]
pub(super) struct Asking<'a> {
    /// Stores that are looked at although no sync has seen them yet.
    pub(super) specs: &'a [StoreSpec],
    /// How long those may take.
    pub(super) limit: Duration,
    /// Stores that are known not to answer.
    pub(super) silent: &'a [StoreSpec],
}

impl Registry {
    /// Reads the index and brings it up to date with the manifest files.
    pub(super) fn load(&self, asking: &Asking<'_>) -> Result<Loaded, RegistryError> {
        let index = Index::read(&self.home.join("index.json"));
        let own = match Shelf::own(&self.manifests_dir()).and_then(|shelf| shelf.list()) {
            Ok(listed) => listed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => {
                let path = self.manifests_dir();
                return Err(RegistryError::Io { doing: "read the registry", path, source });
            }
        };
        let mut loaded = Loaded {
            entries: Vec::with_capacity(index.entries.len()),
            stores: index.stores,
            unusable: Vec::new(),
            stale: false,
            folders: Folders::new(),
            away: Vec::new(),
            problems: Vec::new(),
        };
        let mut listed: HashMap<String, (Result<Stamp, String>, Option<InFolder>)> =
            own.into_iter().map(|(name, stamp)| (name, (stamp, None))).collect();
        self.ask_folders(asking, &index.entries, &mut loaded, &mut listed);
        // Whose file was read again, so that its words count anew.
        let mut read_again: HashSet<String> = HashSet::new();
        for entry in index.entries {
            if away_of(&loaded.away, Path::new(&entry.file)).is_some() {
                loaded.entries.push(entry);
                continue;
            }
            let Some((stamp, folder)) = listed.remove(&entry.file) else {
                let unusable = matches!(loaded.folders.get(&entry.summary.store), Some(Keeps::Unusable(_)));
                if unusable && !self.is_own(&self.path_of(&entry.file)) {
                    // Its pin is remembered.
                    loaded.entries.push(entry);
                } else {
                    loaded.stale = true;
                }
                continue;
            };
            if stamp.as_ref() == Ok(&entry.stamp) {
                loaded.entries.push(entry);
                continue;
            }
            loaded.stale = true;
            read_again.insert(entry.file.clone());
            let edited = Some(Edited { tags: entry.written_tags().map(<[String]>::to_vec) });
            loaded.entries.push(match self.read_entry(&entry.file, stamp.clone(), folder.as_ref()) {
                Ok(fresh) => Entry { weights: entry.weights, edited, ..fresh },
                // The store and key that the index remembers still say which model the file is about.
                Err(why) => Entry {
                    stamp: stamp.unwrap_or_default(),
                    invalid: Some(why),
                    fingerprint: String::new(),
                    edited,
                    ..entry
                },
            });
        }
        let mut rest: Vec<_> = listed.into_iter().collect();
        rest.sort_by(|a, b| a.0.cmp(&b.0));
        for (file, (stamp, folder)) in rest {
            match self.read_entry(&file, stamp, folder.as_ref()) {
                Ok(entry) => {
                    loaded.stale = true;
                    read_again.insert(entry.file.clone());
                    loaded.entries.push(Entry { edited: Some(Edited::default()), ..entry });
                }
                Err(why) => loaded.unusable.push((self.path_of(&file), why)),
            }
        }
        self.one_for_each_model(&mut loaded, &read_again);
        Ok(loaded)
    }

    /// Asks models' folders for manifests of their own, each in a thread that is left behind should its volume not
    /// answer.
    pub(super) fn ask_folders(
        &self,
        asking: &Asking<'_>,
        entries: &[Entry],
        loaded: &mut Loaded,
        listed: &mut HashMap<String, (Result<Stamp, String>, Option<InFolder>)>,
    ) {
        let is_folder = |spec: &StoreSpec| spec.kind() == StoreKind::Folder;
        let asked: BTreeSet<StoreSpec> =
            asking.specs.iter().filter(|spec| is_folder(spec)).cloned().collect();
        let remembered: BTreeSet<StoreSpec> = loaded
            .stores
            .keys()
            .filter_map(|id| id.parse::<StoreSpec>().ok())
            .filter(|spec| is_folder(spec) && !asked.contains(spec))
            .collect();
        let mut answers = Vec::new();
        for (specs, limit) in [(asked, asking.limit), (remembered, FOLDER_PATIENCE)] {
            let (silent, specs): (Vec<StoreSpec>, Vec<StoreSpec>) =
                specs.into_iter().partition(|spec| asking.silent.contains(spec));
            answers.extend(silent.into_iter().map(|spec| (spec, None)));
            if specs.is_empty() {
                continue;
            }
            let results = watch(specs.clone(), limit, |spec: StoreSpec, _| {
                let spec = spec.canonical();
                let folder = look_at_folder(spec.root());
                (spec, folder)
            });
            answers.extend(specs.into_iter().zip(results).map(|(spec, result)| match result {
                Ok((canonical, folder)) => (canonical, Some(folder)),
                Err(_) => (spec, None),
            }));
        }
        for (spec, folder) in answers {
            let id = spec.id();
            if loaded.folders.contains_key(&id) || loaded.away.iter().any(|away| away.spec == spec) {
                continue;
            }
            let dir = dir_in(spec.root());
            let place = |name: &str| dir.join(name).to_string_lossy().into_owned();
            let of_it: Vec<&Entry> =
                entries.iter().filter(|entry| Path::new(&entry.file).parent() == Some(&dir)).collect();
            let Some(folder) = folder else {
                let why = format!("the store {id} does not answer; what is shown of it is remembered");
                loaded.away.push(Away { spec, kind: ProblemKind::StoreTooSlow, why });
                continue;
            };
            let root_before = loaded.stores.get(&id).and_then(|record| record.root);
            let is_other = root_before.is_some() && folder.root != root_before;
            let known = |name: &str| of_it.iter().any(|entry| entry.file == place(name));
            if !of_it.is_empty()
                && (folder.root.is_none() || is_other && !folder.listed.iter().any(|(name, _)| known(name)))
            {
                let why = format!(
                    "the store {id} is not there; is its volume mounted? What is shown of it is remembered"
                );
                loaded.away.push(Away { spec, kind: ProblemKind::StoreUnavailable, why });
                continue;
            }
            let elsewhere = |why: String| of_store(&spec, ProblemKind::ManifestsElsewhere, &why);
            match &folder.keeps {
                Keeps::Nothing | Keeps::Manifests => {}
                Keeps::ReadOnly => {
                    let why =
                        format!("{} cannot be written: what is new goes to the registry", dir.display());
                    let mut problem = elsewhere(why);
                    problem.problem.severity = mlxman_store::Severity::Info;
                    loaded.problems.push(problem);
                }
                Keeps::Unusable(why) => loaded.problems.push(elsewhere(format!(
                    "{} is not used: {why}; its manifests go to the registry",
                    dir.display()
                ))),
            }
            let shared = InFolder { id: id.clone(), names: folder.names.into() };
            for (name, stamp) in folder.listed {
                listed.insert(place(&name), (stamp, Some(shared.clone())));
            }
            loaded.folders.insert(id, folder.keeps);
        }
    }

    /// Of several manifests of one model one stands for it: the one with the very name, in the folder where that can be
    /// written, else in the registry. What the user said in another counts all the same.
    pub(super) fn one_for_each_model(&self, loaded: &mut Loaded, read_again: &HashSet<String>) {
        let mut by_model: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
        for (at, entry) in loaded.entries.iter().enumerate() {
            by_model.entry((&entry.summary.store, &entry.summary.key)).or_default().push(at);
        }
        let several: Vec<Vec<usize>> = by_model.into_values().filter(|places| places.len() > 1).collect();
        for mut places in several {
            places.sort_by_key(|&at| {
                let entry = &loaded.entries[at];
                let path = self.path_of(&entry.file);
                let writable = loaded.folders.get(&entry.summary.store) == Some(&Keeps::Manifests);
                let is_named =
                    path.file_name().and_then(OsStr::to_str) == Some(&names::in_folder(&entry.summary.key));
                (self.is_own(&path) == writable, !self.is_own(&path) && !is_named, entry.file.clone())
            });
            let (first, others) = (places[0], &places[1..]);
            for &at in others {
                let other = &mut loaded.entries[at];
                other.shadowed = true;
                let (file, pinned) = (other.file.clone(), other.summary.pinned);
                let main = &mut loaded.entries[first];
                main.summary.pinned |= pinned;
                if read_again.contains(&file) {
                    main.fingerprint = String::new();
                    loaded.stale = true;
                }
                main.also.push(file);
            }
        }
    }

    pub(super) fn read_entry(
        &self,
        file: &str,
        stamp: Result<Stamp, String>,
        folder: Option<&InFolder>,
    ) -> Result<Entry, String> {
        let path = self.path_of(file);
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let stamp = stamp?;
        let (form, document) = self.read_document(&path).map_err(|error| match error {
            RegistryError::Invalid { source, .. } => source.to_string(),
            RegistryError::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        })?;
        let summary = match (form, folder) {
            (Form::Original, Some(folder)) => {
                let summary = original::summary(&document, &folder.id, &folder.names)?;
                if name != format!("{}.manifest.json", summary.model) {
                    return Err(format!(
                        "its name is not that of the manifest of {}: it is a copy",
                        summary.model
                    ));
                }
                summary
            }
            (Form::Original, None) => {
                return Err(
                    "it is one that the original scripts wrote, and does not say of which store; it belongs \
                            into the `manifests` of a models' folder"
                        .to_owned(),
                );
            }
            (Form::Current, folder) => {
                let manifest: Manifest =
                    serde_json::from_value(document).map_err(|error| error.to_string())?;
                let mut summary = Summary::of(&manifest);
                let key = &summary.key;
                if !key.is_empty() && !is_safe_relative(key) {
                    return Err(format!("key: `{}` is no place in a store", key.escape_debug()));
                }
                let fits = match folder {
                    // Its folder may lie elsewhere than when it was written.
                    Some(folder) => {
                        summary.store.clone_from(&folder.id);
                        names::in_folder(&summary.key) == name || original::had_name(&manifest, name)
                    }
                    None => names::fits_in_registry(name, &summary.store, key),
                };
                if !fits {
                    return Err(format!(
                        "its name is not that of the manifest of {} in {}: it is a copy, or was renamed",
                        summary.key.escape_debug(),
                        summary.store.escape_debug()
                    ));
                }
                summary
            }
        };
        Ok(Entry::new(file, stamp, summary))
    }
}

/// The models' folder in which a manifest lies.
#[derive(Clone)]
pub(super) struct InFolder {
    pub(super) id: String,
    /// Names in the folder, where there is a manifest at all.
    pub(super) names: std::sync::Arc<[String]>,
}

impl Away {
    pub(super) fn problem(&self) -> StoreProblem {
        of_store(&self.spec, self.kind, &self.why)
    }
}

pub(super) fn away_of<'a>(away: &'a [Away], file: &Path) -> Option<&'a str> {
    let dir = file.parent()?;
    let found = away.iter().find(|away| dir == dir_in(away.spec.root()));
    found.map(|away| away.why.as_str())
}

/// The name in the registry's own directory.
pub(super) fn own_name(summary: &Summary) -> String {
    let name = summary.repo_id.as_deref().unwrap_or(&summary.model).replace('/', "--");
    names::in_registry(&summary.store, &summary.key, &name, summary.revision.as_deref())
}

/// Something about a store as a whole.
pub fn of_store(spec: &StoreSpec, kind: ProblemKind, message: &str) -> StoreProblem {
    StoreProblem {
        store: spec.id(),
        problem: Problem::new(kind, None, message),
        repo_id: None,
        size_bytes: 0,
        reclaimable_bytes: 0,
        reclaimable_at_least: false,
        last_modified: None,
    }
}
