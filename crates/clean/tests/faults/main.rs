//! Apply, undo and empty, broken off at every single change that they make to a store.

mod bench;
mod dedupe;
mod model;
mod races;
mod repair;

use std::cell::Cell;
use std::io;

use bench::{Bench, content, counting, failing_once, freely, killed_after, same};

type Make = fn() -> Bench;

/// Stores, with a pattern of models to remove from them.
const CASES: [(&str, Make, &str); 4] = [
    ("one of two snapshots", Bench::hub, "acme/one@11111111*"),
    ("a repo whose blobs another shares", Bench::hub, "acme/one*"),
    ("all repos that share blobs", Bench::hub, "acme/*"),
    ("models of a folder", Bench::folder, "acme/*"),
];

/// How many changes a whole run makes.
fn changes(make: Make, models: &str) -> usize {
    let bench = make();
    let count = Cell::new(0);
    let plan = bench.plan(models, None);
    assert!(!plan.candidates.is_empty(), "{models} matches");
    let applied = bench.apply(&plan, models, &counting(&count)).expect("it is applied");
    assert!(applied.skipped.is_empty() && applied.left.is_empty(), "{applied:?}");
    assert_eq!(applied.done.len(), plan.candidates.len());
    count.get()
}

#[test]
fn what_was_taken_is_put_back_exactly() {
    for (name, make, models) in CASES {
        let bench = make();
        let before = bench.tree();
        let plan = bench.plan(models, None);
        let applied = bench.apply(&plan, models, &freely).expect("it is applied");
        assert_ne!(content(&bench.tree()), content(&before), "{name}");
        let id = applied.id.expect("a journal");
        assert!(bench.undo(&id, &freely).expect("it is undone").is_empty(), "{name}");
        same(&bench.tree(), &before, name);
    }
}

#[test]
fn what_is_freed_is_what_the_plan_said() {
    for (name, make, models) in CASES {
        let bench = make();
        let plan = bench.plan(models, None);
        let applied = bench.apply(&plan, models, &freely).expect("it is applied");
        assert!(applied.skipped.is_empty() && applied.left.is_empty(), "{name}: {applied:#?}");
        let kept = applied.reclaimable_bytes;
        let freed = bench.empty(&applied.id.expect("a journal"), &freely).expect("it is emptied");
        assert_eq!(freed, kept, "{name}");
        assert_eq!(freed + applied.freed_bytes, plan.total_reclaimable_bytes, "{name}");
        assert!(!bench.root().join(".mlxman-trash").exists(), "{name}");
    }
}

