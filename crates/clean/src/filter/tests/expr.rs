use super::*;
use crate::filter::{FilterErrorKind, Kind, Op, Value, field, fields};

fn check(filters: &[(&str, bool)]) {
    with_flux(|flux| {
        for (filter, wanted) in filters {
            assert_eq!(holds(filter, &flux), *wanted, "{filter}");
        }
    });
}

#[test]
fn sizes_and_counts_compare_by_value() {
    check(&[
        ("size>9.84GB", true),
        ("size > 9.85 GB", false),
        ("size>=9.85GB", true),
        ("size<10GB", true),
        ("size<=9849999999", false),
        ("size=9850MB", true),
        ("size==9.85GB", true),
        ("size!=9.85GB", false),
        ("reclaimable=1.1GB", true),
        ("params>7B", true),
        ("context<8k", true),
    ]);
}

#[test]
fn times_compare_as_ages_and_with_dates() {
    check(&[
        ("used>29d", true),
        ("used>30d", false),
        ("used<30d", true),
        ("used>=4w", true),
        ("modified>1y", true),
        ("modified<=1y", false),
        ("used<2026-01-31", false),
        ("used<=2026-01-31", true),
        ("used>2026-01-30", true),
        ("used>2026-01-31", false),
        ("used>=2026-01-31", true),
        ("used=2026-01-31", true),
        ("used!=2026-01-31", false),
        ("used<2026-02-01", true),
        ("used<2026-01-31T10:00:01Z", true),
        ("used<2026-01-31T12:00:00+02:00", false),
        ("used=2026-01-31T12:00:00+02:00", true),
        ("used=never", false),
        ("used!=never", true),
    ]);
}

#[test]
fn texts_compare_without_regard_to_case() {
    check(&[
        ("format=MLX", true),
        ("format!=mlx", false),
        ("model~schnell", true),
        ("model~SCHNELL*", false),
        ("model~*schnell*", true),
        ("model!~schnell", false),
        ("repo~mzbac/*", true),
        ("repo~*/flux1", false),
        ("base~flux.1", true),
        ("license=apache-2.0", true),
        ("health!=ok", true),
    ]);
}

#[test]
fn labels_are_normalised() {
    check(&[
        ("quantization=4-bit", true),
        ("quantization=int4", true),
        ("quant=q4", true),
        ("quantization!=4_bits", false),
        ("quantization=8bit", false),
        ("precision=bfloat16", true),
        ("quantization~4*", true),
    ]);
}

#[test]
fn lists_ask_for_any() {
    check(&[
        ("tags=flux", true),
        ("tags=flu", false),
        ("tags~flu", true),
        ("tags!=flux", false),
        ("tags!=audio", true),
        ("tags!~audio", true),
        ("refs=main", true),
        ("refs=none", false),
        ("problem=no_config", true),
        ("problem~missing", true),
        ("store=hub", true),
        ("store=/models/hub", true),
        ("store=HUB=/models/hub", true),
        ("store=lmstudio", false),
    ]);
    assert!(holds("refs=none, tags=none, problem=none", &Facts::default()));
    assert!(holds("tags!=flux", &Facts::default()));
}

#[test]
fn yes_or_no_stands_alone_or_with_a_value() {
    check(&[
        ("present", true),
        ("!present", false),
        ("present=yes", true),
        ("present!=false", true),
        ("pinned", false),
        ("! pinned", true),
        ("detached=no", true),
        ("fused,present", true),
    ]);
}

#[test]
fn conditions_are_joined() {
    check(&[
        ("size>5GB,tags=flux", true),
        ("size>5GB , tags=flux , pinned", false),
        ("size>5GB and !pinned", true),
        ("size>5GB AND tags=flux && format=mlx", true),
        ("size>5GB&&pinned", false),
        ("model=\"a, b and c\"", false),
        ("model!='a, b and c',present", true),
        ("model!=android", true),
        ("present and !pinned", true),
        ("model != brand and present", true),
    ]);
}

#[test]
fn what_is_not_known_matches_only_unknown() {
    let bare = Facts { model: "bare", store: "folder=/m", ..Facts::default() };
    let mut optional = 0;
    for field in fields() {
        let known = field.value(&bare).is_some();
        optional += usize::from(!known);
        let name = field.name;
        if field.kind != Kind::List {
            assert_eq!(holds(&format!("{name}=unknown"), &bare), !known, "{name}");
            assert_eq!(holds(&format!("{name}!=unknown"), &bare), known, "{name}");
        }
        let values = match field.kind {
            Kind::Bytes | Kind::Count | Kind::Number => [">0", "<1", "=0", "!=0"],
            Kind::Age => [">0", "<1d", "=2026-01-01", "!=2026-01-01"],
            Kind::Bool => ["=true", "=false", "!=true", "!=false"],
            _ => ["=x", "!=x", "~x", "!~x"],
        };
        if !known {
            for value in values {
                assert!(!holds(&format!("{name}{value}"), &bare), "{name}{value}");
            }
        }
    }
    assert_eq!(optional, 25);
    check(&[("size=unknown", false), ("size!=unknown", true), ("format!=unknown", true)]);
}

