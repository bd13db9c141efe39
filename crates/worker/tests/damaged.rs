//! Models with something wrong: each is told what, and the worker goes on to the next.
#![cfg(feature = "mlx")]

mod support;

use std::path::Path;

use mlxman_testkit::safetensors::{Dtype, Fill, Tensor, encode};
use mlxman_testkit::{Golden, write_files};
use mlxman_verify::protocol::{DtypeChoice, FailureKind, Level, Question};
use serde_json::{Value, json};
use support::Worker;

/// A llama whose files were changed by `change`.
fn model(dir: &Path, change: impl FnOnce(&mut Value, &mut Vec<Tensor>)) {
    let golden = Golden::named("llama-f32").expect("a golden");
    let mut config = golden.config.clone();
    let mut tensors = golden.tensors();
    change(&mut config, &mut tensors);
    let config = serde_json::to_vec(&config).expect("JSON");
    let weights = encode(&tensors, &[("format", "mlx")]);
    write_files(dir, &[("config.json".to_owned(), config), ("model.safetensors".to_owned(), weights)]);
}

fn tensor<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    tensors.iter_mut().find(|tensor| tensor.name == name).expect("the tensor")
}

/// Sets every number of a tensor.
fn fill(tensor: &mut Tensor, number: f32) {
    let bytes: Vec<u8> = (0..tensor.elements()).flat_map(|_| number.to_le_bytes()).collect();
    tensor.fill = Fill::Bytes(bytes);
}

/// Asks about a model with that change, and gives what failed, at what level, and how that was told.
fn failure(change: impl FnOnce(&mut Value, &mut Vec<Tensor>)) -> (FailureKind, Option<Level>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let (bad, good) = (dir.path().join("bad"), dir.path().join("good"));
    model(&bad, change);
    model(&good, |_, _| {});
    let mut worker = Worker::start();
    let report = worker.ask(&bad, DtypeChoice::Auto, None);
    let failure = report.failure.expect("a failure");
    let after = worker.ask(&good, DtypeChoice::Auto, None);
    assert_eq!((after.failure, after.level), (None, Some(Level::Generate)), "the worker is well afterwards");
    (failure.kind, report.level, failure.message)
}

#[test]
fn nan_in_weights() {
    let name = "model.layers.1.mlp.up_proj.weight";
    let (kind, level, message) = failure(|_, tensors| fill(tensor(tensors, name), f32::NAN));
    assert_eq!((kind, level), (FailureKind::NotFiniteWeights, None));
    assert!(message.contains("up_proj"), "{message}");
}

#[test]
fn numbers_too_great_to_compute_with() {
    let (kind, level, _) = failure(|_, tensors| {
        for name in ["model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"] {
            fill(tensor(tensors, name), 3e38);
        }
    });
    assert_eq!((kind, level), (FailureKind::NotFiniteLogits, Some(Level::Load)));
}

#[test]
fn a_tensor_of_another_shape() {
    let name = "model.layers.0.self_attn.k_proj.weight";
    let (kind, _, message) = failure(|_, tensors| {
        let narrow = Tensor::new(name, Dtype::F32, &[16, 64]);
        *tensor(tensors, name) = narrow;
    });
    assert_eq!(kind, FailureKind::WrongShape);
    assert!(message.contains(name) && message.contains("[16, 64]"), "{message}");
}

