#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hearsay_fuzz::run("frames", data));
