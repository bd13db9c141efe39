use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};

use mlxman_testkit::safetensors::{Dtype, Tensor, encode};
use mlxman_testkit::{Files, ModelSpec, Quant, write_files};
use proptest::prelude::*;

use super::*;
use crate::formats::safetensors::SafetensorsHeader;

fn weights(spec: &ModelSpec) -> Files {
    spec.files().into_iter().filter(|(path, _)| path.ends_with(".safetensors")).collect()
}

fn header(bytes: &[u8]) -> SafetensorsHeader {
    SafetensorsHeader::read(&mut &*bytes, bytes.len() as u64).unwrap()
}

/// Flips a bit of the tensor's byte, counted from its end where `byte` is negative.
fn flip(files: &mut Files, tensor: &str, byte: i64) {
    for (_, bytes) in files {
        let header = header(bytes);
        if let Some(info) = header.tensors.iter().find(|info| &*info.name == tensor) {
            let from = if byte < 0 { info.end } else { info.begin };
            let at = (8 + header.header_len + from).checked_add_signed(byte).unwrap();
            bytes[at as usize] ^= 1;
            return;
        }
    }
    panic!("no tensor {tensor}");
}

fn changed(spec: &ModelSpec, tensors: &[&str]) -> Files {
    let mut files = weights(spec);
    tensors.iter().for_each(|tensor| flip(&mut files, tensor, 0));
    files
}

/// The files on the disk, as a side. They outlive their directory: they are open.
fn side<'a>(name: &'a str, files: &Files) -> Side<'a> {
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path(), files);
    let open = |(path, _): &(String, Vec<u8>)| {
        let file = fs_err::File::open(dir.path().join(path)).unwrap().into_file();
        let metadata = file.metadata().unwrap();
        let identity = (metadata.dev(), metadata.ino());
        SideFile { path: path.clone(), file, identity, blob: None, blake3: None }
    };
    Side { name, revision: Some("0123"), files: files.iter().map(open).collect() }
}

fn try_compare(model: &Files, base: &Files) -> Result<Option<Comparison>, CompareError> {
    // Both at once, or the filesystem could give the second the inodes of the first.
    compare(&side("acme/model", model), &side("acme/base", base), &|_| true)
}

fn verdict(model: &Files, base: &Files) -> Comparison {
    try_compare(model, base).unwrap().unwrap()
}

fn summary(model: &Files, base: &Files) -> String {
    verdict(model, base).summary
}

const SPEC: fn() -> ModelSpec = || ModelSpec::llama().layers(9);
const FOUR_BIT: Quant = Quant::Affine { bits: 4, group: 64 };

#[test]
fn copies_are_identical() {
    let files = weights(&SPEC());
    let found = verdict(&files, &files);
    assert_eq!(
        found,
        Comparison {
            base: "acme/base".to_owned(),
            base_revision: Some("0123".to_owned()),
            identical: true,
            summary: "identical to its base".to_owned(),
            differing_tensors: 0,
            compared_tensors: 9 * 9 + 3,
            unmatched_tensors: 0,
            modules: Vec::new(),
            layers: Vec::new(),
        }
    );
}

#[test]
fn sharding_does_not_matter() {
    let (one, five) = (weights(&SPEC()), weights(&SPEC().shards(5)));
    assert_eq!(five.len(), 5);
    assert!(verdict(&one, &five).identical);
    assert!(verdict(&five, &one).identical);
    let fused = changed(&SPEC().shards(3), &["model.layers.8.self_attn.q_proj.weight"]);
    assert_eq!(summary(&fused, &five), "differs in q_proj of layer 8");
}

#[test]
fn a_projection_that_differs_everywhere_differs_in_all_layers() {
    for quant in [Quant::Bf16, FOUR_BIT, Quant::Mxfp4] {
        let spec = SPEC().quant(quant);
        let mut files = weights(&spec);
        for layer in 0..9 {
            flip(&mut files, &format!("model.layers.{layer}.self_attn.q_proj.weight"), 5);
            flip(&mut files, &format!("model.layers.{layer}.self_attn.v_proj.weight"), -1);
            if quant != Quant::Bf16 {
                flip(&mut files, &format!("model.layers.{layer}.self_attn.v_proj.scales"), 0);
            }
        }
        let found = verdict(&files, &weights(&spec));
        assert_eq!(found.summary, "differs in q_proj, v_proj of all layers");
        assert_eq!(found.modules, ["q_proj", "v_proj"]);
        assert_eq!(found.layers, (0..9).collect::<Vec<_>>());
        assert!(!found.identical);
        assert_eq!(found.differing_tensors, if quant == Quant::Bf16 { 18 } else { 27 });
    }
}

