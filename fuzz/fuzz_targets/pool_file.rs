#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blockmill_fuzz::run("pool_file", data));
