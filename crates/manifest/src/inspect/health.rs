//! Whether a model can be trusted to load, as far as can be told without reading its weights.

use std::collections::{BTreeMap, BTreeSet};

use mlxman_store::{ProblemKind, Severity, is_safe_relative};

use super::architecture::components;
use super::gguf::Role;
use super::tensors::{ASIDE, Index, Single, Tensors, shard_of};
use super::weights::is_weight_file;
use super::{Subject, gguf};
use crate::record::{Format, Health, HealthStatus};

pub(super) fn judge(subject: &mut Subject<'_>, format: Format) -> Health {
    sizes(subject);
    indexes(subject, format);
    numbered(subject);
    splits(subject);
    pipeline(subject);
    weights(subject);
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

/// What one index and the files beside it say.
#[derive(Default)]
struct Checked {
    /// Shards that are not there, with tensors that no other file has.
    missing: Vec<String>,
    /// Shards that are there without a tensor that no other file has either: the shard, how many, and the first.
    lacking: Vec<(String, usize, String)>,
    /// Whether anything lies elsewhere than the index says.
    moved: bool,
    /// Whether any of the shards is there.
    any: bool,
}

/// Index files against the shards beside them.
fn indexes(subject: &mut Subject<'_>, format: Format) {
    let tensors = std::mem::take(&mut subject.tensors);
    for index in &tensors.indexes {
        one_index(subject, &tensors, index, format);
    }
    subject.tensors = tensors;
}

fn one_index(subject: &mut Subject<'_>, tensors: &Tensors, index: &Index, format: Format) {
    let dir = index.dir();
    let beside =
        || tensors.files.iter().filter(|file| file.path.rfind('/').map_or("", |at| &file.path[..=at]) == dir);
    // Programs take safetensors where there are any, and read no index of pickles then.
    let of_pickles = index.path.ends_with(".bin.index.json");
    if of_pickles && beside().next().is_some() {
        return;
    }
    let have: BTreeSet<&str> =
        beside().flat_map(|file| file.header.tensors.iter().map(|tensor| &*tensor.name)).collect();
    let mut checked = Checked::default();
    for (shard, promised) in &index.shards {
        if !is_safe_relative(shard) {
            let message = format!(
                "it names the shard `{}`, which leads out of the model; it was not opened",
                shard.escape_debug()
            );
            subject.problem(ProblemKind::UnsafeName, Some(&index.path), message);
            checked.any = true;
            continue;
        }
        let path = format!("{dir}{shard}");
        let file = tensors.files.iter().find(|file| file.path == path);
        let nowhere: Vec<&String> = match file {
            Some(file) => {
                let own: BTreeSet<&str> = file.header.tensors.iter().map(|tensor| &*tensor.name).collect();
                let gone: Vec<&String> =
                    promised.iter().filter(|name| !own.contains(name.as_str())).collect();
                checked.moved |= !gone.is_empty();
                gone.into_iter().filter(|name| !have.contains(name.as_str())).collect()
            }
            None if subject.has(&path) => {
                // A pickle, or a file whose header could not be read: that is a problem of its own.
                checked.any = true;
                continue;
            }
            None => promised.iter().filter(|name| !have.contains(name.as_str())).collect(),
        };
        match (file, nowhere.first()) {
            (Some(_), first) => {
                checked.any = true;
                if let Some(first) = first {
                    checked.lacking.push((path, nowhere.len(), (*first).clone()));
                }
            }
            (None, Some(_)) => checked.missing.push(path),
            (None, None) => checked.moved = true,
        }
    }
    // Whole weights under other names: what the index is about is not here, and nothing asks for it.
    if !checked.any && !checked.missing.is_empty() && (of_pickles || whole_beside(tensors, dir)) {
        if !of_pickles {
            stale(subject, index, "the weights here are whole, in other files than those it names");
        }
        return;
    }
    let scaled = || have.iter().any(|name| name.ends_with(".scales"));
    if !checked.lacking.is_empty() && format == Format::Mlx && scaled() {
        checked.lacking.clear();
        checked.moved = true;
    }
    let Checked { missing, lacking, moved, .. } = checked;
    if moved && missing.is_empty() && lacking.is_empty() {
        stale(subject, index, "the tensors that it names lie in other files than it says");
    }
    for (shard, count, first) in lacking {
        let message = format!(
            "the index promises {count} tensors in it that no file here has ({first} first); download both again to mend it"
        );
        subject.problem(ProblemKind::MissingTensor, Some(&shard), message);
    }
    if let Some(first) = missing.first() {
        let message = format!(
            "the index names {} weight files that are not there ({first} first); download the model again to get them",
            missing.len()
        );
        subject.problem(ProblemKind::MissingShard, Some(first), message);
    }
}

fn stale(subject: &mut Subject<'_>, index: &Index, what: &str) {
    let message = format!("{what}; nothing is missing, and programs that read the headers load it");
    subject.problem(ProblemKind::StaleIndex, Some(&index.path), message);
}

/// Whether a directory, by its path with a `/` behind it, has weights that are whole by themselves.
fn whole_beside(tensors: &Tensors, dir: &str) -> bool {
    let single = ["model.safetensors", "weights.safetensors", "diffusion_pytorch_model.safetensors"];
    single.iter().any(|name| tensors.files.iter().any(|file| file.path == format!("{dir}{name}")))
        || shard_sets(tensors.seen.iter().map(String::as_str))
            .iter()
            .any(|(set, there)| set.dir() == dir && set.missing(there).is_empty())
}

/// Files that were cut from one, by their names: `model-00001-of-00004.safetensors`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ShardSet<'a> {
    /// With the directory.
    stem: &'a str,
    ending: &'a str,
    count: u64,
}