#[test]
fn numbers_that_are_not_floating() {
    let name = "model.layers.0.mlp.up_proj.weight";
    for dtype in [Dtype::U8, Dtype::I32] {
        let (kind, level, message) = failure(|_, tensors| {
            let shape = tensor(tensors, name).shape.clone();
            *tensor(tensors, name) = Tensor::new(name, dtype, &shape).random(3, 1.0, 9.0);
        });
        assert_eq!((kind, level), (FailureKind::WrongShape, None));
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn nan_in_what_the_architecture_does_not_use() {
    let (kind, level, message) = failure(|_, tensors| {
        let mut extra = Tensor::new("vision_tower.patch.weight", Dtype::F32, &[8, 8]);
        fill(&mut extra, f32::NAN);
        tensors.push(extra);
    });
    assert_eq!((kind, level), (FailureKind::NotFiniteWeights, None));
    assert!(message.contains("vision_tower"), "{message}");
}

#[test]
fn a_tensor_that_is_not_there() {
    let name = "model.norm.weight";
    let (kind, _, message) = failure(|_, tensors| tensors.retain(|tensor| tensor.name != name));
    assert_eq!(kind, FailureKind::MissingTensor);
    assert!(message.contains(name), "{message}");
}

#[test]
fn an_infinite_number_that_nobody_needs() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut worker = Worker::start();
    let mut ask = |key: &str| {
        model(dir.path(), |config, _| config[key] = json!("HERE"));
        let path = dir.path().join("config.json");
        let text = fs_err::read_to_string(&path).expect("a config");
        fs_err::write(&path, text.replace("\"HERE\"", "Infinity")).expect("written");
        worker.ask(dir.path(), DtypeChoice::Auto, None)
    };
    let report = ask("initializer_range");
    assert_eq!((report.failure, report.level), (None, Some(Level::Generate)));
    let failure = ask("rope_theta").failure.expect("a failure");
    assert_eq!(failure.kind, FailureKind::BadConfig);
    assert!(failure.message.contains("rope_theta") && failure.message.contains("Infinity"), "{failure:?}");
}

#[test]
fn a_billion_layers() {
    let (kind, _, message) = failure(|config, _| config["num_hidden_layers"] = json!(1_000_000_000));
    assert_eq!(kind, FailureKind::BadConfig);
    assert!(message.contains("num_hidden_layers"), "{message}");
}

#[test]
fn more_layers_than_there_are() {
    let (kind, _, message) = failure(|config, _| config["num_hidden_layers"] = json!(4000));
    assert_eq!(kind, FailureKind::MissingTensor);
    assert!(message.contains("model.layers."), "{message}");
}

#[test]
fn a_head_of_zeros() {
    let (kind, level, message) = failure(|config, tensors| {
        let name =
            if config["tie_word_embeddings"] == json!(true) { "model.embed_tokens" } else { "lm_head" };
        fill(tensor(tensors, &format!("{name}.weight")), 0.0);
    });
    assert_eq!((kind, level), (FailureKind::Degenerate, Some(Level::Load)));
    assert!(message.contains("whatever it is told"), "{message}");
}

#[test]
fn a_file_that_is_cut_short_or_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cut, none) = (dir.path().join("cut"), dir.path().join("none"));
    model(&cut, |_, _| {});
    let file = cut.join("model.safetensors");
    let bytes = fs_err::read(&file).expect("the weights");
    fs_err::write(&file, &bytes[..bytes.len() / 2]).expect("cut");
    model(&none, |_, _| {});
    fs_err::write(none.join("model.safetensors"), b"not a safetensors file at all").expect("written");
    let mut worker = Worker::start();
    for place in [&cut, &none] {
        let report = worker.ask(place, DtypeChoice::Auto, None);
        let failure = report.failure.expect("a failure");
        assert!([FailureKind::BadFile, FailureKind::Engine].contains(&failure.kind), "{failure:?}");
        // Where in somebody's sources MLX and its bindings said so is of no use to anybody here.
        for source in [".cpp", ".rs", ".cargo", " at ", "\""] {
            assert!(!failure.message.contains(source), "{source} is in: {}", failure.message);
        }
        assert_eq!(report.level, None);
    }
}

