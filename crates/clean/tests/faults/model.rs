//! Random hub caches and random choices of what to remove, against a reference that knows nothing of plans: it looks at
//! paths and texts alone, and says what must be there afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use mlxman_clean::{Candidate, Plan};
use mlxman_store::StoreKind;
use mlxman_testkit::{HubStore, Kind};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::bench::{Bench, Tree, content, freely, same};

/// Contents that files may have: some of several blocks, one of none.
const SIZES: [usize; 6] = [0, 1, 40, 4096, 5000, 70_000];
const NAMES: [&str; 7] = [
    "config.json",
    "README.md",
    "model.safetensors",
    "model-00002-of-00002.safetensors",
    "sub/dir/config.json",
    "sub/weights.safetensors",
    "sub/dir/deeper/weights.bin",
];
const REFS: [&str; 4] = ["main", "v1.0", "refs/pr/1", "refs/pr/2"];

#[derive(Debug, Clone)]
struct Store {
    shared: bool,
    locks: bool,
    trees: bool,
    repos: Vec<OneRepo>,
}

#[derive(Debug, Clone)]
struct OneRepo {
    kind: Kind,
    /// A snapshot's files: names and contents, by their place.
    snapshots: Vec<BTreeMap<usize, usize>>,
    /// Which files of the first snapshot's listing were not downloaded.
    partly: bool,
    refs: BTreeMap<usize, Index>,
    orphans: BTreeSet<usize>,
    partials: u8,
    absent: bool,
}

fn bytes(content: usize) -> Vec<u8> {
    let mut bytes = vec![0; SIZES[content]];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (at.wrapping_mul(31) ^ (at >> 8) ^ content) as u8;
    }
    bytes
}

fn repo() -> impl Strategy<Value = OneRepo> {
    let kind = prop_oneof![4 => Just(Kind::Model), 1 => Just(Kind::Dataset)];
    let files = proptest::collection::btree_map(0..NAMES.len(), 0..SIZES.len(), 0..5);
    let snapshots = proptest::collection::vec(files, 0..4);
    let refs = proptest::collection::btree_map(0..REFS.len(), any::<Index>(), 0..3);
    let orphans = proptest::collection::btree_set(0..SIZES.len(), 0..3);
    (kind, snapshots, any::<bool>(), refs, orphans, 0..3_u8, any::<bool>()).prop_map(
        |(kind, snapshots, partly, refs, orphans, partials, absent)| OneRepo {
            kind,
            snapshots,
            partly,
            refs,
            orphans,
            partials,
            absent,
        },
    )
}

fn store() -> impl Strategy<Value = Store> {
    let repos = proptest::collection::vec(repo(), 1..5);
    (any::<bool>(), any::<bool>(), any::<bool>(), repos).prop_map(|(shared, locks, trees, repos)| Store {
        shared,
        locks,
        trees,
        repos,
    })
}

impl Store {
    fn make(&self) -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("hub");
        let mut hub = HubStore::create(&root);
        if self.shared {
            hub = hub.shared();
        }
        if !self.locks {
            hub = hub.without_locks();
        }
        if !self.trees {
            hub = hub.without_trees();
        }
        for (number, one) in self.repos.iter().enumerate() {
            let repo = hub.repo_of(one.kind, &format!("acme/repo-{number}"));
            let commits: Vec<String> = one
                .snapshots
                .iter()
                .enumerate()
                .map(|(at, files)| {
                    let commit = format!("{at}{number}").repeat(20);
                    let files: Vec<_> =
                        files.iter().map(|(name, what)| (NAMES[*name].to_owned(), bytes(*what))).collect();
                    let some = |name: &str| !(one.partly && at == 0 && name.starts_with("sub/"));
                    let _ = repo.snapshot_some(&commit, &files, some);
                    commit
                })
                .collect();
            for (name, of) in one.refs.iter().filter(|_| !commits.is_empty()) {
                repo.add_ref(REFS[*name], &commits[of.index(commits.len())]);
            }
            for what in &one.orphans {
                let _ = repo.orphan(&bytes(*what));
            }
            for number in 0..one.partials {
                let etag = format!("{number}d").repeat(32);
                let _ = repo.partial(&etag, "0123abcd", b"half of it");
            }
            if let (true, Some(commit)) = (one.absent, commits.first()) {
                repo.no_exist(commit, "sub/adapter_config.json");
            }
        }
        Bench::over(dir, StoreKind::Hub, root)
    }
}

