//! `mlxman verify --level integrity`: contents against what names them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use mlxman_testkit::{FolderStore, HubStore, Output, Snapshot, sha256_hex, text};
use serde_json::{Value, json};

use crate::lab::{DAY, Lab, cut, four_bit, model, names};
use crate::registry::assert_valid;

const MIB: usize = 1 << 20;

/// What a run printed, valid and with this exit status.
#[track_caller]
fn check(lab: &Lab, args: &[&str], code: i32) -> Value {
    let words = ["verify", "--level", "integrity", "--json"];
    let json = lab.run(words.iter().chain(args)).expect_code(code).json();
    assert_valid(lab, "verify", &json);
    json
}

#[track_caller]
fn told(lab: &Lab, args: &[&str], code: i32) -> Output {
    lab.run(["verify", "--level", "integrity"].iter().chain(args)).expect_code(code)
}

#[track_caller]
fn row<'a>(json: &'a Value, name: &str) -> &'a Value {
    let rows = json["results"].as_array().expect("`results`");
    let row = rows.iter().find(|row| row["model"] == name).unwrap_or_else(|| panic!("{name} is in {json:#}"));
    assert_eq!(row["level"], "integrity");
    row
}

#[track_caller]
fn passes(json: &Value, name: &str) {
    assert_eq!(row(json, name)["verdict"], "pass", "{json:#}");
}

/// The one damage of a model that fails.
#[track_caller]
fn damage<'a>(json: &'a Value, name: &str) -> &'a Value {
    let row = row(json, name);
    assert_eq!(row["verdict"], "fail", "{row:#}");
    let all = row["integrity"]["damaged"].as_array().expect("`damaged`");
    assert_eq!(all.len(), 1, "{row:#}");
    assert!(row["reason"].as_str().is_some_and(|why| why.contains(all[0]["path"].as_str().expect("a path"))));
    &all[0]
}

fn reason(row: &Value) -> &str {
    row["reason"].as_str().unwrap_or_default()
}

/// With what is taken off, a place counted from a file's end: there the weights are, and not their header.
const END: usize = usize::MAX;

/// Turns one bit over, in place.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs_err::read(path).expect("the file");
    let at = if at > END / 2 { bytes.len() - (END - at) } else { at };
    bytes[at] ^= 1;
    fs_err::write(path, bytes).expect("the file can be written");
}

/// The same, leaving the time of modification as it was.
fn flip_silently(path: &Path, at: usize) {
    let before = fs_err::metadata(path).expect("the file").modified().expect("a time");
    flip(path, at);
    fs_err::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("the file")
        .set_modified(before)
        .expect("the time");
}

fn checks_file(lab: &Lab) -> PathBuf {
    lab.sandbox.mlxman_home().join("checks.json")
}

/// Makes the registry believe that a file was checked as it is now: a disk that rots leaves every time alone, and a test
/// cannot.
fn believe(lab: &Lab, path: &Path) {
    let meta = fs_err::metadata(path).expect("the file");
    let mut checks: Value =
        serde_json::from_slice(&fs_err::read(checks_file(lab)).expect("the record")).expect("JSON");
    let all = checks["checks"].as_array_mut().expect("`checks`");
    let one = all.iter_mut().find(|one| one["ino"] == meta.ino()).expect("it was checked");
    one["mtime_ns"] = json!(meta.mtime() * 1_000_000_000 + meta.mtime_nsec());
    one["ctime_ns"] = json!(meta.ctime() * 1_000_000_000 + meta.ctime_nsec());
    fs_err::write(checks_file(lab), checks.to_string()).expect("the record can be written");
}

fn models(hub: &HubStore, names: &[&str]) -> Vec<Snapshot> {
    let files = |at: usize| {
        let mut files = four_bit(at as u64).files();
        files.push(text("NOTES.md", &format!("model {at}")));
        files
    };
    names.iter().enumerate().map(|(at, name)| hub.repo(name).snapshot(&files(at)).with_ref("main")).collect()
}

