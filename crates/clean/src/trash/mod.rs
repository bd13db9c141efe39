//! The trash of a store: `.mlxman-trash/` below its root, so that whatever is taken stays on its filesystem, and taking it
//! or putting it back is one rename.
//!
//! Whoever changes anything holds the trash's lock, and first ends what somebody else began and could not end
//! ([`Trash::recover`]): a journal says what that was.

mod carry;
mod copies;
mod empty;
mod journal;
mod listing;
mod needed;
mod steps;
mod told;

use std::io;

use chrono::{DateTime, Utc};
use mlxman_manifest::Manifest;
use mlxman_store::{Before, DirHandle, Editor, LockFile, StoreSpec};

pub(crate) use carry::{Carried, TrashError, carry_out, put_times_back, trouble};
pub(crate) use journal::{TRASH, abandon, draft_slot_of, is_in_trash, prepare, slot_of};
pub(crate) use steps::{Locks, hint, is_shared};

pub use empty::Freed;
pub use journal::{Action, DirTimes, Journal, JournalRow, Purpose, Seen, State, Step, journal_schema};
pub use listing::list;
pub use told::{JournalError, OpenError, Recovered, TrashEntry, TrashListing, UndoReport, Undone};

use carry::{holds_anything, take_all_back};
use journal::{Found, JOURNAL_VERSION, dir_of, draft_name, is_believed};
use listing::{ids, rows_of, slots_of};

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
