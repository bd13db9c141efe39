use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::formats::mutate::{damage, damaged};

fn read(readme: &str) -> Result<Option<FrontMatter>, FrontMatterError> {
    FrontMatter::read(readme.as_bytes())
}

fn card(yaml: &str) -> FrontMatter {
    read(&format!("---\n{yaml}\n---\n")).unwrap().unwrap()
}

const CARD: &str = r#"---
language:
- en
- no
license: other
license_name: qwen-research
license_link: https://example.org/LICENSE
base_model: "Qwen/Qwen2.5-3B-Instruct"
base_model_relation: quantized
tags: [chat, mlx, 4bit]
library_name: mlx
pipeline_tag: text-generation # the task
quantized_by: someone
datasets: a/b
extra_gated_prompt: |
  Some text,
  --- not a marker
model-index:
- name: x
  results:
  - task: {type: text-generation}
---

# Title

---
license: not-this-one
---
"#;

#[test]
fn a_card_tells_origin_and_use() {
    let some = |s: &str| Some(s.to_owned());
    let expected = FrontMatter {
        base_model: vec!["Qwen/Qwen2.5-3B-Instruct".into()],
        base_model_relation: some("quantized"),
        license: some("other"),
        license_name: some("qwen-research"),
        license_link: some("https://example.org/LICENSE"),
        tags: ["chat", "mlx", "4bit"].map(String::from).to_vec(),
        library_name: some("mlx"),
        pipeline_tag: some("text-generation"),
        quantized_by: some("someone"),
        language: vec!["en".into(), "no".into()],
        datasets: vec!["a/b".into()],
    };
    assert_eq!(read(CARD).unwrap(), Some(expected));
}

#[test]
fn byte_order_mark_line_ends_and_blanks_do_no_harm() {
    let plain = read(CARD).unwrap();
    assert_eq!(read(&format!("\u{feff}{CARD}")).unwrap(), plain);
    assert_eq!(read(&CARD.replace('\n', "\r\n")).unwrap(), plain);
    assert_eq!(read(&format!("\n\n{}", CARD.replacen("---\n", "---  \n", 1))).unwrap(), plain);
    let at_the_end = read("---\nlicense: mit\n---").unwrap().unwrap();
    assert_eq!(at_the_end.license.as_deref(), Some("mit"));
}

#[test]
fn without_both_markers_there_is_none() {
    for readme in
        ["", "---", "---\nlicense: mit\n", "# Title\n---\nlicense: mit\n---\n", "----\na: b\n----\n"]
    {
        assert_eq!(read(readme).unwrap(), None, "{readme:?}");
    }
    let far = format!("---\nlicense: mit\n{}\n---\n", "# x\n".repeat(70_000));
    assert_eq!(read(&far).unwrap(), None);
}

#[test]
fn empty_front_matter_is_an_empty_card() {
    for yaml in ["", "# only a comment", "~", "{}"] {
        assert_eq!(card(yaml), FrontMatter::default(), "{yaml:?}");
    }
    assert_eq!(read("---\n---\n").unwrap(), Some(FrontMatter::default()));
}

#[test]
fn a_string_and_a_list_are_the_same() {
    assert_eq!(card("base_model: a/b").base_model, ["a/b"]);
    assert_eq!(card("base_model:\n- a/b\n- c/d").base_model, ["a/b", "c/d"]);
    assert_eq!(card("license: [mit, apache-2.0]").license.as_deref(), Some("mit, apache-2.0"));
    assert_eq!(card("library_name: [mlx]").library_name.as_deref(), Some("mlx"));
}

#[test]
fn null_and_values_of_another_kind_are_absent() {
    for value in ["", "null", "~", "{a: b}", "[]", "[{a: b}]", "[~]"] {
        let text = format!("license: {value}\nlibrary_name: {value}\nbase_model: {value}");
        assert_eq!(card(&text), FrontMatter::default(), "{value:?}");
    }
    assert_eq!(card("license: 'null'").license.as_deref(), Some("null"));
    assert_eq!(card("license: 1.10").license.as_deref(), Some("1.10"));
}

#[test]
fn of_repeated_keys_the_last_counts() {
    assert_eq!(card("license: mit\nlicense: bsd").license.as_deref(), Some("bsd"));
}

