//! What is about to be done to a store, written down before the first thing is done.
//!
//! A journal lies in `.mlxman-trash/<id>/` below the store's root, under a name that says how far things are; a step
//! is done by one rename, so whether it was done can be seen from what lies where, and needs no word in the journal.
//!
//! | name | meaning | after a kill |
//! | --- | --- | --- |
//! | `journal.moving` | steps are being done | they are taken back |
//! | `journal.kept` | all is done; `undo` takes it back, `trash empty` frees it | |
//! | `journal.undoing` | steps are being taken back | the rest is taken back |
//! | `journal.emptying` | what was kept is being removed for good | the rest is removed |
//! | `journal.shared` | files share what they are made of, and nothing is kept of it; `undo` gives each a copy of its own | |
//! | `journal.copying` | files are being given copies of their own | the copy that was begun is removed; it is `shared` again |

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;

use chrono::{DateTime, Utc};
pub(crate) use mlxman_store::TRASH;
use mlxman_store::{DirAttributes, DirHandle, Editor, Extended};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::plan::{Item, ItemKind};

/// The version of the journal's form.
pub(crate) const JOURNAL_VERSION: u32 = 1;

/// A journal of ten thousand items has three megabytes.
const LIMIT: u64 = 256 << 20;

/// What was done to a store in one go, and how to take it back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman journal")]
#[non_exhaustive]
pub struct Journal {
    /// Version of this form.
    #[schemars(range(min = 1, max = 1))]
    pub schema_version: u32,
    /// Its name: the directory's in the trash.
    pub id: String,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// What wrote it, such as `mlxman 0.1.0`.
    pub generator: String,
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The inode number of its root.
    pub inode: u64,
    /// Why it was done.
    pub purpose: Purpose,
    /// The rows that were done, for people; steps name them by their place, from 0.
    pub rows: Vec<JournalRow>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Times of directories that the steps change: they are put back with the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dirs: Vec<DirTimes>,
    /// Whether it was read, and is another user's: what it says is believed in nothing that would remove a file.
    #[serde(skip)]
    pub(crate) foreign: bool,
}

/// Why things were moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Purpose {
    /// A plan of `clean` was applied.
    Clean,
    /// `doctor --fix` mended something.
    Repair,
    /// `clean dedupe` made one copy of several.
    Dedupe,
}

/// One row of what was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct JournalRow {
    /// The model, or the path of what is none.
    pub what: String,
    /// The model's place in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// What the filesystem was to get back for it alone.
    pub reclaimable_bytes: u64,
}

/// One step, of one row, or of several: then it is done if all of them are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The rows, by their place.
    pub rows: Vec<usize>,
    /// What is done.
    #[serde(flatten)]
    pub action: Action,
}

/// What a step does. Paths are relative to the store's root; a slot is a number in the journal's `items/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// A file or link is moved into the trash.
    Take {
        /// Where it lies.
        path: String,
        /// Where it goes.
        slot: usize,
        /// What it has to be.
        #[serde(flatten)]
        seen: Seen,
    },
    /// Something that was made beforehand is moved from the trash into the store.
    Put {
        /// Where it goes.
        path: String,
        /// Where it lies.
        slot: usize,
        /// What it is.
        #[serde(flatten)]
        seen: Seen,
    },
    /// A file is exchanged with another one that was made beforehand and has the same content.
    Exchange {
        /// The file in the store.
        path: String,
        /// Where the other one lies.
        slot: usize,
        /// The file that was in the store.
        old: Seen,
        /// The file that is there now.
        new: Seen,
        /// A file in the store with the same content: the one that it was exchanged for, or itself where that one is in
        /// another store.
        same_as: String,
    },
    /// A file got the blocks of another one of the same content; its inode is the same as before.
    Share {
        /// The file in the store.
        path: String,
        /// Where a copy is made when it is to have one of its own.
        slot: usize,
        /// What it is.
        #[serde(flatten)]
        seen: Seen,
    },
    /// An empty directory is removed.
    RemoveDir {
        /// Where it lies.
        path: String,
        /// Whether its row cannot be done if something is in it.
        #[serde(default)]
        must: bool,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its extended attributes by name, as hexadecimal digits.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        extended: BTreeMap<String, String>,
    },
    /// A directory is made.
    MakeDir {
        /// Where.
        path: String,
    },
    /// A line is put into the list of who uses a shared blob.
    List {
        /// The shared blob.
        payload: String,
        /// The line: a repo's blob.
        line: String,
    },
    /// A line is taken out of the list of who uses a shared blob.
    Unlist {
        /// The shared blob.
        payload: String,
        /// The line: a repo's blob.
        line: String,
    },
}

