//! The headers of a model's weight files.

use std::collections::{BTreeMap, BTreeSet};

use mlxman_store::{ProblemKind, Progress};
use serde_json::Value;

use super::{Subject, chain, weights};
use crate::formats::LengthVerdict;
use crate::formats::gguf::{GgufError, GgufHeader};
use crate::formats::safetensors::{Flaw, HeaderError, SafetensorsHeader, TensorInfo};

/// One safetensors file.
#[derive(Debug)]
pub(super) struct WeightFile {
    /// Relative to the model's directory.
    pub(super) path: String,
    pub(super) header: SafetensorsHeader,
    /// Whether it holds an adapter's tensors, not a model's.
    pub(super) is_adapter: bool,
}

impl WeightFile {
    /// The directory in the model that it lies in; empty for the model's own.
    pub(super) fn component(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(dir, _)| dir)
    }
}

/// One GGUF file.
#[derive(Debug)]
pub(super) struct GgufFile {
    pub(super) path: String,
    pub(super) header: GgufHeader,
}

/// A file that tells in which shard each tensor lies.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) path: String,
    /// The tensors that it places in each shard.
    pub(super) shards: BTreeMap<String, Vec<String>>,
}

impl Index {
    /// The directory that it and its shards lie in, with a `/` behind it; empty for the model's own.
    pub(super) fn dir(&self) -> &str {
        self.path.rfind('/').map_or("", |at| &self.path[..=at])
    }
}

/// The headers of all weight files that could be read.
#[derive(Debug, Default)]
pub(super) struct Tensors {
    pub(super) files: Vec<WeightFile>,
    pub(super) gguf: Vec<GgufFile>,
    pub(super) indexes: Vec<Index>,
    /// Weight files that are there, readable or not.
    pub(super) seen: Vec<String>,
}

/// Directories in a model that hold other things than the model: exports for other runtimes, training leftovers.
pub(super) const ASIDE: [&str; 8] =
    ["original", "onnx", "openvino", "coreml", "checkpoint", "checkpoints", "runs", "adapters"];

pub(super) fn read(subject: &mut Subject<'_>, progress: &Progress) -> Tensors {
    let mut tensors = Tensors { indexes: read_indexes(subject), ..Tensors::default() };
    let indexed: BTreeSet<String> = tensors
        .indexes
        .iter()
        .filter(|index| !is_adapter_name(&index.path))
        .flat_map(|index| index.shards.keys().map(move |shard| format!("{}{shard}", index.dir())))
        .collect();
    for file in &subject.model.files {
        let lower = file.path.to_ascii_lowercase();
        let is_leftover = weights::is_leftover(&lower);
        if lower.ends_with(".safetensors") {
            if !is_leftover {
                tensors.seen.push(file.path.clone());
            }
            let read = subject
                .scan
                .open(file)
                .map_err(HeaderError::Io)
                .and_then(|mut opened| SafetensorsHeader::read(&mut opened, file.stat.size));
            match read {
                Ok(header) => {
                    check(subject, &file.path, &header, file.stat.size);
                    if is_leftover {
                        continue;
                    }
                    let is_adapter = is_adapter(&file.path, &header, indexed.contains(&file.path));
                    tensors.files.push(WeightFile { path: file.path.clone(), header, is_adapter });
                }
                Err(error) => {
                    let kind = match error {
                        HeaderError::Io(_) => ProblemKind::Unreadable,
                        HeaderError::Truncated { .. } => ProblemKind::TruncatedWeights,
                        _ => ProblemKind::HeaderInvalid,
                    };
                    subject.problem(kind, Some(&file.path), format!("{}; {AGAIN}", chain(&error)));
                }
            }
        } else if lower.ends_with(".gguf") {
            tensors.seen.push(file.path.clone());
            let read = subject
                .scan
                .open(file)
                .map_err(GgufError::Io)
                .and_then(|mut opened| GgufHeader::read(&mut opened, file.stat.size));
            match read {
                Ok(header) => {
                    if let Some(verdict) = header.length_verdict(file.stat.size) {
                        length(subject, &file.path, verdict);
                    }
                    if let Some(flaw) = header.flaws.first() {
                        subject.problem(
                            ProblemKind::GgufInvalid,
                            Some(&file.path),
                            format!("{flaw}; {AGAIN}"),
                        );
                    }
                    tensors.gguf.push(GgufFile { path: file.path.clone(), header });
                }
                Err(error) => {
                    let kind = match error {
                        GgufError::Io(_) => ProblemKind::Unreadable,
                        GgufError::Truncated { .. } => ProblemKind::TruncatedWeights,
                        _ => ProblemKind::GgufInvalid,
                    };
                    subject.problem(kind, Some(&file.path), format!("{}; {AGAIN}", chain(&error)));
                }
            }
        } else {
            continue;
        }
        progress.step(1);
    }
    tensors
}