#[test]
fn what_is_whole_passes_and_is_not_read_again() {
    let lab = Lab::new();
    let snapshots = models(&lab.hub, &["acme/a", "acme/b"]);
    // Another revision of the first, with the same weights.
    let mut files = four_bit(0).files();
    files.push(text("NOTES.md", "newer"));
    let _ = lab.hub.repo("acme/a").snapshot(&files);
    let blobs: usize = ["a", "b"]
        .iter()
        .map(|name| fs_err::read_dir(lab.hub.repo(&format!("acme/{name}")).blobs()).expect("blobs").count())
        .sum();
    let json = check(&lab, &[], 0);
    let all = &json["integrity"];
    assert_eq!(all["files"], blobs, "each content counts once");
    assert_eq!((&all["read_files"], &all["whole_files"]), (&all["files"], &all["files"]));
    assert_eq!((&all["read_bytes"], &all["whole_bytes"]), (&all["bytes"], &all["bytes"]));
    for row in json["results"].as_array().expect("rows") {
        let found = &row["integrity"];
        assert_eq!((&row["verdict"], &row["reason"]), (&json!("pass"), &Value::Null), "{row:#}");
        assert_eq!(found["read_files"], found["files"]);
        for list in ["damaged", "missing", "changed", "uncheckable"] {
            assert_eq!(found[list], json!([]));
        }
    }
    let json = check(&lab, &[], 0);
    assert_eq!(
        (&json["integrity"]["read_files"], &json["integrity"]["whole_files"]),
        (&json!(0), &json!(blobs))
    );
    let found = &row(&json, "acme/b")["integrity"];
    assert_eq!((&found["skipped_files"], &found["read_files"]), (&found["files"], &json!(0)));
    assert_eq!(check(&lab, &["--again"], 0)["integrity"]["read_files"], blobs);
    // One that was written anew is read, and no other.
    let blob = snapshots[1].blob_of("config.json");
    let bytes = fs_err::read(&blob).expect("the blob");
    fs_err::write(&blob, bytes).expect("the blob");
    assert_eq!(check(&lab, &[], 0)["integrity"]["read_files"], 1);
    let out = told(&lab, &["acme/b"], 0);
    assert!(out.stdout.contains("pass") && out.stderr.contains("100.0% of"), "{out}");
}

#[test]
fn damage_is_the_row_of_its_model_alone() {
    let lab = Lab::new();
    let names = ["acme/bit", "acme/config", "acme/cut", "acme/gone", "acme/ok", "acme/other"];
    let all = models(&lab.hub, &names);
    flip(&all[0].blob_of("model.safetensors"), END - 2010);
    flip(&all[1].blob_of("config.json"), 20);
    let weights = all[2].blob_of("model.safetensors");
    let size = fs_err::metadata(&weights).expect("the blob").len();
    cut(&weights, size - 7);
    fs_err::remove_file(all[3].blob_of("model.safetensors")).expect("the blob");
    // A link to a blob that is whole, and not the one that the listing names.
    let link = all[5].path().join("NOTES.md");
    let other = all[5].blob_of("config.json");
    fs_err::remove_file(&link).expect("the link");
    let target = format!("../../blobs/{}", other.file_name().expect("a name").to_string_lossy());
    fs_err::os::unix::fs::symlink(target, link).expect("a link");

    let json = check(&lab, &[], 1);
    passes(&json, "acme/ok");
    let bit = damage(&json, "acme/bit");
    assert_eq!((&bit["path"], &bit["how"]), (&json!("model.safetensors"), &json!("sha256")));
    let name =
        all[0].blob_of("model.safetensors").file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(bit["expected"], name);
    assert_eq!(
        bit["found"],
        sha256_hex(&fs_err::read(all[0].blob_of("model.safetensors")).expect("the blob"))
    );
    let fetch = format!(
        "hf download acme/bit model.safetensors --revision {} --cache-dir {} --force-download",
        all[0].commit,
        lab.hub.root().display()
    );
    assert_eq!(bit["fetch_again"], fetch);
    assert!(reason(row(&json, "acme/bit")).contains(&fetch));
    assert_eq!(row(&json, "acme/bit")["passed"], "structure");
    let config = damage(&json, "acme/config");
    assert_eq!((&config["path"], &config["how"]), (&json!("config.json"), &json!("git_sha1")));
    let short = damage(&json, "acme/cut");
    assert_eq!(
        (&short["how"], &short["expected"], &short["found"]),
        (&json!("size"), &json!(format!("{size} bytes")), &json!(format!("{} bytes", size - 7)))
    );
    assert_eq!(damage(&json, "acme/other")["how"], "wrong_blob");
    let gone = row(&json, "acme/gone");
    assert_eq!((&gone["verdict"], &gone["integrity"]["damaged"]), (&json!("fail"), &json!([])));
    let missing = gone["integrity"]["missing"].as_array().expect("`missing`");
    let weights = missing.iter().find(|one| one["path"] == "model.safetensors").expect("the weights");
    assert!(weights["fetch_again"].as_str().is_some_and(|it| it.contains("acme/gone model.safetensors")));
    // What is damaged is read each time.
    assert_eq!(damage(&check(&lab, &[], 1), "acme/bit"), bit);
    let out = told(&lab, &[], 1);
    assert!(out.stdout.contains("acme/ok") && out.stderr.contains("model.safetensors is damaged"), "{out}");
}

