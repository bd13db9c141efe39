//! Giving files that share what they are made of copies of their own again, once their old ones are gone.
//!
//! Each file is done by itself: a copy is made in the trash, made to last, and exchanged with the file in one step. At
//! every moment a whole file is in its place, so whoever was killed leaves nothing but a copy that nobody needs.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;

use mlxman_store::{DirHandle, Editor, OpenFiles, Stat, same_attributes, same_content};

use super::JournalError;
use super::journal::{Action, Journal, JournalRow, Seen, State, items_of, slot_of};
use super::steps::hint;

/// A file that shares what it is made of.
struct Shared<'a> {
    path: &'a str,
    slot: usize,
    /// What it is now.
    now: &'a Seen,
    /// What it was before.
    old: &'a Seen,
    /// Whether it kept its inode, and so all its names.
    same_inode: bool,
}

fn shared(action: &Action) -> Option<Shared<'_>> {
    match action {
        Action::Exchange { path, slot, old, new, .. } => {
            Some(Shared { path, slot: *slot, now: new, old, same_inode: false })
        }
        Action::Share { path, slot, seen } => {
            Some(Shared { path, slot: *slot, now: seen, old: seen, same_inode: true })
        }
        _ => None,
    }
}

/// Why a file did not get its copy.
enum Trouble {
    /// Nothing can be done about it.
    Told(String),
    /// It may go well another time.
    System(String),
}

/// Makes the copies; gives what could not be, and why.
pub(super) fn make(editor: &Editor<'_>, journal: &Journal) -> Result<Vec<String>, JournalError> {
    // Whoever has such a file open would go on writing to the one that is dropped.
    let open = OpenFiles::now();
    becomes(editor, journal, State::Shared, State::Copying)?;
    let mut stuck = Vec::new();
    let mut again = false;
    let mut names: HashMap<(u64, u64), Vec<&str>> = HashMap::new();
    for shared in journal.steps.iter().filter_map(|step| shared(&step.action)) {
        names.entry((shared.old.device, shared.old.inode)).or_default().push(shared.path);
    }
    for shared in journal.steps.iter().filter_map(|step| shared(&step.action)) {
        let names = &names[&(shared.old.device, shared.old.inode)];
        let stat = editor.stat(shared.path);
        if shared.same_inode && stat.is_ok_and(|stat| stat.nlink > names.len() as u64) {
            stuck.push(format!(
                "{} has further names that would not go with it; it stays as it is",
                shared.path
            ));
            continue;
        }
        if open.has(shared.now.device, shared.now.inode) {
            stuck.push(format!(
                "a running program has {} open; it stays as it is until that ends",
                shared.path
            ));
            again = true;
            continue;
        }
        match own_copy(editor, &journal.id, &shared, names) {
            Ok(()) => {}
            Err(Trouble::Told(why)) => stuck.push(why),
            Err(Trouble::System(why)) => {
                stuck.push(why);
                again = true;
            }
        }
        again |= !drop_slot(editor, &journal.id, &shared).map_err(system(journal))?;
    }
    if again {
        becomes(editor, journal, State::Copying, State::Shared)?;
    } else {
        journal.end_all(editor, State::Copying).map_err(system(journal))?;
    }
    Ok(stuck)
}

/// Removes what somebody left who was killed while he made copies.
pub(super) fn give_up(editor: &Editor<'_>, journal: &Journal) -> Result<(), JournalError> {
    for shared in journal.steps.iter().filter_map(|step| shared(&step.action)) {
        // Before the exchange it is a copy; after it, a further name of what others are still made of.
        drop_slot(editor, &journal.id, &shared).map_err(system(journal))?;
    }
    becomes(editor, journal, State::Copying, State::Shared)
}

/// The rows of which a file still is what it was made.
pub(super) fn shared_rows(root: &DirHandle, journal: &Journal) -> BTreeMap<usize, JournalRow> {
    let editor = Editor::new(root, &|_| Ok(()));
    let is_shared = |row: usize| {
        let mut steps = journal.steps.iter().filter(|step| step.rows.contains(&row));
        steps.any(|step| {
            let same = |one: Shared<'_>| matches!(one.now.difference(&editor, one.path), Ok(None));
            shared(&step.action).is_some_and(same)
        })
    };
    let rows = journal.rows.iter().enumerate().filter(|(row, _)| is_shared(*row));
    rows.map(|(row, told)| (row, told.clone())).collect()
}

