//! Adapters: small matrices that a fine-tuning put beside a model's own.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use mlx_rs::{Array, Dtype, ops};
use mlxman_lm::files::parse_json;
use serde_json::Value;

use crate::checkpoint::{Checkpoint, read_file, read_tensors};
use crate::error::{EngineError, Kind, Result};
use crate::ops::scalar;

/// What an adapter does to one matrix: a low-rank addition, `scale * (x @ a) @ b`; and with DoRA a new magnitude for each
/// of its rows.
#[derive(Debug, Clone)]
pub(crate) struct Lora {
    /// `[in, rank]`; for a table `[rows, rank]`.
    a: Array,
    /// `[rank, out]`.
    b: Array,
    scale: f32,
    magnitude: Magnitude,
}

#[derive(Debug, Clone)]
enum Magnitude {
    /// That of the sum.
    Free,
    /// As the adapter has it, or that of the matrix where it has none.
    Wanted(Option<Array>),
    /// What makes it so, for each row: the wanted one over that of the sum.
    Factor(Array),
}

impl Lora {
    /// Gets ready for a matrix `[out, in]`; for a table `[rows, columns]`, whose additions lie as the rows do.
    pub(crate) fn over(mut self, matrix: impl FnOnce() -> Result<Array>, is_table: bool) -> Result<Lora> {
        let Magnitude::Wanted(wanted) = self.magnitude else { return Ok(self) };
        let matrix = matrix()?;
        let addition = ops::matmul(&self.a, &self.b)?;
        let addition = addition.multiply(scalar(self.scale, &addition)?)?;
        let sum = matrix.add(if is_table { addition } else { addition.transpose()? })?;
        let wanted = match wanted {
            Some(wanted) => wanted,
            None if is_table => lengths(&matrix)?,
            None => lengths(&matrix.as_dtype(Dtype::Float32)?)?,
        };
        self.magnitude = Magnitude::Factor(wanted.divide(lengths(&sum)?)?);
        Ok(self)
    }

    /// The product `out` of `x`, changed.
    pub(crate) fn changed(&self, x: &Array, out: &Array) -> Result<Array> {
        let low = ops::matmul(&ops::matmul(x, &self.a)?, &self.b)?;
        let out = out.add(self.scaled(&low, x)?)?;
        match &self.magnitude {
            Magnitude::Factor(factor) => Ok(factor.as_dtype(x.dtype())?.multiply(out)?),
            _ => Ok(out),
        }
    }

    /// The rows `out` of some tokens, changed.
    pub(crate) fn changed_rows(&self, tokens: &Array, out: &Array) -> Result<Array> {
        let low = ops::matmul(self.a.take_axis(tokens, 0)?, &self.b)?;
        let out = out.add(self.scaled(&low, out)?)?;
        match &self.magnitude {
            Magnitude::Factor(factor) => Ok(factor.take_axis(tokens, 0)?.expand_dims(-1)?.multiply(out)?),
            _ => Ok(out),
        }
    }

    /// The product `out` of `x` with a table, changed.
    pub(crate) fn changed_product(&self, x: &Array, out: &Array) -> Result<Array> {
        let low = ops::matmul(&ops::matmul(x, self.b.transpose()?)?, self.a.transpose()?)?;
        let out = out.add(self.scaled(&low, x)?)?;
        match &self.magnitude {
            Magnitude::Factor(factor) => Ok(factor.multiply(out)?),
            _ => Ok(out),
        }
    }

    fn scaled(&self, low: &Array, like: &Array) -> Result<Array> {
        Ok(low.multiply(scalar(self.scale, low)?)?.as_dtype(like.dtype())?)
    }

    pub(crate) fn arrays(&self, name: &str) -> impl Iterator<Item = (String, Array)> {
        let factor = match &self.magnitude {
            Magnitude::Factor(factor) => Some((format!("{name}.m"), factor.clone())),
            _ => None,
        };
        let pair = [(format!("{name}.lora_a"), self.a.clone()), (format!("{name}.lora_b"), self.b.clone())];
        pair.into_iter().chain(factor)
    }

    fn fits(&self, input: usize, output: usize, rows: usize) -> bool {
        let (a, b) = (self.a.shape(), self.b.shape());
        let is = |have: i32, want: usize| usize::try_from(have) == Ok(want);
        let magnitude = match &self.magnitude {
            Magnitude::Wanted(Some(wanted)) => wanted.ndim() == 1 && is(wanted.shape()[0], rows),
            _ => true,
        };
        magnitude && a.len() == 2 && b.len() == 2 && a[1] == b[0] && is(a[0], input) && is(b[1], output)
    }
}

/// The length of each row.
fn lengths(matrix: &Array) -> Result<Array> {
    Ok(matrix.square()?.sum_axis(1, None)?.sqrt()?)
}

/// The tensors of an adapter for one matrix.
#[derive(Default)]
struct Found {
    a: Option<Array>,
    b: Option<Array>,
    magnitude: Option<Array>,
}

