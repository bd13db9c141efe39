//! `mlxman doctor`: what this machine verifies models with.

use std::path::PathBuf;

use anyhow::Result;
use mlxman_verify::machine;
use mlxman_verify::protocol::EngineInfo;
use serde::Serialize;

use super::verify::{STARTUP, launch};
use crate::context::Context;
use crate::exit::Verdict;
use crate::table::bytes;

/// What `doctor --json` prints.
#[derive(Serialize)]
struct Output {
    mlxman_version: &'static str,
    registry: PathBuf,
    worker: PathBuf,
    /// What the worker computes with; null where there is none.
    engine: Option<EngineInfo>,
    /// Why there is none.
    engine_problem: Option<String>,
    available_memory_bytes: Option<u64>,
}

pub(super) fn run(context: &Context) -> Result<Verdict> {
    let probed = mlxman_verify::probe(&launch(context, STARTUP));
    let output = Output {
        mlxman_version: env!("CARGO_PKG_VERSION"),
        registry: context.registry.home().to_owned(),
        worker: context.places.worker(),
        engine_problem: probed.as_ref().err().cloned(),
        engine: probed.ok(),
        available_memory_bytes: machine::available_memory(),
    };
    let verdict = if output.engine.is_some() { Verdict::Fine } else { Verdict::Problems };
    if context.printer.json {
        context.printer.json(&output)?;
        return Ok(verdict);
    }
    let engine = output.engine.clone().unwrap_or_default();
    let unknown = || "not known".to_owned();
    let lines = [
        ("mlxman", output.mlxman_version.to_owned()),
        ("registry", output.registry.display().to_string()),
        ("worker", output.worker.display().to_string()),
        ("MLX", output.engine_problem.clone().unwrap_or(engine.mlx_version)),
        ("device", if engine.device.is_empty() { "none".to_owned() } else { engine.device }),
        ("BLAS", engine.blas.unwrap_or_else(unknown)),
        ("device memory", engine.memory_bytes.map_or_else(unknown, bytes)),
        ("free memory", output.available_memory_bytes.map_or_else(unknown, bytes)),
    ];
    let text: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect();
    context.printer.data(&text.concat())?;
    Ok(verdict)
}
