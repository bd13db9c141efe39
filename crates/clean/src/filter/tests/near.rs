use super::*;
use crate::filter::{near_misses, nearest};

fn told(fill: impl FnOnce(&mut FilterArgs)) -> Vec<String> {
    let mut args = FilterArgs::default();
    fill(&mut args);
    let tags = words(&["flux", "flux-dev", "chat"]);
    let all = [
        Facts {
            model: "a",
            repo_id: Some("org/flux-dev"),
            tags: &tags,
            quantization: Some("4bit"),
            format: Some("mlx"),
            store: "hub=/m",
            ..Facts::default()
        },
        Facts { model: "phi-3", quantization: Some("bf16"), store: "folder=/x", ..Facts::default() },
    ];
    near_misses(&set(&args), &all, &[], now()).iter().map(ToString::to_string).collect()
}

#[test]
fn a_value_that_no_model_has_is_named_with_its_like() {
    assert_eq!(
        told(|args| args.tags = words(&["fluxx"])),
        ["tag \"fluxx\": no model has it; near: flux, flux-dev"]
    );
    assert_eq!(
        told(|args| args.models = words(&["flux-dav", "a"])),
        ["model \"flux-dav\": no model has it; near: org/flux-dev"]
    );
    assert_eq!(
        told(|args| args.quantization = words(&["4bits2"])),
        ["quantization \"4bits2\": no model has it; near: 4bit"]
    );
    assert_eq!(told(|args| args.stores = words(&["folder=/y"])).len(), 1);
    assert_eq!(
        told(|args| args.filters = words(&["format=mlxx"])),
        ["format \"mlxx\": no model has it; near: mlx"]
    );
    assert_eq!(
        told(|args| args.filters = words(&["tags=flix"]))[0],
        "tags \"flix\": no model has it; near: flux"
    );
}

#[test]
fn without_a_like_some_of_what_there_is_is_named() {
    assert_eq!(
        told(|args| args.tags = words(&["zzz"])),
        ["tag \"zzz\": no model has it; there is: chat, flux, flux-dev"]
    );
    assert_eq!(
        told(|args| args.filters = words(&["arch=llama"])),
        ["arch \"llama\": no model has it; no model has any"]
    );
}

#[test]
fn values_that_some_model_has_are_no_miss() {
    assert!(
        told(|args| {
            args.models = words(&["phi-3"]);
            args.tags = words(&["flux"]);
            args.filters = words(&["format=mlx", "size>5GB", "format!=gguf"]);
        })
        .is_empty()
    );
}

#[test]
fn likeness_is_of_letters_or_of_parts() {
    let names = ["size", "used", "store", "reclaimable"];
    assert_eq!(nearest("sise", names, 3), ["size"]);
    assert_eq!(nearest("reclaim", names, 3), ["reclaimable"]);
    assert!(nearest("xyz", names, 3).is_empty());
    assert!(nearest("**", names, 3).is_empty());
    assert_eq!(nearest("tag", ["tag1", "tag2", "tag3", "tag4"], 2).len(), 2);
}
