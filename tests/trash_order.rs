//! Several removals in one trash, in any order; and trashes that somebody else wrote in.

use std::path::Path;

use mlxman_testkit::{FolderStore, ModelSpec, Snapshot, text};
use serde_json::{Value, json};

use crate::lab::{DAY, Lab, candidates, four_bit, old_below};

/// A repo with two snapshots that share their blobs.
fn two_snapshots() -> (Lab, Snapshot, Snapshot) {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/llama");
    let files = four_bit(1).files();
    let mut older = files.clone();
    older.push(text("notes.txt", "older"));
    let one = repo.snapshot(&older);
    let two = repo.snapshot(&files).with_ref("main");
    old_below(lab.hub.root(), 30 * DAY);
    lab.sync();
    (lab, one, two)
}

fn apply(lab: &Lab, args: &[&str]) -> String {
    let applied = lab.json(["clean", "apply", "--yes", "--grace", "0d"].iter().chain(args));
    applied["stores"][0]["id"].as_str().expect("a journal").to_owned()
}

fn whole(snapshot: &Snapshot) -> bool {
    snapshot.path().join("model.safetensors").exists() && snapshot.path().join("config.json").exists()
}

#[test]
fn what_a_link_leads_to_comes_back_first_and_is_not_freed() {
    let (lab, one, two) = two_snapshots();
    let first = apply(&lab, &["--models", &format!("acme/llama@{}", &one.commit[..8])]);
    let second = apply(&lab, &["--models", "acme/*"]);
    // Its blobs were removed with the other one.
    let out = lab.run(["undo", &first]).expect_code(3);
    assert!(out.stderr.contains(&second), "{out}");
    // They are needed by what lies in the trash, too.
    let out = lab.run(["trash", "empty", "--yes", &second]).expect_code(1);
    assert!(out.stderr.contains(&first), "{out}");
    let _ = lab.run(["undo", &second]).success();
    let _ = lab.run(["undo", &first]).success();
    assert!(whole(&one) && whole(&two));
    assert!(!lab.hub.root().join(".mlxman-trash").exists());
}

#[test]
fn what_is_there_again_is_not_freed() {
    let (lab, one, two) = two_snapshots();
    let id = apply(&lab, &["--models", "acme/*"]);
    // Somebody put the links back by hand.
    fs_err::create_dir_all(two.path()).expect("made");
    let trash = lab.hub.root().join(".mlxman-trash").join(&id);
    let journal: Value =
        serde_json::from_slice(&fs_err::read(trash.join("journal.kept")).expect("it")).expect("JSON");
    for step in journal["steps"].as_array().expect("steps") {
        let path = step["path"].as_str().unwrap_or_default();
        if let (true, Some(target)) = (path.contains(&two.commit), step["link_target"].as_str()) {
            std::os::unix::fs::symlink(target, lab.hub.root().join(path)).expect("linked");
        }
    }
    let out = lab.run(["trash", "empty", "--yes"]).expect_code(1);
    assert!(out.stderr.contains("there again"), "{out}");
    let _ = lab.run(["undo"]).expect_code(1);
    assert!(whole(&one) && whole(&two));
}

#[test]
fn everything_is_freed_at_once_in_any_order() {
    let (lab, one, _) = two_snapshots();
    let _ = apply(&lab, &["--models", &format!("acme/llama@{}", &one.commit[..8])]);
    let _ = apply(&lab, &["--models", "acme/*"]);
    let _ = lab.run(["trash", "empty", "--yes"]).success();
    assert!(!lab.hub.root().join(".mlxman-trash").exists());
}

#[test]
fn a_store_inside_a_model_keeps_it() {
    let (lab, folder) = Lab::with_folder();
    let outer = folder.model("outer", &four_bit(1).files());
    let inner = FolderStore::create(outer.join("inner"));
    inner.model("mine", &ModelSpec::llama().files());
    let stores =
        [format!("folder={}", folder.root().display()), format!("folder={}", inner.root().display())];
    let hub = mlxman_testkit::HubStore::create(outer.join("hub"));
    let _ = hub.repo("acme/pinned").snapshot(&four_bit(2).files()).with_ref("main");
    let hub_store = format!("hub={}", hub.root().display());
    let given = ["--store", stores[0].as_str(), "--store", hub_store.as_str()];
    let _ = lab.run(["sync", "--fast"].iter().chain(&given));
    let plan =
        lab.json(["clean", "preview", "--include-irreplaceable", "--models", "outer"].iter().chain(&given));
    assert!(candidates(&plan).is_empty(), "{plan:#}");
    assert_eq!(plan["kept"][0]["rule"], "holds_store", "{plan:#}");
}

