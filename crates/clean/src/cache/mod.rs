//! What a hub cache holds: what `hf cache ls` shows, and what it leaves out.

mod measure;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use chrono::{DateTime, Utc};
use mlxman_manifest::registry::{StoreProblem, StoreSurvey, Survey, SurveyedModel, store_record};
use mlxman_manifest::{HealthStatus, Manifest};
use mlxman_store::{
    EntryKind, Filesystem, FoundModel, OwnerId, ProblemKind, RepoKind, Scan, Stray, TRASH, Usage,
};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

pub use measure::{Measured, measure};

/// The version of the form.
const HUB_VERSION: u32 = 1;

/// What lies in hub caches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman hub caches")]
#[non_exhaustive]
pub struct HubReport {
    /// Version of this form.
    #[schemars(range(min = 1, max = 1))]
    pub schema_version: u32,
    /// When they were read.
    pub created_at: DateTime<Utc>,
    /// What read them, such as `mlxman 0.1.0`.
    pub generator: String,
    /// The caches.
    pub caches: Vec<HubCache>,
    /// The chunks that Xet keeps beside them.
    pub xet: Vec<XetCache>,
    /// Bytes allocated for all of it, each inode of a directory once: what `du -s` says of each, added.
    pub allocated_bytes: u64,
    /// Caches that could not be read.
    pub problems: Vec<StoreProblem>,
}

/// One hub cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct HubCache {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// What it takes, its own directories included: what `du -s` says.
    pub usage: Usage,
    /// Its filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// Its repos, those that `hf cache ls` leaves out among them.
    pub repos: Vec<HubRepo>,
    /// What lies in it and belongs to no snapshot: orphan blobs, partial downloads, lock files of repos that are gone, repos
    /// without a snapshot.
    pub leftovers: Vec<HubLeftover>,
    /// What the disk gets back when all leftovers go that are free to go.
    pub leftovers_bytes: u64,
    /// What the disk gets back when all superseded revisions go, and nothing else.
    pub superseded_bytes: u64,
    /// What mlxman's trash in it holds.
    pub trash_bytes: u64,
}

/// One repo of a hub cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct HubRepo {
    /// `org/name`.
    pub id: String,
    /// What it holds.
    pub kind: RepoKind,
    /// Its directory, relative to the cache.
    pub path: String,
    /// Its snapshots.
    pub revisions: Vec<HubRevision>,
    /// Files that its snapshots have, each blob once.
    pub files: u64,
    /// Apparent bytes of those: what `hf cache ls` says.
    pub size_bytes: u64,
    /// Apparent bytes of what lies in it and no snapshot has.
    pub leftovers_size_bytes: u64,
    /// What the disk gets back when all its snapshots and leftovers go.
    pub reclaimable_bytes: u64,
    /// Whether more may come back: a filesystem lets files share blocks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reclaimable_at_least: bool,
    /// When one of its files was last read, as far as the filesystem keeps that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_accessed: Option<DateTime<Utc>>,
    /// When one of its files was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<DateTime<Utc>>,
    /// Why `hf cache ls` leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<String>,
    /// The kinds of all problems in it.
    pub problems: BTreeSet<ProblemKind>,
}

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct HubRevision {
    /// The commit.
    pub commit: String,
    /// The refs that name it.
    pub refs: Vec<String>,
    /// Files, each blob once.
    pub files: u64,
    /// Apparent bytes of those.
    pub size_bytes: u64,
    /// What the disk gets back when it alone goes.
    pub reclaimable_bytes: u64,
    /// When one of its files was last read, as far as the filesystem keeps that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_accessed: Option<DateTime<Utc>>,
    /// When one of its files was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<DateTime<Utc>>,
    /// Whether no ref names it, and one names another snapshot of the repo.
    pub superseded: bool,
    /// Whether it can be trusted to load, as far as can be told without reading its weights.
    pub health: HealthStatus,
}

/// What a leftover is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeftoverKind {
    /// A blob that no snapshot has: what `mlx_lm.manage --delete` leaves, mostly.
    Orphan,
    /// A partial download that nobody writes.
    PartialDead,
    /// A partial download in progress, or one of which nobody can tell.
    PartialLive,
    /// Lock files of a repo that is gone.
    StaleLocks,
    /// The directories, refs and listings of a repo without a snapshot.
    BrokenRepo,
    /// A ref to a revision that is not here.
    Ref,
    /// A shared blob of which nobody can tell who uses it.
    Untracked,
}

/// Something that belongs to no snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct HubLeftover {
    /// What it is.
    pub kind: LeftoverKind,
    /// Where it lies, relative to the cache.
    pub path: String,
    /// The repo it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_id: Option<String>,
    /// Apparent bytes.
    pub size_bytes: u64,
    /// What the disk gets back when it alone goes; 0 where it is not free to go.
    pub reclaimable_bytes: u64,
    /// When it was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<DateTime<Utc>>,
    /// What it is, in words.
    pub message: String,
}

