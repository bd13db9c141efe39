//! The headers of a model's weight files.

use mlxman_store::{ProblemKind, Progress};

use super::{Subject, chain};
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

/// The headers of all weight files that could be read.
#[derive(Debug, Default)]
pub(super) struct Tensors {
    pub(super) files: Vec<WeightFile>,
    pub(super) gguf: Vec<GgufFile>,
    /// Weight files that are there, readable or not.
    pub(super) seen: Vec<String>,
}

/// Directories in a model that hold other things than the model: exports for other runtimes, training leftovers.
const ASIDE: [&str; 8] =
    ["original", "onnx", "openvino", "coreml", "checkpoint", "checkpoints", "runs", "adapters"];

pub(super) fn read(subject: &mut Subject<'_>, progress: &Progress) -> Tensors {
    let mut tensors = Tensors::default();
    for file in &subject.model.files {
        let lower = file.path.to_ascii_lowercase();
        if lower.ends_with(".safetensors") {
            tensors.seen.push(file.path.clone());
            let read = subject
                .scan
                .open(file)
                .map_err(HeaderError::Io)
                .and_then(|mut opened| SafetensorsHeader::read(&mut opened, file.stat.size));
            match read {
                Ok(header) => {
                    check(subject, &file.path, &header, file.stat.size);
                    let is_adapter = is_adapter(&file.path, &header);
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

/// Names that PEFT, mlx_lm, kohya and diffusers give to an adapter's tensors.
fn is_adapter_tensor(name: &str) -> bool {
    ["lora_a", "lora_b", "lora_A", "lora_B", "lora_up", "lora_down", "lora_magnitude", "hada_w", "lokr_w"]
        .iter()
        .any(|part| name.contains(part))
}

fn is_adapter(path: &str, header: &SafetensorsHeader) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    if header.metadata.contains_key("ss_network_module") {
        return true;
    }
    let named = file.starts_with("adapters.")
        || file.starts_with("adapter_model.")
        || file.ends_with("_adapters.safetensors");
    let some = header.tensors.iter().any(|tensor| is_adapter_tensor(&tensor.name));
    // An adapter's training can unfreeze whole layers too, so not every tensor needs to be one of a pair.
    named
        || (some
            && header.tensors.iter().filter(|t| is_adapter_tensor(&t.name)).count() * 2
                >= header.tensors.len())
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
            return if !plain.is_empty() {
                plain
            } else if !parts.is_empty() {
                parts
            } else {
                files
            };
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
