//! A decoder, loaded.

use std::collections::HashSet;

use mlx_rs::{Array, ops};
use mlxman_lm::config::ConfigError;
use mlxman_lm::decoder::{Attention as DescribedAttention, Decoder, Layer as DescribedLayer, Residual};

use crate::attention::Attention;
use crate::cache::{Cache, Mask};
use crate::checkpoint::{Checkpoint, May, Progress, describe, evaluate};
use crate::device::Device;
use crate::error::{EngineError, Kind, Result};
use crate::lanes::{self, OneCore};
use crate::latent::Latent;
use crate::linear::{Linear, Table};
use crate::mlp::Mlp;
use crate::norm::Norm;
use crate::ops::scalar;

/// A language model in memory.
#[derive(Debug)]
pub struct Model {
    /// Its family's name.
    pub family: &'static str,
    /// Rows of its embedding.
    pub vocab: usize,
    /// Tensors that were read.
    pub tensors: u64,
    /// Bytes of them, as they are in memory.
    pub bytes: u64,
    /// The type of its activations.
    pub dtype: String,
    /// What is odd about its tensors, and no failure.
    pub notes: Vec<String>,
    embedding: Table,
    positions: Option<Table>,
    scale: Option<f32>,
    scale_in_bfloat16: bool,
    first_norm: Option<Norm>,
    layers: Vec<Layer>,
    norm: Norm,
    head: Option<Linear>,
    divisor: f32,
    head_scale: f32,
    soft_cap: Option<f32>,
    windows: Vec<Option<usize>>,
    is_small: bool,
}

#[derive(Debug)]
struct Layer {
    attention: Seeing,
    mlp: Mlp,
    residual: Join,
}

#[derive(Debug)]
enum Seeing {
    Heads(Box<Attention>),
    Latent(Box<Latent>),
}

#[derive(Debug)]
enum Join {
    Sequential { norms: Box<[Option<Norm>; 4]>, scale: f32 },
    Parallel { before: Norm, before_mlp: Option<Norm> },
}

/// The tokens that a model has seen.
#[derive(Debug)]
pub(crate) struct State {
    caches: Vec<Cache>,
}

impl State {
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.caches.iter().flat_map(Cache::arrays)
    }
}

impl From<ConfigError> for EngineError {
    fn from(error: ConfigError) -> Self {
        let kind = match &error {
            ConfigError::UnknownFamily(_) => Kind::UnknownFamily,
            _ => Kind::BadConfig,
        };
        EngineError::new(kind, error.to_string())
    }
}

impl Model {
    /// Loads a model: every tensor that its family needs is read, and looked at.
    ///
    /// # Errors
    /// When the config describes no model, a tensor is missing, has another shape or is not finite, or MLX says no.
    pub fn load(mut from: Checkpoint, progress: &mut Progress<'_>) -> Result<Model> {
        let described = describe(&from.config)?;
        from.repack()?;
        from.rename(&described);
        let names: HashSet<String> = match from.adapters.is_empty() {
            true => HashSet::new(),
            false => from.tensors.keys().cloned().collect(),
        };
        lanes::has_cut();
        let mut model = Model::build(&mut from, &described)?;
        model.is_small = !lanes::has_cut();
        from.check_adapters_used(&names)?;
        // What this architecture does not use (a vision tower, say) is read and looked at too, and let go.
        let unused: Vec<(String, Array)> = from.tensors.drain().collect();
        let rest = unused.len() as u64;
        let nobody = unused.iter().map(|(name, _)| name.as_str());
        model.notes.extend(unused_note(nobody.filter(|name| !is_left_over(name, &from.config, &described))));
        for one in unused {
            evaluate(&[one], May::Mask, &mut |_, _| {})?;
        }
        let packed_nan = std::mem::take(&mut from.packed_nan);
        drop(from);
        let arrays = model.arrays();
        model.tensors = arrays.len() as u64 + rest;
        model.bytes = arrays.iter().map(|(_, array)| array.nbytes() as u64).sum();
        let zeros = evaluate(&arrays, May::BeFinite, progress)?;
        for (name, has_nan) in packed_nan {
            if has_nan.try_item_exact::<bool>().unwrap_or(false) {
                let message = format!("the tensor `{name}` holds NaN, in floating numbers of 8 bits");
                return Err(EngineError::new(Kind::NotFiniteWeights, message));
            }
        }
        model.notes.extend(zeros_note(&arrays, &zeros));
        Ok(model)
    }