#[test]
fn layers_are_named_where_only_some_differ() {
    let base = weights(&SPEC());
    let q = |layers: &[u64]| -> Vec<String> {
        layers.iter().map(|layer| format!("model.layers.{layer}.self_attn.q_proj.weight")).collect()
    };
    let with = |names: &[String], more: &[&str]| {
        let names: Vec<&str> = names.iter().map(String::as_str).chain(more.iter().copied()).collect();
        summary(&changed(&SPEC(), &names), &base)
    };
    assert_eq!(with(&q(&[0, 1, 2, 3, 7]), &[]), "differs in q_proj of layers 0-3 and 7");
    assert_eq!(with(&q(&[0, 2, 3, 7, 8]), &[]), "differs in q_proj of layers 0, 2-3 and 7-8");
    assert_eq!(with(&[], &["lm_head.weight"]), "differs in lm_head");
    assert_eq!(with(&[], &["lm_head.weight", "model.norm.weight"]), "differs in lm_head, norm");
    assert_eq!(
        with(&q(&(0..9).collect::<Vec<_>>()), &["lm_head.weight"]),
        "differs in q_proj of all layers and in lm_head"
    );
    assert_eq!(
        with(
            &q(&[4]),
            &["lm_head.weight", "model.layers.4.mlp.up_proj.weight", "model.layers.5.mlp.up_proj.weight"]
        ),
        "differs in q_proj of layer 4, in up_proj of layers 4-5 and in lm_head"
    );
}

#[test]
fn long_lists_are_counted() {
    let spec = ModelSpec::llama().layers(18);
    let every_second: Vec<String> =
        (0..9).map(|i| format!("model.layers.{}.mlp.up_proj.weight", 2 * i)).collect();
    let names: Vec<&str> = every_second.iter().map(String::as_str).collect();
    assert_eq!(summary(&changed(&spec, &names), &weights(&spec)), "differs in up_proj of 9 of 18 layers");

    let mut files = weights(&spec);
    for part in ["q", "k", "v", "o"] {
        flip(&mut files, &format!("model.layers.3.self_attn.{part}_proj.weight"), 0);
    }
    for part in ["gate", "up", "down"] {
        flip(&mut files, &format!("model.layers.3.mlp.{part}_proj.weight"), 0);
    }
    flip(&mut files, "lm_head.weight", 0);
    let found = verdict(&files, &weights(&spec));
    assert_eq!(found.summary, "differs in 8 of 12 kinds of tensors");
    assert_eq!(found.modules.len(), 8);
    assert_eq!(found.layers, [3]);
}

#[test]
fn another_model_differs_in_every_tensor() {
    let found = verdict(&weights(&SPEC().seed(1)), &weights(&SPEC()));
    assert_eq!(found.summary, "differs in every tensor");
    assert_eq!(found.differing_tensors, found.compared_tensors);
}

#[test]
fn the_last_byte_counts() {
    let base = weights(&SPEC());
    let last = header(&base[0].1).tensors.last().unwrap().name.clone();
    let mut files = base.clone();
    flip(&mut files, &last, -1);
    let found = verdict(&files, &base);
    assert!(!found.identical);
    assert_eq!(found.differing_tensors, 1);

    // And in a tensor that is read in several pieces, at their borders.
    let len = 2 * read::CHUNK + 3;
    let big = |at: Option<usize>| -> Files {
        let mut bytes = vec![7; len];
        if let Some(at) = at {
            bytes[at] = 8;
        }
        vec![(
            "a.safetensors".to_owned(),
            encode(&[Tensor::new("a", Dtype::U8, &[1, len]).bytes(bytes)], &[]),
        )]
    };
    assert!(verdict(&big(None), &big(None)).identical);
    for at in [0, read::CHUNK - 1, read::CHUNK, 2 * read::CHUNK, len - 1] {
        assert!(!verdict(&big(Some(at)), &big(None)).identical, "byte {at}");
    }
}