#[test]
fn a_pipe_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut worker = Worker::start();
    for name in ["config.json", "model.safetensors"] {
        let place = dir.path().join(name);
        model(&place, |_, _| {});
        fs_err::remove_file(place.join(name)).expect("it goes");
        let made = std::process::Command::new("mkfifo").arg(place.join(name)).status();
        assert!(made.is_ok_and(|status| status.success()));
        let failure = worker.ask(&place, DtypeChoice::Auto, None).failure.expect("a failure");
        assert_eq!(failure.kind, FailureKind::BadFile);
        assert!(failure.message.contains(name) && failure.message.contains("no file"), "{failure:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_directory_whose_name_is_no_utf8() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join(std::ffi::OsStr::from_bytes(b"llama-\xff"));
    model(&place, |_, _| {});
    let report = Worker::start().ask(&place, DtypeChoice::Auto, None);
    assert_eq!((report.failure, report.level), (None, Some(Level::Generate)));
}

#[test]
fn what_is_no_language_model_is_read_tensor_by_tensor() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("pipeline");
    let weights = |names: &[&str]| {
        let tensors: Vec<Tensor> =
            names.iter().map(|name| Tensor::new(*name, Dtype::F32, &[4, 4]).random(1, -1.0, 1.0)).collect();
        encode(&tensors, &[])
    };
    let files = vec![
        ("model_index.json".to_owned(), b"{}".to_vec()),
        ("transformer/model.safetensors".to_owned(), weights(&["a", "b"])),
        ("vae/model.safetensors".to_owned(), weights(&["c"])),
    ];
    write_files(&place, &files);
    let mut worker = Worker::start();
    let report = worker.ask(&place, DtypeChoice::Auto, None);
    assert_eq!((report.failure, report.level, report.tensors), (None, Some(Level::Load), 3));
    assert!(report.instead.is_some_and(|what| what.contains("transformer") && what.contains("vae")));
    let bert = dir.path().join("bert");
    write_files(
        &bert,
        &[
            ("config.json".to_owned(), br#"{"model_type": "bert"}"#.to_vec()),
            ("model.safetensors".to_owned(), weights(&["embeddings.weight"])),
        ],
    );
    let report = worker.ask(&bert, DtypeChoice::Auto, None);
    assert_eq!((report.failure, report.level), (None, Some(Level::Load)));
    assert_eq!(report.unknown_architecture.as_deref(), Some("bert"));
}

#[test]
fn an_adapter_is_laid_over_its_base() {
    let dir = tempfile::tempdir().expect("a directory");
    let (base, adapter) = (dir.path().join("base"), dir.path().join("adapter"));
    model(&base, |_, _| {});
    let name = "model.layers.0.self_attn.q_proj";
    let lora = |rank: usize, output: usize| {
        let low = Tensor::new(format!("{name}.lora_a"), Dtype::F32, &[64, rank]).random(7, -1.0, 1.0);
        let high = Tensor::new(format!("{name}.lora_b"), Dtype::F32, &[rank, output]).random(8, -1.0, 1.0);
        encode(&[low, high], &[])
    };
    let config = br#"{"fine_tune_type": "lora", "lora_parameters": {"rank": 4, "scale": 2.0}}"#.to_vec();
    let files = |weights| {
        vec![("adapter_config.json".to_owned(), config.clone()), ("adapters.safetensors".to_owned(), weights)]
    };
    write_files(&adapter, &files(lora(4, 64)));
    let question = Some(Question { prompt_ids: vec![1, 2, 3], logits_head: 16, greedy: 2 });
    let mut worker = Worker::start();
    let plain = worker.ask(&base, DtypeChoice::Auto, question.clone());
    let tuned = worker.ask_over(&base, Some(&adapter), DtypeChoice::Auto, question.clone());
    assert_eq!(tuned.failure, None);
    let logits = |report: mlxman_verify::protocol::Report| report.answers.expect("answers").logits_head;
    assert_ne!(logits(plain), logits(tuned));
    write_files(&adapter, &files(lora(4, 63)));
    let wrong = worker.ask_over(&base, Some(&adapter), DtypeChoice::Auto, question);
    assert_eq!(wrong.failure.map(|failure| failure.kind), Some(FailureKind::WrongShape));
}

#[test]
fn an_adapter_of_another_kind_is_read_and_no_failure() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = dir.path().join("base");
    model(&base, |_, _| {});
    let q = "model.layers.0.self_attn.q_proj";
    let one = |name: &str, shape: &[usize]| Tensor::new(name, Dtype::F32, shape).random(7, -1.0, 1.0);
    let lora = json!({"fine_tune_type": "lora", "lora_parameters": {"rank": 4, "scale": 2.0}});
    let ia3 = json!({"peft_type": "IA3"});
    let mut worker = Worker::start();
    let mut ask = |name: &str, config: &Value, tensors: &[Tensor]| {
        let adapter = dir.path().join(name);
        let files = vec![
            ("adapter_config.json".to_owned(), config.to_string().into_bytes()),
            ("adapters.safetensors".to_owned(), encode(tensors, &[])),
        ];
        write_files(&adapter, &files);
        worker.ask_over(&base, Some(&adapter), DtypeChoice::Auto, None)
    };
    let norm = "model.layers.0.input_layernorm";
    for (name, config, tensors, word) in [
        ("ia3", &ia3, vec![one(&format!("base_model.model.{q}.ia3_l"), &[64, 1])], "ia3_l"),
        ("stack", &lora, vec![one(&format!("{q}.lora_a"), &[4, 4, 64])], "one for each expert"),
        (
            "norm",
            &lora,
            vec![one(&format!("{norm}.lora_a"), &[64, 4]), one(&format!("{norm}.lora_b"), &[4, 64])],
            norm,
        ),
    ] {
        let report = ask(name, config, &tensors);
        assert_eq!((&report.failure, report.level), (&None, Some(Level::Load)), "{name}");
        assert_eq!(report.tensors, tensors.len() as u64);
        let instead = report.instead.expect("`instead`");
        assert!(instead.contains(word) && instead.contains("tensors were read"), "{instead}");
    }
    // What is wrong with one is a failure all the same.
    let mut bad = one(&format!("base_model.model.{q}.ia3_l"), &[64, 1]);
    fill(&mut bad, f32::NAN);
    assert_eq!(ask("nan", &ia3, &[bad]).failure.map(|it| it.kind), Some(FailureKind::NotFiniteWeights));
    let dora = json!({"fine_tune_type": "dora", "lora_parameters": {"rank": 4, "scale": 2.0}});
    let pair = |end: &str, shape: &[usize]| {
        let low = one(&format!("{q}.lora_a"), &[64, 4]);
        vec![low, one(&format!("{q}.lora_b"), &[4, 64]), one(&format!("{q}.{end}"), shape)]
    };
    let failure = ask("long", &dora, &pair("m", &[65])).failure.expect("a failure");
    assert_eq!(failure.kind, FailureKind::WrongShape);
    assert!(failure.message.contains("magnitudes [65]"), "{}", failure.message);
    assert_eq!(ask("lora", &lora, &pair("m", &[64])).failure.map(|it| it.kind), Some(FailureKind::BadFile));
    // peft's names for the same.
    let peft = json!({"peft_type": "LORA", "use_dora": true, "r": 4, "lora_alpha": 8});
    let (name, ours) = (format!("base_model.model.{q}"), pair("m", &[64]));
    let theirs = [
        one(&format!("{name}.lora_A.weight"), &[4, 64]),
        one(&format!("{name}.lora_B.weight"), &[64, 4]),
        one(&format!("{name}.lora_magnitude_vector"), &[64]),
    ];
    for (place, config, tensors) in [("ours", &dora, &ours[..]), ("theirs", &peft, &theirs)] {
        let report = ask(place, config, tensors);
        assert_eq!((report.failure, report.level), (None, Some(Level::Generate)), "{place}");
    }
}