    fn build(from: &mut Checkpoint, described: &Decoder) -> Result<Model> {
        // The checkpoint is asked for every layer before anything is read: a config that promises a billion layers
        // ends at the first one that is not there.
        let layers = described.layers.iter().map(|layer| Layer::take(from, layer)).collect::<Result<_>>()?;
        let embedding = Table::take(from, &described.embedding.name, described.vocab, described.hidden)?;
        let positions = match &described.embedding.positions {
            Some((name, rows)) => Some(Table::take(from, name, *rows, described.hidden)?),
            None => None,
        };
        let head = match &described.head.name {
            Some(name)
                if described.head.may_be_tied && !from.tensors.contains_key(&format!("{name}.weight")) =>
            {
                None
            }
            Some(name) => {
                let linear = mlxman_lm::decoder::Linear::new(name, described.hidden, described.vocab);
                let linear = Linear::take(from, &linear.biased(described.head.bias))?;
                Some(match described.head.normalised {
                    Some(of) => linear.normalised(of)?,
                    None => linear,
                })
            }
            None => None,
        };
        let windows = described.layers.iter().map(|layer| match &layer.attention {
            DescribedAttention::Heads(heads) => heads.window,
            DescribedAttention::Latent(_) => None,
        });
        let norm = Norm::take(from, &described.norm)?;
        let first_norm = described.embedding.norm.as_ref().map(|norm| Norm::take(from, norm)).transpose()?;
        let mut model = Model {
            family: described.family,
            vocab: described.vocab,
            tensors: 0,
            bytes: 0,
            dtype: String::new(),
            notes: Vec::new(),
            embedding,
            positions,
            scale: described.embedding.scale,
            scale_in_bfloat16: described.embedding.scale_in_bfloat16,
            first_norm,
            layers,
            norm,
            head,
            divisor: described.head.divisor,
            head_scale: described.head.scale,
            soft_cap: described.head.soft_cap,
            windows: windows.collect(),
            is_small: false,
        };
        let one = model.embed(&Array::from_slice(&[0i32], &[1, 1]), 0)?;
        // A norm in single precision makes all that follows so, whatever the embedding gives.
        let single = [Some(one.dtype()), model.norm.dtype()].contains(&Some(mlx_rs::Dtype::Float32));
        let dtype = if single { mlx_rs::Dtype::Float32 } else { one.dtype() };
        model.dtype = format!("{dtype:?}").to_lowercase();
        Ok(model)
    }

    /// Keeps this process on one core while what it gives lives, where that is quicker: on a CPU, and for a model so
    /// small that no product of it is cut.
    pub fn run(&self, device: &Device) -> Option<impl Drop + use<>> {
        (self.is_small && device.prefers_float32()).then(OneCore::keep)
    }

    /// A state that has seen nothing.
    pub(crate) fn begin(&self) -> State {
        State { caches: self.windows.iter().map(|window| Cache::new(*window)).collect() }
    }

    fn embed(&self, tokens: &Array, offset: i32) -> Result<Array> {
        let mut x = self.embedding.lookup(tokens)?;
        if let Some(scale) = self.scale {
            let scale = Array::from_f32(scale);
            let scale = if self.scale_in_bfloat16 { scale.as_dtype(mlx_rs::Dtype::Bfloat16)? } else { scale };
            x = x.multiply(scale.as_dtype(x.dtype())?)?;
        }
        if let Some(positions) = &self.positions {
            let places = Array::arange::<_, i32>(offset, offset + tokens.shape()[1], None)?;
            x = x.add(positions.lookup(&places)?)?;
        }
        through(&self.first_norm, &x)
    }

