//! Mixtures of experts.

use mlx_rs::{Array, Dtype, ops};
use mlxman_lm::decoder::{Activation, Choice, Experts as Described, Shared as DescribedShared};

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::linear::{Linear, Matrix, vector};
use crate::mlp::{Gated, gated};
use crate::ops::{part, scalar};

/// From so many choices on, tokens are sorted by expert, so that each expert's matrix is read once.
const SORT_FROM: usize = 64;

#[derive(Debug)]
pub(crate) struct Experts {
    chosen: i32,
    router: Linear,
    choice: Choice,
    correction: Option<Array>,
    gate: Stack,
    up: Stack,
    down: Stack,
    activation: Activation,
    shared: Option<(Gated, Option<Linear>)>,
}

/// One matrix of every expert.
#[derive(Debug)]
struct Stack {
    name: String,
    matrix: Matrix,
    bias: Option<Array>,
}

impl Experts {
    pub(crate) fn take(from: &mut Checkpoint, described: &Described) -> Result<Experts> {
        let (count, hidden, inner) = (described.count, described.hidden, described.inner);
        if let Some(single) = &described.names.single {
            for (stacked, single) in described.names.stacked.iter().zip(single) {
                join(from, stacked, single, count)?;
            }
        }
        let [gate, up, down] = &described.names.stacked;
        let mut stack = |name: &str, output: usize, input: usize| -> Result<Stack> {
            let bias = described.bias.then(|| from.take(&format!("{name}.bias"), &[count, output]));
            let matrix = Matrix::take(from, name, &[count, output], input)?;
            Ok(Stack { name: name.to_owned(), matrix, bias: bias.transpose()? })
        };
        let (gate, up, down) =
            (stack(gate, inner, hidden)?, stack(up, inner, hidden)?, stack(down, hidden, inner)?);
        let correction = match &described.choice {
            Choice::Sigmoid { correction: Some(name), .. } => {
                // As it is: it decides between scores that lie close together.
                let kept = from.dtype;
                from.dtype = crate::checkpoint::Dtype::Checkpoint;
                let read = vector(from, name, count);
                from.dtype = kept;
                Some(read?)
            }
            _ => None,
        };
        let shared = match &described.shared {
            Some(DescribedShared { mlp, gate }) => {
                let gate = gate.as_ref().map(|gate| Linear::take(from, gate)).transpose()?;
                Some((Gated::take(from, mlp)?, gate))
            }
            None => None,
        };
        Ok(Experts {
            chosen: described.chosen as i32,
            router: Linear::take(from, &described.router)?,
            choice: described.choice.clone(),
            correction,
            gate,
            up,
            down,
            activation: described.activation,
            shared,
        })
    }