fn plant(root: &Path, id: &str, state: &str, journal: &Value) {
    let dir = root.join(".mlxman-trash").join(id);
    fs_err::create_dir_all(dir.join("items")).expect("made");
    fs_err::write(dir.join(format!("journal.{state}")), journal.to_string()).expect("written");
}

/// Whoever may write to a store may write a journal; it is believed in nothing that would remove a file.
#[test]
fn a_planted_journal_removes_nothing() {
    use std::os::unix::fs::MetadataExt as _;
    let (lab, _, two) = two_snapshots();
    let root = lab.hub.root();
    let blob = two.blob_of("model.safetensors");
    let meta = fs_err::metadata(&blob).expect("a blob");
    let path = blob.strip_prefix(root).expect("below").display().to_string();
    let inode = fs_err::metadata(root).expect("a root").ino();
    let step = |rows: Value| {
        json!({"rows": rows, "do": "put", "path": path, "slot": 1, "kind": "file", "device": meta.dev(), "inode": meta.ino(),
               "size": meta.len(), "mtime_ns": meta.mtime() * 1_000_000_000 + meta.mtime_nsec()})
    };
    let journal = |inode: u64, rows: Value| {
        json!({"schema_version": 1, "id": "z", "created_at": "2026-01-01T00:00:00Z", "generator": "x", "store": "hub=/x",
               "inode": inode, "purpose": "repair", "rows": [], "steps": [step(rows)]})
    };
    for (inode, rows) in [(1, json!([])), (inode, json!([])), (inode, json!([7])), (1, json!([0]))] {
        plant(root, "z", "moving", &journal(inode, rows));
        let _ = lab.run(["clean", "preview"]);
        assert!(blob.exists());
        let _ = lab.run(["undo", "z"]);
        assert!(blob.exists());
        let out = lab.run(["undo"]).expect_code(1);
        assert!(out.stderr.contains('z'), "{out}");
    }
}

#[test]
fn a_plan_with_a_store_twice_is_none() {
    let (lab, _, _) = two_snapshots();
    let file = lab.sandbox.work().join("plan.json");
    let mut plan = lab.preview(&["--models", "acme/*"]);
    let store = plan["stores"][0].clone();
    plan["stores"].as_array_mut().expect("stores").push(store);
    fs_err::write(&file, plan.to_string()).expect("written");
    let _ = lab.run(["clean", "apply", "--yes", &file.display().to_string()]).expect_code(2);
}

/// A journal that cannot be ended keeps none of the others from it, and `undo` says that it is there.
#[test]
fn one_that_cannot_be_read_hides_no_other() {
    let (lab, one, _) = two_snapshots();
    plant(lab.hub.root(), "20000101T000000Z", "emptying", &json!("no journal"));
    let id = apply(&lab, &["--models", &format!("acme/llama@{}", &one.commit[..8])]);
    let trash = lab.hub.root().join(".mlxman-trash").join(&id);
    fs_err::rename(trash.join("journal.kept"), trash.join("journal.moving")).expect("renamed");
    let out = lab.run(["clean", "preview"]);
    assert!(out.stderr.contains("took back what was begun"), "{out}");
    assert!(whole(&one));
    let out = lab.run(["undo"]).expect_code(1);
    assert!(out.stderr.contains("20000101T000000Z"), "{out}");
}

#[test]
fn one_apply_has_one_name_in_all_stores() {
    let (mut lab, _, _) = two_snapshots();
    let folder = lab.sandbox.models();
    folder.model("one", &four_bit(7).files());
    let _ = lab.hub.repo("acme/other").snapshot(&four_bit(8).files()).with_ref("main");
    old_below(lab.hub.root(), 30 * DAY);
    let _ = apply(&lab, &["--models", "acme/other"]);
    let args = [
        "clean",
        "apply",
        "--yes",
        "--grace",
        "0d",
        "--include-irreplaceable",
        "--models",
        "acme/llama*",
        "one",
    ];
    let applied = lab.json(args);
    let ids: Vec<&Value> =
        applied["stores"].as_array().expect("stores").iter().map(|store| &store["id"]).collect();
    assert_eq!((ids.len(), ids[0]), (2, ids[1]), "{applied:#}");
    let undone = lab.json(["undo"]);
    assert_eq!(undone["undone"].as_array().expect("stores").len(), 2, "{undone:#}");
    assert_eq!(lab.json(["trash", "list"])["entries"].as_array().expect("entries").len(), 1);
}

