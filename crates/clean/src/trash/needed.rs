//! Who needs what the trash keeps: links that are in the store again, or lie in the trash themselves.

use std::collections::{HashMap, HashSet};

use mlxman_store::{DirHandle, EntryKind};

use super::Trash;
use super::journal::{Action, Found, Journal, State, draft_name};
use super::listing::{ids, slots_of};
use crate::plan::ItemKind;

/// Deeper directories are in no snapshot.
const DEEPEST: u32 = 32;

impl Trash<'_> {
    /// Another journal that has to be undone before this one: it keeps what a link of this one leads to, or took what this
    /// one put in place.
    pub(super) fn holder(&self, journal: &Journal) -> Option<String> {
        let own: HashSet<&str> = self.taken_by(journal).into_iter().collect();
        let is_wanted = |path: &String| self.is_gone(path) && !own.contains(path.as_str());
        let wanted: HashSet<String> = self.links_of(journal).into_iter().filter(is_wanted).collect();
        let put: HashSet<&str> = put_by(journal).filter(|path| self.is_gone(path)).collect();
        if wanted.is_empty() && put.is_empty() {
            return None;
        }
        let has = |other: &Journal| {
            self.taken_by(other).iter().any(|path| wanted.contains(*path) || put.contains(path))
        };
        // What was removed before it cannot wait for what it took.
        let later = self.others(journal).into_iter().filter(|other| other.created_at >= journal.created_at);
        later.into_iter().find(has).map(|other| other.id)
    }

    /// Who needs what a journal keeps, and what to do about it.
    pub(super) fn needed(&self, journal: &Journal) -> Option<String> {
        // What came again, by a download say, is needed from nowhere else.
        let kept: HashSet<&str> =
            self.files_of(journal).into_iter().filter(|path| self.is_gone(path)).collect();
        let needs_it = |other: &Journal| {
            let own = self.files_of(other);
            let leads_here = |path: &String| kept.contains(path.as_str()) && !own.contains(path.as_str());
            self.links_of(other).iter().any(leads_here)
        };
        if let Some(other) = self.others(journal).into_iter().find(needs_it) {
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

impl Trash<'_> {
    /// What a journal took and still keeps.
    fn taken_by<'j>(&self, journal: &'j Journal) -> Vec<&'j str> {
        let slots = slots_of(self.editor().root(), &journal.id);
        let taken = journal.steps.iter().filter_map(|step| match &step.action {
            Action::Take { path, slot, .. } => slots.contains(slot).then_some(path.as_str()),
            _ => None,
        });
        taken.collect()
    }

    /// The files among that.
    fn files_of<'j>(&self, journal: &'j Journal) -> HashSet<&'j str> {
        let is_file: HashSet<&str> = journal
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::Take { path, seen, .. }
                    if seen.kind == ItemKind::File || path.contains("/blobs/") =>
                {
                    Some(path.as_str())
                }
                _ => None,
            })
            .collect();
        self.taken_by(journal).into_iter().filter(|path| is_file.contains(path)).collect()
    }

    /// What the links that a journal took and still keeps lead to.
    fn links_of(&self, journal: &Journal) -> Vec<String> {
        let slots = slots_of(self.editor().root(), &journal.id);
        let links = journal.steps.iter().filter_map(|step| match &step.action {
            Action::Take { path, slot, seen } if slots.contains(slot) => {
                resolved(path, seen.link_target.as_deref()?)
            }
            _ => None,
        });
        links.collect()
    }
}

/// What a journal put in place, or changed there.
fn put_by(journal: &Journal) -> impl Iterator<Item = &str> {
    journal.steps.iter().filter_map(|step| match &step.action {
        Action::Put { path, .. } | Action::Exchange { path, .. } | Action::Share { path, .. } => {
            Some(path.as_str())
        }
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
