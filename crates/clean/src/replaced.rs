//! Whether a snapshot that no ref names is a leftover of the one that a ref names: only if that one has all that it has.

use mlxman_manifest::Summary;
use mlxman_manifest::registry::SurveyedModel;
use mlxman_store::{FoundModel, RepoKind};

use crate::plan::Keep;

/// Endings of files that a model can do without, or that say of themselves what they are for. Whatever else a snapshot
/// has may be weights.
const NO_WEIGHTS: [&str; 27] = [
    "json",
    "jsonl",
    "md",
    "txt",
    "yaml",
    "yml",
    "toml",
    "py",
    "ipynb",
    "jinja",
    "html",
    "css",
    "js",
    "csv",
    "model",
    "tiktoken",
    "gitattributes",
    "gitignore",
    "png",
    "jpg",
    "jpeg",
    "gif",
    "webp",
    "svg",
    "pdf",
    "mp4",
    "wav",
];

/// Files without which no tokenizer can be made; any one of them does.
const TOKENIZERS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tiktoken.model",
];

/// Files that say what the others are.
const CONFIGURATIONS: [&str; 5] = [
    "config.json",
    "model_index.json",
    "adapter_config.json",
    "preprocessor_config.json",
    "processor_config.json",
];

/// A file without an ending, such as `LICENSE`, holds no weights below this.
const SMALL: u64 = 1 << 20;

/// Why a snapshot that no ref names is no leftover of the one that a ref names, if it is none.
pub(crate) fn superseded(
    found: &FoundModel,
    mine: &SurveyedModel,
    models: &[(&FoundModel, &SurveyedModel)],
) -> Option<(Keep, String)> {
    let repo = found.repo.as_ref()?;
    let named: Vec<_> = models
        .iter()
        .filter(|(other, _)| {
            other.repo.as_ref().is_some_and(|other| {
                other.kind == repo.kind && other.id == repo.id && other.detached() == Some(false)
            })
        })
        .collect();
    let whole: Vec<_> = named.iter().filter(|(_, known)| known.summary.is_sound()).collect();
    if !named.is_empty() && whole.is_empty() {
        let reason = "the snapshot that a ref names is not whole; this one may be the only one that loads";
        return Some((Keep::NewerIncomplete, reason.to_owned()));
    }
    let lacking: Vec<Option<String>> =
        whole.iter().map(|other| lost_with((found, mine), ***other, repo.kind)).collect();
    if let Some(Some(path)) = lacking.first().filter(|_| lacking.iter().all(Option::is_some)) {
        let path = path.escape_debug();
        let reason = format!("the snapshot that a ref names has nothing that stands for its `{path}`");
        return Some((Keep::NotReplaced, reason));
    }
    None
}

/// A file of one snapshot for which another of the same repo has nothing, if there is one.
pub(crate) fn lost_with(
    (old, of_old): (&FoundModel, &SurveyedModel),
    (new, of_new): (&FoundModel, &SurveyedModel),
    kind: RepoKind,
) -> Option<String> {
    match kind {
        RepoKind::Model => lacks(old, &of_old.summary, new, &of_new.summary),
        // What a data set, a space or a kernel is for is in its files.
        _ => old.files.iter().find(|file| new.file(&file.path).is_none()).map(|file| file.path.clone()),
    }
}

/// A file of the old snapshot for which the new one has nothing, if there is one.
fn lacks(old: &FoundModel, of_old: &Summary, new: &FoundModel, of_new: &Summary) -> Option<String> {
    let alike = (of_old.format, &of_old.quantization, &of_old.precision)
        == (of_new.format, &of_new.quantization, &of_new.precision)
        && of_old.quantization_variants.iter().all(|one| of_new.quantization_variants.contains(one));
    let weights = old.files.iter().filter(|file| ending(&file.path, file.stat.size).is_some());
    for file in weights.filter(|file| new.file(&file.path).is_none()) {
        // The same weights in other shards.
        if !alike || !new.files.iter().any(|other| without_shard(&other.path) == without_shard(&file.path)) {
            return Some(file.path.clone());
        }
    }
    for file in &old.files {
        let (dir, name) = place_of(&file.path);
        let is_lost = if TOKENIZERS.contains(&name) {
            !new.files.iter().any(|other| {
                let (other_dir, other) = place_of(&other.path);
                other_dir == dir && TOKENIZERS.contains(&other)
            })
        } else {
            CONFIGURATIONS.contains(&name) && new.file(&file.path).is_none()
        };
        if is_lost {
            return Some(file.path.clone());
        }
    }
    None
}

/// A path without what numbers a shard in it: `model` of `model-00001-of-00002.safetensors`, with its ending.
fn without_shard(path: &str) -> (&str, &str) {
    let (stem, ending) = path.rsplit_once('.').unwrap_or((path, ""));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let shard = stem.rsplit_once("-of-").filter(|(_, count)| is_number(count));
    let name = shard.and_then(|(rest, _)| rest.rsplit_once('-')).filter(|(_, number)| is_number(number));
    (name.map_or(stem, |(name, _)| name), ending)
}

/// Directory and name.
fn place_of(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The ending of a file that may hold weights.
fn ending(path: &str, size: u64) -> Option<String> {
    let (_, name) = place_of(path);
    match name.rsplit_once('.') {
        Some((_, ending)) => {
            let ending = ending.to_ascii_lowercase();
            (!NO_WEIGHTS.contains(&ending.as_str())).then_some(ending)
        }
        None => (size >= SMALL).then(String::new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_told_from_names() {
        assert_eq!(without_shard("a/model-00001-of-00002.safetensors"), ("a/model", "safetensors"));
        assert_eq!(without_shard("a/model.safetensors"), ("a/model", "safetensors"));
        assert_eq!(without_shard("m-Q8_0.gguf"), ("m-Q8_0", "gguf"));
        assert_eq!(without_shard("one-of-a-kind.bin"), ("one-of-a-kind", "bin"));
        assert_eq!(without_shard("x-1-of-2"), ("x", ""));
    }

    #[test]
    fn what_may_hold_weights() {
        for (path, size, is) in [
            ("model.safetensors", 1, true),
            ("a/x.PKL", 1, true),
            ("model.fp16.onnx_data", 1, true),
            ("weights", SMALL, true),
            ("LICENSE", 10, false),
            ("config.json", SMALL, false),
            (".gitattributes", 9, false),
        ] {
            assert_eq!(ending(path, size).is_some(), is, "{path}");
        }
    }
}
