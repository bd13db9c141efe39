//! Writes safetensors files: whole ones, and sparse ones whose data is a hole.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::rng::Rng;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the names the format uses")]
pub enum Dtype {
    Bool,
    U8,
    I8,
    F8E4M3,
    F8E5M2,
    F8E8M0,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    I64,
    U64,
    F64,
}

impl Dtype {
    /// The name in a safetensors header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::F8E8M0 => "F8_E8M0",
            Self::I16 => "I16",
            Self::U16 => "U16",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I32 => "I32",
            Self::U32 => "U32",
            Self::F32 => "F32",
            Self::I64 => "I64",
            Self::U64 => "U64",
            Self::F64 => "F64",
        }
    }

    /// Bytes an element takes.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 | Self::F8E4M3 | Self::F8E5M2 | Self::F8E8M0 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }
}

/// What a tensor holds.
#[derive(Clone, Debug)]
pub enum Fill {
    /// Zero bytes.
    Zeros,
    /// These bytes; their number must fit the shape.
    Bytes(Vec<u8>),
    /// Pseudo-random and, for a float type, finite values in `low..high`; integers use their whole range but for
    /// `U8`, which takes `low..high` unless both are 0.
    Random {
        /// Start of the sequence; the tensor's name is mixed in.
        seed: u64,
        /// Smallest value.
        low: f32,
        /// Bound that is not reached.
        high: f32,
    },
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it holds.
    pub fill: Fill,
}

impl Tensor {
    /// A tensor of zeros.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: &[usize]) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec(), fill: Fill::Zeros }
    }

    /// The same with other contents.
    #[must_use]
    pub fn fill(mut self, fill: Fill) -> Self {
        self.fill = fill;
        self
    }

    /// The same with pseudo-random values in `low..high`.
    #[must_use]
    pub fn random(self, seed: u64, low: f32, high: f32) -> Self {
        self.fill(Fill::Random { seed, low, high })
    }

    /// The same with these bytes.
    #[must_use]
    pub fn bytes(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.fill(Fill::Bytes(bytes.into()))
    }

    /// Elements in it.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes it takes.
    pub fn byte_len(&self) -> u64 {
        self.elements() as u64 * self.dtype.size() as u64
    }

    fn data(&self) -> Vec<u8> {
        let len = self.elements() * self.dtype.size();
        let (seed, low, high) = match &self.fill {
            Fill::Zeros => return vec![0; len],
            Fill::Bytes(bytes) => {
                assert_eq!(
                    bytes.len(),
                    len,
                    "the bytes of `{}` don't fit its shape {:?}",
                    self.name,
                    self.shape
                );
                return bytes.clone();
            }
            Fill::Random { seed, low, high } => (*seed, *low, *high),
        };
        let mut rng = Rng::named(seed, &self.name);
        let mut out = Vec::with_capacity(len);
        match self.dtype {
            Dtype::F32 => each(&mut out, self.elements(), || rng.uniform(low, high).to_le_bytes()),
            Dtype::F64 => each(&mut out, self.elements(), || f64::from(rng.uniform(low, high)).to_le_bytes()),
            Dtype::BF16 => each(&mut out, self.elements(), || bf16(rng.uniform(low, high)).to_le_bytes()),
            Dtype::F16 => each(&mut out, self.elements(), || f16(rng.uniform(low, high)).to_le_bytes()),
            Dtype::U8 if low < high => each(&mut out, self.elements(), || [rng.uniform(low, high) as u8]),
            // Without the top exponent bit an 8-bit float is neither infinite nor NaN.
            Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::F8E8M0 => {
                out = rng.bytes(len);
                out.iter_mut().for_each(|byte| *byte &= 0xbf);
            }
            Dtype::Bool => {
                out = rng.bytes(len);
                out.iter_mut().for_each(|byte| *byte &= 1);
            }
            _ => out = rng.bytes(len),
        }
        out
    }
}

fn each<const N: usize>(out: &mut Vec<u8>, count: usize, mut next: impl FnMut() -> [u8; N]) {
    for _ in 0..count {
        out.extend_from_slice(&next());
    }
}

const fn bf16(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

/// Half precision, cut off; values too small become zero, and values too large the largest finite one.
pub(crate) const fn f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let exponent = ((bits >> 23) & 0xff) as i32 - 127 + 15;
    if exponent <= 0 {
        sign
    } else if exponent >= 31 {
        sign | 0x7bff
    } else {
        sign | ((exponent as u16) << 10) | ((bits >> 13) & 0x3ff) as u16
    }
}

