mod expr;
mod laws;
mod near;
mod quantity;
mod set;

use chrono::{DateTime, Utc};

use super::{Facts, FilterArgs, FilterSet, parse_exprs};

fn now() -> DateTime<Utc> {
    at("2026-03-01T12:00:00Z")
}

fn at(time: &str) -> DateTime<Utc> {
    time.parse().unwrap()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The facts of a model of which everything is known, in `check`'s hands.
fn with_flux<T>(check: impl FnOnce(Facts<'_>) -> T) -> T {
    let (refs, tags) = (words(&["main", "v2"]), words(&["image", "Flux"]));
    check(Facts {
        model: "flux-schnell-4bit",
        repo_id: Some("mzbac/flux1.schnell.4bit.mlx"),
        revision: Some("0123456789abcdef0123456789abcdef01234567"),
        store: "hub=/models/hub",
        refs: &refs,
        tags: &tags,
        quantization: Some("4bit"),
        quantization_variants: &[],
        quantization_method: Some("affine"),
        precision: Some("bf16"),
        format: Some("mlx"),
        arch: Some("flux"),
        modality: Some("image"),
        license: Some("apache-2.0"),
        base_model: Some("black-forest-labs/FLUX.1-schnell"),
        adapter_kind: Some("lora"),
        fused: Some(true),
        health: "damaged",
        problems: vec!["missing_file", "no_config"],
        present: true,
        pinned: false,
        detached: Some(false),
        size_bytes: Some(9_850_000_000),
        reclaimable_bytes: Some(1_100_000_000),
        params: Some(11_900_000_000),
        context_length: Some(512),
        used: Some(at("2026-01-31T10:00:00Z")),
        modified: Some(at("2025-03-01T00:00:00Z")),
        verified: Some(at("2026-01-30T00:00:00Z")),
        verdict: Some("pass"),
        checked: Some(at("2026-01-29T00:00:00Z")),
        integrity: Some("pass"),
        prompt_tps: Some(220.0),
        generation_tps: Some(19.5),
    })
}

fn holds(filter: &str, facts: &Facts<'_>) -> bool {
    let exprs = parse_exprs(filter).unwrap_or_else(|error| panic!("{error}"));
    exprs.iter().all(|expr| expr.matches(facts, now()))
}

fn refused(filter: &str) -> String {
    parse_exprs(filter).map(|exprs| format!("{exprs:?}")).unwrap_err().to_string()
}

fn set(args: &FilterArgs) -> FilterSet {
    FilterSet::parse(args).unwrap_or_else(|error| panic!("{error}"))
}
