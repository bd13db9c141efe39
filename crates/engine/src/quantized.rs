//! How a checkpoint's matrices are packed: from `config.json` and from the tensors' own shapes, which decide.

use mlx_rs::{Array, Dtype};
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::{EngineError, Kind, Result};
use crate::ops::{Mode, Packed, Packing};

impl Checkpoint {
    /// Takes a matrix, or a stack of them, that is packed. `lead` is its shape but for the last axis, `input` that.
    pub(crate) fn take_packed(&mut self, name: &str, lead: &[usize], input: usize) -> Result<Option<Packed>> {
        let scales_name = format!("{name}.scales");
        let Some(scales) = self.take_if(&scales_name) else { return Ok(None) };
        let weight_name = format!("{name}.weight");
        let weight = self.take_if(&weight_name).ok_or_else(|| self.missing(&weight_name))?;
        let biases = self.take_if(&format!("{name}.biases"));
        let packing = packing_of(&self.config, name, &weight, &scales, lead, input)?;
        let scales = if packing.mode == Mode::Affine { self.cast(scales)? } else { scales };
        let biases = biases.map(|biases| self.cast(biases)).transpose()?;
        if packing.mode == Mode::Affine && biases.is_none() {
            return Err(self.missing(&format!("{name}.biases")));
        }
        if let Some(biases) = &biases
            && biases.shape() != scales.shape()
        {
            return Err(wrong(name, &format!("scales {:?} and biases {:?}", scales.shape(), biases.shape())));
        }
        self.expect_no_nan(name, packing.mode, &weight, &scales)?;
        Ok(Some(Packed { weight, scales, biases, packing }))
    }

    /// Notes what has to be looked at in floating numbers of 8 bits, which MLX knows as integers: nothing else sees a
    /// NaN there before a product with it is computed. (Numbers of 4 bits have none.)
    fn expect_no_nan(&mut self, name: &str, mode: Mode, weight: &Array, scales: &Array) -> Result<()> {
        // A power of two with 8 bits is NaN where all are set; E4M3, where all but the sign are.
        let power = |bytes: &Array| has_byte(bytes, &[0xff]);
        let e4m3 = |bytes: &Array| has_byte(bytes, &[0x7f, 0xff]);
        let looks = match mode {
            Mode::Affine => Vec::new(),
            Mode::Mxfp4 => vec![("scales", power(scales)?)],
            Mode::Nvfp4 => vec![("scales", e4m3(scales)?)],
            Mode::Mxfp8 => {
                let numbers = weight.view_dtype(Dtype::Uint8)?;
                vec![("scales", power(scales)?), ("weight", e4m3(&numbers)?)]
            }
        };
        self.packed_nan.extend(looks.into_iter().map(|(end, look)| (format!("{name}.{end}"), look)));
        Ok(())
    }
}

/// The packing that a matrix's shapes say, with the mode that the config says for it.
fn packing_of(
    config: &Value,
    name: &str,
    weight: &Array,
    scales: &Array,
    lead: &[usize],
    input: usize,
) -> Result<Packing> {
    let fits = |array: &Array| {
        let shape = array.shape();
        shape.len() == lead.len() + 1
            && shape.iter().zip(lead).all(|(have, want)| usize::try_from(*have) == Ok(*want))
    };
    let (packed, groups) = (last(weight), last(scales));
    let shapes = format!("{:?} with scales {:?}", weight.shape(), scales.shape());
    let possible = fits(weight)
        && fits(scales)
        && weight.dtype() == mlx_rs::Dtype::Uint32
        && groups > 0
        && input.is_multiple_of(groups)
        && (packed * 32).is_multiple_of(input);
    if !possible {
        let wanted = format!("{shapes}; packed rows for {lead:?} times {input} are needed");
        return Err(wrong(name, &wanted));
    }
    let (bits, group_size) = (packed * 32 / input, input / groups);
    let told = config.get("quantization").or_else(|| config.get("quantization_config"));
    let own = told.and_then(|told| told.get(name)).filter(|own| own.is_object());
    let mode = own.or(told).and_then(|told| told.get("mode")).and_then(Value::as_str).and_then(Mode::named);
    let mode = if scales.dtype() == mlx_rs::Dtype::Uint8 {
        let by_shape = match (bits, group_size) {
            (8, _) => Mode::Mxfp8,
            (_, 16) => Mode::Nvfp4,
            _ => Mode::Mxfp4,
        };
        mode.filter(|mode| *mode != Mode::Affine).unwrap_or(by_shape)
    } else {
        Mode::Affine
    };
    let small = |n: usize| i32::try_from(n).map_err(|_| wrong(name, &shapes));
    Ok(Packing { group_size: small(group_size)?, bits: small(bits)?, mode })
}

/// One truth: whether any byte is one of these.
fn has_byte(bytes: &Array, wanted: &[u8]) -> Result<Array> {
    let mut any = Array::from_bool(false);
    for byte in wanted {
        any = any.logical_or(bytes.eq(Array::from_slice(&[*byte], &[1]))?.any(None)?)?;
    }
    Ok(any)
}

fn last(array: &Array) -> usize {
    array.shape().last().and_then(|n| usize::try_from(*n).ok()).unwrap_or(0)
}

fn wrong(name: &str, what: &str) -> EngineError {
    EngineError::new(Kind::WrongShape, format!("the tensor `{name}` is packed as {what}"))
}