#[test]
fn models_of_other_quantizations_are_not_compared() {
    let quants = [
        Quant::Bf16,
        Quant::F32,
        FOUR_BIT,
        Quant::Affine { bits: 8, group: 64 },
        Quant::Affine { bits: 4, group: 32 },
        Quant::Mxfp4,
        Quant::Mxfp8,
    ];
    for model in quants {
        for base in quants {
            let found = try_compare(&weights(&SPEC().quant(model)), &weights(&SPEC().quant(base))).unwrap();
            assert_eq!(found.is_some(), model == base, "{model:?} and {base:?}");
        }
    }
    assert_eq!(try_compare(&Files::new(), &weights(&SPEC())).unwrap(), None);
    // GPTQ leaves the embedding and the head as they are, and its other weights have other names.
    let gptq: Files =
        mlxman_testkit::gptq(0).into_iter().filter(|(path, _)| path.ends_with(".safetensors")).collect();
    assert_eq!(try_compare(&gptq, &weights(&ModelSpec::llama().quant(Quant::F16))).unwrap(), None);
}

#[test]
fn layers_that_are_quantized_otherwise_have_no_counterpart() {
    let mixed = weights(&SPEC().quant(Quant::Mixed { low: 4, high: 8 }));
    let found = verdict(&mixed, &weights(&SPEC().quant(FOUR_BIT)));
    // Weight, scales and biases of 9 v_proj, the embedding and the head, though their scales have the same shape.
    assert_eq!(found.unmatched_tensors, 3 * 11);
    assert!(!found.identical);
    assert_eq!(found.compared_tensors, 6 * 9 * 3 + 2 * 9 + 1);
}

#[test]
fn what_only_one_has_is_counted() {
    let (tied, base) = (weights(&SPEC().tied(true)), weights(&SPEC()));
    let found = verdict(&tied, &base);
    assert!(!found.identical);
    assert_eq!(
        found.summary,
        "the same as its base in every tensor that both have; 1 tensor has no counterpart"
    );
    assert_eq!(verdict(&base, &tied).summary, found.summary);
    let fewer = ModelSpec::llama().layers(8);
    let q = "model.layers.0.self_attn.q_proj.weight";
    assert_eq!(
        summary(&changed(&fewer, &[q]), &base),
        "differs in q_proj of layer 0; 9 tensors have no counterpart"
    );
    // A bias that was added leaves the weights comparable.
    let (biased, plain) = (weights(&ModelSpec::new("qwen2")), weights(&ModelSpec::new("llama")));
    let found = verdict(&biased, &plain);
    assert_eq!((found.differing_tensors, found.unmatched_tensors), (0, 6));
}

fn file(path: &str, tensors: &[(&str, u8)]) -> (String, Vec<u8>) {
    let tensor = |(name, byte): &(&str, u8)| Tensor::new(*name, Dtype::U8, &[2, 2]).bytes([*byte; 4]);
    let tensors: Vec<Tensor> = tensors.iter().map(tensor).collect();
    (path.to_owned(), encode(&tensors, &[]))
}

#[test]
fn parts_of_one_name_are_told_apart() {
    let names = [
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.1.mlp.experts.0.up_proj.weight",
        "model.layers.1.mlp.experts.1.up_proj.weight",
        "model.layers.1.mlp.shared_experts.up_proj.weight",
        "model.layers.1.mlp.gate.weight",
        "lm_head.weight",
    ];
    let with = |other: &str| {
        let tensors: Vec<(&str, u8)> = names.iter().map(|name| (*name, u8::from(*name == other))).collect();
        vec![file("model.safetensors", &tensors)]
    };
    let found = |other: &str| summary(&with(other), &with(""));
    assert_eq!(found(names[0]), "differs in mlp.up_proj of all layers");
    assert_eq!(found(names[2]), "differs in experts.up_proj of all layers");
    assert_eq!(found(names[3]), "differs in shared_experts.up_proj of all layers");
    assert_eq!(found(names[4]), "differs in gate of all layers");
    assert_eq!(found(names[5]), "differs in lm_head");
}

