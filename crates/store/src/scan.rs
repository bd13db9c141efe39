use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::{DirHandle, Stat};
use crate::filesystem::Filesystem;
use crate::ledger::{Ledger, OwnerId};
use crate::links::LooseLink;
use crate::problem::{Problem, ProblemKind, Severity};
use crate::spec::StoreSpec;
use crate::watch::Late;

/// What a hub repo holds, by the first word of its directory's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RepoKind {
    /// `models--…`
    Model,
    /// `datasets--…`
    Dataset,
    /// `spaces--…`
    Space,
    /// `kernels--…`
    Kernel,
}

/// Which snapshot of which repo a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoSnapshot {
    /// What the repo holds.
    pub kind: RepoKind,
    /// `org/name`, or `name` for the oldest repos.
    pub id: String,
    /// The commit, 40 hexadecimal characters.
    pub revision: String,
    /// The refs that name this revision, such as `main`, sorted.
    pub refs: Vec<String>,
    /// Whether this is the snapshot that a loader gets when it asks for the repo: the one `main` names, else the one
    /// another ref names, else the one whose directory was changed last.
    pub current: bool,
    /// Whether all refs of the repo could be read. If not, one that cannot be read may name this snapshot.
    pub refs_known: bool,
    /// When a ref of the repo was last written, in nanoseconds since 1970.
    pub refs_changed_ns: Option<i64>,
}

impl RepoSnapshot {
    /// Whether no ref names it: it was fetched by its commit, or a newer revision took its ref. `None` where a ref
    /// that cannot be read may name it.
    pub fn detached(&self) -> Option<bool> {
        match (self.refs.is_empty(), self.refs_known) {
            (false, _) => Some(false),
            (true, true) => Some(true),
            (true, false) => None,
        }
    }
}

/// The link by which a snapshot has a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The link's text.
    pub target: String,
    /// The link's own stat.
    pub stat: Stat,
}

/// The content-addressed file behind a snapshot's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its name: 64 hexadecimal characters are the SHA-256 of its content, 40 the SHA-1 that git gives a blob.
    pub name: String,
    /// Where it lies in the shared blob store, relative to the store's root, where the repo's blob is itself a link
    /// to there.
    pub shared: Option<String>,
    /// The stat of the repo's own blob entry, where that is a link into the shared blob store.
    pub link: Option<Box<Link>>,
}

/// One file of a model.
#[derive(Debug, Clone)]
pub struct FileEntry {
    /// Relative to the model's directory, `/` between components.
    pub path: String,
    /// Where the bytes lie: relative to the store's root.
    pub real: String,
    /// The stat of the file that holds the bytes.
    pub stat: Stat,
    /// What of its allocation is certainly its own (less than allocated only where files can share blocks).
    pub certain: u64,
    /// The link in the snapshot, where there is one.
    pub link: Option<Link>,
    /// The blob, in a hub cache.
    pub blob: Option<Blob>,
}

/// One model as it lies in a store, not yet inspected.
#[derive(Debug)]
pub struct FoundModel {
    /// Its owner id in the scan's ledger.
    pub owner: OwnerId,
    /// Its directory, relative to the store's root; empty where the root itself is the model. Unique in the store and
    /// stable from run to run: with the store's id it is the model's identity.
    pub key: String,
    /// What a person calls it: the repo id, or the path in the folder.
    pub name: String,
    /// Which snapshot of which repo it is, where the layout says.
    pub repo: Option<RepoSnapshot>,
    /// Its files, sorted by path.
    pub files: Vec<FileEntry>,
    /// Directories of the model below (and with) its own, as paths relative to the store's root, with their stats.
    pub dirs: Vec<(String, Stat)>,
    /// What is wrong with how it lies there.
    pub problems: Vec<Problem>,
    /// Where the listing of the whole repo lies (`trees/<commit>.json`), with its stat.
    pub listing: Option<(String, Stat)>,
    /// The directory that `hf download --local-dir` keeps its own records in, relative to the store's root.
    pub download_records: Option<String>,
    /// Entries that belong to the model and are no part of it: those download records, refs that name the snapshot,
    /// links that lead nowhere.
    pub records: Vec<StrayItem>,
    /// Files of other models, relative to the store's root, that it uses through a link to their directory.
    pub uses: Vec<String>,
    /// Its links that lead to what is not its own: somebody else's files that it uses.
    pub links: Vec<LooseLink>,
    /// Whether something lies in its directories that does not go with it, so that they stay.
    pub keeps_dirs: bool,
    /// Whether it is a single file, which then has the same path in the store as in the model.
    pub is_file: bool,
}

