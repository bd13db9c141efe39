use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::formats::mutate::{damage, damaged};

fn file(json: &str, data: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.resize(bytes.len() + data, 7);
    bytes
}

fn read(bytes: &[u8]) -> Result<SafetensorsHeader, HeaderError> {
    SafetensorsHeader::read(&mut &*bytes, bytes.len() as u64)
}

fn header(json: &str) -> SafetensorsHeader {
    read(&file(json, 0)).unwrap()
}

fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

const TWO: &str = r#"{"__metadata__":{"format":"mlx"},
    "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[16,28]},
    "a":{"dtype":"F32","shape":[4],"data_offsets":[0,16],"extra":[1,{"x":[]}]}}   "#;

#[test]
fn tensors_come_in_the_order_of_their_data() {
    let bytes = file(TWO, 28);
    let header = read(&bytes).unwrap();
    let names: Vec<_> = header.tensors.iter().map(|t| (&*t.name, t.dtype.clone(), &t.shape[..])).collect();
    assert_eq!(names, [("a", Dtype::F32, &[4][..]), ("b", Dtype::BF16, &[2, 3][..])]);
    assert_eq!(header.metadata["format"], "mlx");
    assert_eq!(header.header_len, TWO.len() as u64);
    assert_eq!((header.data_len_expected(), header.file_len_expected()), (28, bytes.len() as u64));
    assert_eq!(header.flaws, []);
}

#[test]
fn only_the_header_is_read() {
    let bytes = file(TWO, 28);
    let mut reader = &bytes[..];
    SafetensorsHeader::read(&mut reader, bytes.len() as u64).unwrap();
    assert_eq!(reader.len(), 28);
}

#[test]
fn the_length_verdict_tells_short_from_long() {
    let whole = file(TWO, 28).len() as u64;
    let header = read(&file(TWO, 28)).unwrap();
    assert_eq!(header.length_verdict(whole), LengthVerdict::Complete);
    assert_eq!(header.length_verdict(whole + 3), LengthVerdict::Trailing { extra: 3 });
    let short = LengthVerdict::Truncated { expected: whole, actual: whole - 1 };
    assert_eq!(header.length_verdict(whole - 1), short);
    let beyond: Vec<_> = header.tensors_beyond(whole - 1).map(|t| &*t.name).collect();
    assert_eq!(beyond, ["b"]);
    assert_eq!(header.tensors_beyond(whole).count(), 0);
}

#[test]
fn a_truncated_file_still_tells_its_tensors() {
    let header = read(&file(TWO, 5)).unwrap();
    assert_eq!(header.tensors.len(), 2);
    assert!(matches!(header.length_verdict(8 + header.header_len + 5), LengthVerdict::Truncated { .. }));
}

#[test]
fn a_huge_length_is_refused_unread() {
    for len in [MAX_HEADER_LEN + 1, u64::MAX, 1 << 63] {
        let error = SafetensorsHeader::read(&mut &len.to_le_bytes()[..], u64::MAX).unwrap_err();
        assert!(matches!(error, HeaderError::TooLarge { len: l } if l == len), "{error}");
    }
}

#[test]
fn the_longest_allowed_length_takes_no_memory_before_it_is_read() {
    let bytes = MAX_HEADER_LEN.to_le_bytes();
    let error = SafetensorsHeader::read(&mut &bytes[..], u64::MAX).unwrap_err();
    assert!(
        matches!(error, HeaderError::Truncated { expected, actual: 8 } if expected == MAX_HEADER_LEN + 8),
        "{error}"
    );
}

#[test]
fn a_file_that_ends_in_its_header_is_truncated() {
    let bytes = file(TWO, 0);
    for len in 0..bytes.len() {
        let error = read(&bytes[..len]).unwrap_err();
        assert!(
            matches!(error, HeaderError::Truncated { actual, .. } if actual == len as u64),
            "{len}: {error}"
        );
    }
}

#[test]
fn text_in_place_of_weights_is_recognised() {
    for text in ["version https://git-lfs.github.com/spec/v1\n", "<!DOCTYPE html>", "{\"error\":\"gated\"}"] {
        assert!(matches!(read(text.as_bytes()), Err(HeaderError::Text { .. })), "{text}");
    }
}

