//! The registry: a directory of manifests, and an index over them.
//!
//! ```text
//! <home>/manifests/<name>@<revision>-<hash>.manifest.json    one a model
//! <home>/index.json                                          made again when lost
//! <home>/hashes.json                                         BLAKE3 by device, inode, size and time; made again when lost
//! <home>/dedupe.json                                         the same of what `clean dedupe` has read
//! <home>/catalog/*.json                                      the user's own catalog entries
//! <home>/checks.json                                         which contents were found whole, and when
//! <home>/history.jsonl                                       what every verification found, a line each
//! <home>/uses.jsonl                                          when models were used, a line each
//! <home>/answers/*.answers.json                              answers that verifications recorded
//! <home>/behind/*                                            stores that are being changed, until a sync has seen them
//! <home>/lock                                                held while the registry is written
//! <models>/manifests/<model>.manifest.json                   where a models' folder keeps its manifests itself
//! <models>/manifests/.mlxman.lock                            held while those are written, by whatever registry
//! ```

mod across;
mod behind;
mod checks;
mod commit;
mod edit;
mod fusion;
mod hashes;
mod index;
mod load;
mod lost;
mod merge;
mod names;
mod observe;
mod original;
mod shelf;
mod sync;
mod uses;
mod verified;
mod whole_file;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlxman_store::StoreSpec;
use serde_json::Value;

pub use checks::{CHUNK, Check, Checks, HashKind, KnownHash, Marks};
pub use commit::{store_record, unusable};
pub use hashes::Hashes;
pub use index::{StoreProblem, StoreRecord};
pub use load::of_store as store_problem;
pub use observe::{StoreSurvey, Survey, SurveyedModel, files_stamp, scan_all};
pub use sync::{Change, Changed, SyncObserver, SyncOptions, SyncReport};

pub use whole_file::write as write_whole;

use crate::record::FileRecord;
use crate::schema::{Form, Rejected, check_manifest};
use crate::summary::Summary;
use fusion::compared;
use index::Stamp;
use load::{Asking, Away, Loaded, away_of, own_name};
use shelf::{Keeps, Shelf};

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

impl Registry {
    /// The registry at `home`, which need not exist yet.
    pub fn at(home: impl Into<PathBuf>) -> Self {
        Registry { home: home.into() }
    }

    /// Its directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The hashes that syncs have kept; none where they cannot be read.
    pub fn hashes(&self) -> Hashes {
        Hashes::read(&self.home.join("hashes.json"))
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
        uses::to_rows(&self.uses()?, &mut rows);
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
        // Nor does using it: the log has that.
        if let (Some((time, by)), Some(storage)) =
            (row.summary.last_used(), document.get_mut("storage").and_then(Value::as_object_mut))
            && let (Ok(time), Ok(by)) = (serde_json::to_value(time), serde_json::to_value(by))
        {
            storage.insert("last_used".to_owned(), time);
            storage.insert("last_used_by".to_owned(), by);
        }
        Ok(document)
    }

    /// The files of a model that lies in a store, with the hashes that are known of them as they are now. None where
    /// nothing is known.
    pub fn files_of(&self, model: &SurveyedModel) -> Vec<FileRecord> {
        let entry = match &model.state {
            observe::State::Fresh(fresh) => return fresh.manifest.storage.files.clone(),
            observe::State::Unchanged(entry) => entry,
            observe::State::Skipped(_) => return Vec::new(),
        };
        let document = self.read_document(&self.path_of(&entry.file));
        let files =
            document.ok().and_then(|(_, mut document)| Some(document.pointer_mut("/storage/files")?.take()));
        files.and_then(|files| serde_json::from_value(files).ok()).unwrap_or_default()
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