/// Matrices as AutoAWQ packs them, and the same as MLX does: the numbers, the scales and the zeros are equal.
fn packed_both_ways(name: &str, output: usize, input: usize, group: usize) -> (Vec<Tensor>, Vec<Tensor>) {
    let number = |row: usize, column: usize| ((row * 7 + column * 13 + name.len()) % 16) as u32;
    let zero = |row: usize, of: usize| ((row + 3 * of) % 16) as u32;
    let scale = |row: usize, of: usize| 0.01 + 0.001 * ((row + of) % 5) as f32;
    let groups = input / group;
    let words = |words: Vec<u32>| words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
    let floats = |all: Vec<f32>| all.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let order = [0, 4, 1, 5, 2, 6, 3, 7];
    let theirs = |rows: usize, at: &dyn Fn(usize, usize) -> u32| {
        let word = |row: usize, block: usize| {
            (0..8).fold(0, |word, j| word | at(row, 8 * block + j) << (4 * order[j]))
        };
        words(
            (0..rows)
                .flat_map(|row| (0..output / 8).map(move |block| (row, block)))
                .map(|(r, b)| word(r, b))
                .collect(),
        )
    };
    let awq = vec![
        Tensor::new(format!("{name}.qweight"), Dtype::I32, &[input, output / 8])
            .bytes(theirs(input, &|column, row| number(row, column))),
        Tensor::new(format!("{name}.qzeros"), Dtype::I32, &[groups, output / 8])
            .bytes(theirs(groups, &|of, row| zero(row, of))),
        Tensor::new(format!("{name}.scales"), Dtype::F32, &[groups, output])
            .bytes(floats((0..groups).flat_map(|of| (0..output).map(move |row| scale(row, of))).collect())),
    ];
    let ours =
        |row: usize, block: usize| (0..8).fold(0, |word, j| word | number(row, 8 * block + j) << (4 * j));
    let each = |of: &dyn Fn(usize, usize) -> f32| {
        floats(
            (0..output).flat_map(|row| (0..groups).map(move |at| (row, at))).map(|(r, g)| of(r, g)).collect(),
        )
    };
    let mlx = vec![
        Tensor::new(format!("{name}.weight"), Dtype::U32, &[output, input / 8]).bytes(words(
            (0..output)
                .flat_map(|row| (0..input / 8).map(move |block| (row, block)))
                .map(|(r, b)| ours(r, b))
                .collect(),
        )),
        Tensor::new(format!("{name}.scales"), Dtype::F32, &[output, groups]).bytes(each(&scale)),
        Tensor::new(format!("{name}.biases"), Dtype::F32, &[output, groups])
            .bytes(each(&|row, of| -(zero(row, of) as f32) * scale(row, of))),
    ];
    (awq, mlx)
}

