//! Damage of every kind: a row with a problem, exit status 1, and everything else as it was.

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
fn a_config_that_is_not_json() {
    for bytes in [&b"{\"model_type\": \"llama\""[..], b"", b"not json", b"\xff\xfe\x00", b"[]", b"null"] {
        let ward = Ward::new();
        let snapshot = ward.broken();
        overwrite(&snapshot.path().join("config.json"), bytes);
        let broken = ward.check_model("config_invalid", "damaged");
        let problem = broken["health"]["problems"]
            .as_array()
            .expect("problems")
            .iter()
            .find(|problem| problem["kind"] == "config_invalid")
            .expect("it is there");
        assert_eq!(problem["path"], "config.json");
    }
}

#[test]
fn a_safetensors_header_of_100_mb_and_more() {
    for length in [100_000_001_u64, 1 << 40, u64::MAX, u64::MAX - 7, 1 << 63] {
        let ward = Ward::new();
        let blob = weights(&ward.broken());
        let mut bytes = fs_err::read(&blob).expect("the weights");
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        fs_err::write(&blob, bytes).expect("the header is changed");
        let _ = ward.check_model("header_invalid", "damaged");
    }
}

#[test]
fn a_safetensors_header_that_really_is_so_long_is_not_read() {
    let ward = Ward::new();
    let blob = weights(&ward.broken());
    let mut bytes = fs_err::read(&blob).expect("the weights");
    bytes[..8].copy_from_slice(&3_000_000_000_u64.to_le_bytes());
    fs_err::write(&blob, bytes).expect("the header is changed");
    cut(&blob, 4_000_000_000);
    let start = Instant::now();
    let _ = ward.lab.run(["sync", "--fast"]).expect_code(1);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let list = ward.lab.list();
    assert!(
        kinds(model(&list, BROKEN)).contains(&"header_invalid".to_owned()),
        "{:?}",
        model(&list, BROKEN)["health"]
    );
}

#[test]
fn offsets_that_cannot_be() {
    for offsets in
        ["[-8,8]", "[8,0]", "[0,-1]", "[0,18446744073709551616]", "[0.5,16]", "[0]", "\"x\"", "[0,12]"]
    {
        let ward = Ward::new();
        let header =
            format!("{{\"a.weight\":{{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":{offsets}}}}}");
        let mut files = four_bit(3).files();
        replace(&mut files, "model.safetensors", safetensors(&header, 16));
        files.retain(|(path, _)| path != "model.safetensors.index.json");
        let _ = ward.broken_of(&files);
        let _ = ward.check_model("header_invalid", "damaged");
    }
}

#[test]
fn tensors_that_overlap() {
    let ward = Ward::new();
    let header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},\
                  \"b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[8,24]}}";
    let mut files = four_bit(3).files();
    replace(&mut files, "model.safetensors", safetensors(header, 24));
    files.retain(|(path, _)| path != "model.safetensors.index.json");
    let _ = ward.broken_of(&files);
    let _ = ward.check_model("header_invalid", "damaged");
}

#[test]
fn a_shape_whose_product_overflows() {
    let ward = Ward::new();
    let header =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4294967296],\"data_offsets\":[0,16]}}";
    let mut files = four_bit(3).files();
    replace(&mut files, "model.safetensors", safetensors(header, 16));
    files.retain(|(path, _)| path != "model.safetensors.index.json");
    let _ = ward.broken_of(&files);
    let _ = ward.check_model("header_invalid", "damaged");
}

/// A file with a secret outside of the store, whose reading would show.
fn secret(lab: &Lab) -> PathBuf {
    let path = lab.sandbox.root().join("outside/secret.safetensors");
    write_files(path.parent().expect("a parent"), &four_bit(77).files());
    fs_err::write(&path, "TOP-SECRET-WORDS").expect("the secret");
    path
}

