//! What the tests share: a sandbox, reading the program's JSON, and looking at a directory from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use mlxman_testkit::{FolderStore, HubStore, ModelSpec, Output, Quant, Sandbox, set_age};
use serde_json::Value;

pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_mlxman");
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A sandbox with a hub cache where the environment says.
pub(crate) struct Lab {
    pub(crate) sandbox: Sandbox,
    pub(crate) hub: HubStore,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new(BIN);
        let hub = sandbox.hub();
        Self { sandbox, hub }
    }

    /// One with a folder of models too, `$MLX_MODELS_DIR`.
    pub(crate) fn with_folder() -> (Self, FolderStore) {
        let mut lab = Self::new();
        let folder = lab.sandbox.models();
        (lab, folder)
    }

    #[track_caller]
    pub(crate) fn run<I, S>(&self, args: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.sandbox.run(args)
    }

    #[track_caller]
    pub(crate) fn json<I, S>(&self, args: I) -> Value
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.sandbox.json(args)
    }

    /// `sync --fast`, which must find nothing wrong.
    #[track_caller]
    pub(crate) fn sync(&self) {
        let _ = self.run(["sync", "--fast"]).success();
    }

    /// `sync --fast`, whatever it finds.
    #[track_caller]
    pub(crate) fn sync_any(&self) {
        let out = self.run(["sync", "--fast"]);
        assert!(matches!(out.code(), 0 | 1), "{out}");
    }

    #[track_caller]
    pub(crate) fn list(&self) -> Value {
        self.json(["list"])
    }

    #[track_caller]
    pub(crate) fn preview(&self, args: &[&str]) -> Value {
        self.json(["clean", "preview"].iter().chain(args))
    }

    /// The manifests' files, by path.
    pub(crate) fn manifests(&self) -> BTreeMap<PathBuf, Value> {
        manifests(&self.sandbox.mlxman_home())
    }

    /// The manifest's file of one model.
    #[track_caller]
    pub(crate) fn manifest_file(&self, model: &str) -> PathBuf {
        let found: Vec<PathBuf> = self
            .manifests()
            .into_iter()
            .filter(|(_, value)| value["model"] == model)
            .map(|(path, _)| path)
            .collect();
        assert_eq!(found.len(), 1, "manifests of {model}: {found:?}");
        found.into_iter().next().expect("one")
    }

    /// The program as a process of its own, with its output thrown away.
    pub(crate) fn spawn(&self, args: &[&str]) -> std::process::Child {
        self.sandbox
            .command(BIN)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(BIN);
        command.args(args);
        command
    }
}

/// Every `*.manifest.json` below a directory.
pub(crate) fn manifests(root: &Path) -> BTreeMap<PathBuf, Value> {
    walkdir::WalkDir::new(root)
        .into_iter()
        .map(|entry| entry.expect("an entry").into_path())
        .filter(|path| path.to_string_lossy().ends_with(".manifest.json"))
        .map(|path| {
            let text = fs_err::read_to_string(&path).expect("a manifest");
            let value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{} is not JSON: {error}", path.display()));
            (path, value)
        })
        .collect()
}

/// The model of this name in what `list --json` printed.
#[track_caller]
pub(crate) fn model<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found: Vec<&Value> =
        list["models"].as_array().expect("`models`").iter().filter(|model| model["model"] == name).collect();
    assert_eq!(found.len(), 1, "`{name}` should be there once, in {:?}", names(list));
    found[0]
}

/// The model of this repo and revision.
#[track_caller]
pub(crate) fn snapshot<'a>(list: &'a Value, repo: &str, revision: &str) -> &'a Value {
    let found: Vec<&Value> = list["models"]
        .as_array()
        .expect("`models`")
        .iter()
        .filter(|model| model["source"]["repo_id"] == repo && model["source"]["revision"] == revision)
        .collect();
    assert_eq!(found.len(), 1, "{repo}@{revision} should be there once, in {:?}", names(list));
    found[0]
}

pub(crate) fn names(list: &Value) -> BTreeSet<String> {
    let models = list["models"].as_array().expect("`models`");
    models.iter().map(|model| model["model"].as_str().expect("a name").to_owned()).collect()
}

/// The names of a model's problems.
pub(crate) fn kinds(model: &Value) -> Vec<String> {
    let problems = model["health"]["problems"].as_array().cloned().unwrap_or_default();
    problems.iter().map(|problem| problem["kind"].as_str().expect("a kind").to_owned()).collect()
}

/// The entries of `problems[]`: each flattened to its kind and path.
pub(crate) fn loose(list: &Value) -> Vec<(String, String)> {
    let problems = list["problems"].as_array().expect("`problems`");
    problems
        .iter()
        .map(|entry| {
            let inner = if entry["kind"].is_string() { entry } else { &entry["problem"] };
            let text = |key: &str| inner[key].as_str().unwrap_or_default().to_owned();
            (text("kind"), text("path"))
        })
        .collect()
}

/// What a plan would remove: model names and paths.
pub(crate) fn candidates(plan: &Value) -> BTreeSet<String> {
    plan["candidates"]
        .as_array()
        .expect("`candidates`")
        .iter()
        .map(|row| row["model"].as_str().or(row["path"].as_str()).expect("a model or a path").to_owned())
        .collect()
}

