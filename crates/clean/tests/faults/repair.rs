//! Repairs, broken off at every single change that they make to a store.

use std::cell::Cell;
use std::io;
use std::path::Path;

use mlxman_clean::RepairKind;
use mlxman_store::StoreKind;
use mlxman_testkit::{FolderStore, HubStore, ModelSpec, Repo, Snapshot, sha256_hex};

use crate::bench::{Bench, content, counting, failing_once, freely, killed_after, same};

type Make = fn() -> Bench;

/// Stores in which something is wrong, with what mends it.
const CASES: [(&str, Make, &[RepairKind]); 3] = [
    (
        "a hub cache",
        hub,
        &[
            RepairKind::RemovePartial,
            RepairKind::RemoveEmpty,
            RepairKind::RewriteRef,
            RepairKind::RestoreLink,
            RepairKind::AdoptBlob,
        ],
    ),
    ("links that a copy lost", flattened, &[RepairKind::Unflatten]),
    ("a folder", folder, &[RepairKind::RebuildIndex, RepairKind::RebuildIndex]),
];

fn remove(path: &Path) {
    fs_err::remove_file(path).expect("it goes");
}

/// Gives a file of a snapshot a link that leads nowhere.
fn mislead(snapshot: &Snapshot, file: &str) {
    let link = snapshot.path().join(file);
    remove(&link);
    fs_err::os::unix::fs::symlink("../../blobs/no-such-blob", link).expect("a link");
}

fn broken(repo: &Repo) -> Snapshot {
    let snapshot = repo.snapshot(&ModelSpec::llama().files());
    fs_err::create_dir_all(repo.path().join("refs")).expect("a directory");
    fs_err::write(repo.path().join("refs/main"), format!("{}\n", snapshot.commit)).expect("a ref");
    snapshot
}

fn hub() -> Bench {
    Bench::make(StoreKind::Hub, |root| {
        let hub = HubStore::create(root);
        let repo = hub.repo("acme/one");
        let snapshot = broken(&repo);
        mislead(&snapshot, "config.json");
        // Nothing links to the weights any more.
        remove(&snapshot.path().join("model.safetensors"));
        let other = hub.repo("acme/two");
        let _ = other.snapshot(&ModelSpec::llama().seed(2).files()).with_ref("main");
        let _ = other.partial(&sha256_hex(b"dead"), "0a0a0a0a", b"half");
        let empty = hub.repo("acme/empty");
        fs_err::create_dir_all(empty.snapshot_path(&"3".repeat(40)).join("sub")).expect("a directory");
        empty.add_ref("main", &"3".repeat(40));
    })
}

fn flattened() -> Bench {
    Bench::make(StoreKind::Hub, |root| {
        let hub = HubStore::create(root).shared();
        let snapshot = hub.repo("acme/one").snapshot(&ModelSpec::llama().files()).with_ref("main");
        let blobs = snapshot.repo().blobs();
        for dir in [snapshot.path(), blobs] {
            for entry in fs_err::read_dir(dir).expect("a directory") {
                let path = entry.expect("an entry").path();
                let Ok(target) = fs_err::read_link(&path) else { continue };
                remove(&path);
                fs_err::write(&path, target.to_string_lossy().as_bytes()).expect("written");
            }
        }
    })
}

fn folder() -> Bench {
    Bench::make(StoreKind::Folder, |root| {
        let folder = FolderStore::create(root);
        let files = ModelSpec::llama().shards(3).files();
        remove(&folder.model("acme/none", &files).join("model.safetensors.index.json"));
        let stale = folder.model("acme/stale", &files).join("model.safetensors.index.json");
        let text = fs_err::read_to_string(&stale).expect("an index");
        let moved = text.replace("model-00001-of-00003", "model-00002-of-00003");
        assert_ne!(text, moved);
        fs_err::write(stale, moved).expect("written");
    })
}

/// How many changes a whole run makes.
fn changes(make: Make) -> usize {
    let bench = make();
    let count = Cell::new(0);
    let applied = bench.mend(&counting(&count)).expect("it is mended");
    assert!(applied.skipped.is_empty() && applied.left.is_empty(), "{applied:?}");
    count.get()
}

#[test]
fn what_is_wrong_is_mended_once_and_can_be_put_back() {
    for (name, make, kinds) in CASES {
        let bench = make();
        let before = bench.tree();
        let found = bench.repairs();
        let mut mends: Vec<RepairKind> = found.mendable().map(|(_, repair)| repair.kind).collect();
        mends.sort();
        assert_eq!(mends, kinds, "{name}: {:#?}", found.findings);
        same(&bench.tree(), &before, "looking changes nothing");
        let applied = bench.mend(&freely).expect("it is mended");
        assert_eq!(applied.done.len(), kinds.len(), "{name}: {applied:#?}");
        assert!(applied.skipped.is_empty() && applied.left.is_empty(), "{name}: {applied:#?}");
        let after = bench.repairs();
        assert_eq!(after.mendable().count(), 0, "{name}: {:#?}", after.findings);
        assert!(after.findings.is_empty(), "{name}: {:#?}", after.findings);
        // Again there is nothing to do, and no second journal.
        assert!(bench.mend(&freely).expect("it is looked at").id.is_none(), "{name}");
        let [id] = bench.kept().try_into().expect("one journal");
        assert!(bench.undo(&id, &freely).expect("it is undone").is_empty(), "{name}");
        same(&bench.tree(), &before, name);
    }
}

