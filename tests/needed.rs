//! What anybody needs is no candidate, whatever it is: links of every kind from every known store, pins under every name
//! of a place, downloads and programs at work, and what cannot be asked.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err::os::unix::fs::symlink;
use mlxman_testkit::{FolderStore, HubStore, Repo, Snapshot, sha256_hex, text};
use serde_json::{Value, json};

use crate::damage::as_nobody;
use crate::lab::{DAY, Lab, candidates, four_bit, kinds, loose, model, names, old_below};

/// A cache with a repo that is used and one with a leftover, and a folder of models.
struct World {
    lab: Lab,
    folder: FolderStore,
    used: Snapshot,
    left: Snapshot,
}

impl World {
    fn new() -> Self {
        let (lab, folder) = Lab::with_folder();
        let used = lab.hub.repo("acme/a").snapshot(&four_bit(1).files()).with_ref("main");
        let left = lab.hub.repo("acme/b").snapshot(&four_bit(2).files());
        let _ = lab.hub.repo("acme/b").snapshot(&four_bit(3).files()).with_ref("main");
        // So that no time of grace holds what is left over.
        old_below(lab.hub.root(), 30 * DAY);
        World { lab, folder, used, left }
    }

    /// The same, with the leftover's snapshot gone: its blobs are orphans.
    fn with_orphans() -> (Self, PathBuf) {
        let world = World::new();
        let blob = world.left.blob_of("model.safetensors");
        fs_err::remove_dir_all(world.left.path()).expect("it goes");
        (world, blob)
    }

    /// A model of the folder that has its weights through a link.
    fn linking(&self, target: impl AsRef<Path>) {
        let dir = self.folder.path("m");
        fs_err::create_dir_all(&dir).expect("a directory");
        fs_err::write(dir.join("config.json"), "{}").expect("a file");
        symlink(target.as_ref(), dir.join("model.safetensors")).expect("a link");
    }

    fn detached(&self) -> String {
        format!("acme/b@{}", &self.left.commit[..8])
    }

    /// That the leftover is kept, and by which rule.
    #[track_caller]
    fn stays(&self, rule: &str) {
        let plan = self.lab.preview(&[]);
        assert_eq!(rule_of(&plan, &self.detached()), rule, "{plan:#}");
        assert!(!candidates(&plan).contains(&self.detached()), "{plan:#}");
    }
}

/// The rule that keeps something.
#[track_caller]
fn rule_of(plan: &Value, what: &str) -> String {
    let kept = plan["kept"].as_array().expect("kept");
    let rules = kept.iter().filter(|row| row["model"] == what);
    rules.map(|row| row["rule"].as_str().expect("a rule")).collect::<Vec<_>>().join(" ")
}

fn reasons(plan: &Value) -> String {
    plan["kept"].to_string()
}

/// Where something lies in the cache.
fn inside(world: &World, path: &Path) -> String {
    path.strip_prefix(world.lab.hub.root().canonicalize().expect("it is there"))
        .expect("in the cache")
        .to_string_lossy()
        .into_owned()
}

/// Puts a link where something is.
fn relink(target: impl AsRef<Path>, at: &Path) {
    let _ = fs_err::remove_file(at);
    symlink(target.as_ref(), at).expect("a link");
}

fn hold(path: &Path) -> fs_err::File {
    fs_err::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    let file = fs_err::File::create(path).expect("a lock");
    file.file().lock().expect("it is held");
    file
}

/// A directory under a second name, as long as this lives. Only the superuser may do so, and not everywhere.
struct Bound(PathBuf);

