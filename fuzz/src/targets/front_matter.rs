use mlxman_manifest::formats::front_matter::{FrontMatter, FrontMatterError, MAX_README_LEN};

/// Parses a README.
pub fn run(data: &[u8]) {
    let result = FrontMatter::read(data);
    match &result {
        Ok(Some(card)) => {
            let words = card.base_model.iter().chain(&card.tags).chain(&card.language);
            let kept: usize = words.map(String::len).sum();
            assert!(kept <= 4 * data.len() + (256 << 10), "{kept} bytes kept of {}", data.len());
        }
        Err(FrontMatterError::Io(error)) => panic!("no file is involved: {error}"),
        Ok(None) => {}
        Err(error) => drop(error.to_string()),
    }
    if data.len() as u64 <= MAX_README_LEN {
        assert_eq!(format!("{result:?}"), format!("{:?}", FrontMatter::parse(data)));
    }
}

/// Cards as the hub has them, and hostile ones.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let card = |yaml: &str| format!("---\n{yaml}\n---\n\n# Title\n").into_bytes();
    let full = "language:\n- en\n- no\nlicense: other\nlicense_name: qwen\nbase_model: \"a/b\"\ntags: [mlx, 4bit]\n\
                base_model_relation: quantized\nlibrary_name: mlx # here\nextra: |\n  text\n  --- text\n\
                model-index:\n- name: x\n  results:\n  - task: {type: t}\n    metrics: [{value: 1.5}]";
    let bomb: String = ('b'..='i')
        .zip('a'..)
        .map(|(name, previous)| format!("{name}: &{name} [{}]\n", vec![format!("*{previous}"); 9].join(", ")))
        .collect();
    vec![
        ("card.md", card(full)),
        ("windows.md", ["\u{feff}", &String::from_utf8_lossy(&card(full)).replace('\n', "\r\n")].concat().into()),
        ("scalar-alias.md", card("base_model: &b a/b\ntags: [*b, *b]")),
        ("alias-bomb.md", card(&format!("a: &a [x, x, x, x, x, x, x, x, x]\n{bomb}"))),
        ("long-alias.md", card(&format!("a: &a {}\ntags: [{}]", "x".repeat(2000), "*a, ".repeat(400)))),
        ("self-alias.md", card("a: &a [*a]")),
        ("deep-flow.md", card(&format!("a: {}", "[".repeat(3000)))),
        ("deep-block.md", card(&"- ".repeat(1500))),
        ("deep-keys.md", card(&"? ".repeat(1500))),
        ("tags.md", card("%YAML 1.2\n!!map {a: !local b, ? [c]: !!str d}")),
        ("broken.md", card("license: mit\ntags: [open\nx: 'y")),
        ("no-end.md", b"---\nlicense: mit\n".to_vec()),
        ("empty.md", b"---\n---\n".to_vec()),
        ("not-utf8.md", b"---\nlicense: \xff\n---\n".to_vec()),
    ]
}
