//! The header of a `.safetensors` file, as the safetensors library, `mlx.core.save_safetensors` and everything built
//! on them write it.
//!
//! Layout: eight bytes with the header's length `n`, little endian; `n` bytes of JSON, padded with spaces; the tensors'
//! data. The JSON maps each tensor's name to `{"dtype", "shape", "data_offsets": [begin, end]}`, offsets in bytes from
//! the start of the data; `__metadata__` maps strings to strings.

mod dtype;
mod parse;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};

pub use self::dtype::Dtype;
use self::parse::Parsed;
use super::LengthVerdict;

/// The longest header that is read, in bytes; the safetensors library has the same limit.
pub const MAX_HEADER_LEN: u64 = 100_000_000;

/// Why a header could not be read at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The reader failed.
    #[error("the header could not be read")]
    Io(#[from] io::Error),
    /// The file begins with text instead of a length.
    #[error(
        "the file begins with the text {start:?}: a Git LFS pointer, a link or an error page in place of weights?"
    )]
    Text {
        /// Its first eight bytes.
        start: String,
    },
    /// The header claims more than [`MAX_HEADER_LEN`]; nothing was allocated for it.
    #[error("the header claims {len} bytes, more than the {MAX_HEADER_LEN} that the format allows")]
    TooLarge {
        /// The claimed length of the JSON, in bytes.
        len: u64,
    },
    /// The file ends within its header.
    #[error("the file ends within its header: {actual} bytes of {expected}")]
    Truncated {
        /// Bytes that the length and the header need.
        expected: u64,
        /// Bytes that there are.
        actual: u64,
    },
    /// The header is not JSON of the format's shape. Nesting beyond it counts as such.
    #[error("the header is not valid: {message}, at its line {line} column {column}")]
    Json {
        /// What the parser found.
        message: String,
        /// Within the header, counted from 1.
        line: usize,
        /// Within the line, counted from 1, in bytes.
        column: usize,
    },
    /// A tensor's `data_offsets` are not two whole numbers of 0 to 2^64 - 1.
    #[error("the offsets of tensor {tensor:?} are not two whole, non-negative numbers")]
    OffsetsInvalid {
        /// The tensor's name.
        tensor: Box<str>,
    },
    /// A tensor's `shape` holds something else than whole numbers of 0 to 2^64 - 1.
    #[error("the shape of tensor {tensor:?} is not a list of whole, non-negative numbers")]
    ShapeInvalid {
        /// The tensor's name.
        tensor: Box<str>,
    },
}

/// Something wrong in a header that could be read all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// A name stands in the header more than once. The last entry counts, as in the safetensors library.
    #[error("{name:?} stands in the header more than once")]
    Duplicate {
        /// A tensor's name, or `__metadata__`.
        name: Box<str>,
    },
    /// A tensor ends before it begins.
    #[error("tensor {tensor:?} ends at byte {end}, before it begins at byte {begin}")]
    EndBeforeBegin {
        /// The tensor's name.
        tensor: Box<str>,
        /// Bytes from the start of the data.
        begin: u64,
        /// Bytes from the start of the data.
        end: u64,
    },
    /// A tensor begins within the one before it.
    #[error(
        "tensor {tensor:?} begins at byte {begin}, within the data of another that ends at byte {previous_end}"
    )]
    Overlap {
        /// The later tensor's name.
        tensor: Box<str>,
        /// Bytes from the start of the data.
        begin: u64,
        /// Where the data seen so far ends, in bytes from the start of the data.
        previous_end: u64,
    },
    /// Bytes before a tensor that none owns; the safetensors library refuses such a file.
    #[error("{} bytes before tensor {tensor:?} belong to no tensor", end - begin)]
    Hole {
        /// The tensor behind the hole.
        tensor: Box<str>,
        /// The hole's first byte, from the start of the data.
        begin: u64,
        /// The byte after its last.
        end: u64,
    },
    /// A tensor's data is not as long as its shape and type need.
    #[error("tensor {tensor:?} has {actual} bytes where its shape and type need {expected}")]
    SizeMismatch {
        /// The tensor's name.
        tensor: Box<str>,
        /// Bytes that shape and type need.
        expected: u64,
        /// Bytes between its offsets.
        actual: u64,
    },
    /// A tensor's shape and type give a size beyond 2^64 - 1 bits, or one that is not a whole number of bytes.
    #[error("the shape and type of tensor {tensor:?} give no size in whole bytes")]
    SizeImpossible {
        /// The tensor's name.
        tensor: Box<str>,
    },
    /// A type that this version does not know, so that the size could not be checked.
    #[error("tensor {tensor:?} has the unknown type {dtype:?}")]
    UnknownDtype {
        /// The tensor's name.
        tensor: Box<str>,
        /// The type as the file spells it.
        dtype: Box<str>,
    },
    /// A value in `__metadata__` that is no string. Numbers and booleans are kept as text, anything else is dropped.
    #[error("the value of {key:?} in __metadata__ is not a string")]
    MetadataNotText {
        /// The key.
        key: Box<str>,
    },
}

