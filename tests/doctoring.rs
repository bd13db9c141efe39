//! `mlxman doctor`: what is wrong is told with what it costs and what mends it; `--fix` mends what needs no network, and
//! `undo` takes it back.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fs_err::os::unix::fs::symlink;
use mlxman_testkit::{HubStore, Repo, Snapshot, sha256_hex};
use serde_json::{Value, json};

use crate::lab::{DAY, Frozen, Lab, cut, four_bit, model, old_below};
use crate::registry::assert_valid;

/// What `doctor --json` says of the stores.
#[track_caller]
fn doctor(lab: &Lab, args: &[&str]) -> Value {
    let told = lab.json(["doctor"].iter().chain(args));
    assert_valid(lab, "repairs", &told["repairs"]);
    told
}

#[track_caller]
fn findings(told: &Value) -> Vec<Value> {
    told["repairs"]["findings"].as_array().expect("findings").clone()
}

/// The finding of this kind.
#[track_caller]
fn finding(told: &Value, kind: &str) -> Value {
    let found: Vec<Value> = findings(told).into_iter().filter(|one| one["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "`{kind}` should be there once: {:#}", told["repairs"]["findings"]);
    found.into_iter().next().expect("one")
}

fn repair(finding: &Value) -> &str {
    finding["repair"]["kind"].as_str().unwrap_or("none")
}

fn remove(path: &Path) {
    fs_err::remove_file(path).expect("it goes");
}

/// Mends, checks that nothing is wrong any more and that mending again does nothing, then takes it back and checks that
/// all is as it was.
#[track_caller]
fn mends(lab: &Lab, count: usize, while_mended: impl FnOnce()) {
    let root = lab.hub.root();
    let before = Frozen::of(root);
    let shown = doctor(lab, &["--fix", "--dry-run"]);
    before.assert_same(root, "looking");
    assert!(shown["mended"].is_null());
    let told = lab.run(["doctor", "--fix", "--yes", "--json"]).success().json();
    let mended = &told["mended"];
    assert_valid(lab, "applied", mended);
    let store = &mended["stores"][0];
    assert_eq!(store["done"].as_array().map(Vec::len), Some(count), "{mended:#}");
    assert_eq!(store["skipped"], json!([]), "{mended:#}");
    let again = lab.run(["doctor", "--fix", "--yes", "--json"]).success().json();
    assert_eq!(findings(&again), Vec::<Value>::new());
    assert!(again["mended"].is_null(), "{again:#}");
    while_mended();
    let list = lab.json(["trash", "list"]);
    assert_eq!(list["entries"][0]["purpose"], "repair", "{list:#}");
    assert_eq!(list["entries"][0]["rows"].as_array().map(Vec::len), Some(count), "{list:#}");
    let _ = lab.run(["undo"]).success();
    assert_eq!(Frozen::of(root).differing(&before), Vec::<PathBuf>::new(), "all is as it was");
    assert!(!root.join(".mlxman-trash").exists());
    let told = doctor(lab, &[]);
    assert_eq!(findings(&told).len(), findings(&shown).len());
}

fn tiny(lab: &Lab) -> Snapshot {
    lab.hub.repo("acme/tiny").snapshot(&four_bit(1).files()).with_ref("main")
}

#[test]
fn nothing_is_wrong() {
    let lab = Lab::new();
    let _ = tiny(&lab);
    let told = doctor(&lab, &[]);
    assert_eq!(findings(&told), Vec::<Value>::new());
    assert_eq!(told["repairs"]["useless_bytes"], 0);
    assert_eq!(told["repairs"]["stores"][0]["models"], 1);
    let out = lab.run(["doctor", "--fix", "--yes"]).success();
    assert!(out.stdout.contains("nothing is wrong"), "{out}");
    assert!(out.stderr.contains("nothing was touched"), "{out}");
    assert!(!lab.hub.root().join(".mlxman-trash").exists());
}

#[test]
fn without_a_store_the_engine_is_shown() {
    let lab = Lab::new();
    fs_err::remove_dir_all(lab.hub.root()).expect("gone");
    let out = lab.run(["doctor", "--json"]);
    assert!(matches!(out.code(), 0 | 1), "{out}");
    assert!(out.json()["mlxman_version"].is_string());
    assert!(out.json()["repairs"].is_null());
}

#[test]
fn a_ref_with_a_newline() {
    let lab = Lab::new();
    let snapshot = tiny(&lab);
    let main = snapshot.repo().path().join("refs/main");
    fs_err::write(&main, format!("{}\n", snapshot.commit)).expect("written");
    let found = finding(&doctor(&lab, &[]), "ref_newline");
    assert_eq!(found["place"], "models--acme--tiny/refs/main");
    assert_eq!(repair(&found), "rewrite_ref");
    assert!(found["useless_bytes"].as_u64() > Some(10_000), "hf does not find the model: {found:#}");
    mends(&lab, 1, || assert_eq!(fs_err::read_to_string(&main).expect("the ref"), snapshot.commit));
}

#[test]
fn a_shared_blob_that_does_not_name_a_user() {
    let lab = Lab::new();
    let hub = lab.sandbox.hub().shared();
    for repo in ["acme/one", "acme/two"] {
        let _ = hub.repo(repo).snapshot(&four_bit(1).files()).with_ref("main");
    }
    let lists: Vec<PathBuf> = walkdir::WalkDir::new(lab.hub.root().join("blobs"))
        .into_iter()
        .map(|entry| entry.expect("an entry").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "refs"))
        .collect();
    let list = lists.first().expect("a list");
    let whole = fs_err::read_to_string(list).expect("the list");
    let (kept, lost) = whole.trim_end().split_once('\n').expect("two users");
    fs_err::write(list, format!("{kept}\n")).expect("written");
    let _ = lab.json(["sync", "--fast"]);

    let found = finding(&doctor(&lab, &[]), "shared_blob_unlisted");
    assert_eq!((found["place"].as_str(), repair(&found)), (Some(lost), "list_user"));
    assert_eq!(found["repo_id"], "acme/two");
    let told = lab.run(["doctor", "--fix", "--yes", "--json"]).success().json();
    assert_eq!(told["mended"]["stores"][0]["done"].as_array().map(Vec::len), Some(1), "{told:#}");
    assert_eq!(fs_err::read_to_string(list).expect("the list"), whole);
    assert_eq!(findings(&doctor(&lab, &[])), Vec::<Value>::new());
    let rows = &lab.json(["trash", "list"])["entries"][0]["rows"];
    assert_eq!(rows[0]["what"].as_str(), Some(lost), "{rows:#}");
    let _ = lab.run(["undo"]).success();
    assert_eq!(fs_err::read_to_string(list).expect("the list"), format!("{kept}\n"));
    assert!(!lab.hub.root().join(".mlxman-trash").exists());

    // Where somebody works on it, it is left.
    let lock = fs_err::File::create(list.with_extension("lock")).expect("a lock");
    lock.file().lock().expect("held");
    assert_eq!(findings(&doctor(&lab, &[])), Vec::<Value>::new());
}

#[test]
fn links_that_a_copy_wrote_out_as_text() {
    let lab = Lab::new();
    let snapshot = tiny(&lab);
    let mut targets = Vec::new();
    for entry in fs_err::read_dir(snapshot.path()).expect("the snapshot") {
        let path = entry.expect("an entry").path();
        let target = fs_err::read_link(&path).expect("a link");
        remove(&path);
        fs_err::write(&path, target.to_string_lossy().as_bytes()).expect("written");
        targets.push((path, target));
    }
    assert_eq!(repair(&finding(&doctor(&lab, &[]), "flattened_link")), "unflatten");
    mends(&lab, 1, || {
        for (path, target) in targets {
            assert_eq!(fs_err::read_link(path).expect("a link"), target);
        }
    });
}

#[test]
fn links_lost_and_links_that_lead_elsewhere() {
    let lab = Lab::new();
    let snapshot = tiny(&lab);
    let link = |file: &str| snapshot.path().join(file);
    let was: Vec<(PathBuf, PathBuf)> = ["config.json", "model.safetensors", "tokenizer.json"]
        .into_iter()
        .map(|file| (link(file), fs_err::read_link(link(file)).expect("a link")))
        .collect();
    // One is lost, one leads to nothing, one leads to where the cache was before it was moved.
    was.iter().for_each(|(path, _)| remove(path));
    symlink("../../blobs/nothing", &was[0].0).expect("a link");
    let moved =
        format!("/mnt/old/hub/models--acme--tiny/blobs/{}", was[2].1.file_name().expect("a name").display());
    symlink(moved, &was[2].0).expect("a link");
    let told = doctor(&lab, &[]);
    assert_eq!(repair(&finding(&told, "dangling_link")), "restore_link");
    assert_eq!(repair(&finding(&told, "link_outside_store")), "restore_link");
    let count = findings(&told).iter().filter(|one| repair(one) != "none").count();
    mends(&lab, count, || {
        for (path, target) in &was {
            assert_eq!(&fs_err::read_link(path).expect("a link"), target);
        }
    });
}

#[test]
fn a_blob_of_another_size_is_not_linked() {
    let lab = Lab::new();
    let snapshot = tiny(&lab);
    let blob = snapshot.blob_of("model.safetensors");
    remove(&snapshot.path().join("model.safetensors"));
    cut(&blob, blob.metadata().expect("the blob").len() - 1);
    let told = doctor(&lab, &["--fix", "--dry-run"]);
    assert!(findings(&told).iter().all(|one| repair(one) == "none"), "{told:#}");
}

#[test]
fn what_only_a_download_mends_says_which() {
    let lab = Lab::new();
    let snapshot = tiny(&lab);
    let commit = &snapshot.commit;
    remove(&snapshot.blob_of("tokenizer.json"));
    let damaged = lab.hub.repo("acme/cut").snapshot(&four_bit(2).files()).with_ref("main");
    let blob = damaged.blob_of("model.safetensors");
    cut(&blob, blob.metadata().expect("the blob").len() - 1);
    let told = doctor(&lab, &[]);
    let found = finding(&told, "dangling_link");
    assert_eq!(found["command"], format!("hf download acme/tiny tokenizer.json --revision {commit}"));
    assert_eq!(found["severity"], "error");
    let cut = finding(&told, "truncated_weights");
    let command =
        format!("hf download acme/cut model.safetensors --revision {} --force-download", damaged.commit);
    assert_eq!(cut["command"], command, "what is there is not fetched again without being told to");
    // A store that `hf` does not look into by itself is named.
    let other = HubStore::create(lab.sandbox.root().join("other hub"));
    let elsewhere = other.repo("acme/tiny").snapshot(&four_bit(1).files()).with_ref("main");
    remove(&elsewhere.blob_of("tokenizer.json"));
    let told = doctor(&lab, &["--store", &format!("hub={}", other.root().display())]);
    let command = finding(&told, "dangling_link")["command"].as_str().expect("a command").to_owned();
    assert!(command.ends_with(&format!("--cache-dir '{}'", other.root().display())), "{command}");
    let out = lab.run(["doctor", "--fix", "--yes"]).expect_code(1);
    assert!(out.stdout.contains("run: hf download acme/tiny tokenizer.json"), "{out}");
}

#[test]
fn leftovers_go_only_as_a_preview_lets_them() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/tiny");
    let _ = repo.snapshot(&four_bit(1).files()).with_ref("main");
    let dead = repo.partial(&sha256_hex(b"dead"), "0a0a0a0a", &[1; 9000]);
    let live = lab.hub.repo("acme/live");
    let _ = live.snapshot(&four_bit(2).files()).with_ref("main");
    let etag = sha256_hex(b"live");
    let partial = live.partial(&etag, "0a0a0a0a", &[1; 9000]);
    let lock = fs_err::File::create(live.lock(&etag)).expect("a lock");
    lock.file().lock().expect("held");
    old_below(lab.hub.root(), DAY);
    let told = doctor(&lab, &[]);
    let found = finding(&told, "partial_dead");
    assert_eq!(repair(&found), "remove_partial");
    assert_eq!(found["useless_bytes"], 12_288, "{found:#}");
    let running = finding(&told, "partial_live");
    assert_eq!(repair(&running), "none");
    let out = lab.run(["doctor", "--fix", "--yes"]).expect_code(1);
    assert!(out.stdout.contains("mended"), "{out}");
    assert!(!dead.exists() && partial.exists());
    lock.file().unlock().expect("given back");
}

#[test]
fn a_repo_that_a_download_works_on_is_left() {
    let lab = Lab::new();
    let snapshot = tiny(&lab);
    let main = snapshot.repo().path().join("refs/main");
    fs_err::write(&main, format!("{}\n", snapshot.commit)).expect("written");
    let lock = fs_err::File::create(snapshot.repo().lock(&sha256_hex(b"live"))).expect("a lock");
    lock.file().lock().expect("held");
    let found = finding(&doctor(&lab, &["--fix", "--dry-run"]), "ref_newline");
    assert_eq!(repair(&found), "none");
    assert!(found["held"].as_str().is_some_and(|why| why.contains("download")), "{found:#}");
    let _ = lab.run(["doctor", "--fix", "--yes"]).expect_code(1);
    assert!(fs_err::read_to_string(main).expect("the ref").ends_with('\n'));
}

#[test]
fn an_empty_snapshot_and_what_mlx_lm_leaves() {
    let lab = Lab::new();
    let empty = lab.hub.repo("acme/empty");
    fs_err::create_dir_all(empty.snapshot_path(&"3".repeat(40))).expect("a directory");
    empty.add_ref("main", &"3".repeat(40));
    // `mlx_lm.manage --delete` takes the snapshots and leaves the blobs, the listing and the ref.
    let snapshot = tiny(&lab);
    let files: Vec<PathBuf> = files_of(&snapshot.path());
    fs_err::remove_dir_all(snapshot.path()).expect("gone");
    old_below(empty.path().as_path(), 90 * DAY);
    let told = doctor(&lab, &[]);
    assert_eq!(repair(&finding(&told, "empty_snapshot")), "remove_empty");
    // What can be adopted is not advised to be removed.
    assert_eq!(finding(&told, "repo_without_snapshot")["command"], Value::Null);
    let adopted = findings(&told).iter().filter(|one| repair(one) == "adopt_blob").count();
    assert_eq!(adopted, files.len());
    mends(&lab, adopted + 1, || {
        assert_eq!(files_of(&snapshot.path()), files);
        assert_eq!(model(&lab.list(), "acme/tiny")["health"]["status"], "complete");
        assert!(!empty.path().exists());
    });
}

/// The command that is told removes what the finding is about, and nothing else.
#[test]
fn leftovers_are_told_with_what_removes_them_alone() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let detached = repo.snapshot(&four_bit(1).files());
    let _ = repo.snapshot(&four_bit(2).files()).with_ref("main");
    let orphan = repo.orphan(&[5; 30_000]);
    let other = lab.hub.repo("acme/two");
    let _ = other.snapshot(&four_bit(3).files()).with_ref("main");
    let others = other.orphan(&[6; 30_000]);
    // With the only blob of a repo the repo can go; a data set of a model's name cannot be told by a filter.
    let gone = lab.hub.repo("acme/gone").orphan(&[7; 30_000]);
    fs_err::create_dir_all(lab.hub.root().join("datasets--acme--two/blobs")).expect("a directory");
    old_below(lab.hub.root(), 90 * DAY);
    let told = doctor(&lab, &[]);
    let all = findings(&told);
    let command = |kind: &str, repo: &str| -> Vec<String> {
        let of = all.iter().filter(|one| one["kind"] == kind && one["repo_id"] == repo);
        of.map(|one| one["command"].as_str().unwrap_or("none").to_owned()).collect()
    };
    assert_eq!(command("repo_without_snapshot", "acme/two"), ["none"]);
    let commands =
        [command("orphan_blob", "acme/one"), command("repo_without_snapshot", "acme/gone")].concat();
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in commands {
        assert!(command.contains("--no-policies") && command.contains("--store hub="), "{command}");
        let _ = lab.run(command.split(' ').skip(1).chain(["--yes"])).success();
    }
    assert!(!orphan.exists() && !gone.exists() && others.exists() && detached.path().exists());
    assert!(!lab.hub.root().join("models--acme--gone").exists());
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs_err::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

#[test]
fn an_index_is_made_again_in_a_folder_and_never_in_a_cache() {
    const INDEX: &str = "model.safetensors.index.json";
    let (lab, folder) = Lab::with_folder();
    let files = four_bit(3).shards(3).files();
    let lost = folder.model("lost", &files).join(INDEX);
    let was: Value = serde_json::from_slice(&fs_err::read(&lost).expect("an index")).expect("JSON");
    remove(&lost);
    let stale = folder.model("stale", &files).join(INDEX);
    let moved = fs_err::read_to_string(&stale).expect("text").replace("00001-of-00003", "00002-of-00003");
    fs_err::write(&stale, &moved).expect("written");
    let cached = lab.hub.repo("acme/cached").snapshot(&files).with_ref("main");
    remove(&cached.path().join(INDEX));
    remove(&cached.repo().blob(&mlxman_testkit::etag(INDEX, find(&files, INDEX))));
    // With a shard that is cut there is nothing to make one from.
    let broken = folder.model("broken", &files);
    remove(&broken.join(INDEX));
    let shard = broken.join("model-00002-of-00003.safetensors");
    cut(&shard, shard.metadata().expect("a shard").len() - 1);
    let told = doctor(&lab, &[]);
    let of = |name: &str, kind: &str| {
        let found = findings(&told);
        found
            .into_iter()
            .find(|one| one["model"] == name && one["kind"] == kind)
            .unwrap_or_else(|| panic!("{told:#}"))
    };
    assert_eq!(repair(&of("lost", "missing_index")), "rebuild_index");
    assert_eq!(repair(&of("stale", "stale_index")), "rebuild_index");
    assert_eq!(repair(&of("broken", "missing_index")), "none");
    let in_cache = of("acme/cached", "missing_index");
    assert_eq!(repair(&in_cache), "none");
    let command = format!("hf download acme/cached {INDEX} --revision {}", cached.commit);
    assert_eq!(in_cache["command"], command);
    let before = Frozen::of(folder.root());
    let _ = lab.run(["doctor", "--fix", "--yes"]).expect_code(1);
    for index in [&lost, &stale] {
        let now: Value = serde_json::from_slice(&fs_err::read(index).expect("an index")).expect("JSON");
        assert_eq!(now["weight_map"], was["weight_map"], "{}", index.display());
        assert_eq!(now["metadata"]["total_size"], was["metadata"]["total_size"]);
    }
    let list = lab.list();
    for name in ["lost", "stale"] {
        assert_eq!(model(&list, name)["health"]["problems"], json!([]), "{name}");
    }
    let _ = lab.run(["undo"]).success();
    assert_eq!(Frozen::of(folder.root()).differing(&before), Vec::<PathBuf>::new());
    assert!(!lost.exists());
}

fn find<'a>(files: &'a [(String, Vec<u8>)], name: &str) -> &'a [u8] {
    &files.iter().find(|(path, _)| path == name).expect("it is there").1
}