const AGAIN: &str = "download the file again to mend it";

fn check(subject: &mut Subject<'_>, path: &str, header: &SafetensorsHeader, size: u64) {
    length(subject, path, header.length_verdict(size));
    let grave: Vec<&Flaw> = header
        .flaws
        .iter()
        .filter(|flaw| !matches!(flaw, Flaw::UnknownDtype { .. } | Flaw::MetadataNotText { .. }))
        .collect();
    if let Some(first) = grave.first() {
        let more =
            if grave.len() > 1 { format!(" (and {} more like it)", grave.len() - 1) } else { String::new() };
        subject.problem(ProblemKind::HeaderInvalid, Some(path), format!("{first}{more}; {AGAIN}"));
    }
}

fn length(subject: &mut Subject<'_>, path: &str, verdict: LengthVerdict) {
    match verdict {
        LengthVerdict::Complete => {}
        LengthVerdict::Truncated { expected, actual } => subject.problem(
            ProblemKind::TruncatedWeights,
            Some(path),
            format!("its header promises {expected} bytes and it has {actual}; {AGAIN}"),
        ),
        LengthVerdict::Trailing { extra } => subject.problem(
            ProblemKind::TrailingBytes,
            Some(path),
            format!("{extra} bytes stand behind the last tensor; loaders refuse such a file; {AGAIN}"),
        ),
    }
}

/// The index files, for safetensors and for pickles; what is wrong with one becomes a problem.
fn read_indexes(subject: &mut Subject<'_>) -> Vec<Index> {
    let is_index =
        |path: &str| path.ends_with(".safetensors.index.json") || path.ends_with(".bin.index.json");
    let files = subject.model.files.iter();
    let paths: Vec<String> =
        files.filter(|file| is_index(&file.path)).map(|file| file.path.clone()).collect();
    let mut indexes = Vec::new();
    for path in paths {
        let Some(document) = subject.json(&path) else { continue };
        let Some(map) = document.get("weight_map").and_then(Value::as_object) else {
            let message = "it has no weight_map, so the shards could not be checked";
            subject.problem(ProblemKind::ConfigInvalid, Some(&path), message);
            continue;
        };
        let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tensor, shard) in map {
            shards.entry(shard.as_str().unwrap_or_default().to_owned()).or_default().push(tensor.clone());
        }
        indexes.push(Index { path, shards });
    }
    indexes
}

/// `model`, 1 and 4 of `model-00001-of-00004`.
pub(super) fn shard_of(stem: &str) -> Option<(&str, u64, u64)> {
    let digits = |text: &str| text.len() >= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    if !digits(count) || !digits(number) {
        return None;
    }
    Some((name, number.parse().ok()?, count.parse().ok()?))
}

/// Names that PEFT, mlx_lm, kohya and diffusers give to an adapter's tensors.
pub(super) fn is_adapter_tensor(name: &str) -> bool {
    const PARTS: [&str; 15] = [
        "lora_a",
        "lora_b",
        "lora_A",
        "lora_B",
        "lora_embedding_",
        "lora_up",
        "lora_down",
        "lora_mid",
        "lora.up.",
        "lora.down.",
        "lora_linear_layer.",
        "lora_magnitude",
        "dora_scale",
        "hada_w",
        "lokr_w",
    ];
    PARTS.iter().any(|part| name.contains(part))
}

/// Names that mlx_lm, PEFT and diffusers give to an adapter's file.
pub(super) fn is_adapter_name(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.starts_with("adapters.")
        || file.starts_with("adapter_model.")
        || file.starts_with("adapter_model-")
        || file.starts_with("pytorch_lora_weights")
        || file.ends_with("_adapters.safetensors")
        || file.ends_with("_adapters.npz")
}

fn is_adapter(path: &str, header: &SafetensorsHeader, indexed: bool) -> bool {
    if header.metadata.contains_key("ss_network_module") || is_adapter_name(path) {
        return true;
    }
    // A model may be saved with its adapters beside each matrix: those are the model's own.
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.strip_suffix(".safetensors").unwrap_or(file);
    let models = stem == "model" || shard_of(stem).is_some_and(|(name, ..)| name == "model");
    let based = |tensor: &TensorInfo| tensor.name.contains(".base_layer.");
    if indexed || models || header.tensors.iter().any(based) {
        return false;
    }
    let count = header.tensors.iter().filter(|tensor| is_adapter_tensor(&tensor.name)).count();
    // An adapter's training can unfreeze whole layers too, so not every tensor needs to be one of a pair.
    count > 0 && count * 2 >= header.tensors.len()
}