#[test]
fn awq_is_mapped_to_what_mlx_has() {
    let dir = tempfile::tempdir().expect("a directory");
    let (awq, mlx) = (dir.path().join("awq"), dir.path().join("mlx"));
    let replace = |tensors: &mut Vec<Tensor>, as_awq: bool| {
        let matrices: Vec<(String, Vec<usize>)> = tensors
            .iter()
            .filter(|tensor| tensor.name.contains("_proj.weight"))
            .map(|tensor| (tensor.name.trim_end_matches(".weight").to_owned(), tensor.shape.clone()))
            .collect();
        tensors.retain(|tensor| !tensor.name.contains("_proj.weight"));
        for (name, shape) in matrices {
            let (theirs, ours) = packed_both_ways(&name, shape[0], shape[1], 32);
            tensors.extend(if as_awq { theirs } else { ours });
        }
    };
    model(&awq, |config, tensors| {
        config["quantization_config"] = json!({"quant_method": "awq", "bits": 4, "group_size": 32});
        replace(tensors, true);
    });
    model(&mlx, |config, tensors| {
        config["quantization"] = json!({"bits": 4, "group_size": 32});
        replace(tensors, false);
    });
    let question = Some(Question { prompt_ids: vec![5, 6, 7], logits_head: 64, greedy: 8 });
    let mut worker = Worker::start();
    let mut said = |place: &Path| {
        let report = worker.ask(place, DtypeChoice::Auto, question.clone());
        assert_eq!(report.failure, None);
        report.answers.map(|answers| (answers.logits_head, answers.greedy))
    };
    assert_eq!(said(&awq), said(&mlx));
}

