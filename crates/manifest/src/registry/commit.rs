//! Writing what a sync found, under the registry's lock.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use mlxman_store::{Problem, ProblemKind, Scan, ScanError, StoreSpec};
use rayon::prelude::*;
use serde_json::Value;

use super::across::Across;
use super::index::{Entry, Index, StoreProblem, StoreRecord, VERSION};
use super::observe::State;
use super::sync::{Change, Changed, Looked, Settled, SyncObserver, SyncOptions, SyncReport, for_all};
use super::{Asking, Folders, Registry, RegistryError, StoreSurvey, SurveyedModel};
use crate::record::Manifest;
use crate::summary::Summary;
use crate::threads::writing;

/// A row for the report, and one for the index.
type Written = (Option<Changed>, Option<Arc<Entry>>);

impl Registry {
    pub(super) fn commit(
        &self,
        settled: Vec<Settled<'_>>,
        looked: &Looked,
        hashed: Across,
        options: &SyncOptions,
        observer: &dyn SyncObserver,
    ) -> Result<SyncReport, RegistryError> {
        let Looked { stale, records: known_records, gone, folders, .. } = looked;
        if let Some(source) = hashed.save_error {
            return Err(RegistryError::Io {
                doing: "keep the hashes in",
                path: self.home.join("hashes.json"),
                source,
            });
        }
        let mut report = SyncReport {
            dry_run: options.dry_run,
            models: Vec::new(),
            problems: Vec::new(),
            hashed_files: hashed.files,
            hashed_bytes: hashed.bytes,
            interrupted: hashed.interrupted,
        };
        let mut records: BTreeMap<String, StoreRecord> = BTreeMap::new();
        for store in &settled {
            let record = record_of(store.spec, store.scan, options.now);
            report.problems.extend(record.problems.iter().cloned());
            if store.scan.is_ok() {
                records.insert(store.spec.id(), record);
            }
        }
        report.problems.extend(looked.problems.iter().cloned());
        report.problems.extend(looked.unusable.iter().map(|(path, why)| unusable(path, why)));
        let user_speaks = !options.overrides.is_empty() || options.notes.is_some();
        let models = || settled.iter().flat_map(|store| &store.models);
        let nothing_new = gone.iter().all(|entry| !entry.summary.present)
            && models().all(|model| !matches!(model.state, State::Fresh(_)))
            && !user_speaks;
        let up_to_date =
            nothing_new && !stale && same_records(&records, known_records) && !models().any(used_since);
        let writes = !options.dry_run && !up_to_date;
        let _lock = if writes { Some(self.lock(&|| observer.waiting())?) } else { None };
        let touched: Vec<PathBuf> = models()
            .filter_map(|model| match &model.state {
                State::Fresh(fresh) => Some(self.file_for(fresh, folders)),
                _ => None,
            })
            .chain(
                gone.iter().filter(|entry| entry.summary.present).map(|entry| self.target_of(entry, folders)),
            )
            .map(|file| self.path_of(&file))
            .collect();
        let _locks =
            if writes { self.lock_folders(touched.iter(), &|| observer.waiting()) } else { Vec::new() };

        let work: Vec<SurveyedModel> = settled.into_iter().flat_map(|store| store.models).collect();
        let write_one = |model| self.write_one(model, options, folders, writes);
        let done: Vec<Result<Written, RegistryError>> = match writes && !nothing_new {
            true => writing(|| work.into_par_iter().map(write_one).collect()),
            false => for_all(work, !nothing_new, write_one),
        };
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let mut failed = None;
        for one in done {
            match one {
                Ok((changed, entry)) => {
                    report.models.extend(changed);
                    entries.extend(entry);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let write_gone = |entry: &Entry| self.write_gone(entry.clone(), options, folders, writes);
        let done: Vec<(Changed, Entry)> = match writes && gone.iter().any(|entry| entry.summary.present) {
            true => writing(|| gone.par_iter().map(write_gone).collect()),
            false => gone.iter().map(write_gone).collect(),
        };
        for ((row, entry), before) in done.into_iter().zip(gone) {
            report.models.push(named(row, &before.summary, options));
            entries.push(Arc::new(entry));
        }
        report.models.sort_by_cached_key(|row| (row.model.to_lowercase(), row.store.clone()));
        // A wrong call changes nothing.
        if writes && !matches!(failed, Some(RegistryError::Override { .. })) {
            self.write_index(entries, records, &looked.silent)?;
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(report),
        }
    }

    fn write_one(
        &self,
        model: SurveyedModel,
        options: &SyncOptions,
        folders: &Folders,
        writes: bool,
    ) -> Result<Written, RegistryError> {
        let mut summary = model.summary;
        let fresh = match model.state {
            State::Unchanged(entry) => {
                let changed = changed(&summary, self.path_of(&entry.file), Change::Unchanged, None);
                let row = named(changed, &summary, options);
                // The index remembers when it was used last.
                let entry = if writes { Arc::new(Entry { summary, ..Entry::clone(&entry) }) } else { entry };
                return Ok((Some(row), Some(entry)));
            }
            // What was not asked for is no row of the report.
            State::Skipped(entry) => return Ok((None, entry)),
            State::Fresh(fresh) => fresh,
        };
        // Put together anew under the lock: the user may have said something meanwhile.
        let (document, file, before) = match self.document_for(&fresh, options, folders) {
            Ok(parts) => parts,
            Err(error @ RegistryError::Override { .. }) => return Err(error),
            Err(error) => {
                let file = self.file_for(&fresh, folders);
                let path = self.path_of(&file);
                let why = match &error {
                    RegistryError::Invalid { source, .. } => source.to_string(),
                    other => other.to_string(),
                };
                let stamp = self.stamp_of(&path).unwrap_or_default();
                let entry = Entry { invalid: Some(why), ..Entry::new(&file, stamp, summary.clone()) };
                let row = changed(&summary, path, Change::Invalid, Some(error.to_string()));
                return Ok((Some(named(row, &summary, options)), Some(Arc::new(entry))));
            }
        };
        let path = self.path_of(&file);
        let change = match &before {
            None => Change::Added,
            Some(before) if *before == document => Change::Unchanged,
            Some(_) => Change::Updated,
        };
        if let Ok(manifest) = serde_json::from_value::<Manifest>(document.clone()) {
            summary = Summary::of(&manifest);
        }
        if writes
            && change != Change::Unchanged
            && let Err(error) = self.write_document(&path, &document)
        {
            // The others are written all the same, and the next sync tries again.
            let entry =
                fresh.before.map(|before| Entry { fingerprint: String::new(), ..Entry::clone(&before) });
            let row = changed(&summary, path, Change::Invalid, Some(error.to_string()));
            return Ok((Some(named(row, &summary, options)), entry.map(Arc::new)));
        }
        let entry = Entry {
            fingerprint: fresh.fingerprint,
            weights: fresh.weights,
            hashed: fresh.hashed,
            ..Entry::new(&file, self.stamp_of(&path).unwrap_or_default(), summary.clone())
        };
        let row = changed(&summary, path, change, None);
        Ok((Some(named(row, &summary, options)), Some(Arc::new(entry))))
    }

    /// A model that is no longer in its store: its manifest says so, and keeps everything else.
    fn write_gone(
        &self,
        mut entry: Entry,
        options: &SyncOptions,
        folders: &Folders,
        writes: bool,
    ) -> (Changed, Entry) {
        let path = self.path_of(&entry.file);
        if let Some(why) = entry.invalid.clone() {
            return (changed(&entry.summary, path, Change::Invalid, Some(why)), entry);
        }
        if !entry.summary.present {
            return (changed(&entry.summary, path, Change::Unchanged, None), entry);
        }
        // Another process has spoken of it since: the next sync sees what it said.
        if self.stamp_of(&path).is_some_and(|stamp| stamp != entry.stamp) {
            entry.fingerprint = String::new();
            return (changed(&entry.summary, path, Change::Unchanged, None), entry);
        }
        let target = self.target_of(&entry, folders);
        let written = self.read_upgraded(&path, &entry.summary).and_then(|mut document| {
            if let Some(storage) = document.get_mut("storage").and_then(Value::as_object_mut) {
                storage.insert("present".to_owned(), Value::Bool(false));
                storage.insert("reclaimable_bytes".to_owned(), Value::from(0));
            }
            document["generated_at"] =
                Value::String(options.now.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
            if writes { self.write_document(&self.path_of(&target), &document) } else { Ok(()) }
        });
        // A folder that was replaced has lost its manifests as well.
        let is_lost = |error: &RegistryError| matches!(error, RegistryError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
        if let Err(error) = written
            && !is_lost(&error)
        {
            return (changed(&entry.summary, path, Change::Invalid, Some(error.to_string())), entry);
        }
        entry.summary.present = false;
        entry.summary.reclaimable_bytes = 0;
        entry.fingerprint = String::new();
        let path = self.path_of(&target);
        if writes {
            entry.stamp = self.stamp_of(&path).unwrap_or_default();
            entry.file = target;
        }
        (changed(&entry.summary, path, Change::Gone, None), entry)
    }

    /// Writes the index: what this sync saw, and of other stores what was there.
    fn write_index(
        &self,
        entries: Vec<Arc<Entry>>,
        records: BTreeMap<String, StoreRecord>,
        silent: &[StoreSpec],
    ) -> Result<(), RegistryError> {
        let path = self.home.join("index.json");
        let mut entries: Vec<Entry> = entries.into_iter().map(Arc::unwrap_or_clone).collect();
        let mine: HashSet<String> = entries.iter().map(|entry| entry.file.clone()).collect();
        let others = self.load(&Asking { silent, ..Asking::default() })?;
        entries.extend(others.entries.into_iter().filter(|entry| !mine.contains(&entry.file)));
        entries.sort_by(|a, b| a.file.cmp(&b.file));
        let mut stores = others.stores;
        stores.extend(records);
        let index = Index { version: VERSION, generator: Manifest::generator(), stores, entries };
        let failed = |source| RegistryError::Io { doing: "write the index", path: path.clone(), source };
        let bytes = serde_json::to_vec(&index).map_err(|error| failed(error.into()))?;
        super::whole_file::write(&path, &bytes).map_err(failed)
    }
}

/// Whether the index says of the stores what was found now.
fn same_records(now: &BTreeMap<String, StoreRecord>, known: &BTreeMap<String, StoreRecord>) -> bool {
    // Free space and times always differ; they are no reason to write.
    now.iter().all(|(id, record)| {
        known.get(id).is_some_and(|old| {
            old.usage == record.usage && old.problems == record.problems && old.root == record.root
        })
    })
}

/// Whether a model was used since the index was written, by a day and more: tables and filters count days.
fn used_since(model: &SurveyedModel) -> bool {
    let State::Unchanged(entry) = &model.state else { return false };
    match (model.summary.used, entry.summary.used) {
        (Some(now), Some(then)) => (now - then).abs() >= chrono::TimeDelta::days(1),
        (now, then) => now != then,
    }
}

/// Says which of the names that were asked for a row answers to.
fn named(mut row: Changed, summary: &Summary, options: &SyncOptions) -> Changed {
    row.asked_for = options.only.iter().filter(|asked| summary.answers_to(asked)).cloned().collect();
    row
}

fn changed(summary: &Summary, manifest: PathBuf, change: Change, why: Option<String>) -> Changed {
    Changed {
        model: summary.model.clone(),
        store: summary.store.clone(),
        manifest,
        change,
        why,
        health: summary.health,
        problems: if summary.ailing && summary.present { summary.problems.clone() } else { Vec::new() },
        asked_for: Vec::new(),
    }
}

/// What is remembered of a store beside its models.
pub fn store_record(store: &StoreSurvey, now: DateTime<Utc>) -> StoreRecord {
    record_of(&store.spec, store.scan.as_ref(), now)
}

fn record_of(spec: &StoreSpec, scan: Result<&Scan, &ScanError>, now: DateTime<Utc>) -> StoreRecord {
    let id = spec.id();
    match scan {
        Err(error) => StoreRecord {
            filesystem: None,
            usage: None,
            problems: vec![StoreProblem {
                store: id,
                problem: error.problem(),
                repo_id: None,
                size_bytes: 0,
                reclaimable_bytes: 0,
                reclaimable_at_least: false,
                last_modified: None,
            }],
            root: None,
            synced_at: now,
        },
        Ok(scan) => StoreRecord {
            filesystem: scan.filesystem.clone(),
            usage: Some(scan.usage()),
            problems: scan
                .strays
                .iter()
                .map(|stray| {
                    let reclaim = scan.ledger.reclaim(stray.owner);
                    StoreProblem {
                        store: id.clone(),
                        problem: stray.problem.clone(),
                        repo_id: stray.repo_id.clone(),
                        size_bytes: stray.size_bytes(),
                        reclaimable_bytes: reclaim.bytes,
                        reclaimable_at_least: reclaim.at_least,
                        last_modified: stray.last_modified(),
                    }
                })
                .collect(),
            root: scan.root().stat().ok().map(|stat| (stat.dev, stat.ino)),
            synced_at: now,
        },
    }
}

/// A manifest that could not be used, as a row.
pub fn unusable(path: &Path, why: &str) -> StoreProblem {
    let message = format!(
        "the manifest {} cannot be used: {why}; it was left as it is: mend it, or move it away and sync again",
        path.display()
    );
    StoreProblem {
        store: String::new(),
        problem: Problem::new(ProblemKind::ManifestInvalid, Some(&path.to_string_lossy()), message),
        repo_id: None,
        size_bytes: 0,
        reclaimable_bytes: 0,
        reclaimable_at_least: false,
        last_modified: None,
    }
}
