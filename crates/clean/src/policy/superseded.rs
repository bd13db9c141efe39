//! `--superseded`: what a better one stands for, where that was verified: a newer revision of the same repo, or a finer
//! precision of the same model.

use mlxman_manifest::{AdapterKind, Summary, Verdict, VerifiedLevel};
use mlxman_store::{FoundModel, RepoKind};

use super::choose::{Run, Subject};
use super::world::At;
use crate::filter::quantity::format_age;
use crate::plan::{Keep, Reason, Rule};
use crate::replaced::lost_with;

/// Names what is superseded. The best one of a family stands for all others of it.
pub(super) fn name(run: &mut Run<'_>) {
    let world = run.world;
    let mut better: Vec<At> = world.models().filter(|at| is_verified(&world.get(*at).1.summary)).collect();
    // The finest first.
    better.sort_by_key(|at| std::cmp::Reverse(precision(&world.get(*at).1.summary)));
    for at in world.models().filter(|at| world.is_allowed(*at)) {
        let mine = world.get(at);
        let stays = |other: &&At| **other != at && !run.is_named(Subject::Model(**other));
        let newer = better
            .iter()
            .filter(stays)
            .find(|other| other.view == at.view && is_newer(mine.0, world.get(**other).0));
        let finer = || {
            better.iter().filter(stays).find(|other| is_finer(&mine.1.summary, &world.get(**other).1.summary))
        };
        let Some(&other) = newer.or_else(finer) else { continue };
        let kind = mine.0.repo.as_ref().map_or(RepoKind::Model, |repo| repo.kind);
        if newer.is_some()
            && let Some(path) = lost_with(mine, world.get(other), kind)
        {
            let reason =
                format!("the newer revision has nothing that stands for its `{}`", path.escape_debug());
            run.tell(Subject::Model(at), (Keep::NotReplaced, reason));
            continue;
        }
        let what = if newer.is_some() { "a newer revision" } else { "a finer precision" };
        let summary = &world.get(other).1.summary;
        let verified = summary.verified.as_ref();
        let passed = verified.map(|verified| {
            let ago = format_age(run.holds.now.signed_duration_since(verified.at));
            format!("passed {} {ago} ago", verified.level.word())
        });
        let label = summary.quantization.as_ref().filter(|_| newer.is_none());
        let label = label.map(|label| format!(" ({label})")).unwrap_or_default();
        let reason = format!(
            "{what} of it is here: {}{label}, which {}",
            world.name(other, at),
            passed.unwrap_or_default()
        );
        if run.name(Subject::Model(at), vec![Reason { rule: Rule::Superseded, reason }]) {
            run.rely_on(other);
        }
    }
}

/// Whether the files that are there now were loaded, and every tensor of them read.
fn is_verified(summary: &Summary) -> bool {
    summary.present
        && summary.is_sound()
        && summary.verified.as_ref().is_some_and(|verified| {
            verified.holds()
                && verified.verdict == Verdict::Pass
                && matches!(verified.level, VerifiedLevel::Load | VerifiedLevel::Generate)
        })
}

/// Whether `new` is what a ref names of the repo, and no ref names `old` any more.
fn is_newer(old: &FoundModel, new: &FoundModel) -> bool {
    let (Some(old), Some(new)) = (&old.repo, &new.repo) else { return false };
    old.kind == new.kind
        && old.id == new.id
        && old.detached() == Some(true)
        && new.detached() == Some(false)
        && new.current
}

/// Whether `fine` is the same model as `coarse` in more bits a weight, for the same programs. A model that was trained
/// further names the same base, so names and shapes must agree too.
fn is_finer(coarse: &Summary, fine: &Summary) -> bool {
    let plain = |one: &Summary| one.adapter == AdapterKind::None && one.fused != Some(true);
    let same_size = match (coarse.params, fine.params) {
        (Some(a), Some(b)) => a.abs_diff(b) <= a.max(b) / 100,
        _ => false,
    };
    let is_base = |base: &Summary, of: &Summary| base.repo_id.is_some() && base.repo_id == of.base_model;
    let related = coarse.base_model.is_some() && coarse.base_model == fine.base_model
        || is_base(fine, coarse)
        || owner(coarse).is_some() && owner(coarse) == owner(fine);
    matches!((precision(coarse), precision(fine)), (Some(low), Some(high)) if low < high)
        && plain(coarse)
        && plain(fine)
        && coarse.format == fine.format
        && coarse.arch.is_some()
        && coarse.arch == fine.arch
        && coarse.modality == fine.modality
        && same_size
        && related
        && family(coarse).is_some_and(|name| family(fine).as_ref() == Some(&name))
}

