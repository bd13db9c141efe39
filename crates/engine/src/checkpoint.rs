//! A model's files: its config, and its tensors by name, read by MLX when they are needed.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use mlx_rs::{Array, transforms};
use mlxman_lm::decoder::Decoder;
use mlxman_lm::families;
use mlxman_lm::files::parse_json;
use serde_json::Value;

use crate::adapter::Lora;
use crate::error::{EngineError, Kind, Result, said};
use crate::ops::{is_float, scalar};

/// The type of activations, and of everything in a checkpoint that is no packed integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// As the checkpoint has it.
    Checkpoint,
    /// Single precision.
    Float32,
    /// Half precision, with single precision's range.
    Bfloat16,
    /// Half precision.
    Float16,
}

impl Dtype {
    fn of_mlx(self) -> Option<mlx_rs::Dtype> {
        match self {
            Dtype::Checkpoint => None,
            Dtype::Float32 => Some(mlx_rs::Dtype::Float32),
            Dtype::Bfloat16 => Some(mlx_rs::Dtype::Bfloat16),
            Dtype::Float16 => Some(mlx_rs::Dtype::Float16),
        }
    }
}

/// Told while tensors are read: bytes so far, and of how many.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// How many bytes are evaluated at once: enough to keep MLX busy, and little beside a model.
const AT_ONCE: u64 = 256 << 20;

/// A model's files.
#[derive(Debug)]
pub struct Checkpoint {
    /// `config.json`.
    pub config: Value,
    pub(crate) tensors: HashMap<String, Array>,
    /// Tensors that have another name in the files.
    pub(crate) renamed: HashSet<String>,
    pub(crate) adapters: HashMap<String, Lora>,
    pub(crate) dtype: Dtype,
    /// Truths, one for a tensor that is packed floating numbers: whether one of them is NaN.
    pub(crate) packed_nan: Vec<(String, Array)>,
    dir: PathBuf,
}

/// A model's `config.json`.
///
/// # Errors
/// When it is not there, or is no JSON.
pub fn read_config(dir: &Path) -> Result<Value> {
    let config = dir.join("config.json");
    let text = read_file(&config)?;
    parse_json(&text)
        .map_err(|error| EngineError::new(Kind::BadFile, format!("{}: {error}", config.display())))
}

/// What a config describes.
///
/// # Errors
/// When no family of that name is known, or the config describes no model of it.
pub fn describe(config: &Value) -> Result<Decoder> {
    Ok(families::describe(config)?)
}

impl Checkpoint {
    /// Opens the model in a directory that has that `config.json`. The tensors' headers are read, and nothing else yet.
    ///
    /// # Errors
    /// When a file is not there, or is not what it should be.
    pub fn open(dir: &Path, config: Value, dtype: Dtype) -> Result<Self> {
        let tensors = read_tensors(&weight_files(dir)?)?;
        Ok(Checkpoint {
            config,
            tensors,
            renamed: HashSet::new(),
            adapters: HashMap::new(),
            dtype,
            packed_nan: Vec::new(),
            dir: dir.to_owned(),
        })
    }

    /// Calls tensors as a description does.
    pub(crate) fn rename(&mut self, described: &Decoder) {
        if described.renames.is_empty() {
            return;
        }
        let tensors = std::mem::take(&mut self.tensors);
        for (theirs, array) in tensors {
            let ours = described.name_here(&theirs);
            if ours != theirs {
                self.renamed.insert(ours.clone());
            }
            self.tensors.insert(ours, array);
        }
        for key in ["quantization", "quantization_config"] {
            if let Some(Value::Object(told)) = self.config.get_mut(key) {
                let old = std::mem::take(told);
                told.extend(old.into_iter().map(|(name, own)| (described.name_here(&name), own)));
            }
        }
    }

    /// A floating tensor in the type that it is used in. What is none is packed in a way that is not known here.
    pub(crate) fn cast(&self, array: Array) -> Result<Array> {
        if !is_float(array.dtype()) {
            let message = format!(
                "a tensor of the shape {:?} holds {:?}, where floating numbers are needed: these weights are packed in a \
                 way that mlxman does not know",
                array.shape(),
                array.dtype()
            );
            return Err(EngineError::new(Kind::WrongShape, message));
        }
        match self.dtype.of_mlx() {
            Some(dtype) if array.dtype() != dtype => Ok(array.as_dtype(dtype)?),
            _ => Ok(array),
        }
    }

    /// Takes a tensor out, as it lies there.
    pub(crate) fn take_if(&mut self, name: &str) -> Option<Array> {
        self.tensors.remove(name)
    }

    /// Takes a tensor of a shape out, in the type that is used.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Array> {
        let array = self.take_if(name).ok_or_else(|| self.missing(name))?;
        expect_shape(name, &array, shape)?;
        self.cast(array)
            .map_err(|error| EngineError { message: format!("`{name}`: {}", error.message), ..error })
    }

    /// What is said of a tensor that is not there.
    pub(crate) fn missing(&self, name: &str) -> EngineError {
        EngineError::new(
            Kind::MissingTensor,
            format!("the tensor `{name}`, which this architecture needs, is not in {}", self.dir.display()),
        )
    }
}

