//! A store, a plan over it, and looking at both from outside.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use mlxman_clean::filter::{FilterArgs, FilterSet};
use mlxman_clean::{
    AppliedStore, ApplyError, Asked, Only, OpenError, Plan, Policies, PolicyArgs, Recovered, Repairs,
    RepairsAsked, Run, Trash, Watched, apply, mend, preview,
};
use mlxman_manifest::catalog::Catalog;
use mlxman_manifest::registry::{Registry, Survey, SyncOptions};
use mlxman_store::{Change, DirHandle, StoreKind, StoreSpec};
use mlxman_testkit::{FolderStore, HubStore, ModelSpec, text};

pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

/// A run that nobody else makes.
pub(crate) fn run() -> Run {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    Run::new(now(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A store in a directory of its own.
pub(crate) struct Bench {
    _dir: tempfile::TempDir,
    pub(crate) spec: StoreSpec,
    registry: Registry,
}

/// Everything below a root: kind, permissions, time of last modification, and content or a link's text. Directories that
/// went and came again have another inode, and nobody's loss is that.
pub(crate) type Tree = BTreeMap<PathBuf, (char, u32, i64, String)>;

pub(crate) fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    for entry in walkdir(root) {
        let meta = entry.symlink_metadata().expect("a stat");
        let kind = meta.file_type();
        let (word, content) = if kind.is_symlink() {
            ('l', fs_err::read_link(&entry).expect("a link").display().to_string())
        } else if kind.is_dir() {
            ('d', String::new())
        } else {
            ('f', blake3::hash(&fs_err::read(&entry).expect("a file")).to_hex().to_string())
        };
        let mut mtime = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        let mut content = content;
        // The trash was made in the root, and a kill leaves it there: nobody knows any more what the time was.
        if entry == root {
            mtime = 0;
        }
        // Of a list of users the lines count: whoever takes one out or puts one in writes it anew.
        if entry.extension().is_some_and(|extension| extension == "refs") {
            let text = fs_err::read_to_string(&entry).expect("a list");
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            (content, mtime) = (lines.join(" "), 0);
        }
        let mode = if kind.is_symlink() { 0 } else { meta.mode() };
        let path = entry.strip_prefix(root).expect("below").to_owned();
        tree.insert(path, (word, mode, mtime, content));
    }
    tree
}

fn walkdir(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut at = 0;
    while at < found.len() {
        let here = found[at].clone();
        if here.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let mut below: Vec<PathBuf> = fs_err::read_dir(&here)
                .expect("a directory")
                .map(|entry| entry.expect("an entry").path())
                .collect();
            below.sort();
            found.extend(below);
        }
        at += 1;
    }
    found
}

/// What is in a tree without the trash, and without times.
pub(crate) fn content(tree: &Tree) -> BTreeMap<PathBuf, (char, String)> {
    let of = |(path, (kind, _, _, content)): (&PathBuf, &(char, u32, i64, String))| {
        (!path.starts_with(".mlxman-trash")).then(|| (path.clone(), (*kind, content.clone())))
    };
    tree.iter().filter_map(of).collect()
}

/// Fails with what differs between two trees.
#[track_caller]
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    now: &BTreeMap<PathBuf, T>,
    then: &BTreeMap<PathBuf, T>,
    where_: &str,
) {
    let gone = then.iter().filter(|(path, was)| now.get(*path) != Some(was)).map(|one| ("was", one));
    let new = now.iter().filter(|(path, is)| then.get(*path) != Some(is)).map(|one| ("is", one));
    let different: Vec<_> = gone.chain(new).collect();
    assert!(different.is_empty(), "{where_}: {different:#?}");
}

