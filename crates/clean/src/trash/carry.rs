//! Carrying a journal out, row by row: a row is done whole or not at all.

use std::collections::{BTreeMap, HashSet};
use std::io;

use mlxman_store::{Editor, OpenFiles};

use super::journal::{Action, DirTimes, Journal, State, Step, TRASH, abandon, items_of, slot_of};
use super::steps::{Done, Failed, Why, close, perform, take_back};

/// What came of the rows of a journal.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Why a row was not done, by its place.
    pub(crate) failed: BTreeMap<usize, String>,
    /// What was left of rows that were done, and why.
    pub(crate) left: Vec<(String, String)>,
}

/// Why nothing, or not all, could be done; what was begun is taken back by whoever comes next.
#[derive(Debug, thiserror::Error)]
#[error("{what} in {TRASH}: {source}")]
pub(crate) struct TrashError {
    pub(crate) what: &'static str,
    pub(crate) source: io::Error,
}

pub(crate) fn trouble(what: &'static str) -> impl Fn(io::Error) -> TrashError {
    move |source| TrashError { what, source }
}

/// Writes the journal down and does its rows. `settled` is asked after each row, and of all rows that were done once more
/// when all is done: a reason takes the row back, with whatever it shares.
///
/// # Errors
/// When the journal cannot be written: nothing was touched then. When it cannot be closed: all that was done is kept, and
/// is taken back by whoever comes next.
pub(crate) fn carry_out(
    editor: &Editor<'_>,
    journal: &Journal,
    settled: &dyn Fn(usize) -> Option<String>,
) -> Result<Carried, TrashError> {
    if let Err(error) = journal.begin(editor) {
        // Should that fail too, it is removed another time: it holds nothing of anybody's.
        let _ = abandon(editor, &journal.id);
        return Err(trouble("a journal cannot be written")(error));
    }
    let mut carried = Carried::default();
    let mut work = Work { editor, journal, done: vec![false; journal.steps.len()] };
    let mut own: Vec<Vec<usize>> = vec![Vec::new(); journal.rows.len()];
    let mut shared = Vec::new();
    for (at, step) in journal.steps.iter().enumerate() {
        match step.rows.as_slice() {
            [row] => own[*row].push(at),
            _ => shared.push(at),
        }
    }
    for (row, own) in own.iter().enumerate() {
        let failed = work.row(own, &mut carried).err().or_else(|| settled(row));
        if let Some(why) = failed {
            let why = work.back(own, why);
            carried.failed.insert(row, why);
        }
    }
    for at in shared.iter().copied() {
        if journal.steps[at].rows.iter().all(|row| !carried.failed.contains_key(row)) {
            work.shared(at, &mut carried);
        }
    }
    let sync =
        || editor.sync_dir(&items_of(&journal.id)).map_err(trouble("what was moved cannot be made to last"));
    if work.done.contains(&true) {
        // On a filesystem with a journal this makes every move last: each of them put a name into this directory. It takes
        // its time, in which whoever had looked at a blob before it was taken comes to link to it.
        sync()?;
    }
    let mut any_back = false;
    for (row, own) in own.iter().enumerate() {
        let is_done = !carried.failed.contains_key(&row);
        let Some(why) = is_done.then(|| settled(row)).flatten() else { continue };
        let of_row = shared.iter().copied().filter(|at| journal.steps[*at].rows.contains(&row));
        let all: Vec<usize> = own.iter().copied().chain(of_row).collect();
        let why = work.back(&all, why);
        carried.failed.insert(row, why);
        any_back = true;
    }
    if any_back && work.done.contains(&true) {
        sync()?;
    }
    let done = work.done.iter().filter(|done| **done).count();
    finish(editor, journal, done)?;
    Ok(carried)
}

impl Carried {
    fn leave(&mut self, action: &Action, why: String) {
        // That a directory is used by others, or a list has a line too many, is nobody's loss.
        if let Action::Take { path, .. } = action {
            self.left.push((path.clone(), why));
        }
    }
}

/// A journal in the middle of its steps.
struct Work<'a> {
    editor: &'a Editor<'a>,
    journal: &'a Journal,
    /// Which steps are done, so far as is known.
    done: Vec<bool>,
}

impl Work<'_> {
    /// Does a row's own steps, up to the first one that cannot be done.
    fn row(&mut self, own: &[usize], carried: &mut Carried) -> Result<(), String> {
        let mut left = Vec::new();
        for &at in own {
            let action = &self.journal.steps[at].action;
            match perform(self.editor, &self.journal.id, action) {
                Ok(Done::Yes) => self.done[at] = true,
                Ok(Done::Left(why)) => left.push((action, why)),
                Err(failed) => {
                    self.done[at] = may_be_done(action);
                    return Err(failed.to_string());
                }
            }
        }
        left.into_iter().for_each(|(action, why)| carried.leave(action, why));
        Ok(())
    }

    /// Does what several rows share. What of it cannot be done stays: that costs space, and nothing else.
    fn shared(&mut self, at: usize, carried: &mut Carried) {
        let action = &self.journal.steps[at].action;
        match perform(self.editor, &self.journal.id, action) {
            Ok(Done::Yes) => self.done[at] = true,
            Ok(Done::Left(why)) => carried.leave(action, why),
            Err(failed) => {
                self.done[at] = may_be_done(action);
                let why = self.back(&[at], failed.to_string());
                carried.left.push((failed.path, why));
            }
        }
    }

    /// Takes steps back, the last one first, and says why, and what could not be.
    fn back(&mut self, steps: &[usize], mut why: String) -> String {
        let id = &self.journal.id;
        for &at in steps.iter().rev().filter(|at| self.done[**at]).collect::<Vec<_>>() {
            match take_back(self.editor, id, &self.journal.steps[at].action) {
                Ok(()) => self.done[at] = false,
                // It stays in the trash, where `undo` finds it.
                Err(stuck) => why = format!("{why}; not all of it could be put back: {stuck}"),
            }
        }
        let actions = || steps.iter().map(|at| &self.journal.steps[*at].action);
        actions().for_each(|action| drop_made(self.editor, self.journal, action));
        // The innermost first: what is closed lets nobody in.
        actions().for_each(|action| close(self.editor, action));
        let touched: HashSet<&str> = actions().flat_map(touched_by).collect();
        let dirs = self.journal.dirs.iter().filter(|dir| touched.contains(dir.path.as_str()));
        put_times_back(self.editor, dirs);
        why
    }
}

