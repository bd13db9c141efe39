//! The registry: names, what survives, and what several or killed syncs leave.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Frozen, Lab, assert_json, candidates, four_bit, kinds, manifests, model, names, settled};

fn filled(models: u64) -> Lab {
    let lab = Lab::new();
    for number in 0..models {
        let repo = lab.hub.repo(&format!("acme/m{number:02}-4bit"));
        let _ = repo.snapshot(&four_bit(number).files()).with_ref("main");
    }
    lab
}

/// The manifests by file name, without what each observation changes.
fn settled_files(lab: &Lab) -> BTreeMap<PathBuf, Value> {
    let home = lab.sandbox.mlxman_home();
    lab.manifests()
        .into_iter()
        .map(|(path, value)| (path.strip_prefix(&home).expect("below").to_owned(), settled(&value)))
        .collect()
}

#[track_caller]
fn assert_settled(now: &BTreeMap<PathBuf, Value>, before: &BTreeMap<PathBuf, Value>) {
    assert_eq!(now.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (path, value) in now {
        assert_json(value, &before[path], &path.display().to_string());
    }
}

fn validator(lab: &Lab, name: &str) -> jsonschema::Validator {
    let schema = lab.run(["schema", name]).success().json();
    jsonschema::validator_for(&schema).expect("a schema")
}

#[track_caller]
pub(crate) fn assert_valid(lab: &Lab, name: &str, value: &Value) {
    let errors: Vec<String> = validator(lab, name)
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "not a valid {name}: {errors:#?}");
}

#[track_caller]
fn assert_all_valid(lab: &Lab) {
    let validator = validator(lab, "manifest");
    for (path, value) in lab.manifests() {
        assert!(validator.is_valid(&value), "{}", path.display());
    }
    // Nothing half-written is left beside them.
    for entry in walkdir::WalkDir::new(lab.sandbox.mlxman_home()) {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(!name.contains("tmp") && !name.starts_with('.'), "{} is left", entry.path().display());
    }
}

#[test]
fn names_are_the_same_on_every_machine_and_never_collide() {
    let lab = filled(2);
    for repo in ["acme/a-b", "acme/a_b", "acme/a.b", "Acme/a-b", "acmea/b", "gpt2"] {
        let _ = lab.hub.repo(repo).snapshot(&four_bit(1).files()).with_ref("main");
    }
    lab.sync();
    let files: Vec<PathBuf> = lab.manifests().into_keys().collect();
    assert_eq!(files.len(), 8);
    let lower: std::collections::BTreeSet<String> =
        files.iter().map(|path| path.to_string_lossy().to_lowercase()).collect();
    assert_eq!(lower.len(), 8, "some filesystems don't tell case apart: {files:?}");
    let before = settled_files(&lab);
    fs_err::remove_dir_all(lab.sandbox.mlxman_home()).expect("the registry goes");
    lab.sync();
    assert_settled(&settled_files(&lab), &before);
    assert_all_valid(&lab);
}

#[test]
fn a_second_sync_writes_nothing() {
    for args in [&["sync", "--fast"][..], &["sync"]] {
        let lab = filled(3);
        let _ = lab.run(args).success();
        let home = lab.sandbox.mlxman_home();
        let before = Frozen::of(&home);
        std::thread::sleep(Duration::from_millis(20));
        let _ = lab.run(args).success();
        let changed: Vec<PathBuf> = written_since(&home, &before);
        assert!(changed.is_empty(), "{args:?} wrote {changed:?}");
    }
}

/// Files whose contents were written, or that were put in place of another.
fn written_since(home: &Path, before: &Frozen) -> Vec<PathBuf> {
    let (now, before) = (Frozen::of(home), before.clone());
    now.differing(&before)
}

