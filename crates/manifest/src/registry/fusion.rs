//! What a comparison of a model with its base says of a fused adapter.

use crate::record::{AdapterKind, Comparison, Evidence, Manifest};

/// Adds what a comparison said to a manifest. That a model is not its base says nothing of an adapter: most models with
/// a base were trained further. One was fused in where one lies there that was made for the base, or where what
/// differs is what a LoRA changes, and nothing else.
pub(super) fn compared(manifest: &mut Manifest, comparison: Comparison) {
    let adapter = &mut manifest.adapter;
    let what = format!("tensors compared with {}", comparison.base);
    let evidence = Evidence { file: "safetensors".to_owned(), key: Some(what) };
    // A beside one is noted as `Unknown` only where it is for the same base.
    let one_is_there = !adapter.found_inside.is_empty()
        || adapter.kind == AdapterKind::Unknown && !adapter.found_beside.is_empty();
    let some_differ = (1..comparison.compared_tensors).contains(&comparison.differing_tensors);
    let settled = if adapter.kind == AdapterKind::Adapter {
        None
    } else if comparison.identical {
        Some((AdapterKind::None, false))
    } else if some_differ && (one_is_there || is_what_a_lora_changes(&comparison)) {
        Some((AdapterKind::Fused, true))
    } else {
        None
    };
    if let Some((kind, fused)) = settled {
        adapter.kind = kind;
        adapter.currently_fused = Some(fused);
        adapter.base = Some(comparison.base.clone());
        for field in ["adapter.kind", "adapter.currently_fused"] {
            manifest.evidence.insert(field.to_owned(), evidence.clone());
        }
    }
    manifest.evidence.insert("adapter.comparison".to_owned(), evidence);
    manifest.adapter.comparison = Some(comparison);
}

/// Whether less than half of the tensors differ, and those are projections of attention and MLP alone: training
/// changes norms and embeddings too.
fn is_what_a_lora_changes(comparison: &Comparison) -> bool {
    const PROJECTIONS: [&str; 27] = [
        "wq",
        "wk",
        "wv",
        "wo",
        "w1",
        "w2",
        "w3",
        "wqkv",
        "to_q",
        "to_k",
        "to_v",
        "to_out",
        "query",
        "key",
        "value",
        "dense",
        "query_key_value",
        "dense_h_to_4h",
        "dense_4h_to_h",
        "c_attn",
        "c_fc",
        "fc1",
        "fc2",
        "qkv",
        "linear",
        "linear1",
        "linear2",
    ];
    comparison.unmatched_tensors == 0
        && !comparison.modules.is_empty()
        && comparison.differing_tensors < comparison.compared_tensors.div_ceil(2)
        && comparison.modules.iter().all(|module| {
            let last = module.rsplit('.').next().unwrap_or(module);
            last.ends_with("_proj") || PROJECTIONS.contains(&last)
        })
}

#[cfg(test)]
mod tests {
    use super::super::original;
    use super::*;
    use crate::record::Adapter;
    use crate::summary::Summary;

    fn manifest(adapter: Adapter) -> Manifest {
        let summary = Summary { model: "m".to_owned(), store: "hub=/x".to_owned(), ..Summary::default() };
        let original = serde_json::json!({"model": "m", "storage": {"present": true}});
        let document = original::upgraded(&original, &summary).unwrap();
        Manifest { adapter, ..serde_json::from_value(document).unwrap() }
    }

    fn with(adapter: Adapter, differing: u64, modules: &[&str], identical: bool) -> Adapter {
        let mut manifest = manifest(adapter);
        let comparison = Comparison {
            base: "acme/base".to_owned(),
            base_revision: None,
            identical,
            summary: String::new(),
            differing_tensors: differing,
            compared_tensors: 100,
            unmatched_tensors: 0,
            modules: modules.iter().map(|name| (*name).to_owned()).collect(),
            layers: Vec::new(),
        };
        compared(&mut manifest, comparison);
        assert!(manifest.adapter.comparison.is_some());
        let told = manifest.evidence.get("adapter.currently_fused").is_some_and(|e| e.file == "safetensors");
        assert_eq!(manifest.adapter.currently_fused.is_some(), told);
        manifest.adapter
    }

    #[test]
    fn what_differs_from_its_base_is_not_therefore_fused() {
        let none = Adapter::default;
        let verdict = |adapter: Adapter| (adapter.kind, adapter.currently_fused);
        // An instruct model of the base.
        let all = ["q_proj", "down_proj", "input_layernorm", "embed_tokens"];
        assert_eq!(verdict(with(none(), 100, &all, false)), (AdapterKind::None, None));
        assert_eq!(with(none(), 100, &all, false).base, None);
        assert_eq!(verdict(with(none(), 30, &all, false)), (AdapterKind::None, None));
        // What a LoRA changes.
        let lora = ["q_proj", "experts.up_proj", "attn.to_out"];
        assert_eq!(verdict(with(none(), 30, &lora, false)), (AdapterKind::Fused, Some(true)));
        assert_eq!(verdict(with(none(), 50, &lora, false)), (AdapterKind::None, None));
        assert_eq!(verdict(with(none(), 0, &[], true)), (AdapterKind::None, Some(false)));
        // One lies there.
        let beside = Adapter {
            kind: AdapterKind::Unknown,
            found_beside: vec!["lora".to_owned()],
            ..Adapter::default()
        };
        assert_eq!(verdict(with(beside.clone(), 70, &lora, false)), (AdapterKind::Fused, Some(true)));
        assert_eq!(verdict(with(beside.clone(), 100, &all, false)), (AdapterKind::Unknown, None));
        assert_eq!(verdict(with(beside, 0, &[], true)), (AdapterKind::None, Some(false)));
        let inside = Adapter { found_inside: vec!["lora".to_owned()], ..Adapter::default() };
        assert_eq!(verdict(with(inside, 70, &lora, false)), (AdapterKind::Fused, Some(true)));
        // An adapter is none of this.
        let adapter = Adapter { kind: AdapterKind::Adapter, ..Adapter::default() };
        assert_eq!(verdict(with(adapter, 30, &lora, false)), (AdapterKind::Adapter, None));
    }
}
