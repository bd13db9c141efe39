use proptest::prelude::*;

use super::*;
use crate::filter::quantity::{
    format_age, format_bytes, format_count, format_exact_age, parse_age, parse_bytes, parse_count,
};
use crate::filter::{Kind, fields, normalize_quantization};
use chrono::TimeDelta;

fn size_texts() -> impl Strategy<Value = (u64, u32, &'static str)> {
    (0..1_000_000_u64, 0..6_u32, prop::sample::select(vec!["", "B", "kB", "MB", "GB", "KiB", "MiB", "GiB"]))
}

fn conditions() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "size>5GB",
        "size<5GB",
        "size=unknown",
        "used>30d",
        "pinned",
        "!pinned",
        "tags=a",
        "tags!=a",
        "format=mlx",
        "format~m",
        "quantization=4bit",
        "params>=7B",
        "detached=false",
        "store=hub",
        "problem=none",
    ])
    .prop_map(str::to_owned)
}

prop_compose! {
    fn models()(
        size in prop::option::of(0..10_000_000_000_u64),
        params in prop::option::of(0..9_000_000_000_u64),
        tags in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..2),
        format in prop::option::of(prop::sample::select(vec!["mlx", "gguf"])),
        quantization in prop::option::of(prop::sample::select(vec!["q4", "bf16"])),
        days in prop::option::of(-5..90_i64),
        pinned: bool,
        detached: Option<bool>,
    ) -> (Facts<'static>, Vec<String>) {
        let facts = Facts {
            model: "m", store: "hub=/m", size_bytes: size, params, format, quantization, pinned, detached,
            used: days.map(|days| now() - TimeDelta::days(days)),
            ..Facts::default()
        };
        (facts, words(&tags))
    }
}

