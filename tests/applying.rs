//! `clean apply`, `undo` and `trash`: what a preview showed goes, and nothing else, and comes back.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use mlxman_testkit::{ModelSpec, Snapshot, sha256_hex, text};
use serde_json::{Value, json};

use crate::lab::{DAY, Frozen, Lab, candidates, du, four_bit, model, names, old, old_below};

/// A repo with a detached and a current snapshot, and two more repos.
fn lab() -> (Lab, Snapshot) {
    let lab = Lab::new();
    let llama = lab.hub.repo("acme/llama");
    let mut older = four_bit(1).files();
    older.push(text("notes.txt", "older"));
    let detached = llama.snapshot(&older);
    old_below(&llama.path(), 30 * DAY);
    let _ = llama.snapshot(&four_bit(2).files()).with_ref("main");
    let _ = lab.hub.repo("acme/qwen").snapshot(&ModelSpec::new("qwen2").files()).with_ref("main");
    let _ = lab.hub.repo("other/phi").snapshot(&four_bit(3).files()).with_ref("main");
    // Nobody has written to it just now.
    old_below(lab.hub.root(), 20 * DAY);
    old_below(&detached.path(), 30 * DAY);
    lab.sync();
    (lab, detached)
}

/// Everything below a directory but the trash: kind, permissions, times, contents and links' texts.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, String)> {
    // The root's own time changes when a trash comes or goes, and is nobody's.
    let below = walkdir::WalkDir::new(root).min_depth(1);
    let entries = below.into_iter().filter_entry(|entry| entry.file_name() != ".mlxman-trash");
    entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let meta = entry.path().symlink_metadata().expect("a stat");
            let content = if meta.is_symlink() {
                fs_err::read_link(entry.path()).expect("a link").display().to_string()
            } else if meta.is_file() {
                sha256_hex(&fs_err::read(entry.path()).expect("a file"))
            } else {
                String::new()
            };
            (entry.path().to_owned(), (meta.mode(), meta.mtime(), meta.mtime_nsec(), content))
        })
        .collect()
}

#[track_caller]
fn same_tree(
    now: &BTreeMap<PathBuf, (u32, i64, i64, String)>,
    then: &BTreeMap<PathBuf, (u32, i64, i64, String)>,
) {
    let of = |one: &BTreeMap<PathBuf, _>, other: &BTreeMap<PathBuf, (u32, i64, i64, String)>| {
        other
            .iter()
            .filter(|(path, is)| one.get(*path) != Some(*is))
            .map(|(path, is)| (path.clone(), is.clone()))
            .collect::<Vec<_>>()
    };
    let one: BTreeMap<PathBuf, (u32, i64, i64, String)> = now.clone();
    assert!(
        of(&one, then).is_empty() && of(then, &one).is_empty(),
        "was {:#?}, is {:#?}",
        of(&one, then),
        of(then, &one)
    );
}

fn write_plan(lab: &Lab, args: &[&str]) -> (PathBuf, Value) {
    let path = lab.sandbox.work().join("plan.json");
    let out = path.display().to_string();
    let plan = lab.json(["clean", "preview", "--out", &out].iter().chain(args));
    (path, plan)
}

fn apply(lab: &Lab, plan: &Path) -> mlxman_testkit::Output {
    lab.run(["clean", "apply", "--yes", "--json", &plan.display().to_string()])
}

#[track_caller]
fn skipped(applied: &Value) -> Vec<(String, String)> {
    let text = |row: &Value, key: &str| row[key].as_str().expect("text").to_owned();
    let stores = applied["stores"].as_array().expect("stores");
    let rows = stores.iter().flat_map(|store| store["skipped"].as_array().expect("skipped"));
    rows.map(|row| (text(row, "what"), text(row, "reason"))).collect()
}

