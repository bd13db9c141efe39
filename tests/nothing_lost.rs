//! What `clean preview` must never name: bytes that something kept, another program, or somebody unseen needs. Each case
//! is a way in which "no snapshot uses it" is not known, only not seen.

use std::path::Path;
use std::time::SystemTime;

use fs_err::os::unix::fs::symlink;
use mlxman_testkit::{set_age, sha256_hex, text};
use serde_json::{Value, json};

use crate::lab::{DAY, Lab, candidates, four_bit, model, old_below};

/// The rules that kept something, by what they kept.
fn kept(plan: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    plan["kept"]
        .as_array()
        .expect("kept")
        .iter()
        .map(|one| (text(&one["model"]), text(&one["rule"])))
        .collect()
}

/// A plan without filters names nothing at all.
#[track_caller]
fn nothing_goes(lab: &Lab) {
    lab.sync_any();
    let plan = lab.preview(&[]);
    assert_eq!(plan["candidates"], json!([]), "{plan:#}");
    assert_eq!(plan["total_reclaimable_bytes"], 0);
}

fn rename(from: &Path, to: &Path) {
    fs_err::rename(from, to).expect("renamed");
}

#[test]
fn links_that_name_the_store_in_another_way() {
    let lab = Lab::new();
    let snapshot = lab.hub.repo("acme/one").snapshot(&four_bit(1).files()).with_ref("main");
    let other = lab.sandbox.root().join("another-name");
    symlink(lab.hub.root(), &other).expect("a link");
    for file in fs_err::read_dir(snapshot.path()).expect("the snapshot") {
        let path = file.expect("a file").path();
        let blob = fs_err::read_link(&path).expect("a link");
        let name = blob.file_name().expect("a name").to_owned();
        fs_err::remove_file(&path).expect("gone");
        symlink(other.join("models--acme--one/blobs").join(name), &path).expect("linked");
    }
    nothing_goes(&lab);
    assert_eq!(model(&lab.list(), "acme/one")["health"]["status"], "complete", "they lead into the store");
}

#[test]
fn a_snapshot_that_is_not_named_by_a_commit() {
    let lab = Lab::new();
    let snapshot = lab.hub.repo("acme/one").snapshot(&four_bit(1).files());
    rename(&snapshot.path(), &snapshot.path().with_file_name("main"));
    nothing_goes(&lab);
}

#[test]
fn snapshots_that_are_a_link() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let _ = repo.snapshot(&four_bit(1).files()).with_ref("main");
    let moved = lab.sandbox.root().join("moved");
    rename(&repo.path().join("snapshots"), &moved);
    symlink(&moved, repo.path().join("snapshots")).expect("a link");
    nothing_goes(&lab);
}

#[test]
fn a_blob_that_another_repo_links_to() {
    let lab = Lab::new();
    let owner = lab.hub.repo("acme/owner").snapshot(&four_bit(1).files()).with_ref("main");
    let user = lab.hub.repo("acme/user").snapshot(&four_bit(1).files()).with_ref("main");
    let blob = owner.blob_of("model.safetensors");
    let link = user.path().join("model.safetensors");
    fs_err::remove_file(user.blob_of("model.safetensors")).expect("gone");
    fs_err::remove_file(&link).expect("gone");
    let name = blob.file_name().expect("a name").to_string_lossy().into_owned();
    symlink(format!("../../../models--acme--owner/blobs/{name}"), &link).expect("linked");
    // Its own link to it is gone too: in its repo nothing uses the blob.
    fs_err::remove_file(owner.path().join("model.safetensors")).expect("gone");
    nothing_goes(&lab);
    // And with the owner gone by name, the blob still stays.
    let plan = lab.preview(&["--models", "acme/owner"]);
    let items = plan["candidates"][0]["items"].to_string();
    assert!(!items.contains(&format!("models--acme--owner/blobs/{name}")), "{items}");
}

