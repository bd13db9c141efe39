//! Weights in npz files, as MLX's programs wrote them before they wrote safetensors: a zip archive of npy files, none of
//! them compressed.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use mlx_rs::{Array, Dtype};

use crate::checkpoint::expect_file;
use crate::error::{EngineError, Kind, Result};

/// What is in an npz file.
#[derive(Debug, Default)]
pub(crate) struct Npz {
    pub(crate) tensors: Vec<(String, Array)>,
    /// Tensors that are compressed, or of a kind that MLX does not have.
    pub(crate) unread: u64,
}

/// The largest list of contents that is read.
const LARGEST_LIST: u64 = 64 << 20;

/// Reads every tensor of an npz file.
pub(crate) fn read_npz(path: &Path) -> Result<Npz> {
    expect_file(path)?;
    let mut file = File { file: fs_err::File::open(path)?, size: fs_err::metadata(path)?.len(), path };
    let list = file.list()?;
    let mut found = Npz::default();
    let mut rest = list.as_slice();
    while let Some((entry, later)) = Entry::first(rest) {
        rest = later;
        let Some(name) = entry.name.strip_suffix(".npy") else { continue };
        if entry.is_packed {
            found.unread += 1;
            continue;
        }
        let header = file.bytes(entry.offset, 30)?;
        let lengths = (u16_at(&header, 26), u16_at(&header, 28));
        let (Some(name_length), Some(extra)) = lengths else { return Err(file.bad("a header is cut")) };
        if !header.starts_with(b"PK\x03\x04") {
            return Err(file.bad("its list of contents points beside them"));
        }
        let start = entry.offset.saturating_add(30 + u64::from(name_length) + u64::from(extra));
        let bytes = file.bytes(start, entry.size)?;
        match array_of(&bytes) {
            Some(Some(array)) => found.tensors.push((name.to_owned(), array?)),
            Some(None) => found.unread += 1,
            None => return Err(file.bad(&format!("`{name}` is no npy file"))),
        }
    }
    if rest.len() >= 46 {
        return Err(file.bad("its list of contents is damaged"));
    }
    Ok(found)
}

struct File<'a> {
    file: fs_err::File,
    size: u64,
    path: &'a Path,
}

impl File<'_> {
    fn bad(&self, why: &str) -> EngineError {
        let message = format!("{}: {why}; download the file again", self.path.display());
        EngineError::new(Kind::BadFile, message)
    }

    /// Some bytes, if the file has them.
    fn bytes(&mut self, start: u64, size: u64) -> Result<Vec<u8>> {
        if start.checked_add(size).is_none_or(|end| end > self.size) {
            return Err(self.bad("it is cut short, or no npz file"));
        }
        self.file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| self.bad("it is too large"))?];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The list of contents, which the end of the file points to.
    fn list(&mut self) -> Result<Vec<u8>> {
        // The end may have a comment behind it, and before it the place of a larger one.
        let tail = self.size.min(22 + 65_535 + 20);
        let start = self.size - tail;
        let bytes = self.bytes(start, tail)?;
        let none = "it is cut short, or no npz file";
        let end = bytes.windows(4).rposition(|four| four == b"PK\x05\x06").ok_or_else(|| self.bad(none))?;
        let word = |at: usize| u32_at(&bytes, end + at).map(u64::from);
        let (Some(mut size), Some(mut offset), Some(_)) = (word(12), word(16), u16_at(&bytes, end + 20))
        else {
            return Err(self.bad(none));
        };
        if (size == u64::from(u32::MAX) || offset == u64::from(u32::MAX)) && end >= 20 {
            let large = u64_at(&bytes, end - 20 + 8).ok_or_else(|| self.bad(none))?;
            let large = self.bytes(large, 56)?;
            let (Some(larger), Some(farther)) = (u64_at(&large, 40), u64_at(&large, 48)) else {
                return Err(self.bad(none));
            };
            (size, offset) = (larger, farther);
        }
        if size > LARGEST_LIST {
            return Err(self.bad("its list of contents is too large"));
        }
        self.bytes(offset, size)
    }
}

/// One file of the archive.
struct Entry {
    name: String,
    is_packed: bool,
    offset: u64,
    size: u64,
}

