//! Looking at stores: which models lie there, what each is, and what the registry knows of it already.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mlxman_store::{
    FoundModel, Late, Problem, ProblemKind, Progress, RepoKind, Scan, ScanError, StoreSpec, layout_of, watch,
};

use super::index::{Entry, StoreRecord};
use crate::catalog::Catalog;
use crate::inspect::{Observation, inspect, status_of};
use crate::record::{Evidence, Manifest, SCHEMA_VERSION, Storage};
use crate::summary::Summary;

/// What was found in all stores.
#[derive(Debug)]
pub struct Survey {
    /// In the order in which the stores were named.
    pub stores: Vec<StoreSurvey>,
    /// Manifests that could not be used and of which nothing else is known.
    pub unusable: Vec<(std::path::PathBuf, String)>,
    /// What is wrong with the places of manifests.
    pub problems: Vec<super::StoreProblem>,
}

/// What was found in one store.
#[derive(Debug)]
pub struct StoreSurvey {
    /// The store.
    pub spec: StoreSpec,
    /// Its scan, or why there is none.
    pub scan: Result<Scan, ScanError>,
    /// What is known of each model of the scan, in its order.
    pub models: Vec<SurveyedModel>,
}

/// What is known of one model that lies in a store.
#[derive(Debug)]
pub struct SurveyedModel {
    /// What tables, filters and plans need.
    pub summary: Summary,
    /// Why its manifest could not be used: then what the user said of it is not known.
    pub invalid: Option<String>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    /// As the registry has it.
    Unchanged(Arc<Entry>),
    /// New, or not as the registry has it.
    Fresh(Box<Fresh>),
    /// Not asked for.
    Skipped(Option<Arc<Entry>>),
}

#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) fingerprint: String,
    pub(super) weights: String,
    pub(super) files: String,
    pub(super) hashed: bool,
    pub(super) manifest: Manifest,
    /// What the registry had.
    pub(super) before: Option<Arc<Entry>>,
}

/// What one store's thread hands back.
pub(super) struct Observed {
    pub(super) scan: Scan,
    pub(super) models: Vec<Work>,
}

#[derive(Clone)]
pub(super) enum Work {
    Unchanged(Arc<Entry>),
    Skipped(Option<Arc<Entry>>),
    Fresh {
        fingerprint: String,
        weights: String,
        files: String,
        observation: Box<Observation>,
        before: Option<Arc<Entry>>,
    },
}

/// What the registry knows of models, by store and key.
pub(super) type Known = Arc<HashMap<String, HashMap<String, Arc<Entry>>>>;

/// How models are to be looked at.
#[derive(Clone)]
pub(super) struct Looking {
    pub(super) known: Known,
    pub(super) catalog_digest: String,
    /// Whether a model whose hashes are not all known counts as changed.
    pub(super) wants_hashes: bool,
    /// Only models that answer to one of these; all where empty.
    pub(super) only: Arc<Vec<String>>,
    /// Whether the user says something of these models with this call: then each is put together anew.
    pub(super) user_speaks: bool,
}

/// Walks all stores at once, each in threads of its own, and leaves those alone that are known not to answer.
pub fn scan_all(specs: &[StoreSpec], silent: &[StoreSpec], limit: Duration) -> Vec<Result<Scan, ScanError>> {
    let asked = specs.iter().filter(|spec| !silent.contains(spec)).cloned().collect();
    let scan = |spec: StoreSpec, progress: &Progress| layout_of(spec.kind()).scan(&spec, progress);
    let mut results = watch(asked, limit, scan).into_iter();
    let answer = |spec: &StoreSpec| {
        let result = if silent.contains(spec) { None } else { results.next() };
        result.unwrap_or(Err(Late::TooSlow(limit))).unwrap_or_else(|late| Err(ScanError::late(spec, late)))
    };
    specs.iter().map(answer).collect()
}

/// Inspects what changed in stores that were walked, each in threads of its own.
pub(super) fn look(
    specs: &[StoreSpec],
    scans: Vec<Result<Scan, ScanError>>,
    looking: &Looking,
    limit: Duration,
) -> Vec<Result<Observed, ScanError>> {
    let looking = looking.clone();
    let mut failed = Vec::with_capacity(scans.len());
    let mut walked = Vec::with_capacity(scans.len());
    for scan in scans {
        match scan {
            Ok(scan) => {
                walked.push(scan);
                failed.push(None);
            }
            Err(error) => failed.push(Some(error)),
        }
    }
    let results = watch(walked, limit, move |scan: Scan, progress: &Progress| {
        let id = scan.spec.id();
        let known = looking.known.get(&id);
        let models = in_parallel(&scan.models, |model| {
            one(&scan, &id, model, known.and_then(|known| known.get(&model.key)), &looking, progress)
        });
        Observed { scan, models }
    });
    let mut results = results.into_iter();
    let answer = |(spec, failed): (&StoreSpec, Option<ScanError>)| match failed {
        Some(error) => Err(error),
        None => results.next().unwrap_or(Err(Late::Lost)).map_err(|late| ScanError::late(spec, late)),
    };
    specs.iter().zip(failed).map(answer).collect()
}

