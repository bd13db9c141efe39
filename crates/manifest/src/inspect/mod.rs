//! Finding out what a model is, from its files.
//!
//! Nothing here reads a weight beyond its header, and nothing is taken from a name alone without being marked so.

mod adapter;
mod architecture;
mod gguf;
mod health;
mod quantization;
mod tensors;
mod weights;
mod widths;

use std::collections::BTreeMap;

use mlxman_store::{FileEntry, FoundModel, Listing, Problem, ProblemKind, Progress, Scan};
use serde_json::Value;

use crate::formats::front_matter::FrontMatter;
use crate::formats::json::{JsonError, read_json};
use crate::record::{Adapter, Architecture, Evidence, FileRecord, Format, Health, Quantization, Source};
use tensors::Tensors;
use weights::Proof;

pub(crate) use health::status_of;

/// The largest JSON file that is read, in bytes: an index of a large mixture of experts has some 10 MB.
const JSON_LIMIT: u64 = 64 << 20;

/// What was found out of one model. Everything here depends on its files alone, not on other models, the user or the
/// time, so it holds for as long as they are unchanged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// Where it came from, as far as its own files say.
    pub source: Source,
    /// What kind of files it consists of.
    pub format: Format,
    /// What it is made of.
    pub architecture: Architecture,
    /// Parameters.
    pub parameter_count: Option<u64>,
    /// Floating-point type.
    pub precision: Option<String>,
    /// How it is quantized.
    pub quantization: Quantization,
    /// Whether an adapter is involved.
    pub adapter: Adapter,
    /// Its files.
    pub files: Vec<FileRecord>,
    /// Its health.
    pub health: Health,
    /// Tags that its README gives.
    pub tags: Vec<String>,
    /// What said so.
    pub evidence: BTreeMap<String, Evidence>,
}

/// A model under inspection: what its files say, collected before anything is concluded.
struct Subject<'a> {
    scan: &'a Scan,
    model: &'a FoundModel,
    listing: Option<Listing>,
    config: Option<Value>,
    model_index: Option<Value>,
    tensors: Tensors,
    front: FrontMatter,
    has_readme: bool,
    problems: Vec<Problem>,
    evidence: BTreeMap<String, Evidence>,
}

/// Finds out what `model` is.
pub fn inspect(scan: &Scan, model: &FoundModel, progress: &Progress) -> Observation {
    let details = scan.details(model);
    let mut subject = Subject {
        scan,
        model,
        listing: details.listing,
        config: None,
        model_index: None,
        tensors: Tensors::default(),
        front: FrontMatter::default(),
        has_readme: false,
        problems: model.problems.clone(),
        evidence: BTreeMap::new(),
    };
    subject.problems.extend(details.problems);
    subject.config = subject.json("config.json");
    subject.model_index = subject.json("model_index.json");
    subject.read_front_matter();
    progress.step(1);
    subject.tensors = tensors::read(&mut subject, progress);

    let mut observation = Observation { source: subject.source(), ..Observation::default() };
    if let Some(download) = &details.download
        && observation.source.revision.is_none()
        && let Some(commit) = download.commit()
    {
        observation.source.revision = Some(commit.to_owned());
        subject.says("source.revision", ".cache/huggingface/download", "line 1 of every .metadata");
    }
    observation.format = subject.format();
    observation.architecture = subject.architecture();
    let quantized = quantization::find(&mut subject);
    observation.parameter_count = quantized.parameter_count;
    observation.precision = quantized.precision;
    observation.quantization = quantized.quantization;
    observation.adapter = adapter::find(&mut subject, observation.format);
    observation.tags = subject.front.tags.clone();
    if !observation.tags.is_empty() {
        subject.says("tags", "README.md", "tags");
    }
    let etags = details.download.as_ref();
    observation.files = model
        .files
        .iter()
        .map(|file| {
            let etag =
                etags.and_then(|download| download.files.get(&file.path)).map(|local| local.etag.as_str());
            file_record(file, etag, subject.listing.as_ref())
        })
        .collect();
    observation.health = health::judge(&mut subject, observation.format);
    observation.evidence = std::mem::take(&mut subject.evidence);
    observation
}