impl Bench {
    /// A hub cache in the shared layout: two repos that share a blob, one with two snapshots that share files.
    pub(crate) fn hub() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("hub");
        let hub = HubStore::create(&root).shared();
        let files = ModelSpec::llama().files();
        let repo = hub.repo("acme/one");
        let mut older = files.clone();
        older.push(text("old.txt", "older"));
        let _ = repo.snapshot_at(&"1".repeat(40), &older);
        let _ = repo.snapshot_at(&"2".repeat(40), &files).with_ref("main");
        let _ = hub.repo("acme/two").snapshot(&files).with_ref("main");
        let _ = hub.repo("other/three").snapshot(&ModelSpec::llama().seed(7).files()).with_ref("main");
        Self::over(dir, StoreKind::Hub, root)
    }

    /// A folder with three models.
    pub(crate) fn folder() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("models");
        let folder = FolderStore::create(&root);
        folder.model("acme/one", &ModelSpec::llama().files());
        folder.model("acme/two", &ModelSpec::llama().seed(2).files());
        folder.model("other", &ModelSpec::llama().seed(3).files());
        Self::over(dir, StoreKind::Folder, root)
    }

    /// A store of the kind that `fill` makes.
    pub(crate) fn make(kind: StoreKind, fill: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("store");
        fill(&root);
        Self::over(dir, kind, root)
    }

    /// What is wrong, and what of it can be mended.
    pub(crate) fn repairs(&self) -> Repairs {
        let removals = self.plan_of(&FilterArgs::default(), None);
        let asked = RepairsAsked { removals: &removals, default_hub: None, now: now() };
        Repairs::of(&self.survey(), asked)
    }

    /// Mends as the program does; `before` is asked before every change.
    pub(crate) fn mend(&self, before: &dyn Fn(Change) -> io::Result<()>) -> Result<AppliedStore, Stopped> {
        self.mend_as(&self.repairs(), before)
    }

    /// The same of what was found earlier.
    pub(crate) fn mend_as(
        &self,
        given: &Repairs,
        before: &dyn Fn(Change) -> io::Result<()>,
    ) -> Result<AppliedStore, Stopped> {
        let root = self.handle();
        let trash = Trash::open(&self.spec, &root, None, before)?;
        let watched = Watched::of(&self.plan_of(&FilterArgs::default(), None), &self.spec.id(), &root, now());
        Ok(mend(&trash, &self.spec.id(), (given, &self.repairs()), &watched, &run())?)
    }

    /// A store that was made at `root` in a directory of its own.
    pub(crate) fn over(dir: tempfile::TempDir, kind: StoreKind, root: PathBuf) -> Self {
        // Nobody has written to it just now.
        let entries = walkdir(&root).into_iter().rev();
        for entry in entries.filter(|entry| !entry.is_symlink()) {
            mlxman_testkit::set_age(
                &entry,
                std::time::SystemTime::now(),
                std::time::Duration::from_secs(86_400),
            );
        }
        let spec = StoreSpec::new(kind, root);
        let registry = Registry::at(dir.path().join("home"));
        Bench { _dir: dir, spec, registry }
    }

    pub(crate) fn root(&self) -> &Path {
        self.spec.root()
    }

    pub(crate) fn tree(&self) -> Tree {
        tree(self.root())
    }

    pub(crate) fn handle(&self) -> DirHandle {
        DirHandle::open_root(self.root()).expect("the store opens")
    }

    /// What the models that match would be; without a pattern, what is safe to go.
    pub(crate) fn plan(&self, models: &str, only: Option<&Only>) -> Plan {
        let models = if models.is_empty() { Vec::new() } else { vec![models.to_owned()] };
        self.plan_of(&FilterArgs { models, ..FilterArgs::default() }, only)
    }

    fn survey(&self) -> Survey {
        let options = SyncOptions::fast(now());
        let catalog = Catalog::built_in();
        self.registry.survey(std::slice::from_ref(&self.spec), &catalog, &options).expect("a survey")
    }

    fn plan_of(&self, args: &FilterArgs, only: Option<&Only>) -> Plan {
        let filters = FilterSet::parse(args).expect("a filter");
        // What was made here counts, too.
        let args =
            PolicyArgs { include_irreplaceable: true, grace: Some("0d".to_owned()), ..PolicyArgs::default() };
        let policies = Policies::parse(&args).expect("policies");
        let asked = Asked {
            filters: &filters,
            policies: &policies,
            files: &|_| Vec::new(),
            gone: &[],
            pinned_elsewhere: &[],
            others: &[],
            only,
            now: now(),
        };
        preview(&self.survey(), asked)
    }

    /// Applies a plan as the program does; `before` is asked before every change.
    pub(crate) fn apply(
        &self,
        given: &Plan,
        models: &str,
        before: &dyn Fn(Change) -> io::Result<()>,
    ) -> Result<AppliedStore, Stopped> {
        let root = self.handle();
        let trash = Trash::open(&self.spec, &root, None, before)?;
        let watched = Watched::of(given, &self.spec.id(), &root, now());
        let fresh = self.plan(models, Some(&given.only()));
        Ok(apply(&trash, &self.spec.id(), (given, &fresh), &watched, &run())?)
    }

    /// Undoes the only journal there is.
    pub(crate) fn undo(
        &self,
        id: &str,
        before: &dyn Fn(Change) -> io::Result<()>,
    ) -> Result<Vec<String>, Stopped> {
        let root = self.handle();
        let trash = Trash::open(&self.spec, &root, None, before)?;
        Ok(trash.undo(id)?.stuck)
    }

    pub(crate) fn empty(&self, id: &str, before: &dyn Fn(Change) -> io::Result<()>) -> Result<u64, Stopped> {
        let root = self.handle();
        let trash = Trash::open(&self.spec, &root, None, before)?;
        Ok(trash.empty(id)?.freed_bytes)
    }

    /// What the next command does first.
    pub(crate) fn recover(&self) -> Vec<Recovered> {
        let root = self.handle();
        match Trash::open_existing(&self.spec, &root, &freely).expect("the trash opens") {
            Some(trash) => trash.recover().expect("it recovers"),
            None => Vec::new(),
        }
    }

    /// Names of journals that are kept.
    pub(crate) fn kept(&self) -> Vec<String> {
        let entries = mlxman_clean::list_trash(&self.spec, &self.handle()).expect("a list");
        entries.into_iter().map(|entry| entry.id).collect()
    }
}

