//! The registry: a directory of manifests, and an index over them.
//!
//! ```text
//! <home>/manifests/<name>@<revision>-<hash>.manifest.json    one a model
//! <home>/index.json                                          made again when lost
//! <home>/hashes.json                                         BLAKE3 by device, inode, size and time; made again when lost
//! <home>/catalog/*.json                                      the user's own catalog entries
//! <home>/lock                                                held while the registry is written
//! <models>/manifests/<model>.manifest.json                   where a models' folder keeps its manifests itself
//! <models>/manifests/.mlxman.lock                            held while those are written, by whatever registry
//! ```

mod across;
mod commit;
mod hashes;
mod index;
mod merge;
mod names;
mod observe;
mod original;
mod shelf;
mod sync;
mod whole_file;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlxman_store::{Problem, ProblemKind, StoreKind, StoreSpec, is_safe_relative, watch};
use serde_json::Value;

pub use commit::{store_record, unusable};
pub use index::{StoreProblem, StoreRecord};
pub use observe::{StoreSurvey, Survey, SurveyedModel};
pub use sync::{Change, Changed, SyncObserver, SyncOptions, SyncReport};

pub use whole_file::write as write_whole;

use crate::record::{AdapterKind, Comparison, Evidence, Manifest, UserLayer};
use crate::schema::{Form, Rejected, check_manifest};
use crate::summary::Summary;
use index::{Edited, Entry, Index, Stamp};
use shelf::{Keeps, Shelf, dir_in, look_at_folder};

/// A manifest larger than this is not read.
const MANIFEST_LIMIT: u64 = 64 << 20;

/// How long listing waits for a models' folder that keeps its own manifests, before the index is believed.
const FOLDER_PATIENCE: Duration = Duration::from_secs(2);

/// What went wrong with the registry itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The system said no.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A manifest is not one.
    #[error("the manifest {} cannot be used: {source}; it was left as it is: mend it, or move it away and sync again", .path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Which field, and why.
        source: Rejected,
    },
    /// A value that the user set makes no valid record.
    #[error("{source}")]
    Override {
        /// Which field, and why.
        source: Rejected,
    },
}

/// The directory of manifests.
#[derive(Debug, Clone)]
pub struct Registry {
    home: PathBuf,
}

/// One manifest, as the index knows it.
#[derive(Debug, Clone)]
pub struct Row {
    /// What tables and filters need.
    pub summary: Summary,
    /// Where the manifest lies.
    pub path: PathBuf,
    /// Why the manifest could not be used, if so; then `summary` is what is known otherwise.
    pub invalid: Option<String>,
    /// Why the manifest cannot be read now, where it lies in a models' folder whose volume is away or does not answer:
    /// it is not touched, and `summary` is what is remembered.
    pub away: Option<String>,
    /// Where a change of it goes: elsewhere where its own place cannot be written.
    target: PathBuf,
    /// Further manifests of the same model.
    also: Vec<PathBuf>,
}

/// The registry's content.
#[derive(Debug, Default)]
pub struct Contents {
    /// The manifests, sorted by model and store.
    pub rows: Vec<Row>,
    /// What the last sync found in each store, by `KIND=PATH`.
    pub stores: BTreeMap<String, StoreRecord>,
    /// Manifests that could not be used and of which nothing else is known.
    pub unusable: Vec<(PathBuf, String)>,
    /// Models' folders that did not answer, or whose own manifests are not used.
    pub problems: Vec<StoreProblem>,
}

impl Contents {
    /// Whether a store's root is another directory than at the last sync, and nothing of what was known there is in
    /// it, as where a volume is not mounted.
    pub fn is_replaced(&self, scan: &mlxman_store::Scan) -> bool {
        let id = scan.spec.id();
        let known: HashSet<&str> = self
            .rows
            .iter()
            .filter(|row| row.summary.store == id && row.summary.present)
            .map(|row| row.summary.key.as_str())
            .collect();
        observe::is_replaced(scan, self.stores.get(&id), &known)
    }

    /// Why such a store is not read.
    pub fn replaced(spec: &StoreSpec) -> mlxman_store::ScanError {
        observe::replaced(spec)
    }
}

/// What is known of the stores that are models' folders, by `KIND=PATH`.
type Folders = HashMap<String, Keeps>;

struct Loaded {
    entries: Vec<Entry>,
    stores: BTreeMap<String, StoreRecord>,
    unusable: Vec<(PathBuf, String)>,
    /// Whether the index on the disk differs from `entries`.
    stale: bool,
    folders: Folders,
    /// Models' folders that did not answer or are not there: nothing in them is touched.
    away: Vec<Away>,
    problems: Vec<StoreProblem>,
}