/// One tensor's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, such as `model.layers.0.mlp.up_proj.weight`.
    pub name: Box<str>,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
    /// Its first byte, from the start of the data.
    pub begin: u64,
    /// The byte after its last.
    pub end: u64,
}

impl TensorInfo {
    /// Bytes between the offsets; 0 where the end lies before the begin.
    pub fn byte_len(&self) -> u64 {
        self.end.saturating_sub(self.begin)
    }

    /// The number of elements that the shape holds, or `None` beyond 2^64 - 1.
    pub fn element_count(&self) -> Option<u64> {
        // A zero anywhere makes the tensor empty, whatever the product of the other dimensions would be.
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim))
    }
}

/// A file's header: what it holds and where, without the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SafetensorsHeader {
    /// `__metadata__`: mlx-lm puts `{"format": "mlx"}` there, transformers `{"format": "pt"}`.
    pub metadata: BTreeMap<String, String>,
    /// The tensors in the order of their data.
    pub tensors: Vec<TensorInfo>,
    /// The JSON's length with its padding, in bytes, without the eight bytes before it.
    pub header_len: u64,
    /// What is wrong with it, in the order of the tensors.
    pub flaws: Vec<Flaw>,
}

impl SafetensorsHeader {
    /// Reads the header of a file of `file_len` bytes: eight bytes and the JSON, and nothing behind it.
    ///
    /// A file that lacks some of its data still gives a header; ask [`length_verdict`](Self::length_verdict).
    ///
    /// # Errors
    /// See [`HeaderError`]. What leaves the header readable is no error but an entry in [`flaws`](Self::flaws).
    pub fn read(reader: &mut impl Read, file_len: u64) -> Result<Self, HeaderError> {
        let mut start = Vec::with_capacity(8);
        reader.by_ref().take(8).read_to_end(&mut start)?;
        let Ok(length) = <[u8; 8]>::try_from(start.as_slice()) else {
            return Err(HeaderError::Truncated { expected: 8, actual: start.len() as u64 });
        };
        let header_len = u64::from_le_bytes(length);
        // Eight printable bytes always make a length far beyond the limit.
        if let Some(start) = super::as_text(&start) {
            return Err(HeaderError::Text { start });
        }
        if header_len > MAX_HEADER_LEN {
            return Err(HeaderError::TooLarge { len: header_len });
        }
        let truncated = |actual| HeaderError::Truncated { expected: 8 + header_len, actual };
        if header_len > file_len.saturating_sub(8) {
            return Err(truncated(file_len));
        }
        // A sparse file can claim any length: beyond a megabyte, memory follows what was really read.
        let mut json = Vec::with_capacity(header_len.min(1 << 20) as usize);
        reader.by_ref().take(header_len).read_to_end(&mut json)?;
        if (json.len() as u64) < header_len {
            return Err(truncated(8 + json.len() as u64));
        }
        Self::from_json(&json)
    }

