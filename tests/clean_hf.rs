//! `mlxman clean hf`: all that a hub cache holds, and repos removed by their ids.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mlxman_testkit::{HubStore, sha256_hex, text};
use serde_json::{Value, json};

use crate::lab::{DAY, Frozen, Lab, candidates, du, four_bit, old, old_below};
use crate::registry::assert_valid;

/// A home as huggingface_hub keeps one, with some of everything that can lie in it.
fn home(lab: &Lab) -> PathBuf {
    let home = lab.sandbox.root().join("hf");
    let hub = HubStore::create(home.join("hub"));
    let two = hub.repo("acme/two");
    let _ = two.snapshot(&four_bit(1).files());
    let _ = two.snapshot(&four_bit(2).files()).with_ref("main").with_ref("v1.0");
    old(&two.orphan(&[7; 30_000]), 3 * DAY);
    let by_commit = hub.repo("acme/by-commit");
    let _ = by_commit.snapshot(&four_bit(3).files());
    let partial = hub.repo("acme/partial");
    let _ = partial.snapshot(&four_bit(4).files()).with_ref("main");
    let _ = partial.partial(&sha256_hex(b"dead"), "0a0a0a0a", &[1; 20_000]);
    let newline = hub.repo("acme/newline");
    let snapshot = newline.snapshot(&four_bit(5).files()).with_ref("main");
    fs_err::write(newline.path().join("refs/main"), format!("{}\n", snapshot.commit)).expect("written");
    let dangling = hub.repo("acme/dangling").snapshot(&four_bit(6).files()).with_ref("main");
    fs_err::remove_file(dangling.blob_of("config.json")).expect("the blob goes");
    // What `mlx_lm.manage --delete` leaves.
    let managed = hub.repo("other/managed").snapshot(&four_bit(7).files()).with_ref("main");
    fs_err::remove_dir_all(managed.path().parent().expect("snapshots")).expect("gone");
    let _ =
        hub.dataset("acme/data").snapshot(&[text("a/b.csv", "1\n"), text("c.csv", "1\n")]).with_ref("main");
    let locks = home.join("hub/.locks/models--gone--repo");
    fs_err::create_dir_all(&locks).expect("a directory");
    fs_err::write(locks.join(format!("{}.lock", sha256_hex(b"gone"))), "").expect("written");
    let chunks = home.join("xet/https___cas_serv-abc/chunk-cache/ab");
    fs_err::create_dir_all(&chunks).expect("a directory");
    fs_err::write(chunks.join("chunk"), [3; 50_000]).expect("written");
    old_below(&home, 90 * DAY);
    home
}

#[track_caller]
fn scan(lab: &Lab, home: &Path) -> Value {
    let home = home.display().to_string();
    let report = lab.json(["clean", "hf", "--scan", "--hf-home", &home]);
    assert_valid(lab, "hub", &report);
    report
}

fn repo<'a>(report: &'a Value, id: &str) -> &'a Value {
    let repos = report["caches"][0]["repos"].as_array().expect("repos");
    repos.iter().find(|repo| repo["id"] == id).unwrap_or_else(|| panic!("{id} is not in {report:#}"))
}

#[test]
fn what_is_there_and_what_others_hide() {
    let lab = Lab::new();
    let home = home(&lab);
    let before = Frozen::of(&home);
    let report = scan(&lab, &home);
    before.assert_same(&home, "looking");
    let cache = &report["caches"][0];
    assert_eq!(cache["usage"]["allocated_bytes"], du(&home.join("hub")), "what du says");
    assert_eq!(report["xet"][0]["usage"]["allocated_bytes"], du(&home.join("xet")));
    assert_eq!(report["allocated_bytes"], du(&home.join("hub")) + du(&home.join("xet")));
    assert!(report["xet"][0]["parts"]["chunk-cache"].as_u64() >= Some(50_000), "{:#}", report["xet"]);
    let two = repo(&report, "acme/two");
    let revisions = two["revisions"].as_array().expect("revisions");
    let superseded: Vec<bool> = revisions.iter().map(|one| one["superseded"] == true).collect();
    assert_eq!(superseded.iter().filter(|one| **one).count(), 1, "{two:#}");
    let named = revisions.iter().find(|one| one["superseded"] == false).expect("one");
    assert_eq!(named["refs"], json!(["main", "v1.0"]));
    assert_eq!(repo(&report, "acme/by-commit")["revisions"][0]["superseded"], false, "somebody asked for it");
    assert!(cache["superseded_bytes"].as_u64() > Some(10_000));
    let hidden: BTreeSet<&str> = cache["repos"]
        .as_array()
        .expect("repos")
        .iter()
        .filter(|repo| repo["hidden"].is_string())
        .map(|repo| repo["id"].as_str().expect("an id"))
        .collect();
    assert_eq!(hidden, BTreeSet::from(["acme/dangling", "acme/newline", "other/managed"]));
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for leftover in cache["leftovers"].as_array().expect("leftovers") {
        *kinds.entry(leftover["kind"].as_str().expect("a kind")).or_default() += 1;
    }
    let blobs = four_bit(7).files().len();
    let expected = BTreeMap::from([
        ("broken_repo", 1),
        ("orphan", blobs + 1),
        ("partial_dead", 1),
        ("ref", 1),
        ("stale_locks", 1),
    ]);
    assert_eq!(kinds, expected);
    let table = lab.run(["clean", "hf", "--scan", "--hf-home", &home.display().to_string()]).expect_code(1);
    for word in ["acme/two", "superseded", "hidden from hf", "orphan", "stale locks"] {
        assert!(table.stdout.contains(word), "{word}: {table}");
    }
    assert!(table.stderr.contains("Xet"), "{table}");
}