/// A models' folder that did not answer, or is not there.
struct Away {
    spec: StoreSpec,
    kind: ProblemKind,
    why: String,
}

/// Which models' folders are asked for manifests of their own, and how long.
#[derive(Default)]
struct Asking<'a> {
    /// Stores that are looked at although no sync has seen them yet.
    specs: &'a [StoreSpec],
    /// How long those may take.
    limit: Duration,
    /// Stores that are known not to answer.
    silent: &'a [StoreSpec],
}

impl Registry {
    /// The registry at `home`, which need not exist yet.
    pub fn at(home: impl Into<PathBuf>) -> Self {
        Registry { home: home.into() }
    }

    /// Its directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Where the user's own catalog entries lie.
    pub fn catalog_dir(&self) -> PathBuf {
        self.home.join("catalog")
    }

    fn manifests_dir(&self) -> PathBuf {
        self.home.join("manifests")
    }

    fn path_of(&self, file: &str) -> PathBuf {
        // An absolute path replaces what it is joined to.
        self.manifests_dir().join(file)
    }

    /// What the registry holds. Reads the index, and of the manifests only those that changed since it was written.
    /// `specs` are stores whose own manifests are found although the index does not know of them. No volume of a
    /// store is touched but to see whether a models' folder keeps manifests of its own, and that with a time limit.
    ///
    /// # Errors
    /// When its directory is there and cannot be read.
    pub fn contents(&self, specs: &[StoreSpec]) -> Result<Contents, RegistryError> {
        let loaded = self.load(&Asking { specs, limit: FOLDER_PATIENCE, silent: &[] })?;
        let Loaded { entries, stores, unusable, folders, away, mut problems, .. } = loaded;
        problems.extend(away.iter().map(Away::problem));
        let mut rows: Vec<Row> = entries
            .into_iter()
            .filter(|entry| !entry.shadowed)
            .map(|entry| {
                let path = self.path_of(&entry.file);
                let target = match folders.get(&entry.summary.store) {
                    Some(Keeps::ReadOnly) if !self.is_own(&path) => self.path_of(&own_name(&entry.summary)),
                    _ => path.clone(),
                };
                Row {
                    away: away_of(&away, &path).map(str::to_owned),
                    also: entry.also.iter().map(|file| self.path_of(file)).collect(),
                    target,
                    path,
                    summary: entry.summary,
                    invalid: entry.invalid,
                }
            })
            .collect();
        rows.sort_by_cached_key(|row| {
            (row.summary.model.to_lowercase(), row.summary.store.clone(), row.summary.key.clone())
        });
        Ok(Contents { rows, stores, unusable, problems })
    }

    /// The whole document of a row, checked against its schema. One that the original scripts wrote is given the
    /// record's own form.
    ///
    /// # Errors
    /// When it cannot be read, or the schema rejects it.
    pub fn document(&self, row: &Row) -> Result<Value, RegistryError> {
        if let Some(why) = &row.away {
            return Err(RegistryError::Io {
                doing: "read the manifest",
                path: row.path.clone(),
                source: std::io::Error::other(why.clone()),
            });
        }
        let mut document = if row.also.is_empty() {
            self.read_upgraded(&row.path, &row.summary)?
        } else {
            // What another manifest of the same model says counts before a sync has put them together.
            self.edited(&row.path, row, &self.other_words(row, &row.path), &mut |_| {})?.0
        };
        // Reading a model changes no manifest; when it was used stands in the index.
        if let (Some(used), Some(storage)) =
            (row.summary.used, document.get_mut("storage").and_then(Value::as_object_mut))
            && storage.contains_key("last_accessed")
            && let Ok(used) = serde_json::to_value(used)
        {
            storage.insert("last_accessed".to_owned(), used);
        }
        Ok(document)
    }

    fn read_upgraded(&self, path: &Path, summary: &Summary) -> Result<Value, RegistryError> {
        match self.read_document(path)? {
            (Form::Current, mut document) => {
                // A volume may be mounted elsewhere than when its manifests were written.
                if document.get("store").and_then(Value::as_str) != Some(&summary.store)
                    && let Ok(spec) = summary.store.parse::<StoreSpec>()
                {
                    document["store"] = Value::from(summary.store.as_str());
                    document["model_path"] = Value::from(spec.root().join(&summary.key).to_string_lossy());
                }
                Ok(document)
            }
            (Form::Original, document) => original::upgraded(&document, summary)
                .map_err(|source| RegistryError::Invalid { path: path.to_owned(), source }),
        }
    }