/// Everything that lies below a directory, without reading any of it: a change of contents, of names, of owners or of
/// times is seen.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) struct Frozen(BTreeMap<PathBuf, Entry>);

#[derive(Debug, PartialEq, Eq, Clone)]
struct Entry {
    inode: u64,
    mode: u32,
    links: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Of files alone: reading a directory or a link is no use of a model.
    accessed: Option<(i64, i64)>,
}

impl Frozen {
    pub(crate) fn of(root: &Path) -> Self {
        let entries = walkdir::WalkDir::new(root).into_iter().map(|entry| {
            let entry = entry.expect("an entry");
            let meta = entry.path().symlink_metadata().expect("its metadata");
            let entry_of = Entry {
                inode: meta.ino(),
                mode: meta.mode(),
                links: meta.nlink(),
                size: meta.size(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
                accessed: meta.is_file().then(|| (meta.atime(), meta.atime_nsec())),
            };
            (entry.into_path(), entry_of)
        });
        Self(entries.collect())
    }

    /// Files that are new, gone, or have other contents.
    pub(crate) fn differing(&self, before: &Self) -> Vec<PathBuf> {
        let told = |entry: &Entry| entry.accessed.map(|_| (entry.inode, entry.size, entry.modified));
        let paths: BTreeSet<&PathBuf> = self.0.keys().chain(before.0.keys()).collect();
        let differs = |path: &&&PathBuf| {
            let of = |listing: &Self| listing.0.get(**path).map(told);
            of(self) != of(before)
        };
        paths.iter().filter(differs).map(|path| (*path).clone()).collect()
    }

    /// Panics with the first difference.
    #[track_caller]
    pub(crate) fn assert_same(&self, root: &Path, what: &str) {
        let now = Self::of(root);
        for (path, before) in &self.0 {
            match now.0.get(path) {
                None => panic!("{what}: {} is gone", path.display()),
                Some(after) => assert_eq!(after, before, "{what}: {} changed", path.display()),
            }
        }
        for path in now.0.keys() {
            assert!(self.0.contains_key(path), "{what}: {} is new", path.display());
        }
    }
}

/// What `du` says: 512-byte blocks of everything below, each inode once.
pub(crate) fn du(root: &Path) -> u64 {
    let mut seen = BTreeSet::new();
    let mut blocks = 0;
    for entry in walkdir::WalkDir::new(root) {
        let meta = entry.expect("an entry").path().symlink_metadata().expect("its metadata");
        if seen.insert((meta.dev(), meta.ino())) {
            blocks += meta.blocks();
        }
    }
    blocks * 512
}

/// Sets a file's times to `age` ago.
pub(crate) fn old(path: &Path, age: Duration) {
    set_age(path, SystemTime::now(), age);
}

/// Sets the times of everything below to `age` ago, so that no grace period holds it.
pub(crate) fn old_below(root: &Path, age: Duration) {
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let entry = entry.expect("an entry");
        if !entry.file_type().is_symlink() {
            old(entry.path(), age);
        }
    }
}

/// A small 4-bit llama; the seed tells two apart.
pub(crate) fn four_bit(seed: u64) -> ModelSpec {
    ModelSpec::llama().quant(Quant::Affine { bits: 4, group: 64 }).seed(seed)
}

/// A manifest without what every observation changes.
pub(crate) fn settled(manifest: &Value) -> Value {
    let mut manifest = manifest.clone();
    let map = manifest.as_object_mut().expect("an object");
    map.remove("generated_at");
    if let Some(storage) = map.get_mut("storage").and_then(Value::as_object_mut) {
        storage.remove("last_accessed");
    }
    manifest
}

/// Replaces a file's contents through whatever link leads to it.
pub(crate) fn overwrite(path: &Path, bytes: impl AsRef<[u8]>) {
    let target = fs_err::canonicalize(path).expect("the file is there");
    fs_err::write(target, bytes).expect("the file can be written");
}

/// Cuts a file, through whatever link leads to it.
pub(crate) fn cut(path: &Path, length: u64) {
    let file = fs_err::OpenOptions::new().write(true).open(path).expect("the file can be opened");
    file.set_len(length).expect("the file can be cut");
}

/// Panics with the places where two documents differ.
#[track_caller]
pub(crate) fn assert_json(now: &Value, before: &Value, what: &str) {
    let mut found = Vec::new();
    differences("", now, before, &mut found);
    assert!(found.is_empty(), "{what} is not what it was:\n{}", found.join("\n"));
}

fn differences(at: &str, now: &Value, before: &Value, found: &mut Vec<String>) {
    match (now, before) {
        (Value::Object(now), Value::Object(before)) => {
            let keys: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&format!("{at}.{key}"), &of(now), &of(before), found);
            }
        }
        (Value::Array(now), Value::Array(before)) if now.len() == before.len() => {
            for (index, (now, before)) in now.iter().zip(before).enumerate() {
                differences(&format!("{at}[{index}]"), now, before, found);
            }
        }
        _ if now == before => {}
        _ => found.push(format!("{at}: {now}, before {before}")),
    }
}

/// Says why a test is left out.
#[expect(clippy::print_stderr, reason = "a test's output")]
pub(crate) fn left_out(why: &str) {
    eprintln!("left out: {why}");
}
