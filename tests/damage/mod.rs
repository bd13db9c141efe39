//! Damage of every kind: a row with a problem, exit status 1, and everything else as it was.

mod contents;
mod outside;
mod unreadable;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mlxman_testkit::{
    Files, HubStore, ModelSpec, Quant, Repo, Snapshot, gguf_model, sha256_hex, text, write_files,
};
use serde_json::{Value, json};

use crate::lab::{
    BIN, DAY, Frozen, Lab, assert_json, candidates, cut, four_bit, kinds, loose, model, names, old,
    old_below, overwrite, settled,
};

use outside::secret;
pub(crate) use unreadable::as_nobody;

const WELL: [&str; 2] = ["acme/well-4bit", "acme/well-8bit"];
const BROKEN: &str = "acme/broken-4bit";

/// A hub cache with two good models, seen once before the damage is done.
struct Ward {
    lab: Lab,
    before: Vec<Value>,
}

impl Ward {
    fn new() -> Self {
        Self::with(Lab::new())
    }

    fn shared() -> Self {
        let mut lab = Lab::new();
        lab.hub = lab.hub.shared();
        Self::with(lab)
    }

    fn with(lab: Lab) -> Self {
        let _ = lab.hub.repo(WELL[0]).snapshot(&four_bit(1).files()).with_ref("main");
        let eight = ModelSpec::llama().quant(Quant::Affine { bits: 8, group: 64 }).seed(2);
        let _ = lab.hub.repo(WELL[1]).snapshot(&eight.files()).with_ref("main");
        old_below(lab.hub.root(), 90 * DAY);
        lab.sync();
        let list = lab.list();
        let before = WELL.iter().map(|name| settled(model(&list, name))).collect();
        Self { lab, before }
    }

    fn hub(&self) -> &HubStore {
        &self.lab.hub
    }

    fn repo(&self) -> Repo {
        self.hub().repo(BROKEN)
    }

    /// Makes all that came since the good models as old as they are, so that no grace period holds it.
    fn age(&self) {
        for entry in fs_err::read_dir(self.hub().root()).expect("the cache") {
            let path = entry.expect("an entry").path();
            let well = WELL.iter().any(|name| path.ends_with(self.hub().repo(name).folder()));
            if !well && !path.is_symlink() && !path.ends_with("blobs") {
                old_below(&path, 90 * DAY);
            }
        }
    }

    fn broken(&self) -> Snapshot {
        self.broken_of(&four_bit(3).files())
    }

    fn broken_of(&self, files: &[(String, Vec<u8>)]) -> Snapshot {
        self.repo().snapshot(files).with_ref("main")
    }

    /// Runs every command that reads, and checks all that holds for any damage: exit status 1, the good models as
    /// before, and not a thing changed in the store. Returns what `list --json` says.
    #[track_caller]
    fn check(&self) -> Value {
        let root = self.hub().root();
        let frozen = Frozen::of(root);
        let sync = self.lab.run(["sync", "--fast"]).expect_code(1);
        frozen.assert_same(root, "sync --fast");
        assert!(!sync.stderr.contains("panicked"), "{sync}");
        let listed = self.lab.run(["list", "--json"]).expect_code(1);
        let list = listed.json();
        for (name, before) in WELL.iter().zip(&self.before) {
            let now = model(&list, name);
            assert_eq!(now["health"]["status"], "complete", "{name}");
            assert_json(&settled(now), before, name);
        }
        let _ = self.lab.run(["sync"]).expect_code(1);
        frozen.assert_same(root, "sync");
        let table = self.lab.run(["list"]).expect_code(1);
        for name in WELL {
            assert!(table.stdout.contains(name), "{table}");
        }
        for name in names(&list) {
            let out = self.lab.run(["show", &name]);
            assert!(matches!(out.code(), 0 | 1), "{out}");
        }
        for name in WELL {
            let _ = self.lab.run(["path", name]).success();
        }
        let plan = self.lab.preview(&[]);
        for name in WELL {
            assert!(!candidates(&plan).contains(name), "{name} should stay: {plan:#}");
        }
        let _ = self.lab.run(["stores"]);
        frozen.assert_same(root, "list, show, path, preview, stores");
        list
    }