/// Threads of this store's own, and only where there is enough to do.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    use rayon::prelude::*;
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) if items.len() > 4 => pool.install(|| items.par_iter().map(&work).collect()),
        _ => items.iter().map(work).collect(),
    }
}

fn one(
    scan: &Scan,
    store: &str,
    model: &FoundModel,
    before: Option<&Arc<Entry>>,
    looking: &Looking,
    progress: &Progress,
) -> Work {
    if !looking.only.is_empty() {
        let found = Summary {
            model: model.name.clone(),
            store: store.to_owned(),
            key: model.key.clone(),
            repo_id: model.repo.as_ref().map(|repo| repo.id.clone()),
            revision: model.repo.as_ref().map(|repo| repo.revision.clone()),
            refs: model.repo.as_ref().map(|repo| repo.refs.clone()).unwrap_or_default(),
            catalog: before.and_then(|entry| entry.summary.catalog.clone()),
            ..Summary::default()
        };
        if !looking.only.iter().any(|asked| found.answers_to(asked)) {
            return Work::Skipped(before.cloned());
        }
    }
    let fingerprint = fingerprint(scan, model, &looking.catalog_digest);
    if let Some(entry) = before
        && entry.invalid.is_none()
        && !looking.user_speaks
        && entry.fingerprint == fingerprint
        && entry.summary.present
        && (entry.hashed || !looking.wants_hashes)
    {
        return Work::Unchanged(Arc::clone(entry));
    }
    fresh(scan, model, fingerprint, before, progress)
}

fn fresh(
    scan: &Scan,
    model: &FoundModel,
    fingerprint: String,
    before: Option<&Arc<Entry>>,
    progress: &Progress,
) -> Work {
    Work::Fresh {
        fingerprint,
        weights: weights_stamp(model),
        files: files_stamp(model),
        observation: Box::new(inspect(scan, model, progress)),
        before: before.cloned(),
    }
}

/// Looks at a model anew although its files are unchanged.
pub(super) fn again(scan: &Scan, model: &FoundModel, entry: &Arc<Entry>) -> Work {
    fresh(scan, model, entry.fingerprint.clone(), Some(entry), &Progress::default())
}

/// Whether a store's root is another directory than at the last sync, and nothing of what was known there is in it: a
/// mount point whose volume is away is such a directory. A cache whose models were all removed is the same as before.
pub(super) fn is_replaced(scan: &Scan, before: Option<&StoreRecord>, present: &HashSet<&str>) -> bool {
    let Some(root) = before.and_then(|record| record.root) else { return false };
    let Ok(now) = scan.root().stat() else { return true };
    (now.dev, now.ino) != root
        && !present.is_empty()
        && !scan.models.iter().any(|model| present.contains(model.key.as_str()))
}

/// Why such a store is not read.
pub(super) fn replaced(spec: &StoreSpec) -> ScanError {
    let why = "its directory is another one than at the last sync, and nothing that was known is in it (if that is \
               meant: mlxman sync --accept-replaced)";
    ScanError::Unavailable { root: spec.root().to_owned(), source: std::io::Error::other(why) }
}

