//! Attention with heads.

use mlx_rs::fast::{ScaledDotProductAttentionMask, scaled_dot_product_attention};
use mlx_rs::{Array, Dtype, fast, ops};
use mlxman_lm::decoder::{Blend, Growth, Heads, QkNorm, Qkv};

use crate::cache::{Cache, Mask};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::linear::{Linear, vector};
use crate::norm::Norm;
use crate::ops::{part, scalar};
use crate::rope::Rope;

#[derive(Debug)]
pub(crate) struct Attention {
    heads: i32,
    kv_heads: i32,
    head_dim: i32,
    input: Input,
    output: Linear,
    qk_norm: HeadNorms,
    rope: Rope,
    scale: f32,
    soft_cap: Option<f32>,
    sinks: Option<Array>,
    queries_in_float32: bool,
    clip: Option<f32>,
    gate: Option<Linear>,
    blend: Option<(Array, Array)>,
    growth: Option<Growth>,
}

#[derive(Debug)]
enum Input {
    Separate(Box<[Linear; 3]>),
    Stacked(Linear),
    Grouped(Linear),
}

#[derive(Debug)]
enum HeadNorms {
    None,
    EachHead(Norm, Norm),
    EachHeadRotated(Norm, Norm),
    AllHeads(Norm, Norm),
    OwnWeight { q: Array, k: Array, eps: f32 },
}

impl Attention {
    pub(crate) fn take(from: &mut Checkpoint, described: &Heads) -> Result<Attention> {
        let input = match &described.input {
            Qkv::Separate { q, k, v } => Input::Separate(Box::new([
                Linear::take(from, q)?,
                Linear::take(from, k)?,
                Linear::take(from, v)?,
            ])),
            Qkv::Stacked(one) => Input::Stacked(Linear::take(from, one)?),
            Qkv::Grouped(one) => Input::Grouped(Linear::take(from, one)?),
        };
        let mut both =
            |q, k| Ok::<_, crate::error::EngineError>((Norm::take(from, q)?, Norm::take(from, k)?));
        let qk_norm = match &described.qk_norm {
            QkNorm::None => HeadNorms::None,
            QkNorm::EachHead(q, k) => both(q, k).map(|(q, k)| HeadNorms::EachHead(q, k))?,
            QkNorm::EachHeadRotated(q, k) => both(q, k).map(|(q, k)| HeadNorms::EachHeadRotated(q, k))?,
            QkNorm::AllHeads(q, k) => both(q, k).map(|(q, k)| HeadNorms::AllHeads(q, k))?,
            QkNorm::EachHeadOwnWeight { q, k, eps } => HeadNorms::OwnWeight {
                q: head_weights(from, q, described.heads, described.head_dim)?,
                k: head_weights(from, k, described.kv_heads, described.head_dim)?,
                eps: *eps,
            },
        };
        let sinks = match &described.sinks {
            Some(name) => Some(vector(from, name, described.heads)?),
            None => None,
        };
        Ok(Attention {
            heads: described.heads as i32,
            kv_heads: described.kv_heads as i32,
            head_dim: described.head_dim as i32,
            input,
            output: Linear::take(from, &described.output)?,
            qk_norm,
            rope: Rope::new(&described.rope),
            scale: described.scale,
            soft_cap: described.soft_cap,
            sinks,
            queries_in_float32: described.queries_in_float32,
            clip: described.clip,
            gate: described.gate.as_ref().map(|gate| Linear::take(from, gate)).transpose()?,
            blend: match &described.blend {
                Some(Blend { keys, values }) => {
                    let mut weights = |name: &str| from.take(name, &[1, 1, described.kv_heads, 1, 2]);
                    Some((weights(keys)?, weights(values)?))
                }
                None => None,
            },
            growth: described.growth,
        })
    }

    /// Whether its mask has to be an array.
    pub(crate) fn needs_pairs(&self) -> bool {
        self.soft_cap.is_some()
    }

