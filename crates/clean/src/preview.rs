//! Building a plan from a survey. Nothing is touched.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use mlxman_manifest::registry::{
    Row, StoreProblem, StoreSurvey, Survey, SurveyedModel, store_problem, store_record, unusable,
};
use mlxman_manifest::{Manifest, Summary};
use mlxman_store::{
    FileId, FoundModel, OwnerId, ProblemKind, Scan, ScanError, Severity, Stat, StoreKind, StoreSpec, Stray,
};

use crate::apply::Only;
use crate::facts::facts_of;
use crate::filter::{Facts, FilterSet, near_misses};
use crate::guards::{Guards, Of, id_at};
use crate::items::{Going, Items, items_of};
use crate::plan::{Candidate, Keep, Kept, PLAN_VERSION, Plan, PlanStore, Rule};

const PINNED: &str = "it is pinned; `mlxman unpin` lets it go";

/// What a preview is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Which models; an empty set asks for what is safe to go.
    pub filters: &'a FilterSet,
    /// Records of models that are no longer there.
    pub gone: &'a [Row],
    /// Pinned models that were not seen: mounted elsewhere, the same models are kept too.
    pub pinned_elsewhere: &'a [PinnedElsewhere],
    /// Further stores that are known: what their links lead to is needed.
    pub others: &'a [(StoreSpec, Result<Scan, ScanError>)],
    /// Only these rows of all that would be candidates: those of a plan that is made anew to be applied.
    pub only: Option<&'a Only>,
    /// The time now.
    pub now: DateTime<Utc>,
}

/// A pinned model that the survey did not see in its place.
#[derive(Debug, Clone)]
pub struct PinnedElsewhere {
    /// What the registry has of it.
    pub row: Row,
    /// Device and inode of what is in its place, where anything is.
    pub place: Option<FileId>,
}

/// Builds the plan. With filters: the models that match. Without: what is safe to go, never everything — detached
/// snapshots beside one that a ref names, dead partial files, orphan blobs, empty and broken repos, leftovers.
pub fn preview(survey: &Survey, asked: Asked<'_>) -> Plan {
    let mut plan = Plan {
        schema_version: PLAN_VERSION,
        created_at: asked.now,
        generator: Manifest::generator(),
        filters: asked.filters.args().clone(),
        filters_in_words: asked.filters.describe(),
        stores: Vec::new(),
        candidates: Vec::new(),
        shared_items: Vec::new(),
        kept: Vec::new(),
        total_reclaimable_bytes: 0,
        total_reclaimable_at_least: false,
        near_misses: Vec::new(),
        problems: survey
            .unusable
            .iter()
            .map(|(path, why)| unusable(path, why))
            .chain(survey.problems.iter().cloned())
            .collect(),
    };
    let guards = Guards::of(survey, asked.others);
    plan.problems.extend(guards.unanswered().iter().filter_map(|store| {
        let message = format!(
            "a link in {store} could not be followed: it cannot be read, or leads to a volume that does not answer; \
             nobody can tell what it needs, so nothing is in the plan"
        );
        Some(store_problem(&store.parse().ok()?, ProblemKind::Unreadable, &message))
    }));
    for (spec, scan) in asked.others {
        if let Err(error) = scan {
            plan.problems.push(not_asked(spec, error));
        }
    }
    let pins = Pins::of(survey, asked.pinned_elsewhere);
    for (index, store) in survey.stores.iter().enumerate() {
        match &store.scan {
            Ok(scan) => of_store(&mut plan, store, Of { index, scan }, asked, (&guards, &pins)),
            Err(_) => plan.problems.extend(store_record(store, asked.now).problems),
        }
    }
    if asked.filters.is_empty() {
        return plan;
    }
    for row in asked.gone {
        let is_asked = asked.only.is_none_or(|only| only.has(&row.summary.store, &row.summary.key));
        if !is_asked || !asked.filters.matches(&facts_of(&row.summary), asked.now) {
            continue;
        }
        // A record holds what the user said, which a pin keeps as well.
        let kept = match &row.invalid {
            Some(why) => Some((Keep::ManifestInvalid, format!("what you said of it is not known: {why}"))),
            None => row.summary.pinned.then(|| (Keep::Pinned, PINNED.to_owned())),
        };
        match kept {
            Some((rule, reason)) => plan.kept.push(Kept {
                model: row.summary.model.clone(),
                store: row.summary.store.clone(),
                rule,
                reason,
            }),
            None => plan.candidates.push(gone(&row.summary)),
        }
    }
    if plan.candidates.is_empty() && plan.kept.is_empty() {
        let summaries = survey.stores.iter().flat_map(|store| &store.models).map(|model| &model.summary);
        let all: Vec<Facts<'_>> =
            summaries.chain(asked.gone.iter().map(|row| &row.summary)).map(facts_of).collect();
        plan.near_misses = near_misses(asked.filters, &all, asked.now);
    }
    plan
}

