//! The trash of a store: `.mlxman-trash/` below its root, so that whatever is taken stays on its filesystem, and taking it
//! or putting it back is one rename.
//!
//! Whoever changes anything holds the trash's lock, and first ends what somebody else began and could not end
//! ([`Trash::recover`]): a journal says what that was.

mod carry;
mod copies;
mod empty;
mod journal;
mod needed;
mod steps;

use std::collections::{BTreeMap, HashSet};
use std::io;

use chrono::{DateTime, Utc};
use mlxman_manifest::Manifest;
use mlxman_store::{Before, DirHandle, Editor, LockFile, StoreSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use carry::{Carried, TrashError, carry_out, put_times_back, trouble};
pub(crate) use journal::{TRASH, abandon, draft_slot_of, is_in_trash, prepare, slot_of};
pub(crate) use steps::{Locks, hint, is_listed, is_shared};

pub use empty::Freed;
pub use journal::{Action, DirTimes, Journal, JournalRow, Purpose, Seen, State, Step, journal_schema};

use carry::{holds_anything, take_all_back};
use journal::{Found, JOURNAL_VERSION, dir_of, draft_name, is_believed};

/// Its lock: only who holds it changes anything in the trash, or in the store.
const LOCK: &std::ffi::CStr = c"lock";

/// A store's trash, which nobody else changes while this lives.
pub struct Trash<'a> {
    editor: Editor<'a>,
    store: String,
    /// The times of the store's root before the trash was made in it.
    root_times: Option<DirTimes>,
    lock: Option<LockFile>,
}

impl std::fmt::Debug for Trash<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trash").field("store", &self.store).finish_non_exhaustive()
    }
}

/// One run of a command: all that it does to however many stores has one name, by which it is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The name: the time, and what tells it from other runs of the same second.
    pub id: String,
    /// The time.
    pub now: DateTime<Utc>,
}

impl Run {
    /// A run at this time; `chance` is a number that no other run has.
    pub fn new(now: DateTime<Utc>, chance: u64) -> Self {
        Run { id: format!("{}-{:04x}", now.format("%Y%m%dT%H%M%SZ"), chance & 0xffff), now }
    }
}

/// What was done about a journal that somebody could not end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Recovered {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The journal.
    pub id: String,
    /// What was done, in words.
    pub done: String,
    /// What could not be put back, and why; it stays in the trash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck: Vec<String>,
}

/// One journal of a trash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct TrashEntry {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The journal's name, for `undo`.
    pub id: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Whether another user wrote it: it is put back only when it is named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// What lies in it.
    pub rows: Vec<JournalRow>,
    /// Things that are kept.
    pub items: u64,
    /// What the filesystem gets back when it is emptied.
    pub reclaimable_bytes: u64,
    /// Why it cannot be read; it is left alone then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What came of an undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Undone {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The journal.
    pub id: String,
    /// The rows that were put back.
    pub rows: Vec<JournalRow>,
    /// Files and links that left the trash.
    #[serde(default)]
    pub items: u64,
    /// What could not be put back, and why.
    pub stuck: Vec<String>,
    /// Whether something of it is still kept, to be put back another time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

/// What `trash list` and `trash empty` print.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman trash")]
#[non_exhaustive]
pub struct TrashListing {
    /// What is kept, oldest first.
    pub entries: Vec<TrashEntry>,
    /// What was freed for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freed: Vec<Freed>,
    /// What the filesystems got back.
    pub freed_bytes: u64,
    /// What they got back besides: the journals themselves, with their directories.
    #[serde(default)]
    pub journal_bytes: u64,
    /// What they get back when the rest is emptied.
    pub reclaimable_bytes: u64,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// What `undo` prints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman undo")]
#[non_exhaustive]
pub struct UndoReport {
    /// What was put back, by store.
    pub undone: Vec<Undone>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// What keeps a trash from being opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody else changes the store just now.
    #[error("another mlxman changes {store} just now; try again when it is done")]
    Busy {
        /// The store.
        store: String,
    },
    /// The system said no.
    #[error(
        "the trash of {store} cannot be used: {source}; is {TRASH} in it a directory that you may write to?"
    )]
    System {
        /// The store.
        store: String,
        /// What it said.
        source: io::Error,
    },
}

