//! The level `structure`: what can be told without reading a weight beyond its header.

use mlxman_manifest::registry::files_stamp;
use mlxman_manifest::{Format, HealthStatus, Observation, inspect};
use mlxman_store::{FoundModel, Progress, Scan, Severity};

/// What a look at a model's files gave.
#[derive(Debug)]
pub struct Structure {
    /// What it is, by its own files.
    pub observation: Observation,
    /// Why it fails, for people: what, where, what to do.
    pub failure: Option<String>,
    /// A stamp of the files that were looked at.
    pub stamp: String,
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// Bytes of the largest file of them.
    pub largest_bytes: u64,
    /// Whether there are weights that MLX reads.
    pub loads: bool,
}

/// Looks at a model's files anew, whatever is known of them.
pub fn check(scan: &Scan, model: &FoundModel) -> Structure {
    let observation = inspect(scan, model, &Progress::default());
    let is_weights = |path: &str| {
        [".safetensors", ".npz", ".gguf"].iter().any(|ending| path.to_ascii_lowercase().ends_with(ending))
    };
    let sizes = || model.files.iter().filter(|file| is_weights(&file.path)).map(|file| file.stat.size);
    let weight_bytes = sizes().sum();
    let failure = problems(&observation).or_else(|| family_expects(&observation));
    Structure {
        failure,
        stamp: files_stamp(model),
        weight_bytes,
        largest_bytes: sizes().max().unwrap_or(0),
        loads: weight_bytes > 0,
        observation,
    }
}

/// What is missing or broken: the gravest first, and how many more there are.
fn problems(observation: &Observation) -> Option<String> {
    if observation.health.status == HealthStatus::Complete {
        return None;
    }
    let grave: Vec<_> =
        observation.health.problems.iter().filter(|problem| problem.severity > Severity::Info).collect();
    let first = grave.first()?;
    let place = first.path.as_deref().map(|path| format!("{path}: ")).unwrap_or_default();
    let more = match grave.len() {
        1 => String::new(),
        count => format!(" (and {} more: mlxman show says which)", count - 1),
    };
    Some(format!("{place}{}{more}", first.message))
}

/// What a family's decoder needs and the headers do not have: the names of tensors, and their shapes. Says nothing of a
/// family that it does not know.
///
/// The families' own lists of tensors are hooked in here. Until then nothing is expected, and a tensor that is missing
/// is told by the worker when it loads.
fn family_expects(_observation: &Observation) -> Option<String> {
    None
}

impl Structure {
    /// Whether it goes through a decoder as a whole; else the worker reads one tensor after the other.
    pub(crate) fn may_be_language_model(&self) -> bool {
        let text = ["text", "vision-language"];
        self.observation.format != Format::Diffusers
            && self
                .observation
                .architecture
                .modality
                .as_deref()
                .is_none_or(|modality| text.contains(&modality))
    }

    /// The type of what is not quantized, as the worker calls it.
    pub(crate) fn checkpoint_dtype(&self) -> Option<&'static str> {
        match self.observation.precision.as_deref()? {
            "f32" => Some("float32"),
            "bf16" => Some("bfloat16"),
            "f16" => Some("float16"),
            _ => None,
        }
    }

    /// Bytes of memory that loading takes at least. Weights of half precision that are computed with as float32 take
    /// twice what they take on the disk; packed ones do not.
    pub(crate) fn memory(&self, as_float32: bool) -> u64 {
        /// The program, and what lies beside the weights.
        const BESIDE: u64 = 256 << 20;
        let is_packed = self.observation.quantization.bits.is_some();
        let is_half = self.checkpoint_dtype().is_some_and(|dtype| dtype != "float32");
        let read = if self.may_be_language_model() { self.weight_bytes } else { self.largest_bytes };
        let factor = if as_float32 && is_half && !is_packed { 2 } else { 1 };
        read.saturating_mul(factor).saturating_add(BESIDE)
    }
}
