//! Building a plan from a survey. Nothing is touched.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use mlxman_manifest::registry::{
    Row, StoreProblem, StoreSurvey, Survey, SurveyedModel, store_problem, store_record, unusable,
};
use mlxman_manifest::{FileRecord, Manifest, Summary};
use mlxman_store::{
    FileId, FoundModel, OwnerId, ProblemKind, Scan, ScanError, Severity, Stat, StoreKind, StoreSpec, Stray,
};

use crate::apply::{Only, QUIET, just_written};
use crate::facts::facts_of;
use crate::filter::{Facts, FilterSet, near_misses};
use crate::grace::LastUse;
use crate::guards::{Guards, Of};
use crate::irreplaceable::irreplaceable;
use crate::items::{Going, Items, items_of};
use crate::pins::{PINNED, Pins, in_pinned, is_in, named_beside};
use crate::plan::{Candidate, Keep, Kept, PLAN_VERSION, Plan, PlanStore, Reason, Rule};
use crate::policy::{Choice, Holds, Policies, World, choose, facts_of_stray, stray_rule};

/// What a preview is asked.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Which models; an empty set, without policies, asks for what is safe to go.
    pub filters: &'a FilterSet,
    /// What names them by rules of its own, within the filters.
    pub policies: &'a Policies,
    /// The files of a model with the hashes that are known of them: what tells that two are the same.
    pub files: &'a dyn Fn(&SurveyedModel) -> Vec<FileRecord>,
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