    /// Reads the JSON part alone, as a hub's API or a range request gives it.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn from_json(json: &[u8]) -> Result<Self, HeaderError> {
        let Parsed { metadata, mut tensors, mut flaws } = parse::parse(json)?;
        drop_duplicates(&mut tensors, &mut flaws);
        tensors.sort_by_key(|t| (t.begin, t.end));
        check(&tensors, &mut flaws);
        Ok(Self { metadata, tensors, header_len: json.len() as u64, flaws })
    }

    /// Bytes of data that the tensors need: the end of the last one.
    pub fn data_len_expected(&self) -> u64 {
        self.tensors.iter().filter(|t| t.begin <= t.end).map(|t| t.end).max().unwrap_or(0)
    }

    /// Bytes that the whole file needs: length, header and data.
    pub fn file_len_expected(&self) -> u64 {
        self.header_len.saturating_add(8).saturating_add(self.data_len_expected())
    }

    /// Whether a file of `file_len` bytes holds every tensor of this header, and nothing else.
    pub fn length_verdict(&self, file_len: u64) -> LengthVerdict {
        let expected = self.file_len_expected();
        match file_len.checked_sub(expected) {
            None => LengthVerdict::Truncated { expected, actual: file_len },
            Some(0) => LengthVerdict::Complete,
            Some(extra) => LengthVerdict::Trailing { extra },
        }
    }

    /// The tensors whose data does not lie wholly within a file of `file_len` bytes.
    pub fn tensors_beyond(&self, file_len: u64) -> impl Iterator<Item = &TensorInfo> {
        let available = file_len.saturating_sub(self.header_len.saturating_add(8));
        self.tensors.iter().filter(move |t| t.end > available)
    }
}

/// Keeps the last of the entries with one name.
fn drop_duplicates(tensors: &mut Vec<TensorInfo>, flaws: &mut Vec<Flaw>) {
    let mut names = HashSet::with_capacity(tensors.len());
    if tensors.iter().all(|t| names.insert(&*t.name)) {
        return;
    }
    let (mut seen, mut repeated) = (HashSet::new(), HashSet::new());
    tensors.reverse();
    tensors.retain(|t| {
        let first = seen.insert(t.name.clone());
        if !first && repeated.insert(t.name.clone()) {
            flaws.push(Flaw::Duplicate { name: t.name.clone() });
        }
        first
    });
    tensors.reverse();
}

/// Finds what is wrong with tensors in the order of their data.
fn check(tensors: &[TensorInfo], flaws: &mut Vec<Flaw>) {
    let mut data_end = 0;
    for t in tensors {
        let tensor = || t.name.clone();
        if t.end < t.begin {
            flaws.push(Flaw::EndBeforeBegin { tensor: tensor(), begin: t.begin, end: t.end });
            continue;
        }
        if t.begin < data_end {
            flaws.push(Flaw::Overlap { tensor: tensor(), begin: t.begin, previous_end: data_end });
        } else if t.begin > data_end {
            flaws.push(Flaw::Hole { tensor: tensor(), begin: data_end, end: t.begin });
        }
        data_end = data_end.max(t.end);
        let Some(bits) = t.dtype.bits() else {
            flaws.push(Flaw::UnknownDtype { tensor: tensor(), dtype: t.dtype.name().into() });
            continue;
        };
        match t.element_count().and_then(|n| n.checked_mul(bits)) {
            Some(bits) if bits.is_multiple_of(8) => {
                let (expected, actual) = (bits / 8, t.byte_len());
                if expected != actual {
                    flaws.push(Flaw::SizeMismatch { tensor: tensor(), expected, actual });
                }
            }
            _ => flaws.push(Flaw::SizeImpossible { tensor: tensor() }),
        }
    }
}

#[cfg(test)]
mod tests;
