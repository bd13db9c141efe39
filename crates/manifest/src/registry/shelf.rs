//! Directories of manifests, and files in them, reached without following a link that somebody put there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::index::Stamp;

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A pipe must not be waited for, and a link not be followed.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

const PREFIX: &str = ".mlxman-";
const SUFFIX: &str = ".tmp";
/// Held while manifests in a models' folder are read, changed and written: more than one registry may keep some there.
const LOCK: &str = ".mlxman.lock";

/// An open directory of manifests.
#[derive(Debug)]
pub(super) struct Shelf {
    fd: OwnedFd,
}

/// What a directory of manifests holds: names, each with its stamp or why it is no manifest.
pub(super) type Listed = Vec<(String, Result<Stamp, String>)>;

impl Shelf {
    /// The directory in which the file `path` lies. A link on the way to the registry's own directory (`own`) is its
    /// owner's; in a models' folder, which others may write, the last step must be no link.
    pub(super) fn of<'a>(path: &'a Path, own: &Path) -> io::Result<(Self, &'a OsStr)> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if dir == own {
            return Ok((Shelf::own(dir)?, name));
        }
        let Some(root) = dir.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
        Ok((Shelf::in_folder(root)?, name))
    }

    /// The registry's own.
    pub(super) fn own(dir: &Path) -> io::Result<Self> {
        Ok(Shelf { fd: rustix::fs::open(dir, DIR, Mode::empty())? })
    }

    /// `manifests` in a models' folder.
    pub(super) fn in_folder(root: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(root, DIR, Mode::empty())?;
        Ok(Shelf { fd: rustix::fs::openat(root, "manifests", DIR | OFlags::NOFOLLOW, Mode::empty())? })
    }

    /// Whether files can be made in it.
    pub(super) fn can_be_written(&self) -> bool {
        rustix::fs::accessat(&self.fd, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty()).is_ok()
    }

    /// The manifests in it.
    pub(super) fn list(&self) -> io::Result<Listed> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !name.ends_with(".manifest.json") || name.starts_with('.') {
                continue;
            }
            match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => found.push((name.to_owned(), Stamp::of_stat(&stat).ok_or_else(|| odd(&stat)))),
                Err(Errno::NOENT) => {}
                Err(error) => found.push((name.to_owned(), Err(io::Error::from(error).to_string()))),
            }
        }
        Ok(found)
    }

    /// Opens a file in it: a regular one, and no link.
    pub(super) fn open(&self, name: &OsStr) -> io::Result<File> {
        let opened = rustix::fs::openat(&self.fd, name, OFlags::RDONLY | FILE, Mode::empty());
        let file = match opened {
            Ok(file) => file,
            // The system's words for a link, a socket or a device would puzzle.
            Err(error) => match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if !is_file(&stat) => return Err(io::Error::other(odd(&stat))),
                _ => return Err(error.into()),
            },
        };
        let stat = rustix::fs::fstat(&file)?;
        if is_file(&stat) { Ok(file.into()) } else { Err(io::Error::other(odd(&stat))) }
    }

    /// The stamp of a file in it.
    pub(super) fn stamp(&self, name: &OsStr) -> Option<Stamp> {
        Stamp::of_stat(&rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?)
    }

    /// Writes a file whole: whoever reads it sees the old content or the new, never a part. What is no regular file is
    /// not replaced.
    pub(super) fn write(&self, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if !is_file(&stat) => return Err(io::Error::other(odd(&stat))),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (temporary, file) = loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let temporary = format!("{PREFIX}{}-{number}{SUFFIX}", std::process::id());
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | FILE;
            match rustix::fs::openat(&self.fd, &temporary, flags, Mode::from_raw_mode(0o666)) {
                Ok(file) => break (temporary, File::from(file)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let written = (|| {
            let mut file = file;
            file.write_all(bytes)?;
            file.sync_all()?;
            Ok(rustix::fs::renameat(&self.fd, &temporary, &self.fd, name)?)
        })();
        if written.is_err() {
            // Should that fail too, it is swept another time.
            let _ = rustix::fs::unlinkat(&self.fd, &temporary, AtFlags::empty());
        }
        written
    }

    /// Takes the lock of a models' folder, for as long as the result lives; `waiting` is called when somebody else has
    /// it. Where the filesystem has no locks there is none to take.
    pub(super) fn lock(&self, waiting: &dyn Fn()) -> io::Result<Option<File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | FILE;
        let file: File = rustix::fs::openat(&self.fd, LOCK, flags, Mode::from_raw_mode(0o666))?.into();
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                waiting();
                if file.lock().is_err() {
                    return Ok(None);
                }
            }
            Err(std::fs::TryLockError::Error(_)) => return Ok(None),
        }
        self.sweep();
        Ok(Some(file))
    }

    /// Removes what writers left that were killed in the middle. Only under the lock: then nobody is writing.
    fn sweep(&self) {
        let Ok(entries) = rustix::fs::Dir::read_from(&self.fd) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            if name.starts_with(PREFIX.as_bytes()) && name.ends_with(SUFFIX.as_bytes()) {
                // What cannot be removed is swept another time.
                let _ = rustix::fs::unlinkat(self.fd.as_fd(), entry.file_name(), AtFlags::empty());
            }
        }
    }
}

