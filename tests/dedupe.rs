//! `clean dedupe`: equal files are found wherever they lie, and one copy of them loses nobody anything.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mlxman_testkit::{FolderStore, HubStore, Output};
use serde_json::{Value, json};

use crate::lab::{Frozen, Lab, four_bit};
use crate::registry::assert_valid;

/// Large enough to be looked at, and of more than one piece of what is read at once.
const SIZE: usize = 3 << 20;

/// Bytes that do not repeat.
fn weights(seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A model in a directory, with these weights.
fn put(dir: &Path, bytes: &[u8]) -> PathBuf {
    fs_err::create_dir_all(dir).expect("a directory");
    fs_err::write(dir.join("config.json"), "{\"model_type\": \"llama\"}").expect("written");
    let path = dir.join("model.safetensors");
    fs_err::write(&path, bytes).expect("written");
    path
}

/// Two models with equal weights in a folder.
fn two() -> (Lab, FolderStore, PathBuf, PathBuf) {
    let (lab, folder) = Lab::with_folder();
    let one = put(&folder.path("acme/one"), &weights(1));
    let two = put(&folder.path("acme/two"), &weights(1));
    (lab, folder, one, two)
}

#[track_caller]
fn show(lab: &Lab, args: &[&str]) -> Value {
    let found = lab.json(["clean", "dedupe"].iter().chain(args));
    assert_valid(lab, "duplicates", &found);
    found
}

#[track_caller]
fn apply(lab: &Lab, args: &[&str]) -> Value {
    let applied = lab.json(["clean", "dedupe", "--apply", "--yes", "--hardlink"].iter().chain(args));
    assert_valid(lab, "applied", &applied);
    applied
}

fn inode(path: &Path) -> u64 {
    fs_err::metadata(path).expect("its metadata").ino()
}

/// Content, permissions and times of every file below a directory, and which of them are one.
fn state(root: &Path) -> BTreeMap<PathBuf, (blake3::Hash, u32, i64, i64, u64)> {
    let files = walkdir::WalkDir::new(root).into_iter().map(|entry| entry.expect("an entry").into_path());
    let of = |path: PathBuf| {
        let meta = path.symlink_metadata().expect("its metadata");
        let hash = meta.is_file().then(|| blake3::hash(&fs_err::read(&path).expect("read")));
        hash.map(|hash| {
            let state = (hash, meta.mode(), meta.mtime(), meta.mtime_nsec(), meta.nlink());
            (path.strip_prefix(root).expect("below").to_owned(), state)
        })
    };
    files.filter_map(of).filter(|(path, _)| !path.starts_with(".mlxman-trash")).collect()
}

fn copies(found: &Value) -> Vec<&str> {
    let groups = found["groups"].as_array().expect("groups");
    let copies = groups.iter().flat_map(|group| group["copies"].as_array().expect("copies"));
    copies.map(|copy| copy["what"].as_str().expect("text")).collect()
}

fn left(found: &Value) -> Vec<(&str, &str)> {
    let left = found["left"].as_array().expect("left");
    left.iter()
        .map(|one| (one["what"].as_str().expect("text"), one["reason"].as_str().expect("text")))
        .collect()
}

#[test]
fn showing_touches_nothing() {
    let (lab, folder, ..) = two();
    let before = Frozen::of(folder.root());
    let found = show(&lab, &["--hardlink"]);
    before.assert_same(folder.root(), "dedupe");
    assert_eq!(copies(&found), ["acme/two/model.safetensors"]);
    let group = &found["groups"][0];
    assert_eq!(group["keeps"]["path"], "acme/one/model.safetensors");
    assert_eq!(group["copies"][0]["how"], "hard_link");
    assert_eq!(group["blake3"], blake3::hash(&weights(1)).to_hex().to_string());
    let allocated =
        fs_err::metadata(folder.path("acme/two").join("model.safetensors")).expect("it").blocks() * 512;
    assert_eq!(found["saves_bytes"], allocated);
    assert_eq!(found["hashed_files"], 2);
    let table = lab.run(["clean", "dedupe", "--hardlink"]).success();
    assert!(
        table.stdout.contains("acme/two/model.safetensors") && table.stderr.contains("nothing was touched")
    );
}

#[test]
fn what_is_not_asked_for_is_refused() {
    let (lab, folder, ..) = two();
    let before = Frozen::of(folder.root());
    let run = |args: &[&str]| -> Output { lab.run(["clean", "dedupe"].iter().chain(args)) };
    assert!(run(&["--apply", "--hardlink"]).expect_code(2).stderr.contains("--yes"));
    let _ = run(&["--yes"]).expect_code(2);
    let _ = run(&["--now"]).expect_code(2);
    assert!(run(&["--min-size", "many"]).expect_code(2).stderr.contains("--min-size many"));
    before.assert_same(folder.root(), "dedupe");
}

#[test]
fn hard_links_and_back() {
    let (lab, folder, one, two) = two();
    lab.sync_any();
    let before = state(folder.root());
    let dir = fs_err::metadata(folder.path("acme/two")).expect("it").modified().expect("a time");
    let applied = apply(&lab, &[]);
    assert_eq!(applied["stores"][0]["done"][0]["what"], "acme/two/model.safetensors");
    assert_eq!(applied["stores"][0]["skipped"], json!([]));
    assert_eq!(inode(&one), inode(&two));
    let now = fs_err::metadata(folder.path("acme/two")).expect("it").modified().expect("a time");
    assert_eq!(now, dir, "that something was exchanged in it is nobody's business");
    assert_eq!(copies(&show(&lab, &["--hardlink"])), [""; 0], "they are one already");
    assert!(lab.run(["undo"]).success().stdout.contains("put back acme/two/model.safetensors"));
    assert_ne!(inode(&one), inode(&two));
    assert_eq!(state(folder.root()), before);
    assert!(!folder.root().join(".mlxman-trash").exists());
}

#[test]
fn undo_after_the_trash_was_emptied_copies() {
    for now in [true, false] {
        let (lab, folder, one, two) = two();
        fs_err::set_permissions(&one, std::fs::Permissions::from_mode(0o444)).expect("set");
        fs_err::set_permissions(&two, std::fs::Permissions::from_mode(0o444)).expect("set");
        let before = state(folder.root());
        let saves = show(&lab, &["--hardlink"])["saves_bytes"].clone();
        let applied = apply(&lab, if now { &["--now"] } else { &[] });
        let freed = if now {
            applied["freed_bytes"].clone()
        } else {
            assert_eq!(applied["reclaimable_bytes"], saves);
            lab.json(["trash", "empty", "--yes"])["freed_bytes"].clone()
        };
        assert_eq!(freed, saves);
        let list = lab.json(["trash", "list"]);
        assert_eq!(list["entries"][0]["state"], "shared");
        assert_eq!(list["reclaimable_bytes"], 0);
        assert_eq!(inode(&one), inode(&two));
        let _ = lab.run(["undo"]).success();
        assert_ne!(inode(&one), inode(&two));
        assert_eq!(state(folder.root()), before);
        assert!(!folder.root().join(".mlxman-trash").exists());
    }
}

#[test]
fn undo_does_not_take_back_what_somebody_wrote_since() {
    let (lab, folder, one, two) = two();
    let _ = apply(&lab, &["--now"]);
    // To write to one is to write to the other: what was there before is gone.
    let mut file = fs_err::OpenOptions::new().append(true).open(&one).expect("opened");
    std::io::Write::write_all(&mut file, b"more").expect("written");
    drop(file);
    let before = state(folder.root());
    let undone = lab.run(["undo"]).expect_code(1);
    assert!(undone.stderr.contains("was written to"), "{undone}");
    assert_eq!(state(folder.root()), before);
    assert_eq!(inode(&one), inode(&two));
}

#[test]
fn a_record_is_forgotten_by_its_name() {
    let (lab, folder, ..) = two();
    let applied = apply(&lab, &["--now"]);
    let id = applied["stores"][0]["id"].as_str().expect("an id");
    let _ = lab.run(["trash", "empty", "--yes"]).success();
    assert!(folder.root().join(".mlxman-trash").exists(), "without its name it stays");
    let _ = lab.run(["trash", "empty", "--yes", id]).success();
    assert!(!folder.root().join(".mlxman-trash").exists());
    assert!(lab.run(["undo"]).success().stderr.contains("nothing to put back"));
}

#[test]
fn two_stores_on_one_filesystem() {
    let (lab, folder) = Lab::with_folder();
    let mut files = four_bit(1).files();
    files.push(("extra.bin".to_owned(), weights(1)));
    let snapshot = lab.hub.repo("acme/one").snapshot(&files).with_ref("main");
    let blob = snapshot.blob_of("extra.bin");
    let local = put(&folder.path("mine"), &weights(1));
    fs_err::File::open(&local).expect("it").set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
    let (hub, mine) = (state(lab.hub.root()), state(folder.root()));
    let found = show(&lab, &["--hardlink"]);
    assert_eq!(copies(&found), ["acme/one/extra.bin"], "the oldest stays");
    let applied = apply(&lab, &[]);
    assert_eq!(applied["stores"].as_array().expect("stores").len(), 1);
    assert_eq!(inode(&blob), inode(&local));
    assert_eq!(fs_err::read(snapshot.path().join("extra.bin")).expect("read"), weights(1));
    lab.sync_any();
    let _ = lab.run(["undo"]).success();
    assert_eq!((state(lab.hub.root()), state(folder.root())), (hub, mine));
}

#[test]
fn the_shared_blob_store_keeps_its_protocol() {
    let lab = Lab::new();
    let hub = HubStore::create(lab.sandbox.root().join("shared")).shared();
    let store = format!("hub={}", hub.root().display());
    let mut files = four_bit(1).files();
    files.push(("extra.bin".to_owned(), weights(1)));
    let _ = hub.repo("acme/one").snapshot(&files).with_ref("main");
    let other = HubStore::create(lab.sandbox.root().join("plain"));
    let plain = other.repo("acme/two").snapshot(&files).with_ref("main");
    let stores =
        ["--store", &store, "--store", &format!("hub={}", other.root().display())].map(str::to_owned);
    let with = |args: &[&str]| -> Vec<String> {
        args.iter().map(|arg| (*arg).to_owned()).chain(stores.clone()).collect()
    };
    let before = state(hub.root());
    let found = lab.json(with(&["clean", "dedupe", "--hardlink", "--min-size", "1MB"]));
    // Both blobs are read-only or not, as their makers left them: only equals of equal permissions become one.
    let all = copies(&found).len() + left(&found).len();
    assert_eq!(all, 1, "{found:#}");
    let applied = lab.run(with(&["clean", "dedupe", "--hardlink", "--apply", "--yes"]));
    assert!(matches!(applied.code(), 0 | 1), "{applied}");
    let contents = |state: &BTreeMap<PathBuf, (blake3::Hash, u32, i64, i64, u64)>| -> Vec<_> {
        state.iter().map(|(path, (hash, mode, ..))| (path.clone(), *hash, *mode)).collect()
    };
    assert_eq!(
        contents(&state(hub.root())),
        contents(&before),
        "lists, locks and payloads are what they were"
    );
    assert_eq!(fs_err::read(plain.path().join("extra.bin")).expect("read"), weights(1));
}

#[test]
fn what_is_equal_only_at_its_ends_is_not_equal() {
    let (lab, folder) = Lab::with_folder();
    put(&folder.path("acme/one"), &weights(1));
    let mut other = weights(1);
    other[SIZE / 2] ^= 1;
    put(&folder.path("acme/two"), &other);
    let mut third = weights(1);
    third[SIZE - 1] ^= 1;
    put(&folder.path("acme/three"), &third);
    let found = show(&lab, &["--hardlink"]);
    assert_eq!((copies(&found).len(), left(&found).len()), (0, 0), "{found:#}");
    assert_eq!(found["hashed_files"], 2, "the third differs in its tail");
    let _ = apply(&lab, &[]);
    assert_eq!(fs_err::read(folder.path("acme/two").join("model.safetensors")).expect("read"), other);
}

#[test]
fn sparse_files_stay_sparse() {
    let (lab, folder) = Lab::with_folder();
    let mut bytes = vec![0; SIZE];
    bytes[..5].copy_from_slice(b"hello");
    let dense = put(&folder.path("dense"), &bytes);
    let sparse = put(&folder.path("sparse"), b"hello");
    fs_err::OpenOptions::new().write(true).open(&sparse).expect("it").set_len(SIZE as u64).expect("longer");
    let allocated = |path: &Path| fs_err::metadata(path).expect("it").blocks() * 512;
    let (much, little) = (allocated(&dense), allocated(&sparse));
    if little >= much {
        eprintln!("this filesystem has no holes");
        return;
    }
    let found = show(&lab, &["--hardlink"]);
    assert_eq!(found["groups"][0]["keeps"]["what"], "sparse/model.safetensors", "what takes least stays");
    assert_eq!(found["saves_bytes"], much);
    let _ = apply(&lab, &["--now"]);
    assert_eq!(allocated(&dense), little);
    let _ = lab.run(["undo"]).success();
    assert_eq!(allocated(&dense), little, "a copy of holes has holes");
    assert_ne!(inode(&dense), inode(&sparse));
    assert_eq!(fs_err::read(&dense).expect("read"), bytes);
}

#[test]
fn other_permissions_are_no_hard_link() {
    let (lab, folder, one, two) = two();
    fs_err::set_permissions(&two, std::fs::Permissions::from_mode(0o600)).expect("set");
    let before = state(folder.root());
    let found = show(&lab, &["--hardlink"]);
    assert_eq!(copies(&found), [""; 0]);
    assert!(left(&found)[0].1.contains("permissions"), "{found:#}");
    let _ = apply(&lab, &[]);
    assert_ne!(inode(&one), inode(&two));
    assert_eq!(state(folder.root()), before);
    // Two of each kind become two files.
    let third = put(&folder.path("acme/three"), &weights(1));
    let fourth = put(&folder.path("acme/four"), &weights(1));
    fs_err::set_permissions(&fourth, std::fs::Permissions::from_mode(0o600)).expect("set");
    let _ = apply(&lab, &[]);
    assert_eq!((inode(&one), inode(&two)), (inode(&third), inode(&fourth)));
    assert_ne!(inode(&one), inode(&two));
}

#[test]
fn names_of_one_file_are_one_and_go_together() {
    let (lab, folder, one, two) = two();
    let dir = folder.path("acme/three");
    fs_err::create_dir_all(&dir).expect("a directory");
    fs_err::write(dir.join("config.json"), "{\"model_type\": \"llama\"}").expect("written");
    fs_err::hard_link(&two, dir.join("model.safetensors")).expect("linked");
    fs_err::File::open(&one).expect("it").set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
    let before = state(folder.root());
    let found = show(&lab, &["--hardlink"]);
    assert_eq!(copies(&found).len(), 1, "two names of one file are one copy");
    let _ = apply(&lab, &["--now"]);
    assert_eq!([inode(&two), inode(&dir.join("model.safetensors"))], [inode(&one); 2]);
    let _ = lab.run(["undo"]).success();
    assert_eq!(inode(&two), inode(&dir.join("model.safetensors")), "what was one file is one again");
    assert_eq!(state(folder.root()), before);
    // With a name outside of the stores nothing would be freed.
    fs_err::hard_link(&two, lab.sandbox.root().join("outside")).expect("linked");
    let found = show(&lab, &["--hardlink"]);
    assert!(left(&found)[0].1.contains("outside"), "{found:#}");
    assert_eq!(found["saves_bytes"], 0);
}

#[test]
fn what_somebody_works_with_is_left() {
    let (lab, folder, _, two) = two();
    let open = fs_err::File::open(&two).expect("open");
    if cfg!(target_os = "linux") {
        assert!(left(&show(&lab, &["--hardlink"]))[0].1.contains("open"));
    }
    drop(open);
    let repo = lab.hub.repo("acme/busy");
    let mut files = four_bit(1).files();
    files.push(("extra.bin".to_owned(), weights(1)));
    let snapshot = repo.snapshot(&files).with_ref("main");
    let lock = fs_err::File::create(repo.lock("abc")).expect("a lock");
    lock.file().lock().expect("held");
    let found = show(&lab, &["--hardlink"]);
    assert_eq!(left(&found), [("acme/busy/extra.bin", "a download works on its repo")]);
    let _ = apply(&lab, &[]);
    assert_ne!(inode(&snapshot.blob_of("extra.bin")), inode(&two));
    lock.file().unlock().expect("given back");
    assert_eq!(copies(&show(&lab, &["--hardlink"])), ["acme/busy/extra.bin"]);
    // Partial files, and what lies in the trash, are no copies.
    let _ = repo.partial(&"ab".repeat(32), "0a0a0a0a", &weights(1));
    let _ = apply(&lab, &[]);
    assert_eq!(copies(&show(&lab, &["--hardlink"])), [""; 0]);
    let _ = folder;
}

#[test]
fn small_files_are_left_unless_asked_for() {
    let (lab, _folder, ..) = two();
    assert_eq!(show(&lab, &["--hardlink"])["groups"].as_array().expect("groups").len(), 1);
    let found = show(&lab, &["--hardlink", "--min-size", "1B"]);
    assert_eq!(found["groups"].as_array().expect("groups").len(), 2, "with the configurations");
    assert_eq!(copies(&show(&lab, &["--hardlink", "--min-size", "4MB"])), [""; 0]);
}

#[test]
fn what_was_read_is_not_read_again() {
    let (lab, folder, one, _) = two();
    assert_eq!(show(&lab, &[])["hashed_files"], 2);
    assert_eq!(show(&lab, &[])["hashed_files"], 0);
    let cache = lab.sandbox.mlxman_home().join("dedupe.json");
    let text = fs_err::read_to_string(&cache).expect("the cache");
    fs_err::write(&cache, &text[..text.len() / 2]).expect("written");
    assert_eq!(show(&lab, &[])["hashed_files"], 2, "a damaged cache is none");
    fs_err::remove_file(&cache).expect("gone");
    let _ = lab.run(["sync"]);
    assert_eq!(show(&lab, &[])["hashed_files"], 0, "a sync has hashed the weights");
    // A file of the same size and time of modification, with other bytes.
    let before = fs_err::metadata(&one).expect("it").modified().expect("a time");
    let _ = fs_err::remove_file(lab.sandbox.mlxman_home().join("hashes.json"));
    let _ = show(&lab, &[]);
    let file = fs_err::OpenOptions::new().write(true).open(&one).expect("it");
    file.file().write_all_at(b"other", (SIZE / 2) as u64).expect("written");
    file.set_modified(before).expect("set");
    drop(file);
    let found = show(&lab, &["--hardlink"]);
    assert_eq!((found["hashed_files"].clone(), copies(&found).len()), (json!(1), 0));
    let _ = folder;
}

#[test]
fn a_wrong_hash_in_a_cache_makes_no_two_files_one() {
    let (lab, folder) = Lab::with_folder();
    let one = put(&folder.path("acme/one"), &weights(1));
    let mut other = weights(1);
    other[SIZE / 2] ^= 1;
    let two = put(&folder.path("acme/two"), &other);
    let _ = show(&lab, &["--hardlink"]);
    let cache = lab.sandbox.mlxman_home().join("dedupe.json");
    let mut value: Value = serde_json::from_str(&fs_err::read_to_string(&cache).expect("it")).expect("JSON");
    for file in value["files"].as_array_mut().expect("files") {
        file["blake3"] = json!("ab".repeat(32));
    }
    fs_err::write(&cache, value.to_string()).expect("written");
    assert_eq!(copies(&show(&lab, &["--hardlink"])).len(), 1, "the cache is believed when it is shown");
    let applied = apply(&lab, &[]);
    assert_eq!(applied["stores"][0]["skipped"][0]["reason"], "it is not equal any more");
    assert_ne!(inode(&one), inode(&two));
    assert_eq!(fs_err::read(&two).expect("read"), other);
    assert!(!folder.root().join(".mlxman-trash").exists());
}

/// A directory on another filesystem, which lets no files share blocks.
#[cfg(target_os = "linux")]
fn elsewhere() -> Option<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix("mlxman-").tempdir_in("/dev/shm").ok()?;
    let here = fs_err::metadata(std::env::temp_dir()).expect("it").dev();
    (fs_err::metadata(dir.path()).expect("it").dev() != here).then_some(dir)
}

