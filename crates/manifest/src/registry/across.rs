//! What can only be told by looking at several models at once.

use std::collections::{HashMap, HashSet};

use mlxman_store::{FoundModel, RepoKind, Scan, ScanError};

use super::SurveyedModel;
use super::hashes::Hashes;
use super::observe::{Observed, State, Work, again};
use super::sync::SyncObserver;
use crate::compare::{CompareError, Side, SideFile, compare};
use crate::record::{Comparison, Format};
use crate::summary::Summary;

/// By store and key.
type ByModel<T> = HashMap<(String, String), T>;

/// What hashing and looking across models gave.
#[derive(Default)]
pub(super) struct Across {
    pub(super) hashes: Hashes,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) interrupted: bool,
    /// Files that could not be read, and why.
    pub(super) unreadable: Vec<(String, String)>,
    pub(super) save_error: Option<std::io::Error>,
    /// The commit, the repo it belongs to, and the store that says so.
    pub(super) sources: ByModel<(String, String, String)>,
    pub(super) comparisons: ByModel<Comparison>,
    pub(super) adapters: ByModel<Beside>,
}

/// Adapters that lie beside a model.
#[derive(Debug, Clone, Default)]
pub(super) struct Beside {
    /// Their places in the store.
    pub(super) keys: Vec<String>,
    /// One that is made for the base which the model names too: `mlx_lm.fuse` puts its result beside the adapter and
    /// leaves no trace of it in there.
    pub(super) of_same_base: Option<String>,
}

fn stores(observed: &[Result<Observed, ScanError>]) -> impl Iterator<Item = &Observed> {
    observed.iter().flatten()
}

/// A commit names one state of one repo, wherever it is met: `--local-dir` downloads record the commit and not the
/// repo, and a hub cache that has the same commit says which it is.
fn repos_by_commit(observed: &[Result<Observed, ScanError>]) -> HashMap<String, (String, String)> {
    let mut repos = HashMap::new();
    for store in stores(observed) {
        for repo in store.scan.models.iter().filter_map(|model| model.repo.as_ref()) {
            if repo.kind == RepoKind::Model {
                repos.insert(repo.revision.clone(), (repo.id.clone(), store.scan.spec.id()));
            }
        }
    }
    repos
}

pub(super) fn sources_by_commit(
    observed: &[Result<Observed, ScanError>],
) -> ByModel<(String, String, String)> {
    let mut sources = HashMap::new();
    if !stores(observed).any(|store| store.scan.models.iter().any(|model| model.repo.is_none())) {
        return sources;
    }
    let repos = repos_by_commit(observed);
    for store in stores(observed) {
        for (model, work) in store.scan.models.iter().zip(&store.models) {
            if let Work::Fresh { observation, .. } = work
                && observation.source.repo_id.is_none()
                && let Some(commit) = &observation.source.revision
                && let Some((repo_id, told_by)) = repos.get(commit)
            {
                let said = (commit.clone(), repo_id.clone(), told_by.clone());
                sources.insert((store.scan.spec.id(), model.key.clone()), said);
            }
        }
    }
    sources
}

/// Adapters that lie in the same directory of a folder store as a model that they are about.
pub(super) fn adapters_beside(observed: &[Result<Observed, ScanError>]) -> ByModel<Beside> {
    let mut found: ByModel<Beside> = HashMap::new();
    let parent = |key: &str| key.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned());
    for store in stores(observed) {
        let adapters: Vec<(&str, String, String)> = store
            .scan
            .models
            .iter()
            .zip(&store.models)
            .filter(|(model, _)| model.repo.is_none())
            .filter_map(|(model, work)| {
                let (format, base) = match work {
                    Work::Fresh { observation, .. } => (observation.format, observation.adapter.base.clone()),
                    Work::Unchanged(entry) => (entry.summary.format, entry.summary.base_model.clone()),
                    Work::Skipped(entry) => {
                        let summary = &entry.as_ref()?.summary;
                        (summary.format, summary.base_model.clone())
                    }
                };
                (format == Format::Adapter).then(|| Some((model.key.as_str(), parent(&model.key), base?)))?
            })
            .collect();
        if adapters.is_empty() {
            continue;
        }
        for (model, work) in store.scan.models.iter().zip(&store.models) {
            let Work::Fresh { observation, .. } = work else { continue };
            if observation.format == Format::Adapter || model.repo.is_some() {
                continue;
            }
            let mut beside = Beside::default();
            for (key, _, base) in adapters.iter().filter(|(_, place, _)| *place == parent(&model.key)) {
                let own_name = model.key.rsplit('/').next().unwrap_or(&model.key);
                let for_it = base.trim_end_matches('/').rsplit('/').next() == Some(own_name);
                let same_base = observation.source.base_model.contains(base);
                if for_it || same_base {
                    beside.keys.push((*key).to_owned());
                }
                if same_base {
                    beside.of_same_base = Some((*key).to_owned());
                }
            }
            if !beside.keys.is_empty() {
                found.insert((store.scan.spec.id(), model.key.clone()), beside);
            }
        }
    }
    found
}

