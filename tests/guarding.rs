//! What the user said holds, whatever becomes of the places where it is written; and no place is touched that should
//! not be.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use mlxman_testkit::FolderStore;
use serde_json::{Value, json};

use crate::damage::as_nobody;
use crate::lab::{DAY, Frozen, Lab, candidates, cut, four_bit, kinds, loose, model, names, old_below};

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).expect("it is there")).expect("JSON")
}

fn write(path: &Path, value: &Value) {
    fs_err::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs_err::write(path, serde_json::to_string_pretty(value).expect("JSON")).expect("it is written");
}

/// A folder that keeps its own manifests.
fn keeping() -> (Lab, FolderStore, PathBuf) {
    let (lab, folder) = Lab::with_folder();
    let dir = folder.root().join("manifests");
    fs_err::create_dir_all(&dir).expect("a directory");
    (lab, folder, dir)
}

fn kept(plan: &Value) -> Vec<(String, String)> {
    let text = |row: &Value, key: &str| row[key].as_str().expect("text").to_owned();
    plan["kept"].as_array().expect("kept").iter().map(|row| (text(row, "rule"), text(row, "model"))).collect()
}

#[test]
fn words_that_were_written_by_hand_are_the_users() {
    let lab = Lab::new();
    let name = "acme/m";
    let files = four_bit(1).tags(&["mlx", "chat"]).files();
    let snapshot = lab.hub.repo(name).snapshot(&files).with_ref("main");
    lab.sync();
    let file = lab.manifest_file(name);
    let mut document = read(&file);
    document["pinned"] = json!(true);
    document["notes"] = json!("mine");
    document["tags"] = json!(["mlx", "chat", "by hand"]);
    write(&file, &document);
    // At once, and after syncs that write it.
    for round in 0..3 {
        let list = lab.list();
        let row = model(&list, name);
        assert_eq!((&row["pinned"], &row["notes"]), (&json!(true), &json!("mine")), "{round}");
        assert!(
            row["tags"].as_array().expect("tags").contains(&json!("by hand")),
            "{round}: {}",
            row["tags"]
        );
        let plan = lab.preview(&["--models", "*"]);
        assert!(candidates(&plan).is_empty() && kept(&plan) == [("pinned".into(), name.into())], "{plan:#}");
        snapshot.repo().add_ref(&format!("v{round}"), &snapshot.commit);
        lab.sync();
    }
    let user = read(&file)["user"].clone();
    assert_eq!(user, json!({"pinned": true, "notes": "mine", "tags": ["by hand"]}), "not what was found");
    let _ = lab.run(["unpin", name]).success();
    let _ = lab.run(["note", name, ""]).success();
    lab.sync();
    assert!(read(&file).get("notes").is_none() && read(&file)["pinned"] == false);
}

#[test]
fn a_manifest_speaks_for_its_own_model_alone() {
    let (lab, folder, dir) = keeping();
    let name = "acme/m";
    let _ = lab.hub.repo(name).snapshot(&four_bit(1).files()).with_ref("main");
    folder.model("here", &four_bit(2).files());
    folder.model("there", &four_bit(3).files());
    lab.sync();
    let _ = lab.run(["pin", name, "here"]).success();
    // Others that claim to be theirs, in the folder and in the registry.
    let of_hub = lab.manifest_file(name);
    let strip = |mut document: Value| {
        document["pinned"] = json!(false);
        document.as_object_mut().expect("an object").remove("user");
        document
    };
    let evil = [
        dir.join("zzz.manifest.json"),
        dir.join("aaa.manifest.json"),
        of_hub.with_file_name("backup.manifest.json"),
    ];
    write(&evil[0], &strip(read(&of_hub)));
    write(&evil[1], &strip(read(&dir.join("here.manifest.json"))));
    write(&evil[2], &strip(read(&of_hub)));
    for _ in 0..2 {
        let out = lab.run(["sync", "--fast"]).expect_code(1);
        assert!(evil.iter().all(|path| out.stderr.contains(&path.display().to_string())), "{out}");
        let list = lab.list();
        assert_eq!(names(&list).len(), 3);
        assert_eq!(model(&list, name)["pinned"], true);
        assert_eq!(model(&list, "here")["pinned"], true);
        let plan = lab.preview(&["--models", "*", "--include-irreplaceable"]);
        assert_eq!(candidates(&plan).into_iter().collect::<Vec<_>>(), ["there"]);
        // A change of where an honest one says that it lies changes nothing either.
        let mut moved = read(&dir.join("there.manifest.json"));
        moved["store"] = json!("hub=/elsewhere");
        write(&dir.join("there.manifest.json"), &moved);
    }
    // What cannot be used is no reason to write again and again.
    for path in evil {
        fs_err::remove_file(path).expect("it goes");
    }
    lab.sync();
    assert_eq!(model(&lab.list(), "here")["pinned"], true);
}