#[track_caller]
fn done(applied: &Value) -> Vec<String> {
    let stores = applied["stores"].as_array().expect("stores");
    let rows = stores.iter().flat_map(|store| store["done"].as_array().expect("done"));
    rows.map(|row| row["what"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn what_a_preview_shows_goes_and_comes_back() {
    let (lab, _) = lab();
    let _ = lab.run(["tag", "acme/qwen", "mine"]).success();
    let _ = lab.run(["note", "acme/qwen", "keep these words"]).success();
    let before = tree(lab.hub.root());
    let (path, plan) = write_plan(&lab, &["--models", "acme/qwen"]);
    let applied = apply(&lab, &path).success().json();
    assert_eq!(done(&applied), ["acme/qwen"]);
    assert_eq!(
        applied["freed_bytes"].as_u64().expect("bytes")
            + applied["reclaimable_bytes"].as_u64().expect("bytes"),
        plan["total_reclaimable_bytes"].as_u64().expect("bytes")
    );
    assert!(!lab.hub.root().join("models--acme--qwen").exists());
    assert!(!lab.hub.root().join(".locks/models--acme--qwen").exists());
    // What was said of it is kept, and the manifest says that it is gone.
    let list = lab.json(["list", "--missing-only"]);
    let row = model(&list, "acme/qwen");
    assert_eq!((&row["storage"]["present"], &row["notes"]), (&json!(false), &json!("keep these words")));
    let trash = lab.json(["trash", "list"]);
    assert_eq!(trash["entries"][0]["rows"][0]["what"], "acme/qwen");
    assert_eq!(trash["reclaimable_bytes"], applied["reclaimable_bytes"]);

    let undone = lab.json(["undo"]);
    assert_eq!(undone["undone"][0]["stuck"], json!([]));
    same_tree(&tree(lab.hub.root()), &before);
    assert!(!lab.hub.root().join(".mlxman-trash").exists(), "an empty trash goes");
    let list = lab.list();
    let row = model(&list, "acme/qwen");
    assert_eq!((&row["storage"]["present"], &row["notes"]), (&json!(true), &json!("keep these words")));
    assert!(row["tags"].as_array().expect("tags").contains(&json!("mine")));
}

#[test]
fn without_filters_what_is_safe_to_go_goes() {
    let (lab, detached) = lab();
    let name = format!("acme/llama@{}", &detached.commit[..8]);
    let partial = lab.hub.repo("acme/llama").partial(&sha256_hex(b"dead"), "0a0a0a0a", &[1; 5000]);
    old(&partial, 3 * DAY);
    let plan = lab.preview(&[]);
    assert!(candidates(&plan).contains(&name), "{plan:#}");
    // The test reads the files itself, and a repo's grace counts from that.
    let before = tree(lab.hub.root());
    let applied = lab.json(["clean", "apply", "--yes", "--grace", "0d"]);
    assert_eq!(done(&applied).len(), plan["candidates"].as_array().expect("rows").len());
    assert!(!partial.exists() && !detached.path().exists());
    // The other snapshot has all that it had.
    let list = lab.list();
    assert_eq!(model(&list, "acme/llama")["health"]["status"], "complete");
    lab.json(["undo"]);
    same_tree(&tree(lab.hub.root()), &before);
}

#[test]
fn a_plan_keeps_its_policies() {
    let (lab, detached) = lab();
    let name = format!("acme/llama@{}", &detached.commit[..8]);
    // The test reads the files itself, and a repo's grace counts from that.
    let (path, plan) = write_plan(&lab, &["--keep-last", "1", "--grace", "0d"]);
    assert!(candidates(&plan).contains(&name), "{plan:#}");
    let path_text = path.display().to_string();
    let _ = lab.run(["clean", "apply", "--yes", "--keep-last", "2", &path_text]).expect_code(2);
    let before = tree(lab.hub.root());
    assert_eq!(done(&apply(&lab, &path).success().json()), [name]);
    lab.json(["undo"]);
    same_tree(&tree(lab.hub.root()), &before);
    // By policies at once, and what lies in the trash counts as gone.
    let took = du(lab.hub.root());
    let goal = format!("{}B", took - 10_000);
    let applied = lab.json(["clean", "apply", "--yes", "--grace", "0d", "--max-size", &goal]);
    assert!(!done(&applied).is_empty(), "{applied:#}");
    let again = lab.preview(&["--grace", "0d", "--max-size", &goal]);
    assert!(candidates(&again).is_empty(), "{again:#}");
}

#[test]
fn nobody_is_asked_without_a_terminal() {
    let (lab, _) = lab();
    let before = Frozen::of(lab.hub.root());
    for args in [
        &["clean", "apply", "--models", "acme/*"][..],
        &["clean", "apply", "--models", "acme/*", "--now"],
        &["clean", "apply", "--models", "acme/*", "--json"],
    ] {
        let out = lab.run(args).expect_code(2);
        assert!(out.stderr.contains("--yes"), "{out}");
    }
    before.assert_same(lab.hub.root(), "refused");
    lab.json(["clean", "apply", "--yes", "--models", "acme/qwen"]);
    let _ = lab.run(["trash", "empty"]).expect_code(2);
    assert_eq!(lab.json(["trash", "list"])["entries"].as_array().expect("entries").len(), 1);
}

/// A plan is a file that anybody may have written.
#[test]
fn a_plan_edited_by_hand_leads_nowhere() {
    let (lab, _) = lab();
    let victim = lab.sandbox.work().join("victim");
    fs_err::write(&victim, "precious").expect("a file");
    let (path, plan) = write_plan(&lab, &["--models", "acme/qwen"]);
    let before = Frozen::of(lab.hub.root());
    let item = |path: &str| {
        let mut item = plan["candidates"][0]["items"][0].clone();
        item["path"] = json!(path);
        item
    };
    let outside = victim.display().to_string();
    let up = format!("../../{}", victim.file_name().expect("a name").display());
    for bad in [
        outside.as_str(),
        up.as_str(),
        "../../etc",
        "a/../../b",
        "",
        "a//b",
        ".mlxman-trash/lock",
        "./a",
        "a/.",
    ] {
        let mut edited = plan.clone();
        edited["candidates"][0]["items"].as_array_mut().expect("items").push(item(bad));
        fs_err::write(&path, edited.to_string()).expect("written");
        let out = apply(&lab, &path).expect_code(2);
        assert!(out.stderr.contains("nothing was touched"), "{bad}: {out}");
        let mut edited = plan.clone();
        edited["shared_items"] = json!([{"item": item(bad), "needs": [0]}]);
        fs_err::write(&path, edited.to_string()).expect("written");
        let _ = apply(&lab, &path).expect_code(2);
        let mut edited = plan.clone();
        edited["candidates"][0]["key"] = json!(bad);
        if !bad.is_empty() {
            fs_err::write(&path, edited.to_string()).expect("written");
            let _ = apply(&lab, &path).expect_code(2);
        }
    }
    // A safe name of what no row consists of is not touched either.
    for more in ["models--other--phi/refs/main", "CACHEDIR.TAG"] {
        let mut edited = plan.clone();
        edited["candidates"][0]["items"].as_array_mut().expect("items").push(item(more));
        edited["candidates"][0]["key"] = json!("models--other--phi");
        fs_err::write(&path, edited.to_string()).expect("written");
        let applied = apply(&lab, &path).expect_code(1).json();
        assert!(done(&applied).is_empty(), "{applied:#}");
    }
    for (pointer, value) in [
        ("/schema_version", json!(7)),
        ("/candidates/0/store", json!("folder=/")),
        ("/stores/0/store", json!("folder=/")),
        ("/stores/0/inode", json!(1)),
        ("/stores/0/device", json!(1)),
        ("/shared_items", json!([{"item": item("a"), "needs": [5]}])),
        ("/candidates", json!("no rows")),
    ] {
        let mut edited = plan.clone();
        match edited.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => edited[&pointer[1..]] = value,
        }
        fs_err::write(&path, edited.to_string()).expect("written");
        let _ = apply(&lab, &path).expect_code(2);
    }
    for garbage in ["", "{}", "[]", "null", "not JSON"] {
        fs_err::write(&path, garbage).expect("written");
        let _ = apply(&lab, &path).expect_code(2);
    }
    assert!(Frozen::of(lab.hub.root()).differing(&before).is_empty());
    assert_eq!(fs_err::read_to_string(&victim).expect("it is there"), "precious");
}

/// What changed between a preview and its apply is left, with its reason, and the rest is done.
#[test]
fn what_changed_since_the_preview_stays() {
    type Change = (&'static str, fn(&Lab), &'static str);
    let changes: [Change; 9] = [
        (
            "a link that leads elsewhere",
            |lab| {
                let file = lab.hub.root().join("models--acme--qwen/snapshots");
                let snapshot = fs_err::read_dir(file).expect("it").next().expect("one").expect("one").path();
                fs_err::remove_file(snapshot.join("config.json")).expect("removed");
                symlink("/etc/passwd", snapshot.join("config.json")).expect("linked");
            },
            "",
        ),
        (
            "a directory that became a link out of the store",
            |lab| {
                let repo = lab.hub.root().join("models--acme--qwen");
                let away = lab.sandbox.work().join("away");
                fs_err::rename(repo.join("blobs"), &away).expect("moved");
                symlink(&away, repo.join("blobs")).expect("linked");
            },
            "",
        ),
        (
            "a file that was written to",
            |lab| {
                let blobs = lab.hub.root().join("models--acme--qwen/blobs");
                let blob = fs_err::read_dir(blobs).expect("it").next().expect("one").expect("one").path();
                let mut bytes = fs_err::read(&blob).expect("read");
                bytes.push(b' ');
                fs_err::write(&blob, bytes).expect("written");
            },
            "",
        ),
        (
            "a new file in the snapshot",
            |lab| {
                let dir = lab.hub.root().join("models--acme--qwen/snapshots");
                let snapshot = fs_err::read_dir(dir).expect("it").next().expect("one").expect("one").path();
                fs_err::write(snapshot.join("mine.txt"), "mine").expect("written");
            },
            "",
        ),
        (
            "a pin",
            |lab| {
                let _ = lab.run(["pin", "acme/qwen"]).success();
            },
            "pinned",
        ),
        (
            "a link from another model",
            |lab| {
                let dir = lab.hub.root().join("models--acme--qwen/blobs");
                let blob = fs_err::read_dir(dir).expect("it").next().expect("one").expect("one").path();
                let other = lab.hub.root().join("models--other--phi/snapshots");
                let snapshot = fs_err::read_dir(other).expect("it").next().expect("one").expect("one").path();
                symlink(blob, snapshot.join("borrowed.bin")).expect("linked");
            },
            "leads to it",
        ),
        (
            "a new blob beside it that nobody uses",
            |lab| {
                let _ = lab.hub.repo("acme/qwen").orphan(&[7; 100]);
            },
            "",
        ),
        (
            "a live partial",
            |lab| {
                // Another program's, whose lock nobody can ask.
                let blobs = lab.hub.root().join("models--acme--qwen/blobs");
                fs_err::write(blobs.join(format!("{}.sync.part", "a".repeat(64))), "x").expect("written");
            },
            "",
        ),
        (
            "a snapshot that is gone",
            |lab| {
                fs_err::remove_dir_all(lab.hub.root().join("models--acme--qwen")).expect("removed");
            },
            "it is gone",
        ),
    ];
    for (what, change, word) in changes {
        let (lab, _) = lab();
        let (path, _) = write_plan(&lab, &["--models", "acme/qwen", "other/phi"]);
        change(&lab);
        let repo = lab.hub.root().join("models--acme--qwen");
        let before = repo.exists().then(|| tree(&repo));
        let out = apply(&lab, &path);
        let applied = out.json();
        if what.starts_with("a new blob") || what == "a live partial" {
            // It is none of the row's, and stays whatever becomes of the row.
            let is_there = tree(&lab.hub.root().join("models--acme--qwen/blobs"));
            assert!(!is_there.is_empty(), "{what}: {is_there:#?}");
            continue;
        }
        assert_eq!(out.code(), 1, "{what}: {out}");
        if what != "a pin" {
            assert_eq!(applied["stores"][0]["changed_since_plan"], true, "{what}: {applied:#}");
        }
        let skipped = skipped(&applied);
        assert!(
            skipped.iter().any(|(name, reason)| name == "acme/qwen" && reason.contains(word)),
            "{what}: {skipped:?}"
        );
        if let Some(before) = before {
            same_tree(&tree(&repo), &before);
        }
        if what != "a link from another model" {
            assert_eq!(done(&applied), ["other/phi"], "{what}");
        }
    }
}

#[test]
fn a_download_that_holds_a_lock_keeps_its_repo() {
    let (lab, _) = lab();
    let (path, _) = write_plan(&lab, &["--models", "acme/qwen"]);
    let locks = lab.hub.root().join(".locks/models--acme--qwen");
    let lock = fs_err::read_dir(locks).expect("locks").next().expect("one").expect("one").path();
    let file = fs_err::File::open(lock).expect("a lock");
    let file = file.into_parts().0;
    file.lock().expect("it is free");
    let before = Frozen::of(lab.hub.root());
    let applied = apply(&lab, &path).expect_code(1).json();
    assert!(skipped(&applied)[0].1.contains("lock"), "{applied:#}");
    assert!(Frozen::of(lab.hub.root()).differing(&before).is_empty());
    drop(file);
    assert_eq!(done(&apply(&lab, &path).success().json()), ["acme/qwen"]);
}

/// Between two files a download holds no lock.
#[test]
fn a_repo_that_was_written_to_a_moment_ago_is_left_alone() {
    let (lab, detached) = lab();
    let name = format!("acme/llama@{}", &detached.commit[..8]);
    let (path, _) = write_plan(&lab, &["--models", &name]);
    fs_err::create_dir_all(lab.hub.repo("acme/llama").snapshot_path(&"3".repeat(40))).expect("made");
    let applied = apply(&lab, &path).expect_code(1).json();
    assert!(skipped(&applied)[0].1.contains("less than a minute ago"), "{applied:#}");
    old(&lab.hub.repo("acme/llama").snapshot_path(&"3".repeat(40)), DAY);
    assert_eq!(done(&apply(&lab, &path).success().json()), [name]);
}

#[test]
fn a_plan_that_was_applied_has_nothing_left_to_do() {
    let (lab, _) = lab();
    let (path, _) = write_plan(&lab, &["--models", "acme/*"]);
    assert_eq!(done(&apply(&lab, &path).success().json()).len(), 3);
    let before = Frozen::of(lab.hub.root());
    let again = apply(&lab, &path).expect_code(1).json();
    assert!(done(&again).is_empty() && skipped(&again).len() == 3, "{again:#}");
    assert_eq!(again["stores"][0]["changed_since_plan"], true);
    // Quiet or not, a run that ends with 1 says why.
    let quiet = lab.run(["clean", "apply", "--yes", "-q", path.to_str().expect("UTF-8")]).expect_code(1);
    assert!(quiet.stderr.contains("acme/qwen was left: "), "{quiet}");
    assert!(Frozen::of(lab.hub.root()).differing(&before).is_empty());
    // Put back, they are what they were.
    lab.json(["undo"]);
    let last = apply(&lab, &path).success().json();
    assert_eq!((done(&last).len(), last["stores"][0].get("changed_since_plan")), (3, None), "{last:#}");
}

#[test]
fn two_at_once_do_it_once() {
    for _ in 0..5 {
        let (lab, _) = lab();
        let before = tree(lab.hub.root());
        let (path, _) = write_plan(&lab, &["--models", "acme/*"]);
        let path = path.display().to_string();
        let mut children: Vec<_> = (0..3).map(|_| lab.spawn(&["clean", "apply", "--yes", &path])).collect();
        let codes: Vec<i32> =
            children.iter_mut().map(|child| child.wait().expect("it ends").code().expect("a code")).collect();
        assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
        assert!(codes.iter().all(|code| matches!(code, 0 | 1)), "{codes:?}");
        assert_eq!(names(&lab.json(["list", "--filter", "present=true"])).len(), 1);
        let trash = lab.json(["trash", "list"]);
        assert_eq!(trash["entries"].as_array().expect("entries").len(), 1, "{trash:#}");
        lab.json(["undo"]);
        same_tree(&tree(lab.hub.root()), &before);
    }
}

#[test]
fn the_disk_gets_back_what_was_told() {
    let (lab, _) = lab();
    let before = du(lab.hub.root());
    let applied = lab.json(["clean", "apply", "--yes", "--now", "--models", "acme/*"]);
    let freed = applied["freed_bytes"].as_u64().expect("bytes");
    assert_eq!(before - du(lab.hub.root()), freed);
    assert_eq!(applied["reclaimable_bytes"], 0);
    let _ = lab.run(["undo"]).success();
    assert!(!lab.hub.root().join("models--acme--qwen").exists(), "what is freed is gone");

    let before = du(lab.hub.root());
    let applied = lab.json(["clean", "apply", "--yes", "--models", "other/phi"]);
    let kept = lab.json(["trash", "list"])["reclaimable_bytes"].as_u64().expect("bytes");
    assert_eq!(applied["reclaimable_bytes"], kept);
    // What was thrown away just now is not old.
    let none = lab.json(["trash", "empty", "--yes", "--older-than", "1d"]);
    assert_eq!((&none["freed_bytes"], &none["reclaimable_bytes"]), (&json!(0), &json!(kept)));
    let emptied = lab.json(["trash", "empty", "--yes"]);
    assert_eq!(emptied["freed_bytes"], kept);
    assert_eq!(before - du(lab.hub.root()), kept + applied["freed_bytes"].as_u64().expect("bytes"));
    let _ = lab.run(["undo", "20200101T000000Z"]).expect_code(2);
}

/// What came in the place of something that was removed is not replaced by it.
#[test]
fn undo_replaces_nothing() {
    let (lab, folder) = Lab::with_folder();
    let dir = folder.model("acme/one", &four_bit(1).files());
    lab.sync();
    lab.json(["clean", "apply", "--yes", "--include-irreplaceable", "--models", "acme/one"]);
    assert!(!dir.exists());
    fs_err::create_dir_all(&dir).expect("made");
    fs_err::write(dir.join("config.json"), "new").expect("written");
    let out = lab.run(["undo", "--json"]).expect_code(1);
    let undone = out.json();
    let stuck = undone["undone"][0]["stuck"].as_array().expect("stuck");
    assert!(stuck.len() == 1 && stuck[0].as_str().expect("text").contains("config.json"), "{undone:#}");
    assert_eq!(fs_err::read_to_string(dir.join("config.json")).expect("it is there"), "new");
    assert!(dir.join("model.safetensors").exists());
    // It is still in the trash, and goes back once its place is free.
    fs_err::remove_file(dir.join("config.json")).expect("removed");
    let undone = lab.json(["undo"]);
    assert_eq!(undone["undone"][0]["stuck"], json!([]));
    assert_ne!(fs_err::read_to_string(dir.join("config.json")).expect("it is there"), "new");
}

#[test]
fn what_lies_in_the_trash_is_no_model_and_needs_nothing() {
    let (lab, folder) = Lab::with_folder();
    let one = folder.model("one", &four_bit(1).files());
    let two = folder.model("two", &four_bit(2).files());
    // What a link leads to is needed, as long as the link is not thrown away.
    symlink(one.join("model.safetensors"), two.join("borrowed.safetensors")).expect("linked");
    lab.sync_any();
    let before = tree(folder.root());
    let plan = lab.preview(&["--include-irreplaceable", "--models", "one"]);
    let applied = lab.json(["clean", "apply", "--yes", "--include-irreplaceable", "--models", "one"]);
    assert_eq!(done(&applied), ["one"], "{plan:#}");
    assert!(two.join("borrowed.safetensors").exists() && !one.join("config.json").exists());
    lab.json(["undo"]);
    same_tree(&tree(folder.root()), &before);

    lab.json(["clean", "apply", "--yes", "--include-irreplaceable", "--models", "two"]);
    let list = lab.json(["list", "--filter", "present=true"]);
    assert_eq!(names(&list).into_iter().collect::<Vec<_>>(), ["one"]);
    let plan = lab.preview(&["--include-irreplaceable", "--models", "one"]);
    let items = plan["candidates"][0]["items"].as_array().expect("items");
    assert!(items.iter().any(|item| item["path"] == "one/model.safetensors"), "{plan:#}");
    let stores = lab.json(["stores"]);
    let folder_store = stores.as_array().expect("stores").iter().find(|store| store["kind"] == "folder");
    assert_eq!(
        folder_store.expect("it")["usage"]["allocated_bytes"],
        du(folder.root()),
        "the trash is counted"
    );
}

/// What was asked for by `--store` is undone by it, and the words say so.
#[test]
fn words_on_undo_name_the_store_that_was_named() {
    let lab = Lab::new();
    let other = mlxman_testkit::HubStore::create(lab.sandbox.root().join("other"));
    let _ = other.repo("acme/one").snapshot(&four_bit(1).files()).with_ref("main");
    old_below(other.root(), 30 * DAY);
    let store = format!("hub={}", other.root().display());
    let _ = lab.run(["--store", &store, "sync", "--fast"]).success();
    let out = lab.run(["--store", &store, "clean", "apply", "--models", "acme/one", "--yes"]).success();
    assert!(out.stderr.contains(&format!("mlxman undo --store {store}")), "{out}");
    // What is gone is no row, unless records are asked for.
    let gone = |more: &[&str]| {
        let args = ["--store", store.as_str(), "clean", "preview", "--models", "acme/one"];
        candidates(&lab.json(args.iter().chain(more)))
    };
    assert!(gone(&[]).is_empty());
    assert_eq!(gone(&["--missing-only"]), ["acme/one".to_owned()].into());
    let _ = lab.run(["--store", &store, "undo"]).success();
    assert!(other.repo("acme/one").path().join("refs/main").exists());
}

/// A directory that is made again has what a file manager or an access control list kept of it.
#[test]
fn extended_attributes_of_directories_come_back() {
    let (lab, _) = lab();
    let dir = lab.hub.root().join("models--acme--qwen/snapshots");
    let set = std::process::Command::new("python3")
        .args(["-c", "import os, sys; os.setxattr(sys.argv[1], 'user.mark', b'mine')"])
        .arg(&dir)
        .output();
    if !set.is_ok_and(|set| set.status.success()) {
        return crate::lab::left_out("extended attributes cannot be set here");
    }
    let _ = lab.run(["clean", "apply", "--models", "acme/qwen", "--yes"]).success();
    assert!(!dir.exists());
    let _ = lab.run(["undo"]).success();
    let read = std::process::Command::new("python3")
        .args(["-c", "import os, sys; print(os.getxattr(sys.argv[1], 'user.mark').decode(), end='')"])
        .arg(&dir)
        .output()
        .expect("it was there a moment ago");
    assert_eq!(String::from_utf8_lossy(&read.stdout), "mine");
}