#[test]
fn links_that_a_file_server_wrote_as_text() {
    let lab = Lab::new();
    let snapshot = lab.hub.repo("acme/one").snapshot(&four_bit(1).files()).with_ref("main");
    for file in fs_err::read_dir(snapshot.path()).expect("the snapshot") {
        let path = file.expect("a file").path();
        let target = fs_err::read_link(&path).expect("a link").to_string_lossy().into_owned();
        fs_err::remove_file(&path).expect("gone");
        // The form that SMB clients use: a header, the target, padding.
        let mut note = format!("XSym\n{:04}\n0123456789abcdef0123456789abcdef\n{target}\n", target.len());
        note.push_str(&" ".repeat(1067usize.saturating_sub(note.len())));
        fs_err::write(&path, note).expect("written");
    }
    nothing_goes(&lab);
}

#[test]
fn a_repo_directory_that_somebody_put_files_in() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/mine");
    let files = four_bit(1).files();
    mlxman_testkit::write_files(&repo.path(), &files);
    nothing_goes(&lab);
}

#[test]
fn what_the_desktop_leaves_is_no_problem() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let snapshot = repo.snapshot(&four_bit(1).files()).with_ref("main");
    for dir in ["", "blobs", "refs", "snapshots"] {
        fs_err::write(repo.path().join(dir).join(".DS_Store"), b"Bud1").expect("written");
    }
    fs_err::write(snapshot.path().join(".DS_Store"), b"Bud1").expect("written");
    lab.sync();
    let list = lab.list();
    assert_eq!(model(&list, "acme/one")["health"]["problems"], json!([]));
    assert_eq!(list["problems"], json!([]));
}

#[test]
fn a_main_that_cannot_be_read_may_name_any_snapshot() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let _ = repo.snapshot(&four_bit(1).files()).with_ref("v1");
    let _ = repo.snapshot(&four_bit(2).files());
    // huggingface_hub writes a ref in place, so it can be empty for a moment, or after a crash.
    fs_err::write(repo.path().join("refs/main"), "").expect("written");
    nothing_goes(&lab);
    assert!(model(&lab.list(), "acme/one")["source"]["detached"] == false);
}

#[test]
fn the_only_whole_snapshot_stays_when_an_update_broke_off() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let whole = repo.snapshot(&four_bit(1).files());
    let _ = repo.snapshot(&[text("config.json", "{\"model_type\": \"llama\"}")]).with_ref("main");
    lab.sync_any();
    let plan = lab.preview(&[]);
    assert_eq!(plan["candidates"], json!([]), "{plan:#}");
    assert_eq!(kept(&plan), [(format!("acme/one@{}", &whole.commit[..8]), "newer_incomplete".to_owned())]);
}

#[test]
fn a_revision_that_was_asked_for_by_its_commit_stays() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let old = repo.snapshot(&four_bit(1).files());
    let _ = repo.snapshot(&four_bit(2).files()).with_ref("main");
    let now = SystemTime::now();
    set_age(&repo.path().join("refs/main"), now, 30 * DAY);
    lab.sync_any();
    let plan = lab.preview(&[]);
    assert_eq!(kept(&plan), [(format!("acme/one@{}", &old.commit[..8]), "asked_for_by_commit".to_owned())]);
    // One that was there when the ref moved on is what the ref left behind.
    old_below(lab.hub.root(), 60 * DAY);
    set_age(&repo.path().join("refs/main"), now, 30 * DAY);
    assert_eq!(candidates(&lab.preview(&[])).len(), 1);
}

#[test]
fn a_lock_that_cannot_be_asked_may_be_held() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let _ = repo.snapshot(&four_bit(1).files()).with_ref("main");
    let etag = sha256_hex(b"on its way");
    let _ = repo.partial(&etag, "0a0a0a0a", &[1; 5000]);
    // Not a lock file at all: nobody can tell whether it is held.
    let lock = repo.lock(&etag);
    let _ = fs_err::remove_file(&lock);
    fs_err::create_dir_all(&lock).expect("a directory in its place");
    nothing_goes(&lab);
}

