//! Saying where two models differ.

use std::collections::{BTreeMap, BTreeSet};

use super::pair::Pairing;

/// From this many differing kinds of modules on, they are counted instead of named.
const MANY_KINDS: usize = 8;

/// More runs of layers than these are counted instead of listed.
const MANY_RUNS: usize = 8;

/// The longest name that is shown whole, in characters.
const LONG_NAME: usize = 80;

/// What a comparison found, in words.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) summary: String,
    /// Kinds of modules that differ.
    pub(super) modules: Vec<String>,
    /// Layers that differ.
    pub(super) layers: Vec<u64>,
}

/// A kind of module: its path without the numbers of layers and experts, last component first.
type Kind<'a> = Vec<&'a str>;

/// Puts into words which of the pairs differ.
pub(super) fn describe(pairing: &Pairing<'_>, differ: &[bool]) -> Words {
    // The layers that have each kind of module in the base, and those in which it differs.
    let mut known: BTreeMap<Kind<'_>, BTreeSet<u64>> = BTreeMap::new();
    for module in &pairing.base_modules {
        let (kind, layer) = split(module);
        known.entry(kind).or_default().extend(layer);
    }
    let mut compared: BTreeSet<Kind<'_>> = BTreeSet::new();
    let mut changed: BTreeMap<Kind<'_>, BTreeSet<u64>> = BTreeMap::new();
    for (pair, differs) in pairing.pairs.iter().zip(differ) {
        let (kind, layer) = split(&pair.module);
        if *differs {
            changed.entry(kind.clone()).or_default().extend(layer);
        }
        compared.insert(kind);
    }

    let names = names(known.keys());
    let by_name = |kinds| named(kinds, &names);
    let changed_by_name = by_name(&changed);
    let mut summary = if changed.is_empty() {
        if pairing.unmatched == 0 {
            "identical to its base".to_owned()
        } else {
            "the same as its base in every tensor that both have".to_owned()
        }
    } else if !differ.contains(&false) {
        "differs in every tensor".to_owned()
    } else if changed.len() >= MANY_KINDS {
        format!("differs in {} of {} kinds of tensors", changed.len(), compared.len())
    } else {
        format!("differs in {}", places(&changed_by_name, &by_name(&known)))
    };
    match pairing.unmatched {
        0 => {}
        1 => summary.push_str("; 1 tensor has no counterpart"),
        n => summary.push_str(&format!("; {n} tensors have no counterpart")),
    }
    let layers: BTreeSet<u64> = changed.values().flatten().copied().collect();
    Words {
        summary,
        modules: changed_by_name.keys().map(|name| (*name).to_owned()).collect(),
        layers: layers.into_iter().collect(),
    }
}

/// Layers by the kind's name.
type Named<'a> = BTreeMap<&'a str, &'a BTreeSet<u64>>;

fn named<'a>(
    kinds: &'a BTreeMap<Kind<'a>, BTreeSet<u64>>,
    names: &'a BTreeMap<&Kind<'a>, String>,
) -> Named<'a> {
    kinds.iter().filter_map(|(kind, layers)| names.get(kind).map(|name| (name.as_str(), layers))).collect()
}

/// `q_proj, v_proj of all layers and in lm_head`: the kinds, those with the same layers together.
fn places(changed: &Named<'_>, everywhere: &Named<'_>) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (name, layers) in changed {
        let all = everywhere.get(name).is_some_and(|all| all == layers);
        let place = if layers.is_empty() {
            String::new()
        } else if all {
            " of all layers".to_owned()
        } else {
            let total = everywhere.get(name).map_or(0, |all| all.len());
            format!(" of {}", layers_in_words(layers, total))
        };
        match groups.iter_mut().find(|(other, _)| *other == place) {
            Some((_, names)) => names.push(name),
            None => groups.push((place, vec![name])),
        }
    }
    // What is in no layer stands last.
    groups.sort_by_key(|(place, _)| place.is_empty());
    let parts: Vec<String> =
        groups.into_iter().map(|(place, names)| format!("{}{place}", names.join(", "))).collect();
    list(&parts, ", in ", " and in ")
}

/// `layer 7`, `layers 0-3 and 7`, or for a long list `20 of 48 layers`.
fn layers_in_words(numbers: &BTreeSet<u64>, total: usize) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(number) => *end = number,
            _ => runs.push((number, number)),
        }
    }
    if runs.len() > MANY_RUNS {
        return format!("{} of {total} layers", numbers.len());
    }
    let runs: Vec<String> = runs
        .into_iter()
        .map(|(start, end)| if start == end { start.to_string() } else { format!("{start}-{end}") })
        .collect();
    let noun = if numbers.len() == 1 { "layer" } else { "layers" };
    format!("{noun} {}", list(&runs, ", ", " and "))
}

fn list(parts: &[String], between: &str, last: &str) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., end] => format!("{}{last}{end}", first.join(between)),
    }
}

/// A module's kind, and the number of its layer: the first component that is a number.
fn split(module: &str) -> (Kind<'_>, Option<u64>) {
    let number = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u64>().ok()).flatten()
    };
    let layer = module.split(['.', '/']).find_map(number);
    let kind: Kind<'_> = module.rsplit(['.', '/']).filter(|part| number(part).is_none()).collect();
    if kind.is_empty() { (vec![module], None) } else { (kind, layer) }
}

/// A name for each kind: the shortest end of its path that no other kind has, which is mostly its last component.
fn names<'a>(kinds: impl Iterator<Item = &'a Kind<'a>>) -> BTreeMap<&'a Kind<'a>, String> {
    // In their order, the kinds that have the longest beginning in common with one (the end of its path) are those
    // next to it.
    let kinds: Vec<&Kind<'_>> = kinds.collect();
    let common = |a: &Kind<'_>, b: &Kind<'_>| a.iter().zip(b.iter()).take_while(|(a, b)| a == b).count();
    let with_next: Vec<usize> = kinds.windows(2).map(|two| common(two[0], two[1])).collect();
    kinds
        .iter()
        .enumerate()
        .map(|(i, kind)| {
            let before = i.checked_sub(1).and_then(|i| with_next.get(i)).copied().unwrap_or(0);
            let after = with_next.get(i).copied().unwrap_or(0);
            let len = (before.max(after) + 1).min(kind.len());
            let path: Vec<&str> = kind[..len].iter().rev().copied().collect();
            (*kind, shown(&path.join(".")))
        })
        .collect()
}

/// A name from a file, fit to be shown: nothing in it steers a terminal, and it is not endless.
fn shown(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if i == LONG_NAME {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
