#![no_main]

#[path = "../checks/dispatcher.rs"]
mod dispatcher;

libfuzzer_sys::fuzz_target!(|input: &[u8]| dispatcher::check(input));
