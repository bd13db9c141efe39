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

/// JSON as Python's `json` reads it, which writes these files and knows `NaN`, `Infinity` and `-Infinity`: they become the
/// texts of these names. So they are no numbers, and whoever needs one there is told what stands there; whoever does
/// not need it never sees it.
///
/// # Errors
/// When it is no JSON beside that.
pub fn parse_json(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(bytes).or_else(|error| match with_numbers_quoted(bytes) {
        Some(quoted) => serde_json::from_slice(&quoted),
        None => Err(error),
    })
}

/// The same with quotes around Python's words for numbers that are none; `None` where there is no such word.
fn with_numbers_quoted(bytes: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut quoted = Vec::with_capacity(bytes.len() + 16);
    let (mut at, mut in_text, mut any) = (0, false, false);
    while let Some(byte) = bytes.get(at) {
        let word = WORDS.iter().find(|word| !in_text && bytes[at..].starts_with(word));
        let length = match (byte, word) {
            (_, Some(word)) => word.len(),
            // What is escaped in a text ends none.
            (b'\\', None) if in_text => 2.min(bytes.len() - at),
            _ => 1,
        };
        in_text ^= *byte == b'"';
        any |= word.is_some();
        let quote: &[u8] = if word.is_some() { b"\"" } else { b"" };
        for part in [quote, &bytes[at..at + length], quote] {
            quoted.extend_from_slice(part);
        }
        at += length;
    }
    any.then_some(quoted)
}

/// A file's JSON, where there is one.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, FileError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    parse_json(&bytes)
        .map(Some)
        .map_err(|error| FileError::new(path, format!("is not JSON ({error}); download it again")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn python_has_numbers_that_are_none() {
        let text = br#"{"a": [0.0, Infinity, -Infinity], "b": NaN, "say \"NaN\"": "Infinity, \\", "c": 1}"#;
        let wanted =
            json!({"a": [0.0, "Infinity", "-Infinity"], "b": "NaN", "say \"NaN\"": "Infinity, \\", "c": 1});
        assert_eq!(parse_json(text).unwrap(), wanted);
        for text in [&b"{NaN}"[..], b"[1, Inf]", b"[NaN", b"\"a\\", b"", b"[NaNInfinity]"] {
            assert!(parse_json(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }
}