impl FoundModel {
    /// Where the entry of a file of the model lies: relative to the store's root. For a file that a snapshot has by a
    /// link, it is the link's place.
    pub fn place_of(&self, file: &FileEntry) -> String {
        match (self.is_file, self.key.is_empty()) {
            (true, _) => self.key.clone(),
            (false, true) => file.path.clone(),
            (false, false) => format!("{}/{}", self.key, file.path),
        }
    }

    /// The stat of its own directory, as the walk saw it; `None` where the root of the store, or a file, is the model.
    pub fn own_dir(&self) -> Option<&Stat> {
        // In a hub cache it is the first.
        self.dirs.iter().find(|(path, _)| *path == self.key).map(|(_, stat)| stat).filter(|_| !self.is_file)
    }

    /// Where the repo's own entry for a shared blob lies, which is a link: relative to the store's root.
    pub fn blob_link_of(&self, file: &FileEntry) -> Option<(String, Link)> {
        let blob = file.blob.as_ref()?;
        let link = blob.link.as_deref()?;
        let repo = self.key.split('/').next().unwrap_or_default();
        Some((format!("{repo}/blobs/{}", blob.name), link.clone()))
    }

    /// Apparent bytes of its files, each inode once.
    pub fn size_bytes(&self) -> u64 {
        self.unique_files().fold(0, |sum, file| sum.saturating_add(file.stat.size))
    }

    /// Allocated bytes of its files, each inode once.
    pub fn allocated_bytes(&self) -> u64 {
        self.unique_files().fold(0, |sum, file| sum.saturating_add(file.stat.allocated))
    }

    fn unique_files(&self) -> impl Iterator<Item = &FileEntry> {
        let mut seen = HashSet::with_capacity(self.files.len());
        self.files.iter().filter(move |file| seen.insert((file.stat.dev, file.stat.ino)))
    }

    /// When its files were last written, the latest of them.
    pub fn last_modified(&self) -> Option<DateTime<Utc>> {
        self.files.iter().map(|file| file.stat.mtime_ns).max().map(DateTime::from_timestamp_nanos)
    }

    /// When one of its files was last read, as far as the filesystem keeps that.
    pub fn last_accessed(&self) -> Option<DateTime<Utc>> {
        self.files.iter().map(|file| file.stat.atime_ns).max().map(DateTime::from_timestamp_nanos)
    }

    /// The file at `path`, relative to the model's directory.
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().map(|index| &self.files[index])
    }
}

/// One thing on the disk, as a plan names it.
#[derive(Debug, Clone)]
pub struct StrayItem {
    /// Relative to the store's root.
    pub path: String,
    /// Its own stat.
    pub stat: Stat,
    /// A link's text.
    pub link_target: Option<String>,
}

/// What lies in a store and is no model: an orphan blob, a partial file, stale locks, a ref to nowhere, a repo without
/// a snapshot, a place that cannot be read.
#[derive(Debug)]
pub struct Stray {
    /// What it is and what is wrong with it; the path is relative to the store's root.
    pub problem: Problem,
    /// The repo it lies in.
    pub repo_id: Option<String>,
    /// Its owner in the ledger, where removing it could free bytes.
    pub owner: Option<OwnerId>,
    /// What it consists of. A repo without a snapshot consists of its [`Scan::skeletons`].
    pub items: Vec<StrayItem>,
    /// The shared blob that it links to, which goes with the last of its users.
    pub payload: Option<StrayItem>,
}

impl Stray {
    /// Apparent bytes of its items.
    pub fn size_bytes(&self) -> u64 {
        self.items.iter().fold(0, |sum, item| sum.saturating_add(item.stat.size))
    }

    /// When its items were last written.
    pub fn last_modified(&self) -> Option<DateTime<Utc>> {
        self.items.iter().map(|item| item.stat.mtime_ns).max().map(DateTime::from_timestamp_nanos)
    }
}

/// What a store takes on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Bytes allocated for everything under the store's root, the root and all directories included, each inode once:
    /// what `du -s` says.
    pub allocated_bytes: u64,
    /// Apparent bytes of the same: what `du -s --apparent-size` says.
    pub apparent_bytes: u64,
    /// Entries (files, links, directories).
    pub entries: u64,
}

