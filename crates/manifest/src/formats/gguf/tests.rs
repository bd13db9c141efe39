use proptest::prelude::*;

use super::*;
use crate::formats::mutate::{damage, damaged};

/// Writes GGUF the way gguf-py does.
#[derive(Clone, Debug, Default)]
struct Writer {
    entries: u64,
    metadata: Vec<u8>,
    count: u64,
    infos: Vec<u8>,
    data_len: u64,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn array(item: u32, count: u64, items: &[u8]) -> Vec<u8> {
    [&item.to_le_bytes()[..], &count.to_le_bytes(), items].concat()
}

impl Writer {
    fn entry(mut self, key: &str, id: u32, value: &[u8]) -> Self {
        self.entries += 1;
        self.metadata.extend([&text(key)[..], &id.to_le_bytes(), value].concat());
        self
    }

    fn str(self, key: &str, value: &str) -> Self {
        self.entry(key, 8, &text(value))
    }

    fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    fn tensor(mut self, name: &str, dims: &[u64], ggml_type: GgmlType) -> Self {
        let offset = self.data_len;
        let (len, bytes) = ggml_type.block().unwrap();
        self.data_len = (offset + dims.iter().product::<u64>() / len * bytes).next_multiple_of(32);
        self.tensor_at(name, dims, ggml_type.id(), offset)
    }

    fn tensor_at(mut self, name: &str, dims: &[u64], id: u32, offset: u64) -> Self {
        self.count += 1;
        self.infos.extend(text(name));
        self.infos.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|d| self.infos.extend(d.to_le_bytes()));
        self.infos.extend([&id.to_le_bytes()[..], &offset.to_le_bytes()].concat());
        self
    }

    fn header(&self) -> Vec<u8> {
        let counts = [self.count.to_le_bytes(), self.entries.to_le_bytes()].concat();
        [b"GGUF\x03\0\0\0", &counts[..], &self.metadata, &self.infos].concat()
    }

    fn file(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.resize(bytes.len().next_multiple_of(32) + self.data_len as usize, 7);
        bytes
    }
}

fn read(bytes: &[u8]) -> Result<GgufHeader, GgufError> {
    GgufHeader::read(&mut &*bytes, bytes.len() as u64)
}

fn llama() -> Writer {
    Writer::default()
        .str("general.architecture", "llama")
        .str("general.name", "Tiny")
        .u32("general.file_type", 15)
        .u32("llama.block_count", 2)
        .u32("llama.context_length", 4096)
        .entry("llama.attention.head_count", 9, &array(5, 2, &[8, 0, 0, 0, 4, 0, 0, 0]))
        .entry("llama.rope.freq_base", 6, &10_000f32.to_le_bytes())
        .entry("general.tags", 9, &array(8, 2, &[text("chat"), text("en")].concat()))
        .str("tokenizer.ggml.model", "gpt2")
        .entry("tokenizer.ggml.tokens", 9, &array(8, 3, &[text("a"), text(""), text("ccc")].concat()))
        .entry("tokenizer.ggml.scores", 9, &array(6, 3, &[0; 12]))
        .str("tokenizer.chat_template", "{{ x }}")
        .entry("general.quantized", 7, &[1])
        .tensor("token_embd.weight", &[256, 3], GgmlType::Q4_K)
        .tensor("norm.weight", &[256], GgmlType::F32)
        .tensor("output.weight", &[256, 3], GgmlType::Q6_K)
}

#[test]
fn a_header_tells_shape_origin_and_tensors() {
    let header = read(&llama().file()).unwrap();
    assert_eq!((header.version, header.alignment), (3, 32));
    assert_eq!(header.architecture(), Some("llama"));
    assert_eq!(header.str("general.name"), Some("Tiny"));
    assert_eq!((header.file_type(), header.file_type_label()), (Some(15), Some("Q4_K_M")));
    assert_eq!((header.arch_u64("block_count"), header.arch_u64("context_length")), (Some(2), Some(4096)));
    assert_eq!((header.token_count, header.vocab_size()), (Some(3), Some(3)));
    let heads = header.arch_value("attention.head_count").unwrap();
    assert_eq!(heads, &GgufValue::List(vec![GgufValue::Signed(8), GgufValue::Signed(4)]));
    let tags: Vec<_> =
        header.metadata["general.tags"].as_list().unwrap().iter().map(|t| t.as_str()).collect();
    assert_eq!(tags, [Some("chat"), Some("en")]);
    assert_eq!(header.metadata["general.quantized"].as_bool(), Some(true));
    assert_eq!(header.arch_value("rope.freq_base").unwrap().as_f64(), Some(10_000.0));
    assert_eq!(header.str("tokenizer.ggml.model"), Some("gpt2"));
    assert!(!header.metadata.keys().any(|k| k.contains("tokens") || k.contains("template")));
    let tensors: Vec<_> =
        header.tensors.iter().map(|t| (&*t.name, t.ggml_type.to_string(), t.byte_len())).collect();
    let expected =
        [("token_embd.weight", "Q4_K", 432), ("norm.weight", "F32", 1024), ("output.weight", "Q6_K", 630)];
    assert_eq!(tensors, expected.map(|(n, t, b)| (n, t.to_owned(), Some(b))));
    assert_eq!(header.element_count(), Some(256 * 7));
    assert_eq!(header.bits_per_weight(), Some((432.0 + 1024.0 + 630.0) * 8.0 / (256.0 * 7.0)));
    assert_eq!(header.split(), None);
    assert_eq!(header.flaws, []);
}

