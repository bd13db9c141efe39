//! Directories and files reached without ever following a link.
//!
//! Every open goes name by name from the store's root, with `O_NOFOLLOW`, so a link that is swapped in while mlxman
//! works cannot lead it out of the store.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A socket, pipe or device.
    Other,
    /// The system does not say: it is listed, and its stat fails.
    Unknown,
}

/// What one stat says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: EntryKind,
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Names that the inode has.
    pub nlink: u64,
    /// Apparent size in bytes.
    pub size: u64,
    /// Bytes allocated on the disk, in whole blocks.
    pub allocated: u64,
    /// Time of last modification, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of last change of the inode, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Time of last access, in nanoseconds since 1970.
    pub atime_ns: i64,
}

impl Stat {
    #[expect(clippy::unnecessary_cast, reason = "the fields' types differ between platforms")]
    pub(crate) fn from_raw(raw: &rustix::fs::Stat) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Stat {
            kind: kind_of(FileType::from_raw_mode(raw.st_mode)),
            dev: raw.st_dev as u64,
            ino: raw.st_ino as u64,
            nlink: raw.st_nlink as u64,
            size: u64::try_from(raw.st_size).unwrap_or(0),
            allocated: u64::try_from(raw.st_blocks).unwrap_or(0) * 512,
            mtime_ns: ns(raw.st_mtime as i64, raw.st_mtime_nsec as i64),
            ctime_ns: ns(raw.st_ctime as i64, raw.st_ctime_nsec as i64),
            atime_ns: ns(raw.st_atime as i64, raw.st_atime_nsec as i64),
        }
    }

    /// Of an entry whose stat fails.
    fn unknown() -> Self {
        Stat {
            kind: EntryKind::Unknown,
            dev: 0,
            ino: 0,
            nlink: 1,
            size: 0,
            allocated: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            atime_ns: 0,
        }
    }

    /// Whether both are the same file: device and inode.
    pub fn same_file(&self, other: &Stat) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

fn kind_of(file_type: FileType) -> EntryKind {
    match file_type {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Dir,
        FileType::Symlink => EntryKind::Link,
        _ => EntryKind::Other,
    }
}

/// One entry of a directory: its name, and its stat.
#[derive(Debug)]
pub struct Entry {
    /// Its name as the system has it.
    pub raw_name: CString,
    /// Its stat; links are not followed.
    pub stat: Stat,
}

impl Entry {
    /// Its name, where it is UTF-8.
    pub fn name(&self) -> Option<&str> {
        self.raw_name.to_str().ok()
    }

    /// Its name, with what is not UTF-8 replaced: for messages only.
    pub fn lossy_name(&self) -> String {
        self.raw_name.to_string_lossy().into_owned()
    }
}

/// An open directory.
#[derive(Debug)]
pub struct DirHandle {
    fd: OwnedFd,
    /// Whether somebody has begun to read it: the position in a directory belongs to its descriptor.
    read: AtomicBool,
}

const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Room for the names of some hundred entries: most directories are read in one go.
#[cfg(target_os = "linux")]
const NAMES_BUFFER: usize = 16 << 10;

impl DirHandle {
    fn new(fd: OwnedFd) -> Self {
        DirHandle { fd, read: AtomicBool::new(false) }
    }

    /// Opens a store's root. Links on the way to it are the user's own and are followed.
    ///
    /// # Errors
    /// What the system says: not there, no directory, no permission.
    pub fn open_root(path: &Path) -> io::Result<Self> {
        Ok(DirHandle::new(rustix::fs::open(path, DIR_FLAGS, Mode::empty())?))
    }

    /// Opens the directory `name` in this one; a link is an error.
    ///
    /// # Errors
    /// What the system says.
    pub fn open_dir(&self, name: &CStr) -> io::Result<Self> {
        let flags = DIR_FLAGS | OFlags::NOFOLLOW;
        Ok(DirHandle::new(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?))
    }

