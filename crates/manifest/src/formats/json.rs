//! JSON files of a bounded size: `config.json`, `tokenizer_config.json`, `adapter_config.json`, an index.
//!
//! transformers, mlx-lm and peft write them with Python's `json` module, which also writes the bare words `NaN`,
//! `Infinity` and `-Infinity`. JSON has no such words; here they are read as `null`.

use std::borrow::Cow;
use std::io::{self, Read};

use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Why a JSON file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The reader failed.
    #[error("it could not be read")]
    Io(#[from] io::Error),
    /// More bytes than the caller is willing to hold.
    #[error("it is larger than the {limit} bytes allowed for it")]
    TooLarge {
        /// The caller's limit, in bytes.
        limit: u64,
    },
    /// Bytes that are not UTF-8.
    #[error("it is not UTF-8 text: byte {offset} is not part of a character")]
    NotUtf8 {
        /// Bytes before the first wrong one, a byte order mark not counted.
        offset: u64,
    },
    /// Not JSON, or nested more than 127 levels deep.
    #[error("it is not valid JSON: {msg}, at line {line} column {column}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes; 0 before a line's first byte.
        column: usize,
        /// What the parser found.
        msg: String,
    },
    /// JSON, but not of the shape that was asked for.
    #[error("it is JSON of an unexpected shape: {msg}, at line {line} column {column}")]
    Shape {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes; 0 before a line's first byte.
        column: usize,
        /// What was expected and what was there.
        msg: String,
    },
}

/// Reads one JSON document of at most `limit_bytes` bytes.
///
/// A UTF-8 byte order mark is skipped. Python's `NaN`, `Infinity` and `-Infinity` become `null`, so a `T` that wants a
/// number there has to take an `Option`. After such a replacement the column of an error may be off on that line.
///
/// # Errors
/// See [`JsonError`]. Nesting beyond serde_json's limit of 127 levels is a [`JsonError::Syntax`] wherever `T` looks
/// into the value; a field that `T` ignores is skipped without recursion, however deep it is.
pub fn read_json<T: DeserializeOwned>(reader: impl Read, limit_bytes: u64) -> Result<T, JsonError> {
    let mut bytes = Vec::new();
    reader.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(JsonError::TooLarge { limit: limit_bytes });
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let text =
        std::str::from_utf8(bytes).map_err(|e| JsonError::NotUtf8 { offset: e.valid_up_to() as u64 })?;
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) if error.classify() == Category::Syntax => match without_python_numbers(text) {
            Cow::Borrowed(_) => Err(error.into()),
            Cow::Owned(text) => Ok(serde_json::from_str(&text)?),
        },
        Err(error) => Err(error.into()),
    }
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let msg = message(&error);
        match error.classify() {
            Category::Data => Self::Shape { line, column, msg },
            Category::Io | Category::Syntax | Category::Eof => Self::Syntax { line, column, msg },
        }
    }
}

/// The error's text without the position that serde_json puts behind it.
pub(super) fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).unwrap_or(&text).to_owned()
}

/// `text` with each bare `NaN`, `Infinity` and `-Infinity` outside strings replaced by `null`; borrowed where there is
/// none.
fn without_python_numbers(text: &str) -> Cow<'_, str> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while let Some(&byte) = bytes.get(at) {
        let step = match byte {
            b'\\' if in_string => 2,
            b'"' => {
                in_string = !in_string;
                1
            }
            b'-' | b'I' | b'N' if !in_string => {
                match WORDS.iter().find(|w| bytes[at..].starts_with(w.as_bytes())) {
                    Some(word) => {
                        out.push_str(&text[copied..at]);
                        out.push_str("null");
                        copied = at + word.len();
                        word.len()
                    }
                    None => 1,
                }
            }
            _ => 1,
        };
        at += step;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