/// What is known of a store by its paths and texts, without asking mlxman.
struct Texts {
    root: PathBuf,
    /// Every path relative to the root, with the text of what is a link, a ref or a list of users.
    paths: BTreeMap<String, Option<String>>,
}

impl Texts {
    fn of(root: &Path, tree: &Tree) -> Self {
        let read = |path: &Path| fs_err::read_to_string(root.join(path)).ok();
        let paths =
            tree.iter().filter(|(path, _)| !path.starts_with(".mlxman-trash")).map(|(path, (kind, ..))| {
                let name = path.to_str().expect("UTF-8").to_owned();
                let text = match kind {
                    'l' => fs_err::read_link(root.join(path))
                        .ok()
                        .map(|to| to.to_str().expect("UTF-8").to_owned()),
                    'f' if name.contains("/refs/") || name.ends_with(".refs") => read(path),
                    _ => None,
                };
                (name, text)
            });
        Texts { root: root.to_owned(), paths: paths.collect() }
    }

    fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let dir = format!("{dir}/");
        self.paths.keys().filter(move |path| path.starts_with(&dir)).map(String::as_str)
    }

    /// What the link at a path leads to in one hop.
    fn target(&self, path: &str) -> Option<String> {
        let mut parts: Vec<&str> = path.split('/').collect();
        parts.pop();
        for part in self.paths.get(path)?.as_deref()?.split('/') {
            match part {
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        Some(parts.join("/"))
    }

    /// The reference: what goes if these go, which are keys of snapshots and paths of loose blobs, partials and repos.
    fn gone(&self, named: &BTreeSet<String>) -> BTreeSet<String> {
        let mut gone: BTreeSet<String> = BTreeSet::new();
        let repos: BTreeSet<&str> = self
            .paths
            .keys()
            .filter_map(|path| path.split('/').next())
            .filter(|top| top.contains("--"))
            .collect();
        for repo in repos {
            let links = || {
                let all = self.below(&format!("{repo}/snapshots"));
                all.filter_map(|path| Some((path.split('/').nth(2)?.to_owned(), self.target(path)?)))
            };
            let is_named = |commit: &str| named.contains(&format!("{repo}/snapshots/{commit}"));
            let is_named_snapshot = |path: &str| named.contains(path);
            let used: BTreeSet<String> = links().map(|(_, blob)| blob).collect();
            let live: BTreeSet<String> =
                links().filter(|(commit, _)| !is_named(commit)).map(|(_, blob)| blob).collect();
            // Snapshots with all below, their listings, and refs that name them.
            for path in self.below(repo) {
                let parts: Vec<&str> = path.split('/').collect();
                let goes = match parts.get(1..).unwrap_or_default() {
                    ["snapshots", commit, ..] => is_named(commit),
                    ["trees", listing] => is_named(listing.trim_end_matches(".json")),
                    ["refs", ..] => self.paths[path].as_deref().is_some_and(is_named),
                    ["blobs", _] => named.contains(path) || (used.contains(path) && !live.contains(path)),
                    _ => false,
                };
                if goes {
                    gone.insert(path.to_owned());
                }
            }
            // A repo of which nothing is left goes with its skeleton and its locks.
            let part = |path: &str| path.split('/').nth(1).unwrap_or_default().to_owned();
            let is_empty = self
                .below(repo)
                .filter(|path| {
                    matches!(part(path).as_str(), "blobs" | "snapshots") && path.matches('/').count() >= 2
                })
                .all(|path| gone.contains(path));
            // One that had no snapshot is a row of its own.
            let had_snapshot = self.below(&format!("{repo}/snapshots")).any(is_named_snapshot);
            if is_empty && (had_snapshot || named.contains(repo)) {
                for dir in [repo.to_owned(), format!(".locks/{repo}")] {
                    gone.extend(self.below(&dir).map(str::to_owned));
                    gone.extend(self.paths.contains_key(&dir).then_some(dir));
                }
            }
        }
        for payload in self.payloads() {
            let users = self.users(&payload);
            let all_gone = users.iter().all(|user| gone.contains(user));
            if named.contains(&payload) || (!users.is_empty() && all_gone) {
                gone.insert(format!("{payload}.refs"));
                gone.insert(payload);
            }
        }
        gone
    }

    fn payloads(&self) -> Vec<String> {
        self.below("blobs")
            .filter(|path| path.rsplit('/').next().is_some_and(|n| n.len() == 64))
            .map(str::to_owned)
            .collect()
    }

    /// The repo blobs that link to a payload.
    fn users(&self, payload: &str) -> Vec<String> {
        self.paths.keys().filter(|path| self.target(path).as_deref() == Some(payload)).cloned().collect()
    }

    fn content(&self, path: &str) -> Option<Vec<u8>> {
        fs_err::read(self.root.join(path)).ok()
    }
}

/// What every name below a root takes, each inode once.
fn allocated(root: &Path) -> u64 {
    let mut seen = BTreeSet::new();
    let of = |path: PathBuf| root.join(path).symlink_metadata().expect("a stat");
    let metas = crate::bench::tree(root).into_keys().map(of);
    metas.filter(|meta| seen.insert((meta.dev(), meta.ino()))).map(|meta| meta.blocks() * 512).sum()
}

fn named(plan: &Plan) -> BTreeSet<String> {
    plan.candidates.iter().filter_map(|row| row.key.clone().or_else(|| row.path.clone())).collect()
}

fn check(store: &Store, by_name: bool, choice: &[bool]) {
    let bench = store.make();
    let before = bench.tree();
    let texts = Texts::of(bench.root(), &before);
    let contents: BTreeMap<String, Vec<u8>> = texts
        .paths
        .keys()
        .filter(|path| path.contains("/snapshots/"))
        .filter_map(|path| Some((path.clone(), texts.content(path)?)))
        .collect();
    let took = allocated(bench.root());

    let models = if by_name { "*" } else { "" };
    let mut wanted = bench.plan(models, None);
    let mut chosen = choice.iter().cycle();
    wanted.candidates.retain(|_| *chosen.next().expect("endless"));
    if wanted.candidates.is_empty() {
        return;
    }
    let only = wanted.only();
    let plan = bench.plan(models, Some(&only));
    let applied = bench.apply(&plan, models, &freely).expect("it is applied");
    // Of a repo that is broken and whose loose blobs stay there is nothing to remove.
    let is_bare = |(at, row): &(usize, &Candidate)| {
        row.items.is_empty() && !plan.shared_items.iter().any(|shared| shared.needs.contains(at))
    };
    let bare = plan.candidates.iter().enumerate().filter(is_bare).count();
    assert_eq!((applied.skipped.len(), applied.left.len()), (bare, 0), "{applied:#?}");
    assert_eq!(applied.done.len() + bare, plan.candidates.len(), "{applied:#?}");

    // Nothing but what the reference says is gone, and all of that is.
    let gone = texts.gone(&named(&plan));
    let after = bench.tree();
    let mut expected = content(&before);
    expected.retain(|path, _| !gone.contains(path.to_str().expect("UTF-8")));
    for payload in texts.payloads().iter().filter(|payload| !gone.contains(*payload)) {
        let users = texts.users(payload).into_iter().filter(|user| !gone.contains(user));
        let lines = users.collect::<Vec<_>>().join(" ");
        // The last line stays: an empty list tells nobody anything.
        let list = expected.get_mut(Path::new(&format!("{payload}.refs"))).expect("a list");
        if !lines.is_empty() {
            list.1 = lines;
        }
    }
    same(&content(&after), &expected, "after the apply");
    // Every link of every snapshot that is left gives what it gave.
    for (path, bytes) in contents.iter().filter(|(path, _)| !gone.contains(*path)) {
        assert_eq!(texts.content(path).as_ref(), Some(bytes), "{path}");
    }

    let Some(id) = applied.id else {
        assert!(gone.is_empty(), "{gone:?}");
        return;
    };
    let stuck = bench.undo(&id, &freely).expect("it is undone");
    assert!(stuck.is_empty(), "{stuck:?}");
    same(&bench.tree(), &before, "after the undo");

    let again = bench.plan(models, Some(&only));
    let applied = bench.apply(&again, models, &freely).expect("it is applied again");
    let freed = bench.empty(&applied.id.expect("a journal"), &freely).expect("it is emptied");
    same(&content(&bench.tree()), &expected, "after the emptying");
    assert_eq!(freed, applied.reclaimable_bytes);
    assert_eq!(freed + applied.freed_bytes, plan.total_reclaimable_bytes, "as the plan said");
    assert_eq!(took - allocated(bench.root()), freed + applied.freed_bytes, "as the disk says");
    assert!(!bench.root().join(".mlxman-trash").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_remains_is_what_must(
        store in store(),
        by_name in any::<bool>(),
        choice in proptest::collection::vec(any::<bool>(), 1..12),
    ) {
        check(&store, by_name, &choice);
    }
}
