//! Rotary positions.

use mlx_rs::{Array, fast, ops};
use mlxman_lm::decoder::{Rope as Described, RopeSpeed};

use crate::error::Result;
use crate::ops::{part, scalar};

#[derive(Debug)]
pub(crate) struct Rope {
    dims: i32,
    traditional: bool,
    speed: Speed,
}

#[derive(Debug)]
enum Speed {
    Base { base: f32, scale: f32 },
    Wavelengths { wavelengths: Array, input_scale: f32 },
    Dynamic { base: f32, length: i32, factor: f32 },
}

impl Rope {
    pub(crate) fn new(described: &Described) -> Rope {
        let speed = match &described.speed {
            RopeSpeed::Base { base, scale } => Speed::Base { base: *base, scale: *scale },
            RopeSpeed::Wavelengths { wavelengths, input_scale } => Speed::Wavelengths {
                wavelengths: Array::from_slice(wavelengths, &[wavelengths.len() as i32]),
                input_scale: *input_scale,
            },
            RopeSpeed::Dynamic { base, length, factor } => {
                Speed::Dynamic { base: *base, length: *length as i32, factor: *factor }
            }
        };
        Rope { dims: described.dims as i32, traditional: described.traditional, speed }
    }

    /// Rotates `x`, `[batch, heads, tokens, head]`, whose first token is at `offset`.
    pub(crate) fn forward(&self, x: &Array, offset: i32) -> Result<Array> {
        if self.dims == 0 {
            return Ok(x.clone());
        }
        let turn = |x: &Array, base: Option<f32>, scale: f32, wavelengths: Option<&Array>| {
            fast::rope(x, self.dims, self.traditional, base, scale, offset, wavelengths)
        };
        Ok(match &self.speed {
            Speed::Base { base, scale } => turn(x, Some(*base), *scale, None)?,
            Speed::Wavelengths { wavelengths, input_scale } => {
                let x = if *input_scale == 1.0 { x.clone() } else { self.scaled(x, *input_scale)? };
                turn(&x, None, 1.0, Some(wavelengths))?
            }
            Speed::Dynamic { base, length, factor } => {
                let now = (x.shape()[2] + offset).max(*length) as f32 / *length as f32;
                let power = self.dims as f32 / (self.dims - 2) as f32;
                let base = base * (factor * now - (factor - 1.0)).powf(power);
                turn(x, Some(base), 1.0, None)?
            }
        })
    }

    /// The rotated elements times a factor, the others as they are.
    fn scaled(&self, x: &Array, factor: f32) -> Result<Array> {
        let size = x.shape()[3];
        if self.dims == size {
            return Ok(x.multiply(scalar(factor, x)?)?);
        }
        let turned = part(x, 3, 0, self.dims)?;
        let turned = turned.multiply(scalar(factor, &turned)?)?;
        Ok(ops::concatenate(&[turned, part(x, 3, self.dims, size)?], 3)?)
    }
}