#[test]
fn a_dry_run_writes_nothing_at_all() {
    let lab = filled(2);
    let root = lab.sandbox.root().to_owned();
    let before = Frozen::of(&root);
    let out = lab.run(["sync", "--fast", "--dry-run"]).success();
    before.assert_same(&root, "sync --dry-run in an empty registry");
    assert!(format!("{}{}", out.stdout, out.stderr).contains("acme/m00-4bit"), "{out}");
    lab.sync();
    let _ = lab.hub.repo("acme/new").snapshot(&four_bit(9).files()).with_ref("main");
    let before = Frozen::of(&root);
    let json = lab.json(["sync", "--dry-run", "--notes", "hello", "acme/m00-4bit"]);
    let _ = lab.run(["sync", "--dry-run", "acme/m00-4bit", "--override", "variant=x"]).success();
    assert_eq!(written_since(&root, &before), [""; 0].map(PathBuf::from));
    assert!(json.is_object(), "{json}");
    assert!(!names(&lab.list()).contains("acme/new"));
}

#[test]
fn eight_syncs_at_once() {
    for _ in 0..3 {
        let lab = filled(12);
        let mut children: Vec<_> = (0..8)
            .map(|number| lab.spawn(if number % 2 == 0 { &["sync", "--fast"] } else { &["sync"] }))
            .collect();
        for child in &mut children {
            assert_eq!(child.wait().expect("it ends").code(), Some(0));
        }
        assert_all_valid(&lab);
        let list = lab.run(["list", "--json"]).success().json();
        assert_eq!(names(&list).len(), 12);
        let raced = settled_files(&lab);
        assert_eq!(raced.len(), 12);
        // Another go in peace finds all hashes known.
        let _ = lab.run(["sync"]).success();
        let peace = settled_files(&lab);
        fs_err::remove_dir_all(lab.sandbox.mlxman_home()).expect("the registry goes");
        let _ = lab.run(["sync"]).success();
        assert_settled(&settled_files(&lab), &peace);
        assert_eq!(raced.keys().collect::<Vec<_>>(), peace.keys().collect::<Vec<_>>());
    }
}

#[test]
fn two_syncs_and_a_users_words_at_once() {
    let lab = filled(6);
    lab.sync();
    for round in 0..10 {
        // Something changes, so that the syncs have to write.
        let repo = lab.hub.repo("acme/m00-4bit");
        repo.add_ref(
            &format!("r{round}"),
            &fs_err::read_to_string(repo.path().join("refs/main")).expect("a ref"),
        );
        let tag = format!("round{round}");
        let mut children = [
            lab.spawn(&["sync", "--fast"]),
            lab.spawn(&["tag", "acme/m00-4bit", &tag]),
            lab.spawn(&["sync"]),
            lab.spawn(&["note", "acme/m01-4bit", &tag]),
            lab.spawn(&["pin", "acme/m02-4bit"]),
        ];
        for child in &mut children {
            assert_eq!(child.wait().expect("it ends").code(), Some(0), "{child:?}");
        }
    }
    let list = lab.list();
    let tags = model(&list, "acme/m00-4bit")["tags"].to_string();
    for round in 0..10 {
        assert!(tags.contains(&format!("\"round{round}\"")), "{tags}");
    }
    assert_eq!(model(&list, "acme/m01-4bit")["notes"], "round9");
    assert_eq!(model(&list, "acme/m02-4bit")["pinned"], true);
    assert_all_valid(&lab);
}

#[test]
fn syncs_that_are_killed() {
    let lab = filled(16);
    let start = std::time::Instant::now();
    let _ = lab.run(["sync"]).success();
    let whole = start.elapsed();
    let undisturbed = settled_files(&lab);
    fs_err::remove_dir_all(lab.sandbox.mlxman_home()).expect("the registry goes");
    fs_err::create_dir_all(lab.sandbox.mlxman_home()).expect("a directory");
    for round in 0..60_u32 {
        let args: &[&str] = if round % 2 == 0 { &["sync"] } else { &["sync", "--fast"] };
        let mut child = lab.spawn(args);
        // From before it begins until after it ends.
        std::thread::sleep(whole.mul_f64(f64::from(round * 7 % 40) / 30.0));
        let _ = child.kill();
        let _ = child.wait().expect("it ends");
        if round == 30 {
            for name in ["index.json", "hashes.json"] {
                let _ = fs_err::remove_file(lab.sandbox.mlxman_home().join(name));
            }
        }
        // Whatever moment it was: what is there is whole.
        let _ = manifests(&lab.sandbox.mlxman_home());
    }
    let _ = lab.run(["sync"]).success();
    assert_settled(&settled_files(&lab), &undisturbed);
    assert_eq!(names(&lab.run(["list", "--json"]).success().json()).len(), 16);
    assert_all_valid(&lab);
}

