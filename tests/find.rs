//! Every model is found, in every layout and format, with what its files say of it.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::time::SystemTime;

use mlxman_testkit::{
    Files, FolderStore, HubStore, ModelSpec, Quant, awq, bitsandbytes, compressed_tensors, diffusers, fp8,
    gguf_model, gptq, mflux, mlx_adapter, peft_adapter, pytorch, safetensors, text, write_files,
};
use serde_json::{Value, json};

use crate::lab::{DAY, Frozen, Lab, candidates, du, four_bit, kinds, model, names, old_below, snapshot};

fn file<'a>(files: &'a Files, name: &str) -> &'a [u8] {
    &files.iter().find(|(path, _)| path == name).expect("the file is there").1
}

fn parsed(files: &Files, name: &str) -> Value {
    serde_json::from_slice(file(files, name)).expect("JSON")
}

const EVERY: [(Quant, &str); 17] = [
    (Quant::F32, "f32"),
    (Quant::F16, "f16"),
    (Quant::Bf16, "bf16"),
    (Quant::Affine { bits: 2, group: 64 }, "2bit"),
    (Quant::Affine { bits: 3, group: 64 }, "3bit"),
    (Quant::Affine { bits: 4, group: 32 }, "4bit"),
    (Quant::Affine { bits: 4, group: 64 }, "4bit"),
    (Quant::Affine { bits: 4, group: 128 }, "4bit"),
    (Quant::Affine { bits: 5, group: 64 }, "5bit"),
    (Quant::Affine { bits: 6, group: 64 }, "6bit"),
    (Quant::Affine { bits: 8, group: 32 }, "8bit"),
    (Quant::Affine { bits: 8, group: 64 }, "8bit"),
    (Quant::Mxfp4, "mxfp4"),
    (Quant::Mxfp8, "mxfp8"),
    (Quant::Nvfp4, "nvfp4"),
    (Quant::Mixed { low: 4, high: 8 }, "mixed-4-8bit"),
    (Quant::Mixed { low: 3, high: 6 }, "mixed-3-6bit"),
];

/// All of [`EVERY`] as repos `acme/m0`, `acme/m1`, …; with `strip`, without a word on it in the config. A name says
/// nothing here.
fn check_every(strip: bool) {
    let lab = Lab::new();
    let mut made = Vec::new();
    for (index, (quant, _)) in EVERY.into_iter().enumerate() {
        let mut files = ModelSpec::llama().quant(quant).seed(index as u64).files();
        let config = parsed(&files, "config.json");
        if strip {
            let mut bare = config.clone();
            let map = bare.as_object_mut().expect("an object");
            map.remove("quantization");
            map.remove("quantization_config");
            files.iter_mut().find(|(path, _)| path == "config.json").expect("a config").1 =
                bare.to_string().into_bytes();
        }
        let _ = lab.hub.repo(&format!("acme/m{index}")).snapshot(&files).with_ref("main");
        made.push((files, config));
    }
    lab.sync();
    let list = lab.list();
    for (index, (quant, label)) in EVERY.into_iter().enumerate() {
        let (files, config) = &made[index];
        let model = model(&list, &format!("acme/m{index}"));
        let found = &model["quantization"];
        assert_eq!(found["label"], label, "{quant:?}");
        let said = &config["quantization"];
        if said.is_object() {
            assert_eq!(found["bits"], said["bits"], "{quant:?}");
            assert_eq!(found["group_size"], said["group_size"], "{quant:?}");
            assert_eq!(found["mode"], said["mode"], "{quant:?}");
            assert_eq!(found["method"], "mlx", "{quant:?}");
            let others =
                said.as_object().expect("an object").values().filter(|value| value.is_object()).count();
            if others > 0 {
                assert_eq!(found["overrides"], others, "{quant:?}");
            }
            let bits = found["bits_per_weight"].as_f64().expect("bits a weight");
            let low = said["bits"].as_f64().expect("bits");
            assert!(bits > low && bits < low + 5.0, "{quant:?}: {bits}");
        } else {
            assert!(found["bits"].is_null() && found["method"].is_null(), "{quant:?}: {found}");
        }
        assert_ne!(found["from_name"], true, "{quant:?}");
        assert!(
            model["evidence"]["quantization.label"]["file"].is_string(),
            "{quant:?}: {}",
            model["evidence"]
        );
        let index = parsed(files, "model.safetensors.index.json");
        assert_eq!(model["parameter_count"], index["metadata"]["total_parameters"], "{quant:?}");
        for (field, key) in [
            ("model_type", "model_type"),
            ("layers", "num_hidden_layers"),
            ("hidden_size", "hidden_size"),
            ("attention_heads", "num_attention_heads"),
            ("key_value_heads", "num_key_value_heads"),
            ("context_length", "max_position_embeddings"),
            ("vocabulary_size", "vocab_size"),
        ] {
            assert_eq!(model["architecture"][field], config[key], "{quant:?}: {field}");
        }
        assert_eq!(model["architecture"]["modality"], "text");
        assert_eq!(model["health"]["status"], "complete", "{quant:?}: {:?}", kinds(model));
        let size: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        assert_eq!(model["storage"]["size_bytes"], size);
        assert_eq!(model["storage"]["file_count"], files.len());
        if said.is_object() {
            assert_eq!(model["format"], "mlx", "{quant:?}");
        }
    }
}

