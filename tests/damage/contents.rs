//! Files whose contents are not what they should be.

use super::*;

#[test]
fn a_config_that_is_not_json() {
    for bytes in [&b"{\"model_type\": \"llama\""[..], b"", b"not json", b"\xff\xfe\x00", b"[]", b"null"] {
        let ward = Ward::new();
        let snapshot = ward.broken();
        overwrite(&snapshot.path().join("config.json"), bytes);
        let broken = ward.check_model("config_invalid", "damaged");
        let problem = broken["health"]["problems"]
            .as_array()
            .expect("problems")
            .iter()
            .find(|problem| problem["kind"] == "config_invalid")
            .expect("it is there");
        assert_eq!(problem["path"], "config.json");
    }
}

#[test]
fn a_safetensors_header_of_100_mb_and_more() {
    for length in [100_000_001_u64, 1 << 40, u64::MAX, u64::MAX - 7, 1 << 63] {
        let ward = Ward::new();
        let blob = weights(&ward.broken());
        let mut bytes = fs_err::read(&blob).expect("the weights");
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        fs_err::write(&blob, bytes).expect("the header is changed");
        let _ = ward.check_model("header_invalid", "damaged");
    }
}

#[test]
fn a_safetensors_header_that_really_is_so_long_is_not_read() {
    let ward = Ward::new();
    let blob = weights(&ward.broken());
    let mut bytes = fs_err::read(&blob).expect("the weights");
    bytes[..8].copy_from_slice(&3_000_000_000_u64.to_le_bytes());
    fs_err::write(&blob, bytes).expect("the header is changed");
    cut(&blob, 4_000_000_000);
    let start = Instant::now();
    let _ = ward.lab.run(["sync", "--fast"]).expect_code(1);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let list = ward.lab.list();
    assert!(
        kinds(model(&list, BROKEN)).contains(&"header_invalid".to_owned()),
        "{:?}",
        model(&list, BROKEN)["health"]
    );
}

#[test]
fn offsets_that_cannot_be() {
    for offsets in
        ["[-8,8]", "[8,0]", "[0,-1]", "[0,18446744073709551616]", "[0.5,16]", "[0]", "\"x\"", "[0,12]"]
    {
        let ward = Ward::new();
        let header =
            format!("{{\"a.weight\":{{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":{offsets}}}}}");
        let mut files = four_bit(3).files();
        replace(&mut files, "model.safetensors", safetensors(&header, 16));
        files.retain(|(path, _)| path != "model.safetensors.index.json");
        let _ = ward.broken_of(&files);
        let _ = ward.check_model("header_invalid", "damaged");
    }
}

#[test]
fn tensors_that_overlap() {
    let ward = Ward::new();
    let header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},\
                  \"b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[8,24]}}";
    let mut files = four_bit(3).files();
    replace(&mut files, "model.safetensors", safetensors(header, 24));
    files.retain(|(path, _)| path != "model.safetensors.index.json");
    let _ = ward.broken_of(&files);
    let _ = ward.check_model("header_invalid", "damaged");
}

#[test]
fn a_shape_whose_product_overflows() {
    let ward = Ward::new();
    let header =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4294967296],\"data_offsets\":[0,16]}}";
    let mut files = four_bit(3).files();
    replace(&mut files, "model.safetensors", safetensors(header, 16));
    files.retain(|(path, _)| path != "model.safetensors.index.json");
    let _ = ward.broken_of(&files);
    let _ = ward.check_model("header_invalid", "damaged");
}

#[test]
fn a_gguf_cut_short() {
    let whole = gguf_model(3, "tiny-Q4_0.gguf");
    let length = whole[0].1.len() as u64;
    for (keep, wanted) in
        [(length - 40, "truncated_weights"), (300, "gguf_invalid"), (10, "gguf_invalid"), (0, "gguf_invalid")]
    {
        let ward = Ward::new();
        let snapshot = ward.broken_of(&whole);
        cut(&snapshot.blob_of("tiny-Q4_0.gguf"), keep);
        let list = ward.check();
        let broken = model(&list, BROKEN);
        assert_eq!(broken["health"]["status"], "damaged", "cut to {keep}");
        let found = kinds(broken);
        let header = wanted == "gguf_invalid" && found.iter().any(|kind| kind == "truncated_weights");
        assert!(found.contains(&wanted.to_owned()) || header, "cut to {keep}: {found:?}");
    }
}

#[test]
fn json_that_is_10_000_deep() {
    let list = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let map = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let inside = format!("{{\"model_type\": \"llama\", \"x\": {map}}}");
    for deep in [&list, &map, &inside, &"[".repeat(1_000_000)] {
        let ward = Ward::new();
        let snapshot = ward.broken();
        overwrite(&snapshot.path().join("config.json"), deep);
        let _ = ward.check_model("config_invalid", "damaged");
    }
    let ward = Ward::new();
    let mut files = four_bit(3).files();
    replace(&mut files, "model.safetensors", safetensors(&map, 0));
    let _ = ward.broken_of(&files);
    let _ = ward.check_model("header_invalid", "damaged");

    // In the other files that are read: whatever is said of it, nothing breaks.
    for file in
        ["model.safetensors.index.json", "tokenizer_config.json", "adapter_config.json", "model_index.json"]
    {
        let ward = Ward::new();
        let mut files = four_bit(3).files();
        replace(&mut files, file, map.as_bytes());
        let _ = ward.broken_of(&files);
        ward.lab.sync_any();
        let list = ward.lab.list();
        assert_eq!(names(&list).len(), 3, "{file}");
        assert_eq!(model(&list, WELL[0])["health"]["status"], "complete");
    }
    for yaml in [format!("---\na: {list}\n---\n"), format!("---\n{}x\n---\n", "- ".repeat(10_000))] {
        let ward = Ward::new();
        let mut files = four_bit(3).files();
        replace(&mut files, "README.md", yaml);
        let _ = ward.broken_of(&files);
        ward.lab.sync_any();
        assert_eq!(names(&ward.lab.list()).len(), 3);
    }
}