#[test]
fn an_index_that_is_lost_or_garbage_is_made_again() {
    let garbage: [Option<&[u8]>; 6] =
        [None, Some(b""), Some(b"{"), Some(b"garbage\0\xff"), Some(b"[]"), Some(b"{}")];
    for bytes in garbage {
        let lab = filled(3);
        lab.sync();
        let _ = lab.run(["tag", "acme/m00-4bit", "mine"]).success();
        let _ = lab.run(["note", "acme/m00-4bit", "keep this"]).success();
        let _ = lab.run(["pin", "acme/m01-4bit"]).success();
        let before = lab.list();
        let index = lab.sandbox.mlxman_home().join("index.json");
        match bytes {
            None => fs_err::remove_file(&index).expect("it goes"),
            Some(bytes) => fs_err::write(&index, bytes).expect("it is written"),
        }
        let listed = lab.run(["list", "--json"]).success().json();
        assert_eq!(names(&listed), names(&before), "before a sync, after {bytes:?}");
        lab.sync();
        let after = lab.list();
        for name in names(&before) {
            assert_json(&settled(model(&after, &name)), &settled(model(&before, &name)), &name);
        }
        assert_eq!(model(&after, "acme/m00-4bit")["notes"], "keep this");
        assert_eq!(model(&after, "acme/m01-4bit")["pinned"], true);
    }
}

#[test]
fn an_index_cut_in_the_middle() {
    let lab = filled(3);
    lab.sync();
    let _ = lab.run(["tag", "acme/m00-4bit", "mine"]).success();
    let index = lab.sandbox.mlxman_home().join("index.json");
    let bytes = fs_err::read(&index).expect("an index");
    for keep in [1, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        fs_err::write(&index, &bytes[..keep]).expect("it is cut");
        lab.sync();
        let list = lab.list();
        assert_eq!(names(&list).len(), 3);
        assert!(model(&list, "acme/m00-4bit")["tags"].to_string().contains("\"mine\""));
    }
}

#[test]
fn a_model_that_is_gone_and_comes_back() {
    let lab = filled(2);
    lab.sync();
    let _ = lab.run(["tag", "acme/m00-4bit", "mine", "best"]).success();
    let _ = lab.run(["note", "acme/m00-4bit", "from the summer"]).success();
    let _ = lab.run(["pin", "acme/m00-4bit"]).success();
    let path = lab.hub.repo("acme/m00-4bit").path();
    let away = lab.sandbox.root().join("away");
    fs_err::rename(&path, &away).expect("it goes");
    for args in [&["sync", "--fast"][..], &["sync"]] {
        let _ = lab.run(args);
        let list = lab.list();
        let gone = model(&list, "acme/m00-4bit");
        assert_eq!(gone["storage"]["present"], false);
        assert_eq!(gone["notes"], "from the summer");
        assert_eq!(gone["pinned"], true);
        assert!(gone["tags"].to_string().contains("\"mine\""));
        assert_eq!(model(&list, "acme/m01-4bit")["storage"]["present"], true);
    }
    let missing = lab.json(["list", "--missing-only"]);
    assert_eq!(names(&missing).into_iter().collect::<Vec<_>>(), ["acme/m00-4bit"]);
    assert!(!candidates(&lab.preview(&["--models", "*"])).contains("acme/m00-4bit"), "it is pinned");
    let _ = lab.run(["path", "acme/m00-4bit"]).expect_code(2);
    // And the user can speak of it while it is away.
    let _ = lab.run(["tag", "acme/m00-4bit", "away"]).success();
    fs_err::rename(&away, &path).expect("it comes back");
    lab.sync();
    let list = lab.list();
    let back = model(&list, "acme/m00-4bit");
    assert_eq!(back["storage"]["present"], true);
    assert_eq!(back["notes"], "from the summer");
    assert_eq!(back["pinned"], true);
    for tag in ["mine", "best", "away"] {
        assert!(back["tags"].to_string().contains(&format!("\"{tag}\"")), "{}", back["tags"]);
    }
    assert_eq!(lab.manifests().len(), 2);
}