/// Models that are unchanged themselves, and of which more can be told now: their repo's name, because another store
/// has the same commit; a comparison, because their base has come.
pub(super) fn look_again(observed: &mut [Result<Observed, ScanError>], compares: bool) {
    let needs = |entry: &Summary| {
        (entry.repo_id.is_none() && entry.revision.is_some())
            || (compares && entry.base_model.is_some() && entry.compared_with.is_none())
    };
    let any = stores(observed).any(|store| {
        store.models.iter().any(|work| matches!(work, Work::Unchanged(entry) if needs(&entry.summary)))
    });
    if !any {
        return;
    }
    let repos = repos_by_commit(observed);
    let here: HashSet<String> = repos.values().map(|(repo, _)| repo.clone()).collect();
    for store in observed.iter_mut().flatten() {
        for (model, work) in store.scan.models.iter().zip(&mut store.models) {
            let Work::Unchanged(entry) = work else { continue };
            let summary = &entry.summary;
            let named = summary.repo_id.is_none()
                && summary.revision.as_ref().is_some_and(|commit| repos.contains_key(commit));
            let base_came = compares
                && summary.compared_with.is_none()
                && summary.base_model.as_ref().is_some_and(|base| here.contains(base));
            if named || base_came {
                *work = again(&store.scan, model, entry);
            }
        }
    }
}

/// A catalog's short name goes to one repo of a store: where an alias is there as well, both keep their repo ids.
pub(super) fn one_short_name_each(scan: &Scan, models: &mut [SurveyedModel]) {
    let mut repos: HashMap<String, HashSet<String>> = HashMap::new();
    for model in models.iter() {
        if let (Some(name), Some(repo)) = (&model.summary.catalog, &model.summary.repo_id) {
            repos.entry(name.clone()).or_default().insert(repo.clone());
        }
    }
    if repos.values().all(|repos| repos.len() < 2) {
        return;
    }
    for (model, found) in models.iter_mut().zip(&scan.models) {
        let State::Fresh(fresh) = &mut model.state else { continue };
        let Some(name) = fresh.manifest.catalog.clone() else { continue };
        if repos.get(&name).is_some_and(|repos| repos.len() > 1) {
            fresh.manifest.model = fresh.manifest.model.replacen(&name, &found.name, 1);
            model.summary = Summary::of(&fresh.manifest);
        }
    }
}

/// Compares each model that changed with its base, where that is on the disk too.
pub(super) fn compare_with_base(
    observed: &[Result<Observed, ScanError>],
    hashes: &Hashes,
    observer: &dyn SyncObserver,
) -> ByModel<Comparison> {
    let mut comparisons = HashMap::new();
    for store in stores(observed) {
        for (model, work) in store.scan.models.iter().zip(&store.models) {
            let Work::Fresh { observation, .. } = work else { continue };
            if observation.format == Format::Adapter {
                continue;
            }
            let own_repo = model.repo.as_ref().map(|repo| repo.id.as_str());
            let base = observation
                .source
                .base_model
                .iter()
                .filter(|base| Some(base.as_str()) != own_repo)
                .find_map(|base| Some((base, find_base(observed, base)?)));
            let Some((base, (base_scan, base_model))) = base else { continue };
            let (Some(mine), Some(theirs)) =
                (side(&store.scan, model, &model.name, hashes), side(base_scan, base_model, base, hashes))
            else {
                continue;
            };
            observer.comparing(&model.name, base);
            let go_on = |_| !observer.interrupted();
            match compare(&mine, &theirs, &go_on) {
                Ok(Some(comparison)) => {
                    comparisons.insert((store.scan.spec.id(), model.key.clone()), comparison);
                }
                Err(CompareError::Interrupted) => return comparisons,
                // Nothing to compare, or a file that the model's own inspection already told about.
                Ok(None) | Err(_) => {}
            }
        }
    }
    comparisons
}

fn find_base<'a>(
    observed: &'a [Result<Observed, ScanError>],
    base: &str,
) -> Option<(&'a Scan, &'a FoundModel)> {
    stores(observed).find_map(|store| {
        let found = store.scan.models.iter().find(|model| {
            model
                .repo
                .as_ref()
                .is_some_and(|repo| repo.current && repo.kind == RepoKind::Model && repo.id == base)
        })?;
        Some((&store.scan, found))
    })
}

fn side<'a>(scan: &Scan, model: &'a FoundModel, name: &'a str, hashes: &Hashes) -> Option<Side<'a>> {
    let files: Option<Vec<SideFile>> = model
        .files
        .iter()
        .filter(|file| file.path.ends_with(".safetensors") && !file.path.contains('/'))
        .map(|file| {
            Some(SideFile {
                path: file.path.clone(),
                file: scan.open(file).ok()?,
                identity: (file.stat.dev, file.stat.ino),
                blob: file.blob.as_ref().map(|blob| blob.name.clone()),
                blake3: hashes.get(&file.stat).map(str::to_owned),
            })
        })
        .collect();
    let files = files.filter(|files| !files.is_empty())?;
    Some(Side { name, revision: model.repo.as_ref().map(|repo| repo.revision.as_str()), files })
}
