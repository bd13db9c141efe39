//! The metadata: which values are kept, and how the rest is passed over.

use std::collections::BTreeMap;
use std::io::Read;

use super::cursor::Cursor;
use super::{GgufError, GgufFlaw};

/// The longest string that is kept, in bytes.
const MAX_TEXT: u64 = 16 << 10;

/// The longest list that is kept, and the most entries: a hostile file must not fill the memory with either.
const MAX_LIST: u64 = 1024;
const MAX_KEPT: usize = 4096;

/// Arrays in arrays are legal; no writer makes them.
const MAX_DEPTH: u32 = 8;

const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GgufValue {
    /// An unsigned number of any width.
    Unsigned(u64),
    /// A signed number of any width.
    Signed(i64),
    /// A float of either width.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string; bytes that were not UTF-8 are replaced.
    String(String),
    /// A list, one entry a layer or one a tag.
    List(Vec<GgufValue>),
}

impl GgufValue {
    /// The value as a whole, non-negative number; `None` for anything else, lists included.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(n) => Some(n),
            Self::Signed(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// The value as a number.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Unsigned(n) => Some(n as f64),
            Self::Signed(n) => Some(n as f64),
            Self::Float(n) => Some(n),
            _ => None,
        }
    }

    /// The value as a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// The value as a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The entries of a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }
}

#[derive(Default)]
pub(super) struct Metadata {
    pub(super) kept: BTreeMap<String, GgufValue>,
    pub(super) token_count: Option<u64>,
}

impl Metadata {
    /// Reads one entry, key and value.
    pub(super) fn read_entry(
        &mut self,
        cursor: &mut Cursor<impl Read>,
        flaws: &mut Vec<GgufFlaw>,
    ) -> Result<(), GgufError> {
        let key = cursor.name()?;
        let id = cursor.u32()?;
        let value = match id {
            ARRAY => {
                let item = cursor.u32()?;
                let count = cursor.u64()?;
                if key == "tokenizer.ggml.tokens" && item == STRING {
                    self.token_count = Some(count);
                }
                if count <= MAX_LIST && item != ARRAY && keeps_list(&key) {
                    read_list(cursor, &key, item, count)?.map(GgufValue::List)
                } else {
                    skip_array(cursor, &key, item, count, 1)?;
                    None
                }
            }
            id => read_scalar(cursor, &key, id)?,
        };
        let room = self.kept.len() < MAX_KEPT || key == "general.alignment";
        if let Some(value) = value.filter(|_| room && keeps(&key))
            && self.kept.insert(key.clone(), value).is_some()
        {
            flaws.push(GgufFlaw::Duplicate { name: key.into() });
        }
        Ok(())
    }
}

fn keeps(key: &str) -> bool {
    !key.starts_with("tokenizer.") || matches!(key, "tokenizer.ggml.model" | "tokenizer.ggml.pre")
}

/// Lists say something of the model where a value differs from layer to layer, and under `general.`: tags, languages.
fn keeps_list(key: &str) -> bool {
    key.starts_with("general.")
        || [".attention.head_count", ".attention.head_count_kv", ".feed_forward_length"]
            .iter()
            .any(|end| key.ends_with(end))
}

/// Bytes of a number or a boolean.
fn scalar_len(id: u32) -> Option<u64> {
    match id {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn unknown(key: &str, id: u32) -> GgufError {
    GgufError::ValueType { key: key.to_owned(), id }
}

/// A number, a boolean or a string; `None` for a string too long to keep.
fn read_scalar(cursor: &mut Cursor<impl Read>, key: &str, id: u32) -> Result<Option<GgufValue>, GgufError> {
    use GgufValue::{Bool, Float, Signed, String, Unsigned};
    Ok(Some(match id {
        0 => Unsigned(cursor.bytes::<1>()?[0].into()),
        1 => Signed(i8::from_le_bytes(cursor.bytes()?).into()),
        2 => Unsigned(u16::from_le_bytes(cursor.bytes()?).into()),
        3 => Signed(i16::from_le_bytes(cursor.bytes()?).into()),
        4 => Unsigned(cursor.u32()?.into()),
        5 => Signed(i32::from_le_bytes(cursor.bytes()?).into()),
        6 => Float(f32::from_le_bytes(cursor.bytes()?).into()),
        7 => Bool(cursor.bytes::<1>()?[0] != 0),
        STRING => {
            let len = cursor.u64()?;
            if len > MAX_TEXT || !keeps(key) {
                cursor.skip(len)?;
                return Ok(None);
            }
            String(cursor.text(len)?)
        }
        10 => Unsigned(cursor.u64()?),
        11 => Signed(i64::from_le_bytes(cursor.bytes()?)),
        12 => Float(f64::from_le_bytes(cursor.bytes()?)),
        id => return Err(unknown(key, id)),
    }))
}

/// A short list; `None` where one of its strings was too long to keep.
fn read_list(
    cursor: &mut Cursor<impl Read>,
    key: &str,
    item: u32,
    count: u64,
) -> Result<Option<Vec<GgufValue>>, GgufError> {
    let mut list = Some(Vec::new());
    for _ in 0..count {
        match (read_scalar(cursor, key, item)?, &mut list) {
            (Some(value), Some(list)) => list.push(value),
            _ => list = None,
        }
    }
    Ok(list)
}

fn skip_array(
    cursor: &mut Cursor<impl Read>,
    key: &str,
    item: u32,
    count: u64,
    depth: u32,
) -> Result<(), GgufError> {
    if let Some(len) = scalar_len(item) {
        // A product beyond u64 lies beyond any file.
        return cursor.skip(count.saturating_mul(len));
    }
    if depth > MAX_DEPTH {
        return Err(GgufError::Nesting { key: key.to_owned() });
    }
    for _ in 0..count {
        match item {
            STRING => {
                let len = cursor.u64()?;
                cursor.skip(len)?;
            }
            ARRAY => {
                let (item, count) = (cursor.u32()?, cursor.u64()?);
                skip_array(cursor, key, item, count, depth + 1)?;
            }
            item => return Err(unknown(key, item)),
        }
    }
    Ok(())
}