#[test]
fn listings_are_believed_as_far_as_they_go() {
    let lab = Lab::new();
    let all =
        models(&lab.hub, &["acme/deep", "acme/lies", "acme/none", "acme/paths", "acme/size", "acme/text"]);
    let tree = |at: usize| all[at].repo().path().join(format!("trees/{}.json", all[at].commit));
    fs_err::write(tree(0), "[".repeat(100_000)).expect("the listing");
    fs_err::remove_file(tree(2)).expect("the listing");
    fs_err::write(tree(3), "{\"files\": {\"../../../etc/passwd\": {\"size\": 1}}}").expect("the listing");
    fs_err::write(tree(5), "\u{0}not json").expect("the listing");
    let edit = |at: usize, edit: &dyn Fn(&mut Value)| {
        let mut listing: Value =
            serde_json::from_slice(&fs_err::read(tree(at)).expect("the listing")).expect("JSON");
        edit(&mut listing["files"]["NOTES.md"]);
        fs_err::write(tree(at), listing.to_string()).expect("the listing");
    };
    edit(1, &|file| file["blob_id"] = json!("g".repeat(40)));
    edit(4, &|file| file["size"] = json!(u64::MAX));
    let json = check(&lab, &[], 1);
    for name in ["acme/lies", "acme/none"] {
        passes(&json, name);
    }
    // The content is what its name says: it is the listing that is wrong.
    let size = damage(&json, "acme/size");
    assert_eq!((&size["path"], &size["how"]), (&json!("NOTES.md"), &json!("listing")));
    // Without a listing the names of the blobs are compared with all the same.
    for name in ["acme/deep", "acme/paths", "acme/text"] {
        let found = &row(&json, name)["integrity"];
        assert_eq!((&found["damaged"], &found["read_files"]), (&json!([]), &found["files"]), "{name}");
    }
}

#[test]
fn a_shared_blob_is_read_once_for_all_who_use_it() {
    let lab = Lab::new();
    let hub = lab.hub.clone().shared();
    let files = four_bit(1).files();
    let one = hub.repo("acme/one").snapshot(&files).with_ref("main");
    let two = hub.repo("acme/two").snapshot(&files).with_ref("main");
    let payload = one.blob_of("model.safetensors");
    assert_eq!(payload, two.blob_of("model.safetensors"));
    let json = check(&lab, &[], 0);
    assert_eq!(json["integrity"]["files"], 2 * files.len() - 1);
    flip(&payload, END - 1010);
    let json = check(&lab, &[], 1);
    assert_eq!(json["integrity"]["read_files"], 1);
    for name in ["acme/one", "acme/two"] {
        let found = damage(&json, name);
        assert_eq!((&found["path"], &found["how"]), (&json!("model.safetensors"), &json!("sha256")));
    }
}

fn folder() -> (Lab, FolderStore) {
    Lab::with_folder()
}

