use std::io;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The filesystem that a store lies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Filesystem {
    /// Its type, such as `ext4`, `apfs`, `xfs`, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that an unprivileged user may still write.
    pub free_bytes: u64,
    /// Whether two files may share blocks there (reflinks, clones) and the system can tell which do. What a removal
    /// frees is then told as "at least" where some of it is shared.
    pub shares_blocks: bool,
}

impl Filesystem {
    /// Asks about the filesystem that holds `path`.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        let vfs = rustix::fs::statvfs(path)?;
        let kind = kind_of(path)?;
        let shares_blocks =
            matches!(kind.as_deref(), Some("btrfs" | "xfs" | "bcachefs" | "apfs" | "ocfs2" | "overlay"));
        Ok(Filesystem {
            kind,
            total_bytes: vfs.f_blocks.saturating_mul(vfs.f_frsize),
            free_bytes: vfs.f_bavail.saturating_mul(vfs.f_frsize),
            shares_blocks,
        })
    }
}

#[cfg(target_os = "linux")]
fn kind_of(path: &Path) -> io::Result<Option<String>> {
    // The numbers are the kernel's, from statfs(2) and linux/magic.h.
    let magic = rustix::fs::statfs(path)?.f_type as u32;
    let name = match magic {
        0xEF53 => "ext4",
        0x9123_683E => "btrfs",
        0x5846_5342 => "xfs",
        0xCA45_1A4E => "bcachefs",
        0x2FC1_2FC1 => "zfs",
        0x0102_1994 => "tmpfs",
        0x794C_7630 => "overlay",
        0x6969 => "nfs",
        0xFF53_4D42 | 0xFE53_4D42 => "cifs",
        0x6573_5546 => "fuse",
        0x4D44 => "vfat",
        0x2011_BAB0 => "exfat",
        0x7461_636F => "ocfs2",
        0x5346_544E | 0x7366_746E => "ntfs",
        0xF2F5_2010 => "f2fs",
        _ => return Ok(None),
    };
    Ok(Some(name.to_owned()))
}

#[cfg(target_os = "macos")]
fn kind_of(path: &Path) -> io::Result<Option<String>> {
    let name = rustix::fs::statfs(path)?.f_fstypename;
    let bytes: Vec<u8> = name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    Ok(String::from_utf8(bytes).ok())
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn kind_of(_path: &Path) -> io::Result<Option<String>> {
    Ok(None)
}
