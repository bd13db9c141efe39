//! Making one copy of equal files, undoing and emptying it, broken off at every single change: every path has its whole
//! content at every moment.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mlxman_clean::{
    AppliedStore, Applying, Duplicates, HashCache, Recovered, Search, Trash, apply_dedupe, find_duplicates,
};
use mlxman_manifest::registry::{Registry, scan_all};
use mlxman_store::{Before, Change, DirHandle, StoreKind, StoreSpec, acting_user};
use mlxman_testkit::{FolderStore, write_files};

use crate::bench::{
    Stopped, Tree, content, counting, failing_once, freely, killed_after, now, run, same, tree,
};

/// A folder with equal files: two pairs, one of them with a file of two names.
struct Equals {
    _dir: tempfile::TempDir,
    spec: StoreSpec,
    hard_link: bool,
}

fn bytes(seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; 70_000];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

impl Equals {
    fn new() -> Self {
        Self::at(tempfile::tempdir().expect("a directory"), true)
    }

    fn at(dir: tempfile::TempDir, hard_link: bool) -> Self {
        let root = dir.path().join("models");
        let folder = FolderStore::create(&root);
        for (name, seed) in [("acme/one", 1), ("acme/two", 1), ("acme/three", 2), ("other", 2)] {
            let config = ("config.json".to_owned(), b"{\"model_type\": \"llama\"}".to_vec());
            write_files(&folder.path(name), &[config, ("model.safetensors".to_owned(), bytes(seed))]);
        }
        let named = folder.path("other").join("again.safetensors");
        fs_err::hard_link(folder.path("other").join("model.safetensors"), named).expect("linked");
        let old = folder.path("acme/three").join("model.safetensors");
        fs_err::File::open(&old).expect("it").set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
        for path in walk(&root).filter(|path| path.is_file()) {
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).expect("set");
            fs_err::File::open(&path).expect("it").sync_all().expect("synced");
        }
        Equals { _dir: dir, spec: StoreSpec::new(StoreKind::Folder, root), hard_link }
    }

    fn root(&self) -> DirHandle {
        DirHandle::open_root(self.spec.root()).expect("the store opens")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.spec.root().join(name)
    }

    fn tree(&self) -> Tree {
        tree(self.spec.root())
    }

    /// Which paths are one file.
    fn files(&self) -> usize {
        let inodes = walk(self.spec.root())
            .filter(|path| !path.to_string_lossy().contains(".mlxman-trash"))
            .filter_map(|path| path.symlink_metadata().ok().filter(std::fs::Metadata::is_file))
            .map(|meta| (meta.ino(), ()));
        inodes.collect::<BTreeMap<_, _>>().len()
    }

    fn find(&self) -> Duplicates {
        let specs = [self.spec.clone()];
        let scans = scan_all(&specs, &[], std::time::Duration::from_secs(60));
        let stores: Vec<_> = specs.into_iter().zip(scans).collect();
        let hashes = Registry::at(self._dir.path().join("home")).hashes();
        let finding = Search {
            stores: &stores,
            min_size: 1000,
            hard_link: self.hard_link,
            user: acting_user(),
            hashes: &hashes,
            step: &|_, _, _| true,
            now: now(),
        };
        let found = find_duplicates(&finding, &mut HashCache::default());
        assert_eq!(found.groups.len(), 2, "{found:#?}");
        found
    }

    fn apply(&self, found: &Duplicates, before: Before<'_>) -> Result<AppliedStore, Stopped> {
        let root = self.root();
        let roots = HashMap::from([(self.spec.id(), self.root())]);
        let trash = Trash::open(&self.spec, &root, None, before)?;
        let go_on = |_| true;
        let applying =
            Applying { found, roots: &roots, hard_link: self.hard_link, go_on: &go_on, run: &run() };
        Ok(apply_dedupe(&trash, &self.spec.id(), &applying)?)
    }

    fn applied(&self) -> String {
        let applied = self.apply(&self.find(), &freely).expect("it is applied");
        assert_eq!((applied.done.len(), applied.skipped.len()), (2, 0), "{applied:?}");
        applied.id.expect("a journal")
    }

    fn undo(&self, id: &str, before: Before<'_>) -> Result<Vec<String>, Stopped> {
        let root = self.root();
        Ok(Trash::open(&self.spec, &root, None, before)?.undo(id)?.stuck)
    }

    fn empty(&self, id: &str, before: Before<'_>) -> Result<u64, Stopped> {
        let root = self.root();
        Ok(Trash::open(&self.spec, &root, None, before)?.empty(id)?.freed_bytes)
    }

    fn recover(&self) -> Vec<Recovered> {
        let root = self.root();
        match Trash::open_existing(&self.spec, &root, &freely).expect("the trash opens") {
            Some(trash) => trash.recover().expect("it recovers"),
            None => Vec::new(),
        }
    }

    fn kept(&self) -> Vec<String> {
        let entries = mlxman_clean::list_trash(&self.spec, &self.root()).expect("a list");
        entries.into_iter().map(|entry| entry.id).collect()
    }

    /// Ends what was broken off, and undoes what is left of it: all is as before then.
    fn back(&self, before: &Tree, where_: &str) {
        let recovered = self.recover();
        assert!(recovered.iter().all(|one| one.stuck.is_empty()), "{where_}: {recovered:?}");
        same(&content(&self.tree()), &content(before), where_);
        for id in self.kept() {
            let stuck = self.undo(&id, &freely).expect("it is undone");
            assert!(stuck.is_empty(), "{where_}: {stuck:?}");
        }
        // A kill between an exchange and setting the times of the directory leaves it with a new time of modification.
        let files = |tree: &Tree| -> Tree {
            tree.iter()
                .filter(|(_, (kind, ..))| *kind == 'f')
                .map(|(path, one)| (path.clone(), one.clone()))
                .collect()
        };
        same(&files(&self.tree()), &files(before), where_);
        assert_eq!(self.files(), 8, "{where_}: copies of their own");
        assert!(!self.path(".mlxman-trash").exists(), "{where_}");
    }
}

