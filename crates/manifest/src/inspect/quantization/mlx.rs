//! Matrices that MLX quantized.
//!
//! MLX stores a quantized matrix of `out x in` weights as `weight` (U32, `out x in*bits/32`), `scales`
//! (`out x in/group`) and, in the affine mode, `biases`. So `32 * columns(weight) / columns(scales)` is
//! `bits * group`; the mode follows from the scales' type. Where the product leaves more than one pair, the width of
//! what the matrix reads decides, as other tensors show it ([`Widths`]); then the configuration's claim, what the
//! file's metadata say, and last what holds for all the rest of the model. What none of them settles stays open.

use std::collections::{BTreeMap, BTreeSet};

use super::claim::{Claims, Level};
use super::label::is_router;
use super::parts::{Module, Parts, Place};
use crate::formats::safetensors::Dtype;
use crate::inspect::widths::Widths;

const BITS: [u64; 6] = [2, 3, 4, 5, 6, 8];
/// Those of the affine mode; MLX refuses others.
const GROUPS: [u64; 3] = [32, 64, 128];

/// How one matrix is quantized.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Scheme {
    pub(super) bits: u64,
    pub(super) group_size: u64,
    pub(super) mode: &'static str,
}

impl Scheme {
    /// Its part of a label: `4bit`, `mxfp4`.
    pub(super) fn label(&self) -> String {
        if self.mode == "affine" { format!("{}bit", self.bits) } else { self.mode.to_owned() }
    }
}

/// What settled how a matrix is quantized; the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// Its own shapes, and the width of what it reads.
    Shapes,
    /// The configuration, in a way that the shapes allow.
    Claim,
    /// The file's metadata, in a way that the shapes allow.
    Level,
    /// The width that it most likely reads.
    Likely,
    /// All the rest of the model.
    Rest,
}

/// A matrix that MLX packed.
#[derive(Debug)]
pub(super) struct Packed {
    /// All that its shapes allow.
    candidates: Vec<Scheme>,
    /// Rows of all its matrices, and 32-bit words in each.
    rows: Option<u64>,
    columns: u64,
    likely: Option<Scheme>,
    pub(super) settled: Option<(Scheme, How)>,
    /// Whether the configuration says what cannot be.
    pub(super) contradicted: bool,
}

impl Packed {
    fn of(parts: &Parts<'_>) -> Option<Self> {
        let (weight, scales) = (parts.get("weight")?, parts.get("scales")?);
        if weight.dtype != Dtype::U32 || weight.shape.len() < 2 || weight.shape.len() != scales.shape.len() {
            return None;
        }
        let (columns, groups) = (*weight.shape.last()?, *scales.shape.last()?);
        let rows = weight.shape[..weight.shape.len() - 1].iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
        let words = columns.checked_mul(32)?;
        let product = (groups > 0 && columns > 0 && words % groups == 0).then(|| words / groups);
        let candidates = if scales.dtype == Dtype::U8 && !parts.contains_key("biases") {
            match product {
                Some(128) => vec![Scheme { bits: 4, group_size: 32, mode: "mxfp4" }],
                Some(256) => vec![Scheme { bits: 8, group_size: 32, mode: "mxfp8" }],
                Some(64) => vec![Scheme { bits: 4, group_size: 16, mode: "nvfp4" }],
                _ => Vec::new(),
            }
        } else {
            BITS.iter()
                .flat_map(|&bits| GROUPS.map(|group_size| Scheme { bits, group_size, mode: "affine" }))
                .filter(|scheme| Some(scheme.bits * scheme.group_size) == product && words % scheme.bits == 0)
                .collect()
        };
        Some(Packed { candidates, rows, columns, likely: None, settled: None, contradicted: false })
    }

    /// How many weights it stands for.
    pub(super) fn elements(&self) -> Option<u64> {
        let (scheme, _) = self.settled.as_ref()?;
        self.rows?.checked_mul(self.columns * 32 / scheme.bits)
    }

    /// Whether its shapes allow this.
    pub(super) fn allows(&self, scheme: &Scheme) -> bool {
        self.candidates.contains(scheme)
    }

    fn that_reads(&self, width: Option<u64>) -> Option<Scheme> {
        self.candidates.iter().find(|scheme| Some(self.columns * 32 / scheme.bits) == width).cloned()
    }

    /// Settles what can be settled without the rest of the model.
    fn settle(&mut self, place: Place<'_>, widths: &Widths<'_>, claims: &Claims, level: Option<&Level>) {
        let claimed = claims.scheme(place);
        if let [one] = self.candidates.as_slice() {
            self.settled = Some((one.clone(), How::Shapes));
        } else if !self.candidates.is_empty() {
            let reads = widths.of(place.0, place.1);
            self.likely = self.that_reads(reads.likely);
            let is_candidate = |scheme: &Scheme| self.candidates.contains(scheme);
            let by_level = || level.and_then(|level| level.among(&self.candidates));
            self.settled = self
                .that_reads(reads.sure)
                .map(|scheme| (scheme, How::Shapes))
                .or_else(|| Some((claimed.clone().filter(is_candidate)?, How::Claim)))
                .or_else(|| Some((by_level()?, How::Level)));
        }
        self.contradicted = claimed.is_some_and(|claimed| match &self.settled {
            Some((scheme, _)) => *scheme != claimed,
            None => !self.candidates.is_empty(),
        });
    }
}

/// Every matrix that MLX packed, with its scheme where it can be settled.
pub(super) fn packed<'a>(
    modules: &BTreeMap<Place<'a>, Module<'a>>,
    widths: &Widths<'_>,
    claims: &Claims,
    levels: &BTreeMap<&str, Level>,
) -> BTreeMap<Place<'a>, Packed> {
    let mut all = BTreeMap::new();
    for (place, module) in modules {
        if let Some(mut packed) = Packed::of(&module.parts) {
            packed.settle(*place, widths, claims, levels.get(place.0));
            all.insert(*place, packed);
        }
    }
    let schemes = |all: &BTreeMap<Place<'a>, Packed>| -> BTreeSet<Scheme> {
        let layers = all.iter().filter(|((_, module), _)| !is_router(module));
        layers.filter_map(|(_, packed)| Some(packed.settled.as_ref()?.0.clone())).collect()
    };
    let open = |packed: &Packed| packed.settled.is_none() && !packed.contradicted;
    // What is only likely must be what other matrices prove, or what all others say too.
    let certain = schemes(&all);
    let likely: BTreeSet<Scheme> =
        all.values().filter(|packed| open(packed)).filter_map(|packed| packed.likely.clone()).collect();
    for packed in all.values_mut().filter(|packed| open(packed)) {
        let fits = |scheme: &Scheme| {
            if certain.is_empty() { likely.len() == 1 } else { certain.contains(scheme) }
        };
        packed.settled = packed.likely.clone().filter(fits).map(|scheme| (scheme, How::Likely));
    }
    let settled = schemes(&all);
    if let (1, Some(one)) = (settled.len(), settled.first()) {
        for ((_, module), packed) in &mut all {
            let fits = packed.candidates.contains(one) && packed.likely.as_ref().is_none_or(|it| it == one);
            if open(packed) && fits && !is_router(module) {
                packed.settled = Some((one.clone(), How::Rest));
            }
        }
    }
    all
}