/// What makes an undo or an emptying impossible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// There is no such journal.
    #[error("there is nothing called {id} in the trash; `mlxman trash list` shows what there is")]
    Unknown {
        /// What was asked for.
        id: String,
    },
    /// It cannot be read.
    #[error("the journal {id} cannot be read ({why}); its files lie in {TRASH}/{id}/items of {store}")]
    Unreadable {
        /// The journal.
        id: String,
        /// The store.
        store: String,
        /// Why.
        why: String,
    },
    /// Something else that was taken later has what this one's links lead to.
    #[error(
        "{id}: what its links lead to was removed later, as {other}: undo that first (`mlxman undo {other}`)"
    )]
    UndoFirst {
        /// The journal.
        id: String,
        /// The one that has it.
        other: String,
    },
    /// Something needs what it keeps.
    #[error("{id} is not emptied: {by}")]
    Needed {
        /// The journal.
        id: String,
        /// Who, and what to do.
        by: String,
    },
    /// The system said no in the middle; whoever comes next goes on.
    #[error("{id}: {what}: {source}; nothing is lost, try again")]
    System {
        /// The journal.
        id: String,
        /// What was being done.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl<'a> Trash<'a> {
    /// Takes the lock of a store's trash, which is made if it is not there. `waiting` is called when somebody else holds
    /// the lock; without it the lock is not waited for. `before` is asked before every change.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        spec: &StoreSpec,
        root: &'a DirHandle,
        waiting: Option<&dyn Fn()>,
        before: Before<'a>,
    ) -> Result<Self, OpenError> {
        let store = spec.id();
        let system = |source| OpenError::System { store: store.clone(), source };
        let editor = Editor::new(root, before);
        let stat = root.stat().map_err(system)?;
        let mut root_times = None;
        let lock = loop {
            match editor.make_dir(TRASH, editor.shared_with_group()) {
                Ok(()) => {
                    let (atime_ns, mtime_ns) = (stat.atime_ns, stat.mtime_ns);
                    root_times = Some(DirTimes { path: String::new(), atime_ns, mtime_ns });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(system(error)),
            }
            let dir = root.open_dir_below(TRASH).map_err(system)?;
            match dir.lock_file(LOCK, waiting) {
                Ok(Some(lock)) => {
                    if root_times.is_some() && editor.shared_with_group().is_some() {
                        // Where the store is another's, the lock is too, and has its mode already.
                        let _ = editor.set_mode(&format!("{TRASH}/{}", LOCK.to_string_lossy()), 0o666);
                    }
                    break lock;
                }
                Ok(None) => return Err(OpenError::Busy { store }),
                // Whoever ended just now took the empty trash with him.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(system(error)),
            }
        };
        Ok(Trash { editor, store, root_times, lock: Some(lock) })
    }

    /// As [`Trash::open`], but only where there is a trash; it is never waited for.
    ///
    /// # Errors
    /// As [`Trash::open`].
    pub fn open_existing(
        spec: &StoreSpec,
        root: &'a DirHandle,
        before: Before<'a>,
    ) -> Result<Option<Self>, OpenError> {
        match root.stat_below(TRASH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Trash::open(spec, root, None, before).map(Some),
        }
    }

    pub(crate) fn editor(&self) -> &Editor<'a> {
        &self.editor
    }

    /// What is about to be done here, to be written down.
    pub(crate) fn journal(
        &self,
        run: &Run,
        purpose: Purpose,
        (rows, steps): (Vec<JournalRow>, Vec<Step>),
    ) -> io::Result<Journal> {
        Ok(Journal {
            schema_version: JOURNAL_VERSION,
            id: run.id.clone(),
            created_at: run.now,
            generator: Manifest::generator(),
            store: self.store.clone(),
            inode: self.editor.root().stat()?.ino,
            purpose,
            rows,
            dirs: self.dirs_of(&steps),
            steps,
            foreign: false,
        })
    }

    /// The times of every directory that the steps change, before they do. The trash was made in the root a moment ago:
    /// its times are those from before.
    fn dirs_of(&self, steps: &[Step]) -> Vec<DirTimes> {
        let of_steps = Journal::times_of(&self.editor, steps).into_iter();
        let own = self.root_times.as_ref();
        own.cloned().into_iter().chain(of_steps.filter(|dir| !dir.path.is_empty() || own.is_none())).collect()
    }

    /// The journals, oldest first.
    fn ids(&self) -> io::Result<Vec<String>> {
        ids(self.editor.root())
    }

    /// Ends what somebody began and could not end: steps that were being done are taken back, and what was being taken
    /// back or removed is so to the end.
    ///
    /// # Errors
    /// When the trash cannot be read or written; nothing is lost.
    pub fn recover(&self) -> Result<Vec<Recovered>, JournalError> {
        let listing =
            |source| JournalError::System { id: TRASH.to_owned(), what: "it cannot be read", source };
        let mut recovered = Vec::new();
        for id in self.ids().map_err(listing)? {
            // One that cannot be ended keeps none of the others from it.
            match self.recover_one(&id) {
                Ok(one) => recovered.extend(one),
                Err(error) => recovered.push(Recovered {
                    store: self.store.clone(),
                    id,
                    done: "it could not be ended".to_owned(),
                    stuck: vec![error.to_string()],
                }),
            }
        }
        Ok(recovered)
    }

    fn recover_one(&self, id: &str) -> Result<Option<Recovered>, JournalError> {
        let system = |what| {
            let id = id.to_owned();
            move |source| JournalError::System { id, what, source }
        };
        let lies = draft_name(id).map_or_else(|| dir_of(id), |_| format!("{TRASH}/{id}"));
        // Whoever else may write to the store could have written it: what it says is done for nobody but its owner.
        let owner = self.editor.attributes(&lies).map_err(system("it cannot be asked whose it is"))?.uid;
        if !is_believed(self.editor.root(), owner) {
            return Ok(None);
        }
        if let Some(draft) = draft_name(id) {
            // It was not yet a journal: nothing was done, and nothing of anybody's lies there.
            abandon(&self.editor, draft).map_err(system("a draft cannot be removed"))?;
            return Ok(None);
        }
        let (state, journal) = match Journal::find(self.editor.root(), id) {
            Found::Journal(state, journal) => (state, journal),
            Found::Nothing => {
                if !holds_anything(&self.editor, id).unwrap_or(true) {
                    // It had ended but for its empty directory.
                    let _ = self.editor.remove_dir(&journal::items_of(id));
                    let _ = self.editor.remove_dir(&dir_of(id));
                }
                return Ok(None);
            }
            Found::Unreadable(_) => return Ok(None),
        };
        let (done, stuck) = match state {
            State::Kept | State::Shared => return Ok(None),
            State::Copying => {
                copies::give_up(&self.editor, &journal)?;
                ("removed a copy that was begun; `mlxman undo` makes the rest".to_owned(), Vec::new())
            }
            State::Emptying => {
                let freed = empty::finish(&self.editor, &journal)?;
                (format!("went on to empty it: {} bytes", freed.freed_bytes), Vec::new())
            }
            State::Moving => ("took back what was begun".to_owned(), self.back(&journal, state)?),
            State::Undoing => ("went on to undo it".to_owned(), self.back(&journal, state)?),
        };
        Ok(Some(Recovered { store: self.store.clone(), id: journal.id.clone(), done, stuck }))
    }

    fn back(&self, journal: &Journal, state: State) -> Result<Vec<String>, JournalError> {
        let id = &journal.id;
        let system = |what| move |source| JournalError::System { id: id.clone(), what, source };
        let stuck: Vec<String> =
            take_all_back(&self.editor, journal).iter().map(ToString::to_string).collect();
        // What could not be taken back is kept to be tried again, also where nothing lies in the trash for it: a line in
        // the list of who uses a shared blob.
        if !stuck.is_empty() || holds_anything(&self.editor, id).map_err(system("it cannot be read"))? {
            journal
                .becomes(&self.editor, state, State::Kept)
                .map_err(system("its state cannot be written"))?;
        } else {
            journal.end_all(&self.editor, state).map_err(system("it cannot be removed"))?;
        }
        Ok(stuck)
    }

    /// Puts back what a journal took: files, links, directories, their times and permissions. Files that share what they
    /// are made of, where nothing else is kept, get copies of their own.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn undo(&self, id: &str) -> Result<Undone, JournalError> {
        let (state, journal) = self.kept(id)?;
        if let Some(other) = self.holder(&journal) {
            return Err(JournalError::UndoFirst { id: id.to_owned(), other });
        }
        let root = self.editor.root();
        let before = rows_of(root, state, &journal);
        let slots = slots_of(root, id).len();
        let stuck = if state == State::Shared {
            copies::make(&self.editor, &journal)?
        } else {
            journal.becomes(&self.editor, State::Kept, State::Undoing).map_err(|source| {
                JournalError::System { id: id.to_owned(), what: "its state cannot be written", source }
            })?;
            self.back(&journal, State::Undoing)?
        };
        let after = match Journal::find(root, id) {
            Found::Journal(state, journal) => Some(rows_of(root, state, &journal)),
            _ => None,
        };
        let kept = after.is_some();
        let after = after.unwrap_or_default();
        let rows =
            before.into_iter().filter(|(row, _)| !after.contains_key(row)).map(|(_, row)| row).collect();
        let items = slots.saturating_sub(slots_of(root, id).len()) as u64;
        Ok(Undone { store: self.store.clone(), id: id.to_owned(), rows, items, stuck, kept })
    }

    /// Removes what a journal keeps, for good; one that says of files that they share what they are made of, and keeps
    /// nothing, is forgotten.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn empty(&self, id: &str) -> Result<Freed, JournalError> {
        if mlxman_store::is_safe_component(id)
            && matches!(Journal::find(self.editor.root(), id), Found::Unreadable(_))
        {
            // Nothing can be put back by it, as in a store that was copied; what it keeps can still be freed.
            return empty::unreadable(&self.editor, id);
        }
        let (state, journal) = self.kept(id)?;
        if state == State::Shared {
            journal.end_all(&self.editor, State::Shared).map_err(|source| JournalError::System {
                id: id.to_owned(),
                what: "it cannot be removed",
                source,
            })?;
            return Ok(Freed { id: id.to_owned(), ..Freed::default() });
        }
        if let Some(by) = self.needed(&journal) {
            return Err(JournalError::Needed { id: id.to_owned(), by });
        }
        journal.becomes(&self.editor, State::Kept, State::Emptying).map_err(|source| {
            JournalError::System { id: id.to_owned(), what: "its state cannot be written", source }
        })?;
        empty::finish(&self.editor, &journal)
    }

    /// The journal of this name, of which nothing is being done.
    fn kept(&self, id: &str) -> Result<(State, Box<Journal>), JournalError> {
        let unknown = || JournalError::Unknown { id: id.to_owned() };
        if !mlxman_store::is_safe_component(id) {
            return Err(unknown());
        }
        match Journal::find(self.editor.root(), id) {
            Found::Journal(state @ (State::Kept | State::Shared), journal) => Ok((state, journal)),
            Found::Journal(..) => {
                let why = "it was not ended".to_owned();
                Err(JournalError::Unreadable { id: id.to_owned(), store: self.store.clone(), why })
            }
            Found::Unreadable(why) => {
                Err(JournalError::Unreadable { id: id.to_owned(), store: self.store.clone(), why })
            }
            Found::Nothing => Err(unknown()),
        }
    }

    /// What a journal keeps.
    pub(crate) fn weigh(&self, id: &str) -> Freed {
        empty::weigh(self.editor.root(), id)
    }

    /// Whether a journal keeps things that can be freed.
    pub fn keeps(&self, id: &str) -> bool {
        mlxman_store::is_safe_component(id)
            && matches!(Journal::find(self.editor.root(), id), Found::Journal(State::Kept, _))
    }

    /// Whether there is a journal of this name.
    pub(crate) fn has(&self, id: &str) -> bool {
        matches!(Journal::find(self.editor.root(), id), Found::Journal(..))
    }
}

