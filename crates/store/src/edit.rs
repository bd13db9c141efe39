//! Changing what lies in a store: one system call at a time, below an open root, following no link.
//!
//! Nothing here decides what may change; [`Editor`] only makes sure that a change stays below its root, and replaces
//! nothing that it was not told to replace.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::access::{DirHandle, Stat};

/// A change that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A directory is made.
    MakeDir,
    /// A symbolic link is made.
    MakeLink,
    /// A file is made and written.
    Write,
    /// Something is moved, or exchanged with something else.
    Move,
    /// A file or link is removed.
    Remove,
    /// An empty directory is removed.
    RemoveDir,
    /// Times, permissions or owners are set.
    Attributes,
    /// What was changed is made to last.
    Sync,
    /// A file gets the blocks of another one of the same content.
    Share,
}

/// Is asked before every change: an error is what the change then gives. Tests break things here.
pub type Before<'a> = &'a dyn Fn(Change) -> io::Result<()>;

/// What a directory is to be made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirAttributes {
    /// Permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Changes things below a root. Paths are relative to it, of safe components.
pub struct Editor<'a> {
    root: &'a DirHandle,
    before: Before<'a>,
    /// The directories that were used last: most changes have their neighbours' directories.
    recent: RefCell<Vec<(String, Rc<DirHandle>)>>,
}

const RECENT: usize = 8;

impl std::fmt::Debug for Editor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Editor").field("root", &self.root).finish_non_exhaustive()
    }
}

impl<'a> Editor<'a> {
    /// Of what lies below `root`.
    pub fn new(root: &'a DirHandle, before: Before<'a>) -> Self {
        Editor { root, before, recent: RefCell::default() }
    }