#[test]
fn a_pin_holds_while_its_volume_is_mounted_elsewhere() {
    let lab = Lab::new();
    let (one, two) = (lab.sandbox.root().join("disk1"), lab.sandbox.root().join("disk2"));
    let store = mlxman_testkit::HubStore::create(one.join("hub"));
    let old = store.repo("acme/m").snapshot(&four_bit(1).files());
    let _ = store.repo("acme/m").snapshot(&four_bit(2).files()).with_ref("main");
    let folder = FolderStore::create(one.join("models"));
    fs_err::create_dir_all(folder.root().join("manifests")).expect("a directory");
    folder.model("pub/a", &four_bit(3).files());
    let args = |root: &Path, more: &[&str]| -> Vec<String> {
        let (hub, models) = (root.join("hub"), root.join("models"));
        let stores =
            [format!("--store=hub={}", hub.display()), format!("--store=folder={}", models.display())];
        more.iter().map(|word| (*word).to_owned()).chain(stores).collect()
    };
    let _ = lab.run(args(&one, &["sync", "--fast"])).success();
    let detached = format!("acme/m@{}", &old.commit[..8]);
    let _ = lab.run(["pin", &detached, "pub/a"]).success();
    fs_err::rename(&one, &two).expect("the volume moves");
    for _ in 0..2 {
        for more in [&["clean", "preview"][..], &["clean", "preview", "--models", "*"]] {
            let plan = lab.json(args(&two, more));
            assert!(
                !candidates(&plan).contains(&detached) && !candidates(&plan).contains("pub/a"),
                "{plan:#}"
            );
            assert!(kept(&plan).contains(&("pinned_elsewhere".into(), detached.clone())), "{plan:#}");
        }
        let _ = lab.run(args(&two, &["sync", "--fast"])).success();
    }
    // The folder's own manifest went with it, and has one name wherever it lies.
    let entries = fs_err::read_dir(two.join("models/manifests")).expect("the manifests");
    let found: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(found.iter().filter(|name| name.ends_with(".manifest.json")).count(), 1, "{found:?}");
    // The old place is there, and the model is not in it: it may still be the one that was pinned.
    let _ = store;
    let copy = mlxman_testkit::HubStore::create(one.join("hub"));
    let plan = lab.json(args(&two, &["clean", "preview"]));
    assert!(!candidates(&plan).contains(&detached), "{plan:#}");
    // Both there: the pin is the other's.
    old_below(&two.join("hub"), 30 * DAY);
    assert_eq!(copy.repo("acme/m").snapshot(&four_bit(1).files()).commit, old.commit);
    let plan = lab.json(args(&two, &["clean", "preview"]));
    assert!(candidates(&plan).contains(&detached), "{plan:#}");
}

