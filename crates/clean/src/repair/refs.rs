//! Refs with white space around their commit.

use std::io::Read as _;

use mlxman_store::{DirHandle, Editor, EntryKind, Stat};

use super::{Content, Repair, RepairChange, RepairKind};
use crate::items::item;

/// A ref longer than this is none.
const LIMIT: u64 = 256;

/// What a ref's file holds, without the white space around it, if that is a commit.
pub(super) fn commit_of(root: &DirHandle, path: &str) -> Option<(String, String)> {
    let mut text = String::new();
    root.open_below(path).ok()?.take(LIMIT).read_to_string(&mut text).ok()?;
    let commit = text.trim().to_owned();
    let is_commit = commit.len() == 40 && commit.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_commit.then_some((commit, text))
}

/// Writes the ref at `path` anew with the 40 characters alone.
pub(super) fn rewrite(root: &DirHandle, path: &str, stat: &Stat) -> Option<Repair> {
    let (commit, text) = commit_of(root, path)?;
    if stat.kind != EntryKind::File || text == commit {
        return None;
    }
    let mode = Editor::new(root, &|_| Ok(())).attributes(path).ok()?.mode & 0o777;
    Some(Repair {
        kind: RepairKind::RewriteRef,
        does: format!("write {path} anew with exactly {commit}"),
        changes: vec![
            RepairChange::Take { item: item(path.to_owned(), stat, None) },
            RepairChange::Write { path: path.to_owned(), mode, content: Content::new(commit.into_bytes()) },
        ],
    })
}
