//! Making one copy of equal files.
//!
//! Where the kernel can compare two files and let one have the other's blocks (FIDEDUPERANGE), it does: inode, names,
//! permissions, owner, times and whoever has the file open stay as they are, no name is without its content for a moment,
//! and nobody can write between the comparison and the change. Elsewhere a clone, or a hard link where that was asked for,
//! is made in the trash, compared byte by byte, and exchanged with the file in one step, by the journal of the trash.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use mlxman_store::{DirHandle, Editor, GoOn, OpenFiles, Sharing, Stat, same_attributes, same_content};

use super::{DuplicateCopy, DuplicateGroup, Duplicates, EqualFile, How, NAMED_ELSEWHERE, NAMED_IN_SEVERAL};
use crate::apply::{AppliedStore, ApplyError, Skipped};
use crate::trash::{
    Action, Journal, JournalRow, Locks, Purpose, Run, Seen, Step, Trash, TrashError, abandon, carry_out,
    draft_slot_of, hint, prepare, put_times_back, trouble,
};

/// What is to be made one, and with what help.
pub struct Applying<'a> {
    /// The equal files.
    pub found: &'a Duplicates,
    /// The open root of a store, by `KIND=PATH`.
    pub roots: &'a HashMap<String, DirHandle>,
    /// Whether a file is to become another name of its equal; else they share their blocks.
    pub hard_link: bool,
    /// Is told of bytes that were compared, and says whether to go on.
    pub go_on: GoOn<'a>,
    /// The run that it is done in.
    pub run: &'a Run,
}

/// What the filesystem of a store turned out to do.
struct Abilities {
    share: bool,
    clone: bool,
}

/// How a copy was made one with the one that stays.
enum Made {
    /// They share their blocks now.
    Shared(Vec<Action>),
    /// Something lies in the draft, to be exchanged with it.
    Ready(How, Vec<Action>),
}

/// Why a copy stays.
enum Stays {
    Because(String),
    Stopped,
}

impl Stays {
    fn because(reason: impl Into<String>) -> Self {
        Stays::Because(reason.into())
    }
}

struct Store<'a, 'b> {
    trash: &'a Trash<'b>,
    store: &'a str,
    applying: &'a Applying<'a>,
    id: String,
    open: OpenFiles,
    abilities: Abilities,
    has_draft: bool,
    slots: usize,
}

/// Makes one copy of what lies in the store that `trash` is of; each file is first looked at once more.
///
/// # Errors
/// See [`ApplyError`]. What could not be done of single files is in the result.
pub fn apply_dedupe(
    trash: &Trash<'_>,
    store: &str,
    applying: &Applying<'_>,
) -> Result<AppliedStore, ApplyError> {
    let refuse = |error: TrashError| ApplyError::Trash { store: store.to_owned(), why: error.to_string() };
    let mut applied = AppliedStore::of(store.to_owned());
    let id = applying.run.id.clone();
    let mut at = Store {
        trash,
        store,
        applying,
        id,
        open: OpenFiles::now(),
        abilities: Abilities { share: !applying.hard_link, clone: !applying.hard_link },
        has_draft: false,
        slots: 0,
    };
    let editor = trash.editor();
    let mut shared: Vec<(JournalRow, Vec<Action>)> = Vec::new();
    let mut ready: Vec<(JournalRow, Vec<Action>)> = Vec::new();
    let mut stopped = false;
    for group in &applying.found.groups {
        for copy in group.copies.iter().filter(|copy| copy.file.store == store) {
            let made = if stopped { Err(Stays::Stopped) } else { at.make(group, copy, !shared.is_empty()) };
            match made {
                Ok(Made::Shared(actions)) => shared.push((row_of(group, copy, How::Reflink), actions)),
                Ok(Made::Ready(how, actions)) => ready.push((row_of(group, copy, how), actions)),
                Err(Stays::Because(reason)) => {
                    applied.skipped.push(Skipped { what: copy.file.what.clone(), reason });
                }
                Err(Stays::Stopped) => {
                    stopped = true;
                    let reason = "it was stopped before it came to this one".to_owned();
                    applied.skipped.push(Skipped { what: copy.file.what.clone(), reason });
                }
            }
        }
    }
    if at.has_draft && ready.is_empty() {
        abandon(editor, &at.id).map_err(|error| refuse(trouble("a draft cannot be removed")(error)))?;
        at.has_draft = false;
    }
    if !ready.is_empty() {
        at.carry_out(ready, &mut applied).map_err(refuse)?;
    }
    if !shared.is_empty() {
        at.record(shared, &mut applied);
    }
    Ok(applied)
}

fn row_of(group: &DuplicateGroup, copy: &DuplicateCopy, how: How) -> JournalRow {
    JournalRow {
        what: copy.file.what.clone(),
        key: None,
        reason: format!("equal to {} ({})", group.keeps.what, how.word()),
        reclaimable_bytes: copy.saves_bytes,
    }
}