#[test]
fn components_are_told_apart() {
    let pipeline = |second: u8| {
        vec![
            file("text_encoder/model.safetensors", &[("layers.0.q_proj.weight", 1), ("norm.weight", 1)]),
            file("text_encoder_2/model.safetensors", &[("layers.0.q_proj.weight", second)]),
        ]
    };
    let base = pipeline(1);
    assert!(verdict(&base, &base).identical);
    assert_eq!(summary(&pipeline(2), &base), "differs in text_encoder_2.layers.q_proj of all layers");
}

#[test]
fn copies_in_one_directory_are_not_guessed_at() {
    let base = vec![file("model.safetensors", &[("a", 1), ("b", 1)])];
    let mut twice = base.clone();
    twice.push(file("model-00001-of-00001.safetensors", &[("b", 2)]));
    let found = verdict(&twice, &base);
    assert!(!found.identical);
    assert_eq!((found.compared_tensors, found.unmatched_tensors), (1, 2));
    assert!(verdict(&twice, &twice).identical);
}

#[test]
fn names_that_steer_a_terminal_are_escaped() {
    let with = |byte| vec![file("model.safetensors", &[("a\u{1b}[2J", byte), (&"b".repeat(200), 1)])];
    assert_eq!(summary(&with(2), &with(1)), "differs in a\\u{1b}[2J");
    let long = |byte| vec![file("model.safetensors", &[("a", 1), (&"b".repeat(200), byte)])];
    assert_eq!(summary(&long(2), &long(1)), format!("differs in {}…", "b".repeat(80)));
}

#[test]
fn broken_files_are_named() {
    let base = weights(&SPEC().shards(2));
    let mut short = base.clone();
    let whole = short[1].1.len() as u64;
    short[1].1.pop();
    let error = try_compare(&short, &base).unwrap_err();
    assert!(matches!(&error, CompareError::Truncated { expected, .. } if *expected == whole), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "model-00002-of-00002.safetensors of acme/model is truncated: its header promises {whole} bytes and it \
             has {}",
            whole - 1
        )
    );
    let error = try_compare(&base, &short).unwrap_err();
    assert!(matches!(&error, CompareError::Truncated { model, .. } if model == "acme/base"), "{error:?}");

    let text = vec![("x.safetensors".to_owned(), b"<!DOCTYPE html>".to_vec())];
    let error = try_compare(&base, &text).unwrap_err();
    assert!(matches!(&error, CompareError::Header { path, .. } if path == "x.safetensors"), "{error:?}");

    let json = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,3]}}"#;
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.extend_from_slice(b"123");
    let error = try_compare(&vec![("x.safetensors".to_owned(), bytes)], &base).unwrap_err();
    assert!(matches!(&error, CompareError::Flawed { path, .. } if path == "x.safetensors"), "{error:?}");
}

#[test]
fn a_file_that_shrinks_meanwhile_is_an_error() {
    let files = weights(&SPEC());
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path(), &files);
    let path = dir.path().join("model.safetensors");
    let open = |identity| {
        let file = fs_err::File::open(&path).unwrap().into_file();
        vec![SideFile { path: "model.safetensors".to_owned(), file, identity, blob: None, blake3: None }]
    };
    let model = Side { name: "acme/model", revision: None, files: open((0, 1)) };
    let base = Side { name: "acme/base", revision: None, files: open((0, 2)) };
    let step = |bytes: u64| {
        if bytes > 0 {
            fs_err::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
        }
        true
    };
    let error = compare(&model, &base, &step).unwrap_err();
    assert!(matches!(error, CompareError::Truncated { actual: 100, .. }), "{error:?}");
}

#[test]
fn an_interruption_is_no_verdict() {
    let files = weights(&SPEC());
    let (model, base) = (side("a", &files), side("b", &files));
    let at_once = compare(&model, &base, &|_| false);
    assert!(matches!(at_once, Err(CompareError::Interrupted)));
    let calls = AtomicU64::new(0);
    let later = compare(&model, &base, &|_| calls.fetch_add(1, Ordering::Relaxed) < 3);
    assert!(matches!(later, Err(CompareError::Interrupted)));
    // The same sides can be compared again.
    assert!(compare(&model, &base, &|_| true).unwrap().unwrap().identical);
}

