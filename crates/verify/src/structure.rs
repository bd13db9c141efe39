//! The level `structure`: what can be told without reading a weight beyond its header.

use std::collections::HashMap;
use std::io::Read as _;

use mlxman_lm::config::ConfigError;
use mlxman_lm::decoder::Decoder;
use mlxman_lm::families;
use mlxman_lm::files::parse_json;
use mlxman_lm::tensors::compare;
use mlxman_manifest::formats::safetensors::SafetensorsHeader;
use mlxman_manifest::registry::files_stamp;
use mlxman_manifest::{Format, HealthStatus, Observation, inspect};
use mlxman_store::{EntryKind, FileEntry, FoundModel, Progress, Scan, Severity};

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
    let failure = no_file(scan, model)
        .or_else(|| problems(&observation))
        .or_else(|| family_expects(scan, model, &observation));
    Structure {
        failure,
        stamp: files_stamp(model),
        weight_bytes,
        largest_bytes: sizes().max().unwrap_or(0),
        loads: weight_bytes > 0,
        observation,
    }
}

/// What has the name of a file that programs read, and is none: whoever opens a pipe waits for ever, and a directory
/// cannot be read. A look at the files alone does not see it.
fn no_file(scan: &Scan, model: &FoundModel) -> Option<String> {
    let is_weights = |name: &str| [".safetensors", ".npz", ".gguf"].iter().any(|end| name.ends_with(end));
    let is_config = |name: &str| name.ends_with(".json") || name.ends_with(".jinja");
    let own = (!model.is_file).then_some(model.key.as_str())?;
    let below = model.dirs.iter().map(|(dir, _)| dir.as_str()).filter(|dir| *dir != own);
    for dir in std::iter::once(own).chain(below) {
        let inside = dir.strip_prefix(own).unwrap_or(dir).trim_start_matches('/');
        if inside.split('/').next() == Some(".cache") {
            continue;
        }
        let opened;
        let handle = if dir.is_empty() {
            scan.root()
        } else {
            // One that cannot be opened is told as a problem.
            let Ok(dir) = scan.root().open_dir_below(dir) else { continue };
            opened = dir;
            &opened
        };
        for entry in handle.list().unwrap_or_default() {
            let name = entry.lossy_name().to_ascii_lowercase();
            let what = match entry.stat.kind {
                EntryKind::Other if is_weights(&name) || is_config(&name) => "a pipe, a socket or a device",
                EntryKind::Dir if is_weights(&name) || name == "config.json" => "a directory",
                _ => continue,
            };
            let name = entry.lossy_name();
            let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
            return Some(format!(
                "{path} is {what}, and should be a file; remove it, and download the model again"
            ));
        }
    }
    None
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

/// The largest `config.json` that is read.
const CONFIG_LIMIT: u64 = 64 << 20;

/// What a family's decoder needs and the headers do not have: the names of tensors, and their shapes. Says nothing of a
/// family that it does not know, nor of weights that are packed in another way than MLX's.
fn family_expects(scan: &Scan, model: &FoundModel, observation: &Observation) -> Option<String> {
    if !matches!(observation.format, Format::Mlx | Format::Transformers) {
        return None;
    }
    let mut text = Vec::new();
    let file = scan.open(model.file("config.json")?).ok()?;
    file.take(CONFIG_LIMIT).read_to_end(&mut text).ok()?;
    // As it is read when the model is loaded: what the family needs has to be a number there, not Python's `Infinity`.
    let described = parse_json(&text).map_err(|error| error.to_string()).and_then(|config| {
        match families::describe(&config) {
            Ok(decoder) => Ok(Some(decoder)),
            Err(ConfigError::UnknownFamily(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    });
    let decoder = match described {
        Ok(decoder) => decoder?,
        Err(why) => return Some(format!("config.json: {why}; download the file again, or mend it")),
    };
    let shapes = shapes(scan, model, &decoder)?;
    let foreign = [".qweight", ".weight_packed", "_blocks", ".weight_scale_inv", ".absmax"];
    if shapes.keys().any(|name| foreign.iter().any(|ending| name.ends_with(ending))) {
        return None;
    }
    let wrong = compare(&decoder, 100, |name| shapes.get(name).cloned());
    let first = wrong.first()?;
    let more = match wrong.len() {
        1 => String::new(),
        count => format!(" (and {} more like it)", count - 1),
    };
    Some(format!(
        "{first}{more}: config.json describes another {} than these files hold; download the model again",
        decoder.family
    ))
}

/// Shapes by the names that the description has; `None` where a header cannot be read, which is told elsewhere.
fn shapes(scan: &Scan, model: &FoundModel, decoder: &Decoder) -> Option<HashMap<String, Vec<usize>>> {
    let is_weights = |file: &&FileEntry| file.path.ends_with(".safetensors") && !file.path.contains('/');
    let files: Vec<&FileEntry> = model.files.iter().filter(is_weights).collect();
    // As mlx_lm takes them: `model*.safetensors`, where there is one.
    let named = files.iter().any(|file| file.path.starts_with("model"));
    let mut shapes = HashMap::new();
    for file in files.into_iter().filter(|file| !named || file.path.starts_with("model")) {
        let mut reader = scan.open(file).ok()?;
        let header = SafetensorsHeader::read(&mut reader, file.stat.size).ok()?;
        for tensor in header.tensors {
            let shape = tensor.shape.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<_>>()?;
            shapes.insert(decoder.name_here(&tensor.name), shape);
        }
    }
    Some(shapes)
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