/// A candidate before it is known which others there are.
enum Chosen<'a> {
    Model { found: &'a FoundModel, known: &'a SurveyedModel, rule: Rule, reason: String },
    Stray { stray: &'a Stray, rule: Rule },
}

fn of_store(
    plan: &mut Plan,
    store: &StoreSurvey,
    of: Of<'_>,
    asked: Asked<'_>,
    (guards, pins): (&Guards, &Pins<'_>),
) {
    let scan = of.scan;
    let models: Vec<(&FoundModel, &SurveyedModel)> = scan.models.iter().zip(&store.models).collect();
    let mut chosen: Vec<Chosen<'_>> = Vec::new();
    for (found, known) in &models {
        let why = if asked.filters.is_empty() {
            safe_to_go(found, scan)
        } else if asked.filters.matches(&facts_of(&known.summary), asked.now) {
            Some((Rule::Filter, asked.filters.describe().join("; ")))
        } else {
            None
        };
        let Some((rule, reason)) = why else { continue };
        let kept = keep(found, known, scan, rule, pins);
        match kept.or_else(|| guards.keep_model(of, (found, known), &models, rule)) {
            Some((rule, reason)) => plan.kept.push(Kept {
                model: known.summary.model.clone(),
                store: store.spec.id(),
                rule,
                reason,
            }),
            None => chosen.push(Chosen::Model { found, known, rule, reason }),
        }
    }
    let means =
        |stray: &&Stray| asked.filters.is_empty() || asked.filters.mean_repo(stray.repo_id.as_deref());
    if scan.strays.iter().any(|stray| means(&stray)) {
        let keep_stray = |stray: &Stray| in_pinned(stray, &models).or_else(|| guards.keep_stray(of, stray));
        for stray in scan.strays.iter().filter(means) {
            let rule = match stray.problem.kind {
                ProblemKind::PartialDead => Rule::DeadPartial,
                ProblemKind::OrphanBlob => Rule::Orphan,
                ProblemKind::RepoWithoutSnapshot => Rule::BrokenRepo,
                ProblemKind::StaleLocks => Rule::StaleLocks,
                ProblemKind::PartialLive => {
                    plan.kept.push(Kept {
                        model: stray.problem.path.clone().unwrap_or_default(),
                        store: store.spec.id(),
                        rule: Keep::InUse,
                        reason: stray.problem.message.clone(),
                    });
                    continue;
                }
                _ => continue,
            };
            // Without an owner it is not free to go: somebody holds it, or nobody can tell who does.
            if stray.owner.is_none() {
                continue;
            }
            // A repo goes as a whole, or what is kept of it needs its directory.
            let in_repo = |other: &&Stray| {
                rule == Rule::BrokenRepo
                    && other.owner.is_some()
                    && other.repo_id == stray.repo_id
                    && is_in(other.problem.path.as_deref(), stray.problem.path.as_deref())
            };
            let kept = keep_stray(stray).or_else(|| scan.strays.iter().filter(in_repo).find_map(keep_stray));
            match kept {
                Some((rule, reason)) => plan.kept.push(Kept {
                    model: stray.problem.path.clone().unwrap_or_default(),
                    store: store.spec.id(),
                    rule,
                    reason,
                }),
                None => chosen.push(Chosen::Stray { stray, rule }),
            }
        }
    }
    if let Some(only) = asked.only {
        let id = store.spec.id();
        chosen.retain(|one| match one {
            Chosen::Model { found, .. } => only.has(&id, &found.key),
            Chosen::Stray { stray, .. } => only.has(&id, stray.problem.path.as_deref().unwrap_or_default()),
        });
    }
    let going: HashSet<OwnerId> = chosen
        .iter()
        .filter_map(|one| match one {
            Chosen::Model { found, .. } => Some(found.owner),
            Chosen::Stray { stray, .. } => stray.owner,
        })
        .collect();
    let total = scan.ledger.reclaim(going.iter().copied());
    plan.total_reclaimable_bytes = plan.total_reclaimable_bytes.saturating_add(total.bytes);
    plan.total_reclaimable_at_least |= total.at_least;
    let mut rows: Vec<(Candidate, Going<'_>)> = chosen
        .into_iter()
        .map(|one| match one {
            Chosen::Model { found, known, rule, reason } => {
                (model_row(scan, found, &known.summary, rule, reason), Going::Model(found))
            }
            Chosen::Stray { stray, rule } => (stray_row(scan, stray, rule), Going::Stray(stray)),
        })
        .collect();
    rows.sort_by(|(a, _), (b, _)| {
        b.reclaimable_bytes
            .cmp(&a.reclaimable_bytes)
            .then_with(|| (&a.model, &a.path).cmp(&(&b.model, &b.path)))
    });
    let (mut rows, going): (Vec<Candidate>, Vec<Going<'_>>) = rows.into_iter().unzip();
    let Items { by_row, shared } = items_of(scan, &going);
    for (row, items) in rows.iter_mut().zip(by_row) {
        row.items = items;
    }
    // Rows are numbered through all stores.
    let before = plan.candidates.len();
    plan.shared_items.extend(shared.into_iter().map(|mut item| {
        item.needs.iter_mut().for_each(|row| *row += before);
        item
    }));
    plan.candidates.append(&mut rows);
    let root = scan.root().stat().ok();
    plan.stores.push(PlanStore {
        store: store.spec.id(),
        device: root.map_or(0, |stat| stat.dev),
        inode: root.map_or(0, |stat| stat.ino),
        state: state_of(scan),
        usage: scan.usage(),
        filesystem: scan.filesystem.clone(),
    });
}

/// Why a model is safe to go, if it is.
fn safe_to_go(found: &FoundModel, scan: &Scan) -> Option<(Rule, String)> {
    if found.problems.iter().any(|problem| problem.kind == ProblemKind::EmptySnapshot)
        && found.files.is_empty()
    {
        return Some((Rule::Empty, "there is no file in it".to_owned()));
    }
    let repo = found.repo.as_ref().filter(|repo| repo.detached() == Some(true))?;
    let named = scan
        .models
        .iter()
        .filter_map(|other| other.repo.as_ref())
        .find(|other| other.kind == repo.kind && other.id == repo.id && other.detached() == Some(false));
    Some(match named {
        Some(other) => (
            Rule::Detached,
            format!("no ref names this revision; {} is at {}", other.refs.join(", "), &other.revision[..8]),
        ),
        None => (Rule::Detached, "no ref names this revision".to_owned()),
    })
}

/// What is pinned under another name than the one that a store is read by.
struct Pins<'a> {
    elsewhere: &'a [PinnedElsewhere],
    /// By device and inode of its place: where a pinned model lies.
    places: HashMap<FileId, &'a str>,
}

impl<'a> Pins<'a> {
    fn of(survey: &'a Survey, elsewhere: &'a [PinnedElsewhere]) -> Self {
        let seen = survey.stores.iter().filter_map(|store| Some((store, store.scan.as_ref().ok()?)));
        let seen = seen.flat_map(|(store, scan)| {
            let models = scan.models.iter().zip(&store.models).filter(|(_, known)| known.summary.pinned);
            models.filter_map(|(found, known)| Some((id_at(scan, &found.key)?, known.summary.store.as_str())))
        });
        let unseen =
            elsewhere.iter().filter_map(|other| Some((other.place?, other.row.summary.store.as_str())));
        Pins { elsewhere, places: seen.chain(unseen).collect() }
    }

    /// Why a pin that another name bears holds for this one, if one does.
    fn holds(&self, found: &FoundModel, known: &SurveyedModel, scan: &Scan) -> Option<String> {
        let mine = id_at(scan, &found.key);
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

/// Whether the first path lies in the directory at the second.
fn is_in(path: Option<&str>, dir: Option<&str>) -> bool {
    let (Some(path), Some(dir)) = (path, dir) else { return false };
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether it lies in the directory of a pinned model: that holds for all that is in it.
fn in_pinned(stray: &Stray, models: &[(&FoundModel, &SurveyedModel)]) -> Option<(Keep, String)> {
    let path = stray.problem.path.as_deref()?;
    let inside = |found: &FoundModel| found.key.is_empty() || is_in(Some(path), Some(&found.key));
    let (_, known) = models.iter().find(|(found, known)| known.summary.pinned && inside(found))?;
    let reason = format!("it lies in {}, which is pinned; `mlxman unpin` lets it go", known.summary.model);
    Some((Keep::Pinned, reason))
}

/// A store that is known and could not be asked what its links need.
fn not_asked(spec: &StoreSpec, error: &ScanError) -> StoreProblem {
    let kind = error.problem().kind;
    let message =
        format!("nobody can tell what links in it need here: {error}; look at it before you remove anything");
    let mut problem = store_problem(spec, kind, &message);
    // A volume that is away for good must not make every plan a bad one.
    if kind == ProblemKind::StoreUnavailable {
        problem.problem.severity = Severity::Info;
    }
    problem
}

/// Why a model is kept although it was chosen.
fn keep(
    found: &FoundModel,
    known: &SurveyedModel,
    scan: &Scan,
    rule: Rule,
    pins: &Pins<'_>,
) -> Option<(Keep, String)> {
    if known.summary.pinned {
        return Some((Keep::Pinned, PINNED.to_owned()));
    }
    if let Some(why) = &known.invalid {
        return Some((Keep::ManifestInvalid, format!("what you said of it is not known: {why}")));
    }
    if let Some(reason) = pins.holds(found, known, scan) {
        return Some((Keep::PinnedElsewhere, reason));
    }
    let live = scan.strays.iter().find(|stray| {
        stray.problem.kind == ProblemKind::PartialLive
            && match (&found.repo, &stray.repo_id) {
                (Some(repo), Some(id)) => repo.id == *id,
                (None, None) => stray.problem.path.as_ref().is_some_and(|path| path.starts_with(&found.key)),
                _ => false,
            }
    });
    if live.is_some() {
        return Some((Keep::InUse, "a download is writing to it".to_owned()));
    }
    let repo = found.repo.as_ref()?;
    let others = scan
        .models
        .iter()
        .filter_map(|other| other.repo.as_ref())
        .any(|other| other.kind == repo.kind && other.id == repo.id && other.detached() == Some(false));
    (rule == Rule::Detached && !others).then(|| {
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

fn model_row(scan: &Scan, found: &FoundModel, summary: &Summary, rule: Rule, reason: String) -> Candidate {
    let reclaim = scan.ledger.reclaim([found.owner]);
    Candidate {
        model: Some(summary.model.clone()),
        path: None,
        store: scan.spec.id(),
        key: Some(found.key.clone()),
        repo_id: summary.repo_id.clone(),
        revision: summary.revision.clone(),
        rule,
        problem: None,
        reason,
        size_bytes: found.size_bytes(),
        reclaimable_bytes: reclaim.bytes,
        reclaimable_at_least: reclaim.at_least,
        last_used: found.last_accessed(),
        last_modified: found.last_modified(),
        pinned: summary.pinned,
        in_use: false,
        items: Vec::new(),
    }
}

fn stray_row(scan: &Scan, stray: &Stray, rule: Rule) -> Candidate {
    let reclaim = scan.ledger.reclaim(stray.owner);
    Candidate {
        model: None,
        path: stray.problem.path.clone(),
        store: scan.spec.id(),
        key: None,
        repo_id: stray.repo_id.clone(),
        revision: None,
        rule,
        problem: Some(stray.problem.kind),
        reason: stray.problem.message.clone(),
        size_bytes: stray.size_bytes(),
        reclaimable_bytes: reclaim.bytes,
        reclaimable_at_least: reclaim.at_least,
        last_used: None,
        last_modified: stray.last_modified(),
        pinned: false,
        in_use: false,
        items: Vec::new(),
    }
}

fn gone(summary: &Summary) -> Candidate {
    Candidate {
        model: Some(summary.model.clone()),
        path: None,
        store: summary.store.clone(),
        key: Some(summary.key.clone()),
        repo_id: summary.repo_id.clone(),
        revision: summary.revision.clone(),
        rule: Rule::Missing,
        problem: None,
        reason: "its files are gone; only its record is left".to_owned(),
        size_bytes: 0,
        reclaimable_bytes: 0,
        reclaimable_at_least: false,
        last_used: summary.used,
        last_modified: summary.modified,
        pinned: summary.pinned,
        in_use: false,
        items: Vec::new(),
    }
}

fn state_of(scan: &Scan) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut stat = |path: &str, stat: &Stat| {
        hasher.update(path.as_bytes());
        for number in [stat.dev, stat.ino, stat.size, stat.mtime_ns as u64] {
            hasher.update(&number.to_le_bytes());
        }
    };
    for model in &scan.models {
        for file in &model.files {
            stat(&file.real, &file.stat);
            if let Some(link) = &file.link {
                stat(&link.target, &link.stat);
            }
        }
        for (path, of_dir) in model.dirs.iter().chain(&model.listing) {
            stat(path, of_dir);
        }
        for record in &model.records {
            stat(&record.path, &record.stat);
        }
    }
    for item in scan.strays.iter().flat_map(|stray| &stray.items) {
        stat(&item.path, &item.stat);
    }
    hasher.finalize().to_hex().to_string()
}
