//! Reading the small files beside a model's weights.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of a model that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {why}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub why: String,
}

impl FileError {
    pub(crate) fn new(path: &Path, why: String) -> Self {
        FileError { path: path.to_owned(), why }
    }
}

/// A file's bytes, where there is one.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    // A pipe would never end.
    if fs_err::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(FileError::new(path, "is no file".to_owned()));
    }
    match fs_err::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new(path, format!("cannot be read ({error}); see who may read it"))),
    }
}

/// A file's text, where there is one.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, FileError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| FileError::new(path, "is not UTF-8; download it again".to_owned()))
}

/// A file's JSON, where there is one.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, FileError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| FileError::new(path, format!("is not JSON ({error}); download it again")))
}