/// The length prefix and the JSON header of a file with these tensors in this order, padded to eight bytes.
pub fn header(tensors: &[Tensor], metadata: &[(&str, &str)]) -> Vec<u8> {
    let mut map = Map::new();
    if !metadata.is_empty() {
        let entries: Map<String, Value> =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        map.insert("__metadata__".to_owned(), Value::Object(entries));
    }
    let mut start = 0_u64;
    for tensor in tensors {
        let end = start + tensor.byte_len();
        let entry =
            json!({"dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [start, end]});
        let before = map.insert(tensor.name.clone(), entry);
        assert!(before.is_none(), "two tensors are named `{}`", tensor.name);
        start = end;
    }
    let mut text = Value::Object(map).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(&text);
    out
}

/// A whole file in memory.
pub fn encode(tensors: &[Tensor], metadata: &[(&str, &str)]) -> Vec<u8> {
    let mut out = header(tensors, metadata);
    for tensor in tensors {
        out.extend_from_slice(&tensor.data());
    }
    out
}

/// Writes a whole file.
pub fn write(path: &Path, tensors: &[Tensor], metadata: &[(&str, &str)]) {
    crate::files::write(path, &encode(tensors, metadata));
}

/// Writes a file with a valid header whose data is a hole: it has its full length and takes next to no disk. Returns
/// that length.
pub fn write_sparse(path: &Path, tensors: &[Tensor], metadata: &[(&str, &str)]) -> u64 {
    let data: u64 = tensors.iter().map(Tensor::byte_len).sum();
    write_sparse_raw(path, &header(tensors, metadata), data)
}

pub(crate) fn write_sparse_raw(path: &Path, header: &[u8], data: u64) -> u64 {
    let len = header.len() as u64 + data;
    let mut file = fs_err::File::create(path).expect("the file can be made");
    file.write_all(header).expect("the header can be written");
    file.set_len(len).expect("the file can be given its length");
    len
}

/// The header of a file as JSON, after checks that a loader makes: lengths fit, and the offsets cover the data without
/// gaps or overlaps.
pub fn parse_header(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let prefix = bytes.get(..8).ok_or("shorter than eight bytes")?;
    let len = u64::from_le_bytes(prefix.try_into().map_err(|_| "no length")?) as usize;
    let text = bytes.get(8..8 + len).ok_or("the header is longer than the file")?;
    let map: Map<String, Value> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut spans = Vec::new();
    for (name, entry) in map.iter().filter(|(name, _)| *name != "__metadata__") {
        let offset =
            |index: usize| entry["data_offsets"][index].as_u64().ok_or(format!("`{name}` has no offsets"));
        spans.push((offset(0)?, offset(1)?, name));
    }
    spans.sort_unstable();
    let mut end = 0;
    for (start, next, name) in spans {
        if start != end || next < start {
            return Err(format!("`{name}` starts at {start}, but {end} was expected"));
        }
        end = next;
    }
    if 8 + len as u64 + end == bytes.len() as u64 {
        Ok(map)
    } else {
        Err("the data has another length".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<Tensor> {
        vec![
            Tensor::new("b", Dtype::BF16, &[3, 5]).random(7, -0.05, 0.05),
            Tensor::new("a", Dtype::U32, &[2, 8]).random(7, 0.0, 0.0),
        ]
    }

    #[test]
    fn a_file_parses_and_is_the_same_each_time() {
        let bytes = encode(&two(), &[("format", "mlx")]);
        let map = parse_header(&bytes).expect("a valid file");
        assert_eq!(map["__metadata__"]["format"], "mlx");
        assert_eq!(map["b"], json!({"dtype": "BF16", "shape": [3, 5], "data_offsets": [0, 30]}));
        assert_eq!(map["a"]["data_offsets"], json!([30, 94]));
        assert_eq!(bytes, encode(&two(), &[("format", "mlx")]));
    }

    #[test]
    fn a_sparse_file_has_the_length_of_a_whole_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("model.safetensors");
        let len = write_sparse(&path, &two(), &[]);
        let bytes = fs_err::read(&path).expect("the file");
        assert_eq!(bytes.len() as u64, len);
        parse_header(&bytes).expect("a valid file");
    }

    #[test]
    fn floats_are_finite() {
        let tensor = |dtype| Tensor::new("x", dtype, &[4096]).random(1, -2.0, 2.0).data();
        for pair in tensor(Dtype::F16).chunks_exact(2) {
            assert_ne!(u16::from_le_bytes([pair[0], pair[1]]) & 0x7c00, 0x7c00);
        }
        for pair in tensor(Dtype::BF16).chunks_exact(2) {
            assert!(f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16).is_finite());
        }
        assert!(tensor(Dtype::F8E4M3).iter().all(|byte| byte & 0x7f != 0x7f));
        assert_eq!((f16(1.0), f16(-0.5), f16(1e9)), (0x3c00, 0xb800, 0x7bff));
    }
}
