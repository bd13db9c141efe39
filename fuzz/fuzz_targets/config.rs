#![no_main]
//! `cargo fuzz run --features libfuzzer config`

libfuzzer_sys::fuzz_target!(|data: &[u8]| mlxman_fuzz::targets::config::run(data));
