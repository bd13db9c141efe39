//! The header of a GGUF file, version 2 or 3, as llama.cpp's converters and quantizer, Ollama and LM Studio's
//! publishers write it.
//!
//! Layout, all little endian: `GGUF`, the version (u32), the counts of tensors and of metadata entries (u64 each); the
//! entries; the tensors' names, dimensions, types and offsets; padding; the tensors' data. Offsets count from the
//! start of the data, which is the end of the header rounded up to `general.alignment`, 32 by default.

mod cursor;
mod types;
mod value;

use std::collections::BTreeMap;
use std::io::{self, Read};

use self::cursor::Cursor;
pub use self::types::{GgmlType, file_type_label};
pub use self::value::GgufValue;
use super::LengthVerdict;

/// The longest header that is read, in bytes. A vocabulary of a quarter million tokens takes about 10 MB of it.
pub const MAX_HEADER_LEN: u64 = 512 << 20;

/// The most tensors, and the most metadata entries, that a file may claim. Real ones have a few thousand.
pub const MAX_COUNT: u64 = 1 << 20;

/// The most dimensions of a tensor. ggml itself knows four.
const MAX_DIMS: u32 = 8;

/// Where the data begins if the file does not say otherwise: at a multiple of this.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The fewest bytes that a metadata entry and a tensor's entry can take.
const MIN_ENTRY: u64 = 13;
const MIN_TENSOR: u64 = 24;

/// Why a GGUF header could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The reader failed.
    #[error("the header could not be read")]
    Io(#[from] io::Error),
    /// The file begins with something else than `GGUF`.
    #[error("the file is not GGUF: it begins with {start:?}")]
    NotGguf {
        /// Its first four bytes, escaped where they are no text.
        start: String,
    },
    /// A file for big-endian machines.
    #[error("the file is big-endian GGUF, which only big-endian machines load")]
    BigEndian,
    /// A version that this does not read.
    #[error("GGUF version {version} is not supported, only 2 and 3 are")]
    Version {
        /// The version as the file has it.
        version: u32,
    },
    /// The file ends within its header.
    #[error(
        "the file ends within its header: byte {offset} and the {needed} bytes from there lie beyond {actual}"
    )]
    Truncated {
        /// Where the missing part begins, in bytes from the file's start.
        offset: u64,
        /// How long that part is, in bytes, as the file claims.
        needed: u64,
        /// Bytes that there are.
        actual: u64,
    },
    /// More tensors or metadata entries than [`MAX_COUNT`], or than could lie in a file of this length.
    #[error("the header claims {count} {what}, more than a file of its length can have")]
    Count {
        /// `tensors` or `metadata entries`.
        what: &'static str,
        /// The claimed count.
        count: u64,
    },
    /// A key or a tensor's name of more than 65,535 bytes.
    #[error("a name of {len} bytes at byte {offset}")]
    NameLength {
        /// Where its length stands, in bytes from the file's start.
        offset: u64,
        /// The claimed length, in bytes.
        len: u64,
    },
    /// A metadata value of a type that the format does not have.
    #[error("the metadata entry {key:?} has the unknown type {id}")]
    ValueType {
        /// The entry's key.
        key: String,
        /// The type as the file has it.
        id: u32,
    },
    /// Arrays in arrays beyond any use.
    #[error("the metadata entry {key:?} nests arrays too deep")]
    Nesting {
        /// The entry's key.
        key: String,
    },
    /// `general.alignment` is not a power of two below 2^32.
    #[error("general.alignment is not a power of two")]
    Alignment,
    /// A tensor with more dimensions than any program reads.
    #[error("tensor {tensor:?} has {dims} dimensions")]
    Dimensions {
        /// The tensor's name.
        tensor: Box<str>,
        /// How many the file claims.
        dims: u32,
    },
    /// A header beyond [`MAX_HEADER_LEN`].
    #[error("the header is longer than {MAX_HEADER_LEN} bytes")]
    TooLarge,
}

