//! Making one copy of several and several of one: hard links, clones, shared blocks, and plain copies.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::access::{DirHandle, Stat};
use crate::edit::{Change, Editor};

/// How much is compared, copied or shared between two looks at whether to stop.
const STRIDE: u64 = 16 << 20;

/// How much is read at once.
const BUFFER: usize = 1 << 20;

/// Is told how many bytes are done, and says whether to go on.
pub type GoOn<'a> = &'a dyn Fn(u64) -> bool;

/// What came of sharing blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Both files have the same blocks now.
    Done,
    /// They have not the same content: what was equal before the first difference may be shared.
    Differs,
}

impl Editor<'_> {
    /// Gives the file at `from` below `source` another name, where nothing is.
    ///
    /// # Errors
    /// As [`Editor::make_dir`]; [`io::ErrorKind::CrossesDevices`].
    pub fn link(&self, source: &DirHandle, from: &str, to: &str) -> io::Result<()> {
        let (to_dir, to_name) = self.place(to)?;
        let (parent, name) = from.rsplit_once('/').unwrap_or(("", from));
        let name = CString::new(name)?;
        let from_dir = if parent.is_empty() { None } else { Some(source.open_dir_below(parent)?) };
        let from_dir = from_dir.as_ref().unwrap_or(source);
        self.ask(Change::MakeLink)?;
        // Without AT_SYMLINK_FOLLOW a link that was swapped in is not followed.
        Ok(rustix::fs::linkat(from_dir, &name, to_dir.get(self.root()), &to_name, AtFlags::empty())?)
    }

    /// Makes a file where nothing is that has the content of `source`, and its blocks until one of them is written to.
    ///
    /// # Errors
    /// As [`Editor::make_dir`]; [`io::ErrorKind::Unsupported`] where the filesystem cannot;
    /// [`io::ErrorKind::InvalidInput`] or [`io::ErrorKind::CrossesDevices`] where these two cannot.
    pub fn clone_file(&self, source: &File, to: &str) -> io::Result<()> {
        let (dir, name) = self.place(to)?;
        self.ask(Change::Write)?;
        #[cfg(target_vendor = "apple")]
        {
            let flags = rustix::fs::CloneFlags::empty();
            rustix::fs::fclonefileat(source, dir.get(self.root()), &name, flags).map_err(unsupported)
        }
        #[cfg(not(target_vendor = "apple"))]
        {
            let made = create(dir.get(self.root()), &name)?;
            let done = clone_into(&made, source);
            if done.is_err() {
                rustix::fs::unlinkat(dir.get(self.root()), &name, AtFlags::empty())?;
            }
            done
        }
    }

    /// Makes a file where nothing is with the content of `source` in blocks of its own; holes stay holes.
    ///
    /// # Errors
    /// As [`Editor::make_dir`]; [`io::ErrorKind::Interrupted`] when told to stop. A file that is not whole may be there.
    pub fn copy_file(&self, source: &File, to: &str, go_on: GoOn<'_>) -> io::Result<()> {
        let (dir, name) = self.place(to)?;
        self.ask(Change::Write)?;
        let made = create(dir.get(self.root()), &name)?;
        let length = source.metadata()?.len();
        let mut buffer = vec![0; BUFFER];
        let mut at = 0;
        let mut told = 0;
        while let Some((from, to)) = next_data(source, at, length)? {
            at = from;
            while at < to {
                let wanted = usize::try_from(to - at).map_or(BUFFER, |left| left.min(BUFFER));
                source.read_exact_at(&mut buffer[..wanted], at)?;
                made.write_all_at(&buffer[..wanted], at)?;
                at += wanted as u64;
                told += wanted as u64;
                if told >= STRIDE && !go_on(std::mem::take(&mut told)) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
        }
        self.ask(Change::Write)?;
        made.set_len(length)?;
        self.ask(Change::Sync)?;
        made.sync_all()
    }

    /// Gives the file at `path` the permissions, owners, extended attributes and times of another, and makes them last.
    ///
    /// # Errors
    /// As [`Editor::stat`]: also where this user may not give a file to that owner or group.
    pub fn dress(&self, path: &str, like: &File) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(dir.get(self.root()), &name, flags, Mode::empty())?);
        let (wanted, is) = (like.metadata()?, file.metadata()?);
        self.ask(Change::Attributes)?;
        if (is.uid(), is.gid()) != (wanted.uid(), wanted.gid()) {
            let (uid, gid) = (Uid::from_raw(wanted.uid()), Gid::from_raw(wanted.gid()));
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        let (own, others) = (xattrs(file.as_fd())?, xattrs(like.as_fd())?);
        for (name, _) in own.iter().filter(|(name, _)| !others.iter().any(|(other, _)| other == name)) {
            rustix::fs::fremovexattr(&file, name)?;
        }
        for (name, value) in others.iter().filter(|other| !own.contains(other)) {
            rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty())?;
        }
        let mode = Mode::from_raw_mode((wanted.mode() & 0o7777) as rustix::fs::RawMode);
        rustix::fs::fchmod(&file, mode)?;
        let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        rustix::fs::futimens(
            &file,
            &Timestamps {
                last_access: time(wanted.atime(), wanted.atime_nsec() as _),
                last_modification: time(wanted.mtime(), wanted.mtime_nsec() as _),
            },
        )?;
        self.ask(Change::Sync)?;
        file.sync_all()
    }

    /// Lets the file `into` have the blocks of `from`, without a change of its content, inode, attributes or times. The
    /// kernel compares both while it holds them still.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the filesystem cannot; [`io::ErrorKind::Interrupted`] when told to stop; what
    /// the system says.
    pub fn share_blocks(&self, from: &File, into: &File, go_on: GoOn<'_>) -> io::Result<Sharing> {
        self.ask(Change::Share)?;
        #[cfg(target_os = "linux")]
        return linux::share(from, into, go_on);
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (from, into, go_on);
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}

