//! Normalisations.

use mlx_rs::{Array, fast};
use mlxman_lm::decoder::{Norm as Described, NormKind};

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::linear::vector;
use crate::ops::scalar;

#[derive(Debug)]
pub(crate) struct Norm {
    name: String,
    kind: NormKind,
    eps: f32,
    weight: Option<Array>,
    bias: Option<Array>,
}

impl Norm {
    pub(crate) fn take(from: &mut Checkpoint, described: &Described) -> Result<Norm> {
        let name = described.name.clone().unwrap_or_default();
        let (mut weight, mut bias) = (None, None);
        if described.name.is_some() {
            let mut read = vector(from, &format!("{name}.weight"), described.size)?;
            if matches!(described.kind, NormKind::RmsPlusOne | NormKind::LayerPlusOne) {
                read = read.add(scalar(1.0, &read)?)?;
            }
            weight = Some(read);
            if matches!(described.kind, NormKind::Layer { bias: true } | NormKind::LayerPlusOne) {
                bias = Some(vector(from, &format!("{name}.bias"), described.size)?);
            }
        }
        Ok(Norm { name, kind: described.kind, eps: described.eps, weight, bias })
    }

    /// The type of its weight, if it has one.
    pub(crate) fn dtype(&self) -> Option<mlx_rs::Dtype> {
        self.weight.as_ref().map(Array::dtype)
    }

    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        Ok(match self.kind {
            NormKind::Rms | NormKind::RmsPlusOne => fast::rms_norm(x, self.weight.as_ref(), self.eps)?,
            NormKind::Layer { .. } | NormKind::LayerPlusOne => {
                fast::layer_norm(x, self.weight.as_ref(), self.bias.as_ref(), self.eps)?
            }
        })
    }

    pub(crate) fn arrays(&self) -> Vec<(String, Array)> {
        let weight = self.weight.iter().map(|array| (format!("{}.weight", self.name), array.clone()));
        let bias = self.bias.iter().map(|array| (format!("{}.bias", self.name), array.clone()));
        weight.chain(bias).collect()
    }
}
