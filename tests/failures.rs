//! Eleven ways in which other programs lose models, or say of them what is not so: one test each that none of them is
//! mlxman's. The first line of each says who was seen to fail so.

use std::os::unix::fs::PermissionsExt;

use mlxman_testkit::{sha256_hex, text};
use serde_json::{Value, json};

use crate::damage::as_nobody;
use crate::lab::{DAY, Frozen, Lab, candidates, cut, du, four_bit, model, names, old_below, snapshot};

const APPLY: [&str; 4] = ["clean", "apply", "--yes", "--json"];

#[track_caller]
fn apply(lab: &Lab, args: &[&str]) -> Value {
    lab.run(APPLY.iter().chain(args)).success().json()
}

#[track_caller]
fn done(applied: &Value) -> Vec<String> {
    let rows = applied["stores"][0]["done"].as_array().expect("`done`").iter();
    rows.map(|row| row["what"].as_str().expect("text").to_owned()).collect()
}

/// Every byte of every file of a snapshot is what its name says.
#[track_caller]
fn is_whole(lab: &Lab, name: &str) {
    let out = lab.run(["verify", "--level", "integrity", "--again", "--json", name]).success().json();
    assert_eq!(out["results"][0]["verdict"], "pass", "{out:#}");
}

/// mlx-knife: `rm repo@rev` deletes the whole repo, main included.
#[test]
fn one_revision_takes_no_other_with_it() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let _ = repo.snapshot_at(&"1".repeat(40), &four_bit(1).files());
    let _ = repo.snapshot_at(&"2".repeat(40), &four_bit(2).files()).with_ref("main");
    old_below(lab.hub.root(), 30 * DAY);
    lab.sync();
    let applied = apply(&lab, &["--models", "acme/one@11111111*", "--now"]);
    assert_eq!(done(&applied).len(), 1, "{applied:#}");
    lab.sync();
    let list = lab.list();
    assert_eq!(snapshot(&list, "acme/one", &"2".repeat(40))["storage"]["present"], true);
    assert_eq!(
        lab.json(["path", "acme/one"])["path"].as_str().map(|path| path.ends_with(&"2".repeat(40))),
        Some(true)
    );
    is_whole(&lab, "acme/one");
}

/// huggingface_hub before the shared blobs had lists: a shared blob goes although another repo uses it.
#[test]
fn a_shared_blob_stays_with_its_other_user() {
    let mut lab = Lab::new();
    lab.hub = lab.hub.shared();
    for repo in ["acme/one", "acme/two"] {
        let _ = lab.hub.repo(repo).snapshot(&four_bit(1).files()).with_ref("main");
    }
    old_below(lab.hub.root(), 30 * DAY);
    lab.sync();
    let applied = apply(&lab, &["--models", "acme/one", "--now"]);
    assert_eq!(done(&applied), ["acme/one"]);
    is_whole(&lab, "acme/two");
    let applied = apply(&lab, &["--models", "acme/two", "--now"]);
    assert_eq!(done(&applied), ["acme/two"]);
    let blobs = walkdir::WalkDir::new(lab.hub.root().join("blobs")).into_iter().flatten();
    let left: Vec<_> = blobs.filter(|entry| entry.file_name().len() == 64).collect();
    assert!(left.is_empty(), "with the last of them they go: {left:?}");
}