impl Store<'_, '_> {
    fn editor(&self) -> &Editor<'_> {
        self.trash.editor()
    }

    fn make(&mut self, group: &DuplicateGroup, copy: &DuplicateCopy, shares: bool) -> Result<Made, Stays> {
        let root = self
            .applying
            .roots
            .get(&group.keeps.store)
            .ok_or_else(|| Stays::because("the store of its equal is not there"))?;
        let (kept, kept_stat) = self.open(root, &group.keeps, group.size_bytes, false)?;
        let (file, stat) = self.open(self.editor().root(), &copy.file, group.size_bytes, true)?;
        if self.abilities.share {
            match self.share(&kept, &file, copy)? {
                Some(actions) => return Ok(Made::Shared(actions)),
                None if shares => {
                    return Err(Stays::because("it cannot share its blocks, as others here can"));
                }
                None => self.abilities.share = false,
            }
        }
        if copy.file.also.iter().any(|(store, _)| store != self.store) {
            return Err(Stays::because(NAMED_IN_SEVERAL));
        }
        if stat.nlink > 1 + copy.file.also.len() as u64 {
            return Err(Stays::because(NAMED_ELSEWHERE));
        }
        if !self.has_draft {
            prepare(self.editor(), &self.id).map_err(|error| system(&copy.file.path, &error))?;
            self.has_draft = true;
        }
        let slot = self.slots;
        let done = self.fill(root, group, copy, (&kept, &kept_stat), (&file, &stat));
        if done.is_err() {
            // What was begun for it is nothing that anybody needs.
            for slot in slot..self.slots.max(slot + 1) {
                let _ = self.editor().remove(&draft_slot_of(&self.id, slot));
            }
            self.slots = slot;
        }
        done
    }

    /// Opens a file that was found, and makes sure that it is still what was found and that nobody has it open.
    fn open(
        &self,
        root: &DirHandle,
        file: &EqualFile,
        size: u64,
        is_copy: bool,
    ) -> Result<(File, Stat), Stays> {
        let opened = root.open_below(&file.path).map_err(|error| system(&file.path, &error))?;
        let stat = Stat::of_file(&opened).map_err(|error| system(&file.path, &error))?;
        let is_same =
            (stat.dev, stat.ino, stat.size, stat.mtime_ns) == (file.device, file.inode, size, file.mtime_ns);
        // A new name of the one that stays changes its inode; nothing may have changed the other.
        if !is_same || is_copy && stat.ctime_ns != file.ctime_ns {
            return Err(Stays::because(format!("{} was changed meanwhile", file.what)));
        }
        if self.open.has(stat.dev, stat.ino) {
            return Err(Stays::because(format!("a running program has {} open", file.what)));
        }
        Ok((opened, stat))
    }

    /// Lets the kernel compare and share; `None` where it cannot.
    fn share(&self, kept: &File, file: &File, copy: &DuplicateCopy) -> Result<Option<Vec<Action>>, Stays> {
        let path = &copy.file.path;
        let _locks = Locks::of(self.editor(), path).map_err(|failed| Stays::because(failed.to_string()))?;
        match self.editor().share_blocks(kept, file, self.applying.go_on) {
            Ok(Sharing::Done) => {}
            Ok(Sharing::Differs) => return Err(Stays::because("it is not equal any more")),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(Stays::Stopped),
            Err(error) if is_of_these_two(&error) => return Err(Stays::because(THESE_TWO)),
            Err(error) => return Err(system(path, &error)),
        }
        let stat = Stat::of_file(file).map_err(|error| system(path, &error))?;
        let own = copy.file.also.iter().filter(|(store, _)| store == self.store).map(|(_, path)| path);
        let share = |path: &String| Action::Share { path: path.clone(), slot: 0, seen: Seen::file(&stat) };
        Ok(Some(std::iter::once(path).chain(own).map(share).collect()))
    }

    /// Puts what is to take a file's place into the draft, for each of its names.
    fn fill(
        &mut self,
        root: &DirHandle,
        group: &DuplicateGroup,
        copy: &DuplicateCopy,
        (kept, kept_stat): (&File, &Stat),
        (file, stat): (&File, &Stat),
    ) -> Result<Made, Stays> {
        let path = &copy.file.path;
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::Interrupted => Stays::Stopped,
            _ => system(path, &error),
        };
        let first = draft_slot_of(&self.id, self.slots);
        let mut how = None;
        if self.abilities.clone {
            match self.editor().clone_file(kept, &first) {
                Ok(()) => {
                    self.editor().dress(&first, file).map_err(failed)?;
                    how = Some(How::Reflink);
                }
                Err(error) if error.kind() == io::ErrorKind::Unsupported => self.abilities.clone = false,
                Err(error) if is_of_these_two(&error) => return Err(Stays::because(THESE_TWO)),
                Err(error) => return Err(failed(error)),
            }
        }
        let how = match how {
            Some(how) => how,
            None if self.applying.hard_link => {
                if !same_attributes(kept, file).map_err(failed)? {
                    let reason = "its permissions, owner or extended attributes are not those of its equal";
                    return Err(Stays::because(reason));
                }
                let refused = |error: io::Error| system(&group.keeps.path, &error);
                self.editor().link(root, &group.keeps.path, &first).map_err(refused)?;
                How::HardLink
            }
            None => {
                return Err(Stays::because(
                    "the filesystem does not let files share blocks; --hardlink makes them one file with several names",
                ));
            }
        };
        let made = self.editor().root().open_below(&first).map_err(failed)?;
        let new = Stat::of_file(&made).map_err(failed)?;
        if how == How::HardLink && !new.same_file(kept_stat) {
            return Err(Stays::because(format!("{} was changed meanwhile", group.keeps.what)));
        }
        if !same_content(&made, file, self.applying.go_on).map_err(failed)? {
            return Err(Stays::because("it is not equal any more"));
        }
        let unchanged = |file: &File, then: &Stat| {
            Stat::of_file(file).is_ok_and(|now| {
                now.same_file(then) && (now.size, now.mtime_ns) == (then.size, then.mtime_ns)
            })
        };
        if !unchanged(file, stat) || !unchanged(&made, &new) {
            return Err(Stays::because("it was changed while it was compared"));
        }
        let same_as = if group.keeps.store == self.store { &group.keeps.path } else { path };
        let mut actions = Vec::new();
        let names = std::iter::once(path).chain(copy.file.also.iter().map(|(_, path)| path));
        for (number, path) in names.enumerate() {
            let slot = self.slots;
            self.slots += 1;
            if number > 0 {
                // What was one file with several names stays one.
                let to = draft_slot_of(&self.id, slot);
                self.editor().link(self.editor().root(), &first, &to).map_err(failed)?;
            }
            actions.push(Action::Exchange {
                path: path.clone(),
                slot,
                old: Seen::file(stat),
                new: Seen::file(&new),
                same_as: same_as.clone(),
            });
        }
        Ok(Made::Ready(how, actions))
    }

    fn journal(&self, rows: Vec<(JournalRow, Vec<Action>)>) -> Result<Journal, TrashError> {
        let (rows, actions): (Vec<JournalRow>, Vec<Vec<Action>>) = rows.into_iter().unzip();
        let of_row = |(row, actions): (usize, Vec<Action>)| {
            actions.into_iter().map(move |action| Step { rows: vec![row], action })
        };
        let steps: Vec<Step> = actions.into_iter().enumerate().flat_map(of_row).collect();
        let mut journal = self
            .trash
            .journal(self.applying.run, Purpose::Dedupe, (rows, steps))
            .map_err(trouble("the store cannot be read"))?;
        journal.dirs.retain(|dir| !dir.path.is_empty());
        Ok(journal)
    }

    /// Exchanges the files with what lies in the draft.
    fn carry_out(
        &self,
        rows: Vec<(JournalRow, Vec<Action>)>,
        applied: &mut AppliedStore,
    ) -> Result<(), TrashError> {
        let journal = self.journal(rows)?;
        let carried = carry_out(self.editor(), &journal, &|_| None)?;
        // The content of the directories is what it was.
        put_times_back(self.editor(), &journal.dirs);
        applied.take(&journal, carried);
        applied.reclaimable_bytes = self.trash.weigh(&self.id).freed_bytes;
        applied.id = self.trash.has(&self.id).then(|| self.id.clone());
        Ok(())
    }

    /// Writes down which files share their blocks now: nothing else is left of it.
    fn record(&self, rows: Vec<(JournalRow, Vec<Action>)>, applied: &mut AppliedStore) {
        applied.freed_bytes = rows.iter().map(|(row, _)| row.reclaimable_bytes).sum();
        applied.done.extend(rows.iter().map(|(row, _)| row.clone()));
        let written = self.journal(rows).and_then(|mut journal| {
            for (slot, step) in journal.steps.iter_mut().enumerate() {
                if let Action::Share { slot: own, .. } = &mut step.action {
                    *own = slot;
                }
            }
            prepare(self.editor(), &self.id).map_err(trouble("a journal cannot be made"))?;
            journal.record(self.editor()).map_err(trouble("a journal cannot be written"))
        });
        match written {
            Ok(()) => applied.id = Some(self.id.clone()),
            Err(error) => {
                let _ = abandon(self.editor(), &self.id);
                let reason =
                    format!("{error}; the files share their blocks, and `mlxman undo` does not know of it");
                applied.left.push(Skipped { what: self.store.to_owned(), reason });
            }
        }
    }
}

const THESE_TWO: &str = "it and its equal cannot share blocks: they lie on two filesystems, or one of them is not copied on \
                         write (`lsattr` shows a C)";

/// Whether an error says that two files cannot share blocks, which others of their filesystem may.
fn is_of_these_two(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::CrossesDevices)
}

fn system(path: &str, error: &io::Error) -> Stays {
    Stays::because(format!("{path}: {error}{}", hint(error)))
}