#[test]
fn permissions_of_a_shared_store_are_told_and_left() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::new();
    let snapshot = tiny(&lab);
    assert!(findings(&doctor(&lab, &[])).is_empty(), "one user's own cache is nobody else's");
    fs_err::set_permissions(lab.hub.root(), std::fs::Permissions::from_mode(0o2775)).expect("set");
    fs_err::set_permissions(snapshot.path(), std::fs::Permissions::from_mode(0o700)).expect("set");
    let before = Frozen::of(lab.hub.root());
    let found = finding(&doctor(&lab, &["--fix", "--dry-run"]), "shared_permissions");
    assert_eq!(repair(&found), "none");
    let command = found["command"].as_str().expect("a command");
    for part in ["chgrp -R", "g+rwxs", "umask 002", &lab.hub.root().display().to_string()] {
        assert!(command.contains(part), "{command}");
    }
    let _ = lab.run(["doctor", "--fix", "--yes"]).expect_code(1);
    before.assert_same(lab.hub.root(), "permissions are other people's");
    // What it says does it, but for asking for the rights.
    let mine = command.replace("sudo ", "");
    let status = Command::new("sh").arg("-c").arg(&mine).status().expect("a shell");
    assert!(status.success(), "{mine}");
    assert!(findings(&doctor(&lab, &[])).is_empty());
}

