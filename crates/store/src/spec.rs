use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a store is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreKind {
    /// A Hugging Face hub cache, as huggingface_hub writes it: `models--org--name/{blobs,refs,snapshots}`.
    Hub,
    /// A folder of models: one directory a model, also `publisher/model`, or one model directory itself.
    Folder,
}

impl StoreKind {
    /// Every kind, in the order in which help lists them.
    pub const ALL: [StoreKind; 2] = [StoreKind::Hub, StoreKind::Folder];

    /// The word for it in `KIND=PATH`.
    pub fn word(self) -> &'static str {
        match self {
            StoreKind::Hub => "hub",
            StoreKind::Folder => "folder",
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for StoreKind {
    type Err = ParseStoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        StoreKind::ALL
            .into_iter()
            .find(|kind| kind.word() == text)
            .ok_or_else(|| ParseStoreError::UnknownKind(text.to_owned()))
    }
}

/// One store: its kind and its root.
///
/// Its text form `KIND=PATH` is what `--store` takes and what a manifest's `store` says. Two specs with the same
/// kind and the same canonical root are the same store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreSpec {
    kind: StoreKind,
    root: PathBuf,
}

impl StoreSpec {
    /// A store at `root`. The root is made canonical where it exists, so that one store has one name; where it does
    /// not, it is kept as given.
    pub fn new(kind: StoreKind, root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let root = root.canonicalize().unwrap_or(root);
        StoreSpec { kind, root }
    }

    /// How it is laid out.
    pub fn kind(&self) -> StoreKind {
        self.kind
    }

    /// Its top directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `KIND=PATH`: unique among stores, and stable from run to run.
    pub fn id(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for StoreSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.root.display())
    }
}

/// Why a text is not a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseStoreError {
    /// The word before `=` is no kind.
    #[error("`{0}` is not a kind of store: use hub=PATH or folder=PATH")]
    UnknownKind(String),
    /// There is no `=`, or no path behind it.
    #[error("`{0}` does not name a store: write KIND=PATH, such as hub=/data/hub or folder=/data/models")]
    NoPath(String),
}

impl FromStr for StoreSpec {
    type Err = ParseStoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, path) = text.split_once('=').ok_or_else(|| ParseStoreError::NoPath(text.to_owned()))?;
        if path.is_empty() {
            return Err(ParseStoreError::NoPath(text.to_owned()));
        }
        Ok(StoreSpec::new(kind.parse()?, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_goes_both_ways() {
        let spec: StoreSpec = "hub=/no/such/place".parse().unwrap();
        assert_eq!(spec.to_string(), "hub=/no/such/place");
        assert_eq!("nope=/x".parse::<StoreSpec>(), Err(ParseStoreError::UnknownKind("nope".into())));
        assert!(matches!("hub".parse::<StoreSpec>(), Err(ParseStoreError::NoPath(_))));
        assert!(matches!("hub=".parse::<StoreSpec>(), Err(ParseStoreError::NoPath(_))));
    }
}
