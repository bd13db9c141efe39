//! Tiny decoders whose weights come from a formula, and what mlx_lm computes with them.
//!
//! `tests/goldens/lm/make.py` writes a case for each family and quantization: its configuration, the names, types and
//! shapes of its tensors, and mlx_lm's answers. No weight is kept. A tensor is computed here as it is computed there,
//! to the same bytes:
//!
//! Element `i` of the tensor `name` is made from `h = mix(state + (i + 1) * G)`, with `G = 0x9e3779b97f4a7c15`, `mix` the
//! finalizer of `SplitMix64`, and `state` the FNV-1a hash of the name that starts from `0xcbf29ce484222325 ^ (seed * G)`,
//! all modulo 2^64. An entry is `[DTYPE, SHAPE, A, B]`:
//!
//! - `F32`, `F16` and `BF16` hold `A + B * ((h >> 40) / 2^23 - 1)` in double precision, rounded to single and then to the
//!   type, each time to the nearest and ties to even;
//! - `U32` holds `(h >> 32) & A`, which are packed weights;
//! - `U8` holds `A + (h >> 32) % B`, which are the scales of mxfp4, mxfp8 and nvfp4;
//! - where `A` is the name of a tensor of the same shape, an element is `-B` times that tensor's, in double precision,
//!   and rounded in the same way: the biases of an affine quantization.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::files::{Files, json as pretty, text, write_files};
use crate::hash::sha256_hex;
use crate::rng::Rng;
use crate::safetensors::{Dtype, Tensor, encode};

/// What mlx_lm computes for a prompt.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Answers {
    /// The prompt.
    pub prompt_ids: Vec<u32>,
    /// The first 64 logits of the prompt's last position.
    pub logits_head: Vec<f64>,
    /// The ten largest of all its logits, each with its token, the largest first.
    pub top10: Vec<(u32, f64)>,
    /// The tokens that follow, each the likeliest.
    pub greedy: Vec<u32>,
    /// Versions and device.
    pub computed_by: String,
}

/// One case of `tests/goldens/lm`.
#[derive(Clone, Debug, Deserialize)]
pub struct Golden {
    /// The file's name without its ending: family, quantization and dtype.
    #[serde(skip)]
    pub name: String,
    /// The whole `config.json`.
    pub config: Value,
    /// What is computed in the checkpoint's own dtype.
    pub answers: Answers,
    /// What is computed after every floating parameter was cast to single precision; only where the dtype is a half.
    pub answers_float32: Option<Answers>,
    /// The smallest difference between the two largest logits in a step of `greedy`, as a fraction of the largest
    /// magnitude.
    pub margin: f64,
    /// Lowercase hex of the SHA-256 of all tensors' bytes, in the order of their names.
    pub digest: String,
    seed: u64,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Deserialize)]
struct Entry(String, Vec<usize>, Base, f64);

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Base {
    Tensor(String),
    Number(f64),
}

impl Golden {
    /// The directory of the cases, in this source tree.
    pub fn dir() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/lm")
    }

    /// The names of all cases in [`Self::dir`], sorted.
    pub fn names() -> Vec<String> {
        let entries = fs_err::read_dir(Self::dir()).expect("the goldens can be listed");
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                let path = entry.expect("the goldens can be listed").path();
                let name = path.file_stem()?.to_str()?.to_owned();
                (path.extension()? == "json").then_some(name)
            })
            .collect();
        names.sort_unstable();
        names
    }

    /// The case of this name.
    pub fn named(name: &str) -> Result<Self, String> {
        Self::read(&Self::dir().join(format!("{name}.json")))
    }

    /// All cases.
    pub fn all() -> Vec<Self> {
        let read = |name: &String| Self::named(name).expect("a golden can be read");
        Self::names().iter().map(read).collect()
    }

    /// Reads a case.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = fs_err::read(path).map_err(|error| error.to_string())?;
        let mut golden: Self =
            serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        golden.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(golden)
    }

    /// The tensors, in the order of their names.
    pub fn tensors(&self) -> Vec<Tensor> {
        self.tensors
            .iter()
            .map(|(name, entry)| Tensor::new(name, entry.dtype(), &entry.1).bytes(self.bytes(name, entry)))
            .collect()
    }

    /// The answers in single precision: of the checkpoint itself, or of it cast.
    pub fn single(&self) -> &Answers {
        self.answers_float32.as_ref().unwrap_or(&self.answers)
    }

    /// The files of a model that mlx_lm and mlxman load, and `reference.json` with the answers.
    pub fn files(&self) -> Files {
        let tensors = self.tensors();
        let total: u64 = tensors.iter().map(Tensor::byte_len).sum();
        let map: Map<String, Value> =
            tensors.iter().map(|tensor| (tensor.name.clone(), json!("model.safetensors"))).collect();
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        let mut reference = json!(self.answers);
        if let Some(answers) = &self.answers_float32 {
            reference["float32"] = json!(answers);
        }
        vec![
            text("config.json", &pretty(&self.config, 4)),
            ("model.safetensors".to_owned(), encode(&tensors, &[("format", "mlx")])),
            text("model.safetensors.index.json", &pretty(&index, 4)),
            text("reference.json", &reference.to_string()),
            text("tokenizer.json", &pretty(&tokenizer(), 2)),
            text("tokenizer_config.json", &pretty(&tokenizer_config(), 2)),
        ]
    }

    /// Writes [`Self::files`] into `dir`, which is made.
    pub fn write_checkpoint(&self, dir: &Path) {
        write_files(dir, &self.files());
    }

    /// What [`Self::digest`] has to be.
    pub fn computed_digest(&self) -> String {
        let bytes: Vec<u8> = self.tensors.iter().flat_map(|(name, entry)| self.bytes(name, entry)).collect();
        sha256_hex(&bytes)
    }

    fn bytes(&self, name: &str, entry: &Entry) -> Vec<u8> {
        let dtype = entry.dtype();
        let count = entry.1.iter().product();
        let mut rng = Rng::named(self.seed, name);
        let mut out = Vec::with_capacity(count * dtype.size());
        match (&entry.2, dtype) {
            (Base::Tensor(scales), _) => {
                let base = &self.tensors[scales];
                for scale in self.bytes(scales, base).chunks_exact(base.dtype().size()) {
                    put(&mut out, dtype, -entry.3 * take(scale, base.dtype()));
                }
            }
            (Base::Number(mask), Dtype::U32) => {
                let mask = *mask as u32;
                (0..count).for_each(|_| out.extend(((rng.next_u64() >> 32) as u32 & mask).to_le_bytes()));
            }
            (Base::Number(low), Dtype::U8) => {
                let (low, span) = (*low as u64, entry.3 as u64);
                out.extend((0..count).map(|_| (low + (rng.next_u64() >> 32) % span) as u8));
            }
            (Base::Number(centre), _) => {
                for _ in 0..count {
                    let unit = (rng.next_u64() >> 40) as f64 / f64::from(1 << 23) - 1.0;
                    put(&mut out, dtype, centre + entry.3 * unit);
                }
            }
        }
        out
    }
}