impl ShardSet<'_> {
    fn dir(&self) -> &str {
        self.stem.rfind('/').map_or("", |at| &self.stem[..=at])
    }

    fn missing(&self, there: &BTreeSet<u64>) -> Vec<u64> {
        // Some programs count from 0. A count that no directory can hold is not gone through.
        let first = u64::from(!there.contains(&0));
        if self.count > 100_000 {
            return Vec::new();
        }
        (first..first + self.count).filter(|number| !there.contains(number)).collect()
    }
}

fn shard_sets<'a>(paths: impl Iterator<Item = &'a str>) -> BTreeMap<ShardSet<'a>, BTreeSet<u64>> {
    let mut sets: BTreeMap<ShardSet<'a>, BTreeSet<u64>> = BTreeMap::new();
    for path in paths {
        let ending = [".safetensors", ".bin"].into_iter().find(|ending| path.ends_with(ending));
        let Some(ending) = ending else { continue };
        if let Some((stem, number, count)) = path.strip_suffix(ending).and_then(shard_of)
            && count > 0
        {
            sets.entry(ShardSet { stem, ending, count }).or_default().insert(number);
        }
    }
    sets
}

/// Shards that their own names say are missing, where no index said so already.
fn numbered(subject: &mut Subject<'_>) {
    let model = subject.model;
    let paths = model.files.iter().map(|file| file.path.as_str()).filter(|path| is_weight_file(path));
    let sets = shard_sets(paths);
    let names: BTreeSet<String> = subject
        .tensors
        .indexes
        .iter()
        .flat_map(|i| i.shards.keys().map(|s| format!("{}{s}", i.dir())))
        .collect();
    for (set, there) in &sets {
        // What lies aside is not what is loaded.
        let top = set.dir().split('/').next().unwrap_or_default();
        if ASIDE.contains(&top) || top.starts_with("checkpoint-") {
            continue;
        }
        let missing = set.missing(there);
        let path = |number: u64| format!("{}-{number:05}-of-{:05}{}", set.stem, set.count, set.ending);
        let Some(first) = missing.first() else {
            let index = format!("{}.safetensors.index.json", set.stem);
            let whole = set.ending == ".safetensors" && set.count > 1 && there.len() as u64 == set.count;
            if whole && !subject.has(&index) && !there.iter().any(|number| names.contains(&path(*number))) {
                let message = "the shards are all here and no index says which tensor lies in which; mlx_lm loads them, \
                               transformers does not; `mlxman doctor --fix` makes it where it can";
                subject.problem(ProblemKind::MissingIndex, Some(&index), message);
            }
            continue;
        };
        let dir = set.dir();
        let in_dir = |other: &str| other.rfind('/').map_or("", |at| &other[..=at]) == dir;
        // What an index is about was checked with it.
        if there.iter().any(|number| names.contains(&path(*number))) {
            continue;
        }
        // Left over beside weights that are whole without them.
        let pickles = set.ending == ".bin";
        let others = subject.tensors.files.iter().filter(|file| in_dir(&file.path));
        let (own, others): (Vec<_>, Vec<_>) = others.partition(|file| {
            file.path.starts_with(set.stem) && there.iter().any(|number| file.path == path(*number))
        });
        let elsewhere: BTreeSet<&str> =
            others.iter().flat_map(|file| file.header.tensors.iter().map(|tensor| &*tensor.name)).collect();
        let superfluous = !own.is_empty()
            && own.iter().flat_map(|file| &file.header.tensors).all(|t| elsewhere.contains(&*t.name));
        if superfluous || pickles && !others.is_empty() {
            continue;
        }
        let message = format!(
            "the model is cut into {} files and {} are not there ({} first); download the model again to get them",
            set.count,
            missing.len(),
            path(*first)
        );
        subject.problem(ProblemKind::MissingShard, Some(&path(*first)), message);
    }
}