/// The file was written by llama.cpp's own Python package: 3x8 floats, and 2x64 in Q8_0.
#[test]
fn a_file_of_ggufs_own_writer_is_sound() {
    let bytes = include_bytes!("tests/gguf-py.gguf");
    let header = read(bytes).unwrap();
    assert_eq!(header.flaws, []);
    assert_eq!(header.length_verdict(bytes.len() as u64), Some(LengthVerdict::Complete));
    assert_eq!((header.token_count, header.file_type_label()), (Some(2), Some("Q4_K_M")));
    let heads = header.arch_value("attention.head_count_kv").and_then(GgufValue::as_list).unwrap();
    assert_eq!(heads.iter().map(GgufValue::as_u64).collect::<Vec<_>>(), [Some(2), Some(4)]);
    let tensors: Vec<_> =
        header.tensors.iter().map(|t| (&*t.name, &t.dims[..], t.ggml_type, t.offset)).collect();
    assert_eq!(tensors, [("a", &[8, 3][..], GgmlType::F32, 0), ("b", &[64, 2], GgmlType::Q8_0, 96)]);
}

#[test]
fn version_2_is_read_and_others_are_not() {
    let mut bytes = llama().file();
    bytes[4] = 2;
    assert_eq!(read(&bytes).unwrap().version, 2);
    for version in [0, 1, 4] {
        bytes[4] = version;
        assert!(matches!(read(&bytes), Err(GgufError::Version { version: v }) if v == u32::from(version)));
    }
}

#[test]
fn other_files_are_told_apart() {
    let start =
        |start: &str| matches!(read(b"tjgg\x03\0\0\0"), Err(GgufError::NotGguf { start: s }) if s == start);
    assert!(start("tjgg"));
    assert!(matches!(read(b"vers"), Err(GgufError::NotGguf { .. })));
    assert!(matches!(read(b"GGUF\0\0\0\x03"), Err(GgufError::BigEndian)));
    assert!(matches!(read(b"FUGG\0\0\0\x03"), Err(GgufError::BigEndian)));
    assert!(matches!(read(b""), Err(GgufError::Truncated { offset: 0, needed: 4, actual: 0 })));
}

#[test]
fn the_length_verdict_allows_for_padding() {
    let bytes = llama().file();
    let header = read(&bytes).unwrap();
    let (padded, expected) = (bytes.len() as u64, header.file_len_expected().unwrap());
    assert_eq!(padded - expected, 10);
    for len in [expected, expected + 1, padded] {
        assert_eq!(header.length_verdict(len), Some(LengthVerdict::Complete));
    }
    assert_eq!(header.length_verdict(padded + 5), Some(LengthVerdict::Trailing { extra: 5 }));
    let short = LengthVerdict::Truncated { expected, actual: expected - 1 };
    assert_eq!(header.length_verdict(expected - 1), Some(short));
}

#[test]
fn a_split_without_tensors_is_complete() {
    let writer = llama_split();
    let header = read(&writer.header()).unwrap();
    assert_eq!(header.split(), Some(GgufSplit { no: 0, count: 3, tensors: Some(9) }));
    assert_eq!(header.length_verdict(header.header_len), Some(LengthVerdict::Complete));
    assert_eq!(header.length_verdict(header.data_offset), Some(LengthVerdict::Complete));
    assert_eq!(header.bits_per_weight(), None);
}

fn llama_split() -> Writer {
    Writer::default().entry("split.no", 2, &[0, 0]).entry("split.count", 2, &[3, 0]).entry(
        "split.tensors.count",
        5,
        &[9, 0, 0, 0],
    )
}

