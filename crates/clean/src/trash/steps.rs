//! Doing one step, and taking it back.

use std::ffi::CString;
use std::io::{self, Read as _};

use mlxman_store::{DirAttributes, DirHandle, Editor, EntryKind, LockFile, Stat};

use super::journal::{Action, Seen, slot_of, users_draft};
use crate::plan::ItemKind;

/// What came of a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It is done.
    Yes,
    /// It was left, and why; its row can be done without it.
    Left(String),
}

/// Why a step could not be done: its row is taken back.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) path: String,
    pub(crate) why: Why,
}

#[derive(Debug)]
pub(crate) enum Why {
    /// It is not what it was.
    Changed(String),
    /// Somebody holds its lock.
    Locked,
    /// What the system said.
    System(io::Error),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = &self.path;
        match &self.why {
            Why::Changed(what) => write!(f, "{path} {what}"),
            Why::Locked => write!(f, "a download holds the lock of {path}"),
            Why::System(error) => write!(f, "{path}: {error}{}", hint(error)),
        }
    }
}

/// What to do about an error.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run it as the owner of the store, or mend its permissions",
        io::ErrorKind::CrossesDevices => {
            "; it lies on another filesystem than its store, so it cannot be kept for undo"
        }
        io::ErrorKind::StorageFull => "; free a little space first",
        io::ErrorKind::ReadOnlyFilesystem => "; mount it writable first",
        _ => "",
    }
}

impl Seen {
    /// A regular file as a stat shows it.
    pub(crate) fn file(stat: &Stat) -> Self {
        Seen {
            kind: ItemKind::File,
            device: stat.dev,
            inode: stat.ino,
            size: stat.size,
            mtime_ns: stat.mtime_ns,
            link_target: None,
        }
    }

    /// What is different about what lies at `path` now.
    pub(crate) fn difference(&self, editor: &Editor<'_>, path: &str) -> io::Result<Option<&'static str>> {
        let stat = editor.stat(path)?;
        let kind = match stat.kind {
            EntryKind::File => ItemKind::File,
            EntryKind::Link => ItemKind::Link,
            _ => return Ok(Some("is something else now")),
        };
        // A filesystem may have another number after it was mounted again: what lies where the store's root does is meant.
        let same_device =
            stat.dev == self.device || editor.root().stat().is_ok_and(|root| root.dev == stat.dev);
        if kind != self.kind || stat.ino != self.inode || !same_device {
            return Ok(Some("is another file now"));
        }
        if (stat.size, stat.mtime_ns) != (self.size, self.mtime_ns) {
            return Ok(Some("was written to"));
        }
        if kind == ItemKind::Link && editor.read_link(path).ok() != self.link_target {
            return Ok(Some("leads elsewhere now"));
        }
        Ok(None)
    }
}

fn system(path: &str) -> impl Fn(io::Error) -> Failed {
    move |error| Failed { path: path.to_owned(), why: Why::System(error) }
}

/// Does a step.
pub(crate) fn perform(editor: &Editor<'_>, id: &str, action: &Action) -> Result<Done, Failed> {
    let failed = |path: &str, why| Failed { path: path.to_owned(), why };
    match action {
        Action::Take { path, slot, seen } => {
            let locks = Locks::of(editor, path)?;
            if let Some(users) = locks.users_of_shared(editor, path) {
                return Ok(Done::Left(users));
            }
            take(editor, path, &slot_of(id, *slot), seen)
        }
        Action::Put { path, slot, .. } => {
            editor.rename(&slot_of(id, *slot), path).map_err(system(path))?;
            Ok(Done::Yes)
        }
        Action::Exchange { path, slot, old, new, .. } => {
            let _locks = Locks::of(editor, path)?;
            let slot = slot_of(id, *slot);
            if let Some(what) = old.difference(editor, path).map_err(system(path))? {
                return Err(failed(path, Why::Changed(what.to_owned())));
            }
            if let Some(what) = new.difference(editor, &slot).map_err(system(&slot))? {
                let what = format!("was to get the content of another file, which {what}");
                return Err(failed(path, Why::Changed(what)));
            }
            editor.exchange(path, &slot).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => {
                    let what = "stays: its filesystem cannot exchange two files in one step".to_owned();
                    failed(path, Why::Changed(what))
                }
                _ => failed(path, Why::System(error)),
            })?;
            // What lay there a moment ago may not be what was exchanged; what lies there now is certain.
            let out = old.difference(editor, &slot).map_err(system(path))?;
            let into = new.difference(editor, path).map_err(system(path))?;
            match out.or(into) {
                None => Ok(Done::Yes),
                Some(what) => {
                    editor.exchange(path, &slot).map_err(system(path))?;
                    Err(failed(path, Why::Changed(what.to_owned())))
                }
            }
        }
        Action::RemoveDir { path, must, .. } => match editor.remove_dir(path) {
            Ok(()) => Ok(Done::Yes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Done::Left("is gone already".into())),
            Err(error) if is_not_empty(&error) && *must => {
                Err(failed(path, Why::Changed("has something new in it".to_owned())))
            }
            Err(error) if is_not_empty(&error) => Ok(Done::Left("something is in it".to_owned())),
            Err(error) => Err(failed(path, Why::System(error))),
        },
        Action::MakeDir { path } => match editor.make_dir(path, None) {
            Ok(()) => Ok(Done::Yes),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(Done::Left("is there already".to_owned()))
            }
            Err(error) => Err(failed(path, Why::System(error))),
        },
        Action::List { payload, line } if is_gone(editor, line) => {
            Err(failed(payload, Why::Changed(format!("is not used by {line} any more"))))
        }
        Action::List { payload, line } => list(editor, id, payload, line),
        Action::Unlist { payload, line } if !is_gone(editor, line) => {
            Ok(Done::Left(format!("{line} is there again")))
        }
        Action::Unlist { payload, line } => unlist(editor, id, payload, line),
        // It was done before it was written down.
        Action::Share { .. } => Ok(Done::Yes),
    }
}

