use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::links::FileId;
use crate::watch::{Late, watch};

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
    ///
    /// This asks the filesystem, so it hangs where the volume does: [`resolve`] does the same with a time limit.
    pub fn new(kind: StoreKind, root: impl Into<PathBuf>) -> Self {
        StoreSpec::verbatim(kind, root).canonical()
    }

    /// A store at `root` as it is written, with no look at any filesystem: for what was canonical when it was written
    /// down, and for what [`resolve`] is to look at.
    pub fn verbatim(kind: StoreKind, root: impl Into<PathBuf>) -> Self {
        StoreSpec { kind, root: root.into() }
    }

    /// The same store under its one name. Of a root that is not there, what is there of the way to it is made
    /// canonical, so that a store keeps its name while its volume is away. See [`StoreSpec::new`].
    #[must_use]
    pub fn canonical(self) -> Self {
        let StoreSpec { kind, root } = self;
        let plain = root.components().all(|part| !matches!(part, Component::ParentDir));
        let above = if plain { root.ancestors() } else { Path::new("").ancestors() };
        let found = root.canonicalize().ok().or_else(|| {
            above.skip(1).find_map(|dir| {
                let rest = root.strip_prefix(dir).ok()?;
                Some(dir.canonicalize().ok()?.join(rest))
            })
        });
        StoreSpec { kind, root: found.unwrap_or(root) }
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

    /// Takes the path as it is written: see [`StoreSpec::verbatim`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, path) = text.split_once('=').ok_or_else(|| ParseStoreError::NoPath(text.to_owned()))?;
        if path.is_empty() {
            return Err(ParseStoreError::NoPath(text.to_owned()));
        }
        Ok(StoreSpec::verbatim(kind.parse()?, path))
    }
}

/// What [`resolve`] found of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The store: under its canonical name where its volume answered, else as it was written.
    pub spec: StoreSpec,
    /// Whether something is at its root; or that its volume did not answer.
    pub there: Result<bool, Late>,
    /// Device and inode of its root: one directory may have two names where it is mounted twice.
    pub id: Option<FileId>,
}

/// Finds the canonical name of each store, all at once, and gives up those that do not answer within `limit`.
pub fn resolve(specs: Vec<StoreSpec>, limit: Duration) -> Vec<Resolved> {
    let answers = watch(specs.clone(), limit, |spec: StoreSpec, _| {
        let spec = spec.canonical();
        let root = spec.root().symlink_metadata().ok();
        (spec, root.map(|root| (root.dev(), root.ino())))
    });
    specs
        .into_iter()
        .zip(answers)
        .map(|(spec, answer)| match answer {
            Ok((spec, id)) => Resolved { spec, there: Ok(id.is_some()), id },
            Err(late) => Resolved { spec, there: Err(late), id: None },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_its_name_while_its_volume_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs_err::create_dir(top.join("real")).unwrap();
        fs_err::os::unix::fs::symlink("real", top.join("link")).unwrap();
        let here = StoreSpec::new(StoreKind::Hub, top.join("link/hub"));
        assert_eq!(here.root(), top.join("real/hub"));
        fs_err::create_dir(top.join("real/hub")).unwrap();
        let written = StoreSpec::verbatim(StoreKind::Hub, top.join("link/hub"));
        assert_eq!(written.root(), top.join("link/hub"));
        assert_eq!(written.to_string().parse::<StoreSpec>().unwrap(), written);
        let found = resolve(
            vec![written, StoreSpec::verbatim(StoreKind::Folder, top.join("no"))],
            Duration::from_secs(60),
        );
        assert_eq!((&found[0].spec, found[0].there), (&here, Ok(true)));
        assert!(found[0].id.is_some() && found[1].id.is_none());
        assert_eq!(found[1].there, Ok(false));
        let odd = top.join("no/../real");
        assert_eq!(StoreSpec::new(StoreKind::Hub, &odd).root(), odd);
    }

    #[test]
    fn the_text_form_goes_both_ways() {
        let spec: StoreSpec = "hub=/no/such/place".parse().unwrap();
        assert_eq!(spec.to_string(), "hub=/no/such/place");
        assert_eq!("nope=/x".parse::<StoreSpec>(), Err(ParseStoreError::UnknownKind("nope".into())));
        assert!(matches!("hub".parse::<StoreSpec>(), Err(ParseStoreError::NoPath(_))));
        assert!(matches!("hub=".parse::<StoreSpec>(), Err(ParseStoreError::NoPath(_))));
    }
}