#[test]
fn a_head_that_always_says_one_token() {
    let (kind, level, message) = failure(|config, tensors| {
        // A row of the head that every state agrees with: the last norm's scale gives all states one direction.
        config["tie_word_embeddings"] = json!(false);
        tensors.retain(|tensor| tensor.name != "lm_head.weight");
        let rows = tensor(tensors, "model.embed_tokens.weight").shape.clone();
        let mut head = Tensor::new("lm_head.weight", Dtype::F32, &rows);
        let size = rows[0] * rows[1];
        let row = rows[1];
        let numbers = (0..size).flat_map(|at| if at / row == 7 { 1.0_f32 } else { 0.0 }.to_le_bytes());
        head.fill = Fill::Bytes(numbers.collect());
        tensors.push(head);
    });
    assert_eq!((kind, level), (FailureKind::Degenerate, Some(Level::Load)));
    assert!(message.contains("whatever it is told"), "{message}");
}

#[test]
fn what_is_odd_about_tensors_is_noted() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut worker = Worker::start();
    let mut notes = |change: &dyn Fn(&mut Vec<Tensor>)| {
        model(dir.path(), |_, tensors| change(tensors));
        let report = worker.ask(dir.path(), DtypeChoice::Auto, None);
        assert_eq!((report.failure, report.level), (None, Some(Level::Generate)));
        report.notes.join("; ")
    };
    let one = |name: &str| Tensor::new(name, Dtype::F32, &[4]).random(1, -1.0, 1.0);
    let well = notes(&|_| {});
    assert!(!well.contains("not used") && !well.contains("zeros"), "{well}");
    let known = notes(&|tensors| tensors.push(one("model.layers.0.self_attn.rotary_emb.inv_freq")));
    assert_eq!(known, well);
    let extra = notes(&|tensors| {
        let names = ["a", "b", "c", "d"];
        tensors.extend(names.iter().map(|name| one(&format!("model.layers.0.mlp.{name}"))));
    });
    assert!(extra.contains("4 tensors are not used") && extra.contains("mlp.c` and 1 more"), "{extra}");
    let zeros = notes(&|tensors| {
        for name in ["model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"] {
            fill(tensor(tensors, name), 0.0);
        }
    });
    assert!(zeros.contains("2 matrices are all zeros") && zeros.contains("model.layers.1.mlp."), "{zeros}");
}

#[test]
fn nan_in_packed_floating_numbers() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut worker = Worker::start();
    let mut tried = 0;
    for golden in Golden::all().into_iter().filter(|golden| golden.name.starts_with("llama-")) {
        let mode = golden.config["quantization"]["mode"].as_str().unwrap_or_default().to_owned();
        let wrong: &[(&str, u8)] = match mode.as_str() {
            "mxfp4" => &[("scales", 0xff)],
            "mxfp8" => &[("scales", 0xff), ("weight", 0x7f), ("weight", 0xff)],
            "nvfp4" => &[("scales", 0x7f), ("scales", 0xff)],
            _ => continue,
        };
        for (end, byte) in wrong {
            tried += 1;
            let mut tensors = golden.tensors();
            let name = format!("model.layers.0.mlp.up_proj.{end}");
            let odd = tensor(&mut tensors, &name);
            let width = if odd.dtype == Dtype::U8 { 1 } else { 4 };
            let mut bytes = vec![0x10; odd.elements() * width];
            bytes[5] = *byte;
            odd.fill = Fill::Bytes(bytes);
            let config = serde_json::to_vec(&golden.config).expect("JSON");
            let weights = encode(&tensors, &[("format", "mlx")]);
            write_files(
                dir.path(),
                &[("config.json".to_owned(), config), ("model.safetensors".to_owned(), weights)],
            );
            let report = worker.ask(dir.path(), DtypeChoice::Auto, None);
            let failure = report.failure.expect("a failure");
            assert_eq!((failure.kind, report.level), (FailureKind::NotFiniteWeights, None));
            assert!(failure.message.contains(&name), "{}", failure.message);
        }
    }
    assert!(tried > 0);
}