#[test]
fn without_a_terminal_it_asks_for_yes() {
    let lab = Lab::new();
    let snapshot = tiny(&lab);
    let main = snapshot.repo().path().join("refs/main");
    fs_err::write(&main, format!("{}\n", snapshot.commit)).expect("written");
    let before = Frozen::of(lab.hub.root());
    let out = lab.run(["doctor", "--fix"]).expect_code(2);
    assert!(out.stderr.contains("--yes"), "{out}");
    let _ = lab.run(["doctor", "--yes"]).expect_code(2);
    before.assert_same(lab.hub.root(), "nothing was said");
}

#[test]
fn mended_by_two_at_once() {
    let lab = Lab::new();
    let repos: Vec<Repo> = (0..8).map(|at| lab.hub.repo(&format!("acme/m{at}"))).collect();
    for repo in &repos {
        let snapshot = repo.snapshot(&four_bit(1).files());
        fs_err::create_dir_all(repo.path().join("refs")).expect("a directory");
        fs_err::write(repo.path().join("refs/main"), format!(" {}\n", snapshot.commit)).expect("written");
    }
    let args = ["doctor", "--fix", "--yes"];
    let mut both = [lab.spawn(&args), lab.spawn(&args)];
    for child in &mut both {
        let code = child.wait().expect("it ends").code();
        assert!(matches!(code, Some(0 | 1)), "{code:?}");
    }
    for repo in &repos {
        assert_eq!(fs_err::read(repo.path().join("refs/main")).expect("the ref").len(), 40);
    }
    assert!(findings(&doctor(&lab, &[])).is_empty());
}

