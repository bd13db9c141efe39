//! Bringing the registry up to date with the stores.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use chrono::{DateTime, Utc};
use mlxman_store::{Late, ProblemKind, Scan, ScanError, StoreSpec};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::across::{Across, Beside, adapters_beside, look_again, one_short_name_each, sources_by_commit};
use super::hashes::{Hashes, Job, hash};
use super::index::{Entry, StoreProblem, StoreRecord};
use super::lost::{is_gone, lost_of, walk_again};
use super::observe::{
    Fresh, Looking, Observed, State, Work, assemble, is_replaced, look, replaced, scan_all,
};
use super::shelf::{Keeps, dir_in};
use super::{
    Asking, Folders, Registry, RegistryError, StoreSurvey, Survey, SurveyedModel, compared, merge, names,
    own_name,
};
use crate::catalog::Catalog;
use crate::record::{AdapterKind, Evidence, Manifest, UserLayer};
use crate::schema::Form;
use crate::summary::Summary;
use crate::threads::side_by_side;

/// How a sync is to go.
#[derive(Debug, Clone)]
pub struct SyncOptions {
    /// Open no weight beyond its header: no hashes are computed, and no tensors compared. Known ones are kept.
    pub fast: bool,
    /// Write nothing.
    pub dry_run: bool,
    /// Only models that answer to one of these names; all where empty.
    pub only: Vec<String>,
    /// Values to set for the models named in `only`, by field.
    pub overrides: BTreeMap<String, Value>,
    /// Notes to set for the models named in `only`.
    pub notes: Option<String>,
    /// How long a store may go without an answer.
    pub store_limit: Duration,
    /// Stores that were asked already and did not answer: they are not touched again.
    pub silent: Vec<StoreSpec>,
    /// Take a store whose root is another directory than before for what it is now, although nothing of what was known
    /// is in it: those models count as gone.
    pub accept_replaced: bool,
    /// The time now.
    pub now: DateTime<Utc>,
}

impl SyncOptions {
    /// A fast sync of everything.
    pub fn fast(now: DateTime<Utc>) -> Self {
        SyncOptions {
            fast: true,
            dry_run: false,
            only: Vec::new(),
            overrides: BTreeMap::new(),
            notes: None,
            store_limit: Duration::from_secs(10),
            silent: Vec::new(),
            accept_replaced: false,
            now,
        }
    }
}

/// What a sync tells while it works; all of it may come from other threads.
pub trait SyncObserver: Sync {
    /// The stores are being read, or no longer: as long as they are, nothing would be lost if the process ended.
    fn looking(&self, _now: bool) {}
    /// Bytes hashed so far, of how many, and the file at hand.
    fn hashing(&self, _done: u64, _total: u64, _file: &str) {}
    /// A model is being compared with its base.
    fn comparing(&self, _model: &str, _base: &str) {}
    /// Somebody else holds the registry's lock.
    fn waiting(&self) {}
    /// Whether to stop: what is done by then is kept.
    fn interrupted(&self) -> bool {
        false
    }
}

impl SyncObserver for () {}

/// What happened to one manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Change {
    /// A new model.
    Added,
    /// Something about it is other than before.
    Updated,
    /// As before.
    Unchanged,
    /// No longer in its store; its manifest stays, with what the user said.
    Gone,
    /// Its manifest could not be used, and was left as it is.
    Invalid,
}

/// One manifest, and what happened to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Changed {
    /// The model.
    pub model: String,
    /// Its store.
    pub store: String,
    /// The manifest's file.
    pub manifest: PathBuf,
    /// What happened.
    pub change: Change,
    /// Why, for what is invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Health in a word.
    pub health: crate::record::HealthStatus,
    /// Names of its problems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Which of the names that were asked for it answers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked_for: Vec<String>,
}

/// What a sync did.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct SyncReport {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Every model looked at.
    pub models: Vec<Changed>,
    /// What lies in the stores and is no model, and stores that could not be read.
    pub problems: Vec<StoreProblem>,
    /// Files hashed.
    pub hashed_files: u64,
    /// Bytes hashed.
    pub hashed_bytes: u64,
    /// Whether it was stopped before everything was hashed; what was hashed is kept.
    pub interrupted: bool,
}