#[test]
fn what_names_no_architecture_is_not_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let tensors = [Tensor::new("a", Dtype::F32, &[4, 4]).random(1, -1.0, 1.0)];
    let files = [
        ("config.json".to_owned(), br#"{"n_mels": 80}"#.to_vec()),
        ("model.safetensors".to_owned(), encode(&tensors, &[])),
    ];
    write_files(dir.path(), &files);
    let report = Worker::start().ask(dir.path(), DtypeChoice::Auto, None);
    assert_eq!((report.failure, report.level, report.tensors), (None, Some(Level::Load), 1));
    assert!(report.unknown_architecture.is_some());
    assert!(report.instead.is_some_and(|what| what.contains("names no architecture")));
}

#[test]
fn masks_of_other_models_may_be_minus_infinite() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut worker = Worker::start();
    let mut ask = |name: &str, numbers: [f32; 4]| {
        let mut mask = Tensor::new(name, Dtype::F32, &[2, 2]);
        mask.fill = Fill::Bytes(numbers.iter().flat_map(|number| number.to_le_bytes()).collect());
        let files = [
            ("config.json".to_owned(), br#"{"model_type": "encodec"}"#.to_vec()),
            ("model.safetensors".to_owned(), encode(&[mask], &[])),
        ];
        write_files(dir.path(), &files);
        worker.ask(dir.path(), DtypeChoice::Auto, None).failure.map(|failure| failure.kind)
    };
    let never = f32::NEG_INFINITY;
    assert_eq!(ask("attn.mask", [0.0, never, 0.0, 0.0]), None);
    let wrong = Some(FailureKind::NotFiniteWeights);
    assert_eq!(ask("attn.mask", [0.5, never, 0.0, 0.0]), wrong);
    assert_eq!(ask("attn.mask", [0.0, f32::INFINITY, 0.0, 0.0]), wrong);
    assert_eq!(ask("attn.weight", [0.0, never, 0.0, 0.0]), wrong);
}

/// An npz file of one tensor, as NumPy writes it.
fn npz(name: &str, numbers: &[f32]) -> Vec<u8> {
    let name = format!("{name}.npy");
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}\n", numbers.len());
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.bytes());
    npy.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    let size = (npy.len() as u32).to_le_bytes();
    let length = (name.len() as u16).to_le_bytes();
    let mut file = b"PK\x03\x04".to_vec();
    file.extend([0; 14]);
    file.extend([size, size].concat());
    file.extend(length);
    file.extend([0; 2]);
    file.extend(name.bytes());
    file.extend(npy);
    let start = (file.len() as u32).to_le_bytes();
    let mut list = b"PK\x01\x02".to_vec();
    list.extend([0; 16]);
    list.extend([size, size].concat());
    list.extend(length);
    list.extend([0; 16]);
    list.extend(name.bytes());
    let listed = (list.len() as u32).to_le_bytes();
    file.extend(list);
    file.extend(b"PK\x05\x06");
    file.extend([0, 0, 0, 0, 1, 0, 1, 0]);
    file.extend([listed, start].concat());
    file.extend([0; 2]);
    file
}

#[test]
fn npz_files_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut worker = Worker::start();
    let mut ask = |weights: Vec<u8>| {
        let config = br#"{"model_type": "whisper", "n_mels": 80}"#.to_vec();
        write_files(dir.path(), &[("config.json".to_owned(), config), ("weights.npz".to_owned(), weights)]);
        worker.ask(dir.path(), DtypeChoice::Auto, None)
    };
    let whole = npz("conv1.weight", &[1.0, 2.0, 3.0]);
    let report = ask(whole.clone());
    assert_eq!((report.failure, report.level, report.tensors), (None, Some(Level::Load), 1));
    assert_eq!(report.tensor_bytes, 12);
    let failure = ask(npz("conv1.weight", &[1.0, f32::NAN])).failure.expect("a failure");
    assert_eq!(failure.kind, FailureKind::NotFiniteWeights);
    assert!(failure.message.contains("conv1.weight"), "{}", failure.message);
    for cut in 0..whole.len() {
        let failure = ask(whole[..cut].to_vec()).failure.expect("a failure");
        assert_eq!(failure.kind, FailureKind::BadFile);
    }
}