/// `hf cache rm` without permission: a traceback, then `Deleted 1 repo(s)`, exit 0, and nothing was deleted.
#[test]
fn what_may_not_be_removed_is_told_and_stays() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/one").snapshot(&four_bit(1).files()).with_ref("main");
    old_below(lab.hub.root(), 30 * DAY);
    if !rustix::process::geteuid().is_root() {
        fs_err::set_permissions(lab.hub.root(), PermissionsExt::from_mode(0o555)).expect("closed");
    }
    let before = Frozen::of(lab.hub.root());
    let out = as_nobody(&lab, &["clean", "apply", "--models", "acme/one", "--yes", "--json"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let differing = Frozen::of(lab.hub.root()).differing(&before);
    assert!(differing.is_empty(), "an apply without permission: {differing:?}");
    fs_err::set_permissions(lab.hub.root(), PermissionsExt::from_mode(0o755)).expect("open");
    assert_eq!(out.status.code(), Some(3), "{said}");
    assert!(said.contains("ermission") && !said.contains("panicked"), "{said}");
    let said_done = serde_json::from_slice::<Value>(&out.stdout).ok();
    let freed = said_done.map_or(json!(0), |applied| applied["freed_bytes"].clone());
    assert_eq!(freed, 0, "nothing is said to be freed");
}

/// `mlx_lm.manage --delete`: the snapshots go, every blob stays, and nothing finds them any more.
#[test]
fn no_blob_stays_behind_and_those_of_others_are_found() {
    let lab = Lab::new();
    for (seed, repo) in ["acme/one", "acme/managed"].into_iter().enumerate() {
        let _ = lab.hub.repo(repo).snapshot(&four_bit(seed as u64).files()).with_ref("main");
    }
    old_below(lab.hub.root(), 30 * DAY);
    lab.sync();
    let _ = apply(&lab, &["--models", "acme/one", "--now"]);
    assert!(!lab.hub.root().join("models--acme--one").exists());
    // What that program leaves is found, and told with what it takes.
    fs_err::remove_dir_all(lab.hub.repo("acme/managed").path().join("snapshots")).expect("gone");
    let left =
        du(&lab.hub.repo("acme/managed").path()) + du(&lab.hub.root().join(".locks/models--acme--managed"));
    let plan = lab.preview(&[]);
    assert!(candidates(&plan).contains("models--acme--managed"), "{plan:#}");
    assert_eq!(plan["total_reclaimable_bytes"], left, "{plan:#}");
    let _ = apply(&lab, &["--now"]);
    assert!(!lab.hub.root().join("models--acme--managed").exists());
}

/// `hf cache verify`: a model whose weights are missing passes; with a mismatch, `--json` leaves stdout empty.
#[test]
fn missing_weights_and_mismatches_fail_and_are_told_as_json() {
    let lab = Lab::new();
    let missing = lab.hub.repo("acme/missing").snapshot(&four_bit(1).files()).with_ref("main");
    fs_err::remove_file(missing.path().join("model.safetensors")).expect("the link goes");
    fs_err::remove_file(lab.hub.repo("acme/missing").blob(&sha256_hex(
        &four_bit(1).files().into_iter().find(|(name, _)| name == "model.safetensors").expect("weights").1,
    )))
    .expect("the blob goes");
    let mismatch = lab.hub.repo("acme/mismatch").snapshot(&four_bit(2).files()).with_ref("main");
    let mut bytes = fs_err::read(mismatch.blob_of("model.safetensors")).expect("weights");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(mismatch.blob_of("model.safetensors"), bytes).expect("written");
    let out = lab.run(["verify", "--level", "integrity", "--json"]).expect_code(1).json();
    let verdicts: Vec<&str> = out["results"]
        .as_array()
        .expect("`results`")
        .iter()
        .filter_map(|row| row["verdict"].as_str())
        .collect();
    assert_eq!(verdicts, ["fail", "fail"], "{out:#}");
}

/// `hf cache prune`: partial files of a running download go, their lock held; and snapshots that were fetched by commit.
#[test]
fn what_a_download_writes_and_what_was_asked_for_by_commit_stays() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let _ = repo.snapshot_at(&"2".repeat(40), &four_bit(2).files()).with_ref("main");
    let etag = sha256_hex(b"running");
    let partial = repo.partial(&etag, "0a0a0a0a", &[1; 20_000]);
    old_below(lab.hub.root(), 30 * DAY);
    let by_commit = repo.snapshot_at(&"3".repeat(40), &four_bit(3).files());
    let lock = repo.lock(&etag);
    fs_err::create_dir_all(lock.parent().expect("a directory")).expect("made");
    let lock = fs_err::File::create(lock).expect("a lock");
    lock.file().lock().expect("held");
    for args in
        [&[][..], &["--partials"], &["--detached"], &["--older-than", "1d"], &["--broken", "--orphans"]]
    {
        let _ = lab.run(APPLY.iter().chain(args));
        assert!(partial.exists() && by_commit.path().join("config.json").exists(), "{args:?}");
    }
}

/// mlx-knife: one broken link makes it fail for every model. hf: broken repos are dropped from the list, and from the total.
#[test]
fn a_broken_repo_is_a_row_and_hides_no_other() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/well").snapshot(&four_bit(1).files()).with_ref("main");
    let dangling = lab.hub.repo("acme/dangling").snapshot(&four_bit(2).files()).with_ref("main");
    fs_err::remove_file(dangling.blob_of("config.json")).expect("the blob goes");
    let newline = lab.hub.repo("acme/newline").snapshot(&four_bit(3).files()).with_ref("main");
    fs_err::write(newline.repo().path().join("refs/main"), format!("{}\n", newline.commit)).expect("written");
    lab.sync_any();
    let list = lab.list();
    assert_eq!(names(&list).len(), 3, "{list:#}");
    assert_eq!(model(&list, "acme/well")["health"]["status"], "complete");
    assert_ne!(model(&list, "acme/dangling")["health"]["status"], "complete");
    let stores = lab.json(["stores"]);
    assert_eq!(stores[0]["usage"]["allocated_bytes"], du(lab.hub.root()), "{stores:#}");
}

