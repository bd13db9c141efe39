//! The program is killed at random moments, round after round: whatever was begun is ended by the next command, and no
//! byte is lost.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mlxman_testkit::text;
use serde_json::Value;

use crate::lab::{Lab, four_bit};

/// Kind, permissions, time of last modification and content of everything below a root.
type Tree = BTreeMap<PathBuf, (u32, (i64, i64), Vec<u8>)>;

fn tree(root: &Path) -> Tree {
    let entries = walkdir::WalkDir::new(root).min_depth(1).into_iter().map(|entry| {
        let path = entry.expect("an entry").into_path();
        let meta = path.symlink_metadata().expect("a stat");
        let (mut time, mut content) = ((meta.mtime(), meta.mtime_nsec()), Vec::new());
        if meta.is_symlink() {
            content = fs_err::read_link(&path).expect("a link").into_os_string().into_encoded_bytes();
        } else if meta.is_file() {
            content = fs_err::read(&path).expect("a file");
        }
        // A list of users is written anew, in any order.
        if path.extension().is_some_and(|extension| extension == "refs") {
            let mut lines: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
            lines.sort_unstable();
            (content, time) = (lines.concat(), (0, 0));
        }
        (path.strip_prefix(root).expect("below").to_owned(), (meta.mode(), time, content))
    });
    entries.collect()
}

/// What differs, but for the trash.
fn differing(now: &Tree, then: &Tree) -> Vec<PathBuf> {
    let paths = now.keys().chain(then.keys()).filter(|path| !path.starts_with(".mlxman-trash"));
    let mut differing: Vec<PathBuf> =
        paths.filter(|path| now.get(*path) != then.get(*path)).cloned().collect();
    differing.dedup();
    differing
}

/// Several hundred files and links: repos of two snapshots that share files, in the shared layout.
fn store() -> Lab {
    let lab = Lab::new();
    let hub = lab.sandbox.hub().shared();
    for number in 0..12_u64 {
        let repo = hub.repo(&format!("acme/repo-{number:02}"));
        let mut files = four_bit(number / 2).files();
        files.extend((0..6).map(|part| text(&format!("sub/part-{part}.txt"), &format!("{number} {part}"))));
        let mut older = files.clone();
        older.push(text("old.txt", &format!("older {number}")));
        let _ = repo.snapshot_at(&"1".repeat(40), &older);
        let _ = repo.snapshot_at(&"2".repeat(40), &files).with_ref("main");
    }
    let _ = hub.repo("kept/one").snapshot(&four_bit(0).files()).with_ref("main");
    lab
}

const NOTHING: [PathBuf; 0] = [];
const APPLY: [&str; 5] = ["clean", "apply", "--models", "acme/*", "--yes"];
const ROUNDS: usize = 28;

/// Runs the program and kills it: some time after its start, or after it began to do something to the trash.
fn killed(lab: &Lab, args: &[&str], round: usize, whole: Duration) {
    let parts = u32::try_from(round * 29 % 97).expect("small");
    let mut child = lab.spawn(args);
    if round.is_multiple_of(3) {
        std::thread::sleep(whole * parts / 97);
    } else {
        // Where the moves are is a small part of the time: it begins when a journal gets its name, or another one.
        let trash = lab.hub.root().join(".mlxman-trash");
        let names = || -> Vec<PathBuf> {
            walkdir::WalkDir::new(&trash).max_depth(2).into_iter().flatten().map(|e| e.into_path()).collect()
        };
        let before = names();
        let end = Instant::now() + Duration::from_secs(20);
        while child.try_wait().expect("it can be asked").is_none()
            && names() == before
            && Instant::now() < end
        {}
        std::thread::sleep(whole / 4 * parts / 97);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[track_caller]
fn kept(lab: &Lab) -> Vec<Value> {
    let listing = lab.run(["trash", "list", "--json"]).success().json();
    assert_eq!(listing["problems"].as_array().map_or(0, Vec::len), 0, "{listing:#}");
    listing["entries"].as_array().cloned().unwrap_or_default()
}

#[track_caller]
fn undone(lab: &Lab, before: &Tree, where_: &str) {
    let _ = lab.run(["undo"]).success();
    let differs = differing(&tree(lab.hub.root()), before);
    assert!(differs.is_empty(), "{where_}, undone: {differs:?}");
    assert!(!lab.hub.root().join(".mlxman-trash").exists(), "{where_}");
}

/// How long a whole run takes, roughly.
fn time(lab: &Lab, args: &[&str]) -> Duration {
    let start = Instant::now();
    let _ = lab.run(args).success();
    start.elapsed()
}

#[test]
fn at_random_moments() {
    let lab = store();
    let root = lab.hub.root();
    let before = tree(root);
    assert!(before.len() > 400, "{}", before.len());
    let apply = time(&lab, &APPLY);
    let after = tree(root);
    let undo = time(&lab, &["undo"]);
    assert_eq!(differing(&tree(root), &before), NOTHING);

    for round in 0..ROUNDS {
        let where_ = format!("round {round}");
        match round % 2 {
            0 => killed(&lab, &APPLY, round, apply),
            _ => {
                let _ = lab.run(APPLY).success();
                killed(&lab, &["undo"], round, undo);
            }
        }
        let entries = kept(&lab);
        let now = tree(root);
        if entries.is_empty() {
            assert_eq!(differing(&now, &before), NOTHING, "{where_}");
        } else {
            let moved = |tree: &Tree| -> Vec<PathBuf> { tree.keys().cloned().collect() };
            let is_own = |path: &PathBuf| !path.starts_with(".mlxman-trash");
            let names: Vec<PathBuf> = moved(&now).into_iter().filter(is_own).collect();
            let wanted: Vec<PathBuf> = moved(&after).into_iter().filter(is_own).collect();
            assert_eq!((entries.len(), names), (1, wanted), "{where_}");
            undone(&lab, &before, &where_);
        }
    }
}

#[test]
fn at_random_moments_of_an_emptying() {
    let mut lab = store();
    let _ = lab.run(APPLY).success();
    let empty = time(&lab, &["trash", "empty", "--yes"]);
    let after = tree(lab.hub.root());
    lab = store();
    let mut before = tree(lab.hub.root());
    for round in 0..ROUNDS / 2 {
        let where_ = format!("round {round}");
        if !lab.hub.root().join("models--acme--repo-00").exists() {
            lab = store();
            before = tree(lab.hub.root());
        }
        let _ = lab.run(APPLY).success();
        killed(&lab, &["trash", "empty", "--yes"], round, empty);
        if kept(&lab).is_empty() {
            let is_left = |path: &&PathBuf| !path.starts_with(".mlxman-trash");
            let now = tree(lab.hub.root());
            assert!(now.keys().filter(is_left).eq(after.keys().filter(is_left)), "{where_}");
            assert!(!lab.hub.root().join(".mlxman-trash").exists(), "{where_}");
        } else {
            undone(&lab, &before, &where_);
        }
    }
}