#[test]
fn every_quantization_has_the_label_that_its_config_gives() {
    check_every(false);
}

#[test]
fn shapes_prove_the_quantization_where_the_config_is_silent() {
    check_every(true);
}

#[test]
fn a_name_alone_is_marked_so() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/Something-4bit").snapshot(&[text("README.md", "# x\n")]).with_ref("main");
    lab.sync_any();
    let list = lab.list();
    let found = &model(&list, "acme/Something-4bit")["quantization"];
    assert!(found["label"].is_null() || found["from_name"] == true, "{found}");
}

#[test]
fn a_lying_name_does_not_count() {
    let lab = Lab::new();
    let eight = ModelSpec::llama().quant(Quant::Affine { bits: 8, group: 64 }).files();
    let _ = lab.hub.repo("acme/Llama-4bit").snapshot(&eight).with_ref("main");
    lab.sync();
    assert_eq!(model(&lab.list(), "acme/Llama-4bit")["quantization"]["label"], "8bit");
}

#[test]
fn the_formats_of_other_tools() {
    let lab = Lab::new();
    let base = ModelSpec::llama();
    let formats: [(&str, Files, &str, Value, Value, Value); 11] = [
        ("gptq", gptq(1), "transformers", json!("gptq"), json!("4bit"), json!(32)),
        ("awq", awq(2), "transformers", json!("awq"), json!("4bit"), json!(32)),
        ("bnb", bitsandbytes(3), "transformers", json!("bitsandbytes"), json!("4bit"), Value::Null),
        ("ct", compressed_tensors(4), "transformers", json!("compressed-tensors"), json!("4bit"), json!(32)),
        ("fp8", fp8(5), "transformers", json!("fp8"), json!("fp8"), Value::Null),
        ("gguf", gguf_model(6, "tiny.gguf"), "gguf", json!("gguf"), json!("Q4_0"), Value::Null),
        ("pytorch", pytorch(7), "pytorch", Value::Null, Value::Null, Value::Null),
        ("peft", peft_adapter(&base, "acme/base"), "adapter", Value::Null, Value::Null, Value::Null),
        ("mlx-adapter", mlx_adapter(&base, "acme/base"), "adapter", Value::Null, Value::Null, Value::Null),
        ("mflux", mflux(8, &["flux", "image"]), "mlx", json!("mlx"), json!("4bit"), json!(64)),
        ("diffusers", diffusers(9, &["flux"]), "diffusers", Value::Null, json!("bf16"), Value::Null),
    ];
    for (name, files, ..) in &formats {
        let _ = lab.hub.repo(&format!("acme/{name}")).snapshot(files).with_ref("main");
    }
    lab.sync();
    let list = lab.list();
    for (name, _, format, method, label, group) in &formats {
        let model = model(&list, &format!("acme/{name}"));
        assert_eq!(model["format"], *format, "{name}");
        let found = &model["quantization"];
        assert_eq!(&found["method"], method, "{name}: {found}");
        if *name == "pytorch" {
            // Nothing of it is read; the config's type may be told.
            assert!(found["label"].is_null() || found["label"] == "f32", "{found}");
        } else if *format != "adapter" {
            assert_eq!(&found["label"], label, "{name}: {found}");
        }
        if !group.is_null() {
            assert_eq!(&found["group_size"], group, "{name}: {found}");
        }
        assert_eq!(model["health"]["status"], "complete", "{name}: {:?}", kinds(model));
    }
    for name in ["acme/gptq", "acme/awq", "acme/ct", "acme/bnb"] {
        assert_eq!(model(&list, name)["quantization"]["bits"], 4, "{name}");
    }
    for (name, scale) in [("acme/peft", 2.0), ("acme/mlx-adapter", 20.0)] {
        let adapter = &model(&list, name)["adapter"];
        assert_eq!(adapter["kind"], "adapter", "{name}");
        assert_eq!(adapter["rank"], 8, "{name}");
        assert_eq!(adapter["scale"], scale, "{name}");
        assert_eq!(adapter["base"], "acme/base", "{name}");
        assert!(adapter["keys"].to_string().contains("q_proj"), "{adapter}");
    }
    let gguf = model(&list, "acme/gguf");
    assert_eq!(gguf["architecture"]["model_type"], "llama");
    assert_eq!(gguf["architecture"]["context_length"], 2048);
    assert_eq!(model(&list, "acme/mflux")["tags"], json!(["flux", "image"]));
    assert_eq!(model(&list, "acme/diffusers")["architecture"]["modality"], "image");
}

