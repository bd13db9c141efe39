//! Comparing a model's tensors with those of its base.
//!
//! `mlx_lm.fuse` leaves no trace in what it writes: only the tensors tell whether a LoRA was fused in, and where. The
//! comparison finds both a "fused" model that is its base, byte for byte, and the projections and layers in which one
//! differs.
//!
//! Tensors are matched by name across all files of a side, so two models may be sharded in different ways. In a
//! pipeline, where each component has a directory, the directory is part of the name. A module (a projection, an
//! embedding) is matched as a whole: the scales of a 4-bit layer say nothing about those of an 8-bit one, though they
//! have the same shape and type, so where the weights of a module can't be compared, nothing of it is.
//!
//! Nothing is guessed. Where fewer than half of the smaller side's weights can be compared, as for a quantized model
//! and its base in bfloat16, which have no more than the norms in common, there is no result.

mod pair;
mod read;
mod words;

use std::fs::File;
use std::io;

use rayon::prelude::*;

use crate::formats::safetensors::{Flaw, HeaderError};
use crate::record::Comparison;
use crate::threads::side_by_side;
use pair::Pairing;
use read::{Buffers, Opened};

/// One model of a comparison.
#[derive(Debug)]
pub struct Side<'a> {
    /// What to call it: its repo id, where it has one.
    pub name: &'a str,
    /// Its revision.
    pub revision: Option<&'a str>,
    /// Its weight files, safetensors all, without adapters that lie in its directory.
    pub files: Vec<SideFile>,
}

/// One weight file of a model, open for reading.
///
/// Two files are taken to be equal without a look at their content where they have the same length and the same
/// `identity`, `blob` or `blake3`.
#[derive(Debug)]
pub struct SideFile {
    /// Relative to the model's directory. Its own directory tells the components of a pipeline apart.
    pub path: String,
    /// The file; its cursor is neither used nor moved.
    pub file: File,
    /// Device and inode.
    pub identity: (u64, u64),
    /// The blob in a hub cache, whose name is a hash of its content.
    pub blob: Option<String>,
    /// The content's BLAKE3.
    pub blake3: Option<String>,
}

/// Why a comparison came to no end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A file's header could not be read.
    #[error("{path} of {model} could not be compared")]
    Header {
        /// The side's name.
        model: String,
        /// Relative to the model's directory.
        path: String,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// A file's header contradicts itself, so that its tensors can't be told apart.
    #[error("{path} of {model} could not be compared: {flaw}")]
    Flawed {
        /// The side's name.
        model: String,
        /// Relative to the model's directory.
        path: String,
        /// The first thing that is wrong with it.
        flaw: Flaw,
    },
    /// A file ends before its last tensor does, or did so by the time that it was read.
    #[error("{path} of {model} is truncated: its header promises {expected} bytes and it has {actual}")]
    Truncated {
        /// The side's name.
        model: String,
        /// Relative to the model's directory.
        path: String,
        /// Bytes that it needs.
        expected: u64,
        /// Bytes that it has.
        actual: u64,
    },
    /// A file could not be read.
    #[error("{path} of {model} could not be read")]
    Read {
        /// The side's name.
        model: String,
        /// Relative to the model's directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// `step` said to stop.
    #[error("the comparison was interrupted")]
    Interrupted,
}

/// Compares the tensors of `model` with those of `base`; `None` where too little of the two can be compared to say
/// anything.
///
/// `step` gets the bytes that were dealt with since its last call, on any thread, and says whether to go on; the first
/// call, before anything is read, gets 0. What is known to be equal without reading, and what lies behind a tensor's first difference, counts as dealt with: over a
/// whole run the calls add up to the bytes of the model's tensors that the base has too.
///
/// The work is done in rayon's pool, a tensor a task, with two buffers of a mebibyte each.
///
/// # Errors
/// See [`CompareError`]: a file of either side is invalid, truncated or unreadable, or `step` said to stop.
pub fn compare(
    model: &Side<'_>,
    base: &Side<'_>,
    step: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Option<Comparison>, CompareError> {
    if !step(0) {
        return Err(CompareError::Interrupted);
    }
    let (model_files, base_files) = (Opened::all(model)?, Opened::all(base)?);
    let Some(pairing) = Pairing::of(&model_files, &base_files) else {
        return Ok(None);
    };
    let differ = side_by_side(|| {
        let pairs = pairing.pairs.par_iter();
        let differ = pairs.map_init(Buffers::default, |buffers, pair| read::differ(pair, buffers, step));
        differ.collect::<Result<Vec<bool>, CompareError>>()
    })?;
    let words = words::describe(&pairing, &differ);
    Ok(Some(Comparison {
        base: base.name.to_owned(),
        base_revision: base.revision.map(str::to_owned),
        identical: pairing.unmatched == 0 && !differ.contains(&true),
        summary: words.summary,
        differing_tensors: differ.iter().filter(|differs| **differs).count() as u64,
        compared_tensors: pairing.pairs.len() as u64,
        unmatched_tensors: pairing.unmatched,
        modules: words.modules,
        layers: words.layers,
    }))
}

#[cfg(test)]
mod tests;
