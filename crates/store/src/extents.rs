//! How much of a file's allocation is its own, on filesystems where files can share blocks.

use std::fs::File;

/// Bytes of `file`'s allocation that are certainly its own: a lower bound, at most `allocated`. 0 where the system
/// cannot tell.
#[cfg(target_os = "linux")]
pub(crate) fn private_bytes(file: &File, allocated: u64) -> u64 {
    linux::shared_bytes(file).map_or(0, |shared| allocated.saturating_sub(shared))
}

/// Bytes of `file`'s allocation that are certainly its own. Not asked yet on this system, so none are certain.
#[cfg(not(target_os = "linux"))]
pub(crate) fn private_bytes(_file: &File, _allocated: u64) -> u64 {
    0
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "FIEMAP is an ioctl; its argument is laid out as linux/fiemap.h has it")]
mod linux {
    use std::fs::File;

    use rustix::ioctl::{Updater, ioctl};

    const FS_IOC_FIEMAP: rustix::ioctl::Opcode = 0xC020_660B;
    const EXTENT_LAST: u32 = 0x1;
    const EXTENT_SHARED: u32 = 0x2000;
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
            for extent in found {
                if extent.flags & EXTENT_SHARED != 0 {
                    shared = shared.saturating_add(extent.length);
                }
            }
            match found.last() {
                Some(last) if last.flags & EXTENT_LAST == 0 => {
                    let next = last.logical.checked_add(last.length)?;
                    if next <= start {
                        return None;
                    }
                    start = next;
                }
                _ => return Some(shared),
            }
        }
    }
}