    /// `x` is `[batch, tokens, hidden]`.
    pub(crate) fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> Result<Array> {
        let (batch, tokens) = (x.shape()[0], x.shape()[1]);
        let (mut q, mut k, mut v) = self.project(x)?;
        if let Some(most) = self.clip {
            for array in [&mut q, &mut k, &mut v] {
                *array = ops::clip(&*array, (scalar(-most, array)?, scalar(most, array)?))?;
            }
        }
        if let HeadNorms::AllHeads(q_norm, k_norm) = &self.qk_norm {
            (q, k) = (q_norm.forward(&q)?, k_norm.forward(&k)?);
        }
        q = q.reshape(&[batch, tokens, self.heads, self.head_dim])?;
        k = k.reshape(&[batch, tokens, self.kv_heads, self.head_dim])?;
        v = v.reshape(&[batch, tokens, self.kv_heads, -1])?;
        match &self.qk_norm {
            HeadNorms::EachHead(q_norm, k_norm) => (q, k) = (q_norm.forward(&q)?, k_norm.forward(&k)?),
            HeadNorms::OwnWeight { q: q_weight, k: k_weight, eps } => {
                q = q_weight.multiply(fast::layer_norm(&q, None, None, *eps)?)?;
                k = k_weight.multiply(fast::layer_norm(&k, None, None, *eps)?)?;
            }
            _ => {}
        }
        let order = [0, 2, 1, 3];
        (k, v) = (k.transpose_axes(&order)?, v.transpose_axes(&order)?);
        if let Some((k_weights, v_weights)) = &self.blend {
            let before = cache.before.take();
            let last = (part(&k, 2, tokens - 1, tokens)?, part(&v, 2, tokens - 1, tokens)?);
            cache.before = Some(last);
            let (k_before, v_before) = before.as_ref().map_or((None, None), |(k, v)| (Some(k), Some(v)));
            (k, v) = (blended(&k, k_before, k_weights)?, blended(&v, v_before, v_weights)?);
        }
        q = self.rope.forward(&q.transpose_axes(&order)?, cache.offset())?;
        k = self.rope.forward(&k, cache.offset())?;
        if let HeadNorms::EachHeadRotated(q_norm, k_norm) = &self.qk_norm {
            (q, k) = (q_norm.forward(&q)?, k_norm.forward(&k)?);
        }
        if let Some(growth) = self.growth {
            q = q.multiply(grown(growth, cache.offset(), tokens)?.as_dtype(x.dtype())?)?;
        }
        let (k, v) = cache.extend(k, v)?;
        let out = self.attend(q, &k, &v, mask)?;
        let mut out = out.transpose_axes(&order)?.reshape(&[batch, tokens, -1])?;
        if let Some(gate) = &self.gate {
            out = out.multiply(ops::sigmoid(gate.forward(x)?)?)?;
        }
        self.output.forward(&out)
    }

    fn project(&self, x: &Array) -> Result<(Array, Array, Array)> {
        let (q_size, kv_size) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match &self.input {
            Input::Separate(each) => {
                let [q, k, v] = each.as_ref();
                Ok((q.forward(x)?, k.forward(x)?, v.forward(x)?))
            }
            Input::Stacked(all) => {
                let all = all.forward(x)?;
                Ok((
                    part(&all, 2, 0, q_size)?,
                    part(&all, 2, q_size, q_size + kv_size)?,
                    part(&all, 2, q_size + kv_size, q_size + 2 * kv_size)?,
                ))
            }
            Input::Grouped(all) => {
                let (batch, tokens) = (x.shape()[0], x.shape()[1]);
                let group = self.heads / self.kv_heads;
                let all = all.forward(x)?;
                let all = all.reshape(&[batch, tokens, self.kv_heads, group + 2, self.head_dim])?;
                let flat = |array: Array| array.reshape(&[batch, tokens, -1]);
                Ok((
                    flat(part(&all, 3, 0, group)?)?,
                    flat(part(&all, 3, group, group + 1)?)?,
                    flat(part(&all, 3, group + 1, group + 2)?)?,
                ))
            }
        }
    }

    fn attend(&self, q: Array, k: &Array, v: &Array, mask: &Mask) -> Result<Array> {
        if let Some(cap) = self.soft_cap {
            return self.attend_capped(&q, k, v, mask, cap);
        }
        let dtype = v.dtype();
        let q = if self.queries_in_float32 { q.as_dtype(Dtype::Float32)? } else { q };
        let sinks = self.sinks.as_ref();
        let out = match mask {
            Mask::None => scaled_dot_product_attention(
                &q,
                k,
                v,
                self.scale,
                None::<ScaledDotProductAttentionMask<'_>>,
                sinks,
            )?,
            Mask::Causal => scaled_dot_product_attention(
                &q,
                k,
                v,
                self.scale,
                Some(ScaledDotProductAttentionMask::Causal),
                sinks,
            )?,
            Mask::Pairs(pairs) => scaled_dot_product_attention(&q, k, v, self.scale, pairs, sinks)?,
        };
        Ok(if self.queries_in_float32 { out.as_dtype(dtype)? } else { out })
    }