/// Chunks that Xet keeps so that it need not fetch them again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct XetCache {
    /// Its directory.
    pub path: String,
    /// What it takes.
    pub usage: Usage,
    /// Allocated bytes by what they are, such as `chunk-cache`, `shard-cache` and `staging`.
    pub parts: BTreeMap<String, u64>,
    /// Things in it that could not be read.
    pub unread: u64,
}

impl HubReport {
    /// Of the hub caches of a survey, and of the directories of Xet.
    pub fn of(survey: &Survey, xet: &[&Path], now: DateTime<Utc>) -> Self {
        let mut report = HubReport {
            schema_version: HUB_VERSION,
            created_at: now,
            generator: Manifest::generator(),
            caches: Vec::new(),
            xet: Vec::new(),
            allocated_bytes: 0,
            problems: Vec::new(),
        };
        for store in &survey.stores {
            match &store.scan {
                Ok(scan) => report.caches.push(of_cache(store, scan)),
                Err(_) => report.problems.extend(store_record(store, now).problems),
            }
        }
        report.xet.extend(xet.iter().filter_map(|path| {
            let Measured { usage, parts, unread } = measure(path)?;
            Some(XetCache { path: path.display().to_string(), usage, parts, unread })
        }));
        let caches = report.caches.iter().map(|cache| cache.usage.allocated_bytes);
        let xet = report.xet.iter().map(|xet| xet.usage.allocated_bytes);
        report.allocated_bytes = caches.chain(xet).fold(0, u64::saturating_add);
        report
    }
}

/// What lies in one repo's directory.
#[derive(Default)]
struct Parts<'a> {
    models: Vec<(&'a FoundModel, &'a SurveyedModel)>,
    strays: Vec<&'a Stray>,
}

fn of_cache(store: &StoreSurvey, scan: &Scan) -> HubCache {
    let mut repos: BTreeMap<&str, Parts<'_>> = BTreeMap::new();
    for (found, known) in scan.models.iter().zip(&store.models) {
        let dir = found.key.split('/').next().unwrap_or_default();
        repos.entry(dir).or_default().models.push((found, known));
    }
    for stray in &scan.strays {
        let path = stray.problem.path.as_deref().unwrap_or_default();
        let dir = path.split('/').next().unwrap_or_default();
        if stray.repo_id.is_some() && !path.starts_with(".locks/") {
            repos.entry(dir).or_default().strays.push(stray);
        }
    }
    let superseded: Vec<OwnerId> =
        repos.values().flat_map(|repo| repo.superseded()).map(|found| found.owner).collect();
    let leftovers: Vec<HubLeftover> = scan.strays.iter().filter_map(|stray| leftover(scan, stray)).collect();
    let free = scan.strays.iter().filter(|stray| kind_of_leftover(stray).is_some());
    let trash = measure(&scan.spec.root().join(TRASH)).map_or(0, |trash| trash.usage.allocated_bytes);
    HubCache {
        store: scan.spec.id(),
        usage: scan.usage(),
        filesystem: scan.filesystem.clone(),
        leftovers_bytes: scan.ledger.reclaim(free.filter_map(|stray| stray.owner)).bytes,
        superseded_bytes: scan.ledger.reclaim(superseded).bytes,
        trash_bytes: trash,
        repos: repos.iter().filter_map(|(dir, parts)| of_repo(scan, dir, parts)).collect(),
        leftovers,
    }
}

impl Parts<'_> {
    /// Snapshots that no ref names, in a repo in which one names another.
    fn superseded(&self) -> impl Iterator<Item = &FoundModel> {
        let detached = |found: &FoundModel| found.repo.as_ref().and_then(|repo| repo.detached());
        let named = self.models.iter().any(|(found, _)| detached(found) == Some(false));
        self.models
            .iter()
            .map(|(found, _)| *found)
            .filter(move |found| named && detached(found) == Some(true))
    }
}