/// A directory that its owner can put things into.
const OPEN: u32 = 0o700;

/// Gives a directory that was made again what it had and what would have kept its content out: extended attributes, among
/// them access control lists, and permissions.
pub(crate) fn close(editor: &Editor<'_>, action: &Action) {
    let Action::RemoveDir { path, mode, .. } = action else { return };
    let extended = action.extended();
    let closes = mode & OPEN != OPEN;
    if !closes && extended.is_empty() || editor.attributes(path).is_ok_and(|now| now.mode != mode | OPEN) {
        return;
    }
    // Attributes are no data: should one not be set, the content is there all the same. It is open to nobody but its owner.
    let _ = editor.extend_dir(path, &extended);
    if closes {
        let _ = editor.set_mode(path, *mode);
    }
}

/// Takes a step back, if it was done.
pub(crate) fn take_back(editor: &Editor<'_>, id: &str, action: &Action) -> Result<(), Failed> {
    let failed = |path: &str, why| Failed { path: path.to_owned(), why };
    match action {
        Action::Take { path, slot, .. } => {
            let slot = slot_of(id, *slot);
            if !is_there(editor, &slot).map_err(system(&slot))? {
                return Ok(());
            }
            make_parents(editor, path).map_err(system(path))?;
            match editor.rename(&slot, path) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let what = "has come back meanwhile; the old one stays in the trash".to_owned();
                    Err(failed(path, Why::Changed(what)))
                }
                Err(error) => Err(failed(path, Why::System(error))),
            }
        }
        Action::Put { path, slot, seen } => {
            let slot = slot_of(id, *slot);
            if is_there(editor, &slot).map_err(system(&slot))? {
                return Ok(());
            }
            match editor.stat(path) {
                // It was never put there, or somebody put something else in its place: that is theirs.
                Ok(stat) if (stat.dev, stat.ino) != (seen.device, seen.inode) => return Ok(()),
                _ => {}
            }
            match seen.difference(editor, path) {
                Ok(None) => editor.rename(path, &slot).map_err(system(path)),
                Ok(Some(what)) => Err(failed(path, Why::Changed(format!("{what}; it stays as it is")))),
                // Somebody removed it, as this would.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(failed(path, Why::System(error))),
            }
        }
        Action::Exchange { path, slot, old, new, .. } => {
            let slot = slot_of(id, *slot);
            match old.difference(editor, &slot) {
                Ok(None) => {}
                // It was not done, or was taken back before.
                Ok(Some(_)) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(failed(&slot, Why::System(error))),
            }
            match new.difference(editor, path).map_err(system(path))? {
                None => {
                    // Whoever closed or opened it meanwhile meant what is in it.
                    let modes = (editor.attributes(path), editor.attributes(&slot));
                    if let (Ok(now), Ok(then)) = modes
                        && now.mode != then.mode
                    {
                        editor.set_mode(&slot, now.mode).map_err(system(path))?;
                    }
                    editor.exchange(path, &slot).map_err(system(path))
                }
                Some(what) => Err(failed(path, Why::Changed(format!("{what}; it stays as it is")))),
            }
        }
        Action::RemoveDir { path, mode, uid, gid, .. } => {
            if is_there(editor, path).map_err(system(path))? {
                return Ok(());
            }
            make_parents(editor, path).map_err(system(path))?;
            // What was in it has to go back into it first: see `close`.
            let attributes = DirAttributes { mode: *mode | OPEN, uid: *uid, gid: *gid };
            editor.make_dir(path, Some(attributes)).map_err(system(path))
        }
        Action::MakeDir { path } => match editor.remove_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound && !is_not_empty(&error) => {
                Err(failed(path, Why::System(error)))
            }
            _ => Ok(()),
        },
        Action::List { payload, line } => unlist(editor, id, payload, line).map(|_| ()),
        Action::Unlist { payload, line } => list(editor, id, payload, line).map(|_| ()),
        // Nothing was moved for it: a copy is made only when somebody asks for one.
        Action::Share { .. } => Ok(()),
    }
}