    /// The root.
    pub fn root(&self) -> &'a DirHandle {
        self.root
    }

    /// The stat of what lies at a path, a link's own.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::InvalidInput`] for a path that is not safe. So are all errors here.
    pub fn stat(&self, path: &str) -> io::Result<Stat> {
        let (dir, name) = self.place(path)?;
        dir.get(self.root).stat_of(&name)
    }

    /// The text of the link at a path.
    ///
    /// # Errors
    /// As [`Editor::stat`].
    pub fn read_link(&self, path: &str) -> io::Result<String> {
        let (dir, name) = self.place(path)?;
        dir.get(self.root).read_link(&name)
    }

    /// Permissions and owners of what lies at a path.
    ///
    /// # Errors
    /// As [`Editor::stat`].
    pub fn attributes(&self, path: &str) -> io::Result<DirAttributes> {
        let (dir, name) = self.place(path)?;
        let raw = rustix::fs::statat(dir.get(self.root), &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = raw.st_mode as u32 & 0o7777;
        Ok(DirAttributes { mode, uid: raw.st_uid, gid: raw.st_gid })
    }

    /// What a directory is to be made with in a store that a group writes to, whatever this user's umask says: the root's
    /// permissions and group; `None` in a store of one user.
    pub fn shared_with_group(&self) -> Option<DirAttributes> {
        let raw = rustix::fs::fstat(self.root).ok()?;
        let mode = raw.st_mode as u32 & 0o7777;
        let acting = rustix::process::geteuid();
        let owner = if acting.is_root() { raw.st_uid } else { acting.as_raw() };
        (mode & 0o020 != 0).then_some(DirAttributes { mode, uid: owner, gid: raw.st_gid })
    }

    /// Makes a directory, with exactly these permissions; owners as far as this user may give things away.
    ///
    /// # Errors
    /// As [`Editor::stat`]; [`io::ErrorKind::AlreadyExists`].
    pub fn make_dir(&self, path: &str, attributes: Option<DirAttributes>) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let dir = dir.get(self.root);
        (self.before)(Change::MakeDir)?;
        rustix::fs::mkdirat(dir, &name, Mode::from_raw_mode(0o777))?;
        if rustix::process::geteuid().is_root() {
            give_away(dir, dir.open_dir(&name)?);
        }
        let Some(wanted) = attributes else { return Ok(()) };
        (self.before)(Change::Attributes)?;
        let made = dir.open_dir(&name)?;
        // A directory that belongs to somebody else can only be made for oneself: what it holds counts for more.
        let _ = rustix::fs::fchown(&made, Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid)));
        let mode = Mode::from_raw_mode(wanted.mode as rustix::fs::RawMode);
        Ok(rustix::fs::fchmod(&made, mode)?)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As [`Editor::make_dir`].
    pub fn make_link(&self, path: &str, target: &str) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        (self.before)(Change::MakeLink)?;
        // Nobody asks whose a link is, and it cannot be given away by itself: see `give_away`.
        Ok(rustix::fs::symlinkat(target, dir.get(self.root), &name)?)
    }

    /// Makes a file with this content and permissions (as the umask allows), which lasts when this returns.
    ///
    /// # Errors
    /// As [`Editor::make_dir`]. A file that could not be written whole may be there.
    pub fn write_new(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        (self.before)(Change::Write)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode as rustix::fs::RawMode);
        let mut file = File::from(rustix::fs::openat(dir.get(self.root), &name, flags, mode)?);
        give_away(dir.get(self.root), &file);
        // A kill may come in the middle of a file.
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        file.write_all(head)?;
        (self.before)(Change::Write)?;
        file.write_all(tail)?;
        (self.before)(Change::Sync)?;
        file.sync_all()
    }

    /// Sets the permissions of a file or directory; a link is an error.
    ///
    /// # Errors
    /// As [`Editor::stat`].
    pub fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        (self.before)(Change::Attributes)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir.get(self.root), &name, flags, Mode::empty())?;
        let mode = Mode::from_raw_mode(mode as rustix::fs::RawMode);
        Ok(rustix::fs::fchmod(file, mode)?)
    }

    /// Moves something to where nothing is.
    ///
    /// # Errors
    /// As [`Editor::make_dir`].
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.forget(from);
        let ((from_dir, from_name), (to_dir, to_name)) = (self.place(from)?, self.place(to)?);
        let (from_dir, to_dir) = (from_dir.get(self.root), to_dir.get(self.root));
        (self.before)(Change::Move)?;
        match rustix::fs::renameat_with(from_dir, &from_name, to_dir, &to_name, RenameFlags::NOREPLACE) {
            // Not every filesystem can: then it is looked first, as a program without that call has to.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match to_dir.stat_of(&to_name) {
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Ok(rustix::fs::renameat(from_dir, &from_name, to_dir, &to_name)?)
                }
                Err(error) => Err(error),
            },
            other => Ok(other?),
        }
    }

    /// Moves something in the place of something else, which is then gone.
    ///
    /// # Errors
    /// As [`Editor::stat`].
    pub fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (self.place(from)?, self.place(to)?);
        (self.before)(Change::Move)?;
        Ok(rustix::fs::renameat(from_dir.get(self.root), &from_name, to_dir.get(self.root), &to_name)?)
    }

    /// Puts each of two things in the other's place, in one step.
    ///
    /// # Errors
    /// As [`Editor::stat`]; [`io::ErrorKind::Unsupported`] or [`io::ErrorKind::InvalidInput`] where the filesystem cannot.
    pub fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        let ((one_dir, one_name), (other_dir, other_name)) = (self.place(one)?, self.place(other)?);
        let (one_dir, other_dir) = (one_dir.get(self.root), other_dir.get(self.root));
        (self.before)(Change::Move)?;
        Ok(rustix::fs::renameat_with(one_dir, &one_name, other_dir, &other_name, RenameFlags::EXCHANGE)?)
    }

    /// Removes a file or link.
    ///
    /// # Errors
    /// As [`Editor::stat`].
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        (self.before)(Change::Remove)?;
        Ok(rustix::fs::unlinkat(dir.get(self.root), &name, AtFlags::empty())?)
    }

    /// Removes a directory in which nothing is.
    ///
    /// # Errors
    /// As [`Editor::stat`]; [`io::ErrorKind::DirectoryNotEmpty`].
    pub fn remove_dir(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        self.recent.borrow_mut().retain(|(known, _)| known != path);
        (self.before)(Change::RemoveDir)?;
        Ok(rustix::fs::unlinkat(dir.get(self.root), &name, AtFlags::REMOVEDIR)?)
    }

    /// Sets the times of what lies at a path, a link's own: nanoseconds since 1970.
    ///
    /// # Errors
    /// As [`Editor::stat`].
    pub fn set_times(&self, path: &str, accessed_ns: i64, modified_ns: i64) -> io::Result<()> {
        let times =
            Timestamps { last_access: timespec(accessed_ns), last_modification: timespec(modified_ns) };
        (self.before)(Change::Attributes)?;
        if path.is_empty() {
            return Ok(rustix::fs::futimens(self.root, &times)?);
        }
        let (dir, name) = self.place(path)?;
        Ok(rustix::fs::utimensat(dir.get(self.root), &name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes what was changed in a directory last; on filesystems with a journal, all changes before it as well.
    ///
    /// # Errors
    /// As [`Editor::stat`].
    pub fn sync_dir(&self, path: &str) -> io::Result<()> {
        (self.before)(Change::Sync)?;
        let dir = self.dir(path)?;
        Ok(rustix::fs::fsync(dir.get(self.root).as_fd())?)
    }

    /// Opens a directory, the root for an empty path.
    ///
    /// # Errors
    /// As [`Editor::stat`].
    pub fn dir(&self, path: &str) -> io::Result<Dir> {
        if path.is_empty() {
            return Ok(Dir(None));
        }
        let mut recent = self.recent.borrow_mut();
        if let Some(at) = recent.iter().position(|(known, _)| known == path) {
            recent[at..].rotate_left(1);
        } else {
            let dir = Rc::new(self.root.open_dir_below(path)?);
            if recent.len() >= RECENT {
                recent.remove(0);
            }
            recent.push((path.to_owned(), dir));
        }
        Ok(Dir(recent.last().map(|(_, dir)| dir.clone())))
    }

    /// Forgets the directories at and below a path, which are going to lie elsewhere.
    fn forget(&self, path: &str) {
        let is_below = |known: &str| {
            known.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.recent.borrow_mut().retain(|(known, _)| !is_below(known));
    }

    /// Asks whether a change may be made.
    pub(crate) fn ask(&self, change: Change) -> io::Result<()> {
        (self.before)(change)
    }

    pub(crate) fn place(&self, path: &str) -> io::Result<(Dir, CString)> {
        if !crate::is_safe_relative(path) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path leaves the store"));
        }
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.dir(dir)?, CString::new(name)?))
    }
}

