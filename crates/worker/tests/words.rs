//! A model is asked in words where it has a tokenizer, through its chat template where it has one.
#![cfg(feature = "mlx")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use mlxman_testkit::Golden;
use mlxman_verify::protocol::{DtypeChoice, Event, FailureKind, Level, Measure, Report, Request};
use serde_json::{Value, json};

/// A tiny model, changed.
fn model(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    Golden::named("qwen3-f32").expect("a golden").write_checkpoint(dir.path());
    change(dir.path());
    dir
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut document: Value = serde_json::from_slice(&fs_err::read(path).expect("a file")).expect("JSON");
    change(&mut document);
    fs_err::write(path, document.to_string()).expect("it is written");
}

fn ask(model: &Path) -> Report {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mlxman-worker"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the worker starts");
    let request = Request {
        id: 1,
        model: model.to_owned(),
        adapter: None,
        level: Level::Generate,
        dtype: DtypeChoice::Auto,
        measure: Measure { trials: 0, ..Measure::default() },
        answers: None,
    };
    let mut input = child.stdin.take().expect("its input");
    writeln!(input, "{}", serde_json::to_string(&request).expect("a request")).expect("it listens");
    drop(input);
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let report = output.lines().find_map(|line| {
        match serde_json::from_str(&line.expect("a line")).expect("an event") {
            Event::Done { report, .. } => Some(*report),
            _ => None,
        }
    });
    child.wait().expect("it ends");
    report.expect("a report")
}

#[test]
fn it_says_something() {
    let model = model(|_| ());
    let report = ask(model.path());
    assert_eq!((report.level, &report.failure), (Some(Level::Generate), &None));
    assert!(report.text.as_ref().is_some_and(|text| !text.is_empty()), "{report:?}");
    assert!(report.first_token_seconds.is_some_and(|seconds| seconds > 0.0));
    assert_eq!(report.notes, [""; 0]);
}

#[test]
fn it_stops_where_the_configs_say() {
    let every: Vec<u32> = (0..400).collect();
    let model = model(|dir| {
        edit(&dir.join("config.json"), |config| config["eos_token_id"] = json!(every));
    });
    assert_eq!(ask(model.path()).text.as_deref(), Some(""));
}

#[test]
fn a_template_that_fails_is_a_note() {
    let model = model(|dir| {
        fs_err::write(dir.join("chat_template.jinja"), "{{ raise_exception('no users') }}").expect("written");
    });
    let report = ask(model.path());
    assert_eq!(report.level, Some(Level::Generate));
    assert!(report.text.is_some());
    assert!(report.notes.len() == 1 && report.notes[0].contains("(no users in its line 1)"), "{report:?}");
}

#[test]
fn without_a_tokenizer_it_is_asked_all_the_same() {
    let model = model(|dir| {
        fs_err::rename(dir.join("tokenizer.json"), dir.join("tokenizer.model")).expect("it is renamed");
    });
    let report = ask(model.path());
    assert_eq!((report.level, &report.text), (Some(Level::Generate), &None));
    assert!(report.first_token_seconds.is_some());
    assert!(report.notes[0].contains("tokenizer.model without a tokenizer.json"), "{report:?}");
}

#[test]
fn a_broken_tokenizer_is_named() {
    let model = model(|dir| fs_err::write(dir.join("tokenizer.json"), "{").expect("it is written"));
    let report = ask(model.path());
    assert_eq!(report.level, Some(Level::Load));
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.kind, FailureKind::BadFile);
    assert!(failure.message.contains("tokenizer.json is not a tokenizer"), "{}", failure.message);
}

#[test]
fn tokens_beyond_the_embedding() {
    let tokenizer = |dir: &Path, change: fn(&mut Value)| edit(&dir.join("tokenizer.json"), change);
    let base = model(|dir| tokenizer(dir, |it| it["model"]["vocab"]["zzz"] = json!(5000)));
    let report = ask(base.path());
    assert_eq!(report.level, Some(Level::Load));
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.kind, FailureKind::Vocabulary);
    assert!(failure.message.contains("tokens up to 5000"), "{}", failure.message);
    assert!(failure.message.contains("has 320 rows"), "{}", failure.message);

    // As gemma3's image token: added, beyond, and nowhere in a prompt.
    let add = |it: &mut Value, content: &str| {
        let mut token = it["added_tokens"][0].clone();
        (token["content"], token["id"]) = (json!(content), json!(5000));
        it["model"]["vocab"][content] = json!(5000);
        it["added_tokens"].as_array_mut().expect("added tokens").push(token);
    };
    let image = model(|dir| edit(&dir.join("tokenizer.json"), |it| add(it, "<image>")));
    assert_eq!(ask(image.path()).level, Some(Level::Generate));
    let used = model(|dir| edit(&dir.join("tokenizer.json"), |it| add(it, "user")));
    let failure = ask(used.path()).failure.expect("a failure");
    assert_eq!(failure.kind, FailureKind::Vocabulary);
    assert!(failure.message.contains("added token 5000"), "{}", failure.message);
}
