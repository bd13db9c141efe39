//! Matrices as AutoAWQ and GPTQ pack them, packed anew as MLX does; mlx_lm maps both in this way.

use mlx_rs::{Array, Dtype};
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::{EngineError, Kind, Result, said};

/// Numbers in a word.
const PACK: usize = 8;

/// Where a word has its eight numbers, in fours of bits.
const ORDER: [u32; PACK] = [0, 4, 1, 5, 2, 6, 3, 7];

impl Checkpoint {
    /// Packs the matrices anew, where the config says that they are packed in that way.
    pub(crate) fn repack(&mut self) -> Result<()> {
        if self.config.get("quantization").is_some_and(Value::is_object) {
            return Ok(());
        }
        let Some(told) = self.config.get("quantization_config") else { return Ok(()) };
        let method = told.get("quant_method").and_then(Value::as_str).unwrap_or_default();
        if !["awq", "gptq"].contains(&method) {
            return Ok(());
        }
        let bits = told.get("bits").and_then(Value::as_u64).unwrap_or(4);
        let refuse = |why: String| Err(EngineError::new(Kind::Engine, format!("{method}: {why}")));
        if bits != 4 {
            return refuse(format!("matrices of {bits} bits can't be mapped to MLX's, only those of 4"));
        }
        if let Some(name) = self.tensors.keys().find(|name| name.ends_with(".g_idx")) {
            return refuse(format!(
                "`{name}`: groups of columns that don't lie together can't be mapped to MLX's"
            ));
        }
        let matrices: Vec<String> =
            self.tensors.keys().filter_map(|name| name.strip_suffix(".qweight").map(str::to_owned)).collect();
        let mut own = None;
        for name in matrices {
            own = Some(self.repack_one(&name)?);
        }
        // Everything else goes to the scales' type, as in mlx_lm.
        if let Some(dtype) = own {
            for array in self.tensors.values_mut().filter(|array| crate::ops::is_float(array.dtype())) {
                *array = array.as_dtype(dtype)?;
            }
        }
        Ok(())
    }

    fn repack_one(&mut self, name: &str) -> Result<Dtype> {
        let mut take = |end: &str| {
            let full = format!("{name}.{end}");
            self.take_if(&full).ok_or_else(|| self.missing(&full))
        };
        let (packed, scales) = (take("qweight")?, take("scales")?);
        let zeros = self.take_if(&format!("{name}.qzeros"));
        let wrong = |array: &Array| {
            let message = format!("the tensor `{name}` is packed as {:?}, which is no matrix", array.shape());
            EngineError::new(Kind::WrongShape, message)
        };
        let &[input, columns] = packed.shape() else { return Err(wrong(&packed)) };
        let &[groups, output] = scales.shape() else { return Err(wrong(&scales)) };
        if input % PACK as i32 != 0 || columns * PACK as i32 != output || groups < 1 {
            return Err(wrong(&packed));
        }
        let numbers = unpacked(&packed)?;
        let (rows, width) = (output as usize, input as usize);
        let mut words = vec![0_u32; rows * width / PACK];
        for (at, number) in numbers.iter().enumerate() {
            let (column, row) = (at / rows, at % rows);
            words[row * (width / PACK) + column / PACK] |= number << (4 * (column % PACK));
        }
        let weight = Array::from_slice(&words, &[output, input / PACK as i32]);
        let dtype = scales.dtype();
        let zero = match zeros {
            Some(zeros) => {
                if zeros.shape() != [groups, columns] {
                    return Err(wrong(&zeros));
                }
                let zeros: Vec<f32> = unpacked(&zeros)?.into_iter().map(|number| number as f32).collect();
                Array::from_slice(&zeros, &[groups, output])
            }
            None => Array::from_f32(8.0),
        };
        let biases = zero.negative()?.multiply(scales.as_dtype(Dtype::Float32)?)?.as_dtype(dtype)?;
        let turned = |array: &Array| -> Result<Array> { Ok(array.transpose()?.contiguous()?) };
        self.tensors.insert(format!("{name}.weight"), weight);
        self.tensors.insert(format!("{name}.scales"), turned(&scales)?);
        self.tensors.insert(format!("{name}.biases"), turned(&biases.multiply(ones(&scales)?)?)?);
        Ok(dtype)
    }
}

/// One for each scale, so that what is the same for all is told for each.
fn ones(scales: &Array) -> Result<Array> {
    Ok(mlx_rs::ops::ones_dtype(scales.shape(), scales.dtype())?)
}

/// The numbers of a packed matrix, a row of words after the other.
fn unpacked(packed: &Array) -> Result<Vec<u32>> {
    let words: Vec<i32> = packed.to_vec_cast().map_err(|error| {
        EngineError::new(Kind::Engine, format!("MLX gave no packed matrix: {}", said(error)))
    })?;
    Ok(words.into_iter().flat_map(|word| ORDER.map(|at| (word as u32 >> (4 * at)) & 15)).collect())
}