fn take(editor: &Editor<'_>, path: &str, slot: &str, seen: &Seen) -> Result<Done, Failed> {
    let failed = |why| Failed { path: path.to_owned(), why };
    let system = |error| failed(Why::System(error));
    match seen.difference(editor, path) {
        Ok(None) => {}
        Ok(Some(what)) => return Err(failed(Why::Changed(what.to_owned()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(failed(Why::Changed("is gone".to_owned())));
        }
        Err(error) => return Err(system(error)),
    }
    editor.rename(path, slot).map_err(system)?;
    // What lay there a moment ago may not be what was moved; what was moved is certain.
    match seen.difference(editor, slot) {
        Ok(None) => Ok(Done::Yes),
        Ok(Some(what)) => {
            editor.rename(slot, path).map_err(system)?;
            Err(failed(Why::Changed(what.to_owned())))
        }
        Err(error) => Err(system(error)),
    }
}

pub(crate) fn is_there(editor: &Editor<'_>, path: &str) -> io::Result<bool> {
    match editor.stat(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_not_empty(error: &io::Error) -> bool {
    // Some systems say so in the older way.
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

/// Directories that somebody removed meanwhile.
fn make_parents(editor: &Editor<'_>, path: &str) -> io::Result<()> {
    let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
    if is_there(editor, parent)? {
        return Ok(());
    }
    make_parents(editor, parent)?;
    match editor.make_dir(parent, None) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Locks of others that are held while something is moved: huggingface_hub's, beside the repos and beside a shared blob.
pub(crate) struct Locks {
    _held: Vec<LockFile>,
}

impl Locks {
    pub(crate) fn of(editor: &Editor<'_>, path: &str) -> Result<Self, Failed> {
        let mut held = Vec::new();
        if let Some((dir, lock)) = lock_of(path) {
            let failed = |why| Failed { path: path.to_owned(), why };
            match editor.dir(&dir) {
                // Where no lock was ever taken, none is.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(Why::System(error))),
                Ok(dir) => {
                    let dir = dir.get(editor.root());
                    let name = CString::new(lock).map_err(|error| failed(Why::System(error.into())))?;
                    if dir.stat_of(&name).is_ok() {
                        match dir.lock_file(&name, None) {
                            Ok(Some(lock)) => held.push(lock),
                            Ok(None) => return Err(failed(Why::Locked)),
                            Err(error) => return Err(failed(Why::System(error))),
                        }
                    }
                }
            }
        }
        Ok(Locks { _held: held })
    }

    /// Why a shared blob, or the list of its users, stays: asked under its lock.
    fn users_of_shared(&self, editor: &Editor<'_>, path: &str) -> Option<String> {
        let payload = path.strip_suffix(".refs").unwrap_or(path);
        if !is_shared(payload) {
            return None;
        }
        if payload != path {
            // The list goes with the blob, and stays with it.
            return is_there(editor, payload).unwrap_or(true).then(|| "its shared blob stays".to_owned());
        }
        let Some(lines) = users(editor.root(), payload) else {
            return Some("nobody can tell who uses this shared blob".to_owned());
        };
        let uses = |line: &&String| !is_gone(editor, line);
        lines.iter().find(uses).map(|line| format!("{line} uses this shared blob"))
    }
}

/// Whether nothing is at a line's place any more; what cannot be asked is there.
fn is_gone(editor: &Editor<'_>, line: &str) -> bool {
    mlxman_store::is_safe_relative(line)
        && editor.stat(line).err().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// Directory and name of the lock that a download of this blob would hold.
fn lock_of(path: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["blobs", prefix, hash] => {
            let hash = hash.strip_suffix(".refs").unwrap_or(hash);
            Some((format!("blobs/{prefix}"), format!("{hash}.lock")))
        }
        [repo, "blobs", name] if repo.contains("--") => {
            let etag = name.split('.').next().unwrap_or_default();
            Some((format!(".locks/{repo}"), format!("{etag}.lock")))
        }
        _ => None,
    }
}

/// Whether a path is that of a shared blob: `blobs/<2 hex>/<64 hex>`.
pub(crate) fn is_shared(path: &str) -> bool {
    let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["blobs", prefix, hash] => is_hex(prefix, 2) && is_hex(hash, 64) && hash.starts_with(prefix),
        _ => false,
    }
}

/// Who uses a shared blob, as its list says.
fn users(root: &DirHandle, payload: &str) -> Option<Vec<String>> {
    const LIMIT: u64 = 4 << 20;
    let mut text = String::new();
    let file = root.open_below(&format!("{payload}.refs")).ok()?;
    let read = file.take(LIMIT).read_to_string(&mut text).ok()?;
    ((read as u64) < LIMIT).then(|| text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn shared_lock(editor: &Editor<'_>, payload: &str) -> Result<LockFile, Failed> {
    let failed = |why| Failed { path: payload.to_owned(), why };
    let system = |error| failed(Why::System(error));
    let (dir, lock) = lock_of(payload).ok_or_else(|| failed(Why::Changed("is no shared blob".to_owned())))?;
    let name = CString::new(lock).map_err(|error| system(error.into()))?;
    let dir = editor.dir(&dir).map_err(system)?;
    match dir.get(editor.root()).lock_file(&name, Some(&|| {})).map_err(system)? {
        Some(lock) => Ok(lock),
        None => Err(failed(Why::Locked)),
    }
}

/// Whether a shared blob's list has this line.
pub(crate) fn is_listed(root: &DirHandle, payload: &str, line: &str) -> bool {
    users(root, payload).is_some_and(|lines| lines.iter().any(|known| known == line))
}

/// Takes a line out of a shared blob's list, under its lock.
fn unlist(editor: &Editor<'_>, id: &str, payload: &str, line: &str) -> Result<Done, Failed> {
    let system = |error| Failed { path: format!("{payload}.refs"), why: Why::System(error) };
    if !is_there(editor, payload).map_err(system)? {
        return Ok(Done::Left("its shared blob is gone".to_owned()));
    }
    let _lock = shared_lock(editor, payload)?;
    let Some(mut lines) = users(editor.root(), payload) else {
        return Ok(Done::Left("nobody can tell who uses its shared blob".to_owned()));
    };
    if !lines.iter().any(|known| known == line) {
        return Ok(Done::Left("it is not listed".to_owned()));
    }
    lines.retain(|known| known != line);
    // An empty list says nothing to whoever reads it, and the blob would never be free: the line stays for the sweep.
    if lines.is_empty() {
        return Ok(Done::Left("it is the last one".to_owned()));
    }
    write_users(editor, id, payload, &lines).map_err(system)?;
    Ok(Done::Yes)
}

/// Puts a line into a shared blob's list, under its lock; what was removed is listed again before the link that the line
/// names is there again.
fn list(editor: &Editor<'_>, id: &str, payload: &str, line: &str) -> Result<Done, Failed> {
    let system = |error| Failed { path: format!("{payload}.refs"), why: Why::System(error) };
    if !is_there(editor, payload).map_err(system)? {
        let why = "is gone: another program removed the shared blob meanwhile; download it again".to_owned();
        return Err(Failed { path: payload.to_owned(), why: Why::Changed(why) });
    }
    let _lock = shared_lock(editor, payload)?;
    // A list that is not there is not made: it would name one user of perhaps several.
    let Some(mut lines) = users(editor.root(), payload) else {
        return Ok(Done::Left("nobody can tell who uses its shared blob".to_owned()));
    };
    if lines.iter().any(|known| known == line) {
        return Ok(Done::Left("it is listed already".to_owned()));
    }
    lines.push(line.to_owned());
    write_users(editor, id, payload, &lines).map_err(system)?;
    Ok(Done::Yes)
}

/// As huggingface_hub does: whole, readable by all who share the cache, and on the disk before it counts.
fn write_users(editor: &Editor<'_>, id: &str, payload: &str, lines: &[String]) -> io::Result<()> {
    let refs = format!("{payload}.refs");
    let draft = users_draft(id);
    match editor.remove(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    let attributes = editor.attributes(&refs)?;
    editor.write_new(&draft, text.as_bytes(), 0o600)?;
    editor.set_mode(&draft, attributes.mode & 0o777)?;
    editor.replace(&draft, &refs)
}
