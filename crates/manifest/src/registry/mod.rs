//! The registry: a directory of manifests, and an index over them.
//!
//! ```text
//! <home>/manifests/<name>@<revision>-<hash>.manifest.json    one a model
//! <home>/index.json                                          made again when lost
//! <home>/hashes.json                                         BLAKE3 by device, inode, size and time; made again when lost
//! <home>/catalog/*.json                                      the user's own catalog entries
//! <home>/lock                                                held while the registry is written
//! <models>/manifests/<model>.manifest.json                   where a models' folder keeps its manifests itself
//! ```

mod across;
mod commit;
mod hashes;
mod index;
mod merge;
mod names;
mod observe;
mod sync;
mod whole_file;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlxman_store::{StoreKind, StoreSpec, is_safe_component, watch};
use serde_json::Value;

pub use commit::{store_record, unusable};
pub use index::{StoreProblem, StoreRecord};
pub use observe::{StoreSurvey, Survey, SurveyedModel};
pub use sync::{Change, Changed, SyncObserver, SyncOptions, SyncReport};

pub use whole_file::write as write_whole;

use crate::record::{AdapterKind, Comparison, Evidence, Manifest, UserLayer};
use crate::schema::{Form, Rejected, check_manifest};
use crate::summary::Summary;
use index::{Entry, Index, Stamp};

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
}

struct Loaded {
    entries: Vec<Entry>,
    stores: BTreeMap<String, StoreRecord>,
    unusable: Vec<(PathBuf, String)>,
    /// Whether the index on the disk differs from `entries`.
    stale: bool,
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

    /// Where a models' folder keeps its own manifests, if it does.
    fn folder_dir(spec: &StoreSpec) -> Option<PathBuf> {
        (spec.kind() == StoreKind::Folder).then(|| spec.root().join("manifests"))
    }

    /// What the registry holds. Reads the index, and of the manifests only those that changed since it was written.
    ///
    /// # Errors
    /// When its directory is there and cannot be read.
    pub fn contents(&self) -> Result<Contents, RegistryError> {
        let loaded = self.load(&[])?;
        let mut rows: Vec<Row> = loaded
            .entries
            .into_iter()
            .map(|entry| Row {
                path: self.path_of(&entry.file),
                summary: entry.summary,
                invalid: entry.invalid,
            })
            .collect();
        rows.sort_by_cached_key(|row| {
            (row.summary.model.to_lowercase(), row.summary.store.clone(), row.summary.key.clone())
        });
        Ok(Contents { rows, stores: loaded.stores, unusable: loaded.unusable })
    }

    /// The whole document at `path`, checked against its schema.
    ///
    /// # Errors
    /// When it cannot be read, or the schema rejects it.
    pub fn document(&self, path: &Path) -> Result<Value, RegistryError> {
        Ok(self.read_document(path)?.1)
    }

    fn read_document(&self, path: &Path) -> Result<(Form, Value), RegistryError> {
        let io = |source| RegistryError::Io { doing: "read the manifest", path: path.to_owned(), source };
        let file = std::fs::OpenOptions::new().read(true).open(path).map_err(io)?;
        parse(file).map_err(|source| RegistryError::Invalid { path: path.to_owned(), source })
    }

    /// Reads the index and brings it up to date with the manifest files. `specs` are stores whose own manifests are
    /// looked at although no sync has seen them yet.
    fn load(&self, specs: &[StoreSpec]) -> Result<Loaded, RegistryError> {
        let index = Index::read(&self.home.join("index.json"));
        let mut folders: Vec<(StoreSpec, PathBuf)> = index
            .stores
            .keys()
            .filter_map(|id| id.parse::<StoreSpec>().ok())
            .chain(specs.iter().cloned())
            .filter_map(|spec| Some((spec.clone(), Self::folder_dir(&spec)?)))
            .collect();
        folders.sort();
        folders.dedup();
        let own = stamps_in(&self.manifests_dir()).map_err(|source| RegistryError::Io {
            doing: "read the registry",
            path: self.manifests_dir(),
            source,
        })?;
        let mut stamps: HashMap<String, (Stamp, Option<StoreSpec>)> =
            own.into_iter().map(|(name, stamp)| (name, (stamp, None))).collect();
        // A folder may lie on a volume that does not answer: then what the index says of it is believed.
        let mut unanswered: Vec<PathBuf> = Vec::new();
        let jobs: Vec<PathBuf> = folders.iter().map(|(_, dir)| dir.clone()).collect();
        if !jobs.is_empty() {
            let answers = watch(jobs, FOLDER_PATIENCE, |dir, _| stamps_in(&dir));
            for ((spec, dir), answer) in folders.into_iter().zip(answers) {
                match answer {
                    Ok(Ok(found)) => stamps.extend(found.into_iter().map(|(name, stamp)| {
                        (dir.join(name).to_string_lossy().into_owned(), (stamp, Some(spec.clone())))
                    })),
                    _ => unanswered.push(dir),
                }
            }
        }
        let mut loaded = Loaded {
            entries: Vec::with_capacity(index.entries.len()),
            stores: index.stores,
            unusable: Vec::new(),
            stale: false,
        };
        for entry in index.entries {
            if unanswered.iter().any(|dir| Path::new(&entry.file).starts_with(dir)) {
                loaded.entries.push(entry);
                continue;
            }
            match stamps.remove(&entry.file) {
                Some((stamp, _)) if stamp == entry.stamp => loaded.entries.push(entry),
                Some((stamp, spec)) => {
                    loaded.stale = true;
                    let mut fresh = self.read_entry(&entry.file, stamp, spec.as_ref());
                    match &mut fresh {
                        Ok(fresh) => fresh.hashed = false,
                        // The store and key that the index remembers still say which model the file is about.
                        Err(why) => {
                            loaded.entries.push(Entry {
                                stamp,
                                invalid: Some(why.clone()),
                                fingerprint: String::new(),
                                ..entry
                            });
                            continue;
                        }
                    }
                    loaded.entries.extend(fresh);
                }
                None => loaded.stale = true,
            }
        }
        let mut rest: Vec<_> = stamps.into_iter().collect();
        rest.sort_by(|a, b| a.0.cmp(&b.0));
        for (file, (stamp, spec)) in rest {
            loaded.stale = true;
            match self.read_entry(&file, stamp, spec.as_ref()) {
                Ok(entry) => loaded.entries.push(entry),
                Err(why) => loaded.unusable.push((self.path_of(&file), why)),
            }
        }
        Ok(loaded)
    }