#[track_caller]
fn check_outside(ward: &Ward, outside: &Path) -> Value {
    let dir = outside.parent().expect("a parent");
    let frozen = Frozen::of(dir);
    let broken = ward.check_model("link_outside_store", "damaged");
    // Its times of last access too: nothing opened it.
    frozen.assert_same(dir, "everything");
    for args in [
        &["list", "--json"][..],
        &["show", BROKEN, "--json"],
        &["clean", "preview", "--models", "*", "--json"],
    ] {
        let out = ward.lab.run(args);
        assert!(!out.stdout.contains("TOP-SECRET") && !out.stderr.contains("TOP-SECRET"), "{out}");
    }
    let plan = ward.lab.preview(&["--models", BROKEN]);
    for item in plan["candidates"][0]["items"].as_array().into_iter().flatten() {
        let path = item["path"].as_str().expect("a path");
        assert!(!path.starts_with('/') && !path.contains(".."), "{path} is no path in the store");
    }
    broken
}

#[test]
fn an_absolute_link_out_of_the_store() {
    let ward = Ward::new();
    let secret = secret(&ward.lab);
    let link = ward.broken().path().join("model.safetensors");
    fs_err::remove_file(&link).expect("the link goes");
    symlink(&secret, &link).expect("another link");
    let _ = check_outside(&ward, &secret);
}

#[test]
fn a_relative_link_out_of_the_store() {
    let ward = Ward::new();
    let secret = secret(&ward.lab);
    let snapshot = ward.broken();
    let link = snapshot.path().join("config.json");
    fs_err::remove_file(&link).expect("the link goes");
    let depth = snapshot.path().components().count() - ward.lab.sandbox.root().components().count();
    let target = format!("{}outside/secret.safetensors", "../".repeat(depth));
    symlink(&target, &link).expect("another link");
    assert!(link.exists(), "{target} leads somewhere");
    let _ = check_outside(&ward, &secret);
}

#[test]
fn a_directory_link_out_of_the_store() {
    let ward = Ward::new();
    let secret = secret(&ward.lab);
    symlink(secret.parent().expect("a directory"), ward.broken().path().join("more")).expect("a link");
    let _ = check_outside(&ward, &secret);
}

#[test]
fn a_blob_that_is_itself_a_link_out_of_the_store() {
    let ward = Ward::new();
    let secret = secret(&ward.lab);
    let blob = weights(&ward.broken());
    fs_err::remove_file(&blob).expect("the blob goes");
    symlink(&secret, &blob).expect("a link");
    let dir = secret.parent().expect("a directory");
    let frozen = Frozen::of(dir);
    let list = ward.check();
    frozen.assert_same(dir, "everything");
    assert_eq!(model(&list, BROKEN)["health"]["status"], "damaged");
    let found = kinds(model(&list, BROKEN));
    assert!(
        found.iter().any(|kind| kind == "link_outside_store" || kind == "link_not_followed"),
        "{found:?}"
    );
}

#[test]
fn a_blobs_directory_that_is_a_link_out_of_the_store() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    let blobs = snapshot.repo().blobs();
    let outside = ward.lab.sandbox.root().join("outside-blobs");
    fs_err::rename(&blobs, &outside).expect("the blobs move");
    symlink(&outside, &blobs).expect("a link");
    let frozen = Frozen::of(&outside);
    let list = ward.check();
    frozen.assert_same(&outside, "everything");
    assert_ne!(model(&list, BROKEN)["health"]["status"], "complete");
}

#[test]
fn a_repo_directory_that_is_a_link_out_of_the_store() {
    let ward = Ward::new();
    let repo = ward.broken().repo().path();
    let outside = ward.lab.sandbox.root().join("outside-repo");
    fs_err::rename(&repo, &outside).expect("the repo moves");
    symlink(&outside, &repo).expect("a link");
    let frozen = Frozen::of(&outside);
    let list = ward.check();
    frozen.assert_same(&outside, "everything");
    let told = |kind| anywhere(&list, kind).iter().any(|path| path.ends_with("models--acme--broken-4bit"));
    assert!(told("link_outside_store") || told("link_not_followed"), "{:?}", loose(&list));
}