#[test]
fn hostile_counts_are_refused_before_anything_is_allocated() {
    for (at, what) in [(8, "tensors"), (16, "metadata entries")] {
        for count in [u64::MAX, MAX_COUNT + 1, 1000] {
            let mut bytes = Writer::default().header();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            let error = read(&bytes).unwrap_err();
            assert!(matches!(error, GgufError::Count { what: w, .. } if w == what), "{error}");
        }
    }
    let huge = u64::MAX.to_le_bytes();
    let hostile = [
        Writer::default().entry("general.name", 8, &huge),
        Writer::default().entry("general.tags", 9, &array(8, u64::MAX, &[])),
        Writer::default().entry("general.tags", 9, &array(8, 1000, &huge)),
        Writer::default().entry("x", 9, &array(12, u64::MAX / 8 + 1, &[])),
        Writer::default().entry("x", 9, &array(9, u64::MAX, &[])),
    ];
    for writer in hostile {
        let error = read(&writer.header()).unwrap_err();
        assert!(matches!(error, GgufError::Truncated { .. }), "{error}");
    }
}

#[test]
fn a_file_length_that_lies_costs_no_memory() {
    let writer = Writer::default().entry("general.name", 8, &(u64::MAX >> 1).to_le_bytes());
    let error = GgufHeader::read(&mut &writer.header()[..], u64::MAX).unwrap_err();
    assert!(matches!(error, GgufError::TooLarge), "{error}");
    let mut bytes = Writer::default().header();
    bytes[8..16].copy_from_slice(&MAX_COUNT.to_le_bytes());
    let error = GgufHeader::read(&mut &bytes[..], u64::MAX).unwrap_err();
    assert!(matches!(error, GgufError::Truncated { .. }), "{error}");
}

#[test]
fn nested_arrays_have_a_limit() {
    let nested = |depth| {
        let mut value = array(0, 2, &[1, 2]);
        for _ in 0..depth {
            value = array(9, 1, &value);
        }
        read(&Writer::default().entry("x", 9, &value).u32("y", 1).file())
    };
    assert_eq!(nested(4).unwrap().u64("y"), Some(1));
    assert!(matches!(nested(100_000), Err(GgufError::Nesting { key }) if key == "x"));
}

#[test]
fn broken_entries_are_errors() {
    let long = "k".repeat(65_536);
    assert!(matches!(
        read(&Writer::default().u32(&long, 1).file()),
        Err(GgufError::NameLength { len: 65_536, .. })
    ));
    let unknown = Writer::default().entry("x", 13, &[0; 8]).file();
    assert!(matches!(read(&unknown), Err(GgufError::ValueType { id: 13, .. })));
    let unknown = Writer::default().entry("x", 9, &array(99, 1, &[0; 8])).file();
    assert!(matches!(read(&unknown), Err(GgufError::ValueType { id: 99, .. })));
    for alignment in [0, 3, 48] {
        let bytes = Writer::default().u32("general.alignment", alignment).file();
        assert!(matches!(read(&bytes), Err(GgufError::Alignment)), "{alignment}");
    }
    let bytes = Writer::default().tensor_at("t", &[1; 9], 0, 0).file();
    assert!(matches!(read(&bytes), Err(GgufError::Dimensions { dims: 9, .. })));
}

#[test]
fn flaws_leave_the_header_readable() {
    let tensor = || Box::<str>::from("t");
    let cases = [
        (Writer::default().tensor_at("t", &[1], 99, 0), GgufFlaw::UnknownType { tensor: tensor(), id: 99 }),
        (Writer::default().tensor_at("t", &[31], 2, 0), GgufFlaw::SizeImpossible { tensor: tensor() }),
        (
            Writer::default().tensor_at("t", &[u64::MAX, 2], 0, 0),
            GgufFlaw::SizeImpossible { tensor: tensor() },
        ),
        (Writer::default().tensor_at("t", &[1], 0, 8), GgufFlaw::Misaligned { tensor: tensor(), offset: 8 }),
        (
            Writer::default().tensor_at("s", &[64], 0, 0).tensor_at("t", &[1], 0, 32),
            GgufFlaw::Overlap { tensor: tensor(), offset: 32, previous_end: 256 },
        ),
        (
            Writer::default().tensor_at("t", &[8], 0, 0).tensor_at("t", &[1], 0, 32),
            GgufFlaw::Duplicate { name: tensor() },
        ),
        (Writer::default().u32("t", 1).u32("t", 2), GgufFlaw::Duplicate { name: tensor() }),
    ];
    for (writer, flaw) in cases {
        assert_eq!(read(&writer.file()).unwrap().flaws, [flaw]);
    }
}