/// Something wrong in a header that could be read all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufFlaw {
    /// A key or a tensor's name stands in the header more than once; the last entry counts for a key.
    #[error("{name:?} stands in the header more than once")]
    Duplicate {
        /// The key or the name.
        name: Box<str>,
    },
    /// A type that this version does not know, so that the tensor's size is unknown.
    #[error("tensor {tensor:?} has the unknown type {id}")]
    UnknownType {
        /// The tensor's name.
        tensor: Box<str>,
        /// ggml's number of the type.
        id: u32,
    },
    /// A row that is no whole number of the type's blocks, or a size beyond 2^64 - 1 bytes.
    #[error("the dimensions and type of tensor {tensor:?} give no size")]
    SizeImpossible {
        /// The tensor's name.
        tensor: Box<str>,
    },
    /// A tensor that does not begin at a multiple of the alignment.
    #[error("tensor {tensor:?} begins at byte {offset}, which is not aligned")]
    Misaligned {
        /// The tensor's name.
        tensor: Box<str>,
        /// Bytes from the start of the data.
        offset: u64,
    },
    /// A tensor begins within the one before it.
    #[error(
        "tensor {tensor:?} begins at byte {offset}, within the data of another that ends at byte {previous_end}"
    )]
    Overlap {
        /// The later tensor's name.
        tensor: Box<str>,
        /// Bytes from the start of the data.
        offset: u64,
        /// Where the data seen so far ends, in bytes from the start of the data.
        previous_end: u64,
    },
}

/// One tensor's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name, such as `blk.0.attn_q.weight`.
    pub name: Box<str>,
    /// Its dimensions, innermost first: the reverse of safetensors' order.
    pub dims: Vec<u64>,
    /// The type of its blocks.
    pub ggml_type: GgmlType,
    /// Its first byte, from the start of the data.
    pub offset: u64,
}

impl GgufTensor {
    /// The number of elements, or `None` beyond 2^64 - 1.
    pub fn element_count(&self) -> Option<u64> {
        if self.dims.contains(&0) {
            return Some(0);
        }
        self.dims.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim))
    }

    /// The size in bytes, or `None` for an unknown type, a row of broken blocks, or more than 2^64 - 1.
    pub fn byte_len(&self) -> Option<u64> {
        let (block_len, block_bytes) = self.ggml_type.block()?;
        let row = self.dims.first().copied().unwrap_or(1);
        if !row.is_multiple_of(block_len) {
            return None;
        }
        (self.element_count()? / block_len).checked_mul(block_bytes)
    }
}

/// A file's place among the files that one model was split into (`llama-gguf-split`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GgufSplit {
    /// Its number, from 0; the file's name counts from 1.
    pub no: u64,
    /// How many files there are.
    pub count: u64,
    /// Tensors in all of them together, where the file says so.
    pub tensors: Option<u64>,
}

/// A file's header: what it holds and where, without the data and without the tokenizer's lists.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufHeader {
    /// 2 or 3.
    pub version: u32,
    /// What the tensors' offsets are multiples of, in bytes.
    pub alignment: u64,
    /// The metadata worth keeping: numbers, booleans and strings up to 16 KiB, and lists of up to 1,024 of them under
    /// keys that name a model's shape or origin. Of `tokenizer.*`, `tokenizer.ggml.model` and `.pre` alone.
    pub metadata: BTreeMap<String, GgufValue>,
    /// The length of `tokenizer.ggml.tokens`, the list itself not kept.
    pub token_count: Option<u64>,
    /// The tensors in the order of their data.
    pub tensors: Vec<GgufTensor>,
    /// Where the last tensor's entry ends, in bytes from the file's start.
    pub header_len: u64,
    /// Where the data begins, in bytes from the file's start.
    pub data_offset: u64,
    /// What is wrong with it.
    pub flaws: Vec<GgufFlaw>,
}

