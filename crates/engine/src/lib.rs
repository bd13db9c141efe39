//! Language models on MLX: a description from `mlxman-lm` is loaded, run and measured.
//!
//! Everything is behind the feature `mlx`; without it this crate is empty, and builds anywhere.
#![cfg(feature = "mlx")]

mod adapter;
mod attention;
mod awq;
mod cache;
mod checkpoint;
mod device;
mod error;
mod experts;
mod fused;
mod generate;
mod lanes;
mod latent;
mod linear;
mod mlp;
mod model;
mod norm;
mod npz;
mod ops;
mod parts;
mod quantized;
mod rope;

pub use crate::{
    checkpoint::{Checkpoint, Dtype, Progress, describe, read_config},
    device::{Device, peak_bytes, reset_peak, start},
    error::{EngineError, Kind},
    generate::{Answers, Said, Speed, answers, generate, measure, random_prompt},
    model::Model,
    parts::{Parts, read_parts},
};