#[test]
fn a_store_that_is_away_is_not_a_store_whose_models_are_gone() {
    let (lab, folder) = Lab::with_folder();
    folder.model("here", &four_bit(1).files());
    let _ = lab.hub.repo("acme/other").snapshot(&four_bit(2).files()).with_ref("main");
    lab.sync();
    let away = lab.sandbox.root().join("ejected");
    fs_err::rename(folder.root(), &away).expect("the drive goes");
    let _ = lab.run(["sync", "--fast"]);
    let list = lab.list();
    assert_eq!(model(&list, "here")["storage"]["present"], true, "nobody looked");
    assert_eq!(model(&list, "acme/other")["storage"]["present"], true);
}

#[test]
fn an_invalid_manifest_is_told_and_left_as_it_is() {
    for (content, words) in [
        (None, &["JSON"][..]),
        (Some(("/health/status", json!("splendid"))), &["health", "status"]),
        (Some(("/storage/size_bytes", json!(-1))), &["storage", "size_bytes"]),
        (Some(("/quantization/bits", json!("four"))), &["quantization", "bits"]),
        (Some(("/pinned", json!("yes"))), &["pinned"]),
    ] {
        let lab = filled(3);
        lab.sync();
        let name = "acme/m01-4bit";
        let _ = lab.run(["tag", name, "mine"]).success();
        let file = lab.manifest_file(name);
        let bad = match &content {
            None => "{ this is no JSON".to_owned(),
            Some((pointer, value)) => {
                let mut document: Value =
                    serde_json::from_slice(&fs_err::read(&file).expect("it")).expect("JSON");
                match document.pointer_mut(pointer) {
                    Some(place) => *place = value.clone(),
                    None => document[&pointer[1..]] = value.clone(),
                }
                serde_json::to_string_pretty(&document).expect("JSON")
            }
        };
        fs_err::write(&file, &bad).expect("it is written");
        for args in [&["sync", "--fast"][..], &["sync"], &["list"], &["list", "--json"]] {
            let out = lab.run(args).expect_code(1);
            assert_eq!(fs_err::read_to_string(&file).expect("it is there"), bad, "{args:?} touched it");
            assert!(!out.stderr.contains("panicked"), "{out}");
        }
        let list = lab.run(["list", "--json"]).expect_code(1).json();
        let text = list.to_string();
        assert!(text.contains("manifest_invalid"), "{list:#}");
        let file_name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let sync = lab.run(["sync", "--fast"]).expect_code(1);
        let said = format!("{}{}", sync.stdout, sync.stderr);
        assert!(said.contains(&file_name), "the file is named: {sync}");
        for word in words {
            assert!(said.contains(word), "`{word}` is said: {sync}");
        }
        for other in ["acme/m00-4bit", "acme/m02-4bit"] {
            assert_eq!(model(&list, other)["health"]["status"], "complete");
        }
        for args in [&[][..], &["--models", "*"], &["--quantization", "4bit"]] {
            let plan = lab.run(["clean", "preview", "--json"].iter().chain(args)).json();
            assert!(!candidates(&plan).contains(name), "{args:?}: {plan:#}");
        }
        // What the user would say of it now would be lost or would overwrite it.
        let out = lab.run(["tag", name, "more"]);
        assert_ne!(out.code(), 0, "{out}");
        assert_eq!(fs_err::read_to_string(&file).expect("it is there"), bad);
        // Once it is mended all is well.
        fs_err::remove_file(&file).expect("it goes");
        lab.sync();
        assert!(kinds(model(&lab.list(), name)).is_empty());
    }
}