#[test]
fn the_steps_add_up() {
    let (base, fused) = (weights(&SPEC()), changed(&SPEC(), &["lm_head.weight"]));
    let total = header(&base[0].1).data_len_expected();
    let steps = |model: &Side<'_>, base: &Side<'_>| {
        let sum = AtomicU64::new(0);
        compare(model, base, &|bytes| {
            sum.fetch_add(bytes, Ordering::Relaxed);
            true
        })
        .unwrap();
        sum.into_inner()
    };
    let (base, fused) = (side("b", &base), side("f", &fused));
    assert_eq!((steps(&fused, &base), steps(&base, &base)), (total, total));
}

#[test]
fn known_files_are_not_read() {
    // Both sides' data differs, so that only a comparison that does not read it finds them equal.
    let (files, other) = (weights(&SPEC()), changed(&SPEC(), &["lm_head.weight"]));
    let sides = || (side("a", &files), side("b", &other));
    let (mut model, mut base) = sides();
    let identical =
        |model: &Side<'_>, base: &Side<'_>| compare(model, base, &|_| true).unwrap().unwrap().identical;
    assert!(!identical(&model, &base));
    for hash in ["same", "other"] {
        base.files[0].blob = Some("same".to_owned());
        model.files[0].blob = Some(hash.to_owned());
        assert_eq!(identical(&model, &base), hash == "same");
    }
    let (mut model, mut base) = sides();
    model.files[0].blake3 = Some("same".to_owned());
    assert!(!identical(&model, &base));
    base.files[0].blake3 = Some("same".to_owned());
    assert!(identical(&model, &base));
    let (mut model, base) = sides();
    model.files[0].identity = base.files[0].identity;
    assert!(identical(&model, &base));
}

/// Tensors by name: type, shape, bytes.
type Content = BTreeMap<&'static str, (usize, Vec<usize>, Vec<u8>)>;

fn content() -> impl Strategy<Value = Content> {
    const NAMES: &[&str] = &[
        "lm_head.weight",
        "layers.0.q.weight",
        "layers.0.q.scales",
        "layers.0.q.bias",
        "layers.1.q.weight",
        "layers.10.q.weight",
        "norm",
        "0",
        "",
    ];
    let tensor = (0..3_usize, prop::collection::vec(0..4_usize, 0..3), any::<u8>()).prop_map(
        |(dtype, shape, byte)| {
            let len = shape.iter().product::<usize>() * [1, 2, 2][dtype];
            (dtype, shape, vec![byte; len])
        },
    );
    prop::collection::btree_map(prop::sample::select(NAMES), tensor, 1..9)
}

fn sharded(content: &Content, shards: usize) -> Files {
    let mut files = vec![Vec::new(); shards];
    for (i, (name, (dtype, shape, bytes))) in content.iter().enumerate() {
        let dtype = [Dtype::U8, Dtype::F16, Dtype::BF16][*dtype];
        files[i % shards].push(Tensor::new(*name, dtype, shape).bytes(bytes.clone()));
    }
    let encoded = |(i, tensors): (usize, &Vec<Tensor>)| (format!("{i}.safetensors"), encode(tensors, &[]));
    files.iter().enumerate().map(encoded).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn identical_means_byte_for_byte(
        base in content(),
        other in content(),
        edit in 0..4_u8,
        at in any::<prop::sample::Index>(),
        shards in (1..4_usize, 1..4_usize),
    ) {
        let mut model = base.clone();
        let name = *at.get(&base.keys().copied().collect::<Vec<_>>());
        match edit {
            0 => {}
            1 => {
                let bytes = &mut model.get_mut(name).unwrap().2;
                if !bytes.is_empty() {
                    let byte = at.index(bytes.len());
                    bytes[byte] ^= 0x80;
                }
            }
            2 => {
                model.remove(name);
            }
            _ => model.extend(other),
        }
        let found = try_compare(&sharded(&model, shards.0), &sharded(&base, shards.1)).unwrap();
        prop_assert_eq!(found.as_ref().is_some_and(|found| found.identical), model == base);
        if let Some(found) = found {
            let same_form = |name| model.get(name).is_some_and(|(dtype, shape, bytes)| {
                base.get(name).is_some_and(|other| (dtype, shape, bytes.len()) == (&other.0, &other.1, other.2.len()))
            });
            let differing = base.keys().filter(|name| same_form(*name) && model[*name].2 != base[*name].2).count();
            prop_assert!(found.differing_tensors <= differing as u64);
            prop_assert!(found.compared_tensors >= 1);
            prop_assert_eq!(found.identical, found.summary == "identical to its base");
        }
    }
}