impl Bound {
    fn new(from: &Path, to: &Path) -> Option<Self> {
        fs_err::create_dir_all(to).expect("a mount point");
        let mut mount = Command::new("mount");
        let done = mount.arg("--bind").args([from, to]).output().is_ok_and(|out| out.status.success());
        done.then(|| Bound(to.to_owned()))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn an_orphan_that_another_store_links_to() {
    let (world, blob) = World::with_orphans();
    world.linking(&blob);
    let plan = world.lab.preview(&[]);
    assert_eq!(rule_of(&plan, &inside(&world, &blob)), "linked_from", "{plan:#}");
    let other = world.left.repo().orphan(&[7; 9000]).canonicalize().expect("it is there");
    assert!(candidates(&world.lab.preview(&[])).contains(&inside(&world, &other)), "others are free to go");
    // Through a link in the cache that is no repo's, and through two.
    for hops in 1..3 {
        let (world, blob) = World::with_orphans();
        fs_err::create_dir_all(world.lab.hub.root().join("my/m")).expect("a directory");
        symlink(&blob, world.lab.hub.root().join("my/m/x")).expect("a link");
        if hops == 2 {
            relink("../../../my/m/x", &world.used.path().join("model.safetensors"));
        }
        let plan = world.lab.preview(&[]);
        assert_eq!(rule_of(&plan, &inside(&world, &blob)), "linked_from", "{plan:#}");
    }
}

#[test]
fn a_partial_file_that_somebody_links_to() {
    for in_cache in [false, true] {
        let world = World::new();
        let part = world.left.repo().partial(&sha256_hex(b"part"), "0a0a0a0a", &[1; 9000]);
        if in_cache {
            relink(&part, &world.used.path().join("model.safetensors"));
        } else {
            world.linking(&part);
        }
        let plan = world.lab.preview(&[]);
        let part = part.canonicalize().expect("it is there");
        assert_eq!(rule_of(&plan, &inside(&world, &part)), "linked_from", "{plan:#}");
    }
}

#[test]
fn a_shared_blob_that_another_store_links_to() {
    let world = World::new();
    let hub = world.lab.hub.clone().shared();
    let hash = "ee".repeat(32);
    let dir = hub.root().join("blobs/ee");
    fs_err::create_dir_all(&dir).expect("a directory");
    fs_err::write(dir.join(&hash), [1; 9000]).expect("written");
    fs_err::write(dir.join(format!("{hash}.refs")), "models--acme--two/blobs/abc\n").expect("written");
    let path = format!("blobs/ee/{hash}");
    assert!(candidates(&world.lab.preview(&[])).contains(&path));
    world.linking(dir.join(&hash));
    assert_eq!(rule_of(&world.lab.preview(&[]), &path), "linked_from");
}

#[test]
fn a_repo_of_another_name() {
    let (world, blob) = World::with_orphans();
    symlink("models--acme--b", world.lab.hub.root().join("models--acme--c")).expect("a link");
    let plan = world.lab.preview(&[]);
    assert_eq!(candidates(&plan).len(), 0, "{plan:#}");
    assert_eq!(rule_of(&plan, &inside(&world, &blob)), "linked_from");
    let world = World::new();
    let repo = world.lab.hub.root().join("models--acme--z/refs");
    fs_err::create_dir_all(&repo).expect("a repo");
    fs_err::write(repo.join("main"), &world.used.commit).expect("a ref");
    assert!(candidates(&world.lab.preview(&[])).contains("models--acme--z"));
    symlink("models--acme--z", world.lab.hub.root().join("models--acme--y")).expect("a link");
    assert_eq!(rule_of(&world.lab.preview(&[]), "models--acme--z"), "linked_from");
}

#[test]
fn a_blob_that_is_a_link_to_another_repo_s_blob() {
    let world = World::new();
    let theirs = world.left.blob_of("model.safetensors");
    relink(&theirs, &world.used.blob_of("model.safetensors"));
    world.stays("linked_from");
    // From another cache.
    let world = World::new();
    let theirs = world.left.blob_of("model.safetensors");
    let other = HubStore::create(world.lab.sandbox.root().join("other"));
    let user = other.repo("acme/a").snapshot(&four_bit(1).files()).with_ref("main");
    relink(&theirs, &user.blob_of("model.safetensors"));
    let stores = [world.lab.hub.root(), other.root()].map(|root| format!("--store=hub={}", root.display()));
    let plan = world.lab.preview(&[&stores[0], &stores[1]]);
    assert_eq!(rule_of(&plan, &world.detached()), "linked_from", "{plan:#}");
}

#[test]
fn a_directory_of_blobs_that_a_link_leads_to() {
    let of = |repo: &Repo| repo.path().join("blobs");
    // From a snapshot, from another store, and in the place of another repo's own.
    let world = World::new();
    symlink("../../../models--acme--b/blobs", world.used.path().join("weights")).expect("a link");
    world.stays("linked_from");
    let world = World::new();
    world.linking(of(world.left.repo()));
    world.stays("linked_from");
    let world = World::new();
    for entry in fs_err::read_dir(of(world.used.repo())).expect("its blobs") {
        let entry = entry.expect("an entry");
        fs_err::rename(entry.path(), of(world.left.repo()).join(entry.file_name())).expect("it moves");
    }
    fs_err::remove_dir(of(world.used.repo())).expect("it goes");
    symlink("../models--acme--b/blobs", of(world.used.repo())).expect("a link");
    let plan = world.lab.preview(&[]);
    assert!(candidates(&plan).is_empty() && reasons(&plan).contains("linked_from"), "{plan:#}");
    // What such a link leads to was not read, and may well be there.
    world.lab.sync_any();
    let list = world.lab.list();
    assert!(kinds(model(&list, "acme/a")).contains(&"link_not_followed".to_owned()));
    let words = model(&list, "acme/a")["health"].to_string();
    assert!(!words.contains("is not there"), "{words}");
    // A link to the whole cache names nothing in it.
    let world = World::new();
    world.linking(world.lab.hub.root());
    assert!(candidates(&world.lab.preview(&[])).contains(&world.detached()));
}

#[test]
fn links_are_resolved_as_the_kernel_does() {
    let world = World::new();
    fs_err::create_dir_all(world.left.repo().path().join("refs/x")).expect("a directory");
    let (dir, blob) = (world.used.path(), world.left.blob_of("model.safetensors"));
    symlink("../../../models--acme--b/refs/x", dir.join("d")).expect("a link");
    let name = blob.file_name().expect("a name").to_string_lossy();
    relink(format!("d/../../blobs/{name}"), &dir.join("model.safetensors"));
    world.stays("linked_from");
}

#[test]
fn a_place_with_two_names() {
    let world = World::new();
    let bound = world.lab.sandbox.root().join("bound");
    let hub = world.lab.hub.root();
    let store = |root: &Path| format!("--store=hub={}", root.display());
    // A link by its other name.
    let Some(mount) = Bound::new(hub, &bound) else { return };
    let blob = world.left.blob_of("model.safetensors");
    let hub_now = hub.canonicalize().expect("it is there");
    world.linking(bound.join(blob.strip_prefix(hub_now).expect("in the cache")));
    world.stays("linked_from");
    fs_err::remove_dir_all(world.folder.path("m")).expect("it goes");
    // Named twice it counts once.
    let once = world.lab.preview(&[&store(hub)])["total_reclaimable_bytes"].clone();
    let out = world.lab.run(["clean", "preview", "--json", &store(hub), &store(&bound)]).success();
    assert!(once.as_u64() > Some(0) && out.json()["total_reclaimable_bytes"] == once, "{out}");
    assert!(out.stderr.contains("another name"), "{out}");
    // A pin holds by either.
    world.lab.sync();
    let _ = world.lab.run(["pin", &world.detached()]).success();
    let plan = world.lab.preview(&[&store(&bound)]);
    assert_eq!(rule_of(&plan, &world.detached()), "pinned_elsewhere", "{plan:#}");
    assert!(reasons(&plan).contains("another name of the same place"));
    drop(mount);
}

#[test]
fn a_place_that_is_a_link_to_its_new_one() {
    let world = World::new();
    world.lab.sync();
    let _ = world.lab.run(["pin", &world.detached()]).success();
    let new = world.lab.sandbox.root().join("moved");
    fs_err::rename(world.lab.hub.root(), &new).expect("it moves");
    symlink(&new, world.lab.hub.root()).expect("a link");
    let plan = world.lab.preview(&[&format!("--store=hub={}", new.display())]);
    assert_eq!(rule_of(&plan, &world.detached()), "pinned_elsewhere", "{plan:#}");
    assert!(!reasons(&plan).contains("not now") && reasons(&plan).contains("another name"), "{plan:#}");
}

#[test]
fn a_pinned_model_of_a_folder_that_moved_and_changed() {
    let (lab, folder) = Lab::with_folder();
    folder.model("m", &four_bit(1).files());
    lab.sync();
    let _ = lab.run(["pin", "m"]).success();
    let new = lab.sandbox.root().join("moved");
    fs_err::rename(folder.root(), &new).expect("it moves");
    fs_err::write(new.join("m/README.md"), "more").expect("a file");
    let plan = lab.preview(&["--models", "m", "--store", &format!("folder={}", new.display())]);
    assert_eq!(rule_of(&plan, "m"), "pinned_elsewhere", "{plan:#}");
}

#[test]
fn a_partial_file_in_a_pinned_model() {
    let (lab, folder) = Lab::with_folder();
    folder.model("m", &four_bit(1).files());
    let dir = folder.path("m/.cache/huggingface/download");
    fs_err::create_dir_all(&dir).expect("a directory");
    fs_err::write(dir.join("aaa.incomplete"), [1; 9000]).expect("a file");
    lab.sync_any();
    assert_eq!(candidates(&lab.preview(&[])).len(), 1);
    let _ = lab.run(["pin", "m"]).success();
    let plan = lab.preview(&[]);
    assert_eq!(rule_of(&plan, "m/.cache/huggingface/download/aaa.incomplete"), "pinned", "{plan:#}");
    assert_eq!(plan["candidates"], json!([]));
}

#[test]
fn downloads_at_work() {
    // A repo that a download has begun with, and nothing in it yet.
    for lock in [".locks/models--acme--n/ee.lock", "models--acme--n/blobs/ee.lock"] {
        let world = World::new();
        let repo = world.lab.hub.root().join("models--acme--n");
        fs_err::create_dir_all(repo.join("blobs")).expect("a repo");
        assert!(candidates(&world.lab.preview(&[])).contains("models--acme--n"));
        let held = hold(&world.lab.hub.root().join(lock));
        let plan = world.lab.preview(&[]);
        assert_eq!(rule_of(&plan, "models--acme--n"), "in_use", "{lock}: {plan:#}");
        drop(held);
    }
    // The Rust client's lock, beside a repo's blobs.
    let world = World::new();
    let held = hold(&world.left.repo().blobs().join("ee.lock"));
    world.stays("in_use");
    drop(held);
    // The lock of a shared blob that is in use.
    let lab = Lab::new();
    let hub = lab.hub.clone().shared();
    let left = hub.repo("acme/b").snapshot(&four_bit(2).files());
    let _ = hub.repo("acme/b").snapshot(&four_bit(3).files()).with_ref("main");
    let name = format!("acme/b@{}", &left.commit[..8]);
    old_below(hub.root(), 30 * DAY);
    assert!(candidates(&lab.preview(&[])).contains(&name));
    let payload = left.blob_of("model.safetensors");
    let held = hold(
        &payload.with_file_name(format!("{}.lock", payload.file_name().expect("a name").to_string_lossy())),
    );
    assert_eq!(rule_of(&lab.preview(&[]), &name), "in_use");
    drop(held);
}

#[test]
#[cfg(target_os = "linux")]
fn programs_at_work() {
    let (world, blob) = World::with_orphans();
    let part = world.used.repo().partial(&sha256_hex(b"part"), "0a0a0a0a", &[1; 9000]);
    let part = part.canonicalize().expect("it is there");
    let writing = fs_err::OpenOptions::new().append(true).open(&part).expect("it is open");
    let reading = fs_err::File::open(&blob).expect("it is open");
    let plan = world.lab.preview(&[]);
    for path in [&part, &blob] {
        assert_eq!(rule_of(&plan, &inside(&world, path)), "in_use", "{plan:#}");
    }
    drop((writing, reading));
    assert!(candidates(&world.lab.preview(&[])).contains(&inside(&world, &part)));
}

#[test]
fn what_cannot_be_read_whole() {
    let world = World::new();
    let deep = world.left.path().join("d/".repeat(40));
    fs_err::create_dir_all(&deep).expect("directories");
    fs_err::write(deep.join("w.bin"), [1; 9000]).expect("a file");
    world.stays("unreadable");
    #[cfg(target_os = "linux")]
    for name in [&b"w\xff"[..], b"w\xfe"] {
        let world = World::new();
        let place = world.left.path().join(OsStr::from_bytes(name));
        fs_err::create_dir(&place).expect("a directory");
        fs_err::write(place.join("w.bin"), [1; 9000]).expect("a file");
        world.stays("unreadable");
    }
    // One that can be listed and not looked into.
    let world = World::new();
    fs_err::set_permissions(world.left.path(), PermissionsExt::from_mode(0o444)).expect("its mode");
    let out = as_nobody(&world.lab, &["clean", "preview", "--json"]);
    fs_err::set_permissions(world.left.path(), PermissionsExt::from_mode(0o755)).expect("its mode");
    let plan: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(rule_of(&plan, &world.detached()), "unreadable", "{plan:#}");
}

#[test]
fn locks_that_cannot_be_asked_are_told_as_that() {
    let world = World::new();
    let sub = world.lab.hub.root().join(".locks/models--acme--b/sub");
    fs_err::create_dir_all(sub).expect("a directory");
    world.stays("unreadable");
    assert!(reasons(&world.lab.preview(&[])).contains("cannot be asked"));
    let world = World::new();
    let locks = world.lab.hub.root().join(".locks");
    fs_err::set_permissions(&locks, PermissionsExt::from_mode(0o0)).expect("its mode");
    let out = as_nobody(&world.lab, &["clean", "preview", "--json"]);
    fs_err::set_permissions(&locks, PermissionsExt::from_mode(0o755)).expect("its mode");
    let plan: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(rule_of(&plan, &world.detached()), "unreadable", "{plan:#}");
}

#[test]
fn locks_of_what_is_here_are_not_stale() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/a").snapshot(&four_bit(1).files()).with_ref("main");
    for name in ["models--y--z", "models--a--b--c", "models--gone"] {
        let dir = lab.hub.root().join(".locks").join(name);
        fs_err::create_dir_all(&dir).expect("a directory");
        fs_err::write(dir.join("ee.lock"), "").expect("a lock");
    }
    symlink("models--acme--a", lab.hub.root().join("models--y--z")).expect("a link");
    fs_err::create_dir(lab.hub.root().join("models--a--b--c")).expect("a directory");
    assert_eq!(candidates(&lab.preview(&[])).into_iter().collect::<Vec<_>>(), [".locks/models--gone"]);
    lab.sync_any();
    let stale = loose(&lab.list()).into_iter().filter(|(kind, _)| kind == "stale_locks").count();
    assert_eq!(stale, 1);
}

#[test]
fn stores_that_were_not_asked_about() {
    let world = World::new();
    world.linking(world.left.blob_of("model.safetensors"));
    world.lab.sync_any();
    let only = format!("--store=hub={}", world.lab.hub.root().display());
    let plan = world.lab.preview(&[&only]);
    assert_eq!(rule_of(&plan, &world.detached()), "linked_from", "{plan:#}");
    // One that only the registry knows.
    let mut world = world;
    world.lab.sandbox.set("MLX_MODELS_DIR", "");
    assert_eq!(rule_of(&world.lab.preview(&[&only]), &world.detached()), "linked_from");
    // One that is away is told of.
    fs_err::rename(world.folder.root(), world.folder.root().with_extension("away")).expect("it goes");
    let plan = world.lab.preview(&[&only]);
    let said = plan["problems"].to_string();
    assert!(
        said.contains("links in it") && said.contains(&world.folder.root().display().to_string()),
        "{said}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_link_of_which_nobody_can_tell_where_it_leads() {
    let world = World::new();
    let odd = world.folder.root().join(OsStr::from_bytes(b"d\xff"));
    fs_err::create_dir_all(&odd).expect("a directory");
    symlink("../somewhere", odd.join("x")).expect("a link");
    let out = world.lab.run(["clean", "preview", "--json"]).expect_code(1);
    let plan = out.json();
    assert_eq!(rule_of(&plan, &world.detached()), "unreadable", "{plan:#}");
    assert!(plan["problems"].to_string().contains("could not be followed"), "{plan:#}");
    // Many links are followed, however long that takes.
    let world = World::new();
    let many = world.folder.path("many");
    fs_err::create_dir_all(&many).expect("a directory");
    for number in 0..3000 {
        symlink(format!("/no/such/place/{number}"), many.join(format!("{number}"))).expect("a link");
    }
    world.linking(world.left.blob_of("model.safetensors"));
    world.stays("linked_from");
}

#[test]
fn a_newer_snapshot_that_does_not_replace_the_older() {
    let weights = |name: &str, seed: u64| {
        let of = four_bit(seed).files().into_iter().find(|(path, _)| path == "model.safetensors");
        (name.to_owned(), of.expect("weights").1)
    };
    let keeps = |repo: &Repo, old: &[(String, Vec<u8>)], new: &[(String, Vec<u8>)], lab: &Lab| {
        let old = repo.snapshot(old);
        let _ = repo.snapshot(new).with_ref("main");
        old_below(lab.hub.root(), 30 * DAY);
        let plan = lab.preview(&[]);
        let kept = plan["kept"].as_array().expect("kept").iter();
        let row =
            kept.filter(|row| row["model"].as_str().is_some_and(|name| name.ends_with(&old.commit[..8])));
        row.map(|row| row["rule"].as_str().expect("a rule").to_owned()).collect::<String>()
    };
    let lab = Lab::new();
    let data = [text("data/train.parquet", "PAR1"), text("README.md", "a")];
    assert_eq!(keeps(&lab.hub.dataset("acme/d"), &data, &data[1..], &lab), "not_replaced");
    let without = |name: &str| -> Vec<(String, Vec<u8>)> {
        four_bit(7).files().into_iter().filter(|(path, _)| !path.starts_with(name)).collect()
    };
    assert_eq!(
        keeps(&lab.hub.repo("acme/t"), &four_bit(6).files(), &without("tokenizer"), &lab),
        "not_replaced",
        "no tokenizer"
    );
    let mut more = four_bit(8).files();
    more.push(weights("other.safetensors", 9));
    assert_eq!(keeps(&lab.hub.repo("acme/w"), &more, &four_bit(10).files(), &lab), "not_replaced");
    let mut onnx = without("model.safetensors");
    onnx.push(("onnx/model.onnx".to_owned(), vec![1; 9000]));
    assert_ne!(keeps(&lab.hub.repo("acme/o"), &four_bit(11).files(), &onnx, &lab), "");
    // What has all of it replaces it.
    assert_eq!(keeps(&lab.hub.repo("acme/s"), &four_bit(12).files(), &four_bit(13).files(), &lab), "");
}

#[test]
fn a_model_in_a_repo_that_cannot_be_listed_is_not_gone() {
    let lab = Lab::new();
    for name in ["acme/a", "acme/b"] {
        let _ = lab.hub.repo(name).snapshot(&four_bit(1).files()).with_ref("main");
    }
    let code = |args: &[&str]| as_nobody(&lab, args).status.code();
    assert_eq!(code(&["sync", "--fast"]), Some(0));
    for mode in [0o311, 0o000] {
        let dir = lab.hub.repo("acme/a").path();
        fs_err::set_permissions(&dir, PermissionsExt::from_mode(mode)).expect("its mode");
        let out = as_nobody(&lab, &["sync", "--fast", "--json"]);
        let missing = as_nobody(&lab, &["clean", "preview", "--missing-only", "--json"]);
        fs_err::set_permissions(&dir, PermissionsExt::from_mode(0o755)).expect("its mode");
        let report: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        assert!(!report["models"].to_string().contains("gone"), "{mode:o}: {report:#}");
        let plan: Value = serde_json::from_slice(&missing.stdout).expect("JSON");
        assert_eq!(plan["candidates"], json!([]), "{mode:o}");
    }
    assert_eq!(code(&["sync", "--fast"]), Some(0));
    let list: Value = serde_json::from_slice(&as_nobody(&lab, &["list", "--json"]).stdout).expect("JSON");
    assert_eq!(names(&list).len(), 2);
    assert_eq!(model(&list, "acme/a")["storage"]["present"], true);
}

#[test]
#[cfg(target_os = "linux")]
fn few_threads_are_no_reason_to_panic() {
    let lab = Lab::new();
    for seed in 0..9 {
        let _ = lab.hub.repo(&format!("acme/{seed}")).snapshot(&four_bit(seed).files()).with_ref("main");
    }
    assert_eq!(as_nobody(&lab, &["sync", "--fast"]).status.code(), Some(0), "makes the copy");
    for limit in 1..9 {
        for args in ["sync --fast", "sync", "clean preview", "list"] {
            let home = lab.sandbox.root().join("nobody").join(format!("{limit}"));
            let bin = lab.sandbox.root().join("mlxman-for-all");
            let mut command = lab.sandbox.command("bash");
            if rustix::process::geteuid().is_root() {
                use std::os::unix::process::CommandExt as _;
                command.uid(65534).gid(65534);
            }
            let script = format!("ulimit -u {limit}; exec {} {args}", bin.display());
            let Ok(out) = command.env("MLXMAN_HOME", home).args(["-c", &script]).output() else { return };
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.code().is_some_and(|code| code != 101), "{limit} {args}: {said}");
            assert!(!said.contains("please report"), "{limit} {args}: {said}");
        }
    }
}

#[test]
fn a_directory_of_links_that_another_model_links_to() {
    let (lab, folder) = Lab::with_folder();
    folder.model("dev", &mlxman_testkit::diffusers(1, &["flux"]));
    folder.model("schnell", &mlxman_testkit::diffusers(2, &["flux"]));
    let (mine, theirs) = (folder.path("schnell/text_encoder"), folder.path("dev/text_encoder"));
    fs_err::remove_dir_all(&mine).expect("it goes");
    symlink("../dev/text_encoder", &mine).expect("a link");
    assert!(
        candidates(&lab.preview(&["--models", "dev", "--include-irreplaceable"])).contains("dev"),
        "their bytes stay, and are named nowhere"
    );
    // A link in it goes with its model, and no bytes stay in its place.
    for entry in fs_err::read_dir(&theirs).expect("its files") {
        let path = entry.expect("an entry").path();
        let moved = folder.path("dev").join(format!("of-{}", path.file_name().expect("a name").display()));
        fs_err::rename(&path, &moved).expect("it moves");
        symlink(&moved, &path).expect("a link");
    }
    assert_eq!(rule_of(&lab.preview(&["--models", "dev"]), "dev"), "linked_from");
}
