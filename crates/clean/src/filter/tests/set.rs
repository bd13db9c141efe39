use super::*;
use crate::filter::normalize_quantization;

fn only(fill: impl FnOnce(&mut FilterArgs)) -> FilterSet {
    let mut args = FilterArgs::default();
    fill(&mut args);
    set(&args)
}

fn flux_matches(fill: impl FnOnce(&mut FilterArgs)) -> bool {
    let set = only(fill);
    with_flux(|flux| set.matches(&flux, now()))
}

#[test]
fn no_filter_is_empty_and_matches_all() {
    let set = set(&FilterArgs::default());
    assert!(set.is_empty());
    assert!(with_flux(|flux| set.matches(&flux, now())));
    assert!(!only(|args| args.missing_only = true).is_empty());
    assert!(!only(|args| args.tags = words(&["x"])).is_empty());
}

#[test]
fn models_match_by_every_name_they_have() {
    let names = [
        ("flux-schnell-4bit", true),
        ("FLUX-Schnell-4bit", true),
        ("flux-schnell", false),
        ("mzbac/flux1.schnell.4bit.mlx", true),
        ("flux1.schnell.4bit.mlx", true),
        ("*flux*", true),
        ("*bac*", true),
        ("mzbac/*", true),
        ("*/flux1", false),
        ("flux1.schnell.4bit.mlx@main", true),
        ("flux1.schnell.4bit.mlx@other", false),
        ("flux-schnell-4bit@0123", true),
        ("flux-schnell-4bit@012", false),
        ("flux-schnell-4bit@0123456789ABCDEF0123456789abcdef01234567", true),
        ("*flux*@v?", true),
        ("@main", false),
        ("flux-schnell-4bit@", false),
    ];
    for (name, wanted) in names {
        assert_eq!(flux_matches(|args| args.models = words(&[name])), wanted, "{name}");
    }
}

#[test]
fn a_star_beside_a_slash_stays_in_its_component() {
    let set = only(|args| args.models = words(&["org/*"]));
    let named = |model| Facts { model, ..Facts::default() };
    assert!(set.matches(&named("org/a"), now()));
    assert!(!set.matches(&named("org/a/b"), now()));
}

#[test]
fn one_value_of_a_kind_is_enough_and_every_kind_must_hold() {
    assert!(flux_matches(|args| args.tags = words(&["audio", "FLUX"])));
    assert!(flux_matches(|args| args.tags = words(&["ima*"])));
    assert!(!flux_matches(|args| args.tags = words(&["audio"])));
    assert!(flux_matches(|args| args.fused_only = true));
    assert!(!flux_matches(|args| args.missing_only = true));
    assert!(!flux_matches(|args| {
        args.tags = words(&["flux"]);
        args.quantization = words(&["8bit"]);
    }));
    assert!(flux_matches(|args| {
        args.tags = words(&["flux"]);
        args.quantization = words(&["8bit", "q4"]);
        args.filters = words(&["size>5GB", "!pinned"]);
    }));
    assert!(!flux_matches(|args| args.filters = words(&["size>5GB", "pinned"])));
    let gone = Facts::default();
    assert!(only(|args| args.missing_only = true).matches(&gone, now()));
    assert!(!only(|args| args.fused_only = true).matches(&gone, now()), "not known is not fused");
}

#[test]
fn stores_match_by_kind_path_and_both() {
    let stores = [
        ("hub", true),
        ("HUB", true),
        ("hub=/models/hub", true),
        ("hub=/models/hub/", true),
        ("/models/hub", true),
        ("/models/hub/", true),
        ("/models", false),
        ("/models/*", true),
        ("*hub", true),
        ("hub=*", true),
        ("ollama=*", false),
        ("/MODELS/hub", false),
    ];
    for (store, wanted) in stores {
        assert_eq!(flux_matches(|args| args.stores = words(&[store])), wanted, "{store}");
    }
}

#[test]
fn quantization_labels_have_one_spelling() {
    let spellings: [(&str, &[&str]); 6] = [
        ("4bit", &["4bit", "4-bit", "4_bits", "4 Bit", "INT4", "int-4", "q4", "w4", "4"]),
        ("f16", &["f16", "fp16", "FP-16", "float16", "half"]),
        ("bf16", &["bf16", "BFloat16"]),
        ("f32", &["f32", "fp32", "float32"]),
        ("mixed-4-8bit", &["mixed-4-8bit", "mixed_4_8", "Mixed 4 8 bit", "mixed-4-8-bit"]),
        ("q4-k-m", &["Q4_K_M", "q4-k-m"]),
    ];
    for (label, given) in spellings {
        for spelling in given {
            assert_eq!(normalize_quantization(spelling), label, "{spelling}");
            assert_eq!(normalize_quantization(label), label);
        }
    }
    for own in ["mxfp4", "nvfp4", "fp8", "mixed", "quantized", "100bit", ""] {
        assert_eq!(normalize_quantization(own), own);
    }
    let asks = |wanted: &str, label| {
        let facts = Facts { quantization: Some(label), ..Facts::default() };
        only(|args| args.quantization = words(&[wanted])).matches(&facts, now())
    };
    assert!(asks("mixed", "mixed_4_8") && asks("mixed", "mixed"));
    assert!(!asks("mixed", "4bit") && !asks("4bit", "mixed-4-8bit") && !asks("4bit", "Q4_K_M"));
    assert!(asks("q4_*", "Q4_K_M") && asks("*bit", "int8") && asks("mixed*", "mixed-2-6"));
}

#[test]
fn an_empty_or_malformed_value_is_refused() {
    type Fill = fn(&mut FilterArgs, Vec<String>);
    let kinds: [(&str, Fill); 5] = [
        ("--models", |args, values| args.models = values),
        ("--tags", |args, values| args.tags = values),
        ("--quantization", |args, values| args.quantization = values),
        ("--store", |args, values| args.stores = values),
        ("--filter", |args, values| args.filters = values),
    ];
    for (option, fill) in kinds {
        for value in ["", " ", "[x"] {
            let mut args = FilterArgs::default();
            fill(&mut args, words(&["model", value][usize::from(option == "--filter")..]));
            let message = FilterSet::parse(&args).unwrap_err().to_string();
            assert!(message.starts_with(option), "{message}");
        }
    }
}

#[test]
fn what_was_given_survives_json_and_is_told_in_words() {
    let set = only(|args| {
        args.models = words(&["*flux*", "phi"]);
        args.missing_only = true;
        args.filters = words(&["size > 5GB and !pinned"]);
    });
    let json = serde_json::to_string(set.args()).unwrap();
    assert_eq!(
        json,
        r#"{"models":["*flux*","phi"],"missing_only":true,"filters":["size > 5GB and !pinned"]}"#
    );
    let again: FilterArgs = serde_json::from_str(&json).unwrap();
    assert_eq!(again, *set.args());
    assert_eq!(
        set.describe(),
        ["model is *flux* or phi", "its files are missing", "size>5GB", "pinned=false"]
    );
}

#[test]
fn a_directory_of_several_quantizations_has_each_of_them() {
    let variants = ["Q4_K_M".to_owned(), "Q8_0".to_owned()];
    let facts = Facts { model: "m", quantization_variants: &variants, ..Facts::default() };
    let set = |label: &str| {
        FilterSet::parse(&FilterArgs { quantization: vec![label.to_owned()], ..FilterArgs::default() })
            .unwrap()
    };
    assert!(set("q4_k_m").matches(&facts, Utc::now()) && set("Q8_0").matches(&facts, Utc::now()));
    assert!(!set("4bit").matches(&facts, Utc::now()));
}