impl Entry {
    /// The first one of a list, and the rest of it.
    fn first(list: &[u8]) -> Option<(Self, &[u8])> {
        if !list.starts_with(b"PK\x01\x02") {
            return None;
        }
        let flags = u16_at(list, 8)?;
        let method = u16_at(list, 10)?;
        let length = |at: usize| u16_at(list, at).map(usize::from);
        let (name_end, extra) = (46 + length(28)?, length(30)?);
        let name = String::from_utf8_lossy(list.get(46..name_end)?).into_owned();
        let (mut size, mut offset) = (u64::from(u32_at(list, 24)?), u64::from(u32_at(list, 42)?));
        let mut extras = list.get(name_end..name_end + extra)?;
        // What does not fit into 32 bits stands here, one after the other.
        while let (Some(kind), Some(length)) = (u16_at(extras, 0), u16_at(extras, 2)) {
            let Some(content) = extras.get(4..4 + usize::from(length)) else { break };
            if kind == 1 {
                let mut at = 0;
                if size == u64::from(u32::MAX) {
                    size = u64_at(content, at)?;
                    at += 8;
                }
                if u32_at(list, 20)? == u32::MAX {
                    at += 8;
                }
                if offset == u64::from(u32::MAX) {
                    offset = u64_at(content, at)?;
                }
            }
            extras = &extras[4 + usize::from(length)..];
        }
        let rest = list.get(name_end + extra + length(32)?..)?;
        Some((Entry { name, is_packed: method != 0 || flags & 1 != 0, offset, size }, rest))
    }
}

/// The array in an npy file: `None` where it is no such file, none in it where MLX has nothing like it.
fn array_of(npy: &[u8]) -> Option<Option<Result<Array>>> {
    let rest = npy.strip_prefix(b"\x93NUMPY")?;
    let (length, start): (usize, usize) = match rest.first()? {
        1 => (usize::from(u16_at(rest, 2)?), 4),
        _ => (usize::try_from(u32_at(rest, 2)?).ok()?, 6),
    };
    let end = start.checked_add(length)?;
    let header = std::str::from_utf8(rest.get(start..end)?).ok()?;
    let data = rest.get(end..)?;
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    let Some(kind) = after("'descr'")?.strip_prefix('\'').and_then(|kind| kind.split('\'').next()) else {
        // A record of several fields.
        return Some(None);
    };
    let shape = after("'shape'")?.strip_prefix('(')?.split(')').next()?;
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let shape: Vec<i32> = sizes.map(|size| size.parse().ok()).collect::<Option<_>>()?;
    let count = shape.iter().try_fold(1_usize, |all, n| all.checked_mul(usize::try_from(*n).ok()?))?;
    // bfloat16 is nothing that NumPy knows: it is called two bytes of any kind.
    let (dtype, width) = match kind {
        "<f2" => (Dtype::Float16, 2),
        "<f4" => (Dtype::Float32, 4),
        "<f8" => (Dtype::Float32, 8),
        "|V2" | "<V2" => (Dtype::Bfloat16, 2),
        "|b1" | "|u1" => (Dtype::Uint8, 1),
        "|i1" => (Dtype::Int8, 1),
        "<u2" => (Dtype::Uint16, 2),
        "<i2" => (Dtype::Int16, 2),
        "<u4" => (Dtype::Uint32, 4),
        "<i4" => (Dtype::Int32, 4),
        "<u8" => (Dtype::Uint64, 8),
        "<i8" => (Dtype::Int64, 8),
        _ => return Some(None),
    };
    let data = data.get(..count.checked_mul(width)?)?;
    if kind == "<f8" {
        // A number is not made infinite by being looked at in single precision.
        let single = |eight: &[u8]| {
            let number = eight.try_into().map_or(f64::NAN, f64::from_le_bytes);
            if number.is_finite() {
                number.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
            } else {
                number as f32
            }
        };
        let numbers: Vec<f32> = data.chunks_exact(8).map(single).collect();
        return Some(Some(Ok(Array::from_slice(&numbers, &shape))));
    }
    let Ok(size) = i32::try_from(data.len()) else { return Some(None) };
    let bytes = Array::from_slice(data, &[size]);
    if data.is_empty() {
        return Some(Some(Ok(bytes)));
    }
    let typed = bytes.view_dtype(dtype).and_then(|flat| flat.reshape(&shape));
    Some(Some(typed.map_err(EngineError::from)))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
