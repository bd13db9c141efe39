//! What verifications found: the newest one in the manifest, every one in the history, and recorded answers.
//!
//! ```text
//! <home>/history.jsonl               a verification a line, the newest last
//! <home>/answers/<name>.answers.json recorded answers, named as the manifest is
//! ```

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Registry, RegistryError, Row, names, whole_file};
use crate::schema::check_manifest;
use crate::verification::{Verification, VerifiedLevel, VerifiedModel};

impl Registry {
    /// Where every verification's result stands, one a line.
    pub fn history_file(&self) -> PathBuf {
        self.home.join("history.jsonl")
    }

    /// Where the recorded answers of a model stand; the same on every run.
    pub fn answers_file(&self, store: &str, key: &str, model: &str) -> PathBuf {
        let name = names::in_registry(store, key, &model.replace('/', "--"), None);
        let name = name.strip_suffix(".manifest.json").unwrap_or(&name);
        self.home.join("answers").join(format!("{name}.answers.json"))
    }

    /// Writes recorded answers.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_answers(&self, path: &Path, bytes: &[u8]) -> Result<(), RegistryError> {
        let _lock = self.lock(&|| {})?;
        let failed = |source| RegistryError::Io { doing: "write the answers", path: path.to_owned(), source };
        fs_err::create_dir_all(self.home.join("answers")).map_err(failed)?;
        whole_file::write(path, bytes).map_err(failed)
    }

    /// Keeps what a verification found: a line in the history, and the manifest's `verification` (or `integrity`, for
    /// a verification of the contents) where there is a manifest (`row`) that does not know more of the same files
    /// already.
    ///
    /// # Errors
    /// When the history or the manifest cannot be read or written.
    pub fn keep_verification(&self, result: &VerifiedModel, row: Option<&Row>) -> Result<(), RegistryError> {
        let _lock = self.lock(&|| {})?;
        self.append_history(result)?;
        let Some(row) = row.filter(|row| row.away.is_none() && row.invalid.is_none()) else { return Ok(()) };
        let target = &row.target;
        let _locks = self.lock_folders(std::iter::once(target), &|| {});
        // Under the lock, for another process may just have written there.
        let from = if self.stamp_of(target).is_some() { target } else { &row.path };
        let mut document = self.read_upgraded(from, &row.summary)?;
        let field = match result.verification.level {
            VerifiedLevel::Integrity => "integrity",
            VerifiedLevel::Structure | VerifiedLevel::Load | VerifiedLevel::Generate => "verification",
        };
        let before: Option<Verification> =
            document.get(field).cloned().and_then(|before| serde_json::from_value(before).ok());
        if before.is_some_and(|before| !result.verification.replaces(&before)) {
            return Ok(());
        }
        let io = |source: serde_json::Error| RegistryError::Io {
            doing: "write the manifest",
            path: target.clone(),
            source: source.into(),
        };
        document[field] = serde_json::to_value(&result.verification).map_err(io)?;
        check_manifest(&document)
            .map_err(|source| RegistryError::Invalid { path: target.clone(), source })?;
        self.write_document(target, &document)
    }

    /// One write of a whole line. A line that a killed writer left unfinished stays alone on its line.
    fn append_history(&self, result: &VerifiedModel) -> Result<(), RegistryError> {
        let path = self.history_file();
        let failed = |source| RegistryError::Io { doing: "write the history", path: path.clone(), source };
        let mut line = serde_json::to_vec(result).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let mut file =
            std::fs::OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(failed)?;
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(-1)).is_ok() {
            file.read_exact(&mut last).map_err(failed)?;
        }
        if last != *b"\n" {
            line.insert(0, b'\n');
        }
        file.write_all(&line).and_then(|()| file.sync_data()).map_err(failed)
    }

    /// The history, oldest first; lines that are no results are left out.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn history(&self) -> Result<Vec<VerifiedModel>, RegistryError> {
        let path = self.history_file();
        let text = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(RegistryError::Io { doing: "read the history", path, source }),
        };
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

/// The verification in a field of an older document; stale if it is about other files than those with the stamp
/// `files`.
pub(super) fn carried(document: &Value, field: &str, files: &str) -> Option<Verification> {
    let mut verification: Verification = serde_json::from_value(document.get(field)?.clone()).ok()?;
    verification.stale = verification.files != files;
    Some(verification)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verification::Verdict;

    #[test]
    fn the_history_outlives_a_writer_that_was_killed() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path());
        let now = chrono::DateTime::<chrono::Utc>::UNIX_EPOCH;
        let one = VerifiedModel {
            model: "a".to_owned(),
            path: "/a".to_owned(),
            store: None,
            key: None,
            verification: Verification::new(VerifiedLevel::Load, Verdict::Pass, now, "x".to_owned()),
        };
        registry.keep_verification(&one, None).unwrap();
        let mut file = fs_err::OpenOptions::new().append(true).open(registry.history_file()).unwrap();
        file.write_all(b"{\"model\": \"half").unwrap();
        registry.keep_verification(&one, None).unwrap();
        assert_eq!(registry.history().unwrap(), [one.clone(), one]);
    }
}
