//! huggingface_hub downloads while mlxman removes, round after round, each with blobs of its own.

use std::path::Path;

use serde_json::{Value, json};

use super::{Library, applied};
use crate::lab::{DAY, Lab, old_below};

/// Rounds of each test.
const ROUNDS: usize = 12;

/// What a round does: a revision is there, and while it is removed another download runs.
#[derive(Clone, Copy, PartialEq)]
enum Meanwhile {
    /// Of a new revision with the same weights.
    NewRevision,
    /// Of the same revision.
    Again,
    /// Of what a snapshot that is kept did not have yet.
    IntoKept,
}

fn files(round: usize, more: &str) -> Value {
    json!({
        "config.json": format!("{{\"model_type\": \"llama\", \"round\": {round}}}"),
        "sub/notes.md": format!("notes of round {round}"),
        "model-00001-of-00002.safetensors": format!("first half of {round} ").repeat(3000),
        "model-00002-of-00002.safetensors": format!("second half of {round} ").repeat(3000),
        "README.md": more,
    })
}

/// Some waiting times, so that the two come at each other's every part.
fn wait(round: usize) -> f64 {
    (round * 37 % 100) as f64 / 1000.0
}

fn rounds(meanwhile: Meanwhile) {
    let lab = Lab::new();
    let Some(mut library) = Library::start(&lab) else { return };
    for round in 0..ROUNDS {
        let old = library.publish("acme/one", &files(round, "old"), None);
        let new = library.publish("acme/one", &files(round, "new"), Some("main"));
        let older = library.publish("acme/one", &files(round, "older"), None);
        for revision in [&old, &older] {
            library.download("acme/one", revision);
        }
        if meanwhile == Meanwhile::IntoKept {
            assert_eq!(library.ask(&json!(["download", "acme/one", new, ["config.json"]])), Value::Null);
        }
        // What was written a moment ago is left alone, and these came in the last minute.
        old_below(lab.hub.root(), DAY);
        let wanted = if meanwhile == Meanwhile::Again { &old } else { &new };
        let revision = if meanwhile == Meanwhile::NewRevision { "main" } else { wanted };
        library.send(&json!(["download", "acme/one", revision, null, wait(round)]));
        let done = applied(&lab, &[&format!("acme/one@{}", &old[..8]), &format!("acme/one@{}", &older[..8])]);
        if round % 2 == 1 {
            // An undo in the middle of it: what is there again is told, and nothing is put over it.
            let undone = lab.run(["undo"]);
            assert!(matches!(undone.code(), 0 | 1), "{undone}");
        }
        let error = library.answer();
        let missing = library.ask(&json!(["missing", "acme/one", wanted]));
        let missing: Vec<&str> =
            missing.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let is_removed = |what: &&str| meanwhile == Meanwhile::Again && what.ends_with("is not there");
        // What was asked for again may have been seen by the library before it was removed.
        let wrong: Vec<&str> = missing.into_iter().filter(|what| !is_removed(what)).collect();
        assert!(!error.is_null() || wrong.is_empty(), "round {round}: {wrong:?}, {done:#}");
        nothing_dangles(lab.hub.root(), round);
        // Whatever came of both, the download gives everything when nobody is in its way.
        library.download("acme/one", wanted);
        assert_eq!(
            library.ask(&json!(["missing", "acme/one", wanted])),
            json!([]),
            "round {round}: {done:#}"
        );
        while !lab.json(["trash", "list"])["entries"].as_array().is_none_or(Vec::is_empty) {
            let undone = lab.run(["undo"]);
            if undone.code() != 0 {
                assert!(undone.stderr.contains("has come back meanwhile"), "{undone}");
                let _ = lab.run(["trash", "empty", "--yes"]).success();
            }
        }
        for revision in [&old, &older, wanted] {
            let missing = library.ask(&json!(["missing", "acme/one", revision]));
            assert_eq!(missing, json!([]), "round {round}, all put back: {done:#}");
        }
    }
}

#[track_caller]
fn nothing_dangles(hub: &Path, round: usize) {
    for entry in walkdir::WalkDir::new(hub).into_iter().filter_map(Result::ok) {
        let path = entry.path();
        let is_ours = path.starts_with(hub.join(".mlxman-trash"));
        assert!(is_ours || !path.is_symlink() || path.exists(), "round {round}: {} dangles", path.display());
    }
}

#[test]
fn a_new_revision_that_shares_blobs() {
    rounds(Meanwhile::NewRevision);
}

#[test]
fn the_same_revision_again() {
    rounds(Meanwhile::Again);
}

#[test]
fn the_rest_of_a_snapshot_that_is_kept() {
    rounds(Meanwhile::IntoKept);
}

/// Into the shared blob store, by the library's own functions: Xet downloads need more than a small Hub.
#[test]
fn into_the_shared_blob_store() {
    let lab = Lab::new();
    let Some(mut library) = Library::start(&lab) else { return };
    let mut hows = Vec::new();
    for round in 0..2 * ROUNDS {
        let weights = format!("weights of {round} ").repeat(2000);
        let (old, new) = (format!("old/repo-{round}"), format!("new/repo-{round}"));
        let commits = [format!("a{}", "1".repeat(39)), format!("b{}", "2".repeat(39))];
        assert_eq!(library.ask(&json!(["share", old, commits[0], weights])), "published");
        library.send(&json!(["share", new, commits[1], weights, wait(round)]));
        let done = applied(&lab, &[&old]);
        hows.push(library.answer());
        assert_eq!(library.ask(&json!(["missing", new, commits[1]])), json!([]), "round {round}: {done:#}");
        nothing_dangles(lab.hub.root(), round);
        if round % 2 == 1 {
            let undone = lab.run(["undo"]);
            assert!(undone.code() == 0 || undone.stderr.contains("has come back meanwhile"), "{undone}");
            for (repo, commit) in [(&old, &commits[0]), (&new, &commits[1])] {
                assert_eq!(
                    library.ask(&json!(["missing", repo, commit])),
                    json!([]),
                    "round {round}: {done:#}"
                );
            }
        }
        let _ = lab.run(["trash", "empty", "--yes"]).success();
        assert_eq!(library.ask(&json!(["missing", new, commits[1]])), json!([]), "round {round}: {done:#}");
        nothing_dangles(lab.hub.root(), round);
        for (payload, of) in library.ask(&json!(["users"])).as_object().expect("blobs") {
            for valid in of["valid"].as_array().expect("users") {
                assert!(of["lines"].as_array().expect("lines").contains(valid), "{payload}: {of}");
            }
            assert_ne!(of["valid"], json!([]), "{payload} is left and nobody uses it");
        }
    }
    assert!(hows.iter().all(|how| how != "failed"), "{hows:?}");
}
