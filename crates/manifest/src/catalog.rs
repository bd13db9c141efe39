//! The catalog: what is known beforehand of well-known models, by their short names.
//!
//! The built-in entries are the files of `manifests/` at the top of the repository. A user can add entries of the same
//! form, or replace a built-in one by giving an entry its name.

use std::fmt;
use std::path::{Path, PathBuf};

use globset::GlobBuilder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

mod check;

pub use check::{NameError, validate_name};

/// The version of an entry's form that this library reads.
pub const SCHEMA_VERSION: u32 = 1;

/// No entry is as long as this; a longer file is something else.
const MOST_BYTES: u64 = 1 << 20;

macro_rules! embedded {
    ($name:literal) => {
        (concat!($name, ".json"), include_str!(concat!("../../../manifests/", $name, ".json")))
    };
}

/// The built-in entries: the file's name, and what it holds.
const EMBEDDED: &[(&str, &str)] = &[
    embedded!("Llama-3.2-1B-Instruct-4bit"),
    embedded!("Phi-3-mini-4k-instruct-unsloth-4bit"),
    embedded!("Qwen2.5-0.5B-Instruct-4bit"),
    embedded!("SmolLM2-135M-Instruct-4bit"),
    embedded!("encodec-32khz-float32"),
    embedded!("flux-dev"),
    embedded!("flux-schnell-4bit"),
    embedded!("flux-schnell"),
    embedded!("musicgen-small"),
];

/// What is known beforehand of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogEntry {
    /// Where this form is described, for editors.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The version of this form: 1.
    pub schema_version: u32,
    /// The model's short name.
    pub name: String,
    /// What the model is, in one sentence.
    pub description: String,
    /// Where it comes from.
    pub source: CatalogSource,
    /// The format of its weights, a word of [`Format`](crate::Format): `mlx`, `transformers`, `diffusers`, `gguf`,
    /// `pytorch`.
    pub format: String,
    /// How it is quantized, or the type of its weights; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<CatalogQuantization>,
    /// Tags that a model from this source is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The licence's identifier, as on the Hub; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Globs over paths within the model: for each one there must be a file, or the model can't be loaded. `*` stays
    /// within one component; `{a,b}` is either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_files: Vec<String>,
    /// Whether a LoRA can be applied to it.
    pub allows_lora: bool,
    /// What else there is to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogSource {
    /// The repository on the Hugging Face Hub, as `org/name`.
    pub repo_id: String,
    /// Other repositories that hold the same model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// How a model is quantized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogQuantization {
    /// The label: `4bit`, `bf16`, `mixed-4-8bit`.
    pub label: String,
    /// Bits for each weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
    /// Weights that share a scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_size: Option<u32>,
}

impl CatalogEntry {
    /// The repository it comes from, and the others that hold the same.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.source.repo_id).chain(&self.source.aliases).map(String::as_str)
    }

    /// Those of [`required_files`](Self::required_files) that not one of `files` meets. The paths are relative to the
    /// model, with `/` between components.
    #[must_use]
    pub fn missing_files(&self, files: &[&str]) -> Vec<&str> {
        let meets = |glob: &str| {
            GlobBuilder::new(glob).literal_separator(true).build().is_ok_and(|glob| {
                let glob = glob.compile_matcher();
                files.iter().any(|file| glob.is_match(file))
            })
        };
        self.required_files.iter().map(String::as_str).filter(|glob| !meets(glob)).collect()
    }

    /// Whether one of [`required_files`](Self::required_files) is about the weights of a pipeline's component, be it in
    /// the component's directory or in a single file beside it: `{ae.safetensors,vae/*.safetensors}` is about `vae`.
    pub(crate) fn names_component(&self, component: &str) -> bool {
        let mut parts = self.required_files.iter().flat_map(|glob| glob.split(['{', ',', '}']));
        parts.any(|part| part.strip_prefix(component).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Reads one entry.
    ///
    /// # Errors
    /// The first thing wrong with it, and in which field.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        check::parse(text)
    }
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}{why}", .field.as_ref().map_or_else(String::new, |field| format!("field `{field}`: ")))]
pub struct EntryError {
    /// The field it is about, as `source.repo_id`; absent where it is about the whole.
    pub field: Option<String>,
    /// What is wrong.
    pub why: String,
}

/// A file of the user's catalog that does not count, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct CatalogProblem {
    /// The file.
    pub file: PathBuf,
    /// The field it is about, as `source.repo_id`; absent where it is about the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for CatalogProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.field {
            Some(field) => write!(f, "{file}: field `{field}`: {}", self.why),
            None => write!(f, "{file}: {}", self.why),
        }
    }
}

