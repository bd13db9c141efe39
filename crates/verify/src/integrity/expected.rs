//! What a file should be, and what says so.

use mlxman_manifest::registry::{HashKind, KnownHash};
use mlxman_manifest::{ChangedSince, DamagedHow};
use mlxman_store::{Details, FileEntry, FoundModel, ListingFile, LocalFile, Stat};

/// What a file should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// Its hash.
    pub(super) hash: Option<(HashKind, String)>,
    /// Its size, as the repo's listing has it.
    pub(super) size: Option<u64>,
    /// Where its link leads to another blob than the listing names: the blob that is named.
    pub(super) other_blob: Option<String>,
    /// That somebody changed it since, so that what is said is of another content.
    pub(super) changed: Option<ChangedSince>,
}

/// By what a hash of this kind finds a damage.
pub(super) fn how(kind: HashKind) -> DamagedHow {
    match kind {
        HashKind::Sha256 => DamagedHow::Sha256,
        HashKind::GitSha1 => DamagedHow::GitSha1,
        HashKind::Blake3 => DamagedHow::Blake3,
    }
}

/// What `file` of `model` should be. The names of blobs come first, for they cannot be wrong without the content being
/// wrong; then what its download recorded; what an earlier `sync` took comes last.
pub(super) fn expected(
    model: &FoundModel,
    file: &FileEntry,
    details: &Details,
    known: &dyn Fn(&Stat) -> Option<KnownHash>,
) -> Expected {
    let listed = details.listing.as_ref().and_then(|listing| listing.files.get(&file.path));
    if let Some(blob) = &file.blob {
        let own = of_name(&blob.name);
        let named = listed.and_then(of_listing);
        let other_blob = match (&own, &named) {
            (Some((kind, own)), Some((other, name))) if kind == other && own != name => Some(name.clone()),
            _ => None,
        };
        if own.is_some() || named.is_some() {
            let size = listed.map(|listed| listed.size);
            return Expected { hash: own.or(named), size, other_blob, changed: None };
        }
    }
    if let Some(digest) = of_digest(&file.real) {
        return Expected { hash: Some(digest), ..Expected::default() };
    }
    let recorded = details.download.as_ref().and_then(|download| download.files.get(&file.path));
    if let Some((recorded, hash)) = recorded.and_then(|recorded| Some((recorded, of_etag(&recorded.etag)?))) {
        let changed = (!is_fresh(recorded, &file.stat)).then_some(ChangedSince::Download);
        let size = listed.map(|listed| listed.size);
        return Expected { hash: Some(hash), size, other_blob: None, changed };
    }
    // What lies in a folder under a name that the listing has too need not come from there.
    if model.repo.is_some()
        && let Some(listed) = listed
        && let Some(hash) = of_listing(listed)
    {
        return Expected { hash: Some(hash), size: Some(listed.size), ..Expected::default() };
    }
    match known(&file.stat) {
        Some(known) => Expected {
            hash: of_hex(&known.blake3, 64).map(|hash| (HashKind::Blake3, hash)),
            changed: (!known.holds).then_some(ChangedSince::Sync),
            ..Expected::default()
        },
        None => Expected::default(),
    }
}

/// A blob's name: 64 hexadecimal characters are a SHA-256, 40 a SHA-1 of git.
fn of_name(name: &str) -> Option<(HashKind, String)> {
    let hash = |kind, length| Some((kind, of_hex(name, length)?));
    hash(HashKind::Sha256, 64).or_else(|| hash(HashKind::GitSha1, 40))
}

fn of_listing(listed: &ListingFile) -> Option<(HashKind, String)> {
    match (&listed.lfs_sha256, &listed.blob_id) {
        (Some(sha256), _) => Some((HashKind::Sha256, of_hex(sha256, 64)?)),
        // Without one, its git SHA-1 is of the content itself and not of a pointer to it.
        (None, Some(blob_id)) => Some((HashKind::GitSha1, of_hex(blob_id, 40)?)),
        (None, None) => None,
    }
}

/// An HTTP entity tag, as a server gives it or with its marks taken off.
fn of_etag(etag: &str) -> Option<(HashKind, String)> {
    let etag = etag.strip_prefix("W/").unwrap_or(etag);
    of_name(etag.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(etag))
}

/// The name of one of Ollama's blobs: `blobs/sha256-<hex>`.
fn of_digest(place: &str) -> Option<(HashKind, String)> {
    let (dir, name) = place.rsplit_once('/')?;
    let in_blobs = dir == "blobs" || dir.ends_with("/blobs");
    let hash = name.strip_prefix("sha256-").filter(|_| in_blobs)?;
    Some((HashKind::Sha256, of_hex(hash, 64)?))
}

fn of_hex(text: &str, length: usize) -> Option<String> {
    let is_hex = text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| text.to_ascii_lowercase())
}

/// Whether a record of a download is of the content that is there now: as huggingface_hub has it, the file was not
/// written later than a second after the record.
fn is_fresh(recorded: &LocalFile, stat: &Stat) -> bool {
    let written = stat.mtime_ns as f64 / 1e9;
    recorded.timestamp.is_some_and(|recorded| written - 1.0 <= recorded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_hashes() {
        let (sha256, sha1) = ("a".repeat(64), "0123456789abcdef0123456789abcdef01234567".to_owned());
        assert_eq!(of_name(&sha256), Some((HashKind::Sha256, sha256.clone())));
        assert_eq!(of_name(&sha1), Some((HashKind::GitSha1, sha1.clone())));
        for etag in [sha1.clone(), format!("\"{sha1}\""), format!("W/\"{sha1}\""), sha1.to_uppercase()] {
            assert_eq!(of_etag(&etag), Some((HashKind::GitSha1, sha1.clone())), "{etag}");
        }
        let other = ["", "\"", "g", "sha256", &sha1[1..], &"g".repeat(64), &"é".repeat(20), &"é".repeat(32)];
        for name in other {
            assert_eq!((of_name(name), of_etag(name)), (None, None), "{name}");
        }
        assert_eq!(of_digest(&format!("blobs/sha256-{sha256}")), Some((HashKind::Sha256, sha256.clone())));
        assert_eq!(
            of_digest(&format!("models/blobs/sha256-{sha256}")),
            Some((HashKind::Sha256, sha256.clone()))
        );
        for place in
            ["blobs/sha256-x", "sha256-x", &format!("knobs/sha256-{sha256}"), &format!("blobs/{sha256}")]
        {
            assert_eq!(of_digest(place), None, "{place}");
        }
    }

    #[test]
    fn what_a_listing_says() {
        let listed = |blob_id: Option<&str>, lfs_sha256: Option<&str>| ListingFile {
            size: 1,
            blob_id: blob_id.map(str::to_owned),
            lfs_sha256: lfs_sha256.map(str::to_owned),
            xet_hash: None,
        };
        let (sha1, sha256) = ("b".repeat(40), "a".repeat(64));
        assert_eq!(of_listing(&listed(Some(&sha1), Some(&sha256))), Some((HashKind::Sha256, sha256.clone())));
        assert_eq!(of_listing(&listed(Some(&sha1), None)), Some((HashKind::GitSha1, sha1.clone())));
        // The git name of a file in large file storage is that of a pointer.
        assert_eq!(of_listing(&listed(Some(&sha1), Some("no hash"))), None);
        assert_eq!(of_listing(&listed(Some("../../etc"), None)), None);
    }
}
