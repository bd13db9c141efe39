//! Applying a plan: nothing but what it names is moved, and of that only what is still as the plan saw it.
//!
//! The plan is made anew under the store's lock, for its own rows alone, so everything that may keep a row is asked again:
//! pins, locks, open files, links, refs. What the new plan would not do, or what the old one did not name, is skipped.

mod chosen;
mod refuse;
mod result;
mod steps;
mod watched;

use crate::plan::{Candidate, Plan};
use crate::trash::{
    Action, JournalRow, Purpose, Run, Step, TRASH, Trash, TrashError, carry_out, prepare, trouble,
};

pub use refuse::{Only, PlanError};
pub use result::{Applied, AppliedStore, ApplyError, Skipped, applied_schema};
pub use watched::Watched;

pub(crate) use watched::{QUIET, just_written, own_of};

use chosen::{Chosen, choose, what_of};
use refuse::place_of;
use steps::{allocated_dir, drop_needless_unlists, push_steps};

/// Does what `given` says of the store that `trash` is of, as far as `fresh`, the same plan made anew under the trash's
/// lock, says it too. `watched` was looked at before that.
///
/// # Errors
/// See [`ApplyError`]. What could not be done of single rows is in the result.
pub fn apply(
    trash: &Trash<'_>,
    store: &str,
    (given, fresh): (&Plan, &Plan),
    watched: &Watched,
    run: &Run,
) -> Result<AppliedStore, ApplyError> {
    let editor = trash.editor();
    let refuse = |error: TrashError| ApplyError::Trash { store: store.to_owned(), why: error.to_string() };
    let other = || PlanError::OtherStore { store: store.to_owned() };
    let seen = given.stores.iter().find(|one| one.store == store).ok_or_else(other)?;
    let root = editor.root().stat().map_err(|source| refuse(trouble("the store cannot be read")(source)))?;
    if (root.dev, root.ino) != (seen.device, seen.inode) {
        return Err(other().into());
    }
    let now = fresh.stores.iter().find(|one| one.store == store);
    let mut applied = AppliedStore {
        store: store.to_owned(),
        changed_since_plan: now.is_none_or(|now| now.state != seen.state),
        ..AppliedStore::default()
    };
    let Chosen { rows, shared } = choose(store, given, fresh, watched, &mut applied);
    if rows.is_empty() {
        return Ok(applied);
    }
    let id = run.id.clone();
    let mut steps = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        for item in &row.items {
            let is_own = row.key.as_deref().is_some_and(|key| is_within(&item.path, key));
            push_steps(editor, &mut steps, &[place], item, is_own);
        }
    }
    for (needs, item) in &shared {
        push_steps(editor, &mut steps, needs, item, false);
    }
    drop_needless_unlists(&mut steps);
    let freed_by_dirs: Vec<u64> = steps.iter().map(|step| allocated_dir(editor, &step.action)).collect();
    let rows_told = rows.iter().map(|row| row_of(row)).collect();
    let journal = trash
        .journal(run, Purpose::Clean, (rows_told, steps))
        .map_err(|error| refuse(trouble("the store cannot be read")(error)))?;
    prepare(editor, &id).map_err(|error| refuse(trouble("a journal cannot be made")(error)))?;
    let own = own_of(&journal);
    let places: Vec<&str> = rows.iter().map(|row| place_of(row)).collect();
    let settling = watched.settling(editor.root(), &places, &own);
    let settled = |row: usize| settling.why(row);
    let carried = carry_out(editor, &journal, &settled).map_err(refuse)?;
    let is_done = |row: &usize| !carried.failed.contains_key(row);
    let all_done = |step: &Step| step.rows.iter().all(is_done);
    let gone = |step: &Step| match &step.action {
        Action::RemoveDir { path, .. } => editor.stat(path).is_err(),
        _ => false,
    };
    let dirs = journal.steps.iter().zip(&freed_by_dirs).filter(|(step, _)| all_done(step) && gone(step));
    applied.freed_bytes = dirs.map(|(_, bytes)| bytes).sum();
    applied.take(&journal, carried);
    let kept = trash.weigh(&id);
    if kept.items > 0 {
        applied.reclaimable_bytes = kept.freed_bytes;
    }
    // Also of directories alone: they can be put back.
    applied.id = trash.has(&id).then_some(id);
    Ok(applied)
}

fn is_within(path: &str, dir: &str) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn row_of(row: &Candidate) -> JournalRow {
    JournalRow {
        what: what_of(row),
        key: row.key.clone(),
        reason: row.reason.clone(),
        reclaimable_bytes: row.reclaimable_bytes,
    }
}

/// Where the trash of a store lies, for people.
pub fn trash_dir(root: &std::path::Path) -> std::path::PathBuf {
    root.join(TRASH)
}
