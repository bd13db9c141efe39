//! Latent attention: one compressed vector a token stands for all heads' keys and values.

use mlx_rs::fast::{ScaledDotProductAttentionMask, scaled_dot_product_attention};
use mlx_rs::{Array, Dtype, ops};
use mlxman_lm::decoder::{Growth, Latent as Described, LatentQuery, LatentUp};

use crate::attention::{grown, lowest};
use crate::cache::{Cache, Mask};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::linear::{Linear, Matrix};
use crate::norm::Norm;
use crate::ops::{part, scalar};
use crate::rope::Rope;

#[derive(Debug)]
pub(crate) struct Latent {
    heads: i32,
    nope_dim: i32,
    rope_dim: i32,
    rank: i32,
    query: Query,
    down: Linear,
    norm: Norm,
    up: Up,
    output: Linear,
    rope: Rope,
    scale: f32,
    growth: Option<Growth>,
}

#[derive(Debug)]
enum Query {
    Straight(Linear),
    LowRank(Linear, Norm, Linear),
}

#[derive(Debug)]
enum Up {
    Together(Linear),
    Absorbed { keys: (String, Matrix), values: (String, Matrix) },
}

impl Latent {
    pub(crate) fn take(from: &mut Checkpoint, described: &Described) -> Result<Latent> {
        let query = match &described.query {
            LatentQuery::Straight(one) => Query::Straight(Linear::take(from, one)?),
            LatentQuery::LowRank(down, norm, up) => {
                Query::LowRank(Linear::take(from, down)?, Norm::take(from, norm)?, Linear::take(from, up)?)
            }
        };
        let up = match &described.up {
            LatentUp::Together(one) => Up::Together(Linear::take(from, one)?),
            LatentUp::Absorbed { keys, values, together } => {
                split(from, described, keys, values, &together.name)?;
                let (heads, rank) = (described.heads, described.rank);
                Up::Absorbed {
                    keys: (keys.clone(), Matrix::take(from, keys, &[heads, rank], described.nope_dim)?),
                    values: (
                        values.clone(),
                        Matrix::take(from, values, &[heads, described.value_dim], rank)?,
                    ),
                }
            }
        };
        Ok(Latent {
            heads: described.heads as i32,
            nope_dim: described.nope_dim as i32,
            rope_dim: described.rope_dim as i32,
            rank: described.rank as i32,
            query,
            down: Linear::take(from, &described.down)?,
            norm: Norm::take(from, &described.norm)?,
            up,
            output: Linear::take(from, &described.output)?,
            rope: Rope::new(&described.rope),
            scale: described.scale,
            growth: described.growth,
        })
    }

    /// Whether its mask has to be an array.
    pub(crate) fn needs_pairs(&self) -> bool {
        matches!(self.up, Up::Absorbed { .. })
    }