    /// The logits after some more tokens, `[batch, tokens]`: those of the last one, `[batch, 1, vocab]`.
    pub(crate) fn forward(&self, tokens: &Array, state: &mut State) -> Result<Array> {
        let mut x = self.embed(tokens, state.caches.first().map_or(0, Cache::offset))?;
        let count = tokens.shape()[1];
        // Layers with the same window share a mask.
        let mut masks: Vec<(Option<usize>, bool, Mask)> = Vec::new();
        for ((layer, cache), window) in self.layers.iter().zip(&mut state.caches).zip(&self.windows) {
            let as_pairs = layer.attention.needs_pairs();
            let known = masks.iter().position(|(of, pairs, _)| of == window && *pairs == as_pairs);
            let at = match known {
                Some(at) => at,
                None => {
                    masks.push((*window, as_pairs, cache.mask(count, as_pairs)?));
                    masks.len() - 1
                }
            };
            x = layer.forward(&x, &masks[at].2, cache)?;
        }
        let size = x.shape()[1];
        let last = if size > 1 { crate::ops::part(&x, 1, size - 1, size)? } else { x };
        let x = self.norm.forward(&last)?;
        let mut logits = match &self.head {
            Some(head) if self.divisor != 1.0 => head.forward(&x.divide(scalar(self.divisor, &x)?)?)?,
            Some(head) => head.forward(&x)?,
            None => self.embedding.product(&x)?,
        };
        if self.head_scale != 1.0 {
            logits = logits.multiply(scalar(self.head_scale, &logits)?)?;
        }
        if let Some(cap) = self.soft_cap {
            let cap = scalar(cap, &logits)?;
            logits = ops::tanh(logits.divide(&cap)?)?.multiply(&cap)?;
        }
        Ok(logits)
    }

    /// Everything that it is made of, with names.
    fn arrays(&self) -> Vec<(String, Array)> {
        let mut arrays = self.embedding.arrays();
        arrays.extend(self.positions.iter().flat_map(Table::arrays));
        arrays.extend(self.first_norm.iter().flat_map(Norm::arrays));
        arrays.extend(self.norm.arrays());
        arrays.extend(self.head.iter().flat_map(Linear::arrays));
        for (index, layer) in self.layers.iter().enumerate() {
            arrays.extend(layer.arrays().into_iter().map(|(name, array)| {
                let name = if name.contains('.') && name.starts_with("model") {
                    name
                } else {
                    format!("layer {index}: {name}")
                };
                (name, array)
            }));
        }
        arrays
    }
}

impl Layer {
    fn take(from: &mut Checkpoint, described: &DescribedLayer) -> Result<Layer> {
        let mut norm = |norm: &Option<mlxman_lm::decoder::Norm>| {
            norm.as_ref().map(|norm| Norm::take(from, norm)).transpose()
        };
        let residual = match &described.residual {
            Residual::Sequential { before_attention, after_attention, before_mlp, after_mlp, scale } => {
                let norms =
                    [norm(before_attention)?, norm(after_attention)?, norm(before_mlp)?, norm(after_mlp)?];
                Join::Sequential { norms: Box::new(norms), scale: *scale }
            }
            Residual::Parallel { before, before_mlp } => {
                let before_mlp = norm(before_mlp)?;
                Join::Parallel { before: Norm::take(from, before)?, before_mlp }
            }
        };
        let attention = match &described.attention {
            DescribedAttention::Heads(heads) => Seeing::Heads(Box::new(Attention::take(from, heads)?)),
            DescribedAttention::Latent(latent) => Seeing::Latent(Box::new(Latent::take(from, latent)?)),
        };
        Ok(Layer { attention, mlp: Mlp::take(from, &described.mlp)?, residual })
    }

    fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> Result<Array> {
        match &self.residual {
            Join::Sequential { norms, scale } => {
                let [before_attention, after_attention, before_mlp, after_mlp] = norms.as_ref();
                let seen = self.attention.forward(&through(before_attention, x)?, mask, cache)?;
                let h = joined(x, through(after_attention, &seen)?, *scale)?;
                let done = self.mlp.forward(&through(before_mlp, &h)?)?;
                joined(&h, through(after_mlp, &done)?, *scale)
            }
            Join::Parallel { before, before_mlp } => {
                let h = before.forward(x)?;
                let seen = self.attention.forward(&h, mask, cache)?;
                let done = match before_mlp {
                    Some(norm) => self.mlp.forward(&norm.forward(x)?)?,
                    None => self.mlp.forward(&h)?,
                };
                Ok(seen.add(done)?.add(x)?)
            }
        }
    }

