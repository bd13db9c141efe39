//! Removing for good what the trash keeps.

use std::collections::HashMap;
use std::io;

use mlxman_store::{DirHandle, Editor, EntryKind, Stat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::JournalError;
use super::journal::{Journal, Purpose, State, TRASH, dir_of, file_of, items_of, users_draft};

/// What was removed for good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Freed {
    /// The journal.
    pub id: String,
    /// Files and links.
    pub items: u64,
    /// Allocated bytes of those that had no other name: what the filesystem gets back.
    pub freed_bytes: u64,
    /// What the journal itself took, with its directories: the filesystem gets that back besides.
    #[serde(default)]
    pub journal_bytes: u64,
}

/// Counts files that have no name beside those that go.
#[derive(Default)]
struct Weighed {
    items: u64,
    bytes: u64,
    /// Names seen of files with several.
    names: HashMap<(u64, u64), u64>,
}

impl Weighed {
    fn add(&mut self, stat: &Stat) {
        self.items += 1;
        let names = self.names.entry((stat.dev, stat.ino)).or_default();
        *names += 1;
        if *names == stat.nlink {
            self.bytes = self.bytes.saturating_add(stat.allocated);
        }
    }
}

/// What a journal keeps.
pub(super) fn weigh(root: &DirHandle, id: &str) -> Freed {
    let mut weighed = Weighed::default();
    if let Ok(dir) = root.open_dir_below(&items_of(id)) {
        let _ = dir.for_each(|entry| weighed.add(&entry.stat));
    }
    Freed { id: id.to_owned(), items: weighed.items, freed_bytes: weighed.bytes, journal_bytes: 0 }
}

/// What a journal takes beside its items: its directories and files, and the trash's own if it is the last one there.
fn taken_by_journal(root: &DirHandle, id: &str) -> u64 {
    let mut bytes = 0_u64;
    let mut others = 0;
    if let Ok(dir) = root.open_dir_below(&dir_of(id)) {
        // Its items' directory is among these; what is in that was counted.
        let _ = dir.for_each(|entry| bytes = bytes.saturating_add(entry.stat.allocated));
        bytes = bytes.saturating_add(dir.stat().map_or(0, |stat| stat.allocated));
    }
    if let Ok(trash) = root.open_dir_below(TRASH) {
        let mut own = trash.stat().map_or(0, |stat| stat.allocated);
        let _ = trash.for_each(|entry| match entry.stat.kind {
            EntryKind::File => own = own.saturating_add(entry.stat.allocated),
            _ => others += usize::from(entry.name() != Some(id)),
        });
        bytes = bytes.saturating_add(if others == 0 { own } else { 0 });
    }
    bytes
}

/// Removes the items of a journal that is being emptied, then the journal; of one of equal files it stays, for they can be
/// made copies again.
pub(super) fn finish(editor: &Editor<'_>, journal: &Journal) -> Result<Freed, JournalError> {
    let id = &journal.id;
    let system = |what| move |source| JournalError::System { id: id.clone(), what, source };
    let journal_bytes = taken_by_journal(editor.root(), id);
    let mut freed = Freed { id: id.clone(), journal_bytes, ..Freed::default() };
    remove_items(editor, id, &mut freed)?;
    if journal.purpose == Purpose::Dedupe {
        // What is gone is the old copy of something that is still there: it can be made again.
        journal
            .becomes(editor, State::Emptying, State::Shared)
            .map_err(system("its state cannot be written"))?;
    } else {
        end(editor, journal).map_err(system("it cannot be removed"))?;
    }
    Ok(freed)
}

/// The same of a journal that cannot be read; the caller asked for it by its name.
pub(super) fn unreadable(editor: &Editor<'_>, id: &str) -> Result<Freed, JournalError> {
    let system = |what| move |source| JournalError::System { id: id.to_owned(), what, source };
    let journal_bytes = taken_by_journal(editor.root(), id);
    let mut freed = Freed { id: id.to_owned(), journal_bytes, ..Freed::default() };
    remove_items(editor, id, &mut freed)?;
    let gone = |done: io::Result<()>| match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let files = State::ALL.iter().map(|state| file_of(id, *state)).chain([users_draft(id)]);
    for path in files {
        gone(editor.remove(&path)).map_err(system("it cannot be removed"))?;
    }
    for dir in [items_of(id), dir_of(id)] {
        gone(editor.remove_dir(&dir)).map_err(system("its directory cannot be removed"))?;
    }
    Ok(freed)
}

/// Removes what lies in a journal's slots.
fn remove_items(editor: &Editor<'_>, id: &str, freed: &mut Freed) -> Result<(), JournalError> {
    let system = |what| move |source| JournalError::System { id: id.to_owned(), what, source };
    // Opened anew: some filesystems show in a directory only what was there when it was opened.
    let entries = match editor.root().open_dir_below(&items_of(id)) {
        Ok(dir) => dir.list().map_err(system("its items cannot be read"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(system("its items cannot be read")(error)),
    };
    for entry in entries {
        // Slots have numbers; what else lies there is not ours.
        let Some(slot) = entry.name().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        let path = format!("{}/{slot}", items_of(id));
        // Asked again: of two names of one file the first was removed a moment ago.
        let stat = editor.stat(&path).map_err(system("an item cannot be read"))?;
        if stat.kind == EntryKind::Dir {
            continue;
        }
        editor.remove(&path).map_err(system("an item cannot be removed"))?;
        freed.items += 1;
        if stat.nlink <= 1 {
            freed.freed_bytes = freed.freed_bytes.saturating_add(stat.allocated);
        }
    }
    Ok(())
}

/// Ends a journal whose items are gone. What somebody else put among them stays, with its directory.
fn end(editor: &Editor<'_>, journal: &Journal) -> io::Result<()> {
    let items = items_of(&journal.id);
    let names = match editor.root().open_dir_below(&items) {
        Ok(dir) => dir.list()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    for name in names.iter().filter_map(|entry| entry.name()) {
        // What a file manager leaves in any directory that it shows.
        if name == ".DS_Store" || name.starts_with("._") {
            editor.remove(&format!("{items}/{name}"))?;
        }
    }
    match journal.end_all(editor, State::Emptying) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) =>
        {
            journal.forget(editor, State::Emptying)
        }
        other => other,
    }
}
