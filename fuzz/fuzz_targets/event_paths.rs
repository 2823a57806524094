#![no_main]

#[path = "../checks/event_paths.rs"]
mod event_paths;

libfuzzer_sys::fuzz_target!(|input: &[u8]| event_paths::check(input));
