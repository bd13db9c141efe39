use mlxman_manifest::formats::LengthVerdict;
use mlxman_manifest::formats::gguf::{GgufError, GgufHeader};

/// Reads a whole file's header, and the header of the same file with a length that lies.
pub fn run(data: &[u8]) {
    let len = data.len() as u64;
    match GgufHeader::read(&mut &*data, len) {
        Ok(header) => check(&header, len),
        Err(GgufError::Io(error)) => panic!("no file is involved: {error}"),
        Err(error) => drop(error.to_string()),
    }
    drop(GgufHeader::read(&mut &*data, u64::MAX));
    drop(GgufHeader::read(&mut &*data, len / 2));
}

fn check(header: &GgufHeader, len: u64) {
    assert!(header.header_len <= len && header.header_len <= header.data_offset);
    assert!(header.alignment.is_power_of_two() && header.data_offset.is_multiple_of(header.alignment));
    assert!(header.tensors.is_sorted_by_key(|t| t.offset));
    for flaw in &header.flaws {
        assert!(!flaw.to_string().is_empty());
    }
    assert!(header.bits_per_weight().is_none_or(|bits| bits >= 0.0));
    let _ = (header.split(), header.vocab_size(), header.file_type_label());
    if let Some(expected) = header.file_len_expected() {
        let short = matches!(header.length_verdict(len), Some(LengthVerdict::Truncated { .. }));
        assert_eq!(short, len < expected);
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn entry(key: &str, id: u32, value: &[u8]) -> Vec<u8> {
    [&text(key)[..], &id.to_le_bytes(), value].concat()
}

fn array(item: u32, count: u64, items: &[u8]) -> Vec<u8> {
    [&item.to_le_bytes()[..], &count.to_le_bytes(), items].concat()
}

fn tensor(name: &str, dims: &[u64], id: u32, offset: u64) -> Vec<u8> {
    let dims: Vec<u8> = [dims.len() as u32]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .chain(dims.iter().flat_map(|d| d.to_le_bytes()))
        .collect();
    [&text(name)[..], &dims, &id.to_le_bytes(), &offset.to_le_bytes()].concat()
}

/// A version 3 file; `data` counts from the aligned start of the data.
fn file(entries: &[Vec<u8>], tensors: &[Vec<u8>], data: usize) -> Vec<u8> {
    let counts = [tensors.len() as u64, entries.len() as u64].map(u64::to_le_bytes).concat();
    let mut bytes = [b"GGUF\x03\0\0\0", &counts[..], &entries.concat(), &tensors.concat()].concat();
    bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
    bytes
}

/// Files as llama.cpp writes them, and hostile ones.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let entries = [
        entry("general.architecture", 8, &text("llama")),
        entry("general.name", 8, &text("Tiny")),
        entry("general.file_type", 4, &15u32.to_le_bytes()),
        entry("general.tags", 9, &array(8, 2, &[text("a"), text("b")].concat())),
        entry("llama.block_count", 4, &2u32.to_le_bytes()),
        entry("llama.attention.head_count_kv", 9, &array(5, 2, &[8, 0, 0, 0, 4, 0, 0, 0])),
        entry("llama.rope.freq_base", 6, &10_000f32.to_le_bytes()),
        entry("tokenizer.ggml.tokens", 9, &array(8, 3, &[text("a"), text(""), text("c")].concat())),
        entry("tokenizer.ggml.scores", 9, &array(6, 3, &[0; 12])),
    ];
    let tensors = [tensor("token_embd.weight", &[256, 2], 12, 0), tensor("norm.weight", &[8], 0, 288)];
    let huge = u64::MAX.to_le_bytes();
    let nested = (0..60).fold(array(0, 1, &[1]), |value, _| array(9, 1, &value));
    let with = |at: usize, new: &[u8]| {
        let mut bytes = file(&entries, &tensors, 320);
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    vec![
        ("llama.gguf", file(&entries, &tensors, 320)),
        ("truncated.gguf", file(&entries, &tensors, 300)),
        ("version-2.gguf", with(4, &[2])),
        ("big-endian.gguf", with(4, &[0, 0, 0, 3])),
        ("split.gguf", file(&[entry("split.no", 2, &[1, 0]), entry("split.count", 2, &[3, 0])], &[], 0)),
        ("aligned-64.gguf", file(&[entry("general.alignment", 4, &64u32.to_le_bytes())], &tensors[..1], 352)),
        ("alignment-zero.gguf", file(&[entry("general.alignment", 4, &[0; 4])], &tensors, 320)),
        ("huge-tensor-count.gguf", with(8, &huge)),
        ("huge-entry-count.gguf", with(16, &huge)),
        ("huge-key.gguf", with(24, &huge)),
        ("huge-text.gguf", file(&[entry("general.name", 8, &huge)], &[], 0)),
        ("huge-array.gguf", file(&[entry("x", 9, &array(12, u64::MAX / 8 + 1, &[]))], &[], 0)),
        ("huge-text-array.gguf", file(&[entry("general.tags", 9, &array(8, u64::MAX, &huge))], &[], 0)),
        ("nested-arrays.gguf", file(&[entry("x", 9, &nested)], &[], 0)),
        ("huge-dims.gguf", file(&[], &[tensor("t", &[u64::MAX, 2, 0, u64::MAX], 2, 1)], 0)),
        ("many-dims.gguf", file(&[], &[tensor("t", &[1; 40], 0, 0)], 0)),
        ("unknown-type.gguf", file(&[], &[tensor("t", &[1], 999, 0), tensor("t", &[1], 0, u64::MAX)], 4)),
        ("old-format.gguf", b"tjgg\x03\0\0\0".to_vec()),
    ]
}