/// Asks the real library, where there is one: after `--fix` it sees every repo that it left out before.
#[test]
fn the_library_finds_again_what_was_mended() {
    let Some(python) = std::env::var_os("MLXMAN_TEST_PYTHON") else { return };
    let lab = Lab::new();
    let snapshot = tiny(&lab);
    fs_err::write(snapshot.repo().path().join("refs/main"), format!("{}\n", snapshot.commit))
        .expect("written");
    let dangling = lab.hub.repo("acme/dangling").snapshot(&four_bit(2).files()).with_ref("main");
    let link = dangling.path().join("config.json");
    remove(&link);
    symlink("../../blobs/nothing", &link).expect("a link");
    let gone = lab.hub.repo("acme/gone").snapshot(&four_bit(3).files()).with_ref("main");
    fs_err::remove_dir_all(gone.path().parent().expect("snapshots")).expect("gone");
    let ask = || -> Vec<String> {
        let script = "import json, sys\nfrom huggingface_hub import scan_cache_dir\n\
                      print(json.dumps(sorted(r.repo_id for r in scan_cache_dir(sys.argv[1]).repos)))";
        let mut command = lab.sandbox.command(&python);
        let output = command.args(["-c", script]).arg(lab.hub.root()).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    assert_eq!(ask(), [""; 0], "the library leaves all of them out");
    old_below(lab.hub.root(), Duration::from_secs(60));
    let _ = lab.run(["doctor", "--fix", "--yes"]).success();
    assert_eq!(ask(), ["acme/dangling", "acme/gone", "acme/tiny"]);
}

/// One store that cannot be mended keeps none of the others from it, and what was mended is told.
#[test]
fn a_store_that_cannot_be_mended_hides_no_other() {
    let lab = Lab::new();
    let others: Vec<HubStore> =
        ["a", "b", "c"].iter().map(|name| HubStore::create(lab.sandbox.root().join(name))).collect();
    let mut args: Vec<String> = ["doctor", "--fix", "--yes", "--json"].map(str::to_owned).to_vec();
    for hub in &others {
        let snapshot = hub.repo("acme/tiny").snapshot(&four_bit(1).files()).with_ref("main");
        fs_err::write(snapshot.repo().path().join("refs/main"), format!("{}\n", snapshot.commit))
            .expect("written");
        args.extend(["--store".to_owned(), format!("hub={}", hub.root().display())]);
    }
    // What stands in the place of its trash cannot be used.
    fs_err::write(others[1].root().join(".mlxman-trash"), "in the way").expect("written");
    let out = lab.run(&args).expect_code(1);
    let mended = &out.json()["mended"]["stores"];
    let done = |store: &Value| store["done"].as_array().map_or(0, Vec::len);
    let counts: Vec<usize> = mended.as_array().expect("stores").iter().map(done).collect();
    assert_eq!(counts, [1, 0, 1], "{mended:#}");
    assert!(out.stderr.contains(".mlxman-trash"), "{out}");
}

/// A repo's other weights were perhaps never asked for: only what is missed is linked.
#[test]
fn only_the_weights_that_are_missed_are_linked() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/sharded");
    let mut files = four_bit(1).shards(2).files();
    files.push(("other.safetensors".to_owned(), vec![1; 3000]));
    // Another snapshot has them all, so no blob is without a user.
    let mut older = files.clone();
    older.push(("old.txt".to_owned(), vec![2; 30]));
    let _ = repo.snapshot(&older);
    let snapshot = repo.snapshot(&files).with_ref("main");
    let shard = snapshot.path().join("model-00002-of-00002.safetensors");
    for path in [shard, snapshot.path().join("other.safetensors")] {
        remove(&path);
    }
    old_below(lab.hub.root(), DAY);
    let found = finding(&doctor(&lab, &[]), "missing_shard");
    let changes = found["repair"]["changes"].as_array().expect("changes");
    assert_eq!(changes.len(), 1, "{found:#}");
    assert!(
        changes[0]["path"].as_str().is_some_and(|path| path.ends_with("model-00002-of-00002.safetensors"))
    );
}