fn file_record(file: &FileEntry, etag: Option<&str>, listing: Option<&Listing>) -> FileRecord {
    let blob = file.blob.as_ref().map(|blob| blob.name.clone());
    let listed = listing.and_then(|listing| listing.files.get(&file.path));
    let name = blob.as_deref().or(etag);
    let of_length = |length: usize| {
        name.filter(|name| name.len() == length && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .map(str::to_owned)
    };
    FileRecord {
        path: file.path.clone(),
        size: file.stat.size,
        sha256: of_length(64).or_else(|| listed.and_then(|listed| listed.lfs_sha256.clone())),
        git_sha1: of_length(40)
            .or_else(|| listed.filter(|l| l.lfs_sha256.is_none()).and_then(|listed| listed.blob_id.clone())),
        blob,
        blake3: None,
    }
}

impl Subject<'_> {
    fn says(&mut self, field: &str, file: &str, key: impl Into<String>) {
        self.evidence.insert(field.to_owned(), Evidence::new(file, key));
    }

    fn problem(&mut self, kind: ProblemKind, path: Option<&str>, message: impl Into<String>) {
        self.problems.push(Problem::new(kind, path, message));
    }

    fn has(&self, path: &str) -> bool {
        self.model.file(path).is_some()
    }

    /// The JSON document at `path`, where it is there; what is wrong with it becomes a problem.
    fn json(&mut self, path: &str) -> Option<Value> {
        let file = self.model.file(path)?;
        let read =
            self.scan.open(file).map_err(JsonError::Io).and_then(|opened| read_json(opened, JSON_LIMIT));
        match read {
            Ok(value @ Value::Object(_)) => Some(value),
            Ok(_) => {
                let message = format!("{path} cannot be used: it is JSON, but no object");
                self.problem(ProblemKind::ConfigInvalid, Some(path), message);
                None
            }
            Err(error) => {
                let kind = match error {
                    JsonError::Io(_) => ProblemKind::Unreadable,
                    _ => ProblemKind::ConfigInvalid,
                };
                self.problem(kind, Some(path), format!("{path} cannot be used: {}", chain(&error)));
                None
            }
        }
    }

    fn read_front_matter(&mut self) {
        let Some(file) = self.model.file("README.md") else { return };
        self.has_readme = true;
        match self.scan.open(file).map(FrontMatter::read) {
            Ok(Ok(front)) => self.front = front.unwrap_or_default(),
            Ok(Err(error)) => {
                let message = format!("the front matter of README.md was not used: {}", chain(&error));
                self.problem(ProblemKind::FrontMatterInvalid, Some("README.md"), message);
            }
            Err(error) => {
                let message = format!("README.md cannot be read: {error}");
                self.problem(ProblemKind::Unreadable, Some("README.md"), message);
            }
        }
    }

    fn source(&mut self) -> Source {
        let mut source = Source::default();
        if let Some(repo) = &self.model.repo {
            source.repo_id = Some(repo.id.clone());
            source.repo_kind = Some(repo.kind);
            source.revision = Some(repo.revision.clone());
            source.refs = repo.refs.clone();
            source.detached = repo.detached();
            source.current = Some(repo.current);
            let key = self.model.key.clone();
            self.says("source.repo_id", &key, "the cache's directory name");
            self.says("source.revision", &key, "the snapshot's directory name");
        }
        let front = self.front.clone();
        let mut said = Vec::new();
        let mut take = |field: &'static str, there: bool| {
            if there {
                said.push(field);
            }
        };
        take("base_model", !front.base_model.is_empty());
        take("base_model_relation", front.base_model_relation.is_some());
        take("license", front.license.is_some());
        take("library_name", front.library_name.is_some());
        take("pipeline_tag", front.pipeline_tag.is_some());
        for field in said {
            self.says(&format!("source.{field}"), "README.md", field);
        }
        source.base_model = front.base_model;
        source.base_model_relation = front.base_model_relation;
        source.license = front.license;
        source.library_name = front.library_name;
        source.pipeline_tag = front.pipeline_tag;
        if source.base_model.is_empty()
            && let Some(base) = self.adapter_base()
        {
            source.base_model = vec![base];
            self.says("source.base_model", "adapter_config.json", "model or base_model_name_or_path");
        }
        source
    }

    fn adapter_base(&mut self) -> Option<String> {
        if !self.has("adapter_config.json") {
            return None;
        }
        let config = self.json("adapter_config.json")?;
        ["base_model_name_or_path", "model"]
            .iter()
            .find_map(|key| config.get(key)?.as_str())
            .filter(|base| !base.is_empty())
            .map(str::to_owned)
    }

    fn format(&mut self) -> Format {
        let format = self.format_and_why();
        if let Some((file, key)) = format.1 {
            self.says("format", &file, key);
        }
        format.0
    }

    fn format_and_why(&self) -> (Format, Option<(String, String)>) {
        let why = |file: &str, key: &str| Some((file.to_owned(), key.to_owned()));
        let weights = &self.tensors;
        if let Some(file) = self.only_adapters() {
            return (Format::Adapter, why(&file, "nothing but adapter tensors"));
        }
        let by_mlx = || {
            let said = weights
                .files
                .iter()
                .filter(|file| !file.is_adapter)
                .find(|file| file.header.metadata.get("format").is_some_and(|format| format == "mlx"));
            said.map(|file| (file.path.clone(), "__metadata__.format".to_owned()))
        };
        if self.model_index.is_some() || weights.is_pipeline() {
            let mflux =
                || weights.metadata("mflux_version").map(|(f, _)| (f, "__metadata__.mflux_version".into()));
            if let Some(mlx) = mflux().or_else(|| weights.quantized_as_mlx()).or_else(by_mlx) {
                return (Format::Mlx, Some(mlx));
            }
            let file = match (&self.model_index, weights.files.first()) {
                (None, Some(file)) => file.path.as_str(),
                _ => "model_index.json",
            };
            return (Format::Diffusers, why(file, "a directory a component"));
        }
        if let Some(gguf) = weights.gguf.first() {
            let model = gguf::models(weights).first().and_then(gguf::Set::head);
            return (Format::Gguf, why(&model.unwrap_or(gguf).path, "its first four bytes"));
        }
        if let Some(mlx) = by_mlx().or_else(|| weights.quantized_as_mlx()) {
            return (Format::Mlx, Some(mlx));
        }
        let config = |key: &str| self.config.as_ref().and_then(|config| config.get(key));
        let npz = self.model.files.iter().find(|file| file.path.ends_with(".npz"));
        if let Some(file) = npz.filter(|_| weights.files.is_empty()) {
            return (Format::Mlx, why(&file.path, "its name: MLX arrays"));
        }
        if config("quantization").is_some_and(|q| q.get("bits").is_some() && q.get("quant_method").is_none())
        {
            return (Format::Mlx, why("config.json", "quantization"));
        }
        if config("_class_name").is_some_and(Value::is_string) {
            return (Format::Diffusers, why("config.json", "_class_name"));
        }
        let own = weights.files.iter().find(|file| !file.is_adapter);
        if let Some(file) = own {
            if self.front.library_name.as_deref() == Some("mlx") {
                return (Format::Mlx, why("README.md", "library_name"));
            }
            let key = ["model_type", "architectures"].into_iter().find(|key| config(key).is_some());
            // A single file for the authors' own code says so, whatever else lies there.
            let single = file.header.metadata.keys().any(|key| key.starts_with("modelspec."));
            return match (file.header.metadata.get("format").map(String::as_str), key) {
                _ if single => (Format::Unknown, None),
                (Some("pt"), Some(_)) => (Format::Transformers, why(&file.path, "__metadata__.format")),
                // Without a word of the writer's: transformers loads files of this name alone.
                (_, Some(key)) if file.path.starts_with("model") => {
                    (Format::Transformers, why("config.json", key))
                }
                _ => (Format::Unknown, None),
            };
        }
        match weights::proof(self) {
            Some((Proof::Pickle, file)) => (Format::Pytorch, why(&file, "its first four bytes")),
            Some((Proof::Onnx, file)) => (Format::Onnx, why(&file, "its first four bytes")),
            Some((Proof::CoreMl, file)) => (Format::Coreml, why(&file, "a package of Core ML")),
            None => (Format::Unknown, None),
        }
    }

    /// The file that proves it, where an adapter is all that lies there.
    fn only_adapters(&self) -> Option<String> {
        let weights = &self.tensors;
        let sets = gguf::sets(weights);
        if weights.files.iter().any(|file| !file.is_adapter)
            || sets.iter().any(|set| matches!(set.role, gguf::Role::Model | gguf::Role::Projector))
        {
            return None;
        }
        if let Some(file) = weights.files.first() {
            return Some(file.path.clone());
        }
        if let Some(set) = sets.iter().find(|set| set.role == gguf::Role::Adapter) {
            return set.head().map(|file| file.path.clone());
        }
        // Pickles are not read: a model's own are known by the names that transformers and diffusers give them.
        let of_model = |file: &FileEntry| {
            let name = file.path.rsplit('/').next().unwrap_or(&file.path);
            weights::is_weight_file(name)
                && [
                    "pytorch_model",
                    "model",
                    "diffusion_pytorch_model",
                    "consolidated",
                    "tf_model",
                    "flax_model",
                ]
                .iter()
                .any(|word| name.starts_with(word))
        };
        let named = self
            .model
            .files
            .iter()
            .find(|file| tensors::is_adapter_name(&file.path) && weights::is_weight_file(&file.path));
        let alone = !self.model.files.iter().any(of_model);
        match named {
            _ if !alone => None,
            _ if self.has("adapter_config.json") => Some("adapter_config.json".to_owned()),
            Some(file) if self.config.is_none() && self.model_index.is_none() => Some(file.path.clone()),
            _ => None,
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
