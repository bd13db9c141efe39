//! When models were used: the log in the registry's home, laid over what the files' times say.

use std::path::PathBuf;

use mlxman_store::{Use, UseLog, Uses};

use super::{Registry, RegistryError, Row, StoreSurvey, whole_file};

impl Registry {
    /// Where the uses of models are recorded, one a line.
    pub fn uses_file(&self) -> PathBuf {
        self.home.join("uses.jsonl")
    }

    /// Records the use of a model. A log that has become long is written anew, unless somebody else is at work on the
    /// registry: then another time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_use(&self, one: &Use) -> Result<(), RegistryError> {
        let path = self.uses_file();
        let failed =
            |source| RegistryError::Io { doing: "write the log of uses", path: path.clone(), source };
        fs_err::create_dir_all(&self.home).map_err(failed)?;
        let log = UseLog::at(&path);
        let is_long = log.record(one).map_err(failed)?;
        if is_long && let Some(_lock) = self.try_lock() {
            log.compact(whole_file::write).map_err(failed)?;
        }
        Ok(())
    }

    /// The recorded uses.
    ///
    /// # Errors
    /// When the log is there and cannot be read.
    pub fn uses(&self) -> Result<Uses, RegistryError> {
        let path = self.uses_file();
        UseLog::at(&path).read().map_err(|source| RegistryError::Io {
            doing: "read the log of uses",
            path,
            source,
        })
    }

    /// The registry's lock, if nobody has it.
    fn try_lock(&self) -> Option<std::fs::File> {
        let path = self.home.join("lock");
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
        file.try_lock().ok()?;
        Some(file)
    }
}

/// Adds to each row when its model was used.
pub(super) fn to_rows(uses: &Uses, rows: &mut [Row]) {
    for summary in rows.iter_mut().map(|row| &mut row.summary) {
        summary.logged = uses.last(&summary.store, &summary.key).map(|one| one.time);
    }
}

/// The same for what was found in stores.
pub(super) fn to_stores(uses: &Uses, stores: &mut [StoreSurvey]) {
    for summary in stores.iter_mut().flat_map(|store| &mut store.models).map(|model| &mut model.summary) {
        summary.logged = uses.last(&summary.store, &summary.key).map(|one| one.time);
    }
}
