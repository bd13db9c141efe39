#![no_main]
//! `cargo fuzz run --features libfuzzer gguf_header`

libfuzzer_sys::fuzz_target!(|data: &[u8]| mlxman_fuzz::targets::gguf_header::run(data));