#[test]
fn a_pinned_record_of_a_model_that_is_gone_is_kept() {
    let lab = Lab::new();
    for name in ["acme/a", "acme/b"] {
        let _ = lab.hub.repo(name).snapshot(&four_bit(1).files()).with_ref("main");
    }
    let _ = lab.hub.repo("acme/c").snapshot(&four_bit(2).files()).with_ref("main");
    lab.sync();
    let _ = lab.run(["pin", "acme/a"]).success();
    for name in ["acme/a", "acme/b"] {
        fs_err::remove_dir_all(lab.hub.repo(name).path()).expect("it goes");
    }
    for _ in 0..2 {
        let plan = lab.preview(&["--missing-only"]);
        assert_eq!(candidates(&plan).into_iter().collect::<Vec<_>>(), ["acme/b"]);
        assert_eq!(kept(&plan), [("pinned".into(), "acme/a".into())]);
        lab.sync();
    }
}

#[test]
fn what_was_used_meanwhile_is_known() {
    let lab = Lab::new();
    let name = "acme/m";
    let snapshot = lab.hub.repo(name).snapshot(&four_bit(1).files()).with_ref("main");
    let modified = SystemTime::now() - 90 * DAY;
    let touch = |age| {
        for entry in fs_err::read_dir(snapshot.repo().blobs()).expect("blobs") {
            let path = entry.expect("an entry").path();
            let times =
                std::fs::FileTimes::new().set_accessed(SystemTime::now() - age).set_modified(modified);
            fs_err::File::open(&path).expect("a file").file().set_times(times).expect("its times");
        }
    };
    touch(60 * DAY);
    lab.sync();
    assert_eq!(candidates(&lab.preview(&["--filter", "used>30d"])).len(), 1);
    let manifest = fs_err::metadata(lab.manifest_file(name)).expect("it").modified().expect("a time");
    touch(Duration::from_secs(60));
    assert!(candidates(&lab.preview(&["--filter", "used>30d"])).is_empty(), "it was used a minute ago");
    lab.sync();
    assert!(names(&lab.json(["list", "--filter", "used>30d"])).is_empty());
    let list = lab.list();
    let said = |key: &str| model(&list, name)["storage"][key].as_str().expect("a time").to_owned();
    assert!(
        said("last_accessed") > said("last_modified"),
        "{} {}",
        said("last_accessed"),
        said("last_modified")
    );
    assert_eq!(names(&lab.json(["list", "--filter", "used<1d"])).len(), 1);
    let now = fs_err::metadata(lab.manifest_file(name)).expect("it").modified().expect("a time");
    assert_eq!(now, manifest, "the manifest is not written for that");
}

#[test]
fn an_empty_mount_point_is_no_empty_store() {
    let (lab, folder, _) = keeping();
    let _ = lab.hub.repo("acme/m").snapshot(&four_bit(1).files()).with_ref("main");
    folder.model("here", &four_bit(2).files());
    lab.sync();
    let _ = lab.run(["pin", "acme/m", "here"]).success();
    lab.sync();
    let before = lab.list();
    for root in [lab.hub.root(), folder.root()] {
        let away = root.with_extension("away");
        fs_err::rename(root, &away).expect("the volume goes");
        fs_err::create_dir(root).expect("its mount point stays");
        let registry = Frozen::of(&lab.sandbox.mlxman_home().join("manifests"));
        let out = lab.run(["sync", "--fast"]).expect_code(1);
        assert!(out.stderr.contains("store_unavailable") && out.stderr.contains("mounted"), "{out}");
        registry.assert_same(&lab.sandbox.mlxman_home().join("manifests"), "the manifests");
        let list = lab.list();
        assert_eq!(names(&list), names(&before));
        for name in names(&list) {
            assert_eq!(model(&list, &name)["storage"]["present"], true, "{name}");
            assert_eq!(model(&list, &name)["pinned"], true, "{name}");
        }
        let _ = lab.run(["stores"]).expect_code(1);
        assert!(!lab.preview(&[])["problems"].as_array().expect("problems").is_empty());
        assert_eq!(fs_err::read_dir(root).expect("it").count(), 0, "nothing is written there");
        fs_err::remove_dir(root).expect("it goes");
        fs_err::rename(&away, root).expect("the volume comes back");
        lab.sync();
    }
    assert_eq!(lab.run(["list", "--json"]).success().json()["models"], before["models"]);
    // A cache whose models were all removed is another matter, and so is one that the user says is new.
    fs_err::remove_dir_all(lab.hub.repo("acme/m").path()).expect("it goes");
    lab.sync();
    assert_eq!(model(&lab.list(), "acme/m")["storage"]["present"], false);
    fs_err::remove_dir_all(folder.path("here")).expect("it goes");
    fs_err::rename(folder.root(), folder.root().with_extension("old")).expect("it goes");
    folder.model("new", &four_bit(3).files());
    let _ = lab.run(["sync", "--fast"]).expect_code(1);
    let _ = lab.run(["sync", "--fast", "--accept-replaced"]).success();
    lab.sync();
    assert_eq!(model(&lab.list(), "new")["storage"]["present"], true);
}