#[test]
fn what_is_not_yaml_names_its_line() {
    for (yaml, line) in
        [("a: b\nc: [", 3), ("license: mit\ntags: \"open", 3), ("a: b: c", 2), ("a: *nowhere", 2)]
    {
        let error = read(&format!("---\n{yaml}\n---\n")).unwrap_err();
        let FrontMatterError::Yaml { line: found, .. } = error else { panic!("{yaml:?}: {error}") };
        assert!((line..=line + 1).contains(&found), "{yaml:?}: {error}");
    }
    for yaml in ["just text", "- a\n- b"] {
        assert!(matches!(read(&format!("---\n{yaml}\n---\n")), Err(FrontMatterError::NotMapping)));
    }
    assert!(matches!(FrontMatter::parse(b"---\na: \xff\n---\n"), Err(FrontMatterError::NotUtf8)));
}

#[test]
fn long_front_matter_is_refused() {
    let long = format!("---\n{}\n---\n", "# comment\n".repeat(7_000));
    assert!(matches!(read(&long), Err(FrontMatterError::TooLarge { .. })));
}

#[test]
fn an_alias_of_a_scalar_is_read_and_of_more_refused() {
    let card = card("base_model: &b a/b\ntags: [*b]");
    assert_eq!(card.tags, ["a/b"]);
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, previous) in ('b'..='z').zip('a'..) {
        let aliases = vec![format!("*{previous}"); 9].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{aliases}]\n"));
    }
    assert!(matches!(read(&format!("---\n{bomb}---\n")), Err(FrontMatterError::Alias { line: 3 })));
    let long = format!("---\na: &a {}\ntags: [{}]\n---\n", "x".repeat(30_000), "*a, ".repeat(7_000));
    assert!(matches!(read(&long), Err(FrontMatterError::Alias { line: 3 })));
    assert!(matches!(
        read("---\na: &a [*a]\n---\n"),
        Err(FrontMatterError::Alias { .. } | FrontMatterError::Yaml { .. })
    ));
}

#[test]
fn hostile_yaml_takes_neither_time_nor_stack() {
    let bombs = [
        "[", "{", "- ", "? ", "{a: ", "[a: ", "&a ", "!t ", "a: [\n", "'", "\"", "| ", "a: ", "* ", "%",
        "<<: ",
    ];
    for bomb in bombs {
        for start in ["", "x: "] {
            let yaml = format!("---\n{start}{}\n---\n", bomb.repeat(60_000 / bomb.len()));
            let begin = Instant::now();
            let result = read(&yaml);
            assert!(begin.elapsed() < Duration::from_secs(2), "{bomb:?}: {:?}", begin.elapsed());
            assert!(result.is_err() || !bomb.contains(['[', '{', '-', '?']), "{bomb:?}: {result:?}");
        }
    }
    assert!(matches!(
        read(&format!("---\na: {}\n---\n", "[".repeat(200))),
        Err(FrontMatterError::TooDeep { line: 2 })
    ));
}

proptest! {
    #[test]
    fn damage_never_panics(damage in damage()) {
        let _ = FrontMatter::parse(&damaged(CARD.as_bytes().to_vec(), &damage));
    }

    #[test]
    fn no_text_panics(yaml in "[-a: \\[\\]{}&*!|>'\"%@#?,\n\t~<\u{85}é]{0,60}") {
        let _ = read(&format!("---\n{yaml}\n---\n"));
    }

    #[test]
    fn values_round_trip(values in prop::collection::vec("[a-zA-Z][a-zA-Z0-9/._-]{0,30}", 0..6)) {
        prop_assume!(values.iter().all(|v| !v.eq_ignore_ascii_case("null")));
        prop_assert_eq!(card(&format!("tags: [{}]", values.join(", "))).tags, &values[..]);
        let block: String = values.iter().map(|v| format!("\n  - '{v}'")).collect();
        prop_assert_eq!(card(&format!("tags:{block}")).tags, values);
    }
}

#[test]
fn truncation_never_panics() {
    for len in 0..CARD.len() {
        let _ = FrontMatter::parse(&CARD.as_bytes()[..len]);
    }
}
