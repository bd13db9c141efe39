//! Hub caches and download folders that huggingface_hub wrote, against what its own `scan_cache_dir()` says of them:
//! `tests/goldens/make_hub.py` recorded both. Where `MLXMAN_TEST_PYTHON` names a Python that has the library, it is
//! asked on the spot too.

#![expect(clippy::unwrap_used, reason = "clippy takes only the test functions themselves for tests")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use mlxman_manifest::{HealthStatus, inspect};
use mlxman_store::{FoundModel, ProblemKind, Progress, Scan, StoreKind, StoreSpec, Stray, layout_of};
use mlxman_testkit::{Demo, HubStore, ModelSpec, Quant, demo_store, text};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
struct Golden {
    commits: HashMap<String, String>,
    said: Said,
    hub: Vec<Recorded>,
    folder: Vec<Recorded>,
}

/// What `scan_cache_dir()` says.
#[derive(Debug, PartialEq, Deserialize)]
struct Said {
    size: u64,
    /// What it left out, and why.
    warnings: Vec<String>,
    repos: Vec<SaidRepo>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct SaidRepo {
    id: String,
    kind: String,
    size: u64,
    /// What goes when all its revisions go.
    freed: u64,
    revisions: Vec<SaidRevision>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct SaidRevision {
    commit: String,
    refs: Vec<String>,
    size: u64,
    files: BTreeMap<String, u64>,
    /// What goes when it alone goes.
    freed_alone: u64,
}

/// One entry of a tree: a link, a file with its first bytes (what follows is zeros), or a directory.
#[derive(Debug, Deserialize)]
struct Recorded {
    path: String,
    link: Option<String>,
    size: Option<usize>,
    #[serde(default)]
    starts: String,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/hub.json");
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

fn rebuild(root: &Path, entries: &[Recorded]) {
    fs_err::create_dir_all(root).unwrap();
    for entry in entries {
        let path = root.join(&entry.path);
        match (&entry.link, entry.size) {
            (Some(target), _) => fs_err::os::unix::fs::symlink(target, path).unwrap(),
            (None, Some(size)) => {
                let mut bytes: Vec<u8> =
                    entry.starts.chars().map(|one| u8::try_from(u32::from(one)).unwrap()).collect();
                bytes.resize(size, 0);
                fs_err::write(path, bytes).unwrap();
            }
            (None, None) => fs_err::create_dir(path).unwrap(),
        }
    }
}

fn scan(kind: StoreKind, root: &Path) -> Scan {
    layout_of(kind).scan(&StoreSpec::new(kind, root), &Progress::default()).unwrap()
}

/// Apparent bytes of the blobs that only these models use.
fn only_theirs(scan: &Scan, theirs: &[&FoundModel]) -> u64 {
    let others: BTreeSet<(u64, u64)> = scan
        .models
        .iter()
        .filter(|model| !theirs.iter().any(|one| one.key == model.key))
        .flat_map(|model| &model.files)
        .map(|file| (file.stat.dev, file.stat.ino))
        .collect();
    let own: HashMap<(u64, u64), u64> = theirs
        .iter()
        .flat_map(|model| &model.files)
        .map(|file| ((file.stat.dev, file.stat.ino), file.stat.size))
        .filter(|(inode, _)| !others.contains(inode))
        .collect();
    own.values().sum()
}

/// The same in mlxman's words, from its scan.
fn as_the_library_says_it(scan: &Scan) -> Said {
    let mut repos: BTreeMap<(String, String), Vec<&FoundModel>> = BTreeMap::new();
    for model in &scan.models {
        let repo = model.repo.as_ref().unwrap();
        let kind = serde_json::to_value(repo.kind).unwrap().as_str().unwrap().to_owned();
        repos.entry((kind, repo.id.clone())).or_default().push(model);
    }
    let repos: Vec<SaidRepo> = repos
        .into_iter()
        .map(|((kind, id), mut models)| {
            models.sort_by_key(|model| model.repo.as_ref().unwrap().revision.clone());
            let all = only_theirs(scan, &models);
            let revisions = models
                .iter()
                .map(|model| SaidRevision {
                    commit: model.repo.as_ref().unwrap().revision.clone(),
                    refs: model.repo.as_ref().unwrap().refs.clone(),
                    size: model.size_bytes(),
                    files: model.files.iter().map(|file| (file.path.clone(), file.stat.size)).collect(),
                    freed_alone: only_theirs(scan, &[model]),
                })
                .collect();
            SaidRepo { id, kind, size: all, freed: all, revisions }
        })
        .collect();
    // What the library warns of is a repo without snapshots.
    let broken = |stray: &&Stray| stray.problem.kind == ProblemKind::RepoWithoutSnapshot;
    let warnings = scan.strays.iter().filter(broken).map(|stray| {
        let repo = stray.problem.path.as_deref().unwrap();
        format!("Snapshots dir doesn't exist in cached repo: {repo}/snapshots")
    });
    Said { size: repos.iter().map(|repo| repo.size).sum(), warnings: warnings.collect(), repos }
}

/// The bytes that a plan would promise are at least what the library expects to free, and not much more: directories,
/// links, refs and listings take blocks of their own.
fn reclaim_covers(scan: &Scan, said: &Said) {
    let block = 4096;
    for repo in &said.repos {
        let models: Vec<&FoundModel> = scan
            .models
            .iter()
            .filter(|model| {
                model.repo.as_ref().is_some_and(|own| own.id == repo.id && said_kind(model) == repo.kind)
            })
            .collect();
        let whole = scan.ledger.reclaim(models.iter().map(|model| model.owner));
        let mut cases = vec![(models.clone(), repo.freed, whole)];
        for model in &models {
            let revision = &model.repo.as_ref().unwrap().revision;
            let freed = repo.revisions.iter().find(|one| one.commit == *revision).unwrap().freed_alone;
            cases.push((vec![model], freed, scan.ledger.reclaim([model.owner])));
        }
        for (models, freed, ours) in cases {
            // A filesystem that packs or compresses allocates less than a file's length.
            let packed = models.iter().flat_map(|m| &m.files).any(|f| f.stat.allocated < f.stat.size);
            let entries: usize = models.iter().map(|m| 2 * m.files.len() + m.dirs.len() + 16).sum();
            assert!(packed || ours.bytes >= freed, "{}: {ours:?}, the library {freed}", repo.id);
            assert!(
                ours.bytes <= freed + block * entries as u64,
                "{}: {ours:?}, the library {freed}",
                repo.id
            );
        }
    }
}

fn said_kind(model: &FoundModel) -> String {
    serde_json::to_value(model.repo.as_ref().unwrap().kind).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn a_cache_of_the_library_is_seen_as_the_library_sees_it() {
    let golden = golden();
    let dir = tempfile::tempdir().unwrap();
    rebuild(dir.path(), &golden.hub);
    let scan = scan(StoreKind::Hub, dir.path());
    assert_eq!(as_the_library_says_it(&scan), golden.said);
    reclaim_covers(&scan, &golden.said);
    // The one thing that is left over is the ref that a download into a folder leaves in the cache.
    let strays: Vec<(ProblemKind, Option<&str>)> =
        scan.strays.iter().map(|stray| (stray.problem.kind, stray.problem.path.as_deref())).collect();
    assert_eq!(
        strays,
        [
            (ProblemKind::RepoWithoutSnapshot, Some("models--acme--to-a-folder")),
            (ProblemKind::RefToNowhere, Some("models--acme--to-a-folder/refs/main")),
        ]
    );
}

#[test]
fn every_entry_of_a_cache_is_counted() {
    let golden = golden();
    let dir = tempfile::tempdir().unwrap();
    rebuild(dir.path(), &golden.hub);
    let scan = scan(StoreKind::Hub, dir.path());
    let stats =
        golden.hub.iter().map(|entry| fs_err::symlink_metadata(dir.path().join(&entry.path)).unwrap());
    let allocated: u64 = stats.map(|stat| stat.blocks() * 512).sum();
    let root = fs_err::symlink_metadata(dir.path()).unwrap().blocks() * 512;
    assert_eq!(scan.usage().allocated_bytes, allocated + root);
    assert_eq!(scan.usage().entries, golden.hub.len() as u64 + 1);
}

#[test]
fn revisions_of_a_repo_are_told_apart() {
    let golden = golden();
    let dir = tempfile::tempdir().unwrap();
    rebuild(dir.path(), &golden.hub);
    let scan = scan(StoreKind::Hub, dir.path());
    let of = |name: &str| {
        let commit = &golden.commits[name];
        let model =
            scan.models.iter().find(|model| model.repo.as_ref().unwrap().revision == *commit).unwrap();
        model.repo.clone().unwrap()
    };
    assert_eq!(of("first").refs, [""; 0]);
    assert_eq!(of("second").refs, ["v1.0"]);
    assert_eq!(of("third").refs, ["main"]);
    assert_eq!(of("pull").refs, ["refs/pr/1"]);
    assert_eq!(of("branch").refs, ["exp/long-context"]);
    for name in ["first", "second", "third", "pull", "branch"] {
        assert_eq!(of(name).detached(), Some(name == "first"), "{name}");
        assert_eq!(of(name).current, name == "third", "{name}");
    }
}

#[test]
fn what_was_not_asked_for_is_no_damage() {
    let golden = golden();
    let dir = tempfile::tempdir().unwrap();
    rebuild(dir.path(), &golden.hub);
    let scan = scan(StoreKind::Hub, dir.path());
    for model in &scan.models {
        let found = inspect(&scan, model, &Progress::default());
        // Only the repo without its weights cannot be loaded; datasets and spaces have none to miss.
        let expected =
            if model.name == "acme/no-weights" { HealthStatus::Incomplete } else { HealthStatus::Complete };
        assert_eq!(found.health.status, expected, "{}: {:?}", model.key, found.health.problems);
        if said_kind(model) == "model" && expected == HealthStatus::Complete {
            assert_eq!(found.quantization.label.as_deref(), Some("bf16"), "{}", model.key);
        }
        // Every file's name is one of its hashes, and the listing has the other.
        assert!(
            found.files.iter().all(|file| file.sha256.is_some() != file.git_sha1.is_some()),
            "{}: {:?}",
            model.key,
            found.files
        );
    }
}

#[test]
fn a_download_into_a_folder_keeps_its_commit() {
    let golden = golden();
    let dir = tempfile::tempdir().unwrap();
    rebuild(dir.path(), &golden.folder);
    let scan = scan(StoreKind::Folder, dir.path());
    let [model] = &scan.models[..] else { panic!("{:?}", scan.models) };
    assert_eq!(model.name, "to-a-folder");
    let paths: Vec<&str> = model.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        paths,
        [".gitattributes", "README.md", "config.json", "model.safetensors", "tokenizer/vocab/words.txt"]
    );
    let found = inspect(&scan, model, &Progress::default());
    let main = golden.hub.iter().find(|entry| entry.path == "models--acme--to-a-folder/refs/main").unwrap();
    assert_eq!(found.source.revision.as_deref(), Some(main.starts.as_str()));
    assert_eq!(found.health.status, HealthStatus::Complete, "{:?}", found.health.problems);
    assert!(
        found.files.iter().all(|file| file.sha256.is_some() || file.git_sha1.is_some()),
        "{:?}",
        found.files
    );
    assert_eq!(scan.strays.len(), 0, "{:?}", scan.strays);
}

/// Asks the real library about the cache; nothing without it.
fn ask(script: &str, root: &Path, more: &[&str]) -> Option<Value> {
    let python = std::env::var_os("MLXMAN_TEST_PYTHON")?;
    let mut command = Command::new(python);
    command.arg("-c").arg(script).arg(root).args(more);
    command
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HOME", root.join("no-such-home"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// What `make_hub.py` records, of the cache at `sys.argv[1]`.
const SAID: &str = include_str!("../../../tests/goldens/said.py");

/// Removes the revisions `sys.argv[2:]` as the library does.
const DELETE: &str = "import json, sys\n\
    from huggingface_hub import scan_cache_dir\n\
    scan_cache_dir(sys.argv[1]).delete_revisions(*sys.argv[2:]).execute()\n\
    print(json.dumps(None))";

/// A cache with what makes counting hard: shared blobs, nested directories, several refs, orphans, a partial file.
fn hard_store(root: &Path) -> HubStore {
    let hub = HubStore::create(root);
    let mut files = ModelSpec::llama().quant(Quant::Affine { bits: 4, group: 64 }).files();
    let repo = hub.repo("acme/one");
    let _ = repo.snapshot(&files);
    files.push(text("docs/deep/notes.md", "more"));
    let _ = repo.snapshot(&files).with_ref("main").with_ref("v1.0");
    files.push(text("docs/copy.md", "more"));
    let _ = repo.snapshot(&files).with_ref("refs/pr/1").with_ref("exp/a/b");
    repo.orphan(b"nobody's");
    repo.partial(&"0".repeat(64), "0123abcd", b"half");
    let _ = hub.repo("alone").snapshot(&files).with_ref("main");
    let _ = hub.dataset("acme/words").snapshot(&[text("a/b.txt", "b"), text("c.txt", "b")]).with_ref("main");
    let _ = hub.space("acme/demo").snapshot(&[text("app.py", "print()")]).with_ref("main");
    hub
}

#[test]
fn the_library_and_the_scan_say_the_same_on_the_spot() {
    let dir = tempfile::tempdir().unwrap();
    let hard = hard_store(&dir.path().join("hard"));
    let demo: Demo = demo_store(dir.path(), SystemTime::now());
    for root in [hard.root(), demo.hub.as_path()] {
        let Some(said) = ask(SAID, root, &[]) else { return };
        let said: Said = serde_json::from_value(said).unwrap();
        let scan = scan(StoreKind::Hub, root);
        let mut ours = as_the_library_says_it(&scan);
        // The library sizes a repo by its blobs, whether or not a snapshot uses them.
        for (ours, said) in ours.repos.iter_mut().zip(&said.repos) {
            let loose: u64 = scan
                .strays
                .iter()
                .filter(|stray| stray.repo_id.as_ref() == Some(&ours.id))
                .filter(|stray| {
                    matches!(stray.problem.kind, ProblemKind::OrphanBlob | ProblemKind::PartialDead)
                })
                .map(|stray| stray.size_bytes())
                .sum();
            assert!(said.size == ours.size || said.size == ours.size + loose, "{}: {said:?}", ours.id);
            (ours.size, ours.freed) = (said.size, said.freed);
        }
        ours.size = said.size;
        assert_eq!(ours, said);
        reclaim_covers(&scan, &said);
    }
}

#[test]
fn what_the_library_deletes_is_what_the_ledger_promised() {
    let commits: Vec<String> = {
        let dir = tempfile::tempdir().unwrap();
        let hub = hard_store(dir.path());
        scan(StoreKind::Hub, hub.root())
            .models
            .iter()
            .map(|m| m.repo.as_ref().unwrap().revision.clone())
            .collect()
    };
    for commit in &commits {
        let dir = tempfile::tempdir().unwrap();
        let hub = hard_store(dir.path());
        let before = scan(StoreKind::Hub, hub.root());
        if ask(DELETE, hub.root(), &[commit]).is_none() {
            return;
        }
        let gone = before.models.iter().find(|m| m.repo.as_ref().unwrap().revision == *commit).unwrap();
        let promised = before.ledger.reclaim([gone.owner]).bytes;
        let after = scan(StoreKind::Hub, hub.root());
        let freed = before.usage().allocated_bytes - after.usage().allocated_bytes;
        // The library leaves a revision's listing behind, and the locks of a whole repo; a plan takes them too.
        let listing = gone.listing.as_ref().filter(|(path, _)| hub.root().join(path).exists());
        let listing = listing.map_or(0, |(_, stat)| stat.allocated);
        let locks: u64 = after
            .strays
            .iter()
            .filter(|stray| stray.problem.kind == ProblemKind::StaleLocks)
            .flat_map(|stray| &stray.items)
            .map(|item| item.stat.allocated)
            .sum();
        assert_eq!(freed + locks + listing, promised, "{}", gone.key);
    }
}
