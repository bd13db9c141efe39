use mlxman_manifest::formats::LengthVerdict;
use mlxman_manifest::formats::safetensors::{Flaw, HeaderError, SafetensorsHeader};

/// Reads a whole file's header, and the header of the same file with a length that lies.
pub fn run(data: &[u8]) {
    let len = data.len() as u64;
    match SafetensorsHeader::read(&mut &*data, len) {
        Ok(header) => check(&header, len),
        Err(HeaderError::Io(error)) => panic!("no file is involved: {error}"),
        Err(error) => drop(error.to_string()),
    }
    drop(SafetensorsHeader::read(&mut &*data, u64::MAX));
    drop(SafetensorsHeader::read(&mut &*data, len / 2));
}

fn check(header: &SafetensorsHeader, len: u64) {
    assert!(header.header_len + 8 <= len);
    assert!(header.tensors.is_sorted_by_key(|t| t.begin));
    for flaw in &header.flaws {
        assert!(!flaw.to_string().is_empty());
    }
    let broken = |f: &Flaw| matches!(f, Flaw::EndBeforeBegin { .. });
    if header.length_verdict(len) == LengthVerdict::Complete && !header.flaws.iter().any(broken) {
        assert_eq!(header.tensors_beyond(len).count(), 0);
    }
    if header.flaws.is_empty() {
        // Sound tensors fill the data without a gap.
        assert_eq!(header.tensors.iter().map(|t| t.byte_len()).sum::<u64>(), header.data_len_expected());
    }
}

/// A file with `header` and `data` bytes behind it.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Files as MLX writes them, and hostile ones.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let two = r#"{"__metadata__":{"format":"mlx"},"a.weight":{"dtype":"U32","shape":[4],"data_offsets":[0,16]},"a.scales":{"dtype":"BF16","shape":[2,3],"data_offsets":[16,28]}}   "#;
    let tensor = |shape: &str, offsets: &str| {
        format!(r#"{{"t":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let max = u64::MAX;
    vec![
        ("mlx.safetensors", file(two, 28)),
        ("truncated.safetensors", file(two, 9)),
        ("trailing.safetensors", file(two, 40)),
        ("no-tensors.safetensors", file("{}", 0)),
        ("negative-offset.safetensors", file(&tensor("[1]", "[-4,0]"), 4)),
        ("float-offset.safetensors", file(&tensor("[1]", "[0,4.0]"), 4)),
        ("end-before-begin.safetensors", file(&tensor("[1]", "[4,0]"), 4)),
        ("huge-offset.safetensors", file(&tensor("[1]", &format!("[0,{max}]")), 4)),
        ("huge-shape.safetensors", file(&tensor(&format!("[{max},{max}]"), "[0,4]"), 4)),
        ("zero-in-huge-shape.safetensors", file(&tensor(&format!("[{max},{max},0]"), "[0,0]"), 0)),
        ("duplicates.safetensors", file(&[two.trim_end_matches(['}', ' ']), "}},", &two[1..]].concat(), 28)),
        ("huge-length.safetensors", u64::MAX.to_le_bytes().to_vec()),
        ("longest-length.safetensors", 100_000_000u64.to_le_bytes().to_vec()),
        ("deep-lists.safetensors", file(&format!("{{\"t\":{{\"shape\":{}", "[".repeat(3000)), 0)),
        ("deep-objects.safetensors", file(&"{\"a\":".repeat(700), 0)),
        ("lfs-pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec()),
        ("empty.safetensors", Vec::new()),
    ]
}
