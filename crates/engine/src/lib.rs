//! Language models on MLX: a description from `mlxman-lm` is loaded, run and measured.
//!
//! Everything is behind the feature `mlx`; without it this crate is empty, and builds anywhere.

#[cfg(feature = "mlx")]
mod adapter;
#[cfg(feature = "mlx")]
mod attention;
#[cfg(feature = "mlx")]
mod awq;
#[cfg(feature = "mlx")]
mod cache;
#[cfg(feature = "mlx")]
mod checkpoint;
#[cfg(feature = "mlx")]
mod device;
#[cfg(feature = "mlx")]
mod error;
#[cfg(feature = "mlx")]
mod experts;
#[cfg(feature = "mlx")]
mod fused;
#[cfg(feature = "mlx")]
mod generate;
#[cfg(feature = "mlx")]
mod lanes;
#[cfg(feature = "mlx")]
mod latent;
#[cfg(feature = "mlx")]
mod linear;
#[cfg(feature = "mlx")]
mod mlp;
#[cfg(feature = "mlx")]
mod model;
#[cfg(feature = "mlx")]
mod norm;
#[cfg(feature = "mlx")]
mod ops;
#[cfg(feature = "mlx")]
mod parts;
#[cfg(feature = "mlx")]
mod quantized;
#[cfg(feature = "mlx")]
mod rope;

#[cfg(feature = "mlx")]
pub use crate::{
    checkpoint::{Checkpoint, Dtype, Progress},
    device::{Device, peak_bytes, reset_peak, start},
    error::{EngineError, Kind},
    generate::{Answers, Speed, answers, first_token, generate, measure, random_prompt},
    model::Model,
    parts::{Parts, read_parts},
};
