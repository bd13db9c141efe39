//! A run over a store, with an observer that meddles.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use mlxman_manifest::Verdict;
use mlxman_manifest::registry::Registry;
use mlxman_store::{Progress, StoreKind, StoreSpec, layout_of};
use mlxman_testkit::{HubStore, ModelSpec, text};

use super::*;

/// What an observer does, and what it saw.
#[derive(Default)]
struct Meddler<'a> {
    opened: Mutex<Vec<String>>,
    kept: AtomicUsize,
    stopped: AtomicBool,
    /// Whether it stops the run once a content was opened.
    stops: bool,
    /// A file that it writes to while that is read.
    writes: Option<&'a Path>,
    registry: Option<&'a Registry>,
}

impl IntegrityObserver for Meddler<'_> {
    fn opened(&self, file: &str) {
        locked(&self.opened).push(file.to_owned());
    }

    fn reading(&self, done: u64, total: u64, file: &str) {
        assert!(done <= total);
        if let Some(path) = self.writes
            && path.to_string_lossy().ends_with(file)
        {
            fs_err::OpenOptions::new().append(true).open(path).unwrap().set_len(10).unwrap();
        }
        self.stopped.store(self.stops, Ordering::Relaxed);
    }

    fn keep(&self, checks: &mut Checks) {
        self.kept.fetch_add(1, Ordering::Relaxed);
        if let Some(registry) = self.registry {
            registry.keep_checks(checks, DateTime::<Utc>::UNIX_EPOCH).unwrap();
        }
    }

    fn interrupted(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

fn store() -> (tempfile::TempDir, HubStore) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("hub");
    (dir, HubStore::create(root))
}

fn scan(hub: &HubStore) -> Scan {
    let spec = StoreSpec::new(StoreKind::Hub, hub.root());
    layout_of(StoreKind::Hub).scan(&spec, &Progress::default()).unwrap()
}

fn check_all(
    scan: &Scan,
    again: bool,
    checks: &mut Checks,
    observer: &dyn IntegrityObserver,
) -> IntegrityRun {
    let tasks: Vec<Task<'_>> = scan
        .models
        .iter()
        .map(|found| Task {
            model: found.name.clone(),
            path: scan.dir_of(found),
            store: None,
            scan,
            found,
            recorded: None,
        })
        .collect();
    let plan = IntegrityPlan {
        again,
        budget: None,
        threads: 1,
        known: &|_| None,
        repo: &|_| None,
        now: DateTime::<Utc>::UNIX_EPOCH,
    };
    run(&tasks, &plan, checks, observer)
}

#[test]
fn each_content_is_opened_once() {
    let (_dir, hub) = store();
    let hub = hub.shared();
    let mut files = ModelSpec::llama().files();
    let _ = hub.repo("acme/a").snapshot(&files).with_ref("main");
    let _ = hub.repo("acme/b").snapshot(&files).with_ref("main");
    // The same content under two names, and in two revisions.
    files.push(text("NOTES.md", "x"));
    files.push(text("copy.md", "x"));
    let _ = hub.repo("acme/a").snapshot(&files);
    let scan = scan(&hub);
    let mut checks = Checks::default();
    let seen = Meddler::default();
    let run = check_all(&scan, false, &mut checks, &seen);
    assert!(run.outcomes.iter().all(|one| one.result.verification.verdict == Verdict::Pass), "{run:#?}");
    let mut opened = locked(&seen.opened).clone();
    let count = opened.len();
    opened.sort_unstable();
    opened.dedup();
    assert_eq!((opened.len(), count as u64), (count, run.summary.files));
    let integrity = run.outcomes.iter().map(|one| one.result.verification.integrity.clone().unwrap());
    assert!(integrity.into_iter().all(|one| one.read_files == one.files));
    let seen = Meddler::default();
    let _ = check_all(&scan, false, &mut checks, &seen);
    assert!(locked(&seen.opened).is_empty());
    let _ = check_all(&scan, true, &mut checks, &seen);
    assert_eq!(locked(&seen.opened).len(), count);
}

#[test]
fn what_is_written_meanwhile_has_changed_and_is_not_damaged() {
    let (_dir, hub) = store();
    let files = ModelSpec::llama().files();
    let snapshot = hub.repo("acme/a").snapshot(&files).with_ref("main");
    let _ = hub.repo("acme/b").snapshot(&[files[0].clone(), text("NOTES.md", "b")]);
    let scan = scan(&hub);
    let weights = snapshot.blob_of("model.safetensors");
    let mut checks = Checks::default();
    let run = check_all(&scan, false, &mut checks, &Meddler { writes: Some(&weights), ..Meddler::default() });
    let found = &run.outcomes[0].result.verification;
    let integrity = found.integrity.as_ref().unwrap();
    assert_eq!((found.verdict, integrity.damaged.len()), (Verdict::Skipped, 0), "{found:#?}");
    assert_eq!(integrity.changed[0].since, ChangedSince::Reading);
    // One that has been replaced since the walk was not read either.
    let run = check_all(&scan, true, &mut checks, &());
    assert_eq!(run.outcomes[0].result.verification.integrity.as_ref().unwrap().changed.len(), 1);
    fs_err::remove_file(&weights).unwrap();
    fs_err::write(&weights, "another").unwrap();
    let run = check_all(&scan, true, &mut checks, &());
    assert_eq!(run.outcomes[0].result.verification.integrity.as_ref().unwrap().damaged, []);
}

#[test]
fn what_is_cut_while_it_is_mapped_has_changed_and_ends_nothing() {
    let (_dir, hub) = store();
    let large: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    let snapshot = hub.repo("acme/a").snapshot(&[("large.safetensors".to_owned(), large)]).with_ref("main");
    let weights = snapshot.blob_of("large.safetensors");
    let scan = scan(&hub);
    let mut checks = Checks::default();
    let run = check_all(&scan, false, &mut checks, &Meddler { writes: Some(&weights), ..Meddler::default() });
    let integrity = run.outcomes[0].result.verification.integrity.as_ref().unwrap();
    assert_eq!(integrity.damaged, []);
    assert_eq!(integrity.changed[0].since, ChangedSince::Reading);
}

#[test]
fn what_was_done_before_a_stop_is_not_done_again() {
    let (dir, hub) = store();
    let registry = Registry::at(dir.path().join("registry"));
    for (at, name) in ["acme/a", "acme/b", "acme/c"].into_iter().enumerate() {
        let mut files = ModelSpec::llama().seed(at as u64).files();
        files.push(text("NOTES.md", name));
        let _ = hub.repo(name).snapshot(&files).with_ref("main");
    }
    let scan = scan(&hub);
    let mut opened = Vec::new();
    loop {
        let stopper = Meddler { stops: true, registry: Some(&registry), ..Meddler::default() };
        let run = check_all(&scan, false, &mut registry.checks(), &stopper);
        let now = locked(&stopper.opened).clone();
        if now.is_empty() {
            assert!(run.outcomes.iter().all(|one| !one.interrupted));
            assert_eq!(opened.len() as u64, run.summary.files);
            break;
        }
        assert_eq!(now.len(), 1, "it stops at once");
        assert!(
            run.outcomes.iter().any(|one| one.interrupted) || opened.len() as u64 + 1 == run.summary.files
        );
        opened.extend(now);
    }
    opened.sort_unstable();
    assert!(opened.windows(2).all(|two| two[0] != two[1]), "nothing was read twice: {opened:?}");
}