#[test]
fn what_is_not_the_formats_json_is_an_error() {
    let cases = [
        "",
        "[]",
        "{",
        "null",
        "{} x",
        "{\"t\":1}",
        "{\"t\":{}}",
        "{\"__metadata__\":[]}",
        "{\"t\":{\"dtype\":\"F32\",\"shape\":[]}}",
        "{\"t\":{\"shape\":[],\"data_offsets\":[0,4]}}",
        "{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}",
        "{\"t\":{\"dtype\":4,\"shape\":[],\"data_offsets\":[0,4]}}",
        "{\"t\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
    ];
    for json in cases {
        let error = read(&file(json, 0)).unwrap_err();
        assert!(matches!(error, HeaderError::Json { .. }), "{json}: {error}");
    }
    assert!(matches!(read(&file("{\"\\ud800\":1}", 0)), Err(HeaderError::Json { .. })));
    let bytes = [&2u64.to_le_bytes()[..], b"{\xff"].concat();
    assert!(matches!(read(&bytes), Err(HeaderError::Json { .. })));
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    for open in ["[", "{\"a\":"] {
        let deep = open.repeat(100_000);
        let places = [
            deep.clone(),
            format!("{{\"t\":{deep}"),
            format!("{{\"__metadata__\":{{\"k\":{deep}"),
            format!("{{\"t\":{{\"shape\":{deep}"),
            format!("{{\"t\":{{\"data_offsets\":{deep}"),
            format!("{{\"t\":{{\"other\":{deep}"),
        ];
        for json in places {
            assert!(matches!(read(&file(&json, 0)), Err(HeaderError::Json { .. })));
        }
    }
}

#[test]
fn offsets_that_are_not_whole_numbers_name_the_tensor() {
    let cases = [
        "[-1,4]",
        "[0,4.0]",
        "[0,4.5]",
        "[0,\"4\"]",
        "[0,18446744073709551616]",
        "[0]",
        "[0,1,2]",
        "[null,1]",
    ];
    for offsets in cases {
        let error = read(&file(&one("F32", "[1]", offsets), 0)).unwrap_err();
        assert!(
            matches!(&error, HeaderError::OffsetsInvalid { tensor } if &**tensor == "t"),
            "{offsets}: {error}"
        );
    }
    let error = read(&file(&one("F32", "[-1]", "[0,4]"), 0)).unwrap_err();
    assert!(matches!(error, HeaderError::ShapeInvalid { .. }), "{error}");
}

#[test]
fn flaws_leave_the_header_readable() {
    let tensor = || Box::<str>::from("t");
    let max = u64::MAX;
    let cases = [
        (one("F32", "[1]", "[4,0]"), vec![Flaw::EndBeforeBegin { tensor: tensor(), begin: 4, end: 0 }]),
        (one("F32", "[2]", "[0,4]"), vec![Flaw::SizeMismatch { tensor: tensor(), expected: 8, actual: 4 }]),
        (one("F32", "[1]", "[8,12]"), vec![Flaw::Hole { tensor: tensor(), begin: 0, end: 8 }]),
        (one("F4", "[3]", "[0,2]"), vec![Flaw::SizeImpossible { tensor: tensor() }]),
        (one("F32", &format!("[{max},{max}]"), "[0,4]"), vec![Flaw::SizeImpossible { tensor: tensor() }]),
        (one("U8", &format!("[{max},{max},0]"), "[0,0]"), vec![]),
        (one("F4", "[4]", "[0,2]"), vec![]),
        (one("X9", "[4]", "[0,2]"), vec![Flaw::UnknownDtype { tensor: tensor(), dtype: "X9".into() }]),
        (one("F32", "[]", "[0,4]"), vec![]),
    ];
    for (json, flaws) in cases {
        assert_eq!(header(&json).flaws, flaws, "{json}");
    }
    let huge = header(&one("U8", "[1]", &format!("[0,{max}]")));
    assert_eq!(huge.length_verdict(100), LengthVerdict::Truncated { expected: max, actual: 100 });
}

#[test]
fn overlaps_are_found() {
    let json = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                   "b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    assert_eq!(header(json).flaws, [Flaw::Overlap { tensor: "b".into(), begin: 2, previous_end: 4 }]);
}

#[test]
fn of_duplicates_the_last_counts() {
    let json = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"__metadata__":{"x":"1","y":"2"},
                   "a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},"__metadata__":{"x":"3"},
                   "a":{"dtype":"I8","shape":[5],"data_offsets":[0,5]}}"#;
    let header = header(json);
    assert_eq!(header.tensors.len(), 1);
    assert_eq!(header.tensors[0].shape, [5]);
    assert_eq!(header.metadata, BTreeMap::from([("x".into(), "3".into())]));
    let names = ["__metadata__", "a"].map(|name| Flaw::Duplicate { name: name.into() });
    assert_eq!(header.flaws, names);
}

