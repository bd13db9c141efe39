//! What mlxman leaves behind is what huggingface_hub finds, and each of the two follows the other's bookkeeping.

use serde_json::{Value, json};

use super::{Library, applied};
use crate::lab::{DAY, Lab, old_below};

fn files(seed: &str) -> Value {
    json!({
        "config.json": format!("{{\"model_type\": \"llama\", \"seed\": \"{seed}\"}}"),
        "sub/notes.md": "the same in all",
        "model.safetensors": format!("weights of {seed} ").repeat(2000),
    })
}

/// What the library warns of, but for the trash.
fn warnings(scan: &Value) -> Vec<String> {
    let all = scan["warnings"].as_array().expect("warnings").iter();
    all.map(Value::to_string).filter(|warning| !warning.contains(".mlxman-trash")).collect()
}

#[test]
fn what_remains_is_what_the_library_sees() {
    let lab = Lab::new();
    let Some(mut library) = Library::start(&lab) else { return };
    let old = library.publish("acme/one", &files("a"), None);
    let new = library.publish("acme/one", &files("b"), Some("main"));
    let two = library.publish("acme/two", &files("a"), Some("main"));
    for (repo, revision) in [("acme/one", old.as_str()), ("acme/one", "main"), ("acme/two", "main")] {
        library.download(repo, revision);
    }
    old_below(lab.hub.root(), DAY);
    let before = library.ask(&json!(["scan"]));
    assert_eq!(before["warnings"], json!([]));

    let done = applied(&lab, &[&format!("acme/one@{}", &old[..8])]);
    assert_eq!(done["done"].as_array().map(Vec::len), Some(1), "{done}");
    let scan = library.ask(&json!(["scan"]));
    assert_eq!(scan["repos"], json!({"acme/one": [new], "acme/two": [two]}), "{scan}");
    assert_eq!(warnings(&scan), [""; 0], "{scan}");
    for (repo, revision) in [("acme/one", &new), ("acme/two", &two)] {
        let said = library.ask(&json!(["verify", repo, revision]));
        assert_eq!(said["code"], 0, "{said}");
    }

    let _ = lab.run(["undo"]).success();
    assert_eq!(library.ask(&json!(["scan"])), before);
    let said = library.ask(&json!(["verify", "acme/one", old]));
    assert_eq!(said["code"], 0, "{said}");

    // A whole repo, and nothing is left to warn of once the trash is empty.
    let done = applied(&lab, &["acme/one*"]);
    assert_eq!(done["done"].as_array().map(Vec::len), Some(2), "{done}");
    let _ = lab.run(["trash", "empty", "--yes"]).success();
    let scan = library.ask(&json!(["scan"]));
    assert_eq!(scan["repos"], json!({"acme/two": [two]}), "{scan}");
    assert_eq!(scan["warnings"], json!([]));
    let said = library.ask(&json!(["verify", "acme/two", two]));
    assert_eq!(said["code"], 0, "{said}");
}

const ONE: &str = "models--acme--one";
const TWO: &str = "models--acme--two";

/// Two repos that share a blob, as the library made them.
fn sharing() -> Option<(Lab, Library, [String; 2])> {
    let lab = Lab::new();
    let mut library = Library::start(&lab)?;
    let commits = ["1".repeat(40), "2".repeat(40)];
    let weights = "weights ".repeat(1000);
    assert_eq!(library.ask(&json!(["share", "acme/one", commits[0], weights])), "published");
    assert_eq!(library.ask(&json!(["share", "acme/two", commits[1], weights])), "linked");
    assert_eq!(users(&mut library), [ONE, TWO]);
    Some((lab, library, commits))
}

/// The repos that use the only shared blob, by its list, which the library must find to be right; none without a blob.
#[track_caller]
fn users(library: &mut Library) -> Vec<String> {
    let all = library.ask(&json!(["users"]));
    let mut blobs = all.as_object().expect("blobs").values();
    let Some(blob) = blobs.next() else { return Vec::new() };
    assert!(blobs.next().is_none(), "{all}");
    assert_eq!(blob["valid"], blob["lines"], "{all}");
    let lines = blob["lines"].as_array().expect("lines").iter();
    lines
        .map(|line| line.as_str().unwrap_or_default().split('/').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_shared_blob_goes_with_its_last_user_whoever_removes_that() {
    let Some((lab, mut library, [one, two])) = sharing() else { return };
    let removed = |models: &str| {
        let done = applied(&lab, &[models]);
        assert_eq!(done["done"].as_array().map(Vec::len), Some(1), "{done}");
    };
    // mlxman first, then the library.
    removed("acme/one");
    assert_eq!(users(&mut library), [TWO]);
    assert_eq!(library.ask(&json!(["missing", "acme/two", two])), json!([]));
    let freed = library.ask(&json!(["delete", two]));
    assert_eq!(freed, 8000, "the library knows that nobody else uses it");
    assert_eq!(library.ask(&json!(["users"])), json!({}), "the payload is gone");
    let _ = lab.run(["trash", "empty", "--yes"]).success();

    // The library first, then mlxman.
    let weights = "weights ".repeat(1000);
    assert_eq!(library.ask(&json!(["share", "acme/one", one, weights])), "published");
    assert_eq!(library.ask(&json!(["share", "acme/two", two, weights])), "linked");
    assert_eq!(library.ask(&json!(["delete", two])), 0, "another repo uses it");
    assert_eq!(users(&mut library), [ONE]);
    removed("acme/one");
    assert_eq!(library.ask(&json!(["users"])), json!({}), "the payload is in the trash");
    let _ = lab.run(["undo"]).success();
    assert_eq!(users(&mut library), [ONE]);
    assert_eq!(library.ask(&json!(["missing", "acme/one", one])), json!([]));
    removed("acme/one");
    let _ = lab.run(["trash", "empty", "--yes"]).success();
    let scan = library.ask(&json!(["scan"]));
    assert_eq!((&scan["repos"], &scan["warnings"]), (&json!({}), &json!([])));
}

#[test]
fn what_the_library_adds_to_a_list_stays_there_through_an_undo() {
    let Some((lab, mut library, [one, _])) = sharing() else { return };
    let _ = applied(&lab, &["acme/one"]);
    let weights = "weights ".repeat(1000);
    assert_eq!(library.ask(&json!(["share", "acme/zero", "3".repeat(40), weights])), "linked");
    assert_eq!(users(&mut library), [TWO, "models--acme--zero"]);
    let _ = lab.run(["undo"]).success();
    assert_eq!(users(&mut library), [ONE, TWO, "models--acme--zero"]);
    assert_eq!(library.ask(&json!(["missing", "acme/one", one])), json!([]));
}

#[test]
fn an_undo_after_the_library_removed_the_payload_says_so() {
    let Some((lab, mut library, [one, two])) = sharing() else { return };
    let _ = applied(&lab, &["acme/one"]);
    assert_eq!(library.ask(&json!(["delete", two])), 8000);
    let out = lab.run(["undo"]).expect_code(1);
    assert!(out.stderr.contains("another program removed the shared blob"), "{out}");
    // All that mlxman had taken is back; of the weights there is only the link, and a download mends that.
    assert!(lab.hub.root().join(ONE).join("snapshots").join(&one).join("model.safetensors").is_symlink());
    let weights = "weights ".repeat(1000);
    let out = lab.json(["list"]);
    assert_eq!(out["models"][0]["health"]["status"], "damaged", "{out:#}");
    let _ = library.ask(&json!(["share", "acme/one", one, weights]));
    assert_eq!(library.ask(&json!(["missing", "acme/one", one])), json!([]));
}