    fn is_own(&self, path: &Path) -> bool {
        path.parent() == Some(self.manifests_dir().as_path())
    }

    /// The directory in which a manifest lies, open, and its name there.
    fn shelf<'a>(&self, path: &'a Path) -> std::io::Result<(Shelf, &'a OsStr)> {
        Shelf::of(path, &self.manifests_dir())
    }

    fn stamp_of(&self, path: &Path) -> Option<Stamp> {
        let (shelf, name) = self.shelf(path).ok()?;
        shelf.stamp(name)
    }

    fn read_document(&self, path: &Path) -> Result<(Form, Value), RegistryError> {
        let io = |source| RegistryError::Io { doing: "read the manifest", path: path.to_owned(), source };
        let file = self.shelf(path).and_then(|(shelf, name)| shelf.open(name)).map_err(io)?;
        parse(file).map_err(|source| RegistryError::Invalid { path: path.to_owned(), source })
    }

    /// Reads the index and brings it up to date with the manifest files.
    fn load(&self, asking: &Asking<'_>) -> Result<Loaded, RegistryError> {
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
    fn ask_folders(
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
    fn one_for_each_model(&self, loaded: &mut Loaded, read_again: &HashSet<String>) {
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

    fn read_entry(
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

    /// Changes what the user said of the models of `rows`, and gives their new summaries.
    ///
    /// # Errors
    /// When a manifest cannot be read or written; those before it are changed.
    pub fn edit_user(
        &self,
        rows: &[Row],
        mut change: impl FnMut(&mut UserLayer),
    ) -> Result<Vec<Summary>, RegistryError> {
        let _lock = self.lock(&|| {})?;
        if let Some((row, why)) = rows.iter().find_map(|row| Some((row, row.away.as_ref()?))) {
            return Err(RegistryError::Io {
                doing: "change the manifest",
                path: row.path.clone(),
                source: std::io::Error::other(why.clone()),
            });
        }
        let touched = rows.iter().flat_map(|row| row.also.iter().chain([&row.target]));
        let _locks = self.lock_folders(touched, &|| {});
        let mut summaries = Vec::new();
        for row in rows {
            // Under the lock, for another process may just have written there.
            let from = if self.stamp_of(&row.target).is_some() { &row.target } else { &row.path };
            let others = self.other_words(row, from);
            let (document, summary, user) = self.edited(from, row, &others, &mut change)?;
            self.write_document(&row.target, &document)?;
            for (path, words) in &others {
                // What another manifest of the same model still says must not speak against it.
                let mut together = user.clone();
                merge::add_words(&mut together, words.clone());
                if together != user {
                    let (document, ..) = self.edited(path, row, &[], &mut change)?;
                    self.write_document(path, &document)?;
                }
            }
            summaries.push(summary);
        }
        Ok(summaries)
    }

    fn edited(
        &self,
        path: &Path,
        row: &Row,
        others: &[(&PathBuf, UserLayer)],
        change: &mut impl FnMut(&mut UserLayer),
    ) -> Result<(Value, Summary, UserLayer), RegistryError> {
        let document = self.read_upgraded(path, &row.summary)?;
        let mut manifest: Manifest =
            serde_json::from_value(document.clone()).map_err(|error| RegistryError::Invalid {
                path: path.to_owned(),
                source: Rejected { field: String::new(), why: error.to_string() },
            })?;
        let theirs = manifest.user.tags.clone();
        let mut user = merge::words_of(Form::Current, &document);
        others.iter().for_each(|(_, more)| merge::add_words(&mut user, more.clone()));
        change(&mut user);
        // Found tags that the user had taken away come back with the next sync, not here.
        manifest.tags.retain(|tag| !theirs.contains(tag));
        merge::apply_user(&mut manifest, &user);
        let document = merge::merge_edited(&manifest, &document, &user)
            .map_err(|source| RegistryError::Override { source })?;
        let summary = Summary { store: row.summary.store.clone(), ..Summary::of(&manifest) };
        Ok((document, summary, user))
    }

    /// What the user said in other manifests of a row's model than the one at `path`.
    fn other_words<'a>(&self, row: &'a Row, path: &Path) -> Vec<(&'a PathBuf, UserLayer)> {
        let others = row.also.iter().filter(|other| *other != path);
        others.filter_map(|other| Some((other, self.words_at(other)?))).collect()
    }

    /// What the user said in a further manifest of a model.
    fn words_at(&self, path: &Path) -> Option<UserLayer> {
        let (form, document) = self.read_document(path).ok()?;
        Some(merge::words_of(form, &document))
    }

    fn write_document(&self, path: &Path, document: &Value) -> Result<(), RegistryError> {
        let failed =
            |source| RegistryError::Io { doing: "write the manifest", path: path.to_owned(), source };
        let mut bytes =
            serde_json::to_vec_pretty(document).map_err(|error| failed(std::io::Error::other(error)))?;
        bytes.push(b'\n');
        self.shelf(path).and_then(|(shelf, name)| shelf.write(name, &bytes)).map_err(failed)
    }

    /// Takes the locks of the models' folders among the places of `paths`, in their order, so that two processes never
    /// wait for each other.
    fn lock_folders<'a>(
        &self,
        paths: impl Iterator<Item = &'a PathBuf>,
        waiting: &dyn Fn(),
    ) -> Vec<std::fs::File> {
        let dirs: BTreeSet<&Path> =
            paths.filter(|path| !self.is_own(path)).filter_map(|path| path.parent()).collect();
        dirs.into_iter().filter_map(|dir| Shelf::in_folder(dir.parent()?).ok()?.lock(waiting).ok()?).collect()
    }

    /// Takes the registry's lock; `waiting` is called once when somebody else holds it.
    fn lock(&self, waiting: &dyn Fn()) -> Result<std::fs::File, RegistryError> {
        let path = self.home.join("lock");
        let failed = |source| RegistryError::Io { doing: "lock the registry", path: path.clone(), source };
        fs_err::create_dir_all(self.manifests_dir()).map_err(failed)?;
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(failed)?;
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        whole_file::sweep(&self.home);
        whole_file::sweep(&self.manifests_dir());
        Ok(file)
    }
}

/// Reads a manifest, this program's or the original scripts', and checks it against its schema.
///
/// # Errors
/// Which field is not as it must be, and why.
pub fn parse(reader: impl std::io::Read) -> Result<(Form, Value), Rejected> {
    let value: Value = crate::formats::json::read_json(reader, MANIFEST_LIMIT).map_err(|error| {
        let why = match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        Rejected { field: String::new(), why }
    })?;
    let form = check_manifest(&value)?;
    Ok((form, value))
}

/// Adds what a comparison said to a manifest. That a model is not its base says nothing of an adapter: most models with
/// a base were trained further. One was fused in where one lies there that was made for the base, or where what
/// differs is what a LoRA changes, and nothing else.
fn compared(manifest: &mut Manifest, comparison: Comparison) {
    let adapter = &mut manifest.adapter;
    let what = format!("tensors compared with {}", comparison.base);
    let evidence = Evidence { file: "safetensors".to_owned(), key: Some(what) };
    // A beside one is noted as `Unknown` only where it is for the same base.
    let one_is_there = !adapter.found_inside.is_empty()
        || adapter.kind == AdapterKind::Unknown && !adapter.found_beside.is_empty();
    let some_differ = (1..comparison.compared_tensors).contains(&comparison.differing_tensors);
    let settled = if adapter.kind == AdapterKind::Adapter {
        None
    } else if comparison.identical {
        Some((AdapterKind::None, false))
    } else if some_differ && (one_is_there || is_what_a_lora_changes(&comparison)) {
        Some((AdapterKind::Fused, true))
    } else {
        None
    };
    if let Some((kind, fused)) = settled {
        adapter.kind = kind;
        adapter.currently_fused = Some(fused);
        adapter.base = Some(comparison.base.clone());
        for field in ["adapter.kind", "adapter.currently_fused"] {
            manifest.evidence.insert(field.to_owned(), evidence.clone());
        }
    }
    manifest.evidence.insert("adapter.comparison".to_owned(), evidence);
    manifest.adapter.comparison = Some(comparison);
}

/// Whether less than half of the tensors differ, and those are projections of attention and MLP alone: training
/// changes norms and embeddings too.
fn is_what_a_lora_changes(comparison: &Comparison) -> bool {
    const PROJECTIONS: [&str; 27] = [
        "wq",
        "wk",
        "wv",
        "wo",
        "w1",
        "w2",
        "w3",
        "wqkv",
        "to_q",
        "to_k",
        "to_v",
        "to_out",
        "query",
        "key",
        "value",
        "dense",
        "query_key_value",
        "dense_h_to_4h",
        "dense_4h_to_h",
        "c_attn",
        "c_fc",
        "fc1",
        "fc2",
        "qkv",
        "linear",
        "linear1",
        "linear2",
    ];
    comparison.unmatched_tensors == 0
        && !comparison.modules.is_empty()
        && comparison.differing_tensors < comparison.compared_tensors.div_ceil(2)
        && comparison.modules.iter().all(|module| {
            let last = module.rsplit('.').next().unwrap_or(module);
            last.ends_with("_proj") || PROJECTIONS.contains(&last)
        })
}

/// The models' folder in which a manifest lies.
#[derive(Clone)]
struct InFolder {
    id: String,
    /// Names in the folder, where there is a manifest at all.
    names: std::sync::Arc<[String]>,
}

impl Away {
    fn problem(&self) -> StoreProblem {
        of_store(&self.spec, self.kind, &self.why)
    }
}

fn away_of<'a>(away: &'a [Away], file: &Path) -> Option<&'a str> {
    let dir = file.parent()?;
    let found = away.iter().find(|away| dir == dir_in(away.spec.root()));
    found.map(|away| away.why.as_str())
}

