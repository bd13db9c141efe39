//! Whether a model can be trusted to load, as far as can be told without reading its weights.

use std::collections::{BTreeMap, BTreeSet};

use mlxman_store::{ProblemKind, Severity, is_safe_relative};
use serde_json::Value;

use super::Subject;
use super::architecture::components;
use crate::record::{Format, Health, HealthStatus};

pub(super) fn judge(subject: &mut Subject<'_>, format: Format) -> Health {
    sizes(subject);
    indexes(subject);
    pipeline(subject);
    weights(subject, format);
    let mut problems = std::mem::take(&mut subject.problems);
    problems.sort_by(|a, b| (b.severity, a.kind, &a.path).cmp(&(a.severity, b.kind, &b.path)));
    problems.dedup();
    let status = status_of(problems.iter().map(|problem| (problem.kind, problem.severity)));
    Health { status, problems }
}

/// The status that follows from a model's problems.
pub(crate) fn status_of(problems: impl IntoIterator<Item = (ProblemKind, Severity)>) -> HealthStatus {
    let mut status = HealthStatus::Complete;
    for (kind, severity) in problems {
        let of_one = match (kind, severity) {
            (_, Severity::Error) => HealthStatus::Damaged,
            (
                ProblemKind::EmptySnapshot
                | ProblemKind::MissingShard
                | ProblemKind::NoWeights
                | ProblemKind::MissingComponent
                | ProblemKind::MissingRequiredFile,
                _,
            ) => HealthStatus::Incomplete,
            _ => HealthStatus::Complete,
        };
        status = status.max(of_one);
    }
    status
}

/// Sizes against the repo's own listing.
fn sizes(subject: &mut Subject<'_>) {
    let Some(listing) = subject.listing.take() else { return };
    let mut wrong = Vec::new();
    for file in &subject.model.files {
        if let Some(listed) = listing.files.get(&file.path)
            && listed.size != file.stat.size
        {
            wrong.push((file.path.clone(), listed.size, file.stat.size));
        }
    }
    for (path, listed, actual) in wrong {
        subject.problem(
            ProblemKind::SizeMismatch,
            Some(&path),
            format!("the repo lists it with {listed} bytes and it has {actual}; download the file again to mend it"),
        );
    }
    subject.listing = Some(listing);
}

/// Index files against the shards beside them.
fn indexes(subject: &mut Subject<'_>) {
    let paths: Vec<String> = subject
        .model
        .files
        .iter()
        .filter(|file| file.path.ends_with(".safetensors.index.json"))
        .map(|file| file.path.clone())
        .collect();
    for path in paths {
        let Some(index) = subject.json(&path) else { continue };
        let Some(map) = index.get("weight_map").and_then(Value::as_object) else {
            subject.problem(
                ProblemKind::ConfigInvalid,
                Some(&path),
                "it has no weight_map, so the shards could not be checked",
            );
            continue;
        };
        let dir = path.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("{dir}/"));
        let mut by_shard: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, shard) in map {
            by_shard.entry(shard.as_str().unwrap_or_default()).or_default().push(tensor);
        }
        let mut missing = Vec::new();
        for (shard, tensors) in by_shard {
            if !is_safe_relative(shard) {
                let message = format!(
                    "it names the shard `{}`, which leads out of the model; it was not opened",
                    shard.escape_debug()
                );
                subject.problem(ProblemKind::UnsafeName, Some(&path), message);
                continue;
            }
            let full = format!("{dir}{shard}");
            if !subject.has(&full) {
                missing.push(full);
                continue;
            }
            let Some(file) = subject.tensors.files.iter().find(|file| file.path == full) else { continue };
            let has: BTreeSet<&str> = file.header.tensors.iter().map(|tensor| &*tensor.name).collect();
            let lacking: Vec<&str> = tensors.into_iter().filter(|tensor| !has.contains(tensor)).collect();
            if let Some(first) = lacking.first() {
                let message = format!(
                    "the index promises {} tensors in it that it does not have ({first} first); download both again to mend it",
                    lacking.len()
                );
                subject.problem(ProblemKind::MissingTensor, Some(&full), message);
            }
        }
        // Weights that were never asked for are no damage, and a model may be whole without them: mlx_lm ignores the
        // index, and some conversions leave the original's behind.
        let single = format!("{dir}model.safetensors");
        if missing.len() == map_shards(map) && subject.has(&single) {
            continue;
        }
        if let Some(first) = missing.first().cloned() {
            let message = format!(
                "the index names {} weight files that are not there ({first} first); download the model again to get them",
                missing.len()
            );
            subject.problem(ProblemKind::MissingShard, Some(&first), message);
        }
    }
}

