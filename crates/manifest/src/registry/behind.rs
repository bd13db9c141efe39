//! Stores that somebody was about to change: until a sync has seen them since, the manifests may be behind.
//!
//! A store's journal and the manifests lie on different filesystems, so no one step can change both. A note of the store is
//! on the disk before the first change, in `behind/` of the registry's home, and goes with the sync that comes after: who is
//! killed in between leaves it, and the next command brings the manifests up to date.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use mlxman_store::StoreSpec;

use super::{Registry, RegistryError, SyncReport, whole_file};

/// One note: which store, and the file with its inode and time of last modification.
pub(super) struct Note {
    spec: StoreSpec,
    path: PathBuf,
    stamp: Option<(u64, i64, i64)>,
}

impl Registry {
    fn behind_dir(&self) -> PathBuf {
        self.home.join("behind")
    }

    /// Notes, so that it lasts, that these stores are going to be changed. The next [`Registry::sync`] of all that lies in a
    /// store takes its note away.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn will_change(&self, stores: &[StoreSpec]) -> Result<(), RegistryError> {
        let dir = self.behind_dir();
        let failed = |source| RegistryError::Io { doing: "write into", path: dir.clone(), source };
        if stores.is_empty() {
            return Ok(());
        }
        fs_err::create_dir_all(&dir).map_err(failed)?;
        for spec in stores {
            let id = spec.id();
            let name = blake3::hash(id.as_bytes()).to_hex();
            whole_file::write(&dir.join(&name[..16]), id.as_bytes()).map_err(failed)?;
        }
        sync_dir(&dir).and_then(|()| sync_dir(&self.home)).map_err(failed)
    }

    /// Stores that were, or are being, changed, and that no sync has seen since: what the manifests say of them may be
    /// behind.
    pub fn behind(&self) -> Vec<StoreSpec> {
        let mut stores: Vec<StoreSpec> = self.notes().into_iter().map(|note| note.spec).collect();
        stores.sort();
        stores
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let Ok(entries) = fs_err::read_dir(self.behind_dir()) else { return Vec::new() };
        let note = |path: PathBuf| {
            let stamp = stamp_of(&path);
            let spec = fs_err::read_to_string(&path).ok()?.parse().ok()?;
            Some(Note { spec, path, stamp })
        };
        entries.flatten().filter_map(|entry| note(entry.path())).collect()
    }

    /// Takes away the notes, of those from before a sync, of the stores that it read; one that was written anew meanwhile is
    /// another's.
    pub(super) fn caught_up(&self, notes: Vec<Note>, stores: &[StoreSpec], report: &SyncReport) {
        let is_read = |note: &Note| stores.contains(&note.spec) && report.has_read(&note.spec);
        for note in notes.into_iter().filter(is_read) {
            if note.stamp == stamp_of(&note.path) {
                // Should it stay, the next command syncs once more.
                let _ = fs_err::remove_file(&note.path);
            }
        }
    }
}

fn stamp_of(path: &Path) -> Option<(u64, i64, i64)> {
    let meta = path.symlink_metadata().ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

fn sync_dir(path: &Path) -> std::io::Result<()> {
    fs_err::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use mlxman_store::StoreKind;

    use super::*;
    use crate::catalog::Catalog;
    use crate::registry::SyncOptions;

    #[test]
    fn a_store_is_behind_until_it_is_synced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path().join("home"));
        let here = StoreSpec::new(StoreKind::Folder, dir.path().join("models"));
        let away = StoreSpec::new(StoreKind::Folder, dir.path().join("away"));
        fs_err::create_dir(here.root()).unwrap();
        assert!(registry.behind().is_empty());
        registry.will_change(&[here.clone(), away.clone()]).unwrap();
        registry.will_change(std::slice::from_ref(&here)).unwrap();
        assert_eq!(registry.behind(), [away.clone(), here.clone()]);

        let sync = |options: &SyncOptions| {
            let stores = [here.clone(), away.clone()];
            drop(registry.sync(&stores, &Catalog::built_in(), options, &()).unwrap());
        };
        let options = SyncOptions::fast(chrono::Utc::now());
        sync(&SyncOptions { dry_run: true, ..options.clone() });
        sync(&SyncOptions { only: vec!["none".to_owned()], ..options.clone() });
        assert_eq!(registry.behind().len(), 2, "not all of it was written");
        sync(&options);
        assert_eq!(registry.behind(), std::slice::from_ref(&away), "what cannot be read is still behind");

        let notes = registry.notes();
        registry.will_change(std::slice::from_ref(&away)).unwrap();
        fs_err::create_dir(away.root()).unwrap();
        let report = registry.sync(std::slice::from_ref(&here), &Catalog::built_in(), &options, &()).unwrap();
        registry.caught_up(notes, std::slice::from_ref(&away), &report);
        assert_eq!(registry.behind(), [away], "what was noted meanwhile stays");
    }
}
