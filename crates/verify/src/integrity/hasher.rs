//! The hashes, with what they have come to at the end of each part.

use blake3::hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use mlxman_manifest::registry::{CHUNK, HashKind};
use sha1::Sha1;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256};

/// Hashes one content, given in order and in pieces that end where a part ends.
#[derive(Clone)]
pub(super) enum Hasher {
    Sha256(Sha256),
    GitSha1(Sha1),
    Blake3(Box<Tree>),
}

/// BLAKE3 is a tree: each part has a value of its own, and the values of the parts make the hash.
#[derive(Clone)]
pub(super) struct Tree {
    parts: Vec<ChainingValue>,
    now: blake3::Hasher,
}

impl Hasher {
    /// At the beginning of a content of `size` bytes.
    pub(super) fn new(kind: HashKind, size: u64) -> Self {
        match kind {
            HashKind::Sha256 => Hasher::Sha256(Sha256::new()),
            HashKind::GitSha1 => {
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {size}\0").as_bytes());
                Hasher::GitSha1(hasher)
            }
            HashKind::Blake3 => {
                Hasher::Blake3(Box::new(Tree { parts: Vec::new(), now: blake3::Hasher::new() }))
            }
        }
    }

    /// Behind the parts that have these marks; `None` where they are no marks.
    pub(super) fn behind(kind: HashKind, size: u64, marks: &[String]) -> Option<Self> {
        let Some(last) = marks.last() else { return Some(Hasher::new(kind, size)) };
        Some(match kind {
            HashKind::Sha256 => Hasher::Sha256(restored(last)?),
            HashKind::GitSha1 => Hasher::GitSha1(restored(last)?),
            HashKind::Blake3 => {
                let parts: Vec<ChainingValue> =
                    marks.iter().map(|mark| unhex(mark)?.try_into().ok()).collect::<Option<_>>()?;
                let now = part_at(parts.len());
                Hasher::Blake3(Box::new(Tree { parts, now }))
            }
        })
    }

    /// The next piece.
    pub(super) fn update(&mut self, piece: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(piece),
            Hasher::GitSha1(hasher) => hasher.update(piece),
            Hasher::Blake3(tree) => drop(tree.now.update(piece)),
        }
    }

    /// At the end of a part behind which another one follows: what it has come to.
    pub(super) fn mark(&mut self) -> String {
        match self {
            Hasher::Sha256(hasher) => hex(&hasher.serialize()),
            Hasher::GitSha1(hasher) => hex(&hasher.serialize()),
            Hasher::Blake3(tree) => {
                let value = tree.now.finalize_non_root();
                tree.parts.push(value);
                tree.now = part_at(tree.parts.len());
                hex(&value)
            }
        }
    }

    /// At the end of the content: its hash.
    pub(super) fn finish(self) -> String {
        match self {
            Hasher::Sha256(hasher) => hex(&hasher.finalize()),
            Hasher::GitSha1(hasher) => hex(&hasher.finalize()),
            Hasher::Blake3(tree) if tree.parts.is_empty() => tree.now.finalize().to_hex().to_string(),
            Hasher::Blake3(mut tree) => {
                tree.parts.push(tree.now.finalize_non_root());
                let (left, right) = tree.parts.split_at(left_of(tree.parts.len()));
                merge_subtrees_root(&merged(left), &merged(right), Mode::Hash).to_hex().to_string()
            }
        }
    }
}

/// A hasher for the part at this place.
fn part_at(place: usize) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(place as u64 * CHUNK);
    hasher
}

/// How many of so many parts, two at least, lie in the left subtree.
fn left_of(parts: usize) -> usize {
    parts.next_power_of_two() / 2
}

/// The value of the subtree over these parts; there is one at least.
fn merged(parts: &[ChainingValue]) -> ChainingValue {
    match parts {
        [] => ChainingValue::default(),
        [one] => *one,
        parts => {
            let (left, right) = parts.split_at(left_of(parts.len()));
            merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

fn restored<T: SerializableState>(mark: &str) -> Option<T> {
    let bytes = unhex(mark)?;
    let state = SerializedState::<T>::try_from(bytes.as_slice()).ok()?;
    T::deserialize(&state).ok()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [HashKind; 3] = [HashKind::Sha256, HashKind::GitSha1, HashKind::Blake3];

    fn at_once(kind: HashKind, bytes: &[u8]) -> String {
        match kind {
            HashKind::Sha256 => mlxman_testkit::sha256_hex(bytes),
            HashKind::GitSha1 => mlxman_testkit::git_sha1(bytes),
            HashKind::Blake3 => blake3::hash(bytes).to_hex().to_string(),
        }
    }

    /// The hash of so many bytes by parts, and the marks on the way.
    fn by_parts(kind: HashKind, bytes: &[u8]) -> (String, Vec<String>) {
        let mut hasher = Hasher::new(kind, bytes.len() as u64);
        let mut marks = Vec::new();
        for (at, part) in bytes.chunks(CHUNK as usize).enumerate() {
            if at > 0 {
                marks.push(hasher.mark());
            }
            hasher.update(part);
        }
        (hasher.finish(), marks)
    }

    #[test]
    fn hashes_by_parts_are_those_of_the_whole_and_go_on_from_their_marks() {
        let chunk = CHUNK as usize;
        let sizes = [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk + 7];
        let mut bytes: Vec<u8> = (0..3 * chunk + 7).map(|at| (at / 1021 % 251) as u8).collect();
        bytes[chunk] ^= 1;
        for size in sizes {
            for kind in KINDS {
                let (hash, marks) = by_parts(kind, &bytes[..size]);
                assert_eq!(hash, at_once(kind, &bytes[..size]), "{kind:?} of {size}");
                assert_eq!(marks.len(), size.saturating_sub(1) / chunk);
                let mut again = Hasher::behind(kind, size as u64, &marks).unwrap();
                again.update(&bytes[marks.len() * chunk..size]);
                assert_eq!(again.finish(), hash, "{kind:?} of {size}, from its last mark");
            }
        }
    }

    #[test]
    fn trees_of_many_parts() {
        // The shape alone: as many subtrees as BLAKE3 itself makes of that many chunks of its own.
        for parts in 2..20 {
            let left = left_of(parts);
            let bytes = blake3::hazmat::left_subtree_len(parts as u64 * CHUNK);
            assert_eq!(left as u64 * CHUNK, bytes, "{parts}");
        }
    }

    #[test]
    fn what_is_no_mark_is_none() {
        for kind in KINDS {
            for mark in ["", "x", "0", "00", &"f".repeat(208), &"z".repeat(64), "é"] {
                let hasher = Hasher::behind(kind, 9, &[mark.to_owned()]);
                if let Some(mut hasher) = hasher {
                    hasher.update(b"abc");
                    let _ = hasher.finish();
                }
            }
            assert!(Hasher::behind(kind, 9, &["0".to_owned()]).is_none());
        }
    }
}
