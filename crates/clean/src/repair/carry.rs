//! Carrying repairs out, through the store's trash.
//!
//! What is made lies in the journal's directory, whole and on the disk, before the journal begins; a repair is then done
//! by renames alone, as a removal is, and is taken back in the same way. What somebody else put in a place meanwhile is
//! never replaced.

use std::collections::HashMap;
use std::io;

use mlxman_store::{Editor, EntryKind};

use super::{Finding, Repair, RepairChange, RepairKind, Repairs};
use crate::apply::{AppliedStore, ApplyError, PlanError, Skipped, Watched, own_of};
use crate::plan::{Item, ItemKind};
use crate::trash::{
    Action, Journal, JournalRow, Purpose, Run, Seen, Step, Trash, TrashError, abandon, carry_out,
    draft_slot_of, is_in_trash, prepare, trouble,
};

/// Does what `given` says of the store that `trash` is of, as far as `fresh`, which was found again under the trash's lock,
/// says the same. `watched` was looked at before that.
///
/// # Errors
/// See [`ApplyError`]. What could not be done of single repairs is in the result.
pub fn mend(
    trash: &Trash<'_>,
    store: &str,
    (given, fresh): (&Repairs, &Repairs),
    watched: &Watched,
    run: &Run,
) -> Result<AppliedStore, ApplyError> {
    let editor = trash.editor();
    let refuse = |error: TrashError| ApplyError::Trash { store: store.to_owned(), why: error.to_string() };
    let mut applied = AppliedStore::of(store.to_owned());
    let rows = choose(store, given, fresh, &mut applied)?;
    if rows.is_empty() {
        return Ok(applied);
    }
    let id = run.id.clone();
    prepare(editor, &id).map_err(|error| refuse(trouble("a journal cannot be made")(error)))?;
    let made = Maker { editor, id: &id, steps: Vec::new() }.make(&rows);
    let steps = match made {
        Ok(steps) => steps,
        Err(source) => {
            let _ = abandon(editor, &id);
            return Err(refuse(trouble("what a repair puts in place cannot be made")(source)));
        }
    };
    let rows_told = rows.iter().map(|(finding, repair)| row_of(finding, repair)).collect();
    let journal = trash
        .journal(run, Purpose::Repair, (rows_told, steps))
        .map_err(|error| refuse(trouble("the store cannot be read")(error)))?;
    let own = own_of(&journal);
    let settled = |row: usize| {
        let (finding, repair) = rows[row];
        let removes = matches!(repair.kind, RepairKind::RemoveEmpty | RepairKind::RemovePartial);
        let place = finding.key.as_deref().filter(|key| !key.is_empty()).unwrap_or(&finding.place);
        let disturbed = removes.then(|| watched.disturbed_at(editor.root(), place, &own)).flatten();
        disturbed.or_else(|| unsettled(editor, row, &journal))
    };
    let carried = carry_out(editor, &journal, &settled).map_err(refuse)?;
    applied.take(&journal, carried);
    applied.reclaimable_bytes = trash.weigh(&id).freed_bytes;
    applied.id = trash.has(&id).then_some(id);
    Ok(applied)
}

/// The repairs of the store that are still what they were, removals first: they are asked whether anything came meanwhile,
/// and what is put in place beside them would look like it.
fn choose<'a>(
    store: &str,
    given: &Repairs,
    fresh: &'a Repairs,
    applied: &mut AppliedStore,
) -> Result<Vec<(&'a Finding, &'a Repair)>, ApplyError> {
    let of_store = |finding: &&Finding| finding.store == store;
    let now: HashMap<_, &Finding> = fresh
        .findings
        .iter()
        .filter(of_store)
        .map(|one| ((one.problem.kind, one.place.as_str()), one))
        .collect();
    let mut rows = Vec::new();
    for (finding, repair) in given.mendable().filter(|(finding, _)| finding.store == store) {
        if let Some(path) = repair.changes.iter().flat_map(paths).find(|path| is_bad(path)) {
            return Err(PlanError::Outside { path: path.to_owned(), store: store.to_owned() }.into());
        }
        let skip = |reason: &str| Skipped { what: finding.place.clone(), reason: reason.to_owned() };
        match now.get(&(finding.problem.kind, finding.place.as_str())) {
            None => applied.skipped.push(skip("it is not wrong any more")),
            Some(now) => match &now.repair {
                Some(again) if again == repair => rows.push((*now, again)),
                Some(_) => applied.skipped.push(skip("it changed since it was shown; look at it again")),
                None => applied.skipped.push(skip(
                    now.held.as_deref().unwrap_or("it cannot be mended any more; look at it again"),
                )),
            },
        }
    }
    rows.sort_by_key(|(_, repair)| repair.kind);
    Ok(rows)
}