#[test]
fn a_kill_at_any_change_of_an_apply_leaves_before_or_after() {
    for (name, make, models) in CASES {
        let total = changes(make, models);
        let after = {
            let bench = make();
            let plan = bench.plan(models, None);
            let _ = bench.apply(&plan, models, &freely).expect("it is applied");
            content(&bench.tree())
        };
        let (mut befores, mut afters) = (0, 0);
        for point in 0..total {
            let bench = make();
            let before = bench.tree();
            let plan = bench.plan(models, None);
            let _ = bench.apply(&plan, models, &killed_after(point));
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
fn a_kill_at_any_change_of_an_undo_leaves_it_undone_or_to_undo() {
    for (name, make, models) in CASES {
        let total = {
            let bench = make();
            let plan = bench.plan(models, None);
            let id = bench.apply(&plan, models, &freely).expect("it is applied").id.expect("a journal");
            let count = Cell::new(0);
            let _ = bench.undo(&id, &counting(&count)).expect("it is undone");
            count.get()
        };
        for point in 0..total {
            let bench = make();
            let before = bench.tree();
            let plan = bench.plan(models, None);
            let id = bench.apply(&plan, models, &freely).expect("it is applied").id.expect("a journal");
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

#[test]
fn a_kill_at_any_change_of_an_emptying_goes_on_or_never_was() {
    for (name, make, models) in CASES {
        let (total, after) = {
            let bench = make();
            let plan = bench.plan(models, None);
            let id = bench.apply(&plan, models, &freely).expect("it is applied").id.expect("a journal");
            let count = Cell::new(0);
            let _ = bench.empty(&id, &counting(&count)).expect("it is emptied");
            (count.get(), content(&bench.tree()))
        };
        for point in 0..total {
            let bench = make();
            let before = bench.tree();
            let plan = bench.plan(models, None);
            let id = bench.apply(&plan, models, &freely).expect("it is applied").id.expect("a journal");
            let _ = bench.empty(&id, &killed_after(point));
            let _ = bench.recover();
            same(&content(&bench.tree()), &after, &format!("{name} at {point}"));
            match bench.kept().as_slice() {
                [] => assert!(!bench.root().join(".mlxman-trash").exists(), "{name} at {point}"),
                [id] => {
                    assert!(bench.undo(id, &freely).expect("it is undone").is_empty());
                    same(&bench.tree(), &before, &format!("{name} at {point}, undone"));
                }
                several => panic!("{name} at {point}: {several:?}"),
            }
        }
    }
}

/// A full disk, a read-only one, a permission that is missing for one file: rows are done whole or not at all.
#[test]
fn a_failure_at_any_change_loses_nothing() {
    const KINDS: [io::ErrorKind; 3] =
        [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied];
    for (name, make, models) in CASES {
        let total = changes(make, models);
        for point in 0..total {
            let bench = make();
            let before = bench.tree();
            let plan = bench.plan(models, None);
            let applied = bench.apply(&plan, models, &failing_once(point, KINDS[point % KINDS.len()]));
            let recovered = bench.recover();
            assert!(recovered.iter().all(|one| one.stuck.is_empty()), "{name} at {point}: {recovered:?}");
            if let Ok(applied) = &applied {
                let rows = applied.done.len() + applied.skipped.len();
                assert_eq!(rows, plan.candidates.len(), "{name} at {point}: {applied:?}");
            }
            for id in bench.kept() {
                let stuck = bench.undo(&id, &freely).expect("it is undone");
                assert!(stuck.is_empty(), "{name} at {point}: {stuck:?}");
            }
            same(&content(&bench.tree()), &content(&before), &format!("{name} at {point}"));
        }
    }
}

/// huggingface_hub fetches another revision of a repo: it makes the snapshot's directory, asks for each blob whether it is
/// there, and links those that are; the others it fetches. It may come at any moment, and link at any later one.
#[test]
fn a_download_at_any_moment_is_not_robbed() {
    for (name, make, models) in &CASES[..3] {
        let total = changes(*make, models);
        let mut found_any = 0;
        for point in 0..=total {
            let bench = make();
            let plan = bench.plan(models, None);
            let repo = bench.root().join("models--acme--one");
            let blobs: Vec<std::ffi::OsString> = fs_err::read_dir(repo.join("blobs"))
                .expect("blobs")
                .map(|entry| entry.expect("an entry").file_name())
                .collect();
            let snapshot = repo.join("snapshots").join("3".repeat(40));
            let links = std::cell::RefCell::new(None);
            let left = Cell::new(point);
            let come = || {
                fs_err::create_dir_all(&snapshot).expect("made");
                let is_there = |blob: &&std::ffi::OsString| repo.join("blobs").join(blob).exists();
                *links.borrow_mut() = Some(blobs.iter().filter(is_there).cloned().collect::<Vec<_>>());
            };
            let before = |_| {
                if links.borrow().is_none() {
                    match left.get() {
                        0 => come(),
                        n => left.set(n - 1),
                    }
                }
                Ok(())
            };
            let applied = bench.apply(&plan, models, &before).expect("it is applied");
            if links.borrow().is_none() {
                come();
            }
            let links = links.into_inner().expect("it came");
            found_any += usize::from(!links.is_empty());
            for blob in &links {
                let there = std::path::Path::new("../../blobs").join(blob);
                std::os::unix::fs::symlink(&there, snapshot.join(blob)).expect("linked");
                assert!(snapshot.join(blob).exists(), "{name} at {point}: {blob:?} is gone: {applied:#?}");
            }
            for id in bench.kept() {
                let stuck = bench.undo(&id, &freely).expect("it is undone");
                assert!(stuck.is_empty(), "{name} at {point}: {stuck:?}");
            }
        }
        assert!(found_any > 5, "{name}: it came in time {found_any} times");
    }
}