    fn arrays(&self) -> Vec<(String, Array)> {
        let mut arrays = match &self.attention {
            Seeing::Heads(attention) => attention.arrays(),
            Seeing::Latent(latent) => latent.arrays(),
        };
        arrays.extend(self.mlp.arrays());
        match &self.residual {
            Join::Sequential { norms, .. } => {
                arrays.extend(norms.iter().flatten().flat_map(Norm::arrays));
            }
            Join::Parallel { before, before_mlp } => {
                arrays.extend(before.arrays());
                arrays.extend(before_mlp.iter().flat_map(Norm::arrays));
            }
        }
        arrays
    }
}

impl Seeing {
    fn needs_pairs(&self) -> bool {
        match self {
            Seeing::Heads(attention) => attention.needs_pairs(),
            Seeing::Latent(latent) => latent.needs_pairs(),
        }
    }

    fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> Result<Array> {
        match self {
            Seeing::Heads(attention) => attention.forward(x, mask, cache),
            Seeing::Latent(latent) => latent.forward(x, mask, cache),
        }
    }
}

/// Tensors that files have and a decoder does not need, for reasons that are known.
fn is_left_over(name: &str, config: &serde_json::Value, described: &Decoder) -> bool {
    // Tables and masks that are computed, and other parts of models that see and hear.
    let known = [
        "rotary_emb",
        "rope_freqs",
        "attn.bias",
        "attention.bias",
        "masked_bias",
        "vision",
        "visual",
        "audio",
        "image",
        "speech",
        "projector",
        "connector",
        "patch_embed",
    ];
    if known.iter().any(|part| name.contains(part)) || name.starts_with("mtp.") || name.contains(".mtp.") {
        return true;
    }
    // A head that is the embedding's matrix may lie there once more.
    if name.starts_with("lm_head.") || name.ends_with(".lm_head.weight") {
        return described.head.name.is_none() || described.head.may_be_tied;
    }
    // Layers that guess more than one token ahead come after the last one.
    let layer =
        name.split_once("layers.").and_then(|(_, rest)| rest.split('.').next()?.parse::<usize>().ok());
    layer.is_some_and(|layer| layer >= described.layers.len())
        && config.get("num_nextn_predict_layers").and_then(serde_json::Value::as_u64).is_some_and(|n| n > 0)
}

/// What is said of tensors that nobody needs.
fn unused_note<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let first: Vec<String> = names.iter().take(3).map(|name| format!("`{name}`")).collect();
    let (first, more) = (first.join(", "), names.len().saturating_sub(3));
    match (names.len(), more) {
        (0, _) => None,
        (1, _) => Some(format!("a tensor is not used by this architecture: {first}")),
        (count, 0) => Some(format!("{count} tensors are not used by this architecture: {first}")),
        (count, more) => {
            Some(format!("{count} tensors are not used by this architecture: {first} and {more} more"))
        }
    }
}

/// What is said of matrices that are zero: training leaves none behind, and a file that was cut and filled up does.
fn zeros_note(arrays: &[(String, Array)], zeros: &[bool]) -> Option<String> {
    // A matrix may be in memory in several parts; a fresh adapter begins with zeros.
    let mut matrices: Vec<(&str, bool)> = Vec::new();
    for ((name, array), zero) in arrays.iter().zip(zeros) {
        let is_matrix = array.ndim() >= 2 && (name.ends_with(".weight") || name.ends_with(".scales"));
        if !is_matrix || array.size() == 0 {
            continue;
        }
        match matrices.last_mut().filter(|(last, _)| last == name) {
            Some((_, all)) => *all &= zero,
            None => matrices.push((name, *zero)),
        }
    }
    let mut names = matrices.iter().filter(|(_, zero)| *zero).map(|(name, _)| *name);
    let first = names.next()?;
    Some(match names.count() {
        0 => format!("the matrix `{first}` is all zeros"),
        more => format!("{} matrices are all zeros, the first of them `{first}`", more + 1),
    })
}

fn through(norm: &Option<Norm>, x: &Array) -> Result<Array> {
    match norm {
        Some(norm) => norm.forward(x),
        None => Ok(x.clone()),
    }
}

fn joined(x: &Array, more: Array, scale: f32) -> Result<Array> {
    let more = if scale == 1.0 { more } else { more.multiply(scalar(scale, &more)?)? };
    Ok(x.add(more)?)
}