impl Entry {
    fn dtype(&self) -> Dtype {
        let known = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::U32, Dtype::U8];
        known.into_iter().find(|dtype| dtype.name() == self.0).expect("a dtype that a golden may have")
    }
}

/// Appends a number, rounded to `dtype` by way of single precision.
fn put(out: &mut Vec<u8>, dtype: Dtype, value: f64) {
    let single = value as f32;
    match dtype {
        Dtype::F16 => out.extend(f16(single).to_le_bytes()),
        Dtype::BF16 => out.extend(bf16(single).to_le_bytes()),
        _ => out.extend(single.to_le_bytes()),
    }
}

/// Reads a number back.
fn take(bytes: &[u8], dtype: Dtype) -> f64 {
    match (dtype, bytes) {
        (Dtype::F16, &[low, high]) => from_f16(u16::from_le_bytes([low, high])),
        (Dtype::BF16, &[low, high]) => f64::from(f32::from_le_bytes([0, 0, low, high])),
        (_, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        _ => panic!("{} bytes are no {}", bytes.len(), dtype.name()),
    }
}

const fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Half precision, rounded to the nearest and ties to even; too large is infinite.
fn f16(value: f32) -> u16 {
    let sign = ((value.to_bits() >> 16) & 0x8000) as u16;
    let magnitude = f64::from(value.abs());
    // The exponent of the lowest bit: 2^-24 for all below 2^-14, which are subnormal.
    let exponent = (((value.to_bits() >> 23) & 0xff) as i32 - 127).max(-14);
    let steps = (magnitude * 2_f64.powi(10 - exponent)).round_ties_even() as u32;
    // A mantissa that was rounded up to 2^11 carries into the exponent by itself.
    let bits = steps + ((exponent + 14) as u32).saturating_mul(1024);
    sign | bits.min(0x7c00) as u16
}

fn from_f16(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => mantissa * 2_f64.powi(-24),
        _ => (1024.0 + mantissa) * 2_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// A byte-level BPE over 320 tokens: four special ones, the 256 bytes, and sixty pairs of letters.
fn tokenizer() -> Value {
    let special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"];
    // Bytes that print stand for themselves; the others for the characters from U+0100 on.
    let prints = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let shown = (0..256).filter(|byte| prints(*byte));
    let hidden = 256..256 + (0..256).filter(|byte| !prints(*byte)).count() as u32;
    let letters = shown.chain(hidden).filter_map(char::from_u32).map(String::from);
    let pairs: Vec<(char, char)> =
        "etaoinshrd".chars().flat_map(|a| "aeiout".chars().map(move |b| (a, b))).collect();
    let tokens = special.map(String::from).into_iter().chain(letters);
    let tokens = tokens.chain(pairs.iter().map(|(a, b)| format!("{a}{b}")));
    let vocab: Map<String, Value> = tokens.enumerate().map(|(id, token)| (token, json!(id))).collect();
    let added: Vec<Value> = (0..)
        .zip(special)
        .map(|(id, content): (u32, _)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let merges: Vec<String> = pairs.iter().map(|(a, b)| format!("{a} {b}")).collect();
    let bytes = |space: bool| json!({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": bytes(false), "post_processor": null, "decoder": bytes(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    })
}

fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
        "model_max_length": 4096, "clean_up_tokenization_spaces": false,
        "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
            {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    })
}