/// The name in the registry's own directory.
fn own_name(summary: &Summary) -> String {
    let name = summary.repo_id.as_deref().unwrap_or(&summary.model).replace('/', "--");
    names::in_registry(&summary.store, &summary.key, &name, summary.revision.as_deref())
}

fn of_store(spec: &StoreSpec, kind: ProblemKind, message: &str) -> StoreProblem {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Adapter;

    fn manifest(adapter: Adapter) -> Manifest {
        let summary = Summary { model: "m".to_owned(), store: "hub=/x".to_owned(), ..Summary::default() };
        let original = serde_json::json!({"model": "m", "storage": {"present": true}});
        let document = original::upgraded(&original, &summary).unwrap();
        Manifest { adapter, ..serde_json::from_value(document).unwrap() }
    }

    fn with(adapter: Adapter, differing: u64, modules: &[&str], identical: bool) -> Adapter {
        let mut manifest = manifest(adapter);
        let comparison = Comparison {
            base: "acme/base".to_owned(),
            base_revision: None,
            identical,
            summary: String::new(),
            differing_tensors: differing,
            compared_tensors: 100,
            unmatched_tensors: 0,
            modules: modules.iter().map(|name| (*name).to_owned()).collect(),
            layers: Vec::new(),
        };
        compared(&mut manifest, comparison);
        assert!(manifest.adapter.comparison.is_some());
        let told = manifest.evidence.get("adapter.currently_fused").is_some_and(|e| e.file == "safetensors");
        assert_eq!(manifest.adapter.currently_fused.is_some(), told);
        manifest.adapter
    }

    #[test]
    fn what_differs_from_its_base_is_not_therefore_fused() {
        let none = Adapter::default;
        let verdict = |adapter: Adapter| (adapter.kind, adapter.currently_fused);
        // An instruct model of the base.
        let all = ["q_proj", "down_proj", "input_layernorm", "embed_tokens"];
        assert_eq!(verdict(with(none(), 100, &all, false)), (AdapterKind::None, None));
        assert_eq!(with(none(), 100, &all, false).base, None);
        assert_eq!(verdict(with(none(), 30, &all, false)), (AdapterKind::None, None));
        // What a LoRA changes.
        let lora = ["q_proj", "experts.up_proj", "attn.to_out"];
        assert_eq!(verdict(with(none(), 30, &lora, false)), (AdapterKind::Fused, Some(true)));
        assert_eq!(verdict(with(none(), 50, &lora, false)), (AdapterKind::None, None));
        assert_eq!(verdict(with(none(), 0, &[], true)), (AdapterKind::None, Some(false)));
        // One lies there.
        let beside = Adapter {
            kind: AdapterKind::Unknown,
            found_beside: vec!["lora".to_owned()],
            ..Adapter::default()
        };
        assert_eq!(verdict(with(beside.clone(), 70, &lora, false)), (AdapterKind::Fused, Some(true)));
        assert_eq!(verdict(with(beside.clone(), 100, &all, false)), (AdapterKind::Unknown, None));
        assert_eq!(verdict(with(beside, 0, &[], true)), (AdapterKind::None, Some(false)));
        let inside = Adapter { found_inside: vec!["lora".to_owned()], ..Adapter::default() };
        assert_eq!(verdict(with(inside, 70, &lora, false)), (AdapterKind::Fused, Some(true)));
        // An adapter is none of this.
        let adapter = Adapter { kind: AdapterKind::Adapter, ..Adapter::default() };
        assert_eq!(verdict(with(adapter, 30, &lora, false)), (AdapterKind::Adapter, None));
    }
}