impl GgufHeader {
    /// Reads the header of a file of `file_len` bytes.
    ///
    /// It reads through a buffer, so the reader may stand up to 64 KiB behind the header afterwards. A file that lacks
    /// some of its data still gives a header; ask [`length_verdict`](Self::length_verdict).
    ///
    /// # Errors
    /// See [`GgufError`]. What leaves the header readable is no error but an entry in [`flaws`](Self::flaws).
    pub fn read(reader: &mut impl Read, file_len: u64) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(reader, file_len);
        let version = read_start(&mut cursor)?;
        let tensor_count = cursor.u64()?;
        let entry_count = cursor.u64()?;
        let room = file_len.saturating_sub(cursor.position());
        for (what, count, size) in
            [("metadata entries", entry_count, MIN_ENTRY), ("tensors", tensor_count, MIN_TENSOR)]
        {
            if count > MAX_COUNT || count * size > room {
                return Err(GgufError::Count { what, count });
            }
        }
        let mut flaws = Vec::new();
        let mut metadata = value::Metadata::default();
        for _ in 0..entry_count {
            metadata.read_entry(&mut cursor, &mut flaws)?;
        }
        let value::Metadata { kept: metadata, token_count } = metadata;
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(value) => value
                .as_u64()
                .filter(|n| n.is_power_of_two() && *n <= u64::from(u32::MAX))
                .ok_or(GgufError::Alignment)?,
        };
        let mut tensors = Vec::with_capacity(tensor_count.min(4096) as usize);
        for _ in 0..tensor_count {
            tensors.push(read_tensor(&mut cursor)?);
        }
        let header_len = cursor.position();
        find_duplicates(&tensors, &mut flaws);
        tensors.sort_by_key(|t| t.offset);
        check(&tensors, alignment, &mut flaws);
        let data_offset = header_len.next_multiple_of(alignment);
        Ok(Self { version, alignment, metadata, token_count, tensors, header_len, data_offset, flaws })
    }

    /// The value under `key` as a string.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.as_str()
    }

    /// The value under `key` as a whole, non-negative number.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.as_u64()
    }

    /// `general.architecture`: `llama`, `qwen3`, `clip`.
    pub fn architecture(&self) -> Option<&str> {
        self.str("general.architecture")
    }

    /// The value under `<architecture>.<key>`: `block_count`, `context_length`, `attention.head_count_kv`.
    pub fn arch_value(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(&format!("{}.{key}", self.architecture()?))
    }

    /// The value under `<architecture>.<key>` as a whole, non-negative number.
    pub fn arch_u64(&self, key: &str) -> Option<u64> {
        self.arch_value(key)?.as_u64()
    }

    /// The vocabulary's size: `<architecture>.vocab_size`, else the number of the tokenizer's tokens.
    pub fn vocab_size(&self) -> Option<u64> {
        self.arch_u64("vocab_size").or(self.token_count)
    }

    /// `general.file_type`, llama.cpp's number for the mix of types that the quantizer was asked for.
    pub fn file_type(&self) -> Option<u32> {
        self.u64("general.file_type")?.try_into().ok()
    }

    /// The name of [`file_type`](Self::file_type): `Q4_K_M`, `F16`.
    pub fn file_type_label(&self) -> Option<&'static str> {
        file_type_label(self.file_type()?)
    }

    /// The file's place among the parts of a split model; `None` for a model in one file.
    pub fn split(&self) -> Option<GgufSplit> {
        let count = self.u64("split.count").filter(|&count| count > 1)?;
        Some(GgufSplit { no: self.u64("split.no")?, count, tensors: self.u64("split.tensors.count") })
    }

    /// The number of elements of all tensors, or `None` beyond 2^64 - 1.
    pub fn element_count(&self) -> Option<u64> {
        self.tensors.iter().try_fold(0u64, |n, t| n.checked_add(t.element_count()?))
    }

    /// Bytes of all tensors together, padding not counted, or `None` where one has no known size.
    pub fn tensor_bytes(&self) -> Option<u64> {
        self.tensors.iter().try_fold(0u64, |n, t| n.checked_add(t.byte_len()?))
    }

    /// Bits for each weight over the whole file, or `None` where it has none or a tensor has no known size.
    pub fn bits_per_weight(&self) -> Option<f64> {
        let elements = self.element_count().filter(|&n| n > 0)?;
        Some(self.tensor_bytes()? as f64 * 8.0 / elements as f64)
    }

    /// Bytes that the file needs at least, without the padding that may follow the last tensor; `None` where a tensor
    /// has no known size.
    pub fn file_len_expected(&self) -> Option<u64> {
        self.tensors.iter().try_fold(self.header_len, |len, t| {
            Some(len.max(self.data_offset.checked_add(t.offset)?.checked_add(t.byte_len()?)?))
        })
    }

    /// Whether a file of `file_len` bytes holds every tensor of this header, and nothing else. Padding to the alignment
    /// behind the last tensor may be there or not. `None` where a tensor's size is unknown and the file is not already
    /// too short for its first byte.
    pub fn length_verdict(&self, file_len: u64) -> Option<LengthVerdict> {
        let Some(expected) = self.file_len_expected() else {
            let last = self.tensors.last().map_or(0, |t| t.offset);
            let expected = self.data_offset.saturating_add(last);
            return (file_len < expected).then_some(LengthVerdict::Truncated { expected, actual: file_len });
        };
        if file_len < expected {
            return Some(LengthVerdict::Truncated { expected, actual: file_len });
        }
        let padded = expected.checked_next_multiple_of(self.alignment).unwrap_or(u64::MAX);
        match file_len.saturating_sub(padded) {
            0 => Some(LengthVerdict::Complete),
            extra => Some(LengthVerdict::Trailing { extra }),
        }
    }
}