#[test]
fn metadata_that_is_not_text_is_kept_where_it_can_be() {
    let header = header(r#"{"__metadata__":{"n":1,"b":true,"l":[[1],{"a":2}],"z":null,"s":"x"}}"#);
    let kept: Vec<_> = header.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(kept, [("b", "true"), ("n", "1"), ("s", "x")]);
    assert_eq!(header.flaws.len(), 4);
    assert_eq!(
        self::header(r#"{"__metadata__":null}"#),
        SafetensorsHeader { header_len: 21, ..Default::default() }
    );
}

#[test]
fn types_keep_their_names() {
    for dtype in Dtype::ALL {
        assert_eq!(&Dtype::from_name(dtype.name()), dtype);
        assert!(dtype.bits().is_some());
    }
    assert_eq!(Dtype::F8_E4M3.label(), "f8_e4m3");
    assert_eq!(Dtype::F8_E4M3.to_string(), "F8_E4M3");
    assert!(Dtype::BF16.is_float() && !Dtype::Bool.is_float() && !Dtype::U32.is_float());
}

/// A model of 300,000 tensors in a thousand files. The bound is for an unoptimised build on a busy machine.
#[test]
fn a_thousand_headers_are_read_quickly() {
    let entries: Vec<_> = (0..300)
        .map(|i| {
            format!(
                r#""model.layers.{i}.self_attn.q_proj.weight":{{"dtype":"U32","shape":[4096,512],"data_offsets":[{},{}]}}"#,
                i * 8_388_608u64,
                (i + 1) * 8_388_608u64
            )
        })
        .collect();
    let bytes = file(&format!("{{{}}}", entries.join(",")), 0);
    let start = Instant::now();
    for _ in 0..1000 {
        assert_eq!(read(&bytes).unwrap().tensors.len(), 300);
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

fn entries() -> impl Strategy<Value = Vec<(String, Dtype, Vec<u64>)>> {
    let dtype = prop::sample::select(Dtype::ALL).prop_filter("whole bytes", |d| d.bits().unwrap() % 8 == 0);
    prop::collection::vec(("\\PC{0,20}", dtype, prop::collection::vec(0u64..9, 0..4)), 0..12).prop_map(
        |mut list| {
            list.sort_by(|a, b| a.0.cmp(&b.0));
            list.dedup_by(|a, b| a.0 == b.0);
            list.retain(|e| e.0 != "__metadata__");
            list
        },
    )
}

fn encode(entries: &[(String, Dtype, Vec<u64>)]) -> (Vec<u8>, Vec<TensorInfo>) {
    let (mut map, mut tensors, mut begin) = (serde_json::Map::new(), Vec::new(), 0);
    map.insert("__metadata__".into(), serde_json::json!({"format": "mlx"}));
    for (name, dtype, shape) in entries {
        let end = begin + shape.iter().product::<u64>() * dtype.bits().unwrap() / 8;
        let entry = serde_json::json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [begin, end]});
        map.insert(name.clone(), entry);
        let (name, dtype, shape) = (name.as_str().into(), dtype.clone(), shape.clone());
        tensors.push(TensorInfo { name, dtype, shape, begin, end });
        begin = end;
    }
    (file(&serde_json::Value::Object(map).to_string(), begin as usize), tensors)
}

proptest! {
    #[test]
    fn a_valid_file_round_trips(entries in entries()) {
        let (bytes, mut tensors) = encode(&entries);
        let mut header = read(&bytes).unwrap();
        prop_assert_eq!(&header.flaws, &[]);
        prop_assert_eq!(header.length_verdict(bytes.len() as u64), LengthVerdict::Complete);
        // Empty tensors share their offsets, so the order among them is not the data's.
        let order = |t: &TensorInfo| (t.begin, t.end, t.name.clone());
        header.tensors.sort_by_key(order);
        tensors.sort_by_key(order);
        prop_assert_eq!(header.tensors, tensors);
    }

    #[test]
    fn damage_never_panics(entries in entries(), damage in damage()) {
        let bytes = damaged(encode(&entries).0, &damage);
        if let Ok(header) = read(&bytes) {
            header.length_verdict(bytes.len() as u64);
            prop_assert!(header.tensors.is_sorted_by_key(|t| t.begin));
        }
    }

    #[test]
    fn truncation_never_panics(entries in entries()) {
        let bytes = encode(&entries).0;
        let header_end = 8 + read(&bytes).unwrap().header_len as usize;
        for len in 0..bytes.len() {
            prop_assert_eq!(read(&bytes[..len]).is_ok(), len >= header_end);
        }
    }
}
