//! `--duplicates`: a model that lies in the stores once more. The copy in the better place stays.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use mlxman_manifest::registry::SurveyedModel;
use mlxman_manifest::{FileRecord, Verdict};
use mlxman_store::RepoKind;

use super::choose::{Run, Subject};
use super::world::{At, World};
use crate::grace::LastUse;
use crate::irreplaceable::irreplaceable;
use crate::plan::{Reason, Rule};

/// What says that two models are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sameness {
    Revision,
    Content,
}

/// Names all copies but one.
pub(super) fn name(run: &mut Run<'_>, files: &dyn Fn(&SurveyedModel) -> Vec<FileRecord>) {
    let world = run.world;
    let mut records: HashMap<At, Vec<FileRecord>> = HashMap::new();
    for (group, sameness) in groups(world) {
        let mut copies: Vec<At> = group.into_iter().filter(|at| !run.is_named(Subject::Model(*at))).collect();
        copies.sort_by_key(|at| Reverse(place(world, *at, run.is_relied_on(*at))));
        let Some((&best, rest)) = copies.split_first() else { continue };
        for &at in rest.iter().filter(|at| world.is_allowed(**at)) {
            // Already a copy of it by another measure, or a second name of the same bytes, which would free nothing.
            if run.is_named(Subject::Model(at))
                || is_one_place(world, best, at)
                || !is_covered(world, best, at)
            {
                continue;
            }
            let mut equal = || {
                for one in [best, at] {
                    records.entry(one).or_insert_with(|| files(world.get(one).1));
                }
                is_equal(&records[&best], &records[&at])
            };
            let why = match sameness {
                Sameness::Revision if is_faithful(world, best) => "the same revision",
                _ if equal() => "equal in every byte",
                _ => continue,
            };
            let reason = format!("it lies here once more: {} is {why}, and stays", world.name(best, at));
            if run.name(Subject::Model(at), vec![Reason { rule: Rule::Duplicate, reason }]) {
                run.rely_on(best);
            }
        }
    }
}

/// Models that may be the same: by repo and revision, and by the names and sizes of all their files.
fn groups(world: &World<'_>) -> Vec<(Vec<At>, Sameness)> {
    let mut revisions: BTreeMap<(String, String, String), Vec<At>> = BTreeMap::new();
    let mut shapes: BTreeMap<Vec<(&str, u64)>, Vec<At>> = BTreeMap::new();
    for at in world.models() {
        let (found, known) = world.get(at);
        if !known.summary.is_sound() || found.files.is_empty() {
            continue;
        }
        if let (Some(repo), Some(revision)) = (&known.summary.repo_id, &known.summary.revision) {
            let kind = found.repo.as_ref().map_or(RepoKind::Model, |repo| repo.kind);
            revisions.entry((format!("{kind:?}"), repo.clone(), revision.clone())).or_default().push(at);
        }
        let shape = found.files.iter().map(|file| (file.path.as_str(), file.stat.size)).collect();
        shapes.entry(shape).or_default().push(at);
    }
    let by_revision = revisions.into_values().map(|group| (group, Sameness::Revision));
    let by_shape = shapes.into_values().map(|group| (group, Sameness::Content));
    by_revision.chain(by_shape).filter(|(group, _)| group.len() > 1).collect()
}

/// How well placed a copy is: the better, the greater.
fn place(world: &World<'_>, at: At, is_relied_on: bool) -> impl Ord + use<> {
    let (found, known) = world.get(at);
    let summary = &known.summary;
    let verified = summary.verified.as_ref().is_some_and(|one| one.holds() && one.verdict == Verdict::Pass);
    let repo = found.repo.as_ref();
    (
        summary.pinned,
        is_relied_on,
        // In a hub cache every program finds it, and its files can be checked against their names.
        repo.is_some(),
        repo.is_some_and(|repo| repo.detached() == Some(false)),
        verified,
        LastUse::of(known).map(|used| used.time),
        Reverse(at),
    )
}

/// Whether both are made of the very same files on the disk.
fn is_one_place(world: &World<'_>, a: At, b: At) -> bool {
    let ids = |at: At| -> Vec<(u64, u64)> {
        world.get(at).0.files.iter().map(|file| (file.stat.dev, file.stat.ino)).collect()
    };
    ids(a) == ids(b)
}

/// Whether the better one has every file of the other, as long as that is.
fn is_covered(world: &World<'_>, best: At, at: At) -> bool {
    let best = world.get(best).0;
    let mut files = world.get(at).0.files.iter();
    files.all(|file| best.file(&file.path).is_some_and(|other| other.stat.size == file.stat.size))
}

/// Whether a copy is known to be as its repo has it.
fn is_faithful(world: &World<'_>, at: At) -> bool {
    let (found, known) = world.get(at);
    irreplaceable(world.views[at.view].scan, found, known).is_none()
}

/// Whether hashes of every file are known of both, and are the same.
fn is_equal(best: &[FileRecord], other: &[FileRecord]) -> bool {
    let by_path: HashMap<&str, &FileRecord> = best.iter().map(|file| (file.path.as_str(), file)).collect();
    let hashes = |file: &FileRecord| [file.sha256.clone(), file.git_sha1.clone(), file.blake3.clone()];
    !other.is_empty()
        && other.iter().all(|file| {
            by_path.get(file.path.as_str()).is_some_and(|twin| {
                let pairs = hashes(file).into_iter().zip(hashes(twin));
                let both: Vec<_> = pairs.filter_map(|(a, b)| Some((a?, b?))).collect();
                !both.is_empty() && both.iter().all(|(a, b)| a == b)
            })
        })
}
