#![no_main]

#[path = "../checks/replies.rs"]
mod replies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| replies::check(input));
