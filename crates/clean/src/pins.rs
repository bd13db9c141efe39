//! What a user said of a model keeps it, under whatever name it was said; so does a download that is at work on it.

use std::collections::HashMap;

use mlxman_manifest::Summary;
use mlxman_manifest::registry::{Survey, SurveyedModel};
use mlxman_store::{FileId, FoundModel, ProblemKind, RepoSnapshot, Scan, StoreKind, Stray};

use crate::guards::id_at;
use crate::plan::{Keep, Rule};
use crate::preview::PinnedElsewhere;

pub(crate) const PINNED: &str = "it is pinned; `mlxman unpin` lets it go";

/// What is pinned under another name than the one that a store is read by.
pub(crate) struct Pins<'a> {
    elsewhere: &'a [PinnedElsewhere],
    /// By device and inode of its place: where a pinned model lies.
    places: HashMap<FileId, &'a str>,
    /// By store and repo's directory: a pinned snapshot of it.
    repos: HashMap<(&'a str, &'a str), &'a str>,
}

impl<'a> Pins<'a> {
    pub(crate) fn of(survey: &'a Survey, elsewhere: &'a [PinnedElsewhere]) -> Self {
        let seen = survey.stores.iter().filter_map(|store| Some((store, store.scan.as_ref().ok()?)));
        let seen = seen.flat_map(|(store, scan)| {
            let models = scan.models.iter().zip(&store.models).filter(|(_, known)| known.summary.pinned);
            models.filter_map(|(found, known)| Some((id_of(scan, found)?, known.summary.store.as_str())))
        });
        let unseen =
            elsewhere.iter().filter_map(|other| Some((other.place?, other.row.summary.store.as_str())));
        let all = survey.stores.iter().flat_map(|store| &store.models).map(|known| &known.summary);
        let all = all.chain(elsewhere.iter().map(|other| &other.row.summary));
        let repos = all.filter(|summary| summary.pinned).filter_map(|summary| {
            Some(((summary.store.as_str(), repo_of(&summary.key)?), summary.model.as_str()))
        });
        Pins { elsewhere, places: seen.chain(unseen).collect(), repos: repos.collect() }
    }

    /// Why the pin of another snapshot of the repo holds for this one, if one does: who pins a model by its name means what
    /// the name is tomorrow as well, and a download makes that another snapshot.
    fn of_repo(&self, found: &FoundModel, known: &SurveyedModel) -> Option<String> {
        found.repo.as_ref().filter(|repo| repo.detached() != Some(true))?;
        let other = self.repos.get(&(known.summary.store.as_str(), repo_of(&found.key)?))?;
        Some(format!(
            "{other} is pinned, and the pin of one revision holds for the one that a ref of its repo names; \
             `mlxman unpin {other}` lets it go"
        ))
    }

    /// Why a pin that another name bears holds for this one, if one does.
    pub(crate) fn holds(&self, found: &FoundModel, known: &SurveyedModel, scan: &Scan) -> Option<String> {
        let mine = id_of(scan, found);
        if let Some(store) = mine.and_then(|id| self.places.get(&id)) {
            return Some(format!(
                "it is pinned in {store}, which is another name of the same place; `mlxman unpin` lets it go"
            ));
        }
        let away = self.elsewhere.iter().filter(|other| other.place.is_none());
        let other = away.map(|other| &other.row.summary).find(|other| is_same(other, known, scan))?;
        let store = &other.store;
        Some(format!("it is pinned in {store}, where it is not now; `mlxman unpin` lets it go"))
    }
}

/// Device and inode of a model's place.
fn id_of(scan: &Scan, found: &FoundModel) -> Option<FileId> {
    found.own_dir().map(|stat| (stat.dev, stat.ino)).or_else(|| id_at(scan, &found.key))
}