fn owner(summary: &Summary) -> Option<&str> {
    summary.repo_id.as_deref()?.split_once('/').map(|(owner, _)| owner)
}

/// Words of a repo's name that say how it is packed, not what it is.
fn is_packing(word: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let word = word.to_ascii_lowercase();
    matches!(
        word.as_str(),
        "mlx"
            | "gguf"
            | "bf16"
            | "fp16"
            | "f16"
            | "fp32"
            | "f32"
            | "fp8"
            | "mxfp4"
            | "mxfp8"
            | "nvfp4"
            | "bit"
    ) || word.strip_suffix("bit").or_else(|| word.strip_suffix("bits")).is_some_and(number)
        || word.strip_prefix(['q', 'w']).or_else(|| word.strip_prefix("int")).is_some_and(number)
}

/// The repo's name without those: `qwen3-4b` of `mlx-community/Qwen3-4B-4bit`.
fn family(summary: &Summary) -> Option<String> {
    let name = summary.repo_id.as_deref()?.rsplit('/').next()?.to_ascii_lowercase();
    let words: Vec<&str> = name.split(['-', '_']).filter(|word| !is_packing(word)).collect();
    (!words.is_empty()).then(|| words.join("-"))
}

/// Bits a weight, of what has one precision that its files prove.
fn precision(summary: &Summary) -> Option<u32> {
    if summary.quantization_from_name || !summary.quantization_variants.is_empty() {
        return None;
    }
    let label = summary.quantization.as_deref()?.to_ascii_lowercase();
    match label.as_str() {
        "f32" => Some(32),
        "bf16" | "f16" => Some(16),
        "fp8" | "mxfp8" => Some(8),
        "mxfp4" | "nvfp4" => Some(4),
        _ => {
            let of_gguf = label.strip_prefix("iq").or_else(|| label.strip_prefix('q'));
            let number = label.strip_suffix("bit").or_else(|| of_gguf?.split('_').next())?;
            number.parse().ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(repo: &str, label: &str) -> Summary {
        Summary {
            repo_id: Some(repo.to_owned()),
            quantization: Some(label.to_owned()),
            arch: Some("qwen3".to_owned()),
            params: Some(4_000_000_000),
            base_model: Some("Qwen/Qwen3-4B".to_owned()),
            ..Summary::default()
        }
    }

    #[test]
    fn the_same_model_in_more_bits() {
        let four = model("mlx-community/Qwen3-4B-4bit", "4bit");
        for (other, is) in [
            (model("mlx-community/Qwen3-4B-8bit", "8bit"), true),
            (model("lmstudio-community/Qwen3-4B-MLX-8bit", "8bit"), true),
            (Summary { base_model: None, ..model("Qwen/Qwen3-4B", "bf16") }, true),
            (Summary { base_model: None, ..model("other/Qwen3-4B", "bf16") }, false),
            (model("mlx-community/Qwen3-4B-Instruct-8bit", "8bit"), false),
            (model("mlx-community/Qwen3-4B-4bit", "4bit"), false),
            (model("mlx-community/Qwen3-4B-3bit", "3bit"), false),
            (model("mlx-community/Qwen3-4B-mixed", "mixed-4-8bit"), false),
            (Summary { fused: Some(true), ..model("mlx-community/Qwen3-4B-8bit", "8bit") }, false),
            (
                Summary { adapter: AdapterKind::Unknown, ..model("mlx-community/Qwen3-4B-8bit", "8bit") },
                false,
            ),
            (Summary { params: Some(8_000_000_000), ..model("mlx-community/Qwen3-4B-8bit", "8bit") }, false),
            (Summary { params: None, ..model("mlx-community/Qwen3-4B-8bit", "8bit") }, false),
            (
                Summary {
                    format: mlxman_manifest::Format::Gguf,
                    ..model("mlx-community/Qwen3-4B-8bit", "8bit")
                },
                false,
            ),
            (Summary { quantization_from_name: true, ..model("mlx-community/Qwen3-4B-8bit", "8bit") }, false),
        ] {
            assert_eq!(is_finer(&four, &other), is, "{other:?}");
        }
    }

    #[test]
    fn bits_a_weight() {
        for (label, bits) in [
            ("4bit", Some(4)),
            ("Q4_K_M", Some(4)),
            ("IQ3_XS", Some(3)),
            ("Q8_0", Some(8)),
            ("bf16", Some(16)),
            ("mixed-4-8bit", None),
            ("odd", None),
        ] {
            assert_eq!(precision(&model("a/b", label)), bits, "{label}");
        }
    }
}