/// The magic bytes and the version.
fn read_start(cursor: &mut Cursor<impl Read>) -> Result<u32, GgufError> {
    let magic = cursor.bytes::<4>()?;
    match &magic {
        b"GGUF" => {}
        b"FUGG" => return Err(GgufError::BigEndian),
        _ => return Err(GgufError::NotGguf { start: magic.escape_ascii().to_string() }),
    }
    match cursor.u32()? {
        version @ 2..=3 => Ok(version),
        // The magic is the same bytes in either order; a small number in the high half gives the order away.
        version if version & 0xffff == 0 && version != 0 => Err(GgufError::BigEndian),
        version => Err(GgufError::Version { version }),
    }
}

fn read_tensor(cursor: &mut Cursor<impl Read>) -> Result<GgufTensor, GgufError> {
    let name = cursor.name()?.into_boxed_str();
    let count = cursor.u32()?;
    if count > MAX_DIMS {
        return Err(GgufError::Dimensions { tensor: name, dims: count });
    }
    let dims = (0..count).map(|_| cursor.u64()).collect::<Result<_, _>>()?;
    let ggml_type = GgmlType::from_id(cursor.u32()?);
    Ok(GgufTensor { name, dims, ggml_type, offset: cursor.u64()? })
}

fn find_duplicates(tensors: &[GgufTensor], flaws: &mut Vec<GgufFlaw>) {
    let mut names: Vec<_> = tensors.iter().map(|t| &t.name).collect();
    names.sort_unstable();
    let mut repeated: Vec<_> = names.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
    repeated.dedup();
    flaws.extend(repeated.into_iter().map(|name| GgufFlaw::Duplicate { name: name.clone() }));
}

/// Finds what is wrong with tensors in the order of their data.
fn check(tensors: &[GgufTensor], alignment: u64, flaws: &mut Vec<GgufFlaw>) {
    let mut data_end = 0;
    for t in tensors {
        let tensor = || t.name.clone();
        if !t.offset.is_multiple_of(alignment) {
            flaws.push(GgufFlaw::Misaligned { tensor: tensor(), offset: t.offset });
        }
        if t.offset < data_end {
            flaws.push(GgufFlaw::Overlap { tensor: tensor(), offset: t.offset, previous_end: data_end });
        }
        match (t.ggml_type, t.byte_len().and_then(|len| t.offset.checked_add(len))) {
            (_, Some(end)) => data_end = data_end.max(end),
            (GgmlType::Unknown(id), None) => {
                flaws.push(GgufFlaw::UnknownType { tensor: tensor(), id });
            }
            (_, None) => flaws.push(GgufFlaw::SizeImpossible { tensor: tensor() }),
        }
    }
}

#[cfg(test)]
mod tests;
