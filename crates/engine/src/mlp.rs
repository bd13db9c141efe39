//! What happens to each token by itself.

use mlx_rs::{Array, ops};
use mlxman_lm::decoder::{Activation, GateUp, Gated as Described, Mlp as DescribedMlp};

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::experts::Experts;
use crate::linear::Linear;
use crate::ops::{part, scalar};

#[derive(Debug)]
pub(crate) enum Mlp {
    Gated(Gated),
    Plain { up: Linear, down: Linear, activation: Activation, bend: Option<Bend> },
    Experts(Box<Experts>),
}

#[derive(Debug)]
pub(crate) struct Gated {
    input: Input,
    down: Linear,
    activation: Activation,
}

#[derive(Debug)]
enum Input {
    Separate(Linear, Linear),
    Stacked(Linear),
}

impl Mlp {
    pub(crate) fn take(from: &mut Checkpoint, described: &DescribedMlp) -> Result<Mlp> {
        Ok(match described {
            DescribedMlp::Gated(gated) => Mlp::Gated(Gated::take(from, gated)?),
            DescribedMlp::Plain { up, down, activation } => Mlp::Plain {
                up: Linear::take(from, up)?,
                down: Linear::take(from, down)?,
                activation: activation.clone(),
                bend: match activation {
                    Activation::XieLu(name) => Some(Bend::take(from, name)?),
                    _ => None,
                },
            },
            DescribedMlp::Experts(experts) => Mlp::Experts(Box::new(Experts::take(from, experts)?)),
        })
    }

    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        match self {
            Mlp::Gated(gated) => gated.forward(x),
            Mlp::Plain { up, down, bend: Some(bend), .. } => down.forward(&bend.forward(&up.forward(x)?)?),
            Mlp::Plain { up, down, activation, .. } => down.forward(&activate(activation, &up.forward(x)?)?),
            Mlp::Experts(experts) => experts.forward(x),
        }
    }

    pub(crate) fn arrays(&self) -> Vec<(String, Array)> {
        match self {
            Mlp::Gated(gated) => gated.arrays(),
            Mlp::Plain { up, down, bend, .. } => {
                let bend = bend.iter().flat_map(|bend| bend.numbers.iter().cloned());
                let bend = bend.map(|number| ("act_fn".to_owned(), number));
                up.arrays().into_iter().chain(down.arrays()).chain(bend).collect()
            }
            Mlp::Experts(experts) => experts.arrays(),
        }
    }
}

impl Gated {
    pub(crate) fn take(from: &mut Checkpoint, described: &Described) -> Result<Gated> {
        let input = match &described.input {
            GateUp::Separate { gate, up } => {
                Input::Separate(Linear::take(from, gate)?, Linear::take(from, up)?)
            }
            GateUp::Stacked(both) => Input::Stacked(Linear::take(from, both)?),
        };
        Ok(Gated {
            input,
            down: Linear::take(from, &described.down)?,
            activation: described.activation.clone(),
        })
    }

    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        let (gate, up) = match &self.input {
            Input::Separate(gate, up) => (gate.forward(x)?, up.forward(x)?),
            Input::Stacked(both) => {
                let both = both.forward(x)?;
                let (axis, size) = (both.ndim() - 1, both.shape()[both.ndim() - 1]);
                (part(&both, axis, 0, size / 2)?, part(&both, axis, size / 2, size)?)
            }
        };
        self.down.forward(&gated(&self.activation, &gate, &up)?)
    }

    pub(crate) fn arrays(&self) -> Vec<(String, Array)> {
        let mut arrays = self.down.arrays();
        match &self.input {
            Input::Separate(gate, up) => {
                arrays.extend(gate.arrays());
                arrays.extend(up.arrays());
            }
            Input::Stacked(both) => arrays.extend(both.arrays()),
        }
        arrays
    }
}

/// apertus' activation, with its four numbers: how steep above zero, how steep below, what is linear in both, and up
/// to where the exponential goes.
#[derive(Debug)]
pub(crate) struct Bend {
    numbers: [Array; 4],
}

impl Bend {
    fn take(from: &mut Checkpoint, name: &str) -> Result<Bend> {
        let mut number = |name: String| -> Result<Array> {
            let array = from.take_if(&name).ok_or_else(|| from.missing(&name))?;
            if array.size() != 1 {
                crate::checkpoint::expect_shape(&name, &array, &[])?;
            }
            from.cast(array.reshape(&[])?)
        };
        let numbers = [
            number(format!("{name}.alpha_p"))?,
            number(format!("{name}.alpha_n"))?,
            number(format!("{name}.beta"))?,
            number(format!("{name}.eps"))?,
        ];
        Ok(Bend { numbers })
    }

    fn forward(&self, x: &Array) -> Result<Array> {
        let [above, below, linear, eps] = &self.numbers;
        let soft = |number: &Array| -> Result<Array> { Ok(ops::logaddexp(number, scalar(0.0, number)?)?) };
        let below = linear.add(soft(below)?)?;
        let straight = linear.multiply(x)?;
        let square = soft(above)?.multiply(x.square()?)?.add(&straight)?;
        let exponential = ops::expm1(ops::minimum(x, eps)?)?.subtract(x)?;
        let bent = exponential.multiply(below)?.add(&straight)?;
        Ok(ops::select(x.gt(scalar(0.0, x)?)?, square, bent)?)
    }
}

/// `activation(gate) * up`.
pub(crate) fn gated(activation: &Activation, gate: &Array, up: &Array) -> Result<Array> {
    if *activation == Activation::SwigluOai {
        let (steepness, most, one) = (scalar(1.702, gate)?, scalar(7.0, gate)?, scalar(1.0, gate)?);
        let gate = ops::minimum(gate, &most)?;
        let up = ops::clip(up, (scalar(-7.0, up)?, most))?;
        let swished = gate.multiply(ops::sigmoid(gate.multiply(steepness)?)?)?;
        return Ok(up.add(one)?.multiply(swished)?);
    }
    Ok(activate(activation, gate)?.multiply(up)?)
}

fn activate(activation: &Activation, x: &Array) -> Result<Array> {
    Ok(match activation {
        Activation::Silu => x.multiply(ops::sigmoid(x)?)?,
        Activation::Gelu => {
            let error = ops::erf(x.divide(scalar(std::f32::consts::SQRT_2, x)?)?)?;
            let half = x.multiply(error.add(scalar(1.0, x)?)?)?;
            half.divide(scalar(2.0, x)?)?
        }
        Activation::GeluTanh => {
            let cubed = x.power(scalar(3.0, x)?)?.multiply(scalar(0.044_715, x)?)?;
            let inner = x.add(cubed)?.multiply(scalar((2.0 / std::f32::consts::PI).sqrt(), x)?)?;
            let bent = ops::tanh(inner)?.add(scalar(1.0, x)?)?;
            x.multiply(scalar(0.5, x)?)?.multiply(bent)?
        }
        Activation::Relu => ops::maximum(x, scalar(0.0, x)?)?,
        Activation::ReluSquared => {
            let kept = ops::maximum(x, scalar(0.0, x)?)?;
            kept.multiply(&kept)?
        }
        // These two are no functions of one side alone: the one has two, the other numbers of its own.
        Activation::SwigluOai => gated(activation, x, x)?,
        Activation::XieLu(_) => x.clone(),
    })
}