/// Puts a copy in a file's place, if it shares anything. `names` were those of one file, and are again.
fn own_copy(editor: &Editor<'_>, id: &str, shared: &Shared<'_>, names: &[&str]) -> Result<(), Trouble> {
    let path = shared.path;
    let slot = slot_of(id, shared.slot);
    let system = |error: io::Error| Trouble::System(format!("{path}: {error}{}", hint(&error)));
    match shared.now.difference(editor, path) {
        Ok(None) => {}
        // Another file, or none: it shares nothing any more.
        Ok(Some(_)) if !is_inode(editor, shared) => return Ok(()),
        Ok(Some(what)) => {
            return Err(Trouble::Told(format!(
                "{path} {what} since it was made one with others; it stays as it is"
            )));
        }
        // It may be in the trash, by a later removal.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Trouble::System(format!(
                "{path} is gone: if it was removed, put that back first; `mlxman trash empty {id}` forgets this"
            )));
        }
        Err(error) => return Err(system(error)),
    }
    let now = editor.root().open_below(path).map_err(system)?;
    match names.iter().find(|name| is_copy(editor, shared, &now, name)) {
        Some(first) => editor.link(editor.root(), first, &slot).map_err(system)?,
        None => {
            editor.copy_file(&now, &slot, &|_| true).map_err(system)?;
            editor.dress(&slot, &now).map_err(system)?;
            let stat = editor.stat(&slot).map_err(system)?;
            editor.set_times(&slot, stat.atime_ns, shared.old.mtime_ns).map_err(system)?;
            let copy = editor.root().open_below(&slot).map_err(system)?;
            if !same_content(&now, &copy, &|_| true).map_err(system)? {
                return Err(Trouble::System(format!("{path} was written to just now; it stays as it is")));
            }
        }
    }
    editor.sync_dir(&items_of(id)).map_err(system)?;
    // Whoever wrote to it meanwhile did so in the file that is going to be dropped.
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let times = if parent.is_empty() { editor.root().stat() } else { editor.stat(parent) }.map_err(system)?;
    editor.exchange(path, &slot).map_err(system)?;
    if !matches!(shared.now.difference(editor, &slot), Ok(None)) {
        editor.exchange(path, &slot).map_err(system)?;
        return Err(Trouble::System(format!("{path} was written to just now; it stays as it is")));
    }
    // That its directory was changed is nothing that anybody should see; where it cannot be hidden, it is.
    let _ = editor.set_times(parent, times.atime_ns, times.mtime_ns);
    editor.sync_dir(parent).map_err(system)?;
    Ok(())
}

/// Whether another name of what was one file has its copy already.
fn is_copy(editor: &Editor<'_>, shared: &Shared<'_>, now: &File, name: &str) -> bool {
    let Ok(copy) = editor.root().open_below(name) else { return false };
    let is_another = Stat::of_file(&copy).is_ok_and(|stat| {
        stat.dev == shared.now.device
            && stat.ino != shared.now.inode
            && (stat.size, stat.mtime_ns) == (shared.old.size, shared.old.mtime_ns)
    });
    is_another
        && same_attributes(now, &copy).unwrap_or(false)
        && same_content(now, &copy, &|_| true).unwrap_or(false)
}

fn is_inode(editor: &Editor<'_>, shared: &Shared<'_>) -> bool {
    editor.stat(shared.path).is_ok_and(|stat| (stat.dev, stat.ino) == (shared.now.device, shared.now.inode))
}

/// Removes what lies in a file's slot: a copy, or what the copy was exchanged for. If that was written to meanwhile, it
/// stays; gives whether nothing is there now.
fn drop_slot(editor: &Editor<'_>, id: &str, shared: &Shared<'_>) -> io::Result<bool> {
    let slot = slot_of(id, shared.slot);
    let stat = match editor.stat(&slot) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let is_copy = (stat.dev, stat.ino) != (shared.now.device, shared.now.inode);
    if is_copy || shared.now.difference(editor, &slot)?.is_none() {
        editor.remove(&slot)?;
        return Ok(true);
    }
    Ok(false)
}

fn becomes(editor: &Editor<'_>, journal: &Journal, from: State, to: State) -> Result<(), JournalError> {
    journal.becomes(editor, from, to).map_err(system(journal))
}

fn system(journal: &Journal) -> impl Fn(io::Error) -> JournalError {
    let id = journal.id.clone();
    move |source| JournalError::System { id: id.clone(), what: "copies cannot be made", source }
}
