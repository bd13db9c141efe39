//! Writes GGUF files, version 3.

use crate::rng::Rng;
use crate::safetensors::f16;

const ALIGNMENT: usize = 32;

/// A value of a GGUF file's metadata.
#[derive(Clone, Debug)]
pub enum GgufValue {
    /// An unsigned 32-bit number.
    U32(u32),
    /// A 32-bit float.
    F32(f32),
    /// A truth value.
    Bool(bool),
    /// A string.
    Text(String),
    /// An array of strings.
    Texts(Vec<String>),
    /// An unsigned 64-bit number.
    U64(u64),
}

/// How a tensor of a GGUF file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgmlType {
    /// 32-bit floats.
    F32,
    /// Half precision.
    F16,
    /// Blocks of 32: a half-precision scale and 4 bits a weight.
    Q4_0,
    /// Blocks of 32: a half-precision scale and 8 bits a weight.
    Q8_0,
}

impl GgmlType {
    const fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
        }
    }

    /// Weights a block, and bytes a block.
    pub const fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q8_0 => (32, 34),
        }
    }
}

/// A tensor of pseudo-random weights.
#[derive(Clone, Debug)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// Its shape in GGUF's order: the length of a row first.
    pub shape: Vec<u64>,
    /// How it is stored.
    pub kind: GgmlType,
    /// Start of its values.
    pub seed: u64,
}

impl GgufTensor {
    fn blocks(&self) -> u64 {
        let (weights, _) = self.kind.block();
        let elements: u64 = self.shape.iter().product();
        assert!(
            self.shape[0].is_multiple_of(weights),
            "a row of `{}` is no whole number of blocks",
            self.name
        );
        elements / weights
    }

    /// Bytes it takes, without padding.
    pub fn byte_len(&self) -> u64 {
        self.blocks() * self.kind.block().1
    }

    fn data(&self) -> Vec<u8> {
        let mut rng = Rng::named(self.seed, &self.name);
        let mut out = Vec::new();
        for _ in 0..self.blocks() {
            match self.kind {
                GgmlType::F32 => out.extend_from_slice(&rng.uniform(-0.05, 0.05).to_le_bytes()),
                GgmlType::F16 => out.extend_from_slice(&f16(rng.uniform(-0.05, 0.05)).to_le_bytes()),
                GgmlType::Q4_0 | GgmlType::Q8_0 => {
                    out.extend_from_slice(&f16(rng.uniform(0.001, 0.002)).to_le_bytes());
                    out.extend(rng.bytes(self.kind.block().1 as usize - 2));
                }
            }
        }
        out
    }
}

/// A GGUF file.
#[derive(Clone, Debug, Default)]
pub struct Gguf {
    values: Vec<(String, GgufValue)>,
    tensors: Vec<GgufTensor>,
}

impl Gguf {
    /// A file without metadata or tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value to its metadata.
    #[must_use]
    pub fn value(mut self, key: &str, value: GgufValue) -> Self {
        self.values.push((key.to_owned(), value));
        self
    }

    /// Adds a tensor.
    #[must_use]
    pub fn tensor(mut self, tensor: GgufTensor) -> Self {
        self.tensors.push(tensor);
        self
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend_from_slice(&3_u32.to_le_bytes());
        out.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.values.len() as u64).to_le_bytes());
        for (key, value) in &self.values {
            push_text(&mut out, key);
            match value {
                GgufValue::U32(number) => push(&mut out, 4, &number.to_le_bytes()),
                GgufValue::F32(number) => push(&mut out, 6, &number.to_le_bytes()),
                GgufValue::Bool(truth) => push(&mut out, 7, &[u8::from(*truth)]),
                GgufValue::Text(text) => {
                    push(&mut out, 8, &[]);
                    push_text(&mut out, text);
                }
                GgufValue::Texts(texts) => {
                    push(&mut out, 9, &8_u32.to_le_bytes());
                    out.extend_from_slice(&(texts.len() as u64).to_le_bytes());
                    texts.iter().for_each(|text| push_text(&mut out, text));
                }
                GgufValue::U64(number) => push(&mut out, 10, &number.to_le_bytes()),
            }
        }
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            push_text(&mut out, &tensor.name);
            out.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for side in &tensor.shape {
                out.extend_from_slice(&side.to_le_bytes());
            }
            push(&mut out, tensor.kind.code(), &offset.to_le_bytes());
            offset += tensor.byte_len().next_multiple_of(ALIGNMENT as u64);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        for tensor in &self.tensors {
            out.extend_from_slice(&tensor.data());
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        }
        out
    }
}

fn push(out: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_starts_at_a_multiple_of_the_alignment() {
        let tensor = |name: &str, shape: &[u64], kind| GgufTensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            kind,
            seed: 1,
        };
        let gguf = Gguf::new()
            .value("general.architecture", GgufValue::Text("llama".to_owned()))
            .tensor(tensor("a", &[64, 3], GgmlType::Q4_0))
            .tensor(tensor("b", &[5], GgmlType::F32));
        let bytes = gguf.encode();
        assert_eq!(&bytes[..8], b"GGUF\x03\0\0\0");
        // 24 bytes of head; the value: 8 + 20, 4, 8 + 5; the tensors: 8 + 1, 4, 16 or 8, 4, 8.
        let head = 24 + 28 + 4 + 13 + 41 + 33_usize;
        let data = head.next_multiple_of(32);
        assert_eq!(bytes.len(), data + 128 + 32);
        assert_eq!(u64::from_le_bytes(bytes[head - 8..head].try_into().expect("eight bytes")), 128);
    }
}