/// A catalog's directory that can't be listed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The directory, or a part of its listing, can't be read.
    #[error("the catalog can't be listed: {0}")]
    Unlistable(#[source] std::io::Error),
}

/// Entries, each name and each source once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    entries: Vec<CatalogEntry>,
}

impl Catalog {
    /// The entries that come with the library.
    #[must_use]
    pub fn built_in() -> Self {
        // None is left out: a test reads every one of them.
        let entries = EMBEDDED.iter().filter_map(|(_, text)| CatalogEntry::parse(text).ok());
        let mut entries: Vec<CatalogEntry> = entries.collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Self { entries }
    }

    /// Adds the entries of the `.json` files in `dir`, in the order of their names, and tells of those that do not
    /// count. An entry replaces one that was there before under its name, in any case. A directory that does not exist
    /// has no entries.
    ///
    /// # Errors
    /// The directory can't be listed.
    pub fn with_user_entries(mut self, dir: &Path) -> Result<(Self, Vec<CatalogProblem>), CatalogError> {
        let mut problems = Vec::new();
        let mut added: Vec<(CatalogEntry, PathBuf)> = Vec::new();
        for file in json_files(dir).map_err(CatalogError::Unlistable)? {
            let problem =
                |error: EntryError| CatalogProblem { file: file.clone(), field: error.field, why: error.why };
            match read(&file).and_then(|entry| unlike(entry, &added)) {
                Ok(entry) => added.push((entry, file)),
                Err(error) => problems.push(problem(error)),
            }
        }
        // Those that replace an entry first: what they replace leaves its sources to the others.
        added.sort_by_key(|(entry, _)| self.by_name(&entry.name).is_none());
        for (entry, file) in added {
            let is_other = |other: &&CatalogEntry| !other.name.eq_ignore_ascii_case(&entry.name);
            let taken =
                entry.sources().find_map(|source| Some((source, self.by_source(source).filter(is_other)?)));
            if let Some((source, other)) = taken {
                let why = format!(
                    "`{source}` is already that of the entry `{0}`; to replace that one, name this one `{0}`",
                    other.name
                );
                problems.push(CatalogProblem { file, field: Some("source".to_owned()), why });
                continue;
            }
            self.entries.retain(|old| !old.name.eq_ignore_ascii_case(&entry.name));
            self.entries.push(entry);
        }
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        problems.sort_by(|a, b| a.file.cmp(&b.file));
        Ok((self, problems))
    }

    /// The entries, by name.
    #[must_use]
    pub fn entries(&self) -> &[CatalogEntry] {
        &self.entries
    }

    /// The entry of a model from that repository, in any case.
    #[must_use]
    pub fn by_source(&self, repo_id: &str) -> Option<&CatalogEntry> {
        self.entries.iter().find(|entry| entry.sources().any(|source| source.eq_ignore_ascii_case(repo_id)))
    }

    /// The entry of that name, in any case.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&CatalogEntry> {
        self.entries.iter().find(|entry| entry.name.eq_ignore_ascii_case(name))
    }
}

fn json_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let listing = match fs_err::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in listing {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<CatalogEntry, EntryError> {
    let whole = |why: String| EntryError { field: None, why };
    let metadata = fs_err::metadata(file).map_err(|error| whole(error.to_string()))?;
    if !metadata.is_file() {
        return Err(whole("it is not a regular file".to_owned()));
    }
    if metadata.len() > MOST_BYTES {
        return Err(whole(format!("it has {} bytes; an entry has {MOST_BYTES} at most", metadata.len())));
    }
    let text = fs_err::read_to_string(file).map_err(|error| whole(error.to_string()))?;
    CatalogEntry::parse(&text)
}

/// `entry`, if no entry of `others` has its name or one of its sources.
fn unlike(entry: CatalogEntry, others: &[(CatalogEntry, PathBuf)]) -> Result<CatalogEntry, EntryError> {
    let clash = |field: &str, value: &str, file: &Path| {
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        EntryError { field: Some(field.to_owned()), why: format!("`{value}` is already that of {file}") }
    };
    for (other, file) in others {
        if other.name.eq_ignore_ascii_case(&entry.name) {
            return Err(clash("name", &entry.name, file));
        }
        let same = |source: &&str| other.sources().any(|theirs| theirs.eq_ignore_ascii_case(source));
        if let Some(source) = entry.sources().find(same) {
            return Err(clash("source", source, file));
        }
    }
    Ok(entry)
}

#[cfg(test)]
mod tests;