/// Of everything that an observation depends on. Two equal ones mean that nothing needs to be read again.
fn fingerprint(scan: &Scan, model: &FoundModel, catalog_digest: &str) -> String {
    // Put together first: hashing many small pieces costs several times as much.
    let mut bytes: Vec<u8> = Vec::with_capacity(256 + 256 * model.files.len());
    let mut text = |text: &str| {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    text(&Manifest::generator());
    text(catalog_digest);
    text(&model.key);
    text(&model.name);
    if let Some(repo) = &model.repo {
        text(&repo.revision);
        repo.refs.iter().for_each(|name| text(name));
        text(if repo.current { "current" } else { "" });
    }
    for problem in &model.problems {
        text(problem.kind.word());
        text(problem.path.as_deref().unwrap_or_default());
    }
    for file in &model.files {
        text(&file.path);
        text(file.link.as_ref().map_or("", |link| link.target.as_str()));
    }
    let mut number = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
    for file in &model.files {
        [file.stat.dev, file.stat.ino, file.stat.size, file.stat.mtime_ns as u64, file.stat.allocated]
            .into_iter()
            .for_each(&mut number);
    }
    let records = model.records.iter().map(|record| &record.stat);
    for stat in model.listing.iter().map(|(_, stat)| stat).chain(records) {
        [stat.ino, stat.size, stat.mtime_ns as u64].into_iter().for_each(&mut number);
    }
    let reclaim = scan.ledger.reclaim([model.owner]);
    number(reclaim.bytes);
    number(u64::from(reclaim.at_least));
    blake3::hash(&bytes).to_hex()[..32].to_owned()
}

fn weights_stamp(model: &FoundModel) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in model.files.iter().filter(|file| file.path.ends_with(".safetensors")) {
        hasher.update(file.path.as_bytes());
        for number in [file.stat.dev, file.stat.ino, file.stat.size, file.stat.mtime_ns as u64] {
            hasher.update(&number.to_le_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Of every file of a model: a verification holds for as long as it is the same. Devices are left out, for their
/// numbers change when a machine starts.
pub fn files_stamp(model: &FoundModel) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in &model.files {
        hasher.update(&(file.path.len() as u64).to_le_bytes());
        hasher.update(file.path.as_bytes());
        for number in [file.stat.ino, file.stat.size, file.stat.mtime_ns as u64] {
            hasher.update(&number.to_le_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The manifest as observed: without what the user said, and without what needs other models.
pub(super) fn assemble(
    scan: &Scan,
    model: &FoundModel,
    observation: Observation,
    catalog: &Catalog,
    claimed_source: Option<&str>,
    now: chrono::DateTime<chrono::Utc>,
) -> Manifest {
    let Observation {
        source, format, architecture, parameter_count, precision, quantization, adapter, ..
    } = observation;
    let mut health = observation.health;
    let mut evidence = observation.evidence;
    let mut tags = observation.tags;
    let mut adapter = adapter;
    let is_model = source.repo_kind.is_none_or(|kind| kind == RepoKind::Model);
    let repo_id = source.repo_id.clone().or_else(|| claimed_source.map(str::to_owned));
    let entry = repo_id.as_deref().filter(|_| is_model).and_then(|id| catalog.by_source(id));
    if let Some(entry) = entry {
        tags.extend(entry.tags.iter().cloned());
        adapter.allows_lora = Some(entry.allows_lora);
        let key = entry.name.clone();
        for field in ["catalog", "adapter.allows_lora"] {
            evidence.insert(field.to_owned(), Evidence::new("catalog", key.clone()));
        }
        evidence.entry("tags".to_owned()).or_insert_with(|| Evidence::new("catalog", key));
        let paths: Vec<&str> = observation.files.iter().map(|file| file.path.as_str()).collect();
        let missing = entry.missing_files(&paths);
        // Where the catalog knows another file that stands for a component, it is there.
        if missing.is_empty() {
            health.problems.retain(|problem| {
                problem.kind != ProblemKind::MissingComponent
                    || !problem.path.as_deref().is_some_and(|component| entry.names_component(component))
            });
        }
        let known = [ProblemKind::EmptySnapshot, ProblemKind::NoWeights];
        if let Some(first) = missing.first()
            && !health.problems.iter().any(|problem| known.contains(&problem.kind))
        {
            health.problems.push(Problem::new(
                ProblemKind::MissingRequiredFile,
                Some(first),
                format!(
                    "the catalog says that {} must have {}, and it is not here; download the model again to get it",
                    entry.name,
                    missing.join(", ")
                ),
            ));
        }
    }
    tags.sort_unstable();
    tags.dedup();
    health.status = status_of(health.problems.iter().map(|problem| (problem.kind, problem.severity)));
    let mut name = entry.map_or_else(|| model.name.clone(), |entry| entry.name.clone());
    if let Some(repo) = model.repo.as_ref().filter(|repo| !repo.current) {
        name = format!("{name}@{}", &repo.revision[..8]);
    }
    let reclaim = scan.ledger.reclaim([model.owner]);
    Manifest {
        schema_version: SCHEMA_VERSION,
        model: name,
        model_path: scan.dir_of(model).to_string_lossy().into_owned(),
        store: scan.spec.id(),
        key: model.key.clone(),
        source_id: repo_id,
        variant: None,
        catalog: entry.map(|entry| entry.name.clone()),
        source,
        format,
        architecture,
        parameter_count,
        precision,
        quantization,
        adapter,
        storage: Storage {
            present: true,
            file_count: model.files.len() as u64,
            size_bytes: model.size_bytes(),
            allocated_bytes: model.allocated_bytes(),
            reclaimable_bytes: reclaim.bytes,
            reclaimable_at_least: reclaim.at_least,
            last_modified: model.last_modified(),
            last_accessed: model.last_accessed(),
            last_used: None,
            last_used_by: None,
            files: observation.files,
        },
        health,
        verification: None,
        integrity: None,
        tags,
        notes: None,
        pinned: false,
        user: Default::default(),
        evidence,
        generated_at: now,
        generator: Manifest::generator(),
    }
}