impl SyncReport {
    /// Whether anything was found that weighs more than an information.
    pub fn has_problems(&self) -> bool {
        self.interrupted
            || self.problems.iter().any(|problem| problem.problem.severity > mlxman_store::Severity::Info)
            || self.models.iter().any(|model| !model.problems.is_empty() || model.change == Change::Invalid)
    }

    /// Whether a store could be read.
    pub fn has_read(&self, store: &StoreSpec) -> bool {
        let id = store.id();
        let unread = [ProblemKind::StoreUnavailable, ProblemKind::StoreTooSlow];
        !self.problems.iter().any(|row| row.store == id && unread.contains(&row.problem.kind))
    }

    /// How many manifests had that happen to them.
    pub fn count(&self, change: Change) -> usize {
        self.models.iter().filter(|model| model.change == change).count()
    }

    /// The report of both halves of a sync: of each model what the two together did.
    fn then(self, mut second: SyncReport) -> SyncReport {
        let mut before: HashMap<PathBuf, Changed> =
            self.models.into_iter().map(|row| (row.manifest.clone(), row)).collect();
        for row in &mut second.models {
            if let Some(first) = before.remove(&row.manifest)
                && first.change != Change::Unchanged
                && row.change != Change::Invalid
            {
                row.change = first.change;
                row.why = row.why.take().or(first.why);
            }
        }
        second.models.extend(before.into_values());
        second.models.sort_by_cached_key(|row| (row.model.to_lowercase(), row.store.clone()));
        second
    }
}

