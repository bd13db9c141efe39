use mlxman_manifest::Summary;

use crate::filter::Facts;

/// What filters can ask of a model.
pub fn facts_of(summary: &Summary) -> Facts<'_> {
    // What was found of other files than those that are there now says nothing.
    let verified = summary.verified.as_ref().filter(|verified| verified.holds());
    let integrity = summary.integrity.as_ref().filter(|integrity| integrity.holds());
    Facts {
        model: &summary.model,
        repo_id: summary.repo_id.as_deref(),
        revision: summary.revision.as_deref(),
        store: &summary.store,
        refs: &summary.refs,
        tags: &summary.tags,
        quantization: summary.quantization.as_deref(),
        quantization_variants: &summary.quantization_variants,
        quantization_method: summary.quantization_method.as_deref(),
        precision: summary.precision.as_deref(),
        format: Some(summary.format.word()),
        arch: summary.arch.as_deref(),
        modality: summary.modality.as_deref(),
        license: summary.license.as_deref(),
        base_model: summary.base_model.as_deref(),
        adapter_kind: Some(summary.adapter.word()),
        fused: summary.fused,
        health: summary.health.word(),
        problems: summary.problems.iter().map(String::as_str).collect(),
        present: summary.present,
        pinned: summary.pinned,
        detached: summary.detached,
        size_bytes: Some(summary.size_bytes),
        reclaimable_bytes: Some(summary.reclaimable_bytes),
        params: summary.params,
        context_length: summary.context_length,
        used: summary.last_used().map(|(time, _)| time),
        modified: summary.modified,
        verified: verified.map(|verified| verified.at),
        verdict: verified.map(|verified| verified.verdict.word()),
        checked: integrity.map(|integrity| integrity.at),
        integrity: integrity.map(|integrity| integrity.verdict.word()),
        prompt_tps: verified.and_then(|verified| verified.prompt_tps),
        generation_tps: verified.and_then(|verified| verified.generation_tps),
    }
}
