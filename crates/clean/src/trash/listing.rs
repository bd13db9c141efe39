//! What lies in a trash, as far as that can be seen; nothing is changed.

use std::collections::{BTreeMap, HashSet};
use std::io;

use mlxman_store::{DirHandle, StoreSpec};

use super::journal::{Action, Found, Journal, JournalRow, State, Step, draft_name, items_of};
use super::steps::is_listed;
use super::told::TrashEntry;
use super::{TRASH, copies, empty};

pub(super) fn ids(root: &DirHandle) -> io::Result<Vec<String>> {
    let dir = match root.open_dir_below(TRASH) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut ids = Vec::new();
    dir.for_each(|entry| {
        if entry.stat.kind == mlxman_store::EntryKind::Dir {
            ids.extend(entry.name().map(str::to_owned));
        }
    })?;
    ids.sort();
    Ok(ids)
}

/// What lies in a store's trash, oldest first; nothing is changed.
///
/// # Errors
/// When the trash cannot be read.
pub fn list(spec: &StoreSpec, root: &DirHandle) -> io::Result<Vec<TrashEntry>> {
    let mut entries = Vec::new();
    for id in ids(root)?.into_iter().filter(|id| draft_name(id).is_none()) {
        let kept = empty::weigh(root, &id);
        let mut entry = TrashEntry {
            store: spec.id(),
            id: id.clone(),
            created_at: None,
            purpose: None,
            state: None,
            foreign: false,
            rows: Vec::new(),
            items: kept.items,
            reclaimable_bytes: kept.freed_bytes,
            problem: None,
        };
        match Journal::find(root, &id) {
            Found::Journal(state, journal) => {
                entry.created_at = Some(journal.created_at);
                entry.purpose = Some(journal.purpose);
                entry.state = Some(state);
                entry.foreign = journal.foreign;
                entry.rows = rows_of(root, state, &journal).into_values().collect();
            }
            Found::Unreadable(why) => entry.problem = Some(why),
            Found::Nothing if kept.items == 0 => continue,
            Found::Nothing => entry.problem = Some("its journal is not there".to_owned()),
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// The rows of a journal that can be put back, by their places.
pub(super) fn rows_of(root: &DirHandle, state: State, journal: &Journal) -> BTreeMap<usize, JournalRow> {
    match state {
        State::Shared | State::Copying => copies::shared_rows(root, journal),
        _ => kept_rows(root, journal),
    }
}

/// The numbers of the slots in which a journal keeps something.
pub(super) fn slots_of(root: &DirHandle, id: &str) -> HashSet<usize> {
    let mut slots = HashSet::new();
    if let Ok(dir) = root.open_dir_below(&items_of(id)) {
        let _ = dir.for_each(|entry| slots.extend(entry.name().and_then(|name| name.parse::<usize>().ok())));
    }
    slots
}

/// The rows of a journal that were done, as far as that can be seen: what they took is kept, what they put in place is
/// there, and directories are gone or made.
fn kept_rows(root: &DirHandle, journal: &Journal) -> BTreeMap<usize, JournalRow> {
    let slots = slots_of(root, &journal.id);
    let is_done = |step: &Step| match &step.action {
        Action::Put { path, slot, seen } => {
            let is_there = |stat: mlxman_store::Stat| (stat.dev, stat.ino) == (seen.device, seen.inode);
            !slots.contains(slot) && root.stat_below(path).is_ok_and(is_there)
        }
        Action::RemoveDir { path, .. } => {
            root.stat_below(path).err().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
        }
        Action::List { payload, line } => is_listed(root, payload, line),
        action => action.slot().is_some_and(|slot| slots.contains(&slot)),
    };
    let takes = |step: &Step| matches!(step.action, Action::Take { .. } | Action::Exchange { .. });
    let is_kept = |row: usize| {
        let own = || journal.steps.iter().filter(|step| step.rows.contains(&row));
        // That a directory is gone may be somebody else's doing: what a row took says more.
        let any_taken = own().any(takes);
        own().filter(|step| takes(step) || !any_taken).any(is_done)
            || own().any(|step| matches!(step.action, Action::Put { .. }) && is_done(step))
    };
    let rows = journal.rows.iter().enumerate().filter(|(row, _)| is_kept(*row));
    rows.map(|(row, told)| (row, told.clone())).collect()
}