#[test]
fn a_kill_at_any_change_of_a_repair_leaves_before_or_after() {
    for (name, make, _) in CASES {
        let total = changes(make);
        let after = {
            let bench = make();
            let _ = bench.mend(&freely).expect("it is mended");
            content(&bench.tree())
        };
        let (mut befores, mut afters) = (0, 0);
        for point in 0..total {
            let bench = make();
            let before = bench.tree();
            let _ = bench.mend(&killed_after(point));
            let recovered = bench.recover();
            assert!(recovered.iter().all(|one| one.stuck.is_empty()), "{name} at {point}: {recovered:?}");
            let now = bench.tree();
            if now == before {
                befores += 1;
                assert!(bench.kept().is_empty(), "{name} at {point}");
            } else {
                afters += 1;
                same(&content(&now), &after, &format!("{name} at {point}"));
                let [id] = bench.kept().try_into().expect("one journal");
                assert!(bench.undo(&id, &freely).expect("it is undone").is_empty());
                same(&bench.tree(), &before, &format!("{name} at {point}, undone"));
            }
        }
        assert!(befores > 10 && afters > 0, "{name}: {befores} before, {afters} after, of {total}");
    }
}

#[test]
fn a_kill_at_any_change_of_taking_a_repair_back_leaves_before_or_after() {
    for (name, make, _) in CASES {
        let total = {
            let bench = make();
            let id = bench.mend(&freely).expect("it is mended").id.expect("a journal");
            let count = Cell::new(0);
            let _ = bench.undo(&id, &counting(&count)).expect("it is undone");
            count.get()
        };
        for point in 0..total {
            let bench = make();
            let before = bench.tree();
            let id = bench.mend(&freely).expect("it is mended").id.expect("a journal");
            let after = content(&bench.tree());
            let _ = bench.undo(&id, &killed_after(point));
            let recovered = bench.recover();
            assert!(recovered.iter().all(|one| one.stuck.is_empty()), "{name} at {point}: {recovered:?}");
            if bench.kept().is_empty() {
                same(&bench.tree(), &before, &format!("{name} at {point}"));
            } else {
                same(&content(&bench.tree()), &after, &format!("{name} at {point}"));
            }
        }
    }
}

/// A full disk, a read-only one, a permission that is missing: repairs are done whole or not at all.
#[test]
fn a_failure_at_any_change_of_a_repair_loses_nothing() {
    const KINDS: [io::ErrorKind; 3] =
        [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied];
    for (name, make, kinds) in CASES {
        let total = changes(make);
        for point in 0..total {
            let bench = make();
            let before = bench.tree();
            let applied = bench.mend(&failing_once(point, KINDS[point % KINDS.len()]));
            let recovered = bench.recover();
            assert!(recovered.iter().all(|one| one.stuck.is_empty()), "{name} at {point}: {recovered:?}");
            if let Ok(applied) = &applied {
                let rows = applied.done.len() + applied.skipped.len();
                assert_eq!(rows, kinds.len(), "{name} at {point}: {applied:?}");
            }
            for id in bench.kept() {
                let stuck = bench.undo(&id, &freely).expect("it is undone");
                assert!(stuck.is_empty(), "{name} at {point}: {stuck:?}");
            }
            same(&content(&bench.tree()), &content(&before), &format!("{name} at {point}"));
        }
    }
}

/// What somebody put in a place between the look and the repair is theirs.
#[test]
fn what_came_meanwhile_is_never_replaced() {
    let bench = hub();
    let given = bench.repairs();
    let main = bench.root().join("models--acme--one/refs/main");
    let newer = "4".repeat(40);
    fs_err::write(&main, &newer).expect("written");
    let link = given
        .mendable()
        .find_map(|(_, repair)| match repair.changes.last() {
            Some(mlxman_clean::RepairChange::Link { path, .. }) if repair.kind == RepairKind::AdoptBlob => {
                Some(path.clone())
            }
            _ => None,
        })
        .expect("a link is to be made");
    fs_err::write(bench.root().join(&link), "mine").expect("written");
    let applied = bench.mend_as(&given, &freely).expect("the rest is mended");
    assert_eq!(fs_err::read_to_string(main).expect("the ref"), newer);
    assert_eq!(fs_err::read_to_string(bench.root().join(&link)).expect("the file"), "mine");
    let skipped: Vec<&str> = applied.skipped.iter().map(|skipped| skipped.what.as_str()).collect();
    assert!(skipped.contains(&"models--acme--one/refs/main"), "{applied:#?}");
    assert_eq!(skipped.len(), 2, "{applied:#?}");
}

/// A place that fills up in the moment before the rename.
#[test]
fn a_place_that_is_taken_at_the_last_moment_is_left() {
    let bench = hub();
    let link = bench.root().join("models--acme--one/snapshots");
    let weights = fs_err::read_dir(link)
        .expect("snapshots")
        .next()
        .expect("one")
        .expect("an entry")
        .path()
        .join("model.safetensors");
    let came = |_| {
        // As soon as the journal is there, so is somebody else's file.
        if bench.root().join(".mlxman-trash").exists() && !weights.exists() {
            fs_err::write(&weights, "mine")?;
        }
        Ok(())
    };
    // It is seen under the lock already, or when the link is put in its place.
    let applied = bench.mend(&came).expect("the rest is mended");
    assert_eq!(fs_err::read_to_string(&weights).expect("the file"), "mine");
    assert_eq!(applied.skipped.len(), 1, "{applied:#?}");
}