/// What one walk of a store found.
#[derive(Debug)]
pub struct Scan {
    /// The store.
    pub spec: StoreSpec,
    /// Its filesystem, where it could be asked.
    pub filesystem: Option<Filesystem>,
    /// The models, sorted by key.
    pub models: Vec<FoundModel>,
    /// What is no model, sorted by path.
    pub strays: Vec<Stray>,
    /// Who uses which bytes.
    pub ledger: Ledger,
    root: DirHandle,
    held_elsewhere: HashSet<String>,
    beside: HashMap<String, Vec<StrayItem>>,
    groups: Vec<Group>,
    links: Vec<LooseLink>,
}

/// A repo directory: what goes with the last of its owners.
#[derive(Debug, Clone)]
pub struct Group {
    /// The directory, relative to the store's root.
    pub dir: String,
    /// Its owners: when all of them go, so do its directories, its refs and its lock files.
    pub owners: Range<OwnerId>,
    /// Its own directories as the walk saw them, by their names in it, itself last, if nothing else of it is nobody's own;
    /// beside these, only its lock files go with the last of it.
    pub(crate) dirs: Option<Box<[(&'static str, Stat)]>>,
}

/// What a layout found, for [`Scan::new`].
#[derive(Debug, Default)]
pub(crate) struct FoundInStore {
    pub(crate) models: Vec<FoundModel>,
    pub(crate) strays: Vec<Stray>,
    pub(crate) ledger: Ledger,
    pub(crate) held_elsewhere: HashSet<String>,
    /// By a shared blob's place: what lies beside it and goes with it.
    pub(crate) beside: HashMap<String, Vec<StrayItem>>,
    pub(crate) groups: Vec<Group>,
    /// Links that belong to no model.
    pub(crate) links: Vec<LooseLink>,
}

impl Scan {
    pub(crate) fn new(
        spec: StoreSpec,
        filesystem: Option<Filesystem>,
        root: DirHandle,
        found: FoundInStore,
    ) -> Self {
        let FoundInStore { mut models, mut strays, ledger, held_elsewhere, beside, groups, links } = found;
        models.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        strays.sort_by(|a, b| (&a.problem.path, a.problem.kind).cmp(&(&b.problem.path, b.problem.kind)));
        Scan { spec, filesystem, models, strays, ledger, root, held_elsewhere, beside, groups, links }
    }

    /// Repo directories that go when all that lies in them goes.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// What lies beside a shared blob and goes with it: its `.refs`.
    pub fn beside(&self, path: &str) -> &[StrayItem] {
        self.beside.get(path).map_or(&[], Vec::as_slice)
    }

    /// The places in [`Scan::models`] of all snapshots of the repo that this one is of, itself among them; none for what is
    /// no snapshot.
    pub fn snapshots_beside(&self, model: &FoundModel) -> Range<usize> {
        let repo = model.key.split('/').next().filter(|_| model.repo.is_some());
        repo.map_or(0..0, |repo| self.models_in(repo))
    }

    /// The places in [`Scan::models`] of all models in the directory `dir`, relative to the store's root.
    pub fn models_in(&self, dir: &str) -> Range<usize> {
        // They are sorted by key, so they stand together.
        let dir = format!("{dir}/");
        let from = self.models.partition_point(|one| one.key < dir);
        let count = self.models[from..].partition_point(|one| one.key.starts_with(&dir));
        from..from + count
    }

    /// What is no model and lies in the directory `dir`, relative to the store's root.
    pub fn strays_in(&self, dir: &str) -> &[Stray] {
        let dir = format!("{dir}/");
        fn path(stray: &Stray) -> &str {
            stray.problem.path.as_deref().unwrap_or_default()
        }
        let from = self.strays.partition_point(|stray| path(stray) < dir.as_str());
        let count = self.strays[from..].partition_point(|stray| path(stray).starts_with(&dir));
        &self.strays[from..from + count]
    }

    /// Links that are not a snapshot's own links to its own blobs: what they lead to is needed.
    pub fn links(&self) -> impl Iterator<Item = &LooseLink> {
        self.models.iter().flat_map(|model| &model.links).chain(&self.links)
    }

    /// The open root, for reading below it without following links.
    pub fn root(&self) -> &DirHandle {
        &self.root
    }

    /// Whether the file at `path`, relative to the store's root, has users that this scan cannot name: a shared blob
    /// without a readable `.refs`, or with a line in it that leads to something unreadable. It is never free to go.
    pub fn is_held_elsewhere(&self, path: &str) -> bool {
        self.held_elsewhere.contains(path)
    }

    /// A model's directory.
    pub fn dir_of(&self, model: &FoundModel) -> PathBuf {
        join(self.spec.root(), &model.key)
    }

    /// Whether what lay at `key` when it was seen last is known to be gone now: nothing is there, and every directory
    /// above it can be asked. For what this scan did not see: it may have come since, or lie where nobody can look.
    pub fn has_lost(&self, key: &str) -> bool {
        let gone =
            |error: io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        self.root.stat_below(key).err().is_some_and(gone)
    }

    /// Bytes that come back when the store's trash is emptied. Asked now, of the trash alone.
    pub fn thrown_away(&self) -> u64 {
        let mut bytes = 0_u64;
        let Ok(trash) = self.root.open_dir_below(crate::TRASH) else { return 0 };
        for entry in trash.list().unwrap_or_default() {
            let items = trash.open_dir(&entry.raw_name).and_then(|dir| dir.open_dir(c"items"));
            let Ok(items) = items else { continue };
            // What cannot be listed is not counted.
            let _ = items.for_each(|item| {
                if item.stat.nlink == 1 {
                    bytes = bytes.saturating_add(item.stat.allocated);
                }
            });
        }
        bytes
    }

    /// What the store takes.
    pub fn usage(&self) -> Usage {
        Usage {
            allocated_bytes: self.ledger.allocated_bytes(),
            apparent_bytes: self.ledger.apparent_bytes(),
            entries: self.ledger.entries(),
        }
    }

    /// Opens a model's file, following no link, and makes sure that it is the file that the scan saw.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::Other`] when another file has taken its place since the scan.
    pub fn open(&self, file: &FileEntry) -> io::Result<std::fs::File> {
        use std::os::unix::fs::MetadataExt;
        let opened = self.root.open_below(&file.real)?;
        let now = opened.metadata()?;
        if (now.dev(), now.ino()) != (file.stat.dev, file.stat.ino) {
            return Err(io::Error::other("another file took its place while the store was being read"));
        }
        Ok(opened)
    }

    /// Whether anything in the store weighs at least `severity`, in a model's place or beside the models.
    pub fn has_problems(&self, severity: Severity) -> bool {
        self.strays.iter().any(|stray| stray.problem.severity >= severity)
            || self
                .models
                .iter()
                .flat_map(|model| &model.problems)
                .any(|problem| problem.severity >= severity)
    }
}

pub(crate) fn join(root: &Path, relative: &str) -> PathBuf {
    if relative.is_empty() { root.to_owned() } else { root.join(relative) }
}

/// Why a store could not be scanned at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The root is not there, or is no directory, or cannot be read.
    #[error("cannot open the store {}: {source}; is its volume mounted, and is the path right?", .root.display())]
    Unavailable {
        /// The store's root.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store did not answer in time.
    #[error(
        "the store {} did not answer within {seconds} s; it was left out (raise --store-timeout if its volume is only slow)",
        .root.display()
    )]
    TooSlow {
        /// The store's root.
        root: PathBuf,
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The system gave no thread to read it with.
    #[error(
        "no thread could be started to read the store {}: this user has too many processes (see `ulimit -u`)",
        .root.display()
    )]
    NotStarted {
        /// The store's root.
        root: PathBuf,
    },
    /// The worker ended without an answer.
    #[error("the scan of {} ended without an answer; please report this", .root.display())]
    Lost {
        /// The store's root.
        root: PathBuf,
    },
}

impl ScanError {
    /// Why a store that gave no answer is not read.
    pub fn late(spec: &StoreSpec, late: Late) -> Self {
        let root = spec.root().to_owned();
        match late {
            Late::TooSlow(limit) => ScanError::TooSlow { root, seconds: limit.as_secs() },
            Late::Lost => ScanError::Lost { root },
            Late::NotStarted => ScanError::NotStarted { root },
        }
    }

    /// The same as a problem of the store.
    pub fn problem(&self) -> Problem {
        let kind = match self {
            ScanError::TooSlow { .. } => ProblemKind::StoreTooSlow,
            _ => ProblemKind::StoreUnavailable,
        };
        Problem::new(kind, None, self.to_string())
    }
}