impl Registry {
    /// Looks at the stores as a sync does, and writes nothing: what a preview stands on.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn survey(
        &self,
        specs: &[StoreSpec],
        catalog: &Catalog,
        options: &SyncOptions,
    ) -> Result<Survey, RegistryError> {
        let mut looked = self.look_at(specs, catalog, options)?;
        let across = self.look_across(&mut looked.observed, options, &());
        let mut stores = Vec::with_capacity(specs.len());
        for (spec, observed) in specs.iter().zip(looked.observed) {
            stores.push(match observed {
                Ok(Observed { scan, models }) => {
                    let models = self.settle(&scan, models, catalog, options, &across, &looked.folders);
                    StoreSurvey { spec: spec.clone(), scan: Ok(scan), models }
                }
                Err(error) => StoreSurvey { spec: spec.clone(), scan: Err(error), models: Vec::new() },
            });
        }
        super::uses::to_stores(&self.uses()?, &mut stores);
        Ok(Survey { stores, unusable: looked.unusable, problems: looked.problems })
    }

    /// Brings the registry up to date with the stores.
    ///
    /// # Errors
    /// When the registry cannot be read or written, or an override makes no valid record.
    pub fn sync(
        &self,
        specs: &[StoreSpec],
        catalog: &Catalog,
        options: &SyncOptions,
        observer: &dyn SyncObserver,
    ) -> Result<SyncReport, RegistryError> {
        for field in options.overrides.keys() {
            merge::check_override(field).map_err(|source| RegistryError::Override { source })?;
        }
        let notes = self.notes();
        observer.looking(true);
        let looked = self.look_at(specs, catalog, options);
        observer.looking(false);
        let mut looked = looked?;
        let mut first = None;
        if !options.dry_run && !options.fast && self.has_to_hash(&looked.observed) {
            // Hashing takes long, and a file that is cut meanwhile ends the process: what is known already is written.
            let quick = SyncOptions { fast: true, ..options.clone() };
            let across = self.look_across(&mut looked.observed, &quick, observer);
            let settled = self.settle_all(specs, &looked, catalog, &quick, &across);
            first = Some(self.commit(settled, &looked, across, &quick, observer)?);
            looked.gone.clear();
            looked.stale = false;
        }
        let across = self.look_across(&mut looked.observed, options, observer);
        let settled = self.settle_all(specs, &looked, catalog, options, &across);
        let report = self.commit(settled, &looked, across, options, observer)?;
        if !options.dry_run && options.only.is_empty() {
            self.caught_up(notes, specs, &report);
        }
        // What was found is a hundred thousand small pieces in a large store: nobody has to wait until they are freed.
        // (Where the system gives no more threads, they are freed here.)
        let _ = std::thread::Builder::new().name("drop".to_owned()).spawn(move || drop(looked));
        Ok(match first {
            Some(first) => first.then(report),
            None => report,
        })
    }

    fn look_at(
        &self,
        specs: &[StoreSpec],
        catalog: &Catalog,
        options: &SyncOptions,
    ) -> Result<Looked, RegistryError> {
        let mut silent = options.silent.clone();
        let limit = options.store_limit;
        // The stores are walked while the registry is read: neither needs the other yet.
        let (scans, loaded) = std::thread::scope(|scope| {
            let walk = || scan_all(specs, &options.silent, limit);
            let scans = std::thread::Builder::new().name("walk".to_owned()).spawn_scoped(scope, walk);
            let loaded = self.load(&Asking { specs, limit, silent: &options.silent });
            // Where the system gives no more threads, one after the other.
            (scans.map_or_else(|_| Ok(walk()), ScopedJoinHandle::join), loaded)
        });
        let loaded = loaded?;
        let mut scans = scans.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        silent.extend(
            loaded
                .away
                .iter()
                .filter(|away| away.kind == ProblemKind::StoreTooSlow)
                .map(|away| away.spec.clone()),
        );
        let mut known: HashMap<String, HashMap<String, Arc<Entry>>> = HashMap::new();
        for entry in loaded.entries.into_iter().filter(|entry| !entry.shadowed) {
            if !known.contains_key(&entry.summary.store) {
                known.insert(entry.summary.store.clone(), HashMap::new());
            }
            if let Some(of_store) = known.get_mut(&entry.summary.store) {
                of_store.insert(entry.summary.key.clone(), Arc::new(entry));
            }
        }
        let known = Arc::new(known);
        let looking = Looking {
            known: Arc::clone(&known),
            catalog_digest: catalog_digest(catalog),
            wants_hashes: !options.fast,
            only: Arc::new(options.only.clone()),
            user_speaks: !options.overrides.is_empty() || options.notes.is_some(),
        };
        for (spec, scan) in specs.iter().zip(&mut scans) {
            if silent.contains(spec) && !options.silent.contains(spec) {
                *scan = Err(ScanError::late(spec, Late::TooSlow(limit)));
            }
        }
        walk_again(&mut scans, &known, limit);
        let mut observed = look(specs, scans, &looking, limit);
        for (spec, result) in specs.iter().zip(&mut observed) {
            let id = spec.id();
            let present: HashSet<&str> = known
                .get(&id)
                .into_iter()
                .flatten()
                .filter(|(_, entry)| entry.summary.present)
                .map(|(key, _)| key.as_str())
                .collect();
            let is_other =
                result.as_ref().is_ok_and(|store| is_replaced(&store.scan, loaded.stores.get(&id), &present));
            if is_other && !options.accept_replaced {
                *result = Err(replaced(spec));
            }
        }
        look_again(&mut observed, !options.fast);

        let mut gone: Vec<Entry> = Vec::new();
        for store in observed.iter().flatten() {
            let asked_for = |entry: &Entry| {
                options.only.is_empty() || options.only.iter().any(|asked| entry.summary.answers_to(asked))
            };
            let lost = lost_of(&store.scan, &known).filter(|entry| asked_for(entry));
            let lost =
                lost.filter(|entry| !entry.summary.present || is_gone(&store.scan, &entry.summary.key));
            gone.extend(lost.map(|entry| Entry::clone(entry)));
        }
        Ok(Looked {
            observed,
            gone,
            stale: loaded.stale,
            records: loaded.stores,
            folders: loaded.folders,
            silent,
            unusable: loaded.unusable,
            problems: loaded.problems,
        })
    }

    /// Whether there is a file of a model to look at anew whose hash is not known.
    fn has_to_hash(&self, observed: &[Result<Observed, ScanError>]) -> bool {
        let fresh = |store: &&Observed| store.models.iter().any(|work| matches!(work, Work::Fresh { .. }));
        let mut stores = observed.iter().flatten().filter(fresh).peekable();
        if stores.peek().is_none() {
            return false;
        }
        let hashes = Hashes::read(&self.home.join("hashes.json"));
        stores.any(|store| {
            let models = store.scan.models.iter().zip(&store.models);
            models
                .filter(|(_, work)| matches!(work, Work::Fresh { .. }))
                .any(|(model, _)| model.files.iter().any(|file| hashes.get(&file.stat).is_none()))
        })
    }

    /// All stores' manifests; what the stores' threads found is kept.
    fn settle_all<'a>(
        &self,
        specs: &'a [StoreSpec],
        looked: &'a Looked,
        catalog: &Catalog,
        options: &SyncOptions,
        across: &Across,
    ) -> Vec<Settled<'a>> {
        let settle = |(spec, observed): (&'a StoreSpec, &'a Result<Observed, ScanError>)| match observed {
            Ok(Observed { scan, models }) => {
                let models = self.settle(scan, models.clone(), catalog, options, across, &looked.folders);
                Settled { spec, scan: Ok(scan), models }
            }
            Err(error) => Settled { spec, scan: Err(error), models: Vec::new() },
        };
        specs.iter().zip(&looked.observed).map(settle).collect()
    }

    /// Turns what the stores' threads found into manifests.
    fn settle(
        &self,
        scan: &Scan,
        models: Vec<Work>,
        catalog: &Catalog,
        options: &SyncOptions,
        hashed: &Across,
        folders: &Folders,
    ) -> Vec<SurveyedModel> {
        let any_fresh = models.iter().any(|work| matches!(work, Work::Fresh { .. }));
        let work: Vec<_> = scan.models.iter().zip(models).collect();
        let mut settled: Vec<SurveyedModel> = for_all(work, any_fresh, |(model, work)| match work {
            Work::Unchanged(entry) => SurveyedModel {
                // Using a model changes neither it nor its manifest.
                summary: Summary {
                    used: model.last_accessed(),
                    modified: model.last_modified(),
                    ..entry.summary.clone()
                },
                invalid: None,
                state: State::Unchanged(entry),
            },
            Work::Skipped(entry) => SurveyedModel {
                summary: entry.as_ref().map(|entry| entry.summary.clone()).unwrap_or_else(|| Summary {
                    model: model.name.clone(),
                    store: scan.spec.id(),
                    key: model.key.clone(),
                    present: true,
                    ..Summary::default()
                }),
                invalid: None,
                state: State::Skipped(entry),
            },
            Work::Fresh { fingerprint, weights, files, mut observation, before } => {
                for (record, file) in observation.files.iter_mut().zip(&model.files) {
                    record.blake3 = hashed.hashes.get(&file.stat).map(str::to_owned);
                }
                let all_hashed = observation.files.iter().all(|file| file.blake3.is_some());
                let claimed = before.as_ref().and_then(|entry| entry.summary.repo_id.as_deref());
                let mut manifest = assemble(scan, model, *observation, catalog, claimed, options.now);
                if let Some((commit, repo_id, store)) =
                    hashed.sources.get(&(scan.spec.id(), model.key.clone()))
                {
                    manifest.source.repo_id = Some(repo_id.clone());
                    manifest.source_id = Some(repo_id.clone());
                    let evidence = Evidence::new(store.clone(), format!("the same commit {commit}"));
                    manifest.evidence.insert("source.repo_id".to_owned(), evidence);
                }
                if let Some(beside) = hashed.adapters.get(&(scan.spec.id(), model.key.clone())) {
                    note_adapters(&mut manifest, beside);
                }
                if let Some(comparison) = hashed.comparisons.get(&(scan.spec.id(), model.key.clone())) {
                    compared(&mut manifest, comparison.clone());
                }
                SurveyedModel {
                    summary: Summary::of(&manifest),
                    invalid: None,
                    state: State::Fresh(Box::new(Fresh {
                        fingerprint,
                        weights,
                        files,
                        hashed: all_hashed,
                        manifest,
                        before,
                    })),
                }
            }
        });
        one_short_name_each(scan, &mut settled);
        if !any_fresh {
            return settled;
        }
        // What the user said belongs to the summary too: a preview stands on it.
        let with_words = |model: &mut SurveyedModel| {
            if let State::Fresh(fresh) = &model.state {
                match self.document_for(fresh, options, folders) {
                    Ok((document, _, _)) => {
                        if let Ok(manifest) = serde_json::from_value::<Manifest>(document) {
                            model.summary = Summary::of(&manifest);
                        }
                    }
                    Err(error) => model.invalid = Some(error.to_string()),
                }
            }
        };
        side_by_side(|| settled.par_iter_mut().for_each(with_words));
        settled
    }

    /// Where the manifest of a model goes.
    pub(super) fn file_for(&self, fresh: &Fresh, folders: &Folders) -> String {
        let manifest = &fresh.manifest;
        if let Some(before) = &fresh.before {
            return self.target_of(before, folders);
        }
        if folders.get(&manifest.store) == Some(&Keeps::Manifests)
            && let Ok(spec) = manifest.store.parse::<StoreSpec>()
        {
            let dir = dir_in(spec.root());
            return dir.join(names::in_folder(&manifest.key)).to_string_lossy().into_owned();
        }
        own_name(&Summary::of(manifest))
    }

    /// Where what changes of a manifest goes: to its own place, or to the registry where that cannot be written.
    pub(super) fn target_of(&self, entry: &Entry, folders: &Folders) -> String {
        let stays = self.is_own(&self.path_of(&entry.file))
            || folders.get(&entry.summary.store) == Some(&Keeps::Manifests);
        if stays { entry.file.clone() } else { own_name(&entry.summary) }
    }

    /// The document to write for a model, its file, and the document that is there.
    pub(super) fn document_for(
        &self,
        fresh: &Fresh,
        options: &SyncOptions,
        folders: &Folders,
    ) -> Result<(Value, String, Option<Value>), RegistryError> {
        let file = self.file_for(fresh, folders);
        let path = self.path_of(&file);
        let mut existing = match self.read_document(&path) {
            Ok((form, document)) => Some((form, document)),
            Err(RegistryError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let there = existing.as_ref().map(|(_, document)| document.clone());
        let mut known = merge::Known { files: &fresh.files, ..merge::Known::default() };
        if let Some(before) = &fresh.before {
            if before.file == file {
                known.written_tags = before.written_tags();
            } else if existing.is_none() {
                existing = self.read_document(&self.path_of(&before.file)).ok();
            }
            for other in before.also.iter().chain([&before.file]).filter(|other| **other != file) {
                let words = self.words_at(&self.path_of(other));
                // Of one that cannot be read the pin is remembered.
                let pin = || UserLayer { pinned: before.summary.pinned, ..UserLayer::default() };
                known.words.push(words.unwrap_or_else(pin));
            }
        }
        if !options.overrides.is_empty() || options.notes.is_some() {
            say(&mut existing, fresh, options, &known);
        }
        let same_weights = fresh.before.as_ref().is_some_and(|entry| entry.weights == fresh.weights);
        let existing = existing.as_ref().map(|(form, document)| (*form, document));
        let merged = merge::merge(fresh.manifest.clone(), existing, same_weights, &known);
        let document = merged.map_err(|source| {
            if options.overrides.is_empty() {
                RegistryError::Invalid { path, source }
            } else {
                RegistryError::Override { source }
            }
        })?;
        Ok((document, file, there))
    }

    fn look_across(
        &self,
        observed: &mut [Result<Observed, ScanError>],
        options: &SyncOptions,
        observer: &dyn SyncObserver,
    ) -> Across {
        let mut outcome = Across {
            sources: sources_by_commit(observed),
            adapters: adapters_beside(observed),
            ..Across::default()
        };
        let any_fresh = observed
            .iter()
            .flatten()
            .any(|store| store.models.iter().any(|work| matches!(work, Work::Fresh { .. })));
        if !any_fresh {
            return outcome;
        }
        let path = self.home.join("hashes.json");
        outcome.hashes = Hashes::read(&path);
        if options.fast || options.dry_run {
            return outcome;
        }
        let jobs: Vec<Job<'_>> = observed
            .iter()
            .flatten()
            .flat_map(|store| {
                store
                    .scan
                    .models
                    .iter()
                    .zip(&store.models)
                    .filter(|(_, work)| matches!(work, Work::Fresh { .. }))
                    .flat_map(|(model, _)| model.files.iter().map(|file| Job { scan: &store.scan, file }))
            })
            .collect();
        let step = |done: u64, total: u64, file: &str| {
            observer.hashing(done, total, file);
            !observer.interrupted()
        };
        let _ = fs_err::create_dir_all(&self.home);
        let hashed = hash(&jobs, &mut outcome.hashes, &path, &step);
        outcome.files = hashed.files;
        outcome.bytes = hashed.bytes;
        outcome.interrupted = hashed.interrupted;
        outcome.unreadable = hashed.failed;
        // Under the lock, so that no other process sweeps the file away that is being written.
        let lock = self.lock(&|| observer.waiting()).ok();
        outcome.save_error = outcome.hashes.save(&path).err();
        drop(lock);
        if !outcome.interrupted {
            outcome.comparisons = super::across::compare_with_base(observed, &outcome.hashes, observer);
            outcome.interrupted = observer.interrupted();
        }
        outcome
    }
}

/// What a look at the stores gave.
pub(super) struct Looked {
    pub(super) observed: Vec<Result<Observed, ScanError>>,
    pub(super) gone: Vec<Entry>,
    /// Whether the index is to be written although nothing changed.
    pub(super) stale: bool,
    /// What the index has of the stores.
    pub(super) records: BTreeMap<String, StoreRecord>,
    pub(super) folders: Folders,
    /// Stores that did not answer.
    pub(super) silent: Vec<StoreSpec>,
    pub(super) unusable: Vec<(PathBuf, String)>,
    pub(super) problems: Vec<StoreProblem>,
}

/// One store's manifests, to be written.
pub(super) struct Settled<'a> {
    pub(super) spec: &'a StoreSpec,
    pub(super) scan: Result<&'a Scan, &'a ScanError>,
    pub(super) models: Vec<SurveyedModel>,
}

