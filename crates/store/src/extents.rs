//! How much of a file's allocation is its own, on filesystems where files can share blocks.

use std::fs::File;

/// Bytes of `file`'s allocation that are certainly its own: a lower bound of what removing it frees. `None` where the
/// system does not say.
pub(crate) fn private_bytes(file: &File, allocated: u64) -> Option<u64> {
    #[cfg(target_os = "linux")]
    return linux::shared_bytes(file).map(|shared| allocated.saturating_sub(shared));
    #[cfg(target_os = "macos")]
    return macos::private_bytes(file).map(|private| private.min(allocated));
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    {
        let _ = (file, allocated);
        None
    }
}

/// Where a file's blocks lie: place in the file, place on the disk, length. `None` where the system does not say.
pub(crate) fn blocks(file: &File) -> Option<Vec<(u64, u64, u64)>> {
    #[cfg(target_os = "linux")]
    return linux::blocks(file);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        None
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "FIEMAP is an ioctl; its argument is laid out as linux/fiemap.h has it")]
mod linux {
    use std::fs::File;

    use rustix::ioctl::{Updater, ioctl};

    const FS_IOC_FIEMAP: rustix::ioctl::Opcode = 0xC020_660B;
    const EXTENT_LAST: u32 = 0x1;
    const EXTENT_SHARED: u32 = 0x2000;
    /// Its place is not known, not yet given, or no block of its own.
    const EXTENT_NOWHERE: u32 = 0x2 | 0x4 | 0x100 | 0x200 | 0x400;
    const BATCH: usize = 64;

    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Extent {
        logical: u64,
        physical: u64,
        length: u64,
        reserved64: [u64; 2],
        flags: u32,
        reserved: [u32; 3],
    }

    #[repr(C)]
    struct Map {
        start: u64,
        length: u64,
        flags: u32,
        mapped: u32,
        count: u32,
        reserved: u32,
        extents: [Extent; BATCH],
    }

    /// Bytes in extents that another file shares, or `None` where the filesystem does not say.
    pub(super) fn shared_bytes(file: &File) -> Option<u64> {
        let mut shared = 0u64;
        for_each(file, |extent| {
            if extent.flags & EXTENT_SHARED != 0 {
                shared = shared.saturating_add(extent.length);
            }
            true
        })?;
        Some(shared)
    }

    /// The extents of a file; those that follow each other on the disk as in the file are one.
    pub(super) fn blocks(file: &File) -> Option<Vec<(u64, u64, u64)>> {
        let mut blocks: Vec<(u64, u64, u64)> = Vec::new();
        for_each(file, |extent| {
            if extent.flags & EXTENT_NOWHERE != 0 {
                return false;
            }
            let next = |(logical, physical, length): &(u64, u64, u64)| {
                Some((logical.checked_add(*length)?, physical.checked_add(*length)?))
            };
            match blocks.last_mut() {
                Some(last) if next(last) == Some((extent.logical, extent.physical)) => {
                    last.2 = last.2.saturating_add(extent.length);
                }
                _ => blocks.push((extent.logical, extent.physical, extent.length)),
            }
            true
        })?;
        Some(blocks)
    }

    /// Calls `each` with every extent; `None` where the filesystem does not say, or `each` has seen enough.
    fn for_each(file: &File, mut each: impl FnMut(&Extent) -> bool) -> Option<()> {
        let mut start = 0u64;
        loop {
            let mut map = Map {
                start,
                length: u64::MAX - start,
                flags: 0,
                mapped: 0,
                count: BATCH as u32,
                reserved: 0,
                extents: [Extent::default(); BATCH],
            };
            // SAFETY: `Map` has the layout of `struct fiemap` with `count` extents behind it.
            unsafe { ioctl(file, Updater::<FS_IOC_FIEMAP, Map>::new(&mut map)) }.ok()?;
            let found = map.extents.get(..map.mapped as usize)?;
            if !found.iter().all(&mut each) {
                return None;
            }
            match found.last() {
                Some(last) if last.flags & EXTENT_LAST == 0 => {
                    let next = last.logical.checked_add(last.length)?;
                    if next <= start {
                        return None;
                    }
                    start = next;
                }
                _ => return Some(()),
            }
        }
    }
}

#[cfg(target_os = "macos")]
#[expect(
    unsafe_code,
    reason = "fgetattrlist is a C function; its buffer is laid out as getattrlist(2) has it"
)]
mod macos {
    use std::fs::File;
    use std::mem::size_of;
    use std::os::fd::AsRawFd;

    /// What `ATTR_CMNEXT_PRIVATESIZE` fills: the buffer's length, then an `off_t`, packed to four bytes.
    #[repr(C, packed(4))]
    struct Answer {
        length: u32,
        private: libc::off_t,
    }

    /// Bytes that removing the file would free: what APFS clones and snapshots share is left out.
    pub(super) fn private_bytes(file: &File) -> Option<u64> {
        let mut asked = libc::attrlist {
            bitmapcount: libc::ATTR_BIT_MAP_COUNT,
            reserved: 0,
            commonattr: 0,
            volattr: 0,
            dirattr: 0,
            fileattr: 0,
            // With FSOPT_ATTR_CMN_EXTENDED this field holds the extended common attributes.
            forkattr: libc::ATTR_CMNEXT_PRIVATESIZE,
        };
        let mut answer = Answer { length: 0, private: 0 };
        // SAFETY: both buffers outlive the call and have the sizes that are given.
        let status = unsafe {
            libc::fgetattrlist(
                file.as_raw_fd(),
                (&raw mut asked).cast(),
                (&raw mut answer).cast(),
                size_of::<Answer>(),
                libc::FSOPT_ATTR_CMN_EXTENDED,
            )
        };
        let (length, private) = (answer.length, answer.private);
        (status == 0 && length as usize == size_of::<Answer>()).then(|| u64::try_from(private).ok()).flatten()
    }
}
