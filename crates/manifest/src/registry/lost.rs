//! Models that the registry knows and a walk did not see: which of them are gone, and which only came meanwhile or cannot
//! be asked.

use std::sync::Arc;
use std::time::Duration;

use mlxman_store::{EntryKind, ProblemKind, Scan, ScanError, StoreKind, StoreSpec};

use super::index::Entry;
use super::observe::{Known, scan_all};

/// What the registry knows of a store and its walk did not see.
pub(super) fn lost_of<'a>(scan: &'a Scan, known: &'a Known) -> impl Iterator<Item = &'a Arc<Entry>> {
    let seen = |key: &String| scan.models.binary_search_by(|model| model.key.cmp(key)).is_ok();
    known
        .get(&scan.spec.id())
        .into_iter()
        .flatten()
        .filter(move |(key, _)| !seen(key))
        .map(|(_, entry)| entry)
}

/// The registry is read while the stores are walked: a model that another process fetched and wrote down meanwhile is
/// known and was not seen. A store in which something lies where a model is missed is walked once more, so that its walk
/// is younger than what it is compared with.
pub(super) fn walk_again(scans: &mut [Result<Scan, ScanError>], known: &Known, limit: Duration) {
    let due: Vec<usize> = (0..scans.len())
        .filter(|&index| {
            scans[index].as_ref().is_ok_and(|scan| {
                lost_of(scan, known).any(|entry| entry.summary.present && !scan.has_lost(&entry.summary.key))
            })
        })
        .collect();
    let specs: Vec<StoreSpec> =
        due.iter().filter_map(|&index| Some(scans[index].as_ref().ok()?.spec.clone())).collect();
    for (index, scan) in due.into_iter().zip(scan_all(&specs, &[], limit)) {
        scans[index] = scan;
    }
}

/// Whether a model that a walk did not see is known to be gone. What cannot be asked is left as it was.
pub(super) fn is_gone(scan: &Scan, key: &str) -> bool {
    if scan.has_lost(key) {
        return true;
    }
    // In a folder a directory may be there and be no model any more; what a hub cache has in a snapshot's place is one.
    let above =
        |path: &str| key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let unread = scan.strays.iter().any(|stray| {
        stray.problem.kind == ProblemKind::Unreadable && stray.problem.path.as_deref().is_some_and(above)
    });
    let is_hub = scan.spec.kind() == StoreKind::Hub;
    let is_other = |kind: EntryKind| !(is_hub && kind == EntryKind::Dir);
    !unread && scan.root().stat_below(key).is_ok_and(|stat| is_other(stat.kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::Summary;
    use mlxman_testkit::{HubStore, ModelSpec};
    use std::collections::HashMap;

    fn known(spec: &StoreSpec, keys: &[&str]) -> Known {
        let entry = |key: &&str| {
            let summary =
                Summary { store: spec.id(), key: (*key).to_owned(), present: true, ..Summary::default() };
            ((*key).to_owned(), Arc::new(Entry::new("file", Default::default(), summary)))
        };
        Arc::new(HashMap::from([(spec.id(), keys.iter().map(entry).collect())]))
    }

    #[test]
    fn what_came_while_the_registry_was_read_is_not_gone() {
        let dir = tempfile::tempdir().unwrap();
        let hub = HubStore::create(dir.path().join("hub"));
        let files = ModelSpec::llama().files();
        let one = hub.repo("acme/one").snapshot(&files).with_ref("main");
        let spec = StoreSpec::new(StoreKind::Hub, hub.root());
        let limit = Duration::from_secs(60);
        let mut scans = scan_all(std::slice::from_ref(&spec), &[], limit);
        // Another process fetches a model and writes it down; one was removed long ago.
        let two = hub.repo("acme/two").snapshot(&files).with_ref("main");
        let key = |repo: &str, commit: &str| format!("models--acme--{repo}/snapshots/{commit}");
        let (one, two, gone) = (key("one", &one.commit), key("two", &two.commit), key("gone", &two.commit));
        let known = known(&spec, &[&one, &two, &gone]);
        walk_again(&mut scans, &known, limit);
        let scan = scans[0].as_ref().unwrap();
        assert_eq!(scan.models.len(), 2, "the store was walked again");
        let lost: Vec<&str> = lost_of(scan, &known).map(|entry| entry.summary.key.as_str()).collect();
        assert_eq!(lost, [gone.as_str()]);
        assert!(is_gone(scan, &gone));
        // One that comes after that is neither seen nor gone.
        let three = hub.repo("acme/three").snapshot(&files);
        assert!(!is_gone(scan, &key("three", &three.commit)));
    }
}