/// A directory that an [`Editor`] has open.
#[derive(Debug)]
pub struct Dir(Option<Rc<DirHandle>>);

impl Dir {
    /// It; the root is not opened again.
    pub fn get<'a>(&'a self, root: &'a DirHandle) -> &'a DirHandle {
        self.0.as_deref().unwrap_or(root)
    }
}

/// What root made in a directory of somebody else becomes theirs: they could not use their own store otherwise. It is given
/// by what is open and was made just now, never by its name: they may have put another thing in its place.
fn give_away(dir: &DirHandle, made: impl AsFd) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (Ok(of), Ok(is)) = (rustix::fs::fstat(dir), rustix::fs::fstat(&made)) else { return };
    let is_file = rustix::fs::FileType::from_raw_mode(is.st_mode) == rustix::fs::FileType::RegularFile;
    if of.st_uid != 0 && is.st_uid == 0 && (!is_file || is.st_nlink == 1) {
        // A filesystem without owners has nothing to give.
        let _ = rustix::fs::fchown(&made, Some(Uid::from_raw(of.st_uid)), Some(Gid::from_raw(of.st_gid)));
    }
}

fn timespec(ns: i64) -> Timespec {
    Timespec { tv_sec: ns.div_euclid(1_000_000_000), tv_nsec: ns.rem_euclid(1_000_000_000) }
}

/// A lock file that this process holds; it is given back when this goes.
#[derive(Debug)]
pub struct LockFile(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

impl DirHandle {
    /// Takes the lock file `name` in this directory, which is made if it is not there; `None` when somebody else holds
    /// it and `waiting` is `None`, else `waiting` is called and the lock is waited for. Locks like huggingface_hub's,
    /// with `flock`.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::InvalidInput`] where something else than a file lies there.
    pub fn lock_file(&self, name: &CStr, waiting: Option<&dyn Fn()>) -> io::Result<Option<LockFile>> {
        use rustix::fs::FlockOperation::{LockExclusive, NonBlockingLockExclusive};
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o666);
            let file = match rustix::fs::openat(self, name, flags | OFlags::EXCL, mode) {
                Ok(made) => {
                    give_away(self, &made);
                    File::from(made)
                }
                Err(Errno::EXIST) => File::from(rustix::fs::openat(self, name, flags, mode)?),
                Err(error) => return Err(error.into()),
            };
            if !file.metadata()?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the lock is no regular file"));
            }
            match rustix::fs::flock(&file, NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let Some(waiting) = waiting else { return Ok(None) };
                    waiting();
                    while let Err(error) = rustix::fs::flock(&file, LockExclusive) {
                        if error != Errno::INTR {
                            return Err(error.into());
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
            // Whoever held it may have removed it: a lock on a file that nobody finds any more is none.
            use std::os::unix::fs::MetadataExt as _;
            let mine = file.metadata()?;
            match self.stat_of(name) {
                Ok(stat) if (stat.dev, stat.ino) == (mine.dev(), mine.ino()) => {
                    return Ok(Some(LockFile(file)));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}
