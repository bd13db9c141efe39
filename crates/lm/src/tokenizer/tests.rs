use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;

use super::*;

/// `tests/goldens/chat/tokenizers/*.json`: what transformers makes of some texts.
#[derive(Deserialize)]
struct Golden {
    tokenizer: Value,
    config: Value,
    greatest: u32,
    eos: Vec<u32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    plain: Vec<u32>,
    decoded: String,
}

fn goldens() -> Vec<(PathBuf, Golden)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/chat/tokenizers");
    let entries = fs_err::read_dir(dir).expect("the goldens");
    let goldens: Vec<(PathBuf, Golden)> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let bytes = fs_err::read(&path).expect("a golden");
            (path, serde_json::from_slice(&bytes).expect("its form"))
        })
        .collect();
    assert!(goldens.len() >= 3);
    goldens
}

/// A model's directory with some files.
fn dir(files: &[(&str, &Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, value) in files {
        fs_err::write(dir.path().join(name), value.to_string()).expect("it is written");
    }
    dir
}

fn open(dir: &Path) -> Tokenizer {
    match Tokenizer::open(dir) {
        Ok(Opened::Tokenizer(tokenizer)) => *tokenizer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn as_transformers_encodes() {
    for (path, golden) in goldens() {
        let files = [("tokenizer.json", &golden.tokenizer), ("tokenizer_config.json", &golden.config)];
        let dir = dir(&files);
        let tokenizer = open(dir.path());
        assert_eq!(tokenizer.greatest(), Some(golden.greatest), "{}", path.display());
        assert_eq!(tokenizer.eos(), golden.eos, "{}", path.display());
        for case in &golden.cases {
            let about = format!("{}: {:?}", path.display(), case.text);
            assert_eq!(tokenizer.encode(&case.text, true).as_ref(), Ok(&case.ids), "{about}");
            assert_eq!(tokenizer.encode(&case.text, false).as_ref(), Ok(&case.plain), "{about}");
            assert_eq!(tokenizer.decode(&case.plain).as_ref(), Ok(&case.decoded), "{about}");
        }
    }
}

#[test]
fn half_a_character_is_held_back() {
    let (_, golden) = goldens().into_iter().find(|(path, _)| path.ends_with("bpe.json")).expect("bpe.json");
    let dir = dir(&[("tokenizer.json", &golden.tokenizer)]);
    let tokenizer = open(dir.path());
    let ids = tokenizer.encode("ok 🦀", false).expect("tokens");
    assert_eq!(tokenizer.decode(&ids).as_deref(), Ok("ok 🦀"));
    for end in 1..ids.len() {
        let text = tokenizer.decode(&ids[..end]).expect("text");
        assert!("ok 🦀".starts_with(&text), "{text:?}");
    }
}

#[test]
fn ends_of_answers() {
    let (_, golden) = goldens().into_iter().find(|(path, _)| path.ends_with("bpe.json")).expect("bpe.json");
    let files = [("tokenizer.json", &golden.tokenizer), ("config.json", &json!({"eos_token_id": [7, 3]}))];
    let dir = dir(&files);
    let write =
        |name: &str, value: Value| fs_err::write(dir.path().join(name), value.to_string()).expect("written");
    assert_eq!(open(dir.path()).eos(), [3, 7]);
    write("tokenizer_config.json", json!({"eos_token": {"content": "</s>", "lstrip": false}}));
    assert_eq!(open(dir.path()).eos(), [1, 3, 7]);
    write("generation_config.json", json!({"eos_token_id": 0}));
    assert_eq!(open(dir.path()).eos(), [1, 3, 7]);
    write("generation_config.json", json!({"eos_token_id": [9, 5]}));
    assert_eq!(open(dir.path()).eos(), [1, 5, 9]);
    write("special_tokens_map.json", json!({"eos_token": "<s>"}));
    assert_eq!(open(dir.path()).eos(), [0, 5, 9]);
    assert_eq!(open(dir.path()).special()["eos_token"], "<s>");
}

#[test]
fn none_and_broken_ones() {
    let dir = dir(&[]);
    let absent = |dir: &Path| match Tokenizer::open(dir) {
        Ok(Opened::Absent(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(absent(dir.path()), "there is no tokenizer.json");
    fs_err::write(dir.path().join("tokenizer.model"), "x").expect("written");
    assert!(absent(dir.path()).contains("tokenizer.model without a tokenizer.json"));
    for broken in ["{", "{}", r#"{"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}}"#] {
        fs_err::write(dir.path().join("tokenizer.json"), broken).expect("written");
        let error = Tokenizer::open(dir.path()).expect_err("it is broken").to_string();
        assert!(error.contains("tokenizer.json is not a tokenizer"), "{error}");
        assert!(error.contains("download it again"), "{error}");
    }
}