#[test]
#[cfg(target_os = "linux")]
fn other_filesystems_are_left() {
    let Some(elsewhere) = elsewhere() else {
        eprintln!("there is no other filesystem in /dev/shm");
        return;
    };
    let (lab, folder) = Lab::with_folder();
    put(&folder.path("here"), &weights(1));
    put(&elsewhere.path().join("there"), &weights(1));
    let store = format!("folder={}", elsewhere.path().display());
    let mine = format!("folder={}", folder.root().display());
    let stores = ["--store", &store, "--store", &mine];
    let found = show(&lab, &[&stores[..], &["--hardlink"]].concat());
    assert_eq!(copies(&found), [""; 0]);
    assert_eq!(left(&found).len(), 2);
    assert!(left(&found).iter().all(|(_, reason)| reason.contains("other filesystems")), "{found:#}");
    // A second one there cannot share blocks with the first, and says so.
    put(&elsewhere.path().join("second"), &weights(1));
    let found = show(&lab, &["--store", &store]);
    assert_eq!(copies(&found), [""; 0]);
    assert!(left(&found)[0].1.contains("--hardlink"), "{found:#}");
    let found = show(&lab, &[&stores[..], &["--hardlink"]].concat());
    assert_eq!((copies(&found).len(), left(&found).len()), (1, 1), "{found:#}");
}