    pub(crate) fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> Result<Array> {
        let (batch, tokens) = (x.shape()[0], x.shape()[1]);
        let order = [0, 2, 1, 3];
        let q = match &self.query {
            Query::Straight(one) => one.forward(x)?,
            Query::LowRank(down, norm, up) => up.forward(&norm.forward(&down.forward(x)?)?)?,
        };
        let head = self.nope_dim + self.rope_dim;
        let q = q.reshape(&[batch, tokens, self.heads, head])?.transpose_axes(&order)?;
        let (mut q_nope, q_rope) = (part(&q, 3, 0, self.nope_dim)?, part(&q, 3, self.nope_dim, head)?);
        let down = self.down.forward(x)?;
        let compressed = self.norm.forward(&part(&down, 2, 0, self.rank)?)?;
        let k_rope = part(&down, 2, self.rank, self.rank + self.rope_dim)?;
        let k_rope = k_rope.reshape(&[batch, tokens, 1, self.rope_dim])?.transpose_axes(&order)?;
        let offset = cache.offset();
        let (mut q_rope, k_rope) = (self.rope.forward(&q_rope, offset)?, self.rope.forward(&k_rope, offset)?);
        if let Some(growth) = self.growth {
            let factor = grown(growth, offset, tokens)?.as_dtype(x.dtype())?;
            (q_nope, q_rope) = (q_nope.multiply(&factor)?, q_rope.multiply(&factor)?);
        }
        let out = match &self.up {
            Up::Together(up) => {
                let both = up.forward(&compressed)?;
                let both = both.reshape(&[batch, tokens, self.heads, -1])?.transpose_axes(&order)?;
                let size = both.shape()[3];
                let (k_nope, v) = (part(&both, 3, 0, self.nope_dim)?, part(&both, 3, self.nope_dim, size)?);
                let k_rope = ops::broadcast_to(&k_rope, &[batch, self.heads, tokens, self.rope_dim])?;
                let (k, v) = cache.extend(ops::concatenate(&[k_nope, k_rope], 3)?, v)?;
                let q = ops::concatenate(&[q_nope, q_rope], 3)?;
                self.attend(&q, &k, &v, mask)?
            }
            Up::Absorbed { keys, values } => {
                let (compressed, k_rope) = cache.extend(compressed.expand_dims(1)?, k_rope)?;
                let scaled = q_rope.multiply(scalar(self.scale, &q_rope)?)?;
                let mut scores = ops::matmul(&scaled, k_rope.swap_axes(-1, -2)?)?;
                if let Mask::Pairs(pairs) = mask {
                    scores = ops::select(pairs, &scores, lowest(scores.dtype())?)?;
                }
                // One token: the matrices go to its query and its output, and not to all the cache.
                if tokens == 1 {
                    let q = keys.1.product(&q_nope)?;
                    let seen = scaled_dot_product_attention(
                        &q,
                        &compressed,
                        &compressed,
                        self.scale,
                        &scores,
                        None,
                    )?;
                    values.1.product(&seen)?
                } else {
                    let (k, v) = (keys.1.reverse_product(&compressed)?, values.1.product(&compressed)?);
                    scaled_dot_product_attention(&q_nope, &k, &v, self.scale, &scores, None)?
                }
            }
        };
        let out = out.transpose_axes(&order)?.reshape(&[batch, tokens, -1])?;
        self.output.forward(&out)
    }

    fn attend(&self, q: &Array, k: &Array, v: &Array, mask: &Mask) -> Result<Array> {
        Ok(match mask {
            Mask::None => scaled_dot_product_attention(
                q,
                k,
                v,
                self.scale,
                None::<ScaledDotProductAttentionMask<'_>>,
                None,
            )?,
            Mask::Causal => scaled_dot_product_attention(
                q,
                k,
                v,
                self.scale,
                Some(ScaledDotProductAttentionMask::Causal),
                None,
            )?,
            Mask::Pairs(pairs) => scaled_dot_product_attention(q, k, v, self.scale, pairs, None)?,
        })
    }

    pub(crate) fn arrays(&self) -> Vec<(String, Array)> {
        let mut arrays = self.output.arrays();
        arrays.extend(self.down.arrays());
        arrays.extend(self.norm.arrays());
        match &self.query {
            Query::Straight(one) => arrays.extend(one.arrays()),
            Query::LowRank(down, norm, up) => {
                arrays.extend(down.arrays());
                arrays.extend(norm.arrays());
                arrays.extend(up.arrays());
            }
        }
        match &self.up {
            Up::Together(one) => arrays.extend(one.arrays()),
            Up::Absorbed { keys, values } => {
                for (name, matrix) in [keys, values] {
                    arrays.extend(matrix.arrays(name));
                }
            }
        }
        arrays
    }
}

/// Makes the two matrices of each head out of the one that the original checkpoints have, where that is there. What was
/// packed is unpacked: MLX has no product with a part of a packed row.
fn split(
    from: &mut Checkpoint,
    described: &Described,
    keys: &str,
    values: &str,
    together: &str,
) -> Result<()> {
    let weight_name = format!("{together}.weight");
    if !from.tensors.contains_key(&weight_name) {
        return Ok(());
    }
    let (heads, rank) = (described.heads, described.rank);
    let rows = heads * (described.nope_dim + described.value_dim);
    let whole = match from.take_packed(together, &[rows], rank)? {
        Some(packed) => {
            let dtype = packed.biases.as_ref().map_or(Dtype::Bfloat16, Array::dtype);
            packed.unpacked(dtype)?
        }
        None => from.take(&weight_name, &[rows, rank])?,
    };
    let (nope, value) = (described.nope_dim as i32, described.value_dim as i32);
    let whole = whole.reshape(&[heads as i32, nope + value, rank as i32])?;
    let k = part(&whole, 1, 0, nope)?.swap_axes(-1, -2)?;
    let v = part(&whole, 1, nope, nope + value)?;
    from.tensors.insert(format!("{keys}.weight"), k.contiguous()?);
    from.tensors.insert(format!("{values}.weight"), v.contiguous()?);
    Ok(())
}
