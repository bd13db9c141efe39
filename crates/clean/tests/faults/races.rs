//! A download that comes at any change that an apply, an undo or an emptying makes, or that was begun there and goes on
//! at any later one. It does what huggingface_hub 2 does, in its order and with its locks.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use mlxman_store::{Change, StoreKind};
use mlxman_testkit::{Files, HubStore, etag, text, xet_hash};

use crate::bench::{Bench, counting, freely};

/// A file of a repo that is being downloaded.
struct Download {
    root: PathBuf,
    repo: &'static str,
    commit: String,
    file: (String, Vec<u8>),
    /// Whether payload is looked for in the shared blob store.
    shared: bool,
    state: Cell<State>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    New,
    /// It was looked whether the blob is there.
    Looked(bool),
    /// The link was there: nothing was done.
    There,
    Done,
}

/// A lock of huggingface_hub, not waited for.
fn lock(path: &Path) -> Option<std::fs::File> {
    fs_err::create_dir_all(path.parent().expect("a parent")).expect("made");
    let file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).expect("a lock");
    file.try_lock().is_ok().then_some(file)
}

impl Download {
    fn blob(&self) -> PathBuf {
        self.root.join(self.repo).join("blobs").join(etag(&self.file.0, &self.file.1))
    }

    fn pointer(&self) -> PathBuf {
        self.root.join(self.repo).join("snapshots").join(&self.commit).join(&self.file.0)
    }

    /// What comes before the lock: the directories, and a look at the blob.
    fn look(&self) {
        if self.pointer().exists() {
            return self.state.set(State::There);
        }
        fs_err::create_dir_all(self.blob().parent().expect("a parent")).expect("made");
        fs_err::create_dir_all(self.pointer().parent().expect("a parent")).expect("made");
        self.state.set(State::Looked(self.blob().exists()));
    }

    /// What is done under the lock; not if somebody holds it.
    fn go_on(&self, was_there: bool) {
        let (blob, pointer) = (self.blob(), self.pointer());
        let name = blob.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        let Some(_lock) = lock(&self.root.join(".locks").join(self.repo).join(format!("{name}.lock"))) else {
            return;
        };
        if !was_there && !blob.exists() {
            if self.shared && !self.link_shared(&blob, &name) {
                return;
            }
            if !blob.exists() {
                let partial = blob.with_file_name(format!("{name}.0123abcd.incomplete"));
                // The library fails here if somebody took the directory meanwhile, says so, and is called again.
                if fs_err::write(&partial, &self.file.1)
                    .and_then(|()| fs_err::rename(&partial, &blob))
                    .is_err()
                {
                    return self.state.set(State::New);
                }
            }
        }
        if !pointer.exists() {
            let _ = fs_err::remove_file(&pointer);
            let up = "../".repeat(self.file.0.matches('/').count() + 2);
            if fs_err::os::unix::fs::symlink(format!("{up}blobs/{name}"), &pointer).is_err() {
                return self.state.set(State::New);
            }
        }
        self.state.set(State::Done);
    }

    /// Looks into the shared blob store under its lock, and lists the link before it is there; false if it has to wait.
    fn link_shared(&self, blob: &Path, name: &str) -> bool {
        let hash = xet_hash(&self.file.1);
        let payload = self.root.join("blobs").join(&hash[..2]).join(&hash);
        let Some(_lock) = lock(&payload.with_file_name(format!("{hash}.lock"))) else { return false };
        if payload.exists() {
            let list = payload.with_file_name(format!("{hash}.refs"));
            let mut lines = fs_err::read_to_string(&list).unwrap_or_default();
            lines.push_str(&format!("{}/blobs/{name}\n", self.repo));
            fs_err::write(&list, lines).expect("written");
            let _ = fs_err::os::unix::fs::symlink(format!("../../blobs/{}/{hash}", &hash[..2]), blob);
        }
        true
    }

    /// Goes as far as it can.
    fn step(&self, until: State) {
        if self.state.get() == State::New {
            self.look();
        }
        if let (State::Looked(was_there), true) = (self.state.get(), until == State::Done) {
            self.go_on(was_there);
        }
    }

    /// To the end, when nobody else is at work any more.
    fn finish(&self) {
        for _ in 0..4 {
            self.step(State::Done);
        }
        assert!(matches!(self.state.get(), State::There | State::Done));
    }
}

/// Looks at the change with this number, and goes on at a later one.
fn comes(download: &Download, look: usize, go_on: usize) -> impl Fn(Change) -> io::Result<()> + '_ {
    let at = Cell::new(0);
    move |_| {
        let now = at.replace(at.get() + 1);
        if now >= go_on {
            download.step(State::Done);
        } else if now >= look {
            download.step(State::Looked(false));
        }
        Ok(())
    }
}

/// No link in any snapshot leads nowhere.
#[track_caller]
fn nothing_dangles(bench: &Bench, where_: &str) {
    for (path, (kind, ..)) in bench.tree() {
        if kind == 'l' && path.to_str().is_some_and(|path| path.contains("/snapshots/")) {
            assert!(bench.root().join(&path).exists(), "{where_}: {} leads nowhere", path.display());
        }
    }
}

/// What every snapshot has.
fn files() -> Files {
    vec![
        text("config.json", "{}"),
        text("sub/notes.md", "notes"),
        text("model.safetensors", &"weights".repeat(900)),
    ]
}

struct Scene {
    /// What is removed.
    models: &'static str,
    repo: &'static str,
    commit: char,
    /// The file that is downloaded.
    file: &'static str,
    shared: bool,
}