/// A directory on a filesystem that lets files share blocks: the one named by `MLXMAN_TEST_REFLINK_DIR`, or the
/// temporary one where it is such.
fn sharing() -> Option<tempfile::TempDir> {
    let named = std::env::var_os("MLXMAN_TEST_REFLINK_DIR").map(PathBuf::from);
    let dir = tempfile::tempdir_in(named.clone().unwrap_or_else(std::env::temp_dir)).expect("a directory");
    let kind = mlxman_store::Filesystem::of(dir.path()).expect("a filesystem").kind;
    let shares = named.is_some() || matches!(kind.as_deref(), Some("btrfs" | "apfs"));
    shares.then_some(dir)
}

#[test]
fn files_that_share_blocks_stay_files_of_their_own() {
    let Some(dir) = sharing() else {
        eprintln!("name a directory on btrfs, xfs or apfs in MLXMAN_TEST_REFLINK_DIR to test reflinks");
        return;
    };
    let lab = Lab::new();
    let store = format!("folder={}", dir.path().display());
    let one = put(&dir.path().join("one"), &weights(1));
    let two = put(&dir.path().join("two"), &weights(1));
    fs_err::set_permissions(&two, std::fs::Permissions::from_mode(0o440)).expect("set");
    for path in [&one, &two] {
        fs_err::File::open(path).expect("it").sync_all().expect("synced");
    }
    let before = state(dir.path());
    let free = || {
        // Only what is on the disk is counted.
        let _ = std::process::Command::new("sync").status();
        mlxman_store::Filesystem::of(dir.path()).expect("a filesystem").free_bytes
    };
    let found = show(&lab, &["--store", &store]);
    assert_eq!(found["groups"][0]["copies"][0]["how"], "reflink", "{found:#}");
    let then = free();
    let applied = lab.json(["clean", "dedupe", "--apply", "--yes", "--now", "--store", &store]);
    assert_eq!(applied["stores"][0]["done"].as_array().expect("done").len(), 1, "{applied:#}");
    assert!(free() >= then + (SIZE as u64) * 9 / 10, "{then} then, {} now", free());
    assert_eq!(state(dir.path()), before, "content, permissions and times are what they were");
    let found = show(&lab, &["--store", &store]);
    assert_eq!((copies(&found).len(), left(&found).len()), (0, 0), "they share already: {found:#}");
    // To write to one leaves the other alone.
    let file = fs_err::OpenOptions::new().write(true).open(&one).expect("it");
    file.file().write_all_at(b"other", 0).expect("written");
    drop(file);
    assert_eq!(fs_err::read(&two).expect("read"), weights(1));
    let then = free();
    let _ = lab.run(["undo", "--store", &store]).success();
    assert_eq!(
        state(dir.path())[Path::new("two/model.safetensors")],
        before[Path::new("two/model.safetensors")]
    );
    assert!(free() + (SIZE as u64) / 2 <= then, "it has blocks of its own again");
    assert!(!dir.path().join(".mlxman-trash").exists());
}
