#![no_main]
//! `cargo fuzz run --features libfuzzer safetensors_header`

libfuzzer_sys::fuzz_target!(|data: &[u8]| mlxman_fuzz::targets::safetensors_header::run(data));
