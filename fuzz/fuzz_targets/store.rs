#![no_main]

#[path = "../checks/store.rs"]
mod store;

libfuzzer_sys::fuzz_target!(|input: &[u8]| store::check(input));