    /// This directory's own stat.
    ///
    /// # Errors
    /// What the system says.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(Stat::from_raw(&rustix::fs::fstat(&self.fd)?))
    }

    /// The user whom it belongs to.
    ///
    /// # Errors
    /// What the system says.
    pub fn owner(&self) -> io::Result<u32> {
        Ok(rustix::fs::fstat(&self.fd)?.st_uid)
    }

    /// The stat of `name` in this directory; a link's own.
    ///
    /// # Errors
    /// What the system says.
    pub fn stat_of(&self, name: &CStr) -> io::Result<Stat> {
        Ok(Stat::from_raw(&rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// Calls `each` with every entry but `.` and `..`, in the order the system gives them. Entries that went away
    /// meanwhile are left out; one whose stat fails is [`EntryKind::Unknown`], and hides no other.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn for_each(&self, mut each: impl FnMut(Entry)) -> io::Result<()> {
        self.for_each_name(|name| match self.stat_of(name) {
            Ok(stat) => each(Entry { raw_name: name.to_owned(), stat }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => each(Entry { raw_name: name.to_owned(), stat: Stat::unknown() }),
        })
    }

    /// Calls `each` with the name of every entry but `.` and `..`.
    pub(crate) fn for_each_name(&self, mut each: impl FnMut(&CStr)) -> io::Result<()> {
        // The first to read takes this descriptor's own position; whoever comes later begins at one of its own.
        let again;
        let fd = if self.read.swap(true, Ordering::Relaxed) {
            again = rustix::fs::openat(&self.fd, c".", DIR_FLAGS, Mode::empty())?;
            again.as_fd()
        } else {
            self.fd.as_fd()
        };
        names(fd, |name| {
            if matches!(name.to_bytes(), b"." | b"..") {
                return Ok(());
            }
            each(name);
            Ok(())
        })
    }

    /// Every entry but `.` and `..`, sorted by name. See [`DirHandle::for_each`].
    ///
    /// # Errors
    /// As [`DirHandle::for_each`].
    pub fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.for_each(|entry| entries.push(entry))?;
        entries.sort_unstable_by(|a, b| a.raw_name.cmp(&b.raw_name));
        Ok(entries)
    }

    /// The stat of what lies at `path` below this directory, a link's own; no link on the way is followed.
    ///
    /// # Errors
    /// As [`DirHandle::open_dir`]; [`io::ErrorKind::InvalidInput`] for a path that is not safe.
    pub fn stat_below(&self, path: &str) -> io::Result<Stat> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let name = CString::new(name)?;
        if parent.is_empty() { self.stat_of(&name) } else { self.open_dir_below(parent)?.stat_of(&name) }
    }

    /// The text of the link `name`, whatever its bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_link_raw(&self, name: &CStr) -> io::Result<OsString> {
        use std::os::unix::ffi::OsStringExt as _;
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::with_capacity(512))?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// The text of the link `name`, where it is UTF-8.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::InvalidData`] for a target that is not UTF-8.
    pub fn read_link(&self, name: &CStr) -> io::Result<String> {
        let not_utf8 = || io::Error::new(io::ErrorKind::InvalidData, "its target is not UTF-8");
        let mut buffer = [MaybeUninit::uninit(); 512];
        let (text, rest) = rustix::fs::readlinkat_raw(&self.fd, name, &mut buffer)?;
        if rest.is_empty() {
            // It may be longer than the buffer.
            let target = rustix::fs::readlinkat(&self.fd, name, Vec::with_capacity(4096))?;
            return target.into_string().map_err(|_| not_utf8());
        }
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| not_utf8())
    }

    /// Opens the regular file `name` for reading; a link, a pipe or a device is an error. Where the system allows,
    /// reading it leaves its time of last access alone.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::InvalidInput`] for what is no regular file.
    pub fn open_file(&self, name: &CStr) -> io::Result<File> {
        // NONBLOCK: a pipe somebody put there must not hang the open.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = open_without_atime(self.fd.as_fd(), name, flags)?;
        let file = File::from(fd);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    }

    /// Opens the regular file at `path` below this directory, name by name, following no link.
    ///
    /// # Errors
    /// As [`DirHandle::open_file`]; [`io::ErrorKind::InvalidInput`] for a path that is not safe.
    pub fn open_below(&self, path: &str) -> io::Result<File> {
        if !crate::is_safe_relative(path) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path leaves the directory"));
        }
        let mut names = path.split('/').peekable();
        let mut here: Option<DirHandle> = None;
        while let Some(name) = names.next() {
            let name = CString::new(name)?;
            let dir = here.as_ref().unwrap_or(self);
            if names.peek().is_none() {
                return dir.open_file(&name);
            }
            here = Some(dir.open_dir(&name)?);
        }
        Err(io::ErrorKind::InvalidInput.into())
    }

    /// Opens the directory at `path` below this one, name by name, following no link.
    ///
    /// # Errors
    /// As [`DirHandle::open_dir`]; [`io::ErrorKind::InvalidInput`] for a path that is not safe.
    pub fn open_dir_below(&self, path: &str) -> io::Result<DirHandle> {
        if !crate::is_safe_relative(path) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path leaves the directory"));
        }
        let mut here: Option<DirHandle> = None;
        for name in path.split('/') {
            let name = CString::new(name)?;
            here = Some(here.as_ref().unwrap_or(self).open_dir(&name)?);
        }
        here.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// Calls `each` with the names in the directory `fd`, from its position on.
#[cfg(target_os = "linux")]
#[inline(never)] // The buffer is not to lie in the frames of a walk that goes down a tree.
fn names(fd: BorrowedFd<'_>, mut each: impl FnMut(&CStr) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); NAMES_BUFFER];
    let mut entries = rustix::fs::RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        each(entry?.file_name())?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn names(fd: BorrowedFd<'_>, mut each: impl FnMut(&CStr) -> io::Result<()>) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(fd)? {
        each(entry?.file_name())?;
    }
    Ok(())
}

impl AsFd for DirHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(target_os = "linux")]
fn open_without_atime(dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    // Only a file's owner may ask for NOATIME.
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(rustix::io::Errno::PERM) => Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?),
        other => Ok(other?),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_without_atime(dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}