#[test]
fn a_download_that_runs_is_live_and_the_trash_is_counted() {
    let lab = Lab::new();
    let home = home(&lab);
    let hub = HubStore::create(home.join("hub"));
    let etag = sha256_hex(b"live");
    let live = hub.repo("acme/live");
    let _ = live.partial(&etag, "0a0a0a0a", &[1; 5000]);
    let lock = fs_err::File::create(live.lock(&etag)).expect("a lock");
    lock.file().lock().expect("held");
    let report = scan(&lab, &home);
    let leftovers = report["caches"][0]["leftovers"].as_array().expect("leftovers");
    let live = leftovers.iter().find(|one| one["kind"] == "partial_live").expect("it is live");
    assert_eq!(live["reclaimable_bytes"], 0, "{live}");
    lock.file().unlock().expect("given back");
    let at = home.display().to_string();
    let _ = lab.run(["clean", "hf", "--pattern", "acme/two", "--hf-home", &at, "--yes"]);
    let after = scan(&lab, &home);
    assert_eq!(after["caches"][0]["trash_bytes"], du(&home.join("hub/.mlxman-trash")));
    assert_eq!(
        after["caches"][0]["usage"]["allocated_bytes"],
        du(&home.join("hub")),
        "the trash is part of it"
    );
}

#[test]
fn nothing_wrong_is_exit_0() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/tiny").snapshot(&four_bit(1).files()).with_ref("main");
    let report = lab.run(["clean", "hf", "--scan", "--json"]).success().json();
    assert_valid(&lab, "hub", &report);
    assert_eq!(report["caches"][0]["repos"][0]["id"], "acme/tiny");
    assert_eq!(report["caches"][0]["leftovers"], json!([]));
    assert_eq!(report["xet"], json!([]));
}

#[test]
fn the_call_may_be_wrong() {
    let lab = Lab::new();
    for args in [
        &["clean", "hf"][..],
        &["clean", "hf", "--scan", "--pattern", "x"],
        &["clean", "hf", "--pattern"],
        &["clean", "hf", "--pattern", ""],
        &["clean", "hf", "--pattern", "a[", "--dry-run"],
        &["clean", "hf", "--scan", "--yes"],
        &["clean", "hf", "--scan", "--hf-home", "/x", "--store", "hub=/y"],
    ] {
        let out = lab.run(args).expect_code(2);
        assert!(!out.stderr.contains("panicked") && out.stdout.is_empty(), "{out}");
    }
    let _ = lab.run(["clean", "hf", "--scan", "--hf-home", "/no/such/place"]).expect_code(3);
}

#[test]
fn a_pattern_means_repos_with_all_that_lies_in_them() {
    let lab = Lab::new();
    let home = home(&lab);
    let at = home.display().to_string();
    let before = Frozen::of(&home);
    let plan = |patterns: &[&str]| {
        let mut args = vec!["clean", "hf", "--hf-home", &at, "--pattern"];
        args.extend(patterns);
        let plan = lab.json(&args);
        assert_valid(&lab, "plan", &plan);
        plan
    };
    let two = plan(&["acme/two"]);
    assert_eq!(candidates(&two).len(), 3, "two snapshots and the orphan: {two:#}");
    let items = two.to_string();
    assert!(items.contains("models--acme--two\""), "its own directory goes with the last: {items}");
    assert_eq!(candidates(&plan(&["acme/t*", "ACME/DATA"])).len(), 4);
    assert!(candidates(&plan(&["other/*"])).contains("models--other--managed"));
    assert_eq!(candidates(&plan(&["nobody/*"])).len(), 0);
    let none = lab.run(["clean", "hf", "--hf-home", &at, "--pattern", "nobody/*"]).success();
    assert!(none.stderr.contains("no repo matches"), "{none}");
    // A preview by default; --dry-run says no to everything.
    let _ = lab.run(["clean", "hf", "--hf-home", &at, "--pattern", "acme/*", "--yes", "--dry-run"]);
    before.assert_same(&home, "nothing was said");
    let reclaimable = two["total_reclaimable_bytes"].as_u64().expect("bytes");
    let taken = du(&home.join("hub"));
    let out =
        lab.run(["clean", "hf", "--hf-home", &at, "--pattern", "acme/two", "--yes", "--json"]).success();
    assert_valid(&lab, "applied", &out.json());
    assert!(!home.join("hub/models--acme--two").exists());
    assert!(!home.join("hub/.locks/models--acme--two").exists());
    assert!(home.join("hub/models--acme--by-commit").exists());
    let store = format!("hub={}", home.join("hub").display());
    let _ = lab.run(["undo", "--store", &store]).success();
    assert_eq!(
        Frozen::of(&home.join("hub")).differing(&Frozen::of(&home.join("hub"))),
        Vec::<PathBuf>::new()
    );
    assert!(home.join("hub/models--acme--two/refs/v1.0").exists());
    let args = ["clean", "hf", "--hf-home", &at, "--pattern", "acme/two", "--yes", "--now"];
    let _ = lab.run(args).success();
    assert_eq!(taken - du(&home.join("hub")), reclaimable, "what was told came back");
}