#[test]
fn a_store_that_a_variable_names_is_not_forgotten() {
    let (lab, folder) = Lab::with_folder();
    let _ = lab.hub.repo("acme/m").snapshot(&four_bit(1).files()).with_ref("main");
    let away = folder.root().with_extension("away");
    fs_err::rename(folder.root(), &away).expect("it goes");
    let out = lab.run(["sync", "--fast"]).success();
    assert!(out.stderr.contains("MLX_MODELS_DIR"), "{out}");
    fs_err::rename(&away, folder.root()).expect("it comes");
    folder.model("here", &four_bit(2).files());
    lab.sync();
    fs_err::rename(folder.root(), &away).expect("it goes");
    for args in [&["sync", "--fast"][..], &["stores"], &["clean", "preview"]] {
        let out = lab.run(args).expect_code(1);
        assert!(out.stderr.contains(&folder.root().display().to_string()), "{out}");
    }
    assert_eq!(model(&lab.list(), "here")["storage"]["present"], true);
}

#[test]
fn a_pipe_for_a_manifest_holds_nobody_up() {
    let (lab, folder, dir) = keeping();
    folder.model("m", &four_bit(1).files());
    folder.model("other", &four_bit(2).files());
    let pipe = dir.join("m.manifest.json");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o644.into()).expect("a pipe");
    let start = Instant::now();
    let out = lab.run(["sync", "--fast"]).expect_code(1);
    assert!(out.stderr.contains("it is a pipe"), "{out}");
    let list = lab.run(["list", "--json"]).expect_code(1).json();
    assert_eq!(model(&list, "other")["health"]["status"], "complete");
    assert!(!candidates(&lab.preview(&["--models", "*"])).contains("m"), "what was said of it is not known");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn nothing_is_written_through_a_link() {
    // The directory of manifests is one.
    let (lab, folder) = Lab::with_folder();
    folder.model("m", &four_bit(1).files());
    let outside = lab.sandbox.root().join("outside");
    fs_err::create_dir(&outside).expect("a directory");
    symlink(&outside, folder.root().join("manifests")).expect("a link");
    let out = lab.run(["sync", "--fast"]).expect_code(1);
    assert!(out.stderr.contains("manifests_elsewhere") && out.stderr.contains("link"), "{out}");
    let _ = lab.run(["pin", "m"]).success();
    let list = lab.list();
    assert_eq!(model(&list, "m")["pinned"], true);
    assert!(loose(&list).iter().any(|(kind, _)| kind == "manifests_elsewhere"), "{list:#}");
    assert_eq!(fs_err::read_dir(&outside).expect("it").count(), 0);
    // It becomes one after a pin.
    let (lab, folder, dir) = keeping();
    folder.model("m", &four_bit(1).files());
    lab.sync();
    let _ = lab.run(["pin", "m"]).success();
    lab.sync();
    let outside = lab.sandbox.root().join("outside");
    fs_err::rename(&dir, &outside).expect("it moves");
    symlink(&outside, &dir).expect("a link");
    let frozen = Frozen::of(&outside);
    for _ in 0..2 {
        assert!(candidates(&lab.preview(&["--models", "*"])).is_empty());
        let _ = lab.run(["sync", "--fast"]).expect_code(1);
    }
    frozen.assert_same(&outside, "everything");
    assert_eq!(model(&lab.list(), "m")["pinned"], true);
    // One manifest is one.
    let (lab, folder, dir) = keeping();
    folder.model("m", &four_bit(1).files());
    let outside = lab.sandbox.root().join("outside.json");
    fs_err::write(&outside, "theirs").expect("a file");
    symlink(&outside, dir.join("m.manifest.json")).expect("a link");
    let out = lab.run(["sync", "--fast"]).expect_code(1);
    assert!(out.stderr.contains("m.manifest.json") && out.stderr.contains("it is a link"), "{out}");
    assert_eq!(fs_err::read_to_string(&outside).expect("it"), "theirs");
    assert!(dir.join("m.manifest.json").is_symlink());
    let _ = lab.run(["list", "--json"]).expect_code(1);
}