fn is_file(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn odd(stat: &rustix::fs::Stat) -> String {
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => "a link, which is neither followed nor written through",
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        _ => "no regular file",
    };
    format!("it is {what}")
}

/// Why a models' folder does not keep its manifests itself although something of that name is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keeps {
    /// There is no such directory: the registry's own keeps them.
    Nothing,
    /// It does.
    Manifests,
    /// They can be read there, and new ones go to the registry.
    ReadOnly,
    /// Why what is there is not used.
    Unusable(String),
}

/// What a models' folder answered.
#[derive(Debug)]
pub(super) struct Folder {
    /// Device and inode of its root; `None` where it is not there.
    pub(super) root: Option<(u64, u64)>,
    pub(super) keeps: Keeps,
    pub(super) listed: Listed,
    /// Names in its root, where they are needed to match an original manifest to its model.
    pub(super) names: Vec<String>,
}

/// Looks at a models' folder. This may hang where its volume does.
pub(super) fn look_at_folder(root: &Path) -> Folder {
    let mut folder = Folder { root: None, keeps: Keeps::Nothing, listed: Vec::new(), names: Vec::new() };
    let Ok(top) = rustix::fs::open(root, DIR, Mode::empty()) else { return folder };
    #[expect(clippy::unnecessary_cast, reason = "the fields' types differ between platforms")]
    let identity = rustix::fs::fstat(&top).ok().map(|stat| (stat.st_dev as u64, stat.st_ino as u64));
    folder.root = identity;
    let shelf = match rustix::fs::openat(&top, "manifests", DIR | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(fd) => Shelf { fd },
        Err(Errno::NOENT) => return folder,
        Err(error) => {
            let why = match rustix::fs::statat(&top, "manifests", AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => odd(&stat),
                _ => io::Error::from(error).to_string(),
            };
            folder.keeps = Keeps::Unusable(why);
            return folder;
        }
    };
    match shelf.list() {
        Ok(listed) => folder.listed = listed,
        Err(error) => {
            folder.keeps = Keeps::Unusable(error.to_string());
            return folder;
        }
    }
    folder.keeps = if shelf.can_be_written() { Keeps::Manifests } else { Keeps::ReadOnly };
    if !folder.listed.is_empty()
        && let Ok(entries) = rustix::fs::Dir::read_from(&top)
    {
        folder.names =
            entries.flatten().filter_map(|entry| Some(entry.file_name().to_str().ok()?.to_owned())).collect();
    }
    folder
}

/// Where a models' folder keeps manifests.
pub(super) fn dir_in(root: &Path) -> PathBuf {
    root.join("manifests")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_regular_file_is_read_or_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join("manifests").join(name);
        fs_err::create_dir(dir.path().join("manifests")).unwrap();
        fs_err::write(dir.path().join("outside"), "theirs").unwrap();
        fs_err::os::unix::fs::symlink("../outside", at("link.manifest.json")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe.manifest.json"), 0o644.into()).unwrap();
        fs_err::write(at("file.manifest.json"), "old").unwrap();
        let shelf = Shelf::in_folder(dir.path()).unwrap();
        let mut listed = shelf.list().unwrap();
        listed.sort_by(|a, b| a.0.cmp(&b.0));
        assert!(listed[0].1.is_ok() && listed[1].1.is_err() && listed[2].1.is_err(), "{listed:?}");
        for name in ["link.manifest.json", "pipe.manifest.json"] {
            assert!(shelf.open(name.as_ref()).unwrap_err().to_string().starts_with("it is a "));
            assert!(shelf.write(name.as_ref(), b"new").unwrap_err().to_string().starts_with("it is a "));
        }
        assert_eq!(fs_err::read(dir.path().join("outside")).unwrap(), b"theirs");
        shelf.write("file.manifest.json".as_ref(), b"new").unwrap();
        assert_eq!(fs_err::read(at("file.manifest.json")).unwrap(), b"new");
        fs_err::write(at(".mlxman-1-1.tmp"), "left").unwrap();
        let lock = shelf.lock(&|| {}).unwrap();
        assert!(lock.is_some() && !at(".mlxman-1-1.tmp").exists());
        let waited = std::cell::Cell::new(false);
        drop(lock);
        assert!(shelf.lock(&|| waited.set(true)).unwrap().is_some() && !waited.get());
    }

    #[test]
    fn a_folder_of_manifests_that_is_a_link_is_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("elsewhere")).unwrap();
        assert_eq!(look_at_folder(dir.path()).keeps, Keeps::Nothing);
        fs_err::os::unix::fs::symlink("elsewhere", dir.path().join("manifests")).unwrap();
        assert!(Shelf::in_folder(dir.path()).is_err());
        let folder = look_at_folder(dir.path());
        assert!(matches!(folder.keeps, Keeps::Unusable(why) if why.contains("link")));
        assert!(folder.root.is_some());
        assert!(look_at_folder(&dir.path().join("no")).root.is_none());
    }
}
