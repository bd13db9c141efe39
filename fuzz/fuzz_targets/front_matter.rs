#![no_main]
//! `cargo fuzz run --features libfuzzer front_matter`

libfuzzer_sys::fuzz_target!(|data: &[u8]| mlxman_fuzz::targets::front_matter::run(data));