proptest! {
    #[test]
    fn nothing_that_is_given_panics(text in ".*", field in prop::sample::select(fields().to_vec())) {
        let _ = parse_exprs(&text);
        let _ = parse_exprs(&format!("{}={text}", field.name));
        let _ = parse_exprs(&format!("{}>{text}", field.name));
        let _ = parse_exprs(&format!("{}~{text}", field.name));
        let _ = (parse_bytes(&text), parse_count(&text), parse_age(&text), normalize_quantization(&text));
        let all = words(&[&text]);
        let args = FilterArgs {
            models: all.clone(), tags: all.clone(), quantization: all.clone(), stores: all.clone(),
            filters: Vec::new(), ..FilterArgs::default()
        };
        if let Ok(set) = FilterSet::parse(&args) {
            let facts = Facts { model: &text, store: &text, tags: &all, ..Facts::default() };
            let _ = set.matches(&facts, now());
            let _ = crate::filter::near_misses(&set, &[facts, Facts::default()], &[], now());
        }
    }

    #[test]
    fn near_syntax_does_not_panic_either(text in "[a-z!=<>~,&\"' 0-9.*\\[émKGB-]{0,40}") {
        if let Ok(exprs) = parse_exprs(&text) {
            prop_assert!(!exprs.is_empty());
            for expr in exprs {
                let _ = expr.matches(&Facts::default(), now());
            }
        }
        let _ = parse_exprs(&format!("model={text}"));
        let _ = parse_exprs(&format!("size>{text}"));
    }

    #[test]
    fn any_value_can_be_quoted(value in "[^\"]{1,20}") {
        let exprs = parse_exprs(&format!("model=\"{value}\", present")).unwrap();
        prop_assert_eq!(exprs.len(), 2);
        prop_assert_eq!(exprs[0].value(), value.as_str());
        let again = parse_exprs(&exprs[0].to_string()).unwrap();
        prop_assert_eq!(again[0].value(), value.as_str());
    }

    #[test]
    fn what_is_written_is_read_back_nearly(value: u64) {
        let off_by = |read: u64| read.abs_diff(value) as u128 * 200 <= u128::from(value);
        let text = format_bytes(value);
        prop_assert!(off_by(parse_bytes(&text).unwrap()), "{value} {text}");
        prop_assert!(!text.starts_with("1000"));
        prop_assert_eq!(format_bytes(parse_bytes(&text).unwrap()), text);
        let text = format_count(value);
        prop_assert!(off_by(parse_count(&text).unwrap()), "{value} {text}");
        prop_assert_eq!(format_count(parse_count(&text).unwrap()), text);
    }

    #[test]
    fn small_values_are_written_as_well(value in 0..2_000_000_u64) {
        let read = parse_bytes(&format_bytes(value)).unwrap();
        prop_assert!(read.abs_diff(value) * 200 <= value);
        prop_assert!(format_bytes(value).chars().filter(char::is_ascii_digit).count() <= 3);
    }

    #[test]
    fn writing_keeps_the_order(a: u64, b: u64) {
        let (less, more) = (a.min(b), a.max(b));
        prop_assert!(parse_bytes(&format_bytes(less)).unwrap() <= parse_bytes(&format_bytes(more)).unwrap());
    }

    #[test]
    fn an_age_is_read_back_rounded_down(seconds in 0..10_000_000_000_i64) {
        let age = TimeDelta::seconds(seconds);
        let read = parse_age(&format_age(age)).unwrap();
        prop_assert!(read <= age && age <= read * 2 + TimeDelta::seconds(1), "{} {}", seconds, format_age(age));
        prop_assert_eq!(format_age(read), format_age(age));
        prop_assert_eq!(parse_age(&format_exact_age(age)).unwrap(), age);
    }

    #[test]
    fn sizes_are_exact_and_monotone((digits, places, unit) in size_texts(), more in 0..1_000_u64) {
        let read = |digits: u64| {
            let scale = 10_u64.pow(places);
            parse_bytes(&format!("{}.{:0width$}{unit}", digits / scale, digits % scale, width = places.max(1) as usize))
        };
        let factor = parse_bytes(&format!("1{unit}")).unwrap();
        let exact = digits * factor / 10_u64.pow(places);
        match read(digits) {
            Ok(bytes) => prop_assert_eq!(bytes, exact),
            Err(_) => prop_assert!(factor == 1 && digits % 10_u64.pow(places) != 0),
        }
        if let (Ok(less), Ok(more)) = (read(digits), read(digits + more)) {
            prop_assert!(less <= more);
        }
    }

    #[test]
    fn another_condition_only_narrows(a in conditions(), b in conditions(), (facts, tags) in models()) {
        let facts = Facts { tags: &tags, ..facts };
        let both = holds(&format!("{a}, {b}"), &facts);
        prop_assert_eq!(both, holds(&a, &facts) && holds(&b, &facts));
        prop_assert_eq!(both, holds(&format!("{b} and {a}"), &facts));
        let args = FilterArgs { filters: vec![a, b], tags: words(&["a"]), ..FilterArgs::default() };
        prop_assert!(!set(&args).matches(&facts, now()) || both);
    }

    #[test]
    fn equal_and_unequal_part_what_is_known((facts, tags) in models()) {
        let facts = Facts { tags: &tags, ..facts };
        for field in fields() {
            let value = match field.kind {
                Kind::Bytes | Kind::Count | Kind::Number => "5000000000",
                Kind::Age => "2026-02-15",
                Kind::Bool => "true",
                _ => "a",
            };
            let name = field.name;
            let [equal, unequal] = ["=", "!="].map(|op| holds(&format!("{name}{op}{value}"), &facts));
            prop_assert!(!(equal && unequal));
            prop_assert_eq!(equal || unequal, field.value(&facts).is_some(), "{}", name);
            if field.kind.operators().contains('<') && field.kind != Kind::Age {
                let [less, more] = ["<", ">"].map(|op| holds(&format!("{name}{op}{value}"), &facts));
                prop_assert_eq!(unequal, less || more);
            }
        }
    }
}