#[test]
fn partial_files_and_locks_of_the_rust_client() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let _ = repo.snapshot(&four_bit(1).files()).with_ref("main");
    let etag = sha256_hex(b"by the other client");
    let part = repo.blobs().join(format!("{etag}.sync.part"));
    let lock = repo.blobs().join(format!("{etag}.lock"));
    fs_err::write(&part, [1; 5000]).expect("written");
    let held = fs_err::File::create(&lock).expect("a lock");
    held.file().lock().expect("held");
    nothing_goes(&lab);
    held.file().unlock().expect("given back");
    old_below(lab.hub.root(), DAY);
    let plan = lab.preview(&[]);
    assert_eq!(plan["candidates"][0]["rule"], "dead_partial", "{plan:#}");
    assert_eq!(candidates(&plan).len(), 1, "the lock file is no row");
}

#[test]
fn a_blob_that_a_present_snapshot_s_listing_names() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let snapshot = repo.snapshot(&four_bit(1).files()).with_ref("main");
    // The link is not made yet, or was lost; the listing says that the blob belongs to the snapshot.
    fs_err::remove_file(snapshot.path().join("model.safetensors")).expect("gone");
    nothing_goes(&lab);
}

#[test]
fn a_shared_blob_that_is_being_published() {
    let lab = Lab::new();
    let hub = mlxman_testkit::HubStore::create(lab.sandbox.root().join("shared")).shared();
    let _ = hub.repo("acme/one").snapshot(&four_bit(1).files()).with_ref("main");
    let store = format!("hub={}", hub.root().display());
    let hash = "ee".repeat(32);
    let dir = hub.root().join("blobs/ee");
    fs_err::create_dir_all(&dir).expect("a directory");
    fs_err::write(dir.join(&hash), [1; 9000]).expect("written");
    fs_err::write(dir.join(format!("{hash}.refs")), "models--acme--two/blobs/abc\n").expect("written");
    let lock = fs_err::File::create(dir.join(format!("{hash}.lock"))).expect("a lock");
    lock.file().lock().expect("held");
    assert_eq!(lab.preview(&["--store", &store])["candidates"], json!([]));
    lock.file().unlock().expect("given back");
    assert_eq!(lab.preview(&["--store", &store])["candidates"][0]["rule"], "orphan");
    // An empty list of users tells nothing.
    fs_err::write(dir.join(format!("{hash}.refs")), "").expect("written");
    assert_eq!(lab.preview(&["--store", &store])["candidates"], json!([]));
}

#[test]
fn a_model_that_another_store_links_to() {
    let (lab, folder) = Lab::with_folder();
    let repo = lab.hub.repo("acme/one");
    let old = repo.snapshot(&four_bit(1).files());
    let _ = repo.snapshot(&four_bit(2).files()).with_ref("main");
    let dir = folder.path("linked");
    fs_err::create_dir_all(&dir).expect("a directory");
    for file in ["config.json", "model.safetensors"] {
        symlink(old.path().join(file), dir.join(file)).expect("a link");
    }
    lab.sync_any();
    let plan = lab.preview(&[]);
    assert_eq!(plan["candidates"], json!([]), "{plan:#}");
    assert_eq!(kept(&plan)[0].1, "linked_from");
}

#[test]
fn a_model_whose_file_a_program_has_open() {
    let (lab, folder) = Lab::with_folder();
    folder.model("busy", &four_bit(1).files());
    lab.sync();
    let open = fs_err::File::open(folder.path("busy").join("model.safetensors")).expect("open");
    let plan = lab.preview(&["--models", "busy"]);
    if cfg!(target_os = "linux") {
        assert_eq!(kept(&plan), [("busy".to_owned(), "in_use".to_owned())], "{plan:#}");
    }
    drop(open);
    assert_eq!(candidates(&lab.preview(&["--models", "busy", "--include-irreplaceable"])).len(), 1);
}