fn paths(change: &RepairChange) -> [&str; 2] {
    match change {
        RepairChange::Take { item } => [&item.path; 2],
        RepairChange::MakeDir { path }
        | RepairChange::Link { path, .. }
        | RepairChange::Write { path, .. } => [path; 2],
        RepairChange::List { payload, line } => [payload, line],
    }
}

fn is_bad(path: &str) -> bool {
    !mlxman_store::is_safe_relative(path) || is_in_trash(path)
}

fn row_of(finding: &Finding, repair: &Repair) -> JournalRow {
    JournalRow {
        what: finding.place.clone(),
        key: finding.key.clone(),
        reason: repair.does.clone(),
        reclaimable_bytes: match repair.kind {
            RepairKind::RemoveEmpty | RepairKind::RemovePartial => finding.useless_bytes,
            _ => 0,
        },
    }
}

/// Makes what is going to be put in place, and the steps.
struct Maker<'a> {
    editor: &'a Editor<'a>,
    id: &'a str,
    steps: Vec<Step>,
}

impl Maker<'_> {
    fn make(mut self, rows: &[(&Finding, &Repair)]) -> io::Result<Vec<Step>> {
        for (row, (finding, repair)) in rows.iter().enumerate() {
            for change in &repair.changes {
                let slot = self.steps.len();
                let action = match change {
                    RepairChange::Take { item } => self.take(finding, item, slot),
                    RepairChange::MakeDir { path } => Action::MakeDir { path: path.clone() },
                    RepairChange::List { payload, line } => {
                        Action::List { payload: payload.clone(), line: line.clone() }
                    }
                    RepairChange::Link { path, target } => {
                        self.editor.make_link(&self.place(slot), target)?;
                        self.put(path, slot, ItemKind::Link, Some(target.clone()))?
                    }
                    RepairChange::Write { path, mode, content } => {
                        let place = self.place(slot);
                        let bytes = content.bytes().ok_or(io::ErrorKind::InvalidInput)?;
                        self.editor.write_new(&place, bytes, 0o600)?;
                        self.editor.set_mode(&place, *mode)?;
                        self.put(path, slot, ItemKind::File, None)?
                    }
                };
                self.steps.push(Step { rows: vec![row], action });
            }
        }
        Ok(self.steps)
    }

    fn place(&self, slot: usize) -> String {
        draft_slot_of(self.id, slot)
    }

    fn put(
        &self,
        path: &str,
        slot: usize,
        kind: ItemKind,
        link_target: Option<String>,
    ) -> io::Result<Action> {
        let stat = self.editor.stat(&self.place(slot))?;
        let seen = Seen {
            kind,
            device: stat.dev,
            inode: stat.ino,
            size: stat.size,
            mtime_ns: stat.mtime_ns,
            link_target,
        };
        Ok(Action::Put { path: path.to_owned(), slot, seen })
    }

    fn take(&self, finding: &Finding, item: &Item, slot: usize) -> Action {
        let key = finding.key.as_deref().unwrap_or_default();
        let must = item.path == key || item.path.strip_prefix(key).is_some_and(|rest| rest.starts_with('/'));
        Action::removing(self.editor, item, slot, must)
    }
}

/// Why a repair that was just done has to be taken back: what it took was written to at that moment, or what it put in
/// place does not do what it was put there for.
fn unsettled(editor: &Editor<'_>, row: usize, journal: &Journal) -> Option<String> {
    for step in journal.steps.iter().filter(|step| step.rows == [row]) {
        match &step.action {
            Action::Take { path, slot, seen } => {
                match seen.difference(editor, &crate::trash::slot_of(&journal.id, *slot)) {
                    Ok(None) => {}
                    Ok(Some(what)) => return Some(format!("{path} {what}")),
                    // It was left where it was.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Some(format!("{path}: {error}")),
                }
            }
            Action::Put { path, seen, .. } => match seen.difference(editor, path) {
                Ok(None) => {
                    if let Some(target) = &seen.link_target
                        && !leads_somewhere(editor, path, target)
                    {
                        return Some(format!("{path}: what it leads to went meanwhile"));
                    }
                }
                Ok(Some(what)) => return Some(format!("{path} {what}")),
                Err(error) => return Some(format!("{path}: {error}")),
            },
            _ => {}
        }
    }
    None
}

/// Whether something lies where a link of the store leads, one hop.
fn leads_somewhere(editor: &Editor<'_>, path: &str, target: &str) -> bool {
    let mut at: Vec<&str> = path.split('/').collect();
    at.pop();
    for part in target.split('/') {
        match part {
            ".." if at.pop().is_none() => return false,
            ".." => {}
            part => at.push(part),
        }
    }
    editor.stat(&at.join("/")).is_ok_and(|stat| matches!(stat.kind, EntryKind::File | EntryKind::Link))
}
