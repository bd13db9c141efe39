use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn entry(name: &str, repo_id: &str) -> Value {
    json!({
        "schema_version": 1, "name": name, "description": "a model", "source": {"repo_id": repo_id},
        "format": "mlx", "allows_lora": true,
    })
}

fn refused(change: impl FnOnce(&mut Value)) -> EntryError {
    let mut value = entry("a", "org/a");
    change(&mut value);
    CatalogEntry::parse(&value.to_string()).map(|entry| format!("{entry:?}")).unwrap_err()
}

fn with_files(files: &[(&str, String)]) -> (Catalog, Vec<CatalogProblem>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs_err::write(dir.path().join(name), text).unwrap();
    }
    Catalog::built_in().with_user_entries(dir.path()).unwrap()
}

#[test]
fn every_file_is_built_in_and_sound() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
    let names: Vec<String> = json_files(&dir)
        .unwrap()
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let embedded: Vec<&str> = EMBEDDED.iter().map(|(name, _)| *name).collect();
    assert_eq!(embedded, names);
    let mut added = Vec::new();
    for (file, text) in EMBEDDED {
        let entry = CatalogEntry::parse(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(format!("{}.json", entry.name), *file);
        assert_eq!(entry.schema.as_deref(), Some("../schemas/catalog-entry.schema.json"));
        assert!(!entry.tags.is_empty() && !entry.required_files.is_empty(), "{file}");
        let written = serde_json::to_string_pretty(&entry).unwrap() + "\n";
        assert_eq!(written, *text, "{file} is not as it would be written");
        added.push((
            unlike(entry, &added).unwrap_or_else(|error| panic!("{file}: {error}")),
            PathBuf::from(file),
        ));
    }
    let catalog = Catalog::built_in();
    assert_eq!(catalog.entries().len(), EMBEDDED.len());
    assert!(catalog.entries().is_sorted_by_key(|entry| &entry.name));
}

#[test]
fn every_file_meets_the_schema() {
    let schema = schemars::schema_for!(CatalogEntry);
    let validator = jsonschema::validator_for(schema.as_value()).unwrap();
    for (file, text) in EMBEDDED {
        let value: Value = serde_json::from_str(text).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{file}: {errors:?}");
    }
}

#[test]
fn entries_are_found_by_source_and_name() {
    let catalog = Catalog::built_in();
    let flux = catalog.by_source("MZBAC/flux1.schnell.4bit.MLX").unwrap();
    assert_eq!(flux.name, "flux-schnell-4bit");
    assert!(["flux", "image"].iter().all(|tag| flux.tags.iter().any(|has| has == tag)));
    assert_eq!(flux.quantization.as_ref().unwrap().label, "4bit");
    assert!(catalog.by_name("Flux-Dev").is_some());
    assert!(catalog.by_name("flux").is_none() && catalog.by_source("flux-dev").is_none());
}

#[test]
fn formats_are_words_of_the_record() {
    for entry in Catalog::built_in().entries() {
        let format: crate::Format = serde_json::from_value(json!(entry.format)).unwrap();
        assert_eq!(format.word(), entry.format, "{}", entry.name);
    }
}

#[test]
fn required_files_name_components() {
    let catalog = Catalog::built_in();
    let flux = catalog.by_name("flux-schnell").unwrap();
    assert!(["vae", "transformer", "text_encoder", "text_encoder_2"].iter().all(|c| flux.names_component(c)));
    assert!(!flux.names_component("unet") && !flux.names_component("text"));
}

#[test]
fn required_files_are_looked_for() {
    let catalog = Catalog::built_in();
    let flux = catalog.by_name("flux-schnell").unwrap();
    let folders = [
        "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder_2/model-00001-of-00002.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer_2/tokenizer.json",
    ];
    assert!(flux.missing_files(&folders).is_empty());
    let missing = flux.missing_files(&folders[1..]);
    assert_eq!(missing, ["{flux1-schnell.safetensors,transformer/*.safetensors}"]);
    let qwen = catalog.by_name("Qwen2.5-0.5B-Instruct-4bit").unwrap();
    assert!(
        qwen.missing_files(&["config.json", "tokenizer.json", "model-00001-of-00002.safetensors"]).is_empty()
    );
    assert_eq!(
        qwen.missing_files(&["config.json", "tokenizer.json", "x/model.safetensors"]),
        ["model*.safetensors"]
    );
}

#[test]
fn users_add_and_replace_entries_and_bad_files_hide_none() {
    let (catalog, problems) = with_files(&[
        ("a.json", entry("mine", "me/mine").to_string()),
        ("b.json", "{".to_owned()),
        ("c.json", entry("FLUX-dev", "me/flux").to_string()),
        ("d.json", entry("mine", "me/other").to_string()),
        ("e.json", entry("other", "ME/mine").to_string()),
        ("f.json", entry("smol", "mlx-community/smollm2-135m-instruct-4bit").to_string()),
        ("g.json", entry("bad/name", "me/g").to_string()),
        ("h.txt", "not read".to_owned()),
        (".i.json", "not read".to_owned()),
    ]);
    assert_eq!(catalog.entries().len(), EMBEDDED.len() + 1);
    assert_eq!(catalog.by_source("me/mine").unwrap().name, "mine");
    assert_eq!(catalog.by_name("flux-dev").unwrap().source.repo_id, "me/flux");
    assert!(catalog.by_source("black-forest-labs/FLUX.1-dev").is_none());
    assert_eq!(
        catalog.by_source("mlx-community/SmolLM2-135M-Instruct-4bit").unwrap().name,
        "SmolLM2-135M-Instruct-4bit"
    );
    assert!(catalog.entries().is_sorted_by_key(|entry| &entry.name));
    let told: Vec<(&str, Option<&str>)> = problems
        .iter()
        .map(|problem| (problem.file.file_name().unwrap().to_str().unwrap(), problem.field.as_deref()))
        .collect();
    let source = Some("source");
    assert_eq!(
        told,
        [
            ("b.json", None),
            ("d.json", Some("name")),
            ("e.json", source),
            ("f.json", source),
            ("g.json", Some("name"))
        ]
    );
    assert!(problems[2].to_string().ends_with("e.json: field `source`: `ME/mine` is already that of a.json"));
}

