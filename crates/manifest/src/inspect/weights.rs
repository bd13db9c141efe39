//! Which files of a model are weights, whatever program reads them.

use std::io::Read;

use mlxman_store::{FileEntry, FoundModel};

use super::Subject;

/// Endings of files that hold weights: safetensors, llama.cpp, MLX, PyTorch, ONNX, TensorFlow, Flax, NeMo, TFLite,
/// ExecuTorch, whisper.cpp.
const ENDINGS: [&str; 24] = [
    ".safetensors",
    ".gguf",
    ".npz",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".onnx",
    ".onnx_data",
    ".ort",
    ".h5",
    ".keras",
    ".weights",
    ".msgpack",
    ".nemo",
    ".tflite",
    ".task",
    ".litertlm",
    ".pte",
    ".ggml",
    ".mlmodel",
    ".pdparams",
    ".pb",
    ".t7",
];

/// Directories that are one model for Core ML: everything in them belongs to it.
const PACKAGES: [&str; 2] = [".mlmodelc", ".mlpackage"];

/// What training leaves beside the weights, by the beginning of its files' names.
const LEFTOVERS: [&str; 7] =
    ["optimizer", "scheduler", "rng_state", "training_args", "scaler", "random_states", "global_step"];

/// Whether the file at `path`, by its name, holds weights of any program.
pub(super) fn is_weight_file(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    !is_leftover(&lower) && (in_package(&lower) || ENDINGS.iter().any(|ending| lower.ends_with(ending)))
}

/// Whether training left the file: an optimizer's state and its like are never weights.
pub(super) fn is_leftover(path: &str) -> bool {
    let is = |part: &str| {
        LEFTOVERS.iter().any(|word| {
            part.strip_prefix(word).is_some_and(|rest| {
                // `optimizer.pt`, `optimizer_1`, `rng_state_0.pth`, `global_step100`; no `optimizers-model.bin`.
                let rest = rest.trim_start_matches(['_', '-']);
                rest.is_empty() || rest.starts_with('.') || rest.starts_with(|c: char| c.is_ascii_digit())
            })
        })
    };
    let lower = path.to_ascii_lowercase();
    // A pipeline's `scheduler/` holds its configuration; the states of a training lie in `global_step…/`.
    let (dirs, name) = lower.rsplit_once('/').unwrap_or(("", &lower));
    is(name) || dirs.split('/').any(|dir| dir.starts_with("global_step") && is(dir))
}

/// Whether the file lies in a package of Core ML.
pub(super) fn in_package(path: &str) -> bool {
    path.split('/').rev().skip(1).any(|dir| PACKAGES.iter().any(|ending| dir.ends_with(ending)))
}

/// What a file's first bytes prove, for files that no header is read of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// A pickle, or the zip archive that `torch.save` writes.
    Pickle,
    /// An ONNX graph.
    Onnx,
    /// Core ML's own package.
    CoreMl,
}

/// The first of the model's files that proves what program it is for, in the order of [`Proof`].
pub(super) fn proof(subject: &Subject<'_>) -> Option<(Proof, String)> {
    let files = || subject.model.files.iter().filter(|file| is_weight_file(&file.path));
    let pickled = files().filter(|file| is_pickles_name(&file.path));
    if let Some(file) = pickled.into_iter().find(|file| is_pickle(&start(subject, file))) {
        return Some((Proof::Pickle, file.path.clone()));
    }
    let mut onnx = files().filter(|file| file.path.to_ascii_lowercase().ends_with(".onnx"));
    if let Some(file) = onnx.find(|file| is_onnx(&start(subject, file))) {
        return Some((Proof::Onnx, file.path.clone()));
    }
    files().find(|file| is_core_ml(subject.model, &file.path)).map(|file| (Proof::CoreMl, file.path.clone()))
}

/// A name under which pickles are saved. OpenVINO's weights and the parts of a Core ML package are not.
fn is_pickles_name(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let name = lower.rsplit('/').next().unwrap_or(&lower);
    [".bin", ".pt", ".pth", ".ckpt"].iter().any(|ending| name.ends_with(ending))
        && !in_package(&lower)
        && !name.starts_with("openvino_")
}

fn start(subject: &Subject<'_>, file: &FileEntry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4);
    match subject.scan.open(file).and_then(|opened| opened.take(4).read_to_end(&mut bytes)) {
        Ok(_) => bytes,
        Err(_) => Vec::new(),
    }
}

fn is_pickle(start: &[u8]) -> bool {
    start == b"PK\x03\x04" || matches!(start, [0x80, 2..=5, ..])
}

/// A protobuf whose first field is the version of the form: small, and another field follows.
fn is_onnx(start: &[u8]) -> bool {
    matches!(start, [0x08, 1..=31, next, _] if next & 7 == 2)
}

/// A package with one of the files that only Core ML's compiler or its saver writes.
fn is_core_ml(model: &FoundModel, path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let Some((end, ending)) =
        PACKAGES.iter().find_map(|ending| Some((lower.find(&format!("{ending}/"))? + ending.len(), *ending)))
    else {
        return false;
    };
    let package = &path[..end];
    let marks: &[&str] = match ending {
        ".mlpackage" => &["Manifest.json"],
        _ => &["coremldata.bin", "model.mil", "model.espresso.net"],
    };
    marks.iter().any(|mark| model.file(&format!("{package}/{mark}")).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_known_by_their_names() {
        for path in [
            "model.safetensors",
            "unet/diffusion_pytorch_model.bin",
            "onnx/model_q4.onnx",
            "tf_model.h5",
            "flax_model.msgpack",
            "parakeet.nemo",
            "gemma.task",
            "ggml-base.en.bin",
            "tiny/AudioEncoder.mlmodelc/weights/weight.bin",
            "tiny/AudioEncoder.mlmodelc/model.mil",
            "A.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
            "optimizers-of-the-future.bin",
            "scheduler/x.bin",
        ] {
            assert!(is_weight_file(path), "{path}");
        }
        for path in [
            "config.json",
            "model.safetensors.index.json",
            "tokenizer.model",
            "optimizer.pt",
            "optimizer_1.bin",
            "checkpoint-5/scheduler.pt",
            "rng_state.pth",
            "rng_state_0.pth",
            "training_args.bin",
            "scaler.pt",
            "random_states_0.pkl",
            "global_step100/mp_rank_00_model_states.pt",
            "optimizer.safetensors",
        ] {
            assert!(!is_weight_file(path), "{path}");
        }
    }

    #[test]
    fn first_bytes_prove() {
        assert!(is_pickle(b"PK\x03\x04") && is_pickle(b"\x80\x02}q"));
        assert!(
            !is_pickle(b"lmgg") && !is_pickle(b"\x06\0\0\0") && !is_pickle(b"PK") && !is_pickle(b"\x80\xff")
        );
        assert!(is_onnx(&[8, 7, 0x12, 7]) && is_onnx(&[8, 10, 0x3a, 1]));
        assert!(!is_onnx(&[8, 0, 0, 0]) && !is_onnx(&[8]) && !is_onnx(b"\x80\x02}q"));
    }
}
