//! Building a plan from a survey. Nothing is touched.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use mlxman_manifest::registry::{Row, StoreSurvey, Survey, SurveyedModel, store_record, unusable};
use mlxman_manifest::{Manifest, Summary};
use mlxman_store::{FoundModel, OwnerId, ProblemKind, Scan, Stat, StoreKind, Stray};

use crate::facts::facts_of;
use crate::filter::{Facts, FilterSet, near_misses};
use crate::guards::Guards;
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
    /// Pinned models of stores that are not there now: mounted elsewhere, the same models are kept too.
    pub pinned_elsewhere: &'a [Row],
    /// The time now.
    pub now: DateTime<Utc>,
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
    let guards = Guards::of(survey);
    for store in &survey.stores {
        match &store.scan {
            Ok(scan) => of_store(&mut plan, store, scan, asked, &guards),
            Err(_) => plan.problems.extend(store_record(store, asked.now).problems),
        }
    }
    if asked.filters.is_empty() {
        return plan;
    }
    for row in asked.gone {
        if !asked.filters.matches(&facts_of(&row.summary), asked.now) {
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

fn of_store(plan: &mut Plan, store: &StoreSurvey, scan: &Scan, asked: Asked<'_>, guards: &Guards) {
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
        let kept = keep(found, known, scan, rule, asked.pinned_elsewhere);
        match kept.or_else(|| guards.keep(found, &models, scan, rule)) {
            Some((rule, reason)) => plan.kept.push(Kept {
                model: known.summary.model.clone(),
                store: store.spec.id(),
                rule,
                reason,
            }),
            None => chosen.push(Chosen::Model { found, known, rule, reason }),
        }
    }
    if asked.filters.is_empty() {
        for stray in &scan.strays {
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
            if stray.owner.is_some() {
                chosen.push(Chosen::Stray { stray, rule });
            }
        }
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

/// Why a model is kept although it was chosen.
fn keep(
    found: &FoundModel,
    known: &SurveyedModel,
    scan: &Scan,
    rule: Rule,
    pinned_elsewhere: &[Row],
) -> Option<(Keep, String)> {
    if known.summary.pinned {
        return Some((Keep::Pinned, PINNED.to_owned()));
    }
    if let Some(why) = &known.invalid {
        return Some((Keep::ManifestInvalid, format!("what you said of it is not known: {why}")));
    }
    if let Some(other) = pinned_elsewhere.iter().find(|row| is_same(&row.summary, known, scan)) {
        let reason = format!(
            "it is pinned in {}, which is not there now; `mlxman unpin` lets it go",
            other.summary.store
        );
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

/// Whether a model of another store is the same one: the same revision of the same repo; without those, one of the same
/// size in the same place.
fn is_same(other: &Summary, known: &SurveyedModel, scan: &Scan) -> bool {
    let mine = &known.summary;
    let same_kind = other.store.split('=').next() == Some(scan.spec.kind().word());
    match (&other.repo_id, &other.revision, &mine.repo_id, &mine.revision) {
        (Some(repo), Some(revision), Some(my_repo), Some(my_revision)) => {
            // In two hub caches the place also says what kind of repo it is.
            let hubs = same_kind && scan.spec.kind() == StoreKind::Hub;
            repo == my_repo && revision == my_revision && (!hubs || other.key == mine.key)
        }
        _ => same_kind && other.key == mine.key && other.size_bytes == mine.size_bytes,
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
