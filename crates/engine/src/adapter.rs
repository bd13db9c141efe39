//! Adapters: small matrices that a fine-tuning put beside a model's own.

use std::collections::HashMap;
use std::path::Path;

use mlx_rs::{Array, ops};
use mlxman_lm::files::parse_json;
use serde_json::Value;

use crate::checkpoint::{Checkpoint, read_file, read_tensors};
use crate::error::{EngineError, Kind, Result};
use crate::ops::scalar;

/// A low-rank addition to one matrix: `scale * (x @ a) @ b`.
#[derive(Debug, Clone)]
pub(crate) struct Lora {
    /// `[in, rank]`.
    a: Array,
    /// `[rank, out]`.
    b: Array,
    scale: f32,
}

impl Lora {
    /// What it adds to a product of `x`.
    pub(crate) fn addition(&self, x: &Array) -> Result<Array> {
        let low = ops::matmul(&ops::matmul(x, &self.a)?, &self.b)?;
        let scaled = low.multiply(scalar(self.scale, &low)?)?;
        Ok(scaled.as_dtype(x.dtype())?)
    }

    pub(crate) fn arrays(&self, name: &str) -> [(String, Array); 2] {
        [(format!("{name}.lora_a"), self.a.clone()), (format!("{name}.lora_b"), self.b.clone())]
    }

    fn fits(&self, input: usize, output: usize) -> bool {
        let (a, b) = (self.a.shape(), self.b.shape());
        let is = |have: i32, want: usize| usize::try_from(have) == Ok(want);
        a.len() == 2 && b.len() == 2 && a[1] == b[0] && is(a[0], input) && is(b[1], output)
    }
}

impl Checkpoint {
    /// Lays an adapter over the model: mlx_lm's (`adapters.safetensors`) or peft's (`adapter_model.safetensors`).
    ///
    /// # Errors
    /// When its files cannot be read, or it is of a kind that is not known.
    pub fn put_over(&mut self, dir: &Path) -> Result<()> {
        let bad =
            |path: &Path, why: String| EngineError::new(Kind::BadFile, format!("{}: {why}", path.display()));
        let config_path = dir.join("adapter_config.json");
        let text = read_file(&config_path)?;
        let config: Value = parse_json(&text).map_err(|error| bad(&config_path, error.to_string()))?;
        let weights = ["adapters.safetensors", "adapter_model.safetensors"].map(|name| dir.join(name));
        let file = weights.iter().find(|path| path.exists()).ok_or_else(|| {
            bad(dir, "there is neither adapters.safetensors nor adapter_model.safetensors".to_owned())
        })?;
        let tensors = read_tensors(std::slice::from_ref(file))?;
        if tensors.is_empty() {
            return Err(bad(file, "there is no tensor in it".to_owned()));
        }
        if config.get("fine_tune_type").and_then(Value::as_str) == Some("full") {
            if let Some(name) = tensors.keys().find(|name| !self.tensors.contains_key(*name)) {
                return Err(bad(file, format!("`{name}` is no tensor of this base")));
            }
            self.tensors.extend(tensors);
            return Ok(());
        }
        let scale = scale_of(&config)
            .ok_or_else(|| bad(&config_path, "it does not say how the adapter is scaled".to_owned()))?;
        let mut halves: HashMap<String, (Option<Array>, Option<Array>)> = HashMap::new();
        for (name, array) in tensors {
            let (matrix, half) = half_of(&name).ok_or_else(|| {
                bad(file, format!("`{name}` is no tensor of a LoRA; DoRA is not known yet"))
            })?;
            let pair = halves.entry(matrix).or_default();
            match half {
                Half::A => pair.0 = Some(array),
                Half::B => pair.1 = Some(array),
                // peft's lie the other way round.
                Half::TransposedA => pair.0 = Some(array.transpose()?),
                Half::TransposedB => pair.1 = Some(array.transpose()?),
            }
        }
        for (matrix, pair) in halves {
            let (Some(a), Some(b)) = pair else {
                return Err(bad(file, format!("`{matrix}` has only one of the two matrices of a LoRA")));
            };
            let (a, b) = (self.cast(a)?, self.cast(b)?);
            self.adapters.insert(matrix, Lora { a, b, scale });
        }
        Ok(())
    }

    /// Takes out what an adapter adds to a matrix.
    pub(crate) fn take_lora(&mut self, name: &str, input: usize, output: usize) -> Result<Option<Lora>> {
        match self.adapters.remove(name) {
            Some(lora) if !lora.fits(input, output) => Err(EngineError::new(
                Kind::WrongShape,
                format!(
                    "the adapter's matrices for `{name}` are {:?} and {:?}, and the model's is {output} times {input}",
                    lora.a.shape(),
                    lora.b.shape()
                ),
            )),
            other => Ok(other),
        }
    }

    /// What is said when an adapter has matrices that the model has no place for.
    pub(crate) fn check_adapters_used(&self) -> Result<()> {
        match self.adapters.keys().min() {
            None => Ok(()),
            Some(name) => Err(EngineError::new(
                Kind::WrongShape,
                format!(
                    "the adapter is for `{name}`, which the model has no such matrix of: it is of another base"
                ),
            )),
        }
    }
}

enum Half {
    A,
    B,
    TransposedA,
    TransposedB,
}

/// The matrix that a tensor of an adapter belongs to.
fn half_of(name: &str) -> Option<(String, Half)> {
    let endings = [
        (".lora_a", Half::A),
        (".lora_b", Half::B),
        (".lora_A.weight", Half::TransposedA),
        (".lora_B.weight", Half::TransposedB),
    ];
    endings.into_iter().find_map(|(ending, half)| {
        let matrix = name.strip_suffix(ending)?;
        Some((matrix.strip_prefix("base_model.model.").unwrap_or(matrix).to_owned(), half))
    })
}

/// mlx_lm writes the scale, peft alpha and rank.
fn scale_of(config: &Value) -> Option<f32> {
    if let Some(parameters) = config.get("lora_parameters") {
        return parameters.get("scale").and_then(Value::as_f64).map(|scale| scale as f32);
    }
    let alpha = config.get("lora_alpha").and_then(Value::as_f64)?;
    let rank = config.get("r").and_then(Value::as_f64).filter(|rank| *rank > 0.0)?;
    let stabilised = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    Some((if stabilised { alpha / rank.sqrt() } else { alpha / rank }) as f32)
}
