//! What is concluded from what was found packed, and from what the files say.

use std::collections::BTreeMap;

use mlxman_store::ProblemKind;

use super::claim::{Claims, Level, MAIN};
use super::foreign;
use super::label::{is_router, label_of};
use super::layout::Laid;
use super::mlx::{How, Packed, Scheme};
use super::parts::{Module, Place};
use crate::inspect::Subject;
use crate::record::Quantization;

/// The packed matrices of other programs than MLX, and where the first of them is.
pub(super) struct Other<'a> {
    pub(super) component: &'a str,
    pub(super) file: &'a str,
    pub(super) module: &'a str,
    pub(super) laid: Laid,
}

/// Evidence for all that is said of a quantization.
pub(super) fn says(subject: &mut Subject<'_>, quantization: &Quantization, file: &str, key: &str) {
    for (field, is_said) in [
        ("label", quantization.label.is_some()),
        ("method", quantization.method.is_some()),
        ("bits", quantization.bits.is_some()),
        ("group_size", quantization.group_size.is_some()),
        ("mode", quantization.mode.is_some()),
    ] {
        if is_said {
            subject.says(&format!("quantization.{field}"), file, key);
        }
    }
}

/// What is quantized in one way.
#[derive(Debug, Default)]
struct Extent {
    layers: u64,
    elements: u64,
    /// Of the packed weights.
    bytes: u64,
}

pub(super) fn as_mlx(
    subject: &mut Subject<'_>,
    quantization: &mut Quantization,
    modules: &BTreeMap<Place<'_>, Module<'_>>,
    packed: &BTreeMap<Place<'_>, Packed>,
    claims: &Claims,
    levels: &BTreeMap<&str, Level>,
) {
    let mut schemes: BTreeMap<&Scheme, Extent> = BTreeMap::new();
    let mut labels = Vec::new();
    let mut open = Extent::default();
    let mut rest = 0u64;
    for (place, one) in packed {
        let bytes =
            modules.get(place).and_then(|module| module.parts.get("weight")).map_or(0, |w| w.byte_len());
        match &one.settled {
            Some((scheme, how)) => {
                let extent = schemes.entry(scheme).or_default();
                extent.layers += 1;
                extent.elements = extent.elements.saturating_add(one.elements().unwrap_or(0));
                extent.bytes = extent.bytes.saturating_add(bytes);
                rest += u64::from(*how == How::Rest);
                if !is_router(place.1) {
                    labels.push(scheme.label());
                }
            }
            None => {
                open.bytes = open.bytes.saturating_add(bytes);
                open.layers += u64::from(!is_router(place.1));
            }
        }
    }
    quantization.method = Some("mlx".to_owned());
    let main = schemes
        .iter()
        .max_by_key(|(_, extent)| (extent.elements, extent.layers))
        .filter(|(_, extent)| extent.bytes > open.bytes);
    if let Some((main, _)) = main {
        quantization.bits = Some(main.bits);
        quantization.group_size = Some(main.group_size);
        quantization.mode = Some(main.mode.to_owned());
        let others = schemes.iter().filter(|(scheme, _)| scheme != &main);
        quantization.overrides = (open.bytes == 0).then(|| others.map(|(_, extent)| extent.layers).sum());
    }
    // What is open may well be one of the others; where it cannot be, a part of the label is missing.
    let known = packed
        .iter()
        .filter(|((_, module), one)| one.settled.is_none() && !is_router(module))
        .all(|(_, one)| schemes.keys().any(|scheme| one.allows(scheme)));
    // A model of nothing but routers is labelled by them.
    quantization.label = label_of(labels)
        .or_else(|| label_of(schemes.keys().map(|scheme| scheme.label())))
        .filter(|_| open.layers == 0 || (main.is_some() && known));
    let proofs = packed.iter().filter_map(|(place, one)| {
        let (scheme, how) = one.settled.as_ref()?;
        Some((main.is_some_and(|(main, _)| *main != scheme), *how, *place))
    });
    let proof = proofs.min().or_else(|| Some((true, How::Shapes, *packed.keys().next()?)));
    if let Some((_, how, place)) = proof {
        let shapes = format!("shapes of {}.weight and .scales", place.1);
        let own = modules.get(&place).map_or("", |module| module.file);
        let (file, mut key) = match (how, claims.of(place.0), levels.get(place.0)) {
            (How::Claim, Some(claim), _) => (claim.file.as_str(), claim.key.clone()),
            (How::Level, _, Some(level)) => {
                (level.file.as_str(), "__metadata__.quantization_level".to_owned())
            }
            _ => (own, shapes),
        };
        if rest > 0 {
            key.push_str(&format!("; {rest} more, whose shapes leave it open, were taken to be the same"));
        }
        says(subject, quantization, file, &key);
    }
    let contradicted: Vec<&Place<'_>> =
        packed.iter().filter(|(_, one)| one.contradicted).map(|(place, _)| place).collect();
    if let Some(first) = contradicted.first() {
        let file = claims.of(first.0).map_or("config.json", |claim| claim.file.as_str());
        subject.problem(
            ProblemKind::QuantizationContradicted,
            Some(file),
            format!(
                "{file} says one quantization and the tensors' shapes prove another in {} layers ({} first); \
                 the shapes were believed",
                contradicted.len(),
                first.1
            ),
        );
    }
}