    /// The same, and the broken model's row has this problem, told in the table too.
    #[track_caller]
    fn check_model(&self, kind: &str, status: &str) -> Value {
        let list = self.check();
        let broken = model(&list, BROKEN).clone();
        assert!(kinds(&broken).iter().any(|found| found == kind), "{kind} is not in {:?}", broken["health"]);
        assert_eq!(broken["health"]["status"], status, "{:?}", broken["health"]);
        let problem = broken["health"]["problems"]
            .as_array()
            .expect("problems")
            .iter()
            .find(|problem| problem["kind"] == kind)
            .expect("it is there")
            .clone();
        assert!(problem["message"].as_str().is_some_and(|message| message.len() > 10), "{problem}");
        let table = self.lab.run(["list"]);
        let row = table.stdout.lines().find(|line| line.contains(BROKEN)).expect("a row");
        assert!(row.contains(status), "{row}");
        let out = self.lab.run(["show", BROKEN]).expect_code(1);
        assert!(
            out.stdout.contains(kind) || out.stdout.contains(problem["message"].as_str().expect("text")),
            "{out}"
        );
        broken
    }
}

/// `problems[]` or a model's row: wherever this kind is.
fn anywhere(list: &Value, kind: &str) -> Vec<String> {
    let mut out: Vec<String> =
        loose(list).into_iter().filter(|(found, _)| found == kind).map(|(_, path)| path).collect();
    for model in list["models"].as_array().expect("models") {
        if kinds(model).iter().any(|found| found == kind) {
            out.push(model["model"].as_str().expect("a name").to_owned());
        }
    }
    out
}

fn weights(snapshot: &Snapshot) -> PathBuf {
    snapshot.blob_of("model.safetensors")
}

/// A safetensors file with this header, and `data` bytes after it.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.resize(out.len() + data, 0);
    out
}

fn replace(files: &mut Files, name: &str, bytes: impl Into<Vec<u8>>) {
    let bytes = bytes.into();
    match files.iter_mut().find(|(path, _)| path == name) {
        Some((_, old)) => *old = bytes,
        None => files.push((name.to_owned(), bytes)),
    }
}

#[test]
fn nothing_wrong_is_exit_0() {
    let ward = Ward::new();
    let _ = ward.broken();
    let _ = ward.lab.run(["sync", "--fast"]).success();
    let list = ward.lab.run(["list", "--json"]).success().json();
    assert_eq!(list["problems"].as_array().expect("problems").len(), 0, "{}", list["problems"]);
    assert_eq!(model(&list, BROKEN)["health"]["status"], "complete");
}

#[test]
fn a_dangling_link() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    fs_err::remove_file(weights(&snapshot)).expect("the blob goes");
    let broken = ward.check_model("dangling_link", "damaged");
    let problem = &broken["health"]["problems"][0];
    assert_eq!(problem["path"], "model.safetensors");
}

#[test]
fn a_dangling_link_of_a_file_that_is_no_weight() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    fs_err::remove_file(snapshot.blob_of("tokenizer.json")).expect("the blob goes");
    let _ = ward.check_model("dangling_link", "damaged");
}

#[test]
fn truncated_weights() {
    let ward = Ward::new();
    let blob = weights(&ward.broken());
    cut(&blob, blob.metadata().expect("the blob").len() - 1);
    let _ = ward.check_model("truncated_weights", "damaged");
}

#[test]
fn truncated_weights_without_a_listing_of_the_repo() {
    let ward = Ward::new();
    let hub = ward.hub().clone().without_trees();
    let blob = weights(&hub.repo(BROKEN).snapshot(&four_bit(3).files()).with_ref("main"));
    cut(&blob, blob.metadata().expect("the blob").len() / 2);
    let _ = ward.check_model("truncated_weights", "damaged");
}

#[test]
fn weights_cut_within_the_header() {
    for length in [0, 4, 8, 100] {
        let ward = Ward::new();
        cut(&weights(&ward.broken()), length);
        let list = ward.check();
        assert_eq!(model(&list, BROKEN)["health"]["status"], "damaged", "cut to {length}");
    }
}

#[test]
fn a_missing_shard() {
    let ward = Ward::new();
    let files = four_bit(3).shards(3).files();
    let snapshot = ward.broken_of(&files);
    let shard = "model-00002-of-00003.safetensors";
    fs_err::remove_file(snapshot.path().join(shard)).expect("the link goes");
    let broken = ward.check_model("missing_shard", "incomplete");
    let problem = broken["health"]["problems"]
        .as_array()
        .expect("problems")
        .iter()
        .find(|problem| problem["kind"] == "missing_shard")
        .expect("it is there");
    assert!(problem.to_string().contains(shard), "{problem}");
}