impl Drop for Trash<'_> {
    /// An empty trash goes, with its lock, which is still held.
    fn drop(&mut self) {
        let Ok(dir) = self.editor.root().open_dir_below(TRASH) else { return };
        let mut others = 0;
        let counted = dir.for_each(|entry| others += usize::from(entry.raw_name.as_c_str() != LOCK));
        if counted.is_ok() && others == 0 {
            let root = self.editor.root().stat().ok();
            let lock = format!("{TRASH}/{}", LOCK.to_string_lossy());
            let gone = self.editor.remove(&lock).and_then(|()| self.editor.remove_dir(TRASH)).is_ok();
            // That a trash came and went is no change of the store.
            let times = self.root_times.as_ref().map(|times| (times.atime_ns, times.mtime_ns));
            let times = times.or(root.map(|stat| (stat.atime_ns, stat.mtime_ns)));
            if let (true, Some((accessed, modified))) = (gone, times) {
                let _ = self.editor.set_times("", accessed, modified);
            }
        }
        drop(self.lock.take());
    }
}

fn ids(root: &DirHandle) -> io::Result<Vec<String>> {
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
fn rows_of(root: &DirHandle, state: State, journal: &Journal) -> BTreeMap<usize, JournalRow> {
    match state {
        State::Shared | State::Copying => copies::shared_rows(root, journal),
        _ => kept_rows(root, journal),
    }
}

/// The numbers of the slots in which a journal keeps something.
fn slots_of(root: &DirHandle, id: &str) -> HashSet<usize> {
    let mut slots = HashSet::new();
    if let Ok(dir) = root.open_dir_below(&journal::items_of(id)) {
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