/// The component whose quantization is the model's: the main one, else the one with the most in it.
fn decisive<'a>(others: &[Other<'a>]) -> Option<&'a str> {
    let has = |part: &str| others.iter().find(|other| other.component == part).map(|other| other.component);
    if let Some(part) = std::iter::once("").chain(MAIN).find_map(has) {
        return Some(part);
    }
    let mut extents: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
    for other in others {
        let extent = extents.entry(other.component).or_default();
        extent.0 = extent.0.saturating_add(other.laid.elements.unwrap_or(0));
        extent.1 += 1;
    }
    extents.into_iter().max_by_key(|(_, extent)| *extent).map(|(component, _)| component)
}

pub(super) fn as_other(
    subject: &mut Subject<'_>,
    quantization: &mut Quantization,
    others: &[Other<'_>],
    claims: &Claims,
) {
    let Some(component) = decisive(others) else { return };
    let own: Vec<&Other<'_>> = others.iter().filter(|other| other.component == component).collect();
    let labels: Option<Vec<String>> = own.iter().map(|other| other.laid.label.clone()).collect();
    let mut proved = Quantization {
        label: labels.clone().and_then(label_of),
        method: own.iter().find_map(|other| other.laid.method).map(str::to_owned),
        bits: foreign::one(own.iter().map(|other| other.laid.bits)),
        group_size: foreign::one(own.iter().map(|other| other.laid.group_size)),
        ..Quantization::default()
    };
    let first = own.iter().find(|other| other.laid.method.is_some()).or_else(|| own.first());
    if let Some(first) = first {
        says(subject, &proved, first.file, &format!("types and shapes of {}'s tensors", first.module));
    }
    let claim = claims.of(component).and_then(|claim| Some((claim, claim.foreign()?)));
    if let Some((claim, settings)) = claim {
        let said = settings.quantization();
        // Some way that the configuration speaks of must be in what the tensors prove.
        let fits = labels.as_ref().is_none_or(|labels| {
            let mut ways = settings.ways.iter();
            settings.ways.is_empty()
                || ways.any(|way| way.label.as_ref().is_none_or(|label| labels.contains(label)))
        });
        if fits {
            says(subject, &said, &claim.file, &claim.key);
            proved.label = said.label.or(proved.label);
            proved.bits = said.bits.or(proved.bits);
            proved.group_size = said.group_size.or(proved.group_size);
        } else {
            subject.says("quantization.method", &claim.file, claim.key.as_str());
            subject.problem(
                ProblemKind::QuantizationContradicted,
                Some(&claim.file),
                format!(
                    "{} says {} and the tensors prove {}; they were believed",
                    claim.file,
                    said.label.unwrap_or_default(),
                    proved.label.clone().unwrap_or_default()
                ),
            );
        }
        proved.method = said.method;
    }
    *quantization = proved;
}

/// Tells of configurations that speak of packed weights where none are.
pub(super) fn not_packed(
    subject: &mut Subject<'_>,
    packed: &BTreeMap<Place<'_>, Packed>,
    others: &[Other<'_>],
    claims: &Claims,
    whole: bool,
) {
    if !whole {
        return;
    }
    for (component, claim) in claims.each() {
        let is_of = |part: &str| component.is_empty() || part == component;
        let is_there =
            packed.keys().any(|place| is_of(place.0)) || others.iter().any(|other| is_of(other.component));
        if is_there || claim.foreign().is_some_and(|said| !said.of_weights) {
            continue;
        }
        let said = claim.quantization();
        let word = said.method.or(said.label).unwrap_or_default();
        subject.problem(
            ProblemKind::QuantizationContradicted,
            Some(&claim.file),
            format!(
                "{} says that the model is quantized ({word}) and no tensor is packed; the tensors were believed",
                claim.file
            ),
        );
    }
}
