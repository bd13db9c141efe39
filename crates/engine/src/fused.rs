//! Experts as they are before conversion, with gate and up in one tensor.

use mlx_rs::{Array, Dtype};
use mlxman_lm::decoder::{ExpertNames, Fused, FusedForm};

use crate::checkpoint::Checkpoint;
use crate::error::{EngineError, Kind, Result};
use crate::ops::part;

/// Puts the experts' tensors where their stacked names are, if the checkpoint has them fused.
pub(crate) fn split(from: &mut Checkpoint, names: &ExpertNames) -> Result<()> {
    let Some(Fused { gate_up, down, form }) = &names.fused else { return Ok(()) };
    let [gate_name, up_name, down_name] = &names.stacked;
    if *form == FusedForm::Blocks {
        for (theirs, ours) in [("_blocks", "weight"), ("_scales", "scales"), ("_bias", "bias")] {
            let Some(both) = from.take_if(&format!("{gate_up}{theirs}")) else { continue };
            let name = format!("{down}{theirs}");
            let down = from.take_if(&name).ok_or_else(|| from.missing(&name))?;
            let (both, down) =
                if theirs == "_blocks" { (words(&name, &both)?, words(&name, &down)?) } else { (both, down) };
            from.tensors.insert(format!("{gate_name}.{ours}"), every_second(&name, &both, 0)?);
            from.tensors.insert(format!("{up_name}.{ours}"), every_second(&name, &both, 1)?);
            from.tensors.insert(format!("{down_name}.{ours}"), down);
        }
        return Ok(());
    }
    let Some(both) = from.take_if(gate_up) else { return Ok(()) };
    let down = from.take_if(down).ok_or_else(|| from.missing(down))?;
    if both.ndim() != 3 || down.ndim() != 3 {
        return Err(wrong(gate_up, &both));
    }
    let swapped = *form == FusedForm::SwappedHalves;
    let (both, down) = if swapped { (both.swap_axes(1, 2)?, down.swap_axes(1, 2)?) } else { (both, down) };
    let rows = both.shape()[1];
    let mut put = |name: &str, array: Array| -> Result<()> {
        from.tensors.insert(format!("{name}.weight"), array.contiguous()?);
        Ok(())
    };
    put(gate_name, part(&both, 1, 0, rows / 2)?)?;
    put(up_name, part(&both, 1, rows / 2, rows)?)?;
    put(down_name, down)
}

/// Blocks of 16 bytes as MLX's words: `[count, out, blocks, 16]` to `[count, out, words]`.
fn words(name: &str, blocks: &Array) -> Result<Array> {
    if blocks.ndim() != 4 || blocks.dtype() != Dtype::Uint8 || blocks.shape()[3] % 4 != 0 {
        return Err(wrong(name, blocks));
    }
    let (count, rows) = (blocks.shape()[0], blocks.shape()[1]);
    Ok(blocks.view_dtype(Dtype::Uint32)?.reshape(&[count, rows, -1])?)
}

/// Every second row along axis 1, from `first` on.
fn every_second(name: &str, array: &Array, first: i32) -> Result<Array> {
    let mut shape = array.shape().to_vec();
    if shape.len() < 2 || shape[1] % 2 != 0 {
        return Err(wrong(name, array));
    }
    shape[1] /= 2;
    let mut pairs = shape.clone();
    pairs.insert(2, 2);
    Ok(part(&array.reshape(&pairs)?, 2, first, first + 1)?.reshape(&shape)?)
}

fn wrong(name: &str, array: &Array) -> EngineError {
    let message = format!("the tensor `{name}` is {:?} {:?}", array.dtype(), array.shape());
    EngineError::new(Kind::WrongShape, message)
}