#[test]
fn mixtures_and_other_families() {
    let lab = Lab::new();
    for family in ["qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi3"] {
        let spec = ModelSpec::new(family).quant(Quant::Affine { bits: 4, group: 64 }).tied(true);
        let _ = lab.hub.repo(&format!("acme/{family}")).snapshot(&spec.files()).with_ref("main");
    }
    lab.sync();
    let list = lab.list();
    for family in ["qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi3"] {
        let model = model(&list, &format!("acme/{family}"));
        assert_eq!(model["architecture"]["model_type"], family);
        assert_eq!(model["quantization"]["label"], "4bit");
        assert_eq!(model["health"]["status"], "complete", "{family}: {:?}", kinds(model));
    }
}

#[test]
fn repo_revision_refs_and_detached() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/many");
    let first = repo.snapshot(&four_bit(1).files());
    let second = repo.snapshot(&four_bit(2).files()).with_ref("v1").with_ref("refs/pr/1");
    let third = repo.snapshot(&four_bit(3).files()).with_ref("main");
    lab.sync();
    let list = lab.list();
    assert_eq!(names(&list).len(), 3);
    for (commit, refs) in [
        (&first.commit, json!([])),
        (&second.commit, json!(["refs/pr/1", "v1"])),
        (&third.commit, json!(["main"])),
    ] {
        let model = snapshot(&list, "acme/many", commit);
        let found = model["source"].get("refs").cloned().unwrap_or_else(|| json!([]));
        assert_eq!(found, refs);
        assert_eq!(model["source"]["detached"], refs == json!([]));
        assert_eq!(model["source"]["repo_id"], "acme/many");
    }
    assert_eq!(model(&list, "acme/many")["source"]["revision"], third.commit.as_str());
    // The path to load from: what `main` names, or what is asked for.
    let path = |asked: &str| lab.run(["path", asked]).success().stdout.trim_end().to_owned();
    assert_eq!(path("acme/many"), third.path().display().to_string());
    assert_eq!(path(&format!("acme/many@{}", first.commit)), first.path().display().to_string());
    assert_eq!(path(&format!("acme/many@{}", &second.commit[..8])), second.path().display().to_string());
    assert_eq!(path("acme/many@v1"), second.path().display().to_string());
    let json = lab.json(["path", "acme/many"]);
    assert!(json.to_string().contains(&third.commit), "{json}");
    let _ = lab.run(["path", "acme/nothing"]).expect_code(2);
    // Of a repo without `main`: the newest complete snapshot.
    fs_err::remove_file(repo.path().join("refs/main")).expect("the ref goes");
    fs_err::remove_file(repo.path().join("refs/v1")).expect("the ref goes");
    fs_err::remove_dir_all(repo.path().join("refs/refs")).expect("the ref goes");
    fs_err::remove_file(third.path().join("model.safetensors")).expect("the weights go");
    lab.sync_any();
    let found = path("acme/many");
    assert_ne!(found, third.path().display().to_string(), "the newest is not complete");
}

