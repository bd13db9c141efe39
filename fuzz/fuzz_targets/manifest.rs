//! `cargo fuzz run --features libfuzzer manifest`
#![no_main]
#![expect(clippy::disallowed_methods, reason = "the macro's own")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mlxman_fuzz::targets::manifest::run(data));