#[test]
fn every_row_of_the_table_is_sound() {
    with_flux(|flux| {
        let mut names: Vec<&str> = Vec::new();
        for row in fields() {
            names.extend(std::iter::once(row.name).chain(row.aliases.iter().copied()));
            let value = row.value(&flux).unwrap_or_else(|| panic!("{} is not filled", row.name));
            let right = match row.kind {
                Kind::Bytes | Kind::Count => matches!(value, Value::Whole(_)),
                Kind::Number => matches!(value, Value::Number(_)),
                Kind::Age => matches!(value, Value::Time(_)),
                Kind::Text | Kind::Label => matches!(value, Value::Text(_)),
                Kind::Bool => matches!(value, Value::Bool(_)),
                Kind::List => matches!(value, Value::List(_)),
            };
            assert!(right, "{}: {value:?}", row.name);
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name means two fields");
        assert!(names.iter().all(|name| field(name).is_some()));
    });
    assert_eq!(field("Size-Bytes").unwrap().name, "size");
}

#[test]
fn errors_say_where_and_what_instead() {
    let cases = [
        ("sise>5GB", "`sise>5GB`, character 1: unknown field `sise`; did you mean `size`"),
        ("size>1GB,qwant=4bit", "character 10: unknown field `qwant`; did you mean `quant`"),
        ("zzzzzz=1", "the fields are model, repo,"),
        ("size>big", "character 6: `size` is a number of bytes; `big` is not"),
        ("size>big", "write 1.5GB or 1MiB"),
        ("size>99999EB", "too large"),
        (
            "size~5",
            "character 5: `size` is a number of bytes, which takes `>`, `>=`, `<`, `<=`, `=` or `!=`, not `~`",
        ),
        ("format>mlx", "takes `=`, `!=`, `~` or `!~`, not `>`"),
        ("pinned>1", "`pinned` is yes or no, which takes `=` or `!=`"),
        ("pinned=maybe", "write true or false"),
        ("used>30", "needs a unit"),
        ("used>6M", "mo (30 days)"),
        ("used=30d", "never exactly an age"),
        ("used>never", "it goes with `=` and `!=`"),
        ("used>2026-13-45", "write 30d"),
        ("size>", "character 6: expected a value after `>`, found the end"),
        ("size", "after `size`, found the end"),
        ("size>=>5", "expected one operator"),
        ("size 5GB", "after `size`, found `5GB`"),
        ("size>5GB,", "character 10: expected a condition such as `size>5GB`, found the end"),
        ("size>5GB and ", "expected a condition"),
        (",", "expected a condition such as `size>5GB`, found `,`"),
        ("model~\"\"", "expected a value after `~`, found"),
        ("model=\"x", "expected a closing `\"`"),
        ("model='x' y", "after the quoted value"),
        ("!size>5", "only before a yes-or-no field"),
        ("model~[x", "not a valid glob"),
        ("  ", "it is empty"),
        ("ü>5", "unknown field `ü`"),
        ("modèl=ü, bogus=1", "character 1: unknown field `modèl`; did you mean `model`"),
        ("model=ü, bogus=1", "character 10: unknown field `bogus`"),
    ];
    for (filter, wanted) in cases {
        let message = refused(filter);
        assert!(message.contains(wanted), "{filter}: {message}");
        assert!(message.starts_with("--filter `"), "{message}");
    }
    let error = parse_exprs("sise>5").unwrap_err();
    assert!(matches!(*error.kind, FilterErrorKind::UnknownField { ref near, .. } if near[0] == "size"));
}

#[test]
fn an_expression_writes_itself() {
    for (given, written) in [
        ("size  >  1.5 GB", "size>\"1.5 GB\""),
        ("quant==int4", "quantization=int4"),
        ("!pinned", "pinned=false"),
        ("model='a\"b'", "model='a\"b'"),
    ] {
        let exprs = parse_exprs(given).unwrap();
        assert_eq!(exprs[0].to_string(), written);
        assert_eq!(parse_exprs(written).unwrap()[0].to_string(), written);
    }
    assert_eq!(parse_exprs("size>=1").unwrap()[0].op(), Op::GreaterOrEqual);
}

#[test]
fn a_new_field_is_one_row() {
    use crate::filter::{Expr, Field};
    static SPEED: Field = Field {
        name: "tps",
        aliases: &[],
        kind: Kind::Number,
        about: "",
        get: |f| f.params.map(|n| Value::Number(n as f64 / 8.0)),
    };
    let holds = |op, value, params| {
        let facts = Facts { params, ..Facts::default() };
        Expr::new(&SPEED, op, value).unwrap().matches(&facts, now())
    };
    assert!(holds(Op::Less, "20.5", Some(160)));
    assert!(!holds(Op::Less, "20", Some(160)));
    assert!(holds(Op::Equal, "20", Some(160)));
    assert!(!holds(Op::NotEqual, "20", None) && holds(Op::Equal, "unknown", None));
    for value in ["NaN", "inf", "fast", ""] {
        assert!(Expr::new(&SPEED, Op::Less, value).is_err());
    }
}