impl Scene {
    fn bench(&self) -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("hub");
        let mut hub = HubStore::create(&root);
        if self.shared {
            hub = hub.shared();
        }
        let files = files();
        let mut older = files.clone();
        older.push(text("old.txt", "older"));
        let repo = hub.repo("acme/one");
        let _ = repo.snapshot_at(&"1".repeat(40), &older);
        let _ = repo.snapshot_at(&"2".repeat(40), &files).with_ref("main");
        let _ = hub.repo("acme/two").snapshot(&files).with_ref("main");
        let _ = hub.repo("kept/three").snapshot(&[text("config.json", "other")]).with_ref("main");
        Bench::over(dir, StoreKind::Hub, root)
    }

    fn download(&self, bench: &Bench) -> Download {
        let mut files = files();
        files.extend([text("old.txt", "older"), text("new.txt", "new")]);
        let file = files.into_iter().find(|(name, _)| name == self.file).expect("a file");
        let repo = if self.repo == "one" { "models--acme--one" } else { "models--acme--new" };
        Download {
            root: bench.root().to_owned(),
            repo,
            commit: self.commit.to_string().repeat(40),
            file,
            shared: self.shared,
            state: Cell::new(State::New),
        }
    }

    /// Changes that a whole apply makes.
    fn changes(&self) -> usize {
        let bench = self.bench();
        let count = Cell::new(0);
        let plan = bench.plan(self.models, None);
        let _ = bench.apply(&plan, self.models, &counting(&count)).expect("it is applied");
        count.get()
    }
}

/// Changes that come after an apply's last look at what came meanwhile: the journal is closed.
const AFTER: usize = 2;

/// The pairs of changes at which a download looks and goes on: at once, one later, and much later. Who looked before
/// something was taken, and goes on after the last look, left no trace that anybody could see.
fn pairs(total: usize) -> impl Iterator<Item = (usize, usize)> {
    let pairs = (0..total).flat_map(move |look| [0, 5].map(|gap| (look, look + gap)));
    pairs.filter(move |(look, go_on)| *go_on < total - AFTER || (total - AFTER..total).contains(look))
}

/// A download at any pair of changes: it gets what it asked for, and nothing that was there is lost.
#[track_caller]
fn comes_at_any_change(scene: &Scene) {
    let mut wrong = Vec::new();
    let total = scene.changes();
    for (look, go_on) in pairs(total) {
        let bench = scene.bench();
        let before = contents(&bench);
        let download = scene.download(&bench);
        let where_ = format!("at {look} and {go_on} of {total}");
        let plan = bench.plan(scene.models, None);
        let applied = bench.apply(&plan, scene.models, &comes(&download, look, go_on));
        download.finish();
        // What was asked for while it was still there, and removed after that, left no trace.
        let was_done = download.state.get() == State::Done;
        if was_done && fs_err::read(download.pointer()).ok().as_ref() != Some(&download.file.1) {
            wrong.push(where_);
            continue;
        }
        nothing_dangles(&bench, &where_);
        // Whatever was taken can be put back, or is told to be there again.
        for id in bench.kept() {
            let stuck = bench.undo(&id, &freely).expect("it is undone");
            assert!(stuck.iter().all(|why| why.contains("has come back meanwhile")), "{where_}: {stuck:?}");
        }
        nothing_dangles(&bench, &where_);
        let now = contents(&bench);
        for (path, what) in &before {
            assert!(now.get(path) == Some(what), "{where_}: {} {applied:#?}", path.display());
        }
    }
    assert!(wrong.is_empty(), "{} downloads do not have what they got: {wrong:#?}", wrong.len());
}

/// What every path gives to whoever opens it; lists of users may have lines more.
fn contents(bench: &Bench) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let is_own =
        |path: &PathBuf| !path.starts_with(".mlxman-trash") && path.extension() != Some("refs".as_ref());
    let paths = bench.tree().into_keys().filter(is_own);
    paths.map(|path| (path.clone(), fs_err::read(bench.root().join(path)).ok())).collect()
}

#[test]
fn a_download_beside_the_one_that_goes() {
    comes_at_any_change(&Scene {
        models: "acme/one@1*",
        repo: "one",
        commit: '3',
        file: "old.txt",
        shared: false,
    });
}

#[test]
fn a_download_while_all_snapshots_go() {
    comes_at_any_change(&Scene {
        models: "acme/one*",
        repo: "one",
        commit: '3',
        file: "model.safetensors",
        shared: false,
    });
}

#[test]
fn a_download_while_all_users_of_a_shared_blob_go() {
    comes_at_any_change(&Scene {
        models: "acme/*",
        repo: "one",
        commit: '3',
        file: "model.safetensors",
        shared: true,
    });
}

#[test]
fn a_download_of_another_repo_that_shares_a_blob() {
    comes_at_any_change(&Scene {
        models: "acme/*",
        repo: "new",
        commit: '3',
        file: "model.safetensors",
        shared: true,
    });
}

#[test]
fn a_download_into_a_snapshot_that_is_kept() {
    comes_at_any_change(&Scene {
        models: "acme/one@1*",
        repo: "one",
        commit: '2',
        file: "old.txt",
        shared: false,
    });
}

#[test]
fn a_download_of_the_revision_that_goes() {
    comes_at_any_change(&Scene {
        models: "acme/one@1*",
        repo: "one",
        commit: '1',
        file: "old.txt",
        shared: false,
    });
}

#[test]
fn a_download_of_a_new_file_of_the_revision_that_goes() {
    comes_at_any_change(&Scene {
        models: "acme/one@1*",
        repo: "one",
        commit: '1',
        file: "new.txt",
        shared: false,
    });
}