impl Checkpoint {
    /// Lays an adapter over the model: mlx_lm's (`adapters.safetensors`) or peft's (`adapter_model.safetensors`).
    ///
    /// # Errors
    /// When its files cannot be read; [`Kind::UnknownAdapter`] where it is of a kind that is not known.
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
        let kind = config.get("fine_tune_type").and_then(Value::as_str);
        if kind == Some("full") {
            if let Some(name) = tensors.keys().find(|name| !self.tensors.contains_key(*name)) {
                return Err(bad(file, format!("`{name}` is no tensor of this base")));
            }
            self.tensors.extend(tensors);
            return Ok(());
        }
        let is_dora = kind == Some("dora") || config.get("use_dora").and_then(Value::as_bool) == Some(true);
        let mut matrices: BTreeMap<String, Found> = BTreeMap::new();
        for (name, array) in tensors {
            let (matrix, part) = part_of(&name).ok_or_else(|| {
                unknown(&format!("`{name}` is no tensor of a LoRA or DoRA that is known here"))
            })?;
            if array.ndim() > 2 {
                return Err(unknown(&format!("`{name}` is one of a stack, one for each expert")));
            }
            let found = matrices.entry(matrix).or_default();
            match part {
                Part::A => found.a = Some(array),
                Part::B => found.b = Some(array),
                // peft's lie the other way round.
                Part::TransposedA => found.a = Some(array.transpose()?),
                Part::TransposedB => found.b = Some(array.transpose()?),
                Part::Magnitude if is_dora => found.magnitude = Some(array),
                Part::Magnitude => {
                    let why = format!(
                        "`{name}` is one of a DoRA, and adapter_config.json does not say that it is one"
                    );
                    return Err(bad(file, why));
                }
            }
        }
        let scale = scale_of(&config)
            .ok_or_else(|| bad(&config_path, "it does not say how the adapter is scaled".to_owned()))?;
        for (matrix, found) in matrices {
            let Found { a: Some(a), b: Some(b), magnitude } = found else {
                return Err(bad(file, format!("`{matrix}` has only one of the two matrices of a LoRA")));
            };
            let (a, b) = (self.cast(a)?, self.cast(b)?);
            let magnitude = match is_dora {
                true => Magnitude::Wanted(magnitude.map(|one| self.cast(one)).transpose()?),
                false => Magnitude::Free,
            };
            self.adapters.insert(matrix, Lora { a, b, scale, magnitude });
        }
        Ok(())
    }

    /// Takes out what an adapter does to a matrix `[out, in]`.
    pub(crate) fn take_lora(&mut self, name: &str, input: usize, output: usize) -> Result<Option<Lora>> {
        self.take_fitting(name, |lora| lora.fits(input, output, output), [output, input])
    }

    /// Takes out what an adapter does to a table `[rows, columns]`.
    pub(crate) fn take_table_lora(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Option<Lora>> {
        self.take_fitting(name, |lora| lora.fits(rows, columns, rows), [rows, columns])
    }

    fn take_fitting(
        &mut self,
        name: &str,
        fits: impl FnOnce(&Lora) -> bool,
        [output, input]: [usize; 2],
    ) -> Result<Option<Lora>> {
        match self.adapters.remove(name) {
            Some(lora) if !fits(&lora) => {
                let magnitude = match &lora.magnitude {
                    Magnitude::Wanted(Some(wanted)) => format!(" with magnitudes {:?}", wanted.shape()),
                    _ => String::new(),
                };
                Err(EngineError::new(
                    Kind::WrongShape,
                    format!(
                        "the adapter's matrices for `{name}` are {:?} and {:?}{magnitude}, and the model's is {output} \
                         times {input}",
                        lora.a.shape(),
                        lora.b.shape()
                    ),
                ))
            }
            other => Ok(other),
        }
    }

    /// What is said when an adapter has matrices that the model has no place for; `names` are those of its tensors.
    pub(crate) fn check_adapters_used(&self, names: &HashSet<String>) -> Result<()> {
        match self.adapters.keys().min() {
            None => Ok(()),
            Some(name) if names.contains(&format!("{name}.weight")) => Err(unknown(&format!(
                "it changes `{name}`, which is none of the parts that can be changed here"
            ))),
            Some(name) => Err(EngineError::new(
                Kind::WrongShape,
                format!(
                    "the adapter is for `{name}`, which the model has no such matrix of: it is of another base"
                ),
            )),
        }
    }
}

/// What is said of an adapter that nothing is wrong with.
fn unknown(why: &str) -> EngineError {
    EngineError::new(
        Kind::UnknownAdapter,
        format!("this kind of adapter cannot be laid over its base yet: {why}"),
    )
}

enum Part {
    A,
    B,
    TransposedA,
    TransposedB,
    Magnitude,
}

/// The matrix that a tensor of an adapter belongs to.
fn part_of(name: &str) -> Option<(String, Part)> {
    let endings = [
        (".lora_a", Part::A),
        (".lora_b", Part::B),
        (".lora_A.weight", Part::TransposedA),
        (".lora_B.weight", Part::TransposedB),
        (".m", Part::Magnitude),
        (".lora_magnitude_vector", Part::Magnitude),
        (".lora_magnitude_vector.weight", Part::Magnitude),
    ];
    endings.into_iter().find_map(|(ending, part)| {
        let matrix = name.strip_suffix(ending)?;
        Some((matrix.strip_prefix("base_model.model.").unwrap_or(matrix).to_owned(), part))
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
