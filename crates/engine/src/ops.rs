//! Operations on arrays that mlx-rs has in another form, or not at all.
#![expect(
    unsafe_code,
    reason = "mlx-rs has no safe form of these: each call hands MLX handles that live through it"
)]

use std::ffi::CStr;

use mlx_rs::{Array, Dtype, Stream};
use mlx_sys::{mlx_array, mlx_optional_int};

use crate::error::{EngineError, Kind, Result};

/// How a matrix is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) group_size: i32,
    pub(crate) bits: i32,
    pub(crate) mode: Mode,
}

/// MLX's quantization modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Affine,
    Mxfp4,
    Mxfp8,
    Nvfp4,
}

impl Mode {
    /// By its name in `config.json`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "affine" => Mode::Affine,
            "mxfp4" => Mode::Mxfp4,
            "mxfp8" => Mode::Mxfp8,
            "nvfp4" => Mode::Nvfp4,
            _ => return None,
        })
    }

    fn name(self) -> &'static CStr {
        match self {
            Mode::Affine => c"affine",
            Mode::Mxfp4 => c"mxfp4",
            Mode::Mxfp8 => c"mxfp8",
            Mode::Nvfp4 => c"nvfp4",
        }
    }
}

/// A packed matrix, or a stack of them.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    pub(crate) weight: Array,
    pub(crate) scales: Array,
    pub(crate) biases: Option<Array>,
    pub(crate) packing: Packing,
}

/// Runs one operation of MLX's C interface.
fn run(
    what: &str,
    inputs: &[&Array],
    call: impl FnOnce(*mut mlx_array, mlx_sys::mlx_stream) -> i32,
) -> Result<Array> {
    let stream = Stream::thread_local_or_default();
    // SAFETY: a new handle owns nothing yet; after the call it owns the result, or still nothing.
    let (status, result) = unsafe {
        let mut result = mlx_sys::mlx_array_new();
        (call(&mut result, stream.as_ptr()), Array::from_ptr(result))
    };
    if status == 0 {
        return Ok(result);
    }
    let shapes: Vec<String> =
        inputs.iter().map(|array| format!("{:?} {:?}", array.dtype(), array.shape())).collect();
    Err(EngineError::new(Kind::Engine, format!("MLX refused {what} of {}", shapes.join(", "))))
}

fn some(value: i32) -> mlx_optional_int {
    mlx_optional_int { value, has_value: true }
}

/// The handle of an array, or of none.
fn handle(array: Option<&Array>, none: &Array) -> mlx_array {
    array.unwrap_or(none).as_ptr()
}

/// The array that stands for none.
fn none() -> Array {
    // SAFETY: a new handle owns nothing.
    unsafe { Array::from_ptr(mlx_sys::mlx_array_new()) }
}

impl Packed {
    /// `x @ self.T`, or `x @ self`.
    pub(crate) fn matmul(&self, x: &Array, transpose: bool) -> Result<Array> {
        let none = none();
        run("a quantized product", &[x, &self.weight, &self.scales], |result, stream| {
            // SAFETY: every handle belongs to an array that lives through the call.
            unsafe {
                mlx_sys::mlx_quantized_matmul(
                    result,
                    x.as_ptr(),
                    self.weight.as_ptr(),
                    self.scales.as_ptr(),
                    handle(self.biases.as_ref(), &none),
                    transpose,
                    some(self.packing.group_size),
                    some(self.packing.bits),
                    self.packing.mode.name().as_ptr(),
                    stream,
                )
            }
        })
    }

    /// For each index, `x @ self[index].T`.
    pub(crate) fn gather_matmul(&self, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        let none = none();
        run("a quantized product of experts", &[x, &self.weight, indices], |result, stream| {
            // SAFETY: every handle belongs to an array that lives through the call.
            unsafe {
                mlx_sys::mlx_gather_qmm(
                    result,
                    x.as_ptr(),
                    self.weight.as_ptr(),
                    self.scales.as_ptr(),
                    handle(self.biases.as_ref(), &none),
                    none.as_ptr(),
                    indices.as_ptr(),
                    true,
                    some(self.packing.group_size),
                    some(self.packing.bits),
                    self.packing.mode.name().as_ptr(),
                    sorted,
                    stream,
                )
            }
        })
    }