/// Every tensor of some files, for models that no family describes.
pub(crate) fn read_tensors(files: &[PathBuf]) -> Result<HashMap<String, Array>> {
    let mut tensors = HashMap::new();
    for file in files {
        expect_file(file)?;
        let (place, _held) = place_for_mlx(file)?;
        let read = Array::load_safetensors(&place).map_err(|error| {
            EngineError::new(Kind::BadFile, format!("MLX cannot read {}: {}", file.display(), said(error)))
        })?;
        tensors.extend(read);
    }
    Ok(tensors)
}

/// The bytes of a file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    expect_file(path)?;
    Ok(fs_err::read(path)?)
}

/// Whether a path is a file's, or that of a link to one: whoever opens a pipe waits for ever.
pub(crate) fn expect_file(path: &Path) -> Result<()> {
    if fs_err::metadata(path)?.is_file() {
        return Ok(());
    }
    let message = format!("{}: it is no file; remove it, and download the model again", path.display());
    Err(EngineError::new(Kind::BadFile, message))
}

/// A path of a file that MLX can take, which is UTF-8, and what has to be held for as long as it is used: Linux names
/// open directories by their numbers. (Elsewhere all names are UTF-8.)
fn place_for_mlx(file: &Path) -> Result<(PathBuf, Option<fs_err::File>)> {
    let (None, Some(dir), Some(name)) = (file.to_str(), file.parent(), file.file_name()) else {
        return Ok((file.to_owned(), None));
    };
    let dir = fs_err::File::open(dir)?;
    Ok((Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name), Some(dir)))
}

/// The files that hold the weights: `model*.safetensors`, as mlx_lm looks for them, or any other safetensors file.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let bad = |why: String| EngineError::new(Kind::BadFile, format!("{}: {why}", dir.display()));
    let entries = fs_err::read_dir(dir)?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    files.sort();
    let is_model = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("model"))
    };
    if files.iter().any(is_model) {
        files.retain(is_model);
    }
    if files.is_empty() {
        return Err(bad("there is no safetensors file in it".to_owned()));
    }
    Ok(files)
}

/// Whether a tensor has a shape.
pub(crate) fn expect_shape(name: &str, array: &Array, shape: &[usize]) -> Result<()> {
    let fits = array.shape().len() == shape.len()
        && array.shape().iter().zip(shape).all(|(have, want)| usize::try_from(*have) == Ok(*want));
    if fits {
        return Ok(());
    }
    Err(EngineError::new(
        Kind::WrongShape,
        format!("the tensor `{name}` has the shape {:?}, and {shape:?} is needed", array.shape()),
    ))
}

/// What may stand in tensors beside finite numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum May {
    /// Nothing.
    BeFinite,
    /// `-Inf` in masks, which are buffers and no weights.
    Mask,
}

/// Reads tensors into memory, some at a time, and looks whether all their numbers are finite. Gives for each whether it
/// holds zeros alone.
pub(crate) fn evaluate(
    arrays: &[(String, Array)],
    may: May,
    progress: &mut Progress<'_>,
) -> Result<Vec<bool>> {
    let mut zeros = Vec::with_capacity(arrays.len());
    let size = |array: &Array| array.nbytes() as u64;
    let total: u64 = arrays.iter().map(|(_, array)| size(array)).sum();
    let mut done = 0;
    let mut rest = arrays;
    while !rest.is_empty() {
        let mut bytes = 0;
        let count = rest
            .iter()
            .take_while(|(_, array)| {
                let before = bytes;
                bytes += size(array);
                before == 0 || bytes <= AT_ONCE
            })
            .count();
        let (now, later) = rest.split_at(count);
        let finite = now.iter().map(|(name, array)| all_finite(name, array, may));
        let checks: Vec<Array> = finite.collect::<Result<_>>()?;
        let anything = now.iter().map(|(_, array)| Ok(array.any(None)?));
        let anything: Vec<Array> = anything.collect::<Result<_>>()?;
        transforms::eval(now.iter().map(|(_, array)| array).chain(&checks).chain(&anything))?;
        zeros.extend(anything.iter().map(|any| !any.try_item_exact::<bool>().unwrap_or(true)));
        for ((name, array), check) in now.iter().zip(&checks) {
            if !check.try_item_exact::<bool>().unwrap_or(false) {
                return Err(EngineError::new(
                    Kind::NotFiniteWeights,
                    format!("the tensor `{name}` holds NaN or Inf ({:?} {:?})", array.dtype(), array.shape()),
                ));
            }
        }
        done += now.iter().map(|(_, array)| size(array)).sum::<u64>();
        progress(done, total);
        rest = later;
    }
    Ok(zeros)
}

/// One truth: whether every number is finite.
fn all_finite(name: &str, array: &Array, may: May) -> Result<Array> {
    if !is_float(array.dtype()) {
        return Ok(Array::from_bool(true));
    }
    let finite = array.is_finite()?.all(None)?;
    // What is added to scores before their softmax: 0 where may be looked, -Inf elsewhere.
    let is_mask = name.ends_with("mask") || name.ends_with("bias") && array.ndim() >= 2;
    if may == May::BeFinite || !is_mask {
        return Ok(finite);
    }
    let zero = array.eq(scalar(0.0, array)?)?;
    let nothing = array.eq(scalar(f32::NEG_INFINITY, array)?)?;
    Ok(finite.logical_or(zero.logical_or(nothing)?.all(None)?)?)
}
