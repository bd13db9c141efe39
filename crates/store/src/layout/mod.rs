//! One module a layout; nothing outside this folder knows how a store is laid out.

mod folder;
mod hub;

use crate::filesystem::Filesystem;
use crate::scan::{Scan, ScanError};
use crate::spec::{StoreKind, StoreSpec};
use crate::watch::Progress;

/// How one kind of store is read. LM Studio's and Ollama's get a module and a [`StoreKind`] each.
pub trait Layout: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> StoreKind;

    /// Walks the store once.
    ///
    /// # Errors
    /// Only when the root itself cannot be opened; whatever else cannot be read is a row in the scan.
    fn scan(&self, spec: &StoreSpec, progress: &Progress) -> Result<Scan, ScanError>;
}

/// The layout of a kind of store.
pub fn layout_of(kind: StoreKind) -> &'static dyn Layout {
    match kind {
        StoreKind::Hub => &hub::Hub,
        StoreKind::Folder => &folder::Folder,
    }
}

fn open(spec: &StoreSpec) -> Result<(crate::access::DirHandle, Option<Filesystem>), ScanError> {
    let unavailable = |source| ScanError::Unavailable { root: spec.root().to_owned(), source };
    let root = crate::access::DirHandle::open_root(spec.root()).map_err(unavailable)?;
    Ok((root, Filesystem::of(spec.root()).ok()))
}

/// What of a file's allocation is certainly its own. Asked only where files can share blocks; where the system does
/// not say, its allocation is taken for its own, as `du` does.
fn certain_of(asks: bool, dir: &crate::access::DirHandle, entry: &crate::access::Entry) -> u64 {
    let allocated = entry.stat.allocated;
    if !asks || allocated == 0 {
        return allocated;
    }
    let file = dir.open_file(&entry.raw_name).ok();
    file.and_then(|file| crate::extents::private_bytes(&file, allocated)).unwrap_or(allocated)
}