/// Notes adapters that lie beside a model: it may have been fused from one of them.
fn note_adapters(manifest: &mut Manifest, beside: &Beside) {
    manifest.adapter.found_beside = beside.keys.clone();
    if let Some(key) = &beside.of_same_base
        && manifest.adapter.kind == AdapterKind::None
    {
        manifest.adapter.kind = AdapterKind::Unknown;
        let file = format!("../{}/adapter_config.json", key.rsplit('/').next().unwrap_or(key));
        manifest.evidence.insert(
            "adapter.kind".to_owned(),
            Evidence::new(file, "an adapter of the same base lies beside the model"),
        );
    }
}

/// Does the same to all of them, side by side where that is worth waking the threads.
pub(super) fn for_all<T: Send, R: Send>(
    items: Vec<T>,
    is_much: bool,
    work: impl Fn(T) -> R + Sync + Send,
) -> Vec<R> {
    if is_much {
        side_by_side(|| items.into_par_iter().map(work).collect())
    } else {
        items.into_iter().map(work).collect()
    }
}

/// Puts what the user said with this call into the document that the merge starts from.
fn say(existing: &mut Option<(Form, Value)>, fresh: &Fresh, options: &SyncOptions, known: &merge::Known<'_>) {
    let (form, mut document) = match existing.take() {
        Some((Form::Current, document)) => (Form::Current, document),
        // An original manifest is upgraded first, so that what it says is not lost behind the new words.
        before => {
            let original = before.as_ref().map(|(form, document)| (*form, document));
            match merge::merge(fresh.manifest.clone(), original, false, known) {
                Ok(document) => (Form::Current, document),
                Err(_) => {
                    *existing = before;
                    return;
                }
            }
        }
    };
    let mut user = merge::words_of(Form::Current, &document);
    user.overrides.extend(options.overrides.clone());
    if let Some(notes) = &options.notes {
        user.notes = Some(notes.clone()).filter(|notes| !notes.is_empty());
    }
    if let Ok(user) = serde_json::to_value(user) {
        document["user"] = user;
    }
    // It is said now; what stands there is what it replaces.
    if let (Some(_), Some(map)) = (&options.notes, document.as_object_mut()) {
        map.remove("notes");
    }
    *existing = Some((form, document));
}

/// Changes when the catalog does, so that models that it names are looked at anew.
fn catalog_digest(catalog: &Catalog) -> String {
    let mut hasher = blake3::Hasher::new();
    for entry in catalog.entries() {
        hasher.update(&serde_json::to_vec(entry).unwrap_or_default());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