#[test]
fn a_pinned_repo_stays() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/tiny");
    let _ = repo.snapshot(&four_bit(1).files()).with_ref("main");
    lab.sync();
    let _ = lab.run(["pin", "acme/tiny"]).success();
    let plan = lab.json(["clean", "hf", "--pattern", "acme/*"]);
    assert_eq!(candidates(&plan).len(), 0);
    assert_eq!(plan["kept"][0]["rule"], "pinned");
    let _ = lab.run(["clean", "hf", "--pattern", "acme/*", "--yes"]);
    assert!(repo.path().join("refs/main").exists());
}

#[test]
fn a_plan_of_a_pattern_can_be_applied_later() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/tiny").snapshot(&four_bit(1).files()).with_ref("main");
    let _ = lab.hub.repo("acme/other").snapshot(&four_bit(2).files()).with_ref("main");
    let plan = lab.sandbox.root().join("plan.json");
    let out = plan.display().to_string();
    let _ = lab.run(["clean", "hf", "--pattern", "acme/tiny", "--out", &out]).success();
    let _ = lab.run(["clean", "apply", &out, "--yes"]).success();
    assert!(!lab.hub.root().join("models--acme--tiny").exists());
    assert!(lab.hub.root().join("models--acme--other").exists());
}

/// What the real library's `scan_cache_dir` says, in the report's words.
const SAID: &str = "
import json, sys
from huggingface_hub import scan_cache_dir
info = scan_cache_dir(sys.argv[1])
print(json.dumps([
    {'id': repo.repo_id, 'kind': repo.repo_type, 'size_bytes': repo.size_on_disk, 'files': repo.nb_files,
     'last_accessed': repo.last_accessed, 'last_modified': repo.last_modified,
     'revisions': [
        {'commit': one.commit_hash, 'refs': sorted(one.refs), 'size_bytes': one.size_on_disk,
         'last_modified': one.last_modified, 'files': len({file.blob_path for file in one.files})}
        for one in sorted(repo.revisions, key=lambda one: one.commit_hash)]}
    for repo in sorted(info.repos, key=lambda repo: (repo.repo_type, repo.repo_id))]))
";

#[test]
fn the_library_says_the_same() {
    let Some(python) = std::env::var_os("MLXMAN_TEST_PYTHON") else { return };
    let lab = Lab::new();
    let home = home(&lab);
    let mut command = lab.sandbox.command(python);
    let output = command.args(["-c", SAID]).arg(home.join("hub")).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let report = scan(&lab, &home);
    let mut repos: Vec<Value> = report["caches"][0]["repos"].as_array().expect("repos").clone();
    repos.retain(|repo| repo["hidden"].is_null());
    repos.sort_by_key(|repo| (repo["kind"].to_string(), repo["id"].to_string()));
    let keep = |value: &mut Value, names: &[&str]| {
        value.as_object_mut().expect("an object").retain(|name, _| names.contains(&name.as_str()));
    };
    for repo in &mut repos {
        keep(repo, &["id", "kind", "size_bytes", "files", "last_accessed", "last_modified", "revisions"]);
        let revisions = repo["revisions"].as_array_mut().expect("revisions");
        revisions.sort_by_key(|one| one["commit"].to_string());
        for revision in revisions {
            keep(revision, &["commit", "refs", "size_bytes", "files", "last_modified"]);
        }
    }
    // Times are seconds there, and text here; files of one content are one blob in both.
    let mut ours = Value::from(repos);
    times(&mut ours);
    times(&mut said);
    assert_eq!(ours, said);
}

/// Rounds all times to milliseconds since 1970.
fn times(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(times),
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                if !name.starts_with("last_") {
                    times(value);
                    continue;
                }
                let millis = match &*value {
                    Value::String(text) => {
                        let time: chrono::DateTime<chrono::Utc> = text.parse().expect("a time");
                        time.timestamp_millis()
                    }
                    #[expect(clippy::cast_possible_truncation, reason = "it is a time")]
                    other => (other.as_f64().expect("seconds") * 1000.0) as i64,
                };
                *value = json!(millis);
            }
        }
        _ => {}
    }
}
