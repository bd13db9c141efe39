//! Models that no family describes: every tensor is read through MLX, one file after the other.

use std::path::{Path, PathBuf};

use mlx_rs::Array;

use crate::checkpoint::{May, Progress, evaluate, read_tensors};
use crate::error::{EngineError, Kind, Result};
use crate::npz::read_npz;

/// What was read of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Tensors.
    pub tensors: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The directories that they were in, as far as those are not the model's own: a pipeline's components.
    pub components: Vec<String>,
    /// Tensors that cannot be read here, and may be well: compressed ones of npz files.
    pub unread: u64,
}

/// How deep directories are looked into: a pipeline's components lie in directories of their own.
const DEPTH: usize = 3;

/// Reads every tensor of every safetensors or npz file below a directory (or of one file), and looks whether all are finite.
///
/// # Errors
/// When there is no such file, one cannot be read, or a number is not finite.
pub fn read_parts(model: &Path, progress: &mut Progress<'_>) -> Result<Parts> {
    let mut files = Vec::new();
    collect(model, DEPTH, &mut files)?;
    if files.is_empty() {
        let message = format!("{}: there is no safetensors or npz file in it", model.display());
        return Err(EngineError::new(Kind::BadFile, message));
    }
    let size = |file: &PathBuf| fs_err::metadata(file).map_or(0, |meta| meta.len());
    let total: u64 = files.iter().map(size).sum();
    let (mut parts, mut before) = (Parts::default(), 0);
    for file in files {
        let tensors: Vec<(String, Array)> = if is_npz(&file) {
            let read = read_npz(&file)?;
            parts.unread += read.unread;
            read.tensors
        } else {
            read_tensors(std::slice::from_ref(&file))?.into_iter().collect()
        };
        parts.tensors += tensors.len() as u64;
        parts.bytes += tensors.iter().map(|(_, array)| array.nbytes() as u64).sum::<u64>();
        evaluate(&tensors, May::Mask, &mut |done, _| progress(before + done, total)).map_err(|error| {
            EngineError { message: format!("{}: {}", file.display(), error.message), ..error }
        })?;
        before += size(&file);
        let component = file.strip_prefix(model).ok().and_then(Path::parent).and_then(Path::to_str);
        if let Some(component) = component.filter(|name| !name.is_empty())
            && !parts.components.iter().any(|known| known == component)
        {
            parts.components.push(component.to_owned());
        }
    }
    Ok(parts)
}

/// Whether a file is one of the weights that MLX's programs wrote before they wrote safetensors.
fn is_npz(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "npz")
}

fn collect(place: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if fs_err::metadata(place)?.is_file() {
        files.push(place.to_owned());
        return Ok(());
    }
    let mut entries = fs_err::read_dir(place)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs_err::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // Links to files are followed: a hub cache's files are links.
        if path.is_dir() {
            if depth > 0 {
                collect(&path, depth - 1, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "safetensors") || is_npz(&path) {
            files.push(path);
        }
    }
    Ok(())
}