/// mlx-knife, hf-fm, `hf download`: truncated weights are healthy; a flipped bit loads, so a smoke load alone proves too
/// little.
#[test]
fn truncated_weights_and_a_flipped_bit_are_found() {
    let lab = Lab::new();
    let truncated = lab.hub.repo("acme/truncated").snapshot(&four_bit(1).files()).with_ref("main");
    let blob = truncated.blob_of("model.safetensors");
    cut(&blob, blob.metadata().expect("a stat").len() - 100);
    let flipped = lab.hub.repo("acme/flipped").snapshot(&four_bit(2).files()).with_ref("main");
    let mut bytes = fs_err::read(flipped.blob_of("model.safetensors")).expect("weights");
    let middle = bytes.len() - 200;
    bytes[middle] ^= 8;
    fs_err::write(flipped.blob_of("model.safetensors"), bytes).expect("written");
    lab.sync_any();
    let list = lab.list();
    assert_eq!(model(&list, "acme/truncated")["health"]["status"], "damaged");
    let out = lab.run(["verify", "--level", "structure", "--json", "acme/truncated"]).expect_code(1).json();
    assert_eq!(out["results"][0]["verdict"], "fail", "{out:#}");
    let out = lab.run(["verify", "--level", "integrity", "--json", "acme/flipped"]).expect_code(1).json();
    let damaged = &out["results"][0]["integrity"]["damaged"][0];
    assert_eq!(damaged["path"], "model.safetensors", "{out:#}");
    let command = damaged["fetch_again"].as_str().expect("a command");
    assert!(command.contains("model.safetensors") && command.contains("--force-download"), "{command}");
}

/// lmstudio_hf: a real download of LM Studio is deleted, taken for a link of its own.
#[test]
fn what_lies_in_another_folder_is_its_own() {
    let (lab, folder) = Lab::with_folder();
    let files = four_bit(1).files();
    let _ = lab.hub.repo("acme/one").snapshot(&files).with_ref("main");
    let real = folder.model("acme/one", &files);
    let linked = folder.path("acme/linked");
    fs_err::create_dir_all(&linked).expect("made");
    let snapshot = lab.hub.repo("acme/two").snapshot(&four_bit(2).files()).with_ref("main");
    for (name, _) in four_bit(2).files() {
        std::os::unix::fs::symlink(snapshot.path().join(&name), linked.join(&name)).expect("linked");
    }
    old_below(lab.hub.root(), 30 * DAY);
    old_below(folder.root(), 30 * DAY);
    lab.sync_any();
    let before = Frozen::of(&real);
    let _ = lab.run(APPLY.iter().chain(&["--models", "acme/*", "--store", "hub", "--include-irreplaceable"]));
    before.assert_same(&real, "what went from the cache");
    // And what a link leads to is needed.
    assert!(fs_err::read(linked.join("config.json")).is_ok(), "the other is not left with links to nothing");
}

/// Reading a file for a checksum makes it recently used, by the time of last access.
#[test]
fn checking_is_no_use() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/one").snapshot(&four_bit(1).files()).with_ref("main");
    old_below(lab.hub.root(), 100 * DAY);
    let before = Frozen::of(lab.hub.root());
    let _ = lab.run(["sync"]).success();
    let _ = lab.run(["verify", "--level", "integrity", "--again"]).success();
    let _ = lab.run(["doctor"]);
    let _ = lab.run(["clean", "dedupe", "--min-size", "1"]);
    before.assert_same(lab.hub.root(), "reading, with the times of last access");
    assert_eq!(candidates(&lab.preview(&["--older-than", "90d"])), ["acme/one".to_owned()].into());
    let _ = lab.run(["path", "acme/one"]).success();
    assert!(candidates(&lab.preview(&["--older-than", "90d"])).is_empty(), "that is a use");
}

/// Filters elsewhere refuse `1.5MB`, `1MiB`, `1 KB`; JSON has "1.8M" and "3 months ago".
#[test]
fn sizes_are_read_as_people_write_them_and_written_as_numbers() {
    let lab = Lab::new();
    let mut files = four_bit(1).files();
    files.push(text("large.bin", &"x".repeat(1_200_000)));
    let _ = lab.hub.repo("acme/one").snapshot(&files).with_ref("main");
    old_below(lab.hub.root(), 100 * DAY);
    lab.sync();
    for (filter, matches) in
        [("size>1MB", 1), ("size>1 MiB", 1), ("size>1.5MB", 0), ("size > 1 KB", 1), ("used>30d", 1)]
    {
        let plan = lab.preview(&["--filter", filter]);
        assert_eq!(candidates(&plan).len(), matches, "{filter}: {plan:#}");
    }
    let plan = lab.preview(&["--models", "acme/one"]);
    let row = &plan["candidates"][0];
    assert!(row["reclaimable_bytes"].is_u64() && row["size_bytes"].is_u64(), "{row:#}");
    for time in [&plan["created_at"], &row["last_used"], &row["last_modified"]] {
        let time = time.as_str().expect("a time");
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    }
}
