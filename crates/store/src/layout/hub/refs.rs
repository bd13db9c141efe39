//! `refs/`: files of exactly 40 characters each, in directories for refs with a `/` in their name.

use std::io::Read;

use crate::access::{DirHandle, EntryKind, Stat};
use crate::details::is_hex;
use crate::ledger::{LedgerBuilder, Users};
use crate::problem::{Problem, ProblemKind};

/// A ref longer than this is none.
const REF_LIMIT: u64 = 256;

/// One ref.
pub(super) struct Ref {
    pub(super) name: String,
    pub(super) stat: Stat,
    /// The commit, where the file holds one.
    pub(super) commit: Option<String>,
    /// What is wrong with it; the path is relative to the repo.
    pub(super) problem: Option<Problem>,
}

/// Reads all refs below `dir`. `dirs` gets the stats of the directories walked.
pub(super) fn read(
    dir: &DirHandle,
    prefix: &str,
    refs: &mut Vec<Ref>,
    dirs: &mut Vec<Stat>,
    book: &mut LedgerBuilder,
    depth: u32,
) {
    let Ok(entries) = dir.list() else { return };
    for entry in entries {
        let Some(name) = entry.name() else {
            super::count_all(dir, &entry, &Users::Never, book, &mut Vec::new());
            continue;
        };
        let name = format!("{prefix}{name}");
        match entry.stat.kind {
            EntryKind::Dir if depth < 8 => {
                dirs.push(entry.stat);
                if let Ok(below) = dir.open_dir(&entry.raw_name) {
                    read(&below, &format!("{name}/"), refs, dirs, book, depth + 1);
                }
            }
            EntryKind::Dir => super::count_all(dir, &entry, &Users::Never, book, &mut Vec::new()),
            _ => refs.push(read_one(dir, &entry, name)),
        }
    }
}

fn read_one(dir: &DirHandle, entry: &crate::access::Entry, name: String) -> Ref {
    let path = format!("refs/{name}");
    let mut text = String::new();
    let read = dir.open_file(&entry.raw_name).and_then(|file| file.take(REF_LIMIT).read_to_string(&mut text));
    let trimmed = text.trim();
    let (commit, problem) = match read {
        Err(error) => (
            None,
            Some(Problem::new(
                ProblemKind::RefInvalid,
                Some(&path),
                format!("the ref `{name}` cannot be read: {error}"),
            )),
        ),
        Ok(_) if !is_hex(trimmed, 40) => (
            None,
            Some(Problem::new(
                ProblemKind::RefInvalid,
                Some(&path),
                format!("the ref `{name}` does not hold a commit; download the repo again to mend it"),
            )),
        ),
        Ok(_) if trimmed.len() != text.len() => (
            Some(trimmed.to_owned()),
            Some(Problem::new(
                ProblemKind::RefNewline,
                Some(&path),
                format!(
                    "the ref `{name}` has white space around its commit, so huggingface_hub does not find the revision; \
                     rewrite the file with the 40 characters alone"
                ),
            )),
        ),
        Ok(_) => (Some(trimmed.to_owned()), None),
    };
    Ref { name, stat: entry.stat, commit, problem }
}