#[test]
fn an_empty_snapshot() {
    let ward = Ward::new();
    let snapshot = ward.repo().snapshot_at(&"ab".repeat(20), &Files::new()).with_ref("main");
    assert!(snapshot.path().exists());
    let list = ward.check();
    assert!(!anywhere(&list, "empty_snapshot").is_empty(), "{list:#}");
    let whole = names(&list).into_iter().filter(|name| model(&list, name)["health"]["status"] == "complete");
    assert_eq!(whole.collect::<Vec<_>>(), WELL);
}

#[test]
fn a_ref_to_nowhere_beside_a_good_snapshot() {
    let ward = Ward::new();
    let _ = ward.broken();
    ward.repo().add_ref("v2", &"cd".repeat(20));
    let list = ward.check();
    assert_eq!(anywhere(&list, "ref_to_nowhere").len(), 1, "{list:#}");
    let broken = model(&list, BROKEN);
    assert_eq!(broken["source"]["refs"], json!(["main"]));
    assert_eq!(broken["health"]["status"], "complete");
}

#[test]
fn a_ref_to_nowhere_alone_makes_the_repo_broken() {
    let ward = Ward::new();
    ward.repo().add_ref("main", &"cd".repeat(20));
    let list = ward.check();
    let found: Vec<String> = loose(&list).into_iter().map(|(_, path)| path).collect();
    assert!(found.iter().any(|path| path.contains("models--acme--broken-4bit")), "{found:?}");
    assert_eq!(names(&list).len(), 2);
}

#[test]
fn a_ref_with_a_newline() {
    let ward = Ward::new();
    let commit = ward.broken().commit;
    ward.repo().add_ref("main", &format!("{commit}\n"));
    ward.age();
    let list = ward.check();
    let found = anywhere(&list, "ref_newline");
    assert_eq!(found.len(), 1, "{list:#}");
    assert!(found[0].contains("broken-4bit"), "{found:?}");
    // Somebody asked for it by that name, so it is not safe to go.
    let broken = list["models"].as_array().expect("models").iter();
    let broken: Vec<&Value> = broken.filter(|model| model["source"]["repo_id"] == BROKEN).collect();
    assert_eq!(broken.len(), 1);
    let plan = ward.lab.preview(&[]);
    assert!(candidates(&plan).is_empty(), "{:?}", candidates(&plan));
}

#[test]
fn a_ref_that_is_no_revision() {
    let ward = Ward::new();
    let _ = ward.broken();
    ward.repo().add_ref("odd", "what is this?");
    ward.repo().add_ref("up", "../../../../etc/passwd");
    let list = ward.check();
    assert_eq!(anywhere(&list, "ref_invalid").len(), 2, "{list:#}");
    assert_eq!(model(&list, BROKEN)["health"]["status"], "complete");
}

#[test]
fn a_partial_download_that_died() {
    let ward = Ward::new();
    let _ = ward.broken();
    let partial = ward.repo().partial(&sha256_hex(b"never came"), "5f3a9c01", &[7; 70_000]);
    old(&partial, 3 * DAY);
    let list = ward.check();
    let found = anywhere(&list, "partial_dead");
    assert_eq!(found.len(), 1, "{list:#}");
    assert!(found[0].ends_with("5f3a9c01.incomplete"), "{found:?}");
    assert_eq!(model(&list, BROKEN)["health"]["status"], "complete");
    // In a repo that was written to just now, a download may be between two files.
    let plan = ward.lab.preview(&[]);
    assert!(candidates(&plan).is_empty(), "{plan:#}");
    old_below(ward.lab.hub.root(), 3 * DAY);
    let plan = ward.lab.preview(&[]);
    let row = plan["candidates"].as_array().expect("rows").iter();
    let row: Vec<&Value> =
        row.filter(|row| row["path"].as_str().is_some_and(|path| path.ends_with(".incomplete"))).collect();
    assert_eq!(row.len(), 1, "{plan:#}");
    let blocks = std::os::unix::fs::MetadataExt::blocks(&partial.metadata().expect("the partial"));
    assert_eq!(row[0]["reclaimable_bytes"], blocks * 512);
}