/// Builds the plan. With policies: what they name within the filters. With filters alone: the models that match. With
/// neither: what is safe to go, never everything — detached snapshots beside one that a ref names, dead partial files,
/// orphan blobs, empty and broken repos, leftovers.
pub fn preview(survey: &Survey, asked: Asked<'_>) -> Plan {
    let mut plan = Plan {
        schema_version: PLAN_VERSION,
        created_at: asked.now,
        generator: Manifest::generator(),
        filters: asked.filters.args().clone(),
        filters_in_words: asked.filters.describe(),
        policies: asked.policies.args().clone(),
        policies_in_words: asked.policies.describe(),
        stores: Vec::new(),
        candidates: Vec::new(),
        shared_items: Vec::new(),
        kept: Vec::new(),
        total_reclaimable_bytes: 0,
        total_reclaimable_at_least: false,
        shortfalls: Vec::new(),
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
    let holds = Holds { guards: &guards, pins: &pins, policies: asked.policies, now: asked.now };
    let mut choice =
        (!asked.policies.is_empty()).then(|| choose(&World::of(survey, &asked), &holds, asked.files));
    if let Some(choice) = &mut choice {
        plan.kept.append(&mut choice.kept);
        plan.shortfalls.append(&mut choice.shortfalls);
    }
    for (index, store) in survey.stores.iter().enumerate() {
        match &store.scan {
            Ok(scan) => of_store(&mut plan, store, Of { index, scan }, asked, (&holds, choice.as_mut())),
            Err(_) => plan.problems.extend(store_record(store, asked.now).problems),
        }
    }
    if asked.filters.is_empty() {
        return plan;
    }
    // A record keeps what the user said of a model; it is shown to whoever asks for records.
    for row in asked.gone.iter().filter(|_| asked.filters.args().missing_only) {
        let is_asked = asked.only.is_none_or(|only| only.has(&row.summary.store, &row.summary.key));
        // There is nothing in its place that a policy could name.
        if !is_asked || choice.is_some() || !asked.filters.matches(&facts_of(&row.summary), asked.now) {
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
    let ids: Vec<String> = survey.stores.iter().map(|store| store.spec.id()).collect();
    let summaries = survey.stores.iter().flat_map(|store| &store.models).map(|model| &model.summary);
    let all: Vec<Facts<'_>> =
        summaries.chain(asked.gone.iter().map(|row| &row.summary)).map(facts_of).collect();
    let mut strays: Vec<Facts<'_>> = Vec::new();
    for (store, id) in survey.stores.iter().zip(&ids) {
        let Ok(scan) = &store.scan else { continue };
        strays.extend(scan.strays.iter().map(|stray| facts_of_stray(scan, stray, id)));
    }
    plan.near_misses = near_misses(asked.filters, &all, &strays, asked.now);
    plan
}

/// A candidate before it is known which others there are.
enum Chosen<'a> {
    Model { found: &'a FoundModel, known: &'a SurveyedModel, reasons: Vec<Reason> },
    Stray { stray: &'a Stray, reasons: Vec<Reason> },
}

fn of_store(
    plan: &mut Plan,
    store: &StoreSurvey,
    of: Of<'_>,
    asked: Asked<'_>,
    (holds, choice): (&Holds<'_>, Option<&mut Choice>),
) {
    let scan = of.scan;
    let models: Vec<(&FoundModel, &SurveyedModel)> = scan.models.iter().zip(&store.models).collect();
    let mut chosen: Vec<Chosen<'_>> = Vec::new();
    let by_filters = choice.is_none();
    let safe = by_filters && asked.filters.is_empty();
    if let Some(choice) = choice {
        // They were asked about already.
        let mut reasons = |at: usize| choice.models.remove(&(of.index, at));
        chosen.extend(
            models.iter().enumerate().filter_map(|(at, &(found, known))| {
                Some(Chosen::Model { found, known, reasons: reasons(at)? })
            }),
        );
        let mut reasons = |at: usize| choice.strays.remove(&(of.index, at));
        chosen.extend(
            scan.strays
                .iter()
                .enumerate()
                .filter_map(|(at, stray)| Some(Chosen::Stray { stray, reasons: reasons(at)? })),
        );
    } else {
        let in_words = asked.filters.describe().join("; ");
        let why = |&(found, known): &(&FoundModel, &SurveyedModel)| match safe {
            true => safe_to_go(found, scan),
            false => asked
                .filters
                .matches(&facts_of(&known.summary), asked.now)
                .then(|| (Rule::Filter, in_words.clone())),
        };
        let named: Vec<_> = models.iter().filter_map(|model| Some((*model, why(model)?))).collect();
        holds.guards.ask_locks(of, named.iter().map(|((found, _), _)| *found));
        for ((found, known), (rule, reason)) in named {
            match holds.model(of, (found, known), &models, rule) {
                Some((rule, reason)) => plan.kept.push(Kept {
                    model: known.summary.model.clone(),
                    store: store.spec.id(),
                    rule,
                    reason,
                }),
                None => chosen.push(Chosen::Model { found, known, reasons: vec![Reason { rule, reason }] }),
            }
        }
    }
    let means = |stray: &&Stray| safe || (by_filters && asked.filters.mean_repo(stray.repo_id.as_deref()));
    if by_filters {
        for stray in scan.strays.iter().filter(means) {
            let kept = if stray.problem.kind == ProblemKind::PartialLive {
                Some((Keep::InUse, stray.problem.message.clone()))
            } else {
                let Some((rule, _)) = stray_rule(stray) else { continue };
                let kept = holds.stray(of, stray, &models, rule);
                if kept.is_none() {
                    let reason = stray.problem.message.clone();
                    chosen.push(Chosen::Stray { stray, reasons: vec![Reason { rule, reason }] });
                }
                kept
            };
            plan.kept.extend(kept.map(|(rule, reason)| Kept {
                model: stray.problem.path.clone().unwrap_or_default(),
                store: store.spec.id(),
                rule,
                reason,
            }));
        }
    }
    if let Some(only) = asked.only {
        let id = store.spec.id();
        chosen.retain(|one| match one {
            Chosen::Model { found, .. } => only.has(&id, &found.key),
            Chosen::Stray { stray, .. } => only.has(&id, stray.problem.path.as_deref().unwrap_or_default()),
        });
    }
    plan.kept.extend(just_written_to(store, scan, &mut chosen, asked.now));
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
            Chosen::Model { found, known, reasons } => {
                (model_row(scan, found, known, reasons), Going::Model(found))
            }
            Chosen::Stray { stray, reasons } => (stray_row(scan, stray, reasons), Going::Stray(stray)),
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

/// Takes out what lies in repos that were written to a moment ago: a download holds no lock between two files.
fn just_written_to(
    store: &StoreSurvey,
    scan: &Scan,
    chosen: &mut Vec<Chosen<'_>>,
    now: DateTime<Utc>,
) -> Vec<Kept> {
    if scan.spec.kind() != StoreKind::Hub {
        return Vec::new();
    }
    let going: HashSet<OwnerId> = chosen
        .iter()
        .filter_map(|one| match one {
            Chosen::Model { found, .. } => Some(found.owner),
            Chosen::Stray { .. } => None,
        })
        .collect();
    let is_new = |stat: &Stat| (now - DateTime::from_timestamp_nanos(stat.mtime_ns)).abs() < QUIET;
    let written = |repo: &str| {
        let stay = scan.models[scan.models_in(repo)].iter().filter(|found| !going.contains(&found.owner));
        stay.flat_map(|found| &found.dirs).find(|(_, stat)| is_new(stat)).map(|(dir, _)| just_written(dir))
    };
    let mut asked: HashMap<String, Option<String>> = HashMap::new();
    let mut kept = Vec::new();
    chosen.retain(|one| {
        let (place, what) = match one {
            Chosen::Model { found, known, .. } => (found.key.as_str(), known.summary.model.clone()),
            Chosen::Stray { stray, .. } => {
                let path = stray.problem.path.as_deref().unwrap_or_default();
                (path, path.to_owned())
            }
        };
        let repo = place.strip_prefix(".locks/").unwrap_or(place).split('/').next().unwrap_or_default();
        let why = asked.entry(repo.to_owned()).or_insert_with(|| written(repo));
        kept.extend(why.clone().map(|reason| Kept {
            model: what,
            store: store.spec.id(),
            rule: Keep::InUse,
            reason,
        }));
        why.is_none()
    });
    kept
}

/// Why what is no model is kept, if it is.
pub(crate) fn stray_kept(
    of: Of<'_>,
    stray: &Stray,
    models: &[(&FoundModel, &SurveyedModel)],
    guards: &Guards,
    rule: Rule,
) -> Option<(Keep, String)> {
    let keep_stray = |stray: &Stray| in_pinned(stray, models).or_else(|| guards.keep_stray(of, stray));
    // A repo goes as a whole, or what is kept of it needs its directory.
    let in_repo = |other: &&Stray| {
        rule == Rule::BrokenRepo
            && other.owner.is_some()
            && other.repo_id == stray.repo_id
            && is_in(other.problem.path.as_deref(), stray.problem.path.as_deref())
    };
    keep_stray(stray).or_else(|| of.scan.strays.iter().filter(in_repo).find_map(keep_stray))
}

/// Why a model is safe to go, if it is.
pub(crate) fn safe_to_go(found: &FoundModel, scan: &Scan) -> Option<(Rule, String)> {
    if found.problems.iter().any(|problem| problem.kind == ProblemKind::EmptySnapshot)
        && found.files.is_empty()
    {
        return Some((Rule::Empty, "there is no file in it".to_owned()));
    }
    found.repo.as_ref().filter(|repo| repo.detached() == Some(true))?;
    let named = named_beside(found, scan);
    Some(match named {
        Some(other) => (
            Rule::Detached,
            format!("no ref names this revision; {} is at {}", other.refs.join(", "), &other.revision[..8]),
        ),
        None => (Rule::Detached, "no ref names this revision".to_owned()),
    })
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

/// The first reason's rule, and all reasons in words.
fn why(reasons: &[Reason]) -> (Rule, String) {
    let words: Vec<&str> = reasons.iter().map(|reason| reason.reason.as_str()).collect();
    (reasons.first().map_or(Rule::Filter, |reason| reason.rule), words.join("; "))
}

/// A single reason stands in the row itself.
fn several(reasons: Vec<Reason>) -> Vec<Reason> {
    if reasons.len() > 1 { reasons } else { Vec::new() }
}

fn model_row(scan: &Scan, found: &FoundModel, known: &SurveyedModel, reasons: Vec<Reason>) -> Candidate {
    let summary = &known.summary;
    let used = LastUse::of(known);
    let irreplaceable_reason = irreplaceable(scan, found, known);
    let (rule, reason) = why(&reasons);
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
        reasons: several(reasons),
        irreplaceable: irreplaceable_reason.is_some(),
        irreplaceable_reason,
        size_bytes: found.size_bytes(),
        reclaimable_bytes: reclaim.bytes,
        reclaimable_at_least: reclaim.at_least,
        last_used: used.map(|used| used.time),
        last_used_by: used.map(|used| used.by),
        last_modified: found.last_modified(),
        pinned: summary.pinned,
        in_use: false,
        items: Vec::new(),
    }
}

fn stray_row(scan: &Scan, stray: &Stray, reasons: Vec<Reason>) -> Candidate {
    let (rule, reason) = why(&reasons);
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
        reason,
        reasons: several(reasons),
        irreplaceable: false,
        irreplaceable_reason: None,
        size_bytes: stray.size_bytes(),
        reclaimable_bytes: reclaim.bytes,
        reclaimable_at_least: reclaim.at_least,
        last_used: None,
        last_used_by: None,
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
        reason: "its files are gone already; its record stays, with what you said of it".to_owned(),
        reasons: Vec::new(),
        irreplaceable: false,
        irreplaceable_reason: None,
        size_bytes: 0,
        reclaimable_bytes: 0,
        reclaimable_at_least: false,
        last_used: summary.last_used().map(|(time, _)| time),
        last_used_by: summary.last_used().map(|(_, by)| by),
        last_modified: summary.modified,
        pinned: summary.pinned,
        in_use: false,
        items: Vec::new(),
    }
}

fn state_of(scan: &Scan) -> String {
    // The hash is several times as quick over much at once.
    const MUCH: usize = 256 << 10;
    let mut hasher = blake3::Hasher::new();
    let mut bytes: Vec<u8> = Vec::with_capacity(MUCH + 4096);
    let mut stat = |path: &str, stat: &Stat| {
        bytes.extend_from_slice(path.as_bytes());
        for number in [stat.dev, stat.ino, stat.size, stat.mtime_ns as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        if bytes.len() >= MUCH {
            hasher.update(&bytes);
            bytes.clear();
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
            // One that undo made again has another number, and is the same with its time.
            stat(path, &Stat { ino: 0, size: 0, ..*of_dir });
        }
        for record in &model.records {
            stat(&record.path, &record.stat);
        }
    }
    for item in scan.strays.iter().flat_map(|stray| &stray.items) {
        stat(&item.path, &item.stat);
    }
    hasher.update(&bytes);
    hasher.finalize().to_hex().to_string()
}