#[test]
fn a_directory_that_another_model_links_to() {
    let (lab, folder) = Lab::with_folder();
    folder.model("dev", &mlxman_testkit::diffusers(1, &["flux"]));
    folder.model("schnell", &mlxman_testkit::diffusers(2, &["flux"]));
    let shared = folder.path("schnell").join("text_encoder");
    fs_err::remove_dir_all(&shared).expect("gone");
    symlink("../dev/text_encoder", &shared).expect("a link");
    lab.sync_any();
    let plan = lab.preview(&["--models", "dev", "--include-irreplaceable"]);
    let row = &plan["candidates"][0];
    assert!(row["items"].to_string().contains("dev/vae"), "{plan:#}");
    let both = lab.preview(&["--models", "dev", "schnell", "--include-irreplaceable"]);
    let alone = plan["total_reclaimable_bytes"].as_u64().expect("bytes");
    assert!(both["total_reclaimable_bytes"].as_u64().expect("bytes") > alone);
    assert!(!row["items"].to_string().contains("dev/text_encoder/model"), "{plan:#}");
}

#[test]
fn a_directory_of_refs_that_cannot_be_read() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let _ = repo.snapshot(&four_bit(1).files());
    let _ = repo.snapshot(&four_bit(2).files()).with_ref("main");
    // Deeper than any program nests refs: it stands for every directory that is not read.
    let deep = repo.path().join("refs/a/b/c/d/e/f/g/h/i/j");
    fs_err::create_dir_all(&deep).expect("directories");
    nothing_goes(&lab);
}

#[test]
fn sizes_that_no_disk_has() {
    let (lab, folder) = Lab::with_folder();
    folder.model("fine", &four_bit(1).files());
    for name in ["a", "b", "c"] {
        let path = folder.path("huge").join(format!("{name}.safetensors"));
        fs_err::create_dir_all(folder.path("huge")).expect("a directory");
        let file = fs_err::File::create(path).expect("a file");
        // As large as the filesystem lets a file be.
        let mut size: u64 = 1 << 62;
        while file.set_len(size).is_err() {
            size >>= 1;
        }
    }
    lab.sync_any();
    assert_eq!(model(&lab.list(), "fine")["health"]["status"], "complete");
}

#[test]
fn links_inside_one_cache_that_lead_into_a_detached_snapshot() {
    let forms: [(&str, &str); 4] = [
        ("models--acme--user/snapshots/0123456789abcdef0123456789abcdef01234567/sub", "../../../"),
        ("models--we--ird--x/model.safetensors", "../"),
        ("mystuff/q/model.safetensors", "../../"),
        ("models--acme--one/mine", "../"),
    ];
    for (place, up) in forms {
        let lab = Lab::new();
        let repo = lab.hub.repo("acme/one");
        let old = repo.snapshot(&four_bit(1).files());
        let _ = repo.snapshot(&four_bit(2).files()).with_ref("main");
        old_below(lab.hub.root(), 30 * DAY);
        lab.sync();
        assert_eq!(candidates(&lab.preview(&[])).len(), 1, "without the link it may go");
        let link = lab.hub.root().join(place);
        fs_err::create_dir_all(link.parent().expect("a directory")).expect("directories");
        symlink(format!("{up}models--acme--one/snapshots/{}", old.commit), &link).expect("a link");
        lab.sync_any();
        let plan = lab.preview(&[]);
        let items = plan["candidates"].to_string();
        assert!(!items.contains(&old.commit), "{place}: {plan:#}");
    }
}

#[test]
fn a_link_that_leads_on_through_another_link() {
    let (lab, folder) = Lab::with_folder();
    let repo = lab.hub.repo("acme/one");
    let old = repo.snapshot(&four_bit(1).files());
    let _ = repo.snapshot(&four_bit(2).files()).with_ref("main");
    let alias = lab.sandbox.root().join("alias");
    symlink(old.path(), &alias).expect("a link");
    fs_err::create_dir_all(folder.path("linked")).expect("a directory");
    symlink(alias.join("model.safetensors"), folder.path("linked").join("model.safetensors"))
        .expect("a link");
    lab.sync_any();
    let plan = lab.preview(&[]);
    assert_eq!(plan["candidates"], json!([]), "{plan:#}");
}

