//! Who needs what the trash keeps: links that are in the store again, or lie in the trash themselves.

use std::collections::{HashMap, HashSet};

use mlxman_store::{DirHandle, EntryKind};

use super::journal::{Action, Found, Journal, State, draft_name};
use super::{Trash, ids};
use crate::plan::ItemKind;

/// Deeper directories are in no snapshot.
const DEEPEST: u32 = 32;

impl Trash<'_> {
    /// Another journal that keeps what a link of this one leads to.
    pub(super) fn holder(&self, journal: &Journal) -> Option<String> {
        let wanted: HashSet<String> = links_of(journal).filter(|path| self.is_gone(path)).collect();
        if wanted.is_empty() {
            return None;
        }
        let has = |other: &Journal| files_of(other).any(|path| wanted.contains(path));
        self.others(journal).into_iter().find(has).map(|other| other.id)
    }

    /// Who needs what a journal keeps, and what to do about it.
    pub(super) fn needed(&self, journal: &Journal) -> Option<String> {
        // What came again, by a download say, is needed from nowhere else.
        let kept: HashSet<&str> = files_of(journal).filter(|path| self.is_gone(path)).collect();
        let older = |other: &Journal| links_of(other).any(|path| kept.contains(path.as_str()));
        if let Some(other) = self.others(journal).into_iter().find(older) {
            return Some(format!(
                "links that were removed as {0} lead to it: empty {0} first, or undo this one",
                other.id
            ));
        }
        let mut repos: HashMap<&str, HashSet<&str>> = HashMap::new();
        for path in &kept {
            if let Some((repo, _)) = path.split_once('/').filter(|(repo, _)| repo.contains("--")) {
                repos.entry(repo).or_default().insert(path);
            }
        }
        let root = self.editor().root();
        for (repo, paths) in repos {
            let mut found = None;
            let _ = walk(root, &format!("{repo}/snapshots"), 0, &mut |at, target| {
                if resolved(at, target).is_some_and(|path| paths.contains(path.as_str())) {
                    found.get_or_insert_with(|| at.to_owned());
                }
            });
            if let Some(link) = found {
                return Some(format!("{link} is there again and leads to it: undo this one, too"));
            }
        }
        // A repo's blob may lead to a shared one.
        if kept.iter().any(|path| super::is_shared(path)) {
            let names = root.list().unwrap_or_default();
            for repo in names.iter().filter_map(|entry| entry.name()).filter(|name| name.contains("--")) {
                let mut found = None;
                let _ = walk(root, &format!("{repo}/blobs"), DEEPEST, &mut |at, target| {
                    if resolved(at, target).is_some_and(|path| kept.contains(path.as_str())) {
                        found.get_or_insert_with(|| at.to_owned());
                    }
                });
                if let Some(link) = found {
                    return Some(format!("{link} is there again and leads to it: undo this one, too"));
                }
            }
        }
        None
    }

    /// Whether nothing lies at a path of the store; what cannot be asked is not there.
    fn is_gone(&self, path: &str) -> bool {
        self.editor().stat(path).is_err()
    }

    fn others(&self, journal: &Journal) -> Vec<Journal> {
        let root = self.editor().root();
        let ids = ids(root).unwrap_or_default();
        let others = ids.iter().filter(|id| **id != journal.id && draft_name(id).is_none());
        others
            .filter_map(|id| match Journal::find(root, id) {
                Found::Journal(State::Kept, other) => Some(*other),
                _ => None,
            })
            .collect()
    }
}

/// The files that a journal took.
fn files_of(journal: &Journal) -> impl Iterator<Item = &str> {
    journal.steps.iter().filter_map(|step| match &step.action {
        Action::Take { path, seen, .. } if seen.kind == ItemKind::File || path.contains("/blobs/") => {
            Some(path.as_str())
        }
        _ => None,
    })
}

/// What the links that a journal took lead to.
fn links_of(journal: &Journal) -> impl Iterator<Item = String> {
    journal.steps.iter().filter_map(|step| match &step.action {
        Action::Take { path, seen, .. } => resolved(path, seen.link_target.as_deref()?),
        _ => None,
    })
}

/// Where a link at a path of the store leads, by its text.
fn resolved(at: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = at.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

fn walk(root: &DirHandle, path: &str, depth: u32, each: &mut dyn FnMut(&str, &str)) -> std::io::Result<()> {
    let dir = root.open_dir_below(path)?;
    for entry in dir.list()? {
        let Some(name) = entry.name() else { continue };
        let at = format!("{path}/{name}");
        match entry.stat.kind {
            EntryKind::Link => {
                if let Ok(target) = dir.read_link(&entry.raw_name) {
                    each(&at, &target);
                }
            }
            EntryKind::Dir if depth < DEEPEST => walk(root, &at, depth + 1, each)?,
            _ => {}
        }
    }
    Ok(())
}
