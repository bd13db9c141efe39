//! Links of a hub cache: made again where the blob that they should lead to is there, whole by its size.

use std::collections::HashSet;
use std::io;

use mlxman_store::{DirHandle, EntryKind, FoundModel, Link, Listing, ListingFile, Scan, Stat};

use super::{Repair, RepairChange, RepairKind, index};
use crate::items::item;
use crate::trash::is_shared;

/// A repo's listing of one revision.
pub(super) struct Listed {
    pub(super) commit: String,
    pub(super) listing: Listing,
}

fn is_hash(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of a listed file's blob.
fn etag(file: &ListingFile) -> Option<&str> {
    file.lfs_sha256.as_deref().or(file.blob_id.as_deref()).filter(|name| is_hash(name))
}

/// Apparent bytes of a repo's blob, where it is there: a file, or a link to a shared blob that is there.
fn blob_size(root: &DirHandle, repo: &str, name: &str) -> Option<u64> {
    let blobs = root.open_dir_below(&format!("{repo}/blobs")).ok()?;
    let raw = std::ffi::CString::new(name).ok()?;
    let stat = blobs.stat_of(&raw).ok()?;
    match stat.kind {
        EntryKind::File => Some(stat.size),
        EntryKind::Link => {
            let target = blobs.read_link(&raw).ok()?;
            let payload = target.strip_prefix("../../").filter(|path| is_shared(path))?;
            let stat = root.stat_below(payload).ok()?;
            (stat.kind == EntryKind::File).then_some(stat.size)
        }
        _ => None,
    }
}

/// The text that huggingface_hub gives the link of a file, by its path in the snapshot.
fn target_of(path: &str, blob: &str) -> String {
    format!("{}blobs/{blob}", "../".repeat(path.matches('/').count() + 2))
}

fn repo_of(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
}

/// What makes the link of `path` in a snapshot in which nothing of that name is, with the directories above it.
fn link_to(root: &DirHandle, snapshot: &str, path: &str, blob: &str) -> Option<Vec<RepairChange>> {
    let place = format!("{snapshot}/{path}");
    match root.stat_below(&place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => return None,
    }
    let mut changes = Vec::new();
    let repo = repo_of(snapshot);
    for (at, _) in place.match_indices('/').filter(|(at, _)| *at > repo.len()) {
        let dir = &place[..at];
        match root.stat_below(dir) {
            Ok(stat) if stat.kind == EntryKind::Dir => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                changes.push(RepairChange::MakeDir { path: dir.to_owned() });
            }
            _ => return None,
        }
    }
    changes.push(RepairChange::Link { path: place, target: target_of(path, blob) });
    Some(changes)
}

/// Text files become the links again whose text they hold; not those that the repo's listing says are what they are.
pub(super) fn unflatten(found: &FoundModel, listing: Option<&Listing>) -> Option<Repair> {
    let mut changes = Vec::new();
    let mut seen = HashSet::new();
    let mut again = |path: String, stat: &Stat, target: &str| {
        if stat.kind == EntryKind::File && seen.insert(path.clone()) {
            changes.push(RepairChange::Take { item: item(path.clone(), stat, None) });
            changes.push(RepairChange::Link { path, target: target.to_owned() });
        }
    };
    for file in &found.files {
        let listed = listing.and_then(|listing| listing.files.get(&file.path));
        let is_meant = |link: &Link| match listed {
            Some(listed) => etag(listed) == link.target.rsplit('/').next() && listed.size != link.stat.size,
            None => true,
        };
        if let Some(link) = file.link.as_ref().filter(|link| is_meant(link)) {
            again(found.place_of(file), &link.stat, &link.target);
        }
        // The way into the shared blob store was flattened with the rest.
        if let Some((path, link)) = found.blob_link_of(file) {
            again(path, &link.stat, &link.target);
        }
    }
    let count = changes.len() / 2;
    (count > 0).then(|| Repair {
        kind: RepairKind::Unflatten,
        does: format!("make links again of {count} text files in {} that hold a link's text", found.key),
        changes,
    })
}