/// What a single file in a pipeline's own directory is in place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Single {
    /// Every component: a checkpoint as the authors' own code reads it.
    Whole,
    /// The transformer or UNet.
    Denoiser,
    /// The autoencoder.
    Vae,
}

impl WeightFile {
    /// What the file is in place of, in a pipeline's own directory.
    pub(super) fn single(&self) -> Option<Single> {
        if !self.component().is_empty() || self.is_adapter {
            return None;
        }
        let has = |starts: &[&str]| {
            self.header.tensors.iter().any(|tensor| starts.iter().any(|start| tensor.name.starts_with(start)))
        };
        if has(&["first_stage_model.", "cond_stage_model.", "conditioner."]) {
            return Some(Single::Whole);
        }
        let lower = self.path.to_ascii_lowercase();
        let stem = lower.strip_suffix(".safetensors").unwrap_or(&lower);
        if stem == "ae" || stem.split(['-', '_', '.']).any(|word| word == "vae") {
            return Some(Single::Vae);
        }
        (stem.starts_with("flux1-") || has(&["model.diffusion_model.", "double_blocks."]))
            .then_some(Single::Denoiser)
    }
}

impl Tensors {
    /// A value of `__metadata__` in any file, with the file's path.
    pub(super) fn metadata(&self, key: &str) -> Option<(String, String)> {
        self.files.iter().find_map(|file| Some((file.path.clone(), file.header.metadata.get(key)?.clone())))
    }

    /// Whether the weights lie in components and not in the model's own directory.
    pub(super) fn is_pipeline(&self) -> bool {
        const PARTS: [&str; 4] = ["transformer", "unet", "vae", "text_encoder"];
        !self.files.iter().any(|file| file.component().is_empty())
            && PARTS.iter().filter(|part| self.files.iter().any(|file| file.component() == **part)).count()
                >= 2
    }

    /// The files that make up the model: what loaders take, each weight once.
    pub(super) fn own(&self, pipeline: bool) -> Vec<&WeightFile> {
        let base = |file: &&WeightFile| {
            !file.is_adapter && !ASIDE.contains(&file.path.split('/').next().unwrap_or_default())
        };
        let files: Vec<&WeightFile> = self.files.iter().filter(base).collect();
        let in_root = |file: &&&WeightFile| file.component().is_empty();
        if pipeline {
            // Single-file copies of the same weights may stand beside the components, and so may other precisions.
            let variant = |file: &&&WeightFile| file.path.contains(".fp16.") || file.path.contains(".bf16.");
            let parts: Vec<&WeightFile> = files.iter().filter(|file| !in_root(file)).copied().collect();
            let plain: Vec<&WeightFile> = parts.iter().filter(|file| !variant(file)).copied().collect();
            let mut own = if !plain.is_empty() {
                plain
            } else if !parts.is_empty() {
                parts
            } else {
                return files;
            };
            // Without such a directory, the single file is all that there is of the component.
            let has = |names: &[&str]| own.iter().any(|file| names.contains(&file.component()));
            let (denoiser, vae) = (has(&["transformer", "unet"]), has(&["vae"]));
            let single = |kind| files.iter().find(move |file| file.single() == Some(kind)).copied();
            own.extend(single(Single::Denoiser).filter(|_| !denoiser));
            own.extend(single(Single::Vae).filter(|_| !vae));
            return own;
        }
        // mlx_lm and transformers load `model*.safetensors`; a `consolidated.safetensors` beside it is the same again.
        let named: Vec<&WeightFile> =
            files.iter().filter(in_root).filter(|file| file.path.starts_with("model")).copied().collect();
        if !named.is_empty() {
            return named;
        }
        let root: Vec<&WeightFile> = files.iter().filter(in_root).copied().collect();
        if root.is_empty() { files } else { root }
    }

    /// A tensor that only MLX's quantization lays out so: a file and the tensor's name.
    pub(super) fn quantized_as_mlx(&self) -> Option<(String, String)> {
        self.files.iter().filter(|file| !file.is_adapter).find_map(|file| {
            let scales = file.header.tensors.iter().find(|tensor| {
                tensor.name.strip_suffix(".scales").is_some_and(|module| {
                    let weight = format!("{module}.weight");
                    file.header.tensors.iter().any(|other| {
                        *other.name == *weight && other.dtype == crate::formats::safetensors::Dtype::U32
                    })
                })
            })?;
            Some((file.path.clone(), format!("tensor {}", scales.name)))
        })
    }
}

/// Every tensor of `files`.
pub(super) fn all<'a>(files: &[&'a WeightFile]) -> impl Iterator<Item = (&'a WeightFile, &'a TensorInfo)> {
    files
        .iter()
        .flat_map(|file| file.header.tensors.iter().map(|tensor| (*file, tensor)))
        .collect::<Vec<_>>()
        .into_iter()
}