impl Stat {
    /// Of an open file.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_file(file: &File) -> io::Result<Self> {
        Ok(Stat::from_raw(&rustix::fs::fstat(file)?))
    }

    /// Whether nothing happened to the file between these two looks: device, inode, size, and times of modification and
    /// change.
    pub fn is_unchanged(&self, other: &Stat) -> bool {
        self.same_file(other)
            && (self.size, self.mtime_ns, self.ctime_ns) == (other.size, other.mtime_ns, other.ctime_ns)
    }
}

/// Whether two files have the same bytes.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] when told to stop; what the system says.
pub fn same_content(one: &File, other: &File, go_on: GoOn<'_>) -> io::Result<bool> {
    let length = one.metadata()?.len();
    if other.metadata()?.len() != length {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
    let (mut at, mut told) = (0, 0);
    while at < length {
        let wanted = usize::try_from(length - at).map_or(BUFFER, |rest| rest.min(BUFFER));
        one.read_exact_at(&mut left[..wanted], at)?;
        other.read_exact_at(&mut right[..wanted], at)?;
        if left[..wanted] != right[..wanted] {
            return Ok(false);
        }
        at += wanted as u64;
        told += wanted as u64;
        if told >= STRIDE && !go_on(std::mem::take(&mut told)) {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    Ok(true)
}

/// Whether two files have the same owners, permissions and extended attributes: what hard links of one file share.
///
/// # Errors
/// What the system says.
pub fn same_attributes(one: &File, other: &File) -> io::Result<bool> {
    let (left, right) = (one.metadata()?, other.metadata()?);
    let of = |meta: &std::fs::Metadata| (meta.mode(), meta.uid(), meta.gid());
    Ok(of(&left) == of(&right) && xattrs(one.as_fd())? == xattrs(other.as_fd())?)
}

/// Whether all blocks of both files are the same ones; `None` where the system does not say.
pub fn same_blocks(one: &File, other: &File) -> Option<bool> {
    Some(crate::extents::blocks(one)? == crate::extents::blocks(other)?)
}

/// The user that this process acts as.
pub fn acting_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn create(dir: &DirHandle, name: &CString) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Nobody else reads it before it has its own permissions.
    Ok(File::from(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?))
}

#[cfg(target_os = "linux")]
fn clone_into(made: &File, source: &File) -> io::Result<()> {
    rustix::fs::ioctl_ficlone(made, source).map_err(unsupported)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn clone_into(_: &File, _: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Filesystems have many ways to say that they cannot.
fn unsupported(error: Errno) -> io::Error {
    match error {
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS => io::ErrorKind::Unsupported.into(),
        // That says something of these two files alone.
        other => other.into(),
    }
}

/// The next stretch of a file that is no hole, from `at` on.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let from = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(from) => from,
        Err(Errno::NXIO) => return Ok(None),
        // A filesystem that knows of no holes.
        Err(Errno::INVAL | Errno::NOTSUP) => return Ok(Some((at, length))),
        Err(error) => return Err(error.into()),
    };
    let to = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(from))?;
    Ok(Some((from, to.min(length))))
}

/// Extended attributes, by name: what a file manager, a backup or an access control list keeps of a file or directory.
pub type Extended = Vec<(CString, Vec<u8>)>;

impl Editor<'_> {
    /// The extended attributes of the directory at a path; none where the filesystem has none.
    ///
    /// # Errors
    /// As [`Editor::stat`].
    pub fn extended_of_dir(&self, path: &str) -> io::Result<Extended> {
        let (dir, name) = self.place(path)?;
        let dir = dir.get(self.root()).open_dir(&name)?;
        // Most have none, and that takes one question.
        match rustix::fs::flistxattr_query(&dir) {
            Ok(0) | Err(Errno::NOTSUP | Errno::NOSYS) => Ok(Vec::new()),
            _ => xattrs(dir.as_fd()),
        }
    }

    /// Gives the directory at a path those of these extended attributes that it does not have yet.
    ///
    /// # Errors
    /// As [`Editor::stat`]: also where this user may not set one; the others are set all the same.
    pub fn extend_dir(&self, path: &str, extended: &Extended) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let dir = dir.get(self.root()).open_dir(&name)?;
        let mut failed = Ok(());
        for (name, value) in extended {
            self.ask(Change::Attributes)?;
            match rustix::fs::fsetxattr(&dir, name, value, XattrFlags::CREATE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => failed = Err(error.into()),
            }
        }
        failed
    }
}