fn walk(root: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut at = 0;
    while at < found.len() {
        if found[at].symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let below = fs_err::read_dir(&found[at]).expect("a directory");
            found.extend(below.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>());
        }
        at += 1;
    }
    found.into_iter()
}

/// A directory on a filesystem that lets files share blocks, where one is named.
fn sharing() -> Option<tempfile::TempDir> {
    let named = std::env::var_os("MLXMAN_TEST_REFLINK_DIR")?;
    Some(tempfile::tempdir_in(named).expect("a directory"))
}

type Make = fn() -> Option<Equals>;

/// Stores, and a change that cannot be made in them: as where a filesystem can clone files and not compare them.
fn cases() -> Vec<(&'static str, Make, Option<Change>)> {
    vec![
        ("hard links", || Some(Equals::new()), None),
        ("shared blocks", || Some(Equals::at(sharing()?, false)), None),
        ("clones", || Some(Equals::at(sharing()?, false)), Some(Change::Share)),
    ]
}

/// As `inner`, in a filesystem that cannot do this.
fn without<'a>(
    change: Option<Change>,
    inner: impl Fn(Change) -> io::Result<()> + 'a,
) -> impl Fn(Change) -> io::Result<()> + 'a {
    move |asked| {
        if Some(asked) == change {
            return Err(io::ErrorKind::Unsupported.into());
        }
        inner(asked)
    }
}

fn each(test: impl Fn(&str, Make, Option<Change>)) {
    for (name, make, cannot) in cases() {
        if make().is_some() {
            test(name, make, cannot);
        }
    }
}

fn made(make: Make) -> Equals {
    make().expect("a store")
}

#[test]
fn a_kill_at_any_change_of_a_dedupe() {
    each(|name, make, cannot| {
        let count = Cell::new(0);
        let bench = made(make);
        let applied = bench.apply(&bench.find(), &without(cannot, counting(&count))).expect("applied");
        assert_eq!(applied.done.len(), 2, "{name}: {applied:?}");
        let mut kept = 0;
        for point in 0..count.get() {
            let bench = made(make);
            let before = bench.tree();
            let found = bench.find();
            let _ = bench.apply(&found, &without(cannot, killed_after(point)));
            same(&content(&bench.tree()), &content(&before), &format!("{name} at {point}, before recovery"));
            let _ = bench.recover();
            kept += usize::from(!bench.kept().is_empty());
            bench.back(&before, &format!("{name} at {point}"));
        }
        assert!(kept > 0, "{name}: the last kills come when all is done");
    });
}