#[test]
fn a_repo_name_with_dots() {
    let ward = Ward::new();
    let victim = ward.lab.sandbox.root().join("home/.cache/huggingface/x");
    write_files(&victim, &four_bit(9).files());
    let frozen = Frozen::of(&victim);
    let odd = ward.hub().root().join("models--..--x");
    let good = ward.hub().repo("acme/for-a-moment").snapshot(&four_bit(5).files()).with_ref("main");
    fs_err::rename(good.repo().path(), &odd).expect("the repo gets an evil name");
    let list = ward.check();
    let found = anywhere(&list, "unsafe_name");
    assert_eq!(found.len(), 1, "{list:#}");
    assert!(found[0].contains(".."), "{found:?}");
    frozen.assert_same(&victim, "everything");
    for name in names(&list) {
        assert!(!name.split('/').any(|part| part == ".."), "{name}");
    }
    for (path, _) in ward.lab.manifests() {
        assert!(path.starts_with(ward.lab.sandbox.mlxman_home().join("manifests")), "{}", path.display());
    }
    assert!(candidates(&ward.lab.preview(&[])).iter().all(|row| !row.contains("..")));
}

#[test]
fn an_index_that_names_a_file_outside() {
    for outside in ["../../../../../outside/secret.safetensors", "/outside/secret.safetensors", ".."] {
        let ward = Ward::new();
        let secret = secret(&ward.lab);
        let mut files = four_bit(3).files();
        let index =
            json!({"metadata": {}, "weight_map": {"a.weight": "model.safetensors", "b.weight": outside}});
        replace(&mut files, "model.safetensors.index.json", index.to_string());
        let _ = ward.broken_of(&files);
        let frozen = Frozen::of(secret.parent().expect("a directory"));
        let broken = ward.check_model("unsafe_name", "damaged");
        frozen.assert_same(secret.parent().expect("a directory"), "everything");
        assert!(!broken.to_string().contains("TOP-SECRET"));
    }
}

#[test]
fn a_listing_that_names_a_file_outside() {
    let ward = Ward::new();
    let secret = secret(&ward.lab);
    let snapshot = ward.broken();
    let tree = snapshot.repo().path().join(format!("trees/{}.json", snapshot.commit));
    let mut value: Value = serde_json::from_slice(&fs_err::read(&tree).expect("a tree")).expect("JSON");
    value["files"]["../../../../../outside/secret.safetensors"] =
        json!({"size": 16, "blob_id": "ab".repeat(20)});
    fs_err::write(&tree, value.to_string()).expect("the tree");
    let dir = secret.parent().expect("a directory");
    let frozen = Frozen::of(dir);
    ward.lab.sync_any();
    frozen.assert_same(dir, "sync");
    let list = ward.lab.list();
    let files = model(&list, BROKEN)["storage"]["files"].as_array().expect("files").clone();
    assert!(files.iter().all(|file| !file["path"].as_str().expect("a path").contains("..")), "{files:?}");
}

/// Runs a copy of the program as a user who may not read everything.
pub(crate) fn as_nobody(lab: &Lab, args: &[&str]) -> std::process::Output {
    let root = lab.sandbox.root();
    let bin = root.join("mlxman-for-all");
    if !bin.exists() {
        fs_err::copy(BIN, &bin).expect("the program can be copied");
        fs_err::set_permissions(&bin, PermissionsExt::from_mode(0o755)).expect("its mode can be set");
    }
    let mut command = lab.sandbox.command(&bin);
    if rustix::process::geteuid().is_root() {
        for dir in [root.to_path_buf(), lab.sandbox.home()] {
            fs_err::set_permissions(&dir, PermissionsExt::from_mode(0o755)).expect("its mode can be set");
        }
        let registry = root.join("nobody");
        fs_err::create_dir_all(&registry).expect("a registry");
        std::os::unix::fs::chown(&registry, Some(65534), Some(65534)).expect("its owner can be set");
        command.env("MLXMAN_HOME", &registry).uid(65534).gid(65534);
    }
    command.args(args);
    // Another test's child, between its fork and its exec, may still hold the copy open for writing.
    loop {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result.expect("the program runs"),
        }
    }
}