/// The link at `path` of a snapshot leads nowhere: it is made anew where the blob that it should lead to is there.
pub(super) fn relink(
    scan: &Scan,
    found: &FoundModel,
    listing: Option<&Listing>,
    path: &str,
) -> Option<Repair> {
    let place = format!("{}/{path}", found.key);
    let old = found.records.iter().find(|record| record.path == place)?;
    let repo = repo_of(&found.key);
    let listed = listing.and_then(|listing| listing.files.get(path));
    let (blob, size) = match (listed, &old.link_target) {
        (Some(listed), _) => (etag(listed)?, Some(listed.size)),
        // Without a listing its own text says which blob it means, if it means one of this repo.
        (None, Some(text)) => {
            let (way, name) = text.rsplit_once('/')?;
            let own = way.ends_with(&format!("/{repo}/blobs")) || way.trim_start_matches("../") == "blobs";
            (own.then_some(name).filter(|name| is_hash(name))?, None)
        }
        (None, None) => return None,
    };
    let there = blob_size(scan.root(), repo, blob)?;
    let target = target_of(path, blob);
    // A link that somebody made to a file of their own, which is there, is meant so.
    let is_own = |text: &String| text.ends_with(&format!("/{repo}/blobs/{blob}"));
    if let Some(text) = old.link_target.as_ref().filter(|text| text.starts_with('/') && !is_own(text))
        && fs_err::metadata(text).is_ok()
    {
        return None;
    }
    if size.is_some_and(|size| size != there) || old.link_target.as_deref() == Some(&target) {
        return None;
    }
    // Whatever else somebody put there is theirs.
    let is_link = old.stat.kind == EntryKind::Link;
    let is_text = old.stat.kind == EntryKind::File && old.stat.size <= 256;
    (is_link || is_text).then_some(())?;
    Some(Repair {
        kind: RepairKind::RestoreLink,
        does: format!("make the link {place} anew, to the blob {blob}, which is there"),
        changes: vec![
            RepairChange::Take { item: item(place.clone(), &old.stat, old.link_target.clone()) },
            RepairChange::Link { path: place, target },
        ],
    })
}

/// Weights that the snapshot misses, of which the blobs are there: those of the set that `first` is of, or that an index
/// names. What else the repo has was perhaps never asked for.
pub(super) fn missing(
    scan: &Scan,
    found: &FoundModel,
    listing: &Listing,
    (first, made): (&str, &HashSet<String>),
) -> Option<Repair> {
    let repo = repo_of(&found.key);
    let named = index::named_by_indexes(scan, found);
    let sets: HashSet<_> = match index::set_of(first) {
        Some(set) => HashSet::from([set]),
        None if named.contains(first) => HashSet::new(),
        // Parts of a file that is told as a whole.
        None => found.files.iter().filter_map(|file| index::set_of(&file.path)).collect(),
    };
    let is_missed =
        |path: &str| named.contains(path) || index::set_of(path).is_some_and(|set| sets.contains(&set));
    let mut changes = Vec::new();
    let mut count = 0;
    for (path, listed) in &listing.files {
        let is_weights = [".safetensors", ".gguf", ".bin"].iter().any(|ending| path.ends_with(ending));
        if !is_weights
            || !is_missed(path)
            || found.file(path).is_some()
            || made.contains(&format!("{}/{path}", found.key))
        {
            continue;
        }
        let Some(blob) = etag(listed) else { continue };
        if blob_size(scan.root(), repo, blob) == Some(listed.size)
            && let Some(link) = link_to(scan.root(), &found.key, path, blob)
        {
            changes.extend(link);
            count += 1;
        }
    }
    (count > 0).then(|| Repair {
        kind: RepairKind::RestoreLink,
        does: format!("make the links of {count} weight files in {}, whose blobs are there", found.key),
        changes,
    })
}

/// A blob that nothing links to gets back the links that the repo's listings say it has.
pub(super) fn adopt(root: &DirHandle, repo: &str, name: &str, listings: &[Listed]) -> Option<Repair> {
    let there = blob_size(root, repo, name)?;
    let mut changes: Vec<RepairChange> = Vec::new();
    let mut places = Vec::new();
    for Listed { commit, listing } in listings {
        let named = listing.files.iter().filter(|(_, file)| etag(file) == Some(name) && file.size == there);
        for (path, _) in named {
            let snapshot = format!("{repo}/snapshots/{commit}");
            let Some(link) = link_to(root, &snapshot, path, name) else { continue };
            places.push(format!("{snapshot}/{path}"));
            for change in link {
                if !changes.contains(&change) {
                    changes.push(change);
                }
            }
        }
    }
    let first = places.first()?;
    Some(Repair {
        kind: RepairKind::AdoptBlob,
        does: format!("link the blob from {first} again, as the repo's listing names it"),
        changes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_the_text_that_the_library_gives_them() {
        assert_eq!(target_of("config.json", "ab"), "../../blobs/ab");
        assert_eq!(target_of("a/b/c.txt", "ab"), "../../../../blobs/ab");
    }
}