#[test]
fn datasets_and_spaces_are_no_models() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/same").snapshot(&four_bit(1).files()).with_ref("main");
    let files = vec![text("README.md", "# data\n"), text("data.csv", "a,b\n1,2\n")];
    let _ = lab.hub.dataset("acme/same").snapshot(&files).with_ref("main");
    let _ = lab.hub.space("acme/same").snapshot(&[text("app.py", "print(1)\n")]).with_ref("main");
    lab.sync();
    let list = lab.list();
    let of_model: Vec<&Value> = list["models"]
        .as_array()
        .expect("models")
        .iter()
        .filter(|model| model["model"] == "acme/same")
        .collect();
    assert_eq!(of_model.len(), 1, "{:?}", names(&list));
    assert_ne!(of_model[0]["source"]["repo_kind"], "dataset");
    for other in list["models"].as_array().expect("models") {
        let kind = &other["source"]["repo_kind"];
        assert!(other["model"] == "acme/same" || kind == "dataset" || kind == "space", "{other}");
    }
    assert!(lab.run(["path", "acme/same"]).success().stdout.contains("models--acme--same"));
    assert!(candidates(&lab.preview(&[])).is_empty());
}

#[test]
fn a_partial_download_on_purpose_is_no_damage() {
    let lab = Lab::new();
    let files = four_bit(1).files();
    let commit = "ab".repeat(20);
    let _ = lab
        .hub
        .repo("acme/part")
        .snapshot_some(&commit, &files, |path| path != "README.md" && path != "tokenizer.json")
        .with_ref("main");
    lab.hub.repo("acme/part").no_exist(&commit, "generation_config.json");
    lab.sync();
    assert_eq!(model(&lab.list(), "acme/part")["health"]["status"], "complete");
}

#[track_caller]
fn check_usage(lab: &Lab, root: &std::path::Path) {
    let stores = lab.json(["stores"]);
    let row = stores
        .as_array()
        .expect("rows")
        .iter()
        .find(|row| row["path"] == root.display().to_string().as_str())
        .unwrap_or_else(|| panic!("{} is no row of {stores:#}", root.display()));
    assert_eq!(row["usage"]["allocated_bytes"], du(root));
    let asked = std::process::Command::new("du").args(["-s", "-B1"]).arg(root).output().expect("du runs");
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert_eq!(said.split_whitespace().next(), Some(du(root).to_string().as_str()));
}