#[test]
fn a_pin_holds_when_the_volume_comes_back_under_another_name() {
    let lab = Lab::new();
    let (first, second) = (lab.sandbox.root().join("T7"), lab.sandbox.root().join("T7 1"));
    let hub = mlxman_testkit::HubStore::create(first.clone());
    let _ = hub.repo("acme/one").snapshot(&four_bit(1).files()).with_ref("main");
    let _ = lab.run(["sync", "--fast", "--store", &format!("hub={}", first.display())]).success();
    let _ = lab.run(["pin", "acme/one"]).success();
    rename(&first, &second);
    // The empty mount point stays behind.
    fs_err::create_dir_all(&first).expect("a directory");
    let plan = lab.preview(&["--store", &format!("hub={}", second.display()), "--models", "*"]);
    assert_eq!(plan["candidates"], json!([]), "{plan:#}");
    assert_eq!(kept(&plan), [("acme/one".to_owned(), "pinned_elsewhere".to_owned())]);
}

/// What a check found damaged stands for nobody: neither for an older revision, nor for a copy.
#[test]
fn what_is_damaged_replaces_nothing() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let old = repo.snapshot_at(&"1".repeat(40), &four_bit(1).files());
    let new = repo.snapshot_at(&"2".repeat(40), &four_bit(2).files()).with_ref("main");
    old_below(lab.hub.root(), 100 * DAY);
    lab.sync();
    let named = |args: &[&str]| candidates(&lab.preview(args));
    let of_old = format!("acme/one@{}", &old.commit[..8]);
    assert_eq!(named(&["--keep-last", "1"]), [of_old.clone()].into());
    assert_eq!(named(&[]), [of_old].into());
    let mut bytes = fs_err::read(new.blob_of("model.safetensors")).expect("weights");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(new.blob_of("model.safetensors"), bytes).expect("written");
    old_below(lab.hub.root(), 100 * DAY);
    let _ = lab.run(["verify", "--level", "integrity"]).expect_code(1);
    assert!(named(&["--keep-last", "1"]).is_empty());
    assert!(named(&["--detached"]).is_empty());
    assert!(named(&[]).is_empty());
    // And everybody is told.
    let doctor = lab.run(["doctor", "--json"]).expect_code(1).json();
    let found = doctor["repairs"]["findings"].as_array().expect("findings").iter();
    let damaged: Vec<&Value> = found.filter(|one| one["kind"] == "content_damaged").collect();
    assert_eq!(damaged.len(), 1, "{doctor:#}");
    assert!(damaged[0]["command"].as_str().is_some_and(|command| command.contains("--level integrity")));
    assert!(lab.run(["path", "acme/one@main"]).expect_code(1).stderr.contains("damaged"));
}

/// Who pins a model by its name means what that name is after the next download, too.
#[test]
fn a_pin_holds_for_the_next_revision() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/one");
    let _ = repo.snapshot_at(&"1".repeat(40), &four_bit(1).files()).with_ref("main");
    lab.sync();
    let _ = lab.run(["pin", "acme/one"]).success();
    let _ = repo.snapshot_at(&"2".repeat(40), &four_bit(2).files()).with_ref("main");
    old_below(lab.hub.root(), 100 * DAY);
    let plan = lab.preview(&["--older-than", "1d"]);
    assert!(candidates(&plan).is_empty(), "{plan:#}");
    let plan = lab.preview(&["--models", "acme/one"]);
    assert!(candidates(&plan).is_empty(), "{plan:#}");
    let reasons = plan["kept"].to_string();
    assert!(reasons.contains("mlxman unpin acme/one@11111111"), "{reasons}");
    let _ = lab.run(["unpin", "acme/one@11111111"]).success();
    assert!(!candidates(&lab.preview(&["--models", "acme/one"])).is_empty());
}
