//! The tiny decoders have the bytes that make.py computed, and are whole models.

use mlxman_testkit::Golden;
use mlxman_testkit::safetensors::parse_header;

#[test]
fn every_tensor_has_the_bytes_that_python_computed() {
    let goldens = Golden::all();
    assert!(goldens.len() >= 250, "only {} cases", goldens.len());
    for golden in goldens {
        assert_eq!(golden.computed_digest(), golden.digest, "{}", golden.name);
    }
}

#[test]
fn a_case_is_whole() {
    for golden in Golden::all() {
        let both = std::iter::once(&golden.answers).chain(&golden.answers_float32);
        for answers in both {
            assert_eq!(answers.prompt_ids.len(), 17, "{}", golden.name);
            assert_eq!(answers.logits_head.len(), 64, "{}", golden.name);
            assert_eq!(answers.top10.len(), 10, "{}", golden.name);
            assert_eq!(answers.greedy.len(), 24, "{}", golden.name);
            assert_eq!(answers.greedy[0], answers.top10[0].0, "{}", golden.name);
        }
        assert!(golden.margin > 0.0, "{}", golden.name);
        assert!(golden.config["model_type"].is_string(), "{}", golden.name);
    }
}

#[test]
fn a_checkpoint_is_written() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let golden = Golden::named("llama-4bit-f32").expect("a golden");
    golden.write_checkpoint(dir.path());
    let bytes = fs_err::read(dir.path().join("model.safetensors")).expect("the weights");
    let header = parse_header(&bytes).expect("a valid file");
    assert_eq!(header["__metadata__"]["format"], "mlx");
    assert_eq!(header.len(), golden.tensors().len() + 1);
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "reference.json"] {
        let text = fs_err::read_to_string(dir.path().join(name)).expect("a file");
        let _: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    }
}