/// Some models have tensors in files beside the numbered ones: an index that is made again names those, too.
#[test]
fn an_index_that_is_made_again_loses_no_tensor() {
    use mlxman_testkit::safetensors::{Dtype, Tensor, header};
    let (lab, folder) = Lab::with_folder();
    let dir = folder.model("sharded", &four_bit(1).shards(2).files());
    let mut extra = header(&[Tensor::new("mtp.weight", Dtype::BF16, &[4])], &[("format", "mlx")]);
    extra.extend([0; 8]);
    fs_err::write(dir.join("mtp.safetensors"), extra).expect("written");
    let path = dir.join("model.safetensors.index.json");
    let mut index: Value = serde_json::from_slice(&fs_err::read(&path).expect("the index")).expect("JSON");
    let map = index["weight_map"].as_object_mut().expect("a map");
    // One of them is in the other file.
    let (name, shard) =
        map.iter().next().map(|(name, shard)| (name.clone(), shard.clone())).expect("a tensor");
    let other = map.values().find(|one| **one != shard).expect("two shards").clone();
    map.insert(name.clone(), other);
    map.insert("mtp.weight".to_owned(), json!("mtp.safetensors"));
    index["x_note"] = json!("mine");
    fs_err::write(&path, index.to_string()).expect("written");
    old_below(folder.root(), DAY);
    let _ = lab.run(["doctor", "--fix", "--yes"]);
    let made: Value = serde_json::from_slice(&fs_err::read(&path).expect("the index")).expect("JSON");
    assert_eq!(made["weight_map"][&name], shard, "{made:#}");
    assert_eq!(made["weight_map"]["mtp.weight"], "mtp.safetensors", "{made:#}");
    assert_eq!(made["x_note"], "mine", "{made:#}");
}

/// A link that somebody made to a file of their own is meant so, and takes no room from its repo's blobs.
#[test]
fn a_link_to_a_file_of_ones_own_stays() {
    let lab = Lab::new();
    let snapshot = tiny(&lab);
    let mine = lab.sandbox.work().join("mine.safetensors");
    fs_err::write(&mine, [1; 3000]).expect("written");
    let link = snapshot.path().join("model.safetensors");
    remove(&link);
    symlink(&mine, &link).expect("linked");
    old_below(lab.hub.root(), DAY);
    let found = finding(&doctor(&lab, &[]), "link_outside_store");
    assert_eq!(repair(&found), "none", "{found:#}");
    let plan = lab.preview(&["--models", "acme/tiny"]);
    let row = &plan["candidates"][0];
    assert!(row["reclaimable_bytes"].as_u64() > Some(12_288), "its blobs go with it: {row:#}");
}
