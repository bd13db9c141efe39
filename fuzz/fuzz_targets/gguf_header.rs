//! `cargo fuzz run --features libfuzzer gguf_header`
#![no_main]
#![expect(clippy::disallowed_methods, reason = "the macro's own")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mlxman_fuzz::targets::gguf_header::run(data));
