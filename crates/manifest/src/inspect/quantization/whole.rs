//! Which files a model consists of, and whether they are all there.

use mlxman_store::ProblemKind;
use serde_json::Value;

use crate::formats::json::read_json;
use crate::inspect::{JSON_LIMIT, Subject};

/// Directories of sentence-transformers' further modules, which belong to the model.
pub(super) fn dense_parts(subject: &Subject<'_>) -> Vec<String> {
    let Some(file) = subject.model.file("modules.json") else { return Vec::new() };
    let Ok(opened) = subject.scan.open(file) else { return Vec::new() };
    let Ok(Value::Array(modules)) = read_json(opened, JSON_LIMIT) else { return Vec::new() };
    let paths = modules.iter().filter_map(|module| module.get("path")?.as_str());
    paths.filter(|path| !path.is_empty()).map(str::to_owned).collect()
}

/// Whether every weight file is there and could be read: only then can it be said that something is in none of them.
pub(super) fn is_whole(subject: &Subject<'_>) -> bool {
    if subject.tensors.files.len() != subject.tensors.seen.len() {
        return false;
    }
    let grave = [ProblemKind::TruncatedWeights, ProblemKind::HeaderInvalid, ProblemKind::Unreadable];
    if subject.problems.iter().any(|problem| grave.contains(&problem.kind)) {
        return false;
    }
    let is_there = |path: &str| subject.tensors.seen.iter().any(|seen| seen == path);
    // `model-00001-of-00004.safetensors` has three more beside it.
    let all_of_set = subject.tensors.seen.iter().all(|path| {
        let numbered = path.strip_suffix(".safetensors").and_then(|stem| stem.rsplit_once("-of-"));
        let Some((first, total)) = numbered else { return true };
        let Some((stem, _)) = first.rsplit_once('-') else { return true };
        let Ok(count) = total.parse::<usize>() else { return true };
        let end = format!("-of-{total}.safetensors");
        let beside =
            subject.tensors.seen.iter().filter(|seen| seen.starts_with(stem) && seen.ends_with(&end));
        beside.count() >= count
    });
    let indexes: Vec<String> = subject
        .model
        .files
        .iter()
        .map(|file| file.path.clone())
        .filter(|path| path.ends_with(".safetensors.index.json"))
        .collect();
    all_of_set
        && indexes.iter().all(|path| {
            let Some(file) = subject.model.file(path) else { return false };
            let Ok(opened) = subject.scan.open(file) else { return false };
            let Ok(index): Result<Value, _> = read_json(opened, JSON_LIMIT) else { return false };
            let dir = path.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("{dir}/"));
            let map = index.get("weight_map").and_then(Value::as_object);
            map.is_none_or(|map| {
                map.values().filter_map(Value::as_str).all(|name| is_there(&format!("{dir}{name}")))
            })
        })
}