    /// The matrix, unpacked.
    pub(crate) fn unpacked(&self, dtype: Dtype) -> Result<Array> {
        let none = none();
        let wanted = mlx_sys::mlx_optional_dtype { value: dtype as mlx_sys::mlx_dtype, has_value: true };
        run("unpacking", &[&self.weight, &self.scales], |result, stream| {
            // SAFETY: every handle belongs to an array that lives through the call.
            unsafe {
                mlx_sys::mlx_dequantize(
                    result,
                    self.weight.as_ptr(),
                    self.scales.as_ptr(),
                    handle(self.biases.as_ref(), &none),
                    some(self.packing.group_size),
                    some(self.packing.bits),
                    self.packing.mode.name().as_ptr(),
                    none.as_ptr(),
                    wanted,
                    stream,
                )
            }
        })
    }

    /// Some rows of it.
    pub(crate) fn rows(&self, indices: &Array) -> Result<Packed> {
        let take = |array: &Array| array.take_axis(indices, 0);
        Ok(Packed {
            weight: take(&self.weight)?,
            scales: take(&self.scales)?,
            biases: self.biases.as_ref().map(take).transpose()?,
            packing: self.packing,
        })
    }

    /// The rows from `start` to before `stop`.
    pub(crate) fn part(&self, start: i32, stop: i32) -> Result<Packed> {
        Ok(Packed {
            weight: part(&self.weight, 0, start, stop)?,
            scales: part(&self.scales, 0, start, stop)?,
            biases: self.biases.as_ref().map(|biases| part(biases, 0, start, stop)).transpose()?,
            packing: self.packing,
        })
    }

    /// What it is made of.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
        [&self.weight, &self.scales].into_iter().chain(&self.biases)
    }
}

/// The part of `array` from `start` to before `stop` along `axis`.
pub(crate) fn part(array: &Array, axis: usize, start: i32, stop: i32) -> Result<Array> {
    let (begin, end, steps) = bounds(array, axis, start, stop);
    run("a part", &[array], |result, stream| {
        // SAFETY: the three lists have the lengths that are told.
        unsafe {
            mlx_sys::mlx_slice(
                result,
                array.as_ptr(),
                begin.as_ptr(),
                begin.len(),
                end.as_ptr(),
                end.len(),
                steps.as_ptr(),
                steps.len(),
                stream,
            )
        }
    })
}

/// `array` with `update` in the place from `start` on along `axis`. Where nobody else holds `array`, MLX writes into
/// it.
pub(crate) fn with_part(array: &Array, update: &Array, axis: usize, start: i32) -> Result<Array> {
    let length = update.shape()[axis];
    let (begin, end, steps) = bounds(array, axis, start, start + length);
    run("an update", &[array, update], |result, stream| {
        // SAFETY: the three lists have the lengths that are told.
        unsafe {
            mlx_sys::mlx_slice_update(
                result,
                array.as_ptr(),
                update.as_ptr(),
                begin.as_ptr(),
                begin.len(),
                end.as_ptr(),
                end.len(),
                steps.as_ptr(),
                steps.len(),
                stream,
            )
        }
    })
}

fn bounds(array: &Array, axis: usize, start: i32, stop: i32) -> (Vec<i32>, Vec<i32>, Vec<i32>) {
    let mut begin = vec![0; array.ndim()];
    let mut end = array.shape().to_vec();
    begin[axis] = start;
    end[axis] = stop;
    let steps = vec![1; array.ndim()];
    (begin, end, steps)
}

/// A number in the type of `like`.
pub(crate) fn scalar(value: f32, like: &Array) -> Result<Array> {
    Ok(Array::from_f32(value).as_dtype(like.dtype())?)
}

/// Whether the type is one of the floating ones.
pub(crate) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16 | Dtype::Float64)
}