#[test]
fn a_partial_download_in_progress_is_left_alone() {
    let ward = Ward::new();
    let _ = ward.broken();
    let etag = sha256_hex(b"on its way");
    let partial = ward.repo().partial(&etag, "5f3a9c02", &[7; 70_000]);
    old(&partial, 30 * DAY);
    let lock = fs_err::File::options().write(true).open(ward.repo().lock(&etag)).expect("the lock file");
    lock.file().lock().expect("the lock can be held");
    let list = ward.check();
    assert_eq!(anywhere(&list, "partial_live").len(), 1, "{list:#}");
    assert!(anywhere(&list, "partial_dead").is_empty());
    let plan = ward.lab.preview(&[]);
    assert!(candidates(&plan).is_empty(), "{:?}", candidates(&plan));
    // Nothing that frees the repo's directory as a whole takes it along.
    let plan = ward.lab.preview(&["--models", BROKEN]);
    assert!(!plan["candidates"].to_string().contains("5f3a9c02.incomplete"), "{plan:#}");

    lock.file().unlock().expect("the lock is let go");
    let _ = ward.lab.run(["sync", "--fast"]).expect_code(1);
    let list = ward.lab.list();
    assert_eq!(anywhere(&list, "partial_dead").len(), 1, "{list:#}");
    assert!(anywhere(&list, "partial_live").is_empty());
}

#[test]
fn an_orphan_blob() {
    let ward = Ward::new();
    let _ = ward.broken();
    let orphan = ward.repo().orphan(&[9; 50_000]);
    old(&orphan, 3 * DAY);
    let list = ward.check();
    let found = anywhere(&list, "orphan_blob");
    assert_eq!(found.len(), 1, "{list:#}");
    let name = orphan.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(found[0].ends_with(&name), "{found:?}");
    old_below(ward.lab.hub.root(), 3 * DAY);
    let plan = ward.lab.preview(&[]);
    assert_eq!(candidates(&plan).len(), 1);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&orphan.metadata().expect("the orphan"));
    assert_eq!(plan["total_reclaimable_bytes"], blocks * 512);
    assert_eq!(model(&list, BROKEN)["health"]["status"], "complete");
}

#[test]
fn a_repo_without_a_snapshot() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    // What `mlx_lm.manage --delete` leaves.
    fs_err::remove_dir_all(snapshot.path().parent().expect("snapshots")).expect("the snapshots go");
    old_below(&ward.repo().path(), 3 * DAY);
    let list = ward.check();
    assert_eq!(anywhere(&list, "repo_without_snapshot").len(), 1, "{list:#}");
    let plan = ward.lab.preview(&[]);
    let blobs = crate::lab::du(&ward.repo().blobs());
    let total = plan["total_reclaimable_bytes"].as_u64().expect("a total");
    let repo = crate::lab::du(&ward.repo().path());
    assert!(total >= blobs - 4096 && total <= repo + 16384, "{total} of {blobs} and {repo}: {plan:#}");
}

#[test]
fn a_flattened_store() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    // A copy by a program that does not keep links: the link's text in a file.
    for entry in fs_err::read_dir(snapshot.path()).expect("the snapshot") {
        let path = entry.expect("an entry").path();
        let target = fs_err::read_link(&path).expect("a link");
        fs_err::remove_file(&path).expect("the link goes");
        fs_err::write(&path, target.to_string_lossy().as_bytes()).expect("a file in its place");
    }
    ward.age();
    let broken = ward.check_model("flattened_link", "damaged");
    // The blobs are what the store is worth: none of them is an orphan.
    assert_eq!(broken["source"]["refs"], json!(["main"]));
    let plan = ward.lab.preview(&[]);
    assert!(candidates(&plan).is_empty(), "{:?}", candidates(&plan));
}

#[test]
fn a_shared_blob_without_its_list_of_users() {
    let ward = Ward::shared();
    let snapshot = ward.broken();
    let payload = weights(&snapshot);
    fs_err::remove_file(payload.with_extension("refs")).expect("the list goes");
    old(&payload, 90 * DAY);
    ward.age();
    let list = ward.check();
    assert!(!anywhere(&list, "shared_blob_untracked").is_empty(), "{list:#}");
    assert_eq!(model(&list, BROKEN)["health"]["status"], "complete");
    for args in [&[][..], &["--models", "*"]] {
        let plan = ward.lab.preview(args);
        let hash = payload.file_name().expect("a name").to_string_lossy().into_owned();
        for row in plan["candidates"].as_array().expect("rows") {
            for item in row["items"].as_array().expect("items") {
                let path = item["path"].as_str().expect("a path");
                assert!(!path.ends_with(&hash), "{path} should never be a candidate");
            }
        }
    }
}

