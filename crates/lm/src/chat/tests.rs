use minijinja::Value;
use serde::Deserialize;

use super::*;

/// `tests/goldens/chat/*.json`: what transformers renders.
#[derive(Deserialize)]
struct Golden {
    template: String,
    now: NaiveDateTime,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    variables: Value,
    text: Option<String>,
    error: Option<String>,
}

fn goldens() -> Vec<(String, Golden)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/chat");
    let mut goldens: Vec<(String, Golden)> = fs_err::read_dir(dir)
        .expect("the goldens")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let golden = serde_json::from_slice(&fs_err::read(&path).expect("a golden")).expect("its form");
            (path.file_stem().expect("a name").to_string_lossy().into_owned(), golden)
        })
        .collect();
    goldens.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(goldens.len() >= 12, "{} goldens", goldens.len());
    goldens
}

#[test]
fn as_transformers_renders() {
    let mut wrong = Vec::new();
    for (name, golden) in goldens() {
        let template = ChatTemplate::new(&golden.template);
        for case in golden.cases {
            let said = template.render_with(case.variables, golden.now);
            let right = match (&said, &case.text, &case.error) {
                (Ok(said), Some(text), _) => said == text,
                (Err(why), None, Some(error)) => why.starts_with(error.as_str()),
                _ => false,
            };
            if !right {
                wrong.push(format!("{name}, {}:\n{said:?}\n{:?} {:?}", case.name, case.text, case.error));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn chat(template: &str) -> Result<String, String> {
    let special = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    ChatTemplate::new(template).render(&Chat {
        messages: &[Message { role: "user", content: "Hi" }],
        special: &special,
        enable_thinking: false,
        now: NaiveDateTime::default(),
    })
}

#[test]
fn a_prompt() {
    let template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m['content'] }}\n{% endfor %}\
                    {% if add_generation_prompt and not tools %}[assistant]{% endif %}{{ eos_token }}";
    assert_eq!(chat(template).as_deref(), Ok("<s>[user] Hi\n[assistant]"));
}

#[test]
fn what_fails_says_why() {
    let fails = |template: &str| chat(template).expect_err("it fails");
    assert_eq!(fails("\n{{ raise_exception('roles!') }}"), "roles! in its line 2");
    assert!(fails("{% if %}").contains("in its line 1"));
    assert!(fails("{{ strftime_now('%!') }}").contains("is no format of a time"));
    assert!(fails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").contains("recursion"));
    // It ends.
    fails("{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}");
}

#[test]
fn where_templates_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| fs_err::write(dir.path().join(name), text).expect("it is written");
    let found = || ChatTemplate::find(dir.path()).map(|found| found.map(|template| template.source));
    assert_eq!(found(), Ok(None));
    write("tokenizer_config.json", r#"{"chat_template": null}"#);
    assert_eq!(found(), Ok(None));
    write("tokenizer_config.json", r#"{"chat_template": "one"}"#);
    assert_eq!(found(), Ok(Some("one".to_owned())));
    let list = r#"{"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "two"}]}"#;
    write("tokenizer_config.json", list);
    assert_eq!(found(), Ok(Some("two".to_owned())));
    write("chat_template.jinja", "three");
    assert_eq!(found(), Ok(Some("three".to_owned())));
    fs_err::write(dir.path().join("chat_template.jinja"), [0xff]).expect("it is written");
    let error = found().expect_err("it is not UTF-8").to_string();
    assert!(error.contains("chat_template.jinja is not UTF-8"), "{error}");
}

#[test]
fn generation_tags_go() {
    let with = "a{%- generation -%}b{% endgeneration %}c{% set generation = 1 %}{% x";
    assert_eq!(without_generation_tags(with), "a{%- if true -%}b{% endif %}c{% set generation = 1 %}{% x");
}