/// What something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// A file or a link.
    pub kind: ItemKind,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Apparent bytes.
    pub size: u64,
    /// Time of last modification, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// A link's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
}

impl From<&Item> for Seen {
    fn from(item: &Item) -> Self {
        Seen {
            kind: item.kind,
            device: item.device,
            inode: item.inode,
            size: item.size,
            mtime_ns: item.mtime_ns,
            link_target: item.link_target.clone(),
        }
    }
}

/// The times of a directory before anything was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DirTimes {
    /// The directory; empty for the root.
    pub path: String,
    /// Time of last access, in nanoseconds since 1970.
    pub atime_ns: i64,
    /// Time of last modification.
    pub mtime_ns: i64,
}

/// How far a journal is: the end of its file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Steps are being done.
    Moving,
    /// All is done.
    Kept,
    /// Steps are being taken back.
    Undoing,
    /// What was kept is being removed.
    Emptying,
    /// Nothing is kept; files share what they are made of.
    Shared,
    /// Files are being given copies of their own.
    Copying,
}

impl State {
    pub(super) const ALL: [State; 6] =
        [State::Emptying, State::Undoing, State::Kept, State::Moving, State::Copying, State::Shared];

    fn file(self) -> &'static str {
        match self {
            State::Moving => "journal.moving",
            State::Kept => "journal.kept",
            State::Undoing => "journal.undoing",
            State::Emptying => "journal.emptying",
            State::Shared => "journal.shared",
            State::Copying => "journal.copying",
        }
    }
}

/// What a journal's directory holds.
pub(crate) enum Found {
    /// A journal that can be read.
    Journal(State, Box<Journal>),
    /// Nothing: what was begun came to nothing, or was removed but for the directory.
    Nothing,
    /// Something that cannot be read, and why.
    Unreadable(String),
}

/// Where a journal's things lie.
pub(crate) fn dir_of(id: &str) -> String {
    format!("{TRASH}/{id}")
}

pub(crate) fn items_of(id: &str) -> String {
    format!("{TRASH}/{id}/items")
}

pub(crate) fn slot_of(id: &str, slot: usize) -> String {
    format!("{TRASH}/{id}/items/{slot}")
}

/// Where a list of users is written before it takes the place of the old one.
pub(crate) fn users_draft(id: &str) -> String {
    format!("{TRASH}/{id}/refs.draft")
}

pub(super) fn file_of(id: &str, state: State) -> String {
    format!("{TRASH}/{id}/{}", state.file())
}

/// What the directory of a journal is called until it is written: then it holds nothing of anybody's.
const DRAFT: &str = ".draft";

fn draft_of(id: &str) -> String {
    format!("{TRASH}/{id}{DRAFT}")
}

/// Where a thing that is made beforehand lies until its journal begins; it is in its slot then.
pub(crate) fn draft_slot_of(id: &str, slot: usize) -> String {
    format!("{}/items/{slot}", draft_of(id))
}

/// Makes the directory of a journal to be.
pub(crate) fn prepare(editor: &Editor<'_>, id: &str) -> io::Result<()> {
    editor.make_dir(&draft_of(id), editor.shared_with_group())?;
    editor.make_dir(&format!("{}/items", draft_of(id)), editor.shared_with_group())
}