#[test]
fn a_user_entry_may_take_the_source_of_one_it_replaces() {
    let (catalog, problems) =
        with_files(&[("x.json", entry("flux-dev", "black-forest-labs/FLUX.1-dev").to_string())]);
    assert!(problems.is_empty());
    assert_eq!(catalog.by_source("black-forest-labs/flux.1-dev").unwrap().description, "a model");
}

#[test]
fn a_replacement_that_does_not_count_leaves_what_was_there() {
    let (catalog, problems) =
        with_files(&[("x.json", entry("flux-dev", "black-forest-labs/FLUX.1-schnell").to_string())]);
    assert_eq!(problems.len(), 1);
    assert_eq!(catalog, Catalog::built_in());
    let (catalog, problems) = with_files(&[
        ("a.json", entry("dev", "black-forest-labs/FLUX.1-dev").to_string()),
        ("b.json", entry("flux-dev", "me/flux").to_string()),
    ]);
    assert!(problems.is_empty(), "what b replaces leaves its source to a");
    assert_eq!(catalog.by_source("black-forest-labs/FLUX.1-dev").unwrap().name, "dev");
}

#[test]
fn a_directory_that_is_not_there_has_no_entries() {
    let dir = tempfile::tempdir().unwrap();
    let (catalog, problems) = Catalog::built_in().with_user_entries(&dir.path().join("none")).unwrap();
    assert_eq!((catalog, problems), (Catalog::built_in(), Vec::new()));
    let file = dir.path().join("file");
    fs_err::write(&file, "").unwrap();
    let error = Catalog::built_in().with_user_entries(&file).unwrap_err().to_string();
    assert!(error.contains("the catalog can't be listed"), "{error}");
    fs_err::create_dir(dir.path().join("d.json")).unwrap();
    let (_, problems) = Catalog::default().with_user_entries(dir.path()).unwrap();
    assert_eq!(problems[0].why, "it is not a regular file");
}

#[test]
fn errors_name_the_field() {
    let cases: [(&str, EntryError); 15] = [
        ("name", refused(|value| drop(value.as_object_mut().unwrap().remove("name")))),
        ("name", refused(|value| value["name"] = json!(7))),
        ("name", refused(|value| value["name"] = json!(""))),
        ("colour", refused(|value| value["colour"] = json!("red"))),
        ("source.repo_id", refused(|value| value["source"] = json!({}))),
        ("source.repo_id", refused(|value| value["source"]["repo_id"] = json!(["a"]))),
        ("source.repo_id", refused(|value| value["source"]["repo_id"] = json!("../a"))),
        ("source.url", refused(|value| value["source"]["url"] = json!("x"))),
        ("source.aliases.1", refused(|value| value["source"]["aliases"] = json!(["b/c", "ORG/a"]))),
        ("tags.1", refused(|value| value["tags"] = json!(["x", " "]))),
        ("tags.0", refused(|value| value["tags"] = json!([1]))),
        ("required_files.0", refused(|value| value["required_files"] = json!(["../config.json"]))),
        ("required_files.1", refused(|value| value["required_files"] = json!(["*.json", "[x"]))),
        ("quantization.bits", refused(|value| value["quantization"] = json!({"label": "4bit", "bits": -4}))),
        ("schema_version", refused(|value| value["schema_version"] = json!(2))),
    ];
    for (field, error) in cases {
        assert_eq!(error.field.as_deref(), Some(field), "{error}");
    }
    assert_eq!(refused(|value| *value = json!([])).field, None);
    let long = CatalogEntry::parse("nonsense").unwrap_err().to_string();
    assert!(long.starts_with("it is not JSON: "), "{long}");
}

#[test]
fn names_can_not_leave_their_directory() {
    for name in ["flux-schnell", "Qwen2.5-0.5B", "a b", "名", "x.json", "a@b"] {
        assert_eq!(validate_name(name), Ok(()), "{name}");
    }
    for name in ["", " ", ".", "..", ".x", "-x", "a/b", "a\\b", "a..b", "/", "a\0b", "a\nb", &"x".repeat(201)]
    {
        assert!(validate_name(name).is_err(), "{name:?}");
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_names_stay_one_component(name in ".*", repo in ".*", text in ".*") {
        let _ = CatalogEntry::parse(&text);
        let _ = CatalogEntry::parse(&entry(&name, &repo).to_string());
        if validate_name(&name).is_ok() {
            let components: Vec<_> = Path::new(&name).components().collect();
            prop_assert!(matches!(components[..], [std::path::Component::Normal(_)]));
        }
    }
}