#[test]
fn a_newer_schema_version_is_left_alone() {
    let lab = filled(1);
    lab.sync();
    let file = lab.manifest_file("acme/m00-4bit");
    let mut document: Value = serde_json::from_slice(&fs_err::read(&file).expect("it")).expect("JSON");
    document["schema_version"] = json!(2);
    let text = serde_json::to_string_pretty(&document).expect("JSON");
    fs_err::write(&file, &text).expect("it is written");
    let _ = lab.run(["sync", "--fast"]).expect_code(1);
    assert_eq!(fs_err::read_to_string(&file).expect("it is there"), text);
}

#[test]
fn unknown_fields_survive() {
    let lab = filled(1);
    lab.sync();
    let name = "acme/m00-4bit";
    let file = lab.manifest_file(name);
    let mut document: Value = serde_json::from_slice(&fs_err::read(&file).expect("it")).expect("JSON");
    document["x_mine"] = json!({"deep": [1, 2, {"three": null}], "big": 12345678901234567890_u64});
    document["storage"]["x_disk"] = json!("blue");
    document["quantization"]["x_why"] = json!(1.5);
    document["source"]["x_from"] = json!(["a"]);
    document["adapter"]["x_a"] = json!(true);
    fs_err::write(&file, serde_json::to_string(&document).expect("JSON")).expect("it is written");
    // Each of these writes the manifest.
    let _ = lab.run(["tag", name, "mine"]).success();
    let repo = lab.hub.repo(name);
    repo.add_ref("v2", &fs_err::read_to_string(repo.path().join("refs/main")).expect("a ref"));
    let _ = lab.run(["sync"]).success();
    let _ = lab.run(["note", name, "hello"]).success();
    let now: Value = serde_json::from_slice(&fs_err::read(&file).expect("it")).expect("JSON");
    assert_eq!(now["source"]["refs"], json!(["main", "v2"]));
    for pointer in ["/x_mine", "/storage/x_disk", "/quantization/x_why", "/source/x_from", "/adapter/x_a"] {
        assert_eq!(now.pointer(pointer), document.pointer(pointer), "{pointer}");
    }
    assert_eq!(model(&lab.list(), name)["x_mine"], document["x_mine"]);
}

#[test]
fn an_override_sticks() {
    let lab = filled(2);
    lab.sync();
    let name = "acme/m00-4bit";
    let _ = lab
        .run([
            "sync",
            "--fast",
            name,
            "--override",
            "quantization.label=8bit",
            "--override",
            "adapter.allows_lora=true",
        ])
        .success();
    let repo = lab.hub.repo(name);
    for args in [&["sync", "--fast"][..], &["sync"]] {
        repo.add_ref(
            args.last().expect("a word"),
            &fs_err::read_to_string(repo.path().join("refs/main")).expect("a ref"),
        );
        let _ = lab.run(args).success();
        let list = lab.list();
        assert_eq!(model(&list, name)["quantization"]["label"], "8bit");
        assert_eq!(model(&list, name)["adapter"]["allows_lora"], true);
        assert_eq!(model(&list, "acme/m01-4bit")["quantization"]["label"], "4bit");
        assert_eq!(names(&lab.json(["list", "--quantization", "8bit"])).len(), 1);
    }
    assert_all_valid(&lab);
    for bad in [
        "",
        "=x",
        "quantization.label",
        "quantization.bits=four",
        "no.such.field=1",
        "health.status=splendid",
        "a..b=1",
    ] {
        let before = Frozen::of(&lab.sandbox.mlxman_home());
        let _ = lab.run(["sync", "--fast", name, "--override", bad]).expect_code(2);
        let changed = written_since(&lab.sandbox.mlxman_home(), &before);
        assert!(changed.is_empty(), "`{bad}` wrote {changed:?}");
    }
    let _ = lab.run(["sync", "--fast", "--override", "variant=x"]).expect_code(2);
    let _ = lab.run(["sync", "--fast", "acme/nobody", "--override", "variant=x"]).expect_code(2);
}