    fn read_entry(&self, file: &str, stamp: Stamp, spec: Option<&StoreSpec>) -> Result<Entry, String> {
        let path = self.path_of(file);
        let (form, document) = self.read_document(&path).map_err(|error| match error {
            RegistryError::Invalid { source, .. } => source.to_string(),
            other => other.to_string(),
        })?;
        let summary = match form {
            Form::Current => {
                let manifest: Manifest =
                    serde_json::from_value(document).map_err(|error| error.to_string())?;
                Summary::of(&manifest)
            }
            Form::Original => original_summary(&document, spec)?,
        };
        Ok(Entry {
            file: file.to_owned(),
            stamp,
            fingerprint: String::new(),
            weights: String::new(),
            hashed: false,
            invalid: None,
            summary,
        })
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
        let mut summaries = Vec::new();
        for row in rows {
            let (form, document) = self.read_document(&row.path)?;
            let invalid = |why: String| RegistryError::Invalid {
                path: row.path.clone(),
                source: Rejected { field: String::new(), why },
            };
            if form == Form::Original {
                return Err(invalid(
                    "it is one that the original scripts wrote; run mlxman sync first".to_owned(),
                ));
            }
            let mut manifest: Manifest =
                serde_json::from_value(document.clone()).map_err(|error| invalid(error.to_string()))?;
            let mut user = manifest.user.clone();
            change(&mut user);
            // Found tags that the user had taken away come back with the next sync, not here.
            let theirs = manifest.user.tags.clone();
            manifest.tags.retain(|tag| !theirs.contains(tag));
            merge::apply_user(&mut manifest, &user);
            let document = merge::merge_edited(&manifest, &document, &user)
                .map_err(|source| RegistryError::Override { source })?;
            self.write_document(&row.path, &document)?;
            summaries.push(Summary::of(&manifest));
        }
        Ok(summaries)
    }

    fn write_document(&self, path: &Path, document: &Value) -> Result<(), RegistryError> {
        let failed =
            |source| RegistryError::Io { doing: "write the manifest", path: path.to_owned(), source };
        let mut bytes =
            serde_json::to_vec_pretty(document).map_err(|error| failed(std::io::Error::other(error)))?;
        bytes.push(b'\n');
        whole_file::write(path, &bytes).map_err(failed)
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

/// Adds what a comparison said to a manifest.
fn compared(manifest: &mut Manifest, comparison: Comparison) {
    manifest.adapter.currently_fused = Some(!comparison.identical);
    if manifest.adapter.kind != AdapterKind::Adapter {
        manifest.adapter.kind = if comparison.identical { AdapterKind::None } else { AdapterKind::Fused };
    }
    let what = format!("tensors compared with {}", comparison.base);
    manifest
        .evidence
        .insert("adapter.kind".to_owned(), Evidence { file: "safetensors".to_owned(), key: Some(what) });
    manifest.adapter.base = Some(comparison.base.clone());
    manifest.adapter.comparison = Some(comparison);
}

fn stamps_in(dir: &Path) -> std::io::Result<Vec<(String, Stamp)>> {
    let entries = match fs_err::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.ends_with(".manifest.json")
            && !name.starts_with('.')
            && let Some(stamp) = entry.metadata().ok().as_ref().and_then(Stamp::from_metadata)
        {
            found.push((name, stamp));
        }
    }
    Ok(found)
}

/// What an original manifest says, as far as it can be believed before its store was read: its `model_path` is not.
fn original_summary(document: &Value, spec: Option<&StoreSpec>) -> Result<Summary, String> {
    let text = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
    let model = text("model").unwrap_or_default();
    if !is_safe_component(&model) {
        return Err(format!("model: `{}` is not a name", model.escape_debug()));
    }
    let storage = document.get("storage");
    let number =
        |key: &str| storage.and_then(|storage| storage.get(key)).and_then(Value::as_u64).unwrap_or(0);
    Ok(Summary {
        key: model.clone(),
        model,
        store: spec.map(StoreSpec::id).unwrap_or_default(),
        repo_id: text("source_id"),
        precision: text("precision"),
        quantization: text("quantization"),
        present: storage.and_then(|s| s.get("present")).and_then(Value::as_bool).unwrap_or(false),
        file_count: number("file_count"),
        size_bytes: number("size_bytes"),
        tags: document
            .get("tags")
            .and_then(Value::as_array)
            .map(|tags| tags.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default(),
        ..Summary::default()
    })
}