    /// `x` is `[batch, tokens, hidden]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        let (indices, weights) = self.choose(x)?;
        let each = self.run(x, &indices)?;
        let mut out = each.multiply(weights.expand_dims(-1)?)?.sum_axis(-2, None)?.as_dtype(each.dtype())?;
        if let Some((mlp, gate)) = &self.shared {
            let mut shared = mlp.forward(x)?;
            if let Some(gate) = gate {
                shared = ops::sigmoid(gate.forward(x)?)?.multiply(shared)?;
            }
            out = out.add(shared)?;
        }
        Ok(out)
    }

    /// Who sees each token, and with what weight: `[batch, tokens, chosen]` each.
    fn choose(&self, x: &Array) -> Result<(Array, Array)> {
        let logits = self.router.forward(x)?;
        match &self.choice {
            Choice::SoftmaxOfChosen => {
                let indices = self.greatest(&logits)?;
                let chosen = logits.take_along_axis(&indices, -1)?;
                Ok((indices, ops::softmax_axis(&chosen, -1, true)?))
            }
            Choice::Softmax { normalised, scale, groups } => {
                let mut scores = ops::softmax_axis(&logits, -1, true)?;
                if let Some((groups, kept)) = groups {
                    scores = best_groups(&scores, *groups, *kept, 1)?;
                }
                let indices = self.greatest(&scores)?;
                let mut weights = scores.take_along_axis(&indices, -1)?;
                if *normalised {
                    weights = weights.divide(weights.sum_axis(-1, true)?)?;
                }
                Ok((indices, scaled(weights, *scale)?))
            }
            Choice::Sigmoid { normalised, eps, scale, groups, .. } => {
                let plain = ops::sigmoid(logits.as_dtype(Dtype::Float32)?)?;
                let mut scores = match &self.correction {
                    Some(correction) => plain.add(correction)?,
                    None => plain.clone(),
                };
                if groups.0 > 1 {
                    scores = best_groups(&scores, groups.0, groups.1, 2)?;
                }
                let indices = self.greatest(&scores)?;
                let mut weights = plain.take_along_axis(&indices, -1)?;
                if *normalised {
                    let sum = weights.sum_axis(-1, true)?;
                    weights =
                        weights.divide(if *eps == 0.0 { sum } else { sum.add(scalar(*eps, &weights)?)? })?;
                }
                Ok((indices, scaled(weights, *scale)?))
            }
        }
    }

    /// The places of the greatest.
    fn greatest(&self, scores: &Array) -> Result<Array> {
        let order = ops::argpartition_axis(scores.negative()?, self.chosen - 1, -1)?;
        let axis = order.ndim() - 1;
        part(&order, axis, 0, self.chosen)
    }

    fn run(&self, x: &Array, indices: &Array) -> Result<Array> {
        let mut x = x.expand_dims_axes(&[-2, -3])?;
        let sorts = indices.size() >= SORT_FROM;
        let (mut chosen, mut back) = (indices.clone(), None);
        if sorts {
            let flat = indices.flatten(None, None)?;
            let order = ops::argsort(&flat)?;
            back = Some(ops::argsort(&order)?);
            let rows = order.floor_divide(Array::from_int(self.chosen).as_dtype(order.dtype())?)?;
            let (ones, size) = (x.shape()[x.ndim() - 2], x.shape()[x.ndim() - 1]);
            x = x.reshape(&[-1, ones, size])?.take_axis(rows, 0)?;
            chosen = flat.take(&order)?;
        }
        let up = self.up.forward(&x, &chosen, sorts)?;
        let gate = self.gate.forward(&x, &chosen, sorts)?;
        let mut out = self.down.forward(&gated(self.activation, &gate, &up)?, &chosen, sorts)?;
        if let Some(back) = back {
            let (ones, size) = (out.shape()[out.ndim() - 2], out.shape()[out.ndim() - 1]);
            let shape: Vec<i32> = indices.shape().iter().copied().chain([ones, size]).collect();
            out = out.take_axis(back, 0)?.reshape(&shape)?;
        }
        Ok(out.squeeze_axes(&[-2])?)
    }

    pub(crate) fn arrays(&self) -> Vec<(String, Array)> {
        let mut arrays = self.router.arrays();
        for stack in [&self.gate, &self.up, &self.down] {
            arrays.extend(stack.matrix.arrays(&stack.name));
            arrays.extend(stack.bias.iter().map(|bias| (format!("{}.bias", stack.name), bias.clone())));
        }
        arrays.extend(
            self.correction.iter().map(|array| ("e_score_correction_bias".to_owned(), array.clone())),
        );
        if let Some((mlp, gate)) = &self.shared {
            arrays.extend(mlp.arrays());
            arrays.extend(gate.iter().flat_map(Linear::arrays));
        }
        arrays
    }
}

impl Stack {
    fn forward(&self, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        let out = self.matrix.gathered(x, indices, sorted)?;
        match &self.bias {
            Some(bias) => Ok(out.add(bias.take_axis(indices, 0)?.expand_dims(-2)?)?),
            None => Ok(out),
        }
    }
}

fn scaled(weights: Array, scale: f32) -> Result<Array> {
    if scale == 1.0 {
        return Ok(weights);
    }
    let scale = scalar(scale, &weights)?;
    Ok(weights.multiply(scale)?)
}

/// The scores with those outside the best groups at nothing. A group is as good as the sum of its best `by`.
fn best_groups(scores: &Array, groups: usize, kept: usize, by: i32) -> Result<Array> {
    if kept >= groups {
        return Ok(scores.clone());
    }
    let shape = scores.shape().to_vec();
    let mut split = shape.clone();
    split.pop();
    split.extend([groups as i32, -1]);
    let scores = scores.reshape(&split)?;
    let good = if by == 1 {
        scores.max_axis(-1, true)?
    } else {
        ops::indexing::topk_axis(&scores, by, -1)?.sum_axis(-1, true)?
    };
    let worst = (groups - kept) as i32;
    let order = ops::argpartition_axis(good, worst - 1, -2)?;
    let axis = order.ndim() - 2;
    let worst = part(&order, axis, 0, worst)?;
    let worst_shape: Vec<i32> = {
        let mut shape = worst.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = scores.shape()[scores.ndim() - 1];
        }
        shape
    };
    let places = ops::broadcast_to(&worst, &worst_shape)?;
    let nothing = ops::zeros_dtype(&worst_shape, scores.dtype())?;
    Ok(scores.put_along_axis(places, nothing, -2)?.reshape(&shape)?)
}

/// Stacks the experts of a checkpoint that has them one by one.
fn join(from: &mut Checkpoint, stacked: &str, single: &str, count: usize) -> Result<()> {
    for end in ["weight", "scales", "biases"] {
        let name = |expert: usize| format!("{}.{end}", single.replace("{}", &expert.to_string()));
        if !from.tensors.contains_key(&name(0)) {
            continue;
        }
        let each: Vec<Array> = (0..count)
            .map(|expert| from.take_if(&name(expert)).ok_or_else(|| from.missing(&name(expert))))
            .collect::<Result<_>>()?;
        from.tensors.insert(format!("{stacked}.{end}"), ops::stack(&each, 0)?);
    }
    Ok(())
}