    /// The same with scores bounded by tanh, which MLX's own attention cannot do.
    fn attend_capped(&self, q: &Array, k: &Array, v: &Array, mask: &Mask, cap: f32) -> Result<Array> {
        let (batch, tokens) = (q.shape()[0], q.shape()[2]);
        let q = q.multiply(scalar(self.scale, q)?)?;
        let group = self.heads / self.kv_heads;
        let q = q.reshape(&[batch, self.kv_heads, group, tokens, self.head_dim])?;
        let (k, v) = (k.expand_dims(2)?, v.expand_dims(2)?);
        let scores = ops::matmul(&q, k.swap_axes(-1, -2)?)?;
        let cap = scalar(cap, &scores)?;
        let mut scores = ops::tanh(scores.divide(&cap)?)?.multiply(&cap)?;
        if let Mask::Pairs(pairs) = mask {
            scores = ops::select(pairs, &scores, lowest(scores.dtype())?)?;
        }
        let weights = ops::softmax_axis(&scores, -1, true)?;
        Ok(ops::matmul(&weights, &v)?.reshape(&[batch, self.heads, tokens, -1])?)
    }

    pub(crate) fn arrays(&self) -> Vec<(String, Array)> {
        let mut arrays = self.output.arrays();
        arrays.extend(self.gate.iter().flat_map(Linear::arrays));
        match &self.input {
            Input::Separate(each) => each.iter().for_each(|linear| arrays.extend(linear.arrays())),
            Input::Stacked(all) | Input::Grouped(all) => arrays.extend(all.arrays()),
        }
        match &self.qk_norm {
            HeadNorms::None => {}
            HeadNorms::EachHead(q, k) | HeadNorms::EachHeadRotated(q, k) | HeadNorms::AllHeads(q, k) => {
                arrays.extend(q.arrays());
                arrays.extend(k.arrays());
            }
            HeadNorms::OwnWeight { q, k, .. } => {
                arrays.push(("q_norm.weight".to_owned(), q.clone()));
                arrays.push(("k_norm.weight".to_owned(), k.clone()));
            }
        }
        if let Some((keys, values)) = &self.blend {
            arrays.push(("conv_k".to_owned(), keys.clone()));
            arrays.push(("conv_v".to_owned(), values.clone()));
        }
        arrays.extend(self.sinks.iter().map(|sinks| ("sinks".to_owned(), sinks.clone())));
        arrays
    }
}

/// `[heads, head_dim]`: one table, or a tensor a head where the name has `{}`.
fn head_weights(from: &mut Checkpoint, name: &str, heads: usize, head_dim: usize) -> Result<Array> {
    if !name.contains("{}") {
        return from.take(&format!("{name}.weight"), &[heads, head_dim]);
    }
    let each: Vec<Array> = (0..heads)
        .map(|head| vector(from, &format!("{}.weight", name.replace("{}", &head.to_string())), head_dim))
        .collect::<Result<_>>()?;
    Ok(ops::stack(&each, 0)?)
}

/// Each token's part and that of the one before, `[batch, heads, tokens, head]`; the first one's is `before`, or
/// nothing.
fn blended(x: &Array, before: Option<&Array>, weights: &Array) -> Result<Array> {
    let shape = x.shape();
    let (heads, tokens) = (shape[1], shape[2]);
    let weights = weights.reshape(&[1, heads, 2, 1])?;
    let first = match before {
        Some(before) => before.clone(),
        None => ops::zeros_dtype(&[shape[0], heads, 1, shape[3]], x.dtype())?,
    };
    let behind = if tokens == 1 { first } else { ops::concatenate(&[first, part(x, 2, 0, tokens - 1)?], 2)? };
    let theirs = behind.multiply(part(&weights, 2, 0, 1)?)?;
    Ok(theirs.add(x.multiply(part(&weights, 2, 1, 2)?)?)?)
}

/// What queries are multiplied with, `[tokens, 1]`.
pub(crate) fn grown(growth: Growth, offset: i32, tokens: i32) -> Result<Array> {
    let places = Array::arange::<_, f32>(offset, offset + tokens, None)?;
    let times = ops::floor(places.divide(Array::from_f32(growth.length as f32))?)?;
    let logarithm = times.add(Array::from_f32(1.0))?.log()?;
    let factor = logarithm.multiply(Array::from_f32(growth.beta))?.add(Array::from_f32(1.0))?;
    Ok(factor.expand_dims(1)?)
}

/// The least number of a type.
pub(crate) fn lowest(dtype: Dtype) -> Result<Array> {
    let least = match dtype {
        Dtype::Float16 => -65504.0,
        Dtype::Bfloat16 => -3.389_531_4e38,
        _ => f32::MIN,
    };
    Ok(Array::from_f32(least).as_dtype(dtype)?)
}