#[test]
fn a_failure_at_any_change_of_a_dedupe() {
    const KINDS: [io::ErrorKind; 3] =
        [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied];
    each(|name, make, cannot| {
        let count = Cell::new(0);
        let bench = made(make);
        let _ = bench.apply(&bench.find(), &without(cannot, counting(&count))).expect("applied");
        for point in 0..count.get() {
            let bench = made(make);
            let before = bench.tree();
            let failing = failing_once(point, KINDS[point % KINDS.len()]);
            if let Ok(applied) = bench.apply(&bench.find(), &without(cannot, failing)) {
                assert_eq!(applied.done.len() + applied.skipped.len(), 2, "{name} at {point}: {applied:?}");
            }
            same(&content(&bench.tree()), &content(&before), &format!("{name} at {point}"));
            bench.back(&before, &format!("{name} at {point}"));
        }
    });
}

#[test]
fn a_kill_at_any_change_of_an_undo() {
    for emptied in [false, true] {
        each(|name, make, _| {
            let ready = || {
                let bench = made(make);
                let before = bench.tree();
                let id = bench.applied();
                if emptied && bench.hard_link {
                    let _ = bench.empty(&id, &freely).expect("it is emptied");
                }
                (bench, before, id)
            };
            let (bench, _, id) = ready();
            let count = Cell::new(0);
            assert!(bench.undo(&id, &counting(&count)).expect("it is undone").is_empty());
            for point in 0..count.get() {
                let (bench, before, id) = ready();
                let _ = bench.undo(&id, &killed_after(point));
                let where_ = format!("{name} at {point}, emptied: {emptied}");
                same(&content(&bench.tree()), &content(&before), &where_);
                bench.back(&before, &where_);
            }
        });
    }
}

#[test]
fn a_kill_at_any_change_of_an_emptying() {
    let bench = Equals::new();
    let id = bench.applied();
    let files = bench.files();
    let count = Cell::new(0);
    let _ = bench.empty(&id, &counting(&count)).expect("it is emptied");
    for point in 0..count.get() {
        let bench = Equals::new();
        let before = bench.tree();
        let id = bench.applied();
        let _ = bench.empty(&id, &killed_after(point));
        let _ = bench.recover();
        assert_eq!(bench.files(), files, "at {point}");
        bench.back(&before, &format!("at {point}"));
    }
}

#[test]
fn what_changed_since_it_was_found_is_left() {
    let bench = Equals::new();
    let found = bench.find();
    let changed = bench.path("acme/two/model.safetensors");
    let changed = if found.groups.iter().any(|group| group.keeps.path.starts_with("acme/two")) {
        bench.path("acme/one/model.safetensors")
    } else {
        changed
    };
    fs_err::set_permissions(&changed, std::fs::Permissions::from_mode(0o644)).expect("set");
    let mut other = bytes(1);
    other[35_000] ^= 1;
    let times = fs_err::metadata(&changed).expect("it").modified().expect("a time");
    fs_err::write(&changed, &other).expect("written");
    fs_err::File::open(&changed).expect("it").set_modified(times).expect("set");
    fs_err::set_permissions(&changed, std::fs::Permissions::from_mode(0o444)).expect("set");
    let applied = bench.apply(&found, &freely).expect("it is applied");
    assert_eq!((applied.done.len(), applied.skipped.len()), (1, 1), "{applied:?}");
    assert!(applied.skipped[0].reason.contains("changed meanwhile"), "{applied:?}");
    assert_eq!(fs_err::read(&changed).expect("read"), other);
}

/// Somebody writes to a file between the comparison and the exchange.
#[test]
fn what_changes_at_the_last_moment_is_put_back() {
    let bench = Equals::new();
    let found = bench.find();
    let path = bench.path(&found.groups[0].copies[0].file.path);
    let before = |change: Change| {
        let begun = |name: &str| !name.ends_with(".draft") && name != "lock";
        let names = fs_err::read_dir(bench.path(".mlxman-trash")).into_iter().flatten();
        let is_written = names.flatten().any(|entry| begun(&entry.file_name().to_string_lossy()));
        if change == Change::Move && is_written && !path.with_extension("was").exists() {
            fs_err::write(path.with_extension("was"), "").expect("written");
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
            fs_err::write(&path, "written at the last moment").expect("written");
        }
        Ok(())
    };
    let applied = bench.apply(&found, &before).expect("it is applied");
    assert_eq!((applied.done.len(), applied.skipped.len()), (1, 1), "{applied:?}");
    assert_eq!(fs_err::read(&path).expect("read"), b"written at the last moment");
}