/// In a store that a group writes to, the next user of it must be able to undo and to empty.
#[test]
fn the_trash_of_a_group_is_the_groups() {
    use std::os::unix::fs::PermissionsExt as _;
    let (lab, _, _) = two_snapshots();
    let mode = |path: &Path| fs_err::metadata(path).expect("it").permissions().mode() & 0o7777;
    fs_err::set_permissions(lab.hub.root(), std::fs::Permissions::from_mode(0o2775)).expect("set");
    let id = apply(&lab, &["--models", "acme/*"]);
    let trash = lab.hub.root().join(".mlxman-trash");
    for dir in [trash.clone(), trash.join(&id), trash.join(&id).join("items")] {
        assert_eq!(mode(&dir), 0o2775, "{}", dir.display());
    }
    assert_eq!(mode(&trash.join("lock")), 0o666);
}

/// The list of who uses a shared blob has every user again, in whatever order things were asked back.
#[test]
fn a_user_of_a_shared_blob_is_listed_again() {
    let sandbox = Lab::new();
    let root = sandbox.sandbox.work().join("shared");
    let hub = mlxman_testkit::HubStore::create(&root).shared();
    let files = four_bit(1).files();
    let one = hub.repo("acme/one").snapshot(&files).with_ref("main");
    let two = hub.repo("other/two").snapshot(&files).with_ref("main");
    old_below(&root, 30 * DAY);
    let store = format!("hub={}", root.display());
    let call = |args: &[&str]| sandbox.run(["--store", store.as_str(), "--json"].iter().chain(args));
    let remove = |models: &str| {
        let applied = call(&["clean", "apply", "--yes", "--models", models]).success().json();
        applied["stores"][0]["id"].as_str().expect("a journal").to_owned()
    };
    let lists = || {
        let found = walkdir::WalkDir::new(root.join("blobs")).into_iter().flatten();
        let refs = found.filter(|entry| entry.path().extension().is_some_and(|end| end == "refs"));
        let mut lines: Vec<String> = refs
            .flat_map(|entry| {
                let text = fs_err::read_to_string(entry.path()).expect("a list");
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        lines.sort();
        lines
    };
    let before = lists();
    assert_eq!(before.len(), 2, "{before:?}");
    let (first, second) = (remove("acme/*"), remove("other/*"));
    let out = call(&["undo", &first]).expect_code(3);
    assert!(out.stderr.contains(&second), "{out}");
    let _ = call(&["undo", &second]).success();
    let _ = call(&["undo", &first]).success();
    assert_eq!(lists(), before);
    assert!(whole(&one) && whole(&two));
}

/// What was fetched again and removed again comes back, and is freed, whichever of the two is asked for first.
#[test]
fn removed_fetched_and_removed_again() {
    let files = four_bit(1).files();
    let twice = || {
        let lab = Lab::new();
        let fetch = || {
            let _ = lab.hub.repo("acme/one").snapshot(&files).with_ref("main");
            old_below(&lab.hub.repo("acme/one").path(), 30 * DAY);
        };
        fetch();
        let first = apply(&lab, &["--models", "acme/one"]);
        fetch();
        let second = apply(&lab, &["--models", "acme/one"]);
        (lab, first, second)
    };
    let (lab, ..) = twice();
    let _ = lab.run(["trash", "empty", "--yes"]).success();
    assert!(!lab.hub.root().join(".mlxman-trash").exists());
    let (lab, first, second) = twice();
    let undone = lab.json(["undo"]);
    assert_eq!(undone["undone"][0]["id"], second, "the last one: {undone:#}");
    assert_eq!(undone["undone"][0]["rows"].as_array().map(Vec::len), Some(1), "{undone:#}");
    let _ = lab.run(["verify", "--level", "integrity"]).success();
    // There is one in its place now: that stays, and so does the older one.
    let out = lab.run(["undo", &first]).expect_code(3);
    assert!(out.stdout.is_empty() && out.stderr.contains("come back meanwhile"), "{out}");
    let _ = lab.run(["verify", "--level", "integrity"]).success();
}

/// What a repair put in place and a removal took later comes back in that order only.
#[test]
fn a_repair_waits_for_what_was_removed_after_it() {
    let (lab, _, two) = two_snapshots();
    let main = lab.hub.repo("acme/llama").path().join("refs/main");
    fs_err::write(&main, format!("{}\n", two.commit)).expect("written");
    old_below(lab.hub.root(), 30 * DAY);
    let _ = lab.run(["doctor", "--fix", "--yes"]);
    let repaired = lab.json(["trash", "list"])["entries"][0]["id"].as_str().expect("a journal").to_owned();
    let removed = apply(&lab, &["--models", "acme/*"]);
    let out = lab.run(["undo", &repaired]).expect_code(3);
    assert!(out.stderr.contains(&removed), "{out}");
    let _ = lab.run(["undo", &removed]).success();
    let _ = lab.run(["undo", &repaired]).success();
    assert!(fs_err::read_to_string(&main).expect("the ref").ends_with('\n'));
}

/// In a store of a group, somebody else's words in a journal's directory, or a journal of their own, remove nothing.
#[test]
fn another_users_journal_is_not_believed() {
    if !rustix::process::geteuid().is_root() {
        return crate::lab::left_out("only root can write as another user");
    }
    let chown = |path: &Path| std::os::unix::fs::chown(path, Some(3001), Some(3001)).expect("given away");
    let (lab, one, two) = two_snapshots();
    let id = apply(&lab, &["--models", &format!("acme/llama@{}", &one.commit[..8])]);
    let dir = lab.hub.root().join(".mlxman-trash").join(&id);
    let mut journal: Value =
        serde_json::from_slice(&fs_err::read(dir.join("journal.kept")).expect("it")).expect("JSON");
    let blob = two.blob_of("config.json");
    let meta = std::os::unix::fs::MetadataExt::ino(&blob.metadata().expect("a stat"));
    let (length, time) = {
        use std::os::unix::fs::MetadataExt as _;
        let meta = blob.metadata().expect("a stat");
        (meta.len(), meta.mtime() * 1_000_000_000 + meta.mtime_nsec())
    };
    let path = blob.strip_prefix(lab.hub.root()).expect("below").display().to_string();
    let device = std::os::unix::fs::MetadataExt::dev(&blob.metadata().expect("a stat"));
    journal["steps"] = json!([{"rows": [0], "do": "put", "path": path, "slot": 999, "kind": "file", "device": device,
                               "inode": meta, "size": length, "mtime_ns": time}]);
    // Another word on what is being done, in the directory of this user's journal.
    fs_err::write(dir.join("journal.undoing"), journal.to_string()).expect("written");
    chown(&dir.join("journal.undoing"));
    let _ = lab.run(["trash", "list"]).success();
    assert!(blob.exists() && dir.join("journal.kept").exists());
    fs_err::remove_file(dir.join("journal.undoing")).expect("gone");
    // One of their own, which is newer than all others.
    journal["id"] = json!("99990101T000000Z-0000");
    journal["created_at"] = json!("2099-01-01T00:00:00Z");
    let own = lab.hub.root().join(".mlxman-trash/99990101T000000Z-0000");
    fs_err::create_dir_all(own.join("items")).expect("made");
    fs_err::write(own.join("journal.kept"), journal.to_string()).expect("written");
    for path in [own.clone(), own.join("items"), own.join("journal.kept")] {
        chown(&path);
    }
    let undone = lab.json(["undo"]);
    assert_eq!(undone["undone"][0]["id"], id, "{undone:#}");
    assert!(blob.exists() && whole(&one));
    // By its name it is followed, and nothing that it says was made is removed: it lies in the trash.
    let _ = lab.run(["undo", "99990101T000000Z-0000"]);
    assert!(blob.exists() || own.join("items/999").exists());
}

/// Two runs in one second have two names, also where they are about two stores.
#[test]
fn each_run_has_a_name_of_its_own() {
    let (mut lab, _, _) = two_snapshots();
    let folder = lab.sandbox.models();
    folder.model("one", &four_bit(7).files());
    old_below(folder.root(), 30 * DAY);
    let hub = apply(&lab, &["--models", "acme/*"]);
    let other = lab.json(["clean", "apply", "--yes", "--include-irreplaceable", "--models", "one"]);
    let folders = other["stores"].as_array().expect("stores").iter().find_map(|store| store["id"].as_str());
    assert_ne!(Some(hub.as_str()), folders);
    let _ = lab.run(["trash", "empty", "--yes", &hub]).success();
    let _ = lab.run(["undo"]).success();
    assert!(folder.path("one").join("config.json").exists());
}

/// A name that no terminal shows is put back as any other.
#[test]
fn a_name_with_a_control_character_comes_back() {
    let (lab, folder) = Lab::with_folder();
    let odd = folder.model("tw\u{1}o", &four_bit(1).files());
    old_below(folder.root(), 30 * DAY);
    lab.sync();
    let _ = apply_irreplaceable(&lab, "tw*");
    assert!(!odd.exists());
    let _ = lab.run(["undo"]).success();
    assert!(odd.join("config.json").exists());
}

fn apply_irreplaceable(lab: &Lab, models: &str) -> Value {
    lab.json(["clean", "apply", "--yes", "--include-irreplaceable", "--models", models])
}

/// A file manager looks into the trash, and leaves its own file there.
#[test]
fn what_a_file_manager_leaves_in_the_trash_is_no_obstacle() {
    let (lab, _, _) = two_snapshots();
    let id = apply(&lab, &["--models", "acme/*"]);
    let items = lab.hub.root().join(".mlxman-trash").join(&id).join("items");
    fs_err::write(items.join(".DS_Store"), "x").expect("written");
    let freed = lab.run(["trash", "empty", "--yes", "--json"]).success().json();
    assert!(freed["freed_bytes"].as_u64() > Some(10_000), "{freed:#}");
    assert!(!lab.hub.root().join(".mlxman-trash").exists());
}

/// What lies in a shared store belongs to whoever it belonged to, also where root mends it.
#[test]
fn what_root_makes_in_a_users_store_is_the_users() {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::geteuid().is_root() {
        return crate::lab::left_out("only root can make things for others");
    }
    let (lab, _, two) = two_snapshots();
    let main = lab.hub.repo("acme/llama").path().join("refs/main");
    fs_err::write(&main, format!("{}\n", two.commit)).expect("written");
    for entry in walkdir::WalkDir::new(lab.hub.root()) {
        std::os::unix::fs::lchown(entry.expect("an entry").path(), Some(3001), Some(3001))
            .expect("given away");
    }
    let _ = lab.run(["doctor", "--fix", "--yes"]);
    assert_eq!(fs_err::read_to_string(&main).expect("the ref"), two.commit);
    for entry in walkdir::WalkDir::new(lab.hub.root()) {
        let entry = entry.expect("an entry");
        // Nobody asks whose a link is.
        if entry.file_type().is_symlink() {
            continue;
        }
        assert_eq!(
            entry.path().symlink_metadata().expect("a stat").uid(),
            3001,
            "{}",
            entry.path().display()
        );
    }
    let _ = lab.run(["undo"]).success();
    assert!(fs_err::read_to_string(&main).expect("the ref").ends_with('\n'));
}

/// The trash of a store that was copied cannot be put back by its journal, and can be freed.
#[test]
fn the_trash_of_a_copied_store_can_be_freed() {
    let (lab, _, _) = two_snapshots();
    let id = apply(&lab, &["--models", "acme/*"]);
    let copy = lab.sandbox.work().join("copy");
    let copied =
        std::process::Command::new("cp").arg("-a").arg(lab.hub.root()).arg(&copy).status().expect("cp");
    assert!(copied.success());
    let store = format!("hub={}", copy.display());
    let call = |args: &[&str]| lab.run(["--store", store.as_str()].iter().chain(args));
    let out = call(&["undo", &id]);
    assert!(out.code() != 0 && out.stderr.contains("copied"), "{out}");
    let _ = call(&["trash", "empty", "--yes"]).expect_code(1);
    assert!(copy.join(".mlxman-trash").join(&id).join("items").exists(), "only by its name");
    let freed = call(&["trash", "empty", "--yes", "--json", &id]).success().json();
    assert!(freed["freed_bytes"].as_u64() > Some(10_000), "{freed:#}");
    assert!(!copy.join(".mlxman-trash").exists());
}