#[test]
fn a_shared_blob_that_nobody_uses_but_that_has_no_list() {
    let ward = Ward::shared();
    let snapshot = ward.broken();
    let payload = weights(&snapshot);
    fs_err::remove_file(payload.with_extension("refs")).expect("the list goes");
    old(&payload, 90 * DAY);
    fs_err::remove_dir_all(snapshot.repo().path()).expect("its user goes");
    ward.age();
    let list = ward.check();
    assert_eq!(anywhere(&list, "shared_blob_untracked").len(), 1, "{list:#}");
    let plan = ward.lab.preview(&[]);
    let blobs = candidates(&plan).into_iter().filter(|path| !path.starts_with(".locks/"));
    assert_eq!(blobs.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_shared_list_of_users_that_leads_outside() {
    let ward = Ward::shared();
    let secret = secret(&ward.lab);
    let payload = weights(&ward.broken());
    fs_err::write(payload.with_extension("refs"), "../../../../outside/secret.safetensors\n")
        .expect("the list");
    let dir = secret.parent().expect("a directory");
    let frozen = Frozen::of(dir);
    ward.lab.sync_any();
    frozen.assert_same(dir, "sync");
    let list = ward.lab.list();
    assert_eq!(names(&list).len(), 3);
    let plan = ward.lab.preview(&[]);
    assert!(candidates(&plan).is_empty(), "{:?}", candidates(&plan));
}

#[test]
fn a_blob_that_a_snapshot_uses_which_cannot_be_read() {
    let ward = Ward::new();
    let old_one = ward.repo().snapshot(&four_bit(3).files());
    let mut files = four_bit(3).files();
    replace(&mut files, "README.md", "# Another card\n");
    let current = ward.broken_of(&files);
    ward.age();
    let blob = weights(&current);
    assert_eq!(blob, weights(&old_one));
    let shared = fs_err::read_link(current.path().join("model.safetensors")).expect("a link");
    let name = blob.file_name().expect("a name").to_string_lossy().into_owned();
    let freed = |plan: &Value| {
        let rows = plan["candidates"].as_array().expect("rows").iter();
        let mut items = rows.flat_map(|row| row["items"].as_array().expect("items"));
        items.any(|item| item["path"].as_str().is_some_and(|path| path.ends_with(&format!("/blobs/{name}"))))
    };
    // The current snapshot cannot be read, so nobody knows what it needs: the old one frees no blob.
    fs_err::set_permissions(current.path(), PermissionsExt::from_mode(0o0)).expect("its mode can be set");
    let sync = as_nobody(&ward.lab, &["sync", "--fast"]);
    let plan = as_nobody(&ward.lab, &["clean", "preview", "--json"]);
    fs_err::set_permissions(current.path(), PermissionsExt::from_mode(0o755)).expect("its mode can be set");
    assert_eq!(sync.status.code(), Some(1));
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("JSON");
    assert!(!freed(&plan), "{plan:#}");
    // And through a link's text, as a copy without links leaves it.
    let link = current.path().join("model.safetensors");
    fs_err::remove_file(&link).expect("the link goes");
    fs_err::write(&link, shared.to_string_lossy().as_bytes()).expect("a file in its place");
    let _ = ward.lab.run(["sync", "--fast"]).expect_code(1);
    let plan = ward.lab.preview(&[]);
    // And the old one may be the only one that loads.
    assert_eq!(plan["candidates"], serde_json::json!([]), "{plan:#}");
    assert_eq!(plan["kept"][0]["rule"], "newer_incomplete", "{plan:#}");
    assert!(!freed(&plan), "{plan:#}");
}

#[test]
fn two_kinds_of_damage_are_two_problems() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    overwrite(&snapshot.path().join("config.json"), "{");
    fs_err::remove_file(weights(&snapshot)).expect("the blob goes");
    let list = ward.check();
    let found = kinds(model(&list, BROKEN));
    assert!(
        found.contains(&"config_invalid".to_owned()) && found.contains(&"dangling_link".to_owned()),
        "{found:?}"
    );
}

#[test]
fn a_name_that_is_not_utf_8() {
    use std::os::unix::ffi::OsStrExt as _;

    let ward = Ward::new();
    let snapshot = ward.broken();
    let name = std::ffi::OsStr::from_bytes(b"bad\xff.txt");
    if fs_err::write(snapshot.path().join(name), b"x").is_err() {
        return; // This filesystem has no such names.
    }
    let list = ward.check();
    assert!(!anywhere(&list, "name_not_utf8").is_empty(), "{list:#}");
}

#[test]
fn odd_entries_in_the_store_do_no_harm() {
    let ward = Ward::new();
    let _ = ward.broken_of(&[text("README.md", "# nothing else\n")]);
    let root = ward.hub().root();
    fs_err::write(root.join("version.txt"), "1").expect("a file");
    fs_err::create_dir_all(root.join("models--")).expect("a directory");
    fs_err::create_dir_all(root.join("models--a--b--c/snapshots")).expect("a directory");
    fs_err::create_dir_all(root.join("something/else")).expect("a directory");
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("models--acme--broken-4bit/blobs/fifo"), 0o644.into())
        .expect("a pipe");
    symlink("loop", root.join("models--acme--broken-4bit/loop")).expect("a link");
    symlink(".", root.join("models--acme--broken-4bit/snapshots/round")).expect("a link");
    let _ = ward.check();
}