/// Extended attributes, by name; none where the filesystem has none.
fn xattrs(file: BorrowedFd<'_>) -> io::Result<Extended> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::flistxattr(file, names.as_mut_slice()) {
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = CString::new(name)?;
        let size = rustix::fs::fgetxattr_query(file, &name)?;
        let mut value = vec![0; size];
        let length = rustix::fs::fgetxattr(file, &name, value.as_mut_slice())?;
        value.truncate(length);
        found.push((name, value));
    }
    found.sort();
    Ok(found)
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "FIDEDUPERANGE is an ioctl; its argument is laid out as linux/fs.h has it")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd as _;

    use rustix::io::Errno;
    use rustix::ioctl::{Updater, ioctl};

    use super::{GoOn, STRIDE, Sharing, unsupported};

    const FIDEDUPERANGE: rustix::ioctl::Opcode = 0xC018_9436;
    const DIFFERS: i32 = 1;

    /// `struct file_dedupe_range` with one `struct file_dedupe_range_info` behind it.
    #[repr(C)]
    struct Range {
        from_offset: u64,
        length: u64,
        count: u16,
        reserved: u16,
        reserved_too: u32,
        into: i64,
        into_offset: u64,
        done: u64,
        status: i32,
        reserved_info: u32,
    }

    pub(super) fn share(from: &File, into: &File, go_on: GoOn<'_>) -> io::Result<Sharing> {
        let length = from.metadata()?.len();
        let mut at = 0;
        while at < length {
            let mut range = Range {
                from_offset: at,
                length: STRIDE.min(length - at),
                count: 1,
                reserved: 0,
                reserved_too: 0,
                into: into.as_raw_fd().into(),
                into_offset: at,
                done: 0,
                status: 0,
                reserved_info: 0,
            };
            // SAFETY: `Range` has the layout of `struct file_dedupe_range` with `count` ranges behind it.
            unsafe { ioctl(from, Updater::<FIDEDUPERANGE, Range>::new(&mut range)) }.map_err(unsupported)?;
            match range.status {
                0 if range.done > 0 => {}
                DIFFERS => return Ok(Sharing::Differs),
                // Nothing was done and nothing is wrong: there is no way on.
                0 => return Err(io::ErrorKind::Unsupported.into()),
                error => return Err(unsupported(Errno::from_raw_os_error(-error))),
            }
            at += range.done;
            if !go_on(range.done) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        Ok(Sharing::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn go_on(_: u64) -> bool {
        true
    }

    fn root() -> (tempfile::TempDir, DirHandle) {
        let dir = tempfile::tempdir().unwrap();
        let root = DirHandle::open_root(dir.path()).unwrap();
        (dir, root)
    }

    fn allocated(path: &Path) -> u64 {
        fs_err::metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn a_copy_has_the_bytes_the_holes_and_the_attributes() {
        let (dir, root) = root();
        let editor = Editor::new(&root, &|_| Ok(()));
        let path = dir.path().join("one");
        let file = std::fs::File::options().create_new(true).write(true).read(true).open(&path).unwrap();
        file.write_all_at(b"head", 0).unwrap();
        file.write_all_at(b"tail", 40 << 20).unwrap();
        file.set_len(50 << 20).unwrap();
        fs_err::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o440)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_890_123_456_789))
            .unwrap();
        editor.copy_file(&file, "two", &go_on).unwrap();
        editor.dress("two", &file).unwrap();
        let copy = root.open_below("two").unwrap();
        assert!(same_content(&file, &copy, &go_on).unwrap());
        assert!(same_attributes(&file, &copy).unwrap());
        assert_eq!(Stat::of_file(&file).unwrap().mtime_ns, Stat::of_file(&copy).unwrap().mtime_ns);
        assert_eq!(allocated(&path), allocated(&dir.path().join("two")));
        copy_differs_in_the_middle(&dir.path().join("two"), &file);
    }

    fn copy_differs_in_the_middle(path: &Path, file: &File) {
        fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        let copy = std::fs::File::options().write(true).read(true).open(path).unwrap();
        copy.write_all_at(b"x", 20 << 20).unwrap();
        assert!(!same_content(file, &copy, &go_on).unwrap());
        assert!(!same_attributes(file, &copy).unwrap());
    }

    #[test]
    fn extended_attributes_are_compared_and_kept_with_their_values() {
        let (dir, root) = root();
        let editor = Editor::new(&root, &|_| Ok(()));
        let make = |name: &str, value: &[u8]| {
            let path = dir.path().join(name);
            let file = std::fs::File::options().create_new(true).write(true).read(true).open(path).unwrap();
            rustix::fs::fsetxattr(&file, "user.mark", value, XattrFlags::empty()).map(|()| file)
        };
        // Not every filesystem has them.
        let (Ok(one), Ok(two)) = (make("one", b"mine"), make("two", b"theirs")) else { return };
        assert!(!same_attributes(&one, &two).unwrap());
        editor.dress("two", &one).unwrap();
        assert!(same_attributes(&one, &two).unwrap());
        assert_eq!(xattrs(two.as_fd()).unwrap(), [(CString::from(c"user.mark"), b"mine".to_vec())]);
        fs_err::create_dir(dir.path().join("dir")).unwrap();
        let extended = xattrs(one.as_fd()).unwrap();
        editor.extend_dir("dir", &extended).unwrap();
        assert_eq!(editor.extended_of_dir("dir").unwrap(), extended);
    }

    #[test]
    fn a_link_that_was_swapped_in_is_not_followed() {
        let (dir, root) = root();
        let editor = Editor::new(&root, &|_| Ok(()));
        fs_err::write(dir.path().join("real"), "x").unwrap();
        fs_err::os::unix::fs::symlink("real", dir.path().join("swapped")).unwrap();
        editor.link(&root, "swapped", "new").unwrap();
        assert!(root.stat_below("new").unwrap().kind == crate::EntryKind::Link);
        editor.link(&root, "real", "other").unwrap();
        assert!(root.stat_below("real").unwrap().same_file(&root.stat_below("other").unwrap()));
        assert!(editor.link(&root, "real", "other").is_err());
    }
}
