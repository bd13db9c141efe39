//! Mixtures of experts.

use mlx_rs::{Array, Dtype, ops};
use mlxman_lm::decoder::{
    Activation, Choice, Experts as Described, Groups, Mix as DescribedMix, Precision, Scores,
    Shared as DescribedShared,
};

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
    shared: Option<(Gated, Mix)>,
}

#[derive(Debug)]
enum Mix {
    Sum,
    Gate(Linear),
    Weights(Linear),
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
        crate::fused::split(from, &described.names)?;
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
        let correction = match &described.choice.correction {
            Some(name) => {
                // As it is: it decides between scores that lie close together.
                let kept = from.dtype;
                from.dtype = crate::checkpoint::Dtype::Checkpoint;
                let read = vector(from, name, count);
                from.dtype = kept;
                Some(read?)
            }
            None => None,
        };
        let shared = match &described.shared {
            Some(DescribedShared { mlp, mix }) => {
                let mix = match mix {
                    DescribedMix::Sum => Mix::Sum,
                    DescribedMix::Gate(gate) => Mix::Gate(Linear::take(from, gate)?),
                    DescribedMix::Weights(weights) => Mix::Weights(Linear::take(from, weights)?),
                };
                Some((Gated::take(from, mlp)?, mix))
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
            activation: described.activation.clone(),
            shared,
        })
    }

    /// `x` is `[batch, tokens, hidden]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        let (indices, weights) = self.choose(x)?;
        let each = self.run(x, &indices)?;
        let out = each.multiply(weights.expand_dims(-1)?)?.sum_axis(-2, None)?.as_dtype(each.dtype())?;
        let Some((mlp, mix)) = &self.shared else { return Ok(out) };
        let shared = mlp.forward(x)?;
        match mix {
            Mix::Sum => Ok(out.add(shared)?),
            Mix::Gate(gate) => Ok(out.add(ops::sigmoid(gate.forward(x)?)?.multiply(shared)?)?),
            Mix::Weights(weights) => {
                let weights = ops::softmax_axis(weights.forward(x)?, -1, true)?;
                let axis = weights.ndim() - 1;
                let out = out.multiply(part(&weights, axis, 0, 1)?)?;
                Ok(out.add(shared.multiply(part(&weights, axis, 1, 2)?)?)?)
            }
        }
    }

    /// Who sees each token, and with what weight: `[batch, tokens, chosen]` each.
    fn choose(&self, x: &Array) -> Result<(Array, Array)> {
        let choice = &self.choice;
        let single = |array: &Array| array.as_dtype(Dtype::Float32);
        let mut logits = match choice.precision {
            Precision::RoundedWithRouter => self.router.forward(&single(x)?)?,
            _ => self.router.forward(x)?,
        };
        if choice.precision != Precision::Activations {
            logits = single(&logits)?;
        }
        let (indices, mut weights) = match choice.scores {
            Scores::SoftmaxOfChosen => {
                let indices = self.greatest(&logits)?;
                let chosen = logits.take_along_axis(&indices, -1)?;
                (indices, ops::softmax_axis(&chosen, -1, true)?)
            }
            Scores::Closest { jitter } => self.closest(&logits, jitter)?,
            Scores::Softmax | Scores::Sigmoid => {
                let plain = match choice.scores {
                    Scores::Sigmoid => ops::sigmoid(&logits)?,
                    _ => ops::softmax_axis(&logits, -1, true)?,
                };
                let mut scores = match &self.correction {
                    Some(correction) => plain.add(correction)?,
                    None => plain.clone(),
                };
                if let Some(groups) = choice.groups {
                    scores = best_groups(&scores, groups)?;
                }
                let indices = self.greatest(&scores)?;
                let weights = plain.take_along_axis(&indices, -1)?;
                (indices, weights)
            }
        };
        if let Some(eps) = choice.normalised {
            let sum = weights.sum_axis(-1, true)?;
            weights = weights.divide(if eps == 0.0 { sum } else { sum.add(scalar(eps, &weights)?)? })?;
        }
        weights = scaled(weights, choice.scale)?;
        if matches!(choice.precision, Precision::Rounded | Precision::RoundedWithRouter) {
            weights = weights.as_dtype(x.dtype())?;
        }
        Ok((indices, weights))
    }

    /// The greatest logits one after the other, each with its part of the softmax over those close to it.
    fn closest(&self, logits: &Array, jitter: f32) -> Result<(Array, Array)> {
        let nothing = scalar(f32::NEG_INFINITY, logits)?;
        let (mut places, mut weights) = (Vec::new(), Vec::new());
        let mut left = logits.clone();
        for _ in 0..self.chosen {
            let greatest = left.max_axis(-1, true)?;
            let place = ops::indexing::argmax_axis(&left, -1, true)?;
            let size = ops::maximum(logits.abs()?, &greatest)?;
            let distance = greatest.subtract(logits)?.divide(size)?;
            let far = distance.gt(scalar(2.0 * jitter, logits)?)?;
            let near = ops::softmax_axis(ops::select(&far, &nothing, &left)?, -1, true)?;
            weights.push(near.take_along_axis(&place, -1)?);
            let gone = ops::broadcast_to(&nothing, place.shape())?;
            left = left.put_along_axis(&place, gone, -1)?;
            places.push(place);
        }
        Ok((ops::concatenate(&places, -1)?, ops::concatenate(&weights, -1)?))
    }

    /// The places of the greatest.
    fn greatest(&self, scores: &Array) -> Result<Array> {
        let axis = scores.ndim() - 1;
        if self.choice.from_the_end {
            let count = scores.shape()[axis];
            let order = ops::argpartition_axis(scores, count - self.chosen, -1)?;
            return part(&order, axis, count - self.chosen, count);
        }
        let order = ops::argpartition_axis(scores.negative()?, self.chosen - 1, -1)?;
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
        let mut out = self.down.forward(&gated(&self.activation, &gate, &up)?, &chosen, sorts)?;
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
        if let Some((mlp, mix)) = &self.shared {
            arrays.extend(mlp.arrays());
            if let Mix::Gate(linear) | Mix::Weights(linear) = mix {
                arrays.extend(linear.arrays());
            }
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

/// The scores with those outside the best groups at nothing.
fn best_groups(scores: &Array, groups: Groups) -> Result<Array> {
    let Groups { count: groups, kept, best } = groups;
    if kept >= groups {
        return Ok(scores.clone());
    }
    let shape = scores.shape().to_vec();
    let mut split = shape.clone();
    split.pop();
    split.extend([groups as i32, -1]);
    let scores = scores.reshape(&split)?;
    let good = if best == 1 {
        scores.max_axis(-1, true)?
    } else {
        ops::indexing::topk_axis(&scores, best as i32, -1)?.sum_axis(-1, true)?
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
    for end in ["weight", "scales", "biases", "bias"] {
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
