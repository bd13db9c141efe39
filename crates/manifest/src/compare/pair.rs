//! Which tensor of the model belongs to which of the base.

use std::collections::{BTreeMap, BTreeSet};

use super::read::Opened;
use crate::formats::safetensors::{Dtype, TensorInfo};

/// A tensor in its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located<'a> {
    pub(super) file: &'a Opened<'a>,
    info: &'a TensorInfo,
}

impl<'a> Located<'a> {
    /// Its first byte in the file.
    pub(super) fn start(&self) -> u64 {
        self.file.data_start() + self.info.begin
    }

    pub(super) fn len(&self) -> u64 {
        self.info.byte_len()
    }

    /// What must be the same for two tensors to be compared. An unknown type's size is known from the length alone.
    fn form(&self) -> (&'a Dtype, &'a [u64], u64) {
        (&self.info.dtype, &self.info.shape, self.len())
    }
}

/// Two tensors to compare.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    /// The module that they belong to.
    pub(super) module: String,
    pub(super) model: Located<'a>,
    pub(super) base: Located<'a>,
}

/// The tensors of two models side by side.
#[derive(Debug)]
pub(super) struct Pairing<'a> {
    /// What can be compared, in the order in which it lies in the model's files.
    pub(super) pairs: Vec<Pair<'a>>,
    /// Tensors that can't be compared, by name: one that both have with different shapes counts once.
    pub(super) unmatched: u64,
    /// Every module of the base, comparable or not.
    pub(super) base_modules: BTreeSet<String>,
}

/// The copies of one tensor. There is one, save where a directory holds a model twice, as in several precisions.
type Copies<'a> = Vec<Located<'a>>;

/// One side's tensors: for each module, by their names.
type Modules<'a> = BTreeMap<String, BTreeMap<String, Copies<'a>>>;

impl<'a> Pairing<'a> {
    /// `None` where so little can be compared that a result would mislead.
    pub(super) fn of(model: &'a [Opened<'a>], base: &'a [Opened<'a>]) -> Option<Self> {
        let (ours, theirs) = (modules(model), modules(base));
        let mut pairs = Vec::new();
        let (mut unmatched, mut comparable_weights) = (0, 0);
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        for module in names {
            match (ours.get(module), theirs.get(module)) {
                (Some(ours), Some(theirs)) => {
                    let (found, left) = pair_module(module, ours, theirs);
                    comparable_weights += u64::from(!found.is_empty() && has_weights(ours));
                    pairs.extend(found);
                    unmatched += left;
                }
                (Some(tensors), None) | (None, Some(tensors)) => {
                    unmatched += tensors.values().map(|copies| copies.len() as u64).sum::<u64>();
                }
                (None, None) => {}
            }
        }
        let weights = |side: &Modules<'_>| side.values().filter(|module| has_weights(module)).count() as u64;
        let (our_weights, their_weights) = (weights(&ours), weights(&theirs));
        let enough = match our_weights.min(their_weights) {
            0 => our_weights == their_weights,
            fewer => comparable_weights * 2 >= fewer,
        };
        if pairs.is_empty() || !enough {
            return None;
        }
        pairs.sort_by_key(|pair: &Pair<'_>| (pair.model.file.path(), pair.model.start()));
        Some(Pairing { pairs, unmatched, base_modules: theirs.into_keys().collect() })
    }
}

fn modules<'a>(files: &'a [Opened<'a>]) -> Modules<'a> {
    let mut modules = Modules::new();
    for file in files {
        let directory = file.path().rsplit_once('/').map(|(directory, _)| directory);
        for info in &file.header.tensors {
            let name = match directory {
                Some(directory) => format!("{directory}/{}", info.name),
                None => info.name.to_string(),
            };
            let tensors = modules.entry(module_of(&name).to_owned()).or_default();
            tensors.entry(name).or_default().push(Located { file, info });
        }
    }
    modules
}

/// Whether a module has a matrix: norms and biases, which a quantization leaves alone, have none.
fn has_weights(module: &BTreeMap<String, Copies<'_>>) -> bool {
    module.values().flatten().any(|tensor| tensor.info.shape.len() > 1)
}

/// The tensors of one module that can be compared, and the number of those that can't.
fn pair_module<'a>(
    module: &str,
    ours: &BTreeMap<String, Copies<'a>>,
    theirs: &BTreeMap<String, Copies<'a>>,
) -> (Vec<Pair<'a>>, u64) {
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let (mut found, mut left, mut whole) = (Vec::new(), 0, true);
    for name in names {
        let copies = |side: &BTreeMap<String, Copies<'a>>| side.get(name).cloned().unwrap_or_default();
        let (ours, theirs) = (copies(ours), copies(theirs));
        let most = ours.len().max(theirs.len());
        let pairs = pair_copies(module, ours, theirs);
        // A bias can be added or left out without the weights becoming others.
        whole &= !pairs.is_empty() || name.ends_with(".bias");
        left += most - pairs.len();
        found.extend(pairs);
    }
    if whole {
        (found, left as u64)
    } else {
        let left = left + found.len();
        (Vec::new(), left as u64)
    }
}

/// Pairs the tensors of one name. Where a side has several of one shape and type, which of them a loader takes is
/// unknown: they are paired only if both sides have them in files of the same names.
fn pair_copies<'a>(module: &str, ours: Copies<'a>, theirs: Copies<'a>) -> Vec<Pair<'a>> {
    let by_form = |copies: Copies<'a>| {
        let mut forms: BTreeMap<_, Copies<'a>> = BTreeMap::new();
        for tensor in copies {
            forms.entry(tensor.form()).or_default().push(tensor);
        }
        forms.values_mut().for_each(|copies| copies.sort_by_key(|tensor| tensor.file.path()));
        forms
    };
    let mut theirs = by_form(theirs);
    let mut pairs = Vec::new();
    for (form, ours) in by_form(ours) {
        let Some(theirs) = theirs.remove(&form) else { continue };
        let paths = |copies: &Copies<'a>| copies.iter().map(|tensor| tensor.file.path()).collect::<Vec<_>>();
        if (ours.len(), theirs.len()) == (1, 1) || paths(&ours) == paths(&theirs) {
            let pair = |(model, base)| Pair { module: module.to_owned(), model, base };
            pairs.extend(ours.into_iter().zip(theirs).map(pair));
        }
    }
    pairs
}

/// The module that a tensor belongs to: its name without `.weight`, `.scales` and the like. A tensor that is called
/// otherwise, such as `A_log`, is a module of its own.
fn module_of(name: &str) -> &str {
    const PARTS: [&str; 9] =
        ["weight", "scales", "biases", "bias", "qweight", "qzeros", "g_idx", "input_scale", "output_scale"];
    // bitsandbytes: `q_proj.weight.absmax`, `q_proj.weight.quant_state.bitsandbytes__nf4`.
    if let Some((module, _)) = name.split_once(".weight.") {
        return module;
    }
    match name.rsplit_once('.') {
        // fp8 and compressed-tensors: `weight_scale_inv`, `weight_packed`.
        Some((module, part)) if PARTS.contains(&part) || part.starts_with("weight_") => module,
        // gpt-oss: `experts.gate_up_proj_blocks`.
        _ => name.strip_suffix("_blocks").or_else(|| name.strip_suffix("_scales")).unwrap_or(name),
    }
}