/// Whether a step that failed may have been done all the same, where what was moved could not be looked at afterwards.
fn may_be_done(action: &Action) -> bool {
    !matches!(action, Action::MakeDir { .. })
}

/// The directories that a step changes.
fn touched_by(action: &Action) -> Vec<&str> {
    let parent = |path: &'_ str| path.rfind('/').map_or(0, |at| at);
    let mut dirs: Vec<&str> = action.paths().into_iter().map(|path| &path[..parent(path)]).collect();
    if let Action::RemoveDir { path, .. } = action {
        dirs.push(path);
    }
    dirs
}

/// A repair makes refs, links and indices of shards.
const LARGEST_MADE: u64 = 16 << 20;

/// Removes what was made to be put in place and was not, or was taken back.
fn drop_made(editor: &Editor<'_>, journal: &Journal, action: &Action) {
    // What another user says was made may be anybody's file.
    if journal.foreign {
        return;
    }
    let (Action::Put { slot, seen: made, .. } | Action::Exchange { slot, new: made, .. }) = action else {
        return;
    };
    let slot = slot_of(&journal.id, *slot);
    // What a repair makes is small, and what a journal says may be a lie: weights are never what it made.
    let is_large = made.size > LARGEST_MADE && matches!(action, Action::Put { .. });
    if let (false, Ok(None)) = (is_large, made.difference(editor, &slot)) {
        // It is a copy that nobody knows of; should it stay, it costs space.
        let _ = editor.remove(&slot);
    }
}

/// Closes the journal; one of which nothing was done goes.
fn finish(editor: &Editor<'_>, journal: &Journal, done: usize) -> Result<(), TrashError> {
    if done == 0 {
        put_times_back(editor, &journal.dirs);
        return journal.end_all(editor, State::Moving).map_err(trouble("an empty journal cannot be removed"));
    }
    journal.becomes(editor, State::Moving, State::Kept).map_err(trouble("the journal cannot be closed"))
}

/// Takes all steps of a journal back, the last one first; what could not be is told, and stays in the trash.
pub(crate) fn take_all_back(editor: &Editor<'_>, journal: &Journal) -> Vec<Failed> {
    let mut stuck = Vec::new();
    let exchanges = journal.steps.iter().any(|step| matches!(step.action, Action::Exchange { .. }));
    // Whoever has such a file open would go on writing to the one that goes.
    let open = exchanges.then(OpenFiles::now).unwrap_or_default();
    for step in journal.steps.iter().rev() {
        if let Action::Exchange { path, new, .. } = &step.action
            && open.has(new.device, new.inode)
        {
            let why =
                Why::Changed("is open in a running program; it stays as it is until that ends".to_owned());
            stuck.push(Failed { path: path.clone(), why });
            continue;
        }
        stuck.extend(take_back(editor, &journal.id, &step.action).err());
        drop_made(editor, journal, &step.action);
    }
    // The innermost first, as they were removed: what is closed lets nobody in.
    journal.steps.iter().for_each(|step| close(editor, &step.action));
    put_times_back(editor, &journal.dirs);
    stuck
}

/// Directories get the times that they had.
pub(crate) fn put_times_back<'a>(editor: &Editor<'_>, dirs: impl IntoIterator<Item = &'a DirTimes>) {
    for dir in dirs {
        // Times are no data: a directory that this user does not own keeps its own.
        let _ = editor.set_times(&dir.path, dir.atime_ns, dir.mtime_ns);
    }
}

/// Whether anything of a journal still lies in the trash.
pub(crate) fn holds_anything(editor: &Editor<'_>, id: &str) -> io::Result<bool> {
    // Opened anew: some filesystems show in a directory only what was there when it was opened.
    match editor.root().open_dir_below(&items_of(id)) {
        Ok(dir) => {
            let mut any = false;
            dir.for_each(|_| any = true)?;
            Ok(any)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Journal {
    /// Removes the journal with the empty directory of its items.
    pub(crate) fn end_all(&self, editor: &Editor<'_>, state: State) -> io::Result<()> {
        match editor.remove_dir(&items_of(&self.id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.end(editor, state)
    }

    /// The times of every directory that the steps change, before they do.
    pub(crate) fn times_of(editor: &Editor<'_>, steps: &[Step]) -> Vec<DirTimes> {
        let mut seen: HashSet<&str> = HashSet::new();
        let mut dirs = Vec::new();
        for step in steps {
            let mut note = |path: &'_ str| {
                let stat = if path.is_empty() { editor.root().stat() } else { editor.stat(path) };
                if let Ok(stat) = stat {
                    dirs.push(DirTimes {
                        path: path.to_owned(),
                        atime_ns: stat.atime_ns,
                        mtime_ns: stat.mtime_ns,
                    });
                }
            };
            for dir in touched_by(&step.action) {
                if seen.insert(dir) {
                    note(dir);
                }
            }
        }
        dirs
    }
}