#[test]
fn downloads_into_a_directory_are_compared_with_their_records() {
    let (lab, folder) = folder();
    let now = SystemTime::now();
    let mut files = four_bit(2).files();
    files.push(text("NOTES.md", "as it came"));
    let at = |name: &str, repo: &str| {
        let commit = folder.local_dir(name, repo, &files, now + Duration::from_secs(1));
        // A hub cache that has the same commit says which repo it is.
        (folder.path(name), commit)
    };
    let (ok, _) = at("a-ok", "acme/ok");
    let (bad, commit) = at("b-bad", "acme/bad");
    let (edited, _) = at("c-edited", "acme/edited");
    let (retrained, _) = at("d-retrained", "acme/retrained");
    let (touched, _) = at("e-touched", "acme/touched");
    let _ = lab.hub.repo("acme/bad").snapshot_at(&commit, &files).with_ref("main");
    let record = |dir: &Path, file: &str| dir.join(format!(".cache/huggingface/download/{file}.metadata"));
    // As servers give entity tags: with quotation marks.
    for (file, weak) in [("model.safetensors", ""), ("config.json", "W/")] {
        let text = fs_err::read_to_string(record(&ok, file)).expect("the record");
        let lines: Vec<&str> = text.lines().collect();
        let quoted = format!("{}\n{weak}\"{}\"\n{}\n", lines[0], lines[1], lines[2]);
        fs_err::write(record(&ok, file), quoted).expect("the record");
    }
    flip_silently(&bad.join("model.safetensors"), END - 3010);
    let later = |path: &Path| {
        let file = fs_err::OpenOptions::new().write(true).open(path).expect("the file");
        file.set_modified(now + DAY).expect("the time");
    };
    fs_err::write(edited.join("NOTES.md"), "as somebody likes it better").expect("the file");
    later(&edited.join("NOTES.md"));
    flip(&retrained.join("model.safetensors"), END - 3010);
    later(&retrained.join("model.safetensors"));
    later(&touched.join("model.safetensors"));
    fs_err::remove_file(at("f-smaller", "acme/smaller").0.join("NOTES.md")).expect("removed");

    let json = check(&lab, &["--store", "folder"], 1);
    passes(&json, "a-ok");
    let found = damage(&json, "b-bad");
    assert_eq!((&found["path"], &found["how"]), (&json!("model.safetensors"), &json!("sha256")));
    assert!(
        found["fetch_again"].is_null()
            || found["fetch_again"].as_str().is_some_and(|it| it.contains("--local-dir"))
    );
    passes(&json, "c-edited");
    let row_of = |name| row(&json, name);
    assert_eq!(
        row_of("c-edited")["integrity"]["changed"],
        json!([{"path": "NOTES.md", "since": "download"}]),
        "{:#}",
        row_of("c-edited")
    );
    assert!(row_of("c-edited")["notes"][0].as_str().is_some_and(|it| it.contains("changed since download")));
    // Of weights that somebody changed nobody can tell whether they are whole.
    assert_eq!(row_of("d-retrained")["verdict"], "skipped");
    assert!(reason(row_of("d-retrained")).contains("changed since download"));
    // A later time alone is no change.
    passes(&json, "e-touched");
    // What a model does without may have been removed on purpose; it is told all the same.
    passes(&json, "f-smaller");
    let note = &row_of("f-smaller")["notes"][0];
    assert_eq!(note, "NOTES.md was downloaded with it, and is gone", "{json:#}");
    // With the hub's word for the commit, the command names the repo.
    let json = check(&lab, &["b-bad"], 1);
    let fetch = damage(&json, "b-bad")["fetch_again"].as_str().unwrap_or_default().to_owned();
    assert!(fetch.contains("acme/bad model.safetensors") && fetch.contains("--local-dir"), "{json:#}");
}

#[test]
fn blobs_named_as_ollama_names_them() {
    let (lab, folder) = folder();
    let mut files = four_bit(3).files();
    let (_, weights) =
        files.remove(files.iter().position(|(path, _)| path == "model.safetensors").expect("weights"));
    let dir = folder.model("tag", &files);
    let blob = folder.root().join(format!("blobs/sha256-{}", sha256_hex(&weights)));
    fs_err::create_dir_all(blob.parent().expect("a directory")).expect("a directory");
    fs_err::write(&blob, weights).expect("the blob");
    let target = format!("../blobs/{}", blob.file_name().expect("a name").to_string_lossy());
    fs_err::os::unix::fs::symlink(target, dir.join("model.safetensors")).expect("a link");
    let json = check(&lab, &["tag"], 0);
    passes(&json, "tag");
    assert_eq!(row(&json, "tag")["integrity"]["read_files"], 1);
    flip(&blob, END - 10);
    let json = check(&lab, &["tag"], 1);
    assert_eq!(
        (&damage(&json, "tag")["how"], &json["integrity"]["read_files"]),
        (&json!("sha256"), &json!(1))
    );
}