/// Why something did not come to its end.
#[derive(Debug)]
pub(crate) enum Stopped {
    Open(#[expect(dead_code, reason = "shown")] OpenError),
    Apply(#[expect(dead_code, reason = "shown")] ApplyError),
    Journal(#[expect(dead_code, reason = "shown")] mlxman_clean::JournalError),
}

impl From<OpenError> for Stopped {
    fn from(error: OpenError) -> Self {
        Stopped::Open(error)
    }
}

impl From<ApplyError> for Stopped {
    fn from(error: ApplyError) -> Self {
        Stopped::Apply(error)
    }
}

impl From<mlxman_clean::JournalError> for Stopped {
    fn from(error: mlxman_clean::JournalError) -> Self {
        Stopped::Journal(error)
    }
}

pub(crate) fn freely(_: Change) -> io::Result<()> {
    Ok(())
}

/// Lets so many changes be made and none after, as a kill does.
pub(crate) fn killed_after(changes: usize) -> impl Fn(Change) -> io::Result<()> {
    let left = Cell::new(changes);
    move |_| match left.get() {
        0 => Err(io::Error::other("killed")),
        n => {
            left.set(n - 1);
            Ok(())
        }
    }
}

/// Lets one change fail, the one after so many, and no other.
pub(crate) fn failing_once(after: usize, kind: io::ErrorKind) -> impl Fn(Change) -> io::Result<()> {
    let left = Cell::new(Some(after));
    move |_| match left.get() {
        Some(0) => {
            left.set(None);
            Err(kind.into())
        }
        Some(n) => {
            left.set(Some(n - 1));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Counts changes.
pub(crate) fn counting(count: &Cell<usize>) -> impl Fn(Change) -> io::Result<()> {
    move |_| {
        count.set(count.get() + 1);
        Ok(())
    }
}
