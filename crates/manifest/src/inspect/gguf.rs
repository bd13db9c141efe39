//! What each GGUF file of a directory is, and which files are one model together.
//!
//! A directory often holds one model in several quantizations, each whole or split into parts, and beside them what
//! llama.cpp loads in addition: a projector for pictures, an adapter, an importance matrix. Only the model's own files
//! say what the model is.

use std::collections::{BTreeMap, BTreeSet};

use super::tensors::{GgufFile, Tensors};
use crate::formats::gguf::GgufHeader;

/// What a GGUF file is to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// The model's weights.
    Model,
    /// What turns pictures or sound into the model's input (`mmproj`).
    Projector,
    /// A LoRA.
    Adapter,
    /// An importance matrix: what the quantizer reads, no program that runs the model.
    Imatrix,
}

/// What the header says that its file is.
fn role(header: &GgufHeader) -> Role {
    match (header.str("general.type"), header.architecture()) {
        (Some("adapter"), _) => Role::Adapter,
        (Some("imatrix"), _) | (_, Some("imatrix")) => Role::Imatrix,
        (Some("mmproj"), _) | (_, Some("clip")) => Role::Projector,
        _ if header.str("adapter.type").is_some() => Role::Adapter,
        _ => Role::Model,
    }
}

/// A file, or the parts that one was split into.
#[derive(Debug)]
pub(super) struct Set<'a> {
    /// The file's path; of a split one, without the part's number and the ending.
    pub(super) name: String,
    pub(super) role: Role,
    /// Parts that there must be.
    count: u64,
    /// Those that are there, readable or not, counted from 1.
    numbers: BTreeSet<u64>,
    /// Whether the number of every part is known.
    numbered: bool,
    /// Those that could be read, in their order.
    pub(super) parts: Vec<&'a GgufFile>,
}

impl<'a> Set<'a> {
    /// The header that describes the whole: that of the first part.
    pub(super) fn head(&self) -> Option<&'a GgufFile> {
        let described = |file: &&&GgufFile| file.header.architecture().is_some();
        self.parts.iter().find(described).or(self.parts.first()).copied()
    }

    /// How many parts there must be, and the numbers of those that are not there.
    pub(super) fn missing(&self) -> Option<(u64, Vec<u64>)> {
        // A count that no directory can hold is not gone through.
        if !self.numbered || self.numbers.len() as u64 >= self.count || self.count > 100_000 {
            return None;
        }
        Some((self.count, (1..=self.count).filter(|number| !self.numbers.contains(number)).collect()))
    }

    fn is_whole(&self) -> bool {
        self.parts.len() as u64 == self.count
    }

    /// Elements of all its tensors, where all its parts could be read.
    pub(super) fn elements(&self) -> Option<u64> {
        let sum = self.sum(GgufHeader::element_count)?;
        (sum > 0).then_some(sum)
    }

    /// Bytes of all its tensors, where all its parts could be read.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.sum(GgufHeader::tensor_bytes)
    }

    fn sum(&self, of: impl Fn(&GgufHeader) -> Option<u64>) -> Option<u64> {
        let add = |sum: u64, file: &&GgufFile| sum.checked_add(of(&file.header)?);
        if self.is_whole() { self.parts.iter().try_fold(0, add) } else { None }
    }

    /// The name of its mix of types, and whether the quantizer itself wrote it there; else of the type that most of
    /// its elements have.
    pub(super) fn label(&self) -> Option<(String, bool)> {
        if let Some(label) = self.parts.iter().find_map(|file| file.header.file_type_label()) {
            return Some((label.to_owned(), true));
        }
        let mut by_type: BTreeMap<&'static str, u64> = BTreeMap::new();
        for tensor in self.parts.iter().flat_map(|file| &file.header.tensors) {
            let all = by_type.entry(tensor.ggml_type.name()?).or_default();
            *all = all.saturating_add(tensor.element_count()?);
        }
        let (name, _) = by_type.into_iter().max_by_key(|(_, count)| *count)?;
        self.is_whole().then(|| (name.to_owned(), false))
    }
}

/// All GGUF files that could be read, the parts of split ones together, in the order of their names.
pub(super) fn sets(tensors: &Tensors) -> Vec<Set<'_>> {
    let mut sets: BTreeMap<(String, u64), Set<'_>> = BTreeMap::new();
    for file in &tensors.gguf {
        let split = file.header.split();
        let count = split.map_or(1, |split| split.count);
        let by_name = part_of(&file.path).filter(|(_, _, of)| *of == count);
        let (name, number) = match (split, by_name) {
            (None, _) => (file.path.clone(), Some(1)),
            (Some(split), Some((stem, ..))) => (stem.to_owned(), split.no.checked_add(1)),
            // Renamed parts: all of one directory that were split alike.
            (Some(split), None) => {
                (file.path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned(), split.no.checked_add(1))
            }
        };
        let set = sets.entry((name.clone(), count)).or_insert_with(|| Set {
            name,
            role: Role::Model,
            count,
            numbers: BTreeSet::new(),
            numbered: true,
            parts: Vec::new(),
        });
        // The same number twice: two models, and nothing tells whose part is whose.
        set.numbered &=
            number.is_some_and(|number| (1..=count).contains(&number) && set.numbers.insert(number));
        set.parts.push(file);
    }
    for ((stem, count), set) in &mut sets {
        set.parts.sort_by_key(|file| file.header.split().map_or(0, |split| split.no));
        set.role = set.head().map_or(Role::Model, |file| role(&file.header));
        // A part that could not be read is broken, not missing.
        let unread = tensors.seen.iter().filter_map(|path| part_of(path));
        set.numbers.extend(unread.filter(|(of, _, all)| of == stem && all == count).map(|(_, no, _)| no));
    }
    sets.into_values().collect()
}

/// The sets that are models, not what is loaded beside one.
pub(super) fn models(tensors: &Tensors) -> Vec<Set<'_>> {
    let mut sets = sets(tensors);
    sets.retain(|set| set.role == Role::Model);
    sets
}

/// `m-Q8_0`, 1 and 4 of `m-Q8_0-00001-of-00004.gguf`.
fn part_of(path: &str) -> Option<(&str, u64, u64)> {
    super::tensors::shard_of(path.strip_suffix(".gguf")?)
}

/// What `of` says of all of them, where they say the same.
pub(super) fn agreed<'a, T: PartialEq>(
    sets: &'a [Set<'a>],
    of: impl Fn(&'a Set<'a>) -> Option<T>,
) -> Option<T> {
    let mut all = sets.iter().map(of);
    let first = all.next()??;
    all.all(|other| other.as_ref() == Some(&first)).then_some(first)
}