/// Whether the first path lies in the directory at the second.
pub(crate) fn is_in(path: Option<&str>, dir: Option<&str>) -> bool {
    let (Some(path), Some(dir)) = (path, dir) else { return false };
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether it lies in the directory of a pinned model: that holds for all that is in it.
pub(crate) fn in_pinned(stray: &Stray, models: &[(&FoundModel, &SurveyedModel)]) -> Option<(Keep, String)> {
    let path = stray.problem.path.as_deref()?;
    let inside = |found: &FoundModel| found.key.is_empty() || is_in(Some(path), Some(&found.key));
    let (_, known) = models.iter().find(|(found, known)| known.summary.pinned && inside(found))?;
    let reason = format!("it lies in {}, which is pinned; `mlxman unpin` lets it go", known.summary.model);
    Some((Keep::Pinned, reason))
}

/// Why a model is kept although it was chosen: what its user said of it, or who is at work on it.
pub(crate) fn keep(
    found: &FoundModel,
    known: &SurveyedModel,
    scan: &Scan,
    rule: Rule,
    pins: &Pins<'_>,
) -> Option<(Keep, String)> {
    words_of_user(found, known, scan, pins)
        .or_else(|| download_at_work(found, scan))
        .or_else(|| only_snapshot(found, scan, rule))
}

/// A pin, under whatever name; where nobody can tell what was said, it counts as one.
pub(crate) fn words_of_user(
    found: &FoundModel,
    known: &SurveyedModel,
    scan: &Scan,
    pins: &Pins<'_>,
) -> Option<(Keep, String)> {
    if known.summary.pinned {
        return Some((Keep::Pinned, PINNED.to_owned()));
    }
    if let Some(why) = &known.invalid {
        return Some((Keep::ManifestInvalid, format!("what you said of it is not known: {why}")));
    }
    let of_repo = pins.of_repo(found, known).map(|reason| (Keep::Pinned, reason));
    of_repo.or_else(|| pins.holds(found, known, scan).map(|reason| (Keep::PinnedElsewhere, reason)))
}

/// The directory of the repo that a snapshot's place lies in.
fn repo_of(key: &str) -> Option<&str> {
    key.split_once("/snapshots/").map(|(repo, _)| repo)
}

/// Whether a download is writing to it.
pub(crate) fn download_at_work(found: &FoundModel, scan: &Scan) -> Option<(Keep, String)> {
    let near = match (&found.repo, found.key.split('/').next()) {
        (Some(_), Some(repo)) => scan.strays_in(repo),
        _ => &scan.strays,
    };
    let live = near.iter().any(|stray| {
        let is_its = match (&found.repo, &stray.repo_id) {
            (Some(repo), Some(id)) => repo.id == *id,
            (None, None) => stray.problem.path.as_ref().is_some_and(|path| path.starts_with(&found.key)),
            _ => false,
        };
        stray.problem.kind == ProblemKind::PartialLive && is_its
    });
    live.then(|| (Keep::InUse, "a download is writing to it".to_owned()))
}

/// The snapshot of the same repo that a ref names, the first of them.
pub(crate) fn named_beside<'a>(found: &FoundModel, scan: &'a Scan) -> Option<&'a RepoSnapshot> {
    let beside = scan.models[scan.snapshots_beside(found)].iter();
    beside.filter_map(|other| other.repo.as_ref()).find(|other| other.detached() == Some(false))
}

/// Whether nothing else of its repo is named by a ref.
pub(crate) fn only_snapshot(found: &FoundModel, scan: &Scan, rule: Rule) -> Option<(Keep, String)> {
    let is_only = rule == Rule::Detached && found.repo.is_some() && named_beside(found, scan).is_none();
    is_only.then(|| {
        let reason = "no ref names it, and no other snapshot of the repo is named by one: \
                      somebody asked for this revision by its commit";
        (Keep::OnlySnapshot, reason.to_owned())
    })
}

/// Whether a model of another store is the same one: the same revision of the same repo; without those, one in the
/// same place.
fn is_same(other: &Summary, known: &SurveyedModel, scan: &Scan) -> bool {
    let mine = &known.summary;
    let same_kind = other.store.split('=').next() == Some(scan.spec.kind().word());
    match (&other.repo_id, &other.revision, &mine.repo_id, &mine.revision) {
        (Some(repo), Some(revision), Some(my_repo), Some(my_revision)) => {
            // In two hub caches the place also says what kind of repo it is.
            let hubs = same_kind && scan.spec.kind() == StoreKind::Hub;
            repo == my_repo && revision == my_revision && (!hubs || other.key == mine.key)
        }
        // Its size may have changed since.
        _ => same_kind && other.key == mine.key,
    }
}