/// Removes what [`prepare`] made and whatever was put there, where nothing came of it.
pub(crate) fn abandon(editor: &Editor<'_>, id: &str) -> io::Result<()> {
    let draft = draft_of(id);
    for dir in [format!("{draft}/items"), draft] {
        let mut names = Vec::new();
        // Opened anew: some filesystems show in a directory only what was there when it was opened.
        match editor.root().open_dir_below(&dir) {
            Ok(open) => open.for_each(|entry| names.extend(entry.name().map(str::to_owned)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        for name in names {
            editor.remove(&format!("{dir}/{name}"))?;
        }
        editor.remove_dir(&dir)?;
    }
    Ok(())
}

/// The journal that a directory in the trash is a draft of.
pub(crate) fn draft_name(name: &str) -> Option<&str> {
    name.strip_suffix(DRAFT)
}

impl Journal {
    /// Writes it down, so that it lasts, as what is about to be done: in the directory that [`prepare`] made, which
    /// gets its name with that.
    pub(crate) fn begin(&self, editor: &Editor<'_>) -> io::Result<()> {
        self.write(editor, State::Moving)
    }

    /// Writes it down as what was done and left nothing to keep; see [`Journal::begin`].
    pub(crate) fn record(&self, editor: &Editor<'_>) -> io::Result<()> {
        self.write(editor, State::Shared)
    }

    fn write(&self, editor: &Editor<'_>, state: State) -> io::Result<()> {
        // What could not be followed later is not begun.
        if let Some(why) = self.fault(&self.id, self.inode) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        let draft = draft_of(&self.id);
        editor.write_new(&format!("{draft}/{}", state.file()), &bytes, 0o644)?;
        editor.sync_dir(&format!("{draft}/items"))?;
        editor.sync_dir(&draft)?;
        editor.rename(&draft, &dir_of(&self.id))?;
        editor.sync_dir(TRASH)?;
        editor.sync_dir("")
    }

    /// Says how far it is now.
    pub(crate) fn becomes(&self, editor: &Editor<'_>, from: State, to: State) -> io::Result<()> {
        editor.rename(&file_of(&self.id, from), &file_of(&self.id, to))?;
        editor.sync_dir(&dir_of(&self.id))
    }

    /// Removes it and its directory: the last thing that is done.
    pub(crate) fn end(&self, editor: &Editor<'_>, state: State) -> io::Result<()> {
        self.forget(editor, state)?;
        editor.remove_dir(&dir_of(&self.id))
    }

    /// Removes it, and leaves its directory.
    pub(crate) fn forget(&self, editor: &Editor<'_>, state: State) -> io::Result<()> {
        match editor.remove(&users_draft(&self.id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        editor.remove(&file_of(&self.id, state))
    }

    /// Reads what lies in a directory of the trash.
    pub(crate) fn find(root: &DirHandle, id: &str) -> Found {
        let dir = match root.open_dir_below(&dir_of(id)) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
            Err(error) => return Found::Unreadable(error.to_string()),
        };
        let Ok(owner) = dir.owner() else { return Found::Unreadable("its owner cannot be asked".to_owned()) };
        let mut planted = None;
        for state in State::ALL {
            let name = state.file();
            let file = match dir.open_below(name) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Found::Unreadable(format!("{name}: {error}")),
            };
            // In a store of a group others may write into the directory: what they put there is not its owner's word.
            match file.metadata() {
                Ok(meta) if meta.uid() == owner => {}
                Ok(meta) => {
                    planted = Some(format!(
                        "{name} was written by user {}, in a directory of user {owner}; it is not believed",
                        meta.uid()
                    ));
                    continue;
                }
                Err(error) => return Found::Unreadable(format!("{name}: {error}")),
            }
            let mut bytes = Vec::new();
            if let Err(error) = file.take(LIMIT).read_to_end(&mut bytes) {
                return Found::Unreadable(format!("{name}: {error}"));
            }
            let inode = root.stat().map_or(0, |stat| stat.ino);
            return match serde_json::from_slice::<Journal>(&bytes) {
                Ok(mut journal) => match journal.fault(id, inode) {
                    None => {
                        journal.foreign = !is_believed(root, owner);
                        Found::Journal(state, Box::new(journal))
                    }
                    Some(why) => Found::Unreadable(format!("{name}: {why}")),
                },
                Err(error) => Found::Unreadable(format!("{name}: {error}")),
            };
        }
        planted.map_or(Found::Nothing, Found::Unreadable)
    }

    /// Why it cannot be followed. It lies in a store that others may write to.
    fn fault(&self, id: &str, inode: u64) -> Option<String> {
        if self.schema_version != JOURNAL_VERSION {
            let version = self.schema_version;
            return Some(format!("it has the form {version}, and this mlxman knows {JOURNAL_VERSION}"));
        }
        if self.id != id {
            return Some(format!("it is the journal of {}", self.id));
        }
        if self.inode != inode {
            let why =
                "it is the journal of another directory (was the store copied, or put back from a backup?)";
            return Some(why.to_owned());
        }
        let bad_row = self
            .steps
            .iter()
            .any(|step| step.rows.is_empty() || step.rows.iter().any(|row| *row >= self.rows.len()));
        let mut paths = self.steps.iter().flat_map(|step| step.action.paths());
        let mut dirs = self.dirs.iter().filter(|dir| !dir.path.is_empty()).map(|dir| dir.path.as_str());
        let is_bad = |path: &str| !mlxman_store::is_safe_relative(path) || is_in_trash(path);
        let bad = paths.find(|path| is_bad(path)).or_else(|| dirs.find(|path| is_bad(path)));
        match bad {
            Some(path) => Some(format!("it names `{path}`, which is no path in the store")),
            None => bad_row.then(|| "a step belongs to a row that is not there".to_owned()),
        }
    }
}

/// Whether what a user wrote into the trash of a store is followed by this one: their own, and by root what the store's
/// owner wrote.
pub(crate) fn is_believed(root: &DirHandle, owner: u32) -> bool {
    let acting = mlxman_store::acting_user();
    owner == acting || acting == 0 && root.owner().is_ok_and(|of_store| of_store == owner)
}

/// Whether a path lies in the trash itself, which no plan or journal may name.
pub(crate) fn is_in_trash(path: &str) -> bool {
    path.split('/').next() == Some(TRASH)
}

impl Action {
    /// Moves what a plan saw into a slot of the trash, or removes an empty directory, which its row cannot do without if it
    /// `must`.
    pub(crate) fn removing(editor: &Editor<'_>, item: &Item, slot: usize, must: bool) -> Self {
        let path = item.path.clone();
        if item.kind != ItemKind::Dir {
            return Action::Take { path, slot, seen: item.into() };
        }
        // One that cannot be asked is gone, which is then told, or cannot be removed, which is told too.
        let of = editor.attributes(&path).unwrap_or(DirAttributes { mode: 0o755, uid: 0, gid: 0 });
        let extended = editor.extended_of_dir(&path).unwrap_or_default();
        let hex = |(name, value): (CString, Vec<u8>)| {
            Some((name.into_string().ok()?, value.iter().map(|byte| format!("{byte:02x}")).collect()))
        };
        let extended = extended.into_iter().filter_map(hex).collect();
        Action::RemoveDir { path, must, mode: of.mode, uid: of.uid, gid: of.gid, extended }
    }

    /// The extended attributes of a directory that is to be made again.
    pub(crate) fn extended(&self) -> Extended {
        let Action::RemoveDir { extended, .. } = self else { return Extended::new() };
        let bytes = |hex: &str| -> Option<Vec<u8>> {
            let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
            let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            pairs.iter().map(byte).collect::<Option<_>>().filter(|_| rest.is_empty())
        };
        let one = |(name, hex): (&String, &String)| Some((CString::new(name.as_str()).ok()?, bytes(hex)?));
        extended.iter().filter_map(one).collect()
    }

    /// What it names in the store.
    pub(crate) fn paths(&self) -> Vec<&str> {
        match self {
            Action::Take { path, .. }
            | Action::Put { path, .. }
            | Action::Share { path, .. }
            | Action::RemoveDir { path, .. }
            | Action::MakeDir { path } => vec![path],
            Action::Exchange { path, same_as, .. } => vec![path, same_as],
            Action::List { payload, line } | Action::Unlist { payload, line } => vec![payload, line],
        }
    }

    /// Where it keeps something in the trash.
    pub(crate) fn slot(&self) -> Option<usize> {
        match self {
            Action::Take { slot, .. }
            | Action::Put { slot, .. }
            | Action::Exchange { slot, .. }
            | Action::Share { slot, .. } => Some(*slot),
            _ => None,
        }
    }
}

/// The JSON Schema of a journal.
pub fn journal_schema() -> Schema {
    mlxman_manifest::schema_of::<Journal>()
}