#[test]
fn damage_in_a_folder_store() {
    let (lab, folder) = Lab::with_folder();
    let outside = secret(&lab);
    folder.model("well", &four_bit(1).files());
    lab.sync();
    let list = lab.list();
    let before = settled(model(&list, "well"));
    let spec = |seed| four_bit(seed).files();
    folder.model("cut", &spec(2));
    cut(&folder.path("cut/model.safetensors"), 5_000);
    folder.model("config", &spec(3));
    fs_err::write(folder.path("config/config.json"), "{").expect("a config");
    folder.model("out", &spec(4));
    fs_err::remove_file(folder.path("out/model.safetensors")).expect("the weights go");
    symlink(&outside, folder.path("out/model.safetensors")).expect("a link");
    folder.model("dangling", &spec(5));
    fs_err::remove_file(folder.path("dangling/model.safetensors")).expect("the weights go");
    symlink("nowhere", folder.path("dangling/model.safetensors")).expect("a link");
    folder.model("shard", &four_bit(6).shards(2).files());
    fs_err::remove_file(folder.path("shard/model-00002-of-00002.safetensors")).expect("the shard goes");
    folder.model("gguf", &gguf_model(7, "m.gguf"));
    cut(&folder.path("gguf/m.gguf"), 200);
    symlink(outside.parent().expect("a directory"), folder.path("linked")).expect("a link");
    let frozen = (Frozen::of(folder.root()), Frozen::of(outside.parent().expect("a directory")));
    let _ = lab.run(["sync", "--fast"]).expect_code(1);
    let _ = lab.run(["sync"]).expect_code(1);
    let list = lab.run(["list", "--json"]).expect_code(1).json();
    let plan = lab.preview(&[]);
    frozen.0.assert_same(folder.root(), "everything");
    frozen.1.assert_same(outside.parent().expect("a directory"), "everything");
    for (name, kind, status) in [
        ("cut", "truncated_weights", "damaged"),
        ("config", "config_invalid", "damaged"),
        ("out", "link_outside_store", "damaged"),
        ("dangling", "dangling_link", "damaged"),
        ("shard", "missing_shard", "incomplete"),
        ("gguf", "gguf_invalid", "damaged"),
    ] {
        let model = model(&list, name);
        assert_eq!(model["health"]["status"], status, "{name}: {:?}", kinds(model));
        assert!(kinds(model).contains(&kind.to_owned()), "{name}: {:?}", kinds(model));
    }
    let mut now = settled(model(&list, "well"));
    for file in now["storage"]["files"].as_array_mut().expect("files") {
        file.as_object_mut().expect("a file").remove("blake3");
    }
    assert_json(&now, &before, "well");
    assert!(anywhere(&list, "link_outside_store").len() >= 2, "`out` and `linked`: {list:#}");
    assert!(!candidates(&plan).contains("well"));
}