#[test]
fn what_no_hash_is_known_of_is_told_and_a_sync_takes_hashes() {
    let (lab, folder) = folder();
    let dir = folder.model("own", &four_bit(4).files());
    let json = check(&lab, &["own"], 1);
    let found = row(&json, "own");
    assert_eq!(found["verdict"], "skipped", "it is not passed silently");
    assert!(reason(found).contains("mlxman sync"), "{found:#}");
    let count = four_bit(4).files().len();
    assert_eq!(found["integrity"]["uncheckable"].as_array().map(Vec::len), Some(count));
    let _ = lab.run(["sync"]).success();
    passes(&check(&lab, &["own"], 0), "own");
    // Later beside them: told, and no reason to fail.
    fs_err::write(dir.join("notes.txt"), "mine").expect("the file");
    let json = check(&lab, &["own"], 0);
    assert_eq!(row(&json, "own")["integrity"]["uncheckable"], json!(["notes.txt"]));
    assert!(row(&json, "own")["notes"][0].as_str().is_some_and(|it| it.contains("notes.txt")));
    fs_err::remove_file(dir.join("notes.txt")).expect("the file");
    // Contents that change while no time does are damaged; others were changed.
    flip_silently(&dir.join("model.safetensors"), END - 1010);
    let json = check(&lab, &["own"], 1);
    let found = damage(&json, "own");
    assert_eq!((&found["how"], &found["fetch_again"]), (&json!("blake3"), &Value::Null));
    flip(&dir.join("model.safetensors"), END - 1011);
    let json = check(&lab, &["own"], 1);
    assert_eq!(row(&json, "own")["verdict"], "skipped");
    let changed = json!([{"path": "model.safetensors", "since": "sync"}]);
    assert_eq!(row(&json, "own")["integrity"]["changed"], changed);
    let _ = lab.run(["sync"]).success();
    passes(&check(&lab, &["own"], 0), "own");
}

/// A model with a large file, and that one.
fn large(lab: &Lab, mebibytes: usize) -> (Snapshot, PathBuf) {
    let mut files = four_bit(5).files();
    let bytes: Vec<u8> = (0..mebibytes * MIB).map(|at| (at >> 12) as u8 ^ at as u8).collect();
    files.push(("table.dat".to_owned(), bytes));
    let snapshot = lab.hub.repo("acme/large").snapshot(&files).with_ref("main");
    let blob = snapshot.blob_of("table.dat");
    (snapshot, blob)
}

