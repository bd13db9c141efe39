//! Parsers of files that other programs wrote: weights' headers, model cards, configs.
//!
//! Everything here is pure: a reader goes in, a value or an error comes out, and no path, clock or environment is
//! looked at. The input is taken to be hostile. No count is believed before it was held against the file's length, no
//! parser recurses without a limit, and none reads a tensor's data.
//!
//! Errors say what is wrong with the content and leave the path to the caller, who knows it.

pub mod front_matter;
pub mod gguf;
pub mod json;
pub mod safetensors;

/// What a file's length says about it, held against the length its header promises.
///
/// It says nothing of the content: a flipped bit leaves a file `Complete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthVerdict {
    /// The file is as long as its header says.
    Complete,
    /// The file ends before its last tensor does. The usual cause is a download that broke off.
    Truncated {
        /// Bytes that the whole file needs at least.
        expected: u64,
        /// Bytes that there are.
        actual: u64,
    },
    /// Bytes follow the last tensor that no tensor owns.
    Trailing {
        /// How many.
        extra: u64,
    },
}

/// The first bytes of a file as text, where they are text: for telling a Git LFS pointer or an error page, stored in
/// place of the weights, from a damaged file.
fn as_text(start: &[u8]) -> Option<String> {
    let printable = |b: &u8| b.is_ascii_graphic() || matches!(b, b' ' | b'\n' | b'\r' | b'\t');
    (!start.is_empty() && start.iter().all(printable)).then(|| String::from_utf8_lossy(start).into_owned())
}

#[cfg(test)]
mod mutate;