#[test]
fn used_space_is_that_of_du_to_the_block() {
    let (lab, folder) = Lab::with_folder();
    let shared = lab.sandbox.root().join("shared");
    let shared_hub = HubStore::create(&shared).shared();
    for (number, hub) in [(1, &lab.hub), (2, &shared_hub)] {
        let repo = hub.repo("acme/one");
        let _ = repo.snapshot(&four_bit(number).files());
        let _ = repo.snapshot(&four_bit(number + 10).shards(2).files()).with_ref("main");
        let _ = hub.repo("acme/two").snapshot(&four_bit(number).files()).with_ref("main");
        repo.partial(&"cd".repeat(32), "0a0b0c0d", &[1; 9000]);
        let _ = hub.dataset("acme/data").snapshot(&[text("a.csv", "1\n")]).with_ref("main");
        fs_err::write(hub.root().join("version.txt"), "1").expect("a file");
    }
    // Holes, hard links within and to the outside, odd files, links, an empty directory.
    folder.model("publisher/plain", &four_bit(3).files());
    folder.model("linked", &four_bit(4).files());
    let weights = folder.path("publisher/plain/model.safetensors");
    fs_err::hard_link(&weights, folder.path("linked/copy.safetensors")).expect("a hard link");
    fs_err::hard_link(folder.path("linked/README.md"), lab.sandbox.root().join("elsewhere"))
        .expect("a hard link");
    let tensor = safetensors::Tensor::new("x.weight", safetensors::Dtype::BF16, &[4096, 4096]);
    folder.model("sparse", &[text("config.json", "{\"model_type\": \"llama\"}")]);
    safetensors::write_sparse(&folder.path("sparse/model.safetensors"), &[tensor], &[]);
    assert!(folder.path("sparse/model.safetensors").metadata().expect("it is there").blocks() < 100);
    fs_err::create_dir_all(folder.path("empty/deeper")).expect("a directory");
    symlink("linked", folder.path("alias")).expect("a link");
    fs_err::write(folder.root().join("notes.txt"), "x".repeat(5000)).expect("a file");
    folder.local_dir("local", "acme/local", &four_bit(5).files(), SystemTime::now());
    let named = format!("hub={}", shared.display());
    let config = lab.sandbox.home().join(".config/mlxman");
    fs_err::create_dir_all(&config).expect("a directory");
    let _ = lab.run(["sync", "--fast"]);
    check_usage(&lab, lab.hub.root());
    check_usage(&lab, folder.root());
    let out = lab.json(["stores", "--store", &named]);
    assert_eq!(out[0]["usage"]["allocated_bytes"], du(&shared), "{out:#}");
    assert!(out[0]["filesystem"]["free_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
}

#[test]
fn reclaimable_bytes_of_shared_and_hard_linked_files() {
    let (mut lab, folder) = Lab::with_folder();
    // A payload in the shared blob store comes back when its last user goes.
    lab.hub = lab.hub.shared();
    let wide = four_bit(1).hidden(512);
    let one = lab.hub.repo("acme/one").snapshot(&wide.files()).with_ref("main");
    let two = lab.hub.repo("acme/two").snapshot(&wide.files()).with_ref("main");
    let payload = one.blob_of("model.safetensors");
    assert_eq!(payload, two.blob_of("model.safetensors"));
    let shared = payload.metadata().expect("the payload").blocks() * 512;
    // And an inode with two names when both go.
    folder.model("a", &wide.files());
    folder.model("b", &[text("config.json", "{\"model_type\": \"llama\"}")]);
    fs_err::hard_link(folder.path("a/model.safetensors"), folder.path("b/model.safetensors"))
        .expect("a link");
    lab.sync_any();
    let list = lab.list();
    let bytes = |name: &str, field: &str| model(&list, name)["storage"][field].as_u64().expect("bytes");
    for name in ["acme/one", "acme/two", "a", "b"] {
        assert!(bytes(name, "reclaimable_bytes") < shared, "{name}");
        assert!(bytes(name, "size_bytes") > shared / 2, "{name}");
    }
    let single = lab.preview(&["--models", "acme/one"]);
    assert_eq!(single["total_reclaimable_bytes"], bytes("acme/one", "reclaimable_bytes"));
    assert!(
        single["candidates"][0]["items"]
            .as_array()
            .expect("items")
            .iter()
            .all(|item| { !payload.ends_with(item["path"].as_str().expect("a path")) })
    );
    let both = lab.preview(&["--models", "acme/one", "acme/two"])["total_reclaimable_bytes"]
        .as_u64()
        .expect("bytes");
    let sum = bytes("acme/one", "reclaimable_bytes") + bytes("acme/two", "reclaimable_bytes");
    assert!(both >= sum + shared, "{both} of {sum} and {shared}");
    let both = lab.preview(&["--models", "a", "b", "--include-irreplaceable"]);
    let both = both["total_reclaimable_bytes"].as_u64().expect("bytes");
    let expected = du(&folder.path("a")) + du(&folder.path("b").join("config.json")) + 4096;
    assert_eq!(both, expected);
}

/// Removes all that a plan lists, row by row and then what rows share, and compares what the disk got back each time
/// with what the plan said.
#[track_caller]
fn check_plan_by_hand(lab: &Lab, folder: &FolderStore, args: &[&str]) {
    let plan = lab.preview(args);
    assert!(!candidates(&plan).is_empty(), "{plan:#}");
    let used = || du(lab.hub.root()) + du(folder.root());
    let before = used();
    let rows = plan["candidates"].as_array().expect("rows");
    for row in rows {
        let held = used();
        for item in row["items"].as_array().expect("items") {
            remove(row, item);
        }
        assert_eq!(row["reclaimable_bytes"], held - used(), "{args:?}: {row:#}");
    }
    for shared in plan["shared_items"].as_array().into_iter().flatten() {
        let needs = shared["needs"].as_array().expect("rows");
        assert!(needs.len() > 1, "{shared}");
        let row = usize::try_from(needs[0].as_u64().expect("a row")).expect("a place");
        remove(&rows[row], &shared["item"]);
    }
    assert_eq!(plan["total_reclaimable_bytes"], before - used(), "{args:?}: {:?}", candidates(&plan));
}

/// Removes one item of a row: it is there, it is what the plan saw, and a directory is empty by now.
#[track_caller]
fn remove(row: &Value, item: &Value) {
    let store = row["store"].as_str().expect("a store");
    let root = std::path::Path::new(store.split_once('=').expect("KIND=PATH").1);
    let path = root.join(item["path"].as_str().expect("a path"));
    let meta = path.symlink_metadata().expect("the plan lists what is there");
    assert_eq!(item["inode"], meta.ino());
    if meta.is_dir() {
        fs_err::remove_dir(&path).expect("it is empty by now");
    } else {
        fs_err::remove_file(&path).expect("it goes");
    }
}

fn to_be_cleaned() -> (Lab, FolderStore) {
    let (lab, folder) = Lab::with_folder();
    let repo = lab.hub.repo("acme/one");
    let _ = repo.snapshot(&four_bit(1).files());
    let _ = repo.snapshot(&four_bit(2).files()).with_ref("main");
    let _ = repo.orphan(&[3; 20_000]);
    let _ = lab.hub.repo("acme/two").snapshot(&four_bit(3).shards(2).files()).with_ref("main");
    folder.model("publisher/model", &four_bit(4).files());
    folder.model("stays", &four_bit(5).files());
    old_below(lab.hub.root(), 90 * DAY);
    lab.sync_any();
    (lab, folder)
}

#[test]
fn removing_what_a_plan_lists_frees_what_it_says() {
    let (lab, folder) = to_be_cleaned();
    check_plan_by_hand(&lab, &folder, &[]);
    lab.sync();
    check_plan_by_hand(&lab, &folder, &["--models", "publisher/model", "--include-irreplaceable"]);
    lab.sync();
    let list = lab.list();
    for name in ["acme/one", "acme/two", "stays"] {
        assert_eq!(model(&list, name)["health"]["status"], "complete");
    }
}

#[test]
fn removing_a_whole_repo_frees_what_the_plan_says() {
    let (lab, folder) = to_be_cleaned();
    // The orphan first, which no filter of models selects.
    check_plan_by_hand(&lab, &folder, &[]);
    lab.sync();
    check_plan_by_hand(&lab, &folder, &["--models", "acme/one", "acme/two"]);
    // Nothing of it is left to be told of.
    let _ = lab.run(["sync", "--fast"]).success();
    assert_eq!(lab.list()["problems"], json!([]));
}

#[test]
fn folders_of_every_shape() {
    let (lab, folder) = Lab::with_folder();
    let files = four_bit(1).files();
    let snapshot = lab.hub.repo("acme/known").snapshot(&files).with_ref("main");
    folder.model("flat", &four_bit(2).files());
    folder.model("publisher/nested", &four_bit(3).files());
    let commit = folder.local_dir("downloaded", "acme/known", &files, SystemTime::now() - 20 * DAY);
    assert_eq!(commit, snapshot.commit);
    let unknown = folder.local_dir("unknown", "acme/nowhere", &four_bit(4).files(), SystemTime::now());
    folder.model("flux", &diffusers(5, &["flux"]));
    folder.model("lone", &gguf_model(6, "lone-Q4_0.gguf"));
    fs_err::create_dir_all(folder.path("empty")).expect("a directory");
    lab.sync();
    let list = lab.list();
    let found = names(&list);
    for name in ["flat", "publisher/nested", "unknown", "flux"] {
        assert!(found.contains(name), "{name} is not in {found:?}");
    }
    assert_eq!(
        found.iter().filter(|name| name.contains("flux")).count(),
        1,
        "one pipeline is one model: {found:?}"
    );
    let local: Vec<&Value> = list["models"]
        .as_array()
        .expect("models")
        .iter()
        .filter(|model| model["model_path"] == folder.path("downloaded").display().to_string().as_str())
        .collect();
    assert_eq!(local.len(), 1);
    assert_eq!(local[0]["source"]["repo_id"], "acme/known", "the hub cache has the same commit");
    assert_eq!(local[0]["source"]["revision"], commit.as_str());
    assert_eq!(model(&list, "unknown")["source"]["revision"], unknown.as_str());
    assert!(model(&list, "unknown")["source"]["repo_id"].is_null(), "it is known nowhere");
    assert_eq!(model(&list, "flux")["architecture"]["modality"], "image");
    let files = model(&list, "unknown")["storage"]["files"].to_string();
    assert!(!files.contains(".cache"), "{files}");
}

#[test]
fn a_single_directory_as_the_store() {
    let lab = Lab::new();
    let dir = lab.sandbox.root().join("just-this");
    write_files(&dir, &four_bit(1).files());
    let store = format!("folder={}", dir.display());
    let frozen = Frozen::of(&dir);
    let _ = lab.run(["sync", "--fast", "--store", &store]).success();
    frozen.assert_same(&dir, "sync");
    let list = lab.json(["list", "--store", &store]);
    assert_eq!(list["models"].as_array().expect("models").len(), 1);
    let model = &list["models"][0];
    assert_eq!(model["model"], "just-this");
    assert_eq!(model["quantization"]["label"], "4bit");
    let out = lab.run(["path", "just-this", "--store", &store]).success();
    assert_eq!(out.stdout.trim_end(), dir.display().to_string());
}

#[test]
fn an_adapter_inside_and_a_fused_model() {
    let (lab, folder) = Lab::with_folder();
    let base = ModelSpec::llama().seed(1);
    folder.model("base", &base.files());
    write_files(&folder.path("base/adapters"), &mlx_adapter(&base, "acme/base"));
    let merged = base.base_model("acme/base").relation("merge").seed(2);
    folder.model("merged", &merged.files());
    lab.sync();
    let list = lab.list();
    let adapter = &model(&list, "base")["adapter"];
    assert!(adapter["found_inside"].to_string().contains("adapters"), "{adapter}");
    assert!(
        ["unknown", "fused"].contains(&model(&list, "merged")["adapter"]["kind"].as_str().expect("a kind"))
    );
    assert_eq!(model(&list, "merged")["source"]["base_model_relation"], "merge");
}

#[test]
fn a_fused_model_that_equals_its_base_is_seen() {
    let lab = Lab::new();
    let base = ModelSpec::llama().seed(1);
    let _ = lab.hub.repo("acme/base").snapshot(&base.files()).with_ref("main");
    let same = base.base_model("acme/base").relation("finetune");
    let _ = lab.hub.repo("acme/same").snapshot(&same.files()).with_ref("main");
    // Other weights throughout.
    let _ = lab.hub.repo("acme/other").snapshot(&same.seed(2).files()).with_ref("main");
    lab.sync();
    assert!(model(&lab.list(), "acme/same")["adapter"]["comparison"].is_null(), "--fast compares nothing");
    let _ = lab.run(["sync"]).success();
    let list = lab.list();
    let same = &model(&list, "acme/same")["adapter"]["comparison"];
    assert_eq!(same["identical"], true);
    assert_eq!(same["summary"], "identical to its base");
    let other = &model(&list, "acme/other")["adapter"]["comparison"];
    assert_eq!(other["identical"], false);
    assert!(other["differing_tensors"].as_u64().is_some_and(|count| count > 10), "{other}");
    assert!(other["modules"].to_string().contains("q_proj"), "{other}");
    let fused = lab.json(["list", "--fused-only"]);
    assert!(!names(&fused).contains("acme/same"), "{:?}", names(&fused));
    assert!(!names(&fused).contains("acme/base"));
}

#[test]
fn where_the_environment_says() {
    let lab = Lab::new();
    let put = |root: &std::path::Path, name: &str| {
        let _ = HubStore::create(root).repo(name).snapshot(&four_bit(1).files()).with_ref("main");
    };
    let root = lab.sandbox.root().to_owned();
    put(&root.join("a"), "in/hub-cache");
    put(&root.join("b"), "in/old-name");
    put(&root.join("c/hub"), "in/hf-home");
    put(&root.join("d/huggingface/hub"), "in/xdg");
    put(&root.join("home/.cache/huggingface/hub"), "in/home");
    FolderStore::create(root.join("m")).model("in-models-dir", &four_bit(1).files());
    let found = |set: &[(&str, &str)], unset: &[&str]| {
        let mut command = lab.command(&["sync", "--fast", "--json", "--dry-run"]);
        for (name, value) in set {
            command.env(name, value.replace("ROOT", &root.display().to_string()));
        }
        for name in unset {
            command.env_remove(name);
        }
        let out = command.output().expect("it runs");
        assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let only = |text: &str, name: &str| {
        for other in ["in/hub-cache", "in/old-name", "in/hf-home", "in/xdg", "in/home"] {
            assert_eq!(text.contains(other), other == name, "{other} where {name} is meant:\n{text}");
        }
    };
    let all = [
        ("HF_HUB_CACHE", "ROOT/a"),
        ("HUGGINGFACE_HUB_CACHE", "ROOT/b"),
        ("HF_HOME", "ROOT/c"),
        ("XDG_CACHE_HOME", "ROOT/d"),
    ];
    only(&found(&all, &[]), "in/hub-cache");
    only(&found(&all[1..], &[]), "in/old-name");
    only(&found(&all[2..], &[]), "in/hf-home");
    only(&found(&all[3..], &["HF_HOME"]), "in/xdg");
    only(&found(&[], &["HF_HOME", "XDG_CACHE_HOME"]), "in/home");
    only(&found(&[("HF_HUB_CACHE", "~/.cache/huggingface/hub")], &[]), "in/home");
    only(&found(&[("HF_HUB_CACHE", "$WHERE/a"), ("WHERE", "ROOT")], &[]), "in/hub-cache");
    assert!(found(&[("MLX_MODELS_DIR", "ROOT/m")], &[]).contains("in-models-dir"));
}

#[test]
fn a_folder_inside_a_folder_counts_once() {
    let (lab, folder) = Lab::with_folder();
    folder.model("publisher/model", &four_bit(1).files());
    let outer = format!("folder={}", folder.root().display());
    let inner = format!("folder={}", folder.path("publisher").display());
    let all = ["--models", "*", "--include-irreplaceable"];
    let both = lab.preview(&[&["--store", &outer, "--store", &inner][..], &all].concat());
    let one = lab.preview(&[&["--store", &outer][..], &all].concat());
    assert_eq!(both["total_reclaimable_bytes"], one["total_reclaimable_bytes"]);
    assert_eq!(both["candidates"].as_array().expect("rows").len(), 1);
}