#[test]
fn a_silent_damage_is_found_when_asked_again_and_placed() {
    let lab = Lab::new();
    let (snapshot, blob) = large(&lab, 200);
    // Before anybody took note of its parts, all that can be said is that it is damaged.
    flip(&blob, 70 * MIB);
    let json = check(&lab, &[], 1);
    assert_eq!(damage(&json, "acme/large")["bytes_from"], Value::Null);
    flip(&blob, 70 * MIB);
    passes(&check(&lab, &[], 0), "acme/large");
    flip(&blob, 70 * MIB);
    believe(&lab, &blob);
    passes(&check(&lab, &[], 0), "acme/large");
    let json = check(&lab, &["--again"], 1);
    let found = damage(&json, "acme/large");
    let place = |found: &Value| (found["bytes_from"].as_u64(), found["bytes_to"].as_u64());
    assert_eq!(place(found), (Some(64 << 20), Some((128 << 20) - 1)));
    assert!(reason(row(&json, "acme/large")).contains("in bytes 67108864-134217727"), "{json:#}");
    // In several places; and in the last part alone.
    flip(&blob, 199 * MIB);
    assert_eq!(place(damage(&check(&lab, &[], 1), "acme/large")), (Some(64 << 20), Some((200 << 20) - 1)));
    flip(&blob, 70 * MIB);
    assert_eq!(place(damage(&check(&lab, &[], 1), "acme/large")), (Some(192 << 20), Some((200 << 20) - 1)));
    // A small file has one part, which is all of it.
    flip(&snapshot.blob_of("config.json"), 3);
    let json = check(&lab, &[], 1);
    assert_eq!(row(&json, "acme/large")["integrity"]["damaged"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    let lab = Lab::new();
    let _ = models(&lab.hub, &["acme/a", "acme/b", "acme/c"]);
    let repo = lab.hub.repo("acme/endless");
    // A hole that takes minutes to read.
    let files = [text("config.json", "{}")];
    let snapshot = repo.snapshot(&files).with_ref("main");
    let blob = repo.blob(&sha256_hex(b"endless"));
    fs_err::File::create(&blob).expect("the blob").set_len(1 << 40).expect("a hole");
    let target = format!("../../blobs/{}", sha256_hex(b"endless"));
    fs_err::os::unix::fs::symlink(target, snapshot.path().join("table.dat")).expect("a link");
    let mut child = lab.spawn(&["verify", "--level", "integrity", "--jobs", "2"]);
    let started = Instant::now();
    let seen = || fs_err::read_to_string(lab.sandbox.mlxman_home().join("history.jsonl")).unwrap_or_default();
    while !["acme/a", "acme/b", "acme/c"].iter().all(|name| seen().contains(name)) {
        assert!(started.elapsed() < Duration::from_secs(120), "the others are done");
        std::thread::sleep(Duration::from_millis(50));
    }
    // What is found is kept every few seconds, whatever else is at hand.
    while fs_err::metadata(checks_file(&lab)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(120), "what was checked is kept");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("it is killed");
    let _ = child.wait();
    let json = check(&lab, &["acme/a", "acme/b", "acme/c"], 0);
    let all = &json["integrity"];
    assert_eq!((&all["read_files"], &all["whole_files"]), (&json!(0), &all["files"]), "{all}");
}

#[test]
fn a_scrub_stops_in_time_and_goes_on_the_next_night() {
    let lab = Lab::new();
    let _ = models(&lab.hub, &["acme/a", "acme/b"]);
    let (_, blob) = large(&lab, 200);
    let whole = |json: &Value| json["integrity"]["whole_files"].as_u64().unwrap_or_default();
    let mut last = 0;
    let mut nights = 0;
    // The time is over before it begins; still every night gets further, and the large file is done in parts.
    loop {
        let json = check(&lab, &["--budget", "0.000001", "--jobs", "1"], 0);
        let now = whole(&json);
        nights += 1;
        assert!(now >= last && nights < 60, "{now} after {last}, night {nights}");
        last = now;
        if json["integrity"]["whole_files"] == json["integrity"]["files"] {
            passes(&json, "acme/large");
            break;
        }
        let left = json["results"].as_array().expect("rows").iter().find(|row| row["verdict"] == "skipped");
        assert!(left.is_some_and(|row| reason(row).contains("the time was over")), "{json:#}");
    }
    assert!(nights as u64 > last, "the large one took more than one");
    // With time for all of it nothing is skipped: a scrub looks for what changes by itself.
    let json = check(&lab, &["--budget", "10m"], 0);
    assert_eq!(json["integrity"]["read_files"], json["integrity"]["files"]);
    let oldest = json["integrity"]["oldest_check"].as_str().expect("a time");
    assert_eq!(json["results"][0]["verified_at"], oldest);
    flip(&blob, 150 * MIB);
    believe(&lab, &blob);
    let json = check(&lab, &["--budget", "10m"], 1);
    assert_eq!(damage(&json, "acme/large")["bytes_from"], 128 << 20);
    let out = told(&lab, &["--budget", "10m"], 1);
    assert!(out.stderr.contains("the oldest check") && out.stderr.contains("% of"), "{out}");
}

#[test]
fn a_record_that_is_none_is_written_anew() {
    let lab = Lab::new();
    let _ = models(&lab.hub, &["acme/a"]);
    let read = |json: &Value| json["integrity"]["read_files"].as_u64().unwrap_or_default();
    let first = read(&check(&lab, &[], 0));
    for text in
        ["", "{\"version\": 7}", "\u{0}\u{1}", "[1, 2", "{\"version\": 1, \"checks\": [{\"ino\": \"x\"}]}"]
    {
        fs_err::write(checks_file(&lab), text).expect("the record");
        assert_eq!(read(&check(&lab, &[], 0)), first, "{text}");
        assert_eq!(read(&check(&lab, &[], 0)), 0, "{text}");
    }
}

#[test]
fn what_cannot_be_read_fails() {
    let lab = Lab::new();
    let all = models(&lab.hub, &["acme/a", "acme/b"]);
    let blob = all[0].blob_of("NOTES.md");
    fs_err::set_permissions(&blob, std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("permissions");
    if fs_err::File::open(&blob).is_ok() {
        // Nothing is closed to this user.
        return;
    }
    let json = check(&lab, &[], 1);
    assert_eq!(damage(&json, "acme/a")["how"], "unreadable");
    passes(&json, "acme/b");
}

#[test]
fn results_are_kept_and_found() {
    let lab = Lab::new();
    let all = models(&lab.hub, &["acme/bad", "acme/ok"]);
    flip(&all[0].blob_of("model.safetensors"), END - 10);
    let _ = check(&lab, &[], 1);
    let list = lab.list();
    let kept = |name: &str| model(&list, name)["integrity"].clone();
    assert_eq!((&kept("acme/ok")["verdict"], &kept("acme/bad")["verdict"]), (&json!("pass"), &json!("fail")));
    assert_valid(&lab, "manifest", model(&list, "acme/bad"));
    assert_eq!(model(&list, "acme/ok")["verification"], Value::Null);
    let filtered = |expr: &str| {
        let out = lab.run(["list", "--json", "--filter", expr]).success();
        names(&out.json()).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(filtered("integrity=fail"), ["acme/bad"]);
    assert_eq!(filtered("integrity=pass"), ["acme/ok"]);
    assert_eq!(filtered("checked<1d"), ["acme/bad", "acme/ok"]);
    assert_eq!(filtered("checked=never"), [""; 0]);
    // Another look at the structure takes nothing of it away.
    let _ = lab.run(["verify", "--level", "structure"]).success();
    let list = lab.list();
    assert_eq!(model(&list, "acme/bad")["integrity"]["verdict"], "fail");
    assert_eq!(model(&list, "acme/bad")["verification"]["level"], "structure");
    let page = lab.run(["show", "acme/bad"]).success().stdout;
    assert!(page.contains("integrity") && page.contains("is damaged"), "{page}");
    assert!(lab.run(["list", "--verified"]).success().stdout.contains("CONTENTS"));
    // Of other files it says nothing.
    let weights =
        four_bit(0).files().into_iter().find(|(path, _)| path == "model.safetensors").expect("weights").1;
    fs_err::write(all[0].blob_of("model.safetensors"), weights).expect("the blob");
    lab.sync();
    assert_eq!(model(&lab.list(), "acme/bad")["integrity"]["stale"], true);
    assert_eq!(filtered("integrity=fail"), [""; 0]);
    passes(&check(&lab, &[], 0), "acme/bad");
    assert_eq!(filtered("integrity=pass"), ["acme/bad", "acme/ok"]);
}

#[test]
fn calls_that_make_no_sense() {
    let lab = Lab::new();
    let _ = models(&lab.hub, &["acme/a"]);
    for args in [
        &["verify", "--again"][..],
        &["verify", "--budget", "10m"],
        &["verify", "--level", "load", "--budget", "10m"],
        &["verify", "--level", "integrity", "--budget", "soon"],
        &["verify", "--level", "integrity", "--budget", "0"],
        &["verify", "--level", "integrity", "--bench"],
        &["verify", "--level", "integrity", "--record-answers"],
    ] {
        let out = lab.run(args).expect_code(2);
        assert!(out.stderr.contains("--"), "{out}");
    }
    for budget in ["30", "1.5m", "20000ms", "9.5s"] {
        let _ = lab.run(["verify", "--level", "integrity", "--budget", budget]).expect_code(0);
    }
}