fn map_shards(map: &serde_json::Map<String, Value>) -> usize {
    map.values().filter_map(Value::as_str).collect::<BTreeSet<_>>().len()
}

/// Components that a pipeline names.
fn pipeline(subject: &mut Subject<'_>) {
    let Some(index) = subject.model_index.take() else { return };
    const WITH_WEIGHTS: [&str; 8] = [
        "transformer",
        "transformer_2",
        "unet",
        "vae",
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "image_encoder",
    ];
    for name in components(&index) {
        if !WITH_WEIGHTS.contains(&name.as_str()) {
            continue;
        }
        let prefix = format!("{name}/");
        let there = subject.model.files.iter().any(|file| {
            file.path.starts_with(&prefix)
                && [".safetensors", ".bin", ".npz", ".gguf"].iter().any(|ending| file.path.ends_with(ending))
        });
        if !there {
            let message = format!(
                "model_index.json names the component {name}, and it has no weights here; download the model again to get them"
            );
            subject.problem(ProblemKind::MissingComponent, Some(&name), message);
        }
    }
    subject.model_index = Some(index);
}

/// Whether there are weights at all, and all parts of a split GGUF file.
fn weights(subject: &mut Subject<'_>, format: Format) {
    let splits: Vec<(u64, u64)> = subject
        .tensors
        .gguf
        .iter()
        .filter_map(|file| file.header.split().map(|split| (split.no, split.count)))
        .collect();
    if let Some(&(_, count)) = splits.first() {
        let there: BTreeSet<u64> = splits.iter().map(|(no, _)| *no).collect();
        if (there.len() as u64) < count {
            let message = format!(
                "the model is split into {count} files and {} are here; download the others",
                there.len()
            );
            subject.problem(ProblemKind::MissingShard, None, message);
        }
    }
    let is_empty = subject.model.files.is_empty();
    let broken = subject.problems.iter().any(|problem| {
        problem.severity == Severity::Error
            && problem.path.as_deref().is_some_and(|path| {
                [".safetensors", ".gguf", ".bin", ".npz"].iter().any(|ending| path.ends_with(ending))
                    || path == "."
            })
    });
    let pieces = subject.problems.iter().any(|problem| {
        matches!(
            problem.kind,
            ProblemKind::MissingShard | ProblemKind::MissingComponent | ProblemKind::EmptySnapshot
        )
    });
    let has_weights = !subject.tensors.seen.is_empty()
        || format != Format::Unknown && matches!(format, Format::Pytorch)
        || subject.model.files.iter().any(|file| file.path.ends_with(".npz"));
    // Datasets and spaces have none, and are complete without.
    let is_model = subject.model.repo.as_ref().is_none_or(|repo| repo.kind == mlxman_store::RepoKind::Model);
    if is_model && !has_weights && !broken && !pieces && !is_empty {
        let listed = subject.listing.as_ref().is_some_and(|listing| {
            listing.files.keys().any(|path| path.ends_with(".safetensors") || path.ends_with(".gguf"))
        });
        let message = if listed {
            "the repo has weights that were not downloaded; download the whole model to load it"
        } else {
            "there are no weights here; only some of the repo's files were downloaded, or it has none"
        };
        subject.problem(ProblemKind::NoWeights, None, message);
    }
}