fn of_repo(scan: &Scan, dir: &str, parts: &Parts<'_>) -> Option<HubRepo> {
    let (word, rest) = dir.split_once("--")?;
    let kind = match word {
        "models" => RepoKind::Model,
        "datasets" => RepoKind::Dataset,
        "spaces" => RepoKind::Space,
        "kernels" => RepoKind::Kernel,
        _ => return None,
    };
    let superseded: BTreeSet<OwnerId> = parts.superseded().map(|found| found.owner).collect();
    let revisions: Vec<HubRevision> = parts
        .models
        .iter()
        .filter_map(|(found, known)| {
            let repo = found.repo.as_ref()?;
            let (files, size_bytes) = blobs([*found]);
            Some(HubRevision {
                commit: repo.revision.clone(),
                refs: repo.refs.clone(),
                files,
                size_bytes,
                reclaimable_bytes: scan.ledger.reclaim([found.owner]).bytes,
                last_accessed: found.last_accessed(),
                last_modified: found.last_modified().or_else(|| {
                    let own = found.dirs.first().map(|(_, stat)| stat.mtime_ns);
                    own.map(DateTime::from_timestamp_nanos)
                }),
                superseded: superseded.contains(&found.owner),
                health: known.summary.health,
            })
        })
        .collect();
    let models = || parts.models.iter().map(|(found, _)| *found);
    let (files, size_bytes) = blobs(models());
    let of_words = |known: &SurveyedModel| {
        let words = known.summary.problems.iter();
        words.filter_map(|word| ProblemKind::ALL.iter().find(|kind| kind.word() == word).copied()).collect()
    };
    let mut problems: BTreeSet<ProblemKind> =
        parts.models.iter().flat_map(|(_, known)| -> Vec<ProblemKind> { of_words(known) }).collect();
    problems.extend(models().flat_map(|found| &found.problems).map(|problem| problem.kind));
    problems.extend(parts.strays.iter().map(|stray| stray.problem.kind));
    let owners = models().map(|found| found.owner).chain(parts.strays.iter().filter_map(|stray| stray.owner));
    let reclaim = scan.ledger.reclaim(owners);
    let leftovers = parts.strays.iter().filter(|stray| kind_of_leftover(stray).is_some());
    Some(HubRepo {
        id: rest.replace("--", "/"),
        kind,
        path: dir.to_owned(),
        files,
        size_bytes,
        leftovers_size_bytes: leftovers.fold(0, |sum, stray| sum.saturating_add(stray.size_bytes())),
        reclaimable_bytes: reclaim.bytes,
        reclaimable_at_least: reclaim.at_least,
        last_accessed: revisions.iter().filter_map(|revision| revision.last_accessed).max(),
        last_modified: models().filter_map(FoundModel::last_modified).max(),
        hidden: hidden(scan, dir, parts),
        revisions,
        problems,
    })
}

/// Files and apparent bytes of what snapshots have, each blob once.
fn blobs<'a>(models: impl IntoIterator<Item = &'a FoundModel>) -> (u64, u64) {
    let mut seen: HashMap<&str, u64> = HashMap::new();
    for found in models {
        // Two repos may share what lies at `real`; within one a blob has one name.
        seen.extend(found.files.iter().map(|file| (file.real.as_str(), file.stat.size)));
    }
    (seen.len() as u64, seen.values().fold(0, |sum, size| sum.saturating_add(*size)))
}

/// Why the library leaves a repo out: it takes any of these for a corrupted cache.
fn hidden(scan: &Scan, dir: &str, parts: &Parts<'_>) -> Option<String> {
    let snapshots = scan.root().stat_below(&format!("{dir}/snapshots"));
    if !snapshots.is_ok_and(|stat| stat.kind == EntryKind::Dir) {
        return Some("it has no directory of snapshots".to_owned());
    }
    let own =
        |stray: &&&Stray| matches!(stray.problem.kind, ProblemKind::RefToNowhere | ProblemKind::RefInvalid);
    if let Some(stray) = parts.strays.iter().find(own) {
        return Some(stray.problem.message.clone());
    }
    let breaks = |kind| matches!(kind, ProblemKind::DanglingLink | ProblemKind::RefNewline);
    let problems = parts.models.iter().flat_map(|(found, _)| &found.problems);
    problems.into_iter().find(|problem| breaks(problem.kind)).map(|problem| match &problem.path {
        Some(path) => format!("{path}: {}", problem.message),
        None => problem.message.clone(),
    })
}

fn kind_of_leftover(stray: &Stray) -> Option<LeftoverKind> {
    Some(match stray.problem.kind {
        ProblemKind::OrphanBlob => LeftoverKind::Orphan,
        ProblemKind::PartialDead => LeftoverKind::PartialDead,
        ProblemKind::PartialLive => LeftoverKind::PartialLive,
        ProblemKind::StaleLocks => LeftoverKind::StaleLocks,
        ProblemKind::RepoWithoutSnapshot => LeftoverKind::BrokenRepo,
        ProblemKind::RefToNowhere | ProblemKind::RefInvalid => LeftoverKind::Ref,
        ProblemKind::SharedBlobUntracked => LeftoverKind::Untracked,
        _ => return None,
    })
}

fn leftover(scan: &Scan, stray: &Stray) -> Option<HubLeftover> {
    Some(HubLeftover {
        kind: kind_of_leftover(stray)?,
        path: stray.problem.path.clone().unwrap_or_default(),
        repo_id: stray.repo_id.clone(),
        size_bytes: stray.size_bytes(),
        reclaimable_bytes: stray.owner.map_or(0, |owner| scan.ledger.reclaim([owner]).bytes),
        last_modified: stray.last_modified(),
        message: stray.problem.message.clone(),
    })
}

/// The JSON Schema of [`HubReport`].
pub fn hub_schema() -> Schema {
    mlxman_manifest::schema_of::<HubReport>()
}