#[test]
fn a_size_that_is_not_known_is_absent() {
    let header = read(&Writer::default().tensor_at("t", &[1], 99, 64).file()).unwrap();
    assert_eq!((header.bits_per_weight(), header.file_len_expected()), (None, None));
    assert_eq!(header.length_verdict(1000), None);
    let expected = header.data_offset + 64;
    assert_eq!(header.length_verdict(90), Some(LengthVerdict::Truncated { expected, actual: 90 }));
}

#[test]
fn a_vocabulary_of_a_quarter_million_is_passed_over() {
    let tokens: Vec<u8> = (0..262_144).flat_map(|i| text(&format!("token{i}"))).collect();
    let writer =
        llama().entry("tokenizer.ggml.tokens", 9, &array(8, 262_144, &tokens)).u32("llama.vocab_size", 9);
    let header = read(&writer.file()).unwrap();
    assert_eq!((header.token_count, header.vocab_size()), (Some(262_144), Some(9)));
}

#[test]
fn text_too_long_or_not_utf8_does_no_harm() {
    let writer = Writer::default().str("general.description", &"x".repeat(20_000));
    assert_eq!(read(&writer.file()).unwrap().metadata.len(), 0);
    let writer = Writer::default().entry("general.name", 8, b"\x02\0\0\0\0\0\0\0a\xff");
    assert_eq!(read(&writer.file()).unwrap().str("general.name"), Some("a\u{fffd}"));
}

#[test]
fn types_keep_their_numbers_and_sizes() {
    for t in GgmlType::ALL {
        assert_eq!(GgmlType::from_id(t.id()), *t);
    }
    assert_eq!(GgmlType::Unknown(77).to_string(), "type 77");
    let bits =
        [(GgmlType::Q4_K, 4.5), (GgmlType::Q6_K, 6.5625), (GgmlType::IQ1_S, 1.5625), (GgmlType::MXFP4, 4.25)];
    for (t, bits) in bits {
        assert_eq!(t.bits_per_element(), Some(bits));
    }
    assert_eq!((file_type_label(1024), file_type_label(38)), (None, Some("MXFP4_MOE")));
}

fn writers() -> impl Strategy<Value = (Writer, usize)> {
    let tensor = ("[a-z.]{1,20}", prop::collection::vec(1u64..4, 0..3), prop::sample::select(GgmlType::ALL));
    let metadata = prop::collection::btree_map("[a-z._]{1,20}", "\\PC{0,20}", 0..6);
    (metadata, prop::collection::vec(tensor, 0..6)).prop_map(|(metadata, tensors)| {
        let count = metadata.len();
        let writer = metadata.iter().fold(Writer::default(), |w, (k, v)| w.str(k, v));
        let writer = tensors.iter().enumerate().fold(writer, |w, (i, (name, dims, t))| {
            let dims = [&[256][..], dims].concat();
            w.tensor(&format!("{name}{i}"), &dims, *t)
        });
        (writer, count)
    })
}

proptest! {
    #[test]
    fn a_valid_file_round_trips((writer, entries) in writers()) {
        let bytes = writer.file();
        let header = read(&bytes).unwrap();
        prop_assert_eq!(&header.flaws, &[]);
        prop_assert_eq!((header.tensors.len() as u64, header.metadata.len()), (writer.count, entries));
        prop_assert_eq!(header.length_verdict(bytes.len() as u64), Some(LengthVerdict::Complete));
    }

    #[test]
    fn damage_never_panics(damage in damage(), (writer, _) in writers(), full in any::<bool>()) {
        let bytes = damaged(if full { llama().file() } else { writer.file() }, &damage);
        if let Ok(header) = read(&bytes) {
            header.length_verdict(bytes.len() as u64);
            header.bits_per_weight();
        }
    }
}

#[test]
fn truncation_at_any_byte_is_an_error_or_a_verdict() {
    let bytes = llama().file();
    let header = read(&bytes).unwrap();
    for len in 0..bytes.len() {
        match read(&bytes[..len]) {
            Ok(header) => assert!(header.length_verdict(len as u64).is_some()),
            Err(GgufError::Truncated { .. } | GgufError::Count { .. }) => {
                assert!((len as u64) < header.header_len);
            }
            Err(error) => panic!("{len}: {error}"),
        }
        // The file is longer than what can be read of it.
        let short = GgufHeader::read(&mut &bytes[..len], bytes.len() as u64);
        assert_eq!(short.is_ok(), len as u64 >= header.header_len);
    }
}