#[test]
fn notes_of_sync() {
    let lab = filled(2);
    let _ = lab.run(["sync", "--fast", "acme/m00-4bit", "--notes", "two words"]).success();
    lab.sync();
    let list = lab.list();
    assert_eq!(model(&list, "acme/m00-4bit")["notes"], "two words");
    assert!(model(&list, "acme/m01-4bit")["notes"].is_null());
}

fn hashes(model: &Value) -> BTreeMap<String, Option<String>> {
    model["storage"]["files"]
        .as_array()
        .expect("files")
        .iter()
        .map(|file| {
            let path = file["path"].as_str().expect("a path").to_owned();
            (path, file["blake3"].as_str().map(str::to_owned))
        })
        .collect()
}

#[test]
fn a_full_sync_hashes_and_a_fast_one_keeps() {
    let lab = Lab::new();
    let snapshot = lab.hub.repo("acme/m").snapshot(&four_bit(1).shards(2).files()).with_ref("main");
    lab.sync();
    assert!(hashes(model(&lab.list(), "acme/m")).values().all(Option::is_none), "--fast hashes nothing");
    let _ = lab.run(["sync"]).success();
    let list = lab.list();
    let found = hashes(model(&list, "acme/m"));
    for (path, hash) in &found {
        if path.ends_with(".safetensors") {
            let bytes = fs_err::read(snapshot.path().join(path)).expect("the weights");
            assert_eq!(hash.as_deref(), Some(blake3::hash(&bytes).to_hex().as_str()), "{path}");
        }
    }
    assert_eq!(found.keys().filter(|path| path.ends_with(".safetensors")).count(), 2);
    lab.sync();
    assert_eq!(hashes(model(&lab.list(), "acme/m")), found);
    // Hashing is no use of a model.
    for shard in found.keys() {
        let meta = snapshot.path().join(shard).metadata().expect("it is there");
        assert!(meta.atime() <= meta.mtime() + 1, "{shard}");
    }
}

#[test]
fn a_changed_weight_is_hashed_again_and_no_other() {
    let (lab, folder) = Lab::with_folder();
    let path = folder.model("m", &four_bit(1).shards(2).files());
    let _ = lab.run(["sync"]).success();
    let before = hashes(model(&lab.list(), "m"));
    let shard = path.join("model-00001-of-00002.safetensors");
    let mut bytes = fs_err::read(&shard).expect("the weights");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&shard, &bytes).expect("they change");
    // A fast sync can't know the new hash, and the old one is no longer true.
    lab.sync();
    let fast = hashes(model(&lab.list(), "m"));
    assert_eq!(fast["model-00001-of-00002.safetensors"], None);
    assert_eq!(fast["model-00002-of-00002.safetensors"], before["model-00002-of-00002.safetensors"]);
    let out = lab.json(["sync"]);
    let after = hashes(model(&lab.list(), "m"));
    assert_eq!(
        after["model-00001-of-00002.safetensors"].as_deref(),
        Some(blake3::hash(&bytes).to_hex().as_str())
    );
    assert_eq!(after["model-00002-of-00002.safetensors"], before["model-00002-of-00002.safetensors"]);
    let text = out.to_string();
    assert!(text.contains("\"hashed") || text.contains("hashed_bytes"), "what was hashed is told: {text}");
    let hashed = out["hashed_bytes"].as_u64().or(out["hashed"]["bytes"].as_u64());
    assert_eq!(hashed, Some(bytes.len() as u64), "{out:#}");
}
