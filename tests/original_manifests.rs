//! Manifests that the original scripts wrote, in a models' folder.

use std::path::{Path, PathBuf};

use mlxman_testkit::FolderStore;
use serde_json::{Value, json};

use crate::lab::{Frozen, Lab, candidates, four_bit, model, names};
use crate::registry::assert_valid;

fn original(name: &str, path: &str) -> Value {
    json!({
        "model": name, "model_path": path, "source_id": "acme/from-the-script", "variant": "schnell",
        "precision": "bfloat16", "quantization": "4bit", "tags": ["flux", "my own"],
        "notes": "keep: used every day", "adapter": {"allows_lora": true, "currently_fused": false},
        "storage": {"present": true, "file_count": 3, "size_bytes": 123, "last_modified": "2024-05-01T10:00:00Z"},
        "generated_at": "2024-05-01T10:00:00Z", "a_field_of_mine": [1, 2],
    })
}

fn write(folder: &FolderStore, name: &str, value: &Value) -> PathBuf {
    let path = folder.root().join(format!("manifests/{name}.manifest.json"));
    fs_err::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs_err::write(&path, serde_json::to_string_pretty(value).expect("JSON")).expect("it is written");
    path
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).expect("it is there")).expect("JSON")
}

#[test]
fn they_are_read_kept_and_upgraded_under_their_names() {
    let (lab, folder) = Lab::with_folder();
    folder.model("tiny", &four_bit(1).files());
    folder.model("new", &four_bit(2).files());
    let file = write(&folder, "tiny", &original("tiny", "tiny"));
    lab.sync();
    let list = lab.list();
    assert_eq!(names(&list).into_iter().collect::<Vec<_>>(), ["new", "tiny"], "`manifests` is no model");
    let tiny = model(&list, "tiny");
    assert_eq!(tiny["notes"], "keep: used every day");
    for tag in ["flux", "my own"] {
        assert!(tiny["tags"].to_string().contains(&format!("\"{tag}\"")), "{}", tiny["tags"]);
    }
    assert_eq!(tiny["variant"], "schnell");
    assert_eq!(tiny["adapter"]["allows_lora"], true);
    assert_eq!(tiny["source_id"], "acme/from-the-script");
    let now = read(&file);
    assert_valid(&lab, "manifest", &now);
    assert_eq!(now["schema_version"], 1);
    assert_eq!(now["a_field_of_mine"], json!([1, 2]));
    // What is observed is observed: the file's own words on size were wrong.
    assert!(now["storage"]["size_bytes"].as_u64().is_some_and(|bytes| bytes > 1000), "{}", now["storage"]);
    assert!(folder.root().join("manifests/new.manifest.json").exists(), "new ones go there too");
    // And still so after more syncs.
    let _ = lab.run(["tag", "tiny", "third"]).success();
    let _ = lab.run(["sync"]).success();
    let again = read(&file);
    assert_eq!(again["notes"], "keep: used every day");
    assert_eq!(again["tags"].as_array().map(|tags| tags.contains(&json!("third"))), Some(true));
    let entries = fs_err::read_dir(folder.root().join("manifests")).expect("the manifests");
    let is_manifest = |name: String| name.ends_with(".manifest.json");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    assert_eq!(names.filter(|name| is_manifest(name.clone())).count(), 2);
}

#[test]
fn a_model_path_that_leads_elsewhere_is_never_followed() {
    for path in ["../victim", "VICTIM", "tiny/../../victim", ""] {
        let (lab, folder) = Lab::with_folder();
        folder.model("other", &four_bit(1).files());
        let victim = lab.sandbox.root().join("victim");
        mlxman_testkit::write_files(&victim, &four_bit(2).files());
        let path = path.replace("VICTIM", &victim.display().to_string());
        write(&folder, "evil", &original("evil", &path));
        let frozen = Frozen::of(&victim);
        lab.sync_any();
        let _ = lab.run(["sync"]);
        let list = lab.list();
        let evil = list["models"].as_array().expect("models").iter().find(|model| model["model"] == "evil");
        if let Some(evil) = evil {
            assert_eq!(evil["storage"]["present"], false, "{path}: {evil:#}");
        }
        for args in [&[][..], &["--models", "*"], &["--models", "evil"], &["--tags", "flux"]] {
            let plan = lab.preview(args);
            for row in plan["candidates"].as_array().expect("rows") {
                for item in row["items"].as_array().expect("items") {
                    let item = item["path"].as_str().expect("a path");
                    assert!(!item.contains("victim") && !item.contains(".."), "{path}: {item}");
                }
                if row["model"] == "evil" {
                    assert_eq!(row["reclaimable_bytes"], 0);
                }
            }
        }
        let _ = lab.run(["path", "evil"]).expect_code(2);
        frozen.assert_same(&victim, "everything");
    }
}

#[test]
fn a_name_that_leads_elsewhere_writes_nothing_there() {
    let (lab, folder) = Lab::with_folder();
    folder.model("good", &four_bit(1).files());
    let value = original("../../evil", "../../evil");
    let file = write(&folder, "odd", &value);
    lab.sync_any();
    assert_eq!(read(&file), value, "left as it was");
    assert!(!lab.sandbox.root().join("evil").exists());
    assert!(!lab.sandbox.root().join("evil.manifest.json").exists());
    assert_eq!(model(&lab.list(), "good")["health"]["status"], "complete");
}

#[test]
fn a_model_that_only_the_manifest_knows() {
    let (lab, folder) = Lab::with_folder();
    folder.model("here", &four_bit(1).files());
    let file = write(&folder, "long-gone", &original("long-gone", "long-gone"));
    lab.sync_any();
    let list = lab.list();
    let gone = model(&list, "long-gone");
    assert_eq!(gone["storage"]["present"], false);
    assert_eq!(gone["notes"], "keep: used every day");
    assert!(file.exists());
    assert_eq!(names(&lab.json(["list", "--missing-only"])).len(), 1);
    assert!(!candidates(&lab.preview(&[])).contains("long-gone"));
    // It comes.
    folder.model("long-gone", &four_bit(2).files());
    lab.sync_any();
    let list = lab.list();
    assert_eq!(model(&list, "long-gone")["storage"]["present"], true);
    assert_eq!(model(&list, "long-gone")["notes"], "keep: used every day");
}

#[test]
fn one_that_is_not_valid_is_told_and_kept() {
    for bytes in [&b"{"[..], b"[]", br#"{"model": 5}"#, br#"{"model": "tiny", "tags": "flux"}"#] {
        let (lab, folder) = Lab::with_folder();
        folder.model("tiny", &four_bit(1).files());
        folder.model("other", &four_bit(2).files());
        let file = folder.root().join("manifests/tiny.manifest.json");
        fs_err::create_dir_all(file.parent().expect("a parent")).expect("a directory");
        fs_err::write(&file, bytes).expect("it is written");
        let out = lab.run(["sync", "--fast"]).expect_code(1);
        assert!(out.stderr.contains("tiny.manifest.json"), "{out}");
        assert_eq!(fs_err::read(&file).expect("it is there"), bytes);
        let list = lab.list();
        assert_eq!(model(&list, "other")["health"]["status"], "complete");
        assert!(!candidates(&lab.preview(&["--models", "*"])).contains("tiny"));
    }
}