/// Parts of split GGUF files, each set for itself.
fn splits(subject: &mut Subject<'_>) {
    let incomplete: Vec<(String, u64, usize)> = gguf::sets(&subject.tensors)
        .iter()
        .filter_map(|set| set.missing().map(|(count, missing)| (set.name.clone(), count, missing.len())))
        .collect();
    for (name, count, missing) in incomplete {
        let what = if name.is_empty() { "the model" } else { name.as_str() };
        let message =
            format!("{what} is split into {count} files and {missing} of them are not here; download them");
        subject.problem(
            ProblemKind::MissingShard,
            Some(&name).filter(|name| !name.is_empty()).map(|n| n.as_str()),
            message,
        );
    }
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
        let there = subject
            .model
            .files
            .iter()
            .any(|file| file.path.starts_with(&prefix) && is_weight_file(&file.path));
        // The authors' own code reads single files from the model's own directory.
        let singles = subject.tensors.files.iter().filter_map(|file| file.single());
        let single = singles.into_iter().any(|single| match single {
            Single::Whole => !name.starts_with("image_encoder"),
            Single::Denoiser => matches!(name.as_str(), "transformer" | "unet"),
            Single::Vae => name == "vae",
        });
        if !there && !single {
            let message = format!(
                "model_index.json names the component {name}, and it has no weights here; download the model again to get them"
            );
            subject.problem(ProblemKind::MissingComponent, Some(&name), message);
        }
    }
    subject.model_index = Some(index);
}

/// Whether there are weights at all.
fn weights(subject: &mut Subject<'_>) {
    let is_empty = subject.model.files.is_empty();
    let broken = subject.problems.iter().any(|problem| {
        problem.severity == Severity::Error
            && problem.path.as_deref().is_some_and(|path| is_weight_file(path) || path == ".")
    });
    let pieces = subject.problems.iter().any(|problem| {
        matches!(
            problem.kind,
            ProblemKind::MissingShard | ProblemKind::MissingComponent | ProblemKind::EmptySnapshot
        )
    });
    let aside: BTreeSet<String> = gguf::sets(&subject.tensors)
        .iter()
        .filter(|set| set.role == Role::Imatrix)
        .flat_map(|set| set.parts.iter().map(|file| file.path.clone()))
        .collect();
    let has_weights = subject
        .model
        .files
        .iter()
        .any(|file| file.stat.size > 0 && is_weight_file(&file.path) && !aside.contains(&file.path));
    // Datasets and spaces have none, and are complete without.
    let is_model = subject.model.repo.as_ref().is_none_or(|repo| repo.kind == mlxman_store::RepoKind::Model);
    if is_model && !has_weights && !broken && !pieces && !is_empty {
        let listed = subject
            .listing
            .as_ref()
            .is_some_and(|listing| listing.files.keys().any(|path| is_weight_file(path)));
        let message = if listed {
            "the repo has weights that were not downloaded; download the whole model to load it"
        } else {
            "there are no weights here; only some of the repo's files were downloaded, or it has none"
        };
        subject.problem(ProblemKind::NoWeights, None, message);
    }
}