fn check_unreadable(lab: &Lab, path: &Path) {
    let mode = path.metadata().expect("it is there").permissions().mode();
    fs_err::set_permissions(path, PermissionsExt::from_mode(0o0)).expect("its mode can be set");
    let sync = as_nobody(lab, &["sync", "--fast"]);
    let list = as_nobody(lab, &["list", "--json"]);
    let full = as_nobody(lab, &["sync"]);
    fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its mode can be set");
    let say = |out: &std::process::Output| String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(sync.status.code(), Some(1), "{}", say(&sync));
    assert_eq!(full.status.code(), Some(1), "{}", say(&full));
    assert_eq!(list.status.code(), Some(1), "{}", say(&list));
    let list: Value = serde_json::from_slice(&list.stdout).expect("JSON");
    assert!(!anywhere(&list, "unreadable").is_empty(), "{list:#}");
    for name in WELL {
        assert_eq!(model(&list, name)["health"]["status"], "complete");
    }
    let broken = list["models"].as_array().expect("models").iter();
    for model in broken.filter(|model| model["source"]["repo_id"] == BROKEN) {
        assert_ne!(model["health"]["status"], "complete");
    }
}

#[test]
fn an_unreadable_snapshot() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    check_unreadable(&ward.lab, &snapshot.path());
}

#[test]
fn an_unreadable_repo() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    check_unreadable(&ward.lab, &snapshot.repo().path());
}

#[test]
fn an_unreadable_blobs_directory() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    check_unreadable(&ward.lab, &snapshot.repo().blobs());
}

#[test]
fn an_unreadable_file() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    check_unreadable(&ward.lab, &snapshot.blob_of("config.json"));
}

#[test]
fn unreadable_weights() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    check_unreadable(&ward.lab, &weights(&snapshot));
}

#[test]
fn a_gguf_cut_short() {
    let whole = gguf_model(3, "tiny-Q4_0.gguf");
    let length = whole[0].1.len() as u64;
    for (keep, wanted) in
        [(length - 40, "truncated_weights"), (300, "gguf_invalid"), (10, "gguf_invalid"), (0, "gguf_invalid")]
    {
        let ward = Ward::new();
        let snapshot = ward.broken_of(&whole);
        cut(&snapshot.blob_of("tiny-Q4_0.gguf"), keep);
        let list = ward.check();
        let broken = model(&list, BROKEN);
        assert_eq!(broken["health"]["status"], "damaged", "cut to {keep}");
        let found = kinds(broken);
        let header = wanted == "gguf_invalid" && found.iter().any(|kind| kind == "truncated_weights");
        assert!(found.contains(&wanted.to_owned()) || header, "cut to {keep}: {found:?}");
    }
}

#[test]
fn json_that_is_10_000_deep() {
    let list = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let map = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let inside = format!("{{\"model_type\": \"llama\", \"x\": {map}}}");
    for deep in [&list, &map, &inside, &"[".repeat(1_000_000)] {
        let ward = Ward::new();
        let snapshot = ward.broken();
        overwrite(&snapshot.path().join("config.json"), deep);
        let _ = ward.check_model("config_invalid", "damaged");
    }
    let ward = Ward::new();
    let mut files = four_bit(3).files();
    replace(&mut files, "model.safetensors", safetensors(&map, 0));
    let _ = ward.broken_of(&files);
    let _ = ward.check_model("header_invalid", "damaged");

    // In the other files that are read: whatever is said of it, nothing breaks.
    for file in
        ["model.safetensors.index.json", "tokenizer_config.json", "adapter_config.json", "model_index.json"]
    {
        let ward = Ward::new();
        let mut files = four_bit(3).files();
        replace(&mut files, file, map.as_bytes());
        let _ = ward.broken_of(&files);
        ward.lab.sync_any();
        let list = ward.lab.list();
        assert_eq!(names(&list).len(), 3, "{file}");
        assert_eq!(model(&list, WELL[0])["health"]["status"], "complete");
    }
    for yaml in [format!("---\na: {list}\n---\n"), format!("---\n{}x\n---\n", "- ".repeat(10_000))] {
        let ward = Ward::new();
        let mut files = four_bit(3).files();
        replace(&mut files, "README.md", yaml);
        let _ = ward.broken_of(&files);
        ward.lab.sync_any();
        assert_eq!(names(&ward.lab.list()).len(), 3);
    }
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