#[test]
fn a_sync_that_is_killed_while_it_hashes_has_written_what_it_knew() {
    let lab = Lab::new();
    let snapshot = lab.hub.repo("acme/m").snapshot(&four_bit(1).files()).with_ref("main");
    cut(&snapshot.blob_of("model.safetensors"), 64 << 30);
    let mut child = lab.spawn(&["sync"]);
    let start = Instant::now();
    while !lab.sandbox.mlxman_home().join("index.json").exists() {
        assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().expect("its state").is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("it is killed");
    let _ = child.wait();
    let list = lab.list();
    assert!(kinds(model(&list, "acme/m")).contains(&"trailing_bytes".to_owned()));
}

#[test]
fn one_manifest_that_cannot_be_read_hides_no_other() {
    let lab = Lab::new();
    for name in ["acme/a", "acme/b"] {
        let _ = lab.hub.repo(name).snapshot(&four_bit(1).files()).with_ref("main");
    }
    let home =
        lab.sandbox.root().join(if rustix::process::geteuid().is_root() { "nobody" } else { "mlxman" });
    assert_eq!(as_nobody(&lab, &["sync", "--fast"]).status.code(), Some(0));
    let of_a: Vec<PathBuf> = crate::lab::manifests(&home)
        .into_iter()
        .filter(|(_, manifest)| manifest["model"] == "acme/a")
        .map(|(path, _)| path)
        .collect();
    let closed = |closed: bool| {
        let mode = if closed { 0 } else { 0o644 };
        fs_err::set_permissions(&of_a[0], PermissionsExt::from_mode(mode)).expect("its mode");
    };
    closed(true);
    for args in [&["list", "--json"][..], &["sync", "--fast"], &["list", "--json"]] {
        let out = as_nobody(&lab, args);
        assert_eq!(out.status.code(), Some(1), "{args:?} {}", String::from_utf8_lossy(&out.stderr));
        if args[0] == "list" {
            let list: Value = serde_json::from_slice(&out.stdout).expect("JSON");
            assert_eq!(model(&list, "acme/b")["health"]["status"], "complete");
            let row = model(&list, "acme/a");
            assert_eq!(kinds(row), ["manifest_invalid"]);
            assert_eq!(row["adapter"]["kind"], "unknown");
            assert!(row["quantization"]["label"].is_null() && row["quantization"].get("label").is_some());
            assert!(row["storage"]["reclaimable_bytes"].is_u64() && row["key"].is_string(), "{row:#}");
        }
    }
    assert_eq!(as_nobody(&lab, &["show", "acme/a", "--json"]).status.code(), Some(1));
    closed(false);
    assert_eq!(as_nobody(&lab, &["sync", "--fast"]).status.code(), Some(0));
    assert_eq!(as_nobody(&lab, &["list"]).status.code(), Some(0));
    // Nor does one that cannot be written.
    let dir = of_a[0].parent().expect("a directory");
    let main = fs_err::read_to_string(lab.hub.repo("acme/a").path().join("refs/main")).expect("a ref");
    lab.hub.repo("acme/a").add_ref("v2", &main);
    fs_err::set_permissions(dir, PermissionsExt::from_mode(0o555)).expect("its mode");
    let out = as_nobody(&lab, &["sync", "--fast", "--json"]);
    fs_err::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("its mode");
    assert_eq!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
    let report: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let changes: Vec<&Value> =
        report["models"].as_array().expect("rows").iter().map(|row| &row["change"]).collect();
    assert_eq!(changes, ["invalid", "unchanged"]);
    assert!(report["models"][0]["why"].as_str().is_some_and(|why| why.contains("denied")), "{report:#}");
    assert_eq!(as_nobody(&lab, &["sync", "--fast"]).status.code(), Some(0), "the next one tries again");
}

#[test]
fn a_folder_that_cannot_be_written_has_its_manifests_in_the_registry() {
    let (lab, folder, dir) = keeping();
    folder.model("m", &four_bit(1).files());
    folder.model("n", &four_bit(2).files());
    let open = |open: bool| {
        let mode = if open { 0o777 } else { 0o555 };
        fs_err::set_permissions(&dir, PermissionsExt::from_mode(mode)).expect("its mode");
    };
    open(true);
    let code = |args: &[&str]| {
        let out = as_nobody(&lab, args);
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    assert_eq!(code(&["sync", "--fast"]).0, Some(0));
    assert_eq!(code(&["pin", "m"]).0, Some(0));
    open(false);
    let before = crate::lab::manifests(&dir);
    assert_eq!(code(&["pin", "n"]), (Some(0), "n: pinned: it is never a candidate for removal\n".to_owned()));
    fs_err::write(folder.path("m/extra.txt"), "x").expect("a change");
    folder.model("new", &four_bit(3).files());
    assert_eq!(code(&["sync", "--fast"]).0, Some(0));
    assert_eq!(crate::lab::manifests(&dir), before);
    let list = |what: &str| {
        let out = as_nobody(&lab, &["list", "--json"]);
        let list: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        assert_eq!(names(&list).into_iter().collect::<Vec<_>>(), ["m", "n", "new"], "{what}");
        assert_eq!(
            (&model(&list, "m")["pinned"], &model(&list, "n")["pinned"]),
            (&json!(true), &json!(true)),
            "{what}"
        );
    };
    list("while it cannot be written");
    open(true);
    list("once it can");
    assert_eq!(code(&["sync", "--fast"]).0, Some(0));
    list("and after a sync");
    assert_eq!(code(&["unpin", "n"]).0, Some(0));
    assert_eq!(code(&["sync", "--fast"]).0, Some(0));
    let out = as_nobody(&lab, &["list", "--json", "--filter", "pinned=true"]);
    let list: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(names(&list).into_iter().collect::<Vec<_>>(), ["m"], "an unpin holds as well");
}

#[test]
fn two_registries_keep_each_others_words_in_one_folder() {
    let (mut lab, folder, dir) = keeping();
    folder.model("m", &four_bit(1).files());
    let (one, two) = (lab.sandbox.root().join("one"), lab.sandbox.root().join("two"));
    for home in [&one, &two] {
        lab.sandbox.set("MLXMAN_HOME", home);
        lab.sync();
    }
    for round in 0..6 {
        fs_err::write(folder.path("m/extra.txt"), format!("{round}")).expect("a change");
        let mut children = Vec::new();
        for (home, who) in [(&one, "one"), (&two, "two")] {
            lab.sandbox.set("MLXMAN_HOME", home);
            children.push(lab.spawn(&["tag", "m", &format!("{who}{round}")]));
            children.push(lab.spawn(&["sync", "--fast"]));
        }
        for mut child in children {
            assert_eq!(child.wait().expect("it ends").code(), Some(0));
        }
    }
    let tags = read(&dir.join("m.manifest.json"))["user"]["tags"].as_array().map(Vec::len);
    assert_eq!(tags, Some(12));
    fs_err::write(dir.join(".mlxman-1-1.tmp"), "left").expect("a file");
    fs_err::write(folder.path("m/extra.txt"), "again").expect("a change");
    lab.sync();
    assert!(!dir.join(".mlxman-1-1.tmp").exists(), "what was left is swept");
}

#[test]
fn a_lost_index_is_made_again_of_all_manifests() {
    let (lab, folder, _) = keeping();
    folder.model("here", &four_bit(1).files());
    let _ = lab.hub.repo("acme/m").snapshot(&four_bit(2).files()).with_ref("main");
    lab.sync();
    let _ = lab.run(["pin", "here"]).success();
    fs_err::remove_file(lab.sandbox.mlxman_home().join("index.json")).expect("it goes");
    let list = lab.list();
    assert_eq!(names(&list).len(), 2);
    assert_eq!(model(&list, "here")["pinned"], true);
}

fn original(name: &str, path: &str) -> Value {
    json!({
        "model": name, "model_path": path, "quantization": "4bit", "tags": ["mine"], "notes": "a word",
        "adapter": {"allows_lora": true}, "storage": {"present": true, "size_bytes": 123},
        "generated_at": "2024-05-01T10:00:00.123456", "x": 1,
    })
}

#[test]
fn an_original_manifest_has_the_records_form_wherever_it_is_shown() {
    let (lab, folder, dir) = keeping();
    folder.model("here", &four_bit(1).files());
    write(&dir.join("gone.manifest.json"), &original("gone", "models/gone"));
    let check = |what: &str| {
        let list = lab.list();
        let gone = model(&list, "gone");
        assert_eq!(gone["quantization"]["label"], "4bit", "{what}");
        assert_eq!(gone["adapter"]["kind"], "none", "{what}");
        assert!(gone["store"].as_str().is_some_and(|store| store.starts_with("folder=")), "{what}: {gone:#}");
        assert_eq!((&gone["key"], &gone["x"], &gone["notes"]), (&json!("gone"), &json!(1), &json!("a word")));
        assert!(gone["health"]["status"].is_string() && gone["storage"]["reclaimable_bytes"].is_u64());
        assert!(gone["source"].is_object(), "{what}");
        crate::registry::assert_valid(&lab, "manifest", gone);
    };
    check("before any sync");
    let _ = lab.run(["tag", "gone", "more"]).success();
    check("after a word");
    write(&dir.join("gone.manifest.json"), &original("gone", "models/gone"));
    lab.sync();
    check("after a sync");
    let _ = lab.run(["pin", "gone"]).success();
    lab.sync();
    check("pinned");
    let list = lab.list();
    let gone = model(&list, "gone");
    assert_eq!((&gone["storage"]["present"], &gone["pinned"]), (&json!(false), &json!(true)));
}

#[test]
fn an_original_manifest_finds_its_directory_by_its_path_s_last_name() {
    let (lab, folder, dir) = keeping();
    let name = "flux1.schnell.4bit.mlx";
    folder.model(name, &four_bit(1).files());
    let file = dir.join("flux-schnell-4bit.manifest.json");
    write(&file, &original("flux-schnell-4bit", &format!("model_cache/{name}")));
    // A copy of it is not a second one.
    write(&dir.join("backup.manifest.json"), &original("flux-schnell-4bit", &format!("model_cache/{name}")));
    for _ in 0..2 {
        let _ = lab.run(["sync", "--fast"]).expect_code(1);
        let list = lab.list();
        assert_eq!(names(&list).into_iter().collect::<Vec<_>>(), [name]);
        assert_eq!(model(&list, name)["notes"], "a word");
        assert!(model(&list, name)["tags"].as_array().expect("tags").contains(&json!("mine")));
        assert_eq!(read(&file)["key"], name, "it keeps the name that old tools know");
    }
    fs_err::copy(&file, dir.join("copy.manifest.json")).expect("a copy");
    fs_err::remove_file(dir.join("backup.manifest.json")).expect("it goes");
    let out = lab.run(["sync", "--fast"]).expect_code(1);
    assert!(out.stderr.contains("copy.manifest.json"), "{out}");
}

#[test]
fn names_and_paths_do_not_steer_the_terminal() {
    let (lab, folder) = Lab::with_folder();
    let name = "a\u{1b}[2Jb\u{202e}c";
    folder.model(name, &four_bit(1).files());
    folder.model("two\nlines", &four_bit(2).files());
    for args in [
        &["sync", "--fast"][..],
        &["list"],
        &["show", name],
        &["clean", "preview", "--models", "*"],
        &["path", "no\u{1b}c"],
    ] {
        let out = lab.run(args);
        let steers = |text: &str| text.contains(['\u{1b}', '\u{202e}']) || text.contains("two\nlines");
        assert!(!steers(&out.stdout) && !steers(&out.stderr), "{args:?}\n{out}");
    }
    let out = lab.run(["path", "two\nlines"]).expect_code(3);
    assert!(out.stdout.is_empty(), "{out}");
    let path = lab.json(["path", "two\nlines"])["path"].as_str().expect("a path").to_owned();
    assert_eq!(PathBuf::from(path), folder.path("two\nlines"));
}

#[test]
fn a_model_is_found_in_the_store_that_it_was_synced_from() {
    let lab = Lab::new();
    let other = FolderStore::create(lab.sandbox.root().join("other"));
    let path = other.model("m", &four_bit(1).files());
    let _ = lab.run(["sync", "--fast", "--store", &format!("folder={}", other.root().display())]).success();
    assert_eq!(lab.run(["path", "m"]).success().stdout.trim(), path.to_string_lossy());
}

#[test]
fn what_a_filter_cannot_know_is_told() {
    let lab = Lab::new();
    for number in 0..3 {
        let repo = lab.hub.repo(&format!("acme/m{number}"));
        let _ = repo.snapshot(&four_bit(number).files()).with_ref("main");
    }
    lab.sync();
    let out = lab.run(["list", "--filter", "fused=false"]).success();
    assert!(out.stderr.contains("3 models left out") && out.stderr.contains("fused=unknown"), "{out}");
    assert_eq!(names(&lab.json(["list", "--filter", "fused=unknown"])).len(), 3);
    let out = lab.run(["list", "--filter", "fused=false", "--filter", "arch=none"]);
    assert!(!out.stderr.contains("left out"), "{out}");
}

#[test]
fn a_total_counts_what_models_share_once() {
    let lab = Lab::new();
    let files = four_bit(1).files();
    let _ = lab.hub.repo("acme/m").snapshot(&files);
    let mut more = files;
    more.push(("more.txt".to_owned(), b"x".to_vec()));
    let _ = lab.hub.repo("acme/m").snapshot(&more).with_ref("main");
    lab.sync();
    let list = lab.list();
    let disk = crate::lab::du(lab.hub.root());
    assert_eq!(list["totals"]["allocated_bytes"], disk);
    let out = lab.run(["list"]).success();
    assert!(out.stderr.contains("their stores take"), "{out}");
    let out = lab.run(["list", "--models", "acme/*"]).success();
    assert!(out.stderr.contains("up to"), "{out}");
}
